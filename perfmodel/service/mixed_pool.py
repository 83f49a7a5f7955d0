"""Instances that run both phases on the same dies: prompts in pieces beside decode, or before it."""

import math

from perfmodel.service.decode_pool import IDLE, Places
from perfmodel.service.log import Log
from perfmodel.service.prompts import PrefixCache, Prompts
from perfmodel.service.records import MixedPool
from perfmodel.service.running import Running, elapsed, steps_until


class MixedInstance:
    """Ranks in step, each with prompts that wait and requests that decode."""

    def __init__(self, pool: MixedPool, log: Log, needs: list[int], cache: PrefixCache | None) -> None:
        """Begin idle."""
        self.pool, self.log, self.cache = pool, log, cache
        self.running = Running(pool.decode, pool.ranks, pool.tokens_per_step)
        self.places = Places(pool, needs)
        self.prompts = [Prompts(pool.prefill, log.isl, cache) for _ in range(pool.ranks)]
        self.chunked = pool.mode == "chunked"
        self.assigned = [0] * pool.ranks  # requests of each rank, waiting ones included
        self.turn = -1
        self.fixed = max(pool.prefill.fixed, pool.decode.fixed) if self.chunked else pool.prefill.fixed
        #: the running stretch: when it began and ends, its steps, and the prompts that end with it
        self.since, self.next, self.steps = 0.0, IDLE, 0
        self.first = self.growth = 0.0
        self.decoding = False
        self.ending: list[tuple[int, int]] = []
        self.busy_seconds = 0.0
        self.steps_done = 0

    def _rank(self) -> int:
        if self.pool.placing == "in_turn":
            self.turn = (self.turn + 1) % self.pool.ranks
            return self.turn
        return self.assigned.index(min(self.assigned))

    def arrive(self, now: float, request: int) -> None:
        """Queue a prompt on a rank; it is begun when the step that runs has ended."""
        rank = self._rank()
        self.assigned[rank] += 1
        self.prompts[rank].put(request)
        if self.next == IDLE:
            self.since = self.next = now
            self.steps = 0
        elif len(self.prompts[rank].queue) == 1 and self.steps > 1:
            steps = steps_until(now - self.since, self.first, self.growth)
            if steps < self.steps:
                self.steps, self.next = steps, self.since + elapsed(steps, self.first, self.growth)

    def boundary(self, now: float) -> list[int]:
        """End the stretch: let requests leave and prompts go on to decode, begin the next, return those that left."""
        left = self._end(now) if self.steps else []
        self.since = now
        work, any_work = self._fill(now)
        if any_work:
            loads = self.running.loads() if self.chunked else [0.0] * self.pool.ranks
            spare = self.pool.decode.fixed if self.chunked else 0.0
            longest = max(load - spare + seconds for load, seconds in zip(loads, work, strict=True))
            self.steps, self.first, self.growth = 1, self.fixed + longest, 0.0
            self.decoding = self.chunked
        elif self.running.number:
            self.steps, self.first, self.growth = self.running.stretch()
            self.decoding = True
        else:
            self.next, self.steps = IDLE, 0
            return left
        self.next = now + elapsed(self.steps, self.first, self.growth)
        return left

    def _end(self, now: float) -> list[int]:
        running, log = self.running, self.log
        left = []
        self.busy_seconds += now - self.since
        self.steps_done += self.steps
        running.advance(self.steps if self.decoding else 0, self.first + self.growth * (self.steps - 1))
        for request, rank, longest in running.finished() if self.decoding else ():
            self._leave(request, rank, now, longest)
            left.append(request)
        for request, rank in self.ending:
            log.first[request] = log.prefilled[request] = now
            if self.cache is not None:
                self.cache.keep(request)
            steps = math.ceil((log.osl[request] - 1) / self.pool.tokens_per_step)
            if steps:
                running.add(request, rank, log.isl[request] + 1, steps)
            else:
                self._leave(request, rank, now, 0.0)
                left.append(request)
        self.ending = []
        return left

    def _leave(self, request: int, rank: int, now: float, longest: float) -> None:
        self.places.free(rank, request)
        self.assigned[rank] -= 1
        self.log.leave(request, now, longest)

    def _fill(self, now: float) -> tuple[list[float], bool]:
        """Return the seconds of prompts that each rank works next, and whether any does."""
        work, any_work = [0.0] * self.pool.ranks, False
        for rank, prompts in enumerate(self.prompts):
            if not prompts.queue:
                continue
            budget = self.pool.budget - (self.running.count[rank] if self.chunked else 0)
            begun = prompts.done
            head = prompts.queue[0]
            seconds, finished = prompts.take(budget, None, lambda one, rank=rank: self._admit(rank, one, now))
            work[rank] = seconds
            any_work = any_work or bool(finished) or (prompts.queue[0] if prompts.queue else -1, prompts.done) != (
                head,
                begun,
            )
            self.ending += [(request, rank) for request in finished]
        return work, any_work

    def _admit(self, rank: int, request: int, now: float) -> bool:
        if not self.places.room(rank, request):
            return False
        self.places.hold(rank, request)
        self.log.joined[request] = now
        return True
