"""`moeplan check`: what files are, whether they can be read, and what they say."""

from collections.abc import Sequence
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
    from perfmodel.report.table import Column, Document, Table

    found = [checked(word) for word in files]
    rows = tuple(
        {
            "file": one.file,
            "kind": one.kind,
            "valid": "✗" if one.faults else "✓",
            "means": _counted(one.faults) or one.means,
        }
        for one in found
    )
    columns = (Column("file", "file"), Column("kind", "is"), Column("valid", ""), Column("means", "what it says"))
    faults = [fault for one in found for fault in one.faults]
    document = Document(
        schema="moeplan.check/1",
        title="Files",
        tables=(Table("Files", columns, rows),),
        facts={"files": len(found), "valid": sum(not one.faults for one in found), "faults": faults},
    )
    options.show(document, format_, [remark for one in found for remark in one.remarks])
    if faults:
        raise (UsageError if all(one.unread for one in found if one.faults) else DataError)("\n".join(faults))


def _counted(faults: Sequence[str]) -> str:
    """Return how many faults there are, in words; nothing where there are none."""
    return f"{len(faults)} fault{'' if len(faults) == 1 else 's'}" if faults else ""
