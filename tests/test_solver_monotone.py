"""More room, looser limits, more choices and faster machines never make the best deployment worse."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.prediction.serving import Case
from perfmodel.solver.request import SearchRequest
from perfmodel.solver.solve import solve
from perfmodel.solver.space import Choices
from perfmodel.specs.deployment import Targets
from tests.builders import deepseek_case, rates_of

SLACK = 1e-9
#: systems and budgets whose searches take a fraction of a second
systems = st.sampled_from((("cloudmatrix384", 2), ("cloudmatrix384", 3), ("atlas-800i-a2", 4), ("atlas-800i-a2", 5)))
#: objectives on a budget; a rate makes them count servers
objectives = st.sampled_from(("throughput", "per-card", "cards", "cost"))
drawn = settings(max_examples=8, deadline=None)


@st.composite
def asked(draw: Any, stack: str | None = None) -> tuple[Case, SearchRequest]:
    """Return a case of a public model on a public system, and a request of a few servers."""
    system, servers = draw(systems)
    objective = draw(objectives)
    case = deepseek_case(
        rates=rates_of(system, stack),
        isl=draw(st.integers(6_000, 40_000)),
        osl=draw(st.integers(100, 3_000)),
        acceptance=draw(st.sampled_from(((), (0.7,)))),
    )
    request = SearchRequest(
        servers=servers,
        rate=draw(st.floats(0.1, 1.0)) if objective == "cards" else None,
        targets=Targets(tpot=draw(st.none() | st.floats(0.02, 0.1)), ttft=draw(st.none() | st.floats(1.0, 8.0))),
        utilisation=draw(st.floats(0.4, 0.95)),
        objective=objective,
        choices=Choices(),
        top=1,
        prices=(draw(st.floats(0.3, 3.0)), draw(st.floats(0.3, 3.0))),
    )
    return case, request


def cost(case: Case, request: SearchRequest) -> float:
    """Return what the objective says of the best deployment, less being better; infinite where there is none."""
    best = solve(case, request).best
    if best is None:
        return float("inf")
    money = best.prefill_servers * request.prices[0] + best.decode_servers * request.prices[1]
    match request.objective:
        case "cards":
            return best.servers_used
        case "per-card":
            return best.servers_used / best.requests_per_s
        case "cost":
            return money / best.requests_per_s
    return 1 / best.requests_per_s


def test_many_requests_drawn_have_a_plan() -> None:
    """Else the comparisons below would be between nothing and nothing."""
    found = []

    @settings(max_examples=12, deadline=None, database=None)
    @given(one=asked())
    def tried(one: Any) -> None:
        found.append(cost(*one) < float("inf"))

    tried()
    assert sum(found) >= len(found) / 4


@drawn
@given(one=asked(), limit=st.sampled_from(("tpot", "ttft")), factor=st.floats(1.0, 3.0))
def test_a_looser_limit(one: Any, limit: str, factor: float) -> None:
    case, request = one
    tight = getattr(request.targets, limit)
    for looser in (None, tight and tight * factor):
        loose = replace(request, targets=request.targets.model_copy(update={limit: looser}))
        assert cost(case, loose) <= cost(case, request) * (1 + SLACK)


@drawn
@given(one=asked(), own=st.booleans())
def test_one_more_server(one: Any, own: bool) -> None:
    case, request = one
    if own:
        request = replace(request, prefill_servers=2)
    more = replace(request, servers=request.servers + 1)
    assert cost(case, more) <= cost(case, request) * (1 + SLACK)
    if own:
        more = replace(request, prefill_servers=3)
        assert cost(case, more) <= cost(case, request) * (1 + SLACK)


@drawn
@given(one=asked("cann-2026"))
def test_more_choices(one: Any) -> None:
    """Forms that the stack offers beside the plain ones, drafts beside none, the shorter cache beside the longer."""
    case, request = one
    offered = {
        "prefill": {"reduction": ("scatter_gather", "all_to_all", "sp_tp_sp"), "shared_stream": (False, True)},
        "decode": {"shared_stream": (False, True)},
    }
    few = cost(case, request)
    assert cost(case, replace(request, choices=Choices(offered=offered))) <= few * (1 + SLACK)
    assert cost(case, replace(request, choices=Choices(kv_dtypes=("bf16", "int8")))) <= few * (1 + SLACK)
    fixed = Choices(fixed={"decode": {"tp": 2, "overlap": "none"}, "prefill": {"exchange": "gather"}})
    assert few <= cost(case, replace(request, choices=fixed)) * (1 + SLACK)


@drawn
@given(one=asked(), shorter=st.floats(0.3, 1.0))
def test_shorter_prompts(one: Any, shorter: float) -> None:
    case, request = one
    assert cost(replace(case, isl=int(case.isl * shorter)), request) <= cost(case, request) * (1 + SLACK)


@drawn
@given(one=asked(), what=st.sampled_from(("hbm", "links", "cube", "capacity")), factor=st.floats(1.0, 4.0))
def test_a_faster_machine(one: Any, what: str, factor: float) -> None:
    case, request = one
    rates = case.rates
    if what == "links":
        tiers = tuple(replace(tier, bandwidth=tier.bandwidth * factor) for tier in rates.tiers)
        kv_tier = next(tier for tier in tiers if tier.name == rates.kv_tier.name)
        faster = replace(rates, tiers=tiers, kv_tier=kv_tier)
    elif what == "cube":
        faster = replace(rates, cube_int8=rates.cube_int8 * factor, cube_bf16=rates.cube_bf16 * factor)
    else:
        name = {"hbm": "hbm_bandwidth", "capacity": "capacity"}[what]
        faster = replace(rates, **{name: getattr(rates, name) * factor})
    assert cost(replace(case, rates=faster), request) <= cost(case, request) * (1 + SLACK)


@drawn
@given(one=asked())
def test_a_plan_is_found_again_under_its_own_latencies(one: Any) -> None:
    """A limit is met by what equals it: rounding between arrays and plain numbers must not refuse the plan."""
    case, request = one
    best = solve(case, request).best
    if best is None:
        return
    own = Targets(tpot=float(best.decode.point.tpot), ttft=float(best.first_token.ttft))
    assert cost(case, replace(request, targets=own)) == pytest.approx(cost(case, request), rel=SLACK)
