"""Which numbers of a user's file lie far beyond those on file for the same key, as where a unit is mistaken."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from perfmodel.errors import short
from perfmodel.files.document import Place, dotted
from perfmodel.files.reader import Reader, metadata_of
from perfmodel.specs.base import Known
from perfmodel.specs.kernels import Fit
from perfmodel.units import Unit

_LOG = logging.getLogger(__name__)
#: times the largest on file, or one part of so many of the smallest: where values on file differ by less than ten, a
#: unit mistaken by a thousand is told of any of them
BEYOND = 100.0
MOST_TOLD = 20  # keys of a file


@dataclass(frozen=True, slots=True)
class Held:
    """The least and the largest value on file for a key, and how their files write them where that has a unit."""

    low: float
    high: float
    low_text: str | None = None
    high_text: str | None = None

    def joined(self, other: "Held") -> "Held":
        """Return what holds the values of both."""
        low = self if self.low <= other.low else other
        high = self if self.high >= other.high else other
        return Held(low.low, high.high, low.low_text, high.high_text)


def held(files: Iterable[Known[Any]]) -> dict[str, Held]:
    """Return what files hold for each key, zeros left out."""
    found: dict[str, Held] = {}
    for known in files:
        for key, path, value in _numbers(known.spec):
            figure = known.figures.get(dotted(path))
            text = None if figure is None else figure.text
            one = Held(value, value, text, text)
            found[key] = found[key].joined(one) if key in found else one
    return found


def remark_on(reader: Reader, data: Mapping[str, Any], spec: Any, on_file: Mapping[str, Held]) -> None:
    """Remark on each key of a file that was read whose value lies a hundred times beyond those on file.

    ``data`` is the content as the file writes it, ``spec`` what was read from it.  A key is told once, however many
    items of a list have it.
    """
    told: dict[str, str] = {}
    for key, path, value in _numbers(spec):
        here = on_file.get(key)
        if here is None or key in told or here.low / BEYOND <= value <= here.high * BEYOND:
            continue
        unit = _unit(spec, path)
        ends = [_text(here.low, here.low_text, unit), _text(here.high, here.high_text, unit)]
        told[key] = (
            f"{reader.path}:{reader.line(path)}: {dotted(path)}: found {_written(data, path, value)}; files on hand "
            f"have {' to '.join(dict.fromkeys(ends))} (over a hundred times beyond): check the unit"
        )
    for line in list(told.values())[:MOST_TOLD]:
        _LOG.info("%s", short(line))


def _numbers(spec: Any, path: Place = (), key: str = "") -> Iterator[tuple[str, Place, float]]:
    """Yield the key, the place and the size of each number of a spec but zeros and how well kernels were fitted.

    The key of an item is that of its list, with the quantity that it states where it states one.
    """
    if isinstance(spec, bool) or isinstance(spec, Fit):
        return
    if isinstance(spec, (int, float)):
        if spec:
            yield key, path, abs(spec)
        return
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(spec, BaseModel):
        inner = ((name, getattr(spec, name)) for name in type(spec).model_fields)
    elif isinstance(spec, Mapping):
        inner = spec.items()
    elif isinstance(spec, (tuple, list)):
        inner = enumerate(spec)
    for name, value in inner:
        part = getattr(value, "quantity", "*") if isinstance(name, int) else name
        yield from _numbers(value, (*path, name), f"{key}.{part}" if key else str(part))


def _written(data: Any, path: Place, value: float) -> str:
    """Return a value as its file writes it; a key may have gone by another name there."""
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return f"{value:g}"
    return str(data)


def _unit(spec: Any, path: Place) -> str:
    """Return the unit that the nearest field above a number says, "1" where it says none."""
    unit = "1"
    for part in path:
        if isinstance(spec, BaseModel):
            info = type(spec).model_fields[part]
            said = (*info.metadata, *metadata_of(info.annotation))
            unit = next((item.symbol for item in said if isinstance(item, Unit)), "1")
            spec = getattr(spec, part)
        else:
            spec = spec[part]
    return unit


def _text(value: float, text: str | None, unit: str) -> str:
    return text or (f"{value:g}" if unit == "1" else f"{value:g} {unit}")
