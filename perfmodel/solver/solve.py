"""Join the pools: integer prefill and decode instances on a budget or for a rate."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from perfmodel.ledger.records import Layout
from perfmodel.serving import Case, FirstToken, first_token
from perfmodel.solver.plan import Deployment, PoolPlan, Rejection, Solution, Status
from perfmodel.solver.search import Tally, best_decode, prefill_options
from perfmodel.specs.deployment import Targets

Objective = Literal["throughput", "cards"]
UNITS = {"memory": "B", "tpot": "s", "prefill memory": "B", "ttft": "s", "rate": "1/s"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the planner asked: a budget in servers, a rate, or both."""

    servers: int
    rate: float | None
    targets: Targets
    utilisation: float
    objective: Objective
    kv_dtype: str
    top: int


def _number(value: Any) -> float:
    return float(value)


def _terms(prefill: PoolPlan, case: Case, utilisation: float) -> FirstToken:
    """Return the terms of TTFT up to the first decode step."""
    spec = prefill.layout
    layout = Layout(
        dies=spec.dies,
        tp=spec.tp,
        shared_ranks=spec.shared_ranks,
        redundant=spec.redundant,
        batch=spec.batch,
        draft=spec.draft,
        attention_cores=0,
    )
    return first_token(
        prefill=prefill.point,
        layout=layout,
        case=case,
        utilisation=utilisation,
        decode_step=0.0,
    )


def _counts(prefill: PoolPlan, decode: PoolPlan, request: Request) -> Iterable[tuple[int, int, float]]:
    """Yield (prefill instances, decode instances, request rate) worth considering for one pair."""
    per_prefill = _number(prefill.point.requests_per_s) * request.utilisation
    per_decode = _number(decode.point.requests_per_s) * request.utilisation
    for decodes in range(1, (request.servers - prefill.servers) // decode.servers + 1):
        wanted = decodes * per_decode if request.rate is None else min(request.rate, decodes * per_decode)
        room = (request.servers - decodes * decode.servers) // prefill.servers
        prefills = min(room, max(1, -int(-wanted // per_prefill)))
        yield prefills, decodes, min(prefills * per_prefill, decodes * per_decode)


def _better(one: Deployment, other: Deployment | None, objective: Objective) -> bool:
    if other is None:
        return True
    return _rank(one, objective) < _rank(other, objective)


def _rank(deployment: Deployment, objective: Objective) -> tuple[float, ...]:
    rate, servers = -deployment.requests_per_s, float(deployment.servers_used)
    ttft = _number(deployment.first_token.ttft)
    return (servers, rate, ttft) if objective == "cards" else (rate, servers, ttft)


def _deployments(
    prefills: list[PoolPlan], decodes: list[PoolPlan], case: Case, request: Request, tally: Tally
) -> dict[tuple[object, ...], Deployment]:
    """Return the best deployment of each really different decode layout."""
    best: dict[tuple[object, ...], Deployment] = {}
    limit = request.targets.ttft
    before_decode = [(prefill, _terms(prefill, case, request.utilisation)) for prefill in prefills]
    for decode in decodes:
        for prefill, without_step in before_decode:
            if prefill.servers + decode.servers > request.servers:
                continue
            terms = replace(without_step, first_step=decode.point.step_time)
            ttft = _number(terms.ttft)
            if limit is not None and ttft > limit:
                tally.refused["ttft"] = tally.refused.get("ttft", 0) + 1
                if ttft < tally.closest.get("ttft", (float("inf"),))[0]:
                    tally.closest["ttft"] = (ttft, limit, f"prefill on {prefill.layout.dies} dies")
                continue
            for n_prefill, n_decode, rate in _counts(prefill, decode, request):
                if request.rate is not None and rate < request.rate:
                    tally.refused["rate"] = tally.refused.get("rate", 0) + 1
                    if rate > -tally.closest.get("rate", (0.0,))[0]:
                        tally.closest["rate"] = (-rate, -request.rate, f"{n_prefill}P{n_decode}D")
                    continue
                served = rate if request.rate is None else request.rate
                plan = Deployment(
                    prefill=prefill,
                    decode=decode,
                    prefill_instances=n_prefill,
                    decode_instances=n_decode,
                    requests_per_s=served,
                    prefill_utilisation=served / (n_prefill * _number(prefill.point.requests_per_s)),
                    decode_utilisation=served / (n_decode * _number(decode.point.requests_per_s)),
                    first_token=terms,
                    servers_used=n_prefill * prefill.servers + n_decode * decode.servers,
                )
                key = plan.family_key()
                if _better(plan, best.get(key), request.objective):
                    best[key] = plan
    return best


def solve(case: Case, request: Request) -> Solution:
    """Return the best deployment, its nearest rivals, or why there is none."""
    tally = Tally()
    largest = max(1, request.servers - 1)
    sizes = [n * case.rates.dies_per_server for n in range(1, largest + 1)]
    decodes = best_decode(case, sizes, request.targets.tpot, request.kv_dtype, tally)
    prefill_sizes = sizes[: min(len(sizes), 8)]
    prefills = prefill_options(case, prefill_sizes, request.kv_dtype, tally) if request.servers > 1 else []
    best = _deployments(prefills, decodes, case, request, tally)
    ranked = sorted(best.values(), key=lambda plan: _rank(plan, request.objective))
    rejections = tuple(_upright(r) for r in tally.rejections(UNITS))
    return Solution(
        status=Status.OPTIMAL if ranked else Status.INFEASIBLE if tally.evaluated else Status.EMPTY,
        case=case,
        evaluated=tally.evaluated,
        best=ranked[0] if ranked else None,
        alternatives=tuple(ranked[1 : request.top]),
        rejections=rejections,
    )


def _upright(rejection: Rejection) -> Rejection:
    """Rates are tallied with their sign turned, since there more is better; turn it back."""
    if rejection.constraint != "rate":
        return rejection
    return replace(rejection, closest=-rejection.closest, limit=-rejection.limit)
