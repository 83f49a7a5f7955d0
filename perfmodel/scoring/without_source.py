"""A machine as it was known before a source: what was read off that source is back at what its class is known by."""

from dataclasses import replace
from typing import Any

from perfmodel.scoring.priors import OUTSIDE_OPERATORS, PRIORS, Prior
from perfmodel.specs.base import Figure, Known, value_at, with_value
from perfmodel.specs.kernels import KernelSetSpec
from perfmodel.supply.machine import Machine

NOTE = "of its class: the source of its value is left out"
#: what a source says of a product is no reading of how fast it runs: kept when the source is left out
STATED = "datasheet"


def read_off(figure: Figure, source: str) -> bool:
    """Return whether a number was worked out with what a source measured or reports."""
    return figure.kind != STATED and source in (figure.source, figure.also)


def prior_of(part: Known[Any], path: str) -> Prior | None:
    """Return what is known of a number by its class alone; none where a number is no rate, time or share of a step."""
    if isinstance(part.spec, KernelSetSpec):
        name, _, parameter = path.partition(".")
        return PRIORS[type(getattr(part.spec, name))].get(parameter) or OUTSIDE_OPERATORS.get(parameter)
    words = path.split(".")
    keys = (path.removeprefix("priors."), words[0], words[-1])
    return next((OUTSIDE_OPERATORS[key] for key in keys if key in OUTSIDE_OPERATORS), None)


def without_source(machine: Machine, source: str) -> Machine:
    """Return a machine with every number read off a source at the prior of its class, over the prior's range.

    Errors of a fit to its operators go too: they are as of a class that states none.
    """
    return (
        machine.with_parts([_part_without(part, source) for part in machine.parts])
        if read_in(machine, source)
        else machine
    )


def read_in(machine: Machine, source: str) -> bool:
    """Return whether a machine has a number that goes back to its class without a source."""
    return any(
        read_off(figure, source) and prior_of(part, path) is not None
        for part in machine.parts
        for path, figure in part.figures.items()
    )


def _part_without(part: Known[Any], source: str) -> Known[Any]:
    spec, figures = part.spec, dict(part.figures)
    for path, figure in part.figures.items():
        prior = prior_of(part, path) if read_off(figure, source) else None
        if prior is None:
            continue
        low, high = prior.ends
        spec = with_value(spec, path.split("."), prior.value)
        update = {"value": prior.value, "low": low, "high": high, "kind": "assumed", "note": NOTE, "text": "prior"}
        figures[path] = figure.model_copy(update=update)
        owner = path.split(".")[0]
        if isinstance(spec, KernelSetSpec) and value_at(spec, owner).fit is not None:
            spec = with_value(spec, [owner, "fit"], None)
            figures = {at: one for at, one in figures.items() if not at.startswith(f"{owner}.fit.")}
    return replace(part, spec=spec, figures=figures)


def kept(machine: Machine, source: str) -> list[str]:
    """Return numbers of a machine that were read off a source and have no prior of their class: limits and sizes."""
    return [
        f"{part.spec.name}: {path}"
        for part in machine.parts
        for path, figure in part.figures.items()
        if read_off(figure, source) and prior_of(part, path) is None
    ]
