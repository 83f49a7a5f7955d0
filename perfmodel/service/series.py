"""How a run went on: its time in equal windows, and what came, went, waited and ran in each."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perfmodel.service.results import Served

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of a run; times in s, rates in 1/s.  Waits are of requests that came in it; None where none did."""

    start: float
    rate_in: float
    rate_out: float
    running: float
    ttft_p50: float | None
    ttft_p99: float | None
    tpot: float | None


def windows_of(served: Served, count: int) -> list[Window]:
    """Return a run in so many equal windows from the first arrival to the last token; fewer where it took no time."""
    begin, end = float(served.arrival.min()), float(served.finish.max())
    edges = np.linspace(begin, end, count + 1) if end > begin else np.array([begin, begin + 1])
    at = np.clip(np.searchsorted(edges, served.arrival, side="right") - 1, 0, len(edges) - 2)
    left = np.sort(served.finish)
    ttft, tpot = served.ttft, served.tpot
    found = []
    for number, (start, stop) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        here = at == number
        seconds = float(stop - start)
        last = number == len(edges) - 2
        out = np.searchsorted(left, [start, stop], side="left") if number else [0, np.searchsorted(left, stop)]
        leaving = (len(left) if last else int(out[1])) - int(out[0])
        stay = np.clip(served.finish, start, stop) - np.clip(served.arrival, start, stop)
        found.append(
            Window(
                start=float(start) - begin,
                rate_in=int(here.sum()) / seconds,
                rate_out=leaving / seconds,
                running=float(stay.sum()) / seconds,
                ttft_p50=_percentile(ttft[here], 50),
                ttft_p99=_percentile(ttft[here], 99),
                tpot=_mean(tpot[here]),
            )
        )
    return found


def falls_behind(served: Served, share: float = 0.1) -> bool:
    """Return whether in the last third of the arrivals more came than went, by a share of what came.

    Runs whose arrivals last less than three services say nothing of it: they are filling.
    """
    begin, end = float(served.arrival.min()), float(served.arrival.max())
    begun = np.where(np.isnan(served.joined), served.queued, served.joined)
    if end - begin < 3 * float((served.finish - begun).mean()):
        return False
    late = begin + (end - begin) * 2 / 3
    came = int((served.arrival > late).sum())
    went = int(((served.finish > late) & (served.finish <= end)).sum())
    return went < (1 - share) * came


def stays(served: Served) -> float:
    """Return how many mean stays of a request the arrivals last."""
    return float(served.arrival.max() - served.arrival.min()) / float(served.e2e.mean())


def _percentile(values: Floats, level: float) -> float | None:
    return float(np.percentile(values, level)) if len(values) else None


def _mean(values: Floats) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None
