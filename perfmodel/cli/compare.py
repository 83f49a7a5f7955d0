"""`moeplan compare`: two plans side by side."""

from typing import Annotated

import typer

from perfmodel.cli import options
from perfmodel.cli.what_if import run_of
from perfmodel.errors import UsageError


def command(
    first: Annotated[str, typer.Argument(help="Plan file, or the name or file of a published row or deployment.")],
    second: Annotated[str, typer.Argument(help="The other.")],
    format_: options.FormatOption = options.Format.table,
) -> None:
    """Show what differs between two plans and what each difference is worth.

    Example: moeplan compare cm384-decode-4k-b96 xds-colocated-decode
    """
    from perfmodel.plan_compare import differences, row_differences
    from perfmodel.report.plan_compare import compare_document

    runs = [run_of(word, None, None, None, None) for word in (first, second)]
    if not runs[0].pools.keys() & runs[1].pools.keys():
        raise UsageError(
            f"{first} is of {', '.join(runs[0].pools)}, {second} of {', '.join(runs[1].pools)}; "
            "allowed: two with a pool of the same phase"
        )
    found = compare_document(
        runs[0], runs[1], (first, second), differences(runs[0], runs[1]), row_differences(runs[0], runs[1])
    )
    options.show(found, format_, [])
