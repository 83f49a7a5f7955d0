"""The text of a cell of a table, as people read it."""

from typing import Any

from perfmodel.errors import printable
from perfmodel.report.quantity import format_quantity
from perfmodel.report.table import Column, Table


def cell_text(row: dict[str, Any], column: Column) -> str:
    """Return a cell for people: its unit stands in it, where each row names it too."""
    return printable(format_quantity(row.get(column.key), row.get("unit") if column.unit == "row" else column.unit))


def units_by_row(table: Table) -> bool:
    """Return whether each row names the unit of its cells."""
    return any(column.unit == "row" for column in table.columns)
