"""`moeplan validate`: predicted against published, row by row."""

from typing import Annotated

import typer

from perfmodel.cli import options


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

    rows = []
    for name in names or catalog.names("evidence"):
        spec = catalog.load_evidence(name).spec
        model = catalog.load_model(spec.conditions.model).spec
        machine, _ = catalog.load_machine(spec.conditions.system, stack or spec.conditions.stack, kernels or ())
        resolved = resolve(of_evidence(spec, model, machine.rates()))
        values = predicted(resolved)
        for measured in spec.measured:
            value = values[measured.quantity]
            rows.append(
                {
                    "row": spec.name,
                    "quantity": measured.quantity,
                    "unit": measured.unit,
                    "measured": measured.value,
                    "predicted": value,
                    "error": value / measured.value - 1,
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
        Column("fits", "fits"),
        Column("confidence", "trust"),
        Column("assumed", "conditions assumed"),
    )
    table = Table("Predicted against published", columns, tuple(rows))
    facts = {
        "rows": len(rows),
        "mean_absolute_error": sum(abs(float(str(r["error"]))) for r in rows) / max(1, len(rows)),
    }
    document = Document(
        schema="moeplan.validation/1", title="Predicted against published", tables=(table,), facts=facts, notes=()
    )
    options.show(document, format_, [])
