"""`moeplan validate`: predicted against published, row by row."""

from typing import Annotated, Any

import typer

from perfmodel.cli import options


def _ends(sure: Any, quantity: str, cards: float) -> tuple[float, float]:
    """Return the 90 % interval of a quantity that a published row may state."""
    if quantity == "tokens_per_s_per_card":
        return sure.tokens_per_s.low90 / cards, sure.tokens_per_s.high90 / cards
    times = sure.tpot if quantity == "tpot" else sure.step_time
    return times.low90, times.high90


def _summed(group: str, rows: list[dict[str, Any]]) -> dict[str, object]:
    """Return the errors of some results; those of rates are turned round, so that above is slow throughout."""
    errors = [-row["error"] if row["quantity"] == "tokens_per_s_per_card" else row["error"] for row in rows]
    return {
        "group": group,
        "results": len(rows),
        "mean": sum(map(abs, errors)) / len(errors),
        "bias": sum(errors) / len(errors),
        "worst": max(errors, key=abs),
        "inside": sum(bool(row["inside"]) for row in rows) / len(rows),
    }


def command(
    names: Annotated[list[str] | None, typer.Argument(help="Evidence rows; default all.")] = None,
    stack: options.StackOption = None,
    kernels: options.KernelsOption = None,
    format_: options.FormatOption = options.Format.table,
) -> None:
    """Compare predictions with published results.

    Example: moeplan validate seed-cm384-decode seed-a2-decode-808 seed-prefill-16x
    """
    from perfmodel import catalog
    from perfmodel.report.table import Column, Document, Table
    from perfmodel.scenario import of_evidence, predicted, resolve
    from perfmodel.uncertainty import pool_range

    rows = []
    for name in names or catalog.names("evidence"):
        spec = catalog.load_evidence(name).spec
        model = catalog.load_model(spec.conditions.model).spec
        machine, _ = catalog.load_machine(
            spec.conditions.system, stack or spec.conditions.stack, kernels or spec.conditions.kernels
        )
        resolved = resolve(of_evidence(spec, model, machine.rates()))
        values = predicted(resolved)
        sure = pool_range(machine, resolved.plan.layout, resolved.plan.family, resolved.scenario.case)
        cards = resolved.plan.layout.dies / resolved.scenario.case.rates.dies_per_package
        for measured in spec.measured:
            value = values[measured.quantity]
            low, high = _ends(sure, measured.quantity, cards)
            rows.append(
                {
                    "row": spec.name,
                    "group": f"{spec.conditions.system}, {spec.conditions.phase}",
                    "quantity": measured.quantity,
                    "unit": measured.unit,
                    "measured": measured.value,
                    "predicted": value,
                    "error": value / measured.value - 1,
                    "low": low,
                    "high": high,
                    "interval": f"{low:.4g} to {high:.4g}",
                    "inside": low <= measured.value <= high,
                    "fits": resolved.fits,
                    "confidence": spec.confidence,
                    "assumed": ", ".join(spec.assumed) or "nothing",
                }
            )
    columns = (
        Column("row", "published row"),
        Column("quantity", "quantity"),
        Column("unit", "unit"),
        Column("measured", "measured", "1"),
        Column("predicted", "predicted", "1"),
        Column("error", "error", "%"),
        Column("interval", "90 % interval"),
        Column("inside", "inside"),
        Column("fits", "fits", spare=2),
        Column("confidence", "trust"),
        Column("assumed", "conditions assumed", spare=1),
    )
    table = Table("Predicted against published", columns, tuple(rows))
    first = {str(row["row"]): row for row in reversed(rows)}
    inside = sum(bool(row["inside"]) for row in first.values())
    facts = {
        "rows": len(rows),
        "published_results": len(first),
        "inside_90": inside / max(1, len(first)),
        "mean_absolute_error": sum(abs(float(str(r["error"]))) for r in rows) / max(1, len(rows)),
    }
    notes = (
        f"{inside} of {len(first)} published results lie in the 90 % interval of their prediction (first quantity of "
        "each); intervals: all stated ranges at once, a Latin hypercube of 512 points",
    )
    groups = dict.fromkeys(str(row["group"]) for row in first.values())
    summary = [
        _summed(group, [row for row in first.values() if group in (row["group"], "all")]) for group in (*groups, "all")
    ]
    summary_columns = (
        Column("group", "system and phase"),
        Column("results", "results", "1"),
        Column("mean", "mean |error|", "%"),
        Column("bias", "bias", "%"),
        Column("worst", "worst", "%"),
        Column("inside", "inside 90 %", "%"),
    )
    document = Document(
        schema="moeplan.validation/1",
        title="Predicted against published",
        tables=(
            table,
            Table(
                "By system and phase, first quantity of each result; time errors: above is slow",
                summary_columns,
                tuple(summary),
            ),
        ),
        facts=facts,
        notes=notes,
    )
    options.show(document, format_, [])
