"""SUPPLY MEETS DEMAND: the one module that divides a ledger's demand by a machine's rates."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

from perfmodel.algebra import greater, maximum, total, where
from perfmodel.formulas import collectives, roofline
from perfmodel.ledger.records import Block, Exchange, Family, Ledger, Op
from perfmodel.rates import Rates
from perfmodel.units import BytesPerSecond, Count, Fraction, Seconds

WHOLE = 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OpTime:
    """Time of one row, and what it consists of; ``compute`` and ``cache`` are on all cores."""

    op: Op
    core_share: Fraction = WHOLE
    compute: Seconds = 0.0
    cache: Seconds = 0.0
    pins: Seconds = 0.0
    network_time: Seconds = 0.0
    fixed_time: Seconds = 0.0
    #: what memory alone would need at its full rate
    hbm_time: Seconds = 0.0
    #: time without the fixed cost
    work: Seconds

    @property
    def time(self) -> Seconds:
        """Time of the row; its fixed cost does not overlap."""
        return self.work + self.fixed_time

    @property
    def compute_time(self) -> Seconds:
        """Time of the arithmetic on the row's share of the cores."""
        return self.compute / self.core_share

    @property
    def memory_time(self) -> Seconds:
        """Time of HBM or L2, whichever is slower."""
        return maximum(self.pins, self.cache / self.core_share)

    @property
    def roof(self) -> str:
        """The slowest of arithmetic, memory and link, for a row of plain numbers."""
        roofs = {"compute": self.compute_time, "memory": self.memory_time, "link": self.network_time}
        return max(roofs, key=lambda name: float(roofs[name]))  # type: ignore[arg-type]

    @property
    def bound(self) -> str:
        """What decides the time of a row of plain numbers: its roof, or the fixed cost of its kernels."""
        slowest = maximum(self.network_time, maximum(self.compute_time, self.memory_time))
        return "fixed" if greater(self.fixed_time, slowest) else self.roof


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartTime:
    """Time of a part: on the die's cores and on its links; ``hbm`` is what memory alone would need."""

    busy: Seconds
    link: Seconds
    hbm: Seconds

    @property
    def whole(self) -> Seconds:
        """Both, one after the other."""
        return self.busy + self.link


def _transfer_phases(exchange: Exchange, rates: Rates) -> list[Seconds]:
    phases: list[Seconds] = []
    inner: Count = 1
    for tier in rates.tiers:
        received = collectives.phase_received_bytes(
            shard=exchange.payload, group=exchange.group, inner=inner, outer=tier.dies
        )
        phases.append(collectives.link_time(payload=received, bandwidth=tier.bandwidth))
        inner = tier.dies
    return phases


def _collective(exchange: Exchange, rates: Rates, rounds: int) -> Seconds:
    """Hierarchical AllGather or ReduceScatter; an AllReduce is one of each."""
    phases = _transfer_phases(exchange, rates)
    if rates.phases_overlap:
        transfer = phases[0]
        for phase in phases[1:]:
            transfer = maximum(transfer, phase)
    else:
        transfer = total(phases)
    return collectives.collective_time(
        group=exchange.group, start=rounds * rates.collective_start, transfer=rounds * transfer
    )


def _message_link_time(exchange: Exchange, rates: Rates, efficiency: Fraction, pin: bool) -> Seconds:
    """Time of the most loaded tier when messages go straight to evenly spread destinations."""
    inner: Count = 1
    slowest: Seconds = 0.0
    for tier in rates.tiers:
        share = collectives.crossing_share(group=exchange.group, inner=inner, outer=tier.dies)
        payload = exchange.messages * exchange.payload * share
        bandwidth = (tier.pin_bandwidth if pin else tier.bandwidth) * efficiency
        slowest = maximum(slowest, collectives.link_time(payload=payload, bandwidth=bandwidth))
        inner = tier.dies
    return slowest


def exchange_time(exchange: Exchange, rates: Rates) -> Seconds:
    """Return the time of a communication on the machine's tiers; among one die it costs nothing."""
    time = _exchange_time(exchange, rates)
    return where(greater(exchange.group, 1), time, 0.0 * time)


def _exchange_time(exchange: Exchange, rates: Rates) -> Seconds:
    match exchange.collective:
        case "all_gather" | "reduce_scatter":
            return _collective(exchange, rates, 1)
        case "all_reduce":
            return _collective(exchange, rates, 2)
        case "dispatch" | "combine":
            dispatch = exchange.collective == "dispatch"
            return collectives.message_exchange_time(
                messages=exchange.messages,
                start=rates.dispatch_start if dispatch else rates.combine_start,
                per_message=rates.dispatch_per_message if dispatch else rates.combine_per_message,
                transfer=_message_link_time(exchange, rates, 1, pin=False),
            )
        case "bulk_dispatch" | "bulk_combine":
            dispatch = exchange.collective == "bulk_dispatch"
            efficiency = rates.bulk_dispatch_efficiency if dispatch else rates.bulk_combine_efficiency
            return rates.bulk_start + _message_link_time(exchange, rates, efficiency, pin=True)
        case _:
            assert_never(exchange.collective)


def time_op(op: Op, rates: Rates, core_share: Fraction = WHOLE) -> OpTime:
    """Return the time of one row on its share of the die's cores."""
    if op.exchange is not None:
        network = exchange_time(op.exchange, rates)
        return OpTime(op=op, network_time=network, work=network)
    compute = roofline.compute_time(
        flop=op.flop, peak=rates.peak(op.engine), efficiency=rates.compute_efficiency[op.operator]
    )
    stored = op.weight_bytes + op.kv_bytes
    cache = roofline.cache_time(stored=stored, activation=op.activation_bytes, l2_rate=rates.l2_rate)

    def on_pins(hbm_rate: BytesPerSecond) -> Seconds:
        return roofline.hbm_time(
            stored=stored, activation=op.activation_bytes, l2_capacity=rates.l2_capacity, hbm_rate=hbm_rate
        )

    efficiency = rates.hbm_efficiency[op.operator]
    pins = on_pins(
        roofline.streaming_rate(
            bandwidth=rates.hbm_bandwidth,
            efficiency=efficiency,
            core_bandwidth=rates.core_stream,
            core_share=core_share,
        )
    )
    fixed = op.kernels * (rates.vector_kernel_time if op.engine == "vector" else rates.cube_kernel_time)
    return OpTime(
        op=op,
        core_share=core_share,
        compute=compute,
        cache=cache,
        pins=pins,
        fixed_time=fixed,
        hbm_time=on_pins(rates.hbm_bandwidth * efficiency),
        work=roofline.operator_time(on_cores=maximum(compute, cache), on_pins=pins, core_share=core_share),
    )


def time_part(ops: Iterable[Op], rates: Rates, core_share: Fraction = WHOLE) -> PartTime:
    """Return the time of a part's rows, one after the other."""
    rows = [time_op(op, rates, core_share) for op in ops]
    return PartTime(
        busy=total(time for row in rows if row.op.exchange is None for time in (row.work, row.fixed_time)),
        link=total(row.work for row in rows if row.op.exchange is not None),
        hbm=total(row.hbm_time for row in rows),
    )


def join(parts: Iterable[PartTime]) -> PartTime:
    """Parts one after the other on one die."""
    parts = list(parts)
    return PartTime(
        busy=total(part.busy for part in parts),
        link=total(part.link for part in parts),
        hbm=total(part.hbm for part in parts),
    )


def slower(first: PartTime, second: PartTime) -> PartTime:
    """Parts on different ranks at the same time: the slower decides."""
    return PartTime(
        busy=maximum(first.busy, second.busy),
        link=maximum(first.link, second.link),
        hbm=maximum(first.hbm, second.hbm),
    )


def lanes(
    ledger: Ledger, block: Block, rates: Rates, attention_share: Fraction, experts_share: Fraction
) -> tuple[PartTime, PartTime]:
    """Return the attention lane and the experts lane of a block for one micro-batch."""
    attention = join(time_part(ledger.parts[name], rates, attention_share) for name in block.attention)
    experts = join(time_part(ledger.parts[name], rates, experts_share) for name in block.experts)
    if block.joined:
        first, second = (time_part(ledger.parts[name], rates, experts_share) for name in block.joined)
        slow = slower(first, second)
        experts = join([experts, slow])
    return attention, experts


def core_shares(block: Block, family: Family, attention_cores: Count, rates: Rates) -> tuple[Fraction, Fraction]:
    """Return the share of the cores that each lane of a block runs on."""
    if family.overlap == "cores" and block.overlapped:
        share = attention_cores / rates.cube_cores
        return share, 1 - share
    return WHOLE, WHOLE


def layer_time(block: Block, family: Family, attention: PartTime, experts: PartTime) -> Seconds:
    """Return the time of one layer of a block, all its micro-batches included."""
    if not block.overlapped:
        return block.passes * roofline.serial_time(first=attention.whole, second=experts.whole)
    match family.overlap:
        case "cores":
            return roofline.two_stream_time(
                first=attention.whole, second=experts.whole, shared=attention.hbm + experts.hbm
            )
        case "link":
            return roofline.two_stream_time(
                first=attention.busy + experts.busy, second=attention.link + experts.link, shared=0.0
            )
        case "none":
            raise AssertionError("an overlapped block in a serial family")
        case _:
            assert_never(family.overlap)


def step_time(ledger: Ledger, family: Family, attention_cores: Count, rates: Rates) -> Seconds:
    """Return the time of one step: all blocks and the overhead outside them."""
    times: list[Seconds] = []
    timed: dict[tuple[object, ...], Seconds] = {}
    for block in ledger.blocks:
        key = (block.attention, block.experts, block.joined, block.overlapped, block.passes)
        if key not in timed:
            attention, experts = lanes(ledger, block, rates, *core_shares(block, family, attention_cores, rates))
            timed[key] = layer_time(block, family, attention, experts)
        times.append(block.count * timed[key])
    overhead = rates.decode_overhead if family.phase == "decode" else rates.prefill_overhead
    return total([*times, overhead])
