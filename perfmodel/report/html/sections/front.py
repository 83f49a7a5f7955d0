"""How much throughput each latency allows, and the plan among these."""

from typing import Any

from perfmodel.planning.plan_report import PlanReport
from perfmodel.prediction.deployment import Deployment
from perfmodel.report.html.figure import (
    PHASE_COLOURS,
    RED,
    Figure,
    broken,
    layout_of,
)
from perfmodel.report.html.section import Section
from perfmodel.report.html.words import Words
from perfmodel.report.layout_words import layout_words
from perfmodel.report.quantity import format_quantity
from perfmodel.report.table import Column, Table
from perfmodel.specs.model import ModelSpec


def front_section(report: PlanReport, words: Words) -> Section:
    """Return the front of throughput over latency."""
    return Section(
        name="front",
        title=words.say("front.title"),
        lead=words.say("front.lead"),
        figures=(front(report, words),),
        tables=(_front_table(report, words),),
        notes=(words.say("front.note"),),
    )


def front(report: PlanReport, words: Words) -> Figure:
    """Return the plans that nothing beats in both TPOT and rate per card, and the chosen one."""
    points = sorted(report.front, key=lambda point: point.tpot)
    tpot, rate = next(t.value for t in report.targets if t.name == "tpot"), report.tokens_per_s_per_card
    hover = "%{text}<br>%{x:.2f} ms, %{y:,.0f} /s<extra></extra>"
    data: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": words.say("front.plans"),
            "x": [1e3 * point.tpot for point in points],
            "y": [point.tokens_per_s_per_card for point in points],
            "text": [broken(words.term(plan_in_words(point.deployment, report.run.model))) for point in points],
            "line": {"color": PHASE_COLOURS["decode"], "width": 2, "shape": "hv"},
            "marker": {"size": 8},
            "hovertemplate": hover,
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": words.say("front.chosen"),
            "x": [1e3 * tpot],
            "y": [rate],
            "text": [words.say("front.chosen")],
            "marker": {"size": 16, "symbol": "star", "color": PHASE_COLOURS["prefill"]},
            "hovertemplate": hover,
        },
    ]
    layout = layout_of(words.say("front.x"), y=words.say("front.y"), legend=True, yaxis={"rangemode": "tozero"})
    if report.run.tpot is not None:
        at = 1e3 * report.run.tpot
        layout["shapes"] = [_upright(at)]
        layout["annotations"] = [_said(at, words.say("front.limit"))]
    ends = (points[0], points[-1])
    return Figure(
        name="front",
        caption="",
        label=words.say(
            "front.label",
            count=len(points),
            tpot_low=format_quantity(ends[0].tpot, "s"),
            rate_low=format_quantity(ends[0].tokens_per_s_per_card, "1/s"),
            tpot_high=format_quantity(ends[1].tpot, "s"),
            rate_high=format_quantity(ends[1].tokens_per_s_per_card, "1/s"),
            tpot=format_quantity(tpot, "s"),
            rate=format_quantity(rate, "1/s"),
        ),
        data=tuple(data),
        layout=layout,
        height=400,
    )


def plan_in_words(best: Deployment, model: ModelSpec) -> str:
    """Return a plan in one phrase: its instances and the layout of decode."""
    return f"{best.short_form}, {layout_words(best.decode, model)}"


def _upright(x: float) -> dict[str, Any]:
    line = {"color": RED, "width": 1.5, "dash": "dash"}
    return {"type": "line", "xref": "x", "yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1, "line": line}


def _said(x: float, text: str) -> dict[str, Any]:
    return {
        "x": x,
        "y": 1,
        "xref": "x",
        "yref": "paper",
        "text": text,
        "showarrow": False,
        "xanchor": "right",
        "xshift": -4,
    }


def _front_table(report: PlanReport, words: Words) -> Table:
    columns = (
        Column("tpot", "TPOT", "s"),
        Column("rate", "tokens/s per card", "1/s"),
        Column("plan", "plan"),
    )
    rows = [
        {"tpot": one.tpot, "rate": one.tokens_per_s_per_card, "plan": plan_in_words(one.deployment, report.run.model)}
        for one in sorted(report.front, key=lambda one: one.tpot)
    ]
    return Table(words.say("front.title"), columns, tuple(rows))
