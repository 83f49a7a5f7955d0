"""Which layouts are structurally valid: one statement of each rule, for search and for a given layout."""

from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from perfmodel.ledger.records import Family
from perfmodel.rates import Rates
from perfmodel.specs.deployment import LayoutSpec, Overlap, Phase
from perfmodel.specs.model import ModelSpec

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
    """Return the overlaps a phase has: only decode splits its cores between two micro-batches."""
    return ("none", "link", "cores") if phase == "decode" else ("none", "link")


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
    if layout.dies > room:
        faults.append(
            f"dies: ep {layout.dies} exceeds {experts} routed experts + {layout.redundant} replicas + "
            f"{layout.shared_ranks} shared-expert ranks = {room}; allowed: at most {room}; "
            f"add --redundant {layout.dies - room} or use fewer dies"
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
    cores = int(rates.cube_cores)  # type: ignore[call-overload]
    if layout.overlap == "cores" and not 0 < layout.attention_cores < cores:
        faults.append(
            f"attention_cores: {layout.attention_cores}; allowed: 1 to {cores - 1} with overlap 'cores' "
            f"(the die has {cores} cube cores)"
        )
    if layout.overlap != "cores" and layout.attention_cores:
        faults.append(f"attention_cores: {layout.attention_cores} without overlap 'cores'; drop it or set the overlap")
    return faults


def _divisors(number: int) -> str:
    return ", ".join(str(n) for n in range(1, number + 1) if number % n == 0)


def tensor_parallel_degrees(model: ModelSpec, rates: Rates) -> Axis:
    """Return the tp degrees searched: powers of two that divide the heads and a server."""
    heads = model.attention.num_attention_heads
    degrees = [1]
    while (
        degrees[-1] * 2 <= LARGEST_TP
        and heads % (degrees[-1] * 2) == 0
        and rates.dies_per_server % (degrees[-1] * 2) == 0
    ):
        degrees.append(degrees[-1] * 2)
    return np.array(degrees, dtype=np.float64)


def expert_layouts(sizes: list[int], model: ModelSpec, own_shared_ranks: bool) -> list[ExpertLayouts]:
    """Return all valid expert layouts of the given instance sizes (in dies), each in exactly one product."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for dies in sizes:
        shared = range(SHARED_STEP, dies // SHARED_AT_MOST + 1, SHARED_STEP) if own_shared_ranks else (0,)
        groups.setdefault(tuple(shared), []).append(dies)
    experts, products = model.experts.n_routed_experts, []
    for options, alike in groups.items():
        if not options:
            continue
        ranks = [[dies - shared for shared in options] for dies in alike]
        redundant = [
            [[slots * n - experts for slots in (-(-experts // n), -(-experts // n) + 1)] for n in row] for row in ranks
        ]
        products.append(
            ExpertLayouts(
                dies=np.array(alike, dtype=np.float64),
                shared_ranks=np.array(options, dtype=np.float64),
                redundant=np.array(redundant, dtype=np.float64),
            )
        )
    return products


def families(model: ModelSpec, phase: Literal["decode", "prefill"], kv_dtype: Literal["bf16", "int8"]) -> list[Family]:
    """Return the structures searched for a phase."""
    own = (False, True) if model.experts.n_shared_experts and phase == "decode" else (False,)
    exchanges: tuple[Literal["dispatch", "gather"], ...] = ("dispatch", "gather")
    return [
        Family(phase=phase, own_shared_ranks=s, overlap=o, exchange=e, kv_dtype=kv_dtype)
        for s, o, e in product(own, overlaps(phase), exchanges)
        if not needs_cores_to_exchange(phase, o, e)
    ]


def needs_cores_to_exchange(phase: str, overlap: str, exchange: str) -> bool:
    """Return whether an overlap leaves a token-grain exchange no cores to run on.

    Decode's dispatch and combine are vector-core kernels ([zuo2025] section 4.2.1), so they hide behind
    compute only under a core split; collectives and prefill's bulk exchange run on DMA engines.
    """
    return phase == "decode" and overlap == "link" and exchange == "dispatch"


def attention_core_options(family: Family, rates: Rates) -> Axis:
    """Return the core splits searched; a single dummy where the family has none."""
    if family.overlap != "cores":
        return np.zeros(1)
    cores = int(rates.cube_cores)  # type: ignore[call-overload]
    return np.arange(FEWEST_CORES, cores - FEWEST_CORES + 1, CORE_STEP, dtype=np.float64)
