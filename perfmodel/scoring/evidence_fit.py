"""The few terms of a step that are fitted to published steps: once, over all golden rows, with priors."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from perfmodel.formulas.statistics import HALF_OF_90_PERCENT
from perfmodel.prediction.quantities import predicted
from perfmodel.prediction.scenario import of_evidence, resolve
from perfmodel.specs.base import Figure
from perfmodel.specs.evidence import RATE, EvidenceSpec
from perfmodel.specs.model import ModelSpec
from perfmodel.supply.machine import Machine

#: relative error that one source's rows of one phase are given together
SOURCE_ERROR = 0.04
STEP = 1e-3  # of a parameter's prior range, for differences
STEP_QUANTITIES = ("step_time", "tpot", "latency", RATE)


class PublishedRow(Protocol):
    """A published row with what predicts it."""

    @property
    def spec(self) -> EvidenceSpec:
        """What was published."""

    @property
    def model(self) -> ModelSpec:
        """What was served."""

    @property
    def machine(self) -> Machine:
        """What it ran on."""


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


def fitted_to(row: PublishedRow) -> bool:
    """Return whether a row takes part: golden, its batch published, its terms with priors, a step measured.

    Where even routing is assumed and not stated, the row would vouch for what it was given.
    A rate at a TPOT limit with an open batch hardly feels the step, and says nothing of it.
    """
    spec = row.spec
    return (
        spec.role == "golden"
        and spec.conditions.layout.batch is not None
        and "balanced" not in spec.assumed
        and spec.measured[0].quantity in STEP_QUANTITIES
        and bool(priors_of(row.machine))
    )


def with_terms(machine: Machine, values: Mapping[str, float]) -> Machine:
    """Return a machine with some of its terms replaced."""
    terms = machine.terms
    return replace(machine, terms=replace(terms, spec=terms.spec.model_copy(update=dict(values))))


def slowness(row: PublishedRow, values: Mapping[str, float]) -> float:
    """Return the logarithm of predicted over measured step time."""
    machine = with_terms(row.machine, values)
    found = predicted(resolve(of_evidence(row.spec, row.model, machine.rates())))
    measured = row.spec.measured[0]
    ratio = math.log(found[measured.quantity] / measured.value)
    return -ratio if measured.quantity == RATE else ratio


def _weights(rows: Sequence[PublishedRow]) -> NDArray[np.float64]:
    """Rows of one source and phase are not independent: together they weigh as one."""
    keys = [(row.spec.source, row.spec.conditions.phase) for row in rows]
    return np.array([1 / (SOURCE_ERROR * math.sqrt(keys.count(key))) for key in keys])


def fit_terms(published: Sequence[PublishedRow]) -> EvidenceFit:
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

    def errors(x: NDArray[np.float64]) -> NDArray[np.float64]:
        values = dict(zip(names, x.tolist(), strict=True))
        return np.array([slowness(row, values) for row in rows])

    def residuals(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([weights * errors(x), (x - middle) / scale])

    solved: Any = least_squares(
        residuals, middle, bounds=(ends[:, 0], ends[:, 1]), x_scale=scale, diff_step=STEP, xtol=1e-6, ftol=1e-8
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
        before=tuple(np.exp(errors(middle)) - 1),
        after=tuple(np.exp(errors(solved.x)) - 1),
    )


def _end(value: float | None) -> float:
    assert value is not None, "a prior states its range"
    return value


def predictor(training: Sequence[PublishedRow]) -> Callable[[PublishedRow], dict[str, float]]:
    """Return a function that predicts any row, by quantity, with the terms fitted to the training rows alone.

    It gives nothing for a row whose terms have no priors, or where no training row takes part.
    """
    taken = [row for row in training if fitted_to(row)]
    values = fit_terms(taken).values if taken else {}

    def predict(row: PublishedRow) -> dict[str, float]:
        if not values or not priors_of(row.machine):
            return {}
        machine = with_terms(row.machine, values)
        return predicted(resolve(of_evidence(row.spec, row.model, machine.rates())))

    return predict
