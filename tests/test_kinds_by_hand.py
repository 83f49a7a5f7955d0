"""Kinds of attention and groups of layers, derived again: FLOP, bytes, weights, caches and states of each.

Written from what reports and configs of the models say, position by position where a formula is a sum: a query at
position i sees i tokens, of a window min(i, w), of a piece ((i - 1) mod c) + 1, of a choice min(i, k).  Sizes are odd
and unlike each other.  Per layer, in numbers of weights, h wide:

    latent       h ql + ql n (dn + dr) + h (kl + dr) + kl n (dn + dv) + n dv h;  cache kl + dr a token, not split
    indexer      ql ni di + h di + h ni, a pooled key h di more;  cache di / pool a token;  scan 2 ni di / pool a token
    grouped      h n dq + h g (dq + dv) + n dv h;  cache g (dq + dv) a token;  2 n (dq + dv) FLOP a pair
    delta net    h (2 kd + 2 vd) + 2 h nv + vd h;  state 4 nv dk dv + 6 (2 kd + vd) B;  7 nv dk dv FLOP a token
    delta attn.  3 h P + h d + d P + h n + gate + P h
    compressed   h ql + ql n d + h d + n d ol + og ol h, and 2 o h d where it compresses;  4 n d FLOP an entry
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import isclose
from typing import Any

import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from perfmodel.ledger.caches import cache_of
from perfmodel.ledger.footprint import footprint, part_bytes, weight_bytes
from perfmodel.ledger.records import Dims, Family, Layout, Ledger, Op, Traffic
from perfmodel.ledger.step import build_ledger, dims_of
from perfmodel.specs.attention import AttentionSpec
from perfmodel.specs.model import ModelSpec

HIDDEN, WIDE, WIDTH, VOCABULARY, EXPERTS, TOP_K = 101, 211, 53, 307, 12, 5
HEADS, QL, KL, DN, DR, DV = 13, 17, 19, 23, 29, 31  # latent
G, DQ, GV = 2, 59, 43  # grouped
NI, DI, K, POOL = 3, 37, 9, 4  # indexer
WINDOW, PIECE = 11, 12
NK, NV, LK, LV = 2, 6, 7, 5  # linear
CH, CD, CR, CQL, COL, COG, CW, RATIO, FAR = 8, 47, 6, 17, 13, 4, 10, 4, 16  # compressed
ALL = 10**9


def latent(**more: Any) -> dict[str, Any]:
    sizes = {"q_lora_rank": QL, "kv_lora_rank": KL, "qk_nope_head_dim": DN, "qk_rope_head_dim": DR, "v_head_dim": DV}
    return {"kind": "mla", "num_attention_heads": HEADS} | sizes | more


def grouped(**more: Any) -> dict[str, Any]:
    sizes = {"num_attention_heads": HEADS, "num_key_value_heads": G, "head_dim": DQ, "v_head_dim": GV}
    return {"kind": "gqa"} | sizes | more


def linear(**more: Any) -> dict[str, Any]:
    sizes = {"num_key_heads": NK, "num_value_heads": NV, "key_head_dim": LK, "value_head_dim": LV}
    return {"kind": "linear"} | sizes | more


def compressed(**more: Any) -> dict[str, Any]:
    sizes = {"num_attention_heads": CH, "head_dim": CD, "qk_rope_head_dim": CR, "q_lora_rank": CQL}
    more = {"o_lora_rank": COL, "o_groups": COG, "sliding_window": CW} | more
    return {"kind": "compressed"} | sizes | more


INDEX = {"n_heads": NI, "head_dim": DI, "topk": K}


@dataclass(frozen=True, kw_only=True)
class Hand:
    """One kind: weights of all dies and of these on every die, bytes cached, FLOP of what a query sees."""

    spec: dict[str, Any]
    weights: int
    #: of these, on each die of a tp group
    everywhere: int = 0
    #: weights of keys and values, and their heads: split as far as there are heads
    key_value: int = 0
    #: tokens and FLOP a token that a query at position i sees, in decode; in prefill another price
    sees: Callable[[float], float] = lambda i: i
    price: int = 0
    prefill_price: int | None = None
    #: bytes of a token's entry (BF16), tokens that one entry stands for
    entry: int = 0
    ratio: int = 1
    #: tokens that v queries of one sequence read together, where each chooses
    choice: int | None = None
    #: entries beside those, of the newest tokens
    window: int | None = None
    index: bool = False
    index_ratio: int = 1


LATENT_REST = KL * HEADS * (DN + DV) + HEADS * DV * HIDDEN
LATENT = HIDDEN * QL + QL * HEADS * (DN + DR) + HIDDEN * (KL + DR) + LATENT_REST
LATENT_DOWN = HIDDEN * (QL + KL + DR)
ABSORBED, UNFOLDED = 2 * HEADS * (KL + DR) + 2 * HEADS * KL, 2 * HEADS * (DN + DR + DV)
INDEXER = QL * NI * DI + HIDDEN * DI + HIDDEN * NI
GROUPED = HIDDEN * HEADS * DQ + HEADS * GV * HIDDEN
KEYS = HIDDEN * G * (DQ + GV)
PAIR = 2 * HEADS * (DQ + GV)
OWN_INDEXER = HIDDEN * NI * DI + HIDDEN * DI + HIDDEN * NI
KD, VD, P = NK * LK, NV * LV, 6 * 5
DELTA = HIDDEN * (2 * KD + 2 * VD) + 2 * HIDDEN * NV + VD * HIDDEN
COMPRESSED = HIDDEN * CQL + CQL * CH * CD + HIDDEN * CD + CH * CD * COL + COG * COL * HIDDEN
CDOWN = HIDDEN * (CQL + CD)
NEAR_INDEXER = CQL * NI * DI + HIDDEN * NI + 2 * HIDDEN * 2 * DI

KINDS: dict[str, Hand] = {
    "mla": Hand(
        spec=latent(),
        weights=LATENT,
        everywhere=LATENT_DOWN,
        price=ABSORBED,
        prefill_price=UNFOLDED,
        entry=2 * (KL + DR),
    ),
    "mla without a rank of queries": Hand(
        spec=latent(q_lora_rank=None),
        weights=HIDDEN * HEADS * (DN + DR) + HIDDEN * (KL + DR) + LATENT_REST,
        everywhere=HIDDEN * (KL + DR),
        price=ABSORBED,
        prefill_price=UNFOLDED,
        entry=2 * (KL + DR),
    ),
    "mla gated, without rope": Hand(
        spec=latent(output_gate="channel", qk_rope_head_dim=0),
        weights=HIDDEN * QL + QL * HEADS * DN + HIDDEN * KL + LATENT_REST + HIDDEN * HEADS * DV,
        everywhere=HIDDEN * (QL + KL),
        price=4 * HEADS * KL,
        prefill_price=2 * HEADS * (DN + DV),
        entry=2 * KL,
    ),
    "mla of a window": Hand(
        spec=latent(sliding_window=WINDOW),
        weights=LATENT,
        everywhere=LATENT_DOWN,
        sees=lambda i: min(i, WINDOW),
        price=ABSORBED,
        prefill_price=UNFOLDED,
        entry=2 * (KL + DR),
    ),
    "mla, sparse": Hand(
        spec=latent(indexer=INDEX),
        weights=LATENT + INDEXER,
        everywhere=LATENT_DOWN + INDEXER,
        sees=lambda i: min(i, K),
        price=ABSORBED,
        entry=2 * (KL + DR),
        choice=K,
        index=True,
    ),
    "mla, sparse by another's choice": Hand(
        spec=latent(indexer=INDEX | {"shared": True}),
        weights=LATENT,
        everywhere=LATENT_DOWN,
        sees=lambda i: min(i, K),
        price=ABSORBED,
        entry=2 * (KL + DR),
        choice=K,
    ),
    "mla, sparse, pooled keys": Hand(
        spec=latent(indexer=INDEX | {"pool": POOL}),
        weights=LATENT + INDEXER + HIDDEN * DI,
        everywhere=LATENT_DOWN + INDEXER + HIDDEN * DI,
        sees=lambda i: min(i, K),
        price=ABSORBED,
        entry=2 * (KL + DR),
        choice=K,
        index=True,
        index_ratio=POOL,
    ),
    "gqa": Hand(spec=grouped(), weights=GROUPED + KEYS, key_value=KEYS, price=PAIR, entry=2 * G * (DQ + GV)),
    "gqa gated by channels": Hand(
        spec=grouped(output_gate="channel"),
        weights=GROUPED + KEYS + HIDDEN * HEADS * GV,
        key_value=KEYS,
        price=PAIR,
        entry=2 * G * (DQ + GV),
    ),
    "gqa gated by heads": Hand(
        spec=grouped(output_gate="head"),
        weights=GROUPED + KEYS + HIDDEN * HEADS,
        key_value=KEYS,
        price=PAIR,
        entry=2 * G * (DQ + GV),
    ),
    "gqa of a window": Hand(
        spec=grouped(sliding_window=WINDOW),
        weights=GROUPED + KEYS,
        key_value=KEYS,
        sees=lambda i: min(i, WINDOW),
        price=PAIR,
        entry=2 * G * (DQ + GV),
    ),
    "gqa in pieces": Hand(
        spec=grouped(attention_chunk_size=PIECE),
        weights=GROUPED + KEYS,
        key_value=KEYS,
        sees=lambda i: (i - 1) % PIECE + 1,
        price=PAIR,
        entry=2 * G * (DQ + GV),
    ),
    "mfa": Hand(
        spec=grouped(q_lora_rank=QL, num_key_value_heads=1),
        weights=HIDDEN * QL + QL * HEADS * DQ + HIDDEN * (DQ + GV) + HEADS * GV * HIDDEN,
        everywhere=HIDDEN * QL + HIDDEN * (DQ + GV),
        price=PAIR,
        entry=2 * (DQ + GV),
    ),
    "gqa, sparse": Hand(
        spec=grouped(indexer=INDEX),
        weights=GROUPED + KEYS + OWN_INDEXER,
        everywhere=OWN_INDEXER,
        key_value=KEYS,
        sees=lambda i: min(i, K),
        price=PAIR,
        entry=2 * G * (DQ + GV),
        choice=K,
        index=True,
    ),
    "gated delta net": Hand(spec=linear(), weights=DELTA),
    "kimi delta attention": Hand(
        spec=linear(num_key_heads=NV, decay="channel", key_head_dim=5, gate_rank=5),
        weights=3 * HIDDEN * P + HIDDEN * 5 + 5 * P + HIDDEN * NV + HIDDEN * 5 + 5 * P + P * HIDDEN,
        everywhere=2 * HIDDEN * 5,
    ),
    "kimi delta attention, whole gate": Hand(
        spec=linear(num_key_heads=NV, decay="channel", key_head_dim=5),
        weights=3 * HIDDEN * P + HIDDEN * 5 + 5 * P + HIDDEN * NV + HIDDEN * P + P * HIDDEN,
        everywhere=HIDDEN * 5,
    ),
    "compressed, window alone": Hand(
        spec=compressed(compress_ratio=0),
        weights=COMPRESSED,
        everywhere=CDOWN,
        price=4 * CH * CD,
        sees=lambda i: 0,
        entry=2 * CD,
        window=CW,
    ),
    "compressed, sparse": Hand(
        spec=compressed(compress_ratio=RATIO, overlap=2, indexer=INDEX),
        weights=COMPRESSED + 2 * HIDDEN * 2 * CD + NEAR_INDEXER,
        everywhere=CDOWN + 2 * HIDDEN * 2 * CD + NEAR_INDEXER,
        sees=lambda i: min(i, K * RATIO),
        price=4 * CH * CD,
        entry=2 * CD,
        ratio=RATIO,
        choice=K * RATIO,
        window=CW,
        index=True,
        index_ratio=RATIO,
    ),
    "compressed, heavily": Hand(
        spec=compressed(compress_ratio=FAR),
        weights=COMPRESSED + 2 * HIDDEN * CD,
        everywhere=CDOWN + 2 * HIDDEN * CD,
        price=4 * CH * CD,
        entry=2 * CD,
        ratio=FAR,
        window=CW,
    ),
}
LINEAR = [name for name, hand in KINDS.items() if hand.spec["kind"] == "linear"]
WITH_CORE = [name for name in KINDS if name not in LINEAR]


def model_of(attention: dict[str, Any], **changes: Any) -> ModelSpec:
    base = {
        "name": "odd",
        "title": "Odd sizes",
        "hidden_size": HIDDEN,
        "num_hidden_layers": 7,
        "first_k_dense_replace": 2,
        "intermediate_size": WIDE,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 10**6,
        "num_nextn_predict_layers": 1,
        "attention": attention,
        "experts": {
            "n_routed_experts": EXPERTS,
            "num_experts_per_tok": TOP_K,
            "n_shared_experts": 1,
            "moe_intermediate_size": WIDTH,
        },
    }
    return ModelSpec.model_validate(base | changes)


def family_of(phase: str = "decode", **changes: Any) -> Family:
    base = {"phase": phase, "own_shared_ranks": False, "overlap": "none", "exchange": "dispatch", "precision": "bf16"}
    return Family(**(base | changes))


def layout_of(**changes: Any) -> Layout:
    base = {"dies": 4, "tp": 1, "shared_ranks": 0, "redundant": 0, "batch": 3, "draft": 0, "attention_cores": 16}
    return Layout(**(base | changes))


#: in decode a context of 60 tokens; in prefill 60 tokens, of which 15 may be found ready
TRAFFIC = Traffic(isl=60, osl=0, skew=0.0, residual=0.0, chance=0.0, context_spread=0.0)


def ledger_of(
    attention: dict[str, Any] | ModelSpec, family: Family | None = None, traffic: Traffic = TRAFFIC, **axes: Any
) -> Ledger:
    model = attention if isinstance(attention, ModelSpec) else model_of(attention)
    return build_ledger(layout_of(**axes), family or family_of(), traffic, model, dims_of(model))


def rows(ledger: Ledger, part: str = "attention") -> dict[str, Op]:
    found = {op.name.removeprefix("attention."): op for op in ledger.parts[part]}
    assert len(found) == len(ledger.parts[part])
    return found


def spec_of(attention: dict[str, Any]) -> AttentionSpec:
    found: AttentionSpec = TypeAdapter(AttentionSpec).validate_python(attention)
    return found


def near(value: Any, wanted: float) -> bool:
    return isclose(value, wanted, rel_tol=1e-9, abs_tol=1e-9)


# ----------------------------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize("tp", [1, 4])
@pytest.mark.parametrize("phase", ["decode", "prefill"])
@pytest.mark.parametrize("name", KINDS)
def test_weights_of_a_die(name: str, phase: str, tp: int) -> None:
    """What all heads share is on every die, key-value heads are split as far as there are some, the rest is split."""
    hand = KINDS[name]
    ledger = ledger_of(hand.spec, family_of(phase), tp=tp)
    split = hand.weights - hand.everywhere - hand.key_value
    wanted = hand.everywhere + hand.key_value / min(tp, G) + split / tp
    assert near(part_bytes(ledger, "attention"), 2 * wanted)
    read = sum(op.weight_bytes for op in ledger.parts["attention"])
    assert near(read, 2 * wanted)


# ------------------------------------------------------------------------------------------------------------ decode


@pytest.mark.parametrize("draft", [0, 1])
@pytest.mark.parametrize("tp", [1, 4])
@pytest.mark.parametrize("name", WITH_CORE)
def test_a_decode_step(name: str, tp: int, draft: int) -> None:
    """Three sequences of 60 tokens, one or two queries each."""
    hand, verify = KINDS[name], 1 + draft
    found = rows(ledger_of(hand.spec, tp=tp, draft=draft))
    sees = hand.sees(60) if name != "gqa in pieces" else PIECE / 2  # on average over where a sequence stands
    near_by = 0 if hand.window is None else min(60, hand.window)
    assert near(found["core"].flop, 3 * verify * (sees / hand.ratio + near_by) * hand.price / tp)
    read = sees if hand.choice is None else min(60, hand.choice * verify)
    entry = hand.entry / min(tp, hand.spec.get("num_key_value_heads", 1))
    assert near(found["core"].kv_bytes, 3 * (read / hand.ratio + near_by) * entry)
    assert found["core"].operator == ("attention_decode" if hand.choice is None else "sparse_attention_decode")
    assert ("index_scan" in found) == hand.index
    if hand.index:  # on every die of the tp group
        assert near(found["index_scan"].flop, 3 * verify * 60 / hand.index_ratio * 2 * NI * DI)
        assert near(found["index_scan"].kv_bytes, 3 * 60 / hand.index_ratio * 2 * DI)


@pytest.mark.parametrize("draft", [0, 1])
@pytest.mark.parametrize("tp", [1, 2])
@pytest.mark.parametrize("name", LINEAR)
def test_a_decode_step_of_a_state(name: str, tp: int, draft: int) -> None:
    """Decay 1, what it holds for the key 2, rank-one update 2, read 2: seven FLOP a number of the state and token.

    It is read once, and written for each token that may be the last one taken.
    """
    spec, verify = KINDS[name].spec, 1 + draft
    nk, dk = spec["num_key_heads"], spec["key_head_dim"]
    state = NV * dk * LV * 4 + (2 * nk * dk + NV * LV) * 3 * 2
    found = rows(ledger_of(spec, tp=tp, draft=draft))
    assert near(found["state"].flop, 3 * verify * 7 * NV * dk * LV / tp)
    assert near(found["state"].kv_bytes, 3 * (1 + verify) * state / tp)
    assert (found["state"].operator, found["state"].engine) == ("vector", "vector")
    assert "core" not in found and "kv_fetch" not in found and "prefix_load" not in found
    # the four taps of the convolution
    assert near(found["convolution"].flop, 3 * verify * 2 * 4 * (2 * nk * dk + NV * LV) / tp)


# ----------------------------------------------------------------------------------------------------------- prefill


def positions(found: int, chunk: int) -> Iterator[list[int]]:
    """Yield the positions of the new tokens of each chunk of a prompt of 60 tokens."""
    for start in range(found, 60, chunk):
        yield list(range(start + 1, start + chunk + 1))


@pytest.mark.parametrize("cp", [1, 3])
@pytest.mark.parametrize("tp", [1, 4])
@pytest.mark.parametrize(("hit", "chunk"), [(0.0, 60), (0.25, 45), (0.25, 15), (0.0, 20)])
@pytest.mark.parametrize("name", WITH_CORE)
def test_a_prefill_step(name: str, hit: float, chunk: int, tp: int, cp: int) -> None:
    """Three prompts of 60 tokens, a quarter found ready or none, whole or in chunks: the mean step, by position."""
    hand, found = KINDS[name], round(60 * hit)
    family = family_of("prefill", chunked=chunk < 45, context_parallel=cp > 1)
    axes = {"tp": tp, "cp": cp, "dies": 12, "chunk": chunk if chunk < 45 else 0}
    ledger = ledger_of(hand.spec, family, replace(TRAFFIC, prefix_hit=hit), **axes)
    steps = list(positions(found, chunk))
    assert ledger.steps == len(steps)
    sees = sum(hand.sees(i) / hand.ratio for step in steps for i in step) / len(steps)
    near_by = 0 if hand.window is None else sum(min(i, hand.window) for step in steps for i in step) / len(steps)
    got, price = rows(ledger), hand.price if hand.prefill_price is None else hand.prefill_price
    assert near(got["core"].flop, 3 * (sees + near_by) * price / tp / cp)
    assert got["core"].operator == "attention_prefill"
    assert ("index_scan" in got) == hand.index
    if hand.index:
        scanned = sum(i / hand.index_ratio for step in steps for i in step) / len(steps)
        assert near(got["index_scan"].flop, 3 * scanned * 2 * NI * DI / cp)
        behind = sum(max(step) for step in steps) / len(steps)
        assert near(got["index_scan"].kv_bytes, 3 * behind / hand.index_ratio * 2 * DI)
    if hand.choice is not None and hand.spec["kind"] == "mla":  # each token reads its own choice
        assert near(got["core"].kv_bytes, 3 * sees * hand.entry / cp)
    if "kv_up" in got:  # of a window no more is unfolded than the new tokens and as many before them
        most = WINDOW if "window" in name else ALL
        behind = sum(max(step) for step in steps) / len(steps)
        new = len(steps[0])
        assert near(got["kv_up"].rows, 3 * min(behind, new + most))


@pytest.mark.parametrize("chunk", [0, 20])
@pytest.mark.parametrize("name", LINEAR)
def test_a_prefill_step_of_a_state(name: str, chunk: int) -> None:
    """Chunks of 64, with the state: read by keys and by queries, added to.  Inside, whole: k k, q k, T k, T v, A v."""
    spec = KINDS[name].spec
    nk, dk = spec["num_key_heads"], spec["key_head_dim"]
    steps = 3 if chunk else 1
    got = rows(ledger_of(spec, family_of("prefill", chunked=chunk > 0), chunk=chunk))["state"]
    with_state = 3 * (2 * dk * LV)
    inside = (2 * 64 * dk) * 3 + (2 * 64 * LV) * 2
    assert near(got.flop, 3 * 60 / steps * NV * (with_state + inside))
    assert near(got.kv_bytes, 3 * 2 * (NV * dk * LV * 4 + (2 * nk * dk + NV * LV) * 6))
    assert (got.operator, got.engine) == ("batched_matmul", "cube_bf16")
    assert near(got.matrices * got.rows, 3 * 60 / steps * NV)  # a product a head and chunk
    # q, k, v in and the output; solved keys and values, and a state for 64 tokens, out and in
    passed = NV * (dk + LV) + NV * dk * LV / 64
    assert near(got.activation_bytes, 2 * 3 * 60 / steps * (2 * nk * dk + 2 * NV * LV + passed + passed))


# ----------------------------------------------------------------------------------------- activations, shapes, kernels


def vectors(found: dict[str, Op], name: str, flop: float, elements: float) -> None:
    """Check a pass of the vector cores over BF16 elements, read or written."""
    op = found[name]
    assert (op.operator, op.engine) == ("vector", "vector")
    assert near(op.flop, flop) and near(op.activation_bytes, 2 * elements), name


@pytest.mark.parametrize("tp", [1, 2])
@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_passes_over_activations(phase: str, tp: int) -> None:
    """Elements that rows read and write: rotation 3 FLOP, gate 5, norm with a gate 8, a tap 2, a score compared 2."""
    tokens = 3 * 2 if phase == "decode" else 3 * 60
    axes = {"tp": tp} | ({"draft": 1} if phase == "decode" else {})

    def found(name: str, precision: str = "bf16") -> dict[str, Op]:
        return rows(ledger_of(KINDS[name].spec, family_of(phase, precision=precision), **axes))

    heads, keys = HEADS / tp, G / tp
    got = found("gqa gated by channels")
    width = heads * DQ + keys * (DQ + GV)
    vectors(got, "rope_cache", 3 * tokens * (heads + keys) * DQ, tokens * 2 * width)
    vectors(got, "gated", 5 * tokens * heads * GV, tokens * 3 * heads * GV)
    assert near(got["gate"].activation_bytes, 2 * tokens * (HIDDEN + heads * GV))
    assert near(got["qkv"].activation_bytes, 2 * tokens * (HIDDEN + width)) and got["qkv"].prefetched
    assert near(got["core"].activation_bytes, 2 * tokens * (heads + keys) * (DQ + GV))
    assert near(found("gqa gated by heads")["gate"].columns, heads)
    got = found("mfa")
    assert near(got["qkv"].columns, QL + DQ + GV) and near(got["q_up"].columns, heads * DQ) and got["q_up"].prefetched
    assert near(got["q_up"].activation_bytes, 2 * tokens * (QL + heads * DQ))

    shared = found("mla, sparse by another's choice")
    for name in ("mla, sparse", "gqa, sparse", "compressed, sparse", "mla, sparse, pooled keys"):
        got, hand = found(name), KINDS[name]
        rank = {"mla": QL, "gqa": HIDDEN, "compressed": CQL}[hand.spec["kind"]]
        made = DI if hand.spec["kind"] != "compressed" else 4 * DI
        made += DI if "pooled" in name else 0
        assert near(got["index_query"].activation_bytes, 2 * tokens * (rank + NI * DI))
        assert near(got["index_key"].activation_bytes, 2 * tokens * (HIDDEN + made + NI))
        assert near(got["index_scan"].activation_bytes, 2 * tokens * NI * DI)
        # queries and a key a token rotated, keys normed and stored; without 8-bit keys queries stay as they are
        vectors(got, "index_rope", 3 * tokens * (NI + 1) * DI, 2 * tokens * (NI + 1) * DI)
        share = POOL if "pooled" in name else 1  # of a pooled key each token stores its part
        vectors(got, "index_cache", 8 * tokens * DI, tokens * (DI + DI / share))
        assert "index_quant" not in got
        narrow = rows(ledger_of(hand.spec, family_of(phase, kv_dtype="int8"), **axes))
        scans = [
            rows(ledger_of(hand.spec, family_of(phase, kv_dtype=kv), **axes))["index_scan"] for kv in ("int8", "fp8")
        ]
        assert [got["index_scan"].engine, *(one.engine for one in scans)] == ["cube_bf16", "cube_int8", "cube_fp8"]
        assert all(near(one.activation_bytes, tokens * NI * DI) for one in scans)
        assert all(near(one.flop, got["index_scan"].flop) for one in scans)
        assert near(narrow["index_quant"].flop, 2 * tokens * NI * DI)
        assert near(narrow["index_quant"].activation_bytes, tokens * NI * DI * (2 + 1))
        assert near(narrow["index_cache"].activation_bytes, tokens * (2 * DI + (DI + 4) / share))
        around = ("index_rope", "index_cache", "index_quant")
        assert [narrow[one].kernels for one in around] == [1, 1, 1] and all(one not in shared for one in around)
        # of each query the scores of all keys up to it; a position of four bytes for each that is chosen
        keys = (60 if phase == "decode" else 61 / 2) / hand.index_ratio
        choice, chosen = got["top_k"], K / (POOL if "pooled" in name else 1)
        assert (choice.operator, choice.engine) == ("top_k", "vector")
        assert near(choice.rows, tokens) and near(choice.context, keys) and near(choice.flop, 2 * tokens * keys)
        assert near(choice.activation_bytes, 4 * tokens * min(chosen, keys))
        assert near(got["index_scan"].context, 60 / hand.index_ratio) and got["index_scan"].heads == NI
        assert got["index_scan"].query_rows == (NI * 2 if phase == "decode" else None)
        assert got["index_scan"].sequences == got["core"].sequences == 3
        assert not got["index_query"].prefetched and not got["index_key"].prefetched
    if phase == "decode":
        together = [
            found(name)["core"].query_rows for name in ("mla", "mla, sparse", "mla, sparse by another's choice")
        ]
        assert together == [2 * heads, heads, heads]
    assert near(found("mla, sparse")["core"].activation_bytes, 2 * tokens * heads * (KL + DR + KL))
    assert ("kv_up" in found("mla, sparse")) is False and "k_up" in found("mla, sparse")

    for name in LINEAR[:1]:
        got, values, mix = found(name), VD / tp, (2 * KD + VD) / tp
        vectors(got, "convolution", 2 * 4 * tokens * mix, tokens * 2 * mix)
        vectors(got, "gated_norm", 8 * tokens * values, tokens * 3 * values)
        assert near(got["qkv"].columns, mix + 2 * NV / tp + values) and got["qkv"].prefetched
        if phase == "decode":
            assert near(got["state"].activation_bytes, 2 * tokens * (2 * KD + 2 * VD) / tp)
        quantised = found(name, "w8a8")["output_quant"]
        assert near(quantised.flop, 2 * tokens * values) and near(quantised.activation_bytes, 3 * tokens * values)
    got = found("kimi delta attention")
    assert [(got[n].columns, got[n].rows) for n in ("decay_down", "decay_up", "gate_down", "gate_up")] == [
        (5, tokens),
        (P / tp, tokens),
        (5, tokens),
        (P / tp, tokens),
    ]

    for name, overlap in (("compressed, window alone", 0), ("compressed, heavily", 1), ("compressed, sparse", 2)):
        got, own = found(name), CH / tp * CD
        made = 2 * overlap * CD
        vectors(got, "rope_cache", 3 * tokens * (own + CD + made), tokens * 2 * (own + CD + made))
        assert near(got["qkv_down"].columns, CQL + CD + made) and near(got["q_up"].columns, own)
        assert got["qkv_down"].prefetched and got["q_up"].prefetched and not got["o_down"].prefetched
        down, groups = got["o_down"], COG / tp  # a matrix a group: its heads in, its part out
        assert (down.matrices, down.rows, down.columns) == (groups, tokens, COL)
        assert near(down.flop, 2 * tokens * own * COL) and near(
            down.activation_bytes, 2 * tokens * (own + groups * COL)
        )
        assert near(got["o_proj"].activation_bytes, 2 * tokens * (groups * COL + HIDDEN))
        assert near(got["core"].activation_bytes, 2 * tokens * 2 * own)
        # two queries read one cache where they see the same, and one each where each chooses
        assert got["core"].query_rows == (CH / tp * (1 if "sparse" in name else 2) if phase == "decode" else None)


@pytest.mark.parametrize("name", WITH_CORE)
def test_contexts_of_cores(name: str) -> None:
    """What one sequence has a core read: in decode all its queries', in prefill what the last token sees."""
    hand = KINDS[name]
    near_by = 0 if hand.window is None else hand.window
    decode = rows(ledger_of(hand.spec, draft=1))["core"]
    sees = hand.sees(60) if name != "gqa in pieces" else PIECE / 2
    read = sees if hand.choice is None else min(60, 2 * hand.choice)
    assert near(decode.context, read / hand.ratio + near_by)
    assert decode.sequences == 3 and near(decode.heads, hand.spec["num_attention_heads"])
    prefill = rows(ledger_of(hand.spec, family_of("prefill")))["core"]
    last = hand.sees(60) / hand.ratio + near_by if name != "gqa in pieces" else PIECE
    assert near(prefill.context, last) and prefill.sequences == 3
    part = hand.window is not None or hand.choice is not None or "window" in name or "pieces" in name
    if not part:
        assert prefill.seen is None and prefill.edges == ()
        return
    # what a token sees on average; a diagonal each of what it sees, and the far end of a window
    everything = sum(
        hand.sees(i) / hand.ratio + (0 if hand.window is None else min(i, hand.window)) for i in range(1, 61)
    )
    assert near(prefill.seen, everything / 60)
    own = [WINDOW] if "of a window" in name else [last - near_by] if last > near_by else []
    window = hand.window or (WINDOW if "of a window" in name else None)
    near_end = [(window, 1), (min(window, 60 - window), (60 - window) / 60)] if window else []
    wide = near_end if "of a window" in name else [*near_end, *((one, 1) for one in own)]
    assert len(prefill.edges) == len(wide)
    assert all(near(a, c) and near(b, d) for (a, b), (c, d) in zip(prefill.edges, wide, strict=True))


def test_what_a_window_unfolds() -> None:
    """Chunks of 15 behind 15 found ready: keys and values of 11 tokens before each, at most of all there are."""
    family, traffic = family_of("prefill", chunked=True), replace(TRAFFIC, prefix_hit=0.25)
    got = rows(ledger_of(latent(sliding_window=WINDOW), family, traffic, chunk=15))
    assert near(got["core"].activation_bytes, 2 * HEADS * (DN + DR + DV) * (3 * 15 + 3 * (15 + WINDOW)))
    assert near(got["core"].context, WINDOW) and near(got["kv_up"].rows, 3 * (15 + WINDOW))


@pytest.mark.parametrize(
    "kind", ["compressed, sparse", "compressed, heavily", "gated delta net", "gqa gated by channels"]
)
def test_output_projections_of_kinds(kind: str) -> None:
    """Heads swapped for tokens: a die sends each other one a quarter of its tokens, and has the projection whole."""
    hand = KINDS[kind]
    inner = {"compressed": COG * COL, "linear": VD, "gqa": HEADS * GV}[hand.spec["kind"]]
    got = rows(ledger_of(hand.spec, family_of(reduction="all_to_all"), tp=4, batch=8))
    sent = got["swap_heads"].exchange
    assert sent is not None and near(sent.payload, 2 * 8 / 4 * inner / 4)
    assert near(got["o_proj"].weight_bytes, 2 * inner * HIDDEN) and near(got["o_proj"].rows, 2)


# ------------------------------------------------------------------------------------------- caches, states, transfers


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Bytes of a sequence in one layer, BF16: a token, a token of a window, that window, a state."""

    token: float = 0
    window_token: float = 0
    window: int = 0
    state: float = 0

    def after(self, tokens: float) -> float:
        """All bytes of so many tokens."""
        return self.token * tokens + self.window_token * min(tokens, self.window) + self.state * (tokens > 0)


def kept(name: str, tp: int = 1) -> Kept:
    hand = KINDS[name]
    spec = hand.spec
    if spec["kind"] == "linear":
        nk, dk = spec["num_key_heads"], spec["key_head_dim"]
        return Kept(state=(NV * dk * LV * 4 + (2 * nk * dk + NV * LV) * 3 * 2) / tp)
    entry = hand.entry / min(tp, spec.get("num_key_value_heads", 1))
    if spec["kind"] == "compressed":
        if name == "compressed, window alone":
            return Kept(window_token=entry, window=CW)
        index = 2 * DI if hand.index else 0
        # tokens that wait, twice where entries overlap, content and weight of each vector in 32 bits
        over = 2 if hand.index else 1
        waiting = hand.ratio * over * 4 * 2 * over * (CD + (DI if hand.index else 0))
        return Kept(token=(entry + index) / hand.ratio, window_token=entry, window=CW, state=waiting)
    limit = spec.get("sliding_window") or spec.get("attention_chunk_size")
    if limit:
        return Kept(window_token=entry, window=limit)
    # tokens that wait to make a pooled key, and what weighs them
    waiting = 2 * 2 * DI * hand.index_ratio if hand.index and hand.index_ratio > 1 else 0
    return Kept(token=entry + (2 * DI / hand.index_ratio if hand.index else 0), state=waiting)


@pytest.mark.parametrize("tp", [1, 4])
@pytest.mark.parametrize("name", KINDS)
def test_what_is_kept_of_a_sequence(name: str, tp: int) -> None:
    """Entries of each token, of a window's tokens, states; of short sequences a window holds what there is."""
    hand = kept(name, tp)
    cache = cache_of(spec_of(KINDS[name].spec), family_of(), tp)
    assert near(cache.per_token, hand.token)
    for tokens in (3, 7, 60):
        assert near(cache.fixed(tokens), hand.after(tokens) - hand.token * tokens)
    assert near(cache.times(5).fixed(60), 5 * cache.fixed(60)) and near(cache.times(5).per_token, 5 * hand.token)


def test_caches_in_eight_bits() -> None:
    """INT8 leaves rope parts in BF16, an index key has a scale of four bytes, and a state its 32 bits."""
    family = family_of(kv_dtype="int8")

    def per_token(name: str) -> Any:
        return cache_of(spec_of(KINDS[name].spec), family).per_token

    assert near(per_token("mla"), KL + 2 * DR)
    assert near(per_token("mla, sparse"), KL + 2 * DR + DI + 4)
    assert near(per_token("mla, sparse, pooled keys"), KL + 2 * DR + (DI + 4) / POOL)
    assert near(per_token("gqa"), G * (DQ + GV))
    assert near(per_token("compressed, sparse"), (CD - CR + 2 * CR + DI + 4) / RATIO)
    for name in LINEAR:
        spec = spec_of(KINDS[name].spec)
        assert cache_of(spec, family).state == cache_of(spec, family_of()).state


@pytest.mark.parametrize("draft", [0, 1])
@pytest.mark.parametrize("name", KINDS)
def test_bytes_that_requests_keep(name: str, draft: int) -> None:
    """Seven layers and a draft layer; of a linear state decode keeps one for each token that is verified."""
    hand, model = kept(name), model_of(KINDS[name].spec)
    linear_state = KINDS[name].spec["kind"] == "linear"
    traffic = replace(TRAFFIC, osl=20)
    for phase in ("decode", "prefill"):
        layout, family = layout_of(draft=draft), family_of(phase)
        ledger = build_ledger(layout, family, traffic, model, dims_of(model))
        got = footprint(ledger, layout, family, traffic, model, dims_of(model), 2)
        layers = 7 + draft
        states = 1 + draft if linear_state and phase == "decode" else 1
        tokens, longest = (70 + 1, 80 + draft + 2) if phase == "decode" else (62, 62)
        fixed = [hand.after(n) - hand.token * n - hand.state + states * hand.state for n in (tokens, longest)]
        assert near(got.kv_bytes_per_token, layers * hand.token)
        assert near(got.kv_bytes_per_request, layers * fixed[0])
        assert near(got.kv_mean, 3 * layers * (hand.token * tokens + fixed[0]))
        assert near(got.kv_worst, 3 * layers * (hand.token * longest + fixed[1]))


@pytest.mark.parametrize("chunk", [0, 15])
@pytest.mark.parametrize("hit", [0.0, 0.25])
@pytest.mark.parametrize("name", KINDS)
def test_what_is_loaded_of_earlier_prompts(name: str, hit: float, chunk: int) -> None:
    """What 15 tokens left behind, once a prompt over all its chunks, index keys and states with it; shared by dies."""
    family = family_of("prefill", chunked=chunk > 0)
    for tp in (1, 4):
        ledger = ledger_of(KINDS[name].spec, family, replace(TRAFFIC, prefix_hit=hit), tp=tp, chunk=chunk)
        load = rows(ledger)["prefix_load"]
        assert near(load.kv_bytes * ledger.steps * tp, 3 * kept(name).after(60 * hit))


@pytest.mark.parametrize("name", KINDS)
def test_what_a_part_of_a_prompt_is_sent(name: str) -> None:
    """Three dies with a third of the tokens each: all that is cached and seen goes round, of states what changes."""
    family = family_of("prefill", context_parallel=True, chunked=True)
    traffic = replace(TRAFFIC, prefix_hit=0.25)
    got = rows(ledger_of(KINDS[name].spec, family, traffic, cp=3, dies=12, chunk=15))
    spec, hand = KINDS[name].spec, kept(name)
    if name in LINEAR:
        dk = spec["key_head_dim"]
        state = got["state_gather"].exchange
        assert state is not None and (state.collective, state.group) == ("all_gather", 3)
        assert near(state.payload, 3 * 4 * NV * dk * (LV + dk))  # the state, and what turns any that comes before
        assert "context_gather" not in got
        return
    behind = (30 + 45 + 60) / 3  # tokens up to the end of a chunk, on average
    gathered = got["context_gather"].exchange
    assert gathered is not None and (gathered.collective, gathered.group) == ("all_gather", 3)
    near_by = min(behind, 15 + hand.window) if hand.window else 0
    assert near(gathered.payload, 3 * (hand.token * behind + hand.window_token * near_by) / 3)


@pytest.mark.parametrize("draft", [0, 1])
@pytest.mark.parametrize("name", KINDS)
def test_what_is_fetched_from_the_host(name: str, draft: int) -> None:
    """Three quarters of the entries are in the host's memory: as much of those a step reads is fetched, or what misses.

    Index keys are read whole every step, and stay.
    """
    hand = KINDS[name]
    family = family_of(offloads=True)
    got, lately = (rows(ledger_of(hand.spec, family, kv_resident=0.25, kv_hit=h, draft=draft)) for h in (0.1, 0.9))
    token = kept(name).token
    assert ("kv_fetch" in got) == (token > 0)
    if token:
        read = 60 if hand.choice is None else min(60, hand.choice * (1 + draft))
        assert near(got["kv_fetch"].kv_bytes, 3 * 0.75 * read / hand.ratio * hand.entry)
        missed = 0.75 if hand.choice is None else 0.1
        assert near(lately["kv_fetch"].kv_bytes, 3 * missed * read / hand.ratio * hand.entry)
        index = 2 * DI / hand.index_ratio if hand.index else 0
        assert near(cache_of(spec_of(hand.spec), family).on_die(0.25), index + 0.25 * (token - index))
    else:
        plain = rows(ledger_of(hand.spec, draft=draft))
        assert got.keys() == plain.keys()


def test_a_cache_split_over_dies_is_scanned_in_parts() -> None:
    """Two of four dies have half of a cache each: half a scan, then the nine best of either, score and place."""
    for name in ("mla, sparse", "mla, sparse, pooled keys"):
        hand = KINDS[name]
        whole, half = (
            rows(ledger_of(hand.spec, family_of(context_parallel=parts > 1), tp=4, dcp=parts)) for parts in (1, 2)
        )
        for row, field in (("index_scan", "flop"), ("index_scan", "kv_bytes"), ("index_scan", "context")):
            assert near(getattr(half[row], field), getattr(whole[row], field) / 2)
        assert near(half["top_k"].flop, whole["top_k"].flop / 2)
        best = half["index_gather"].exchange
        assert best is not None and (best.collective, best.group) == ("all_gather", 2)
        assert near(best.payload, 3 * K / hand.index_ratio * (4 + 4)) and "index_gather" not in whole
        # the core: twice the heads over half of what is chosen
        assert near(half["core"].flop, whole["core"].flop) and near(half["core"].kv_bytes, whole["core"].kv_bytes / 2)


def test_low_rank_gather_takes_index_keys_along() -> None:
    """With down projections on a die's own tokens, index keys and the weights of heads are made and sent there too."""
    family = family_of("prefill", reduction="sp_tp_sp")
    plain, sparse = (rows(ledger_of(KINDS[name].spec, family, tp=4)) for name in ("mla", "mla, sparse"))
    one, other = (found["latent_gather"].exchange for found in (plain, sparse))
    assert one is not None and other is not None
    assert near(one.payload, 3 * 60 / 4 * 2 * (QL + KL + DR))
    assert near(other.payload - one.payload, 3 * 60 / 4 * 2 * (DI + NI))
    assert near(sparse["index_key"].rows, 3 * 60 / 4) and near(sparse["index_query"].rows, 3 * 60)


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_working_space(phase: str) -> None:
    """Queries and outputs of the widest kind; latent ones where tokens choose; in prefill a state for 64 tokens."""

    def space(attention: dict[str, Any], **changes: Any) -> float:
        model, layout, family = model_of(attention, **changes), layout_of(), family_of(phase)
        ledger = build_ledger(layout, family, TRAFFIC, model, dims_of(model))
        got = footprint(ledger, layout, family, TRAFFIC, model, dims_of(model), 1).workspace
        return float(got) / 2 / (3 if phase == "decode" else 180)

    assert near(space(KINDS["mla, sparse"].spec), 4 * HIDDEN + HEADS * (KL + DR + KL))
    assert near(space(KINDS["gqa"].spec), 4 * HIDDEN + HEADS * (DQ + GV))
    assert near(space(KINDS["gqa"].spec, hc_mult=3), 6 * HIDDEN + HEADS * (DQ + GV))
    states = NV * LK * LV / 64 if phase == "prefill" else 0
    assert near(space(linear()), 4 * HIDDEN + 2 * KD + 2 * VD + states)
    assert near(space(KINDS["compressed, heavily"].spec), 4 * HIDDEN + 2 * CH * CD)


# ------------------------------------------------------------------------------------------------ limits and properties

LIMITS: dict[str, tuple[dict[str, Any], Callable[[int], dict[str, Any]]]] = {
    "latent window": (latent(), lambda n: latent(sliding_window=n)),
    "grouped window": (grouped(), lambda n: grouped(sliding_window=n)),
    "piece": (grouped(), lambda n: grouped(attention_chunk_size=n)),
}
few = settings(max_examples=25, deadline=None)


def same(one: Op, other: Op) -> bool:
    names = ("flop", "weight_bytes", "activation_bytes", "kv_bytes", "resident_bytes", "context", "rows", "columns")
    return one.name == other.name and all(near(getattr(one, name), getattr(other, name)) for name in names)


@pytest.mark.parametrize("limit", LIMITS)
@given(more=st.integers(0, 1000), draft=st.integers(0, 1), spread=st.floats(0, 1), hit=st.floats(0, 0.9))
@few
def test_a_window_that_holds_all_is_none(limit: str, more: int, draft: int, spread: float, hit: float) -> None:
    """Rows of both phases, of chunks and of lengths that differ: equal to those of the kind without a limit.

    A window as long as any prompt may be: 60 tokens of equal ones, more of those of the busiest rank.
    """
    plain, limited = LIMITS[limit]
    tokens = 60 + more if not spread else 600 + more
    traffic = replace(TRAFFIC, isl_spread=spread, prefix_hit=hit)
    for family, axes in (
        (family_of(), {"draft": draft}),
        (family_of("prefill"), {}),
        (family_of("prefill", chunked=True), {"chunk": 13}),
        (family_of("prefill", context_parallel=True), {"cp": 2}),
    ):
        wanted = ledger_of(plain, family, traffic, **axes).parts["attention"]
        got = ledger_of(limited(tokens), family, traffic, **axes).parts["attention"]
        assert len(got) == len(wanted) and all(map(same, got, wanted))


def test_a_choice_of_all_is_the_dense_core_in_absorbed_form() -> None:
    """As many tokens as there are: FLOP and bytes of the latent core, and the scan on top."""
    for draft in (0, 1):
        dense = rows(ledger_of(latent(), draft=draft))
        for topk in (60, 61, 600):
            sparse = rows(ledger_of(latent(indexer=INDEX | {"topk": topk}), draft=draft))
            assert same(sparse["core"], dense["core"])
    sparse = rows(ledger_of(latent(indexer=INDEX | {"topk": 60}), family_of("prefill")))
    assert near(sparse["core"].flop, 3 * (60 * 61 / 2) * ABSORBED)
    for ratio in (1, 4):
        every = compressed(compress_ratio=ratio, overlap=2)
        chosen = compressed(compress_ratio=ratio, overlap=2, indexer=INDEX | {"topk": 60 // ratio})
        for phase in ("decode", "prefill"):
            one, other = (rows(ledger_of(spec, family_of(phase)))["core"] for spec in (every, chosen))
            assert near(one.flop, other.flop)


def total(ledger: Ledger, field: str) -> float:
    return float(sum(getattr(op, field) for op in ledger.parts["attention"]))


@given(
    a=st.integers(1, 90), b=st.integers(1, 90), phase=st.sampled_from(["decode", "prefill"]), spread=st.floats(0, 0.9)
)
@few
def test_more_is_never_less(a: int, b: int, phase: str, spread: float) -> None:
    """FLOP and bytes of a step grow with window, choice and context; a piece in prefill costs no more than a window."""
    small, large = sorted((a, b))
    traffic, family = replace(TRAFFIC, isl_spread=spread, prefix_hit=0.3), family_of(phase)
    kinds: tuple[Callable[[int], dict[str, Any]], ...] = (
        lambda n: latent(sliding_window=n),
        lambda n: grouped(sliding_window=n),
        lambda n: latent(indexer=INDEX | {"topk": n}),
        lambda n: grouped(indexer=INDEX | {"topk": n}),
        lambda n: compressed(compress_ratio=4, indexer=INDEX | {"topk": n}),
        lambda n: compressed(compress_ratio=4, sliding_window=n),
    )
    for kind in kinds:
        less, more = (ledger_of(kind(n), family, traffic) for n in (small, large))
        for field in ("flop", "kv_bytes"):
            assert total(less, field) <= total(more, field) * (1 + 1e-12), (kind(1), field)
    for name, hand in KINDS.items():
        if name == "gqa in pieces" and phase == "decode":
            continue  # half a piece on average, from where there are two
        less, more = (ledger_of(hand.spec, family, replace(traffic, isl=n)) for n in (small, large))
        for field in ("flop", "kv_bytes"):
            assert total(less, field) <= total(more, field) * (1 + 1e-12), (name, field)
    window, piece = (ledger_of(grouped(**{key: small}), family) for key in ("sliding_window", "attention_chunk_size"))
    assert total(piece, "flop") <= total(window, "flop") * (1 + 1e-12)


@given(window=st.integers(1, 300), spread=st.floats(0, 0.9), batch=st.integers(1, 9))
@few
def test_prompts_of_several_lengths_see_no_more_than_their_windows(window: int, spread: float, batch: int) -> None:
    """Pairs of the busiest rank: at most all, at most a window for each of its tokens, and no less than of the mean."""
    traffic, family = replace(TRAFFIC, isl_spread=spread), family_of("prefill")
    all_pairs, limited = (
        ledger_of(spec, family, traffic, batch=batch) for spec in (grouped(), grouped(sliding_window=window))
    )
    pairs = rows(limited)["core"].flop / PAIR
    q = limited.quantities
    assert pairs <= min(rows(all_pairs)["core"].flop / PAIR, q.tokens * window) * (1 + 1e-12)
    even = rows(ledger_of(grouped(sliding_window=window), family, batch=batch))["core"].flop / PAIR
    assert pairs >= even * (1 - 1e-12)


@pytest.mark.parametrize("phase", ["decode", "prefill"])
@pytest.mark.parametrize("name", KINDS)
def test_tensor_parallelism_splits_work_once(name: str, phase: str) -> None:
    """Cores and states of all dies together are those of one; only what every die has is worked again."""
    hand = KINDS[name]
    one, *others = (rows(ledger_of(hand.spec, family_of(phase), tp=tp)) for tp in (1, 2, 4))
    for tp, many in zip((2, 4), others, strict=True):
        for row in ("core", "state", "q_up", "o_proj", "o_down", "gate", "k_up", "v_up", "kv_up", "gate_up"):
            assert (row in one) == (row in many)
            if row in one:
                assert near(tp * many[row].flop, one[row].flop), row
        for row in ("qkv_down", "index_query", "index_key", "index_scan", "decay_down", "gate_down"):
            assert row not in one or near(many[row].flop, one[row].flop), row


@pytest.mark.parametrize("phase", ["decode", "prefill"])
@pytest.mark.parametrize("name", KINDS)
def test_arrays_and_symbols_are_as_numbers(name: str, phase: str) -> None:
    """A mesh of batches and tp, and both as symbols: the rows of each layout by itself."""
    family, traffic = family_of(phase), replace(TRAFFIC, prefix_hit=0.25)
    batches, splits = (1, 7), (1, 4)
    b, t = sympy.symbols("b t", positive=True)
    axes: tuple[tuple[Any, Any], ...] = ((np.array(batches, float), np.array(splits, float)[:, None]), (b, t))
    mesh, form = (ledger_of(KINDS[name].spec, family, traffic, batch=x, tp=y).parts["attention"] for x, y in axes)
    for (i, tp), (j, batch) in itertools.product(enumerate(splits), enumerate(batches)):
        alone = ledger_of(KINDS[name].spec, family, traffic, batch=batch, tp=tp).parts["attention"]
        for many, symbols, one in zip(mesh, form, alone, strict=True):
            for field in ("flop", "kv_bytes", "activation_bytes", "resident_bytes", "context"):
                wanted = getattr(one, field)
                assert near(np.broadcast_to(getattr(many, field), (2, 2))[i, j], wanted)
                assert near(sympy.sympify(getattr(symbols, field)).subs({b: batch, t: tp}).doit(), wanted)


# ----------------------------------------------------------------------------------------------------- groups of layers


def as_tuple(ledger: Ledger) -> Any:
    """Return a ledger in a form that compares."""

    def plain(op: Op) -> tuple[Any, ...]:
        sent = None if op.exchange is None else tuple(getattr(op.exchange, f) for f in op.exchange.__slots__)
        return (*(getattr(op, f) for f in op.__slots__ if f != "exchange"), sent)

    parts = {name: tuple(map(plain, ops)) for name, ops in ledger.parts.items()}
    blocks = [tuple(getattr(block, f) for f in block.__slots__) for block in ledger.blocks]
    return parts, blocks, ledger.steps, ledger.draft


@pytest.mark.parametrize("overlap", ["none", "link", "cores"])
@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_the_short_form_is_a_list_of_groups(phase: str, overlap: str) -> None:
    """Two dense layers and five with experts, said either way: the same ledger."""
    groups = [{"count": 2, "feed_forward": "dense"}, {"count": 5, "feed_forward": "moe"}]
    family = family_of(phase, overlap=overlap)
    for name in ("mla", "gqa", "mla, sparse", "gated delta net"):
        short = model_of(KINDS[name].spec)
        listed = model_of(KINDS[name].spec, first_k_dense_replace=0, layers=groups)
        for axes in ({}, {"draft": 1}, {"draft": 2}):
            if phase == "decode" or not axes:
                one, other = (as_tuple(ledger_of(model, family, **axes)) for model in (short, listed))
                assert one == other


def mixed(**changes: Any) -> ModelSpec:
    return model_of(
        KINDS["mla, sparse"].spec,
        first_k_dense_replace=0,
        attentions={"window": KINDS["mla of a window"].spec, "linear": linear()},
        layers=[
            {"count": 1, "attention": "window", "feed_forward": "dense"},
            {"count": 2, "feed_forward": "moe"},
            {"count": 3, "attention": "linear", "feed_forward": "moe"},
            {"count": 1, "feed_forward": "dense"},
        ],
        **changes,
    )


def summed(ledger: Ledger, field: str, parts: Callable[[str], bool]) -> float:
    """Return a sum over all blocks of a step."""
    found = 0.0
    for block in ledger.blocks:
        for name in (*block.attention, *block.experts, *block.beside, *block.joined):
            if parts(name):
                found += float(block.count * block.passes * sum(getattr(op, field) for op in ledger.parts[name]))
    return found


@pytest.mark.parametrize("overlap", ["none", "link"])
@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_groups_are_each_as_alone(phase: str, overlap: str) -> None:
    """Three kinds in one model: a layer of each is that of a model of this kind alone, and sums add up by count."""
    family = family_of(phase, overlap=overlap)
    ledger = ledger_of(mixed(), family)
    alone = {
        name: ledger_of(model_of(KINDS[kind].spec), family)
        for name, kind in (("", "mla, sparse"), ("_window", "mla of a window"), ("_linear", "gated delta net"))
    }
    counts = {"": (1, 2), "_window": (1, 0), "_linear": (0, 3)}  # dense, with experts
    for field in ("flop", "kv_bytes", "weight_bytes", "activation_bytes"):
        wanted = 0.0
        for name, (dense, moe) in counts.items():
            each = alone[name]
            before = "dense_attention" if overlap == "link" else "attention"
            micro = 1 if overlap == "none" else 2
            wanted += dense * sum(getattr(op, field) for op in each.parts[before])
            wanted += micro * moe * sum(getattr(op, field) for op in each.parts["attention"])
        got = summed(ledger, field, lambda name: "attention" in name)
        drafts = next(block for block in ledger.blocks if block.name == "draft_layer")
        each_draft = sum(getattr(op, field) for op in ledger.parts["attention"])
        wanted += float(drafts.count * drafts.passes) * each_draft
        assert near(got, wanted)


def test_bytes_of_a_model_of_groups() -> None:
    """Weights by group; per token the sparse layers and the draft layer, per request windows and states."""
    model, layout, family = mixed(), layout_of(draft=1, tp=2), family_of()
    ledger = build_ledger(layout, family, TRAFFIC, model, dims_of(model))
    sparse = LATENT_DOWN + INDEXER + (LATENT - LATENT_DOWN) / 2
    window, state = LATENT_DOWN + (LATENT - LATENT_DOWN) / 2, DELTA / 2
    expert = 3 * HIDDEN * WIDTH
    with_experts = HIDDEN * EXPERTS + EXPERTS / 4 * expert + expert
    wanted = 2 * VOCABULARY * HIDDEN - VOCABULARY * HIDDEN / 2  # embedding whole, half of the head
    wanted += 4 * sparse + window + 3 * state + 2 * 3 * HIDDEN * WIDE + 6 * with_experts + 2 * HIDDEN * HIDDEN
    assert near(weight_bytes(ledger, family)[0], 2 * wanted)
    got = footprint(ledger, layout, family, TRAFFIC, model, dims_of(model), 0)
    assert near(got.kv_bytes_per_token, 4 * 2 * (KL + DR + DI))
    fixed = min(60, WINDOW) * 2 * (KL + DR)
    assert near(got.kv_bytes_per_request_of_die, fixed + 3 * 2 * kept("gated delta net", 2).state)


def test_a_dense_model() -> None:
    """No router, no exchange, no experts: embedding, layers, head; a tied head keeps no weights and reads them all."""
    dense = {"experts": None, "first_k_dense_replace": 0, "num_nextn_predict_layers": 0}
    family = family_of(exchange="gather")
    for tied in (False, True):
        ledger = ledger_of(model_of(grouped(), tie_word_embeddings=tied, **dense), family)
        assert set(ledger.parts) == {"embedding", "attention", "dense", "head"}
        layer = GROUPED + KEYS + 3 * HIDDEN * WIDE
        kept_bytes = 2 * (7 * layer + VOCABULARY * HIDDEN * (1 if tied else 2))
        assert near(weight_bytes(ledger, family)[0], kept_bytes)
        (head,) = ledger.parts["head"]
        assert near(head.weight_bytes, 2 * VOCABULARY * HIDDEN)


def test_experts_that_are_none() -> None:
    """Of 12 + 6 columns a token picks 5: 12/18 of them are real, and only these are sent and worked."""
    experts = {"n_routed_experts": EXPERTS, "num_experts_per_tok": TOP_K, "moe_intermediate_size": WIDTH}
    ledger = ledger_of(model_of(grouped(), experts=experts | {"zero_expert_num": 6}))
    found = {op.name: op for op in (*ledger.parts["gate"], *ledger.parts["exchange"], *ledger.parts["routed"])}
    assert near(found["router.logits"].columns, 18) and near(found["router.logits"].weight_bytes, 2 * HIDDEN * 18)
    sent = found["exchange.dispatch"].exchange
    assert sent is not None and near(sent.copies, TOP_K * 12 / 18)
    assert near(found["experts.down"].flop, 2 * 3 * TOP_K * 12 / 18 * HIDDEN * WIDTH)  # 3 tokens on each of 4 dies


def test_a_width_of_experts_in_stages() -> None:
    """Dies with attention narrow what they send and widen what comes back; those of experts keep no such weights."""
    experts = {"n_routed_experts": EXPERTS, "num_experts_per_tok": TOP_K, "moe_intermediate_size": WIDTH}
    model = model_of(grouped(), experts=experts | {"routed_expert_hidden_size": 41})
    ledger = ledger_of(model, family_of(overlap="stages"), expert_dies=2, dies=6)
    assert near(part_bytes(ledger, "gate"), 2 * (HIDDEN * EXPERTS + 2 * HIDDEN * 41))
    assert near(part_bytes(ledger, "exchange"), 0)
    block = next(block for block in ledger.blocks if block.name == "moe_layer")
    assert "gate" in block.attention and "gate" not in block.experts


@pytest.mark.parametrize("tp", [1, 4])
def test_experts_of_another_width(tp: int) -> None:
    """Tokens are narrowed before they are sent and widened when they are back; the shared expert is not."""
    narrow = 41
    experts = {
        "n_routed_experts": EXPERTS,
        "num_experts_per_tok": TOP_K,
        "moe_intermediate_size": WIDTH,
        "n_shared_experts": 2,
        "shared_intermediate_size": 61,
        "routed_expert_hidden_size": narrow,
    }
    model = model_of(grouped(), experts=experts)
    family = family_of(reduction="all_reduce")
    ledger = ledger_of(model, family, tp=tp)
    found = {op.name: op for part in ("gate", "exchange", "routed", "shared") for op in ledger.parts[part]}
    for name in ("router.narrow", "exchange.widen"):
        assert near(found[name].weight_bytes, 2 * HIDDEN * narrow)
        assert near(found[name].flop, 2 * 3 / tp * HIDDEN * narrow)
    for name in ("exchange.dispatch", "exchange.combine"):
        sent = found[name].exchange
        assert sent is not None and near(sent.payload, 2 * narrow)
    assert near(part_bytes(ledger, "routed"), 2 * EXPERTS / 4 * 3 * narrow * WIDTH)
    assert near(part_bytes(ledger, "shared"), 2 * 3 * HIDDEN * 2 * 61 / tp)
    # an AllReduce over the instance sums narrow tokens, so the shared expert's parts need a sum of their own
    whole = ledger_of(model, replace(family, exchange="gather"), tp=tp)
    sums = {op.name: op.exchange for part in ("exchange", "shared") for op in whole.parts[part] if op.exchange}
    assert near(sums["exchange.all_reduce"].payload, 3 / tp * 2 * narrow)
    assert near(sums["shared.all_reduce"].payload, 3 / tp * 2 * HIDDEN)


@pytest.mark.parametrize("tp", [1, 4])
@pytest.mark.parametrize("reduction", ["all_to_all", "all_reduce"])
def test_a_gate_of_the_shared_expert(tp: int, reduction: Any) -> None:
    """One column more, of which each die has the whole: 2 h bytes, and 2 h FLOP for each token that it works on."""
    experts = {"n_routed_experts": EXPERTS, "num_experts_per_tok": TOP_K, "moe_intermediate_size": WIDTH}
    plain = model_of(grouped(), experts=experts | {"n_shared_experts": 1})
    gated = model_of(grouped(), experts=experts | {"n_shared_experts": 1, "shared_gate": True})
    family = family_of(reduction=reduction)
    without, held = (ledger_of(model, family, tp=tp) for model in (plain, gated))
    assert set(rows(held, "shared")) - set(rows(without, "shared")) == {"shared.gate"}
    tokens = 3 if reduction == "all_reduce" else 3 / tp  # of the rank, or a die's own part of them
    gate = rows(held, "shared")["shared.gate"]
    assert near(gate.flop, 2 * tokens * HIDDEN) and near(gate.rows, tokens)
    assert near(part_bytes(held, "shared") - part_bytes(without, "shared"), 2 * HIDDEN)
    none = model_of(grouped(), experts=experts | {"shared_gate": True})  # no shared expert, nothing to gate
    assert "shared" not in ledger_of(none, family, tp=tp).parts


def test_a_dense_feed_forward_beside_the_exchange() -> None:
    """It hides behind the exchange on one die; in stages it stays with the attention, where its tokens are."""
    layers = [{"count": 3, "feed_forward": "moe_beside_dense"}, {"count": 4, "feed_forward": "dense"}]
    model = model_of(latent(), first_k_dense_replace=0, layers=layers, num_nextn_predict_layers=0)
    for stages in (False, True):
        family = family_of(overlap="stages" if stages else "none")
        axes = {"expert_dies": 2, "dies": 6} if stages else {}
        ledger = ledger_of(model, family, **axes)
        block = next(block for block in ledger.blocks if block.name == "moe_layer")
        assert ("dense_beside" in block.attention) == stages and ("dense_beside" in block.beside) == (not stages)
        attention, experts = weight_bytes(ledger, family)
        dense = 2 * 3 * HIDDEN * WIDE
        assert near(part_bytes(ledger, "dense_beside"), dense)
        common = 2 * (2 * VOCABULARY * HIDDEN + 7 * LATENT + 3 * HIDDEN * EXPERTS) + 7 * dense
        mine = 2 * 3 * (EXPERTS / (2 if stages else 4) + 1) * 3 * HIDDEN * WIDTH
        assert near(attention, common if stages else common + mine)
        assert near(experts, mine if stages else 0)


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_streams_of_a_residual(phase: str) -> None:
    """Four streams: a matrix of 24 columns over 4 h before each of the two halves of a layer, 24 products a channel."""
    plain, mixed_streams = (ledger_of(model_of(grouped(), hc_mult=n), family_of(phase)) for n in (1, 4))
    tokens = 3 if phase == "decode" else 180
    for part, name in (("attention", "attention"), ("gate", "router"), ("dense", "dense")):
        extra = [op for op in mixed_streams.parts[part] if "streams" in op.name]
        assert [op.name for op in extra] == [f"{name}.streams_weights", f"{name}.streams"]
        weights, mixing = extra
        assert near(weights.resident_bytes, 2 * 24 * 4 * HIDDEN) and near(weights.flop, 2 * tokens * 24 * 4 * HIDDEN)
        assert (weights.operator, weights.engine) == ("matmul", "cube_bf16")  # the vector cores would take an age
        assert near(mixing.flop, 2 * tokens * 24 * HIDDEN)
        assert near(mixing.activation_bytes, 2 * tokens * (4 * HIDDEN + 4 * HIDDEN))
        rest = [op for op in mixed_streams.parts[part] if op not in extra]
        assert all(map(same, rest, plain.parts[part])) and len(rest) == len(plain.parts[part])


def test_limits_that_exclude_each_other_are_refused() -> None:
    """One limit on what a layer sees."""
    for spec in (
        latent(sliding_window=3, indexer=INDEX),
        grouped(sliding_window=3, indexer=INDEX),
        grouped(attention_chunk_size=3, indexer=INDEX),
        grouped(attention_chunk_size=3, sliding_window=3),
        compressed(compress_ratio=0, indexer=INDEX),
        compressed(compress_ratio=4, indexer=INDEX | {"pool": 2}),
    ):
        with pytest.raises(ValidationError, match="not both|one of|makes none|leave out"):
            spec_of(spec)


def test_what_tensor_parallelism_may_split() -> None:
    """Heads; of a linear layer keys with their values; of a compressed one the groups its output is made of."""
    assert [spec_of(spec).splits for spec in (latent(), grouped(), linear(), compressed(compress_ratio=0))] == [
        13,
        13,
        2,
        4,
    ]


# ------------------------------------------------------------------------------------------------------ published sizes

#: attention by its config, with the width: millions of weights, bytes a token, bytes a sequence, FLOP of the rest
REAL: dict[str, tuple[int, dict[str, Any], float, float, float]] = {
    "DeepSeek-V3.2": (
        7168,
        {
            "kind": "mla",
            "num_attention_heads": 128,
            "q_lora_rank": 1536,
            "kv_lora_rank": 512,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
            "indexer": {"n_heads": 64, "head_dim": 128, "topk": 2048},
        },
        201.06,
        85888 / 61,
        0,
    ),
    "GLM-5.3-Flash, sparse": (
        4096,
        {
            "kind": "mla",
            "num_attention_heads": 64,
            "q_lora_rank": 1536,
            "kv_lora_rank": 512,
            "qk_nope_head_dim": 256,
            "qk_rope_head_dim": 0,
            "v_head_dim": 256,
            "indexer": {"n_heads": 32, "head_dim": 128, "topk": 2048, "pool": 4},
        },
        124.91,
        11968 / 11,
        2048,  # up to 4 keys and what weighs them wait to be pooled
    ),
    "GLM-5.3-Flash, linear": (
        4096,
        {
            "kind": "linear",
            "num_key_heads": 64,
            "num_value_heads": 64,
            "key_head_dim": 128,
            "value_head_dim": 128,
            "decay": "channel",
            "gate_rank": 128,
        },
        137.73,
        0,
        (147642368 - 11 * 2048) / 34,  # without what the sparse layers keep of four tokens whose key is not pooled yet
    ),
    "Kimi-K3, linear": (
        7168,
        {
            "kind": "linear",
            "num_key_heads": 96,
            "num_value_heads": 96,
            "key_head_dim": 128,
            "value_head_dim": 128,
            "decay": "channel",
        },
        443.74,
        0,
        449372160 / 69,
    ),
    "Kimi-K3, gated latent": (
        7168,
        {
            "kind": "mla",
            "num_attention_heads": 96,
            "q_lora_rank": 1536,
            "kv_lora_rank": 512,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
            "output_gate": "channel",
        },
        232.19,
        27648 / 24,
        0,
    ),
    "Qwen3-Next, linear": (
        2048,
        {
            "kind": "linear",
            "num_key_heads": 16,
            "num_value_heads": 32,
            "key_head_dim": 128,
            "value_head_dim": 128,
        },
        33.72,
        0,
        77266944 / 36,
    ),
    "Qwen3-Next, gated": (
        2048,
        {
            "kind": "gqa",
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "head_dim": 256,
            "output_gate": "channel",
        },
        27.26,
        24576 / 12,
        0,
    ),
    "MiMo-V2-Flash, window": (
        4096,
        {
            "kind": "gqa",
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "head_dim": 192,
            "v_head_dim": 128,
            "sliding_window": 128,
        },
        94.37,
        0,
        25559040 / 39,
    ),
    "Step-3": (
        7168,
        {
            "kind": "gqa",
            "num_attention_heads": 64,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "q_lora_rank": 2048,
        },
        169.35,
        62464 / 61,
        0,
    ),
    "MiniMax-M3, sparse": (
        6144,
        {
            "kind": "gqa",
            "num_attention_heads": 64,
            "num_key_value_heads": 4,
            "head_dim": 128,
            "indexer": {"n_heads": 4, "head_dim": 128, "topk": 2048},
        },
        110.89,
        2048 + 256,
        0,
    ),
    "Llama 4 Maverick, pieces": (
        5120,
        {
            "kind": "gqa",
            "num_attention_heads": 40,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "attention_chunk_size": 8192,
        },
        62.91,
        0,
        1207959552 / 36,
    ),
    "DeepSeek-V4-Pro, sparse": (
        7168,
        {
            "kind": "compressed",
            "num_attention_heads": 128,
            "head_dim": 512,
            "q_lora_rank": 1536,
            "o_lora_rank": 1024,
            "o_groups": 16,
            "sliding_window": 128,
            "compress_ratio": 4,
            "overlap": 2,
            "indexer": {"n_heads": 64, "head_dim": 128, "topk": 1024},
        },
        331.29,
        (1024 + 256) / 4,
        131072 + 80 * 1024,
    ),
    "DeepSeek-V4-Pro, heavily compressed": (
        7168,
        {
            "kind": "compressed",
            "num_attention_heads": 128,
            "head_dim": 512,
            "q_lora_rank": 1536,
            "o_lora_rank": 1024,
            "o_groups": 16,
            "sliding_window": 128,
            "compress_ratio": 128,
        },
        307.30,
        1024 / 128,
        131072 + 512 * 1024,
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_sizes_of_real_layers(name: str) -> None:
    """Configs of released models: weights worked from them, bytes a token in BF16 and bytes a sequence.

    Norms and biases are left out, and convolutions: a thousandth of the smallest layer.
    """
    hidden, spec, millions, per_token, fixed = REAL[name]
    ledger = ledger_of(model_of(spec, hidden_size=hidden))
    assert part_bytes(ledger, "attention") / 2e6 == pytest.approx(millions, rel=1.1e-3)
    cache = cache_of(spec_of(spec), family_of())
    assert near(cache.per_token, per_token)
    assert near(cache.fixed(1 << 20), fixed)


def test_cache_of_a_million_tokens() -> None:
    """DeepSeek-V4-Pro at 1,048,576 tokens in BF16: 9.62 GiB are published, without states."""
    sparse, heavy = (
        cache_of(spec_of(REAL[f"DeepSeek-V4-Pro, {kind}"][1]), family_of()) for kind in ("sparse", "heavily compressed")
    )
    assert (30 * sparse.per_token + 31 * heavy.per_token) * 2**20 / 2**30 == pytest.approx(9.62, abs=0.005)


def v3(**attention: Any) -> ModelSpec:
    """DeepSeek-V3 by its config; with an indexer V3.2."""
    sizes = {
        "kind": "mla",
        "num_attention_heads": 128,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
    }
    return model_of(
        sizes | attention,
        hidden_size=7168,
        num_hidden_layers=61,
        first_k_dense_replace=3,
        intermediate_size=18432,
        vocab_size=129280,
        experts={
            "n_routed_experts": 256,
            "num_experts_per_tok": 8,
            "n_shared_experts": 1,
            "moe_intermediate_size": 2048,
            "n_group": 8,
            "topk_group": 4,
        },
    )


@pytest.mark.parametrize(("kv", "entry", "key"), [("bf16", 1152, 256), ("int8", 640, 132)])
def test_a_long_decode_step_of_v32_against_v3(kv: str, entry: int, key: int) -> None:
    """One sequence of 131,072 tokens in 61 layers: a core over 2048 and a scan of all, in place of a core over all.

    FLOP: 61 x 131072 x 278528 = 2.227e12 against 61 x 2048 x 278528 + 61 x 131072 x 16384 = 0.035e12 + 0.131e12, a
    13th.  Bytes in BF16: 61 x 131072 x 1152 = 9.21e9 against 61 x (2048 x 1152 + 131072 x 256) = 2.19e9, a quarter.
    """
    traffic = replace(TRAFFIC, isl=131072)
    dense, sparse = v3(), v3(indexer={"n_heads": 64, "head_dim": 128, "topk": 2048})
    family = family_of(kv_dtype=kv)
    cores = ("attention.core", "attention.index_scan")
    sums = {}
    for name, model in (("dense", dense), ("sparse", sparse)):
        ledger = ledger_of(model, family, traffic, dies=64, batch=1)
        found = [op for op in ledger.parts["attention"] if op.name in cores]
        sums[name] = [61 * sum(getattr(op, field) for op in found) for field in ("flop", "kv_bytes")]
        assert len(found) == (1 if name == "dense" else 2)
    assert sums["dense"] == [pytest.approx(2.22693e12, rel=1e-5), pytest.approx(61 * 131072 * entry)]
    assert sums["sparse"] == [
        pytest.approx(34795945984 + 999424 * 131072),
        pytest.approx(61 * (2048 * entry + 131072 * key)),
    ]
    assert sums["dense"][0] / sums["sparse"][0] == pytest.approx(13.43, abs=0.01)
    assert sums["dense"][1] / sums["sparse"][1] == pytest.approx(4.21 if kv == "bf16" else 4.51, abs=0.01)
    # what the indexers add to 671 B: 0.85 B, and a short context gains nothing
    more = [part_bytes(ledger_of(model, family_of()), "attention") for model in (dense, sparse)]
    assert 61 * (more[1] - more[0]) / 2e9 == pytest.approx(0.85, abs=0.005)
    short = [rows(ledger_of(model, family, replace(traffic, isl=1024), dies=64, batch=1)) for model in (dense, sparse)]
    assert same(short[0]["core"], short[1]["core"])


def test_dims_of_a_dense_model() -> None:
    """Nothing of experts but zeros."""
    model = model_of(grouped(), experts=None, first_k_dense_replace=0)
    dims = dims_of(model)
    assert isinstance(dims, Dims) and not dims.routes
    assert (dims.n_routed_experts, dims.num_experts_per_tok, dims.moe_intermediate_size, dims.router_columns) == (
        0,
    ) * 4
