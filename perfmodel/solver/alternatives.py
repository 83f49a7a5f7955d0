"""What other choices cost, what a little more of a limit buys, and what instances lose to being whole."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from perfmodel.prediction.deployment import Deployment
from perfmodel.solver.join import Join, Prefills, fastest_of_a_size, joined
from perfmodel.solver.mesh import Leader
from perfmodel.solver.refit import refitted
from perfmodel.solver.request import Cases, SearchRequest, value
from perfmodel.solver.solution import AlternativeCost, ShadowPrice
from perfmodel.solver.tally import Tally

MORE_TPOT = 1e-3  # s
MORE_TTFT = 0.1  # of the limit


def structural_choices(join: Join) -> dict[str, str]:
    """Return the structural choices of a decode pool, in words."""
    layout, family = join.decode.layout, join.decode.mesh.family
    return {
        "serving": "mixed: prefill and decode in turn on the same dies" if join.mixed else "disaggregated",
        "tp": f"tp {layout.tp}",
        "draft": f"{layout.draft} drafts" if layout.draft != 1 else "1 draft",
        "overlap": {"none": "serial layers", "cores": "micro-batches on split cores"}.get(
            family.overlap, f"overlap {family.overlap}"
        ),
        "exchange": f"exchange {family.exchange}",
        "shared": "shared experts on dies of their own" if family.own_shared_ranks else "shared expert on every die",
        "experts": f"experts split over {layout.expert_tp} dies" if layout.expert_tp > 1 else "whole experts",
        "cache": f"{family.kv_dtype} cache",
    }


def _different(joins: Iterable[Join]) -> list[Join]:
    """Return the first of the joins that are alike in everything but sizes, slots and batch."""
    found: dict[tuple[object, ...], Join] = {}
    for join in joins:
        mesh = join.decode.mesh
        _, _, _, tp, draft, _, _ = np.unravel_index(join.decode.index, mesh.shape)
        alike = (float(mesh.tp[tp]), float(mesh.draft[draft]), id(mesh.structure), join.mixed)
        found.setdefault(alike, join)
    return list(found.values())


def costs_of_alternatives(
    joins: Sequence[Join], request: SearchRequest, deployment: Callable[[Join], Deployment]
) -> tuple[AlternativeCost, ...]:
    """Return the best deployment of every other choice in one respect, and the objective it loses."""
    best = structural_choices(joins[0])
    first: dict[str, Join] = {}
    for join in _different(joins):
        for respect, word in structural_choices(join).items():
            if word != best[respect]:
                first.setdefault(word, join)
    most = value(request, joins[0].key)
    return tuple(
        AlternativeCost(choice=word, deployment=deployment(join), loss=value(request, join.key) / most - 1)
        for word, join in first.items()
    )


def shadow_prices(
    joins: Sequence[Join], columns: dict[str, Prefills], cases: Cases, request: SearchRequest
) -> tuple[ShadowPrice, ...]:
    """Return what a millisecond of TPOT, a tenth of TTFT and one more server buy.

    None of mixed instances, which have no prefill pool to join anew.
    """
    best = joins[0]
    if best.mixed:
        return ()
    found = []
    tpot, ttft = request.targets.tpot, request.targets.ttft
    kept = best.decode.mesh.family.kv_dtype
    prefills = columns[kept]

    def gain(decodes: list[Leader], asked: SearchRequest) -> float:
        tried = joined(decodes, prefills, asked, Tally())
        top = min((join.key for join in tried), default=best.key)
        return value(request, top) / value(request, best.key) - 1

    if tpot is not None:
        longer = replace(request, targets=request.targets.model_copy(update={"tpot": tpot + MORE_TPOT}))
        leader = refitted(best.decode, cases.decode, tpot + MORE_TPOT)
        found.append(ShadowPrice(limit="+1 ms of TPOT", gain=gain([best.decode, leader], longer)))
    own = [join.decode for join in joins if not join.mixed and join.decode.mesh.family.kv_dtype == kept]
    leaders = fastest_of_a_size(own)
    if ttft is not None:
        looser = replace(request, targets=request.targets.model_copy(update={"ttft": ttft * (1 + MORE_TTFT)}))
        found.append(ShadowPrice(limit="+10 % of TTFT", gain=gain(leaders, looser)))
    if request.rate is None:
        more = replace(request, servers=request.servers + 1)
        found.append(ShadowPrice(limit="one more server", gain=gain(leaders, more)))
        if request.prefill_servers is not None:
            more = replace(request, prefill_servers=request.prefill_servers + 1)
            found.append(ShadowPrice(limit="one more server of prefill", gain=gain(leaders, more)))
    return tuple(found)


def relaxed_rate(joins: Sequence[Join], columns: dict[str, Prefills], request: SearchRequest) -> float | None:
    """Return the rate of the budget were instances divisible: no whole numbers can do better with these instances.

    None for a given rate, another objective, two budgets, and of mixed instances.
    """
    if request.objective != "throughput" or request.rate is not None or request.prefill_servers is not None:
        return None
    if joins[0].mixed:
        return None
    rates = []
    for kv_dtype, prefills in columns.items():
        own = [join.decode for join in joins if not join.mixed and join.decode.mesh.family.kv_dtype == kv_dtype]
        if own:
            decode = min(one.servers / (one.requests_per_s * request.utilisation) for one in own)
            prefill = float((prefills.servers / prefills.rate)[_early(prefills, request)].min())
            rates.append(request.servers / (decode + prefill))
    return max(rates)


def _early(prefills: Prefills, request: SearchRequest) -> Any:
    limit = request.targets.ttft
    return slice(None) if limit is None else prefills.ttft < limit
