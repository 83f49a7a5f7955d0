"""How sure a prediction is: the stated ranges of all inputs carried through the same formulas at once."""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.algebra import as_array, as_float
from perfmodel.formulas.statistics import HALF_OF_90_PERCENT, student_quantile
from perfmodel.ledger.records import Family, Layout
from perfmodel.prediction.breakdown import WAITS, Row
from perfmodel.prediction.serving import Case, FirstToken, PoolPoint, pool_point
from perfmodel.specs.base import Figure, Known, with_value
from perfmodel.specs.deployment import LayoutSpec
from perfmodel.specs.model import ModelSpec
from perfmodel.supply.machine import Machine
from perfmodel.supply.rates import Rates
from perfmodel.timing.operators import time_op

SAMPLES = 512  # of a Latin hypercube: intervals settle to a few parts in a thousand
#: relative spread of a kernel's time about its form, where its set states no fit: the median held-out
#: error of the classes that state one is 6 %
FORM_SPREAD = 0.09
MEDIAN_TO_SPREAD = 1 / 0.6745
NORMAL = NormalDist()

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Ends that a value lies between with a probability of 50 % and of 90 %."""

    low50: float
    high50: float
    low90: float
    high90: float

    def contains(self, value: float) -> bool:
        """Return whether a value lies in the 90 % interval."""
        return self.low90 <= value <= self.high90

    def as_dict(self) -> dict[str, float]:
        """Return the ends by name."""
        return {"low50": self.low50, "high50": self.high50, "low90": self.low90, "high90": self.high90}


def chance(samples: Values, limit: float) -> float:
    """Return the part of samples within a limit."""
    return float(np.mean(samples <= limit))


def interval(values: Values) -> Interval:
    """Return the intervals of samples."""
    low50, high50, low90, high90 = (float(end) for end in np.quantile(values, (0.25, 0.75, 0.05, 0.95)))
    return Interval(low50=low50, high50=high50, low90=low90, high90=high90)


def _strata_of(name: str) -> Values:
    """Return probabilities, one in the middle of each of equally likely strata, in a random order.

    The order follows from the name alone, so that two machines are compared under equal luck in what they share.
    Source: [mckay1979]; the same points in every run.
    """
    return np.random.default_rng(zlib.crc32(name.encode())).permutation((np.arange(SAMPLES) + 0.5) / SAMPLES)


def chosen(weights: Sequence[float], name: str) -> NDArray[np.int64]:
    """Return for each sample which of some cases it is of, each as often as its weight says."""
    ends = np.cumsum(weights) / np.sum(weights)
    places: NDArray[np.int64] = np.searchsorted(ends[:-1], _strata_of(name))
    return places


@lru_cache(maxsize=1024)
def _normals(name: str) -> Values:
    """Return the normal samples of a number, before anything was measured at a site."""
    found = np.array([normal(p) for p in _strata_of(name).tolist()])
    found.flags.writeable = False  # one array for all that ask
    return found


@lru_cache(maxsize=SAMPLES)
def normal(probability: float) -> float:
    """Return the standard normal deviate of a probability."""
    return NORMAL.inv_cdf(probability)


def _drawn(figure: Figure, normal: Values) -> Values:
    """Return samples of a figure: its value in the middle, its range the 5th and 95th percentile.

    Each side is normal on its own, in logarithms where the range is above zero, and ends where the range ends:
    many ranges end at what is possible.
    """
    assert figure.low is not None and figure.high is not None
    above = normal > 0
    if figure.low > 0:
        up, down = np.log(figure.high / figure.value), np.log(figure.value / figure.low)
        samples: Values = figure.value * np.exp(normal / HALF_OF_90_PERCENT * np.where(above, up, down))
    else:
        side = np.where(above, figure.high - figure.value, figure.value - figure.low)
        samples = np.maximum(0.0, figure.value + normal / HALF_OF_90_PERCENT * side)
    return np.clip(samples, figure.low, figure.high)


def _ranged(part: Known[Any]) -> Mapping[str, Figure]:
    return {
        path: figure
        for path, figure in part.figures.items()
        if figure.low is not None and figure.high is not None and figure.high > figure.low
    }


def luck_of(phase: str) -> Values:
    """Return the probabilities at which what the model leaves out of a phase is sampled.

    Each phase has luck of its own: engines that are slow in one are not known to be slow in the other.
    """
    return _strata_of(f"left out of {phase}")


def left_out(machine: Machine, measured_on: str | None, phase: str, model: ModelSpec | None) -> Values:
    """Return samples of the logarithm of what the model leaves out of a step: of the source and of the row in one.

    Student's t with six degrees of freedom, or what rows measured at the machine's site leave of it; nothing where
    ``measured_on`` is nothing.  Wider where no kernel of the model's attention is measured.
    """
    if measured_on is None:
        return np.zeros(SAMPLES)
    if machine.site is not None and phase in machine.site.luck:
        factor = as_float(getattr(machine.terms.spec, f"{phase}_site"))
        samples: Values = machine.site.luck[phase] - np.log(factor)
        return samples
    spread = getattr(machine.terms.spec.left_out, measured_on)
    scale = float(np.hypot(as_float(spread.source), as_float(spread.row)))
    if model is not None and not model.reads_all_it_keeps:
        scale = float(np.hypot(scale, as_float(machine.terms.spec.left_out.unmeasured_attention)))
    return as_array(student_quantile(probability=luck_of(phase))) * scale


def sampled_rates(
    machine: Machine, measured_on: str | None, phase: str, model: ModelSpec | None = None
) -> tuple[Rates, Values]:
    """Return the rates of a machine with every ranged number an array of samples, and factors on a step.

    Numbers move independently, each over its stated range; besides, the time of each operator class scatters about
    its form as its fit did, and a step about the sum of its operators by what the model leaves out.
    A prediction made with these rates is an array.  Where rows were measured at the machine's site, samples stand in
    their order: those that agree with the rows are taken more often.
    Assumes independence: errs narrow where two numbers come from one measurement.
    """
    chosen = machine.kernels_of()
    order = np.arange(SAMPLES) if machine.site is None else machine.site.order
    moved: list[Known[Any]] = []
    for part in machine.parts:
        spec = part.spec
        for path, figure in _ranged(part).items():
            spec = with_value(spec, path.split("."), _drawn(figure, _normals(f"{spec.name}: {path}")[order]))
        moved.append(replace(part, spec=spec))
    rates = machine.with_parts(moved).rates()
    if machine.stack.spec.ideal:
        return rates, np.ones(SAMPLES)
    scatter = {
        name: np.exp(_normals(f"form of {name}")[order] * _form_spread(known.spec.classes()[name]))
        for name, known in chosen.items()
    }
    return replace(rates, scatter=scatter), np.exp(left_out(machine, measured_on, phase, model))


def path_over(machine: Machine, rates: Rates) -> Values:
    """Return samples of the path of a request over its own time, from sampled rates; ones where it takes none."""
    middle = as_float(machine.rates().request_path)
    return as_array(rates.request_path) / middle if middle else np.ones(SAMPLES)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PoolIntervals:
    """Samples of an instance's step time, and the intervals of what follows from it."""

    #: the machine's, each number an array of samples
    rates: Rates
    steps: Values
    #: the samples over the prediction
    relative: Values
    step_time: Interval
    tpot: Interval
    tokens_per_s: Interval

    def chance(self, limit: float, tokens_per_step: float) -> float:
        """Return the probability that TPOT is within a limit."""
        return chance(self.steps / tokens_per_step, limit)


def pool_intervals(
    machine: Machine,
    layout: LayoutSpec,
    family: Family,
    case: Case,
    ranges: Mapping[Any, tuple[int, int]] | None = None,
    measured_on: str | None = "service",
    sampled: tuple[Rates, Values] | None = None,
    middle: PoolPoint | None = None,
) -> PoolIntervals:
    """Return how sure the step time of a given layout is, and what follows from it.

    ``measured_on`` says how it is to be measured, by a ``driver`` or on an engine in ``service``: what the model
    leaves out differs by it; with none of them it is the stated ranges alone.

    ``ranges`` are the ends of lengths that are not known (``isl``, ``osl``): anything between them is as likely,
    in logarithms, and the layout stays.  ``sampled`` are the machine's samples where they were drawn already, and
    ``middle`` is what the layout serves at its numbers as they are, where that is known.
    """
    rates, factors = sampled_rates(machine, measured_on, family.phase, case.model) if sampled is None else sampled
    middle = middle or pool_point(Layout.of(layout), family, case)
    point = pool_point(Layout.of(layout), family, replace(case, rates=rates))
    steps = np.broadcast_to(np.asarray(point.step_time, dtype=np.float64), (SAMPLES,)) * factors
    if ranges:
        steps = steps * _open_lengths(layout, family, case, ranges) / as_float(middle.step_time)
    rate, each = as_float(middle.tokens_per_s) * as_float(middle.step_time), as_float(middle.tokens_per_step)
    return PoolIntervals(
        rates=rates,
        steps=steps,
        relative=steps / as_float(middle.step_time),
        step_time=interval(steps),
        tpot=interval(steps / each),
        tokens_per_s=interval(rate / steps),
    )


def interleaved(decode: PoolIntervals, prefill: PoolIntervals, added: float) -> PoolIntervals:
    """Return how sure a decode step is with prefill steps in between, which add ``added`` seconds to it."""
    steps = decode.steps + added * prefill.relative
    middle = float(decode.steps[0] / decode.relative[0]) + added
    each = decode.step_time.low90 / decode.tpot.low90
    rate = decode.tokens_per_s.low90 * decode.step_time.high90
    return PoolIntervals(
        steps=steps,
        relative=steps / middle,
        step_time=interval(steps),
        tpot=interval(steps / each),
        tokens_per_s=interval(rate / steps),
        rates=decode.rates,
    )


def row_ranges(rows: Iterable[Row], rates: Rates) -> list[tuple[float, float] | None]:
    """Return the 90 % interval of each row's time in a step at sampled rates, its load as it is.

    None for what lanes lose to each other, which is no operator's.
    """
    found: list[tuple[float, float] | None] = []
    for row in rows:
        if row.part == WAITS:
            found.append(None)
            continue
        alone = as_array(time_op(row.timed.op, rates, row.timed.core_share).time)
        ends = interval(np.broadcast_to(alone, (SAMPLES,)) * (row.total / as_float(row.timed.time)))
        found.append((ends.low90, ends.high90))
    return found


def _open_lengths(
    layout: LayoutSpec, family: Family, case: Case, ranges: Mapping[Any, tuple[int, int]]
) -> NDArray[np.float64]:
    """Return the step time at sampled lengths, everything else as predicted."""
    dice = np.random.default_rng(2)
    strata = (np.arange(SAMPLES) + 0.5) / SAMPLES
    lengths: dict[str, Any] = {
        name: low * (high / low) ** dice.permutation(strata) for name, (low, high) in ranges.items()
    }
    point = pool_point(Layout.of(layout), family, replace(case, **lengths))
    return np.asarray(point.step_time, dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeploymentIntervals:
    """Samples of what two pools serve together, and their intervals."""

    ttfts: Values
    rates: Values
    ttft: Interval
    requests_per_s: Interval


def joined_intervals(
    *,
    prefill: PoolIntervals,
    decode: PoolIntervals,
    first: FirstToken,
    prefill_rate: float,
    decode_rate: float,
    asked: float | None,
) -> DeploymentIntervals:
    """Return how sure TTFT and the rate of two pools are, sample by sample of one machine.

    The path of a request moves over its own range.  Waits, prefill and its rate move with the prefill step, the first
    token's decode step and the decode rate with the decode step; the transfer of the cache is taken as known.  The
    slower pool of a sample sets its rate, and what was asked for bounds it.  ``prefill_rate`` and ``decode_rate`` are
    of all instances at the utilisation limit.
    """
    slow = {"p": prefill.relative, "d": decode.relative}
    waits = as_float(first.batch_formation + first.residual + first.prefill)
    ttft = (
        as_array(prefill.rates.request_path)
        + as_float(first.frontend)
        + waits * slow["p"]
        + as_float(first.kv_transfer)
        + as_float(first.first_step) * slow["d"]
    )
    rate = np.minimum(prefill_rate / slow["p"], decode_rate / slow["d"])
    rate = rate if asked is None else np.minimum(rate, asked)
    return DeploymentIntervals(ttfts=ttft, rates=rate, ttft=interval(ttft), requests_per_s=interval(rate))


def _form_spread(kernel: Any) -> float:
    fit = kernel.fit
    if fit is None:
        return FORM_SPREAD
    error = fit.held_out_median_error if fit.held_out_median_error is not None else fit.median_error
    return float(error) * MEDIAN_TO_SPREAD
