"""Configs of models as hubs hold them: read into layers that were counted elsewhere, or refused in a line a fault."""

import json
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from perfmodel.errors import DataError, MoeplanError, UsageError
from perfmodel.files import catalog
from perfmodel.files.folders import root
from perfmodel.files.what import What, named
from perfmodel.specs.attention import AttentionSpec, CompressedSpec, GqaSpec, LinearSpec, MlaSpec
from perfmodel.specs.base import Known
from perfmodel.specs.model import ModelSpec
from tests import hostile

HERE = Path(__file__).parent
CONFIGS = HERE / "data" / "model_configs"
GOLDEN: dict[str, Any] = yaml.safe_load((HERE / "golden" / "model_configs.yaml").read_text())
#: kinds that no other name is needed for: sinks and positions cost next to nothing
SAME = {"gqa_sink_swa": "gqa_swa", "mla_nope": "mla"}


def config_of(name: str) -> dict[str, Any]:
    return json.loads((CONFIGS / f"{name}.json").read_text())


def read(path: Path) -> Known[ModelSpec]:
    return catalog.load_path.__wrapped__("models", path)  # past its memory


@pytest.fixture
def given(tmp_path: Path) -> Callable[..., Known[ModelSpec]]:
    """Return what reads a config from its keys, or from a text."""

    def reads(held: dict[str, Any] | str | bytes, name: str = "config.json") -> Known[ModelSpec]:
        path = tmp_path / name
        text = held if isinstance(held, (str, bytes)) else json.dumps(held, indent=1)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read(path)

    return reads


def kind_of(spec: AttentionSpec) -> str:
    """Return what the collection calls an attention."""
    if isinstance(spec, LinearSpec):
        return "kda" if spec.decay == "channel" else "gdn"
    if isinstance(spec, CompressedSpec):
        return "v4_swa" if not spec.compress_ratio else "v4_csa" if spec.indexer else "v4_hca"
    name = "mla" if isinstance(spec, MlaSpec) else "mfa" if spec.q_lora_rank else "gqa"
    if spec.output_gate == "channel":
        name += "_gated"
    if isinstance(spec, GqaSpec) and spec.attention_chunk_size:
        name += "_chunked"
    if spec.sliding_window:
        name += "_swa"
    if spec.indexer:
        name += "_dsa" if isinstance(spec, MlaSpec) else "_msa"
        name += "_kpool" if spec.indexer.pool > 1 else "_shared" if spec.indexer.shared else ""
    return name


def weights_of(a: AttentionSpec, h: int) -> float:
    """Return the weights of an attention, by the equations of those who collected the models."""
    if isinstance(a, LinearSpec):
        kd, vd, n, d = a.key_width, a.value_width, a.num_value_heads, a.value_head_dim
        if a.decay == "head":
            return h * (2 * kd + 2 * vd) + 2 * h * n + a.conv_kernel_dim * (2 * kd + vd) + 2 * n + vd * h
        gate = h * a.gate_rank + a.gate_rank * vd if a.gate_rank else h * vd
        return 3 * h * vd + 3 * a.conv_kernel_dim * vd + h * d + d * vd + h * n + gate + vd * h
    n, i = a.num_attention_heads, a.indexer
    if isinstance(a, CompressedSpec):
        d, ql = a.head_dim, a.q_lora_rank
        total = h * ql + ql * n * d + h * d + n * d * a.o_lora_rank + a.o_groups * a.o_lora_rank * h
        total += 2 * h * d * a.overlap * (a.compress_ratio > 0)
        return total + (ql * i.n_heads * i.head_dim + h * i.n_heads + 2 * h * 2 * i.head_dim if i else 0)
    if isinstance(a, MlaSpec):
        q = a.qk_nope_head_dim + a.qk_rope_head_dim
        queries = h * n * q if a.q_lora_rank is None else h * a.q_lora_rank + a.q_lora_rank * n * q
        down = h * (a.kv_lora_rank + a.qk_rope_head_dim)
        up = a.kv_lora_rank * n * (a.qk_nope_head_dim + a.v_head_dim)
        width = n * a.v_head_dim
        total = queries + down + up + width * h
        if i and not i.shared:
            total += (a.q_lora_rank or h) * i.n_heads * i.head_dim + h * i.head_dim + h * i.n_heads
            total += h * i.head_dim * (i.pool > 1)
    else:
        width = n * a.value_dim
        queries = h * n * a.head_dim if a.q_lora_rank is None else (h + n * a.head_dim) * a.q_lora_rank
        total = queries + h * a.num_key_value_heads * (a.head_dim + a.value_dim) + width * h
        total += h * (i.n_heads + 1) * i.head_dim if i else 0
    return total + {"none": 0, "channel": h * width, "head": h * n}[a.output_gate]


def total_of(model: ModelSpec) -> float:
    """Return all weights of a model but norms, biases and draft layers."""
    h, total = model.hidden_size, float(model.vocab_size * model.hidden_size * (2 - model.tie_word_embeddings))
    for group in model.groups:
        layer = weights_of(model.attention_of(group), h)
        if group.has_dense:
            layer += 3 * h * (model.intermediate_size or 0)
        if group.has_experts:
            assert (e := model.experts) is not None
            shared = e.n_shared_experts * (e.shared_intermediate_size or e.moe_intermediate_size)
            inner = e.routed_expert_hidden_size or h
            layer += e.n_routed_experts * 3 * inner * e.moe_intermediate_size + 3 * h * shared
            layer += h * (e.n_routed_experts + e.zero_expert_num) + h * e.shared_gate
            layer += 2 * h * inner if e.routed_expert_hidden_size else 0
        if model.hc_mult > 1:
            layer += 2 * (2 * model.hc_mult + model.hc_mult**2) * model.hc_mult * h
        total += group.count * layer
    return total


def counts_of(model: ModelSpec) -> tuple[Counter[str], Counter[str]]:
    attention, feed_forward = Counter[str](), Counter[str]()
    for group in model.groups:
        attention[kind_of(model.attention_of(group))] += group.count
        feed_forward["dense"] += group.count * group.has_dense
        feed_forward["moe"] += group.count * group.has_experts
    return attention, +feed_forward


# --- models as they were collected --------------------------------------------------------------


@pytest.mark.parametrize("name", GOLDEN)
def test_layers_are_those_that_were_counted(name: str) -> None:
    model = read(CONFIGS / f"{name}.json").spec
    attention, feed_forward = counts_of(model)
    assert attention == {SAME.get(kind, kind): count for kind, count in GOLDEN[name]["attention"].items()}
    assert feed_forward == GOLDEN[name]["ffn"]


@pytest.mark.parametrize("name", GOLDEN)
def test_weights_are_those_that_were_counted(name: str) -> None:
    model = read(CONFIGS / f"{name}.json").spec
    for kind, millions in GOLDEN[name]["weights_M"].items():
        found = next(
            model.attention_of(group)
            for group in model.groups
            if kind_of(model.attention_of(group)) == SAME.get(kind, kind)
        )
        assert weights_of(found, model.hidden_size) / 1e6 == pytest.approx(millions, rel=2e-3), kind
    assert total_of(model) / 1e9 == pytest.approx(GOLDEN[name]["total_B"], rel=1e-3)


@pytest.mark.parametrize("name", GOLDEN)
def test_what_was_read_is_told_in_few_lines(name: str) -> None:
    known = read(CONFIGS / f"{name}.json")
    assert 4 <= len(known.notes) <= 6
    assert not [line for line in known.notes if line.startswith("not used")]
    assert max(map(len, known.notes)) < 300


def test_every_complete_config_is_held() -> None:
    assert {path.stem for path in CONFIGS.glob("*.json")} == {*GOLDEN, "deepseek-v4.1-flash"}


@pytest.mark.parametrize(
    ("name", "drafts"),
    [
        ("deepseek-v4-pro", 1),
        ("minimax-m2.5", 3),
        ("mimo-v2-flash", 3),
        ("longcat-2.0", 3),
        ("qwen3.5-27b", 1),
        ("qwen3-next-80b-a3b", 1),
        ("hy3", 1),
    ],
)
def test_draft_layers(name: str, drafts: int) -> None:
    assert read(CONFIGS / f"{name}.json").spec.num_nextn_predict_layers == drafts


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("deepseek-v4-pro", "1 draft layer: attention window alone, window 128 (compress_ratios); experts"),
        ("step-3.5-flash", "window 512 (layer_types); dense feed-forward (moe_layers_enum)"),
        ("glm-5.2", "chosen by an indexer (index_share_for_mtp_iteration)"),
        ("glm-5.3-flash", "chosen by an indexer (index_share_for_mtp_iteration)"),
        ("qwen3.5-27b", "24 query and 4 KV heads (the type's, the file does not say)"),
        ("mimo-v2-flash", "window 128 (the type's, the file does not say); dense feed-forward (the type's"),
        ("minimax-m2.5", "(as most layers, the file does not say)"),
    ],
)
def test_what_a_draft_layer_is_and_by_which_key(name: str, says: str) -> None:
    """By the collection V4's lists end with a ratio of 0, Step's with three windows, and MiMo's blocks are dense."""
    told = [line for line in read(CONFIGS / f"{name}.json").notes if "draft layer" in line]
    assert len(told) == 1 and says in told[0]


def test_lists_that_go_on_past_the_last_layer_say_what_drafts_are(given) -> None:
    v4 = config_of("deepseek-v4-pro")
    v4["compress_ratios"][-1] = 4
    assert given(v4).spec.draft_layer.attention == "ratio_4"
    assert set(given(v4).spec.attentions) == {"ratio_4"}  # a window alone is nobody's then
    step = config_of("step-3.5-flash")
    step["layer_types"][45] = "full_attention"
    step["moe_layers_enum"] += ",45"
    model = given(step).spec
    assert (model.draft_layer.attention, model.draft_group.feed_forward) == ("full", "moe")
    mimo = config_of("mimo-v2-flash")
    mimo["hybrid_layer_pattern"] += [0]
    mimo["moe_layer_freq"] += [1]
    model = given(mimo).spec
    assert (model.draft_layer.attention, model.draft_group.feed_forward) == ("full", "moe")


def test_without_drafts_nothing_is_kept_for_them(given) -> None:
    model = given({**config_of("deepseek-v4-pro"), "num_nextn_predict_layers": 0}).spec
    assert set(model.attentions) == {"ratio_4"} and model.draft_group.attention == "main"


def test_choices_with_work_are_the_types_or_the_files_or_their_share(given) -> None:
    config = config_of("longcat-2.0")
    assert given(config).spec.experts.real_experts_per_tok == 8
    assert given({**config, "moe_topk": 10}).spec.experts.real_experts_per_tok is None  # what is known is of 12
    assert given({**config, "real_experts_per_tok": 9.5}).spec.experts.real_experts_per_tok == 9.5
    for wrong in (0, 13, "8", True):
        with pytest.raises(DataError, match="real_experts_per_tok: found .*; allowed: above 0, up to 12"):
            given({**config, "real_experts_per_tok": wrong})


def test_the_main_attention_is_the_most_frequent() -> None:
    model = read(CONFIGS / "glm-5.2.json").spec
    assert model.attention.indexer.shared and list(model.attentions) == ["sparse"]
    v4 = read(CONFIGS / "deepseek-v4-flash.json").spec
    assert (v4.attention.compress_ratio, sorted(v4.attentions)) == (4, ["ratio_128", "window"])
    longcat = read(CONFIGS / "longcat-flash.json").spec
    assert [(g.count, g.feed_forward) for g in longcat.layers] == [(28, "moe_beside_dense"), (28, "dense")]


def test_models_on_file_are_what_their_configs_say() -> None:
    ours, read_ = catalog.load_model("qwen3-235b-a22b").spec, read(CONFIGS / "qwen3-235b-a22b.json").spec
    assert (ours.groups, ours.attention, ours.experts) == (read_.groups, read_.attention, read_.experts)


# --- spellings ----------------------------------------------------------------------------------


def same_layers(a: ModelSpec, b: ModelSpec) -> bool:
    keys = ("groups", "attention", "attentions", "experts", "intermediate_size", "hc_mult", "num_nextn_predict_layers")
    return all(getattr(a, key) == getattr(b, key) for key in keys)


def test_sharing_of_an_indexer_by_its_frequency(given) -> None:
    config = config_of("glm-5.2")
    del config["indexer_types"]
    assert same_layers(given(config).spec, read(CONFIGS / "glm-5.2.json").spec)


def test_newer_words_of_compressed_attention(given) -> None:
    config = config_of("deepseek-v4-flash")
    words = {0: "sliding_attention", 4: "compressed_sparse_attention", 128: "heavily_compressed_attention"}
    config["layer_types"] = [words[ratio] for ratio in config.pop("compress_ratios")]
    config["compress_rates"] = {"compressed_sparse_attention": 4, "heavily_compressed_attention": 128}
    config["mlp_layer_types"] = ["hash_moe"] * 3 + ["moe"] * 40
    assert same_layers(given(config).spec, read(CONFIGS / "deepseek-v4-flash.json").spec)


@pytest.mark.parametrize(("name", "key"), [("qwen3-next-80b-a3b", "layer_types"), ("gpt-oss-120b", "layer_types")])
def test_layers_that_a_type_has_where_no_list_is_given(given, name: str, key: str) -> None:
    config = config_of(name)
    config.pop(key)
    config.pop("full_attention_interval", None)
    known = given(config)
    assert same_layers(known.spec, read(CONFIGS / f"{name}.json").spec)
    assert "the file lists none" in " ".join(known.notes)


def test_experts_by_a_list_a_range_or_steps(given) -> None:
    config = config_of("step-3.5-flash")
    for words in (list(range(3, 45)), "3..44"):
        assert same_layers(given({**config, "moe_layers_enum": words}).spec, read(CONFIGS / "step-3.5-flash.json").spec)
    plain = config_of("qwen3-30b-a3b")
    model = given({**plain, "decoder_sparse_step": 2, "mlp_only_layers": [1, 3]}).spec
    assert counts_of(model)[1] == {"moe": 22, "dense": 26}


def test_layers_with_and_without_an_indexer_by_their_numbers(given) -> None:
    sparse = [*range(0, 46, 3), 46, 47, 48, 49]
    windows = [layer for layer in range(50) if layer not in sparse]
    config = config_of("openpangu-ultra-moe") | {
        "model_type": "pangu_v2_moe", "architectures": ["PanguV2MoEForCausalLM"], "num_hidden_layers": 50,
        "index_n_heads": 32, "index_head_dim": 128, "index_topk": 2048, "dsa_layers": sparse, "swa_layers": windows,
        "sliding_window_list": [512] * len(windows) + [2048] * 3, "use_mhc": True, "mhc_num_stream": 4,
        "param_sink_number": 128, "num_nextn_predict_layers": 3,
    }  # fmt: skip
    known = given(config)
    assert counts_of(known.spec)[0] == {"mla_dsa": 20, "mla_swa": 30}
    assert (known.spec.attention.sliding_window, known.spec.hc_mult) == (512, 4)
    assert known.spec.attention_of(known.spec.draft_group).sliding_window == 2048
    assert "not counted: learned sink keys" in known.notes


def test_sparse_grouped_attention_that_pools_its_keys(given) -> None:
    config = config_of("qwen3.5-35b-a3b")
    text = config["text_config"] | {
        "model_type": "qwen4_exp_text", "indexer_n_heads": 4, "indexer_head_dim": 128, "indexer_budget": 2048,
        "indexer_compress_ratio": 4, "ngram_size": 3, "hc_count": 4,
        "layer_types": ["qwen_sparse_attention" if layer % 4 == 3 else "linear_attention" for layer in range(40)],
    }  # fmt: skip
    known = given({**config, "text_config": text})
    assert known.spec.attentions["sparse"].indexer.model_dump(exclude={"shared"}) == {
        "n_heads": 4, "head_dim": 128, "topk": 2048, "pool": 4, "from_hidden": True,
    }  # fmt: skip
    assert "not counted: n-gram tables" in known.notes


def test_windows_of_the_last_layers(given) -> None:
    config = config_of("qwen3-8b") | {"sliding_window": 4096, "use_sliding_window": True, "max_window_layers": 28}
    assert counts_of(given(config).spec)[0] == {"gqa": 28, "gqa_swa": 8}
    assert counts_of(given({**config, "use_sliding_window": False}).spec)[0] == {"gqa": 36}


def test_a_block_of_the_root_holds_for_nested_dims(given) -> None:
    known = read(CONFIGS / "glm-5.3-flash.json")
    assert known.spec.shipped.read_from == "quantization_config.quant_method fp8"
    config = config_of("qwen3-8b")
    nest = {"model_type": "some_vl", "tie_word_embeddings": True, "thinker_config": {"text_config": config}}
    config.pop("tie_word_embeddings")
    assert given(nest).spec.tie_word_embeddings


# --- types that are not known -------------------------------------------------------------------


def test_a_type_that_is_not_known_is_read_by_standard_keys_and_said_to_be(given) -> None:
    config = config_of("qwen3-30b-a3b") | {"model_type": "newish", "architectures": ["NewishForCausalLM"]}
    known = given({**config, "colour": "red"})
    assert same_layers(known.spec, read(CONFIGS / "qwen3-30b-a3b.json").spec)
    assert "newish is not known" in known.notes[0] and "not used: colour" in known.notes


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"linear_foo_dim": 4}, "linear_foo_dim: found '4', which may say what a layer does"),
        ({"indexer_flavour": "x"}, "indexer_flavour: found 'x'"),
        ({"compress_ratios": [4] * 48}, "compress_ratios"),
        ({"sliding_window": 4096}, "sliding_window: found 4096, and nothing says which layers look back so far"),
        (
            {"layer_types": ["full_attention"] * 47 + ["mamba"]},
            "layer_types.47: found 'mamba'; allowed: full_attention",
        ),
        ({"swa_num_attention_heads": 3}, "swa_num_attention_heads: found '3'"),
    ],
)
def test_a_type_that_is_not_known_is_refused_by_the_key_that_is_not(given, change: dict[str, Any], says: str) -> None:
    config = config_of("qwen3-30b-a3b") | {"model_type": "newish", "architectures": ["NewishForCausalLM"], **change}
    with pytest.raises(DataError) as refused:
        given(config)
    assert says in str(refused.value) and "models/README.md" in str(refused.value)


def test_the_width_of_experts_is_not_guessed(given) -> None:
    config = config_of("minimax-m2.5") | {"model_type": "newish", "architectures": []}
    with pytest.raises(DataError, match=r"moe_intermediate_size: is missing, also spelled expert_ffn_hidden_size"):
        given(config)


def test_one_cache_for_all_layers_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"deepseek_v41\w* cannot be read yet: .*kv_source_layer_ids"):
        read(CONFIGS / "deepseek-v4.1-flash.json")


# --- faults -------------------------------------------------------------------------------------

PLAIN = {
    "model_type": "qwen3_moe", "hidden_size": 64, "num_hidden_layers": 4, "vocab_size": 9, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 99, "num_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 8,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "key", "says"),
    [
        ({"hidden_size": "64"}, "hidden_size", "found '64'; allowed: whole numbers from 1"),
        ({"hidden_size": -64}, "hidden_size", "found '-64'; allowed: whole numbers from 1"),
        ({"hidden_size": True}, "hidden_size", "found 'True'; allowed: whole numbers"),
        ({"hidden_size": [64]}, "hidden_size", "found '[64]'; allowed: whole numbers"),
        ({"num_attention_heads": 0}, "num_attention_heads", "found '0'; allowed: whole numbers from 1"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers", "allowed: whole numbers from 1 to 10000"),
        ({"vocab_size": 10**30}, "vocab_size", "allowed: whole numbers up to 2^53"),
        ({"vocab_size": float("nan")}, "vocab_size", "found 'NaN'; allowed: whole numbers"),
        ({"vocab_size": None}, "vocab_size", "is missing; required"),
        ({"num_key_value_heads": 3}, "num_key_value_heads", "allowed: a number that divides them"),
        ({"num_experts_per_tok": 5}, "num_experts_per_tok", "found 5, and num_experts is 4; allowed: up to that"),
        ({"mlp_only_layers": [9999]}, "mlp_only_layers.0", "allowed: a list of layers from 0 to 3"),
        ({"decoder_sparse_step": 0}, "decoder_sparse_step", "allowed: whole numbers from 1"),
        ({"layer_types": ["full_attention"] * 3}, "layer_types", "found 3 items; allowed: one for each of 4 layers"),
        ({"layer_types": "full_attention"}, "layer_types", "allowed: a list with an item for each layer"),
        ({"layer_types": [["full_attention"]] * 4}, "layer_types.0", "allowed: full_attention"),
        ({"quantization_config": "fp8"}, "quantization_config", "allowed: a mapping"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings", "allowed: true, false"),
        ({"num_experts_per_token": 3}, "num_experts_per_token", "but num_experts_per_tok is '2'; allowed: one value"),
        ({"first_k_dense_replace": 5, "intermediate_size": 9}, "first_k_dense_replace", "allowed: up to 4"),
        ({"kv_lora_rank": 8}, "q_lora_rank", "is missing; required by latent attention"),
        ({"layer_types": ["linear_attention"] * 4}, "linear_num_key_heads", "is missing; required by linear attention"),
        (
            {
                "mlp_layer_types": ["sparse"] * 4,
                "mlp_only_layers": [1],
                "intermediate_size": 9,
                "decoder_sparse_step": 1,
            },
            "decoder_sparse_step",
            "says that layer 1 has none, but mlp_layer_types says that it has experts",
        ),
    ],
)
def test_a_fault_is_one_line_with_its_key(given, tmp_path: Path, change: dict[str, Any], key: str, says: str) -> None:
    with pytest.raises(DataError) as refused:
        given({**PLAIN, **change})
    lines = str(refused.value).splitlines()
    wanted = re.compile(rf"{re.escape(str(tmp_path / 'config.json'))}:\d+: {re.escape(key)}: .*{re.escape(says)}")
    assert [line for line in lines if wanted.match(line)], lines


def test_a_fault_names_its_line(given) -> None:
    with pytest.raises(DataError, match=r"config\.json:4: num_hidden_layers: found '-1'"):
        given({**PLAIN, "num_hidden_layers": -1})


def test_all_faults_are_told_at_once(given) -> None:
    with pytest.raises(DataError) as refused:
        given({**PLAIN, "hidden_size": 0, "vocab_size": "x", "num_experts": 1.5})
    assert len(str(refused.value).splitlines()) == 3


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b"3", b"null", b'"x"', b"{", b"\x00\x00", b"\xff\xfe{}", b'{"model_type": "qwen3"}',
        b'{"model_type": "qwen3", "model_type": "llama"}', b'{"model_type": "qwen3", "hidden_size": NaN}',
        b'{"model_type": "qwen3", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"model_type": "qwen3", "x": "' + b"y" * 1_100_000 + b'"}',
        b'{"model_type": "a\\u0000b", "num_hidden_layers": 2}', b'{"architectures": [1, null, {}]}',
        b'{"text_config": {"num_hidden_layers": 3, "hidden_size": {}}}', b'{"model_type": "x", "moe": {"": {"a": 1}}}',
        b'{"model_type": "deepseek_v4", "num_hidden_layers": 2, "compress_ratios": [[], {}]}',
        b'{"model_type": "kimi_linear", "num_hidden_layers": 2, "linear_attn_config": {"full_attn_layers": [{}, []]}}',
        b'{"model_type": "step3p5", "num_hidden_layers": 2, "moe_layers_enum": "1..99999999999", "moe_num_experts": 2}',
    ],
)  # fmt: skip
def test_what_is_no_config_is_refused_in_few_lines(given, tmp_path: Path, text: bytes) -> None:
    with pytest.raises(MoeplanError) as refused:
        given(text)
    lines = str(refused.value).splitlines()
    assert 1 <= len(lines) <= 21
    assert all(line.startswith(str(tmp_path)) and len(line) <= 1600 for line in lines)


@pytest.mark.parametrize("seed", range(300))
def test_a_changed_config_is_read_or_refused_in_one_line_a_fault(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    path = tmp_path / "config.json"
    path.write_bytes(hostile.changed_config(draw))
    try:
        known = read(path)
    except MoeplanError as error:
        lines = str(error).splitlines()
        assert lines and all(line.startswith(f"{path}:") for line in lines)
        return
    assert known.spec.num_hidden_layers == sum(group.count for group in known.spec.groups)
    assert len(known.notes) <= 7


# --- precision ----------------------------------------------------------------------------------

GROUP = {"targets": ["Linear"], "input_activations": None}


@pytest.mark.parametrize(
    ("block", "experts", "others", "activations"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8", "fp8", "fp8"),
        ({"quant_method": "fp8", "expert_dtype": "fp4"}, "mxfp4", "fp8", "fp8"),
        ({"quant_method": "fp8", "ignored_layers": ["model.layers.0.self_attn.o_proj"]}, "fp8", "fp8", "fp8"),
        ({"quant_method": "mxfp4", "modules_to_not_convert": ["self_attn"]}, "mxfp4", "bf16", "bf16"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "int4", "int4", "bf16"),
        ({"quant_method": "awq", "bits": 4, "modules_to_not_convert": ["self_attn"]}, "int4", "bf16", "bf16"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["*self_attn*"]}, "nvfp4", "bf16", "nvfp4"),
        (
            {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": {
                "layers.3.mlp.experts": {"quant_algo": "NVFP4"}, "layers.3.self_attn": {"quant_algo": "FP8"}}},
            "nvfp4", "fp8", "nvfp4",
        ),
        (
            {"quant_method": "compressed-tensors", "format": "int-quantized", "config_groups": {"group_0": GROUP | {
                "weights": {"num_bits": 8, "type": "int"}, "input_activations": {"num_bits": 8, "type": "int"}}}},
            "int8", "int8", "int8",
        ),
        (
            {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized", "config_groups": {
                "group_0": GROUP | {"weights": {"num_bits": 4, "type": "float", "group_size": 16}}}},
            "nvfp4", "nvfp4", "bf16",
        ),
        ({"quant_method": "ascend", "quant_type": "W4A8_DYNAMIC"}, "int4", "int8", "int8"),
        ({"quant_method": "w8a8_dynamic"}, "int8", "int8", "int8"),
    ],
)  # fmt: skip
def test_what_a_checkpoint_is_stored_in(
    given, block: dict[str, Any], experts: str, others: str, activations: str
) -> None:
    known = given({**PLAIN, "quantization_config": block})
    assert (shipped := known.spec.shipped) is not None
    assert (shipped.experts, shipped.others, shipped.activations) == (experts, others, activations)
    assert "precision of a run is chosen as before" in " ".join(known.notes)


@pytest.mark.parametrize(
    ("name", "experts", "others"),
    [("kimi-k2.5", "int4", "bf16"), ("kimi-k3", "mxfp4", "bf16"), ("deepseek-v4-pro", "mxfp4", "fp8"),
     ("mistral-large-3", "fp8", "fp8"), ("gpt-oss-20b", "mxfp4", "bf16"), ("mimo-v2-flash", "fp8", "fp8")],
)  # fmt: skip
def test_what_models_are_stored_in(name: str, experts: str, others: str) -> None:
    shipped = read(CONFIGS / f"{name}.json").spec.shipped
    assert (shipped.experts, shipped.others) == (experts, others)


def test_descriptions_beside_a_config(given, tmp_path: Path) -> None:
    description = {
        "model_quant_type": "W4A8_DYNAMIC", "kv_cache_type": "C8", "model.embed_tokens.weight": "FLOAT",
        "layers.3.self_attn.q_a_proj.weight": "W8A8", "layers.3.mlp.experts.0.up_proj.weight": "W4A8_DYNAMIC",
    }  # fmt: skip
    beside = tmp_path / "quant_model_description.json"
    beside.write_text(json.dumps(description))
    assert given(PLAIN).spec.shipped.model_dump() == {
        "experts": "int4", "others": "int8", "activations": "int8", "cache": "int8",
        "read_from": "quant_model_description.json W4A8_DYNAMIC",
    }  # fmt: skip
    beside.write_text("\0{")
    (tmp_path / "hf_quant_config.json").write_text(
        '{"quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8"}}'
    )
    assert (given(PLAIN).spec.shipped.experts, given(PLAIN).spec.shipped.cache) == ("nvfp4", "fp8")


# --- where a model is named ---------------------------------------------------------------------


def test_what_a_file_is_told_by_its_keys(tmp_path: Path) -> None:
    for name in ("config.json", "config.yaml", "model.yml"):
        (tmp_path / name).write_text(json.dumps(PLAIN))
        assert named(str(tmp_path / name)) is What.config
    assert named(str(tmp_path)) is What.config
    assert named("deepseek-v3") is named("deepseek-ai/DeepSeek-V3.1") is None
    ours = tmp_path / "ours.yaml"
    ours.write_text((root() / "models" / "deepseek-v3.yaml").read_text())
    assert named(str(ours)) is What.model
    (tmp_path / "run.yaml").write_text("model: deepseek-v3\non: cloudmatrix384\n")
    assert named(str(tmp_path / "run.yaml")) is What.run
    (tmp_path / "plan.json").write_text('{"format": "moeplan.plan/1", "conditions": {}}')
    assert named(str(tmp_path / "plan.json")) is What.plan


def test_a_folder_or_a_hubs_name_names_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "owner" / "Model-1"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(PLAIN))
    for word in ("owner/Model-1", "./owner/Model-1/", str(folder), "owner/Model-1/config.json"):
        known = catalog.load_model(word)
        assert (known.spec.name, Path(known.word).name) == ("Model-1", "config.json")
    assert catalog.load_model("deepseek-ai/DeepSeek-V3.1").spec.name == "deepseek-v3"
    assert catalog.load_model("DEEPSEEK-AI/deepseek-r1").spec.name == "deepseek-v3"
    with pytest.raises(
        UsageError, match=r"'deepseek-ai/DeepSeek-V9' is not on file; did you mean 'deepseek-ai/deepseek-v3'"
    ):
        catalog.load_model("deepseek-ai/DeepSeek-V9")
    with pytest.raises(UsageError, match=r"a folder without config\.json or params\.json"):
        catalog.load_model("./owner")


LAYOUT = ("--on", "atlas-800i-a3", "--cards", "16", "--tp", "4", "--batch", "8", "--isl", "3500", "--osl", "1500")


@pytest.mark.parametrize(
    ("name", "file"), [("kimi-k2", "config.json"), ("kimi-k2", "c.yaml"), ("qwen3-30b-a3b", "c.json")]
)
def test_explain_takes_a_config_however_it_is_named(moeplan, tmp_path: Path, name: str, file: str) -> None:
    path = tmp_path / file
    path.write_text((CONFIGS / f"{name}.json").read_text())
    done = moeplan("explain", str(path), *LAYOUT)
    assert done.returncode == 0, done.stderr
    assert f"note: {file}: " in done.stderr and 4 <= done.stderr.count("note: ") <= 8


def test_solve_takes_a_config_and_its_plan_finds_it_again(moeplan, tmp_path: Path) -> None:
    path, plan = tmp_path / "config.json", tmp_path / "plan.json"
    path.write_text((CONFIGS / "kimi-k2.json").read_text())
    words = ("--on", "atlas-800i-a3", "--cards", "32", "--isl", "3500", "--osl", "1500", "--tpot", "50ms")
    done = moeplan("solve", str(path), *words, "-o", str(plan))
    assert done.returncode == 0, done.stderr
    again = moeplan("explain", str(plan))
    assert again.returncode == 0, again.stderr
    run = tmp_path / "run.yaml"
    run.write_text("{model: config.json, on: atlas-800i-a3, cards: 32, isl: 3500, osl: 1500, tpot: 50ms}\n")
    assert moeplan("solve", str(run)).stdout == done.stdout


def test_layers_of_a_window_keep_no_more(moeplan, tmp_path: Path) -> None:
    """Half of the layers keep 128 tokens: 18 x 2 x 8 x 64 x 2 B = 36,864 B a token."""
    path = tmp_path / "config.json"
    config = {key: value for key, value in config_of("gpt-oss-120b").items() if key != "quantization_config"}
    path.write_text(json.dumps(config))
    model = read(path).spec
    full = [group for group in model.groups if model.attention_of(group).sliding_window is None]
    a = model.attention_of(full[0])
    assert sum(g.count for g in full) * 2 * a.num_key_value_heads * a.head_dim * 2 == 36_864
    layout = ("--on", "atlas-800i-a3", "--cards", "8", "--tp", "8", "--batch", "16", "--isl", "65536", "--osl", "1024")
    done = moeplan("explain", str(path), *layout)
    assert done.returncode == 0, done.stderr
    assert "window 128 on 18" in done.stderr


@pytest.mark.parametrize("words", [("what-if",), ("report",), ("compare", "x.json")])
def test_a_config_in_place_of_a_plan_is_told_as_one(moeplan, tmp_path: Path, words: tuple[str, ...]) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(PLAIN))
    done = moeplan(words[0], str(path), *(str(path) for _ in words[1:]))
    assert done.returncode == 4
    assert "the config of a model; allowed: a plan file" in done.stderr


def test_show_tells_where_each_value_was_read(moeplan) -> None:
    done = moeplan("show", str(CONFIGS / "mimo-v2-flash.json"))
    assert done.returncode == 0, done.stderr
    assert "drafts: num_nextn_predict_layers 3 (the type's, the file has none)" in done.stderr
