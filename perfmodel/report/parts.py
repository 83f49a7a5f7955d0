"""Which parts of a document are shown: those asked for by name, or those it opens with."""

from collections.abc import Sequence
from dataclasses import replace

from perfmodel.errors import UsageError, did_you_mean
from perfmodel.report.table import Document

ALL, NOTES = "all", "notes"
ANSWER = "answer"


def sections_of(document: Document) -> list[str]:
    """Return the names of the sections in their order, ``notes`` last."""
    found = [table.part.split(".")[0] for table in document.tables if table.part and table.rows]
    return list(dict.fromkeys([*found, *([NOTES] if document.notes else [])]))


def parts_of(document: Document) -> list[str]:
    """Return the names of what can be asked for: sections, then single tables of them."""
    single = [table.part.split(".")[1] for table in document.tables if "." in table.part and table.rows]
    return list(dict.fromkeys([*sections_of(document), *single]))


def asked_for(document: Document, words: Sequence[str]) -> Document:
    """Return a document with the parts asked for; ``all`` is everything, ``answer`` the answer alone.

    Raises ``UsageError`` for a name that it has not; all that are allowed stand in it.
    """
    if ALL in words:
        return replace(document, opening=())
    known = parts_of(document)
    for word in words:
        if word not in (*known, ANSWER):
            names = [*known, *([ANSWER] if document.answer else []), ALL]
            listed = f"; allowed: {', '.join(names)}"
            guess = did_you_mean(word, names)
            raise UsageError(f"--show: {word!r} is no part of this result{guess if 'mean' in guess else ''}{listed}")
    return _only(replace(document, answer=document.answer if ANSWER in words else None), words)


def opened(document: Document) -> tuple[Document, tuple[str, ...]]:
    """Return a document as people see it who ask for nothing, and the sections that are kept back."""
    if document.answer is None:
        return document, ()
    shown = _only(document, document.opening)
    kept = [name for name in sections_of(document) if name not in sections_of(shown)]
    return shown, tuple(kept)


def _only(document: Document, words: Sequence[str]) -> Document:
    tables = tuple(table for table in document.tables if {table.part, *table.part.split(".")} & set(words) - {""})
    return replace(document, tables=tables, notes=document.notes if NOTES in words else (), opening=())
