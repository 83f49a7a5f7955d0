"""How much the model leaves out, as told by published numbers predicted without their source."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import lgamma, log, pi
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from perfmodel.specs.evidence import LeftOutOf

#: degrees of Student's t: tails above a normal's, for few sources are on file; misses on file are likelier the more
#: there are (by e^1.2 with six against four, e^2.9 with a normal), and a study on fewer rows took four to six
FREEDOM = 6
LEAST, MOST = 0.005, 1.5  # of a spread that is searched
#: middle of what a spread is taken for before anything is left out, a factor e either way one standard deviation: few
#: sources would else be fitted by no spread between them at all
USUAL = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Miss:
    """By how much one number was missed: logarithm of measured over predicted time, and what its ranges allow."""

    measured_on: str
    source: str
    error: float
    #: standard deviation of the logarithm over the stated ranges, what is left out apart
    ranges: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedSpread:
    """Spreads of sources and of their rows for one way of measuring, and what they were fitted to."""

    measured_on: str
    source: float
    row: float
    rows: int
    sources: int


def likelihood(blocks: Iterable[Sequence[Miss]], source: float, row: float) -> float:
    r"""Return the log-likelihood of misses, one block for each source, under two spreads.

    Misses of a source are together a multivariate Student's t: of scale
    :math:`\Sigma = r^2 I + (s^2 + \sigma_i \sigma_j)`, with ``FREEDOM`` degrees: rows of a source share its machine, so
    what the ranges of its numbers allow moves them together.  Blocks are independent.
    """
    total = 0.0
    for block in blocks:
        n = len(block)
        errors = np.array([one.error for one in block])
        ranges = np.array([one.ranges for one in block])
        scale = row**2 * np.eye(n) + source**2 + np.outer(ranges, ranges)
        _, logdet = np.linalg.slogdet(scale)
        square = float(errors @ np.linalg.solve(scale, errors))
        total += lgamma((FREEDOM + n) / 2) - lgamma(FREEDOM / 2) - n / 2 * log(FREEDOM * pi) - logdet / 2
        total -= (FREEDOM + n) / 2 * log(1 + square / FREEDOM)
    return total


def fit_spreads(misses: Sequence[Miss]) -> dict[str, FittedSpread]:
    """Return the likeliest spreads given the misses and ``USUAL``, for each way of measuring that has some."""
    from scipy.optimize import minimize

    found = {}
    for kind in get_args(LeftOutOf):
        blocks = blocks_of([one for one in misses if one.measured_on == kind])
        if not blocks:
            continue

        def cost(logs: NDArray[np.float64], blocks: Mapping[str, Sequence[Miss]] = blocks) -> float:
            source, row = np.exp(logs).tolist()
            return -likelihood(blocks.values(), source, row) + float(np.sum((logs - log(USUAL)) ** 2)) / 2

        best = minimize(cost, np.log([0.1, 0.1]), method="Nelder-Mead", bounds=[(log(LEAST), log(MOST))] * 2)
        source, row = np.exp(best.x).tolist()
        rows = sum(map(len, blocks.values()))
        found[kind] = FittedSpread(measured_on=kind, source=source, row=row, rows=rows, sources=len(blocks))
    return found


def blocks_of(misses: Iterable[Miss]) -> dict[str, list[Miss]]:
    """Return misses by source."""
    blocks: dict[str, list[Miss]] = {}
    for one in misses:
        blocks.setdefault(one.source, []).append(one)
    return blocks
