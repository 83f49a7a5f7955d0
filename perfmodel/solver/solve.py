"""Join the pools: integer prefill and decode instances on a budget or for a rate."""

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from perfmodel.ledger.records import Layout
from perfmodel.serving import Case, FirstToken, first_token, pool_point
from perfmodel.solver.plan import Deployment, PoolPlan, Rejection, Solution, Status
from perfmodel.solver.search import Leader, Tally, best_decode, exact_pool, prefill_options
from perfmodel.solver.space import LARGEST_PREFILL_SERVERS, Choices
from perfmodel.specs.deployment import Targets
from perfmodel.units import Seconds

Objective = Literal["throughput", "cards"]
ROUNDING = 1e-9
UNITS = {"memory": "B", "tpot": "s", "prefill memory": "B", "ttft": "s", "rate": "1/s"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the planner asked: a budget in servers, a rate, or both."""

    servers: int
    rate: float | None
    targets: Targets
    utilisation: float
    objective: Objective
    choices: Choices
    top: int


def _number(value: Any) -> float:
    return float(value)


def _terms(prefill: PoolPlan, case: Case, utilisation: float) -> FirstToken:
    """Return the terms of TTFT up to the first decode step."""
    return first_token(
        prefill=prefill.point,
        layout=Layout.of(prefill.layout),
        case=case,
        utilisation=utilisation,
        decode_step=0.0,
    )


def latencies(prefill: PoolPlan, decode: PoolPlan, case: Case, utilisation: float) -> tuple[Seconds, Seconds]:
    """Return TPOT and TTFT of two given pools, evaluated anew for a case whose rates may be arrays."""
    again = [exact_pool(pool.layout, pool.family, case) for pool in (prefill, decode)]
    terms = replace(_terms(again[0], case, utilisation), first_step=again[1].point.step_time)
    return again[1].point.tpot, terms.ttft


@dataclass(frozen=True, slots=True, eq=False)
class _Join:
    """One decode leader with the prefill instances that feed it best."""

    decode: Leader
    prefill: int
    prefill_instances: int
    decode_instances: int
    served: float
    servers: float
    ttft: float

    def rank(self, objective: Objective) -> tuple[float, ...]:
        """Order of preference, smallest first."""
        rate = -self.served
        return (self.servers, rate, self.ttft) if objective == "cards" else (rate, self.servers, self.ttft)


@dataclass(frozen=True, slots=True, eq=False)
class _Prefills:
    """The prefill pool's candidates as columns; ``ttft`` is up to the first decode step."""

    plans: list[Leader]
    servers: NDArray[np.float64]
    rate: NDArray[np.float64]
    ttft: NDArray[np.float64]


def _prefill_columns(plans: list[Leader], case: Case, utilisation: float) -> _Prefills:
    """Return the columns, evaluating all plans of a family in one pass."""
    ttft = np.zeros(len(plans))
    for family in dict.fromkeys(plan.mesh.family for plan in plans):
        rows = [row for row, plan in enumerate(plans) if plan.mesh.family == family]
        layouts = [Layout.of(plans[row].layout) for row in rows]
        columns: Any = {
            one.name: np.array([getattr(layout, one.name) for layout in layouts], dtype=np.float64)
            for one in fields(Layout)
        }
        layout = Layout(**columns)
        terms = first_token(
            prefill=pool_point(layout, family, case), layout=layout, case=case, utilisation=utilisation, decode_step=0.0
        )
        ttft[rows] = cast(Any, terms.ttft)
    return _Prefills(
        plans=plans,
        servers=np.array([plan.servers for plan in plans], dtype=np.float64),
        rate=np.array([plan.requests_per_s * utilisation for plan in plans]),
        ttft=ttft,
    )


def _joined(decodes: list[Leader], prefills: _Prefills, request: Request, tally: Tally) -> list[_Join]:
    """Return the best deployment of each decode instance with any prefill instance, where there is one.

    Instances of one size are worked together: they leave the same room for prefill.
    """
    sizes: dict[int, list[int]] = {}
    for place, decode in enumerate(decodes):
        sizes.setdefault(decode.servers, []).append(place)
    joins: dict[int, _Join] = {}
    for servers, places in sizes.items():
        most = (request.servers - 1) // servers
        if most >= 1 and prefills.plans:
            found = _joined_of_a_size([decodes[place] for place in places], servers, most, prefills, request, tally)
            joins.update((place, join) for place, join in zip(places, found, strict=True) if join)
    return [joins[place] for place in sorted(joins)]


def _joined_of_a_size(
    leaders: list[Leader], size: int, most: int, prefills: _Prefills, request: Request, tally: Tally
) -> list[_Join | None]:
    """Return the best deployment of each of some decode instances of one size.

    For each count of decode instances the fewest prefill instances that feed them are taken, or as
    many as the budget leaves.  The axes are decode instance, their count, prefill instance.
    """
    rate = np.array([leader.requests_per_s for leader in leaders])[:, None, None] * request.utilisation
    step = np.array([leader.step_time for leader in leaders])[:, None, None]
    decodes = np.arange(1, most + 1, dtype=np.float64)[:, None]
    fed = decodes * rate if request.rate is None else np.minimum(decodes * rate, request.rate)
    room = np.floor((request.servers - decodes * size) / prefills.servers)
    counts = np.minimum(np.ceil(fed / prefills.rate - ROUNDING), room)
    served = np.minimum(counts * prefills.rate, fed)
    ttft = np.broadcast_to(prefills.ttft + step, served.shape)
    allowed = counts >= 1
    if request.targets.ttft is not None:
        late = allowed & (ttft > request.targets.ttft)
        tally.count("ttft", int(np.count_nonzero(late)))
        if late.any():
            tally.miss("ttft", float(np.where(late, ttft, np.inf).min()), request.targets.ttft, "prefill pool")
        allowed &= ~late
    if request.rate is not None:
        short = allowed & (served < request.rate * (1 - ROUNDING))
        tally.count("rate", int(np.count_nonzero(short)))
        if short.any():
            tally.miss("rate", -float(np.where(short, served, 0.0).max()), -request.rate, "within the budget")
        allowed &= ~short
    servers = counts * prefills.servers + decodes * size
    keys = (-served, servers, ttft) if request.objective == "throughput" else (servers, -served, ttft)
    n, p = np.unravel_index(_first_of(keys, allowed), served.shape[1:])
    joins: list[_Join | None] = []
    feasible = np.any(allowed, axis=(1, 2))
    for at, leader in enumerate(leaders):
        here = (at, n[at], p[at])
        join = _Join(
            decode=leader,
            prefill=int(p[at]),
            prefill_instances=int(counts[here]),
            decode_instances=int(n[at]) + 1,
            served=float(served[here]),
            servers=float(servers[here]),
            ttft=float(ttft[here]),
        )
        joins.append(join if feasible[at] else None)
    return joins


def _first_of(keys: tuple[NDArray[np.float64], ...], allowed: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the place of the smallest allowed entry of each row, later keys deciding between equals."""
    left = allowed.reshape(len(allowed), -1)
    for key in keys:
        masked = np.where(left, key.reshape(left.shape), np.inf)
        left = left & (masked == masked.min(axis=1, keepdims=True))
    first: NDArray[np.intp] = np.argmax(left, axis=1)
    return first


def _deployment(join: _Join, prefills: _Prefills, case: Case, utilisation: float) -> Deployment:
    """Return a join evaluated with plain numbers."""
    prefill, decode = prefills.plans[join.prefill].plan(case), join.decode.plan(case)
    n_prefill, n_decode = join.prefill_instances, join.decode_instances
    return Deployment(
        prefill=prefill,
        decode=decode,
        prefill_instances=n_prefill,
        decode_instances=n_decode,
        requests_per_s=join.served,
        prefill_utilisation=join.served / (n_prefill * _number(prefill.point.requests_per_s)),
        decode_utilisation=join.served / (n_decode * _number(decode.point.requests_per_s)),
        first_token=replace(_terms(prefill, case, utilisation), first_step=decode.point.step_time),
        servers_used=n_prefill * prefill.servers + n_decode * decode.servers,
    )


def _step_limits(prefills: _Prefills, ttft: float | None) -> list[float]:
    """Return the times that TTFT leaves for the first decode step, one for each prefill candidate."""
    if ttft is None:
        return [math.inf]
    left = sorted({ttft - spent for spent in prefills.ttft.tolist() if spent < ttft})
    return left or [math.inf]


def solve(case: Case, request: Request) -> Solution:
    """Return the best deployment, its nearest rivals, or why there is none."""
    tally = Tally()
    largest = max(1, request.servers - 1)
    sizes = [n * case.rates.dies_per_server for n in range(1, largest + 1)]
    joined: list[tuple[_Join, _Prefills]] = []
    for kv_dtype in request.choices.kv_dtypes:  # both pools keep one cache, so precisions do not mix
        choices = replace(request.choices, kv_dtypes=(kv_dtype,))
        prefills = prefill_options(case, sizes[:LARGEST_PREFILL_SERVERS], choices, tally)
        columns = _prefill_columns(prefills, case, request.utilisation)
        limits = _step_limits(columns, request.targets.ttft)
        decodes = best_decode(case, sizes, request.targets.tpot, limits, choices, tally)
        joined += [(join, columns) for join in _joined(decodes, columns, request, tally)]
    ranked = sorted(joined, key=lambda pair: pair[0].rank(request.objective))
    different: dict[tuple[object, ...], tuple[_Join, _Prefills]] = {}
    for join, columns in ranked:
        different.setdefault(join.decode.key, (join, columns))
    chosen = list(different.values())[: request.top]
    shown = [_deployment(join, columns, case, request.utilisation) for join, columns in chosen]
    rejections = tuple(_upright(r) for r in tally.rejections(UNITS))
    return Solution(
        status=Status.OPTIMAL if shown else Status.INFEASIBLE if tally.evaluated else Status.EMPTY,
        case=case,
        evaluated=tally.evaluated,
        best=shown[0] if shown else None,
        alternatives=tuple(shown[1:]),
        rejections=rejections,
    )


def _upright(rejection: Rejection) -> Rejection:
    """Rates are tallied with their sign turned, since there more is better; turn it back."""
    if rejection.constraint != "rate":
        return rejection
    return replace(rejection, closest=-rejection.closest, limit=-rejection.limit)
