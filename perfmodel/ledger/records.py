"""The frozen records that pass between stages; every value may be a number, an array or a symbol."""

from dataclasses import dataclass, fields, replace
from typing import Literal

from perfmodel.algebra import as_float, maximum
from perfmodel.formulas.statistics import length_spread
from perfmodel.specs.deployment import Exchange as ExchangeForm
from perfmodel.specs.deployment import LayoutSpec, Overlap, Phase, Reduction
from perfmodel.specs.precision import (
    CACHES,
    USUAL,
    CacheForm,
    ExpertWeights,
    KvDtype,
    Precision,
    PrecisionForm,
    form_of,
)
from perfmodel.units import Bytes, Count, Dimensionless, Flop, Fraction

Engine = Literal["cube_bf16", "cube_int8", "cube_fp8", "cube_fp4", "vector", "link"]
#: whose kernels run a product on an engine: those of INT8 stand in for all that is as narrow or narrower
KERNELS_OF: dict[Engine, str] = {"cube_bf16": "bf16", "cube_int8": "int8", "cube_fp8": "int8", "cube_fp4": "int8"}
#: engine of each unit of the cube
ENGINE_OF: dict[str, Engine] = {
    "bf16": "cube_bf16",
    "int8": "cube_int8",
    "fp8": "cube_fp8",
    "fp4": "cube_fp4",
}
OperatorClass = Literal[
    "matmul",
    "prolog_matmul",
    "grouped_matmul",
    "batched_matmul",
    "attention_decode",
    "sparse_attention_decode",
    "attention_prefill",
    "vector",
    "top_k",
    "exchange",
    "host_read",
    "pool_read",
]
Collective = Literal[
    "all_reduce",
    "all_gather",
    "reduce_scatter",
    "all_to_all",
    "dispatch",
    "combine",
    "bulk_dispatch",
    "bulk_combine",
]


SplitModule = Literal["o_proj", "head", "dense", "embedding"]
SPLIT_MODULES: tuple[SplitModule, ...] = ("o_proj", "head", "dense", "embedding")
#: ends the names of parts of a draft layer that runs a second time in a step
AGAIN = "_again"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layout:
    """The axes of one pool's layout."""

    dies: Count
    tp: Count
    shared_ranks: Count
    redundant: Count
    batch: Count
    draft: Count
    attention_cores: Count
    cp: Count = 1
    dcp: Count = 1
    expert_tp: Count = 1
    o_proj_tp: Count = 1
    head_tp: Count = 1
    dense_tp: Count = 1
    embedding_tp: Count = 1
    expert_dies: Count = 0
    domains: Count = 1
    chunk: Count = 0
    kv_resident: Fraction = 1
    kv_hit: Fraction = 0

    @staticmethod
    def of(spec: LayoutSpec) -> "Layout":
        """Return a given layout as plain numbers."""
        return Layout(**{axis.name: getattr(spec, axis.name) for axis in fields(Layout)})

    @property
    def ranks(self) -> Count:
        """Data-parallel ranks of the attention, each with ``batch`` sequences."""
        return (self.dies - self.expert_dies) / (self.tp * self.cp)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The structure of a plan: what decides which rows exist and how lanes compose."""

    phase: Phase
    own_shared_ranks: bool
    overlap: Overlap
    exchange: ExchangeForm
    reduction: Reduction = "scatter_gather"
    precision: Precision = USUAL
    kv_dtype: KvDtype = "bf16"
    expert_weights: ExpertWeights = "int8"
    #: modules that are split over dies of their own inside data-parallel attention
    split: frozenset[SplitModule] = frozenset()
    o_proj_sharded: bool = False
    context_parallel: bool = False
    split_experts: bool = False
    micro_batches: int = 2
    fused_experts: bool = False
    shared_stream: bool = False
    chunked: bool = False
    offloads: bool = False

    @staticmethod
    def of(
        layout: LayoutSpec,
        phase: Phase,
        *,
        precision: Precision = USUAL,
        kv_dtype: KvDtype = "bf16",
        expert_weights: ExpertWeights = "int8",
    ) -> "Family":
        """Return the structure of a given layout."""
        return Family(
            phase=phase,
            own_shared_ranks=layout.shared_ranks > 0,
            overlap=layout.overlap,
            exchange=layout.exchange,
            reduction=layout.reduction,
            precision=precision,
            kv_dtype=kv_dtype,
            expert_weights=expert_weights,
            split=frozenset(module for module in SPLIT_MODULES if getattr(layout, f"{module}_tp") > 1),
            o_proj_sharded=layout.o_proj_sharded,
            context_parallel=layout.cp > 1 or layout.dcp > 1,
            split_experts=layout.expert_tp > 1,
            micro_batches=layout.micro_batches,
            fused_experts=layout.fused_experts,
            shared_stream=layout.shared_stream,
            chunked=layout.chunk > 0,
            offloads=layout.kv_resident < 1,
        )

    @property
    def disaggregated(self) -> bool:
        """Whether attention and experts are on different dies."""
        return self.overlap == "stages"

    @property
    def swaps_heads(self) -> bool:
        """Whether heads are swapped for tokens before the output projection, which each die then has whole."""
        return self.reduction in ("all_to_all", "sp_tp_sp")

    @property
    def sums_whole(self) -> bool:
        """Whether every die keeps all tokens of its data-parallel rank: AllReduce after attention and experts."""
        return self.reduction == "all_reduce" and self.exchange == "gather"

    @property
    def splits_layers(self) -> bool:
        """Whether embedding, dense layers and shared experts are split over tp as attention is.

        Whole sums are tensor parallelism without sequence parallelism: a die has all tokens of its rank and its part
        of every matrix.  In the other forms it has its own tokens between attentions, and the matrices whole.
        """
        return self.reduction == "all_reduce"

    @property
    def splits_shared(self) -> bool:
        """Whether a shared expert is split so: where it lies on the dies of attention."""
        return self.splits_layers and not self.own_shared_ranks and not self.disaggregated

    @property
    def micro(self) -> int:
        """Micro-batches a step is cut into."""
        return {"none": 1, "stages": self.micro_batches}.get(self.overlap, 2)

    @property
    def joins_dense(self) -> bool:
        """Whether layers without experts run on both micro-batches at once, before the step is split."""
        return self.overlap in ("cores", "link")

    @property
    def form(self) -> PrecisionForm:
        """What its precision says of each component."""
        return form_of(self.precision, self.expert_weights)

    @property
    def cache_form(self) -> CacheForm:
        """What its cache is stored in."""
        return CACHES[self.kv_dtype]

    @property
    def weight_element_bytes(self) -> int | float:
        """Bytes of one weight of a linear layer, with its part of a scale."""
        return self.form.weights.bytes

    @property
    def input_element_bytes(self) -> int | float:
        """Bytes of one number that goes into a linear layer."""
        return self.form.activations.bytes

    @property
    def linear_engine(self) -> Engine:
        """Engine of the linear layers."""
        return ENGINE_OF[self.form.unit]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dims:
    """Model sizes common to all kinds; the attention's own sizes stay with its kind."""

    hidden_size: Count
    intermediate_size: Count
    moe_intermediate_size: Count
    n_routed_experts: Count
    n_shared_experts: Count
    num_experts_per_tok: Count
    n_group: Count
    topk_group: Count
    vocab_size: Count
    #: choices of the router that stand for no work
    zero_expert_num: Count = 0
    #: width of a shared expert; none where it is that of a routed one
    shared_intermediate_size: Count | None = None
    #: whether a gate of its own, one column, scales the shared expert
    shared_gate: bool = False
    #: width that tokens have among the experts; none where it is that of the model
    expert_hidden_size: Count | None = None
    #: streams of the residual; a number, as it decides which rows there are
    hc_mult: int = 1
    #: whether tokens are routed at all
    routes: bool = True
    #: whether the output head is the embedding
    tied: bool = False

    @property
    def router_columns(self) -> Count:
        """Choices of the router."""
        return self.n_routed_experts + self.zero_expert_num

    @property
    def shared_width(self) -> Count:
        """Width of all shared experts together."""
        each = self.moe_intermediate_size if self.shared_intermediate_size is None else self.shared_intermediate_size
        return self.n_shared_experts * each

    @property
    def routed_hidden(self) -> Count:
        """Width that tokens have among the experts."""
        return self.hidden_size if self.expert_hidden_size is None else self.expert_hidden_size


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Traffic:
    """Lengths of the requests, and how unevenly they load the ranks.

    ``chance`` is 1 where experts are drawn by the router and 0 where routing is forced even;
    ``context_spread`` is 1 where requests progress independently and 0 where all do so together.
    """

    isl: Count
    osl: Count
    #: spread of the logarithm of an expert's lasting popularity
    skew: Dimensionless
    #: spread of the logarithm of real over foreseen popularity: what placement does not even out, at most the skew
    residual: Dimensionless
    chance: Dimensionless
    context_spread: Dimensionless
    #: part of a prompt whose cache is found ready
    prefix_hit: Fraction = 0
    #: relative spread of the lengths of the prompts that are batched together
    isl_spread: Dimensionless = 0
    #: spread of the logarithm of what a sequence makes of an expert's popularity: favourites of its own
    variety: Dimensionless = 0
    #: mean context of a request that runs, and its standard deviation, where lengths are spread
    running_context: Count | None = None
    running_deviation: Count | None = None

    @property
    def context(self) -> Count:
        """Mean context of a request that runs; of equal lengths the input and half of the output."""
        return self.isl + self.osl / 2 if self.running_context is None else self.running_context

    @property
    def context_deviation(self) -> Count:
        """Standard deviation of the context of a request that runs."""
        return length_spread(osl=self.osl) if self.running_deviation is None else self.running_deviation

    @property
    def longest(self) -> Count:
        """Tokens of a request at its end; where lengths are spread, those of one three deviations above the mean."""
        if self.running_context is None:
            return self.isl + self.osl
        return maximum(self.isl + self.osl, self.context + 3 * self.context_deviation)

    def even(self) -> "Traffic":
        """Return the same requests with equal loads: what the mean rank has."""
        return replace(self, skew=0.0, residual=0.0, variety=0.0, chance=0.0, context_spread=0.0, isl_spread=0.0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Quantities:
    """Tokens of one micro-batch as they fall on ranks."""

    tokens: Count  # of one attention data-parallel rank, in prefill 1/cp of them
    sequences: Count  # that they belong to
    queries: Count  # of one of them in decode: the tokens that are verified together
    context: Count  # tokens that one sequence has by then
    rank_tokens: Count  # a die's share of them, 1/tp
    head_tokens: Count  # of the whole step, for the output head
    group_tokens: Count  # of the whole instance
    pairs: Count  # query-context pairs of the busiest data-parallel rank
    cached_tokens: Count  # cache entries it needs: in decode those it reads, in prefill prefixes and new tokens
    loaded_tokens: Count  # of these, what was found ready and is fetched
    slots_per_rank: Count  # of which each die of a rank holds its part, 1/expert_tp
    touched: Count  # expert slots that receive a token
    routed_tokens: Count  # on the busiest routed rank: every die of it works them all
    shared_tokens: Count  # on a rank that holds a shared expert
    copies: Count  # messages per token
    group: Count  # dies that exchange tokens
    tp: Count
    cp: Count
    dcp: Count
    expert_tp: Count
    o_proj_tp: Count
    head_tp: Count
    dense_tp: Count
    embedding_tp: Count
    kv_resident: Fraction
    kv_hit: Fraction
    steps: Count  # a prompt is worked in


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Exchange:
    """A communication: which collective, among how many dies, how many bytes.

    ``payload`` is a rank's shard for a collective (1/group of the tensor for an AllReduce, what goes to
    one peer in an AllToAll) and one message for an exchange of ``messages``.
    """

    collective: Collective
    group: Count
    payload: Bytes
    #: dies next to each other that hold the same data already: a collective then runs between such sets
    joined: Count = 1
    messages: Count = 1
    #: starts of a message on its way: between groups of unequal size a die of the larger one forwards it
    hops: Count = 1
    #: messages of one token, and the groups of experts its router chooses from
    copies: Count = 1
    n_group: Count = 1
    topk_group: Count = 1
    #: messages that a die with attention and one with experts handle, where these are different dies
    attention_messages: Count | None = None
    expert_messages: Count | None = None

    @property
    def sent(self) -> Bytes:
        """Bytes of all messages of a die."""
        return self.payload * self.messages


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Op:
    """One fused operator on one die and one micro-batch.

    What it does is in FLOP and bytes; the fields after ``kernels`` are its shape, which decides how
    near a kernel comes to the roofline.
    """

    name: str
    operator: OperatorClass
    engine: Engine
    flop: Flop = 0
    weight_bytes: Bytes = 0
    activation_bytes: Bytes = 0
    kv_bytes: Bytes = 0
    resident_bytes: Bytes = 0
    exchange: Exchange | None = None
    kernels: Count = 1
    #: whether its weights are known before the exchange that comes before it ends
    prefetched: bool = False
    #: a product's matrices, and the rows and columns of one output
    matrices: Count = 1
    rows: Count = 1
    columns: Count = 1
    #: weights that the vector cores widen on their way to it, where any are stored narrower than it takes them
    unpacked: Count | None = None
    #: sequences of an attention, tokens of one sequence's cache or prompt, and its heads on this die
    sequences: Count = 1
    context: Count = 1
    heads: Count = 1
    #: rows of queries that share one cache: of a sequence, on this die's heads
    query_rows: Count | None = None
    #: of a prompt whose tokens do not see all before them: what one sees on average, and where that ends inside a block
    #: of the kernel: how wide it is there, and the part of the tokens that have such an end
    seen: Count | None = None
    edges: tuple[tuple[Count, Fraction], ...] = ()

    @property
    def bytes(self) -> Bytes:
        """Bytes it reads and writes."""
        return self.weight_bytes + self.kv_bytes + self.activation_bytes

    @property
    def sent(self) -> Bytes:
        """Bytes it sends over links."""
        return 0 if self.exchange is None else self.exchange.sent

    @property
    def kernel(self) -> str:
        """Operator class whose kernel runs it: its operator, and its precision where that matters."""
        if self.exchange is not None:
            joint = self.exchange.collective in ("all_gather", "reduce_scatter", "all_reduce")
            return "collective" if joint else self.exchange.collective
        return f"{self.operator}_{KERNELS_OF[self.engine]}" if "matmul" in self.operator else self.operator


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Block:
    """A run of equal layers: ``count`` times in a step, ``layers`` times in memory.

    Lanes name parts; ``attention`` and ``experts`` may overlap, ``joined`` parts run on different
    ranks at the same time, so the slower decides.  ``passes`` is the number of micro-batches.
    """

    name: str
    count: Count
    layers: Count
    attention: tuple[str, ...]
    experts: tuple[str, ...]
    joined: tuple[str, ...] = ()
    overlapped: bool = False
    passes: int = 1
    #: part that runs beside the exchange, on cores it leaves free
    beside: tuple[str, ...] = ()
    #: last parts of the experts lane that are one kernel with the exchange
    fused: tuple[str, ...] = ()
    #: groups of attention dies that take turns on the experts
    domains: Count = 1
    #: whether it is of the model's layers, and not of what is before, after or beside them
    is_layer: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ledger:
    """All parts of a step and the blocks that repeat them."""

    parts: dict[str, tuple[Op, ...]]
    blocks: tuple[Block, ...]
    #: the loads that its rows were made from
    quantities: Quantities
    #: times that the host starts the blocks: chunks of a prompt
    steps: Count = 1
    #: tokens drafted in a step
    draft: Count = 0

    @property
    def main_layer(self) -> str:
        """Name of the block that most layers are; one with experts, where any has them."""
        layers = [block for block in self.blocks if block.is_layer]
        experts = [block for block in layers if block.overlapped or len(block.experts) > 1]
        return max(experts or layers, key=lambda block: as_float(block.layers)).name
