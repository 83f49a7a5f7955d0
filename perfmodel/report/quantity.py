"""SI numbers for people: a prefix and three significant digits."""

import math
from collections.abc import Mapping
from typing import Any

_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_SMALL = ((1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n"))
UNREADABLE = 1e6
BAR_WIDTH, SPAN_WIDTH = 12, 24  # cells of a share, and of a piece of a waterfall
_EIGHTHS = " ▏▎▍▌▋▊▉"
_THREE_DIGITS = 1000


def format_quantity(value: object, unit: str | None) -> str:
    """Return a cell as text.

    >>> format_quantity(0.0494, "s")
    '49.4 ms'
    >>> format_quantity(1.6e12, "B/s")
    '1.60 TB/s'
    """
    if unit == "bar":
        return _bar(value)
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) or unit is None:
        return str(value)
    number = float(str(value))
    if not math.isfinite(number):
        return "-"
    match unit:
        case "%":
            return f"{100 * number:.1f} %"
        case "1" | "1/s":
            return _digits(number) if abs(number) < _THREE_DIGITS else f"{number:,.0f}"
        case "s":
            return _prefixed(number, unit, _SMALL)
        case _:
            return _prefixed(number, unit, _PREFIXES)


def _bar(value: Any) -> str:
    """Return a drawing: a share as a bar, two ends as a piece of one, darker where it grows; text as it is.

    >>> _bar(0.3), _bar((0.75, 0.5))
    ('███▋', '            ░░░░░░')
    """
    match value:
        case None:
            return ""
        case str():
            return value
        case (first, last):
            low, high = (round(SPAN_WIDTH * float(end(first, last))) for end in (min, max))
            return " " * low + ("█" if last >= first else "░") * max(high - low, 1)
        case _:
            whole, part = divmod(round(8 * BAR_WIDTH * max(0.0, float(value))), 8)
            return ("█" * whole + _EIGHTHS[part]).rstrip()


def _digits(number: float) -> str:
    if number == 0 or number == int(number):
        return f"{number:.0f}"
    decimals = max(0, 2 - math.floor(math.log10(abs(number))))
    return f"{number:.{decimals}f}"


def _prefixed(number: float, unit: str, scales: tuple[tuple[float, str], ...]) -> str:
    if number == 0:
        return f"0 {unit}"
    for scale, prefix in scales:
        if abs(number) >= scale * 0.9995:
            if abs(number) / scale >= UNREADABLE:
                return f"{number:.3g} {unit}"
            decimals = max(0, 2 - math.floor(math.log10(abs(number) / scale) + 1e-4))
            return f"{number / scale:.{decimals}f} {prefix}{unit}"
    scale, prefix = scales[-1]
    return f"{number / scale:.3g} {prefix}{unit}"


def range_in_words(low: float | None, high: float | None) -> str:
    """Return a stated range, in the unit that its value has; nothing where none is stated.

    >>> range_in_words(0.85, 12345.6), range_in_words(None, None)
    ('0.85 to 1.235e+04', '')
    """
    if low is None or high is None:
        return ""
    return f"{low:.4g} to {high:.4g}"


def span_in_words(ends: Mapping[str, float], width: int, scale: float = 1.0) -> str:
    """Return the ends of the 50 % or the 90 % interval, in a unit of which ``scale`` make one of the values'.

    >>> span_in_words({"low90": 0.04, "high90": 1234.5}, 90)
    '0.04 to 1,234'
    """

    def text(value: float) -> str:
        return f"{value:,.0f}" if abs(value) >= _THREE_DIGITS else f"{value:.4g}"

    return f"{text(ends[f'low{width}'] * scale)} to {text(ends[f'high{width}'] * scale)}"


def ends_in_words(ends: Mapping[str, float], scale: float = 1.0, unit: str = "") -> str:
    """Return the 50 % and the 90 % interval in words."""
    return ", ".join(f"{width} %: {span_in_words(ends, width, scale)}{unit}" for width in (50, 90))
