"""What the page calls the systems, pools and targets of a plan."""

import re

from perfmodel.planning.plan_report import PlanReport
from perfmodel.planning.targets import Target
from perfmodel.report.html.words import Words
from perfmodel.specs.deployment import Phase


def short(title: str) -> str:
    """Return what a title names, without what it says of it.

    >>> short("CloudMatrix384: 384 x 910C (752 T)"), short("DeepSeek-V3 / R1, 671B")
    ('CloudMatrix384', 'DeepSeek-V3 / R1')
    """
    return re.split("[:,]", title)[0]


def called(phase: Phase, report: PlanReport, words: Words) -> str:
    """Return what the instances of a pool are called: mixed ones run both phases."""
    return words.term("mixed" if report.run.mixed else phase)


def systems(report: PlanReport, words: Words, key: str) -> str:
    """Return the systems of a plan in words, each with its cards where the key has them."""
    named = [
        words.say(
            key,
            cards=f"{sum(pool.cards for phase, pool in report.own.items() if phase in site.phases):g}",
            system=short(site.machine.system.spec.title),
        )
        for site in report.sites
    ]
    return words.say("and").join(named)


def target_name(target: Target, report: PlanReport, words: Words) -> str:
    """Return what a target is called; one of a pool names the pool."""
    if target.phase is None:
        return words.say(f"targets.{target.name}")
    return words.say(f"targets.{target.name}", phase=called(target.phase, report, words))


def chance_words(value: float) -> str:
    """Return a probability in whole per cent."""
    return f"{100 * value:.0f} %"
