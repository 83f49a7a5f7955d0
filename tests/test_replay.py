"""The replay gives what is known without it: queues with exact answers, steps walked one by one, sums that add up."""

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from perfmodel.algebra import as_float
from perfmodel.errors import UsageError
from perfmodel.ledger.records import Family, Layout
from perfmodel.prediction.serving import pool_point
from perfmodel.service.arrivals import ClosedLoop, at_once, poisson, renewal, stamped
from perfmodel.service.fits import decode_step, prefill_step
from perfmodel.service.prompts import PrefixCache
from perfmodel.service.records import DecodePool, FrontEnd, MixedPool, PrefillPool, Requests, Service, Transfer
from perfmodel.service.replay import replay
from perfmodel.service.results import Served
from perfmodel.service.running import elapsed, steps_until
from perfmodel.service.steps import DecodeStep, PrefillStep
from perfmodel.specs.deployment import LayoutSpec
from tests.builders import deepseek_case

Floats = NDArray[np.float64]
UNIT = 1e6  # tokens of a mean prompt of one second where prompts stand for the customers of a queue
QUEUE = PrefillPool(step=PrefillStep(fixed=0.0, per_token=1 / UNIT), budget=10**12, prompts=1, routing="shared")
PREFILL = PrefillStep(fixed=0.05, per_token=1e-4, per_pair=1e-8)
DECODE = DecodeStep.linear(fixed=0.03, per_request=6e-4, per_context=1.5e-7)
CURVED = DecodeStep(counts=(1, 2, 4, 8), times=(0.02, 0.021, 0.026, 0.05), slopes=(1e-7, 1.2e-7, 2e-7, 1.5e-7))


def erlang_c(servers: int, load: float) -> float:
    """Return the chance of waiting in M/M/c at a load of each server."""
    offered = servers * load
    terms = [offered**n / math.factorial(n) for n in range(servers)]
    last = offered**servers / math.factorial(servers) / (1 - load)
    return last / (sum(terms) + last)


def waits_at_most(services: float, load: float) -> float:
    """Return the chance that M/D/1 waits so many times a service at most (Erlang)."""
    terms = ((load * (k - services)) ** k / math.factorial(k) * math.exp(-load * (k - services)) for k in range(99))
    return (1 - load) * sum(term for k, term in enumerate(terms) if k <= services)


def customers(kind: str, count: int, seed: int) -> Floats:
    """Return service times of mean one second."""
    draw = np.random.default_rng(seed)
    if kind == "constant":
        return np.ones(count)
    if kind == "exponential":
        return draw.exponential(1.0, count)
    return draw.lognormal(-0.5, 1.0, count)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
@pytest.mark.parametrize(
    ("kind", "servers", "squared"),
    [("constant", 1, 0.0), ("lognormal", 1, math.e - 1), ("exponential", 4, 1.0), ("exponential", 12, 1.0)],
)
def test_queues_with_an_exact_answer(kind: str, servers: int, squared: float, load: float) -> None:
    """Pollaczek-Khinchine for one server, Erlang C for several: within three standard errors of batch means."""
    count, batches = 60_000, 30
    tokens = np.maximum(np.rint(customers(kind, count, 5) * UNIT), 1)
    requests = Requests.of(tokens, 1, poisson(servers * load, count, 11))
    served = replay(requests, Service(prefill=replace(QUEUE, instances=servers)))
    waits = (served.ttft - tokens / UNIT)[count // 10 :]
    exact = load * (1 + squared) / (2 * (1 - load)) if servers == 1 else erlang_c(servers, load) / servers / (1 - load)
    means = np.array([one.mean() for one in np.array_split(waits, batches)])
    error = means.std(ddof=1) / math.sqrt(batches)
    assert abs(means.mean() - exact) < 3 * error
    assert waits.min() > -1e-6
    assert served.parts["prefill"].utilisation == pytest.approx(load, rel=0.03)


def walked_decode(requests: Requests, pool: DecodePool) -> dict[str, Floats]:
    """Return first and last token and the longest gap of one instance, one step at a time."""
    arrivals, count, ranks = np.asarray(requests.arrivals), requests.count, pool.ranks
    now, come, waiting = 0.0, 0, []
    active: list[list[list[float]]] = [[] for _ in range(ranks)]  # request, context, tokens to come
    found = {name: np.zeros(count) for name in ("first", "finish", "longest")}
    last = np.zeros(count)
    while come < count or waiting or any(active):
        if not waiting and not any(active):
            now = max(now, arrivals[come])
        while come < count and arrivals[come] <= now:
            waiting.append(come)
            come += 1
        while waiting:
            one = waiting[0]
            need = requests.isl[one] + requests.osl[one]
            able = []
            for r, here in enumerate(active):
                used = sum(requests.isl[int(a[0])] + requests.osl[int(a[0])] for a in here)
                free = pool.slots is None or len(here) < pool.slots
                if free and (pool.cache_tokens is None or used + need <= pool.cache_tokens):
                    able.append((len(here), r))
            if not able:
                break
            steps = math.ceil(requests.osl[one] / pool.tokens_per_step)
            active[min(able)[1]].append([waiting.pop(0), float(requests.isl[one]), steps])
        now += max(pool.step.time(len(here), sum(a[1] for a in here)) for here in active)
        for r, here in enumerate(active):
            for a in here:
                one = int(a[0])
                if last[one]:
                    found["longest"][one] = max(found["longest"][one], now - last[one])
                else:
                    found["first"][one] = now
                last[one] = now
                a[1] += pool.tokens_per_step
                a[2] -= 1
                if not a[2]:
                    found["finish"][one] = now
            active[r] = [a for a in here if a[2]]
    return found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("step", [DECODE, CURVED], ids=["line", "table"])
def test_decode_from_event_to_event_is_decode_step_by_step(seed: int, ranks: int, step: DecodeStep) -> None:
    draw = np.random.default_rng(seed)
    count = 60
    isl, osl = draw.integers(1, 5000, count), draw.integers(1, 90, count)
    requests = Requests.of(isl, osl, renewal((0.5, 3.0, 20.0)[seed % 3], 2.0, count, seed))
    pool = DecodePool(
        step=step,
        ranks=ranks,
        slots=(None, 3)[seed % 2],
        cache_tokens=(None, 12_000)[seed // 3],
        tokens_per_step=(1.0, 1.7)[seed // 2 % 2],
    )
    served = replay(requests, Service(decode=pool))
    for name, values in walked_decode(requests, pool).items():
        np.testing.assert_allclose(getattr(served, name), values, rtol=1e-9, atol=1e-9, err_msg=name)


def walked_mixed(requests: Requests, pool: MixedPool) -> dict[str, Floats]:
    """Return first and last token and the longest gap of one instance of one rank, one step at a time."""
    arrivals, count = np.asarray(requests.arrivals), requests.count
    now, come = 0.0, 0
    prompts: list[list[int]] = []  # request, tokens done
    active: list[list[int]] = []  # request, context, tokens to come
    found = {name: np.zeros(count) for name in ("first", "finish", "longest")}
    last = np.zeros(count)
    begun: set[int] = set()
    while come < count or prompts or active:
        if not prompts and not active:
            now = max(now, arrivals[come])
        while come < count and arrivals[come] <= now:
            prompts.append([come, 0])
            come += 1
        chunked = pool.mode == "chunked"
        left, work, ended = pool.budget - (len(active) if chunked else 0), 0.0, []
        for p in prompts:
            if left <= 0 or (pool.slots is not None and p[0] not in begun and len(begun) == pool.slots):
                break
            begun.add(p[0])
            new = min(left, int(requests.isl[p[0]]) - p[1])
            work += pool.prefill.per_token * new + pool.prefill.per_pair * ((p[1] + new) ** 2 - p[1] ** 2)
            left, p[1] = left - new, p[1] + new
            if p[1] == requests.isl[p[0]]:
                ended.append(p[0])
        decode = pool.decode.time(len(active), sum(a[1] for a in active))
        if not work:
            now += decode
        elif chunked:
            now += max(pool.prefill.fixed, pool.decode.fixed) + work + decode - pool.decode.fixed
        else:
            now += pool.prefill.fixed + work
        prompts = [p for p in prompts if p[0] not in ended]
        for a in active if chunked or not work else []:
            found["longest"][a[0]] = max(found["longest"][a[0]], now - last[a[0]])
            last[a[0]] = now
            a[1], a[2] = a[1] + 1, a[2] - 1
        for one in ended:
            found["first"][one] = last[one] = now
            active.append([one, int(requests.isl[one]) + 1, int(requests.osl[one]) - 1])
        for a in active:
            if not a[2]:
                found["finish"][a[0]] = now
                begun.remove(a[0])
        active = [a for a in active if a[2]]
    return found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("mode", ["chunked", "prefill_first"])
def test_mixed_from_event_to_event_is_mixed_step_by_step(seed: int, mode: str) -> None:
    draw = np.random.default_rng(seed)
    count = 60
    requests = Requests.of(
        draw.integers(1, 5000, count), draw.integers(1, 90, count), renewal((0.3, 1.0, 5.0)[seed % 3], 2.0, count, seed)
    )
    pool = MixedPool(prefill=PREFILL, decode=DECODE, budget=(700, 4096)[seed % 2], slots=(None, 4)[seed // 3])
    served = replay(requests, Service(mixed=replace(pool, mode=mode)))  # type: ignore[arg-type]
    for name, values in walked_mixed(requests, replace(pool, mode=mode)).items():  # type: ignore[arg-type]
        np.testing.assert_allclose(getattr(served, name), values, rtol=1e-9, atol=1e-9, err_msg=name)


def lengths(count: int, mean: float, squared: float, seed: int) -> NDArray[np.int64]:
    """Return lognormal lengths of a mean and a squared coefficient of variation."""
    spread = math.log(1 + squared)
    drawn = np.random.default_rng(seed).lognormal(math.log(mean) - spread / 2, math.sqrt(spread), count)
    return np.maximum(np.rint(drawn), 1).astype(np.int64)


@pytest.mark.parametrize(("ranks", "squared", "mean"), [(1, 1.0, 3000), (4, 1.0, 3000), (8, 0.5, 1500), (8, 3.0, 4000)])
def test_capacity_of_a_saturated_pool_is_that_of_its_chunks(ranks: int, squared: float, mean: float) -> None:
    """The stream of lengths cut at every budget: a step takes what the largest of as many chunks as ranks takes."""
    count, budget, instances = 40_000, 16384, 2
    isl = lengths(count, mean, squared, 3)
    pool = PrefillPool(step=PREFILL, instances=instances, ranks=ranks, budget=budget, rank_choice="in_turn")
    served = replay(Requests.of(isl, 1, at_once(count)), Service(prefill=pool))
    done = np.sort(served.finish)
    rate = 0.5 * count / (done[int(0.7 * count)] - done[int(0.2 * count)])
    ends = np.cumsum(isl)
    cuts = np.arange(0, ends[-1] + budget, budget)
    marks = np.unique(np.concatenate([[0], ends, cuts[cuts < ends[-1]]]))
    prompt = np.searchsorted(ends, marks[:-1], side="right")
    begin = marks[:-1] - (ends[prompt] - isl[prompt])
    stop = begin + np.diff(marks)
    piece = PREFILL.per_token * (stop - begin) + PREFILL.per_pair * (stop.astype(float) ** 2 - begin.astype(float) ** 2)
    chunks = np.sort(np.bincount(marks[:-1] // budget, weights=piece)[:-1])
    place = np.arange(len(chunks) + 1) / len(chunks)
    largest = float(chunks @ np.diff(place**ranks))
    capacity = instances * ranks * budget / isl.mean() / (PREFILL.fixed + largest)
    assert rate == pytest.approx(capacity, rel=0.04)


def mixture(count: int = 3000, seed: int = 2) -> Requests:
    """Return requests of spread lengths in bursts."""
    draw = np.random.default_rng(seed)
    return Requests.of(lengths(count, 2000, 1.0, seed), draw.integers(1, 300, count), renewal(6.0, 2.0, count, seed))


BOTH = Service(
    prefill=PrefillPool(step=PREFILL, instances=3, ranks=2, budget=4096, routing="random"),
    decode=DecodePool(step=DECODE, instances=2, ranks=4, slots=64, cache_tokens=200_000, routing="least_requests"),
    front_end=FrontEnd(delay=0.01, servers=2, service_time=0.05),
    transfer=Transfer(latency=0.002, per_token=2e-5, queued=True),
)
MIXED = Service(
    mixed=MixedPool(prefill=PREFILL, decode=DECODE, instances=4, ranks=2, routing="random", placing="in_turn")
)


@pytest.mark.parametrize("service", [BOTH, replace(BOTH, first_token_from="prefill"), MIXED])
def test_every_request_is_served_in_the_order_of_its_way(service: Service) -> None:
    served = replay(mixture(), service, seed=4)
    way: Iterable[str] = ("arrival", "queued", "prefilled", "joined", "first", "finish")
    if service.mixed:
        way = ("arrival", "queued", "joined", "prefilled", "first", "finish")
    if service.first_token_from == "prefill":
        way = ("arrival", "queued", "prefilled", "first", "finish")
    moments = [getattr(served, name) for name in way]
    for before, after in zip(moments, moments[1:], strict=False):
        assert np.all(after >= before)
    assert np.all(np.isfinite(served.finish))
    assert np.all(served.longest[served.osl > 1] >= served.tpot[served.osl > 1] * (1 - 1e-9))
    for part in served.parts.values():
        assert abs(part.little_error) < 1e-3


def test_one_rank_serves_in_order() -> None:
    alone = Service(prefill=PrefillPool(step=PREFILL, budget=4096), decode=DecodePool(step=DECODE, slots=4))
    served = replay(mixture(400), replace(alone, transfer=Transfer(per_token=1e-5, queued=True)))
    for name in ("queued", "prefilled", "joined"):
        assert np.all(np.diff(getattr(served, name)) >= 0), name


def test_busy_time_is_the_sum_of_all_work() -> None:
    """Of one rank a step's time is a sum: fixed parts, work of prompts, of tokens and of contexts."""
    requests = mixture(500)
    isl, osl = requests.isl.astype(float), requests.osl.astype(float)
    prompts = float(np.sum(PREFILL.per_token * isl + PREFILL.per_pair * isl**2))
    after = osl - 1
    contexts = float(np.sum(after * (isl + 1) + after * (after - 1) / 2))
    answers = 6e-4 * float(after.sum()) + 1.5e-7 * contexts
    one = replay(requests, Service(prefill=PrefillPool(step=PREFILL, budget=3000)))
    two = replay(requests, Service(mixed=MixedPool(prefill=replace(PREFILL, fixed=0.03), decode=DECODE, budget=900)))
    for served, part, fixed, work in ((one, "prefill", 0.05, prompts), (two, "decode", 0.03, prompts + answers)):
        span = served.finish.max() - served.arrival.min()
        known = served.parts[part]
        assert known.utilisation * span == pytest.approx(fixed * known.steps + work, rel=1e-9)


def test_a_seed_settles_a_run() -> None:
    one, same, other = (replay(mixture(800), BOTH, seed=seed).finish for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert np.array_equal(poisson(2.0, 50, 7), poisson(2.0, 50, 7))


def test_fourteen_instances_are_told_apart_by_their_routing() -> None:
    """Equal prompts of 0.235 s one by one at a load of 0.75: at random each is M/D/1; one queue waits least."""
    count, seconds, load = 40_000, 0.235, 0.75
    pool = replace(QUEUE, step=PrefillStep(fixed=0.0, per_token=seconds / UNIT), instances=14)
    requests = Requests.of(int(UNIT), 1, poisson(14 * load / seconds, count, 3))
    of = {
        name: replay(requests, Service(prefill=replace(pool, routing=name)))  # type: ignore[arg-type]
        for name in ("random", "round_robin", "least_work", "shared")
    }
    waits = {name: float(one.ttft.mean()) - seconds for name, one in of.items()}
    assert waits["random"] == pytest.approx(seconds * load / (2 * (1 - load)), rel=0.05)
    # of equal prompts, first come first served over all is in turn over all
    np.testing.assert_allclose(of["shared"].finish, of["round_robin"].finish, rtol=1e-12)
    # work leaves the count when a step ends, so that the least of it is not the first to be free
    assert waits["shared"] < waits["least_work"] < waits["random"] / 5
    # an independent simulation had means of 0.25 and 0.58 s, p99 of 0.35 and 1.94 s, 100 and 55 % within 0.5 s
    assert of["least_work"].summary()["ttft"].p99 == pytest.approx(0.35, abs=0.12)
    assert of["least_work"].within(ttft=0.5) > 0.995
    assert of["random"].summary()["ttft"].mean == pytest.approx(0.58, abs=0.03)
    assert of["random"].within(ttft=0.5) == pytest.approx(0.55, abs=0.05)
    for limit in (0.3, 0.5, 1.0, 2.0):
        exact = waits_at_most((limit - seconds) / seconds, load)
        assert of["random"].within(ttft=limit) == pytest.approx(exact, abs=0.01)


def test_an_engine_starts_with_what_waits_and_cuts_what_passes_its_budget() -> None:
    """By hand: 1,000 alone; then 3,000 and 500 wait, of which 2,000 are worked, then 1,000 and 500."""
    pool = PrefillPool(step=PrefillStep(fixed=1.0, per_token=1e-3, per_pair=1e-6), budget=2000)
    served = replay(Requests.of([1000, 3000, 500], 1, [0.0, 0.1, 0.2]), Service(prefill=pool))
    first = 1 + 1 + 1
    second = first + 1 + 2 + 4
    third = second + 1 + 1 + (9 - 4) + 0.5 + 0.25
    np.testing.assert_allclose(served.finish, [first, third, third])
    assert served.parts["prefill"].steps == 3


def test_ranks_in_step_wait_for_the_busiest() -> None:
    pool = PrefillPool(step=PrefillStep(fixed=1.0, per_token=1e-3), ranks=2)
    served = replay(Requests.of([1000, 3000, 500], 1, [0.0, 0.0, 0.0]), Service(prefill=pool))
    np.testing.assert_allclose(served.finish, [4.0, 4.0, 4.0])


def test_one_instance_holds_its_prefixes_and_works_only_the_rest() -> None:
    blocks = [[1, 2], [1, 2, 3], [1, 2, 3], [9]]
    pool = PrefillPool(step=PrefillStep(fixed=1.0, per_token=1e-3, per_pair=1e-6), cache_blocks=4)
    requests = Requests.of([1000, 1500, 1500, 400], 1, [0.0, 10.0, 20.0, 30.0], blocks, block_tokens=500)
    served = replay(requests, Service(prefill=pool))
    # the last token of a prompt that is all there is worked anew
    last = 1 + 1e-3 + 1e-6 * (1500**2 - 1499**2)
    np.testing.assert_allclose(served.ttft, [3.0, 1 + 0.5 + (2.25 - 1.0), last, 1 + 0.4 + 0.16])
    assert served.found == pytest.approx((1000 + 1499) / 4400)
    cold = replay(requests, Service(prefill=replace(pool, cache_blocks=0)))
    assert cold.ttft.sum() > served.ttft.sum()
    mixed = Service(mixed=MixedPool(prefill=pool.step, decode=DECODE, cache_blocks=4))
    assert replay(requests, mixed).found == served.found


def test_the_least_recently_used_block_goes_first() -> None:
    cache = PrefixCache(3, [[1, 2], [3], [1, 2], [4], [1, 2], [3]], 10, [20, 10, 20, 10, 20, 10])
    found = []
    for request in range(6):
        found.append(cache.lookup(request))
        cache.keep(request)
    assert found == [0, 0, 19, 0, 19, 0]


def test_affinity_sends_equal_beginnings_to_one_instance() -> None:
    blocks = [[n % 40, n] for n in range(2000)]
    pool = PrefillPool(step=PREFILL, instances=5, routing="prefix_affinity")
    served = replay(Requests.of(1000, 1, poisson(1.0, 2000, 1), blocks), Service(prefill=pool))
    homes = [set(served.instance[n::40].tolist()) for n in range(40)]
    assert all(len(home) == 1 for home in homes)
    assert len(set.union(*homes)) == 5
    shared = replace(pool, affinity_block=2)
    one = [[7, n % 40] for n in range(2000)]
    served = replay(Requests.of(1000, 1, poisson(1.0, 2000, 1), one), Service(prefill=shared))
    assert len(set(served.instance.tolist())) == 5


def test_front_ends_and_links_work_one_after_another() -> None:
    service = Service(
        prefill=PrefillPool(step=PrefillStep(fixed=0.0, per_token=1e-3)),
        decode=DecodePool(step=DecodeStep.linear(fixed=0.1, per_request=0.0)),
        front_end=FrontEnd(delay=1.0, servers=1, service_time=0.5),
        transfer=Transfer(latency=0.25, per_token=2e-3, queued=True),
    )
    served = replay(Requests.of(1000, 1, [0.0, 0.0]), service)
    np.testing.assert_allclose(served.queued, [1.5, 2.0])
    np.testing.assert_allclose(served.prefilled, [2.5, 3.5])
    np.testing.assert_allclose(served.joined, [2.5 + 2 + 0.25, 2.5 + 4 + 0.25])
    alone = replay(Requests.of(1000, 1, [0.0, 0.0]), replace(service, transfer=Transfer(per_token=2e-3)))
    np.testing.assert_allclose(alone.joined, [4.5, 5.5])


def closed(clients: int, count: int, service: Service, delay: float = 0.5, ramp: float = 0.0) -> Served:
    """Return a closed loop of equal requests."""
    isl = np.full(count, 1000)
    return replay(Requests.of(isl, 100, ClosedLoop(clients=clients, delay=delay, ramp=ramp)), service)


@pytest.mark.parametrize("service", [BOTH, MIXED])
def test_clients_of_a_closed_loop_have_one_request_each(service: Service) -> None:
    """Little's law of the clients: as many as the rate times delay and stay together."""
    clients, delay = 24, 0.5
    served = closed(clients, 3000, service, delay)
    assert served.parts["service"].mean_inside < clients
    steady = served.part(0.1, 0.9)
    rate = len(steady.arrival) / (steady.arrival.max() - steady.arrival.min())
    assert rate * (delay + steady.e2e.mean()) == pytest.approx(clients, rel=0.01)


def test_a_ramp_spreads_the_first_wave() -> None:
    served = closed(10, 40, MIXED, ramp=5.0)
    np.testing.assert_allclose(served.arrival[:10], np.arange(10) * 0.5)
    assert closed(10, 40, MIXED).arrival[:10].max() == 0.0


def test_mixed_serving_follows_its_closed_form() -> None:
    """Chunked, one rank: all work but the fixed part of a step is load, and TPOT is a over what is left."""
    count, rate, isl, osl = 4000, 0.45, 1024, 256
    step = replace(PREFILL, fixed=0.03)
    served = replay(
        Requests.of(isl, osl, poisson(rate, count, 5)), Service(mixed=MixedPool(prefill=step, decode=DECODE))
    )
    each = 6e-4 + 1.5e-7 * (isl + osl / 2)
    load = rate * (step.work(0, isl) + (osl - 1) * each)
    assert served.part(0.1).summary()["tpot"].mean == pytest.approx(0.03 / (1 - load), rel=0.05)


def test_arrivals_have_their_rate_and_spread() -> None:
    for cv in (0.5, 1.0, 3.0):
        gaps = np.diff(renewal(4.0, cv, 200_000, 1))
        assert gaps.mean() == pytest.approx(0.25, rel=0.03)
        assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03)
    np.testing.assert_allclose(renewal(4.0, 0.0, 3, 1), [0.25, 0.5, 0.75])
    np.testing.assert_allclose(stamped([3.0, 5.0, 9.0]), [0.0, 2.0, 6.0])
    np.testing.assert_allclose(stamped([3.0, 5.0, 9.0], rate=4.0), [0.0, 1 / 6, 0.5])
    spread = stamped([0.0] * 500 + [3.0] * 500, tick=3.0, seed=1)
    assert len(np.unique(spread)) == 1000
    assert spread[-1] == pytest.approx(6.0, abs=0.1)


def test_series_of_steps_are_turned_round() -> None:
    draw = np.random.default_rng(1)
    for _ in range(300):
        first, growth = draw.uniform(0.01, 1), draw.choice([0.0, 1e-12, 1e-6, 0.1])
        seconds = draw.uniform(1e-6, 500)
        steps = steps_until(seconds, first, growth)
        assert elapsed(steps, first, growth) >= seconds
        assert steps == 1 or elapsed(steps - 1, first, growth) < seconds


def test_what_was_served_is_summed_up() -> None:
    served = replay(mixture(), BOTH, seed=1)
    series = served.windows(60.0)
    assert series["requests"].sum() == 3000
    assert float(np.nansum(series["ttft"] * series["requests"])) / 3000 == pytest.approx(served.ttft.mean())
    middle = float(np.median(served.ttft))
    assert served.within(ttft=middle) == pytest.approx(0.5, abs=0.001)
    assert served.within(ttft=middle, e2e=0.0) == 0.0
    assert served.goodput(ttft=middle) == pytest.approx(served.rate / 2, rel=0.002)
    assert len(served.part(0.5).ttft) == 1500


@pytest.mark.parametrize(("tp", "dies"), [(2, 16), (4, 16)])
def test_steps_of_prefill_are_near_those_predicted(tp: int, dies: int) -> None:
    """And so is what was not fitted: 3 prompts of 3,000 tokens a rank."""
    layout = LayoutSpec(dies=dies, tp=tp, batch=3)
    case = deepseek_case(isl=3000)
    step = prefill_step(Layout.of(layout), Family.of(layout, "prefill"), case)
    assert step.worst < 0.15
    point = pool_point(Layout.of(layout), Family.of(layout, "prefill"), case)
    assert step.fixed + 3 * step.work(0, 3000) == pytest.approx(as_float(point.step_time), rel=0.1)


def test_steps_of_decode_are_those_predicted() -> None:
    layout = LayoutSpec(dies=128, tp=1, batch=30)
    case = deepseek_case()
    still = replace(case, rates=replace(case.rates, context_spread=0.0))
    step = decode_step(Layout.of(layout), Family.of(layout, "decode"), case)
    assert step.worst < 1e-6
    point = pool_point(Layout.of(layout), Family.of(layout, "decode"), still)
    assert step.time(30, 30 * (4096 + 512)) == pytest.approx(as_float(point.step_time), rel=0.01)


def test_a_table_of_steps_goes_through_its_points_and_on() -> None:
    for count, time, slope in zip(CURVED.counts, CURVED.times, CURVED.slopes, strict=True):
        assert CURVED.at(count) == pytest.approx((time, slope))
    assert CURVED.at(3) == pytest.approx((0.0235, 1.6e-7))
    assert CURVED.at(12) == pytest.approx((0.074, 1.5e-7))
    assert CURVED.at(0) == CURVED.at(1)
    assert DECODE.at(7) == pytest.approx((0.03 + 7 * 6e-4, 1.5e-7))


def test_what_cannot_be_replayed_is_said() -> None:
    with pytest.raises(UsageError, match=r"isl: 2 lengths of 3(.|\n)*arrivals"):
        Requests.of([1, 2], 5, [3.0, 2.0, 1.0])
    requests = Requests.of([500, 1000], 100, [0.0, 1.0])
    with pytest.raises(UsageError, match="give mixed instances, or prefill, decode or both"):
        replay(requests, Service())
    with pytest.raises(UsageError, match=r"cache_tokens: 1,000; a request has 1,100 tokens"):
        replay(requests, Service(decode=DecodePool(step=DECODE, cache_tokens=1000)))
    with pytest.raises(UsageError, match="needs the blocks"):
        replay(requests, Service(prefill=PrefillPool(step=PREFILL, instances=2, routing="prefix_affinity")))
    with pytest.raises(UsageError, match="all stamps are equal"):
        stamped([1.0, 1.0], rate=2.0)
