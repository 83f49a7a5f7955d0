"""What a stranger may hand over: whole kinds of hostile files, tables, plans, arguments and text, and what ends them.

Each is refused by one clear line, exit 2 or 4, or does no harm.
"""

import copy
import csv
import io
import json
import logging
import os
import re
import socket
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from perfmodel.cli.app import run
from perfmodel.errors import DataError, MoeplanError, UsageError, printable
from perfmodel.files import catalog, document, folders, magnitudes, plans, results, runs, writing
from perfmodel.files.machines import load_machine
from perfmodel.files.measurements import read_measurements
from perfmodel.files.reader import Reader, unsourced
from perfmodel.measured.reading import Context
from perfmodel.planning import plan_file
from perfmodel.report.render import RENDERERS
from perfmodel.report.table import Column, Document, Table
from tests import hostile

ASKED = "model: deepseek-v3\non: cloudmatrix384\ncards: 16\nisl: 1024\nosl: 512\ntpot: 50ms\n"
LONG = "n" * 300
Said = tuple[int, str, str]
Command = Callable[..., Said]


@pytest.fixture
def moe(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Run the whole command line in this process and in an empty folder; return exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("MOEPLAN_DEBUG", raising=False)

    def said(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["moeplan", *words])
        with pytest.raises(SystemExit) as ended:
            run()
        out, error = capfd.readouterr()
        return int(ended.value.code or 0), out, error

    return said


def refused(read: Callable[..., Any], *given: Any, lines: int = 1, says: str = "") -> str:
    """Return what a reader refuses its input with: as many lines as are allowed, each of what a terminal shows."""
    start = time.perf_counter()
    with pytest.raises(MoeplanError) as caught:
        read(*given)
    assert time.perf_counter() - start < 5
    told = str(caught.value)
    assert caught.value.exit_code in (2, 4)
    assert 0 < len(told.split("\n")) <= lines, told[:2000]
    for line in told.split("\n"):
        assert line.strip()
        assert len(line) < 1600, "a fault of a whole page"  # lists of what is known are told whole, up to a screen
        assert "Traceback" not in line
    if isinstance(caught.value, DataError):
        assert all(":" in line for line in told.split("\n")), told
    assert says in told, told
    return told


def is_one_clear_line(said: Said, *codes: int) -> None:
    code, _, error = said
    assert code in (codes or (2, 4)), error
    told = [line for line in error.split("\n") if line and not line.startswith("note: ")]
    assert len(told) == 1, error
    assert told[0].startswith("error: "), error
    assert printable(told[0]) == told[0]
    assert "internal" not in error
    assert "Traceback" not in error


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def asked(folder: Path, text: str | bytes) -> Path:
    path = folder / "r.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


# --- the layer of YAML ----------------------------------------------------------------------------

#: values that are neither text nor number nor truth, and a word that their refusal says
NO_VALUES = {
    "unknown tag": ("!foo 32", "tag"),
    "tag of a language": ("!!python/object/apply:os.getcwd []", "tag"),
    "tagged text that is no whole number": ("!!int x", "a number that can be read"),
    "tagged nothing that is no whole number": ('!!int ""', "a number that can be read"),
    "tagged stroke that is no whole number": ("!!int _", "a number that can be read"),
    "tagged nothing that is no number": ('!!float ""', "a number that can be read"),
    "tagged nothing that is no truth": ('!!bool ""', "true or false"),
    "tagged text that is no number": ("!!float x", "a number that can be read"),
    "tagged text that is no truth": ("!!bool x", "true or false"),
    "tagged text that is no date": ("!!timestamp x", "a date"),
    "tagged text that is no binary": ('!!binary "\u00e9"', "tag"),
    "tagged set": ("!!set {a}", "tag"),
    "date": ("2001-01-01", "a date"),
    "date that is none": ("2001-99-99", "a date"),
    "time that is none": ("2001-01-01 99:00:00", "a date"),
    "lone =": ("=", "a lone ="),
    "merge key as a value": ("<<", "a merge key"),
    "hexadecimal without digits": ("0x_", "a number that can be read"),
    "binary without digits": ("0b_", "a number that can be read"),
    "number of 5000 digits": ("9" * 5000, "number"),
    "negative number of 5000 digits": ("-" + "9" * 5000, "number"),
    "hexadecimal of 5000 digits": ("0x" + "f" * 5000, "number"),
    "whole number beyond floats": ("1" + "0" * 400, "2^53"),
    "whole number that floats round": (str(2**53 + 1), "2^53"),
    "number to the base 60": ("1:59:59", "base 60"),
    "number to the base 60 beyond floats": ("1" + ":59" * 400 + ".5", "number"),
    "anchor": ("&a 32", "anchors"),
    "alias of nothing": ("*a", "anchors"),
    "escape": ('"a\\e[2J"', "control character"),
    "carriage return": ('"a\\rb"', "control character"),
    "right to left": ('"a\\u202eb"', "control character"),
    "separator of lines": ('"a\\u2028b"', "control character"),
    "zero byte": ('"a\\0b"', "control character"),
    "half of a pair": ('"\\ud800"', ""),
    "unclosed list": ("[1", "not YAML"),
    "unclosed text": ('"a', "not YAML"),
    "sign that begins nothing": ("@a", "not YAML"),
}


@pytest.mark.parametrize("name", NO_VALUES)
@pytest.mark.parametrize("key", ["cards", "ttft", "model"])
def test_what_is_no_value_is_refused(tmp_path: Path, name: str, key: str) -> None:
    value, says = NO_VALUES[name]
    text = "".join(f"{line}\n" for line in ASKED.splitlines() if not line.startswith(f"{key}:")) + f"{key}: {value}\n"
    told = refused(runs.load_run, asked(tmp_path, text), lines=2, says=says)
    assert "r.yaml:" in told.split("\n")[0]


@pytest.mark.parametrize("kind", ["chips", "systems", "models", "techniques", "evidence", "deployments", "peers"])
@pytest.mark.parametrize("name", ["unknown tag", "date", "number of 5000 digits", "lone =", "escape"])
def test_every_kind_of_file_reads_through_the_same_layer(tmp_path: Path, kind: str, name: str) -> None:
    """A value in place of the first number or text of a file on file."""
    text = hostile.files_of(kind)[0]
    head, _, rest = text.partition("\n")
    value, says = NO_VALUES[name]
    path = asked(tmp_path, f"{head.partition(':')[0]}: {value}\n{rest}")
    refused(catalog.load_path, kind, path, lines=3, says=says)


KEYS = {
    "list": "? [a]\n: 1\n",
    "mapping": "? {a: 1}\n: 1\n",
    "list of lists": "? [[a, [b]], {c: [d]}]\n: {e: [f]}\n",
    "merge": "<<: {cards: 3}\n",
    "empty": '"": 1\n',
    "escape": '"\\e[2J": 1\n',
    "line feed": '"a\\nerror: b": 1\n',
    "duplicate": "cards: 3\n",
    "number": "5: 1\n",
    "nothing": "~: 1\n",
    "of 100000 letters": "k" * 1000 + ": 1\n",
    "unknown": "crads: 1\n",
}


@pytest.mark.parametrize("name", KEYS)
def test_what_is_no_key_is_refused(tmp_path: Path, name: str) -> None:
    told = refused(runs.load_run, asked(tmp_path, ASKED + KEYS[name]), lines=2)
    assert "r.yaml:7:" in told


@pytest.mark.parametrize(("opened", "closed"), [("[", "]"), ("{a: ", "}"), ("- ", ""), ("? ", "")])
@pytest.mark.parametrize("depth", [65, 600, 50_000])
def test_nesting_is_refused_beyond_64_levels(tmp_path: Path, opened: str, closed: str, depth: int) -> None:
    text = "with: " + opened * depth + "1" + closed * depth if closed else opened * depth + "1"
    refused(runs.load_run, asked(tmp_path, text + "\n"), lines=3, says="r.yaml:")


def test_nesting_within_64_levels_is_read() -> None:
    text = "a: " + "[" * 63 + "]" * 63
    assert document.read(Path("x"), text.encode()).faults == []
    refused(document.read, Path("x"), ("a: " + "[" * 64 + "]" * 64).encode(), says="nested deeper than 64")


@pytest.mark.parametrize(
    "text",
    (
        *(
            b"",
            b"\n\n",
            b"# a\n",
            b"- a\n",
            b"just text\n",
            b"5\n",
            b"null\n",
            b"a: 1\n---\nb: 2\n",
            b"%YAML 9.9\n---\na: 1\n",
        ),
        *(b"\x00\xff\xfe", b"\xff\xfea\x00", b"\x7fELF\x02", b"\x1f\x8b\x08\x00binary", b"PK\x03\x04", b"a: b\x00\n"),
        *(
            b"a: \x1b[2J\n",
            b"a: \xed\xa0\x80\n",
            b"a: \xc3\x28\n",
            b"\xef\xbb\xbf\xef\xbb\xbfa: 1\n",
            b"a: \xc2\x85\n\x01\n",
        ),
    ),
)
def test_what_is_no_document_is_refused_by_every_reader(tmp_path: Path, text: bytes) -> None:
    path = asked(tmp_path, text)
    for read in (runs.load_run, plans.read_plan, lambda path: catalog.load_path("models", path)):
        refused(read, path, lines=20, says="r.yaml:")
    table = tmp_path / "t.csv"
    table.write_bytes(text)
    refused(read_measurements, table, Context(), says="t.csv:")


def test_a_sign_that_yaml_has_none_of_is_told_in_one_line(tmp_path: Path) -> None:
    told = refused(runs.load_run, asked(tmp_path, "title: \u00e9\U0001f600\nmodel: a\x1bb\n"), says="r.yaml:2:")
    assert "'\\x1b'" in told


def test_a_fault_of_many_letters_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    told = refused(runs.load_run, asked(tmp_path, f"{ASKED}kv: {'x' * 100_000}\n"), says="r.yaml:7: kv: found 'xxx")
    assert told.endswith("allowed: 'bf16', 'int8', 'fp8' or 'any'")
    listed = ASKED.replace("16", "[" + "1.5, " * 5000 + "]")
    refused(runs.load_run, asked(tmp_path, listed), says="r.yaml:3: cards: found [1.5, 1.5")


def test_files_over_a_megabyte_are_not_read(tmp_path: Path) -> None:
    path = asked(tmp_path, ASKED + "#" * document.LARGEST)
    for read in (runs.load_run, plans.read_plan, lambda path: catalog.load_path("chips", path)):
        refused(read, path, says="larger than 1 MB")
    with path.open("r+b") as sparse:
        sparse.truncate(3_000_000_000)
    refused(runs.load_run, path, says="larger than 1 MB")
    table = tmp_path / "t.csv"
    with table.open("wb") as sparse:
        sparse.truncate(3_000_000_000)
    refused(read_measurements, table, Context(), says="larger than 400 MB")


@pytest.mark.parametrize("count", [5000, 100_000])
def test_many_faults_are_few_lines_at_once(tmp_path: Path, count: int) -> None:
    keys = "".join(f"k{i}: 1\n" for i in range(count))
    told = refused(runs.load_run, asked(tmp_path, (ASKED + keys)[: document.LARGEST - 10]), lines=21)
    assert "more faults" in told


# --- names and paths ------------------------------------------------------------------------------

NO_NAMES = (
    *("", " ", "/", ".", "..", "./", "a/b", "a\0", "a\0.yaml", "~", "*", "-", "--", "%s", "{0}", "\u00b2", "a\nb"),
    *(LONG, f"{LONG}.yaml", f"/{LONG}/{LONG}.yaml", "x" * 100_000, "./none.yaml", "../../etc/passwd", "/etc/passwd"),
    *("/dev/zero", "/dev/null", "/dev/stdin", "/proc/self/mem", "/proc/self/environ", "\x1b[2J", "\u202eabc"),
)


@pytest.mark.parametrize("kind", folders.FOLDERS)
def test_what_is_no_name_is_not_on_file(kind: str) -> None:
    for name in NO_NAMES:
        with pytest.raises(MoeplanError) as caught:
            catalog.load(kind, name)
        assert caught.value.exit_code in (2, 4)


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_a_file_names_is_no_way_out(tmp_path: Path, name: str) -> None:
    refused(runs.load_run, asked(tmp_path, ASKED.replace("deepseek-v3", json.dumps(name))), lines=2)


@pytest.mark.parametrize("here", [".", "own", "away"])
def test_what_a_file_names_is_relative_to_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: str
) -> None:
    """A run-spec names a system and a stack, the system a chip and a stack, the stack kernel sets and terms."""
    own = tmp_path / "own"
    (own / "parts").mkdir(parents=True)
    (tmp_path / "away").mkdir()
    changed(own, data_of(CHIP), ends="chip.yml")
    changed(own / "parts", data_of(KERNELS), (("chip",), "ascend-910c-752"), ends="set.yaml")
    changed(own / "parts", data_of(TERMS), ends="terms.yaml")
    inner = ((("kernels", 0), "changedset.yaml"), (("terms",), "./changedterms.yaml"))
    changed(own / "parts", data_of(STACK), *inner, ends="stack.yaml")
    changed(
        own,
        data_of(SYSTEM),
        (("chip",), "./changedchip.yml"),
        (("default_stack",), "parts/changedstack.yaml"),
        ends="system.yaml",
    )
    text = ASKED.replace("on: cloudmatrix384", "on: changedsystem.yaml") + "stack: ./parts/changedstack.yaml\n"
    asked(own, text + "kernels: [deepep-ascend, parts/changedset.yaml]\n")
    monkeypatch.chdir(tmp_path / here)
    catalog.load.cache_clear()
    catalog.load_path.cache_clear()
    run = runs.load_run(Path(os.path.relpath(own / "r.yaml")))
    assert run.on is not None
    assert run.kernels is not None
    assert run.kernels[0] == "deepep-ascend"
    for stack in (None, run.stack):
        machine, _ = load_machine(run.on, stack, run.kernels)
        found = [machine.chip, machine.system, machine.stack, machine.terms, machine.kernels[1], machine.kernels[2]]
        names = [f"changed{name}.yaml" for name in ("system", "stack", "terms", "set", "set")]
        assert [Path(one.file).name for one in found] == ["changedchip.yml", *names]
        for one in found:
            assert Path(one.word).resolve().is_relative_to(own), one.word
            assert Path(one.file).resolve() == Path(one.word).resolve()
    catalog.load.cache_clear()
    catalog.load_path.cache_clear()


def test_what_stands_in_the_current_directory_is_not_what_a_file_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").mkdir()
    changed(tmp_path, data_of(STACK), ends="b.yaml")
    monkeypatch.chdir(tmp_path)
    path = asked(tmp_path / "own", ASKED + "stack: changedb.yaml\n")
    says = f"r.yaml:7: stack: there is no file {tmp_path}/own/changedb.yaml; "
    refused(runs.load_run, path, says=says)
    refused(runs.load_run, path.relative_to(tmp_path), says=says)
    for name in ("changedb.yaml", f"{tmp_path}/changedb.yaml", "../changedb.yaml"):
        system = changed(tmp_path / "own", data_of(SYSTEM), (("default_stack",), name))
        refused(catalog.load_path.__wrapped__, "systems", system, lines=2, says="default_stack: ")
    asked(tmp_path / "own", ASKED + "stack: ../changedb.yaml\n")  # a run-spec may name what its writer could type
    assert runs.load_run(path).stack == f"{tmp_path}/own/../changedb.yaml"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((ASKED + "stack: changedb.yaml\n").encode())))
    assert runs.load_run(None).stack == "changedb.yaml"


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def _circle(path: Path) -> None:
    path.symlink_to(path.name)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [_fifo, _socket, _circle, _device, Path.mkdir], ids=lambda make: make.__name__)
def test_what_is_no_regular_file_is_not_read(tmp_path: Path, make: Callable[[Path], None], monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    for name, read in (
        ("a.yaml", runs.load_run),
        ("b.json", plans.read_plan),
        ("c.yaml", lambda path: catalog.load_path("models", path)),
        ("d.yaml", lambda path: results.load_results([str(path)])),
        ("e.csv", lambda path: read_measurements(path, Context())),
    ):
        make(Path(name))
        refused(read, Path(name), says="cannot be read")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads all")
def test_a_file_without_rights_is_not_read(tmp_path: Path) -> None:
    path = asked(tmp_path, ASKED)
    path.chmod(0)
    refused(runs.load_run, path, says="cannot be read")


# --- records with their sources -------------------------------------------------------------------


def data_of(path: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folders.root() / path).read_text(encoding="utf-8"))
    return found


def unranged(value: Any) -> Any:
    """Return the content of a file without the ranges of its numbers, so that any may be changed alone."""
    if isinstance(value, dict):
        return {key: unranged(inner) for key, inner in value.items() if key != "range"}
    return [unranged(inner) for inner in value] if isinstance(value, list) else value


class Plain(yaml.SafeDumper):
    """Writes a value that stands there twice twice, without anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def changed(folder: Path, content: dict[str, Any], *edits: tuple[tuple[Any, ...], Any], ends: str = ".yaml") -> Path:
    """Write a copy of a file with values changed."""
    content = copy.deepcopy(content)
    for (*above, last), value in edits:
        place: Any = content
        for key in above:
            place = place[key]
        place[last] = value
    path = folder / f"changed{ends}"
    text = json.dumps(content) if ends == ".json" else yaml.dump(content, Dumper=Plain, sort_keys=False)
    path.write_text(text, encoding="utf-8")
    return path


SYSTEM, STACK = "hardware/systems/cloudmatrix384.yaml", "hardware/stacks/cann-2025.yaml"
MODEL, RESULT = "models/deepseek-v3.yaml", "evidence/ds-profile-prefill.yaml"
CHIP, TERMS = "hardware/chips/ascend-910c-752.yaml", "hardware/terms/ascend.yaml"
KERNELS = "hardware/kernels/cann-2025-05.yaml"
SOURCED: dict[str, Any] = {"value": 1, "source": "a"}


@pytest.mark.parametrize("key", ["source", "note", "kind", "range", "value"])
@pytest.mark.parametrize(
    "value", [["a"], {"a": 1}, SOURCED, 5, True, 1e300, [], [[1]], [SOURCED, SOURCED], [1, 2, 3], "\u00b2"]
)
def test_a_record_holds_plain_values(tmp_path: Path, key: str, value: Any) -> None:
    path = changed(tmp_path, data_of(SYSTEM), (("packages_per_server", key), value))
    if key == "value" and value == 5:
        catalog.load_path("systems", path)
    elif key == "note" and value == "\u00b2":
        catalog.load_path("systems", path)
    else:
        refused(catalog.load_path, "systems", path, lines=4, says="packages_per_server")


def test_a_record_of_nothing_or_of_text_is_refused(tmp_path: Path) -> None:
    source = data_of(STACK)["link_efficiency"]["ub"]["source"]
    empty = changed(tmp_path, data_of(STACK), (("link_efficiency", "ub"), {"value": None, "source": source}))
    refused(catalog.load_path, "stacks", empty, lines=2, says="link_efficiency.ub.value: found nothing")
    other = tmp_path / "other"
    other.mkdir()
    named = changed(other, data_of(STACK), (("title",), {"value": "a title", "source": source}))
    refused(catalog.load_path, "stacks", named, lines=2, says="title: found 'a title' with a source")


@pytest.mark.parametrize("number", [10**400, -(10**400), 10**18, 0, -1, float("nan"), float("inf"), True, "5 GB/s"])
def test_numbers_of_hardware_are_within_reason(tmp_path: Path, number: Any) -> None:
    system = changed(tmp_path, data_of(SYSTEM), (("max_packages", "value"), number))
    refused(catalog.load_path, "systems", system, lines=3, says="max_packages")


@pytest.mark.parametrize("share", [0, 0.0, -0.5, 1.5, 1e-400, float("nan"), float("inf")])
def test_a_share_is_never_zero(tmp_path: Path, share: float) -> None:
    path = changed(tmp_path, data_of(STACK), (("link_efficiency", "ub", "value"), share))
    refused(catalog.load_path, "stacks", path, lines=2, says="link_efficiency.ub")


@pytest.mark.parametrize(
    "ends", [[0, 1], [-1, 1], [0.1, 1.5], [0.1, 1e300], [0.1, float("inf")], [1, 0.1], [0.1], "0.1"]
)
def test_the_ends_of_a_range_are_what_the_value_may_be(tmp_path: Path, ends: Any) -> None:
    """An end of zero of a share that is divided by would give intervals of nan."""
    path = changed(tmp_path, data_of(STACK), (("link_efficiency", "ub", "range"), ends))
    refused(catalog.load_path, "stacks", path, lines=2, says="link_efficiency.ub.range")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("experts", "topk_group"), 9),
        (("experts", "topk_group"), 10**9),
        (("experts", "topk_group"), 10**400),
        (("experts", "n_group"), 10**9),
        (("experts", "n_group"), 257),
        (("experts", "n_group"), 0),
        (("experts", "n_routed_experts"), 10**18),
        (("experts", "num_experts_per_tok"), 10**9),
        (("num_hidden_layers",), 10**400),
        (("num_hidden_layers",), 10**18),
        (("num_hidden_layers",), 0),
        (("hidden_size",), -1),
        (("hidden_size",), 1.5),
        (("vocab_size",), float("nan")),
    ],
)
def test_sizes_of_models_are_within_reason(tmp_path: Path, place: tuple[str, ...], value: Any) -> None:
    path = changed(tmp_path, data_of(MODEL), (place, value))
    refused(catalog.load_path, "models", path, lines=2, says="changed.yaml:")


@pytest.mark.parametrize(
    "value", [1e100, 1e308, 10**400, 0, -1, 1e-300, float("nan"), float("inf"), True, "1e400 s", [1]]
)
def test_measured_values_are_within_reason(tmp_path: Path, value: Any) -> None:
    path = changed(tmp_path, data_of(RESULT), (("measured", 0, "value"), value))
    if value is not True:
        refused(results.load_results, [str(path)], lines=3, says="measured.0.value")


#: counts of files of every kind that has some
COUNTS: tuple[tuple[str, str, tuple[Any, ...]], ...] = (
    *(("chips", CHIP, ("die", key, "value")) for key in ("cube_cores", "vector_cores")),
    ("chips", CHIP, ("package", "dies", "value")),
    *(("systems", SYSTEM, (key, "value")) for key in ("packages_per_server", "max_packages")),
    ("systems", SYSTEM, ("tiers", 3, "dies", "value")),
    ("stacks", STACK, ("memory", "kv_block_tokens", "value")),
    ("kernels", "hardware/kernels/ideal.yaml", ("dispatch", "max_tokens_per_die", "value")),
    *(("models", MODEL, ("experts", key)) for key in ("n_shared_experts", "n_routed_experts")),
    *(("models", MODEL, (key,)) for key in ("num_nextn_predict_layers", "first_k_dense_replace", "vocab_size")),
    ("models", MODEL, ("checks", "kv_bytes_per_token_bf16")),
)


@pytest.mark.parametrize("value", [1e300, 10**40, 10**10, -1])
@pytest.mark.parametrize(("kind", "file", "place"), COUNTS)
def test_counts_of_files_are_within_reason(
    tmp_path: Path, kind: str, file: str, place: tuple[Any, ...], value: Any
) -> None:
    path = changed(tmp_path, unranged(data_of(file)), (place, value))
    told = refused(catalog.load_path, kind, path, lines=3, says="changed.yaml:")
    assert "allowed: " in told


@pytest.mark.parametrize("key", ["cards", "isl", "osl", "top", "prefill_cards"])
def test_counts_of_runs_are_within_reason(moe: Command, tmp_path: Path, key: str) -> None:
    lines = [line for line in ASKED.splitlines() if not line.startswith(f"{key}:")]
    for value in (10**10, 10**40, 1e300, 0):
        path = asked(tmp_path, "\n".join([*lines, f"{key}: {value}"]) + "\n")
        refused(runs.load_run, path, lines=2, says=f"r.yaml:{len(lines) + 1}: {key}: found ")
    is_one_clear_line(moe(*SOLVE, "16", f"--{key.replace('_', '-')}", str(10**40)))


#: numbers that are divided by, or stand in an exponent, beyond what can be worked with
BEYOND: tuple[tuple[str, str, tuple[Any, ...], Any], ...] = (
    *(
        ("systems", SYSTEM, ("tiers", 1, "bandwidth"), f"{rate} GB/s")
        for rate in ("1e-320", "1e-300", "1e-16", "1e100")
    ),
    ("systems", SYSTEM, ("tiers", 1, "latency"), "1e300 s"),
    ("stacks", STACK, ("link_efficiency", "ub"), 1e-320),
    ("stacks", STACK, ("link_efficiency", "ub"), 1e-7),
    ("stacks", STACK, ("memory", "utilization"), 1e-320),
    ("stacks", STACK, ("overhead", "sampling"), "1e19 s"),
    ("chips", CHIP, ("die", "hbm", "bandwidth"), "1e-320 B/s"),
    ("chips", CHIP, ("die", "clock"), "1e30 Hz"),
    ("terms", TERMS, ("skew",), 1e9),
    ("terms", TERMS, ("left_out", "driver", "row"), 1e9),
    ("kernels", "hardware/kernels/hccl-a3.yaml", ("collective", "bulk_overlap"), 1e9),
    ("kernels", "hardware/kernels/hccl-a3.yaml", ("collective", "fit", "held_out_median_error"), 1e9),
    ("kernels", KERNELS, ("matmul_int8", "stream"), 1e-320),
)


@pytest.mark.parametrize(("kind", "file", "place", "value"), BEYOND)
def test_numbers_that_cannot_be_worked_with_are_refused(
    tmp_path: Path, kind: str, file: str, place: tuple[Any, ...], value: Any
) -> None:
    path = changed(tmp_path, unranged(data_of(file)), ((*place, "value"), value))
    assert "allowed: " in refused(catalog.load_path, kind, path, says=".".join(map(str, place)))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("phase", ["decode", "prefill"])
@pytest.mark.parametrize("rate", ["1e-15 GB/s", "1e9 GB/s"])
def test_the_slowest_and_the_fastest_links_are_worked_with(moe: Command, tmp_path: Path, rate: str, phase: str) -> None:
    system = changed(tmp_path, data_of(SYSTEM), *((("tiers", at, "bandwidth", "value"), rate) for at in range(4)))
    edits = ((("link_efficiency", link, "value"), 1e-6) for link in ("ub", "roce"))
    stack = changed(tmp_path, unranged(data_of(STACK)), *edits, ends="2.yaml")
    words = ("--isl", "4096", "--osl", "512", "--dies", "64", "--batch", "8", "--tp", "4", "--phase", phase)
    for more in ((), ("--exchange", "gather"), ("--overlap", "link")):
        code, _, error = moe("explain", "deepseek-v3", "--on", str(system), "--stack", str(stack), *words, *more)
        assert code in (0, 3), error
        assert all(line.startswith("note: ") for line in error.splitlines()), error


# --- plans ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plan() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(hostile.plan_files()[0])
    return found


LAYOUT = ("conditions", "decode", "layout")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ((*LAYOUT, "draft"), 2),
        ((*LAYOUT, "draft"), 10**9),
        ((*LAYOUT, "batch"), 10**15),
        ((*LAYOUT, "batch"), 0),
        ((*LAYOUT, "dies"), 10**15),
        ((*LAYOUT, "dies"), 0),
        ((*LAYOUT, "tp"), 3),
        ((*LAYOUT, "kv_resident"), 0),
        ((*LAYOUT, "kv_resident"), float("nan")),
        (("conditions", "decode", "instances"), 10**15),
        (("conditions", "decode", "instances"), 0),
        (("conditions", "prefill", "instances"), 2.5),
        (("conditions", "model"), "/dev/zero"),
        (("conditions", "system"), LONG),
        (("conditions", "isl"), 10**400),
        *((("predicted", key), value) for key in ("tpot", "ttft", "requests_per_s", "tokens_per_s_per_card")
          for value in (float("nan"), float("inf"), -1, 0, 10**400)),
        *((("version",), value)
          for value in ("1\x1b[2J", "1\nnote: all is well", "1\r", "\u202e1", "", "1" * 41, 5, None)),
        (("format",), "moeplan.plan/2"),
        (("techniques", "decode"), {"mtp": ["on"]}),
        (("run",), 5),
        (("run", "cards"), 10**400),
    ],
)  # fmt: skip
def test_a_plan_beyond_reason_is_refused(
    tmp_path: Path, plan: dict[str, Any], place: tuple[str, ...], value: Any
) -> None:
    path = changed(tmp_path, plan, (place, value), ends=".json")
    refused(plan_file.load_plan, str(path), lines=3)


def _outside(tmp_path: Path) -> dict[str, str]:
    """Return names of a file that is no business of a plan in ``tmp_path``/plans: each leads out by another way."""
    (tmp_path / "plans").mkdir(exist_ok=True)
    (tmp_path / "secret").write_text("secret")
    link = tmp_path / "plans" / "link"
    if not link.is_symlink():
        link.symlink_to(tmp_path / "secret")
        (tmp_path / "plans" / "folder").symlink_to(tmp_path, target_is_directory=True)
    up = os.path.relpath(tmp_path, folders.root())
    return {
        "absolute": str(tmp_path / "secret"),
        "up from the data": f"{up}/secret",
        "up from here": f"./{os.path.relpath(tmp_path)}/secret",
        "up from the plan": str(tmp_path / "plans" / ".." / "secret"),
        "through a link": str(link),
        "through a linked folder": str(tmp_path / "plans" / "folder" / "secret"),
        "of the machine": "/etc/passwd",
        "device": "/dev/zero",
        "many up": "../" * 40 + "etc/passwd",
        "zero byte": "./a\0b",
        "long": "./" + LONG * 20,
    }


WAYS = (
    *("absolute", "up from the data", "up from here", "up from the plan", "through a link", "through a linked folder"),
    *("of the machine", "device", "many up", "zero byte", "long"),
)


@pytest.mark.parametrize("way", WAYS)
def test_files_of_a_plan_are_near_it(tmp_path: Path, plan: dict[str, Any], way: str) -> None:
    name = _outside(tmp_path)[way]
    path = changed(tmp_path / "plans", plan, (("files",), {name: "x"}), ends=".json")
    told = refused(plans.read_plan, path, lines=2)
    assert "changed since" not in told
    assert "not on file" not in told


def test_files_beside_a_plan_are_looked_at(tmp_path: Path, plan: dict[str, Any]) -> None:
    (tmp_path / "own.yaml").write_text("a: 1")
    path = changed(tmp_path, plan, (("files",), {str(tmp_path / "own.yaml"): "x", MODEL: "x"}), ends=".json")
    assert len(plans.changed_since(plans.read_plan(path))) == 2


@pytest.mark.parametrize("key", ["model", "system", "stack"])
@pytest.mark.parametrize("way", ["absolute", "through a link", "device"])
def test_what_a_plan_is_made_of_is_near_it(tmp_path: Path, plan: dict[str, Any], key: str, way: str) -> None:
    name = _outside(tmp_path)[way]
    name = name if way == "device" else f"{name}.yaml"
    (tmp_path / "plans" / "link.yaml").symlink_to(tmp_path / "secret")
    path = changed(tmp_path / "plans", plan, (("conditions", key), name), ends=".json")
    refused(plans.read_plan, path, lines=3, says="folder of this one")


@pytest.mark.parametrize("key", ["model", "on", "stack", "kernels"])
def test_a_plan_away_from_files_that_it_names_says_so(moe: Command, tmp_path: Path, key: str) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "plans").mkdir()
    own = changed(tmp_path / "own", data_of({"model": MODEL, "on": SYSTEM, "stack": STACK, "kernels": KERNELS}[key]))
    plain = (
        [word for at, word in enumerate(SOLVE) if "--on" not in SOLVE[max(at - 1, 0) : at + 1]]
        if key == "on"
        else SOLVE
    )
    words = [*plain, "16", f"--{key}", str(own)]
    if key == "model":
        words = ["solve", str(own), *SOLVE[2:], "16"]
    code, _, error = moe(*words, "-o", "plans/p.json")
    assert code == 0
    assert f"note: plans/p.json: names {own}, neither in the folder of the plan nor below it" in error
    assert "write the plan beside it, or move it to plans and solve again" in error
    assert moe("explain", "plans/p.json")[0] == 4, "refused, as was said"
    code, _, error = moe(*words, "-o", "own/p.json")
    assert (code, "neither" in error) == (0, False)
    assert moe("explain", "own/p.json")[0] == 0


# --- magnitudes -----------------------------------------------------------------------------------


def remarks(read: Callable[..., Any], *given: Any) -> list[str]:
    """Return what is remarked on while a file is read."""
    told: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())

    log, listener = logging.getLogger("perfmodel"), Listener(logging.INFO)
    level = log.level
    log.addHandler(listener)
    log.setLevel(logging.INFO)
    try:
        read(*given)
    finally:
        log.removeHandler(listener)
        log.setLevel(level)
    return told


@pytest.mark.parametrize(
    ("kind", "file", "place", "value", "says"),
    [
        ("chips", CHIP, ("die", "hbm", "bandwidth", "value"), "1.6 MB/s", "die.hbm.bandwidth: found 1.6 MB/s; "),
        ("chips", CHIP, ("die", "clock", "value"), "1.8 kHz", "die.clock: found 1.8 kHz; "),
        ("systems", SYSTEM, ("tiers", 1, "bandwidth", "value"), "196 kB/s", "tiers.1.bandwidth: found 196 kB/s; "),
        ("systems", SYSTEM, ("tiers", 1, "latency", "value"), "19 s", "tiers.1.latency: found 19 s; "),
        ("stacks", STACK, ("overhead", "sampling", "value"), "0.5 s", "overhead.sampling: found 0.5 s; "),
        ("stacks", STACK, ("overhead", "decode_host_gap", "value"), "1 s", "overhead.decode_host_gap: found 1 s; "),
        ("chips", CHIP, ("die", "hbm", "capacity", "value"), "64 TiB", "die.hbm.capacity: found 64 TiB; "),
        ("chips", CHIP, ("die", "hbm", "bandwidth", "value"), "1.6 GB/s", "die.hbm.bandwidth: found 1.6 GB/s; "),
        ("chips", CHIP, ("die", "clock", "value"), "1.8 MHz", "die.clock: found 1.8 MHz; "),
        ("chips", CHIP, ("die", "l2", "capacity", "value"), "192 KiB", "die.l2.capacity: found 192 KiB; "),
        ("kernels", KERNELS, ("matmul_int8", "start", "value"), "5 s", "matmul_int8.start: found 5 s; "),
        ("terms", TERMS, ("decode_gap", "value"), 1e5, "decode_gap: found 100000.0; "),
        ("models", MODEL, ("hidden_size",), 71_680_000, "hidden_size: found 71680000; "),
    ],
)
def test_a_number_far_beyond_those_on_file_is_remarked_on(
    tmp_path: Path, kind: str, file: str, place: tuple[Any, ...], value: Any, says: str
) -> None:
    data = unranged(data_of(file))
    data.pop("checks", None)  # stated totals, which another size misses
    path = changed(tmp_path, data, (place, value))
    told = remarks(catalog.load_path, kind, path)
    assert len(told) == 1, told
    assert re.match(rf"{re.escape(str(path))}:\d+: {re.escape(says)}files on hand have ", told[0])
    assert told[0].endswith("(over a hundred times beyond): check the unit")


def test_the_ends_are_those_on_file(tmp_path: Path) -> None:
    """Of tiers: 25 GB/s over RoCE, 900 GB/s of NVLink; a hundredth and a hundred times of them are within."""
    place = ("tiers", 1, "bandwidth", "value")
    for value, beyond in (("250 MB/s", 0), ("249 MB/s", 1), ("90 TB/s", 0), ("91 TB/s", 1), ("196 TB/s", 1)):
        (tmp_path / value[:3]).mkdir(exist_ok=True)
        path = changed(tmp_path / value[:3], data_of(SYSTEM), (place, value), ends=f"{value[:3]}.yaml")
        told = remarks(catalog.load_path, "systems", path)
        assert len(told) == beyond, told
        assert all("files on hand have 25 GB/s to 900 GB/s" in one for one in told)


def test_a_file_on_file_may_be_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """As package managers lay files out: it is on file all the same, and held against nothing."""
    kept = tmp_path / "kept"
    kept.mkdir()
    here = tmp_path / "data"
    for folder in folders.FOLDERS.values():
        (here / folder).mkdir(parents=True, exist_ok=True)
    for name in folders.names("chips"):
        file = folders.root() / "hardware" / "chips" / f"{name}.yaml"
        (kept / file.name).write_bytes(file.read_bytes())
        (here / "hardware" / "chips" / file.name).symlink_to(kept / file.name)
    monkeypatch.setattr(folders, "root", lambda: here)
    clear = (catalog.load, catalog.load_path, catalog.held_on_file)
    try:
        for one in clear:
            one.cache_clear()
        with caplog.at_level(logging.INFO):
            assert catalog.load_chip("ascend-910c-752").spec.name == "ascend-910c-752"
        assert "check the unit" not in caplog.text
    finally:
        monkeypatch.undo()
        for one in clear:
            one.cache_clear()


def test_zeros_and_files_on_file_are_not_remarked_on(tmp_path: Path) -> None:
    place = ("overhead", "sampling", "value")
    assert remarks(catalog.load_path, "stacks", changed(tmp_path, unranged(data_of(STACK)), (place, "0 s"))) == []
    for kind in folders.FOLDERS:
        for name in folders.names(kind):
            path = folders.root() / folders.FOLDERS[kind] / f"{name}.yaml"
            assert remarks(catalog.load_path.__wrapped__, kind, path) == []
            (tmp_path / f"{name}.yaml").write_bytes(path.read_bytes())
            assert remarks(catalog.load_path, kind, tmp_path / f"{name}.yaml") == [], name


def test_a_key_is_told_once_and_few_keys_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [("tiers", at, "latency", "value") for at in range(4)]
    path = changed(tmp_path, data_of(SYSTEM), *((place, "19 s") for place in places))
    assert len(remarks(catalog.load_path, "systems", path)) == 1
    kernels = unranged(data_of(KERNELS))
    beyond = {"us": "900 s", "B": "1 PB", "MB": "1 PB", "KiB": "1 PB", "MiB": "1 PB"}
    edits = [
        ((name, key, "value"), beyond[unit])
        for name, held in kernels.items()
        if isinstance(held, dict)
        for key, one in held.items()
        if isinstance(one, dict) and (unit := str(one.get("value")).partition(" ")[2]) in beyond
    ]
    (tmp_path / "many").mkdir()
    path = changed(tmp_path / "many", kernels, *edits)
    assert magnitudes.MOST_TOLD == 20
    monkeypatch.setattr(magnitudes, "MOST_TOLD", 5)
    assert len(remarks(catalog.load_path, "kernels", path)) == 5


def test_runs_and_plans_are_held_to_deployments_on_file(tmp_path: Path, plan: dict[str, Any]) -> None:
    told = remarks(runs.load_run, asked(tmp_path, ASKED.replace("50ms", "50000 s")))
    assert len(told) == 1
    assert "r.yaml:6: tpot: found 50000 s; files on hand have 0.00738 s to " in told[0]
    assert remarks(runs.load_run, asked(tmp_path, ASKED)) == []
    path = changed(tmp_path, plan, (("predicted", "tpot"), 60.5), ends=".json")
    told = remarks(plans.read_plan, path)
    assert len(told) == 1
    assert "predicted.tpot: found 60.5; files on hand have " in told[0]


def test_numbers_in_lists_and_mappings_are_looked_at(tmp_path: Path, plan: dict[str, Any]) -> None:
    """In files of every kind: what has no field of its own has no unit."""
    bench = "evidence/microbenchmarks/cm384-table7.yaml"
    rows = data_of(bench)["rows"]
    at = next(at for at, cell in enumerate(rows[0]) if isinstance(cell, (int, float)))
    path = changed(tmp_path, data_of(bench), (("rows", 0, at), 1e30))
    assert "rows.0." in remarks(catalog.load_path, "microbenchmarks", path)[0]
    held = {"conditions.acceptance.*": magnitudes.Held(1.0, 1.0)}
    path = changed(tmp_path, plan, (("conditions", "acceptance"), [0.7, 1e-9]), ends=".json")
    reader = Reader(path, recorded=unsourced)
    data = reader.read()
    told = remarks(magnitudes.remark_on, reader, data, plans.read_plan(path), held)
    assert "conditions.acceptance.1: found 1e-09; files on hand have 1 (over a hundred times beyond)" in told[-1]


def test_a_magnitude_is_a_note_and_changes_nothing_else(moe: Command, tmp_path: Path) -> None:
    held, odd = (
        changed(tmp_path, data_of(SYSTEM), (("tiers", 0, "latency", "value"), value), ends=ends)
        for value, ends in (("0.9 ms", ".yaml"), ("1.1 ms", "2.yaml"))
    )
    words = ("--isl", "4096", "--osl", "1024", "--dies", "64", "--batch", "8", "--format", "json")
    code, plain, told = moe("explain", "deepseek-v3", "--on", str(held), *words)
    assert told == ""
    again, out, told = moe("explain", "deepseek-v3", "--on", str(odd), *words)
    assert (again, json.loads(out).keys()) == (code, json.loads(plain).keys())
    assert told.count("note: ") == 1
    assert told.startswith(f"note: {odd}:")
    quiet = changed(tmp_path, data_of(SYSTEM), (("tiers", 0, "latency", "value"), "1.1 ms"), ends="3.yaml")
    assert moe("explain", "deepseek-v3", "--on", str(quiet), *words, "--quiet") == (code, out, "")


# --- tables of measurements -----------------------------------------------------------------------

HEADER = "operator,rows,inner,columns,time_us\n"
EXPERTS = "operator,tokens,hidden_size,intermediate_size,experts,topk,local_experts,time_us\n"
GOOD = "matmul_int8,8,7168,2048,21.5\n"


@pytest.mark.parametrize(
    "text",
    [
        *(
            f"{HEADER}matmul_int8,{size},7168,2048,5\n"
            for size in ("1e20", "1e200", "1e400", "nan", "inf", "0", "-1", "")
        ),
        *(
            f"{HEADER}matmul_int8,8,7168,2048,{time}\n"
            for time in ("1e20", "1e400", "nan", "inf", "0", "-1", "", "5 us", "\u00b2")
        ),
        f"{EXPERTS}experts_bf16,1,7168,2048,1e20,8,16,5\n",
        f"{EXPERTS}experts_bf16,1e-300,7168,2048,256,1e-300,1e-300,5\n",
        f"{HEADER}matmul_bf16,{'9' * 140_000},7168,2048,5\n",
        f'{HEADER}matmul_bf16,"{"9" * 140_000},7168,2048,5\n',
        f"{'c' * 140_000},{HEADER}{GOOD}",
        f"operator,rows,rows,inner,columns,time_us\n{GOOD}",
        f"operator,rows,inner,columns,time_us,time_us\n{GOOD}",
        f"operator,operator,rows,inner,columns,time_us\n{GOOD}",
        f"{HEADER}{GOOD}\0",
        f"\0{HEADER}{GOOD}",
        HEADER,
        f"{HEADER}matmul_int8\n",
        f"{HEADER}no_operator,1,1,1,1\n",
        f"{HEADER.replace('rows', 'rwos')}{GOOD}",
        "operator\n",
        "op_name,latency\nmoe,1\n",
        "op_name,latency,num_experts,moe_ep_size\nmoe,1,256,0\n",
        "OP Type,Task Duration(us),Input Shapes,Input Data Types,Output Shapes\n",
        'Average Duration(us),Input Shapes,Input Data Types,Output Shapes\n5,"0,0;0,0",INT8;INT8,"0,0"\n',
        "a,b\n" * 100_000,
        "," * 100_000,
        "\u202e,\x1b[2J,=1+1\n1,2,3\n",
    ],
)
def test_a_table_beyond_reason_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    told = refused(read_measurements, path, Context(ep=64), lines=11, says="t.csv:")
    assert "nan to nan" not in told


def test_a_table_of_many_faults_shows_few(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(HEADER + "matmul_int8,-1,7168,2048,5\n" * 50_000)
    refused(read_measurements, path, Context(), lines=11, says="faults more")


def test_a_table_that_is_good_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"\xef\xbb\xbf" + (HEADER + GOOD).replace("\n", "\r\n").encode())
    assert len(read_measurements(path, Context())[0]) == 1


# --- arguments ------------------------------------------------------------------------------------

SOLVE = ("solve", "deepseek-v3", "--on", "cloudmatrix384", "--isl", "1024", "--osl", "512", "--tpot", "50ms", "--cards")
EXPLAIN = ("explain", "deepseek-v3", "--on", "cloudmatrix384", "--isl", "4096", "--osl", "512")
NO_COUNTS = (
    "\u00b2",
    "\u0663x",
    "0",
    "-1",
    "1e3",
    "1.5",
    "nan",
    "inf",
    "",
    " ",
    "9" * 400,
    "9" * 5000,
    "0x10",
    str(2**63),
)


@pytest.mark.parametrize("count", NO_COUNTS)
def test_what_is_no_count_is_refused(moe: Command, count: str) -> None:
    is_one_clear_line(moe(*SOLVE, count))
    is_one_clear_line(moe(*EXPLAIN, "--batch", "8", "--dies", count))
    is_one_clear_line(moe(*EXPLAIN, "--dies", "64", "--batch", count))
    is_one_clear_line(moe(*EXPLAIN, "--dies", "64", "--batch", "8", "--tp", count))


@pytest.mark.parametrize("count", [count for count in NO_COUNTS if count != "1e3"])
def test_what_is_no_goal_is_refused(moe: Command, count: str) -> None:
    is_one_clear_line(moe("what-if", "seed-cm384-decode", "--reach", f"batch={count},tpot=30ms"))
    is_one_clear_line(moe("what-if", "seed-cm384-decode", "--reach", f"tpot={count}ms") if count == "nan" else
                      moe("what-if", "seed-cm384-decode", "--reach", f"tpot={count}"))  # fmt: skip


@pytest.mark.parametrize(
    "value", ["2e9", str(10**12), str(2**63), "[1]", "{}", "null", '"a"', "", "NaN", "Infinity", "-1", "1e400"]
)
@pytest.mark.parametrize("key", ["redundant", "draft", "cp", "dies", "kv_resident", "overlap", "fused_experts"])
def test_what_is_no_key_of_a_layout_is_refused(moe: Command, key: str, value: str) -> None:
    said = moe(*EXPLAIN, "--dies", "64", "--batch", "8", "--set", f"{key}={value}")
    code, _, error = said
    assert code in (2, 4), error
    assert "internal" not in error
    assert all(line.startswith(("error: ", "note: ")) for line in error.splitlines()), error


@pytest.mark.parametrize(
    "time", ["-5ms", "0ms", "nan s", "1e400ms", "1e-400s", "50 Gb/s", "", "ms", "\u00b2ms", LONG, "\x1b[2J"]
)
def test_what_is_no_time_is_refused(moe: Command, time: str) -> None:
    words = [*SOLVE, "16"]
    words[words.index("50ms")] = time
    is_one_clear_line(moe(*words))


@pytest.mark.parametrize(
    "name",
    (
        *(LONG, f"{LONG}.yaml", f"{LONG}.json", " ", "a\nerror: b", "\x1b[2J", "\u202e", "/", ".", "..", "/dev/zero"),
        *("/dev/null", "\udcff", "\u00e9"),
    ),
)
def test_what_is_no_name_is_one_line_of_every_command(moe: Command, name: str) -> None:
    for words in (
        ("show", name),
        ("gains", name),
        ("validate", name),
        ("what-if", name),
        ("compare", name, name),
        ("explain", name),
        ("explain", "--evidence", name),
        ("report", name),
        ("solve", name, *SOLVE[2:], "16"),
        (*SOLVE, "16", "--on", name),
        (*SOLVE, "16", "--stack", name),
        (*SOLVE, "16", "--with", name),
        ("calibrate", name, "--on", "cloudmatrix384"),
    ):
        is_one_clear_line(moe(*words))


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        *(((*SOLVE, "16", option, ""), "a name on file, or a path ending in .yaml") for option in (
            "--stack", "--on", "--kernels", "--prefill-on", "--prefill-stack",
        )),
        ((*SOLVE, "16", "--stack="), "see 'moeplan list stacks'"),
        (("solve", "", *SOLVE[2:], "16"), "see 'moeplan list models'"),
        ((*EXPLAIN, "--dies", "64", "--stack", ""), "a name on file"),
        (("explain", "--evidence", ""), "see 'moeplan list evidence'"),
        (("explain", "--evidence="), "see 'moeplan list evidence'"),
        (("explain", "--evidence", "seed-cm384-decode", "--compare", ""), "a name on file"),
        (("explain", ""), "see 'moeplan list models'"),
        (("validate", ""), "names on file, or YAML files"),
        (("validate", "seed-cm384-decode", ""), "names on file, or YAML files"),
        (("validate", "seed-cm384-decode", "--stack", ""), "a name on file"),
        (("calibrate", "", "--on", "cloudmatrix384"), "CSV tables"),
        (("accuracy", ""), "CSV tables"),
        (("accuracy", "--measurements", ""), "folder"),
        (("show", ""), "name of a model"),
        (("show", "schema", ""), "plan or run"),
        (("compare", "", "seed-cm384-decode"), "plan file"),
        (("compare", "seed-cm384-decode", ""), "plan file"),
        (("report", ""), "plan file"),
        (("what-if", ""), "plan file"),
        (("gains", ""), "techniques"),
        (("init", ""), "where to write it"),
    ],
)  # fmt: skip
def test_an_empty_name_is_one_line_that_says_what_is_allowed(
    moe: Command, words: tuple[str, ...], allowed: str
) -> None:
    said = moe(*words)
    is_one_clear_line(said, 2)
    assert re.search(r": '' is empty; allowed: .*" + re.escape(allowed), said[2]), said[2]


def test_draft_acceptances_are_few(moe: Command, tmp_path: Path) -> None:
    asked(tmp_path, ASKED + "acceptance: [" + "1.0, " * 5000 + "]\n")
    is_one_clear_line(moe("solve", "r.yaml"))
    is_one_clear_line(moe(*SOLVE, "16", "--acceptance", ",".join(["1.0"] * 5000)))
    is_one_clear_line(moe(*SOLVE, "16", "--acceptance", "nan,nan"))


OUTS = (
    *(
        "",
        ".",
        "..",
        "/",
        "/dev/null",
        "/dev/full",
        "./",
        "folder",
        "folder.json/",
        "none/p.json",
        "p.txt",
        "p",
        "p.json/",
    ),
    *("taken.json", f"{LONG}.json", "a\0.json", "circle.json", "fifo.json", "taken.json/p.json", "\udcff\x1b.txt"),
)


@pytest.mark.parametrize("word", OUTS)
def test_where_nothing_may_be_written(moe: Command, tmp_path: Path, word: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "taken.json").write_text("precious")
    (tmp_path / "circle.json").symlink_to("circle.json")
    os.mkfifo(tmp_path / "fifo.json")
    before = listed(tmp_path)
    start = time.perf_counter()
    said = moe(*SOLVE, "16", "-q", "-o", word)
    assert time.perf_counter() - start < 1, "refused only after the search"
    is_one_clear_line(said, 2)
    assert said[1] == "", "an answer before the refusal"
    assert listed(tmp_path) == before
    assert (tmp_path / "taken.json").read_text() == "precious"


@pytest.mark.parametrize(
    "word", [f"{LONG}.yaml", "", ".", "/dev/null", "none/r.yaml", "r.txt", "taken.yaml", "folder", "circle.yaml"]
)
def test_where_no_run_may_be_written(moe: Command, tmp_path: Path, word: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "taken.yaml").write_text("precious")
    (tmp_path / "circle.yaml").symlink_to("circle.yaml")
    is_one_clear_line(moe("init", "--yes", word), 2)
    assert (tmp_path / "taken.yaml").read_text() == "precious"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes all")
def test_a_folder_without_rights_is_refused_before_the_search(moe: Command, tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(mode=0o500)
    is_one_clear_line(moe(*SOLVE, "16", "-q", "-o", "shut/p.json"), 2)


def test_a_folder_that_takes_no_files_is_one_line() -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        writing.write_whole(Path("/proc/p.json"), "x")


# --- text -----------------------------------------------------------------------------------------

ACTING = "a\x1b[2Jb\rc\u202ed\u2028e\u0085f\x9bg\ufeffh\x07i\x7fj"


def acts(text: str) -> list[str]:
    """Return the signs of a text that do more than stand there, line ends apart."""
    return [sign for sign in text if sign not in "\n\t" and printable(sign) != sign]


def _document(cell: Any, title: str = "t") -> Document:
    columns = (Column("key", "key"), Column("value", "value", "s"))
    table = Table(title=title, columns=columns, rows=({"key": cell, "value": -1.5},), notes=(title,))
    return Document(schema="moeplan.test/1", title=title, facts={"a": cell}, tables=(table,), notes=(title,))


@pytest.mark.parametrize("format_", sorted(RENDERERS))
def test_no_cell_acts_on_a_terminal(format_: str) -> None:
    shown = RENDERERS[format_](_document(f"{ACTING}\nerror: forged"), 100)
    assert acts(shown) == []
    assert not any(line.lstrip().startswith("error: forged") for line in shown.splitlines())


@pytest.mark.parametrize("format_", ["table", "json", "csv", "markdown"])
def test_no_title_acts_on_a_terminal(format_: str) -> None:
    shown = RENDERERS[format_](_document("cell", f"{ACTING}\nerror: forged"), 100)
    assert acts(shown) == []
    assert not any(line.lstrip().startswith("error: forged") for line in shown.splitlines())


@pytest.mark.parametrize(
    "cell",
    [
        "=1+1",
        "+1+A1",
        "-1|x",
        "+cmd|' /C calc'!A0",
        "-2+3+cmd|' /C calc'!A0",
        "@x",
        "=cmd|' /C calc'!A0",
        "\t=1",
        "\r=1",
        "--",
        "-a",
    ],
)
def test_no_cell_of_csv_is_a_formula(cell: str) -> None:
    rows = list(csv.reader(io.StringIO(RENDERERS["csv"](_document(cell), 100))))
    assert not rows[2][0].startswith(("=", "+", "-", "@", "\t", "\r"))
    assert rows[2][1] == "-1.5"  # a number stays one


def test_a_dash_is_no_formula() -> None:
    rows = list(csv.reader(io.StringIO(RENDERERS["csv"](_document("-"), 100))))
    assert rows[2][0] == "-"


@pytest.mark.parametrize("format_", ["table", "json", "csv", "markdown"])
@pytest.mark.parametrize("where", ["name", "title", "model", "key", "path"])
def test_text_of_a_file_never_reaches_the_terminal_raw(moe: Command, tmp_path: Path, where: str, format_: str) -> None:
    quoted = json.dumps(f"{ACTING}\nerror: forged")
    head = {"name": f"name: {quoted}\n", "title": f"name: s\ntitle: {quoted}\n", "model": f"name: s\nchip: {quoted}\n",
            "key": f"name: s\n{quoted}: 1\n", "path": "name: s\n"}[where]  # fmt: skip
    name = "s.yaml" if where != "path" else "\x1b[2J\nerror: forged.yaml"
    (tmp_path / name).write_text(head + "title: t\n" * (where != "title"))
    code, out, error = moe("show", f"./{name}", "--format", format_)
    assert code in (2, 4), error
    assert acts(out + error) == []
    assert all(line.startswith(("error: ", "note: ")) for line in error.splitlines())
    assert "error: forged" not in [line[:13] for line in error.splitlines()]


# --- the safe writer ------------------------------------------------------------------------------

WRITERS, WRITES = 4, 50


def whole(text: str) -> bool:
    return bool(text) and text == text[0] * (20_000 + 5000 * (ord(text[0]) - ord("a")))


def test_many_writers_of_one_path_leave_the_text_of_one(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    writers = []
    for k in range(WRITERS):
        if (pid := os.fork()) == 0:
            refusals = 0
            for _ in range(WRITES):
                try:
                    writing.write_whole(path, chr(97 + k) * (20_000 + 5000 * k))
                except BaseException:
                    refusals += 1
            os._exit(refusals)
        writers.append(pid)
    reads, torn, left, refusals = 0, 0, set(writers), 0
    while left:
        if path.exists():
            reads, torn = reads + 1, torn + (not whole(path.read_text()))
        for pid in list(left):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                left.discard(pid)
                refusals += os.waitstatus_to_exitcode(status)
    assert reads > 10
    assert (torn, refusals) == (0, 0)
    assert whole(path.read_text())
    assert listed(tmp_path) == ["plan.json"]


def test_of_many_writers_that_may_not_replace_one_is_first(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    to = [writing.target(str(path), option="-o", suffixes=[".json"], force=False) for _ in range(3)]
    to[0].write("first")
    for late in to[1:]:
        refused(late.write, "late", says="is there already")
    assert path.read_text() == "first"
    assert listed(tmp_path) == ["plan.json"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "plan.json").write_text("old")
    link, chain = tmp_path / "link.json", tmp_path / "chain.json"
    link.symlink_to("there/plan.json")
    chain.symlink_to(link)
    dangling = tmp_path / "dangling.json"
    dangling.symlink_to("there/new.json")
    for one, text in ((link, "one"), (chain, "two"), (dangling, "three")):
        writing.write_whole(one, text)
        assert one.is_symlink()
        assert one.read_text() == text
    assert listed(tmp_path / "there") == ["new.json", "plan.json"]
    assert (tmp_path / "there" / "plan.json").read_text() == "two"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o444, 0o755])
def test_a_file_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "plan.json"
    path.write_text("old")
    path.chmod(mode)
    writing.write_whole(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_new_file_has_the_mode_of_the_users_mask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        writing.write_whole(tmp_path / "plan.json", "new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "plan.json").stat().st_mode) == 0o640


@pytest.mark.parametrize("at", ["fsync", "replace"])
def test_a_writer_that_is_killed_leaves_the_old_file(tmp_path: Path, at: str) -> None:
    path, other = tmp_path / "plan.json", tmp_path / "other.json"
    path.write_text("old")
    if (pid := os.fork()) == 0:
        setattr(os if at == "fsync" else Path, at, lambda *_: os.kill(os.getpid(), 9))
        writing.write_whole(path, "new")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9
    assert path.read_text() == "old"
    assert len(listed(tmp_path)) == 2
    writing.write_whole(other, "another file's")  # sweeps its own alone
    assert len(listed(tmp_path)) == 3
    writing.write_whole(path, "newer")
    assert path.read_text() == "newer"
    assert listed(tmp_path) == ["other.json", "plan.json"]


def test_what_another_writer_or_machine_has_at_work_is_not_swept(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    alive = tmp_path / f".plan.json.{writing._here()}-{os.getppid()}-{'0' * 12}{writing.PART}"
    elsewhere = tmp_path / f".plan.json.ffffffff-99999999-{'0' * 12}{writing.PART}"
    own = tmp_path / ".plan.json.notes.part"
    for one in (alive, elsewhere, own):
        one.write_text("x")
    writing.write_whole(path, "new")
    assert all(one.exists() for one in (alive, elsewhere, own))


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "plan.json"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    refused(writing.write_whole, path, "new", says="No space left on device")
    assert path.read_text() == "old"
    assert listed(tmp_path) == ["plan.json"]
