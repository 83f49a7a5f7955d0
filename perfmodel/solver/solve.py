"""The best deployment for a request, its nearest rivals, or why there is none."""

from dataclasses import replace
from typing import cast

from perfmodel.errors import UsageError
from perfmodel.prediction.serving import Case
from perfmodel.solver.alternatives import costs_of_alternatives, relaxed_rate, shadow_prices, with_least_batches
from perfmodel.solver.both_pools import deployment, most_of_decode, searched, sizes_of
from perfmodel.solver.infeasibility import shortest_steps, tally_infeasibility
from perfmodel.solver.join import Join, Prefills
from perfmodel.solver.lowest_tpot import lowest_tpot
from perfmodel.solver.request import Cases, SearchRequest, value
from perfmodel.solver.solution import Rejection, Solution, Status
from perfmodel.solver.tally import Tally
from perfmodel.specs.deployment import KvDtype

UNITS = {"memory": "B", "tpot": "s", "prefill memory": "B", "ttft": "s", "cards": "1", "rate": "1/s"}


def _tally_infeasibility(cases: Cases, request: SearchRequest, columns: dict[str, Prefills], tally: Tally) -> None:
    """Go over the space once more for the shortest TTFT, and the smallest budget, of a pair of instances."""
    sizes = sizes_of(cases.decode, most_of_decode(request), request.domains[1])
    for kv_dtype, prefills in columns.items():
        if prefills.plans:
            choices = replace(request.choices, kv_dtypes=(cast(KvDtype, kv_dtype),))
            found = shortest_steps(cases.decode, sizes, request.targets.tpot, choices)
            tally_infeasibility(*found, prefills, cases.decode, request, tally)


def solve(case: Case, request: SearchRequest, prefill_case: Case | None = None) -> Solution:
    """Return the best deployment, its nearest rivals, or why there is none.

    ``prefill_case`` is of the prefill pool where it runs on another system.  Raises ``UsageError`` where front ends
    that limit the rate are to be busy all the time: the wait for one has no bound.
    """
    cases = Cases(prefill=prefill_case or case, decode=case)
    if request.utilisation >= 1 and cases.prefill.rates.frontend_rate is not None:
        raise UsageError(
            f"--utilisation: {request.utilisation:g} with front ends that limit the rate; allowed: below 1; the wait "
            "for a busy front end has no bound"
        )
    if request.objective == "tpot":
        (joins, columns), request, tally = lowest_tpot(cases, request)
    else:
        tally = Tally()
        joins, columns = searched(cases, request, tally)
    if not joins:
        _tally_infeasibility(cases, request, columns, tally)
    different: dict[tuple[object, ...], Join] = {}
    for join in joins:
        different.setdefault(join.decode.key, join)
    top = with_least_batches(list(different.values()), cases, request)[: request.top]
    shown = [deployment(join, cases, request.utilisation) for join in top]
    return Solution(
        status=Status.OPTIMAL if shown else Status.INFEASIBLE if tally.evaluated else Status.EMPTY,
        evaluated=tally.evaluated,
        best=shown[0] if shown else None,
        alternatives=tuple(shown[1:]),
        losses=tuple(value(request, join.key) / value(request, top[0].key) - 1 for join in top[1:]),
        rejections=tuple(_upright(r) for r in tally.rejections(UNITS)),
        alternative_costs=costs_of_alternatives(
            joins, request, lambda join: deployment(join, cases, request.utilisation)
        )
        if shown
        else (),
        shadow_prices=shadow_prices(joins, columns, cases, request) if shown else (),
        relaxed_rate=relaxed_rate(joins, columns, request) if shown else None,
        search=request,
    )


def _upright(rejection: Rejection) -> Rejection:
    """Rates are tallied with their sign turned, since there more is better; turn it back."""
    if rejection.constraint != "rate":
        return rejection
    return replace(rejection, closest=-rejection.closest, limit=-rejection.limit)
