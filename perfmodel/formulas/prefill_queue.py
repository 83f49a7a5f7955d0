"""How long is the mean prompt at a prefill pool, for arrays of plans: to rank and to prune.

An instance has R ranks in step: a step lasts a + the busiest rank's work and starts as soon as a prompt waits.  The
distribution is in :mod:`numeric.prefill`.
"""

import math
from typing import cast

from perfmodel.algebra import Num, exp, greater, log, maximum, minimum, sqrt, where
from perfmodel.units import Count, Dimensionless, PerSecond, Seconds

_ROUNDS = 3
_STAIRS = 3
_LOGISTIC = 1.702
_LARGEST_POWER = 50
_LEAST = 1e-9
_MOST = 0.99
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


def renewal_dispersion(*, arrivals: Count, arrival_scv: Dimensionless) -> Dimensionless:
    r"""Variance over mean of the number that comes in a window which holds ``arrivals`` on average.

    .. math:: I = 1 + (c_a^2 - 1)\,\frac{x}{x + (c_a^2 + 1) / 6}

    Gamma gaps: its first two terms for long windows, 1 for none; between, an interpolation, up to 16 % low.
    Source: [cox1962] chapter 4 for the long window.

    >>> renewal_dispersion(arrivals=10.0, arrival_scv=1.0)
    1.0
    """
    return 1 + (arrival_scv - 1) * arrivals / (arrivals + (arrival_scv + 1) / 6)


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
    r"""Mean time from arrival to the end of one's prefill step, at an instance whose ranks are in step.

    .. math::

        F = f\,(a + w)\,\bigl(1 + \tfrac{m}{2}\bigr) + (1 - f)\,\Bigl(a + w\,c(\lambda X_b + I - g)
            + \bigl(1 - \tfrac1n\bigr)\tfrac{X_b}{2}\Bigr) + Q,\quad n = K R,\quad m = \tfrac{I - 1}{2}

        X = a + w\,c(k),\quad k = \lambda X + (1 + m)\,e^{-\lambda X / (1 + m)},\quad
        f = \frac{e^{-\lambda X / (1 + m)}}{k},\quad X_b = X + \frac{\operatorname{var} X}{X}

        Q = X_n\,\frac{I + c_p^2 / K}{2\,n\,(1 - \rho)}\,\Bigl(\tfrac1K\,\rho^{(\sqrt{2(n + 1)} - 1) / I}
            + \bigl(1 - \tfrac1K\bigr)\,\rho\,e^{-2 n (1 - \rho) / I}\Bigr)

    X is the mean step (iterated), c of :func:`prompts_of_busiest`, f the chance to find the instance idle, m the others
    of a burst on one side, g = f m / (1 - f) the share whose burst has begun before.  X_b is the step that one meets:
    numbers in successive steps feed back by s = lambda w / R, so var X = (w / R)^2 I (k - 1) / (1 - s^2), held below
    (X - a - w)(X_n - X).  Q waits for full steps of X_n = a + w K; its powers were shaped on the chain of
    :mod:`numeric.prefill`, not derived.  ``request_rate`` is the instance's.
    In range: equal prompts that divide the budget, dispersion I up to 4, load to 0.9.  Against the chain 5 % mean
    error, 15 % in nine of ten cases, else high by up to 20 %.  Infinite from a load of 1 on.

    Source: balance of steps; [sakasegawa1977] and heavy traffic, [kleinrock1976] chapter 2, for full steps.

    Hardly any load: a step of one's own.

    >>> round(prefill_ttft(request_rate=1e-6, fixed_time=0.1, prompt_time=0.4, prompt_scv=0.0, ranks=4, slots=2,
    ...                    dispersion=1.0), 4)
    0.5
    """
    places = ranks * slots
    full = fixed_time + prompt_time * slots
    load = request_rate * full / places
    bare = fixed_time + prompt_time
    mates = maximum(dispersion - 1, 0) / 2
    feedback = request_rate * prompt_time / ranks
    steady = maximum(1 - feedback * feedback, _LEAST)
    even = fixed_time + prompt_time * (1 - 1 / ranks) / 2
    step: Num = minimum(maximum(even / maximum(1 - feedback, _LEAST), bare), full)
    for _ in range(_ROUNDS):
        come = request_rate * step
        none = exp(-minimum(come / (1 + mates), _LARGEST_POWER))
        batch = come + none * (1 + mates)
        variance = dispersion * maximum(batch - 1, 0) / steady
        fullest = prompts_of_busiest(prompts=batch, variance=variance, ranks=ranks)
        found = fixed_time + prompt_time * minimum(fullest, slots)
        step = step + (found - step) / (1 - minimum(feedback, _MOST) * (1 - none))
        step = minimum(maximum(step, bare), full)
    come = request_rate * step
    none = exp(-minimum(come / (1 + mates), _LARGEST_POWER))
    batch = come + none * (1 + mates)
    first = none / batch
    varied = prompt_time * prompt_time / (ranks * ranks) * dispersion * maximum(batch - 1, 0) / steady
    room = maximum((step - bare) * (full - step), 0)
    met = step + varied * room / maximum(varied + room, _LEAST * step * step) / step
    behind = minimum(first * mates / maximum(1 - first, _LEAST), 1)
    beside = request_rate * met + dispersion - behind
    shared = prompts_of_busiest(prompts=beside, variance=dispersion * request_rate * met, ranks=ranks)
    own = fixed_time + prompt_time * minimum(shared, slots) + (1 - 1 / places) * met / 2
    few = exp((sqrt(2 * (places + 1)) - 1) / dispersion * log(maximum(load, _LEAST)))
    many = exp(-2 * places * maximum(1 - load, 0) / dispersion)
    heavy = full * (dispersion + prompt_scv / slots) / (2 * places * maximum(1 - load, _LEAST))
    queue = heavy * (few + (slots - 1) * load * many) / slots
    burst = first * mates * bare / 2
    return where(greater(1, load), first * bare + (1 - first) * own + burst + queue, _INFINITE)
