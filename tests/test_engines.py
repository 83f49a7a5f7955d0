"""--engine NAME[==VERSION] picks the stack that fits the system, in every command that sets a run up."""

import json
from pathlib import Path
from typing import Any

import pytest

from perfmodel.errors import UsageError
from perfmodel.files.catalog import load_stack, load_system
from perfmodel.files.folders import names
from perfmodel.planning import software
from perfmodel.planning.software import kept_software, software_of
from perfmodel.specs.machine import links_lacking
from tests import process
from tests.conftest import Run

HAND = "explain deepseek-v3 --isl 1024 --osl 256"
ASKED = "--cards 32 --isl 1024 --osl 256 --tpot 60ms"
ASCEND = ("atlas-800i-a3", "atlas-800i-a2", "cloudmatrix384")
NVIDIA = ("h800", "h200")
#: the stack that each engine of the contract is to have: of the Ascend systems, and of the NVIDIA systems
STACKS = {
    **{(system, engine): "vllm-ascend-2025" for system in ASCEND for engine in ("vllm-ascend", "sglang")},
    **{(system, engine): "cann-2025" for system in ASCEND for engine in ("mindie", "cann")},
    **{(system, engine): "deepseek-h800" for system in NVIDIA for engine in ("vllm", "sglang", "trtllm", "deepseek")},
}

WITH_TRTLLM = "systems that have it: b200, b300, gb200-nvl72, gb300-nvl72, h100, h20, h200, h800"


def facts_of(moeplan: Run, *words: str) -> dict[str, Any]:
    done = moeplan(*words, "--format", "json")
    assert done.returncode in (0, 3), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["facts"]
    return found


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Write a plan of the system's own stack, and one of an engine that another stack has."""
    folder = tmp_path_factory.mktemp("plans")
    found = {}
    for name, words in {"own": (), "sglang": ("--engine", "sglang")}.items():
        found[name] = str(folder / f"{name}.json")
        asked = ["solve", "deepseek-v3", "--on", "atlas-800i-a3", *ASKED.split(), *words, "-o", found[name]]
        process.run(*asked, check=True)
    return found


@pytest.mark.parametrize(("system", "engine"), STACKS)
def test_an_engine_picks_the_stack_that_has_it(system: str, engine: str) -> None:
    found = software_of(system, engine=engine)
    assert found.stack == STACKS[system, engine]
    assert found.engine is not None and found.engine.name == engine
    own = load_system(system).spec.default_stack
    assert bool(found.remarks) == (found.stack != own)
    assert software_of(system, engine=engine.upper()) == found


@pytest.mark.parametrize(
    ("system", "engine", "serving"),
    [
        ("atlas-800i-a3", "sglang", "--serving mixed --concurrency 8"),
        ("atlas-800i-a3", "vllm-ascend", ""),
        ("atlas-800i-a3", "cann", "--serving mixed --concurrency 8"),
        ("atlas-800i-a3", "mindie", "--phase prefill --batch 1"),
        ("h200", "trtllm", "--serving mixed --concurrency 8"),
        ("h200", "deepseek", ""),
    ],
)
def test_a_layout_by_hand_has_its_stack_and_engine(system: str, engine: str, serving: str, moeplan: Run) -> None:
    words = f"{HAND} --on {system} --servers 2 --tp 4 --engine {engine} {serving}".split()
    batch = () if "--batch" in words else ("--batch", "4")
    done = moeplan(*words, *batch, "--show", "all")
    assert done.returncode == 0, done.stderr
    stack = STACKS[system, engine]
    assert f"stack {stack}, engine {engine}" in " ".join(done.stdout.split())
    own = load_system(system).spec.default_stack
    assert (f"engine {engine}: took stack {stack}, which has it; {own} has not" in done.stderr) == (stack != own)
    facts = facts_of(moeplan, *words, *(() if "--batch" in words else ("--batch", "4")))
    assert (facts["stack"], facts["engine"]) == (stack, engine)


def test_it_is_the_same_as_with_its_stack_by_name(moeplan: Run) -> None:
    words = f"{HAND} --on atlas-800i-a3 --servers 2 --batch 8 --engine sglang".split()
    alone, both = facts_of(moeplan, *words), facts_of(moeplan, *words, "--stack", "vllm-ascend-2025")
    assert alone == both
    assert alone["step_time_s"] != facts_of(moeplan, *words[:-2])["step_time_s"]


def test_without_an_engine_the_first_of_the_stack_is_named(moeplan: Run) -> None:
    words = f"{HAND} --on atlas-800i-a3 --servers 2 --batch 8".split()
    facts = facts_of(moeplan, *words)
    assert (facts["stack"], facts["engine"]) == ("cann-2025", "mindie")
    facts = facts_of(moeplan, *words, "--stack", "xdeepserve-2025")
    assert (facts["stack"], facts["engine"]) == ("xdeepserve-2025", None)


REFUSED = [
    ("atlas-800i-a3", "sglang --stack cann-2025", "none of stack cann-2025, which has cann, mindie; allowed on"),
    ("atlas-800i-a3", "sglang --stack cann-2025", "write --stack vllm-ascend-2025, or leave --stack out"),
    ("atlas-800i-a3", "sglang --stack cann-recipe-2025", "which has no engine on file"),
    ("atlas-800i-a3", "sglang --stack deepseek-h800", "stack deepseek-h800 does not fit atlas-800i-a3"),
    ("atlas-800i-a3", "trtllm", WITH_TRTLLM),
    ("atlas-800i-a3", "trtllm --stack cann-2025", WITH_TRTLLM),
    ("atlas-800i-a3", "trtllm --stack ideal", WITH_TRTLLM),
    ("atlas-800i-a3", "vllm", "nearest first: vllm-ascend, mindie, sglang, cann"),
    ("atlas-800i-a3", "vllm", "write --engine vllm-ascend, or --on b200"),
    ("h200", "mindie", "systems that have it: atlas-350-112g"),
    ("atlas-800i-a3", "sglnag", "nearest first: sglang, vllm-ascend, cann, mindie; did you mean 'sglang'?"),
    ("atlas-800i-a3", "nginx", "engine 'nginx' is not on file"),
    ("atlas-800i-a3", "sglang=", "--engine: 'sglang='; allowed: NAME or NAME==VERSION"),
    ("atlas-800i-a3", "sglang==", "--engine: 'sglang=='; allowed: NAME or NAME==VERSION"),
    ("atlas-800i-a3", "==0.5", "--engine: '==0.5'; allowed: NAME or NAME==VERSION"),
]


@pytest.mark.parametrize(
    ("command", "system", "words", "says"),
    [
        *((f"{HAND} --servers 2", *one) for one in REFUSED),
        *((f"solve deepseek-v3 {ASKED}", *one) for one in REFUSED[:6]),
    ],
)
def test_an_engine_that_cannot_be_is_refused(command: str, system: str, words: str, says: str, moeplan: Run) -> None:
    done = moeplan(*command.split(), "--on", system, "--engine", *words.split())
    assert done.returncode == 2
    assert says in done.stderr and done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_solve_plans_on_the_stack_of_the_engine(plans: dict[str, str], moeplan: Run) -> None:
    plan = json.loads(Path(plans["sglang"]).read_text())
    assert plan["conditions"]["stack"] == plan["run"]["stack"] == "vllm-ascend-2025"
    assert plan["conditions"]["engine"] == plan["run"]["engine"] == "sglang"
    done = moeplan("solve", plans["sglang"], "--show", "notes")
    assert done.returncode == 0 and "software: stack vllm-ascend-2025, engine sglang" in done.stdout
    facts = facts_of(moeplan, "solve", plans["sglang"])
    assert (facts["stack"], facts["engine"]) == ("vllm-ascend-2025", "sglang")
    for command in facts["explain"].values():
        explained = facts_of(moeplan, *command.split()[1:])
        assert (explained["stack"], explained["engine"]) == ("vllm-ascend-2025", "sglang")
    own = json.loads(Path(plans["own"]).read_text())
    assert own["conditions"].get("engine") is None and own["conditions"]["stack"] == "cann-2025"


def test_a_run_spec_names_an_engine(tmp_path: Path, moeplan: Run) -> None:
    run = tmp_path / "run.yaml"
    run.write_text(
        "model: deepseek-v3\non: atlas-800i-a3\ncards: 32\nisl: 1024\nosl: 256\ntpot: 60 ms\nengine: vllm-ascend\n"
    )
    facts = facts_of(moeplan, "solve", str(run))
    assert (facts["stack"], facts["engine"]) == ("vllm-ascend-2025", "vllm-ascend")
    facts = facts_of(moeplan, "solve", str(run), "--engine", "cann")
    assert (facts["stack"], facts["engine"]) == ("cann-2025", "cann")
    done = moeplan("solve", str(run), "--stack", "cann-2026")
    assert done.returncode == 2 and "none of stack cann-2026" in done.stderr


def test_an_infeasible_question_names_its_software(moeplan: Run) -> None:
    words = f"solve deepseek-v3 --on atlas-800i-a3 {ASKED.replace('60ms', '1ms')} --engine sglang".split()
    done = moeplan(*words, "--format", "json")
    assert done.returncode == 3
    found = json.loads(done.stdout)
    assert (found["facts"]["stack"], found["facts"]["engine"]) == ("vllm-ascend-2025", "sglang")
    assert "software: stack vllm-ascend-2025, engine sglang" in found["notes"]


def test_a_pool_of_prefill_has_the_engine_on_its_own_system(moeplan: Run) -> None:
    words = f"solve deepseek-v3 --on atlas-800i-a3 --prefill-on h200 --prefill-cards 32 {ASKED} --engine sglang"
    facts = facts_of(moeplan, *words.split())
    assert (facts["stack"], facts["engine"]) == ("vllm-ascend-2025", "sglang")
    assert (facts["prefill_stack"], facts["prefill_engine"]) == ("deepseek-h800", "sglang")
    done = moeplan(*words.replace("sglang", "mindie").split())
    assert done.returncode == 2 and "no stack that fits h200 has it" in done.stderr
    assert "or --prefill-on atlas" in done.stderr
    done = moeplan(*words.split(), "--prefill-stack", "cann-2025")
    assert done.returncode == 2
    assert "allowed on h200: stack blackwell, deepseek-h800; write --prefill-stack blackwell" in done.stderr


def test_replay_has_the_engine_of_the_plan(plans: dict[str, str], moeplan: Run) -> None:
    words = ("replay", "--requests", "300", "--plan")
    for name, given, stack, engine in (
        ("sglang", (), "vllm-ascend-2025", "sglang"),
        ("sglang", ("--engine", "vllm-ascend"), "vllm-ascend-2025", "vllm-ascend"),
        ("own", (), "cann-2025", "mindie"),
        ("own", ("--engine", "cann"), "cann-2025", "cann"),
    ):
        facts = facts_of(moeplan, *words, plans[name], *given)
        assert (facts["stack"], facts["engine"]) == (stack, engine)
    done = moeplan(*words, plans["own"], "--engine", "mindie==2.3", "--show", "all")
    assert done.returncode == 0 and "engine mindie==2.3: no version of mindie is on file" in done.stderr
    assert "stack cann-2025, engine mindie: 8,192 tokens" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("engine", "says"),
    [
        (
            "sglang",
            "allowed, nearest first: cann, mindie; or search again with it, moeplan solve {plan} --engine sglang",
        ),
        ("trtllm", WITH_TRTLLM),
        ("mindei", "did you mean 'mindie'?"),
    ],
)
def test_replay_keeps_to_the_stack_of_the_plan(engine: str, says: str, plans: dict[str, str], moeplan: Run) -> None:
    done = moeplan("replay", "--requests", "300", "--plan", plans["own"], "--engine", engine)
    assert done.returncode == 2
    assert f"none of stack cann-2025, which {plans['own']} was made for" in done.stderr
    assert says.format(plan=plans["own"]) in done.stderr


def test_what_replay_says_to_write_works(plans: dict[str, str], tmp_path: Path, moeplan: Run) -> None:
    other = str(tmp_path / "other.json")
    done = moeplan("solve", plans["own"], "--engine", "sglang", "-o", other)
    assert done.returncode == 0, done.stderr
    facts = facts_of(moeplan, "replay", "--requests", "300", "--plan", other)
    assert (facts["stack"], facts["engine"]) == ("vllm-ascend-2025", "sglang")


def test_pools_of_plans_and_published_rows_take_an_engine(plans: dict[str, str], moeplan: Run) -> None:
    facts = facts_of(moeplan, "explain", plans["sglang"])
    assert (facts["stack"], facts["engine"]) == ("vllm-ascend-2025", "sglang")
    facts = facts_of(moeplan, "explain", plans["own"], "--engine", "sglang")
    assert (facts["stack"], facts["engine"]) == ("vllm-ascend-2025", "sglang")
    row = ("explain", "--evidence", "h200-sglang-1k-1k-c8")
    facts = facts_of(moeplan, *row)
    assert (facts["stack"], facts["engine"]) == ("deepseek-h800", "sglang")
    facts = facts_of(moeplan, *row, "--engine", "vllm")
    assert (facts["stack"], facts["engine"]) == ("deepseek-h800", "vllm")
    done = moeplan(*row, "--engine", "mindie")
    assert done.returncode == 2 and "no stack that fits h200 has it" in done.stderr


def test_a_comparison_changes_the_engine_or_carries_it_over(moeplan: Run) -> None:
    words = f"{HAND} --on h200 --cards 16 --tp 4 --batch 4 --engine sglang".split()
    done = moeplan(*words, "--compare", "on=atlas-800i-a3")
    stderr = done.stderr
    assert done.returncode == 0, stderr
    by_stack = facts_of(moeplan, *words, "--compare", "on=atlas-800i-a3,stack=vllm-ascend-2025")
    assert facts_of(moeplan, *words, "--compare", "on=atlas-800i-a3")["difference_s"] == by_stack["difference_s"]
    by_engine = facts_of(moeplan, *words[:-2], "--compare", "on=atlas-800i-a3,engine=vllm-ascend")
    assert by_engine["difference_s"] == by_stack["difference_s"]
    done = moeplan(*words, "--compare", "engine=mindie")
    assert done.returncode == 2 and "no stack that fits h200 has it" in done.stderr


def test_what_if_takes_an_engine(plans: dict[str, str], moeplan: Run) -> None:
    words = ("what-if", plans["own"], "--only", "mtp")
    assert (facts_of(moeplan, *words)["stack"], facts_of(moeplan, *words)["engine"]) == ("cann-2025", "mindie")
    facts = facts_of(moeplan, *words, "--engine", "sglang")
    assert (facts["stack"], facts["engine"]) == ("vllm-ascend-2025", "sglang")
    done = moeplan(*words, "--engine", "trtllm")
    assert done.returncode == 2 and "systems that have it: b200" in done.stderr


def test_the_engine_of_a_row_gives_way_to_a_stack_without_it() -> None:
    given: dict[str, Any] = {"own": "vllm-ascend-2025", "own_engine": "sglang"}
    kept = kept_software("atlas-800i-a3", stack=None, engine=None, **given)
    assert kept.engine is not None and (kept.stack, kept.engine.name) == ("vllm-ascend-2025", "sglang")
    found = kept_software("atlas-800i-a3", stack="cann-2025", engine=None, **given)
    assert found.engine is not None and (found.stack, found.engine.name) == ("cann-2025", "mindie")
    assert found.remarks == ("engine sglang: none of stack cann-2025; took mindie, its first; --engine takes another",)


def stacks_of(monkeypatch: pytest.MonkeyPatch, *engines: tuple[str, str | None, str | None]) -> None:
    """Have these on file: a stack's name, its date, and the version of its engine."""
    base = load_stack("vllm-ascend-2025").spec
    found = [
        software._Having(
            word=word,
            stack=base.model_copy(update={"name": word, "date": date}),
            engine=base.engines[0].model_copy(update={"name": "quick", "version": version}),
        )
        for word, date, version in engines
    ]
    monkeypatch.setattr(software, "_fitting", lambda system, beside=(): found)


def test_the_systems_own_comes_first_then_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    stacks_of(monkeypatch, ("a", "2025-08", None), ("b", "2026", None), ("c", None, None))
    assert software_of("h200", engine="quick").stack == "b"
    stacks_of(monkeypatch, ("a", "2026", None), ("deepseek-h800", None, None))
    assert software_of("h200", engine="quick").stack == "deepseek-h800"
    stacks_of(monkeypatch, ("a", "2025", None), ("b", "2025-01", None), ("c", "2025-01", None))
    found = software_of("h200", engine="quick")
    assert found.stack == "b"
    assert found.remarks == (
        "engine quick: took stack b, which has it; deepseek-h800 has not",
        "stack c: as new, and has quick too; --stack takes it",
    )


def test_a_version_takes_its_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    stacks_of(monkeypatch, ("a", "2026", "0.4.6"), ("b", "2025", "0.5.2"), ("c", "2025", "0.5.10"), ("d", "2026", None))
    assert software_of("h200", engine="quick==0.5.2").stack == "b"
    shorter = software_of("h200", engine="quick==0.5")
    assert shorter.stack == "c" and shorter.engine is not None and shorter.engine.word == "quick==0.5.10"
    assert shorter.remarks[0] == "engine quick==0.5: took 0.5.10, the newest of these on file"
    with pytest.raises(UsageError) as refused:
        software_of("h200", engine="quick==0.6")
    assert str(refused.value) == (
        "engine quick==0.6: no such version on file for h200; known: 0.4.6 (stack a), 0.5.2 (stack b), 0.5.10 "
        "(stack c); nearest: 0.5.10; write --engine quick==0.5.10"
    )


def test_a_version_of_which_none_is_on_file_is_told(moeplan: Run) -> None:
    done = moeplan(*f"{HAND} --on atlas-800i-a3 --servers 2 --batch 8 --engine sglang==0.5".split())
    assert done.returncode == 0
    assert "engine sglang==0.5: no version of sglang is on file; took what is on file of it" in done.stderr


def test_a_stack_of_the_users_is_taken_where_it_is_the_systems_own(tmp_path: Path, moeplan: Run) -> None:
    from perfmodel.files.folders import root

    stack = (root() / "hardware/stacks/vllm-ascend-2025.yaml").read_text()
    aliases = "aliases: [vllm-ascend-2025-05]\n"
    stack = stack.replace("name: vllm-ascend-2025\n", "name: mine\n").replace(aliases, "")
    (tmp_path / "mine.yaml").write_text(stack.replace("{name: sglang,", '{name: sglang, version: "0.5.2",'))
    system = (root() / "hardware/systems/atlas-800i-a3.yaml").read_text()
    system = system.replace("name: atlas-800i-a3\n", "name: here\n").replace("stack: cann-2025", "stack: ./mine.yaml")
    (tmp_path / "here.yaml").write_text(system)
    words = f"{HAND} --on {tmp_path / 'here.yaml'} --servers 2 --batch 8 --engine".split()
    facts = facts_of(moeplan, *words, "sglang==0.5.2")
    assert (facts["stack"], facts["engine"]) == ("mine", "sglang==0.5.2")
    done = moeplan(*words, "sglang==0.4")
    assert done.returncode == 2 and "nearest: 0.5.2; write --engine sglang==0.5.2" in done.stderr
    assert facts_of(moeplan, *words, "mindie")["stack"] == "cann-2026"  # the newest: it is of none of its own


def test_every_system_fits_its_own_stack_and_no_stack_fits_both_kinds() -> None:
    fits = {
        stack: {system for system in names("systems") if not links_lacking(load_system(system).spec, spec)}
        for stack in names("stacks")
        if not (spec := load_stack(stack).spec).ideal
    }
    for system in names("systems"):
        assert system in fits[load_system(system).spec.default_stack]
    chips = {system: load_system(system).spec.chip.partition("-")[0] for system in names("systems")}
    assert all(len({chips[system] for system in systems}) == 1 for systems in fits.values())
