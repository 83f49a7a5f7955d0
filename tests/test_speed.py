"""What keeps the search fast and still exact: small shapes, and no plan that the open mesh sees differently."""

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from perfmodel.ledger.records import Op
from perfmodel.ledger.step import build_ledger
from perfmodel.prediction.deployment import exact_pool
from perfmodel.prediction.serving import Case, pool_point
from perfmodel.solver import mesh as open_mesh
from perfmodel.solver.mesh import Mesh, meshes
from perfmodel.solver.search import best_decode
from perfmodel.solver.space import Choices
from perfmodel.solver.tally import Tally
from perfmodel.timing.operators import time_op
from perfmodel.timing.step import core_shares
from tests.builders import deepseek_case, rates_of

SIZES = [96, 128]  # with other slots of a rank each, and the same choices of shared ranks
AXES = ("size", "shared ranks", "slots", "tp", "draft", "core split", "batch")


def decode_meshes(one: Case) -> list[Mesh]:
    return list(meshes(one, "decode", SIZES, Choices()))


def needless_axes(value: Any) -> list[str]:
    """Return the axes along which an array is long and yet the same throughout."""
    if not isinstance(value, np.ndarray) or not np.ptp(value):
        return []  # a term that is nothing at all under these kernels, such as bytes beyond L2
    return [AXES[at] for at in range(value.ndim) if value.shape[at] > 1 and not np.ptp(value, axis=at).any()]


def rows(mesh: Mesh, one: Case) -> Iterator[tuple[Op, Any]]:
    layout = mesh.layout()
    ledger = build_ledger(layout, mesh.family, one.traffic, one.model, one.dims)
    for block in ledger.blocks:
        first, second = core_shares(block, mesh.family, layout.attention_cores, one.rates)
        for names, share in ((block.attention, first), ((*block.experts, *block.joined, *block.beside), second)):
            for name in names:
                yield from ((op, time_op(op, one.rates, share)) for op in ledger.parts[name])


@pytest.mark.parametrize("number", range(10))
def test_every_quantity_carries_only_the_axes_it_feels(number: int) -> None:
    """One full-size array among the rows would cost as much as all others of its row together."""
    one = deepseek_case()
    families = list({mesh.family: mesh for mesh in decode_meshes(one)}.values())
    assert len(families) == 10
    mesh = families[number]
    seen = 0
    for op, timed in rows(mesh, one):
        values = {name.name: getattr(op, name.name) for name in fields(Op)} | {"work": timed.work}
        if op.exchange is not None:
            values |= {"payload": op.exchange.payload, "messages": op.exchange.messages}
        for name, value in values.items():
            assert needless_axes(value) == [], f"{op.name}: {name} of shape {np.shape(value)}"
            seen += isinstance(value, np.ndarray)
    assert seen > 100


def test_a_needless_axis_is_found() -> None:
    assert needless_axes(np.array([[1.0, 2.0], [1.0, 2.0]])) == ["size"]
    assert needless_axes(np.array([[1.0, 2.0]])) == []


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    one, found = deepseek_case(32_000, 1000), []
    for chunk in (open_mesh.CHUNK, 5_000, 1):
        monkeypatch.setattr(open_mesh, "CHUNK", chunk)
        tally = Tally()
        leaders = best_decode(one, SIZES, 0.05, [np.inf], Choices(), tally)
        found.append((tally.evaluated, tally.refused, {leader.key: leader.layout for leader in leaders}))
    assert found[0] == found[1] == found[2]
    assert found[0][2]


def test_the_mesh_sees_what_plain_numbers_see() -> None:
    one, dice = deepseek_case(), np.random.default_rng(0)
    for mesh in decode_meshes(one):
        grid: Any = pool_point(mesh.layout(), mesh.family, one)
        for index in dice.integers(np.prod(mesh.shape), size=5).tolist():
            at = np.unravel_index(index, mesh.shape)
            plan: Any = exact_pool(mesh.layout_at(index), mesh.family, one).point
            for name in ("step_time", "memory", "requests_per_s"):
                value = np.broadcast_to(getattr(grid, name), mesh.shape)[at]
                assert value == pytest.approx(getattr(plan, name), rel=1e-12), (name, mesh.layout_at(index))


def test_every_plan_beyond_a_limit_is_judged_on_its_own() -> None:
    """TPOT may fall with the batch where a table of links is given that says so: none is cut for a shorter one."""
    rates = replace(rates_of(stack="vllm-ascend-2025"), capacity=1e13)  # so that memory leaves no batch out
    one = deepseek_case(128, 1024, rates, acceptance=())
    grids = []
    for mesh in meshes(one, "decode", [320], Choices(fixed={"decode": {"tp": 1}})):
        point: Any = pool_point(mesh.layout(), mesh.family, one)
        grids.append(np.broadcast_to(point.tpot, mesh.shape))
    pairs = [
        (float(grid[..., at].flat[n]), float(grid[..., at + 1].flat[n]))
        for grid in grids
        for at in range(grid.shape[-1] - 1)
        for n in [np.argmin(grid[..., at + 1] - grid[..., at])]
    ]
    alone, two = min(pairs, key=lambda pair: pair[1] - pair[0])
    tally = Tally()
    best_decode(one, [320], (alone + two) / 2, [np.inf], Choices(fixed={"decode": {"tp": 1}}), tally)
    assert tally.refused["tpot"] == sum(int(np.count_nonzero(grid > (alone + two) / 2)) for grid in grids)
