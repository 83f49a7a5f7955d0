"""Where every instance stands, and what joins its servers."""

from itertools import groupby
from typing import Any

from perfmodel.planning.plan_report import PlanReport
from perfmodel.report.html import topology
from perfmodel.report.html.names import called, short
from perfmodel.report.html.section import Section
from perfmodel.report.html.topology import slots_of, span
from perfmodel.report.html.words import Words
from perfmodel.report.layout_words import sizes
from perfmodel.report.table import Column, Table


def placement_section(report: PlanReport, words: Words) -> Section:
    """Return where each instance stands, drawn."""
    of = {phase: [die.server for die in report.dies if die.phase == phase] for phase in report.own}
    pools = words.say("join").join(
        words.say(
            "plan.label_pool",
            phase=called(phase, report, words),
            instances=report.pools[phase].instances,
            first=min(servers),
            last=max(servers),
        )
        for phase, servers in of.items()
    )
    return Section(
        name="plan",
        title=words.say("plan.title"),
        lead=words.say("plan.lead"),
        more={
            "label": words.say("plan.label", servers=report.best.servers_used, pools=pools),
            "groups": topology.groups(report, words),
            "legend": [
                (phase, f"{called(phase, report, words)}: {pool.instances} × {size}")
                for phase, pool in report.own.items()
                for size in [words.term(sizes(pool.resolved.plan.layout.dies, pool.rates))]
            ],
        },
    )


def holds_section(report: PlanReport, words: Words) -> Section:
    """Return what each kind of die holds, with the servers and links."""
    return Section(
        name="holds",
        title=words.say("plan.kinds"),
        lead="",
        tables=(server_table(report, words), *link_tables(report, words)),
        notes=(words.say("plan.note"),),
        more={"kinds": topology.die_kinds(report, words)},
    )


def server_table(report: PlanReport, words: Words) -> Table:
    """Return one row per server."""
    rows: list[dict[str, Any]] = []
    for (number, phase), dies in groupby(report.dies, key=lambda die: (die.server, die.phase)):
        listed = list(dies)
        rows.append(
            {
                "server": number,
                "pool": called(phase, report, words),
                "instances": span([die.instance for die in listed]),
                "ranks": span([die.rank for die in listed if die.rank]),
                "slots": slots_of(listed),
                "shared": sum(die.shared for die in listed),
                "dies": len(listed),
            }
        )
    columns = (
        Column("server", "server", "1"),
        Column("pool", "pool"),
        Column("instances", "instance"),
        Column("dies", "dies", "1"),
        Column("ranks", "attention ranks"),
        Column("slots", "expert slots"),
        Column("shared", "dies with a shared expert", "1"),
    )
    return Table(words.say("plan.servers"), columns, tuple(rows))


def link_tables(report: PlanReport, words: Words) -> tuple[Table, ...]:
    """Return the tiers of each system's network."""
    columns = (
        Column("tier", "joins a"),
        Column("link", "link"),
        Column("dies", "dies", "1"),
        Column("pin", "each die, one way", "B/s"),
        Column("latency", "latency", "s"),
    )
    tables = []
    for site in report.sites:
        rows = tuple(
            {
                "tier": words.term(tier.name),
                "link": tier.link,
                "dies": tier.dies,
                "pin": tier.pin_bandwidth,
                "latency": tier.latency,
            }
            for tier in site.rates.tiers
        )
        title = words.say("plan.links")
        title += f", {short(site.machine.system.spec.title)}" if len(report.sites) > 1 else ""
        tables.append(Table(title, columns, rows))
    return tuple(tables)
