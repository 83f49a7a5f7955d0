"""What the program writes is as its schemas say, and the schemas refuse what is not."""

import copy
import json
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from perfmodel.cli.app import program
from perfmodel.files import folders
from perfmodel.prediction.sureness import MARKS, verdict_of
from perfmodel.report.schema import FACTS, KINDS
from perfmodel.specs.run import RunSpec

SOLVE = "solve deepseek-v3 --on cm384 --cards 32 --isl 1024 --osl 512 --tpot".split()
ROW = "cm384-decode-4k-b96"
PRICED = ("--price", "cm384=2.5")
COMMANDS = [
    (*SOLVE, "50ms"),
    (*SOLVE, "1ms"),
    ("explain", "--evidence", ROW, "--sources"),
    ("explain", "--evidence", "seed-prefill-16x"),
    ("explain", "--evidence", ROW, "--layer", "moe"),
    ("explain", "--evidence", ROW, "--tree", "--roofline", "--compare", "draft=0"),
    ("what-if", "seed-cm384-decode", "--only", "mtp,amla"),
    ("what-if", "seed-cm384-decode", "--only", "mtp,amla", "--reach", "tpot=30ms"),
    ("compare", ROW, "xds-colocated-decode"),
    (*"compare-systems qwen3-30b-a3b --on cm384,atlas-800i-a3 --isl 1k --osl 512 --cards 16".split(), *PRICED),
    ("gains", "amla"),
    ("validate", "seed-cm384-decode", "va-qwen235-1p2d"),
    ("accuracy", "cm384-table7"),
    ("calibrate", "--evidence"),
    ("workload",),
    ("replay", "--requests", "20"),
    ("check", "models/deepseek-v3.yaml"),
    ("list",),
    ("list", "techniques"),
    ("show", "cloudmatrix384"),
    ("init", "--yes"),
    ("doctor",),
]


def schema(moeplan, kind: str) -> Draft202012Validator:
    found = json.loads(moeplan("show", "schema", kind).stdout)
    Draft202012Validator.check_schema(found)
    return Draft202012Validator(found)


def test_every_command_is_checked() -> None:
    assert {words[0] for words in COMMANDS} == set(program().commands) - {"report"}  # which writes a page


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_json_of_every_command_is_as_the_schema_says(moeplan, tmp_path, words: tuple[str, ...]) -> None:
    files = (str(tmp_path / "run.yaml"),) if words[0] == "init" else ()
    if words[0] == "workload":
        (tmp_path / "load.csv").write_text("isl,osl\n4096,1024\n")
        files = (str(tmp_path / "load.csv"),)
    if words[0] == "replay":
        moeplan(*SOLVE, "50ms", "-o", str(tmp_path / "plan.json"))
        files = ("--plan", str(tmp_path / "plan.json"))
    document = json.loads(moeplan(*words, *files, "--format", "json").stdout)
    schema(moeplan, "document").validate(document)
    for table in document["tables"]:
        keys = {column["key"] for column in table["columns"]}
        assert all(row.keys() == keys for row in table["rows"])


BY_CHANCE = "met, likely or missed"


@pytest.mark.parametrize(
    ("words", "met"),
    [
        ((*SOLVE, "50ms"), {"TPOT": (True, BY_CHANCE), "TTFT": (True, "no limit given")}),
        (
            (*SOLVE, "50ms", "--rate", "1"),
            {"TPOT": (True, BY_CHANCE), "TTFT": (True, "no limit given"), "requests per second": (True, BY_CHANCE)},
        ),
        ((*SOLVE, "1ms"), {"TPOT": (False, "missed")}),
        (
            (*SOLVE, "50ms", "--ttft", "1ms"),
            {"TPOT": (True, "not the limit that binds"), "TTFT": (False, "missed")},
        ),
        (
            (*SOLVE, "50ms", "--ttft", "9s", "--rate", "900"),
            {
                "TPOT": (True, "not the limit that binds"),
                "TTFT": (True, "not the limit that binds"),
                "requests per second": (False, "missed"),
            },
        ),
        (
            (*SOLVE, "1ms", "--ttft", "1ms"),
            {"TPOT": (False, "missed"), "TTFT": (False, "not the limit that binds")},
        ),
    ],
)
def test_whether_a_limit_is_met_is_true_or_false(
    moeplan, words: tuple[str, ...], met: dict[str, tuple[bool, str]]
) -> None:
    tables = json.loads(moeplan(*words, "--format", "json").stdout)["tables"]
    rows = next(table["rows"] for table in tables if table["title"] == "Targets")
    assert {row["target"] for row in rows} == met.keys()
    for row in rows:
        truth, word = met[row["target"]]
        assert row["met"] is truth
        assert row["verdict"] == (verdict_of(truth, row["chance"]) if word == BY_CHANCE else word)
    page = moeplan(*words, "--format", "markdown").stdout
    assert "| target | met | " in page
    assert any(mark in page for mark in MARKS.values())


def test_a_step_and_a_score_without_a_target_have_met_it(moeplan) -> None:
    asked = ("explain", "deepseek-v3", "--on", "cm384", "--dies", "64", "--batch", "8", "--isl", "1024", "--osl", "512")
    for tpot, met, verdict in ((None, True, "no limit given"), ("1ms", False, "missed"), ("1s", True, "met")):
        facts = json.loads(moeplan(*asked, *(["--tpot", tpot] if tpot else []), "--format", "json").stdout)["facts"]
        assert (facts["tpot_met"], facts["tpot_verdict"]) == (met, verdict)
    for document in (json.loads(moeplan("accuracy", "cm384-table7", "--format", "json").stdout),):
        rows = document["tables"][0]["rows"]
        assert rows
        assert all(row["met"] is (row["verdict"] != "no") for row in rows)


def _damages(document: dict[str, Any]) -> list[dict[str, Any]]:
    def changed(change: Any) -> dict[str, Any]:
        other = copy.deepcopy(document)
        change(other)
        return other

    return [
        changed(lambda d: d.pop("facts")),
        changed(lambda d: d.update(extra=1)),
        changed(lambda d: d.update(schema="moeplan/1")),
        changed(lambda d: d["facts"].pop("step_time_s")),
        changed(lambda d: d["tables"][0].pop("columns")),
        changed(lambda d: d["tables"][0]["columns"][0].update(unit="miles")),
        changed(lambda d: d["tables"][0]["rows"][0].update(value=[1])),
        changed(lambda d: d["tables"][0]["rows"][0].update(met="✓")),
        changed(lambda d: d["facts"].update(tpot_met=None)),
    ]


def test_a_damaged_document_is_refused(moeplan) -> None:
    document = json.loads(moeplan("explain", "--evidence", ROW, "--format", "json").stdout)
    assert document["schema"] in FACTS
    validator = schema(moeplan, "document")
    assert validator.is_valid(document)
    damages = _damages(document)
    assert not [at for at, damaged in enumerate(damages) if validator.is_valid(damaged)]


def test_a_plan_file_is_as_the_schema_says(moeplan, tmp_path) -> None:
    path = tmp_path / "plan.json"
    assert moeplan(*SOLVE, "50ms", "-o", str(path)).returncode == 0
    plan = json.loads(path.read_text())
    validator = schema(moeplan, "plan")
    validator.validate(plan)
    for key in ("conditions", "version", "techniques"):
        assert not validator.is_valid({name: value for name, value in plan.items() if name != key})
    plan["conditions"]["decode"]["layout"]["dies"] = 0
    assert not validator.is_valid(plan)


RUNS = [
    {"model": "deepseek-v3", "on": "cm384", "cards": 32, "isl": 1024, "osl": 512, "tpot": "50 ms"},
    {"rate": 12, "acceptance": [0.9, 0.36], "kernels": "cann-2025-05", "with": ["mtp=1"]},
    {"rate": "12 req/s", "acceptance": "0.9,0.36", "with": "mtp=1", "utilisation": 0.8},
    {"tpot": 50},
    {"cards": 0},
    {"speed": "fast"},
    {"objective": "most"},
    {"rate": [1]},
]


@pytest.mark.parametrize("run", RUNS, ids=str)
def test_a_run_spec_passes_the_schema_where_it_can_be_read(moeplan, run: dict[str, Any]) -> None:
    from pydantic import ValidationError

    try:
        RunSpec(**run)
        readable = True
    except ValidationError:
        readable = False
    assert schema(moeplan, "run").is_valid(run) == readable


def test_what_init_writes_passes_the_schema(moeplan, tmp_path) -> None:
    path = tmp_path / "run.yaml"
    assert moeplan("init", "--yes", str(path)).returncode == 0
    run = yaml.safe_load(path.read_text())
    run["on"] = run.pop(True)  # a key that this reader takes for a truth, and ours does not
    schema(moeplan, "run").validate(run)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("schema",), f"allowed: {', '.join(KINDS)}"),
        (("schema", "paln"), "did you mean 'plan'?"),
        (("cloudmatrix384", "plan"), "too many words"),
    ],
)
def test_a_wrong_schema_is_one_clear_line(moeplan, words: tuple[str, ...], says: str) -> None:
    done = moeplan("show", *words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert says in done.stderr


def test_no_entry_is_called_schema() -> None:
    assert "schema" not in {name for kind in ("models", "systems", "chips", "stacks") for name in folders.names(kind)}
