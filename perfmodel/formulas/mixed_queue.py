"""How long are first tokens and gaps where prompts and running sequences share the same steps.

One rank and one step function: fixed time a, w for the tokens of a prompt, e for a running sequence.  *Chunked*:
prompts ride along in decode steps, up to a budget of tokens.  *Prefill first*: a step of prompts alone once one waits.
"""

import math
from typing import cast

from perfmodel.algebra import Num, exp, greater, log, maximum, minimum, where
from perfmodel.formulas.queues import slot_wait_share
from perfmodel.units import Count, Dimensionless, Fraction, PerSecond, Seconds

_ROUNDS = 8
_INFINITE = cast(Num, math.inf)
_LARGEST_POWER = 50
_LEAST = 1e-9
_TINY = 1e-300


def mixed_load(
    *, request_rate: PerSecond, prompt_time: Seconds, decode_tokens: Count, sequence_time: Seconds
) -> Dimensionless:
    r"""Share of time that prompts and running sequences take, fixed costs left out.

    .. math:: \rho = \lambda\,(w + E(o - 1)\,e)

    Source: utilisation law [little1961].

    >>> mixed_load(request_rate=2.0, prompt_time=0.1, decode_tokens=100, sequence_time=0.001)
    0.4
    """
    return request_rate * (prompt_time + decode_tokens * sequence_time)


def chunked_tpot(*, fixed_time: Seconds, own_time: Seconds, load: Dimensionless) -> Seconds:
    r"""Mean time between tokens where prompts ride along: fixed time and own sequence fill what the work leaves.

    .. math:: T = \frac{a + a_1}{1 - \rho}

    ``load`` is that of :func:`mixed_load`; infinite from 1 on.  ``own_time``: an arrival meets the mean of the others,
    so its own sequence comes on top; 0 in a closed loop, whose number holds it.  Source: [little1961].

    >>> chunked_tpot(fixed_time=0.019, own_time=0.001, load=0.5)
    0.04
    """
    free = greater(1, load)
    return where(free, (fixed_time + own_time) / where(free, 1 - load, 1), _INFINITE)


def budget_wait(
    *, utilisation: Fraction, slots: Count, full_step: Seconds, arrival_scv: Dimensionless, prompt_scv: Dimensionless
) -> Seconds:
    r"""Mean wait for room in a step, beyond the step that runs.

    .. math::

        w = X\,\frac{c_a^2 + c_p^2 / n}{2}\,\frac{\rho^{\sqrt{2(n + 1)}}}{n\,(1 - \rho)}

    n prompts fit in a full step of length X; ``prompt_scv`` is of a prompt's work.  Approximation: services of
    a full step, exact at one slot for equal prompts of Poisson arrivals; errs low for bursts at few slots.
    Source: [sakasegawa1977] for the slots, [allen1990] for the spreads.

    One slot: what M/D/1 waits beyond the rest of the running service.

    >>> budget_wait(utilisation=0.5, slots=1, full_step=2.0, arrival_scv=1.0, prompt_scv=0.0)
    0.5
    """
    spread = (arrival_scv + prompt_scv / slots) / 2
    return full_step * spread * utilisation * slot_wait_share(servers=slots, utilisation=utilisation)


def chunked_ttft(
    *,
    request_rate: PerSecond,
    tpot: Seconds,
    running: Count,
    prompt_time: Seconds,
    prompt_scv: Dimensionless,
    chunks: Count,
    slots: Count,
    arrival_scv: Dimensionless,
) -> Seconds:
    r"""Mean time to first token where prompts ride along in decode steps; ``tpot`` is the mean step.

    .. math::

        F = (1 - e^{-N})\,\frac{x_2}{2\,x_1} + C D + w + \Bigl(1 - \frac{1}{n}\Bigr) w\,\lambda\,\frac{x_2}{x_1} + W,

        D = x_1 (1 - \lambda w),\quad x_2 = x_1^2 + \lambda x_1 w^2 (c_a^2 + c_p^2)

    The rest of the step that runs, one decode step for each of the prompt's C chunks, its own work, that of prompts
    that came in the same step, and :func:`budget_wait`; N requests run, and none with chance exp(-N).  ``slots``
    prompts fill a budget; where fewer than 1, one prompt at a time is served.
    Infinite where prompts alone overfill the budget.  Steps as Poisson arrivals make them.

    Source: residual life, [kleinrock1975] chapter 5.

    An empty engine: a step and the prompt's work.

    >>> round(chunked_ttft(request_rate=0.0, tpot=0.02, running=0.0, prompt_time=0.1, prompt_scv=0.0, chunks=1, slots=8,
    ...                    arrival_scv=1.0), 3)
    0.12
    """
    finite = greater(_INFINITE, tpot)
    step = where(finite, tpot, prompt_time)
    decode = step * maximum(1 - request_rate * prompt_time, 0)
    met = step + request_rate * prompt_time * prompt_time * (arrival_scv + prompt_scv)
    whole = maximum(slots, 1)
    each = decode / slots + prompt_time  # of a prompt in a full step
    wait = budget_wait(
        utilisation=request_rate * each,
        slots=whole,
        full_step=each * whole,
        arrival_scv=arrival_scv,
        prompt_scv=prompt_scv,
    )
    beside = (1 - 1 / whole) * request_rate * met
    return where(finite, (1 - exp(-running)) * met / 2 + chunks * decode + prompt_time * (1 + beside) + wait, _INFINITE)


def prefill_batch(
    *,
    request_rate: PerSecond,
    fixed_time: Seconds,
    prompt_time: Seconds,
    decode_load: Dimensionless,
    slots: Count,
) -> Count:
    r"""Mean prompts of a prefill step where prompts go first.

    .. math::

        k = \frac{\lambda\,(1 + a q)}{(1 - \lambda w)\,q},\quad q = \frac{(1 - e^{-\lambda D})\,e^{\lambda P}}{D},\quad
        P = a + w k,\quad D = \frac{a}{1 - \rho_d / (1 - \lambda (w + a / k))}

    A prefill step follows each step in which a prompt came; P and D are the steps, ``decode_load`` is rate times
    decode tokens times time of a sequence.  At least 1, at most ``slots``, which is below 1 where a prompt takes
    several steps.  Iterated; Poisson arrivals.

    Source: balance of steps, [kleinrock1975] chapter 5.

    Few prompts come one by one:

    >>> round(prefill_batch(request_rate=0.01, fixed_time=0.02, prompt_time=0.1, decode_load=0.1, slots=16), 3)
    1.0
    """
    most = maximum(slots, 1)
    batch: Num = 1
    for _ in range(_ROUNDS):
        decoding = maximum(1 - request_rate * (prompt_time + fixed_time / batch), _LEAST)
        step = fixed_time / maximum(1 - decode_load / decoding, _LEAST)
        prefill = fixed_time + prompt_time * batch
        come = maximum(1 - exp(-minimum(request_rate * step, _LARGEST_POWER)), _TINY)
        often = come * exp(minimum(request_rate * prefill, _LARGEST_POWER)) / step
        new = request_rate * (1 + fixed_time * often) / (maximum(1 - request_rate * prompt_time, _LEAST) * often)
        batch = (batch + minimum(maximum(new, 1), most)) / 2
    return batch * minimum(slots, 1)


def prefill_first_tpot(
    *,
    request_rate: PerSecond,
    fixed_time: Seconds,
    own_time: Seconds,
    load: Dimensionless,
    prompts_per_step: Count,
) -> Seconds:
    r"""Mean time between tokens where prompts go first, k of them a step.

    .. math:: T = \frac{a + a_1}{1 - \rho - \lambda a / k}

    ``load`` is that of :func:`mixed_load`.  Source: [little1961].

    >>> t = prefill_first_tpot(request_rate=5.0, fixed_time=0.02, own_time=0.0, load=0.5, prompts_per_step=1)
    >>> round(t, 6)
    0.05
    """
    taken = load + request_rate * fixed_time / prompts_per_step
    return chunked_tpot(fixed_time=fixed_time, own_time=own_time, load=taken)


def prefill_first_ttft(
    *,
    request_rate: PerSecond,
    fixed_time: Seconds,
    tpot: Seconds,
    running: Count,
    prompt_time: Seconds,
    prompt_scv: Dimensionless,
    prompts_per_step: Count,
    slots: Count,
    arrival_scv: Dimensionless,
) -> Seconds:
    r"""Mean time to first token where prompts go first, k of them a step.

    .. math::

        F = (1 - e^{-N})\,\frac{L}{2} + a + w\,\Bigl(1 + \bigl(1 - \tfrac1n\bigr)\,\lambda L\Bigr) + W,\quad
        L = (1 - \varphi)^2\,T + \varphi\,\Bigl(P + \frac{w^2 k\,(c_a^2 + c_p^2)}{P}\Bigr),\quad
        P = a + w k,\quad \varphi = \lambda\,(w + a / k)

    L is the step that an arrival meets: of decode, (1 - phi) T long, or of prompts; half of it is left.  All that came
    in it share the next; N requests run, and none with chance exp(-N).  W of :func:`budget_wait`.

    Source: residual life, [kleinrock1975] chapter 5.

    An empty engine: the prompt's own step.

    >>> round(prefill_first_ttft(request_rate=0.0, fixed_time=0.02, tpot=0.02, running=0.0, prompt_time=0.1,
    ...                          prompt_scv=0.0, prompts_per_step=1, slots=8, arrival_scv=1.0), 3)
    0.12
    """
    finite = greater(_INFINITE, tpot)
    share = minimum(request_rate * (prompt_time + fixed_time / prompts_per_step), 1)
    step = where(finite, tpot, prompt_time) * (1 - share)
    prefill = fixed_time + prompt_time * prompts_per_step
    spread = prompt_time * prompt_time * prompts_per_step * (arrival_scv + prompt_scv)
    met = (1 - share) * step + share * (prefill + spread / prefill)
    whole = maximum(slots, 1)
    each = fixed_time / slots + prompt_time  # of a prompt in a full step
    wait = budget_wait(
        utilisation=request_rate * each,
        slots=whole,
        full_step=each * whole,
        arrival_scv=arrival_scv,
        prompt_scv=prompt_scv,
    )
    own = fixed_time * maximum(1 / slots, 1) + prompt_time * (1 + (1 - 1 / whole) * request_rate * met)
    return where(finite, (1 - exp(-running)) * met / 2 + own + wait, _INFINITE)


def longest_chunked_hole(*, decode_step: Seconds, prompt_time: Seconds, slots: Count) -> Seconds:
    r"""Longest gap between two tokens where prompts ride along: a step whose budget is full.

    .. math:: H = D + w\,n

    A bound: at light load few steps are full.  Source: definition of the budget.

    >>> longest_chunked_hole(decode_step=0.03, prompt_time=0.04, slots=8)
    0.35
    """
    return decode_step + prompt_time * slots


def longest_prefill_hole(
    *,
    time: Seconds,
    request_rate: PerSecond,
    fixed_time: Seconds,
    decode_step: Seconds,
    prompt_time: Seconds,
    prompts_per_step: Count,
) -> Seconds:
    r"""Longest gap between two tokens that a time holds, where prompts go first: prefill steps in a row.

    .. math::

        H = D + P\,\Bigl(1 + \frac{\ln M}{-\ln(1 - e^{-\lambda P})}\Bigr),\quad
        M = t\,\frac{1 - \varphi}{D}\,(1 - e^{-\lambda D}),\quad P = a + w k,\quad \varphi = \lambda\,(w + a / k)

    Of M rows of prefill steps in ``time`` (the life of a stream, or of a run) one is expected to be as long.
    Poisson arrivals.  Source: tail of the geometric distribution, [gumbel1958].

    >>> hole = longest_prefill_hole(time=1000.0, request_rate=1.0, fixed_time=0.02, decode_step=0.03,
    ...                             prompt_time=0.18, prompts_per_step=1)
    >>> round(hole, 2)
    1.01
    """
    share = minimum(request_rate * (prompt_time + fixed_time / prompts_per_step), 1)
    prefill = fixed_time + prompt_time * prompts_per_step
    rows = time * (1 - share) / decode_step * (1 - exp(-request_rate * decode_step))
    again = maximum(1 - exp(-request_rate * prefill), _TINY)
    return decode_step + prefill * (1 + log(maximum(rows, 1)) / maximum(-log(again), _LEAST))
