"""Whether the plan meets what was asked for, and how sure that is, as a table."""

from typing import Any

from perfmodel.planning.referee import Seen, Verdict
from perfmodel.prediction.deployment import ROUND_OFF, ROUNDING
from perfmodel.prediction.sureness import MARKS, verdict_of
from perfmodel.report.quantity import span_in_words
from perfmodel.report.table import SPANS, TOLD, Column, Table, span_cells

NO_LIMIT = "no limit given"
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
                **told(met, facts.get(f"{key}_chance")),
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
        ends, met = facts.get("requests_per_s_interval"), facts["requests_per_s"] >= rate * (1 - ROUNDING)
        rows.append(
            {
                "target": "requests per second",
                **told(met, facts.get("rate_chance")),
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
        *TOLD,
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


def told(met: bool | None, chance: float | None) -> dict[str, Any]:
    """Return the cells of whether a limit is met: for programs, in a word, and as a mark; ``met`` is predicted."""
    if met is None:
        return {"met": True, "verdict": NO_LIMIT, "told": NO_LIMIT}
    word = verdict_of(met, chance)
    return {"met": met, "verdict": word, "told": MARKS[word]}


def limit_facts(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Return each limit asked for with what is predicted, whether that meets it, the chance, and the verdict."""
    found = []
    for name, value, limit in (
        ("tpot", facts["tpot_s"], facts["tpot_target_s"]),
        ("ttft", facts["ttft_s"], facts["ttft_target_s"]),
        ("rate", facts["requests_per_s"], facts["rate_asked_per_s"]),
    ):
        if limit is not None:
            met = value >= limit * (1 - ROUNDING) if name == "rate" else value <= limit * (1 + ROUND_OFF)
            chance = facts.get(f"{name}_chance")
            cells = {"met": met, "verdict": verdict_of(met, chance), "chance": chance}
            found.append({"name": name, "value": value, "limit": limit, **cells})
    return found


def _of_clients(seen: Seen) -> list[dict[str, Any]]:
    """Return the limits that means do not tell of beside what a replay has."""

    def row(target: str, value: float, limit: float, unit: str, *, met: bool, **cells: Any) -> dict[str, Any]:
        first = {"target": target, **told(met, None), "unit": unit, "value": value}
        none = {**span_cells(None), "interval50": "-", "interval": "-", "chance": None}
        return {**first, "limit": limit, **none, **cells}

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
