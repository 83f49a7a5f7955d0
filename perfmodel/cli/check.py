"""`moeplan check`: what files are, whether they can be read, and what they say."""

from typing import Annotated

import typer

from perfmodel.cli import options
from perfmodel.errors import DataError, UsageError


def command(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Data, config.json, run-spec, plan or workload; or a folder.")
    ],
    format_: options.FormatOption = options.Format.table,
) -> None:
    """Tell what files are and what they say in one line, or all their faults.

    Example: moeplan check my-chip.yaml config.json

    Exit code 4 where a file has faults.
    """
    from perfmodel.planning.check import checked
    from perfmodel.report.check import check_document

    found = [checked(word) for word in files]
    options.show(check_document(found), format_, [remark for one in found for remark in one.remarks])
    faults = [fault for one in found for fault in one.faults]
    if faults:
        raise (UsageError if all(one.unread for one in found if one.faults) else DataError)("\n".join(faults))
