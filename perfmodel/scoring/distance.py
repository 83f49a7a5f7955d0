"""How unlike the conditions of two runs are: where each lies, and the distance between."""

import math
from dataclasses import dataclass

from perfmodel.algebra import as_float
from perfmodel.prediction.deployment import PoolPlan
from perfmodel.prediction.scenario import Resolved
from perfmodel.prediction.serving import Case
from perfmodel.specs.conditions import Conditions
from perfmodel.specs.deployment import LayoutSpec, Phase
from perfmodel.specs.model import ModelSpec
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
    return _place(
        conditions.phase,
        (machine, resolved.scenario.case.model, conditions.precision),
        resolved.plan.layout,
        (as_float(conditions.isl), as_float(conditions.osl)),
    )


def place_of_pool(pool: PoolPlan, machine: Machine, case: Case) -> Place:
    """Return where a pool of a plan lies."""
    family = pool.family
    return _place(
        family.phase, (machine, case.model, family.precision), pool.layout, (as_float(case.isl), as_float(case.osl))
    )


def _place(phase: Phase, of: tuple[Machine, ModelSpec, str], layout: LayoutSpec, lengths: tuple[float, float]) -> Place:
    (machine, model, precision), (isl, osl) = of, lengths
    decode = phase == "decode"
    each = 1 + layout.draft if decode else isl
    return Place(
        phase=phase,
        chip=machine.chip.spec.name,
        model=model.name,
        overlap=layout.overlap,
        exchange=layout.exchange,
        precision=precision,
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
