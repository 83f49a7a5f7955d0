"""FLOP of attention cores and bytes of their caches."""

from perfmodel.algebra import ceil, maximum, sqrt
from perfmodel.formulas.statistics import largest_normal
from perfmodel.units import Bytes, Count, Dimensionless, Flop


def absorbed_attention_flop(
    *, query_context_pairs: Count, heads: Count, kv_lora_rank: Count, qk_rope_head_dim: Count
) -> Flop:
    r"""FLOP of latent attention in absorbed form: every head reads the one compressed cache.

    .. math:: F = 2\,p\,h\,\bigl((r + d_\mathrm{rope}) + r\bigr)

    Softmax is left out (under 1 % of the FLOP).  Source: [deepseek2024v2] section 2.1.2.

    >>> absorbed_attention_flop(query_context_pairs=1, heads=128, kv_lora_rank=512, qk_rope_head_dim=64)
    278528
    """
    return 2 * query_context_pairs * heads * (2 * kv_lora_rank + qk_rope_head_dim)


def worked_flop(*, flop: Flop, rows: Count, tile_rows: Count) -> Flop:
    r"""FLOP that the cube works for some rows of queries against one cache, in whole tiles of rows.

    .. math:: F' = F\,\frac{t \lceil m / t \rceil}{m}, \quad m = h\,q

    Each of q queries of a sequence has h heads on the die, and all of these rows share one latent cache: it is read
    once, and a tile is worked whole however few of its rows are used.  Source: counting; the cube takes 16 rows.

    Eight heads with one query fill half of a tile, with two queries all of it, and with three three quarters of two:

    >>> [worked_flop(flop=8.0 * q, rows=8 * q, tile_rows=16) for q in (1, 2, 3)]
    [16.0, 16.0, 32.0]
    """
    return flop * (tile_rows * ceil(rows / tile_rows) / rows)


def attention_flop(*, query_context_pairs: Count, heads: Count, qk_head_dim: Count, v_head_dim: Count) -> Flop:
    r"""FLOP of attention with a key and a value per head.

    .. math:: F = 2\,p\,h\,(d_{qk} + d_v)

    Softmax is left out.  Source: [vaswani2017] section 3.2.1.

    >>> attention_flop(query_context_pairs=1, heads=128, qk_head_dim=192, v_head_dim=128)
    81920
    """
    return 2 * query_context_pairs * heads * (qk_head_dim + v_head_dim)


def causal_pairs(
    *, sequences: Count, isl: Count, prefix: Count = 0, square: Dimensionless = 1, share: Dimensionless = 1
) -> Count:
    r"""Query-key pairs of causal attention over whole prompts that follow a prefix each.

    .. math:: P = b\,s\,\bigl(q\,(p + s / 2) + u / 2\bigr)

    s new tokens behind p, on average; ``share`` u is the mean of the lengths here over that mean, ``square`` q the mean
    of their squares over its square: both 1 for equal ones.  Source: definition.

    >>> causal_pairs(sequences=2, isl=3)
    12.0
    >>> causal_pairs(sequences=2, isl=3, prefix=10)
    72.0
    """
    return sequences * isl * (square * (prefix + isl / 2) + share / 2)


def mean_square(*, share: Dimensionless, sequences: Count, spread: Dimensionless) -> Dimensionless:
    r"""Mean square of the lengths on the rank with the longest prompts, over the square of the mean of all.

    .. math:: q = k^2 + c^2 (1 - 1/b)

    Its mean length is ``share`` k times that of all; about it they spread as everywhere.
    Source: mean of a square.

    Two prompts a rank on 32 ranks, lengths spread by half:

    >>> round(mean_square(share=1.731, sequences=2, spread=0.5), 2)
    3.12
    """
    return share * share + spread * spread * (1 - 1 / sequences)


def chunked_steps(*, tokens: Count, chunk: Count) -> Count:
    """Steps in which a prompt's new tokens are worked, at most ``chunk`` at once.

    Source: definition.

    >>> chunked_steps(tokens=4096, chunk=1536)
    3
    """
    return ceil(tokens / maximum(chunk, 1))


def largest_share(*, sequences: Count, ranks: Count, spread: Dimensionless) -> Dimensionless:
    r"""Tokens of the rank with the longest prompts over those of the mean rank.

    .. math:: 1 + z(n)\,c / \sqrt{b}

    Each of n ranks has b prompts whose lengths spread by c about their mean; all wait for the longest.
    Assumes prompts handed out without a look at their lengths.  Source: central limit, [blom1958].

    Two prompts a rank on 32 ranks, lengths spread by half:

    >>> round(largest_share(sequences=2, ranks=32, spread=0.5), 2)
    1.73
    """
    return 1 + largest_normal(count=ranks) * spread / sqrt(sequences)


def mla_cache_bytes(*, kv_lora_rank: Count, qk_rope_head_dim: Count, latent_bytes: Bytes, rope_bytes: Bytes) -> Bytes:
    """Bytes that latent attention caches per token and layer; the rope part keeps its own precision.

    Source: [deepseek2024v2] table 1.

    >>> 61 * mla_cache_bytes(kv_lora_rank=512, qk_rope_head_dim=64, latent_bytes=2, rope_bytes=2)
    70272
    """
    return kv_lora_rank * latent_bytes + qk_rope_head_dim * rope_bytes


def gqa_cache_bytes(*, num_key_value_heads: Count, head_dim: Count, element_bytes: Bytes) -> Bytes:
    """Bytes that grouped-query attention caches per token and layer.

    Source: [deepseek2025insights] table 1.

    >>> 126 * gqa_cache_bytes(num_key_value_heads=8, head_dim=128, element_bytes=2)
    516096
    """
    return 2 * num_key_value_heads * head_dim * element_bytes
