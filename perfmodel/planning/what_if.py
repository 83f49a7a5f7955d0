"""What each change is worth to a run at the same target: alone, and two by two."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from perfmodel.errors import UsageError
from perfmodel.planning.best_batches import Outcome, is_same, outcome
from perfmodel.planning.changes import Change, Refusal, changed
from perfmodel.planning.pools import Run
from perfmodel.planning.reasons import reason
from perfmodel.prediction.uncertainty import Interval, interval, pool_intervals
from perfmodel.specs.deployment import Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a change does: relative gain of the rate per card at the same target, per pool and together."""

    change: Change
    outcome: Outcome
    gain: float
    gain_interval: Interval
    of_pool: Mapping[Phase, float]
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two changes together, over what each gives alone."""

    first: Change
    second: Change
    gain: float
    alone: float

    @property
    def extra(self) -> float:
        """Gain together over the product of the gains alone, less one."""
        return (1 + self.gain) / (1 + self.alone) - 1


#: samples of the card-seconds of a request in each pool
Costs = Mapping[Phase, Any]


def effects(run: Run, before: Outcome, changes: Iterable[Change]) -> list[Effect | Refusal]:
    """Return what each change alone does, see ``effect``."""
    costs = _costs(run, before)
    return [effect(run, before, change, costs=costs) for change in changes]


def effect(
    run: Run, before: Outcome, change: Change, *, together: Iterable[Change] = (), costs: Costs | None = None
) -> Effect | Refusal:
    """Return what a change, with others ``together``, does at the same target; batches and splits are chosen anew.

    ``before`` is the run without it at its own best, ``costs`` its costs where they are known.  The interval carries
    the stated ranges of all inputs through both sides at once, at the batches chosen.
    """
    try:
        other = changed(run, (*together, change))
        after = outcome(other, ttft=run.ttft)
    except UsageError as error:
        return Refusal(change=change, why="; ".join(str(error).splitlines()))
    if after is None:
        return Refusal(change=change, why="meets neither target nor memory at any batch")
    costs = _costs(run, before) if costs is None else costs
    same = {phase: cost for phase, cost in costs.items() if is_same(phase, before, after, run, other)}
    ratios = _summed(costs) / _summed(_costs(other, after, same))
    gain = after.requests_per_s_per_card / before.requests_per_s_per_card - 1
    return Effect(
        change=change,
        outcome=after,
        gain=gain,
        gain_interval=interval(ratios / float(np.median(ratios)) * (1 + gain) - 1),
        of_pool={phase: after.rate(phase) / before.rate(phase) - 1 for phase in run.pools},
        why=reason(before, after, other, run) or f"nothing of what it acts on is in the step: {change.acts_on}",
    )


def _costs(run: Run, found: Outcome, known: Costs | None = None) -> Costs:
    """Return the costs of a run, those of some pools being known."""
    costs = dict(known or {})
    for phase in found.pools.keys() - costs.keys():
        resolved = found.pools[phase]
        plan, case = resolved.plan, resolved.scenario.case
        costs[phase] = pool_intervals(run.pools[phase].machine, plan.layout, plan.family, case).relative / found.rate(
            phase
        )
    return costs


def _summed(costs: Costs) -> Any:
    return sum(costs[phase] for phase in sorted(costs))


def pairs(run: Run, before: Outcome, effects: Iterable[Effect]) -> list[Pair]:
    """Return every two of some changes together, the best first; changes of one technique exclude each other."""
    found = []
    for one, two in combinations(effects, 2):
        if one.change.excludes(two.change):
            continue
        both = effect(run, before, two.change, together=(one.change,))
        if isinstance(both, Effect):
            alone = (1 + one.gain) * (1 + two.gain) - 1
            found.append(Pair(first=one.change, second=two.change, gain=both.gain, alone=alone))
    return sorted(found, key=lambda pair: -pair.gain)
