"""The plots of a report as figures of plotly.js: plain dictionaries, no numbers of their own."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from perfmodel.algebra import as_float
from perfmodel.planning.dossier import PlanReport, PoolReport, Site
from perfmodel.planning.what_if import Effect
from perfmodel.prediction.breakdown import WAITS, Row
from perfmodel.prediction.timeline import Stream, Timeline
from perfmodel.report.html import topology
from perfmodel.report.html.words import Words
from perfmodel.report.layout_words import layout_words
from perfmodel.report.plan import counts_in_words
from perfmodel.report.quantity import format_quantity
from perfmodel.report.wrap import wrap
from perfmodel.scoring.validation import Result, Scored
from perfmodel.solver.plan import Deployment, PoolPlan
from perfmodel.specs.deployment import Phase
from perfmodel.supply.rates import Rates

# colours that keep a contrast of 3 on white and on the dark ground
PHASES: Mapping[Phase, str] = {"prefill": "#c2702b", "decode": "#2f7fb8"}
GREY, GREEN, RED, VIOLET, GOLD = "#75808f", "#2e9467", "#cf5353", "#8a68c4", "#a98320"
PARTS = {
    "attention": PHASES["decode"],
    "experts": PHASES["prefill"],
    "shared": GOLD,
    "exchange": VIOLET,
    "router": GREEN,
}
MAKERS = {
    "layout": GREEN,
    "stack": PHASES["decode"],
    "to build": PHASES["prefill"],
    "traffic": VIOLET,
    "bound": GREY,
    "hardware": GOLD,
}
MOST_BARS = 12
BAR = 30  # px
THIN = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A plot: what it shows in a sentence, what plotly draws, and what changes on a narrow screen."""

    name: str
    caption: str
    label: str
    data: tuple[dict[str, Any], ...]
    layout: dict[str, Any]
    height: int
    narrow: Mapping[str, Any] = field(default_factory=dict)
    #: names of bars, the first on top; on a narrow screen they stand above their bars
    names: tuple[str, ...] = ()


def _percent(share: float, signed: bool = False) -> str:
    return f"{100 * share:{'+' if signed else ''}.1f} %"


def _readable(time: float) -> tuple[float, str]:
    """Return what to multiply seconds by for an axis up to a time, and the unit."""
    return (1.0, "s") if time >= LONG else (1e3, "ms") if time >= LONG / 1e3 else (1e6, "us")


LONG = 3.0  # of a unit, from which an axis is drawn in it


def _bars(rows: int, each: int = BAR) -> int:
    return 74 + each * max(rows, 1)


LEGEND_BELOW = {"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom", "traceorder": "normal"}


def _layout(x: str, *, y: str = "", legend: bool = False, **more: Any) -> dict[str, Any]:
    return {
        "xaxis": {"title": {"text": x}, "zeroline": True, "automargin": True, **more.pop("xaxis", {})},
        "yaxis": {
            "title": {"text": y, "standoff": 12},
            "automargin": True,
            "ticklabelstandoff": 6,
            **more.pop("yaxis", {}),
        },
        "showlegend": legend,
        "margin": {"l": 8, "r": 16, "t": 34 if legend else 8, "b": 44},
        **more,
    }


def _names(names: Sequence[str]) -> dict[str, Any]:
    """Return an axis of names, the first on top."""
    return {"type": "category", "categoryorder": "array", "categoryarray": list(names)[::-1], "showgrid": False}


# --- throughput against latency -----------------------------------------------------------------------


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
            "text": [_broken(words.term(plan_in_words(point.deployment))) for point in points],
            "line": {"color": PHASES["decode"], "width": 2, "shape": "hv"},
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
            "marker": {"size": 16, "symbol": "star", "color": PHASES["prefill"]},
            "hovertemplate": hover,
        },
    ]
    layout = _layout(words.say("front.x"), y=words.say("front.y"), legend=True, yaxis={"rangemode": "tozero"})
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


def plan_in_words(best: Deployment) -> str:
    """Return a plan in one phrase: its instances and the layout of decode."""
    return f"{counts_in_words(best)}, {layout_words(best.decode)}"


HOVER_WIDTH = 60


def _broken(text: str) -> str:
    """Return words on lines that fit beside a pointer."""
    return "<br>".join(wrap(text, HOVER_WIDTH))


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


# --- one step --------------------------------------------------------------------------------------------


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
    scale, unit = _readable(whole)
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
        "increasing": {"marker": {"color": PHASES[pool.phase]}},
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
            share=_percent(times[largest] / whole),
        ),
        data=(data,),
        layout=_layout(
            words.say("step.x", unit=unit),
            yaxis=_names(names),
            xaxis={"range": [0, 1.16 * scale * max(whole, _highest(times.values()))]},
        ),
        height=_bars(len(names)),
        names=tuple(names),
    )


def _highest(times: Any) -> float:
    """Return the highest point that running sums reach."""
    at = highest = 0.0
    for time in times:
        at += time
        highest = max(highest, at)
    return highest


def _idle(stream: Stream, drawn: Timeline) -> float:
    """Return the time of a layer in which a stream does not work."""
    return max(0.0, drawn.layer - stream.works)


def streams(pool: PoolReport, words: Words) -> Figure:
    """Return the streams of one expert layer."""
    drawn = pool.timeline
    scale, unit = _readable(drawn.layer)
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
        words.say("streams.busy", lane=words.term(one.name), share=_percent(1 - _idle(one, drawn) / drawn.layer))
        for one in drawn.streams
    )
    time = format_quantity(drawn.layer, "s")
    layout = _layout(
        words.say("streams.x", unit=unit),
        yaxis=_names(list(lanes.values())),
        xaxis={"range": [0, scale * drawn.layer]},
        barmode="overlay",
        bargap=0.35,
        legend=True,
    )
    layout["legend"] = LEGEND_BELOW
    layout["margin"] = {"l": 8, "r": 16, "t": 8, "b": 90}
    return Figure(
        name=f"streams-{pool.phase}",
        caption=words.say("streams.caption", phase=words.term(pool.phase).capitalize(), time=time),
        label=words.say("streams.label", phase=words.term(pool.phase), time=time, lanes=told),
        data=tuple(data),
        layout=layout,
        height=110 + 62 * len(lanes),
        narrow={"margin.b": 150, "height": 170 + 62 * len(lanes)},
    )


# --- operators and memory ----------------------------------------------------------------------------------


def _work(row: Row) -> tuple[float, float, float]:
    """Return FLOP, bytes and seconds of all runs of an operator."""
    op = row.timed.op
    touched = as_float(op.weight_bytes + op.kv_bytes + op.activation_bytes)
    return row.runs * as_float(op.flop), row.runs * touched, row.total


def worked(pool: PoolReport) -> list[Row]:
    """Return the operators of a step that have both arithmetic and bytes."""
    return [row for row in pool.parts.rows if all(value > 0 for value in _work(row))]


def roofline(report: PlanReport, site: Site, words: Words) -> Figure:
    """Return all operators of a system that do arithmetic under the roofs of its die."""
    rates: Any = site.rates
    several = len(report.sites) > 1
    data: list[dict[str, Any]] = []
    best, count = 0.0, 0
    for phase in site.phases:
        pool = report.pools[phase]
        rows = worked(pool)
        count += len(rows)
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
                        share=_percent(share),
                        bound=words.term(row.timed.bound, "bound"),
                    )
                    for row, share in zip(rows, shares, strict=True)
                ],
                "marker": {
                    "color": PHASES[phase],
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
    peaks = {name: as_float(rates.peak(name)) for name in ("cube_int8", "cube_bf16", "vector")}
    lines = [_roof([peak / streamed["l2"], high], [peak, peak]) for peak in peaks.values()]
    tops = [max(peaks.values()) / rate for rate in streamed.values()]
    lines += [_roof([low, top], [rate * low, rate * top]) for rate, top in zip(streamed.values(), tops, strict=True)]
    for line, name in zip(lines, (*peaks, *streamed), strict=True):
        line["text"] = [words.say(f"roofline.{name}") + " ", ""]
    layout = _layout(
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
        label=words.say("roofline.label", count=count, best=_percent(best)),
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


MEMORY_COLOURS = (PHASES["decode"], PHASES["prefill"], VIOLET, GOLD, GREEN, "#9aa5b3", "#d3d9e0")


def held_in(plan: PoolPlan, rates: Rates) -> dict[str, float]:
    """Return what fills the memory of a pool's die, as planned; it adds up to all there is."""
    point = plan.point
    held, usable, capacity = point.footprint, as_float(point.usable), as_float(rates.capacity)
    filled = {"KV cache": held.kv, "exchange buffers": held.buffers, "working space": held.workspace}
    parts = {name: as_float(size) for name, size in filled.items()}
    parts = {"weights": as_float(held.planned) - sum(parts.values()), **parts, "runtime": as_float(rates.runtime)}
    return {**parts, "reserve": capacity - usable - parts["runtime"], "free": usable - as_float(held.planned)}


def memory(report: PlanReport, words: Words) -> Figure:
    """Return what fills the memory of a die in each pool."""
    names = [topology.called(phase, report, words) for phase in report.held]
    held = [held_in(plan, report.pools[phase].rates) for phase, plan in report.held.items()]
    data = []
    for name, colour in zip(held[0], MEMORY_COLOURS, strict=True):
        values = [one[name] for one in held]
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": words.term(name),
                "y": names,
                "x": [value / 1e9 for value in values],
                "text": [format_quantity(value, "B") for value in values],
                "textposition": "none",
                "hovertemplate": "%{fullData.name}: %{text}<extra></extra>",
                "marker": {"color": colour},
            }
        )
    told = words.say("join").join(
        words.say(
            "memory.label_pool",
            phase=name,
            used=format_quantity(plan.point.memory, "B"),
            usable=format_quantity(plan.point.usable, "B"),
        )
        for name, plan in zip(names, report.held.values(), strict=True)
    )
    layout = _layout(
        words.say("memory.x"),
        yaxis=_names(names),
        barmode="stack",
        bargap=0.4,
        legend=True,
    )
    layout["legend"] = LEGEND_BELOW
    layout["margin"] = {"l": 8, "r": 16, "t": 8, "b": 110}
    return Figure(
        name="memory",
        caption="",
        label=words.say("memory.label", pools=told),
        data=tuple(data),
        layout=layout,
        height=170 + 50 * len(names),
        narrow={"margin.b": 210, "height": 270 + 50 * len(names)},
    )


# --- what moves the answer ------------------------------------------------------------------------------------


def felt(output: str, report: PlanReport, words: Words) -> Figure | None:
    """Return the tornado of one output; none where no assumed input moves it."""
    rows = sorted(report.felt, key=lambda one: -max(map(abs, one.changes[output])))[:MOST_BARS]
    rows = [one for one in rows if max(map(abs, one.changes[output])) > SMALLEST]
    if not rows:
        return None
    names = [one.name for one in rows]

    def bars(end: int, colour: str, value: Any) -> dict[str, Any]:
        return {
            "type": "bar",
            "orientation": "h",
            "y": names,
            "x": [100 * one.changes[output][end] for one in rows],
            "text": [f"{one.figure.text} → {value(one):.4g}" for one in rows],
            "textposition": "none",
            "name": words.say(("felt.low", "felt.high")[end]),
            "marker": {"color": colour},
            "hovertemplate": "%{y}<br>%{text}: %{x:+.2f} %<extra></extra>",
        }

    name = words.term(output)
    low, high = rows[0].changes[output]
    return Figure(
        name=f"felt-{output.lower()}",
        caption=words.say("felt.caption", output=name),
        label=words.say(
            "felt.label",
            output=name,
            largest=names[0],
            low=_percent(low, signed=True),
            high=_percent(high, signed=True),
        ),
        data=(bars(0, PHASES["decode"], lambda one: one.low), bars(1, PHASES["prefill"], lambda one: one.high)),
        layout=_layout(words.say("felt.x"), yaxis=_names(names), barmode="overlay", bargap=0.35, legend=True),
        height=_bars(len(names), THIN) + 30,
        names=tuple(names),
    )


SMALLEST = 5e-4  # of a change that is drawn


def worth(effects: Sequence[Effect], name: str, caption: str, words: Words) -> Figure | None:
    """Return what techniques are worth, the largest change first, with 90 % intervals."""
    shown = [one for one in effects if abs(one.gain) > SMALLEST][:MOST_BARS]
    if not shown:
        return None
    names = [words.term(one.change.label) for one in shown]
    data = []
    for by in dict.fromkeys(one.change.by for one in shown):
        own = [one for one in shown if one.change.by == by]
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": words.term(by, "by"),
                "y": [words.term(one.change.label) for one in own],
                "x": [100 * one.gain for one in own],
                "text": [
                    _broken(
                        words.say(
                            "worth.point",
                            now=words.term(one.change.now),
                            setting=one.change.setting,
                            why=words.term(one.why),
                        )
                    )
                    for one in own
                ],
                "textposition": "none",
                "hovertemplate": "%{y}: %{x:+.1f} %<br>%{text}<extra></extra>",
                "marker": {"color": MAKERS[by]},
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [100 * max(0.0, one.sure.high90 - one.gain) for one in own],
                    "arrayminus": [100 * max(0.0, one.gain - one.sure.low90) for one in own],
                    "color": GREY,
                    "thickness": 1.4,
                    "width": 4,
                },
            }
        )
    return Figure(
        name=name,
        caption=caption,
        label=words.say("worth.label", count=len(shown), largest=names[0], gain=_percent(shown[0].gain, signed=True)),
        data=tuple(data),
        layout=_layout(words.say("worth.x"), yaxis=_names(names), barmode="overlay", bargap=0.35, legend=True),
        height=_bars(len(names), THIN) + 30,
        names=tuple(names),
    )


def _first(result: Any) -> Scored:
    scored: Scored = result.scores[0]
    return scored


def near(report: PlanReport, words: Words) -> Figure:
    """Return the errors of predictions for published results near the plan, with their 90 % intervals."""
    sets: list[tuple[str, str, list[Any]]] = [
        (words.term(phase), PHASES[phase], [result for result, _ in pool.near]) for phase, pool in report.pools.items()
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
            mean=_percent(sum(map(abs, errors.values())) / len(errors)),
            worst=_percent(errors[worst], signed=True),
            name=worst,
        ),
        data=tuple(data),
        layout=_layout(words.say("near.x"), yaxis=_names(names), legend=True),
        height=_bars(len(names), THIN) + 30,
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
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [100 * max(0.0, one.interval.high90 - one.predicted) / one.measured for one in scores],
            "arrayminus": [100 * max(0.0, one.predicted - one.interval.low90) / one.measured for one in scores],
            "color": colour,
            "thickness": 1.6,
            "width": 4,
        },
    }
