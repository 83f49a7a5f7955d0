"""Times of rows, exchanges, layers and pools against docs/method.md worked a second time, on a machine made up here."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from perfmodel.ledger.footprint import Footprint
from perfmodel.ledger.records import Block, Exchange, Family, Layout, Ledger, Op
from perfmodel.prediction import serving
from perfmodel.prediction.serving import Case, FirstToken, PoolPoint
from perfmodel.specs.kernels import (
    AllToAllKernel,
    BulkKernel,
    ChoiceKernel,
    CollectiveKernel,
    DecodeAttentionKernel,
    MatmulKernel,
    MessageKernel,
    PrefillAttentionKernel,
    VectorKernel,
)
from perfmodel.supply.rates import Rates, TierRates
from perfmodel.timing import step as steps
from perfmodel.timing.exchanges import exchange_time
from perfmodel.timing.operators import OpTime, time_op
from perfmodel.timing.step import PartTime
from tests.builders import deepseek_case

# ------------------------------------------------------------------------------------------------------ the machine

PINS, L2, CORES, VECTOR_CORES = 1.3e12, 1.7e8, 20, 36
PEAK = {"cube_bf16": 3.1e14, "cube_int8": 6.7e14, "vector": 1.1e13}
L2_READ, L2_WRITE, CORE_STREAM = 4.7e12, 2.3e12, 1.9e12
SIZES = [2, 8, 64, 4096]  # dies of package, node, supernode, scale-out
NAMES = ["package", "node", "supernode", "scale_out"]
LINKS = ["sio", "ub", "ub", "roce"]
PIN = [2.7e11, 1.96e11, 1.57e11, 2.5e10]
GIVEN = [2.3e11, 1.61e11, 1.19e11, 1.9e10]
#: part of a node's mesh of four cards that dies of a group use: of three links, those to cards of the group
MESH = {2: 1 / 3, 4: 1 / 3, 5: 1.5 / 3, 6: 2 / 3, 8: 1.0, 12: 1.0, 16: 1.0, 24: 1.0, 64: 1.0, 128: 1.0}

MATMUL = MatmulKernel.model_construct(
    start=3e-6,
    stream=0.83,
    resident=3.1e7,
    resident_stream=1.7,
    compute=0.71,
    overlap_rows=190.0,
    activation_passes=2.3,
)
TILED = MatmulKernel.model_construct(
    start=5e-6, stream=0.79, resident=1.1e7, resident_stream=2.1, compute=0.67, overlap_rows=70.0,
    activation_passes=1.9, tile_rows=128, tile_columns=96,
)  # fmt: skip
DECODE_KERNEL = DecodeAttentionKernel.model_construct(
    start=7e-6, start_per_sequence=3e-7, stream=0.77, compute=0.61, overlap=0.43, block_tokens=700.0
)
PREFILL_KERNEL = PrefillAttentionKernel.model_construct(
    start=11e-6, task_time=1.3e-6, compute=0.59, overhead_tokens=310.0, spill=0.7
)
CHOICE = ChoiceKernel.model_construct(start=6e-6, passes=5.3)
VECTOR = VectorKernel.model_construct(start=2e-6, stream=0.73, compute=0.53)
COLLECTIVE = CollectiveKernel.model_construct(
    start=2.1e-6, start_per_pair=5.7e-8, peer_rate=2.4e10, push_rate=5.1e10, pair_rate=9.3e10, gather_limit=5.9e5,
    gather_beyond=8.1e5, reduce_limit=1.17e6, reduce_beyond=1.59e6, bulk_start=1.2e-4, bulk_start_per_peer=3.1e-6,
    bulk_overlap=0.64, outer_gather_limit=4.4e4, outer_gather_beyond=1.2e5, outer_reduce_limit=9.1e4,
    outer_reduce_beyond=2.3e5, outer_overlap=0.37, read_share=0.83, write_share=0.61, package_share=0.93,
    covers=("sio", "ub"),
)  # fmt: skip
ALL_TO_ALL = AllToAllKernel.model_construct(
    start=4.6e-6, start_per_doubling=3.2e-6, link_share=0.68, package_share=0.91, overlap=0.38, spill_passes=1.21,
    covers=("ub", "sio"),
)  # fmt: skip
MESSAGE = MessageKernel.model_construct(start=1.6e-5, per_message=1.3e-7, covers=("ub",), max_tokens_per_die=512)
BULK = BulkKernel.model_construct(start=9e-6, link_share=0.57, peers_at_half=110, covers=("ub",))


def tier(at: int, fabric: str = "switch") -> TierRates:
    return TierRates(
        name=NAMES[at], link=LINKS[at], fabric=fabric, dies=SIZES[at], bandwidth=GIVEN[at], pin_bandwidth=PIN[at],
        latency=0.0,
    )  # fmt: skip


TIERS = (tier(0), tier(1, "mesh"), tier(2), tier(3))
RATES = Rates(
    cube_cores=CORES,
    vector_cores=VECTOR_CORES,
    cube_bf16=PEAK["cube_bf16"],
    cube_int8=PEAK["cube_int8"],
    vector=PEAK["vector"],
    vector_half=2.3e13,
    hbm_bandwidth=PINS,
    core_stream=CORE_STREAM,
    l2_capacity=L2,
    l2_rate=L2_READ,
    l2_write_rate=L2_WRITE,
    kernels={
        "matmul_int8": MATMUL,
        "grouped_matmul_bf16": TILED,
        "attention_decode": DECODE_KERNEL,
        "attention_prefill": PREFILL_KERNEL,
        "vector": VECTOR,
        "top_k": CHOICE,
        "collective": COLLECTIVE,
        "all_to_all": ALL_TO_ALL,
        "dispatch": MESSAGE,
        "combine": MESSAGE.model_copy(update={"start": 1.9e-5, "per_message": 1.7e-7}),
        "bulk_dispatch": BULK,
        "bulk_combine": BULK.model_copy(update={"start": 1.3e-5, "link_share": 0.47}),
    },
    scatter={},
    tiers=TIERS,
    kv_tier=replace(tier(3), bandwidth=1.7e10, latency=7e-6),
    layered_kv_transfer=True,
    link_hidden=0.81,
    host_gap=0.0,
    decode_overhead=1.3e-3,
    draft_overhead=1.7e-4,
    prefill_overhead=2.9e-3,
    eager=False,
    eager_prefill=False,
    kernel_launch=5e-6,
    request_path=0.0,
    start_share=0.37,
    host_bandwidth=3.1e10,
    pool_bandwidth=1.1e10,
    frontend_rate=None,
    frontends=3,
    decode_gap=1.07,
    prefill_gap=1.19,
    decode_site=None,
    prefill_site=None,
    dispatch_in_place=1.25,
    combine_in_place=1.07,
    skew=1.7,
    residual=0.13,
    variety=1.3,
    context_spread=0.6,
    weight_prefetch=False,
    even=False,
    capacity=6.4e10,
    reported=0.95,
    utilization=0.9,
    runtime=3e9,
    activations=2e8,
    graphs=8e8,
    kv_block_tokens=128,
    dies_per_package=2,
    packages_per_server=4,
    max_packages=64,
)
SHARES = [1.0, 0.75, 0.3]


def near(value: float, rel: float = 1e-9) -> Any:
    return pytest.approx(value, rel=rel, abs=1e-30)


def with_kernel(name: str, rates: Rates = RATES, **values: Any) -> Rates:
    return replace(rates, kernels={**rates.kernels, name: rates.kernels[name].model_copy(update=values)})


def hides(one: float, other: float, part: float) -> float:
    """Two times of which a part of the shorter is hidden."""
    return max(one, other) + (1 - part) * min(one, other)


def streamed(share: float, cores: float, core_stream: float = CORE_STREAM) -> float:
    """Bytes a second that a share of the cores takes: a share of the pins, or of what the cores can ask for."""
    asked = cores * (core_stream if core_stream > share * PINS else share * PINS)
    return asked if asked < share * PINS else share * PINS


# ------------------------------------------------------------------------------------------------ products of matrices


def product_row(weights: float, activation: float, flop: float, rows: float = 37.0, kernels: int = 3) -> Op:
    return Op(
        name="x", operator="matmul", engine="cube_int8", flop=flop, weight_bytes=weights, kv_bytes=0.0,
        activation_bytes=activation, kernels=kernels, rows=rows, columns=1000,
    )  # fmt: skip


PRODUCTS = [
    product_row(2.9e7, 1.3e6, 9e9),  # streaming is longer; all of it resident in a benchmark
    product_row(1.1e8, 2.3e8, 3e11, rows=411.0, kernels=1),  # activations spill, arithmetic is longer
    product_row(4.1e8, 3e5, 1e9, rows=5.0, kernels=2),
]


def moved_by(op: Any) -> float:
    """Weights, cache, and what of the activations does not fit L2."""
    return sum(byte for byte in (op.weight_bytes, op.kv_bytes, op.activation_bytes - L2) if byte > 0)


@pytest.mark.parametrize("core_stream", [CORE_STREAM, 0.4e12])
@pytest.mark.parametrize("cores", SHARES)
@pytest.mark.parametrize("op", PRODUCTS)
def test_product_in_serving(op: Any, cores: float, core_stream: float) -> None:
    """docs/method.md 3: start + h(moved / rate, FLOP / (peak compute c)) + passes activations / (B c)."""
    stream = moved_by(op) / streamed(0.83, cores, core_stream)
    compute = op.flop / (6.7e14 * 0.71 * cores)
    passes = 2.3 * op.activation_bytes / (PINS * cores)
    found = time_op(op, replace(RATES, core_stream=core_stream), cores)
    assert found.work == near(hides(stream, compute, 190 / (190 + op.rows)) + passes)
    assert found.fixed_time == near(op.kernels * 3e-6 * 0.37)
    assert found.time == near(found.work + op.kernels * 3e-6 * 0.37)
    assert found.stream_time == near(stream)
    assert found.compute_time == near(compute)
    assert found.memory_time == near(stream + passes)
    assert found.hbm_time == near(moved_by(op) / (PINS * 0.83) + passes * cores)
    assert found.roofs == {"compute": found.compute_time, "memory": found.memory_time, "link": 0.0}
    assert found.whole_work is None


def test_cache_bytes_of_a_product_stream_as_weights_do() -> None:
    """Moved are weights and cache: either alone makes the same time, both the sum."""
    row = PRODUCTS[0]
    other = replace(row, weight_bytes=1.2e7, kv_bytes=1.7e7)
    assert time_op(other, RATES).time == near(time_op(row, RATES).time)


@pytest.mark.parametrize("cores", SHARES)
@pytest.mark.parametrize("op", PRODUCTS)
def test_product_in_a_benchmark_finds_weights_in_l2(op: Any, cores: float) -> None:
    """The resident bytes come at their own share of the pin rate, what is beyond them from memory."""
    kept = min(moved_by(op), 3.1e7)
    stream = kept / (1.7 * PINS * cores) + (moved_by(op) - kept) / streamed(0.83, cores)
    compute = op.flop / (6.7e14 * 0.71 * cores)
    found = time_op(op, RATES, cores, repeated=True)
    expected = hides(stream, compute, 190 / (190 + op.rows)) + 2.3 * op.activation_bytes / (PINS * cores)
    assert found.work == near(expected)
    assert found.stream_time == near(stream)


@pytest.mark.parametrize("cores", SHARES)
@pytest.mark.parametrize(("matrices", "rows", "columns"), [(3, 300, 1000), (1, 64, 96), (7, 50, 500)])
def test_product_in_whole_tiles(matrices: int, rows: int, columns: int, cores: float) -> None:
    """Tiles walked one by one, handed to the cores a wave at a time; one wave or less is all useful."""
    op = Op(
        name="x", operator="grouped_matmul", engine="cube_bf16", flop=5e11, weight_bytes=6e7, activation_bytes=2.1e7,
        matrices=matrices, rows=rows, columns=columns,
    )  # fmt: skip
    height = rows if rows < 128 else 128
    tiles = sum(1 for _ in range(matrices) for _ in range(0, rows, height) for _ in range(0, columns, 96))
    waves = math.ceil(tiles / (CORES * cores))
    worked = waves * CORES * cores * height * 96
    wasted = worked / (matrices * rows * columns) if waves > 1 else 1.0
    compute = 5e11 / (3.1e14 * 0.67 * cores) * wasted
    stream = 6e7 / streamed(0.79, cores)
    found = time_op(op, RATES, cores)
    assert found.work == near(hides(stream, compute, 70 / (70 + rows)) + 1.9 * 2.1e7 / (PINS * cores))
    assert found.compute_time == near(compute)


def test_tiles_need_both_sides() -> None:
    """A kernel that gives the height of a tile alone has no tiles."""
    op = Op(name="x", operator="grouped_matmul", engine="cube_bf16", flop=5e11, matrices=3, rows=300, columns=1000)
    for given in ({"tile_columns": None}, {"tile_rows": None}):
        assert time_op(op, with_kernel("grouped_matmul_bf16", **given)).compute_time == near(5e11 / (3.1e14 * 0.67))


LIMITED = np.array([0.1, 0.3, 0.45])  # of 1.9e12 the cores ask for less than 0.83 of the pins
MIXED = np.array([0.1, 0.3, 0.75])  # the last reaches the pins


@pytest.mark.parametrize(("shares", "limited"), [(LIMITED, True), (MIXED, False)])
def test_product_on_a_mesh_of_core_splits(shares: Any, limited: bool) -> None:
    """Where every share of a mesh is bound by its cores all is added up before it is divided: the same time."""
    rates = replace(RATES, scatter={"matmul_int8": 1.25})
    rows = [time_op(op, rates, shares) for op in PRODUCTS]
    part = steps.time_part(PRODUCTS, rates, shares)
    for at, cores in enumerate(shares):
        expected = 0.0
        for op in PRODUCTS:
            stream = moved_by(op) / streamed(0.83, cores)
            compute = op.flop / (6.7e14 * 0.71 * cores)
            hidden = 190 / (190 + op.rows)
            work = hides(stream, compute, hidden) + 2.3 * op.activation_bytes / (PINS * cores)
            expected += 1.25 * (work + op.kernels * 3e-6 * 0.37)
        assert np.broadcast_to(part.busy, shares.shape)[at] == near(expected)
    assert [row.whole_work is not None for row in rows] == [limited] * 3
    if limited:
        assert [row.work for row in rows] == [0.0] * 3
    repeated = time_op(PRODUCTS[0], RATES, shares, repeated=True)
    assert repeated.whole_work is None
    tiled = Op(name="x", operator="grouped_matmul", engine="cube_bf16", flop=5e11, rows=300, columns=1000)
    assert time_op(tiled, RATES, shares).whole_work is None
    for cores, work in zip(shares, repeated.work, strict=True):
        assert work == near(time_op(PRODUCTS[0], RATES, float(cores), repeated=True).work)


def test_a_share_that_just_reaches_the_pins_is_bound_by_its_cores() -> None:
    """At the kink both forms agree; cores that ask for less than the pins give get their part of the pins."""
    kink = 0.83 * PINS / CORE_STREAM
    found = time_op(PRODUCTS[2], RATES, np.array([0.2, kink]))
    assert found.whole_work is not None
    slow = replace(RATES, core_stream=0.5e12)
    part = steps.time_part([PRODUCTS[2]], slow, np.array([0.2, 1.0]))
    for cores, busy in zip((0.2, 1.0), part.busy, strict=True):
        assert busy == near(time_op(PRODUCTS[2], slow, cores).time)


# --------------------------------------------------------------------------------------------------- other operators


@pytest.mark.parametrize("cores", SHARES)
@pytest.mark.parametrize(("heads", "queries"), [(8, 1), (8, 2), (8, 3), (4, 1), (16, 1), (128, 1), (128, 4)])
def test_latent_attention_works_whole_tiles_of_rows(heads: int, queries: int, cores: float) -> None:
    """Rows of heads and queries dealt to tiles of 16 one by one: full ones as without tiles; the cache once."""
    rows = heads * queries
    tiles = sum(1 for _ in range(0, rows, 16))
    op = Op(
        name="x", operator="attention_decode", engine="cube_bf16", flop=1e10 * rows, kv_bytes=3e8, activation_bytes=7e6,
        sequences=60, context=4000, heads=heads, query_rows=rows,
    )  # fmt: skip
    tiled = with_kernel("attention_decode", tile_rows=16)
    found = time_op(op, tiled, cores)
    assert found.time == near(time_op(replace(op, flop=1e10 * 16 * tiles), RATES, cores).time)
    assert found.stream_time == time_op(op, RATES, cores).stream_time
    if rows % 16 == 0:
        assert found.time == time_op(op, RATES, cores).time
    assert time_op(replace(op, query_rows=None), tiled, cores).time == time_op(op, RATES, cores).time


@pytest.mark.parametrize("cores", SHARES)
@pytest.mark.parametrize(
    ("cache", "flop", "sequences", "context"),
    [(3e8, 2e10, 5, 900), (3e8, 9e11, 60, 4000), (2e7, 1e12, 9, 100), (2e4, 4.1e8, 9, 100)],
)
def test_attention_in_decode(cache: float, flop: float, sequences: int, context: int, cores: float) -> None:
    """docs/method.md 3: starts, the block one core works alone, cache against FLOP, queries through L2."""
    op = Op(
        name="x", operator="attention_decode", engine="cube_bf16", flop=flop, weight_bytes=1e6, kv_bytes=cache,
        activation_bytes=7e6, kernels=2, sequences=sequences, context=context,
    )  # fmt: skip
    moved, tokens, peak = cache + 1e6, sequences * context, 3.1e14 * 0.61
    stream, compute = moved / streamed(0.77, cores), flop / (peak * cores)
    of_token = max(moved / tokens * CORES / CORE_STREAM, flop / tokens * CORES / peak)
    first = of_token / (1 / context + 1 / 700)
    begun = min(sequences, CORES * cores / 2) * 3e-7
    found = time_op(op, RATES, cores)
    assert found.work == near(hides(stream, compute, 0.43) + 7e6 / (L2_READ * cores))
    assert found.fixed_time == near(2 * (7e-6 * 0.37 + begun + first))
    assert found.compute_time == near(compute)
    assert found.memory_time == near(stream + 7e6 / (L2_READ * cores))
    assert found.hbm_time == near(moved / (0.77 * PINS) + 7e6 / L2_READ)


@pytest.mark.parametrize("cores", SHARES)
@pytest.mark.parametrize(
    ("flop", "activation", "heads", "cache"),
    [(4e12, 1e7, 16, 1e6), (4e12, 5e8, 16, 1e6), (1e9, 1e7, 64, 2e6), (1e9, 1e7, 1, 3e9)],
)
def test_attention_of_prompts(flop: float, activation: float, heads: int, cache: float, cores: float) -> None:
    """docs/method.md 3: the longest of tasks, of FLOP with diagonal and spill, and of what moves."""
    op = Op(
        name="x", operator="attention_prefill", engine="cube_bf16", flop=flop, weight_bytes=1e6, kv_bytes=cache,
        activation_bytes=activation, kernels=3, sequences=7, context=900, heads=heads,
    )  # fmt: skip
    beyond = max(0.0, activation - L2) / activation
    arithmetic = flop / (3.1e14 * 0.59) * (900 + 310) / 900 * (1 + 0.7 * beyond)
    tasks = sum(1.3e-6 for _ in range(7 * heads)) / CORES
    memory = (1e6 + cache + max(0.0, activation - L2)) / PINS
    found = time_op(op, RATES, cores)
    assert found.work == near(max(arithmetic, tasks, memory) / cores)
    assert found.fixed_time == near(3 * 11e-6 * 0.37)
    assert found.compute_time == near(max(arithmetic, tasks) / cores)
    assert found.memory_time == near(memory / cores)
    assert found.hbm_time == near(memory)


@pytest.mark.parametrize("tile", [16, 64, 310])
@pytest.mark.parametrize("tiles", [None, 1, 3])
def test_blocks_that_a_window_ends_in_are_worked_whole(tile: int, tiles: int | None) -> None:
    """Block by block: a row of a tile of tokens takes every tile of keys that one of its tokens sees.

    Of a window of whole tiles its first token sees the last key of one tile more than the window has.
    """
    rows, window = 40, None if tiles is None else tiles * tile
    tokens = rows * tile
    worked = sum(row + 1 if tiles is None else min(row + 1, tiles + 1) for row in range(rows)) * tile * tile
    seen = sum(i if window is None else min(i, window) for i in range(1, tokens + 1)) / tokens
    edges = [(tokens, 1.0)] if window is None else [(window, 1.0), (window, 1 - window / tokens)]
    op = Op(
        name="x", operator="attention_prefill", engine="cube_bf16", flop=1e9 * seen, activation_bytes=1.0,
        context=77, seen=seen, edges=tuple(edges),
    )  # fmt: skip
    rates = with_kernel("attention_prefill", overhead_tokens=float(tile), task_time=0.0)
    assert time_op(op, rates).work == near(1e9 * worked / tokens / (3.1e14 * 0.59), rel=1 / tile)


def test_a_window_never_takes_more_than_its_prompts() -> None:
    """Longer windows never take less, and one that holds all takes what no window takes."""
    spec: Any = {"name": "x", "operator": "attention_prefill", "engine": "cube_bf16", "activation_bytes": 1.0}
    times = []
    for window in (1, 16, 128, 309, 311, 900, 4000, 7800, 7990, 8192):
        seen = sum(min(i, window) for i in range(1, 8193)) / 8192
        edges = ((window, 1.0), (min(window, 8192 - window), 1 - window / 8192))
        times.append(float(time_op(Op(**spec, flop=1e9 * seen, context=window, seen=seen, edges=edges), RATES).time))
    assert all(more >= less * (1 - 1e-4) for less, more in zip(times, times[1:], strict=False))  # a token sees itself
    assert times[-1] == near(float(time_op(Op(**spec, flop=1e9 * 8193 / 2, context=8193), RATES).time))


@pytest.mark.parametrize("cores", SHARES)
@pytest.mark.parametrize(("flop", "cache", "activation"), [(3e10, 1e6, 2e7), (1e8, 1e6, 1.5e8), (1e8, 5e8, 3e8)])
def test_element_wise_work(flop: float, cache: float, activation: float, cores: float) -> None:
    """docs/method.md 3: the longest of FLOP, of all bytes through L2, and of what moves."""
    op = Op(
        name="x", operator="vector", engine="vector", flop=flop, weight_bytes=2e6, kv_bytes=cache,
        activation_bytes=activation, kernels=5,
    )  # fmt: skip
    compute, through = flop / (1.1e13 * 0.53 * cores), (2e6 + cache + activation) / (L2_READ * cores)
    moved = 2e6 + cache + max(0.0, activation - L2)
    stream = moved / streamed(0.73, cores)
    found = time_op(op, RATES, cores)
    assert found.work == near(max(compute, through, stream))
    assert found.fixed_time == near(5 * 2e-6 * 0.37)
    assert found.compute_time == near(compute)
    assert found.memory_time == near(max(through, stream))
    assert found.hbm_time == near(moved / (0.73 * PINS))


@pytest.mark.parametrize("cores", [1.0, 0.5, 0.25])
@pytest.mark.parametrize("rows", [1, 9, 36, 37, 145])
def test_choices_of_rows_on_cores(rows: int, cores: float) -> None:
    """Rows dealt out to cores one at a time: the fullest takes 5.3 passes of its rows at its share of the pins."""
    dealt = [0] * round(VECTOR_CORES * cores)
    for place in range(rows):
        dealt[place % len(dealt)] += 1
    op = Op(name="x", operator="top_k", engine="vector", flop=1e5, activation_bytes=1e3, rows=rows, context=7001)
    found = time_op(op, RATES, cores)
    assert found.work == near(max(dealt) * 5.3 * 4 * 7001 / (PINS / VECTOR_CORES))
    assert found.fixed_time == near(6e-6 * 0.37)
    assert found.hbm_time == near(rows * 5.3 * 4 * 7001 / PINS)
    assert (found.roof, found.bound) == ("memory", "memory")


def test_a_choice_without_a_kernel_is_one_comparison_of_each_score() -> None:
    rates = replace(RATES, kernels={name: kernel for name, kernel in RATES.kernels.items() if name != "top_k"})
    op = Op(name="x", operator="top_k", engine="vector", flop=1e9, activation_bytes=1e3, rows=40, context=7001)
    assert time_op(op, rates).time == time_op(replace(op, operator="vector"), rates).time


def unpacked_by_hand(elements: float, width: int, instructions: float) -> float:
    """All vector cores: so many instructions for each element, or a byte or two of it written, whichever is slower."""
    return max(instructions * elements / (2.3e13 * 0.53), width * elements / L2_WRITE)


@pytest.mark.parametrize("instructions", [None, 1.0, 9.0])
@pytest.mark.parametrize("engine", ["cube_int8", "cube_bf16"])
@pytest.mark.parametrize("cores", SHARES)
@pytest.mark.parametrize("op", PRODUCTS)
def test_product_of_weights_that_are_unpacked(op: Any, cores: float, engine: str, instructions: float | None) -> None:
    """docs/method.md 3: weights stream while a part of others is widened; both hide behind the arithmetic."""
    rates = with_kernel("matmul_int8", unpack_operations=instructions, unpack_overlap=0.3)
    rates = replace(rates, kernels={**rates.kernels, "matmul_bf16": rates.kernels["matmul_int8"]})
    plain = replace(op, engine=engine)
    op = replace(plain, unpacked=2 * op.weight_bytes)
    unpack = unpacked_by_hand(2 * op.weight_bytes, 1 if engine == "cube_int8" else 2, instructions or 0.0)
    stream = moved_by(op) / streamed(0.83, cores)
    compute = op.flop / (PEAK[engine] * 0.71 * cores)
    hidden = 190 / (190 + op.rows)
    brought = hides(stream, unpack / cores, 0.3)
    found = time_op(op, rates, cores)
    assert found.work == near(hides(brought, compute, hidden) + 2.3 * op.activation_bytes / (PINS * cores))
    assert found.roofs["unpacking"] == near(unpack / cores)
    assert found.work >= time_op(plain, rates, cores).work
    assert found.fixed_time == time_op(plain, rates, cores).fixed_time
    slow = time_op(op, replace(rates, l2_write_rate=1e9), cores)
    assert (slow.roof, slow.bound) == ("unpacking", "unpacking")
    assert slow.work >= found.work


def test_unpacking_that_takes_no_time_changes_nothing() -> None:
    """Vector cores and L2 without limit: the product with what it reads of memory halved."""
    endless = replace(with_kernel("matmul_int8", unpack_operations=4.0), vector_half=math.inf, l2_write_rate=math.inf)
    for op in PRODUCTS:
        for cores in SHARES:
            assert time_op(replace(op, unpacked=1e9), endless, cores).time == time_op(op, endless, cores).time


def test_unpacking_on_a_mesh_of_core_splits() -> None:
    """Added up before it is divided by the share where every share is bound by its cores."""
    rates = with_kernel("matmul_int8", unpack_operations=3.0)
    ops = [replace(op, unpacked=3 * op.weight_bytes) for op in PRODUCTS]
    for shares in (LIMITED, MIXED):
        part = steps.time_part(ops, rates, shares)
        for at, cores in enumerate(shares):
            apart = sum(time_op(op, rates, float(cores)).time for op in ops)
            assert np.broadcast_to(part.busy, shares.shape)[at] == near(apart)


@pytest.mark.parametrize("cores", SHARES)
def test_reads_of_host_and_pool(cores: float) -> None:
    """Bytes read over the host's or the pool's rate."""
    for operator, rate in (("host_read", 3.1e10), ("pool_read", 1.1e10)):
        row: Any = Op(name="x", operator=operator, engine="link", kv_bytes=7e8, kernels=0)
        read = time_op(row, RATES, cores)
        assert (read.time, read.network_time, read.compute_time) == (near(7e8 / rate), near(7e8 / rate), 0.0)
        assert read.bound == "link"


def test_scatter_lengthens_a_class_and_no_other() -> None:
    """A factor on the times of one class, starts included."""
    rates = replace(RATES, scatter={"matmul_int8": 1.5})
    row, other = PRODUCTS[0], Op(name="x", operator="vector", engine="vector", flop=3e10)
    plain, longer = time_op(row, RATES), time_op(row, rates)
    assert longer.work == near(1.5 * plain.work)
    assert longer.fixed_time == near(1.5 * 3 * 3e-6 * 0.37)
    assert time_op(other, rates).time == time_op(other, RATES).time


def test_what_binds_a_row() -> None:
    """The longest of arithmetic, memory and link; the fixed cost where that is longer."""
    op = PRODUCTS[0]
    times: dict[str, Any] = {"whole_compute": 2.0, "stream_time": 3.0, "network_time": 1.0, "work": 3.0}
    row = OpTime(op=op, **times)
    assert (row.roof, row.bound) == ("memory", "memory")
    assert (replace(row, whole_compute=5.0).roof, replace(row, network_time=7.0).roof) == ("compute", "link")
    assert replace(row, fixed_time=2.9).bound == "memory"
    assert (replace(row, fixed_time=3.1).roof, replace(row, fixed_time=3.1).bound) == ("memory", "fixed")
    assert replace(row, whole_cache=1.0, whole_pass=0.5, core_share=0.25).memory_time == 4.0 + 2.0
    assert replace(row, whole_cache=1.0, core_share=0.5).memory_time == 3.0
    bare = OpTime(op=op, work=3.0)
    assert (bare.time, bare.compute_time, bare.memory_time, bare.hbm_time) == (3.0, 0.0, 0.0, 0.0)
    assert (bare.whole_compute, bare.whole_cache, bare.whole_pass, bare.stream_time, bare.moved) == (0, 0, 0, 0, 0)
    assert OpTime(op=op, work=3.0, whole_compute=2.0).compute_time == 2.0  # on all cores unless said


def test_no_kernel_of_a_link_runs_on_the_cores() -> None:
    """A row on the cores whose class is that of a link is an error, not a time."""
    wrong: Any = replace(PRODUCTS[0], operator="dispatch")
    with pytest.raises(AssertionError, match="dispatch is no operator on the cores"):
        time_op(wrong, RATES)


# --------------------------------------------------------------------------------------------------------- exchanges


def gathered(group: int, joined: int = 1) -> list[int]:
    """Return the shards die 0 receives at each tier when all gather, outermost first; ``joined`` hold one shard."""
    held = {die: {die // joined} for die in range(group)}
    received = [0, 0, 0, 0]
    for at in (3, 2, 1, 0):
        inner, outer = max(joined, SIZES[at - 1] if at else 1), SIZES[at]
        after = {
            die: set().union(*(held[d] for d in held if d // outer == die // outer and (d - die) % inner == 0))
            for die in held
        }
        received[at] = len(after[0]) - len(held[0])
        held = after
    assert len(held[0]) == group // joined
    return received


def rate(at: int, group: int, share: float | None, package_share: float | None, covers: tuple[str, ...]) -> float:
    """Return what a die sends at a tier: the kernel's share of the pins where it was measured, else the stack's."""
    measured = package_share if at == 0 else share
    given = GIVEN[at] if measured is None or LINKS[at] not in covers else PIN[at] * measured
    return given * (MESH[group] if at == 1 else 1.0)


def between(shard: float, ends: tuple[float, float], below: float, above: float) -> float:
    """Return one value up to the first end, the other from the second on, and a straight line between."""
    if shard <= ends[0]:
        return below
    return above if shard >= ends[1] else below + (above - below) * (shard - ends[0]) / (ends[1] - ends[0])


def collective(kind: str, group: int, shard: float, k: Any) -> float:
    """Return the time of a collective as docs/method.md says it, from a gather that is simulated."""
    rounds = {"all_gather": [k.read_share], "reduce_scatter": [k.write_share]}.get(kind, [k.read_share, k.write_share])
    limits, outer_limits = (k.reduce_limit, k.reduce_beyond), (k.outer_reduce_limit, k.outer_reduce_beyond)
    if kind == "all_gather":
        limits, outer_limits = (k.gather_limit, k.gather_beyond), (k.outer_gather_limit, k.outer_gather_beyond)
    seconds = [0.0] * 4  # at each tier, for a byte of shard
    for at, shards in enumerate(gathered(group)):
        for share in rounds:
            seconds[at] += shards / rate(at, group, share, k.package_share, k.covers)
    node, beyond = seconds[0] + seconds[1], seconds[2] + seconds[3]
    flags = [(one, other) for one in range(min(group, 8)) for other in range(min(group, 8)) if one != other]
    start = k.start + k.start_per_pair * len(flags)
    copying = sum(max(1.0, group / 8) / (k.peer_rate * share) for share in rounds)
    small = min(shard, limits[1])
    direct = start * (len(rounds) if group > 8 else 1) + small * max(copying, node)
    if kind == "all_reduce" and group <= 8:
        peers = [min(group, 2) - 1, max(group - 2, 0)]
        shots = [peers[at] / rate(at, group, k.write_share, k.package_share, k.covers) for at in (0, 1)]
        direct = min(direct, start + small * group * max(1 / k.push_rate, *shots))
    starts = 1 if group == 2 else len(rounds)  # two dies exchange all at once
    begin = start + starts * (k.bulk_start + (min(group, 8) - 1) * k.bulk_start_per_peer)
    bulk = max(direct, hides(begin, shard * max(node, len(rounds) / k.pair_rate), k.bulk_overlap))
    inside = between(shard, limits, direct, bulk)
    late = between(shard, outer_limits, 0.0, len(rounds) * k.bulk_start) if group > 8 else 0.0
    return late + hides(inside, shard * beyond, k.outer_overlap)


VARIANTS: list[dict[str, Any]] = [
    {},
    {"peer_rate": 9e11, "start": 1e-7},  # links bind, and a shot at all peers may be faster
    {"push_rate": 9e11, "pair_rate": 9e11},  # a shot at all peers is as slow as its slowest tier
    {"covers": ("roce", "ub"), "bulk_start": 1e-9, "bulk_start_per_peer": 1e-9, "outer_overlap": 0.9},
    {
        "covers": ("sio",),
        "gather_limit": 1e4,
        "gather_beyond": 1e4,
        "reduce_limit": 2e4,
        "pair_rate": 3e10,
        "peer_rate": 2e12,
        "bulk_overlap": 0.1,
    },
]


@pytest.mark.parametrize("values", VARIANTS)
@pytest.mark.parametrize("kind", ["all_gather", "reduce_scatter", "all_reduce"])
def test_collectives(kind: Any, values: dict[str, Any]) -> None:
    """Small and large shards, in a card, in a node, in a supernode and beyond it."""
    rates = with_kernel("collective", **values)
    kernel = rates.kernels["collective"]
    for group in (2, 4, 6, 8, 16, 24, 128):
        for shard in (3e2, 5e4, 1.1e5, 7e5, 9e5, 1.57e6, 1.6e6, 4e7):
            exchange = Exchange(collective=kind, group=group, payload=shard)
            found = exchange_time(exchange, rates)
            assert found == near(collective(kind, group, shard, kernel)), (group, shard)


def test_collective_between_sets_that_hold_the_same() -> None:
    """Dies that are alike gather between sets alone: of large shards only what crosses counts, as simulated."""
    free: dict[str, Any] = {"start": 0.0, "start_per_pair": 0.0, "bulk_start": 0.0, "bulk_start_per_peer": 0.0}
    rates = with_kernel("collective", peer_rate=1e30, pair_rate=1e30, outer_overlap=0.0, bulk_overlap=0.0, **free)
    for group, joined in ((8, 2), (16, 2), (128, 2), (64, 8), (128, 8), (128, 64)):
        exchange = Exchange(collective="all_gather", group=group, payload=3e7, joined=joined)
        received = gathered(group, joined)
        rates_at = [rate(at, group, 0.83, 0.93, ("sio", "ub")) for at in range(4)]
        expected = sum(3e7 * shards / speed for shards, speed in zip(received, rates_at, strict=True))
        assert exchange_time(exchange, rates) == near(expected), (group, joined)


@pytest.mark.parametrize(("group", "joined", "sets"), [(8, 4, 1), (16, 4, 3), (32, 8, 3)])
def test_a_tier_inside_a_set_carries_nothing(group: int, joined: int, sets: int) -> None:
    """Sets larger than a card: the shards of the other sets cross the node's switch, none the link inside the card."""
    free: dict[str, Any] = {"start": 0.0, "start_per_pair": 0.0, "bulk_start": 0.0, "bulk_start_per_peer": 0.0}
    tiers = (tier(0), replace(tier(1), dies=32))
    rates = with_kernel("collective", replace(RATES, tiers=tiers), peer_rate=1e30, pair_rate=1e30, **free)
    exchange = Exchange(collective="all_gather", group=group, payload=3e7, joined=joined)
    assert exchange_time(exchange, rates) == near(3e7 * sets / (0.83 * PIN[1]))


def test_a_node_half_full_copies_half_as_much_again() -> None:
    """Twelve dies on nodes of eight, on links that take no time: 1.5 shards at the rate of a peer, times its share."""
    endless = tuple(replace(one, bandwidth=1e30, pin_bandwidth=1e30) for one in TIERS)
    exchange = Exchange(collective="all_gather", group=12, payload=3e4)
    found = exchange_time(exchange, replace(RATES, tiers=endless))
    assert found == near(2.1e-6 + 8 * 7 * 5.7e-8 + 3e4 * 1.5 / (2.4e10 * 0.83))


def test_a_mesh_of_two_cards_has_one_link() -> None:
    """Two cards of two dies: what one card gathers of the other goes at all of the mesh's rate."""
    free: dict[str, Any] = {"start": 0.0, "start_per_pair": 0.0, "bulk_start": 0.0, "bulk_start_per_peer": 0.0}
    tiers = (tier(0), replace(tier(1, "mesh"), dies=4))
    rates = with_kernel("collective", replace(RATES, tiers=tiers), peer_rate=1e30, pair_rate=1e30, **free)
    exchange = Exchange(collective="all_gather", group=4, payload=3e7, joined=2)
    assert exchange_time(exchange, rates) == near(3e7 / (0.83 * PIN[1]))


def test_among_one_die_kernels_that_cost_nothing_cost_nothing() -> None:
    """No message, no start, no time: also where the time left out is zero itself."""
    ideal = with_kernel("dispatch", start=0.0, per_message=0.0)
    assert exchange_time(Exchange(collective="dispatch", group=1, payload=1e6), ideal) == 0.0


def test_among_one_die_or_one_set_an_exchange_costs_nothing() -> None:
    """There is nobody to send to."""
    for kind in ("all_gather", "all_to_all", "dispatch", "bulk_combine"):
        one: Any = Exchange(collective=kind, group=1, payload=1e6)
        assert exchange_time(one, RATES) == 0.0
        assert exchange_time(replace(one, group=2), RATES) > 1e-6
    for group, joined, idle in ((2, 2, True), (8, 8, True), (16, 8, False), (3, 2, False)):
        exchange = Exchange(collective="all_gather", group=group, payload=1e3, joined=joined)
        rates = replace(RATES, tiers=(TIERS[0], tier(1), *TIERS[2:]))
        assert (exchange_time(exchange, rates) == 0.0) is idle


@pytest.mark.parametrize("covers", [("ub", "sio"), ("ub",), ("roce", "sio")])
@pytest.mark.parametrize("overlap", [0.38, 0.0, 1.0])
def test_all_to_all(overlap: float, covers: tuple[str, ...]) -> None:
    """A part to each peer over its tier, a start for the doublings, what of all parts L2 cannot hold through memory."""
    rates = with_kernel("all_to_all", overlap=overlap, covers=covers)
    for group in (2, 4, 5, 6, 16, 128):
        for part in (5e2, 3e5, 9e6, 8e7):
            transfer = 0.0
            for peer in range(1, group):
                at = next(at for at in range(4) if peer < SIZES[at])
                transfer += part / rate(at, group, 0.68, 0.91, covers)
            spilled = max(0.0, part * group + part * group - L2)
            expected = hides(4.6e-6 + 3.2e-6 * math.log2(group), transfer, overlap) + 1.21 * spilled / PINS
            exchange = Exchange(collective="all_to_all", group=group, payload=part)
            assert exchange_time(exchange, rates) == near(expected), (group, part)


def spread_messages(group: int, among: int, between: float, share: float | None, covers: tuple[str, ...]) -> float:
    """Return the time of the most loaded kind of link for a byte that goes to any of the dies alike, itself included.

    Inside a node it goes to any of ``among`` dies; between nodes only a part ``between`` of it does.
    """
    loads = {"sio": 0.0, "ub": 0.0, "roce": 0.0}
    for peer in range(1, group):
        at = next(at for at in range(4) if peer < SIZES[at])
        if at < 2:
            loads[LINKS[at]] += 1 / among / rate(at, group, share, share, covers)
        else:
            loads[LINKS[at]] += between / group / rate(at, group, share, share, covers)
    return max(loads.values())


def reached(nodes: int, groups: int, drawn: int) -> float:
    """Return the mean number of nodes with one of the groups drawn, over all draws; all nodes where all are drawn."""
    draws = list(combinations(range(groups), drawn))
    return sum(len({group * nodes // groups for group in draw}) for draw in draws) / len(draws)


def once_a_node(group: int, copies: int, groups: int, drawn: int) -> float:
    """Return the part of a token's copies that cross when it goes once to each node that holds one of its experts."""
    nodes = reached(group // 8, groups, drawn) if groups > drawn else group / 8
    return nodes * (1 - (1 - 1 / nodes) ** copies) / copies if nodes > 1 else 1 / copies


@pytest.mark.parametrize(
    ("kind", "start", "each", "place"), [("dispatch", 1.6e-5, 1.3e-7, 1.25), ("combine", 1.9e-5, 1.7e-7, 1.07)]
)
def test_dispatch_and_combine(kind: Any, start: float, each: float, place: float) -> None:
    """docs/method.md 3: start + max(messages that leave the card x per message, slowest kind of link)."""
    for group in (2, 4, 16, 24, 128):
        for size in (50.0, 7e3, 1e6):
            exchange = Exchange(collective=kind, group=group, payload=size, messages=300, hops=3)
            leaving = 300 * sum(1 for die in range(group) if die >= 2) / group
            link = 300 * size * spread_messages(group, group, 1.0, None, ())
            assert exchange_time(exchange, RATES) == near(3 * start + max(leaving * each * place, link))
            for alone, factor in ((False, place), (True, 1.0)):
                found = exchange_time(exchange, RATES, alone=alone)
                assert found == near(3 * start + max(leaving * each * factor, link)), (group, size)


@pytest.mark.parametrize("size", [50.0, 7e3, 1e6])
@pytest.mark.parametrize("group", [2, 4, 8, 16, 64])
@pytest.mark.parametrize(("copies", "groups", "drawn"), [(8, 1, 1), (8, 8, 3)])
def test_dispatch_in_phases(size: float, group: int, copies: int, groups: int, drawn: int) -> None:
    """A mesh of eight and a network: once to each node with an expert of the token, then each copy inside its node.

    Each phase has its start, its cost per message and its link; a group inside one node has the second alone.
    """
    tiers = (replace(TIERS[1], fabric="mesh"), tier(3))
    rates = replace(
        with_kernel("dispatch", between_start=2.3e-5, between_per_message=3.1e-7), tiers=tiers, dies_per_package=1
    )
    exchange = Exchange(
        collective="dispatch", group=group, payload=size, messages=300, copies=copies, n_group=groups, topk_group=drawn
    )
    inside, nodes = min(group, 8), max(1, group // 8)
    of_mesh = GIVEN[1] * max(inside - 1, 1) / 7
    stays = 300 * sum(1 for die in range(inside) if die) / inside
    wanted = 1.6e-5 + max(stays * 1.3e-7 * 1.25, stays * size / of_mesh)
    if nodes > 1:
        crossing = 300 * once_a_node(group, copies, groups, drawn) * sum(1 for one in range(nodes) if one) / nodes
        straight = 300 * once_a_node(group, copies, groups, drawn) * (group - 8) / group
        assert crossing == near(straight)
        wanted += 2.3e-5 + max(crossing * 3.1e-7 * 1.25, crossing * size / GIVEN[3])
    assert exchange_time(exchange, rates) == near(wanted)
    faster = replace(rates, tiers=(tiers[0], replace(tiers[1], bandwidth=GIVEN[3] * 10)))
    assert exchange_time(exchange, faster) <= exchange_time(exchange, rates)


@pytest.mark.parametrize(
    "tiers", [TIERS, (TIERS[0], TIERS[1], tier(3)), (replace(TIERS[0], bandwidth=1e8, pin_bandwidth=2e8), *TIERS[1:])]
)
@pytest.mark.parametrize(("copies", "groups", "drawn"), [(8, 1, 1), (8, 8, 3), (3, 4, 4), (2, 16, 2)])
def test_a_token_crosses_once_for_each_node_where_that_pays(
    copies: int, groups: int, drawn: int, tiers: tuple[TierRates, ...]
) -> None:
    """A copy for each node that holds an expert of the token, then all inside; or straight, if faster."""
    dispatch = with_kernel("dispatch", replace(RATES, tiers=tiers), start=0.0, per_message=0.0, deduplicates=True)
    for group in (2, 8, 16, 64):
        exchange = Exchange(
            collective="dispatch",
            group=group,
            payload=1e5,
            messages=300,
            copies=copies,
            n_group=groups,
            topk_group=drawn,
        )
        if groups > 1 and group // 8 > groups:
            continue
        once = once_a_node(group, copies, groups, drawn) if group > 8 else 1 / copies
        times = []
        for among, between in ((group, 1.0), (min(group, 8), once)):
            loads = {"sio": 0.0, "ub": 0.0, "roce": 0.0}
            for peer in range(1, group):
                one = next(one for one in tiers if peer < one.dies)
                mesh = MESH[group] if one.name == "node" else 1.0
                part = 1 / among if one.name in ("package", "node") else between / group
                loads[one.link] += part / (one.bandwidth * mesh)
            times.append(300 * 1e5 * max(loads.values()))
        assert exchange_time(exchange, dispatch) == near(min(times)), group


@pytest.mark.parametrize("covers", [("ub",), ("sio", "roce")])
@pytest.mark.parametrize(("kind", "start", "share"), [("bulk_dispatch", 9e-6, 0.57), ("bulk_combine", 1.3e-5, 0.47)])
def test_bulk_exchange(kind: Any, start: float, share: float, covers: tuple[str, ...]) -> None:
    """docs/method.md 3: start + (1 + (n - 1) / peers at half) x slowest kind of link, once a node if so."""
    for deduplicates in (False, True):
        rates = with_kernel(kind, covers=covers, deduplicates=deduplicates)
        for group in (2, 6, 12, 16, 64, 128):
            exchange = Exchange(collective=kind, group=group, payload=7e3, messages=900, copies=5)
            link = spread_messages(group, group, 1.0, share, covers)
            if deduplicates:
                once = once_a_node(group, 5, 1, 1) if group > 8 else 0.2
                link = min(link, spread_messages(group, min(group, 8), once, share, covers))
            expected = start + 900 * 7e3 * link * (110 + group - 1) / 110
            assert exchange_time(exchange, rates) == near(expected), (group, deduplicates)


def test_exchange_rows_take_their_exchange_and_nothing_else() -> None:
    """A row of a link works no core; benchmarks send its messages alone."""
    exchange = Exchange(collective="dispatch", group=16, payload=50.0, messages=300)
    row = Op(name="x", operator="exchange", engine="link", exchange=exchange, kernels=0)
    for repeated, factor in ((False, 1.25), (True, 1.0)):
        timed = time_op(row, RATES, 0.5, repeated=repeated)
        expected = 1.6e-5 + 300 * 14 / 16 * 1.3e-7 * factor
        assert (timed.time, timed.network_time, timed.bound) == (near(expected), near(expected), "link")
        assert (timed.compute_time, timed.memory_time, timed.hbm_time, timed.fixed_time) == (0.0, 0.0, 0.0, 0.0)


# ------------------------------------------------------------------------------------------------------------- parts


def row(
    work: float, *, group: int = 0, kernels: int = 1, weights: float = 0.0, ahead: bool = False, **more: Any
) -> OpTime:
    """Return a timed row; an exchange where it has a group."""
    exchange = Exchange(collective="dispatch", group=group, payload=1.0) if group else None
    op = Op(
        name="x", operator="matmul", engine="cube_int8", exchange=exchange, kernels=kernels, weight_bytes=weights,
        prefetched=ahead,
    )  # fmt: skip
    return OpTime(op=op, work=work, **more)


def test_rows_add_up_to_cores_links_and_pins() -> None:
    """Rows on cores with their starts, exchanges apart, the last of which is the window; pins only where shared."""
    rows = [
        row(2.0, fixed_time=0.5, moved=12.0, whole_rate=4.0, whole_pass=0.25),
        row(5.0, group=8),
        row(7.0, fixed_time=0.125, moved=2.0, whole_rate=4.0),
        row(3.0, group=8),
        row(1.0),
    ]
    shared = steps.add_rows(rows, RATES, alone=False)
    assert (shared.busy, shared.link, shared.window, shared.hbm) == (10.625, 8.0, 3.0, 3.25 + 0.5)
    assert (shared.spared, shared.hidden, shared.launches) == (0.0, 0.0, 0.0)
    assert shared.whole == 18.625
    alone = steps.add_rows(rows, RATES, alone=True)
    assert (alone.busy, alone.link, alone.window, alone.hbm) == (10.625, 8.0, 3.0, 0.0)
    none = steps.add_rows([row(1.0)], RATES, alone=True)
    assert (none.link, none.window) == (0.0, 0.0)


def test_a_part_on_a_share_of_the_cores_tells_what_the_pins_need() -> None:
    """On all cores nobody shares the pins; on a share the other lane does."""
    assert steps.time_part(PRODUCTS, RATES).hbm == 0.0
    part = steps.time_part(PRODUCTS, RATES, 0.75)
    assert part.hbm == near(sum(moved_by(op) / (0.83 * PINS) + 2.3 * op.activation_bytes / PINS for op in PRODUCTS))
    assert part.busy == near(sum(time_op(op, RATES, 0.75).time for op in PRODUCTS))


def test_launches_are_kernels_and_exchanges_among_more_than_one() -> None:
    """A host starts each kernel, and each exchange once; graphs start none."""
    rows = [row(1.0, kernels=3), row(1.0, kernels=4), row(1.0, group=2, kernels=0), row(1.0, group=1, kernels=0)]
    assert steps.add_rows(rows, replace(RATES, eager=True), alone=True).launches == 3 + 4 + 1 + 0
    assert steps.add_rows(rows, RATES, alone=True).launches == 0


@pytest.mark.parametrize(
    ("alone", "prefetch", "capacity", "part"),
    [
        (True, True, 300.0, 0.75),
        (True, True, 400.0, 1.0),
        (True, True, 900.0, 1.0),
        (False, True, 300.0, 0.75),
        (True, False, 300.0, 0.0),
    ],
)
def test_spared_is_what_weights_in_l2_save_as_many_as_it_holds(
    alone: bool, prefetch: bool, capacity: float, part: float
) -> None:
    """Two rows known ahead have 400 bytes and save 3 s and 4 s; a third is not known ahead."""
    rates = replace(RATES, l2_capacity=capacity, weight_prefetch=prefetch)
    rows = [row(4.0, weights=100.0, ahead=True), row(6.0, weights=300.0, ahead=True), row(9.0, weights=700.0)]
    left = {4.0: 1.0, 6.0: 2.0, 9.0: 5.0}

    def light(one: OpTime, _: Rates) -> OpTime:
        return replace(one, work=left[one.work])

    assert steps.add_rows(rows, rates, alone=alone, light=light).spared == near(7.0 * part)


def test_spared_of_no_and_of_the_fewest_weights() -> None:
    """Rows without weights save nothing; an L2 that holds all of what little there is spares all of it."""
    rates = replace(RATES, l2_capacity=1.5, weight_prefetch=True)

    def light(one: OpTime, _: Rates) -> OpTime:
        return replace(one, work=0.25)

    none = [row(0.25, ahead=True)]
    assert steps.add_rows(none, rates, alone=True, light=light).spared == 0.0
    assert steps.add_rows([row(1.0, weights=1.25, ahead=True)], rates, alone=True, light=light).spared == 0.75


def test_a_product_whose_weights_wait_saves_their_stream() -> None:
    """Timed again with its weights in L2, from where the cores read them at its rate, it saves the difference."""
    rates = replace(RATES, weight_prefetch=True)
    op = replace(PRODUCTS[0], prefetched=True)
    hidden = 190 / (190 + 37)
    compute, stream = 9e9 / (6.7e14 * 0.71), 2.9e7 / streamed(0.83, 1.0)
    assert steps.time_part([op], rates).spared == near(
        hides(stream, compute, hidden) - hides(2.9e7 / L2_READ, compute, hidden)
    )


# ------------------------------------------------------------------------------------------------------------- lanes

PARTS = {
    "attention": PartTime(busy=11.0, link=2.0, hbm=5.0, spared=3.0, window=1.5, launches=7),
    "gate": PartTime(busy=1.25, link=0.0, hbm=0.5, launches=3),
    "exchange": PartTime(busy=0.75, link=9.0, hbm=0.25, window=5.0, hidden=0.5, launches=2),
    "routed": PartTime(busy=6.0, link=0.5, hbm=4.0, window=0.5, launches=5),
    "shared": PartTime(busy=3.5, link=1.0, hbm=4.5, launches=4),
}
TIMED: Callable[[str], PartTime] = PARTS.__getitem__


def block(**values: Any) -> Block:
    base: dict[str, Any] = {"name": "layer", "count": 1, "layers": 1, "attention": ("attention",), "experts": ()}
    return Block(**(base | values))


def numbers(part: PartTime) -> tuple[Any, ...]:
    return part.busy, part.link, part.hbm, part.spared, part.window, part.hidden, part.launches


def test_parts_of_a_lane_run_one_after_the_other() -> None:
    """Every field of the parts is added."""
    attention, rest = steps.lanes_of(block(experts=("gate", "exchange", "routed")), TIMED)
    assert numbers(attention) == (11.0, 2.0, 5.0, 3.0, 1.5, 0.0, 7)
    assert numbers(rest) == (8.0, 9.5, 4.75, 0.0, 5.5, 0.5, 10)
    both, nothing = steps.lanes_of(block(attention=("attention", "gate")), TIMED)
    assert numbers(both) == (12.25, 2.0, 5.5, 3.0, 1.5, 0.0, 10)
    assert numbers(nothing) == (0, 0, 0, 0, 0, 0, 0)


def test_joined_parts_count_as_the_slower() -> None:
    """Each resource by itself: 6 and 1 of routed and shared, the pins of shared, the kernels of routed."""
    _, rest = steps.lanes_of(block(experts=("gate", "exchange"), joined=("routed", "shared")), TIMED)
    assert numbers(rest) == (1.25 + 0.75 + 6.0, 9.0 + 1.0, 0.5 + 0.25 + 4.5, 0.0, 5.0, 0.5, 3 + 2 + 5)


def test_fused_parts_hide_behind_their_exchange() -> None:
    """The last parts of the lane run while it exchanges: the longer of both is left."""
    experts = ("shared", "gate", "exchange", "routed")
    _, one = steps.lanes_of(block(experts=experts, fused=("routed",)), TIMED)
    assert (one.busy, one.link, one.window, one.hidden) == (11.5, 10.5 - 6.0, 4.5, 0.5 + 6.0)
    _, two = steps.lanes_of(block(experts=experts, fused=("exchange", "routed")), TIMED)
    assert (two.busy, two.link, two.window, two.hidden) == (11.5, 10.5 - 6.75, 3.75, 0.5 + 6.75)
    long = {**PARTS, "routed": replace(PARTS["routed"], busy=20.0)}
    _, all_hidden = steps.lanes_of(block(experts=experts, fused=("routed",)), long.__getitem__)
    assert (all_hidden.busy, all_hidden.link, all_hidden.window, all_hidden.hidden) == (25.5, 0.0, 0.0, 11.0)


def test_work_beside_the_exchange_hides_in_what_fusing_left() -> None:
    """The shared expert's 3.5 run beside an exchange of 10.5 (its own 1 with it); after fusing 4.5 of it are left."""
    plain = block(experts=("gate", "exchange", "routed"), beside=("shared",))
    _, one = steps.lanes_of(plain, TIMED)
    assert numbers(one) == (11.5, 10.5 - 3.5, 9.25, 0.0, 5.5, 0.5 + 3.5, 14)
    _, two = steps.lanes_of(replace(plain, fused=("routed",)), TIMED)
    assert numbers(two) == (11.5, 10.5 - 6.0 - 3.5, 9.25, 0.0, 1.0, 0.5 + 6.0 + 3.5, 14)


def test_each_lane_runs_on_its_share() -> None:
    """A ledger's parts are timed on the share of their lane."""
    ledger: Any = Ledger(parts={"a": (PRODUCTS[0],), "b": (PRODUCTS[1],)}, blocks=(), quantities=None)
    split = block(attention=("a",), experts=("b",), overlapped=True)
    first, second = steps.lanes(ledger, split, replace(FAMILY, overlap="cores"), 14, RATES)
    assert first.busy == near(time_op(PRODUCTS[0], RATES, 0.7).time)
    assert second.busy == near(time_op(PRODUCTS[1], RATES, 0.3).time)


FAMILY = Family(phase="decode", own_shared_ranks=False, overlap="none", exchange="dispatch")


@pytest.mark.parametrize("overlap", ["none", "link", "cores", "stages"])
@pytest.mark.parametrize("overlapped", [True, False])
def test_only_a_core_split_shares_the_cores(overlap: Any, overlapped: bool) -> None:
    """14 of 20 cores and the other 6, in blocks that overlap; all of them for each lane else."""
    found = steps.core_shares(block(overlapped=overlapped), replace(FAMILY, overlap=overlap), 14, RATES)
    assert found == (near((0.7, 0.3)) if overlap == "cores" and overlapped else (1.0, 1.0))


# ------------------------------------------------------------------------------------------------------------ layers

A = PartTime(busy=11.0, link=2.0, hbm=9.0, spared=3.0, window=1.5, launches=7)
X = PartTime(busy=6.0, link=3.0, hbm=5.0, window=2.5, launches=5)


def layer(overlap: Any, attention: PartTime, rest: PartTime, rates: Rates = RATES, **values: Any) -> float:
    family = replace(FAMILY, overlap=overlap)
    one = block(**({"overlapped": overlap != "none"} | values))
    return float(steps.layer_time(one, family, attention, rest, rates))


def test_a_serial_layer_is_both_lanes_less_what_is_prefetched() -> None:
    """A + X for each micro-batch; the attention saves the shorter of its weights' time and the last exchange's."""
    assert layer("none", A, X, passes=3) == near(3 * (13.0 + 9.0 - 2.5))
    assert layer("none", replace(A, spared=1.25), X) == near(13.0 + 9.0 - 1.25)
    assert layer("cores", A, X, overlapped=False, passes=2) == near(2 * (13.0 + 9.0 - 2.5))
    assert steps.prefetched_time(A, X) == 2.5


def test_link_overlap_hides_a_part_of_the_shorter() -> None:
    """Two micro-batches: cores of both lanes against links of both lanes."""
    assert layer("link", A, X, passes=2) == near(2 * hides(17.0, 5.0, 0.81))
    assert layer("link", A, replace(X, link=30.0), passes=2) == near(2 * hides(17.0, 32.0, 0.81))


def test_core_overlap_takes_the_longest_of_lanes_and_pins_twice() -> None:
    """A is 13 and X is 9 long; pins need 14 for both; then 11 are less than A; then X is the longest."""
    cold = replace(A, spared=0.0)
    assert layer("cores", cold, X, passes=2) == near(28.0)
    assert layer("cores", cold, replace(X, hbm=2.0), passes=2) == near(26.0)
    assert layer("cores", cold, replace(X, busy=16.0), passes=2) == near(38.0)


def test_what_a_second_micro_batch_saves_on_cores() -> None:
    """13 and 12 of attention, 9 and 8 of experts: 25 of a lane; with 13 and 7 the first still passes both in 22."""
    cold, none = replace(A, spared=0.0, hbm=0.0), replace(X, hbm=0.0)
    assert layer("cores", replace(cold, saved=1.0), none, passes=2) == near(25.0)
    assert layer("cores", replace(cold, saved=6.0), none, passes=2) == near(22.0)
    assert layer("cores", cold, replace(X, busy=16.0, saved=5.0), passes=2) == near(33.0)
    assert layer("link", replace(cold, saved=1.0), replace(X, saved=3.0), passes=2) == near(2 * hides(15.0, 5.0, 0.81))


def test_weights_brought_ahead_beside_another_lane() -> None:
    """Of a window of 2.5, pins leave 40 %: 1 for each micro-batch, of which the second has but 0.5 to save."""
    ahead, none = replace(A, taken=0.6, spared_again=0.5), replace(X, hbm=0.0)
    assert steps.prefetched_beside(ahead, X) == (near(1.0), 0.5)
    assert layer("cores", ahead, none, passes=2) == near(26.0 - 1.5)
    assert layer("cores", replace(ahead, taken=1.0), none, passes=2) == near(26.0)


def test_a_cut_of_the_cores_takes_its_part_of_the_pins() -> None:
    """Cores that could ask for 1.9 of the 1.079 TB/s that pins give: half of them take 0.95."""
    timed = time_op(PRODUCTS[0], RATES, 0.5)
    assert steps.pins_taken(timed, RATES) == near(0.95e12 / (0.83 * PINS))
    assert steps.pins_taken(time_op(PRODUCTS[0], RATES), RATES) == 1.0


@pytest.mark.parametrize("kept", [0.25, 1.0])
@pytest.mark.parametrize("cores", SHARES)
def test_a_product_with_weights_in_l2(kept: float, cores: float) -> None:
    """What is kept is read at the rate of L2, the rest from memory; arithmetic hides both alike."""
    op: Any = PRODUCTS[0]
    there = op.weight_bytes * kept
    stream = (moved_by(op) - there) / streamed(0.83, cores) + there / (L2_READ * cores)
    work = hides(stream, op.flop / (6.7e14 * 0.71 * cores), 190 / (190 + op.rows))
    assert time_op(op, RATES, cores, kept=kept).work == near(work + 2.3 * op.activation_bytes / (PINS * cores))


def held(*ops: Op, capacity: float, overlap: Any = "cores", **more: Any) -> Any:
    ledger: Any = Ledger(parts={"a": ops[:1], "b": ops[1:]}, blocks=(), quantities=None)
    one = block(**({"attention": ("a",), "experts": ("b",), "overlapped": True} | more))
    family = replace(FAMILY, overlap=overlap)
    return steps.reused_weights(ledger, one, family, replace(RATES, l2_capacity=capacity))


def test_weights_that_a_second_micro_batch_finds() -> None:
    """300 and 100 bytes of weights; 60 of a cache and half of 80 of activations pass: L2 over 100 is theirs."""
    first = Op(name="x", operator="matmul", engine="cube_int8", weight_bytes=300.0, activation_bytes=60.0)
    other = Op(name="y", operator="grouped_matmul", engine="cube_int8", weight_bytes=100.0, activation_bytes=20.0)
    core = Op(name="z", operator="attention_decode", engine="cube_bf16", kv_bytes=60.0)
    found = {c: held(first, other, core, capacity=c) for c in (0.0, 100.0, 200.0, 300.0, 500.0, 9e9)}
    assert found == {0.0: 0.0, 100.0: 0.0, 200.0: 0.25, 300.0: 0.5, 500.0: 1.0, 9e9: 1.0}
    assert held(first, other, core, capacity=200.0, overlap="link") == 0.25
    assert held(first, other, core, capacity=200.0, overlap="stages") == 0.0
    assert held(first, other, core, capacity=200.0, overlapped=False) == 0.0


def test_a_layer_in_the_limits_of_l2() -> None:
    """No L2: twice the longer lane, as if read twice; L2 for all: the second is timed with no weights from memory."""
    ledger: Any = Ledger(parts={"a": PRODUCTS[:1], "b": PRODUCTS[1:2]}, blocks=(), quantities=None)
    one = block(attention=("a",), experts=("b",), overlapped=True, passes=2)
    family = replace(FAMILY, overlap="cores")
    none, all_of_it = (
        steps.lanes(ledger, one, family, 14, replace(RATES, l2_capacity=capacity)) for capacity in (1.0, 1e12)
    )
    assert none[0].saved == none[1].saved == 0.0
    for part, op, cores in zip(all_of_it, PRODUCTS, (0.7, 0.3), strict=False):
        again = time_op(op, RATES, cores, kept=1.0)
        spilled = time_op(op, replace(RATES, l2_capacity=1e12), cores)
        assert part.busy == near(spilled.time)
        assert part.saved >= 0.0
        assert part.busy - part.saved <= again.time * (1 + 1e-9)
    times = [
        float(
            steps.layer_time(one, family, *steps.lanes(ledger, one, family, 14, replace(RATES, l2_capacity=c)), RATES)
        )
        for c in np.linspace(0.0, 4e8, 40)
    ]
    assert all(later <= sooner * (1 + 1e-12) for sooner, later in zip(times, times[1:], strict=False))


def test_stages_take_the_busiest_stage_or_the_way_through() -> None:
    """max(M max(A, G X without its exchange), A + X): M micro-batches, G domains."""
    assert layer("stages", A, X, passes=3, domains=2) == near(3 * 13.0)
    assert layer("stages", A, X, passes=3, domains=5) == near(3 * 5 * 6.0)
    assert layer("stages", A, replace(X, link=90.0), passes=3, domains=5) == near(13.0 + 6.0 + 90.0)


def test_messages_between_stages_hold_both_kinds_of_die() -> None:
    """Half of both ways' messages; 0.81 of the shorter hides: 13 and 4 of an attention die, 6 and 9 of an expert's."""
    busy = replace(X, attention_messages=8.0, expert_messages=18.0)
    held, serving = 13.0 + 0.19 * 4.0, 9.0 + 0.19 * 6.0
    assert layer("stages", A, busy, passes=3, domains=1) == near(3 * held)
    assert layer("stages", A, busy, passes=3, domains=5) == near(3 * 5 * serving)
    assert layer("stages", A, replace(busy, link=900.0), passes=3, domains=5) == near(13.0 + 6.0 + 900.0)
    for overlap in ("none", "cores", "link"):
        assert layer(overlap, A, busy) == layer(overlap, A, X)


def test_messages_of_a_stage_are_those_that_leave_its_package() -> None:
    """Two of 24 dies are in a package: 22/24 of 700 and 300 at 130 ns, 1.25 times in place; 170 and 1.07 back."""
    there = Exchange(
        collective="dispatch", group=24, payload=7e3, messages=700, attention_messages=700, expert_messages=300
    )
    back = replace(there, collective="combine")
    ops = [Op(name="x", operator="exchange", engine="link", exchange=one) for one in (there, back)]
    part = steps.time_part(ops, RATES)
    of_one = 22 / 24 * (1.25 * 130e-9 + 1.07 * 170e-9)
    assert (part.attention_messages, part.expert_messages) == (near(700 * of_one), near(300 * of_one))
    plain = [replace(op, exchange=replace(op.exchange, attention_messages=None, expert_messages=None)) for op in ops]
    assert steps.time_part(plain, RATES).expert_messages == 0.0
    assert steps.join([part, part]).expert_messages == near(2 * 300 * of_one)


def test_a_serial_family_overlaps_nothing() -> None:
    """A block that overlaps in it is an error, not a time."""
    with pytest.raises(AssertionError, match="overlapped block"):
        layer("none", A, X, overlapped=True)


@pytest.mark.parametrize(
    ("overlap", "overlapped", "launches"),
    [("none", False, 12), ("cores", True, 12), ("stages", True, 7), ("stages", False, 12)],
)
def test_an_eager_host_may_be_slower_than_the_die(overlap: Any, overlapped: bool, launches: int) -> None:
    """Each of three micro-batches starts the kernels of both lanes; hosts of dies apart start their own at once."""
    values: dict[str, Any] = {"overlapped": overlapped, "passes": 3}
    die = layer(overlap, A, X, RATES, **values)
    slow = replace(RATES, eager=True, kernel_launch=10.0)
    assert layer(overlap, A, X, slow, **values) == near(3 * 10.0 * launches)
    assert layer(overlap, A, X, replace(slow, kernel_launch=0.01), **values) == die
    assert layer(overlap, A, X, replace(slow, eager=False), **values) == die
    prefill_alone = replace(slow, eager=False, eager_prefill=True)  # graphs of the sizes of decode
    assert layer(overlap, A, X, prefill_alone, **values) == die
    prefill = replace(FAMILY, overlap=overlap, phase="prefill")
    assert steps.layer_time(block(**values), prefill, A, X, prefill_alone) == near(3 * 10.0 * launches)


# -------------------------------------------------------------------------------------------------------------- steps


def test_gap_and_overhead_of_a_phase() -> None:
    """Decode adds its drafts' overhead; prefill has a gap and an overhead of its own."""
    assert steps.gap_and_overhead(FAMILY, 3, RATES) == (1.07, near(1.3e-3 + 3 * 1.7e-4))
    assert steps.gap_and_overhead(replace(FAMILY, phase="prefill"), 3, RATES) == (1.19, 2.9e-3)


@pytest.mark.parametrize(
    ("phase", "gap", "overhead"), [("decode", 1.07, 1.3e-3 + 2 * 1.7e-4), ("prefill", 1.19, 2.9e-3)]
)
def test_a_step_is_layers_times_gap_and_an_overhead(phase: Any, gap: float, overhead: float) -> None:
    """C x (gap x sum of count x layer + overhead); blocks of equal layers, and others that differ in one thing each."""
    base = block(attention=("a",), experts=("b",), count=3, passes=2)
    others = [
        replace(base, attention=("c",), count=5),
        replace(base, experts=("c",), count=7),
        replace(base, joined=("a", "b"), count=11),
        replace(base, beside=("c",), count=13),
        replace(base, fused=("b",), count=17),
        replace(base, overlapped=True, count=19),
        replace(base, passes=3, count=23),
    ]
    blocks = (base, *others, replace(base, name="again", count=29))
    ledger: Any = Ledger(parts={}, blocks=blocks, quantities=None, steps=4, draft=2)
    times = dict(zip(blocks, (2.0, 3.0, 5.0, 7.0, 11.0, 13.0, 17.0, 19.0, 2.0), strict=True))
    asked: list[Block] = []

    def timed(one: Block) -> float:
        asked.append(one)
        return times[one]

    found = steps.add_layers(ledger, replace(FAMILY, phase=phase), RATES, timed)
    assert found == near(4 * (gap * sum(times[one] * one.count for one in blocks) + overhead))
    assert len(asked) == 8  # equal layers once


def test_a_whole_step_from_its_rows() -> None:
    """Embedding and seven equal layers on 14 and 6 of 20 cores: rows to lanes to layers to step."""
    parts = {"head": (PRODUCTS[2],), "a": (PRODUCTS[0], PRODUCTS[2]), "b": (PRODUCTS[1],)}
    blocks = (
        block(name="head", attention=("head",)),
        block(attention=("a",), experts=("b",), overlapped=True, passes=2, count=7),
    )
    ledger: Any = Ledger(parts=parts, blocks=blocks, quantities=None, steps=1, draft=1)

    both: Any = (*parts["a"], *parts["b"])
    passing = sum(op.kv_bytes + op.activation_bytes / 2 for op in both)
    kept = min(1.0, max(0.0, L2 - passing) / sum(op.weight_bytes for op in both))
    assert 0.05 < kept < 0.9

    def work(ops: tuple[Op, ...], cores: float, kept: float = 0.0) -> float:
        total = 0.0
        for op in ops:
            values: Any = op
            there = values.weight_bytes * kept
            stream = (moved_by(op) - there) / streamed(0.83, cores) + there / (L2_READ * cores)
            hidden = 190 / (190 + values.rows)
            total += hides(stream, values.flop / (6.7e14 * 0.71 * cores), hidden)
            total += 2.3 * values.activation_bytes / (PINS * cores) + values.kernels * 3e-6 * 0.37
        return total

    pins = sum(moved_by(op) / (0.83 * PINS) + 2.3 * op.activation_bytes / PINS for op in (*parts["a"], *parts["b"]))
    pins -= sum(op.weight_bytes for op in both) * kept / 2 / (0.83 * PINS)  # in the mean of both micro-batches
    (a, a_again), (b, b_again) = (
        [work(parts[name], cores, part) for part in (0.0, kept)] for name, cores in (("a", 0.7), ("b", 0.3))
    )
    expected = work(parts["head"], 1.0) + 7 * max(a + a_again, b + b_again, a + b, 2 * pins)
    found = steps.step_time(ledger, replace(FAMILY, overlap="cores"), 14, RATES)
    assert found == near(1.07 * expected + 1.3e-3 + 1.7e-4)


# -------------------------------------------------------------------------------------------------------------- pools

FOOTPRINT = Footprint(
    weights=100.0, kv=30.0, kv_worst=50.0, kv_mean=20.0, kv_bytes_per_token=7.0, kv_bytes_per_token_of_die=2.0,
    buffers=11.0, workspace=13.0,
)  # fmt: skip


def pool(**values: Any) -> PoolPoint:
    base: dict[str, Any] = {
        "step_time": 0.5, "in_flight": 300, "tokens_per_step": 1.6, "tokens_per_request": 40, "footprint": FOOTPRINT,
        "usable": 1e3,
    }  # fmt: skip
    return PoolPoint(**(base | values))


def case(rates: Rates = RATES, **values: Any) -> Case:
    return replace(deepseek_case(800, 70, rates), **values)


def test_rates_of_a_pool() -> None:
    """Each of 300 sequences makes 1.6 tokens in half a second, a request has 40; memory is what is planned."""
    one = pool()
    assert (one.tpot, one.tokens_per_s, one.requests_per_s) == (near(0.3125), near(960.0), near(24.0))
    assert (one.load, one.memory) == (near(1.0), 100 + 30 + 13 + 11)


@pytest.mark.parametrize(("frontend", "load"), [(30.0, 1.0), (24.0, 1.0), (18.0, 0.75)])
def test_front_ends_bound_a_pool(frontend: float, load: float) -> None:
    """Dies make 24 requests a second; front ends that take fewer leave them idle."""
    one = pool(frontend_rate=frontend)
    assert (one.requests_per_s, one.tokens_per_s, one.load) == (near(24 * load), near(960 * load), near(load))


@pytest.mark.parametrize(("draft", "tokens"), [(0, 1.0), (1, 1.7), (2, 2.1), (3, 2.3), (5, 2.3)])
def test_tokens_of_a_step_over_every_outcome(draft: int, tokens: float) -> None:
    """The step's own token and what the drafts in use add, known to three positions."""
    assert serving.tokens_per_step((0.7, 0.4, 0.2), draft) == near(tokens)
    assert serving.tokens_per_step((), draft) == 1


def test_usable_memory_and_fewest_dies() -> None:
    """90 % of the 95 % seen of 64 GB, less 3 GB; 58 layers of 256 experts of three 7168 x 2048 matrices, INT4."""
    assert serving.usable_memory(RATES) == near(5.172e10)
    assert serving.fewest_dies(case()) == near(58 * 256 * 3 * 7168 * 2048 / 2 / 5.172e10)


def test_traffic_of_a_case() -> None:
    """Lengths and unevenness as given; even where the driver or the machine makes it so."""
    given = case(prefix_hit=0.3, isl_spread=0.4).traffic
    assert (given.isl, given.osl, given.prefix_hit, given.isl_spread) == (800, 70, 0.3, 0.4)
    assert (given.skew, given.residual, given.variety) == (1.7, 0.13, 1.3)
    assert (given.chance, given.context_spread) == (1.0, 0.6)
    plain = Case(model=case().model, rates=RATES, isl=800, osl=70)
    assert (plain.traffic.prefix_hit, plain.traffic.isl_spread, plain.traffic.chance, plain.acceptance) == (0, 0, 1, ())
    for even in (case(even=True, isl_spread=0.4), case(replace(RATES, even=True), isl_spread=0.4)):
        loads = even.traffic
        assert (loads.skew, loads.residual, loads.variety, loads.chance) == (0, 0, 0, 0)
        assert (loads.context_spread, loads.isl_spread) == (0, 0)
        assert (loads.isl, loads.osl) == (800, 70)


def layout(**values: Any) -> Layout:
    base = {"dies": 64, "tp": 2, "shared_ranks": 0, "redundant": 0, "batch": 5, "draft": 1, "attention_cores": 14}
    return Layout(**(base | values))


@pytest.mark.parametrize("rate_of_one", [None, 7.0])
def test_what_an_instance_has_in_flight(rate_of_one: float | None) -> None:
    """32 ranks of five: sequences that make 1.7 tokens a step, or prompts of 800 tokens behind three front ends."""
    one = case(replace(RATES, frontend_rate=rate_of_one))
    ledger: Any = serving.build_ledger(layout(), FAMILY, one.traffic, one.model, one.dims)
    decode = serving.pool_of(ledger, 0.25, layout(), FAMILY, one)
    assert (decode.step_time, decode.in_flight, decode.tokens_per_step) == (0.25, 160, near(1.7))
    assert (decode.tokens_per_request, decode.usable, decode.frontend_rate) == (70, near(5.172e10), None)
    family = replace(FAMILY, phase="prefill")
    ledger = serving.build_ledger(layout(), family, one.traffic, one.model, one.dims)
    prefill = serving.pool_of(ledger, 0.25, layout(), family, one)
    assert (prefill.in_flight, prefill.tokens_per_step, prefill.tokens_per_request) == (160 * 800, 1, 800)
    assert prefill.frontend_rate == (None if rate_of_one is None else 21.0)


def test_a_pool_point_is_the_step_of_its_ledger() -> None:
    """Rates and memory of one layout, from the rows of its step: cache of 62 layers of 1152 bytes of a whole token."""
    one = case(replace(RATES, kernels={**RATES.kernels, **STAND_IN}))
    point = serving.pool_point(layout(), FAMILY, one)
    ledger = serving.build_ledger(layout(), FAMILY, one.traffic, one.model, one.dims)
    assert point.step_time == steps.step_time(ledger, FAMILY, 14, one.rates)
    assert point.in_flight == 160
    footprint = serving.footprint_of(layout(), FAMILY, one)
    assert footprint.planned == point.footprint.planned
    assert footprint.kv_bytes_per_token == near(62 * 1152)
    worst = 5 * (800 + 70 + 1 + 128)  # every request at its longest, a draft and a block more
    assert footprint.kv_worst == near(62 * 1152 * worst)


STAND_IN = dict.fromkeys(("matmul_bf16", "grouped_matmul_int8", "batched_matmul_bf16"), MATMUL)


# ---------------------------------------------------------------------------------------------------------------- TTFT


def test_ttft_is_the_sum_of_its_terms() -> None:
    """Six terms in order of time; no front end where none is given."""
    terms: dict[str, float] = {"batch_formation": 2.0, "residual": 4.0, "prefill": 8.0, "kv_transfer": 16.0}
    assert FirstToken(frontend=1.0, **terms, first_step=32.0).ttft == 63.0
    assert FirstToken(**terms, first_step=32.0).ttft == 62.0


def queue(processes: int, service: float, load: float) -> float:
    """Sakasegawa's time in a queue of several servers, and the service."""
    return service + service * load ** (math.sqrt(2 * processes + 2) - 1) / (processes * (1 - load))


def test_wait_in_the_front_ends() -> None:
    """Three processes of 7 a second take 21; 12 arrive. None where the machine or the pool sets no limit."""
    limited = case(replace(RATES, frontend_rate=7.0))
    assert serving.frontend_wait(pool(frontend_rate=21.0), limited, 12.0) == near(queue(3, 1 / 7, 12 / 21))
    assert serving.frontend_wait(pool(), limited, 12.0) == 0.0
    assert serving.frontend_wait(pool(frontend_rate=21.0), case(), 12.0) == 0.0


@pytest.mark.parametrize("layered", [True, False])
@pytest.mark.parametrize(("batch", "tp", "cp"), [(5, 2, 1), (5, 2, 2), (9, 4, 1), (3, 4, 2), (16, 1, 8)])
@pytest.mark.parametrize("frontend", [None, 5.0, 1e4])
def test_terms_of_ttft(frontend: float | None, batch: int, tp: int, cp: int, layered: bool) -> None:
    """docs/method.md 6: n prompts at 80 % of the rate, half a step of those busy, a cache sent by layer or whole."""
    given = replace(RATES, frontend_rate=frontend, layered_kv_transfer=layered)
    one, shape = case(given), layout(batch=batch, tp=tp, cp=cp)
    prompts = batch * 64 / (tp * cp)
    heavy = replace(FOOTPRINT, kv_bytes_per_token=3e6)  # sending takes longer than the step
    for footprint in (replace(FOOTPRINT, kv_bytes_per_token=7e4), heavy):
        point = pool(
            step_time=0.11, in_flight=prompts * 800, tokens_per_step=1, tokens_per_request=800, footprint=footprint,
            frontend_rate=None if frontend is None else 3 * frontend,
        )  # fmt: skip
        found: Any = serving.first_token(prefill=point, layout=shape, case=one, utilisation=0.8, decode_step=0.07)
        free = prompts / 0.11  # requests a second of the dies alone
        served = free if frontend is None else min(free, 3 * frontend)
        wire = footprint.kv_bytes_per_token * 800 * max(1.0, batch / tp / cp) / 1.7e10
        layers, sent = (61 if layered else 1), 0.0
        for at in range(1, layers + 1):
            sent = max(sent, 0.11 * at / layers) + wire / layers
        assert found.frontend == (near(queue(3, 1 / frontend, 0.8 * served / (3 * frontend))) if frontend else 0.0)
        assert found.batch_formation == near((prompts - 1) / 2 / (0.8 * served))
        assert found.residual == near(0.8 * served / free * 0.11 / 2)
        assert (found.prefill, found.first_step) == (0.11, 0.07)
        assert found.kv_transfer == near(7e-6 + sent - 0.11)
