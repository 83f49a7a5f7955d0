"""Pins the terminal and runs the command as a user does."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def moeplan() -> Run:
    """Run the command line in a pinned terminal."""

    def run(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        env = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "MOEPLAN_DEBUG")}
        env |= {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "PYTHONIOENCODING": "utf-8"} | environment
        return subprocess.run(
            [sys.executable, "-m", "perfmodel", *words], capture_output=True, text=True, env=env, check=False
        )

    return run
