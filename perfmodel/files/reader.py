"""One data file read: every number with its source, every fault with its line, all at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from annotated_types import Ge, Gt, Le
from pydantic import ValidationError

from perfmodel.errors import DataError, did_you_mean, printable, short
from perfmodel.files import document
from perfmodel.files.document import Place, content, dotted, shown
from perfmodel.specs.base import MOST, Figure, Spec, said
from perfmodel.specs.machine import StackSpec, TermsSpec
from perfmodel.units import Unit

_FIGURE_KEYS = {"value", "source", "also", "kind", "note", "range"}
_KINDS = ("datasheet", "measured", "derived", "assumed")
MOST_SHOWN = 20  # faults of a file in words


def unsourced(_: Place) -> bool:
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
        case "int_parsing_size":
            return f"found {found!r}; allowed: whole numbers up to {MOST}"
        case "literal_error":
            return f"found {found!r}; allowed: {fault['ctx']['expected']}"
        case _:
            text = said(fault)
            return text if repr(found) in text else f"found {found!r}; {text}"


def _keys(spec_type: Any) -> list[str]:
    keys: list[str] = []
    for name, info in spec_type.model_fields.items():
        keys.append(info.alias or name)
        for inner in (info.annotation, *get_args(info.annotation)):  # what may be left out is a union with None
            if isinstance(inner, type) and issubclass(inner, Spec):
                keys += _keys(inner)
    return keys


class Reader:
    """One file of records: unwraps numbers that stand with their source, gathers faults with their lines."""

    def __init__(self, path: Path, *, recorded: Callable[[Place], bool], text: bytes | None = None) -> None:
        self.path = path
        self.text = text
        self.recorded = recorded
        self.faults: list[tuple[int, str]] = []
        self.untold = 0  # faults that are counted and not put in words
        self.bare: set[Place] = set()
        self.lines: dict[Place, int] = {(): 1}
        self.records: dict[Place, dict[str, Any]] = {}

    def read(self) -> dict[str, Any]:
        """Return the plain content of the file; faults in values are noted."""
        found = document.read(self.path, content(self.path) if self.text is None else self.text)
        self.lines = found.lines
        self.faults += found.faults
        return {key: self._plain(value, (key,)) for key, value in found.data.items()}

    def _plain(self, value: Any, path: Place) -> Any:
        if isinstance(value, list):
            return [self._plain(child, (*path, i)) for i, child in enumerate(value)]
        if isinstance(value, dict):
            if self.recorded(path) and "value" in value:
                return self._figure(value, path) if self._is_flat(value, path) else None
            return {key: self._plain(child, (*path, key)) for key, child in value.items()}
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and self.recorded(path) and (len(path) < 2 or path[-1] not in _FIGURE_KEYS | {0, 1}):
            self.bare.add(path)
            self.fault(
                path, f"bare number {value}; allowed: a record with its source; write {{value: {value}, source: KEY}}"
            )
        return value

    def _is_flat(self, record: dict[str, Any], path: Place) -> bool:
        """Return whether a record holds plain values alone, beside the two ends of its range; else note the faults."""
        inner = [
            key
            for key, child in record.items()
            if isinstance(child, dict) or (isinstance(child, list) and key != "range")
        ]
        for key in inner:
            self.fault((*path, key), "a record or list in a record; allowed: one value")
        if record["value"] is None:
            self.fault((*path, "value"), "found nothing; allowed: one value; write it, or leave the record out")
            return False
        return not inner

    def _figure(self, record: dict[str, Any], path: Place) -> Any:
        for key in record.keys() - _FIGURE_KEYS:
            self.fault((*path, key), f"unknown key{self._near(str(key), sorted(_FIGURE_KEYS))}")
        if record.get("source") is None:
            self.fault(path, "the record has no source; allowed: a key of 'sources'; add source: KEY")
        for key in ("source", "also", "note"):
            if record.get(key) is not None and not isinstance(record[key], str):
                self.fault((*path, key), f"found {shown(str(record[key]))}; allowed: text; quote it")
                record = {**record, key: None}
        if record.get("kind", "datasheet") not in _KINDS:
            self.fault((*path, "kind"), f"found {record['kind']!r}; allowed: {', '.join(_KINDS)}")
        self.records[path] = record
        return record["value"]

    def _near(self, word: str, known: list[str]) -> str:
        """Return what a word may have meant; beyond the faults that are shown nothing is matched."""
        return did_you_mean(word, known) if len(self.faults) < MOST_SHOWN else ""

    def fault(self, path: Place, text: str) -> None:
        """Note a fault at a path of the file."""
        self.faults.append((self.line(path), f"{dotted(path)}: {text}"))

    def refused(self, error: ValidationError, spec_type: type[Spec]) -> None:
        """Note what validation found, the first in words and the rest by number; union tags are no keys of the file."""
        found = []
        for fault in error.errors(include_url=False):
            path = tuple(p for i, p in enumerate(fault["loc"]) if not (i and p in ("mla", "gqa")))
            if path not in self.bare:
                found.append((self.line(path), path, fault))
        found.sort(key=lambda one: one[0])
        for line, path, fault in found[:MOST_SHOWN]:
            self.faults.append((line, f"{dotted(path)}: {fault_in_words(fault, spec_type)}"))
        self.untold += max(0, len(found) - MOST_SHOWN)

    def line(self, path: Place) -> int:
        """Return the line of a path of the file, or of the nearest key above it."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]

    def check_sources(self, sources: dict[str, Any], cited: set[str]) -> None:
        """Refuse figures whose source is unknown, and sources that nothing cites."""
        used = set(cited)
        for unknown in sorted(cited - sources.keys()):
            self.fault(("source",), f"unknown source {unknown!r}{self._near(unknown, sorted(sources))}")
        for path, record in self.records.items():
            for at in ("source", "also"):
                key = record.get(at)
                used.add(str(key))
                if key is not None and key not in sources:
                    self.fault((*path, at), f"unknown source {key!r}{self._near(str(key), sorted(sources))}")
        if self.recorded(()) or self.records:
            for key in sources.keys() - used:
                self.fault(("sources", key), "no number cites it; allowed: cited sources; remove it")

    def finish(self) -> None:
        """Raise the faults at once, the first of them in words."""
        if not self.faults:
            return
        told = sorted(set(self.faults))
        lines = [short(printable(f"{self.path}:{line}: {text}")) for line, text in told[:MOST_SHOWN]]
        more = len(told) - len(lines) + self.untold
        raise DataError(
            "\n".join([*lines, *([f"{self.path}: and {more} more faults; mend these first"] if more else [])])
        )

    def figures_of(self, spec: Any) -> dict[str, Figure]:
        """Return provenance by dotted path, with the validated SI value."""
        figures = {}
        for path, record in self.records.items():
            value: Any = spec
            for part in path:
                value = value[part] if isinstance(value, (dict, tuple)) else getattr(value, part)
            if not isinstance(value, (int, float)):
                self.fault(path, f"found {value!r} with a source; allowed: plain text; write it without a record")
                continue
            low, high = self._range(path, record, spec, float(value))
            figures[dotted(path)] = Figure(
                value=float(value),
                text=str(record["value"]),
                source=record["source"],
                kind=record.get("kind", "datasheet"),
                note=record.get("note"),
                also=record.get("also"),
                low=low,
                high=high,
                file=str(self.path),
                line=self.line(path),
            )
        self.finish()
        return figures

    def _range(self, path: Place, record: dict[str, Any], spec: Any, value: float) -> tuple[float | None, float | None]:
        if "range" not in record:
            return None, None
        ends = record["range"]
        allowed = _said_at(spec, path)
        unit = next((item for item in allowed if isinstance(item, Unit)), Unit("1"))
        try:
            low, high = (unit.read(end) for end in ends)
        except (TypeError, ValueError) as error:
            self.fault((*path, "range"), f"{error}; allowed: [low, high]")
            return None, None
        if not low <= value <= high:
            self.fault((*path, "range"), f"found {ends}; allowed: a range that holds the value {record['value']}")
        for item in allowed:
            if isinstance(item, Gt) and not low > float(str(item.gt)):
                self.fault((*path, "range"), f"found {ends}; allowed: ends above {item.gt}, as of the value itself")
            if isinstance(item, Ge) and not low >= float(str(item.ge)):
                self.fault((*path, "range"), f"found {ends}; allowed: ends from {item.ge} up, as of the value itself")
            if isinstance(item, Le) and not high <= float(str(item.le)):
                self.fault((*path, "range"), f"found {ends}; allowed: ends up to {item.le}, as of the value itself")
        return low, high


def _said_at(spec: Any, path: Place) -> list[Any]:
    """Return what is said of the type of a number: its unit and its bounds."""
    owner = spec
    for part in path[:-1]:
        owner = owner[part] if isinstance(owner, (dict, tuple)) else getattr(owner, part)
    if isinstance(owner, dict):  # dotted keys of a machine's file that a technique sets
        return _said_in({"stack": StackSpec, "terms": TermsSpec}[path[-2]], str(path[-1]))
    info = type(owner).model_fields[path[-1]]
    return [*info.metadata, *metadata_of(info.annotation)]


def _said_in(spec: Any, path: str) -> list[Any]:
    head, _, rest = path.partition(".")
    info = spec.model_fields[head]
    if rest:
        return _said_in(info.annotation, rest)
    return [*info.metadata, *metadata_of(info.annotation)]


def metadata_of(annotation: Any) -> list[Any]:
    """Return what is said of the types of an annotation, those of ``X | None`` included."""
    inner = [item for part in get_args(annotation) for item in metadata_of(part)]
    return [*getattr(annotation, "__metadata__", ()), *inner]
