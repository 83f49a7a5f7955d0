"""Servers and cards that a plan may use, those it uses, and how supernodes divide them."""

import math

from perfmodel.planning.request import PlanRequest
from perfmodel.prediction.deployment import Deployment
from perfmodel.solver.request import SearchRequest
from perfmodel.specs.deployment import PHASES, Phase


def cards_allowed(request: PlanRequest) -> dict[str, int]:
    """Return the cards that may be used, by system."""
    found: dict[str, int] = {}
    names = {phase: machine.system.spec.name for phase, machine in request.machines.items()}
    servers_of: dict[Phase, int | None] = {"decode": request.search.servers, "prefill": request.search.prefill_servers}
    for phase, servers in servers_of.items():
        if servers is not None:
            found[names[phase]] = servers * request.cases[phase].rates.packages_per_server
    if request.run.cards and request.search.prefill_servers is None:
        found[names["decode"]] = request.run.cards
    return found


def beyond_one_domain(request: PlanRequest, best: Deployment) -> tuple[str, ...]:
    """Return that a plan is more than one supernode or server group, where it is."""
    found: list[str] = []
    same = request.search.prefill_servers is None
    used = {"decode": sum(best.servers.values())} if same else dict(best.servers)
    for phase, domain in zip(PHASES, request.search.domains, strict=True):
        servers, each = used.get(phase, 0), request.cases[phase].rates.packages_per_server
        if domain is not None and servers > domain > 1:
            found.append(
                f"{servers * each:g} cards are more than one supernode or server group of {domain * each:g} cards: "
                f"at least {math.ceil(servers / domain)} of them"
            )
    return tuple(found)


def domains_in_words(search: SearchRequest) -> tuple[str, ...]:
    """Return how a budget beyond one supernode or server group is divided."""
    found: list[str] = []
    for servers, domain in ((search.prefill_servers, search.domains[0]), (search.servers, search.domains[1])):
        if servers is None or domain is None or servers <= domain:
            continue
        whole, rest = divmod(servers, domain)
        more = f" and one of {rest}, which must be for sale in part" if rest else ""
        found.append(
            f"the budget is {whole} supernodes or server groups of {domain} servers{more}; no instance leaves its own "
            "(--allow-scale-out), and between them the cache takes the network that joins them"
        )
    return tuple(found)
