"""Instances and cards of a deployment, in the field's short form and in words."""

from collections.abc import Mapping

from perfmodel.prediction.deployment import Deployment
from perfmodel.prediction.serving import Case
from perfmodel.report.layout_words import sizes
from perfmodel.report.plan.budget import servers_in_use
from perfmodel.specs.deployment import Phase


def counts_in_words(best: Deployment) -> str:
    """Return the instances in the field's short form, such as 5P2D."""
    return f"{best.decode_instances} mixed" if best.mixed else f"{best.prefill_instances}P{best.decode_instances}D"


def size_in_words(best: Deployment, cases: Mapping[Phase, Case]) -> str:
    """Return the servers, cards and dies in use, of each pool where they are on two systems."""
    words = [
        sizes(servers * cases[phase].rates.dies_per_server, cases[phase].rates)
        for phase, servers in servers_in_use(best).items()
    ]
    if cases["prefill"] is not cases["decode"]:
        return f"prefill {words[0]}; decode {words[1]}"
    rates = cases["decode"].rates
    return sizes(best.servers_used * rates.dies_per_server, rates)
