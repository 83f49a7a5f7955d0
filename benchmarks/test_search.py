"""Plans a second of the search, what a plan costs in operations and bytes, and how time grows with the space."""

import math
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest
from counting import work_of

from perfmodel.prediction.serving import Case, usable_memory
from perfmodel.solver import search
from perfmodel.solver.mesh import Mesh, meshes
from perfmodel.solver.request import SearchRequest
from perfmodel.solver.search import Limits, _best_of_chunk, best_decode
from perfmodel.solver.solve import solve
from perfmodel.solver.space import Choices
from perfmodel.solver.tally import Tally
from perfmodel.specs.deployment import Targets

TPOT = 0.05
LARGEST = 47  # servers of a decode pool on 384 cards
PLANS_A_SECOND = 20e6


def sizes(case: Case, servers: int = LARGEST) -> list[int]:
    return [n * case.rates.dies_per_server for n in range(1, servers + 1)]


def fastest(run: Any, rounds: int = 3) -> float:
    """Return the shortest time of some runs: what else a machine does only adds to it."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def test_plans_a_second(benchmark: Any, case: Case) -> None:
    """Every plan of a 384-card space: step time, memory, both constraints, the best."""
    tally = Tally()
    best_decode(case, sizes(case), TPOT, [math.inf], Choices(), tally)
    benchmark.pedantic(
        lambda: best_decode(case, sizes(case), TPOT, [math.inf], Choices(), Tally()), rounds=5, warmup_rounds=1
    )
    rate = tally.evaluated / benchmark.stats.stats.min
    benchmark.extra_info |= {"plans": tally.evaluated, "million plans a second": round(rate / 1e6, 1)}
    assert tally.evaluated > 10e6
    assert rate > PLANS_A_SECOND


@pytest.mark.parametrize("overlap", ["none", "cores"])
@pytest.mark.parametrize("own", [False, True], ids=["shared everywhere", "shared apart"])
def test_one_chunk_on_one_thread(benchmark: Any, case: Case, overlap: str, own: bool) -> None:
    chunks = [
        mesh
        for mesh in meshes(case, "decode", sizes(case), Choices())
        if mesh.family.overlap == overlap and mesh.family.own_shared_ranks == own and mesh.family.exchange == "dispatch"
    ]
    largest = max(chunks, key=lambda mesh: math.prod(mesh.shape))
    limit = float(usable_memory(case.rates))  # type: ignore[arg-type]
    search._keep_freed_memory()
    benchmark(lambda: _best_of_chunk(largest, case, limit, [Limits(tpot=TPOT)]))
    plans = math.prod(largest.shape)
    work = work_of(largest, case, limit, TPOT)
    benchmark.extra_info |= {
        "plans": plans,
        "ns a plan": round(benchmark.stats.stats.min / plans * 1e9, 1),
        "operations a plan": round(work.elements.total() / plans, 1),
        "bytes a plan": round(work.bytes / plans),
    }


def test_work_of_a_plan(benchmark: Any, case: Case) -> None:
    """Element operations and bytes of arrays for each plan, counted over the whole space."""
    chunks: list[Mesh] = list(meshes(case, "decode", sizes(case), Choices()))
    limit = float(usable_memory(case.rates))  # type: ignore[arg-type]
    works = benchmark.pedantic(lambda: [work_of(mesh, case, limit, TPOT) for mesh in chunks], rounds=1)
    plans = sum(math.prod(mesh.shape) for mesh in chunks)
    elements: Counter[str] = sum((work.elements for work in works), Counter())
    benchmark.extra_info |= {
        "passes": len(chunks),
        "calls": sum(work.calls for work in works),
        "operations a plan": round(elements.total() / plans, 1),
        "bytes a plan": round(sum(work.bytes for work in works) / plans),
        **{name: round(count / plans, 2) for name, count in elements.most_common() if count / plans >= 0.01},
    }


@pytest.mark.parametrize("servers", [12, 24, 48])
def test_growth_with_cards(benchmark: Any, case: Case, servers: int) -> None:
    tally = Tally()
    best_decode(case, sizes(case, servers - 1), TPOT, [math.inf], Choices(), tally)
    benchmark.pedantic(
        lambda: best_decode(case, sizes(case, servers - 1), TPOT, [math.inf], Choices(), Tally()), rounds=3
    )
    benchmark.extra_info |= {"cards": servers * 8, "plans": tally.evaluated}


@pytest.mark.parametrize("isl", [16384, 8192, 4096, 2048])
def test_growth_with_the_batch_range(benchmark: Any, case: Case, isl: int) -> None:
    """Shorter contexts leave room for more sequences: the batch axis grows."""
    from dataclasses import replace

    shorter, tally = replace(case, isl=isl), Tally()
    best_decode(shorter, sizes(case, 23), TPOT, [math.inf], Choices(), tally)
    benchmark.pedantic(lambda: best_decode(shorter, sizes(case, 23), TPOT, [math.inf], Choices(), Tally()), rounds=3)
    benchmark.extra_info["plans"] = tally.evaluated


@pytest.mark.parametrize("rate", [None, 1.0, 10.0, 100.0])
def test_growth_with_the_rate(benchmark: Any, case: Case, rate: float | None) -> None:
    """A rate chooses among joined pools; the space stays."""
    request = SearchRequest(
        servers=24,
        rate=rate,
        targets=Targets(tpot=TPOT),
        utilisation=0.8,
        objective="throughput" if rate is None else "cards",
        choices=Choices(),
        top=5,
    )
    found = benchmark.pedantic(lambda: solve(case, request), rounds=3)
    benchmark.extra_info["plans"] = found.evaluated


def test_time_grows_no_faster_than_plans(case: Case) -> None:
    """A space four times as large takes at most four times as long, and a tenth more for the clock."""
    few, many = (sizes(case, servers) for servers in (16, 47))
    times, plans = [], []
    for some in (few, many):
        tally = Tally()
        best_decode(case, some, TPOT, [math.inf], Choices(), tally)
        plans.append(tally.evaluated)
        times.append(fastest(lambda some=some: best_decode(case, some, TPOT, [math.inf], Choices(), Tally())))
    assert times[1] / times[0] < 1.1 * plans[1] / plans[0]


def test_no_pass_leaves_a_watched_function_out(case: Case) -> None:
    """The book of a chunk is complete: what it holds at least is one operation of each plan for each constraint."""
    mesh = next(meshes(case, "decode", sizes(case, 2), Choices()))
    work = work_of(mesh, case, 1e10, TPOT)
    assert work.elements["greater"] >= np.prod(mesh.shape)
