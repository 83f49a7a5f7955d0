"""Instances that decode, alone or with prompts between: who is let in, which steps run and when one ends."""

import math
from collections import deque

from perfmodel.service.log import Log
from perfmodel.service.records import DecodePool, MixedPool
from perfmodel.service.running import Running, elapsed, steps_until

IDLE = math.inf


class Places:
    """Slots and cache of the ranks of an instance."""

    def __init__(self, pool: DecodePool | MixedPool, needs: list[int]) -> None:
        """Begin empty; ``needs`` are the tokens that each request fills at its end."""
        self.needs, self.in_turn = needs, pool.placing == "in_turn"
        self.slots = IDLE if pool.slots is None else pool.slots
        self.tokens = IDLE if pool.cache_tokens is None else pool.cache_tokens
        self.held = [0] * pool.ranks
        self.used = [0] * pool.ranks
        self.last = -1
        self.number = 0

    def room(self, rank: int, request: int) -> bool:
        """Return whether a rank can take a request now."""
        return self.held[rank] < self.slots and self.used[rank] + self.needs[request] <= self.tokens

    def find(self, request: int) -> int:
        """Return the rank that takes a request, of those with room; -1 where none has."""
        if self.in_turn:
            ranks = len(self.held)
            turn = ((self.last + 1 + n) % ranks for n in range(ranks))
            rank = next((one for one in turn if self.room(one, request)), -1)
            self.last = self.last if rank < 0 else rank
            return rank
        rank = self.held.index(min(self.held))
        if self.room(rank, request):
            return rank
        able = [(held, one) for one, held in enumerate(self.held) if self.room(one, request)]
        return min(able)[1] if able else -1

    def hold(self, rank: int, request: int) -> None:
        """Give a request its slot and its tokens."""
        self.held[rank] += 1
        self.used[rank] += self.needs[request]

    def free(self, rank: int, request: int) -> None:
        """Take them back."""
        self.held[rank] -= 1
        self.used[rank] -= self.needs[request]


class DecodeInstance:
    """Requests that come with their cache ready; they join and leave between steps."""

    def __init__(self, pool: DecodePool, log: Log, needs: list[int], first_from_decode: bool) -> None:
        """Begin idle."""
        self.log, self.tokens_per_step = log, pool.tokens_per_step
        self.running = Running(pool.step, pool.ranks, pool.tokens_per_step)
        self.places = Places(pool, needs)
        self.waiting: deque[int] = deque()
        self.first_from_decode = first_from_decode
        #: when the running stretch began, when it ends and of how many steps it is
        self.since, self.next, self.steps = 0.0, IDLE, 0
        self.first = self.growth = 0.0
        self.busy_seconds = 0.0
        self.steps_done = 0

    def arrive(self, now: float, request: int) -> None:
        """Let a request wait for the end of the step that runs."""
        if self.next == IDLE:
            self.since = self.next = now
            self.steps = 0
        elif not self.waiting and self.steps > 1:
            steps = steps_until(now - self.since, self.first, self.growth)
            if steps < self.steps:
                self.steps, self.next = steps, self.since + elapsed(steps, self.first, self.growth)
        self.waiting.append(request)

    def boundary(self, now: float) -> list[int]:
        """End the stretch: let requests leave and join, begin the next, and return those that left."""
        running, log = self.running, self.log
        left = []
        if self.steps:
            running.advance(self.steps, self.first, self.first + self.growth * (self.steps - 1))
            self.busy_seconds += now - self.since
            self.steps_done += self.steps
            for request, rank, longest in running.finished():
                self.places.free(rank, request)
                log.leave(request, now, longest)
                left.append(request)
        joined = self._join(now)
        self.since = now
        if not running.number:
            self.next, self.steps = IDLE, 0
            return left
        self.steps, self.first, self.growth = running.stretch()
        self.next = now + elapsed(self.steps, self.first, self.growth)
        for request in joined:
            log.stepped[request] = now + self.first
            if self.first_from_decode:
                log.first[request] = now + self.first
        return left

    def _join(self, now: float) -> list[int]:
        joined = []
        log, extra = self.log, 0 if self.first_from_decode else 1
        while self.waiting:
            request = self.waiting[0]
            rank = self.places.find(request)
            if rank < 0:
                break
            self.waiting.popleft()
            self.places.hold(rank, request)
            steps = max(1, math.ceil((log.osl[request] - extra) / self.tokens_per_step))
            self.running.add(request, rank, log.isl[request] + extra, steps)
            log.joined[request] = now
            joined.append(request)
        return joined
