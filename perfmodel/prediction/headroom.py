"""The largest batch that each limit allows by itself, found by evaluating all batches."""

from dataclasses import dataclass, replace

import numpy as np

from perfmodel.algebra import as_array, as_float
from perfmodel.ledger.records import Family, Layout
from perfmodel.prediction.layouts import LARGEST_BATCH, too_many_tokens
from perfmodel.prediction.scenario import Resolved
from perfmodel.prediction.serving import pool_point
from perfmodel.specs.kernels import MessageKernel
from perfmodel.supply.rates import Rates
from perfmodel.units import Count


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A limit, the largest batch it allows (none where it allows all that are tried), and what is served there."""

    name: str
    batch: int | None
    step_time: float | None
    tpot: float | None
    tokens_per_s_per_card: float | None


def dispatched_tokens(layout: Layout, family: Family) -> Count:
    """Return the tokens that a die hands to dispatch at once."""
    return layout.batch * (1 + layout.draft) / family.micro / layout.tp


def most_dispatched(rates: Rates, family: Family) -> float | None:
    """Return the tokens a die up to which dispatch of decode was measured; none where the step has no such dispatch."""
    if family.phase != "decode" or family.exchange != "dispatch":
        return None
    return as_float(rates.kernel("dispatch", MessageKernel).max_tokens_per_die)


def batch_limits(resolved: Resolved) -> list[Limit]:
    """Return each limit of a layout on its batch, the tightest first."""
    plan, case, target = resolved.plan, resolved.scenario.case, resolved.scenario.tpot
    family = plan.family
    batches = np.arange(1, LARGEST_BATCH + 1)
    mesh = replace(Layout.of(plan.layout), batch=batches.astype(np.float64))
    point = resolved.scenario.held(pool_point(mesh, family, case), mesh)
    tpot = resolved.scenario.tpot_of(point)
    rate = resolved.scenario.tokens_of(point)
    usable = as_float(point.usable)
    allowed = {
        "memory as planned": as_array(point.memory) <= usable,
        "memory, all requests at their longest": as_array(point.footprint.worst) <= usable,
    }
    if family.phase == "decode" and target is not None:
        allowed[f"TPOT of {target * 1e3:g} ms"] = as_array(tpot) <= target
    measured = most_dispatched(case.rates, family)
    if measured is not None:
        allowed[f"dispatch as measured, {measured:.0f} tokens a die"] = (
            as_array(dispatched_tokens(mesh, family)) <= measured
        )
    if family.fused_experts:
        allowed["tokens of a rank in one kernel with the exchange"] = ~np.asarray(too_many_tokens(mesh, family))
    cards = plan.layout.dies / case.rates.dies_per_package
    served = {
        "step_time": point.step_time,
        "tpot": tpot if family.phase == "decode" else None,
        "tokens_per_s_per_card": rate / cards,
    }
    limits = []
    for name, mask in allowed.items():
        within = np.flatnonzero(np.broadcast_to(mask, batches.shape))
        at = int(within[-1]) if len(within) else -1
        nothing = at in (-1, len(batches) - 1)
        there = {key: None if nothing or of is None else float(np.broadcast_to(as_array(of), batches.shape)[at])
                 for key, of in served.items()}  # fmt: skip
        limits.append(Limit(name=name, batch=None if at == len(batches) - 1 else at + 1, **there))
    return sorted(limits, key=lambda limit: (limit.batch is None, limit.batch or 0))
