"""What the page calls the systems, pools and targets of a plan."""

import re

from perfmodel.planning.plan_report import PlanReport
from perfmodel.planning.systems_in_use import Site
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


def systems(report: PlanReport, words: Words) -> str:
    """Return the systems of a plan in words."""
    return words.say("and").join(short(site.machine.system.spec.title) for site in report.sites)


def sizes(report: PlanReport, words: Words) -> str:
    """Return the systems of a plan in words, each with the servers and cards that are in use."""

    def size(site: Site) -> str:
        servers = len(site.used)
        cards = sum(pool.cards for phase, pool in report.own.items() if phase in site.phases)
        key = "servers_of" if servers > 1 else "server_of"
        return words.say(key, servers=servers, cards=f"{cards:g}", system=short(site.machine.system.spec.title))

    return words.say("and").join(map(size, report.sites))


def target_name(target: Target, report: PlanReport, words: Words) -> str:
    """Return what a target is called; one of a pool names the pool."""
    if target.phase is None:
        return words.say(f"targets.{target.name}")
    return words.say(f"targets.{target.name}", phase=called(target.phase, report, words))


def parameter(name: str) -> str:
    """Return a number of a machine in words: what it is, then of what.

    >>> parameter("cann-2025: attention_decode.start_per_sequence"), parameter("chip: die.hbm.bandwidth")
    ('attention decode: start per sequence', 'die, hbm: bandwidth')
    >>> parameter("chip: decode_gap")
    'decode gap'
    """
    *owners, last = name.rpartition(": ")[2].replace("_", " ").split(".")
    return ": ".join([", ".join(owners), last] if owners else [last])


def chance_words(value: float) -> str:
    """Return a probability in whole per cent."""
    return f"{100 * value:.0f} %"
