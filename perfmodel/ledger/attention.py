"""Attention spec -> rows: latent (absorbed in decode, causal in prefill) and grouped-query."""

from collections.abc import Iterator
from typing import assert_never

from perfmodel.algebra import minimum
from perfmodel.formulas.attention import absorbed_attention_flop, attention_flop, gqa_cache_bytes, mla_cache_bytes
from perfmodel.ledger.records import Dims, Exchange, Family, Op, Quantities
from perfmodel.ledger.rows import BF16, linear, norm_quant, vector
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


def _mla(q: Quantities, family: Family, dims: Dims, spec: MlaSpec) -> Iterator[Op]:
    weight, engine = family.weight_element_bytes, family.linear_engine
    heads = spec.num_attention_heads / q.tp
    qk_width = spec.qk_nope_head_dim + spec.qk_rope_head_dim
    yield linear(
        "attention.qkv_down",
        rows=q.tokens,
        inner=dims.hidden_size,
        columns=spec.q_lora_rank + spec.kv_lora_rank + spec.qk_rope_head_dim,
        weight_element_bytes=weight,
        engine=engine,
    )
    yield linear(
        "attention.q_up",
        rows=q.tokens,
        inner=spec.q_lora_rank,
        columns=heads * qk_width,
        weight_element_bytes=weight,
        engine=engine,
        kernels=0 if family.phase == "decode" else 1,
    )
    latent = spec.kv_lora_rank + spec.qk_rope_head_dim
    yield vector(
        "attention.rope_cache",
        flop=ROPE_FLOP * q.tokens * (latent + heads * spec.qk_rope_head_dim),
        traffic=2 * BF16 * q.tokens * (spec.q_lora_rank + latent + heads * spec.qk_rope_head_dim),
    )
    if family.phase == "decode":
        yield from _mla_decode_core(q, family, spec, heads)
    else:
        yield from _mla_prefill_core(q, spec, heads)
    yield linear(
        "attention.o_proj",
        rows=q.tokens,
        inner=heads * spec.v_head_dim,
        columns=dims.hidden_size,
        weight_element_bytes=weight,
        engine=engine,
    )


def _mla_decode_core(q: Quantities, family: Family, spec: MlaSpec, heads: Count) -> Iterator[Op]:
    for name, width in (("attention.k_up", spec.qk_nope_head_dim), ("attention.v_up", spec.v_head_dim)):
        yield linear(
            name,
            rows=q.tokens,
            inner=heads * width,
            columns=spec.kv_lora_rank,
            weight_element_bytes=BF16,
            engine="cube_bf16",
            operator="batched_matmul",
            kernels=0 if name == "attention.k_up" else 1,
        )
    yield Op(
        name="attention.core",
        operator="attention_decode",
        engine="cube_bf16",
        flop=absorbed_attention_flop(
            query_context_pairs=q.pairs,
            heads=heads,
            kv_lora_rank=spec.kv_lora_rank,
            qk_rope_head_dim=spec.qk_rope_head_dim,
        ),
        kv_bytes=q.cached_tokens * cache_bytes(spec, family),
        activation_bytes=q.tokens * heads * (2 * spec.kv_lora_rank + spec.qk_rope_head_dim) * BF16,
        sequences=q.sequences,
        context=q.cached_tokens / q.sequences,
        heads=heads,
    )


def _mla_prefill_core(q: Quantities, spec: MlaSpec, heads: Count) -> Iterator[Op]:
    yield linear(
        "attention.kv_up",
        rows=q.tokens,
        inner=spec.kv_lora_rank,
        columns=heads * (spec.qk_nope_head_dim + spec.v_head_dim),
        weight_element_bytes=BF16,
        engine="cube_bf16",
    )
    qk_width = spec.qk_nope_head_dim + spec.qk_rope_head_dim
    yield Op(
        name="attention.core",
        operator="attention_prefill",
        engine="cube_bf16",
        flop=attention_flop(query_context_pairs=q.pairs, heads=heads, qk_head_dim=qk_width, v_head_dim=spec.v_head_dim),
        activation_bytes=q.tokens * heads * 2 * (qk_width + spec.v_head_dim) * BF16,
        sequences=q.sequences,
        context=q.tokens / q.sequences,
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
    )
    yield vector(
        "attention.rope_cache",
        flop=ROPE_FLOP * q.tokens * (heads + key_value_heads) * spec.head_dim,
        traffic=2 * BF16 * q.tokens * (heads + 2 * key_value_heads) * spec.head_dim,
    )
    decode = family.phase == "decode"
    kv_bytes = q.cached_tokens * cache_bytes_per_die(spec, family, q.tp)
    yield Op(
        name="attention.core",
        operator="attention_decode" if decode else "attention_prefill",
        engine="cube_bf16",
        flop=attention_flop(
            query_context_pairs=q.pairs, heads=heads, qk_head_dim=spec.head_dim, v_head_dim=spec.head_dim
        ),
        kv_bytes=kv_bytes if decode else 0,
        activation_bytes=q.tokens * 2 * (heads + key_value_heads) * spec.head_dim * BF16,
        sequences=q.sequences,
        context=q.cached_tokens / q.sequences,
        heads=heads,
    )
    yield linear(
        "attention.o_proj",
        rows=q.tokens,
        inner=heads * spec.head_dim,
        columns=dims.hidden_size,
        weight_element_bytes=weight,
        engine=engine,
    )


def _reshard(q: Quantities, family: Family, dims: Dims) -> Iterator[Op]:
    """Yield the exchanges that tensor parallelism adds; all cost nothing at tp 1."""
    width = dims.hidden_size

    def row(name: str, collective: str, element_bytes: int) -> Op:
        exchange = Exchange(
            collective=collective,  # type: ignore[arg-type]
            group=q.tp,
            payload=q.rank_tokens * width * element_bytes,
        )
        return Op(name=name, operator="exchange", engine="link", exchange=exchange, kernels=0)

    if family.reduction == "all_reduce":
        yield row("attention.all_reduce", "all_reduce", BF16)
        yield row("attention.gather", "all_gather", BF16)
    else:
        yield row("attention.reduce_scatter", "reduce_scatter", BF16)
        yield row("attention.gather", "all_gather", family.weight_element_bytes)


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
