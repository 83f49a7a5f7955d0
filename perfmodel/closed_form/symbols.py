"""What is done with the forms that SymPy holds: tidied, cut, worked out, and each choice resolved."""

import math
import operator
from collections.abc import Callable, Mapping
from functools import cache, reduce
from typing import Any

import numpy as np

from perfmodel import algebra

LARGEST_DENOMINATOR = 64  # of a fraction that a float in code stands for
ROUNDING = 1e-14  # relative, of a float's square

Values = Mapping[str, Any]


def tidy(form: Any) -> Any:
    """Return a form whose floats are exact where they stand for a fraction of whole numbers, or for its root."""
    import sympy

    exact = {}
    for one in form.atoms(sympy.Float):
        value = float(one)
        fraction = sympy.Rational(value)
        square = sympy.Rational(value * value).limit_denominator(LARGEST_DENOMINATOR)
        if fraction.q <= LARGEST_DENOMINATOR:
            exact[one] = fraction
        elif abs(float(square) - value * value) < ROUNDING * value * value:
            exact[one] = sympy.sqrt(square) if value > 0 else -sympy.sqrt(square)
    return replaced(form, exact)


def replaced(form: Any, known: Mapping[Any, Any]) -> Any:
    """Return a form with others in place of parts of it, which of a product, sum, maximum or minimum may be some terms.

    Maxima and minima are left as they are: to order what they compare takes longer than all the rest.
    """
    import sympy

    if form in known:
        return known[form]
    if not form.args:
        return form
    arguments = [replaced(arg, known) for arg in form.args]
    if isinstance(form, (sympy.Max, sympy.Min)):
        flat = [inner for arg in arguments for inner in (arg.args if arg.func is form.func else (arg,))]
        if form.func is sympy.Max and any(arg.is_Symbol and arg.is_positive for arg in flat):
            flat = [arg for arg in flat if not arg.is_zero]
        arguments = list(dict.fromkeys(flat))
    for part, other in known.items():
        several = isinstance(form, (sympy.Mul, sympy.Add, sympy.Max, sympy.Min)) and part.func is form.func
        if several and set(part.args) <= set(arguments):
            arguments = [other, *(arg for arg in arguments if arg not in part.args)]
    if isinstance(form, (sympy.Max, sympy.Min)):
        return form.func(*arguments, evaluate=False) if len(arguments) > 1 else arguments[0]
    return form.func(*arguments)


def size(value: Any) -> int:
    """Return how large a form is; 0 of a number or a single symbol."""
    return int(value.count_ops()) if hasattr(value, "count_ops") else 0


def value_of(form: Any, values: Values) -> Any:
    """Return the value of a form, numbers or arrays for its names."""
    import sympy

    if form.is_Symbol:
        return values[form.name]
    if form.is_Number:
        return float(form)
    if form in (sympy.true, sympy.false):
        return bool(form)
    if isinstance(form, sympy.Piecewise):
        value: Any = float("nan")
        for branch, condition in reversed(form.args):
            value = np.where(value_of(condition, values), value_of(branch, values), value)
        return value
    arguments = [value_of(arg, values) for arg in form.args]
    function = _functions()[form.func]
    return reduce(function, arguments) if len(arguments) > 1 else function(*arguments)


@cache
def _functions() -> dict[Any, Callable[..., Any]]:
    import sympy

    return {
        sympy.Add: operator.add,
        sympy.Mul: operator.mul,
        sympy.Pow: operator.pow,
        sympy.Max: algebra.maximum,
        sympy.Min: algebra.minimum,
        sympy.exp: algebra.exp,
        sympy.log: algebra.log,
        sympy.ceiling: algebra.ceil,
        sympy.floor: algebra.floor,
        sympy.erfinv: lambda x: algebra.normal_quantile((x + 1) / 2) / math.sqrt(2),
        sympy.And: operator.and_,
        sympy.Or: operator.or_,
        sympy.StrictGreaterThan: operator.gt,
        sympy.GreaterThan: operator.ge,
        sympy.StrictLessThan: operator.lt,
        sympy.LessThan: operator.le,
    }


def is_choice(form: Any) -> bool:
    import sympy

    return isinstance(form, (sympy.Max, sympy.Min, sympy.Piecewise))


def branches_of(choice: Any) -> tuple[Any, ...]:
    import sympy

    return tuple(arg.expr if isinstance(choice, sympy.Piecewise) else arg for arg in choice.args)


def taken(choice: Any, values: Values) -> Any:
    """Return which of its branches a choice takes, counted from 0; the first where two are equal."""
    import sympy

    if isinstance(choice, sympy.Piecewise):
        sides = [value_of(condition, values) for _, condition in choice.args]
    else:
        sign = 1 if isinstance(choice, sympy.Max) else -1
        sides = [sign * value_of(arg, values) for arg in choice.args]
    return np.argmax(np.stack(np.broadcast_arrays(*sides)), axis=0)


def taken_form(form: Any, values: Values, met: list[Any]) -> Any:
    """Return a form with what its choices take at these values in their place, the choices added to ``met``."""
    if is_choice(form):
        if form not in met:
            met.append(form)
        return taken_form(branches_of(form)[int(taken(form, values))], values, met)
    if not form.args:
        return form
    return form.func(*(taken_form(arg, values, met) for arg in form.args))
