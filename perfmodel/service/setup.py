"""Layouts that were evaluated -> the pools of a service, as an engine schedules them."""

import math

from perfmodel.algebra import as_float
from perfmodel.ledger.records import Layout
from perfmodel.prediction.scenario import Resolved
from perfmodel.prediction.serving import PoolPoint
from perfmodel.service.fits import decode_step, prefill_step
from perfmodel.service.records import DecodePool, FrontEnd, MixedPool, PrefillPool, Service, Transfer
from perfmodel.specs.machine import EngineSpec


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
    return max(0, math.floor(free / as_float(held.kv_bytes_per_token_of_die)))


def mixed_service(prefill: Resolved, decode: Resolved, engine: EngineSpec, *, instances: int = 1) -> Service:
    """Return instances that run both phases of two layouts on the same dies, as an engine schedules them.

    A batch that the layout of decode states is the cap of running requests of a rank.
    """
    plan, case = decode.plan, decode.scenario.case
    layout = Layout.of(plan.layout)
    most = plan.layout.batch if engine.max_running is None else max(plan.layout.batch, round(as_float(engine.max_running)))
    return Service(
        mixed=MixedPool(
            prefill=prefill_step(Layout.of(prefill.plan.layout), prefill.plan.family, prefill.scenario.case),
            decode=decode_step(layout, plan.family, case),
            instances=instances,
            ranks=int(as_float(layout.ranks)),
            budget=round(as_float(engine.token_budget)),
            mode=engine.mixed,
            slots=most,
            cache_tokens=cache_tokens(plan.point),
            reserved=RESERVED,
            tokens_per_step=as_float(plan.point.tokens_per_step),
        ),
        front_end=FrontEnd(delay=as_float(case.rates.request_path)),
    )
