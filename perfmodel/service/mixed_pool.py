"""Instances that run both phases on the same dies: prompts in pieces beside decode, or before it."""

import math
from functools import partial

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
        #: requests whose first decode step is to come, and the seconds of prompts alone since the last decode step
        self.fresh: list[int] = []
        self.pause = 0.0
        self.patience = pool.align_steps if pool.ranks > 1 else 0  # steps that prompts still wait for other ranks
        self.waits = False
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
                self.patience += self.steps - steps if self.waits else 0
                self.steps, self.next = steps, self.since + elapsed(steps, self.first, self.growth)

    def boundary(self, now: float) -> list[int]:
        """End the stretch: let requests leave and prompts go on to decode, begin the next, return those that left."""
        left = self._end(now) if self.steps else []
        self.since = now
        held = self.waits = self._holds()
        work, any_work = ([0.0], False) if held else self._fill(now)
        if any_work:
            self.patience = self.pool.align_steps if self.pool.ranks > 1 else 0
            loads = self.running.loads() if self.chunked else [0.0] * self.pool.ranks
            spare = self.pool.decode.fixed if self.chunked else 0.0
            longest = max(load - spare + seconds for load, seconds in zip(loads, work, strict=True))
            self.steps, self.first, self.growth = 1, self.fixed + longest, 0.0
            self.decoding = self.chunked
        elif self.running.number:
            self.steps, self.first, self.growth = self.running.stretch()
            self.decoding = True
            if held:
                self.steps = min(self.steps, self.patience)
                self.patience -= self.steps
        else:
            self.next, self.steps = IDLE, 0
            return left
        self.next = now + elapsed(self.steps, self.first, self.growth)
        if self.decoding:
            for request in self.fresh:
                self.log.stepped[request] = now + self.first
            self.fresh = []
        return left

    def _holds(self) -> bool:
        """Return whether prompts wait for ranks that have none; never while nothing decodes."""
        if not self.patience or not self.running.number:
            return False
        waiting = sum(bool(prompts.queue) for prompts in self.prompts)
        return 0 < waiting < self.pool.ranks

    def _end(self, now: float) -> list[int]:
        running, log = self.running, self.log
        left = []
        self.busy_seconds += now - self.since
        self.steps_done += self.steps
        if self.decoding:
            running.advance(self.steps, self.pause + self.first, self.first + self.growth * (self.steps - 1))
            self.pause = 0.0
        else:
            self.pause += self.first
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
                self.fresh.append(request)
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
        work, tokens = [0.0] * self.pool.ranks, 0
        for rank, prompts in enumerate(self.prompts):
            if not prompts.queue:
                continue
            budget = self.pool.budget - (self.running.count[rank] if self.chunked else 0)
            taken, seconds, finished = prompts.take(budget, None, partial(self._admit, rank, now))
            work[rank] = seconds
            tokens += taken
            self.ending += [(request, rank) for request in finished]
        return work, tokens > 0

    def _admit(self, rank: int, now: float, request: int) -> bool:
        if not self.places.room(rank, request):
            return False
        self.places.hold(rank, request)
        self.log.joined[request] = now
        return True
