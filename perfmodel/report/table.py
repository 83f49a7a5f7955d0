"""What a report is: columns with units, rows of raw SI numbers, notes; no drawing."""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Column:
    """One column; ``unit`` is an SI unit, "1" for a count, "%" for a share, "bar" for a drawing.

    A drawing is a share, both ends of a piece as shares, or text; it is for people only, as a column ``for_programs``
    is for programs only.  On a narrow terminal columns go in order of ``spare``, the largest first; those of 0 stay.
    A text column ``in_words`` says for people what columns of numbers say for programs: csv leaves it out.
    A ``group`` column is printed once above the rows that share its value.  Unit "row" means that
    each row names the unit of its cells under the key "unit".
    """

    key: str
    title: str
    unit: str | None = None
    spare: int = 0
    group: bool = False
    for_programs: bool = False
    in_words: bool = False


#: heading of whether a limit is met: for programs true or false, true where there is no limit; for people a verdict
MET = (Column("met", "met", for_programs=True), Column("verdict", "met"))
#: the same with the verdict in a word for programs, and its mark for people
TOLD = (MET[0], Column("verdict", "met", for_programs=True), Column("told", "met"))


#: ends of an interval as numbers, beside its words
SPANS = tuple(
    Column(f"{end}{width}", f"{width} % {end}", "row", for_programs=True)
    for width in (50, 90)
    for end in ("low", "high")
)


def span_cells(ends: Mapping[str, float] | None, scale: float = 1.0) -> dict[str, float | None]:
    """Return the cells of ``SPANS``; none where there is no interval."""
    return {column.key: None if ends is None else ends[column.key] * scale for column in SPANS}


class Say(Protocol):
    """An English text, and of cells the key of their column -> the same in the reader's language."""

    def __call__(self, text: str, key: str = "") -> str: ...


def in_english(text: str, key: str = "") -> str:  # noqa: ARG001 - as every ``Say``
    """Return a text as it is."""
    return text


#: width in cells, language -> lines of text
Drawing = Callable[[int, Say], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under columns; on a terminal a ``drawing`` stands above them, or in place of rows that ``are_drawn``.

    ``part`` is what --show calls it: a section, like "plan", or one table of a section, like "plan.totals".
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[dict[str, Any], ...]
    notes: tuple[str, ...] = ()
    drawing: Drawing | None = None
    are_drawn: bool = False
    part: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """A whole result: its schema, the answer, tables for people, facts for programs, notes for both.

    ``answer`` says in a screen's third what was found.  People who ask for no parts see it and the parts ``opening``.
    """

    schema: str
    title: str
    tables: tuple[Table, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    answer: Table | None = None
    opening: tuple[str, ...] = ()


def answer_table(rows: Iterable[tuple[str, str]]) -> Table:
    """Return an answer: what each line is about, and the line."""
    columns = (Column("what", ""), Column("answer", ""))
    return Table("Answer", columns, tuple({"what": what, "answer": text} for what, text in rows), part="answer")


def under(what: str, texts: Iterable[str]) -> list[tuple[str, str]]:
    """Return lines of an answer about one matter, which is named beside the first of them.

    >>> under("error", ["3 % slow", "of 8 rows"])
    [('error', '3 % slow'), ('', 'of 8 rows')]
    """
    return [("" if number else what, text) for number, text in enumerate(texts)]


def with_lines(answer: Table | None, lines: Iterable[tuple[str, str]], without: Container[str] = ()) -> Table | None:
    """Return an answer with lines behind its first, and without those about some matters; none stays none."""
    if answer is None:
        return None
    first, *others = ((row["what"], row["answer"]) for row in answer.rows if row["what"] not in without)
    return answer_table([first, *lines, *others])


def in_part(section: str, **tables: Table | None) -> tuple[Table, ...]:
    """Return tables under the names that --show knows them by: their section's, and each its own; none is left out."""
    return tuple(replace(table, part=f"{section}.{name}") for name, table in tables.items() if table is not None)
