"""Where each die of a plan stands: its system, server and domain, and the servers in use."""

from collections.abc import Mapping
from dataclasses import dataclass

from perfmodel.planning.pools import Run
from perfmodel.prediction.deployment import Deployment
from perfmodel.prediction.placement import Die, placement
from perfmodel.prediction.scenario import Resolved
from perfmodel.solver.join import divided
from perfmodel.specs.deployment import Phase
from perfmodel.specs.plan import PlanSpec
from perfmodel.supply.machine import Machine
from perfmodel.supply.rates import Rates


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One system of a plan, in groups of servers that no instance leaves."""

    machine: Machine
    rates: Rates
    #: phases of the pools on it
    phases: tuple[Phase, ...]
    #: servers of a group, and those in use by number, which counts on from system to system
    size: int
    first: int
    used: tuple[int, ...]
    #: cards of the budget that are in no server in use; none where there was no budget
    idle: int | None


def systems_of(run: Run) -> dict[str, tuple[Phase, ...]]:
    """Return the phases on each system; prefill's comes first where there are two."""
    found: dict[str, tuple[Phase, ...]] = {}
    for phase in ("prefill", "decode"):
        name = run.pools[phase].machine.system.spec.name
        found[name] = (*found.get(name, ()), phase)
    return found


def sites_of(
    plan: PlanSpec, run: Run, best: Deployment, resolved: Mapping[Phase, Resolved]
) -> tuple[tuple[Die, ...], tuple[Site, ...]]:
    """Return the place of every die, and the systems that they are on."""
    servers = best.servers
    layouts = {phase: one.plan.layout for phase, one in resolved.items() if servers[phase]}
    dies: list[Die] = []
    sites: list[Site] = []
    first = 0
    for phases in systems_of(run).values():
        rates = resolved[phases[-1]].scenario.case.rates
        own = {phase: layout for phase, layout in layouts.items() if phase in phases}
        used = sum(servers[phase] for phase in phases)
        given = plan.wanted.cards
        if plan.run is not None and plan.run.prefill_on is not None and phases == ("prefill",):
            given = plan.run.prefill_cards
        budget = max(used, (given or 0) // rates.packages_per_server)
        size = int(rates.max_packages // rates.packages_per_server)
        counts: dict[Phase, int] = {"prefill": best.prefill_instances, "decode": best.decode_instances}
        domains = _domains({phase: (counts[phase], resolved[phase].plan.servers) for phase in own}, budget, size)
        found = placement(own, domains, run.model, rates, size=size, first=first)
        dies += found
        sites.append(
            Site(
                machine=run.pools[phases[-1]].machine,
                rates=rates,
                phases=phases,
                size=size,
                first=first,
                used=tuple(sorted({die.server for die in found})),
                idle=None if given is None else max(0, given - used * rates.packages_per_server),
            )
        )
        first = max(die.server for die in found)
    return tuple(dies), tuple(sites)


def _domains(pools: Mapping[Phase, tuple[int, float]], servers: int, size: int) -> list[dict[Phase, int]]:
    """Return how many instances each domain has of each pool; all in one where an instance leaves its domain.

    ``pools`` are the instances of each and the servers of one.
    """
    (phase, (count, each)), *rest = pools.items()
    if rest:
        ((other, (number, own)),) = rest
        shares = divided((count, number), (each, own), servers, size)
        found: list[dict[Phase, int]] = [{phase: a, other: b} for a, b in shares]
    else:
        found = [{phase: b} for _, b in divided((0, count), (1.0, each), servers, size)]
    return found or [{name: count for name, (count, _) in pools.items()}]
