"""Errors and intervals of published numbers in one line each: all, by kind of source, system, phase and source."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from perfmodel.scoring.deployments import Deployed
from perfmodel.scoring.validation import Result, Scored, turned
from perfmodel.specs.evidence import PERCENTILE, RATES, DeploymentSpec, EvidenceSpec

#: how a number is predicted: as if its source had never been read, or with all that is on file
LEFT_OUT, IN_SAMPLE = "left out", "in sample"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """A published number that counts in summaries, and what it is summed up by."""

    role: str
    measured_on: str
    system: str
    phase: str
    source: str
    score: Scored


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Errors of some numbers, turned so that above is slow, and how their intervals hold."""

    predicted: str
    by: str
    group: str
    results: int
    mean: float
    bias: float
    worst: float
    inside50: float
    inside90: float
    #: mean half-width of the 90 % intervals, relative to the predicted value
    half: float
    score: float


def quantity_of(one: Counted) -> str:
    """Return which kind of quantity a number is."""
    if one.score.quantity in RATES:
        return "rate"
    return "first token" if PERCENTILE.sub("", one.score.quantity) == "ttft" else "step or TPOT"


GROUPINGS: dict[str, Callable[[Counted], str]] = {
    "all": lambda one: "all",
    "measured on": lambda one: one.measured_on,
    "quantity": quantity_of,
    "role": lambda one: one.role,
    "system": lambda one: one.system,
    "phase": lambda one: one.phase,
    "source": lambda one: one.source,
}


def counted(results: Iterable[Result], deployed: Iterable[Deployed]) -> list[Counted]:
    """Return what counts: the first quantity of each step, and every quantity that clients measured."""
    found = []
    for one in results:
        conditions = one.spec.conditions
        mixed = conditions.serving == "mixed"
        phase = "mixed" if mixed else conditions.phase
        found += [_counted(one.spec, conditions.system, phase, score) for score in one.scores[: None if mixed else 1]]
    for each in deployed:
        system = each.spec.conditions.system
        found += [_counted(each.spec, system, "deployment", score) for score in each.scores]
    return found


def _counted(spec: EvidenceSpec | DeploymentSpec, system: str, phase: str, score: Scored) -> Counted:
    return Counted(
        role=spec.role,
        measured_on=spec.measured_on,
        system=system,
        phase=phase,
        source=spec.source,
        score=score,
    )


def summaries(numbers: Sequence[Counted]) -> list[Summary]:
    """Return the numbers left out by source first, then those in sample: all of them, then by each grouping."""
    found = []
    for predicted in (LEFT_OUT, IN_SAMPLE):
        for by, key in GROUPINGS.items():
            for group in dict.fromkeys(map(key, numbers)):
                chosen = [one.score for one in numbers if key(one) == group]
                scores = [one.left_out for one in chosen if one.left_out] if predicted == LEFT_OUT else chosen
                if scores:
                    found.append(_summary(predicted, by, group, scores))
    return found


def _summary(predicted: str, by: str, group: str, scores: Sequence[Scored]) -> Summary:
    errors = [turned(one.quantity, one.error) for one in scores]
    return Summary(
        predicted=predicted,
        by=by,
        group=group,
        results=len(scores),
        mean=_mean(map(abs, errors)),
        bias=_mean(errors),
        worst=max(errors, key=abs),
        inside50=_mean(one.inside50 for one in scores),
        inside90=_mean(one.inside90 for one in scores),
        half=_mean((one.interval.high90 - one.interval.low90) / 2 / one.predicted for one in scores),
        score=_mean(one.score for one in scores),
    )


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
