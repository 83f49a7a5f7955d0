"""What fills the memory of a die in each pool."""

from perfmodel.algebra import as_float
from perfmodel.planning.plan_report import PlanReport
from perfmodel.prediction.deployment import PoolPlan
from perfmodel.report.html.figure import (
    GOLD,
    GREEN,
    PHASE_COLOURS,
    VIOLET,
    Figure,
    layout_of,
    names_axis,
    with_legend_below,
)
from perfmodel.report.html.names import called
from perfmodel.report.html.section import Section, named
from perfmodel.report.html.words import Words
from perfmodel.report.memory import memory_table
from perfmodel.report.quantity import format_quantity
from perfmodel.supply.rates import Rates

MEMORY_COLOURS = (PHASE_COLOURS["decode"], PHASE_COLOURS["prefill"], VIOLET, GOLD, GREEN, "#9aa5b3", "#d3d9e0")


def memory_section(report: PlanReport, words: Words) -> Section:
    """Return what the dies of each pool hold."""
    held = {
        phase: memory_table(plan, report.pools[phase].resolved.scenario.case) for phase, plan in report.held.items()
    }
    return Section(
        name="memory",
        title=words.say("memory.title"),
        lead=words.say("memory.lead"),
        figures=(memory(report, words),),
        tables=tuple(named(table, called(phase, report, words), words) for phase, table in held.items()),
    )


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
    names = [called(phase, report, words) for phase in report.held]
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
    layout = layout_of(
        words.say("memory.x"),
        yaxis=names_axis(names),
        barmode="stack",
        bargap=0.4,
        legend=True,
    )
    return Figure(
        name="memory",
        caption="",
        label=words.say("memory.label", pools=told),
        data=tuple(data),
        layout=with_legend_below(layout, 110),
        height=170 + 50 * len(names),
        narrow={"margin.b": 210, "height": 270 + 50 * len(names)},
    )
