"""The assumed inputs that move the answer most."""

from collections.abc import Sequence
from typing import Any

from perfmodel.planning.plan_report import PlanReport
from perfmodel.report.html.figure import (
    MOST_BARS,
    PHASE_COLOURS,
    SMALLEST,
    THIN,
    Figure,
    bars_height,
    layout_of,
    names_axis,
    percent,
)
from perfmodel.report.html.names import parameter
from perfmodel.report.html.section import Section
from perfmodel.report.html.words import Words
from perfmodel.report.sensitivity import assumption_table


def sensitivity_section(report: PlanReport, words: Words) -> Section:
    """Return what each assumed input does to TPOT, TTFT and the rate."""
    tornadoes = {output: sensitivity(output, report, words) for output in ("TPOT", "TTFT", "rate")}
    return Section(
        name="felt",
        title=words.say("felt.title"),
        lead=words.say("felt.lead"),
        figures=tuple(one for one in tornadoes.values() if one is not None),
        tables=(assumption_table(report.sensitivity),),
        notes=tuple(words.say("felt.none", output=words.term(name)) for name, one in tornadoes.items() if one is None),
    )


def sensitivity(output: str, report: PlanReport, words: Words) -> Figure | None:
    """Return the tornado of one output; none where no assumed input moves it."""
    rows = sorted(report.sensitivity, key=lambda one: -max(map(abs, one.changes[output])))[:MOST_BARS]
    rows = [one for one in rows if max(map(abs, one.changes[output])) > SMALLEST]
    if not rows:
        return None
    names = _in_words([one.name for one in rows])

    def bars(end: int, colour: str, value: Any) -> dict[str, Any]:
        return {
            "type": "bar",
            "orientation": "h",
            "y": names,
            "x": [100 * one.changes[output][end] for one in rows],
            "text": [f"{one.name}<br>{one.figure.text} → {value(one):.4g}" for one in rows],
            "textposition": "none",
            "name": words.say(("felt.low", "felt.high")[end]),
            "marker": {"color": colour},
            "hovertemplate": "%{text}: %{x:+.2f} %<extra></extra>",
        }

    name = words.term(output)
    low, high = rows[0].changes[output]
    return Figure(
        name=f"felt-{output.lower()}",
        caption=words.say("felt.caption", output=name),
        label=words.say(
            "felt.label",
            output=name,
            largest=rows[0].name,
            low=percent(low, signed=True),
            high=percent(high, signed=True),
        ),
        data=(
            bars(0, PHASE_COLOURS["decode"], lambda one: one.low),
            bars(1, PHASE_COLOURS["prefill"], lambda one: one.high),
        ),
        layout=layout_of(words.say("felt.x"), yaxis=names_axis(names), barmode="overlay", bargap=0.35, legend=True),
        height=bars_height(len(names), THIN) + 30,
        names=tuple(names),
    )


def _in_words(names: Sequence[str]) -> list[str]:
    """Return numbers of machines in words; with the file that they are of where two would be called the same."""
    said = [parameter(name) for name in names]
    return [
        f"{text} ({name.partition(': ')[0]})" if said.count(text) > 1 else text
        for name, text in zip(names, said, strict=True)
    ]
