"""Models on file: their weights, caches and attention, counted a second time, and every one explained."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from perfmodel.cli.app import program
from perfmodel.files import catalog, folders
from perfmodel.ledger.footprint import cache_of_model, kept_weights
from perfmodel.ledger.parameters import parameters_of
from perfmodel.ledger.records import Family, Layout, Ledger, Traffic
from perfmodel.ledger.step import build_ledger, dims_of
from perfmodel.prediction.breakdown import breakdown
from perfmodel.prediction.serving import Case, pool_point
from perfmodel.report.table import Document
from perfmodel.report.terminal import Terminal
from perfmodel.specs.attention import AttentionSpec, CompressedSpec, GqaSpec, IndexerSpec, LinearSpec, MlaSpec
from perfmodel.specs.model import ExpertsSpec, LayerGroupSpec, ModelSpec
from tests.builders import rates_of

NAMES = folders.names("models")


@dataclass(frozen=True, kw_only=True)
class Known:
    """What was worked out for a model from its config, apart from this tool: see each field."""

    #: weights in 10^9 to two decimals: all but norms, and those used for a token without and with the input embedding
    total: float
    active: float
    active_with_embedding: float
    #: bytes in BF16 that a token adds to the cache, and those of windows and states of a long sequence
    cache: int
    fixed: int = 0
    #: FLOP of attention cores and index scans for a decoded token: of each token of the context, and of what does not
    #: grow with it, where that is reached
    per_token: int
    capped: int = 0
    #: FLOP of states for a token
    recurrent: int = 0


KNOWN = {
    "deepseek-v3": Known(total=671.03, active=36.62, active_with_embedding=37.55, cache=70272, per_token=16990208),
    "deepseek-v3.2": Known(
        total=671.88, active=37.48, active_with_embedding=38.4, cache=85888, per_token=999424, capped=34795945984
    ),
    "deepseek-v4-flash": Known(
        total=284.33,
        active=13.27,
        active_with_embedding=13.8,
        cache=6880,
        fixed=5636096,
        per_token=106496,
        capped=2130706432,
    ),
    "deepseek-v4-pro": Known(
        total=1573.0,
        active=48.85,
        active_with_embedding=49.78,
        cache=9848,
        fixed=7995392,
        per_token=186368,
        capped=10099884032,
    ),
    "ernie-4.5-300b-a47b": Known(
        total=298.64, active=47.08, active_with_embedding=47.93, cache=221184, per_token=1769472
    ),
    "glm-4.5": Known(total=352.8, active=32.86, active_with_embedding=33.63, cache=376832, per_token=4521984),
    "glm-4.5-air": Known(total=106.85, active=12.8, active_with_embedding=13.42, cache=188416, per_token=2260992),
    "glm-4.6": Known(total=352.8, active=32.86, active_with_embedding=33.63, cache=376832, per_token=4521984),
    "glm-5": Known(
        total=743.91, active=40.83, active_with_embedding=41.78, cache=109824, per_token=638976, capped=22246588416
    ),
    "glm-5.2": Known(
        total=743.38, active=40.3, active_with_embedding=41.25, cache=95232, per_token=172032, capped=22246588416
    ),
    "glm-5.3-flash": Known(
        total=313.33,
        active=16.74,
        active_with_embedding=17.38,
        cache=11968,
        fixed=147642368,
        per_token=22528,
        capped=2952790016,
        recurrent=249561088,
    ),
    "gpt-oss-120b": Known(
        total=116.83,
        active=5.13,
        active_with_embedding=5.71,
        cache=36864,
        fixed=4718592,
        per_token=294912,
        capped=37748736,
    ),
    "gpt-oss-20b": Known(
        total=20.91,
        active=3.61,
        active_with_embedding=4.19,
        cache=24576,
        fixed=3145728,
        per_token=196608,
        capped=25165824,
    ),
    "hy3": Known(total=295.03, active=20.18, active_with_embedding=20.68, cache=327680, per_token=2621440),
    "kimi-k2": Known(total=1026.41, active=31.69, active_with_embedding=32.86, cache=70272, per_token=8495104),
    "kimi-k2-0905": Known(total=1026.41, active=31.69, active_with_embedding=32.86, cache=70272, per_token=8495104),
    "kimi-k2.5": Known(total=1026.41, active=31.69, active_with_embedding=32.86, cache=70272, per_token=8495104),
    "kimi-k3": Known(
        total=2779.48,
        active=104.19,
        active_with_embedding=105.36,
        cache=27648,
        fixed=449372160,
        per_token=5013504,
        recurrent=759693312,
    ),
    "kimi-linear-48b": Known(
        total=49.12,
        active=3.11,
        active_with_embedding=3.48,
        cache=8064,
        fixed=43417600,
        per_token=487424,
        recurrent=73400320,
    ),
    "ling-1t": Known(total=999.7, active=49.77, active_with_embedding=51.05, cache=327680, per_token=2621440),
    "llama-4-maverick": Known(
        total=400.71,
        active=16.15,
        active_with_embedding=17.18,
        cache=49152,
        fixed=1207959552,
        per_token=245760,
        capped=6039797760,
    ),
    "llama-4-scout": Known(
        total=107.77,
        active=16.14,
        active_with_embedding=17.17,
        cache=49152,
        fixed=1207959552,
        per_token=245760,
        capped=6039797760,
    ),
    "longcat-2.0": Known(
        total=1503.57, active=48.65, active_with_embedding=49.99, cache=97280, per_token=311296, capped=21676163072
    ),
    "longcat-flash": Known(total=560.66, active=27.15, active_with_embedding=27.95, cache=64512, per_token=7798784),
    "mimo-v2-flash": Known(
        total=308.78,
        active=14.82,
        active_with_embedding=15.45,
        cache=23040,
        fixed=25559040,
        per_token=368640,
        capped=204472320,
    ),
    "mimo-v2.5-pro": Known(
        total=1021.25,
        active=40.96,
        active_with_embedding=41.89,
        cache=51200,
        fixed=39321600,
        per_token=819200,
        capped=629145600,
    ),
    "minimax-m2": Known(total=228.69, active=10.42, active_with_embedding=11.03, cache=253952, per_token=1523712),
    "minimax-m3": Known(
        total=426.17, active=24.73, active_with_embedding=25.96, cache=137472, per_token=156672, capped=3825205248
    ),
    "mistral-large-3": Known(total=673.42, active=39.01, active_with_embedding=39.95, cache=70272, per_token=16990208),
    "openpangu-ultra-moe": Known(
        total=719.09, active=39.19, active_with_embedding=40.37, cache=70272, per_token=16990208
    ),
    "openpangu-v2-moe-505b": Known(
        total=504.63,
        active=17.43,
        active_with_embedding=18.21,
        cache=25344,
        fixed=18874368,
        per_token=147456,
        capped=7415529472,
    ),
    "pangu-pro-moe": Known(total=71.99, active=15.71, active_with_embedding=16.5, cache=196608, per_token=983040),
    "qwen3-235b-a22b": Known(total=235.09, active=21.57, active_with_embedding=22.19, cache=192512, per_token=3080192),
    "qwen3-30b-a3b": Known(total=30.53, active=3.04, active_with_embedding=3.35, cache=98304, per_token=786432),
    "qwen3-32b": Known(total=32.76, active=31.98, active_with_embedding=32.76, cache=262144, per_token=2097152),
    "qwen3-8b": Known(total=8.19, active=7.57, active_with_embedding=8.19, cache=147456, per_token=589824),
    "qwen3-next-80b-a3b": Known(
        total=79.67,
        active=3.56,
        active_with_embedding=3.87,
        cache=24576,
        fixed=77266944,
        per_token=196608,
        recurrent=132120576,
    ),
    "qwen3.5-122b-a10b": Known(
        total=122.11,
        active=9.01,
        active_with_embedding=9.77,
        cache=24576,
        fixed=153649152,
        per_token=393216,
        recurrent=264241152,
    ),
    "qwen3.5-27b": Known(
        total=26.9,
        active=25.62,
        active_with_embedding=26.9,
        cache=65536,
        fixed=153944064,
        per_token=393216,
        recurrent=264241152,
    ),
    "qwen3.5-35b-a3b": Known(
        total=34.66,
        active=2.95,
        active_with_embedding=3.45,
        cache=20480,
        fixed=64389120,
        per_token=163840,
        recurrent=110100480,
    ),
    "qwen3.5-397b-a17b": Known(
        total=396.35,
        active=16.33,
        active_with_embedding=17.35,
        cache=30720,
        fixed=192061440,
        per_token=491520,
        recurrent=330301440,
    ),
    "qwen3.8-2.4t-a95b": Known(
        total=2419.8,
        active=93.25,
        active_with_embedding=95.29,
        cache=94208,
        fixed=587292672,
        per_token=1507328,
        recurrent=1012924416,
    ),
    "step-3": Known(total=316.29, active=37.92, active_with_embedding=38.84, cache=62464, per_token=3997696),
    "step-3.5-flash": Known(
        total=196.96,
        active=11.46,
        active_with_embedding=11.99,
        cache=49152,
        fixed=69206016,
        per_token=393216,
        capped=830472192,
    ),
}


def one_die(phase: str, model: ModelSpec, *, draft: int = 0, **traffic: Any) -> tuple[Ledger, Family]:
    """Return the step of one sequence on one die that has all of a model in BF16."""
    family = Family(phase=phase, own_shared_ranks=False, overlap="none", exchange="gather", precision="bf16")
    layout = Layout(dies=1, tp=1, shared_ranks=0, redundant=0, batch=1, draft=draft, attention_cores=0)
    even = Traffic(**({"isl": 1024, "osl": 1} | traffic), skew=0.0, residual=0.0, chance=0.0, context_spread=0.0)
    return build_ledger(layout, family, even, model, dims_of(model)), family


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest) -> ModelSpec:
    return catalog.load_model(request.param).spec


def test_every_model_is_known() -> None:
    """Each has figures from elsewhere."""
    assert sorted(KNOWN) == sorted(NAMES)


# What a publication states


def unit(printed: float) -> float:
    """Return one unit of the last digit of a number of 10^9 as it is printed."""
    digits = f"{printed / 1e9:g}".partition(".")[2]
    return 1e9 * 10 ** -len(digits)


def test_weights_are_as_published(model: ModelSpec) -> None:
    """Totals within their printed digits; active weights to one unit of the last, with or without the embedding."""
    counted, checks = parameters_of(model), model.checks
    assert checks is not None
    assert counted.total == pytest.approx(checks.parameters, rel=checks.within)
    if checks.active_parameters is not None:
        embedding = 0 if model.tie_word_embeddings else model.vocab_size * model.hidden_size
        conventions = (counted.active, counted.active - embedding)
        off = min(abs(each - checks.active_parameters) for each in conventions)
        assert off < unit(checks.active_parameters) * (1 + 1e-9)
    if checks.mtp_parameters is not None:
        assert counted.draft / model.num_nextn_predict_layers == pytest.approx(checks.mtp_parameters, rel=checks.within)


@pytest.mark.parametrize("draft", [0, 1])
def test_a_die_that_has_all_keeps_every_weight_once(model: ModelSpec, draft: int) -> None:
    """The bytes of a footprint are two a weight, those of the draft layers that run among them."""
    draft = min(draft, model.num_nextn_predict_layers)
    ledger, family = one_die("decode", model, draft=draft)
    counted = parameters_of(model)
    drafts = draft * counted.draft / max(model.num_nextn_predict_layers, 1)
    kept = sum(float(size) for _, _, size in kept_weights(ledger, family))
    assert kept / 2 == pytest.approx(counted.total + drafts, rel=1e-9)


# What a config says

CONFIGS = Path(__file__).parent / "data" / "model_configs"
#: on no file: its layers read caches that other layers keep
UNSAID = "deepseek-v4.1-flash"
#: what a file has from elsewhere than a config, or from that of another release
BESIDE = {
    "glm-4.5": {"max_position_embeddings"},  # the config is that of 4.7
    "qwen3-235b-a22b": {"intermediate_size"},  # which no layer has
}


def layers_of(model: ModelSpec) -> Counter[tuple[str, str]]:
    """Return how many layers there are of each attention and feed-forward, however they are grouped."""
    layers: Counter[tuple[str, str]] = Counter()
    for group in model.groups:
        layers[model.attention_of(group).model_dump_json(), group.feed_forward] += group.count
    return layers


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.json") if path.stem != UNSAID))
def test_files_say_what_configs_say(name: str) -> None:
    """Two ways to a model: its file, and its config as it is read."""
    on_file, read = catalog.load_model(name).spec, catalog.load_path("models", CONFIGS / f"{name}.json").spec
    assert layers_of(on_file) == layers_of(read)
    plain = {"hidden_size", "intermediate_size", "vocab_size", "max_position_embeddings", "hc_mult"}
    plain |= {"num_nextn_predict_layers", "tie_word_embeddings"}
    for key in plain - BESIDE.get(on_file.name, set()):
        assert getattr(on_file, key) == getattr(read, key), key
    assert on_file.experts == read.experts
    if on_file.shipped is not None:
        assert read.shipped is not None
        keys = {"experts", "others", "activations", "cache"}
        assert on_file.shipped.model_dump(include=keys) == read.shipped.model_dump(include=keys)
    if on_file.num_nextn_predict_layers:
        drafts = [(m.attention_of(m.draft_group), m.draft_group.feed_forward) for m in (on_file, read)]
        assert drafts[0] == drafts[1]


# Counted again, from the sizes alone


def of_indexer(spec: IndexerSpec | None, query: int, hidden: int, key: int | None = None) -> int:
    """Return the weights of an indexer: its queries, its keys, a weight a head and, of pooled keys, what pools them."""
    if spec is None or spec.shared:
        return 0
    keys = spec.head_dim if key is None else key
    pooling = hidden * spec.head_dim + spec.pool * spec.head_dim if spec.pool > 1 else 0
    return query * spec.n_heads * spec.head_dim + hidden * (keys + spec.n_heads) + pooling


def of_latent(a: MlaSpec, hidden: int) -> int:
    n, turned = a.num_attention_heads, a.qk_nope_head_dim + a.qk_rope_head_dim
    if a.q_lora_rank is None:
        queries = hidden * n * turned
    else:
        queries = hidden * a.q_lora_rank + a.q_lora_rank * n * turned
    cached = hidden * (a.kv_lora_rank + a.qk_rope_head_dim)
    cached += a.kv_lora_rank * n * (a.qk_nope_head_dim + a.v_head_dim)
    gate = {"none": 0, "head": hidden * n, "channel": hidden * n * a.v_head_dim}[a.output_gate]
    index = of_indexer(a.indexer, a.q_lora_rank or hidden, hidden)
    return queries + cached + n * a.v_head_dim * hidden + gate + index


def of_grouped(a: GqaSpec, hidden: int) -> int:
    n, g, size = a.num_attention_heads, a.num_key_value_heads, a.head_dim
    values = size if a.v_head_dim is None else a.v_head_dim
    rank = a.q_lora_rank
    queries = hidden * n * size if rank is None else hidden * rank + rank * n * size
    gate = {"none": 0, "head": hidden * n, "channel": hidden * n * values}[a.output_gate]
    return queries + hidden * g * (size + values) + n * values * hidden + gate + of_indexer(a.indexer, hidden, hidden)


def of_linear(a: LinearSpec, hidden: int) -> int:
    keys, values = a.num_key_heads * a.key_head_dim, a.num_value_heads * a.value_head_dim
    convolution = a.conv_kernel_dim * (2 * keys + values)
    both = hidden * (2 * keys + values) + values * hidden + convolution
    gate = hidden * values if a.gate_rank is None else a.gate_rank * (hidden + values)
    written = hidden * a.num_value_heads
    kept = hidden * a.num_value_heads if a.decay == "head" else a.key_head_dim * (hidden + keys)
    return both + gate + written + kept


def of_compressed(a: CompressedSpec, hidden: int) -> int:
    n, size = a.num_attention_heads, a.head_dim
    queries = hidden * a.q_lora_rank + a.q_lora_rank * n * size + hidden * size
    output = n * size * a.o_lora_rank + a.o_groups * a.o_lora_rank * hidden
    if not a.compress_ratio:
        return queries + output
    compressor = 2 * hidden * a.overlap * size + a.compress_ratio * a.overlap * size
    index = 0 if a.indexer is None else of_indexer(a.indexer, a.q_lora_rank, hidden, 2 * a.overlap * a.indexer.head_dim)
    return queries + output + compressor + index


def of_attention(a: AttentionSpec, hidden: int) -> int:
    match a:
        case MlaSpec():
            return of_latent(a, hidden)
        case GqaSpec():
            return of_grouped(a, hidden)
        case LinearSpec():
            return of_linear(a, hidden)
        case CompressedSpec():
            return of_compressed(a, hidden)


def of_experts(e: ExpertsSpec, hidden: int) -> tuple[int, int, float]:
    """Return the weights of a mixture: beside its routed experts, of all of these, and of those of one token."""
    narrow = e.routed_expert_hidden_size or hidden
    each = 3 * narrow * e.moe_intermediate_size
    beside = 3 * hidden * e.n_shared_experts * (e.shared_intermediate_size or e.moe_intermediate_size)
    beside += hidden * (e.n_routed_experts + e.zero_expert_num + e.shared_gate)
    beside += 2 * hidden * narrow if e.routed_expert_hidden_size else 0
    real = e.num_experts_per_tok * e.n_routed_experts / (e.n_routed_experts + e.zero_expert_num)
    return beside, e.n_routed_experts * each, (e.real_experts_per_tok or real) * each


def counted_again(model: ModelSpec) -> tuple[float, float]:
    """Return all weights, and those used for a token with its row of the embedding counted as the whole of it."""

    def of_layer(group: LayerGroupSpec) -> tuple[float, float]:
        both = of_attention(model.attention_of(group), model.hidden_size)
        both += 2 * (model.hc_mult**2 + 2 * model.hc_mult) * model.hc_mult * model.hidden_size * (model.hc_mult > 1)
        if group.feed_forward != "moe":
            assert model.intermediate_size is not None
            both += 3 * model.hidden_size * model.intermediate_size
        if group.feed_forward == "dense":
            return both, both
        assert model.experts is not None
        beside, routed, chosen = of_experts(model.experts, model.hidden_size)
        return both + beside + routed, both + beside + chosen

    outside = (1 if model.tie_word_embeddings else 2) * model.vocab_size * model.hidden_size
    layers = [(group.count, *of_layer(group)) for group in model.groups]
    total = outside + sum(count * kept for count, kept, _ in layers)
    return total, outside + sum(count * used for count, _, used in layers)


def test_weights_are_those_of_a_second_count(model: ModelSpec) -> None:
    """The rows of the ledger leave out convolutions, what mixes streams, positions of entries: below 0.1 %."""
    total, active = counted_again(model)
    counted, known = parameters_of(model), KNOWN[model.name]
    assert counted.total == pytest.approx(total, rel=1e-3)
    assert counted.active == pytest.approx(active, rel=4e-3)  # these have a larger share of what one token uses
    assert total / 1e9 == pytest.approx(known.total, rel=4e-4, abs=0.006)  # biases of gpt-oss and GLM-4.5
    without = active - (0 if model.tie_word_embeddings else model.vocab_size * model.hidden_size)
    if model.tie_word_embeddings:  # the table works as the head, and is read as the embedding beside
        assert active / 1e9 == pytest.approx(known.active, rel=1e-3, abs=0.006)
        return
    assert active / 1e9 == pytest.approx(known.active_with_embedding, rel=1e-3, abs=0.006)
    assert without / 1e9 == pytest.approx(known.active, rel=1e-3, abs=0.006)


# Caches


def test_caches_are_those_worked_out_elsewhere(model: ModelSpec) -> None:
    """Bytes a token; windows, whole pieces and states of a sequence; those of compressors come on top."""
    known = KNOWN[model.name]
    family = Family(phase="decode", own_shared_ranks=False, overlap="none", exchange="gather")
    cache = cache_of_model(model, family, tp=1, draft=0)
    assert float(cache.per_token) == known.cache
    if model.checks is not None and model.checks.kv_bytes_per_token_bf16 is not None:
        assert model.checks.kv_bytes_per_token_bf16 == known.cache
    compressors = compressor_states(model)
    assert float(cache.fixed(10**6)) - compressors == known.fixed


def compressor_states(model: ModelSpec) -> int:
    """Return the bytes of tokens that wait to make an entry: 80 KiB a layer of 4 to an entry, 512 KiB one of 128."""
    states = 0
    for group in model.groups:
        a = model.attention_of(group)
        if isinstance(a, CompressedSpec) and a.compress_ratio:
            states += group.count * {4: 80, 128: 512}[a.compress_ratio] * 1024
    return states


def test_the_cache_of_a_million_tokens_is_as_published() -> None:
    """DeepSeek-V4-Pro: 9.62 GiB a sequence of 1048576 tokens in BF16, windows and states apart."""
    model = catalog.load_model("deepseek-v4-pro").spec
    family = Family(phase="decode", own_shared_ranks=False, overlap="none", exchange="gather")
    assert 2**20 * float(cache_of_model(model, family, tp=1, draft=0).per_token) / 2**30 == pytest.approx(
        9.62, abs=5e-3
    )


# Work of attention


def flop_of_cores(model: ModelSpec, context: int, *names: str) -> float:
    """Return the FLOP of rows of attention for one decoded token behind a context."""
    ledger, _ = one_die("decode", model, isl=context, osl=0)
    flop = 0.0
    for block in ledger.blocks:
        for part in block.attention if block.is_layer else ():
            flop += float(block.count) * sum(float(op.flop) for op in ledger.parts[part] if op.name in names)
    return flop


def test_work_of_attention_grows_as_worked_out_elsewhere(model: ModelSpec) -> None:
    """Far beyond every window and choice each token of the context adds the same; what is capped stays as it is.

    A piece is half seen on average: its cap is that of a whole one.
    """
    known = KNOWN[model.name]
    cores = ("attention.core", "attention.index_scan")
    near, far = (flop_of_cores(model, context, *cores) for context in (2**20, 2**21))
    assert (far - near) / 2**20 == pytest.approx(known.per_token, rel=1e-9)
    pieces = any(isinstance(a, GqaSpec) and a.attention_chunk_size for a in model.kinds_of_attention)
    capped = known.capped / 2 if pieces else known.capped
    assert near - 2**20 * known.per_token == pytest.approx(capped, rel=1e-6, abs=1e-6 * near)


def test_every_weight_that_a_token_uses_is_worked_once(model: ModelSpec) -> None:
    """Products of a decoded token are 2 FLOP a weight: all but the embedding, which is read."""
    ledger, _ = one_die("decode", model)
    flop = 0.0
    for block in ledger.blocks:
        for part in (*block.attention, *block.experts, *block.beside):
            products = sum(float(op.flop) for op in ledger.parts[part] if "matmul" in op.operator)
            flop += float(block.count) * products
    embedding = 0 if model.tie_word_embeddings else model.vocab_size * model.hidden_size
    assert flop / 2 == pytest.approx(parameters_of(model).active - embedding, rel=1e-9)


def test_work_of_states_is_that_worked_out_elsewhere(model: ModelSpec) -> None:
    assert flop_of_cores(model, 4096, "attention.state") == KNOWN[model.name].recurrent


# Steps

ON = "cloudmatrix384"


@pytest.mark.parametrize("phase", ["decode", "prefill"])
@pytest.mark.parametrize("tp", [1, 4])
@pytest.mark.parametrize("overlap", ["none", "link"])
def test_rows_of_every_step_add_up(model: ModelSpec, phase: str, tp: int, overlap: str) -> None:
    """With as many drafts as there are draft layers, with one more, and without."""
    routes = model.experts is not None
    if not routes and overlap != "none":
        pytest.skip("nothing is exchanged that could overlap")
    family = Family(
        phase=phase,
        own_shared_ranks=False,
        overlap=overlap,
        exchange="dispatch" if routes else "gather",
        reduction="scatter_gather" if routes else "all_reduce",
    )
    kept = model.num_nextn_predict_layers
    for draft in {0, kept, kept + 1} if kept else {0}:
        case = Case(model=model, rates=rates_of(ON), isl=16384, osl=1024, acceptance=(0.5,) * draft)
        layout = Layout(dies=64, tp=tp, shared_ranks=0, redundant=0, batch=8, draft=draft, attention_cores=0)
        point = pool_point(layout, family, case)
        ledger = build_ledger(layout, family, case.traffic, model, case.dims)
        parts = breakdown(ledger, family, 0, rates_of(ON), rates_of(ON, "ideal"))
        assert parts.step_time == pytest.approx(float(point.step_time), rel=1e-12)
        assert sum(parts.by_operator().values()) == pytest.approx(parts.step_time, rel=1e-9)
        assert float(point.footprint.weights) > 0 and float(point.footprint.kv) > 0


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Document]:
    """Run a command and return the document that it would write."""

    def run(*words: str) -> Document:
        documents: list[Document] = []
        monkeypatch.setattr(Terminal, "result", lambda self, document: documents.append(document))
        program().main([*words], prog_name="moeplan", standalone_mode=False)
        return documents[-1]

    return run


@pytest.mark.parametrize("words", [("--phase", "decode"), ("--phase", "prefill", "--tp", "4")], ids=str)
def test_every_model_is_explained(model: ModelSpec, shown: Callable[..., Document], words: tuple[str, ...]) -> None:
    asked = ("--on", ON, "--dies", "16", "--batch", "4", "--isl", "4096", "--osl", "512")
    document = shown("explain", model.name, *asked, *words)
    operators = next(table for table in document.tables if table.title.startswith("Operators"))
    shares = [row["share"] for row in operators.rows if row["share"] is not None]
    assert sum(float(share) for share in shares) == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize(
    "name",
    [
        "deepseek-v4-flash",
        "glm-5.2",
        "kimi-k3",
        "longcat-2.0",
        "minimax-m3",
        "llama-4-scout",
        "mimo-v2-flash",
        "qwen3.5-27b",
        "step-3",
    ],
)
def test_closed_forms_of_other_kinds_have_the_values_of_the_step(shown: Callable[..., Document], name: str) -> None:
    """Of several kinds of attention the widest is a choice that a form says, and a dense model routes nothing."""
    asked = ("explain", name, "--on", ON, "--dies", "16", "--batch", "4", "--isl", "8192", "--osl", "512")
    facts: dict[str, Any] = shown(*asked).facts
    forms: dict[str, Any] = shown(*asked, "--formula", "tpot", "--formula", "memory").facts
    tpot, memory = (number["value"] for number in forms["numbers"])
    assert tpot == pytest.approx(facts["tpot_s"], rel=1e-9)
    assert memory == pytest.approx(facts["memory_planned_B"], rel=1e-9)


def test_every_model_is_shown(model: ModelSpec, shown: Callable[..., Document]) -> None:
    table = shown("show", model.name).tables[0]
    held = {row["key"]: row["value"] for row in table.rows}
    assert held["name"] == model.name


def test_models_are_listed_and_found_by_every_name(shown: Callable[..., Document]) -> None:
    (table,) = shown("list", "models").tables
    assert [row["name"] for row in table.rows] == list(NAMES)
    names = [name for known in NAMES for name in (known, *catalog.load_model(known).spec.aliases)]
    assert len(names) == len(set(names)), "a name of two models"
    assert all(name == name.lower() for name in names)


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("qwen3-next", "qwen3-next-80b-a3b"),
        ("glm-4.7", "glm-4.6"),
        ("glm-5.1", "glm-5"),
        ("kimi-k2.6", "kimi-k2.5"),
        ("minimax-m2.5", "minimax-m2"),
        ("deepseek-r1-0528", "deepseek-v3"),
    ],
)
def test_a_model_is_found_by_its_other_names(word: str, name: str) -> None:
    assert catalog.load_model(word).spec.name == name


# What a file may not say

DRAFTS = {"num_nextn_predict_layers": 1}


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"draft_layer": {"attention": "main"}}, "num_nextn_predict_layers is 0"),
        (DRAFTS | {"draft_layer": {"attention": "other"}}, "draft_layer names attention 'other'"),
        (DRAFTS | {"draft_layer": {"feed_forward": "moe"}}, "needs experts"),
        ({"attentions": {"other": "same"}}, "attentions beside the main one"),
    ],
    ids=str,
)
def test_faults_of_draft_layers_are_told(changes: dict[str, Any], fault: str) -> None:
    given = catalog.load_model("qwen3-8b").spec.model_dump(exclude={"draft_layer"}) | changes
    if given["attentions"]:
        given["attentions"] = {"other": given["attention"]}
    with pytest.raises(ValueError, match=fault):
        ModelSpec.model_validate(given)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"zero_expert_num": 0}, "needs a zero_expert_num"),
        ({"real_experts_per_tok": 13}, "exceeds num_experts_per_tok"),
    ],
    ids=str,
)
def test_faults_of_choices_without_work_are_told(changes: dict[str, Any], fault: str) -> None:
    experts = catalog.load_model("longcat-flash").spec.experts
    assert experts is not None
    with pytest.raises(ValueError, match=fault):
        ExpertsSpec.model_validate(experts.model_dump() | changes)
