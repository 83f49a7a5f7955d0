"""Every plan of a pool as arrays on an open mesh, and the best of each expert layout."""

import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from perfmodel.ledger.records import Family, Layout
from perfmodel.serving import Case, PoolPoint, pool_point, usable_memory
from perfmodel.solver.plan import PoolPlan, Rejection
from perfmodel.solver.space import (
    LARGEST_BATCH,
    LARGEST_TP,
    PREFILL_BATCHES,
    Axis,
    ExpertLayouts,
    attention_core_options,
    expert_layouts,
    families,
    tensor_parallel_degrees,
)
from perfmodel.specs.deployment import LayoutSpec

CHUNK = 600_000
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
    return (
        f"{layout.dies} dies, tp {layout.tp}, batch {layout.batch}, draft {layout.draft}{shared}, "
        f"{family.exchange}, overlap {family.overlap}{cores}"
    )


@dataclass(frozen=True, slots=True, eq=False)
class Mesh:
    """The axes of one chunk: expert layout, tp, draft, core split, batch."""

    family: Family
    experts: ExpertLayouts
    tp: Axis
    draft: Axis
    cores: Axis
    batch: Axis

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the full grid."""
        return (len(self.experts.dies), len(self.tp), len(self.draft), len(self.cores), len(self.batch))

    def layout(self) -> Layout:
        """Return the open mesh as one layout."""

        def along(axis: Axis, position: int) -> Any:
            return axis.reshape([-1 if i == position else 1 for i in range(len(self.shape))])

        return Layout(
            dies=along(self.experts.dies, 0),
            shared_ranks=along(self.experts.shared_ranks, 0),
            redundant=along(self.experts.redundant, 0),
            tp=along(self.tp, 1),
            draft=along(self.draft, 2),
            attention_cores=along(self.cores, 3),
            batch=along(self.batch, 4),
        )

    def layout_at(self, index: int) -> LayoutSpec:
        """Return the layout at a flat index of the grid."""
        e, t, d, c, b = np.unravel_index(index, self.shape)
        return LayoutSpec(
            dies=int(self.experts.dies[e]),
            shared_ranks=int(self.experts.shared_ranks[e]),
            redundant=int(self.experts.redundant[e]),
            tp=int(self.tp[t]),
            draft=int(self.draft[d]),
            attention_cores=int(self.cores[c]),
            batch=int(self.batch[b]),
            overlap=self.family.overlap,
            exchange=self.family.exchange,
            reduction=self.family.reduction,
        )


def _largest_batch(case: Case, phase: str, kv_dtype: Any) -> int:
    """Return a batch no die's memory can pass, to bound the axis."""
    from perfmodel.ledger.attention import cache_bytes_per_die

    family = Family(phase="decode", own_shared_ranks=False, overlap="none", exchange="dispatch", kv_dtype=kv_dtype)
    per_token = cache_bytes_per_die(case.model.attention, family, LARGEST_TP) * case.model.num_hidden_layers
    held = case.isl + (case.osl / 2 if phase == "decode" else 0)
    bound = cast(Any, usable_memory(case.rates)) / cast(Any, per_token * held)
    return int(min(LARGEST_BATCH, max(1, bound)))


def meshes(case: Case, phase: Literal["decode", "prefill"], sizes: list[int], kv_dtype: Any) -> Iterator[Mesh]:
    """Yield the search space of a pool in chunks along the expert layouts."""
    decode = phase == "decode"
    largest = _largest_batch(case, phase, kv_dtype)
    if decode:
        batch = np.arange(1, largest + 1, dtype=np.float64)
        draft = np.arange(0, len(case.acceptance) + 1, dtype=np.float64)
    else:
        batch = np.array([b for b in PREFILL_BATCHES if b <= largest], dtype=np.float64)
        draft = np.array([1.0 if case.acceptance else 0.0])
    tp = tensor_parallel_degrees(case.model, case.rates)
    for family in families(case.model, phase, kv_dtype):
        cores = attention_core_options(family, case.rates)
        layouts = expert_layouts(sizes, case.model, family.own_shared_ranks)
        rows = max(1, CHUNK // (len(tp) * len(draft) * len(cores) * len(batch)))
        for start in range(0, len(layouts.dies), rows):
            part = slice(start, start + rows)
            chunk = ExpertLayouts(
                dies=layouts.dies[part], shared_ranks=layouts.shared_ranks[part], redundant=layouts.redundant[part]
            )
            yield Mesh(family, chunk, tp, draft, cores, batch)


def exact_pool(layout: LayoutSpec, family: Family, case: Case) -> PoolPlan:
    """Return a given layout evaluated with plain numbers."""
    return PoolPlan(
        layout=layout,
        family=family,
        point=pool_point(Layout.of(layout), family, case),
        servers=-(-layout.dies // case.rates.dies_per_server),
    )


def _grids(mesh: Mesh, case: Case) -> tuple[PoolPoint, Grid, Grid, Grid]:
    point = pool_point(mesh.layout(), mesh.family, case)
    time = np.broadcast_to(cast(Any, point.tpot), mesh.shape)
    memory = np.broadcast_to(cast(Any, point.memory), mesh.shape)
    rate = np.broadcast_to(cast(Any, point.requests_per_s), mesh.shape)
    return point, time, memory, rate


@dataclass(frozen=True, slots=True, eq=False)
class Leader:
    """The fastest feasible instance of one size, tp, draft and family, as the grid has it."""

    key: tuple[object, ...]
    mesh: Mesh
    index: int
    requests_per_s: float
    step_time: float
    servers: int

    def plan(self, case: Case) -> PoolPlan:
        """Return it evaluated with plain numbers."""
        return exact_pool(self.mesh.layout_at(self.index), self.mesh.family, case)


@dataclass(frozen=True, slots=True, eq=False)
class _Best:
    """What one chunk yields: the best of each step limit, expert layout, tp and draft; counts of the refused."""

    rate: Grid
    index: NDArray[np.intp]
    step_time: Grid
    too_large: int
    too_slow: int


def _best_of_chunk(mesh: Mesh, case: Case, memory_limit: float, tpot: float, step_limits: list[float]) -> _Best:
    """Return the highest rates under each limit.

    At one batch the rate falls with the step time and memory does not feel the core split, so the
    split with the shortest step is taken first, whatever the limits.
    """
    point = pool_point(mesh.layout(), mesh.family, case)
    step = np.broadcast_to(cast(Any, point.step_time), mesh.shape)
    split = step.argmin(axis=3, keepdims=True)
    best: Any = replace(point, step_time=np.take_along_axis(step, split, axis=3))
    refused = (best.memory > memory_limit) | (best.tpot > tpot)
    steps = best.step_time[:, :, :, 0, :]
    rates = np.where(refused, -1.0, best.requests_per_s)[:, :, :, 0, :]
    found = []
    for limit in step_limits:
        value = np.where(steps <= limit, rates, -1.0)
        found.append((value.max(axis=3), value.argmax(axis=3)))
    column = np.stack([batch for _, batch in found])
    e, t, d = np.indices(mesh.shape[:3])
    cores = split[:, :, :, 0, :][e, t, d, column]
    return _Best(
        rate=np.stack([value for value, _ in found]),
        index=np.ravel_multi_index(
            np.broadcast_arrays(e, t, d, cores, column),
            mesh.shape,
        ),
        step_time=steps[e, t, d, column],
        too_large=int(np.count_nonzero(np.broadcast_to(best.memory > memory_limit, mesh.shape))),
        too_slow=int(np.count_nonzero(step > tpot * cast(Any, point.tokens_per_step))),
    )


def best_decode(
    case: Case, sizes: list[int], tpot: float | None, step_limits: list[float], kv_dtype: str, tally: Tally
) -> list[Leader]:
    """Return the fastest feasible instance of each size, tp, draft and family under each step limit.

    Several limits are given where TTFT leaves each prefill candidate another time for the first
    decode step.  Chunks are worked by as many threads as cores; results keep the order of the chunks.
    """
    limit = float(cast(Any, usable_memory(case.rates)))
    time_limit = np.inf if tpot is None else tpot
    leaders: dict[tuple[object, ...], Leader] = {}
    chunks = list(meshes(case, "decode", sizes, kv_dtype))

    def work(mesh: Mesh) -> _Best:
        return _best_of_chunk(mesh, case, limit, time_limit, step_limits)

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for mesh, best in zip(chunks, pool.map(work, chunks), strict=True):
            tally.evaluated += math.prod(mesh.shape)
            tally.count("memory", best.too_large)
            if tpot is not None:
                tally.count("tpot", best.too_slow)
            for n, e, t, d in np.argwhere(best.rate > 0).tolist():
                dies, rate = int(mesh.experts.dies[e]), float(best.rate[n, e, t, d])
                key = (dies, t, d, mesh.family)
                if (n, key) not in leaders or rate > leaders[n, key].requests_per_s:
                    leaders[n, key] = Leader(
                        key=key,
                        mesh=mesh,
                        index=int(best.index[n, e, t, d]),
                        requests_per_s=rate,
                        step_time=float(best.step_time[n, e, t, d]),
                        servers=-(-dies // case.rates.dies_per_server),
                    )
    if not leaders:
        _nearest_misses(case, chunks, limit, time_limit, tally)
    return list({(leader.key, id(leader.mesh), leader.index): leader for leader in leaders.values()}.values())


def _nearest_misses(case: Case, chunks: list[Mesh], limit: float, time_limit: float, tally: Tally) -> None:
    """Go over the space once more for the plans that came closest to each limit."""
    for mesh in chunks:
        _, time, memory, _ = _grids(mesh, case)
        for name, values, bound, other in (
            ("memory", memory, limit, time <= time_limit),
            ("tpot", time, time_limit, memory <= limit),
        ):
            candidates = np.where(other & (values > bound), values, np.inf)
            index = int(np.argmin(candidates))
            if np.isfinite(candidates.flat[index]):
                tally.miss(name, float(candidates.flat[index]), bound, describe(mesh.layout_at(index), mesh.family))


def prefill_options(case: Case, sizes: list[int], kv_dtype: str, tally: Tally) -> list[PoolPlan]:
    """Return prefill instances that fit, the undominated ones in rate and latency of each size."""
    kept: dict[int, list[tuple[float, float, Mesh, int]]] = {}
    limit = float(cast(Any, usable_memory(case.rates)))
    for mesh in meshes(case, "prefill", sizes, kv_dtype):
        _, time, memory, rate = _grids(mesh, case)
        tally.evaluated += time.size
        tally.count("prefill memory", int(np.count_nonzero(memory > limit)))
        smallest = int(np.argmin(memory))
        if memory.flat[smallest] > limit:
            tally.miss(
                "prefill memory", float(memory.flat[smallest]), limit, describe(mesh.layout_at(smallest), mesh.family)
            )
        for index in np.flatnonzero((memory <= limit).ravel()):
            dies = int(mesh.experts.dies[np.unravel_index(int(index), mesh.shape)[0]])
            kept.setdefault(dies, []).append((float(time.flat[index]), float(rate.flat[index]), mesh, int(index)))
    plans = []
    for rows in kept.values():
        best = -1.0
        for _, rate_here, where, at in sorted(rows, key=lambda r: (r[0], -r[1])):
            if rate_here > best:
                best = rate_here
                plans.append(exact_pool(where.layout_at(at), where.family, case))
    return plans
