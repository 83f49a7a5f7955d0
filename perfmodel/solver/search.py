"""Every plan of a pool as arrays on an open mesh, and the best of each expert layout."""

from collections.abc import Iterator
from dataclasses import dataclass, field
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

    def refuse(self, name: str, values: Grid, limit: float, allowed: NDArray[np.bool_], mesh: "Mesh") -> None:
        """Count values over a limit, remembering the nearest among otherwise allowed plans."""
        over = values > limit
        count = int(np.count_nonzero(over))
        self.refused[name] = self.refused.get(name, 0) + count
        candidates = np.where(over & allowed, values, np.inf)
        index = int(np.argmin(candidates))
        value = float(candidates.flat[index])
        if value < self.closest.get(name, (np.inf,))[0]:
            self.closest[name] = (value, limit, describe(mesh.layout_at(index), mesh.family))

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


def _largest_batch(case: Case) -> int:
    """Return a batch no die's memory can pass, to bound the axis."""
    from perfmodel.ledger.attention import cache_bytes_per_die

    family = Family(phase="decode", own_shared_ranks=False, overlap="none", exchange="dispatch", kv_dtype="int8")
    per_token = cache_bytes_per_die(case.model.attention, family, LARGEST_TP) * case.model.num_hidden_layers
    bound = cast(Any, usable_memory(case.rates)) / cast(Any, per_token * (case.isl + case.osl / 2))
    return int(min(LARGEST_BATCH, max(1, bound)))


def meshes(case: Case, phase: Literal["decode", "prefill"], sizes: list[int], kv_dtype: Any) -> Iterator[Mesh]:
    """Yield the search space of a pool in chunks along the expert layouts."""
    decode = phase == "decode"
    largest = _largest_batch(case)
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
    numbers = Layout(
        dies=layout.dies,
        tp=layout.tp,
        shared_ranks=layout.shared_ranks,
        redundant=layout.redundant,
        batch=layout.batch,
        draft=layout.draft,
        attention_cores=layout.attention_cores,
    )
    return PoolPlan(
        layout=layout,
        family=family,
        point=pool_point(numbers, family, case),
        servers=-(-layout.dies // case.rates.dies_per_server),
    )


def _grids(mesh: Mesh, case: Case) -> tuple[PoolPoint, Grid, Grid, Grid]:
    point = pool_point(mesh.layout(), mesh.family, case)
    time = np.broadcast_to(cast(Any, point.tpot), mesh.shape)
    memory = np.broadcast_to(cast(Any, point.memory), mesh.shape)
    rate = np.broadcast_to(cast(Any, point.requests_per_s), mesh.shape)
    return point, time, memory, rate


def best_decode(case: Case, sizes: list[int], tpot: float | None, kv_dtype: str, tally: Tally) -> list[PoolPlan]:
    """Return the fastest feasible instance of each expert layout and family."""
    found = []
    limit = float(cast(Any, usable_memory(case.rates)))
    for mesh in meshes(case, "decode", sizes, kv_dtype):
        _, time, memory, rate = _grids(mesh, case)
        tally.evaluated += time.size
        fits = memory <= limit
        fast = time <= (tpot if tpot is not None else np.inf)
        tally.refuse("memory", memory, limit, fast, mesh)
        if tpot is not None:
            tally.refuse("tpot", time, tpot, fits, mesh)
        value = np.where(fits & fast, rate, -1.0).reshape(mesh.shape[0], -1)
        inner = value.shape[1]
        for row, column in enumerate(value.argmax(axis=1)):
            if value[row, column] > 0:
                found.append(exact_pool(mesh.layout_at(row * inner + int(column)), mesh.family, case))
    return found


def prefill_options(case: Case, sizes: list[int], kv_dtype: str, tally: Tally) -> list[PoolPlan]:
    """Return prefill instances that fit, the undominated ones in rate and latency of each size."""
    kept: dict[int, list[tuple[float, float, Mesh, int]]] = {}
    limit = float(cast(Any, usable_memory(case.rates)))
    for mesh in meshes(case, "prefill", sizes, kv_dtype):
        _, time, memory, rate = _grids(mesh, case)
        tally.evaluated += time.size
        tally.refuse("prefill memory", memory, limit, np.ones(mesh.shape, dtype=bool), mesh)
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
