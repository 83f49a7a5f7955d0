"""What is told of one layout beside its step: how sure it is, and what assumed inputs do to it."""

from dataclasses import replace
from typing import Any

import numpy as np

from perfmodel.planning.pool_run import PoolRun
from perfmodel.prediction.deployment import exact_pool
from perfmodel.prediction.deployment_uncertainty import mixed_intervals
from perfmodel.prediction.sensitivity import Swing, swings
from perfmodel.prediction.uncertainty import (
    Interval,
    PoolIntervals,
    Values,
    left_out,
    path_over,
    pool_intervals,
    sampled_rates,
)
from perfmodel.scoring.validation import interval_of
from perfmodel.specs.evidence import left_out_of
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


def client_intervals(run: PoolRun) -> dict[str, Interval]:
    """Return how sure each quantity is that clients of mixed serving measure, by its name; rates among them.

    Steps of both phases and the request's path move over their ranges, and the whole by what the model leaves out.
    """
    assert run.clients is not None and run.between is not None
    sampled = sampled_rates(run.machine, None, "decode")
    by: dict[str, Values] = {
        one.plan.family.phase: pool_intervals(
            run.machine, one.plan.layout, one.plan.family, one.scenario.case, None, None, sampled
        ).relative
        for one in (run.between, run.resolved)
    }
    by["path"] = path_over(run.machine, sampled[0])
    found = {}
    for name in run.clients.responses:
        luck = np.exp(
            left_out(
                run.machine,
                left_out_of(run.measured_on, name, loaded=True),
                "prefill" if name.startswith("ttft") else "decode",
                run.resolved.scenario.case.model,
            )
        )
        found[name] = interval_of(run.clients.times(name, by) * luck, name, run.clients.values[name])
    return found
