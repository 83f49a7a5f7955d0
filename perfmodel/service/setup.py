"""Layouts that were evaluated -> the pools of a service, as an engine schedules them."""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from perfmodel.algebra import as_float
from perfmodel.errors import UsageError, did_you_mean
from perfmodel.ledger.records import Layout
from perfmodel.prediction.deployment import Deployment, PoolPlan
from perfmodel.prediction.joined_pools import JoinedPools
from perfmodel.prediction.scenario import Resolved, of_conditions, resolve
from perfmodel.prediction.serving import Case, PoolPoint, cache_transfer
from perfmodel.service.arrivals import ClosedLoop, poisson
from perfmodel.service.fits import decode_step, prefill_step
from perfmodel.service.records import (
    Balancing,
    DecodePool,
    FrontEnd,
    MixedPool,
    MixedRouting,
    PrefillPool,
    Requests,
    Service,
    Transfer,
)
from perfmodel.specs.conditions import Conditions, Load
from perfmodel.specs.machine import EngineSpec, StackSpec
from perfmodel.specs.model import ModelSpec
from perfmodel.specs.run import Routing
from perfmodel.specs.workload import lognormal
from perfmodel.supply.rates import Rates

#: tokens of a prompt that is worked whole: more than any has
LONGEST = 10_000_000
#: part of an output that is reserved: engines give blocks as they fill, and requests of a steady run are on average
#: half-way; preemption, which starts when all are long at once, is left out
RESERVED = 0.5


def cache_tokens(point: PoolPoint) -> int:
    """Return the tokens that the cache of a data-parallel rank holds beside weights, buffers and working space.

    Source: bytes left over bytes a token, in whole tokens; blocks are counted as filled, so errs high by half a block a
    request.
    """
    held = point.footprint
    free = as_float(point.usable) - as_float(held.weights + held.workspace + held.buffers)
    # what a request keeps beside its tokens is spread over those that one has on average
    each = as_float(held.kv_bytes_per_token_of_die + held.kv_bytes_per_request_of_die / held.mean_tokens)
    return max(0, math.floor(free / each))


def _running(engine: EngineSpec, stated: int | None) -> int | None:
    """Return the most that a rank runs at once: as it is stated, else the engine's; none where its cache alone says."""
    return stated if stated or engine.max_running is None else round(as_float(engine.max_running))


def _batching(plan: PoolPlan, **schedule: Any) -> dict[str, Any]:
    """Return what instances have that run decode, alone or with prefill, and how they are scheduled."""
    return {
        "ranks": int(as_float(Layout.of(plan.layout).ranks)),
        "cache_tokens": cache_tokens(plan.point),
        "reserved": RESERVED,
        "tokens_per_step": as_float(plan.point.tokens_per_step),
        **schedule,
    }


def _prefill_pool(plan: PoolPlan, case: Case, **schedule: Any) -> PrefillPool:
    layout = Layout.of(plan.layout)
    return PrefillPool(step=prefill_step(layout, plan.family, case), ranks=int(as_float(layout.ranks)), **schedule)


def _decode_pool(plan: PoolPlan, case: Case, **schedule: Any) -> DecodePool:
    step = decode_step(Layout.of(plan.layout), plan.family, case)
    return DecodePool(step=step, **_batching(plan, **schedule))


def _mixed_pool(first: PoolPlan, first_case: Case, plan: PoolPlan, case: Case, **schedule: Any) -> MixedPool:
    return MixedPool(
        prefill=prefill_step(Layout.of(first.layout), first.family, first_case),
        decode=decode_step(Layout.of(plan.layout), plan.family, case),
        **_batching(plan, **schedule),
    )


def mixed_service(
    prefill: Resolved, decode: Resolved, engine: EngineSpec, *, stated: int | None = None, instances: int = 1
) -> Service:
    """Return instances that run both phases of two layouts on the same dies, as an engine schedules them.

    ``stated`` is the most that a rank runs at once, where that is said; else it is the engine's.
    """
    case = decode.scenario.case
    pool = _mixed_pool(
        prefill.plan,
        prefill.scenario.case,
        decode.plan,
        case,
        instances=instances,
        budget=round(as_float(engine.token_budget)),
        mode=engine.mixed,
        slots=_running(engine, stated),
        align_steps=round(as_float(engine.align_steps or 0)),
    )
    return Service(mixed=pool, front_end=FrontEnd(delay=as_float(case.rates.request_path)))


def pools_service(
    prefill: Resolved, decode: Resolved, engine: EngineSpec, *, instances: tuple[int, int], stated: int | None = None
) -> Service:
    """Return two pools as an engine schedules them, so many instances of prefill and of decode.

    A rank of prefill starts with what waits, at most its layout's prompts; of prompts worked in pieces each step has
    one piece of each.  ``stated`` is the most that a rank of decode runs, where that is said; else it is the engine's.
    """
    first, case = prefill.plan, decode.scenario.case
    prompts = round(as_float(first.layout.batch))
    budget = prompts * (first.layout.chunk or LONGEST)
    return Service(
        prefill=_prefill_pool(first, prefill.scenario.case, instances=instances[0], budget=budget, prompts=prompts),
        decode=_decode_pool(decode.plan, case, instances=instances[1], slots=_running(engine, stated)),
        front_end=FrontEnd(delay=as_float(case.rates.request_path)),
        transfer=transfer(prefill),
    )


#: what takes a request in decode, or in mixed instances, by what takes it in prefill
_BESIDE: dict[Balancing, Literal["round_robin", "random", "least_requests"]] = {
    "round_robin": "round_robin",
    "random": "random",
    "least_work": "least_requests",
    "prefix_affinity": "least_requests",
}


def deployment_service(
    joined: JoinedPools,
    engine: EngineSpec,
    *,
    routing: Balancing = "round_robin",
    cache_blocks: int = 0,
    affinity_block: int = 1,
) -> Service:
    """Return the instances of a deployment as an engine schedules them, each rank of decode at most at its batch.

    Requests pass the path and the front ends of the stack of prefill; each finished prompt's cache is sent as
    :class:`FirstToken` counts it, at the prompt's own length.  The engine's tokens alone bind the prompts of
    a step.
    """
    prefill, decode = joined.prefill, joined.decode
    door = front_end(prefill.scenario.case.rates, joined.prefill_instances)
    slots = round(as_float(decode.plan.layout.batch))
    caches: dict[str, Any] = {"cache_blocks": cache_blocks, "affinity_block": affinity_block}
    if joined.mixed:
        found = mixed_service(prefill, decode, engine, stated=slots, instances=joined.decode_instances)
        assert found.mixed is not None
        route: MixedRouting = "prefix_affinity" if routing == "prefix_affinity" else _BESIDE[routing]
        return replace(found, mixed=replace(found.mixed, routing=route, **caches), front_end=door)
    return Service(
        prefill=_prefill_pool(
            prefill.plan,
            prefill.scenario.case,
            instances=joined.prefill_instances,
            budget=round(as_float(engine.token_budget)),
            routing=routing,
            **caches,
        ),
        decode=_decode_pool(
            decode.plan,
            decode.scenario.case,
            instances=joined.decode_instances,
            slots=slots,
            routing=_BESIDE[routing],
        ),
        front_end=door,
        transfer=transfer(prefill),
    )


def front_end(rates: Rates, instances: int) -> FrontEnd:
    """Return what a request passes before the queue of prefill: the path, then the processes of all instances."""
    delay = as_float(rates.request_path)
    if rates.frontend_rate is None:
        return FrontEnd(delay=delay)
    servers = max(1, round(as_float(rates.frontends) * instances))
    return FrontEnd(delay=delay, servers=servers, service_time=1 / as_float(rates.frontend_rate))


def transfer(prefill: Resolved) -> Transfer:
    """Return the way of a prompt's cache: exact at the lengths and the batch of the layout, in proportion beyond."""
    case = prefill.scenario.case
    whole = cache_transfer(prefill=prefill.point, layout=Layout.of(prefill.plan.layout), case=case)
    latency = as_float(case.rates.kv_tier.latency)
    return Transfer(latency=latency, per_token=(as_float(whole) - latency) / as_float(case.isl))


def planned_service(best: Deployment, cases: tuple[Case, Case], routing: Routing = "round_robin") -> Service:
    """Return the pools of a deployment under the cases of both, prefill's first: no engine's own settings.

    A step has room for the tokens of as many prompts as the plan batches, all of one mean length; a rank runs as many
    requests as the plan's batch and its cache let it.  The first token comes from decode, as
    :class:`perfmodel.prediction.serving.FirstToken` counts it; of mixed instances from prefill, which goes first.
    """
    budget = max(1, round(as_float(best.prefill.layout.batch * cases[0].isl)))
    door = front_end(cases[0].rates, best.prefill_instances)
    batching: dict[str, Any] = {
        "instances": best.decode_instances,
        "slots": best.decode.layout.batch,
        "routing": _BESIDE[routing],
    }
    if best.mixed:
        pool = _mixed_pool(
            best.prefill, cases[0], best.decode, cases[1], budget=budget, mode="prefill_first", **batching
        )
        return Service(mixed=pool, front_end=door)
    return Service(
        prefill=_prefill_pool(best.prefill, cases[0], instances=best.prefill_instances, budget=budget, routing=routing),
        decode=_decode_pool(best.decode, cases[1], **batching),
        front_end=door,
        transfer=Transfer(latency=as_float(best.first_token.kv_transfer)),
    )


def engine_of(stack: StackSpec, name: str | None) -> EngineSpec:
    """Return how an engine on a stack schedules: the one that is named, else the one that the stack comes with.

    Raises ``UsageError`` where the stack has no such engine.
    """
    if not stack.engines:
        raise UsageError(
            f"stack {stack.name}: no engine on file; allowed: a stack with engines; see 'moeplan list stacks'"
        )
    if name is None:
        return stack.engines[0]
    for engine in stack.engines:
        if name in (engine.word, engine.name):
            return engine
    known = list(dict.fromkeys(engine.word for engine in stack.engines))
    raise UsageError(f"engine {name!r}: none of stack {stack.name}{did_you_mean(name, known)}")


def holds_one(decode: Resolved) -> bool:
    """Return whether the cache of a rank holds one request from its first to its last token: engines let in no more."""
    case = decode.scenario.case
    return cache_tokens(decode.point) >= as_float(case.isl + case.osl)


def ranks_of(conditions: Conditions) -> int:
    """Return the data-parallel ranks of an instance."""
    layout = conditions.layout
    return (layout.dies - layout.expert_dies) // (layout.tp * layout.cp)


def mixed_phases(
    conditions: Conditions, engine: EngineSpec, model: ModelSpec, rates: Rates
) -> tuple[Conditions, Resolved, Resolved]:
    """Return conditions of mixed serving with their batch, and the layout of the same dies evaluated for each phase.

    An open batch of decode is what the clients have a rank run, at most what its cache holds; of an open loop the
    engine's most.  Prefill has as many prompts a rank as the engine's budget takes.
    Raises ``UsageError`` as ``resolve`` does.
    """
    asked = conditions.layout.batch
    if asked is None:
        most = engine.max_running and round(as_float(engine.max_running))
        asked = most or 256
        if conditions.concurrency is not None:
            asked = min(asked, math.ceil(conditions.concurrency / ranks_of(conditions)))
    prompts = max(1, min(asked, round(as_float(engine.token_budget)) // conditions.isl))
    alone = {"draft": 0, "overlap": "none", "attention_cores": 0, "fused_experts": False}
    first = conditions.model_copy(
        update={
            "phase": "prefill",
            "serving": "disaggregated",
            "layout": conditions.layout.model_copy(update={**alone, "batch": prompts}),
        }
    )
    prefill = resolve(of_conditions(first, model, rates))
    tried = conditions.model_copy(update={"layout": conditions.layout.model_copy(update={"batch": asked})})
    decode = resolve(of_conditions(tried, model, rates, prefill.point))
    if not decode.fits and conditions.layout.batch is None:
        held = cache_tokens(decode.point) / (conditions.isl + conditions.osl / 2)
        fewer = max(1, min(asked, math.floor(held)))
        tried = conditions.model_copy(update={"layout": conditions.layout.model_copy(update={"batch": fewer})})
        decode = resolve(of_conditions(tried, model, rates, prefill.point))
    return tried, prefill, decode


WAVES = 10  # requests of each client, where it is not said: what public benchmarks send
OPEN_REQUESTS = 20_000  # of an open loop
#: spread of lengths that are given as one number: drawn evenly from 0.8 to 1.0 of a largest, as a public benchmark has
#: them; requests of equal lengths would go on in step for ever, as those of no service do; a single wave does not go on
LITTLE = 0.06


def spread_held(cv: float, count: int) -> float:
    """Return a spread of lengths, or the most that so few of them can have."""
    return min(cv, math.sqrt(max(count - 1, 0)) / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What clients send; equal ones send the same."""

    isl: int
    osl: int
    isl_cv: float | None = None
    osl_cv: float | None = None
    concurrency: int | None = None
    rate: float | None = None
    count: int | None = None

    @staticmethod
    def of(conditions: Load) -> "Sent":
        """Return what the clients of some conditions send."""
        names = ("isl", "osl", "isl_cv", "osl_cv", "concurrency", "rate")
        return Sent(**{name: getattr(conditions, name) for name in names}, count=conditions.requests)

    def requests(self, seed: int = 0) -> Requests:
        """Return lengths of a mean and spread, in a closed loop all at once first, or as they arrive.

        Clients that offer requests at a rate come one by one until all are busy.
        """
        clients = self.concurrency
        count = self.count or (OPEN_REQUESTS if clients is None else WAVES * clients)
        unsaid = 0.0 if clients is not None and count <= clients else LITTLE
        spreads = [unsaid if cv is None else cv for cv in (self.isl_cv, self.osl_cv)]
        isl_cv, osl_cv = (spread_held(cv, count) for cv in spreads)
        lengths = lognormal(self.isl, isl_cv, self.osl, osl_cv, requests=count, seed=seed)
        if clients is not None:
            loop = ClosedLoop(clients=clients, offered=self.rate, seed=seed)
            return Requests.of(lengths.isl, lengths.osl, loop)
        assert self.rate is not None
        return Requests.of(lengths.isl, lengths.osl, poisson(self.rate, count, seed))


def requests_of(conditions: Load, seed: int = 0) -> Requests:
    """Return what the clients of some conditions send."""
    return Sent.of(conditions).requests(seed)
