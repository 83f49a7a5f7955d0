"""How well published results near the plan are predicted."""

from collections.abc import Sequence
from typing import Any

from perfmodel.planning.plan_report import PlanReport
from perfmodel.report.html.figure import (
    GREEN,
    PHASE_COLOURS,
    THIN,
    Figure,
    bars_height,
    error_bars,
    layout_of,
    names_axis,
    percent,
)
from perfmodel.report.html.section import Section
from perfmodel.report.html.words import Words
from perfmodel.report.quantity import format_quantity
from perfmodel.report.table import Column, Table
from perfmodel.scoring.validation import Result, Scored


def published_section(report: PlanReport, words: Words) -> Section:
    """Return the published results near the plan beside their predictions."""
    return Section(
        name="near",
        title=words.say("near.title"),
        lead=words.say("near.lead"),
        figures=(near(report, words),),
        tables=(_near_table(report, words),),
        notes=(words.say("near.note"),),
    )


def near(report: PlanReport, words: Words) -> Figure:
    """Return the errors of predictions for published results near the plan, with their 90 % intervals."""
    sets: list[tuple[str, str, list[Any]]] = [
        (words.term(phase), PHASE_COLOURS[phase], [result for result, _ in pool.near])
        for phase, pool in report.pools.items()
    ]
    sets.append((words.say("near.deployed"), GREEN, list(report.deployed)))
    sets = [one for one in sets if one[2]]
    names = [result.spec.name for _, _, results in sets for result in results]
    data = [_errors(name, colour, results, words) for name, colour, results in sets]
    errors = {result.spec.name: _first(result).error for _, _, results in sets for result in results}
    worst = max(errors, key=lambda name: abs(errors[name]))
    return Figure(
        name="near",
        caption="",
        label=words.say(
            "near.label",
            count=len(errors),
            mean=percent(sum(map(abs, errors.values())) / len(errors)),
            worst=percent(errors[worst], signed=True),
            name=worst,
        ),
        data=tuple(data),
        layout=layout_of(words.say("near.x"), yaxis=names_axis(names), legend=True),
        height=bars_height(len(names), THIN) + 30,
        names=tuple(names),
    )


def _errors(name: str, colour: str, results: Sequence[Result | Any], words: Words) -> dict[str, Any]:
    scores = [_first(result) for result in results]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "y": [result.spec.name for result in results],
        "x": [100 * one.error for one in scores],
        "text": [
            words.say(
                "near.point",
                quantity=words.term(one.quantity.replace("_", " ")),
                predicted=format_quantity(one.predicted, one.unit),
                measured=format_quantity(one.measured, one.unit),
            )
            for one in scores
        ],
        "marker": {"size": 10, "color": colour},
        "hovertemplate": "%{y}: %{x:+.1f} %<br>%{text}<extra></extra>",
        "error_x": error_bars(
            [100 * (one.interval.high90 - one.predicted) / one.measured for one in scores],
            [100 * (one.predicted - one.interval.low90) / one.measured for one in scores],
            colour,
            1.6,
        ),
    }


def _first(result: Any) -> Scored:
    scored: Scored = result.scores[0]
    return scored


def _near_table(report: PlanReport, words: Words) -> Table:
    def cells(name: str, near_to: str, far: float | None, score: Scored, source: Any) -> dict[str, Any]:
        return {
            "row": name,
            "to": near_to,
            "distance": far,
            "quantity": score.quantity.replace("_", " "),
            "unit": score.unit,
            "measured": score.measured,
            "predicted": score.predicted,
            "low": score.interval.low90,
            "high": score.interval.high90,
            "error": score.error,
            "source": source.title,
        }

    rows = [
        cells(result.spec.name, words.term(phase), far, score, result.spec.sources[result.spec.source])
        for phase, pool in report.pools.items()
        for result, far in pool.near
        for score in result.scores
    ]
    rows += [
        cells(one.spec.name, words.say("near.deployed"), None, score, one.spec.sources[one.spec.source])
        for one in report.deployed
        for score in one.scores
    ]
    columns = (
        Column("row", "published row"),
        Column("to", "near"),
        Column("distance", "distance", "1"),
        Column("quantity", "quantity"),
        Column("unit", "unit"),
        Column("measured", "published", "row"),
        Column("predicted", "predicted", "row"),
        Column("low", "90 % low", "row"),
        Column("high", "90 % high", "row"),
        Column("error", "error", "%"),
        Column("source", "source"),
    )
    return Table(words.say("near.title"), columns, tuple(rows))
