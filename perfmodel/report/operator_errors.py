"""Columns of the errors of measured operators: with the parameters at hand, and on shapes held out."""

from perfmodel.report.table import Column
from perfmodel.scoring.operator_errors import Spread

HELD_OUT = (Column("held_median", "held out median", "%"), Column("held_p90", "p90", "%"))


def spread_columns(*, bias: int, worst: int) -> tuple[Column, ...]:
    """Return the columns of errors with the parameters at hand; ``bias`` and ``worst`` say how spare these are."""
    return (
        Column("median", "median", "%"),
        Column("p90", "p90", "%"),
        Column("bias", "bias", "%", spare=bias),
        Column("worst", "worst", "%", spare=worst),
    )


def spread_cells(found: Spread, held_out: Spread | None) -> dict[str, float | None]:
    """Return the errors of a row; nothing where no shape was held out."""
    return {
        "median": found.median,
        "p90": found.p90,
        "bias": found.bias,
        "worst": found.worst,
        "held_median": held_out.median if held_out else None,
        "held_p90": held_out.p90 if held_out else None,
    }
