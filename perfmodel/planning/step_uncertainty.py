"""What is told of one layout beside its step: how sure it is, and what assumed inputs do to it."""

from dataclasses import replace
from typing import Any

from perfmodel.planning.pool_run import PoolRun
from perfmodel.prediction.deployment import exact_pool
from perfmodel.prediction.deployment_uncertainty import mixed_intervals
from perfmodel.prediction.sensitivity import Swing, swings
from perfmodel.prediction.uncertainty import PoolIntervals, pool_intervals
from perfmodel.supply.rates import Rates


def step_intervals(run: PoolRun) -> PoolIntervals:
    """Return how sure a step is, TPOT with the other phase in between where the same dies run both."""
    plan, case = run.resolved.plan, run.resolved.scenario.case
    intervals = pool_intervals(run.machine, plan.layout, plan.family, case, measured_on=run.measured_on)
    if (between := run.between) is None:
        return intervals
    layout, family = between.plan.layout, between.plan.family
    other = pool_intervals(run.machine, layout, family, case, measured_on=run.measured_on)
    return mixed_intervals(intervals, other, run.resolved)


def step_sensitivity(run: PoolRun) -> list[Swing]:
    """Return what assumed inputs do to the step time and to the share of memory used."""
    plan, case = run.resolved.plan, run.resolved.scenario.case

    def figures(varied: Rates) -> dict[str, Any]:
        point = exact_pool(plan.layout, plan.family, replace(case, rates=varied)).point
        return {"step": point.step_time, "memory": point.memory / point.usable}

    return swings(run.machine, figures)
