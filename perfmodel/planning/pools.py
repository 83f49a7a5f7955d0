"""What is varied: the pools of a run with their machines, and the targets that stay."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from perfmodel.prediction.scenario import Resolved, of_conditions, resolve
from perfmodel.specs.conditions import Conditions
from perfmodel.specs.deployment import Phase
from perfmodel.specs.model import ModelSpec
from perfmodel.supply.machine import Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Instances of one pool: its conditions, with a batch, and the machine it runs on."""

    conditions: Conditions
    machine: Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is varied: one pool or two, and the target that stays."""

    model: ModelSpec
    pools: Mapping[Phase, Pool]
    tpot: float | None
    ttft: float | None
    utilisation: float
    #: whether both pools are the same dies, which run prefill and decode in turn
    mixed: bool = False


def resolved_of(pool: Pool, model: ModelSpec) -> Resolved:
    """Return a pool evaluated as it is."""
    return resolve(of_conditions(pool.conditions, model, pool.machine.rates()))


def resolved_pools(run: Run) -> dict[Phase, Resolved]:
    """Return the pools of a run as they are, each beside the other's step where the same dies run both."""
    found = {phase: resolved_of(pool, run.model) for phase, pool in run.pools.items()}
    if not run.mixed:
        return found
    points = {"prefill": found["decode"].point, "decode": found["prefill"].point}
    return {phase: resolve(replace(one.scenario, partner=points[phase])) for phase, one in found.items()}
