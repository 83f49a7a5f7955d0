"""What stands on the terminal: widths, colour, whole words, one line per error, help."""

import os
import pty
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.cli.app import program
from perfmodel.report.quantity import format_quantity
from perfmodel.report.table import Column, Document, Table
from perfmodel.report.text_table import to_table
from perfmodel.report.wrap import cells, longest, wrap
from tests import process
from tests.update_snapshots import FOLDER, TEXTS, WIDTHS

ANSI = re.compile(r"\x1b\[[0-9;]*m")
VIEWS = [
    ("list",),
    ("list", "evidence"),
    ("show", "cloudmatrix384"),
    ("show", "deepseek-v3"),
    ("explain", "--evidence", "seed-cm384-decode"),
    ("explain", "--evidence", "seed-prefill-16x", "--sources"),
    ("explain", "--evidence", "seed-cm384-decode", "--formula", "exchange.dispatch", "--formula", "moe_layer"),
    ("explain", "--evidence", "seed-cm384-decode", "--formula", "list"),
    ("explain", "--evidence", "xds-disaggregated-decode", "--layer", "moe"),
    ("explain", "--evidence", "seed-cm384-decode", "--tree"),
    ("explain", "--evidence", "seed-cm384-decode", "--compare", "draft=0,batch=64"),
    ("validate", "seed-cm384-decode", "va-qwen235-1p2d"),
    ("accuracy", "cm384-table7"),
    ("what-if", "seed-cm384-decode", "--only", "mtp,amla"),
    ("gains", "amla"),
    ("solve", "deepseek-v3", "--on", "cm384", "--cards", "32", "--isl", "1024", "--osl", "512", "--tpot", "50ms"),
]  # fmt: skip
HELPS = [(), *((name,) for name in program().commands)]


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("name", TEXTS)
def test_a_page_looks_like_this(moeplan, name: str, columns: int) -> None:
    """The text as it was last looked at and found good; look again, then ``python -m tests.update_snapshots``."""
    printed = moeplan(*TEXTS[name], COLUMNS=str(columns)).stdout
    assert printed == (FOLDER / f"{name}-{columns}.txt").read_text(encoding="utf-8")


def test_every_page_on_file_is_compared() -> None:
    assert {path.name for path in FOLDER.glob("*.txt")} == {f"{name}-{width}.txt" for name in TEXTS for width in WIDTHS}


@pytest.mark.parametrize("words", VIEWS, ids=" ".join)
def test_narrow_terminals_split_no_word(moeplan, words: tuple[str, ...]) -> None:
    """At 60 columns each word is one that stands on a line of any length, and lines break before the edge."""
    narrow, wide = (moeplan(*words, COLUMNS=width).stdout for width in ("60", "2000"))
    said = re.sub(r"^  too narrow for .*?has\s+them$", "", narrow, flags=re.MULTILINE | re.DOTALL)
    lines = [line for line in said.splitlines() if not line.startswith("- explain ")]  # a command to copy
    found, whole = (
        {word.rstrip(",") for line in text for word in line.split() if not set(word) & set("─│")}
        for text in (lines, wide.splitlines())
    )
    assert found <= whole
    assert all(cells(line) <= 60 or len(line.split()[-1]) > 30 for line in lines)  # an address may stand out


@pytest.mark.parametrize("words", HELPS, ids=" ".join)
@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_help_leads_with_examples_and_splits_no_word(moeplan, words: tuple[str, ...], columns: str) -> None:
    done = moeplan(*words, "--help", COLUMNS=columns)
    assert done.returncode == 0
    text = done.stdout
    assert text.index("Example") < text.index("Usage:") < text.index("Options:")
    assert set(text.split()) - {"\\"} <= set(moeplan(*words, "--help", COLUMNS="100").stdout.split())
    assert all(cells(line) <= min(int(columns), 100) for line in text.splitlines())


@pytest.mark.parametrize("words", HELPS[1:], ids=" ".join)
def test_examples_of_the_help_are_commands(moeplan, words: tuple[str, ...]) -> None:
    """Each example names options and commands that are there: it fails for its files at most."""
    text = moeplan(*words, "--help").stdout.partition("Usage:")[0].replace("\\\n", " ")
    for line in re.findall(r"(?:^  |\| )moeplan ([^|\n]*)", text, re.MULTILINE):
        done = moeplan(*line.split(), "--help")
        assert done.returncode == 0, done.stderr


def test_colour_only_where_asked_for(moeplan) -> None:
    words = ("explain", "--evidence", "seed-cm384-decode")
    plain = moeplan(*words)
    assert "\x1b" not in plain.stdout
    assert moeplan(*words, NO_COLOR="", TERM="xterm-256color").stdout == plain.stdout  # a pipe is no terminal
    forced = moeplan(*words, NO_COLOR="", FORCE_COLOR="1").stdout
    assert "\x1b[32m✓" in forced
    assert ANSI.sub("", forced) == plain.stdout
    assert "\x1b" not in moeplan(*words, FORCE_COLOR="1").stdout  # NO_COLOR comes first
    assert "\x1b[1m" in moeplan("solve", "--help", NO_COLOR="", FORCE_COLOR="1").stdout


def test_other_encodings_get_what_they_can_show(moeplan) -> None:
    words = ("explain", "--evidence", "seed-cm384-decode")
    done = moeplan(*words, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert done.stdout.isascii()
    assert "memory        + " in done.stdout


def test_wide_characters_take_two_cells() -> None:
    rows = ({"name": "昇腾芯片", "what": "华为昇腾计算产品线的服务器，含八张加速卡", "n": 8.0},)
    columns = (Column("name", "名称"), Column("what", "what"), Column("n", "cards", "1"))
    for width in (30, 40, 100):
        text = to_table(Document("x/1", "昇腾", (Table("t", columns, rows),)), width)
        lines = text.splitlines()
        assert all(cells(line) <= width for line in lines)
        assert "芯片" in text
    header, _, row = text.splitlines()[3:6]
    assert cells(header.partition("what")[0]) == cells(row.partition("华为")[0])


@given(st.lists(st.text("ab1,.昇腾-%", min_size=1, max_size=12), max_size=12), st.integers(4, 60))
def test_wrapping_keeps_every_character_and_the_width(words: list[str], width: int) -> None:
    text = " ".join(words)
    lines = wrap(text, width)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(cells(line) <= max(width, longest(text)) for line in lines)


@given(st.floats(1e-8, 1e18), st.sampled_from(["s", "B", "B/s", "%", "1", "FLOP/s"]))
def test_a_number_stays_with_its_unit(value: float, unit: str) -> None:
    text = format_quantity(value, unit)
    assert wrap(text, 1) == [text] or "e+" in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("-q",), "error: missing command; see 'moeplan --help'"),
        (("help",), "error: 'help' is not a command; did you mean '--help'?"),
        (("solve", "deepseek-v3", "on", "cm384"), "error: 'on cm384': too many words; did you mean '--on'?"),
        (("solv",), "error: 'solv' is not a command; did you mean 'solve'?"),
        (("solve", "--catds", "3"), "error: --catds: no option of 'moeplan solve'; did you mean '--cards'?"),
        (("solve", "-cards", "3"), "error: -cards: no option of 'moeplan solve'; did you mean '--cards'?"),
        (("explain", "--shared_ranks", "3"), "--shared_ranks: no option of 'moeplan explain'; did you mean '--shared-"),
        (("solve", "--card", "3"), "did you mean '--cards'?"),
        (("--on", "cm384", "solve"), "error: --on: comes after the command, like 'moeplan solve --on'"),
        (("solve", "a", "b", "c"), "error: 'b c': too many words; see 'moeplan solve --help'"),
        (("solve", "--cards", "many"), "error: --cards: 'many'; allowed: a whole number"),
        (("solve", "--utilisation", "much"), "error: --utilisation: 'much'; allowed: a number"),
        (("list", "--format", "jsn"), "allowed: table, json, csv, markdown; did you mean 'json'?"),
        (("list", "--format"), "error: --format: no value after it"),
        (("show",), "error: NAME: is missing; see 'moeplan show --help'"),
        (("show", "cloudmatrx384"), "did you mean 'cloudmatrix384'?"),
        (("show", "ascend-910c-75"), "did you mean 'ascend-910c-752'?"),
        (("list", "systms"), "did you mean 'systems'?"),
        (("solve", "\x1b[31mx", "--on", "y"), "error: "),
    ],
)
def test_a_wrong_word_is_one_line_and_exit_2(moeplan, words: tuple[str, ...], says: str) -> None:
    done = moeplan(*words)
    assert done.returncode == 2
    assert not done.stdout
    assert says in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_quiet_and_verbose_stand_on_either_side_of_the_command(moeplan) -> None:
    words = ("explain", "--evidence", "cm384-decode-4k-b8", "--format", "csv")
    usual = moeplan(*words)
    assert usual.stderr.startswith("note: ")
    for quiet in (("-q", *words), (*words, "--quiet")):
        done = moeplan(*quiet)
        assert (done.stdout, done.stderr) == (usual.stdout, "")
    for verbose in (("--verbose", *words), (*words, "-v")):
        done = moeplan(*verbose)
        assert done.stdout == usual.stdout
        assert re.search(r"^\d+\.\d{3} s  read .*cm384-decode-4k-b8\.yaml$", done.stderr, re.MULTILINE)
        assert "note: " in done.stderr


def test_a_reader_who_leaves_early_is_no_fault() -> None:
    command = f"{sys.executable} -m perfmodel show deepseek-v3 --format json; echo $? >&2"
    done = subprocess.run(["bash", "-c", f"({command}) | true"], capture_output=True, text=True, check=False)
    assert done.stderr == "0\n"


def test_ctrl_c_exits_130_and_says_so() -> None:
    """Long enough to be at work when the signal comes: the search of a whole supernode."""
    import signal

    words = "solve deepseek-v3 --on cloudmatrix384 --cards 384 --isl 4096 --osl 1024 --tpot 50ms".split()
    with subprocess.Popen(
        [sys.executable, "-m", "perfmodel", "-v", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell in the background ignores it
    ) as running:
        assert running.stderr is not None
        assert running.stdout is not None
        running.stderr.readline()  # at work
        time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        out, err = running.stdout.read(), running.stderr.read().decode()
    # Python ends by the signal itself where it caught us inside an exec of a library; shells say 130 to that too
    assert running.returncode in (130, -signal.SIGINT)
    assert not out
    assert err.endswith("error: interrupted\n")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("moeplan so", "solve"),
        ("moeplan solve --cat", ""),
        ("moeplan solve --ca", "--cards"),
        ("moeplan solve deepseek-v3 --on cloud", "cloudmatrix384"),
        ("moeplan solve deepseek-v4-p", "deepseek-v4-pro"),
        ("moeplan solve deepseek-v3 --stack id", "ideal"),
        ("moeplan explain --evidence seed-cm", "seed-cm384-decode"),
        ("moeplan show ascend-910b4-", "ascend-910b4-1"),
        ("moeplan list --format ma", "markdown"),
    ],
)
def test_shells_complete(words: str, found: str) -> None:
    count = str(len(words.split()) - 1)
    env = os.environ | {"COMP_WORDS": words, "COMP_CWORD": count, "_MOEPLAN_COMPLETE": "complete_bash"}
    command = [sys.executable, "-X", "importtime", "-m", "perfmodel"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    assert done.stdout.strip() == found
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert not loaded & {"numpy", "scipy", "yaml", "perfmodel.files.catalog"}


@pytest.mark.parametrize("stream", ["<&-", ">&-", "2>&-"])
def test_closed_streams_are_no_fault(stream: str) -> None:
    command = f"{sys.executable} -m perfmodel list systems {stream}"
    assert subprocess.run(["bash", "-c", command], capture_output=True, check=False).returncode == 0


def test_a_full_disk_is_told() -> None:
    command = f"{sys.executable} -m perfmodel list systems > /dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: stdout: cannot be written: ")


WORDS = (
    "solve",
    "list",
    "show",
    "init",
    "--cards",
    "--on",
    "-q",
    "-x",
    "--",
    "-",
    "",
    "cm384",
    "3",
    "x.yaml",
    "é",
    "=",
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=6))
def test_nonsense_is_never_a_traceback(words: list[str]) -> None:
    """Whatever is typed: an answer or lines that say what is wrong, and a documented exit code."""
    with TemporaryDirectory() as folder:
        env = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
        done = process.run(*words, cwd=folder, env=env)
    assert done.returncode in (0, 2, 3, 4), done.stderr
    assert "Traceback" not in done.stderr
    assert "error: internal" not in done.stderr


def _on_a_terminal(*words: str, **environment: str) -> str:
    """Return what a terminal receives from Python, results and stderr alike."""
    pid, terminal = pty.fork()
    if pid == 0:
        for name in ("NO_COLOR", "FORCE_COLOR"):
            os.environ.pop(name, None)
        os.environ.update({"TERM": "xterm", "PYTHONIOENCODING": "utf-8"} | environment)
        os.execv(sys.executable, [sys.executable, *words])
    received = b""
    with suppress(OSError):  # how a terminal says that the other side is gone
        while read := os.read(terminal, 65536):
            received += read
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return received.decode()


def test_a_terminal_gets_colour() -> None:
    words = ("-m", "perfmodel", "explain", "--evidence", "seed-cm384-decode", "--quiet")  # no progress either
    assert "\x1b[32m✓\x1b[0m" in _on_a_terminal(*words)
    assert "\x1b" not in _on_a_terminal(*words, TERM="dumb")
    assert "\x1b" not in _on_a_terminal(*words, NO_COLOR="1")


@pytest.mark.parametrize(
    ("seconds", "term", "shown"), [(1.5, "xterm", True), (0.2, "xterm", False), (1.5, "dumb", False)]
)
def test_signs_of_life_past_a_second_on_a_terminal_only(seconds: float, term: str, shown: bool) -> None:
    slow = f"PROGRESS.start('moeplan x'); time.sleep({seconds}); write('result')"
    program = f"import time; from perfmodel.report.terminal import PROGRESS, write; {slow}"
    line = "\rmoeplan x: at work, 1 s (Ctrl-C stops)\r\x1b[K" if shown else ""
    assert _on_a_terminal("-c", program, TERM=term) == f"{line}result\r\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("result\n", "")
