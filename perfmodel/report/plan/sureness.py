"""What being sure of every limit at once needs, beside the best plan by the prediction."""

from typing import Any

from perfmodel.algebra import as_float
from perfmodel.planning.planner import Planned
from perfmodel.planning.sureness import SurePlan
from perfmodel.report.layout_words import layout_words
from perfmodel.report.table import Column, Table


def sure_plan_facts(sure: SurePlan | None) -> dict[str, Any] | None:
    """Return the plan that meets every limit at once with a chance; none where it was not searched."""
    if sure is None:
        return None
    plan = sure.deployment
    return {
        "confidence": sure.confidence,
        "reached": sure.reached,
        "chance": sure.chance,
        "cards": sure.cards,
        "servers": sure.servers,
        "serving": "mixed" if plan.mixed else "disaggregated",
        "deployment": plan.short_form,
        "layout": {"prefill": plan.prefill.layout.model_dump(), "decode": plan.decode.layout.model_dump()},
        "requests_per_s": sure.requests_per_s,
        "requests_per_s_sure": sure.sure_rate,
        "tpot_s": plan.tpot,
        "ttft_s": as_float(plan.first_token.ttft),
        "more_cards": sure.more_cards,
        "rate_change": sure.rate_change,
    }


def sureness_table(answer: Planned) -> Table | None:
    """Return the best plan by the prediction and the plan that is sure; none where none was searched."""
    sure, model = answer.sure, answer.request.model
    if sure is None:
        return None
    asked = f"{100 * sure.confidence:g} % sure" if sure.reached else "the surest found"
    rows = [
        {
            "plan": name,
            "servers": plan.servers_used,
            "cards": cards,
            "deployment": plan.short_form,
            "rate": plan.requests_per_s,
            "tpot": plan.tpot,
            "ttft": as_float(plan.first_token.ttft),
            "chance": chance,
            "layout": layout_words(plan.decode, model),
        }
        for name, plan, cards, chance in (
            ("best by the prediction", sure.predicted, sure.predicted_cards, sure.predicted_chance),
            (asked, sure.deployment, sure.cards, sure.chance),
        )
    ]
    columns = (
        Column("plan", "plan"),
        Column("servers", "servers", "1"),
        Column("cards", "cards", "1"),
        Column("deployment", "deployment", spare=1),
        Column("rate", "requests per second", "1/s"),
        Column("tpot", "TPOT", "s"),
        Column("ttft", "TTFT", "s"),
        Column("chance", "chance of all limits", "%"),
        Column("layout", "decode", spare=2),
    )
    return Table("What being sure needs", columns, tuple(rows), (_costs(answer, sure),))


def _costs(answer: Planned, sure: SurePlan) -> str:
    """Return what the margin costs: cards for a rate that was asked for, else what is served less."""
    if not sure.reached:
        return f"no plan found meets all limits at once with {100 * sure.confidence:g} %"
    if answer.request.search.rate is not None:
        if sure.more_cards == 0:
            return "the margin costs no cards"
        return f"the margin costs {sure.more_cards} cards, {100 * sure.more_cards / sure.predicted_cards:.0f} % more"
    return f"the margin costs {-100 * sure.rate_change:.1f} % of the requests per second"


def sureness_notes(answer: Planned) -> tuple[str, ...]:
    """Return how a plan stands to the chance that was asked for."""
    confidence, chance = answer.request.run.confidence, answer.chance
    if confidence is None or chance is None:
        return ()
    if chance < confidence:
        return (
            f"a chance of {100 * confidence:g} % was asked for: this plan has the highest that was found, "
            f"{100 * chance:.1f} %",
        )
    return (
        f"all limits are to be met at once with a chance of {100 * confidence:g} %: searched, and counted as refused, "
        "under limits with a margin",
    )
