"""How near each operator is to the limits of its die."""

import math
from typing import Any

from perfmodel.algebra import as_float
from perfmodel.planning.plan_report import PlanReport, PoolReport
from perfmodel.planning.systems_in_use import Site
from perfmodel.prediction.breakdown import Row
from perfmodel.report.html.figure import (
    GREY,
    PHASE_COLOURS,
    Figure,
    layout_of,
    percent,
)
from perfmodel.report.html.section import Section, of_pool
from perfmodel.report.html.words import Words
from perfmodel.report.operators import operator_table, work_of
from perfmodel.report.quantity import format_quantity

#: engines whose roofs are drawn whether an operator runs on them or not
ALWAYS = ("cube_int8", "cube_bf16", "vector")


def roofline_section(report: PlanReport, words: Words) -> Section:
    """Return the operators of each pool under the roofs of their dies."""
    return Section(
        name="roofline",
        title=words.say("roofline.title"),
        lead=words.say("roofline.lead"),
        figures=tuple(roofline(report, site, words) for site in report.sites),
        tables=tuple(
            of_pool(pool, operator_table(pool.parts, pool.parts.rows, [None] * len(pool.parts.rows)), words)
            for pool in report.pools.values()
        ),
        notes=(words.say("roofline.note"),),
    )


def _work(row: Row) -> tuple[float, float, float]:
    """Return FLOP, bytes and seconds of all runs of an operator."""
    work = work_of(row)
    return work["flop"], work["bytes"], row.total


def worked(pool: PoolReport) -> list[Row]:
    """Return the operators of a step that have both arithmetic and bytes."""
    return [row for row in pool.parts.rows if all(value > 0 for value in _work(row))]


def roofline(report: PlanReport, site: Site, words: Words) -> Figure:
    """Return all operators of a system that do arithmetic under the roofs of its die."""
    rates = site.rates
    several = len(report.sites) > 1
    data: list[dict[str, Any]] = []
    best, count = 0.0, 0
    used: set[str] = set()
    for phase in site.phases:
        pool = report.pools[phase]
        rows = worked(pool)
        count += len(rows)
        used |= {row.timed.op.engine for row in rows}
        shares = [row.total / pool.parts.step_time for row in rows]
        points = [_work(row) for row in rows]
        best = max(
            [
                best,
                *(
                    f / t / as_float(rates.peak(row.timed.op.engine))
                    for row, (f, _, t) in zip(rows, points, strict=True)
                ),
            ]
        )
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": words.term(phase),
                "x": [flop / moved for flop, moved, _ in points],
                "y": [flop / time for flop, _, time in points],
                "text": [
                    words.say(
                        "roofline.point",
                        name=row.name,
                        block=words.term(row.block.replace("_", " ")),
                        share=percent(share),
                        bound=words.term(row.timed.bound, "bound"),
                    )
                    for row, share in zip(rows, shares, strict=True)
                ],
                "marker": {
                    "color": PHASE_COLOURS[phase],
                    "symbol": "circle" if phase == "decode" else "diamond",
                    "opacity": 0.85,
                    "size": [7 + 40 * share**0.5 / 2 for share in shares],
                    "line": {"width": 0.8, "color": "#ffffff"},
                },
                "hovertemplate": "%{fullData.name} %{text}<br>%{y:.3s}FLOP/s, %{x:.3g} FLOP/B<extra></extra>",
            }
        )
    low, high = (end(value for trace in data for value in trace["x"]) for end in (min, max))
    low, high = low / 2, high * 2
    streamed = {"memory": as_float(rates.hbm_bandwidth), "l2": as_float(rates.l2_rate)}
    peaks = {name: as_float(rates.peak(name)) for name in (*sorted(used - {*ALWAYS}), *ALWAYS)}
    lines = [_roof([peak / streamed["l2"], high], [peak, peak]) for peak in peaks.values()]
    tops = [max(peaks.values()) / rate for rate in streamed.values()]
    lines += [_roof([low, top], [rate * low, rate * top]) for rate, top in zip(streamed.values(), tops, strict=True)]
    for line, name in zip(lines, (*peaks, *streamed), strict=True):
        line["text"] = [words.say(f"roofline.{name}") + " ", ""]
    layout = layout_of(
        words.say("roofline.x"),
        legend=True,
        xaxis={"type": "log", **_decades(low / 8, high, ""), "zeroline": False},
        yaxis={
            "type": "log",
            **_decades(min(y for one in (*lines, *data) for y in one["y"]) / 2, 2 * max(peaks.values()), "FLOP/s"),
        },
    )
    return Figure(
        name=f"roofline-{site.phases[0]}" if several else "roofline",
        caption=site.machine.system.spec.title if several else "",
        label=words.say("roofline.label", count=count, best=percent(best)),
        data=(*lines, *data),
        layout=layout,
        height=460,
        narrow={"xaxis.range": [math.log10(low / 90), math.log10(high)]},
    )


def _decades(low: float, high: float, unit: str) -> dict[str, Any]:
    """Return a logarithmic axis with a tick at every power of ten."""
    powers = [10.0**n for n in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
    names = [f"{format_quantity(value, unit).replace('.00', '')}" if unit else f"{value:g}" for value in powers]
    return {"range": [math.log10(low), math.log10(high)], "tickvals": powers, "ticktext": names}


def _roof(x: list[float], y: list[float]) -> dict[str, Any]:
    """Return the line of a limit, its name at its left end."""
    return {
        "type": "scatter",
        "mode": "lines+text",
        "x": x,
        "y": y,
        "textposition": "middle left",
        "line": {"color": GREY, "width": 1.5},
        "showlegend": False,
        "hoverinfo": "skip",
    }
