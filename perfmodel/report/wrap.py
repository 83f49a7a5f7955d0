"""Text -> lines of a width in terminal cells: broken at spaces and between wide characters, never inside a word."""

import re

#: Chinese, Japanese and Korean characters, which may stand at either end of a line
_WIDE = "\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6"
_WIDE += "\U00020000-\U0003fffd"
_OPENING = "（「『【《“‘"  # never last on a line
_CLOSING = "、。，．：；？！）」』】》”’"  # never first on a line
_ASCII = ",.;:?!)%"  # nor these behind a wide character
_PIECE = re.compile(f"[ \t]*[{_OPENING}]*(?:[{_WIDE}][{_CLOSING}{_ASCII}]*|[^ \t{_WIDE}]+)[{_CLOSING}]*")
#: the space between a number and its unit, which holds them together
_BOUND = re.compile(r"(?<=\d) (?=(?:%|[kMGTP]?i?B(?:/s)?|[mnuµ]?s|[kMGTP]?FLOP(?:/s)?)(?![A-Za-z0-9]))")
_HELD = "\N{NO-BREAK SPACE}"


def cells(text: str) -> int:
    """Return how many cells of a terminal a text takes.

    >>> cells("昇腾"), cells("Ascend")
    (4, 6)
    """
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _pieces(line: str) -> list[str]:
    return _PIECE.findall(_BOUND.sub(_HELD, line))


def longest(text: str) -> int:
    """Return the cells of the longest part of a text that holds together.

    >>> longest("took 49.4 ms")
    7
    """
    return max((cells(piece.lstrip(" \t")) for line in text.split("\n") for piece in _pieces(line)), default=0)


def wrap(text: str, width: int, hang: str = "") -> list[str]:
    """Return the lines of a text; those after the first begin with ``hang``.

    A part longer than the width stands on a line of its own, whole.

    >>> wrap("a limit of 50 ms", 12)
    ['a limit of', '50 ms']
    """
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = hang if lines else ""
        for piece in _pieces(paragraph):
            if line.strip() and cells(line) + cells(piece) > width:
                lines.append(line)
                line = hang + piece.lstrip(" \t")
            else:
                line += piece
        lines.append(line)
    return [line.replace(_HELD, " ").rstrip() for line in lines]
