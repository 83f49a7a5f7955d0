"""Pins the terminal and runs the command as a user does."""

import os
import subprocess
from collections.abc import Callable

import pytest

from tests import process
from tests import validated as validation
from tests.update_snapshots import environment as pinned

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def moeplan() -> Run:
    """Run the command line in a pinned terminal."""

    def run(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return process.run(*words, env=pinned(**{"COLUMNS": "100"} | environment))

    return run


@pytest.fixture(scope="session")
def validated(tmp_path_factory: pytest.TempPathFactory) -> validation.Validated:
    """What `moeplan validate` says of all that is on file, the same for all processes of a run of the tests."""
    folder = tmp_path_factory.getbasetemp()
    return validation.validated(folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder)
