"""The one place that writes to the terminal: results to stdout, remarks to stderr."""

import shutil
import sys
from dataclasses import dataclass

from perfmodel.report.render import RENDERERS
from perfmodel.report.table import Document

_ASCII = str.maketrans({"█": "#", "✓": "+", "✗": "x", "─": "-", "━": "-"})


PIPED = 160  # columns where nobody's screen is the limit and COLUMNS says nothing


@dataclass(frozen=True, slots=True)
class Terminal:
    """A terminal in one format."""

    format: str = "table"

    def result(self, document: Document) -> None:
        """Write a document to stdout."""
        width = shutil.get_terminal_size((100 if sys.stdout.isatty() else PIPED, 24)).columns
        text = RENDERERS[self.format](document, width)
        encoding = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "")
        if encoding != "utf8":
            text = text.translate(_ASCII).encode("ascii", "replace").decode()
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def remark(self, text: str) -> None:
        """Write a remark to stderr."""
        sys.stderr.write(f"note: {text}\n")
