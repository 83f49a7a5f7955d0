"""Plans for real lengths and percentiles, as users ask for them: the best that clients see meet its limits."""

import json
from pathlib import Path
from typing import Any

import pytest

from perfmodel.algebra import as_float
from perfmodel.formulas.decode_queue import running_context
from perfmodel.planning import referee
from perfmodel.planning.planner import planned
from perfmodel.planning.request import PlanRequest, request_of
from perfmodel.solver import finalists
from perfmodel.solver.solve import solve
from perfmodel.specs.run import RunSpec
from perfmodel.specs.workload import lognormal
from tests.conftest import Run

ASKED = ("solve", "deepseek-v3", "--on", "cm384", "--tpot", "50ms")
EQUAL = (*ASKED, "--cards", "32", "--isl", "1024", "--osl", "512")
RUN = {"model": "deepseek-v3", "on": "cm384", "cards": 32, "isl": 1024, "osl": 512, "tpot": "50 ms"}


def _facts(done: Any, code: int = 0) -> dict[str, Any]:
    assert done.returncode == code, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)["facts"]
    return facts


@pytest.fixture
def fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replay few requests at few levels of room, so that all plans can be."""
    monkeypatch.setattr(referee, "EQUAL_REQUESTS", 3000)
    monkeypatch.setattr(referee, "SPREAD_REQUESTS", 3000)
    monkeypatch.setattr(referee, "SCREENED_REQUESTS", 3000)
    monkeypatch.setattr(referee, "LIVES", 2)
    monkeypatch.setattr(referee, "MOST_REPLAYED", 100)
    monkeypatch.setattr(finalists, "LOADS", (1.0, 0.7, 0.4))
    monkeypatch.setattr(referee, "LOADS", (1.0, 0.7, 0.4))
    monkeypatch.setattr(finalists, "SHORTER", (1.0, 0.8))


def _trace(path: Path, count: int = 3000) -> Path:
    """Write a trace of spread lengths that come at random, 12 a second."""
    lengths = lognormal(1000, 1.0, 300, 0.8, requests=count, seed=3)
    rows = (
        json.dumps({"timestamp": round(1000 * n / 12), "input_length": int(i), "output_length": int(o)})
        for n, (i, o) in enumerate(zip(lengths.isl, lengths.osl, strict=True))
    )
    path.write_text("\n".join(rows) + "\n")
    return path


def test_a_plain_question_replays_nothing_and_says_that_ttft_is_a_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(referee, "replay", None)
    found = planned(RunSpec.model_validate(RUN | {"ttft": "2 s"}))
    assert found.clients is None
    assert found.request.case.running_context is None


def test_a_plain_answer_has_no_clients_and_tells_how_to_ask_for_them(moeplan: Run) -> None:
    done = moeplan(*EQUAL, "--ttft", "2s", "--show", "all")
    assert "As clients see it" not in done.stdout
    assert "--ttft p99=2s" in done.stdout
    facts = _facts(moeplan(*EQUAL, "--ttft", "2s", "--format", "json"))
    assert "clients" not in facts
    assert "ttft_p99_s" not in facts


def test_clients_see_the_plan_that_was_asked_for(moeplan: Run) -> None:
    plain, seen = (
        _facts(moeplan(*EQUAL, "--ttft", "2s", *more, "--format", "json")) for more in ((), ("--clients-view",))
    )
    assert {key: seen[key] for key in plain} == plain
    assert seen["ttft_p50_s"] <= seen["ttft_p90_s"] <= seen["ttft_p99_s"]
    assert seen["within_limits"] == min(seen["clients"]["ttft_within"], seen["clients"]["tpot_within"])
    assert seen["goodput"] == pytest.approx(seen["requests_per_s"] * seen["within_limits"])
    # running requests are fewer than at full batch, so tokens come a little faster than the form's at full batch
    assert 0.5 * seen["tpot_s"] < seen["clients"]["tpot_s"] <= seen["tpot_s"] * 1.01


def test_chance_and_share_of_requests_are_two_figures(moeplan: Run) -> None:
    done = moeplan(*EQUAL, "--ttft", "2s", "--clients-view", "--format", "json")
    (targets,) = (table for table in json.loads(done.stdout)["tables"] if table["title"] == "Targets")
    facts, row = _facts(done), {row["target"]: row for row in targets["rows"]}["TTFT"]
    assert row["chance"] == facts["ttft_chance"]
    assert row["within"] == facts["clients"]["ttft_within"] != row["chance"]


def test_a_percentile_that_the_best_misses_takes_the_next_plan(moeplan: Run) -> None:
    loose, tight = (
        _facts(moeplan(*EQUAL, "--ttft", f"p99={limit}", "--ttft", "3s", "--format", "json"))
        for limit in ("20s", "600ms")
    )
    assert tight["ttft_p99_s"] <= 0.6
    assert tight["clients"]["plans_before"][0]["missed"][0]["limit"] == "ttft_p99"
    assert tight["requests_per_s"] < loose["requests_per_s"]
    done = moeplan(*EQUAL, "--ttft", "p99=600ms", "--ttft", "3s", "--show", "all")
    assert "the plan with the best figures" in done.stdout
    assert "TTFT p99" in done.stdout


def test_a_limit_that_no_plan_meets_is_told_with_the_nearest(moeplan: Run, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    words = (*EQUAL, "--ttft", "500ms", "--ttft", "p99=215ms", "--serving", "disaggregated")
    done = moeplan(*words, "--format", "json", "-o", str(path))
    facts = _facts(done, 3)
    assert facts["status"] == "infeasible"
    assert facts["clients"]["missed"][0]["limit"] == "ttft_p99"
    assert facts["ttft_p99_s"] > 0.215
    assert not path.exists()
    assert "this is the nearest" in "".join(json.loads(done.stdout)["notes"])


@pytest.mark.parametrize(
    "limits",
    [
        {"ttft_p99": "0.6 s", "ttft": "3 s"},
        {"ttft_p90": "0.4 s", "ttft": "3 s", "tpot_p50": "43 ms"},
        {"ttft": "0.5 s", "goodput": 0.99, "isl_cv": 0.8, "osl_cv": 0.6},
    ],
    ids=str,
)
@pytest.mark.usefixtures("fewer")
def test_no_plan_that_serves_more_passes(limits: dict[str, Any]) -> None:
    """Every plan of every line and level of room before the one that is taken is replayed: it misses a limit."""
    run = RunSpec.model_validate(RUN | limits | {"with": ["mtp=1"]})
    found = planned(run)
    verdict, best = found.clients, found.solution.best
    assert verdict is not None
    assert best is not None
    assert not verdict.misses
    request = request_of(run)
    judge, before = _judge(request), 0
    key = -best.requests_per_s
    for one in _all(request):
        if one.join.key[0] < key * (1 + 1e-9):
            before += 1
            seen = judge.seen(one.deployment)
            assert seen.misses(), (one.line, one.load, one.shorter, one.deployment.short_form)
    assert before


def _judge(request: PlanRequest) -> referee.Referee:
    assert request.asked is not None
    return referee.Referee(asked=request.asked, cases=(request.cases["prefill"], request.cases["decode"]))


def _all(request: PlanRequest) -> list[finalists.Finalist]:
    lines = solve(request.case, request.search, request.cases["prefill"]).finalists
    assert lines is not None
    levels = [(load, room) for load in range(len(finalists.LOADS)) for room in range(len(finalists.SHORTER))]
    found = (lines.at(line, *level) for line in range(len(lines.lines)) for level in levels)
    return [one for one in found if one is not None]


@pytest.mark.usefixtures("fewer")
def test_more_room_never_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    request = request_of(RunSpec.model_validate(RUN | {"ttft_p99": "2 s"}))
    lines = solve(request.case, request.search, request.cases["prefill"]).finalists
    assert lines is not None
    for first in lines.first():
        assert first.join.key >= lines.best.key
        for more in (lines.at(first.line, 1), lines.at(first.line, 0, 1), lines.at(first.line, 1, 1)):
            assert more is None or more.join.key[0] >= first.join.key[0]


def test_a_trace_sets_lengths_and_contexts(tmp_path: Path) -> None:
    path = _trace(tmp_path / "trace.jsonl")
    values = {key: value for key, value in RUN.items() if key not in ("isl", "osl")}
    request = request_of(RunSpec.model_validate(values | {"workload": str(path)}))
    lengths = lognormal(1000, 1.0, 300, 0.8, requests=3000, seed=3)
    assert request.case.isl == round(lengths.inputs.mean)
    mean = lengths.outputs.mean
    expected = running_context(
        mean_output=mean,
        mean_input_output=lengths.moment(1, 1),
        mean_square_output=lengths.moment(0, 2),
    )
    assert request.case.running_context == pytest.approx(expected)
    assert as_float(request.case.running_context or 0) > as_float(request.case.isl + request.case.osl / 2)
    plain = request_of(RunSpec.model_validate(RUN | {"isl": request.case.isl, "osl": request.case.osl}))
    both = [solve(one.case, one.search, one.cases["prefill"]).best for one in (request, plain)]
    assert both[0] is not None
    assert both[1] is not None
    assert both[0].requests_per_s < both[1].requests_per_s


def test_a_plan_with_a_workload_is_found_again(moeplan: Run, tmp_path: Path) -> None:
    path, plan = _trace(tmp_path / "trace.jsonl"), tmp_path / "plan.json"
    words = (*ASKED, "--cards", "32", "--trace", str(path), "--ttft", "p90=3s", "--ttft", "2s", "--routing", "random")
    first = moeplan(*words, "-o", str(plan))
    assert first.returncode == 0, first.stderr
    asked = json.loads(plan.read_text())["run"]
    assert asked["workload"] == "./trace.jsonl"
    assert asked["ttft_p90"] == "3.0 s"
    again = moeplan("solve", str(plan))
    assert again.returncode == 0, again.stderr
    assert again.stdout == first.stdout
    assert "now," not in again.stderr  # predictions of the plan are what they were
    done = moeplan("explain", str(plan))
    assert done.returncode == 0, done.stderr
    assert "now," not in done.stderr
    page = tmp_path / "plan.html"
    made = moeplan("report", str(plan), "-o", str(page))
    assert made.returncode == 0, made.stderr
    assert "<span>--ttft</span> <span>p90=3s</span>" in page.read_text(encoding="utf-8")
    other = moeplan("solve", str(plan), "--ttft", "4s", "--format", "json")
    assert _facts(other)["clients"]["limits"] == {"ttft": 4.0, "tpot": 0.05}


def test_a_run_spec_says_limits_as_options_do(moeplan: Run, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    lines = "".join(f"{key}: {value}\n" for key, value in RUN.items())
    path.write_text(lines + "ttft: [3s, p99=1s]\nisl_cv: 0.5\n")
    done = moeplan("solve", str(path))
    assert done.returncode == 0, done.stderr
    options = (*EQUAL, "--ttft", "3s", "--ttft", "p99=1s", "--isl-cv", "0.5")
    assert done.stdout == moeplan(*options).stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--ttft", "p101=2s"), "--ttft: 'p101=2s'; allowed: "),
        (("--ttft", "p99="), "--ttft: 'p99='; allowed: "),
        (("--ttft", "p99=2 cards"), "--ttft: "),
        (("--tpot", "p90=-5ms"), "--tpot: "),
        (("--goodput", "1.2"), "--goodput: 1.2; allowed: above 0, at most 1"),
        (("--goodput", "0"), "--goodput: 0; allowed: above 0, at most 1"),
        (("--isl-cv", "-1"), "--isl-cv: -1; allowed: from 0 to 10"),
        (("--routing", "nearest"), "--routing: 'nearest' is unknown"),
        (("--workload", "trace.jsonl"), "--isl with --workload; allowed: one of them"),
    ],
)
def test_malformed_limits_are_refused(moeplan: Run, words: tuple[str, ...], says: str) -> None:
    done = moeplan(*EQUAL, *words)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_workload_that_is_not_there_is_told(moeplan: Run) -> None:
    done = moeplan(*ASKED, "--cards", "32", "--workload", "nowhere.jsonl")
    assert done.returncode == 2
    assert "nowhere.jsonl" in done.stderr
