"""Scores of operators alone -> a document."""

from collections.abc import Sequence
from typing import Any

from perfmodel.report.operator_errors import HELD_OUT, spread_cells, spread_columns
from perfmodel.report.quantity import format_quantity
from perfmodel.report.table import MET, Column, Document, Table, in_part
from perfmodel.scoring.operator_scores import DieScore, Score

MADE_BY = (
    "made by: moeplan accuracy --measurements FOLDER --format markdown; FOLDER holds the public tables, which are not "
    "part of this project ('moeplan show NAME' says where they are from)"
)
NOTES = (
    "median, p90, bias, worst: with the parameters on file, or those of --kernels; held out: with parameters fitted "
    "anew for each shape, without any row of that shape; errors are |predicted / measured - 1|; fitted to it: the "
    "parameters on file come from these very rows, so that only the held-out columns tell how they carry to others",
    "a shape is one (columns, inner) of a product, one (sequences, heads) of an attention, one operation and number "
    "of dies of a collective",
)
BY_DIES = (
    "dies left out: all operations of that number of dies, predicted with parameters fitted to the other numbers; "
    "sizes at which a library changes algorithm are held",
)


def met(target: Any, score: Score) -> bool | None:
    """Return whether the score is within its target, None where it has none.

    Median and p90 are held out where that was done, worst is as shipped.
    """
    if target is None:
        return None
    spread = score.across or score.shipped
    limits = ((target.worst, abs(score.shipped.worst)), (target.median, spread.median), (target.p90, spread.p90))
    return all(value <= limit for limit, value in limits if limit is not None)


def _limits(target: Any) -> str:
    if target is None:
        return ""
    words = (("worst", target.worst), ("median", target.median), ("p90", target.p90))
    return ", ".join(f"{word} {100 * limit:g} %" for word, limit in words if limit is not None)


def _by_dies(found: Sequence[tuple[Any, list[Score], list[DieScore]]]) -> tuple[Table, ...]:
    """Return the table of numbers of dies left out; none where no links were measured."""
    rows = [
        {
            "benchmark": source if isinstance(source, str) else source.name,
            "dies": score.dies,
            "rows": score.rows,
            **{name: getattr(score.out, name) for name in ("median", "p90", "bias", "worst")},
        }
        for source, _, scores in found
        for score in scores
    ]
    columns = (
        Column("benchmark", "measured", group=True),
        Column("dies", "dies left out", "1"),
        Column("rows", "rows", "1"),
        *spread_columns(bias=2, worst=1),
    )
    return (Table("Links, each number of dies left out", columns, tuple(rows)),) if rows else ()


def accuracy_document(found: Sequence[tuple[Any, list[Score], list[DieScore]]], first: Sequence[str]) -> Document:
    """Return one row per set of measurements and operator; ``first`` are notes that come before the others.

    Where links were measured, a second table has one row per number of dies left out.
    """
    rows: list[dict[str, object]] = []
    for source, scores, _ in found:
        named = not isinstance(source, str)
        for score in scores:
            within = met(source.target, score) if named else None
            rows.append(
                {
                    "benchmark": source.name if named else source,
                    "operator": score.operator,
                    "rows": score.rows,
                    "shapes": score.shapes,
                    **spread_cells(score.shipped, score.across),
                    "held_mean": score.across.mean if score.across else None,
                    "fitted": bool(source.fitted) if named else None,
                    "target": _limits(source.target) if named else "",
                    "met": within is not False,
                    "verdict": format_quantity(within, None),
                }
            )
    columns = (
        Column("benchmark", "measured", group=True),
        Column("operator", "operator"),
        Column("rows", "rows", "1", spare=1),
        Column("shapes", "shapes", "1", spare=2),
        *spread_columns(bias=4, worst=3),
        *HELD_OUT,
        Column("held_mean", "mean", "%", spare=5),
        Column("fitted", "fitted to it", spare=3),
        Column("target", "target", spare=2),
        *MET,
    )
    missed = [f"{row['benchmark']} ({row['operator']})" for row in rows if row["met"] is False]
    told = tuple(
        f"{source.name}: {source.note}" for source, _, _ in found if not isinstance(source, str) and source.note
    )
    dies = _by_dies(found)
    notes = (
        *first,
        *NOTES,
        *(BY_DIES if dies else ()),
        *told,
        *([f"beyond its target: {', '.join(missed)}"] if missed else []),
    )
    return Document(
        schema="moeplan.accuracy/1",
        title="Operators and links alone, predicted against measured",
        tables=in_part(
            "accuracy",
            operators=Table("Operators and links alone", columns, tuple(rows)),
            links=dies[0] if dies else None,
        ),
        facts={"rows": rows},
        notes=notes,
    )
