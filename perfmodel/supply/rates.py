"""SUPPLY: chip x system x stack x kernels -> the rates of one die; no model in sight."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from perfmodel.algebra import Num, floor
from perfmodel.errors import UsageError
from perfmodel.formulas.roofline import peak_rate
from perfmodel.specs.kernels import OPERATOR_CLASSES, STAND_INS, Kernel, KernelSetSpec
from perfmodel.specs.machine import ChipSpec, StackSpec, SystemSpec, TermsSpec, links_lacking
from perfmodel.units import (
    Bytes,
    BytesPerSecond,
    Count,
    Dimensionless,
    FlopPerSecond,
    Fraction,
    PerSecond,
    Seconds,
)

UNLIMITED = float("inf")

K = TypeVar("K")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TierRates:
    """One network tier as a die sees it, one way; ``bandwidth`` has the efficiency applied."""

    name: str
    link: str
    fabric: str
    dies: Count
    bandwidth: BytesPerSecond
    pin_bandwidth: BytesPerSecond
    latency: Seconds


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rates:
    """Everything a die, its network and its software give."""

    cube_cores: Count
    vector_cores: Count
    cube_bf16: FlopPerSecond
    cube_int8: FlopPerSecond
    #: none where the die has no such unit
    cube_fp8: FlopPerSecond | None = None
    cube_fp4: FlopPerSecond | None = None
    #: name of the die, and forms with scales of blocks that its units multiply as they are
    die: str = ""
    block_forms: tuple[str, ...] = ()
    vector: FlopPerSecond
    #: the same on 16 bits
    vector_half: FlopPerSecond
    hbm_bandwidth: BytesPerSecond
    core_stream: BytesPerSecond
    l2_capacity: Bytes
    l2_rate: BytesPerSecond
    l2_write_rate: BytesPerSecond
    #: operator class -> the kernel that runs it
    kernels: Mapping[str, Kernel]
    #: operator class -> factor by which its times lie off their form; empty for a prediction
    scatter: Mapping[str, Dimensionless]
    tiers: tuple[TierRates, ...]
    kv_tier: TierRates
    layered_kv_transfer: bool
    #: part of the shorter of compute and link time that two micro-batches hide
    link_hidden: Fraction
    #: scheduling between two decode steps, part of the overhead
    host_gap: Seconds
    #: time of a decode step outside its layers, and what each draft adds to it
    decode_overhead: Seconds
    draft_overhead: Seconds
    prefill_overhead: Seconds
    #: whether the host starts every kernel by itself, and how long that takes it
    eager: bool
    eager_prefill: bool
    kernel_launch: Seconds
    #: time of a request outside its steps, as a client sees it
    request_path: Seconds
    #: part of a kernel's start that is left where kernels are started as one
    start_share: Fraction
    #: what a die reads of the host's memory, and of a pool of caches of earlier prompts
    host_bandwidth: BytesPerSecond
    pool_bandwidth: BytesPerSecond
    #: requests a second of one front-end process, none where it sets no limit, and processes of a prefill instance
    frontend_rate: PerSecond | None
    frontends: Count
    #: time of a step's layers over the sum of their operators
    decode_gap: Dimensionless
    prefill_gap: Dimensionless
    #: time of a whole step at the user's site over the prediction, where it is known
    decode_site: Dimensionless | None
    prefill_site: Dimensionless | None
    #: cost of a message of dispatch and combine beside other work, over its cost alone
    dispatch_in_place: Dimensionless
    combine_in_place: Dimensionless
    #: unevenness of expert load, see ``ledger.records.Traffic``
    skew: Dimensionless
    residual: Dimensionless
    variety: Dimensionless
    #: 1 where requests are handed to ranks without a look at their lengths, 0 where ranks have equal contexts
    context_spread: Dimensionless
    weight_prefetch: bool
    #: whether loads are even: the speed of light has no busiest rank
    even: bool
    capacity: Bytes
    #: share of the capacity that a framework sees, and the engine's share of that
    reported: Fraction
    utilization: Fraction
    runtime: Bytes
    activations: Bytes
    graphs: Bytes
    kv_block_tokens: Count
    dies_per_package: int
    packages_per_server: int
    max_packages: int

    @property
    def dies_per_server(self) -> int:
        """Dies of one server."""
        return self.dies_per_package * self.packages_per_server

    @property
    def node_dies(self) -> Count:
        """Dies joined by the tiers inside a node."""
        inside = [tier.dies for tier in self.tiers if tier.name in ("package", "node")]
        return inside[-1] if inside else 1

    def class_of(self, name: str) -> str:
        """Return the operator class that runs a row of class ``name``: its own, or the one that stands in for it."""
        return name if name in self.kernels else STAND_INS.get(name, name)

    def kernel(self, name: str, expected: type[K]) -> K:
        """Return the kernel of an operator class, which must be of the expected kind."""
        kernel = self.kernels[name]
        assert isinstance(kernel, expected)
        return kernel

    def peak(self, engine: str) -> FlopPerSecond:
        """Peak rate of an engine on all cores of the die, which must have it."""
        peaks = {**self.cubes, "vector": self.vector}
        return peaks[engine]

    @property
    def cubes(self) -> dict[str, FlopPerSecond]:
        """Peak rates of the units of the cube that the die has, by engine."""
        rates = {"bf16": self.cube_bf16, "int8": self.cube_int8, "fp8": self.cube_fp8, "fp4": self.cube_fp4}
        return {f"cube_{unit}": rate for unit, rate in rates.items() if rate is not None}


def _open(value: Num | None) -> Num:
    """Return a rate; one that is open is no limit."""
    return UNLIMITED if value is None else value


def _whole(value: Num) -> int:
    return cast(int, floor(value))  # of samples an array, as everything else then


def chosen_kernels(sets: Sequence[KernelSetSpec], system: SystemSpec) -> dict[str, KernelSetSpec]:
    """Return the set that gives each operator class.

    The first set that has the class wins; of those for communication, the first measured on the
    link inside the system's nodes, and the first of all where none was.
    Raises ``UsageError`` where no set has a class.
    """
    inside = next((tier.link for tier in system.tiers if tier.name == "node"), system.tiers[-1].link)
    chosen: dict[str, KernelSetSpec] = {}
    for name in OPERATOR_CLASSES:
        having = [one for one in sets if getattr(one, name) is not None]
        if not having and name in STAND_INS:
            continue
        if not having:
            raise UsageError(
                f"kernels: {', '.join(one.name for one in sets)} have no {name}; allowed: sets that together have "
                "every operator class; add one to the stack's 'kernels'"
            )
        fitting = (one for one in having if inside in _links_of(getattr(one, name), inside))
        chosen[name] = next(fitting, having[0])
    return chosen


def _links_of(kernel: Kernel, inside: str) -> tuple[str, ...]:
    """Return the links that a kernel was measured on or is carried to; work of the die goes with any."""
    return (*getattr(kernel, "covers", (inside,)), *getattr(kernel, "carried_to", ()))


def _tiers(system: SystemSpec, stack: StackSpec) -> tuple[TierRates, ...]:
    if lacking := links_lacking(system, stack):
        raise UsageError(
            f"stack {stack.name}: no link_efficiency for {', '.join(lacking)}, which {system.name} has; add it, or "
            "take another stack with --stack"
        )
    tiers = []
    for tier in system.tiers:
        share: Any = getattr(stack.link_efficiency, tier.link)
        tiers.append(
            TierRates(
                name=tier.name,
                link=tier.link,
                fabric=tier.fabric,
                dies=tier.dies,
                bandwidth=tier.bandwidth * share,
                pin_bandwidth=tier.bandwidth,
                latency=0.0 if stack.ideal else tier.latency,
            )
        )
    return tuple(tiers)


def rates_of(
    chip: ChipSpec, system: SystemSpec, stack: StackSpec, terms: TermsSpec, kernels: Sequence[KernelSetSpec]
) -> Rates:
    """Return the rates of one die of a system running a stack with its kernel sets and terms of service."""
    die, overhead = chip.die, stack.overhead

    def cube(work: Any) -> FlopPerSecond:
        return peak_rate(cores=die.cube_cores, flop_per_cycle=work, clock=die.clock)

    tiers = _tiers(system, stack)
    return Rates(
        cube_cores=die.cube_cores,
        vector_cores=die.vector_cores,
        cube_bf16=cube(die.cube_flop_per_cycle.bf16),
        cube_int8=cube(die.cube_flop_per_cycle.int8),
        cube_fp8=None if die.cube_flop_per_cycle.fp8 is None else cube(die.cube_flop_per_cycle.fp8),
        cube_fp4=None if die.cube_flop_per_cycle.fp4 is None else cube(die.cube_flop_per_cycle.fp4),
        die=chip.name,
        block_forms=die.block_forms,
        vector=peak_rate(cores=die.vector_cores, flop_per_cycle=die.vector_flop_per_cycle.fp32, clock=die.clock),
        vector_half=peak_rate(cores=die.vector_cores, flop_per_cycle=die.vector_flop_per_cycle.fp16, clock=die.clock),
        hbm_bandwidth=die.hbm.bandwidth,
        core_stream=UNLIMITED if stack.ideal else die.cube_cores * die.hbm.core_bytes_per_cycle * die.clock,
        l2_capacity=die.l2.capacity,
        l2_rate=die.cube_cores * die.l2.core_read_bytes_per_cycle * die.clock,
        l2_write_rate=die.cube_cores * die.l2.core_write_bytes_per_cycle * die.clock,
        kernels={name: getattr(one, name) for name, one in chosen_kernels(kernels, system).items()},
        scatter={},
        tiers=tiers,
        kv_tier=next(tier for tier in tiers if tier.name == system.kv_transfer_tier),
        layered_kv_transfer=stack.layered_kv_transfer,
        link_hidden=stack.link_hidden,
        host_gap=overhead.decode_host_gap,
        decode_overhead=overhead.decode_host_gap + overhead.graph_launch + overhead.sampling,
        # a draft is a graph of its own: a step of k of them starts k + 1
        draft_overhead=overhead.graph_launch + overhead.draft_gap,
        eager=stack.eager,
        eager_prefill=stack.eager_prefill,
        kernel_launch=overhead.kernel_launch,
        request_path=overhead.request_path,
        start_share=stack.start_share,
        host_bandwidth=_open(stack.host_bandwidth),
        pool_bandwidth=_open(stack.pool_bandwidth),
        frontend_rate=stack.frontend_rate,
        frontends=1 if stack.frontends is None else stack.frontends,
        prefill_overhead=overhead.prefill_host_gap,
        decode_gap=terms.decode_gap,
        prefill_gap=terms.prefill_gap,
        decode_site=terms.decode_site,
        prefill_site=terms.prefill_site,
        dispatch_in_place=terms.dispatch_in_place,
        combine_in_place=terms.combine_in_place,
        skew=terms.skew,
        residual=terms.residual,
        variety=terms.variety,
        context_spread=terms.context_spread,
        weight_prefetch=stack.weight_prefetch,
        even=stack.ideal,
        capacity=die.hbm.capacity,
        reported=die.hbm.reported,
        utilization=stack.memory.utilization,
        runtime=stack.memory.runtime,
        activations=stack.memory.activations,
        graphs=stack.memory.graphs,
        kv_block_tokens=stack.memory.kv_block_tokens,
        dies_per_package=_whole(chip.package.dies),
        packages_per_server=_whole(system.packages_per_server),
        max_packages=_whole(system.max_packages),
    )
