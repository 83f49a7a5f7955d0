"""Time of one kernel from its shape: what streams, what computes, and what of them overlaps.

All times are those of a whole die unless a formula says otherwise.  None of them falls when a load
grows or rises when a rate grows.
"""

from perfmodel.algebra import ceil, greater, maximum, minimum, where
from perfmodel.units import (
    Bytes,
    BytesPerSecond,
    Count,
    Dimensionless,
    Flop,
    FlopPerSecond,
    Fraction,
    Seconds,
)


def overlapped_time(*, first: Seconds, second: Seconds, hidden: Fraction) -> Seconds:
    r"""Two activities of one kernel, part of the shorter hidden behind the longer.

    .. math:: t = t_1 + t_2 - h\,\min(t_1, t_2)

    ``hidden`` 1 is the roofline's maximum, 0 the sum.
    Source: [williams2009] section 3 for both ends; the part in between is measured.

    >>> overlapped_time(first=3.0, second=2.0, hidden=0.5)
    4.0
    """
    return first + second - hidden * minimum(first, second)


def hidden_share(*, rows: Count, overlap_rows: Count) -> Fraction:
    r"""Part of the shorter of streaming and arithmetic that a matrix product hides.

    .. math:: h = \frac{R}{R + m}

    With few rows the weights of the next block stream while this one is multiplied; with many rows
    the blocks of rows after the first find the weights in L2, and their first pass stays exposed.
    Assumes one smooth transition; kernels that switch tiling make steps in it.
    Source: measured tables, see ``docs/accuracy.md``; the form is ours.

    >>> hidden_share(rows=80, overlap_rows=80)
    0.5
    """
    return overlap_rows / (overlap_rows + rows)


def wave_share(
    *, matrices: Count, rows: Count, columns: Count, tile_rows: Count, tile_columns: Count, cores: Count
) -> Fraction:
    r"""Useful part of the arithmetic when cores work whole tiles in whole waves.

    .. math:: u = \frac{g m n}{\lceil T / c \rceil\,c\,t_m t_n},\quad
              T = g \lceil m / t_m \rceil \lceil n / t_n \rceil

    Tiles are no higher than the matrix; up to one wave kernels take smaller ones, and all of the work is useful.
    Source: counting.

    >>> f"{wave_share(matrices=1, rows=4096, columns=2112, tile_rows=128, tile_columns=128, cores=132):.3f}"
    '0.800'
    """
    height = minimum(rows, tile_rows)
    tiles = matrices * ceil(rows / height) * ceil(columns / tile_columns)
    worked = ceil(tiles / cores) * cores * height * tile_columns
    useful = matrices * rows * columns
    return where(greater(tiles, cores), useful / worked, 1.0)


def weight_stream_time(
    *, stored: Bytes, resident: Bytes, rate: BytesPerSecond, resident_rate: BytesPerSecond
) -> Seconds:
    r"""Time to bring stored operands to the cores when some of them are still in L2.

    .. math:: t = \frac{\min(w, C)}{B_{L2}} + \frac{\max(0, w - C)}{B_\mathrm{HBM}}

    ``resident`` is zero in serving, where gigabytes of other weights pass between two uses; a
    benchmark that repeats one call keeps up to C bytes.
    Source: counting.

    >>> f"{weight_stream_time(stored=50e6, resident=30e6, rate=1e12, resident_rate=2e12) * 1e6:.0f} us"
    '35 us'
    """
    kept = minimum(stored, resident)
    return kept / resident_rate + (stored - kept) / rate


def spilled_bytes(*, activation: Bytes, l2_capacity: Bytes) -> Bytes:
    """Bytes of activations that do not fit L2 and pass through memory.

    Assumes that producer and consumer of an activation meet in L2; errs low where other streams
    evict it.  Source: counting.

    >>> spilled_bytes(activation=3e8, l2_capacity=2e8)
    100000000.0
    """
    return maximum(0, activation - l2_capacity)


def reused_share(*, weights: Bytes, passing: Bytes, l2_capacity: Bytes) -> Fraction:
    r"""Part of a layer's weights that its second micro-batch still finds in L2.

    .. math:: h = \min\!\left(1, \frac{\max(0, C - S)}{w}\right)

    Between the two uses of a weight pass all w bytes of the layer's weights and S bytes that are read or written
    but once, caches and activations: these take their size of the capacity C, and the weights share what is left.
    That is the best a cache can do with weights that come round; one that drops what was used longest ago keeps
    none of them where w + S is over C.  So it errs fast.  Source: counting.

    >>> f"{reused_share(weights=250e6, passing=100e6, l2_capacity=200e6):.2f}"
    '0.40'
    """
    return minimum(1.0, maximum(0.0, l2_capacity - passing) / maximum(weights, 1.0))


def activation_time(*, activation: Bytes, passes: Dimensionless, bandwidth: BytesPerSecond) -> Seconds:
    """Time for activations to pass the memory system a number of times, beside the product itself.

    Source: counting; the number of passes is measured and holds dynamic quantisation where a kernel has it.

    >>> activation_time(activation=1.6e6, passes=2, bandwidth=1.6e12)
    2e-06
    """
    return activation * (passes / bandwidth)


def core_stream_rate(
    *, bandwidth: BytesPerSecond, share: Fraction, core_bandwidth: BytesPerSecond, core_share: Fraction
) -> BytesPerSecond:
    r"""Rate at which a share of the cores streams from memory.

    .. math:: B = \min(\eta B_\mathrm{pin},\; \sigma \max(B_\mathrm{cores}, \eta B_\mathrm{pin}))

    All cores reach the measured rate; a part of them reaches its part of that rate, or of what the
    cores can ask for (32 B a cycle each on the 910 family) where that is more.
    Source: [williams2009], with a second roof.

    >>> core_stream_rate(bandwidth=1.6e12, share=0.75, core_bandwidth=1.38e12, core_share=0.5)
    690000000000.0
    """
    measured = share * bandwidth
    return minimum(measured, core_share * maximum(core_bandwidth, measured))


def unpacking_time(
    *,
    flop: Flop,
    rate: FlopPerSecond,
    widened: Bytes,
    write_rate: BytesPerSecond,
) -> Seconds:
    r"""Time of the vector cores to widen weights stored in fewer bits, and to write them where products read them.

    .. math:: t = \max\!\left(\frac{F}{P_\mathrm{vector}},\; \frac{w}{B_\mathrm{L2}}\right)

    ``flop`` counts each instruction on an element once, ``rate`` is what vector kernels reach on 16 bits; moves run
    beside the arithmetic.  Source: counting; how many instructions a kernel takes is not published.

    One expert of 7168 x 2048, two casts an element, 48 vector cores of 256 FLOP a cycle at 1.8 GHz of which 0.3 are
    reached:

    >>> t = unpacking_time(flop=2 * 3 * 7168 * 2048, rate=0.3 * 48 * 256 * 1.8e9, widened=3 * 7168 * 2048,
    ...                    write_rate=24 * 86 * 1.8e9)
    >>> f"{t * 1e6:.1f} us"
    '13.3 us'
    """
    return maximum(flop / rate, widened / write_rate)


def first_block_time(
    *,
    context: Count,
    block_tokens: Count,
    bytes_per_token: Bytes,
    flop_per_token: Flop,
    core_bandwidth: BytesPerSecond,
    core_rate: FlopPerSecond,
) -> Seconds:
    r"""Time of the block of one sequence that a single core works alone.

    .. math:: t = \frac{n S}{n + S}\,\max\!\left(\frac{b}{B_\mathrm{core}}, \frac{f}{P_\mathrm{core}}\right)

    A context n shorter than the block S is worked by one core at its own rate; a longer one is
    split, and the split saturates.
    Source: measured tables, see ``docs/accuracy.md``; the form is ours.

    >>> t = first_block_time(context=1000, block_tokens=1000, bytes_per_token=1152, flop_per_token=0,
    ...                      core_bandwidth=57.6e9, core_rate=1e13)
    >>> f"{t * 1e6:.0f} us"
    '10 us'
    """
    per_token = maximum(bytes_per_token / core_bandwidth, flop_per_token / core_rate)
    return per_token * context * (block_tokens / (context + block_tokens))


def sequence_start(*, sequences: Count, start_per_sequence: Seconds, cores: Count) -> Seconds:
    """Fixed cost that grows with the sequences of a call until half the cores have one.

    Source: measured tables, see ``docs/accuracy.md``; the form is ours.

    >>> sequence_start(sequences=100, start_per_sequence=1e-6, cores=24)
    1.2e-05
    """
    return start_per_sequence * minimum(sequences, cores / 2)


def causal_attention_time(
    *,
    flop: Flop,
    context: Count,
    overhead_tokens: Count,
    rate: FlopPerSecond,
    activation: Bytes,
    l2_capacity: Bytes,
    spill: Dimensionless,
) -> Seconds:
    r"""Arithmetic of causal attention, with what blocks on the diagonal and a full L2 add.

    .. math:: t = \frac{F}{P}\left(1 + \frac{b}{n}\right)\left(1 + s\,\max(0, 1 - C/a)\right)

    Source: measured tables, see ``docs/accuracy.md``; the form is ours.

    >>> causal_attention_time(flop=1e12, context=1000, overhead_tokens=500, rate=1e14, activation=1e8,
    ...                       l2_capacity=2e8, spill=0.5)
    0.015
    """
    beyond = maximum(0, 1 - l2_capacity / activation)
    return flop / rate * (1 + overhead_tokens / context) * (1 + spill * beyond)


def edge_tokens(*, width: Count, share: Fraction, overhead_tokens: Count) -> Count:
    r"""Tokens that a row costs beyond what it sees, at one partial edge of that.

    .. math:: u\,\min(b, w)

    A causal triangle has one edge, its diagonal, at which blocks of b tokens are worked whole: b / 2 more for each.
    A window has two, its far one for the part u of the tokens that have more than it behind them; neither can cost more
    than the w tokens that are there.  In :func:`causal_attention_time` their sum stands for b, and twice what a token
    sees on average for n: of a triangle that is n.
    Source: counting; b is measured on triangles alone, softmax and rescaling included.

    A window of 128 tokens takes twice its pairs, not (1 + 600 / 128) of them:

    >>> edges = 2 * edge_tokens(width=128, share=1.0, overhead_tokens=600)
    >>> causal_attention_time(flop=1.0, context=2 * 128, overhead_tokens=edges, rate=1.0, activation=1.0,
    ...                       l2_capacity=2.0, spill=0.5)
    2.0
    """
    return share * minimum(overhead_tokens, width)


def task_time(*, tasks: Count, task_time: Seconds, cores: Count) -> Seconds:
    """Least time of a number of equal tasks on the cores.

    Source: counting.

    >>> task_time(tasks=240, task_time=5e-6, cores=24)
    5e-05
    """
    return tasks * task_time / cores


def choice_time(
    *,
    rows: Count,
    keys: Count,
    passes: Dimensionless,
    score_bytes: Bytes,
    cores: Count,
    core_bandwidth: BytesPerSecond,
) -> Seconds:
    r"""Time to choose the best of the scores of each row, a row on one core.

    .. math:: t = \left\lceil \frac{R}{c} \right\rceil \frac{p\,b\,n}{B_\mathrm{core}}

    A choice compares what it has of all n scores, so that a row is not divided: one row takes as long as c of them,
    at one core's share of the pins.  A kernel goes p times over the scores.  Errs slow for kernels that divide a long
    row over cores, and where scores come from L2.  Source: counting; passes are measured.

    98,304 keys more for one row, 3.6 passes of 4 bytes on one of 132 cores with 4.8 TB/s:

    >>> t = choice_time(rows=1, keys=98304, passes=3.6, score_bytes=4, cores=132, core_bandwidth=4.8e12 / 132)
    >>> f"{t * 1e6:.1f} us"
    '38.9 us'
    """
    return ceil(rows / cores) * (passes * score_bytes * keys / core_bandwidth)
