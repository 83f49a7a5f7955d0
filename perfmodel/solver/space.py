"""Which layouts are structurally valid: one statement of each rule, for search and for a given layout."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import UsageError
from perfmodel.ledger.records import SPLIT_MODULES, Family, Layout
from perfmodel.specs.deployment import ExpertWeights, KvDtype, LayoutShape, LayoutSpec, Overlap, Phase, Precision
from perfmodel.specs.model import ModelSpec
from perfmodel.specs.technique import SLOTS, replicas, share_of_dies
from perfmodel.supply.rates import UNLIMITED, Rates

LARGEST_BATCH = 1024
LARGEST_TP = 16
LARGEST_PREFILL_SERVERS = 8  # of one prefill instance; more capacity comes as more instances
PREFILL_BATCHES = (*range(1, 17), 24, 32, 48, 64)
CORE_STEP = 2
FEWEST_CORES = 4
SHARED_STEP = 8
SHARED_AT_MOST = 6  # one over: a little more than the balanced share, 1 in 9 with top-8 routing and one shared

Axis = NDArray[np.float64]


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


def overlaps(phase: Phase) -> tuple[Overlap, ...]:
    """Return the overlaps a phase has: only decode splits its cores, or its dies, between micro-batches."""
    return ("none", "link", "cores", "stages") if phase == "decode" else ("none", "link")


def layout_faults(layout: LayoutSpec, phase: Phase, model: ModelSpec, rates: Rates) -> list[str]:
    """Return every rule a layout breaks, each as "found; allowed; fix"."""
    faults = []
    if layout.overlap not in overlaps(phase):
        faults.append(f"overlap: {layout.overlap!r} in {phase}; allowed: {', '.join(overlaps(phase))}")
    heads, experts = model.attention.num_attention_heads, model.experts.n_routed_experts
    if heads % layout.tp:
        faults.append(f"tp: {layout.tp} does not divide {heads} heads; allowed: {_divisors(heads)}; choose one of them")
    slots = experts + layout.redundant
    room = slots + layout.shared_ranks
    ranks = (layout.expert_dies or layout.dies) // layout.expert_tp
    if ranks > room:
        faults.append(
            f"dies: ep {ranks} exceeds {experts} routed experts + {layout.redundant} replicas + "
            f"{layout.shared_ranks} shared-expert ranks = {room}; allowed: at most {room}; "
            f"add --redundant {ranks - room} or use fewer dies"
        )
    if gathers_one_expert(layout) and slots > ranks:
        faults.append(
            f"expert_tp: {layout.expert_tp} with exchange 'dispatch' and {slots} slots of experts on {ranks} groups; "
            "allowed: one slot a group (CANN, npu_moe_distribute_dispatch); use exchange gather"
        )
    dies_in_system = rates.max_packages * rates.dies_per_package
    if layout.dies > dies_in_system:
        faults.append(
            f"dies: {layout.dies} is more than the system has; allowed: at most {dies_in_system} "
            f"({rates.max_packages} cards)"
        )
    if layout.shared_ranks and not model.experts.n_shared_experts:
        faults.append(f"shared_ranks: {layout.shared_ranks}, but the model has no shared expert; allowed: 0")
    if layout.draft and not model.num_nextn_predict_layers:
        faults.append(f"draft: {layout.draft}, but the model has no draft (MTP) layer; allowed: 0")
    faults += _stage_faults(layout)
    faults += _parallel_faults(layout, phase, model)
    faults += _split_faults(layout, phase, model, rates)
    faults += _work_faults(layout, phase, model, rates)
    cores = int(rates.cube_cores)  # type: ignore[call-overload]
    if layout.overlap == "cores" and not 0 < layout.attention_cores < cores:
        faults.append(
            f"attention_cores: {layout.attention_cores}; allowed: 1 to {cores - 1} with overlap 'cores' "
            f"(the die has {cores} cube cores)"
        )
    if layout.overlap != "cores" and layout.attention_cores:
        faults.append(f"attention_cores: {layout.attention_cores} without overlap 'cores'; drop it or set the overlap")
    return faults


def _stage_faults(layout: LayoutSpec) -> list[str]:
    """Return what is wrong with attention and experts on dies of their own; rules of [xdeepserve2025] section 3.3."""
    faults = []
    stages = layout.overlap == "stages"
    if stages and not layout.expert_dies:
        faults.append("expert_dies: 0 with overlap 'stages'; allowed: 1 or more; say how many dies have experts alone")
    if layout.expert_dies and not stages:
        faults.append(
            f"expert_dies: {layout.expert_dies} with overlap {layout.overlap!r}; allowed: with 'stages'; set it"
        )
    if stages and layout.exchange != "dispatch":
        faults.append(f"exchange: {layout.exchange!r} with overlap 'stages'; allowed: dispatch")
    if layout.expert_dies and layout.shared_ranks >= layout.expert_dies:
        faults.append(
            f"shared_ranks: {layout.shared_ranks} of {layout.expert_dies} expert dies; allowed: fewer: shared experts "
            "are among the expert dies and not counted twice (xDeepServe section 3.3)"
        )
    for name, plain in (("domains", 1), ("micro_batches", 2)):
        if getattr(layout, name) != plain and not stages:
            faults.append(f"{name}: {getattr(layout, name)} without overlap 'stages'; allowed: {plain}")
    return faults


def _parallel_faults(layout: LayoutSpec, phase: Phase, model: ModelSpec) -> list[str]:
    """Return what is wrong with the parallel forms of single modules."""
    faults = []
    latent = model.attention.kind == "mla"
    if layout.cp > 1 and phase != "prefill":
        faults.append(f"cp: {layout.cp} in {phase}; allowed: 1; decode splits its cache with dcp")
    if layout.dcp > 1 and (phase != "decode" or not latent or layout.tp % layout.dcp):
        faults.append(
            f"dcp: {layout.dcp} with tp {layout.tp} in {phase}; allowed: in decode of latent attention, a divisor of tp"
        )
    if layout.reduction == "sp_tp_sp" and not latent:
        faults.append("reduction: 'sp_tp_sp' gathers low-rank inputs; this attention has none; allowed: all_to_all")
    swaps = layout.reduction in ("all_to_all", "sp_tp_sp")
    if layout.o_proj_sharded and not swaps:
        faults.append("o_proj_sharded: allowed with reduction all_to_all or sp_tp_sp, which replicate the projection")
    ranks = (layout.dies - layout.expert_dies) // layout.tp
    for name in SPLIT_MODULES:
        parts = getattr(layout, f"{name}_tp")
        if parts > 1 and (layout.tp > 1 or ranks % parts):
            faults.append(
                f"{name}_tp: {parts} with dp {ranks} x tp {layout.tp}; allowed: with tp 1, a divisor of dp "
                "(vLLM-Ascend, Fine_grained_TP.md)"
            )
    return faults


def gathers_one_expert(layout: LayoutShape) -> bool:
    """Return whether tokens are dispatched to groups of dies that each split an expert.

    The kernel that gathers them there takes one expert a group: CANN, npu_moe_distribute_dispatch, local_expert_num.
    """
    return layout.expert_tp > 1 and layout.exchange == "dispatch"


def _split_faults(layout: LayoutSpec, phase: Phase, model: ModelSpec, rates: Rates) -> list[str]:
    """Return what is wrong with experts that are split over dies."""
    parts, faults = layout.expert_tp, []
    if parts == 1:
        return []
    width, dies = model.experts.moe_intermediate_size, rates.dies_per_server
    if dies % parts or layout.dies % parts or width % parts:
        allowed = _divisors(math.gcd(dies, layout.dies, width))
        faults.append(
            f"expert_tp: {parts} on {layout.dies} dies; allowed: {allowed}, what divides the {dies} dies of a server, "
            f"those of the instance and the {width} columns of an expert"
        )
    for key, plain in (("shared_ranks", 0), ("expert_dies", 0), ("fused_experts", False)):
        if getattr(layout, key) != plain:
            faults.append(f"expert_tp: {parts} with {key}; allowed: 1; the two are not modelled together")
    most = rates.dies_per_package if phase == "decode" else 1
    if gathers_one_expert(layout) and parts > most:
        rule = "CANN, npu_moe_distribute_dispatch" if phase == "decode" else "MindIE: moe_tp 1 with ep_level 2"
        faults.append(
            f"expert_tp: {parts} with exchange 'dispatch' in {phase}; allowed: at most {most} ({rule}); "
            "use exchange gather"
        )
    return faults


LARGEST_FUSED = 512  # tokens of a rank that the fused kernel takes: vLLM-Ascend, ascend_forward_context.py
LARGEST_VERIFIED = 16  # tokens of a sequence in one step: vLLM-Ascend, speculative_decoding.md


def too_many_tokens(layout: Layout, family: Family) -> Any:
    """Return where a layout's step has more tokens on a rank than the fused kernel takes; nowhere without it."""
    if not family.fused_experts:
        return False
    return cast(Any, layout.batch) * (1 + cast(Any, layout.draft)) > LARGEST_FUSED * cast(Any, layout.tp)


def _work_faults(layout: LayoutSpec, phase: Phase, model: ModelSpec, rates: Rates) -> list[str]:
    """Return what is wrong with what runs beside, in one kernel, in chunks or out of the host's memory."""
    faults = []
    tokens = layout.batch * (1 + layout.draft)
    if layout.fused_experts and (layout.exchange != "dispatch" or phase != "decode" or layout.overlap != "none"):
        faults.append(
            f"fused_experts with exchange {layout.exchange!r}, overlap {layout.overlap!r} in {phase}; "
            "allowed: dispatch, overlap none, in decode"
        )
    if layout.fused_experts and tokens > LARGEST_FUSED * layout.tp:
        faults.append(
            f"fused_experts with {tokens / layout.tp:g} tokens a rank; allowed: at most {LARGEST_FUSED} "
            "(vLLM-Ascend, ascend_forward_context.py); use a smaller batch"
        )
    if layout.shared_stream and (not model.experts.n_shared_experts or layout.shared_ranks or layout.expert_dies):
        faults.append("shared_stream: allowed where every die has the shared expert; drop it")
    if layout.shared_stream and layout.overlap == "link":
        faults.append("shared_stream with overlap 'link', which hides the exchanges already; allowed: another overlap")
    if layout.chunk and phase != "prefill":
        faults.append(f"chunk: {layout.chunk} in {phase}; allowed: in prefill")
    if layout.kv_resident < 1 and phase != "decode":
        faults.append(f"kv_resident: {layout.kv_resident:g} in {phase}; allowed: in decode")
    if layout.kv_resident < 1 and rates.host_bandwidth == UNLIMITED:
        faults.append("kv_resident: the stack says no rate of the host's memory; set technique kv-offload")
    if 1 + layout.draft > LARGEST_VERIFIED:
        faults.append(
            f"draft: {layout.draft}; allowed: at most {LARGEST_VERIFIED - 1} (vLLM-Ascend, speculative_decoding.md)"
        )
    return faults


def _divisors(number: int) -> str:
    return ", ".join(str(n) for n in range(1, number + 1) if number % n == 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What the planner and the software leave to the search, and what they fix.

    ``fixed`` are keys of a layout, phase by phase; ``offered`` the values that the stack has of a key which is a
    choice of software (``reduction``, ``shared_stream``, ``expert_tp``), its plain value first.
    """

    precision: Precision = "w8a8"
    kv_dtypes: tuple[KvDtype, ...] = ("bf16",)
    expert_weights: ExpertWeights = "int8"
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
    heads = model.attention.num_attention_heads
    degrees = [1]
    while (
        degrees[-1] * 2 <= LARGEST_TP
        and heads % (degrees[-1] * 2) == 0
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
    experts = model.experts.n_routed_experts
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
    both = [replicas(ranks, experts, more) for more in range(len(SLOTS))]
    return both if fixed is None else [both[SLOTS.index(str(fixed))]]


def structures(model: ModelSpec, phase: Phase, choices: Choices, rates: Rates) -> list[Structure]:
    """Return the structures searched for a phase; raise ``UsageError`` where what is fixed allows none."""
    own = _own_shared_ranks(model, phase, choices)
    plain = tuple(overlap for overlap in overlaps(phase) if overlap != "stages")
    searched = (
        choices.values(phase, "overlap", plain),
        choices.values(phase, "exchange", ("dispatch", "gather")),
        choices.values(phase, "reduction", ("scatter_gather",)),
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
    return [
        *_stage_faults(tried),
        *_parallel_faults(tried, phase, model),
        *_split_faults(tried, phase, model, rates),
        *_work_faults(tried, phase, model, rates),
    ]


_PLAIN = LayoutSpec(dies=1, batch=1).model_dump()


def _own_shared_ranks(model: ModelSpec, phase: Phase, choices: Choices) -> tuple[bool, ...]:
    """Return whether shared experts are searched on every die, on dies of their own, or both."""
    if not model.experts.n_shared_experts or phase != "decode":
        return (False,)
    fixed = choices.fixed.get(phase, {}).get("shared_ranks")
    return (False, True) if fixed is None else (fixed != 0,)


def needs_cores_to_exchange(phase: str, overlap: str, exchange: str) -> bool:
    """Return whether an overlap leaves a token-grain exchange no cores to run on.

    Decode's dispatch and combine are vector-core kernels ([zuo2025] section 4.2.1), so they hide behind
    compute only under a core split; collectives and prefill's bulk exchange run on DMA engines.
    """
    return phase == "decode" and overlap == "link" and exchange == "dispatch"


def attention_core_options(overlap: Overlap, rates: Rates) -> Axis:
    """Return the core splits searched; a single dummy where the overlap has none."""
    if overlap != "cores":
        return np.zeros(1)
    cores = int(rates.cube_cores)  # type: ignore[call-overload]
    return np.arange(FEWEST_CORES, cores - FEWEST_CORES + 1, CORE_STEP, dtype=np.float64)
