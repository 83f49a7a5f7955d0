"""The command line as a user runs it."""

import json
import subprocess
import sys

import pytest

from perfmodel.files import folders
from tests import process

SOLVE = ("solve", "deepseek-v3", "--on", "cloudmatrix384", "--cards", "32", "--isl", "1024", "--osl", "512")
LAYOUT = ("explain", "deepseek-v3", "--on", "cm384", "--batch", "1", "--isl", "9", "--osl", "9")


@pytest.fixture(scope="module")
def solved() -> dict:
    words = [*SOLVE, "--tpot", "50ms", "--format", "json"]
    done = process.run(*words, check=True)
    return json.loads(done.stdout)


def test_solve_meets_its_target(solved: dict) -> None:
    facts = solved["facts"]
    assert solved["schema"] == "moeplan.solution/1"
    assert facts["status"] == "optimal"
    assert facts["tpot_s"] <= 0.05
    assert facts["cards_used"] + facts["cards_idle"] == 32
    assert facts["decode"]["memory_planned_B"] <= facts["decode"]["memory_usable_B"]
    assert facts["ttft_s"] == pytest.approx(sum(facts["ttft_terms_s"].values()))


@pytest.mark.parametrize("pool", ["decode", "prefill"])
def test_explain_command_reproduces_the_plan(solved: dict, moeplan, pool: str) -> None:
    words = solved["facts"]["explain"][pool].split()[1:]
    done = moeplan(*words, "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["facts"]["step_time_s"] == solved["facts"][pool]["step_time_s"]


@pytest.mark.parametrize("name", ["seed-cm384-decode", "seed-a2-decode-808", "seed-prefill-16x"])
def test_seed_layouts_explain_and_reconcile(moeplan, name: str) -> None:
    done = moeplan("explain", "--evidence", name, "--format", "json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    step = document["facts"]["step_time_s"]
    operators = next(t for t in document["tables"] if t["title"].startswith("Operators"))["rows"]
    assert sum(row["share"] for row in operators if row["share"] is not None) == pytest.approx(1, rel=1e-9)
    blocks = next(t for t in document["tables"] if t["title"] == "Blocks")["rows"]
    inside = ("prefetched weights", "weights still in L2")  # taken off the blocks already
    added = [row for row in operators if row["block"] == "step" and row["operator"] not in inside]
    outside = sum(row["time"] for row in added)
    assert sum(row["total"] for row in blocks) + outside == pytest.approx(step, rel=1e-12)


@pytest.mark.parametrize("format_", ["table", "json", "csv", "markdown"])
@pytest.mark.parametrize(
    "words", [("list",), ("show", "cloudmatrix384"), ("explain", "--evidence", "seed-prefill-16x")]
)
def test_every_view_in_every_format(moeplan, format_: str, words: tuple[str, ...]) -> None:
    done = moeplan(*words, "--format", format_)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_infeasible_is_a_result_with_the_closest_miss(moeplan) -> None:
    done = moeplan(*SOLVE, "--tpot", "1ms")
    assert done.returncode == 3
    assert "no feasible plan" in done.stdout
    assert "TPOT" in done.stdout
    assert "off by" in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("solve", "deepsek-v3", *SOLVE[2:], "--tpot", "50ms"), 2, "did you mean 'deepseek-v3'"),
        ((*SOLVE, "--tpot", "50"), 2, "no unit"),
        ((*SOLVE, "--tpot", "-5ms"), 2, "negative"),
        (("solve", "deepseek-v3", "--on", "cloudmatrix384", "--cards", "9999", *SOLVE[6:], "--tpot", "50ms"), 2,
         "allowed: at most 2048"),
        (("solve", "deepseek-v3"), 2, "--on"),
        (("explain", "--evidence", "sed-cm384-decode"), 2, "did you mean 'seed-cm384-decode'"),
        ((*LAYOUT, "--dies", "64", "--tp", "3"),
         2, "tp 3 does not divide"),
        ((*LAYOUT, "--dies", "512"), 2,
         "exceeds"),
        (("explain", "--evidence", "seed-cm384-decode", "--batch", "3"), 2, "drop --batch"),
        ((*LAYOUT, "--dies", "64", "--phase", "prefill", "--overlap", "cores"), 2, "allowed: none, link"),
        (("show", "nothing-like-it"), 2, "not on file"),
        (("solve", "deepseek-v3", "--on", "/nowhere/x.yaml", *SOLVE[4:], "--tpot", "50ms"), 2, "cannot be read"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_line(moeplan, words: tuple[str, ...], code: int, says: str) -> None:
    done = moeplan(*words)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_help_loads_nothing_heavy() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "perfmodel", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert not loaded & {"numpy", "scipy", "sympy", "pydantic", "yaml", "jinja2", "plotly"}


def test_a_layout_that_does_not_fit_says_so(moeplan) -> None:
    words = ("explain", "deepseek-v3", "--on", "cm384", "--dies", "64", "--isl", "4096", "--osl", "1024")
    done = moeplan(*words, "--batch", "1000")
    assert done.returncode == 3
    assert "does not fit" in done.stdout
    missed = moeplan(*words, "--tpot", "1ms")
    assert missed.returncode == 3
    assert "no batch holds" in missed.stdout
    assert "no batch meets TPOT" in moeplan(*words, "--tpot", "1ms", "--show", "notes").stdout


def test_bad_data_file_exits_4(moeplan, tmp_path) -> None:
    path = tmp_path / "system.yaml"
    path.write_text("")
    done = moeplan("solve", "deepseek-v3", "--on", str(path), *SOLVE[4:], "--tpot", "50ms")
    assert done.returncode == 4
    assert f"{path}:1:" in done.stderr


def test_rows_are_scored_under_another_stack(moeplan) -> None:
    done = moeplan("explain", "--evidence", "seed-prefill-16x", "--stack", "ideal", "--format", "json")
    usual = moeplan("explain", "--evidence", "seed-prefill-16x", "--format", "json")
    assert json.loads(done.stdout)["facts"]["step_time_s"] < json.loads(usual.stdout)["facts"]["step_time_s"]


def test_confidence_buys_room(moeplan) -> None:
    """A plan asked to meet its target more often is slower in rate and meets it that often."""
    found = {}
    for confidence in ("0.6", "0.95"):
        done = moeplan(*SOLVE, "--tpot", "50ms", "--confidence", confidence, "--format", "json")
        assert done.returncode == 0, done.stderr
        found[confidence] = json.loads(done.stdout)["facts"]
        assert found[confidence]["tpot_chance"] >= float(confidence)
    assert found["0.95"]["requests_per_s"] <= found["0.6"]["requests_per_s"]
    assert found["0.95"]["tpot_s"] < found["0.6"]["tpot_s"]
    refused = moeplan(*SOLVE, "--tpot", "50ms", "--confidence", "90")
    assert refused.returncode == 2
    assert "allowed: from 0.5 to 0.99" in refused.stderr


def test_a_fit_to_evidence_refuses_what_it_would_ignore(moeplan) -> None:
    done = moeplan("calibrate", "--evidence", "--stack", "ideal", "--cold")
    assert done.returncode == 2
    assert "drop --stack, --cold" in done.stderr
    assert moeplan("calibrate").returncode == 2


def test_terms_are_listed_and_shown(moeplan) -> None:
    assert "ascend" in moeplan("list", "terms").stdout
    assert "residual" in moeplan("show", "ascend").stdout


def test_a_layout_that_does_not_fit_is_remarked(moeplan, tmp_path) -> None:
    text = (folders.root() / "evidence" / "seed-prefill-16x.yaml").read_text()
    path = tmp_path / "huge.yaml"
    path.write_text(text.replace("    batch: 4", "    batch: 400"))
    done = moeplan("validate", str(path))
    assert done.returncode == 0
    assert "does not fit the memory of a die" in done.stderr


@pytest.mark.parametrize("kind", list(folders.FOLDERS))
def test_one_of_each_kind_is_shown(kind: str, moeplan) -> None:
    name = folders.names(kind)[0]
    shown = moeplan("show", name)
    assert shown.returncode == 0, shown.stderr
    assert name in shown.stdout
