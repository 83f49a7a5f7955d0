"""Published results of whole deployments beside their predictions."""

from dataclasses import dataclass

import numpy as np

from perfmodel.errors import UsageError
from perfmodel.prediction.joined_pools import JoinedPools, of_deployment
from perfmodel.prediction.uncertainty import Values, pool_intervals
from perfmodel.scoring.validation import Predictive, Scored, interval_of, mixed
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


def predictive_of(spec: DeploymentSpec, model: ModelSpec, machine: Machine, measured_on: str | None) -> Predictive:
    """Return what is predicted of a whole deployment, a mixture of its cases where conditions are open.

    The samples of both pools are of the same machine, so that the slower pool is found sample by sample.
    """
    cases = list(cases_of(spec.conditions, spec.open))
    found = [
        _predicted(joined_of(spec.model_copy(update={"conditions": case}), model, machine), machine, measured_on)
        for _, _, case in cases
    ]
    return mixed([weight for weight, _, _ in cases], found, spec.name)


def _predicted(
    joined: JoinedPools, machine: Machine, measured_on: str | None
) -> tuple[dict[str, float], dict[str, Values]]:
    """Return what two pools serve together, and samples of each of its times over it."""
    relative: dict[str, Values] = {}
    rates: dict[str, Values] = {}
    for phase, pool, rate in (
        ("prefill", joined.prefill, joined.prefill_requests_per_s),
        ("decode", joined.decode, joined.decode_requests_per_s),
    ):
        plan, case = pool.plan, pool.scenario.case
        relative[phase] = pool_intervals(machine, plan.layout, plan.family, case, measured_on=measured_on).relative
        rates[phase] = rate / relative[phase]
    slower = joined.requests_per_s / np.minimum(rates["prefill"], rates["decode"])
    return joined.quantities(), {RATE: slower, "tpot": relative["decode"]}


def deployed(spec: DeploymentSpec, model: ModelSpec, machine: Machine, *, ranges_alone: bool = False) -> Deployed:
    """Return a whole deployment, its pools joined by rate, beside what was measured.

    Raises ``UsageError`` where a layout cannot be.
    """
    joined = joined_of(spec, model, machine)
    found = predictive_of(spec, model, machine, None if ranges_alone else spec.measured_on)
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
    return Deployed(spec=spec, joined=joined, scores=scores)
