"""Write tests/snapshots anew and print what moved, by which ratio: python -m tests.update_snapshots.

What is there is our memory of what the program said last and was found good, not what is true.
"""

import json
import os
import sys
from collections.abc import Iterator
from difflib import unified_diff
from pathlib import Path

from perfmodel.files import folders
from perfmodel.planning.published import row_on_file
from tests import process

FOLDER = Path(__file__).parent / "snapshots"
SNAPSHOT = FOLDER / "steps.json"
CORES, STAGES, LINK = "cm384-decode-4k-b96", "xds-disaggregated-decode", "cm384-prefill-default"
SOLVE = "solve deepseek-v3 --on cm384 --cards 32 --isl 1024 --osl 512 --tpot 50ms"
#: name of a file -> the command whose text at each width it holds
TEXTS = {
    "list-systems": ("list", "systems"),
    "explain-answer": ("explain", "--evidence", CORES),
    "explain-decode": ("explain", "--evidence", CORES, "--show", "all"),
    "explain-prefill": ("explain", "--evidence", "seed-prefill-16x", "--show", "all"),
    "explain-tree": ("explain", "--evidence", CORES, "--tree"),
    "explain-roofline": ("explain", "--evidence", CORES, "--roofline"),
    "explain-layer-stages": ("explain", "--evidence", STAGES, "--layer", "moe"),
    "explain-layer-link": ("explain", "--evidence", LINK, "--layer", "moe"),
    "explain-compare": ("explain", "--evidence", CORES, "--compare", "draft=0,batch=64"),
    "solve": tuple(SOLVE.split()),
    "solve-all": (*SOLVE.split(), "--show", "all"),
}
WIDTHS = (80, 140)
#: environment in which every terminal says the same
PINNED = {"NO_COLOR": "1", "TERM": "dumb", "PYTHONIOENCODING": "utf-8"}


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a pinned terminal."""
    return {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "MOEPLAN_DEBUG")} | PINNED | more


def texts() -> Iterator[tuple[Path, str]]:
    """Yield each file of text and what its command prints today."""
    for name, words in TEXTS.items():
        for columns in WIDTHS:
            done = process.run(*words, env=environment(COLUMNS=str(columns)), check=True)
            yield FOLDER / f"{name}-{columns}.txt", done.stdout


def predictions(name: str) -> dict[str, float]:
    """Return what a published row's quantities are predicted to be today, of mixed instances as clients see them."""
    row = row_on_file(name)
    wanted = [measured.quantity for measured in row.spec.measured]
    values = row.predicted(wanted)
    return {quantity: values[quantity] for quantity in wanted}


def main() -> None:
    """Compare, print and write."""
    for path, text in texts():
        last = path.read_text(encoding="utf-8") if path.exists() else ""
        sys.stdout.writelines(unified_diff(last.splitlines(True), text.splitlines(True), path.name, "today", n=0))
        path.write_text(text, encoding="utf-8")
    before = json.loads(SNAPSHOT.read_text()) if SNAPSHOT.exists() else {}
    after = {name: predictions(name) for name in folders.names("evidence")}
    lines = []
    for name, values in after.items():
        for quantity, value in values.items():
            last = before.get(name, {}).get(quantity)
            if last != value:
                moved = "new" if last is None else f"x {value / last:.6f}"
                lines.append(f"{name} {quantity}: {value:.6g} ({moved})")
    lines += [f"{name}: gone" for name in before.keys() - after.keys()]
    SNAPSHOT.write_text(json.dumps(after, indent=1) + "\n")
    sys.stdout.write("\n".join([*lines, f"{len(lines)} moved"]) + "\n")


if __name__ == "__main__":
    main()
