"""What the planner asks of a search."""

from dataclasses import dataclass, replace
from typing import Any

from perfmodel.prediction.serving import Case
from perfmodel.solver.space import Choices
from perfmodel.specs.deployment import Targets
from perfmodel.specs.run import Objective, Serving

NOTHING_SERVED = 1e-12


@dataclass(frozen=True, slots=True)
class Margins:
    """How many times its predicted length a step of either pool may last with every limit still met."""

    prefill: float = 1.0
    decode: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    """What the planner asked: a budget in servers, a rate, or both.

    ``servers`` are of both pools, or of decode alone where prefill has a budget of its own.  ``prices`` are of a
    server of prefill and of decode, in whatever money, or its watts; equal prices count servers.  ``domains`` are the
    servers that one instance of prefill and of decode may span, none where any; instances pack into whole domains.
    With ``margins`` TTFT and the rate asked for are to be met with steps that much longer; the limit on TPOT is given
    as what is left of it.  A rate that was not asked for is as predicted.
    """

    servers: int
    rate: float | None
    targets: Targets
    utilisation: float
    objective: Objective
    choices: Choices
    top: int
    prefill_servers: int | None = None
    prices: tuple[float, float] = (1.0, 1.0)
    serving: Serving = "disaggregated"
    domains: tuple[int | None, int | None] = (None, None)
    margins: Margins = Margins()
    #: servers that the budget may grow to where the rate is not met, of prefill's own and of the other; none: it stays
    largest: tuple[int | None, int | None] = (None, None)

    @property
    def of_rate(self) -> Margins:
        """Margins that the rate is held to: none where none was asked for."""
        return Margins() if self.rate is None else self.margins

    @property
    def by_ratio(self) -> bool:
        """Whether rate over cost counts: then too few prefill servers, all full, may be best."""
        return self.rate is None and self.objective in ("per-card", "cost", "energy")


def with_budget_of(request: SearchRequest, other: SearchRequest) -> SearchRequest:
    """Return a request with the budget of another: that which a search let grow."""
    return replace(request, servers=other.servers, prefill_servers=other.prefill_servers)


@dataclass(frozen=True, slots=True, eq=False)
class Cases:
    """What stays fixed for each pool: they may run on different systems."""

    prefill: Case
    decode: Case


def keys(request: SearchRequest, served: Any, servers: Any, cost: Any, ttft: Any) -> tuple[Any, ...]:
    """Return what orders deployments, the smallest first, later keys deciding between equals."""
    import numpy as np

    match request.objective:
        case "throughput" | "tpot":
            return (-served, cost, ttft)
        case "cards":
            return (servers, -served, ttft)
        case "per-card" | "cost" | "energy":
            priced = servers if request.objective == "per-card" else cost
            return (priced / np.maximum(served, NOTHING_SERVED) if request.rate is None else priced, -served, ttft)


def value(request: SearchRequest, key: tuple[float, ...]) -> float:
    """Return the objective of a deployment from its first key, the more the better.

    Requests a second; or, where an objective counts servers, money or watts, their inverse: what the same serves
    for one of them.
    """
    return -key[0] if request.objective in ("throughput", "tpot") else 1 / key[0]
