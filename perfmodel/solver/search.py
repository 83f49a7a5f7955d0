"""The best instances of a pool: the fastest decode leaders of each size, the undominated prefill options."""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.algebra import as_array, as_float
from perfmodel.prediction.deployment import ROUND_OFF
from perfmodel.prediction.layouts import too_many_tokens
from perfmodel.prediction.serving import (
    Case,
    PoolPoint,
    first_token,
    footprint_of,
    pool_point,
    tokens_per_step,
    usable_memory,
)
from perfmodel.solver.mesh import CORES, Grid, Leader, Mesh, meshes
from perfmodel.solver.space import (
    Choices,
)
from perfmodel.solver.tally import Tally, describe

LARGEST_KEPT_BLOCK = 31 * 2**20  # bytes

#: what else is worked out of a chunk and its point, which take longest, and taken in in the order of the chunks
Also = tuple[Callable[[Mesh, PoolPoint], Any], Callable[[Mesh, Any], None]]


#: a chunk and its point
Evaluated = tuple[Mesh, PoolPoint]


def _grids(mesh: Mesh, case: Case, point: PoolPoint | None = None) -> tuple[PoolPoint, Grid, Grid, Grid]:
    point = point or pool_point(mesh.layout(), mesh.family, case)
    time = np.broadcast_to(as_array(point.tpot), mesh.shape)
    memory = np.broadcast_to(as_array(point.memory), mesh.shape)
    rate = np.broadcast_to(as_array(point.requests_per_s), mesh.shape)
    return point, time, memory, rate


@dataclass(frozen=True, slots=True, eq=False)
class _Best:
    """The best plan of each limit, size, tp and draft of a mesh, and how many plans fell.

    ``rate`` is below zero where none fits; ``index`` is flat in the mesh.
    """

    mesh: Mesh
    rate: Grid
    index: NDArray[np.int64]
    step_time: Grid
    too_large: int
    too_slow: int


CUT_STEP = 8  # batches between those at which memory is looked at ahead


def cut(mesh: Mesh, case: Case, memory_limit: float) -> Mesh:
    """Return a chunk without the batches at which none of its layouts fits: memory never falls with the batch."""
    if len(mesh.batch) <= CUT_STEP:
        return mesh
    coarse = replace(mesh, batch=mesh.batch[::CUT_STEP], cores=mesh.cores[:1])
    memory = as_array(footprint_of(coarse.layout(), mesh.family, case).planned)
    fits = np.any(np.broadcast_to(memory <= memory_limit, coarse.shape), axis=tuple(range(len(coarse.shape) - 1)))
    most = int(np.flatnonzero(fits)[-1] + 1) * CUT_STEP if fits.any() else CUT_STEP
    return replace(mesh, batch=mesh.batch[:most])


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a plan is to meet: TPOT, the step, and the acceptance at which both count, where not the case's."""

    tpot: float = math.inf
    step: float = math.inf
    acceptance: tuple[float, ...] | None = None


def _best_of_chunk(
    mesh: Mesh, case: Case, memory_limit: float, limits: Sequence[Limits], point: PoolPoint | None = None
) -> _Best:
    """Return the highest rates under each of several limits; ``point`` is the chunk's where it is known.

    At one batch the rate falls with the step time and memory does not feel the core split, so the
    split with the shortest step is taken first, whatever the limits.
    """
    point = point or pool_point(mesh.layout(), mesh.family, case)
    step = np.broadcast_to(as_array(point.step_time), mesh.shape)
    shortest = step.min(axis=CORES, keepdims=True)
    best = replace(point, step_time=shortest)
    too_large = as_array(best.memory) > memory_limit
    refused = too_large | too_many_tokens(mesh.layout(), mesh.family)
    steps = shortest.squeeze(CORES)
    found = []
    within: Grid | None = None
    last: tuple[object, ...] = ()
    for one in limits:
        if within is None or last != (one.tpot, one.acceptance):
            last = (one.tpot, one.acceptance)
            more: float | Grid = 1.0
            if one.acceptance is not None:
                more = as_array(tokens_per_step(one.acceptance, mesh.layout().draft) / point.tokens_per_step)
            late = refused | (as_array(best.tpot) > one.tpot * (1 + ROUND_OFF) * more)
            within = np.where(late, -1.0, as_array(best.requests_per_s) * more).squeeze(CORES)
        found.append(
            highest(within if one.step == np.inf else np.where(steps <= one.step * (1 + ROUND_OFF), within, -1.0))
        )
    places = tuple(np.stack(axis) for axis in zip(*(place for _, place in found), strict=True))
    n, s, k, t, d, b = places
    split = step[n, s, k, t, d, :, b].argmin(axis=-1)
    tpot = limits[0].tpot
    return _Best(
        mesh=mesh,
        rate=np.stack([rate for rate, _ in found]),
        index=np.ravel_multi_index((n, s, k, t, d, split, b), mesh.shape),
        step_time=steps[places],
        too_large=int(np.count_nonzero(too_large)) * (step.size // too_large.size),
        too_slow=int(np.count_nonzero(step > tpot * as_array(point.tokens_per_step))) if tpot < np.inf else 0,
    )


def highest(rates: Grid, ttft: Grid | None = None) -> tuple[Grid, tuple[NDArray[np.intp], ...]]:
    """Return the highest rate of each size, tp and draft, and its place in the grid.

    Of equals the one with the shortest TTFT where it is given, else the first.
    """
    if ttft is not None:
        equal = rates == rates.max(axis=(1, 2, 5), keepdims=True)
        _, places = highest(np.where(equal, -ttft, -np.inf))
        return rates[places], places
    sizes, shared, slots, tps, drafts, _ = rates.shape
    peaks = rates.max(axis=-1).reshape(sizes, shared * slots, tps, drafts)
    variant = peaks.argmax(axis=1)
    n, t, d = np.indices(variant.shape)
    s, k = np.divmod(variant, slots)
    return peaks[n, variant, t, d], (n, s, k, t, d, rates[n, s, k, t, d].argmax(axis=-1))


def _keep_freed_memory() -> None:
    """Let the C library keep freed arrays for the next ones instead of giving their pages back.

    glibc returns freed memory beyond twice the largest block it has seen freed, so one untouched block just below
    its limit of 32 MiB is freed first; else clearing new pages for temporaries takes half of the search.
    Costs nothing, and does nothing with other libraries.
    """
    np.empty(LARGEST_KEPT_BLOCK, dtype=np.uint8)


def best_decode(
    case: Case,
    sizes: list[int],
    tpot: float | None,
    step_limits: list[float],
    choices: Choices,
    tally: Tally,
    known: Sequence[Leader] = (),
) -> list[Leader]:
    """Return the fastest feasible instance of each size, tp, draft and family under each step limit.

    ``known`` are those of other sizes, found before: they come first.

    Several limits are given where TTFT leaves each prefill candidate another time for the first
    decode step.
    """
    return best_decode_beside(case, sizes, [limits_of(tpot, step_limits)], choices, tally, [known])[0]


def limits_of(tpot: float | None, step_limits: Sequence[float]) -> list[Limits]:
    """Return one limit on TPOT with each limit on the step."""
    return [Limits(tpot=np.inf if tpot is None else tpot, step=limit) for limit in step_limits]


def best_decode_beside(
    case: Case,
    sizes: list[int],
    asked: Sequence[Sequence[Limits]],
    choices: Choices,
    tally: Tally,
    known: Sequence[Sequence[Leader]] = (),
    also: Also | None = None,
) -> list[list[Leader]]:
    """Return what ``best_decode`` does for each of several groups of limits, in one pass over the space.

    What is refused is counted for the first group alone; ``known`` are those of each group.  ``also`` is worked out of
    every chunk beside them.
    """
    chunks, found = _leaders(case, sizes, [limit for group in asked for limit in group], choices, tally, also)
    ends = np.cumsum([0, *map(len, asked)]).tolist()
    groups = [
        distinct([*before, *(leader for each in found[start:end] for leader in each)])
        for start, end, before in zip(ends[:-1], ends[1:], known or [()] * len(asked), strict=True)
    ]
    if not groups[0]:
        _nearest_misses(case, chunks, as_float(usable_memory(case.rates)), asked[0][0].tpot, tally)
    return groups


def leaders_of(
    case: Case, sizes: list[int], asked: Sequence[Limits], step_limits: list[float], choices: Choices
) -> list[list[Leader]]:
    """Return what ``best_decode`` does for each of several limits, in one pass over the space.

    Each is taken with every step limit that a step within its TPOT can reach.
    """
    limits: list[Limits] = []
    own: list[int] = []
    for one in asked:
        accepted = one.acceptance or case.acceptance
        longest = one.tpot * as_float(tokens_per_step(accepted, len(accepted)))
        for step in sorted({limit if limit < longest else np.inf for limit in step_limits}):
            limits.append(replace(one, step=step))
        own.append(len(limits))
    _, found = _leaders(case, sizes, limits, choices, Tally())
    return [
        distinct([leader for some in found[start:end] for leader in some])
        for start, end in zip([0, *own[:-1]], own, strict=True)
    ]


def distinct(leaders: list[Leader]) -> list[Leader]:
    """Return leaders without those that are there twice."""
    return list({(leader.key, id(leader.mesh), leader.index): leader for leader in leaders}.values())


def _leaders(
    case: Case,
    sizes: list[int],
    limits: Sequence[Limits],
    choices: Choices,
    tally: Tally,
    also: Also | None = None,
) -> tuple[list[Mesh], list[list[Leader]]]:
    """Return the chunks of the space, and the leaders under each of several limits.

    Chunks are worked by as many threads as cores; results keep the order of the chunks.
    """
    limit = as_float(usable_memory(case.rates))
    leaders: list[dict[tuple[object, ...], Leader]] = [{} for _ in limits]
    chunks = list(meshes(case, "decode", sizes, choices))
    _keep_freed_memory()

    def work(mesh: Mesh) -> tuple[_Best, Any]:
        fewer = cut(mesh, case, limit)
        point = pool_point(fewer.layout(), fewer.family, case)
        best = _best_of_chunk(fewer, case, limit, limits, point)
        return best, None if also is None else also[0](fewer, point)

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for mesh, (best, other) in zip(chunks, pool.map(work, chunks), strict=True):
            if also is not None:
                also[1](mesh, other)
            tally.evaluated += math.prod(mesh.shape)
            tally.count("memory", best.too_large + math.prod(mesh.shape) - math.prod(best.mesh.shape))
            if limits[0].tpot < np.inf:
                tally.count("tpot", best.too_slow)
            for n, e, t, d in np.argwhere(best.rate > 0).tolist():
                dies, rate = int(mesh.experts.dies[e]), float(best.rate[n, e, t, d])
                key = (dies, t, d, mesh.family)
                if key not in leaders[n] or rate > leaders[n][key].requests_per_s:
                    leaders[n][key] = Leader(
                        key=key,
                        mesh=best.mesh,
                        index=int(best.index[n, e, t, d]),
                        requests_per_s=rate,
                        step_time=float(best.step_time[n, e, t, d]),
                        servers=dies / case.rates.dies_per_server,
                    )
    return chunks, [list(each.values()) for each in leaders]


def _nearest_misses(case: Case, chunks: list[Mesh], limit: float, time_limit: float, tally: Tally) -> None:
    """Go over the space once more for the plans that came closest to each limit.

    To memory that of the plans which meet TPOT; the smallest of all where none fits.
    """
    smallest = (np.inf, "")
    for mesh in chunks:
        _, time, memory, _ = _grids(mesh, case)
        least = int(np.argmin(memory))
        smallest = min(smallest, (float(memory.flat[least]), describe(mesh.layout_at(least), mesh.family)))
        for name, values, bound, other in (
            ("memory", memory, limit, time <= time_limit),
            ("tpot", time, time_limit, memory <= limit),
        ):
            candidates = np.where(other & (values > bound), values, np.inf)
            index = int(np.argmin(candidates))
            if np.isfinite(candidates.flat[index]):
                tally.miss(name, float(candidates.flat[index]), bound, describe(mesh.layout_at(index), mesh.family))
    if limit < smallest[0] < np.inf:
        tally.miss("memory", smallest[0], limit, smallest[1])


def undominated(time: Grid, rate: Grid) -> NDArray[np.intp]:
    """Return the places of those that no other beats in time and rate, the shortest time first.

    >>> undominated(np.array([3.0, 1.0, 2.0, 2.0]), np.array([5.0, 2.0, 1.0, 4.0])).tolist()
    [1, 3, 0]
    """
    order = np.lexsort((-rate, time))
    before = np.concatenate(([-1.0], np.maximum.accumulate(rate[order])[:-1]))
    kept: NDArray[np.intp] = order[rate[order] > before]
    return kept


def prefill_points(case: Case, sizes: list[int], choices: Choices) -> list[Evaluated]:
    """Return the chunks of prefill of some sizes, each with its point."""
    return [(mesh, pool_point(mesh.layout(), mesh.family, case)) for mesh in meshes(case, "prefill", sizes, choices)]


def prefill_options(
    case: Case,
    sizes: list[int],
    choices: Choices,
    tally: Tally,
    utilisation: float,
    points: Sequence[Evaluated] | None = None,
) -> list[Leader]:
    """Return prefill instances that fit, the undominated ones in rate and TTFT of each size.

    ``points`` are the chunks of those sizes where they were evaluated already.
    The longer step may have the shorter TTFT: an instance of fewer prompts waits less for its batch.
    """
    limit = as_float(usable_memory(case.rates))
    evaluated = prefill_points(case, sizes, choices) if points is None else points
    chunks = [mesh for mesh, _ in evaluated]
    fitting = []  # one column for each plan that fits: size, TTFT, step time, rate, chunk and place in it
    for number, (mesh, known) in enumerate(evaluated):
        point, time, memory, rate = _grids(mesh, case, known)
        terms = first_token(prefill=point, layout=mesh.layout(), case=case, utilisation=utilisation, decode_step=0.0)
        ttft = np.broadcast_to(as_array(terms.ttft), mesh.shape)
        tally.evaluated += time.size
        tally.count("prefill memory", int(np.count_nonzero(memory > limit)))
        smallest = int(np.argmin(memory))
        if memory.flat[smallest] > limit:
            tally.miss(
                "prefill memory", float(memory.flat[smallest]), limit, describe(mesh.layout_at(smallest), mesh.family)
            )
        fits = np.flatnonzero(memory <= limit)
        dies = mesh.experts.dies[np.unravel_index(fits, mesh.shape)[0]]
        columns = (grid.ravel()[fits] for grid in (ttft, time, rate))
        fitting.append(np.stack([dies, *columns, np.full(len(fits), number), fits]))
    if not fitting:  # what is fixed leaves no degree of parallelism on servers this small
        return []
    dies, ttft, time, rate, chunk, place = np.concatenate(fitting, axis=1)
    plans = []
    for size in dict.fromkeys(dies.tolist()):
        own = np.flatnonzero(dies == size)
        for index in own[undominated(ttft[own], rate[own])].tolist():
            plans.append(
                Leader(
                    key=(size, index),
                    mesh=chunks[int(chunk[index])],
                    index=int(place[index]),
                    requests_per_s=float(rate[index]),
                    step_time=float(time[index]),
                    servers=size / case.rates.dies_per_server,
                )
            )
    return plans
