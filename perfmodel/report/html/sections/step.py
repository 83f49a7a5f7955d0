"""Where the time of a step goes, part by part."""

from typing import Any

from perfmodel.planning.plan_report import PlanReport, PoolReport
from perfmodel.prediction.breakdown import WAITS
from perfmodel.report.html.figure import (
    GREEN,
    GREY,
    PHASE_COLOURS,
    Figure,
    bars_height,
    layout_of,
    names_axis,
    percent,
    readable,
)
from perfmodel.report.html.section import Section, of_pool
from perfmodel.report.html.words import Words
from perfmodel.report.quantity import format_quantity
from perfmodel.report.table import Column, Table


def step_section(report: PlanReport, words: Words) -> Section:
    """Return where the time of a step goes, pool by pool."""
    tables = []
    for pool in report.pools.values():
        whole = pool.parts.step_time
        rows = [{"part": words.part(k), "time": v, "share": v / whole} for k, v in parts_of_step(pool).items()]
        rows.append({"part": words.say("step.total"), "time": whole, "share": 1.0})
        columns = (Column("part", "part"), Column("time", "time", "s"), Column("share", "share", "%"))
        tables.append(of_pool(pool, Table(words.say("step.title"), columns, tuple(rows)), words))
    return Section(
        name="step",
        title=words.say("step.title"),
        lead=words.say("step.lead"),
        figures=tuple(step(pool, words) for pool in report.pools.values()),
        tables=tuple(tables),
        notes=_between_steps(report, words),
    )


def _between_steps(report: PlanReport, words: Words) -> tuple[str, ...]:
    """Return what prefill between two decode steps costs, where instances are mixed."""
    if not report.run.mixed:
        return ()
    added, gap = (format_quantity(value, "s") for value in (report.best.tpot_added, report.best.longest_gap))
    return (words.say("step.mixed", added=added, gap=gap, tpot=format_quantity(report.best.tpot, "s")),)


def parts_of_step(pool: PoolReport) -> dict[str, float]:
    """Return the time of a step by part of the model, the largest first, what is taken off last; they add up to it."""
    parts: dict[str, float] = {}
    waits = {row.name for row in pool.parts.rows if row.part == WAITS}
    for name, time in pool.parts.by_operator().items():
        part = name if name in waits else name.split(".")[0]
        parts[part] = parts.get(part, 0.0) + time
    return dict(sorted(parts.items(), key=lambda item: -item[1]))


def step(pool: PoolReport, words: Words) -> Figure:
    """Return the waterfall of a step."""
    times = parts_of_step(pool)
    whole = pool.parts.step_time
    total = words.say("step.total")
    names = [words.part(name) for name in times] + [total]
    scale, unit = readable(whole)
    values = [scale * time for time in (*times.values(), whole)]
    largest = max(times, key=lambda name: times[name])
    data = {
        "type": "waterfall",
        "orientation": "h",
        "y": names,
        "x": values,
        "measure": ["relative"] * len(times) + ["total"],
        "text": [format_quantity(time, "s") for time in (*times.values(), whole)],
        "textposition": "outside",
        "cliponaxis": False,
        "increasing": {"marker": {"color": PHASE_COLOURS[pool.phase]}},
        "decreasing": {"marker": {"color": GREEN}},
        "totals": {"marker": {"color": GREY}},
        "connector": {"line": {"color": GREY, "width": 1, "dash": "dot"}},
        "hovertemplate": "%{y}: %{text}<extra></extra>",
    }
    return Figure(
        name=f"step-{pool.phase}",
        caption=words.say("step.caption", phase=words.term(pool.phase).capitalize(), time=format_quantity(whole, "s")),
        label=words.say(
            "step.label",
            phase=words.term(pool.phase),
            time=format_quantity(whole, "s"),
            largest=words.part(largest),
            share=percent(times[largest] / whole),
        ),
        data=(data,),
        layout=layout_of(
            words.say("step.x", unit=unit),
            yaxis=names_axis(names),
            xaxis={"range": [0, 1.16 * scale * max(whole, _highest(times.values()))]},
        ),
        height=bars_height(len(names)),
        names=tuple(names),
    )


def _highest(times: Any) -> float:
    """Return the highest point that running sums reach."""
    at = highest = 0.0
    for time in times:
        at += time
        highest = max(highest, at)
    return highest
