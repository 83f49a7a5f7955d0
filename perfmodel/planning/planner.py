"""A run-spec answered: the search, and how sure its best plan is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from perfmodel.algebra import as_float
from perfmodel.errors import UsageError
from perfmodel.planning.doubts import Doubts, doubts_of
from perfmodel.planning.known_errors import Trust, trust_of
from perfmodel.planning.nearest import Nearest, nearest
from perfmodel.planning.referee import Verdict, refereed
from perfmodel.planning.request import PlanRequest, request_of
from perfmodel.planning.sureness import SURE, Doubt, SurePlan, searched_surely, surely
from perfmodel.prediction.deployment import Deployment
from perfmodel.prediction.deployment_uncertainty import deployment_sensitivity
from perfmodel.prediction.sensitivity import Swing
from perfmodel.prediction.sureness import chance_of_all, met_at_once
from perfmodel.prediction.uncertainty import DeploymentIntervals, PoolIntervals, chance
from perfmodel.solver.both_pools import Kept
from perfmodel.solver.front import front
from perfmodel.solver.optimal_range import optimal_range
from perfmodel.solver.request import with_budget_of
from perfmodel.solver.solution import FrontPoint, OptimalRange, Solution, Status
from perfmodel.solver.solve import solve
from perfmodel.specs.run import RunSpec


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Planned:
    """An answer, and how sure it is; nothing is sure where there is no plan."""

    request: PlanRequest
    solution: Solution
    intervals: PoolIntervals | None = None
    overall: DeploymentIntervals | None = None
    #: what assumed inputs do to TPOT and TTFT
    sensitivity: Sequence[Swing] = ()
    #: how sure the loss of each rival, of each other choice, and of each published layout is
    doubts: Doubts | None = None
    #: what clients see of the best plan, where that was asked for
    clients: Verdict | None = None
    #: how wrong such predictions are known to be
    trust: Trust | None = None
    #: the plan that meets every limit at once with the chance asked for, else with 90 %; none where it was not searched
    sure: SurePlan | None = None
    #: chance that the best plan meets every limit at once, a single one too
    chance: float | None = None
    #: where there is no plan: the nearest questions that have one
    nearest: Nearest | None = None

    @property
    def tpot_chance(self) -> float | None:
        """Probability that TPOT is within what was asked for; None where nothing was, or there is no plan."""
        limit, best = self.request.run.tpot, self.solution.best
        if self.intervals is None or limit is None or best is None:
            return None
        return self.intervals.chance(limit, as_float(best.decode.point.tokens_per_step))

    @property
    def ttft_chance(self) -> float | None:
        """Probability that TTFT is within what was asked for; None where nothing was, or there is no plan."""
        limit = self.request.run.ttft
        return None if self.overall is None or limit is None else chance(self.overall.ttfts, limit)

    @property
    def chance_of_all(self) -> float | None:
        """Probability that every limit asked for is met at once, on one machine; None where fewer than two were."""
        search, run, best = self.request.search, self.request.run, self.solution.best
        if self.intervals is None or self.overall is None or best is None:
            return None
        met = met_at_once(best, self.intervals, self.overall, tpot=run.tpot, ttft=run.ttft, rate=search.rate)
        return None if len(met) < 2 else chance_of_all(met)

    @property
    def rate_chance(self) -> float | None:
        """Probability that the rate asked for is served; None where none was, or there is no plan."""
        rate = self.request.search.rate
        return None if self.overall is None or rate is None else chance(-self.overall.rates, -rate * (1 - 1e-9))


def planned(run: RunSpec) -> Planned:
    """Return the best plan for a run-spec, or why there is none and what is nearest to it, and how sure it is.

    Where no way of serving is asked for, pools apart are searched, and mixed instances too where those have no plan.
    """
    kept = Kept()
    if run.serving is None and run.prefill_on is None and (apart := _of_pools_apart(run, kept)) is not None:
        return apart
    found = answered(request_of(run), kept)
    if found.solution.best is not None:
        return found
    confirmed = None if run.confidence is None else _surely_planned
    return replace(found, nearest=nearest(found.request, found.solution, kept, confirmed))


def _of_pools_apart(run: RunSpec, kept: Kept) -> Planned | None:
    """Return the best plan of pools apart; none where there is none, or the budget has no room for two pools."""
    try:
        found = answered(request_of(run.model_copy(update={"serving": "disaggregated"})), kept)
    except UsageError:  # told again, if it is not of the two pools
        return None
    return found if found.solution.best is not None and found.solution.status is Status.OPTIMAL else None


def _surely_planned(run: RunSpec) -> Deployment | None:
    """Return the best plan of a run-spec with a confidence; none where no plan reaches it."""
    solution = answered(request_of(run)).solution
    return solution.best if solution.status is Status.OPTIMAL else None


def answered(request: PlanRequest, kept: Kept | None = None) -> Planned:
    """Return the best plan for what was asked, or why there is none, and how sure it is.

    With a confidence it is the best plan that meets every limit at once, a rate that was asked for too, that often;
    where none does, the answer is infeasible, with the plan of the highest chance that was found.  Without one the
    plan that is 90 % sure stands beside the best; not where percentiles are asked for, which a replay judges, and not
    for the lowest TPOT.  A budget that may grow is that which the prediction needs; a plan that is sure may be on a
    larger one.  Instances that were worked out are ``kept``.
    """
    kept = kept or Kept()
    doubt, confidence = Doubt(request=request), request.run.confidence
    sure: SurePlan | None = None
    if confidence is not None:
        solution, sure = surely(request, doubt, confidence, kept)
    elif request.asked is not None and request.asked.chooses:
        solution = solve(request.case, request.search, request.cases["prefill"], request.given, kept=kept)
    else:
        found = searched_surely(request, doubt, SURE, kept, request.given)
        solution, sure = found.predicted, found.sure
    request = replace(request, search=with_budget_of(request.search, solution.search))
    if solution.best is None:
        return Planned(request=request, solution=solution)
    clients = None
    if request.asked is not None:
        solution, clients = refereed(solution, request.asked, request.cases)
    best = solution.best
    assert best is not None
    (intervals, overall), chance_of_best = doubt.of(best), doubt.chance(best)
    if confidence is not None and chance_of_best < confidence:  # a replay may ask for another plan
        solution = replace(solution, status=Status.INFEASIBLE)
    return Planned(
        request=request,
        solution=solution,
        intervals=intervals,
        overall=overall,
        sensitivity=deployment_sensitivity(
            best, request.machines, request.cases, request.search.utilisation, ("TPOT", "TTFT")
        ),
        doubts=doubts_of(solution, request.machines, request.cases),
        clients=clients,
        trust=trust_of(best.decode, request.machine, request.case, deployment=not best.mixed, mixed=best.mixed),
        sure=sure,
        chance=chance_of_best,
    )


def front_of(request: PlanRequest) -> list[FrontPoint]:
    """Return the front of throughput per card over TPOT around the limit asked for."""
    return front(request.case, request.search, request.cases["prefill"])


def optimal_range_of(found: Planned) -> OptimalRange | None:
    """Return over which acceptance the choice of the best plan holds; none where it is mixed.

    Where both ways of serving were searched it is compared with pools apart alone, so the range errs wide.
    """
    request, search, best = found.request, found.solution.search, found.solution.best
    if best is not None and not best.mixed and search.serving == "any":
        search = replace(search, serving="disaggregated")
    return optimal_range(request.case, search, request.cases["prefill"])
