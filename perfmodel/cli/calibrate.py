"""`moeplan calibrate`: measured operators -> the parameters of their kernels."""

import shlex
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from perfmodel.cli import options
from perfmodel.errors import UsageError
from perfmodel.planning import inputs


def command(
    context: typer.Context,
    tables: Annotated[
        list[Path] | None, typer.Argument(help="CSV tables: ours, op_summary, kernel_details, *_perf.")
    ] = None,
    evidence: Annotated[
        bool, typer.Option("--evidence", help="Fit the terms of a step to the golden published rows instead.")
    ] = False,
    on: options.SystemOption = None,
    stack: options.StackOption = None,
    kernels: options.KernelsOption = None,
    model: options.HeadsOption = None,
    messages: options.MessagesOption = None,
    ep: options.EpOption = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="Operator to take; may be repeated.")] = None,
    at_least: Annotated[
        list[str] | None, typer.Option("--at-least", metavar="COLUMN=N", help="Leave out rows below; may be repeated.")
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", help="Fit only this parameter, hold the others; may be repeated."),
    ] = None,
    cold: options.ColdOption = False,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="SET.yaml", help="Write a kernel set here.")
    ] = None,
    force: options.ForceOption = False,
    title: Annotated[str, typer.Option("--title", help="What was measured, for the kernel set.")] = "",
    format_: options.FormatOption = options.Format.table,
) -> None:
    """Fit kernel parameters to measured operators; print them with ranges and errors, and write them with --output.

    Example: moeplan calibrate op_summary_0.csv --on cloudmatrix384 --output my-kernels.yaml
    """
    from perfmodel.files import folders, machines, measurements
    from perfmodel.files.writing import target, write_data

    if evidence:
        others = [n for n in context.params if n not in ("evidence", "format_") and options.typed(context, n)]
        if others:
            dropped = ", ".join("TABLES" if n == "tables" else f"--{n.replace('_', '-')}" for n in others)
            raise UsageError(f"--evidence takes its rows and machines from the catalogue; drop {dropped}")
        _show_evidence_fit(format_)
        return
    if not tables:
        raise UsageError("calibrate needs CSV tables of measured operators, or --evidence for the terms of a step")
    from perfmodel.measured.shapes import OPERATORS
    from perfmodel.report.calibration import calibration_document, kernel_set, weaknesses
    from perfmodel.scoring.calibration import fit
    from perfmodel.scoring.operator_errors import by_kernel, without_residents
    from perfmodel.scoring.priors import PRIORS

    if on is None:
        raise UsageError("calibrate needs --on SYSTEM, the machine that was measured; see 'moeplan list systems'")
    for word in only or ():
        inputs.known(word, sorted(OPERATORS), "--only")
    words = sorted({name for priors in PRIORS.values() for name in priors})
    for word in parameter or ():
        inputs.known(word, words, "--parameter")
    to = None if output is None else target(output, option="--output", suffixes=(".yaml", ".yml"), force=force)
    machine, remarks = machines.load_machine(on, stack, kernels or ())
    shape = options.context_of(model, ep, messages, only=only or (), at_least=at_least or ())
    measured = []
    told = list(remarks)
    for path in tables:
        rows, left_out = measurements.read_measurements(path, shape)
        measured += rows
        told += left_out
    rates, ideal = machine.rates(), machines.ideal(machine).rates()
    if cold:
        rates = without_residents(rates)
    fitted = [
        fit(name, rows, rates.kernels[name], rates, ideal, parameter or ())
        for name, rows in by_kernel(measured).items()
    ]
    bases = {one.name: machine.kernels_of()[one.name] for one in fitted}
    told += weaknesses(fitted)
    if to is not None:
        if to.path.stem in folders.names("kernels"):
            told.append(f"{to.path.stem} is also a set on file: give your own another name to tell them apart")
        listed = ", ".join(path.name for path in tables)
        content = kernel_set(
            fitted,
            bases,
            name=to.path.stem,
            title=title or f"Calibrated on {listed}",
            chip=machine.chip.spec.name,
            source={"title": f"Calibration of {date.today().isoformat()}", "where": listed},
        )
        write_data("kernels", to, content)
        told.append(f"wrote {to.path}; use it with --kernels {shlex.quote(str(to.path))}")
    options.show(calibration_document(fitted, {name: known.spec.name for name, known in bases.items()}), format_, told)


def _show_evidence_fit(format_: options.Format) -> None:
    from perfmodel.planning.published import rows_on_file
    from perfmodel.planning.scores import spreads_left_out
    from perfmodel.report.evidence_fit import evidence_fit_document
    from perfmodel.scoring.evidence_fit import fit_terms, fitted_to

    rows = [row for row in rows_on_file() if fitted_to(row)]
    fit = fit_terms(rows)
    held = rows[0].machine.terms.spec
    on_file = {name: float(getattr(held, name)) for name in fit.values}
    spreads = spreads_left_out().values()
    options.show(evidence_fit_document(fit, on_file, spreads, held.left_out), format_, [])
