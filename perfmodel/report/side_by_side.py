"""Columns of two of one kind beside each other, and by which share they differ."""

from typing import Any

from perfmodel.report.table import Column


def side_columns(first: str, second: str, change: str) -> tuple[Column, ...]:
    """Return the columns of such a table, by what both are called."""
    return (
        Column("what", ""),
        Column("first", first, "row"),
        Column("second", second, "row"),
        Column("unit", "unit"),
        Column("change", change, "%"),
    )


def side_row(what: str, unit: str | None, first: Any, second: Any) -> dict[str, Any]:
    """Return one row; words, and what is not known or nothing on the first side, have no change."""
    known = unit is not None and first is not None and second is not None
    change = second / first - 1 if known and first else None
    return {"what": what, "unit": unit, "first": first, "second": second, "change": change}
