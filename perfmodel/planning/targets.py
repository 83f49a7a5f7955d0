"""Limits of a plan beside what is predicted, and the chance that each, and all at once, are met."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from perfmodel.algebra import as_float
from perfmodel.planning.pools import Run
from perfmodel.prediction.deployment import Deployment, PoolPlan
from perfmodel.prediction.uncertainty import DeploymentIntervals, Interval, PoolIntervals
from perfmodel.specs.deployment import Phase
from perfmodel.specs.plan import PlanSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One limit, asked for or of the machine, beside what is predicted; SI units."""

    name: Literal["tpot", "ttft", "rate", "memory"]
    phase: Phase | None
    value: float
    limit: float | None
    unit: str
    interval: Interval | None
    #: probability that the limit is met, where it follows from the stated ranges
    chance: float | None

    @property
    def met(self) -> bool | None:
        """Whether the prediction is within the limit; none where there is none."""
        if self.limit is None:
            return None
        return self.value >= self.limit * (1 - 1e-9) if self.name == "rate" else self.value <= self.limit * (1 + 1e-9)


def targets_of(
    plan: PlanSpec,
    run: Run,
    best: Deployment,
    held: Mapping[Phase, PoolPlan],
    decode: PoolIntervals,
    overall: DeploymentIntervals,
) -> tuple[tuple[Target, ...], float | None]:
    """Return the limits beside their predictions, and the probability that all of them are met at once."""
    tpots = decode.steps / as_float(best.decode.point.tokens_per_step)
    asked = plan.wanted.requests_per_s
    kept = {
        "tpot": None if run.tpot is None else tpots <= run.tpot,
        "ttft": None if run.ttft is None else overall.ttfts <= run.ttft,
        "rate": None if asked is None else overall.rates >= asked * (1 - 1e-9),
    }
    chances = {name: None if met is None else float(np.mean(met)) for name, met in kept.items()}
    limited = [met for met in kept.values() if met is not None]

    def served(name: Any, value: Any, limit: float | None, unit: str, interval: Interval) -> Target:
        chance = chances[name]
        return Target(
            name=name, phase=None, value=as_float(value), limit=limit, unit=unit, interval=interval, chance=chance
        )

    found = [
        served("tpot", best.tpot, run.tpot, "s", decode.tpot),
        served("ttft", best.first_token.ttft, run.ttft, "s", overall.ttft),
        served("rate", best.requests_per_s, asked, "1/s", overall.requests_per_s),
    ]
    found += [
        Target(
            name="memory",
            phase=phase,
            value=as_float(pool.point.memory),
            limit=as_float(pool.point.usable),
            unit="B",
            interval=None,
            chance=None,
        )
        for phase, pool in held.items()
    ]
    return tuple(found), float(np.mean(np.logical_and.reduce(limited))) if limited else None
