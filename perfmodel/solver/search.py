"""Every plan of a pool as arrays on an open mesh, and the best of each expert layout."""

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from perfmodel.ledger.records import Family, Layout
from perfmodel.prediction.serving import (
    Case,
    PoolPoint,
    first_token,
    footprint_of,
    pool_point,
    tokens_per_step,
    usable_memory,
)
from perfmodel.solver.plan import PoolPlan, Rejection
from perfmodel.solver.space import (
    LARGEST_BATCH,
    LARGEST_TP,
    PREFILL_BATCHES,
    Axis,
    Choices,
    ExpertLayouts,
    Structure,
    attention_core_options,
    expert_layouts,
    structures,
    tensor_parallel_degrees,
    too_many_tokens,
)
from perfmodel.specs.deployment import LayoutSpec, Phase

CHUNK = 600_000  # plans worked at once: fewer do not pay for a pass over the ledger, more need more memory
LARGEST_KEPT_BLOCK = 31 * 2**20  # bytes
CORES = 5  # axis of the core split in a mesh
Grid = NDArray[np.float64]


@dataclass(slots=True)
class Tally:
    """Running counts of a search: plans seen, refused, and the nearest miss of each constraint."""

    evaluated: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    closest: dict[str, tuple[float, float, str]] = field(default_factory=dict)

    def count(self, name: str, refused: int) -> None:
        """Count refused plans."""
        self.refused[name] = self.refused.get(name, 0) + refused

    def miss(self, name: str, value: float, limit: float, layout: str) -> None:
        """Remember the nearest miss of a constraint."""
        if value < self.closest.get(name, (np.inf,))[0]:
            self.closest[name] = (value, limit, layout)

    def add(self, other: "Tally") -> None:
        """Take in the counts of a part of the search."""
        self.evaluated += other.evaluated
        for name, refused in other.refused.items():
            self.count(name, refused)
        for name, (value, limit, layout) in other.closest.items():
            self.miss(name, value, limit, layout)

    def rejections(self, units: dict[str, str]) -> tuple[Rejection, ...]:
        """Return what was refused, by constraint."""
        rows = []
        for name, count in self.refused.items():
            value, limit, layout = self.closest.get(name, (float("nan"), float("nan"), ""))
            if count:
                rows.append(
                    Rejection(constraint=name, count=count, closest=value, limit=limit, unit=units[name], layout=layout)
                )
        return tuple(rows)


def describe(layout: LayoutSpec, family: Family) -> str:
    """Return a layout in a few words."""
    shared = f", {layout.shared_ranks} shared ranks" if layout.shared_ranks else ""
    cores = f" {layout.attention_cores}" if family.overlap == "cores" else ""
    split = f", expert tp {layout.expert_tp}" if layout.expert_tp > 1 else ""
    return (
        f"{layout.dies} dies, tp {layout.tp}, batch {layout.batch}, draft {layout.draft}{shared}{split}, "
        f"{family.exchange}, overlap {family.overlap}{cores}"
    )


@dataclass(frozen=True, slots=True, eq=False)
class Mesh:
    """The axes of one chunk: size, shared ranks, slots of a rank, tp, draft, core split, batch."""

    structure: Structure
    experts: ExpertLayouts
    tp: Axis
    draft: Axis
    cores: Axis
    batch: Axis

    @property
    def family(self) -> Family:
        """Structure of its plans."""
        return self.structure.family

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the full grid."""
        return (*self.experts.redundant.shape, len(self.tp), len(self.draft), len(self.cores), len(self.batch))

    def layout(self) -> Layout:
        """Return the open mesh as one layout."""

        def along(axis: Axis, first: int) -> Any:
            after = len(self.shape) - first - axis.ndim
            return axis.reshape((1,) * first + axis.shape + (1,) * after)

        return Layout(
            dies=along(self.experts.dies, 0),
            shared_ranks=along(self.experts.shared_ranks, 1),
            redundant=along(self.experts.redundant, 0),
            tp=along(self.tp, 3),
            draft=along(self.draft, 4),
            attention_cores=along(self.cores, CORES),
            batch=along(self.batch, 6),
            **{key: value for key, value in self.structure.keys.items() if key in _LAYOUT_KEYS},
        )

    def layout_at(self, index: int) -> LayoutSpec:
        """Return the layout at a flat index of the grid."""
        n, s, k, t, d, c, b = np.unravel_index(index, self.shape)
        return LayoutSpec(
            dies=int(self.experts.dies[n]),
            shared_ranks=int(self.experts.shared_ranks[s]),
            redundant=int(self.experts.redundant[n, s, k]),
            tp=int(self.tp[t]),
            draft=int(self.draft[d]),
            attention_cores=int(self.cores[c]),
            batch=int(self.batch[b]),
            **self.structure.keys,
        )


_LAYOUT_KEYS = {axis.name for axis in fields(Layout)}


def _largest_batch(case: Case, structure: Structure) -> int:
    """Return a batch no die's memory can pass, to bound the axis."""
    from perfmodel.ledger.attention import cache_bytes_per_die

    keys, phase = structure.keys, structure.family.phase
    per_token = cache_bytes_per_die(case.model.attention, structure.family, LARGEST_TP) * case.model.num_hidden_layers
    per_token = per_token * keys.get("kv_resident", 1) / (keys.get("cp", 1) * keys.get("dcp", 1))
    held = case.isl + (case.osl / 2 if phase == "decode" else 0)
    bound = cast(Any, usable_memory(case.rates)) / cast(Any, per_token * held)
    return int(min(LARGEST_BATCH, max(1, bound)))


def meshes(case: Case, phase: Phase, sizes: list[int], choices: Choices) -> Iterator[Mesh]:
    """Yield the search space of a pool in chunks along the expert layouts."""
    fixed = choices.fixed.get(phase, {})
    for structure in structures(case.model, phase, choices, case.rates):
        tp = tensor_parallel_degrees(case.model, case.rates, structure, fixed)
        largest = _largest_batch(case, structure)
        if phase == "decode":
            batch = np.arange(1, largest + 1, dtype=np.float64)
            draft = np.arange(0, len(case.acceptance) + 1, dtype=np.float64)
        else:
            batch = np.array([b for b in PREFILL_BATCHES if b <= largest], dtype=np.float64)
            draft = np.array([1.0 if case.acceptance else 0.0])
        batch, draft = (
            np.array([fixed[key]], dtype=np.float64) if key in fixed else axis
            for key, axis in (("batch", batch), ("draft", draft))
        )
        cores = attention_core_options(structure.family.overlap, case.rates)
        if structure.family.overlap == "cores" and "attention_cores" in fixed:
            cores = np.array([fixed["attention_cores"]], dtype=np.float64)
        for alike in _alike(sizes, case.rates.dies_per_server):
            degrees = tp[alike[0] % (tp * structure.keys.get("cp", 1)) == 0]
            for layouts in expert_layouts(alike, case.model, structure, fixed):
                plans = len(degrees) * len(draft) * len(cores) * len(batch)
                for part in _parts(layouts, max(1, CHUNK // plans)) if plans else ():
                    yield Mesh(structure, part, degrees, draft, cores, batch)


def _alike(sizes: list[int], of_server: int) -> list[list[int]]:
    """Return sizes in groups that the same tp degrees divide: whole servers together, each part of one alone."""
    whole = [size for size in sizes if size % of_server == 0]
    return [*([size] for size in sizes if size % of_server), *([whole] if whole else [])]


def _parts(layouts: ExpertLayouts, most: int) -> Iterator[ExpertLayouts]:
    """Yield a product in parts of at most so many layouts, cut along the shared ranks only where one size has more."""
    sizes, options, slots = layouts.redundant.shape
    columns = max(1, min(options, most // slots))
    rows = max(1, most // (slots * columns))
    for row in range(0, sizes, rows):
        for column in range(0, options, columns):
            here, there = slice(row, row + rows), slice(column, column + columns)
            yield ExpertLayouts(
                dies=layouts.dies[here],
                shared_ranks=layouts.shared_ranks[there],
                redundant=layouts.redundant[here, there],
            )


def exact_pool(layout: LayoutSpec, family: Family, case: Case) -> PoolPlan:
    """Return a given layout evaluated with plain numbers."""
    return PoolPlan(
        layout=layout,
        family=family,
        point=pool_point(Layout.of(layout), family, case),
        servers=layout.dies / case.rates.dies_per_server,
    )


def _grids(mesh: Mesh, case: Case) -> tuple[PoolPoint, Grid, Grid, Grid]:
    point = pool_point(mesh.layout(), mesh.family, case)
    time = np.broadcast_to(cast(Any, point.tpot), mesh.shape)
    memory = np.broadcast_to(cast(Any, point.memory), mesh.shape)
    rate = np.broadcast_to(cast(Any, point.requests_per_s), mesh.shape)
    return point, time, memory, rate


@dataclass(frozen=True, slots=True, eq=False)
class Leader:
    """A feasible instance as the grid has it: the fastest of its ``key``, or undominated where a pool keeps several."""

    key: tuple[object, ...]
    mesh: Mesh
    index: int
    requests_per_s: float
    step_time: float
    servers: float

    @property
    def layout(self) -> LayoutSpec:
        """Its layout."""
        return self.mesh.layout_at(self.index)

    def plan(self, case: Case) -> PoolPlan:
        """Return it evaluated with plain numbers."""
        return exact_pool(self.layout, self.mesh.family, case)


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


ROUND_OFF = 1e-12  # relative: sums of arrays and of plain numbers round otherwise, and what meets a limit equals it
CUT_STEP = 8  # batches between those at which memory is looked at ahead


def _cut(mesh: Mesh, case: Case, memory_limit: float) -> Mesh:
    """Return a chunk without the batches at which none of its layouts fits: memory never falls with the batch."""
    if len(mesh.batch) <= CUT_STEP:
        return mesh
    coarse = replace(mesh, batch=mesh.batch[::CUT_STEP], cores=mesh.cores[:1])
    memory: Any = footprint_of(coarse.layout(), mesh.family, case).planned
    fits = np.any(np.broadcast_to(memory <= memory_limit, coarse.shape), axis=tuple(range(len(coarse.shape) - 1)))
    most = int(np.flatnonzero(fits)[-1] + 1) * CUT_STEP if fits.any() else CUT_STEP
    return replace(mesh, batch=mesh.batch[:most])


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a plan is to meet: TPOT, the step, and the acceptance at which both count, where not the case's."""

    tpot: float = math.inf
    step: float = math.inf
    acceptance: tuple[float, ...] | None = None


def _best_of_chunk(mesh: Mesh, case: Case, memory_limit: float, limits: Sequence[Limits]) -> _Best:
    """Return the highest rates under each of several limits.

    At one batch the rate falls with the step time and memory does not feel the core split, so the
    split with the shortest step is taken first, whatever the limits.
    """
    point: Any = pool_point(mesh.layout(), mesh.family, case)
    step = np.broadcast_to(point.step_time, mesh.shape)
    best: Any = replace(point, step_time=step.min(axis=CORES, keepdims=True))
    too_large = best.memory > memory_limit
    refused = too_large | too_many_tokens(mesh.layout(), mesh.family)
    steps = best.step_time.squeeze(CORES)
    found = []
    within: Grid | None = None
    last: tuple[object, ...] = ()
    for one in limits:
        if within is None or last != (one.tpot, one.acceptance):
            last = (one.tpot, one.acceptance)
            more: Any = 1.0
            if one.acceptance is not None:
                more = cast(Any, tokens_per_step(one.acceptance, mesh.layout().draft)) / point.tokens_per_step
            late = refused | (best.tpot > one.tpot * (1 + ROUND_OFF) * more)
            within = np.where(late, -1.0, best.requests_per_s * more).squeeze(CORES)
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
        too_slow=int(np.count_nonzero(step > tpot * point.tokens_per_step)) if tpot < np.inf else 0,
    )


def highest(rates: Grid) -> tuple[Grid, tuple[NDArray[np.intp], ...]]:
    """Return the highest rate of each size, tp and draft, and its place in the grid, the first of equals."""
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
    case: Case, sizes: list[int], tpot: float | None, step_limits: list[float], choices: Choices, tally: Tally
) -> list[Leader]:
    """Return the fastest feasible instance of each size, tp, draft and family under each step limit.

    Several limits are given where TTFT leaves each prefill candidate another time for the first
    decode step.
    """
    time_limit = np.inf if tpot is None else tpot
    limits = [Limits(tpot=time_limit, step=limit) for limit in step_limits]
    chunks, found = _leaders(case, sizes, limits, choices, tally)
    leaders = [leader for each in found for leader in each]
    if not leaders:
        _nearest_misses(case, chunks, float(cast(Any, usable_memory(case.rates))), time_limit, tally)
    return distinct(leaders)


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
        longest: Any = one.tpot * cast(Any, tokens_per_step(accepted, len(accepted)))
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
    case: Case, sizes: list[int], limits: Sequence[Limits], choices: Choices, tally: Tally
) -> tuple[list[Mesh], list[list[Leader]]]:
    """Return the chunks of the space, and the leaders under each of several limits.

    Chunks are worked by as many threads as cores; results keep the order of the chunks.
    """
    limit = float(cast(Any, usable_memory(case.rates)))
    leaders: list[dict[tuple[object, ...], Leader]] = [{} for _ in limits]
    chunks = list(meshes(case, "decode", sizes, choices))
    _keep_freed_memory()

    def work(mesh: Mesh) -> _Best:
        return _best_of_chunk(_cut(mesh, case, limit), case, limit, limits)

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for mesh, best in zip(chunks, pool.map(work, chunks), strict=True):
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


def prefill_options(case: Case, sizes: list[int], choices: Choices, tally: Tally, utilisation: float) -> list[Leader]:
    """Return prefill instances that fit, the undominated ones in rate and TTFT of each size.

    The longer step may have the shorter TTFT: an instance of fewer prompts waits less for its batch.
    """
    limit = float(cast(Any, usable_memory(case.rates)))
    chunks = list(meshes(case, "prefill", sizes, choices))
    fitting = []  # one column for each plan that fits: size, TTFT, step time, rate, chunk and place in it
    for number, mesh in enumerate(chunks):
        point, time, memory, rate = _grids(mesh, case)
        terms = first_token(prefill=point, layout=mesh.layout(), case=case, utilisation=utilisation, decode_step=0.0)
        ttft = np.broadcast_to(cast(Any, terms.ttft), mesh.shape)
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


@dataclass(frozen=True, slots=True, eq=False)
class Alone:
    """One decode instance at every batch and core split, everything else of its layout kept."""

    origin: Leader
    mesh: Mesh
    step_time: Grid
    fits: NDArray[np.bool_]
    in_flight: Grid
    tokens_per_step: float
    osl: float

    def leader(self, tpot: float) -> Leader | None:
        """Return it at the highest rate under a TPOT limit, none where no batch does."""
        time = self.step_time / self.tokens_per_step
        rate = np.where(self.fits & (time <= tpot), self.in_flight / time, -1.0)
        index = int(rate.argmax())
        if rate.flat[index] <= 0:
            return None
        return replace(
            self.origin,
            mesh=self.mesh,
            index=index,
            requests_per_s=float(rate.flat[index]) / self.osl,
            step_time=float(self.step_time.flat[index]),
        )

    def shortest(self, requests_per_s: float) -> Leader | None:
        """Return it at the shortest step that finishes so many requests a second, none where no batch does."""
        rate = self.in_flight * self.tokens_per_step / (self.step_time * self.osl)
        steps = np.where(self.fits & (rate >= requests_per_s * (1 - 1e-9)), self.step_time, np.inf)
        index = int(steps.argmin())
        if not np.isfinite(steps.flat[index]):
            return None
        return replace(
            self.origin,
            mesh=self.mesh,
            index=index,
            requests_per_s=float(rate.flat[index]),
            step_time=float(steps.flat[index]),
        )


def alone(leader: Leader, case: Case) -> Alone:
    """Return a decode instance at every batch and core split of its family."""
    layout = leader.layout
    one = replace(
        leader.mesh,
        experts=ExpertLayouts(
            dies=np.array([layout.dies], dtype=np.float64),
            shared_ranks=np.array([layout.shared_ranks], dtype=np.float64),
            redundant=np.array([[[layout.redundant]]], dtype=np.float64),
        ),
        tp=np.array([layout.tp], dtype=np.float64),
        draft=np.array([layout.draft], dtype=np.float64),
    )
    point: Any = pool_point(one.layout(), one.family, case)
    memory = np.broadcast_to(point.memory, one.shape)
    fits = (memory <= float(cast(Any, usable_memory(case.rates)))) & ~np.asarray(
        too_many_tokens(one.layout(), one.family)
    )
    return Alone(
        origin=leader,
        mesh=one,
        step_time=np.broadcast_to(point.step_time, one.shape),
        fits=np.broadcast_to(fits, one.shape),
        in_flight=np.broadcast_to(point.in_flight, one.shape),
        tokens_per_step=float(cast(Any, tokens_per_step(case.acceptance, layout.draft))),
        osl=float(cast(Any, case.osl)),
    )


def refitted(leader: Leader, case: Case, tpot: float) -> Leader:
    """Return a decode instance at the batch and core split of the highest rate under another TPOT limit.

    Everything else of its layout stays; the leader itself where no batch does.
    """
    return alone(leader, case).leader(tpot) or leader
