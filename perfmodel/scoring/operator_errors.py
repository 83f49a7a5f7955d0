"""Errors of measured operators: many of them predicted as a few array operations, with their spread."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.algebra import as_array
from perfmodel.errors import DataError
from perfmodel.ledger.records import Exchange, Op
from perfmodel.measured.shapes import Measurement
from perfmodel.specs.kernels import MatmulKernel
from perfmodel.supply.rates import Rates
from perfmodel.timing.operators import time_op

Values = NDArray[np.float64]
FASTER_THAN_LIGHT = 0.5  # of the median of a table
#: bounds of one row: experts drawn at random may be a tenth of those expected; any call may idle a millisecond
FASTEST, SLOWEST, IDLE = 0.1, 100.0, 1e-3
SHOWN_FAULTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Errors of a set of rows, predicted over measured less one: sizes, but for ``bias`` and ``worst``."""

    mean: float
    median: float
    p90: float
    bias: float
    worst: float
    worst_where: str


def _column(values: Sequence[Any]) -> Any:
    """Return equal values as one number, others as an array."""
    first = values[0]
    return first if all(value == first for value in values) else np.array(values, dtype=np.float64)


def _stacked(ops: Sequence[Op]) -> Op:
    """Return operators of one kind as one operator of arrays."""
    first = ops[0]
    exchange = None
    if first.exchange is not None:
        given = [op.exchange for op in ops if op.exchange is not None]
        exchange = Exchange(
            collective=first.exchange.collective,
            group=_column([one.group for one in given]),
            payload=_column([one.payload for one in given]),
            messages=_column([one.messages for one in given]),
            copies=_column([one.copies for one in given]),
        )
    work = ("flop", "weight_bytes", "activation_bytes", "kv_bytes", "kernels")
    shape = ("matrices", "rows", "columns", "sequences", "context", "heads")
    columns = {name: _column([getattr(op, name) for op in ops]) for name in (*work, *shape)}
    return replace(first, exchange=exchange, **columns)


def spread_of(errors: Values, where: Sequence[str]) -> Spread:
    """Return what a set of relative errors amounts to."""
    sizes = np.abs(errors)
    worst = int(sizes.argmax())
    return Spread(
        mean=float(sizes.mean()),
        median=float(np.median(sizes)),
        p90=float(np.percentile(sizes, 90)),
        bias=float(np.median(errors)),
        worst=float(errors[worst]),
        worst_where=where[worst],
    )


class Rows:
    """Measurements of one kernel, stacked once so that a prediction is a few array operations."""

    def __init__(self, rows: Sequence[Measurement]) -> None:
        kinds: dict[Any, list[int]] = {}
        for i, row in enumerate(rows):
            kind = row.op.exchange.collective if row.op.exchange else row.op.operator
            kinds.setdefault(kind, []).append(i)
        self.rows = rows
        self.times: Values = np.array([row.time for row in rows])
        self._stacks = [(np.array(places), _stacked([rows[i].op for i in places])) for places in kinds.values()]

    def predicted(self, rates: Rates) -> Values:
        """Return the times that a machine's rates predict for calls repeated as a benchmark repeats them."""
        result = np.empty(len(self.rows))
        for places, op in self._stacks:
            result[places] = as_array(time_op(op, rates, repeated=True).time)
        return result

    def spread(self, predicted: Values) -> Spread:
        """Return the errors of a prediction."""
        return spread_of(predicted / self.times - 1, [row.where for row in self.rows])


def by_kernel(measurements: Sequence[Measurement]) -> dict[str, list[Measurement]]:
    """Return measurements by the operator class whose kernel ran them."""
    found: dict[str, list[Measurement]] = {}
    for one in measurements:
        found.setdefault(one.op.kernel, []).append(one)
    return found


def check_units(name: str, rows: Rows, ideal: Rates) -> None:
    """Refuse times that no machine of this kind can show: their unit is most likely another one.

    Raises ``DataError`` with one line for each such row, and one for times that are too short as a whole.
    """
    light = rows.predicted(ideal)
    shortest, longest = FASTEST * light, SLOWEST * light + IDLE
    faults = [
        f"{row.where}: {name}: found {time * 1e6:.4g} us; allowed: {low * 1e6:.3g} to {high * 1e6:.3g} us, from near "
        "the speed of light of the system; check the unit of the time and --on"
        for row, time, low, high in zip(rows.rows, rows.times, shortest, longest, strict=True)
        if not low <= time <= high
    ]
    ratio = float(np.median(rows.times / light))
    if not faults and ratio < FASTER_THAN_LIGHT:
        faults = [
            f"{rows.rows[0].where}: {name}: half of its {len(rows.rows)} times are below {ratio:.2g} of the speed of "
            f"light of the system; allowed: {FASTER_THAN_LIGHT:g} or more; check the unit of the time and --on"
        ]
    if faults:
        more = len(faults) - SHOWN_FAULTS
        raise DataError("\n".join([*faults[:SHOWN_FAULTS], *([f"{name}: {more} rows more"] if more > 0 else [])]))


def without_residents(rates: Rates) -> Rates:
    """Return the rates with no weights left in L2 from one call to the next, as in a profile of serving."""
    kernels = {
        name: kernel.model_copy(update={"resident": 0.0}) if isinstance(kernel, MatmulKernel) else kernel
        for name, kernel in rates.kernels.items()
    }
    return replace(rates, kernels=kernels)
