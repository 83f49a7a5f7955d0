"""Numbers of a machine that are set by hand: which words stand for which, and the machine that has them."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, get_args

from perfmodel.errors import UsageError, did_you_mean, printable
from perfmodel.specs.base import Figure, Known, Source, with_value
from perfmodel.specs.kernels import Link
from perfmodel.specs.machine import ChipSpec
from perfmodel.specs.numbers import FLAG, Number, in_unit, numbers_of, with_texts
from perfmodel.supply.machine import Machine, SetNumber

#: key of what is the source of a number that is set by hand
SOURCE = "set"
SOURCE_TITLE = "set on the command line"
#: short words for people -> keys of the files; a word of several keys takes changes alone, as +50 %
WORDS: dict[str, tuple[str, ...]] = {
    "hbm": ("die.hbm.bandwidth",),
    "hbm_capacity": ("die.hbm.capacity",),
    "core_stream": ("die.hbm.core_bytes_per_cycle",),
    "clock": ("die.clock",),
    "cube": ("die.cube_flop_per_cycle.bf16", "die.cube_flop_per_cycle.int8"),
    "cube_cores": ("die.cube_cores",),
    "vector": ("die.vector_flop_per_cycle.fp16", "die.vector_flop_per_cycle.fp32"),
    "vector_cores": ("die.vector_cores",),
    "l2": ("die.l2.core_read_bytes_per_cycle", "die.l2.core_write_bytes_per_cycle"),
    "l2_capacity": ("die.l2.capacity",),
}
LINKS: tuple[str, ...] = get_args(Link)
#: of a number with no effect: for comparison, or of what is fitted
_UNUSED = ("headline.", "priors.")
_CHANGE = re.compile(r"\s*(?:([+-])\s*([0-9.]+)\s*%|[x×*]\s*([0-9.]+))\s*")
_PLAIN = re.compile(r"\s*[0-9.]+(?:[eE][+-]?[0-9]+)?\s*")

#: part of a machine -> its place among those of ``SetNumber``
_OF_SOFTWARE = ("stack", "terms", "kernels")


class NotSetError(UsageError):
    """A number that cannot be set, or not to that value."""


def with_numbers(machine: Machine, given: Mapping[str, str]) -> Machine:
    """Return a machine with numbers set as texts say; words for what it has not are left out, see ``refuse_unknown``.

    Raises ``NotSetError`` for values that are none, out of bounds, or for one number by two words.
    """
    return _with(machine, given, lambda _: True) if given else machine


def refuse_unknown(
    given: Mapping[str, str], machines: Iterable[Machine], others: Collection[str] = (), where: str = "--set"
) -> None:
    """Refuse words that stand for a number of none of some machines; ``others`` are known besides.

    Raises ``NotSetError``.
    """
    every = list(machines)
    for word in given:
        if not any(_meant(machine, word) for machine in every):
            known = sorted({*others, *(key for machine in every for key in keys_of(machine))})
            links = ", ".join(dict.fromkeys(tier.link for machine in every for tier in machine.system.spec.tiers))
            lacks = f"; the system has {links}" if word in LINKS else did_you_mean(word, known, [*WORDS, *others])
            raise NotSetError(f"{where}: {printable(word)!r} is no number of the machine{lacks}")


def keys_of(machine: Machine) -> list[str]:
    """Return all words and keys by which numbers of a machine can be set."""
    links = [tier.link for tier in machine.system.spec.tiers]
    return [*WORDS, *links, *(f"{link}_latency" for link in links), *(number.key for _, number in _numbers(machine))]


def without_numbers(machine: Machine) -> Machine:
    """Return a machine with the numbers of its software that were set as they were before."""
    for one in machine.set_numbers:
        if one.part.startswith(_OF_SOFTWARE):
            known = _part(machine, one.part)
            figures = {path: figure for path, figure in known.figures.items() if path != one.path}
            if one.figure is not None:
                figures[one.path] = one.figure
            spec = with_value(known.spec, one.path.split("."), one.before)
            machine = _replaced(machine, one.part, replace(known, spec=spec, figures=figures))
    left = tuple(one for one in machine.set_numbers if not one.part.startswith(_OF_SOFTWARE))
    return replace(machine, set_numbers=left)


def again(machine: Machine, given: Mapping[str, str]) -> Machine:
    """Return a machine with the numbers of its software set, those of chip and system being set already."""
    return _with(machine, given, lambda part: part.startswith(_OF_SOFTWARE)) if given else machine


def with_chip(machine: Machine, chip: Known[ChipSpec]) -> Machine:
    """Return a machine with another chip, on which numbers are set as they were on its own."""
    left = tuple(one for one in machine.set_numbers if one.part != "chip")
    other = replace(machine, chip=chip, set_numbers=left)
    return _with(other, machine.given_numbers, lambda part: part == "chip")


def _with(machine: Machine, given: Mapping[str, str], is_meant: Any) -> Machine:
    """Return a machine with numbers of some of its parts set."""
    chosen: dict[tuple[str, str], tuple[str, str, Number]] = {}
    several: set[str] = set()
    for word, text in given.items():
        meant = _meant(machine, word)
        if len(meant) > 1 and word in WORDS:
            several.add(word)
        for part, number in meant:
            if not is_meant(part):
                continue
            other = chosen.get((part, number.path))
            if other is not None and other[1] != text:
                raise NotSetError(
                    f"--set: {other[0]}={other[1]} and {word}={text} both set {number.key}; allowed: one; drop the "
                    "other"
                )
            chosen.setdefault((part, number.path), (word, text, number))
    done = list(machine.set_numbers)
    for part in dict.fromkeys(part for part, _ in chosen):
        known = _part(machine, part)
        figures, spec = dict(known.figures), known.spec
        for (where, path), (word, text, number) in chosen.items():
            if where != part:
                continue
            written = _as_written(word, text, number, word in several)
            try:
                spec = with_texts(spec, {path: written})
            except ValueError as error:
                raise NotSetError("\n".join(f"--set {word}: {line}" for line in str(error).splitlines())) from None
            after = next(one.value for one in numbers_of(spec) if one.path == path)
            done.append(
                SetNumber(
                    word=word,
                    text=text,
                    part=part,
                    key=number.key,
                    path=path,
                    unit=number.unit,
                    before=number.value,
                    after=after,
                    figure=figures.pop(path, None),
                )
            )
            if number.unit != FLAG:
                figures[path] = _figure(after, text, number)
        sources = {**spec.sources, SOURCE: Source(title=SOURCE_TITLE)}
        spec = spec.model_copy(update={"sources": sources})
        machine = _replaced(machine, part, replace(known, spec=spec, figures=figures))
    return replace(machine, set_numbers=tuple(done), given_numbers=dict(given))


def _figure(value: float, text: str, number: Number) -> Figure:
    """Return where a number that was set came from: by hand, and for sure."""
    shown = in_unit(value, number.unit)
    return Figure(
        value=value,
        text=str(shown),
        source=SOURCE,
        kind="assumed",
        note=text,
        low=value,
        high=value,
        file="--set",
        line=1,
    )


def _as_written(word: str, text: str, number: Number, several: bool) -> Any:
    """Return what a file would say in place of a value or a change."""
    if number.unit == FLAG:
        if text not in ("true", "false"):
            raise NotSetError(f"--set {word}: {printable(text)!r}; allowed: {FLAG}")
        return text == "true"
    if change := _CHANGE.fullmatch(text):
        if number.value is None:
            raise NotSetError(f"--set {word}: {text!r} of a number that is not stated; allowed: a value, like 1")
        try:
            by = float(change[3]) if change[3] else 1 + float(f"{change[1]}{change[2]}") / 100
        except ValueError:
            raise NotSetError(f"--set {word}: {text!r}; allowed: a change like +50%, -20% or x2") from None
        return in_unit(float(number.value) * by, number.unit)
    if several:
        keys = ", ".join(WORDS[word])
        raise NotSetError(
            f"--set {word}: {printable(text)!r}, for {keys}; allowed: a change like +50%, -20% or x2; or set each"
        )
    if text.strip().startswith(("+", "-")):
        raise NotSetError(f"--set {word}: {printable(text)!r}; allowed: a value, or a change like +50%, -20% or x2")
    return in_unit(float(text), number.unit) if _PLAIN.fullmatch(text) and _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(machine: Machine) -> Iterator[tuple[str, Number]]:
    """Yield all numbers of a machine that can be set, by their part."""
    for part in ("chip", "system", "stack", "terms"):
        for number in numbers_of(_part(machine, part).spec):
            if not number.key.startswith(_UNUSED) and not (number.unit == FLAG and number.key == "family_default"):
                yield part, number
    for operator, known in machine.kernels_of().items():
        at = machine.kernels.index(known)
        kernel = getattr(known.spec, operator)
        for number in numbers_of(kernel, f"{operator}.", f"{operator}."):
            yield f"kernels.{at}", number


def _meant(machine: Machine, word: str) -> list[tuple[str, Number]]:
    """Return the numbers of a machine that a word stands for."""
    every = list(_numbers(machine))
    keys = set(WORDS.get(word, (word,)))
    link, latency, _ = word.partition("_latency")
    if link in LINKS and word in (link, f"{link}_latency"):
        of = "latency" if latency else "bandwidth"
        keys = {f"tiers.{tier.name}.{of}" for tier in machine.system.spec.tiers if tier.link == link}
    return [(part, number) for part, number in every if number.key in keys]


def _part(machine: Machine, part: str) -> Known[Any]:
    kind, _, at = part.partition(".")
    found: Known[Any] = machine.kernels[int(at)] if at else getattr(machine, kind)
    return found


def _replaced(machine: Machine, part: str, known: Known[Any]) -> Machine:
    kind, _, at = part.partition(".")
    if not at:
        changed: dict[str, Any] = {kind: known}
        return replace(machine, **changed)
    kernels = list(machine.kernels)
    kernels[int(at)] = known
    return replace(machine, kernels=tuple(kernels))
