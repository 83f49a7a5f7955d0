"""Write tests/snapshots/steps.json anew and print what moved, by which ratio: python -m tests.update_snapshots."""

import json
import sys
from pathlib import Path

from perfmodel import catalog
from perfmodel.scenario import of_evidence, predicted, resolve

SNAPSHOT = Path(__file__).parent / "snapshots" / "steps.json"


def predictions(name: str) -> dict[str, float]:
    """Return what a published row's quantities are predicted to be today."""
    spec = catalog.load_evidence(name).spec
    rates = catalog.load_conditions(spec.conditions).rates()
    values = predicted(resolve(of_evidence(spec, catalog.load_model(spec.conditions.model).spec, rates)))
    return {measured.quantity: values[measured.quantity] for measured in spec.measured}


def main() -> None:
    """Compare, print and write."""
    before = json.loads(SNAPSHOT.read_text()) if SNAPSHOT.exists() else {}
    after = {name: predictions(name) for name in catalog.names("evidence")}
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
