"""When do requests come: drawn from a process, or stamped by a trace. Seconds from the first, in order."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.errors import UsageError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedLoop:
    """So many clients, each of which sends its next request ``delay`` seconds after its last was answered.

    Their first requests come at once, or evenly over ``ramp`` seconds.  Where requests are ``offered`` at a rate too,
    with Poisson gaps, none comes before its turn: one that finds no client free waits for the next that is.
    """

    clients: int
    delay: float = 0.0
    ramp: float = 0.0
    #: requests a second; open: no limit
    offered: float | None = None
    seed: int = 0

    def turns(self, count: int) -> Floats:
        """Return the earliest that each of ``count`` requests comes, in order."""
        if self.offered is not None:
            return poisson(self.offered, count, self.seed)
        clients = min(self.clients, count)
        first = np.arange(clients, dtype=np.float64) * (self.ramp / clients)
        return np.concatenate([first, np.zeros(count - clients)])


def poisson(rate: float, count: int, seed: int) -> Floats:
    """Return Poisson arrivals at a mean rate."""
    return renewal(rate, 1.0, count, seed)


def renewal(rate: float, cv: float, count: int, seed: int) -> Floats:
    """Return arrivals with independent gamma gaps of a coefficient of variation; 0 is a clock."""
    if rate <= 0 or cv < 0:
        raise UsageError(f"arrivals: rate {rate:g}, cv {cv:g}; allowed: a rate above 0 and a cv of 0 or more")
    if cv == 0:
        return np.arange(1, count + 1, dtype=np.float64) / rate
    shape = 1 / cv**2
    gaps: Floats = np.random.default_rng(seed).gamma(shape, 1 / (shape * rate), count)
    return np.cumsum(gaps)


def at_once(count: int, over: float = 0.0) -> Floats:
    """Return a wave: all at once, or evenly over some seconds."""
    return np.arange(count, dtype=np.float64) * (over / count)


def stamped(stamps: ArrayLike, rate: float | None = None, tick: float = 0.0, seed: int = 0) -> Floats:
    """Return a trace's stamps from zero, stretched to a mean rate if one is given.

    Stamps of a coarse clock are spread at random inside their ``tick`` seconds; in a trace of whole ticks as many
    requests come at once as the clock could not tell apart.
    """
    times: Floats = np.sort(np.asarray(stamps, dtype=np.float64))
    if tick:
        times = np.sort(times + np.random.default_rng(seed).uniform(0, tick, len(times)))
    times = times - times[0]
    if rate is None:
        return times
    last = float(times[-1])
    if last <= 0:
        raise UsageError("arrivals: all stamps are equal, so they have no rate; give a trace of several moments")
    return times * ((len(times) - 1) / (last * rate))
