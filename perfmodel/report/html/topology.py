"""The dies of a plan, drawn server by server, as inline SVG."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup, escape

from perfmodel.algebra import as_float
from perfmodel.planning.plan_report import PlanReport, PoolReport
from perfmodel.planning.systems_in_use import Site
from perfmodel.prediction.placement import Die
from perfmodel.report.html.names import called, short
from perfmodel.report.html.words import Words
from perfmodel.report.quantity import format_quantity
from perfmodel.supply.rates import TierRates

CELL, GAP, PAD, HEAD = 20, 3, 7, 20  # of a server's drawing, in its own units
ROW_OF_CARDS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Servers that one network joins, drawn; ``free`` are those it has beside."""

    title: str
    free: int
    servers: tuple[Markup, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DieKind:
    """Dies of a pool that hold the same, in words."""

    phase: str
    #: how such a die is drawn
    look: str
    title: str
    lines: tuple[str, ...]


def groups(report: PlanReport, words: Words) -> tuple[Group, ...]:
    """Return all servers of a plan in the groups that no instance leaves, system by system."""
    drawn = {number: list(dies) for number, dies in groupby(report.dies, key=lambda die: die.server)}
    found = []
    for site in report.sites:
        inner = _joined_by(site)
        system = words.say("plan.system", system=short(site.machine.system.spec.title)) if len(report.sites) > 1 else ""
        several = site.used[-1] - site.first > site.size
        for number, servers in groupby(site.used, key=lambda server: (server - 1 - site.first) // site.size):
            used = list(servers)
            free = site.size - len(used) if inner else 0
            key = "plan.group" if inner else "plan.group_numbered" if several else "plan.group_open"
            tier = words.term(inner.name) if inner else ""
            title = system + words.say(key, tier=tier, number=number + 1, used=len(used), free=free)
            drawings = tuple(_server(server, drawn[server], report, site, words) for server in used)
            found.append(Group(title=title, free=free, servers=drawings))
    return tuple(found)


def _joined_by(site: Site) -> TierRates | None:
    """Return the tier that joins the servers of a group and no others; none where the outermost joins everything."""
    wider = [tier for tier in site.rates.tiers if as_float(tier.dies) > site.rates.dies_per_server]
    return wider[0] if len(wider) > 1 else None


def span(values: Sequence[int]) -> str:
    """Return whole numbers as their range.

    >>> span([3, 4, 5]), span([7]), span([])
    ('3–5', '7', '–')
    """
    if not values:
        return "–"
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}–{high}"


def slots_of(dies: Sequence[Die]) -> str:
    """Return the expert slots of some dies as their range."""
    return span([end for die in dies if die.slots for end in die.slots])


def holds(die: Die, group: int, words: Words) -> str:
    """Return what a die holds."""
    parts = []
    if die.rank is not None:
        key = "plan.holds_member" if group > 1 else "plan.holds_rank"
        parts.append(words.say(key, rank=die.rank, member=die.member, group=group))
    if die.slots is not None:
        parts.append(words.say("plan.holds_slots", first=die.slots[0], last=die.slots[1]))
    if die.shared:
        parts.append(words.say("plan.holds_shared"))
    return words.say("join").join(parts)


def group_of(pool: PoolReport) -> int:
    """Return the dies of one data-parallel rank."""
    layout = pool.resolved.plan.layout
    return layout.tp * layout.cp


def _server(number: int, dies: Sequence[Die], report: PlanReport, site: Site, words: Words) -> Markup:
    cards, per_card = int(site.rates.packages_per_server), int(site.rates.dies_per_package)
    columns = min(ROW_OF_CARDS, cards)
    card_width = per_card * CELL + 4
    width = 2 * PAD + columns * (card_width + GAP) - GAP
    height = HEAD + -(-cards // columns) * (CELL + 4 + GAP) + PAD - GAP
    told = [
        f"{called(phase, report, words)} {span([d.instance for d in of])}"
        for phase, of in groupby(dies, key=lambda d: d.phase)
    ]
    instances = words.say("join").join(told)
    label = words.say(
        "plan.server_label",
        number=number,
        phase=called(dies[0].phase, report, words),
        instances=span([die.instance for die in dies]),
        ranks=span([die.rank for die in dies if die.rank]),
        slots=slots_of(dies),
    )
    out = [
        f'<svg class="server" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">',
        f'<rect class="box" x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="5"/>',
        f'<text class="name" x="{PAD}" y="14">{escape(words.say("plan.server", number=number))}</text>',
        f'<text class="part" x="{width - PAD}" y="14" text-anchor="end">{escape(instances)}</text>',
    ]
    at_work = {(die.card, die.die): die for die in dies}
    for card in range(cards):
        x, y = PAD + card % columns * (card_width + GAP), HEAD + card // columns * (CELL + 4 + GAP)
        out.append(f'<rect class="card" x="{x}" y="{y}" width="{card_width}" height="{CELL + 4}" rx="3"/>')
        for one in range(per_card):
            die = at_work.get((card + 1, one + 1))
            out += _die(die, x + 2 + one * CELL, y + 2, report, words)
    return Markup("".join([*out, "</svg>"]))  # noqa: S704 - every text in it is escaped


def _die(die: Die | None, x: float, y: float, report: PlanReport, words: Words) -> Iterator[str]:
    size = CELL - 1
    if die is None:
        yield f'<rect class="idle" x="{x + 0.5}" y="{y + 0.5}" width="{size}" height="{size}" rx="2"/>'
        return
    shade = "odd" if die.instance % 2 else "even"
    told = words.say(
        "plan.die",
        server=die.server,
        card=die.card,
        die=die.die,
        phase=called(die.phase, report, words),
        instance=die.instance,
        holds=holds(die, group_of(report.pools[die.phase]), words),
    )
    yield f'<g class="die {die.phase} {shade} {_look(die)}"><title>{escape(told)}</title>'
    yield f'<rect x="{x + 0.5}" y="{y + 0.5}" width="{size}" height="{size}" rx="2"/>'
    if die.rank is not None:
        yield f'<text x="{x + CELL / 2}" y="{y + CELL / 2 + 3}" text-anchor="middle">{die.rank}</text>'
    yield "</g>"


def _look(die: Die) -> str:
    return "shared" if die.shared and die.slots is None else "experts" if die.rank is None else "whole"


def die_kinds(report: PlanReport, words: Words) -> tuple[DieKind, ...]:
    """Return the kinds of dies that a plan has, and what each holds."""
    found = []
    for phase, pool in report.own.items():
        one = [die for die in report.dies if die.phase == phase and die.instance == 1]
        kinds: dict[tuple[bool, bool, bool], list[Die]] = {}
        for die in one:
            kinds.setdefault((die.rank is not None, die.slots is not None, die.shared), []).append(die)
        for dies in kinds.values():
            found.append(
                DieKind(
                    phase=phase,
                    look=_look(dies[0]),
                    title=words.say("plan.kind", phase=called(phase, report, words), count=len(dies), dies=len(one)),
                    lines=tuple(_lines(dies[0], pool, report, words)),
                )
            )
    return tuple(found)


def _lines(die: Die, pool: PoolReport, report: PlanReport, words: Words) -> Iterator[str]:
    plan, model = report.held[pool.phase], report.run.model
    layout, held = plan.layout, plan.point.footprint
    if die.rank is not None:
        group = group_of(pool)
        key = "plan.kind_group" if group > 1 else "plan.kind_attention"
        yield words.say(key, group=group)
        yield words.say("plan.kind_batch", batch=layout.batch)
    if die.slots is not None:
        slots = model.n_routed_experts + layout.redundant
        yield words.say("plan.kind_slots", each=die.slots[1] - die.slots[0] + 1)
        yield words.say("plan.kind_slots_of", slots=slots, experts=model.n_routed_experts, replicas=layout.redundant)
    if die.shared:
        yield words.say("plan.kind_shared")
    elif model.n_shared_experts:
        yield words.say("plan.kind_no_shared")
    if die.rank is not None:
        weights, cache = format_quantity(held.weights, "B"), format_quantity(held.kv, "B")
        yield words.say("plan.kind_weights", weights=weights, kv=cache)
        used, usable = format_quantity(plan.point.memory, "B"), format_quantity(plan.point.usable, "B")
        yield words.say("plan.kind_memory", used=used, usable=usable)
