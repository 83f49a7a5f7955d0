"""From step times to what users feel and planners pay for."""

from perfmodel.algebra import exp, log, maximum, sqrt
from perfmodel.units import Count, Dimensionless, Fraction, PerSecond, Seconds


def time_per_output_token(*, step_time: Seconds, tokens_per_step: Dimensionless) -> Seconds:
    """Mean time between output tokens of one request.

    Source: [zuo2025] section 5.2.

    >>> round(time_per_output_token(step_time=84e-3, tokens_per_step=1.7) * 1e3, 1)
    49.4
    """
    return step_time / tokens_per_step


def single_token_drafts(*, drafts: Count, layers: Count) -> Count:
    r"""Draft positions of a step that run on one token of a sequence, their layer's cache being filled already.

    .. math:: n = \max(0, k - D)

    Each of D draft layers first runs on all 1 + k tokens that are verified, whose entries its cache lacks; at the
    k - D positions after that a layer gets the one token that was drafted before.  Source: [vllm2025draft]: its loop
    over draft tokens has one query a request after the first pass.

    Three drafts of one layer: one pass over four tokens of a sequence, two over one.

    >>> single_token_drafts(drafts=3, layers=1)
    2
    """
    return maximum(0, drafts - layers)


def token_rate(*, sequences: Count, tpot: Seconds) -> PerSecond:
    """Output tokens per second of running sequences (Little's law).

    Source: [little1961].

    >>> round(token_rate(sequences=96, tpot=49.4e-3))
    1943
    """
    return sequences / tpot


def request_rate(*, tokens_per_s: PerSecond, tokens_per_request: Count) -> PerSecond:
    """Requests per second that a token rate completes.

    Source: definition.

    >>> request_rate(tokens_per_s=2048.0, tokens_per_request=1024)
    2.0
    """
    return tokens_per_s / tokens_per_request


def mixed_tpot(
    *, tpot: Seconds, sequences: Count, prefill_time_per_request: Seconds, tokens_per_request: Count
) -> Seconds:
    r"""Mean time between output tokens where prefill steps run on the same dies in between.

    .. math:: T' = T + \frac{N\,t_p}{o}

    While a sequence makes its o tokens each of the N running ones is replaced once, so N prompts pass at t_p each.
    Prefill and decode never run at once: errs high where chunks of a prompt ride along in decode steps.

    Source: conservation of sequences [little1961].

    >>> round(mixed_tpot(tpot=40e-3, sequences=1000, prefill_time_per_request=10e-3, tokens_per_request=1000) * 1e3, 3)
    50.0
    """
    return tpot + sequences * prefill_time_per_request / tokens_per_request


def cost_of_tokens(*, cost_rate: PerSecond, tokens_per_s: PerSecond) -> Dimensionless:
    """Cost of a million output tokens; ``cost_rate`` is the money that a second costs.

    Source: definition.

    >>> cost_of_tokens(cost_rate=0.01, tokens_per_s=10_000.0)
    1.0
    """
    return cost_rate * 1_000_000 / tokens_per_s


def batch_formation_wait(*, prompts: Count, arrival_rate: PerSecond) -> Seconds:
    r"""Mean wait of a prompt until its batch is full.

    .. math:: w = \frac{n - 1}{2\,\lambda}

    Evenly spaced arrivals; the first prompt waits for n - 1 others, the last for none.

    Source: mean of an arithmetic series.

    >>> batch_formation_wait(prompts=9, arrival_rate=4.0)
    1.0
    """
    return maximum(prompts - 1, 0) / (2 * arrival_rate)


def frontend_time(*, processes: Count, rate: PerSecond, utilisation: Fraction) -> Seconds:
    r"""Time of a request in n equal front-end processes, the wait for a free one included.

    .. math:: t = \frac{1}{r}\Bigl(1 + \frac{\rho^{\sqrt{2(n+1)} - 1}}{n\,(1 - \rho)}\Bigr)

    Poisson arrivals, exponential service; errs low for bursts.  ``utilisation`` is of the processes.
    Source: [sakasegawa1977] equation 2.

    One process, half busy: as long again in the queue.

    >>> frontend_time(processes=1, rate=10.0, utilisation=0.5)
    0.2
    """
    return (1 + exp((sqrt(2 * (processes + 1)) - 1) * log(utilisation)) / (processes * (1 - utilisation))) / rate


def residual_wait(*, utilisation: Fraction, service_time: Seconds) -> Seconds:
    r"""Mean wait for the batch that is running when a batch becomes ready.

    .. math:: w = \rho\,t / 2

    Deterministic service; no queue of several batches.  Errs low for bursty arrivals.
    Source: [kleinrock1975] chapter 5, mean residual life.

    >>> residual_wait(utilisation=0.8, service_time=1.0)
    0.4
    """
    return utilisation * service_time / 2
