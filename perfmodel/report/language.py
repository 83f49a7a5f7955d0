"""English texts of a document -> another language, by a glossary of whole texts and patterns."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from perfmodel.report.quantity import format_quantity
from perfmodel.report.table import Document, Say, Table

_BRANCH = " │├└─"
_HOLE = re.compile(r"\{(\w+)(?::(\w+))?\}")
_NUMBER = r"[-+]?\d[\d.,]*(?:e[-+]?\d+)?(?: ?(?:%|[kMGTPmunµ]?(?:i?B|FLOP|s|W)(?:/s)?)(?![A-Za-z]))?"
#: kind of a hole -> what fills it; those of kind "term" and "any" are translated, "term" must be, "any" is one clause
_KINDS = {"": rf"(?:{_NUMBER}|\S+?)", "n": _NUMBER, "term": ".+?", "any": "(?:(?!; ).)+?"}


@dataclass(frozen=True, slots=True)
class _Pattern:
    """A text with holes: its fixed parts, what it matches, the kinds of its holes, what it becomes."""

    fixed: tuple[str, ...]
    found: re.Pattern[str]
    kinds: Mapping[str, str]
    becomes: str


def _pattern(english: str, becomes: str) -> _Pattern:
    kinds = {hole[1]: hole[2] or "" for hole in _HOLE.finditer(english)}
    parts = re.split(_HOLE, english)  # text, name, kind, text, ...
    regex = "".join(
        re.escape(part) if at % 3 == 0 else f"(?P<{part}>{_KINDS[parts[at + 1] or '']})" if at % 3 == 1 else ""
        for at, part in enumerate(parts)
    )
    return _Pattern(tuple(parts[::3]), re.compile(regex), kinds, becomes)


@dataclass(frozen=True, slots=True)
class Glossary:
    """Texts by their English, patterns, and the joints at which a list of texts is taken apart.

    A text is translated whole or not at all: a list only where each of its parts is, a pattern only where each hole of
    kind "term" is.  Cells of the columns ``names`` are kept.
    """

    texts: Mapping[str, str]
    patterns: tuple[_Pattern, ...]
    joints: Mapping[str, str]
    names: frozenset[str]
    _known: dict[str, str | None] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "Glossary":
        """Return the glossary of a file: ``texts``, those with {holes} as patterns, ``joints`` and ``names``."""
        texts: dict[str, str] = content["texts"]
        patterns = [_pattern(english, becomes) for english, becomes in texts.items() if _HOLE.search(english)]
        return cls(
            texts={english: becomes for english, becomes in texts.items() if not _HOLE.search(english)},
            patterns=tuple(sorted(patterns, key=lambda one: -sum(map(len, one.fixed)))),
            joints=content["joints"],
            names=frozenset(content["names"]),
        )

    def find(self, text: str, key: str = "") -> str | None:
        """Return a text in the other language, or None where the glossary lacks it.

        ``key`` is the column that the text is a cell of, or # and the column whose heading it is.
        """
        if key in self.names:
            return text
        if (here := f"{key}:{text}") in self.texts:
            return self.texts[here]
        if text not in self._known:
            bare = text.lstrip(_BRANCH)
            found = self._whole(bare)
            self._known[text] = None if found is None else text[: len(text) - len(bare)] + found
        return self._known[text]

    def say(self, text: str, key: str = "") -> str:
        """Return a text in the other language; one that the glossary lacks stays as it is."""
        found = self.find(text, key)
        return text if found is None else found

    def _whole(self, text: str) -> str | None:
        if text in self.texts:
            return self.texts[text]
        clauses, *lists = self.joints.items()
        if (
            found := self._listed(text, *clauses)
        ) is not None:  # before patterns, so that none takes two clauses for one
            return found
        for pattern in self.patterns:
            if all(part in text for part in pattern.fixed) and (match := pattern.found.fullmatch(text)):
                filled = self._filled(pattern.kinds, match.groupdict())
                if filled is not None:
                    return pattern.becomes.format(**filled)
        return next((found for one in lists if (found := self._listed(text, *one)) is not None), None)

    def _listed(self, text: str, joint: str, becomes: str) -> str | None:
        if joint not in text:
            return None
        parts = [self.find(part) for part in text.split(joint)]
        return None if None in parts else becomes.join(part for part in parts if part is not None)

    def _filled(self, kinds: Mapping[str, str], holes: Mapping[str, str]) -> dict[str, str] | None:
        filled = {}
        for name, text in holes.items():
            found = self.find(text) if kinds[name] in ("term", "any") else text
            if found is None and kinds[name] == "term":
                return None
            filled[name] = text if found is None else found
        return filled


UNSPOKEN = ("moeplan.formula/1",)


def spoken(document: Document, say: Say) -> Document:
    """Return a document with every text said in another language: titles, headings, words in cells, notes.

    Closed forms stay as they are: their names are those of the code, in the forms and in what is given.
    """
    if document.schema in UNSPOKEN:
        return document
    return replace(
        document,
        title=say(document.title),
        answer=None if document.answer is None else spoken_table(document.answer, say),
        tables=tuple(spoken_table(table, say) for table in document.tables),
        notes=tuple(map(say, document.notes)),
    )


def spoken_table(table: Table, say: Say) -> Table:
    """Return a table with every text but units said in another language."""
    return replace(
        table,
        title=say(table.title),
        columns=tuple(replace(column, title=say(column.title, f"#{column.key}")) for column in table.columns),
        rows=tuple({key: _cell(key, value, say) for key, value in row.items()} for row in table.rows),
        notes=tuple(map(say, table.notes)),
    )


def _cell(key: str, value: Any, say: Say) -> Any:
    if key == "unit" or not isinstance(value, (str, bool)):
        return value
    return say(format_quantity(value, None), key)
