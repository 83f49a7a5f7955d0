"""One text of YAML or JSON as plain data: a closed language, with the line of every key.

Mappings with plain keys, lists, text, numbers, truth and nothing; no tags, anchors, merge keys, dates or second
document; at most ``LARGEST`` bytes, ``DEEPEST`` levels and numbers that floats hold.  A text is gone through once,
without recursion.
"""

import logging
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from perfmodel.errors import UNPRINTABLE, DataError, UsageError, printable

_LOG = logging.getLogger(__name__)
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
LARGEST = 1_000_000  # bytes
DEEPEST = 64
LARGEST_WHOLE = 2**53  # floats hold every whole number up to it
_STANDARD = "tag:yaml.org,2002:"
_SCALARS = {_STANDARD + name: name for name in ("str", "int", "float", "bool", "null")}
#: words that YAML reads as something else, and what they are called
_OTHERS = {"timestamp": "a date", "merge": "a merge key", "value": "a lone ="}

#: keys and numbers of items that lead to a value
Place = tuple[Any, ...]


@lru_cache(maxsize=512)
def _opened(path: Path, *state: int) -> bytes:
    """Return what a file holds; ``state`` tells one version of it from another."""
    _LOG.debug("read %s", path)
    with path.open("rb") as file:
        return file.read(LARGEST + 1)


@contextmanager
def readable(path: Path) -> Iterator[os.stat_result]:
    """Yield the state of a regular file that is to be read; a device or a pipe has no end.

    Raises ``UsageError`` where it is none, and where what is done inside cannot be.
    """
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            found = "Is a directory" if stat.S_ISDIR(state.st_mode) else "no regular file"
            raise UsageError(f"{printable(str(path))}: cannot be read: {found}; allowed: a file; check the path")
        yield state
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        why = getattr(error, "strerror", error)
        raise UsageError(f"{printable(str(path))}: cannot be read: {why}; check the path") from None


def content(path: Path) -> bytes:
    """Return what a file holds, at most ``LARGEST`` bytes and one; as long as it does not change it is opened once.

    Raises ``UsageError`` where it cannot be read, or is no regular file.
    """
    with readable(path) as state:
        return _opened(path, state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size)


def standard_input() -> bytes:
    """Return what stands in stdin, at most ``LARGEST`` bytes and one."""
    return sys.stdin.buffer.read(LARGEST + 1)


@dataclass(slots=True)
class Document:
    """Plain data, the line of every key and item by its path, and what is wrong with values and keys."""

    data: dict[str, Any]
    lines: dict[Place, int]
    faults: list[tuple[int, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Open:
    """A mapping or list that is not at its end."""

    path: Place
    items: Any
    #: key whose value comes next, and whether that value is left out
    key: Any = None
    keyed: bool = False
    dropped: bool = False


def read(path: Path, text: bytes) -> Document:
    """Return the document in a text; ``path`` is what faults call it.  Raises ``DataError`` where it is none."""
    path = Path(printable(str(path)))
    if len(text) > LARGEST:
        raise DataError(f"{path}:1: larger than {LARGEST / 1e6:g} MB; allowed: up to that; split it")
    try:
        letters = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}:1: binary or not UTF-8 at byte {error.start}; allowed: UTF-8 {_form(path)}") from None
    builder = _Builder(path)
    try:
        for event in yaml.parse(letters, Loader=LOADER):
            builder.take(event)
    except yaml.reader.ReaderError as error:  # a sign that YAML has none of, such as a control character
        sign = chr(error.character)  # its position counts letters or bytes
        line = letters.count("\n", 0, max(letters.find(sign), 0)) + 1
        raise DataError(f"{path}:{line}: not {_form(path)}: found the sign {sign!r}; allowed: printable text") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise DataError(f"{path}:{line}: not {_form(path)}: {getattr(error, 'problem', None) or error}") from None
    return builder.document()


def _form(path: Path) -> str:
    """Return what a file is to be by its name; JSON is read as the YAML that it is."""
    return "JSON" if path.suffix.lower() == ".json" else "YAML"


class _Builder:
    """Data as it grows, event by event."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.open: list[_Open] = []
        self.lines: dict[Place, int] = {(): 1}
        self.faults: list[tuple[int, str]] = []
        self.documents = 0
        self.root: Any = None
        self.begun = False
        self.skipped = 0  # depth inside a key or value that is left out
        self.skips_key = False
        self.scalars = yaml.SafeLoader("")
        self.resolve: Callable[..., str] = self.scalars.resolve

    def document(self) -> Document:
        """Return what was read."""
        if not self.begun:
            raise DataError(f"{self.path}:1: the file is empty; allowed: one mapping; copy a neighbour to begin")
        if not isinstance(self.root, dict):
            raise DataError(f"{self.path}:1: found {type(self.root).__name__}; allowed: a mapping of keys to values")
        return Document(self.root, self.lines, self.faults)

    def take(self, event: Any) -> None:
        """Take in one event of the parser."""
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise DataError(f"{self.path}:{line}: anchors and aliases; allowed: plain values")
        if isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                raise DataError(f"{self.path}:{line}: not {_form(self.path)}: but found another document")
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            self.start(event, line)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            self.end()
        elif isinstance(event, yaml.ScalarEvent):
            self.scalar(event, line)

    def start(self, event: Any, line: int) -> None:
        """Open a mapping or a list."""
        if len(self.open) + self.skipped >= DEEPEST:
            raise DataError(f"{self.path}:{line}: nested deeper than {DEEPEST} levels; allowed: fewer")
        top = self.open[-1] if self.open else None
        if self.skipped or (top is not None and top.dropped):
            self.skipped += 1
            return
        mapping = isinstance(event, yaml.MappingStartEvent)
        if event.tag not in (None, "!", _STANDARD + ("map" if mapping else "seq")):
            self.faults.append((line, f"{dotted(self.here())}: tag {event.tag!r}; allowed: plain values; drop the tag"))
        if top is not None and isinstance(top.items, dict) and not top.keyed:
            found = "a mapping" if mapping else "a list"
            self.faults.append((line, f"{dotted(top.path)}: {found} as a key; allowed: plain text"))
            top.keyed = top.dropped = True
            self.skipped, self.skips_key = 1, True
            return
        if not self.open:
            self.lines[()] = line
        self.lines.setdefault(self.here(), line)
        self.open.append(_Open(self.here(), {} if mapping else []))

    def end(self) -> None:
        """Close a mapping or a list, and put it where it belongs."""
        if self.skipped:
            self.skipped -= 1
            if not self.skipped and not self.skips_key:
                self.open[-1].keyed = self.open[-1].dropped = False
            self.skips_key = self.skips_key and self.skipped > 0  # the value of a key that is left out is left out too
            return
        done = self.open.pop()
        self.put(done.items)

    def scalar(self, event: Any, line: int) -> None:
        """Take a key, an item or a value."""
        if self.skipped:
            return
        top = self.open[-1] if self.open else None
        if top is not None and isinstance(top.items, dict) and not top.keyed:
            self.key(top, event, line)
            return
        if top is not None and top.dropped:
            top.keyed = top.dropped = False
            return
        self.lines.setdefault(self.here(), line)
        self.put(self.value(event, line))

    def key(self, top: _Open, event: Any, line: int) -> None:
        """Take the key of the next value."""
        key = event.value
        if UNPRINTABLE.search(key) or "\n" in key:
            self.faults.append((line, f"{dotted(top.path)}: {shown(key)} as a key; allowed: printable text"))
            key = ""
        top.keyed, top.key, top.dropped = True, key, True
        if key == "<<":
            self.faults.append((line, "merge keys; allowed: plain keys"))
        elif key in top.items:
            self.faults.append((line, f"{dotted((*top.path, key))}: duplicate key; allowed: once; remove one"))
        else:
            top.dropped = False
            self.lines[(*top.path, key)] = line

    def value(self, event: Any, line: int) -> Any:
        """Return a plain value; what is none is a fault."""
        tag = event.tag
        if tag is None or (event.implicit[0] and tag == "!"):
            tag = self.resolve(yaml.ScalarNode, event.value, event.implicit)
        elif tag == "!":
            tag = _STANDARD + "str"
        name = _SCALARS.get(tag)
        if name is None:
            word = _OTHERS.get(tag.removeprefix(_STANDARD), f"tag {tag!r}")
            self.fault(line, f"found {shown(event.value)}, {word}; allowed: text, a number, true or false; quote it")
            return None
        if name == "str":
            return self.text(event.value, line)
        try:
            found = self.scalars.construct_object(yaml.ScalarNode(tag, event.value))
        except (ValueError, OverflowError, LookupError, AttributeError, yaml.YAMLError):
            wanted = "true or false" if name == "bool" else "a number that can be read; write it in digits"
            self.fault(line, f"found {shown(event.value)}; allowed: {wanted}")
            return None
        if isinstance(found, (int, float)) and not isinstance(found, bool):
            if ":" in event.value:
                self.fault(
                    line, f"found {shown(event.value)}, a number to the base 60; allowed: plain digits, or quotes"
                )
            elif isinstance(found, int) and abs(found) > LARGEST_WHOLE:
                self.fault(line, f"found {shown(event.value)}; allowed: whole numbers up to 2^53, which floats hold")
                return None
        return found

    def text(self, text: str, line: int) -> str | None:
        """Return a text; what would act on a terminal, or turn its letters round, is a fault."""
        if (found := UNPRINTABLE.search(text)) is None:
            return text
        self.fault(line, f"found {shown(text)}, with the control character {found[0]!r}; allowed: printable text")
        return None

    def here(self) -> Place:
        """Return the path of the value that comes next."""
        if not self.open:
            return ()
        top = self.open[-1]
        return (*top.path, top.key if isinstance(top.items, dict) else len(top.items))

    def put(self, value: Any) -> None:
        """Put a value where it belongs."""
        if not self.open:
            self.root, self.begun = value, True
            return
        top = self.open[-1]
        if isinstance(top.items, dict):
            top.items[top.key] = value
            top.keyed = False
        else:
            top.items.append(value)

    def fault(self, line: int, text: str) -> None:
        """Note a fault of the value that comes next."""
        self.faults.append((line, f"{dotted(self.here())}: {text}"))


def shown(text: str) -> str:
    """Return a text as faults show it, its end left out where it is long."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def dotted(path: Place) -> str:
    """Return a path as faults write it."""
    return ".".join(str(part) for part in path) or "file"
