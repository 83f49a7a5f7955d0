"""Every plan of a pool as arrays: the open mesh of its axes, in chunks that are worked at once."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.algebra import as_float
from perfmodel.ledger.records import Family, Layout
from perfmodel.prediction.deployment import PoolPlan, exact_pool
from perfmodel.prediction.layouts import LARGEST_BATCH, Axis, attention_core_options
from perfmodel.prediction.serving import Case, usable_memory
from perfmodel.solver.space import (
    LARGEST_TP,
    PREFILL_BATCHES,
    Choices,
    ExpertLayouts,
    Structure,
    expert_layouts,
    structures,
    tensor_parallel_degrees,
)
from perfmodel.specs.deployment import LayoutSpec, Phase

CHUNK = 600_000  # plans worked at once: fewer do not pay for a pass over the ledger, more need more memory
CORES = 5  # axis of the core split in a mesh


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


def largest_batch(case: Case, structure: Structure) -> int:
    """Return a batch no die's memory can pass, to bound the axis."""
    from perfmodel.ledger.footprint import cache_of_model

    keys, phase = structure.keys, structure.family.phase
    cache = cache_of_model(case.model, structure.family, tp=LARGEST_TP, draft=0)
    held = case.traffic.context if phase == "decode" else case.isl
    growing = cache.on_die(keys.get("kv_resident", 1)) * held / (keys.get("cp", 1) * keys.get("dcp", 1))
    bound = as_float(usable_memory(case.rates) / (growing + cache.fixed(held)))
    return int(min(LARGEST_BATCH, max(1, bound)))


def meshes(case: Case, phase: Phase, sizes: list[int], choices: Choices) -> Iterator[Mesh]:
    """Yield the search space of a pool in chunks along the expert layouts."""
    fixed = choices.fixed.get(phase, {})
    for structure in structures(case.model, phase, choices, case.rates):
        tp = tensor_parallel_degrees(case.model, case.rates, structure, fixed)
        largest = largest_batch(case, structure)
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
        for alike in _alike(_divided(sizes, structure, fixed), case.rates.dies_per_server):
            degrees = tp[alike[0] % (tp * structure.keys.get("cp", 1)) == 0]
            for layouts in expert_layouts(alike, case.model, structure, fixed):
                plans = len(degrees) * len(draft) * len(cores) * len(batch)
                for part in _parts(layouts, max(1, CHUNK // plans)) if plans else ():
                    yield Mesh(structure, part, degrees, draft, cores, batch)


def _divided(sizes: list[int], structure: Structure, fixed: Mapping[str, Any]) -> list[int]:
    """Return sizes that what is fixed divides: tp with cp, and split modules.

    A tp that is fixed need not divide a server, so it divides some whole servers and not others.  Split modules need
    tp 1, so their parts are of the dies.
    """
    parts = [structure.keys.get(f"{module}_tp", 1) for module in structure.family.split]
    if "tp" in fixed:
        parts.append(fixed["tp"] * structure.keys.get("cp", 1))
    return [size for size in sizes if not any(size % part for part in parts)]


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


Grid = NDArray[np.float64]


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
