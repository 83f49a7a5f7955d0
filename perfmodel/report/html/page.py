"""A plan's report -> one page of HTML that loads nothing: its sections in order, put in its template."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from perfmodel.planning.plan_report import PlanReport
from perfmodel.report.html.answer import answer, request
from perfmodel.report.html.html_table import head, raw, rows
from perfmodel.report.html.names import short, systems
from perfmodel.report.html.section import Section
from perfmodel.report.html.sections.changes import changes_section
from perfmodel.report.html.sections.closing import next_section, notes_section
from perfmodel.report.html.sections.front import front_section
from perfmodel.report.html.sections.inputs import inputs_section
from perfmodel.report.html.sections.memory import memory_section
from perfmodel.report.html.sections.moving import moving_section
from perfmodel.report.html.sections.placement import holds_section, placement_section
from perfmodel.report.html.sections.published import published_section
from perfmodel.report.html.sections.roofline import roofline_section
from perfmodel.report.html.sections.sensitivity import sensitivity_section
from perfmodel.report.html.sections.step import step_section
from perfmodel.report.html.sections.targets import targets_section
from perfmodel.report.html.sections.timeline import timeline_section
from perfmodel.report.html.words import Words
from perfmodel.report.language import spoken_table
from perfmodel.report.table import Say, in_english


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The files of a page: template, style, script, plotly.js and the words of a language."""

    template: str
    style: str
    script: str
    plotly: str
    words: Mapping[str, Any]
    #: what translates tables that other commands print too
    shared: Say = in_english


def page(
    report: PlanReport,
    parts: Parts,
    *,
    file: str,
    date: str,
    title: str = "",
    commands: Sequence[tuple[str, str]] = (),
    remarks: Sequence[str] = (),
) -> str:
    """Return the page of a report.

    ``file`` is the name of the plan, ``date`` the day that the page is of, ``title`` what it is for in the asker's
    words; ``commands`` are lines to type with the key of what each is for, ``remarks`` go to its notes.
    """
    from jinja2 import Environment, StrictUndefined

    words = Words(parts.words, parts.shared)

    def spoken(found: Iterator[Section]) -> tuple[Section, ...]:
        return tuple(
            replace(one, tables=tuple(spoken_table(table, words.shared) for table in one.tables)) for one in found
        )

    first, more = spoken(summary(report, words)), spoken(for_engineers(report, words, commands, remarks))
    figures = {
        figure.name: {
            "data": figure.data,
            "layout": figure.layout,
            "height": figure.height,
            "narrow": figure.narrow,
            "names": figure.names,
        }
        for section in (*first, *more)
        for figure in section.figures
    }
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals.update(say=words.say, term=words.term, head=head, rows=rows, raw=raw, formulas=Markup)
    return environment.from_string(parts.template).render(
        lang=parts.words["lang"],
        title=words.say("title", model=short(report.run.model.title), system=systems(report, words)),
        kicker=words.say("kicker_of", title=title) if title else words.say("kicker"),
        date=words.say("date", date=date),
        answer=answer(report, words),
        request=request(report, words),
        made=words.say("made", version=report.plan.version, file=file),
        summary=first,
        engineers=more,
        style=Markup(parts.style),  # noqa: S704 - files of this package and of plotly
        script=Markup(parts.script),  # noqa: S704
        plotly=Markup(parts.plotly.replace("</script", "<\\/script")),  # noqa: S704
        figures=Markup(json.dumps(figures, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")),  # noqa: S704
    )


def summary(report: PlanReport, words: Words) -> Iterator[Section]:
    """Yield the sections for those who pay, in their order."""
    yield targets_section(report, words)
    yield placement_section(report, words)
    yield moving_section(report, words)


def for_engineers(
    report: PlanReport, words: Words, commands: Sequence[tuple[str, str]], remarks: Sequence[str]
) -> Iterator[Section]:
    """Yield the sections that are folded away, in their order."""
    yield holds_section(report, words)
    if report.front:
        yield front_section(report, words)
    yield step_section(report, words)
    yield timeline_section(report, words)
    yield roofline_section(report, words)
    yield memory_section(report, words)
    yield sensitivity_section(report, words)
    yield changes_section(report, words)
    yield published_section(report, words)
    yield inputs_section(report, words)
    yield next_section(words, commands)
    yield notes_section(report, words, remarks)
