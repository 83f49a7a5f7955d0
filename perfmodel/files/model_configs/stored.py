"""What precision a checkpoint is stored in, by its config or by what quantised it."""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from perfmodel.errors import MoeplanError
from perfmodel.files import document
from perfmodel.files.document import shown
from perfmodel.files.model_configs.config import Config, cut
from perfmodel.specs.shipped import ShippedSpec, Stored

#: files beside a config that say what was quantised
MODELOPT, ASCEND = "hf_quant_config.json", "quant_model_description*.json"
LARGEST_DESCRIPTION = 64_000_000  # bytes: it names every tensor
#: words of quantisers and what a number is, by what a word begins with; the longest that fits counts
_WORDS: dict[str, Stored] = {
    "mxfp4": "mxfp4",
    "mxfp8": "mxfp8",
    "nvfp4": "nvfp4",
    "fp8": "fp8",
    "float8": "fp8",
    "fp4": "mxfp4",
    "int8": "int8",
    "int4": "int4",
}
#: schemes of weights and activations, such as W4A8_DYNAMIC
_SCHEME = re.compile(r"w(\d+)a(\d+)", re.IGNORECASE)
_WHOLE: dict[int, Stored] = {4: "int4", 8: "int8", 16: "bf16"}
_ENTRY = re.compile(rb'"([^"]{1,400})"\s*:\s*"([A-Za-z0-9_]{1,40})"')


def shipped_of(config: Config) -> ShippedSpec | None:
    """Return what a checkpoint is stored in, None where it says so in a form that is not known."""
    folder = config.reader.path.parent
    for read in (_ascend, _modelopt_file):
        if (found := read(folder)) is not None:
            return found
    key = next((key for key in ("quantization_config", "quantization") if config.held.get(key) is not None), None)
    if key is None:
        return _plain(config)
    block = config.held[key]
    if not isinstance(block, dict):
        config.fault(key, f"found {shown(str(block))}; allowed: a mapping, or leave it out; correct it")
        return None
    return _of_block(config, key, block)


def _plain(config: Config) -> ShippedSpec | None:
    word = config.held.get("quantize")
    if isinstance(word, str) and (found := _scheme(word, "quantize")) is not None:
        return found
    return ShippedSpec(experts="bf16", others="bf16", activations="bf16", read_from=_dtype(config))


def _dtype(config: Config) -> str:
    key = next((key for key in ("torch_dtype", "dtype") if isinstance(config.held.get(key), str)), None)
    return f"{key} {cut(config.held[key])}" if key else "no quantization_config"


def _of_block(config: Config, key: str, block: Mapping[str, Any]) -> ShippedSpec | None:
    method = str(block.get("quant_method") or ("compressed-tensors" if "config_groups" in block else "")).lower()
    where = f"{key}.quant_method {cut(method)}" if block.get("quant_method") else key
    left = _left(block)
    match method:
        case "compressed-tensors":
            return _compressed_tensors(block, f"{where} {cut(str(block.get('format') or ''))}".rstrip(), left)
        case "gptq" | "awq" | "auto-round" | "gptq_marlin" | "awq_marlin":
            bits = _bits(block, "bits", "w_bit")
            weights = _WHOLE.get(bits)
            return None if weights is None else _record(weights, "bf16", left, where)
        case "modelopt" | "modelopt_fp4" | "modelopt_mixed":
            return _modelopt(block, where)
        case "ascend":
            return _scheme(str(block.get("quant_type") or block.get("model_quant_type") or ""), where)
    weights = _named(method)
    if weights is None:
        return _scheme(method, where)
    activations: Stored = "bf16" if weights in ("mxfp4", "int4") else weights
    found = _record(weights, activations, left, where)
    if "expert_dtype" in config.held or "expert_dtype" in block:
        expert = _named(str(block.get("expert_dtype") or config.held.get("expert_dtype") or ""))
        if expert is not None:
            return found.model_copy(update={"experts": expert, "read_from": f"{where}, expert_dtype"})
    return found


def _named(word: str) -> Stored | None:
    """Return what a word says a number is."""
    word = word.lower().removeprefix("torch.")
    return next((stored for begin, stored in _WORDS.items() if begin in word), None)


def _bits(held: Any, *names: str) -> int:
    value = next((held.get(name) for name in names if name in held), None) if isinstance(held, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _left(block: Mapping[str, Any]) -> tuple[bool, bool]:
    """Return whether attention, and whether experts, are among what is left as it was."""
    words: list[str] = []
    for key in ("ignore", "ignored_layers", "modules_to_not_convert", "exclude_modules"):
        value = block.get(key)
        words += [str(word) for word in value] if isinstance(value, list) else []
    attention = any(fnmatchcase(word, "*attn*") and "o_proj" not in word and "kv_b" not in word for word in words)
    experts = any("mlp.experts" in word for word in words)
    return attention, experts


def _record(weights: Stored, activations: Stored, left: tuple[bool, bool], where: str) -> ShippedSpec:
    attention, experts = left
    return ShippedSpec(
        experts="bf16" if experts else weights,
        others="bf16" if attention else weights,
        activations=activations,
        read_from=where,
    )


def _compressed_tensors(block: Mapping[str, Any], where: str, left: tuple[bool, bool]) -> ShippedSpec | None:
    form = str(block.get("format") or "")
    groups = block.get("config_groups")
    found: list[tuple[Stored, Stored, bool]] = []
    for group in groups.values() if isinstance(groups, dict) else ():
        if not isinstance(group, dict):
            continue
        weights = _number(group.get("weights"), str(group.get("format") or form))
        activations = _number(group.get("input_activations"), "") or "bf16"
        if weights is None:  # what was seen of the activations alone
            weights = activations if activations != "bf16" else None
        targets = group.get("targets")
        experts_alone = isinstance(targets, list) and bool(targets) and all("expert" in str(word) for word in targets)
        if weights is not None:
            found.append((weights, activations, experts_alone))
    if not found:
        return None
    of_experts = next((one for one in found if one[2]), found[0])
    of_others = next((one for one in found if not one[2]), None)
    record = _record(of_experts[0], of_experts[1], left, where)
    if of_others is None:
        record = record.model_copy(update={"others": "bf16"})
    elif not left[0]:
        record = record.model_copy(update={"others": of_others[0]})
    cache = _number(block.get("kv_cache_scheme"), "")
    return record if cache is None else record.model_copy(update={"cache": cache})


def _number(held: Any, form: str) -> Stored | None:
    """Return what a group of compressed tensors says that its numbers are."""
    if not isinstance(held, dict):
        return None
    bits = _bits(held, "num_bits")
    if held.get("type") != "float":
        return _WHOLE.get(bits)
    if bits == 8:  # noqa: PLR2004
        return "mxfp8" if form.startswith("mxfp8") else "fp8"
    if bits == 4:  # noqa: PLR2004
        return "nvfp4" if form.startswith("nvfp4") or held.get("group_size") == 16 else "mxfp4"  # noqa: PLR2004
    return None


def _scheme(word: str, where: str) -> ShippedSpec | None:
    """Return what a scheme such as W4A8_DYNAMIC says: 4-bit weights are those of experts."""
    found = _SCHEME.match(word)
    if found is None:
        return None
    floats = _named(word)
    weights, activations = (_WHOLE.get(int(bits)) for bits in found.groups())
    if weights is None or activations is None:
        return None
    if floats in ("mxfp8", "mxfp4"):
        weights, activations = floats, "mxfp8" if floats == "mxfp8" else activations
    others = activations if weights == "int4" and activations != "bf16" else weights
    return ShippedSpec(experts=weights, others=others, activations=activations, read_from=f"{where} {cut(word)}")


def _modelopt(block: Mapping[str, Any], where: str) -> ShippedSpec | None:
    word = str(block.get("quant_algo") or block.get("quant_method") or "")
    layers = block.get("quantized_layers")
    weights: Stored | None
    others: Stored | None
    if word.upper() == "MIXED_PRECISION" and isinstance(layers, dict):
        words = {
            name: _named(str(entry.get("quant_algo"))) for name, entry in layers.items() if isinstance(entry, dict)
        }
        weights = next((one for name, one in words.items() if "expert" in name), None)
        others = next((one for name, one in words.items() if "expert" not in name), "bf16")
    else:
        weights = others = _named(word) or (_named("nvfp4") if word.lower() == "modelopt" else None)
    if weights is None:
        return None
    record = _record(weights, weights, _left(block), f"{where} {cut(word)}".rstrip())
    if others is not None and not _left(block)[0]:
        record = record.model_copy(update={"others": others})
    scheme = block.get("kv_cache_scheme")
    cache = _number(scheme, "") or _named(str(block.get("kv_cache_quant_algo") or ""))
    return record if cache is None else record.model_copy(update={"cache": cache})


def _modelopt_file(folder: Path) -> ShippedSpec | None:
    path = folder / MODELOPT
    try:
        held = document.read(path, document.content(path)).data.get("quantization")
    except MoeplanError:  # none there, or none that says
        return None
    return _modelopt(held, f"{MODELOPT}:") if isinstance(held, dict) else None


def _ascend(folder: Path) -> ShippedSpec | None:
    """Return what a description beside a config says of tensors: the most frequent word of experts and of others."""
    try:
        path = next(iter(sorted(folder.glob(ASCEND))), None)
        if path is None:
            return None
        with document.readable(path), path.open("rb") as file:
            text = file.read(LARGEST_DESCRIPTION)
    except (MoeplanError, OSError):
        return None
    counts: dict[str, dict[str, int]] = {"experts": {}, "others": {}}
    whole = cache = ""
    for name, value in ((a.decode("utf-8", "replace"), b.decode()) for a, b in _ENTRY.findall(text)):
        if name == "model_quant_type":
            whole = value
        elif name in ("kv_cache_type", "kv_quant_type"):
            cache = value
        elif name.endswith(".weight") and _SCHEME.match(value):
            kind = counts["experts" if ".experts." in name else "others"]
            kind[value] = kind.get(value, 0) + 1
    of = {kind: max(words, key=lambda word: words[word]) for kind, words in counts.items() if words}
    record = _scheme(of.get("experts") or whole, path.name)
    if record is None:
        return None
    others = _scheme(of["others"], path.name) if "others" in of else None
    update: dict[str, Any] = {} if others is None else {"others": others.experts, "activations": others.activations}
    if "experts" in of and "others" not in of and whole and _SCHEME.match(whole):
        update["others"] = "bf16"
    if cache.upper().endswith("8"):
        update["cache"] = "int8"
    return record.model_copy(update=update)
