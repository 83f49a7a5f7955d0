"""One term of the model at a time, worked by hand: each test fails when its term is left out or changed."""

import math
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import pytest

from perfmodel.files import machines
from perfmodel.formulas import experts
from perfmodel.formulas.collectives import kv_transfer_exposed
from perfmodel.ledger.footprint import Footprint, footprint
from perfmodel.ledger.quantities import quantities
from perfmodel.ledger.records import Block, Exchange, Family, Layout, Ledger, Op, Traffic
from perfmodel.ledger.step import build_ledger, dims_of
from perfmodel.solver.request import SearchRequest
from perfmodel.solver.solve import solve
from perfmodel.solver.space import Choices
from perfmodel.specs.deployment import Targets
from perfmodel.supply.rates import Rates
from perfmodel.timing.operators import OpTime, time_op
from perfmodel.timing.step import (
    PartTime,
    add_rows,
    core_shares,
    gap_and_overhead,
    lanes_of,
    layer_time,
    slower,
    step_time,
    time_part,
)
from tests.builders import deepseek_case, rates_of

DEEPSEEK = deepseek_case().model
DIMS = dims_of(DEEPSEEK)
DECODE = Family(phase="decode", own_shared_ranks=False, overlap="none", exchange="dispatch")
PREFILL = replace(DECODE, phase="prefill")
EVEN = Traffic(isl=4096, osl=1024, skew=0.0, residual=0.0, chance=0.0, context_spread=0.0)
#: cache of a token in a layer: 512 latent and 64 rope values in BF16; 61 layers and the draft's own
ENTRY, LAYERS = (512 + 64) * 2, 62
BLOCK = 128  # tokens of a block of cache


def layout(**changes: Any) -> Layout:
    base = {"dies": 64, "tp": 1, "shared_ranks": 0, "redundant": 0, "batch": 8, "draft": 0, "attention_cores": 16}
    return Layout(**(base | changes))


def ledger_of(one: Layout, family: Family, traffic: Traffic = EVEN) -> Ledger:
    return build_ledger(one, family, traffic, DEEPSEEK, DIMS)


def footprint_of(one: Layout, family: Family) -> Footprint:
    return footprint(ledger_of(one, family), one, family, EVEN, DEEPSEEK, DIMS, BLOCK)


def with_kernel(rates: Rates, name: str, **values: Any) -> Rates:
    """Return rates with some parameters of one kernel set."""
    return replace(rates, kernels={**rates.kernels, name: rates.kernels[name].model_copy(update=values)})


def busiest(ranks: int, slot_variance: float, mean: float = 1000) -> Any:
    return experts.busiest_rank_tokens(mean=mean, ranks=ranks, slots_per_rank=1, slot_variance=slot_variance, chance=1)


@pytest.mark.parametrize("ranks", [2, 32, 288])
def test_a_spread_beyond_the_quantile_raises_the_busiest_rank_no_further(ranks: int) -> None:
    """exp(z s - s^2/2) is largest at s = z, where it is exp(z^2/2); with s = 5 to 7 it would be below the mean."""
    z = NormalDist().inv_cdf((ranks - 0.375) / (ranks + 0.25))
    for slot_variance in (1e12, 1e20):
        assert busiest(ranks, slot_variance) == pytest.approx(1000 * math.exp(z * z / 2), rel=1e-9)


def test_the_busiest_rank_gets_at_most_all_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four ranks of 1,000 copies have 4,000; Blom's quantile never gets there, so a larger one is put in its place."""
    assert all(busiest(ranks, 10.0**power) <= 1000 * ranks for ranks in (1, 2, 4, 64) for power in range(-3, 12))
    monkeypatch.setattr(experts, "largest_normal", lambda count: 10.0)
    assert busiest(4, 1e6) == 4 * 1000


@pytest.mark.parametrize(
    ("compute", "layers", "exposed"),
    [
        (4.0, 10, 0.5 + 1 + 5.4),  # 0.9 of the 6 s that the wire is slower
        (4.0, 2, 0.5 + 5 + 3.0),  # half of the 6 s
        (4.0, 1, 0.5 + 10),  # one layer hides nothing
        (99.0, 10, 0.5 + 1),  # all but the last layer is hidden
    ],
)
def test_exposed_cache_transfer(compute: float, layers: int, exposed: float) -> None:
    """100 B at 10 B/s are 10 s.  The clock beside it sends layer after layer, each once it is computed."""
    found = kv_transfer_exposed(payload=100.0, bandwidth=10.0, latency=0.5, compute=compute, layers=layers)
    assert found == pytest.approx(exposed)
    sent = 0.0
    for layer in range(1, layers + 1):
        sent = max(sent, layer * compute / layers) + 10 / layers
    assert found == pytest.approx(0.5 + sent - compute)


def test_planned_cache_is_the_bound_or_the_worst_case_whichever_is_less() -> None:
    """Mean + 3 sigma of one request is 4096 + 512 + 64 + 887 tokens, more than the 4096 + 1024 + 1 + 128 it can have.

    Of a hundred requests the bound is below: their progress averages out.
    """
    token = LAYERS * ENTRY
    one, hundred = (footprint_of(layout(batch=batch, draft=1), DECODE) for batch in (1, 100))
    assert one.kv == one.kv_worst == pytest.approx(token * (4096 + 1024 + 1 + 128), rel=1e-12)
    bound = 100 * (4096 + 512 + 64) + 3 * 1024 / math.sqrt(12) * 10
    assert hundred.kv == pytest.approx(token * bound, rel=1e-12)
    assert hundred.kv_worst == pytest.approx(token * 100 * (4096 + 1024 + 1 + 128), rel=1e-12)


def test_slots_of_a_rank_are_whole() -> None:
    """256 experts on 48 dies: 5.33 a die, so the fullest holds 6, each 3 matrices of 7168 x 2048 bytes."""
    ledger = ledger_of(layout(dies=48), DECODE)
    assert ledger.quantities.slots_per_rank == 6
    assert sum(op.resident_bytes for op in ledger.parts["routed"]) == pytest.approx(6 * 3 * 7168 * 2048, rel=1e-12)


@pytest.mark.parametrize("hit", [0.0, 0.25])
def test_a_chunk_attends_to_the_chunks_before_it(hit: float) -> None:
    """A prompt of 4096 in chunks of 1024, counted token by token; with a quarter found ready the first is spared."""
    family, traffic = replace(PREFILL, chunked=True), replace(EVEN, prefix_hit=hit)
    found = int(4096 * hit)
    ends = list(range(found + 1024, 4096 + 1, 1024))  # tokens in the cache once a chunk is done
    q = quantities(layout(batch=2, chunk=1024), family, traffic, DIMS)
    assert q.steps == len(ends) == (4 if hit == 0 else 3)
    assert q.tokens == 2 * 1024
    assert q.context == sum(ends) / len(ends)
    assert q.cached_tokens == 2 * sum(ends) / len(ends)
    assert q.pairs == pytest.approx(2 * sum(range(found + 1, 4096 + 1)) / len(ends), rel=1e-12)


def test_offloaded_cache_of_a_die_is_a_part_of_its_part() -> None:
    """Four dies split each cache; a die keeps 3/4 of its quarter, fetches 1/4 of it, and attends to all of it."""
    one = layout(tp=4, dcp=4, kv_resident=0.75, draft=1)
    family = replace(DECODE, context_parallel=True, offloads=True)
    rows = {op.name: op for op in ledger_of(one, family).parts["attention"]}
    cached = 8 * (4096 + 512) * ENTRY  # of eight sequences half way through their answers
    assert rows["attention.kv_fetch"].kv_bytes == pytest.approx(cached / 4 / 4, rel=1e-12)
    assert rows["attention.core"].kv_bytes == pytest.approx(cached / 4, rel=1e-12)
    kept = footprint_of(one, family)
    assert kept.kv_bytes_per_token_of_die == pytest.approx(LAYERS * ENTRY / 4 * 3 / 4, rel=1e-12)
    assert kept.kv_worst == pytest.approx(8 * (4096 + 1024 + 1 + 128) * LAYERS * ENTRY * 3 / 16, rel=1e-12)


def row_of(work: float, *, weights: float = 0.0, prefetched: bool = False, link: bool = False) -> OpTime:
    exchange = Exchange(collective="dispatch", group=8, payload=1.0) if link else None
    op = Op(
        name="x", operator="matmul", engine="cube_int8", weight_bytes=weights, prefetched=prefetched, exchange=exchange
    )
    return OpTime(op=op, work=work)


@pytest.mark.parametrize(("capacity", "spared"), [(100e6, 1e-3), (200e6, 2e-3), (400e6, 4e-3), (800e6, 4e-3)])
def test_weight_prefetch_saves_what_fits_l2(capacity: float, spared: float) -> None:
    """Weights of 100 and 300 MB cost 1 and 3 ms to read; L2 holds a part of them and saves that part of 4 ms."""
    rates = replace(rates_of(), l2_capacity=capacity)
    rows = [
        row_of(1.5e-3, weights=100e6, prefetched=True),
        row_of(3.5e-3, weights=300e6, prefetched=True),
        row_of(7e-3, weights=500e6),  # not known ahead: neither saves nor takes room
    ]

    def light(row: OpTime, _: Rates) -> OpTime:
        return replace(row, work=0.5e-3)  # what is left is not the weights'

    assert rates.weight_prefetch
    assert add_rows(rows, rates, alone=True, light=light).spared == pytest.approx(spared)
    off = replace(rates, weight_prefetch=False)
    assert add_rows(rows, off, alone=True, light=light).spared == 0


@pytest.mark.parametrize(
    ("spared", "beside", "saved"),
    [
        (2.0, 0.0, 2.0),  # shorter than the combine: all of it
        (5.0, 0.0, 3.0),  # no longer than the combine lasts, whatever the dispatch before it
        (5.0, 4.0, 3.0),  # 3 of the 7 of both exchanges are left
        (5.0, 6.0, 1.0),  # work beside the exchange leaves 1 in which memory is idle
    ],
)
def test_weight_prefetch_hides_behind_the_last_exchange(spared: float, beside: float, saved: float) -> None:
    """A dispatch of 4, then a combine of 3: weights of the next attention come while the combine is on its way."""
    rates = replace(rates_of(), eager=False)
    parts = {
        "attention": PartTime(busy=10.0, link=0.0, hbm=0.0, spared=spared),
        "exchange": add_rows([row_of(4.0, link=True), row_of(3.0, link=True)], rates, alone=True),
        "shared": PartTime(busy=beside, link=0.0, hbm=0.0),
    }
    block = Block(
        name="layer",
        count=1,
        layers=1,
        attention=("attention",),
        experts=("exchange",),
        beside=("shared",) if beside else (),
    )
    attention, rest = lanes_of(block, lambda name: parts[name])
    assert rest.whole == pytest.approx(max(7.0, beside))
    assert layer_time(block, DECODE, attention, rest, rates) == pytest.approx(10 + max(7.0, beside) - saved)


def test_of_parts_on_different_ranks_the_slower_decides() -> None:
    """Cores, links, memory and kernels each by themselves: the sum of the larger, in whichever order they are given."""
    first = PartTime(busy=5.0, link=1.0, hbm=2.0, launches=7.0)
    second = PartTime(busy=2.0, link=3.0, hbm=4.0, launches=6.0)
    for both in (slower(first, second), slower(second, first)):
        assert (both.busy, both.link, both.hbm, both.launches) == (5.0, 3.0, 4.0, 7.0)
    block = Block(name="layer", count=1, layers=1, attention=(), experts=(), joined=("first", "second"))
    _, rest = lanes_of(block, lambda name: {"first": first, "second": second}[name])
    assert rest.whole == 5.0 + 3.0


def exchange_time_of(rates: Rates, group: int) -> Any:
    """Return the time of a dispatch of 1,000 messages of 1 KB, eight of a token, that only links limit."""
    exchange = Exchange(collective="dispatch", group=group, payload=1000.0, messages=1000, copies=8)
    return time_op(Op(name="x", operator="exchange", engine="link", exchange=exchange), rates).time


def test_of_kinds_of_link_the_slowest_decides() -> None:
    """32 dies of two a card: 1/32 of 1 MB goes inside the card at 270 GB/s, 30/32 over the die's ports at 85 % of 196.

    The ports carry what stays in the node of 16 and what leaves it; with a slow link inside the card, that decides.
    """
    rates = with_kernel(rates_of(), "dispatch", start=0.0, per_message=0.0)
    assert exchange_time_of(rates, 32) == pytest.approx(1e6 * 30 / 32 / (0.85 * 196e9))
    package, *others = rates.tiers
    slow = replace(rates, tiers=(replace(package, bandwidth=1e9), *others))
    assert exchange_time_of(slow, 32) == pytest.approx(1e6 * 1 / 32 / 1e9)


def test_a_token_leaves_the_node_once_for_each_node() -> None:
    """32 GPUs, four nodes of eight: 3/4 of 1 MB leave the node at 91 % of 50 GB/s.

    Sent once to each node a token of eight copies reaches 4 (1 - (3/4)^8) = 3.6 nodes; inside a node every copy still
    travels, 7/8 of them at 80 % of 200 GB/s, which takes less.
    """
    rates = with_kernel(rates_of("h800"), "dispatch", start=0.0, per_message=0.0, deduplicates=False)
    leaving = 1e6 * (32 - 8) / 32 / (0.91 * 50e9)
    assert exchange_time_of(rates, 32) == pytest.approx(leaving)
    once = with_kernel(rates, "dispatch", deduplicates=True)
    share = 4 * (1 - 0.75**8) / 8
    assert leaving * share > 1e6 * 7 / 8 / (0.8 * 200e9)
    assert exchange_time_of(once, 32) == pytest.approx(leaving * share)


def test_a_step_starts_a_graph_for_each_draft_beside_its_own() -> None:
    """0.6 to 0.8 ms a graph, k + 1 graphs a step of k drafts (CloudMatrix384, section 4.2.4): 2.8 ms of three drafts.

    A stack that prepares the next graph ahead starts any number in no time.
    """
    host = 0.0 + 0.5e-3  # between steps of the recipes' loop, and sampling
    for drafts in range(4):
        of_loop = gap_and_overhead(DECODE, drafts, rates_of("cloudmatrix384", "cann-recipe-2025"))[1]
        assert of_loop == pytest.approx(host + (drafts + 1) * 0.7e-3)
        ahead = [gap_and_overhead(DECODE, k, rates_of("cloudmatrix384", "cann-2025"))[1] for k in (0, drafts)]
        assert ahead[0] == ahead[1]


def test_each_draft_adds_its_step_of_the_framework_to_a_decode_step() -> None:
    """A draft outside the framework's step costs about 1 ms (``techniques/fusionspec.yaml``), three of them 3 ms."""
    machine, _ = machines.load_machine("cloudmatrix384")
    apart = machines.set_techniques(machine, {"fusionspec": "off"}).rates()
    for family, added in ((DECODE, 3 * 1e-3), (PREFILL, 0.0)):
        ledger = ledger_of(layout(draft=3), family)
        times = [step_time(ledger, family, 16, rates) for rates in (apart, machine.rates())]
        assert times[0] - times[1] == pytest.approx(added, rel=1e-9, abs=1e-15)


def test_short_prompts_cost_a_task_for_each_head_of_each_sequence() -> None:
    """12,800 tasks of 5 us on 24 cores are 2.67 ms, whatever little they compute; 10 ms of arithmetic hide them."""
    rates = with_kernel(
        rates_of(), "attention_prefill", start=0.0, task_time=5e-6, compute=1.0, overhead_tokens=0.0, spill=0.0
    )
    few = Op(
        name="x", operator="attention_prefill", engine="cube_bf16", flop=1e6, activation_bytes=1.0, sequences=100,
        heads=128, context=16,
    )  # fmt: skip
    many = replace(few, flop=10e-3 * 24 * 8192 * 1.8e9)
    assert time_op(few, rates).time == pytest.approx(12_800 * 5e-6 / 24)
    assert time_op(few, rates, 0.5).time == pytest.approx(2 * 12_800 * 5e-6 / 24)
    assert time_op(many, rates).time == pytest.approx(10e-3)


def test_an_all_to_all_beyond_l2_passes_through_memory() -> None:
    """What 16 dies send and get of 64 MB each, less the 192 MiB of L2, twice at 1.6 TB/s; 1 MB each stays in L2."""

    def added(part: float) -> Any:
        exchange = Exchange(collective="all_to_all", group=16, payload=part)
        op = Op(name="x", operator="exchange", engine="link", exchange=exchange)
        spilled, none = (time_op(op, with_kernel(rates_of(), "all_to_all", spill_passes=p)).time for p in (2.0, 0.0))
        return spilled - none

    assert added(64e6) == pytest.approx(2 * (2 * 16 * 64e6 - 192 * 2**20) / 1.6e12, rel=1e-9)
    assert added(1e6) == 0


def test_two_lanes_share_the_rate_of_memory() -> None:
    """Each lane streams 1.6 GB, 1 ms at 1.6 TB/s: two micro-batches of both need 4 ms, not the 2 ms of a lane alone."""
    rates = with_kernel(rates_of(), "matmul_int8", start=0.0, stream=1.0, compute=1.0, activation_passes=0.0)
    rates = replace(rates, core_stream=math.inf, eager=False)  # half of the cores can ask for the whole rate
    op = Op(name="x", operator="matmul", engine="cube_int8", weight_bytes=1.6e9)
    family = replace(DECODE, overlap="cores")
    block = Block(
        name="layer", count=1, layers=1, attention=("attention",), experts=("experts",), overlapped=True, passes=2
    )
    share, other = core_shares(block, family, 12, rates)
    assert (share, other) == (0.5, 0.5)
    attention, rest = lanes_of(block, lambda name: time_part([op], rates, share))
    assert attention.whole == rest.whole == pytest.approx(1e-3)
    assert layer_time(block, family, attention, rest, rates) == pytest.approx(4e-3)


@pytest.mark.parametrize("serving", ["disaggregated", "mixed"])
def test_no_plan_passes_a_ttft_limit(serving: Any) -> None:
    """A limit just below what the best plan takes refuses it; what is found instead is found under its own TTFT."""
    case = deepseek_case(1024, 512)
    asked = SearchRequest(
        servers=4, rate=None, targets=Targets(tpot=0.05), utilisation=0.8, objective="throughput", choices=Choices(),
        top=1, serving=serving,
    )  # fmt: skip
    best = solve(case, asked).best
    for below in (1e-6, 0.005, 1e-6, 0.005):
        assert best is not None
        limit = (1 - below) * float(best.first_token.ttft)  # type: ignore[arg-type]
        under = solve(case, replace(asked, targets=Targets(tpot=0.05, ttft=limit))).best
        assert under is not None
        ttft = float(under.first_token.ttft)  # type: ignore[arg-type]
        assert ttft <= limit * (1 + 1e-9)
        assert under.requests_per_s <= best.requests_per_s * (1 + 1e-9)
        again = solve(case, replace(asked, targets=Targets(tpot=0.05, ttft=ttft * (1 + 1e-9)))).best
        assert again is not None
        assert again.requests_per_s == pytest.approx(under.requests_per_s, rel=1e-9)
        best = under
