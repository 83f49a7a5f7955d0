"""`moeplan accuracy`: operators and links alone, predicted against measured."""

from pathlib import Path
from typing import Annotated, Any

import typer

from perfmodel.cli import options
from perfmodel.errors import UsageError

VARIABLE = "MOEPLAN_MEASUREMENTS"


def _scores(machine: Any, rows: list[Any], held_out: bool, cold: bool = False) -> tuple[list[Any], list[Any]]:
    from perfmodel.files import machines
    from perfmodel.scoring.operator_errors import without_residents
    from perfmodel.scoring.operator_scores import die_scores, scores

    rates = without_residents(machine.rates()) if cold else machine.rates()
    found = scores(rows, rates, machines.ideal(machine).rates(), held_out=held_out)
    return found, die_scores(rows, rates) if held_out else []


def command(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            help="Microbenchmarks on file, or CSV tables; default all on file.",
            autocompletion=options.names_of("microbenchmarks"),
        ),
    ] = None,
    measurements: Annotated[
        Path | None, typer.Option("--measurements", envvar=VARIABLE, help="Folder with the public tables.")
    ] = None,
    on: options.SystemOption = None,
    stack: options.StackOption = None,
    kernels: options.KernelsOption = None,
    model: options.HeadsOption = None,
    messages: options.MessagesOption = None,
    ep: options.EpOption = None,
    cold: options.ColdOption = False,
    held_out: Annotated[
        bool,
        typer.Option(
            "--held-out/--no-held-out", help="Also cross-validate over whole shapes, and links over numbers of dies."
        ),
    ] = True,
    show: options.ShowOption = None,
    format_: options.FormatOption = options.Format.table,
) -> None:
    """Compare predicted times of single operators and collectives with measured ones.

    Example: moeplan accuracy cm384-table7

    Example: moeplan accuracy my-table.csv --on cloudmatrix384 --model deepseek-v3
    """
    from perfmodel.files import catalog, folders, machines
    from perfmodel.files.measurements import load_measurements, read_measurements
    from perfmodel.report.accuracy import MADE_BY, accuracy_document

    chosen = what or folders.names("microbenchmarks")
    tables = [Path(word) for word in chosen if word.lower().endswith(".csv")]
    remarks: list[str] = []
    found: list[tuple[Any, list[Any], list[Any]]] = []
    if tables:
        if len(tables) != len(chosen):
            raise UsageError("accuracy takes names of microbenchmarks or CSV tables, not both at once")
        if on is None:
            raise UsageError("accuracy of a table needs --on SYSTEM; see 'moeplan list systems'")
        machine, notes = machines.load_machine(on, stack, kernels or ())
        remarks += notes
        context = options.context_of(model, ep, messages)
        for path in tables:
            rows, left_out = read_measurements(path, context)
            remarks += left_out
            found.append((path.name, *_scores(machine, rows, held_out, cold)))
        return options.show(accuracy_document(found, ()), format_, remarks, show)
    if on or stack or kernels or model or messages or ep or cold:
        raise UsageError("--on, --stack, --kernels, --model, --messages, --ep and --cold go with a .csv table")
    if measurements is not None and not measurements.is_dir():
        raise UsageError(f"--measurements: {str(measurements)!r} is not a folder; allowed: one with the public tables")
    for name in chosen:
        spec = catalog.load_microbenchmark(name).spec
        if spec.files and measurements is None:
            remarks.append(f"{name}: left out; its tables are not part of this project: give --measurements FOLDER")
            continue
        machine, rows, left_out = load_measurements(spec, measurements)
        remarks += left_out
        if not rows:
            continue
        found.append((spec, *_scores(machine, rows, held_out and bool(spec.files))))
    if not found:
        raise UsageError("\n".join(remarks))
    return options.show(accuracy_document(found, () if what else (MADE_BY,)), format_, remarks, show)
