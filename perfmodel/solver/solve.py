"""The best deployment for a request, its nearest rivals, or why there is none."""

from collections.abc import Sequence
from dataclasses import replace

from perfmodel.errors import UsageError
from perfmodel.prediction.deployment import Deployment
from perfmodel.prediction.serving import Case
from perfmodel.solver.alternatives import costs_of_alternatives, relaxed_rate, shadow_prices
from perfmodel.solver.both_pools import Kept, deployment, grown, searched_beside
from perfmodel.solver.finalists import Finalists
from perfmodel.solver.given_layouts import Given, full_pools, outcomes
from perfmodel.solver.infeasibility import tally_infeasibility
from perfmodel.solver.join import Join
from perfmodel.solver.lowest_tpot import lowest_tpot
from perfmodel.solver.refit import with_least_batches
from perfmodel.solver.request import Cases, SearchRequest, value
from perfmodel.solver.solution import Beside, Solution, Status
from perfmodel.solver.tally import Tally


def solve_beside(
    case: Case,
    request: SearchRequest,
    beside: Sequence[SearchRequest],
    prefill_case: Case | None = None,
    kept: Kept | None = None,
) -> tuple[Beside, ...]:
    """Return the joins of some requests that differ from ``request`` in limits, margins, serving and budget alone."""
    cases = Cases(prefill=prefill_case or case, decode=case)
    _, others = searched_beside(cases, request, beside, Tally(), kept)
    return _beside(beside, others, cases)


def best_mixed(
    case: Case, request: SearchRequest, prefill_case: Case | None = None, kept: Kept | None = None
) -> Join | None:
    """Return the best deployment of mixed instances, or None."""
    cases = Cases(prefill=prefill_case or case, decode=case)
    (joins, _), _ = searched_beside(cases, replace(request, serving="mixed"), (), Tally(), kept)
    return joins[0] if joins else None


def _beside(beside: Sequence[SearchRequest], found: Sequence[Sequence[Join]], cases: Cases) -> tuple[Beside, ...]:
    return tuple(Beside(request=one, joins=tuple(joins), cases=cases) for one, joins in zip(beside, found, strict=True))


def solve(
    case: Case,
    request: SearchRequest,
    prefill_case: Case | None = None,
    given: Sequence[Given] = (),
    beside: Sequence[SearchRequest] = (),
    chosen: Join | None = None,
    kept: Kept | None = None,
) -> Solution:
    """Return the best deployment, its nearest rivals, or why there is none.

    ``prefill_case`` is of the prefill pool where it runs on another system; ``given`` are layouts that are told
    beside the best; what is ``kept`` of the same question on another budget is not worked out again. Of requests
    ``beside``, which differ in limits, margins, serving and budget, the best joins are found in the same pass; none for
    the lowest TPOT, whose limit is not known before. A join that is ``chosen`` is the best, and what is better than it
    is left out. A budget that may grow does so until a rate is met; the solution's own request has the budget that was.
    Raises ``UsageError`` where front ends that limit the rate are to be busy all the time: the wait for one has no
    bound.
    """
    cases = Cases(prefill=prefill_case or case, decode=case)
    if request.utilisation >= 1 and cases.prefill.rates.frontend_rate is not None:
        raise UsageError(
            f"--utilisation: {request.utilisation:g} with front ends that limit the rate; allowed: below 1; the wait "
            "for a busy front end has no bound"
        )
    tally, kept = Tally(), kept or Kept()
    beside = () if request.objective == "tpot" else beside
    (joins, columns), others, request = grown(cases, request, tally, kept, beside)
    if request.objective == "tpot" and joins:
        (joins, columns), request, tally = lowest_tpot(cases, request, ((joins, columns), tally))
    if chosen is not None:
        joins = [chosen, *(join for join in joins if join.key >= chosen.key)]
    if not joins:
        tally_infeasibility(cases, request, columns, tally)
    least = _least(joins, cases, request)
    if chosen is not None:
        least = [chosen, *(join for join in least if join.decode.key != chosen.decode.key)]
    top = least[: request.top]
    shown = [deployment(join, cases, request.utilisation) for join in top]
    return Solution(
        status=Status.OPTIMAL if shown else Status.INFEASIBLE if tally.evaluated else Status.EMPTY,
        evaluated=tally.evaluated,
        best=shown[0] if shown else None,
        alternatives=tuple(shown[1:]),
        losses=tuple(value(request, join.key) / value(request, top[0].key) - 1 for join in top[1:]),
        rejections=tally.rejections(),
        alternative_costs=costs_of_alternatives(
            joins, request, lambda join: deployment(join, cases, request.utilisation)
        )
        if shown
        else (),
        shadow_prices=shadow_prices(joins, columns, cases, request) if shown else (),
        relaxed_rate=relaxed_rate(joins, columns, request) if shown else None,
        search=request,
        full=full_pools(top[0], cases, request) if shown else {},
        given=outcomes(given, joins, columns, cases, request, top[0]) if shown else (),
        finalists=Finalists(joins=joins, best=top[0], columns=columns, cases=cases, request=request) if shown else None,
        beside=_beside(beside, others, cases),
    )


def _least(joins: Sequence[Join], cases: Cases, request: SearchRequest) -> list[Join]:
    """Return the best join of each kind of decode instance with batches no fuller than it needs, the best first."""
    different: dict[tuple[object, ...], Join] = {}
    for join in joins:
        different.setdefault(join.decode.key, join)
    return with_least_batches(list(different.values()), cases, request)


def best_alone(
    case: Case, request: SearchRequest, prefill_case: Case | None = None, kept: Kept | None = None
) -> Deployment | None:
    """Return the best deployment, or None, without what stands beside it in a solution."""
    cases = Cases(prefill=prefill_case or case, decode=case)
    (joins, _), _, request = grown(cases, request, Tally(), kept or Kept())
    top = _least(joins, cases, request)
    return deployment(top[0], cases, request.utilisation) if top else None
