"""Kinds of attention, keys as in a config.json; how many layers have which, the model says."""

from math import gcd
from typing import Annotated, Literal

from pydantic import Field, model_validator

from perfmodel.specs.base import NonNegativeInt, PositiveInt, Spec

#: what an output is multiplied with before its projection: nothing, a value a channel, or a value a head
OutputGate = Literal["none", "channel", "head"]


class IndexerSpec(Spec):
    """What chooses the ``topk`` tokens that a sparse attention reads: a small attention over all of them.

    A ``shared`` one takes the choice of a layer before it and has neither weights, cache nor work of its own.
    """

    n_heads: PositiveInt
    head_dim: PositiveInt
    topk: PositiveInt
    #: tokens that one index key stands for
    pool: PositiveInt = 1
    shared: bool = False
    #: a query of its own from the hidden state, where there is no low-rank one to take it from
    from_hidden: bool = False


class MlaSpec(Spec):
    """Multi-head latent attention: one compressed cache shared by all heads."""

    kind: Literal["mla"]
    num_attention_heads: PositiveInt
    #: rank of the queries; without one they come straight from the hidden state
    q_lora_rank: PositiveInt | None = None
    kv_lora_rank: PositiveInt
    qk_nope_head_dim: PositiveInt
    qk_rope_head_dim: NonNegativeInt
    v_head_dim: PositiveInt
    output_gate: OutputGate = "none"
    #: tokens that a layer looks back on; all of them where it is left out
    sliding_window: PositiveInt | None = None
    indexer: IndexerSpec | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "MlaSpec":
        if self.sliding_window and self.indexer:
            raise ValueError("a layer has a sliding_window or an indexer, not both")
        return self

    @property
    def splits(self) -> int:
        """Heads that tensor parallelism splits."""
        return self.num_attention_heads

    @property
    def gathers_low_rank(self) -> bool:
        """Whether all that its heads need of a token is low-rank: queries, and nothing from the hidden state."""
        hidden = self.indexer is not None and self.indexer.from_hidden and not self.indexer.shared
        return self.q_lora_rank is not None and self.output_gate == "none" and not hidden


class GqaSpec(Spec):
    """Grouped-query attention; with one key-value head, multi-query, with a rank of queries, multi-matrix."""

    kind: Literal["gqa"]
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt
    #: of queries and keys, and of values where these are not another size
    head_dim: PositiveInt
    v_head_dim: PositiveInt | None = None
    #: rank of the queries; most models have none
    q_lora_rank: PositiveInt | None = None
    output_gate: OutputGate = "none"
    #: tokens that a layer looks back on; all of them where it is left out
    sliding_window: PositiveInt | None = None
    #: tokens of the pieces that a context is cut into, of which a token sees its own alone
    attention_chunk_size: PositiveInt | None = None
    indexer: IndexerSpec | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "GqaSpec":
        limits = ("sliding_window", "attention_chunk_size", "indexer")
        given = [name for name in limits if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"a layer has one of {', '.join(limits)}, not {' and '.join(given)}")
        return self

    @property
    def splits(self) -> int:
        """Heads that tensor parallelism splits."""
        return self.num_attention_heads

    @property
    def value_dim(self) -> int:
        """Size of a value head."""
        return self.head_dim if self.v_head_dim is None else self.v_head_dim


class LinearSpec(Spec):
    """Linear attention: a state a sequence in place of a cache, as gated delta net and Kimi delta attention keep it."""

    kind: Literal["linear"]
    num_key_heads: PositiveInt
    num_value_heads: PositiveInt
    key_head_dim: PositiveInt
    value_head_dim: PositiveInt
    conv_kernel_dim: PositiveInt = 4
    #: a decay a head, or a channel of the keys: then from a product of low rank
    decay: Literal["head", "channel"] = "head"
    #: rank of the product that makes the output's gate; without one it is a whole matrix
    gate_rank: PositiveInt | None = None
    #: bytes of a number of the state
    state_bytes: PositiveInt = 4

    @property
    def splits(self) -> int:
        """Heads that tensor parallelism splits: keys with their values."""
        return gcd(self.num_key_heads, self.num_value_heads)

    @property
    def key_width(self) -> int:
        """Width of all keys."""
        return self.num_key_heads * self.key_head_dim

    @property
    def value_width(self) -> int:
        """Width of all values."""
        return self.num_value_heads * self.value_head_dim


class CompressedSpec(Spec):
    """Attention to the newest tokens and to compressed entries of all before, one vector for all keys and values.

    ``compress_ratio`` tokens make an entry; at 0 there are none.  With an indexer a query reads its ``topk`` entries,
    else all.
    """

    kind: Literal["compressed"]
    num_attention_heads: PositiveInt
    #: of the vector that is key and value, and the part of it that turns with the position
    head_dim: PositiveInt
    qk_rope_head_dim: NonNegativeInt = 64
    q_lora_rank: PositiveInt
    o_lora_rank: PositiveInt
    o_groups: PositiveInt
    sliding_window: PositiveInt
    compress_ratio: NonNegativeInt
    #: vectors that an entry is made of, each from a matrix of its own for its content and its weight
    overlap: PositiveInt = 1
    indexer: IndexerSpec | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "CompressedSpec":
        if self.indexer and not self.compress_ratio:
            raise ValueError("an indexer chooses among compressed entries, and a compress_ratio of 0 makes none")
        if self.indexer and self.indexer.pool > 1:
            raise ValueError("compress_ratio says what an index key stands for; leave out pool")
        return self

    @property
    def splits(self) -> int:
        """Groups of heads that tensor parallelism splits: the output has a matrix for each."""
        return gcd(self.num_attention_heads, self.o_groups)


AttentionSpec = Annotated[MlaSpec | GqaSpec | LinearSpec | CompressedSpec, Field(discriminator="kind")]
