"""What each change is worth at the same target."""

from collections.abc import Sequence

from perfmodel.planning.plan_report import PlanReport
from perfmodel.planning.what_if import Effect
from perfmodel.report.html.figure import (
    GOLD,
    GREEN,
    GREY,
    MOST_BARS,
    PHASE_COLOURS,
    SMALLEST,
    THIN,
    VIOLET,
    Figure,
    bars_height,
    broken,
    error_bars,
    layout_of,
    names_axis,
    percent,
)
from perfmodel.report.html.section import Section
from perfmodel.report.html.words import Words
from perfmodel.report.what_if import what_if_tables

MAKERS = {
    "layout": GREEN,
    "stack": PHASE_COLOURS["decode"],
    "to build": PHASE_COLOURS["prefill"],
    "traffic": VIOLET,
    "bound": GREY,
    "hardware": GOLD,
}


def changes_section(report: PlanReport, words: Words) -> Section:
    """Return what changes are worth, and those that cannot be made."""
    gains = [one for one in report.effects if one.gain > 0]
    losses = [one for one in reversed(report.effects) if one.gain < 0]
    figures = (
        worth(gains, "worth-gain", words.say("worth.caption_gain"), words),
        worth(losses, "worth-loss", words.say("worth.caption_loss"), words),
    )
    effects, refusals = what_if_tables(report.run, report.effects, report.refused)
    return Section(
        name="worth",
        title=words.say("worth.title"),
        lead=words.say("worth.mixed" if report.run.mixed else "worth.lead" if report.effects else "worth.none"),
        figures=tuple(one for one in figures if one is not None),
        tables=(effects, refusals),
        notes=(words.say("worth.note"),) if report.effects else (),
    )


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
                    broken(
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
                "error_x": error_bars(
                    [100 * (one.gain_interval.high90 - one.gain) for one in own],
                    [100 * (one.gain - one.gain_interval.low90) for one in own],
                    GREY,
                    1.4,
                ),
            }
        )
    return Figure(
        name=name,
        caption=caption,
        label=words.say("worth.label", count=len(shown), largest=names[0], gain=percent(shown[0].gain, signed=True)),
        data=tuple(data),
        layout=layout_of(words.say("worth.x"), yaxis=names_axis(names), barmode="overlay", bargap=0.35, legend=True),
        height=bars_height(len(names), THIN) + 30,
        names=tuple(names),
    )
