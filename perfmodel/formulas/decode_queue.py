"""How many requests run in a decode pool, and how fast each of them gets its tokens.

A step lasts as long as its busiest rank: a + e n of that rank, where e is the time of one running sequence,
b + d times its context.  Requests join at the next step; all wait for slots is left to :mod:`queues`.
"""

import math
from typing import cast

from perfmodel.algebra import Num, exp, greater, log, maximum, normal_quantile, sqrt, where
from perfmodel.formulas.statistics import largest_normal
from perfmodel.units import Count, Dimensionless, Fraction, PerSecond, Seconds

_ROUNDS = 2
_LEAST = 1e-9
_GUMBEL = math.pi * math.pi / 6


def running_context(*, mean_output: Count, mean_input_output: Count, mean_square_output: Count) -> Count:
    r"""Mean context of a request that runs: long answers are met more often, half done.

    .. math:: \bar c = \frac{E(i\,o)}{E(o)} + \frac{E(o^2)}{2\,E(o)}

    Steps of one length; errs neither way for correlated lengths, as E(i o) is asked for.
    Source: length-biased sampling of a renewal process, [kleinrock1975] chapter 5.

    4096 in and 1024 out, all alike: input and half of the output.

    >>> running_context(mean_output=1024, mean_input_output=4096 * 1024, mean_square_output=1024 * 1024)
    4608.0
    """
    return (mean_input_output + mean_square_output / 2) / mean_output


def running_context_variance(
    *,
    mean_output: Count,
    mean_square_input_output: Count,
    mean_input_square_output: Count,
    mean_cube_output: Count,
    context: Count,
) -> Count:
    r"""Variance of the context of a request that runs; ``context`` is its mean.

    .. math:: v = \frac{E(i^2 o) + E(i\,o^2) + E(o^3)/3}{E(o)} - \bar c^2

    Source: length-biased sampling of a renewal process, [kleinrock1975] chapter 5.

    No input and equal outputs leave the uniform distribution, a twelfth of the square:

    >>> running_context_variance(mean_output=12, mean_square_input_output=0, mean_input_square_output=0,
    ...                          mean_cube_output=12 * 12 * 12, context=6)
    12.0
    """
    second = (mean_square_input_output + mean_input_square_output + mean_cube_output / 3) / mean_output
    return maximum(second - context * context, 0)


def requests_met(*, arrival_scv: Dimensionless, shared_life: Dimensionless) -> Dimensionless:
    r"""Requests that one brings along over its life, itself included: its burst runs beside it.

    .. math:: 1 + (c_a^2 - 1)\,\frac{E\min(o, o')}{E(o)}

    ``shared_life`` is that last quotient, 1 for equal outputs.  Bursts as geometric batches; for ``arrival_scv``
    below 1 the neighbours keep away.  Source: batch size that a member sees, [kleinrock1975] chapter 5.

    >>> requests_met(arrival_scv=4.0, shared_life=1.0)
    4.0
    """
    return 1 + (arrival_scv - 1) * shared_life


def largest_normal_variance(*, count: Count) -> Dimensionless:
    r"""Variance of the largest of ``count`` independent standard normals.

    .. math:: v = \frac{\pi^2 / 6}{2\ln n + \pi^2 / 6}

    Gumbel's limit, held to 1 at one; up to 25 % low between (0.54 for 0.68 at 2, 0.23 for 0.30 at 16).
    Source: [gumbel1958].

    >>> largest_normal_variance(count=1)
    1.0
    """
    return _GUMBEL / (2 * log(count) + _GUMBEL)


def sequence_scv(*, token_time: Seconds, context_variance: Count, sequence_time: Seconds) -> Dimensionless:
    r"""Squared variation of the time that one running sequence takes of a step.

    .. math:: \kappa = \frac{d^2\,v}{e^2}

    Source: definition.

    >>> sequence_scv(token_time=1.0, context_variance=9.0, sequence_time=6.0)
    0.25
    """
    return token_time * token_time * context_variance / (sequence_time * sequence_time)


def decode_tpot(
    *,
    request_rate: PerSecond,
    decode_tokens: Count,
    fixed_time: Seconds,
    sequence_time: Seconds,
    sequence_scv: Dimensionless,
    ranks: Count,
    met: Dimensionless,
    count_variance: Fraction,
) -> Seconds:
    r"""Mean time between tokens over requests, of a pool whose batch is what arrivals make it.

    .. math::

        t = a + e\,\Bigl(n + \frac{m}{R} + h + z\sqrt{\kappa n} + \frac{z^2 + v_z - 1}{3}\,\kappa\,q\Bigr),\quad
        n = \frac{\lambda\,E(o - 1)\,t}{R}

    R ranks in step; m of :func:`requests_met`; z and v_z mean and variance of the largest of R normals, on a gamma
    sum of sequences (its first term beyond the normal); h is what the fullest rank has above its share where each
    request goes to the rank that runs fewest, one half, all of its own request where few run; q = 1 - exp(-2 n).
    ``count_variance`` is 0 for such routing, else the variance of a rank's number over its mean: 1 at random,
    1 - (int S^2) / (int S) of the lives' survival S in turn (1 / 2 for exponential lives).
    A quadratic in the square root of n, of which h and q are put in again, twice.
    Infinite where the sequences alone fill the time.  No wait for slots; errs low where load drifts.

    Source: [little1961]; [cornish1938] for the gamma; [blom1958] for z.

    One rank at half load: twice the bare step.

    >>> t = decode_tpot(request_rate=5.0, decode_tokens=100, fixed_time=0.019, sequence_time=0.001,
    ...                 sequence_scv=0.0, ranks=1, met=1.0, count_variance=0.0)
    >>> round(t, 6)
    0.04
    """
    per_rank = request_rate * decode_tokens / ranks
    load = per_rank * sequence_time
    free = greater(1, load)
    spare = where(free, 1 - load, 1)
    largest = largest_normal(count=ranks)
    spread = sequence_scv + count_variance
    slope = largest * sequence_time * sqrt(spread)
    skewed = sequence_time * (largest * largest + largest_normal_variance(count=ranks) - 1) / 3 * spread
    uneven = sequence_time * (1 - count_variance) * (1 - 1 / ranks) / 2
    base = fixed_time + sequence_time * met / ranks + uneven
    half = per_rank * slope / 2
    few = exp(-2 * per_rank * base / spare)
    time: Num = base
    for _ in range(_ROUNDS):
        bare = maximum(base + uneven * few + skewed * (1 - few), fixed_time)
        root = (half + sqrt(half * half + spare * per_rank * bare)) / spare
        running = root * root
        time = bare + sequence_time * running + slope * root
        few = exp(-2 * running)
    return where(free, time, cast(Num, math.inf))


def decode_tpot_spread(
    *,
    tpot: Seconds,
    request_rate: PerSecond,
    decode_tokens: Count,
    fixed_time: Seconds,
    sequence_time: Seconds,
    sequence_scv: Dimensionless,
    ranks: Count,
    arrival_scv: Dimensionless,
    count_variance: Fraction,
) -> Seconds:
    r"""Standard deviation over requests of the mean time between a request's tokens.

    .. math::

        \sigma^2 = \frac{t}{a}\,\Bigl(\frac{e^2}{R^2}\,N\,\frac{1 + c_a^2}{2}\,\bigl(1 - \frac{a}{3 t}\bigr)
        + e^2\,n\,\kappa\,v_z\,\bigl(1 - \frac1R\bigr)\Bigr), \quad N = \lambda\,E(o - 1)\,t

    The number running varies as arrivals do, and more by t / a, as a slower step keeps requests longer; averaged over
    a life (two thirds of the variance is left of equal lives without load).  The busiest rank's sum of contexts adds
    Gumbel's variance.  Errs low for contexts of heavy tails: p99 of lognormal ones by 7 %.

    Source: [kleinrock1975] chapter 3 for the number, linearised about its mean; [gumbel1958] for the largest.

    >>> sigma = decode_tpot_spread(tpot=0.04, request_rate=5.0, decode_tokens=100, fixed_time=0.02,
    ...     sequence_time=0.001, sequence_scv=0.0, ranks=1, arrival_scv=1.0, count_variance=0.0)
    >>> round(sigma * 1e3, 2)
    5.77
    """
    finite = greater(math.inf, tpot)
    time = where(finite, tpot, fixed_time)
    per_rank = request_rate * decode_tokens * time / ranks
    bursts = (1 + arrival_scv) / 2 * (1 - fixed_time / (3 * time)) / ranks
    top = (sequence_scv + count_variance) * largest_normal_variance(count=ranks) * (1 - 1 / ranks)
    spread = sequence_time * sqrt(time / fixed_time * per_rank * (bursts + top))
    return where(finite, spread, cast(Num, math.inf))


def decode_tpot_percentile(*, probability: Fraction, fixed_time: Seconds, tpot: Seconds, spread: Seconds) -> Seconds:
    r"""Time between tokens that a share of the requests stays below.

    .. math:: t_p = a + (t - a)\,\Bigl(1 - \frac{r^2}{9} + \frac{z_p\,r}{3}\Bigr)^3, \quad r = \frac{\sigma}{t - a}

    A gamma above the step of an empty pool; infinite where the mean is.  Source: [wilson1931].

    >>> round(decode_tpot_percentile(probability=0.99, fixed_time=0.02, tpot=0.04, spread=0.005), 4)
    0.0534
    """
    finite = greater(math.inf, tpot)
    above = where(finite, maximum(tpot - fixed_time, _LEAST * fixed_time), fixed_time)
    relative = where(finite, spread, 0) / above
    root = maximum(1 - relative * relative / 9 + normal_quantile(probability) * relative / 3, 0)
    return where(finite, fixed_time + above * root * root * root, cast(Num, math.inf))
