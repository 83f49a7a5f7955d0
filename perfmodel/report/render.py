"""Document -> text in one of four formats, the numbers the same in each."""

import csv
import io
import json
import math
import re
from collections.abc import Callable
from typing import Any

from perfmodel.errors import UNPRINTABLE, printable
from perfmodel.report.cell_text import cell_text, units_by_row
from perfmodel.report.language import spoken
from perfmodel.report.table import Column, Document, Say, Table, in_english
from perfmodel.report.text_table import to_table


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


def _told(table: Table) -> list[Column]:
    """Columns of a page: units stand in the cells, and what has words of the same heading is told by them."""
    words = {column.title for column in table.columns if not column.for_programs}
    return [
        column
        for column in _shown(table)
        if (column.key != "unit" or not units_by_row(table)) and not (column.for_programs and column.title in words)
    ]


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
    answer = () if document.answer is None else document.answer.rows
    content = {
        "schema": document.schema,
        "title": document.title,
        "answer": [{"what": row["what"], "answer": row["answer"]} for row in answer],
        "facts": document.facts,
        "tables": tables,
        "notes": list(document.notes),
    }
    text = json.dumps(_finite(content), indent=2, ensure_ascii=False)
    return UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)  # JSON leaves some of them as they are


#: a text that a spreadsheet may work out: it begins as formulas do, and is no plain amount in words like "+1 ms"
_FORMULA = re.compile(r"[=@\t\r]|[+-](?!\d[\w\s.,:;%/-]*$)")


def _cell(value: Any) -> Any:
    """Return a cell of csv: a text that a spreadsheet would work out begins with an apostrophe, so that it does not."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text != "-" and _FORMULA.match(value) else text


def to_csv(document: Document, width: int) -> str:
    """Return one CSV block per table, SI numbers, notes as comments; of one table alone without any comment."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    alone = len(document.tables) == 1 and not document.notes and document.answer is None
    for table in () if document.answer is None else (document.answer,):
        out.writelines(f"# {printable(': '.join(filter(None, row.values())))}\n" for row in table.rows)
        out.write("\n")
    for table in document.tables:
        columns = [column for column in _shown(table) if not column.in_words]
        if not alone:
            out.write(f"# {printable(table.title)}\n")
        writer.writerow([f"{c.key} [{unit}]" if (unit := _exported(c.unit)) else c.key for c in columns])
        for row in table.rows:
            writer.writerow(["" if (v := _raw(row, c)) is None else _cell(v) for c in columns])
        out.write("\n")
    for note in document.notes:
        out.write(f"# {printable(note)}\n")
    return out.getvalue().rstrip("\n")


def to_markdown(document: Document, width: int, say: Say = in_english) -> str:
    """Return pipe tables with formatted numbers, no drawings."""
    document = spoken(document, say)
    lines = [f"# {printable(document.title)}", ""]
    if document.answer is not None:
        for row in document.answer.rows:
            about = f"**{printable(row['what'])}**: " if row["what"] else ""
            lines.append(f"- {about}{printable(row['answer'])}")
        lines.append("")
    for table in document.tables:
        lines += [f"## {printable(table.title)}", ""]
        columns = _told(table)
        lines.append("| " + " | ".join(c.title or say("what", "#what") for c in columns) + " |")
        lines.append("|" + "|".join("---:" if c.unit and c.unit != "row" else "---" for c in columns) + "|")
        for row in table.rows:
            texts = [cell_text(row, c).replace("|", "\\|") for c in columns]
            lines.append("| " + " | ".join(texts) + " |")
        lines += ["", *[f"*{printable(note)}*" for note in table.notes], ""]
    lines += [f"- {printable(note)}" for note in document.notes]
    return "\n".join(lines)


RENDERERS: dict[str, Callable[[Document, int], str]] = {
    "table": to_table,
    "json": to_json,
    "csv": to_csv,
    "markdown": to_markdown,
}
