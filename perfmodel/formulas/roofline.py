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


def serial_time(*, first: Seconds, second: Seconds) -> Seconds:
    """Two lanes one after the other.

    Source: definition.

    >>> serial_time(first=2.0, second=3.0)
    5.0
    """
    return first + second


def staged_time(*, micro_batches: Count, domains: Count, first: Seconds, second: Seconds, way: Seconds) -> Seconds:
    r"""A layer whose two stages run on different dies, several micro-batches in turn.

    .. math:: t = \max\bigl(m\,t_1,\; m\,D\,t_2,\; t_\mathrm{way}\bigr)

    Each of D domains of first-stage dies sends its m micro-batches through the same second-stage dies; a
    micro-batch cannot begin its next layer before its ``way`` through both and its exchanges, there and back, is
    done.  Steady state without jitter: errs low.  Source: [xdeepserve2025] section 3.3, [stepfun2025] section 4.

    ``first`` and ``second`` are how long a micro-batch holds a die of either stage.

    Two micro-batches and three domains of xDeepServe: attention decides.

    >>> t = staged_time(micro_batches=2, domains=3, first=0.7e-3, second=0.19e-3, way=1.185e-3)
    >>> f"{t * 1e3:.1f} ms"
    '1.4 ms'
    """
    return maximum(micro_batches * maximum(first, domains * second), way)


def stage_time(*, work: Seconds, messages: Seconds, hidden: Fraction) -> Seconds:
    r"""Time that a micro-batch holds a die of one stage: its work, and its messages on the same vector cores.

    .. math:: t = t_w + t_m / 2 - h\,\min(t_w, t_m / 2)

    ``messages`` is what they take of a die that sends and gets as many, as the kernels were measured; a die of a stage
    sends one way and gets the other, half of both together, whatever share of a message's cost either end has where
    the ways cost alike.  Messages of one micro-batch hide in part behind the work of another, as those of two on one
    die do.
    Without a cost per message it is the work alone.  Source: [xdeepserve2025] section 3.1, in which vector cores of
    both dies move the messages.

    xDeepServe's experts, 480 messages each way at 158 and 139 ns:

    >>> t = stage_time(work=0.12e-3, messages=480 * (158e-9 + 139e-9), hidden=0.6)
    >>> f"{t * 1e6:.0f} us"
    '149 us'
    """
    of_die = messages / 2
    return work + of_die - hidden * minimum(work, of_die)


def two_stream_time(
    *,
    first: Seconds,
    second: Seconds,
    shared: Seconds,
    first_saved: Seconds = 0.0,
    second_saved: Seconds = 0.0,
) -> Seconds:
    r"""A layer of two micro-batches whose lanes run side by side, each lane taking turns.

    .. math:: t = \max(2 t_1 - s_1,\; 2 t_2 - s_2,\; t_1 + t_2,\; 2 t_\mathrm{HBM})

    ``first`` and ``second`` are the times of the first micro-batch, ``..._saved`` what the second is shorter by,
    ``shared`` what both lanes together need of a resource they share in the mean of both: the memory's pins.
    Each lane works both in turn, and the first micro-batch has to pass both lanes: where the second saves nothing
    that is twice the longer.  Steady state; the fill of half a layer per step is left out (errs low by under 1 %
    over 58 layers).
    Source: [zuo2025] section 4.2.3.

    >>> two_stream_time(first=600e-6, second=580e-6, shared=500e-6)
    0.0012
    """
    lanes = maximum(2 * first - first_saved, 2 * second - second_saved)
    return maximum(2 * shared, maximum(lanes, first + second))
