"""The lowest TPOT that a rate can be served at: limits divided until one plan is left."""

import math
from dataclasses import replace
from typing import cast

from perfmodel.prediction.deployment import ROUNDING
from perfmodel.solver.both_pools import Found, best_of_each, searched, tpot_of
from perfmodel.solver.join import Join
from perfmodel.solver.request import Cases, SearchRequest
from perfmodel.solver.search import Limits
from perfmodel.solver.tally import Tally

NEAR = 1e-3  # relative: so near the lowest TPOT few plans are left, and each search leads to a faster one
PASSED = 32  # limits in one pass over the space
SHORTEST = 1 / 64  # of a plan's TPOT: nothing is that much faster


def lowest_tpot(
    cases: Cases, request: SearchRequest, first: tuple[Found, Tally] | None = None
) -> tuple[Found, SearchRequest, Tally]:
    """Return the joins of the lowest TPOT: limits divide what is left to a thousandth, then step from plan to plan.

    ``first`` is what the limit asked for leads to, where that is known.
    """
    tally = Tally()
    found, tally = first or (searched(cases, request, tally), tally)
    if not found[0]:
        return found, request, tally
    high = tpot_of(found[0][0], cases)
    low, asked = high * SHORTEST, request
    while request.serving == "disaggregated" and high / low > 1 + NEAR:
        limits = [low * (high / low) ** (step / PASSED) for step in range(1, PASSED + 1)]
        best = best_of_each(cases, request, [Limits(tpot=limit) for limit in limits])
        place = next((at for at, one in enumerate(best) if one is not None), None)
        if place is None:
            break  # rounding: only what was found before is left
        low = limits[place - 1] if place else low
        high = min(high, tpot_of(cast(Join, best[place]), cases))
    middle = high * (1 + ROUNDING)
    while low < high * (1 - ROUNDING):
        tried = replace(request, targets=request.targets.model_copy(update={"tpot": middle}))
        counted = Tally()
        other = searched(cases, tried, counted)
        if other[0]:
            found, asked, tally = other, tried, counted
            high = tpot_of(other[0][0], cases)
        else:
            low = middle
        near = high / low < 1 + NEAR
        middle = high * (1 - ROUNDING) if near else math.sqrt(low * high)
    return found, asked, tally
