"""Cold start and peak memory of the commands: a new process each time."""

import subprocess
import sys
from typing import Any

import pytest

SOLVE = "solve deepseek-v3 --on cloudmatrix384 --cards {cards} --isl 4096 --osl 1024 --tpot 50ms"
#: words of a command and the seconds it may take
COMMANDS = {
    "help": ("--help", 0.3),
    "list": ("list systems", 0.6),
    "explain": ("explain --evidence seed-cm384-decode", 0.6),
    "solve 16 cards": (SOLVE.format(cards=16), 1.0),
    "solve 160 cards": (SOLVE.format(cards=160), 1.5),
    "solve 384 cards": (SOLVE.format(cards=384), 1.5),
    "solve atlas-800i-a2": (
        "solve deepseek-v3 --on atlas-800i-a2 --cards 48 --isl 1024 --osl 2048 --tpot 100ms",
        1.5,
    ),
}
LARGEST_MEMORY = 300e6


def run(words: str) -> None:
    subprocess.run([sys.executable, "-m", "perfmodel", *words.split()], capture_output=True, check=True)


@pytest.mark.parametrize("name", COMMANDS)
def test_cold_start(benchmark: Any, name: str) -> None:
    words, limit = COMMANDS[name]
    benchmark.pedantic(lambda: run(words), rounds=7, warmup_rounds=1)
    assert benchmark.stats.stats.min < limit


PEAK = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", "perfmodel", *sys.argv[1:]], capture_output=True, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.parametrize("name", ["help", "explain", "solve 160 cards", "solve 384 cards"])
def test_peak_memory(benchmark: Any, name: str) -> None:
    """A process between measures one child alone: the figure of all children so far would be that of the largest."""
    words = COMMANDS[name][0].split()
    done = benchmark.pedantic(
        lambda: subprocess.run([sys.executable, "-c", PEAK, *words], capture_output=True, text=True, check=True),
        rounds=1,
    )
    peak = int(done.stdout) * 1024
    benchmark.extra_info["peak MB"] = round(peak / 1e6)
    assert peak < LARGEST_MEMORY
