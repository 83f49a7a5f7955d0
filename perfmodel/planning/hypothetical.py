"""Machines with numbers set by hand, as options, run-specs and plans ask for them: which are refused, what is told."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from perfmodel.errors import UsageError
from perfmodel.planning import inputs
from perfmodel.specs.deployment import LayoutShape
from perfmodel.specs.numbers import FLAG, in_unit
from perfmodel.supply.machine import Machine
from perfmodel.supply.set_numbers import refuse_unknown, with_numbers

FAR = 100  # times more or less than on file, from which a unit may be mistaken
#: number that --memory-share sets too
OF_SHARE = "memory.utilization"


def with_given(
    machines: Mapping[Any, Machine], numbers: Mapping[str, str], share: float | None, others: Collection[str] = ()
) -> dict[Any, Machine]:
    """Return machines with numbers set by hand, each with those that it has; one machine stays one.

    Raises ``UsageError`` for words that none of them has, and for a share of memory given twice.
    """
    refuse_unknown(numbers, machines.values(), others)
    refuse_two_shares(numbers, share)
    done = {id(machine): with_numbers(machine, numbers) for machine in machines.values()}
    return {key: done[id(machine)] for key, machine in machines.items()}


def with_layout_or_given(
    machine: Machine, words: Any, share: float | None
) -> tuple[Machine, dict[str, Any], dict[str, str]]:
    """Return a machine with the numbers of --set words, the keys of a layout among them, and the numbers."""
    layout, numbers = inputs.set_apart(words)
    others = sorted(LayoutShape.model_fields)
    return with_given({None: machine}, numbers, share, others)[None], layout, numbers


def refuse_two_shares(numbers: Mapping[str, str], share: float | None) -> None:
    """Refuse a share of memory that two options set."""
    if share is not None and OF_SHARE in numbers:
        raise UsageError(f"--memory-share with --set {OF_SHARE}; allowed: one of them; drop the other")


def asked_numbers(own: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """Return the numbers of a plan or a row with those that options give in their place."""
    return {**own, **given}


def told(machines: Iterable[Machine]) -> tuple[str, ...]:
    """Return a remark that machines are hypothetical; none where nothing is set by hand."""
    found = [one for machine in machines for one in machine.set_numbers]
    if not found:
        return ()
    words = {one.word: one.text for one in found}
    remarks = [f"hypothetical machine: {', '.join(as_words(words))}"]
    remarks += [
        f"--set {one.word}={one.text}: {in_unit(one.after, one.unit)} is far from {in_unit(one.before, one.unit)}, "
        "which is on file; a plain number is in SI units"
        for one in found
        if one.unit != FLAG and one.before and not 1 / FAR <= one.after / one.before <= FAR
    ]
    return tuple(dict.fromkeys(remarks))


def as_words(numbers: Mapping[str, str]) -> list[str]:
    """Return numbers as options take them."""
    return [f"{word}={text}" for word, text in numbers.items()]
