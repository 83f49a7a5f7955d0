"""Conservation, symbols, shapes and limits of the demand side and its timing."""

import itertools
import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.files import catalog
from perfmodel.ledger.footprint import cache_of_model
from perfmodel.ledger.records import Family, Layout, Traffic
from perfmodel.ledger.step import build_ledger, dims_of
from perfmodel.prediction.serving import Case, pool_point
from perfmodel.timing.exchanges import exchange_time
from perfmodel.timing.step import step_time
from tests.builders import deepseek_case, rates_of

#: models on file that differ in their kinds of attention and groups of layers
MODELS = [
    catalog.load_model(name).spec
    for name in (
        "deepseek-v3",
        "qwen3-235b-a22b",
        "qwen3-8b",
        "glm-5.2",
        "glm-5.3-flash",
        "deepseek-v4-pro",
        "kimi-k3",
        "longcat-2.0",
        "minimax-m3",
        "llama-4-maverick",
        "mimo-v2-flash",
    )
]
DEEPSEEK = catalog.load_model("deepseek-v3").spec
FAMILIES = [
    Family(phase=p, own_shared_ranks=s, overlap=o, exchange=e, reduction=r)
    for p, s, o, e, r in itertools.product(
        ("decode", "prefill"),
        (False, True),
        ("none", "link", "cores"),
        ("dispatch", "gather"),
        ("all_reduce", "scatter_gather"),
    )
    if not (p == "prefill" and o == "cores")
]


def layout(**changes: object) -> Layout:
    base = {"dies": 288, "tp": 1, "shared_ranks": 32, "redundant": 0, "batch": 48, "draft": 1, "attention_cores": 16}
    return Layout(**(base | changes))


TRAFFIC = Traffic(isl=4096, osl=1024, skew=0.0, residual=0.0, chance=1.0, context_spread=1.0)


@pytest.mark.parametrize("tp", [1, 2, 8])
def test_flop_over_all_ranks_equals_the_unsharded_model(tp: int) -> None:
    """Projections copied by tensor parallelism are the one stated replication."""
    family = Family(phase="decode", own_shared_ranks=False, overlap="none", exchange="dispatch")
    traffic = Traffic(isl=4096, osl=0, skew=0.0, residual=0.0, chance=1.0, context_spread=1.0)
    whole = build_ledger(layout(dies=1, shared_ranks=0, batch=64), family, traffic, DEEPSEEK, dims_of(DEEPSEEK))
    sharded = build_ledger(
        layout(dies=64, tp=tp, shared_ranks=0, batch=tp), family, traffic, DEEPSEEK, dims_of(DEEPSEEK)
    )
    for part in ("attention", "shared", "dense"):
        for one, many in zip(whole.parts[part], sharded.parts[part], strict=True):
            copies = tp if one.name in ("attention.qkv_down",) else 1
            if one.operator in ("matmul", "batched_matmul", "attention_decode", "sparse_attention_decode"):
                assert 64 * many.flop == pytest.approx(copies * one.flop, rel=1e-12), one.name


def test_tokens_dispatched_equal_tokens_combined() -> None:
    for family in FAMILIES:
        ledger = build_ledger(layout(), family, TRAFFIC, DEEPSEEK, dims_of(DEEPSEEK))
        rows = [
            op for op in ledger.parts["exchange"] if op.name != "exchange.rejoin"
        ]  # inside a tp group, after combine
        there, *_, back = [op.exchange for op in rows if op.exchange is not None]
        assert there.group == back.group == 288
        if family.exchange == "dispatch":
            rank_tokens = 48 * (2 if family.phase == "decode" else 4096) / (1 if family.overlap == "none" else 2)
            copies = 9 if family.own_shared_ranks else 8
            ranks = 256 if family.own_shared_ranks else 288
            mean = rank_tokens * 288 * 8 / 256  # that a routed rank with one of 256 experts gets; others have none
            assert there.messages == back.messages >= max(rank_tokens * copies, mean)
            # Blom's expected largest of n normals, here from the standard library's quantile
            largest = NormalDist().inv_cdf((ranks - 0.375) / (ranks + 0.25))
            spread = math.log(1 + (1 - 1 / ranks) / mean)
            busiest = mean * math.exp(largest * math.sqrt(spread) - spread / 2)
            shared = rank_tokens * 288 / 32 if family.own_shared_ranks else 0
            assert there.messages == pytest.approx(max(rank_tokens * copies, busiest, shared), rel=1e-6)


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_one_symbolic_run_per_family_and_its_value(family: Family) -> None:
    """No row branches on size: symbols pass through, and their value is the numbers' value."""
    names = ("dies", "tp", "shared_ranks", "redundant", "batch", "draft")
    values = {"dies": 288, "tp": 2, "shared_ranks": 32, "redundant": 256, "batch": 48, "draft": 3}
    symbols = {name: sympy.Symbol(name, positive=True) for name in names}
    symbolic = build_ledger(Layout(**symbols, attention_cores=16), family, TRAFFIC, DEEPSEEK, dims_of(DEEPSEEK))
    numeric = build_ledger(Layout(**values, attention_cores=16), family, TRAFFIC, DEEPSEEK, dims_of(DEEPSEEK))
    fields = ("flop", "weight_bytes", "activation_bytes", "kv_bytes", "resident_bytes")
    for part, ops in symbolic.parts.items():
        for one, other in zip(ops, numeric.parts[part], strict=True):
            formulas = sympy.lambdify(list(symbols.values()), [getattr(one, field) for field in fields])
            for field, value in zip(fields, formulas(*values.values()), strict=True):
                assert float(value) == pytest.approx(float(getattr(other, field)), rel=1e-9), (one.name, field)


@pytest.mark.parametrize("family", FAMILIES, ids=str)
@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_open_mesh_equals_plain_numbers(family: Family, model) -> None:
    if family.own_shared_ranks and not model.n_shared_experts:
        pytest.skip("the model has no shared expert")
    case = Case(model=model, rates=rates_of(), isl=2048, osl=512, acceptance=(0.7,))
    shared = [16.0, 32.0] if family.own_shared_ranks else [0.0, 0.0]
    batch, tp, dies = np.array([2.0, 48.0, 96.0]), np.array([1.0, 4.0]), np.array([144.0, 288.0])
    mesh = Layout(
        dies=dies[:, None, None],
        shared_ranks=np.array(shared)[:, None, None],
        redundant=np.array([0.0, 32.0])[:, None, None],
        tp=tp[None, :, None],
        batch=batch[None, None, :],
        draft=1.0,
        attention_cores=16.0,
    )
    grid = pool_point(mesh, family, case)
    for e, t, b in itertools.product(range(2), range(2), range(3)):
        one = Layout(
            dies=int(dies[e]), shared_ranks=int(shared[e]), redundant=(0, 32)[e], tp=int(tp[t]), batch=int(batch[b]),
            draft=1, attention_cores=16,
        )  # fmt: skip
        plain = pool_point(one, family, case)
        for array, number in ((grid.step_time, plain.step_time), (grid.memory, plain.memory)):
            assert np.broadcast_to(array, (2, 2, 3))[e, t, b] == pytest.approx(number, rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(FAMILIES), st.integers(1, 200), st.integers(1, 100), st.sampled_from([1, 2, 4]))
def test_time_and_memory_never_fall_with_the_batch(family: Family, batch: int, more: int, tp: int) -> None:
    case = deepseek_case(1024, 512)
    shared = 32 if family.own_shared_ranks else 0
    small = pool_point(layout(batch=batch, tp=tp, shared_ranks=shared), family, case)
    large = pool_point(layout(batch=batch + more, tp=tp, shared_ranks=shared), family, case)
    assert large.step_time >= small.step_time
    assert large.memory >= small.memory


def test_limits_no_parallelism_no_exchange() -> None:
    family = Family(phase="decode", own_shared_ranks=False, overlap="none", exchange="gather")
    ledger = build_ledger(layout(dies=1, shared_ranks=0), family, TRAFFIC, DEEPSEEK, dims_of(DEEPSEEK))
    from perfmodel.timing.operators import time_op

    for ops in ledger.parts.values():
        for op in ops:
            if op.exchange is not None:
                assert time_op(op, rates_of()).time == 0


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_ideal_is_never_slower(family: Family) -> None:
    shared = 32 if family.own_shared_ranks else 0
    ledger = build_ledger(layout(shared_ranks=shared), family, TRAFFIC, DEEPSEEK, dims_of(DEEPSEEK))
    assert step_time(ledger, family, 16, rates_of(stack="ideal")) <= step_time(ledger, family, 16, rates_of())


def test_streams_that_share_the_pins_wait_for_them() -> None:
    """20 cores x 32 B x 1.5 GHz exceed a slow memory's pins: the breakdown names the wait and still adds up."""
    from perfmodel.prediction.breakdown import breakdown

    small = replace(rates_of("atlas-800i-a2-32gb-hccs", "cann-2025"), hbm_bandwidth=3e11)
    family = Family(phase="decode", own_shared_ranks=False, overlap="cores", exchange="gather")
    one = layout(dies=64, shared_ranks=0, batch=16, draft=0, attention_cores=10)
    ledger = build_ledger(one, family, TRAFFIC, DEEPSEEK, dims_of(DEEPSEEK))
    parts = breakdown(ledger, family, 10, small, rates_of("atlas-800i-a2-32gb-hccs", "ideal"))
    shown = sum(parts.by_operator().values())
    assert shown == pytest.approx(parts.step_time, rel=1e-9)
    assert parts.step_time == pytest.approx(step_time(ledger, family, 10, small), rel=1e-12)
    assert any(row.name == "memory.contention" for row in parts.rows)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_rank_sends_its_whole_cache_once_and_a_die_takes_a_whole_prompt(model, batch: int) -> None:
    """Whatever tp copies or splits, the dies of a rank together send isl tokens of each prompt; the longer decides."""
    from perfmodel.prediction.serving import first_token

    case = Case(model=model, rates=rates_of(stack="ideal"), isl=16384, osl=512)
    family = Family(phase="prefill", own_shared_ranks=False, overlap="none", exchange="gather")
    for tp in (1, 2, 4):
        one = layout(dies=32, tp=tp, shared_ranks=0, batch=batch, draft=0)
        point = pool_point(one, family, case)
        terms = first_token(prefill=point, layout=one, case=case, utilisation=0.5, decode_step=0.0)
        sent = terms.kv_transfer * case.rates.kv_tier.bandwidth
        beside = float(cache_of_model(model, family, tp=1, draft=0).fixed(16384))  # windows and states
        whole = (model.checks.kv_bytes_per_token_bf16 * 16384 + beside) * max(batch / tp, 1)
        layers = model.num_hidden_layers if case.rates.layered_kv_transfer else 1
        assert sent == pytest.approx(whole / layers, rel=1e-6)


def test_fewer_shared_ranks_are_never_faster_to_reach() -> None:
    """A rank with a shared expert gets every token of its share of the instance: the busiest where these are few."""
    family = Family(phase="decode", own_shared_ranks=True, overlap="none", exchange="dispatch")
    found = []
    for shared in (8, 16, 24):
        ledger = build_ledger(layout(shared_ranks=shared), family, TRAFFIC, DEEPSEEK, dims_of(DEEPSEEK))
        (dispatch,) = [op.exchange for op in ledger.parts["exchange"] if op.name == "exchange.dispatch"]
        found.append(float(dispatch.messages))
    assert found[0] == 48 * 2 * 288 / 8
    assert found == sorted(found, reverse=True)


def split(parts: int, exchange: str = "gather", dies: int = 64, redundant: int = 0, traffic: Traffic | None = None):
    """Return the decode step of a layout whose routed experts are split over so many dies; loads are even or given."""
    family = Family(
        phase="decode", own_shared_ranks=False, overlap="none", exchange=exchange, split_experts=parts > 1
    )  # fmt: skip
    one = layout(dies=dies, shared_ranks=0, batch=32, draft=0, redundant=redundant, expert_tp=parts)
    return build_ledger(one, family, traffic or TRAFFIC.even(), DEEPSEEK, dims_of(DEEPSEEK))


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_experts_split_over_one_die_are_whole(family: Family) -> None:
    """The rows of split experts at one part take the time of none, and all others are the same."""
    parts = replace(family, split_experts=True)
    one = layout(shared_ranks=32 if family.own_shared_ranks else 0)
    whole, same = (build_ledger(one, each, TRAFFIC, DEEPSEEK, dims_of(DEEPSEEK)) for each in (family, parts))
    for name, ops in whole.parts.items():
        kept = [op for op in same.parts[name] if not op.name.startswith("exchange.expert_")]
        for op, other in zip(ops, kept, strict=True):
            assert (op.flop, op.weight_bytes, op.activation_bytes) == (
                other.flop,
                other.weight_bytes,
                other.activation_bytes,
            )
            assert op.exchange is None or op.exchange.messages == other.exchange.messages
    assert step_time(same, parts, 16, rates_of()) == step_time(whole, family, 16, rates_of())


@pytest.mark.parametrize("parts", [1, 2, 4, 8, 16, 64])
def test_splitting_experts_keeps_their_weights_and_arithmetic(parts: int) -> None:
    """Of all dies together: 256 experts of three matrices of 7168 x 2048, and eight of them for each token."""
    routed = split(parts).parts["routed"]
    assert 64 * sum(op.resident_bytes for op in routed) == 256 * 3 * 7168 * 2048
    products = sum(op.flop for op in routed if op.operator == "grouped_matmul")
    assert 64 * products == pytest.approx(64 * 32 * 8 * 2 * 3 * 7168 * 2048, rel=1e-12)


def test_the_busiest_of_fewer_larger_ranks_is_nearer_to_the_mean() -> None:
    skewed = replace(TRAFFIC, skew=0.85, residual=0.12, variety=1.59)
    over = []
    for parts in (1, 2, 4, 8, 16):
        busiest, mean = (split(parts, traffic=one).quantities.routed_tokens for one in (skewed, TRAFFIC.even()))
        over.append(busiest / mean)
    assert over == sorted(over, reverse=True)
    assert over[0] > over[-1] > 1


def test_dies_that_share_an_expert_gather_its_tokens_and_split_the_sums() -> None:
    """576 dies in pairs hold 288 slots: 32 x 576 x 8 / 288 = 512 copies a pair, half of which cross between the two."""
    exchanges = {op.name: op.exchange for op in split(2, "dispatch", 576, redundant=32).parts["exchange"]}
    assert list(exchanges) == [
        "exchange.dispatch", "exchange.expert_gather", "exchange.expert_scatter", "exchange.combine",
    ]  # fmt: skip
    gather, scatter = exchanges["exchange.expert_gather"], exchanges["exchange.expert_scatter"]
    assert (gather.group, gather.messages, gather.payload) == (2, pytest.approx(512), 7168 + 512)
    assert (scatter.group, scatter.messages, scatter.payload) == (2, pytest.approx(512), 7168 * 2)
    machine = rates_of(stack="ideal")
    (package,) = [tier for tier in machine.tiers if tier.name == "package"]
    assert exchange_time(gather, machine) == pytest.approx(256 * (7168 + 512) / package.bandwidth)
    assert exchange_time(scatter, machine) == pytest.approx(256 * 7168 * 2 / package.bandwidth)
    assert exchanges["exchange.dispatch"].messages == exchanges["exchange.combine"].messages == pytest.approx(256)
    whole = {op.name: op.exchange for op in split(1, "dispatch", 576, redundant=320).parts["exchange"]}
    assert list(whole) == ["exchange.dispatch", "exchange.combine"]
    assert whole["exchange.dispatch"].messages == pytest.approx(256)  # so what the pairs exchange comes on top


def test_gathered_tokens_need_no_exchange_among_the_dies_of_an_expert() -> None:
    """Each die has all tokens, and the sum over the instance joins the parts of an expert as it joins experts."""
    one, eight = (
        {op.name: op.exchange for op in split(parts).parts["exchange"] if op.exchange is not None} for parts in (1, 8)
    )
    assert one.keys() == eight.keys() == {"exchange.all_gather", "exchange.reduce_scatter"}
    assert all((one[name].group, one[name].payload) == (eight[name].group, eight[name].payload) for name in one)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([f for f in FAMILIES if f.phase == "decode"]), st.integers(1, 200), st.integers(2, 6))
def test_a_draft_more_takes_longer(family: Family, batch: int, drafts: int) -> None:
    """A draft more widens the step and runs its layer once more, if only on one token."""
    case = deepseek_case(1024, 512)
    shared = 32 if family.own_shared_ranks else 0
    steps = [
        pool_point(layout(batch=batch, shared_ranks=shared, draft=many), family, case).step_time
        for many in (drafts - 1, drafts)
    ]
    assert steps[0] < steps[1]
