"""What a search goes over beyond two pools of one system, and what it says for its answer."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.planning import plan_file, planner
from perfmodel.planning.request import request_of
from perfmodel.prediction.deployment import exact_pool
from perfmodel.prediction.joined_pools import joined_rates
from perfmodel.prediction.serving import usable_memory
from perfmodel.solver.alternatives import structural_choices
from perfmodel.solver.both_pools import searched
from perfmodel.solver.join import packed
from perfmodel.solver.mesh import meshes
from perfmodel.solver.mixed import mixed_joins
from perfmodel.solver.request import Cases, SearchRequest
from perfmodel.solver.solve import solve
from perfmodel.solver.space import Choices
from perfmodel.solver.tally import Tally
from perfmodel.specs.deployment import Targets
from perfmodel.specs.run import RunSpec
from tests.builders import deepseek_case
from tests.conftest import Run

ASKED = RunSpec(
    model="deepseek-v3", on="cloudmatrix384", cards=96, isl=4096, osl=1024, tpot="50 ms", top=2
)  # fmt: skip


# --- instances in domains -------------------------------------------------------------------------


def _most(size: float, beside: float, count: int, rooms: tuple[int, ...]) -> int:
    """Return the most instances of ``size`` beside ``count`` others by trying every division over the domains."""
    if not rooms:
        return 0 if count == 0 else -1
    best = -1
    for here in range(count + 1):
        left = rooms[0] - math.ceil(here * beside - 1e-9)
        if left < 0:
            break
        rest = _most(size, beside, count - here, rooms[1:])
        if rest >= 0:
            best = max(best, math.floor(left / size + 1e-9) + rest)
    return best


@settings(max_examples=60, deadline=None)
@given(
    size=st.sampled_from([0.25, 0.5, 1.0, 2.0, 3.0, 5.0]),
    beside=st.sampled_from([0.5, 1.0, 2.0, 3.0]),
    servers=st.integers(1, 13),
    domain=st.one_of(st.none(), st.integers(1, 8)),
)
def test_packing_into_domains_equals_every_division(
    size: float, beside: float, servers: int, domain: int | None
) -> None:
    whole, rest = divmod(servers, domain or servers)
    rooms = (domain or servers,) * whole + ((rest,) if rest else ())
    found = packed(size, beside, servers, domain)
    expected = []
    for count in itertools.count():
        most = _most(size, beside, count, rooms)
        if most < 0:
            break
        expected.append(most)
    assert found.tolist() == expected


def test_an_instance_stays_inside_its_domain_unless_allowed_out() -> None:
    """Domains of two servers, where the best instance alone takes more."""
    asked = request_of(ASKED)
    assert asked.search.domains == (48, 48)
    free = request_of(ASKED.model_copy(update={"allow_scale_out": True})).search
    assert free.domains == (None, None)
    best = solve(asked.case, free).best
    within = solve(asked.case, replace(asked.search, domains=(2, 2))).best
    assert best is not None
    assert within is not None
    assert max(best.prefill.servers, best.decode.servers) > 2
    sizes = [within.prefill.servers] * within.prefill_instances + [within.decode.servers] * within.decode_instances
    assert max(sizes) <= 2
    assert sum(sizes) <= asked.search.servers
    assert within.requests_per_s <= best.requests_per_s


# --- prefill and decode in turn on the same dies --------------------------------------------------


@pytest.mark.parametrize(("tpot", "ttft"), [(0.04, None), (0.08, None), (0.2, None), (0.08, 60.0), (0.2, 25.0)])
def test_mixed_serving_equals_brute_force(tpot: float, ttft: float | None) -> None:
    """Every decode layout with every prefill layout of the same weights, worked from plain numbers."""
    case = deepseek_case(60_000, 2000)
    choices = Choices(fixed={"decode": {"tp": 2, "draft": 1}, "prefill": {"tp": 2}})
    request = SearchRequest(
        servers=2, rate=None, targets=Targets(tpot=tpot, ttft=ttft), utilisation=0.8, objective="throughput",
        choices=choices, top=1, serving="mixed",
    )  # fmt: skip
    points = {
        phase: [
            (mesh.layout_at(index), exact_pool(mesh.layout_at(index), mesh.family, case).point)
            for mesh in meshes(case, phase, [32], choices)
            for index in range(math.prod(mesh.shape))
        ]
        for phase in ("prefill", "decode")
    }
    best = 0.0
    usable = float(usable_memory(case.rates))
    for layout, decode in points["decode"]:
        for other, prefill in points["prefill"]:
            if layout.shared_ranks or layout.redundant != other.redundant:
                continue
            each = prefill.step_time * case.isl / prefill.in_flight
            time = decode.tpot + decode.in_flight * each / case.osl
            one, two = prefill.footprint, decode.footprint
            prompts = prefill.in_flight / case.isl
            at_once = max(1.0, prompts * layout.tp / layout.dies)
            cache = min(two.kv_mean + (two.kv - two.kv_mean) * math.sqrt(at_once), two.kv_worst)
            memory = max(one.weights, two.weights) + cache
            memory += max(one.buffers, two.buffers) + max(one.workspace, two.workspace)
            rate = decode.in_flight / (time * case.osl)
            busy = 0.8 * rate * each
            first = (prompts - 1) / (2 * 0.8 * rate) + busy * prefill.step_time / 2
            first += (1 - busy) * decode.step_time / 2 + prefill.step_time
            if time <= tpot and memory <= usable and prompts <= decode.in_flight and (ttft is None or first <= ttft):
                best = max(best, rate)
    found = mixed_joins(Cases(prefill=case, decode=case), [32], request, [tpot], Tally())[0]
    assert max((join.served for join in found), default=0.0) == pytest.approx(best * 0.8, rel=1e-12)


def test_mixed_serving_is_said_with_its_gap_and_its_prefill(moeplan: Run, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    words = ["solve", "deepseek-v3", "--on", "cloudmatrix384", "--cards", "64", "--isl", "2048", "--osl", "512"]
    found = moeplan(*words, "--tpot", "80ms", "--ttft", "4s", "--serving", "mixed", "-o", str(path), "--format", "json")
    assert found.returncode == 0, found.stderr
    facts = json.loads(found.stdout)["facts"]
    assert facts["serving"] == "mixed"
    assert facts["tpot_s"] <= 0.08
    assert facts["ttft_s"] <= 4
    assert facts["longest_gap_s"] == pytest.approx(facts["prefill"]["step_time_s"] + facts["decode"]["step_time_s"])
    assert facts["cards_used"] == facts["decode"]["cards"] <= 64
    loaded = plan_file.load_plan(str(path))
    plan, remarks = loaded.spec, loaded.remarks
    assert not remarks
    assert plan.conditions.mixed
    assert plan.predicted.tpot == pytest.approx(facts["tpot_s"])
    assert moeplan("explain", str(path), "--phase", "prefill").returncode == 0
    refused = moeplan("what-if", str(path))
    assert refused.returncode == 2
    assert "mixed serving" in refused.stderr


def test_any_serving_is_the_better_of_both() -> None:
    rates = {
        kind: planner.planned(ASKED.model_copy(update={"serving": kind, "ttft": 5.0})).solution.best
        for kind in ("disaggregated", "mixed", "any")
    }
    served = {kind: 0.0 if best is None else best.requests_per_s for kind, best in rates.items()}
    assert served["any"] == max(served.values()) > 0


# --- money, energy, two systems -------------------------------------------------------------------


def test_the_cheapest_plan_for_a_rate_costs_no_more_than_the_smallest() -> None:
    run = ASKED.model_copy(update={"cards": None, "rate": 40.0, "prefill_on": "atlas-800i-a2-64gb-hccs", "price": 20.0})
    totals = {}
    for objective in ("cards", "cost"):
        for price in (2.0, 30.0):
            asked = run.model_copy(update={"objective": objective, "prefill_price": price})
            best = planner.planned(asked).solution.best
            assert best is not None
            assert best.requests_per_s == pytest.approx(40.0)
            totals[objective, price] = 8 * (best.prefill_servers * price + best.decode_servers * 20.0)
    for price in (2.0, 30.0):
        assert totals["cost", price] <= totals["cards", price]


def test_two_systems_each_keep_their_budget_their_rates_and_the_slower_network() -> None:
    run = ASKED.model_copy(update={"prefill_on": "atlas-800i-a2-64gb-hccs", "prefill_cards": 128, "cards": 64})
    found = planner.planned(run)
    best, asked = found.solution.best, found.request
    assert best is not None
    assert best.decode_servers * 8 <= 64
    assert best.prefill_servers * 8 <= 128
    assert asked.cases["prefill"].rates.cube_bf16 != asked.cases["decode"].rates.cube_bf16
    rates = {phase: machine.rates() for phase, machine in asked.machines.items()}
    for slow in ("prefill", "decode"):
        tier = rates[slow].kv_tier
        slower = rates | {slow: replace(rates[slow], kv_tier=replace(tier, bandwidth=tier.bandwidth / 7))}
        assert joined_rates(slower)["prefill"].kv_tier.bandwidth == tier.bandwidth / 7
    again = planner.planned(run.model_copy(update={"cards": 128})).solution.best
    assert again is not None
    assert again.requests_per_s >= best.requests_per_s


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--objective", "cost"), "needs --price"),
        (("--prefill-cards", "64"), "needs --prefill-on"),
        (("--prefill-price", "3"), "needs --prefill-on"),
        (("--prefill-on", "atlas-800i-a3"), "needs --prefill-cards"),
        (("--prefill-on", "atlas-800i-a3", "--prefill-cards", "64", "--serving", "mixed"), "allowed: disaggregated"),
        (("--objective", "energy"), "no server_power on file for cloudmatrix384"),
        (("--price", "-1"), "allowed: more than zero"),
        (("--objective", "energie"), "did you mean"),
    ],
)
def test_options_that_do_not_go_together_are_refused(moeplan: Run, words: tuple[str, ...], said: str) -> None:
    base = ["solve", "deepseek-v3", "--on", "cloudmatrix384", "--cards", "96"]
    found = moeplan(*base, "--isl", "4096", "--osl", "1024", "--tpot", "50ms", *words)
    assert found.returncode == 2
    assert said in found.stderr
    assert "Traceback" not in found.stderr


def test_energy_counts_the_largest_input_of_every_server(moeplan: Run) -> None:
    words = ["solve", "deepseek-v3", "--on", "atlas-800i-a3", "--rate", "20", "--isl", "2048", "--osl", "512"]
    found = moeplan(*words, "--tpot", "80ms", "--objective", "energy", "--format", "json")
    facts = json.loads(found.stdout)["facts"]
    watts = facts["cards_used"] / 8 * 14_600
    assert facts["cost"]["watts_at_most"] == pytest.approx(watts)
    assert facts["cost"]["joules_per_token_at_most"] == pytest.approx(watts / facts["tokens_per_s"])


# --- what speaks for the answer -------------------------------------------------------------------


def test_no_point_of_the_front_is_beaten_nor_is_the_front_by_the_choice() -> None:
    found = planner.planned(ASKED)
    points, best = planner.front_of(found.request), found.solution.best
    assert best is not None
    assert len(points) > 5
    assert [one.tpot for one in points] == sorted(one.tpot for one in points)
    rates = [one.tokens_per_s_per_card for one in points]
    assert all(after > before for before, after in itertools.pairwise(rates))
    own = best.requests_per_s * 1024 / (best.servers_used * 8)
    assert max(one.tokens_per_s_per_card for one in points if one.tpot <= 0.05) >= own * (1 - 1e-9)


@pytest.mark.parametrize("limit", [0.025, 0.1])
def test_each_point_of_the_front_is_the_plan_of_its_own_limit(limit: float) -> None:
    points = planner.front_of(request_of(ASKED))
    asked = ASKED.model_copy(update={"tpot": limit, "objective": "per-card"})
    best = planner.planned(asked).solution.best
    assert best is not None
    within = [one for one in points if one.tpot <= limit]
    own = best.requests_per_s * 1024 / (best.servers_used * 8)
    assert within[-1].tokens_per_s_per_card == pytest.approx(own)


def test_whole_instances_never_serve_more_than_divisible_ones() -> None:
    for cards in (48, 96, 160):
        found = planner.planned(ASKED.model_copy(update={"cards": cards})).solution
        assert found.best is not None
        assert found.relaxed_rate is not None
        assert found.best.requests_per_s <= found.relaxed_rate * (1 + 1e-9)


def test_the_choice_holds_where_it_says_and_no_further() -> None:
    """Solved anew at both ends, and a step beyond either: the structure is the same inside and another outside."""
    found = planner.planned(ASKED)
    found_range, best = planner.optimal_range_of(found), found.solution.best
    assert found_range is not None
    assert best is not None
    assert found_range.lowest <= found_range.asked <= found_range.highest

    def structure(acceptance: float) -> dict[str, str]:
        asked = request_of(ASKED.model_copy(update={"acceptance": repr(acceptance)}))
        joins, _ = searched(Cases(prefill=asked.case, decode=asked.case), asked.search, Tally())
        return structural_choices(joins[0])

    inside = structure(found_range.asked)
    assert structure(found_range.lowest) == structure(found_range.highest) == inside
    if found_range.below:
        assert structure(found_range.lowest - 0.025) != inside
    if found_range.above:
        assert structure(found_range.highest + 0.025) != inside
    assert found_range.below or found_range.above


def test_a_batch_is_no_fuller_than_its_rate_needs() -> None:
    """Prefill limits these plans: the next smaller batch of decode would no longer keep up."""
    run = ASKED.model_copy(update={"cards": 64})
    found = planner.planned(run)
    best = found.solution.best
    assert best is not None
    assert best.decode_utilisation <= 0.8 + 1e-9
    batch = best.decode.layout.batch - 1
    smaller = exact_pool(best.decode.layout.model_copy(update={"batch": batch}), best.decode.family, found.request.case)
    assert smaller.point.requests_per_s * best.decode_instances * 0.8 < best.requests_per_s
    same = planner.planned(run.model_copy(update={"tpot": best.tpot * 1.000001})).solution.best
    assert same is not None
    assert same.requests_per_s == pytest.approx(best.requests_per_s)


@pytest.mark.parametrize("objective", ["cost", "per-card", "cards"])
def test_what_costs_more_for_a_rate_is_a_loss(objective: str) -> None:
    run = ASKED.model_copy(update={"rate": 30.0, "objective": objective, "price": 4.0, "top": 4})
    solution = planner.planned(run).solution
    assert all(loss <= 1e-9 for loss in solution.losses)
    assert all(one.loss <= 1e-9 for one in solution.alternative_costs)
    assert min(one.loss for one in solution.alternative_costs) < -0.05


def test_a_plan_holds_the_run_that_found_it(moeplan: Run, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    words = ["solve", "deepseek-v3", "--on", "cloudmatrix384", "--cards", "48", "--isl", "2048", "--osl", "512"]
    first = moeplan(*words, "--tpot", "40ms", "--with", "mtp=1", "-o", str(path), "--format", "json")
    again = moeplan("solve", str(path), "--format", "json")
    assert first.returncode == again.returncode == 0, again.stderr
    assert json.loads(first.stdout) == json.loads(again.stdout)
    looser = moeplan("solve", str(path), "--tpot", "80ms", "--format", "json")
    rates = [json.loads(run.stdout)["facts"]["requests_per_s"] for run in (again, looser)]
    assert rates[1] > rates[0]


def test_a_faster_network_between_the_systems_never_costs_ttft() -> None:
    asked = request_of(ASKED)
    tier = asked.case.rates.kv_tier
    slow = replace(asked.case.rates, kv_tier=replace(tier, bandwidth=tier.bandwidth / 50))
    from perfmodel.prediction.deployment import figures_of

    best = planner.planned(ASKED).solution.best
    assert best is not None
    cases = (asked.case, replace(asked.case, rates=slow))
    times = [float(np.asarray(figures_of(best, (one, asked.case), 0.8)["TTFT"])) for one in cases]
    assert times[0] < times[1]


def test_the_front_is_drawn_with_the_choice_on_it(moeplan: Run) -> None:
    words = (
        "solve",
        "deepseek-v3",
        "--on",
        "cm384",
        "--cards",
        "48",
        "--isl",
        "4096",
        "--osl",
        "1024",
        "--tpot",
        "50ms",
    )
    drawn = (
        moeplan(*words, "--front", COLUMNS="70").stdout.partition("Front of throughput")[2].partition("Next best")[0]
    )
    lines = drawn.splitlines()
    assert max(map(len, lines)) <= 70
    assert sum("X" in line for line in lines) == 1
    assert sum("<- chosen" in line for line in lines) == 1
    facts = json.loads(moeplan(*words, "--front", "--format", "json").stdout)["facts"]
    assert len(facts["front"]) > 5
