"""Latent attention: absorbed in decode, unfolded in prefill; absorbed there too where tokens choose what they read."""

from collections.abc import Iterator
from dataclasses import replace

from perfmodel.formulas.attention import absorbed_attention_flop, attention_flop
from perfmodel.ledger.around_attention import (
    fetch_offloaded,
    gather_context,
    load_found,
    output_gate,
    output_projection,
    output_quantisation,
)
from perfmodel.ledger.caches import cache_of, entry_bytes
from perfmodel.ledger.indexer import index_columns, indexer_ops
from perfmodel.ledger.records import Dims, Family, Op, OperatorClass, Quantities
from perfmodel.ledger.rows import BF16, ROPE_FLOP, batched, exchange_row, linear, quantised, vector
from perfmodel.ledger.seen import Seen, entries, in_part, visible
from perfmodel.specs.attention import MlaSpec
from perfmodel.units import Bytes, Count


def latent_ops(q: Quantities, family: Family, dims: Dims, spec: MlaSpec) -> Iterator[Op]:
    """Yield the rows of latent attention between its norm and the exchange of hidden states."""
    prolog: OperatorClass = "prolog_matmul" if family.phase == "decode" else "matmul"
    heads = spec.num_attention_heads / q.tp
    qk_width = spec.qk_nope_head_dim + spec.qk_rope_head_dim
    early = family.reduction == "sp_tp_sp"
    low_rank = 0 if spec.q_lora_rank is None else spec.q_lora_rank
    yield quantised(
        "attention.qkv_down",
        family,
        rows=q.rank_tokens if early else q.tokens,
        inner=dims.hidden_size,
        columns=low_rank + spec.kv_lora_rank + spec.qk_rope_head_dim,
        operator=prolog,
        prefetched=True,
    )
    if early:
        # low-rank queries in the precision of the product that follows, the latent cache entry in its own
        width = low_rank * family.input_element_bytes + (spec.kv_lora_rank + spec.qk_rope_head_dim) * BF16
        if spec.indexer is not None and not spec.indexer.shared:
            width = width + index_columns(spec.indexer) * BF16
        yield exchange_row("attention.latent_gather", "all_gather", group=q.tp, payload=q.rank_tokens * width)
    yield quantised(
        "attention.q_up",
        family,
        rows=q.tokens,
        inner=dims.hidden_size if spec.q_lora_rank is None else spec.q_lora_rank,
        columns=heads * qk_width,
        kernels=0 if family.phase == "decode" else 1,
        operator=prolog,
        prefetched=True,
    )
    latent = spec.kv_lora_rank + spec.qk_rope_head_dim
    yield vector(
        "attention.rope_cache",
        flop=ROPE_FLOP * q.tokens * (latent + heads * spec.qk_rope_head_dim),
        traffic=2 * BF16 * q.tokens * (low_rank + latent + heads * spec.qk_rope_head_dim),
        kernels=0 if family.phase == "decode" else 1,
    )
    if spec.indexer is not None:
        rank = dims.hidden_size if spec.q_lora_rank is None or spec.indexer.from_hidden else spec.q_lora_rank
        keys = entries(q, family, spec.indexer.pool)
        key_rows = q.rank_tokens if early else None
        yield from indexer_ops(q, family, dims, spec.indexer, keys, query_rank=rank, key_rows=key_rows)
    if family.phase == "decode":
        yield from _decode_core(q, family, spec, heads)
    else:
        yield from gather_context(q, family, cache_of(spec, family, q.tp))
        yield load_found(q, cache_of(spec, family))
        yield from _prefill_core(q, family, spec, heads)
    yield from output_gate(q, family, dims, spec.output_gate, heads=heads, head_dim=spec.v_head_dim)
    yield from output_quantisation(q, family, heads * spec.v_head_dim)
    yield from output_projection(q, family, dims, heads * spec.v_head_dim)


def seen_by(q: Quantities, family: Family, spec: MlaSpec) -> Seen:
    """Return what the cores of latent attention look at."""
    topk = None if spec.indexer is None else spec.indexer.topk
    return visible(q, family, window=spec.sliding_window, topk=topk)


def _absorbing(q: Quantities, family: Family, spec: MlaSpec, heads: Count) -> Iterator[Op]:
    """Yield the products of each head that take queries into the latent space, and outputs from it."""
    for name, width in (("attention.k_up", spec.qk_nope_head_dim), ("attention.v_up", spec.v_head_dim)):
        inner, columns = (width, spec.kv_lora_rank) if name == "attention.k_up" else (spec.kv_lora_rank, width)
        yield batched(
            name,
            matrices=heads,
            rows=q.tokens,
            inner=inner,
            columns=columns,
            kernels=0 if name == "attention.k_up" and family.phase == "decode" else 1,
            prefetched=name == "attention.k_up",
        )


def _decode_core(q: Quantities, family: Family, spec: MlaSpec, heads: Count) -> Iterator[Op]:
    yield from _absorbing(q, family, spec, heads)
    cache = entry_bytes(spec, family)
    if family.context_parallel:
        query = q.tokens * heads * (spec.kv_lora_rank + spec.qk_rope_head_dim) * BF16
        yield exchange_row("attention.query_gather", "all_gather", group=q.dcp, payload=query)
    seen = seen_by(q, family, spec)
    if spec.sliding_window is None:
        yield from fetch_offloaded(q, family, seen.cached / q.dcp * cache, chosen=spec.indexer is not None)
    # a die of a dcp group has the heads of the whole group and its part of the cache
    yield latent_decode_core(
        spec,
        operator="attention_decode" if spec.indexer is None else "sparse_attention_decode",
        pairs=seen.pairs / q.dcp,
        tokens=q.tokens,
        cached_tokens=seen.cached / q.dcp,
        sequences=q.sequences,
        # rows of a tile read one cache: of queries that choose for themselves, the heads of one
        queries=q.queries if spec.indexer is None else 1,
        heads=heads * q.dcp,
        cache=cache,
    )
    if family.context_parallel:
        partial = q.tokens * heads * spec.kv_lora_rank * BF16
        yield exchange_row("attention.partial_swap", "all_to_all", group=q.dcp, payload=partial)
        yield vector("attention.partial_merge", flop=4 * q.dcp * partial / BF16, traffic=(q.dcp + 1) * partial)


def latent_decode_core(
    spec: MlaSpec,
    *,
    operator: OperatorClass = "attention_decode",
    pairs: Count,
    tokens: Count,
    cached_tokens: Count,
    sequences: Count,
    queries: Count,
    heads: Count,
    cache: Bytes,
) -> Op:
    """Row of latent attention in absorbed form: all heads of the die read one cache of ``cache`` bytes a token."""
    return _absorbed_core(
        spec,
        operator,
        pairs=pairs,
        tokens=tokens,
        kv_bytes=cached_tokens * cache,
        sequences=sequences,
        context=cached_tokens / sequences,
        heads=heads,
        query_rows=heads * queries,
    )


def _absorbed_core(
    spec: MlaSpec,
    operator: OperatorClass,
    *,
    pairs: Count,
    tokens: Count,
    kv_bytes: Bytes,
    sequences: Count,
    context: Count,
    heads: Count,
    query_rows: Count | None = None,
) -> Op:
    return Op(
        name="attention.core",
        operator=operator,
        engine="cube_bf16",
        flop=absorbed_attention_flop(
            query_context_pairs=pairs,
            heads=heads,
            kv_lora_rank=spec.kv_lora_rank,
            qk_rope_head_dim=spec.qk_rope_head_dim,
        ),
        kv_bytes=kv_bytes,
        activation_bytes=tokens * heads * (2 * spec.kv_lora_rank + spec.qk_rope_head_dim) * BF16,
        sequences=sequences,
        context=context,
        heads=heads,
        query_rows=query_rows,
    )


def _prefill_core(q: Quantities, family: Family, spec: MlaSpec, heads: Count) -> Iterator[Op]:
    seen = seen_by(q, family, spec)
    if spec.indexer is not None:
        yield from _absorbing(q, family, spec, heads)
        chosen = _chosen_prefill_core(spec, seen, tokens=q.tokens, sequences=q.sequences, heads=heads, family=family)
        yield in_part(chosen, [seen], q.tokens)
        return
    yield linear(
        "attention.kv_up",
        rows=seen.cached,
        inner=spec.kv_lora_rank,
        columns=heads * (spec.qk_nope_head_dim + spec.v_head_dim),
        weight_element_bytes=BF16,
        engine="cube_bf16",
    )
    unfolded = q.context * (seen.cached / q.cached_tokens)
    core = latent_prefill_core(
        spec, pairs=seen.pairs, tokens=q.tokens, sequences=q.sequences, heads=heads, context=unfolded
    )
    core = replace(core, context=seen.context)
    yield core if spec.sliding_window is None else in_part(core, [seen], q.tokens)


def _chosen_prefill_core(
    spec: MlaSpec, seen: Seen, *, tokens: Count, sequences: Count, heads: Count, family: Family
) -> Op:
    """Row of latent attention in absorbed form in prefill: each token reads the entries of its own choice.

    Nothing is read twice from L2, so errs high where choices are alike, the more so the fewer heads a die has: there
    are some 240 FLOP a byte at 128 of them.  Absorbed for short prompts too, which engines unfold: errs high there.
    """
    return _absorbed_core(
        spec,
        "attention_prefill",
        pairs=seen.pairs,
        tokens=tokens,
        kv_bytes=seen.pairs * entry_bytes(spec, family),
        sequences=sequences,
        context=seen.context,
        heads=heads,
    )


def latent_prefill_core(
    spec: MlaSpec, *, pairs: Count, tokens: Count, sequences: Count, heads: Count, context: Count
) -> Op:
    """Row of latent attention with keys and values of ``context`` tokens unfolded for each head of the die."""
    qk_width = spec.qk_nope_head_dim + spec.qk_rope_head_dim
    return Op(
        name="attention.core",
        operator="attention_prefill",
        engine="cube_bf16",
        flop=attention_flop(query_context_pairs=pairs, heads=heads, qk_head_dim=qk_width, v_head_dim=spec.v_head_dim),
        activation_bytes=(tokens + sequences * context) * heads * (qk_width + spec.v_head_dim) * BF16,
        sequences=sequences,
        context=context,
        heads=heads,
    )
