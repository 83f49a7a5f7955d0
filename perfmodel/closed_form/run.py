"""One pass of the code from the inputs of a plan to a number, of numbers, arrays or symbols."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache, cached_property, partial, reduce
from itertools import count
from typing import Any, Literal, get_type_hints

import numpy as np

from perfmodel import algebra
from perfmodel.closed_form.symbols import replaced, size, tidy
from perfmodel.ledger.footprint import footprint, part_bytes
from perfmodel.ledger.quantities import contexts, loads, routed_of
from perfmodel.ledger.records import Block, Family, Layout, Ledger, Op, Quantities
from perfmodel.ledger.step import ledger_of_loads, loads_of_redrafts, redrafts
from perfmodel.prediction.breakdown import runs_of
from perfmodel.prediction.serving import Case, pool_of
from perfmodel.specs.base import Spec
from perfmodel.specs.numbers import unit_in
from perfmodel.supply.rates import Rates
from perfmodel.timing.operators import NOTHING_KEPT, WHOLE, OpTime, time_op
from perfmodel.timing.step import (
    PartTime,
    add_layers,
    add_rows,
    core_shares,
    lanes,
    lanes_of,
    layer_time,
    pins_taken,
    reused_weights,
    without_weights,
)

#: what decides which rows exist or how often a loop runs stays a number
STRUCTURE = (
    "num_hidden_layers",
    "first_k_dense_replace",
    "num_nextn_predict_layers",
    "hc_mult",
    "max_position_embeddings",
    "n_group",
    "topk_group",
    "dies_per_package",
    "packages_per_server",
    "max_packages",
)
LARGEST_FORM = 40  # operations of a form that is read as one

#: of a block
LANES = ("attention", "experts")

Kind = Literal["row", "block", "step"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A number that can be asked for: of a row of a block, the time of a layer or a lane, or a total of the step."""

    name: str
    kind: Kind
    what: str
    unit: str
    value: float
    block: str = ""
    part: str = ""
    op: str = ""


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


def units_of(record: Any) -> dict[str, str]:
    """Return the unit of each field of a record or a spec."""
    kind: Any = type(record)
    return _units_in(kind)


@cache
def _units_in(kind: Any) -> dict[str, str]:
    hints = get_type_hints(kind, include_extras=True)
    return {name: unit_in(hint) or "1" for name, hint in hints.items()}


class Run:
    """One pass from the inputs to a number that notes by name what each stage hands to the next.

    Of numbers or arrays it notes values.  With a ``plan``, the run of the plan's numbers, it notes forms: what
    is 0 in the plan stays 0, anything else becomes a symbol of its name.
    """

    def __init__(self, point: Point, plan: "Run | None" = None) -> None:
        self.plan = plan
        self.values: dict[str, Any] = {}
        #: name -> stage, unit, form; no unit of a piece of a form, and no form of what is given
        self.notes: dict[str, tuple[str, str | None, Any]] = {}
        #: what the number does not depend on, but a reader asks for with it
        self.aside: Any = 0
        self.family = point.family
        #: whether a draft layer runs again: of the plan's numbers, as its rows exist or do not
        self.redrafts: bool = plan.redrafts if plan else redrafts(point.layout, point.family, point.case.model)
        # degrees of forms of parallelism that this plan has not
        unused = {f.name for f in fields(Layout) if plan and getattr(point.layout, f.name) == f.default}
        self.layout = self._given(point.layout, "layout", leave=unused)
        case, model = point.case, point.case.model
        accepted = tuple(
            self.plain(f"acceptance_{i}", rate, "requests", "1") for i, rate in enumerate(case.acceptance, 1)
        )
        rates = self._given(case.rates, "machine")
        tiers = tuple(
            self._given(tier, "machine", f"{tier.name}_", ("bandwidth", "pin_bandwidth")) for tier in rates.tiers
        )
        sizes = {"attention": self._given(model.attention, "model")}
        if model.experts is not None:
            sizes["experts"] = self._given(model.experts, "model")
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
        units, update = units_of(record), {}
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
        form = tidy(value)
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

        if size(form) <= LARGEST_FORM:
            return form
        names = (sympy.Symbol(f"{name}.{i}") for i in count(1))  # a condition or a difference is not positive
        pieces, (form,) = sympy.cse(form, names, order="none")
        inlined: dict[Any, Any] = {}
        for symbol, piece in pieces:
            piece = replaced(piece, inlined)
            if piece.free_symbols and size(piece) > 1:
                self.notes[symbol.name] = (stage, None, piece)
            else:
                inlined[symbol] = piece
        return replaced(form, inlined)

    def cut(self, record: Any, stage: str, prefix: str = "", *, fold: bool = False) -> Any:
        """Return a record as the next stage gets it; ``fold`` says its larger forms by its smaller ones."""
        units, found = units_of(record), _numbers(record)
        known: dict[Any, Any] = {}
        if fold and self.plan is not None:
            found = {name: tidy(v) if hasattr(v, "free_symbols") else v for name, v in found.items()}
            found = dict(sorted(found.items(), key=lambda item: size(item[1])))
        for name, value in found.items():
            for form, symbol in known.items() if hasattr(value, "subs") else ():
                value = replaced(value, {form: symbol})
            found[name] = self.note(prefix + name, value, stage, units[name])
            if fold and size(value) and found[name] is not value:
                known[value] = found[name]
        return _with(record, found)

    @cached_property
    def ledger(self) -> Ledger:
        """Rows of the step, in terms of its loads."""
        case, layout, family = self.case, self.layout, self.family
        again = self._loads(loads_of_redrafts(layout), "redraft.") if self.redrafts else None
        return ledger_of_loads(self._loads(layout), layout, family, case.model, case.dims, again=again)

    def _loads(self, layout: Layout, prefix: str = "") -> Quantities:
        case, family = self.case, self.family
        load = self.cut(contexts(layout, family, case.traffic), "loads", prefix)
        routed = routed_of(load, layout, family, case.traffic, case.dims)
        if case.dims.routes:
            routed = self.cut(routed, "loads", prefix, fold=True)
        busiest = loads(load, routed, layout, family, case.traffic, case.dims)
        cut: Quantities = self.cut(busiest, "loads", prefix)
        return cut

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

    def _timed(self, op: Op, timed: Callable[[], OpTime], name: str) -> OpTime:
        """Return a row timed; in a run of symbols by its name alone."""
        row = timed() if self.plan is None else None
        time = self.plain(name, row and row.time, "time of a run", "s")
        hbm = self.plain(f"{name}.hbm", row and row.hbm_time, "time of a run", "s")
        return row or OpTime(op=op, work=time, moved=hbm)

    def _lanes(self, block: Block) -> tuple[PartTime, PartTime]:
        shares = core_shares(block, self.family, self.layout.attention_cores, self.rates)
        reused = reused_weights(self.ledger, block, self.family, self.rates)

        def light(row: OpTime, rates: Rates) -> OpTime:
            return self._timed(row.op, lambda: without_weights(row, rates), f"{row.op.name}.light")

        def taken(row: OpTime, rates: Rates) -> Any:
            value = None if self.plan is not None else pins_taken(row, rates)
            return self.plain(f"{row.op.name}.pins_taken", value, "time of a run", "1")

        def timed(part: str) -> Any:
            share = shares[0 if part in block.attention else 1]
            ops = self.ledger.parts[part]
            rows = [self._timed(op, partial(time_op, op, self.rates, share), op.name) for op in ops]

            def again(row: OpTime) -> OpTime:
                second = partial(time_op, row.op, self.rates, share, kept=reused)
                return self._timed(row.op, second, f"{row.op.name}.again")

            second = None if reused is NOTHING_KEPT else again
            time = add_rows(rows, self.rates, alone=share is WHOLE, light=light, again=second, taken=taken)
            return self.cut(time, "parts of a layer", f"{part}.")

        attention, experts = lanes_of(block, timed)
        attention = self.cut(attention, "lanes of a layer", "attention_lane.")
        return attention, self.cut(experts, "lanes of a layer", "experts_lane.")

    def layer(self, wanted: Wanted) -> Any:
        """Return the time of one layer of a block, or of one of its lanes."""
        block = self.block(wanted.block)
        attention, experts = self._lanes(block)
        if wanted.what in LANES:
            time = block.passes * (attention if wanted.what == "attention" else experts).whole
        else:
            time = layer_time(block, self.family, attention, experts, self.rates)
        return self.note(wanted.name, time, "layer", "s")

    def step(self) -> Any:
        """Return the time of a step."""

        def layer(block: Block) -> Any:
            if self.plan is not None:
                return self.plain(block.name, None, "layers", "s")
            both = lanes(self.ledger, block, self.family, self.layout.attention_cores, self.rates)
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
            self.rates.activations,
        )
        held = self.cut(held, "memory of a die", fold=True)
        return self.note("memory", held.planned, "memory of a die", "B")

    def number(self, wanted: Wanted) -> Any:
        """Return a number that was asked for."""
        match wanted.kind:
            case "row":
                return self.row(wanted)
            case "block":
                return self.layer(wanted)
        return {"step": self.step, "memory": self.memory}.get(wanted.what, lambda: self.served(wanted.what))()
