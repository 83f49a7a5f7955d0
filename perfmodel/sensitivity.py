"""What the assumed inputs of a machine do to a result when they move over their stated range."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from perfmodel.rates import Rates, rates_of
from perfmodel.specs.base import Figure, Spec
from perfmodel.specs.machine import ChipSpec, StackSpec, SystemSpec

UNSTATED_RANGE = 0.1  # either way, for an assumed figure whose file states no range
UNFELT = 1e-6

Outputs = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The three specs a machine is made of, and where each of their numbers came from."""

    chip: ChipSpec
    system: SystemSpec
    stack: StackSpec
    chip_figures: Mapping[str, Figure]
    system_figures: Mapping[str, Figure]
    stack_figures: Mapping[str, Figure]

    def rates(self) -> Rates:
        """Return what one die of it gives."""
        return rates_of(self.chip, self.system, self.stack)


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


def _with_value(spec: Any, path: list[str], value: float) -> Any:
    """Return a copy of a spec with one number replaced."""
    head, rest = path[0], path[1:]
    if isinstance(spec, tuple):
        at = int(head)
        return (*spec[:at], _with_value(spec[at], rest, value), *spec[at + 1 :])
    assert isinstance(spec, Spec)
    return spec.model_copy(update={head: _with_value(getattr(spec, head), rest, value) if rest else value})


def _ends(figure: Figure) -> tuple[float, float, bool]:
    if figure.low is not None and figure.high is not None:
        return figure.low, figure.high, True
    return figure.value * (1 - UNSTATED_RANGE), figure.value * (1 + UNSTATED_RANGE), False


def swings(machine: Machine, evaluate: Callable[[Rates], Outputs]) -> list[Swing]:
    """Return the assumed figures that the outputs feel, the strongest first.

    Each figure moves alone, over its stated range or 10 % either way, while the layout is held
    fixed; figures that change nothing took no part in the result and are left out.
    """
    middle = evaluate(machine.rates())
    found = []
    parts: tuple[tuple[str, Any, Mapping[str, Figure]], ...] = (
        ("chip", machine.chip, machine.chip_figures),
        ("system", machine.system, machine.system_figures),
        ("stack", machine.stack, machine.stack_figures),
    )
    for part, spec, figures in parts:
        for path, figure in figures.items():
            if figure.kind != "assumed":
                continue
            low, high, stated = _ends(figure)
            ends = []
            for value in (low, high):
                specs = {"chip": machine.chip, "system": machine.system, "stack": machine.stack}
                specs[part] = _with_value(spec, path.split("."), value)
                ends.append(evaluate(rates_of(**specs)))  # type: ignore[arg-type]
            changes = {key: (ends[0][key] / middle[key] - 1, ends[1][key] / middle[key] - 1) for key in middle}
            swing = Swing(
                name=f"{spec.name}: {path}", figure=figure, low=low, high=high, stated=stated, changes=changes
            )
            if swing.largest > UNFELT:
                found.append(swing)
    return sorted(found, key=lambda swing: -swing.largest)
