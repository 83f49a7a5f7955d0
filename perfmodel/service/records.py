"""What is replayed: the requests, and the pools, front end and links that they pass."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.errors import UsageError
from perfmodel.service.arrivals import ClosedLoop
from perfmodel.service.steps import DecodeStep, PrefillStep

#: which instance takes a request: in turn, any, the one with the least work (or requests) before it, the one that its
#: block of affinity belongs to, or whichever is free first (one queue for all)
Routing = Literal["round_robin", "random", "least_work", "prefix_affinity", "shared"]
DecodeRouting = Literal["round_robin", "random", "least_requests"]
MixedRouting = Literal["round_robin", "random", "least_requests", "prefix_affinity"]
#: what may be asked of a whole deployment
Balancing = Literal["round_robin", "random", "least_work", "prefix_affinity"]
#: which rank of an instance takes a prompt: by what waits there, by what waits and runs, or in turn
RankChoice = Literal["waiting", "outstanding", "in_turn"]
Placing = Literal["least_requests", "in_turn"]
Mode = Literal["chunked", "prefill_first"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Requests:
    """Lengths of the requests in tokens, and when they come: seconds in order, or a closed loop.

    ``blocks`` are the hashes of each prompt's blocks of ``block_tokens``, first block first; equal ones are shared.
    """

    isl: NDArray[np.int64]
    osl: NDArray[np.int64]
    arrivals: NDArray[np.float64] | ClosedLoop
    blocks: Sequence[Sequence[int]] | None = None
    block_tokens: int = 512

    @staticmethod
    def of(
        isl: ArrayLike,
        osl: ArrayLike,
        arrivals: ArrayLike | ClosedLoop,
        blocks: Sequence[Sequence[int]] | None = None,
        block_tokens: int = 512,
    ) -> "Requests":
        """Return requests from anything like arrays, checked; a single length stands for all."""
        times = arrivals if isinstance(arrivals, ClosedLoop) else np.asarray(arrivals, float)
        count = max(np.size(isl), np.size(osl), 0 if isinstance(times, ClosedLoop) else len(times))
        faults = []
        for name, one in (("isl", isl), ("osl", osl)):
            if np.size(one) not in (1, count):
                faults.append(f"{name}: {np.size(one)} lengths of {count} requests; give one for each, or one for all")
            elif np.min(np.asarray(one)) < 1:
                faults.append(f"{name}: a length below 1; allowed: whole numbers from 1")
        if not isinstance(times, ClosedLoop) and (len(times) != count or bool(np.any(np.diff(times) < 0))):
            faults.append(f"arrivals: {len(times)} of {count} requests, in order or not; give one for each, in order")
        if blocks is not None and len(blocks) != count:
            faults.append(f"blocks: of {len(blocks)} of {count} requests; give a list for each")
        if faults:
            raise UsageError("\n".join(faults))
        lengths = [np.broadcast_to(np.asarray(one, dtype=np.int64).reshape(-1), count) for one in (isl, osl)]
        return Requests(isl=lengths[0], osl=lengths[1], arrivals=times, blocks=blocks, block_tokens=block_tokens)

    @property
    def count(self) -> int:
        """Requests in all."""
        return len(self.isl)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontEnd:
    """What a request passes before any queue: a constant delay, then if there are any a first free server."""

    delay: float = 0.0
    servers: int = 0
    service_time: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """The way of a prompt's cache to decode: a start and seconds a token; in a queue a link sends one after another."""

    latency: float = 0.0
    per_token: float = 0.0
    queued: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillPool:
    """Instances that run prefill alone, each of ``ranks`` data-parallel ranks in step.

    A free instance starts with what waits: of each rank prompts in order, up to ``budget`` tokens and ``prompts``
    prompts; a prompt that passes the budget is worked in pieces.
    """

    step: PrefillStep
    instances: int = 1
    ranks: int = 1
    budget: int = 16384
    prompts: int | None = None
    routing: Routing = "round_robin"
    rank_choice: RankChoice = "waiting"
    #: the block, from 1, whose hash says where a prompt belongs: past what all prompts have in common
    affinity_block: int = 1
    #: blocks that an instance keeps of what it has seen, the least recently used dropped first
    cache_blocks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodePool:
    """Instances that run decode alone, each of ``ranks`` data-parallel ranks in step.

    A request is let in at the end of a step, in order, once a rank has a free slot and room for all of its tokens.
    ``tokens_per_step`` is the mean with drafts, taken as if each step gave it.
    """

    step: DecodeStep
    instances: int = 1
    ranks: int = 1
    slots: int | None = None
    cache_tokens: int | None = None
    #: part of its output whose cache a request must find free to be let in: 1 where none is ever turned out again;
    #: engines that give blocks as they fill run at a half when requests are spread over their lives
    reserved: float = 1.0
    routing: DecodeRouting = "round_robin"
    placing: Placing = "least_requests"
    tokens_per_step: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedPool:
    """Instances that run both phases on the same dies.

    Chunked: a step has the tokens of decode and fills up to ``budget`` with pieces of prompts; its fixed part is the
    larger of both phases'.  Prefill first: while a prompt waits that has room, steps are of prompts alone.
    """

    prefill: PrefillStep
    decode: DecodeStep
    instances: int = 1
    ranks: int = 1
    budget: int = 8192
    mode: Mode = "chunked"
    #: decode steps that prompts wait for ranks that have none, so that ranks in step work prompts together
    align_steps: int = 0
    slots: int | None = None
    cache_tokens: int | None = None
    #: part of its output whose cache a request must find free to be let in: 1 where none is ever turned out again;
    #: engines that give blocks as they fill run at a half when requests are spread over their lives
    reserved: float = 1.0
    routing: MixedRouting = "round_robin"
    placing: Placing = "least_requests"
    tokens_per_step: float = 1.0
    #: as of :class:`PrefillPool`
    affinity_block: int = 1
    cache_blocks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The way of a request: front end, prefill, transfer, decode; or front end and mixed instances.

    Without decode a request ends with its first token; without prefill it comes with its cache ready.
    ``first_token_from`` says who answers first: prefill, or decode with its first step, which then works the last
    token of the prompt again, as :class:`perfmodel.prediction.serving.FirstToken` counts it.
    """

    prefill: PrefillPool | None = None
    decode: DecodePool | None = None
    mixed: MixedPool | None = None
    front_end: FrontEnd = field(default_factory=FrontEnd)
    transfer: Transfer = field(default_factory=Transfer)
    first_token_from: Literal["prefill", "decode"] = "decode"
