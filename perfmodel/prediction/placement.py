"""What each die of a deployment holds: its place in the system, its rank, its expert slots."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from perfmodel.algebra import as_float
from perfmodel.specs.deployment import LayoutSpec, Phase
from perfmodel.specs.model import ModelSpec
from perfmodel.supply.rates import Rates


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
    pools: Mapping[Phase, LayoutSpec],
    domains: Sequence[Mapping[Phase, int]],
    model: ModelSpec,
    rates: Rates,
    *,
    size: int = 0,
    first: int = 0,
) -> tuple[Die, ...]:
    """Return the dies of all instances of all pools.

    ``domains`` say how many instances each domain has of each pool; a domain is of ``size`` servers, and servers count
    on from ``first``.  Each pool of a domain begins on a server of its own.  Within an instance dies play
    their parts in order: dies for attention before those for experts alone, routed ranks before ranks that hold only
    shared experts, and slots in order of their number.  That order is a convention: times do not depend on it.
    """
    per_server = int(as_float(rates.dies_per_server))
    found: list[Die] = []
    before = dict.fromkeys(pools, 0)
    for number, counts in enumerate(domains):
        at = first + number * size
        for phase, instances in counts.items():
            layout = pools[phase]
            found += _pool(phase, layout, range(before[phase], before[phase] + instances), at, model, rates)
            at += -(-layout.dies * instances // per_server)
            before[phase] += instances
    return tuple(found)


def _pool(
    phase: Phase, layout: LayoutSpec, instances: range, first: int, model: ModelSpec, rates: Rates
) -> Iterator[Die]:
    per_card = int(as_float(rates.dies_per_package))
    per_server = int(as_float(rates.dies_per_server))
    attention = layout.dies - layout.expert_dies
    group = layout.tp * layout.cp
    routed_from = attention if layout.expert_dies else 0
    routed_to = layout.dies - layout.shared_ranks
    slots = model.n_routed_experts + layout.redundant
    each = -(-slots // (routed_to - routed_from))
    everywhere = bool(model.n_shared_experts) and not layout.shared_ranks
    for nth, instance in enumerate(instances):
        for at in range(layout.dies):
            place = first * per_server + nth * layout.dies + at
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
