"""Which numbers a spec holds, by dotted key, and copies with some of them changed, checked as those of a file are."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import ValidationError

from perfmodel.specs.base import Spec, found_and_said
from perfmodel.units import Unit

#: unit of what is true or false
FLAG = "true or false"


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """One number of a spec: its dotted key as people write it and as it is found, its unit, its value or nothing."""

    key: str
    path: str
    unit: str
    value: Any


def unit_in(annotation: Any, metadata: Any = ()) -> str | None:
    """Return the unit that an annotation states, those inside of ``X | None`` included."""
    for item in (*metadata, *getattr(annotation, "__metadata__", ()), *get_args(annotation)):
        found = item.symbol if isinstance(item, Unit) else unit_in(item)
        if found is not None:
            return found
    return None


def numbers_of(spec: Spec, key: str = "", path: str = "") -> Iterator[Number]:
    """Yield the numbers of a spec and of what it holds; records in a row by their names where they have such."""
    for name, info in type(spec).model_fields.items():
        value = getattr(spec, name)
        at = (f"{key}{name}", f"{path}{name}")
        if isinstance(value, Spec):
            yield from numbers_of(value, f"{at[0]}.", f"{at[1]}.")
        elif isinstance(value, tuple) and value and all(isinstance(one, Spec) for one in value):
            words = [str(getattr(one, "name", i)) for i, one in enumerate(value)]
            for i, one in enumerate(value):
                word = words[i] if words.count(words[i]) == 1 else str(i)
                yield from numbers_of(one, f"{at[0]}.{word}.", f"{at[1]}.{i}.")
        elif isinstance(value, bool):
            yield Number(key=at[0], path=at[1], unit=FLAG, value=value)
        elif not isinstance(value, (tuple, dict, str)) and (unit := unit_in(info.annotation, info.metadata)):
            yield Number(key=at[0], path=at[1], unit=unit, value=value)


def with_texts(spec: Spec, texts: Mapping[str, str]) -> Any:
    """Return a spec with numbers by their paths as a file would have them.

    Raises ``ValueError`` with a line for each that its bounds, or the rest of the spec, do not allow.
    """
    written = _written(spec)
    for path, text in texts.items():
        *owners, last = path.split(".")
        owner: Any = written
        for part in owners:
            owner = owner[int(part)] if isinstance(owner, list) else owner[part]
        owner[last] = text
    try:
        return type(spec).model_validate(written)
    except ValidationError as error:
        raise ValueError("\n".join(map(found_and_said, error.errors(include_url=False)))) from None


def _written(spec: Spec) -> dict[str, Any]:
    """Return what a file would say of a spec: numbers with their units."""
    return {
        info.alias or name: _as_written(getattr(spec, name), unit_in(info.annotation, info.metadata))
        for name, info in type(spec).model_fields.items()
    }


def _as_written(value: Any, unit: str | None) -> Any:
    if isinstance(value, Spec):
        return _written(value)
    if isinstance(value, tuple):
        return [_as_written(one, unit) for one in value]
    if isinstance(value, dict):
        return {key: _as_written(one, unit) for key, one in value.items()}
    return in_unit(value, unit) if unit and isinstance(value, (int, float)) and not isinstance(value, bool) else value


def in_unit(value: float, unit: str) -> Any:
    """Return an SI number as a file has it."""
    return value if unit in ("1", FLAG) else f"{value!r} {unit}"
