"""What is typed after a command, before it is parsed: words of engines, numbers as people write them, nothing twice."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from perfmodel.errors import UsageError, printable

#: lengths that a command takes as text
LENGTHS = ("isl", "osl", "max_context")
#: waits, that a number alone does not say
WAITS = ("tpot", "ttft")
_BARE = re.compile(r"(?:\s*\w+\s*=)?\s*\d[\d_,]*(?:\.\d*)?\s*|(?:\s*\w+\s*=)?\s*\.\d+\s*")
READINGS = ("ms", "s")  # of a wait without a unit


@dataclass(frozen=True, slots=True)
class Given:
    """One word after a command, or an option with its value where it takes one."""

    value: str | None = None
    option: str | None = None
    #: of the parser; None for a word that is no option of the command
    param: Any = field(default=None, compare=False)
    #: what was typed, where it was read as something else
    typed: str | None = None

    @property
    def said(self) -> str:
        """What was typed, to be named in a refusal."""
        return self.typed or " ".join(word for word in (self.option, self.value) if word is not None)

    @property
    def words(self) -> list[str]:
        """The words for the parser."""
        return [word for word in (self.option, self.value) if word is not None]


def options_of(params: Sequence[Any]) -> dict[str, Any]:
    """Return the options of a command by each of their names."""
    return {
        word: param
        for param in params
        if param.param_type_name != "argument"
        for word in (*param.opts, *param.secondary_opts)
    }


def split(args: Sequence[str], own: Mapping[str, Any], valued: Callable[[str], bool | None]) -> list[Given]:
    """Return the words after a command, each option with its value.

    ``own`` are options of the command; ``valued`` tells whether another word takes a value, None where it is unknown.
    What neither knows is left for the parser to refuse.
    """
    found, left = list[Given](), list(args)
    while left:
        word = left.pop(0)
        if word == "--":
            return [*found, Given(word), *(Given(one) for one in left)]
        option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
        param = own.get(option)
        takes = valued(option) if param is None and option else param is not None and not param.is_flag
        if not option or takes is None or (equals and not takes) or (equals and not option.startswith("--")):
            found.append(Given(word))
        elif equals or not takes:
            found.append(Given(value if equals else None, option, param))
        elif not left or (param is None and left[0].startswith("--")):
            found.append(Given(None, option, param))
        else:
            found.append(Given(left.pop(0), option, param))
    return found


def _kind(param: Any) -> str:
    """Return what an option takes: count, number, length, wait, rate or text."""
    if param is None or param.is_flag:
        return "text"
    described = param.type_descriptor
    if getattr(described.parameter_info, "parser", None) is not None or param.name in LENGTHS:
        return "length"
    kinds = {int: "count", float: "number"}
    return kinds.get(described.annotation) or (
        "wait" if param.name in WAITS else "rate" if param.name == "rate" else "text"
    )


def _plain(given: Given) -> Given:
    """Return an option with its number as the parser reads it; what is none is left for the parser to refuse."""
    kind, value = _kind(given.param), given.value
    if value is None or kind == "text":
        return given
    from perfmodel.units import read_count, read_share, ungrouped

    plain = ungrouped(value)
    try:
        if kind == "count" and not plain.strip().lstrip("+-").isdigit():
            plain = str(read_count(value))
        if kind == "number" and "%" in value and "price" not in given.param.name:
            plain = repr(read_share(value))
    except ValueError:
        pass
    return given if plain == value else replace(given, value=plain, typed=given.said)


def _measure(given: Given) -> Any:
    """Return what two values of an option are compared by: the number that each stands for, else the text."""
    value, kind = given.value, _kind(given.param)
    if value is None:  # a flag, or its opposite
        return given.option in given.param.secondary_opts
    if kind == "text":
        return value
    from perfmodel.units import Unit, read_tokens

    try:
        if kind == "length":
            return read_tokens(value)
        if kind in ("count", "number"):
            return float(value)
        if kind == "wait":
            return Unit("s").read(value)
    except ValueError:
        pass
    return value


def refuse_twice(given: Sequence[Given], before: dict[str, Given]) -> None:
    """Raise ``UsageError`` for options that are given twice and differ; those that may be repeated are left out.

    ``before`` holds what was typed earlier, and takes in what is typed here.
    """
    faults = []
    for one in given:
        if one.param is None or one.param.multiple or one.value == "":  # which is refused as nothing
            continue
        held = before.setdefault(one.param.name, one)
        if held.said != one.said and _measure(held) != _measure(one):
            what = "one value" if one.value is not None else "one of them"
            both = printable(f"{held.said} and {one.said}")
            faults.append(f"{both}: two values of one option; allowed: {what}; drop the other")
    if faults:
        raise UsageError("\n".join(faults))


def _ask_back(given: Sequence[Given], command: str) -> None:
    """Raise ``UsageError`` for a wait without a unit, with the command for each unit that it may have."""
    from shlex import join

    for at, one in enumerate(given):
        if _kind(one.param) != "wait" or (found := _BARE.fullmatch(one.value or "")) is None:
            continue
        head, equals, number = found[0].rpartition("=")
        lines = [
            f"{one.option}: {one.value!r} has no unit; {' or '.join(number.strip() + unit for unit in READINGS)}? Write"
        ]
        for unit in READINGS:
            meant = replace(one, value=f"{head}{equals}{number.strip()}{unit}")
            words = [word for each in (*given[:at], meant, *given[at + 1 :]) for word in each.words]
            lines.append(f"  {command} {join(words)}")
        raise UsageError("\n".join(lines))


def read(command: Any, context: Any, args: Sequence[str]) -> list[str]:
    """Return the words after a command as its parser takes them; what was read as something else is noted for a remark.

    Raises ``UsageError`` for a word of an engine that cannot be said here, a wait without a unit, and an option that is
    given twice with different values.
    """
    from perfmodel.cli import engine_words

    own = options_of(command.get_params(context))
    known: Collection[str] = engine_words.known_to(context.info_name)
    given = split(
        args, own, lambda option: engine_words.takes_value(option) if engine_words.bare(option) in known else None
    )
    _ask_back(given, context.command_path)
    told: list[str] = []
    if any(one.param is None and one.option for one in given):
        given, told = engine_words.translated(context.info_name, given, own)
    given = [_plain(one) for one in given]
    refuse_twice(given, context.meta.setdefault("typed", {}))
    context.meta["read_as"] = told + [text for one in given for text in _thousands(one)]
    return [word for one in given for word in one.words]


def read_before(group: Any, context: Any, args: Sequence[str]) -> None:
    """Raise ``UsageError`` for an option before the command that is given twice with different values."""
    given = split(args, options_of(group.get_params(context)), lambda option: None)
    command = next((at for at, one in enumerate(given) if one.option is None), len(given))
    refuse_twice(given[:command], context.meta.setdefault("typed", {}))


def _thousands(given: Given) -> list[str]:
    """Return a remark on a k that may stand for another number than it was read as."""
    kind = _kind(given.param)
    said = (given.typed or "").rpartition(" ")[2].rpartition("=")[2]
    if kind == "count" and said[-1:].isalpha() and given.value is not None:
        return [f"{given.said} is read as {int(given.value):,}"]
    text = given.value or ""
    if kind == "length" and "." in text and text.strip()[-1:] in "kK":
        from perfmodel.units import TOKENS, read_tokens

        try:
            tokens = read_tokens(text)
        except ValueError:
            return []
        return [
            f"{given.said} is read as {tokens:,} tokens, a k being {TOKENS['k']} of them; for "
            f"{round(tokens / TOKENS['k'] * 1000):,} write that"
        ]
    return []
