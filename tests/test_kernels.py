"""Times of operators and links behave as their physics says, on every kernel set and system on file."""

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.files import catalog, machines
from perfmodel.formulas.experts import distinct_nodes, reachable_nodes
from perfmodel.formulas.kernels import wave_share
from perfmodel.ledger.records import Exchange, Op
from perfmodel.measured.shapes import OPERATORS
from perfmodel.specs.kernels import parameters
from perfmodel.supply.rates import Rates
from perfmodel.timing.operators import time_op

ATTENTION = catalog.load_model("deepseek-v3").spec.attention
MACHINES = [
    ("cloudmatrix384", "cann-2025", ()),
    ("cloudmatrix384", "cann-2025", ("vllm-ascend-0.23",)),
    ("cloudmatrix384", "cann-2025", ("amla",)),
    ("atlas-800i-a2-64gb-hccs", "cann-2025", ()),
    ("h800", "deepseek-h800", ()),
]
SIZES: dict[str, tuple[int, int]] = {
    "rows": (1, 16384),
    "inner": (128, 16384),
    "columns": (128, 16384),
    "groups": (1, 64),
    "tokens": (1, 4096),
    "hidden_size": (1024, 8192),
    "intermediate_size": (512, 8192),
    "experts": (64, 256),
    "topk": (1, 8),
    "local_experts": (1, 64),
    "sequences": (1, 256),
    "context": (16, 65536),
    "keys": (16, 131072),
    "isl": (16, 16384),
    "heads": (1, 128),
    "queries": (1, 4),
    "kv_heads": (1, 1),
    "dies": (2, 256),
    "bytes": (64, 1 << 29),
    "message_bytes": (256, 32768),
}
#: loads of which more never takes less time, all else equal
LOADS = set(SIZES) - {"experts", "kv_heads", "dies"}


def machine(name: str, stack: str, kernels: tuple[str, ...]) -> tuple[Rates, Rates]:
    taken, _ = machines.load_machine(name, stack, kernels)
    return taken.rates(), machines.ideal(taken).rates()


RATES = {case: machine(*case) for case in MACHINES}
cases = st.sampled_from(MACHINES)
words = st.sampled_from(sorted(OPERATORS))


def drawn(data: Any, word: str) -> dict[str, float]:
    names = (*OPERATORS[word].columns, *OPERATORS[word].defaults)
    return {name: float(data.draw(st.integers(*SIZES[name]), label=name)) for name in names}


def op_of(word: str, values: dict[str, float]) -> Op:
    return OPERATORS[word].build(values, ATTENTION)[0]


def time_of(word: str, values: dict[str, float], rates: Rates) -> float:
    return float(time_op(op_of(word, values), rates).time)  # type: ignore[arg-type]


@settings(max_examples=300, deadline=None)
@given(case=cases, word=words, data=st.data())
def test_more_load_never_takes_less_time(case: Any, word: str, data: Any) -> None:
    rates, _ = RATES[case]
    values = drawn(data, word)
    name = data.draw(st.sampled_from([c for c in OPERATORS[word].columns if c in LOADS]))
    more = values | {name: values[name] * data.draw(st.floats(1.0, 8.0))}
    assert time_of(word, more, rates) >= time_of(word, values, rates) * (1 - 1e-12)


FASTER = ("cube_bf16", "cube_int8", "vector", "hbm_bandwidth", "core_stream", "l2_rate", "l2_capacity")
RISING = (
    "stream",
    "compute",
    "read_share",
    "write_share",
    "package_share",
    "link_share",
    "peer_rate",
    "push_rate",
    "pair_rate",
    "overlap",
)
FALLING = (
    "start",
    "start_per_sequence",
    "start_per_peer",
    "per_message",
    "task_time",
    "spill",
    "activation_passes",
    "passes",
)


@settings(max_examples=300, deadline=None)
@given(case=cases, word=words, data=st.data())
def test_a_faster_machine_is_never_slower(case: Any, word: str, data: Any) -> None:
    rates, _ = RATES[case]
    values, factor = drawn(data, word), data.draw(st.floats(1.0, 4.0))
    name = data.draw(st.sampled_from([*FASTER, "tiers"]))
    if name == "tiers":
        tiers = tuple(
            replace(t, bandwidth=t.bandwidth * factor, pin_bandwidth=t.pin_bandwidth * factor) for t in rates.tiers
        )
        better = replace(rates, tiers=tiers)
    else:
        better = replace(rates, **{name: getattr(rates, name) * factor})
    assert time_of(word, values, better) <= time_of(word, values, rates) * (1 + 1e-12)


@settings(max_examples=300, deadline=None)
@given(case=cases, word=words, data=st.data())
def test_a_better_kernel_is_never_slower(case: Any, word: str, data: Any) -> None:
    rates, _ = RATES[case]
    values = drawn(data, word)
    name = op_of(word, values).kernel
    kernel = rates.kernels[name]
    movable = [p for p in parameters(kernel) if p in (*RISING, *FALLING)]
    parameter = data.draw(st.sampled_from(movable))
    share = data.draw(st.floats(0.2, 1.0))
    value = float(getattr(kernel, parameter)) * (1 / share if parameter in FALLING else share)
    worse = replace(rates, kernels={**rates.kernels, name: kernel.model_copy(update={parameter: value})})
    assert time_of(word, values, worse) >= time_of(word, values, rates) * (1 - 1e-12)


@settings(max_examples=300, deadline=None)
@given(case=cases, word=words, data=st.data())
def test_nothing_is_faster_than_the_ideal_kernels(case: Any, word: str, data: Any) -> None:
    rates, ideal = RATES[case]
    values = drawn(data, word)
    assert time_of(word, values, ideal) <= time_of(word, values, rates) * (1 + 1e-12)


@settings(max_examples=300, deadline=None)
@given(case=cases, word=words, data=st.data())
def test_time_has_no_steps_but_the_switch_of_algorithm(case: Any, word: str, data: Any) -> None:
    """One per cent more of any load costs at most three per cent more; between two algorithms of collectives more."""
    rates, _ = RATES[case]
    values = drawn(data, word)
    name = data.draw(st.sampled_from([c for c in OPERATORS[word].columns if c in LOADS]))
    more = values | {name: values[name] * 1.01}
    before, after = op_of(word, values), op_of(word, more)
    if getattr(rates.kernels[before.kernel], "tile_rows", None) is not None:
        return  # whole waves of tiles are steps: the test below
    if word == "top_k" and name == "rows":
        return  # so are whole rows on whole cores
    if before.kernel == "collective":
        kernel: Any = rates.kernels["collective"]
        for one in ("gather", "reduce", "outer_gather", "outer_reduce"):
            low, high = (getattr(kernel, f"{one}_{end}") for end in ("limit", "beyond"))
            if after.exchange.payload > low and before.exchange.payload < high:  # type: ignore[union-attr,operator]
                return
    assert time_of(word, more, rates) <= 1.03 * time_of(word, values, rates)


@pytest.mark.parametrize("case", MACHINES, ids=lambda c: f"{c[0]}-{'-'.join(c[2]) or c[1]}")
def test_a_share_of_the_cores_is_never_faster_than_all(case: Any) -> None:
    rates, _ = RATES[case]
    for word in sorted(OPERATORS):
        values = {c: float(SIZES[c][1]) for c in (*OPERATORS[word].columns, *OPERATORS[word].defaults)}
        op = op_of(word, values)
        if op.exchange is None:
            times = [float(time_op(op, rates, share).time) for share in (0.25, 0.5, 0.75, 1.0)]  # type: ignore[arg-type]
            assert times == sorted(times, reverse=True)


def test_half_the_cores_stream_half_of_what_all_can_ask_for() -> None:
    rates, _ = RATES[MACHINES[0]]
    op = op_of("matmul_int8", {"rows": 1.0, "inner": 16384.0, "columns": 16384.0})
    start = float(time_op(op, rates).fixed_time)  # type: ignore[arg-type]
    whole, half = (float(time_op(op, rates, share).time) - start for share in (1.0, 0.5))  # type: ignore[arg-type]
    pin, cores = 1.6e12 * float(parameters(rates.kernels["matmul_int8"])["stream"]), 24 * 36 * 1.8e9
    assert half / whole == pytest.approx(pin / (0.5 * max(pin, cores)), rel=0.03)


def test_an_all_reduce_inside_a_node_of_a_mesh_by_hand() -> None:
    """4 of 8 cards, 64 MiB: each sends a quarter to three peers over their own links, twice."""
    rates, _ = RATES[MACHINES[3]]
    kernel: Any = rates.kernels["collective"]
    shard = 64 * 2**20 / 4
    link = 28e9
    transfer = shard / (link * kernel.read_share) + shard / (link * kernel.write_share)
    start = kernel.start + 2 * kernel.bulk_start_per_peer * 3
    hidden = kernel.bulk_overlap * min(start, transfer)
    exchange = Exchange(collective="all_reduce", group=4, payload=shard)
    op = Op(name="x", operator="exchange", engine="link", exchange=exchange)
    assert float(time_op(op, rates).time) == pytest.approx(start + transfer - hidden)  # type: ignore[arg-type]


def test_an_all_gather_over_two_nodes_by_hand() -> None:
    """32 dies, 8 MiB a die: 16 shards inside cards, 14 inside nodes and one between them."""
    rates, _ = RATES[MACHINES[0]]
    kernel: Any = rates.kernels["collective"]
    shard = 8 * 2**20
    inside = 16 * shard / (270e9 * kernel.package_share) + 14 * shard / (196e9 * kernel.read_share)
    start = kernel.start + 16 * 15 * kernel.start_per_pair + kernel.bulk_start
    bulk = start + inside - kernel.bulk_overlap * min(start, inside)
    expected = bulk + kernel.bulk_start + shard / (196e9 * kernel.read_share)
    exchange = Exchange(collective="all_gather", group=32, payload=shard)
    op = Op(name="x", operator="exchange", engine="link", exchange=exchange)
    assert float(time_op(op, rates).time) == pytest.approx(expected)  # type: ignore[arg-type]


#: rate of a collective lost between two neighbouring sizes of the public A3 table, by operation and dies:
#: (shard / time) of the larger over that of the smaller, less one
FALLS = {
    ("all_gather", 4): 1 - 2 * 31.24 / 123.13,
    ("all_gather", 8): 1 - 2 * 36.03 / 164.42,
    ("all_gather", 32): 1 - 8 * 15.63 / 126.6,
    ("reduce_scatter", 8): 1 - 2 * 74.08 / 179.02,
    ("reduce_scatter", 16): 1 - 2 * 123.26 / 299.01,
    ("reduce_scatter", 32): 1 - 4 * 41.62 / 248.23,
    ("all_reduce", 2): 1 - 2 * 42.61 / 146.2,
    ("all_reduce", 4): 1 - 2 * 84.93 / 253.59,
    ("all_reduce", 32): 1 - 2 * 85.71 / 328.25,
}


@pytest.mark.parametrize(("kind", "dies"), FALLS)
def test_no_change_of_algorithm_costs_more_than_was_measured(kind: Any, dies: int) -> None:
    """Over all sizes a collective loses no more of its rate than the table shows, give or take a row's tenth."""
    rates, _ = RATES[MACHINES[0]]
    shards = [1e3 * 1.01**step for step in range(1000)]
    best, fall = 0.0, 0.0
    last = 0.0
    for shard in shards:
        exchange = Exchange(collective=kind, group=dies, payload=shard)
        time = float(time_op(Op(name="x", operator="exchange", engine="link", exchange=exchange), rates).time)  # type: ignore[arg-type]
        assert last <= time <= (1.12 * last or time), shard  # no step either
        best, last = max(best, shard / time), time
        fall = max(fall, 1 - shard / time / best)
    assert fall <= FALLS[kind, dies] + 0.1


def test_a_decode_attention_by_hand() -> None:
    """Public kernel, 128 heads, 32 sequences of 4096: 254 us measured, worked from its six parameters."""
    rates, _ = RATES[MACHINES[1]]
    k: Any = rates.kernels["attention_decode"]
    tokens = 32 * 4096
    stream, compute = tokens * 1152 / (1.6e12 * k.stream), tokens * 278528 / (353.8944e12 * k.compute)
    core = max(1152 / (32 * 1.8e9), 278528 / (353.8944e12 / 24 * k.compute))
    block = core * 4096 * k.block_tokens / (4096 + k.block_tokens)
    queries = 32 * 128 * (512 + 64 + 512) * 2 / (24 * 110 * 1.8e9)
    expected = k.start + 12 * k.start_per_sequence + block + stream + compute - k.overlap * min(stream, compute)
    time = time_of("attention_decode", {"sequences": 32, "context": 4096, "heads": 128, "queries": 1}, rates)
    assert time == pytest.approx(expected + queries)
    assert time == pytest.approx(254e-6, rel=0.1)


@settings(max_examples=100, deadline=None)
@given(rows=st.integers(1, 4096), columns=st.integers(1, 16384), matrices=st.integers(1, 64))
def test_whole_waves_cost_at_most_one_wave_more(rows: int, columns: int, matrices: int) -> None:
    """A step of whole tiles in whole waves is never larger than one wave of each matrix's edge tiles."""
    sizes = {"matrices": matrices, "tile_rows": 128, "tile_columns": 128, "cores": 132}
    useful: Any = wave_share(rows=rows, columns=columns, **sizes)
    worked = matrices * rows * columns / useful
    assert 0 < useful <= 1
    edges = (rows + 128) * (columns + 128) * matrices
    assert worked <= edges + 132 * 128 * 128


def _drawn_nodes(nodes: int, n_group: int, topk_group: int, copies: int, draws: int = 20_000) -> tuple[float, float]:
    """Mean nodes that hold a chosen group, and mean nodes that hold one of the experts chosen within them."""
    dice, experts = random.Random(7), 256
    reached = touched = 0
    for _ in range(draws):
        groups = dice.sample(range(n_group), topk_group)
        reached += len({group * nodes // n_group for group in groups})
        size = experts // n_group
        allowed = [group * size + i for group in groups for i in range(size)]
        touched += len({expert * nodes // experts for expert in dice.sample(allowed, copies)})
    return reached / draws, touched / draws


@pytest.mark.parametrize(("nodes", "n_group", "topk_group"), [(2, 8, 4), (4, 8, 4), (8, 8, 4), (8, 8, 2), (4, 1, 1)])
def test_distinct_nodes_of_a_token_are_those_of_a_draw(nodes: int, n_group: int, topk_group: int) -> None:
    """With and without group-limited routing, eight of 256 experts."""
    reached, touched = _drawn_nodes(nodes, n_group, topk_group, 8)
    limited: Any = reachable_nodes(nodes=nodes, n_group=n_group, topk_group=topk_group) if n_group > 1 else nodes
    if n_group > 1:
        assert limited == pytest.approx(reached, rel=0.01)
    assert distinct_nodes(copies=8, nodes=limited) == pytest.approx(touched, rel=0.05)


def test_tokens_sent_once_to_a_node_cross_less() -> None:
    """16 GPUs, two nodes, top 8 in 4 of 8 groups: 1.99 nodes a token in place of 8 copies, half of them remote."""
    rates, _ = RATES[MACHINES[4]]
    kernel: Any = rates.kernels["dispatch"]
    once = replace(rates, kernels={**rates.kernels, "dispatch": kernel.model_copy(update={"deduplicates": True})})
    exchange = Exchange(
        collective="dispatch", group=16, payload=7400.0, messages=1024, copies=8, n_group=8, topk_group=4
    )
    op = Op(name="x", operator="exchange", engine="link", exchange=exchange)
    every, single = (float(time_op(op, r).time) - float(kernel.start) for r in (rates, once))  # type: ignore[arg-type]
    assert every == pytest.approx(1024 * 7400 * 0.5 / (50e9 * 0.91))
    reached = 2 * (1 - 1 / 70)  # four groups in one node of four: 1 of 70 draws, for each node
    nodes = reached * (1 - (1 - 1 / reached) ** 8)
    between = 128 * nodes * 7400 * 0.5 / (50e9 * 0.91)
    inside = 1024 * 7400 * 7 / 8 / (200e9 * 0.8)  # every copy travels inside a node
    assert single == pytest.approx(max(between, inside), rel=1e-6)
