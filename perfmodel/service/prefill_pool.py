"""Instances that run prefill alone: what waits, which step runs and when it ends."""

from collections import deque
from itertools import cycle

from perfmodel.service.prompts import PrefixCache, Prompts
from perfmodel.service.records import PrefillPool, Requests
from perfmodel.service.routing import router


class PrefillInstance:
    """Ranks in step: each step works on every rank what waits there, as long as the busiest takes."""

    def __init__(self, pool: PrefillPool, isl: list[int], cache: PrefixCache | None, shared: deque[int] | None) -> None:
        """Begin idle."""
        self.pool, self.isl, self.cache, self.shared = pool, isl, cache, shared
        self.ranks = [Prompts(pool.step, isl, cache) for _ in range(pool.ranks)]
        self.turn = cycle(range(pool.ranks))
        #: work that the running step has of each rank
        self.running = [0.0] * pool.ranks
        self.finishing: list[int] = []
        #: whether a step runs, or is about to
        self.busy = False
        self.busy_seconds = 0.0
        self.steps_done = 0

    def put(self, request: int) -> None:
        """Queue a prompt on one of the ranks."""
        self.ranks[self._rank()].put(request)

    def _rank(self) -> int:
        if len(self.ranks) == 1:
            return 0
        if self.pool.rank_choice == "in_turn":
            return next(self.turn)
        loads = [rank.waiting for rank in self.ranks]
        if self.pool.rank_choice == "outstanding":
            loads = [load + run for load, run in zip(loads, self.running, strict=True)]
        return loads.index(min(loads))

    def _pull(self, shared: deque[int]) -> None:
        """Take of the queue that all instances share what a step can have."""
        most = self.pool.prompts
        room = self.pool.ranks * self.pool.budget - sum(self.isl[one] for rank in self.ranks for one in rank.queue)
        slots = None if most is None else self.pool.ranks * most - sum(len(rank.queue) for rank in self.ranks)
        while shared and room > 0 and (slots is None or slots > 0):
            request = shared.popleft()
            self.put(request)
            room -= self.isl[request]
            slots = None if slots is None else slots - 1

    def start(self) -> float | None:
        """Begin a step with what waits and return its seconds; none where nothing does."""
        if self.shared:
            self._pull(self.shared)
        longest, running, finishing, any_work = 0.0, self.running, self.finishing, False
        budget, most = self.pool.budget, self.pool.prompts
        for number, rank in enumerate(self.ranks):
            if not rank.queue:
                running[number] = 0.0
                continue
            _, work, done = rank.take(budget, most, None)
            any_work = True
            running[number] = work
            finishing += done
            longest = max(longest, work)
        self.busy = any_work
        if not any_work:
            return None
        seconds = self.pool.step.fixed + longest
        self.busy_seconds += seconds
        self.steps_done += 1
        return seconds

    def end(self) -> list[int]:
        """End the step and return the prompts that are finished."""
        finished, self.finishing = self.finishing, []
        if self.cache is not None:
            for request in finished:
                self.cache.keep(request)
        return finished


class Prefill:
    """All instances of a prefill pool."""

    def __init__(self, pool: PrefillPool, requests: Requests, isl: list[int], seed: int) -> None:
        """Begin idle."""
        self.shared: deque[int] | None = deque() if pool.routing == "shared" else None
        self.caches = [caches_of(pool.cache_blocks, requests, isl) for _ in range(pool.instances)]
        self.instances = [PrefillInstance(pool, isl, cache, self.shared) for cache in self.caches]
        #: seconds of work that each instance has before it, what runs included: known when a step ends
        self.outstanding = [0.0] * pool.instances
        routing = "round_robin" if self.shared is not None else pool.routing
        self.route = router(routing, pool.instances, self.outstanding, requests, seed, pool.affinity_block)
        self.counts = pool.routing == "least_work"
        self.step, self.isl = pool.step, isl

    def arrive(self, request: int) -> int | None:
        """Queue a prompt and return the idle instance that it wakes, if it does."""
        if self.shared is not None:
            self.shared.append(request)
            chosen = next((n for n, one in enumerate(self.instances) if not one.busy), None)
            if chosen is None:
                return None
        else:
            chosen = self.route(request)
            self.instances[chosen].put(request)
            if self.counts:
                self.outstanding[chosen] += self.step.work(0, self.isl[request])
        instance = self.instances[chosen]
        if instance.busy:
            return None
        instance.busy = True
        return chosen

    def end(self, number: int) -> list[int]:
        """End the step of an instance and return the prompts that are finished."""
        instance = self.instances[number]
        finished = instance.end()
        if self.counts:
            for request in finished:
                self.outstanding[number] -= self.step.work(0, self.isl[request])
        return finished


def caches_of(capacity: int, requests: Requests, isl: list[int]) -> PrefixCache | None:
    """Return an empty cache of so many blocks; none where there are no blocks to keep or to know."""
    if not capacity or requests.blocks is None:
        return None
    return PrefixCache(capacity, requests.blocks, requests.block_tokens, isl)
