"""What every change would gain, and the smallest sets that reach a goal, as documents."""

from collections.abc import Sequence
from typing import Any

from perfmodel.planning.best_batches import Outcome, as_it_is
from perfmodel.planning.changes import Refusal
from perfmodel.planning.compare import Whole
from perfmodel.planning.pools import Run
from perfmodel.planning.smallest_changes import Goal, Way
from perfmodel.planning.what_if import Effect, Pair
from perfmodel.report.layout_words import software_words
from perfmodel.report.quantity import format_quantity
from perfmodel.report.table import Column, Document, Table, answer_table, in_part, under
from perfmodel.specs.deployment import PHASES

BEST = 6  # changes that the answer names
FEW = 5  # changes that are all shown
NEXT = "--show changes, --reach tpot=30ms, --only NAME"


def _batches(found: Outcome) -> str:
    return ", ".join(f"{phase} {one.plan.layout.batch}" for phase, one in found.pools.items())


def _rate_row(run: Run, before: Outcome) -> dict[str, Any]:
    osl = float(next(iter(run.pools.values())).conditions.osl)
    tokens = osl if "decode" in run.pools else float(next(iter(run.pools.values())).conditions.isl)
    return {
        "tokens_per_s_per_card": before.requests_per_s_per_card * tokens,
        "tpot": before.tpot,
        "ttft": before.ttft,
        "batch": _batches(before),
    }


def what_if_tables(run: Run, effects: Sequence[Effect], refused: Sequence[Refusal]) -> tuple[Table, Table]:
    """Return the changes ranked by gain, and those that cannot be made with the rule."""
    both = len(run.pools) > 1
    columns = [
        Column("change", "change"),
        Column("by", "by", spare=1),
        Column("gain", "tokens/s per card", "%"),
        Column("low90", "90 % from", "%"),
        Column("high90", "to", "%"),
        *([Column(phase, phase, "%", spare=3) for phase in reversed(PHASES)] if both else []),
        Column("batch", "batch", spare=5),
        Column("why", "why"),
    ]
    rows = [
        {
            "change": f"{one.change.name}: {one.change.now} to {one.change.setting}",
            "name": one.change.label,
            "by": one.change.by,
            "gain": one.gain,
            "low90": one.gain_interval.low90,
            "high90": one.gain_interval.high90,
            **{phase: one.of_pool.get(phase) for phase in reversed(PHASES) if both},
            "batch": _batches(one.outcome),
            "why": one.why,
        }
        for one in effects
    ]
    refusals = tuple({"change": one.change.label, "why": one.why} for one in refused)
    return (
        Table("Each change alone, at the same target", tuple(columns), tuple(rows)),
        Table("Cannot act here", (Column("change", "technique"), Column("why", "rule")), refusals),
    )


def what_if_document(
    run: Run,
    name: str,
    before: Outcome,
    effects: Sequence[Effect],
    refused: Sequence[Refusal],
    together: Sequence[Pair],
    whole: Whole | None = None,
    engine: str | None = None,
) -> Document:
    """Return the changes ranked by gain, those that change nothing, those refused, and pairs where asked for.

    ``whole`` is the deployment that is varied; what it does as it is comes first.  ``engine`` is what schedules it.
    """
    both = len(run.pools) > 1
    ranked, cannot = what_if_tables(run, effects, refused)
    pair_rows = tuple(
        {
            "first": pair.first.label,
            "second": pair.second.label,
            "gain": pair.gain,
            "alone": pair.alone,
            "extra": pair.extra,
        }
        for pair in together
    )
    here = _rate_row(run, before)
    stack = (run.pools.get("decode") or next(iter(run.pools.values()))).machine.stack.spec.name
    start = (
        Column("tokens_per_s_per_card", "tokens/s per card" + (", pools in proportion" if both else ""), "1/s"),
        Column("tpot", "TPOT", "s"),
        Column("ttft", "TTFT", "s"),
        Column("batch", "batch per dp rank"),
    )
    pair_columns = (
        Column("first", "one"),
        Column("second", "other"),
        Column("gain", "together", "%"),
        Column("alone", "product of both alone", "%"),
        Column("extra", "extra", "%"),
    )
    stands = (
        Column("deployment", "deployment"),
        Column("requests_per_s", "req/s, sustained", "1/s"),
        Column("sustained", "tokens/s per card, sustained", "1/s"),
    )
    as_given = _rate_row(run, as_it_is(run))
    if whole is not None:
        as_given |= {
            "deployment": whole.name,
            "requests_per_s": whole.requests_per_s,
            "sustained": whole.tokens_per_s_per_card,
        }
    limit = f"TPOT within {run.tpot * 1e3:.4g} ms" if run.tpot is not None else "no TPOT limit"
    wait = run.ttft
    within = f", TTFT within {wait:.3g} s" if wait is not None else ", prefill batches never raised"
    proportion = (
        "rates are of both pools fully loaded, in the proportion in which one feeds the other: 1 / (1/r_prefill + "
        "1/r_decode) of rates per card; whole instances, idle cards, the load limit and the rate asked for are left "
        "out of all but what is sustained as it is",
    )
    return Document(
        schema="moeplan.what-if/1",
        title=f"What if: {name}",
        tables=(
            *in_part(
                "now",
                given=Table("As it is", (*(stands if whole is not None else ()), *start), (as_given,)),
                best_batch=Table("Without any change, at its best batch", start, (here,)),
            ),
            *in_part("changes", alone=ranked, pairs=Table("Two together", pair_columns, pair_rows)),
            *in_part("refused", rules=cannot),
        ),
        facts={"subject": name, "stack": stack, "engine": engine, "tpot_limit": run.tpot, "ttft_limit": wait, **here},
        notes=(
            f"software: {software_words(stack, engine)}",
            f"same target for all: {limit}{within}; batch and core split chosen anew, one request of a rank at a time; "
            "size of the instances and everything else kept",
            *(proportion if both else ()),
            "90 %: all stated ranges carried through both sides at once, at the batches chosen",
            "why: the rows of a step that move most at the old batch, and the new batch",
            "by: layout and stack can be set today; to build: the stack lacks it ('moeplan show STACK'); bound: no "
            "more than this; traffic: your requests decide",
        ),
        answer=_answer(here, effects, together),
        opening=("changes", "refused") if len(effects) <= FEW else (),
    )


def _answer(here: dict[str, Any], effects: Sequence[Effect], together: Sequence[Pair]) -> Table:
    """Return what it does, the changes that gain most, and the best two together."""
    now = f"{format_quantity(here['tokens_per_s_per_card'], '1/s')} tokens/s a card"
    now += "" if here["tpot"] is None else f" at {format_quantity(here['tpot'], 's')} a token"
    gaining = [one for one in effects if one.gain > 0]
    if not gaining:
        return answer_table([("answer", now), ("gains", "nothing that was tried gains"), ("next", NEXT)])
    rows = [("answer", f"{now}; {_gain(gaining[0])}")]
    rows += under("then", map(_gain, gaining[1:BEST]))
    if together:
        pair = max(together, key=lambda one: one.gain)
        rows.append(("two at once", f"{pair.first.label} and {pair.second.label}: {100 * pair.gain:+.1f} %"))
    return answer_table([*rows, ("next", NEXT)])


def _gain(one: Effect) -> str:
    ends = f"90 %: {100 * one.gain_interval.low90:+.1f} to {100 * one.gain_interval.high90:+.1f} %"
    return f"{one.change.label} {100 * one.gain:+.1f} % ({ends}), by {one.change.by}"


def reach_document(run: Run, name: str, goal: Goal, sets: Sequence[Way], nearest: Way | None) -> Document:
    """Return the smallest sets of changes that reach a goal, or how near the best of them comes."""
    columns = (
        Column("changes", "changes"),
        Column("by", "by"),
        Column("rate", "tokens/s per card", "1/s"),
        Column("tpot", "TPOT", "s"),
        Column("ttft", "TTFT", "s"),
        Column("batch", "batch per dp rank"),
    )

    def row(way: Way) -> dict[str, Any]:
        return {
            "changes": " + ".join(change.label for change in way.changes) or "none: it is reached as it is",
            "by": ", ".join(dict.fromkeys(change.by for change in way.changes)) or "-",
            "rate": _rate_row(run, way.reached)["tokens_per_s_per_card"],
            "tpot": way.reached.tpot,
            "ttft": way.reached.ttft,
            "batch": _batches(way.reached),
        }

    words = [f"TPOT {goal.tpot * 1e3:.4g} ms" if goal.tpot else "", f"TTFT {goal.ttft:.4g} s" if goal.ttft else ""]
    asked = ", ".join(word for word in (*words, f"batch {goal.batch}" if goal.batch else "") if word)
    rows = tuple(row(way) for way in sets)
    short = () if rows or nearest is None else (row(nearest),)
    return Document(
        schema="moeplan.reach/1",
        title=f"What reaches {asked}: {name}",
        tables=(
            *in_part(
                "sets",
                smallest=Table("Smallest sets of changes that reach it", columns, rows),
                nearest=Table("Nothing reaches it; the nearest that was tried", columns, short),
            ),
        ),
        facts={"subject": name, "reached": bool(rows), "tpot": goal.tpot, "ttft": goal.ttft, "batch": goal.batch},
        notes=(
            "batch is per attention data-parallel rank; sets of up to three changes, of those that help alone",
            "memory holds in every row",
        ),
        answer=_reach_answer(asked, rows, short),
        opening=("sets",),
    )


def _reach_answer(asked: str, rows: Sequence[dict[str, Any]], short: Sequence[dict[str, Any]]) -> Table:
    """Return the smallest set that reaches a goal, or the nearest."""
    if not (rows or short):
        return answer_table([("answer", f"✗ nothing tried reaches {asked}")])
    one = (*rows, *short)[0]
    times = [
        f"{name} {format_quantity(one[key], 's')}" for name, key in (("TPOT", "tpot"), ("TTFT", "ttft")) if one[key]
    ]
    does = ", ".join([f"{format_quantity(one['rate'], '1/s')} tokens/s a card", *times])
    said = f"✓ {asked}" if rows else f"✗ nothing tried reaches {asked}; nearest"
    return answer_table([("answer", f"{said}: {one['changes']}"), ("then", does)])
