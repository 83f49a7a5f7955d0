"""CSV files of measured operators, in the forms that exist: the one module that reads them.

- ours: one row per call with the columns of its ``operator`` (see ``docs/calibration.md``);
- msprof's ``op_summary_*.csv`` and torch_npu's ``kernel_details.csv``;
- operator databases with ``Average Duration(us)`` and ``*_perf.csv`` tables with ``latency`` in ms.
"""

import csv
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from perfmodel.errors import DataError, UsageError, did_you_mean
from perfmodel.ledger.feedforward import SCALE_SLOT_BYTES
from perfmodel.ledger.rows import BF16
from perfmodel.measured.shapes import OPERATORS, Attention, Measurement
from perfmodel.specs.model import MlaSpec

Row = Mapping[str, str]
LARGEST_FILE = 400_000_000
LARGEST_SIZE = 10**10
SHOWN_FAULTS = 10
MICRO, MILLI = 1e-6, 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a table does not say itself."""

    attention: Attention | None = None
    #: dies of the expert-parallel group of profiled dispatch and combine
    ep: int | None = None
    #: what ``message_size`` counts in ``*_perf.csv``; by default bytes where the file names its library
    messages: Literal["bytes", "elements"] | None = None
    #: operators taken, by default all, and sizes below which a row is left out
    only: tuple[str, ...] = ()
    at_least: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Reading:
    """Faults and left-out rows of one file, as they are found."""

    path: Path
    context: Context
    faults: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def number(self, row: Row, line: int, column: str) -> float:
        """Return a positive number, or note a fault and return NaN."""
        text = (row.get(column) or "").strip().strip('"').strip()
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value <= 0:
            self.faults.append(f"{self.path}:{line}: {column}: found {text!r}; allowed: a number above zero")
            return math.nan
        return value

    def build(self, operator: str, values: Mapping[str, float], line: int, time: float) -> Measurement | None:
        """Return the measurement of one row, or nothing where a value is missing."""
        known = OPERATORS[operator]
        if self.context.only and operator not in self.context.only:
            self.left_out[f"{operator} is not among those asked for"] += 1
            return None
        small = [name for name, least in self.context.at_least.items() if values.get(name, math.inf) < least]
        if small:
            self.left_out[f"{operator} below the least {' and '.join(small)} asked for"] += 1
            return None
        if any(math.isnan(value) for value in (*values.values(), time)):
            return None
        if known.attention and self.context.attention is None:
            fault = (
                f"{self.path}:{line}: operator: {operator} needs the sizes of a model's heads; "
                "allowed: rows of attention with a model; add --model NAME"
            )
            if not any("needs the sizes of a model" in one for one in self.faults):
                self.faults.append(fault)
            return None
        op, shape = known.build({**known.defaults, **values}, self.context.attention)
        return Measurement(op=op, shape=f"{operator} {shape}", time=time, where=f"{self.path}:{line}")


def check_context(context: Context, where: str) -> None:
    """Refuse operators and columns that no table has.

    Raises ``UsageError``.
    """
    columns = {column for operator in OPERATORS.values() for column in operator.columns}
    for word, allowed, what in (
        *((word, set(OPERATORS), "operator") for word in context.only),
        *((word, columns, "column") for word in context.at_least),
    ):
        if word not in allowed:
            raise UsageError(f"{where}: {what} {word!r} is unknown{did_you_mean(word, sorted(allowed))}")


def read(path: Path, context: Context) -> tuple[list[Measurement], list[str]]:
    """Return the measurements of a file and remarks on rows left out.

    Raises ``UsageError`` for a file that cannot be read, ``DataError`` with every fault of one that can.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise DataError(f"{path}:1: larger than {LARGEST_FILE / 1e6:.0f} MB; allowed: one profile; split it")
        text = path.read_bytes().decode("utf-8-sig")
        if "\0" in text:
            raise DataError(f"{path}:1: binary: holds a zero byte; allowed: UTF-8 CSV")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}:1: binary or not UTF-8 at byte {error.start}; allowed: UTF-8 CSV") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}; check the path") from None
    return _read_text(path, text, context)


def read_rows(
    where: Path, columns: Sequence[str], rows: Sequence[Sequence[object]], context: Context
) -> list[Measurement]:
    """Return the measurements of rows given in our own form, as :func:`read` does for a file."""
    lines = [",".join(str(cell) for cell in row) for row in (columns, *rows)]
    return _read_text(where, "\n".join(lines), context)[0]


def _read_text(path: Path, text: str, context: Context) -> tuple[list[Measurement], list[str]]:
    rows = csv.DictReader(text.splitlines())
    header = [name.strip() for name in rows.fieldnames or []]
    if not header:
        raise DataError(f"{path}:1: the file is empty; allowed: a header and one row per measured call")
    rows.fieldnames = header
    reading = _Reading(path, context)
    reader = _form(header, path)
    found = [one for one in reader(reading, rows, header) if one is not None]
    if reading.faults:
        shown = reading.faults[:SHOWN_FAULTS]
        more = len(reading.faults) - len(shown)
        raise DataError("\n".join([*shown, *([f"{path}: {more} faults more"] if more else [])]))
    if not found:
        why = (
            "; ".join(f"{count} rows: {text}" for text, count in reading.left_out.items()) or "no rows below the header"
        )
        raise DataError(f"{path}:1: no measured operator; {why}; allowed: at least one row of a known operator")
    return found, [f"{path.name}: left out {count} rows: {text}" for text, count in reading.left_out.items()]


Reader = Callable[[_Reading, "csv.DictReader[str]", list[str]], Iterator[Measurement | None]]


def _form(header: list[str], path: Path) -> Reader:
    have = set(header)
    if "operator" in have:
        return _ours
    for _, columns, reader in _FORMS:
        if set(columns) <= have:
            return reader
    title, columns, _ = max(_FORMS, key=lambda form: len(set(form[1]) & have) / len(form[1]))
    if len(set(columns) & have) >= len(columns) / 2:
        absent = ", ".join(column for column in columns if column not in have)
        raise DataError(f"{path}:1: column {absent} is missing; required of {title}; add it")
    wanted = ["operator", "OP Type", "Type", "Average Duration(us)", "op_name"]
    near = [word for name in header for word in [did_you_mean(name, wanted)] if "mean" in word]
    raise DataError(
        f"{path}:1: columns {', '.join(header[:6])}...; allowed: a table with 'operator' and 'time_us', an "
        f"op_summary, a kernel_details, an operator database or a *_perf table{near[0] if near else ''}"
    )


SHAPES = ("Input Shapes", "Input Data Types", "Output Shapes")


def _ours(reading: _Reading, rows: "csv.DictReader[str]", header: list[str]) -> Iterator[Measurement | None]:
    if "time_us" not in header:
        raise DataError(
            f"{reading.path}:1: column time_us is missing; allowed: times in microseconds under 'time_us'; add it"
        )
    known = {"operator", "time_us"} | {c for o in OPERATORS.values() for c in (*o.columns, *o.defaults)}
    for name in header:
        if name not in known:
            reading.faults.append(f"{reading.path}:1: {name}: unknown column{did_you_mean(name, sorted(known))}")
    for row in rows:
        line, word = rows.line_num, (row["operator"] or "").strip()
        if word not in OPERATORS:
            reading.faults.append(
                f"{reading.path}:{line}: operator: {word!r} is unknown{did_you_mean(word, sorted(OPERATORS))}"
            )
            continue
        operator = OPERATORS[word]
        absent = [c for c in operator.columns if c not in header]
        if absent:
            fault = f"{reading.path}:1: column {', '.join(absent)} is missing; required by {word}; add it"
            if fault not in reading.faults:
                reading.faults.append(fault)
            continue
        values = {c: reading.number(row, line, c) for c in operator.columns}
        values |= {c: reading.number(row, line, c) for c in operator.defaults if (row.get(c) or "").strip()}
        yield reading.build(word, values, line, MICRO * reading.number(row, line, "time_us"))


def _shapes(text: str | None) -> list[list[int]]:
    """Return shapes written like ``"1,7168;512,7168"``; empty places stay empty."""
    parts = (text or "").strip().strip('"').split(";")
    try:
        shapes = [[int(n) for n in part.strip().strip('"').split(",") if n.strip()] for part in parts]
    except ValueError:
        return []
    return [] if any(not 0 <= n <= LARGEST_SIZE for shape in shapes for n in shape) else shapes


def _product_of(row: Row) -> dict[str, float] | None:
    """Return rows, inner and columns of a product from its shapes, whatever the layout of the weight."""
    inputs, outputs = _shapes(row.get("Input Shapes")), _shapes(row.get("Output Shapes"))
    if len(inputs) < 2 or not outputs or len(outputs[0]) < 2 or not inputs[0]:
        return None
    rows = math.prod(outputs[0][:-1])
    columns = outputs[0][-1]
    inner = math.prod(inputs[0]) // rows if rows else 0
    if not rows or not columns or inner not in inputs[0]:
        return None
    if inner * columns != math.prod(inputs[1]):  # a padded or transposed weight that does not match
        return None
    return {"rows": rows, "inner": inner, "columns": columns}


def _grouped_of(row: Row) -> dict[str, float] | None:
    inputs, outputs = _shapes(row.get("Input Shapes")), _shapes(row.get("Output Shapes"))
    if len(inputs) < 2 or not outputs or len(inputs[0]) != 2 or len(inputs[1]) < 3 or len(outputs[0]) != 2:
        return None
    tokens, inner = inputs[0]
    columns, groups = outputs[0][1], inputs[1][0]
    if not tokens or math.prod(inputs[1]) != groups * inner * columns:
        return None
    return {"groups": groups, "rows": tokens / groups, "inner": inner, "columns": columns}


def _batched_of(row: Row) -> dict[str, float] | None:
    inputs = _shapes(row.get("Input Shapes"))
    if len(inputs) < 2 or len(inputs[0]) != 3 or len(inputs[1]) != 3:
        return None
    (groups, rows, inner), weight = inputs[0], inputs[1]
    if weight[0] != groups or inner not in weight[1:]:
        return None
    return {"groups": groups, "rows": rows, "inner": inner, "columns": math.prod(weight[1:]) / inner}


def _precision(row: Row) -> str | None:
    kinds = [part.strip().removeprefix("DT_") for part in (row.get("Input Data Types") or "").strip('"').split(";")]
    if len(kinds) < 2:
        return None
    if kinds[0] == kinds[1] == "INT8":
        return "int8"
    return "bf16" if {kinds[0], kinds[1]} <= {"BF16", "FLOAT16"} else None


UNREADABLE = "their shapes or data types are not of a plain product"
PAGED = "a paged cache does not show its context; give these in a table with 'operator'"
NO_EP = "their shapes do not show the expert-parallel group; add --ep DIES"


def _profile(kind_column: str, time_column: str) -> Reader:
    def read_profile(reading: _Reading, rows: "csv.DictReader[str]", header: list[str]) -> Iterator[Measurement | None]:
        for row in rows:
            kind = (row.get(kind_column) or "").strip()
            time_text = (row.get(time_column) or "").strip()
            if kind.startswith(("FusedInferAttention", "IncreFlashAttention", "PromptFlashAttention")):
                reading.left_out[f"{kind}: {PAGED}"] += 1
                continue
            if kind.startswith(("MoeDistributeDispatch", "MoeDistributeCombine")):
                yield from _profiled_exchange(reading, row, rows.line_num, kind, time_column)
                continue
            found = _profiled_product(row, kind)
            if found is None:
                if "matmul" in kind.lower():
                    reading.left_out[f"{kind}: {UNREADABLE}"] += 1
                else:
                    reading.left_out["operators without a class to fit"] += 1
                continue
            if time_text in ("N/A", "0", "0.0", ""):
                reading.left_out[f"{time_column} is empty, zero or N/A"] += 1
                continue
            operator, values = found
            yield reading.build(
                operator, values, rows.line_num, MICRO * reading.number(row, rows.line_num, time_column)
            )

    return read_profile


def _profiled_product(row: Row, kind: str) -> tuple[str, dict[str, float]] | None:
    lower = kind.lower().replace("_", "")
    precision = _precision(row)
    if precision is None:
        return None
    if "groupedmatmul" in lower:
        values, word = _grouped_of(row), f"grouped_matmul_{precision}"
    elif "batchmatmul" in lower and precision == "bf16" and "quant" not in lower:
        values, word = _batched_of(row), "batched_matmul_bf16"
    elif lower.startswith(("matmul", "quantbatchmatmul", "quantmatmul", "gemm")):
        values, word = _product_of(row), f"matmul_{precision}"
    else:
        return None
    return None if values is None else (word, values)


def _profiled_exchange(
    reading: _Reading, row: Row, line: int, kind: str, time_column: str
) -> Iterator[Measurement | None]:
    dispatch = "Dispatch" in kind
    inputs, outputs = _shapes(row.get("Input Shapes")), _shapes(row.get("Output Shapes"))
    if reading.context.ep is None:
        reading.left_out[f"{kind}: {NO_EP}"] += 1
        return
    states, choices = (inputs[0], inputs[1]) if dispatch and len(inputs) > 1 else (outputs[0] if outputs else [], [])
    if not dispatch and len(inputs) > 1:
        choices = inputs[1]
    if len(states) != 2 or len(choices) != 2:
        reading.left_out[f"{kind}: {UNREADABLE}"] += 1
        return
    quantised = dispatch and "INT8" in (row.get("Output Data Types") or "").split(";")[0]
    message = states[1] * (1 if quantised else BF16) + (SCALE_SLOT_BYTES if quantised else 0)
    values = {"dies": reading.context.ep, "tokens": states[0], "topk": choices[1], "message_bytes": message}
    word = "dispatch" if dispatch else "combine"
    yield reading.build(word, values, line, MICRO * reading.number(row, line, time_column))


def _database(reading: _Reading, rows: "csv.DictReader[str]", header: list[str]) -> Iterator[Measurement | None]:
    for row in rows:
        line, precision = rows.line_num, _precision(row)
        time = MICRO * reading.number(row, line, "Average Duration(us)")
        if "Num Experts" in header:
            columns = {
                "tokens": "Num Tokens",
                "hidden_size": "Hidden Size",
                "intermediate_size": "Intermediate Size",
                "experts": "Num Experts",
                "topk": "TopK",
                "local_experts": "Local Experts",
            }
            values = {ours: reading.number(row, line, theirs) for ours, theirs in columns.items()}
            yield reading.build(f"experts_{precision}", values, line, time) if precision else None
            continue
        product = _product_of(row)
        if product is None or precision is None:
            reading.left_out[UNREADABLE] += 1
            continue
        yield reading.build(f"matmul_{precision}", product, line, time)


def _perf(reading: _Reading, rows: "csv.DictReader[str]", header: list[str]) -> Iterator[Measurement | None]:
    elements = reading.context.messages == "elements" or (
        reading.context.messages is None and "kernel_source" not in header
    )
    for row in rows:
        line, name = rows.line_num, (row.get("op_name") or "").strip()
        time = MILLI * reading.number(row, line, "latency")
        found = _perf_row(reading, row, line, name, BF16 if elements else 1)
        if found is None:
            reading.left_out[f"op_name {name!r} has no class to fit"] += 1
            continue
        word, values = found
        yield reading.build(word, values, line, time)


def _perf_row(reading: _Reading, row: Row, line: int, name: str, element: int) -> tuple[str, dict[str, float]] | None:
    def number(column: str) -> float:
        return reading.number(row, line, column)

    attention = reading.context.attention
    match name:
        case "mla_generation":
            context = number("isl") + number("step")
            return "attention_decode", {
                "sequences": number("batch_size"),
                "context": context,
                "heads": number("num_heads"),
            }
        case "mla_context":
            return "attention_prefill", {
                "sequences": number("batch_size"),
                "isl": number("isl"),
                "heads": number("num_heads"),
            }
        case "mla_gen_pre" | "mla_gen_post":
            sizes = {"groups": number("num_heads"), "rows": number("num_tokens")}
            if not isinstance(attention, MlaSpec):
                fault = (
                    f"{reading.path}:{line}: op_name: {name} is of latent attention; allowed: with --model of such a"
                )
                reading.faults.append(f"{fault} model; add --model NAME")
                return "batched_matmul_bf16", {"groups": math.nan}
            inside, outside = attention.qk_nope_head_dim, attention.kv_lora_rank
            if name == "mla_gen_post":
                inside, outside = attention.kv_lora_rank, attention.v_head_dim
            return "batched_matmul_bf16", {**sizes, "inner": inside, "columns": outside}
        case "moe":
            experts, ranks = number("num_experts"), number("moe_ep_size")
            return "experts_bf16", {
                "tokens": number("num_tokens"),
                "hidden_size": number("hidden_size"),
                "intermediate_size": number("inter_size"),
                "experts": experts,
                "topk": number("topk"),
                "local_experts": experts / ranks,
            }
        case "all_gather" | "reduce_scatter" | "all_reduce" | "all_to_all" | "alltoall":
            word = "all_to_all" if name == "alltoall" else name
            return word, {"dies": number("num_gpus"), "bytes": element * number("message_size")}
        case _:
            return None


_FORMS: tuple[tuple[str, tuple[str, ...], Reader], ...] = (
    ("an op_summary", ("OP Type", "Task Duration(us)", *SHAPES), _profile("OP Type", "Task Duration(us)")),
    ("a kernel_details", ("Type", "Duration(us)", *SHAPES), _profile("Type", "Duration(us)")),
    ("an operator database", ("Average Duration(us)", *SHAPES), _database),
    ("a *_perf table", ("op_name", "latency"), _perf),
)
