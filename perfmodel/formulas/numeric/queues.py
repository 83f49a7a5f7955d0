"""How are waits of the textbooks distributed: exact series, evaluated stably."""

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_HALVINGS = 80
_CLOSE = 1e-9
#: counts of a service beyond this have no weight in double precision
_TERMS = 40


def erlang_c(*, servers: int, utilisation: float) -> float:
    r"""Chance to wait at c servers with exponential services (Erlang's C).

    .. math::

        C = \frac{B_c}{1 - \rho\,(1 - B_c)},\quad
        B_j = \frac{A\,B_{j-1}}{j + A\,B_{j-1}},\quad B_0 = 1,\quad A = c\,\rho

    Exact for Poisson arrivals; by Erlang's B, whose recursion is stable; 1 from a utilisation of 1 on.
    Source: [erlang1917].

    Two servers, half busy: a third waits.

    >>> round(erlang_c(servers=2, utilisation=0.5), 4)
    0.3333
    """
    if utilisation >= 1:
        return 1.0
    offered, blocked = servers * utilisation, 1.0
    for busy in range(1, servers + 1):
        blocked = offered * blocked / (busy + offered * blocked)
    return blocked / (1 - utilisation * (1 - blocked))


def mmc_wait(*, servers: int, utilisation: float, service_time: float) -> float:
    r"""Mean wait for one of c servers with exponential services.

    .. math:: w = C\,\frac{s}{c\,(1 - \rho)}

    Exact for Poisson arrivals; infinite from a utilisation of 1 on.  Source: [erlang1917].

    >>> round(mmc_wait(servers=2, utilisation=0.5, service_time=3.0), 4)
    1.0
    """
    if utilisation >= 1:
        return math.inf
    return erlang_c(servers=servers, utilisation=utilisation) * service_time / (servers * (1 - utilisation))


def mmc_wait_percentile(*, servers: int, utilisation: float, service_time: float, probability: float) -> float:
    r"""Wait that a share of the arrivals stays below, for one of c servers with exponential services.

    .. math:: w_p = \frac{s}{c\,(1 - \rho)}\,\ln\frac{C}{1 - p},\quad p > 1 - C

    Exact for Poisson arrivals, first come first served; 0 for a share that does not wait.
    Source: [kleinrock1975] chapter 3.

    >>> round(mmc_wait_percentile(servers=1, utilisation=0.5, service_time=1.0, probability=0.9), 3)
    3.219
    """
    if utilisation >= 1:
        return math.inf
    waits = erlang_c(servers=servers, utilisation=utilisation)
    if probability <= 1 - waits:
        return 0.0
    return service_time / (servers * (1 - utilisation)) * math.log(waits / (1 - probability))


def md1_states(*, utilisation: float, size: int) -> Array:
    r"""Chances of 0 to ``size`` - 1 in the system, one server with equal services.

    .. math:: p_j\,a_0 = p_0\,\bar a_j + \sum_{i=1}^{j-1} p_i\,\bar a_{j-i+1},\quad p_0 = 1 - \rho

    Exact for Poisson arrivals; a are their counts in a service, a bar their tails: no term is subtracted.
    Source: [kleinrock1975] chapter 5; cuts between states.

    >>> md1_states(utilisation=0.5, size=2).round(4).tolist()
    [0.5, 0.3244]
    """
    counts, term = np.empty(size + _TERMS), math.exp(-utilisation)
    for number in range(len(counts)):
        counts[number] = term
        term *= utilisation / (number + 1)
    tails = np.cumsum(counts[::-1])[::-1]
    states = np.empty(size)
    states[0] = 1 - utilisation
    for number in range(1, size):
        inner = float(states[1:number] @ tails[number:1:-1])
        states[number] = (states[0] * tails[number] + inner) / counts[0]
    return states


def md1_wait_share(*, utilisation: float, waits: Array) -> Array:
    r"""Share of arrivals that wait at most so many services, one server with equal services.

    .. math::

        \Pr(W \le x) = e^{-\rho (k - x)} \sum_{j=0}^{k-1} Q_{k-1-j}\,\frac{(\rho (k - x))^j}{j!},\quad
        k = \lfloor x \rfloor + 1

    Q_j is the chance of at most j waiting.  Exact for Poisson arrivals and of positive terms alone, where Erlang's
    alternating series loses all digits from some twenty services on.
    Source: [franx2001].

    Nobody waits with the chance of an idle server:

    >>> md1_wait_share(utilisation=0.75, waits=np.array([0.0])).round(6).tolist()
    [0.25]
    """
    most = int(np.max(waits)) + 1
    queue = np.cumsum(md1_states(utilisation=utilisation, size=most + 1))[1:]
    shares = []
    for wait in np.ravel(waits):
        services = int(wait) + 1
        rest = utilisation * (services - wait)
        steps = np.arange(services, dtype=np.float64)
        terms = np.exp(-rest) * np.cumprod(np.concatenate([[1.0], rest / steps[1:]]))
        shares.append(float(terms @ queue[services - 1 :: -1][:services]))
    return np.asarray(shares).reshape(np.shape(waits))


def md1_wait_percentile(*, utilisation: float, service_time: float, probability: float) -> float:
    r"""Wait that a share of the arrivals stays below, one server with equal services.

    By halving on :func:`md1_wait_share`; 0 for a share that does not wait, infinite from a utilisation of 1 on.

    Source: [franx2001].

    >>> round(md1_wait_percentile(utilisation=0.5, service_time=1.0, probability=0.9), 2)
    1.52
    """
    if utilisation >= 1:
        return math.inf
    if probability <= 1 - utilisation:
        return 0.0
    low, high = 0.0, 1.0
    while float(md1_wait_share(utilisation=utilisation, waits=np.array([high]))[0]) < probability:
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = float(md1_wait_share(utilisation=utilisation, waits=np.array([middle]))[0]) < probability
        low, high = (middle, high) if below else (low, middle)
        if high - low < _CLOSE * high:
            break
    return high * service_time
