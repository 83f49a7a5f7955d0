"""Scored published results -> a document."""

from collections.abc import Iterable, Sequence
from typing import Any

from perfmodel.report.table import Column, Document, Table, answer_table, in_part, under
from perfmodel.report.trust import off
from perfmodel.scoring.deployments import Deployed
from perfmodel.scoring.favoured import FavouredCase
from perfmodel.scoring.given_one import GivenOne
from perfmodel.scoring.neighbours import Anchor
from perfmodel.scoring.peers import Beside
from perfmodel.scoring.summaries import IN_SAMPLE, LEFT_OUT, Summary
from perfmodel.scoring.validation import Result, Scored

NOTES = (
    "error: predicted over measured, less 1; in summaries and beside other models rates count as times, so "
    "that above is slow throughout; the first quantity of each row counts, and every quantity of a deployment",
    "source left out: as if the source had never been read: no row of it is fitted to, and every number measured in it "
    "or worked out from it is back at what its class is known by; hit: the measured value lies in the 90 % interval of "
    "that",
    "intervals: all stated ranges at once, a Latin hypercube of 512 points, and what the model leaves out, in a loop "
    "of full batches or in service; score: mean interval score of the 90 % intervals relative to the measured value, "
    "the smaller the better",
    "nearest: the row on file of the same phase, not the row itself, at the least distance: mean absolute ln ratio of "
    "dies, tokens of a die in a step and mean context, and 1 for each of chip, model, overlap, exchange and precision "
    "that differs; its error with above slow",
)
DEPLOYED_NOTES = (
    "cards of both pools; where it is said how clients send, waits, ramp and drain are of a replay of their requests; "
    "else both pools are full and the slower one sets the rate, which errs high; public kernels stand for those of "
    "later releases, which errs low",
)
PEER_NOTES = (
    "other models as run by others or as their authors state it; '-': the row is not on file or not asked for",
)
MADE_BY = ("all rows on file, as moeplan validate prints them",)


#: of every table of scored quantities
SCORED = (
    Column("quantity", "quantity"),
    Column("unit", "unit"),
    Column("measured", "measured", "row"),
    Column("predicted", "predicted", "row"),
    Column("error", "error", "%"),
)
INTERVALS = (
    Column("low50", "50 % low", "row", spare=5),
    Column("high50", "50 % high", "row", spare=5),
    Column("low90", "90 % low", "row", spare=1),
    Column("high90", "90 % high", "row", spare=1),
)

FEW = 6  # rows that are all shown
#: group of a summary -> how the answer calls it
_GROUPS = {
    "service": "clients of engines",
    "driver": "loops at full batch",
    "step or TPOT": "steps and TPOT",
    "rate": "rates",
    "first token": "first tokens",
    "deployment": "whole deployments",
}


def _numbers(score: Scored) -> dict[str, Any]:
    return {
        "quantity": score.quantity,
        "unit": score.unit,
        "measured": score.measured,
        "predicted": score.predicted,
        "error": score.error,
        **score.interval.as_dict(),
        "inside50": score.inside50,
        "inside": score.inside90,
        "left_out": None if score.left_out is None else score.left_out.error,
        "left_out_inside": None if score.left_out is None else score.left_out.inside90,
    }


def _rows(found: Result | Deployed, *, fits: bool, **own: Any) -> list[dict[str, Any]]:
    """Return a row per quantity of a published result; ``own`` are the cells that only its table has."""
    spec = found.spec
    shared = {
        "row": spec.name,
        "role": spec.role,
        "measured_on": spec.measured_on,
        "fits": fits,
        "confidence": spec.confidence,
        "assumed": ", ".join([*spec.assumed, *(f"{one.key} (open)" for one in spec.open)]) or "nothing",
        **own,
    }
    return [shared | _numbers(score) for score in found.scores]


def _result_rows(result: Result, near: tuple[Anchor, float] | None) -> list[dict[str, Any]]:
    conditions, (anchor, distance) = result.spec.conditions, near or (None, None)
    return _rows(
        result,
        fits=result.fits,
        source=result.spec.source,
        system=conditions.system,
        phase=conditions.phase,
        nearest=None if anchor is None else anchor.name,
        nearest_error=None if anchor is None else anchor.slow,
        distance=distance,
    )


def _deployed_rows(deployed: Deployed) -> list[dict[str, Any]]:
    joined = deployed.joined
    return _rows(
        deployed,
        fits=joined.fits,
        cards=joined.cards,
        batch=joined.decode.plan.layout.batch,
        decided_by=deployed.decided_by,
        prefill_rate=joined.prefill_requests_per_s,
        decode_rate=joined.decode_requests_per_s,
    )


def _fields(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def _trust_columns(spare: int) -> tuple[Column, ...]:
    """Return how far a row is to be trusted; ``spare`` is of the trust itself."""
    return (
        Column("fits", "fits", spare=6),
        Column("confidence", "trust", spare=spare),
        Column("assumed", "conditions assumed", spare=6),
    )


LEFT_OUT_COLUMNS = (Column("left_out", "source left out", "%"), Column("left_out_inside", "hit", spare=1))


def _rows_table(role: str, rows: list[dict[str, Any]]) -> Table:
    columns = (
        Column("row", "published row"),
        *SCORED,
        *LEFT_OUT_COLUMNS,
        *INTERVALS,
        Column("inside50", "in 50 %", spare=5),
        Column("inside", "in 90 %", spare=1),
        Column("nearest", "nearest", spare=2),
        Column("nearest_error", "its error", "%", spare=3),
        Column("distance", "distance", "1", spare=4),
        Column("role", "role", spare=8),
        Column("measured_on", "measured on", spare=3),
        Column("source", "source", spare=6),
        Column("system", "system", spare=7),
        Column("phase", "phase", spare=7),
        *_trust_columns(4),
    )
    return Table(f"Steps, {role} rows", columns, tuple(row for row in rows if row["role"] == role))


TITLES = {
    LEFT_OUT: "Left out by source, with what was read off it: above is slow",
    IN_SAMPLE: "With all that is on file: above is slow",
}


def _summary_table(predicted: str, summaries: Sequence[Summary]) -> Table:
    columns = (
        Column("by", "by"),
        Column("group", "group"),
        Column("results", "numbers", "1"),
        Column("mean", "mean abs error", "%"),
        Column("bias", "bias", "%"),
        Column("worst", "worst", "%", spare=1),
        Column("inside50", "inside 50 %", "%", spare=1),
        Column("inside90", "inside 90 %", "%"),
        Column("half", "half-width", "%", spare=1),
        Column("score", "score", "1"),
        Column("predicted", "predicted", spare=5),
    )
    return Table(TITLES[predicted], columns, tuple(_fields(s) for s in summaries if s.predicted == predicted))


def _given_one_table(found: Sequence[GivenOne]) -> Table:
    columns = (
        Column("source", "source"),
        Column("phase", "phase"),
        Column("quantity", "quantity"),
        Column("measured_on", "measured on"),
        Column("numbers", "numbers", "1"),
        Column("before", "mean abs error", "%"),
        Column("after", "given one row", "%"),
        Column("inside90", "inside 90 %", "%"),
        Column("half", "half-width", "%", spare=1),
        Column("pairs", "pairs", "1", spare=2),
        Column("run", "what served what", spare=3),
    )
    note = "each number predicted from every other row of its source, run and phase in turn, by --site; all else of "
    note += "the source left out"
    return Table("What one measured row of a site buys", columns, tuple(map(_fields, found)), (note,))


def _cases_table(found: Sequence[FavouredCase]) -> Table:
    columns = (
        Column("row", "row"),
        Column("case", "case"),
        Column("error", "its error", "%"),
        Column("stated", "weight stated", "%"),
        Column("given", "given the measurement", "%"),
    )
    note = "above is slow; the prediction is of all cases with the weights stated, whatever the measurement favours"
    return Table("Conditions that sources leave open", columns, tuple(map(_fields, found)), (note,))


def _parts_table(results: Iterable[Result]) -> Table:
    columns = (
        Column("row", "row"),
        Column("part", "part of the step"),
        Column("measured", "measured", "s"),
        Column("predicted", "predicted", "s"),
        Column("error", "error", "%"),
    )
    rows = [
        {"row": one.spec.name, "part": name, "measured": measured, "predicted": found, "error": found / measured - 1}
        for one in results
        for name, measured, found in one.parts
    ]
    return Table(
        "Parts of a step as a profiled rank shows them, waits inside the exchanges",
        columns,
        tuple(rows),
        ("on a rank of mean load: it waits for the busiest attention in dispatch, for the busiest experts in combine",),
    )


def _peer_table(peers: Sequence[Beside]) -> Table:
    columns = (
        Column("row", "published row"),
        Column("quantity", "quantity"),
        Column("ours", "this model", "%"),
        Column("peer", "other model"),
        Column("theirs", "its error", "%"),
        Column("note", "note", spare=1),
    )
    return Table("Other models on the same rows: above is slow", columns, tuple(map(_fields, peers)), PEER_NOTES)


def _deployed_table(deployed: Sequence[Deployed]) -> Table:
    columns = (
        Column("row", "deployment"),
        *SCORED,
        *LEFT_OUT_COLUMNS,
        *INTERVALS,
        Column("inside", "in 90 %", spare=1),
        Column("cards", "cards", "1", spare=4),
        Column("batch", "decode batch", "1", spare=5),
        Column("decided_by", "rate set by", spare=1),
        Column("prefill_rate", "prefill requests/s", "1/s", spare=4),
        Column("decode_rate", "decode requests/s", "1/s", spare=4),
        Column("role", "role", spare=6),
        *_trust_columns(5),
    )
    rows = tuple(row for one in deployed for row in _deployed_rows(one))
    return Table("Whole deployments", columns, rows, DEPLOYED_NOTES)


def validation_document(
    *,
    results: Sequence[tuple[Result, tuple[Anchor, float] | None]],
    summaries: Sequence[Summary],
    peers: Sequence[Beside],
    deployed: Sequence[Deployed],
    given_one: Sequence[GivenOne],
    cases: Sequence[FavouredCase],
    first: Sequence[str] = (),
) -> Document:
    """Return the scoreboard, rows, other models and deployments; tables without rows are left out.

    ``first`` are notes that come before the others.
    """
    rows = [row for result, near in results for row in _result_rows(result, near)]
    tables = [
        *in_part("scores", left_out=_summary_table(LEFT_OUT, summaries)),
        *in_part("site", one_row=_given_one_table(given_one)),
        *in_part("rows", golden=_rows_table("golden", rows), reference=_rows_table("reference", rows)),
        *in_part("deployments", scored=_deployed_table(deployed)),
        *in_part("in_sample", scores=_summary_table(IN_SAMPLE, summaries)),
        *in_part("open", cases=_cases_table(cases)),
        *in_part("parts", steps=_parts_table(result for result, _ in results)),
        *in_part("peers", beside=_peer_table(peers)),
    ]
    whole = next((one for one in summaries if one.by == "all"), None)
    facts = {
        "rows": len(rows),
        "published_results": len(results) + len(deployed),
        "scoreboard": None if whole is None else _fields(whole),
        "given_one": [_fields(one) for one in given_one],
        "summaries": [_fields(summary) for summary in summaries],
    }
    notes = (*first, *((headline(whole), *NOTES) if whole else ()))
    return Document(
        schema="moeplan.validation/3",
        title="Predicted against published",
        tables=tuple(table for table in tables if table.rows),
        facts=facts,
        notes=notes,
        answer=_answer(summaries, rows, deployed),
        opening=("rows", "deployments") if len(rows) + len(deployed) <= FEW else (),
    )


def _answer(summaries: Sequence[Summary], rows: Sequence[dict[str, Any]], deployed: Sequence[Deployed]) -> Table:
    """Return the score of all numbers, and of each kind of them, as if their source had never been read."""
    kept = [one for one in summaries if one.predicted == LEFT_OUT] or list(summaries)
    whole = next((one for one in kept if one.by == "all"), None)
    if whole is None:
        told = [("answer", f"{len(rows) + len(deployed)} published results; none counts in a score")]
    else:
        groups = [one for one in kept if one.group in _GROUPS and one.results > FEW]
        told = [("answer", f"{_many(whole.results)}, predicted without the source: {_score_words(whole)}")]
        told += under("of them", (f"{one.results} of {_GROUPS[one.group]}: {_score_words(one)}" for one in groups))
    return answer_table([*told, ("next", "--show scores,rows,deployments, moeplan validate MY-RUN.yaml")])


def _many(count: int) -> str:
    return f"{count} number{'' if count == 1 else 's'}"


def _score_words(one: Summary) -> str:
    return f"{100 * one.mean:.0f} % off, bias {off(one.bias)}, {100 * one.inside90:.0f} % inside 90 %"


def headline(whole: Summary) -> str:
    """Return the score that counts in one sentence."""
    how = "without its source and what was read off it" if whole.predicted == LEFT_OUT else "with all on file"
    return (
        f"{whole.results} published numbers, each predicted {how}: mean error {100 * whole.mean:.1f} %, "
        f"bias {100 * whole.bias:+.1f} %, {100 * whole.inside90:.0f} % inside the 90 % interval, "
        f"{100 * whole.inside50:.0f} % inside the 50 % one, score {whole.score:.2f}"
    )
