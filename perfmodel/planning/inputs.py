"""What a user types, read and checked: quantities, techniques, acceptance, lengths."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from perfmodel.errors import UsageError

if TYPE_CHECKING:
    from perfmodel.supply.techniques import Techniques

MOST_SPREAD = 10  # as files may have


def quantity(text: str | None, unit: str, option: str) -> float | None:
    """Read a quantity such as '50ms'; raise ``UsageError`` naming the option."""
    from perfmodel.units import Unit, ungrouped

    if text is None:
        return None
    try:
        value = Unit(unit).read(ungrouped(text) if isinstance(text, str) else text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None
    if value <= 0:
        raise UsageError(f"{option}: {text!r}; allowed: more than zero")
    return value


def rate(text: str | None, option: str) -> float | None:
    """Read requests per second, with their unit or without."""
    from perfmodel.units import ungrouped

    text = text if text is None else ungrouped(str(text))
    try:
        plain = text is not None and math.isfinite(float(text))
    except ValueError:
        plain = False
    return quantity(f"{text} req/s" if plain else text, "1/s", option)


def tokens(text: str | None, option: str) -> int | None:
    """Read a length such as '4096', '4k', which is 4 x 1024, or '1M'."""
    from perfmodel.units import read_tokens

    if text is None:
        return None
    try:
        return positive(read_tokens(text), option)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def limits(wait: str, texts: Sequence[str]) -> dict[str, Any]:
    """Read limits like '2s' and 'p99=3s' by the keys of a run-spec.

    Raises ``UsageError`` naming the option, also where one mean or percentile has two limits.
    """
    from perfmodel.specs.run import limits_of

    said: dict[str, tuple[Any, float | None]] = {}
    for text in texts:
        try:
            ((key, value),) = limits_of(wait, [text]).items()
        except ValueError as error:
            raise UsageError(f"--{wait}: {error}") from None
        seconds = quantity(value, "s", f"--{wait}")
        before, held = said.setdefault(key, (text, seconds))
        if held != seconds:
            raise UsageError(f"--{wait}: {before!r} and {text!r}; allowed: one limit on each; drop the other")
    return {key: seconds for key, (_, seconds) in said.items()}


def spread(value: float | None, option: str) -> float | None:
    """Return a standard deviation over a mean; raise ``UsageError`` where it is none that lengths have."""
    if value is not None and not 0 <= value <= MOST_SPREAD:
        raise UsageError(f"{option}: {value:g}; allowed: from 0 to {MOST_SPREAD}, standard deviation over mean")
    return value


def beside(path: str | None) -> str | None:
    """Return the path of a file that no name on file can be taken for."""
    return f"./{path}" if path and "/" not in path else path


def positive(value: int | None, option: str) -> int | None:
    """Return a count; raise ``UsageError`` where it is zero, negative or beyond what files may count."""
    from perfmodel.specs.base import MOST

    if value is not None and value <= 0:
        raise UsageError(f"{option}: {value}; allowed: 1 or more")
    if value is not None and value > MOST:
        raise UsageError(f"{option}: {value}; allowed: at most {MOST}")
    return value


def precision(name: str | None) -> str | None:
    """Return a precision as it is named, or raise for one that is none."""
    from perfmodel.specs.precision import PRECISIONS

    if name is not None:
        known(name, list(PRECISIONS), "--precision")
    return name


def share(value: float | None, option: str) -> float | None:
    """Return a share; raise ``UsageError`` where it is not above 0 and at most 1."""
    from perfmodel.specs.base import LEAST

    if value is not None and not LEAST <= value <= 1:
        raise UsageError(f"{option}: {value:g}; allowed: above 0, at most 1")
    return value


def known(word: str, words: list[str], option: str) -> None:
    """Refuse a word that is not among those known."""
    from perfmodel.errors import did_you_mean

    if word not in words:
        raise UsageError(f"{option}: {word!r} is unknown{did_you_mean(word, words)}")


def settings(words: Sequence[str] | None, techniques: "Techniques") -> dict[str, str]:
    """Read 'technique=setting' words; a technique alone is 'on'.  Raises ``UsageError`` where one has two settings."""
    from perfmodel.files.catalog import load_technique
    from perfmodel.files.folders import is_path
    from perfmodel.supply.techniques import named

    chosen: dict[str, str] = {}
    for word in words or ():
        name, _, setting = word.partition("=")
        # techniques are set by names on file; a file of the user's is read so that its own faults are told first
        technique = named(techniques, load_technique(name).spec.name if is_path(name) else name)
        technique.setting(setting or "on")
        before = chosen.setdefault(technique.spec.name, setting or "on")
        if before != (setting or "on"):
            raise UsageError(f"--with {name}: {before!r} and {setting or 'on'!r}; allowed: one setting; drop the other")
    return chosen


def refuse_conflicts(chosen: Mapping[str, str], techniques: "Techniques") -> None:
    """Refuse two techniques that set one key of a layout to different values."""
    held: dict[str, tuple[str, Any]] = {}
    for name, setting in chosen.items():
        for key, value in techniques[name].setting(setting).layout.items():
            other, before = held.get(key, (name, value))
            if before != value:
                raise UsageError(
                    f"--with {other}={chosen[other]} sets {key} to {before!r}, --with {name}={setting} to {value!r}; "
                    "allowed: one of them; drop the other"
                )
            held[key] = (name, value)


_NEXT = re.compile(r",(?=\s*[\w.-]+\s*=)")  # before another key; values may have commas of their own
OTHERWISE = {"step_time": "step"}  # how a measured quantity is called besides
LONGEST_VALUE = 100  # letters of what a number is set to


def set_keys(words: Sequence[str] | None) -> dict[str, str]:
    """Read 'key=value' words, several in one apart by commas; raise ``UsageError`` where one has two values."""
    from perfmodel.units import ungrouped

    allowed = "a key and a value, like tp=8, hbm=+50% or ub=400GB/s"
    return _keyed("--set", ((key, ungrouped(value)) for key, value in _parts("--set", allowed, words or ())))


def measured(words: Sequence[str]) -> dict[str, str]:
    """Read 'quantity=value' words, several in one apart by commas; raise ``UsageError`` where one has two values."""
    parts = _parts("--measured", "a quantity and its value, like tpot=120ms or ttft=1.8s", words)
    return _keyed("--measured", ((OTHERWISE.get(name.lower(), name.lower()), value) for name, value in parts))


def _parts(option: str, allowed: str, words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield what 'key=value' words say, several in one apart by commas."""
    for part in (part for word in words for part in _NEXT.split(word)):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not key or not value:
            raise UsageError(f"{option}: {part.strip()!r}; allowed: {allowed}")
        yield key, value


def _keyed(option: str, parts: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return values by key; raise ``UsageError`` where one has two."""
    found: dict[str, str] = {}
    for key, value in parts:
        before = found.setdefault(key, value)
        if before != value:
            raise UsageError(f"{option} {key}: {before} and {value}; allowed: one value; drop the other")
    return found


def set_apart(words: Sequence[str] | None) -> tuple[dict[str, Any], dict[str, str]]:
    """Return keys of a layout with their values, and numbers of the machine with what they are set to.

    Values are checked where the layout, and the machine, are made.
    """
    from perfmodel.specs.conditions import LayoutConditions

    given = set_keys(words)
    layout = {key: word_or_number(value) for key, value in given.items() if key in LayoutConditions.model_fields}
    return layout, _short_enough({key: value for key, value in given.items() if key not in layout})


def set_numbers(words: Sequence[str] | None) -> dict[str, str]:
    """Return numbers of the machine with what they are set to; refuse keys of a layout."""
    layout, numbers = set_apart(words)
    if layout:
        raise UsageError(
            f"--set: {', '.join(layout)}: keys of a layout, which is chosen here; allowed: numbers of the machine; "
            "drop them, or use moeplan explain"
        )
    return numbers


def _short_enough(numbers: dict[str, str]) -> dict[str, str]:
    for key, value in numbers.items():
        if len(value) > LONGEST_VALUE:
            raise UsageError(f"--set {key}: {len(value)} letters; allowed: up to {LONGEST_VALUE}")
    return numbers


def word_or_number(text: str) -> Any:
    """Return a value as a file would have it: a number or truth where the text is one, else the text."""
    import json

    try:
        return json.loads(text)
    except ValueError:
        return text


def read_acceptance(text: str | None, model: Any) -> tuple[tuple[float, ...], str]:
    """Return accepted tokens per draft position and where they come from."""
    from perfmodel.errors import did_you_mean
    from perfmodel.specs.deployment import LARGEST_VERIFIED
    from perfmodel.units import read_share

    tables = {table.name: table for table in model.acceptance}
    if text is None:
        if not tables:
            return (), "none on file" if model.num_nextn_predict_layers else "no draft layer"
        first = model.acceptance[0]
        return tuple(first.positions), f"{first.name} ({first.kind}, {first.source})"
    if text in tables:
        table = tables[text]
        return tuple(table.positions), f"{table.name} ({table.kind}, {table.source})"
    try:
        values = tuple(read_share(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"--acceptance: {text!r} is neither a list like '0.9,0.36' nor a known name"
            f"{did_you_mean(text, list(tables))}"
        ) from None
    if len(values) >= LARGEST_VERIFIED:
        raise UsageError(f"--acceptance: {len(values)} positions; allowed: at most {LARGEST_VERIFIED - 1}")
    if any(not 0 <= v <= 1 for v in values) or list(values) != sorted(values, reverse=True):
        raise UsageError(f"--acceptance: {text!r}; allowed: values from 0 to 1 that do not increase")
    if not model.num_nextn_predict_layers:
        raise UsageError(f"--acceptance: {model.name} has no draft (MTP) layer; drop the option")
    return values, "given on the command line"


def check_lengths(model: Any, isl: int, osl: int) -> None:
    """Refuse lengths that are no counts, or more together than a model takes."""
    positive(isl, "--isl")
    positive(osl, "--osl")
    if isl + osl > model.max_position_embeddings:
        raise UsageError(f"--isl + --osl: {isl + osl} tokens; {longest_allowed(model, isl + osl)}")


def longest_allowed(model: Any, wanted: int) -> str:
    """Return what a model takes at most, and the option by which it takes more."""
    enough = 1 << (wanted - 1).bit_length()
    return (
        f"allowed: at most {model.max_position_embeddings:,} for {model.name}; a longer one with rope scaling: "
        f"--max-context {enough}"
    )
