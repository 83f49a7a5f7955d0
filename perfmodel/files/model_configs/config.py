"""Keys of one config: which spelling states a concept, where its line is, which keys nothing asked for."""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import yaml

from perfmodel.errors import printable
from perfmodel.files.document import LOADER, Place, shown
from perfmodel.files.reader import Reader
from perfmodel.specs.base import MOST

LONGEST_WORD = 60  # letters of a key or a word of a config in notes
MOST_LAYERS = 10_000  # of a model: its lists have an item for each
MOST_DRAFTS = 16  # items that lists of layers may have beyond the last layer: draft layers
HOW = "state the model in a YAML file of ours, see models/README.md"


@lru_cache(maxsize=8)
def table(name: str) -> Any:
    """Return a table of this package: keys, or types."""
    text = (Path(__file__).resolve().parent / f"{name}.yaml").read_text(encoding="utf-8")
    return yaml.load(text, Loader=LOADER)


def keys(part: str) -> Any:
    """Return a part of the table of keys."""
    return table("keys")[part]


@lru_cache(maxsize=1)
def types() -> dict[str, dict[str, Any]]:
    """Return what each model_type and architecture means, by its name in lower case."""
    found: dict[str, dict[str, Any]] = {}
    for entry in table("types"):
        for word in (*entry["types"], *entry.get("architectures", ())):
            found[word.lower()] = entry
    return found


def nests(data: Mapping[str, Any]) -> Iterator[Place]:
    """Yield the places below the root where the dims of a text model may sit."""
    for nest in keys("nests"):
        held: Any = data
        place = tuple(nest.split("."))
        for part in place:
            held = held.get(part) if isinstance(held, dict) else None
        if isinstance(held, dict) and states_layers(held):
            yield place


def states_layers(held: Mapping[str, Any]) -> bool:
    """Return whether a mapping has the first two dims of a text model."""
    return all(any(key in held for key in keys("spellings")[concept]) for concept in ("layers", "width"))


def at(data: Any, place: Place) -> Any:
    """Return what a document holds at a place."""
    for part in place:
        data = data[part]
    return data


def _words(held: Mapping[str, Any]) -> list[str]:
    """Return the model_type and the architectures that a mapping states."""
    listed = held.get("architectures")
    words = [held.get("model_type"), *(listed if isinstance(listed, list) else [])]
    return [word for word in words if isinstance(word, str) and word]


class Config:
    """One config as it is asked for concept by concept; faults go to its reader."""

    def __init__(self, reader: Reader, data: Mapping[str, Any]) -> None:
        self.reader = reader
        self.root = data
        self.where: Place = next(nests(data), ())
        self.held: dict[str, Any] = {}
        self.places: dict[str, Place] = {}
        self.asked: set[str] = set()
        self.wrong: set[str] = set()
        #: spelling that stated each concept that was found, and concepts that were taken to be something
        self.stated: dict[str, str] = {}
        self.taken: dict[str, str] = {}
        self._take(at(data, self.where), self.where)
        if self.where:
            self._take({key: data[key] for key in keys("root_keys") if key in data and key not in self.held}, ())
        words = [*_words(at(data, self.where)), *_words(data)]
        self.type_word = next(iter(words), None)
        self.known_as = next((word for word in words if word.lower() in types()), None)
        self.means: Mapping[str, Any] = types()[self.known_as.lower()] if self.known_as else {}
        self.absent: Mapping[str, Any] = self.means.get("absent", {})

    def _take(self, held: Mapping[str, Any], place: Place) -> None:
        for key, value in held.items():
            key = str(key)
            if key in keys("sections") and isinstance(value, dict):
                for inner, one in value.items():
                    self.held[f"{key}.{inner}"] = one
                    self.places[f"{key}.{inner}"] = (*place, key, inner)
            else:
                self.held[key] = value
                self.places[key] = (*place, key)

    # --- keys ---------------------------------------------------------------------------------

    def spellings(self, concept: str) -> list[str]:
        """Return the keys that may state a concept in this type of model."""
        own = self.means.get("spell", {}).get(concept)
        return cast("list[str]", keys("spellings")[concept] if own is None else own)

    def find(self, concept: str) -> tuple[str, Any] | None:
        """Return the key that states a concept and its value; nothing where none does, or none but with null."""
        here = [key for key in self.spellings(concept) if key in self.held]
        self.asked.update(here)
        stated = [(key, self.held[key]) for key in here if self.held[key] is not None]
        if not stated:
            absent = [key for key in self.spellings(concept) if key in self.absent and key not in here]
            if not absent:
                return None
            self.taken[concept] = f"{absent[0]} {self.absent[absent[0]]} (the type's, the file has none)"
            return absent[0], self.absent[absent[0]]
        (key, value), *others = stated
        for other, found in others:
            if found != value and concept not in keys("first_counts"):
                self.fault(
                    other,
                    f"found {shown(str(found))}, but {key} is {shown(str(value))}; allowed: one value, as both mean "
                    "the same; remove either",
                )
        self.stated[concept] = key
        return key, value

    def has(self, concept: str) -> bool:
        """Return whether a concept is stated."""
        return self.find(concept) is not None

    @property
    def sound(self) -> bool:
        """Whether nothing was wrong so far: what keys say together is held against each other then alone."""
        return not self.reader.faults

    def key_of(self, *concepts: str) -> str:
        """Return the key that states the first of some concepts that is stated, the first's own where none is."""
        return next((self.stated[one] for one in concepts if one in self.stated), keys("spellings")[concepts[0]][0])

    def place(self, key: str) -> Place:
        """Return where a key stands, or would."""
        return self.places.get(key, (*self.where, *key.split(".")))

    def fault(self, key: str, text: str) -> None:
        """Note a fault at a key, the first of each."""
        if key in self.wrong:
            return
        self.wrong.add(key)
        self.reader.fault(self.place(key), text)

    def missing(self, concept: str, why: str = "") -> None:
        """Note that a concept is not stated, with all its spellings."""
        key, *others = self.spellings(concept) or keys("spellings")[concept]
        also = f", also spelled {', '.join(others)}" if others else ""
        self.fault(key, f"is missing{also}; required{why}; add it, or {HOW}")

    # --- values -------------------------------------------------------------------------------

    def count(self, concept: str, *, least: int = 1, most: int = MOST) -> int | None:
        """Return the whole number that a concept is stated as, None where it is not or is another thing."""
        found = self.find(concept)
        return None if found is None else self.whole(*found, least=least, most=most)

    def whole(self, key: str, value: Any, *, least: int = 1, most: int = MOST) -> int | None:
        """Return a value that has to be a whole number; what is none is a fault."""
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        self.fault(key, f"found {shown(str(value))}; allowed: whole numbers from {least} to {most}; correct it")
        return None

    def needed(self, concept: str, why: str = "", *, most: int = MOST) -> int:
        """Return the whole number that a concept is stated as; where it is not, a fault and 1 in its place."""
        if not self.has(concept):
            self.missing(concept, why)
            return 1
        return self.count(concept, most=most) or 1

    def flag(self, concept: str) -> bool | None:
        """Return the truth that a concept is stated as, None where it is not; what is none is a fault."""
        found = self.find(concept)
        if found is None:
            return None
        key, value = found
        if not isinstance(value, bool):
            self.fault(key, f"found {shown(str(value))}; allowed: true, false; write either")
            return None
        return value

    def listed(self, concept: str, layers: int, allowed: Mapping[Any, Any]) -> list[Any] | None:
        """Return an item for each layer, as a mapping says of what the file lists; draft layers may follow."""
        found = self.find(concept)
        if found is None:
            return None
        key, value = found
        if not isinstance(value, list):
            self.fault(key, f"found {shown(str(value))}; allowed: a list with an item for each layer; write one")
            return None
        if not layers <= len(value) <= layers + MOST_DRAFTS:
            self.fault(
                key,
                f"found {len(value)} items; allowed: one for each of {layers} layers, and up to {MOST_DRAFTS} more for "
                "draft layers; correct it, or the number of layers",
            )
            return None
        items = []
        for number, item in enumerate(value[:layers]):
            if isinstance(item, (dict, list)) or item not in allowed:
                self.reader.fault(
                    (*self.place(key), number),
                    f"found {shown(str(item))}; allowed: {', '.join(map(str, allowed))}; or {HOW}",
                )
                return None
            items.append(allowed[item])
        return items

    def past(self, concept: str, layers: int) -> Any:
        """Return the first item of a list that comes after those of all layers; None where there is none."""
        found = self.find(concept)
        return found[1][layers] if found is not None and isinstance(found[1], list) and len(found[1]) > layers else None

    def numbers(self, concept: str) -> list[Any] | None:
        """Return the numbers of layers that are listed, those of draft layers among them; None where none are."""
        found = self.find(concept)
        value = found and (_numbers(found[1]) if isinstance(found[1], str) else found[1])
        return value if isinstance(value, list) else None

    def ids(self, concept: str, layers: int, *, first: int = 0) -> list[int] | None:
        """Return a list of numbers of layers, counted from ``first``; None where there is none, or not such a one."""
        found = self.find(concept)
        if found is None:
            return None
        key, value = found
        last = layers - 1 + first
        text = f"allowed: a list of layers from {first} to {last}, each once; correct it"
        if isinstance(value, str):
            value = _numbers(value)
        if not isinstance(value, list):
            self.fault(key, f"found {shown(str(self.held.get(key)))}; {text}")
            return None
        seen: set[int] = set()
        for number, item in enumerate(value):
            if not isinstance(item, int) or isinstance(item, bool) or not first <= item <= last or item in seen:
                if isinstance(item, int) and not isinstance(item, bool) and last < item <= last + MOST_DRAFTS:
                    continue  # a draft layer
                self.reader.fault((*self.place(key), number), f"found {shown(str(item))}; {text}")
                return None
            seen.add(item)
        return sorted(item - first for item in seen)

    def unused(self) -> list[str]:
        """Return the keys that state something and that nothing asked for, those that change no cost left out."""
        off: Sequence[Any] = (None, False, 0, "", [], {})
        left = []
        spelled = {key for spelled in keys("spellings").values() for key in spelled}
        for key, value in self.held.items():
            if key in self.asked or key in keys("passive") or any(value == one for one in off):
                continue
            if key not in spelled and (is_like(key, keys("harmless")) or not self.is_text(key, value)):
                continue
            left.append(key)
        return left

    def is_text(self, key: str, value: Any) -> bool:
        """Return whether a key is one of the text model: not a section of another part, such as of pictures."""
        return not (isinstance(value, dict) and self.is_part(key))

    def is_part(self, key: str) -> bool:
        """Return whether a key is a section of another part of the model."""
        return key.endswith("_config") and not is_like(key, keys("structural"))


def cut(text: str) -> str:
    """Return a text of a stranger's as notes tell it, on one line and not long."""
    return printable(text if len(text) <= LONGEST_WORD else f"{text[:LONGEST_WORD]}...")


def is_like(key: str, patterns: Sequence[str]) -> bool:
    """Return whether a key is like one of some patterns."""
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def _numbers(text: str) -> Any:
    """Return the numbers that a text lists, like '4,5,6' or '4..59'; the text where it lists none.

    >>> _numbers("3, 5..7")
    [3, 5, 6, 7]
    """
    found: list[int] = []
    for part in text.split(","):
        first, dots, last = (word.strip() for word in part.partition(".."))
        if not first.isdecimal() or len(first) > 5 or (dots and (not last.isdecimal() or len(last) > 5)):  # noqa: PLR2004
            return text
        found += range(int(first), int(last) + 1) if dots else [int(first)]
        if len(found) > MOST_LAYERS:
            return text
    return found
