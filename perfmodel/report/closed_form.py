"""Closed forms of the numbers of a step -> a document: lines, what is given, choices and slopes."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from perfmodel.closed_form.form import Choice, ClosedForm, Line, closed_form
from perfmodel.closed_form.names import OF_A_ROW, asked_for, numbers_of
from perfmodel.closed_form.run import Point, Wanted
from perfmodel.ledger.records import Layout
from perfmodel.prediction.scenario import Resolved
from perfmodel.report.table import Column, Document, Table
from perfmodel.supply.machine import Machine

EVERY = "list"  # the word that asks for all names
PERCENT = 0.01
DIGITS = ".4g"

NAMES = (
    "a row alone, like attention.core, is meant in the block where it takes the most; add "
    f"{', '.join(f'.{what}' for what in OF_A_ROW if what != 'time')} for what it does; a pattern is like '*dispatch*'"
)
READING = (
    "names are those of the code's records; what is 0 here is left out; here: each choice replaced by what it takes; "
    "with numbers: SI units, four digits"
)
FLIPPING = (
    "at or below, at or above: nearest values at which the choice takes something else, all else as it is; batch, isl "
    "and the hardware's rates at a tenth to ten times were tried"
)
ANSWERING = (
    "elasticity: relative change of the number over that of the input, as it falls and as it rises; where the two "
    "differ the number has a kink here; derivative in SI units"
)


@cache
def _printer() -> Any:
    from sympy.printing.str import StrPrinter

    class Text(StrPrinter):  # type: ignore[misc]  # SymPy has no types
        """Forms as text in the words of the code; with numbers in place of names where values are given."""

        def __init__(self, values: Mapping[str, float] | None = None) -> None:
            super().__init__()
            self.numbers = values

        def _print_Symbol(self, one: Any) -> str:
            return one.name if self.numbers is None else _short(self.numbers[one.name])

        def _print_Float(self, one: Any) -> str:
            return _short(float(one))

        def _call(self, name: str, arguments: Sequence[Any]) -> str:
            return f"{name}({', '.join(self._print(arg) for arg in arguments)})"

        def _print_Max(self, form: Any) -> str:
            return self._call("max", form.args)

        def _print_Min(self, form: Any) -> str:
            return self._call("min", form.args)

        def _print_ceiling(self, form: Any) -> str:
            return self._call("ceil", form.args)

        def _print_Piecewise(self, form: Any) -> str:
            *first, (last, _) = form.args
            text = self._print(last)
            for branch, condition in reversed(first):
                text = f"where({self._print(condition)}, {self._print(branch)}, {text})"
            return str(text)

    return Text


def _short(value: float) -> str:
    return f"{value:{DIGITS}}".replace("e+", "e")


def in_text(form: Any, values: Mapping[str, float] | None = None) -> str:
    """Return a form as text, its names replaced by their values where these are given."""
    return re.sub(r"(?<![*])([*/])(?![*])", r" \1 ", _printer()(values).doprint(form))


def in_latex(form: Any) -> str:
    """Return a form in LaTeX, its names upright."""
    from sympy import latex

    text: str = latex(form, mul_symbol="dot", symbol_names={one: _upright(one.name) for one in form.free_symbols})
    return text


def _upright(name: str) -> str:
    return r"\mathrm{" + name.replace("_", r"\_") + "}"


def _line_table(form: ClosedForm) -> Table:
    values = {line.name: line.value for line in form.lines}
    rows = []
    for line in form.lines:
        if line.form is not None:
            rows.append(
                {
                    "stage": line.stage,
                    "name": line.name,
                    "form": in_text(line.form),
                    "here": "" if line.here == line.form else in_text(line.here),
                    "numbers": in_text(line.here, values),
                    # a piece of a form has no unit of its own
                    "value": line.value if line.unit else float(_short(line.value)),
                    "unit": line.unit,
                    "latex": f"{_upright(line.name)} = {in_latex(line.form)}",
                }
            )
    columns = (
        Column("stage", "stage", group=True),
        Column("name", "name"),
        Column("form", "form"),
        Column("here", "here"),
        Column("numbers", "with numbers"),
        Column("value", "value", "row"),
        Column("unit", "unit"),
        Column("latex", "LaTeX", spare=1),
    )
    return Table(f"{form.wanted.name}: closed form", columns, tuple(rows), (READING,))


def _given_table(form: ClosedForm) -> Table:
    rows = [
        {"stage": line.stage, "name": line.name, "value": line.value, "unit": line.unit}
        for line in form.lines
        if line.form is None
    ]
    columns = (
        Column("name", "name"),
        Column("value", "value", "row"),
        Column("unit", "unit"),
        Column("stage", "given by"),
    )
    return Table(f"{form.wanted.name}: what is given", columns, tuple(rows))


def _choice_words(choice: Choice) -> str:
    """Return what a choice takes: the larger or smaller of its sides, or whether its condition holds."""
    from sympy import Piecewise

    if isinstance(choice.node, Piecewise):
        branch, condition = choice.node.args[0]
        return f"{choice.line}: {'' if choice.taken == branch else 'not '}where {in_text(condition)}"
    return f"{choice.line}: {in_text(choice.taken)}, not {'; '.join(map(in_text, choice.left))}"


def _choice_table(form: ClosedForm) -> Table:
    rows: list[dict[str, object]] = [
        {
            "choice": _choice_words(choice),
            "by": flip.by,
            "below": flip.below,
            "now": flip.now,
            "above": flip.above,
            "unit": flip.unit,
        }
        for choice in form.choices
        for flip in choice.flips
    ]
    rows += [
        {"choice": "nothing tried flips", "by": _choice_words(choice), "unit": "1"}
        for choice in form.choices
        if not choice.flips
    ]
    columns = (
        Column("choice", "choice", group=True),
        Column("by", "flips by"),
        Column("below", "at or below", "row"),
        Column("now", "now", "row"),
        Column("above", "at or above", "row"),
        Column("unit", "unit"),
    )
    return Table(
        f"{form.wanted.name}: what each choice takes here, and where it flips", columns, tuple(rows), (FLIPPING,)
    )


def _slope_table(form: ClosedForm) -> Table:
    rows = tuple(
        {
            "input": slope.input,
            "value": slope.value,
            "unit": slope.unit,
            "down": slope.down,
            "up": slope.up,
            "more": PERCENT * slope.up * form.wanted.value,
            "derivative": float(_short(slope.derivative)),
        }
        for slope in form.slopes
    )
    columns = (
        Column("input", "input"),
        Column("value", "value", "row"),
        Column("unit", "unit"),
        Column("down", "elasticity falling", "1"),
        Column("up", "rising", "1"),
        Column("more", "1 % more adds", form.wanted.unit, spare=1),
        Column("derivative", "derivative", spare=2),
    )
    return Table(f"{form.wanted.name}: what it answers to", columns, rows, (ANSWERING,))


def _names_table(numbers: Mapping[str, Wanted]) -> Table:
    words = {"row": "row, all its runs in a step", "block": "layer, or a lane of it", "step": ""}
    rows = tuple(
        {"name": name, "what": words[one.kind], "value": one.value, "unit": one.unit}
        for name, one in numbers.items()
        if one.kind != "row" or one.what == "time"
    )
    columns = (
        Column("name", "name"),
        Column("value", "value", "row"),
        Column("unit", "unit"),
        Column("what", "of", spare=1),
    )
    return Table("Numbers that have a closed form", columns, rows, (NAMES,))


def _definitions(lines: Sequence[Line]) -> str:
    """Return all lines as one block of LaTeX."""
    shown = [f"{_upright(line.name)} &= {in_latex(line.form)}" for line in lines if line.form is not None]
    return "\\begin{aligned}\n" + " \\\\\n".join(shown) + "\n\\end{aligned}"


def formula_document(words: Sequence[str], resolved: Resolved, machine: Machine, *, title: str) -> Document:
    """Return the closed forms of the numbers that words ask for, or all their names where one word is "list".

    Raises ``UsageError`` where a word means no number of the step.
    """
    plan, case = resolved.plan, resolved.scenario.case
    point = Point(layout=Layout.of(plan.layout), family=plan.family, case=case)
    numbers = numbers_of(point)
    if EVERY in words:
        return Document("moeplan.formula/1", f"Closed forms of {title}", (_names_table(numbers),))
    wanted = dict.fromkeys(one for word in words for one in asked_for(word, numbers))
    forms = [closed_form(one, point, machine) for one in wanted]
    tables = [
        table
        for form in forms
        for table in (_line_table(form), _given_table(form), _choice_table(form), _slope_table(form))
    ]
    facts = {
        "numbers": [
            {
                "name": form.wanted.name,
                "value": form.wanted.value,
                "unit": form.wanted.unit,
                "latex": _definitions(form.lines),
            }
            for form in forms
        ]
    }
    return Document("moeplan.formula/1", f"Closed forms of {title}", tuple(tables), facts)
