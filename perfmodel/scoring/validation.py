"""Published results of pools -> scores: errors, and intervals that hold or miss."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from perfmodel.algebra import as_array, as_float
from perfmodel.formulas.statistics import interval_score
from perfmodel.prediction.quantities import parts_of, predicted
from perfmodel.prediction.scenario import Resolved, of_evidence, resolve
from perfmodel.prediction.uncertainty import (
    Interval,
    Values,
    chosen,
    interval,
    left_out,
    path_over,
    pool_intervals,
    sampled_rates,
)
from perfmodel.scoring.distance import Place, place_of
from perfmodel.service.clients import ClientView, clients_view, with_responses
from perfmodel.service.records import Requests, Service
from perfmodel.service.setup import engine_of, holds_one, mixed_phases, mixed_service, requests_of
from perfmodel.specs.evidence import PERCENTILE, RATE, RATES, EvidenceSpec, left_out_of
from perfmodel.specs.model import ModelSpec
from perfmodel.supply.machine import Machine
from perfmodel.supply.rates import Rates

OUTSIDE = 0.1  # of a 90 % interval
STRANGE = 50.0  # times that a prediction may lie from what was measured before the unit is doubted


@dataclass(frozen=True, kw_only=True, eq=False)
class Published:
    """A published row with the model and machine that are to predict it."""

    spec: EvidenceSpec
    model: ModelSpec
    machine: Machine
    #: where the source leaves conditions open: the weight of each case, what it is, and the row with it
    cases: tuple[tuple[float, str, "Published"], ...] = ()

    @property
    def name(self) -> str:
        """Name of the row."""
        return self.spec.name

    @property
    def each(self) -> tuple[tuple[float, str, "Published"], ...]:
        """Every case with its weight; the row itself where nothing is open."""
        return self.cases or ((1.0, "", self),)

    def on(self, change: Callable[[Machine], Machine]) -> "Published":
        """Return the row, and each of its cases, on another machine in place of its own; itself where none changes."""
        found: dict[int, Machine] = {}

        def once(machine: Machine) -> Machine:
            """Return what cases of one machine share."""
            if id(machine) not in found:
                found[id(machine)] = change(machine)
            return found[id(machine)]

        if all(once(one.machine) is one.machine for one in (self, *(one for _, _, one in self.cases))):
            return self  # with what was evaluated of it
        cases = tuple((weight, words, replace(one, machine=once(one.machine))) for weight, words, one in self.cases)
        return replace(self, machine=once(self.machine), cases=cases)

    @property
    def source(self) -> str:
        """Whose number it is."""
        return self.spec.source

    @property
    def role(self) -> str:
        """Whether it is held against predictions or kept for context."""
        return self.spec.role

    @cached_property
    def resolved(self) -> Resolved:
        """The row's layout evaluated with the numbers of its machine, once; of mixed serving its decode."""
        if self.mixed:
            return self.phases[1]
        return resolve(of_evidence(self.spec, self.model, self.machine.rates()))

    @property
    def mixed(self) -> bool:
        """Whether clients measured instances that run both phases."""
        return self.spec.conditions.serving == "mixed"

    @cached_property
    def phases(self) -> tuple[Resolved, Resolved]:
        """Prefill and decode of mixed serving."""
        engine = engine_of(self.machine.stack.spec, self.spec.conditions.engine)
        return mixed_phases(self.spec.conditions, engine, self.model, self.machine.rates())[1:]

    @cached_property
    def clients(self) -> ClientView:
        """What clients of mixed serving measure, by a replay."""
        return clients_view(*self._replayed)

    @cached_property
    def responses(self) -> ClientView:
        """The same with how it moves with both phases and the path of a request."""
        return with_responses(self.clients, *self._replayed)

    @cached_property
    def _replayed(self) -> tuple[Service, Requests]:
        engine = engine_of(self.machine.stack.spec, self.spec.conditions.engine)
        stated = self.spec.conditions.layout.batch
        return mixed_service(*self.phases, engine, stated=stated), requests_of(self.spec.conditions)

    def predicted(self, quantities: Sequence[str]) -> dict[str, float]:
        """Return quantities predicted under its conditions alone, whatever is open of them."""
        if not self.mixed:
            return predicted(self.resolved, quantities)
        values, plan = self.clients.values, self.resolved.plan
        cards = plan.layout.dies / self.resolved.scenario.case.rates.dies_per_package
        return {**values, RATE: values["requests_per_s"] * self.spec.conditions.osl / cards}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One measured quantity beside its prediction."""

    quantity: str
    unit: str
    measured: float
    predicted: float
    interval: Interval
    #: the same quantity predicted as if the row's source had never been read
    left_out: "Scored | None" = None

    @property
    def error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted / self.measured - 1

    @property
    def inside50(self) -> bool:
        """Whether the measured value lies in the 50 % interval."""
        return self.interval.low50 <= self.measured <= self.interval.high50

    @property
    def inside90(self) -> bool:
        """Whether the measured value lies in the 90 % interval."""
        return self.interval.contains(self.measured)

    @property
    def score(self) -> float:
        """Interval score of the 90 % interval, relative to the measured value."""
        low, high = self.interval.low90 / self.measured, self.interval.high90 / self.measured
        return as_float(interval_score(low=low, high=high, value=1.0, alpha=OUTSIDE))


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One published row, scored; the first quantity counts in summaries."""

    spec: EvidenceSpec
    place: Place
    fits: bool
    scores: tuple[Scored, ...]
    #: parts of the profiled step: name, measured, predicted
    parts: tuple[tuple[str, float, float], ...] = ()

    @property
    def strange(self) -> tuple[str, ...]:
        """What was measured so far from the prediction that a unit is likelier mistaken than the model."""
        return tuple(
            f"{self.spec.name}: {one.quantity}: measured {one.measured:g} {one.unit}, predicted {one.predicted:.3g}: "
            f"over {STRANGE:.0f} times apart; check the unit"
            for one in self.scores
            if not 1 / STRANGE <= one.predicted / one.measured <= STRANGE
        )

    @property
    def slow(self) -> float:
        """Error of the first quantity."""
        return turned(self.scores[0].quantity, self.scores[0].error)


def turned(quantity: str, error: float) -> float:
    """Return an error as one of time, so that above is slow: a rate predicted e too high is a time 1/(1 + e) - 1."""
    return 1 / (1 + error) - 1 if quantity in RATES else error


def place(published: Published, resolved: Resolved) -> Place:
    """Return where a row lies."""
    return place_of(published.spec.conditions, published.machine, resolved)


def interval_of(relative: Values, quantity: str, value: float) -> Interval:
    """Return the interval of a predicted value, given samples of its time over the prediction."""
    return interval(value / relative if quantity in RATES else value * relative)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predictive:
    """What is predicted of a row: each quantity, and samples of its time over that."""

    values: Mapping[str, float]
    #: over the stated ranges alone
    ranges: Mapping[str, Values]
    #: with what the model leaves out besides
    relative: Mapping[str, Values]
    #: the same of each case: its values, and samples over the stated ranges
    each: Sequence[tuple[Mapping[str, float], Mapping[str, Values]]]


def predicted_values(row: Published, quantities: Sequence[str]) -> dict[str, float]:
    """Return quantities predicted of a row, the mean of its cases by their weights where conditions are open."""
    weights = [weight for weight, _, _ in row.each]
    found = [one.predicted(quantities) for _, _, one in row.each]
    return {name: _mean(weights, [one[name] for one in found]) for name in quantities}


def _mean(weights: Sequence[float], values: Sequence[float]) -> float:
    """Return the mean of values by the weights of their logarithms."""
    return float(np.exp(np.dot(weights, np.log(values))))


def predictive(row: Published) -> Predictive:
    """Return what is predicted of a row, a mixture of its cases where conditions are open.

    The prediction is the mean of the cases' logarithms by their weights; a sample is of one case, as often as its
    weight says.  Raises ``UsageError`` where the layout of a case cannot be.
    """
    quantities: list[str] = [measured.quantity for measured in row.spec.measured]
    sampled: dict[int, tuple[Rates, Values]] = {}
    found = []
    for _, _, one in row.each:
        if id(one.machine) not in sampled:
            sampled[id(one.machine)] = sampled_rates(one.machine, None, one.resolved.plan.family.phase)
        values, times = one.predicted(quantities), _times(one, row, sampled[id(one.machine)])
        found.append((values, {name: times(name) for name in quantities}))
    values, ranges = mixture([weight for weight, _, _ in row.each], found, row.name)
    relative = {
        name: one * np.exp(left_out(row.machine, kind, phase_of(row, name), row.model))
        for name, one in ranges.items()
        for kind in [left_out_of(row.spec.measured_on, name, loaded=row.mixed)]
    }
    return Predictive(values=values, ranges=ranges, relative=relative, each=found)


def phase_of(row: Published, quantity: str) -> str:
    """Return the phase whose luck a quantity has: of mixed serving, a first token that of prefill."""
    return "prefill" if row.mixed and PERCENTILE.sub("", quantity) == "ttft" else row.spec.conditions.phase


def _times(row: Published, like: Published, sampled: tuple[Rates, Values]) -> Callable[[str], Values]:
    """Return what gives samples of the time of a quantity over its prediction.

    A first token comes after a request's path besides, which has a range of its own.  ``like`` is the row that it is a
    case of, whose clients' waits move with the steps as its own do.
    """
    rates, phases = sampled[0], row.phases if row.mixed else (row.resolved,)
    steps: dict[str, Values] = {
        one.plan.family.phase: pool_intervals(
            row.machine, one.plan.layout, one.plan.family, one.scenario.case, row.spec.ranges, None, sampled, one.point
        ).relative
        for one in phases
    }

    def of_clients(quantity: str) -> Values:
        return like.responses.times(quantity, {**steps, "path": path_over(row.machine, rates)})

    def of_a_pool(quantity: str) -> Values:
        (step,) = steps.values()
        if quantity != "ttft":
            return step
        time = as_float(row.resolved.point.step_time)
        return (as_array(rates.request_path) + step * time) / (as_float(row.machine.rates().request_path) + time)

    return of_clients if row.mixed else of_a_pool


def mixture(
    weights: Sequence[float], found: Sequence[tuple[Mapping[str, float], Mapping[str, Values]]], name: str
) -> tuple[dict[str, float], dict[str, Values]]:
    """Return the mixture of predictions by quantity, and of samples of their times over it.

    A sample is of the same case in all quantities.
    """
    taken = chosen(weights, f"case of {name}")
    values, relative = {}, {}
    for quantity in found[0][1]:
        each = np.array([one[quantity] for one, _ in found])
        value = _mean(weights, each.tolist())
        times = value / each if quantity in RATES else each / value
        samples = np.stack([time * one[quantity] for time, (_, one) in zip(times, found, strict=True)])
        values[quantity], relative[quantity] = value, samples[taken, np.arange(len(taken))]
    return values, relative


def beside_left_out(scores: Iterable[Scored], left_out: Iterable[Scored]) -> tuple[Scored, ...]:
    """Return scores with those of the same quantities, in the same order, as predicted without their source."""
    return tuple(replace(one, left_out=other) for one, other in zip(scores, left_out, strict=True))


def scored(published: Published, found: Predictive | None = None) -> Result:
    """Return a row with its errors and intervals.

    ``found`` is what is predicted of it, where that is known already.
    Raises ``UsageError`` where the layout cannot be.
    """
    resolved = published.resolved
    found = predictive(published) if found is None else found
    scores = tuple(
        Scored(
            quantity=measured.quantity,
            unit=measured.unit,
            measured=measured.value,
            predicted=found.values[measured.quantity],
            interval=interval_of(found.relative[measured.quantity], measured.quantity, found.values[measured.quantity]),
        )
        for measured in published.spec.measured
    )
    times = parts_of(resolved, published.spec.parts) if published.spec.parts else {}
    return Result(
        spec=published.spec,
        place=place(published, resolved),
        fits=holds_one(resolved) if published.mixed else resolved.fits,
        scores=scores,
        parts=tuple((part.name, part.value, times[part.name]) for part in published.spec.parts),
    )
