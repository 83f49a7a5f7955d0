"""Published results: conditions complete, and the ideal never above what was measured."""

import pytest

from perfmodel import catalog
from perfmodel.cli.options import machine
from perfmodel.cli.validate import predicted


@pytest.mark.parametrize("name", catalog.names("evidence"))
def test_ideal_time_is_never_above_the_measured_time(name: str) -> None:
    spec = catalog.load_evidence(name).spec
    taken, _ = machine(spec.conditions.system, "ideal")
    values = predicted(spec, taken.rates(), catalog.load_model(spec.conditions.model).spec)
    for measured in spec.measured:
        if measured.quantity == "tokens_per_s_per_card":
            assert values[measured.quantity] >= measured.value
        else:
            assert values[measured.quantity] <= measured.value
