"""Forms that SymPy holds, as a function of JavaScript that works them all out at once."""

from collections.abc import Mapping, Sequence
from typing import Any

#: what stands between the sides of a comparison, by SymPy's name for it
_COMPARED = {"StrictGreaterThan": ">", "GreaterThan": ">=", "StrictLessThan": "<", "LessThan": "<="}
_CALLED = {
    "Max": "Math.max",
    "Min": "Math.min",
    "ceiling": "Math.ceil",
    "floor": "Math.floor",
    "exp": "Math.exp",
    "log": "Math.log",
    "Abs": "Math.abs",
}
_JOINED = {"And": " && ", "Or": " || "}


def function_of(variables: Sequence[str], numbers: Mapping[str, Any]) -> str:
    """Return an arrow function of JavaScript from an object of variables to an object of numbers.

    Each part of a form that has operations is worked out once, under a name of its own, however often it is used;
    a maximum, minimum, rounding or condition stays one, so the function holds on every branch.  Plain numbers keep all
    their digits.  Names must be words of JavaScript.  Raises ``TypeError`` for a function that is none of those above.

    >>> import sympy
    >>> x, y = sympy.symbols("x y")
    >>> print(function_of(("x", "y"), {"sum": x + y, "root": sympy.sqrt(x + y) / 3, "one": 1.0}))
    ({ x, y }) => {
    const t0 = x+y;
    const t1 = Math.sqrt(t0);
    const t2 = 0.3333333333333333*t1;
    return { sum: t0, root: t2, one: 1.0 };
    }
    """
    printer = _Printer(variables)
    named = {name: printer.of(form) for name, form in numbers.items()}
    lines = [f"const {name} = {text};" for name, text in printer.lines]
    found = ", ".join(f"{name}: {text}" for name, text in named.items())
    return "\n".join([f"({{ {', '.join(variables)} }}) => {{", *lines, f"return {{ {found} }};", "}"])


class _Printer:
    """The lines of one function, each part of a form on the line where it is first met."""

    def __init__(self, variables: Sequence[str]) -> None:
        self.variables = frozenset(variables)
        self.lines: list[tuple[str, str]] = []
        self._known: dict[Any, str] = {}

    def of(self, form: Any) -> str:
        """Return what stands for a form: a number, a variable, or the name of a line that is written for it."""
        import sympy

        form = sympy.sympify(form)
        if form.is_Number or form in (sympy.true, sympy.false):
            return _number(form)
        if form.is_Symbol:
            if form.name not in self.variables:
                raise TypeError(f"{form.name} is none of the variables {', '.join(sorted(self.variables))}")
            return str(form.name)
        if form not in self._known:
            text = self._written(form)
            name = f"t{len(self.lines)}"
            self.lines.append((name, text))
            self._known[form] = name
        return self._known[form]

    def _written(self, form: Any) -> str:
        import sympy

        kind = type(form).__name__
        if isinstance(form, sympy.Piecewise):
            return self._branches(form)
        if isinstance(form, sympy.Pow):
            return self._power(form)
        if isinstance(form, sympy.Mul):
            return self._product(form)
        parts = [self.of(part) for part in form.args]
        if isinstance(form, sympy.Add):
            return "+".join(_bracketed(part) for part in parts)
        if kind in _COMPARED:
            return f"{parts[0]} {_COMPARED[kind]} {parts[1]}"
        if kind in _JOINED:
            return _JOINED[kind].join(parts)
        if kind in _CALLED:
            return f"{_CALLED[kind]}({', '.join(parts)})"
        raise TypeError(
            f"{kind} has no form in JavaScript here; allowed: {', '.join([*_CALLED, *_JOINED, *_COMPARED])}"
        )

    def _branches(self, form: Any) -> str:
        """Return a condition: no number where no branch holds, as in Python."""
        text = "NaN"
        for branch, condition in reversed(form.args):
            text = f"{self.of(condition)} ? {self.of(branch)} : ({text})"
        return text

    def _product(self, form: Any) -> str:
        """Return a product; what is divided by stands in one product of its own, as in the code it comes from."""
        above, below = [], []
        for part in form.args:
            if part.is_Pow and part.exp.is_number and part.exp.could_extract_minus_sign():
                below.append(self.of(part.base**-part.exp))
            else:
                above.append(self.of(part))
        top = "*".join(map(_bracketed, above)) or "1.0"
        return f"{top}/({'*'.join(map(_bracketed, below))})" if below else top

    def _power(self, form: Any) -> str:
        import sympy

        base, exponent = form.args
        if exponent == -1:
            return f"1.0/{_bracketed(self.of(base))}"
        if exponent == sympy.Rational(1, 2):
            return f"Math.sqrt({self.of(base)})"
        if exponent == -sympy.Rational(1, 2):
            return f"1.0/Math.sqrt({self.of(base)})"
        return f"Math.pow({self.of(base)}, {self.of(exponent)})"


def _bracketed(text: str) -> str:
    return f"({text})" if text.startswith("-") else text


def _number(form: Any) -> str:
    import sympy

    if form in (sympy.true, sympy.false):
        return "true" if form is sympy.true else "false"
    if form in (sympy.oo, -sympy.oo):
        return "Infinity" if form is sympy.oo else "-Infinity"
    return repr(float(form))
