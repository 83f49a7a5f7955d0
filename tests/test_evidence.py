"""Published results: conditions complete, and the ideal never above what was measured."""

import pytest

from perfmodel.files import catalog, folders, machines
from perfmodel.prediction.quantities import predicted
from perfmodel.prediction.scenario import of_evidence, resolve


@pytest.mark.parametrize("name", folders.names("evidence"))
def test_ideal_time_is_never_above_the_measured_time(name: str) -> None:
    spec = catalog.load_evidence(name).spec
    taken, _ = machines.load_machine(spec.conditions.system, "ideal")
    values = predicted(resolve(of_evidence(spec, catalog.load_model(spec.conditions.model).spec, taken.rates())))
    for measured in spec.measured:
        if measured.quantity == "tokens_per_s_per_card":
            assert values[measured.quantity] >= measured.value
        else:
            assert values[measured.quantity] <= measured.value
