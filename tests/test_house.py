"""The house stands as CONTRIBUTING.md draws it: who calls whom in a real run, who opens files, what a start imports."""

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.update_snapshots import environment

ROOT = Path(__file__).resolve().parent.parent
#: begins a run of the program that leaves a record of itself in its last argument
PROLOGUE = """
import json, sys
from pathlib import Path
*words, record = sys.argv[1:]
sys.argv = ["moeplan", *words]
found = {}
"""
EPILOGUE = """
from perfmodel.__main__ import main
try:
    main()
except SystemExit:
    pass
sys.settrace(None)
Path(record).write_text(json.dumps(found | leave()))
"""
#: follows the functions of NAMES alone: each path of them that calls go, in the order of the first call
CALLS = """
calls, stack, seen, known = [], [], set(), {}
def name_of(frame):
    name = frame.f_globals.get("__name__", "").removeprefix("perfmodel.") + "." + frame.f_code.co_qualname
    return name if name in NAMES else None
def enter(frame, event, _):
    code = frame.f_code
    try:
        name, _ = known[id(code)]
    except KeyError:
        name, _ = known[id(code)] = name_of(frame), code
    if name is None:
        return None
    stack.append(name)
    path = tuple(stack)
    if path not in seen:
        seen.add(path)
        calls.append(path)
    frame.f_trace_lines = False
    return leave_frame
def leave_frame(frame, event, _):
    if event == "return":
        stack.pop()
    return leave_frame
leave = lambda: {"calls": calls}
sys.settrace(enter)
"""
OPENS = """
opened = []
def hear(event, args):
    if event == "open" and str(args[0]).endswith((".yaml", ".yml", ".json", ".csv")) and str(args[0]) != record:
        opened.append(str(args[0]))
leave = lambda: {"opened": opened}
sys.addaudithook(hear)
"""
IMPORTS = "leave = lambda: {'modules': [name for name in sys.modules if name.startswith('perfmodel.')]}\n"

SOLVE = ("solve", "deepseek-v3", "--on", "cloudmatrix384", "--cards", "32", "--isl", "1024", "--osl", "512")
SOLVE += ("--tpot", "50ms", "-o", "plan.json")
EXPLAIN = ("explain", "--evidence", "seed-cm384-decode")
#: a pool of which no constant is known, as is the first on file, one that constants were read off, and a deployment
VALIDATE = ("validate", "ant-h20-decode-base", "seed-cm384-decode", "va-qwen235-1p2d")
COMPARE = ("compare-systems", "qwen3-30b-a3b", "--on", "cloudmatrix384,atlas-800t-a3", "--isl", "1024", "--osl", "512")


def record_of(script: str, words: tuple[str, ...], folder: Path) -> dict[str, list[str]]:
    """Run the program in a folder and return what the script recorded."""
    path = folder / "record"
    done = subprocess.run(
        [sys.executable, "-c", PROLOGUE + script + EPILOGUE, *words, str(path)],
        cwd=folder,
        env=environment(PYTHONPATH=str(ROOT), COLUMNS="100"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert path.exists(), done.stderr
    found: dict[str, list[str]] = json.loads(path.read_text())
    return found


def way_of(command: str) -> list[tuple[str, ...]]:
    """Return the way of a run as CONTRIBUTING.md has it: each name with all that it is called from."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (block,) = re.findall(rf"```text\nmoeplan {command}\n(.*?)```", text, re.DOTALL)
    way: list[tuple[str, ...]] = []
    above: list[str] = []
    for line in block.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        above = [*above[:depth], line.split()[0]]
        way.append(tuple(above))
    return way


@pytest.mark.parametrize(
    ("command", "words"),
    [("solve", SOLVE), ("explain", EXPLAIN), ("validate", VALIDATE), ("compare-systems", COMPARE)],
)
def test_a_real_run_goes_the_way_that_is_drawn(command: str, words: tuple[str, ...], tmp_path: Path) -> None:
    """Every name is called from the one above it, and beside each other they are first called in the order drawn."""
    way = way_of(command)
    drawn = {name for names in way for name in names}
    calls = [tuple(path) for path in record_of(f"NAMES = {drawn}\n{CALLS}", words, tmp_path)["calls"]]
    before: dict[tuple[str, ...], tuple[str, int]] = {}
    for names in way:
        at = next((n for n, path in enumerate(calls) if path[-1] == names[-1] and _in_order(names, path)), None)
        assert at is not None, f"{names[-1]} is not called from {' > '.join(names[:-1])}"
        neighbour, place = before.get(names[:-1], ("nothing", -1))
        assert at > place, f"{names[-1]} is called before {neighbour}"
        before[names[:-1]] = (names[-1], at)


def _in_order(names: tuple[str, ...], path: tuple[str, ...]) -> bool:
    rest = iter(path)
    return all(name in rest for name in names)


@pytest.mark.parametrize("words", [SOLVE, EXPLAIN, COMPARE], ids=["solve", "explain", "compare-systems"])
def test_a_run_opens_each_data_file_once(words: tuple[str, ...], tmp_path: Path) -> None:
    opened = Counter(record_of(OPENS, words, tmp_path)["opened"])
    assert len(opened) > 20
    assert {name: count for name, count in opened.items() if count > 1} == {}


def test_a_plan_and_its_data_files_are_opened_once(tmp_path: Path) -> None:
    record_of(OPENS, SOLVE, tmp_path)
    for words in (("explain", "plan.json"), ("solve", "plan.json"), ("what-if", "plan.json", "--no-hardware")):
        opened = Counter(record_of(OPENS, words, tmp_path)["opened"])
        assert opened["plan.json"] == 1, words
        assert {name: count for name, count in opened.items() if count > 1} == {}, words


@pytest.mark.parametrize("words", [("list",), ("list", "systems"), ("show", "cloudmatrix384"), ("--help",)])
def test_what_only_lists_imports_no_search(words: tuple[str, ...], tmp_path: Path) -> None:
    modules = record_of(IMPORTS, words, tmp_path)["modules"]
    above = ("solver", "prediction", "scoring", "closed_form", "timing", "ledger")
    assert [name for name in modules if name.split(".")[1] in above] == []


#: what touches files by name, and where the program itself needs it: streams that are closed or broken
TOUCHES = {"open", "read_text", "read_bytes", "write_text", "write_bytes", "unlink", "mkdir", "touch", "rename"}
STREAMS = {"cli/app.py", "report/terminal.py"}


def test_only_files_opens_files() -> None:
    found = set()
    for path in (ROOT / "perfmodel").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                if name in TOUCHES:
                    found.add(str(path.relative_to(ROOT / "perfmodel")))
    assert {name for name in found if not name.startswith("files/")} <= STREAMS


def test_every_package_says_the_question_it_answers() -> None:
    packages = [path.parent for path in (ROOT / "perfmodel").rglob("__init__.py") if path.parent.name != "perfmodel"]
    assert len(packages) > 14
    for package in packages:
        said = ast.get_docstring(ast.parse((package / "__init__.py").read_text(encoding="utf-8"))) or ""
        assert "?" in said.split("\n")[0], package


def test_the_root_holds_only_the_ground() -> None:
    modules = {path.stem for path in (ROOT / "perfmodel").glob("*.py")}
    assert modules == {"__init__", "__main__", "algebra", "units", "errors"}


PAGES = ("CONTRIBUTING.md", "docs/*.md", "*/README.md", "README*.md")


def test_every_module_that_the_pages_name_is_there() -> None:
    named = set()
    for page in (path for pattern in PAGES for path in ROOT.glob(pattern)):
        for word in re.findall(r"`([\w/]+\.py)`", page.read_text(encoding="utf-8")):
            named.add((page.name, word))
    assert len(named) > 40
    missing = [
        (page, word)
        for page, word in sorted(named)
        if not any((folder / word).exists() for folder in (ROOT, ROOT / "perfmodel"))
    ]
    assert missing == []
