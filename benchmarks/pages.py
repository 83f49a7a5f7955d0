"""Tables of a page that commands keep: rows are replaced by their first cell, so that a long run may come in parts."""

from collections.abc import Iterable, Sequence
from pathlib import Path


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """Return a table of markdown; the first ``words`` columns hold words and the rest numbers."""
    rule = ["---" if n < words else "---:" for n in range(len(columns))]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in (columns, rule, *rows)
    )


def check(page: Path, name: str) -> None:
    """Raise ``SystemExit`` where a page has no place for a table: better known before a long run."""
    if page.read_text(encoding="utf-8").count(f"<!-- {name} -->\n") != 2:
        raise SystemExit(f"{page}: allowed: a page with two lines <!-- {name} --> around the table")


def keep(
    page: Path, name: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1, whole: bool = False
) -> None:
    """Replace rows of the table between the two comments ``<!-- name -->`` of a page; ``whole`` replaces all of them.

    Raises ``ValueError`` where the page does not have the two comments.
    """
    mark = f"<!-- {name} -->\n"
    before, old, after = page.read_text(encoding="utf-8").split(mark)
    held = {}
    if not whole:
        lines = old.strip().splitlines()[2:]
        held = {cells[0]: cells for cells in ([c.strip() for c in line.strip("|").split(" | ")] for line in lines)}
    held |= {row[0] if not whole else str(n): list(row) for n, row in enumerate(rows)}
    page.write_text(f"{before}{mark}{table(columns, held.values(), words)}\n{mark}{after}", encoding="utf-8")
