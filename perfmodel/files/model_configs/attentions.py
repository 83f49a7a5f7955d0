"""What an attention of a config is."""

from typing import Any

from perfmodel.files.document import shown
from perfmodel.files.model_configs.config import HOW, Config, keys
from perfmodel.files.model_configs.layer_lists import Kind
from perfmodel.specs.attention import (
    AttentionSpec,
    CompressedSpec,
    GqaSpec,
    IndexerSpec,
    LinearSpec,
    MlaSpec,
    OutputGate,
)

#: bytes of a number of a state, by what mamba_ssm_dtype says
STATES = {"float32": 4, "bfloat16": 2, "float16": 2}


def attention_of(config: Config, kind: Kind, width: int) -> AttentionSpec:
    """Return the attention of a kind."""
    if kind.word == "linear":
        return _linear(config)
    if kind.word == "compressed":
        return _compressed(config, kind)
    if config.has("output_rank"):
        key = config.key_of("output_rank")
        config.fault(key, f"beside layers of {kind.word} attention; allowed: in compressed attention alone; {HOW}")
    if config.has("kv_rank"):
        return _latent(config, kind)
    return _grouped(config, kind, width)


def _indexer(config: Config, kind: Kind, *, from_hidden: bool) -> IndexerSpec | None:
    if kind.word != "sparse":
        return None
    if config.has("index_blocks"):
        topk = config.needed("index_blocks") * config.needed("index_block", " by blocks that are chosen")
    else:
        topk = config.needed("index_topk", " by sparse attention")
    why = " by an indexer"
    return IndexerSpec(
        n_heads=config.needed("index_heads", why),
        head_dim=config.needed("index_size", why),
        topk=topk,
        pool=config.count("index_pool") or 1,
        shared=kind.shared,
        from_hidden=from_hidden,
    )


def _gate(config: Config) -> OutputGate:
    """Return what the output of an attention is multiplied with."""
    channel, head = config.flag("channel_gate"), config.flag("head_gate")
    if head:
        return "head"
    if channel is None and (gate := config.means.get("gate")):
        config.taken["channel_gate"] = f"an output gate a {gate} (the type's, the file does not say)"
        return "channel"
    return "channel" if channel else "none"


def _window(config: Config, kind: Kind) -> int | None:
    if kind.word != "window":
        return None
    return kind.size or config.needed("window", " by layers that have a window")


def _rank(config: Config, concept: str) -> int | None:
    """Return a rank that may be null, and has to be stated."""
    key = config.spellings(concept)[0]
    config.asked.add(key)
    if key not in config.held:
        config.fault(key, "is missing; required by latent attention; add it, null where queries have no rank")
        return None
    return config.count(concept)


def _latent(config: Config, kind: Kind) -> MlaSpec:
    if kind.word == "chunked":
        config.fault("attention_chunk_size", f"chunks beside latent attention; allowed: with grouped queries; {HOW}")
    why = " by latent attention"
    for concept in ("kv_heads", "head_size"):  # stated beside it, and one cache is all heads'
        config.find(concept)
    rank = _rank(config, "query_rank")
    rope = config.count("rope_size", least=0)
    if not config.has("rope_size"):
        config.missing("rope_size", why)
    return MlaSpec(
        kind="mla",
        num_attention_heads=config.needed("heads"),
        q_lora_rank=rank,
        kv_lora_rank=config.needed("kv_rank"),
        qk_nope_head_dim=config.needed("nope_size", why),
        qk_rope_head_dim=rope or 0,
        v_head_dim=config.needed("value_size", why),
        output_gate=_gate(config),
        sliding_window=_window(config, kind),
        indexer=_indexer(config, kind, from_hidden=rank is None),
    )


def _grouped(config: Config, kind: Kind, width: int) -> GqaSpec:
    heads = config.needed("heads")
    groups = config.count("kv_heads")
    if not config.has("kv_heads"):
        groups = heads
        config.taken["kv_heads"] = f"num_key_value_heads {heads} (that of queries, the file has none)"
    size = config.count("head_size")
    if not config.has("head_size"):
        if config.sound and width % heads:
            config.missing("head_size", f", as {heads} heads do not divide the width {width}")
        size = max(width // heads, 1)
        config.taken["head_size"] = f"head_dim {size} (width by heads, the file has none)"
    value, rank = config.count("value_size"), config.count("shared_query_rank")
    heads, groups, size, value = _of_kind(config, kind, heads, groups or 1, size or 1, value)
    if config.sound and heads % groups:
        config.fault(
            config.key_of("kv_heads"),
            f"found {groups}, and there are {heads} query heads; allowed: a number that divides them; correct either",
        )
        groups = heads
    chunk = config.needed("chunk", " by layers with chunks") if kind.word == "chunked" else None
    return GqaSpec(
        kind="gqa",
        num_attention_heads=heads,
        num_key_value_heads=groups,
        head_dim=size,
        v_head_dim=None if value == size else value,
        q_lora_rank=rank,
        output_gate=_gate(config),
        sliding_window=_window(config, kind),
        attention_chunk_size=chunk,
        indexer=_indexer(config, kind, from_hidden=rank is None),
    )


def _of_kind(
    config: Config, kind: Kind, heads: int, groups: int, size: int, value: int | None
) -> tuple[int, int, int, int | None]:
    """Return heads and their sizes, of another kind of attention its own where the file states them."""
    if kind.word == "window":
        heads = config.count("window_heads") or heads
        groups = config.count("window_kv_heads") or groups
        size = config.count("window_head_size") or size
        value = config.count("window_value_size") or value
    found = config.find("other_kind")
    if found is None:
        return heads, groups, size, value
    word = keys("layer_words").get(found[1]) if isinstance(found[1], str) else None
    if word is None:
        config.fault(found[0], f"found {shown(str(found[1]))}; allowed: {', '.join(keys('layer_words'))}; or {HOW}")
    others = [config.count(concept) for concept in ("other_heads", "other_kv_heads", "other_head_size")]
    if word == kind.word:
        heads, groups, size = (there or here for there, here in zip(others, (heads, groups, size), strict=True))
    return heads, groups, size, value


def _linear(config: Config) -> LinearSpec:
    why = " by linear attention"
    if config.has("delta_heads"):
        heads, size = config.needed("delta_heads"), config.needed("delta_head_size", why)
        full = config.flag("delta_full_gate")
        return LinearSpec(
            kind="linear",
            num_key_heads=heads,
            num_value_heads=heads,
            key_head_dim=size,
            value_head_dim=size,
            conv_kernel_dim=config.needed("delta_taps", why),
            decay="channel",
            gate_rank=None if full else size,
            state_bytes=_state_bytes(config),
        )
    return LinearSpec(
        kind="linear",
        num_key_heads=config.needed("key_heads", why),
        num_value_heads=config.needed("value_heads", why),
        key_head_dim=config.needed("key_head_size", why),
        value_head_dim=config.needed("value_head_size", why),
        conv_kernel_dim=config.needed("taps", why),
        state_bytes=_state_bytes(config),
    )


def _state_bytes(config: Config) -> int:
    found = config.find("state_type")
    if found is None:
        return STATES["float32"]
    key, value = found
    if not isinstance(value, str) or value.removeprefix("torch.") not in STATES:
        config.fault(key, f"found {shown(str(value))}; allowed: {', '.join(STATES)}; correct it")
        return STATES["float32"]
    return STATES[value.removeprefix("torch.")]


def _compressed(config: Config, kind: Kind) -> CompressedSpec:
    why = " by compressed attention"
    config.find("kv_heads")
    indexed: dict[str, Any] | None = config.means.get("indexed")
    if indexed is None:
        config.fault(
            config.key_of("ratios"),
            f"which ratios have an indexer is not known of this type; allowed: types on file; {HOW}",
        )
        indexed = {}
    if config.has("rates") and config.has("layer_types"):  # newer saves name the kind, and the rate is free
        chosen = kind.size == _rate(config, "csa")
    else:
        chosen = kind.size == indexed.get("ratio")
    indexer = None
    if chosen and kind.size:
        indexer = _indexer(config, Kind("sparse"), from_hidden=False)
    return CompressedSpec(
        kind="compressed",
        num_attention_heads=config.needed("heads"),
        head_dim=config.needed("head_size", why),
        qk_rope_head_dim=config.needed("rope_size", why),
        q_lora_rank=config.needed("query_rank", why),
        o_lora_rank=config.needed("output_rank", why),
        o_groups=config.needed("output_groups", why),
        sliding_window=config.needed("window", why),
        compress_ratio=kind.size,
        overlap=int(indexed.get("overlap", 1)) if indexer else 1,
        indexer=indexer,
    )


def _rate(config: Config, short: str) -> Any:
    found = config.find("rates")
    held = found[1] if found is not None and isinstance(found[1], dict) else {}
    return next((rate for word, rate in held.items() if keys("layer_words").get(word) == short), None)
