"""How much of prompts stands in a prefix cache of any size: least recently used blocks leave first."""

from typing import TYPE_CHECKING

from perfmodel.specs.workload import Blocks, HitCurve

if TYPE_CHECKING:
    from perfmodel.specs.workload import Ints


def hit_curve(
    *,
    blocks: Blocks,
    lengths: "Ints",
    block_tokens: int,
    merge: int = 1,
    linear: float = 1.0,
    quadratic: float = 0.0,
) -> HitCurve:
    r"""Return the share of prefill work that a prefix cache of any size saves; by default, of prompt tokens.

    A prompt of l tokens is work :math:`b\,l + c\,l^2`; where its first h are found, :math:`b\,h + c\,h^2` are saved.
    A block is found in a pool of n where fewer than n others were used since its last use, and all blocks before it
    are found.  A prompt looks all its blocks up as it comes, then uses them from its last to its first, as engines free
    them: the ends of prompts leave first.  One pool serves all; a prompt's own cache is there for the next at once,
    which errs high; a last block that is not full counts where its id is found.

    In :math:`O(n \log n)` for all sizes at once.  Source: stack distances of LRU, R. L. Mattson and others, Evaluation
    techniques for storage hierarchies, IBM Systems Journal 9 (1970).
    """
    import numpy as np

    ids, offsets, size = _chained(blocks), blocks.offsets, block_tokens
    while merge > 1:
        ids, offsets = _in_pairs(ids, offsets)
        merge, size = merge // 2, size * 2
    counts = np.diff(offsets)
    request = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(ids)) - offsets[:-1][request]
    never = len(ids) + 1
    distance = _distances(ids, offsets, request, place)
    deepest = np.maximum.accumulate(distance + request * (never + 1)) - request * (never + 1)
    held = lengths[: len(counts)].astype(np.float64)
    ends, begins = (np.minimum((place + more) * float(size), held[request]) for more in (1, 0))
    work = linear * (ends - begins) + quadratic * (ends**2 - begins**2)
    total = float(linear * held.sum() + quadratic * (held @ held))
    found = deepest < never
    sizes, group = np.unique(deepest[found], return_inverse=True)
    saved = np.concatenate(([0.0], np.cumsum(np.bincount(group, weights=work[found], minlength=len(sizes)))))
    steps = np.unique(np.concatenate((np.zeros(1, np.int64), sizes - 1, sizes)))  # lines between are flat, then one up
    return HitCurve(
        block_tokens=size, blocks=steps, found=saved[np.searchsorted(sizes, steps, side="right")] / (total or 1.0)
    )


def _distances(ids: "Ints", offsets: "Ints", request: "Ints", place: "Ints") -> "Ints":
    """Return the least pool that holds each block as its request comes; more than all blocks where none does.

    Of the blocks used since the last use of one, those used again meanwhile are counted once: their later uses are the
    ones whose use before lies after it.
    """
    import numpy as np

    many = len(ids)
    begins = offsets[:-1][request]
    used = offsets[1:][request] - 1 - place  # position of each use: a prompt uses its last block first
    at = np.empty(many, np.int64)
    at[used] = ids
    order = np.argsort(at, kind="stable")
    again = at[order[1:]] == at[order[:-1]]
    before = np.full(many, -1, np.int64)
    before[order[1:][again]] = order[:-1][again]
    last = before[used]
    known = last >= 0
    distance = np.full(many, many + 1, np.int64)
    distance[known] = begins[known] - last[known] - _later(before + 1, begins[known], last[known] + 1)
    return distance


def _later(values: "Ints", ends: "Ints", above: "Ints") -> "Ints":
    """Return for each query how many of the first ``ends`` values lie above ``above``.

    Values are parted by their bits, the highest first, each time keeping their order (a wavelet matrix).
    """
    import numpy as np

    kind = np.int32 if len(values) < 2**31 else np.int64  # half the memory for all that is held
    values, high, above = values.astype(kind), ends.astype(kind), above.astype(kind)
    count, low = np.zeros_like(high), np.zeros_like(high)
    for bit in reversed(range(max(len(values), 1).bit_length())):
        ones = (values >> bit & 1).astype(bool)
        zeros = np.zeros(len(values) + 1, kind)
        np.cumsum(~ones, out=zeros[1:])
        up = (above >> bit & 1).astype(bool)
        low_zeros, high_zeros = zeros[low], zeros[high]
        count += np.where(up, 0, (high - high_zeros) - (low - low_zeros))
        low = np.where(up, zeros[-1] + low - low_zeros, low_zeros)
        high = np.where(up, zeros[-1] + high - high_zeros, high_zeros)
        values = np.concatenate((values[~ones], values[ones]))
    return count.astype(np.int64)


def _chained(blocks: Blocks) -> "Ints":
    """Return ids that are equal only where all blocks before them are: most files have such, as engines do."""
    import numpy as np

    ids, offsets = blocks.ids, blocks.offsets
    if not len(ids):
        return ids
    counts = np.diff(offsets)
    _, dense = np.unique(ids, return_inverse=True)
    dense = dense.astype(np.int64)
    before = np.concatenate((np.full(1, -1, np.int64), dense[:-1]))
    before[offsets[:-1][counts > 0]] = -1
    order = np.argsort(dense, kind="stable")
    same = dense[order[1:]] == dense[order[:-1]]
    if bool((before[order[1:]][same] == before[order[:-1]][same]).all()):
        return dense
    chained, parent = np.empty_like(dense), np.zeros(len(counts), np.int64)
    longest = np.argsort(-counts, kind="stable")
    many, taken = int(dense.max()) + 1, 1
    for depth in range(int(counts.max())):
        active = longest[: int(np.searchsorted(-counts[longest], -depth, side="left"))]
        at = offsets[active] + depth
        _, new = np.unique(parent[active] * many + dense[at], return_inverse=True)
        chained[at] = parent[active] = new + taken
        taken += int(new.max()) + 1
    return chained


def _in_pairs(ids: "Ints", offsets: "Ints") -> tuple["Ints", "Ints"]:
    """Return blocks of twice the tokens: of chained ids, the last of a pair says both."""
    import numpy as np

    counts = np.diff(offsets)
    request = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(ids)) - offsets[:-1][request]
    last = (place % 2 == 1) | (place == counts[request] - 1)
    return ids[last], np.concatenate((np.zeros(1, np.int64), np.cumsum((counts + 1) // 2)))
