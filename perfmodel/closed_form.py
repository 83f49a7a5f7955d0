"""The closed form of a number of a step: the code that works it out, run on symbols, and where its choices flip.

A form is cut where one stage hands a record to the next: a line gives one field of a record from the fields of
those before it, under the field's own name.  Values, flips and slopes come from the same code on numbers and arrays.
"""

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from fnmatch import fnmatchcase
from functools import cache, cached_property, reduce
from itertools import count
from typing import Any, Literal, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray

from perfmodel import algebra
from perfmodel.breakdown import runs_of
from perfmodel.errors import UsageError, did_you_mean
from perfmodel.ledger.footprint import footprint, part_bytes
from perfmodel.ledger.quantities import contexts, loads, routing
from perfmodel.ledger.records import Block, Family, Layout, Ledger, Op
from perfmodel.ledger.step import ledger_of_loads
from perfmodel.machine import Machine
from perfmodel.rates import Rates
from perfmodel.sensitivity import with_figures
from perfmodel.serving import Case, pool_of
from perfmodel.specs.base import Figure, Spec
from perfmodel.timing.operators import WHOLE, OpTime, time_op
from perfmodel.timing.step import add_layers, add_rows, core_shares, lanes, lanes_of, layer_time
from perfmodel.units import Unit

#: what decides which rows exist or how often a loop runs stays a number
STRUCTURE = (
    "num_hidden_layers",
    "first_k_dense_replace",
    "num_nextn_predict_layers",
    "max_position_embeddings",
    "n_group",
    "topk_group",
    "dies_per_package",
    "packages_per_server",
    "max_packages",
)
SMALL_STEP = 1e-4  # relative, of a central difference
FELT = 1e-3  # elasticity from which an input is told of
POINTS = 161  # of a grid on which a flip is looked for
REACH = 10.0  # times a rate is made slower and faster in looking for a flip
MOST_SEQUENCES = 4096  # of a rank, in looking for a flip
LARGEST_DENOMINATOR = 64  # of a fraction that a float in code stands for
LARGEST_FORM = 40  # operations of a form that is read as one
ROUNDING = 1e-14  # relative, of a float's square
RATES = ("B/s", "FLOP", "Hz")  # units of hardware figures whose flips are looked for
SAME = 1e-6  # relative, to which the flip of a rate is narrowed down

Kind = Literal["row", "block", "step"]
Values = Mapping[str, Any]
Grid = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A number that can be asked for: a field of a row of a block, the time of a layer, or a total of the step."""

    name: str
    kind: Kind
    what: str
    unit: str
    value: float
    block: str = ""
    part: str = ""
    op: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Line:
    """One name: its form in the names of lines before it, or None where it is given, and its value here."""

    stage: str
    name: str
    #: none of a piece that a larger form was cut into
    unit: str | None
    form: Any
    value: float
    #: the form with each choice replaced by what it takes here
    here: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """An input, and its nearest values below and above the plan's where a choice takes something else."""

    by: str
    unit: str
    now: float
    below: float | None
    above: float | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Choice:
    """A maximum, minimum or condition that the number depends on here, what it takes and what it leaves."""

    line: str
    node: Any
    taken: Any
    left: tuple[Any, ...]
    flips: tuple[Flip, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slope:
    """How a number answers to an input: its derivative, and its elasticity as the input falls and rises."""

    input: str
    value: float
    unit: str
    derivative: float
    down: float
    up: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClosedForm:
    """A number with all that it follows from."""

    wanted: Wanted
    lines: tuple[Line, ...]
    choices: tuple[Choice, ...]
    slopes: tuple[Slope, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Point:
    """A plan at one place, or on a grid of them."""

    layout: Layout
    family: Family
    case: Case


def _is_number(value: Any) -> bool:
    return not isinstance(value, (bool, str)) and (
        isinstance(value, (int, float, np.ndarray, np.generic)) or hasattr(value, "free_symbols")
    )


def _numbers(record: Any) -> dict[str, Any]:
    """Return the fields of a record or a spec that hold a number."""
    names = [f.name for f in fields(record)] if is_dataclass(record) else list(type(record).model_fields)
    return {name: value for name in names if _is_number(value := getattr(record, name))}


def _with(record: Any, update: Mapping[str, Any]) -> Any:
    return record.model_copy(update=update) if isinstance(record, Spec) else replace(record, **update)


def _unit_in(annotation: Any) -> str | None:
    inner = (item for item in (*getattr(annotation, "__metadata__", ()), *get_args(annotation)))
    return next((u for item in inner if (u := item.symbol if isinstance(item, Unit) else _unit_in(item))), None)


def _units(record: Any) -> dict[str, str]:
    """Return the unit of each field of a record or a spec."""
    kind: Any = type(record)
    return _units_of(kind)


@cache
def _units_of(kind: Any) -> dict[str, str]:
    hints = get_type_hints(kind, include_extras=True)
    return {name: _unit_in(hint) or "1" for name, hint in hints.items()}


class _Run:
    """One pass from the inputs to a number that notes by name what each stage hands to the next.

    Of numbers or arrays it notes values.  With a ``plan``, the run of the plan's numbers, it notes forms: what
    is 0 in the plan stays 0, anything else becomes a symbol of its name.
    """

    def __init__(self, point: Point, plan: "_Run | None" = None) -> None:
        self.plan = plan
        self.values: dict[str, Any] = {}
        #: name -> stage, unit, form; no unit of a piece of a form, and no form of what is given
        self.notes: dict[str, tuple[str, str | None, Any]] = {}
        #: what the number does not depend on, but a reader asks for with it
        self.aside: Any = 0
        self.family = point.family
        ranked = {f.name for f in fields(Layout) if getattr(point.layout, f.name) is f.default}
        self.layout = self._given(point.layout, "layout", leave=ranked)
        case, model = point.case, point.case.model
        accepted = tuple(
            self.plain(f"acceptance_{i}", rate, "requests", "1") for i, rate in enumerate(case.acceptance, 1)
        )
        rates = self._given(case.rates, "machine")
        tiers = tuple(
            self._given(tier, "machine", f"{tier.name}_", ("bandwidth", "pin_bandwidth")) for tier in rates.tiers
        )
        sizes = {"attention": self._given(model.attention, "model"), "experts": self._given(model.experts, "model")}
        model = _with(self._given(model, "model"), sizes)
        case = self._given(case, "requests")
        self.case = replace(case, model=model, rates=replace(rates, tiers=tiers), acceptance=accepted)

    @property
    def rates(self) -> Rates:
        """Supply."""
        rates: Rates = self.case.rates
        return rates

    def _symbol(self, name: str) -> Any:
        import sympy

        return sympy.Symbol(name, positive=True)

    def _free(self, name: str) -> str:
        return name if name not in self.notes else f"row_{name}"

    def _given(
        self, record: Any, stage: str, prefix: str = "", only: Iterable[str] | None = None, leave: Iterable[str] = ()
    ) -> Any:
        """Return a record from outside, its numbers noted."""
        units, update = _units(record), {}
        for name, value in _numbers(record).items():
            if only is None or name in only:
                called = self._free(prefix + name)
                symbol = self.plain(called, value, stage, units[name])
                if name not in STRUCTURE and name not in leave:
                    update[name] = symbol
        return _with(record, update)

    def plain(self, name: str, value: Any, stage: str, unit: str) -> Any:
        """Note a value that no form is given of; return it, or its symbol."""
        self.notes[name] = (stage, unit, None)
        self.values[name] = value
        if self.plan is None:
            return value
        return self._symbol(name) if np.any(self.plan.values[name]) else 0

    def note(self, name: str, value: Any, stage: str, unit: str) -> Any:
        """Note a value; return it, or the symbol that stands for its form from here on."""
        name = self._free(name)
        self.values[name] = value
        self.notes[name] = (stage, unit, None)
        if self.plan is None or not hasattr(value, "free_symbols"):
            return value
        form = _tidy(value)
        if form.is_Number:
            return 0 if form.is_zero else form
        if form.is_Symbol:
            return form
        del self.notes[name]  # its pieces come before it
        self.notes[name] = (stage, unit, self._in_pieces(name, stage, form))
        return self._symbol(name)

    def _in_pieces(self, name: str, stage: str, form: Any) -> Any:
        """Return a form that is too large to read with names for what it repeats, and note what they stand for."""
        import sympy

        if _size(form) <= LARGEST_FORM:
            return form
        names = (sympy.Symbol(f"{name}.{i}") for i in count(1))  # a condition or a difference is not positive
        pieces, (form,) = sympy.cse(form, names, order="none")
        inlined: dict[Any, Any] = {}
        for symbol, piece in pieces:
            piece = _replaced(piece, inlined)
            if piece.free_symbols and _size(piece) > 1:
                self.notes[symbol.name] = (stage, None, piece)
            else:
                inlined[symbol] = piece
        return _replaced(form, inlined)

    def cut(self, record: Any, stage: str, prefix: str = "", *, fold: bool = False) -> Any:
        """Return a record as the next stage gets it; ``fold`` says its larger forms by its smaller ones."""
        units, found = _units(record), _numbers(record)
        known: dict[Any, Any] = {}
        if fold and self.plan is not None:
            found = {name: _tidy(v) if hasattr(v, "free_symbols") else v for name, v in found.items()}
            found = dict(sorted(found.items(), key=lambda item: _size(item[1])))
        for name, value in found.items():
            for form, symbol in known.items() if hasattr(value, "subs") else ():
                value = _replaced(value, {form: symbol})
            found[name] = self.note(prefix + name, value, stage, units[name])
            if fold and _size(value) and found[name] is not value:
                known[value] = found[name]
        return _with(record, found)

    @cached_property
    def ledger(self) -> Ledger:
        """Rows of the step, in terms of its loads."""
        case, layout, family = self.case, self.layout, self.family
        load = self.cut(contexts(layout, family, case.traffic), "loads")
        routed = self.cut(routing(load, layout, family, case.traffic, case.dims), "loads", fold=True)
        busiest = loads(load, routed, layout, family, case.traffic, case.dims)
        return ledger_of_loads(self.cut(busiest, "loads"), layout, family, case.model, case.dims)

    def block(self, name: str) -> Block:
        """Return a block by its name."""
        return next(block for block in self.ledger.blocks if block.name == name)

    def row(self, wanted: Wanted) -> Any:
        """Return a number of a row over all its runs in a step."""
        block = self.block(wanted.block)
        op = next(op for op in self.ledger.parts[wanted.part] if op.name == wanted.op)
        exchange = op.exchange and self.cut(op.exchange, "demand of a run")
        op = self.cut(replace(op, exchange=exchange), "demand of a run")
        if wanted.what == "time":
            each = self._row_time(op, block, wanted.part)
        else:
            each = self.note(wanted.what, getattr(op, wanted.what), "demand of a run", wanted.unit)
        runs = self.note("runs", runs_of(self.ledger, block), "step", "1")
        return self.note("of_all_runs", runs * each, "step", wanted.unit)

    def _row_time(self, op: Op, block: Block, part: str) -> Any:
        shares, rates = core_shares(block, self.family, self.layout.attention_cores, self.rates), self.rates
        share = self.note("core_share", shares[0 if part in block.attention else 1], "time of a run", "1")
        name = rates.class_of(op.kernel)
        if name in rates.kernels:
            kernel = self._given(rates.kernels[name], f"kernel {name}")
            rates = replace(rates, kernels={**rates.kernels, name: kernel})
        timed = self.cut(time_op(op, rates, share), "time of a run", fold=True)
        time = self.note("time", timed.time, "time of a run", "s")
        roofs = {name: self.note(f"{name}_bound", roof, "what binds", "s") for name, roof in timed.roofs.items()}
        self.aside = self.note("bound", reduce(algebra.maximum, roofs.values(), timed.fixed_time), "what binds", "s")
        return time

    def _timed(self, op: Op, share: Any) -> OpTime:
        """Return a row timed; in a run of symbols by the name of the row alone."""
        hbm = f"{op.name}.hbm"
        if self.plan is None:
            timed = time_op(op, self.rates, share)
            self.plain(op.name, timed.time, "time of a run", "s")
            self.plain(hbm, timed.hbm_time, "time of a run", "s")
            return timed
        work = self.plain(op.name, None, "time of a run", "s")
        return OpTime(op=op, work=work, moved=self.plain(hbm, None, "time of a run", "s"))

    def layer(self, name: str) -> Any:
        """Return the time of one layer of a block."""
        block = self.block(name)
        shares = core_shares(block, self.family, self.layout.attention_cores, self.rates)

        def timed(part: str) -> Any:
            share = shares[0 if part in block.attention else 1]
            rows = (self._timed(op, share) for op in self.ledger.parts[part])
            time = add_rows(rows, self.rates, alone=share is WHOLE)
            # what prefetching spares is known of numbers only: a row's name says nothing of its weights
            spared = self.plain(f"{part}.spared", time.spared, "parts of a layer", "s")
            return self.cut(replace(time, spared=spared), "parts of a layer", f"{part}.")

        lane_of_attention, lane_of_experts = lanes_of(block, timed)
        attention = self.cut(lane_of_attention, "lanes of a layer", "attention_lane.")
        experts = self.cut(lane_of_experts, "lanes of a layer", "experts_lane.")
        time = layer_time(block, self.family, attention, experts, self.rates)
        return self.note(f"{name}.layer", time, "layer", "s")

    def step(self) -> Any:
        """Return the time of a step."""

        def layer(block: Block) -> Any:
            if self.plan is not None:
                return self.plain(block.name, None, "layers", "s")
            shares = core_shares(block, self.family, self.layout.attention_cores, self.rates)
            both = lanes(self.ledger, block, self.rates, *shares)
            return self.plain(block.name, layer_time(block, self.family, *both, self.rates), "layers", "s")

        return self.note("step_time", add_layers(self.ledger, self.family, self.rates, layer), "step", "s")

    def served(self, what: str) -> Any:
        """Return a number of the pool: its TPOT or its rate of tokens."""
        point = pool_of(self.ledger, self.step(), self.layout, self.family, self.case)
        each = self.note("tokens_per_step", point.tokens_per_step, "pool", "1")
        flying = self.note("in_flight", point.in_flight, "pool", "1")
        point = replace(point, tokens_per_step=each, in_flight=flying)
        return self.note(what, getattr(point, what), "pool", {"tpot": "s"}.get(what, "1/s"))

    def memory(self) -> Any:
        """Return the bytes planned on a die."""
        parts: dict[str, tuple[Op, ...]] = {
            name: (
                Op(
                    name=name,
                    operator="vector",
                    engine="vector",
                    resident_bytes=self.note(f"{name}.weights", part_bytes(self.ledger, name), "weights", "B"),
                ),
            )
            for name in self.ledger.parts
        }
        held = footprint(
            replace(self.ledger, parts=parts),
            self.layout,
            self.family,
            self.case.traffic,
            self.case.model,
            self.case.dims,
            self.rates.kv_block_tokens,
        )
        held = self.cut(held, "memory of a die", fold=True)
        return self.note("memory", held.planned, "memory of a die", "B")

    def number(self, wanted: Wanted) -> Any:
        """Return a number that was asked for."""
        match wanted.kind:
            case "row":
                return self.row(wanted)
            case "block":
                return self.layer(wanted.block)
        return {"step": self.step, "memory": self.memory}.get(wanted.what, lambda: self.served(wanted.what))()


def _tidy(form: Any) -> Any:
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
    return _replaced(form, exact)


def _replaced(form: Any, known: Mapping[Any, Any]) -> Any:
    """Return a form with others in place of parts of it, which of a product, sum, maximum or minimum may be some terms.

    Maxima and minima are left as they are: to order what they compare takes longer than all the rest.
    """
    import sympy

    if form in known:
        return known[form]
    if not form.args:
        return form
    arguments = [_replaced(arg, known) for arg in form.args]
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


def _size(value: Any) -> int:
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


def _is_choice(form: Any) -> bool:
    import sympy

    return isinstance(form, (sympy.Max, sympy.Min, sympy.Piecewise))


def _branches(choice: Any) -> tuple[Any, ...]:
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


def _here(form: Any, values: Values, met: list[Any]) -> Any:
    """Return a form with what its choices take at these values in their place, the choices added to ``met``."""
    if _is_choice(form):
        if form not in met:
            met.append(form)
        return _here(_branches(form)[int(taken(form, values))], values, met)
    if not form.args:
        return form
    return form.func(*(_here(arg, values, met) for arg in form.args))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Input:
    """An input that may move, and how far a flip is looked for."""

    name: str
    unit: str
    now: float
    ends: tuple[float, float]
    whole: bool
    moved: Callable[[Grid], Point]


def _spaced(start: float, end: float, whole: bool) -> Grid:
    """Return values from one to another, in order, whole ones without repeats."""
    grid: Grid = np.geomspace(start, end, POINTS)
    grid[0], grid[-1] = start, end
    if whole:
        grid = np.round(grid)
        grid = grid[np.concatenate(([True], np.diff(grid) != 0))]
    return grid


class _Flips:
    """Looks for the values of inputs at which choices of one number flip, with the code that works it out."""

    def __init__(self, wanted: Wanted, inputs: Iterable[_Input], completed: Callable[[Any], Values]) -> None:
        self.wanted = wanted
        self.completed = completed
        self.inputs = tuple(inputs)
        self._seen: dict[tuple[str, float, float], tuple[Grid, Values]] = {}

    def _along(self, one: _Input, start: float, end: float) -> tuple[Grid, Values]:
        key = (one.name, start, end)
        if key not in self._seen:
            grid = _spaced(start, end, one.whole)
            run = _Run(one.moved(grid))
            run.number(self.wanted)
            self._seen[key] = grid, self.completed(run.values)
        return self._seen[key]

    def _edge(self, choice: Any, one: _Input, end: float, here: int) -> float | None:
        """Return the nearest value towards an end at which a choice takes another branch."""
        inside, outside = one.now, end
        while True:
            grid, values = self._along(one, inside, outside)
            other = np.flatnonzero(np.broadcast_to(taken(choice, values), grid.shape) != here)
            if not len(other):
                return None
            inside, outside = float(grid[max(0, other[0] - 1)]), float(grid[other[0]])
            if abs(outside - inside) <= (1 if one.whole else SAME * one.now):
                return outside

    def of(self, choice: Any, here: int) -> tuple[Flip, ...]:
        """Return the inputs that flip a choice, and where."""
        found = []
        for one in self.inputs:
            below, above = (self._edge(choice, one, end, here) if end != one.now else None for end in one.ends)
            if below is not None or above is not None:
                found.append(Flip(by=one.name, unit=one.unit, now=one.now, below=below, above=above))
        return tuple(found)


def _figures(machine: Machine) -> list[tuple[Any, str, Figure, str]]:
    """Return the numbers of a machine that can move a little: not 0, and no dies or cores, which are counted."""
    found = []
    for part in machine.parts:
        counted = part in (machine.chip, machine.system)
        for path, figure in part.figures.items():
            *owners, last = path.split(".")
            owner = part.spec
            for key in owners:
                owner = owner[int(key)] if isinstance(owner, tuple) else getattr(owner, key)
            unit = _units(owner)[last]
            if figure.value and not (counted and unit == "1" and float(figure.value).is_integer()):
                found.append((part, path, figure, unit))
    return found


def _inputs(point: Point, machine: Machine) -> list[_Input]:
    """Return the inputs whose flips are looked for: batch, input length, and the rates of the hardware."""
    layout, case = point.layout, point.case
    longest = case.model.max_position_embeddings - float(case.osl)  # type: ignore[arg-type]
    batch, isl = float(layout.batch), float(case.isl)  # type: ignore[arg-type]

    def of_batch(grid: Grid) -> Point:
        return replace(point, layout=replace(layout, batch=grid))

    def of_isl(grid: Grid) -> Point:
        return replace(point, case=replace(case, isl=grid))

    def of_figure(part: Any, path: str) -> Callable[[Grid], Point]:
        def moved(grid: Grid) -> Point:
            return replace(point, case=replace(case, rates=with_figures(machine, [(part, path, grid)]).rates()))

        return moved

    most = max(MOST_SEQUENCES, batch)
    found = [
        _Input(name="batch", unit="1", now=batch, ends=(1, most), whole=True, moved=of_batch),
        _Input(name="isl", unit="1", now=isl, ends=(1, max(longest, isl)), whole=True, moved=of_isl),
    ]
    for part, path, figure, unit in _figures(machine):
        if part in (machine.chip, machine.system) and unit in RATES:
            ends, name = (figure.value / REACH, figure.value * REACH), f"{part.spec.name}: {path}"
            moved = of_figure(part, path)
            found.append(_Input(name=name, unit=unit, now=figure.value, ends=ends, whole=False, moved=moved))
    return found


def _slopes(wanted: Wanted, point: Point, machine: Machine) -> list[Slope]:
    """Return what a number answers to, the strongest first, by differences of the code that works it out."""
    layout, case = point.layout, point.case
    step = np.array([1 - SMALL_STEP, 1, 1 + SMALL_STEP])
    loads: dict[str, tuple[Any, Callable[[Any], Point]]] = {
        "batch": (layout.batch, lambda x: replace(point, layout=replace(layout, batch=x))),
        "isl": (case.isl, lambda x: replace(point, case=replace(case, isl=x))),
        "osl": (case.osl, lambda x: replace(point, case=replace(case, osl=x))),
    }
    ends: list[tuple[str, str, float, Grid]] = []
    for name, (now, at) in loads.items():
        ends.append((name, "1", now, np.broadcast_to(_Run(at(now * step)).number(wanted), 3)))
    figures = _figures(machine)
    columns = []
    for i, (part, path, figure, _) in enumerate(figures):
        column = np.full(3 * len(figures), figure.value)
        column[3 * i : 3 * i + 3] *= step
        columns.append((part, path, column))
    rates = with_figures(machine, columns).rates()
    moved = _Run(replace(point, case=replace(case, rates=rates))).number(wanted)
    moved = np.broadcast_to(moved, 3 * len(figures)).reshape(-1, 3)
    for (part, path, figure, unit), three in zip(figures, moved, strict=True):
        ends.append((f"{part.spec.name}: {path}", unit, figure.value, three))
    found = []
    for name, unit, now, (low, middle, high) in ends:
        down, up = (float(change) / SMALL_STEP / float(middle) for change in (middle - low, high - middle))
        if max(abs(down), abs(up)) > FELT:
            slope = (down + up) / 2 * float(middle) / now
            found.append(Slope(input=name, value=now, unit=unit, derivative=slope, down=down, up=up))
    return sorted(found, key=lambda one: -max(abs(one.down), abs(one.up)))


class _Forms:
    """The forms of one number, and the values of their names at the plan."""

    def __init__(self, wanted: Wanted, point: Point) -> None:
        plan = _Run(point)
        plan.number(wanted)
        self.run = _Run(point, plan)
        result = self.run.number(wanted)
        self.result = str(result)
        needed: set[str] = set()
        open_ = [one.name for end in (result, self.run.aside) for one in getattr(end, "free_symbols", ())]
        while open_:
            name = open_.pop()
            if name not in needed:
                needed.add(name)
                form = self.run.notes[name][2]
                open_ += [] if form is None else [one.name for one in form.free_symbols]
        self.needed = [name for name in self.run.notes if name in needed]
        self.values = self.completed(plan.values)

    def completed(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return the values of a run of numbers with those of the pieces that forms were cut into."""
        values = dict(values)
        for name in self.needed:
            _, unit, form = self.run.notes[name]
            if unit is None:
                values[name] = value_of(form, values)
        return values

    def lines(self) -> list[tuple[Line, list[Any]]]:
        """Return the lines in order, each with the choices it makes."""
        found = []
        for name in self.needed:
            stage, unit, form = self.run.notes[name]
            met: list[Any] = []
            here = None if form is None else _here(form, self.values, met)
            value = float(self.values[name])
            found.append((Line(stage=stage, name=name, unit=unit, form=form, value=value, here=here), met))
        return found


def closed_form(wanted: Wanted, point: Point, machine: Machine) -> ClosedForm:
    """Return the closed form of a number at a plan, where its choices flip, and what it answers to."""
    forms = _Forms(wanted, point)
    lines = forms.lines()
    flips = _Flips(wanted, _inputs(point, machine), forms.completed)
    choices = []
    for line, met in lines:
        for choice in met:
            at, branches = int(taken(choice, forms.values)), _branches(choice)
            left = tuple(branch for i, branch in enumerate(branches) if i != at)
            found = flips.of(choice, at)
            choices.append(Choice(line=line.name, node=choice, taken=branches[at], left=left, flips=found))
    slopes = _slopes(wanted, point, machine) if wanted.value else []
    return ClosedForm(
        wanted=wanted, lines=tuple(line for line, _ in lines), choices=tuple(choices), slopes=tuple(slopes)
    )


#: what is asked of a row -> its unit
OF_A_ROW = {"time": "s", "flop": "FLOP", "bytes": "B", "sent": "B"}


def numbers_of(point: Point) -> dict[str, Wanted]:
    """Return by name every number of a step that has a form."""
    run = _Run(point)
    totals = {"step": ("step_time", "s"), "memory": ("memory", "B"), "tokens_per_s": ("tokens_per_s", "1/s")}
    if point.family.phase == "decode":
        totals["tpot"] = ("tpot", "s")
    served: Any = pool_of(run.ledger, run.step(), run.layout, run.family, run.case)
    found = {
        name: Wanted(name=name, kind="step", what=name, unit=unit, value=float(getattr(served, key)))
        for name, (key, unit) in totals.items()
    }
    for block in run.ledger.blocks:
        if not block.count:
            continue
        value = float(_Run(point).layer(block.name))
        found[block.name] = Wanted(name=block.name, kind="block", what="layer", unit="s", value=value, block=block.name)
        for one in _rows_of(run, block):
            found[one.name] = one
    return found


def _rows_of(run: _Run, block: Block) -> Iterable[Wanted]:
    shares = core_shares(block, run.family, run.layout.attention_cores, run.rates)
    runs: Any = runs_of(run.ledger, block)
    for part in dict.fromkeys((*block.attention, *block.experts, *block.joined, *block.beside)):
        for op in run.ledger.parts[part]:
            time: Any = time_op(op, run.rates, shares[0 if part in block.attention else 1]).time
            each = {"time": time, "flop": op.flop, "bytes": op.bytes, "sent": op.sent}
            for what, unit in OF_A_ROW.items() if time else ():
                if each[what]:
                    yield Wanted(
                        name=f"{block.name}/{op.name}" + ("" if what == "time" else f".{what}"),
                        kind="row",
                        what=what,
                        unit=unit,
                        value=float(runs * each[what]),
                        block=block.name,
                        part=part,
                        op=op.name,
                    )


def asked_for(word: str, numbers: Mapping[str, Wanted]) -> list[Wanted]:
    """Return the numbers that a name or a pattern means, those of rows in the block where they take the most.

    A row goes by its name in the table (``attention.core``), or by what follows the dot; ``block/row`` names the
    block, and ``.flop``, ``.bytes`` or ``.sent`` after it another number than its time.  Raises ``UsageError``
    where nothing is meant.
    """
    short: dict[str, Wanted] = {}
    for name, one in numbers.items():
        bare = name.partition("/")[2] or name
        if bare not in short or short[bare].value < one.value:
            short[bare] = one
    known = {**short, **numbers} if "/" in word else short
    if word in known:
        return [known[word]]
    of_rows = {name: one for name, one in known.items() if one.kind == "row"}
    found = [one for name, one in of_rows.items() if name.partition(".")[2] == word]
    # a pattern means times, unless it means no time at all
    matches = [one for name, one in known.items() if fnmatchcase(name, word)]
    found = found or [one for one in matches if one.what not in OF_A_ROW or one.what == "time"] or matches
    if not found:
        tails = {name.partition(".")[2] for name, one in of_rows.items() if one.what == "time"}
        near = did_you_mean(word, [*short, *sorted(tails)])
        raise UsageError(f"--formula: {word!r} is no number of this step{near}; see all with --formula list")
    return found
