"""Published results -> scores: errors, intervals that hold or miss, the nearest anchor, a source left out."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from perfmodel.errors import UsageError
from perfmodel.formulas.statistics import interval_score
from perfmodel.prediction.scenario import Joined, Resolved, of_deployment, of_evidence, parts_of, predicted, resolve
from perfmodel.prediction.uncertainty import Interval, PoolRange, interval, pool_range
from perfmodel.specs.evidence import RATE, Conditions, DeploymentSpec, EvidenceSpec, PeerSpec
from perfmodel.specs.model import ModelSpec
from perfmodel.supply.machine import Machine

OUTSIDE = 0.1  # of a 90 % interval
ROLES = ("golden", "reference")

Values = Mapping[str, float]


class Anchored(Protocol):
    """What leaving one source out needs to know of a row."""

    @property
    def name(self) -> str:
        """Name of the row."""

    @property
    def source(self) -> str:
        """Whose number it is; the same key in all rows of one source."""

    @property
    def role(self) -> str:
        """Only golden rows are fitted to."""


R = TypeVar("R", bound=Anchored)


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A published row with the model and machine that are to predict it."""

    spec: EvidenceSpec
    model: ModelSpec
    machine: Machine

    @property
    def name(self) -> str:
        """Name of the row."""
        return self.spec.name

    @property
    def source(self) -> str:
        """Whose number it is."""
        return self.spec.source

    @property
    def role(self) -> str:
        """Whether it is held against predictions or kept for context."""
        return self.spec.role

    def resolved(self) -> Resolved:
        """Return the row's layout evaluated with the numbers on file."""
        return resolve(of_evidence(self.spec, self.model, self.machine.rates()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One measured quantity beside its prediction."""

    quantity: str
    unit: str
    measured: float
    predicted: float
    interval: Interval
    left_out: float | None = None

    @property
    def error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted / self.measured - 1

    @property
    def left_out_error(self) -> float | None:
        """The same, of the prediction that was fitted without the row's source."""
        return None if self.left_out is None else self.left_out / self.measured - 1

    @property
    def inside50(self) -> bool:
        """Whether the measured value lies in the 50 % interval."""
        return self.interval.low50 <= self.measured <= self.interval.high50

    @property
    def inside90(self) -> bool:
        """Whether the measured value lies in the 90 % interval."""
        return self.interval.holds(self.measured)

    @property
    def score(self) -> float:
        """Interval score of the 90 % interval, relative to the measured value."""
        low, high = self.interval.low90 / self.measured, self.interval.high90 / self.measured
        return float(interval_score(low=low, high=high, value=1.0, alpha=OUTSIDE))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a row lies among the conditions: what the distance to another is taken over."""

    phase: str
    chip: str
    model: str
    overlap: str
    exchange: str
    precision: str
    dies: float
    tokens: float
    context: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """A row on file as a neighbour: its place, and the error of its first quantity, turned so that above is slow."""

    name: str
    place: Place
    slow: float


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
    def slow(self) -> float:
        """Error of the first quantity."""
        return turned(self.scores[0].quantity, self.scores[0].error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Errors of some results, turned so that above is slow; of the first quantity of each."""

    role: str
    by: str
    group: str
    results: int
    mean: float
    bias: float
    worst: float
    inside50: float
    inside90: float
    score: float
    left_out_results: int
    left_out_mean: float | None
    left_out_bias: float | None
    left_out_worst: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """One measured quantity of a whole deployment beside its prediction."""

    spec: DeploymentSpec
    joined: Joined
    scores: tuple[Scored, ...]

    @property
    def decided_by(self) -> str:
        """The pool that sets the rate."""
        return "prefill" if self.joined.prefill_requests_per_s < self.joined.decode_requests_per_s else "decode"


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """Another model's error on a row beside ours, both turned so that above is slow; ours where the row is known."""

    row: str
    quantity: str
    peer: str
    theirs: float
    ours: float | None
    note: str


def turned(quantity: str, error: float) -> float:
    """Return an error as one of time, so that above is slow: a rate predicted e too high is a time 1/(1 + e) - 1."""
    return 1 / (1 + error) - 1 if quantity == RATE else error


def place(published: Published, resolved: Resolved) -> Place:
    """Return where a row lies."""
    return place_of(published.spec.conditions, published.machine, resolved)


def place_of(conditions: Conditions, machine: Machine, resolved: Resolved) -> Place:
    """Return where a run lies: tokens are those of a die in a step, context the mean that a token attends to."""
    layout = resolved.plan.layout
    decode, isl, osl = conditions.phase == "decode", conditions.isl, conditions.osl
    each = 1 + layout.draft if decode else isl
    return Place(
        phase=conditions.phase,
        chip=machine.chip.spec.name,
        model=resolved.scenario.case.model.name,
        overlap=layout.overlap,
        exchange=layout.exchange,
        precision=conditions.precision,
        dies=layout.dies,
        tokens=layout.batch * each / layout.tp,
        context=isl + osl / 2 if decode else isl / 2,
    )


def distance(one: Place, other: Place) -> float:
    """Return how unlike two rows are in their conditions; infinite across phases.

    The mean of |ln ratio| over dies, tokens of a die in a step and mean context, and 1 for each of chip, model,
    overlap, exchange and precision that differs: another chip counts as a factor e in all three sizes.
    A convention for finding a neighbour, not a measure of error.
    """
    if one.phase != other.phase:
        return math.inf
    sizes = ((one.dies, other.dies), (one.tokens, other.tokens), (one.context, other.context))
    kinds = ("chip", "model", "overlap", "exchange", "precision")
    apart = sum(abs(math.log(a / b)) for a, b in sizes) / len(sizes)
    return apart + sum(bool(getattr(one, kind) != getattr(other, kind)) for kind in kinds)


def nearest(name: str, at: Place, anchors: Iterable[Anchor]) -> tuple[Anchor, float] | None:
    """Return the nearest anchor of the same phase that is not the row itself, and how far it is; none if none."""
    found = [(anchor, distance(at, anchor.place)) for anchor in anchors if anchor.name != name]
    found = [(anchor, far) for anchor, far in found if math.isfinite(far)]
    return min(found, key=lambda pair: (pair[1], pair[0].name), default=None)


def neighbours(at: Place, rows: Iterable[Published], count: int) -> list[tuple[Result, float]]:
    """Return the published rows nearest to a place, scored, and how far each is; of its phase alone."""
    found = [(distance(at, place(row, row.resolved())), row.name, row) for row in rows]
    near = sorted((one for one in found if math.isfinite(one[0])), key=lambda one: one[:2])[:count]
    return [(scored(row), far) for far, _, row in near]


def anchor(published: Published) -> Anchor:
    """Return a row as a neighbour of others."""
    resolved = published.resolved()
    first = published.spec.measured[0]
    error = predicted(resolved)[first.quantity] / first.value - 1
    return Anchor(name=published.name, place=place(published, resolved), slow=turned(first.quantity, error))


def _interval(sure: PoolRange, quantity: str, value: float) -> Interval:
    """Return the interval of a predicted value: rates turn the step's, times and parts of a step share it."""
    relative = sure.relative
    return interval(value / relative if quantity == RATE else value * relative)


def scored(published: Published, left_out: Values | None = None) -> Result:
    """Return a row with its errors and intervals; ``left_out`` are predictions fitted without its source.

    Raises ``UsageError`` where the layout cannot be.
    """
    resolved = published.resolved()
    values, plan, case = predicted(resolved), resolved.plan, resolved.scenario.case
    sure = pool_range(published.machine, plan.layout, plan.family, case, published.spec.ranges)
    scores = tuple(
        Scored(
            quantity=measured.quantity,
            unit=measured.unit,
            measured=measured.value,
            predicted=values[measured.quantity],
            interval=_interval(sure, measured.quantity, values[measured.quantity]),
            left_out=(left_out or {}).get(measured.quantity),
        )
        for measured in published.spec.measured
    )
    times = parts_of(resolved, published.spec.parts) if published.spec.parts else {}
    return Result(
        spec=published.spec,
        place=place(published, resolved),
        fits=resolved.fits,
        scores=scores,
        parts=tuple((part.name, part.value, times[part.name]) for part in published.spec.parts),
    )


def summaries(results: Sequence[Result]) -> list[Summary]:
    """Return golden results apart from reference results: all, then by system, by phase and by source."""
    groupings: dict[str, Callable[[Result], str]] = {
        "all": lambda result: "all",
        "system": lambda result: result.spec.conditions.system,
        "phase": lambda result: result.spec.conditions.phase,
        "source": lambda result: result.spec.source,
    }
    found = []
    for role in ROLES:
        of_role = [result for result in results if result.spec.role == role]
        for by, key in groupings.items():
            for group in dict.fromkeys(map(key, of_role)):
                found.append(_summary(role, by, group, [result for result in of_role if key(result) == group]))
    return found


def _summary(role: str, by: str, group: str, results: list[Result]) -> Summary:
    firsts = [result.scores[0] for result in results]
    errors = [result.slow for result in results]
    without = [turned(s.quantity, e) for s in firsts if (e := s.left_out_error) is not None]
    return Summary(
        role=role,
        by=by,
        group=group,
        results=len(results),
        mean=_mean(map(abs, errors)),
        bias=_mean(errors),
        worst=max(errors, key=abs),
        inside50=_mean(first.inside50 for first in firsts),
        inside90=_mean(first.inside90 for first in firsts),
        score=_mean(first.score for first in firsts),
        left_out_results=len(without),
        left_out_mean=_mean(map(abs, without)) if without else None,
        left_out_bias=_mean(without) if without else None,
        left_out_worst=max(without, key=abs) if without else None,
    )


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def leave_one_source_out(
    rows: Sequence[R], on_file: Sequence[R], fit: Callable[[Sequence[R]], Callable[[R], Values]]
) -> dict[str, Values]:
    """Return predictions of each row by name, fitted without any row of its source.

    ``fit`` takes training rows, the golden ones on file of all other sources, and returns a function that predicts a
    row: values by quantity.  It runs once for each source.  Rows whose source is the only golden one have no
    prediction.
    """
    found: dict[str, Values] = {}
    for source in dict.fromkeys(row.source for row in rows):
        training = [row for row in on_file if row.source != source and row.role == "golden"]
        if not training:
            continue
        predict = fit(training)
        found |= {row.name: predict(row) for row in rows if row.source == source}
    return found


def deployed(spec: DeploymentSpec, model: ModelSpec, machine: Machine) -> Deployed:
    """Return a whole deployment, its pools joined by rate, beside what was measured.

    The samples of both pools are of the same machine, so that the slower pool is found sample by sample.
    Raises ``UsageError`` where a layout cannot be.
    """
    if spec.conditions.mixed or spec.conditions.prefill_system:
        raise UsageError(f"{spec.name}: mixed, or of two systems; allowed here: two pools of one system")
    joined = of_deployment(spec.conditions, model, machine.rates())
    sure: dict[str, Any] = {}
    rates: dict[str, Any] = {}
    for phase, pool, rate in (
        ("prefill", joined.prefill, joined.prefill_requests_per_s),
        ("decode", joined.decode, joined.decode_requests_per_s),
    ):
        sure[phase] = pool_range(machine, pool.plan.layout, pool.plan.family, pool.scenario.case)
        rates[phase] = rate * float(pool.point.step_time) / sure[phase].steps  # type: ignore[arg-type]
    values = joined.quantities()
    per_card = spec.conditions.osl / joined.cards
    slower = [min(pair) * per_card for pair in zip(rates["prefill"], rates["decode"], strict=True)]
    intervals = {RATE: interval(slower), "tpot": sure["decode"].tpot}  # type: ignore[arg-type]
    scores = tuple(
        Scored(
            quantity=measured.quantity,
            unit=measured.unit,
            measured=measured.value,
            predicted=values[measured.quantity],
            interval=intervals[measured.quantity],
        )
        for measured in spec.measured
    )
    return Deployed(spec=spec, joined=joined, scores=scores)


def beside(peers: Sequence[PeerSpec], results: Sequence[Result], known: Sequence[str] | None = None) -> list[Beside]:
    """Return peers' errors beside ours, by row; with ``known``, of those rows only."""
    ours = {(result.spec.name, score.quantity): score.error for result in results for score in result.scores}
    found = []
    for peer in peers:
        for one in peer.results:
            if known is not None and one.row not in known:
                continue
            error = ours.get((one.row, one.quantity))
            found.append(
                Beside(
                    row=one.row,
                    quantity=one.quantity,
                    peer=peer.title,
                    theirs=turned(one.quantity, one.error),
                    ours=None if error is None else turned(one.quantity, error),
                    note=one.note or "",
                )
            )
    return sorted(found, key=lambda one: (one.ours is None, one.row, abs(one.theirs)))
