"""Run-specs, the questions that write them, and the check of an installation."""

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from perfmodel.cli.app import program
from perfmodel.files.runs import load_run
from perfmodel.specs.run import RunSpec
from tests import process

ROOT = Path(__file__).resolve().parent.parent
RUN = "model: deepseek-v3\non: cm384\ncards: 32\nisl: 1024\nosl: 512\ntpot: 50ms\n"
FLAGS = ("deepseek-v3", "--on", "cm384", "--cards", "32", "--isl", "1024", "--osl", "512", "--tpot", "50ms")


def _plan(done: "subprocess.CompletedProcess[str]") -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_spec_is_the_same_as_its_options(moeplan, tmp_path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(RUN + "kv: int8\nstack: cann-2026\nwith: [eplb=static]\nttft: 3 s\nacceptance: [0.8]\n")
    options = (*FLAGS, "--kv", "int8", "--ttft", "3s", "--acceptance", "0.8", "--stack", "cann-2026")
    options = (*options, "--with", "eplb=static")
    assert _plan(moeplan("solve", str(path))) == _plan(moeplan("solve", *options))
    slower = _plan(moeplan("solve", str(path), "--tpot", "70ms", "--kv", "bf16"))
    changed = tuple({"50ms": "70ms", "int8": "bf16"}.get(word, word) for word in options)
    assert slower == _plan(moeplan("solve", *changed))


def test_a_run_spec_names_what_stands_beside_it(moeplan, tmp_path) -> None:
    """Wherever solve runs; the tests run in another folder than the file's."""
    stack = (ROOT / "hardware" / "stacks" / "cann-2026.yaml").read_text()
    (tmp_path / "b.yaml").write_text(stack)
    path = tmp_path / "run.yaml"
    path.write_text(RUN + "stack: b.yaml\n")
    options = (*FLAGS, "--stack", str(tmp_path / "b.yaml"))
    assert _plan(moeplan("solve", str(path))) == _plan(moeplan("solve", *options))
    (tmp_path / "b.yaml").unlink()
    done = moeplan("solve", str(path))
    assert done.returncode == 4
    assert f"stack: there is no file {tmp_path / 'b.yaml'}; " in done.stderr


def test_a_run_spec_comes_from_stdin() -> None:
    done = process.run("solve", "-", "--format", "json", given=RUN, check=True)
    assert json.loads(done.stdout)["facts"]["status"] == "optimal"


def test_options_fill_what_a_run_spec_leaves_open(moeplan, tmp_path) -> None:
    path = tmp_path / "open.yaml"
    path.write_text("model: deepseek-v3\non: cm384\nisl: 1024\nosl: 512\n")
    done = moeplan("solve", str(path))
    assert done.returncode == 4
    assert done.stderr.splitlines() == [
        f"error: {path}:1: cards: is missing, and so is rate; required; add one, or give --cards",
        f"error: {path}:1: tpot: is missing; required; add it, or give --tpot",
    ]
    assert _plan(moeplan("solve", str(path), "--cards", "32", "--tpot", "50ms")) == _plan(moeplan("solve", *FLAGS))


def test_all_faults_of_a_run_spec_are_told_at_once(moeplan, tmp_path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "model: deepsek-v3\non: cloudmatrx384\ncards: yes\nrate: 20 req/h\nisl: -4\nosl: 512\ntpot: 50\nkv: int9\n"
        "confidence: 90\nacceptance: {a: 1}\nkernels: nope\ntop: '5'\nttfd: 2s\n"
    )
    done = moeplan("solve", str(path))
    assert done.returncode == 4
    told = done.stderr.splitlines()
    assert [int(line.split(":")[2]) for line in told] == [*range(1, 6), *range(7, 14)]
    for key, says in (
        ("model", "did you mean 'deepseek-v3'?"),
        ("on", "did you mean 'cloudmatrix384'?"),
        ("tpot", "50 has no unit; write it like '50 ms'"),
        ("kv", "found 'int9'; allowed: 'bf16', 'int8', 'fp8' or 'any'"),
        ("ttfd", "unknown key; did you mean 'ttft'?"),
    ):
        assert any(f": {key}: " in line and line.endswith(says) for line in told), key


def test_a_model_of_ones_own_is_still_a_model(moeplan) -> None:
    own = str(ROOT / "models" / "deepseek-v3.yaml")
    assert _plan(moeplan("solve", own, *FLAGS[1:])) == _plan(moeplan("solve", *FLAGS))


def test_every_key_of_a_run_spec_is_an_option_and_in_what_init_writes(moeplan) -> None:
    page = moeplan("solve", "--help").stdout
    text = moeplan("init", "--yes", "-").stdout
    for name in RunSpec.model_fields:
        key = name.rstrip("_")
        option = key.partition("_p")[0] if key[-4:] in ("_p50", "_p90", "_p99") else key  # --ttft p99=3s
        assert key == "model" or f"--{option.replace('_', '-')}" in page
        assert f"\n{key}: " in text or f"\n# {key}: " in text


def test_init_takes_defaults_where_nobody_can_be_asked(moeplan, tmp_path) -> None:
    path = tmp_path / "run.yaml"
    done = moeplan("init", str(path), "--format", "json")
    assert json.loads(done.stdout)["facts"]["file"] == str(path)
    assert [one.name for one in tmp_path.iterdir()] == ["run.yaml"]
    before = path.read_text()
    again = moeplan("init", str(path))
    assert again.returncode == 2
    assert "is there already" in again.stderr
    path.write_text("mine")
    assert moeplan("init", "--force", "--yes", str(path)).returncode == 0
    assert path.read_text() == before
    _plan(moeplan("solve", str(path)))
    for wrong in ("run.txt", str(tmp_path / "no" / "run.yaml")):
        assert moeplan("init", "--yes", wrong).returncode == 2


def test_init_asks_six_questions_and_asks_again_for_wrong_answers(tmp_path) -> None:
    answers = ["deepsek", "deepseek-v3", "", "20 req/s", "1024", "1024/512", "40ms", "2s"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.environ["COLUMNS"] = "100"
        os.execv(sys.executable, [sys.executable, "-m", "perfmodel", "init"])
    shown = b""
    while True:
        try:
            read = os.read(terminal, 4096)
        except OSError:
            break
        if not read:
            break
        shown += read
        if shown.rstrip().endswith(b"]:") and answers:
            os.write(terminal, answers.pop(0).encode() + b"\n")
            shown += b"\n"
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, shown.decode()
    assert shown.count(b"]:") == 8
    text = (tmp_path / "run.yaml").read_text()
    for line in ("rate: 20 req/s\n", "# cards: ", "isl: 1024 ", "osl: 512 ", "tpot: 40ms ", "ttft: 2s "):
        assert f"\n{line}" in text


def test_init_names_from_the_folder_of_its_file_what_was_typed_from_here(monkeypatch, tmp_path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "mine.yaml").write_text((ROOT / "models" / "deepseek-v3.yaml").read_text())
    (tmp_path / "sys.yaml").write_text((ROOT / "hardware" / "systems" / "cloudmatrix384.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    typed = {"model": "sub/mine.yaml", "on": "sys.yaml", "cards": "16", "isl": "1024", "osl": "512", "tpot": "50ms"}
    monkeypatch.setattr("perfmodel.cli.init._answers", lambda ask: typed)
    program().main(["init", "sub/run.yaml"], prog_name="moeplan", standalone_mode=False)
    text = (tmp_path / "sub" / "run.yaml").read_text()
    assert "\nmodel: ./mine.yaml " in text
    assert f"\non: {tmp_path}/sys.yaml " in text
    run = load_run(Path("sub/run.yaml"))
    assert (run.model, run.on) == ("sub/mine.yaml", f"{tmp_path}/sys.yaml")


def test_doctor_finds_this_installation_healthy(moeplan) -> None:
    done = moeplan("doctor", "--format", "json")
    assert done.returncode == 0, done.stdout
    facts = json.loads(done.stdout)["facts"]
    assert facts["healthy"]
    assert facts["files"] > 100
    assert 0 < facts["mean_absolute_error"] < 0.2  # 16 %: with rows of attention of which no kernel is measured


@pytest.mark.parametrize(("damage", "says"), [("speed: fast", "unknown key"), ("\x00", "not YAML")])
def test_doctor_names_the_fault_of_a_file(tmp_path, damage: str, says: str) -> None:
    """A copy of the program, so that its data can be damaged."""
    for folder in ("perfmodel", "hardware", "models", "evidence"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    hurt = next((tmp_path / "hardware" / "chips").glob("*.yaml"))
    hurt.write_text(hurt.read_text() + damage + "\n")
    (tmp_path / "models" / "mine.yml").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", "from perfmodel.__main__ import main; main()", "doctor", "--format", "json"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4, done.stderr
    told = next(table["rows"] for table in json.loads(done.stdout)["tables"] if table["title"] == "Faults")
    assert any(row["file"] == hurt.stem and says in row["fault"] for row in told)
    assert any(row["file"] == "mine.yml" for row in told)
