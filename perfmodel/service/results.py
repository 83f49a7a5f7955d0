"""What was served: moments of each request, and what a table or a chart of them says."""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from perfmodel.service.records import Service

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One pool, or the whole of the service, over the time of the run.

    Little's law holds the mean number inside, summed as requests come and go, against rate times mean stay.
    """

    mean_inside: float
    rate_times_stay: float
    #: part of the time that an instance runs a step, mean over instances; not a number for the whole
    utilisation: float = float("nan")
    steps: int = 0

    @property
    def little_error(self) -> float:
        """Relative difference of both sides of Little's law."""
        return self.mean_inside / self.rate_times_stay - 1 if self.rate_times_stay else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Mean and percentiles of one quantity."""

    mean: float
    p50: float
    p90: float
    p99: float

    @staticmethod
    def of(values: Floats) -> "Summary":
        """Return those of values, what is not a number left out."""
        known = values[~np.isnan(values)]
        if not len(known):
            return Summary(mean=float("nan"), p50=float("nan"), p90=float("nan"), p99=float("nan"))
        p50, p90, p99 = (float(one) for one in np.percentile(known, (50, 90, 99)))
        return Summary(mean=float(known.mean()), p50=p50, p90=p90, p99=p99)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Served:
    """The requests of a run in their order; times in seconds from its start.

    ``queued``: left the front ends; ``prefilled``: prefill done; ``joined``: let in by decode, or by a mixed instance;
    ``first``, ``finish``: first and last token; ``longest``: longest time between two tokens, 0 of one token.
    """

    service: Service
    isl: NDArray[np.int64]
    osl: NDArray[np.int64]
    arrival: Floats
    queued: Floats
    prefilled: Floats
    joined: Floats
    first: Floats
    finish: Floats
    longest: Floats
    #: the instance of prefill, or of mixed serving, that had a request
    instance: NDArray[np.int64]
    #: the run as a whole: it is of all requests, also where these are a part
    parts: dict[str, Part] = field(default_factory=dict)
    #: part of the prompts' tokens that a prefix cache had
    found: float = 0.0

    @property
    def ttft(self) -> Floats:
        """Time to first token."""
        return self.first - self.arrival

    @property
    def tpot(self) -> Floats:
        """Mean time of each further output token; not a number where there is none."""
        further = np.where(self.osl > 1, self.osl - 1, np.nan)
        return (self.finish - self.first) / further

    @property
    def e2e(self) -> Floats:
        """Time from arrival to the last token."""
        return self.finish - self.arrival

    @property
    def rate(self) -> float:
        """Requests finished a second, from first arrival to last token."""
        span = float(self.finish.max() - self.arrival.min())
        return len(self.finish) / span if span else float("inf")

    def summary(self) -> dict[str, Summary]:
        """Return mean and percentiles of ttft, tpot, e2e and the longest time between two tokens."""
        values = {"ttft": self.ttft, "tpot": self.tpot, "e2e": self.e2e, "longest": self.longest}
        return {name: Summary.of(one) for name, one in values.items()}

    def within(self, *, ttft: float | None = None, tpot: float | None = None, e2e: float | None = None) -> float:
        """Return the part of the requests that meet all limits given; one token alone meets any TPOT."""
        return float(np.mean(self._met(ttft, tpot, e2e)))

    def goodput(self, *, ttft: float | None = None, tpot: float | None = None, e2e: float | None = None) -> float:
        """Return the requests a second that meet all limits given."""
        return self.rate * self.within(ttft=ttft, tpot=tpot, e2e=e2e)

    def _met(self, ttft: float | None, tpot: float | None, e2e: float | None) -> NDArray[np.bool_]:
        met = np.ones(len(self.finish), dtype=np.bool_)
        for limit, values in ((ttft, self.ttft), (tpot, self.tpot), (e2e, self.e2e)):
            if limit is not None:
                met &= ~(values > limit)
        return met

    def part(self, start: float, stop: float = 1.0) -> "Served":
        """Return the requests from one share of the run to another by order: without its start, or its end."""
        count = len(self.finish)
        return self.of(slice(round(start * count), round(stop * count)))

    def of(self, chosen: slice | NDArray[np.bool_]) -> "Served":
        """Return some of the requests."""
        names = ("isl", "osl", "arrival", "queued", "prefilled", "joined", "first", "finish", "longest", "instance")
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})

    def windows(self, seconds: float) -> dict[str, Floats]:
        """Return a time series: of requests by when they came, in windows of so many seconds.

        ``start``, ``requests``, mean ``ttft`` and ``tpot``, and ``ttft_p99``; not a number where none came.
        """
        number = ((self.arrival - self.arrival.min()) // seconds).astype(int)
        order = np.argsort(number, kind="stable")
        edges = np.searchsorted(number[order], np.arange(number.max() + 2))
        ttft, tpot = self.ttft[order], self.tpot[order]
        rows = []
        for begin, end in zip(edges[:-1], edges[1:], strict=True):
            first, each = Summary.of(ttft[begin:end]), Summary.of(tpot[begin:end])
            rows.append((float(end - begin), first.mean, first.p99, each.mean))
        requests, mean, p99, token = (np.array(one) for one in zip(*rows, strict=True))
        start = self.arrival.min() + np.arange(len(rows)) * seconds
        return {"start": start, "requests": requests, "ttft": mean, "ttft_p99": p99, "tpot": token}
