"""Tables on a terminal of a given width: columns that fit, wrapped cells, or blocks of lines."""

import io
import re
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from perfmodel.errors import printable
from perfmodel.report.cell_text import cell_text, units_by_row
from perfmodel.report.language import spoken
from perfmodel.report.table import Column, Document, Say, Table, in_english
from perfmodel.report.wrap import cells, longest, wrap

GAPS = (3, 2, 1)  # between columns of an aligned table; the narrower ones before the columns are given up
SCREEN = 45  # lines
COMMAND = "moeplan solve "  # a cell that begins so is a command to copy: it stays on one line, however long
_TRAILING = re.compile(r"(?: |\x1b\[[0-9;]*m)+$")


def _drawn(table: Table) -> list[Column]:
    """Columns for people: units stand in the cells."""
    return [c for c in table.columns if not (c.for_programs or (c.key == "unit" and units_by_row(table)))]


def _group(table: Table) -> Column | None:
    """Return the column that stands above its rows instead of beside them."""
    return next((column for column in table.columns if column.group), None)


def _cells(table: Table, columns: list[Column]) -> list[list[str]]:
    return [[cell_text(row, c) for c in columns] for row in table.rows]


def _lines(row: dict[str, Any], column: Column, text: str, width: int) -> list[str]:
    """Return the lines of a cell: words wrap, single numbers, bars and commands never do."""
    if not isinstance(row.get(column.key), str) or text.startswith(COMMAND):
        return [text]
    return wrap(text, width, hang=" " * (len(text) - len(text.lstrip(" "))))


def _needs(table: Table, columns: list[Column]) -> list[tuple[int, int]]:
    """Return the least and the full width of each column, in cells."""
    group = _group(table)
    found = []
    for i, (column, texts) in enumerate(zip(columns, zip(*_cells(table, columns), strict=True), strict=True)):
        least, full = longest(column.title), cells(column.title)
        for row, text in zip(table.rows, texts, strict=True):
            if text.startswith(COMMAND):
                continue
            least = max(least, longest(text) if isinstance(row.get(column.key), str) else cells(text))
            full = max(full, cells(text))
        if group and not i:
            least = max(least, *(longest(f"[{row.get(group.key)}]") for row in table.rows))
            full = max(full, *(cells(f"[{row.get(group.key)}]") for row in table.rows))
        found.append((least, full))
    return found


def _taken(widths: Sequence[int], gap: int = GAPS[0]) -> int:
    return sum(widths) + gap * (len(widths) - 1)


def _fitting(table: Table, width: int) -> tuple[list[Column], list[Column]]:
    """Return the columns that fit the width, and those left out: spare ones go before anything wraps."""
    shown = [column for column in _drawn(table) if not column.group]
    full = {column.key: need for column, (_, need) in zip(shown, _needs(table, shown), strict=True)}
    left_out = []
    for column in sorted((c for c in shown if c.spare), key=lambda c: -c.spare):
        if _taken([full[c.key] for c in shown]) <= width:
            break
        shown.remove(column)
        left_out.append(column)
    return shown, left_out


def _widths(needs: list[tuple[int, int]], width: int) -> tuple[list[int], int] | None:
    """Return the width of each column and the gap between them, or None where the columns do not fit.

    The widest columns are cut first, and none below its longest word.
    """
    for gap in GAPS:
        cap = max(full for _, full in needs)
        while cap:
            widths = [max(least, min(full, cap)) for least, full in needs]
            if _taken(widths, gap) <= width:
                return widths, gap
            cap -= 1
    return None


def _drawing(table: Table, columns: list[Column], width: int) -> list[Any]:
    """Return the rows as columns, or as blocks where columns do not fit or wrapping makes them the longer."""
    needs = _needs(table, columns)
    found = _widths(needs, width)
    if found is None:
        return _records(table, columns, width)
    widths, gap = found
    if any(taken < full for taken, (_, full) in zip(widths, needs, strict=True)):
        rows = [zip(columns, texts, widths, strict=True) for texts in _cells(table, columns)]
        lines = [[len(_lines(row, *cell)) for cell in cut] for row, cut in zip(table.rows, rows, strict=True)]
        if sum(map(max, lines)) > len(blocks := _records(table, columns, width)):
            return blocks
    return _grid(table, columns, widths, gap)


def _grid(table: Table, columns: list[Column], widths: list[int], gap: int) -> list[Any]:
    from rich.text import Text

    right = [column.unit not in (None, "", "bar", "row") for column in columns]

    def joined(texts: Sequence[str]) -> str:
        padded = []
        for text, width, to_right in zip(texts, widths, right, strict=True):
            space = " " * (width - cells(text))
            padded.append(space + text if to_right else text + space)
        return (" " * gap).join(padded)

    found: list[Any] = []
    if any(column.title for column in columns):
        titles = [wrap(column.title, width) for column, width in zip(columns, widths, strict=True)]
        height = max(map(len, titles))
        stacked = [[""] * (height - len(title)) + title for title in titles]  # the last lines stand on the rule
        found += [Text(joined(line), style="bold") for line in zip(*stacked, strict=True)]
        found.append(Text("─" * _taken(widths, gap)))
    group = _group(table)
    last: object = None
    for row, texts in zip(table.rows, _cells(table, columns), strict=True):
        if group and row.get(group.key) != last:
            if last is not None:
                found.append(Text())
            last = row.get(group.key)
            found += [Text(line) for line in wrap(f"[{last}]", widths[0])]
        lines = [_lines(row, *cell) for cell in zip(columns, texts, widths, strict=True)]
        found += [_marked(joined(line)) for line in zip_longest(*lines, fillvalue="")]
    return found


def _records(table: Table, columns: list[Column], width: int) -> list[Any]:
    """Return one block of lines per row, a line or more per cell: for a terminal too narrow for the columns."""
    from rich.text import Text

    group = _group(table)
    titles = [column.title for column in columns]
    indent = min(max(map(cells, titles)), max(width // 3, max(map(longest, titles)))) + 2
    last: object = None
    found = [Text("─" * width)]
    for row, texts in zip(table.rows, _cells(table, columns), strict=True):
        if group and row.get(group.key) != last:
            last = row.get(group.key)
            found += [Text(line) for line in wrap(f"[{last}]", width)]
        for column, text in zip(columns, texts, strict=True):
            if not text:
                continue
            tails = _lines(row, column, text, width - indent)
            for head, tail in zip_longest(wrap(column.title, indent - 2), tails, fillvalue=""):
                line = Text(head, style="bold")
                line.append_text(Text(" " * (indent - cells(head)), style="not bold"))
                line.append_text(_marked(tail, "not bold"))
                found.append(line)
        found.append(Text())
    return found[:-1]


def _marked(text: str, style: str = "") -> Any:
    """Return a text with its ticks green, its crosses red, and what is likely yellow."""
    from rich.text import Text

    marked = Text(text, style=style)
    marked.highlight_regex("✓", "green")
    marked.highlight_regex("✗", "red")
    marked.highlight_regex(r"(?<!\S)~(?!\S)", "yellow")
    return marked


def to_table(
    document: Document, width: int, coloured: bool = False, say: Say = in_english, kept: Sequence[str] = ()
) -> str:
    """Return aligned text that wraps at spaces to the width, on a very narrow terminal one block per row.

    The answer stands first, and again at the end of what is longer than a screen; ``kept`` names the sections that
    are not shown.  ``coloured`` adds bold headings and the colour of ticks and crosses, nothing else; ``say``
    translates.
    """
    from rich.console import Console
    from rich.text import Text

    out = io.StringIO()
    console = Console(
        file=out,
        width=10_000,  # lines are cut here, at words, and not by the console
        color_system="standard" if coloured else None,
        force_terminal=coloured,
        no_color=False,
        highlight=False,
        legacy_windows=False,
        _environ={},
    )

    def put(text: str, style: str = "", hang: str = "") -> None:
        for line in wrap(printable(text), width, hang):
            console.print(Text(line, style=style))

    def put_answer(answer: Table) -> None:
        for drawn in _drawing(answer, list(answer.columns), width):
            console.print(drawn)

    document = spoken(document, say)
    put(document.title, "bold")
    if document.answer is not None:
        console.print()
        put_answer(document.answer)
    for table in document.tables:
        if not table.rows:
            continue
        console.print()
        if table.title:
            put(table.title, "bold")
        for line in table.drawing(width, say) if table.drawing else ():
            console.print(Text(line))
        columns, left_out = _fitting(table, width) if not table.are_drawn else ([], [])
        for drawn in _drawing(table, columns, width) if columns else ():
            console.print(drawn)
        notes = list(table.notes)
        if named := [column for column in left_out if column.title]:
            listed = say(", ").join(column.title for column in named)
            notes.append(say("too narrow for {}; --format csv has them").format(listed))
        for note in notes:
            put(f"  {note}", hang="  ")
    if document.notes:
        console.print()
    for note in document.notes:
        if ": moeplan explain " in note or re.search(f"[:：] ?{COMMAND}", note):  # a command to copy stays on one line
            console.print(Text(f"- {printable(note)}"))
        else:
            put(f"- {note}", hang="  ")
    if kept:
        console.print()
        put(say("more: --show {}, or all").format(",".join(kept)))
    if document.answer is not None and out.getvalue().count("\n") > SCREEN:
        console.print()
        put(document.title, "bold")
        console.print()
        put_answer(document.answer)
    return "\n".join(
        _TRAILING.sub(lambda found: found[0].replace(" ", ""), line) for line in out.getvalue().splitlines()
    )
