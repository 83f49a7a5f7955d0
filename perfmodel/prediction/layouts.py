"""What a layout may be: one statement of each rule, for a given layout and for a search."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.algebra import as_float, greater
from perfmodel.ledger.records import SPLIT_MODULES, Family, Layout
from perfmodel.specs.attention import MlaSpec
from perfmodel.specs.deployment import LARGEST_VERIFIED, LayoutShape, LayoutSpec, Overlap, Phase, Reduction
from perfmodel.specs.model import ModelSpec
from perfmodel.supply.rates import UNLIMITED, Rates

LARGEST_BATCH = 1024
LARGEST_FUSED = 512  # tokens of a rank that the fused kernel takes: vLLM-Ascend, ascend_forward_context.py
CORE_STEP = 2
FEWEST_CORES = 4

#: values of one quantity that a search goes over
Axis = NDArray[np.float64]


def overlaps(phase: Phase) -> tuple[Overlap, ...]:
    """Return the overlaps a phase has: only decode splits its cores, or its dies, between micro-batches."""
    return ("none", "link", "cores", "stages") if phase == "decode" else ("none", "link")


def layout_faults(layout: LayoutSpec, phase: Phase, model: ModelSpec, rates: Rates) -> list[str]:
    """Return every rule a layout breaks, each as "found; allowed; fix"."""
    faults = []
    if layout.overlap not in overlaps(phase):
        faults.append(f"overlap: {layout.overlap!r} in {phase}; allowed: {', '.join(overlaps(phase))}")
    heads = math.gcd(*(one.splits for one in model.kinds_of_attention))
    if heads % layout.tp:
        faults.append(f"tp: {layout.tp} does not divide {heads} heads; allowed: {_divisors(heads)}; choose one of them")
    if model.experts is None:
        faults += _without_experts(layout)
    else:
        faults += _expert_faults(layout, model.n_routed_experts)
    dies_in_system = rates.max_packages * rates.dies_per_package
    if layout.dies > dies_in_system:
        faults.append(
            f"dies: {layout.dies} is more than the system has; allowed: at most {dies_in_system} "
            f"({rates.max_packages} cards)"
        )
    if layout.shared_ranks and model.experts is not None and not model.n_shared_experts:
        faults.append(f"shared_ranks: {layout.shared_ranks}, but the model has no shared expert; allowed: 0")
    if layout.draft and not model.num_nextn_predict_layers:
        faults.append(f"draft: {layout.draft}, but the model has no draft (MTP) layer; allowed: 0")
    faults += structure_faults(layout, phase, model, rates)
    cores = int(as_float(rates.cube_cores))
    if layout.overlap == "cores" and not 0 < layout.attention_cores < cores:
        faults.append(
            f"attention_cores: {layout.attention_cores}; allowed: 1 to {cores - 1} with overlap 'cores' "
            f"(the die has {cores} cube cores)"
        )
    if layout.overlap != "cores" and layout.attention_cores:
        faults.append(f"attention_cores: {layout.attention_cores} without overlap 'cores'; drop it or set the overlap")
    return faults


def usual_reduction(model: ModelSpec) -> Reduction:
    """Return how tensor parallelism sums where nobody says: without experts every matrix is split, as engines do."""
    return "all_reduce" if model.experts is None else "scatter_gather"


#: keys of a layout that place or move experts, with their values where there are none
OF_EXPERTS = {
    "shared_ranks": 0,
    "redundant": 0,
    "expert_dies": 0,
    "expert_tp": 1,
    "overlap": "none",
    "fused_experts": False,
    "shared_stream": False,
}


def _without_experts(layout: LayoutSpec) -> list[str]:
    """Return what a layout says of experts that the model does not have."""
    return [
        f"{key}: {getattr(layout, key)!r}, but the model has no experts; allowed: {plain!r}"
        for key, plain in OF_EXPERTS.items()
        if getattr(layout, key) != plain
    ]


def _expert_faults(layout: LayoutSpec, experts: int) -> list[str]:
    """Return what is wrong with how experts are placed on the dies of an instance."""
    faults = []
    slots = experts + layout.redundant
    room = slots + layout.shared_ranks
    ranks = (layout.expert_dies or layout.dies) // layout.expert_tp
    if ranks > room:
        faults.append(
            f"dies: ep {ranks} exceeds {experts} routed experts + {layout.redundant} replicas + "
            f"{layout.shared_ranks} shared-expert ranks = {room}; allowed: at most {room}; "
            f"add --redundant {ranks - room} or use fewer dies"
        )
    if layout.redundant > ranks * experts:
        faults.append(
            f"redundant: {layout.redundant}; allowed: at most {ranks * experts}, every expert on every rank; use fewer"
        )
    if gathers_one_expert(layout) and slots > ranks:
        faults.append(
            f"expert_tp: {layout.expert_tp} with exchange 'dispatch' and {slots} slots of experts on {ranks} groups; "
            "allowed: one slot a group (CANN, npu_moe_distribute_dispatch); use exchange gather"
        )
    return faults


def structure_faults(layout: LayoutSpec, phase: Phase, model: ModelSpec, rates: Rates) -> list[str]:
    """Return every rule that the parallel forms of a layout break, whatever its batch and expert placement."""
    return [
        *_stage_faults(layout),
        *_parallel_faults(layout, phase, model),
        *_split_faults(layout, phase, model, rates),
        *_work_faults(layout, phase, model, rates),
    ]


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
    latent = model.attention_names == ("mla",)
    if layout.cp > 1 and phase != "prefill":
        faults.append(f"cp: {layout.cp} in {phase}; allowed: 1; decode splits its cache with dcp")
    if layout.dcp > 1 and (phase != "decode" or not latent or layout.tp % layout.dcp):
        faults.append(
            f"dcp: {layout.dcp} with tp {layout.tp} in {phase}; allowed: in decode of latent attention, a divisor of tp"
        )
    low_rank = all(isinstance(one, MlaSpec) and one.gathers_low_rank for one in model.kinds_of_attention)
    if layout.reduction == "sp_tp_sp" and not low_rank:
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
    if model.experts is None:  # told with all else that needs experts
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


def too_many_tokens(layout: Layout, family: Family) -> Any:
    """Return where a layout's step has more tokens on a rank than the fused kernel takes; nowhere without it."""
    if not family.fused_experts:
        return False
    return greater(layout.batch * (1 + layout.draft), LARGEST_FUSED * layout.tp)


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
    if (
        layout.shared_stream
        and model.experts is not None
        and (not model.n_shared_experts or layout.shared_ranks or layout.expert_dies)
    ):
        faults.append("shared_stream: allowed where every die has the shared expert; drop it")
    if layout.shared_stream and layout.overlap == "link":
        faults.append("shared_stream with overlap 'link', which hides the exchanges already; allowed: another overlap")
    if layout.chunk and phase != "prefill":
        faults.append(f"chunk: {layout.chunk} in {phase}; allowed: in prefill")
    if layout.kv_resident < 1 and phase != "decode":
        faults.append(f"kv_resident: {layout.kv_resident:g} in {phase}; allowed: in decode")
    if layout.kv_hit and layout.kv_resident == 1:
        faults.append(
            f"kv_hit: {layout.kv_hit:g} of a cache that is whole on the die; allowed: with kv_resident under 1"
        )
    if layout.kv_resident < 1 and rates.host_bandwidth == UNLIMITED:
        faults.append("kv_resident: the stack says no rate of the host's memory; set technique kv-offload")
    if 1 + layout.draft > LARGEST_VERIFIED:
        faults.append(
            f"draft: {layout.draft}; allowed: at most {LARGEST_VERIFIED - 1} (vLLM-Ascend, speculative_decoding.md)"
        )
    return faults


def _divisors(number: int) -> str:
    return ", ".join(str(n) for n in range(1, number + 1) if number % n == 0)


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
    cores = int(as_float(rates.cube_cores))
    return np.arange(FEWEST_CORES, cores - FEWEST_CORES + 1, CORE_STEP, dtype=np.float64)
