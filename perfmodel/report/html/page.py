"""A plan's report -> one page of HTML that loads nothing: text, drawings, plots, and tables of the same numbers."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from markupsafe import Markup, escape

from perfmodel.planning.dossier import PlanReport, PoolReport, Target, kinds
from perfmodel.report.assumptions import assumption_table
from perfmodel.report.extrapolations import extrapolations
from perfmodel.report.html import plots, topology
from perfmodel.report.html.words import Words
from perfmodel.report.language import spoken_table
from perfmodel.report.layout_words import sizes
from perfmodel.report.memory import memory_table
from perfmodel.report.operators import block_table, operator_table
from perfmodel.report.quantity import format_quantity
from perfmodel.report.table import Column, Say, Table, in_english
from perfmodel.report.what_if import what_if_tables
from perfmodel.scoring.validation import Scored

SURE = 0.8  # chance below which the page says that little is to spare


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One part of the page."""

    name: str
    title: str
    lead: str
    figures: tuple[plots.Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    #: what only one section has, by name
    more: Mapping[str, Any] = field(default_factory=dict)


def page(
    report: PlanReport,
    parts: Parts,
    *,
    file: str,
    commands: Sequence[tuple[str, str]] = (),
    remarks: Sequence[str] = (),
) -> str:
    """Return the page of a report.

    ``file`` is the name of the plan, ``commands`` are lines to type with the key of what each is for, ``remarks`` go
    to its notes.
    """
    from jinja2 import Environment, StrictUndefined

    words = Words(parts.words, parts.shared)
    sections = tuple(
        replace(section, tables=tuple(spoken_table(table, words.shared) for table in section.tables))
        for section in _sections(report, words, commands, remarks)
    )
    figures = {
        figure.name: {
            "data": figure.data,
            "layout": figure.layout,
            "height": figure.height,
            "narrow": figure.narrow,
            "names": figure.names,
        }
        for section in sections
        for figure in section.figures
    }
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals.update(say=words.say, term=words.term, head=_head, rows=_rows, raw=_raw)
    return environment.from_string(parts.template).render(
        lang=parts.words["lang"],
        title=words.say(
            "title", model=topology.short(report.run.model.title), system=_systems(report, words, "system")
        ),
        answer=_answer(report, words),
        request=_request(report, words),
        made=words.say("made", version=report.plan.version, file=file),
        sections=sections,
        style=Markup(parts.style),  # noqa: S704 - files of this package and of plotly
        script=Markup(parts.script),  # noqa: S704
        plotly=Markup(parts.plotly.replace("</script", "<\\/script")),  # noqa: S704
        figures=Markup(json.dumps(figures, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")),  # noqa: S704
    )


# --- tables ------------------------------------------------------------------------------------------


def _columns(table: Table) -> list[Column]:
    by_row = any(column.unit == "row" for column in table.columns)
    shown = [c for c in table.columns if c.unit != "bar" and not (by_row and c.key == "unit")]
    return [c for c in shown if any(row.get(c.key) is not None for row in table.rows)]


def _head(table: Table) -> list[tuple[str, bool]]:
    """Return the titles of a table's columns, and whether they hold numbers."""
    return [(column.title, column.unit is not None) for column in _columns(table)]


def _rows(table: Table) -> Iterator[list[tuple[str, Any, bool]]]:
    """Yield each row as text, raw SI number and whether it is a number."""
    for row in table.rows:
        yield [_cell(row, column) for column in _columns(table)]


def _cell(row: dict[str, Any], column: Column) -> tuple[str, Any, bool]:
    value = row.get(column.key)
    text = format_quantity(value, row.get("unit") if column.unit == "row" else column.unit)
    return text, _raw(value), column.unit is not None


def _raw(value: Any) -> str | None:
    """Return a number with all its digits, for programs; none for anything else."""
    if value is None or isinstance(value, (str, bool)):
        return None
    return repr(float(value))


# --- sections ------------------------------------------------------------------------------------------


def _systems(report: PlanReport, words: Words, key: str) -> str:
    """Return the systems of a plan in words, each with its cards where the key has them."""
    named = [
        words.say(
            key,
            cards=f"{sum(pool.cards for phase, pool in report.own.items() if phase in site.phases):g}",
            system=topology.short(site.machine.system.spec.title),
        )
        for site in report.sites
    ]
    return words.say("and").join(named)


def _chance(value: float) -> str:
    return f"{100 * value:.0f} %"


def _name(target: Target, report: PlanReport, words: Words) -> str:
    if target.phase is None:
        return words.say(f"targets.{target.name}")
    return words.say(f"targets.{target.name}", phase=topology.called(target.phase, report, words))


def _answer(report: PlanReport, words: Words) -> tuple[str, str]:
    """Return what the plan gives, and whether that is what was asked for."""
    value = {target.name: format_quantity(target.value, target.unit) for target in report.targets}
    given = words.say(
        "answer",
        cards=_systems(report, words, "cards_of"),
        rate=value["rate"],
        tokens=format_quantity(report.tokens_per_s, "1/s"),
        per_card=format_quantity(report.tokens_per_s_per_card, "1/s"),
        tpot=value["tpot"],
        ttft=value["ttft"],
    )
    missed = [_name(target, report, words) for target in report.targets if target.met is False]
    if missed:
        return given, words.say("answer_missed", missed=words.say("join").join(missed))
    if report.chance is None:
        return given, f"{words.say('answer_open')} {words.say('answer_fits')}"
    key = "answer_met" if report.chance >= SURE else "answer_met_unsure"
    return given, words.say(key, chance=_chance(report.chance))


def _request(report: PlanReport, words: Words) -> str:
    def instances(pool: PoolReport) -> str:
        cards = f"{pool.cards / pool.instances:g}"
        return words.say("instance" if pool.instances == 1 else "instances", count=pool.instances, cards=cards)

    conditions = report.plan.conditions
    pools = [
        words.say("pool_words", phase=topology.called(phase, report, words).capitalize(), instances=instances(pool))
        for phase, pool in report.own.items()
    ]
    given = words.say("request_words", isl=f"{conditions.isl:,}", osl=f"{conditions.osl:,}")
    return " ".join([given, *pools, *([words.say("mixed_words")] if report.run.mixed else [])])


def _sections(
    report: PlanReport, words: Words, commands: Sequence[tuple[str, str]], remarks: Sequence[str]
) -> Iterator[Section]:
    yield _targets(report, words)
    yield _topology(report, words)
    if report.front:
        yield Section(
            name="front",
            title=words.say("front.title"),
            lead=words.say("front.lead"),
            figures=(plots.front(report, words),),
            tables=(_front_table(report, words),),
            notes=(words.say("front.note"),),
        )
    yield _step(report, words)
    yield _streams(report, words)
    pools = list(report.pools.values())
    yield Section(
        name="roofline",
        title=words.say("roofline.title"),
        lead=words.say("roofline.lead"),
        figures=tuple(plots.roofline(report, site, words) for site in report.sites),
        tables=tuple(
            _of(pool, operator_table(pool.parts, pool.parts.rows, [None] * len(pool.parts.rows)), words)
            for pool in pools
        ),
        notes=(words.say("roofline.note"),),
    )
    held = {
        phase: memory_table(plan, report.pools[phase].resolved.scenario.case) for phase, plan in report.held.items()
    }
    yield Section(
        name="memory",
        title=words.say("memory.title"),
        lead=words.say("memory.lead"),
        figures=(plots.memory(report, words),),
        tables=tuple(_named(table, topology.called(phase, report, words), words) for phase, table in held.items()),
    )
    tornadoes = {output: plots.felt(output, report, words) for output in ("TPOT", "TTFT", "rate")}
    yield Section(
        name="felt",
        title=words.say("felt.title"),
        lead=words.say("felt.lead"),
        figures=tuple(one for one in tornadoes.values() if one is not None),
        tables=(assumption_table(report.felt),),
        notes=tuple(words.say("felt.none", output=words.term(name)) for name, one in tornadoes.items() if one is None),
    )
    yield _worth(report, words)
    yield Section(
        name="near",
        title=words.say("near.title"),
        lead=words.say("near.lead"),
        figures=(plots.near(report, words),),
        tables=(_near_table(report, words),),
        notes=(words.say("near.note"),),
    )
    yield _inputs(report, words)
    yield Section(
        name="next",
        title=words.say("next.title"),
        lead=words.say("next.lead"),
        more={"commands": [(words.say(f"next.{name}"), line) for name, line in commands]},
    )
    notes = [
        words.term(f"{p.phase} {text}")
        for p in pools
        for text in extrapolations(p.resolved.plan, p.resolved.scenario.case)
    ]
    notes += [words.say("sure_words"), *map(words.term, remarks)]
    yield Section(name="notes", title=words.say("notes.title"), lead="", notes=tuple(notes))


def _of(pool: PoolReport, table: Table, words: Words) -> Table:
    """Return a table of one pool, named so."""
    return _named(table, words.term(pool.phase), words)


def _named(table: Table, name: str, words: Words) -> Table:
    return Table(f"{words.shared(table.title)}: {name}", table.columns, table.rows, table.notes)


def _targets(report: PlanReport, words: Words) -> Section:
    rows = []
    for target in report.targets:
        value = format_quantity(target.value, target.unit)
        limit = "" if target.limit is None else format_quantity(target.limit, target.unit)
        within = ("", "")
        if target.interval is not None:
            ends = (target.interval.low90, target.interval.high90)
            within = (format_quantity(ends[0], target.unit), format_quantity(ends[1], target.unit))
        label = words.say(
            "targets.label",
            name=_name(target, report, words),
            value=value,
            limit=words.say("targets.label_limit", limit=limit) if limit else words.say("targets.open"),
            interval=words.say("targets.label_interval", low=within[0], high=within[1]) if within[0] else "",
        )
        rows.append(
            {
                "target": target,
                "name": _name(target, report, words),
                "state": {True: "met", False: "missed", None: "open"}[target.met],
                "value": value,
                "limit": limit,
                "within": f"{within[0]} – {within[1]}" if within[0] else "",
                "chance": "" if target.chance is None else _chance(target.chance),
                "bar": _range_bar(target, label),
            }
        )
    return Section(
        name="targets",
        title=words.say("targets.title"),
        lead=words.say("targets.lead"),
        more={
            "targets": rows,
            "chance": report.chance,
            "chance_words": report.chance and _chance(report.chance),
            "facts": list(_facts(report, words)),
        },
    )


def _facts(report: PlanReport, words: Words) -> Iterator[tuple[str, str, str, float]]:
    """Yield what else the plan comes to: a key, what it is called, its value in words, and as a number."""

    def fact(key: str, value: float, unit: str | None = None) -> tuple[str, str, str, float]:
        return key, words.say(f"facts.{key}"), format_quantity(value, unit) if unit else f"{value:g}", value

    if report.run.mixed:
        yield fact("longest_gap", report.best.longest_gap, "s")
        yield fact("tpot_added", report.best.tpot_added, "s")
    idle = [site.idle for site in report.sites if site.idle is not None]
    if idle:
        yield fact("idle", sum(idle))
    if report.cost is not None:
        yield fact("per_hour", report.cost.per_hour, "1")
        yield fact("per_million", report.cost.per_million_tokens, "1")
    if report.power is not None:
        yield fact("watts", report.power.watts, "W")
        yield fact("joules", report.power.joules_per_token, "1")
    confidence = report.plan.run.confidence if report.plan.run else None
    if confidence is not None:
        yield "confidence", words.say("facts.confidence"), _chance(confidence), confidence


WIDE, HIGH = 240, 26  # of a range bar, in its own units


def _range_bar(target: Target, label: str) -> Markup:
    """Return the drawing of a prediction with its intervals beside its limit."""
    span = target.interval
    most = 1.08 * max(target.value, target.limit or 0.0, span.high90 if span else 0.0)
    least = 0.0 if span is None else 0.92 * min(span.low90, target.value, target.limit or target.value)

    def x(value: float) -> float:
        return round(WIDE * (value - least) / (most - least), 2)

    out = [f'<svg class="range" viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{escape(label)}">']
    out.append(f'<rect class="track" x="0" y="10" width="{WIDE}" height="6" rx="3"/>')
    if span is None:
        out.append(f'<rect class="mid" x="0" y="10" width="{x(target.value)}" height="6" rx="3"/>')
    else:
        for name, low, high in (("wide", span.low90, span.high90), ("mid", span.low50, span.high50)):
            out.append(f'<rect class="{name}" x="{x(low)}" y="10" width="{x(high) - x(low):.2f}" height="6"/>')
    if target.limit is not None:
        out.append(f'<line class="limit" x1="{x(target.limit)}" x2="{x(target.limit)}" y1="3" y2="23"/>')
    out.append(f'<circle class="dot" cx="{x(target.value)}" cy="13" r="5"/></svg>')
    return Markup("".join(out))  # noqa: S704 - the label is escaped, the rest is numbers


def _topology(report: PlanReport, words: Words) -> Section:
    of = {phase: [die.server for die in report.dies if die.phase == phase] for phase in report.own}
    pools = words.say("join").join(
        words.say(
            "plan.label_pool",
            phase=topology.called(phase, report, words),
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
        tables=(topology.server_table(report, words), *topology.link_tables(report, words)),
        notes=(words.say("plan.note"),),
        more={
            "label": words.say("plan.label", servers=report.best.servers_used, pools=pools),
            "groups": topology.groups(report, words),
            "kinds": topology.die_kinds(report, words),
            "legend": [
                (phase, f"{topology.called(phase, report, words)}: {pool.instances} × {size}")
                for phase, pool in report.own.items()
                for size in [words.term(sizes(pool.resolved.plan.layout.dies, pool.rates))]
            ],
        },
    )


def _front_table(report: PlanReport, words: Words) -> Table:
    columns = (
        Column("tpot", "TPOT", "s"),
        Column("rate", "tokens/s per card", "1/s"),
        Column("plan", "plan"),
    )
    rows = [
        {"tpot": one.tpot, "rate": one.tokens_per_s_per_card, "plan": plots.plan_in_words(one.deployment)}
        for one in sorted(report.front, key=lambda one: one.tpot)
    ]
    return Table(words.say("front.title"), columns, tuple(rows))


def _step(report: PlanReport, words: Words) -> Section:
    tables = []
    for pool in report.pools.values():
        whole = pool.parts.step_time
        rows = [{"part": words.part(k), "time": v, "share": v / whole} for k, v in plots.parts_of_step(pool).items()]
        rows.append({"part": words.say("step.total"), "time": whole, "share": 1.0})
        columns = (Column("part", "part"), Column("time", "time", "s"), Column("share", "share", "%"))
        tables.append(_of(pool, Table(words.say("step.title"), columns, tuple(rows)), words))
    return Section(
        name="step",
        title=words.say("step.title"),
        lead=words.say("step.lead"),
        figures=tuple(plots.step(pool, words) for pool in report.pools.values()),
        tables=tuple(tables),
        notes=_between_steps(report, words),
    )


def _between_steps(report: PlanReport, words: Words) -> tuple[str, ...]:
    """Return what prefill between two decode steps costs, where instances are mixed."""
    if not report.run.mixed:
        return ()
    added, gap = (format_quantity(value, "s") for value in (report.best.tpot_added, report.best.longest_gap))
    return (words.say("step.mixed", added=added, gap=gap, tpot=format_quantity(report.best.tpot, "s")),)


def _streams(report: PlanReport, words: Words) -> Section:
    tables = []
    columns = (
        Column("lane", "stream"),
        Column("batch", "micro-batch", "1"),
        Column("name", "operator"),
        Column("start", "begins at", "s"),
        Column("length", "lasts", "s"),
    )
    for pool in report.pools.values():
        rows = [
            {"lane": words.term(s.stream), "batch": s.micro_batch, "name": s.name, "start": s.start, "length": s.time}
            for s in pool.timeline.segments
        ]
        tables.append(_of(pool, Table(words.say("streams.title"), columns, tuple(rows)), words))
        tables.append(_of(pool, block_table(pool.parts), words))
    return Section(
        name="streams",
        title=words.say("streams.title"),
        lead=words.say("streams.lead", layers=f"{report.pools['decode'].timeline.count:g}"),
        figures=tuple(plots.streams(pool, words) for pool in report.pools.values()),
        tables=tuple(tables),
        notes=(words.say("streams.note"),),
    )


def _worth(report: PlanReport, words: Words) -> Section:
    gains = [one for one in report.effects if one.gain > 0]
    losses = [one for one in reversed(report.effects) if one.gain < 0]
    figures = (
        plots.worth(gains, "worth-gain", words.say("worth.caption_gain"), words),
        plots.worth(losses, "worth-loss", words.say("worth.caption_loss"), words),
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


def _near_table(report: PlanReport, words: Words) -> Table:
    def cells(name: str, near_to: str, far: float | None, score: Scored, source: Any) -> dict[str, Any]:
        return {
            "row": name,
            "to": near_to,
            "distance": far,
            "quantity": score.quantity.replace("_", " "),
            "unit": score.unit,
            "measured": score.measured,
            "predicted": score.predicted,
            "low": score.interval.low90,
            "high": score.interval.high90,
            "error": score.error,
            "source": source.title,
        }

    rows = [
        cells(result.spec.name, words.term(phase), far, score, result.spec.sources[result.spec.source])
        for phase, pool in report.pools.items()
        for result, far in pool.near
        for score in result.scores
    ]
    rows += [
        cells(one.spec.name, words.say("near.deployed"), None, score, one.spec.sources[one.spec.source])
        for one in report.deployed
        for score in one.scores
    ]
    columns = (
        Column("row", "published row"),
        Column("to", "near"),
        Column("distance", "distance", "1"),
        Column("quantity", "quantity"),
        Column("unit", "unit"),
        Column("measured", "published", "row"),
        Column("predicted", "predicted", "row"),
        Column("low", "90 % low", "row"),
        Column("high", "90 % high", "row"),
        Column("error", "error", "%"),
        Column("source", "source"),
    )
    return Table(words.say("near.title"), columns, tuple(rows))


def _inputs(report: PlanReport, words: Words) -> Section:
    counts = [
        words.say("inputs.kind_count", count=n, kind=words.term(kind)) for kind, n in kinds(report.inputs).items()
    ]
    found: dict[str, list[dict[str, str | None]]] = {}
    for one in report.inputs:
        value, unit = _number_and_unit(one.text)
        row: dict[str, str | None] = {
            "name": one.name,
            "value": value,
            "unit": unit,
            "span": one.span,
            "kind": one.kind,
        }
        found.setdefault(one.group, []).append(row | {"source": one.source, "note": one.note, "url": one.url})
    groups = []
    for group, rows in found.items():
        keys = [key for key in rows[0] if key != "url" and any(row[key] for row in rows)]  # columns with something in
        groups.append((group, keys, rows))
    return Section(
        name="inputs",
        title=words.say("inputs.title"),
        lead=words.say("inputs.lead", count=len(report.inputs), kinds=words.say("join").join(counts)),
        more={
            "inputs": groups,
            "files": report.plan.files,
        },
    )


def _number_and_unit(text: str) -> tuple[str, str]:
    """Return a value as a file writes it, its unit apart.

    >>> _number_and_unit("270 GB/s"), _number_and_unit("0.92"), _number_and_unit("gather")
    (('270', 'GB/s'), ('0.92', ''), ('gather', ''))
    """
    number, _, unit = text.partition(" ")
    try:
        float(number)
    except ValueError:
        return text, ""
    return number, unit
