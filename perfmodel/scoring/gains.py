"""Published gains of techniques beside what the model predicts for them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from perfmodel.algebra import as_float
from perfmodel.errors import UsageError
from perfmodel.prediction.quantities import predicted
from perfmodel.prediction.scenario import Resolved, breakdown_of, of_conditions, resolve
from perfmodel.prediction.techniques import with_setting
from perfmodel.specs.base import faults_in
from perfmodel.specs.conditions import Conditions
from perfmodel.specs.model import ModelSpec
from perfmodel.specs.technique import Gain
from perfmodel.supply.machine import Machine
from perfmodel.supply.techniques import Technique, Techniques

#: a size is right when it is within this part of the published one
SIZE = 1 / 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredGain:
    """A published gain and the predicted one: a relative change, or a difference in ``gain.unit``."""

    technique: Technique
    gain: Gain
    predicted: float

    @property
    def sign_right(self) -> bool:
        """Whether prediction and publication go the same way."""
        return self.predicted * self.gain.value > 0

    @property
    def size_right(self) -> bool:
        """Whether the predicted size is within a third of the published one."""
        return abs(self.predicted - self.gain.value) <= SIZE * abs(self.gain.value)


def merged(conditions: Conditions, change: Mapping[str, Any]) -> Conditions:
    """Return conditions with keys changed, those of the layout one by one.

    Raises ``UsageError`` with a line for each value that is not allowed.
    """
    values = conditions.model_dump()
    values["layout"] = {**values["layout"], **change.get("layout", {})}
    try:
        return Conditions(**{**values, **{key: value for key, value in change.items() if key != "layout"}})
    except ValidationError as error:
        raise UsageError("\n".join(faults_in(error, inside="layout"))) from None


def score(
    technique: Technique, gain: Gain, base: Conditions, model: ModelSpec, machine: Machine, techniques: Techniques
) -> ScoredGain:
    """Return a published gain with the prediction beside it.

    ``base`` holds on both sides, and so does what a setting does not fix; ``machine`` is set up for it.
    """
    sides = []
    for name in (gain.off, gain.on):
        conditions, changed = base, machine
        for other, setting in (*gain.beside.items(), (technique.spec.name, name)):
            conditions, changed = with_setting(techniques[other], setting, conditions, changed, model)
        sides.append(quantity(resolve(of_conditions(conditions, model, changed.rates())), gain.quantity))
    off, on = sides
    return ScoredGain(technique=technique, gain=gain, predicted=on / off - 1 if gain.unit == "1" else on - off)


def quantity(resolved: Resolved, name: str) -> float:
    """Return a quantity of a run: one that evidence may state, memory, tokens of a step, or time of rows.

    ``time:A|B`` is the time in a step of the rows of those names.
    """
    if name == "memory":
        return as_float(resolved.point.memory)
    if name == "tokens_per_step":
        return as_float(resolved.point.tokens_per_step)
    if not name.startswith("time:"):
        return predicted(resolved)[name]
    rows = set(name.removeprefix("time:").split("|"))
    return sum(row.total for row in breakdown_of(resolved).rows if row.name in rows)
