"""Whether the plan meets what was asked for, and how sure that is, as a table."""

from typing import Any

from perfmodel.planning.referee import Seen, Verdict
from perfmodel.prediction.deployment import ROUND_OFF
from perfmodel.report.quantity import span_in_words
from perfmodel.report.table import MET, SPANS, Column, Table, span_cells

TWO_SHARES = (
    "chance: of the model's doubt, that the prediction is right; requests within: of all requests of this plan, those "
    "that a replay has within the limit"
)


def targets_table(facts: dict[str, Any], clients: Verdict | None = None) -> Table:
    """Return each limit beside its prediction."""
    rows: list[dict[str, Any]] = []
    for name, key in (("TPOT", "tpot"), ("TTFT", "ttft")):
        target = facts[f"{key}_target_s"]
        value = facts[f"{key}_s"]
        met = None if target is None else value <= target * (1 + ROUND_OFF)
        rows.append(
            {
                "target": name,
                "met": met is not False,
                "verdict": "no limit given" if met is None else ("✓" if met else "✗"),
                "unit": "s",
                "value": value,
                "limit": target,
                "room": None if target is None else 1 - value / target,
                **span_cells(facts.get(f"{key}_interval_s")),
                "interval50": _between(facts.get(f"{key}_interval_s"), 50),
                "interval": _between(facts.get(f"{key}_interval_s"), 90),
                "chance": facts.get(f"{key}_chance"),
                "within": None if clients is None or target is None else clients.seen.within_of_limit(key, target),
            }
        )
    if (rate := facts["rate_asked_per_s"]) is not None:
        ends = facts.get("requests_per_s_interval")
        rows.append(
            {
                "target": "requests per second",
                "met": True,
                "verdict": "✓",
                "unit": "1/s",
                "value": facts["requests_per_s"],
                "limit": rate,
                "room": facts["requests_per_s"] / rate - 1,
                **span_cells(ends),
                "interval50": "-" if ends is None else span_in_words(ends, 50),
                "interval": "-" if ends is None else span_in_words(ends, 90),
                "chance": facts.get("rate_chance"),
                "within": None,
            }
        )
    if clients is not None:
        rows += _of_clients(clients.seen)
    within = (Column("within", "requests within", "%"),) if clients is not None else ()
    columns = (
        Column("target", "target"),
        *MET,
        Column("unit", "unit"),
        Column("value", "predicted", "row"),
        Column("limit", "limit", "row"),
        Column("room", "room", "%"),
        *SPANS,
        Column("interval50", "50 % interval", spare=1, in_words=True),
        Column("interval", "90 % interval", in_words=True),
        Column("chance", "chance", "%"),
        *within,
    )
    both = facts.get("chance_of_all")
    note = () if both is None else (f"chance that all are met at once: {100 * both:.1f} %",)
    return Table("Targets", columns, tuple(rows), (*note, *((TWO_SHARES,) if clients is not None else ())))


def _of_clients(seen: Seen) -> list[dict[str, Any]]:
    """Return the limits that means do not tell of beside what a replay has."""

    def row(target: str, value: float, limit: float, unit: str, *, met: bool, **cells: Any) -> dict[str, Any]:
        told = {"target": target, "met": met, "verdict": "✓" if met else "✗", "unit": unit, "value": value}
        return {**told, "limit": limit, **span_cells(None), "interval50": "-", "interval": "-", "chance": None, **cells}

    found = []
    for key, limit in seen.asked.limits.items():
        wait, _, word = key.partition("_")
        if word:
            value, within = seen.values.get(key, 0.0), seen.within_of_limit(wait, limit)
            name = f"{wait.upper()} {word}"
            found.append(row(name, value, limit, "s", met=value <= limit, room=1 - value / limit, within=within))
    if (least := seen.asked.goodput) is not None:
        share = seen.within
        found.append(row("requests within all limits", share, least, "%", met=share >= least, room=None, within=share))
    return found


def _between(ends: dict[str, float] | None, width: int) -> str:
    return "-" if ends is None else f"{span_in_words(ends, width, 1e3)} ms"
