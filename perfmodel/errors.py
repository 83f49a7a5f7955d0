"""What can go wrong by a user's hand, and the exit code each kind carries."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
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


LONGEST_LINE = 1000  # letters of a fault


def short(line: str) -> str:
    """Return a line with its middle left out where it is long: what was found and what is allowed stand at its ends.

    >>> len(short("x" * 100_000))
    755
    """
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE // 2]} ... {line[-LONGEST_LINE // 4 :]}"


MOST_LISTED = 20  # names in one line of an error


def nearest(word: str, known: Sequence[str]) -> str | None:
    """Return the known word that another was meant for, as spelling goes; none where none is near."""
    return next(iter(get_close_matches(word.lower(), known, n=1, cutoff=0.6)), None)


def did_you_mean(word: str, known: list[str], listed: list[str] | None = None) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known word, or what is known when none is near.

    ``listed`` are the words to tell then, where many of those known mean the same.

    >>> did_you_mean("deepsek-v3", ["deepseek-v3", "qwen3-235b-a22b"])
    "; did you mean 'deepseek-v3'?"
    """
    near = nearest(word, known)
    if near is not None:
        return f"; did you mean '{near}'?"
    words = sorted(set(known if listed is None else listed))
    more = f" and {len(words) - MOST_LISTED} more" if len(words) > MOST_LISTED else ""
    return f"; known: {', '.join(words[:MOST_LISTED])}{more}" if words else ""
