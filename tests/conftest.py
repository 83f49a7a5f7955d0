"""Pins the terminal and runs the command as a user does."""

import subprocess
from collections.abc import Callable

import pytest

from tests import process
from tests.update_snapshots import environment as pinned

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def moeplan() -> Run:
    """Run the command line in a pinned terminal."""

    def run(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return process.run(*words, env=pinned(**{"COLUMNS": "100"} | environment))

    return run
