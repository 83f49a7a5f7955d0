"""Requests through a service, event by event: when each is answered.

An event is the end of a step, or of a stretch of steps in which nothing changes. Step times come from outside, so that
this is no second model of a machine: it holds closed forms of waiting to account, and stands in where they are out of
range. Left out: preemption (a request holds the cache of its whole answer from the start), faults, drafts' luck.
"""

import heapq
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import UsageError
from perfmodel.service.arrivals import ClosedLoop
from perfmodel.service.decode_pool import DecodeInstance
from perfmodel.service.log import Level, Log
from perfmodel.service.mixed_pool import MixedInstance
from perfmodel.service.prefill_pool import Prefill, caches_of
from perfmodel.service.prompts import PrefixCache
from perfmodel.service.records import Requests, Service
from perfmodel.service.results import Part, Served
from perfmodel.service.routing import router
from perfmodel.service.way import Doors, Links

# kinds of event; at one moment in this order: what ends, what comes, what begins
_PREFILLED, _ARRIVED, _SENT, _START, _BOUNDARY = range(5)


def replay(requests: Requests, service: Service, seed: int = 0) -> Served:
    """Return when a service answers each request; the seed is of random routing.

    Of equal prompts in a pool whose step is 0.1 s and 0.1 s a prompt, the second waits for the first:

    >>> from perfmodel.service.records import PrefillPool
    >>> from perfmodel.service.steps import PrefillStep
    >>> pool = PrefillPool(step=PrefillStep(fixed=0.1, per_token=1e-4))
    >>> served = replay(Requests.of(1000, 1, [0.0, 0.05]), Service(prefill=pool))
    >>> served.ttft.round(3).tolist()
    [0.2, 0.35]
    """
    _check(requests, service)
    run = _Run(requests, service, seed)
    run.go()
    return run.served()


def _check(requests: Requests, service: Service) -> None:
    if not requests.count:
        raise UsageError("requests: none; give one or more")
    faults = []
    if isinstance(requests.arrivals, ClosedLoop) and requests.arrivals.clients < 1:
        faults.append(f"clients: {requests.arrivals.clients}; allowed: 1 or more")
    if (service.mixed is None) == (service.prefill is None and service.decode is None):
        faults.append("service: give mixed instances, or prefill, decode or both")
    batching = service.mixed or service.decode
    most = int((requests.isl + requests.osl).max())
    if batching is not None and batching.cache_tokens is not None and most > batching.cache_tokens:
        faults.append(f"cache_tokens: {batching.cache_tokens:,}; a request has {most:,} tokens, so give as many")
    if any(
        pool is not None and min(pool.instances, pool.ranks) < 1
        for pool in (service.prefill, service.decode, service.mixed)
    ):
        faults.append("service: a pool without instances or ranks; allowed: 1 or more of each")
    if any(pool is not None and pool.budget < 1 for pool in (service.prefill, service.mixed)):
        faults.append("budget: below 1 token a step; allowed: 1 or more")
    if batching is not None and batching.slots is not None and batching.slots < 1:
        faults.append(f"slots: {batching.slots}; allowed: 1 or more")
    if faults:
        raise UsageError("\n".join(faults))


class _Run:
    """One run: its pools, what is yet to happen, and what is noted."""

    def __init__(self, requests: Requests, service: Service, seed: int) -> None:
        self.requests, self.service = requests, service
        self.log = Log(requests)
        self.events: list[tuple[float, int, int]] = []
        self.doors = Doors(service.front_end)
        self.prefill = None if service.prefill is None else Prefill(service.prefill, requests, self.log.isl, seed)
        self.links = Links(service.transfer, 1 if service.prefill is None else service.prefill.instances)
        self.caches: Sequence[PrefixCache | None] = () if self.prefill is None else self.prefill.caches
        self.batching: list[DecodeInstance] | list[MixedInstance] = self._batching()
        pool = service.mixed or service.decode
        self.load = [0.0] * len(self.batching)  # requests of each instance
        self.planned = [math.inf] * len(self.batching)
        routing = "random" if pool is None else pool.routing
        block = 1 if service.mixed is None else service.mixed.affinity_block
        self.route = router(routing, len(self.load) or 1, self.load, requests, seed, block)
        self.levels = {"prefill": Level(), "decode": Level(), "service": Level()}
        self.loop = requests.arrivals if isinstance(requests.arrivals, ClosedLoop) else None
        self.sent = 0  # requests that clients have sent
        self.turns = np.zeros(0)  # the earliest that a closed loop sends each

    def _batching(self) -> list[DecodeInstance] | list[MixedInstance]:
        service, log = self.service, self.log
        pool = service.mixed or service.decode
        reserved = 1.0 if pool is None else pool.reserved
        needs = (self.requests.isl + np.ceil(self.requests.osl * reserved).astype(np.int64)).tolist()
        if service.mixed is not None:
            self.caches = [
                caches_of(service.mixed.cache_blocks, self.requests, log.isl) for _ in range(service.mixed.instances)
            ]
            return [MixedInstance(service.mixed, log, needs, cache) for cache in self.caches]
        if service.decode is None:
            return []
        first = service.first_token_from == "decode" or service.prefill is None
        return [DecodeInstance(service.decode, log, needs, first) for _ in range(service.decode.instances)]

    def go(self) -> None:
        """Let everything happen, in order of time."""
        handlers = (self._prefilled, self._arrived, self._decode, self._start, self._boundary)
        events, pop = self.events, heapq.heappop
        ready = self._open()
        count, here = len(ready), 0
        while events or here < count:
            if here < count and (not events or ready[here] <= events[0][0]):
                self._arrived(ready[here], here)
                here += 1
            else:
                now, kind, number = pop(events)
                handlers[kind](now, number)

    def _open(self) -> list[float]:
        """Return when requests pass the front ends, of a closed loop its first wave."""
        arrivals = self.requests.arrivals
        if isinstance(arrivals, ClosedLoop):
            self.turns = arrivals.turns(self.requests.count)
            times = self.turns[: arrivals.clients]
        else:
            times = arrivals
        ready = []
        for request, now in enumerate(times.tolist()):
            self.log.arrival[request] = now
            ready.append(self.doors.through(now))
        self.sent = len(ready)
        self.begin = float(times[0])
        for level in self.levels.values():
            level.last = self.begin
        return ready

    def _arrived(self, now: float, request: int) -> None:
        self.log.queued[request] = now
        self.levels["service"].change(now, 1)
        if self.prefill is None:
            self._decode(now, request)
            return
        self.levels["prefill"].change(now, 1)
        woken = self.prefill.arrive(request)
        if woken is not None:
            heapq.heappush(self.events, (now, _START, woken))

    def _start(self, now: float, number: int) -> None:
        assert self.prefill is not None
        seconds = self.prefill.instances[number].start()
        if seconds is not None:
            heapq.heappush(self.events, (now + seconds, _PREFILLED, number))

    def _prefilled(self, now: float, number: int) -> None:
        assert self.prefill is not None
        log, ends_here = self.log, not self.batching
        heapq.heappush(self.events, (now, _START, number))
        finished = self.prefill.end(number)
        if not finished:
            return
        self.levels["prefill"].change(now, -len(finished))
        early = self.service.first_token_from == "prefill" or ends_here
        for request in finished:
            log.prefilled[request] = now
            log.instance[request] = number
            if early:
                log.first[request] = now
            if ends_here or (early and log.osl[request] == 1):
                log.finish[request] = now
                self._leave(now)
            else:
                heapq.heappush(self.events, (self.links.sent(now, number, log.isl[request]), _SENT, request))

    def _decode(self, now: float, request: int) -> None:
        self.levels["decode"].change(now, 1)
        self.log.sent[request] = now
        number = self.route(request)
        if self.prefill is None:
            self.log.instance[request] = number
        self.load[number] += 1
        instance = self.batching[number]
        instance.arrive(now, request)
        self._plan(number, instance.next)

    def _plan(self, number: int, when: float) -> None:
        if when != self.planned[number]:
            self.planned[number] = when
            if when < math.inf:
                heapq.heappush(self.events, (when, _BOUNDARY, number))

    def _boundary(self, now: float, number: int) -> None:
        if now != self.planned[number]:
            return  # a request came between, and the stretch ends earlier
        instance = self.batching[number]
        left = instance.boundary(now)
        self.planned[number] = math.nan
        self._plan(number, instance.next)
        if left:
            self.levels["decode"].change(now, -len(left))
            self.load[number] -= len(left)
            for _ in left:
                self._leave(now)

    def _leave(self, now: float) -> None:
        """Let a request go, and its client send the next."""
        self.levels["service"].change(now, -1)
        if self.loop is None or self.sent >= self.requests.count:
            return
        request = self.sent
        self.sent += 1
        arrival = self.log.arrival[request] = max(now + self.loop.delay, float(self.turns[request]))
        heapq.heappush(self.events, (self.doors.through(arrival), _ARRIVED, request))

    def served(self) -> Served:
        """Return all that was noted, as arrays."""
        log = self.log
        names = ("arrival", "queued", "prefilled", "sent", "joined", "first", "finish", "longest", "stepped")
        noted = {name: np.array(getattr(log, name)) for name in names}
        gap = noted.pop("stepped") - noted["first"]
        noted["longest"] = np.fmax(noted["longest"], gap)
        asked = sum(cache.asked for cache in self.caches if cache is not None)
        found = sum(cache.found for cache in self.caches if cache is not None)
        parts = self._parts(noted)
        return Served(
            service=self.service,
            isl=self.requests.isl,
            osl=self.requests.osl,
            instance=np.array(log.instance),
            parts=parts,
            found=found / asked if asked else 0.0,
            **noted,
        )

    def _parts(self, noted: dict[str, NDArray[np.float64]]) -> dict[str, Part]:
        """Return each pool, and all from the front ends on, over the time of the run."""
        span = float(noted["finish"].max()) - self.begin
        stays = {
            "prefill": noted["prefilled"] - noted["queued"],
            "decode": noted["finish"] - noted.pop("sent"),
            "service": noted["finish"] - noted["queued"],
        }
        pools = {"prefill": [] if self.prefill is None else self.prefill.instances, "decode": self.batching}
        parts = {}
        for name, level in self.levels.items():
            instances = pools.get(name)
            if instances == []:
                continue
            parts[name] = Part(
                mean_inside=level.area / span,
                rate_times_stay=float(np.nansum(stays[name])) / span,
                utilisation=sum(one.busy_seconds for one in instances) / span / len(instances)
                if instances
                else math.nan,
                steps=sum(one.steps_done for one in instances or ()),
            )
        return parts
