"""Search both pools, join them, and return the best deployment with what speaks for it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from perfmodel.algebra import as_float, minimum
from perfmodel.errors import UsageError
from perfmodel.ledger.footprint import Footprint
from perfmodel.ledger.records import Layout
from perfmodel.prediction.sensitivity import Swing, swings
from perfmodel.prediction.serving import Case, FirstToken, fewest_dies, first_token, tokens_per_step
from perfmodel.prediction.uncertainty import JoinedRange, PoolRange, interval, joined_range
from perfmodel.solver.defence import choices_of, lost, prices, relieved, unrounded
from perfmodel.solver.join import Join, Prefills, fastest_of_a_size, joined, prefill_columns
from perfmodel.solver.misses import shortest_steps, tell_misses
from perfmodel.solver.mixed import mixed_first_token, mixed_footprint, mixed_joins, mixed_rate, mixed_time
from perfmodel.solver.plan import Deployment, FrontPoint, Holds, PoolPlan, Rejection, Solution, Status
from perfmodel.solver.request import ROUNDING, Cases, Request, value
from perfmodel.solver.search import Limits, Tally, best_decode, exact_pool, leaders_of, prefill_options
from perfmodel.solver.space import LARGEST_PREFILL_SERVERS, Choices
from perfmodel.specs.deployment import KvDtype, Phase
from perfmodel.supply.machine import Machine
from perfmodel.supply.rates import Rates

UNITS = {"memory": "B", "tpot": "s", "prefill memory": "B", "ttft": "s", "cards": "1", "rate": "1/s"}

#: joins of a search, the best first, and the prefill candidates by cache precision
Found = tuple[list[Join], dict[str, Prefills]]


def _terms(prefill: PoolPlan, case: Case, utilisation: float) -> FirstToken:
    """Return the terms of TTFT up to the first decode step."""
    return first_token(
        prefill=prefill.point,
        layout=Layout.of(prefill.layout),
        case=case,
        utilisation=utilisation,
        decode_step=0.0,
    )


def first_token_of(
    prefill: PoolPlan, decode: PoolPlan, prefill_case: Case, utilisation: float, mixed: bool
) -> FirstToken:
    """Return the terms of TTFT of two pools, or of instances that run both phases."""
    if mixed:
        return mixed_first_token(prefill.point, decode.point, prefill_case, utilisation)
    return replace(_terms(prefill, prefill_case, utilisation), first_step=decode.point.step_time)


def outputs(best: Deployment, cases: tuple[Case, Case], utilisation: float) -> dict[str, Any]:
    """Return TPOT, TTFT and the requests a second at full load of a deployment.

    They are evaluated anew for cases of both pools, prefill's first, whose rates may be arrays.
    """
    prefill, decode = (
        exact_pool(pool.layout, pool.family, case)
        for pool, case in zip((best.prefill, best.decode), cases, strict=True)
    )
    terms = first_token_of(prefill, decode, cases[0], utilisation, best.mixed)
    tpot: Any = mixed_time(prefill.point, decode.point) if best.mixed else decode.point.tpot
    each: Any = mixed_rate(prefill.point, decode.point) if best.mixed else decode.point.requests_per_s
    rate = best.decode_instances * each
    if not best.mixed:
        rate = minimum(rate, best.prefill_instances * cast(Any, prefill.point.requests_per_s))
    return {"TPOT": tpot, "TTFT": terms.ttft, "rate": rate}


def felt(
    best: Deployment,
    machines: Mapping[Phase, Machine],
    cases: Mapping[Phase, Case],
    utilisation: float,
    wanted: Sequence[str],
) -> list[Swing]:
    """Return what assumed inputs of either system do to the ``wanted`` of ``outputs``."""
    found: list[Swing] = []
    different = list({id(machine): machine for machine in machines.values()}.values())
    for machine in different:

        def evaluate(varied: Rates, machine: Machine = machine) -> dict[str, Any]:
            def case(phase: Phase) -> Case:
                given = cases[phase]
                if machine is not machines[phase]:
                    return given
                between = varied.kv_tier if len(different) == 1 else given.rates.kv_tier
                return replace(given, rates=replace(varied, kv_tier=between))

            every = outputs(best, (case("prefill"), case("decode")), utilisation)
            return {name: every[name] for name in wanted}

        pool = "" if len(different) == 1 else "prefill: " if machine is machines["prefill"] else "decode: "
        found += [replace(one, name=pool + one.name) for one in swings(machine, evaluate)]
    return sorted(found, key=lambda one: -one.largest)


def joined_sure(
    best: Deployment, prefill: PoolRange, decode: PoolRange, case: Case, utilisation: float, asked: float | None
) -> JoinedRange:
    """Return how sure TTFT and the rate of a deployment are; decode's steps have prefill in between where it is mixed.

    ``case`` is prefill's, ``asked`` the requests a second asked for.
    """
    found = joined_range(
        prefill=prefill,
        decode=decode,
        first=best.first_token,
        prefill_rate=math.inf if best.mixed else best.prefill_capacity * utilisation,
        decode_rate=best.decode_capacity * utilisation,
        asked=asked,
    )
    if not best.mixed:
        return found
    steps = decode.steps - best.tpot_added * as_float(best.decode.point.tokens_per_step) * prefill.relative
    points = (
        replace(best.prefill.point, step_time=cast(Any, prefill.steps)),
        replace(best.decode.point, step_time=cast(Any, steps)),
    )
    ttfts: Any = mixed_first_token(*points, case, utilisation).ttft
    return replace(found, ttfts=ttfts, ttft=interval(ttfts))


def deployment(join: Join, cases: Cases, utilisation: float) -> Deployment:
    """Return a join evaluated with plain numbers."""
    pools = join.prefill.plan(cases.prefill), join.decode.plan(cases.decode)
    counts = join.prefill_instances, join.decode_instances
    return deployment_of(pools, counts, cases.prefill, utilisation, served=join.served, mixed=join.mixed)


def deployment_of(
    pools: tuple[PoolPlan, PoolPlan],
    counts: tuple[int, int],
    prefill_case: Case,
    utilisation: float,
    *,
    served: float,
    mixed: bool,
) -> Deployment:
    """Return so many instances of two pools, prefill's first, that serve ``served`` requests a second."""
    (prefill, decode), (n_prefill, n_decode) = pools, counts
    added, rate = 0.0, as_float(decode.point.requests_per_s)
    if mixed:
        added = as_float(mixed_time(prefill.point, decode.point)) - as_float(decode.point.tpot)
        rate = as_float(mixed_rate(prefill.point, decode.point))
        decode = replace(decode, point=replace(decode.point, footprint=footprint_of_both(prefill, decode)))
    capacity = n_decode * rate
    return Deployment(
        prefill=prefill,
        decode=decode,
        prefill_instances=n_prefill,
        decode_instances=n_decode,
        requests_per_s=served,
        prefill_capacity=capacity if mixed else n_prefill * as_float(prefill.point.requests_per_s),
        decode_capacity=capacity,
        first_token=first_token_of(prefill, decode, prefill_case, utilisation, mixed),
        prefill_servers=0 if mixed else math.ceil(n_prefill * prefill.servers - ROUNDING),
        decode_servers=math.ceil(n_decode * decode.servers - ROUNDING),
        mixed=mixed,
        tpot_added=added,
    )


def footprint_of_both(prefill: PoolPlan, decode: PoolPlan) -> Footprint:
    """Return the bytes on a die of mixed instances."""
    prompts = cast(Any, prefill.point.in_flight) / prefill.point.tokens_per_request
    return mixed_footprint(prefill.point, decode.point, prompts / Layout.of(decode.layout).ranks)


def _step_limits(prefills: Prefills, request: Request, case: Case) -> list[float]:
    """Return the times that TTFT leaves for the first decode step, one for each prefill candidate.

    Those that no step within TPOT reaches are none.
    """
    ttft, tpot = request.targets.ttft, request.targets.tpot
    if ttft is None:
        return [math.inf]
    most: Any = math.inf if tpot is None else tpot * cast(Any, tokens_per_step(case.acceptance, len(case.acceptance)))
    left = {ttft - spent for spent in prefills.ttft.tolist() if spent < ttft}
    return sorted({limit if limit < most else math.inf for limit in left}) or [math.inf]


def _sizes(case: Case, servers: int, domain: int | None) -> list[int]:
    """Return the sizes of an instance in dies: whole servers of a domain, and halves, quarters and so on of one.

    Parts of a server on which the routed experts alone pass the memory are left out.
    """
    of_server = case.rates.dies_per_server
    parts = [of_server >> shift for shift in range(of_server.bit_length() - 1, 0, -1) if of_server % (1 << shift) == 0]
    fewest = fewest_dies(case)
    whole = [n * of_server for n in range(1, min(servers, domain or servers) + 1)]
    return [part for part in parts if part >= fewest] + whole


def _most_of_decode(request: Request) -> int:
    """Return the servers that decode may have: one is left to prefill where it has no budget of its own."""
    return max(1, request.servers - (request.prefill_servers is None))


def _prefill_side(cases: Cases, request: Request, choices: Choices, tally: Tally) -> tuple[list[int], Prefills]:
    """Return the sizes of a decode instance that are searched, and the prefill candidates."""
    own, (of_prefill, of_decode) = request.prefill_servers, request.domains
    decode_sizes = _sizes(cases.decode, _most_of_decode(request), of_decode)
    most = min(LARGEST_PREFILL_SERVERS, own or max(1, request.servers - 1))
    prefills = prefill_options(
        cases.prefill, _sizes(cases.prefill, most, of_prefill), choices, tally, request.utilisation
    )
    return decode_sizes, prefill_columns(prefills, cases.prefill, request.utilisation)


def searched(cases: Cases, request: Request, tally: Tally) -> Found:
    """Return the best deployment of every decode instance that is not beaten by its like, the best first."""
    joins: list[Join] = []
    columns: dict[str, Prefills] = {}
    for kv_dtype in request.choices.kv_dtypes:  # both pools keep one cache, so precisions do not mix
        choices = replace(request.choices, kv_dtypes=(kv_dtype,))
        if request.serving != "mixed":
            decode_sizes, columns[kv_dtype] = _prefill_side(cases, request, choices, tally)
            limits = _step_limits(columns[kv_dtype], request, cases.decode)
            decodes = best_decode(cases.decode, decode_sizes, request.targets.tpot, limits, choices, tally)
            joins += joined(decodes, columns[kv_dtype], request, tally)
        if request.serving != "disaggregated":
            sizes = _sizes(cases.decode, request.servers, request.domains[1])
            asked = replace(request, choices=choices)
            joins += mixed_joins(cases, sizes, asked, [request.targets.tpot], tally)[0]
    return sorted(joins, key=lambda join: join.key), columns


def _tell_misses(cases: Cases, request: Request, columns: dict[str, Prefills], tally: Tally) -> None:
    """Go over the space once more for the shortest TTFT, and the smallest budget, of a pair of instances."""
    sizes = _sizes(cases.decode, _most_of_decode(request), request.domains[1])
    for kv_dtype, prefills in columns.items():
        if prefills.plans:
            choices = replace(request.choices, kv_dtypes=(cast(KvDtype, kv_dtype),))
            found = shortest_steps(cases.decode, sizes, request.targets.tpot, choices)
            tell_misses(*found, prefills, cases.decode, request, tally)


NEAR = 1e-3  # relative: so near the lowest TPOT few plans are left, and each search leads to a faster one
PASSED = 32  # limits in one pass over the space
SHORTEST = 1 / 64  # of a plan's TPOT: nothing is that much faster


def _lowest_tpot(cases: Cases, request: Request) -> tuple[Found, Request, Tally]:
    """Return the joins of the lowest TPOT: limits divide what is left to a thousandth, then step from plan to plan."""
    tally = Tally()
    found = searched(cases, request, tally)
    if not found[0]:
        return found, request, tally
    high = _tpot_of(found[0][0], cases)
    low, asked = high * SHORTEST, request
    while request.serving == "disaggregated" and high / low > 1 + NEAR:
        limits = [low * (high / low) ** (step / PASSED) for step in range(1, PASSED + 1)]
        best = _best_of_each(cases, request, [Limits(tpot=limit) for limit in limits])
        place = next((at for at, one in enumerate(best) if one is not None), None)
        if place is None:
            break  # rounding: only what was found before is left
        low = limits[place - 1] if place else low
        high = min(high, _tpot_of(cast(Join, best[place]), cases))
    middle = high * (1 + ROUNDING)
    while low < high * (1 - ROUNDING):
        tried = replace(request, targets=request.targets.model_copy(update={"tpot": middle}))
        counted = Tally()
        other = searched(cases, tried, counted)
        if other[0]:
            found, asked, tally = other, tried, counted
            high = _tpot_of(other[0][0], cases)
        else:
            low = middle
        near = high / low < 1 + NEAR
        middle = high * (1 - ROUNDING) if near else math.sqrt(low * high)
    return found, asked, tally


def _tpot_of(join: Join, cases: Cases) -> float:
    return as_float(join.decode.plan(cases.decode).point.tpot) + join.tpot_added


def solve(case: Case, request: Request, prefill_case: Case | None = None) -> Solution:
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
        (joins, columns), request, tally = _lowest_tpot(cases, request)
    else:
        tally = Tally()
        joins, columns = searched(cases, request, tally)
    if not joins:
        _tell_misses(cases, request, columns, tally)
    different: dict[tuple[object, ...], Join] = {}
    for join in joins:
        different.setdefault(join.decode.key, join)
    top = relieved(list(different.values()), cases, request)[: request.top]
    shown = [deployment(join, cases, request.utilisation) for join in top]
    return Solution(
        status=Status.OPTIMAL if shown else Status.INFEASIBLE if tally.evaluated else Status.EMPTY,
        evaluated=tally.evaluated,
        best=shown[0] if shown else None,
        alternatives=tuple(shown[1:]),
        losses=tuple(value(request, join.key) / value(request, top[0].key) - 1 for join in top[1:]),
        rejections=tuple(_upright(r) for r in tally.rejections(UNITS)),
        lost=lost(joins, request, lambda join: deployment(join, cases, request.utilisation)) if shown else (),
        prices=prices(joins, columns, cases, request) if shown else (),
        unrounded=unrounded(joins, columns, request) if shown else None,
        request=request,
    )


#: TPOT limits of a front over the limit asked for: from a quarter to nearly three times as long
FRONT = tuple(2 ** (step / 4) for step in range(-8, 7))
STEPS = 41  # of acceptance from 0 to 1


def _best_of_each(cases: Cases, request: Request, asked: Sequence[Limits]) -> list[Join | None]:
    """Return the best deployment under each of several limits, in one pass over the space; pools apart."""
    longest = max(one.tpot for one in asked)
    best: list[Join | None] = [None] * len(asked)
    for kv_dtype in request.choices.kv_dtypes:
        choices = replace(request.choices, kv_dtypes=(kv_dtype,))
        decode_sizes, columns = _prefill_side(cases, request, choices, Tally())
        loosest = replace(request, targets=request.targets.model_copy(update={"tpot": longest}))
        steps = _step_limits(columns, loosest, cases.decode)
        for place, leaders in enumerate(leaders_of(cases.decode, decode_sizes, asked, steps, choices)):
            joins = joined(fastest_of_a_size(leaders), columns, request, Tally())
            best[place] = min((one for one in (*joins, best[place]) if one), key=lambda one: one.key, default=None)
    return best


def front(case: Case, request: Request, prefill_case: Case | None = None) -> list[FrontPoint]:
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
        found += _best_of_each(cases, request, [Limits(tpot=limit) for limit in limits])
    if request.serving != "disaggregated":
        sizes = _sizes(case, request.servers, request.domains[1])
        for kv_dtype in request.choices.kv_dtypes:
            asked = replace(request, choices=replace(request.choices, kv_dtypes=(kv_dtype,)))
            for joins in mixed_joins(cases, sizes, asked, limits, Tally()):
                found.append(min(joins, key=lambda join: join.key, default=None))
    points = [_point(deployment(join, cases, request.utilisation), cases) for join in found if join is not None]
    kept: list[FrontPoint] = []
    for point in sorted(points, key=lambda one: (one.tpot, -one.tokens_per_s_per_card)):
        if not kept or point.tokens_per_s_per_card > kept[-1].tokens_per_s_per_card * (1 + ROUNDING):
            kept.append(point)
    return kept


def holds(case: Case, request: Request, prefill_case: Case | None = None) -> Holds | None:
    """Return over which acceptance of the first draft position the structure of decode stays that of the best plan.

    Every plan of the space is compared at each of ``STEPS`` acceptances; all positions scale together, at most to 1.
    The ends are the last steps at which it is the best.  None where nothing is drafted, TPOT is open or instances may
    be mixed.
    """
    cases = Cases(prefill=prefill_case or case, decode=case)
    accepted, tpot = case.acceptance, request.targets.tpot
    if not accepted or not accepted[0] or tpot is None or request.serving != "disaggregated":
        return None
    steps = [step / (STEPS - 1) for step in range(STEPS)]
    asked = min(range(STEPS), key=lambda step: abs(steps[step] - accepted[0]))
    steps[asked] = accepted[0]
    scaled = [tuple(min(1.0, rate * step / accepted[0]) for rate in accepted) for step in steps]
    best = _best_of_each(cases, request, [Limits(tpot=tpot, acceptance=one) for one in scaled])
    words = [None if join is None else choices_of(join) for join in best]
    chosen = words[asked]
    if chosen is None:
        return None
    low = high = asked
    while low > 0 and words[low - 1] == chosen:
        low -= 1
    while high < STEPS - 1 and words[high + 1] == chosen:
        high += 1

    def other(step: int) -> str:
        found = words[step] if 0 <= step < STEPS else None
        return ", ".join(word for respect, word in (found or {}).items() if word != chosen[respect])

    return Holds(lowest=steps[low], highest=steps[high], asked=accepted[0], below=other(low - 1), above=other(high + 1))


def _point(best: Deployment, cases: Cases) -> FrontPoint:
    cards = best.prefill_servers * cases.prefill.rates.packages_per_server
    cards += best.decode_servers * cases.decode.rates.packages_per_server
    rate = best.requests_per_s * as_float(cases.decode.osl) / cards
    return FrontPoint(tpot=best.tpot, tokens_per_s_per_card=rate, deployment=best)


def _upright(rejection: Rejection) -> Rejection:
    """Rates are tallied with their sign turned, since there more is better; turn it back."""
    if rejection.constraint != "rate":
        return rejection
    return replace(rejection, closest=-rejection.closest, limit=-rejection.limit)
