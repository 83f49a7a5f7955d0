"""Files that were looked through -> a document: what each is, and what it says or how many faults it has."""

from collections.abc import Sequence

from perfmodel.planning.check import Checked
from perfmodel.report.table import Column, Document, Table


def check_document(found: Sequence[Checked]) -> Document:
    """Return what some files are and say, one a row."""
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
    return Document(
        schema="moeplan.check/1",
        title="Files",
        tables=(Table("Files", columns, rows),),
        facts={
            "files": len(found),
            "valid": sum(not one.faults for one in found),
            "faults": [fault for one in found for fault in one.faults],
        },
    )


def _counted(faults: Sequence[str]) -> str:
    """Return how many faults there are, in words; nothing where there are none."""
    return f"{len(faults)} fault{'' if len(faults) == 1 else 's'}" if faults else ""
