"""Time of one operator on one die, and the rules by which times overlap."""

from perfmodel.algebra import maximum, minimum
from perfmodel.units import Bytes, BytesPerSecond, Count, Flop, FlopPerSecond, Fraction, Hertz, Seconds


def peak_rate(*, cores: Count, flop_per_cycle: Flop, clock: Hertz) -> FlopPerSecond:
    """Peak rate of a set of cores.

    Source: definition; gives the published GEMM ceiling of the 910C die.

    >>> f"{peak_rate(cores=24, flop_per_cycle=8192, clock=1.8e9) / 1e12:.1f} TFLOP/s"
    '353.9 TFLOP/s'
    """
    return cores * flop_per_cycle * clock


def compute_time(*, flop: Flop, peak: FlopPerSecond, efficiency: Fraction) -> Seconds:
    """Time the arithmetic needs on all cores.

    Source: [williams2009].

    >>> compute_time(flop=8e12, peak=1e13, efficiency=0.8)
    1.0
    """
    return flop / (peak * efficiency)


def cache_time(*, stored: Bytes, activation: Bytes, l2_rate: BytesPerSecond) -> Seconds:
    """Time all cores need to take every byte through L2.

    Source: [williams2009] with a second memory level.

    >>> cache_time(stored=4e9, activation=8e8, l2_rate=4.8e12)
    0.001
    """
    return (stored + activation) / l2_rate


def operator_time(*, on_cores: Seconds, on_pins: Seconds, core_share: Fraction) -> Seconds:
    r"""Time of one operator without its fixed cost: what its cores need, or what memory needs.

    .. math:: t = \max\!\left(\frac{t_\mathrm{cores}}{\sigma},\; t_\mathrm{HBM}\right)

    ``on_cores`` is the slower of arithmetic and L2 on all cores, of which the operator has a share.
    Source: [williams2009].

    >>> operator_time(on_cores=1e-3, on_pins=1.5e-3, core_share=0.5)
    0.002
    """
    return maximum(on_cores / core_share, on_pins)


def streaming_rate(
    *, bandwidth: BytesPerSecond, efficiency: Fraction, core_bandwidth: BytesPerSecond, core_share: Fraction
) -> BytesPerSecond:
    r"""Rate at which a share of the cores streams from memory.

    .. math:: B = \min(\eta\,B_\mathrm{pin},\; \sigma\,B_\mathrm{cores})

    Source: [williams2009], with a second roof: the cores' own streams, 32 B a cycle each on the
    910 family.  That roof is 1.38 TB/s on 24 cores at 1.8 GHz; 1.39 to 1.44 TB/s were measured, so
    it errs slow by 1 to 4 %.

    >>> streaming_rate(bandwidth=1.6e12, efficiency=0.9, core_bandwidth=1.38e12, core_share=0.5)
    690000000000.0
    """
    return minimum(bandwidth * efficiency, core_bandwidth * core_share)


def hbm_time(*, stored: Bytes, activation: Bytes, l2_capacity: Bytes, hbm_rate: BytesPerSecond) -> Seconds:
    r"""Time on the memory's pins: stored bytes, and activations that do not fit L2.

    .. math:: t = \frac{w + \max(0, a - C)}{B_\mathrm{HBM}}

    Assumes that producer and consumer of an activation meet in L2; errs low where other streams
    evict it.  Source: [williams2009].

    >>> hbm_time(stored=1.6e9, activation=1e8, l2_capacity=1.92e8, hbm_rate=1.6e12)
    0.001
    """
    return (stored + maximum(0, activation - l2_capacity)) / hbm_rate


def serial_time(*, first: Seconds, second: Seconds) -> Seconds:
    """Two lanes one after the other.

    Source: definition.

    >>> serial_time(first=2.0, second=3.0)
    5.0
    """
    return first + second


def two_stream_time(*, first: Seconds, second: Seconds, shared: Seconds) -> Seconds:
    r"""A layer of two micro-batches whose lanes run side by side, each lane taking turns.

    .. math:: t = 2\,\max(t_1, t_2, t_\mathrm{HBM})

    ``first`` and ``second`` are the times of one micro-batch, ``shared`` what both together need of a
    resource they share: the memory's pins.  Steady state; the fill of half a
    layer per step is left out (errs low by under 1 % over 58 layers).
    Source: [zuo2025] section 4.2.3.

    >>> two_stream_time(first=600e-6, second=580e-6, shared=500e-6)
    0.0012
    """
    return 2 * maximum(shared, maximum(first, second))
