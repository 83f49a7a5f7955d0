"""The words of a page in one language."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perfmodel.report.table import Say, in_english


@dataclass(frozen=True, slots=True)
class Words:
    """Texts by key, and words of shared tables by themselves."""

    texts: Mapping[str, Any]
    #: what translates the tables that are shared with the other commands
    shared: Say = in_english

    def say(self, key: str, **values: Any) -> str:
        """Return a text with its values put in."""
        return str(self.texts[key]).format(**values)

    def term(self, word: str, key: str = "") -> str:
        """Return a word of a shared table or plot; one that is listed nowhere stays as it is."""
        return str(self.texts["terms"].get(word) or self.shared(word, key))

    def part(self, word: str) -> str:
        """Return the name of a part of a step; one that is listed nowhere stays as it is."""
        return str(self.texts["parts"].get(word) or self.shared(word))
