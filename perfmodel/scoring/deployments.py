"""Published results of whole deployments beside their predictions."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from perfmodel.errors import UsageError
from perfmodel.prediction.joined_pools import JoinedPools, of_deployment
from perfmodel.prediction.scenario import Resolved
from perfmodel.prediction.uncertainty import Values, left_out, path_over, pool_intervals, sampled_rates
from perfmodel.scoring.validation import Predictive, Scored, interval_of, mixture
from perfmodel.service.clients import FAR, ClientView, clients_view, with_responses
from perfmodel.service.records import Service
from perfmodel.service.setup import Sent, engine_of, mixed_service, pools_service
from perfmodel.specs.conditions import DeploymentConditions
from perfmodel.specs.deployment import PHASES, Phase
from perfmodel.specs.evidence import PERCENTILE, RATE, RATES, DeploymentSpec, left_out_of
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
    def decided_by(self) -> Phase:
        """The pool that sets the rate when both are full."""
        return _decided_by(self.joined)

    def phase_of(self, quantity: str) -> Phase:
        """Return the phase that a quantity tells of: a first token of prefill, a rate of the pool that sets it."""
        return _phase_of(quantity, self.joined)


def _decided_by(joined: JoinedPools) -> Phase:
    return "prefill" if joined.prefill_requests_per_s < joined.decode_requests_per_s else "decode"


def _phase_of(quantity: str, joined: JoinedPools) -> Phase:
    if quantity in RATES:
        return _decided_by(joined)
    return "prefill" if PERCENTILE.sub("", quantity) == "ttft" else "decode"


def joined_of(conditions: DeploymentConditions, name: str, model: ModelSpec, machine: Machine) -> JoinedPools:
    """Return the pools of a deployment as its conditions state them.

    Raises ``UsageError`` where a layout cannot be.
    """
    if conditions.prefill_system:
        raise UsageError(f"{name}: of two systems; allowed here: pools of one system")
    return of_deployment(conditions, model, machine.rates())


def service_of(conditions: DeploymentConditions, joined: JoinedPools, machine: Machine) -> Service:
    """Return the pools of a deployment as the engine of its conditions schedules them."""
    engine = engine_of(machine.stack.spec, conditions.engine)
    stated = conditions.decode.layout.batch
    if joined.mixed:
        return mixed_service(joined.prefill, joined.decode, engine, stated=stated, instances=joined.decode_instances)
    instances = (joined.prefill_instances, joined.decode_instances)
    return pools_service(joined.prefill, joined.decode, engine, instances=instances, stated=stated)


@lru_cache(maxsize=256)
def _view(service: Service, sent: Sent) -> ClientView:
    """Return what clients measure; replays of the same are one."""
    return clients_view(service, sent.requests())


@lru_cache(maxsize=64)
def _responses(service: Service, sent: Sent) -> ClientView:
    return with_responses(_view(service, sent), service, sent.requests(), FAR)


def clients_of(service: Service, conditions: DeploymentConditions, *, responses: bool = False) -> ClientView:
    """Return what the clients of a deployment measure, by a replay, and how that moves with its parts where asked."""
    return (_responses if responses else _view)(service, Sent.of(conditions))


def values_of(view: ClientView, joined: JoinedPools) -> dict[str, float]:
    """Return what a published row of a deployment may state of what its clients measured."""
    rate = view.values["requests_per_s"]
    return {**view.values, RATE: rate * float(view.served.osl.mean()) / joined.cards}


def predictive_of(spec: DeploymentSpec, model: ModelSpec, machine: Machine) -> Predictive:
    """Return what is predicted of a whole deployment, a mixture of its cases where conditions are open.

    The samples of both pools are of the same machine.  Where it is said how clients send, waits and rates come from a
    replay and move with the steps of both pools and the path of a request as its own do; else both pools are full
    and the slower one is found sample by sample.
    """
    cases = list(cases_of(spec.conditions, spec.open))
    weights = [weight for weight, _, _ in cases]
    sampled = sampled_rates(machine, None, "decode")
    luck = {phase: np.exp(left_out(machine, spec.measured_on, phase, model)) for phase in PHASES}
    path = path_over(machine, sampled[0])
    moved = None
    if spec.conditions.loaded:
        joined = joined_of(spec.conditions, spec.name, model, machine)
        moved = clients_of(service_of(spec.conditions, joined, machine), spec.conditions, responses=True)
    wanted = [measured.quantity for measured in spec.measured]
    alone, whole = [], []
    for _, _, case in cases:
        joined = joined_of(case, spec.name, model, machine)
        pools: dict[Phase, Resolved] = {"prefill": joined.prefill, "decode": joined.decode}
        steps: dict[str, Values] = {
            phase: pool_intervals(
                machine, pool.plan.layout, pool.plan.family, pool.scenario.case, None, None, sampled, pool.point
            ).relative
            for phase, pool in pools.items()
        }
        if moved is None:
            values, times = joined.quantities(), _of_full_batches(joined, steps)
            lucky = _of_full_batches(joined, {phase: steps[phase] * luck[phase] for phase in PHASES})
        else:
            values = values_of(clients_of(service_of(case, joined, machine), case), joined)
            times = {name: moved.times(name, {**steps, "path": path}) for name in wanted}
            lucky = {
                name: samples * np.exp(left_out(machine, kind, _phase_of(name, joined), model))
                for name, samples in times.items()
                for kind in [left_out_of(spec.measured_on, name, loaded=True)]
            }
            values = {name: values[name] for name in wanted}
        alone.append((values, times))
        whole.append((values, lucky))
    found, ranges = mixture(weights, alone, spec.name)
    _, relative = mixture(weights, whole, spec.name)
    return Predictive(values=found, ranges=ranges, relative=relative, each=alone)


def _of_full_batches(joined: JoinedPools, steps: Mapping[str, Values]) -> dict[str, Values]:
    """Return samples of what two pools serve together over the prediction, as times, given those of their steps."""
    slower = np.minimum(
        joined.prefill_requests_per_s / steps["prefill"], joined.decode_requests_per_s / steps["decode"]
    )
    return {RATE: joined.requests_per_s / slower, "tpot": steps["decode"]}


def deployed(spec: DeploymentSpec, model: ModelSpec, machine: Machine) -> Deployed:
    """Return a whole deployment, its pools joined, beside what was measured.

    Raises ``UsageError`` where a layout cannot be.
    """
    joined = joined_of(spec.conditions, spec.name, model, machine)
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
