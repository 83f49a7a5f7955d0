"""Two runs beside each other: what differs, what each difference is worth, and where the time goes."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from perfmodel.algebra import as_float
from perfmodel.errors import UsageError
from perfmodel.planning.best_batches import as_it_is
from perfmodel.planning.plan_file import sustained_rate
from perfmodel.planning.pools import Pool, Run, resolved_of, resolved_pools
from perfmodel.prediction.cost import Cost, card_prices, cost_of
from perfmodel.prediction.deployment import short_form
from perfmodel.prediction.deployment_uncertainty import mixed_intervals
from perfmodel.prediction.joined_pools import JoinedPools
from perfmodel.prediction.scenario import Resolved, breakdown_of
from perfmodel.prediction.uncertainty import pool_intervals
from perfmodel.specs.conditions import Conditions, DeploymentConditions
from perfmodel.specs.deployment import PHASES, Phase
from perfmodel.specs.plan import Asked
from perfmodel.specs.run import RunSpec

#: instances of each pool; none of what is no deployment
Instances = Mapping[Phase, int]

#: keys that make sense only together, by the name they are shown under
TOGETHER: dict[str, tuple[str, ...]] = {
    "instance and experts": ("dies", "shared_ranks", "redundant", "expert_tp"),
    "overlap": ("overlap", "attention_cores", "expert_dies", "domains", "micro_batches"),
}
MACHINE = ("system", "stack", "kernels", "techniques", "set")
SHARED = (
    "isl",
    "osl",
    "acceptance",
    "precision",
    "kv_dtype",
    "expert_weights",
    "balanced",
    "prefix_hit",
    "isl_spread",
    "running_context",
    "running_deviation",
    "memory_share",
    "max_context",
)


#: keys of a layout that both phases of mixed instances share
OF_WEIGHTS = ("dies", "tp", "redundant", "expert_tp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A deployment of whole instances at the load allowed, or at the rate asked for; cards are of whole servers."""

    #: instances in the field's short form, such as 5P2D
    name: str
    cards: float
    servers: int
    requests_per_s: float
    tokens_per_s_per_card: float
    tpot: float
    ttft: float
    #: highest load of either pool, and requests per second asked for
    utilisation: float
    asked: float | None
    #: none where the run-spec states no price
    cost: Cost | None
    #: probability that TPOT is within its limit, where there is one
    chance: float | None


def whole_of(conditions: DeploymentConditions, run: Run, asked: Asked, priced: RunSpec | None) -> Whole:
    """Return what a deployment does whose pools are set up as ``run``, at the prices of a run-spec."""
    pools = resolved_pools(run)
    prefill, decode = pools["prefill"], pools["decode"]
    joined = JoinedPools(
        prefill=prefill,
        decode=decode,
        prefill_instances=conditions.prefill.instances,
        decode_instances=conditions.decode.instances,
        mixed=run.mixed,
    )
    counts: dict[Phase, int] = {"decode": joined.decode_instances}
    if not run.mixed:
        counts["prefill"] = joined.prefill_instances
    rates = {phase: pools[phase].scenario.case.rates for phase in counts}
    servers = {
        phase: math.ceil(count * pools[phase].plan.layout.dies / rates[phase].dies_per_server)
        for phase, count in counts.items()
    }
    packages = {phase: one.packages_per_server for phase, one in rates.items()}
    cards = {phase: number * packages[phase] for phase, number in servers.items()}
    requests = sustained_rate(asked, joined)
    tokens = requests * conditions.osl
    prices = card_prices(priced)
    return Whole(
        name=short_form(joined.prefill_instances, joined.decode_instances, mixed=run.mixed),
        cards=sum(cards.values()),
        servers=sum(servers.values()),
        requests_per_s=requests,
        tokens_per_s_per_card=tokens / sum(cards.values()),
        tpot=decode.tpot,
        ttft=cast(float, as_it_is(run).ttft),
        utilisation=asked.utilisation,
        asked=asked.requests_per_s,
        cost=None
        if prices is None
        else cost_of(servers=servers, packages_per_server=packages, prices=prices, tokens_per_s=tokens),
        chance=None if conditions.tpot is None else _chance(run, pools, conditions.tpot),
    )


def _chance(run: Run, pools: Mapping[Phase, Resolved], limit: float) -> float:
    """Return the probability that the TPOT of decode is within a limit."""
    ranges = {
        phase: pool_intervals(run.pools[phase].machine, one.plan.layout, one.plan.family, one.scenario.case)
        for phase, one in pools.items()
        if phase == "decode" or run.mixed
    }
    decode, intervals = pools["decode"], ranges["decode"]
    if run.mixed:
        intervals = mixed_intervals(intervals, ranges["prefill"], decode)
    return intervals.chance(limit, as_float(decode.point.tokens_per_step))


def shared_phases(first: Run, second: Run) -> tuple[Phase, ...]:
    """Return the phases of which both runs have a pool, in order."""
    return tuple(phase for phase in PHASES if phase in first.pools and phase in second.pools)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing in which two pools, or two deployments as wholes, differ, and the rate per card that it is worth.

    ``alone`` is the change of the first's rate when it alone takes the second's value, ``back`` that of the second's
    when it alone goes back; none where a layout is not possible so.  The rate is that of the pool, of mixed instances
    that of both phases.
    """

    #: none where the deployments differ as wholes
    phase: Phase | None
    name: str
    first: str
    second: str
    alone: float | None
    back: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RowDifference:
    """Card-seconds of an operator for one token in two pools."""

    phase: Phase
    name: str
    first: float
    second: float


def _changes(first: Pool, second: Pool) -> Iterator[tuple[str, str, str, dict[str, Any], bool]]:
    """Yield each difference: name, both values in words, the keys of the second, and whether a layout has them."""
    one, two = first.conditions, second.conditions
    grouped = [key for keys in TOGETHER.values() for key in keys]
    keys = list(TOGETHER.items())
    keys += [(key, (key,)) for key in type(one.layout).model_fields if key not in grouped]
    for name, members in keys:
        changed = [key for key in members if getattr(one.layout, key) != getattr(two.layout, key)]
        if changed:
            words = [", ".join(f"{key} {getattr(c.layout, key)}" for key in changed) for c in (one, two)]
            yield name, words[0], words[1], {key: getattr(two.layout, key) for key in members}, True
    for key in SHARED:
        if getattr(one, key) != getattr(two, key):
            yield key, str(getattr(one, key)), str(getattr(two, key)), {key: getattr(two, key)}, False


def _with(pool: Pool, keys: Mapping[str, Any], of_layout: bool) -> Pool:
    conditions = pool.conditions
    if of_layout:
        keys = {"layout": conditions.layout.model_copy(update=dict(keys))}
    return replace(pool, conditions=conditions.model_copy(update=dict(keys)))


def _rate(pool: Pool, phase: Phase, run: Run) -> float:
    if not run.mixed:
        return resolved_of(pool, run.model).tokens_per_s_per_card
    return as_it_is(_shareable(replace(run, pools={**run.pools, phase: pool}))).requests_per_s_per_card


def _shareable(run: Run) -> Run:
    """Return a run; raise ``UsageError`` where its instances are mixed and its pools hold weights differently."""
    layouts = [pool.conditions.layout for pool in run.pools.values()]
    if run.mixed and any(len({getattr(layout, key) for layout in layouts}) > 1 for key in OF_WEIGHTS):
        raise UsageError(f"mixed instances; allowed: one {', '.join(OF_WEIGHTS)} for both phases")
    return run


def _gain(start: Pool, changed: Pool, phase: Phase, run: Run) -> float | None:
    try:
        return _rate(changed, phase, run) / _rate(start, phase, run) - 1
    except UsageError:
        return None


def _serving(first: Run, second: Run) -> Iterator[Difference]:
    """Yield whether prefill has dies of its own, where two deployments differ in that."""
    runs = (first, second)
    if first.mixed == second.mixed or any(len(run.pools) < len(PHASES) for run in runs):
        return
    gains: list[float | None] = []
    for run in runs:
        try:
            other = as_it_is(_shareable(replace(run, mixed=not run.mixed)))
            gains.append(other.requests_per_s_per_card / as_it_is(run).requests_per_s_per_card - 1)
        except UsageError:
            gains.append(None)
    words = ["mixed" if run.mixed else "disaggregated" for run in runs]
    yield Difference(phase=None, name="serving", first=words[0], second=words[1], alone=gains[0], back=gains[1])


def _instances(first: Instances, second: Instances) -> Iterator[Difference]:
    """Yield each pool of which two deployments have more and fewer instances; rates per card do not feel that."""
    for phase in PHASES:
        if first and second and first[phase] != second[phase]:
            words = [str(one[phase]) for one in (first, second)]
            yield Difference(phase=phase, name="instances", first=words[0], second=words[1], alone=None, back=None)


def differences(first: Run, second: Run, instances: tuple[Instances, Instances]) -> list[Difference]:
    """Return everything in which two runs differ, with what it is worth on either side; what wholes differ in first.

    ``instances`` are those of each pool, none where a run is no deployment.
    """
    found = list(_instances(*instances))
    for phase in shared_phases(first, second):
        one, two = first.pools[phase], second.pools[phase]
        machines = [[(key, getattr(pool.conditions, key)) for key in MACHINE] for pool in (one, two)]
        if machines[0] != machines[1]:
            changed = [key for (key, a), (_, b) in zip(*machines, strict=True) if a != b]
            words = [", ".join(f"{key} {getattr(pool.conditions, key)}" for key in changed) for pool in (one, two)]
            found.append(
                Difference(
                    phase=phase,
                    name="machine",
                    first=words[0],
                    second=words[1],
                    alone=_gain(one, _on(one, two), phase, first),
                    back=_gain(two, _on(two, one), phase, second),
                )
            )
        for name, a, b, keys, of_layout in _changes(one, two):
            returned = {key: getattr(one.conditions.layout if of_layout else one.conditions, key) for key in keys}
            found.append(
                Difference(
                    phase=phase,
                    name=name,
                    first=a,
                    second=b,
                    alone=_gain(one, _with(one, keys, of_layout), phase, first),
                    back=_gain(two, _with(two, returned, of_layout), phase, second),
                )
            )
    ordered = sorted(found, key=lambda each: (each.phase or "", -abs(each.alone or 0.0)))
    return [*_serving(first, second), *ordered]


def _on(pool: Pool, other: Pool) -> Pool:
    """Return a pool on the machine of another."""
    keys = {key: getattr(other.conditions, key) for key in MACHINE}
    return Pool(conditions=pool.conditions.model_copy(update=keys), machine=other.machine)


def row_differences(first: Run, second: Run) -> list[RowDifference]:
    """Return the card-seconds that each operator takes of a token in both runs, the largest difference first."""
    found = []
    for phase in shared_phases(first, second):
        costs = [_card_seconds(resolved_of(run.pools[phase], run.model)) for run in (first, second)]
        for name in dict.fromkeys((*costs[0], *costs[1])):
            found.append(
                RowDifference(phase=phase, name=name, first=costs[0].get(name, 0.0), second=costs[1].get(name, 0.0))
            )
    return sorted(found, key=lambda row: (row.phase, -abs(row.second - row.first), row.name))


def _card_seconds(resolved: Resolved) -> dict[str, float]:
    """Return card-seconds of a token by operator; they add up to what a token costs."""
    parts = breakdown_of(resolved)
    each = 1 / resolved.tokens_per_s_per_card / parts.step_time
    return {name: time * each for name, time in parts.by_operator().items()}


def served_otherwise(first: Conditions, second: Conditions) -> list[str]:
    """Return in words what two pools serve otherwise, so that their rates do not compare."""
    keys = ("model", "isl", "osl", "acceptance")
    return [
        f"{key} {_said(first, key)} and {_said(second, key)}" for key in keys if _said(first, key) != _said(second, key)
    ]


def _said(conditions: Conditions, key: str) -> str:
    value = getattr(conditions, key)
    if key != "acceptance":
        return str(value)
    return ", ".join(map(str, value[: conditions.layout.draft])) or "none"  # what no draft uses changes nothing
