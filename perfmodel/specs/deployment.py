"""What is deployed and what is asked of it: a layout and its latency limits."""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from pydantic import model_validator

from perfmodel.specs.base import NonNegativeInt, PositiveInt, Spec

Phase = Literal["decode", "prefill"]
PHASES: tuple[Phase, ...] = ("prefill", "decode")  # in the order of a request
Overlap = Literal["none", "link", "cores", "stages"]
Exchange = Literal["dispatch", "gather"]
Reduction = Literal["all_reduce", "scatter_gather", "all_to_all", "sp_tp_sp"]
LARGEST_VERIFIED = 16  # tokens of a sequence in one step: vLLM-Ascend, speculative_decoding.md


class LayoutShape(Spec):
    """How one instance of one pool is laid out over its dies, its batch apart.

    ``shared_ranks`` 0 means a shared expert on every rank; ``overlap`` "none" runs serially, "link"
    hides communication of one micro-batch behind the other's compute, "cores" runs attention and
    experts of two micro-batches side by side on ``attention_cores`` and the remaining cube cores,
    "stages" sends ``micro_batches`` in turn through attention on some dies and experts on ``expert_dies``.
    ``reduction`` says how tensor-parallel attention parts and joins its tokens: whole sums, split sums, heads
    swapped for tokens before the output projection, or that and low-rank inputs gathered in place of hidden states.
    """

    dies: PositiveInt
    tp: PositiveInt = 1
    shared_ranks: NonNegativeInt = 0
    redundant: NonNegativeInt = 0
    draft: NonNegativeInt = 0
    overlap: Overlap = "none"
    attention_cores: NonNegativeInt = 0
    exchange: Exchange = "dispatch"
    reduction: Reduction = "scatter_gather"
    #: prefill: dies among which the tokens of a prompt are split (context parallel)
    cp: PositiveInt = 1
    #: decode: dies of a tp group among which the cached tokens are split (decode context parallel)
    dcp: PositiveInt = 1
    #: neighbouring dies over which each routed expert is split (expert tensor parallel)
    expert_tp: PositiveInt = 1
    #: dies over which one module alone is split inside data-parallel attention
    o_proj_tp: PositiveInt = 1
    head_tp: PositiveInt = 1
    dense_tp: PositiveInt = 1
    embedding_tp: PositiveInt = 1
    #: whether each die keeps only its share of replicated output projections and receives the rest ahead of use
    o_proj_sharded: bool = False
    #: dies with experts alone, attention being on the others; 0: every die has both
    expert_dies: NonNegativeInt = 0
    #: groups of attention dies that take turns on the same expert dies
    domains: PositiveInt = 1
    micro_batches: Annotated[int, Ge(2), Le(4)] = 2
    #: whether exchange and experts run as one kernel, and whether the shared expert runs beside the exchange
    fused_experts: bool = False
    shared_stream: bool = False
    #: prefill: tokens of a prompt worked at once; 0: whole prompts
    chunk: NonNegativeInt = 0
    #: part of the cache kept in the die's own memory, the rest in the host's
    kv_resident: Annotated[float, Gt(0), Le(1)] = 1.0
    #: part of what a sparse attention chooses that it finds there, where that is more: a step chooses much as the last
    kv_hit: Annotated[float, Ge(0), Le(1)] = 0.0

    @model_validator(mode="after")
    def _tp_divides(self) -> "LayoutShape":
        if self.expert_dies >= self.dies:
            raise ValueError(f"expert_dies {self.expert_dies} leave no die of {self.dies} for attention")
        attention = self.dies - self.expert_dies
        if attention % (self.tp * self.cp * self.domains):
            words = f"tp {self.tp}" + (f" x cp {self.cp}" if self.cp > 1 else "")
            words += f" x {self.domains} domains" if self.domains > 1 else ""
            raise ValueError(f"{words} does not divide {attention} dies")
        if self.shared_ranks >= self.dies:
            raise ValueError(f"shared_ranks {self.shared_ranks} leave no die of {self.dies} for routed experts")
        return self


class LayoutSpec(LayoutShape):
    """A layout with its batch: sequences per attention data-parallel rank."""

    batch: PositiveInt


class Targets(Spec):
    """Latency limits in seconds; ``None`` is no limit."""

    tpot: Annotated[float, Gt(0)] | None = None
    ttft: Annotated[float, Gt(0)] | None = None
