"""How long is the mean prompt at a prefill pool, for arrays of plans: to rank and to prune.

An instance has R ranks in step: a step lasts a + the busiest rank's work and starts as soon as a prompt waits.  The
distribution is in :mod:`numeric.prefill`.
"""

import math
from typing import cast

from perfmodel.algebra import Num, exp, greater, log, maximum, minimum, sqrt, where
from perfmodel.formulas.queues import slot_wait_share
from perfmodel.units import Count, Dimensionless, Fraction, PerSecond, Seconds

_ROUNDS = 8
_STAIRS = 3
_LOGISTIC = 1.702
_LARGEST_POWER = 50
_LEAST = 1e-9
_INFINITE = cast(Num, math.inf)


def _above(distance: Num) -> Num:
    """Return the share of a normal below a distance in deviations, within 0.01 (logistic)."""
    return 1 / (1 + exp(maximum(minimum(-_LOGISTIC * distance, _LARGEST_POWER), -_LARGEST_POWER)))


def prompts_of_busiest(*, prompts: Count, variance: Count, ranks: Count) -> Count:
    r"""Mean prompts of the fullest rank where a random number goes to R ranks in turn.

    .. math:: E\lceil k / R \rceil = 1 + \sum_{j \ge 1} \Pr(k > j R)

    The number as a normal of this mean and variance, at least 1; three stairs, a slope of 1 / R beyond.
    Source: tail sum of a mean.

    Twelve on eight ranks, known exactly: two.

    >>> round(prompts_of_busiest(prompts=12.0, variance=0.1, ranks=8), 3)
    2.0
    """
    deviation = sqrt(maximum(variance, _LEAST))
    fullest: Num = 1
    for stair in range(1, _STAIRS + 1):
        fullest = fullest + _above((prompts - stair * ranks - 1 / 2) / deviation)
    beyond = (prompts - (_STAIRS + 1 / 2) * ranks - 1 / 2) / deviation
    power = maximum(minimum(_LOGISTIC * beyond, _LARGEST_POWER), -_LARGEST_POWER)
    slope = where(greater(_LARGEST_POWER, power), log(1 + exp(power)) / _LOGISTIC, beyond)
    return fullest + slope * deviation / ranks


def prefill_utilisation(
    *, request_rate: PerSecond, fixed_time: Seconds, prompt_time: Seconds, slots: Count
) -> Dimensionless:
    r"""Share of an instance's capacity in use, where full steps of ``slots`` prompts a rank follow each other.

    .. math:: \rho = \frac{\lambda\,(a + w K)}{R\,K}

    ``request_rate`` is of one rank, lambda / R.  Equal prompts; spread ones fill ranks unevenly, see
    :func:`numeric.prefill.pool_capacity`.  Source: utilisation law [little1961].

    >>> prefill_utilisation(request_rate=2.0, fixed_time=0.1, prompt_time=0.2, slots=4)
    0.45
    """
    return request_rate * (fixed_time + prompt_time * slots) / slots


def prefill_ttft(
    *,
    request_rate: PerSecond,
    fixed_time: Seconds,
    prompt_time: Seconds,
    prompt_scv: Dimensionless,
    ranks: Count,
    slots: Count,
    dispersion: Dimensionless,
) -> Seconds:
    raise NotImplementedError
