"""Errors of published rows by role, system, phase and source, in one line each."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from perfmodel.scoring.validation import Result, turned

ROLES = ("golden", "reference")


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
