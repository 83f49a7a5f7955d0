"""One file read: YAML, or JSON, to plain data, with the line of every key and every fault at once."""

import logging
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

import yaml

from perfmodel.errors import DataError, UsageError, did_you_mean
from perfmodel.specs.base import Figure, Spec
from perfmodel.specs.machine import StackSpec, TermsSpec

_LOG = logging.getLogger(__name__)
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FIGURE_KEYS = {"value", "source", "kind", "note", "range"}
_KINDS = ("datasheet", "measured", "derived", "assumed")


@lru_cache(maxsize=512)
def _opened(path: Path, *state: int) -> bytes:
    """Return what a file holds; ``state`` tells one version of it from another."""
    _LOG.debug("read %s", path)
    return path.read_bytes()


def content(path: Path) -> bytes:
    """Return what a file holds; as long as it does not change it is opened once.  Raises ``OSError``."""
    state = path.stat()
    return _opened(path, state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size)


def unsourced(_: tuple[Any, ...]) -> bool:
    """No number of a run-spec or a plan has a source: the user asks."""
    return False


def fault_in_words(fault: Any, spec_type: type[Spec]) -> str:
    """Return a pydantic fault in our words: found; allowed; fix."""
    found = fault.get("input")
    match fault["type"]:
        case "missing":
            return "is missing; required; add it"
        case "extra_forbidden":
            word = str(fault["loc"][-1])
            return f"unknown key{did_you_mean(word, [key for key in _keys(spec_type) if key != word])}"
        case "greater_than" | "greater_than_equal" | "less_than_equal":
            return f"found {found!r}; {fault['msg'].replace('Input should be', 'allowed:')}"
        case "literal_error":
            return f"found {found!r}; allowed: {fault['ctx']['expected']}"
        case _:
            text = fault["msg"].removeprefix("Value error, ").replace("Input should be", "allowed:")
            return text if repr(found) in text else f"found {found!r}; {text}"


def _keys(spec_type: Any, seen: frozenset[str] = frozenset()) -> list[str]:
    keys: list[str] = []
    for name, info in spec_type.model_fields.items():
        keys.append(info.alias or name)
        for inner in (info.annotation, *get_args(info.annotation)):  # what may be left out is a union with None
            if isinstance(inner, type) and issubclass(inner, Spec):
                keys += _keys(inner)
    return keys


class Reader:
    """One file: composes YAML nodes, unwraps figure records, gathers faults with their lines."""

    def __init__(self, path: Path, *, recorded: Callable[[tuple[Any, ...]], bool], text: bytes | None = None) -> None:
        self.path = path
        self.text = text
        self.recorded = recorded
        self.scalars = yaml.SafeLoader("")
        self.faults: list[tuple[int, str]] = []
        self.lines: dict[tuple[Any, ...], int] = {(): 1}
        self.records: dict[tuple[Any, ...], dict[str, Any]] = {}

    def read(self) -> dict[str, Any]:
        """Return the plain content of the file."""
        node = self._compose()
        data = self._plain(node, ())
        if not isinstance(data, dict):
            raise DataError(f"{self.path}:1: found {type(data).__name__}; allowed: a mapping of keys to values")
        return data

    def _compose(self) -> yaml.Node:
        try:
            text = (content(self.path) if self.text is None else self.text).decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}:1: binary or not UTF-8 at byte {error.start}; allowed: UTF-8 YAML") from None
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be read: {error.strerror}; check the path") from None
        try:
            for event in yaml.parse(text, Loader=LOADER) if "&" in text or "*" in text else ():
                if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                    raise DataError(
                        f"{self.path}:{_line_of(event.start_mark)}: anchors and aliases; allowed: plain values"
                    )
            node = yaml.compose(text, Loader=LOADER)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark else 1
            raise DataError(f"{self.path}:{line}: not YAML: {getattr(error, 'problem', None) or error}") from None
        if node is None:
            raise DataError(f"{self.path}:1: the file is empty; allowed: one mapping; copy a neighbour to begin")
        return node

    def _plain(self, node: yaml.Node, path: tuple[Any, ...]) -> Any:
        self.lines[path] = _line_of(node.start_mark)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(child, (*path, i)) for i, child in enumerate(node.value)]
        value = self.scalars.construct_object(node)
        bare = isinstance(value, (int, float)) and not isinstance(value, bool)
        if bare and self.recorded(path) and (len(path) < 2 or path[-1] not in _FIGURE_KEYS | {0, 1}):
            self.fault(
                path, f"bare number {value}; allowed: a record with its source; write {{value: {value}, source: KEY}}"
            )
        return value

    def _mapping(self, node: yaml.MappingNode, path: tuple[Any, ...]) -> Any:
        result: dict[Any, Any] = {}
        for key_node, child in node.value:
            key = key_node.value
            line = _line_of(key_node.start_mark)
            if key == "<<":
                self.faults.append((line, "merge keys; allowed: plain keys"))
                continue
            if key in result:
                self.faults.append((line, f"{_dotted((*path, key))}: duplicate key; allowed: once; remove one"))
                continue
            result[key] = self._plain(child, (*path, key))
            self.lines[(*path, key)] = line
        if self.recorded(path) and "value" in result:
            return self._figure(result, path)
        return result

    def _figure(self, record: dict[str, Any], path: tuple[Any, ...]) -> Any:
        for key in record.keys() - _FIGURE_KEYS:
            self.fault((*path, key), f"unknown key{did_you_mean(str(key), sorted(_FIGURE_KEYS))}")
        if "source" not in record:
            self.fault(path, "the record has no source; allowed: a key of 'sources'; add source: KEY")
        if record.get("kind", "datasheet") not in _KINDS:
            self.fault((*path, "kind"), f"found {record['kind']!r}; allowed: {', '.join(_KINDS)}")
        self.records[path] = record
        return record["value"]

    def fault(self, path: tuple[Any, ...], text: str) -> None:
        """Note a fault at a path of the file."""
        self.faults.append((self._line(path), f"{_dotted(path)}: {text}"))

    def fault_at(self, location: tuple[Any, ...], text: str) -> None:
        """Note a fault that validation found; union tags are not keys of the file."""
        path = tuple(p for i, p in enumerate(location) if not (i and p in ("mla", "gqa")))
        if not any(path == known[0] for known in self._bare_paths()):
            self.faults.append((self._line(path), f"{_dotted(path)}: {text}"))

    def _bare_paths(self) -> list[tuple[tuple[Any, ...]]]:
        return [
            (tuple(int(p) if p.isdigit() else p for p in text.split(": bare number")[0].split(".")),)
            for _, text in self.faults
            if ": bare number" in text
        ]

    def _line(self, path: tuple[Any, ...]) -> int:
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]

    def check_sources(self, sources: dict[str, Any], cited: set[str]) -> None:
        """Refuse figures whose source is unknown, and sources that nothing cites."""
        used = set(cited)
        for unknown in sorted(cited - sources.keys()):
            self.fault(("source",), f"unknown source {unknown!r}{did_you_mean(unknown, sorted(sources))}")
        for path, record in self.records.items():
            key = record.get("source")
            used.add(str(key))
            if key is not None and key not in sources:
                self.fault((*path, "source"), f"unknown source {key!r}{did_you_mean(str(key), sorted(sources))}")
        if self.recorded(()) or self.records:
            for key in sources.keys() - used:
                self.fault(("sources", key), "no number cites it; allowed: cited sources; remove it")

    def finish(self) -> None:
        """Raise all faults at once."""
        if self.faults:
            raise DataError("\n".join(f"{self.path}:{line}: {text}" for line, text in sorted(set(self.faults))))

    def figures_of(self, spec: Any) -> dict[str, Figure]:
        """Return provenance by dotted path, with the validated SI value."""
        figures = {}
        for path, record in self.records.items():
            value: Any = spec
            for part in path:
                value = value[part] if isinstance(value, (dict, tuple)) else getattr(value, part)
            low, high = self._range(path, record, spec, float(value))
            figures[_dotted(path)] = Figure(
                value=float(value),
                text=str(record["value"]),
                source=record["source"],
                kind=record.get("kind", "datasheet"),
                note=record.get("note"),
                low=low,
                high=high,
                file=str(self.path),
                line=self._line(path),
            )
        self.finish()
        return figures

    def _range(
        self, path: tuple[Any, ...], record: dict[str, Any], spec: Any, value: float
    ) -> tuple[float | None, float | None]:
        if "range" not in record:
            return None, None
        ends = record["range"]
        unit = _unit_at(spec, path)
        try:
            low, high = (unit.read(end) for end in ends)
        except (TypeError, ValueError) as error:
            self.fault((*path, "range"), f"{error}; allowed: [low, high]")
            return None, None
        if not low <= value <= high:
            self.fault((*path, "range"), f"found {ends}; allowed: a range that holds the value {record['value']}")
        return low, high


def _unit_at(spec: Any, path: tuple[Any, ...]) -> Any:
    from perfmodel.units import Unit

    owner = spec
    for part in path[:-1]:
        owner = owner[part] if isinstance(owner, (dict, tuple)) else getattr(owner, part)
    if isinstance(owner, dict):  # dotted keys of a machine's file that a technique sets
        return _unit_in({"stack": StackSpec, "terms": TermsSpec}[path[-2]], str(path[-1]))
    metadata = type(owner).model_fields[path[-1]].metadata
    return next((item for item in metadata if isinstance(item, Unit)), Unit("1"))


def _unit_in(spec: Any, path: str) -> Any:
    from perfmodel.units import Unit

    head, _, rest = path.partition(".")
    info = spec.model_fields[head]
    if rest:
        return _unit_in(info.annotation, rest)
    found = [item for item in (*info.metadata, *_metadata_of(info.annotation)) if isinstance(item, Unit)]
    return found[0] if found else Unit("1")


def _metadata_of(annotation: Any) -> list[Any]:
    """Return what is said of the types of an annotation, those of ``X | None`` included."""
    inner = [item for part in get_args(annotation) for item in _metadata_of(part)]
    return [*getattr(annotation, "__metadata__", ()), *inner]


def _line_of(mark: Any) -> int:
    return int(mark.line) + 1 if mark else 1


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(str(part) for part in path) or "file"
