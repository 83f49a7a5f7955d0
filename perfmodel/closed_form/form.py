"""The closed form of a number at a plan."""

from dataclasses import dataclass
from typing import Any

from perfmodel.closed_form.inputs import Flip, Flips, Slope, inputs_of, slopes_of
from perfmodel.closed_form.run import Point, Run, Wanted
from perfmodel.closed_form.symbols import branches_of, taken, taken_form, value_of
from perfmodel.supply.machine import Machine


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Line:
    """One name: its form in the names of lines before it, or None where it is given, and its value here."""

    stage: str
    name: str
    #: none of a piece that a larger form was cut into
    unit: str | None
    form: Any
    value: float
    #: the form with each choice replaced by what it takes here
    here: Any


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Choice:
    """A maximum, minimum or condition that the number depends on here, what it takes and what it leaves."""

    line: str
    node: Any
    taken: Any
    left: tuple[Any, ...]
    flips: tuple[Flip, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClosedForm:
    """A number with all that it follows from."""

    wanted: Wanted
    lines: tuple[Line, ...]
    choices: tuple[Choice, ...]
    slopes: tuple[Slope, ...]


class Forms:
    """The forms of one number, and the values of their names at the plan."""

    def __init__(self, wanted: Wanted, point: Point) -> None:
        plan = Run(point)
        plan.number(wanted)
        self.run = Run(point, plan)
        result = self.run.number(wanted)
        self.result = str(result)
        needed: set[str] = set()
        open_ = [one.name for end in (result, self.run.aside) for one in getattr(end, "free_symbols", ())]
        while open_:
            name = open_.pop()
            if name not in needed:
                needed.add(name)
                form = self.run.notes[name][2]
                open_ += [] if form is None else [one.name for one in form.free_symbols]
        self.needed = [name for name in self.run.notes if name in needed]
        self.values = self.completed(plan.values)

    def completed(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return the values of a run of numbers with those of the pieces that forms were cut into."""
        values = dict(values)
        for name in self.needed:
            _, unit, form = self.run.notes[name]
            if unit is None:
                values[name] = value_of(form, values)
        return values

    def lines(self) -> list[tuple[Line, list[Any]]]:
        """Return the lines in order, each with the choices it makes."""
        found = []
        for name in self.needed:
            stage, unit, form = self.run.notes[name]
            met: list[Any] = []
            here = None if form is None else taken_form(form, self.values, met)
            value = float(self.values[name])
            found.append((Line(stage=stage, name=name, unit=unit, form=form, value=value, here=here), met))
        return found


def closed_form(wanted: Wanted, point: Point, machine: Machine) -> ClosedForm:
    """Return the closed form of a number at a plan, where its choices flip, and what it answers to."""
    forms = Forms(wanted, point)
    lines = forms.lines()
    flips = Flips(wanted, inputs_of(point, machine), forms.completed)
    choices = []
    for line, met in lines:
        for choice in met:
            at, branches = int(taken(choice, forms.values)), branches_of(choice)
            left = tuple(branch for i, branch in enumerate(branches) if i != at)
            found = flips.of(choice, at)
            choices.append(Choice(line=line.name, node=choice, taken=branches[at], left=left, flips=found))
    slopes = slopes_of(wanted, point, machine) if wanted.value else []
    return ClosedForm(
        wanted=wanted, lines=tuple(line for line, _ in lines), choices=tuple(choices), slopes=tuple(slopes)
    )
