"""What instances serve that run prefill and decode on the same dies, in turn: closed forms of both together."""

from dataclasses import replace

from perfmodel.algebra import ceil, maximum, minimum, sqrt
from perfmodel.formulas.serving import batch_formation_wait, mixed_tpot, residual_wait
from perfmodel.ledger.footprint import Footprint
from perfmodel.prediction.serving import Case, FirstToken, PoolPoint, frontend_wait
from perfmodel.units import Count, Fraction, PerSecond, Seconds


def mixed_footprint(prefill: PoolPoint, decode: PoolPoint, together: Count) -> Footprint:
    """Return the bytes on a die that runs both phases: weights and cache once, the larger working spaces.

    The cache is decode's: a prompt takes the place of a finished sequence.  ``together`` prompts enter a rank at once
    and stay in step, so the spread of what a rank holds is that of so many times fewer sequences.  Where they are no
    whole number, as of prefill that splits prompts over dies, the fullest rank gets one more.
    """
    one, two = prefill.footprint, decode.footprint
    spread = (two.kv - two.kv_mean) * sqrt(maximum(ceil(together), 1))
    return replace(
        two,
        weights=maximum(one.weights, two.weights),
        kv=minimum(two.kv_mean + spread, two.kv_worst),
        buffers=maximum(one.buffers, two.buffers),
        workspace=maximum(one.workspace, two.workspace),
    )


def prompt_time(prefill: PoolPoint) -> Seconds:
    """Return the time of an instance for one prompt, in a full prefill step."""
    return prefill.step_time * prefill.tokens_per_request / prefill.in_flight


def mixed_time(prefill: PoolPoint, decode: PoolPoint) -> Seconds:
    """Return the TPOT of decode with the prefill steps in between."""
    return mixed_tpot(
        tpot=decode.tpot,
        sequences=decode.in_flight,
        prefill_time_per_request=prompt_time(prefill),
        tokens_per_request=decode.tokens_per_request,
    )


def mixed_rate(prefill: PoolPoint, decode: PoolPoint) -> PerSecond:
    """Return the requests a second of an instance at full load; its front ends may take fewer."""
    rate = decode.in_flight / (mixed_time(prefill, decode) * decode.tokens_per_request)
    return rate if prefill.frontend_rate is None else minimum(rate, prefill.frontend_rate)


def mixed_first_token(prefill: PoolPoint, decode: PoolPoint, case: Case, utilisation: Fraction) -> FirstToken:
    """Return the terms of TTFT of an instance at a part of its full rate.

    A full batch of prompts waits for the end of the step that runs, prefill or decode; the prefill step makes the
    first token, on the dies that go on with it.
    """
    arrivals = utilisation * mixed_rate(prefill, decode)
    busy = arrivals * prompt_time(prefill)
    return FirstToken(
        request_path=case.rates.request_path,
        frontend=frontend_wait(prefill, case, arrivals),
        batch_formation=batch_formation_wait(
            prompts=prefill.in_flight / prefill.tokens_per_request, arrival_rate=arrivals
        ),
        residual=residual_wait(utilisation=busy, service_time=prefill.step_time)
        + residual_wait(utilisation=1 - busy, service_time=decode.step_time),
        prefill=prefill.step_time,
        kv_transfer=0.0,
        first_step=0.0,
    )
