"""Cold start of the command line, and plans per second of the search."""

import json
import subprocess
import sys
import time

RUNS = 5
COMMANDS = {
    "help": ["--help"],
    "explain": ["explain", "--evidence", "seed-cm384-decode", "--format", "json"],
    "solve cloudmatrix384": (
        "solve deepseek-v3 --on cloudmatrix384 --cards 160 --isl 4096 --osl 1024 --tpot 50ms --format json".split()
    ),
    "solve atlas-800i-a2": (
        "solve deepseek-v3 --on atlas-800i-a2 --cards 48 --isl 1024 --osl 2048 --tpot 100ms --format json".split()
    ),
}


def main() -> None:
    """Print one line per command."""
    for name, words in COMMANDS.items():
        times, out = [], ""
        for _ in range(RUNS):
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "perfmodel", *words], capture_output=True, text=True, check=True
            )
            times.append(time.perf_counter() - start)
            out = done.stdout
        plans = json.loads(out)["facts"].get("plans_evaluated") if out.startswith("{") else None
        rate = f", {plans:,} plans, {plans / min(times) / 1e6:.1f} million plans a second" if plans else ""
        sys.stdout.write(f"{name}: {min(times):.3f} to {max(times):.3f} s{rate}\n")


if __name__ == "__main__":
    main()
