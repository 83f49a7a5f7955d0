"""Time of one row of a ledger on the kernel that runs it."""

from dataclasses import dataclass, replace
from typing import cast

from perfmodel.algebra import as_float, greater, is_array, maximum, never_greater, total
from perfmodel.formulas import kernels as formulas
from perfmodel.formulas import roofline
from perfmodel.formulas.attention import worked_flop
from perfmodel.ledger.records import Op
from perfmodel.specs.kernels import (
    ChoiceKernel,
    DecodeAttentionKernel,
    MatmulKernel,
    PrefillAttentionKernel,
    VectorKernel,
)
from perfmodel.supply.rates import Rates
from perfmodel.timing.exchanges import exchange_time
from perfmodel.units import Bytes, BytesPerSecond, Fraction, Seconds

WHOLE = 1.0
SCORE_BYTES = 4  # of a key for a query: FP32
ELEMENT_BYTES = {"cube_int8": 1, "cube_bf16": 2}  # of an operand of the cube that weights are widened to
NOTHING_KEPT = 0.0
ALL_KEPT = 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OpTime:
    """Time of one row on its share of the cores, and what it consists of."""

    op: Op
    #: what would need so long with all cores at work: arithmetic, taking bytes through L2, activations that pass
    #: beside the stream; kept so because no core split is in it, and a share of the cores needs as many times longer
    whole_compute: Seconds = 0.0
    whole_cache: Seconds = 0.0
    whole_pass: Seconds = 0.0
    #: widening of weights on the vector cores, in a product that has such
    whole_unpack: Seconds | None = None
    #: time to stream what is stored
    stream_time: Seconds = 0.0
    network_time: Seconds = 0.0
    fixed_time: Seconds = 0.0
    #: bytes on the memory's pins, and the rate that all cores reach
    moved: Bytes = 0.0
    whole_rate: BytesPerSecond = 1.0
    core_share: Fraction = WHOLE
    #: time without the fixed cost
    work: Seconds
    #: on a mesh of core splits, in place of it where the cores limit every share: what all of them would need, a share
    #: of them as many times longer; without the axis of the split it is added up before it is divided
    whole_work: Seconds | None = None

    @property
    def time(self) -> Seconds:
        """Time of the row; its fixed cost does not overlap."""
        return self.work + self.fixed_time

    @property
    def compute_time(self) -> Seconds:
        """Time of arithmetic on the row's share of the cores."""
        return self.whole_compute / self.core_share

    @property
    def memory_time(self) -> Seconds:
        """Time of memory on the row's share of the cores."""
        return maximum(self.stream_time, self.whole_cache / self.core_share) + self.whole_pass / self.core_share

    @property
    def hbm_time(self) -> Seconds:
        """What memory alone would need at the rate all cores reach."""
        return self.moved / self.whole_rate + self.whole_pass

    @property
    def roofs(self) -> dict[str, Seconds]:
        """Return what arithmetic, memory and link need, by name."""
        roofs = {"compute": self.compute_time, "memory": self.memory_time, "link": self.network_time}
        return roofs if self.whole_unpack is None else {**roofs, "unpacking": self.whole_unpack / self.core_share}

    @property
    def roof(self) -> str:
        """The slowest of arithmetic, memory, link and unpacking, for a row of plain numbers."""
        roofs = self.roofs
        return max(roofs, key=lambda name: as_float(roofs[name]))

    @property
    def bound(self) -> str:
        """What decides the time of a row of plain numbers: its roof, or its fixed cost."""
        return "fixed" if greater(self.fixed_time, self.roofs[self.roof]) else self.roof


def time_op(
    op: Op, rates: Rates, core_share: Fraction = WHOLE, *, repeated: bool = False, kept: Fraction = NOTHING_KEPT
) -> OpTime:
    """Return the time of one row on its share of the die's cores, ``kept`` of a product's weights read from L2.

    ``repeated`` is how benchmarks run: the same call again and again, with part of the weights
    still in L2.  In serving other weights have passed in between.
    """
    factor = None if not rates.scatter else rates.scatter.get(rates.class_of(op.kernel))
    timed = _time_op(op, rates, core_share, repeated, kept)
    if factor is None:
        return timed
    whole = None if timed.whole_work is None else timed.whole_work * factor
    return replace(timed, work=timed.work * factor, whole_work=whole, fixed_time=timed.fixed_time * factor)


def _time_op(op: Op, rates: Rates, core_share: Fraction, repeated: bool, kept: Fraction) -> OpTime:
    if op.operator in ("host_read", "pool_read"):
        network = op.kv_bytes / (rates.host_bandwidth if op.operator == "host_read" else rates.pool_bandwidth)
        return OpTime(op=op, network_time=network, work=network)
    if op.exchange is not None:
        network = exchange_time(op.exchange, rates, alone=repeated)
        return OpTime(op=op, network_time=network, work=network)
    kernel = rates.kernels[rates.class_of(op.kernel)]
    match kernel:
        case MatmulKernel():
            return _matmul(op, kernel, rates, core_share, repeated, kept)
        case DecodeAttentionKernel():
            return _decode_attention(op, kernel, rates, core_share)
        case PrefillAttentionKernel():
            return _prefill_attention(op, kernel, rates, core_share)
        case VectorKernel():
            return _vector(op, kernel, rates, core_share)
        case ChoiceKernel():
            return _choice(op, kernel, rates, core_share)
        case _:
            raise AssertionError(f"{op.kernel} is no operator on the cores")


def _streaming(rates: Rates, stream: Fraction, core_share: Fraction) -> BytesPerSecond:
    return formulas.core_stream_rate(
        bandwidth=rates.hbm_bandwidth, share=stream, core_bandwidth=rates.core_stream, core_share=core_share
    )


def _through_memory(op: Op, rates: Rates) -> Bytes:
    spilled = formulas.spilled_bytes(activation=op.activation_bytes, l2_capacity=rates.l2_capacity)
    return op.weight_bytes + op.kv_bytes + spilled


def _matmul(op: Op, kernel: MatmulKernel, rates: Rates, core_share: Fraction, repeated: bool, kept: Fraction) -> OpTime:
    moved, cached = _through_memory(op, rates), cast(Seconds, 0.0)
    if kept is not NOTHING_KEPT:
        cached = op.weight_bytes * kept / rates.l2_rate
        moved = moved - op.weight_bytes * kept
    compute = roofline.compute_time(flop=op.flop, peak=rates.peak(op.engine), efficiency=kernel.compute)
    tiled = kernel.tile_rows
    if tiled is not None and kernel.tile_columns is not None:
        compute = compute / formulas.wave_share(
            matrices=op.matrices,
            rows=op.rows,
            columns=op.columns,
            tile_rows=tiled,
            tile_columns=kernel.tile_columns,
            cores=rates.cube_cores * core_share,
        )
    passes = formulas.activation_time(
        activation=op.activation_bytes,
        passes=kernel.activation_passes,
        bandwidth=rates.hbm_bandwidth,
    )
    hidden = formulas.hidden_share(rows=op.rows, overlap_rows=kernel.overlap_rows)
    widening = _widening(op, kernel, rates)
    unpack = _unpacking(op, widening, rates)
    beside = 0.0 if widening.unpack_overlap is None else widening.unpack_overlap
    timed = OpTime(
        op=op,
        whole_compute=compute,
        whole_pass=passes,
        whole_unpack=unpack,
        fixed_time=op.kernels * (kernel.start * rates.start_share),
        moved=moved,
        whole_rate=rates.hbm_bandwidth * kernel.stream,
        core_share=core_share,
        work=0.0,
    )
    if not repeated and tiled is None and _cores_limit(rates, kernel.stream, core_share):
        # all of it grows with one over the share, which alone of its factors has the axis of the core split
        whole = moved / maximum(rates.core_stream, rates.hbm_bandwidth * kernel.stream) + cached
        if unpack is not None:
            whole = formulas.overlapped_time(first=whole, second=unpack, hidden=beside)
        work = formulas.overlapped_time(first=whole, second=compute, hidden=hidden) + passes
        return replace(timed, whole_work=work)
    stream = moved / _streaming(rates, kernel.stream, core_share)
    if kept is not NOTHING_KEPT:
        stream = stream + cached / core_share
    if repeated:
        stream = formulas.weight_stream_time(
            stored=moved,
            resident=kernel.resident,
            rate=_streaming(rates, kernel.stream, core_share),
            resident_rate=rates.hbm_bandwidth * kernel.resident_stream * core_share,
        )
    brought = stream
    if unpack is not None:
        brought = formulas.overlapped_time(first=stream, second=unpack / core_share, hidden=beside)
    work = formulas.overlapped_time(first=brought, second=compute / core_share, hidden=hidden) + passes / core_share
    return replace(timed, stream_time=stream, work=work)


def _widening(op: Op, kernel: MatmulKernel, rates: Rates) -> MatmulKernel:
    """Return the kernel whose widening of weights a product has: its own, or that of the same product in INT8."""
    if op.unpacked is None or kernel.unpack_operations is not None:
        return kernel
    return rates.kernel(rates.class_of(f"{op.operator}_int8"), MatmulKernel)


def _unpacking(op: Op, kernel: MatmulKernel, rates: Rates) -> Seconds | None:
    """Return the time of all vector cores to widen a product's weights; none where it has none to widen."""
    if op.unpacked is None:
        return None
    return formulas.unpacking_time(
        flop=op.unpacked * (0 if kernel.unpack_operations is None else kernel.unpack_operations),
        rate=rates.vector_half * rates.kernel("vector", VectorKernel).compute,
        widened=op.unpacked * ELEMENT_BYTES[op.engine],
        write_rate=rates.l2_write_rate,
    )


def _cores_limit(rates: Rates, stream: Fraction, core_share: Fraction) -> bool:
    """Return whether every share of a mesh of shares streams less than the pins give; not asked of a single share."""
    measured = rates.hbm_bandwidth * stream
    return is_array(core_share) and never_greater(core_share * maximum(rates.core_stream, measured), measured)


def _decode_attention(op: Op, kernel: DecodeAttentionKernel, rates: Rates, core_share: Fraction) -> OpTime:
    peak, cores = rates.peak(op.engine) * kernel.compute, rates.cube_cores
    moved = op.kv_bytes + op.weight_bytes
    stream = moved / _streaming(rates, kernel.stream, core_share)
    flop = op.flop
    if kernel.tile_rows is not None and op.query_rows is not None:
        flop = worked_flop(flop=flop, rows=op.query_rows, tile_rows=kernel.tile_rows)
    compute = flop / peak
    passes = op.activation_bytes / rates.l2_rate
    tokens = op.sequences * op.context
    first_block = formulas.first_block_time(
        context=op.context,
        block_tokens=kernel.block_tokens,
        bytes_per_token=moved / tokens,
        flop_per_token=flop / tokens,
        core_bandwidth=rates.core_stream / cores,
        core_rate=peak / cores,
    )
    starts = formulas.sequence_start(
        sequences=op.sequences, start_per_sequence=kernel.start_per_sequence, cores=cores * core_share
    )
    return OpTime(
        op=op,
        whole_compute=compute,
        whole_pass=passes,
        stream_time=stream,
        fixed_time=op.kernels * (kernel.start * rates.start_share + starts + first_block),
        moved=moved,
        whole_rate=rates.hbm_bandwidth * kernel.stream,
        core_share=core_share,
        work=formulas.overlapped_time(first=stream, second=compute / core_share, hidden=kernel.overlap)
        + passes / core_share,
    )


def _prefill_attention(op: Op, kernel: PrefillAttentionKernel, rates: Rates, core_share: Fraction) -> OpTime:
    context, overhead = op.context, kernel.overhead_tokens
    if op.seen is not None:
        # a triangle of n tokens shows each of them n / 2
        context = 2 * op.seen
        overhead = total(
            formulas.edge_tokens(width=width, share=share, overhead_tokens=kernel.overhead_tokens)
            for width, share in op.edges
        )
    compute = formulas.causal_attention_time(
        flop=op.flop,
        context=context,
        overhead_tokens=overhead,
        rate=rates.peak(op.engine) * kernel.compute,
        activation=op.activation_bytes,
        l2_capacity=rates.l2_capacity,
        spill=kernel.spill,
    )
    tasks = formulas.task_time(tasks=op.sequences * op.heads, task_time=kernel.task_time, cores=rates.cube_cores)
    compute = maximum(compute, tasks)
    moved = _through_memory(op, rates)
    memory = moved / (rates.hbm_bandwidth * core_share)
    return OpTime(
        op=op,
        whole_compute=compute,
        stream_time=memory,
        fixed_time=op.kernels * (kernel.start * rates.start_share),
        moved=moved,
        whole_rate=rates.hbm_bandwidth,
        core_share=core_share,
        work=maximum(compute / core_share, memory),
    )


def _vector(op: Op, kernel: VectorKernel, rates: Rates, core_share: Fraction) -> OpTime:
    compute = roofline.compute_time(flop=op.flop, peak=rates.peak(op.engine), efficiency=kernel.compute)
    cache = roofline.cache_time(
        stored=op.weight_bytes + op.kv_bytes, activation=op.activation_bytes, l2_rate=rates.l2_rate
    )
    moved = _through_memory(op, rates)
    stream = moved / _streaming(rates, kernel.stream, core_share)
    return OpTime(
        op=op,
        whole_compute=compute,
        whole_cache=cache,
        stream_time=stream,
        fixed_time=op.kernels * (kernel.start * rates.start_share),
        moved=moved,
        whole_rate=rates.hbm_bandwidth * kernel.stream,
        core_share=core_share,
        work=maximum(maximum(compute, cache) / core_share, stream),
    )


def _choice(op: Op, kernel: ChoiceKernel, rates: Rates, core_share: Fraction) -> OpTime:
    time = formulas.choice_time(
        rows=op.rows,
        keys=op.context,
        passes=kernel.passes,
        score_bytes=SCORE_BYTES,
        cores=rates.vector_cores * core_share,
        core_bandwidth=rates.hbm_bandwidth / rates.vector_cores,
    )
    return OpTime(
        op=op,
        stream_time=time,
        fixed_time=op.kernels * (kernel.start * rates.start_share),
        moved=op.rows * op.context * kernel.passes * SCORE_BYTES,
        whole_rate=rates.hbm_bandwidth,
        core_share=core_share,
        work=time,
    )
