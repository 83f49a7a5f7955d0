"""Every model on file on a few systems: what fits where, what a card serves, what was published near it.

    python benchmarks/models_page.py --into docs/models.md [--state models-page.jsonl] [--minutes 20] [--only NAME,NAME]

writes the page anew.  With --state what was worked out is kept there, a model a line, and taken from there the next
time, so that a long run may come in parts; --minutes ends it after the model at hand.  The page names the models that
are missing.  Two cores, some fifteen minutes.
"""

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from pages import table

from perfmodel.algebra import as_float
from perfmodel.errors import MoeplanError, UsageError
from perfmodel.files.catalog import load_chip, load_evidence, load_model, load_system, naming
from perfmodel.files.folders import names
from perfmodel.ledger.parameters import parameters_of
from perfmodel.planning.compare_systems import Comparison, compared
from perfmodel.report.compare_systems import why_not
from perfmodel.specs.machine import SystemSpec
from perfmodel.specs.run import RunSpec

ISL, OSL, TPOT = 4096, 1024, 0.050
PAGE = """\
# Models on file

Written by `benchmarks/models_page.py` from the models on file; do not edit.

Each model at {tpot:.0f} ms a token, {isl:,} tokens in and {osl:,} out, as `moeplan compare-systems` says it
without a size: every system of a model has the same number of cards, twice the smallest deployment of that which
needs most. The systems follow from the files: of each family of chips the system that the family's name stands
for, and of chips without a family the one with most published rows. Here: {systems}.

- **fits on**: cards of the smallest instance whose memory holds the weights and one request a rank; below a server's
  where several share one.
- **tokens/s a card**: output, sustained, of the best plan on **cards**; in brackets the 90 % interval. The number is a
  prediction: the interval says how sure it is.
- **nearest**: the published decode step at the least distance from the plan's, and the distance; a factor e in all
  sizes counts as 1, and so does another model or another chip. Above 2 nothing like it was measured.
{missing}"""
COLUMNS = ("system", "fits on", "cards", "plan", "tokens/s a card", "TPOT", "chance", "nearest, distance")


def systems_shown() -> dict[str, SystemSpec]:
    """Return the systems of the page by name: one for each family of chips, and the most published of the others."""
    chips = [load_chip(name).spec for name in names("chips")]
    found: dict[str, SystemSpec] = {}
    for family in dict.fromkeys(chip.family for chip in chips if chip.family):
        spec = load_system(family).spec
        found[spec.name] = spec
    alone = {chip.name for chip in chips if not chip.family}
    systems = [name for name in naming("systems", (alone,)) if load_system(name).spec.chip in alone]
    rows = Counter(load_evidence(name).spec.conditions.system for name in names("evidence"))
    most = max(systems, key=lambda name: (rows[name], name))
    return {**found, most: load_system(most).spec}


def worked_out(model: str, systems: dict[str, SystemSpec]) -> dict[str, Any]:
    """Return the rows of a model: of each system its plan, or why there is none."""
    run = RunSpec.model_construct(model=model, isl=ISL, osl=OSL, tpot=TPOT)
    begun = time.monotonic()
    try:
        found = compared(run, systems, prices={})
        rows = [_row(found, name) for name in systems]
    except UsageError as error:
        rows = [{"system": name, "why": str(error).split("\n")[0]} for name in systems]
    return {"model": model, "seconds": round(time.monotonic() - begun), "systems": list(systems), "rows": rows}


def _row(found: Comparison, name: str) -> dict[str, Any]:
    one = next(each for each in found.outcomes if each.system.name == name)
    row: dict[str, Any] = {"system": name, "fits": one.smallest, "server": as_float(one.system.packages_per_server)}
    if one.lack is not None:
        return row | {"allowed": one.budget, "why": why_not(one.lack)}
    ends, best, near = one.interval, one.best, one.near
    assert ends is not None
    assert best is not None
    assert one.planned is not None
    return row | {
        "cards": one.cards,
        "plan": best.short_form,
        "rate": one.tokens_per_s_per_card,
        "ends": [ends.low90, ends.high90],
        "tpot": best.tpot,
        "chance": one.planned.tpot_chance,
        "nearest": None if near is None else [near.name, near.far],
    }


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Return a row of the page."""
    fits = "-" if row.get("fits") is None else f"{row['fits']:g}"
    if "why" in row:
        on = "" if row.get("allowed") is None else f" ({row['allowed']} cards)"
        return (row["system"], fits, "-", row["why"] + on, "-", "-", "-", "-")
    near = "-" if row["nearest"] is None else f"`{row['nearest'][0]}`, {row['nearest'][1]:.2g}"
    low, high = row["ends"]
    return (
        row["system"],
        fits,
        str(row["cards"]),
        row["plan"],
        f"{row['rate']:,.0f} ({low:,.0f} to {high:,.0f})",
        f"{row['tpot'] * 1e3:.1f} ms",
        f"{row['chance']:.0%}",
        near,
    )


def page_of(held: dict[str, dict[str, Any]], systems: dict[str, SystemSpec]) -> str:
    """Return the page from what was worked out; it says what is missing."""
    every = names("models")
    missing = [name for name in every if name not in held]
    words = f"\nMissing, for want of time: {', '.join(missing)}.\n" if missing else ""
    listed = ", ".join(f"{name} ({spec.title})" for name, spec in systems.items())
    parts = [PAGE.format(isl=ISL, osl=OSL, tpot=TPOT * 1e3, systems=listed, missing=words)]
    for name in every:
        if name in held:
            model = load_model(name).spec
            counted = parameters_of(model)
            head = f"{model.title}; {counted.total / 1e9:,.0f} billion weights"
            parts.append(f"## {name}\n\n{head}.\n\n{table(COLUMNS, map(cells, held[name]['rows']))}\n")
    return "\n".join(parts)


def main() -> None:
    """Work models out until the time is over, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--state", type=Path)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--only", help="names of models with commas between")
    given = parser.parse_args()
    systems = systems_shown()
    held: dict[str, dict[str, Any]] = {}
    if given.state is not None and given.state.exists():
        for line in given.state.read_text(encoding="utf-8").splitlines():
            one = json.loads(line)
            if one["systems"] == list(systems):
                held[one["model"]] = one
    end = time.monotonic() + given.minutes * 60
    wanted = given.only.split(",") if given.only else names("models")
    for name in wanted:
        if name in held or time.monotonic() > end:
            continue
        try:
            held[name] = worked_out(name, systems)
        except MoeplanError as error:
            sys.exit(f"error: {name}: {error}")
        sys.stderr.write(f"{name}: {held[name]['seconds']} s\n")
        if given.state is not None:
            with given.state.open("a", encoding="utf-8") as state:
                state.write(json.dumps(held[name]) + "\n")
    given.into.write_text(page_of(held, systems), encoding="utf-8")


if __name__ == "__main__":
    main()
