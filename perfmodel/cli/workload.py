"""`moeplan workload`: what a trace says of the load, and a small file that stands for it."""

from typing import Annotated

import typer

from perfmodel.cli import options


def command(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Trace, benchmark result, histogram or summary.")],
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out lines that are no requests; they are counted by kind.")
    ] = False,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="NAME.yaml", help="Write a summary that is read as the file is."),
    ] = None,
    force: options.ForceOption = False,
    format_: options.FormatOption = options.Format.table,
) -> None:
    """Show the lengths, arrivals and prefix hits of real requests.

    Example: moeplan workload trace.jsonl

    Example: moeplan workload trace.csv --skip-bad -o load.yaml

    The form is found from the content: JSONL of Mooncake, Qwen-Bailian or aiperf, the result of vllm bench serve, CSV
    of Azure or BurstGPT, CSV of isl, osl and count, or what -o wrote.
    """
    from perfmodel.files.workloads import write_workload
    from perfmodel.files.writing import target
    from perfmodel.planning.workload import described
    from perfmodel.report.workload import workload_document

    to = None if output is None else target(output, option="--output", suffixes=(".yaml", ".yml"), force=force)
    found = described(file, skip_bad)
    remarks = list(found.workload.remarks)
    if to is not None:
        write_workload(to, found.workload)
        remarks.append(f"{output}: written")
    options.show(workload_document(found), format_, remarks)
