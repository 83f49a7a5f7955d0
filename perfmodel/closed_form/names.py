"""The numbers of a step that have a closed form, and what a user calls them."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase

from perfmodel.algebra import as_float
from perfmodel.closed_form.run import LANES, Point, Run, Wanted
from perfmodel.errors import UsageError, did_you_mean
from perfmodel.ledger.records import Block
from perfmodel.prediction.breakdown import runs_of
from perfmodel.prediction.serving import pool_of
from perfmodel.timing.operators import time_op
from perfmodel.timing.step import core_shares

#: what is asked of a row -> its unit
OF_A_ROW = {"time": "s", "flop": "FLOP", "bytes": "B", "sent": "B"}


def numbers_of(point: Point) -> dict[str, Wanted]:
    """Return by name every number of a step that has a form."""
    run = Run(point)
    totals = {"step": ("step_time", "s"), "memory": ("memory", "B"), "tokens_per_s": ("tokens_per_s", "1/s")}
    if point.family.phase == "decode":
        totals["tpot"] = ("tpot", "s")
    served = pool_of(run.ledger, run.step(), run.layout, run.family, run.case)
    found = {
        name: Wanted(name=name, kind="step", what=name, unit=unit, value=as_float(getattr(served, key)))
        for name, (key, unit) in totals.items()
    }
    for block in run.ledger.blocks:
        if not block.count:
            continue
        for what in ("layer", *LANES):
            name = block.name if what == "layer" else f"{block.name}.{what}"
            one = Wanted(name=name, kind="block", what=what, unit="s", value=0.0, block=block.name)
            if value := float(Run(point).layer(one)):
                found[name] = replace(one, value=value)
        for one in _rows_of(run, block):
            found[one.name] = one
    return found


def _rows_of(run: Run, block: Block) -> Iterable[Wanted]:
    shares = core_shares(block, run.family, run.layout.attention_cores, run.rates)
    runs = runs_of(run.ledger, block)
    for part in dict.fromkeys((*block.attention, *block.experts, *block.joined, *block.beside)):
        for op in run.ledger.parts[part]:
            time = as_float(time_op(op, run.rates, shares[0 if part in block.attention else 1]).time)
            each = {"time": time, "flop": op.flop, "bytes": op.bytes, "sent": op.sent}
            for what, unit in OF_A_ROW.items() if time else ():
                if each[what]:
                    yield Wanted(
                        name=f"{block.name}/{op.name}" + ("" if what == "time" else f".{what}"),
                        kind="row",
                        what=what,
                        unit=unit,
                        value=as_float(runs * each[what]),
                        block=block.name,
                        part=part,
                        op=op.name,
                    )


def asked_for(word: str, numbers: Mapping[str, Wanted]) -> list[Wanted]:
    """Return the numbers that a name or a pattern means, those of rows in the block where they take the most.

    A row goes by its name in the table (``attention.core``), or by what follows the dot; ``block/row`` names the
    block, and ``.flop``, ``.bytes`` or ``.sent`` after it another number than its time.  Raises ``UsageError``
    where nothing is meant.
    """
    short: dict[str, Wanted] = {}
    for name, one in numbers.items():
        bare = name.partition("/")[2] or name
        if bare not in short or short[bare].value < one.value:
            short[bare] = one
    known = {**short, **numbers} if "/" in word else short
    if word in known:
        return [known[word]]
    of_rows = {name: one for name, one in known.items() if one.kind == "row"}
    found = [one for name, one in of_rows.items() if name.partition(".")[2] == word]
    # a pattern means times, unless it means no time at all
    matches = [one for name, one in known.items() if fnmatchcase(name, word)]
    found = found or [one for one in matches if one.what not in OF_A_ROW or one.what == "time"] or matches
    if not found:
        tails = {name.partition(".")[2] for name, one in of_rows.items() if one.what == "time"}
        near = did_you_mean(word, [*numbers] if "/" in word else [*short, *sorted(tails)])
        raise UsageError(f"--formula: {word!r} is no number of this step{near}; see all with --formula list")
    return found
