"""Attention spec -> rows: latent (absorbed in decode, causal in prefill) and grouped-query."""

from collections.abc import Iterator
from dataclasses import replace
from typing import assert_never

from perfmodel.algebra import minimum
from perfmodel.formulas.attention import absorbed_attention_flop, attention_flop, gqa_cache_bytes, mla_cache_bytes
from perfmodel.ledger.records import Collective, Dims, Family, Op, OperatorClass, Quantities
from perfmodel.ledger.rows import BF16, batched, exchange_row, linear, norm_quant, vector
from perfmodel.specs.model import GqaSpec, MlaSpec
from perfmodel.units import Bytes, Count

ROPE_FLOP = 3  # per element: two products and a sum of the 2 x 2 rotation


def cache_bytes(attention: MlaSpec | GqaSpec, family: Family) -> Bytes:
    """Bytes cached per token and layer over all heads; INT8 leaves the rope part in BF16."""
    element = BF16 if family.kv_dtype == "bf16" else 1
    match attention:
        case MlaSpec():
            return mla_cache_bytes(
                kv_lora_rank=attention.kv_lora_rank,
                qk_rope_head_dim=attention.qk_rope_head_dim,
                latent_bytes=element,
                rope_bytes=BF16,
            )
        case GqaSpec():
            return gqa_cache_bytes(
                num_key_value_heads=attention.num_key_value_heads, head_dim=attention.head_dim, element_bytes=element
            )
        case _:
            assert_never(attention)


def cache_bytes_per_die(attention: MlaSpec | GqaSpec, family: Family, tp: Count) -> Bytes:
    """Bytes cached per token and layer on one die: latent caches are copied, key-value heads are split."""
    whole = cache_bytes(attention, family)
    match attention:
        case MlaSpec():
            return whole
        case GqaSpec():
            return whole / minimum(tp, attention.num_key_value_heads)
        case _:
            assert_never(attention)


def head_width(attention: MlaSpec | GqaSpec) -> int:
    """Width of all heads' queries and outputs together, for working space."""
    match attention:
        case MlaSpec():
            head = attention.qk_nope_head_dim + attention.qk_rope_head_dim + attention.v_head_dim
            return attention.num_attention_heads * head
        case GqaSpec():
            return 2 * attention.num_attention_heads * attention.head_dim
        case _:
            assert_never(attention)


def unfolded_width(attention: MlaSpec | GqaSpec) -> int:
    """Width of keys and values that prefill unfolds of a cached token, over all heads; 0 where it reads them."""
    match attention:
        case MlaSpec():
            return attention.num_attention_heads * (attention.qk_nope_head_dim + attention.v_head_dim)
        case GqaSpec():
            return 0
        case _:
            assert_never(attention)


def _mla(q: Quantities, family: Family, dims: Dims, spec: MlaSpec) -> Iterator[Op]:
    weight, engine = family.weight_element_bytes, family.linear_engine
    prolog: OperatorClass = "prolog_matmul" if family.phase == "decode" else "matmul"
    heads = spec.num_attention_heads / q.tp
    qk_width = spec.qk_nope_head_dim + spec.qk_rope_head_dim
    early = family.reduction == "sp_tp_sp"
    yield linear(
        "attention.qkv_down",
        rows=q.rank_tokens if early else q.tokens,
        inner=dims.hidden_size,
        columns=spec.q_lora_rank + spec.kv_lora_rank + spec.qk_rope_head_dim,
        weight_element_bytes=weight,
        engine=engine,
        operator=prolog,
        prefetched=True,
    )
    if early:
        # low-rank queries in the precision of the product that follows, the latent cache entry in its own
        width = spec.q_lora_rank * weight + (spec.kv_lora_rank + spec.qk_rope_head_dim) * BF16
        yield exchange_row("attention.latent_gather", "all_gather", group=q.tp, payload=q.rank_tokens * width)
    yield linear(
        "attention.q_up",
        rows=q.tokens,
        inner=spec.q_lora_rank,
        columns=heads * qk_width,
        weight_element_bytes=weight,
        engine=engine,
        kernels=0 if family.phase == "decode" else 1,
        operator=prolog,
        prefetched=True,
    )
    latent = spec.kv_lora_rank + spec.qk_rope_head_dim
    yield vector(
        "attention.rope_cache",
        flop=ROPE_FLOP * q.tokens * (latent + heads * spec.qk_rope_head_dim),
        traffic=2 * BF16 * q.tokens * (spec.q_lora_rank + latent + heads * spec.qk_rope_head_dim),
        kernels=0 if family.phase == "decode" else 1,
    )
    if family.phase == "decode":
        yield from _mla_decode_core(q, family, spec, heads)
    else:
        yield from _gather_context(q, family, cache_bytes(spec, family))
        yield _load_found(q, cache_bytes(spec, family))
        yield from _mla_prefill_core(q, spec, heads)
    yield from _output_quantisation(q, family, heads * spec.v_head_dim)
    yield from _output_projection(q, family, dims, heads * spec.v_head_dim)


def _gather_context(q: Quantities, family: Family, entry: Bytes) -> Iterator[Op]:
    """Yield what brings a prompt's whole context to a die that works on a part of its tokens."""
    if family.context_parallel:
        part = q.cached_tokens / q.cp * entry
        yield exchange_row("attention.context_gather", "all_gather", group=q.cp * q.tp, payload=part, joined=q.tp)


def _output_projection(q: Quantities, family: Family, dims: Dims, inner: Count) -> Iterator[Op]:
    """Yield the projection of a die's heads, ``inner`` wide together, and the exchanges of its parallel form."""
    weight, engine, hidden = family.weight_element_bytes, family.linear_engine, dims.hidden_size
    if family.swaps_heads:
        # each die gets all heads of its own tokens, so nothing is left to sum
        yield exchange_row("attention.swap_heads", "all_to_all", group=q.tp, payload=q.rank_tokens * inner * weight)
        whole = linear(
            "attention.o_proj",
            rows=q.rank_tokens,
            inner=inner * q.tp,
            columns=hidden,
            weight_element_bytes=weight,
            engine=engine,
        )
        yield replace(whole, resident_bytes=whole.weight_bytes / q.tp) if family.o_proj_sharded else whole
        return
    if "o_proj" not in family.split:
        yield linear(
            "attention.o_proj",
            rows=q.tokens,
            inner=inner,
            columns=hidden,
            weight_element_bytes=weight,
            engine=engine,
        )
        return
    parts = q.o_proj_tp
    yield exchange_row("attention.swap_heads", "all_to_all", group=parts, payload=q.tokens * inner / parts * weight)
    yield linear(
        "attention.o_proj",
        rows=q.tokens * parts,
        inner=inner / parts,
        columns=hidden,
        weight_element_bytes=weight,
        engine=engine,
    )
    yield exchange_row("attention.o_proj_scatter", "reduce_scatter", group=parts, payload=q.tokens * hidden * BF16)


def _output_quantisation(q: Quantities, family: Family, width: Count) -> Iterator[Op]:
    """Yield the dynamic quantisation of the attention's output, which no norm comes before."""
    if family.precision == "w8a8":
        yield vector(
            "attention.output_quant",
            flop=2 * q.tokens * width,
            traffic=q.tokens * width * (BF16 + family.weight_element_bytes),
        )


def _mla_decode_core(q: Quantities, family: Family, spec: MlaSpec, heads: Count) -> Iterator[Op]:
    for name, width in (("attention.k_up", spec.qk_nope_head_dim), ("attention.v_up", spec.v_head_dim)):
        inner, columns = (width, spec.kv_lora_rank) if name == "attention.k_up" else (spec.kv_lora_rank, width)
        yield batched(
            name,
            matrices=heads,
            rows=q.tokens,
            inner=inner,
            columns=columns,
            kernels=0 if name == "attention.k_up" else 1,
            prefetched=name == "attention.k_up",
        )
    cache = cache_bytes(spec, family)
    if family.context_parallel:
        query = q.tokens * heads * (spec.kv_lora_rank + spec.qk_rope_head_dim) * BF16
        yield exchange_row("attention.query_gather", "all_gather", group=q.dcp, payload=query)
    yield from _fetch_offloaded(q, family, cache)
    # a die of a dcp group has the heads of the whole group and its part of the cache
    yield latent_decode_core(
        spec,
        pairs=q.pairs / q.dcp,
        tokens=q.tokens,
        cached_tokens=q.cached_tokens / q.dcp,
        sequences=q.sequences,
        queries=q.queries,
        heads=heads * q.dcp,
        cache=cache,
    )
    if family.context_parallel:
        partial = q.tokens * heads * spec.kv_lora_rank * BF16
        yield exchange_row("attention.partial_swap", "all_to_all", group=q.dcp, payload=partial)
        yield vector("attention.partial_merge", flop=4 * q.dcp * partial / BF16, traffic=(q.dcp + 1) * partial)


def _load_found(q: Quantities, entry: Bytes) -> Op:
    """Return the read of the caches of earlier prompts that new ones begin with, ``entry`` bytes a token.

    The dies of a rank share it, whatever part of it each then keeps.
    """
    found = q.loaded_tokens * entry / (q.tp * q.cp)
    return Op(name="attention.prefix_load", operator="pool_read", engine="link", kv_bytes=found, kernels=0)


def _fetch_offloaded(q: Quantities, family: Family, entry: Bytes) -> Iterator[Op]:
    """Yield the read of the part of the cache that is kept in the host's memory."""
    if family.offloads:
        fetched = q.cached_tokens / q.dcp * (1 - q.kv_resident) * entry
        yield Op(name="attention.kv_fetch", operator="host_read", engine="link", kv_bytes=fetched, kernels=0)


def latent_decode_core(
    spec: MlaSpec,
    *,
    pairs: Count,
    tokens: Count,
    cached_tokens: Count,
    sequences: Count,
    queries: Count,
    heads: Count,
    cache: Bytes,
) -> Op:
    """Row of latent attention in absorbed form: all heads of the die read one cache of ``cache`` bytes a token."""
    return Op(
        name="attention.core",
        operator="attention_decode",
        engine="cube_bf16",
        flop=absorbed_attention_flop(
            query_context_pairs=pairs,
            heads=heads,
            kv_lora_rank=spec.kv_lora_rank,
            qk_rope_head_dim=spec.qk_rope_head_dim,
        ),
        kv_bytes=cached_tokens * cache,
        activation_bytes=tokens * heads * (2 * spec.kv_lora_rank + spec.qk_rope_head_dim) * BF16,
        sequences=sequences,
        context=cached_tokens / sequences,
        heads=heads,
        query_rows=heads * queries,
    )


def _mla_prefill_core(q: Quantities, spec: MlaSpec, heads: Count) -> Iterator[Op]:
    yield linear(
        "attention.kv_up",
        rows=q.cached_tokens,
        inner=spec.kv_lora_rank,
        columns=heads * (spec.qk_nope_head_dim + spec.v_head_dim),
        weight_element_bytes=BF16,
        engine="cube_bf16",
    )
    yield latent_prefill_core(
        spec, pairs=q.pairs, tokens=q.tokens, sequences=q.sequences, heads=heads, context=q.context
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


def _gqa(q: Quantities, family: Family, dims: Dims, spec: GqaSpec) -> Iterator[Op]:
    weight, engine = family.weight_element_bytes, family.linear_engine
    heads = spec.num_attention_heads / q.tp
    key_value_heads = spec.num_key_value_heads / minimum(q.tp, spec.num_key_value_heads)
    yield linear(
        "attention.qkv",
        rows=q.tokens,
        inner=dims.hidden_size,
        columns=(heads + 2 * key_value_heads) * spec.head_dim,
        weight_element_bytes=weight,
        engine=engine,
        prefetched=True,
    )
    yield vector(
        "attention.rope_cache",
        flop=ROPE_FLOP * q.tokens * (heads + key_value_heads) * spec.head_dim,
        traffic=2 * BF16 * q.tokens * (heads + 2 * key_value_heads) * spec.head_dim,
    )
    decode = family.phase == "decode"
    kv_bytes = q.cached_tokens * cache_bytes_per_die(spec, family, q.tp)
    if decode:
        yield from _fetch_offloaded(q, family, cache_bytes_per_die(spec, family, q.tp))
    else:
        yield from _gather_context(q, family, cache_bytes_per_die(spec, family, q.tp))
        yield _load_found(q, cache_bytes(spec, family))
    yield grouped_query_core(
        spec,
        "attention_decode" if decode else "attention_prefill",
        pairs=q.pairs,
        tokens=q.tokens,
        sequences=q.sequences,
        context=q.context,
        heads=heads,
        key_value_heads=key_value_heads,
        kv_bytes=kv_bytes if decode else 0,
    )
    yield from _output_quantisation(q, family, heads * spec.head_dim)
    yield from _output_projection(q, family, dims, heads * spec.head_dim)


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
            query_context_pairs=pairs, heads=heads, qk_head_dim=spec.head_dim, v_head_dim=spec.head_dim
        ),
        kv_bytes=kv_bytes,
        activation_bytes=tokens * 2 * (heads + key_value_heads) * spec.head_dim * BF16,
        sequences=sequences,
        context=context,
        heads=heads,
    )


def _reshard(q: Quantities, family: Family, dims: Dims) -> Iterator[Op]:
    """Yield the exchanges of hidden states that tensor parallelism adds; all cost nothing at tp 1."""

    def row(name: str, collective: Collective, element_bytes: int) -> Op:
        return exchange_row(name, collective, group=q.tp, payload=q.rank_tokens * dims.hidden_size * element_bytes)

    match family.reduction:
        case "all_reduce":
            yield row("attention.all_reduce", "all_reduce", BF16)
        case "scatter_gather":
            yield row("attention.reduce_scatter", "reduce_scatter", BF16)
            yield row("attention.gather", "all_gather", family.weight_element_bytes)
        case "all_to_all":
            yield row("attention.gather", "all_gather", family.weight_element_bytes)
        case "sp_tp_sp":
            pass  # the low-rank inputs were gathered in their place
        case _:
            assert_never(family.reduction)


def attention_ops(q: Quantities, family: Family, dims: Dims, spec: MlaSpec | GqaSpec) -> Iterator[Op]:
    """Yield the rows of one attention layer on one die."""
    yield norm_quant(
        "attention.norm_quant",
        tokens=q.tokens if family.reduction == "all_reduce" else q.rank_tokens,
        width=dims.hidden_size,
        out_bytes=family.weight_element_bytes,
    )
    match spec:
        case MlaSpec():
            yield from _mla(q, family, dims, spec)
        case GqaSpec():
            yield from _gqa(q, family, dims, spec)
        case _:
            assert_never(spec)
    yield from _reshard(q, family, dims)
