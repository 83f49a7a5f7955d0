"""Counts what a pass of the search works: element operations and bytes, by watching the arrays themselves."""

from collections import Counter
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from perfmodel.ledger.records import Layout
from perfmodel.prediction.serving import Case, pool_point
from perfmodel.solver.mesh import CORES, Mesh


@dataclass
class Work:
    """Element operations by function, and bytes read and written, of everything done with watched arrays."""

    calls: int = 0
    elements: Counter[str] = field(default_factory=Counter)
    #: of arrays as large as the grid of plans
    full: Counter[str] = field(default_factory=Counter)
    bytes: int = 0


class Watched(np.ndarray):
    """An array that books every function applied to it, and hands the watch on to the result."""

    work: Work
    plans: int

    def __array_finalize__(self, parent: Any) -> None:
        self.work = getattr(parent, "work", Work())
        self.plans = getattr(parent, "plans", 0)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        plain = [_bare(one) for one in inputs]
        if "out" in options:
            options["out"] = tuple(_bare(one) for one in options["out"])
        return self._booked(ufunc.__name__, plain, getattr(ufunc, method)(*plain, **options))

    def __array_function__(self, function: Any, types: Any, inputs: Any, options: Any) -> Any:
        plain = [_bare(one) for one in inputs]
        return self._booked(function.__name__, plain, function(*plain, **options))

    def _booked(self, name: str, inputs: list[Any], result: Any) -> Any:
        """Book a call and return its result with the watch on it; the work of a reduction is its input."""
        size = max(np.size(one) for one in (*inputs, result))
        self.work.calls += 1
        self.work.elements[name] += size
        self.work.full[name] += size == self.plans
        self.work.bytes += sum(np.asarray(one).nbytes for one in (*inputs, result))
        if not isinstance(result, np.ndarray):
            return result
        seen = result.view(Watched)
        seen.work, seen.plans = self.work, self.plans
        return seen


def _bare(value: Any) -> Any:
    return np.asarray(value) if isinstance(value, Watched) else value


def watched(layout: Layout, plans: int) -> tuple[Layout, Work]:
    """Return a layout whose arrays book what is done with them, and the book."""
    work = Work()
    columns = {}
    for one in fields(Layout):
        value = getattr(layout, one.name)
        if isinstance(value, np.ndarray):
            view = value.view(Watched)
            view.work, view.plans = work, plans
            columns[one.name] = view
    return replace(layout, **columns), work


def work_of(mesh: Mesh, case: Case, memory_limit: float, tpot: float) -> Work:
    """Return the work of one chunk up to the rates of what is left and the masks of what is not."""
    layout, work = watched(mesh.layout(), int(np.prod(mesh.shape)))
    _judged(pool_point(layout, mesh.family, case), memory_limit, tpot)
    return work


def _judged(point: Any, memory_limit: float, tpot: float) -> tuple[Any, Any]:
    """Return rates and masks as the search makes them."""
    fastest: Any = replace(point, step_time=np.minimum.reduce(point.step_time, axis=CORES, keepdims=True))
    refused = (fastest.memory > memory_limit) | (fastest.tpot > tpot)
    return np.where(refused, -1.0, fastest.requests_per_s), point.step_time > tpot * point.tokens_per_step
