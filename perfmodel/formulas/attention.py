"""FLOP of attention cores and bytes of their caches."""

from perfmodel.algebra import ceil, floor, greater, maximum, minimum, sqrt, where
from perfmodel.formulas.statistics import largest_normal
from perfmodel.units import Bytes, Count, Dimensionless, Flop, Fraction


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


def seen_share(*, context: Count, most: Count) -> Fraction:
    r"""Part of a context that a query reads which looks at ``most`` tokens of it.

    .. math:: \min(1, m / t)

    Of sequences of several lengths the mean stands for all: errs high, as the part falls with length.
    Source: definition of a window, of a top-k choice.

    >>> seen_share(context=8192, most=2048), seen_share(context=1024, most=2048)
    (0.25, 1)
    """
    return minimum(1, most / context)


def piece_share(*, context: Count, piece: Count) -> Fraction:
    r"""Part of a context that a query reads which sees its own piece of it alone: half a piece on average.

    .. math:: \frac{c}{2t} \text{ where } t > c, \text{ else } 1

    Source: definition of chunked attention, mean over where a query stands in its piece.

    >>> piece_share(context=32768.0, piece=8192), piece_share(context=4096.0, piece=8192)
    (0.125, 1)
    """
    return where(greater(context, piece), piece / (2 * context), 1)


def windowed_pairs(*, before: Count, new: Count, most: Count) -> Count:
    r"""Query-key pairs of the new tokens of one prompt, each reading at most so many of those up to it.

    .. math:: V(p + s) - V(p), \quad V(n) = \tfrac{u (u + 1)}{2} + m\,(n - u), \; u = \min(n, m)

    s tokens behind p others; a token reads itself, as :func:`causal_pairs` has it, so a window that holds all changes
    nothing.  Source: sum of the smaller of position and m.

    >>> windowed_pairs(before=0, new=100.0, most=1000), windowed_pairs(before=1000, new=100, most=10)
    (5050.0, 1000.0)
    """

    def up_to(length: Count) -> Count:
        full = minimum(length, most)
        return full * (full + 1) / 2 + most * (length - full)

    return up_to(before + new) - up_to(before)


def piecewise_pairs(*, before: Count, new: Count, piece: Count) -> Count:
    r"""Query-key pairs of the new tokens of one prompt, each reading those up to it of its own piece.

    .. math:: V(p + s) - V(p), \quad V(n) = \bigl(f c^2 + (n - f c)^2 + n\bigr) / 2, \; f = \lfloor n / c \rfloor

    A token reads itself too.  Of prompts of several lengths the mean stands for all, so errs either way.
    Source: sum over positions in pieces, definition of chunked attention.

    >>> piecewise_pairs(before=0, new=3, piece=8192), piecewise_pairs(before=0, new=7, piece=3)
    (6.0, 13.0)
    """

    def up_to(length: Count) -> Count:
        whole = floor(length / piece)
        rest = length - whole * piece
        return (whole * piece * piece + rest * rest + length) / 2

    return up_to(before + new) - up_to(before)


def index_flop(*, pairs: Count, n_heads: Count, head_dim: Count) -> Flop:
    r"""FLOP of an indexer that scores index keys: one product a head for each.

    .. math:: F = 2\,p\,n\,d

    The weighted sum of the heads and the choice of the best are left out (1/d of it).
    Source: [deepseek2025v32] section 2.1.

    >>> index_flop(pairs=1, n_heads=64, head_dim=128)
    16384
    """
    return 2 * pairs * n_heads * head_dim


def shared_vector_flop(*, query_context_pairs: Count, heads: Count, head_dim: Count) -> Flop:
    r"""FLOP of attention where one vector is both key and value for all heads.

    .. math:: F = 4\,p\,h\,d

    Source: [vaswani2017] section 3.2.1 with equal keys and values.

    >>> shared_vector_flop(query_context_pairs=1, heads=64, head_dim=512)
    131072
    """
    return 4 * query_context_pairs * heads * head_dim


def recurrent_flop(*, tokens: Count, heads: Count, key_dim: Count, value_dim: Count) -> Flop:
    r"""FLOP of linear attention that updates and reads a state, token by token.

    .. math:: F = 7\,t\,h\,d_k d_v

    Decay (1), what the state holds for the key (2), the update of rank one (2) and the read (2) of each number.
    Source: counting over the delta rule, [yang2024gdn] equation 10.

    >>> recurrent_flop(tokens=1, heads=32, key_dim=128, value_dim=128)
    3670016
    """
    return 7 * tokens * heads * key_dim * value_dim


def chunkwise_flop(*, tokens: Count, heads: Count, key_dim: Count, value_dim: Count, chunk: Count) -> Flop:
    r"""FLOP of linear attention over chunks of a prompt: products with the state, and products inside a chunk.

    .. math:: F = t\,h\,\bigl(6\,d_k d_v + 2\,C\,(3\,d_k + 2\,d_v)\bigr)

    With the state: what it holds for the keys of a chunk, for its queries, and what the chunk adds to it.  Inside:
    keys with keys, queries with keys, the solved triangle with keys and with values, scores with values.
    They are counted whole, as the cube works tiles: errs high by their masked half where a kernel skips it, low by
    the solution of the triangle, which runs on the vector cores (2 C^2 / 3 a token and head).
    Source: counting over the chunkwise form, [yang2024gdn] section 3.3.

    >>> chunkwise_flop(tokens=1, heads=1, key_dim=128, value_dim=128, chunk=64)
    180224
    """
    with_state, within = 6 * key_dim * value_dim, 2 * chunk * (3 * key_dim + 2 * value_dim)
    return tokens * heads * (with_state + within)


def state_bytes(
    *,
    heads: Count,
    key_dim: Count,
    value_dim: Count,
    element_bytes: Bytes,
    conv_width: Count,
    conv_kernel_dim: Count,
    conv_element_bytes: Bytes,
) -> Bytes:
    r"""Bytes of one sequence's state of linear attention, and of the last inputs of its convolution.

    .. math:: h\,d_k d_v b + w\,(k - 1)\,b'

    Source: [yang2024gdn] section 3.1.

    >>> state_bytes(heads=32, key_dim=128, value_dim=128, element_bytes=4, conv_width=12288, conv_kernel_dim=4,
    ...     conv_element_bytes=2)
    2170880
    """
    return heads * key_dim * value_dim * element_bytes + conv_width * (conv_kernel_dim - 1) * conv_element_bytes


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


def gqa_cache_bytes(*, num_key_value_heads: Count, head_dim: Count, v_head_dim: Count, element_bytes: Bytes) -> Bytes:
    """Bytes that grouped-query attention caches per token and layer; values may have heads of another size.

    Source: [deepseek2025insights] table 1.

    >>> 126 * gqa_cache_bytes(num_key_value_heads=8, head_dim=128, v_head_dim=128, element_bytes=2)
    516096
    """
    return num_key_value_heads * (head_dim + v_head_dim) * element_bytes
