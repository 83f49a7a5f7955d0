"""Expected extremes and spreads of loads that are random by nature."""

from perfmodel.algebra import Num, greater, maximum, normal_quantile, sqrt, where
from perfmodel.units import Count, Dimensionless, Fraction

#: half of the range that holds 90 % of a normal, in standard deviations
HALF_OF_90_PERCENT = 1.645


def largest_normal(*, count: Count) -> Dimensionless:
    r"""Expected largest of ``count`` independent standard normals.

    .. math:: z = \Phi^{-1}\!\left(\frac{n - 3/8}{n + 1/4}\right)

    Within 0.75 % for 8 to 512; zero for one.  Source: [blom1958] chapter 6.

    >>> round(largest_normal(count=288), 2)
    2.85
    """
    return normal_quantile((count - 3 / 8) / (count + 1 / 4))


def student_quantile(*, probability: Fraction) -> Dimensionless:
    r"""Quantile of Student's t with six degrees of freedom.

    .. math:: t = \operatorname{sgn}(p - \tfrac12)\sqrt{P - 6},\quad
        \frac{135}{P^3} + \frac{303.75}{P^4} + \frac{1093.5}{P^5} = \alpha = 4p(1 - p)

    A bell with heavier tails than a normal's: of few sources on file none tells how far the next may lie.  The left
    side falls and is convex, so Newton's steps from P = 6 rise to the root; twenty leave no error above round-off for
    probabilities from 0.0001 to 0.9999.

    Source: [shaw2006] section 2, for an even number of degrees.

    95 % lie below 1.94, where a normal has 1.64.

    >>> round(student_quantile(probability=0.95), 3)
    1.943
    """
    alpha = 4 * probability * (1 - probability)
    square: Num = 6.0 + 0 * alpha
    for _ in range(20):
        each = 1 / square
        cube = each * each * each
        value = cube * (135 + each * (303.75 + each * 1093.5))
        slope = -cube * each * (405 + each * (1215 + each * 5467.5))
        square = square - (value - alpha) / slope
    size = sqrt(maximum(square - 6, 0))
    return where(greater(0.5, probability), -size, size)


def length_spread(*, osl: Count) -> Count:
    r"""Standard deviation of a running request's context: its progress is uniform over the output.

    .. math:: \sigma = s_\mathrm{out} / \sqrt{12}

    Source: variance of the uniform distribution.

    >>> round(length_spread(osl=2048))
    591
    """
    return osl / sqrt(12)


def largest_context_sum(*, sequences: Count, mean: Count, spread: Count, ranks: Count) -> Count:
    r"""Expected largest sum of contexts over data-parallel ranks.

    .. math:: S = b\,\mu + z(n)\,\sigma\,\sqrt{b}

    Assumes independent progress of the requests of a rank; errs high where a scheduler balances
    ranks by tokens.  Source: central limit, [blom1958].

    60 requests, 2K in and 2K out, 288 ranks: about 7 % over the mean.

    >>> s = largest_context_sum(sequences=60, mean=3072, spread=591, ranks=288)
    >>> round(s / (60 * 3072), 2)
    1.07
    """
    return sequences * mean + largest_normal(count=ranks) * spread * sqrt(sequences)


def occupancy_bound(*, sequences: Count, mean: Count, spread: Count, sigmas: Count) -> Count:
    r"""Sum of contexts that a rank stays below but for a tail of ``sigmas`` deviations.

    .. math:: S = b\,\mu + k\,\sigma\,\sqrt{b}

    Source: central limit.

    >>> occupancy_bound(sequences=100, mean=2000, spread=500, sigmas=3)
    215000.0
    """
    return sequences * mean + sigmas * spread * sqrt(maximum(sequences, 0))


def interval_score(*, low: Dimensionless, high: Dimensionless, value: Dimensionless, alpha: Fraction) -> Dimensionless:
    r"""Score of a central interval of probability ``1 - alpha``; the smaller, the better.

    .. math:: S = (u - l) + \frac{2}{\alpha}\,(l - x)^+ + \frac{2}{\alpha}\,(x - u)^+

    Width, and a penalty for what lies outside: neither a wide nor a bold interval pays.  Divide ends and
    value by the value measured to make rows alike.

    Source: [gneiting2007] equation 43.

    Inside, it is the width; 0.1 outside a 90 % interval costs 2 more.

    >>> round(interval_score(low=0.9, high=1.2, value=1.0, alpha=0.1), 9)
    0.3
    >>> round(interval_score(low=1.1, high=1.4, value=1.0, alpha=0.1), 9)
    2.3
    """
    return (high - low) + 2 / alpha * (maximum(low - value, 0) + maximum(value - high, 0))
