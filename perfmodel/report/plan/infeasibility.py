"""Which limits refused how many plans, and how near the nearest came, as tables."""

import math

from perfmodel.prediction.sureness import MARKS
from perfmodel.report.quantity import format_quantity
from perfmodel.report.table import TOLD, Column, Table
from perfmodel.solver.solution import Solution

NOT_BINDING = "not the limit that binds"
#: limit -> constraints that are checked after it: what they refuse has met it
CHECKED_AFTER = {"tpot": {"ttft", "cards", "rate"}, "ttft": {"rate"}, "rate": set[str]()}


def missed_table(solution: Solution) -> Table:
    """Return each limit that was searched under, and the nearest that any plan came to it."""
    search = solution.search
    closest = {r.constraint: r for r in solution.rejections}
    asked = (("tpot", "TPOT", "s", search.targets.tpot), ("ttft", "TTFT", "s", search.targets.ttft))
    rows = []
    passed = "rate" in closest  # what falls short of the rate has met the limits before it
    for key, name, unit, limit in (*asked, ("rate", "requests per second", "1/s", search.rate)):
        if limit is None:
            continue
        miss = closest.get(key)
        known = miss is not None and math.isfinite(miss.closest)
        binds = known and not (passed and key != "rate")
        rows.append(
            {
                "target": name,
                "met": not binds and bool(closest.keys() & CHECKED_AFTER[key]),
                "verdict": "missed" if binds else NOT_BINDING,
                "told": MARKS["missed"] if binds else NOT_BINDING,
                "limit": format_quantity(limit, unit),
                "closest": format_quantity(miss.closest, unit) if miss and known else "-",
                "off": miss.closest / limit - 1 if miss and known else None,
            }
        )
    columns = (
        Column("target", "target"),
        *TOLD,
        Column("limit", "limit"),
        Column("closest", "nearest plan"),
        Column("off", "off by", "%"),
    )
    note = "nearest plan: it meets every limit checked before this one (memory, then TPOT, then TTFT, then rate)"
    return Table("Targets", columns, tuple(rows), (note,))


def refused_table(solution: Solution) -> Table:
    """Return how many plans each constraint refused, and the closest miss."""
    rows = tuple(
        {
            "constraint": r.constraint,
            "refused": r.count,
            "closest": format_quantity(r.closest, r.unit) if math.isfinite(r.closest) else "-",
            "limit": format_quantity(r.limit, r.unit) if math.isfinite(r.closest) else "-",
            "off": r.closest / r.limit - 1 if math.isfinite(r.closest) else None,
            "layout": r.layout,
        }
        for r in solution.rejections
    )
    columns = (
        Column("constraint", "constraint"),
        Column("refused", "plans refused", "1"),
        Column("closest", "closest miss"),
        Column("limit", "limit"),
        Column("off", "off by", "%"),
        Column("layout", "by", spare=1),
    )
    note = "closest miss: of pools where they are joined, else told only where nothing is feasible"
    return Table("Refused", columns, rows, (note,) if rows else ())
