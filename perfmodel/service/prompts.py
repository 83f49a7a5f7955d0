"""What waits for prefill on one rank, and which of its tokens an instance has kept."""

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

from perfmodel.service.steps import PrefillStep


class PrefixCache:
    """Blocks of prompts that one instance keeps: least recently used dropped first."""

    def __init__(self, capacity: int, blocks: Sequence[Sequence[int]], block_tokens: int, isl: list[int]) -> None:
        """Keep at most ``capacity`` blocks of the prompts whose blocks are given."""
        self.capacity, self.blocks, self.block_tokens, self.isl = capacity, blocks, block_tokens, isl
        self.kept: OrderedDict[int, None] = OrderedDict()
        #: tokens of prompts, and of those the ones found
        self.asked = self.found = 0

    def lookup(self, request: int) -> int:
        """Return the leading tokens of a prompt that are there; the last token is always worked anew."""
        hits = 0
        for block in self.blocks[request]:
            if block not in self.kept:
                break
            self.kept.move_to_end(block)
            hits += 1
        found = min(hits * self.block_tokens, self.isl[request] - 1)
        self.asked += self.isl[request]
        self.found += found
        return found

    def keep(self, request: int) -> None:
        """Keep the blocks of a prompt that was worked; first blocks are dropped last."""
        for block in reversed(self.blocks[request]):
            self.kept[block] = None
            self.kept.move_to_end(block)
        while len(self.kept) > self.capacity:
            self.kept.popitem(last=False)


class Prompts:
    """The prompts of one rank in order; only the first may be worked in part."""

    __slots__ = ("cache", "done", "isl", "queue", "step", "waiting")

    def __init__(self, step: PrefillStep, isl: list[int], cache: PrefixCache | None) -> None:
        """Begin with none."""
        self.step, self.isl, self.cache = step, isl, cache
        self.queue: deque[int] = deque()
        #: tokens of the first that are worked; none if it was not begun
        self.done = -1
        #: seconds of work that wait, as if nothing were cached
        self.waiting = 0.0

    def put(self, request: int) -> None:
        """Queue a prompt."""
        self.queue.append(request)
        self.waiting += self.step.work(0, self.isl[request])

    def take(self, budget: int, most: int | None, admit: Callable[[int], bool] | None) -> tuple[int, float, list[int]]:
        """Return the tokens that are worked next, their seconds, and the prompts that they finish.

        At most ``budget`` tokens of ``most`` prompts; a prompt that may not be begun holds all behind it.
        """
        queue, isl, cache = self.queue, self.isl, self.cache
        token, pair = self.step.per_token, self.step.per_pair
        left, total, finished = budget, 0.0, []
        while queue and left > 0 and most != 0:
            request = queue[0]
            start = self.done
            if start < 0:
                if admit is not None and not admit(request):
                    break
                start = 0 if cache is None else cache.lookup(request)
                if start:
                    self.waiting -= self.step.work(0, start)
            length = isl[request]
            stop = length if length - start <= left else start + left
            work = (stop - start) * (token + pair * (stop + start))
            total += work
            self.waiting -= work
            left -= stop - start
            if stop < length:
                self.done = stop
                break
            queue.popleft()
            self.done = -1
            finished.append(request)
            if most is not None:
                most -= 1
        if not queue:
            self.waiting = 0.0
        return budget - left, total, finished
