"""Rows, loads, blocks and memory of a step, derived again from sizes by hand.

Sizes and loads are odd and unlike each other, so that no term hides behind another.  Sources are docs/method.md and
the equations that the docstrings of ``perfmodel.formulas`` cite; bytes and FLOP of an element are spelt out here.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from inspect import Parameter, signature
from math import ceil, exp, isclose, log, sqrt
from statistics import NormalDist
from typing import Any

import pytest

from perfmodel.ledger.caches import entry_bytes_per_die
from perfmodel.ledger.footprint import Footprint, cache_of_model, footprint, kept_weights, part_bytes, weight_bytes
from perfmodel.ledger.grouped_attention import grouped_query_core
from perfmodel.ledger.latent_attention import latent_decode_core, latent_prefill_core
from perfmodel.ledger.quantities import contexts, quantities, routing
from perfmodel.ledger.records import Dims, Exchange, Family, Layout, Ledger, Op, Quantities, Traffic
from perfmodel.ledger.rows import batched, exchange_row, linear, norm_quant, vector
from perfmodel.ledger.step import build_ledger, dims_of, ledger_of_loads
from perfmodel.specs.attention import GqaSpec, MlaSpec
from perfmodel.specs.deployment import LayoutSpec
from perfmodel.specs.model import ModelSpec

# a model of odd sizes
HIDDEN, WIDE, WIDTH, VOCABULARY = 101, 211, 53, 307
EXPERTS, TOP_K, SHARED, GROUPS, TOP_GROUPS = 41, 5, 2, 7, 3
LAYERS, DENSE, DRAFT_LAYERS = 11, 3, 2
HEADS, Q_RANK, RANK, NOPE, ROPE, VALUE = 13, 17, 19, 23, 29, 31
KV_HEADS, HEAD = 5, 59

MLA = MlaSpec(
    kind="mla",
    num_attention_heads=HEADS,
    q_lora_rank=Q_RANK,
    kv_lora_rank=RANK,
    qk_nope_head_dim=NOPE,
    qk_rope_head_dim=ROPE,
    v_head_dim=VALUE,
)
GQA = GqaSpec(kind="gqa", num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, head_dim=HEAD)


def model_of(attention: MlaSpec | GqaSpec = MLA, *, shared: int = SHARED, **changes: Any) -> ModelSpec:
    base = {
        "name": "odd",
        "title": "Odd sizes",
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "first_k_dense_replace": DENSE,
        "intermediate_size": WIDE,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 997,
        "num_nextn_predict_layers": DRAFT_LAYERS,
        "attention": attention.model_dump(),
        "experts": {
            "n_routed_experts": EXPERTS,
            "num_experts_per_tok": TOP_K,
            "n_shared_experts": shared,
            "moe_intermediate_size": WIDTH,
            "n_group": GROUPS,
            "topk_group": TOP_GROUPS,
        },
        "checks": {"parameters": 1, "active_parameters": 1, "kv_bytes_per_token_bf16": 1},
        "sources": {},
    }
    return ModelSpec.model_validate(base | changes)


MODEL, GROUPED = model_of(), model_of(GQA)
DIMS = Dims(
    hidden_size=HIDDEN,
    intermediate_size=WIDE,
    moe_intermediate_size=WIDTH,
    n_routed_experts=EXPERTS,
    n_shared_experts=SHARED,
    num_experts_per_tok=TOP_K,
    n_group=GROUPS,
    topk_group=TOP_GROUPS,
    vocab_size=VOCABULARY,
)
# loads that no layout need have: rows are linear in them
LOADS = Quantities(
    tokens=113.5,
    sequences=7.25,
    queries=3.5,
    context=419.5,
    rank_tokens=37.75,
    head_tokens=59.5,
    group_tokens=907.25,
    pairs=10007.5,
    cached_tokens=3001.5,
    loaded_tokens=211.25,
    slots_per_rank=6,
    touched=4.75,
    routed_tokens=331.5,
    shared_tokens=149.75,
    copies=6,
    group=47,
    tp=3,
    cp=1,
    dcp=1,
    expert_tp=1,
    o_proj_tp=1,
    head_tp=1,
    dense_tp=1,
    embedding_tp=1,
    kv_resident=1,
    kv_hit=0,
    steps=2,
)
MODULES = {"o_proj": 4.0, "head": 11.0, "dense": 6.0, "embedding": 9.0}


def family_of(phase: str = "decode", **changes: Any) -> Family:
    return Family(**({"phase": phase, "own_shared_ranks": False, "overlap": "none", "exchange": "dispatch"} | changes))


def loads_of(family: Family, **changes: Any) -> Quantities:
    """Return the odd loads with the parts that a family is split in."""
    parts: dict[str, Any] = {f"{module}_tp": MODULES[module] for module in family.split}
    if family.context_parallel:
        parts |= {"cp": 5} if family.phase == "prefill" else {"dcp": 7}
    if family.split_experts:
        parts["expert_tp"] = 8
    if family.offloads:
        parts["kv_resident"] = 0.625
    return replace(LOADS, **(parts | changes))


def layout_of(**changes: Any) -> Layout:
    base = {"dies": 24, "tp": 1, "shared_ranks": 0, "redundant": 0, "batch": 6, "draft": 0, "attention_cores": 16}
    return Layout(**(base | changes))


def ledger_by(family: Family, q: Quantities, model: ModelSpec = MODEL, dims: Dims = DIMS, **axes: Any) -> Ledger:
    return ledger_of_loads(q, layout_of(**axes), family, model, dims)


# -------------------------------------------------------------------------------------------------------------- rows

Row = dict[str, Any]
LINK: Row = {"joined": 1, "messages": 1, "hops": 1, "copies": 1, "n_group": 1, "topk_group": 1}
LINK |= {"attention_messages": None, "expert_messages": None}
BLANK: Row = {
    "flop": 0,
    "weight_bytes": 0,
    "activation_bytes": 0,
    "kv_bytes": 0,
    "resident_bytes": 0,
    "exchange": None,
    "kernels": 1,
    "prefetched": False,
    "matrices": 1,
    "rows": 1,
    "columns": 1,
    "unpacked": None,
    "sequences": 1,
    "context": 1,
    "heads": 1,
    "query_rows": None,
    "seen": None,
    "edges": (),
}


def row(name: str, operator: str, engine: str, **given: Any) -> Row:
    return BLANK | {"name": name, "operator": operator, "engine": engine} | given


def product(name: str, m: float, k: float, n: float, byte: int, operator: str = "matmul", **given: Any) -> Row:
    """Return m x k times k x n: two FLOP for each of m k n; weights and inputs of ``byte`` bytes, outputs of two."""
    held = k * n * byte
    return row(
        name,
        operator,
        {1: "cube_int8", 2: "cube_bf16"}[byte],
        **{
            "flop": m * k * n + m * k * n,
            "weight_bytes": held,
            "resident_bytes": held,
            "activation_bytes": m * k * byte + m * n + m * n,
            "rows": m,
            "columns": n,
        }
        | given,
    )


def elementwise(name: str, flop: float, traffic: float, kernels: int = 1) -> Row:
    return row(name, "vector", "vector", flop=flop, activation_bytes=traffic, kernels=kernels)


def norm(name: str, elements: float, out: int) -> Row:
    """Return add, norm and quantisation: read x and residual, write the sum in BF16 and the normed value in ``out``."""
    return elementwise(name, 8 * elements, (2 + 2 + 2 + out) * elements)


def link(name: str, collective: str, group: float, payload: float, **given: Any) -> Row:
    """Return a communication: no kernel of the cores, bytes of one die's shard."""
    exchange = LINK | {"collective": collective, "group": group, "payload": payload} | given
    return row(name, "exchange", "link", kernels=0, exchange=exchange)


def differences(found: Any, wanted: Row) -> Iterator[str]:
    for field in fields(found):
        value, want = getattr(found, field.name), wanted[field.name]
        if isinstance(want, dict):
            yield from differences(value, want) if value is not None else ["no exchange"]
        elif isinstance(want, (int, float)) and not isinstance(want, bool):
            if not isclose(value, want, rel_tol=1e-9, abs_tol=0):
                yield f"{field.name}: {value} is not {want}"
        elif value != want:
            yield f"{field.name}: {value} is not {want}"


def check(found: Sequence[Op], wanted: Sequence[Row], about: object = None) -> None:
    assert [op.name for op in found] == [one["name"] for one in wanted], about
    for op, one in zip(found, wanted, strict=True):
        wrong = list(differences(op, one))
        assert not wrong, f"{op.name}: {wrong} of {about}"


def test_rows_of_a_product() -> None:
    """A product of m x k by k x n takes 2 m k n FLOP; each of several matrices has its own inputs and outputs."""
    got = linear("a", rows=7.5, inner=11, columns=13, weight_element_bytes=1, engine="cube_int8")
    check([got], [product("a", 7.5, 11, 13, 1)])
    got = linear(
        "a",
        rows=7.5,
        inner=11,
        columns=13,
        weight_element_bytes=2,
        engine="cube_bf16",
        kernels=3,
        operator="prolog_matmul",
        prefetched=True,
    )
    check([got], [product("a", 7.5, 11, 13, 2, "prolog_matmul", kernels=3, prefetched=True)])
    for kernels, ahead in ((1, False), (3, True)):
        chosen = {} if kernels == 1 else {"kernels": kernels, "prefetched": ahead}
        several = batched("b", matrices=17, rows=7.5, inner=11, columns=13, **chosen)
        size = {
            "flop": 17 * 2 * 7.5 * 11 * 13,
            "weight_bytes": 17 * 286,
            "resident_bytes": 17 * 286,
            "activation_bytes": 17 * 7.5 * (22 + 26),
        }
        shape = {"kernels": kernels, "prefetched": ahead, "matrices": 17, "rows": 7.5, "columns": 13}
        check([several], [row("b", "batched_matmul", "cube_bf16", **size, **shape)])


def test_rows_of_vectors_and_links() -> None:
    """Norm: two BF16 read, one and the output written, 8 FLOP; a collective has no kernel and one message a die."""
    check([vector("v", flop=3.5, traffic=7.5)], [elementwise("v", 3.5, 7.5)])
    check([vector("v", flop=3.5, traffic=7.5, kernels=2)], [elementwise("v", 3.5, 7.5, 2)])
    check([norm_quant("n", tokens=7.5, width=11, out_bytes=1)], [norm("n", 82.5, 1)])
    check([norm_quant("n", tokens=7.5, width=11, out_bytes=2, kernels=3)], [norm("n", 82.5, 2) | {"kernels": 3}])
    check([exchange_row("x", "all_gather", group=5, payload=7.5)], [link("x", "all_gather", 5, 7.5)])
    got = exchange_row("x", "dispatch", group=5, payload=7.5, joined=3, messages=11)
    check([got], [link("x", "dispatch", 5, 7.5, joined=3, messages=11)])


@pytest.mark.parametrize(
    ("build", "before"),
    [
        (linear, 1),
        (batched, 1),
        (vector, 1),
        (norm_quant, 1),
        (exchange_row, 2),
        (latent_decode_core, 1),
        (latent_prefill_core, 1),
        (grouped_query_core, 2),
        (Family.of, 2),
    ],
)
def test_sizes_go_by_name(build: Callable[..., object], before: int) -> None:
    """Two sizes given by their order could be swapped unseen: CONTRIBUTING.md, keyword-only."""
    kinds = [one.kind for one in signature(build).parameters.values()]
    assert kinds[:before] == [Parameter.POSITIONAL_OR_KEYWORD] * before
    assert set(kinds[before:]) == {Parameter.KEYWORD_ONLY}


def test_records_of_a_row() -> None:
    """A row without sizes is empty, one kernel of one matrix; bytes and messages add up; kernels go by their class."""
    check([Op(name="o", operator="vector", engine="vector")], [row("o", "vector", "vector")])
    bare = Exchange(collective="all_gather", group=3, payload=5)
    assert not list(differences(bare, LINK | {"collective": "all_gather", "group": 3, "payload": 5}))
    full = Op(name="o", operator="matmul", engine="cube_int8", weight_bytes=3, kv_bytes=7, activation_bytes=13)
    assert (full.bytes, full.sent) == (23, 0)
    sends = Exchange(collective="dispatch", group=3, payload=5, messages=7)
    assert Op(name="o", operator="exchange", engine="link", exchange=sends).sent == sends.sent == 35
    kernels = {
        ("matmul", "cube_int8", None): "matmul_int8",
        ("prolog_matmul", "cube_bf16", None): "prolog_matmul_bf16",
        ("attention_decode", "cube_bf16", None): "attention_decode",
        ("exchange", "link", "all_gather"): "collective",
        ("exchange", "link", "reduce_scatter"): "collective",
        ("exchange", "link", "all_reduce"): "collective",
        ("exchange", "link", "all_to_all"): "all_to_all",
        ("exchange", "link", "bulk_combine"): "bulk_combine",
    }
    for (operator, engine, collective), kernel in kernels.items():
        one = None if collective is None else Exchange(collective=collective, group=2, payload=1)  # type: ignore
        assert Op(name="o", operator=operator, engine=engine, exchange=one).kernel == kernel  # type: ignore


# --------------------------------------------------------------------------------------------------------- attention


def entry_of(family: Family, spec: MlaSpec | GqaSpec) -> float:
    """Bytes of a token in one layer's cache: latent and rope part, or a key and a value for each head of them."""
    byte = {"bf16": 2, "int8": 1}[family.kv_dtype]
    return RANK * byte + ROPE * 2 if spec is MLA else byte * HEAD * KV_HEADS + byte * HEAD * KV_HEADS


def output_projection(q: Quantities, family: Family, inner: float) -> list[Row]:
    """Table of parallel forms: heads swapped for tokens, split over dies of its own, or rows of the tp group."""
    byte = family.weight_element_bytes
    if family.reduction in {"all_to_all", "sp_tp_sp"}:
        swap = link("attention.swap_heads", "all_to_all", 3, q.rank_tokens * inner * byte)
        whole = product("attention.o_proj", q.rank_tokens, 3 * inner, HIDDEN, byte)
        if family.o_proj_sharded:
            whole["resident_bytes"] = inner * HIDDEN * byte  # a third of the rows
        return [swap, whole]
    if "o_proj" in family.split:  # each of 4 dies takes a quarter of the heads of all four's tokens
        return [
            link("attention.swap_heads", "all_to_all", 4, q.tokens * (inner / 4) * byte),
            product("attention.o_proj", 4 * q.tokens, inner / 4, HIDDEN, byte),
            link("attention.o_proj_scatter", "reduce_scatter", 4, 2 * HIDDEN * q.tokens),
        ]
    return [product("attention.o_proj", q.tokens, inner, HIDDEN, byte)]


def joins(q: Quantities, family: Family) -> list[Row]:
    """Table of parallel forms: what joins the parts of tokens after attention, among a tp group of three."""
    state, byte = q.rank_tokens * HIDDEN, family.weight_element_bytes
    normed = link("attention.gather", "all_gather", 3, state * byte)
    sums = link("attention.all_reduce", "all_reduce", 3, state * 2)
    return {
        "scatter_gather": [link("attention.reduce_scatter", "reduce_scatter", 3, state * 2), normed],
        "all_to_all": [normed],
        "sp_tp_sp": [],
        "all_reduce": [sums],
    }[family.reduction]


def latent_by_hand(q: Quantities, family: Family) -> Iterator[Row]:
    byte, heads, decode = family.weight_element_bytes, HEADS / 3, family.phase == "decode"
    fused = 0 if decode else 1  # decode: one prolog kernel for all up to the absorbed queries
    early = family.reduction == "sp_tp_sp"
    ahead = {"operator": "prolog_matmul" if decode else "matmul", "prefetched": True}
    yield product(
        "attention.qkv_down", q.rank_tokens if early else q.tokens, HIDDEN, Q_RANK + RANK + ROPE, byte, **ahead
    )
    if early:  # queries in the precision of the next product, cache entries in BF16
        low = Q_RANK * byte + 2 * RANK + 2 * ROPE
        yield link("attention.latent_gather", "all_gather", 3, low * q.rank_tokens)
    yield product("attention.q_up", q.tokens, Q_RANK, heads * NOPE + heads * ROPE, byte, kernels=fused, **ahead)
    turned = RANK + ROPE + heads * ROPE
    yield elementwise("attention.rope_cache", 3 * turned * q.tokens, 4 * (Q_RANK + turned) * q.tokens, fused)
    entry = entry_of(family, MLA)
    if decode:
        yield from absorbed_by_hand(q, family, heads, entry)
    else:
        if family.context_parallel:
            yield link("attention.context_gather", "all_gather", 15, q.cached_tokens / 5 * entry, joined=3)
        dies = 15 if family.context_parallel else 3
        yield row("attention.prefix_load", "pool_read", "link", kv_bytes=entry * q.loaded_tokens / dies, kernels=0)
        yield product("attention.kv_up", q.cached_tokens, RANK, heads * NOPE + heads * VALUE, 2)
        per_head = (NOPE + ROPE) + VALUE  # query and output; key and value
        yield row(
            "attention.core",
            "attention_prefill",
            "cube_bf16",
            flop=q.pairs * heads * (2 * (NOPE + ROPE) + 2 * VALUE),
            activation_bytes=2 * heads * per_head * q.tokens + 2 * heads * per_head * q.sequences * q.context,
            sequences=q.sequences,
            context=q.context,
            heads=heads,
        )
    yield from ending(q, family, heads * VALUE)


def absorbed_by_hand(q: Quantities, family: Family, heads: float, entry: float) -> Iterator[Row]:
    """[deepseek2024v2] 2.1.2: up-projections go to queries and outputs, each head attends over the latent itself."""
    for name, width, first in (("k_up", NOPE, True), ("v_up", VALUE, False)):
        held = 2 * heads * RANK * width
        yield row(
            f"attention.{name}",
            "batched_matmul",
            "cube_bf16",
            flop=2 * q.tokens * heads * RANK * width,
            weight_bytes=held,
            resident_bytes=held,
            activation_bytes=2 * heads * q.tokens * (RANK + width),
            kernels=0 if first else 1,
            prefetched=first,
            matrices=heads,
            rows=q.tokens,
            columns=RANK if first else width,
        )
    group = 7 if family.context_parallel else 1
    queries, outputs = q.tokens * heads * (RANK + ROPE), q.tokens * heads * RANK
    if group > 1:
        yield link("attention.query_gather", "all_gather", 7, 2 * queries)
    read = q.cached_tokens / group
    if family.offloads:
        yield row("attention.kv_fetch", "host_read", "link", kv_bytes=read * 0.375 * entry, kernels=0)
    yield row(
        "attention.core",
        "attention_decode",
        "cube_bf16",
        flop=q.pairs * heads * (2 * (RANK + ROPE) + 2 * RANK),  # of a 7th of the pairs, seven times the heads
        kv_bytes=read * entry,
        activation_bytes=group * 2 * (queries + outputs),
        sequences=q.sequences,
        context=read / q.sequences,
        heads=heads * group,
        query_rows=heads * group * 3.5,
    )
    if group > 1:  # a die reads seven partial outputs and writes one; four FLOP rescale and add an element
        yield link("attention.partial_swap", "all_to_all", 7, 2 * outputs)
        yield elementwise("attention.partial_merge", 4 * 7 * outputs, 2 * 7 * outputs + 2 * outputs)


def ending(q: Quantities, family: Family, inner: float) -> Iterator[Row]:
    if family.precision == "w8a8":  # find the scale, apply it: read BF16, write INT8
        yield elementwise("attention.output_quant", 2 * q.tokens * inner, 3 * q.tokens * inner)
    yield from output_projection(q, family, inner)
    yield from joins(q, family)


def grouped_by_hand(q: Quantities, family: Family, tp: int) -> Iterator[Row]:
    """A die has 1/tp of the query heads and of the key-value heads, of which it has one at least."""
    byte, heads, entry = family.weight_element_bytes, HEADS / tp, entry_of(family, GQA)
    owners = min(tp, KV_HEADS)
    queries, keys = heads * HEAD, KV_HEADS / owners * HEAD
    yield product("attention.qkv", q.tokens, HIDDEN, queries + keys + keys, byte, prefetched=True)
    turned, written = q.tokens * (queries + keys), q.tokens * (queries + keys + keys)
    yield elementwise("attention.rope_cache", 3 * turned, 2 * written + 2 * written)
    decode = family.phase == "decode"
    if decode and family.offloads:
        fetched = q.cached_tokens * 0.375 * entry / owners
        yield row("attention.kv_fetch", "host_read", "link", kv_bytes=fetched, kernels=0)
    if not decode:
        if family.context_parallel:
            part = q.cached_tokens / 5 * entry / owners
            yield link("attention.context_gather", "all_gather", 5 * tp, part, joined=tp)
        dies = tp * (5 if family.context_parallel else 1)
        yield row("attention.prefix_load", "pool_read", "link", kv_bytes=q.loaded_tokens * entry / dies, kernels=0)
    yield row(
        "attention.core",
        "attention_decode" if decode else "attention_prefill",
        "cube_bf16",
        flop=q.pairs * heads * (2 * HEAD + 2 * HEAD),
        kv_bytes=q.cached_tokens * entry / owners if decode else 0,  # prefill has keys and values at hand
        activation_bytes=2 * q.tokens * (queries + keys + keys + queries),
        sequences=q.sequences,
        context=q.context,
        heads=heads,
    )
    if tp == 3:
        yield from ending(q, family, queries)


def attentions() -> list[Family]:
    """Return every structure that attention knows."""
    axes = itertools.product(
        ("all_reduce", "scatter_gather", "all_to_all", "sp_tp_sp"),
        ("dispatch", "gather"),
        ("w8a8", "bf16"),
        ("bf16", "int8"),
        ("", "o_proj", "o_proj_sharded"),
        (False, True),
        (False, True),
        ("decode", "prefill"),
    )
    return [
        family_of(
            phase,
            reduction=reduction,
            exchange=exchange,
            precision=precision,
            kv_dtype=kv,
            split=frozenset([form]) if form == "o_proj" else frozenset(),
            o_proj_sharded=form == "o_proj_sharded",
            context_parallel=context,
            offloads=offloads,
        )
        for reduction, exchange, precision, kv, form, context, offloads, phase in axes
        if not (form == "o_proj" and reduction in {"all_to_all", "sp_tp_sp"})
    ]


def attention_norm(q: Quantities, family: Family) -> Row:
    """With whole sums every die norms all tokens of its rank, else its own."""
    tokens = q.tokens if family.reduction == "all_reduce" else q.rank_tokens
    return norm("attention.norm_quant", tokens * HIDDEN, family.weight_element_bytes)


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_rows_of_latent_attention(phase: str) -> None:
    """Section 1 of docs/method.md and [deepseek2024v2] 2.1.2: absorbed in decode, unfolded in prefill."""
    for family in attentions():
        if family.phase == phase:
            q = loads_of(family)
            wanted = [attention_norm(q, family), *latent_by_hand(q, family)]
            check(ledger_by(family, q).parts["attention"], wanted, family)


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_rows_of_grouped_attention(phase: str) -> None:
    """[vaswani2017] 3.2.1: 2 p h (d + d) FLOP; key-value heads are split as far as there are some."""
    for family in attentions():
        if family.phase == phase and not (phase == "decode" and family.context_parallel):
            q = loads_of(family)
            wanted = [attention_norm(q, family), *grouped_by_hand(q, family, 3)]
            check(ledger_by(family, q, GROUPED).parts["attention"], wanted, family)


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_key_value_heads_are_copied_beyond_their_number(phase: str) -> None:
    """Eleven dies share five key-value heads: each has one whole."""
    for context in (False, phase == "prefill"):
        family = family_of(phase, offloads=True, context_parallel=context)
        q = loads_of(family, tp=11)
        wanted = [attention_norm(q, family), *grouped_by_hand(q, family, 11)]
        check(ledger_by(family, q, GROUPED).parts["attention"][: len(wanted)], wanted, family)


# ------------------------------------------------------------------------------------------------------ feed-forward


def gated(
    part: str, operator: str, family: Family, tokens: float, touched: float, stored: float, width: float, four: bool
) -> Iterator[Row]:
    """[shazeer2020] equation 6: two products up, their gated product, one down; the experts read, the experts kept."""
    byte = family.weight_element_bytes
    matrix = HIDDEN * width * (0.5 if four else byte)
    engine = {1: "cube_int8", 2: "cube_bf16"}[byte]
    shape = {"matrices": touched, "rows": tokens / touched}
    yield row(
        f"{part}.gate_up",
        operator,
        engine,
        flop=2 * tokens * HIDDEN * (width + width),
        weight_bytes=touched * (matrix + matrix),
        resident_bytes=stored * (matrix + matrix),
        activation_bytes=tokens * HIDDEN * byte + 2 * tokens * (width + width),
        columns=width + width,
        unpacked=touched * HIDDEN * (width + width) if four else None,
        **shape,
    )
    yield elementwise(f"{part}.activation", 8 * tokens * width, tokens * width * (2 + 2 + byte))
    yield row(
        f"{part}.down",
        operator,
        engine,
        flop=2 * tokens * width * HIDDEN,
        weight_bytes=touched * matrix,
        resident_bytes=stored * matrix,
        activation_bytes=tokens * width * byte + 2 * tokens * HIDDEN,
        columns=HIDDEN,
        unpacked=touched * HIDDEN * width if four else None,
        **shape,
    )


@pytest.mark.parametrize("precision", ["w8a8", "bf16"])
def test_rows_of_feed_forwards(precision: str) -> None:
    """6 t d w FLOP and 3 d w weights of each expert; dense layers may be split over six dies, experts over eight."""
    for parts, split, four in itertools.product((False, True), (False, True), (False, True)):
        family = family_of(
            precision=precision,
            split_experts=parts,
            split=frozenset({"dense"}) if split else frozenset(),
            expert_weights="int4" if four else "int8",
        )
        q, byte = loads_of(family), family.weight_element_bytes
        ledger = ledger_by(family, q)
        width = WIDTH / 8 if parts else WIDTH
        check(
            ledger.parts["routed"], [*gated("experts", "grouped_matmul", family, 331.5, 4.75, 6, width, four)], family
        )
        check(ledger.parts["shared"], [*gated("shared", "matmul", family, 149.75, 1, 1, 2 * 53, False)], family)
        dense = [norm("dense.norm_quant", 37.75 * HIDDEN, byte)]
        if split:
            dense.append(link("dense.gather", "all_gather", 6, 37.75 * HIDDEN * byte))
        dies = 6 if split else 1
        dense += gated("dense", "matmul", family, 37.75 * dies, 1, 1, WIDE / dies, False)
        if split:
            dense.append(link("dense.scatter", "reduce_scatter", 6, 37.75 * HIDDEN * 2))
        check(ledger.parts["dense"], dense, family)


@pytest.mark.parametrize("precision", ["w8a8", "bf16"])
@pytest.mark.parametrize("exchange", ["dispatch", "gather"])
def test_whole_sums_split_feed_forwards_and_embedding(exchange: str, precision: str) -> None:
    """Three dies have all tokens of their rank and a third of each matrix; parts are summed once.

    The sum of the shared expert is in that of the routed ones where these end with an AllReduce over the instance.
    """
    family = family_of(reduction="all_reduce", exchange=exchange, precision=precision)
    ledger, byte = ledger_by(family, loads_of(family)), family.weight_element_bytes
    state = 37.75 * HIDDEN * 2
    dense = [
        norm("dense.norm_quant", 113.5 * HIDDEN, byte),
        *gated("dense", "matmul", family, 113.5, 1, 1, WIDE / 3, False),
        link("dense.all_reduce", "all_reduce", 3, state),
    ]
    check(ledger.parts["dense"], dense, family)
    shared = [*gated("shared", "matmul", family, 3 * 149.75, 1, 1, 2 * 53 / 3, False)]
    if exchange == "dispatch":
        shared.append(link("shared.all_reduce", "all_reduce", 3, 149.75 * HIDDEN * 2))
        check(ledger.parts["exchange"][-1:], [link("exchange.rejoin", "all_gather", 3, state)], family)
    check(ledger.parts["shared"], shared, family)
    look = elementwise("embedding.lookup", 0, 4 * 113.5 * HIDDEN) | {"resident_bytes": VOCABULARY * HIDDEN * 2 / 3}
    table = [look, link("embedding.all_reduce", "all_reduce", 3, 113.5 / 3 * HIDDEN * 2)]
    check(ledger.parts["embedding"], table, family)


@pytest.mark.parametrize(
    "kind", [{"own_shared_ranks": True}, {"overlap": "stages"}], ids=["own shared ranks", "stages"]
)
def test_shared_experts_away_from_attention_stay_whole(kind: dict[str, Any]) -> None:
    """Whole sums split what lies on the dies of a tp group; a shared expert on dies of its own is on none."""
    family = family_of(reduction="all_reduce", **kind)
    shared = ledger_by(family, loads_of(family)).parts["shared"]
    check(shared, [*gated("shared", "matmul", family, 149.75, 1, 1, 2 * 53, False)], family)


def message(family: Family) -> int:
    """Bytes of a dispatched token: BF16, or INT8 and a scale's slot, 7.5 KiB of 7168 values as [zuo2025] has it."""
    return 2 * HIDDEN if family.precision == "bf16" else HIDDEN + (7680 - 7168)


def test_rows_of_the_router() -> None:
    """A BF16 product with one column an expert, ten FLOP a logit and its four bytes.

    With whole sums a die norms all tokens of its rank, and routes them all where it gathers those of the others.
    """
    for reduction, exchange, precision in itertools.product(
        ("all_reduce", "scatter_gather", "all_to_all"), ("dispatch", "gather"), ("w8a8", "bf16")
    ):
        family = family_of(reduction=reduction, exchange=exchange, precision=precision)
        tokens = 113.5 if (reduction, exchange) == ("all_reduce", "gather") else 37.75
        normed = 113.5 if reduction == "all_reduce" else 37.75
        wanted = [
            norm("router.norm_quant", normed * HIDDEN, family.weight_element_bytes),
            product("router.logits", tokens, HIDDEN, EXPERTS, 2),
            elementwise("router.top_k", 10 * tokens * EXPERTS, 4 * tokens * EXPERTS),
        ]
        check(ledger_by(family, loads_of(family)).parts["gate"], wanted, family)


@pytest.mark.parametrize("precision", ["w8a8", "bf16"])
@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_rows_of_gathered_tokens(phase: str, precision: str) -> None:
    """Split sums: AllGather, ReduceScatter.  Whole sums: a third of each rank's BF16 tokens crosses, then AllReduce."""
    for reduction in ("all_reduce", "scatter_gather", "all_to_all"):
        family = family_of(phase, exchange="gather", reduction=reduction, precision=precision)
        there, back = message(family), 2 * HIDDEN
        # copies are written as sent and read, read and written back; the sum of each token is written once
        permute = elementwise(
            "exchange.permute",
            331.5 * HIDDEN,
            331.5 * there + 331.5 * there + 331.5 * back + 331.5 * back + 907.25 * back,
            2,
        )
        if reduction == "all_reduce":
            other_ranks = (47 - 3) / 3
            wanted = [
                link("exchange.all_gather", "all_gather", 47, 37.75 * back, joined=3),
                link("exchange.all_gather_inside", "all_gather", 3, other_ranks * 37.75 * back),
                permute,
                link("exchange.all_reduce", "all_reduce", 47, 37.75 * back),
            ]
        else:
            wanted = [
                link("exchange.all_gather", "all_gather", 47, 37.75 * there),
                permute,
                link("exchange.reduce_scatter", "reduce_scatter", 47, 37.75 * back),
            ]
        check(ledger_by(family, loads_of(family)).parts["exchange"], wanted, family)


KINDS: tuple[tuple[dict[str, Any], int], ...] = (
    ({}, SHARED),
    ({"own_shared_ranks": True}, SHARED),
    ({"split_experts": True}, SHARED),
    ({"overlap": "stages"}, SHARED),
    ({"overlap": "stages"}, 1),
    ({"overlap": "stages"}, 0),
    ({"overlap": "cores"}, SHARED),
)


@pytest.mark.parametrize("precision", ["w8a8", "bf16"])
@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_rows_of_dispatched_tokens(phase: str, precision: str) -> None:
    """A rank sends a message for each copy of its tokens and gets what its experts work: the larger counts."""
    loads = (
        {},  # sends 226.5, gets 331.5 routed, 149.75 shared
        {"shared_tokens": 503.25},
        {"rank_tokens": 503.25},  # sends the most
        {"rank_tokens": 3.25},  # sends least, less than an eighth of what its rank gets
    )
    for (kind, shared), change in itertools.product(KINDS, loads):
        family = family_of(phase, precision=precision, **kind)
        q = loads_of(family, **change)
        dims, model = replace(DIMS, n_shared_experts=shared), model_of(shared=shared)
        there, back = message(family), 2 * HIDDEN
        gets = q.routed_tokens
        if family.own_shared_ranks:
            gets = max(q.routed_tokens, q.shared_tokens)
        if family.split_experts:
            gets = q.routed_tokens / 8
        stages = family.overlap == "stages"
        if stages and shared:  # experts' dies work both
            gets = q.routed_tokens + q.shared_tokens
        size = {"messages": max(6 * q.rank_tokens, gets), "hops": 2 if stages else 1}
        size |= {"copies": 6, "n_group": GROUPS, "topk_group": TOP_GROUPS}
        if stages and phase == "decode":
            size |= {"attention_messages": 6 * q.rank_tokens, "expert_messages": gets}
        bulk = "" if phase == "decode" else "bulk_"
        inside: list[Row] = []
        if phase == "prefill":
            sent = 6 * q.rank_tokens
            traffic = 2 * there * q.routed_tokens + 2 * back * sent
            inside = [elementwise("exchange.permute", sent * HIDDEN, traffic, 2)]
        elif family.split_experts:
            copies = {"messages": q.routed_tokens}
            inside = [
                link("exchange.expert_gather", "dispatch", 8, there, **copies),
                link("exchange.expert_scatter", "combine", 8, back, **copies),
            ]
        wanted = [
            link("exchange.dispatch", f"{bulk}dispatch", 47, there, **size),
            *inside,
            link("exchange.combine", f"{bulk}combine", 47, back, **size),
        ]
        check(ledger_by(family, q, model, dims).parts["exchange"], wanted, (family, change))


# ------------------------------------------------------------------------------------------------- the ends of a step


@pytest.mark.parametrize("overlap", ["none", "link", "cores", "stages"])
def test_rows_of_embedding_head_and_draft(overlap: str) -> None:
    """Table look-up (read and write), logits of 1/3 of the vocabulary, hidden state beside embedding into a draft."""
    micro = {"none": 1, "link": 2, "cores": 2, "stages": 4}[overlap]
    for split in ((), ("embedding",), ("head",), ("embedding", "head")):
        family = family_of(overlap=overlap, micro_batches=4, split=frozenset(split))
        ledger = ledger_by(family, loads_of(family))
        states = 113.5 * micro * HIDDEN
        table = VOCABULARY * HIDDEN * 2
        look = elementwise("embedding.lookup", 0, 2 * states + 2 * states)
        wanted = [look | {"resident_bytes": table / 9 if "embedding" in split else table}]
        if "embedding" in split:
            wanted.append(link("embedding.scatter", "reduce_scatter", 9, 2 * states))
        check(ledger.parts["embedding"], wanted, family)
        if "head" in split:
            columns = VOCABULARY / 33
            head = [
                link("head.gather", "all_gather", 11, 59.5 * HIDDEN * 2),
                product("head.logits", 11 * 59.5, HIDDEN, columns, 2),
                link("head.swap", "all_to_all", 11, 59.5 * columns * 2),
            ]
        else:
            head = [product("head.logits", 59.5, HIDDEN, VOCABULARY / 3, 2)]
        check(ledger.parts["head"], head, family)
        joined = 2 if overlap in ("link", "cores") else 1  # before the step is split
        check(ledger.parts["draft"], [product("draft.eh_proj", 37.75 * joined, HIDDEN + HIDDEN, HIDDEN, 2)], family)


def test_sizes_of_a_model() -> None:
    """Names of config.json, one for one."""
    assert {f.name: getattr(dims_of(MODEL), f.name) for f in fields(Dims)} == {
        f.name: getattr(DIMS, f.name) for f in fields(Dims)
    }


def test_parts_are_those_a_model_has() -> None:
    """Dense layers, shared experts and draft layers have rows where there are some."""
    always = {"embedding", "attention", "gate", "exchange", "routed", "head"}
    family = family_of()
    for dense, shared, drafts in itertools.product((0, 1, 3), (0, 1, 2), (0, 1, 2)):
        model = model_of(shared=shared, first_k_dense_replace=dense, num_nextn_predict_layers=drafts)
        ledger = ledger_by(family, LOADS, model, replace(DIMS, n_shared_experts=shared))
        has = {name for name, many in (("dense", dense), ("shared", shared), ("draft", drafts)) if many}
        assert set(ledger.parts) == always | has
        names = [block.name for block in ledger.blocks]
        middle = ["dense_layer"] * bool(dense) + ["moe_layer"] + ["draft_layer", "draft_input"] * bool(drafts)
        assert names == ["embedding", *middle, "head"]
    bare = Ledger(parts={}, blocks=(), quantities=LOADS)
    assert (bare.steps, bare.draft) == (1, 0)


@pytest.mark.parametrize("overlap", ["link", "cores"])
@pytest.mark.parametrize("attention", [MLA, GQA], ids=["latent", "grouped"])
def test_layers_without_experts_are_those_of_a_step_that_is_not_split(overlap: str, attention: Any) -> None:
    """All tokens of both micro-batches, every weight read once: the rows of a serial family, one for one."""
    model = model_of(attention)
    split, whole = (
        build_ledger(layout_of(), family_of(overlap=one), TRAFFIC, model, DIMS) for one in (overlap, "none")
    )
    for part, serial in (("dense_attention", "attention"), ("dense", "dense"), ("draft", "draft")):
        assert len(split.parts[part]) == len(whole.parts[serial])
        for one, other in zip(split.parts[part], whole.parts[serial], strict=True):
            assert (one.name, one.flop, one.bytes, one.rows) == (
                other.name, pytest.approx(other.flop), pytest.approx(other.bytes), pytest.approx(other.rows)
            )  # fmt: skip


def layer_by_hand(family: Family, shared: bool) -> Row:
    """Section 4: which lane each part of a layer with experts is in."""
    apart, own = family.overlap == "stages", shared and family.own_shared_ranks
    where = "nowhere"
    if shared:
        where = "joined" if own else "beside" if family.shared_stream else "plain"
    attention, experts = ["attention"], ["exchange"]
    (attention if apart else experts).append("gate")
    experts.sort(key=["shared", "gate", "exchange", "routed"].index)
    if where == "plain":
        experts.insert(0, "shared")
    if not own:
        experts.append("routed")
    return {
        "attention": tuple(attention),
        "experts": tuple(experts),
        "joined": ("routed", "shared") if own else (),
        "beside": ("shared",) if where == "beside" else (),
        "fused": ("routed",) if family.fused_experts else (),
        "overlapped": family.overlap in {"link", "cores", "stages"},
        "passes": {"none": 1, "link": 2, "cores": 2, "stages": 3}[family.overlap],
        "domains": 5,
    }


def test_blocks_of_a_step() -> None:
    """Section 4: 3 dense layers, joined, 8 others; a draft layer, input and head more for each position in use."""
    plain: Row = {"joined": (), "beside": (), "fused": (), "overlapped": False, "domains": 1, "passes": 1}
    plain |= {"is_layer": False}
    once: Row = plain | {"count": 1, "layers": 1, "experts": ()}
    for overlap, own, shared, stream, fused, draft, kept in itertools.product(
        ("none", "link", "cores", "stages"), (False, True), (0, 2), (False, True), (False, True), (0, 1, 5), (0, 2)
    ):
        if own and overlap == "stages":
            continue
        family = family_of(
            overlap=overlap, own_shared_ranks=own, shared_stream=stream, fused_experts=fused, micro_batches=3
        )
        model = model_of(shared=shared, num_nextn_predict_layers=kept)
        ledger = ledger_by(family, LOADS, model, draft=draft, domains=5)
        layer = layer_by_hand(family, bool(shared))
        joined = overlap in ("link", "cores")
        dense = 1 if joined else layer["passes"]
        wanted = [
            once | {"name": "embedding", "attention": ("embedding",)},
            plain
            | {"name": "dense_layer", "count": 3, "layers": 3, "experts": ("dense",), "passes": dense}
            | {"attention": ("dense_attention",) if joined else ("attention",), "is_layer": True},
            layer | {"name": "moe_layer", "count": 8, "layers": 8, "is_layer": True},
        ]
        if kept:
            times = {"count": draft, "layers": min(draft, 2)}
            wanted.append(layer | {"name": "draft_layer", "is_layer": False} | times)
            wanted.append(once | {"name": "draft_input", "attention": ("draft",), "passes": dense} | times)
        wanted.append(once | {"name": "head", "attention": ("head",), "count": 1 + (draft if kept else 0)})
        assert len(ledger.blocks) == len(wanted)
        for block, want in zip(ledger.blocks, wanted, strict=True):
            assert not list(differences(block, want)), (block, family)
        assert (ledger.steps, ledger.draft, ledger.quantities) == (2, draft, LOADS)


@pytest.mark.parametrize("draft", [3, 4, 7])
@pytest.mark.parametrize("overlap", ["none", "link", "cores", "stages"])
@pytest.mark.parametrize("shared", [0, 2])
def test_blocks_of_drafts_beyond_the_draft_layers(draft: int, overlap: str, shared: int) -> None:
    """Two draft layers: two runs of 1 + draft tokens, the rest of one token a sequence, whose weights are kept once."""
    family, model = family_of(overlap=overlap, micro_batches=3), model_of(shared=shared)
    layout = layout_of(draft=draft, batch=12, **({"expert_dies": 9, "dies": 54} if overlap == "stages" else {}))
    ledger = build_ledger(layout, family, TRAFFIC, model, DIMS)
    alone = build_ledger(replace(layout, draft=0), family, TRAFFIC, model, DIMS)
    whole = build_ledger(replace(layout, draft=2), family, TRAFFIC, model, DIMS)
    blocks = {block.name: block for block in ledger.blocks}
    assert [blocks[name].count for name in ("draft_layer", "draft_input", "head")] == [2, 2, 3]
    for name, like in (("redraft_layer", "moe_layer"), ("redraft_input", "draft_input"), ("redraft_head", "head")):
        again, first = blocks[name], blocks[like]
        assert (again.count, again.layers) == (draft - 2, 0)
        assert (again.passes, again.overlapped, again.domains) == (first.passes, first.overlapped, first.domains)
        for lane in ("attention", "experts", "joined", "fused", "beside"):
            assert getattr(again, lane) == tuple(f"{part}_again" for part in getattr(first, lane))
            for part in getattr(first, lane):
                check(ledger.parts[f"{part}_again"], [as_row(op) for op in alone.parts[part]], (name, part))
    assert weight_bytes(ledger, family) == tuple(near_bytes(size) for size in weight_bytes(whole, family))


def near_bytes(size: float) -> Any:
    return pytest.approx(size, rel=1e-12)


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_drafts_that_each_have_a_layer_run_none_again(phase: str) -> None:
    """At most as many drafts as draft layers, or a prompt, whose pass fills each layer's cache once."""
    for draft in (0, 1, 2) if phase == "decode" else (0, 1, 2, 5):
        ledger = build_ledger(layout_of(draft=draft), family_of(phase), TRAFFIC, MODEL, DIMS)
        blocks = {block.name: block for block in ledger.blocks}
        assert not any(name.startswith("redraft") for name in blocks)
        assert not any(name.endswith("_again") for name in ledger.parts)
        assert (blocks["draft_layer"].count, blocks["head"].count) == (min(draft, 2), 1 + min(draft, 2))


# ------------------------------------------------------------------------------------------------------------- loads

TRAFFIC = Traffic(
    isl=60,
    osl=29,
    skew=0.7,
    residual=0.3,
    chance=0.9,
    context_spread=0.8,
    prefix_hit=0.25,
    isl_spread=0.2,
    variety=0.6,
)


def z(count: float) -> float:
    """Expected largest of ``count`` normals, [blom1958]."""
    return NormalDist().inv_cdf((count - 0.375) / (count + 0.25))


def passes(family: Family) -> int:
    return {"none": 1, "link": 2, "cores": 2, "stages": family.micro_batches}[family.overlap]


def prompts_by_hand(layout: Layout, family: Family, traffic: Traffic) -> Row:
    """Count pairs and cache entries of prompts one by one: half above, half below the mean of the busiest rank.

    Their mean is 1 + z(D) c / sqrt(b) of all; about it they spread by c, which in a sample of b shows as
    c sqrt(1 - 1/b).  Every prompt finds the same part of itself and is worked in equal chunks.
    """
    b, hit, c = layout.batch, traffic.prefix_hit, traffic.isl_spread
    assert b % 2 == 0
    ranks = (layout.dies - layout.expert_dies) / layout.tp / layout.cp
    longest = 1 + z(ranks) * c / sqrt(b)
    off = c * sqrt(1 - 1 / b)
    lengths = [traffic.isl * (longest + sign * off) for sign in (-1, 1) for _ in range(b // 2)]
    new = traffic.isl * (1 - hit)
    steps = ceil(new / layout.chunk) if layout.chunk else 1
    # each new token sees what was found, those before it and itself
    pairs = sum(length * (1 - hit) * (length * hit + (length * (1 - hit) + 1) / 2) for length in lengths)
    entries = [hit * traffic.isl + new * (n + 1) / steps for n in range(steps)]  # by the end of each step
    many = passes(family)
    mean = b * new / steps / (many * layout.cp)
    return {
        "tokens": longest * mean,
        "mean_tokens": mean,
        "pairs": pairs / steps / many / layout.cp,
        "cached_tokens": sum(lengths) / traffic.isl * (sum(entries) / steps) / many,
        "loaded_tokens": sum(lengths) * hit / steps / many,
        "context": sum(entries) / steps,
        "steps": steps,
        "head_tokens": b,
    }


def answers_by_hand(layout: Layout, family: Family, traffic: Traffic) -> Row:
    """Progress is uniform over the output: mean half of it, spread 1/sqrt(12); the fullest of D ranks counts."""
    b, verified, many = layout.batch, layout.draft + 1, passes(family)
    ranks = (layout.dies - layout.expert_dies) / layout.tp / layout.cp
    fullest = b * traffic.isl + b * traffic.osl / 2
    fullest += z(ranks) * traffic.context_spread * traffic.osl / 12**0.5 * b**0.5
    return {
        "tokens": b * verified / many,
        "mean_tokens": b * verified / many,
        "pairs": verified * fullest / many,
        "cached_tokens": fullest / many,
        "loaded_tokens": 0,
        "context": fullest / b,
        "steps": 1,
        "head_tokens": b * verified,
    }


def loads_by_hand(layout: Layout, family: Family, traffic: Traffic, shared: int) -> Row:
    """Section 1 of docs/method.md, from loads of attention to those of experts."""
    load = (prompts_by_hand if family.phase == "prefill" else answers_by_hand)(layout, family, traffic)
    stages, many = family.overlap == "stages", passes(family)
    attention = (layout.dies - layout.expert_dies) / layout.domains  # dies that exchange with the experts
    experts = layout.expert_dies if stages else layout.dies
    everyone = load["mean_tokens"] * attention / layout.tp
    if stages:
        on_shared = everyone / layout.expert_dies
    elif family.own_shared_ranks:
        on_shared = everyone / layout.shared_ranks
    else:
        on_shared = load["mean_tokens"] / layout.tp
    ranks = (experts - layout.shared_ranks) / layout.expert_tp
    slots = EXPERTS + layout.redundant
    held = ceil(slots / ranks)
    alike = slots if traffic.residual <= traffic.skew else EXPERTS * (slots // EXPERTS)  # blind replicas help none
    mean = everyone * TOP_K / alike * held  # of a rank that holds the most slots
    data_parallel = (layout.dies - layout.expert_dies) / layout.tp / layout.cp
    sequences = max(1, layout.batch * data_parallel / layout.domains / many)
    unforeseen = min(traffic.skew, traffic.residual)
    variance = exp(unforeseen**2) * (1 + (exp(traffic.variety**2) - 1) / sequences) - 1
    a = min(z(ranks), sqrt(log(1 + (1 - 1 / ranks) * (variance / held + traffic.chance / mean))))
    apart = stages or family.own_shared_ranks
    return load | {
        "group_tokens": everyone,
        "shared_tokens": on_shared,
        "routed_ranks": ranks,
        "slots": slots,
        "slots_per_rank": held,
        "mean": mean,
        "variance": variance,
        "sequences": layout.batch / many,
        "queries": 1 + layout.draft,
        "rank_tokens": load["tokens"] / layout.tp,
        "touched": held * (1 - (1 - TOP_K / slots) ** everyone),
        "routed_tokens": mean * min(ranks, exp(z(ranks) * a - a * a / 2)),
        "copies": TOP_K + 1 if apart and shared else TOP_K,
        "group": attention + layout.expert_dies,
        **{
            axis: getattr(layout, axis)
            for axis in "tp cp dcp expert_tp o_proj_tp head_tp dense_tp embedding_tp kv_resident kv_hit".split()
        },
    }


AXES: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    ({}, {}),
    ({"batch": 4, "tp": 3, "draft": 2, "redundant": 3}, {"overlap": "cores"}),
    ({"dies": 33, "tp": 3, "shared_ranks": 7, "draft": 1}, {"own_shared_ranks": True, "overlap": "link"}),
    (
        {"dies": 54, "expert_dies": 9, "domains": 7, "tp": 3, "draft": 2, "batch": 8},
        {"overlap": "stages", "micro_batches": 3},
    ),
    ({"dies": 54, "expert_dies": 9, "batch": 10, "redundant": 6}, {"overlap": "stages", "micro_batches": 4}),
    (
        {"dies": 38, "expert_tp": 7, "redundant": 1, "tp": 5, "dcp": 5},
        {"split_experts": True, "context_parallel": True},
    ),
    (
        {"dies": 3, "tp": 3, "batch": 1, "draft": 1},
        {"overlap": "link"},
    ),  # half a sequence a micro-batch: counted as one
    (
        {"o_proj_tp": 2, "head_tp": 3, "dense_tp": 4, "embedding_tp": 6, "kv_resident": 0.5, "kv_hit": 0.7, "dies": 7},
        {},
    ),
)
PROMPT_AXES: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    ({}, {}),
    ({"batch": 4, "tp": 3}, {"overlap": "link"}),
    ({"dies": 30, "tp": 3, "cp": 5, "batch": 2, "chunk": 20}, {"chunked": True, "context_parallel": True}),
    (
        {"dies": 42, "tp": 3, "cp": 7, "batch": 8, "chunk": 7, "shared_ranks": 5},
        {"chunked": True, "overlap": "link", "own_shared_ranks": True},
    ),
    ({"dies": 35, "expert_tp": 7, "tp": 5, "batch": 4, "draft": 3}, {"split_experts": True, "exchange": "gather"}),
    ({"dies": 54, "expert_dies": 9, "domains": 7, "tp": 3, "batch": 2}, {"overlap": "stages", "micro_batches": 3}),
)


def deployments() -> list[tuple[str, dict[str, Any], dict[str, Any], int]]:
    """Return phase, axes, structure and shared experts; ranks of no shared expert are refused."""
    both = (("decode", AXES), ("prefill", PROMPT_AXES))
    all_ = [(phase, *each, shared) for phase, some in both for each in some for shared in (0, 1, SHARED)]
    return [one for one in all_ if one[3] or "shared_ranks" not in one[1]]


@pytest.mark.parametrize(("phase", "axes", "structure", "shared"), deployments())
def test_loads_of_the_busiest_ranks(phase: str, axes: dict, structure: dict, shared: int) -> None:
    """Section 1 of docs/method.md; pairs and cache entries of prompts are counted one by one."""
    layout, family = layout_of(**axes), family_of(phase, **structure)
    dims = replace(DIMS, n_shared_experts=shared)
    for traffic in (TRAFFIC, replace(TRAFFIC, isl_spread=0.0, prefix_hit=0.0, residual=1.1), TRAFFIC.even()):
        wanted = loads_by_hand(layout, family, traffic, shared)
        load = contexts(layout, family, traffic)
        assert not list(differences(load, wanted))
        assert not list(differences(routing(load, layout, family, traffic, dims), wanted))
        assert not list(differences(quantities(layout, family, traffic, dims), wanted))


@pytest.mark.parametrize("redundant", [0, 3, 6, 23, 41])
def test_the_fullest_rank_is_that_of_slots_dealt_one_by_one(redundant: int) -> None:
    """Slots dealt over the ranks in turn, every copy to a slot of equal share: the fullest rank counts."""
    slots = EXPERTS + redundant
    family, even = family_of("decode"), TRAFFIC.even()
    for ranks in range(1, slots + 1):
        held = [0] * ranks
        for slot in range(slots):
            held[slot % ranks] += 1
        q = quantities(layout_of(dies=ranks, batch=4, redundant=redundant), family, even, DIMS)
        assert q.slots_per_rank == max(held)
        assert q.routed_tokens == pytest.approx(4 * ranks * TOP_K * max(held) / slots, rel=1e-12)


@pytest.mark.parametrize("traffic", [TRAFFIC, TRAFFIC.even()], ids=["uneven", "even"])
@pytest.mark.parametrize("redundant", [0, 7])
def test_a_rank_less_never_helps_the_same_tokens(traffic: Traffic, redundant: int) -> None:
    """The same instance-wide tokens on one rank less: the busiest gets no fewer copies, and reads no fewer experts.

    An instance of one rank a slot, less one rank, has a rank of two: it gets twice the copies, and less only where
    two slots of uneven load are unlikely to be the two busiest.
    """
    family, slots = family_of("decode"), EXPERTS + redundant
    found = [
        quantities(layout_of(dies=ranks, batch=5040 / ranks, redundant=redundant), family, traffic, DIMS)
        for ranks in range(1, slots + 1)
    ]
    for fewer, more in itertools.pairwise(found):
        assert fewer.slots_per_rank >= more.slots_per_rank
        assert fewer.touched >= more.touched
        if fewer.slots_per_rank > more.slots_per_rank or traffic.chance == 0:
            assert fewer.routed_tokens >= more.routed_tokens
    assert 1.5 <= found[-2].routed_tokens / found[-1].routed_tokens <= 2 + 1e-9


def test_a_step_is_built_from_its_loads() -> None:
    """What is built from a layout is what is built from its loads."""
    layout, family = layout_of(tp=3, draft=1), family_of(overlap="link")
    whole = build_ledger(layout, family, TRAFFIC, MODEL, DIMS)
    q = quantities(layout, family, TRAFFIC, DIMS)
    assert not list(differences(whole.quantities, {f.name: getattr(q, f.name) for f in fields(q)}))
    assert whole.quantities.tokens == 6 * 2 / 2
    for name, part in ledger_of_loads(q, layout, family, MODEL, DIMS).parts.items():
        check(whole.parts[name], [as_row(op) for op in part])


def as_row(op: Op) -> Row:
    held = {f.name: getattr(op, f.name) for f in fields(op)}
    if op.exchange is not None:
        held["exchange"] = {f.name: getattr(op.exchange, f.name) for f in fields(op.exchange)}
    return held


@pytest.mark.parametrize(("isl", "hit", "chunk"), [(60, 0.25, 20), (60, 0.0, 7), (45, 0.2, 0), (64, 0.5, 31)])
def test_pairs_of_equal_prompts_are_those_of_a_loop(isl: int, hit: float, chunk: int) -> None:
    """Every new token looks at what was found, at those before it and at itself."""
    family = family_of("prefill", overlap="link", chunked=chunk > 0)
    layout = layout_of(batch=6, cp=2, dies=12, chunk=chunk)
    found = round(isl * hit)
    pairs = sum(1 for token in range(found, isl) for _ in range(token + 1))
    steps = len(range(0, isl - found, chunk)) if chunk else 1
    got = contexts(layout, family, replace(TRAFFIC.even(), isl=isl, prefix_hit=hit))
    assert got.pairs == pytest.approx(6 * pairs / steps / (2 * 2), rel=1e-9)
    assert got.steps == steps


# ----------------------------------------------------------------------------------------------------------- records


def test_even_requests_keep_lengths_and_what_they_find() -> None:
    """Section 1: balanced sets skew, residual, variety, chance, context_spread and isl_spread to 0."""
    even = TRAFFIC.even()
    assert (even.isl, even.osl, even.prefix_hit) == (60, 29, 0.25)
    assert (even.skew, even.residual, even.variety, even.chance) == (0, 0, 0, 0)
    assert (even.context_spread, even.isl_spread) == (0, 0)
    bare = Traffic(isl=1, osl=1, skew=1, residual=1, chance=1, context_spread=1)
    assert (bare.prefix_hit, bare.isl_spread, bare.variety) == (0, 0, 0)


def test_a_layout_says_nothing_of_what_it_has_not() -> None:
    """An axis left out is that of a layout file that leaves it out: one die, no chunk, all of the cache at hand."""
    spec = LayoutSpec(dies=24, batch=6)
    read, bare = Layout.of(spec), layout_of(attention_cores=0)
    for axis in fields(Layout):
        assert getattr(read, axis.name) == getattr(bare, axis.name) == getattr(spec, axis.name)
    full = LayoutSpec(
        dies=66, tp=2, cp=3, expert_dies=6, domains=5, batch=7, redundant=9, draft=1, dcp=8, expert_tp=10, chunk=11
    )
    assert all(getattr(Layout.of(full), axis.name) == getattr(full, axis.name) for axis in fields(Layout))
    assert Layout.of(full).ranks == 60 / 6
    assert layout_of(dies=26, expert_dies=5, tp=3, cp=7).ranks == 1
    assert layout_of(dies=26, expert_dies=5, tp=2, cp=7).ranks == 1.5  # of an open mesh some sizes do not divide


def test_the_structure_of_a_layout() -> None:
    """A form of parallelism is on from two dies, shared ranks from one, chunks from one token, the host below all."""
    plain = Family.of(LayoutSpec(dies=24, batch=6), "decode")
    assert plain == family_of()
    assert (plain.reduction, plain.precision, plain.kv_dtype, plain.expert_weights) == (
        *("scatter_gather", "w8a8", "bf16"),
        "int8",
    )
    assert not plain.split
    for flag in (
        "own_shared_ranks o_proj_sharded context_parallel split_experts fused_experts shared_stream chunked offloads"
    ).split():
        assert getattr(plain, flag) is False
    assert plain.micro_batches == 2
    changes: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"shared_ranks": 1}, {"own_shared_ranks": True}),
        ({"shared_ranks": 2}, {"own_shared_ranks": True}),
        ({"cp": 2}, {"context_parallel": True}),
        ({"dcp": 2}, {"context_parallel": True}),
        ({"cp": 3, "dcp": 2}, {"context_parallel": True}),
        ({"expert_tp": 2}, {"split_experts": True}),
        ({"chunk": 1}, {"chunked": True}),
        ({"chunk": 2}, {"chunked": True}),
        ({"kv_resident": 0.5}, {"offloads": True}),
        ({"o_proj_tp": 2}, {"split": frozenset({"o_proj"})}),
        ({"head_tp": 2, "dense_tp": 3}, {"split": frozenset({"head", "dense"})}),
        ({"embedding_tp": 2}, {"split": frozenset({"embedding"})}),
        ({"o_proj_sharded": True, "fused_experts": True}, {"o_proj_sharded": True, "fused_experts": True}),
        ({"shared_stream": True, "micro_batches": 3}, {"shared_stream": True, "micro_batches": 3}),
        ({"overlap": "link", "exchange": "gather"}, {"overlap": "link", "exchange": "gather"}),
        ({"reduction": "sp_tp_sp"}, {"reduction": "sp_tp_sp"}),
    ]
    for given, wanted in changes:
        assert Family.of(LayoutSpec(dies=24, batch=6, **given), "prefill") == family_of("prefill", **wanted)
    other = Family.of(LayoutSpec(dies=1, batch=1), "decode", precision="bf16", kv_dtype="int8", expert_weights="int4")
    assert other == family_of(precision="bf16", kv_dtype="int8", expert_weights="int4")


def test_what_a_structure_implies() -> None:
    """Sections 1 and 4: micro-batches by overlap, bytes and engine by precision, whole sums by two keys."""
    for overlap, micro in (("none", 1), ("link", 2), ("cores", 2), ("stages", 4)):
        family = family_of(overlap=overlap, micro_batches=4)
        assert (family.micro, family.disaggregated) == (micro, overlap == "stages")
    for precision, byte, engine in (("w8a8", 1, "cube_int8"), ("bf16", 2, "cube_bf16")):
        family = family_of(precision=precision)
        assert (family.weight_element_bytes, family.linear_engine) == (byte, engine)
    forms = {"all_reduce": False, "scatter_gather": False, "all_to_all": True, "sp_tp_sp": True}
    for (reduction, swaps), exchange in itertools.product(forms.items(), ("dispatch", "gather")):
        family = family_of(reduction=reduction, exchange=exchange)
        assert family.swaps_heads is swaps
        assert family.sums_whole is ((reduction, exchange) == ("all_reduce", "gather"))
        assert family.splits_layers is family.splits_shared is (reduction == "all_reduce")
        for away in ({"own_shared_ranks": True}, {"overlap": "stages"}):
            assert not family_of(reduction=reduction, exchange=exchange, **away).splits_shared


# ------------------------------------------------------------------------------------------------------------ memory


def held_by_hand(family: Family, attention: MlaSpec | GqaSpec, shared: int, layout: Layout) -> dict[str, float]:
    """Count the weights of one layer's parts on a die, matrix by matrix, by the model's own shapes."""
    w, tp = family.weight_element_bytes, layout.tp
    if attention is MLA:
        projections = HIDDEN * (Q_RANK + RANK + ROPE) * w + Q_RANK * HEADS * (NOPE + ROPE) * w / tp
        projections += RANK * HEADS * (NOPE + VALUE) * 2 / tp
        out = HEADS * VALUE * HIDDEN * w
    else:
        projections = HIDDEN * HEAD * (HEADS / tp + 2 * KV_HEADS / min(tp, KV_HEADS)) * w
        out = HEADS * HEAD * HIDDEN * w
    whole = family.reduction in {"all_to_all", "sp_tp_sp"} and not family.o_proj_sharded
    expert = 3 * HIDDEN * WIDTH * w
    experts_ranks = (layout.expert_dies if family.overlap == "stages" else layout.dies) - layout.shared_ranks
    slots = ceil((EXPERTS + layout.redundant) * layout.expert_tp / experts_ranks)
    split = tp if family.reduction == "all_reduce" else 1
    away = family.own_shared_ranks or family.overlap == "stages"
    return {
        "embedding": VOCABULARY * HIDDEN * 2 / layout.embedding_tp / split,
        "attention": projections + out / (1 if whole else tp * layout.o_proj_tp),
        "gate": HIDDEN * EXPERTS * 2,
        "routed": slots * expert * (0.5 if family.expert_weights == "int4" else 1) / layout.expert_tp,
        "shared": shared * expert / (1 if away else split),
        "dense": 3 * HIDDEN * WIDE * w / layout.dense_tp / split,
        "head": HIDDEN * VOCABULARY * 2 / tp / layout.head_tp,
        "draft": 2 * HIDDEN * HIDDEN * 2,
        "exchange": 0,
    }


HELD: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    ({"tp": 3, "draft": 1, "batch": 7}, {}),
    ({"tp": 3, "draft": 5, "redundant": 4}, {"precision": "bf16", "overlap": "link", "shared_stream": True}),
    ({"dies": 48, "tp": 3, "shared_ranks": 2, "draft": 1}, {"own_shared_ranks": True, "overlap": "cores"}),
    ({"tp": 3, "shared_ranks": 2, "redundant": 40}, {"own_shared_ranks": True, "exchange": "gather"}),
    (
        {"dies": 54, "expert_dies": 9, "domains": 5, "tp": 3, "draft": 1, "batch": 8},
        {"overlap": "stages", "micro_batches": 3, "kv_dtype": "int8"},
    ),
    (
        {"dies": 54, "expert_dies": 9, "domains": 5, "tp": 3, "draft": 2, "batch": 2},
        {"overlap": "stages", "micro_batches": 3, "shared_stream": True, "expert_weights": "int4"},
    ),
    ({"tp": 3, "batch": 11}, {"reduction": "all_to_all", "o_proj_sharded": True}),
    ({"tp": 3}, {"reduction": "all_to_all"}),
    ({"tp": 3, "batch": 4, "draft": 1}, {"reduction": "all_reduce"}),
    ({"tp": 3, "batch": 4}, {"reduction": "all_reduce", "exchange": "gather", "shared_stream": True}),
    ({"dies": 48, "tp": 3, "shared_ranks": 2}, {"reduction": "all_reduce", "own_shared_ranks": True}),
    (
        {"dies": 54, "expert_dies": 9, "domains": 5, "tp": 3, "batch": 8},
        {"overlap": "stages", "micro_batches": 3, "reduction": "all_reduce"},
    ),
    (
        {"o_proj_tp": 2, "head_tp": 3, "dense_tp": 4, "embedding_tp": 6, "kv_resident": 0.5, "draft": 2},
        {"split": frozenset({"o_proj", "head", "dense", "embedding"}), "offloads": True},
    ),
    ({"tp": 7, "dies": 28, "expert_tp": 4, "batch": 5}, {"split_experts": True, "exchange": "gather"}),
    ({"tp": 7, "dies": 28, "dcp": 7}, {"context_parallel": True}),
    ({"tp": 3, "cp": 5, "dies": 30, "batch": 4, "chunk": 11}, {"context_parallel": True, "chunked": True}),
)


@pytest.mark.parametrize("shared", [0, 1, SHARED])
@pytest.mark.parametrize("attention", [MLA, GQA], ids=["latent", "grouped"])
@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_bytes_of_a_die(phase: str, attention: MlaSpec | GqaSpec, shared: int) -> None:
    """Section 5 of docs/method.md: weights, KV cache, buffers and working space, each kind of die by itself."""
    model, dims = model_of(attention, shared=shared), replace(DIMS, n_shared_experts=shared)
    for (axes, structure), block in itertools.product(HELD, (3, 128)):
        if attention is GQA and structure.get("context_parallel") and phase == "decode":
            continue  # refused, as are shared ranks of nothing
        if "shared_ranks" in axes and not shared:
            continue
        layout, family = layout_of(**axes), family_of(phase, **structure)
        ledger = build_ledger(layout, family, replace(TRAFFIC, isl_spread=0.1), model, dims)
        many, stages = passes(family), family.overlap == "stages"
        held = held_by_hand(family, attention, shared, layout)
        held["dense_attention"] = held["attention"]
        assert all(
            part_bytes(ledger, name) == pytest.approx(held[name.removesuffix("_again")], rel=1e-9)
            for name in ledger.parts
        )

        drafts = min(layout.draft, DRAFT_LAYERS)
        expert_layers = LAYERS - DENSE + drafts
        joined = family.own_shared_ranks and shared > 0
        blocks = held["routed"] + (held["shared"] if shared else 0)
        blocks = max(held["routed"], held["shared"]) if joined else blocks
        common = held["embedding"] + held["head"] + drafts * held["draft"] + DENSE * held["dense"]
        common += (LAYERS + drafts) * held["attention"] + expert_layers * held["gate"]
        apart = expert_layers * blocks if stages else 0
        mine = common if stages else common + expert_layers * blocks
        assert weight_bytes(ledger, family) == pytest.approx((mine, apart), rel=1e-9)

        tokens_at_once = many * ledger.quantities.rank_tokens
        b, isl, osl = layout.batch, TRAFFIC.isl, TRAFFIC.osl
        if phase == "prefill":
            mean = likely = worst = b * isl + b * block
        else:
            worst = b * isl + b * osl + b * layout.draft + b * block
            mean = b * isl + b * osl / 2 + b * block / 2
            likely = min(worst, mean + 3 * osl / sqrt(12) * sqrt(b))
        entry = entry_of(family, attention) * (LAYERS + drafts)
        owners = 1 if attention is MLA else min(layout.tp, KV_HEADS)
        kept = entry / owners * layout.kv_resident / layout.cp / layout.dcp
        sizes = message(family) + 2 * HIDDEN
        if family.exchange == "gather":
            buffers = many * ledger.quantities.group_tokens * sizes
        else:
            dies = (layout.dies - layout.expert_dies) / layout.domains + layout.expert_dies
            copies = TOP_K + (1 if shared and (stages or family.own_shared_ranks) else 0)
            buffers = (copies if phase == "prefill" else dies) * tokens_at_once * sizes
        queries = HEADS * (NOPE + ROPE + VALUE) if attention is MLA else 2 * HEADS * HEAD
        space = ledger.quantities.tokens * (4 * HIDDEN + queries / layout.tp) * 2
        if phase == "prefill" and attention is MLA:
            space += 2 * ledger.quantities.cached_tokens * HEADS * (NOPE + VALUE) / layout.tp
        wanted = {
            "weights": mine,
            "expert_weights": apart,
            "kv": likely * kept,
            "kv_worst": worst * kept,
            "kv_mean": mean * kept,
            "kv_bytes_per_token": entry,
            "kv_bytes_per_token_of_die": kept,
            "kv_bytes_per_request": 0,
            "kv_bytes_per_request_of_die": 0,
            "mean_tokens": mean / b,
            "buffers": buffers,
            "workspace": many * space,
        }
        got = footprint(ledger, layout, family, TRAFFIC, model, dims, block)
        assert not list(differences(got, wanted)), (layout, family)
        assert cache_of_model(model, family, tp=1, draft=layout.draft).per_token == pytest.approx(entry, rel=1e-9)
        assert entry_bytes_per_die(attention, family, layout.tp) * owners == pytest.approx(
            entry / (LAYERS + drafts), rel=1e-9
        )


@pytest.mark.parametrize("exchange", ["dispatch", "gather"])
def test_a_tp_group_keeps_and_reads_what_it_splits_once(exchange: str) -> None:
    """Whole sums: over a tp group bytes kept and FLOP are those of one die without tp; split sums copy the bytes."""
    parts = ("dense", "shared", "embedding")

    def sums(reduction: str, tp: int) -> list[tuple[float, float, float]]:
        family = family_of(reduction=reduction, exchange=exchange)
        ledger = build_ledger(layout_of(tp=tp, batch=6), family, TRAFFIC.even(), MODEL, DIMS)
        return [
            (tp * sum(op.resident_bytes for op in rows), tp * sum(op.weight_bytes for op in rows), tp * flop)
            for rows in (ledger.parts[name] for name in parts)
            for flop in (sum(op.flop for op in rows if "matmul" in op.operator),)
        ]

    for tp in (2, 3, 4, 12):
        assert sums("all_reduce", tp) == [pytest.approx(one, rel=1e-9) for one in sums("all_reduce", 1)]
        copied = [(tp * kept, tp * read, flop) for kept, read, flop in sums("scatter_gather", 1)]
        assert sums("scatter_gather", tp) == [pytest.approx(one, rel=1e-9) for one in copied]


def test_reductions_are_one_at_a_single_die() -> None:
    """At tp 1 every form does and keeps the same: exchanges among one set of tokens cost nothing."""
    ledgers = {
        reduction: build_ledger(layout_of(batch=6), family_of(reduction=reduction), TRAFFIC, MODEL, DIMS)
        for reduction in ("all_reduce", "scatter_gather")
    }
    for name, rows in ledgers["all_reduce"].parts.items():
        plain = [as_row(op) for op in ledgers["scatter_gather"].parts[name] if not alone(op)]
        check([op for op in rows if not alone(op)], plain, name)


def alone(op: Op) -> bool:
    """Whether a row is an exchange of a die with itself."""
    return op.exchange is not None and op.exchange.group == 1


def test_the_fuller_kind_of_die_is_planned_on() -> None:
    """Section 5, stages: max(attention die: weights + cache + workspace; expert die: its weights) + buffers."""
    sizes = {"weights": 100, "kv": 30, "kv_worst": 50, "kv_mean": 20, "buffers": 7, "workspace": 5}
    sizes |= {"kv_bytes_per_token": 1, "kv_bytes_per_token_of_die": 1}
    bare = Footprint(**sizes)
    assert (bare.expert_weights, bare.planned, bare.worst) == (0, 142, 162)
    for experts, planned, worst in ((134, 142, 162), (140, 147, 162), (211, 218, 218)):
        both = Footprint(**sizes, expert_weights=experts)
        assert (both.planned, both.worst) == (planned, worst)


def test_where_weights_are_kept() -> None:
    """In stages exchange, routed and shared experts are kept apart, drafts' too; dense layers and routers are not."""
    for stages, stream in itertools.product((False, True), (False, True)):
        family = family_of(overlap="stages" if stages else "link", shared_stream=stream)
        kept = list(kept_weights(ledger_by(family, LOADS, draft=1), family))
        assert {name for apart, name, _ in kept if apart} == ({"exchange", "routed", "shared"} if stages else set())
        assert sorted(name for _, name, _ in kept) == sorted(
            ["embedding", "head", "draft", "dense", *["attention"] * 3, *["gate", "exchange", "routed", "shared"] * 2]
        )
    own = family_of(own_shared_ranks=True)
    names = [(apart, name) for apart, name, _ in kept_weights(ledger_by(own, LOADS, draft=1), own)]
    assert names.count((False, "routed or shared")) == 2 and (False, "routed") not in names
    assert not any(apart for apart, _ in names)
