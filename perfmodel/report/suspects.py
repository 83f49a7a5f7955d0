"""What was measured beside what is predicted, and the changes that could make the difference, as tables and facts."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from perfmodel.planning.suspects import Gap, Suspect
from perfmodel.report.quantity import format_quantity
from perfmodel.report.table import Column, Document, Table, in_part, with_lines
from perfmodel.specs.evidence import RATES

KINDS = {"change": "alone", "pair": "two together", "amount": "amount"}
GAP_COLUMNS = (
    Column("quantity", "quantity"),
    Column("measured", "measured", "row"),
    Column("predicted", "predicted", "row"),
    Column("low", "from (90 %)", "row"),
    Column("high", "to (90 %)", "row"),
    Column("unit", "unit"),
    Column("ratio", "ratio", "1"),
    Column("verdict", "verdict"),
)
SUSPECT_COLUMNS = (
    Column("quantity", "quantity", group=True),
    Column("suspect", "suspect"),
    Column("stated", "as stated", spare=2),
    Column("kind", "kind", spare=1),
    Column("makes", "makes it", "row"),
    Column("unit", "unit"),
    Column("closes", "of the gap", "%"),
    Column("off", "off", "1"),
    Column("reaches", "reaches it"),
)


def with_measured(document: Document, gaps: Sequence[Gap]) -> Document:
    """Return a document with what was measured: in its answer, as tables behind its first, as the fact ``measured``."""
    first, *others = document.tables
    told = in_part("measured", gaps=_gap_table(gaps), suspects=_suspect_table(gaps), checks=_check_table(gaps))
    facts = {**document.facts, "measured": [_gap_facts(gap) for gap in gaps]}
    return replace(
        document,
        tables=(first, *told, *others),
        facts=facts,
        answer=with_lines(document.answer, [("measured", _gap_words(gap)) for gap in gaps]),
        opening=("measured", "sources"),
    )


def _gap_words(gap: Gap) -> str:
    """Return what was measured beside what is predicted, and what it could come from, in a line."""
    value, predicted = (format_quantity(one, gap.unit) for one in (gap.measured, gap.predicted.value))
    said = f"{gap.quantity} {value}, predicted {predicted}"
    if gap.inside:
        return f"{said}: inside its 90 % interval"
    if not gap.suspects:
        return f"{said}: {_verdict(gap)}; nothing that was tried comes nearer"
    return f"{said}: {_verdict(gap)}; nearest cause {' + '.join(gap.suspects[0].changes)}"


def _verdict(gap: Gap) -> str:
    if gap.inside:
        return "inside"
    return "slower" if (gap.ratio > 1) != (gap.quantity in RATES) else "faster"


def _gap_facts(gap: Gap) -> dict[str, Any]:
    return {
        "quantity": gap.quantity,
        "unit": gap.unit,
        "measured": gap.measured,
        "predicted": gap.predicted.value,
        "low": gap.predicted.interval.low90,
        "high": gap.predicted.interval.high90,
        "ratio": gap.ratio,
        "inside": gap.inside,
        "suspects": [_suspect_facts(suspect) for suspect in gap.suspects],
    }


def _suspect_facts(suspect: Suspect) -> dict[str, Any]:
    return {
        "changes": list(suspect.changes),
        "stated": list(suspect.stated),
        "compare": suspect.compare,
        "kind": suspect.kind,
        "value": suspect.value,
        "closes": suspect.closes,
        "off": suspect.off,
        "reaches": suspect.reaches,
        "checks": list(suspect.checks),
    }


def _gap_table(gaps: Sequence[Gap]) -> Table:
    rows = tuple({**_gap_facts(gap), "verdict": _verdict(gap)} for gap in gaps)
    columns = {column.key for column in GAP_COLUMNS}
    rows = tuple({key: value for key, value in row.items() if key in columns} for row in rows)
    says = {
        "inside its 90 % interval: nothing to explain beyond the stated doubt": [g for g in gaps if g.inside],
        "nothing that was tried comes nearer": [g for g in gaps if not g.inside and not g.suspects],
    }
    notes = [f"{', '.join(gap.quantity for gap in found)}: {words}" for words, found in says.items() if found]
    return Table("Measured beside predicted", GAP_COLUMNS, rows, tuple(notes))


def _suspect_table(gaps: Sequence[Gap]) -> Table:
    rows = tuple(
        {
            "quantity": gap.quantity,
            "suspect": " + ".join(suspect.changes),
            "stated": " + ".join(suspect.stated),
            "kind": KINDS[suspect.kind],
            "makes": suspect.value,
            "unit": gap.unit,
            "closes": suspect.closes,
            "off": suspect.off,
            "reaches": suspect.reaches,
        }
        for gap in gaps
        for suspect in gap.suspects
    )
    chosen = {
        suspect.compare.removesuffix(",".join(suspect.changes)).rstrip(",") for gap in gaps for suspect in gap.suspects
    }
    notes = (
        "each is this run predicted anew with that change, as --compare takes it",
        *(f"--compare takes {words} before it: it was chosen for this run" for words in sorted(chosen - {""})),
        "of the gap: part that it closes, in logarithms; off: what is left over the half 90 % interval on that side, "
        "up to 1 reaches it",
        "two together where none reaches it alone; amounts last: one that is free to be anything fits most gaps",
    )
    return Table("What could make it, the nearest first", SUSPECT_COLUMNS, rows, notes)


def _check_table(gaps: Iterable[Gap]) -> Table:
    found: dict[str, str] = {}
    for gap in gaps:
        for suspect in gap.suspects:
            found |= {change: check for change, check in suspect.checks.items() if check}
    columns = (Column("suspect", "suspect"), Column("check", "where to look"))
    rows = tuple({"suspect": change, "check": check} for change, check in found.items())
    return Table("How to see whether it is so", columns, rows)
