"""Scores of operators and links alone, with the parameters on file and with ones fitted without a shape."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perfmodel.measured.shapes import Measurement
from perfmodel.scoring.calibration import TooFewRows, by_dies, dies_of, fit
from perfmodel.scoring.operator_errors import Rows, Spread, Values, by_kernel, check_units, spread_of
from perfmodel.supply.rates import Rates


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Errors of one operator of one set of measurements, or of all its operators together."""

    operator: str
    rows: int
    shapes: int
    #: with the parameters on file
    shipped: Spread
    #: with parameters fitted without the row's shape; nothing where the rows are too few
    across: Spread | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DieScore:
    """Errors of the links of one set of measurements on one number of dies, by fits that saw none of these rows."""

    dies: int
    rows: int
    out: Spread


def die_scores(measured: Sequence[Measurement], rates: Rates) -> list[DieScore]:
    """Return one score for each number of dies, all operations together; none where nothing is left to fit to."""
    errors: dict[int, list[float]] = {}
    where: dict[int, list[str]] = {}
    for name, rows in by_kernel(measured).items():
        if rows[0].op.exchange is None:
            continue
        found = by_dies(name, rows, rates.kernels[name], rates)
        for row, error in zip(rows, () if found is None else found, strict=found is not None):
            errors.setdefault(dies_of(row), []).append(float(error))
            where.setdefault(dies_of(row), []).append(row.where)
    return [
        DieScore(dies=dies, rows=len(errors[dies]), out=spread_of(np.array(errors[dies]), where[dies]))
        for dies in sorted(errors)
    ]


def _word(row: Measurement) -> str:
    return row.op.exchange.collective if row.op.exchange else row.op.kernel


def scores(measured: Sequence[Measurement], rates: Rates, ideal: Rates, *, held_out: bool) -> list[Score]:
    """Return one score for each operator, and one for all where there are several."""
    words: list[str] = []
    shipped: list[Values] = []
    across: list[Values] = []
    ordered: list[Measurement] = []
    for name, rows in by_kernel(measured).items():
        stacked = Rows(rows)
        check_units(name, stacked, ideal)
        shipped.append(stacked.predicted(rates) / stacked.times - 1)
        across.append(np.full(len(rows), np.nan))
        if held_out:
            try:
                errors = fit(name, rows, rates.kernels[name], rates, ideal).errors_across
            except TooFewRows:
                errors = None
            if errors is not None:
                across[-1] = errors
        ordered += rows
        words += [_word(row) for row in rows]
    errors_shipped, errors_across = np.concatenate(shipped), np.concatenate(across)
    where = [row.where for row in ordered]

    def score(word: str, places: list[int]) -> Score:
        chosen = [where[i] for i in places]
        out = errors_across[places]
        return Score(
            operator=word,
            rows=len(places),
            shapes=len({ordered[i].shape for i in places}),
            shipped=spread_of(errors_shipped[places], chosen),
            across=None if np.isnan(out).any() else spread_of(out, chosen),
        )

    found = [score(w, [i for i, word in enumerate(words) if word == w]) for w in dict.fromkeys(words)]
    return [*found, score("all", list(range(len(words))))] if len(found) > 1 else found
