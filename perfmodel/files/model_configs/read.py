"""A config.json or params.json as a model: what it states, what was inferred, and what was left unread."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from perfmodel.files.document import Place, shown
from perfmodel.files.folders import as_path, file_name
from perfmodel.files.model_configs.attentions import attention_of
from perfmodel.files.model_configs.config import HOW, MOST_LAYERS, Config, cut, is_like, keys
from perfmodel.files.model_configs.drafts import Draft, draft_of
from perfmodel.files.model_configs.feed_forward import ROUTED, experts_of, routed_layers
from perfmodel.files.model_configs.layer_lists import Kind, kinds_of
from perfmodel.files.model_configs.stored import shipped_of
from perfmodel.files.reader import Reader
from perfmodel.specs.attention import AttentionSpec, CompressedSpec, LinearSpec, MlaSpec
from perfmodel.specs.base import MOST, Known, Source, said
from perfmodel.specs.model import MAIN, FeedForward, LayerGroupSpec, ModelSpec
from perfmodel.specs.shipped import ShippedSpec

#: key of the tokens that a model was trained on before its positions were stretched
TRAINED = "original_max_position_embeddings"
#: names of files that say nothing of what is in them: their folder does
PLAIN = ("config", "params")
NAME = re.compile(r"[A-Za-z0-9][\w.+ -]{0,59}")  # what a model is called by what is around it
MOST_UNUSED = 12  # keys that are listed

Layer = tuple[Kind, FeedForward]


def read_config(reader: Reader, data: Mapping[str, Any]) -> Known[ModelSpec]:
    """Return the model in a config that a reader read as data.  Raises ``DataError`` with one line per fault."""
    path = reader.path
    reader.finish()  # what is no plain data has no keys to speak of
    config = Config(reader, data)
    if why := config.means.get("refused"):
        key = "model_type" if config.known_as == config.type_word else "architectures"
        config.fault(key, f"{config.known_as} cannot be read yet: {why}; allowed: other types")
        reader.finish()
    layers, sublayers = _layers(config)
    routed = routed_layers(config, layers)
    kinds = kinds_of(config, layers * sublayers)
    each = _each(kinds, routed, sublayers)
    drafts = _drafts(config)
    draft = draft_of(config, kinds, routed, layers)
    stated = _stated(config, each, drafts, draft)
    known = [*kinds, draft.kind] if drafts else kinds
    attentions = _attentions(config, known, stated["hidden_size"])
    shipped = shipped_of(config)
    unused = _unused(config)
    reader.finish()
    names = _names(kinds, known)
    found = {**stated, **_grouped(each, names, attentions, dense_first=sublayers == 1), "shipped": shipped}
    if drafts:
        found["draft_layer"] = _draft_layer(draft, names, routed)
    spec = _spec(reader, found)
    notes, details = _notes(config, spec, kinds, names, unused, draft)
    return Known(spec=spec, figures={}, word=as_path(path), file=file_name(path), notes=notes, details=details)


def _attentions(config: Config, kinds: Sequence[Kind], width: int) -> dict[Kind, AttentionSpec]:
    """Return the attention of each kind; what a value makes impossible was told, or is told here."""
    found = {}
    for kind in dict.fromkeys(kinds):
        try:
            found[kind] = attention_of(config, kind, width)
        except ValidationError as error:
            if not config.reader.faults:
                _refused(config.reader, config.where, error)
    return found


def _refused(reader: Reader, place: Place, error: ValidationError) -> None:
    """Note what keys say together that cannot be."""
    for fault in error.errors(include_url=False):
        where = ".".join(map(str, fault["loc"]))
        reader.fault(place, f"{where}{': ' * bool(where)}{said(fault)}; allowed: keys that agree; correct them")


def _layers(config: Config) -> tuple[int, int]:
    """Return the layers of the file, and how many of ours each is."""
    layers, sublayers = config.needed("layers", most=MOST_LAYERS), int(config.means.get("sublayers", 1))
    for key in keys("spellings")["layers"]:  # of a type that has its own spelling
        config.asked.add(key)
    config.reader.finish()  # every list is held against it
    return layers, sublayers


def _each(kinds: Sequence[Kind], routed: Sequence[bool], sublayers: int) -> list[Layer]:
    """Return the attention and the feed-forward of each of our layers."""
    if sublayers == 1:
        return [(kind, "moe" if has else "dense") for kind, has in zip(kinds, routed, strict=True)]
    beside: tuple[FeedForward, FeedForward] = ("dense", "moe_beside_dense")
    return [(kind, beside[routed[i // sublayers] and i % sublayers == 0]) for i, kind in enumerate(kinds)]


def _stated(config: Config, each: Sequence[Layer], drafts: int, draft: Draft) -> dict[str, Any]:
    """Return the keys of a model that are no layers."""
    found: dict[str, Any] = {
        "num_hidden_layers": len(each),
        "hidden_size": config.needed("width"),
        "vocab_size": config.needed("vocabulary"),
        "max_position_embeddings": _context(config),
        "num_nextn_predict_layers": drafts,
        "tie_word_embeddings": bool(config.flag("tied")),
        "hc_mult": _streams(config),
        **_called(config),
    }
    forms = {feed_forward for _, feed_forward in each}
    if forms != {"moe"} or (drafts and draft.feed_forward == "dense"):
        found["intermediate_size"] = config.needed("dense_width", " by layers with a dense feed-forward")
    else:
        config.asked.update(config.spellings("dense_width"))
    if forms != {"dense"}:
        found["experts"] = experts_of(config)
    elif config.find("experts") not in (None, (config.stated.get("experts"), 0)):
        config.fault(config.key_of("experts"), "no layer has experts; allowed: layers that have them, or 0; correct it")
    return found


def _context(config: Config) -> int:
    """Return the tokens of context that a model takes: as stated, or as many as its stretched positions reach."""
    stated = config.needed("context")
    found = config.find("rope")
    held = found[1] if found is not None and isinstance(found[1], dict) else {}
    factor, trained = _number(held.get("factor")), _number(held.get(TRAINED, config.held.get(TRAINED)))
    reached = min(int(factor * trained), MOST)
    if found is None or reached <= stated:
        return stated
    config.taken["context"] = (
        f"{reached:,} tokens, {found[0]} stretches {trained:,.0f} by {factor:g}; "
        f"{config.stated.get('context', 'the file')} says {stated:,}"
    )
    return reached


def _number(value: Any) -> float:
    """Return a number above zero and not beyond reason; 0 where a value is none."""
    is_one = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= MOST
    return float(value) if is_one else 0.0


def _drafts(config: Config) -> int:
    if config.flag("uses_drafts") is False:
        config.find("draft_modules")
        return 0
    if (modules := config.count("draft_modules", least=0)) is not None:
        return modules * (config.count("layers_of_module") or 1)
    return config.count("drafts", least=0) or 0


def _streams(config: Config) -> int:
    uses, streams = config.flag("uses_streams"), config.count("streams")
    if uses and streams is None:
        config.missing("streams", f", as {config.key_of('uses_streams')} is true")
    return 1 if uses is False or streams is None else streams


def _called(config: Config) -> dict[str, Any]:
    """Return the name and the title of a model, and where it was read."""
    path = config.reader.path
    said = config.root.get("_name_or_path")
    folder = path.parent.name if path.stem.lower() in PLAIN else path.stem
    words = [said.rstrip("/").rpartition("/")[2] if isinstance(said, str) else "", folder, config.type_word or ""]
    name = next((word for word in words if NAME.fullmatch(word)), "model")
    kind = cut(config.type_word or "no model_type")
    return {
        "name": name,
        "title": f"{name}, read from {path.name} ({kind})",
        "sources": {"config": Source(title=f"{path.name} as it was given")},
    }


def _names(kinds: Sequence[Kind], known: Sequence[Kind]) -> dict[Kind, str]:
    """Return what each kind of attention that is known is called: the most frequent of layers is the main one."""
    main = Counter(kinds).most_common(1)[0][0]
    return {kind: MAIN if kind == main else kind.name for kind in dict.fromkeys(known)}


def _draft_layer(draft: Draft, names: dict[Kind, str], routed: Sequence[bool]) -> dict[str, str]:
    """Return the keys of a draft layer that are not those it has unless told."""
    found = {} if names[draft.kind] == MAIN else {"attention": names[draft.kind]}
    usual = "moe" if any(routed) else "dense"
    return found if draft.feed_forward == usual else {**found, "feed_forward": draft.feed_forward}


def _grouped(
    each: Sequence[Layer], names: dict[Kind, str], attentions: dict[Kind, AttentionSpec], *, dense_first: bool
) -> dict[str, Any]:
    """Return layers that are alike as groups, the short form where it says the same."""
    main = next(kind for kind, name in names.items() if name == MAIN)
    found: dict[str, Any] = {"attention": attentions[main]}
    counts = Counter(each)
    dense = counts[(main, "dense")]
    first = all(feed_forward == "dense" for _, feed_forward in each[:dense])
    if len(names) == 1 and dense_first and first:
        return {**found, "first_k_dense_replace": dense if dense < len(each) else 0}
    return {
        **found,
        "attentions": {name: attentions[kind] for kind, name in names.items() if name != MAIN},
        "layers": tuple(
            LayerGroupSpec(count=count, attention=names[kind], feed_forward=feed_forward)
            for (kind, feed_forward), count in counts.items()
        ),
    }


def _spec(reader: Reader, found: dict[str, Any]) -> ModelSpec:
    try:
        return ModelSpec.model_validate(found)
    except ValidationError as error:  # what keys say together
        _refused(reader, (), error)
        reader.finish()
        raise


def _unused(config: Config) -> list[str]:
    """Return the keys that were not used; one that says what a layer does, in a type that is not known, is a fault."""
    left = config.unused()
    telling = [key for key in left if is_like(key, keys("structural")) and not is_like(key, list(keys("uncounted")))]
    if config.known_as is None and telling:
        first, *others = telling
        word = f"model_type {shown(config.type_word)} is not known" if config.type_word else "there is no model_type"
        also = f", and so may {', '.join(map(cut, others[:MOST_UNUSED]))}" if others else ""
        config.fault(
            first,
            f"found {shown(str(config.held[first]))}, which may say what a layer does{also}, and {word}; allowed: keys "
            f"of full, windowed, latent, sparse, linear and compressed attention, and types on file; or {HOW}",
        )
    return left


# --- what is told -------------------------------------------------------------------------------


def _notes(
    config: Config,
    spec: ModelSpec,
    kinds: Sequence[Kind],
    names: dict[Kind, str],
    unused: Sequence[str],
    draft: Draft,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what was read and inferred in few lines, and the rest of it."""
    file = config.reader.path.name
    known = config.known_as
    form = f"{spec.num_hidden_layers} layers of width {spec.hidden_size}, read as {known or 'its keys say'}"
    type_ = (
        "" if known else f"; model_type {cut(config.type_word or 'none')} is not known, all that follows is inferred"
    )
    lines = [f"{file}: {form}{type_}", *_of_attention(config, spec, kinds, names), _of_layers(config, spec)]
    lines += [_of_draft(spec, draft)] if spec.num_nextn_predict_layers else []
    lines += [f"context: {text}" for concept, text in config.taken.items() if concept == "context"]
    lines.append(_of_stored(spec.shipped))
    cost = {words for key in unused for pattern, words in keys("uncounted").items() if is_like(key, [pattern])}
    left = [key for key in unused if not is_like(key, list(keys("uncounted")))]
    if cost:
        lines.append(f"not counted: {', '.join(sorted(cost))}")
    if left:
        more = f" and {len(left) - MOST_UNUSED} more" if len(left) > MOST_UNUSED else ""
        lines.append(f"not used: {', '.join(map(cut, left[:MOST_UNUSED]))}{more}")
    details = [f"{concept.replace('_', ' ')}: {text}" for concept, text in config.taken.items()]
    details += [
        f"{concept.replace('_', ' ')}: {key}"
        for concept, key in config.stated.items()
        if key != keys("spellings")[concept][0]
    ]
    if len(left) > MOST_UNUSED:
        details.append(f"not used either: {', '.join(map(cut, left[MOST_UNUSED:]))}")
    return tuple(lines), tuple(details)


def _of_attention(config: Config, spec: ModelSpec, kinds: Sequence[Kind], names: dict[Kind, str]) -> list[str]:
    counts = Counter(kinds)
    parts = []
    for kind in counts:
        attention = spec.attention_called(names[kind])
        parts.append(f"{_in_words(attention)} on {counts[kind]}" if len(counts) > 1 else _in_words(attention))
    sources = [config.stated[one] for one in _LISTS if one in config.stated and len(counts) > 1]
    by = f" (by {', '.join(dict.fromkeys(sources))})" if sources else ""
    if "layer_types" in config.taken:
        by = " (as the type has them, the file lists none)"
    return [f"attention: {'; '.join(parts)}{by}"]


#: concepts that say which layer has which attention
_LISTS = (
    *("layer_types", "ratios", "pattern", "full_layers", "delta_layers", "interval", "index_layers", "window_layers"),
    *("index_flags", "softmax_flags", "rope_flags", "index_types", "index_every", "index_sublayers"),
)


def _in_words(attention: AttentionSpec) -> str:
    if isinstance(attention, LinearSpec):
        return f"linear, a state of {attention.num_value_heads} x {attention.key_head_dim} x {attention.value_head_dim}"
    if isinstance(attention, CompressedSpec):
        ratio = f"compressed {attention.compress_ratio} to 1" if attention.compress_ratio else "window alone"
        chosen = f", {attention.indexer.topk} entries chosen" if attention.indexer else ""
        return f"{ratio}{chosen}, window {attention.sliding_window}"
    if isinstance(attention, MlaSpec):
        text = f"latent (kv_lora_rank {attention.kv_lora_rank})"
    else:
        text = f"{attention.num_attention_heads} query and {attention.num_key_value_heads} KV heads"
        if attention.attention_chunk_size:
            text += f", chunks of {attention.attention_chunk_size}"
    if attention.sliding_window:
        text += f", window {attention.sliding_window}"
    if attention.indexer:
        how = "tokens chosen by a layer before" if attention.indexer.shared else "tokens chosen by an indexer"
        text += f", {attention.indexer.topk} {how}"
    return text


def _of_layers(config: Config, spec: ModelSpec) -> str:
    counts = Counter[str]()
    for group in spec.groups:
        counts[group.feed_forward] += group.count
    words = {"dense": "dense", "moe": "with experts", "moe_beside_dense": "with experts beside a dense one"}
    parts = [f"{count} {words[kind]}" for kind, count in counts.items()]
    by = [config.stated[one] for one in ROUTED if one in config.stated]
    text = f"feed-forward: {', '.join(parts)}{f' (by {by[0]})' if by and len(parts) > 1 else ''}"
    experts = spec.experts
    if experts is not None:
        shared = f", {experts.n_shared_experts} shared" if experts.n_shared_experts else ""
        zero = f", {experts.zero_expert_num} without weights" if experts.zero_expert_num else ""
        if experts.real_experts_per_tok is not None:
            zero += f" (work falls on {experts.real_experts_per_tok:g} of {experts.num_experts_per_tok} on average)"
        text += (
            f"; {experts.n_routed_experts} experts ({config.key_of('experts')}), {experts.num_experts_per_tok} a "
            f"token, width {experts.moe_intermediate_size} ({config.key_of('expert_width')}){shared}{zero}"
        )
    return text if spec.num_nextn_predict_layers else f"{text}; no draft layers"


def _of_draft(spec: ModelSpec, draft: Draft) -> str:
    count, group = spec.num_nextn_predict_layers, spec.draft_group
    parts = [f"attention {_in_words(spec.attention_of(group))} ({draft.kind_by})"]
    parts.append(f"{'experts' if group.has_experts else 'dense feed-forward'} ({draft.feed_forward_by})")
    return f"{count} draft layer{'s' * (count > 1)}: {'; '.join(parts)}"


def _of_stored(shipped: ShippedSpec | None) -> str:
    chosen = "precision of a run is chosen as before, by --precision and --kv"
    if shipped is None:
        return f"stored in: not known of this quantization_config; {chosen}"
    parts = [f"experts {shipped.experts}", f"other weights {shipped.others}", f"activations {shipped.activations}"]
    if len({shipped.experts, shipped.others, shipped.activations}) == 1:
        parts = [shipped.experts]
    if shipped.cache != "bf16":
        parts.append(f"cache {shipped.cache}")
    return f"stored in: {', '.join(parts)} ({shipped.read_from}); {chosen}"
