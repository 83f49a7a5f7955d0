"""Numbers, arrays and symbols agree; mixtures are refused."""

import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel import algebra

VALUES = st.floats(min_value=0.01, max_value=0.99)
UNARY = [algebra.ceil, algebra.floor, algebra.sqrt, algebra.exp, algebra.log, algebra.normal_quantile]
BINARY = [
    algebra.maximum,
    algebra.minimum,
    lambda a, b: algebra.where(algebra.greater(a, b), a + b, a - b),
]


@settings(deadline=None)  # the first symbol imports SymPy
@given(VALUES, VALUES)
def test_numbers_arrays_and_symbols_agree(x: float, y: float) -> None:
    a, b = sympy.symbols("a b", positive=True)
    for function in UNARY:
        number = function(x)
        assert function(np.array([x, y]))[0] == pytest.approx(number, rel=1e-12, abs=1e-12)
        assert float(function(a).subs(a, x)) == pytest.approx(number, rel=1e-9, abs=1e-9)
    for function in BINARY:
        number = function(x, y)
        assert function(np.array([x, y]), np.array([y, x]))[0] == pytest.approx(number)
        assert float(function(a, b).subs({a: x, b: y})) == pytest.approx(number)


def test_arrays_with_symbols_are_refused() -> None:
    with pytest.raises(TypeError, match="not arrays with symbols"):
        algebra.maximum(np.ones(2), sympy.Symbol("x"))


def test_quantile_refuses_a_dense_array() -> None:
    with pytest.raises(ValueError, match="short axis"):
        algebra.normal_quantile(np.full(100_001, 0.5))


def test_numpy_scalars_are_taken() -> None:
    assert algebra.maximum(np.int64(3), 2) == 3
    assert algebra.ceil(np.float64(2.1)) == 3


def test_total_adds_mixed_shapes() -> None:
    parts = [1.0, np.ones((3, 1)), np.ones((1, 4)), np.ones((3, 1)), 2]
    assert np.array_equal(algebra.total(parts), np.full((3, 4), 6.0))
