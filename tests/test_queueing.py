"""Forms of queues against plain simulations that step through time, against each other and at their limits."""

import heapq
import math
from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import sympy

from perfmodel.formulas import closed_loop, decode_queue, mixed_queue, prefill_queue, queues
from perfmodel.formulas.numeric import prefill as chain
from perfmodel.formulas.numeric import queues as series
from perfmodel.formulas.numeric import ranges

LOADS = (0.3, 0.6, 0.8)

# ------------------------------------------------------------------------------------------------------- the referee


def arrivals(dice: np.random.Generator, count: int, rate: float, cv: float) -> Any:
    """Times of arrival, with gamma gaps."""
    shape = 1 / (cv * cv)
    return np.cumsum(dice.gamma(shape, 1 / (rate * shape), count))


def fifo_waits(gaps: Any, services: Any) -> Any:
    """Waits at one server (Lindley)."""
    steps = np.concatenate([[0.0], np.cumsum(services[:-1] - gaps[1:])])
    return steps - np.minimum.accumulate(steps)


@dataclass(frozen=True)
class Step:
    """A step function: fixed time, of a sequence, of a token of context, of a token of a prompt."""

    fixed: float
    sequence: float
    context: float
    token: float = 0.0


def decode(arrive: Any, inputs: Any, outputs: Any, step: Step, ranks: int) -> Any:
    """Mean time between tokens of each request; it goes to the rank that runs fewest and joins at the next step."""
    times, ins, outs = arrive.tolist(), inputs.tolist(), outputs.tolist()
    count, context = [0] * ranks, [0.0] * ranks
    start, done = np.zeros(len(times)), np.zeros(len(times))
    ends: dict[int, list[tuple[int, int]]] = {}
    now, number, following, running = 0.0, 0, 0, 0
    while following < len(times) or running:
        if not running:
            now = max(now, times[following])
        while following < len(times) and times[following] <= now:
            rank = count.index(min(count))
            count[rank] += 1
            context[rank] += ins[following]
            start[following] = now
            ends.setdefault(number + outs[following] - 1, []).append((following, rank))
            running += 1
            following += 1
        now += step.fixed + max(step.sequence * n + step.context * c for n, c in zip(count, context, strict=True))
        number += 1
        context = [c + n for n, c in zip(count, context, strict=True)]
        for request, rank in ends.pop(number, ()):
            done[request] = now
            count[rank] -= 1
            context[rank] -= ins[request] + outs[request] - 1
            running -= 1
    return (done - start) / (outputs - 1)


def mixed(
    inputs: Any,
    outputs: Any,
    step: Step,
    budget: int,
    *,
    first: bool,
    arrive: Any = None,
    clients: int = 0,
    delay: float = 0,
) -> tuple[Any, Any, float]:
    """Times to first token, between tokens, and the longest gap of any stream; open, or closed with clients."""
    ins, outs, count = inputs.tolist(), outputs.tolist(), len(inputs)
    came, begun, done = np.zeros(count), np.zeros(count), np.zeros(count)
    future = [(0.0, n) for n in range(clients)] if clients else [(t, n) for n, t in enumerate(arrive.tolist())]
    following = len(future)
    waiting: deque[int] = deque()
    left: dict[int, int] = {}
    ends: dict[int, list[int]] = {}
    now, number, running, context, gap, longest = 0.0, 0, 0, 0.0, 0.0, 0.0
    while future or waiting or running:
        if not waiting and not running:
            now = max(now, future[0][0])
        while future and future[0][0] <= now:
            came_at, request = heapq.heappop(future)
            came[request], left[request] = came_at, ins[request]
            waiting.append(request)
        room, work, ready = budget - (0 if first else running), 0.0, []
        while waiting and room > 0:
            taken = min(room, left[waiting[0]])
            left[waiting[0]] -= taken
            room -= taken
            work += step.token * taken
            if left[waiting[0]]:
                break
            ready.append(waiting.popleft())
        decoding = running and not (first and work)
        lasts = step.fixed + work + (step.sequence * running + step.context * context if decoding else 0.0)
        now += lasts
        gap = gap + lasts if running else 0.0
        if decoding:
            longest, gap = max(longest, gap), 0.0
            number += 1
            context += running
            for request in ends.pop(number, ()):
                done[request] = now
                running -= 1
                context -= ins[request] + outs[request]
                if following < count:
                    heapq.heappush(future, (now + delay, following))
                    following += 1
        for request in ready:
            begun[request] = now
            ends.setdefault(number + outs[request] - 1, []).append(request)
            running += 1
            context += ins[request] + 1
    return begun - came, (done - begun) / (outputs - 1), longest


def prefill(arrive: Any, tokens: int, fixed: float, per_token: float, budget: int, ranks: int) -> Any:
    """Times to first token of equal prompts, each to the rank where fewest wait; whole ones fill the budget."""
    times, done = arrive.tolist(), np.zeros(len(arrive))
    waiting: list[deque[int]] = [deque() for _ in range(ranks)]
    now, following, held, turn, slots = 0.0, 0, 0, 0, budget // tokens
    while following < len(times) or held:
        if not held:
            now = max(now, times[following])
        while following < len(times) and times[following] <= now:
            rank = min(range(ranks), key=lambda r: (len(waiting[r]), (r - turn) % ranks))
            turn = (rank + 1) % ranks
            waiting[rank].append(following)
            held += 1
            following += 1
        now += fixed + per_token * tokens * min(max(map(len, waiting)), slots)
        for queue in waiting:
            for _ in range(min(len(queue), slots)):
                done[queue.popleft()] = now
                held -= 1
    return done - arrive


def quantiles(values: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in np.quantile(values, (0.5, 0.9, 0.99)))


# ------------------------------------------------------------------------------------------------------- textbooks


@pytest.mark.parametrize("load", LOADS)
def test_waits_at_one_server_by_lindley(load: float) -> None:
    dice = np.random.default_rng(1)
    gaps = dice.exponential(1 / load, 400_000)
    alike, spread = fifo_waits(gaps, np.ones(400_000)), fifo_waits(gaps, dice.gamma(0.5, 2.0, 400_000))
    assert queues.md1_wait(utilisation=load, service_time=1.0) == pytest.approx(alike.mean(), rel=0.05)
    pk = queues.mg1_wait(utilisation=load, service_time=1.0, service_scv=2.0)
    assert pk == pytest.approx(spread.mean(), rel=0.08)
    for probability in (0.9, 0.99):
        exact = series.md1_wait_percentile(utilisation=load, service_time=1.0, probability=probability)
        assert exact == pytest.approx(np.quantile(alike, probability), rel=0.06)


@pytest.mark.parametrize("load", LOADS)
def test_equal_services_by_erlangs_alternating_series(load: float) -> None:
    """The series that loses digits later is exact at short waits."""
    waits = np.array([0.0, 0.3, 1.0, 2.5, 6.2])
    erlang = [
        (1 - load)
        * math.fsum((load * (j - x)) ** j / math.factorial(j) * math.exp(-load * (j - x)) for j in range(int(x) + 1))
        for x in waits
    ]
    assert series.md1_wait_share(utilisation=load, waits=waits) == pytest.approx(erlang, rel=1e-9)


def test_the_distribution_has_the_mean() -> None:
    waits = np.linspace(0, 60, 6001)
    tail = 1 - series.md1_wait_share(utilisation=0.8, waits=waits)
    assert np.trapezoid(tail, waits) == pytest.approx(queues.md1_wait(utilisation=0.8, service_time=1.0), rel=1e-3)


@pytest.mark.parametrize("load", LOADS)
def test_textbooks_agree_where_they_meet(load: float) -> None:
    mm1 = queues.mm1_wait(utilisation=load, service_time=3.0)
    assert series.mmc_wait(servers=1, utilisation=load, service_time=3.0) == pytest.approx(mm1)
    assert queues.md1_wait(utilisation=load, service_time=3.0) == pytest.approx(mm1 / 2)
    assert queues.mg1_wait(utilisation=load, service_time=3.0, service_scv=1.0) == pytest.approx(mm1)
    whole = queues.ggc_wait(servers=1, utilisation=load, service_time=3.0, arrival_scv=1.0, service_scv=1.0)
    assert whole == pytest.approx(mm1)


@pytest.mark.parametrize(("servers", "load"), [(2, 0.6), (8, 0.8), (32, 0.9)])
def test_several_servers_by_erlangs_sum(servers: int, load: float) -> None:
    offered = servers * load
    terms = [offered**n / math.factorial(n) for n in range(servers)]
    last = offered**servers / math.factorial(servers) / (1 - load)
    waits = last / (math.fsum(terms) + last)
    assert series.erlang_c(servers=servers, utilisation=load) == pytest.approx(waits)
    exact = series.mmc_wait(servers=servers, utilisation=load, service_time=1.0)
    assert queues.slot_wait_share(servers=servers, utilisation=load) == pytest.approx(exact, rel=0.12)
    late = series.mmc_wait_percentile(servers=servers, utilisation=load, service_time=1.0, probability=1 - waits / 10)
    assert waits * math.exp(-servers * (1 - load) * late) == pytest.approx(waits / 10)


def test_more_even_gaps_by_lindley() -> None:
    """Gaps of two exponential parts, equal services: Kraemer and Langenbach-Belz."""
    dice = np.random.default_rng(2)
    waits = fifo_waits(dice.gamma(2.0, 0.5 / 0.7, 400_000), np.ones(400_000))
    form = queues.ggc_wait(servers=1, utilisation=0.7, service_time=1.0, arrival_scv=0.5, service_scv=0.0)
    assert form == pytest.approx(waits.mean(), rel=0.12)


def test_a_full_server_is_waited_for_without_end() -> None:
    for load in (1.0, 1.5):
        assert queues.mm1_wait(utilisation=load, service_time=1.0) == math.inf
        assert series.mmc_wait(servers=3, utilisation=load, service_time=1.0) == math.inf
        assert series.mmc_wait_percentile(servers=3, utilisation=load, service_time=1.0, probability=0.5) == math.inf
        assert series.md1_wait_percentile(utilisation=load, service_time=1.0, probability=0.5) == math.inf
        assert series.erlang_c(servers=3, utilisation=load) == 1.0
    assert series.md1_wait_percentile(utilisation=0.3, service_time=1.0, probability=0.5) == 0.0
    assert series.mmc_wait_percentile(servers=9, utilisation=0.1, service_time=1.0, probability=0.5) == 0.0


# ------------------------------------------------------------------------------------------------------- decode pool

DECODE = Step(36.1e-3, 0.82e-3, 202e-9)


def decode_lengths(kind: str, dice: np.random.Generator, count: int) -> tuple[Any, Any]:
    if kind == "equal":
        return np.full(count, 4096), np.full(count, 256)
    sigma = math.sqrt(math.log(2))
    drawn = [dice.lognormal(math.log(mean) - sigma * sigma / 2, sigma, count) for mean in (4096, 256)]
    return np.maximum(drawn[0], 1).astype(int), np.maximum(drawn[1], 2).astype(int)


def decode_case(inputs: Any, outputs: Any, ranks: int, cv: float) -> dict[str, float]:
    """What the forms take, of a sample of lengths."""
    i, o = inputs.astype(float), outputs.astype(float)
    context = decode_queue.running_context(
        mean_output=o.mean(), mean_input_output=(i * o).mean(), mean_square_output=(o * o).mean()
    )
    variance = decode_queue.running_context_variance(
        mean_output=o.mean(),
        mean_square_input_output=(i * i * o).mean(),
        mean_input_square_output=(i * o * o).mean(),
        mean_cube_output=(o * o * o).mean(),
        context=context,
    )
    time = DECODE.sequence + DECODE.context * context
    scv = decode_queue.sequence_scv(token_time=DECODE.context, context_variance=variance, sequence_time=time)
    return {
        "decode_tokens": o.mean() - 1,
        "fixed_time": DECODE.fixed,
        "sequence_time": time,
        "sequence_scv": scv,
        "ranks": ranks,
        "count_variance": 0.0,
    }


def decode_forms(case: dict[str, float], rate: Any, cv: float, shared_life: float) -> tuple[Any, Any]:
    met = decode_queue.requests_met(arrival_scv=cv * cv, shared_life=shared_life)
    tpot = decode_queue.decode_tpot(request_rate=rate, met=met, **case)
    return tpot, decode_queue.decode_tpot_spread(tpot=tpot, request_rate=rate, arrival_scv=cv * cv, **case)


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize(("kind", "cv"), [("equal", 1.0), ("equal", 2.0), ("lognormal", 1.0)])
@pytest.mark.parametrize("ranks", [1, 16])
def test_time_between_tokens_of_a_decode_pool(ranks: int, kind: str, cv: float, load: float) -> None:
    dice = np.random.default_rng(3)
    inputs, outputs = decode_lengths(kind, dice, 120_000)
    case = decode_case(inputs, outputs, ranks, cv)
    rate = load * ranks / (case["sequence_time"] * case["decode_tokens"])
    shared = float(np.minimum(outputs, dice.permutation(outputs)).mean() / outputs.mean())
    tpot, spread = decode_forms(case, rate, cv, shared)
    count = int(min(max(1000 * rate * case["decode_tokens"] * tpot, 20_000), len(inputs)))
    found = decode(arrivals(dice, count, rate, cv), inputs[:count], outputs[:count], DECODE, ranks)
    found = found[count // 5 : -count // 10]
    assert tpot == pytest.approx(found.mean(), rel=0.10)
    for probability, value in zip((0.9, 0.99), quantiles(found)[1:], strict=True):
        form = decode_queue.decode_tpot_percentile(
            probability=probability, fixed_time=DECODE.fixed, tpot=tpot, spread=spread
        )
        assert form == pytest.approx(value, rel=0.15)


def test_running_requests_are_length_biased() -> None:
    """Contexts met at random moments of random lives, input and output correlated."""
    dice = np.random.default_rng(4)
    outputs = dice.integers(1, 400, 3000)
    inputs = 10 * outputs + dice.integers(1, 500, 3000)
    case = decode_case(inputs, outputs, 1, 1.0)
    contexts = np.concatenate([i + np.arange(o) + 0.5 for i, o in zip(inputs, outputs, strict=True)])
    mean = (case["sequence_time"] - DECODE.sequence) / DECODE.context
    assert mean == pytest.approx(contexts.mean(), rel=1e-9)
    variance = case["sequence_scv"] * case["sequence_time"] ** 2 / DECODE.context**2
    assert variance == pytest.approx(contexts.var() + 1 / 12, rel=1e-6)


@pytest.mark.parametrize("count", [2, 16, 256])
def test_variance_of_the_largest_normal(count: int) -> None:
    largest = np.random.default_rng(5).standard_normal((20_000, count)).max(axis=1)
    assert decode_queue.largest_normal_variance(count=count) == pytest.approx(largest.var(), rel=0.27)


@pytest.mark.parametrize("ranks", [1, 16])
def test_decode_grows_with_load_to_infinity(ranks: int) -> None:
    case = decode_case(*decode_lengths("equal", np.random.default_rng(6), 10), ranks, 1.0)
    most = ranks / (case["sequence_time"] * case["decode_tokens"])
    shares = np.array([0.0, 1e-6, 0.01, 0.1, 0.3, 0.6, 0.9, 0.99, 0.9999, 1.0, 1.2])
    tpot, spread = decode_forms(case, shares * most, 1.0, 1.0)
    assert tpot[0] == pytest.approx(DECODE.fixed + case["sequence_time"], rel=1e-9), "alone: a bare step"
    assert (np.diff(tpot[:-2]) > 0).all()
    assert tpot[8] > 1000 * tpot[0]
    assert np.isinf(tpot[-2:]).all()
    assert np.isinf(spread[-2:]).all()
    late = decode_queue.decode_tpot_percentile(probability=0.9, fixed_time=DECODE.fixed, tpot=tpot, spread=spread)
    assert np.isinf(late[-2:]).all()
    assert (late[:-2] >= tpot[:-2]).all()


# ------------------------------------------------------------------------------------------------------- mixed serving

MIXED = Step(20e-3, 0.2e-3, 20e-9, 40e-6)
BUDGET = 8192


def mixed_case(inputs: Any, outputs: Any) -> dict[str, float]:
    o = outputs.astype(float)
    context = decode_queue.running_context(
        mean_output=o.mean(), mean_input_output=inputs.mean() * o.mean(), mean_square_output=(o * o).mean()
    )
    return {
        "prompt": MIXED.token * inputs.mean(),
        "scv": float(inputs.var() / inputs.mean() ** 2),
        "tokens": o.mean() - 1,
        "sequence": MIXED.sequence + MIXED.context * context,
    }


def mixed_forms(
    case: dict[str, float], inputs: Any, rate: float, *, first: bool, own: float
) -> tuple[float, float, float]:
    """Time to first token, between tokens, prompts a prefill step."""
    load = mixed_queue.mixed_load(
        request_rate=rate, prompt_time=case["prompt"], decode_tokens=case["tokens"], sequence_time=case["sequence"]
    )
    mean = inputs.mean()
    both: dict[str, Any] = {"request_rate": rate, "prompt_time": case["prompt"], "prompt_scv": case["scv"]}
    if first:
        batch = mixed_queue.prefill_batch(
            request_rate=rate,
            fixed_time=MIXED.fixed,
            prompt_time=case["prompt"],
            decode_load=rate * case["tokens"] * case["sequence"],
            slots=BUDGET / mean,
        )
        tpot = mixed_queue.prefill_first_tpot(
            request_rate=rate, fixed_time=MIXED.fixed, own_time=own, load=load, prompts_per_step=batch
        )
        ttft = mixed_queue.prefill_first_ttft(
            fixed_time=MIXED.fixed,
            tpot=tpot,
            running=rate * case["tokens"] * tpot,
            prompts_per_step=batch,
            slots=BUDGET / mean,
            arrival_scv=1.0,
            **both,
        )
        return ttft, tpot, batch
    tpot = mixed_queue.chunked_tpot(fixed_time=MIXED.fixed, own_time=own, load=load)
    running = rate * case["tokens"] * tpot
    room = max(BUDGET - running, 1) if math.isfinite(running) else BUDGET
    ttft = mixed_queue.chunked_ttft(
        tpot=tpot,
        running=running,
        chunks=float(np.ceil(inputs / room).mean()),
        slots=room / mean,
        arrival_scv=1.0,
        **both,
    )
    return ttft, tpot, 0.0


def benchmark_lengths(isl: int, osl: int, count: int, seed: int) -> tuple[Any, Any]:
    """Lengths of a benchmark's client: uniform from 0.8 of the largest."""
    dice = np.random.default_rng(seed)
    return dice.integers(int(0.8 * isl), isl + 1, count), dice.integers(int(0.8 * osl), osl + 1, count)


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("first", [False, True], ids=["chunked", "first"])
@pytest.mark.parametrize(("isl", "osl"), [(1024, 512), (4096, 512)])
def test_mixed_serving_of_open_arrivals(isl: int, osl: int, first: bool, load: float) -> None:
    inputs, outputs = benchmark_lengths(isl, osl, 12_000, 7)
    case = mixed_case(inputs, outputs)
    rate = load / (case["prompt"] + case["tokens"] * case["sequence"])
    arrive = arrivals(np.random.default_rng(8), len(inputs), rate, 1.0)
    ttft, tpot, longest = mixed(inputs, outputs, MIXED, BUDGET, first=first, arrive=arrive)
    form_ttft, form_tpot, batch = mixed_forms(case, inputs, rate, first=first, own=case["sequence"])
    assert form_tpot == pytest.approx(tpot[2000:-1000].mean(), rel=0.15)
    assert form_ttft == pytest.approx(ttft[2000:-1000].mean(), rel=0.15)
    step = form_tpot * (1 - rate * case["prompt"])
    if first:
        hole = mixed_queue.longest_prefill_hole(
            time=arrive[-1],
            request_rate=rate,
            fixed_time=MIXED.fixed,
            decode_step=step,
            prompt_time=case["prompt"],
            prompts_per_step=batch,
        )
        assert 0.4 * hole < longest < 2.5 * hole
    else:
        hole = mixed_queue.longest_chunked_hole(
            decode_step=1.5 * step, prompt_time=case["prompt"], slots=BUDGET / inputs.mean()
        )
        assert longest < hole


@pytest.mark.parametrize("clients", [8, 32, 128])
@pytest.mark.parametrize("first", [False, True], ids=["chunked", "first"])
@pytest.mark.parametrize(("isl", "osl"), [(1024, 1024), (8192, 1024)])
def test_mixed_serving_of_a_closed_benchmark(isl: int, osl: int, first: bool, clients: int) -> None:
    """Ten waves of clients; small ones several times over."""
    runs = [benchmark_lengths(isl, osl, 10 * clients, seed) for seed in range(max(64 // clients, 1))]
    found = [mixed(i, o, MIXED, BUDGET, first=first, clients=clients, delay=0.05) for i, o in runs]
    ttft, tpot = (float(np.mean([one[n].mean() for one in found])) for n in (0, 1))
    inputs, outputs = (np.concatenate([one[n] for one in runs]) for n in (0, 1))
    case = mixed_case(inputs, outputs)
    mean = inputs.mean()
    common: dict[str, Any] = {
        "clients": clients,
        "delay": 0.05,
        "fixed_time": MIXED.fixed,
        "sequence_time": case["sequence"],
        "prompt_time": case["prompt"],
        "prompt_scv": case["scv"],
        "decode_tokens": case["tokens"],
    }
    if first:
        rate = closed_loop.prefill_first_closed_rate(slots=BUDGET / mean, **common)
    else:
        room = BUDGET - clients
        rate = closed_loop.chunked_closed_rate(chunks=np.ceil(inputs / room).mean(), slots=room / mean, **common)
    steady, form_tpot, _ = mixed_forms(case, inputs, rate, first=first, own=0.0)
    wave = closed_loop.first_wave_ttft(
        clients=clients,
        fixed_time=MIXED.fixed,
        prompt_time=case["prompt"],
        sequence_time=0.0 if first else case["sequence"],
        slots=max(BUDGET / mean, 1.0),
    )
    assert form_tpot == pytest.approx(tpot, rel=0.15)
    form_ttft = closed_loop.benchmark_ttft(steady=steady, first_wave=wave, waves=10)
    assert form_ttft == pytest.approx(ttft, rel=0.15)


@pytest.mark.parametrize("first", [False, True], ids=["chunked", "first"])
def test_mixed_serving_grows_with_load_to_infinity(first: bool) -> None:
    inputs, outputs = benchmark_lengths(2048, 512, 1000, 9)
    case = mixed_case(inputs, outputs)
    most = 1 / (case["prompt"] + case["tokens"] * case["sequence"])
    found = [
        mixed_forms(case, inputs, share * most, first=first, own=case["sequence"])
        for share in (0.0, 0.1, 0.3, 0.6, 0.8, 0.9)
    ]
    assert found[0][0] == pytest.approx(MIXED.fixed + case["sequence"] + case["prompt"], rel=0.02), "alone: a step"
    assert found[0][1] == pytest.approx(MIXED.fixed + case["sequence"])
    for before, after in pairwise(found):
        assert after[0] > before[0]
        assert after[1] > before[1]
    assert mixed_forms(case, inputs, 1.01 * most, first=first, own=0.0)[:2] == (math.inf, math.inf)


def test_closed_loops_of_arrays_are_those_of_numbers() -> None:
    clients = np.array([1.0, 4.0, 64.0, 4096.0])
    common = {"delay": 0.1, "fixed_time": 0.02, "sequence_time": 3e-4, "prompt_time": 0.05, "prompt_scv": 0.1}
    for form, more in (
        (closed_loop.chunked_closed_rate, {"chunks": 1.0}),
        (closed_loop.prefill_first_closed_rate, {}),
    ):
        rates = form(clients=clients, slots=8.0, decode_tokens=500.0, **common, **more)
        assert (np.diff(rates) > 0).all()
        assert rates[-1] < 1 / (0.05 + 500 * 3e-4)
        for count, rate in zip(clients, rates, strict=True):
            one = form(clients=float(count), slots=8.0, decode_tokens=500.0, **common, **more)
            assert one == pytest.approx(rate, rel=1e-9)


# ------------------------------------------------------------------------------------------------------- prefill pool


def felt_dispersion(rate: float, step: float, scv: float, load: float) -> float:
    short = prefill_queue.renewal_dispersion(arrivals=rate * step / (1 - load), arrival_scv=scv)
    return chain.dispersion_seen(short=short, arrival_scv=scv, utilisation=load)


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("cv", [1.0, 2.0])
@pytest.mark.parametrize(
    ("ranks", "slots", "fixed", "work"), [(8, 4, 0.108, 0.49), (4, 4, 0.054, 0.44), (1, 4, 0.048, 0.19)]
)
def test_first_tokens_of_equal_prompts(
    ranks: int, slots: int, fixed: float, work: float, cv: float, load: float
) -> None:
    rate = load * ranks * slots / (fixed + work * slots)
    arrive = arrivals(np.random.default_rng(10), 30_000, rate, cv)
    found = prefill(arrive, 4096, fixed, work / 4096, 4096 * slots, ranks)[1000:]
    felt = felt_dispersion(rate, fixed + work, cv * cv, load)
    common: dict[str, Any] = {
        "request_rate": rate,
        "fixed_time": fixed,
        "prompt_time": work,
        "ranks": ranks,
        "slots": slots,
        "dispersion": felt,
    }
    times = chain.first_token_times(**common)
    median, late, latest = quantiles(found)
    assert times.percentile(0.5) == pytest.approx(median, rel=0.15)
    assert times.percentile(0.9) == pytest.approx(late, rel=0.15)
    assert times.percentile(0.99) == pytest.approx(latest, rel=0.30)
    assert times.mean() == pytest.approx(found.mean(), rel=0.15)
    moments = prefill_queue.prefill_ttft(prompt_scv=0.0, **common)
    assert moments == pytest.approx(found.mean(), rel=0.15 if cv == 1.0 and ranks > 1 else 0.30)


@pytest.mark.parametrize("load", LOADS)
def test_the_chain_of_one_rank_and_one_prompt_is_the_queue_of_equal_services(load: float) -> None:
    times = chain.first_token_times(
        request_rate=load, fixed_time=0.4, prompt_time=0.6, ranks=1, slots=1, dispersion=1.0
    )
    assert times.mean() == pytest.approx(1 + queues.md1_wait(utilisation=load, service_time=1.0), rel=2e-3)
    late = 1 + series.md1_wait_percentile(utilisation=load, service_time=1.0, probability=0.99)
    assert times.percentile(0.99) == pytest.approx(late, rel=0.02)
    form = prefill_queue.prefill_ttft(
        request_rate=load, fixed_time=0.4, prompt_time=0.6, prompt_scv=0.0, ranks=1, slots=1, dispersion=1.0
    )
    assert form == pytest.approx(1 + queues.md1_wait(utilisation=load, service_time=1.0), rel=0.02)


@pytest.mark.parametrize("ranks", [1, 8])
def test_first_tokens_come_later_with_load_to_infinity(ranks: int) -> None:
    most = ranks * 4 / (0.1 + 4 * 0.2)
    common: dict[str, Any] = {"fixed_time": 0.1, "prompt_time": 0.2, "ranks": ranks, "slots": 4, "dispersion": 1.0}
    shares = np.array([1e-9, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97, 1.0, 1.3])
    form = prefill_queue.prefill_ttft(request_rate=shares * most, prompt_scv=0.0, **common)
    assert form[0] == pytest.approx(0.3, rel=1e-6)
    assert (np.diff(form[:-2]) > 0).all()
    assert np.isinf(form[-2:]).all()
    means = [chain.first_token_times(request_rate=float(x) * most, **common).mean() for x in shares]
    assert means[0] == pytest.approx(0.3, rel=1e-6)
    assert (np.diff(means[:-2]) > 0).all()
    assert means[-2:] == [math.inf, math.inf]
    assert chain.first_token_times(request_rate=2 * most, **common).percentile(0.5) == math.inf


def test_a_chain_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="replay the requests"):
        chain.first_token_times(request_rate=100.0, fixed_time=0.1, prompt_time=0.1, ranks=64, slots=64, dispersion=1.0)


@pytest.mark.parametrize("dispersion", [0.25, 1.0, 4.0])
def test_counts_have_their_mean_and_dispersion(dispersion: float) -> None:
    """Below one the window starts anywhere between two arrivals, which adds to the variance (Cox 1962)."""
    phase = max(1 - dispersion * dispersion, 0.0) / 6 / 6.0
    chances = chain.counts(mean=6.0, dispersion=dispersion, size=200)
    number = np.arange(200)
    mean = chances @ number
    assert chances.sum() == pytest.approx(1)
    assert mean == pytest.approx(6.0, rel=1e-6)
    assert (chances @ (number - mean) ** 2) / mean == pytest.approx(dispersion + phase, rel=1e-3)


def test_dispersion_of_a_window_counted() -> None:
    times = arrivals(np.random.default_rng(11), 400_000, 1.0, 2.0)
    for window in (0.5, 3.0, 20.0):
        counted = np.bincount((times / window).astype(int))
        form = prefill_queue.renewal_dispersion(arrivals=window, arrival_scv=4.0)
        assert form == pytest.approx(counted.var() / counted.mean(), rel=0.20)


def test_capacity_of_ranks_in_step_by_saturated_steps() -> None:
    """Spread lengths: the fullest of four ranks holds the others up."""
    dice = np.random.default_rng(12)
    lengths = np.maximum(dice.lognormal(7.6, 0.8, 40_000), 1.0)
    work = 1e-4 * lengths + 1e-8 * lengths**2
    form = chain.pool_capacity(lengths=lengths, work=work, fixed_time=0.1, ranks=4, instances=1, budget=8192.0)
    cuts = np.interp(
        np.arange(0, lengths.sum(), 8192.0),
        np.concatenate([[0], lengths.cumsum()]),
        np.concatenate([[0], work.cumsum()]),
    )
    chunks = dice.permutation(np.diff(cuts))
    steps = chunks[: len(chunks) // 4 * 4].reshape(-1, 4).max(axis=1) + 0.1
    assert form == pytest.approx(len(lengths) / steps.sum(), rel=0.03)
    even = 4 * 8192.0 / lengths.mean() / (0.1 + work.sum() / lengths.sum() * 8192.0)
    assert form < even


# ------------------------------------------------------------------------------------------------ kinds of numbers

FORMS: list[tuple[Any, dict[str, float]]] = [
    (queues.mm1_wait, {"utilisation": 0.6, "service_time": 2.0}),
    (queues.md1_wait, {"utilisation": 0.6, "service_time": 2.0}),
    (queues.mg1_wait, {"utilisation": 0.6, "service_time": 2.0, "service_scv": 3.0}),
    (
        queues.ggc_wait,
        {"servers": 4.0, "utilisation": 0.6, "service_time": 2.0, "arrival_scv": 0.5, "service_scv": 0.7},
    ),
    (
        decode_queue.decode_tpot,
        {
            "request_rate": 3.0,
            "decode_tokens": 500.0,
            "fixed_time": 0.02,
            "sequence_time": 1e-3,
            "sequence_scv": 0.3,
            "ranks": 4.0,
            "met": 1.5,
            "count_variance": 0.2,
        },
    ),
    (
        mixed_queue.chunked_ttft,
        {
            "request_rate": 2.0,
            "tpot": 0.03,
            "running": 20.0,
            "prompt_time": 0.05,
            "prompt_scv": 0.2,
            "chunks": 1.0,
            "slots": 8.0,
            "arrival_scv": 1.0,
        },
    ),
    (mixed_queue.chunked_tpot, {"fixed_time": 0.02, "own_time": 1e-3, "load": 0.6}),
    (
        mixed_queue.prefill_first_tpot,
        {"request_rate": 3.0, "fixed_time": 0.02, "own_time": 1e-3, "load": 0.6, "prompts_per_step": 1.2},
    ),
    (
        closed_loop.first_wave_ttft,
        {"clients": 64.0, "fixed_time": 0.02, "prompt_time": 0.05, "sequence_time": 1e-3, "slots": 8.0},
    ),
    (prefill_queue.renewal_dispersion, {"arrivals": 3.0, "arrival_scv": 4.0}),
]


@pytest.mark.parametrize(("form", "values"), FORMS, ids=lambda x: getattr(x, "__name__", ""))
def test_symbols_numbers_and_arrays_agree(form: Any, values: dict[str, float]) -> None:
    number = form(**values)
    array = form(**{name: np.array([value, value]) for name, value in values.items()})
    assert array == pytest.approx([number, number], rel=1e-12)
    symbols = {name: sympy.Symbol(name, positive=True) for name in values}
    closed = form(**symbols)
    assert float(closed.subs({symbols[n]: sympy.Float(v) for n, v in values.items()})) == pytest.approx(number)


def test_arrays_of_plans_are_cheap() -> None:
    """Every plan is asked; a hundredfold of the aim would show."""
    from time import perf_counter

    rates = np.linspace(0.0, 3.0, 200_000)
    begun = perf_counter()
    decode_queue.decode_tpot(
        request_rate=rates,
        decode_tokens=500.0,
        fixed_time=0.02,
        sequence_time=1e-3,
        sequence_scv=0.3,
        ranks=4,
        met=1.0,
        count_variance=0.0,
    )
    assert (perf_counter() - begun) / len(rates) < 5e-6


# ------------------------------------------------------------------------------------------------ where forms end


def test_what_lies_out_of_range_is_told() -> None:
    plain: dict[str, Any] = {
        "load": 0.5,
        "peak_load": 0.6,
        "ranks": 8,
        "instances": 4,
        "work_scv": 0.0,
        "long_prompts": 0.0,
        "slots": 4.0,
        "arrival_cv": 1.0,
        "least_work": False,
    }
    assert ranges.prefill_out_of_range(**plain) == ()
    for change, words in (
        ({"load": 1.2}, "without end"),
        ({"load": 0.97}, "near capacity"),
        ({"peak_load": 1.3}, "busiest window"),
        ({"work_scv": 2.0}, "p99"),
        ({"work_scv": 0.5}, "equal ones alone"),
        ({"long_prompts": 0.1}, "10 % of prompts"),
        ({"slots": 0.5}, "more than a step"),
        ({"slots": 1.4}, "1.40 prompts"),
        ({"arrival_cv": 5.0}, "tested to 4"),
        ({"ranks": 1, "instances": 1, "arrival_cv": 4.0, "load": 0.8}, "bursts on one rank"),
        ({"ranks": 1}, "in turn"),
        ({"least_work": True, "work_scv": 2.0}, "least outstanding"),
        ({"least_work": True, "ranks": 1, "arrival_cv": 2.0}, "least outstanding"),
    ):
        assert any(words in reason for reason in ranges.prefill_out_of_range(**(plain | change))), change
    steady: dict[str, Any] = {"load": 0.5, "peak_load": 0.5, "arrival_cv": 1.0, "ranks": 16}
    pool: dict[str, Any] = steady | {"sequence_scv": 0.9, "waits_for_slots": True, "drafts": True}
    assert len(ranges.decode_out_of_range(**(pool | {"arrival_cv": 5.0}))) == 4
    assert len(ranges.decode_out_of_range(**(pool | {"arrival_cv": 3.0, "ranks": 1}))) == 3
    told = ranges.mixed_out_of_range(
        **(steady | {"arrival_cv": 2.0}), long_prompts=0.5, percentiles=True, waves=1.0, one_cycle=True
    )
    assert len(told) == 6
