"""Mixed serving: every instance runs prefill and decode on the same dies, in turn."""

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from perfmodel.algebra import maximum
from perfmodel.formulas.serving import batch_formation_wait, mixed_tpot, residual_wait
from perfmodel.ledger.footprint import Footprint
from perfmodel.serving import Case, FirstToken, PoolPoint, pool_point, usable_memory
from perfmodel.solver.join import Join, first_of, packed
from perfmodel.solver.request import ROUNDING, Cases, Request, keys
from perfmodel.solver.search import CORES, Leader, Mesh, Tally, highest, meshes
from perfmodel.solver.space import too_many_tokens
from perfmodel.units import Bytes, Fraction, Seconds


def mixed_memory(prefill: PoolPoint, decode: PoolPoint) -> Bytes:
    """Return the bytes planned on a die that runs both phases: weights and cache once, the larger working spaces.

    The cache is decode's: a prompt takes the place of a finished sequence.
    """
    one, two = prefill.footprint, decode.footprint
    return (
        maximum(one.weights, two.weights)
        + two.kv
        + maximum(one.buffers, two.buffers)
        + maximum(one.workspace, two.workspace)
    )


def prompt_time(prefill: PoolPoint) -> Seconds:
    """Return the time of an instance for one prompt, in a full prefill step."""
    return prefill.step_time * prefill.tokens_per_request / prefill.in_flight


def mixed_time(prefill: PoolPoint, decode: PoolPoint) -> Seconds:
    """Return the TPOT of decode with the prefill steps in between."""
    return mixed_tpot(
        tpot=decode.tpot,
        sequences=decode.in_flight,
        prefill_time_per_request=prompt_time(prefill),
        tokens_per_request=decode.tokens_per_request,
    )


def mixed_first_token(prefill: PoolPoint, decode: PoolPoint, utilisation: Fraction) -> FirstToken:
    """Return the terms of TTFT of an instance at a part of its full rate.

    A full batch of prompts waits for half a decode step, and for a prefill step with the chance that one runs.
    """
    arrivals = utilisation * decode.in_flight / (mixed_time(prefill, decode) * decode.tokens_per_request)
    return FirstToken(
        batch_formation=batch_formation_wait(
            prompts=prefill.in_flight / prefill.tokens_per_request, arrival_rate=arrivals
        ),
        residual=residual_wait(utilisation=arrivals * prompt_time(prefill), service_time=prefill.step_time)
        + decode.step_time / 2,
        prefill=prefill.step_time,
        kv_transfer=0.0,
        first_step=decode.step_time,
    )


def unbeaten(columns: NDArray[np.float64]) -> list[int]:
    """Return the rows that no other is as small as in every column, by the first column; of equal rows the first.

    >>> unbeaten(np.array([[3.0, 1.0], [1.0, 2.0], [3.0, 3.0], [1.0, 2.0]]))
    [1, 0]
    """
    kept: list[int] = []
    for row in np.lexsort(columns.T[::-1]).tolist():
        if not (columns[kept] <= columns[row]).all(axis=1).any():
            kept.append(row)
    return kept


#: by size, tp, replicas and dies of an expert
Prompts = dict[tuple[int, int, int, int], list[tuple[Leader, PoolPoint]]]


def _prompts(case: Case, sizes: list[int], request: Request, tally: Tally) -> Prompts:
    """Return the prefill steps that no other beats, by size, tp, replicas and dies of an expert.

    In time, rate, prompts that wait for each other, and every part of memory of which the phase with more decides.
    """
    chunks = list(meshes(case, "prefill", sizes, request.choices))
    columns = []  # dies, tp, replicas, dies of an expert, time, rate, chunk and place in it, prompts and memory
    for number, mesh in enumerate(chunks):
        point: Any = pool_point(mesh.layout(), mesh.family, case)
        layout: Any = mesh.layout()
        split = mesh.structure.keys.get("expert_tp", 1)
        size, held = math.prod(mesh.shape), point.footprint
        each = (
            *(layout.dies, layout.tp, layout.redundant, split, point.step_time, point.requests_per_s, number),
            np.arange(size).reshape(mesh.shape),
            *(point.in_flight, held.weights, held.buffers, held.workspace),
        )
        tally.evaluated += size
        columns.append(np.stack([np.broadcast_to(one, mesh.shape).ravel() for one in each]))
    rows = np.concatenate(columns, axis=1).T
    found: Prompts = {}
    kinds, kind_of = np.unique(rows[:, :4], axis=0, return_inverse=True)
    for number, (dies, tp, redundant, split) in enumerate(kinds.tolist()):
        own = rows[kind_of.ravel() == number]
        leaders = [
            Leader(
                key=(dies, tp, redundant, split, index),
                mesh=chunks[int(own[index, 6])],
                index=int(own[index, 7]),
                requests_per_s=float(own[index, 5]),
                step_time=float(own[index, 4]),
                servers=dies / case.rates.dies_per_server,
            )
            for index in unbeaten(np.column_stack([own[:, 4], -own[:, 5], own[:, 8:]]))
        ]
        found[int(dies), int(tp), int(redundant), int(split)] = [(one, one.plan(case).point) for one in leaders]
    return found


def _stacked(points: dict[tuple[int, int, int], PoolPoint], shape: tuple[int, ...]) -> PoolPoint:
    """Return points of the sizes, slots and tp degrees of a mesh as one, not a number where there is none."""

    def column(of: Callable[[PoolPoint], Any]) -> Any:
        filled = np.full(shape, np.nan)
        for (n, k, t), point in points.items():
            filled[n, 0, k, t] = of(point)
        return filled

    first = next(iter(points.values()))
    foot = {
        one.name: column(lambda point, name=one.name: getattr(point.footprint, name))  # type: ignore[misc]
        for one in fields(Footprint)
    }
    return replace(
        first,
        step_time=column(lambda point: point.step_time),
        in_flight=column(lambda point: point.in_flight),
        footprint=Footprint(**foot),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Instance:
    """The best mixed instance of a size, tp, draft and family; ``rate`` is at full load."""

    decode: Leader
    prefill: Leader
    rate: float
    ttft: float
    added: float


def _of_mesh(mesh: Mesh, prompts: Prompts, cases: Cases, request: Request) -> tuple[list[_Instance], Tally]:
    """Return the best instance of each size, tp and draft of a chunk, over all prefill steps that go with it."""
    case, tally = cases.decode, Tally()
    point: Any = pool_point(mesh.layout(), mesh.family, case)
    steps = np.broadcast_to(point.step_time, mesh.shape)
    best: Any = replace(point, step_time=steps.min(axis=CORES, keepdims=True))
    grid = best.step_time.shape
    usable = float(cast(Any, usable_memory(case.rates)))
    busy = np.broadcast_to(np.asarray(too_many_tokens(mesh.layout(), mesh.family)), grid)
    sizes, _, slots, tps, *_ = mesh.shape
    split = mesh.structure.keys.get("expert_tp", 1)
    together = {
        (n, k, t): prompts.get(
            (int(mesh.experts.dies[n]), int(mesh.tp[t]), int(mesh.experts.redundant[n, 0, k]), split), []
        )
        for n, k, t in np.ndindex(sizes, slots, tps)
    }
    instances: dict[tuple[int, int, int], _Instance] = {}
    for depth in range(max(map(len, together.values()))):
        chosen = {place: rows[depth] for place, rows in together.items() if depth < len(rows)}
        prefill: Any = _stacked({place: plan for place, (_, plan) in chosen.items()}, (sizes, 1, slots, tps, 1, 1, 1))
        time: Any = np.broadcast_to(cast(Any, mixed_time(prefill, best)), grid)
        ttft: Any = np.broadcast_to(cast(Any, mixed_first_token(prefill, best, request.utilisation).ttft), grid)
        rate = point.in_flight / (time * case.osl)
        allowed = ~np.isnan(time) & ~busy
        memory = np.broadcast_to(cast(Any, mixed_memory(prefill, best)), grid)
        for name, values, limit in (
            ("memory", memory, usable),
            ("tpot", time, request.targets.tpot),
            ("ttft", ttft, request.targets.ttft),
        ):
            if limit is None:
                continue
            over = allowed & (values > limit)
            tally.count(name, int(np.count_nonzero(over)))
            if over.any():
                tally.miss(name, float(np.where(over, values, np.inf).min()), limit, "mixed serving")
            allowed &= ~over
        rates, places = highest(np.where(allowed, rate, -1.0).squeeze(CORES))
        for n, t, d in np.argwhere(rates > 0).tolist():
            if (n, t, d) in instances and instances[n, t, d].rate >= rates[n, t, d]:
                continue
            s, k, b = (int(places[axis][n, t, d]) for axis in (1, 2, 5))
            at = (n, s, k, t, d, 0, b)
            cores = int(steps[n, s, k, t, d, :, b].argmin())
            dies = int(mesh.experts.dies[n])
            leader = Leader(
                key=(dies, t, d, mesh.family, "mixed"),
                mesh=mesh,
                index=int(np.ravel_multi_index((n, s, k, t, d, cores, b), mesh.shape)),
                requests_per_s=float(rates[n, t, d]),
                step_time=float(best.step_time[at]),
                servers=dies / case.rates.dies_per_server,
            )
            instances[n, t, d] = _Instance(
                decode=leader,
                prefill=chosen[n, k, t][0],
                rate=leader.requests_per_s,
                ttft=float(ttft[at]),
                added=float(time[at]) - float(np.broadcast_to(best.tpot, grid)[at]),
            )
    return list(instances.values()), tally


def mixed_joins(cases: Cases, sizes: list[int], request: Request, tally: Tally) -> list[Join]:
    """Return the best mixed deployment of each size, tp, draft and family.

    The rate of an instance rises with decode's and prefill's at once, so for every prefill step that no other beats
    the whole decode space is gone through.  Both phases share the layout of weights: dp, tp and
    slots; shared experts have no dies of their own, since prefill has none.
    """
    prompts = _prompts(cases.prefill, sizes, request, tally)
    chunks = [
        mesh
        for mesh in meshes(cases.decode, "decode", sizes, request.choices)
        if not mesh.structure.family.own_shared_ranks
    ]
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        found = list(pool.map(lambda mesh: _of_mesh(mesh, prompts, cases, request), chunks))
    best: dict[tuple[object, ...], _Instance] = {}
    for mesh, (instances, counted) in zip(chunks, found, strict=True):
        tally.evaluated += math.prod(mesh.shape)
        tally.add(counted)
        for one in instances:
            before = best.get(one.decode.key)
            if before is None or one.rate > before.rate:
                best[one.decode.key] = one
    joins = [_join_of(one, request, tally) for one in best.values()]
    return [join for join in joins if join is not None]


def _join_of(one: _Instance, request: Request, tally: Tally) -> Join | None:
    """Return as many of an instance as pay on the budget or for the rate."""
    size, rate = one.decode.servers, one.rate * request.utilisation
    most = int(packed(size, 1.0, request.servers, request.domains[1])[0])
    if most < 1:
        return None
    counts = np.arange(1, most + 1, dtype=np.float64)[None]
    served = counts * rate if request.rate is None else np.minimum(counts * rate, request.rate)
    allowed = np.ones(served.shape, dtype=bool)
    if request.rate is not None:
        allowed = served >= request.rate * (1 - ROUNDING)
        tally.count("rate", int(np.count_nonzero(~allowed)))
        if not allowed.any():
            tally.miss("rate", -float(served.max()), -request.rate, "within the budget")
            return None
    servers = np.ceil(counts * size - ROUNDING)
    ordered = keys(request, served, servers, servers * request.prices[1], np.full(served.shape, one.ttft))
    at = int(first_of(ordered, allowed)[0])
    return Join(
        decode=one.decode,
        prefill=one.prefill,
        prefill_instances=at + 1,
        decode_instances=at + 1,
        served=float(served[0, at]),
        ttft=one.ttft,
        key=tuple(float(np.broadcast_to(key, served.shape)[0, at]) for key in ordered),
        mixed=True,
        tpot_added=one.added,
    )
