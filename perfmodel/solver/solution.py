"""What the solver answers: a status, a deployment, its neighbours, and why others fell."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from perfmodel.prediction.deployment import Deployment, PoolPlan
from perfmodel.solver.request import Cases, SearchRequest
from perfmodel.specs.deployment import LayoutShape, Phase

if TYPE_CHECKING:  # it is made of what is made of this
    from perfmodel.solver.finalists import Finalists
    from perfmodel.solver.join import Join


class Status(StrEnum):
    """How a search ended."""

    OPTIMAL = "optimal"
    INFEASIBLE = "infeasible"
    EMPTY = "empty_space"


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontPoint:
    """A deployment that none beats in both TPOT and output tokens a second of a card, sustained, of those in use."""

    tpot: float
    tokens_per_s_per_card: float
    deployment: Deployment


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Plans that one constraint refused, and the nearest of them."""

    constraint: str
    count: int
    closest: float
    limit: float
    unit: str
    layout: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AlternativeCost:
    """The best deployment that chooses otherwise in one respect."""

    choice: str
    deployment: Deployment
    #: relative change of the objective
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowPrice:
    """What a little more of one limit buys, the chosen decode layout kept but for its batch."""

    limit: str
    #: relative gain of the objective
    gain: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimalRange:
    """Over which acceptance of the first draft position the structure of the best decode instance stays the best."""

    lowest: float
    highest: float
    #: acceptance of the first draft position as asked for
    asked: float
    #: what is better beyond either end, in words; empty where nothing is down to 0 or up to 1
    below: str
    above: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The limit that refuses a given layout: how near it comes where that is a number, and what is wrong in words."""

    #: one of ``REFUSING``
    constraint: str
    closest: float | None = None
    limit: float | None = None
    unit: str = ""
    words: str = ""


#: what a given layout is held against, in this order
REFUSING = ("software", "layout", "acceptance", "prefill memory", "memory", "tpot", "cards", "ttft", "rate")


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenOutcome:
    """Where a given layout leads: the best deployment with it, or what refuses it."""

    #: names of those who gave it
    rows: tuple[str, ...]
    #: what was given, of several cases the one that is told
    layouts: Mapping[Phase, LayoutShape]
    #: these pools, each at the batch of its highest rate within the limits; none of those that have no batch within
    pools: Mapping[Phase, PoolPlan] = field(default_factory=dict)
    deployment: Deployment | None = None
    #: relative change of the objective; none where there is no deployment
    loss: float | None = None
    refused: Refused | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Beside:
    """The joins of a request that was searched beside the one that was asked, the best first."""

    request: SearchRequest
    joins: "tuple[Join, ...]"
    cases: Cases

    def least(self, join: "Join") -> "Join":
        """Return a join with batches no fuller than its rate needs, as the best of a search is given."""
        from perfmodel.solver.refit import with_least_batches

        return with_least_batches([join], self.cases, self.request)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """The answer."""

    status: Status
    #: what was searched in the end: for the lowest TPOT its limit is what was found
    search: SearchRequest
    evaluated: int
    best: Deployment | None
    alternatives: tuple[Deployment, ...]
    #: relative change of the objective from the best to each of them
    losses: tuple[float, ...]
    rejections: tuple[Rejection, ...]
    alternative_costs: tuple[AlternativeCost, ...] = ()
    shadow_prices: tuple[ShadowPrice, ...] = ()
    #: requests a second that the best two instances would serve were their counts not whole
    relaxed_rate: float | None = None
    #: the pools of the best deployment, each at the batch of its highest rate within the limits
    full: Mapping[Phase, PoolPlan] = field(default_factory=dict)
    #: what each layout that was given leads to
    given: tuple[GivenOutcome, ...] = ()
    #: plans with more room in either pool
    finalists: "Finalists | None" = None
    #: what requests beside it lead to
    beside: tuple[Beside, ...] = ()
