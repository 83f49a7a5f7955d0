"""Two breakdowns -> the difference of their times, operator by operator."""

from collections.abc import Callable
from typing import Any

from perfmodel.prediction.breakdown import Breakdown
from perfmodel.prediction.scenario import Resolved
from perfmodel.report.side_by_side import side_columns, side_row
from perfmodel.report.table import Column, Table

SHOWN = 12


def totals_table(first: Resolved, second: Resolved, names: tuple[str, str]) -> Table:
    """Return what two layouts serve beside each other."""
    rows: list[dict[str, Any]] = []

    def add(what: str, unit: str, read: Callable[[Resolved], Any]) -> None:
        rows.append(side_row(what, unit, *(float(read(one)) for one in (first, second))))

    add("dies", "1", lambda one: one.plan.layout.dies)
    add("batch of a dp rank", "1", lambda one: one.plan.layout.batch)
    add("step time", "s", lambda one: one.point.step_time)
    if first.plan.family.phase == "decode":
        add("TPOT", "s", lambda one: one.tpot)
    add("tokens/s per card of the instance", "1/s", lambda one: one.tokens_per_s_per_card)
    add("memory of one die", "B", lambda one: one.point.memory)
    return Table("Side by side", side_columns("A", "B", "B over A"), tuple(rows), (f"A: {names[0]}", f"B: {names[1]}"))


def waterfall_table(first: Breakdown, second: Breakdown, takes: Callable[[str], bool], whole: str) -> Table:
    """Return how one time becomes another: both, and between them each operator's change, the largest first.

    Changes of operators that are not taken, and of those beyond the largest, are summed: all add up to the difference.
    """
    before, after = first.by_operator(), second.by_operator()
    names = list(dict.fromkeys([*before, *after]))
    change = {name: after.get(name, 0.0) - before.get(name, 0.0) for name in names}
    moved = sorted((name for name in names if change[name]), key=lambda name: -abs(change[name]))
    shown = [name for name in moved if takes(name)][:SHOWN]
    rest = [name for name in moved if name not in shown]
    pieces = [("operator", name, before.get(name), after.get(name), change[name]) for name in shown]
    if rest:
        sums = [sum(side.get(name, 0.0) for name in rest) for side in (before, after)]
        pieces.append(("rest", f"{len(rest)} more", sums[0], sums[1], sum(change[name] for name in rest)))
    reached = [first.step_time]
    for *_, each in pieces:
        reached.append(reached[-1] + each)
    low, high = min(reached), max(reached)
    floor = max(0.0, low - 0.5 * (high - low))  # so that the shorter total is still a bar

    def at(time: float) -> float:
        return (time - floor) / (high - floor) if high > floor else 1.0

    total = first.step_time
    rows = [_row("total", f"A: {whole}", total, None, None, (0.0, at(total)))]
    for (kind, name, a, b, each), start, end in zip(pieces, reached, reached[1:], strict=False):
        rows.append(_row(kind, name, a, b, each, (at(start), at(end))))
    total = second.step_time
    rows.append(_row("total", f"B: {whole}", None, total, total - first.step_time, (0.0, at(total))))
    columns = (
        Column("kind", "kind", for_programs=True),
        Column("operator", "from A to B"),
        Column("first", "A", "s", spare=2),
        Column("second", "B", "s", spare=2),
        Column("change", "change", "s"),
        Column("bar", "", "bar", spare=1),
    )
    notes = [
        "rows that decide, all blocks together, and what is outside them: the changes add up to the difference; "
        f"light bars: shorter; bars begin at {floor * 1e3:.3g} ms",
    ]
    deciding = {block.name: block.decides for block in second.blocks}
    notes += [
        f"{block.name}: A is decided by {block.decides}, B by {deciding[block.name]}, so other rows count"
        for block in first.blocks
        if deciding.get(block.name, block.decides) != block.decides
    ]
    return Table(f"From A to B: where the time of one {whole} goes", columns, tuple(rows), tuple(notes))


def _row(
    kind: str, name: str, first: float | None, second: float | None, change: float | None, bar: tuple[float, float]
) -> dict[str, Any]:
    return {"kind": kind, "operator": name, "first": first, "second": second, "change": change, "bar": bar}
