"""Grouped-query attention: over all of the context, a window, a piece, or a choice of it."""

from collections.abc import Iterator

from perfmodel.algebra import minimum
from perfmodel.formulas.attention import attention_flop
from perfmodel.ledger.around_attention import (
    fetch_offloaded,
    gather_context,
    load_found,
    output_gate,
    output_projection,
    output_quantisation,
)
from perfmodel.ledger.caches import cache_of, entry_bytes_per_die
from perfmodel.ledger.indexer import indexer_ops
from perfmodel.ledger.records import Dims, Family, Op, OperatorClass, Quantities
from perfmodel.ledger.rows import BF16, ROPE_FLOP, quantised, vector
from perfmodel.ledger.seen import Seen, entries, in_part, visible
from perfmodel.specs.attention import GqaSpec
from perfmodel.units import Bytes, Count


def grouped_ops(q: Quantities, family: Family, dims: Dims, spec: GqaSpec) -> Iterator[Op]:
    """Yield the rows of grouped-query attention between its norm and the exchange of hidden states."""
    heads = spec.num_attention_heads / q.tp
    key_value_heads = spec.num_key_value_heads / minimum(q.tp, spec.num_key_value_heads)
    direct = heads * spec.head_dim if spec.q_lora_rank is None else spec.q_lora_rank
    yield quantised(
        "attention.qkv",
        family,
        rows=q.tokens,
        inner=dims.hidden_size,
        columns=direct + key_value_heads * (spec.head_dim + spec.value_dim),
        prefetched=True,
    )
    if spec.q_lora_rank is not None:
        yield quantised(
            "attention.q_up",
            family,
            rows=q.tokens,
            inner=spec.q_lora_rank,
            columns=heads * spec.head_dim,
            prefetched=True,
        )
    yield vector(
        "attention.rope_cache",
        flop=ROPE_FLOP * q.tokens * (heads + key_value_heads) * spec.head_dim,
        traffic=2 * BF16 * q.tokens * (heads * spec.head_dim + key_value_heads * (spec.head_dim + spec.value_dim)),
    )
    if spec.indexer is not None:
        keys = entries(q, family, spec.indexer.pool)
        yield from indexer_ops(q, family, dims, spec.indexer, keys, query_rank=dims.hidden_size)
    decode = family.phase == "decode"
    entry = entry_bytes_per_die(spec, family, q.tp)
    seen = seen_by(q, family, spec)
    kept = cache_of(spec, family, q.tp)
    if not decode:
        yield from gather_context(q, family, kept)
        yield load_found(q, cache_of(spec, family))
    elif not kept.windows:
        yield from fetch_offloaded(q, family, seen.cached * entry, chosen=spec.indexer is not None)
    core = grouped_query_core(
        spec,
        _core_class(spec, decode),
        pairs=seen.pairs,
        tokens=q.tokens,
        sequences=q.sequences,
        context=seen.context,
        heads=heads,
        key_value_heads=key_value_heads,
        kv_bytes=seen.cached * entry if decode else 0,
    )
    limited = spec.sliding_window or spec.attention_chunk_size or spec.indexer
    yield in_part(core, [seen], q.tokens) if limited and not decode else core
    yield from output_gate(q, family, dims, spec.output_gate, heads=heads, head_dim=spec.value_dim)
    yield from output_quantisation(q, family, heads * spec.value_dim)
    yield from output_projection(q, family, dims, heads * spec.value_dim)


def _core_class(spec: GqaSpec, decode: bool) -> OperatorClass:
    if not decode:
        return "attention_prefill"
    return "attention_decode" if spec.indexer is None else "sparse_attention_decode"


def seen_by(q: Quantities, family: Family, spec: GqaSpec) -> Seen:
    """Return what the cores of grouped-query attention look at.

    A choice in prefill is worked entry by entry, all queries that chose it at once, and passes once: errs low where a
    kernel goes query by query.
    """
    topk = None if spec.indexer is None else spec.indexer.topk
    return visible(q, family, window=spec.sliding_window, piece=spec.attention_chunk_size, topk=topk)


def grouped_query_core(
    spec: GqaSpec,
    operator: OperatorClass,
    *,
    pairs: Count,
    tokens: Count,
    sequences: Count,
    context: Count,
    heads: Count,
    key_value_heads: Count,
    kv_bytes: Bytes,
) -> Op:
    """Row of grouped-query attention on the heads of a die."""
    return Op(
        name="attention.core",
        operator=operator,
        engine="cube_bf16",
        flop=attention_flop(
            query_context_pairs=pairs, heads=heads, qk_head_dim=spec.head_dim, v_head_dim=spec.value_dim
        ),
        kv_bytes=kv_bytes,
        activation_bytes=tokens * (heads + key_value_heads) * (spec.head_dim + spec.value_dim) * BF16,
        sequences=sequences,
        context=context,
        heads=heads,
    )
