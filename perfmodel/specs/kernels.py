"""Kernels: measured parameters of operator classes, apart from the peaks they are shares of.

A kernel set is one generation of kernels: whoever measured or calibrated them gives the classes it
knows, and a stack lists the sets it uses, the first that has a class winning.  Times are per call,
shares are of the die's peak or pin rate, so that a set measured on one chip carries to another.
"""

from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le
from pydantic import Field, model_validator

from perfmodel.specs.base import LEAST, PositiveCount, PositiveNumber, PositiveRate, Source, Spec
from perfmodel.units import Bytes, Dimensionless, Fraction, Seconds

Share = Annotated[Fraction, Gt(0), Ge(LEAST), Le(1.0)]
Part = Annotated[Fraction, Ge(0), Le(1.0)]
FitError = Annotated[Dimensionless, Le(100.0)]  # beyond it a fit says nothing
Link = Literal["sio", "ub", "hccs", "nvlink", "pcie", "roce", "infiniband"]


class Fit(Spec):
    """What the parameters of a class were fitted to, and how well they fit."""

    rows: PositiveCount
    shapes: PositiveCount
    median_error: FitError
    p90_error: FitError
    held_out_median_error: FitError | None = None
    held_out_p90_error: FitError | None = None


class MatmulKernel(Spec):
    """Matrix product: streaming of the weights, arithmetic, and how far they overlap."""

    start: Seconds
    #: share of the memory's pin rate at which weights stream from memory
    stream: Share
    #: bytes that stay in L2 when a benchmark repeats one call, and the share of the pin rate they come at
    resident: Bytes
    resident_stream: PositiveNumber
    #: share of the cube peak on many rows
    compute: Share
    #: rows per matrix at which half of the shorter of streaming and arithmetic is hidden
    overlap_rows: PositiveNumber
    #: times the activations pass through memory, dynamic quantisation included
    activation_passes: Dimensionless
    #: output tile of one core, where the time shows whole tiles and whole waves of them
    tile_rows: PositiveCount | None = None
    tile_columns: PositiveCount | None = None
    #: vector instructions that widen one weight of four bits; without it what is written to L2 limits alone
    unpack_operations: PositiveNumber | None = None
    #: part of the shorter of stream and widening that runs beside the other; none: one after the other
    unpack_overlap: Share | None = None
    fit: Fit | None = None


class DecodeAttentionKernel(Spec):
    """Attention of few queries on a long cache: streaming, arithmetic, and one block worked by one core."""

    start: Seconds
    #: added for each sequence until half the cores have one
    start_per_sequence: Seconds
    stream: Share
    compute: Share
    #: part of the shorter of streaming and arithmetic that is hidden
    overlap: Part
    #: tokens of a sequence that one core works before others join
    block_tokens: Dimensionless
    #: rows of queries that the cube works at once, where a tile is worked whole
    tile_rows: PositiveCount | None = None
    fit: Fit | None = None


class PrefillAttentionKernel(Spec):
    """Causal attention of a whole prompt."""

    start: Seconds
    #: least time of one head of one sequence on one core
    task_time: Seconds
    compute: Share
    #: tokens a row costs beyond its causal part: blocks on the diagonal, softmax, rescaling
    overhead_tokens: Dimensionless
    #: slow-down once operands lie wholly beyond L2
    spill: Dimensionless
    fit: Fit | None = None


class VectorKernel(Spec):
    """Element-wise work."""

    start: Seconds
    stream: Share
    compute: Share
    fit: Fit | None = None


class ChoiceKernel(Spec):
    """Choice of the best scores of each row, one core a row."""

    start: Seconds
    #: times that a kernel goes over the scores of a row
    passes: Annotated[Dimensionless, Ge(1.0)]
    fit: Fit | None = None


class CollectiveKernel(Spec):
    """AllGather, ReduceScatter and AllReduce of one library on the links it covers."""

    start: Seconds
    #: what each pair of dies of a node adds to the start
    start_per_pair: Seconds
    #: rate at which one die copies one peer's shard in the direct algorithm, before the link's share
    peer_rate: PositiveRate
    #: rate at which one die gives one peer its whole tensor, in an AllReduce of one shot
    push_rate: PositiveRate
    #: most that one die gets of one peer in bulk, over however many links
    pair_rate: PositiveRate
    #: largest shard that surely runs the direct algorithm and smallest that surely runs in bulk
    gather_limit: Bytes
    gather_beyond: Bytes
    reduce_limit: Bytes
    reduce_beyond: Bytes
    #: what a phase in bulk adds to the start, and each peer inside the node, per round
    bulk_start: Seconds
    bulk_start_per_peer: Seconds
    #: part of the shorter of that start and the transfer that is hidden
    bulk_overlap: Part
    #: the same sizes where the group leaves the node: beyond them the phase between nodes is one in bulk
    outer_gather_limit: Bytes
    outer_gather_beyond: Bytes
    outer_reduce_limit: Bytes
    outer_reduce_beyond: Bytes
    #: part of the shorter of the phases inside and outside the nodes that is hidden
    outer_overlap: Part
    #: shares of the pin rate: on links between packages when reading and when writing, and inside a package
    read_share: Share
    write_share: Share
    package_share: Share
    covers: tuple[Link, ...]
    fit: Fit | None = None


class AllToAllKernel(Spec):
    """AllToAll of equal parts."""

    start: Seconds
    start_per_doubling: Seconds
    link_share: Share
    package_share: Share
    #: part of the shorter of start and transfer that is hidden
    overlap: Part
    #: times that what exceeds L2 passes through memory
    spill_passes: Dimensionless
    covers: tuple[Link, ...]
    fit: Fit | None = None


class MessageKernel(Spec):
    """Token-grain dispatch or combine: a start and a cost per message that leaves the package."""

    start: Seconds
    per_message: Seconds
    #: of a phase of its own between nodes, once for each node that holds an expert of the token; those inside follow
    between_start: Seconds | None = None
    between_per_message: Seconds | None = None
    #: whether a token crosses between nodes once for each node, and is spread there, or once for each expert
    deduplicates: bool = False
    covers: tuple[Link, ...]
    #: links that it is carried over to: it runs there before sets measured on others
    carried_to: tuple[Link, ...] = ()
    max_tokens_per_die: PositiveCount
    fit: Fit | None = None


class BulkKernel(Spec):
    """Dispatch or combine of large blocks: a start, and a share of the link that falls with the peers."""

    start: Seconds
    link_share: Share
    #: peers among which a link reaches half of that share: blocks get smaller
    peers_at_half: PositiveNumber
    #: whether a token crosses between nodes once for each node, and is spread there, or once for each expert
    deduplicates: bool = False
    covers: tuple[Link, ...]
    fit: Fit | None = None


#: what runs on links, and says which it was measured on
LinkKernel = CollectiveKernel | AllToAllKernel | MessageKernel | BulkKernel
Kernel = MatmulKernel | DecodeAttentionKernel | PrefillAttentionKernel | VectorKernel | ChoiceKernel | LinkKernel


class KernelSetSpec(Spec):
    """One generation of kernels: the parameters of the operator classes it was measured on."""

    name: str
    title: str
    aliases: tuple[str, ...] = ()
    #: chip that the shares were measured on, or are meant for where they were carried over
    chip: str
    #: chip that they were measured on where they are carried over from it
    carried_from: str | None = None
    matmul_bf16: MatmulKernel | None = None
    matmul_int8: MatmulKernel | None = None
    #: first products of a latent attention in decode where they are one fused kernel of its own generation
    prolog_matmul_bf16: MatmulKernel | None = None
    prolog_matmul_int8: MatmulKernel | None = None
    grouped_matmul_bf16: MatmulKernel | None = None
    grouped_matmul_int8: MatmulKernel | None = None
    batched_matmul_bf16: MatmulKernel | None = None
    attention_decode: DecodeAttentionKernel | None = None
    #: the same on entries that each query chose
    sparse_attention_decode: DecodeAttentionKernel | None = None
    attention_prefill: PrefillAttentionKernel | None = None
    vector: VectorKernel | None = None
    #: choice of the keys that a sparse attention reads
    top_k: ChoiceKernel | None = None
    collective: CollectiveKernel | None = None
    all_to_all: AllToAllKernel | None = None
    dispatch: MessageKernel | None = None
    combine: MessageKernel | None = None
    bulk_dispatch: BulkKernel | None = None
    bulk_combine: BulkKernel | None = None
    sources: dict[str, Source] = Field(min_length=1)

    @model_validator(mode="after")
    def _has_a_class(self) -> "KernelSetSpec":
        if not self.classes():
            raise ValueError(f"no operator class; allowed: at least one of {', '.join(OPERATOR_CLASSES)}")
        return self

    def classes(self) -> dict[str, Any]:
        """Return the classes this set has."""
        return {name: getattr(self, name) for name in OPERATOR_CLASSES if getattr(self, name) is not None}


OPERATOR_CLASSES: tuple[str, ...] = tuple(
    name
    for name in KernelSetSpec.model_fields
    if name not in ("name", "title", "aliases", "chip", "carried_from", "sources")
)


#: classes that another serves where no set has them
STAND_INS = {
    "prolog_matmul_bf16": "matmul_bf16",
    "prolog_matmul_int8": "matmul_int8",
    # entries of a choice at the rate of those of a whole cache
    "sparse_attention_decode": "attention_decode",
    # scores compared as they come: the least that a choice can cost
    "top_k": "vector",
}


def parameters(kernel: Kernel) -> dict[str, float]:
    """Return the numbers of a class, what it was fitted to left out."""
    return {
        name: value
        for name in type(kernel).model_fields
        if name not in ("fit", "covers", "carried_to", "deduplicates") and (value := getattr(kernel, name)) is not None
    }
