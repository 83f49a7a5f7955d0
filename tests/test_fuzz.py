"""Hostile input made at random: every reader takes it or refuses it as a user's mistake, within seconds.

``tests/hostile.py`` makes the input, ``benchmarks/fuzz.py`` much more of it.
"""

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import hostile

#: of one core, as in the campaign of `benchmarks/fuzz.py`: by the clock, other tests would count
SECONDS = 5
#: inputs of a reader: those that work with what they read are slower
MANY, FEW = 400, 60
NUMBERS = count()


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise ``TimeoutError`` where what is done takes longer."""

    def late(*_: object) -> None:
        raise TimeoutError(f"over {seconds:g} s")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    hostile.plan_files()  # made once, and not within the time of an input
    return tmp_path_factory.mktemp("hostile")


def is_taken_or_refused(folder: Path, reader: str, draw: random.Random) -> None:
    """Hold a reader to an input; the file of a failure stays in the folder."""
    path = hostile.put(folder, reader, next(NUMBERS), hostile.made(reader, draw))
    with within(SECONDS):
        hostile.taken(reader, path)
    path.unlink()


@pytest.mark.parametrize("reader", hostile.READERS)
def test_every_reader_takes_or_refuses(folder: Path, reader: str) -> None:
    many = FEW if reader == "arguments" or reader.endswith("in use") else MANY

    @settings(
        max_examples=many,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )
    @given(st.randoms(use_true_random=False))
    def holds(draw: random.Random) -> None:
        is_taken_or_refused(folder, reader, draw)

    holds()


@pytest.mark.parametrize("reader", hostile.READERS)
def test_some_inputs_are_taken(folder: Path, reader: str) -> None:
    """Otherwise a reader that refuses everything would pass."""
    taken = 0
    for seed in range(400):
        path = hostile.put(folder, reader, next(NUMBERS), hostile.made(reader, random.Random(seed)))
        with within(SECONDS):
            taken += hostile.taken(reader, path)
        if taken:
            return
    raise AssertionError(f"none of 400 inputs of {reader} was taken")


def test_a_campaign_gives_each_reader_its_inputs() -> None:
    script = Path(__file__).parent.parent / "benchmarks" / "fuzz.py"
    words = (*("--inputs", "3"), *("--reader", "chips"), *("--reader", "runs"), *("--jobs", "1"))
    done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1:4] for line in done.stdout.splitlines()[2:]]
    assert [(name.strip(), int(inputs)) for name, inputs, _ in rows] == [("chips", 3), ("runs", 3)]


def test_one_seed_makes_one_input() -> None:
    for reader in hostile.READERS:
        assert hostile.made(reader, random.Random(7)) == hostile.made(reader, random.Random(7))
