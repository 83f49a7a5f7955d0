"""Shapes as benchmarks state them -> the operators of a ledger."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from perfmodel.formulas.attention import causal_pairs, gqa_cache_bytes, mla_cache_bytes
from perfmodel.formulas.experts import experts_touched, gated_feed_forward_bytes, gated_feed_forward_flop
from perfmodel.ledger.grouped_attention import grouped_query_core
from perfmodel.ledger.indexer import choice_row
from perfmodel.ledger.latent_attention import latent_decode_core, latent_prefill_core
from perfmodel.ledger.records import Collective, Engine, Exchange, Op
from perfmodel.ledger.rows import BF16, batched, linear
from perfmodel.specs.attention import AttentionSpec, GqaSpec, MlaSpec

Attention = AttentionSpec
Numbers = Mapping[str, float]
Build = Callable[[Numbers, Attention | None], tuple[Op, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One measured call: the operator, its shape in words, and its time in seconds."""

    op: Op
    #: rows of one shape are never on both sides of a cross-validation
    shape: str
    time: float
    where: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """What one word of the ``operator`` column needs, and how it becomes an operator and a shape."""

    columns: tuple[str, ...]
    build: Build
    defaults: Mapping[str, float]
    attention: bool = False


def _element(precision: str) -> tuple[int, Engine]:
    return (BF16, "cube_bf16") if precision == "bf16" else (1, "cube_int8")


def _dense(precision: str) -> Build:
    element, engine = _element(precision)

    def build(row: Numbers, _: Attention | None) -> tuple[Op, str]:
        rows, inner, columns = row["rows"], row["inner"], row["columns"]
        op = linear("matmul", rows=rows, inner=inner, columns=columns, weight_element_bytes=element, engine=engine)
        return op, f"{columns:g} x {inner:g}"

    return build


def _grouped(precision: str) -> Build:
    """One product of each of several groups, all of the same rows."""
    element, engine = _element(precision)

    def build(row: Numbers, _: Attention | None) -> tuple[Op, str]:
        groups, rows, inner, columns = row["groups"], row["rows"], row["inner"], row["columns"]
        one = linear("matmul", rows=rows, inner=inner, columns=columns, weight_element_bytes=element, engine=engine)
        op = replace(
            one,
            name="grouped_matmul",
            operator="grouped_matmul",
            flop=groups * one.flop,
            weight_bytes=groups * one.weight_bytes,
            activation_bytes=groups * one.activation_bytes,
            matrices=groups,
        )
        return op, f"{groups:g} x {columns:g} x {inner:g}"

    return build


def _batched(row: Numbers, _: Attention | None) -> tuple[Op, str]:
    matrices, rows, inner, columns = row["groups"], row["rows"], row["inner"], row["columns"]
    op = batched("batched_matmul", matrices=matrices, rows=rows, inner=inner, columns=columns)
    return op, f"{matrices:g} x {columns:g} x {inner:g}"


def _experts(precision: str) -> Build:
    """Gate-up and down of one rank's routed experts, two products in one measurement."""
    element, engine = _element(precision)

    def build(row: Numbers, _: Attention | None) -> tuple[Op, str]:
        tokens, hidden, width = row["tokens"], row["hidden_size"], row["intermediate_size"]
        experts, held, copies = row["experts"], row["local_experts"], row["topk"]
        routed = tokens * copies * held / experts
        touched = experts_touched(group_tokens=tokens, num_experts_per_tok=copies, slots=experts, slots_per_rank=held)
        weight = gated_feed_forward_bytes(hidden_size=hidden, intermediate_size=width, element_bytes=element)
        op = Op(
            name="experts",
            operator="grouped_matmul",
            engine=engine,
            flop=gated_feed_forward_flop(tokens=routed, hidden_size=hidden, intermediate_size=width),
            weight_bytes=touched * weight,
            activation_bytes=routed * (hidden * (element + BF16) + width * (element + 2 * BF16)),
            kernels=2,
            matrices=2 * touched,
            rows=routed / touched,
            columns=(2 * width + hidden) / 2,
        )
        return op, f"{held:g} of {experts:g} experts of {hidden:g} x {width:g}"

    return build


def _decode(row: Numbers, attention: Attention | None) -> tuple[Op, str]:
    sequences, context, heads, queries = row["sequences"], row["context"], row["heads"], row["queries"]
    tokens, pairs = sequences * queries, sequences * queries * context
    shape = f"{sequences:g} sequences, {heads:g} heads"
    if isinstance(attention, MlaSpec):
        cache = mla_cache_bytes(
            kv_lora_rank=attention.kv_lora_rank,
            qk_rope_head_dim=attention.qk_rope_head_dim,
            latent_bytes=BF16,
            rope_bytes=BF16,
        )
        return latent_decode_core(
            attention,
            pairs=pairs,
            tokens=tokens,
            cached_tokens=sequences * context,
            sequences=sequences,
            queries=queries,
            heads=heads,
            cache=cache,
        ), shape
    assert isinstance(attention, GqaSpec)
    cache = gqa_cache_bytes(
        num_key_value_heads=row["kv_heads"],
        head_dim=attention.head_dim,
        v_head_dim=attention.value_dim,
        element_bytes=BF16,
    )
    return grouped_query_core(
        attention,
        "attention_decode",
        pairs=pairs,
        tokens=tokens,
        sequences=sequences,
        context=context,
        heads=heads,
        key_value_heads=row["kv_heads"],
        kv_bytes=sequences * context * cache,
    ), shape


def _choice(row: Numbers, _: Attention | None) -> tuple[Op, str]:
    rows, keys = row["rows"], row["keys"]
    return choice_row(rows=rows, keys=keys, topk=row["topk"]), f"{rows:g} rows of {keys:g} keys"


def _prefill(row: Numbers, attention: Attention | None) -> tuple[Op, str]:
    sequences, isl, heads = row["sequences"], row["isl"], row["heads"]
    pairs, tokens = causal_pairs(sequences=sequences, isl=isl), sequences * isl
    shape = f"{sequences:g} sequences, {heads:g} heads"
    if isinstance(attention, MlaSpec):
        core = latent_prefill_core(
            attention, pairs=pairs, tokens=tokens, sequences=sequences, heads=heads, context=tokens / sequences
        )
        return core, shape
    assert isinstance(attention, GqaSpec)
    return grouped_query_core(
        attention,
        "attention_prefill",
        pairs=pairs,
        tokens=tokens,
        sequences=sequences,
        context=isl,
        heads=heads,
        key_value_heads=row["kv_heads"],
        kv_bytes=0,
    ), shape


def _collective(kind: Collective) -> Build:
    """Shard of a rank for AllGather and ReduceScatter, the whole tensor for AllReduce and AllToAll."""
    whole = kind in ("all_reduce", "all_to_all")

    def build(row: Numbers, _: Attention | None) -> tuple[Op, str]:
        payload = row["bytes"] / row["dies"] if whole else row["bytes"]
        exchange = Exchange(collective=kind, group=row["dies"], payload=payload)
        return _link(kind, exchange), f"{row['dies']:g} dies"

    return build


def _messages(kind: Collective) -> Build:
    def build(row: Numbers, _: Attention | None) -> tuple[Op, str]:
        messages = row["tokens"] * row["topk"]
        exchange = Exchange(
            collective=kind, group=row["dies"], payload=row["message_bytes"], messages=messages, copies=row["topk"]
        )
        return _link(kind, exchange), f"{row['dies']:g} dies"

    return build


def _link(name: str, exchange: Exchange) -> Op:
    return Op(name=name, operator="exchange", engine="link", exchange=exchange, kernels=0)


def _operator(
    columns: str,
    build: Build,
    attention: bool = False,
    **defaults: float,
) -> Operator:
    return Operator(columns=tuple(columns.split()), build=build, defaults=defaults, attention=attention)


_MESSAGE = "dies tokens topk message_bytes"
_EXPERTS = "tokens hidden_size intermediate_size experts topk local_experts"

#: the words that a table's ``operator`` column may hold
OPERATORS: dict[str, Operator] = {
    "matmul_bf16": _operator("rows inner columns", _dense("bf16")),
    "matmul_int8": _operator("rows inner columns", _dense("int8")),
    "grouped_matmul_bf16": _operator("groups rows inner columns", _grouped("bf16")),
    "grouped_matmul_int8": _operator("groups rows inner columns", _grouped("int8")),
    "experts_bf16": _operator(_EXPERTS, _experts("bf16")),
    "experts_int8": _operator(_EXPERTS, _experts("int8")),
    "batched_matmul_bf16": _operator("groups rows inner columns", _batched),
    "attention_decode": _operator("sequences context heads", _decode, attention=True, queries=1.0, kv_heads=1.0),
    "attention_prefill": _operator("sequences isl heads", _prefill, attention=True, kv_heads=1.0),
    "top_k": _operator("rows keys topk", _choice),
    "all_gather": _operator("dies bytes", _collective("all_gather")),
    "reduce_scatter": _operator("dies bytes", _collective("reduce_scatter")),
    "all_reduce": _operator("dies bytes", _collective("all_reduce")),
    "all_to_all": _operator("dies bytes", _collective("all_to_all")),
    "dispatch": _operator(_MESSAGE, _messages("dispatch")),
    "combine": _operator(_MESSAGE, _messages("combine")),
    "bulk_dispatch": _operator(_MESSAGE, _messages("bulk_dispatch")),
    "bulk_combine": _operator(_MESSAGE, _messages("bulk_combine")),
}
