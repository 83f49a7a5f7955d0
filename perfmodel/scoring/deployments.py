"""Published results of whole deployments beside their predictions."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from perfmodel.algebra import as_float
from perfmodel.errors import UsageError
from perfmodel.prediction.joined_pools import JoinedPools, of_deployment
from perfmodel.prediction.uncertainty import interval, pool_intervals
from perfmodel.scoring.validation import Scored
from perfmodel.specs.evidence import RATE, DeploymentSpec
from perfmodel.specs.model import ModelSpec
from perfmodel.supply.machine import Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """One measured quantity of a whole deployment beside its prediction."""

    spec: DeploymentSpec
    joined: JoinedPools
    scores: tuple[Scored, ...]

    @property
    def decided_by(self) -> str:
        """The pool that sets the rate."""
        return "prefill" if self.joined.prefill_requests_per_s < self.joined.decode_requests_per_s else "decode"


def deployed(spec: DeploymentSpec, model: ModelSpec, machine: Machine, *, ranges_alone: bool = False) -> Deployed:
    """Return a whole deployment, its pools joined by rate, beside what was measured.

    The samples of both pools are of the same machine, so that the slower pool is found sample by sample.
    Raises ``UsageError`` where a layout cannot be.
    """
    if spec.conditions.mixed or spec.conditions.prefill_system:
        raise UsageError(f"{spec.name}: mixed, or of two systems; allowed here: two pools of one system")
    joined = of_deployment(spec.conditions, model, machine.rates())
    on = None if ranges_alone else spec.measured_on
    of_pool: dict[str, Any] = {}
    rates: dict[str, Any] = {}
    for phase, pool, rate in (
        ("prefill", joined.prefill, joined.prefill_requests_per_s),
        ("decode", joined.decode, joined.decode_requests_per_s),
    ):
        of_pool[phase] = pool_intervals(machine, pool.plan.layout, pool.plan.family, pool.scenario.case, measured_on=on)
        rates[phase] = rate * as_float(pool.point.step_time) / of_pool[phase].steps
    values = joined.quantities()
    per_card = spec.conditions.osl / joined.cards
    slower = np.minimum(rates["prefill"], rates["decode"]) * per_card
    intervals = {RATE: interval(slower), "tpot": of_pool["decode"].tpot}
    scores = tuple(
        Scored(
            quantity=measured.quantity,
            unit=measured.unit,
            measured=measured.value,
            predicted=values[measured.quantity],
            interval=intervals[measured.quantity],
        )
        for measured in spec.measured
    )
    return Deployed(spec=spec, joined=joined, scores=scores)
