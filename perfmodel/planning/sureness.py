"""What being sure needs: the best plan that meets every limit at once with a chance, found beside the predicted one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from perfmodel.planning.request import PlanRequest
from perfmodel.prediction.deployment import Deployment, PoolPlan
from perfmodel.prediction.deployment_uncertainty import deployment_intervals, with_prefill_between
from perfmodel.prediction.sureness import chance_of_all, margin, margins, met_at_once
from perfmodel.prediction.uncertainty import DeploymentIntervals, PoolIntervals, Values, pool_intervals, sampled_rates
from perfmodel.solver.both_pools import LEAST_GROWTH, MOST_GROWTH, Kept, deployment, with_more
from perfmodel.solver.finalists import Finalists
from perfmodel.solver.given_layouts import Given
from perfmodel.solver.join import Join, Prefills
from perfmodel.solver.reference import reference_pools
from perfmodel.solver.refined import refined
from perfmodel.solver.request import Cases, Margins, SearchRequest, with_budget_of
from perfmodel.solver.solution import Beside, Solution, Status
from perfmodel.solver.solve import best_mixed, solve, solve_beside
from perfmodel.specs.deployment import Phase
from perfmodel.specs.run import Serving
from perfmodel.supply.rates import Rates

SURE = 0.9  # chance of all limits at once that the plain question is answered for besides
#: margins on the step of decode, over that of the reference: the steps of other layouts are a little more or less sure
NEAR = (0.95, 0.98, 1.0, 1.03)
#: parts of what may be missed that are left to decode: in the search, and for a plan that was found
PARTS = (0.1, 0.3, 0.45, 0.6, 0.75, 0.9)
FINE = tuple(step / 20 for step in range(1, 20))
REFINED = 4  # decode instances that are tried with margins of their own
LOOKED_AT = 12  # joins of each pair of margins whose own chance is worked out, at most
EXPECTED = 1.3  # power of a margin that the servers of a sure plan go with; a guess that saves passes, no claim
TIGHTENINGS, LONGER = 5, 1.03  # of the margins in search of the lowest TPOT
#: where no plan reaches what is asked for, the parts of the way to it from the predicted plan's chance that are tried
WAY = (0.03, 0.08, 0.16, 0.3, 0.5, 0.75)
CLIMB, MOST = 0.02, 10  # and steps of a chance from there, with the same structure


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Doubt:
    """Samples of the machines of a request, drawn once; steps of a layout are evaluated once."""

    request: PlanRequest
    _sampled: dict[Phase, tuple[Rates, Values]] = field(default_factory=dict)
    _pools: dict[object, PoolIntervals] = field(default_factory=dict)

    def pool(self, phase: Phase, plan: PoolPlan) -> PoolIntervals:
        """Return how sure the step of an instance is."""
        machine, case = self.request.machines[phase], self.request.cases[phase]
        if phase not in self._sampled:
            self._sampled[phase] = sampled_rates(machine, "service", phase, case.model)
        key = phase, repr(plan.layout), plan.family
        if key not in self._pools:
            sampled = self._sampled[phase]
            self._pools[key] = pool_intervals(machine, plan.layout, plan.family, case, sampled=sampled)
        return self._pools[key]

    def of(self, best: Deployment) -> tuple[PoolIntervals, DeploymentIntervals]:
        """Return how sure TPOT, TTFT and the rate of a deployment are; decode's steps with prefill between if mixed."""
        prefill = self.pool("prefill", best.prefill)
        decode = with_prefill_between(best, prefill, self.pool("decode", best.decode))
        search = self.request.search
        case = self.request.cases["prefill"]
        return decode, deployment_intervals(best, prefill, decode, case, search.utilisation, search.rate)

    def chance(self, best: Deployment) -> float:
        """Return the chance that a deployment meets every limit of the request at once."""
        targets, rate = self.request.search.targets, self.request.search.rate
        return chance_of_all(met_at_once(best, *self.of(best), tpot=targets.tpot, ttft=targets.ttft, rate=rate))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """A plan with the chance that it meets every limit at once, and the request that it was found for."""

    join: Join
    request: SearchRequest
    deployment: Deployment
    chance: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SurePlan:
    """The best plan that meets every limit at once with a chance, beside the best by the prediction.

    Where no plan of the budget does, it is the one of the highest chance that was found.
    """

    #: chance of all limits at once that was asked for, and that the plan has
    confidence: float
    chance: float
    deployment: Deployment
    cards: int
    servers: int
    #: predicted requests a second, and those that it serves with the chance asked for
    requests_per_s: float
    sure_rate: float
    #: cards more than the best by the prediction, and relative change of the requests a second
    more_cards: int
    rate_change: float
    #: the best plan by the prediction, and its chance of all limits at once
    predicted: Deployment
    predicted_chance: float

    @property
    def predicted_cards(self) -> int:
        """Cards of the best plan by the prediction."""
        return self.cards - self.more_cards

    @property
    def reached(self) -> bool:
        """Whether the plan has the chance that was asked for."""
        return self.chance >= self.confidence


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Found:
    """What was searched: the best plan by the prediction, and the plan that meets all limits with a chance."""

    predicted: Solution
    #: the plan of at least the chance asked for, else of the highest that was found; none where it was not asked
    candidate: Candidate | None = None
    sure: SurePlan | None = None


def searched_surely(
    request: PlanRequest, doubt: Doubt, confidence: float, kept: Kept, given: Sequence[Given] = ()
) -> Found:
    """Return the best plan by the prediction, and the best with a chance to meet every limit at once.

    On a budget that was given both come from one pass over the space.  One that may grow does so for the prediction
    first; then the limits with margins are searched on it, and it grows on until a plan is sure.  Only where none has
    the chance, one more pass looks for the highest.  Instances that were worked out are ``kept``.
    """
    fixed, case = request.search.largest == (None, None), request.cases["prefill"]
    asked = sure_requests(request, doubt, confidence) if fixed else ()
    predicted = solve(request.case, request.search, case, given, asked, kept=kept)
    request = replace(request, search=with_budget_of(request.search, predicted.search))
    best, lines = predicted.best, predicted.finalists
    if best is None or lines is None or not _may_miss(request.search):
        return Found(predicted=predicted)
    own = Candidate(join=lines.best, request=request.search, deployment=best, chance=doubt.chance(best))
    if own.chance >= confidence:
        return Found(predicted=predicted, candidate=own, sure=sure_plan(own, own, doubt, confidence))
    asked = asked or sure_requests(request, doubt, confidence)
    if not asked:
        return Found(predicted=predicted)
    search, found = request.search, predicted.beside
    if not fixed:  # at once to what the margins let expect: each pass over a larger budget costs as much as the first
        search = with_more(search, _expected(best, search, asked)) or search
    if not found:
        found = solve_beside(request.case, search, [with_budget_of(one, search) for one in asked], case, kept)
    candidate = _sure(found, lines, replace(request, search=search), doubt, confidence, kept)
    factor = LEAST_GROWTH
    while candidate is None and (larger := with_more(search, factor)) is not None:
        search, factor = larger, min(MOST_GROWTH, factor**2)
        wider = replace(request, search=search)
        found = solve_beside(request.case, search, [with_budget_of(one, search) for one in asked], case, kept)
        candidate = _sure(found, lines, wider, doubt, confidence, kept)
    if candidate is None:
        candidate = likeliest(replace(request, search=search), doubt, own, lines.columns, confidence, kept)
    return Found(predicted=predicted, candidate=candidate, sure=sure_plan(candidate, own, doubt, confidence))


def _expected(best: Deployment, search: SearchRequest, asked: Sequence[SearchRequest]) -> float:
    """Return the budget that is likely to do with margins over the one that is: the best plan's, steps so much longer.

    Steps that have to be faster by a margin have smaller batches, so it takes more than the margin alone; below 1 the
    budget at hand does.
    """
    margin = min(max(one.margins.prefill, one.margins.decode) for one in asked)
    return float(max(1.0, best.servers_used * margin**EXPECTED / search.servers))


def _may_miss(search: SearchRequest) -> bool:
    """Return whether there is a limit that a plan may miss, and it is known before the search."""
    limits = (search.targets.tpot, search.targets.ttft, search.rate)
    return search.objective != "tpot" and any(limit is not None for limit in limits)


def sure_requests(request: PlanRequest, doubt: Doubt, confidence: float) -> tuple[SearchRequest, ...]:
    """Return what is searched for a plan that meets every limit at once with a chance: limits with margins.

    A limit that is met by steps ``margin`` times as long as predicted is met in every sample whose step is no longer.
    The samples of a step over its prediction differ little from layout to layout, since what the model leaves out
    moves all alike; so the margins are read from the samples of one instance of either pool, and each pair of them
    turns a chance into limits for every candidate.  Nothing where no such instance is there, where no limit can be
    missed, and for the lowest TPOT.
    """
    search = request.search
    if not _may_miss(search):
        return ()
    reference = reference_pools(Cases(prefill=request.cases["prefill"], decode=request.cases["decode"]), search)
    if reference is None:
        return ()
    prefill, decode = doubt.pool("prefill", reference[0]).relative, doubt.pool("decode", reference[1]).relative
    return _requests(request, _pairs(request, prefill, decode, (confidence,)))


def _requests(request: PlanRequest, pairs: Iterable[tuple[float, float]]) -> tuple[SearchRequest, ...]:
    """Return requests with margins; where either way of serving may be best, of pools apart alone.

    Mixed instances are searched with margins only where they may be better than what was found so: see ``_mixed``.
    """
    serving: Serving = "mixed" if request.search.serving == "mixed" else "disaggregated"
    return tuple(replace(_with_margins(request, *pair), serving=serving) for pair in pairs)


def _pairs(
    request: PlanRequest, prefill: Values, decode: Values, chances: Iterable[float], parts: Sequence[float] = PARTS
) -> list[tuple[float, float]]:
    """Return margins of prefill and decode for some chances: prefill has none where TPOT is the only limit."""
    search = request.search
    found: list[tuple[float, float]] = []
    for chance in chances:
        if search.rate is None and search.targets.ttft is None:
            found += [(1.0, max(1.0, margin(decode, chance) * near)) for near in NEAR]
        else:
            found += margins(prefill, decode, chance, parts)
        if search.serving == "mixed":  # a step of mixed instances is of both, and surer than either
            both = margin((prefill + decode) / 2, chance)
            found += [(max(1.0, both * near),) * 2 for near in (0.96, 1.0, 1.04)]
    return list(dict.fromkeys(found))


def _with_margins(request: PlanRequest, prefill: float, decode: float) -> SearchRequest:
    """Return what is searched with margins, on the budget of a request."""
    search = request.search
    tpot = None if search.targets.tpot is None else search.targets.tpot / decode
    return replace(
        search,
        targets=search.targets.model_copy(update={"tpot": tpot}),
        margins=Margins(prefill=prefill, decode=decode),
    )


def _sure(
    found: Sequence[Beside], lines: Finalists, request: PlanRequest, doubt: Doubt, confidence: float, kept: Kept
) -> Candidate | None:
    """Return the best plan with a chance to meet every limit, its structure tried with margins of its own.

    ``found`` are the joins of requests with margins.
    """
    best = chosen_of(found, doubt, confidence)
    if best is not None:
        leading = sorted((one.joins[0] for one in found if one.joins), key=lambda join: join.key)
        different = {join.decode.key: join for join in reversed([best.join, *leading])}
        tried: list[Beside] = []
        for join in list(reversed(different.values()))[:REFINED]:
            prefill = doubt.pool("prefill", join.prefill.plan(request.cases["prefill"])).relative
            decode = doubt.pool("decode", join.decode.plan(request.case)).relative
            asked = _requests(request, _pairs(request, prefill, decode, (confidence,), FINE))
            tried += refined(join, lines.columns, lines.cases, asked)
        best = _better(best, chosen_of(tried, doubt, confidence))
    return best if request.search.serving != "any" else _mixed(best, request, doubt, confidence, kept)


def _better(one: Candidate | None, other: Candidate | None) -> Candidate | None:
    """Return the better of two plans, the first of equals, as the first two keys of an objective order them."""
    if one is None or other is None:
        return one or other
    return other if other.join.key[:2] < one.join.key[:2] else one


def _mixed(
    best: Candidate | None, request: PlanRequest, doubt: Doubt, confidence: float, kept: Kept
) -> Candidate | None:
    """Return the best plan of a chance where either way of serving is searched: one of pools apart, or a mixed one.

    Margins only leave less room: of the predicted mixed plans none that is sure is better than the best, by the first
    two keys of the objective.  So where that is no better than what was found of pools apart, no mixed one is either,
    and none is searched.
    """
    own, case = replace(request, search=replace(request.search, serving="mixed")), request.cases["prefill"]
    bound = best_mixed(request.case, own.search, case, kept)
    if bound is None or (best is not None and best.join.key[:2] <= bound.key[:2]):
        return best
    return _better(
        best,
        chosen_of(
            solve_beside(request.case, own.search, sure_requests(own, doubt, confidence), case, kept), doubt, confidence
        ),
    )


def chosen_of(found: Sequence[Beside], doubt: Doubt, confidence: float) -> Candidate | None:
    """Return the best plan whose own chance to meet every limit at once is at least ``confidence``; none if none has.

    The whole space was searched under each pair of margins, as exactly as for the prediction: joins come the best
    first.  The chance of each that is looked at is worked out from all samples of its own layouts, so what is returned
    has it; joins that come before and fall short are passed over.  Not claimed is that no other plan is better: one
    whose steps are surer than those of the reference may need less than any pair leaves it, lie between two pairs, or
    come after ``LOOKED_AT`` others of its pair.  So it errs towards more cards, or a lower rate.
    """
    tried = sorted(
        ((join.key, place, join) for place, one in enumerate(found) for join in one.joins[:LOOKED_AT]),
        key=lambda one: one[:2],
    )
    for _, place, join in tried:
        candidate = _candidate(found[place], join, doubt)
        if candidate.chance >= confidence:
            return candidate
    return None


def _candidate(beside: Beside, join: Join, doubt: Doubt) -> Candidate:
    least = beside.least(join)
    plan = deployment(least, beside.cases, beside.request.utilisation)
    return Candidate(join=least, request=beside.request, deployment=plan, chance=doubt.chance(plan))


def likeliest(
    request: PlanRequest,
    doubt: Doubt,
    best: Candidate,
    columns: Mapping[str, Prefills],
    confidence: float,
    kept: Kept,
) -> Candidate:
    """Return the plan of the highest chance to meet every limit at once that is found, the given one or another.

    Margins of chances between that of the predicted plan and the one asked for are searched in one more pass; then the
    decode instance of the likeliest is tried with margins of higher chances, step by step.  The chance is the plan's
    own.  That none is likelier is not claimed: it errs low.
    """

    def of(candidate: Candidate, chances: Iterable[float]) -> tuple[SearchRequest, ...]:
        plan = candidate.deployment
        prefill, decode = doubt.pool("prefill", plan.prefill).relative, doubt.pool("decode", plan.decode).relative
        return tuple(_with_margins(request, *pair) for pair in _pairs(request, prefill, decode, chances, PARTS[1::2]))

    def likelier(found: Iterable[Beside], than: Candidate) -> Candidate:
        each = (_candidate(one, one.joins[0], doubt) for one in found if one.joins)
        return max((than, *each), key=lambda one: one.chance)

    case = request.cases["prefill"]
    way = [best.chance + part * (confidence - best.chance) for part in WAY]
    first = likelier(solve_beside(request.case, request.search, of(best, way), case, kept), best)
    chances = [least for step in range(MOST) if (least := first.chance + CLIMB * (step + 1)) < confidence]
    cases = Cases(prefill=case, decode=request.case)
    return likelier(refined(first.join, columns, cases, of(first, chances)), first)


def sure_plan(candidate: Candidate, best: Candidate, doubt: Doubt, confidence: float) -> SurePlan:
    """Return a candidate as it stands beside the best plan by the prediction."""
    cases = doubt.request.cases

    def cards(plan: Deployment) -> int:
        return sum(int(count * cases[phase].rates.packages_per_server) for phase, count in plan.servers.items())

    plan, predicted = candidate.deployment, best.deployment
    return SurePlan(
        confidence=confidence,
        chance=candidate.chance,
        deployment=plan,
        cards=cards(plan),
        servers=plan.servers_used,
        requests_per_s=plan.requests_per_s,
        sure_rate=float(np.quantile(doubt.of(plan)[1].rates, 1 - confidence)),
        more_cards=cards(plan) - cards(predicted),
        rate_change=plan.requests_per_s / predicted.requests_per_s - 1,
        predicted=predicted,
        predicted_chance=best.chance,
    )


def surely(request: PlanRequest, doubt: Doubt, confidence: float, kept: Kept) -> tuple[Solution, SurePlan | None]:
    """Return the best plan that meets every limit at once with a chance as the answer, its rivals beside it.

    Where no plan does, the answer is infeasible and its plan the one of the highest chance that was found.
    """
    if request.search.objective == "tpot":
        return fastest_surely(request, doubt, confidence), None
    found = searched_surely(request, doubt, confidence, kept, request.given)
    chosen = found.candidate
    if chosen is None:
        return found.predicted, None
    lines, solution = found.predicted.finalists, found.predicted
    if lines is None or chosen.join is not lines.best:
        asked = replace(chosen.request, serving=request.search.serving, largest=(None, None))
        solution = solve(request.case, asked, request.cases["prefill"], request.given, chosen=chosen.join)
    return (solution if chosen.chance >= confidence else replace(solution, status=Status.INFEASIBLE)), found.sure


def fastest_surely(request: PlanRequest, doubt: Doubt, confidence: float) -> Solution:
    """Return the lowest TPOT whose plan meets every limit at once with a chance.

    Margins are read from the plan found, and lengthened until the next plan found has the chance; one pair of margins
    is tried at a time, so it errs towards a longer TPOT.  Infeasible where no plan was found so.
    """
    search, longer = request.search, 1.0
    solution = plain = solve(request.case, search, request.cases["prefill"], request.given)
    for _ in range(TIGHTENINGS):
        best = solution.best
        if best is None or doubt.chance(best) >= confidence:
            break
        prefill, decode = doubt.pool("prefill", best.prefill).relative, doubt.pool("decode", best.decode).relative
        pairs = _pairs(request, prefill, decode, (confidence,))
        pair = pairs[len(pairs) // 2]
        search = _with_margins(request, max(1.0, pair[0] * longer), pair[1] * longer)
        solution, longer = solve(request.case, search, request.cases["prefill"], request.given), longer * LONGER
    if solution.best is not None and doubt.chance(solution.best) >= confidence:
        return solution
    return replace(plain if solution.best is None else solution, status=Status.INFEASIBLE)
