"""Join the pools: integer prefill and decode instances on a budget or for a rate."""

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, assert_never, cast

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import UsageError
from perfmodel.ledger.records import Layout
from perfmodel.serving import Case, FirstToken, fewest_dies, first_token, pool_point
from perfmodel.solver.misses import shortest_steps, tell_misses
from perfmodel.solver.plan import Deployment, Lost, PoolPlan, Price, Rejection, Solution, Status
from perfmodel.solver.search import Leader, Tally, best_decode, exact_pool, prefill_options, refitted
from perfmodel.solver.space import LARGEST_PREFILL_SERVERS, Choices
from perfmodel.specs.deployment import Targets
from perfmodel.units import Seconds

Objective = Literal["throughput", "per-card", "cards", "cost", "tpot"]
ROUNDING = 1e-9
UNITS = {"memory": "B", "tpot": "s", "prefill memory": "B", "ttft": "s", "cards": "1", "rate": "1/s"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the planner asked: a budget in servers, a rate, or both.

    ``servers`` are of both pools, or of decode alone where prefill has a budget of its own.  ``prices`` are of a
    server of prefill and of decode, in whatever money; equal prices count servers.
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
    """One decode leader with the prefill instances that feed it best; ``key`` orders joins, the smallest first."""

    decode: Leader
    prefill: int
    prefill_instances: int
    decode_instances: int
    served: float
    ttft: float
    key: tuple[float, ...]


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
    if not prefills.plans:
        return []
    sizes: dict[float, list[int]] = {}
    for place, decode in enumerate(decodes):
        sizes.setdefault(decode.servers, []).append(place)
    joins: dict[int, _Join] = {}
    smallest = float(prefills.servers.min()) if request.prefill_servers is None else 0.0
    for size, places in sizes.items():
        most = int((request.servers - min(1.0, smallest)) / size + ROUNDING)
        if most < 1:
            continue
        leaders = [decodes[place] for place in places]
        tried = [
            _joined_of_a_size(leaders, size, most, prefills, request, tally, enough)
            for enough in ((True, False) if _by_ratio(request) else (True,))
        ]
        for place, *found in zip(places, *tried, strict=True):
            feasible = [join for join in found if join is not None]
            if feasible:
                joins[place] = min(feasible, key=lambda join: join.key)
    return [joins[place] for place in sorted(joins)]


def _by_ratio(request: Request) -> bool:
    """Return whether rate over cost counts: then too few prefill servers, all full, may be better than enough."""
    return request.rate is None and request.objective in ("per-card", "cost")


def _joined_of_a_size(
    leaders: list[Leader],
    size: float,
    most: int,
    prefills: _Prefills,
    request: Request,
    tally: Tally,
    enough: bool,
) -> list[_Join | None]:
    """Return the best deployment of each of some decode instances of one size.

    For each count of decode instances as many prefill instances as feed them are taken, or as many as fill the last
    server that they keep busy, or as many as the budget leaves.  The axes are decode instance, their count, prefill
    instance.
    """
    rate = np.array([leader.requests_per_s for leader in leaders])[:, None, None] * request.utilisation
    step = np.array([leader.step_time for leader in leaders])[:, None, None]
    decodes = np.arange(1, most + 1, dtype=np.float64)[:, None]
    fed = decodes * rate if request.rate is None else np.minimum(decodes * rate, request.rate)
    decode_servers = np.ceil(decodes * size - ROUNDING)
    left = request.servers - decode_servers if request.prefill_servers is None else request.prefill_servers
    room = np.floor(left / prefills.servers + ROUNDING)
    wanted = fed / prefills.rate - ROUNDING
    of_server = np.maximum(1, np.rint(1 / prefills.servers))
    counts = np.minimum(np.ceil(wanted) if enough else np.floor(wanted / of_server) * of_server, room)
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
    prefill_servers = np.ceil(counts * prefills.servers - ROUNDING)
    cost = prefill_servers * request.prices[0] + decode_servers * request.prices[1]
    keys = _keys(request, served, prefill_servers + decode_servers, cost, ttft)
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
            ttft=float(ttft[here]),
            key=tuple(float(np.broadcast_to(key, served.shape)[here]) for key in keys),
        )
        joins.append(join if feasible[at] else None)
    return joins


def _keys(request: Request, served: Any, servers: Any, cost: Any, ttft: Any) -> tuple[Any, ...]:
    """Return what orders deployments, the smallest first, later keys deciding between equals."""
    match request.objective:
        case "throughput" | "tpot":
            return (-served, cost, ttft)
        case "cards":
            return (servers, -served, ttft)
        case "per-card" | "cost":
            priced = cost if request.objective == "cost" else servers
            return (priced / np.maximum(served, NOTHING_SERVED) if request.rate is None else priced, -served, ttft)
        case _:
            assert_never(request.objective)


def _first_of(keys: tuple[NDArray[np.float64], ...], allowed: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the place of the smallest allowed entry of each row, later keys deciding between equals."""
    left = allowed.reshape(len(allowed), -1)
    for key in keys:
        masked = np.where(left, np.broadcast_to(key, allowed.shape).reshape(left.shape), np.inf)
        left = left & (masked == masked.min(axis=1, keepdims=True))
    first: NDArray[np.intp] = np.argmax(left, axis=1)
    return first


def _deployment(join: _Join, prefills: _Prefills, cases: "_Cases", utilisation: float) -> Deployment:
    """Return a join evaluated with plain numbers."""
    prefill, decode = prefills.plans[join.prefill].plan(cases.prefill), join.decode.plan(cases.decode)
    n_prefill, n_decode = join.prefill_instances, join.decode_instances
    return Deployment(
        prefill=prefill,
        decode=decode,
        prefill_instances=n_prefill,
        decode_instances=n_decode,
        requests_per_s=join.served,
        prefill_utilisation=join.served / (n_prefill * _number(prefill.point.requests_per_s)),
        decode_utilisation=join.served / (n_decode * _number(decode.point.requests_per_s)),
        first_token=replace(_terms(prefill, cases.prefill, utilisation), first_step=decode.point.step_time),
        prefill_servers=math.ceil(n_prefill * prefill.servers - ROUNDING),
        decode_servers=math.ceil(n_decode * decode.servers - ROUNDING),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Cases:
    """What stays fixed for each pool: they may run on different systems."""

    prefill: Case
    decode: Case


def _step_limits(prefills: _Prefills, ttft: float | None) -> list[float]:
    """Return the times that TTFT leaves for the first decode step, one for each prefill candidate."""
    if ttft is None:
        return [math.inf]
    left = sorted({ttft - spent for spent in prefills.ttft.tolist() if spent < ttft})
    return left or [math.inf]


def _sizes(case: Case, servers: int) -> list[int]:
    """Return the sizes of an instance in dies: whole servers, and halves, quarters and so on of one.

    Parts of a server on which the routed experts alone pass the memory are left out.
    """
    of_server = case.rates.dies_per_server
    parts = [of_server >> shift for shift in range(of_server.bit_length() - 1, 0, -1) if of_server % (1 << shift) == 0]
    fewest = fewest_dies(case)
    return [part for part in parts if part >= fewest] + [n * of_server for n in range(1, servers + 1)]


#: joins of a search, each with the prefill candidates it was joined with, the best first
_Found = list[tuple[_Join, _Prefills]]


def _sides(cases: _Cases, request: Request) -> tuple[list[int], list[int]]:
    """Return the sizes of an instance that are searched, of prefill and of decode."""
    own = request.prefill_servers
    decode = _sizes(cases.decode, max(1, request.servers - (own is None)))
    return _sizes(cases.prefill, min(LARGEST_PREFILL_SERVERS, own or max(1, request.servers - 1))), decode


def _tell_misses(cases: _Cases, request: Request, tally: Tally) -> None:
    """Go over the space once more for the shortest TTFT, and the smallest budget, of a pair of instances."""
    prefill_sizes, decode_sizes = _sides(cases, request)
    for kv_dtype in request.choices.kv_dtypes:
        choices = replace(request.choices, kv_dtypes=(kv_dtype,))
        plans = prefill_options(cases.prefill, prefill_sizes, choices, Tally(), request.utilisation)
        if not plans:
            continue
        columns = _prefill_columns(plans, cases.prefill, request.utilisation)
        tell_misses(
            *shortest_steps(cases.decode, decode_sizes, request.targets.tpot, choices),
            (columns.servers, columns.ttft),
            cases.decode,
            (request.servers, request.prefill_servers),
            request.targets.ttft,
            tally,
        )


def _searched(cases: _Cases, request: Request, tally: Tally) -> _Found:
    prefill_sizes, decode_sizes = _sides(cases, request)
    joined: _Found = []
    for kv_dtype in request.choices.kv_dtypes:  # both pools keep one cache, so precisions do not mix
        choices = replace(request.choices, kv_dtypes=(kv_dtype,))
        columns = _prefill_columns(
            prefill_options(cases.prefill, prefill_sizes, choices, tally, request.utilisation),
            cases.prefill,
            request.utilisation,
        )
        limits = _step_limits(columns, request.targets.ttft)
        decodes = best_decode(cases.decode, decode_sizes, request.targets.tpot, limits, choices, tally)
        joined += [(join, columns) for join in _joined(decodes, columns, request, tally)]
    return sorted(joined, key=lambda pair: pair[0].key)


NEAR = 1e-3  # relative: so near the lowest TPOT few plans are left, and each search leads to a faster one


def _lowest_tpot(cases: _Cases, request: Request) -> tuple[_Found, Request, Tally]:
    """Return the joins of the lowest TPOT: limits halve what is left to a thousandth, then step from plan to plan."""
    tally = Tally()
    found = _searched(cases, request, tally)
    if not found:
        return found, request, tally
    high = _number(found[0][0].decode.plan(cases.decode).point.tpot)
    low, asked = high * SHORTEST, request
    while low < high * (1 - ROUNDING):
        near = high / low < 1 + NEAR
        middle = high * (1 - ROUNDING) if near else math.sqrt(low * high)
        tried = replace(request, targets=request.targets.model_copy(update={"tpot": middle}))
        counted = Tally()
        other = _searched(cases, tried, counted)
        if other:
            found, asked, tally = other, tried, counted
            high = _number(other[0][0].decode.plan(cases.decode).point.tpot)
        else:
            low = middle
    return found, asked, tally


SHORTEST = 1 / 64  # of a plan's TPOT: nothing is that much faster
NOTHING_SERVED = 1e-12


def solve(case: Case, request: Request, prefill_case: Case | None = None) -> Solution:
    """Return the best deployment, its nearest rivals, or why there is none.

    ``prefill_case`` is of the prefill pool where it runs on another system.  Raises ``UsageError`` where front ends
    that limit the rate are to be busy all the time: the wait for one has no bound.
    """
    cases = _Cases(prefill=prefill_case or case, decode=case)
    if request.utilisation >= 1 and cases.prefill.rates.frontend_rate is not None:
        raise UsageError(
            f"--utilisation: {request.utilisation:g} with front ends that limit the rate; allowed: below 1; the wait "
            "for a busy front end has no bound"
        )
    if request.objective == "tpot":
        found, request, tally = _lowest_tpot(cases, request)
    else:
        tally = Tally()
        found = _searched(cases, request, tally)
    if not found:
        _tell_misses(cases, request, tally)
    different: dict[tuple[object, ...], tuple[_Join, _Prefills]] = {}
    for join, columns in found:
        different.setdefault(join.decode.key, (join, columns))
    chosen = list(different.values())[: request.top]
    shown = [_deployment(join, columns, cases, request.utilisation) for join, columns in chosen]
    return Solution(
        status=Status.OPTIMAL if shown else Status.INFEASIBLE if tally.evaluated else Status.EMPTY,
        case=case,
        prefill_case=cases.prefill,
        evaluated=tally.evaluated,
        best=shown[0] if shown else None,
        alternatives=tuple(shown[1:]),
        rejections=tuple(_upright(r) for r in tally.rejections(UNITS)),
        lost=_lost(found, cases, request) if shown else (),
        prices=_prices(found, cases, request) if shown else (),
    )


def _choices_of(join: _Join) -> dict[str, str]:
    """Return the structural choices of a decode pool, in words."""
    layout, family = join.decode.layout, join.decode.mesh.family
    return {
        "tp": f"tp {layout.tp}",
        "draft": f"{layout.draft} drafts" if layout.draft != 1 else "1 draft",
        "overlap": {"none": "serial layers", "cores": "micro-batches on split cores"}.get(
            family.overlap, f"overlap {family.overlap}"
        ),
        "exchange": f"exchange {family.exchange}",
        "shared": "shared experts on dies of their own" if family.own_shared_ranks else "shared expert on every die",
        "cache": f"{family.kv_dtype} cache",
    }


def _lost(found: _Found, cases: _Cases, request: Request) -> tuple[Lost, ...]:
    """Return the best deployment of every other choice in one respect."""
    best = _choices_of(found[0][0])
    first: dict[str, tuple[_Join, _Prefills]] = {}
    for join, columns in found:
        for respect, word in _choices_of(join).items():
            if word != best[respect]:
                first.setdefault(word, (join, columns))
    return tuple(
        Lost(choice=word, deployment=_deployment(join, columns, cases, request.utilisation))
        for word, (join, columns) in first.items()
    )


MORE_TPOT = 1e-3  # s
MORE_TTFT = 0.1  # of the limit


def _prices(found: _Found, cases: _Cases, request: Request) -> tuple[Price, ...]:
    """Return what a millisecond of TPOT, a tenth of TTFT and one more server buy."""
    best, columns = found[0]
    prices = []
    tpot, ttft = request.targets.tpot, request.targets.ttft

    def gain(decodes: list[Leader], asked: Request) -> float:
        joins = _joined(decodes, columns, asked, Tally())
        top = min((join.key for join in joins), default=best.key)
        if request.objective in ("throughput", "tpot"):
            return top[0] / best.key[0] - 1
        return 1 - top[0] / best.key[0]

    if tpot is not None:
        longer = replace(request, targets=request.targets.model_copy(update={"tpot": tpot + MORE_TPOT}))
        leader = refitted(best.decode, cases.decode, tpot + MORE_TPOT)
        prices.append(Price(limit="+1 ms of TPOT", gain=gain([best.decode, leader], longer)))
    leaders = list({id(join.decode): join.decode for join, _ in found}.values())
    if ttft is not None:
        looser = replace(request, targets=request.targets.model_copy(update={"ttft": ttft * (1 + MORE_TTFT)}))
        prices.append(Price(limit="+10 % of TTFT", gain=gain(leaders, looser)))
    if request.rate is None:
        more = replace(request, servers=request.servers + 1)
        prices.append(Price(limit="one more server", gain=gain(leaders, more)))
    return tuple(prices)


def _upright(rejection: Rejection) -> Rejection:
    """Rates are tallied with their sign turned, since there more is better; turn it back."""
    if rejection.constraint != "rate":
        return rejection
    return replace(rejection, closest=-rejection.closest, limit=-rejection.limit)
