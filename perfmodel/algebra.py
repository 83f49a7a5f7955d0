"""The few functions whose meaning depends on the kind of number: plain, NumPy array or SymPy symbol.

A formula written with ``+ - * /`` and these functions serves all three: one plan for ``explain``,
a whole grid for ``solve``, and the closed form itself in print.  :class:`Num` has no comparison, no
truth value and no power on purpose: ``if tp > 1`` or ``max(a, b)`` in a formula fails type checking.
"""

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Protocol, cast

_LARGEST_QUANTILE_ARRAY = 100_000


class Num(Protocol):
    """What a formula may do with its arguments: arithmetic, and nothing that asks for their size."""

    def __add__(self, other: Any, /) -> "Num": ...
    def __radd__(self, other: Any, /) -> "Num": ...
    def __sub__(self, other: Any, /) -> "Num": ...
    def __rsub__(self, other: Any, /) -> "Num": ...
    def __mul__(self, other: Any, /) -> "Num": ...
    def __rmul__(self, other: Any, /) -> "Num": ...
    def __truediv__(self, other: Any, /) -> "Num": ...
    def __rtruediv__(self, other: Any, /) -> "Num": ...
    def __neg__(self) -> "Num": ...


class Switch(Protocol):
    """What :func:`greater` returns: a condition for :func:`where`, joined by ``&`` and ``|``."""

    def __and__(self, other: Any, /) -> "Switch": ...
    def __or__(self, other: Any, /) -> "Switch": ...


def _kind(*values: Any) -> str:
    """Return ``"number"``, ``"array"`` or ``"symbol"``, refusing a mixture of the last two."""
    if all(isinstance(v, (int, float)) for v in values):
        return "number"
    import numpy as np

    arrays = any(isinstance(v, (np.ndarray, np.generic)) and not isinstance(v, float) for v in values)
    symbols = any(not isinstance(v, (int, float, np.ndarray, np.generic)) for v in values)
    if arrays and symbols:
        raise TypeError("a formula takes numbers with arrays, or numbers with symbols, not arrays with symbols")
    return "symbol" if symbols else "array"


def maximum(a: Num, b: Num) -> Num:
    """Return the larger of two values, element by element."""
    x, y = cast(Any, a), cast(Any, b)
    match _kind(x, y):
        case "number":
            return cast(Num, max(x, y))
        case "array":
            import numpy as np

            return cast(Num, np.maximum(x, y))
        case _:
            import sympy

            return cast(Num, sympy.Max(x, y, evaluate=False))


def minimum(a: Num, b: Num) -> Num:
    """Return the smaller of two values, element by element."""
    x, y = cast(Any, a), cast(Any, b)
    match _kind(x, y):
        case "number":
            return cast(Num, min(x, y))
        case "array":
            import numpy as np

            return cast(Num, np.minimum(x, y))
        case _:
            import sympy

            return cast(Num, sympy.Min(x, y, evaluate=False))


def _unary(value: Num, plain: Any, numpy_name: str, sympy_name: str) -> Num:
    x = cast(Any, value)
    match _kind(x):
        case "number":
            return cast(Num, plain(x))
        case "array":
            import numpy as np

            return cast(Num, getattr(np, numpy_name)(x))
        case _:
            import sympy

            return cast(Num, getattr(sympy, sympy_name)(x))


def ceil(value: Num) -> Num:
    """Return the smallest integer not below the value."""
    return _unary(value, math.ceil, "ceil", "ceiling")


def floor(value: Num) -> Num:
    """Return the largest integer not above the value."""
    return _unary(value, math.floor, "floor", "floor")


def sqrt(value: Num) -> Num:
    """Return the square root."""
    return _unary(value, math.sqrt, "sqrt", "sqrt")


def exp(value: Num) -> Num:
    """Return e to the value."""
    return _unary(value, math.exp, "exp", "exp")


def log(value: Num) -> Num:
    """Return the natural logarithm."""
    return _unary(value, math.log, "log", "log")


def greater(a: Num, b: Num) -> Switch:
    """Return where ``a`` exceeds ``b``, for use in :func:`where`."""
    x, y = cast(Any, a), cast(Any, b)
    return cast(Switch, x > y)


def where(condition: Switch, then: Num, otherwise: Num) -> Num:
    """Return ``then`` where the condition holds, else ``otherwise``; both sides are evaluated."""
    c, x, y = cast(Any, condition), cast(Any, then), cast(Any, otherwise)
    if isinstance(c, bool):
        return cast(Num, x if c else y)
    if type(c).__module__.startswith("numpy"):
        import numpy as np

        return cast(Num, np.where(c, x, y))
    import sympy

    return cast(Num, sympy.Piecewise((x, c), (y, True)))


@lru_cache(maxsize=4096)
def _plain_normal_quantile(p: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(p)


def normal_quantile(p: Num) -> Num:
    """Return the standard normal deviate that a share ``p`` lies below.

    Arrays are worked element by element, so only short axes are taken: more than 100,000 elements
    raise ``ValueError``.

    >>> round(normal_quantile(0.975), 2)
    1.96
    """
    x = cast(Any, p)
    match _kind(x):
        case "number":
            return cast(Num, _plain_normal_quantile(float(x)))
        case "array":
            import numpy as np

            if x.size > _LARGEST_QUANTILE_ARRAY:
                raise ValueError(f"normal_quantile of {x.size} elements; call it on a short axis")
            flat = [_plain_normal_quantile(float(v)) for v in np.asarray(x).ravel()]
            return cast(Num, np.asarray(flat).reshape(np.shape(x)))
        case _:
            import sympy

            return cast(Num, sympy.sqrt(2) * sympy.erfinv(2 * x - 1))


def total(values: Iterable[Num]) -> Num:
    """Return the sum, adding values of one shape before widening: the cheapest order on an open mesh."""
    by_shape: dict[Any, Any] = {}
    for value in values:
        shape = getattr(value, "shape", ())
        by_shape[shape] = by_shape[shape] + value if shape in by_shape else value
    ordered = sorted(by_shape.items(), key=lambda item: math.prod(item[0]) if isinstance(item[0], tuple) else 0)
    result: Any = 0
    for _, value in ordered:
        result = result + value
    return cast(Num, result)
