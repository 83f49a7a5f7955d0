"""What moving an input does to a number: where its choices flip, and its slopes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.algebra import as_float
from perfmodel.closed_form.run import Point, Run, Wanted, units_of
from perfmodel.closed_form.symbols import Values, taken
from perfmodel.prediction.sensitivity import with_figures
from perfmodel.specs.base import Figure
from perfmodel.supply.machine import Machine

SMALL_STEP = 1e-4  # relative, of a central difference
FELT = 1e-3  # elasticity from which an input is told of
POINTS = 161  # of a grid on which a flip is looked for
REACH = 10.0  # times a rate is made slower and faster in looking for a flip
MOST_SEQUENCES = 4096  # of a rank, in looking for a flip
RATES = ("B/s", "FLOP", "Hz")  # units of hardware figures whose flips are looked for
SAME = 1e-6  # relative, to which the flip of a rate is narrowed down

Grid = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """An input, and its nearest values below and above the plan's where a choice takes something else."""

    by: str
    unit: str
    now: float
    below: float | None
    above: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Slope:
    """How a number answers to an input: its derivative, and its elasticity as the input falls and rises.

    Not a number on a side that lies beyond the input's stated range.
    """

    input: str
    value: float
    unit: str
    derivative: float
    down: float
    up: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Input:
    """An input that may move, and how far a flip is looked for."""

    name: str
    unit: str
    now: float
    ends: tuple[float, float]
    whole: bool
    moved: Callable[[Grid], Point]


def _spaced(start: float, end: float, whole: bool) -> Grid:
    """Return values from one to another, in order, whole ones without repeats."""
    grid: Grid = np.geomspace(start, end, POINTS)
    grid[0], grid[-1] = start, end
    if whole:
        grid = np.round(grid)
        grid = grid[np.concatenate(([True], np.diff(grid) != 0))]
    return grid


class Flips:
    """Looks for the values of inputs at which choices of one number flip, with the code that works it out."""

    def __init__(self, wanted: Wanted, inputs: Iterable[_Input], completed: Callable[[Any], Values]) -> None:
        self.wanted = wanted
        self.completed = completed
        self.inputs = tuple(inputs)
        self._seen: dict[tuple[str, float, float], tuple[Grid, Values]] = {}

    def _along(self, one: _Input, start: float, end: float) -> tuple[Grid, Values]:
        key = (one.name, start, end)
        if key not in self._seen:
            grid = _spaced(start, end, one.whole)
            run = Run(one.moved(grid))
            with np.errstate(all="ignore"):  # both sides of a condition are worked out
                run.number(self.wanted)
                self._seen[key] = grid, self.completed(run.values)
        return self._seen[key]

    def _edge(self, choice: Any, one: _Input, end: float, here: int) -> float | None:
        """Return the nearest value towards an end at which a choice takes another branch."""
        inside, outside = one.now, end
        while True:
            grid, values = self._along(one, inside, outside)
            other = np.flatnonzero(np.broadcast_to(taken(choice, values), grid.shape) != here)
            if not len(other):
                return None
            inside, outside = float(grid[max(0, other[0] - 1)]), float(grid[other[0]])
            if abs(outside - inside) <= (1 if one.whole else SAME * one.now):
                return outside

    def of(self, choice: Any, here: int) -> tuple[Flip, ...]:
        """Return the inputs that flip a choice, and where."""
        found = []
        for one in self.inputs:
            below, above = (self._edge(choice, one, end, here) if end != one.now else None for end in one.ends)
            if below is not None or above is not None:
                found.append(Flip(by=one.name, unit=one.unit, now=one.now, below=below, above=above))
        return tuple(found)


def _figures(machine: Machine) -> list[tuple[Any, str, Figure, str]]:
    """Return the numbers of a machine that can move a little: not 0, and no dies or cores, which are counted."""
    found = []
    for part in machine.parts:
        counted = part in (machine.chip, machine.system)
        for path, figure in part.figures.items():
            *owners, last = path.split(".")
            owner = part.spec
            for key in owners:
                owner = owner[int(key)] if isinstance(owner, tuple) else getattr(owner, key)
            unit = units_of(owner)[last]
            if figure.value and not (counted and unit == "1" and float(figure.value).is_integer()):
                found.append((part, path, figure, unit))
    return found


def inputs_of(point: Point, machine: Machine) -> list[_Input]:
    """Return the inputs whose flips are looked for: batch, input length, and the rates of the hardware."""
    layout, case = point.layout, point.case
    longest = case.model.max_position_embeddings - as_float(case.osl)
    batch, isl = as_float(layout.batch), as_float(case.isl)

    def of_batch(grid: Grid) -> Point:
        return replace(point, layout=replace(layout, batch=grid))

    def of_isl(grid: Grid) -> Point:
        return replace(point, case=replace(case, isl=grid))

    def of_figure(part: Any, path: str) -> Callable[[Grid], Point]:
        def moved(grid: Grid) -> Point:
            return replace(point, case=replace(case, rates=with_figures(machine, [(part, path, grid)]).rates()))

        return moved

    most = max(MOST_SEQUENCES, batch)
    found = [
        _Input(name="batch", unit="1", now=batch, ends=(1, most), whole=True, moved=of_batch),
        _Input(name="isl", unit="1", now=isl, ends=(1, max(longest, isl)), whole=True, moved=of_isl),
    ]
    for part, path, figure, unit in _figures(machine):
        if part in (machine.chip, machine.system) and unit in RATES:
            ends, name = (figure.value / REACH, figure.value * REACH), f"{part.spec.name}: {path}"
            moved = of_figure(part, path)
            found.append(_Input(name=name, unit=unit, now=figure.value, ends=ends, whole=False, moved=moved))
    return found


def slopes_of(wanted: Wanted, point: Point, machine: Machine) -> list[Slope]:
    """Return what a number answers to, the strongest first, by differences of the code that works it out."""
    layout, case = point.layout, point.case
    step = np.array([1 - SMALL_STEP, 1, 1 + SMALL_STEP])
    loads: dict[str, tuple[Any, Callable[[Any], Point]]] = {
        "batch": (layout.batch, lambda x: replace(point, layout=replace(layout, batch=x))),
        "isl": (case.isl, lambda x: replace(point, case=replace(case, isl=x))),
        "osl": (case.osl, lambda x: replace(point, case=replace(case, osl=x))),
    }
    for i, rate in enumerate(case.acceptance):
        if rate:
            loads[f"acceptance_{i + 1}"] = rate, _accepting(point, i)
    ends: list[tuple[str, str, float, Grid, tuple[bool, bool]]] = []
    for name, (now, at) in loads.items():
        ends.append((name, "1", now, np.broadcast_to(Run(at(now * step)).number(wanted), 3), (False, False)))
    figures = _figures(machine)
    columns = []
    for i, (part, path, figure, _) in enumerate(figures):
        column = np.full(3 * len(figures), figure.value)
        column[3 * i : 3 * i + 3] *= step
        columns.append((part, path, column))
    rates = with_figures(machine, columns).rates()
    moved = Run(replace(point, case=replace(case, rates=rates))).number(wanted)
    moved = np.broadcast_to(moved, 3 * len(figures)).reshape(-1, 3)
    for (part, path, figure, unit), three in zip(figures, moved, strict=True):
        least = figure.low is not None and figure.value <= figure.low
        most = figure.high is not None and figure.value >= figure.high
        ends.append((f"{part.spec.name}: {path}", unit, figure.value, three, (least, most)))
    found: list[tuple[float, Slope]] = []
    for name, unit, now, (low, middle, high), ended in ends:
        sides = [float(change) / SMALL_STEP / float(middle) for change in (middle - low, high - middle)]
        free = [side for side, at_end in zip(sides, ended, strict=True) if not at_end]
        felt = max(map(abs, free), default=0.0)
        if felt > FELT:
            down, up = (np.nan if at_end else side for side, at_end in zip(sides, ended, strict=True))
            slope = sum(free) / len(free) * float(middle) / now
            found.append((felt, Slope(input=name, value=now, unit=unit, derivative=slope, down=down, up=up)))
    return [slope for _, slope in sorted(found, key=lambda pair: -pair[0])]


def _accepting(point: Point, position: int) -> Callable[[Any], Point]:
    """Return a point at other acceptances of one draft position."""
    accepted = point.case.acceptance

    def at(rate: Any) -> Point:
        moved = (*accepted[:position], rate, *accepted[position + 1 :])
        return replace(point, case=replace(point.case, acceptance=moved))

    return at
