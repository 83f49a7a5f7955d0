"""SUPPLY: chip x system x stack -> the rates of one die; no model in sight."""

from dataclasses import dataclass
from typing import Any, cast

from perfmodel.formulas.roofline import peak_rate
from perfmodel.specs.machine import ChipSpec, StackSpec, SystemSpec
from perfmodel.units import (
    Bytes,
    BytesPerSecond,
    Count,
    Dimensionless,
    FlopPerSecond,
    Fraction,
    Seconds,
)

UNLIMITED = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TierRates:
    """One network tier as a die sees it, one way, efficiency applied."""

    name: str
    link: str
    dies: Count
    bandwidth: BytesPerSecond
    pin_bandwidth: BytesPerSecond
    latency: Seconds


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rates:
    """Everything a die, its network and its software give."""

    cube_cores: Count
    cube_bf16: FlopPerSecond
    cube_int8: FlopPerSecond
    vector: FlopPerSecond
    hbm_bandwidth: BytesPerSecond
    core_stream: BytesPerSecond
    l2_capacity: Bytes
    l2_rate: BytesPerSecond
    compute_efficiency: dict[str, Fraction]
    hbm_efficiency: dict[str, Fraction]
    cube_kernel_time: Seconds
    vector_kernel_time: Seconds
    tiers: tuple[TierRates, ...]
    kv_tier: TierRates
    dispatch_start: Seconds
    dispatch_per_message: Seconds
    combine_start: Seconds
    combine_per_message: Seconds
    bulk_start: Seconds
    bulk_dispatch_efficiency: Fraction
    bulk_combine_efficiency: Fraction
    collective_start: Seconds
    phases_overlap: bool
    layered_kv_transfer: bool
    decode_overhead: Seconds
    prefill_overhead: Seconds
    imbalance_decode: Dimensionless
    imbalance_prefill: Dimensionless
    capacity: Bytes
    utilization: Fraction
    runtime: Bytes
    kv_block_tokens: Count
    dies_per_package: int
    packages_per_server: int
    max_packages: int
    #: links each exchange was measured on, and the largest message batch
    covers: dict[str, tuple[str, ...]]
    message_limit: Count

    @property
    def dies_per_server(self) -> int:
        """Dies of one server."""
        return self.dies_per_package * self.packages_per_server

    def peak(self, engine: str) -> FlopPerSecond:
        """Peak rate of an engine on all cores of the die."""
        return {"cube_bf16": self.cube_bf16, "cube_int8": self.cube_int8, "vector": self.vector}[engine]


def _whole(value: object) -> int:
    return int(cast(Any, value))


def rates_of(chip: ChipSpec, system: SystemSpec, stack: StackSpec) -> Rates:
    """Return the rates of one die of a system running a stack."""
    die, efficiency = chip.die, stack.efficiency
    classes = ("matmul", "grouped_matmul", "batched_matmul", "attention_decode", "attention_prefill", "vector")

    def cube(work: Any) -> FlopPerSecond:
        return peak_rate(cores=die.cube_cores, flop_per_cycle=work, clock=die.clock)

    tiers = tuple(
        TierRates(
            name=tier.name,
            link=tier.link,
            dies=tier.dies,
            bandwidth=tier.bandwidth * getattr(stack.link_efficiency, tier.link),
            pin_bandwidth=tier.bandwidth,
            latency=0.0 if stack.ideal else tier.latency,
        )
        for tier in system.tiers
    )
    exchange, overhead = stack.exchange, stack.overhead
    return Rates(
        cube_cores=die.cube_cores,
        cube_bf16=cube(die.cube_flop_per_cycle.bf16),
        cube_int8=cube(die.cube_flop_per_cycle.int8),
        vector=peak_rate(cores=die.vector_cores, flop_per_cycle=die.vector_flop_per_cycle.fp32, clock=die.clock),
        hbm_bandwidth=die.hbm.bandwidth,
        core_stream=UNLIMITED if stack.ideal else die.cube_cores * die.hbm.core_bytes_per_cycle * die.clock,
        l2_capacity=die.l2.capacity,
        l2_rate=die.cube_cores * die.l2.core_read_bytes_per_cycle * die.clock,
        compute_efficiency={name: getattr(efficiency, name).compute for name in classes},
        hbm_efficiency={name: getattr(efficiency, name).hbm for name in classes},
        cube_kernel_time=stack.kernel_time.cube,
        vector_kernel_time=stack.kernel_time.vector,
        tiers=tiers,
        kv_tier=next(tier for tier in tiers if tier.name == system.kv_transfer_tier),
        dispatch_start=exchange.dispatch.start,
        dispatch_per_message=exchange.dispatch.per_message,
        combine_start=exchange.combine.start,
        combine_per_message=exchange.combine.per_message,
        bulk_start=exchange.bulk.start,
        bulk_dispatch_efficiency=exchange.bulk.dispatch_efficiency,
        bulk_combine_efficiency=exchange.bulk.combine_efficiency,
        collective_start=exchange.collective.start,
        phases_overlap=exchange.collective.phases_overlap,
        layered_kv_transfer=stack.layered_kv_transfer,
        decode_overhead=overhead.decode_host_gap + overhead.graph_launch + overhead.sampling,
        prefill_overhead=overhead.prefill_host_gap,
        imbalance_decode=stack.imbalance.decode,
        imbalance_prefill=stack.imbalance.prefill,
        capacity=die.hbm.capacity,
        utilization=stack.memory.utilization,
        runtime=stack.memory.runtime,
        kv_block_tokens=stack.memory.kv_block_tokens,
        dies_per_package=_whole(chip.package.dies),
        packages_per_server=_whole(system.packages_per_server),
        max_packages=_whole(system.max_packages),
        covers={
            "dispatch": exchange.dispatch.covers,
            "combine": exchange.combine.covers,
            "bulk_dispatch": exchange.bulk.covers,
            "bulk_combine": exchange.bulk.covers,
            "all_gather": exchange.collective.covers,
            "reduce_scatter": exchange.collective.covers,
            "all_reduce": exchange.collective.covers,
        },
        message_limit=exchange.dispatch.max_tokens_per_die,
    )
