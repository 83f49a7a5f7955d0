"""A question without a plan is answered with the nearest that has one, as a command that works when it is pasted."""

import json
import shlex
from typing import Any

import pytest

from perfmodel.planning.nearest import _up
from perfmodel.planning.planner import answered, planned
from perfmodel.planning.request import request_of
from perfmodel.report.plan.commands import solve_command
from perfmodel.specs.run import RunSpec
from tests.conftest import Run

INFEASIBLE = 3
#: one of each kind of limit that binds, on systems and models of each kind; SERVER is one server's cards
QUESTIONS = {
    "two servers, pools apart": "deepseek-v3 --on atlas-800i-a2-64gb-hccs --cards 16 --isl 3500 --osl 1500 "
    "--tpot 100ms --ttft 10s --serving disaggregated",
    "TPOT too short": "qwen3-30b-a3b --on atlas-800t-a3 --cards 16 --isl 1024 --osl 256 --tpot 1ms",
    "TTFT too short": "qwen3-30b-a3b --on h200 --cards 16 --isl 4096 --osl 256 --tpot 50ms --ttft 20ms",
    "too little memory": "deepseek-v3 --on h200 --cards 8 --isl 1024 --osl 128 --tpot 100ms --precision bf16",
    "a rate beyond the budget": "qwen3-30b-a3b --on h200 --cards 8 --isl 1024 --osl 256 --tpot 50ms --rate 500",
    "mixed alone": "qwen3-235b-a22b --on atlas-800i-a2-64gb-hccs --cards 8 --isl 2048 --osl 256 "
    "--tpot 15ms --serving mixed",
}


def facts_of(moeplan: Run, words: str, code: int) -> dict[str, Any]:
    """Return the facts that a question leads to."""
    result = moeplan("solve", *shlex.split(words), "--format", "json")
    assert result.returncode == code, result.stdout + result.stderr
    found: dict[str, Any] = json.loads(result.stdout)["facts"]
    return found


@pytest.mark.parametrize("words", QUESTIONS.values(), ids=QUESTIONS)
def test_every_command_that_is_told_works_when_it_is_pasted(words: str, moeplan: Run) -> None:
    """Exit code 0, and what it then serves is what was told."""
    facts = facts_of(moeplan, words, INFEASIBLE)
    assert facts["nearest"]
    assert facts["nearest_tried"]
    for way in facts["nearest"]:
        name, command, *rest = shlex.split(way["command"])
        assert (name, command) == ("moeplan", "solve")
        found = facts_of(moeplan, shlex.join(rest), 0)
        assert found["requests_per_s"] * way["systems"] == pytest.approx(way["requests_per_s"], rel=1e-6)
        assert found["tpot_s"] == pytest.approx(way["tpot_s"], rel=1e-6)


def test_nothing_that_works_is_told_with_what_was_tried(moeplan: Run) -> None:
    """A chip and network that nothing of it meets: no limit ten times as long is enough."""
    words = "deepseek-v3 --on atlas-800i-a2-64gb-hccs --cards 8 --isl 64000 --osl 1000 --tpot 1us --ttft 1us"
    facts = facts_of(moeplan, words, INFEASIBLE)
    assert facts["nearest"] == []
    text = moeplan("solve", *shlex.split(words)).stdout
    assert "none of what was tried works: " in " ".join(text.split())


@pytest.mark.parametrize(
    "words",
    [
        "deepseek-v3 --on atlas-800i-a2-64gb-hccs --cards 16 --isl 3500 --osl 1500 --tpot 100ms --ttft 10s",
        "deepseek-v3 --on atlas-800i-a3 --cards 8 --isl 2048 --osl 512 --tpot 100ms",
    ],
)
def test_the_smallest_deployments_answer_without_being_told_how(words: str, moeplan: Run) -> None:
    """One server of eight cards of two dies, and two of eight: pools apart do not fit, mixed serving does."""
    facts = facts_of(moeplan, words, 0)
    assert facts["serving"] == "mixed"
    assert facts["tpot_s"] < 0.1


@pytest.mark.parametrize("rate", [90.0])
def test_a_budget_grows_to_the_fewest_servers_of_a_large_one(rate: float) -> None:
    """The same as the search of all that it grew to: 48 servers are no limit that a user set."""
    run: dict[str, Any] = {"model": "qwen3-235b-a22b", "on": "h20", "isl": 4096, "osl": 512, "tpot": 0.03, "ttft": 2.0}
    grown = planned(RunSpec.model_construct(**run, rate=rate))
    best, servers = grown.solution.best, grown.solution.search.servers
    assert best is not None
    whole = planned(RunSpec.model_construct(**run, rate=rate, cards=servers * 8)).solution.best
    assert whole is not None
    assert best.servers_used == whole.servers_used
    small = request_of(RunSpec.model_construct(**run, rate=rate, cards=(best.servers_used - 1) * 8))
    assert answered(small).solution.best is None


def test_a_rate_beyond_one_supernode_says_so(moeplan: Run) -> None:
    """Usability point 1: 400 requests a second on systems of 384 cards."""
    words = "deepseek-v3 --on cloudmatrix384 --rate 400 --isl 4096 --osl 1024 --tpot 50ms --serving disaggregated"
    text = " ".join(moeplan("solve", *words.split()).stdout.split())
    assert "are more than one supernode or server group of 384 cards: at least 2 of them" in text


def test_a_plan_of_one_kind_says_how_the_other_does(moeplan: Run) -> None:
    """Pools apart and mixed are both tried."""
    words = "qwen3-30b-a3b --on h200 --cards 16 --isl 1024 --osl 256 --tpot 50ms --serving any"
    text = " ".join(moeplan("solve", *words.split(), "--show", "notes").stdout.split())
    assert ("mixed serving, prefill and decode on the same dies: " in text) or ("pools apart: " in text)


def test_a_command_asks_what_its_run_spec_does() -> None:
    """Options of every form; what the defaults have is left out."""
    given = {
        "model": "m", "on": "s", "cards": 16, "rate": "2 req/s", "isl": 4096, "osl": 512, "tpot": "50 ms",
        "ttft": ["2s", "p99=3s"], "allow_scale_out": True, "kv": "int8", "utilisation": 0.8, "clients_view": True,
        "with": ["mtp=1", "eplb=off"], "set": {"hbm": "+50%"},
    }  # fmt: skip
    wanted = (
        "moeplan solve m --on s --cards 16 --rate 2 --isl 4096 --osl 512 --tpot 50ms --ttft 2000ms --ttft p99=3000ms "
        "--clients-view --serving any --allow-scale-out --kv int8 --with mtp=1 --with eplb=off --set hbm=+50%"
    )
    words = shlex.split(solve_command(RunSpec.model_validate(given).filled()))
    assert sorted(words) == sorted(wanted.split())


def test_limits_are_rounded_up() -> None:
    """A limit that is told is one that the plan meets."""
    for value in (0.0521, 1.0, 0.00999, 123.0):
        assert value <= _up(value) * (1 + 1e-12) < value * 1.1 + 1e-12
