"""Configs made at random, of every kind of attention, in many spellings: what is read is counted right and explained.

Weights are counted from the sizes that were drawn, not from the model that was read: what a spelling loses shows.
Convolutions and positions of entries are left out, here and there: below 0.1 % of a model that is not as small.
"""

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from perfmodel.cli.app import app
from perfmodel.errors import UsageError
from perfmodel.files import catalog
from perfmodel.ledger.footprint import cache_of_model, kept_weights, weight_bytes
from perfmodel.ledger.parameters import parameters_of
from perfmodel.ledger.records import Family, Layout, Ledger, Traffic
from perfmodel.ledger.step import build_ledger, dims_of
from perfmodel.prediction.breakdown import breakdown
from perfmodel.prediction.serving import Case, pool_point
from perfmodel.specs.model import ModelSpec
from tests.builders import rates_of

QUIET: dict[str, Any] = {"derandomize": True, "database": None, "deadline": None} | {
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
}
NUMBERS = count()

sizes = st.integers(1, 4).map(lambda n: 16 * n)
few = st.integers(1, 6)


def one_of(*spellings: str) -> st.SearchStrategy[str]:
    return st.sampled_from(spellings)


Drawn = tuple[dict[str, Any], int, int]  # keys, weights of all layers' attention, bytes in BF16 of each token's cache


@st.composite
def grouped(draw: Any, h: int, layers: int) -> Drawn:
    """Full attention, a window on some layers, chunks on some, or tokens chosen by an indexer on all."""
    groups, times, size = draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([1, 2, 8])), draw(sizes)
    heads = groups * times
    keys = {
        draw(one_of("num_attention_heads", "n_heads")): heads,
        draw(one_of("num_key_value_heads", "n_kv_heads", "num_attention_groups")): groups,
        "head_dim": size,
    }
    each, full = h * heads * size * 2 + 2 * h * groups * size, layers
    if draw(st.booleans()):
        keys[draw(one_of("attn_output_gate", "attention_output_gate"))] = True
        each += h * heads * size
    match draw(st.sampled_from(["full", "window", "pattern", "chunked"])):
        case "window":
            windows = draw(st.lists(st.booleans(), min_size=layers, max_size=layers))
            words = {True: draw(one_of("sliding_attention", "local_attention")), False: "full_attention"}
            keys |= {draw(one_of("sliding_window", "sliding_window_size")): 32}
            keys |= {"layer_types": [words[one] for one in windows]}
            full -= sum(windows)
        case "pattern":
            windows = draw(st.lists(st.integers(0, 1), min_size=layers, max_size=layers))
            keys |= {"sliding_window": 64, "hybrid_layer_pattern": windows}
            full -= sum(windows)
        case "chunked":
            pieces = draw(st.lists(st.integers(0, 1), min_size=layers, max_size=layers))
            keys |= {"attention_chunk_size": 48, "no_rope_layers": pieces}
            full -= sum(pieces)
    return keys, layers * each, full * 2 * 2 * groups * size


@st.composite
def latent(draw: Any, h: int, layers: int) -> Drawn:
    """Latent attention, with queries of low rank or not, with an indexer that some layers share or without."""
    heads, rank, nope, rope, value = draw(st.sampled_from([1, 2, 8])), *(draw(sizes) for _ in range(4))
    low = draw(st.none() | sizes)
    keys: dict[str, Any] = {"num_attention_heads": heads, "q_lora_rank": low, "kv_lora_rank": rank}
    keys |= {"qk_nope_head_dim": nope, "qk_rope_head_dim": rope, "v_head_dim": value}
    wide = heads * (nope + rope)
    each = h * wide if low is None else h * low + low * wide
    each += h * (rank + rope) + rank * heads * (nope + value) + heads * value * h
    total, cache = layers * each, layers * 2 * (rank + rope)
    if draw(st.booleans()):
        of_index, size = draw(st.sampled_from([1, 4])), draw(sizes)
        keys |= {"index_n_heads": of_index, "index_head_dim": size, "index_topk": 24}
        choosing = layers
        if draw(st.booleans()):
            words = ["full", *draw(st.lists(one_of("full", "shared"), min_size=layers - 1, max_size=layers - 1))]
            keys["indexer_types"], choosing = words, words.count("full")
        total += choosing * ((low or h) * of_index * size + h * size + h * of_index)
        cache += choosing * 2 * size
    return keys, total, cache


@st.composite
def linear(draw: Any, h: int, layers: int) -> Drawn:
    """A gated delta net, or Kimi delta attention, on all layers but some that are grouped."""
    heads, size = 2, draw(sizes)
    keys: dict[str, Any] = {"num_attention_heads": heads, "num_key_value_heads": 1, "head_dim": size}
    every = draw(st.integers(2, layers + 1))
    full = layers // every
    grouped_one = h * heads * size * 2 + 2 * h * size
    if draw(st.booleans()):
        nk, times, dk, dv = draw(st.sampled_from([1, 2])), draw(few), draw(sizes), draw(sizes)
        nv = nk * times
        keys |= {"linear_num_key_heads": nk, "linear_num_value_heads": nv, "linear_key_head_dim": dk}
        keys |= {"linear_value_head_dim": dv, "linear_conv_kernel_dim": 4}
        if draw(st.booleans()):
            keys["full_attention_interval"] = every
        else:
            words = {True: "full_attention", False: "linear_attention"}
            keys["layer_types"] = [words[(layer + 1) % every == 0] for layer in range(layers)]
        kd, vd = nk * dk, nv * dv
        each = h * (2 * kd + 2 * vd) + 2 * h * nv + vd * h
    else:
        n, d = draw(few), draw(sizes)
        first = draw(st.integers(0, 1))  # Kimi counts its layers from 1, GLM from 0
        at = [layer for layer in range(layers) if (layer + 1) % every == 0]
        others = [layer for layer in range(layers) if layer not in at]
        keys["linear_attn_config"] = {"num_heads": n, "head_dim": d, "short_conv_kernel_size": 4} | {
            "full_attn_layers": [one + first for one in at], "kda_layers": [one + first for one in others]
        }  # fmt: skip
        p = n * d
        each = 3 * h * p + h * d + d * p + h * n + h * d + d * p + p * h
    return keys, full * grouped_one + (layers - full) * each, full * 2 * 2 * size


@st.composite
def compressed(draw: Any, h: int, layers: int) -> Drawn:
    """As in DeepSeek-V4: every layer has a window, some compress 4 to 1 and choose, some compress further."""
    n, low, out, blocks = 4, draw(sizes), draw(sizes), draw(st.sampled_from([1, 2]))
    d, of_index, size = 64, draw(st.sampled_from([1, 4])), draw(sizes)
    ratios = draw(st.lists(st.sampled_from([0, 4, 128]), min_size=layers, max_size=layers))
    keys: dict[str, Any] = {"model_type": "deepseek_v4", "num_attention_heads": n, "num_key_value_heads": 1}
    keys |= {"head_dim": d, "qk_rope_head_dim": 16, "q_lora_rank": low, "o_lora_rank": out, "o_groups": blocks}
    keys |= {"sliding_window": 32, "compress_ratios": ratios, "index_topk": 8}
    keys |= {"index_n_heads": of_index, "index_head_dim": size}
    base = h * low + low * n * d + h * d + n * d * out + blocks * out * h
    more = {0: 0, 128: 2 * h * d}
    more[4] = 4 * h * d + low * of_index * size + h * of_index + 4 * h * size
    cache = {0: 0, 4: 2 * (d + size) / 4, 128: 2 * d / 128}
    return keys, sum(base + more[one] for one in ratios), sum(cache[one] for one in ratios)  # type: ignore[return-value]


@st.composite
def configs(draw: Any) -> tuple[dict[str, Any], int, float]:
    """Return a config, its weights but those of draft layers, and the bytes of a token in all caches."""
    h, layers, vocabulary = draw(sizes), draw(st.integers(1, 7)), draw(st.sampled_from([64, 512]))
    kind = draw(st.sampled_from([grouped, latent, linear, compressed]))
    keys, total, cache = draw(kind(h, layers))
    tied = draw(st.booleans())
    total += vocabulary * h * (1 if tied else 2)
    keys |= {draw(one_of("num_hidden_layers", "n_layers")): layers, draw(one_of("hidden_size", "dim")): h}
    keys |= {"vocab_size": vocabulary, "tie_word_embeddings": tied}
    keys |= {draw(one_of("max_position_embeddings", "max_seq_len")): 8192}
    routed = draw(st.booleans())
    first = draw(st.integers(0, layers - 1)) if routed else layers
    wide = draw(sizes)
    if first or draw(st.booleans()):
        keys[draw(one_of("intermediate_size", "ffn_hidden_size"))] = wide
    total += first * 3 * h * wide
    if routed:
        routes, width, zero = draw(st.sampled_from([2, 4, 8])), draw(sizes), draw(st.sampled_from([0, 0, 2]))
        chosen, shared = draw(st.integers(1, routes)), draw(st.integers(0, 2))
        keys[draw(one_of("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts"))] = routes
        keys[draw(one_of("num_experts_per_tok", "moe_topk", "experts_per_token"))] = chosen
        keys[draw(one_of("moe_intermediate_size", "expert_ffn_hidden_size"))] = width
        keys[draw(one_of("n_shared_experts", "num_shared_experts"))] = shared
        keys |= {"zero_expert_num": zero} if zero else {}
        form = draw(st.sampled_from(["first", "list", "words", "numbers"]))
        keys |= {
            "first": {"first_k_dense_replace": first},
            "list": {"moe_layer_freq": [int(layer >= first) for layer in range(layers)]},
            "words": {"mlp_layer_types": ["dense"] * first + ["sparse"] * (layers - first)},
            "numbers": {"moe_layers_enum": ",".join(str(layer) for layer in range(first, layers))},
        }[form]
        total += (layers - first) * (3 * h * width * (routes + shared) + h * (routes + zero))
        drafts_are_dense = form == "numbers"  # which does not list them
    else:
        drafts_are_dense = True
    if not drafts_are_dense or first:
        keys[draw(one_of("num_nextn_predict_layers", "mtp_num_hidden_layers"))] = draw(st.integers(0, 2))
    streams = draw(st.sampled_from([1, 1, 4]))
    if streams > 1:
        keys["hc_mult"] = streams
        total += layers * 2 * (streams**2 + 2 * streams) * streams * h
    if draw(st.booleans()):  # nested as models that see have it; what they see with is no layer
        keys = {"model_type": keys.get("model_type", "some_vl"), "text_config": keys, "vision_config": {"depth": 3}}
    return keys, total, cache


def step_of(model: ModelSpec, phase: str, batch: int) -> tuple[Ledger, Family]:
    family = Family(phase=phase, own_shared_ranks=False, overlap="none", exchange="gather", precision="bf16")
    layout = Layout(dies=1, tp=1, shared_ranks=0, redundant=0, batch=batch, draft=0, attention_cores=0)
    traffic = Traffic(isl=512, osl=1, skew=0.0, residual=0.0, chance=0.0, context_spread=0.0)
    return build_ledger(layout, family, traffic, model, dims_of(model)), family


def flop_of(ledger: Ledger) -> float:
    return sum(
        float(block.layers) * float(op.flop)
        for block in ledger.blocks
        for part in (*block.attention, *block.experts, *block.beside)
        for op in ledger.parts[part]
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("random") / "config.json"


@settings(max_examples=120, **QUIET)
@given(configs())
def test_what_was_drawn_is_what_is_counted_and_explained(path: Path, drawn: tuple[dict[str, Any], int, float]) -> None:
    config, total, cache = drawn
    path.write_text(json.dumps(config), encoding="utf-8")
    model = catalog.load_path.__wrapped__("models", path).spec  # past its memory

    # weights: those drawn, and one die that has all keeps each once
    counted = parameters_of(model)
    assert counted.total == pytest.approx(total, rel=1e-9)
    ledger, family = step_of(model, "decode", 3)
    assert float(weight_bytes(ledger, family)[0]) == pytest.approx(2 * total, rel=1e-9)
    assert sum(float(size) for *_, size in kept_weights(ledger, family)) == pytest.approx(2 * total, rel=1e-9)
    assert (counted.draft > 0) == (model.num_nextn_predict_layers > 0)
    assert counted.active <= counted.total * (1 + 1e-9)

    # caches: bytes of a token, and half of them in eight bits but what stays in BF16
    kept = cache_of_model(model, family, tp=1, draft=0)
    assert float(kept.per_token) == pytest.approx(cache, rel=1e-9)

    # a step of twice the sequences does twice the work, and reads no weight twice
    for phase in ("decode", "prefill"):
        (one, _), (two, _) = step_of(model, phase, 2), step_of(model, phase, 4)
        assert flop_of(two) == pytest.approx(2 * flop_of(one), rel=1e-9)

    # rows of what `explain` shows add up to the step
    for phase in ("decode", "prefill"):
        routes = model.experts is not None
        serving = Family(
            phase=phase, own_shared_ranks=False, overlap="none", exchange="dispatch" if routes else "gather",
            reduction="scatter_gather" if routes else "all_reduce",
        )  # fmt: skip
        draft = model.num_nextn_predict_layers
        rates = rates_of("cloudmatrix384")
        case = Case(model=model, rates=rates, isl=512, osl=64, acceptance=(0.5,) * draft)
        layout = Layout(dies=2, tp=1, shared_ranks=0, redundant=0, batch=4, draft=draft, attention_cores=0)
        point = pool_point(layout, serving, case)
        rows = build_ledger(layout, serving, case.traffic, model, case.dims)
        parts = breakdown(rows, serving, 0, rates, rates_of("cloudmatrix384", "ideal"))
        assert parts.step_time == pytest.approx(float(point.step_time), rel=1e-12)
        assert sum(parts.by_operator().values()) == pytest.approx(parts.step_time, rel=1e-9)
        assert float(point.step_time) > 0 and float(point.footprint.weights) > 0


@settings(max_examples=12, **QUIET)
@given(configs(), st.sampled_from([("--phase", "decode"), ("--phase", "prefill", "--tp", "2")]))
def test_the_command_explains_it(path: Path, drawn: tuple[dict[str, Any], int, float], words: tuple[str, ...]) -> None:
    file = path.with_name(f"{next(NUMBERS)}.json")  # each is read once and remembered
    file.write_text(json.dumps(drawn[0]), encoding="utf-8")
    asked = ("--on", "cloudmatrix384", "--dies", "2", "--batch", "4", "--isl", "512", "--osl", "64", *words)
    done = CliRunner().invoke(app, ["explain", str(file), *asked, "--format", "json"])
    if isinstance(done.exception, UsageError):  # heads that do not divide are told, before anything is worked out
        assert "--tp" in words and "tp" in str(done.exception)
        return
    assert done.exit_code == 0, (done.exception, done.stderr)
    operators = next(t for t in json.loads(done.stdout)["tables"] if t["title"].startswith("Operators"))
    shares = [row["share"] for row in operators["rows"] if row["share"] is not None]
    assert sum(shares) == pytest.approx(1, rel=1e-9)
