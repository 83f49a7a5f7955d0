"""One part of the page, and the names of its tables."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from perfmodel.planning.plan_report import PoolReport
from perfmodel.report.html.figure import Figure
from perfmodel.report.html.words import Words
from perfmodel.report.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One part of the page."""

    name: str
    title: str
    lead: str
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    #: what only one section has, by name
    more: Mapping[str, Any] = field(default_factory=dict)


def named(table: Table, name: str, words: Words) -> Table:
    """Return a table with a name behind its title."""
    return Table(f"{words.shared(table.title)}: {name}", table.columns, table.rows, table.notes)


def of_pool(pool: PoolReport, table: Table, words: Words) -> Table:
    """Return a table of one pool, named so."""
    return named(table, words.term(pool.phase), words)
