"""Which instance takes a request."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import cycle

from perfmodel.errors import UsageError
from perfmodel.service.records import Requests

_KNUTH = 2654435761  # spreads neighbouring hashes over all instances
_WORD = 32  # bits

Router = Callable[[int], int]


def telling_block(blocks: Sequence[Sequence[int]], instances: int) -> int:
    """Return the first block, from 1, that tells prompts apart: the commonest there is a smaller part than an instance.

    Prompts that begin alike, as by a prompt of the system, would else all go to one instance.

    >>> telling_block([[7, 1], [7, 2], [7, 3]], 2)
    2
    """
    known = [own for own in blocks if len(own)]
    longest = max(map(len, known), default=1)
    for at in range(1, longest):
        counts = Counter(own[min(at, len(own)) - 1] for own in known)
        if counts.most_common(1)[0][1] * instances <= len(known):
            return at
    return longest


def router(
    name: str, instances: int, load: list[float], requests: Requests, seed: int, affinity_block: int = 1
) -> Router:
    """Return what says the instance of a request by its number; ``load`` is what each has, kept up by the pool."""
    if instances == 1:
        return lambda _: 0
    match name:
        case "round_robin":
            turn = cycle(range(instances))
            return lambda _: next(turn)
        case "random":
            draw = random.Random(seed)
            return lambda _: int(draw.random() * instances)
        case "least_work" | "least_requests":
            return lambda _: load.index(min(load))
        case "prefix_affinity":
            blocks = requests.blocks
            if blocks is None:
                raise UsageError("routing: prefix_affinity needs the blocks of the prompts, and none are given")

            def home(request: int) -> int:
                own = blocks[request]
                # of a prompt without blocks, its number
                key = int(own[min(affinity_block, len(own)) - 1]) if len(own) else request
                return (key * _KNUTH % (1 << _WORD) * instances) >> _WORD

            return home
    raise UsageError(f"routing: {name!r}; allowed: round_robin, random, least_work, least_requests, prefix_affinity")
