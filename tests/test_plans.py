"""Plans as files: written, read again, refused where they contradict themselves, and compared."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest

from perfmodel.cli.app import program
from perfmodel.errors import DataError, MoeplanError, UsageError
from perfmodel.files import catalog, folders
from perfmodel.planning import plan_file
from perfmodel.report.table import Document, Table
from perfmodel.report.terminal import Terminal
from perfmodel.solver.request import SearchRequest
from perfmodel.specs import run as run_specs
from tests import process
from tests.update_snapshots import environment

WORDS = "--cards 64 --isl 1024 --osl 512 --tpot 50ms --ttft 30s --price 2".split()
SYSTEM = "cloudmatrix384"


class Said(NamedTuple):
    """What a command showed, the remarks it made, and their order."""

    document: Document | None
    remarks: list[str]
    order: list[str]


Command = Callable[..., Said]


def _command(patch: pytest.MonkeyPatch) -> Command:
    def run(*words: str) -> Said:
        shown: list[Document] = []
        remarks: list[str] = []
        order: list[str] = []

        def result(_: Terminal, document: Document) -> None:
            shown.append(document)
            order.append("document")

        def remark(_: Terminal, text: str) -> None:
            remarks.append(text)
            order.append(text)

        patch.setattr(Terminal, "result", result)
        patch.setattr(Terminal, "remark", remark)
        try:
            program().main([*words], prog_name="moeplan", standalone_mode=False)
        except MoeplanError:
            if not shown:
                raise
        return Said(shown[-1] if shown else None, remarks, order)

    return run


@pytest.fixture
def moe(monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command in this process."""
    return _command(monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder with a plan of pools apart, one of mixed instances, and the facts that solve gave for both."""
    path = tmp_path_factory.mktemp("plans")
    with pytest.MonkeyPatch.context() as patch:
        for serving in ("disaggregated", "mixed"):
            out = str(path / f"{serving}.json")
            said = _command(patch)("solve", "deepseek-v3", "--on", SYSTEM, *WORDS, "--serving", serving, "-o", out)
            assert said.document is not None
            (path / f"{serving}.facts").write_text(json.dumps(said.document.facts))
    yield path


def plan_of(folder: Path, serving: str) -> tuple[str, dict[str, Any]]:
    return str(folder / f"{serving}.json"), json.loads((folder / f"{serving}.facts").read_text())


def table_of(document: Document | None, title: str) -> Table:
    assert document is not None
    return next(table for table in document.tables if table.title.startswith(title))


def changed(path: str, to: Path, **values: Any) -> str:
    """Write a plan with values at dotted paths changed, None to leave them out."""
    plan = json.loads(Path(path).read_text())
    for dotted, value in values.items():
        *above, last = dotted.split("__")
        place = plan
        for key in above:
            place = place[key]
        if value is None:
            del place[last]
        else:
            place[last] = value
    to.write_text(json.dumps(plan, indent=2))
    return str(to)


# --- mixed serving --------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_a_mixed_plan_is_explained_with_both_phases(folder: Path, moe: Command, phase: str) -> None:
    path, facts = plan_of(folder, "mixed")
    document = moe("explain", path, "--phase", phase).document
    assert document is not None
    held = 8 * document.facts["tokens_per_s_per_card"] / (1024 if phase == "prefill" else 512)  # cards of a server
    full = facts["requests_per_s"] / facts["utilisation_limit"] / (facts["cards_used"] / 8)
    assert held == pytest.approx(full)
    assert document.facts["memory_planned_B"] >= facts["decode"]["memory_planned_B"]
    assert document.facts["fits"]
    assert any(note.startswith("mixed:") for note in document.notes)
    if phase == "decode":
        assert document.facts["tpot_s"] == pytest.approx(facts["tpot_s"])
        assert document.facts["tpot_chance"] == pytest.approx(facts["tpot_chance"])
        limit = next(row for row in table_of(document, "What limits").rows if row["limit"].startswith("TPOT"))
        assert limit["batch"] == facts["decode"]["layout"]["batch"]
        assert limit["tpot"] == pytest.approx(facts["tpot_s"])


def test_a_slower_target_is_not_met_by_a_mixed_plan_whose_decode_alone_would(
    folder: Path, moe: Command, tmp_path: Path
) -> None:
    path, facts = plan_of(folder, "mixed")
    alone = facts["decode"]["step_time_s"] / 1.7  # one draft position, 0.7 accepted
    tpot = (alone + facts["tpot_s"]) / 2
    other = changed(path, tmp_path / "p.json", conditions__tpot=tpot, run__tpot=f"{tpot} s")
    document = moe("explain", other).document
    assert document is not None
    assert document.facts["tpot_met"] is False


def test_compare_shows_both_deployments_as_solve_did(folder: Path, moe: Command) -> None:
    both = [plan_of(folder, serving) for serving in ("disaggregated", "mixed")]
    document = moe("compare", *(path for path, _ in both)).document
    rows = {row["what"]: row for row in table_of(document, "The deployments").rows}
    for side, (_, facts) in zip(("first", "second"), both, strict=True):
        for what, value in (
            ("cards", facts["cards_used"]),
            ("servers", facts["cards_used"] / 8),
            ("requests per second, sustained", facts["requests_per_s"]),
            ("output tokens/s per card of the deployment, sustained", facts["tokens_per_s_per_card_of_deployment"]),
            ("TPOT", facts["tpot_s"]),
            ("TTFT", facts["ttft_s"]),
            ("chance of meeting its limit", facts["tpot_chance"]),
            ("cost an hour, in the money of its price", facts["cost"]["per_hour"]),
            ("cost of a million output tokens", facts["cost"]["per_million_tokens"]),
        ):
            assert rows[what][side] == pytest.approx(value), (what, side)
    assert rows["deployment"]["first"] == f"{both[0][1]['prefill']['instances']}P{both[0][1]['decode']['instances']}D"
    assert "mixed" in rows["deployment"]["second"]
    differing = [(row["phase"], row["what"]) for row in table_of(document, "What differs").rows]
    assert differing[0] == ("both", "serving")
    instances = [both[n][1]["prefill"]["instances"] for n in range(2)]
    assert (("prefill", "instances") in differing) == (instances[0] != instances[1])


def test_what_if_of_a_mixed_plan_points_to_what_can_be_done(folder: Path, moe: Command) -> None:
    path, _ = plan_of(folder, "mixed")
    with pytest.raises(UsageError, match=f"moeplan solve {path} --with"):
        moe("what-if", path)


# --- compare --------------------------------------------------------------------------------------


def test_operators_of_every_pool_add_up(folder: Path, moe: Command) -> None:
    document = moe("compare", *(plan_of(folder, serving)[0] for serving in ("disaggregated", "mixed"))).document
    rows = table_of(document, "Where the time").rows
    assert {row["phase"] for row in rows} == {"prefill", "decode"}
    pools = {row["what"]: row for row in table_of(document, "The pools").rows}
    for phase in ("prefill", "decode"):
        own = {row["row"]: row for row in rows if row["phase"] == phase}
        whole = own.pop("all")
        for side in ("first", "second", "change"):
            assert sum(row[side] for row in own.values()) == pytest.approx(whole[side])
        rate = pools[f"{phase} tokens per second and card"]["first"]
        assert whole["first"] == pytest.approx(1 / rate)  # card-seconds of a token, pools apart


def test_compare_prints_the_same_under_any_seed_of_hashes(folder: Path) -> None:
    paths = [plan_of(folder, serving)[0] for serving in ("disaggregated", "mixed")]
    command = [sys.executable, "-m", "perfmodel", "compare", *paths]
    pages = {
        subprocess.run(
            command, capture_output=True, text=True, check=True, env=environment(PYTHONHASHSEED=str(seed))
        ).stdout
        for seed in range(4)
    }
    assert len(pages) == 1


def test_rates_of_other_requests_are_said_not_to_compare(folder: Path, moe: Command) -> None:
    path, _ = plan_of(folder, "disaggregated")
    alike = moe("compare", path, path).document
    assert alike is not None
    assert alike.facts["comparable"]
    assert "do not compare" not in alike.title
    for key, value in (("isl", 2048), ("osl", 256), ("acceptance", [0.5])):
        values: dict[str, Any] = {f"conditions__{key}": value, f"run__{key}": value}
        other = changed(path, Path(path).with_name("other.json"), **values)
        found = moe("compare", path, other).document
        assert found is not None
        assert f"rates do not compare: {key}" in found.title


def test_instances_are_a_difference(folder: Path, moe: Command, tmp_path: Path) -> None:
    path, facts = plan_of(folder, "disaggregated")
    other = changed(path, tmp_path / "p.json", conditions__decode__instances=facts["decode"]["instances"] + 1)
    rows = table_of(moe("compare", path, other).document, "What differs").rows
    assert [(row["phase"], row["what"]) for row in rows] == [("decode", "instances")]


# --- files of the user's --------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder to work in, with data files of the catalogue's names and other numbers."""
    root = folders.root()
    for kind, name in (("hardware/systems", SYSTEM), ("models", "deepseek-v3"), ("hardware/stacks", "cann-2025")):
        shutil.copy(root / kind / f"{name}.yaml", tmp_path / f"my-{kind.split('/')[-1]}.yaml")
    system = tmp_path / "my-systems.yaml"
    system.write_text(system.read_text().replace("{value: 196 GB/s", "{value: 60 GB/s"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_plan_of_own_files_reads_them_again_and_knows_when_they_change(own: Path, moe: Command) -> None:
    words = ["my-models.yaml", "--on", "my-systems.yaml", "--stack", "my-stacks.yaml", *WORDS]
    solved = moe("solve", *words, "-o", "p.json").document
    assert solved is not None
    plan = json.loads((own / "p.json").read_text())
    named = [f"./{word}" for word in (words[0], words[2], words[4])]
    assert [plan["conditions"][key] for key in ("model", "system", "stack")] == named
    assert set(named) < set(plan["files"])
    said = moe("explain", "p.json")
    assert said.document is not None
    assert not said.remarks
    assert said.document.facts["tpot_s"] == pytest.approx(solved.facts["tpot_s"])
    command = solved.facts["explain"]["decode"].split()
    assert {"my-models.yaml", "my-systems.yaml", "my-stacks.yaml"} <= set(command)
    by_hand = moe(*command[1:]).document
    assert by_hand is not None
    assert by_hand.facts["tpot_s"] == pytest.approx(solved.facts["tpot_s"])
    system = own / "my-systems.yaml"
    system.write_text(system.read_text() + "# looked at\n")
    for again in (("explain", "p.json"), ("compare", "p.json", "p.json"), ("solve", "p.json", "--top", "1")):
        assert any("./my-systems.yaml: changed" in text for text in moe(*again).remarks), again
    told = moe("what-if", "p.json", "--only", "mtp", "--no-hardware").remarks
    assert any("./my-systems.yaml: changed" in text for text in told)
    (own / "report.html").unlink(missing_ok=True)
    moe("report", "p.json", "-o", "report.html", "--no-front")
    assert "./my-systems.yaml: changed" in (own / "report.html").read_text()


@pytest.fixture
def afresh() -> Iterator[Callable[[], None]]:
    """Forget which files were read: their paths from the current directory mean others elsewhere."""

    def forget() -> None:
        catalog.load.cache_clear()
        catalog.load_path.cache_clear()

    forget()
    yield forget
    forget()


def _own_parts(folder: Path) -> None:
    """Write a system, its chip, a stack and kernel sets that name each other by paths from their own folders."""
    hardware = folders.root() / "hardware"
    (folder / "parts").mkdir(parents=True)
    for kind, name, to, old, new in (
        ("systems", SYSTEM, "sys.yaml", "chip: ascend-910c-752", "chip: ./parts/chip.yaml"),
        ("chips", "ascend-910c-752", "parts/chip.yaml", "", ""),
        ("stacks", "cann-2025", "parts/stack.yaml", "kernels: [cann-2025-05", "kernels: [sub/set.yaml"),
        ("kernels", "cann-2025-05", "parts/sub/set.yaml", "", ""),
        ("kernels", "cann-2025-05", "mine.yaml", "", ""),
    ):
        (folder / to).parent.mkdir(exist_ok=True)
        text = (hardware / kind / f"{name}.yaml").read_text()
        assert old in text
        (folder / to).write_text(text.replace(old, new))


def test_a_plan_finds_what_stands_beside_it_from_everywhere_and_after_a_move(
    moe: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, afresh: Callable[[], None]
) -> None:
    first, away, moved = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    away.mkdir()
    _own_parts(first)
    monkeypatch.chdir(first)
    words = ["--on", "sys.yaml", "--stack", "parts/stack.yaml", "--kernels", "mine.yaml", *WORDS, "--top", "1"]
    solved = moe("solve", "deepseek-v3", *words, "-o", "p.json").document
    assert solved is not None
    plan = json.loads((first / "p.json").read_text())
    for held in (plan["conditions"], plan["run"]):
        assert held["kernels"] == ["./mine.yaml"]
        assert held["stack"] == "./parts/stack.yaml"
    assert plan["conditions"]["system"] == plan["run"]["on"] == "./sys.yaml"
    own = {"./sys.yaml", "./parts/chip.yaml", "./parts/stack.yaml", "./parts/sub/set.yaml", "./mine.yaml"}
    assert own == {name for name in plan["files"] if name[0] in "./"}

    def reads_from(here: Path, path: str) -> None:
        monkeypatch.chdir(here)
        afresh()
        for again in (("explain", path), ("compare", path, path), ("solve", path, "--top", "1")):
            said = moe(*again)
            assert said.document is not None
            assert not said.remarks, again
        assert said.document.facts["tpot_s"] == pytest.approx(solved.facts["tpot_s"])

    reads_from(away, str(first / "p.json"))
    reads_from(away, "../a/p.json")
    reads_from(tmp_path, "a/p.json")
    (away / "link.json").symlink_to("../a/p.json")
    reads_from(tmp_path, "b/link.json")
    (away / "linked").symlink_to(first, target_is_directory=True)
    reads_from(away, "linked/p.json")
    first.rename(moved)
    reads_from(away, str(moved / "p.json"))
    # asked and written anew from elsewhere, it says the same
    monkeypatch.chdir(away)
    afresh()
    assert moe("solve", "../c/p.json", "-o", "../c/q.json").remarks[-1].startswith("../c/q.json: written")
    assert json.loads((moved / "q.json").read_text())["files"] == plan["files"]
    # what changed is told by its path from here, what is missing by its whole path
    with (moved / "mine.yaml").open("a") as file:
        file.write("# looked at\n")
    assert "./../c/mine.yaml: changed since" in moe("explain", "../c/p.json").remarks[0]
    (moved / "mine.yaml").unlink()
    afresh()
    with pytest.raises(DataError, match=rf"conditions\.kernels: there is no file {away}/\.\./c/mine\.yaml; "):
        moe("explain", "../c/p.json")


def test_a_plan_elsewhere_names_files_by_their_whole_paths(
    moe: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, afresh: Callable[[], None]
) -> None:
    _own_parts(tmp_path / "a")
    monkeypatch.chdir(tmp_path / "a")
    words = ["deepseek-v3", "--on", SYSTEM, "--kernels", "mine.yaml", *WORDS, "--top", "1"]
    (tmp_path / "b").mkdir()
    told = moe("solve", *words, "-o", "../b/p.json").remarks
    assert any("names mine.yaml, neither in the folder of the plan nor below it" in text for text in told)
    plan = json.loads((tmp_path / "b" / "p.json").read_text())
    whole = str(tmp_path / "a" / "mine.yaml")
    assert plan["conditions"]["kernels"] == plan["run"]["kernels"] == [whole]
    assert whole in plan["files"]


@pytest.mark.parametrize("ran_in", [".", "a"])
def test_a_plan_of_an_older_version_is_read_where_solve_ran(
    moe: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, afresh: Callable[[], None], ran_in: str
) -> None:
    """It names files by their paths from there."""
    _own_parts(tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    words = ["deepseek-v3", "--on", SYSTEM, "--kernels", "a/mine.yaml", *WORDS, "--top", "1"]
    moe("solve", *words, "-o", "a/p.json")
    path = tmp_path / "a" / "p.json"
    plan = json.loads(path.read_text())
    named = "mine.yaml" if ran_in == "a" else "a/mine.yaml"
    plan["conditions"]["kernels"] = plan["run"]["kernels"] = [named]
    plan["files"][f"./{named}"] = plan["files"].pop("./mine.yaml")
    path.write_text(json.dumps(plan))
    monkeypatch.chdir(tmp_path / ran_in)
    afresh()
    said = moe("explain", "p.json" if ran_in == "a" else "a/p.json")
    assert said.document is not None
    assert [text for text in said.remarks if "written by version" not in text] == []


def test_the_answer_is_shown_before_the_plan_is_written(
    moe: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise UsageError("no space left")

    monkeypatch.setattr("perfmodel.files.plans.write_plan", full)
    said = moe("solve", "deepseek-v3", "--on", SYSTEM, *WORDS, "--top", "1", "-o", str(tmp_path / "p.json"))
    assert said.order[-1] == "document"  # the plan cannot be written: the answer is there all the same


def test_where_a_plan_goes_is_checked_before_the_work(moe: Command, tmp_path: Path) -> None:
    (tmp_path / "there.json").write_text("mine")
    for path in (tmp_path / "none" / "p.json", tmp_path / "there.json", tmp_path / "p.txt", tmp_path):
        with pytest.raises(UsageError, match="allowed|make it first"):
            moe("solve", "deepseek-v3", "--on", SYSTEM, *WORDS, "-o", str(path))
    assert (tmp_path / "there.json").read_text() == "mine"


def test_another_system_comes_with_its_own_software(moe: Command, tmp_path: Path) -> None:
    path = str(tmp_path / "p.json")
    here = moe("solve", "deepseek-v3", "--on", SYSTEM, *WORDS, "--stack", "cann-2026", "-o", path).document
    there = moe("solve", path, "--on", "atlas-800i-a2-64gb-hccs", "--tpot", "100ms").document
    assert here is not None
    assert there is not None
    assert "--stack cann-2026" in here.facts["explain"]["decode"]
    assert "--stack" not in there.facts["explain"]["decode"]


# --- what a plan file says ------------------------------------------------------------------------


def test_a_plan_holds_what_was_asked_once_with_defaults(folder: Path) -> None:
    path, facts = plan_of(folder, "disaggregated")
    plan = json.loads(Path(path).read_text())
    assert "asked" not in plan
    for key in ("objective", "serving", "utilisation", "kv", "acceptance", "stack", "top"):
        assert plan["run"].get(key) is not None, key
    loaded = plan_file.load_plan(path)
    read = loaded.spec
    assert not loaded.remarks
    assert read.wanted.utilisation == facts["utilisation_limit"]
    assert read.wanted.objective == facts["objective"]
    assert read.wanted.ttft == facts["ttft_target_s"]


def test_a_plan_without_a_run_is_read_with_what_it_asks(folder: Path, tmp_path: Path) -> None:
    path, _ = plan_of(folder, "disaggregated")
    other = changed(path, tmp_path / "p.json", run=None, asked={"ttft": 2.5, "utilisation": 0.7})
    plan = plan_file.load_plan(other).spec
    assert (plan.wanted.ttft, plan.wanted.utilisation) == (2.5, 0.7)


@pytest.mark.parametrize(
    ("values", "line", "says"),
    [
        ({"run__model": "qwen3-235b-a22b"}, '"model": "qwen', "run.model: 'qwen3-235b-a22b', but conditions.model"),
        ({"run__on": "atlas-800i-a3"}, '"on": "atlas', "run.on: 'atlas-800i-a3', but conditions.system"),
        ({"run__stack": "cann-2026"}, '"stack": "cann-2026', "run.stack: 'cann-2026', but conditions.stack"),
        ({"run__isl": 99}, '"isl": 99', "run.isl: 99, but conditions.isl is 1024"),
        ({"run__osl": 99}, '"osl": 99', "run.osl: 99, but conditions.osl is 512"),
        ({"run__on": "nowhere"}, '"on": "nowhere"', "run.on: system: 'nowhere' is not on file"),
        ({"asked": {"utilisation": 0.5}}, '"asked"', "asked: differs from what run says"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(
    folder: Path, tmp_path: Path, values: dict[str, Any], line: str, says: str
) -> None:
    path = changed(plan_of(folder, "disaggregated")[0], tmp_path / "p.json", **values)
    number = next(n for n, text in enumerate(Path(path).read_text().splitlines(), 1) if line in text)
    with pytest.raises(DataError) as refused:
        plan_file.load_plan(path)
    assert f"{path}:{number}: {says}" in str(refused.value)


@pytest.mark.parametrize("serving", ["disaggregated", "mixed"])
def test_a_prediction_that_moved_is_remarked_with_both(folder: Path, tmp_path: Path, serving: str) -> None:
    path, facts = plan_of(folder, serving)
    assert not plan_file.load_plan(path).remarks
    values = {"predicted__tpot": facts["tpot_s"] * (1 + 1e-5), "predicted__requests_per_s": 1.5, "version": "0.0.1"}
    remarks = plan_file.load_plan(changed(path, tmp_path / "p.json", **values)).remarks
    assert len(remarks) == 3
    assert "version 0.0.1" in remarks[0]
    assert f"TPOT is {facts['tpot_s'] * 1e3:.6g} ms now, {facts['tpot_s'] * (1 + 1e-5) * 1e3:.6g} ms when" in remarks[1]
    assert f"requests per second is {facts['requests_per_s']:.6g} now, 1.5 when" in remarks[2]


def test_what_is_no_plan_is_told_apart(folder: Path, moe: Command, tmp_path: Path) -> None:
    path, facts = plan_of(folder, "disaggregated")
    document, run, wrong = (tmp_path / name for name in ("document.json", "run.json", "wrong.json"))
    document.write_text(json.dumps({"schema": "moeplan.solution/1", "title": "x", "facts": facts, "tables": []}))
    run.write_text(json.dumps({"model": "deepseek-v3", "on": SYSTEM, "cards": 8}))
    (tmp_path / "run.yaml").write_text(run.read_text())
    wrong.write_text(json.dumps({**json.loads(Path(path).read_text()), "model": "deepseek-v3"}))
    for words in (
        ("explain",),
        ("solve",),
        ("compare", path),
        ("what-if",),
        ("report", "-o", str(tmp_path / "r.html")),
    ):
        with pytest.raises(DataError, match=r"a document of form moeplan\.solution/1.*solve \.\.\. -o PLAN\.json"):
            moe(*words, str(document))
        with pytest.raises(DataError, match=r"a run-spec.*moeplan solve run\.yaml -o PLAN\.json"):
            moe(*words, str(run))
    for words in (("compare", path), ("what-if",)):
        with pytest.raises(DataError, match="a run-spec"):
            moe(*words, str(tmp_path / "run.yaml"))
    with pytest.raises(DataError) as refused:
        plan_file.load_plan(str(wrong))
    assert "model: unknown key" in str(refused.value)
    assert "did you mean 'model'" not in str(refused.value)


# --- what-if and solve ----------------------------------------------------------------------------


def test_what_if_shows_the_plan_as_it_is_first(folder: Path, moe: Command) -> None:
    path, facts = plan_of(folder, "disaggregated")
    document = moe("what-if", path, "--only", "mtp", "--no-hardware").document
    assert document is not None
    first = document.tables[0]
    assert first.title == "As it is"
    (row,) = first.rows
    assert row["requests_per_s"] == pytest.approx(facts["requests_per_s"])
    assert row["sustained"] == pytest.approx(facts["tokens_per_s_per_card_of_deployment"])
    assert row["tpot"] == pytest.approx(facts["tpot_s"])
    assert row["ttft"] == pytest.approx(facts["ttft_s"])
    assert any("whole instances" in note and "load limit" in note and "rate asked" in note for note in document.notes)


def test_words_and_defaults_of_a_run_are_stated_once(moe: Command) -> None:
    """The option's help and the template of init repeat two defaults and the words in prose: they must agree."""
    page = " ".join(process.run("solve", "--help", env=environment(COLUMNS="200"), check=True).stdout.split())
    assert f"default: {run_specs.UTILISATION}." in page
    assert f"default: {run_specs.TOP}." in page
    for words in (run_specs.Objective, run_specs.Serving):
        assert all(word in page for word in get_args(words))
    assert SearchRequest.__dataclass_fields__["serving"].type is run_specs.Serving
    assert SearchRequest.__dataclass_fields__["objective"].type is run_specs.Objective
    with pytest.raises(UsageError, match="--serving: 'apart'"):
        moe("solve", "deepseek-v3", "--on", SYSTEM, *WORDS, "--serving", "apart")
