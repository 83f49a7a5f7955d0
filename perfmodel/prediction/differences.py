"""How sure it is that one deployment serves more than another: both on the same machine, sample by sample."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from perfmodel.algebra import as_array, as_float
from perfmodel.ledger.records import Family, Layout
from perfmodel.ledger.step import build_ledger
from perfmodel.prediction.deployment import ROUNDING, Deployment, PoolPlan
from perfmodel.prediction.mixed import mixed_rate
from perfmodel.prediction.serving import Case
from perfmodel.prediction.uncertainty import SAMPLES, Interval, Values, interval, left_out, sampled_rates
from perfmodel.specs.deployment import Phase
from perfmodel.supply.machine import Machine
from perfmodel.supply.rates import Rates
from perfmodel.timing.step import step_time


def is_tie(difference: Interval) -> bool:
    """Return whether nobody can say which of two is more: the 90 % interval of their difference contains zero.

    Zero is often an end of it: in samples where the pool that both share sets the rate they serve the same.

    >>> is_tie(Interval(low50=-0.02, high50=0.01, low90=-0.05, high90=0.03))
    True
    >>> is_tie(Interval(low50=-0.02, high50=-0.01, low90=-0.05, high90=-0.001))
    False
    """
    return difference.low90 <= ROUNDING and difference.high90 >= -ROUNDING


def is_same(loss: float, difference: Interval) -> bool:
    """Return whether two are one and the same: no sample tells them apart."""
    return max(map(abs, (loss, difference.low90, difference.high90))) < ROUNDING


def doubt_of(loss: float, difference: Interval) -> float:
    """Return how far off a predicted difference may be: half of its 90 % interval, or more on the side of zero.

    A difference is a tie where it is smaller.

    >>> f"{doubt_of(-0.02, Interval(low50=-0.03, high50=0.0, low90=-0.04, high90=0.01)):.3f}"
    '0.030'
    """
    half = (difference.high90 - difference.low90) / 2
    return max(half, difference.high90 - loss if loss < 0 else loss - difference.low90)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sampled:
    """The same samples of the machines for all deployments that are compared; steps are evaluated once.

    What the model leaves out of a phase is as large for both sides of a comparison: it is one engine's.
    """

    machines: Mapping[Phase, Machine]
    cases: Mapping[Phase, Case]
    _rates: dict[int, Rates] = field(default_factory=dict)
    _steps: dict[object, Values] = field(default_factory=dict)

    def take(self, pools: Iterable[tuple[Phase, PoolPlan]]) -> None:
        """Evaluate steps ahead, those of a family in one pass."""
        groups: dict[object, dict[object, PoolPlan]] = {}
        for phase, pool in pools:
            if (key := _key(phase, pool)) not in self._steps:
                groups.setdefault((phase, pool.family), {})[key] = pool
        for each in groups.values():
            first = next(iter(each.values()))
            found = self._sampled(first.family.phase, [Layout.of(one.layout) for one in each.values()], first.family)
            self._steps.update(zip(each, found, strict=True))

    def steps(self, phase: Phase, pool: PoolPlan) -> Values:
        """Return the samples of a pool's step."""
        self.take([(phase, pool)])
        return self._steps[_key(phase, pool)]

    def _sampled(self, phase: Phase, layouts: Sequence[Layout], family: Family) -> Values:
        """Return the samples of the steps of layouts of one family, a row each."""
        machine, case = self.machines[phase], self.cases[phase]
        if id(machine) not in self._rates:
            self._rates[id(machine)], _ = sampled_rates(machine, None, phase)
        rates = replace(self._rates[id(machine)], kv_tier=case.rates.kv_tier)
        layout = _together(layouts)
        case = replace(case, rates=rates)
        ledger = build_ledger(layout, family, case.traffic, case.model, case.dims)
        steps = np.broadcast_to(
            as_array(step_time(ledger, family, layout.attention_cores, rates)), (len(layouts), SAMPLES)
        )
        found: Values = steps * np.exp(left_out(machine, "service", phase, case.model))
        return found

    def pool_rates(self, phase: Phase, pool: PoolPlan) -> Values:
        """Return the samples of the tokens a second and die of an instance."""
        point = replace(pool.point, step_time=self.steps(phase, pool))
        return as_array(point.tokens_per_s) / pool.layout.dies

    def served(self, deployment: Deployment) -> Values:
        """Return the samples of the requests a second of a deployment at full load: the slower pool sets them."""
        prefill = replace(deployment.prefill.point, step_time=self.steps("prefill", deployment.prefill))
        decode = replace(deployment.decode.point, step_time=self.steps("decode", deployment.decode))
        if deployment.mixed:
            return as_array(deployment.decode_instances * mixed_rate(prefill, decode))
        return np.minimum(
            as_array(deployment.prefill_instances * prefill.requests_per_s),
            as_array(deployment.decode_instances * decode.requests_per_s),
        )


def _key(phase: Phase, pool: PoolPlan) -> object:
    return phase, repr(pool.layout), pool.family


def _together(layouts: Sequence[Layout]) -> Layout:
    """Return layouts as one: a column of each key in which they differ, the rest as it is."""
    each = {one.name: [getattr(layout, one.name) for layout in layouts] for one in fields(Layout)}
    return Layout(
        **{
            name: values[0] if len(set(values)) == 1 else np.array(values, dtype=np.float64)[:, None]
            for name, values in each.items()
        }
    )


def difference(loss: float, values: tuple[Values, float], best: tuple[Values, float]) -> Interval:
    """Return the interval of a relative difference that is predicted as ``loss``, from samples of both sides.

    Each side is its samples, and its prediction.
    """
    ratio: Any = (values[0] / values[1]) / (best[0] / best[1])
    return interval((1 + loss) * ratio - 1)


def full_load(deployment: Deployment) -> float:
    """Return the requests a second of a deployment at full load."""
    return min(deployment.prefill_capacity, deployment.decode_capacity)


def pool_rate(pool: PoolPlan) -> float:
    """Return the tokens a second and die of an instance."""
    return as_float(pool.point.tokens_per_s) / pool.layout.dies
