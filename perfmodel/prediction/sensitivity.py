"""What the assumed inputs of a machine do to a result when they move over their stated range."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from perfmodel.specs.base import Figure, Known, with_value
from perfmodel.supply.machine import Machine
from perfmodel.supply.rates import Rates

UNSTATED_RANGE = 0.1  # either way, for an assumed figure whose file states no range
UNFELT = 1e-6

#: by name, a number or an array of them
Outputs = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Swing:
    """One assumed figure and the relative change of each output at its low and its high end."""

    name: str
    figure: Figure
    low: float
    high: float
    stated: bool
    changes: Mapping[str, tuple[float, float]]

    @property
    def largest(self) -> float:
        """Largest relative change of any output."""
        return max((abs(end) for ends in self.changes.values() for end in ends), default=0.0)


def _ends(figure: Figure) -> tuple[float, float, bool]:
    if figure.low is not None and figure.high is not None:
        return figure.low, figure.high, True
    return figure.value * (1 - UNSTATED_RANGE), figure.value * (1 + UNSTATED_RANGE), False


def _assumed(machine: Machine) -> list[tuple[Known[Any], str, Figure]]:
    return [
        (part, path, figure)
        for part in machine.parts
        for path, figure in part.figures.items()
        if figure.kind == "assumed"
    ]


def with_figures(machine: Machine, values: Iterable[tuple[Known[Any], str, Any]]) -> Machine:
    """Return the machine with numbers of its parts replaced: part, dotted path and value, a number or an array."""
    parts = list(machine.parts)
    for part, path, value in values:
        at = machine.parts.index(part)
        parts[at] = replace(parts[at], spec=with_value(parts[at].spec, path.split("."), value))
    return machine.with_parts(parts)


def swings(machine: Machine, evaluate: Callable[[Rates], Outputs]) -> list[Swing]:
    """Return the assumed figures that the outputs feel, the strongest first.

    Each figure moves alone, over its stated range or 10 % either way, while the layout is held
    fixed; figures that change nothing took no part in the result and are left out.

    All of them are evaluated at once: ``evaluate`` gets rates whose numbers are arrays, in which the first
    entry is the machine as it is and every other one has one figure at one of its ends.
    """
    assumed = _assumed(machine)
    columns = []
    for row, (part, path, figure) in enumerate(assumed):
        column = np.full(1 + 2 * len(assumed), figure.value)
        column[1 + 2 * row : 3 + 2 * row] = _ends(figure)[:2]
        columns.append((part, path, column))
    rates = with_figures(machine, columns).rates()
    outputs = {key: np.broadcast_to(value, 1 + 2 * len(assumed)) for key, value in evaluate(rates).items()}
    found = []
    for row, (part, path, figure) in enumerate(assumed):
        low, high, stated = _ends(figure)
        ends = {key: values[1 + 2 * row : 3 + 2 * row] / values[0] - 1 for key, values in outputs.items()}
        swing = Swing(
            name=f"{part.spec.name}: {path}",
            figure=figure,
            low=low,
            high=high,
            stated=stated,
            changes={key: (float(change[0]), float(change[1])) for key, change in ends.items()},
        )
        if swing.largest > UNFELT:
            found.append(swing)
    return sorted(found, key=lambda swing: -swing.largest)
