"""The requests that an instance decodes: how long steps take, from event to event in closed form.

Between two events every request stays and its context grows by the same number of tokens a step, so the load of rank r
in step k is a line in k and a stretch of m steps is an arithmetic series. Ranks in step go on as one where the same
rank is the busiest at both ends of the stretch: of lines, the highest at both ends is the highest between.
"""

import heapq
import math
from bisect import bisect_left

import numpy as np

from perfmodel.service.steps import DecodeStep

_TIE = 1e-14  # relative: two ranks that are as busy as each other but for rounding


class Running:
    """The batches of the ranks of one instance; steps are numbered from its start."""

    def __init__(self, step: DecodeStep, ranks: int, tokens_per_step: float) -> None:
        """Begin empty."""
        self.step, self.ranks, self.grows = step, ranks, tokens_per_step
        self.number = 0  # of requests
        self.now = 0  # number of the next step
        self.count = [0] * ranks
        self._base = [0.0] * ranks  # sum of contexts, each taken back to step 0
        self._table = [step.at(0)]
        #: load of each rank in step k is level + growth k, in seconds
        self.level = np.full(ranks, step.fixed)
        self.growth = np.zeros(ranks)
        self._one = (step.fixed, 0.0)
        self._ends: list[int] = []
        self._ending: dict[int, list[tuple[int, int, float]]] = {}
        # longest steps: stretches by number, each longer than all after it
        self._stretch = 0
        self._longest_at: list[int] = []
        self._longest: list[float] = []
        self._joined: dict[int, int] = {}

    def add(self, request: int, rank: int, context: float, steps: int) -> None:
        """Put a request on a rank from the next step on, for so many steps, the first behind so many tokens."""
        base = context - self.grows * self.now
        end = self.now + steps
        if end not in self._ending:
            self._ending[end] = []
            heapq.heappush(self._ends, end)
        self._ending[end].append((request, rank, base))
        self._joined[request] = self._stretch + 1  # its own first step is told from its first token
        self.number += 1
        self._change(rank, 1, base)

    def _change(self, rank: int, by: int, base: float) -> None:
        count = self.count[rank] = self.count[rank] + by
        total = self._base[rank] = self._base[rank] + by * base if count else 0.0
        while count >= len(self._table):
            self._table.append(self.step.at(len(self._table)))
        time, slope = self._table[count]
        level, growth = time + slope * total, slope * count * self.grows
        if self.ranks == 1:
            self._one = (level, growth)
        else:
            self.level[rank], self.growth[rank] = level, growth

    def finished(self) -> list[tuple[int, int, float]]:
        """Take out what ends before the next step: request, rank, and its longest step after its first."""
        found: list[tuple[int, int, float]] = []
        while self._ends and self._ends[0] <= self.now:
            for request, rank, base in self._ending.pop(heapq.heappop(self._ends)):
                self.number -= 1
                self._change(rank, -1, base)
                at = bisect_left(self._longest_at, self._joined.pop(request))
                found.append((request, rank, self._longest[at] if at < len(self._longest) else 0.0))
        return found

    def loads(self) -> list[float]:
        """Return the seconds of the next step as each rank alone would have it."""
        if self.ranks == 1:
            return [self._one[0] + self._one[1] * self.now]
        loads: list[float] = (self.level + self.growth * self.now).tolist()
        return loads

    def stretch(self) -> tuple[int, float, float]:
        """Return steps without an end or a change of the busiest rank, the seconds of the first and their growth."""
        steps = self._ends[0] - self.now
        if self.ranks == 1:
            level, growth = self._one
            return steps, level + growth * self.now, growth
        first = self.level + self.growth * self.now
        begins = int(first.argmax())
        longest = float(first[begins])
        while steps > 1:
            ends = int((first + self.growth * (steps - 1)).argmax())
            if ends == begins or first[ends] >= longest * (1 - _TIE):
                return steps, float(first[ends]), float(self.growth[ends])
            steps //= 2
        return steps, longest, float(self.growth[begins])

    def advance(self, steps: int, first: float, last: float) -> None:
        """Let so many steps pass, whose tokens come ``first`` seconds after those before, and at the end ``last``."""
        self.now += steps
        self._note(first)
        if steps > 1:
            self._note(last)

    def _note(self, longest: float) -> None:
        while self._longest and self._longest[-1] <= longest:
            self._longest.pop()
            self._longest_at.pop()
        self._longest.append(longest)
        self._longest_at.append(self._stretch)
        self._stretch += 1


def elapsed(steps: int, first: float, growth: float) -> float:
    """Return the seconds of so many steps, each longer than the last by ``growth``.

    >>> elapsed(3, 1.0, 0.5)
    4.5
    """
    return steps * (first + growth * (steps - 1) / 2)


def steps_until(seconds: float, first: float, growth: float) -> int:
    """Return the fewest steps, one at least, that take so many seconds or more.

    >>> steps_until(4.5, 1.0, 0.5), steps_until(4.6, 1.0, 0.5), steps_until(2.0, 1.0, 0.0)
    (3, 4, 2)
    """
    half = first - growth / 2
    steps = max(1, math.ceil(2 * seconds / (half + math.sqrt(half * half + 2 * growth * seconds))))
    while steps > 1 and elapsed(steps - 1, first, growth) >= seconds:
        steps -= 1
    while elapsed(steps, first, growth) < seconds:
        steps += 1
    return steps
