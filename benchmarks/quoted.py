"""What pages quote of the program: each block is run again, and its lines are looked for in what is printed.

A block is fenced as ``console``: one line ``$ moeplan ...``, and below it lines of the output at 80 columns, in their
order. A line ``...`` stands for lines that are left out; so may the first lines and the last. Commands of a page run in
one folder, one after another, so that a later one reads the file that an earlier one wrote.
"""

import difflib
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

FENCE, PROMPT, LEFT_OUT = "```console", "$ moeplan ", "..."
#: columns of a terminal that pages quote
COLUMNS = "80"
#: how alike a quoted line and the one that takes its place are at least, numbers aside, 0 to 1
ALIKE = 0.5
#: words of a command -> what it printed, remarks first
Runs = Callable[[Sequence[str]], str]


@dataclass(frozen=True, slots=True)
class Block:
    """A command of a page and what is quoted of its output."""

    #: number of the line of the command, from 1
    line: int
    command: str
    quoted: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        """Return the words of the command without the program's name."""
        return shlex.split(self.command.removeprefix(PROMPT))

    def runs(self) -> Iterator[list[tuple[int, str]]]:
        """Yield lines that stand together, each with its number on the page."""
        kept: list[tuple[int, str]] = []
        for number, text in enumerate(self.quoted, self.line + 1):
            if text == LEFT_OUT:
                yield kept
                kept = []
            else:
                kept.append((number, text))
        yield kept


def blocks(text: str) -> list[Block]:
    """Return the blocks of a page; raises ``ValueError`` for one that does not begin with a command."""
    found = []
    lines = iter(enumerate(text.splitlines(), 1))
    for _, line in lines:
        if line != FENCE:
            continue
        at, command = next(lines)
        if not command.startswith(PROMPT):
            raise ValueError(f"line {at}: {command!r}; allowed: a block of {FENCE} begins with {PROMPT!r}")
        quoted = []
        for _, inner in lines:
            if inner == "```":
                break
            quoted.append(inner)
        found.append(Block(at, command, tuple(quoted)))
    return found


def _place(wanted: Sequence[str], printed: Sequence[str], start: int) -> int | None:
    """Return where lines stand together in what is printed, not before ``start``."""
    last = len(printed) - len(wanted)
    return next((at for at in range(start, last + 1) if list(printed[at : at + len(wanted)]) == list(wanted)), None)


def moved(block: Block, output: str) -> list[str]:
    """Return a text for each quoted line that the output does not have in its place."""
    printed, start, found = [line.rstrip() for line in output.splitlines()], 0, []
    for run in block.runs():
        at = _place([text for _, text in run], printed, start)
        if at is not None:
            start = at + len(run)
            continue
        for number, text in run:
            if text not in printed:
                near = _nearest(text, printed)
                now = "nothing like it" if near is None else repr(printed[near])
                found.append(f"line {number}: quoted {text!r}; now {now}")
        if not found:
            found.append(f"line {run[0][0]}: quoted lines stand apart or in another order now")
    return found


def _bare(text: str) -> str:
    return re.sub(r"[\d.,]+", "#", text)


def _nearest(text: str, printed: Sequence[str], start: int = 0) -> int | None:
    """Return the place of the line that says most nearly the same, numbers aside; None where none does."""
    label = re.match(r"\S.*?(?=  )", text)
    best, place = ALIKE, None
    for at in range(start, len(printed)):
        line = printed[at]
        likeness = difflib.SequenceMatcher(None, _bare(text), _bare(line), autojunk=False).ratio()
        if label and line.startswith(label[0] + "  "):
            likeness += 1
        if likeness > best:
            best, place = likeness, at
    return place


def _anew(block: Block, output: str) -> list[str]:
    """Return what is quoted as it is printed now: from the first to the last line of each run that stood together.

    Raises ``ValueError`` where the output has nothing like a line.
    """
    printed, start, lines = [line.rstrip() for line in output.splitlines()], 0, []
    for number, run in enumerate(block.runs()):
        texts = [text for _, text in run]
        places = []
        for at, text in enumerate(texts):
            if text and (at == 0 or not text.startswith(" ")):
                place = _nearest(text, printed, start)
                if place is None:
                    raise ValueError(f"line {run[at][0]}: {text!r}: nothing like it is printed now; write it by hand")
                places.append(place)
        lines += [LEFT_OUT] if number else []
        if not places:
            continue
        first, end = min(places), max(places) + 1
        while end < len(printed) and printed[end].startswith(" "):
            end += 1
        lines += printed[first:end]
        start = end
    return lines


def rewritten(text: str, runs: Runs) -> str:
    """Return a page with its quoted lines as they are printed now."""
    lines = text.splitlines()
    for block in reversed([(one, runs(one.words)) for one in blocks(text)]):
        one, output = block
        if moved(one, output):
            lines[one.line : one.line + len(one.quoted)] = _anew(one, output)
    return "\n".join(lines) + "\n"


def pages(root: Path) -> list[Path]:
    """Return the pages that quote what the program prints."""
    found = [*sorted(root.glob("README*.md")), *sorted((root / "docs").glob("*.md"))]
    return [path for path in found if FENCE in path.read_text(encoding="utf-8").splitlines()]
