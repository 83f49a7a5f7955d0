"""Every formula scales as its units say: change the size of a second or a byte, and the result follows."""

import importlib
import inspect
import math
import pkgutil
import random
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest

from perfmodel import formulas
from perfmodel.units import Unit

#: unit -> exponents of second, byte, FLOP
EXPONENTS = {
    "1": (0, 0, 0),
    "s": (1, 0, 0),
    "B": (0, 1, 0),
    "B/s": (-1, 1, 0),
    "FLOP": (0, 0, 1),
    "FLOP/s": (-1, 0, 1),
    "Hz": (-1, 0, 0),
    "1/s": (-1, 0, 0),
    "s/B": (1, -1, 0),
}
FACTORS = (3.0, 5.0, 7.0)
BELOW_ONE = (
    "probability",
    "efficiency",
    "core_share",
    "utilisation",
    "skew",
    "residual",
    "variety",
    "chance",
    "slot_variance",
    "count_variance",
    "load",
    "decode_load",
)
#: queues are finite below their capacity alone
FAR_BELOW = {"request_rate": 1e-4}


def all_formulas() -> list[Callable[..., Any]]:
    found = []
    for module in pkgutil.iter_modules(formulas.__path__):
        loaded = importlib.import_module(f"{formulas.__name__}.{module.name}")
        found += [
            f
            for name, f in inspect.getmembers(loaded, inspect.isfunction)
            if f.__module__ == loaded.__name__ and not name.startswith("_")
        ]
    return found


def units_of(formula: Callable[..., Any]) -> dict[str, str]:
    hints = get_type_hints(formula, include_extras=True)
    return {
        name: next(item.symbol for item in get_args(hint) if isinstance(item, Unit))
        for name, hint in hints.items()
        if get_origin(hint) is Annotated
    }


@pytest.mark.parametrize("formula", all_formulas(), ids=lambda f: f.__name__)
def test_formula_scales_as_its_units_say(formula: Callable[..., Any]) -> None:
    units = units_of(formula)
    result = units.pop("return")
    assert units.keys() == inspect.signature(formula).parameters.keys(), "every parameter has a unit"
    dice = random.Random(formula.__name__)
    for _ in range(20):
        values = {name: dice.uniform(0.2, 0.9) if name in BELOW_ONE else float(dice.randint(8, 64)) for name in units}
        values = {name: value * FAR_BELOW.get(name, 1.0) for name, value in values.items()}
        before = formula(**values)
        assert math.isfinite(before)
        for base, factor in enumerate(FACTORS):
            if base and not any(EXPONENTS[unit][base] for unit in units.values()):
                continue  # FLOP that a formula counts from sizes alone
            scaled = {name: value * factor ** EXPONENTS[units[name]][base] for name, value in values.items()}
            assert formula(**scaled) == pytest.approx(before * factor ** EXPONENTS[result][base], rel=1e-9)


def test_a_wrong_unit_would_be_caught() -> None:
    def wrong(
        *, payload: Annotated[Any, Unit("B")], bandwidth: Annotated[Any, Unit("B/s")]
    ) -> Annotated[Any, Unit("s")]:
        return payload * bandwidth

    with pytest.raises(AssertionError):
        test_formula_scales_as_its_units_say(wrong)
