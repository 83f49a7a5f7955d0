"""What can go wrong by a user's hand, and the exit code each kind carries."""

import re
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from itertools import accumulate
from typing import ClassVar

EXIT_OK = 0
EXIT_INTERNAL = 1
EXIT_USAGE = 2
EXIT_INFEASIBLE = 3
EXIT_BAD_FILE = 4
EXIT_INTERRUPTED = 130


class MoeplanError(Exception):
    """Something a user can cause and mend; the command line prints it without a traceback."""

    exit_code: ClassVar[int] = EXIT_USAGE


class UsageError(MoeplanError):
    """An option, a name or a combination of them that cannot be carried out."""


class DataError(MoeplanError):
    """A data file that cannot be taken; holds one line per fault, all faults of the file at once."""

    exit_code: ClassVar[int] = EXIT_BAD_FILE


#: control characters, signs that turn the direction of text, and separators of lines; tabs and line ends apart
_ACTING = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff"
UNPRINTABLE = re.compile(f"[{_ACTING}]")
_OF_A_LINE = re.compile(f"[\t\n{_ACTING}]")


def printable(text: str) -> str:
    """Return a text as one line that a terminal shows and does nothing else with.

    >>> printable("a\\x1b[2Jb\\nerror: c")
    'a\\\\x1b[2Jb\\\\nerror: c'
    """
    return _OF_A_LINE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


LONGEST_LINE = 2000  # letters of a fault: a screen


def short(line: str) -> str:
    """Return a line with its middle left out where it is long: what was found and what is allowed stand at its ends.

    >>> len(short("x" * 100_000))
    1505
    """
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE // 2]} ... {line[-LONGEST_LINE // 4 :]}"


LONGEST_LIST = 1500  # letters of the names in an error: what a screen holds beside the rest of it
LEAST_NEAR = 0.6  # of letters in common, that make a word near another
LEAST_NEAR_SHORT = 0.7  # the same of words of up to three letters, where two of three are chance
LONGEST_WORD = 100  # letters of a word that are looked at
ANOTHER = 0.2  # what another generation or version takes off, as a2 for a3 and v3 for v4
_TAG = re.compile(r"(?<![a-z])([a-z]{1,2})([0-9][0-9.]*)(?![0-9a-z])")


def _tags(word: str) -> dict[str, str]:
    """Return the numbers of generations and versions in a word, as of a2 and v3."""
    return dict(_TAG.findall(word.lower()))


def _nearness(word: str, known: Iterable[str]) -> dict[str, float]:
    """Return how near known words are to another, from 0 to 1: letters in common.

    One of another generation is taken to be further away where the generation that was asked for is known at all.
    """
    word, near = word.lower()[:LONGEST_WORD], dict[str, float]()
    tags = {one: _tags(one) for one in known}
    mine = {tag: number for tag, number in _tags(word).items() if any(of.get(tag) == number for of in tags.values())}
    for one, theirs in tags.items():
        near[one] = SequenceMatcher(None, word, one.lower()).ratio()
        if sorted(word) == sorted(one.lower()):
            near[one] = max(near[one], 1 - 1 / (len(word) + 1))  # letters that changed places
        near[one] -= ANOTHER * any(theirs.get(tag, number) != number for tag, number in mine.items())
    return near


def by_nearness(word: str, known: Iterable[str]) -> list[str]:
    """Return known words, those nearest to another first.

    >>> by_nearness("atlas-900-a2", ["atlas-900-a3", "h20", "atlas-800i-a2"])
    ['atlas-800i-a2', 'atlas-900-a3', 'h20']
    """
    near = _nearness(word, known)
    return sorted(near, key=lambda one: (-near[one], one))


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that another was meant for, as spelling goes; none where none is near."""
    near = _nearness(word, known)
    first = max(near, key=lambda one: (near[one], one), default=None)
    least = LEAST_NEAR if len(word) > 3 else LEAST_NEAR_SHORT
    return first if first is not None and near[first] >= least else None


def did_you_mean(word: str, known: Sequence[str], listed: Sequence[str] | None = None) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known word, or what is known when none is near, nearest first.

    ``listed`` are the words to tell then, where many of those known mean the same.  All are told, but for those beyond
    what a screen holds, which are counted.

    >>> did_you_mean("deepsek-v3", ["deepseek-v3", "qwen3-235b-a22b"])
    "; did you mean 'deepseek-v3'?"
    """
    near = nearest(word, known)
    if near is not None:
        return f"; did you mean '{near}'?"
    words = by_nearness(word, known if listed is None else listed)
    letters = accumulate(len(one) + 2 for one in words)
    told = [one for one, so_far in zip(words, letters, strict=True) if so_far <= LONGEST_LIST]
    more = f" and {len(words) - len(told)} more" if len(told) < len(words) else ""
    return f"; known: {', '.join(told)}{more}" if words else ""
