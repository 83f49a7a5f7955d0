"""What a draft layer of a config is: its lists may go on past the last layer, its type may say; else as most layers."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from perfmodel.files.model_configs.config import Config, keys
from perfmodel.files.model_configs.layer_lists import FULL, KINDS, SPARSE, WINDOW, Kind, layer_words

OF_TYPE = "the type's, the file does not say"
AS_MOST = "as most layers, the file does not say"


@dataclass(frozen=True, slots=True)
class Draft:
    """A draft layer, and by which key or for which reason its attention and its feed-forward are what they are."""

    kind: Kind
    feed_forward: Literal["dense", "moe"]
    kind_by: str
    feed_forward_by: str


def draft_of(config: Config, kinds: Sequence[Kind], routed: Sequence[bool], layers: int) -> Draft:
    """Return what a draft layer is, of layers as the file counts them and the kind of attention of each of ours."""
    means = config.means.get("draft", {})
    kind, by = _kind(config, kinds, means)
    experts, why = _experts(config, layers, routed, means)
    return Draft(kind, "moe" if experts else "dense", by, why)


def _kind(config: Config, kinds: Sequence[Kind], means: dict[str, str]) -> tuple[Kind, str]:
    chooses = any(kind.word == "sparse" for kind in kinds)
    shares = config.flag("draft_choice")  # asked for in every case: it is read, whatever else counts
    found = _past_the_last(config, kinds)
    if found is not None:
        kind, by = found
        return (SPARSE if kind == FULL and FULL not in kinds and chooses else kind), by
    if shares is not None and chooses:
        return SPARSE, config.key_of("draft_choice")  # what one draft hands on to the next, the first has to choose
    if (word := means.get("attention")) is not None:
        return KINDS[word], OF_TYPE
    main = Counter(kinds).most_common(1)[0][0]
    # a choice is handed on inside of one pass, and drafts are passes of their own
    return (SPARSE if main.shared else main), AS_MOST


def _past_the_last(config: Config, kinds: Sequence[Kind]) -> tuple[Kind, str] | None:
    """Return the kind of the first item of a list that goes on past the last layer, and its key."""
    allowed: dict[str, Mapping[Any, Kind]] = {
        "layer_types": layer_words(config),
        "pattern": {0: FULL, 1: WINDOW},
        "index_flags": {0: FULL, 1: SPARSE},
        "index_types": {"full": SPARSE, "shared": Kind("sparse", shared=True)},
    }
    layers = len(kinds)
    if isinstance(ratio := config.past("ratios", layers), int) and ratio >= 0:
        return Kind("compressed", ratio), config.key_of("ratios")
    for concept, words in allowed.items():
        item = config.past(concept, layers)
        if isinstance(item, (str, int)) and item in words:
            return words[item], config.key_of(concept)
    windowed = sum(kind.word == "window" for kind in kinds)
    each = config.find("windows")
    if each is not None and isinstance(each[1], list):
        item = config.past("windows", layers if len(each[1]) >= layers else windowed)
        if isinstance(item, int) and item > 0:
            return Kind("window", item), each[0]
    return None


def _experts(config: Config, layers: int, routed: Sequence[bool], means: dict[str, str]) -> tuple[bool, str]:
    if not any(routed):
        return False, AS_MOST
    allowed: dict[str, Mapping[Any, bool]] = {"mlp_types": keys("mlp_words"), "moe_every": {0: False, 1: True}}
    for concept, words in allowed.items():
        item = config.past(concept, layers)
        if isinstance(item, (str, int)) and item in words:
            return words[item], config.key_of(concept)
    if (numbers := config.numbers("moe_layers")) is not None:  # a draft layer has the number after the last
        return layers in numbers, config.key_of("moe_layers")
    if (word := means.get("feed_forward")) is not None:
        return word == "moe", OF_TYPE
    return True, "as layers with experts, the file does not say"
