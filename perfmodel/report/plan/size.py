"""Servers, cards and dies of a deployment, in words."""

from collections.abc import Mapping

from perfmodel.prediction.deployment import Deployment
from perfmodel.prediction.serving import Case
from perfmodel.report.layout_words import sizes
from perfmodel.specs.deployment import Phase


def size_in_words(best: Deployment, cases: Mapping[Phase, Case]) -> str:
    """Return the servers, cards and dies in use, of each pool where they are on two systems."""
    words = [
        sizes(servers * cases[phase].rates.dies_per_server, cases[phase].rates)
        for phase, servers in best.servers.items()
    ]
    if cases["prefill"] is not cases["decode"]:
        return f"prefill {words[0]}; decode {words[1]}"
    rates = cases["decode"].rates
    return sizes(best.servers_used * rates.dies_per_server, rates)
