"""Which feed-forward each layer of a config has, and what its experts are."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from perfmodel.files.document import shown
from perfmodel.files.model_configs.config import Config, keys

#: of each layer, whether its tokens are routed to experts
Routed = list[bool]


def routed_layers(config: Config, layers: int) -> Routed:
    """Return which layers have experts."""
    found = [(concepts, routed) for concepts, read in _SOURCES.items() if (routed := read(config, layers)) is not None]
    experts = config.find("experts")
    if experts is None or config.whole(*experts, least=0) == 0:
        return [False] * layers
    for (first, before), (concepts, routed) in pairwise(found):
        at = next((i for i in range(layers) if routed[i] != before[i]), None)
        if at is not None:
            said = {True: "has experts", False: "has none"}
            config.fault(
                config.key_of(*concepts),
                f"says that layer {at} {said[routed[at]]}, but {config.key_of(*first)} says that it "
                f"{said[before[at]]}; allowed: keys that agree; correct either",
            )
    return found[0][1] if found else [True] * layers


def _types(config: Config, layers: int) -> Routed | None:
    return config.listed("mlp_types", layers, keys("mlp_words"))


def _listed(config: Config, layers: int) -> Routed | None:
    at = config.ids("moe_layers", layers)
    return None if at is None else [layer in at for layer in range(layers)]


def _every(config: Config, layers: int) -> Routed | None:
    """Return what the number of first dense layers says, and every how many one has experts, which may be a list."""
    found = config.find("moe_every")
    if found is not None and isinstance(found[1], list):
        return config.listed("moe_every", layers, {0: False, 1: True})
    dense = config.count("first_dense", least=0)
    every = config.count("moe_every")
    if dense is None and every is None:
        return None
    if dense is not None and dense > layers:
        config.fault(config.key_of("first_dense"), f"found {dense}; allowed: up to {layers}, all layers; correct it")
    return [layer >= (dense or 0) and layer % (every or 1) == 0 for layer in range(layers)]


def _range(config: Config, layers: int) -> Routed | None:
    start, interval = config.count("moe_start", least=0), config.count("moe_interval")
    end = config.count("moe_end", least=-1)
    if start is None:
        return None
    last = layers - 1 if end is None or end == -1 else end
    return [start <= layer <= last and (layer + 1) % (interval or 1) == 0 for layer in range(layers)]


def _interleaved(config: Config, layers: int) -> Routed | None:
    step = config.count("interleave", least=0)
    return None if step is None else [step > 0 and (layer + 1) % step == 0 for layer in range(layers)]


def _steps(config: Config, layers: int) -> Routed | None:
    step, dense = config.count("sparse_step"), config.ids("dense_layers", layers)
    if step is None and not dense:
        return None
    return [layer not in (dense or ()) and (layer + 1) % (step or 1) == 0 for layer in range(layers)]


#: what says which layer has experts, by concepts of which any states it, in the order of what counts
_SOURCES: dict[tuple[str, ...], Callable[[Config, int], Routed | None]] = {
    ("mlp_types",): _types,
    ("moe_layers",): _listed,
    ("first_dense", "moe_every"): _every,
    ("moe_start",): _range,
    ("interleave",): _interleaved,
    ("sparse_step", "dense_layers"): _steps,
}
#: concepts that say which layers have experts
ROUTED = tuple(concept for concepts in _SOURCES for concept in concepts)


def experts_of(config: Config) -> dict[str, Any]:
    """Return the keys of the mixture of experts of a model."""
    count = config.needed("experts")
    per_token = config.needed("per_token", " by experts")
    width = config.needed("expert_width", " by experts: the width of one")
    if config.sound and per_token > count:
        config.fault(
            config.key_of("per_token"),
            f"found {per_token}, and {config.key_of('experts')} is {count}; allowed: up to that; correct either",
        )
    shared, shared_width = config.count("shared", least=0), config.count("shared_width", least=0)
    if shared is None and "shared" not in config.stated:
        shared = 1 if shared_width else 0
    groups, top_groups = config.count("groups") or 1, config.count("top_groups") or 1
    if config.sound and groups > count:
        config.fault(config.key_of("groups"), f"found {groups}; allowed: up to {count}, the experts; correct either")
    if config.sound and top_groups > groups:
        config.fault(
            config.key_of("top_groups"), f"found {top_groups}; allowed: up to {groups}, all groups; correct it"
        )
    found: dict[str, Any] = {
        "n_routed_experts": count,
        "num_experts_per_tok": per_token,
        "n_shared_experts": shared or 0,
        "moe_intermediate_size": width,
        "zero_expert_num": config.count("zero_experts", least=0) or 0,
        "n_group": groups,
        "topk_group": top_groups,
    }
    if found["zero_expert_num"]:
        found["real_experts_per_tok"] = _real(config, per_token)
    if shared and shared_width and shared_width != width:
        found["shared_intermediate_size"] = shared_width
    if shared and config.means.get("shared_gate"):
        found["shared_gate"] = True
    if routed := config.count("routed_width"):
        found["routed_expert_hidden_size"] = routed
    return found


def _real(config: Config, per_token: int) -> float | None:
    """Return how many of a token's choices have work: as stated, as the type is known, or unknown."""
    found = config.find("real_per_token")
    if found is not None:
        key, value = found
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= per_token:
            return float(value)
        config.fault(key, f"found {shown(str(value))}; allowed: above 0, up to {per_token}; correct it")
        return None
    known = config.means.get("real_experts", {}).get(per_token)
    zero = config.key_of("zero_experts")
    if known is None:
        config.taken["real_per_token"] = f"as many of {per_token} as experts are of all choices ({zero})"
        return None
    config.taken["real_per_token"] = f"{known} of {per_token} on average (the type's, beside {zero})"
    return float(known)
