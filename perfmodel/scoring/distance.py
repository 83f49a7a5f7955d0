"""How unlike the conditions of two runs are: where each lies, and the distance between."""

import math
from dataclasses import dataclass

from perfmodel.prediction.scenario import Resolved
from perfmodel.specs.conditions import Conditions
from perfmodel.supply.machine import Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a row lies among the conditions: what the distance to another is taken over."""

    phase: str
    chip: str
    model: str
    overlap: str
    exchange: str
    precision: str
    dies: float
    tokens: float
    context: float


def place_of(conditions: Conditions, machine: Machine, resolved: Resolved) -> Place:
    """Return where a run lies: tokens are those of a die in a step, context the mean that a token attends to."""
    layout = resolved.plan.layout
    decode, isl, osl = conditions.phase == "decode", conditions.isl, conditions.osl
    each = 1 + layout.draft if decode else isl
    return Place(
        phase=conditions.phase,
        chip=machine.chip.spec.name,
        model=resolved.scenario.case.model.name,
        overlap=layout.overlap,
        exchange=layout.exchange,
        precision=conditions.precision,
        dies=layout.dies,
        tokens=layout.batch * each / layout.tp,
        context=isl + osl / 2 if decode else isl / 2,
    )


def distance(one: Place, other: Place) -> float:
    """Return how unlike two rows are in their conditions; infinite across phases.

    The mean of |ln ratio| over dies, tokens of a die in a step and mean context, and 1 for each of chip, model,
    overlap, exchange and precision that differs: another chip counts as a factor e in all three sizes.
    A convention for finding a neighbour, not a measure of error.
    """
    if one.phase != other.phase:
        return math.inf
    sizes = ((one.dies, other.dies), (one.tokens, other.tokens), (one.context, other.context))
    kinds = ("chip", "model", "overlap", "exchange", "precision")
    apart = sum(abs(math.log(a / b)) for a, b in sizes) / len(sizes)
    return apart + sum(bool(getattr(one, kind) != getattr(other, kind)) for kind in kinds)
