"""Change the model at places drawn at random; see whether tests notice: benchmarks/mutate.py --places 500 --seed 1.

A place is an operator, a comparison, a number, a truth value, a negation or a loop of the packages in ``ORACLES``. At
each place drawn, one change of those that cosmic-ray knows for it is drawn. The tests that run know the answer from
outside: by hand, by loops over every case, by dimensions, by limits, by what was published. None reads a snapshot.
What would die of a type error alone (bits, shifts, order of identities), the order of words and options of decorators
are not drawn; what does not compile is not counted.

Each change is made in memory, in a process of its own, which runs the tests that reach it, quick ones first. Prints a
table of markdown by package, then the survivors, each with its reason if a file of ``benchmarks/survivors`` has one.
Exit code 1 where tests kill so few that a true rate of 90 % would give as few less than once in a thousand draws.
"""

import argparse
import ast
import difflib
import importlib
import os
import pickle
import random
import re
import resource
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from tempfile import TemporaryDirectory
from types import CodeType, FrameType, ModuleType
from typing import Any

import pytest

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # two at a time on two cores
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the checkout that this file stands in

PHYSICS = (
    "test_formulas_by_hand test_ledger_by_hand test_kinds_by_hand test_timing_by_hand test_dimensions test_by_hand "
    "test_algebra test_terms test_kernels test_ledger test_placement test_golden"
)
SEARCH = (
    "test_timing_by_hand test_search_by_loops test_mixed_by_loops test_answers_by_loops test_solver test_terms "
    "test_solver_monotone test_published_layouts"
)
#: package or module -> test files that hold it
ORACLES = {
    "formulas": f"{PHYSICS} test_queueing",
    "ledger": PHYSICS,
    "timing": PHYSICS,
    "prediction/serving.py": SEARCH,
    "solver": SEARCH,
}
#: of those, the ones that a short run has time for
QUICK = ("by_hand", "by_loops", "dimensions", "queueing")

_NUMBERS = "Add|Sub|Mul|Div|FloorDiv|Mod|Pow"
_ORDER = "Eq|NotEq|Lt|LtE|Gt|GtE"
DRAWN = re.compile(
    rf"core/(ReplaceBinaryOperator_({_NUMBERS})_({_NUMBERS})|ReplaceComparisonOperator_({_ORDER})_({_ORDER})|"
    "ReplaceComparisonOperator_(Is_IsNot|IsNot_Is)|NumberReplacer|ReplaceTrueWithFalse|ReplaceFalseWithTrue|ReplaceAndWithOr|"
    "ReplaceOrWithAnd|AddNot|ReplaceUnaryOperator_(Delete_Not|Delete_USub)|ReplaceBreakWithContinue|"
    "ReplaceContinueWithBreak|ZeroIterationForLoop)"
)
ORDERED = re.compile(r"core/ReplaceComparisonOperator_(Eq|NotEq)_(Lt|LtE|Gt|GtE)")
SHARES = ("part", "mutants", "killed", "share")
SURVIVORS = ("file", "was", "becomes", "why it survives")
RATE, SELDOM = 0.9, 0.001
BYTES = 4_000_000_000
BROKEN = 70  # exit code of a process that could not begin
HEAVY = (
    "numpy scipy.optimize scipy.stats sympy pydantic yaml hypothesis pint typer rich jsonschema"
).split()  # loaded once for all


Place = tuple[str, int]  # file and first line of a function


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change at one place."""

    package: str
    path: Path
    operator: str
    occurrence: int
    line: int
    text: str = ""

    @property
    def diff(self) -> tuple[str, str]:
        """The lines before and after."""
        lines = list(difflib.ndiff(self.path.read_text().splitlines(), self.text.splitlines()))
        was, becomes = (" ".join(line[2:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
        return was, becomes


def of_words(lines: Sequence[str], end: tuple[int, int]) -> bool:
    """Return whether what stands behind a place is text: words are told apart, and their order says nothing."""
    return lines[end[0] - 1][end[1] :].lstrip().startswith('"')


def places(parts: Sequence[str]) -> Iterator[list[Mutant]]:
    """Yield the changes of each place of the model, file by file."""
    from cosmic_ray import plugins
    from cosmic_ray.ast import Visitor, get_ast

    class Places(Visitor):  # type: ignore[misc]
        def __init__(self, operator: Any) -> None:
            self.operator, self.found = operator, list[tuple[tuple[int, int], tuple[int, int]]]()

        def visit(self, node: Any) -> Any:
            self.found.extend(self.operator.mutation_positions(node))
            return node

    names = [name for name in sorted(plugins.operator_names()) if DRAWN.fullmatch(name)]
    for package in parts:
        top = ROOT / "perfmodel" / package
        for path in sorted(top.glob("*.py")) if top.is_dir() else [top]:
            tree = get_ast(path.read_text())
            lines = path.read_text().splitlines()
            decorated = {
                line
                for node in ast.walk(ast.parse(path.read_text()))
                for one in getattr(node, "decorator_list", ())
                for line in range(one.lineno, one.end_lineno + 1)
            }
            at = defaultdict[tuple[tuple[int, int], tuple[int, int]], list[Mutant]](list)
            for name in names:
                visitor = Places(plugins.get_operator(name)())
                visitor.walk(tree)
                for occurrence, where in enumerate(visitor.found):
                    if where[0][0] not in decorated and not (ORDERED.fullmatch(name) and of_words(lines, where[1])):
                        at[where].append(Mutant(package, path, name, occurrence, where[0][0]))
            yield from (at[where] for where in sorted(at))


def drawn(count: int, seed: int, parts: Sequence[str], files: Sequence[str]) -> Iterator[Mutant]:
    """Yield mutants of places drawn at random, each of which compiles and differs from the model."""
    from cosmic_ray import plugins
    from cosmic_ray.mutating import mutate_code

    chance = random.Random(seed)
    found = [changes for changes in places(parts) if not files or changes[0].path.name in files]
    sys.stderr.write(f"{len(found)} places, {sum(map(len, found))} changes\n")
    chance.shuffle(found)
    for changes in found:
        if count == 0:
            return
        one = chance.choice(changes)
        source = one.path.read_text()
        text = mutate_code(source, plugins.get_operator(one.operator)(), one.occurrence)
        try:
            if text is None or compile(text, str(one.path), "exec") == compile(source, str(one.path), "exec"):
                continue
        except SyntaxError:
            continue
        count -= 1
        yield replace(one, text=text)


class Changed(MetaPathFinder):
    """Finds one module as a mutant has it."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant
        self.name = ".".join(mutant.path.relative_to(ROOT).with_suffix("").parts)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the module's spec if it is the one that changed."""
        if name != self.name:
            return None
        text = self.mutant.text

        class Loader(SourceFileLoader):
            def get_code(self, fullname: str) -> CodeType:
                return compile(text, self.path, "exec")

        return spec_from_file_location(name, self.mutant.path, loader=Loader(name, str(self.mutant.path)))


def tests_of(package: str, short: bool, only: Sequence[str]) -> tuple[str, ...]:
    """Return the test files that hold a package."""
    names = only or [name for name in ORACLES[package].split() if not short or name.endswith(QUICK)]
    return tuple(f"tests/{name}.py" for name in names)


@dataclass(slots=True)
class Test:
    """What a test did when the model was as it is."""

    seconds: float
    reached: frozenset[Place]  # functions it called


class Watch:
    """A plugin of pytest: notes how long each test takes and which functions of the model it calls."""

    def __init__(self) -> None:
        self.tests: dict[str, Test] = {}
        self.reached: set[CodeType] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Watch one test, its fixtures included."""
        self.reached.clear()
        begun = time.perf_counter()
        sys.settrace(self._called)
        threading.settrace(self._called)  # the search works its chunks in threads
        try:
            return (yield)
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]
            inside = str(ROOT / "perfmodel")
            reached = ((c.co_filename, c.co_firstlineno) for c in self.reached if c.co_filename.startswith(inside))
            self.tests[item.nodeid] = Test(time.perf_counter() - begun, frozenset(reached))

    def _called(self, frame: FrameType, *_: object) -> None:
        self.reached.add(frame.f_code)


class Choose:
    """A plugin of pytest: runs the tests that are named, in their order."""

    def __init__(self, names: Sequence[str]) -> None:
        self.order = {name: n for n, name in enumerate(names)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep what is named."""
        items[:] = sorted((i for i in items if i.nodeid in self.order), key=lambda i: self.order[i.nodeid])


def start(
    files: Iterable[str], plugin: object, seconds: int, mutant: Mutant | None = None, to: Path | None = None
) -> int:
    """Return the process that runs tests on a mutant, or on the model as it is and writes what it saw."""
    child = os.fork()
    if child:
        return child
    code = BROKEN
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        os.chdir(ROOT)
        with suppress(ValueError):  # where less is allowed already
            resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
        signal.alarm(seconds)  # ends the process
        if mutant is not None:
            sys.meta_path.insert(0, Changed(mutant))
        words = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--hypothesis-seed=0", "--tb=no"]
        code = int(pytest.main([*words, *files], plugins=[plugin]))
        if to is not None and isinstance(plugin, Watch):
            to.write_bytes(pickle.dumps(plugin.tests))
    finally:
        os._exit(code)


def was_killed(status: int, mutant: Mutant) -> bool:
    """Return whether the tests of a mutant failed, did not come to an end, or could not even be collected.

    Raises ``SystemExit`` where they did not run: that says nothing of the mutant.
    """
    code = os.waitstatus_to_exitcode(status)
    if code in (0, 1, 2) or -code in (signal.SIGALRM, signal.SIGSEGV):
        return code != 0
    raise SystemExit(f"the tests did not run: exit code {code}: {mutant}")


def passed(child: int, files: Iterable[str]) -> None:
    """Wait for tests on the model as it is; raise ``SystemExit`` where they fail."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise SystemExit(f"tests fail on the model as it is: exit code {code} of {' '.join(files)}")


def watched(chosen: dict[str, tuple[str, ...]], jobs: int) -> dict[str, dict[str, Test]]:
    """Return the tests of each package as they run on the model as it is: they must pass for a failure to tell."""
    groups = set(chosen.values())
    with TemporaryDirectory() as folder:
        begun = {}
        for n, files in enumerate(groups):
            to = Path(folder, str(n))
            child = start(files, Watch(), 3600, to=to)
            begun[files] = to, child
            if jobs == 1:
                os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        seen = {}
        for files, (file, child) in begun.items():
            passed(child, files)
            seen[files] = pickle.loads(file.read_bytes())
    return {package: seen[files] for package, files in chosen.items()}


def passing(groups: Iterable[tuple[str, ...]]) -> None:
    """Raise ``SystemExit`` where tests fail on the model as it is: they would kill every mutant."""
    files = sorted({file for group in groups for file in group})
    passed(start(files, object(), 600), files)


def reaching(mutant: Mutant, tests: dict[str, Test]) -> list[str]:
    """Return the tests that call the function a mutant changed, or all where it changed none; quick ones first."""
    around = [
        node
        for node in ast.walk(ast.parse(mutant.path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.body[0].lineno <= mutant.line <= (node.end_lineno or 0)
    ]
    found = list(tests)
    if around:
        inner = max(around, key=lambda node: node.lineno)
        first = min([inner.lineno, *(d.lineno for d in inner.decorator_list)])
        found = [name for name, one in tests.items() if (str(mutant.path), first) in one.reached]
    return sorted(found, key=lambda name: tests[name].seconds)


def run(
    mutants: Iterable[Mutant],
    chosen: dict[str, tuple[str, ...]],
    tests: dict[str, dict[str, Test]],
    jobs: int,
    until: float,
    unwatched: int,
) -> list[tuple[Mutant, bool]]:
    """Return mutants, each with whether it was killed; none is begun after a time.

    ``chosen`` are the test files of a part; where its tests were watched, those that reach a mutant run alone. Else all
    do, for ``unwatched`` seconds at most.
    """
    waiting, running = iter(mutants), dict[int, Mutant]()
    found: list[tuple[Mutant, bool]] = []

    def note(mutant: Mutant, killed: bool) -> None:
        found.append((mutant, killed))
        sys.stderr.write("." if killed else f"\nsurvived: {mutant.path.name}:{mutant.line} {mutant.diff}\n")
        sys.stderr.flush()

    while True:
        mutant = next(waiting, None) if time.perf_counter() < until else None
        while running and (mutant is None or len(running) >= jobs):
            child, status = os.wait()
            done = running.pop(child)
            note(done, was_killed(status, done))
        if mutant is None:
            return found
        if mutant.package not in tests:
            running[start(chosen[mutant.package], object(), unwatched, mutant)] = mutant
            continue
        names = reaching(mutant, tests[mutant.package])
        if not names:
            note(mutant, False)
            continue
        seconds = 60 + int(3 * sum(tests[mutant.package][name].seconds for name in names))
        files = sorted({name.partition("::")[0] for name in names})
        running[start(files, Choose(names), seconds, mutant)] = mutant


def reasons() -> dict[tuple[str, str, str], str]:
    """Return why survivors that were looked at survive, by file and change."""
    import yaml

    files = sorted(Path(__file__).with_name("survivors").glob("*.yaml"))
    rows = [row for file in files for row in yaml.safe_load(file.read_text(encoding="utf-8"))]
    return {(row["file"], row["was"], row["becomes"]): row["why"] for row in rows}


def main() -> int:
    """Draw, run, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--places", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--part", choices=list(ORACLES), action="append", help="may be repeated; all if left out")
    parser.add_argument("--file", action="append", help="name of a module of a part, as search.py; may be repeated")
    parser.add_argument("--tests", action="append", help="name of a test file, to see what it alone kills; repeat")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--short", action="store_true", help="quick tests alone, all of a part for each mutant: a lower bound"
    )
    parser.add_argument("--into", type=Path, help="page whose tables are replaced, such as docs/trust.md")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no mutant is begun later than this")
    asked = parser.parse_args()
    from benchmarks import pages

    for name in ("mutants", "survivors") if asked.into else ():
        pages.check(asked.into, name)

    begun = time.perf_counter()
    for name in HEAVY:
        importlib.import_module(name)
    parts = asked.part or list(ORACLES)
    chosen = {part: tests_of(part, asked.short, asked.tests or ()) for part in parts}
    if asked.short:
        tests = {}
        passing(set(chosen.values()))
    else:
        tests = watched(chosen, asked.jobs)
    unwatched = 30 + int(2 * (time.perf_counter() - begun))  # what loops for ever is not waited for
    sys.stderr.write(f"{time.perf_counter() - begun:.0f} s for the tests of the model as it is\n")
    mutants = drawn(asked.places, asked.seed, parts, asked.file or ())
    found = run(mutants, chosen, tests, asked.jobs, begun + asked.seconds, unwatched)
    sys.stderr.write(f"\n{time.perf_counter() - begun:.0f} s\n")

    shares = []
    for package in [*parts, "all"]:
        those = [killed for one, killed in found if package in (one.package, "all")]
        if those:
            shares.append((package, str(len(those)), str(sum(those)), f"{sum(those) / len(those):.1%}"))
    known = reasons()
    survivors = []
    for one, killed in found:
        if not killed:
            key = (str(one.path.relative_to(ROOT / "perfmodel")), *one.diff)
            survivors.append((key[0], f"`{key[1]}`", f"`{key[2]}`", known.get(key, "not looked at")))
    sys.stdout.write(pages.table(SHARES, shares) + "\n\n" + pages.table(SURVIVORS, survivors, words=4) + "\n")
    if asked.into is not None:
        pages.keep(asked.into, "mutants", SHARES, shares, whole=True)
        pages.keep(asked.into, "survivors", SURVIVORS, sorted(survivors), words=4, whole=True)

    from scipy.stats import binom

    if not found:
        sys.stderr.write("no place was tried: give --seconds, --places, --part and --file that leave some\n")
        return 2
    kills = sum(killed for _, killed in found)
    if binom.cdf(kills, len(found), RATE) < SELDOM:
        sys.stderr.write(
            f"{kills} of {len(found)} killed: at {RATE:.0%} so few are killed less than once in 1,000 runs\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
