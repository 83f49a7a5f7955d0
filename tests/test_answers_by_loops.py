"""What the solver answers equals loops over every deployment of small spaces, or over what it was handed."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from perfmodel.errors import UsageError
from perfmodel.ledger.records import Layout
from perfmodel.prediction.serving import Case, first_token, usable_memory
from perfmodel.solver import alternatives, front, infeasibility, lowest_tpot, mesh, optimal_range, space
from perfmodel.solver.both_pools import searched
from perfmodel.solver.join import Join, Prefills, joined
from perfmodel.solver.mesh import Leader
from perfmodel.solver.request import Cases, SearchRequest
from perfmodel.solver.solution import Status
from perfmodel.solver.solve import solve
from perfmodel.solver.space import Choices
from perfmodel.solver.tally import Tally, describe
from perfmodel.specs.deployment import Targets
from tests.test_mixed_by_loops import CLOSE, LARGEST, Pair, Plan, at_share, pairs_of, plans_of, small_case

UTILISATION = 0.83


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh, "LARGEST_BATCH", LARGEST)
    monkeypatch.setattr(space, "SHARED_STEP", 1)


def asked_for(**changes: Any) -> SearchRequest:
    """Return a request of two pools on three servers."""
    given: dict[str, Any] = {
        "servers": 3, "rate": None, "targets": Targets(), "utilisation": UTILISATION, "objective": "throughput",
        "choices": Choices(), "top": 4,
    }  # fmt: skip
    return SearchRequest(**(given | changes))


@dataclass(frozen=True, eq=False)
class Whole:
    """Whole instances of both pools, or mixed ones."""

    decode: Plan
    prefill: Plan
    instances: tuple[int, int]
    tpot: float
    served: float
    ttft: float
    #: servers of prefill and of decode
    servers: tuple[int, int]
    mixed: bool = False

    def worth(self, asked: SearchRequest) -> float:
        """Return its objective, the more the better."""
        prefill, decode = self.servers
        money = prefill * asked.prices[0] + decode * asked.prices[1]
        match asked.objective:
            case "throughput":
                return self.served
            case "tpot":
                return 1 / self.tpot
            case "cards":
                return 1 / (prefill + decode)
            case "per-card":
                money = prefill + decode
        return (1 if asked.rate is not None else self.served) / money


def sizes_of(case: Case, servers: int) -> list[int]:
    """Return the halves of a server and whole servers, in dies."""
    one = case.rates.dies_per_server
    return [one // part for part in (8, 4, 2) if one % part == 0] + [one * n for n in range(1, servers + 1)]


def waited(plan: Plan, case: Case) -> float:
    """Return the TTFT of a prefill layout up to the first decode step."""
    terms = first_token(
        prefill=plan.point, layout=Layout.of(plan.layout), case=case, utilisation=UTILISATION, decode_step=0.0
    )
    return float(terms.ttft)


@dataclass(frozen=True, eq=False)
class Pools:
    """All layouts that fit the memory, for each cache precision."""

    cases: Cases
    sides: list[tuple[list[Plan], list[Plan]]]
    pairs: list[Pair]

    @property
    def decodes(self) -> list[Plan]:
        return [one for side, _ in self.sides for one in side]


def pools_of(cases: Cases, asked: SearchRequest) -> Pools:
    """Return every layout of both pools that fits, one by one, and of mixed instances where they are searched."""
    sides, pairs = [], []
    for kv_dtype in asked.choices.kv_dtypes:
        choices = replace(asked.choices, kv_dtypes=(kv_dtype,))
        most = asked.servers - (asked.prefill_servers is None)
        decodes = plans_of(cases.decode, "decode", sizes_of(cases.decode, most), choices)
        prefills = plans_of(cases.prefill, "prefill", sizes_of(cases.prefill, asked.prefill_servers or most), choices)
        fitting = [
            [one for one in side if float(one.point.memory) <= float(usable_memory(case.rates))]
            for side, case in ((decodes, cases.decode), (prefills, cases.prefill))
        ]
        sides.append((fitting[0], fitting[1]))
        if asked.serving != "disaggregated":
            found, _ = pairs_of(cases.decode, sizes_of(cases.decode, asked.servers), choices, UTILISATION)
            usable = float(usable_memory(cases.decode.rates))
            pairs += [pair for pair in found if pair.possible and pair.memory <= usable]
    return Pools(cases, sides, pairs)


def deployments(pools: Pools, asked: SearchRequest, decodes: list[Plan] | None = None) -> Iterator[Whole]:
    """Yield every count of instances of every pair of layouts within the limits."""
    of_prefill, of_decode = (case.rates.dies_per_server for case in (pools.cases.prefill, pools.cases.decode))
    tpot, ttft = asked.targets.tpot or math.inf, asked.targets.ttft or math.inf
    for side, prefills in pools.sides if asked.serving != "mixed" else ():
        waits = [waited(one, pools.cases.prefill) for one in prefills]
        for decode in side if decodes is None else [one for one in decodes if one in side]:
            if decode.tpot > tpot:
                continue
            counts = [n for n in range(1, 99) if -(-n * decode.layout.dies // of_decode) <= asked.servers]
            for (prefill, wait), n in product(zip(prefills, waits, strict=True), counts):
                first, used = wait + decode.step, -(-n * decode.layout.dies // of_decode)
                room = asked.servers - used if asked.prefill_servers is None else asked.prefill_servers
                for m in range(1, 1 + room * of_prefill // prefill.layout.dies if first <= ttft else 1):
                    own = -(-m * prefill.layout.dies // of_prefill)
                    served = UTILISATION * min(n * decode.rate, m * prefill.rate)
                    if served >= (asked.rate or 0) * (1 - CLOSE):
                        served = min(served, asked.rate or math.inf)
                        yield Whole(decode, prefill, (m, n), decode.tpot, served, first, (own, used))
    for pair in pools.pairs if asked.serving != "disaggregated" else ():
        for n in range(1, 99):
            used, served = -(-n * pair.decode.layout.dies // of_decode), n * pair.rate * UTILISATION
            if used > asked.servers or pair.time > tpot or pair.ttft > ttft:
                break
            if served >= (asked.rate or 0) * (1 - CLOSE):
                served = min(served, asked.rate or math.inf)
                yield Whole(pair.decode, pair.prefill, (n, n), pair.time, served, pair.ttft, (0, used), mixed=True)


def words_of(one: Whole) -> dict[str, str]:
    """Return what the plan chose, as the tables of ``solve`` name it."""
    layout, family = one.decode.layout, one.decode.family
    overlap = {"none": "serial layers", "cores": "micro-batches on split cores", "link": "overlap link"}
    return {
        "serving": "mixed: prefill and decode in turn on the same dies" if one.mixed else "disaggregated",
        "tp": f"tp {layout.tp}",
        "draft": {0: "0 drafts", 1: "1 draft", 2: "2 drafts"}[layout.draft],
        "overlap": overlap[layout.overlap],
        "exchange": f"exchange {layout.exchange}",
        "shared": "shared experts on dies of their own" if layout.shared_ranks else "shared expert on every die",
        "experts": "whole experts" if layout.expert_tp == 1 else f"experts split over {layout.expert_tp} dies",
        "cache": f"{family.kv_dtype} cache",
    }


PREFILL: dict[str, Any] = {"overlap": "link", "exchange": "gather", "tp": 2, "redundant": "fewest slots"}
FEWEST: dict[str, Any] = {"redundant": "fewest slots"}


def two_systems(usable: float | None = None) -> Cases:
    """Return prefill on servers of four packages of two dies, decode on servers of four of one."""
    decode = small_case(usable, dies_per_package=1, packages_per_server=4)
    prefill = small_case(usable and usable * 2, dies_per_package=2, packages_per_server=4)
    return Cases(prefill=replace(prefill, rates=replace(prefill.rates, frontend_rate=90.0, frontends=2)), decode=decode)


def one_system(usable: float | None = None) -> Cases:
    """Return both pools on servers of two packages of two dies."""
    case = small_case(usable)
    return Cases(prefill=case, decode=case)


@dataclass(frozen=True, eq=False)
class Given:
    """A space, its layouts, and a request."""

    cases: Cases
    asked: SearchRequest
    pools: Pools


def given(cases: Cases, tpot: float | None = None, **changes: Any) -> Given:
    """Return a request over a space, with a TPOT limit above such a share of its decode layouts."""
    decode = {**FEWEST, **changes.pop("decode", {})}
    prefill = {**PREFILL, **changes.pop("prefill", {})}
    offered = {phase: changes.get("offered", {}) for phase in ("prefill", "decode")}
    changes.pop("offered", None)
    choices = Choices(
        fixed={"prefill": prefill, "decode": decode}, offered=offered, kv_dtypes=changes.pop("kv", ("bf16",))
    )
    asked = asked_for(choices=choices, **changes)
    pools = pools_of(cases, asked)
    limit = None if tpot is None else at_share([one.tpot for one in pools.decodes], tpot)
    return Given(cases, replace(asked, targets=asked.targets.model_copy(update={"tpot": limit})), pools)


REQUESTS: dict[str, Any] = {
    "throughput": lambda: given(one_system(600e6), 0.4, kv=("bf16", "int8"), decode={"overlap": "cores"}),
    "cost at a rate": lambda: given(
        one_system(), 0.7, objective="cost", rate=60.0, prices=(3.0, 7.0), offered={"expert_tp": (1, 2)},
        decode={"overlap": "none"},
    ),
    "cards": lambda: given(one_system(), None, objective="per-card", prefill_servers=None, decode={"exchange": "gather"}),
    "two systems": lambda: given(
        two_systems(), 0.5, objective="per-card", prefill_servers=2, servers=2, decode={"overlap": "none"}
    ),
    "any": lambda: given(one_system(), 0.5, serving="any", targets=Targets(ttft=0.2), decode={"shared_ranks": 0, "tp": 2}),
    "mixed": lambda: given(one_system(), 0.6, serving="mixed", servers=2, decode={"exchange": "gather", "tp": 2}),
}  # fmt: skip


@pytest.mark.parametrize("name", REQUESTS)
def test_the_answer_is_that_of_loops_over_every_deployment(name: str) -> None:
    """Of each size, tp, draft and family the best; what each loses; the best of every other choice and what it loses."""
    one = REQUESTS[name]()
    best: dict[Any, float] = {}
    words: dict[str, float] = {}
    top: Whole | None = None
    others: list[tuple[dict[str, str], float]] = []
    for whole in deployments(one.pools, one.asked):
        layout, worth = whole.decode.layout, whole.worth(one.asked)
        kind = layout.dies, layout.tp, layout.draft, whole.decode.family, whole.mixed
        if worth > best.get(kind, 0.0):
            best[kind] = worth
        if top is None or worth > top.worth(one.asked) * (1 + CLOSE):
            top = whole
        others.append((whole, worth))
    solution = solve(one.cases.decode, one.asked, one.cases.prefill)
    assert top is not None
    assert solution.best is not None
    assert solution.status is Status.OPTIMAL
    ordered = sorted(best.values(), reverse=True)
    assert len(ordered) > 4
    worths = [worth_of(plan, one.asked) for plan in (solution.best, *solution.alternatives)]
    assert worths == pytest.approx(ordered[: one.asked.top], rel=CLOSE)
    assert solution.losses == pytest.approx([worth / ordered[0] - 1 for worth in ordered[1 : one.asked.top]], abs=CLOSE)
    chosen = structure_of(solution.best)
    for whole, worth in others:
        for respect, word in words_of(whole).items():
            if word != chosen[respect]:
                words[word] = max(words.get(word, 0.0), worth)
    told = {cost.choice: cost for cost in solution.alternative_costs}
    assert {word: cost.loss for word, cost in told.items()} == pytest.approx(
        {word: worth / ordered[0] - 1 for word, worth in words.items()}, abs=CLOSE
    )
    assert len(told) == len(solution.alternative_costs) >= 2
    for word, cost in told.items():
        assert word in structure_of(cost.deployment).values()
        assert worth_of(cost.deployment, one.asked) == pytest.approx(words[word], rel=CLOSE)
    assert solution.search == one.asked
    assert (solution.relaxed_rate is None) == (name != "throughput")
    assert bool(solution.shadow_prices) != solution.best.mixed


def worth_of(plan: Any, asked: SearchRequest) -> float:
    """Return the objective of a deployment that was told, from its own figures."""
    servers = plan.prefill_servers, plan.decode_servers
    return Whole(plan.decode, plan.prefill, (0, 0), plan.tpot, plan.requests_per_s, 0.0, servers).worth(asked)


def structure_of(plan: Any) -> dict[str, str]:
    """Return what a deployment that was told chose, in words."""
    return words_of(Whole(plan.decode, plan.prefill, (0, 0), 0.0, 0.0, 0.0, (0, 0), plan.mixed))
