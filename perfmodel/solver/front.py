"""The most throughput per card at every TPOT: the front around the limit asked for."""

from dataclasses import replace

from perfmodel.algebra import as_float
from perfmodel.errors import UsageError
from perfmodel.prediction.deployment import ROUNDING, Deployment
from perfmodel.prediction.serving import Case
from perfmodel.solver.both_pools import best_of_each, deployment, sizes_of
from perfmodel.solver.join import Join
from perfmodel.solver.mixed import mixed_joins
from perfmodel.solver.request import Cases, SearchRequest
from perfmodel.solver.search import Limits
from perfmodel.solver.solution import FrontPoint
from perfmodel.solver.tally import Tally

#: TPOT limits of a front over the limit asked for: from a quarter to nearly three times as long
FRONT = tuple(2 ** (step / 4) for step in range(-8, 7))


def front(case: Case, request: SearchRequest, prefill_case: Case | None = None) -> list[FrontPoint]:
    """Return the most tokens a second of a card within TPOT limits from short to long, on the same budget.

    A point is left out where another has no longer TPOT and no fewer tokens a second of a card.
    """
    cases = Cases(prefill=prefill_case or case, decode=case)
    middle = request.targets.tpot
    if middle is None:
        raise UsageError("front: no TPOT limit to lay it around; allowed: a request with one")
    limits = [middle * factor for factor in FRONT]
    request = replace(request, objective="per-card", rate=None)
    found: list[Join | None] = []
    if request.serving != "mixed":
        found += best_of_each(cases, request, [Limits(tpot=limit) for limit in limits])
    if request.serving != "disaggregated":
        sizes = sizes_of(case, request.servers, request.domains[1])
        for kv_dtype in request.choices.kv_dtypes:
            asked = replace(request, choices=replace(request.choices, kv_dtypes=(kv_dtype,)))
            for joins in mixed_joins(cases, sizes, asked, limits, Tally()):
                found.append(min(joins, key=lambda join: join.key, default=None))
    points = [point_of(deployment(join, cases, request.utilisation), cases) for join in found if join is not None]
    kept: list[FrontPoint] = []
    for point in sorted(points, key=lambda one: (one.tpot, -one.tokens_per_s_per_card)):
        if not kept or point.tokens_per_s_per_card > kept[-1].tokens_per_s_per_card * (1 + ROUNDING):
            kept.append(point)
    return kept


def point_of(best: Deployment, cases: Cases) -> FrontPoint:
    """Return where a deployment stands on a front: its TPOT, and output tokens a second of a card in use."""
    cards = best.prefill_servers * cases.prefill.rates.packages_per_server
    cards += best.decode_servers * cases.decode.rates.packages_per_server
    rate = best.requests_per_s * as_float(cases.decode.osl) / cards
    return FrontPoint(tpot=best.tpot, tokens_per_s_per_card=rate, deployment=best)
