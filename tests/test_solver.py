"""The search equals brute force on small spaces, and never gets worse with more room."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.prediction.deployment import exact_pool
from perfmodel.prediction.layouts import layout_faults
from perfmodel.prediction.serving import usable_memory
from perfmodel.solver.join import Prefills, joined
from perfmodel.solver.mesh import Leader, meshes
from perfmodel.solver.request import SearchRequest
from perfmodel.solver.search import best_decode
from perfmodel.solver.solve import solve
from perfmodel.solver.space import Choices
from perfmodel.solver.tally import Tally
from perfmodel.specs.deployment import Phase, Targets
from tests.builders import deepseek_case


@pytest.mark.parametrize(
    "choices",
    [
        Choices(),
        Choices(fixed={"decode": {"expert_tp": 2}}),
        Choices(offered={"decode": {"expert_tp": (1, 2, 8)}}, fixed={"decode": {"tp": 1}}),
    ],
    ids=["plain", "split experts", "split or whole experts"],
)
def test_best_decode_equals_brute_force(choices: Choices) -> None:
    """Long contexts keep the batch axis short enough to walk plan by plan with plain numbers."""
    long, dies = deepseek_case(120_000, 2000), 32
    limit = usable_memory(long.rates)
    walked = [
        exact_pool(mesh.layout_at(index), mesh.family, long).point
        for mesh in meshes(long, "decode", [dies], choices)
        for index in range(math.prod(mesh.shape))
    ]
    for tpot in (0.02, 0.03, 0.05, 0.1):
        fitting = [p.requests_per_s for p in walked if p.tpot <= tpot and p.memory <= limit]
        tally = Tally()
        found = best_decode(long, [dies], tpot, [math.inf], choices, tally)
        assert tally.evaluated == len(walked)
        assert max((leader.plan(long).point.requests_per_s for leader in found), default=0.0) == pytest.approx(
            max(fitting, default=0.0), rel=1e-12
        )


@pytest.mark.parametrize(("phase", "exchanges"), [("decode", {"dispatch", "gather"}), ("prefill", {"gather"})])
def test_split_experts_are_searched_where_the_rules_allow_them(phase: Phase, exchanges: set[str]) -> None:
    """Dispatch takes them in decode alone, in pairs of dies with one slot: for 256 experts on 512 dies or more."""
    one, sizes = deepseek_case(2048, 512), [4, 8, 48, 512, 576]
    choices = Choices(offered={phase: {"expert_tp": (1, 2, 4, 8)}})
    found: set[tuple[str, int, int]] = set()
    for mesh in meshes(one, phase, sizes, choices):
        for index in np.random.default_rng(0).integers(math.prod(mesh.shape), size=3).tolist():
            layout = mesh.layout_at(index)
            assert layout_faults(layout, phase, one.model, one.rates) == [], layout
            if layout.expert_tp > 1:
                found.add((layout.exchange, layout.expert_tp, layout.dies))
    assert {exchange for exchange, _, _ in found} == exchanges
    assert {(parts, dies) for exchange, parts, dies in found if exchange == "dispatch"} <= {(2, 512), (2, 576)}
    assert {parts for exchange, parts, _ in found if exchange == "gather"} == {2, 4, 8}


def request(servers: int, tpot: float) -> SearchRequest:
    return SearchRequest(
        servers=servers, rate=None, targets=Targets(tpot=tpot), utilisation=0.8, objective="throughput",
        choices=Choices(), top=3,
    )  # fmt: skip


def test_more_room_is_never_worse() -> None:
    rates = [solve(deepseek_case(2048, 512), request(n, t)).best for n, t in ((4, 0.05), (5, 0.05), (5, 0.08))]
    served = [plan.requests_per_s for plan in rates if plan]
    assert len(served) == 3
    assert served == sorted(served)


def test_fewest_cards_serve_the_rate() -> None:
    asked = SearchRequest(
        servers=8, rate=20.0, targets=Targets(tpot=0.05), utilisation=0.8, objective="cards", choices=Choices(), top=1
    )
    best = solve(deepseek_case(2048, 512), asked).best
    assert best is not None
    assert best.requests_per_s == pytest.approx(20.0)
    assert best.prefill_utilisation <= 0.8 + 1e-9
    assert best.decode_utilisation <= 0.8 + 1e-9


@pytest.mark.parametrize("ttft", [0.23, 0.27])
def test_a_looser_tpot_never_costs_requests_under_a_ttft_limit(ttft: float) -> None:
    """The first decode step is part of TTFT, so the fastest decode plan may be too slow to start."""
    served = []
    for tpot in (0.03, 0.05, 0.1):
        asked = SearchRequest(
            servers=8,
            rate=None,
            targets=Targets(tpot=tpot, ttft=ttft),
            utilisation=0.8,
            objective="throughput",
            choices=Choices(),
            top=1,
        )
        best = solve(deepseek_case(1024, 512), asked).best
        assert best is not None
        assert best.first_token.ttft <= ttft
        served.append(best.requests_per_s)
    assert served == sorted(served)


def _leader(rate: float, servers: int) -> Leader:
    return Leader(key=(rate,), mesh=None, index=0, requests_per_s=rate, step_time=0.01, servers=servers)  # type: ignore[arg-type]


def _columns(prefills: list[tuple[float, int]]) -> Prefills:
    return Prefills(
        plans=[_leader(*one) for one in prefills],
        servers=np.array([one[1] for one in prefills], dtype=np.float64),
        rate=np.array([one[0] for one in prefills]),
        ttft=np.zeros(len(prefills)),
    )


def _by_milp(prefill: tuple[float, int], decode: tuple[float, int], servers: int) -> float:
    """Highest rate of whole instances of one kind each, as an integer program: rate, prefill and decode instances."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    rows = [[1, -prefill[0], 0], [1, 0, -decode[0]], [0, prefill[1], decode[1]]]
    found = milp(
        [-1, 0, 0],
        constraints=LinearConstraint(rows, ub=[0, 0, servers]),
        bounds=Bounds([0, 1, 1], [np.inf, servers, servers]),
        integrality=[0, 1, 1],
    )
    return -found.fun if found.success else 0.0


pools = st.lists(st.tuples(st.floats(0.5, 50.0), st.integers(1, 6)), min_size=1, max_size=3)


@settings(max_examples=30, deadline=None)
@given(prefills=pools, decodes=pools, servers=st.integers(2, 24))
def test_whole_instances_are_those_of_an_integer_program(
    prefills: list[tuple[float, int]], decodes: list[tuple[float, int]], servers: int
) -> None:
    asked = replace(request(servers, 0.05), utilisation=1.0)
    joins = joined([_leader(*one) for one in decodes], _columns(prefills), asked, Tally())
    served = max((join.served for join in joins), default=0.0)
    exact = max(_by_milp(one, other, servers) for one in prefills for other in decodes)
    assert served == pytest.approx(exact, rel=1e-6, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(prefills=pools, decodes=pools, servers=st.integers(2, 16))
def test_the_best_rate_per_server_is_that_of_every_count(
    prefills: list[tuple[float, int]], decodes: list[tuple[float, int]], servers: int
) -> None:
    asked = replace(request(servers, 0.05), utilisation=1.0, objective="per-card")
    joins = joined([_leader(*one) for one in decodes], _columns(prefills), asked, Tally())
    counted = [
        min(n * p[0], m * d[0]) / (n * p[1] + m * d[1])
        for p in prefills
        for d in decodes
        for n in range(1, servers)
        for m in range(1, servers)
        if n * p[1] + m * d[1] <= servers
    ]
    best = max((1 / join.key[0] for join in joins), default=0.0)
    assert best == pytest.approx(max(counted, default=0.0), rel=1e-9)


def test_the_lowest_tpot_at_a_rate_falls_with_the_cards_and_serves_it() -> None:
    found = []
    for servers in (4, 6, 8):
        asked = SearchRequest(
            servers=servers,
            rate=5.0,
            targets=Targets(tpot=0.1),
            utilisation=0.8,
            objective="tpot",
            choices=Choices(),
            top=1,
        )
        best = solve(deepseek_case(2048, 512), asked).best
        assert best is not None
        assert best.requests_per_s == pytest.approx(5.0)
        found.append(float(best.decode.point.tpot))
    assert all(later <= earlier * 1.002 for earlier, later in zip(found, found[1:], strict=False))


def test_what_other_choices_lose_is_never_a_gain_and_more_room_buys() -> None:
    found = solve(deepseek_case(2048, 512), request(8, 0.05))
    assert found.best is not None
    assert {one.choice for one in found.alternative_costs} >= {"tp 2", "0 drafts"}
    for one in found.alternative_costs:
        assert one.deployment is not None
        assert one.deployment.requests_per_s <= found.best.requests_per_s * (1 + 1e-9)
    assert all(price.gain >= -1e-9 for price in found.shadow_prices)
    assert {price.limit for price in found.shadow_prices} == {"+1 ms of TPOT", "one more server"}
