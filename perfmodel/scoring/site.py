"""What rows measured at a site tell of it: how much longer its steps take than predicted, and how sure that is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from perfmodel.algebra import as_float
from perfmodel.formulas.statistics import HALF_OF_90_PERCENT
from perfmodel.prediction.uncertainty import SAMPLES, luck_of
from perfmodel.scoring.deployments import Deployed
from perfmodel.scoring.spreads import FREEDOM, Miss
from perfmodel.scoring.validation import Predictive, Published, phase_of, predictive
from perfmodel.specs.base import Figure, Source
from perfmodel.specs.conditions import Service
from perfmodel.specs.evidence import RATES, left_out_of
from perfmodel.specs.machine import LeftOutBy
from perfmodel.supply.machine import Machine, Site

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SiteRow:
    """One number measured at a site against the samples of its prediction, as a time."""

    name: str
    #: whose number it is, and what served what there
    source: str
    run: str
    phase: str
    measured_on: str
    #: logarithm of measured over predicted
    error: float
    #: logarithm of each sample of the stated ranges over the prediction
    ranges: Values
    #: what its machine's terms say the model leaves out
    spreads: LeftOutBy
    #: whether it says something of its phase that no other number of the row does
    tells: bool = True

    @property
    def miss(self) -> Miss:
        """By how much it was missed, about the middle of its stated ranges."""
        low90, low50, high50, high90 = np.quantile(self.ranges, (0.05, 0.25, 0.75, 0.95)).tolist()
        return Miss(
            measured_on=self.measured_on,
            source=self.source,
            error=self.error - (low50 + high50) / 2,
            ranges=(high90 - low90) / 2 / HALF_OF_90_PERCENT,
        )

    @property
    def errors(self) -> Values:
        """Logarithm of measured over each sample."""
        return self.error - self.ranges


def rows_of_pool(row: Published, found: Predictive | None = None) -> list[SiteRow]:
    """Return what a row of one pool tells by its first quantity, of mixed serving by all that its clients measured.

    ``found`` is what is predicted of it, where known.
    """
    found = predictive(row) if found is None else found
    return [
        SiteRow(
            name=row.name,
            source=row.source,
            run=run_of(row.spec.conditions),
            phase=phase_of(row, measured.quantity),
            measured_on=left_out_of(row.spec.measured_on, measured.quantity, loaded=row.mixed),
            error=_error(measured.quantity, measured.value / found.values[measured.quantity]),
            ranges=np.log(found.ranges[measured.quantity]),
            spreads=row.machine.terms.spec.left_out,
        )
        for measured in row.spec.measured[: None if row.mixed else 1]
    ]


def rows_of_deployment(one: Deployed, machine: Machine) -> list[SiteRow]:
    """Return what was measured of a whole deployment.

    A first token tells of prefill, TPOT of decode, the rate of the pool that sets it.
    """
    phases = {score.quantity: one.phase_of(score.quantity) for score in one.scores}
    told = {phase for quantity, phase in phases.items() if quantity not in RATES}
    found = []
    for score in one.scores:
        phase = phases[score.quantity]
        found.append(
            SiteRow(
                name=one.spec.name,
                source=one.spec.source,
                run=run_of(one.spec.conditions),
                phase=phase,
                measured_on=left_out_of(one.spec.measured_on, score.quantity, loaded=True),
                error=_error(score.quantity, score.measured / score.predicted),
                ranges=np.log(one.found.ranges[score.quantity]),
                spreads=machine.terms.spec.left_out,
                tells=score.quantity not in RATES or phase not in told,  # of the same steps as a time
            )
        )
    return found


def run_of(conditions: Service) -> str:
    """Return what serves what: rows of one source that agree in it are of one site, as far as a source tells."""
    return f"{conditions.model} on {conditions.system}, {conditions.stack}"


def _error(quantity: str, ratio: float) -> float:
    return float(np.log(1 / ratio if quantity in RATES else ratio))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Learnt:
    """What the rows of one phase tell of a further row of that phase, sample by sample: a Student's t."""

    location: Values
    scale: Values
    freedom: int
    #: how likely each sample makes the rows, as a logarithm
    weight: Values


def learnt(errors: Values, kinds: Sequence[str], spreads: LeftOutBy, measured_on: str) -> Learnt:
    r"""Return what errors of rows tell of a further row, the rows one below the other and a column for each sample.

    What the model leaves out of the rows and of the further one is together a multivariate Student's t of ``FREEDOM``
    degrees :math:`\nu` and scale :math:`\Sigma`: by itself :math:`s_i^2 + r_i^2`, the spreads of source and row for
    its way of being measured; between two :math:`\min(s_i, s_j)^2`, for all are of one site.  Given :math:`n` errors
    :math:`e` the further one is a Student's t of :math:`\nu + n` degrees about :math:`c' \Sigma^{-1} e` with the scale
    :math:`\sqrt{(c_0 - c' \Sigma^{-1} c)(\nu + e' \Sigma^{-1} e) / (\nu + n)}`.  One row moves a prediction by
    :math:`s^2 / (s^2 + r^2)` of its error, many by nearly their mean.

    Assumes that a site is as slow tomorrow as in its rows: errs narrow where engines are updated between them.
    Source: [ding2016].
    """
    every = [*kinds, measured_on]
    source = np.array([as_float(getattr(spreads, kind).source) for kind in every])
    own = np.array([as_float(getattr(spreads, kind).row) for kind in every])
    scale = np.minimum.outer(source, source) ** 2 + np.diag(own**2)
    known, between = scale[:-1, :-1], scale[:-1, -1]
    solved = np.linalg.solve(known, errors)
    square = (errors * solved).sum(axis=0)
    left = float(scale[-1, -1] - between @ np.linalg.solve(known, between))
    freedom = FREEDOM + len(kinds)
    return Learnt(
        location=between @ solved,
        scale=np.sqrt(left * (FREEDOM + square) / freedom),
        freedom=freedom,
        weight=-freedom / 2 * np.log1p(square / FREEDOM),
    )


def learnt_from(rows: Sequence[SiteRow], spreads: LeftOutBy, measured_on: str) -> tuple[Site, dict[str, float]]:
    """Return a site as its rows tell it, and for each of their phases the factor on the time of a step.

    Samples of the machine's numbers are taken as often as they make the rows likely.  The factor is the middle of a
    further row's time over its prediction.
    """
    from scipy.special import stdtrit

    by_phase: dict[str, list[SiteRow]] = {}
    for row in rows:
        if row.tells:
            by_phase.setdefault(row.phase, []).append(row)
    found = {
        phase: learnt(np.array([row.errors for row in some]), [row.measured_on for row in some], spreads, measured_on)
        for phase, some in by_phase.items()
    }
    weight = np.zeros(SAMPLES) + sum(one.weight for one in found.values())
    order = _resampled(weight)
    luck, factors = {}, {}
    for phase, one in found.items():
        luck[phase] = (one.location + one.scale * stdtrit(one.freedom, luck_of(phase)))[order]
        middle = np.mean([row.ranges for row in by_phase[phase]], axis=0)
        factors[phase] = float(np.exp(np.mean((one.location + middle)[order])))
    return Site(rows=tuple(dict.fromkeys(row.name for row in rows)), order=order, luck=luck), factors


def _resampled(weight: Values) -> NDArray[np.int64]:
    """Return the places of samples, each as often as its weight asks, whose logarithms are given."""
    ends = np.cumsum(np.exp(weight - weight.max()))
    places: NDArray[np.int64] = np.searchsorted(ends / ends[-1], (np.arange(SAMPLES) + 0.5) / SAMPLES)
    return np.minimum(places, SAMPLES - 1)


def at_site(machine: Machine, rows: Sequence[SiteRow], files: Mapping[str, str], measured_on: str) -> Machine:
    """Return a machine as it is known at a site, the factors on its steps among its terms with the rows as source.

    ``files`` are where the rows stand, by name; ``measured_on`` says how what is to be predicted is measured.
    """
    site, factors = learnt_from(rows, machine.terms.spec.left_out, measured_on)
    terms = machine.terms
    named = ", ".join(site.rows)
    values = {f"{phase}_site": factor for phase, factor in factors.items()}
    figures = {
        path: Figure(
            value=value,
            text=f"{value:.3g}",
            source="site",
            kind="measured",
            note=f"time of a step over the prediction, from {len(site.rows)} row(s): {named}",
            file=files[site.rows[0]],
            line=1,
        )
        for path, value in values.items()
    }
    sources = {**terms.spec.sources, "site": Source(title=f"measured at the site: {named}")}
    spec = terms.spec.model_copy(update={**values, "sources": sources})
    return replace(machine, terms=replace(terms, spec=spec, figures={**terms.figures, **figures}), site=site)
