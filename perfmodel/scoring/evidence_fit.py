"""The few terms of a step that are fitted to published steps: once, over all golden rows, with priors."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.algebra import Num, as_array, as_float
from perfmodel.formulas.statistics import HALF_OF_90_PERCENT
from perfmodel.ledger.records import Layout
from perfmodel.prediction.serving import pool_point
from perfmodel.scoring.validation import Published, predicted_values
from perfmodel.specs.base import Figure
from perfmodel.specs.evidence import RATE, RATES
from perfmodel.supply.machine import Machine
from perfmodel.supply.rates import Rates

#: relative error that one source's rows of one phase are given together
SOURCE_ERROR = 0.04
STEP = 0.25  # of a parameter's standard deviation, either way, for differences
STEP_QUANTITIES = ("step_time", "tpot", "latency", RATE)


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedTerm:
    """One term: its prior with the ends of its 90 % range, and the same after the fit."""

    name: str
    prior: Figure
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceFit:
    """The terms fitted, the rows they were fitted to, and the relative errors before and after."""

    terms: tuple[FittedTerm, ...]
    rows: tuple[str, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]

    @property
    def values(self) -> dict[str, float]:
        """Return the fitted values by name."""
        return {term.name: term.value for term in self.terms}


def priors_of(machine: Machine) -> dict[str, Figure]:
    """Return the priors that a machine's terms state, by the name of the term."""
    head = "priors."
    return {path.removeprefix(head): figure for path, figure in machine.terms.figures.items() if path.startswith(head)}


def fitted_to(row: Published) -> bool:
    """Return whether a row takes part: golden, its batch published, its terms with priors, a step measured.

    Where even routing is assumed and not stated, the row would vouch for what it was given.
    A rate at a TPOT limit with an open batch hardly feels the step, and says nothing of it.  Of attention that chooses,
    compresses or keeps a state no kernel is measured alone, so what such a row is off by need not be in the terms.
    """
    spec = row.spec
    return (
        spec.role == "golden"
        and row.model.reads_all_it_keeps
        and spec.conditions.serving != "mixed"
        and spec.conditions.layout.batch is not None
        and "balanced" not in spec.assumed
        and spec.measured[0].quantity in STEP_QUANTITIES
        and bool(priors_of(row.machine))
    )


def with_terms(machine: Machine, values: Mapping[str, Any]) -> Machine:
    """Return a machine with some of its terms replaced."""
    terms = machine.terms
    return replace(machine, terms=replace(terms, spec=terms.spec.model_copy(update=dict(values))))


def with_fit(machine: Machine, fit: EvidenceFit) -> Machine:
    """Return a machine with its terms, and their ranges, as a fit has them; as it is where its terms have no priors."""
    if not priors_of(machine):
        return machine
    terms = with_terms(machine, fit.values).terms
    found = {term.name: {"value": term.value, "low": term.low, "high": term.high} for term in fit.terms}
    figures = {path: one.model_copy(update=found.get(path, {})) for path, one in terms.figures.items()}
    return replace(machine, terms=replace(terms, figures=figures))


class _Row:
    """A row at the layout that the numbers on file give it, to be timed under many values of its terms at once.

    Where conditions are open its error is that of the mixture of its cases, by the weights stated; the case among its
    conditions tells how it answers to the terms.
    """

    def __init__(self, row: Published) -> None:
        resolved = row.resolved
        measured = row.spec.measured[0]
        ratio = math.log(predicted_values(row, (measured.quantity,))[measured.quantity] / measured.value)
        self.row, self.plan, self.case = row, resolved.plan, resolved.scenario.case
        self.error = -ratio if measured.quantity in RATES else ratio
        self.middle = as_float(resolved.point.step_time)

    def _steps(self, rates: Rates) -> Num:
        return pool_point(Layout.of(self.plan.layout), self.plan.family, replace(self.case, rates=rates)).step_time

    def slowness(self, values: Mapping[str, Any]) -> NDArray[np.float64]:
        """Return the logarithm of predicted over measured time at values of its terms, an array each."""
        steps = as_array(self._steps(with_terms(self.row.machine, values).rates()))
        return self.error + np.log(steps / self.middle)


def _weights(rows: Sequence[Published]) -> NDArray[np.float64]:
    """Rows of one source and phase are not independent: together they weigh as one."""
    keys = [(row.spec.source, row.spec.conditions.phase) for row in rows]
    return np.array([1 / (SOURCE_ERROR * math.sqrt(keys.count(key))) for key in keys])


def fit_terms(published: Sequence[Published]) -> EvidenceFit:
    """Return the terms that have priors, fitted to the golden rows together.

    Least squares on the logarithm of step times, each source and phase given ``SOURCE_ERROR``, and on the
    distance of each term from its prior in standard deviations of its stated 90 % range; no term leaves that
    range.  Ranges after the fit are those of the linearised problem, cut at the prior's.
    Raises ``ValueError`` where no row takes part.
    """
    from scipy.optimize import least_squares

    rows = [row for row in published if fitted_to(row)]
    if not rows:
        raise ValueError("no golden row with priors of its terms")
    priors = priors_of(rows[0].machine)
    names = list(priors)
    middle = np.array([priors[name].value for name in names])
    ends = np.array([[_end(priors[name].low), _end(priors[name].high)] for name in names])
    scale = (ends[:, 1] - ends[:, 0]) / 2 / HALF_OF_90_PERCENT
    weights = _weights(rows)
    set_up = [_Row(row) for row in rows]

    def errors(points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return an error for each row and point; points stand one below the other."""
        values = dict(zip(names, points.T, strict=True))
        return np.array([np.broadcast_to(row.slowness(values), len(points)) for row in set_up])

    steps = np.diag(STEP * scale)
    seen: dict[bytes, NDArray[np.float64]] = {}

    def around(x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return errors at a point and a step from it either way along each term, in one pass for both uses."""
        if (key := x.tobytes()) not in seen:
            seen[key] = errors(np.concatenate([x[None], x + steps, x - steps]))
        return seen[key]

    def residuals(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([weights * around(x)[:, 0], (x - middle) / scale])

    def slopes(x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Differences over a part of a standard deviation: narrower ones would see one side of a maximum alone."""
        up, down = np.split(around(x)[:, 1:], 2, axis=1)
        return np.concatenate([weights[:, None] * (up - down) / (2 * STEP * scale), np.diag(1 / scale)])

    solved: Any = least_squares(
        residuals, middle, jac=slopes, bounds=(ends[:, 0], ends[:, 1]), x_scale=scale, xtol=1e-4, ftol=1e-6
    )
    spread = np.sqrt(np.diag(np.linalg.inv(solved.jac.T @ solved.jac))) * HALF_OF_90_PERCENT
    return EvidenceFit(
        terms=tuple(
            FittedTerm(
                name=name,
                prior=priors[name],
                value=float(x),
                low=float(max(x - s, low)),
                high=float(min(x + s, high)),
            )
            for name, x, s, (low, high) in zip(names, solved.x, spread, ends, strict=True)
        ),
        rows=tuple(row.spec.name for row in rows),
        before=tuple(np.exp(around(middle)[:, 0]) - 1),
        after=tuple(np.exp(around(solved.x)[:, 0]) - 1),
    )


def _end(value: float | None) -> float:
    assert value is not None, "a prior states its range"
    return value
