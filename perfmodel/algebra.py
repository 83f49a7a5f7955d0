"""The few functions whose meaning depends on the kind of number: plain, NumPy array or SymPy symbol.

A formula written with ``+ - * /`` and these functions serves all three: one plan for ``explain``,
a whole grid for ``solve``, and the closed form itself in print.  :class:`Num` has no comparison, no
truth value and no power on purpose: ``if tp > 1`` or ``max(a, b)`` in a formula fails type checking.
"""

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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


_NUMBER, _ARRAY, _SYMBOL = range(3)


class _Kinds(dict[type, int]):
    """The kind of every type met so far: a pass over the ledger asks a thousand times."""

    def __missing__(self, one: type) -> int:
        """Return the kind of a new type; ``np.float64`` is a plain float, other NumPy scalars are arrays."""
        import numpy as np

        number, array = issubclass(one, (int, float)), issubclass(one, (np.ndarray, np.generic))
        self[one] = _NUMBER if number else _ARRAY if array else _SYMBOL
        return self[one]


_KINDS = _Kinds()


def _joint_kind(a: Any, b: Any) -> int:
    """Return the kind that two values make together, refusing arrays with symbols."""
    one, other = _KINDS[type(a)], _KINDS[type(b)]
    if one != other and one and other:
        raise TypeError("a formula takes numbers with arrays, or numbers with symbols, not arrays with symbols")
    return one or other


def _binary(a: Any, b: Any, plain: Any, numpy_name: str, sympy_name: str) -> Any:
    kind = _joint_kind(a, b)
    if kind == _NUMBER:
        return plain(a, b)
    if kind == _ARRAY:
        import numpy as np

        return getattr(np, numpy_name)(a, b)
    import sympy

    return getattr(sympy, sympy_name)(a, b, evaluate=False)


def maximum(a: Num, b: Num) -> Num:
    """Return the larger of two values, element by element."""
    larger: Num = _binary(a, b, max, "maximum", "Max")
    return larger


def minimum(a: Num, b: Num) -> Num:
    """Return the smaller of two values, element by element."""
    smaller: Num = _binary(a, b, min, "minimum", "Min")
    return smaller


def _unary(value: Num, plain: Any, numpy_name: str, sympy_name: str) -> Num:
    x = cast(Any, value)
    kind = _KINDS[type(x)]
    if kind == _NUMBER:
        return cast(Num, plain(x))
    if kind == _ARRAY:
        import numpy as np

        return cast(Num, getattr(np, numpy_name)(x))
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


def as_float(value: Any) -> float:
    """Return a value of plain numbers as one, where it leaves the formulas."""
    return float(value)


def as_array(value: Num) -> "NDArray[np.float64]":
    """Return a value where it leaves the formulas as the array it is, not copied; a plain number has no axes."""
    import numpy as np

    return np.asarray(value)


def is_array(value: Num) -> bool:
    """Return whether a value is one of many."""
    return _KINDS[type(value)] == _ARRAY


def never_greater(a: Num, b: Num) -> bool:
    """Return whether ``a`` is known to exceed ``b`` nowhere; of symbols nothing is known.

    >>> never_greater(1.0, 2.0), never_greater(2.0, 1.0)
    (True, False)
    """
    x, y = cast(Any, a), cast(Any, b)
    kind = _joint_kind(x, y)
    if kind == _NUMBER:
        return bool(x <= y)
    return kind == _ARRAY and bool((x <= y).all())


def where(condition: Switch, then: Num, otherwise: Num) -> Num:
    """Return ``then`` where the condition holds, else ``otherwise``; both sides are evaluated."""
    c, x, y = cast(Any, condition), cast(Any, then), cast(Any, otherwise)
    kind = _KINDS[type(c)]
    if kind == _NUMBER:
        return cast(Num, x if c else y)
    if kind == _ARRAY:
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
    kind = _KINDS[type(x)]
    if kind == _NUMBER:
        return cast(Num, _plain_normal_quantile(float(x)))
    if kind == _ARRAY:
        import numpy as np

        if x.size > _LARGEST_QUANTILE_ARRAY:
            raise ValueError(f"normal_quantile of {x.size} elements; call it on a short axis")
        flat = [_plain_normal_quantile(float(v)) for v in np.asarray(x).ravel()]
        return cast(Num, np.asarray(flat).reshape(np.shape(x)))
    import sympy

    return cast(Num, sympy.sqrt(2) * sympy.erfinv(2 * x - 1))


class Sum:
    """A running sum that adds values of one shape before widening: the cheapest order on an open mesh."""

    __slots__ = ("_own", "_sums")

    def __init__(self) -> None:
        self._sums: dict[Any, Any] = {}
        self._own: set[Any] = set()

    def add(self, value: Num) -> None:
        """Add a value."""
        sums, shape = self._sums, getattr(value, "shape", ())
        if shape in self._own and sums[shape].dtype == cast(Any, value).dtype:
            sums[shape] += value  # an array that this sum made itself: no row sees it change
        elif shape in sums:
            sums[shape] = sums[shape] + value
            if shape:
                self._own.add(shape)
        else:
            sums[shape] = value

    def value(self) -> Num:
        """Return the sum of what was added, small shapes first; 0 of nothing."""
        result: Any = 0
        for shape in sorted(self._sums, key=math.prod):
            result = result + self._sums[shape]
        return cast(Num, result)


def total(values: Iterable[Num]) -> Num:
    """Return the sum of values, see :class:`Sum`."""
    running = Sum()
    for value in values:
        running.add(value)
    return running.value()
