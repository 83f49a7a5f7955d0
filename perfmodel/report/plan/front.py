"""The front of throughput over TPOT, and the plan among it, as a table."""

from collections.abc import Sequence
from typing import Any

from perfmodel.planning.request import PlanRequest
from perfmodel.prediction.deployment import Deployment
from perfmodel.report.drawings import front
from perfmodel.report.layout_words import layout_words
from perfmodel.report.table import Column, Table
from perfmodel.solver.solution import FrontPoint

AS_GOOD = 0.02  # of a rate: a plan that comes as near to a point is as good


def front_table(points: Sequence[FrontPoint], request: PlanRequest, best: Deployment, facts: dict[str, Any]) -> Table:
    """Return the front of throughput over TPOT, and the chosen plan among it."""
    most = points[-1].tokens_per_s_per_card
    shown = [(one.tpot, one.tokens_per_s_per_card, one.deployment, "") for one in points]
    own = facts["tokens_per_s_per_card_of_deployment"]
    shown = [one for one in shown if one[0] < best.tpot or one[1] > own * (1 + AS_GOOD)]  # not those the choice beats
    shown.append((best.tpot, own, best, "<- chosen"))
    rows = tuple(
        {
            "tpot": tpot,
            "rate": rate,
            "bar": rate / most,
            "plan": deployment.short_form,
            "decode": layout_words(deployment.decode, request.model),
            "chosen": chosen,
        }
        for tpot, rate, deployment, chosen in sorted(shown, key=lambda one: one[:2])
    )
    columns = (
        Column("tpot", "TPOT", "s"),
        Column("rate", "tokens/s per card", "1/s"),
        Column("bar", "", "bar", spare=2),
        Column("plan", "plan"),
        Column("decode", "decode layout", spare=1),
        Column("chosen", ""),
    )
    notes = [
        "tokens/s per card in use, sustained: the most within each TPOT on this budget, whatever rate was asked for"
    ]
    if request.run.confidence is not None:
        notes.append("points are predictions, met with even odds; the chosen plan meets its TPOT more often")
    ends = [(one.tpot, one.tokens_per_s_per_card) for one in points]
    limit = request.search.targets.tpot
    return Table(
        "Front of throughput over TPOT",
        columns,
        rows,
        tuple(notes),
        drawing=lambda width, _: front(ends, (best.tpot, own), limit, width),
    )
