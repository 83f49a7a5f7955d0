"""What the solver answers: a status, a deployment, its neighbours, and why others fell."""

from dataclasses import dataclass
from enum import StrEnum

from perfmodel.ledger.records import Family
from perfmodel.serving import Case, FirstToken, PoolPoint
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
    prefill_utilisation: float
    decode_utilisation: float
    first_token: FirstToken
    prefill_servers: int
    decode_servers: int

    @property
    def servers_used(self) -> int:
        """Whole servers of both pools."""
        return self.prefill_servers + self.decode_servers


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
    """The best deployment that chooses otherwise in one respect; none where none is feasible."""

    choice: str
    deployment: Deployment | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a little more of one limit buys, the chosen decode layout kept but for its batch."""

    limit: str
    #: relative gain of the rate; for the objective "cards" the servers saved
    gain: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """The answer."""

    status: Status
    case: Case
    #: case of the prefill pool, where it runs on another system
    prefill_case: Case
    evaluated: int
    best: Deployment | None
    alternatives: tuple[Deployment, ...]
    rejections: tuple[Rejection, ...]
    lost: tuple[Lost, ...] = ()
    prices: tuple[Price, ...] = ()
