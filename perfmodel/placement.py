"""What each die of a deployment holds: its place in the system, its rank, its expert slots."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from perfmodel.rates import Rates
from perfmodel.specs.deployment import LayoutSpec, Phase
from perfmodel.specs.model import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Die:
    """One die at work; all counts start at 1.

    ``rank`` is its data-parallel rank of attention and ``member`` its place among the dies of that rank, ``slots`` the
    first and the last of the expert slots that it keeps; none where it has no attention, or no routed experts.
    """

    phase: Phase
    instance: int
    server: int
    card: int
    die: int
    rank: int | None
    member: int | None
    slots: tuple[int, int] | None
    shared: bool


def placement(
    pools: Mapping[Phase, tuple[LayoutSpec, int]], model: ModelSpec, rates: Rates
) -> tuple[tuple[Die, ...], int]:
    """Return the dies of all instances of all pools, and the servers that they are on.

    ``pools`` are layouts with their instances; each pool begins on a server of its own.  Within an instance dies play
    their parts in order: dies for attention before those for experts alone, routed ranks before ranks that hold only
    shared experts, and slots in order of their number.  That order is a convention: times do not depend on it.
    """
    per_server = int(cast(Any, rates.dies_per_server))
    found: list[Die] = []
    first = 0
    for phase, (layout, instances) in pools.items():
        found += _pool(phase, layout, instances, first, model, rates)
        first += -(-layout.dies * instances // per_server)
    return tuple(found), first


def _pool(
    phase: Phase, layout: LayoutSpec, instances: int, first: int, model: ModelSpec, rates: Rates
) -> Iterator[Die]:
    per_card = int(cast(Any, rates.dies_per_package))
    per_server = int(cast(Any, rates.dies_per_server))
    attention = layout.dies - layout.expert_dies
    group = layout.tp * layout.cp
    routed_from = attention if layout.expert_dies else 0
    routed_to = layout.dies - layout.shared_ranks
    slots = model.experts.n_routed_experts + layout.redundant
    each = -(-slots // (routed_to - routed_from))
    everywhere = bool(model.experts.n_shared_experts) and not layout.shared_ranks
    for instance in range(instances):
        for at in range(layout.dies):
            place = first * per_server + instance * layout.dies + at
            start = (at - routed_from) * each
            routed = routed_from <= at < routed_to and start < slots
            yield Die(
                phase=phase,
                instance=instance + 1,
                server=place // per_server + 1,
                card=place % per_server // per_card + 1,
                die=place % per_card + 1,
                rank=at // group + 1 if at < attention else None,
                member=at % group + 1 if at < attention else None,
                slots=(start + 1, min(start + each, slots)) if routed else None,
                shared=at >= routed_to or (everywhere and at >= routed_from),
            )
