"""What do clients see who send their next request when the last is done, as a benchmark does?

One rank and one step function, as :mod:`mixed_queue` has it.  The rate of requests is the one at which the stays of all
clients add up to their number (Little's law): found by halving, as stays grow with the rate.  Symbols are not taken.
"""

from collections.abc import Callable

from perfmodel.algebra import Num, greater, maximum, where
from perfmodel.formulas import mixed_queue
from perfmodel.units import Count, Dimensionless, PerSecond, Seconds

_HALVINGS = 40


def _rate(clients: Num, highest: Num, stay: Callable[[Num], Num]) -> Num:
    """Return the rate at which rate times stay makes the number of clients; never above the highest."""
    low: Num = 0 * (highest + clients)
    high = highest + low
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = greater(clients, middle * stay(middle))
        low, high = where(below, middle, low), where(below, high, middle)
    return low


def chunked_closed_rate(
    *,
    clients: Count,
    delay: Seconds,
    fixed_time: Seconds,
    sequence_time: Seconds,
    prompt_time: Seconds,
    prompt_scv: Dimensionless,
    chunks: Count,
    slots: Count,
    decode_tokens: Count,
) -> PerSecond:
    r"""Requests per second of clients in a closed loop where prompts ride along in decode steps.

    .. math:: N = \lambda\,\bigl(\delta + F(\lambda) + E(o - 1)\,T(\lambda)\bigr)

    T of :func:`mixed_queue.chunked_tpot` without an own time, F of :func:`mixed_queue.chunked_ttft` at Poisson
    arrivals of the other clients.  Those of a closed loop are more even: F errs high where N is small, low while the
    first wave goes round.

    Source: [little1961].

    One client alone:

    >>> rate = chunked_closed_rate(clients=1, delay=0.0, fixed_time=0.02, sequence_time=0.0, prompt_time=0.1,
    ...     prompt_scv=0.0, chunks=1, slots=8, decode_tokens=1000)
    >>> round(1 / rate, 2)
    20.12
    """

    others = 1 - 1 / clients

    def stay(rate: Num) -> Num:
        load = mixed_queue.mixed_load(
            request_rate=rate,
            prompt_time=prompt_time * others,
            decode_tokens=decode_tokens,
            sequence_time=sequence_time,
        )
        tpot = mixed_queue.chunked_tpot(fixed_time=fixed_time, own_time=0, load=load)
        ttft = mixed_queue.chunked_ttft(
            request_rate=rate * others,
            tpot=tpot,
            running=clients - 1,
            prompt_time=prompt_time,
            prompt_scv=prompt_scv,
            chunks=chunks,
            slots=slots,
            arrival_scv=1,
        )
        return delay + ttft + decode_tokens * tpot

    return _rate(clients, 1 / (prompt_time + decode_tokens * sequence_time), stay)


def prefill_first_closed_rate(
    *,
    clients: Count,
    delay: Seconds,
    fixed_time: Seconds,
    sequence_time: Seconds,
    prompt_time: Seconds,
    prompt_scv: Dimensionless,
    slots: Count,
    decode_tokens: Count,
) -> PerSecond:
    r"""Requests per second of clients in a closed loop where prompts go first.

    .. math:: N = \lambda\,\bigl(\delta + F(\lambda) + E(o - 1)\,T(\lambda)\bigr)

    T and F of :func:`mixed_queue.prefill_first_tpot` and :func:`mixed_queue.prefill_first_ttft`; errs as
    :func:`chunked_closed_rate` does.  Source: [little1961].

    One client alone:

    >>> rate = prefill_first_closed_rate(clients=1, delay=0.0, fixed_time=0.02, sequence_time=0.0, prompt_time=0.1,
    ...     prompt_scv=0.0, slots=8, decode_tokens=1000)
    >>> round(1 / rate, 2)
    20.12
    """

    others = 1 - 1 / clients

    def stay(rate: Num) -> Num:
        load = mixed_queue.mixed_load(
            request_rate=rate,
            prompt_time=prompt_time * others,
            decode_tokens=decode_tokens,
            sequence_time=sequence_time,
        )
        batch = mixed_queue.prefill_batch(
            request_rate=rate * others,
            fixed_time=fixed_time,
            prompt_time=prompt_time,
            decode_load=rate * decode_tokens * sequence_time,
            slots=slots,
        )
        tpot = mixed_queue.prefill_first_tpot(
            request_rate=rate * others, fixed_time=fixed_time, own_time=0, load=load, prompts_per_step=batch
        )
        ttft = mixed_queue.prefill_first_ttft(
            request_rate=rate * others,
            fixed_time=fixed_time,
            tpot=tpot,
            running=clients - 1,
            prompt_time=prompt_time,
            prompt_scv=prompt_scv,
            prompts_per_step=batch,
            slots=slots,
            arrival_scv=1,
        )
        return delay + ttft + decode_tokens * tpot

    return _rate(clients, 1 / (prompt_time + decode_tokens * sequence_time), stay)


def first_wave_ttft(
    *, clients: Count, fixed_time: Seconds, prompt_time: Seconds, sequence_time: Seconds, slots: Count
) -> Seconds:
    r"""Mean time to first token of N prompts that come at once to an empty engine, n of them a step.

    .. math:: F_1 = (a + w n)\,\frac{M + 1}{2} + e\,n\,\frac{M^2}{6},\quad M = N / n,\ n \le N

    ``sequence_time`` is 0 where prompts go first; else those of earlier steps run along.
    Source: mean of arithmetic series.

    Four steps of one prompt: 1, 2, 3 and 4 times as long.

    >>> first_wave_ttft(clients=4, fixed_time=0.0, prompt_time=1.0, sequence_time=0.0, slots=1)
    2.5
    """
    whole = where(greater(slots, clients), clients, slots)
    steps = clients / whole
    rising = sequence_time * whole * steps * steps / 6
    return (fixed_time + prompt_time * whole) * (steps + 1) / 2 + rising


def benchmark_ttft(*, steady: Seconds, first_wave: Seconds, waves: Count) -> Seconds:
    r"""Mean time to first token that a closed benchmark reports: its first wave came all at once.

    .. math:: F = F_s + \frac{F_1 - F_s}{W}

    ``waves`` is requests over clients.  The wave comes round again where outputs are nearly alike: errs low
    by up to 10 %.
    Source: definition.

    >>> benchmark_ttft(steady=0.1, first_wave=1.1, waves=10)
    0.2
    """
    return steady + (first_wave - steady) / maximum(waves, 1)
