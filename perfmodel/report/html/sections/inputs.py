"""The inputs that the plan was made from, and where each comes from."""

from perfmodel.planning.plan_report import PlanReport
from perfmodel.planning.provenance import kinds
from perfmodel.report.html.section import Section
from perfmodel.report.html.words import Words


def inputs_section(report: PlanReport, words: Words) -> Section:
    """Return every input with its kind and source."""
    counts = [
        words.say("inputs.kind_count", count=n, kind=words.term(kind)) for kind, n in kinds(report.inputs).items()
    ]
    found: dict[str, list[dict[str, str | None]]] = {}
    for one in report.inputs:
        value, unit = _number_and_unit(one.text)
        row: dict[str, str | None] = {
            "name": one.name,
            "value": value,
            "unit": unit,
            "span": one.span,
            "kind": one.kind,
        }
        found.setdefault(one.group, []).append(row | {"source": one.source, "note": one.note, "url": one.url})
    groups = []
    for group, rows in found.items():
        keys = [key for key in rows[0] if key != "url" and any(row[key] for row in rows)]  # columns with something in
        groups.append((group, keys, rows))
    return Section(
        name="inputs",
        title=words.say("inputs.title"),
        lead=words.say("inputs.lead", count=len(report.inputs), kinds=words.say("join").join(counts)),
        more={
            "inputs": groups,
            "files": report.plan.files,
        },
    )


def _number_and_unit(text: str) -> tuple[str, str]:
    """Return a value as a file writes it, its unit apart.

    >>> _number_and_unit("270 GB/s"), _number_and_unit("0.92"), _number_and_unit("gather")
    (('270', 'GB/s'), ('0.92', ''), ('gather', ''))
    """
    number, _, unit = text.partition(" ")
    try:
        float(number)
    except ValueError:
        return text, ""
    return number, unit
