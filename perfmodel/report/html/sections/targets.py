"""Which targets are met and how surely, and what else the plan comes to."""

from collections.abc import Iterator

from markupsafe import Markup, escape

from perfmodel.planning.plan_report import PlanReport
from perfmodel.planning.targets import Target
from perfmodel.prediction.sureness import verdict_of
from perfmodel.report.html.names import chance_words, target_name
from perfmodel.report.html.section import Section
from perfmodel.report.html.words import Words
from perfmodel.report.quantity import format_quantity

WIDE, HIGH = 240, 26  # of a range bar, in its own units


def targets_section(report: PlanReport, words: Words) -> Section:
    """Return the targets beside their predictions, and what else the plan comes to."""
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
            name=target_name(target, report, words),
            value=value,
            limit=words.say("targets.label_limit", limit=limit) if limit else words.say("targets.open"),
            interval=words.say("targets.label_interval", low=within[0], high=within[1]) if within[0] else "",
        )
        rows.append(
            {
                "target": target,
                "name": target_name(target, report, words),
                "state": target.verdict or "open",
                "word": "doubtful" if target.met and target.verdict == "missed" else target.verdict or "open",
                "value": value,
                "limit": limit,
                "within": f"{within[0]} – {within[1]}" if within[0] else "",
                "chance": "" if target.chance is None else chance_words(target.chance),
                "bar": _range_bar(target, label),
            }
        )
    return Section(
        name="targets",
        title=words.say("targets.title"),
        lead=words.say("targets.lead"),
        notes=(words.say("targets.sure"),) if report.chance is not None and report.plan.run is not None else (),
        more={
            "targets": rows,
            "chance": report.chance,
            "state": "open" if report.chance is None else verdict_of(True, report.chance),
            "chance_words": report.chance and chance_words(report.chance),
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
        yield fact("per_month", report.cost.per_month, "1")
        yield fact("per_year", report.cost.per_year, "1")
        yield fact("per_million", report.cost.per_million_tokens, "1")
    if report.power is not None:
        yield fact("watts", report.power.watts, "W")
        yield fact("joules", report.power.joules_per_token, "1")
    confidence = report.plan.run.confidence if report.plan.run else None
    if confidence is not None:
        yield "confidence", words.say("facts.confidence"), chance_words(confidence), confidence


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
