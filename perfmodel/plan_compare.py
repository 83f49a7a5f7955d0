"""Two runs beside each other: what differs, what each difference is worth, and where the time goes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from perfmodel.errors import UsageError
from perfmodel.scenario import Resolved, breakdown_of
from perfmodel.specs.deployment import Phase
from perfmodel.specs.evidence import Conditions
from perfmodel.what_if import Pool, Run, resolved_of

#: keys that make sense only together, by the name they are shown under
TOGETHER: dict[str, tuple[str, ...]] = {
    "instance and experts": ("dies", "shared_ranks", "redundant", "expert_tp"),
    "overlap": ("overlap", "attention_cores", "expert_dies", "domains", "micro_batches"),
}
MACHINE = ("system", "stack", "kernels", "techniques")
SHARED = ("isl", "osl", "acceptance", "precision", "kv_dtype", "expert_weights", "balanced", "prefix_hit", "isl_spread")


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing in which two pools differ, and the rate per card that it is worth.

    ``alone`` is the change of the first pool's rate when it alone takes the second's value, ``back`` that of the
    second's when it alone goes back; none where a layout is not possible so.
    """

    phase: Phase
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


def _rate(pool: Pool, run: Run) -> float:
    return resolved_of(pool, run.model).tokens_per_s_per_card


def _gain(start: Pool, changed: Pool, run: Run) -> float | None:
    try:
        return _rate(changed, run) / _rate(start, run) - 1
    except UsageError:
        return None


def differences(first: Run, second: Run) -> list[Difference]:
    """Return everything in which the pools of two runs differ, with what it is worth on either side."""
    found = []
    for phase in first.pools.keys() & second.pools.keys():
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
                    alone=_gain(one, _on(one, two), first),
                    back=_gain(two, _on(two, one), second),
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
                    alone=_gain(one, _with(one, keys, of_layout), first),
                    back=_gain(two, _with(two, returned, of_layout), second),
                )
            )
    return sorted(found, key=lambda each: (each.phase, -abs(each.alone or 0.0)))


def _on(pool: Pool, other: Pool) -> Pool:
    """Return a pool on the machine of another."""
    keys = {key: getattr(other.conditions, key) for key in MACHINE}
    return Pool(conditions=pool.conditions.model_copy(update=keys), machine=other.machine)


def row_differences(first: Run, second: Run) -> list[RowDifference]:
    """Return the card-seconds that each operator takes of a token in both runs, the largest difference first."""
    found = []
    for phase in first.pools.keys() & second.pools.keys():
        costs = [_card_seconds(resolved_of(run.pools[phase], run.model)) for run in (first, second)]
        for name in costs[0].keys() | costs[1].keys():
            found.append(
                RowDifference(phase=phase, name=name, first=costs[0].get(name, 0.0), second=costs[1].get(name, 0.0))
            )
    return sorted(found, key=lambda row: (row.phase, -abs(row.second - row.first), row.name))


def _card_seconds(resolved: Resolved) -> dict[str, float]:
    """Return card-seconds of a token by operator; they add up to what a token costs."""
    parts = breakdown_of(resolved)
    each = 1 / resolved.tokens_per_s_per_card / parts.step_time
    return {name: time * each for name, time in parts.by_operator().items()}


def conditions_differ(first: Conditions, second: Conditions) -> bool:
    """Return whether two pools serve other requests, so that their rates do not compare."""
    return first.model != second.model or first.isl != second.isl or first.osl != second.osl
