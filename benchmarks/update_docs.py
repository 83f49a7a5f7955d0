"""Write docs/accuracy.md and docs/techniques.md anew from what the commands named below print."""

import os
import subprocess
import sys
from pathlib import Path

VARIABLE = "MOEPLAN_MEASUREMENTS"
DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = {
    "accuracy.md": (
        ("accuracy", "--format", "markdown"),
        ("validate", "--leave-one-out", "--format", "markdown"),
        ("calibrate", "--evidence", "--format", "markdown"),
    ),
    "techniques.md": (("gains", "--format", "markdown"),),
}


def main() -> None:
    """Run the commands and write the pages; the folder of public tables comes from the environment."""
    if not os.environ.get(VARIABLE):
        sys.exit(f"error: {VARIABLE} is not set; allowed: the folder with the public tables")
    for page, commands in PAGES.items():
        parts = []
        for words in commands:
            done = subprocess.run(
                [sys.executable, "-m", "perfmodel", *words], stdout=subprocess.PIPE, text=True, check=True
            )
            parts.append(done.stdout)
        (DOCS / page).write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
