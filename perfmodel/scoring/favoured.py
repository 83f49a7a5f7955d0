"""Which case of open conditions the data favour: weights as stated, and given what was measured."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

from perfmodel.algebra import as_float
from perfmodel.scoring.spreads import FREEDOM
from perfmodel.scoring.validation import Published, predictive, turned


@dataclass(frozen=True, slots=True, kw_only=True)
class FavouredCase:
    """One case of a row: what it is, its error with above slow, and its weights before and after the measurement."""

    row: str
    case: str
    error: float
    stated: float
    given: float


def favoured(row: Published) -> Iterator[FavouredCase]:
    """Yield the cases of a row by the first quantity measured; none where nothing is open.

    A case is as likely as its weight times the density of its error, Student's t of the spreads of what the model
    leaves out and of the stated ranges.  It tells which case to look into: weights in files stay as they were stated.
    """
    if not row.cases:
        return
    measured = row.spec.measured[0]
    spreads = getattr(row.machine.terms.spec.left_out, row.spec.measured_on)
    found = []
    for weight, words, one in row.cases:
        known = predictive(one)
        slow = 1 + turned(measured.quantity, known.values[measured.quantity] / measured.value - 1)
        ranges = float(np.std(np.log(known.ranges[measured.quantity])))
        scale = float(np.hypot(np.hypot(as_float(spreads.source), as_float(spreads.row)), ranges))
        found.append((words, slow - 1, weight, weight * float(stats.t.pdf(np.log(slow), FREEDOM, scale=scale))))
    whole = sum(density for *_, density in found)
    for words, error, weight, density in found:
        yield FavouredCase(row=row.name, case=words, error=error, stated=weight, given=density / whole)
