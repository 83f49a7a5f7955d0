"""Pins the terminal and runs the command as a user does."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.update_snapshots import environment as pinned

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def moeplan() -> Run:
    """Run the command line in a pinned terminal."""

    def run(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        env = pinned(**{"COLUMNS": "100"} | environment)
        return subprocess.run(
            [sys.executable, "-m", "perfmodel", *words], capture_output=True, text=True, env=env, check=False
        )

    return run
