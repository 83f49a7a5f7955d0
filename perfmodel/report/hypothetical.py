"""What of a machine was set by hand, shown before all else: each number as it is on file and as it is here."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from perfmodel.report.quantity import format_quantity
from perfmodel.report.table import Column, Document, Table, in_part, with_lines
from perfmodel.supply.machine import Machine, SetNumber


def hypothetical(document: Document, machines: Iterable[Machine]) -> Document:
    """Return a document that says first which numbers of its machines were set by hand; as it is where none were."""
    found: dict[tuple[str, str, str, str], SetNumber] = {}
    for machine in machines:
        for one in machine.set_numbers:
            name = getattr(machine, one.part).spec.name if one.part in ("chip", "system", "stack", "terms") else ""
            found.setdefault((name, one.key, one.word, one.text), one)
    if not found:
        return document
    texts = {(one.word, one.text) for one in found.values()}
    facts: dict[str, dict[str, Any]] = {}
    for (_, key, word, text), one in found.items():
        alone = sum(word == other for other, _ in texts) == 1  # of two that are compared each may have its own
        entry = facts.setdefault(word if alone else f"{word}={text}", {"text": one.text, "numbers": []})
        entry["numbers"].append({"key": key, "unit": one.unit, "old": one.before, "new": one.after})
    rows = tuple(
        {"number": key, "set": f"{word}={one.text}", "old": _shown(one.before, one), "new": _shown(one.after, one)}
        for (_, key, word, _), one in found.items()
    )
    columns = (Column("number", "number"), Column("set", "set"), Column("old", "on file"), Column("new", "here"))
    table = Table("Hypothetical machine: numbers set on the command line", columns, rows)
    words = ", ".join(dict.fromkeys(f"{word}={text}" for word, text in texts))
    return replace(
        document,
        tables=(*in_part("set", numbers=table), *document.tables),
        facts={**document.facts, "set": facts},
        answer=with_lines(document.answer, [("hypothetical", f"numbers of the machine set: {words}")]),
        opening=("set", *document.opening),
    )


def _shown(value: Any, one: SetNumber) -> str:
    if value is None:
        return "not stated"
    return str(value).lower() if isinstance(value, bool) else format_quantity(value, one.unit)
