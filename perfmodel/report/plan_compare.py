"""Two runs beside each other as a document."""

from collections.abc import Sequence
from typing import Any

from perfmodel.algebra import as_float
from perfmodel.planning.compare import Difference, RowDifference, Whole, served_otherwise, shared_phases
from perfmodel.planning.pools import Run, resolved_pools
from perfmodel.report.quantity import format_quantity
from perfmodel.report.side_by_side import side_columns, side_row
from perfmodel.report.table import Column, Document, Table, answer_table, in_part, under

SAID = 4  # of what stands beside each other and of the differences, in the answer
SHOWN_ROWS = 12  # of each pool; the others are summed
BESIDE = side_columns("first", "second", "second over first")


def _wholes(first: Whole | None, second: Whole | None) -> Table:
    """Return two deployments as wholes; nothing where one of them is a pool alone."""
    if first is None or second is None:
        return Table("The deployments", BESIDE, ())
    numbers = (
        ("cards", "1", "cards"),
        ("servers", "1", "servers"),
        ("requests per second, sustained", "1/s", "requests_per_s"),
        ("output tokens/s per card of the deployment, sustained", "1/s", "tokens_per_s_per_card"),
        ("TPOT", "s", "tpot"),
        ("chance of meeting its limit", "%", "chance"),
        ("TTFT", "s", "ttft"),
    )
    money = (
        ("cost an hour, in the money of its price", "1", "per_hour"),
        ("cost of a million output tokens", "1", "per_million_tokens"),
    )
    rows = [side_row("deployment", None, first.name, second.name)]
    for keys, one, two in ((numbers, first, second), (money, first.cost, second.cost)):
        for what, unit, key in keys if one is not None and two is not None else ():
            a, b = getattr(one, key), getattr(two, key)
            if a is not None and b is not None:
                rows.append(side_row(what, unit, a, b))
    loads = [
        f"{one.utilisation:.0%}" + ("" if one.asked is None else f", {one.asked:g} req/s asked")
        for one in (first, second)
    ]
    note = f"sustained: at the load allowed, or the rate asked for: {loads[0]}; {loads[1]}; cards are of whole servers"
    return Table("The deployments", BESIDE, tuple(rows), (note,))


def _pools(first: Run, second: Run, wholes: bool) -> Table:
    """Return the pools beside each other; TPOT of pools alone where there are no two deployments."""
    rows: list[dict[str, Any]] = []
    sides = [resolved_pools(run) for run in (first, second)]
    for phase in shared_phases(first, second):
        pools = [side[phase] for side in sides]
        rows.append(
            side_row(f"{phase} tokens per second and card", "1/s", *(pool.tokens_per_s_per_card for pool in pools))
        )
        rows.append(side_row(f"step of {phase}", "s", *(as_float(pool.point.step_time) for pool in pools)))
        rows.append(side_row(f"memory of a die, {phase}", "B", *(as_float(pool.point.memory) for pool in pools)))
        if phase == "decode" and not wholes:
            rows.append(side_row("TPOT", "s", *(pool.tpot for pool in pools)))
    notes = ("mixed instances: tokens count all time, prefill and decode; memory holds both",)
    return Table("The pools", BESIDE, tuple(rows), notes if first.mixed or second.mixed else ())


def _largest(rows: Sequence[RowDifference]) -> list[dict[str, Any]]:
    """Return the rows of each pool that differ most, and the sum of its others, so that they add up."""
    found = []
    for phase in dict.fromkeys(row.phase for row in rows):
        own = [row for row in rows if row.phase == phase]
        pieces = [(row.name, row.first, row.second) for row in own[:SHOWN_ROWS]]
        if rest := own[SHOWN_ROWS:]:
            pieces.append((f"{len(rest)} more", sum(row.first for row in rest), sum(row.second for row in rest)))
        pieces.append(("all", sum(row.first for row in own), sum(row.second for row in own)))
        found += [
            {"phase": phase, "row": name, "first": a, "second": b, "change": b - a} for name, a, b in pieces if a or b
        ]
    return found


def compare_document(
    first: Run,
    second: Run,
    names: tuple[str, str],
    wholes: tuple[Whole | None, Whole | None],
    differences: Sequence[Difference],
    rows: Sequence[RowDifference],
) -> Document:
    """Return both as wholes and by pool, what differs with what it is worth, and the operators that move most."""
    differing = tuple(
        {
            "phase": one.phase or "both",
            "what": one.name,
            "first": one.first,
            "second": one.second,
            "alone": one.alone,
            "back": one.back,
        }
        for one in differences
    )
    columns = (
        Column("phase", "pool"),
        Column("what", "what differs"),
        Column("first", "first"),
        Column("second", "second"),
        Column("alone", "alone on the first", "%"),
        Column("back", "taken back on the second", "%"),
    )
    row_columns = (
        Column("phase", "pool"),
        Column("row", "operator"),
        Column("first", "first", "s"),
        Column("second", "second", "s"),
        Column("change", "difference", "s"),
    )
    notes = (
        f"first: {names[0]}; second: {names[1]}",
        "worth: change of tokens per second and card of the pool, of mixed instances or of serving of both pools in "
        "proportion, at the batches as they are; '-': not possible alone, or rates per card do not feel it",
        "operators: card-seconds of one token (of input in prefill), rows that decide; 'all' is their sum, its cost",
    )
    otherwise = dict.fromkeys(
        words
        for phase in shared_phases(first, second)
        for words in served_otherwise(first.pools[phase].conditions, second.pools[phase].conditions)
    )
    both, pools = _wholes(*wholes), _pools(first, second, None not in wholes)
    warned = f"; rates do not compare: {'; '.join(otherwise)}" if otherwise else ""
    return Document(
        schema="moeplan.compare/1",
        title=f"{names[0]} against {names[1]}{warned}",
        tables=(
            *in_part("sides", deployments=both, pools=pools),
            *in_part(
                "differences",
                worth=Table("What differs, and what it is worth", columns, differing),
                operators=Table("Where the time of a token goes", row_columns, tuple(_largest(rows))),
            ),
        ),
        facts={"first": names[0], "second": names[1], "differences": len(differing), "comparable": not otherwise},
        notes=notes,
        answer=_answer((both if both.rows else pools).rows, differences, warned),
        opening=("sides",),
    )


def _answer(beside: Sequence[dict[str, Any]], differences: Sequence[Difference], warned: str) -> Table:
    """Return how the second stands to the first, and what of that its largest differences are worth alone."""
    moved = [row for row in beside if row["change"] is not None]
    rows = under(
        "answer",
        (
            f"{row['what']}: second {100 * row['change']:+.1f} % ({format_quantity(row['first'], row['unit'])} to "
            f"{format_quantity(row['second'], row['unit'])})"
            for row in moved[:SAID]
        ),
    )
    worth = sorted((one for one in differences if one.alone), key=lambda one: -abs(one.alone or 0.0))
    rows += under(
        "most by",
        (f"{one.name}: {one.first} to {one.second}, {100 * (one.alone or 0.0):+.1f} % alone" for one in worth[:SAID]),
    )
    if warned:
        rows.append(("careful", warned.removeprefix("; ")))
    return answer_table(rows or [("answer", "nothing differs")])
