"""What the solver answers: a status, a deployment, its neighbours, and why others fell."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

from perfmodel.ledger.records import Family
from perfmodel.prediction.serving import FirstToken, PoolPoint
from perfmodel.solver.request import Request
from perfmodel.specs.deployment import LayoutSpec


class Status(StrEnum):
    """How a search ended."""

    OPTIMAL = "optimal"
    INFEASIBLE = "infeasible"
    EMPTY = "empty_space"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPlan:
    """One pool's instance: its layout, family and what it serves."""

    layout: LayoutSpec
    family: Family
    point: PoolPoint
    #: servers of one instance; below one where several share a server
    servers: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Whole deployment: integer instances of both pools joined by a request rate."""

    prefill: PoolPlan
    decode: PoolPlan
    prefill_instances: int
    decode_instances: int
    requests_per_s: float
    #: requests a second that all instances of a pool take at full load
    prefill_capacity: float
    decode_capacity: float
    first_token: FirstToken
    #: servers of each pool; none of prefill's own where the instances are mixed
    prefill_servers: int
    decode_servers: int
    #: whether every instance runs both phases on the same dies, in turn
    mixed: bool = False
    #: seconds that prefill steps in between add to a decode step's TPOT
    tpot_added: float = 0.0

    @property
    def tpot(self) -> float:
        """Time per output token, prefill in between included."""
        return float(cast(Any, self.decode.point.tpot)) + self.tpot_added

    @property
    def longest_gap(self) -> float:
        """Longest time between two steps of a sequence: a prefill step comes in between where they share dies."""
        step = float(cast(Any, self.decode.point.step_time))
        return step + (float(cast(Any, self.prefill.point.step_time)) if self.mixed else 0.0)

    @property
    def prefill_utilisation(self) -> float:
        """Load of the prefill pool."""
        return self.requests_per_s / self.prefill_capacity

    @property
    def decode_utilisation(self) -> float:
        """Load of the decode pool."""
        return self.requests_per_s / self.decode_capacity

    @property
    def servers_used(self) -> int:
        """Whole servers of both pools."""
        return self.prefill_servers + self.decode_servers


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
class Lost:
    """The best deployment that chooses otherwise in one respect."""

    choice: str
    deployment: Deployment
    #: relative change of the objective
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a little more of one limit buys, the chosen decode layout kept but for its batch."""

    limit: str
    #: relative gain of the objective
    gain: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Holds:
    """Over which acceptance of the first draft position the structure of the best decode instance stays the best."""

    lowest: float
    highest: float
    #: acceptance of the first draft position as asked for
    asked: float
    #: what is better beyond either end, in words; empty where nothing is down to 0 or up to 1
    below: str
    above: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """The answer."""

    status: Status
    #: what was searched in the end: for the lowest TPOT its limit is what was found
    request: Request
    evaluated: int
    best: Deployment | None
    alternatives: tuple[Deployment, ...]
    #: relative change of the objective from the best to each of them
    losses: tuple[float, ...]
    rejections: tuple[Rejection, ...]
    lost: tuple[Lost, ...] = ()
    prices: tuple[Price, ...] = ()
    #: requests a second that the best two instances would serve were their counts not whole
    unrounded: float | None = None
