"""The cases that benchmarks share."""

import pytest

from perfmodel.files import catalog, machines
from perfmodel.planning.inputs import read_acceptance
from perfmodel.prediction.serving import Case


@pytest.fixture(scope="session")
def case() -> Case:
    """Return the README's case: DeepSeek-V3 on CloudMatrix384, 4096 tokens in and 1024 out."""
    model, (machine, _) = catalog.load_model("deepseek-v3").spec, machines.load_machine("cloudmatrix384")
    acceptance, _ = read_acceptance(None, model)
    return Case(model=model, rates=machine.rates(), isl=4096, osl=1024, acceptance=acceptance)
