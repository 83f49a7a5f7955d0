"""How sure TPOT, TTFT and the rate of a deployment are, and which assumed inputs move them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from perfmodel.algebra import as_array, as_float
from perfmodel.prediction.deployment import Deployment, figures_of
from perfmodel.prediction.mixed import mixed_first_token
from perfmodel.prediction.scenario import Resolved
from perfmodel.prediction.sensitivity import Swing, swings
from perfmodel.prediction.serving import Case
from perfmodel.prediction.uncertainty import (
    DeploymentIntervals,
    Interval,
    PoolIntervals,
    interleaved,
    interval,
    joined_intervals,
)
from perfmodel.specs.deployment import Phase
from perfmodel.supply.machine import Machine
from perfmodel.supply.rates import Rates


def deployment_sensitivity(
    best: Deployment,
    machines: Mapping[Phase, Machine],
    cases: Mapping[Phase, Case],
    utilisation: float,
    wanted: Sequence[str],
) -> list[Swing]:
    """Return what assumed inputs of either system do to the ``wanted`` of ``figures_of``."""
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

            every = figures_of(best, (case("prefill"), case("decode")), utilisation)
            return {name: every[name] for name in wanted}

        pool = "" if len(different) == 1 else "prefill: " if machine is machines["prefill"] else "decode: "
        found += [replace(one, name=pool + one.name) for one in swings(machine, evaluate)]
    return sorted(found, key=lambda one: -one.largest)


def with_prefill_between(best: Deployment, prefill: PoolIntervals, decode: PoolIntervals) -> PoolIntervals:
    """Return how sure the steps of decode are, with prefill steps in between where its instances run both phases."""
    if not best.mixed:
        return decode
    return interleaved(decode, prefill, best.tpot_added * as_float(best.decode.point.tokens_per_step))


def deployment_intervals(
    best: Deployment, prefill: PoolIntervals, decode: PoolIntervals, case: Case, utilisation: float, asked: float | None
) -> DeploymentIntervals:
    """Return how sure TTFT and the rate of a deployment are; decode's steps have prefill in between where it is mixed.

    ``case`` is prefill's, ``asked`` the requests a second asked for.
    """
    found = joined_intervals(
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
        replace(best.prefill.point, step_time=prefill.steps),
        replace(best.decode.point, step_time=steps),
    )
    ttfts = as_array(mixed_first_token(*points, case, utilisation).ttft)
    return replace(found, ttfts=ttfts, ttft=interval(ttfts))


def mixed_intervals(intervals: PoolIntervals, other: PoolIntervals, resolved: Resolved) -> PoolIntervals:
    """Return how sure a step is whose dies run the ``other`` phase in turn: TPOT with prefill in between, and rates."""
    if resolved.scenario.phase == "prefill":
        rate = intervals.tokens_per_s
        part = as_float(resolved.scenario.tokens_of(resolved.point)) / as_float(resolved.point.tokens_per_s)
        ends = {name: value * part for name, value in rate.as_dict().items()}
        return replace(intervals, tokens_per_s=Interval(**ends))
    each = as_float(resolved.point.tokens_per_step)
    added = resolved.tpot * each - as_float(resolved.point.step_time)
    return replace(interleaved(intervals, other, added), step_time=intervals.step_time)
