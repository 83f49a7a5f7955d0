"""Layouts published for the model and system: what each leads to here, and whether it is told from the best."""

from typing import Any

from perfmodel.algebra import as_float
from perfmodel.planning.doubts import PoolLoss, PublishedLoss
from perfmodel.planning.planner import Planned
from perfmodel.prediction.deployment import ROUNDING, Deployment
from perfmodel.prediction.differences import doubt_of, is_same, is_tie
from perfmodel.report.layout_words import shape_words
from perfmodel.report.plan.alternatives import (
    TIE,
    VALUED,
    VERDICT,
    added_words,
    card_seconds,
    percent,
    verdict_cells,
    verdict_of,
)
from perfmodel.report.quantity import format_quantity
from perfmodel.report.table import Column, Table
from perfmodel.solver.solution import GivenOutcome, Refused
from perfmodel.specs.deployment import Phase

OTHER: dict[Phase, Phase] = {"prefill": "decode", "decode": "prefill"}
REFUSED = "refused"


def _pairs(answer: Planned) -> list[tuple[GivenOutcome, PublishedLoss]]:
    return list(zip(answer.solution.given, answer.doubts.published, strict=True)) if answer.doubts else []


def published_table(answer: Planned, best: Deployment) -> Table:
    """Return each published layout with the deployment it leads to, a line for each pool that it gives."""
    rows = []
    for one, sure in _pairs(answer):
        pools = {pool.phase: pool for pool in sure.pools}
        for phase, shape in one.layouts.items():
            pool = pools.get(phase)
            rows.append(
                {
                    "row": ", ".join(one.rows),
                    "pool": phase,
                    "layout": shape_words(shape, answer.request.model, answer.request.cases[phase].rates),
                    **_whole_cells(answer, one, sure),
                    "pool_rate": None if pool is None else pool.tokens_per_s_per_card,
                    "pool_loss": None if pool is None else pool.loss,
                    "pool_verdict": "-" if pool is None else verdict_of(pool.loss, pool.doubt),
                    "why": _why(answer, one, sure, best, phase),
                }
            )
    columns = (
        Column("row", "published as"),
        Column("pool", "pool"),
        Column("plan", "plan"),
        Column("tpot", "TPOT", "s", spare=4),
        Column("rate", "tokens/s per card", "1/s", spare=3),
        Column("loss", f"{VALUED[answer.request.search.objective]} vs best", "%"),
        *VERDICT,
        Column("pool_rate", "tokens/s per card of its pool", "1/s", spare=2),
        Column("pool_loss", "its pool vs that of the best", "%"),
        Column("pool_verdict", "its pool"),
        Column("why", "why"),
        Column("layout", "published layout", spare=1),
    )
    notes = (
        "the layout given, its batch and everything else chosen anew; pools a card at full batch within the limits",
        TIE,
    )
    return Table("Layouts published for this model and system", columns, tuple(rows), notes)


def _whole_cells(answer: Planned, one: GivenOutcome, sure: PublishedLoss) -> dict[str, Any]:
    if one.deployment is None or one.loss is None or sure.whole is None:
        empty = dict.fromkeys(("tpot", "rate", "loss", "loss_low90", "loss_high90"))
        return {"plan": "-", **empty, "verdict": REFUSED}
    return {
        "plan": one.deployment.short_form,
        "tpot": one.deployment.tpot,
        "rate": _rate(answer, one.deployment),
        "loss": one.loss,
        **verdict_cells(one.loss, sure.whole),
    }


def _rate(answer: Planned, deployment: Deployment) -> float:
    """Return output tokens a second and card in use, sustained."""
    cases = answer.request.cases
    cards = sum(number * cases[phase].rates.packages_per_server for phase, number in deployment.servers.items())
    return deployment.requests_per_s * as_float(cases["decode"].osl) / cards


def _why(answer: Planned, one: GivenOutcome, sure: PublishedLoss, best: Deployment, phase: Phase) -> str:
    """Return what refuses a layout, or what its loss is of."""
    if one.refused is not None:
        return refused_words(one.refused)
    if one.deployment is None or sure.whole is None or is_tie(sure.whole):
        return "-"
    if len(one.layouts) == 1 and (text := _bound_elsewhere(answer, one.deployment, phase)):
        return text
    case, ideal = answer.request.cases[phase], answer.request.ideal[phase]
    full = answer.solution.full
    if phase not in full or phase not in one.pools:
        return "-"
    return added_words(card_seconds(full[phase], case, ideal), card_seconds(one.pools[phase], case, ideal))


def _bound_elsewhere(answer: Planned, deployment: Deployment, phase: Phase) -> str:
    """Return that the other pool sets the rate of a deployment, where it does."""
    loads = {"prefill": deployment.prefill_utilisation, "decode": deployment.decode_utilisation}
    other, most = OTHER[phase], answer.request.search.utilisation
    if loads[other] < most * (1 - ROUNDING) or loads[phase] >= most * (1 - ROUNDING):
        return ""
    return f"{other} sets the rate: servers left to it: {deployment.servers[other]}"


def refused_words(refused: Refused) -> str:
    """Return in words which limit refuses a layout."""
    if refused.closest is None or refused.limit is None:
        return f"{refused.constraint}: {refused.words}"
    closest, limit = (format_quantity(value, refused.unit) for value in (refused.closest, refused.limit))
    return f"{refused.constraint}: {closest}, limit {limit}"


def published_facts(answer: Planned) -> list[dict[str, Any]]:
    """Return the published layouts in SI units, losses as parts of the best."""
    return [
        {
            "rows": list(one.rows),
            "layouts": {phase: shape.model_dump(exclude={"batch"}) for phase, shape in one.layouts.items()},
            "plan": None if one.deployment is None else one.deployment.short_form,
            "tpot_s": None if one.deployment is None else one.deployment.tpot,
            "tokens_per_s_per_card": None if one.deployment is None else _rate(answer, one.deployment),
            "loss": one.loss,
            "loss_low90": None if sure.whole is None else sure.whole.low90,
            "loss_high90": None if sure.whole is None else sure.whole.high90,
            "tie": None if sure.whole is None else is_tie(sure.whole),
            "refused_by": None if one.refused is None else one.refused.constraint,
            "refused_at": None if one.refused is None else one.refused.closest,
            "refused_limit": None if one.refused is None else one.refused.limit,
            "pools": {pool.phase: _pool_facts(pool) for pool in sure.pools},
        }
        for one, sure in _pairs(answer)
    ]


def _pool_facts(pool: PoolLoss) -> dict[str, Any]:
    return {
        "tokens_per_s_per_card": pool.tokens_per_s_per_card,
        "loss": pool.loss,
        "loss_low90": pool.doubt.low90,
        "loss_high90": pool.doubt.high90,
        "tie": is_tie(pool.doubt),
    }


def published_notes(answer: Planned) -> tuple[str, ...]:
    """Return each published layout that nobody can tell from the best plan's, as a deployment or as a pool alone."""
    found = []
    for one, sure in _pairs(answer):
        rows, cards = ", ".join(one.rows), _cards(answer, one)
        if one.loss is not None and sure.whole is not None and is_tie(sure.whole):
            found.append(
                f"tie: the layout of {rows} ({cards}) differs from the best plan by {percent(one.loss)}, "
                f"less than the doubt of {percent(doubt_of(one.loss, sure.whole))}"
            )
            continue
        own = [pool.phase for pool in sure.pools if is_same(pool.loss, pool.doubt)]
        found += [f"the {phase} pool of the best plan is laid out as that of {rows} ({cards})" for phase in own]
        found += [
            f"tie a card: the {pool.phase} pool of {rows} ({cards}) differs from that of the best plan by "
            f"{percent(pool.loss)}, less than the doubt of {percent(doubt_of(pool.loss, pool.doubt))}"
            for pool in sure.pools
            if is_tie(pool.doubt) and pool.phase not in own
        ]
    return tuple(found)


def _cards(answer: Planned, one: GivenOutcome) -> str:
    """Return the sizes of the instances in cards, and micro-batches where there are."""
    each = []
    for phase, shape in one.layouts.items():
        cards = shape.dies / answer.request.cases[phase].rates.dies_per_package
        words = f"{phase} on {cards:g} cards"
        each.append(f"{words}, micro-batched" if shape.overlap != "none" else words)
    return " and ".join(each)
