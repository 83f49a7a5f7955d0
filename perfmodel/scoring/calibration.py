"""Measured operators -> the parameters of their kernels, and how well these predict shapes held out."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, inf, log
from typing import Any, cast

import numpy as np

from perfmodel.algebra import as_float
from perfmodel.errors import DataError, UsageError
from perfmodel.formulas.statistics import HALF_OF_90_PERCENT
from perfmodel.measured.shapes import Measurement
from perfmodel.scoring.operator_errors import Rows, Spread, Values, check_units
from perfmodel.scoring.priors import PRIORS, Prior
from perfmodel.specs.kernels import Kernel, parameters
from perfmodel.supply.rates import Rates


class TooFewRows(DataError):
    """Measurements that are right, but too few to fit."""


ROW_SPREAD = 0.1  # relative error of one row that counts as one standard deviation; beyond it weighs less
UNFELT = 1e-4  # a parameter that no row feels more than this is held
ROWS_PER_PARAMETER = 2
LITTLE_NEWS = 0.8  # of the prior's spread; a parameter known no better was hardly measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A kernel with its fitted parameters, their 90 % ranges, and its errors."""

    name: str
    kernel: Kernel
    ranges: Mapping[str, tuple[float, float]]
    #: parameters of which the rows say little more than the prior, and those that stand at their bound
    mostly_prior: tuple[str, ...]
    at_bound: tuple[str, ...]
    rows: int
    shapes: int
    within: Spread
    #: on shapes held out, one at a time; nothing where there is one shape
    across: Spread | None
    #: predicted over measured less one, row by row, on shapes held out
    errors_across: Values | None


def _with(rates: Rates, name: str, kernel: Kernel) -> Rates:
    return replace(rates, kernels={**rates.kernels, name: kernel})


def _free(name: str, kernel: Kernel, rows: Rows, rates: Rates) -> list[str]:
    """Return the parameters that the rows feel; those the base holds outside the bounds stay there."""
    middle = rows.predicted(rates)
    free = []
    for parameter in PRIORS[type(kernel)]:
        value = float(parameters(kernel)[parameter])
        prior = PRIORS[type(kernel)][parameter]
        if not prior.low <= value <= prior.high:
            continue
        moved = kernel.model_copy(update={parameter: value * 1.1})
        change = np.abs(rows.predicted(_with(rates, name, moved)) / middle - 1)
        if change.max() > UNFELT:
            free.append(parameter)
    return free


def _solve(name: str, base: Kernel, free: list[str], rows: Rows, rates: Rates) -> tuple[Kernel, Any]:
    """Return the kernel of least robust squares of log errors and of distance from the priors.

    Two searches, from the priors and from the base kernel: switches of algorithm leave more than one hollow.
    """
    from scipy.optimize import least_squares

    priors = [PRIORS[type(base)][parameter] for parameter in free]
    centre = np.array([log(prior.value) for prior in priors])
    low, high = (np.array([log(end) for end in ends]) for ends in zip(*((p.low, p.high) for p in priors), strict=True))
    spreads = np.array([prior.spread for prior in priors])

    def kernel_at(point: Values) -> Kernel:
        return base.model_copy(update={p: float(v) for p, v in zip(free, np.exp(point), strict=True)})

    def residuals(point: Values) -> Values:
        errors = np.log(rows.predicted(_with(rates, name, kernel_at(point))) / rows.times)
        return np.concatenate([errors / ROW_SPREAD, (point - centre) / spreads])

    guess = np.array([log(float(parameters(base)[parameter])) for parameter in free])
    starts = [np.clip(point, low + 1e-6, high - 1e-6) for point in (centre, guess)]
    tries = [least_squares(residuals, point, bounds=(low, high), loss="soft_l1") for point in starts]
    found = min(tries, key=lambda one: float(one.cost))
    return kernel_at(found.x), found


def _spreads(free: list[str], found: Any) -> Values:
    """Return standard deviations of the logarithms of the parameters, from the curvature at the solution."""
    noise = max(1.0, 2 * found.cost / max(1, len(found.fun) - len(free)))
    return cast(Values, np.sqrt(np.diag(np.linalg.pinv(found.jac.T @ found.jac)) * noise))


def _at_bound(value: float, prior: Prior) -> bool:
    """Return whether a value stands at a bound, a share of 1 apart: no kernel is faster than its peak."""
    return value < prior.low * 1.001 or (prior.high != 1 and value > prior.high * 0.999)


def _ranges(free: list[str], found: Any, base: Kernel) -> dict[str, tuple[float, float]]:
    """Return 90 % ranges, cut at the bounds."""
    ranges = {}
    for parameter, middle, sigma in zip(free, found.x, _spreads(free, found), strict=True):
        prior = PRIORS[type(base)][parameter]
        ends = [exp(middle + sign * HALF_OF_90_PERCENT * min(sigma, 5.0)) for sign in (-1, 1)]
        ranges[parameter] = (max(prior.low, ends[0]), min(prior.high, ends[1]))
    return ranges


def _felt(name: str, base: Kernel, rows: Rows, rates: Rates, chosen: Sequence[str] = ()) -> list[str]:
    """Return the parameters to fit: of those chosen, by default of all, the ones that rows feel at the priors."""
    start = base.model_copy(
        update={
            p: prior.value
            for p, prior in PRIORS[type(base)].items()
            if prior.low <= float(parameters(base)[p]) <= prior.high and (not chosen or p in chosen)
        }
    )
    return [p for p in _free(name, start, rows, _with(rates, name, start)) if not chosen or p in chosen]


def fit(
    name: str,
    measured: Sequence[Measurement],
    base: Kernel,
    rates: Rates,
    ideal: Rates,
    chosen: Sequence[str] = (),
) -> Fitted:
    """Return a kernel fitted to measurements of its class.

    Bounded least squares of the logarithms of predicted over measured time with a soft-L1 loss, every
    parameter drawn to its prior.  What the base kernel holds outside the bounds (a start of zero, say)
    stays, and so do limits and links.
    ``chosen`` are the parameters to fit, by default all that the rows feel.
    Raises ``DataError`` for too few rows or times of another unit.
    """
    if type(base) not in PRIORS:
        raise UsageError(f"{name} has no parameters to fit")
    rows = Rows(measured)
    check_units(name, rows, ideal)
    free = _felt(name, base, rows, rates, chosen)
    if not free:
        raise DataError(f"{measured[0].where}: {name}: its rows feel none of the parameters to fit")
    needed = ROWS_PER_PARAMETER * max(1, len(free))
    if len(measured) < needed:
        raise TooFewRows(
            f"{measured[0].where}: {name}: {len(measured)} rows for {len(free)} parameters ({', '.join(free)}); "
            f"allowed: {needed} rows or more; measure more shapes, or fit fewer with --parameter NAME"
        )
    rates = _with(rates, name, base)
    kernel, found = _solve(name, base, free, rows, rates)
    within = rows.predicted(_with(rates, name, kernel))
    across = None
    if len({one.shape for one in measured}) > 1:
        across = held_out_predictions(name, base, free, rows, rates)
    return Fitted(
        name=name,
        kernel=kernel,
        ranges=_ranges(free, found, base),
        mostly_prior=tuple(
            parameter
            for parameter, sigma in zip(free, _spreads(free, found), strict=True)
            if sigma > LITTLE_NEWS * PRIORS[type(base)][parameter].spread
        ),
        at_bound=tuple(p for p in free if _at_bound(float(parameters(kernel)[p]), PRIORS[type(base)][p])),
        rows=len(measured),
        shapes=len({one.shape for one in measured}),
        within=rows.spread(within),
        across=None if across is None else rows.spread(across),
        errors_across=None if across is None else across / rows.times - 1,
    )


def by_dies(name: str, measured: Sequence[Measurement], base: Kernel, rates: Rates) -> Values | None:
    """Return the errors of each row of a link by a fit that saw no row of its number of dies, of no operation.

    Harder than whole shapes, one operation on so many dies: the other operations are left out there too.  A
    parameter that only the rows left out feel takes its prior; sizes read off a table are held.
    Nothing where there is one number of dies, or the rest of the rows are too few.
    """
    rows = Rows(measured)
    groups = [dies_of(row) for row in measured]
    free = _felt(name, base, rows, rates)
    fewest = len(groups) - max(groups.count(group) for group in groups)
    if len(set(groups)) == 1 or not free or fewest < ROWS_PER_PARAMETER * len(free):
        return None
    return held_out_predictions(name, base, free, rows, rates, by=dies_of) / rows.times - 1


def dies_of(row: Measurement) -> int:
    """Return the dies of a measured exchange, none of an operator of one die."""
    return 0 if row.op.exchange is None else int(as_float(row.op.exchange.group))


def _shape(row: Measurement) -> str:
    return row.shape


def held_out_predictions(
    name: str, start: Kernel, free: list[str], rows: Rows, rates: Rates, by: Callable[[Measurement], Hashable] = _shape
) -> Values:
    """Return each row predicted by a fit that saw no row of its shape, or of what ``by`` says of it."""
    result = np.full(len(rows.rows), inf)
    for group in dict.fromkeys(by(row) for row in rows.rows):
        seen = Rows([row for row in rows.rows if by(row) != group])
        kernel, _ = _solve(name, start, free, seen, rates)
        unseen = [i for i, row in enumerate(rows.rows) if by(row) == group]
        result[unseen] = Rows([rows.rows[i] for i in unseen]).predicted(_with(rates, name, kernel))
    return result
