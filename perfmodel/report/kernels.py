"""Kernels of a step's rows -> tables of their parameters, each with range and source."""

from collections.abc import Mapping, Sequence

from perfmodel.prediction.breakdown import Row
from perfmodel.report.quantity import range_in_words
from perfmodel.report.table import Column, Table
from perfmodel.specs.base import Known
from perfmodel.specs.kernels import STAND_INS, KernelSetSpec, parameters

COLUMNS = (
    Column("class", "operator class", group=True),
    Column("parameter", "parameter"),
    Column("value", "value"),
    Column("range", "range", spare=1),
    Column("kind", "kind"),
    Column("source", "source"),
    Column("note", "note", spare=2),
)


def kernel_tables(taken: Sequence[Row], kernels: Mapping[str, Known[KernelSetSpec]]) -> tuple[Table, Table]:
    """Return which kernel runs each row taken, and the parameters of these kernels."""
    rows: dict[str, dict[str, object]] = {}
    for row in taken:
        word = row.timed.op.kernel
        word = word if word in kernels else STAND_INS[word]
        if row.timed.op.kernels or row.timed.op.exchange is not None or row.timed.op.flop:
            rows[row.name] = {"operator": row.name, "class": word, "set": kernels[word].spec.name}
    used = list(dict.fromkeys(str(row["class"]) for row in rows.values()))
    values: list[dict[str, object]] = []
    for word in used:
        known = kernels[word]
        for parameter in parameters(known.spec.classes()[word]):
            figure = known.figures[f"{word}.{parameter}"]
            source = known.spec.sources[figure.source]
            values.append(
                {
                    "class": f"{word} ({known.spec.name})",
                    "parameter": parameter,
                    "value": figure.text,
                    "range": range_in_words(figure.low, figure.high),
                    "kind": figure.kind,
                    "source": source.title,
                    "note": figure.note or "",
                }
            )
    which = (Column("operator", "operator"), Column("class", "operator class"), Column("set", "kernel set"))
    return (
        Table("Kernel that runs each operator", which, tuple(rows.values())),
        Table("Parameters of these kernels", COLUMNS, tuple(values), ("ranges are in SI units",)),
    )
