"""Numbers of one explained step, worked again from config.json by other means than the package's formulas."""

import json
from math import exp, log, sqrt
from statistics import NormalDist
from typing import Any

import pytest

from tests import process

BATCH, DRAFT, ISL, OSL, DIES, SHARED = 49, 1, 4096, 1024, 288, 32
LAYERS, MICRO = 58, 2
HIDDEN, HEADS, RANK, ROPE, NOPE, VALUE, QRANK, WIDTH = 7168, 128, 512, 64, 128, 128, 1536, 2048


def z(count: int) -> float:
    return NormalDist().inv_cdf((count - 0.375) / (count + 0.25))


def explained(more: str, layout: str = f"--dies {DIES} --shared-ranks {SHARED} --batch {BATCH}") -> dict[str, Any]:
    words = f"explain deepseek-v3 --on cloudmatrix384 {layout} --isl {ISL} --osl {OSL} --format json {more}"
    done = process.run(*words.split(), check=True)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def rows_of(document: dict[str, Any], block: str) -> dict[str, dict[str, Any]]:
    operators = next(t for t in document["tables"] if t["title"].startswith("Operators"))["rows"]
    return {row["operator"]: row for row in operators if row["block"] == block}


@pytest.fixture(scope="module")
def step() -> dict[str, dict[str, float]]:
    document = explained(f"--draft {DRAFT} --overlap cores --attention-cores 16")
    rows = rows_of(document, "moe_layer")
    memory = next(t for t in document["tables"] if t["title"] == "Memory")["rows"]
    rows["memory"] = {row["what"]: row["planned"] for row in memory}
    return rows


def contexts() -> float:
    """Cached tokens of the busiest rank: progress uniform over the output, the largest of 288 ranks."""
    return BATCH * (ISL + OSL / 2) + z(DIES) * OSL / sqrt(12) * sqrt(BATCH)


def routed_tokens() -> float:
    mean = BATCH * (1 + DRAFT) / MICRO * DIES * 8 / (DIES - SHARED)
    ranks, sequences = DIES - SHARED, BATCH * DIES / MICRO
    skew = exp(0.1149**2) * (1 + (exp(1.59**2) - 1) / sequences) - 1  # of one slot; the draw of experts is beside it
    spread = log(1 + (1 - 1 / ranks) * (skew + 1 / mean))
    return mean * exp(z(ranks) * sqrt(spread) - spread / 2)


def test_latent_attention_flop(step: dict) -> None:
    """Per query, head and cached token: a dot product over 576 and a sum over 512."""
    expected = LAYERS * contexts() * (1 + DRAFT) * HEADS * (2 * (RANK + ROPE) + 2 * RANK)
    assert step["attention.core"]["flop"] == pytest.approx(expected, rel=1e-9)


def test_latent_attention_bytes(step: dict) -> None:
    """Each cached token once a pass, 576 BF16 values; queries and outputs of 128 heads beside it."""
    tokens = BATCH * (1 + DRAFT)
    expected = LAYERS * (contexts() * 576 * 2 + tokens * HEADS * (512 + 64 + 512) * 2)
    assert step["attention.core"]["bytes"] == pytest.approx(expected, rel=1e-9)


def test_output_projection_bytes(step: dict) -> None:
    """Weights are read by both micro-batches; INT8 in, BF16 out."""
    tokens = BATCH * (1 + DRAFT)
    weights = HEADS * VALUE * HIDDEN
    expected = LAYERS * (MICRO * weights + tokens * (HEADS * VALUE + 2 * HIDDEN))
    assert step["attention.o_proj"]["bytes"] == pytest.approx(expected, rel=1e-9)


def test_expert_flop_of_the_busiest_rank(step: dict) -> None:
    runs = LAYERS * MICRO
    assert step["experts.gate_up"]["flop"] == pytest.approx(runs * routed_tokens() * 2 * HIDDEN * 2 * WIDTH, rel=1e-9)
    assert step["experts.down"]["flop"] == pytest.approx(runs * routed_tokens() * 2 * WIDTH * HIDDEN, rel=1e-9)


def test_shared_ranks_take_every_token_once(step: dict) -> None:
    tokens = BATCH * (1 + DRAFT) * DIES / SHARED
    assert step["shared.down"]["flop"] == pytest.approx(LAYERS * tokens * 2 * WIDTH * HIDDEN, rel=1e-9)


def test_dispatch_and_combine_times(step: dict) -> None:
    """16.3 (16.2) us and 1.25 (1.07) times 126 (130) ns a message that leaves the card, on the busiest rank."""
    assert routed_tokens() > BATCH * (1 + DRAFT) / MICRO * 9  # more than any rank sends
    messages = routed_tokens() * (1 - 2 / DIES)
    dispatch, combine = 16.3e-6 + 1.25 * messages * 126e-9, 16.2e-6 + 1.07 * messages * 130e-9
    assert step["exchange.dispatch"]["time"] == pytest.approx(LAYERS * MICRO * dispatch, rel=1e-9)
    assert step["exchange.combine"]["time"] == pytest.approx(LAYERS * MICRO * combine, rel=1e-9)


def test_weights_of_a_die(step: dict) -> None:
    """Attention and dense layers on every die, one expert of each MoE layer; INT8, absorbed parts and router BF16."""
    qkv = HIDDEN * (QRANK + RANK + ROPE) + QRANK * HEADS * (NOPE + ROPE)
    attention = qkv + HEADS * VALUE * HIDDEN + 2 * HEADS * (NOPE + VALUE) * RANK
    moe = HIDDEN * 256 * 2 + 3 * HIDDEN * WIDTH
    dense = 3 * HIDDEN * 18432
    vocabulary = 2 * 129280 * HIDDEN * 2
    joiner = 2 * HIDDEN * HIDDEN * 2  # of hidden state and embedding before the draft layer
    expected = 62 * attention + 59 * moe + 3 * dense + vocabulary + joiner
    held = {name.removeprefix("weights: "): size for name, size in step["memory"].items() if "weights" in name}
    assert sum(held.values()) == pytest.approx(expected, rel=1e-9)
    assert held["attention"] == pytest.approx(62 * attention, rel=1e-9)
    assert held["routed or shared"] == pytest.approx(59 * 3 * HIDDEN * WIDTH, rel=1e-9)


def test_planned_cache_of_a_die(step: dict) -> None:
    """62 layers of 1,152 bytes; mean + 3 sigma of the contexts and half a block wasted by each request."""
    tokens = BATCH * (ISL + OSL / 2 + 64) + 3 * OSL / sqrt(12) * sqrt(BATCH)
    held = step["memory"]["KV cache"]
    assert held == pytest.approx(62 * 1152 * tokens, rel=1e-9)


def test_drafts_after_the_first_run_on_one_token_a_sequence() -> None:
    """Three drafts of one layer: 49 x 4 tokens once, then 49 x 1 twice, each looking at the whole cache."""
    document = explained("--draft 3 --acceptance 0.7,0.5,0.2 --overlap none")
    once, again = rows_of(document, "draft_layer"), rows_of(document, "redraft_layer")
    query = contexts() * HEADS * (2 * (RANK + ROPE) + 2 * RANK)
    assert (once["attention.core"]["runs"], again["attention.core"]["runs"]) == (1, 2)
    assert once["attention.core"]["flop"] == pytest.approx(4 * query, rel=1e-9)
    assert again["attention.core"]["flop"] == pytest.approx(2 * query, rel=1e-9)
    projected = BATCH * 2 * HEADS * VALUE * HIDDEN
    assert once["attention.o_proj"]["flop"] == pytest.approx(4 * projected, rel=1e-9)
    assert again["attention.o_proj"]["flop"] == pytest.approx(2 * projected, rel=1e-9)
    logits = rows_of(document, "redraft_head")["head.logits"]["flop"]
    assert logits == pytest.approx(2 * BATCH * 2 * HIDDEN * 129280, rel=1e-9)


def test_four_bit_experts_are_unpacked_inside_their_products() -> None:
    """One expert a die, 44 M weights: half a byte each is read, a byte each written to L2 by 24 cores, 86 B a cycle.

    Two casts on 48 vector cores take 13.3 us at 0.3 of 256 FLOP a cycle, writing 11.9, the stream 14.6 of 1.5 TB/s.
    """
    words = "--stack vllm-ascend-2025 --draft 1 --overlap none --with w4a8=on"
    up = rows_of(explained(words), "moe_layer")["experts.gate_up"]
    tokens = up["flop"] / up["runs"] / (2 * HIDDEN * 2 * WIDTH)
    read = 2 * HIDDEN * WIDTH / 2
    unpacked = 2 * 2 * HIDDEN * WIDTH / (48 * 256 * 1.8e9 * 0.3)
    assert unpacked > 2 * HIDDEN * WIDTH / (24 * 86 * 1.8e9)
    rows_hidden = 123 / (123 + tokens)
    stream = read / (0.9393 * 1.6e12)
    brought = stream + unpacked - 0.5 * min(stream, unpacked)
    compute = tokens * 2 * HIDDEN * 2 * WIDTH / (24 * 16384 * 1.8e9 * 0.8672)
    passes = 5.285 * tokens * (HIDDEN + 2 * 2 * WIDTH) / 1.6e12
    each = brought + compute - rows_hidden * min(brought, compute) + passes
    assert up["time"] / up["runs"] == pytest.approx(each + 29.55e-6, rel=1e-6)


def test_a_die_with_eight_heads_works_half_a_tile_for_one_query() -> None:
    """128 heads over tp 16: one query fills 8 of the cube's 16 rows, so that two queries take the cube no longer.

    19 sequences of 4,608 tokens on one rank of 16; 0.654 of 24 x 8192 FLOP a cycle at 1.8 GHz.
    """
    bound = []
    for drafts in (0, 1):
        row = rows_of(explained(f"--overlap none --draft {drafts}", "--dies 256 --tp 16 --batch 19"), "moe_layer")[
            "attention.core"
        ]
        bound.append((row["flop"] / row["runs"], row["time"] / row["runs"]))
    (one, first), (two, second) = bound
    assert two == pytest.approx(2 * one, rel=1e-9)
    cached = 19 * (ISL + OSL / 2) + z(16) * OSL / sqrt(12) * sqrt(19)
    compute = 2 * one / (24 * 8192 * 1.8e9 * 0.654)
    stream = cached * 1152 / (0.841 * 1.6e12)
    queries = 19 * 8 * (2 * RANK + ROPE) * 2 / (24 * 110 * 1.8e9)
    each = compute + stream - 0.85 * min(compute, stream)
    assert first == pytest.approx(10e-6 + each + queries, rel=1e-6)
    assert second == pytest.approx(10e-6 + each + 2 * queries, rel=1e-6)
