"""What share of prompts at a prefill instance is answered within which time, and how many can it take."""

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_POINTS = 16
_LARGEST = 2000
_EVEN = 1e-6


def pool_capacity(
    *, lengths: Array, work: Array, fixed_time: float, ranks: int, instances: int, budget: float
) -> float:
    r"""Prompts per second that instances of R ranks in step take, each rank at most a budget of tokens a step.

    .. math:: m\,R\,\frac{B / E(l)}{a + E\max_R x},\quad
        E\max_R x = \sum_i x_{(i)}\Bigl(\bigl(\tfrac{i}{n}\bigr)^R - \bigl(\tfrac{i - 1}{n}\bigr)^R\Bigr)

    The stream of ``lengths`` is cut every B tokens; x is the work of such a chunk, in which a prompt's ``work`` falls
    evenly on its tokens.  Within 2.6 % of saturated steps; errs low where the work of a long prompt rises late.

    Source: order statistics of a sample, [gumbel1958].

    Equal prompts, four a step, on two ranks:

    >>> rate = pool_capacity(lengths=np.full(800, 100.0), work=np.full(800, 0.1), fixed_time=0.1, ranks=2,
    ...                      instances=1, budget=400.0)
    >>> round(rate, 6)
    16.0
    """
    tokens = np.concatenate([[0.0], np.cumsum(lengths)])
    done = np.concatenate([[0.0], np.cumsum(work)])
    steps = max(int(tokens[-1] // budget), 1)
    cuts = np.interp(np.arange(steps + 1) * min(budget, float(tokens[-1])), tokens, done)
    chunks = np.sort(np.diff(cuts))
    share = (np.arange(steps + 1) / steps) ** ranks
    busiest = float(np.diff(share) @ chunks)
    return float(instances * ranks * budget / np.mean(lengths) / (fixed_time + busiest))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Times:
    """A distribution of times: points in rising order and what weighs on each; empty where none is steady."""

    points: Array
    weights: Array

    def mean(self) -> float:
        """Return the mean; infinite where no state is steady."""
        return float(self.points @ self.weights) if self.points.size else math.inf

    def percentile(self, probability: float) -> float:
        """Return the time that a share of the prompts stays below; infinite where no state is steady."""
        if not self.points.size:
            return math.inf
        middle = np.cumsum(self.weights) - self.weights / 2
        return float(np.interp(probability, middle, self.points))


def dispersion_seen(*, short: float, arrival_scv: float, utilisation: float) -> float:
    r"""Variance over mean of the prompts that come in a step, as a queue feels it.

    .. math:: I = I_w + (c_a^2 - I_w)\,(0.4 + 0.6\,\rho)

    ``short`` is that of counts over a step / (1 - rho), ``arrival_scv`` that of long windows at this instance (c / m
    for m instances in turn, 1 + (c - 1) / m at random).  The two weights are fitted to simulations, not derived.

    Source: own simulations of two pools.

    >>> dispersion_seen(short=1.0, arrival_scv=2.0, utilisation=1.0)
    2.0
    """
    return short + (arrival_scv - short) * (0.4 + 0.6 * utilisation)


def counts(*, mean: float, dispersion: float, size: int) -> Array:
    """Return the chances of 0 to ``size`` - 1 arrivals, and of more in the last place.

    Poisson at a ``dispersion`` (variance over mean) of 1, negative binomial above; below, every m-th of a Poisson
    stream, m the whole number next to its inverse.

    Source: [feller1968] chapter VI.

    >>> counts(mean=1.0, dispersion=1.0, size=3).round(3).tolist()
    [0.368, 0.368, 0.264]
    """
    if dispersion < 1 - _EVEN:
        every = max(round(1 / dispersion), 1) if dispersion > 1 / _LARGEST else _LARGEST
        fine = _plain_counts(mean * every, 1.0, size * every)
        spread = np.convolve(fine, np.full(every, 1 / every))[: size * every]
        chances = cast(Array, spread.reshape(size, every).sum(axis=1))
    else:
        chances = _plain_counts(mean, dispersion, size)
    chances[-1] += max(1 - chances.sum(), 0.0)
    return chances


def _plain_counts(mean: float, dispersion: float, size: int) -> Array:
    rank = np.arange(size, dtype=np.float64)
    if mean <= 0:
        return cast(Array, (rank == 0).astype(np.float64))
    factorial = np.concatenate([[0.0], np.cumsum(np.log(rank[1:]))])
    if dispersion < 1 + _EVEN:
        return cast(Array, np.exp(rank * math.log(mean) - mean - factorial))
    shape = mean / (dispersion - 1)
    rising = np.concatenate([[0.0], np.cumsum(np.log(shape + rank[:-1]))])
    log_chance = rising - factorial + rank * math.log1p(-1 / dispersion) - shape * math.log(dispersion)
    return cast(Array, np.exp(log_chance))


def _burst(dispersion: float, size: int) -> Array:
    """Return the chances of others of one's burst on one side: geometric, of mean (I - 1) / 2."""
    mean = max(dispersion - 1, 0.0) / 2
    return cast(Array, (mean / (1 + mean)) ** np.arange(size) / (1 + mean))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Instance:
    """One instance, and how many states of its queue are kept."""

    rate: float
    steps: Array
    ranks: int
    full: int
    dispersion: float
    size: int

    def level(self, prompts: int) -> int:
        """Return which of the steps serves that many prompts, counted from 0."""
        return -(-min(prompts, self.full) // self.ranks) - 1

    def arrivals(self, time: float) -> Array:
        """Return the chances of the numbers that come in a time."""
        return counts(mean=self.rate * time, dispersion=self.dispersion, size=self.size)

    def states(self) -> Array:
        """Return the chances of the prompts waiting when a step starts; state 0 is one that ended an idle time."""
        size = self.size
        change = np.zeros((size, size))
        tables = [self.arrivals(float(step)) for step in self.steps]
        change[0] = np.convolve(tables[0], _burst(self.dispersion, size))[:size]
        for waiting in range(1, size):
            left = max(waiting - self.full, 0)
            change[waiting, left:] = tables[self.level(waiting)][: size - left]
        change[:, -1] += 1 - change.sum(axis=1)
        balance = change.T - np.eye(size)
        balance[-1] = 1.0
        chances = np.linalg.solve(balance, np.eye(size)[-1])
        return cast(Array, np.maximum(chances, 0.0))

    def after_rest(self, ahead: Array, rest: float) -> tuple[Array, Array]:
        """Return times and chances of one that waits for a rest and those ahead; later ones share its step."""
        others, burst = np.arange(len(ahead)), _burst(self.dispersion, self.full)
        times, chances = [], []
        for turns in range(len(ahead) // self.full + 1):
            before = rest + turns * float(self.steps[-1])
            come = np.cumsum(np.convolve(self.arrivals(before)[: self.full], burst)[: self.full])
            here = others[turns * self.full : (turns + 1) * self.full] - turns * self.full
            weight = ahead[turns * self.full : (turns + 1) * self.full]
            if not weight.sum() > _EVEN * ahead.sum():
                continue
            room = np.arange(1, len(self.steps) + 1)[:, None] * self.ranks - 1 - here[None, :]
            within = np.where(room >= 0, come[np.clip(room, 0, self.full - 1)], 0.0)
            within[-1] = 1.0
            share = np.diff(within, axis=0, prepend=0.0) @ weight
            times.append(before + self.steps)
            chances.append(share)
        return np.concatenate(times), np.concatenate(chances)


def first_token_times(
    *, request_rate: float, fixed_time: float, prompt_time: float, ranks: int, slots: int, dispersion: float
) -> Times:
    r"""Times to first token at one prefill instance of R ranks in step, for equal prompts.

    .. math:: q' = q - \min(q, n) + A\bigl(X_q\bigr),\quad X_q = a + w\,\lceil \min(q, n) / R\rceil,\quad n = K R

    The chain of prompts waiting when a step starts, one linear solve; counts A of :func:`counts`.  A prompt waits for
    the rest of the step that it meets, full steps of those ahead and its own, shared with who comes meanwhile; one that
    finds the instance idle starts alone, and the rest of its burst comes within its step.  Prompts go to ranks in turn.
    Equal prompts that divide the budget; within some 10 % then.  Not for spread lengths on several ranks: p99 up to
    68 % low.  Costs milliseconds; more than 2,000 waiting prompts raise ``ValueError``.

    Source: embedded chain of bulk service, [kleinrock1975] chapter 5.

    Hardly any load: a step of one's own.

    >>> times = first_token_times(request_rate=0.01, fixed_time=0.1, prompt_time=0.4, ranks=4, slots=2, dispersion=1.0)
    >>> round(times.percentile(0.5), 2)
    0.5
    """
    full = ranks * slots
    steps = fixed_time + prompt_time * np.arange(1, slots + 1, dtype=np.float64)
    load = request_rate * float(steps[-1]) / full
    if load >= 1:
        return Times(points=np.zeros(0), weights=np.zeros(0))
    tail = math.ceil(8 * max(dispersion, 1.0) / (1 - load))
    size = full + tail + math.ceil(4 * math.sqrt(max(dispersion, 1.0) * full)) + 2
    if size > _LARGEST:
        raise ValueError(f"a chain of {size} waiting prompts; up to {_LARGEST} are taken: replay the requests instead")
    one = _Instance(rate=request_rate, steps=steps, ranks=ranks, full=full, dispersion=dispersion, size=size)
    state = one.states()
    burst = _burst(dispersion, size)
    idle = float(state[0])
    points, weights = [np.array([steps[0]])], [np.array([idle])]
    mates = max(dispersion - 1, 0.0) / 2
    if mates > 0:
        times, chances = one.after_rest(burst, float(steps[0]))
        points.append(times)
        weights.append(idle * mates * chances)
    at = (np.arange(_POINTS) + 0.5) / _POINTS
    for level, step in enumerate(steps):
        left = np.zeros(size)
        low, high = level * ranks + 1, (level + 1) * ranks
        left[0] = state[low : high + 1].sum()
        if level == slots - 1:
            left[1 : size - full] += state[full + 1 :]
        if level == 0:
            left += idle * burst
        if not left.sum() > 0:
            continue
        left = np.convolve(left, burst)[:size] if mates > 0 else left
        for share in at:
            ahead = np.convolve(left, one.arrivals(float(share * step)))[:size]
            times, chances = one.after_rest(ahead, float((1 - share) * step))
            points.append(times)
            weights.append(request_rate * step / _POINTS * chances)
    time, weight = np.concatenate(points), np.concatenate(weights)
    order = np.argsort(time)
    return Times(points=time[order], weights=weight[order] / weight.sum())
