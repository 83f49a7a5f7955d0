"""Shapes as benchmarks state them -> the operators of a ledger."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from perfmodel.formulas.attention import (
    absorbed_attention_flop,
    attention_flop,
    causal_pairs,
    gqa_cache_bytes,
    mla_cache_bytes,
)
from perfmodel.formulas.experts import experts_touched, gated_feed_forward_bytes, gated_feed_forward_flop
from perfmodel.formulas.linear import matmul_flop, matrix_bytes
from perfmodel.ledger.records import Collective, Engine, Exchange, Op, OperatorClass
from perfmodel.specs.model import GqaSpec, MlaSpec

BF16 = 2
Attention = MlaSpec | GqaSpec
Numbers = Mapping[str, float]


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
    build: Callable[[Numbers, Attention | None], tuple[Op, str]]
    defaults: Mapping[str, float]
    attention: bool = False


def _element(precision: str) -> tuple[int, Engine]:
    return (BF16, "cube_bf16") if precision == "bf16" else (1, "cube_int8")


def _product(operator: OperatorClass, precision: str) -> Callable[[Numbers, Attention | None], tuple[Op, str]]:
    element, engine = _element(precision)

    def build(row: Numbers, _: Attention | None) -> tuple[Op, str]:
        groups, rows, inner, columns = row.get("groups", 1.0), row["rows"], row["inner"], row["columns"]
        op = Op(
            name=operator,
            operator=operator,
            engine=engine,
            flop=groups * matmul_flop(rows=rows, inner=inner, columns=columns),
            weight_bytes=groups * matrix_bytes(rows=inner, columns=columns, element_bytes=element),
            activation_bytes=groups * rows * (inner * element + columns * BF16),
            matrices=groups,
            rows=rows,
            columns=columns,
        )
        many = f"{groups:g} x " if "groups" in row else ""
        return op, f"{many}{columns:g} x {inner:g}"

    return build


def _experts(precision: str) -> Callable[[Numbers, Attention | None], tuple[Op, str]]:
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
    assert attention is not None
    sequences, context, heads, queries = row["sequences"], row["context"], row["heads"], row["queries"]
    pairs = sequences * context * queries
    if isinstance(attention, MlaSpec):
        rank, rope = attention.kv_lora_rank, attention.qk_rope_head_dim
        flop = absorbed_attention_flop(query_context_pairs=pairs, heads=heads, kv_lora_rank=rank, qk_rope_head_dim=rope)
        cache = mla_cache_bytes(kv_lora_rank=rank, qk_rope_head_dim=rope, latent_bytes=BF16, rope_bytes=BF16)
        width = 2 * rank + rope
    else:
        size, groups = attention.head_dim, row["kv_heads"]
        flop = attention_flop(query_context_pairs=pairs, heads=heads, qk_head_dim=size, v_head_dim=size)
        cache = gqa_cache_bytes(num_key_value_heads=groups, head_dim=size, element_bytes=BF16)
        width = 2 * size
    op = Op(
        name="attention",
        operator="attention_decode",
        engine="cube_bf16",
        flop=flop,
        kv_bytes=sequences * context * cache,
        activation_bytes=sequences * queries * heads * width * BF16,
        sequences=sequences,
        context=context,
        heads=heads,
    )
    return op, f"{sequences:g} sequences, {heads:g} heads"


def _prefill(row: Numbers, attention: Attention | None) -> tuple[Op, str]:
    assert attention is not None
    sequences, tokens, heads = row["sequences"], row["isl"], row["heads"]
    if isinstance(attention, MlaSpec):
        query, value = attention.qk_nope_head_dim + attention.qk_rope_head_dim, attention.v_head_dim
    else:
        query = value = attention.head_dim
    op = Op(
        name="attention",
        operator="attention_prefill",
        engine="cube_bf16",
        flop=attention_flop(
            query_context_pairs=causal_pairs(sequences=sequences, isl=tokens),
            heads=heads,
            qk_head_dim=query,
            v_head_dim=value,
        ),
        activation_bytes=sequences * tokens * heads * 2 * (query + value) * BF16,
        sequences=sequences,
        context=tokens,
        heads=heads,
    )
    return op, f"{sequences:g} sequences, {heads:g} heads"


def _collective(kind: Collective) -> Callable[[Numbers, Attention | None], tuple[Op, str]]:
    """Shard of a rank for AllGather and ReduceScatter, the whole tensor for AllReduce and AllToAll."""
    whole = kind in ("all_reduce", "all_to_all")

    def build(row: Numbers, _: Attention | None) -> tuple[Op, str]:
        payload = row["bytes"] / row["dies"] if whole else row["bytes"]
        exchange = Exchange(collective=kind, group=row["dies"], payload=payload)
        return _link(kind, exchange), f"{row['dies']:g} dies"

    return build


def _messages(kind: Collective) -> Callable[[Numbers, Attention | None], tuple[Op, str]]:
    def build(row: Numbers, _: Attention | None) -> tuple[Op, str]:
        messages = row["tokens"] * row["topk"]
        exchange = Exchange(collective=kind, group=row["dies"], payload=row["message_bytes"], messages=messages)
        return _link(kind, exchange), f"{row['dies']:g} dies"

    return build


def _link(name: str, exchange: Exchange) -> Op:
    return Op(name=name, operator="exchange", engine="link", exchange=exchange, kernels=0)


def _operator(
    columns: str,
    build: Callable[[Numbers, Attention | None], tuple[Op, str]],
    attention: bool = False,
    **defaults: float,
) -> Operator:
    return Operator(columns=tuple(columns.split()), build=build, defaults=defaults, attention=attention)


_MESSAGE = "dies tokens topk message_bytes"
_EXPERTS = "tokens hidden_size intermediate_size experts topk local_experts"

#: the words that a table's ``operator`` column may hold
OPERATORS: dict[str, Operator] = {
    "matmul_bf16": _operator("rows inner columns", _product("matmul", "bf16")),
    "matmul_int8": _operator("rows inner columns", _product("matmul", "int8")),
    "grouped_matmul_bf16": _operator("groups rows inner columns", _product("grouped_matmul", "bf16")),
    "grouped_matmul_int8": _operator("groups rows inner columns", _product("grouped_matmul", "int8")),
    "experts_bf16": _operator(_EXPERTS, _experts("bf16")),
    "experts_int8": _operator(_EXPERTS, _experts("int8")),
    "batched_matmul_bf16": _operator("groups rows inner columns", _product("batched_matmul", "bf16")),
    "attention_decode": _operator("sequences context heads", _decode, attention=True, queries=1.0, kv_heads=1.0),
    "attention_prefill": _operator("sequences isl heads", _prefill, attention=True),
    "all_gather": _operator("dies bytes", _collective("all_gather")),
    "reduce_scatter": _operator("dies bytes", _collective("reduce_scatter")),
    "all_reduce": _operator("dies bytes", _collective("all_reduce")),
    "all_to_all": _operator("dies bytes", _collective("all_to_all")),
    "dispatch": _operator(_MESSAGE, _messages("dispatch")),
    "combine": _operator(_MESSAGE, _messages("combine")),
    "bulk_dispatch": _operator(_MESSAGE, _messages("bulk_dispatch")),
    "bulk_combine": _operator(_MESSAGE, _messages("bulk_combine")),
}
