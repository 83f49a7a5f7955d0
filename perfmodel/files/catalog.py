"""Names to records: what a data file of each kind holds, found by its name or path, read and checked."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from perfmodel.errors import DataError, MoeplanError, UsageError, did_you_mean
from perfmodel.files import magnitudes
from perfmodel.files.document import content
from perfmodel.files.folders import (
    FOLDERS,
    as_path,
    entries,
    file_name,
    from_here,
    is_folder,
    is_kept,
    is_near,
    is_on_file,
    is_own,
    is_path,
    is_there,
    names,
    of_roots,
)
from perfmodel.files.model_configs.read import read_config
from perfmodel.files.reader import Reader
from perfmodel.files.what import SPECS, config_in, is_config
from perfmodel.specs.base import Known
from perfmodel.specs.evidence import DeploymentSpec, EvidenceSpec, PeerSpec
from perfmodel.specs.kernels import KernelSetSpec
from perfmodel.specs.machine import ChipSpec, StackSpec, SystemSpec, TermsSpec
from perfmodel.specs.microbenchmark import MicrobenchmarkSpec
from perfmodel.specs.model import ModelSpec
from perfmodel.specs.technique import TechniqueSpec
from perfmodel.supply.techniques import Technique

#: names of files on file and of the user's own
NAME = re.compile(r"[A-Za-z0-9].{0,99}")
#: names that hubs give models: an owner and a name
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
#: published results of pools and of whole deployments, of which either may be named
RESULTS = "evidence or deployments"
#: requests of a trace or its summary, which no name on file stands for
WORKLOAD = "workload"
#: what a file names of another kind
REFERENCES: dict[str, dict[tuple[str, ...], str]] = {
    "systems": {("chip",): "chips", ("default_stack",): "stacks"},
    "stacks": {("kernels",): "kernels", ("terms",): "terms"},
    "kernels": {("chip",): "chips", ("carried_from",): "chips"},
    "evidence": {
        ("conditions", "system"): "systems",
        ("conditions", "model"): "models",
        ("conditions", "stack"): "stacks",
        ("conditions", "kernels"): "kernels",
    },
    "deployments": {
        ("conditions", "system"): "systems",
        ("conditions", "model"): "models",
        ("conditions", "stack"): "stacks",
        ("conditions", "kernels"): "kernels",
        ("conditions", "prefill_system"): "systems",
        ("conditions", "prefill_stack"): "stacks",
        ("conditions", "site"): RESULTS,
    },
    "runs": {
        ("model",): "models",
        ("on",): "systems",
        ("stack",): "stacks",
        ("kernels",): "kernels",
        ("prefill_on",): "systems",
        ("prefill_stack",): "stacks",
        ("site",): RESULTS,
        ("workload",): WORKLOAD,
    },
    "microbenchmarks": {
        ("system",): "systems",
        ("stack",): "stacks",
        ("kernels",): "kernels",
        ("model",): "models",
    },
}


@dataclass(frozen=True, slots=True)
class _Part:
    """What an entry is asked for by where it has no such name of its own: a kind of part, and the key that names it."""

    kind: str
    key: str


#: machines are known to their owners by the chip that a driver prints
_PARTS = {"systems": _Part("chips", "chip")}
#: below which keys of a kind every number is a record with its source; elsewhere the file cites for all
_RECORDED: dict[str, Callable[[tuple[Any, ...]], bool]] = {
    **dict.fromkeys(("models", "evidence", "microbenchmarks", "deployments", "peers"), lambda _: False),
    "techniques": lambda path: path[:1] == ("settings",) and path[2:3] in (("stack",), ("terms",)),
}


class AmbiguousError(UsageError):
    """A word that stands for an entry of the user's own and for another one."""


def load_chip(name: str) -> Known[ChipSpec]:
    """Return a chip."""
    return load("chips", name)


def load_system(name: str) -> Known[SystemSpec]:
    """Return a system; an ambiguous family name takes its default variant and says so."""
    return load("systems", name)


def load_stack(name: str) -> Known[StackSpec]:
    """Return a software stack."""
    return load("stacks", name)


def load_kernels(name: str) -> Known[KernelSetSpec]:
    """Return a kernel set."""
    return load("kernels", name)


def load_terms(name: str) -> Known[TermsSpec]:
    """Return terms of service."""
    return load("terms", name)


def load_model(name: str, max_context: int | None = None) -> Known[ModelSpec]:
    """Return a model; where ``max_context`` is given, that takes so many tokens of context at most."""
    known: Known[ModelSpec] = load("models", name)
    if max_context is None:
        return known
    return replace(known, spec=known.spec.model_copy(update={"max_position_embeddings": max_context}))


def load_evidence(name: str) -> Known[EvidenceSpec]:
    """Return a published result."""
    return load("evidence", name)


def load_microbenchmark(name: str) -> Known[MicrobenchmarkSpec]:
    """Return a set of measurements of operators or links alone."""
    return load("microbenchmarks", name)


def load_deployment(name: str) -> Known[DeploymentSpec]:
    """Return a published result of a whole deployment."""
    return load("deployments", name)


def load_peer(name: str) -> Known[PeerSpec]:
    """Return another model's errors on published results."""
    return load("peers", name)


def load_technique(name: str) -> Technique:
    """Return a technique and the kernel sets that its settings name."""
    known: Known[TechniqueSpec] = load("techniques", name)
    named = {word for setting in known.spec.settings.values() for word in setting.kernels.values()}
    return Technique(known=known, kernel_sets={word: load_kernels(word) for word in sorted(named)})


def load_techniques() -> dict[str, Technique]:
    """Return all techniques on file by name."""
    return {name: load_technique(name) for name in names("techniques")}


def naming(kind: str, words: Iterable[Collection[str]]) -> list[str]:
    """Return the names of a kind whose files have at least one of each of some words, before any is read as data.

    What names them otherwise than in words may be among them: whoever loads them looks.
    """
    texts = {name: content(path) for name, path in sorted(entries(kind).items())}
    wanted = [[word.encode() for word in each] for each in words]
    return [name for name, text in texts.items() if all(any(word in text for word in each) for each in wanted)]


@of_roots
@lru_cache(maxsize=256)
def load(kind: str, name: str) -> Known[Any]:
    """Return the entry of a kind by name, alias, family or path; a system by its chip as well.

    Case, blanks, underscores and hyphens of a name do not count.
    Raises ``UsageError`` where there is none, ``DataError`` with one line per fault where its file has some.
    """
    word = name.lower()
    if _is_path(kind, name):
        return load_path(kind, config_in(Path(name)) if kind == "models" else Path(name))
    if is_there(Path(name)) and not (kind == "models" and (is_folder(Path(name)) or word in hub_names())):
        raise UsageError(
            f"{kind.rstrip('s')}: {name!r} is no YAML file; allowed: a name on file, or a path ending in .yaml"
        )
    found = named(kind, name)
    part = _PARTS.get(kind)
    if found is None and part is not None and (held := named(part.kind, name)) is not None:
        found = _holding(kind, part, name, held)
    if found is None and kind == "models" and is_there(Path(name)):
        return load_path(kind, config_in(Path(name)))
    if found is None:
        raise UsageError(
            f"{kind.rstrip('s')}: {name!r} is not on file{did_you_mean(name, words_of(kind), names(kind))}"
        )
    return found


def named(kind: str, name: str) -> Known[Any] | None:
    """Return the entry of a kind on file by name, alias or family; none where it has no such word."""
    if (path := entries(kind).get(name.lower())) is not None:
        found: Known[Any] = load_path(kind, path)
        if is_own(path):
            _refuse_ambiguous(kind, name, found)
        return found
    if not (word := _bare(name)):
        return None
    called: list[Known[Any]] = []
    variants: list[Known[Any]] = []
    for known in _on_file(kind):
        if word == _bare(known.spec.name):
            return known
        if word in map(_bare, getattr(known.spec, "aliases", ())):
            called.append(known)
        elif word == _bare(getattr(known.spec, "family", None) or ""):
            variants.append(known)
    if len(called) == 1:
        return called[0]
    if any(is_own(Path(one.file)) for one in called):
        raise AmbiguousError(_ambiguous(kind, name, called))
    return _default_variant(name.strip(), called or variants) if called or variants else None


def _refuse_ambiguous(kind: str, name: str, own: Known[Any]) -> None:
    """Refuse the name of an entry of the user's own that another one has among its aliases."""
    word = _bare(name)
    others = [one for one in _on_file(kind) if word in map(_bare, getattr(one.spec, "aliases", ())) and one != own]
    if others:
        raise AmbiguousError(_ambiguous(kind, name, [own, *others]))


def _ambiguous(kind: str, name: str, found: Iterable[Known[Any]]) -> str:
    listed = ", ".join(f"{one.spec.name} ({one.file})" for one in found)
    return f"{kind.rstrip('s')}: {name!r} is ambiguous: {listed}; allowed: one of these names, or names of your own"


def _on_file(kind: str) -> list[Known[Any]]:
    return [load_path(kind, path) for _, path in sorted(entries(kind).items())]


def _bare(word: str) -> str:
    """Return what counts of a name: tools and people write the same one with other case, blanks and hyphens.

    >>> _bare("Ascend 910B4-1") == _bare("ascend910b4_1")
    True
    """
    return re.sub(r"[\s_-]+", "", word.lower())


def _holding(kind: str, part: _Part, name: str, held: Known[Any]) -> Known[Any]:
    """Return an entry that holds a part on file: the default of its family, else the first; a remark names the others.

    Raises ``UsageError`` where none holds it.
    """
    bins = [one for one in _on_file(part.kind) if _bare(one.spec.family or "") == _bare(name)]
    held = _default_variant(name.strip(), bins) if bins else held  # a bin may have the name of its family
    every = _on_file(kind)
    holding = [one for one in every if getattr(one.spec, part.key) == held.spec.name]
    one = kind.rstrip("s")
    if not holding:
        raise UsageError(
            f"{one}: {name!r} is the {part.key} {held.spec.name}, which no {one} on file holds; allowed: a {one} on "
            f"file, see 'moeplan list {kind}', or a {one}'s own .yaml that names this {part.key}"
        )
    taken = next((each for each in holding if getattr(each.spec, "family_default", False)), holding[0])
    others = ", ".join(each.spec.name for each in holding if each is not taken)
    told = f"{name.strip()} is the {part.key} {held.spec.name}: took the {one} {taken.spec.name}"
    rest = f"; others that hold it: {others}" if others else f"; no other {one} on file holds it"
    called = {each.spec.name for each in _on_file(part.kind) if _bare(name) in map(_bare, _called(each.spec))}
    bins_held = called - {held.spec.name}
    with_bins = [f"{each.spec.name} ({chip})" for each in every if (chip := getattr(each.spec, part.key)) in bins_held]
    more = f"; of its other bins: {', '.join(with_bins)}" if with_bins else ""
    return replace(taken, notes=(*held.notes, told + rest + more))


def _called(spec: Any) -> list[str]:
    """Return all words for an entry: its name, its aliases and its family."""
    family = getattr(spec, "family", None)
    return [spec.name, *getattr(spec, "aliases", ()), *([family] if family else [])]


def words_of(kind: str) -> list[str]:
    """Return all words that stand for an entry of a kind: names, aliases and families, and those of its part."""
    words = set(names(kind))
    for known in _on_file(kind):
        words |= set(_called(known.spec))
    if kind in _PARTS:
        words |= set(words_of(_PARTS[kind].kind))
    return sorted(words)


@of_roots
@lru_cache(maxsize=1)
def hub_names() -> frozenset[str]:
    """Return the names on file that hubs give models, an owner before a stroke, in lower case."""
    return frozenset(alias for one in _on_file("models") for alias in one.spec.aliases if "/" in alias)


def _is_path(kind: str, name: str) -> bool:
    """Return whether a name of a kind is the path of a file of the user's; a model's may be that of a config."""
    if kind == "models" and name.lower().endswith(".json"):
        return True
    if kind == "models" and _HUB.fullmatch(name) and not is_path(name.replace("/", "")):
        return name.lower() not in hub_names() and is_there(Path(name))
    return is_path(name)


def _default_variant(word: str, variants: list[Known[Any]]) -> Known[Any]:
    taken = next((v for v in variants if v.spec.family_default), variants[0])
    listed = ", ".join(v.spec.name for v in variants)
    return replace(taken, notes=(f"{word} is ambiguous: {listed}; took {taken.spec.name}",))


@of_roots
@lru_cache(maxsize=256)
def load_path(kind: str, path: Path) -> Known[Any]:
    """Return the spec in a file, or raise ``DataError`` with one line per fault.

    Remarks on numbers of a file of the user's that lie far beyond those on file.
    """
    reader, data, known = _checked(kind, path)
    if not is_on_file(kind, path) or is_own(path):
        magnitudes.remark_on(reader, data, known.spec, held_on_file(kind))
    return known


def check_path(kind: str, path: Path) -> None:
    """Raise ``DataError`` with one line per fault where ``load_path`` does."""
    _checked(kind, path)


@of_roots
@lru_cache(maxsize=len(FOLDERS))
def held_on_file(kind: str) -> dict[str, magnitudes.Held]:
    """Return what the files of a kind on file hold for each key; a file with faults holds nothing."""
    files = []
    for path in entries(kind).values():
        with suppress(MoeplanError):
            if not is_own(path):
                files.append(_checked(kind, path)[2])
    return magnitudes.held(files)


def held_by_deployments(where: Mapping[str, str]) -> dict[str, magnitudes.Held]:
    """Return what deployments on file hold, by the keys of files of which none is on file.

    ``where`` leads from what begins a key of a deployment to what begins that key there.
    """
    found: dict[str, magnitudes.Held] = {}
    for key, one in held_on_file("deployments").items():
        for old, new in where.items():
            if key.startswith(old):
                there = new + key.removeprefix(old).removesuffix(".value")
                found[there] = found[there].joined(one) if there in found else one
    return found


def _checked(kind: str, path: Path) -> tuple[Reader, dict[str, Any], Known[Any]]:
    reader = Reader(path, recorded=_RECORDED.get(kind, lambda _: True))
    data = reader.read()
    if kind == "models" and not is_on_file(kind, path) and is_config(data):
        return reader, data, read_config(reader, data)
    spec_type = SPECS[kind]
    spec: Any = None
    try:
        spec = spec_type.model_validate(data)
    except ValidationError as error:
        reader.refused(error, spec_type)
    if spec is not None:
        spec = renamed(kind, spec, lambda name: from_here(name, path))
        reader.check_sources(spec.sources, cited=_cited(spec))
        # tests hold those on file, and lists need no count of them
        for key, fault in _totals_missed(spec) if kind == "models" and not is_on_file(kind, path) else ():
            reader.fault(("checks", key), fault)
        check_references(reader, kind, spec)
        if not NAME.fullmatch(spec.name):
            reader.fault(
                ("name",),
                "begins with another sign, or is too long; allowed: a letter or digit first, a hundred signs at most",
            )
    reader.finish()
    if is_on_file(kind, path) and spec.name != path.stem:
        raise DataError(f"{path}:1: name: {spec.name!r}; allowed: the file's name {path.stem!r}")
    known = Known(spec=spec, figures=reader.figures_of(spec), word=_word(path, spec.name), file=file_name(path))
    return reader, data, known


def _totals_missed(model: ModelSpec) -> Iterator[tuple[str, str]]:
    """Yield the key of each total that a model's file states and its layers miss, with what they have.

    A total printed with two digits is as good as they are: ``within`` says so, and three in a hundred at least.
    """
    from perfmodel.ledger.parameters import LEAST_WITHIN, cache_bytes_per_token, parameters_of

    if model.checks is None:
        return
    counted: dict[str, tuple[float | None, float]] = {
        "parameters": (model.checks.parameters, parameters_of(model).total),
        "kv_bytes_per_token_bf16": (model.checks.kv_bytes_per_token_bf16, cache_bytes_per_token(model)),
    }
    for key, (stated, found) in counted.items():
        if stated is not None and abs(found - stated) > max(model.checks.within, LEAST_WITHIN) * abs(stated):
            yield (
                key,
                (
                    f"{stated:.5g}; the layers of this file have {found:.5g}; allowed: within "
                    f"{max(model.checks.within, LEAST_WITHIN):.0%}; correct a size, or leave the total out"
                ),
            )


def renamed(kind: str, spec: Any, change: Callable[[str], str]) -> Any:
    """Return a spec with every name of another file changed: into a path from here when read, and back when written."""
    for where, named in REFERENCES.get(kind, {}).items():
        spec = _renamed_at(spec, where, _of_models(change) if named == "models" else change)
    return spec


def _of_models(change: Callable[[str], str]) -> Callable[[str], str]:
    """Return how the name of a model changes: a hub's name on file does not, a config is a path."""

    def changed(name: str) -> str:
        if not _is_path("models", name):
            return name
        return change(name if is_path(name) else as_path(Path(name)))

    return changed


def _renamed_at(spec: Any, where: tuple[str, ...], change: Callable[[str], str]) -> Any:
    key, *below = where
    held = getattr(spec, key)
    if below:
        named = _renamed_at(held, tuple(below), change)
    elif isinstance(held, tuple):
        named = tuple(map(change, held))
    else:
        named = None if held is None else change(held)
    return spec if named == held else spec.model_copy(update={key: named})


def check_references(reader: Reader, kind: str, spec: Any, below: tuple[str, ...] = ()) -> None:
    """Note each name of another file that is not on file; the names stand ``below`` a key of the spec.

    Paths are from the current directory: ``renamed`` comes first.
    """
    for where, named in REFERENCES.get(kind, {}).items():
        word = spec
        for part in (*below, *where):
            word = getattr(word, part)
        for one in word if isinstance(word, tuple) else (word,) if word is not None else ():
            a_path = _is_path(named, one)
            if (kind != "runs" or below) and a_path and not is_near(Path(one), reader.path):
                reader.fault((*below, *where), f"{one!r}; allowed: names on file, and files in the folder of this one")
                continue
            if a_path and not is_there(Path(one)):
                reader.fault(
                    (*below, *where),
                    f"there is no file {Path(one).absolute()}; allowed: names on file, and paths from the folder of "
                    "this file; check the path",
                )
                continue
            try:
                _find(named, one)
            except UsageError as error:
                reader.fault((*below, *where), str(error))


def _find(kind: str, name: str) -> None:
    """Raise ``UsageError`` where a name is not on file, ``DataError`` where its file has faults."""
    if kind == WORKLOAD:  # read where it is asked for: it may be large
        return
    if kind != RESULTS:
        load(kind, name)
        return
    from perfmodel.files.results import find  # which looks names up here

    find(name, ("evidence", "deployments"))


def _word(path: Path, name: str) -> str:
    """Return what finds a file again: its name where it is on file, else its path as given."""
    return name if is_kept(path) else as_path(path)


def _cited(spec: Any) -> set[str]:
    """Return the sources that a file of plain numbers cites by key."""
    one = getattr(spec, "source", None)
    several = (*getattr(spec, "acceptance", ()), *getattr(spec, "techniques", ()), *getattr(spec, "gains", ()))
    rule = getattr(getattr(spec, "applies", None), "source", None)
    words = getattr(spec, "named_by", None)
    return {key for key in (one, rule, words, *(table.source for table in several)) if key}
