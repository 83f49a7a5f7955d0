"""`moeplan check` tells what any file is, what it says, or all its faults."""

import json
from pathlib import Path

import pytest

from perfmodel.files.folders import FOLDERS, entries
from perfmodel.files.what import kind_of
from perfmodel.planning.check import checked
from tests.conftest import Run

CONFIG = Path(__file__).parent / "data" / "model_configs" / "qwen3-30b-a3b.json"
RUN = "model: deepseek-v3\non: cloudmatrix384\ncards: 64\nisl: 1024\nosl: 256\ntpot: 50ms\n"


@pytest.mark.parametrize("kind", FOLDERS)
def test_every_file_on_file_is_of_its_kind(kind: str) -> None:
    for path in entries(kind).values():
        assert kind_of(path) == kind, path


def test_each_kind_of_file_is_told_and_says_what_it_means(moeplan: Run, tmp_path: Path) -> None:
    run, trace = tmp_path / "run.yaml", tmp_path / "trace.jsonl"
    run.write_text(RUN)
    trace.write_text('{"input_length": 100, "output_length": 10}\n' * 3)
    plan, summary = str(tmp_path / "plan.json"), str(tmp_path / "summary.yaml")
    assert moeplan("solve", str(run), "-o", plan).returncode == 0
    assert moeplan("workload", str(trace), "-o", summary).returncode == 0
    data = [str(path) for path in (entries("chips")["ascend-910c-752"], entries("models")["deepseek-v3"])]
    done = moeplan("check", str(run), plan, str(trace), summary, str(CONFIG), *data, "--format", "json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["tables"][0]["rows"]
    assert [row["kind"] for row in rows] == [
        *("a run-spec", "a plan file", "a workload", "a workload", "the config of a model", "a chip", "a model"),
    ]
    says = ["64 cards", "TPOT", "3 requests", "3 requests", "30.5", "TFLOP/s", "bytes of BF16 cache a token"]
    assert all(word in row["means"] for word, row in zip(says, rows, strict=True)), rows


def test_all_faults_of_all_files_are_told(moeplan: Run, tmp_path: Path) -> None:
    chip, run = tmp_path / "chip.yaml", tmp_path / "run.yaml"
    chip.write_text(entries("chips")["ascend-910c-752"].read_text().replace("bandwidth:", "bandwith:"))
    run.write_text(RUN + "tops: 3\n")
    done = moeplan("check", str(chip), str(run), str(entries("chips")["ascend-910b1"]))
    assert done.returncode == 4
    assert "chip.yaml" in done.stderr and "did you mean 'bandwidth'" in done.stderr
    assert "run.yaml:7: tops: unknown key; did you mean 'top'?" in done.stderr
    assert done.stdout.count("✓") == 1 and done.stdout.count("✗") == 2


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.yaml", ""), ("b.yaml", "[]"), ("c.yaml", "x: 1"), ("d.json", "{"), ("e.txt", "hello"), ("f.yaml", "\x00")],
)
def test_what_is_of_no_kind_is_refused(moeplan: Run, tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    done = moeplan("check", str(path))
    assert done.returncode == 4 and done.stderr.startswith(f"error: {path}:") and "✗" in done.stdout
    assert checked(str(path)).kind == "not known"


def test_what_cannot_be_read_is_a_fault_of_usage(moeplan: Run, tmp_path: Path) -> None:
    done = moeplan("check", str(tmp_path / "nowhere.yaml"))
    assert done.returncode == 2 and "cannot be read" in done.stderr
