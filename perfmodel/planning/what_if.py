"""What each change is worth to a run at the same target: techniques, and hardware of other figures."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations, product
from typing import Any, Literal

import numpy as np

from perfmodel.algebra import as_float
from perfmodel.errors import UsageError
from perfmodel.ledger.records import Layout
from perfmodel.prediction.layouts import LARGEST_BATCH, attention_core_options, too_many_tokens
from perfmodel.prediction.mixed import mixed_first_token
from perfmodel.prediction.scenario import Resolved, breakdown_of, joined_rates, of_conditions, resolve
from perfmodel.prediction.serving import first_token, pool_point, usable_memory
from perfmodel.prediction.uncertainty import Interval, interval, pool_range
from perfmodel.specs.base import Known, value_at, with_value
from perfmodel.specs.deployment import Phase
from perfmodel.specs.evidence import Conditions
from perfmodel.specs.machine import ChipSpec
from perfmodel.specs.model import ModelSpec
from perfmodel.specs.technique import Setting
from perfmodel.supply.machine import Machine
from perfmodel.supply.techniques import MIXED, Technique, inapplicable, lacking, setting_of, with_setting

#: relative change below which nothing is said to change
UNFELT = 1e-4
#: hardware figures that are raised by a tenth, and where they stand
RAISED = 0.1
FIGURES: dict[str, tuple[str, tuple[str, ...]]] = {
    "memory rate, with what the cores stream": ("chip", ("die.hbm.bandwidth", "die.hbm.core_bytes_per_cycle")),
    "memory size": ("chip", ("die.hbm.capacity",)),
    "cube peak": ("chip", ("die.cube_flop_per_cycle.bf16", "die.cube_flop_per_cycle.int8")),
    "vector peak": ("chip", ("die.vector_flop_per_cycle.fp32",)),
    "L2 rate": ("chip", ("die.l2.core_read_bytes_per_cycle",)),
    "link rates": ("system", ("tiers",)),
}


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something that can be done to a run; it raises ``UsageError`` where it cannot."""

    name: str
    setting: str
    now: str
    acts_on: str
    phases: tuple[Phase, ...]
    #: who can make it
    by: Literal["layout", "stack", "to build", "traffic", "bound", "hardware"]
    apply: Callable[[Pool], Pool] = field(repr=False)
    #: keys of a layout that it sets; changes that share one exclude each other
    keys: frozenset[str] = frozenset()

    @property
    def label(self) -> str:
        """Name and setting."""
        return f"{self.name}={self.setting}"

    def excludes(self, other: "Change") -> bool:
        """Return whether two changes are settings of one thing."""
        return self.name == other.name or bool(self.keys & other.keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A run at its best batches and core splits within the target; rates are per card."""

    pools: Mapping[Phase, Resolved]
    requests_per_s_per_card: float
    tpot: float | None
    ttft: float | None

    def rate(self, phase: Phase) -> float:
        """Requests per second and card of one pool."""
        return self.pools[phase].requests_per_s_per_card


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a change does: relative gain of the rate per card at the same target, per pool and together."""

    change: Change
    outcome: Outcome
    gain: float
    sure: Interval
    of_pool: Mapping[Phase, float]
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A change that cannot be made here, and the rule."""

    change: Change
    why: str


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


# --- the best batch of a pool at a target ---------------------------------------------------------


def _refitted(pool: Pool, model: ModelSpec, run: Run, decode_step: float, ttft: float | None) -> Resolved | None:
    """Return a pool at the batch and core split of the highest rate within memory and target; none where none is.

    Without a limit on TTFT a prefill batch is never raised: longer batches only make prompts wait.
    """
    first = pool.conditions.model_copy(update={"layout": pool.conditions.layout.model_copy(update={"batch": 1})})
    start = resolved_of(replace(pool, conditions=first), model)  # refuses what is structurally wrong
    case, family, layout = start.scenario.case, start.plan.family, start.plan.layout
    batch = np.arange(1, LARGEST_BATCH + 1, dtype=np.float64)
    if family.phase == "prefill" and ttft is None:
        batch = batch[: pool.conditions.layout.batch]  # nothing but memory bounds it: it stays, if it fits
    cores = attention_core_options(family.overlap, case.rates)
    mesh = replace(Layout.of(layout), batch=batch[None, :], attention_cores=cores[:, None])
    point = pool_point(mesh, family, case)
    allowed = np.asarray(point.memory <= usable_memory(case.rates))  # type: ignore[operator]
    allowed = allowed & ~np.asarray(too_many_tokens(mesh, family))
    if family.phase == "decode":
        allowed = allowed & (np.asarray(point.tpot) <= _limit(run.tpot))
    else:
        terms = first_token(prefill=point, layout=mesh, case=case, utilisation=run.utilisation, decode_step=decode_step)
        allowed = allowed & (np.asarray(terms.ttft) <= _limit(ttft))
    shape = (len(cores), len(batch))
    rates = np.where(np.broadcast_to(allowed, shape), np.broadcast_to(np.asarray(point.tokens_per_s), shape), -1.0)
    best = int(rates.argmax())
    if rates.flat[best] < 0:
        return None
    split, at = np.unravel_index(best, shape)
    update = {"batch": int(batch[at]), "attention_cores": int(cores[split])}
    chosen = pool.conditions.model_copy(update={"layout": pool.conditions.layout.model_copy(update=update)})
    return resolved_of(replace(pool, conditions=chosen), model)


def _limit(value: float | None) -> float:
    return float("inf") if value is None else value * (1 + 1e-12)


def outcome(run: Run, *, ttft: float | None) -> Outcome | None:
    """Return a run at its best batches within memory, TPOT and ``ttft``; none where a pool cannot meet them."""
    found: dict[Phase, Resolved] = {}
    decode_step = 0.0
    if "decode" in run.pools:
        decode = _refitted(run.pools["decode"], run.model, run, 0.0, None)
        if decode is None:
            return None
        found["decode"], decode_step = decode, as_float(decode.point.step_time)
    if "prefill" in run.pools:
        prefill = _refitted(run.pools["prefill"], run.model, run, decode_step, ttft)
        if prefill is None:
            return None
        found["prefill"] = prefill
    return _joined(run, found)


def as_it_is(run: Run) -> Outcome:
    """Return a run at the batches it states."""
    return _joined(run, resolved_pools(run))


def _joined(run: Run, found: Mapping[Phase, Resolved]) -> Outcome:
    """Return pools in the proportion in which each feeds the other, both fully loaded.

    A request costs 1/r_p card-seconds of prefill and 1/r_d of decode; together they do 1 / (1/r_p + 1/r_d) a card.
    Mixed instances do what their decode steps leave time for.  Whole instances, idle cards and the utilisation limit
    are left out: they are the same on both sides.
    """
    rates = [one.requests_per_s_per_card for one in found.values()]
    rate = found["decode"].requests_per_s_per_card if run.mixed else 1 / sum(1 / each for each in rates)
    tpot = found["decode"].tpot if "decode" in found else None
    return Outcome(pools=found, requests_per_s_per_card=rate, tpot=tpot, ttft=_ttft(run, found))


def _ttft(run: Run, found: Mapping[Phase, Resolved]) -> float | None:
    if "prefill" not in found:
        return None
    prefill = found["prefill"]
    case = prefill.scenario.case
    if run.mixed:
        return as_float(mixed_first_token(prefill.point, found["decode"].point, case, run.utilisation).ttft)
    if "decode" in found:
        rates = joined_rates({phase: one.scenario.case.rates for phase, one in found.items()})
        case = replace(case, rates=rates["prefill"])
    terms = first_token(
        prefill=prefill.point,
        layout=Layout.of(prefill.plan.layout),
        case=case,
        utilisation=run.utilisation,
        decode_step=as_float(found["decode"].point.step_time) if "decode" in found else 0.0,
    )
    return as_float(terms.ttft)


# --- changes -----------------------------------------------------------------------------------


def technique_changes(run: Run, techniques: Iterable[Technique]) -> Iterator[Change | Refusal]:
    """Yield every other setting of every technique, and those that cannot act on any pool with the rule."""
    for technique in techniques:
        spec = technique.spec
        current = {
            phase: setting_of(technique, pool.conditions, pool.conditions.layout, pool.machine, run.model)
            for phase, pool in run.pools.items()
        }
        first = next(iter(spec.settings))
        for name, setting in spec.settings.items():
            reasons, phases = [], []
            for phase, pool in run.pools.items():
                reason = inapplicable(spec.applies, run.model, pool.machine, phase, pool.conditions.layout)
                started = current[phase] != MIXED or name != first  # without what it never was says nothing
                if reason is None and name != current[phase] and started:
                    phases.append(phase)
                elif reason is not None:
                    reasons.append(f"{phase}: {reason}")
            here = tuple(phases)
            change = Change(
                name=spec.name,
                setting=name,
                now=", ".join(dict.fromkeys(current[phase] for phase in here or current)),
                acts_on=spec.acts_on,
                phases=here,
                by=_by(technique, name, setting, run),
                apply=_setter(technique, name, run.model),
                keys=frozenset(setting.layout),
            )
            if here:
                yield change
            elif len(reasons) == len(run.pools):
                yield Refusal(change=change, why="; ".join(reasons))
                break


def _setter(technique: Technique, name: str, model: ModelSpec) -> Callable[[Pool], Pool]:
    def apply(pool: Pool) -> Pool:
        conditions, machine = with_setting(technique, name, pool.conditions, pool.machine, model)
        return replace(pool, conditions=conditions, machine=machine)

    return apply


def _by(technique: Technique, name: str, setting: Setting, run: Run) -> Any:
    """Return who can make a change: it is a choice of layout, in the stack, to be built, of the traffic, or a bound."""
    if setting.bound:
        return "bound"
    if technique.spec.traffic:
        return "traffic"
    if technique.spec.free:
        return "layout"
    return "to build" if any(lacking(technique, name, pool.machine) for pool in run.pools.values()) else "stack"


def hardware_changes(run: Run, chips: Iterable[Known[ChipSpec]]) -> Iterator[Change]:
    """Yield each hardware figure raised by a tenth, and each other chip of as many dies with as much memory."""
    phases = tuple(run.pools)
    for name, (part, paths) in FIGURES.items():
        yield Change(
            name=name,
            setting=f"+{RAISED:.0%}",
            now="as it is",
            acts_on=f"{part}: {', '.join(paths)}",
            phases=phases,
            by="hardware",
            apply=lambda pool, part=part, paths=paths: _raised(pool, part, paths),  # type: ignore[misc]
        )
    heres = {pool.machine.chip.spec.name: pool.machine.chip.spec for pool in run.pools.values()}
    for chip, here in product(chips, heres.values()):
        spec = chip.spec
        alike = spec.package == here.package and spec.die.hbm.capacity == here.die.hbm.capacity
        if alike and spec.name != here.name:
            yield Change(
                name="chip",
                setting=spec.name,
                now=here.name,
                acts_on="all peaks of the die",
                phases=tuple(phase for phase in phases if run.pools[phase].machine.chip.spec.name == here.name),
                by="hardware",
                apply=lambda pool, chip=chip: replace(pool, machine=replace(pool.machine, chip=chip)),  # type: ignore[misc]
            )


def _raised(pool: Pool, part: str, paths: tuple[str, ...]) -> Pool:
    known = getattr(pool.machine, part)
    spec = known.spec
    for path in paths:
        if path == "tiers":
            tiers = [tier.model_copy(update={"bandwidth": tier.bandwidth * (1 + RAISED)}) for tier in spec.tiers]
            spec = spec.model_copy(update={"tiers": tuple(tiers)})
            continue
        spec = with_value(spec, path.split("."), as_float(value_at(spec, path)) * (1 + RAISED))
    return replace(pool, machine=replace(pool.machine, **{part: replace(known, spec=spec)}))


def changed(run: Run, changes: Iterable[Change]) -> Run:
    """Return a run with changes made to the pools they act on."""
    pools = dict(run.pools)
    for change in changes:
        for phase in change.phases:
            pools[phase] = change.apply(pools[phase])
    return replace(run, pools=pools)


# --- effects -----------------------------------------------------------------------------------


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
    same = {phase: cost for phase, cost in costs.items() if _is_same(phase, before, after, run, other)}
    ratios = _summed(costs) / _summed(_costs(other, after, same))
    gain = after.requests_per_s_per_card / before.requests_per_s_per_card - 1
    return Effect(
        change=change,
        outcome=after,
        gain=gain,
        sure=interval(ratios / float(np.median(ratios)) * (1 + gain) - 1),
        of_pool={phase: after.rate(phase) / before.rate(phase) - 1 for phase in run.pools},
        why=reason(before, after, other, run) or f"nothing of what it acts on is in the step: {change.acts_on}",
    )


def _costs(run: Run, found: Outcome, known: Costs | None = None) -> Costs:
    """Return the costs of a run, those of some pools being known."""
    costs = dict(known or {})
    for phase in found.pools.keys() - costs.keys():
        resolved = found.pools[phase]
        plan, case = resolved.plan, resolved.scenario.case
        costs[phase] = pool_range(run.pools[phase].machine, plan.layout, plan.family, case).relative / found.rate(phase)
    return costs


def _summed(costs: Costs) -> Any:
    return sum(costs[phase] for phase in sorted(costs))


def _is_same(phase: Phase, before: Outcome, after: Outcome, run: Run, other: Run) -> bool:
    """Return whether a change leaves a pool as it was, its batch and core split included."""
    one, two = before.pools[phase].plan.layout, after.pools[phase].plan.layout
    return other.pools[phase] is run.pools[phase] and one == two


def reason(before: Outcome, after: Outcome, other: Run, run: Run) -> str:
    """Return what moved: the two rows of a step that change most at the old batch, and the batch; or nothing."""
    words = []
    for phase, old in before.pools.items():
        new = after.pools[phase]
        if _is_same(phase, before, after, run, other):
            continue
        now = _at_batch_of(old, other.pools[phase], run.model)
        words += _moved_rows(old, now, phase if len(before.pools) > 1 else "")
        if old.plan.layout.batch != new.plan.layout.batch:
            words.append(f"{phase} batch {old.plan.layout.batch} to {new.plan.layout.batch}")
    return "; ".join(words)


def _at_batch_of(old: Resolved, pool: Pool, model: ModelSpec) -> Resolved | None:
    kept = {"batch": old.plan.layout.batch}
    conditions = pool.conditions.model_copy(update={"layout": pool.conditions.layout.model_copy(update=kept)})
    try:
        return resolved_of(replace(pool, conditions=conditions), model)
    except UsageError:
        return None


def _times(resolved: Resolved) -> dict[str, tuple[float, str]]:
    parts = breakdown_of(resolved)
    times: dict[str, tuple[float, str]] = {}
    for row in parts.rows:
        before, _ = times.get(row.name, (0.0, ""))
        times[row.name] = (before + row.total, row.timed.bound)
    outside = {
        "gaps between operators": parts.gaps,
        "prefetched weights": -parts.prefetched,
        "what overlaps": -parts.hidden,
        "host": parts.overhead,
    }
    times.update({name: (time, "") for name, time in outside.items() if time})
    times["step"] = (parts.step_time, "")
    return times


SHOWN_ROWS = 2


def _moved_rows(old: Resolved, new: Resolved | None, phase: str) -> list[str]:
    if new is None:
        return []
    before, after = _times(old), _times(new)
    step = before["step"][0]
    moves = {
        name: after.get(name, (0.0, ""))[0] - before.get(name, (0.0, ""))[0]
        for name in before.keys() | after.keys()
        if name != "step"
    }
    largest = sorted(moves, key=lambda name: (-abs(moves[name]), name))[:SHOWN_ROWS]
    words = []
    for name in largest:
        if abs(moves[name]) > UNFELT * step:
            bound = (before.get(name) or after[name])[1]
            times = [table.get(name, (0.0, ""))[0] * 1e3 for table in (before, after)]
            kind = f" ({bound})" if bound else ""
            words.append(f"{f'{phase} ' if phase else ''}{name} {times[0]:,.4g} to {times[1]:,.4g} ms a step{kind}")
    return words


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


# --- the inverse question --------------------------------------------------------------------------


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


LARGEST_SET = 3
KEPT = 14  # changes that are combined: those that help most alone


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
        for several in combinations(rest, size):
            alike = any(one.excludes(two) for one, two in combinations(several, 2))
            if not alike and (way := _way(steady, several, goal)) is not None:
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
