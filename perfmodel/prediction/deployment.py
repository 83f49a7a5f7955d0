"""One plan and its figures: a pool's instance evaluated, and whole deployments joined by a request rate."""

import math
from dataclasses import dataclass, replace
from typing import Any

from perfmodel.algebra import as_float, minimum
from perfmodel.ledger.footprint import Footprint
from perfmodel.ledger.records import Family, Layout
from perfmodel.prediction.mixed import mixed_first_token, mixed_footprint, mixed_rate, mixed_time
from perfmodel.prediction.serving import Case, FirstToken, PoolPoint, first_token, pool_point
from perfmodel.specs.deployment import LayoutSpec, Phase

ROUNDING = 1e-9  # of counts of servers and instances, which are whole but for it; relative, of rates and of TPOT
ROUND_OFF = 1e-12  # relative: sums of arrays and of plain numbers round otherwise, and what meets a limit equals it


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
        return as_float(self.decode.point.tpot) + self.tpot_added

    @property
    def longest_gap(self) -> float:
        """Longest time between two steps of a sequence: a prefill step comes in between where they share dies."""
        step = as_float(self.decode.point.step_time)
        return step + (as_float(self.prefill.point.step_time) if self.mixed else 0.0)

    @property
    def prefill_utilisation(self) -> float:
        """Load of the prefill pool."""
        return self.requests_per_s / self.prefill_capacity

    @property
    def decode_utilisation(self) -> float:
        """Load of the decode pool."""
        return self.requests_per_s / self.decode_capacity

    @property
    def servers(self) -> dict[Phase, int]:
        """Servers in use of each pool; mixed instances count as decode's."""
        return {"prefill": self.prefill_servers, "decode": self.decode_servers}

    @property
    def servers_used(self) -> int:
        """Whole servers of both pools."""
        return self.prefill_servers + self.decode_servers

    @property
    def short_form(self) -> str:
        """Instances in the field's short form, such as 5P2D."""
        return short_form(self.prefill_instances, self.decode_instances, mixed=self.mixed)


def short_form(prefill: int, decode: int, *, mixed: bool) -> str:
    """Return instances in the field's short form.

    >>> short_form(5, 2, mixed=False), short_form(4, 4, mixed=True)
    ('5P2D', '4 mixed')
    """
    return f"{decode} mixed" if mixed else f"{prefill}P{decode}D"


def exact_pool(layout: LayoutSpec, family: Family, case: Case) -> PoolPlan:
    """Return a given layout evaluated with plain numbers."""
    return PoolPlan(
        layout=layout,
        family=family,
        point=pool_point(Layout.of(layout), family, case),
        servers=layout.dies / case.rates.dies_per_server,
    )


def first_token_of(
    prefill: PoolPlan, decode: PoolPlan, prefill_case: Case, utilisation: float, mixed: bool
) -> FirstToken:
    """Return the terms of TTFT of two pools, or of instances that run both phases."""
    if mixed:
        return mixed_first_token(prefill.point, decode.point, prefill_case, utilisation)
    return first_token(
        prefill=prefill.point,
        layout=Layout.of(prefill.layout),
        case=prefill_case,
        utilisation=utilisation,
        decode_step=decode.point.step_time,
    )


def figures_of(best: Deployment, cases: tuple[Case, Case], utilisation: float) -> dict[str, Any]:
    """Return TPOT, TTFT and the requests a second at full load of a deployment.

    They are evaluated anew for cases of both pools, prefill's first, whose rates may be arrays.
    """
    prefill, decode = (
        exact_pool(pool.layout, pool.family, case)
        for pool, case in zip((best.prefill, best.decode), cases, strict=True)
    )
    return figures_of_pools(best, (prefill, decode), cases[0], utilisation)


def figures_of_pools(
    best: Deployment, pools: tuple[PoolPlan, PoolPlan], prefill_case: Case, utilisation: float
) -> dict[str, Any]:
    """Return TPOT, TTFT and the requests a second at full load of a deployment of other pools, prefill's first."""
    prefill, decode = pools
    terms = first_token_of(prefill, decode, prefill_case, utilisation, best.mixed)
    tpot = mixed_time(prefill.point, decode.point) if best.mixed else decode.point.tpot
    each = mixed_rate(prefill.point, decode.point) if best.mixed else decode.point.requests_per_s
    rate = best.decode_instances * each
    if not best.mixed:
        rate = minimum(rate, best.prefill_instances * prefill.point.requests_per_s)
    return {"TPOT": tpot, "TTFT": terms.ttft, "rate": rate}


def deployment_of(
    pools: tuple[PoolPlan, PoolPlan],
    counts: tuple[int, int],
    prefill_case: Case,
    utilisation: float,
    *,
    served: float,
    mixed: bool,
) -> Deployment:
    """Return so many instances of two pools, prefill's first, that serve ``served`` requests a second."""
    (prefill, decode), (n_prefill, n_decode) = pools, counts
    added, rate = 0.0, as_float(decode.point.requests_per_s)
    if mixed:
        added = as_float(mixed_time(prefill.point, decode.point)) - as_float(decode.point.tpot)
        rate = as_float(mixed_rate(prefill.point, decode.point))
        decode = replace(decode, point=replace(decode.point, footprint=footprint_of_both(prefill, decode)))
    capacity = n_decode * rate
    return Deployment(
        prefill=prefill,
        decode=decode,
        prefill_instances=n_prefill,
        decode_instances=n_decode,
        requests_per_s=served,
        prefill_capacity=capacity if mixed else n_prefill * as_float(prefill.point.requests_per_s),
        decode_capacity=capacity,
        first_token=first_token_of(prefill, decode, prefill_case, utilisation, mixed),
        prefill_servers=0 if mixed else math.ceil(n_prefill * prefill.servers - ROUNDING),
        decode_servers=math.ceil(n_decode * decode.servers - ROUNDING),
        mixed=mixed,
        tpot_added=added,
    )


def footprint_of_both(prefill: PoolPlan, decode: PoolPlan) -> Footprint:
    """Return the bytes on a die of mixed instances."""
    prompts = prefill.point.in_flight / prefill.point.tokens_per_request
    return mixed_footprint(prefill.point, decode.point, prompts / Layout.of(decode.layout).ranks)
