"""Two runs beside each other as a document."""

from collections.abc import Sequence
from typing import Any

from perfmodel.plan_compare import Difference, RowDifference, conditions_differ
from perfmodel.report.table import Column, Document, Table
from perfmodel.what_if import Run, as_it_is, resolved_of

SHOWN_ROWS = 12


def _totals(first: Run, second: Run) -> Table:
    outcomes = [as_it_is(run) for run in (first, second)]
    rows: list[dict[str, Any]] = []

    def row(what: str, unit: str, values: Sequence[float | None]) -> None:
        a, b = values
        if a is not None and b is not None:
            rows.append({"what": what, "unit": unit, "first": a, "second": b, "change": b / a - 1})

    for phase in first.pools.keys() & second.pools.keys():
        pools = [resolved_of(run.pools[phase], run.model) for run in (first, second)]
        row(f"{phase} tokens per second and card", "1/s", [pool.tokens_per_s_per_card for pool in pools])
        row(f"step of {phase}", "s", [float(pool.point.step_time) for pool in pools])  # type: ignore[arg-type]
        row(f"memory of a die, {phase}", "B", [float(pool.point.memory) for pool in pools])  # type: ignore[arg-type]
    row("TPOT", "s", [one.tpot for one in outcomes])
    row("TTFT", "s", [one.ttft for one in outcomes])
    columns = (
        Column("what", ""),
        Column("first", "first", "row"),
        Column("second", "second", "row"),
        Column("unit", "unit"),
        Column("change", "second over first", "%"),
    )
    return Table("Side by side", columns, tuple(rows))


def compare_document(
    first: Run,
    second: Run,
    names: tuple[str, str],
    differences: Sequence[Difference],
    rows: Sequence[RowDifference],
) -> Document:
    """Return totals of both, what differs with what it is worth, and the operators that move most."""
    differing = tuple(
        {
            "phase": one.phase,
            "what": one.name,
            "first": one.first,
            "second": one.second,
            "alone": one.alone,
            "back": one.back,
        }
        for one in differences
    )
    shown = tuple(
        {
            "phase": one.phase,
            "row": one.name,
            "first": one.first,
            "second": one.second,
            "change": one.second - one.first,
        }
        for one in rows[:SHOWN_ROWS]
        if one.first != one.second
    )
    columns = (
        Column("phase", "pool"),
        Column("what", "what differs"),
        Column("first", "first"),
        Column("second", "second"),
        Column("alone", "alone on the first", "%"),
        Column("back", "taken back on the second", "%"),
    )
    row_columns = (
        Column("phase", "pool"),
        Column("row", "operator"),
        Column("first", "first", "s"),
        Column("second", "second", "s"),
        Column("change", "difference", "s"),
    )
    notes = [
        f"first: {names[0]}; second: {names[1]}",
        "worth: change of the pool's tokens per second and card at the batches as they are; '-': not possible alone",
        "operators: card-seconds of one token (of input in prefill), rows that decide; they add up to its cost",
    ]
    shared = first.pools.keys() & second.pools.keys()
    if any(conditions_differ(first.pools[one].conditions, second.pools[one].conditions) for one in shared):
        notes.append("the two serve other lengths or models: read rates with care")
    return Document(
        schema="moeplan.compare/1",
        title=f"{names[0]} against {names[1]}",
        tables=(
            _totals(first, second),
            Table("What differs, and what it is worth", columns, differing),
            Table("Where the time of a token goes", row_columns, shown),
        ),
        facts={"first": names[0], "second": names[1], "differences": len(differing)},
        notes=tuple(notes),
    )
