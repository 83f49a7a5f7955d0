"""What one measured row buys: errors of a source's other numbers before and after one of its rows is known."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from perfmodel.scoring.site import SiteRow, learnt_from


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenOne:
    """Errors of the numbers of one source, run and phase, each predicted from every other row of it in turn."""

    source: str
    #: model, system and stack: a source may tell of several
    run: str
    phase: str
    quantity: str
    measured_on: str
    #: numbers, and predictions of them: one for each other row that tells something
    numbers: int
    pairs: int
    #: mean absolute error without a row of the source, and given one
    before: float
    after: float
    #: part of the 90 % intervals given one row that hold, and their mean half-width over the prediction
    inside90: float
    half: float


def given_one(rows: Sequence[SiteRow]) -> list[GivenOne]:
    """Return what one row buys for each source, run, phase and kind of quantity that has two rows or more.

    ``rows`` are predicted as if their source had never been read.
    """
    found = []
    for (source, run, phase, rate, on), some in groupby(sorted(rows, key=_group), key=_group):
        predicted = list(some)
        here = (source, run, phase, on)
        telling = [row for row in rows if (row.source, row.run, row.phase, row.measured_on) == here and row.tells]
        each = [pair for row in predicted for pair in _pairs(row, telling)]
        if not each:
            continue
        table = np.array(each)
        found.append(
            GivenOne(
                source=source,
                run=run,
                phase=phase,
                quantity="rate" if rate else "time",
                measured_on=on,
                numbers=len(predicted),
                pairs=len(each),
                before=float(np.mean([abs(np.expm1(-row.error)) for row in predicted])),
                after=float(np.abs(np.expm1(table[:, 0])).mean()),
                inside90=float(table[:, 1].mean()),
                half=float(table[:, 2].mean()),
            )
        )
    return found


def _group(row: SiteRow) -> tuple[str, str, str, bool, str]:
    return row.source, row.run, row.phase, not row.tells, row.measured_on


def _pairs(row: SiteRow, telling: Sequence[SiteRow]) -> Iterator[tuple[float, bool, float]]:
    """Yield for each other row: the error given it as a logarithm, whether the 90 % interval holds, its half-width."""
    for other in telling:
        if other.name == row.name:
            continue
        site, factors = learnt_from([other], row.spreads, row.measured_on)
        factor = np.log(factors[row.phase])
        samples: NDArray[np.float64] = row.ranges[site.order] + site.luck[row.phase]
        low, high = np.quantile(samples, (0.05, 0.95))
        yield (
            float(factor - row.error),
            bool(low <= row.error <= high),
            float(np.exp(high - factor) - np.exp(low - factor)) / 2,
        )
