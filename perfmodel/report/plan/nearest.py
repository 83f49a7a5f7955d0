"""Questions near one without a plan that have one, as a table, facts and commands to paste."""

from typing import Any

from perfmodel.algebra import as_float
from perfmodel.planning.nearest import cards_of
from perfmodel.planning.planner import Planned
from perfmodel.report.plan.commands import solve_command
from perfmodel.report.table import Column, Table


def nearest_facts(answer: Planned) -> dict[str, Any]:
    """Return the nearest ways with their commands, and what was tried; SI units."""
    if answer.nearest is None:
        return {}
    return {
        "nearest": [
            {
                "changes": list(way.changes),
                "command": solve_command(way.run),
                "systems": way.times,
                "requests_per_s": way.best.requests_per_s * way.times,
                "tpot_s": way.best.tpot,
                "ttft_s": as_float(way.best.first_token.ttft),
                "cards": cards_of(way, answer.request),
                "serving": "mixed" if way.best.mixed else "disaggregated",
            }
            for way in answer.nearest.ways
        ],
        "nearest_tried": list(answer.nearest.tried),
    }


def nearest_table(answer: Planned) -> Table:
    """Return what has a plan instead, the cheapest first, and what it would give."""
    ways = () if answer.nearest is None else answer.nearest.ways
    rows = tuple(
        {
            "change": " and ".join(way.changes),
            "requests": way.best.requests_per_s * way.times,
            "tpot": way.best.tpot,
            "ttft": as_float(way.best.first_token.ttft),
            "cards": cards_of(way, answer.request),
        }
        for way in ways
    )
    columns = (
        Column("change", "with"),
        Column("requests", "req/s", "1/s"),
        Column("tpot", "TPOT", "s"),
        Column("ttft", "TTFT", "s"),
        Column("cards", "cards", "1"),
    )
    return Table("Nearest that works", columns, rows)


def nearest_notes(answer: Planned) -> tuple[str, ...]:
    """Return the command of each way; or that none was found, and what was tried."""
    if answer.nearest is None:
        return ()
    if not answer.nearest.ways:
        return (f"none of what was tried works: {', '.join(answer.nearest.tried)}",)
    return tuple(f"with {' and '.join(way.changes)}: {solve_command(way.run)}" for way in answer.nearest.ways)
