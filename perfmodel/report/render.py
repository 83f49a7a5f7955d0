"""Document -> text in one of four formats, the numbers the same in each."""

import csv
import io
import json
import math
from collections.abc import Callable
from typing import Any

from perfmodel.report.quantity import format_quantity
from perfmodel.report.table import Column, Document, Table

CELL_PADDING = 3  # between columns of an aligned table


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _shown(table: Table) -> list[Column]:
    """Columns that hold numbers or words, not drawings."""
    return [column for column in table.columns if column.unit != "bar"]


def _exported(unit: str | None) -> str | None:
    """Return the unit of a raw number: shares are drawn in per cent but kept as fractions."""
    return {"%": "1", "row": None}.get(unit or "", unit)


def _raw(row: dict[str, Any], column: Column) -> Any:
    """Return a cell for programs: an SI number, or its unit."""
    value = row.get(column.key)
    return _exported(value) if column.key == "unit" else _finite(value)


def to_json(document: Document, width: int) -> str:
    """Return JSON: SI numbers, units named."""
    tables = [
        {
            "title": table.title,
            "columns": [{"key": c.key, "title": c.title, "unit": _exported(c.unit)} for c in _shown(table)],
            "rows": [{c.key: _raw(row, c) for c in _shown(table)} for row in table.rows],
            "notes": list(table.notes),
        }
        for table in document.tables
    ]
    content = {
        "schema": document.schema,
        "title": document.title,
        "facts": document.facts,
        "tables": tables,
        "notes": list(document.notes),
    }
    return json.dumps(_finite(content), indent=2, ensure_ascii=False)


def to_csv(document: Document, width: int) -> str:
    """Return one CSV block per table, SI numbers, notes as comments."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for table in document.tables:
        out.write(f"# {table.title}\n")
        writer.writerow([f"{c.key} [{unit}]" if (unit := _exported(c.unit)) else c.key for c in _shown(table)])
        for row in table.rows:
            writer.writerow(["" if (v := _raw(row, c)) is None else v for c in _shown(table)])
        out.write("\n")
    for note in document.notes:
        out.write(f"# {note}\n")
    return out.getvalue().rstrip("\n")


def to_markdown(document: Document, width: int) -> str:
    """Return pipe tables with formatted numbers."""
    lines = [f"# {document.title}", ""]
    for table in document.tables:
        lines += [f"## {table.title}", ""]
        columns = _drawn(table)
        lines.append("| " + " | ".join(c.title or "what" for c in columns) + " |")
        lines.append("|" + "|".join("---:" if c.unit and c.unit != "row" else "---" for c in columns) + "|")
        for row in table.rows:
            cells = [_cell(row, c).replace("|", "\\|") for c in columns]
            lines.append("| " + " | ".join(cells) + " |")
        lines += ["", *[f"*{note}*" for note in table.notes], ""]
    lines += [f"- {note}" for note in document.notes]
    return "\n".join(lines)


def _cell(row: dict[str, Any], column: Column) -> str:
    return format_quantity(row.get(column.key), row.get("unit") if column.unit == "row" else column.unit)


def _drawn(table: Table) -> list[Column]:
    """Columns for people: units stand in the cells."""
    by_row = any(column.unit == "row" for column in table.columns)
    return [column for column in table.columns if not (by_row and column.key == "unit")]


def _cells(table: Table, columns: list[Column]) -> list[list[str]]:
    return [[_cell(row, c) for c in columns] for row in table.rows]


def _fitting(table: Table, width: int) -> tuple[list[Column], list[Column]]:
    """Return the columns that fit the width, and those left out."""
    columns = [column for column in _drawn(table) if not column.group]
    shown, left_out = list(columns), []
    for column in sorted((c for c in columns if c.spare), key=lambda c: -c.spare):
        widths = [
            max([len(c.title), *(len(cells[i]) for cells in _cells(table, shown))]) + CELL_PADDING
            for i, c in enumerate(shown)
        ]
        if sum(widths) <= width:
            break
        shown.remove(column)
        left_out.append(column)
    return shown, left_out


def _grid(table: Table, columns: list[Column]) -> Any:
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, expand=False)
    for column in columns:
        right = column.unit and column.unit not in ("bar", "row")
        grid.add_column(Text(column.title), justify="right" if right else "left", overflow="fold")
    group = next((column for column in table.columns if column.group), None)
    last: object = None
    for row, cells in zip(table.rows, _cells(table, columns), strict=True):
        if group and row.get(group.key) != last:
            last = row.get(group.key)
            grid.add_section()
            grid.add_row(Text(f"[{last}]"))
        grid.add_row(*[Text(cell) for cell in cells])
    return grid


def to_table(document: Document, width: int) -> str:
    """Return aligned text that folds to the width."""
    from rich.console import Console
    from rich.text import Text

    out = io.StringIO()
    console = Console(file=out, width=width, color_system=None, highlight=False, legacy_windows=False)
    console.print(Text(document.title))
    for table in document.tables:
        if not table.rows:
            continue
        console.print()
        console.print(Text(table.title))
        columns, left_out = _fitting(table, width)
        console.print(_grid(table, columns))
        notes = list(table.notes)
        if left_out:
            notes.append(f"too narrow for {', '.join(c.title or c.key for c in left_out)}; --format csv has them")
        for note in notes:
            console.print(Text(f"  {note}"))
    if document.notes:
        console.print()
    for note in document.notes:
        console.print(Text(f"- {note}"), soft_wrap=note.startswith("explain "))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


RENDERERS: dict[str, Callable[[Document, int], str]] = {
    "table": to_table,
    "json": to_json,
    "csv": to_csv,
    "markdown": to_markdown,
}
