"""The search equals brute force on small spaces, and never gets worse with more room."""

import math

import pytest

from perfmodel import catalog
from perfmodel.serving import Case, usable_memory
from perfmodel.solver.search import Tally, best_decode, exact_pool, meshes
from perfmodel.solver.solve import Request, solve
from perfmodel.solver.space import Choices
from perfmodel.specs.deployment import Targets


def case(isl: int, osl: int, system: str = "cloudmatrix384") -> Case:
    spec = catalog.load_system(system).spec
    rates = catalog.load_machine(spec.name, "cann-2025")[0].rates()
    return Case(model=catalog.load_model("deepseek-v3").spec, rates=rates, isl=isl, osl=osl, acceptance=(0.7,))


def test_best_decode_equals_brute_force() -> None:
    """Long contexts keep the batch axis short enough to walk plan by plan with plain numbers."""
    long, dies = case(120_000, 2000), 32
    limit = usable_memory(long.rates)
    walked = [
        exact_pool(mesh.layout_at(index), mesh.family, long).point
        for mesh in meshes(long, "decode", [dies], Choices())
        for index in range(math.prod(mesh.shape))
    ]
    for tpot in (0.02, 0.03, 0.05, 0.1):
        fitting = [p.requests_per_s for p in walked if p.tpot <= tpot and p.memory <= limit]
        tally = Tally()
        found = best_decode(long, [dies], tpot, [math.inf], Choices(), tally)
        assert tally.evaluated == len(walked)
        assert max((leader.plan(long).point.requests_per_s for leader in found), default=0.0) == pytest.approx(
            max(fitting, default=0.0), rel=1e-12
        )


def request(servers: int, tpot: float) -> Request:
    return Request(
        servers=servers, rate=None, targets=Targets(tpot=tpot), utilisation=0.8, objective="throughput",
        choices=Choices(), top=3,
    )  # fmt: skip


def test_more_room_is_never_worse() -> None:
    rates = [solve(case(2048, 512), request(n, t)).best for n, t in ((4, 0.05), (5, 0.05), (5, 0.08))]
    served = [plan.requests_per_s for plan in rates if plan]
    assert len(served) == 3
    assert served == sorted(served)


def test_fewest_cards_serve_the_rate() -> None:
    asked = Request(
        servers=8, rate=20.0, targets=Targets(tpot=0.05), utilisation=0.8, objective="cards", choices=Choices(), top=1
    )
    best = solve(case(2048, 512), asked).best
    assert best is not None
    assert best.requests_per_s == pytest.approx(20.0)
    assert best.prefill_utilisation <= 0.8 + 1e-9
    assert best.decode_utilisation <= 0.8 + 1e-9


@pytest.mark.parametrize("ttft", [0.15, 0.19])
def test_a_looser_tpot_never_costs_requests_under_a_ttft_limit(ttft: float) -> None:
    """The first decode step is part of TTFT, so the fastest decode plan may be too slow to start."""
    served = []
    for tpot in (0.03, 0.05, 0.1):
        asked = Request(
            servers=8,
            rate=None,
            targets=Targets(tpot=tpot, ttft=ttft),
            utilisation=0.8,
            objective="throughput",
            choices=Choices(),
            top=1,
        )
        best = solve(case(1024, 512), asked).best
        assert best is not None
        assert best.first_token.ttft <= ttft
        served.append(best.requests_per_s)
    assert served == sorted(served)
