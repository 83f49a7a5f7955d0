"""What reaches a goal: the smallest sets of changes that meet a latency."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from perfmodel.algebra import as_float
from perfmodel.errors import UsageError
from perfmodel.planning.best_batches import UNFELT, Outcome, as_it_is, outcome
from perfmodel.planning.changes import Change, changed
from perfmodel.planning.pools import Run, resolved_of
from perfmodel.planning.sets import sets_of
from perfmodel.prediction.layouts import attention_core_options
from perfmodel.specs.deployment import Phase

LARGEST_SET = 3
KEPT = 14  # changes that are combined: those that help most alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What is to be reached: TPOT and TTFT in seconds at most, at a batch of a data-parallel rank."""

    tpot: float | None = None
    ttft: float | None = None
    batch: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A set of changes that reaches a goal, and what it reaches."""

    changes: tuple[Change, ...]
    reached: Outcome
    fits: bool


def ways(run: Run, goal: Goal, changes: Iterable[Change]) -> tuple[list[Way], Way | None]:
    """Return the smallest sets of changes that reach a goal, the highest rate first, or none and the nearest way.

    Sets of up to three of the changes that shorten the latency in question alone are tried, bounds and traffic left
    out; no set contains a smaller one that does.
    """
    for name, phase in (("tpot", "decode"), ("ttft", "prefill")):
        if getattr(goal, name) is not None and phase not in run.pools:
            raise UsageError(f"--reach {name}: the run has no {phase} pool; allowed: goals of {', '.join(run.pools)}")
    changes = [change for change in changes if change.by not in ("bound", "traffic")]
    steady = replace(_at_batch(run, goal.batch), tpot=goal.tpot, ttft=goal.ttft)
    here = _way(steady, (), goal) or Way(changes=(), reached=as_it_is(steady), fits=_fit(as_it_is(steady)))
    if _meets(here, goal):
        return [here], here
    helping = sorted(
        (
            (_distance(way, goal), change, way)
            for change in changes
            if (way := _way(steady, (change,), goal)) is not None
        ),
        key=lambda each: each[0],
    )
    start = _distance(here, goal)
    helping = [each for each in helping if each[0] < start - UNFELT][:KEPT]
    tried = [way for _, _, way in helping]
    found = [way for way in tried if _meets(way, goal)]
    single = {id(way.changes[0]) for way in found}
    rest = [change for _, change, _ in helping if id(change) not in single]
    for size in range(2, LARGEST_SET + 1):
        if found:
            break
        for several in sets_of(rest, size, Change.excludes):
            if (way := _way(steady, several, goal)) is not None:
                tried.append(way)
        found = [way for way in tried if _meets(way, goal)]
    nearest = min([here, *tried], key=lambda way: _distance(way, goal))
    return sorted(found, key=lambda way: -way.reached.requests_per_s_per_card), nearest


def _at_batch(run: Run, batch: int | None) -> Run:
    """Return a run whose decode pool, or only pool, has a given batch."""
    if batch is None:
        return run
    phase: Phase = "decode" if "decode" in run.pools else next(iter(run.pools))
    pool = run.pools[phase]
    layout = pool.conditions.layout.model_copy(update={"batch": batch})
    other = replace(pool, conditions=pool.conditions.model_copy(update={"layout": layout}))
    return replace(run, pools={**run.pools, phase: other})


def _way(run: Run, changes: tuple[Change, ...], goal: Goal) -> Way | None:
    """Return what changes reach: at the batch of the goal, or at the largest that meets it."""
    try:
        other = changed(run, changes)
        reached = as_it_is(_split_best(other)) if goal.batch is not None else outcome(other, ttft=goal.ttft)
    except UsageError:
        return None
    return None if reached is None else Way(changes=changes, reached=reached, fits=_fit(reached))


def _split_best(run: Run) -> Run:
    """Return a run with the core split of the shortest step where cores are split."""
    pools = dict(run.pools)
    for phase, pool in run.pools.items():
        if pool.conditions.layout.overlap != "cores":
            continue
        rates = pool.machine.rates()
        tries = [
            replace(
                pool,
                conditions=pool.conditions.model_copy(
                    update={"layout": pool.conditions.layout.model_copy(update={"attention_cores": int(cores)})}
                ),
            )
            for cores in attention_core_options("cores", rates)
        ]
        pools[phase] = min(tries, key=lambda one: as_float(resolved_of(one, run.model).point.step_time))
    return replace(run, pools=pools)


def _fit(reached: Outcome) -> bool:
    return all(one.fits for one in reached.pools.values())


def _distance(way: Way, goal: Goal) -> float:
    """Return how far the worst quantity is over its goal, in logarithms; infinite where memory does not hold."""
    if not way.fits:
        return float("inf")
    over = [-1.0]
    for value, limit in ((way.reached.tpot, goal.tpot), (way.reached.ttft, goal.ttft)):
        if limit is not None and value is not None:
            over.append(float(np.log(value / limit)))
    return max(over)


def _meets(way: Way, goal: Goal) -> bool:
    return _distance(way, goal) <= 0
