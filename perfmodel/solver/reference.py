"""An instance of either pool that stands for all while the doubt of their steps is looked at, before the search."""

from perfmodel.prediction.deployment import PoolPlan
from perfmodel.solver.both_pools import most_of_decode, sizes_of
from perfmodel.solver.request import Cases, SearchRequest
from perfmodel.solver.search import Limits, leaders_of, prefill_options
from perfmodel.solver.tally import Tally


def reference_pools(cases: Cases, request: SearchRequest) -> tuple[PoolPlan, PoolPlan] | None:
    """Return the fastest prefill and decode instance of one size each; none where there is no such instance.

    Decode's size is in the middle of those that are searched, or the next that has an instance within the limit on
    TPOT; prefill's the smallest that has one.
    """
    sizes = sizes_of(cases.decode, most_of_decode(request), request.domains[1])
    middle = len(sizes) // 2
    limit = Limits() if request.targets.tpot is None else Limits(tpot=request.targets.tpot)
    decodes = (
        leaders_of(cases.decode, [size], [limit], [float("inf")], request.choices)[0]
        for size in (*sizes[middle:], *reversed(sizes[:middle]))
    )
    decode = next((found for found in decodes if found), None)
    prefills = (
        prefill_options(cases.prefill, [size], request.choices, Tally(), request.utilisation)
        for size in sizes_of(cases.prefill, request.prefill_servers or request.servers, request.domains[0])
    )
    prefill = None if decode is None else next((found for found in prefills if found), None)
    if decode is None or prefill is None:
        return None
    fastest = (max(found, key=lambda one: one.requests_per_s) for found in (prefill, decode))
    return next(fastest).plan(cases.prefill), next(fastest).plan(cases.decode)
