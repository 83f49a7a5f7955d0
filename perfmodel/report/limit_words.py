"""A predicted time beside its limit, in one line: the sign, both figures, the chance and the interval."""

from collections.abc import Mapping

from perfmodel.prediction.deployment import ROUND_OFF
from perfmodel.prediction.sureness import MARKS, verdict_of
from perfmodel.report.quantity import format_quantity, span_in_words


def verdict(met: bool, chance: float | None) -> tuple[str, str]:
    """Return the sign and the words of a limit: whether it is met, as the prediction has it and as its chance has it.

    >>> verdict(True, 0.65), verdict(True, None), verdict(True, 0.3)[0]
    (('~', 'likely'), ('✓', 'met'), '✗')
    """
    word = verdict_of(met, chance)
    return MARKS[word], "more likely missed" if met and word == "missed" else word


def time_line(value: float, limit: float | None, chance: float | None, ends: Mapping[str, float] | None) -> str:
    """Return a time beside its limit, or alone where there is none.

    >>> time_line(0.0425, 0.05, 0.652, {"low90": 0.0264, "high90": 0.0747})
    '~ 42.5 ms of 50.0 ms: likely, chance 65 % (90 %: 26.4 to 74.7 ms)'
    """
    if limit is None:
        return with_span(f"{format_quantity(value, 's')}, no limit", ends)
    sign, word = verdict(value <= limit * (1 + ROUND_OFF), chance)
    sure = "" if chance is None else f", chance {100 * chance:.0f} %"
    return with_span(f"{sign} {format_quantity(value, 's')} of {format_quantity(limit, 's')}: {word}{sure}", ends)


def with_span(words: str, ends: Mapping[str, float] | None) -> str:
    """Return words about a time with its 90 % interval behind them, where there is one."""
    return words if ends is None else f"{words} (90 %: {_span(ends)})"


def _span(ends: Mapping[str, float]) -> str:
    """Return the 90 % interval of a time, in the unit of its upper end."""
    scale, unit = (1.0, "s") if ends["high90"] >= 1 else (1e3, "ms")
    rounded = {name: float(f"{ends[name] * scale:.3g}") for name in ("low90", "high90")}
    return f"{span_in_words(rounded, 90)} {unit}"
