"""What one layout does in a third of a screen: what it serves, whether limits and memory hold, where the time goes."""

from collections.abc import Mapping, Sequence
from typing import Any

from perfmodel.planning.known_errors import Trust
from perfmodel.prediction.breakdown import Breakdown
from perfmodel.prediction.scenario import Resolved
from perfmodel.report.extrapolations import extrapolated
from perfmodel.report.layout_words import short_layout
from perfmodel.report.limit_words import time_line, with_span
from perfmodel.report.quantity import format_quantity
from perfmodel.report.table import Table, answer_table, under
from perfmodel.report.trust import trust_rows

LARGEST = 5  # operators that are named
NEXT = "--layer moe, --op 'attention.*', --formula tpot, --compare tp=4"


def step_answer(
    resolved: Resolved, parts: Breakdown, facts: Mapping[str, Any], trust: Trust | None, notes: Sequence[str]
) -> Table:
    """Return what a layout does, a line a matter; ``facts`` and ``notes`` are those of its document."""
    decode = facts["phase"] == "decode"
    rate = f"{format_quantity(facts['tokens_per_s_per_card'], '1/s')} {'tokens' if decode else 'input tokens'}/s a card"
    layout = short_layout(resolved.plan, resolved.scenario.case.model)
    if resolved.batch_chosen:
        layout.append("the largest batch that holds" if resolved.fits and resolved.meets_tpot else "no batch holds")
    rows = [("answer", f"{facts['instance']}: {rate}"), ("layout", ", ".join(layout))]
    if decode:
        ends, target = facts["tpot_interval_s"], facts["tpot_target_s"]
        rows.append(("TPOT", time_line(facts["tpot_s"], target, facts.get("tpot_chance"), ends)))
    if facts.get("tpot_s") != facts["step_time_s"]:
        rows.append(("step", with_span(format_quantity(facts["step_time_s"], "s"), facts["step_time_interval_s"])))
    used, usable = (format_quantity(facts[f"memory_{name}_B"], "B") for name in ("planned", "usable"))
    rows.append(
        ("memory", f"✓ {used} of {usable} of a die" if resolved.fits else f"✗ does not fit: {used} of {usable}")
    )
    shares = (f"{name} {100 * share:.0f} %" for name, share in facts["time_by_bound"].items())
    rows.append(("time", ", ".join(shares)))
    rows += under("most of it", _largest(parts))
    rows += trust_rows(trust)
    rows += [("careful", text) for text in extrapolated(notes)]
    rows.append(("next", NEXT))
    return answer_table(rows)


def _largest(parts: Breakdown) -> list[str]:
    """Return the operators that take most of the step, over all blocks, with what bounds each."""
    times: dict[str, float] = {}
    light: dict[str, float] = {}
    bounds: dict[str, dict[str, float]] = {}
    for row in parts.rows:
        if row.decides:
            times[row.name] = times.get(row.name, 0.0) + row.total
            light[row.name] = light.get(row.name, 0.0) + row.ideal_total
            by = bounds.setdefault(row.name, {})
            by[row.timed.bound] = by.get(row.timed.bound, 0.0) + row.total
    found = []
    for name in sorted(times, key=lambda one: -times[one])[:LARGEST]:
        bound = max(bounds[name], key=lambda one: bounds[name][one])
        share, of_light = times[name] / parts.step_time, light[name] / times[name]
        found.append(
            f"{name} {format_quantity(times[name], 's')} ({100 * share:.0f} %), bound by {bound}, "
            f"{100 * of_light:.0f} % of light"
        )
    return found
