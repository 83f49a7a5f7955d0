"""Decode instances refitted: at every batch and core split, to another limit, to no fuller a batch than is needed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from perfmodel.algebra import as_array, as_float
from perfmodel.prediction.layouts import too_many_tokens
from perfmodel.prediction.serving import Case, pool_point, tokens_per_step, usable_memory
from perfmodel.solver.join import Join
from perfmodel.solver.mesh import Grid, Leader, Mesh
from perfmodel.solver.request import Cases, SearchRequest
from perfmodel.solver.space import ExpertLayouts


@dataclass(frozen=True, slots=True, eq=False)
class EveryBatch:
    """One decode instance at every batch and core split, everything else of its layout kept."""

    origin: Leader
    mesh: Mesh
    step_time: Grid
    fits: NDArray[np.bool_]
    in_flight: Grid
    tokens_per_step: float
    osl: float

    def leader(self, tpot: float) -> Leader | None:
        """Return it at the highest rate under a TPOT limit, none where no batch does."""
        time = self.step_time / self.tokens_per_step
        rate = np.where(self.fits & (time <= tpot), self.in_flight / time, -1.0)
        index = int(rate.argmax())
        if rate.flat[index] <= 0:
            return None
        return replace(
            self.origin,
            mesh=self.mesh,
            index=index,
            requests_per_s=float(rate.flat[index]) / self.osl,
            step_time=float(self.step_time.flat[index]),
        )

    def shortest(self, requests_per_s: float) -> Leader | None:
        """Return it at the shortest step that finishes so many requests a second, none where no batch does."""
        rate = self.in_flight * self.tokens_per_step / (self.step_time * self.osl)
        steps = np.where(self.fits & (rate >= requests_per_s * (1 - 1e-9)), self.step_time, np.inf)
        index = int(steps.argmin())
        if not np.isfinite(steps.flat[index]):
            return None
        return replace(
            self.origin,
            mesh=self.mesh,
            index=index,
            requests_per_s=float(rate.flat[index]),
            step_time=float(steps.flat[index]),
        )


def every_batch(leader: Leader, case: Case) -> EveryBatch:
    """Return a decode instance at every batch and core split of its family."""
    layout = leader.layout
    one = replace(
        leader.mesh,
        experts=ExpertLayouts(
            dies=np.array([layout.dies], dtype=np.float64),
            shared_ranks=np.array([layout.shared_ranks], dtype=np.float64),
            redundant=np.array([[[layout.redundant]]], dtype=np.float64),
        ),
        tp=np.array([layout.tp], dtype=np.float64),
        draft=np.array([layout.draft], dtype=np.float64),
    )
    point = pool_point(one.layout(), one.family, case)
    memory = np.broadcast_to(as_array(point.memory), one.shape)
    fits = (memory <= as_float(usable_memory(case.rates))) & ~np.asarray(too_many_tokens(one.layout(), one.family))
    return EveryBatch(
        origin=leader,
        mesh=one,
        step_time=np.broadcast_to(as_array(point.step_time), one.shape),
        fits=np.broadcast_to(fits, one.shape),
        in_flight=np.broadcast_to(as_array(point.in_flight), one.shape),
        tokens_per_step=as_float(tokens_per_step(case.acceptance, layout.draft)),
        osl=as_float(case.osl),
    )


def refitted(leader: Leader, case: Case, tpot: float) -> Leader:
    """Return a decode instance at the batch and core split of the highest rate under another TPOT limit.

    Everything else of its layout stays; the leader itself where no batch does.
    """
    return every_batch(leader, case).leader(tpot) or leader


TIED = 24  # deployments of one rate and cost whose batches are lowered before one is chosen


def with_least_batches(joins: Sequence[Join], cases: Cases, request: SearchRequest) -> list[Join]:
    """Return the best deployments with no fuller batch of decode than their rate needs, best first.

    Where prefill or the rate asked for sets what is served, a full batch of decode gains nothing: a smaller one has
    the shorter TPOT, and memory to spare.  Of deployments equal in objective and cost the shortest TPOT is then first.
    """
    shown = max(request.top, TIED)
    first = [_with_least_batch(join, cases, request) for join in joins[:shown]]
    decoded = {id(join): _tpot(join, cases) for join in first}

    def order(join: Join) -> tuple[float, ...]:
        return (*(float(f"{key:.9g}") for key in join.key[:2]), decoded[id(join)])

    return [*sorted(first, key=order), *joins[shown:]]


def _tpot(join: Join, cases: Cases) -> float:
    each = as_float(tokens_per_step(cases.decode.acceptance, join.decode.layout.draft))
    return join.decode.step_time / each + join.tpot_added


def _with_least_batch(join: Join, cases: Cases, request: SearchRequest) -> Join:
    longer = request.of_rate.decode
    full = join.decode_instances * join.decode.requests_per_s * request.utilisation / longer
    if join.mixed or join.served >= full * (1 - 1e-6):
        return join
    needed = join.served * longer / (join.decode_instances * request.utilisation)
    found = every_batch(join.decode, cases.decode).shortest(needed)
    if found is None:
        return join
    return replace(join, decode=found, ttft=join.ttft + found.step_time - join.decode.step_time)
