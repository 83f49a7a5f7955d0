"""Fitted kernels -> a document for people, and a kernel set in the form of a data file."""

from collections.abc import Mapping, Sequence
from math import floor, log10

from perfmodel.report.operator_errors import HELD_OUT, spread_cells, spread_columns
from perfmodel.report.table import Column, Document, Table
from perfmodel.scoring.calibration import Fitted
from perfmodel.specs.base import Figure, Known
from perfmodel.specs.kernels import KernelSetSpec, parameters
from perfmodel.units import Unit

NOTES = (
    "error: |predicted / measured - 1| over the rows fitted; held out: each shape predicted by a fit that saw no row "
    "of it; ranges are 90 %; parameters without a range were held: no row feels them, or the base set holds them",
)
DOUBTFUL, STRANGE = 0.3, 1.0  # errors that are told beside a fit
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
        errors.append(
            {
                "class": one.name,
                "rows": one.rows,
                "shapes": one.shapes,
                "fitted": len(one.ranges),
                **spread_cells(one.within, one.across),
                "worst_where": one.within.worst_where,
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
                    "how": "held" if low is None else "mostly prior" if parameter in one.mostly_prior else "fitted",
                }
            )
    error_columns = (
        Column("class", "class"),
        Column("rows", "rows", "1"),
        Column("shapes", "shapes", "1", spare=1),
        Column("fitted", "parameters", "1", spare=2),
        *spread_columns(bias=3, worst=4),
        Column("worst_where", "worst row", spare=6),
        *HELD_OUT,
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


def weaknesses(fitted: Sequence[Fitted]) -> list[str]:
    """Return what a user should know of each fit before using it."""
    found = []
    for one in fitted:
        if one.across is None:
            found.append(f"{one.name}: one shape only; how it carries to others is not known")
        elif one.across.median > DOUBTFUL:
            found.append(
                f"{one.name}: half of the shapes held out are over {DOUBTFUL:.0%} off; check the table and --on"
            )
        if abs(one.within.worst) > STRANGE:
            found.append(f"{one.name}: worst row {one.within.worst_where}, {one.within.worst:+.0%}")
        if one.at_bound:
            found.append(f"{one.name}: {', '.join(one.at_bound)} at the bound of what is allowed")
    return found


def _record(value: str, kind: str, note: str = "", span: tuple[str, str] | None = None) -> dict[str, object]:
    record: dict[str, object] = {"value": _scalar(value), "source": "measured", "kind": kind}
    if span:
        record["range"] = [_scalar(end) for end in span]
    if note:
        record["note"] = note
    return record


def _scalar(text: str) -> object:
    """Return a number where the text is one: only quantities with a unit stay text."""
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        return text


def _span(low: float, high: float, value: float, unit: str) -> tuple[str, str]:
    """Return a range as text, wide enough to hold the value as it is written."""
    return _text(min(low, value), unit), _text(max(high, value), unit)


def _held(figure: Figure | None, value: float, unit: str, base: str) -> dict[str, object]:
    """Return the record of a parameter taken over from a kernel set, with what that set says of it."""
    span = None
    if figure and figure.low is not None and figure.high is not None:
        span = _span(figure.low, figure.high, value, unit)
    said = (figure.note or "") if figure else ""
    note = said if said.startswith("held") else f"held from {base}{': ' + said if said else ''}"
    return _record(_text(value, unit), "assumed", note, span)


def kernel_set(
    fitted: Sequence[Fitted],
    bases: Mapping[str, Known[KernelSetSpec]],
    *,
    name: str,
    title: str,
    chip: str,
    source: Mapping[str, str],
) -> dict[str, object]:
    """Return a kernel set as the content of a data file; ``bases`` are the sets that held parameters come from."""
    content: dict[str, object] = {"name": name, "title": title, "chip": chip}
    for one in fitted:
        base = bases[one.name]
        values: dict[str, object] = {}
        for parameter, value in parameters(one.kernel).items():
            unit, number = _unit(one, parameter), float(value)
            if parameter in one.ranges:
                prior = parameter in one.mostly_prior
                kind, said = ("assumed", "mostly the prior: these rows say little") if prior else ("measured", "")
                span = _span(*one.ranges[parameter], number, unit)
                values[parameter] = _record(_text(number, unit), kind, said, span)
            else:
                values[parameter] = _held(base.figures.get(f"{one.name}.{parameter}"), number, unit, base.spec.name)
        covers = getattr(one.kernel, "covers", None)
        if covers is not None:
            values["covers"] = list(covers)
        errors = {"median_error": one.within.median, "p90_error": one.within.p90}
        if one.across is not None:
            errors |= {"held_out_median_error": one.across.median, "held_out_p90_error": one.across.p90}
        fit = {"rows": str(one.rows), "shapes": str(one.shapes)} | {k: _digits(v) for k, v in errors.items()}
        values["fit"] = {key: _record(text, "derived") for key, text in fit.items()}
        content[one.name] = values
    content["sources"] = {"measured": dict(source)}
    return content
