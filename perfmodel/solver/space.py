"""Which layouts a search goes over: the structures of a phase, and the axes of each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np

from perfmodel.errors import UsageError
from perfmodel.ledger.records import Family
from perfmodel.prediction.layouts import (
    Axis,
    gathers_one_expert,
    needs_cores_to_exchange,
    overlaps,
    structure_faults,
    usual_reduction,
)
from perfmodel.specs.deployment import LayoutShape, LayoutSpec, Phase
from perfmodel.specs.model import ModelSpec
from perfmodel.specs.precision import USUAL, ExpertWeights, KvDtype, Precision
from perfmodel.specs.technique import SLOTS, replicas, share_of_dies
from perfmodel.supply.rates import Rates

LARGEST_TP = 16
LARGEST_PREFILL_SERVERS = 8  # of one prefill instance; more capacity comes as more instances
PREFILL_BATCHES = (*range(1, 17), 24, 32, 48, 64)
SHARED_STEP = 8
SHARED_AT_MOST = 6  # one over: a little more than the balanced share, 1 in 9 with top-8 routing and one shared


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertLayouts:
    """Valid expert layouts as a product: instance sizes that allow the same shared ranks, those, slots of a rank.

    Sizes and shared ranks keep axes of their own because attention depends on the size alone and the shared
    experts' lane not on the slots: merged into one axis, both would be worked once for each layout.
    """

    dies: Axis
    shared_ranks: Axis
    #: one for each size, number of shared ranks and number of slots
    redundant: Axis


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What the planner and the software leave to the search, and what they fix.

    ``fixed`` are keys of a layout, phase by phase; ``offered`` the values that the stack has of a key which is a
    choice of software (``reduction``, ``shared_stream``, ``expert_tp``), its plain value first.
    """

    precision: Precision = USUAL
    kv_dtypes: tuple[KvDtype, ...] = ("bf16",)
    expert_weights: ExpertWeights = "int8"
    #: whether batches of decode are gone through in steps that widen: for a first look at whether there is a plan
    coarse: bool = False
    fixed: Mapping[Phase, Mapping[str, Any]] = field(default_factory=dict)
    offered: Mapping[Phase, Mapping[str, tuple[Any, ...]]] = field(default_factory=dict)

    def values(self, phase: Phase, key: str, plain: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the values of a key that are searched: the fixed one, what the stack offers, or ``plain``."""
        if key in self.fixed.get(phase, {}):
            return (self.fixed[phase][key],)
        return self.offered.get(phase, {}).get(key, plain)


#: keys of a layout that are axes of a mesh, and those by which families differ
AXES = ("dies", "tp", "shared_ranks", "redundant", "batch", "draft", "attention_cores")
STRUCTURES = ("overlap", "exchange", "reduction", "shared_stream", "expert_tp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """A family that is searched, and the keys of its layouts that are the same throughout."""

    family: Family
    keys: Mapping[str, Any]


def tensor_parallel_degrees(model: ModelSpec, rates: Rates, structure: Structure, fixed: Mapping[str, Any]) -> Axis:
    """Return the tp degrees searched: powers of two that divide the heads and, with ``cp``, a server.

    A module that is split inside data-parallel attention needs tp 1; a form of tensor parallelism beside the first
    is the same as that at tp 1, and is searched beyond it.
    """
    if "tp" in fixed:
        return np.array([fixed["tp"]], dtype=np.float64)
    degrees = [
        degree
        for degree in _powers_of_two(model, rates)
        if rates.dies_per_server % (degree * structure.keys.get("cp", 1)) == 0
        and degree % structure.keys.get("dcp", 1) == 0
    ]
    if structure.family.split:
        degrees = [degree for degree in degrees if degree == 1]
    if structure.family.swaps_heads and "reduction" not in fixed:
        degrees = [degree for degree in degrees if degree > 1]
    return np.array(degrees, dtype=np.float64)


def _powers_of_two(model: ModelSpec, rates: Rates) -> list[int]:
    degrees = [1]
    while (
        degrees[-1] * 2 <= LARGEST_TP
        and all(one.splits % (degrees[-1] * 2) == 0 for one in model.kinds_of_attention)
        and rates.dies_per_server % (degrees[-1] * 2) == 0
    ):
        degrees.append(degrees[-1] * 2)
    return degrees


def expert_layouts(
    sizes: list[int], model: ModelSpec, structure: Structure, fixed: Mapping[str, Any]
) -> list[ExpertLayouts]:
    """Return all valid expert layouts of the given instance sizes (in dies), each in exactly one product."""
    layout = LayoutShape.model_construct(**{**_PLAIN, **structure.keys})
    one_slot = gathers_one_expert(layout)
    experts = model.n_routed_experts
    groups: dict[tuple[int, ...], list[tuple[int, list[list[int]]]]] = {}
    for dies in sizes:
        options = _shared_options(dies, structure.family.own_shared_ranks, fixed.get("shared_ranks"))
        redundant = []
        for shared in options if dies % layout.expert_tp == 0 else ():
            ranks = (dies - shared) // layout.expert_tp
            filling = _replicas(ranks, experts, fixed.get("redundant"))
            redundant.append([more for more in filling if not one_slot or experts + more <= ranks])
        if redundant and redundant[0]:
            groups.setdefault(options, []).append((dies, redundant))
    return [
        ExpertLayouts(
            dies=np.array([dies for dies, _ in alike], dtype=np.float64),
            shared_ranks=np.array(options, dtype=np.float64),
            redundant=np.array([redundant for _, redundant in alike], dtype=np.float64),
        )
        for options, alike in groups.items()
    ]


def _shared_options(dies: int, own: bool, fixed: object) -> tuple[int, ...]:
    """Return the numbers of shared-expert dies searched for a size."""
    if not own:
        return (0,)
    if isinstance(fixed, str):
        fixed = share_of_dies(fixed, dies)
    if isinstance(fixed, int):
        return (fixed,) if fixed < dies else ()
    return tuple(range(SHARED_STEP, dies // SHARED_AT_MOST + 1, SHARED_STEP))


def _replicas(ranks: int, experts: int, fixed: object) -> list[int]:
    """Return the replicas that fill every rank with the fewest slots that hold all experts, and with one more."""
    if isinstance(fixed, int):
        return [fixed]
    if not experts:
        return [0]
    both = [replicas(ranks, experts, more) for more in range(len(SLOTS))]
    return both if fixed is None else [both[SLOTS.index(str(fixed))]]


def structures(model: ModelSpec, phase: Phase, choices: Choices, rates: Rates) -> list[Structure]:
    """Return the structures searched for a phase; raise ``UsageError`` where what is fixed allows none."""
    own = _own_shared_ranks(model, phase, choices)
    plain = tuple(overlap for overlap in overlaps(phase) if overlap != "stages")
    routes = model.experts is not None
    searched = (
        choices.values(phase, "overlap", plain if routes else ("none",)),
        choices.values(phase, "exchange", ("dispatch", "gather") if routes else ("gather",)),
        choices.values(phase, "reduction", (usual_reduction(model),)),
        choices.values(phase, "shared_stream", (False,)),
        choices.values(phase, "expert_tp", (1,)),
    )
    rest = {key: value for key, value in choices.fixed.get(phase, {}).items() if key not in (*AXES, *STRUCTURES)}
    found: list[Structure] = []
    refused: list[str] = []
    for kv_dtype, apart, *values in product(choices.kv_dtypes, own, *searched):
        keys = {**dict(zip(STRUCTURES, values, strict=True)), **rest}
        if needs_cores_to_exchange(phase, keys["overlap"], keys["exchange"]):
            continue
        layout = LayoutSpec.model_construct(**{**_PLAIN, **keys, "shared_ranks": int(apart)})
        faults = _structure_faults(layout, phase, model, rates)
        if faults:
            refused += faults
            continue
        family = Family.of(
            layout,
            phase,
            precision=choices.precision,
            kv_dtype=kv_dtype,
            expert_weights=choices.expert_weights,
        )
        found.append(Structure(family=family, keys=keys))
    if not found and refused:
        raise UsageError("\n".join(dict.fromkeys(refused)))
    return found


def _structure_faults(layout: LayoutSpec, phase: Phase, model: ModelSpec, rates: Rates) -> list[str]:
    """Return what is wrong with the keys of a structure whatever its axes are: on a size and a tp that allow it."""
    tp = max(1, layout.dcp)
    tried = layout.model_copy(update={"dies": tp * layout.cp * rates.dies_per_server, "tp": tp})
    return structure_faults(tried, phase, model, rates)


_PLAIN = LayoutSpec(dies=1, batch=1).model_dump()


def _own_shared_ranks(model: ModelSpec, phase: Phase, choices: Choices) -> tuple[bool, ...]:
    """Return whether shared experts are searched on every die, on dies of their own, or both."""
    if not model.n_shared_experts or phase != "decode":
        return (False,)
    fixed = choices.fixed.get(phase, {}).get("shared_ranks")
    return (False, True) if fixed is None else (fixed != 0,)
