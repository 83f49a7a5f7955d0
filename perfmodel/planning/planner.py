"""A run-spec answered: the search, how sure its best plan is, and that plan as a file."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, cast

from perfmodel import __version__
from perfmodel.algebra import as_float
from perfmodel.errors import UsageError
from perfmodel.files.plans import digests
from perfmodel.planning.choices import on_machine_alone
from perfmodel.planning.plan_file import plan_spec, pool_of
from perfmodel.planning.request import Asking, asking_of
from perfmodel.prediction.deployment import Deployment, PoolPlan
from perfmodel.prediction.deployment_uncertainty import felt, joined_sure
from perfmodel.prediction.sensitivity import Swing
from perfmodel.prediction.uncertainty import JoinedRange, PoolRange, chance, interleaved, pool_range
from perfmodel.solver.front import front
from perfmodel.solver.optimal_range import holds
from perfmodel.solver.solution import FrontPoint, Holds, Solution
from perfmodel.solver.solve import solve
from perfmodel.specs.deployment import Phase
from perfmodel.specs.evidence import DeploymentConditions
from perfmodel.specs.plan import PlanSpec
from perfmodel.specs.run import RunSpec

TIGHTENINGS = 8  # of the limit in search of a confidence; two or three do


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Planned:
    """An answer, and how sure it is; nothing is sure where there is no plan."""

    asking: Asking
    solution: Solution
    sure: PoolRange | None = None
    joined: JoinedRange | None = None
    #: what assumed inputs do to TPOT and TTFT
    felt: Sequence[Swing] = ()

    @property
    def tpot_chance(self) -> float | None:
        """Probability that TPOT is within what was asked for; None where nothing was, or there is no plan."""
        limit, best = self.asking.request.targets.tpot, self.solution.best
        if self.sure is None or limit is None or best is None:
            return None
        return self.sure.chance(limit, as_float(best.decode.point.tokens_per_step))

    @property
    def ttft_chance(self) -> float | None:
        """Probability that TTFT is within what was asked for; None where nothing was, or there is no plan."""
        limit = self.asking.request.targets.ttft
        return None if self.joined is None or limit is None else chance(self.joined.ttfts, limit)

    @property
    def chance_of_all(self) -> float | None:
        """Probability that every limit asked for is met at once, on one machine; None where fewer than two were."""
        request, best = self.asking.request, self.solution.best
        if self.sure is None or self.joined is None or best is None:
            return None
        met: list[Any] = []
        if request.targets.tpot is not None:
            met.append(self.sure.steps / as_float(best.decode.point.tokens_per_step) <= request.targets.tpot)
        if request.targets.ttft is not None:
            met.append(self.joined.ttfts <= request.targets.ttft)
        if request.rate is not None:
            met.append(self.joined.rates >= request.rate * (1 - 1e-9))
        return None if len(met) < 2 else as_float(prod(met).mean())

    @property
    def rate_chance(self) -> float | None:
        """Probability that the rate asked for is served; None where none was, or there is no plan."""
        rate = self.asking.request.rate
        return None if self.joined is None or rate is None else chance(-self.joined.rates, -rate * (1 - 1e-9))


def planned(run: RunSpec) -> Planned:
    """Return the best plan for a run-spec, or why there is none, and how sure it is.

    With a confidence the limits on TPOT and TTFT are tightened below the plan's own until the plan found meets each
    real one that often.  Raises ``UsageError`` where no plan does.
    """
    asking = asking_of(run)
    searched, targets = asking.request, asking.request.targets
    for _ in range(TIGHTENINGS):
        solution = solve(asking.case, searched, asking.cases["prefill"])
        best = solution.best
        if best is None:
            return Planned(asking=asking, solution=solution)
        prefill, sure = _ranges(best, asking)
        joined = joined_sure(
            best, prefill, sure, asking.cases["prefill"], asking.request.utilisation, asking.request.rate
        )
        tpots = sure.steps / as_float(best.decode.point.tokens_per_step)
        tighter = {
            name: value * min(0.9999, limit / _quantile(samples, run.confidence))
            for name, value, limit, samples in (
                ("tpot", best.tpot, targets.tpot, tpots),
                ("ttft", as_float(best.first_token.ttft), targets.ttft, joined.ttfts),
            )
            if limit is not None and run.confidence is not None and chance(samples, limit) < run.confidence
        }
        if not tighter:
            return Planned(
                asking=asking,
                solution=solution,
                sure=sure,
                joined=joined,
                felt=felt(best, asking.machines, asking.cases, asking.request.utilisation, ("TPOT", "TTFT")),
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


def _ranges(best: Deployment, asking: Asking) -> tuple[PoolRange, PoolRange]:
    """Return how sure the steps of both pools are; decode's with the prefill steps in between where they are."""
    each: dict[Phase, PoolPlan] = {"prefill": best.prefill, "decode": best.decode}
    prefill, decode = (
        pool_range(asking.machines[phase], pool.layout, pool.family, asking.cases[phase])
        for phase, pool in each.items()
    )
    if best.mixed:
        decode = interleaved(decode, prefill, best.tpot_added * as_float(best.decode.point.tokens_per_step))
    return prefill, decode


def front_of(asking: Asking) -> list[FrontPoint]:
    """Return the front of throughput per card over TPOT around the limit asked for."""
    return front(asking.case, asking.request, asking.cases["prefill"])


def holds_of(found: Planned) -> Holds | None:
    """Return over which acceptance the choice of the best plan holds."""
    asking = found.asking
    return holds(asking.case, found.solution.request, asking.cases["prefill"])


def plan_of(found: Planned) -> PlanSpec | None:
    """Return the file of the best plan, or None where there is none; files of the user's are named by their paths."""
    asking, best = found.asking, found.solution.best
    if best is None:
        return None
    case, family, machine = asking.case, best.decode.family, asking.machine
    prefill, model = asking.machines["prefill"], asking.model_word
    apart = prefill is not machine
    names = {"model": model, "on": machine.system.word, "stack": machine.stack.word}
    names |= {"prefill_on": prefill.system.word, "prefill_stack": prefill.stack.word} if apart else {}
    if asking.run.acceptance is None and case.model.acceptance:
        names["acceptance"] = case.model.acceptance[0].name
    conditions = DeploymentConditions(
        system=machine.system.word,
        model=model,
        stack=machine.stack.word,
        kernels=tuple(asking.run.kernels or ()),
        techniques=on_machine_alone(asking.settings, asking.techniques),
        isl=cast(Any, case.isl),
        osl=cast(Any, case.osl),
        precision=family.precision,
        kv_dtype=family.kv_dtype,
        expert_weights=family.expert_weights,
        acceptance=case.acceptance,
        balanced=case.even,
        prefix_hit=cast(Any, case.prefix_hit),
        isl_spread=cast(Any, case.isl_spread),
        tpot=asking.request.targets.tpot,
        prefill=pool_of(best.prefill, best.prefill_instances),
        decode=pool_of(best.decode, best.decode_instances),
        mixed=best.mixed,
        prefill_system=prefill.system.word if apart else None,
        prefill_stack=prefill.stack.word if apart else None,
    )
    return plan_spec(
        best,
        conditions,
        run=asking.run.model_copy(update=names),
        machines=asking.machines,
        model=case.model,
        techniques=asking.techniques,
        version=__version__,
        files=digests(asking.files),
    )
