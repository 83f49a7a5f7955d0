"""Which kind of attention each layer of a config has, by its lists and patterns."""

from collections.abc import Callable
from dataclasses import dataclass

from perfmodel.files.document import shown
from perfmodel.files.model_configs.config import HOW, Config, keys


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
#: kinds without a size, by their words
KINDS = {kind.word: kind for kind in (FULL, WINDOW, CHUNKED, LINEAR, SPARSE)}


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


def layer_words(config: Config) -> dict[str, Kind]:
    """Return the kind of attention that each word of a list of layers is in this config."""
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
            words[word] = Kind("compressed") if compressed and short == "window" else KINDS[short]
    return words


def _layer_types(config: Config, layers: int) -> list[Kind] | None:
    return config.listed("layer_types", layers, layer_words(config))


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
        return [KINDS[words[layer % len(words)]] for layer in range(layers)]
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
