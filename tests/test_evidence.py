"""Published results: the ideal is never slower than what was measured."""

from dataclasses import replace

import pytest

from perfmodel.files import folders, machines
from perfmodel.planning.published import row_on_file
from perfmodel.prediction.quantities import predicted


@pytest.mark.parametrize("name", folders.names("evidence"))
def test_ideal_time_is_never_above_the_measured_time(name: str) -> None:
    row = row_on_file(name)
    taken, _ = machines.load_machine(row.spec.conditions.system, "ideal")
    values = predicted(replace(row, machine=taken).resolved())
    for measured in row.spec.measured:
        if measured.quantity == "tokens_per_s_per_card":
            assert values[measured.quantity] >= measured.value
        else:
            assert values[measured.quantity] <= measured.value
