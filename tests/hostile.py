"""Input as a stranger may write it: files on file, runs, plans, tables and argument lists, changed at random.

``READERS`` names all that reads input; ``made`` makes an input of one from any source of random numbers, so that tests
and long campaigns share all of it; ``taken`` gives it to the reader.
"""

import csv
import io
import json
import os
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import typer
import yaml

from perfmodel.cli.app import program
from perfmodel.errors import DataError, MoeplanError
from perfmodel.files import catalog, folders, plans, results, runs
from perfmodel.files.document import LOADER
from perfmodel.files.measurements import read_measurements
from perfmodel.files.workloads import load_workload
from perfmodel.files.writing import yaml_text
from perfmodel.measured.reading import Context
from perfmodel.planning.plan_file import load_plan, plan_of
from perfmodel.planning.planner import planned
from perfmodel.specs.run import RunSpec
from perfmodel.specs.workload import lognormal
from perfmodel.specs.workload_summary import summary_of

#: values as they stand in YAML, of every type and of none
VALUES = (
    *("", '""', '" "', "null", "~", "true", "no", "yes", "0", "-0.0", "-1", "1", "2", "3", "7", "1.5", "0.5", "1e-9"),
    *("1e15", "1e18", "1e100", "1e308", "1e-320", "1e400", ".inf", "-.inf", ".nan", "9007199254740993", "1_0", "007"),
    *("9" * 5000, "1" + "0" * 400, "-" + "9" * 400, "0x_", "0b_", "0o8", "0x1F", "1:59:59", "1" + ":59" * 400 + ".5"),
    *("2001-01-01", "2001-99-99", "2001-01-01 25:00:00", "=", "<<", "!foo 1", "!foo [1]", "!!int x", "!!float x"),
    *(
        "!!bool x",
        "!!null x",
        "!!int _",
        '!!float ""',
        "!!timestamp x",
        '!!binary "é"',
        "!!set {a}",
        "!!omap [a]",
        "!!str 5",
        "! 5",
    ),
    *("!!python/object/apply:os.getcwd []", "&a 1", "*a", "|", ">", "@", "`", "%", "-", "?", ":", "{", "]"),
    *('"a\\0.yaml"', '"\\0"', "/dev/zero", "/dev/stdin", "/", ".", "./", "..", "../../x.yaml", "./none.yaml", "~/x"),
    *("n" * 300, '"' + "n" * 300 + '.yaml"', '"' + "x" * 100_000 + '"', '"\\e[2J"', '"\\u202eabc"', '"a\\nerror: b"'),
    *('"\\r"', '"\\u2028"', '"\\ufeff"', '"\\ud800"', '"=1+1"', '"@x"', '"-"', "²", "٣", "１２", '"5 GB/s"', '"5 s"'),
    *('"1e400 s"', '"-5 ms"', '"5 Gb/s"', '"nan s"', '"100 %"', "5 GiB", "[]", "{}", "[[]]", "[{}]", "[null]", "[1]"),
    *("[1, 2]", "{value: 1}", "{value: 1, source: a}", "{value: {value: 1, source: a}, source: a}", "{a: 1, a: 2}"),
    *("{[a]: 1}", "{? {a: 1} : 2}", "{<<: {a: 1}}", "{1: 2, true: 3, null: 4}", "[" * 30 + "]" * 30),
    *("[" * 80 + "]" * 80, "{a: " * 80 + "1" + "}" * 80, "[" + "1.0, " * 2000 + "]", "[a, a]", "[-1, .nan]"),
)
KEYS = ("", "''", "null", "1", "true", "<<", "=", "? [a]", "value", "source", "name", "kind", '"a\\nb"', '"\\e"', "a.b")
SCALES = (0, -1, 0.5, 0.5, 0.9, 1.1, 2, 2, 3, 4, 10, 1e-12, 1e-6, 1e-3, 1e3, 1e6, 1e9, 1e12, 1e15, 1e300)
MOST_REPEATED, MOST_LETTERS = 300, 100_000  # of a value that is repeated, of a table that still grows
_NUMBER = re.compile(r"[+-]?\d+\.?\d*(?:[eE][+-]?\d+)?")


@dataclass(slots=True)
class Raw:
    """A value that stands in the file as it is."""

    text: str


class Mapping(list[list[Any]]):
    """Pairs of keys and values; a key may stand there twice."""


def tree_of(value: Any) -> Any:
    """Return plain data with mappings as pairs."""
    if isinstance(value, dict):
        return Mapping([key, tree_of(inner)] for key, inner in value.items())
    return [tree_of(inner) for inner in value] if isinstance(value, list) else value


def written(value: Any) -> str:
    """Return a tree as YAML, a pair or an item a line."""
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, Mapping):
        return "{" + ",\n".join(f"{written(key)}: {written(inner)}" for key, inner in value) + "}"
    if isinstance(value, list):
        return "[" + ",\n".join(map(written, value)) + "]"
    return json.dumps(value, ensure_ascii=False, default=str)


def _places(value: Any) -> Iterator[tuple[Any, int]]:
    """Yield all mappings and lists below a value, each with the number of each of its items."""
    if isinstance(value, list):
        for at, item in enumerate(value):
            yield value, at
            yield from _places(item[1] if isinstance(value, Mapping) else item)


def _value(above: Any, at: int) -> Any:
    return above[at][1] if isinstance(above, Mapping) else above[at]


def _set(above: Any, at: int, value: Any) -> None:
    if isinstance(above, Mapping):
        above[at][1] = value
    else:
        above[at] = value


def _scaled(value: Any, by: float) -> Any:
    """Return a number, or a text that begins with one, times a factor."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return int(value * by) if abs(value * by) < 1e300 else 10**300
    if isinstance(value, float):
        return value * by
    found = _NUMBER.match(value)
    return value if found is None else f"{float(found[0]) * by:g}{value[found.end() :]}"


def mutated(tree: Any, draw: random.Random) -> Any:
    """Return a tree with one change of its structure or a value; the tree is used up."""
    places = list(_places(tree))
    if not places:
        return Raw(draw.choice(VALUES))
    above, at = places[draw.randrange(len(places))]
    mapping = isinstance(above, Mapping)
    match draw.randrange(12):
        case 0 | 1:
            _set(above, at, Raw(draw.choice(VALUES)))
        case 2 | 3 | 4:
            _scale(tree, draw)
        case 5:
            del above[at]
        case 6:
            above.insert(at, list(above[at]) if mapping else above[at])
        case 7 if mapping:
            key = str(above[at][0])
            keys = [Raw(one) for one in KEYS] + [key[:-1], key + "s", key.upper(), *_keys(places)]
            above[at][0] = draw.choice(keys)
        case 8:
            value = _value(above, at)
            nested = [[value], Mapping([["value", value]]), Mapping([["value", value], ["source", "a"]])]
            many = 300 if len(written(value)) < MOST_REPEATED else 2
            _set(above, at, draw.choice([*nested, Mapping([["a", value]]), [value] * many]))
        case 9:
            other = places[draw.randrange(len(places))]
            first, second = _value(above, at), _value(*other)
            _set(above, at, Raw(written(second)))  # as text: a tree may not hold itself
            _set(*other, Raw(written(first)))
        case 10:
            other = places[draw.randrange(len(places))]
            _set(above, at, Raw(written(_value(*other))))
        case _:
            value = _value(above, at)
            if isinstance(value, Mapping) and value:
                _set(above, at, value[draw.randrange(len(value))][1])
            elif isinstance(value, list) and value:
                _set(above, at, value[draw.randrange(len(value))])
            else:
                _set(above, at, draw.choice([[], Mapping(), None, True, ""]))
    return tree


def _scale(tree: Any, draw: random.Random) -> None:
    """Change a number of a tree, or a text that begins with one."""
    leaves = [(above, at) for above, at in _places(tree) if _is_number(_value(above, at))]
    if leaves:
        above, at = leaves[draw.randrange(len(leaves))]
        _set(above, at, _scaled(_value(above, at), draw.choice(SCALES)))


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float)) or (isinstance(value, str) and _NUMBER.match(value) is not None)


def _keys(places: Sequence[tuple[Any, int]]) -> list[Any]:
    return [above[at][0] for above, at in places if isinstance(above, Mapping)][:20]


BYTES = (
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xa8",
    b"\x1b[2J",
    b"\r",
    b"\t",
    b"\n---\n",
    b"\n...\n",
    b"%",
    b"&a ",
)
BYTES += (
    b"*a",
    b"{",
    b"[",
    b'"',
    b"'",
    b": ",
    b"- ",
    b"? ",
    b"#",
    b"|\n",
    b"!!int ",
    b"<<: ",
    b"\xed\xa0\x80",
    b",",
    b"\n",
)


def torn(text: bytes, draw: random.Random) -> bytes:
    """Return a text with one change of its bytes."""
    at = draw.randrange(len(text) + 1)
    end = min(len(text), at + draw.choice((1, 1, 3, 20, 300)))
    match draw.randrange(6):
        case 0:
            return text[:at] + text[end:]
        case 1:
            return text[:end] + text[at:end] + text[end:]
        case 2:
            return text[:at]
        case 3:
            return text[:at] + bytes([draw.randrange(256)]) + text[at + 1 :]
        case _:
            return text[:at] + draw.choice(BYTES) + text[at:]


def _document(seeds: Callable[[], Sequence[str]], draw: random.Random) -> bytes:
    """Return one of some files with a few changes, in half of all cases of numbers alone."""
    text = draw.choice(seeds())
    if draw.randrange(2):
        tree = tree_of(yaml.load(text, Loader=LOADER))
        for _ in range(draw.choice((1, 1, 2, 3))):
            _scale(tree, draw)
        return written(tree).encode()
    if not draw.randrange(5):
        found = text.encode()
        for _ in range(draw.choice((1, 1, 2, 8))):
            found = torn(found, draw)
        return found
    tree = tree_of(yaml.load(text, Loader=LOADER))
    for _ in range(draw.choice((1, 1, 1, 2, 2, 4, 12))):
        tree = mutated(tree, draw)
    return written(tree).encode("utf-8", "surrogatepass")


# --- what is changed ------------------------------------------------------------------------------

RUN: dict[str, Any] = {
    "model": "deepseek-v3",
    "on": "cloudmatrix384",
    "cards": 16,
    "isl": 1024,
    "osl": 512,
    "tpot": "50ms",
}
MORE = {
    "kv": "int8",
    "with": ["eplb=static"],
    "ttft": "3 s",
    "acceptance": [0.8],
    "price": 2,
    "confidence": 0.9,
    "top": 3,
}


@lru_cache
def files_of(kind: str) -> tuple[str, ...]:
    """Return the texts of all files of a kind."""
    folder = folders.root() / folders.FOLDERS[kind]
    return tuple((folder / f"{name}.yaml").read_text(encoding="utf-8") for name in folders.names(kind))


@lru_cache
def run_files() -> tuple[str, ...]:
    """Return run-specs, a short one and one of many keys."""
    return json.dumps(RUN), json.dumps(RUN | MORE), json.dumps(RUN | {"prefill_on": "atlas-800i-a3", "rate": "5 req/s"})


@lru_cache
def plan_files() -> tuple[str, ...]:
    """Return plans, of pools apart and of mixed instances."""
    found = [plan_of(planned(RunSpec.model_validate(RUN | {"serving": way}))) for way in ("disaggregated", "mixed")]
    return tuple(plan.model_dump_json(indent=2, by_alias=True, exclude_none=True) for plan in found if plan is not None)


@lru_cache
def config_files() -> tuple[str, ...]:
    """Return configs of models as hubs hold them."""
    folder = Path(__file__).parent / "data" / "model_configs"
    return tuple(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.json")))


def changed_config(draw: random.Random) -> bytes:
    """Return a config with a few changes."""
    return _document(config_files, draw)


_SHAPES, _PRODUCT = "Input Shapes|Input Data Types|Output Shapes", "8,7168;7168,2048|DT_BF16;DT_BF16|8,2048"
_EXPERTS, _DATABASE = "tokens|hidden_size|intermediate_size|experts|topk|local_experts", "Average Duration(us)"
_SIZES = "Num Tokens|Hidden Size|Intermediate Size|Num Experts|TopK|Local Experts"
#: a table of each form and operator, a cell behind each stroke
TABLES: tuple[list[list[str]], ...] = tuple(
    [row.split("|") for row in rows]
    for rows in (
        ("operator|rows|inner|columns|time_us", *(f"matmul_int8|{2**n}|7168|2048|21.5" for n in range(6))),
        (f"operator|{_EXPERTS}|time_us", "experts_bf16|8|7168|2048|256|8|16|50"),
        ("operator|sequences|context|heads|queries|time_us", "attention_decode|8|4096|128|2|50"),
        ("operator|sequences|isl|heads|time_us", "attention_prefill|2|4096|128|900"),
        ("operator|dies|bytes|time_us", "all_reduce|8|65536|30", "all_gather|8|65536|30"),
        ("operator|dies|tokens|topk|message_bytes|time_us", "dispatch|64|96|8|7168|90"),
        (
            f"OP Type|Task Duration(us)|{_SHAPES}",
            f"MatMulV2|21.5|{_PRODUCT}",
            "GroupedMatmul|80|64,7168;8,7168,4096|INT8;INT8|64,4096",
            "MoeDistributeDispatch|90|96,7168;96,8|DT_BF16;INT32|768,7168",
            "BatchMatMulV2|30|128,8,128;128,128,512|DT_BF16;DT_BF16|128,8,512",
        ),
        (
            f"Type|Duration(us)|{_SHAPES}",
            f"MatMulV2|21.5|{_PRODUCT}",
            "MoeDistributeCombine|90|768,7168;96,8|DT_BF16;INT32|96,7168",
        ),
        (f"{_DATABASE}|{_SHAPES}", f"21.5|{_PRODUCT}"),
        (f"{_DATABASE}|{_SHAPES}|{_SIZES}", "50||DT_BF16;DT_BF16||8|7168|2048|256|8|16"),
        (
            "op_name|latency|batch_size|isl|step|num_heads",
            "mla_generation|0.05|8|4096|1|128",
            "mla_context|0.9|2|4096|0|128",
        ),
        ("op_name|latency|num_tokens|num_heads", "mla_gen_pre|0.05|8|128", "mla_gen_post|0.05|8|128"),
        (
            "op_name|latency|num_tokens|hidden_size|inter_size|topk|num_experts|moe_ep_size",
            "moe|0.5|8|7168|2048|8|256|16",
        ),
        (
            "op_name|latency|num_gpus|message_size|kernel_source",
            "all_reduce|0.03|8|65536|HCCL",
            "alltoall|0.03|8|65536|HCCL",
        ),
    )
)
CELLS = (
    *("", " ", "0", "-1", "1", "2", "0.001", "1e-300", "1e6", "1e11", "1e12", "1e13", "1e20", "1e200", "1e400", "nan"),
    *("inf", "-inf", "0x10", "1_0", "²", "٣", "9" * 5000, "9" * 140_000, '"', '""', "'", "a,b", "a;b", "a\nb", "a\rb"),
    *("\x1b[2J", "\0", "\u202e", "\u2028", "\ufeff", "=1+1", "N/A", ";", ",", '"1,2;3"', '"-1,2;2,3"', '"0,0;0,0"'),
    *('"10000000000,10000000000;10000000000,1"', '"1,7168;7168,1;1"', "1;2;3", "DT_BF16", "INT8;INT8", "DT_BF16;INT8"),
    *("matmul_bf16", "experts_int8", "attention_decode", "dispatch", "moe", "mla_context", "MatMulV2", "GroupedMatmul"),
)


def _table(draw: random.Random) -> bytes:
    """Return a table with a few changes."""
    rows = [list(row) for row in draw.choice(TABLES)]
    for _ in range(draw.choice((1, 1, 2, 2, 4, 12))):
        if (
            sum(len(cell) + 1 for row in rows for cell in row) > MOST_LETTERS
        ):  # what is doubled again and again has no end
            break
        at = draw.randrange(len(rows))
        row = rows[at]
        place = draw.randrange(len(row)) if row else 0
        match draw.randrange(12):
            case 0 | 1 | 2 | 3 if row:
                row[place] = draw.choice(CELLS)
            case 4:
                rows.insert(at, list(row))
            case 5 if len(rows) > 1:
                del rows[at]
            case 6 if row:
                del row[place]
            case 7:
                row.insert(place, draw.choice(CELLS))
            case 8:
                for one in rows:
                    one[place : place + 1] = one[place : place + 1] * draw.choice((0, 2, 40))
            case 9:
                other = draw.randrange(len(rows))
                rows[at], rows[other] = rows[other], rows[at]
            case 10 if rows[0]:
                rows[0][draw.randrange(len(rows[0]))] = draw.choice([name for table in TABLES for name in table[0]])
            case _:
                rows += [list(row)] * draw.choice((1, 50, 200))
    out = io.StringIO()
    if draw.randrange(4):
        csv.writer(out, lineterminator=draw.choice(("\n", "\r\n"))).writerows(rows)
    else:
        out.write("\n".join(",".join(row) for row in rows))
    text = out.getvalue().encode("utf-8", "surrogatepass")
    return torn(text, draw) if not draw.randrange(4) else text


_LAYOUT = "--isl 4096 --osl 512 --dies 64 --batch 8".split()
_SOLVE = ("solve", "deepseek-v3", "--on", "cloudmatrix384", "--cards", "16", *_LAYOUT[:4])
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("explain", "deepseek-v3", "--on", "cloudmatrix384", *_LAYOUT),
    ("explain", "deepseek-v3", "--on", "h200", *_LAYOUT, "--tp", "4", "--redundant", "8", "--set", "cp=1"),
    ("explain", "--evidence", "seed-cm384-decode", "--set", "batch=8", "--with", "mtp=1", "--format", "json"),
    (*_SOLVE, "--tpot", "50ms", "-q", "-o", "p.json"),
    (*_SOLVE, "--tpot", "50ms", "--ttft", "3s"),
    ("what-if", "seed-cm384-decode", "--only", "mtp", "--no-hardware", "--tpot", "60ms"),
    ("what-if", "seed-cm384-decode", "--only", "mtp", "--no-hardware", "--reach", "tpot=30ms,batch=96"),
    ("validate", "seed-cm384-decode", "--format", "csv"),
    ("show", "cloudmatrix384"), ("show", "deepseek-v3", "--format", "markdown"), ("list", "systems"), ("gains", "mtp"),
    ("calibrate", "t.csv", "--on", "cloudmatrix384", "--model", "deepseek-v3", "-q"),
    ("compare", "seed-cm384-decode", "seed-a2-decode-808"), ("init", "--yes", "r.yaml"),
)  # fmt: skip
WORDS = (
    *(
        "",
        " ",
        "-",
        "--",
        ".",
        "..",
        "/",
        "/dev/null",
        "/dev/zero",
        "./none.yaml",
        "none.json",
        "n" * 300,
        "n" * 300 + ".yaml",
    ),
    *(
        "0",
        "-1",
        "1",
        "2",
        "3",
        "²",
        "٣",
        "1e3",
        "1.5",
        "1_0",
        "nan",
        "inf",
        str(2**31),
        str(2**63),
        "9" * 400,
        "9" * 5000,
    ),
    *(
        "50",
        "50ms",
        "-5ms",
        "0ms",
        "1e400ms",
        "1e-300s",
        "nan s",
        "1h",
        "\x1b[2J",
        "a\nerror: b",
        "\u202e",
        "é",
        "\udcff",
    ),
    *(
        "=",
        "=1",
        "a=",
        "a=b",
        "tp=2",
        "tp=0",
        "tp=" + "9" * 400,
        "batch=²",
        "dies=[1]",
        "dies={}",
        "dies=null",
        "mtp=9",
    ),
    *(
        "tpot=30ms",
        "batch=1e3",
        "tpot=,",
        ",",
        ",,",
        "0.9,0.36",
        "1,1,1",
        "nan,nan",
        "[",
        "{",
        '"',
        "true",
        "null",
        "all",
    ),
    *(
        "--help",
        "--version",
        "-q",
        "-v",
        "--format",
        "json",
        "--lang",
        "zh",
        "--with",
        "--set",
        "--on",
        "--stack",
        "ideal",
    ),
    *(
        "--kernels",
        "--batch",
        "--tp",
        "--cp",
        "--draft",
        "--acceptance",
        "--phase",
        "decode",
        "prefill",
        "--only",
        "--force",
    ),
    *(
        "--ep",
        "--messages",
        "--cold",
        "--pairs",
        "--top",
        "--confidence",
        "--objective",
        "--serving",
        "any",
        "--rate",
        "--kv",
    ),
    *("cloudmatrix384", "h200", "deepseek-v3", "qwen3-235b-a22b", "seed-prefill-16x", "--evidence", "-o", "--formula"),
)


def _arguments(draw: random.Random) -> bytes:
    """Return the words of a command with a few changes, as JSON."""
    words = list(draw.choice(COMMANDS))
    for _ in range(draw.choice((1, 1, 1, 2, 3, 6))):
        at = draw.randrange(len(words)) if words else 0
        match draw.randrange(7):
            case 0 | 1 | 2 if words:
                words[at] = draw.choice(WORDS)
            case 3:
                words.insert(at, draw.choice(WORDS))
            case 4 if words:
                del words[at]
            case 5:
                words[at:at] = words[at : at + 2]
            case _:
                other = draw.randrange(len(words)) if words else 0
                words[at : at + 1], words[other : other + 1] = words[other : other + 1], words[at : at + 1]
    return json.dumps([word.replace("\0", "") for word in words]).encode()


# --- who reads it ---------------------------------------------------------------------------------


def command(words: Sequence[str]) -> str:
    """Run a command in this process and return what it showed; what a user can cause is as ``MoeplanError``."""
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        try:
            program().main(list(words), prog_name="moeplan", standalone_mode=False)
        except typer.TyperException as error:
            raise MoeplanError(error.format_message()) from None
        except (typer.Abort, typer.Exit):
            pass
    return out.getvalue()


#: a file of each form that requests come in
WORKLOADS = (
    '{"timestamp": 0, "input_length": 900, "output_length": 5, "hash_ids": [1, 2]}\n'
    '{"timestamp": 3000, "input_length": 600, "output_length": 7, "hash_ids": [1, 3]}\n',
    '{"chat_id": 1, "timestamp": 0.5, "input_length": 33, "output_length": 5, "turn": 1, "hash_ids": [1, 2, 3]}\n' * 3,
    '{"metadata": {"request_start_ns": 5}, "metrics": {"input_sequence_length": {"value": 9}, '
    '"output_sequence_length": {"value": 8}}}\n' * 2,
    '{"input_lens": [5, 6, 7], "output_lens": [1, 0, 3], "start_times": [1.5, 2.5, 3.5]}',
    "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.99,396,109\n",
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,A,472,18,490,B\n45,A,87,0,87,B\n",
    "isl,osl,weight\n4096,1024,0.5\n100,20,3\n",
    yaml_text(summary_of(lognormal(900, 1.0, 90, 1.0, requests=40)).model_dump(mode="json", exclude_none=True)),
)


def _workload(draw: random.Random) -> bytes:
    """Return a file of requests with a few changes."""
    text = draw.choice(WORKLOADS)
    for _ in range(draw.choice((1, 1, 2, 2, 4))):
        lines = text.split("\n")
        at = draw.randrange(len(lines))
        match draw.randrange(8):
            case 0:
                lines.insert(at, lines[at])
            case 1:
                del lines[at]
            case 2:
                lines.insert(at, draw.choice(draw.choice(WORKLOADS).split("\n")))
            case 3:
                lines[at] = lines[at][: draw.randrange(len(lines[at]) + 1)]
            case _:
                numbers = list(_NUMBER.finditer(lines[at]))
                if numbers:
                    one = draw.choice(numbers)
                    value = draw.choice(draw.choice((CELLS, VALUES)))
                    lines[at] = lines[at][: one.start()] + value + lines[at][one.end() :]
        text = "\n".join(lines)
    held = text.encode("utf-8", "replace")
    return held[: draw.randrange(len(held) + 1)] + b"\xff\x00"[draw.randrange(2) :] if draw.random() < 0.05 else held


def _run_words(path: Path) -> None:
    words = json.loads(path.read_text())
    with chdir(path.parent):
        command(words)


def _kind(kind: str, path: Path) -> None:
    catalog.load_path.__wrapped__(kind, path)  # past its memory: a path is read once


def _context() -> Context:
    return Context(attention=catalog.load_model("deepseek-v3").spec.attention, ep=64)


def _used(kind: str, words: Sequence[str], path: Path) -> None:
    """Read a file and, where it is taken, work with it; the command line alone tells what is refused then."""
    _kind(kind, path)
    command([word.replace("FILE", str(path)) for word in words])


@dataclass(frozen=True, slots=True)
class Reader:
    """Something that reads input: how an input is made, how its file ends, and who reads it."""

    make: Callable[[random.Random], bytes]
    ends: str
    read: Callable[[Path], Any]


def _on_file(kind: str) -> Callable[[random.Random], bytes]:
    return partial(_document, partial(files_of, kind))


_EXPLAIN = ("explain", "deepseek-v3", "--on", "cloudmatrix384", *_LAYOUT)
_USED = {
    "models": ("explain", "FILE", *_EXPLAIN[2:]),
    "systems": (*_EXPLAIN[:3], "FILE", *_LAYOUT),
    "stacks": (*_EXPLAIN, "--stack", "FILE"),
    "kernels": (*_EXPLAIN, "--kernels", "FILE"),
    "evidence": ("validate", "FILE"),
}
READERS: dict[str, Reader] = {
    **{kind: Reader(_on_file(kind), ".yaml", partial(_kind, kind)) for kind in folders.FOLDERS},
    "configs": Reader(changed_config, ".json", partial(_kind, "models")),
    "runs": Reader(partial(_document, run_files), ".yaml", runs.load_run),
    "plans": Reader(partial(_document, plan_files), ".json", plans.read_plan),
    "results": Reader(_on_file("deployments"), ".yaml", lambda path: results.load_results([str(path)])),
    "tables": Reader(_table, ".csv", lambda path: read_measurements(path, _context())),
    "workloads": Reader(_workload, ".any", load_workload),
    "workloads, bad lines left out": Reader(_workload, ".any", partial(load_workload, skip_bad=True)),
    "arguments": Reader(_arguments, ".words", _run_words),
    "plans in use": Reader(partial(_document, plan_files), ".json", lambda path: load_plan(str(path))),
    **{f"{kind} in use": Reader(_on_file(kind), ".yaml", partial(_used, kind, words)) for kind, words in _USED.items()},
}


class Fault(Exception):
    """A refusal that is none: an error of the user's that is not told as one."""


def taken(reader: str, path: Path) -> bool:
    """Give a file to a reader; return whether it was taken.  What is neither taken nor refused well is raised."""
    try:
        READERS[reader].read(path)
    except MoeplanError as error:
        told = str(error)
        if error.exit_code not in (2, 4) or not told:
            raise Fault(f"exit {error.exit_code}: {told[:200]}") from error
        lines = told.split("\n")
        if isinstance(error, DataError):
            known = (str(path.parent), str(folders.root()), "run-spec", "./", "/")
            strange = [line for line in lines if not line.startswith(known)]
        else:
            strange = lines[1:] if reader != "arguments" else []
        if strange and not reader.endswith("in use"):
            raise Fault(f"a line that no file begins: {strange[0][:200]!r}") from error
        if len(told) > 20_000 and not reader.endswith("in use"):
            raise Fault(f"{len(told)} letters of faults: {told[:200]!r}") from error
        return False
    return True


def made(reader: str, draw: random.Random) -> bytes:
    """Return an input of a reader."""
    return READERS[reader].make(draw)


def put(folder: Path, reader: str, number: int, text: bytes) -> Path:
    """Write an input under a name that was not read before."""
    path = folder / f"{reader.replace(' ', '-')}-{os.getpid()}-{number}{READERS[reader].ends}"
    path.write_bytes(text)
    return path
