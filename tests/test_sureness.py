"""What being sure needs: chances recounted sample by sample, verdicts at their borders, and what a chance costs."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from perfmodel.ledger.records import Layout
from perfmodel.planning import planner
from perfmodel.planning.request import PlanRequest, request_of
from perfmodel.planning.sureness import Doubt
from perfmodel.prediction.deployment import Deployment
from perfmodel.prediction.serving import pool_point
from perfmodel.prediction.sureness import MARKS, margin, margins, verdict_of
from perfmodel.prediction.uncertainty import SAMPLES, sampled_rates
from perfmodel.specs.run import RunSpec
from tests.conftest import Run

ASKED = RunSpec(model="deepseek-v3", on="cloudmatrix384", cards=48, isl=4096, osl=1024, tpot="50 ms", top=2)
RATE = ASKED.model_copy(update={"cards": 64, "rate": 12.0, "ttft": 2.0})
SOLVE = ("solve", "deepseek-v3", "--on", "cloudmatrix384", "--isl", "4096", "--osl", "1024", "--format", "json")


@pytest.mark.parametrize(
    ("chance", "word"),
    [(1.0, "met"), (0.8, "met"), (0.7999, "likely"), (0.5, "likely"), (0.4999, "missed"), (0.0, "missed")],
)
def test_a_verdict_changes_at_80_and_50_per_cent(chance: float, word: str) -> None:
    assert verdict_of(True, chance) == word
    assert verdict_of(False, chance) == word


def test_without_a_chance_the_prediction_decides() -> None:
    assert (verdict_of(True, None), verdict_of(False, None)) == ("met", "missed")
    assert MARKS == {"met": "✓", "likely": "~", "missed": "✗"}


def test_margins_hold_as_often_as_they_say() -> None:
    """Counted one sample after another: a pair holds as often as asked, a shorter one does not."""
    dice = np.random.default_rng(5)
    prefill, decode = np.exp(0.3 * dice.standard_normal((2, 500)))
    for longest, longer in margins(prefill, decode, 0.9, (0.1, 0.5, 0.9)):
        within = sum(p <= longest and d <= longer for p, d in zip(prefill, decode, strict=True))
        shorter = sum(p < longest and d <= longer for p, d in zip(prefill, decode, strict=True))
        assert shorter < 450 <= within
    assert sum(d <= margin(decode, 0.9) for d in decode) in (450, 451)


def _counted(best: Deployment, request: PlanRequest, tpot: float, ttft: float | None, rate: float | None) -> float:
    """Return the part of machines on which a plan of pools apart meets all limits, one machine after another."""
    relative = []
    for phase, pool in (("prefill", best.prefill), ("decode", best.decode)):
        machine, case = request.machines[phase], request.cases[phase]
        rates, factors = sampled_rates(machine, "service", phase, case.model)
        step = pool_point(Layout.of(pool.layout), pool.family, replace(case, rates=rates)).step_time
        relative.append(np.broadcast_to(step, (SAMPLES,)) * factors / pool.point.step_time)
    terms, met = best.first_token, 0
    for p, d in zip(*relative, strict=True):
        good = best.tpot * d <= tpot
        first = terms.request_path + terms.frontend + terms.kv_transfer + terms.first_step * d
        first += (terms.batch_formation + terms.residual + terms.prefill) * p
        good = good and (ttft is None or first <= ttft)
        served = min(best.prefill_capacity / p, best.decode_capacity / d) * request.search.utilisation
        met += bool(good and (rate is None or served >= rate * (1 - 1e-9)))
    return met / SAMPLES


@pytest.mark.parametrize("run", [ASKED, RATE], ids=["cards", "rate"])
def test_the_chance_of_all_limits_is_counted_sample_by_sample(run: RunSpec) -> None:
    answer = planner.planned(run)
    best, sure = answer.solution.best, answer.sure
    assert best is not None
    assert sure is not None
    for plan, chance in ((best, answer.chance), (sure.deployment, sure.chance)):
        counted = _counted(plan, answer.request, 0.05, run.ttft, run.rate)
        assert chance == pytest.approx(counted, abs=1.5 / SAMPLES)
    assert sure.chance >= 0.9
    assert sure.reached


@pytest.mark.parametrize("run", [ASKED, RATE], ids=["cards", "rate"])
def test_the_plan_told_as_sure_is_that_of_confidence(run: RunSpec) -> None:
    sure, asked = planner.planned(run).sure, planner.planned(run.model_copy(update={"confidence": 0.9}))
    best = asked.solution.best
    assert sure is not None
    assert best is not None
    assert (best.prefill.layout, best.decode.layout) == (sure.deployment.prefill.layout, sure.deployment.decode.layout)
    assert best.servers == sure.deployment.servers
    assert best.requests_per_s == pytest.approx(sure.requests_per_s, rel=1e-12)
    assert asked.chance == sure.chance >= 0.9


def test_more_sure_is_never_fewer_cards() -> None:
    found = []
    for confidence in (0.5, 0.9, 0.95):
        answer = planner.planned(RATE.model_copy(update={"confidence": confidence}))
        assert answer.solution.best is not None
        assert answer.chance is not None
        assert answer.chance >= confidence
        found.append(answer.solution.best.servers_used)
    assert found == sorted(found)
    assert found[0] < found[-1]


def test_no_plan_found_is_better_and_as_sure() -> None:
    """Rivals of the prediction's search that are sure themselves do not serve the rate with fewer servers."""
    request = request_of(RATE)
    answer = planner.answered(request)
    assert answer.sure is not None
    doubt = Doubt(request=request)
    lines = answer.solution.finalists
    assert lines is not None
    for load in range(6):
        for line in range(0, len(lines.lines), 7):
            one = lines.at(line, load, min(load, 4))
            if one is not None and one.deployment.servers_used < answer.sure.servers:
                assert doubt.chance(one.deployment) < 0.9


def test_a_chance_that_is_out_of_reach_ends_with_3_and_says_what_is_reached(moeplan: Run) -> None:
    done = moeplan(*SOLVE, "--cards", "64", "--rate", "30", "--tpot", "50ms", "--confidence", "0.99")
    facts = json.loads(done.stdout)["facts"]
    assert done.returncode == 3, done.stderr
    assert facts["status"] == "infeasible"
    assert facts["chance"] < 0.99
    assert facts["sure"]["reached"] is False
    assert facts["sure"]["chance"] == facts["chance"]
    assert any("the highest that was found" in note for note in json.loads(done.stdout)["notes"])


def test_the_plain_question_tells_verdicts_and_what_being_sure_needs(moeplan: Run) -> None:
    done = moeplan(*SOLVE, "--cards", "64", "--rate", "12", "--tpot", "50ms", "--ttft", "2s")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)["facts"]
    for limit in facts["limits"]:
        assert limit["verdict"] == verdict_of(limit["met"], limit["chance"])
    assert [limit["name"] for limit in facts["limits"]] == ["tpot", "ttft", "rate"]
    sure = facts["sure"]
    assert sure["chance"] >= 0.9
    assert sure["more_cards"] == sure["cards"] - facts["cards_used"] > 0
    assert math.isclose(sure["requests_per_s"], 12, rel_tol=1e-9)
