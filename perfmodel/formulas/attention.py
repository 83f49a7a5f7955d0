"""FLOP of attention cores and bytes of their caches."""

from perfmodel.units import Bytes, Count, Flop


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


def attention_flop(*, query_context_pairs: Count, heads: Count, qk_head_dim: Count, v_head_dim: Count) -> Flop:
    r"""FLOP of attention with a key and a value per head.

    .. math:: F = 2\,p\,h\,(d_{qk} + d_v)

    Softmax is left out.  Source: [vaswani2017] section 3.2.1.

    >>> attention_flop(query_context_pairs=1, heads=128, qk_head_dim=192, v_head_dim=128)
    81920
    """
    return 2 * query_context_pairs * heads * (qk_head_dim + v_head_dim)


def causal_pairs(*, sequences: Count, isl: Count) -> Count:
    r"""Query-key pairs of causal attention over whole prompts.

    .. math:: p = b\,s\,(s + 1) / 2

    Source: definition.

    >>> causal_pairs(sequences=2, isl=3)
    12.0
    """
    return sequences * isl * (isl + 1) / 2


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
