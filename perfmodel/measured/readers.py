"""CSV files of measured operators, in the forms that exist, told apart by their columns."""

import csv
from collections.abc import Sequence
from pathlib import Path

from perfmodel.errors import DataError, UsageError, did_you_mean, printable, short
from perfmodel.measured.databases import read_database
from perfmodel.measured.own_tables import read_own
from perfmodel.measured.perf_tables import read_perf
from perfmodel.measured.profiles import profile_reader
from perfmodel.measured.reading import Context, Reader, Reading
from perfmodel.measured.shape_columns import SHAPES
from perfmodel.measured.shapes import OPERATORS, Measurement

SHOWN_FAULTS = 10
_FORMS: tuple[tuple[str, tuple[str, ...], Reader], ...] = (
    ("an op_summary", ("OP Type", "Task Duration(us)", *SHAPES), profile_reader("OP Type", "Task Duration(us)")),
    ("a kernel_details", ("Type", "Duration(us)", *SHAPES), profile_reader("Type", "Duration(us)")),
    ("an operator database", ("Average Duration(us)", *SHAPES), read_database),
    ("a *_perf table", ("op_name", "latency"), read_perf),
)


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


def read_rows(
    where: Path, columns: Sequence[str], rows: Sequence[Sequence[object]], context: Context
) -> list[Measurement]:
    """Return the measurements of rows given in our own form, as :func:`measurements_in` does for a file."""
    lines = [",".join(str(cell) for cell in row) for row in (columns, *rows)]
    return measurements_in(where, "\n".join(lines), context)[0]


def measurements_in(path: Path, text: str, context: Context) -> tuple[list[Measurement], list[str]]:
    """Return the measurements of a table, and remarks on rows left out; ``path`` is what faults call it.

    Raises ``DataError`` with the faults found.
    """
    rows = csv.DictReader(text.splitlines())
    try:
        return _measurements(path, rows, context)
    except csv.Error as error:  # a cell that is too long, say
        raise DataError(f"{path}:{rows.line_num + 1}: not CSV: {error}; allowed: rows of short cells") from None


def _measurements(path: Path, rows: "csv.DictReader[str]", context: Context) -> tuple[list[Measurement], list[str]]:
    header = [name.strip() for name in rows.fieldnames or []]
    if not header:
        raise DataError(f"{path}:1: the file is empty; allowed: a header and one row per measured call")
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        words = short(printable(", ".join(twice)))
        raise DataError(f"{path}:1: column {words} stands there twice; allowed: once; remove one")
    rows.fieldnames = header
    reading = Reading(path, context)
    reader = _form(header, path)
    found = [one for one in reader(reading, rows, header) if one is not None]
    if reading.faults:
        shown = [short(printable(fault)) for fault in reading.faults[:SHOWN_FAULTS]]
        more = len(reading.faults) - len(shown)
        raise DataError("\n".join([*shown, *([f"{path}: {more} faults more"] if more else [])]))
    if not found:
        why = (
            "; ".join(f"{count} rows: {text}" for text, count in reading.left_out.items()) or "no rows below the header"
        )
        why = short(printable(why))
        raise DataError(f"{path}:1: no measured operator; {why}; allowed: at least one row of a known operator")
    return found, [f"{path.name}: left out {count} rows: {text}" for text, count in reading.left_out.items()]


def _form(header: list[str], path: Path) -> Reader:
    have = set(header)
    if "operator" in have:
        return read_own
    for _, columns, reader in _FORMS:
        if set(columns) <= have:
            return reader
    title, columns, _ = max(_FORMS, key=lambda form: len(set(form[1]) & have) / len(form[1]))
    if len(set(columns) & have) >= len(columns) / 2:
        absent = ", ".join(column for column in columns if column not in have)
        raise DataError(f"{path}:1: column {absent} is missing; required of {title}; add it")
    wanted = ["operator", "OP Type", "Type", "Average Duration(us)", "op_name"]
    near = [word for name in header for word in [did_you_mean(name, wanted)] if "mean" in word]
    found = short(printable(", ".join(header[:6])))
    raise DataError(
        f"{path}:1: columns {found}...; allowed: a table with 'operator' and 'time_us', an "
        f"op_summary, a kernel_details, an operator database or a *_perf table{near[0] if near else ''}"
    )
