"""Limits of a plan beside what is predicted, and the chance that each, and all at once, are met."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from perfmodel.algebra import as_float
from perfmodel.planning.pools import Run
from perfmodel.prediction.deployment import Deployment, PoolPlan
from perfmodel.prediction.sureness import Word, chance_of_all, met_at_once, verdict_of
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

    @property
    def verdict(self) -> Word | None:
        """Whether the limit is met in a word, by its chance where there is one; none where there is no limit."""
        return None if self.met is None else verdict_of(self.met, self.chance)


def targets_of(
    plan: PlanSpec,
    run: Run,
    best: Deployment,
    held: Mapping[Phase, PoolPlan],
    decode: PoolIntervals,
    overall: DeploymentIntervals,
) -> tuple[tuple[Target, ...], float | None]:
    """Return the limits beside their predictions, and the probability that all of them are met at once."""
    asked = plan.wanted.requests_per_s
    limited = met_at_once(best, decode, overall, tpot=run.tpot, ttft=run.ttft, rate=asked)
    given = [name for name, limit in (("tpot", run.tpot), ("ttft", run.ttft), ("rate", asked)) if limit is not None]
    chances = {name: chance_of_all([met]) for name, met in zip(given, limited, strict=True)}

    def served(name: Any, value: Any, limit: float | None, unit: str, interval: Interval) -> Target:
        chance = chances.get(name)
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
    return tuple(found), chance_of_all(limited) if limited else None
