"""The commands that look further, and what holds for the whole page."""

from collections.abc import Sequence

from perfmodel.planning.plan_report import PlanReport
from perfmodel.report.extrapolations import extrapolations
from perfmodel.report.html.section import Section
from perfmodel.report.html.words import Words


def next_section(words: Words, commands: Sequence[tuple[str, str]]) -> Section:
    """Return the lines to type next, each with what it is for."""
    return Section(
        name="next",
        title=words.say("next.title"),
        lead=words.say("next.lead"),
        more={"commands": [(words.say(f"next.{name}"), line) for name, line in commands]},
    )


def notes_section(report: PlanReport, words: Words, remarks: Sequence[str]) -> Section:
    """Return what the plan uses outside of what was measured, how far chances hold, and the remarks."""
    notes = [
        words.term(f"{pool.phase} {text}")
        for pool in report.pools.values()
        for text in extrapolations(pool.resolved.plan, pool.resolved.scenario.case)
    ]
    notes += [words.say("sure_words"), *map(words.term, remarks)]
    return Section(name="notes", title=words.say("notes.title"), lead="", notes=tuple(notes))
