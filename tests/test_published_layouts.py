"""Published layouts beside the best plan: each is there, what refuses it does refuse it, and ties are ties."""

import json
import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.algebra import as_float
from perfmodel.planning import planner
from perfmodel.planning.planner import Planned
from perfmodel.planning.request import request_of
from perfmodel.prediction.differences import Sampled, difference, doubt_of, full_load, is_tie
from perfmodel.prediction.layouts import attention_core_options
from perfmodel.prediction.scenario import Scenario, resolve
from perfmodel.prediction.serving import usable_memory
from perfmodel.prediction.uncertainty import Interval, pool_intervals, sampled_rates
from perfmodel.solver.given_layouts import Given
from perfmodel.solver.solution import GivenOutcome
from perfmodel.solver.solve import solve
from perfmodel.specs.deployment import LayoutShape, Targets
from perfmodel.specs.run import RunSpec
from tests.conftest import Run

CM384 = RunSpec(model="deepseek-v3", on="cloudmatrix384", cards=160, isl=4096, osl=1024, tpot="50 ms")
A2 = RunSpec(model="deepseek-v3", on="atlas-800i-a2", cards=48, isl=1024, osl=2048, tpot="100 ms")


@cache
def _planned(of: str, cards: int, tpot: float | None = None, ttft: float | None = None) -> Planned:
    update = {"cards": cards, "ttft": ttft} | ({} if tpot is None else {"tpot": tpot})
    return planner.planned({"cm384": CM384, "a2": A2}[of].model_copy(update=update))


def _of(found: Planned, row: str) -> GivenOutcome:
    return next(one for one in found.solution.given if row in one.rows)


# --- what is there --------------------------------------------------------------------------------


@pytest.mark.parametrize("cards", [144, 160, 200])
def test_the_decode_pool_of_144_cards_is_told_for_its_question(cards: int) -> None:
    found = _planned("cm384", cards)
    seed = _of(found, "seed-cm384-decode")
    shape = seed.layouts["decode"]
    assert (shape.dies, shape.shared_ranks, shape.overlap) == (2 * 144, 2 * 16, "cores")
    if cards < 144 + 8:
        assert seed.deployment is None
        assert seed.refused is not None
        assert (seed.refused.constraint, seed.refused.closest, seed.refused.limit) == ("cards", 152, 144)
    else:
        assert seed.deployment is not None
        assert seed.deployment.decode.layout.dies == 288
        assert seed.deployment.prefill_servers == cards // 8 - 18
    assert found.doubts is not None
    (pool,) = next(
        sure for one, sure in zip(found.solution.given, found.doubts.published, strict=True) if one is seed
    ).pools
    assert is_tie(pool.doubt)  # a card its pool is as good as that of the best plan


def test_the_decode_pool_of_32_a2_cards_is_told_for_its_question() -> None:
    found = _planned("a2", 48)
    seed = _of(found, "seed-a2-decode-808")
    assert found.doubts is not None
    whole = found.doubts.published[found.solution.given.index(seed)].whole
    assert whole is not None
    assert is_tie(whole)
    assert seed.deployment is not None
    assert seed.deployment.decode.layout.dies == 32
    assert seed.deployment.decode.layout.redundant == 0  # 8 routed experts a die, and the shared one
    assert _of(_planned("a2", 48), "seed-prefill-16x").layouts["prefill"].tp == 8


def test_solve_names_published_layouts_among_ties(moeplan: Run) -> None:
    words = "solve deepseek-v3 --on cloudmatrix384 --cards 160 --isl 4096 --osl 1024 --tpot 50ms --format json"
    document = json.loads(moeplan(*words.split()).stdout)
    facts = {tuple(one["rows"]): one for one in document["facts"]["published"]}
    seed = facts["seed-cm384-decode",]
    assert seed["loss_low90"] < seed["loss"] < seed["loss_high90"] < 0
    assert seed["tie"] is False
    assert seed["pools"]["decode"]["tie"] is True
    assert any("seed-cm384-decode" in note and note.startswith("tie a card") for note in document["notes"])
    tied = [rows for rows, one in facts.items() if one["tie"]]
    for rows in tied:
        assert any(note.startswith(f"tie: the layout of {', '.join(rows)} (") for note in document["notes"])
    assert tied
    table = next(one for one in document["tables"] if one["title"].startswith("Layouts published"))
    assert {row["row"] for row in table["rows"]} == {", ".join(rows) for rows in facts}


def test_rows_of_one_layout_are_one_and_other_systems_are_left_out() -> None:
    rows = [one.rows for one in request_of(CM384).given]
    assert len({row for each in rows for row in each}) == sum(map(len, rows))
    named = {row for each in rows for row in each}
    assert {"cm384-decode-4k-b96", "cm384-decode-1k-b128"} <= set(next(r for r in rows if "cm384-decode-4k-b96" in r))
    assert "va-v31-2p1d-a3-752" in named  # the same chip in another system
    assert not {"ds-prod-decode", "seed-a2-decode-808", "msm-deepseek-v3.1-decode"} & named


def test_what_the_stack_lacks_or_the_question_fixes_is_refused() -> None:
    asked = request_of(CM384.model_copy(update={"with_": ("mtp=0",)}))
    lacking = {row: one.lacking for one in asked.given for row in one.rows}
    assert "0 is asked for" in lacking["seed-cm384-decode"]
    assert not lacking["cm384-decode-4k-b96-no-mtp"]


# --- held against other derivations ---------------------------------------------------------------


@settings(max_examples=6, deadline=None)
@given(
    cards=st.sampled_from([32, 64, 96, 160]),
    tpot=st.sampled_from([0.02, 0.05]),
    ttft=st.sampled_from([None, 1.5, 4.0]),
)
def test_no_published_layout_of_the_space_beats_the_best(cards: int, tpot: float, ttft: float | None) -> None:
    found = _planned("cm384", cards, tpot, ttft)
    for one in found.solution.given:
        if one.loss is not None and all(shape.overlap != "stages" for shape in one.layouts.values()):
            assert one.loss <= 1e-9, one.rows
            assert one.deployment is not None
            assert one.deployment.tpot <= tpot * (1 + 1e-9)
            assert ttft is None or as_float(one.deployment.first_token.ttft) <= ttft * (1 + 1e-9)
            assert one.deployment.servers_used <= cards // 8


@pytest.mark.parametrize(("tpot", "cards"), [(0.014, 160), (0.05, 48)])
def test_what_a_limit_refuses_no_batch_meets(tpot: float, cards: int) -> None:
    found = _planned("cm384", cards, tpot)
    seen = set()
    for one in found.solution.given:
        if one.refused is None or set(one.layouts) != {"decode"} or one.refused.constraint not in ("tpot", "cards"):
            continue
        seen.add(one.refused.constraint)
        layout, case = one.layouts["decode"], found.request.case
        if one.refused.constraint == "cards":
            assert math.ceil(layout.dies / 16) + 1 > cards // 8
            continue
        cores = (
            [layout.attention_cores] if layout.attention_cores else attention_core_options(layout.overlap, case.rates)
        )
        for split in cores:
            for batch in (1, 2, 4, 8, 16, 32, 64):
                values = {**layout.model_dump(), "batch": batch, "attention_cores": int(split)}
                point = resolve(Scenario(case=case, phase="decode", layout=values, tpot=None)).point
                assert as_float(point.tpot) > tpot or as_float(point.memory) > as_float(usable_memory(case.rates))
    assert seen


def test_what_memory_refuses_does_not_fit() -> None:
    request = request_of(A2)
    small = Given(rows=("small",), cases=({"decode": LayoutShape(dies=8, exchange="gather")},))
    wrong = Given(rows=("wrong",), cases=({"decode": LayoutShape(dies=32, draft=1, exchange="gather", tp=32)},))
    solution = solve(request.case, request.search, request.cases["prefill"], (small, wrong))
    memory, _ = solution.given
    assert memory.refused is not None
    assert memory.refused.constraint == "memory"
    values = {**small.cases[0]["decode"].model_dump(), "batch": 1}
    one = resolve(Scenario(case=request.case, phase="decode", layout=values, tpot=None))
    assert as_float(one.point.memory) == pytest.approx(memory.refused.closest)
    assert not one.fits


def test_the_layout_of_the_best_plan_given_is_the_best_plan() -> None:
    found = _planned("cm384", 96)
    best = found.solution.best
    assert best is not None
    for phases in (("decode",), ("prefill",), ("prefill", "decode")):
        shapes = {phase: LayoutShape(**getattr(best, phase).layout.model_dump(exclude={"batch"})) for phase in phases}
        request = found.request
        same = solve(request.case, request.search, request.cases["prefill"], (Given(rows=("x",), cases=(shapes,)),))
        (one,) = same.given
        assert one.loss == pytest.approx(0, abs=1e-12)
        assert one.deployment is not None
        assert one.deployment.short_form == best.short_form
        assert one.deployment.decode.layout == best.decode.layout
        assert one.deployment.prefill.layout == best.prefill.layout


# --- ties -----------------------------------------------------------------------------------------


def test_a_difference_within_its_doubt_is_a_tie() -> None:
    luck = np.exp(np.linspace(-0.2, 0.2, 512))
    own = np.exp(0.02 * np.sin(np.arange(512.0)))
    slow, best = (0.99 * luck * own, 0.99), (1.0 * luck, 1.0)
    assert is_tie(difference(-0.01, slow, best))  # 1 % beside 2 % of its own
    assert not is_tie(difference(-0.05, (0.95 * luck * own, 0.95), best))
    assert is_tie(Interval(low50=-0.1, high50=-1e-16, low90=-0.2, high90=-1e-16))  # round-off decides nothing
    assert not is_tie(difference(-0.01, (0.99 * luck, 0.99), best))  # luck that both share is no doubt


@given(st.floats(-0.5, 0.5), st.floats(0, 0.3), st.floats(0, 0.3))
def test_a_tie_is_smaller_than_its_doubt(loss: float, below: float, above: float) -> None:
    found = Interval(low50=loss, high50=loss, low90=loss - below, high90=loss + above)
    if is_tie(found):
        assert abs(loss) <= doubt_of(loss, found) + 2e-9


def test_samples_taken_together_are_those_of_each_alone() -> None:
    found = _planned("cm384", 96)
    request, best = found.request, found.solution.best
    assert best is not None
    sampled = Sampled(machines=request.machines, cases=request.cases)
    plans = [best, *found.solution.alternatives, *(one.deployment for one in found.solution.alternative_costs)]
    sampled.take(("decode", one.decode) for one in plans)
    rates, factors = sampled_rates(request.machine, "service", "decode")
    for one in plans:
        alone = pool_intervals(
            request.machine, one.decode.layout, one.decode.family, request.case, sampled=(rates, factors)
        )
        assert sampled.steps("decode", one.decode) == pytest.approx(alone.steps, rel=1e-9)
    assert difference(0.0, (sampled.served(best), full_load(best)), (sampled.served(best), full_load(best))).high90 == 0


def test_mixed_serving_has_no_published_layouts_and_any_has() -> None:
    for serving, there in (("mixed", False), ("any", True)):
        found = planner.planned(CM384.model_copy(update={"serving": serving, "ttft": 5.0, "cards": 64}))
        assert bool(found.solution.given) == there


def test_a_target_that_nothing_meets_tells_no_published_layout() -> None:
    request = request_of(CM384)
    search = replace(request.search, targets=Targets(tpot=1e-4))
    assert solve(request.case, search, request.cases["prefill"], request.given).given == ()
