"""A run-spec answered: the search, and how sure its best plan is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from perfmodel.algebra import as_float
from perfmodel.errors import UsageError
from perfmodel.planning.doubts import Doubts, doubts_of
from perfmodel.planning.nearest import Nearest, nearest
from perfmodel.planning.referee import Verdict, refereed
from perfmodel.planning.request import PlanRequest, request_of
from perfmodel.prediction.deployment import Deployment, PoolPlan
from perfmodel.prediction.deployment_uncertainty import (
    deployment_intervals,
    deployment_sensitivity,
    with_prefill_between,
)
from perfmodel.prediction.sensitivity import Swing
from perfmodel.prediction.uncertainty import DeploymentIntervals, PoolIntervals, chance, pool_intervals
from perfmodel.solver.both_pools import Kept
from perfmodel.solver.front import front
from perfmodel.solver.optimal_range import optimal_range
from perfmodel.solver.request import with_budget_of
from perfmodel.solver.solution import FrontPoint, OptimalRange, Solution
from perfmodel.solver.solve import solve
from perfmodel.specs.deployment import Phase
from perfmodel.specs.run import RunSpec

TIGHTENINGS = 8  # of the limit in search of a confidence; two or three do


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
        met: list[Any] = []
        if run.tpot is not None:
            met.append(self.intervals.steps / as_float(best.decode.point.tokens_per_step) <= run.tpot)
        if run.ttft is not None:
            met.append(self.overall.ttfts <= run.ttft)
        if search.rate is not None:
            met.append(self.overall.rates >= search.rate * (1 - 1e-9))
        return None if len(met) < 2 else as_float(prod(met).mean())

    @property
    def rate_chance(self) -> float | None:
        """Probability that the rate asked for is served; None where none was, or there is no plan."""
        rate = self.request.search.rate
        return None if self.overall is None or rate is None else chance(-self.overall.rates, -rate * (1 - 1e-9))


def planned(run: RunSpec) -> Planned:
    """Return the best plan for a run-spec, or why there is none and what is nearest to it, and how sure it is."""
    kept = Kept()
    found = answered(request_of(run), kept)
    if found.solution.best is not None:
        return found
    confirmed = None if run.confidence is None else lambda other: answered(request_of(other)).solution.best
    return replace(found, nearest=nearest(found.request, found.solution, kept, confirmed))


def answered(request: PlanRequest, kept: Kept | None = None) -> Planned:
    """Return the best plan for what was asked, or why there is none, and how sure it is.

    With a confidence the limits on TPOT and TTFT are tightened below the plan's own until the plan found meets each
    real one that often.  Instances that were worked out are ``kept``.  Raises ``UsageError`` where no plan does.
    """
    run, searched, targets = request.run, request.search, request.search.targets
    for _ in range(TIGHTENINGS):
        solution, clients = solve(request.case, searched, request.cases["prefill"], request.given, kept), None
        request = replace(request, search=with_budget_of(request.search, solution.search))
        searched = with_budget_of(searched, solution.search)
        if solution.best is None:
            return Planned(request=request, solution=solution)
        if request.asked is not None:
            solution, clients = refereed(solution, request.asked, request.cases)
        best = solution.best
        assert best is not None
        prefill, intervals = _ranges(best, request)
        overall = deployment_intervals(
            best, prefill, intervals, request.cases["prefill"], request.search.utilisation, request.search.rate
        )
        tpots = intervals.steps / as_float(best.decode.point.tokens_per_step)
        tighter = {
            name: value * min(0.9999, limit / _quantile(samples, run.confidence))
            for name, value, limit, samples in (
                ("tpot", best.tpot, targets.tpot, tpots),
                ("ttft", as_float(best.first_token.ttft), targets.ttft, overall.ttfts),
            )
            if limit is not None and run.confidence is not None and chance(samples, limit) < run.confidence
        }
        if not tighter:
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
            )
        searched = replace(searched, targets=searched.targets.model_copy(update=tighter))
    raise UsageError(
        f"--confidence {run.confidence:g}: no plan found that meets its limits so often; ask for less, or a longer "
        "--tpot or --ttft"
    )


def _quantile(samples: Any, confidence: float) -> float:
    """Return what so large a part of the samples stays within."""
    import numpy as np

    return float(np.quantile(samples, confidence))


def _ranges(best: Deployment, request: PlanRequest) -> tuple[PoolIntervals, PoolIntervals]:
    """Return how sure the steps of both pools are; decode's with the prefill steps in between where they are."""
    each: dict[Phase, PoolPlan] = {"prefill": best.prefill, "decode": best.decode}
    prefill, decode = (
        pool_intervals(request.machines[phase], pool.layout, pool.family, request.cases[phase])
        for phase, pool in each.items()
    )
    return prefill, with_prefill_between(best, prefill, decode)


def front_of(request: PlanRequest) -> list[FrontPoint]:
    """Return the front of throughput per card over TPOT around the limit asked for."""
    return front(request.case, request.search, request.cases["prefill"])


def optimal_range_of(found: Planned) -> OptimalRange | None:
    """Return over which acceptance the choice of the best plan holds."""
    request = found.request
    return optimal_range(request.case, found.solution.search, request.cases["prefill"])
