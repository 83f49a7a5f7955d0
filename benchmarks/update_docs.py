"""Write docs/accuracy.md anew: what `moeplan accuracy`, `validate` and `calibrate --evidence` print."""

import os
import subprocess
import sys
from pathlib import Path

VARIABLE = "MOEPLAN_MEASUREMENTS"
PAGE = Path(__file__).resolve().parent.parent / "docs" / "accuracy.md"
COMMANDS = (
    ("accuracy", "--format", "markdown"),
    ("validate", "--leave-one-out", "--format", "markdown"),
    ("calibrate", "--evidence", "--format", "markdown"),
)


def main() -> None:
    """Run the commands and write the page; the folder of public tables comes from the environment."""
    if not os.environ.get(VARIABLE):
        sys.exit(f"error: {VARIABLE} is not set; allowed: the folder with the public tables")
    parts = []
    for words in COMMANDS:
        done = subprocess.run(
            [sys.executable, "-m", "perfmodel", *words], stdout=subprocess.PIPE, text=True, check=True
        )
        parts.append(done.stdout)
    PAGE.write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
