"""What a file is that a command is given first: a model, a run-spec or a plan.  The rule stands here alone."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from perfmodel.errors import UsageError, printable
from perfmodel.files.folders import is_folder, is_there
from perfmodel.files.model_configs.config import nests, states_layers
from perfmodel.files.reader import Reader, unsourced
from perfmodel.specs.base import Spec
from perfmodel.specs.evidence import DeploymentSpec, EvidenceSpec, PeerSpec
from perfmodel.specs.kernels import KernelSetSpec
from perfmodel.specs.machine import ChipSpec, StackSpec, SystemSpec, TermsSpec
from perfmodel.specs.microbenchmark import MicrobenchmarkSpec
from perfmodel.specs.model import ModelSpec
from perfmodel.specs.run import RunSpec
from perfmodel.specs.technique import TechniqueSpec

#: kind of data -> what a file of it holds
SPECS: dict[str, type[Spec]] = {
    "chips": ChipSpec,
    "systems": SystemSpec,
    "stacks": StackSpec,
    "kernels": KernelSetSpec,
    "terms": TermsSpec,
    "techniques": TechniqueSpec,
    "models": ModelSpec,
    "evidence": EvidenceSpec,
    "microbenchmarks": MicrobenchmarkSpec,
    "deployments": DeploymentSpec,
    "peers": PeerSpec,
}
#: what an entry of each is called
CALLED = {
    **{kind: f"a {kind.removesuffix('s')}" for kind in SPECS},
    "kernels": "a kernel set",
    "terms": "terms of service",
    "evidence": "a published row",
    "peers": "errors of another model",
    "models": "a model",
    "deployments": "a published deployment",
}
#: what a file may end in that is read for what it is
SUFFIXES = (".yaml", ".yml", ".json")
#: configs that a folder of a hub's model holds, the first that is there
CONFIGS = ("config.json", "params.json")


class What(StrEnum):
    """What a file is."""

    model = "a model"
    config = "the config of a model"
    run = "a run-spec"
    plan = "a plan file"


def is_config(data: Mapping[str, Any]) -> bool:
    """Return whether data is the config of a hub's model: it states its type or its layers, in no way of ours."""
    if isinstance(data.get("model_type"), str) or isinstance(data.get("architectures"), list):
        return True
    if any(key in data for key in ("attention", "title", "conditions")):
        return False
    return states_layers(data) or next(nests(data), None) is not None


def what_is(path: Path) -> What:
    """Return what a file is by its keys, however it is named.

    Raises ``UsageError`` where it cannot be read, ``DataError`` where it is neither YAML nor JSON.
    """
    if is_folder(path):
        return What.config
    data = Reader(path, recorded=unsourced).read()
    if is_config(data):
        return What.config
    as_run, as_model = (len(data.keys() & spec.model_fields.keys()) for spec in (RunSpec, ModelSpec))
    if path.suffix.lower() == ".json":  # what solve writes; a run-spec in JSON is told how to be named
        return What.model if as_model > max(as_run, 1) else What.plan
    return What.run if as_run >= as_model else What.model


def data_kind_of(data: Mapping[str, Any]) -> str | None:
    """Return the kind of data that has the most of the keys of a file for its own; None where none has two."""
    common = {"name", "title", "aliases", "sources", "source"}
    scores = {kind: len((data.keys() & spec.model_fields.keys()) - common) for kind, spec in SPECS.items()}
    best = max(scores, key=lambda kind: scores[kind])
    held = data.get("conditions")
    if best in ("evidence", "deployments") and isinstance(held, dict):  # of the same keys: of one pool, or of two
        return "deployments" if held.keys() & {"prefill", "decode"} else "evidence"
    return best if scores[best] > 1 or (scores[best] == 1 and "name" in data) else None


def kind_of(path: Path) -> What | str | None:
    """Return what any file of ours is: a config, a plan, a run-spec, or a kind of data; None where it is none.

    Raises ``UsageError`` where it cannot be read, ``DataError`` where it is neither YAML nor JSON.
    """
    if path.is_dir():
        return What.config
    data = Reader(path, recorded=unsourced).read()
    if is_config(data):
        return What.config
    if "predicted" in data or str(data.get("format")).startswith("moeplan.plan"):
        return What.plan
    if {"model", "on"} <= data.keys() or data.keys() & {"cards", "rate"} and {"model", "on"} & data.keys():
        return What.run
    return data_kind_of(data)


def named(word: str) -> What | None:
    """Return what the file is that a word names; None for a word that is a name, or may be."""
    path = Path(word)
    if word.lower().endswith(SUFFIXES):
        return what_is(path)
    return What.config if is_folder(path) else None


def config_in(path: Path) -> Path:
    """Return the config in a folder, a file as it is.  Raises ``UsageError`` for a folder without one."""
    if not is_folder(path):
        return path
    for name in CONFIGS:
        if is_there(path / name):
            return path / name
    raise UsageError(
        f"{printable(str(path))}: a folder without {' or '.join(CONFIGS)}; allowed: one that holds either; check "
        "the path"
    )
