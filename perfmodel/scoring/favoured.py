"""Which case of open conditions the data favour: weights as stated, and given what was measured."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import exp

import numpy as np

from perfmodel.algebra import as_float
from perfmodel.scoring.spreads import Miss, likelihood
from perfmodel.scoring.validation import Predictive, Published, turned


@dataclass(frozen=True, slots=True, kw_only=True)
class FavouredCase:
    """One case of a row: what it is, its error with above slow, and its weights before and after the measurement."""

    row: str
    case: str
    error: float
    stated: float
    given: float


def favoured(row: Published, known: Predictive) -> Iterator[FavouredCase]:
    """Yield the cases of a row by the first quantity measured; none where nothing is open.

    A case is as likely as its weight times the density of its error, Student's t of the spreads of what the model
    leaves out and of the stated ranges.  It tells which case to look into: weights in files stay as they were stated.
    ``known`` is what is predicted of the row.
    """
    if not row.cases:
        return
    measured, on = row.spec.measured[0], row.spec.measured_on
    spreads = getattr(row.machine.terms.spec.left_out, on)
    found = []
    for values, ranges in known.each:
        slow = 1 + turned(measured.quantity, values[measured.quantity] / measured.value - 1)
        spread = float(np.std(np.log(ranges[measured.quantity])))
        miss = Miss(measured_on=on, source=row.source, error=float(np.log(slow)), ranges=spread)
        found.append((slow - 1, likelihood([[miss]], as_float(spreads.source), as_float(spreads.row))))
    weights = [weight * exp(density) for (weight, _, _), (_, density) in zip(row.cases, found, strict=True)]
    for (stated, words, _), (error, _), weight in zip(row.cases, found, weights, strict=True):
        yield FavouredCase(row=row.name, case=words, error=error, stated=stated, given=weight / sum(weights))
