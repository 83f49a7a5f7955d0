"""Which attention each layer of a config has."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from perfmodel.files.document import shown
from perfmodel.files.model_configs.config import HOW, Config, keys
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


@dataclass(frozen=True, slots=True)
class Kind:
    """What one layer's attention is: full, window, chunked, linear, sparse or compressed."""

    word: str
    #: tokens of its window, where layers have different ones; tokens of a compressed entry
    size: int = 0
    #: whether its tokens are chosen by a layer before it
    shared: bool = False

    @property
    def name(self) -> str:
        """What a model calls it, where it is not the main one."""
        if self.word == "compressed":
            return f"ratio_{self.size}" if self.size else "window"
        if self.word == "window" and self.size:
            return f"window_{self.size}"
        return "shared_index" if self.shared else self.word


FULL, WINDOW, CHUNKED, LINEAR, SPARSE = map(Kind, ("full", "window", "chunked", "linear", "sparse"))
_WORDS = {kind.word: kind for kind in (FULL, WINDOW, CHUNKED, LINEAR, SPARSE)}


def kinds_of(config: Config, layers: int) -> list[Kind]:
    """Return the kind of attention of each layer."""
    found = [(concepts, kinds) for concepts, read in _SOURCES.items() if (kinds := read(config, layers)) is not None]
    for concepts, kinds in found[1:]:
        first, before = found[0]
        at = next((i for i in range(layers) if (kinds[i] == LINEAR) != (before[i] == LINEAR)), None)
        if at is not None:
            config.fault(
                config.key_of(*concepts),
                f"says that layer {at} is {kinds[at].word}, but {config.key_of(*first)} says {before[at].word}; "
                "allowed: lists that agree; correct either",
            )
    if not found and config.has("output_rank"):
        config.missing("ratios", " by compressed attention")
    kinds = found[0][1] if found else _pattern(config, layers)
    return _windows(config, _sparse(config, kinds, chosen=any(kind == SPARSE for kind in kinds)))


# --- what lists say -----------------------------------------------------------------------------


def _layer_types(config: Config, layers: int) -> list[Kind] | None:
    rates = {"csa": 0, "hca": 0}
    found = config.find("rates")
    if found is not None:
        key, value = found
        for word, rate in value.items() if isinstance(value, dict) else ():
            short = keys("layer_words").get(word)
            if short in rates:
                rates[short] = config.whole(key, rate) or 1
    words: dict[str, Kind] = {}
    compressed = found is not None or config.has("output_rank")
    for word, short in keys("layer_words").items():
        if short in rates:
            if rates[short]:
                words[word] = Kind("compressed", rates[short])
        else:
            words[word] = Kind("compressed") if compressed and short == "window" else _WORDS[short]
    return config.listed("layer_types", layers, words)


def _ratios(config: Config, layers: int) -> list[Kind] | None:
    found = config.find("ratios")
    if found is None:
        return None
    key, value = found
    ratios = {one for one in value if isinstance(one, int)} if isinstance(value, list) else set()
    for ratio in sorted(ratios):
        config.whole(key, ratio, least=0)
    return config.listed("ratios", layers, {ratio: Kind("compressed", ratio) for ratio in sorted(ratios)})


def _flags(concept: str, off: Kind, on: Kind) -> Callable[[Config, int], list[Kind] | None]:
    return lambda config, layers: config.listed(concept, layers, {0: off, 1: on})


def _rope_flags(config: Config, layers: int) -> list[Kind] | None:
    if not config.has("chunk"):
        config.find("rope_flags")  # without chunks it is about positions alone
        return None
    if (every := config.count("rope_interval", least=0)) and not config.has("rope_flags"):
        return _each(layers, every, CHUNKED, FULL)
    found = config.find("rope_flags")
    return None if found is None or found[1] == [] else config.listed("rope_flags", layers, {0: FULL, 1: CHUNKED})


def _interval(config: Config, layers: int) -> list[Kind] | None:
    every = config.count("interval")
    return None if every is None else _each(layers, every, LINEAR, FULL)


def _each(layers: int, every: int, others: Kind, last: Kind) -> list[Kind]:
    """Return one kind for each layer, another for the last of so many."""
    return [last if (layer + 1) % every == 0 else others for layer in range(layers)]


def _delta(config: Config, layers: int) -> list[Kind] | None:
    """Return kinds by two lists of layers, which may count from 0 or from 1: together they have each layer once."""
    lists = [config.find(concept) for concept in ("full_layers", "delta_layers")]
    if lists == [None, None]:
        return None
    items = [one for found in lists if found is not None and isinstance(found[1], list) for one in found[1]]
    first = 0 if 0 in items or not items or (None in lists and layers not in items) else 1
    full = config.ids("full_layers", layers, first=first)
    delta = config.ids("delta_layers", layers, first=first)
    if (lists[0] and full is None) or (lists[1] and delta is None):
        return None
    if full is not None and delta is not None and sorted(full + delta) != list(range(layers)):
        config.fault(
            config.key_of("delta_layers"),
            f"{len(delta)} layers, and {config.key_of('full_layers')} has {len(full)}; allowed: each of {layers} "
            "layers in one of the two; correct them",
        )
        return None
    linear = set(range(layers)) - set(full or ()) if delta is None else set(delta)
    return [LINEAR if layer in linear else FULL for layer in range(layers)]


def _index_layers(config: Config, layers: int) -> list[Kind] | None:
    sparse = config.ids("index_layers", layers)
    window = config.ids("window_layers", layers)
    if sparse is None and window is None:
        return None
    chosen = set(range(layers)) - set(window or ()) if sparse is None else set(sparse)
    if sparse is not None and window is not None and sorted(sparse + window) != list(range(layers)):
        config.fault(
            config.key_of("window_layers"),
            f"with {config.key_of('index_layers')} it has not each of {layers} layers once; allowed: each in one of "
            "the two; correct them",
        )
    return [SPARSE if layer in chosen else WINDOW for layer in range(layers)]


def _index_flags(config: Config, layers: int) -> list[Kind] | None:
    if config.flag("uses_index") is False:
        config.find("index_flags")
        return None
    return config.listed("index_flags", layers, {0: FULL, 1: SPARSE})


def _linear_group(config: Config, layers: int) -> list[Kind] | None:
    every = config.count("linear_group")
    return None if every is None else _each(layers, every, LINEAR, FULL)


#: what says which layer has which attention, in the order of what counts
_SOURCES: dict[tuple[str, ...], Callable[[Config, int], list[Kind] | None]] = {
    ("layer_types",): _layer_types,
    ("ratios",): _ratios,
    ("pattern",): _flags("pattern", FULL, WINDOW),
    ("full_layers", "delta_layers"): _delta,
    ("interval",): _interval,
    ("index_layers", "window_layers"): _index_layers,
    ("index_flags",): _index_flags,
    ("softmax_flags",): _flags("softmax_flags", LINEAR, FULL),
    ("rope_flags", "rope_interval"): _rope_flags,
    ("linear_group",): _linear_group,
}


def _pattern(config: Config, layers: int) -> list[Kind]:
    """Return kinds where the file lists none: the type's, or those of a window, or all alike."""
    if (words := config.means.get("pattern")) is not None and not (words[0] == "chunked" and not config.has("chunk")):
        config.taken["layer_types"] = f"{', '.join(words)} in turn (the type's, the file lists none)"
        return [_WORDS[words[layer % len(words)]] for layer in range(layers)]
    window, uses = config.count("window"), config.flag("uses_window")
    if window is None or uses is False or config.has("output_rank"):
        return [FULL] * layers
    first = config.count("first_window", least=0)
    if uses and first is not None:
        return [WINDOW if layer >= first else FULL for layer in range(layers)]
    if config.means.get("window") == "all":
        return [WINDOW] * layers
    config.fault(
        config.key_of("window"),
        f"found {window}, and nothing says which layers look back so far; allowed: with layer_types, "
        f"hybrid_layer_pattern or another list of layers, or null; add one, or {HOW}",
    )
    return [FULL] * layers


def _sparse(config: Config, kinds: list[Kind], chosen: bool) -> list[Kind]:
    """Return kinds where those with an indexer are sparse, and those that take a choice of before say so."""
    flat = config.has("index_topk") or config.has("index_blocks")
    if not flat or any(kind.word == "compressed" for kind in kinds) or config.flag("uses_index") is False:
        if chosen and not flat:
            config.missing("index_topk", " by sparse attention")
        return kinds
    if not chosen:
        kinds = [SPARSE if kind == FULL else kind for kind in kinds]
    shared = _shares(config, len(kinds))
    return [Kind("sparse", shared=True) if kind == SPARSE and shared[i] else kind for i, kind in enumerate(kinds)]


def _shares(config: Config, layers: int) -> list[bool]:
    """Return for each layer whether it takes the choice of a layer before it."""
    listed = config.listed("index_types", layers, {"full": False, "shared": True})
    every, offset = config.count("index_every"), config.count("index_offset", least=0)
    sublayers = config.count("index_sublayers")
    if listed is None and every is not None and every > 1:
        listed = [max(layer - (offset or 0) + 1, 0) % every > 0 for layer in range(layers)]
    if listed is None and sublayers is not None:
        listed = [layer % sublayers > 0 for layer in range(layers)]
    if listed is not None and listed[0]:
        config.fault(
            config.key_of("index_types", "index_every", "index_sublayers"),
            "the first layer shares a choice that none before it makes; allowed: full first; correct it",
        )
    return listed or [False] * layers


def _windows(config: Config, kinds: list[Kind]) -> list[Kind]:
    """Return kinds with windows of their own, where a list gives one for each layer that has one."""
    found = config.find("windows")
    if found is None:
        return kinds
    key, value = found
    at = [i for i, kind in enumerate(kinds) if kind.word == "window"]
    if not isinstance(value, list) or len(value) < len(at):
        config.fault(
            key,
            f"found {shown(str(value))}; allowed: a list with a window for each of {len(at)} layers that have one; "
            "correct it",
        )
        return kinds
    sizes = [value[i] for i in at] if len(value) >= len(kinds) else value[: len(at)]
    kinds = list(kinds)
    for layer, size in zip(at, sizes, strict=True):
        kinds[layer] = Kind("window", config.whole(key, size) or 1)
    return kinds


# --- what each kind is --------------------------------------------------------------------------


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
