"""What attention keeps of a sequence: entries that grow with it, windows, states of a fixed size."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

from perfmodel.algebra import minimum, total
from perfmodel.formulas.attention import gqa_cache_bytes, mla_cache_bytes, state_bytes
from perfmodel.ledger.records import Family
from perfmodel.ledger.rows import BF16
from perfmodel.specs.attention import AttentionSpec, CompressedSpec, GqaSpec, IndexerSpec, LinearSpec, MlaSpec
from perfmodel.units import Bytes, Count, Fraction

SCALE_BYTES = 4  # of an index key in 8 bits
FP32 = 4
CHUNK = 64  # tokens of linear attention that prefill works at once, as public kernels do


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cache:
    """Bytes kept of a sequence: each token's, those of the newest tokens alone, and those of none."""

    per_token: Bytes = 0
    #: of these, index keys: a scan reads all of them every step, so that they are never kept elsewhere
    scanned: Bytes = 0
    #: bytes a token, and how many of the newest tokens have them
    windows: tuple[tuple[Bytes, Count], ...] = ()
    state: Bytes | None = None

    def on_die(self, resident: Fraction) -> Bytes:
        """Bytes of a token in the die's own memory, ``resident`` being the part of its entries that stays there."""
        return self.scanned + (self.per_token - self.scanned) * resident

    def fixed(self, tokens: Count) -> Bytes:
        """Bytes beside those of each token, of a sequence of so many."""
        windows = (each * minimum(most, tokens) for each, most in self.windows)
        return total((*windows, 0 if self.state is None else self.state))

    def times(self, layers: Count) -> "Cache":
        """Return the cache of so many layers."""
        return Cache(
            per_token=self.per_token * layers,
            scanned=self.scanned * layers,
            windows=tuple((each * layers, most) for each, most in self.windows),
            state=None if self.state is None else self.state * layers,
        )


def joined(caches: Iterable[Cache]) -> Cache:
    """Return several caches as one."""
    caches = list(caches)
    states = [cache.state for cache in caches if cache.state is not None]
    return Cache(
        per_token=total(cache.per_token for cache in caches),
        scanned=total(cache.scanned for cache in caches),
        windows=tuple(window for cache in caches for window in cache.windows),
        state=total(states) if states else None,
    )


def index_key_bytes(indexer: IndexerSpec, family: Family) -> Bytes:
    """Bytes of index keys a token and layer; none where another layer's choice is shared.

    In eight bits each key has a scale of its own.
    """
    if indexer.shared:
        return 0
    form = family.cache_form
    key = indexer.head_dim * form.bytes if form.bytes == BF16 else indexer.head_dim + SCALE_BYTES
    return key / indexer.pool


def entry_bytes(attention: MlaSpec | GqaSpec | CompressedSpec, family: Family) -> Bytes:
    """Bytes of one cached entry of a layer over all heads; a latent's rope part is in BF16 whatever the rest is."""
    form = family.cache_form
    element = form.bytes
    match attention:
        case MlaSpec():
            latent = mla_cache_bytes(
                kv_lora_rank=attention.kv_lora_rank,
                qk_rope_head_dim=attention.qk_rope_head_dim,
                latent_bytes=element,
                rope_bytes=BF16,
            )
            return latent + attention.kv_lora_rank * form.latent_scale if form.latent_scale else latent
        case GqaSpec():
            return gqa_cache_bytes(
                num_key_value_heads=attention.num_key_value_heads,
                head_dim=attention.head_dim,
                v_head_dim=attention.value_dim,
                element_bytes=element,
            )
        case CompressedSpec():
            rope = attention.qk_rope_head_dim
            entry = mla_cache_bytes(
                kv_lora_rank=attention.head_dim - rope,
                qk_rope_head_dim=rope,
                latent_bytes=element,
                rope_bytes=BF16,
            )
            return entry + form.entry_scales if form.entry_scales else entry
        case _:
            assert_never(attention)


def entry_bytes_per_die(attention: MlaSpec | GqaSpec | CompressedSpec, family: Family, tp: Count) -> Bytes:
    """Bytes of one cached entry on one die: what all heads share is copied, key-value heads are split."""
    whole = entry_bytes(attention, family)
    return whole / minimum(tp, attention.num_key_value_heads) if isinstance(attention, GqaSpec) else whole


def cache_of(attention: AttentionSpec, family: Family, tp: Count = 1, states: Count = 1) -> Cache:
    """Return what one layer keeps of a sequence on one die of ``tp``, at 1 in all.

    Of a state of linear attention ``states``: one for each token that may turn out the last.
    """
    match attention:
        case MlaSpec() | GqaSpec():
            entry = entry_bytes_per_die(attention, family, tp)
            piece = attention.attention_chunk_size if isinstance(attention, GqaSpec) else None
            most = attention.sliding_window or piece
            if most is None:
                index = _index_bytes(attention.indexer, family)
                state = pooled_state_bytes(attention.indexer)
                return Cache(per_token=entry + index, scanned=index, state=state)
            return Cache(windows=((entry, most),))
        case LinearSpec():
            return Cache(state=linear_state_bytes(attention) * states / tp)
        case CompressedSpec():
            entry = entry_bytes(attention, family)
            ratio, window = attention.compress_ratio, ((entry, attention.sliding_window),)
            if not ratio:
                return Cache(windows=window)
            index, state = _index_bytes(attention.indexer, family), compressor_state_bytes(attention)
            return Cache(per_token=(entry + index) / ratio, scanned=index / ratio, windows=window, state=state)
        case _:
            assert_never(attention)


def _index_bytes(indexer: IndexerSpec | None, family: Family) -> Bytes:
    return 0 if indexer is None else index_key_bytes(indexer, family)


def pooled_state_bytes(indexer: IndexerSpec | None) -> Bytes | None:
    """Bytes of the tokens that wait to make a pooled index key, their keys and weights in BF16; none without pools.

    Source: counting; 2 KiB a layer where 4 tokens of 128 make one.
    """
    if indexer is None or indexer.shared or indexer.pool == 1:
        return None
    return indexer.pool * 2 * indexer.head_dim * BF16


def linear_state_bytes(attention: LinearSpec) -> Bytes:
    """Bytes of one sequence's state in a layer of linear attention."""
    return state_bytes(
        heads=attention.num_value_heads,
        key_dim=attention.key_head_dim,
        value_dim=attention.value_head_dim,
        element_bytes=attention.state_bytes,
        conv_width=2 * attention.key_width + attention.value_width,
        conv_kernel_dim=attention.conv_kernel_dim,
        conv_element_bytes=BF16,
    )


def compressor_state_bytes(attention: CompressedSpec) -> Bytes:
    """Bytes of the tokens that wait to make an entry, their content and weight in 32 bits.

    Source: counting; 80 KiB where 4 tokens make an entry of two vectors with an index key, 512 KiB where 128 do.
    """
    index = 0 if attention.indexer is None else attention.indexer.head_dim
    width = 2 * attention.overlap * (attention.head_dim + index)
    return attention.compress_ratio * attention.overlap * width * FP32


def head_width(attention: AttentionSpec, family: Family) -> float:
    """Width of all heads' queries and outputs together, for working space.

    A choice is worked on queries and outputs in the latent space.  Prefill of linear attention keeps a state a chunk.
    """
    match attention:
        case MlaSpec() if attention.indexer is not None:
            return attention.num_attention_heads * (2 * attention.kv_lora_rank + attention.qk_rope_head_dim)
        case MlaSpec():
            head = attention.qk_nope_head_dim + attention.qk_rope_head_dim + attention.v_head_dim
            return attention.num_attention_heads * head
        case GqaSpec():
            return attention.num_attention_heads * (attention.head_dim + attention.value_dim)
        case LinearSpec():
            state = attention.value_width * attention.key_head_dim
            kept = state / CHUNK if family.phase == "prefill" else 0
            return 2 * attention.key_width + 2 * attention.value_width + kept
        case CompressedSpec():
            return 2 * attention.num_attention_heads * attention.head_dim
        case _:
            assert_never(attention)


def unfolded_width(attention: AttentionSpec) -> int:
    """Width of keys and values that prefill unfolds of a cached token, over all heads; 0 where it reads them."""
    if isinstance(attention, MlaSpec) and attention.indexer is None:
        return attention.num_attention_heads * (attention.qk_nope_head_dim + attention.v_head_dim)
    return 0
