"""When each operator of an expert layer runs, and which stream waits."""

from typing import Any

from perfmodel.planning.plan_report import PlanReport, PoolReport
from perfmodel.prediction.timeline import Stream, Timeline
from perfmodel.report.html.figure import (
    GOLD,
    GREEN,
    GREY,
    PHASE_COLOURS,
    VIOLET,
    Figure,
    layout_of,
    names_axis,
    percent,
    readable,
    with_legend_below,
)
from perfmodel.report.html.section import Section, of_pool
from perfmodel.report.html.words import Words
from perfmodel.report.operators import block_table
from perfmodel.report.quantity import format_quantity
from perfmodel.report.table import Column, Table

PARTS = {
    "attention": PHASE_COLOURS["decode"],
    "experts": PHASE_COLOURS["prefill"],
    "shared": GOLD,
    "exchange": VIOLET,
    "router": GREEN,
}


def timeline_section(report: PlanReport, words: Words) -> Section:
    """Return the streams of one expert layer, pool by pool."""
    tables = []
    columns = (
        Column("lane", "stream"),
        Column("batch", "micro-batch", "1"),
        Column("name", "operator"),
        Column("start", "begins at", "s"),
        Column("length", "lasts", "s"),
    )
    for pool in report.pools.values():
        rows = [
            {"lane": words.term(s.stream), "batch": s.micro_batch, "name": s.name, "start": s.start, "length": s.time}
            for s in pool.timeline.segments
        ]
        tables.append(of_pool(pool, Table(words.say("streams.title"), columns, tuple(rows)), words))
        tables.append(of_pool(pool, block_table(pool.parts), words))
    return Section(
        name="streams",
        title=words.say("streams.title"),
        lead=words.say("streams.lead", layers=f"{report.pools['decode'].timeline.count:g}"),
        figures=tuple(streams(pool, words) for pool in report.pools.values()),
        tables=tuple(tables),
        notes=(words.say("streams.note"),),
    )


def _idle(stream: Stream, drawn: Timeline) -> float:
    """Return the time of a layer in which a stream does not work."""
    return max(0.0, drawn.layer - stream.works)


def streams(pool: PoolReport, words: Words) -> Figure:
    """Return the streams of one expert layer."""
    drawn = pool.timeline
    scale, unit = readable(drawn.layer)
    lanes = {
        one.name: words.say("streams.lane", lane=words.term(one.name), idle=format_quantity(_idle(one, drawn), "s"))
        for one in drawn.streams
    }
    kinds: dict[tuple[str, int], list[Any]] = {}
    for one in drawn.segments:
        kinds.setdefault((one.name.split(".")[0], one.micro_batch), []).append(one)
    data = []
    for (part, batch), spans in kinds.items():
        name = words.part(part)
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": name,
                "legendgroup": part,
                "showlegend": batch == 1,
                "y": [lanes[one.stream] for one in spans],
                "base": [scale * one.start for one in spans],
                "x": [scale * one.time for one in spans],
                "text": [
                    words.say("streams.span", name=one.name, batch=batch, time=format_quantity(one.time, "s"))
                    for one in spans
                ],
                "textposition": "none",
                "hovertemplate": "%{text}<extra></extra>",
                "marker": {
                    "color": PARTS.get(part, GREY),
                    "line": {"color": "rgba(255,255,255,.65)", "width": 0.6},
                    "opacity": 1.0 if batch == 1 else 0.55,
                },
            }
        )
    told = words.say("join").join(
        words.say("streams.busy", lane=words.term(one.name), share=percent(1 - _idle(one, drawn) / drawn.layer))
        for one in drawn.streams
    )
    time = format_quantity(drawn.layer, "s")
    layout = layout_of(
        words.say("streams.x", unit=unit),
        yaxis=names_axis(list(lanes.values())),
        xaxis={"range": [0, scale * drawn.layer]},
        barmode="overlay",
        bargap=0.35,
        legend=True,
    )
    return Figure(
        name=f"streams-{pool.phase}",
        caption=words.say("streams.caption", phase=words.term(pool.phase).capitalize(), time=time),
        label=words.say("streams.label", phase=words.term(pool.phase), time=time, lanes=told),
        data=tuple(data),
        layout=with_legend_below(layout, 90),
        height=110 + 62 * len(lanes),
        narrow={"margin.b": 150, "height": 170 + 62 * len(lanes)},
    )
