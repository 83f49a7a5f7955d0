"""What a run reaches at its best batches and core splits within memory and targets."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from perfmodel.algebra import as_array, as_float
from perfmodel.ledger.records import Layout
from perfmodel.planning.pools import Pool, Run, resolved_of, resolved_pools
from perfmodel.prediction.joined_pools import joined_rates
from perfmodel.prediction.layouts import LARGEST_BATCH, attention_core_options, too_many_tokens
from perfmodel.prediction.mixed import mixed_first_token
from perfmodel.prediction.scenario import Resolved
from perfmodel.prediction.serving import first_token, pool_point, usable_memory
from perfmodel.specs.deployment import Phase
from perfmodel.specs.model import ModelSpec

#: relative change below which nothing is said to change
UNFELT = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A run at its best batches and core splits within the target; rates are per card."""

    pools: Mapping[Phase, Resolved]
    requests_per_s_per_card: float
    tpot: float | None
    ttft: float | None

    def rate(self, phase: Phase) -> float:
        """Requests per second and card of one pool."""
        return self.pools[phase].requests_per_s_per_card


def outcome(run: Run, *, ttft: float | None) -> Outcome | None:
    """Return a run at its best batches within memory, TPOT and ``ttft``; none where a pool cannot meet them."""
    found: dict[Phase, Resolved] = {}
    decode_step = 0.0
    if "decode" in run.pools:
        decode = _refitted(run.pools["decode"], run.model, run, 0.0, None)
        if decode is None:
            return None
        found["decode"], decode_step = decode, as_float(decode.point.step_time)
    if "prefill" in run.pools:
        prefill = _refitted(run.pools["prefill"], run.model, run, decode_step, ttft)
        if prefill is None:
            return None
        found["prefill"] = prefill
    return _joined(run, found)


def as_it_is(run: Run) -> Outcome:
    """Return a run at the batches it states."""
    return _joined(run, resolved_pools(run))


def _refitted(pool: Pool, model: ModelSpec, run: Run, decode_step: float, ttft: float | None) -> Resolved | None:
    """Return a pool at the batch and core split of the highest rate within memory and target; none where none is.

    Without a limit on TTFT a prefill batch is never raised: longer batches only make prompts wait.
    """
    first = pool.conditions.model_copy(update={"layout": pool.conditions.layout.model_copy(update={"batch": 1})})
    start = resolved_of(replace(pool, conditions=first), model)  # refuses what is structurally wrong
    case, family, layout = start.scenario.case, start.plan.family, start.plan.layout
    batch = np.arange(1, LARGEST_BATCH + 1, dtype=np.float64)
    if family.phase == "prefill" and ttft is None:
        batch = batch[: pool.conditions.layout.batch]  # nothing but memory bounds it: it stays, if it fits
    cores = attention_core_options(family.overlap, case.rates)
    mesh = replace(Layout.of(layout), batch=batch[None, :], attention_cores=cores[:, None])
    point = pool_point(mesh, family, case)
    allowed = as_array(point.memory) <= as_float(usable_memory(case.rates))
    allowed = allowed & ~np.asarray(too_many_tokens(mesh, family))
    if family.phase == "decode":
        allowed = allowed & (as_array(point.tpot) <= _limit(run.tpot))
    else:
        terms = first_token(prefill=point, layout=mesh, case=case, utilisation=run.utilisation, decode_step=decode_step)
        allowed = allowed & (as_array(terms.ttft) <= _limit(ttft))
    shape = (len(cores), len(batch))
    rates = np.where(np.broadcast_to(allowed, shape), np.broadcast_to(as_array(point.tokens_per_s), shape), -1.0)
    best = int(rates.argmax())
    if rates.flat[best] < 0:
        return None
    split, at = np.unravel_index(best, shape)
    update = {"batch": int(batch[at]), "attention_cores": int(cores[split])}
    chosen = pool.conditions.model_copy(update={"layout": pool.conditions.layout.model_copy(update=update)})
    return resolved_of(replace(pool, conditions=chosen), model)


def _limit(value: float | None) -> float:
    return float("inf") if value is None else value * (1 + 1e-12)


def _joined(run: Run, found: Mapping[Phase, Resolved]) -> Outcome:
    """Return pools in the proportion in which each feeds the other, both fully loaded.

    A request costs 1/r_p card-seconds of prefill and 1/r_d of decode; together they do 1 / (1/r_p + 1/r_d) a card.
    Mixed instances do what their decode steps leave time for.  Whole instances, idle cards and the utilisation limit
    are left out: they are the same on both sides.
    """
    rates = [one.requests_per_s_per_card for one in found.values()]
    rate = found["decode"].requests_per_s_per_card if run.mixed else 1 / sum(1 / each for each in rates)
    tpot = found["decode"].tpot if "decode" in found else None
    return Outcome(pools=found, requests_per_s_per_card=rate, tpot=tpot, ttft=_ttft(run, found))


def _ttft(run: Run, found: Mapping[Phase, Resolved]) -> float | None:
    if "prefill" not in found:
        return None
    prefill = found["prefill"]
    case = prefill.scenario.case
    if run.mixed:
        return as_float(mixed_first_token(prefill.point, found["decode"].point, case, run.utilisation).ttft)
    if "decode" in found:
        rates = joined_rates({phase: one.scenario.case.rates for phase, one in found.items()})
        case = replace(case, rates=rates["prefill"])
    terms = first_token(
        prefill=prefill.point,
        layout=Layout.of(prefill.plan.layout),
        case=case,
        utilisation=run.utilisation,
        decode_step=as_float(found["decode"].point.step_time) if "decode" in found else 0.0,
    )
    return as_float(terms.ttft)


def is_same(phase: Phase, before: Outcome, after: Outcome, run: Run, other: Run) -> bool:
    """Return whether a change leaves a pool as it was, its batch and core split included."""
    one, two = before.pools[phase].plan.layout, after.pools[phase].plan.layout
    return other.pools[phase] is run.pools[phase] and one == two
