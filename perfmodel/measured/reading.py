"""One table while it is read, in whatever form: numbers, faults, rows left out, and what it does not say itself."""

import csv
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from perfmodel.measured.shapes import OPERATORS, Attention, Measurement

Row = Mapping[str, str]
MICRO, MILLI = 1e-6, 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a table does not say itself."""

    attention: Attention | None = None
    #: dies of the expert-parallel group of profiled dispatch and combine
    ep: int | None = None
    #: what ``message_size`` counts in ``*_perf.csv``; by default bytes where the file names its library
    messages: Literal["bytes", "elements"] | None = None
    #: operators taken, by default all, and sizes below which a row is left out
    only: tuple[str, ...] = ()
    at_least: Mapping[str, float] = field(default_factory=dict)


LARGEST = 1e12  # of a size or a time in a table; no measured call has more


@dataclass(slots=True)
class Reading:
    """Faults and left-out rows of one file, as they are found."""

    path: Path
    context: Context
    faults: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def number(self, row: Row, line: int, column: str) -> float:
        """Return a positive number, or note a fault and return NaN."""
        text = (row.get(column) or "").strip().strip('"').strip()
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 < value <= LARGEST:
            allowed = "a number above zero" if not value > LARGEST else f"at most {LARGEST:.0e}"
            self.faults.append(f"{self.path}:{line}: {column}: found {text!r}; allowed: {allowed}")
            return math.nan
        return value

    def build(self, operator: str, values: Mapping[str, float], line: int, time: float) -> Measurement | None:
        """Return the measurement of one row, or nothing where a value is missing."""
        known = OPERATORS[operator]
        if self.context.only and operator not in self.context.only:
            self.left_out[f"{operator} is not among those asked for"] += 1
            return None
        small = [name for name, least in self.context.at_least.items() if values.get(name, math.inf) < least]
        if small:
            self.left_out[f"{operator} below the least {' and '.join(small)} asked for"] += 1
            return None
        if any(math.isnan(value) for value in (*values.values(), time)):
            return None
        if known.attention and self.context.attention is None:
            fault = (
                f"{self.path}:{line}: operator: {operator} needs the sizes of a model's heads; "
                "allowed: rows of attention with a model; add --model NAME"
            )
            if not any("needs the sizes of a model" in one for one in self.faults):
                self.faults.append(fault)
            return None
        try:
            op, shape = known.build({**known.defaults, **values}, self.context.attention)
        except (ZeroDivisionError, OverflowError):  # sizes next to nothing, say, of which floats leave nothing
            found = ", ".join(f"{name} {value:g}" for name, value in values.items())
            self.faults.append(f"{self.path}:{line}: {operator}: found {found}; allowed: sizes of a call that was made")
            return None
        return Measurement(op=op, shape=f"{operator} {shape}", time=time, where=f"{self.path}:{line}")


Reader = Callable[[Reading, "csv.DictReader[str]", list[str]], Iterator[Measurement | None]]
