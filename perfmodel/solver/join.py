"""Join the pools: integer prefill and decode instances on a budget or for a rate."""

import math
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from perfmodel.algebra import as_array
from perfmodel.ledger.records import Layout
from perfmodel.prediction.deployment import ROUND_OFF, ROUNDING
from perfmodel.prediction.serving import Case, first_token, pool_point
from perfmodel.solver.mesh import Leader
from perfmodel.solver.request import SearchRequest, keys
from perfmodel.solver.tally import Tally


@dataclass(frozen=True, slots=True, eq=False)
class Join:
    """One decode leader with the prefill instances that feed it best; ``key`` orders joins, the smallest first.

    Of a mixed join every instance runs both phases, and ``tpot_added`` is what prefill in between costs.
    """

    decode: Leader
    prefill: Leader
    prefill_instances: int
    decode_instances: int
    served: float
    ttft: float
    key: tuple[float, ...]
    mixed: bool = False
    tpot_added: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Prefills:
    """The prefill pool's candidates as columns; ``ttft`` is up to the first decode step."""

    plans: list[Leader]
    servers: NDArray[np.float64]
    rate: NDArray[np.float64]
    ttft: NDArray[np.float64]


def prefill_columns(plans: list[Leader], case: Case, utilisation: float) -> Prefills:
    """Return the columns, evaluating all plans of a family in one pass."""
    ttft = np.zeros(len(plans))
    for family in dict.fromkeys(plan.mesh.family for plan in plans):
        rows = [row for row, plan in enumerate(plans) if plan.mesh.family == family]
        layouts = [Layout.of(plans[row].layout) for row in rows]
        columns = {
            one.name: np.array([getattr(layout, one.name) for layout in layouts], dtype=np.float64)
            for one in fields(Layout)
        }
        layout = Layout(**columns)
        terms = first_token(
            prefill=pool_point(layout, family, case), layout=layout, case=case, utilisation=utilisation, decode_step=0.0
        )
        ttft[rows] = as_array(terms.ttft)
    return Prefills(
        plans=plans,
        servers=np.array([plan.servers for plan in plans], dtype=np.float64),
        rate=np.array([plan.requests_per_s * utilisation for plan in plans]),
        ttft=ttft,
    )


def fastest_of_a_size(leaders: list[Leader]) -> list[Leader]:
    """Return the leaders that none of their size beats in both step and rate."""
    kept: list[Leader] = []
    rate: dict[float, float] = {}
    for leader in sorted(leaders, key=lambda one: (one.step_time, -one.requests_per_s)):
        if leader.requests_per_s > rate.get(leader.servers, 0.0):
            rate[leader.servers] = leader.requests_per_s
            kept.append(leader)
    return kept


def joined(decodes: list[Leader], prefills: Prefills, request: SearchRequest, tally: Tally) -> list[Join]:
    """Return the best deployment of each decode instance with any prefill instance, where there is one.

    Instances of one size are worked together: they leave the same room for prefill.
    """
    if not prefills.plans:
        return []
    sizes: dict[float, list[int]] = {}
    for place, decode in enumerate(decodes):
        sizes.setdefault(decode.servers, []).append(place)
    joins: dict[int, Join] = {}
    smallest = float(prefills.servers.min()) if request.prefill_servers is None else 0.0
    for size, places in sizes.items():
        most = int((request.servers - min(1.0, smallest)) / size + ROUNDING)
        if most < 1:
            continue
        leaders = [decodes[place] for place in places]
        tried = [
            _joined_of_a_size(leaders, size, most, prefills, request, tally, enough)
            for enough in ((True, False) if request.by_ratio else (True,))
        ]
        for place, *found in zip(places, *tried, strict=True):
            feasible = [join for join in found if join is not None]
            if feasible:
                joins[place] = min(feasible, key=lambda join: join.key)
    return [joins[place] for place in sorted(joins)]


def _joined_of_a_size(
    leaders: list[Leader],
    size: float,
    most: int,
    prefills: Prefills,
    request: SearchRequest,
    tally: Tally,
    enough: bool,
) -> list[Join | None]:
    """Return the best deployment of each of some decode instances of one size.

    For each count of decode instances as many prefill instances as feed them are taken, or as many as fill the last
    server that they keep busy, or as many as the budget leaves.  The axes are decode instance, their count, prefill
    instance.
    """
    longer, of_rate = request.margins, request.of_rate
    rate = np.array([leader.requests_per_s for leader in leaders])[:, None, None] * request.utilisation / of_rate.decode
    prefill_rate = prefills.rate / of_rate.prefill
    step = np.array([leader.step_time for leader in leaders])[:, None, None]
    decodes = np.arange(1, most + 1, dtype=np.float64)[:, None]
    fed = decodes * rate if request.rate is None else np.minimum(decodes * rate, request.rate)
    decode_servers = np.ceil(decodes * size - ROUNDING)
    room = _room(size, most, decode_servers, prefills, request)
    wanted = fed / prefill_rate - ROUNDING
    of_server = np.maximum(1, np.rint(1 / prefills.servers))
    counts = np.minimum(np.ceil(wanted) if enough else np.floor(wanted / of_server) * of_server, room)
    served = np.minimum(counts * prefill_rate, fed)
    ttft = np.broadcast_to(prefills.ttft + step, served.shape)
    allowed = counts >= 1
    if request.targets.ttft is not None:
        seen = prefills.ttft * longer.prefill + step * longer.decode
        late = allowed & (seen > request.targets.ttft * (1 + ROUND_OFF))
        tally.count("ttft", int(np.count_nonzero(late)))
        if late.any():
            tally.miss("ttft", float(np.where(late, seen, np.inf).min()), request.targets.ttft, "prefill pool")
        allowed &= ~late
    if request.rate is not None:
        short = allowed & (served < request.rate * (1 - ROUNDING))
        tally.count("rate", int(np.count_nonzero(short)))
        if short.any():
            tally.miss("rate", -float(np.where(short, served, 0.0).max()), -request.rate, "within the budget")
        allowed &= ~short
    prefill_servers = np.ceil(counts * prefills.servers - ROUNDING)
    cost = prefill_servers * request.prices[0] + decode_servers * request.prices[1]
    ordered = keys(request, served, prefill_servers + decode_servers, cost, ttft)
    n, p = np.unravel_index(first_of(ordered, allowed), served.shape[1:])
    here = (np.arange(len(leaders)), n, p)
    columns = [np.broadcast_to(each, served.shape)[here].tolist() for each in (counts, served, ttft, *ordered)]
    feasible = np.any(allowed, axis=(1, 2)).tolist()
    return [
        Join(
            decode=leader,
            prefill=prefills.plans[prefill],
            prefill_instances=int(count),
            decode_instances=instances + 1,
            served=rate,
            ttft=first,
            key=tuple(key),
        )
        if possible
        else None
        for leader, possible, instances, prefill, count, rate, first, *key in zip(
            leaders, feasible, n.tolist(), p.tolist(), *columns, strict=True
        )
    ]


def _room(
    size: float, most: int, decode_servers: NDArray[np.float64], prefills: Prefills, request: SearchRequest
) -> NDArray[np.float64]:
    """Return the most prefill instances beside each count of decode instances; axes count, prefill instance."""
    of_prefill, of_decode = request.domains
    if request.prefill_servers is not None:  # a system of its own: only its own instances share its domains
        room = np.floor(request.prefill_servers / prefills.servers + ROUNDING)
        alone = np.array([packed(each, 1.0, request.prefill_servers, of_prefill)[0] for each in prefills.servers])
        decodes = packed(size, 1.0, request.servers, of_decode)[0]
        counts = np.arange(1, most + 1)[:, None]
        return np.where(counts <= decodes, np.minimum(room, alone), 0.0)
    room = np.floor((request.servers - decode_servers) / prefills.servers + ROUNDING)
    if of_decode is None or of_decode >= request.servers:
        return room
    beside = {each: packed(each, size, request.servers, of_decode) for each in set(prefills.servers.tolist())}
    packs = np.stack([_at_counts(beside[each], most) for each in prefills.servers.tolist()], axis=1)
    fits: NDArray[np.float64] = np.minimum(room, packs)
    return fits


def _at_counts(packed_beside: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """Return the entries of 1 to ``most`` instances, none where so many do not pack."""
    found = np.full(most, -1.0)
    known = packed_beside[1 : most + 1]
    found[: len(known)] = known
    return found


@lru_cache(maxsize=4096)
def packed(size: float, beside: float, servers: int, domain: int | None) -> NDArray[np.float64]:
    """Return the most instances of ``size`` that pack beside 0, 1, 2, ... instances of size ``beside``.

    ``servers`` fall into domains of equal size, the last one smaller, and no instance spans two.  Domain by domain
    the best of every division is kept, so the counts are exact.

    >>> packed(3.0, 2.0, 16, 8).tolist()  # two domains of 8, as 3 + 3 + 2 in each
    [4.0, 4.0, 4.0, 3.0, 2.0, 2.0, 1.0, 0.0, 0.0]
    """
    whole, rest = divmod(servers, domain or servers)
    best = np.zeros(1)
    for room in [domain or servers] * whole + ([rest] if rest else []):
        counts = np.arange(int(room / beside + ROUNDING) + 1)
        own = np.floor((room - np.ceil(counts * beside - ROUNDING)) / size + ROUNDING)
        both = best[:, None] + own
        places = np.arange(len(best))[:, None] + counts
        merged = np.zeros(len(best) + len(own) - 1)
        np.maximum.at(merged, places, both)
        best = merged
    # fewer of the other never leave less room
    found: NDArray[np.float64] = np.maximum.accumulate(best[::-1])[::-1]
    return found


def divided(
    counts: tuple[int, int], sizes: tuple[float, float], servers: int, domain: int | None
) -> list[tuple[int, int]]:
    """Return how many instances of two sizes each domain takes, as many as it can from the first on.

    ``servers`` fall into domains of equal size, the last one smaller, and no instance spans two.  Nothing where they
    do not pack.

    >>> divided((1, 4), (2.0, 3.0), 16, 8)
    [(1, 2), (0, 2)]
    """
    beside, own = counts
    shares: list[tuple[int, int]] = []
    while beside or own:
        room = min(servers, domain or servers)
        servers -= room
        for share in range(min(beside, int(room / sizes[0] + ROUNDING)), -1, -1):
            left = room - math.ceil(share * sizes[0] - ROUNDING)
            taken = min(own, int(left / sizes[1] + ROUNDING))
            after = packed(sizes[1], sizes[0], servers, domain) if servers else np.zeros(1)
            if beside - share < len(after) and after[beside - share] >= own - taken:
                break
        else:
            return []
        shares.append((share, taken))
        beside, own = beside - share, own - taken
    return shares


def first_of(ordered: tuple[NDArray[np.float64], ...], allowed: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the place of the smallest allowed entry of each row, later keys deciding between equals."""
    left = allowed.reshape(len(allowed), -1)
    for key in ordered:
        masked = np.where(left, np.broadcast_to(key, allowed.shape).reshape(left.shape), np.inf)
        left = left & (masked == masked.min(axis=1, keepdims=True))
    first: NDArray[np.intp] = np.argmax(left, axis=1)
    return first
