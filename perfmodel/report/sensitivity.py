"""Assumed inputs -> a table of what each does to the result."""

from collections.abc import Sequence

from perfmodel.prediction.sensitivity import UNFELT, Swing
from perfmodel.report.table import Column, Table

NOTE = "each input moved alone over its stated range ({unstated:.0%} either way where none is stated), layout held"


def assumption_table(found: Sequence[Swing]) -> Table:
    """Return one row per assumed input that the result feels, the strongest first."""
    from perfmodel.prediction.sensitivity import UNSTATED_RANGE

    outputs = list(found[0].changes) if found else []
    rows = []
    for swing in found:
        row: dict[str, object] = {
            "input": swing.name,
            "value": swing.figure.text,
            "why": swing.figure.note or swing.figure.source,
            "low": swing.low,
            "high": swing.high,
        }
        for output, (low, high) in swing.changes.items():
            row[f"{output} at low"] = low if abs(low) > UNFELT else None
            row[f"{output} at high"] = high if abs(high) > UNFELT else None
        rows.append(row)
    columns = [Column("input", "assumed input"), Column("value", "value"), Column("why", "why", spare=2)]
    for output in outputs:
        columns += [
            Column(f"{output} at low", f"{output} at low", "%"),
            Column(f"{output} at high", f"{output} at high", "%"),
        ]
    return Table(
        "Assumed inputs that this result feels", tuple(columns), tuple(rows), (NOTE.format(unstated=UNSTATED_RANGE),)
    )
