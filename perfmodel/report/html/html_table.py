"""Tables of the page: columns, the text of a cell, and its number for programs."""

from collections.abc import Iterator
from typing import Any

from perfmodel.report.cell_text import cell_text, units_by_row
from perfmodel.report.table import Column, Table


def _columns(table: Table) -> list[Column]:
    by_row = units_by_row(table)
    shown = [c for c in table.columns if c.unit != "bar" and not (by_row and c.key == "unit")]
    return [c for c in shown if any(row.get(c.key) is not None for row in table.rows)]


def head(table: Table) -> list[tuple[str, bool]]:
    """Return the titles of a table's columns, and whether they hold numbers."""
    return [(column.title, column.unit is not None) for column in _columns(table)]


def rows(table: Table) -> Iterator[list[tuple[str, Any, bool]]]:
    """Yield each row as text, raw SI number and whether it is a number."""
    for row in table.rows:
        yield [_cell(row, column) for column in _columns(table)]


def _cell(row: dict[str, Any], column: Column) -> tuple[str, Any, bool]:
    return cell_text(row, column), raw(row.get(column.key)), column.unit is not None


def raw(value: Any) -> str | None:
    """Return a number with all its digits, for programs; none for anything else."""
    if value is None or isinstance(value, (str, bool)):
        return None
    return repr(float(value))
