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
    servers: int


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
    servers_used: int


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
class Solution:
    """The answer."""

    status: Status
    case: Case
    evaluated: int
    best: Deployment | None
    alternatives: tuple[Deployment, ...]
    rejections: tuple[Rejection, ...]
