"""Fitted kernels -> a document for people, and a kernel set in the form of a data file."""

from collections.abc import Mapping, Sequence
from datetime import date
from math import floor, log10

from perfmodel.calibration import Fitted
from perfmodel.report.table import Column, Document, Table
from perfmodel.sensitivity import Known
from perfmodel.specs.base import Figure
from perfmodel.specs.kernels import KernelSetSpec, parameters
from perfmodel.units import Unit

NOTES = (
    "error: |predicted / measured - 1| over the rows fitted; held out: each shape predicted by a fit that saw no row "
    "of it; ranges are 90 %; parameters without a range were held: no row feels them, or the base set holds them",
)
#: unit of a parameter -> how it is written
_WRITTEN = {"s": (1e-6, " us"), "B": (1e6, " MB"), "B/s": (1e9, " GB/s"), "1": (1.0, "")}


def _unit(fitted: Fitted, parameter: str) -> str:
    metadata = type(fitted.kernel).model_fields[parameter].metadata
    return next((item.symbol for item in metadata if isinstance(item, Unit)), "1")


def _digits(value: float) -> str:
    """Return a number to four digits, without an exponent."""
    if value == 0:
        return "0"
    places = max(0, 3 - floor(log10(abs(value))))
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _text(value: float, unit: str) -> str:
    scale, word = _WRITTEN[unit]
    return f"{_digits(value / scale)}{word}"


def calibration_document(fitted: Sequence[Fitted], bases: Mapping[str, str]) -> Document:
    """Return errors by class, and every parameter with its range."""
    errors: list[dict[str, object]] = []
    values: list[dict[str, object]] = []
    for one in fitted:
        held = one.across
        errors.append(
            {
                "class": one.name,
                "rows": one.rows,
                "shapes": one.shapes,
                "fitted": len(one.ranges),
                "median": one.within.median,
                "p90": one.within.p90,
                "bias": one.within.bias,
                "worst": one.within.worst,
                "worst_where": one.within.worst_where,
                "held_median": held.median if held else None,
                "held_p90": held.p90 if held else None,
                "base": bases[one.name],
            }
        )
        for parameter, value in parameters(one.kernel).items():
            low, high = one.ranges.get(parameter, (None, None))
            values.append(
                {
                    "class": one.name,
                    "parameter": parameter,
                    "unit": _unit(one, parameter),
                    "value": value,
                    "low": low,
                    "high": high,
                    "how": "fitted" if low is not None else "held",
                }
            )
    error_columns = (
        Column("class", "class"),
        Column("rows", "rows", "1"),
        Column("shapes", "shapes", "1", spare=1),
        Column("fitted", "parameters", "1", spare=2),
        Column("median", "median", "%"),
        Column("p90", "p90", "%"),
        Column("bias", "bias", "%", spare=3),
        Column("worst", "worst", "%", spare=4),
        Column("worst_where", "worst row", spare=6),
        Column("held_median", "held out median", "%"),
        Column("held_p90", "p90", "%"),
        Column("base", "held from", spare=5),
    )
    value_columns = (
        Column("class", "class", group=True),
        Column("parameter", "parameter"),
        Column("value", "value", "row"),
        Column("low", "low", "row"),
        Column("high", "high", "row"),
        Column("how", "how"),
    )
    return Document(
        schema="moeplan.calibration/1",
        title="Kernel parameters fitted to measured operators",
        tables=(
            Table("Errors", error_columns, tuple(errors)),
            Table("Parameters", value_columns, tuple(values)),
        ),
        facts={"classes": [one.name for one in fitted]},
        notes=NOTES,
    )


def _record(value: str, kind: str, note: str = "", span: tuple[str, str] | None = None) -> str:
    parts = [f"value: {value}", "source: measured", f"kind: {kind}"]
    if span:
        parts.append(f"range: [{span[0]}, {span[1]}]")
    if note:
        parts.append(f'note: "{note}"')
    return "{" + ", ".join(parts) + "}"


def _span(low: float, high: float, value: float, unit: str) -> tuple[str, str]:
    """Return a range as text, wide enough to hold the value as it is written."""
    return _text(min(low, value), unit), _text(max(high, value), unit)


def _held(figure: Figure | None, value: float, unit: str, base: str) -> str:
    """Return the record of a parameter taken over from a kernel set, with what that set says of it."""
    said = f": {figure.note.removeprefix('held: ')}" if figure and figure.note else ""
    span = None
    if figure and figure.low is not None and figure.high is not None:
        span = _span(figure.low, figure.high, value, unit)
    kind = figure.kind if figure and figure.kind != "datasheet" else "assumed"
    note = figure.note if figure and (figure.note or "").startswith("held") else f"held from {base}{said}"
    return _record(_text(value, unit), kind, note or "", span)


def kernel_set_text(
    fitted: Sequence[Fitted],
    bases: Mapping[str, Known[KernelSetSpec]],
    *,
    name: str,
    title: str,
    chip: str,
    tables: Sequence[str],
) -> str:
    """Return a kernel set as the text of a data file; ``bases`` are the sets that held parameters come from."""
    lines = [f"name: {name}", f'title: "{title}"', f"chip: {chip}"]
    for one in fitted:
        lines.append(f"{one.name}:")
        base = bases[one.name]
        for parameter, value in parameters(one.kernel).items():
            unit, number = _unit(one, parameter), float(value)
            if parameter in one.ranges:
                span = _span(*one.ranges[parameter], number, unit)
                record = _record(_text(number, unit), "measured", span=span)
            else:
                record = _held(base.figures.get(f"{one.name}.{parameter}"), number, unit, base.spec.name)
            lines.append(f"  {parameter}: {record}")
        covers = getattr(one.kernel, "covers", None)
        if covers is not None:
            lines.append(f"  covers: [{', '.join(covers)}]")
        lines += [
            "  fit:",
            f"    rows: {_record(str(one.rows), 'derived')}",
            f"    shapes: {_record(str(one.shapes), 'derived')}",
            f"    median_error: {_record(_digits(one.within.median), 'derived')}",
            f"    p90_error: {_record(_digits(one.within.p90), 'derived')}",
        ]
        if one.across is not None:
            lines += [
                f"    held_out_median_error: {_record(_digits(one.across.median), 'derived')}",
                f"    held_out_p90_error: {_record(_digits(one.across.p90), 'derived')}",
            ]
    listed = ", ".join(tables)
    lines += [
        "sources:",
        f'  measured: {{title: "Calibration of {date.today().isoformat()}", where: "{listed}"}}',
    ]
    return "\n".join(lines) + "\n"
