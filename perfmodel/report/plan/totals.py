"""What the whole deployment delivers and costs, as a table."""

from collections.abc import Mapping
from typing import Any

from perfmodel.algebra import as_float
from perfmodel.prediction.deployment import Deployment
from perfmodel.prediction.serving import Case
from perfmodel.report.memory import longest_context_by
from perfmodel.report.plan.size import size_in_words
from perfmodel.report.quantity import format_quantity, span_in_words
from perfmodel.report.table import SPANS, Column, Table, span_cells
from perfmodel.specs.deployment import Phase

#: key of a cost, what it is called, and its unit; money has none
COSTS = (
    ("per_hour", "cost an hour, in the money of --price", "1"),
    ("per_million_tokens", "cost of a million output tokens", "1"),
    ("watts_at_most", "power, every server at its largest input", "W"),
    ("joules_per_token_at_most", "energy of an output token, at most, J", "1"),
)


def totals_table(facts: dict[str, Any], best: Deployment, cases: Mapping[Phase, Case]) -> Table:
    """Return requests, tokens, context and cost of all instances together."""
    whole = f"{best.short_form}: {size_in_words(best, cases)}"
    intervals = facts.get("requests_per_s_interval")
    rate = facts["requests_per_s"]

    def ends(value: object, width: int) -> str:
        return "-" if intervals is None else span_in_words(intervals, width, float(str(value)) / rate)

    rows: list[tuple[str, object, str | None]] = [
        ("deployment", whole, None),
        ("idle cards of the budget", facts["cards_idle"], "1"),
        ("requests per second", facts["requests_per_s"], "1/s"),
        ("output tokens per second", facts["tokens_per_s"], "1/s"),
        ("  per card of the decode pool, at full batch", facts["tokens_per_s_per_card_of_decode_pool"], "1/s"),
        ("  per card of the whole deployment, sustained", facts["tokens_per_s_per_card_of_deployment"], "1/s"),
        ("longest context of one request, tokens", facts["longest_context"], "1"),
        ("  limited", longest_context_by(facts, cases["decode"].model), None),
    ]
    start, end = (format_quantity(facts["tpot_at_context_s"][name], "s") for name in ("start", "end"))
    rows.append(("TPOT with all requests at their first, last token", f"{start}, {end}", None))
    if best.mixed:
        rows.append(("longest gap between tokens: a prefill step", facts["longest_gap_s"], "s"))
    if (most := facts["unrounded_requests_per_s"]) is not None:
        rows.append(("lost to whole instances, at most", 1 - rate / most, "%"))
    for name, words, unit in COSTS:
        if facts["cost"] and name in facts["cost"]:
            rows.append((words, facts["cost"][name], unit))
    sustained = ("requests per second", "output tokens per second", "  per card of the whole deployment, sustained")
    columns = (
        Column("what", ""),
        Column("unit", "unit"),
        Column("value", "value", "row"),
        *SPANS,
        Column("interval50", "50 % interval", spare=2, in_words=True),
        Column("interval", "90 % interval", spare=1, in_words=True),
    )
    return Table(
        "Totals",
        columns,
        tuple(
            {
                "what": what,
                "unit": unit,
                "value": value,
                **span_cells(
                    intervals if what in sustained else None, as_float(value) / rate if what in sustained else 1
                ),
                "interval50": ends(value, 50) if what in sustained else "",
                "interval": ends(value, 90) if what in sustained else "",
            }
            for what, value, unit in rows
        ),
    )
