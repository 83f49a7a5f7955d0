"""Published results of whole deployments beside their predictions."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from perfmodel.errors import UsageError
from perfmodel.prediction.joined_pools import JoinedPools, of_deployment
from perfmodel.prediction.scenario import Resolved
from perfmodel.prediction.uncertainty import Values, left_out, pool_intervals, sampled_rates
from perfmodel.scoring.validation import Predictive, Scored, interval_of, mixture
from perfmodel.specs.deployment import PHASES, Phase
from perfmodel.specs.evidence import RATE, DeploymentSpec
from perfmodel.specs.model import ModelSpec
from perfmodel.specs.open_conditions import cases_of
from perfmodel.supply.machine import Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """One measured quantity of a whole deployment beside its prediction."""

    spec: DeploymentSpec
    joined: JoinedPools
    scores: tuple[Scored, ...]
    found: Predictive

    @property
    def decided_by(self) -> str:
        """The pool that sets the rate."""
        return "prefill" if self.joined.prefill_requests_per_s < self.joined.decode_requests_per_s else "decode"


def joined_of(spec: DeploymentSpec, model: ModelSpec, machine: Machine) -> JoinedPools:
    """Return the pools of a deployment as its conditions state them.

    Raises ``UsageError`` where a layout cannot be.
    """
    if spec.conditions.mixed or spec.conditions.prefill_system:
        raise UsageError(f"{spec.name}: mixed, or of two systems; allowed here: two pools of one system")
    return of_deployment(spec.conditions, model, machine.rates())


def predictive_of(spec: DeploymentSpec, model: ModelSpec, machine: Machine) -> Predictive:
    """Return what is predicted of a whole deployment, a mixture of its cases where conditions are open.

    The samples of both pools are of the same machine, so that the slower pool is found sample by sample.
    """
    cases = list(cases_of(spec.conditions, spec.open))
    weights = [weight for weight, _, _ in cases]
    sampled = sampled_rates(machine, None, "decode")
    luck = {phase: np.exp(left_out(machine, spec.measured_on, phase)) for phase in PHASES}
    alone, whole = [], []
    for _, _, case in cases:
        joined = joined_of(spec.model_copy(update={"conditions": case}), model, machine)
        pools: dict[Phase, Resolved] = {"prefill": joined.prefill, "decode": joined.decode}
        steps: dict[Phase, Values] = {
            phase: pool_intervals(
                machine, pool.plan.layout, pool.plan.family, pool.scenario.case, None, None, sampled
            ).relative
            for phase, pool in pools.items()
        }
        values = joined.quantities()
        alone.append((values, _times(joined, steps)))
        whole.append((values, _times(joined, {phase: steps[phase] * luck[phase] for phase in PHASES})))
    (found, ranges), (_, relative) = (mixture(weights, one, spec.name) for one in (alone, whole))
    return Predictive(values=found, ranges=ranges, relative=relative, each=alone)


def _times(joined: JoinedPools, steps: Mapping[Phase, Values]) -> dict[str, Values]:
    """Return samples of what two pools serve together over the prediction, as times, given those of their steps."""
    slower = np.minimum(
        joined.prefill_requests_per_s / steps["prefill"], joined.decode_requests_per_s / steps["decode"]
    )
    return {RATE: joined.requests_per_s / slower, "tpot": steps["decode"]}


def deployed(spec: DeploymentSpec, model: ModelSpec, machine: Machine) -> Deployed:
    """Return a whole deployment, its pools joined by rate, beside what was measured.

    Raises ``UsageError`` where a layout cannot be.
    """
    joined = joined_of(spec, model, machine)
    found = predictive_of(spec, model, machine)
    scores = tuple(
        Scored(
            quantity=measured.quantity,
            unit=measured.unit,
            measured=measured.value,
            predicted=found.values[measured.quantity],
            interval=interval_of(found.relative[measured.quantity], measured.quantity, found.values[measured.quantity]),
        )
        for measured in spec.measured
    )
    return Deployed(spec=spec, joined=joined, scores=scores, found=found)
