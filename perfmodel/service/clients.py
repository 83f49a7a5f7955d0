"""What clients measure of a service: mean and percentiles of their waits, and how these move with its steps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from perfmodel.service.records import Requests, Service
from perfmodel.service.replay import replay
from perfmodel.service.results import Served
from perfmodel.service.steps import DecodeStep, PrefillStep
from perfmodel.specs.evidence import RATE, RATES
from perfmodel.specs.run import PERCENTILES

Values = NDArray[np.float64]

STEP = 0.05  # by which steps are made longer, to see what that does to the waits
#: by which they are made shorter and longer where waits grow out of proportion, as those of a pool near its capacity
FAR = (0.7, 1.4)
PARTS = ("prefill", "decode", "path")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClientView:
    """A run as its clients see it; times in seconds."""

    served: Served
    #: ``ttft``, ``tpot``, ``itl_max``, ``e2e``, each as a mean and as ``_p50``, ``_p90``, ``_p99``; ``requests_per_s``
    values: Mapping[str, float]
    #: quantity -> part of the service -> logarithms of factors on the part's time, and of the quantity over its value
    responses: Mapping[str, Mapping[str, tuple[Values, Values]]] = field(default_factory=dict)

    @property
    def running(self) -> float:
        """Mean number of requests that are in prefill, in decode or wait for them."""
        return self.served.parts["service"].mean_inside

    @property
    def utilisation(self) -> float:
        """Part of the time that an instance of the busier pool runs a step."""
        known = [part.utilisation for name, part in self.served.parts.items() if name != "service"]
        return max(one for one in known if one == one)

    @property
    def elasticities(self) -> dict[str, dict[str, float]]:
        """Quantity -> part of the service -> relative change of the quantity over that of the part's time."""
        return {
            name: {part: _slope(*response) for part, response in parts.items()}
            for name, parts in self.responses.items()
        }

    def times(self, quantity: str, by: Mapping[str, Values]) -> Values:
        """Return samples of the time of a quantity over its value, those of a rate one over it; as ``moved``."""
        moved = self.moved("requests_per_s" if quantity == RATE else quantity, by)
        return 1 / moved if quantity in RATES else moved

    def moved(self, quantity: str, by: Mapping[str, Values]) -> Values:
        r"""Return samples of a quantity over its value, given those of the parts' times over theirs.

        .. math:: \prod_i f_i(r_i)

        Power laws between neighbouring replays, and beyond the last.  Errs where parts act on each other, or one moves
        so far that another comes to decide.
        """
        known = self.responses[quantity]
        logarithm = sum(_along(*known[part], np.log(samples)) for part, samples in by.items())
        found: Values = np.exp(logarithm)
        return found


def clients_view(service: Service, requests: Requests, seed: int = 0) -> ClientView:
    """Return what clients measure of a service."""
    served = replay(requests, service, seed)
    return ClientView(served=served, values=quantities_of(served))


def with_responses(
    view: ClientView, service: Service, requests: Requests, factors: Sequence[float] = (1 + STEP,), seed: int = 0
) -> ClientView:
    """Return the view of a service with how it moves with each part, replayed again with factors on the part's time."""
    at = np.log(sorted({1.0, *factors}))
    moved = {
        part: [
            view.values if one == 0 else quantities_of(replay(requests, longer(service, float(np.exp(one))), seed))
            for one in at
        ]
        for part, longer in _longer.items()
    }
    responses = {
        name: {part: (at, np.log([one[name] / value for one in moved[part]])) for part in PARTS}
        for name, value in view.values.items()
        if value > 0
    }
    return replace(view, responses=responses)


def _slope(at: Values, moves: Values) -> float:
    """Return the slope of a response beside no change, to the longer side where it was replayed."""
    here = int(np.flatnonzero(at == 0)[0])
    beside = here + 1 if here + 1 < len(at) else here - 1
    return float(moves[beside] / at[beside])


def _along(at: Values, moves: Values, wanted: Values) -> Values:
    """Return the logarithm of a response between points, and beyond them along the last two."""
    place = np.clip(np.searchsorted(at, wanted), 1, len(at) - 1)
    slope = (moves[place] - moves[place - 1]) / (at[place] - at[place - 1])
    found: Values = moves[place] + slope * (wanted - at[place])
    return found


def quantities_of(served: Served) -> dict[str, float]:
    """Return what a client's benchmark prints of a run."""
    found = {"requests_per_s": served.rate}
    for name, values in (
        ("ttft", served.ttft),
        ("tpot", served.tpot),
        ("itl_max", served.longest),
        ("e2e", served.e2e),
    ):
        known = values[~np.isnan(values)]
        if not len(known):
            continue  # of one token there is no time between two
        found[name] = float(known.mean())
        ends = np.percentile(known, [int(word[1:]) for word in PERCENTILES]).tolist()
        found |= {f"{name}_{word}": end for word, end in zip(PERCENTILES, ends, strict=True)}
    return found


def _prefill(step: PrefillStep, factor: float) -> PrefillStep:
    return replace(step, fixed=step.fixed * factor, per_token=step.per_token * factor, per_pair=step.per_pair * factor)


def _decode(step: DecodeStep, factor: float) -> DecodeStep:
    times, slopes = (tuple(one * factor for one in ones) for ones in (step.times, step.slopes))
    return replace(step, times=times, slopes=slopes)


def _longer_prefill(service: Service, factor: float) -> Service:
    if service.mixed is not None:
        return replace(service, mixed=replace(service.mixed, prefill=_prefill(service.mixed.prefill, factor)))
    if service.prefill is not None:
        return replace(service, prefill=replace(service.prefill, step=_prefill(service.prefill.step, factor)))
    return service


def _longer_decode(service: Service, factor: float) -> Service:
    if service.mixed is not None:
        return replace(service, mixed=replace(service.mixed, decode=_decode(service.mixed.decode, factor)))
    if service.decode is not None:
        return replace(service, decode=replace(service.decode, step=_decode(service.decode.step, factor)))
    return service


def _longer_path(service: Service, factor: float) -> Service:
    return replace(service, front_end=replace(service.front_end, delay=service.front_end.delay * factor))


_longer: Mapping[str, Callable[[Service, float], Service]] = {
    "prefill": _longer_prefill,
    "decode": _longer_decode,
    "path": _longer_path,
}
