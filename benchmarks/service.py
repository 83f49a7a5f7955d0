"""Closed forms of waiting held against a replay of the same requests, with step times that are predicted.

    python benchmarks/service.py [--only decode,mixed,closed,capacity,moments] [--into docs/service.md]

prints each table, and with --into keeps it in that page.  MOEPLAN_TRACES names a folder with public traces, which are
then cases too.  One core, some minutes.
"""

import argparse
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from perfmodel.algebra import as_float
from perfmodel.files.catalog import load_model
from perfmodel.files.machines import load_machine
from perfmodel.files.workloads import load_workload
from perfmodel.formulas import closed_loop, decode_queue, mixed_queue, prefill_queue
from perfmodel.formulas.numeric import prefill as chain
from perfmodel.formulas.numeric import ranges
from perfmodel.ledger.records import Layout
from perfmodel.prediction.scenario import Resolved, of_conditions, resolve
from perfmodel.service.arrivals import ClosedLoop, at_once, renewal, stamped
from perfmodel.service.fits import decode_step, prefill_step
from perfmodel.service.records import DecodePool, MixedPool, PrefillPool, Requests, Service
from perfmodel.service.replay import replay
from perfmodel.service.steps import DecodeStep, PrefillStep
from perfmodel.specs.conditions import Conditions
from perfmodel.specs.workload import Workload, lognormal

Floats = NDArray[np.float64]
Placing = Literal["least_requests", "in_turn"]
REQUESTS = 60_000
MOST = 700_000  # where a run of so many would be shorter than LIVES lives of a request
#: a pool forgets how it began in lives / (1 - load): left out at the start, and measured
FILLING, LIVES = 3.5, 4.0
SEEDS = (1, 2)
LOADS = (0.3, 0.6, 0.8)
MODEL = "deepseek-v3"
#: name -> system, dies, tp
DECODE = {
    "CloudMatrix384 EP128": ("cloudmatrix384", 128, 1),
    "A3 EP32": ("atlas-800t-a3", 32, 1),
    "A3 dp4 tp4": ("atlas-800t-a3", 16, 4),
}
PREFILL = {
    "CloudMatrix384 dp8 tp2": ("cloudmatrix384", 16, 2),
    "A3 dp4 tp4": ("atlas-800t-a3", 16, 4),
    "A3 tp16": ("atlas-800t-a3", 16, 16),
}
TRACES = {"azure": "azure_2023_conv.csv", "mooncake": "mooncake_conversation.jsonl"}
#: what must hold: relative error, and of how many cases
BARS = {
    "decode TPOT mean": (0.10, 0.95),
    "decode TPOT p90": (0.15, 0.95),
    "decode TPOT p99": (0.15, 0.95),
    "mixed TPOT, open": (0.15, 0.90),
    "mixed mean TTFT, open": (0.15, 0.90),
    "mixed TPOT, closed": (0.15, 0.90),
    "mixed mean TTFT, closed": (0.15, 0.90),
    "prefill capacity": (0.04, 1.0),
    "prefill mean TTFT, moments": (0.15, 0.95),
}
PARTS = ("decode", "mixed", "closed", "capacity", "moments")
BUDGET = 8192  # tokens of a rank in a mixed step
PREFILL_BUDGET = 16384  # in a step of prefill alone
INSTANCES = 4  # of a prefill pool


@dataclass(frozen=True, slots=True)
class Case:
    """One quantity of one run: what a form says, what the replay does, and why the form says that it does not hold."""

    quantity: str
    row: tuple[str, ...]
    column: str
    form: float
    replayed: float
    reasons: tuple[str, ...]

    @property
    def error(self) -> float:
        """Relative error of the form."""
        return self.form / self.replayed - 1

    @property
    def held(self) -> bool:
        """Whether the form is within its bar."""
        return abs(self.error) <= BARS[self.quantity][0]


# ------------------------------------------------------------------------------------------------------- what is run


@cache
def resolved(phase: Literal["prefill", "decode"], system: str, dies: int, tp: int) -> Resolved:
    """Return a layout of the model, no drafts and no overlap."""
    machine, _ = load_machine(system, None, ())
    conditions = Conditions(
        system=system,
        model=MODEL,
        stack=machine.stack.spec.name,
        isl=4096,
        osl=512,
        phase=phase,
        layout={"dies": dies, "tp": tp, "batch": 1},
    )
    return resolve(of_conditions(conditions, load_model(MODEL).spec, machine.rates()))


@cache
def decode_of(system: str, dies: int, tp: int) -> tuple[DecodeStep, int]:
    """Return the step of a decode instance and its ranks."""
    found = resolved("decode", system, dies, tp)
    layout = Layout.of(found.plan.layout)
    return decode_step(layout, found.plan.family, found.scenario.case), int(as_float(layout.ranks))


@cache
def prefill_of(system: str, dies: int, tp: int) -> tuple[PrefillStep, int]:
    """Return the step of a prefill instance and its ranks."""
    found = resolved("prefill", system, dies, tp)
    layout = Layout.of(found.plan.layout)
    return prefill_step(layout, found.plan.family, found.scenario.case), int(as_float(layout.ranks))


@cache
def trace(name: str) -> Workload | None:
    """Return a public trace, where the folder of them is named."""
    folder = os.environ.get("MOEPLAN_TRACES")
    return None if not folder else load_workload(Path(folder) / TRACES[name])


def traces() -> list[str]:
    """Return the names of the traces at hand."""
    return [name for name in TRACES if trace(name) is not None]


def lengths(kind: str, count: int, seed: int, isl: int = 4096, osl: int = 512, start: int = 0) -> tuple[Any, Any]:
    """Return lengths: equal, lognormal and correlated, of a benchmark's client, or of a trace from a request on."""
    if kind == "equal":
        return np.full(count, isl), np.full(count, osl)
    if kind == "lognormal":
        found = lognormal(isl, 1.0, osl, 1.0, correlation=0.5, requests=count, seed=seed)
        return found.isl, found.osl
    if kind == "benchmark":
        dice = np.random.default_rng(seed)
        return dice.integers(int(0.8 * isl), isl + 1, count), dice.integers(int(0.8 * osl), osl + 1, count)
    known = trace(kind)
    assert known is not None
    at = (start + np.arange(count)) % known.requests
    return known.isl[at], known.osl[at]


def arrivals(kind: str, cv: float, rate: float, count: int, seed: int) -> tuple[Floats, float, float]:
    """Return arrivals at a rate, the CV of their gaps, and the busiest tenth of a trace over its mean."""
    if kind not in TRACES:
        return renewal(rate, cv, count, 1000 + seed), cv, 1.0
    known = trace(kind)
    assert known is not None
    assert known.arrivals is not None
    stamps = known.arrivals
    times, at = divmod(np.arange(count), known.requests)
    span = float(stamps[-1]) * known.requests / (known.requests - 1)
    work = np.bincount(np.minimum((10 * stamps / span).astype(int), 9), weights=known.osl.astype(float), minlength=10)
    gaps = np.diff(stamps)
    return stamped(stamps[at] + times * span, rate), float(gaps.std() / gaps.mean()), float(work.max() / work.mean())


# ------------------------------------------------------------------------------------------------------- decode


@dataclass(frozen=True, slots=True)
class Moments:
    """What forms ask of lengths."""

    tokens: float
    context: float
    variance: float
    shared: float
    even: float

    @staticmethod
    def of(isl: Any, osl: Any, seed: int) -> "Moments":
        """Return those of a sample."""
        i, o = isl.astype(float), osl.astype(float)
        context = as_float(
            decode_queue.running_context(
                mean_output=o.mean(), mean_input_output=(i * o).mean(), mean_square_output=(o * o).mean()
            )
        )
        variance = as_float(
            decode_queue.running_context_variance(
                mean_output=o.mean(),
                mean_square_input_output=(i * i * o).mean(),
                mean_input_square_output=(i * o * o).mean(),
                mean_cube_output=(o * o * o).mean(),
                context=context,
            )
        )
        shared = float(np.minimum(o, np.random.default_rng(seed).permutation(o)).mean() / o.mean())
        # the integral of the square of the survival is the mean of the smaller of two
        return Moments(float(o.mean() - 1), context, variance, shared, 1 - shared)


def line_of(step: DecodeStep, running: float, context: float) -> tuple[float, float, float]:
    """Return the step as a + e n, right at so many requests of a rank and as steep as about them; and d of a token."""
    here = max(running, 1.0)
    low, high = max(0.75 * here, 1.0), max(1.25 * here, 2.0)
    sequence = (step.time(high, high * context) - step.time(low, low * context)) / (high - low)
    return max(step.time(here, here * context) - sequence * here, 1e-6), sequence, step.at(here)[1]


def steepness(step: DecodeStep, context: float) -> float:
    """Return the seconds of one more request where many run: what load is told by."""
    few, many = 32, 128
    return (step.time(many, many * context) - step.time(few, few * context)) / (many - few)


@dataclass(frozen=True, slots=True)
class DecodeForm:
    """What the forms of decode take of an instance, its load and lengths."""

    step: DecodeStep
    ranks: int
    rate: float
    cv: float
    found: Moments
    placing: Placing

    def about(self, running: float) -> tuple[float, dict[str, Any]]:
        """Return the mean TPOT with the step as it is about so many requests of a rank, and what that was said of."""
        found = self.found
        fixed, sequence, token = line_of(self.step, running, found.context)
        scv = decode_queue.sequence_scv(token_time=token, context_variance=found.variance, sequence_time=sequence)
        common: dict[str, Any] = {
            "request_rate": self.rate,
            "decode_tokens": found.tokens,
            "fixed_time": fixed,
            "sequence_time": sequence,
            "sequence_scv": as_float(scv),
            "ranks": self.ranks,
            "count_variance": 0.0 if self.placing == "least_requests" else found.even,
        }
        met = decode_queue.requests_met(arrival_scv=self.cv * self.cv, shared_life=found.shared)
        return as_float(decode_queue.decode_tpot(met=met, **common)), common

    def running(self) -> float:
        """Return the requests of a rank that run: the fewest that the step about them brings forth."""

        def more(running: float) -> bool:
            return self.rate * self.found.tokens * self.about(running)[0] / self.ranks > running

        grid = np.geomspace(0.05, 4000, 240)
        at = next((n for n, one in enumerate(grid) if not more(float(one))), None)
        if not at:
            return float(grid[0] if at == 0 else grid[-1])
        low, high = float(grid[at - 1]), float(grid[at])
        for _ in range(20):
            middle = (low + high) / 2
            low, high = (middle, high) if more(middle) else (low, middle)
        return high

    def said(self) -> tuple[dict[str, float], float, float]:
        """Return the mean, p90 and p99 that the forms say, the load and the squared variation of a sequence's time."""
        mean, common = self.about(self.running())
        spread = decode_queue.decode_tpot_spread(tpot=mean, arrival_scv=self.cv * self.cv, **common)
        result = {"mean": mean} | {
            word: as_float(
                decode_queue.decode_tpot_percentile(
                    probability=p, fixed_time=common["fixed_time"], tpot=mean, spread=spread
                )
            )
            for word, p in (("p90", 0.9), ("p99", 0.99))
        }
        load = self.rate * self.found.tokens * common["sequence_time"] / self.ranks
        return result, load, common["sequence_scv"]


def decode_cases() -> Iterator[Case]:
    """Yield the decode pool, one instance of each deployment."""
    kinds = [("Poisson, equal", "equal", 1.0), ("CV 2, equal", "equal", 2.0), ("CV 4, equal", "equal", 4.0)]
    kinds += [("Poisson, lognormal", "lognormal", 1.0), *((name, name, 1.0) for name in traces())]
    for name, layout in DECODE.items():
        step, ranks = decode_of(*layout)
        for words, kind, cv in kinds:
            for load in LOADS:
                for seed in SEEDS:
                    about = Moments.of(*lengths(kind, 20_000, seed), seed)
                    rate = load * ranks / (steepness(step, about.context) * about.tokens)
                    inside = ranks * DecodeForm(step, ranks, rate, cv, about, "least_requests").running()
                    filling = min(FILLING / (1 - load), MOST / inside - LIVES) * inside
                    count = int(min(max(filling + LIVES * inside, REQUESTS), MOST))
                    isl, osl = lengths(kind, count, seed)
                    found = Moments.of(isl, osl, seed)
                    times, gaps, peak = arrivals(kind, cv, rate, count, seed)
                    for placing in ("least_requests", "in_turn"):
                        pool = DecodePool(step=step, ranks=ranks, placing=placing)
                        served = replay(Requests.of(isl, osl, times), Service(decode=pool), seed)
                        kept = served.part(max(filling / count, 0.1), 1 - inside / count / 2)
                        tpot = kept.tpot[~np.isnan(kept.tpot)]
                        form, used, scv = DecodeForm(step, ranks, rate, gaps, found, placing).said()
                        reasons = ranges.decode_out_of_range(
                            load=used,
                            peak_load=used * peak,
                            ranks=ranks,
                            arrival_cv=gaps,
                            sequence_scv=scv,
                            waits_for_slots=False,
                            drafts=False,
                        )
                        p90, p99 = np.percentile(tpot, (90, 99))
                        for word, value in (("mean", tpot.mean()), ("p90", p90), ("p99", p99)):
                            row = (name, words, placing.replace("_", " "))
                            yield Case(f"decode TPOT {word}", row, f"load {load}", form[word], float(value), reasons)


# ------------------------------------------------------------------------------------------------------- mixed


@dataclass(frozen=True, slots=True)
class MixedForm:
    """What the forms of mixed serving take of an engine of one rank and of lengths."""

    prefill: PrefillStep
    decode: DecodeStep
    isl: Any
    osl: Any
    first: bool

    @property
    def prompt(self) -> Floats:
        """Seconds of each prompt's work."""
        length = self.isl.astype(float)
        return self.prefill.per_token * length + self.prefill.per_pair * length * length

    def common(self, running: float) -> dict[str, float]:
        """Return fixed time, prompt's time and spread, tokens, and a sequence's time about so many requests."""
        context = as_float(
            decode_queue.running_context(
                mean_output=self.osl.mean(),
                mean_input_output=(self.isl.astype(float) * self.osl).mean(),
                mean_square_output=(self.osl.astype(float) ** 2).mean(),
            )
        )
        fixed, sequence, _ = line_of(self.decode, running, context)
        work = self.prompt
        return {
            "fixed": fixed,
            "sequence": sequence,
            "prompt": float(work.mean()),
            "scv": float(work.var() / work.mean() ** 2),
            "tokens": float(self.osl.mean() - 1),
            # what a step with prompts has more than one of decode alone: the forms know one fixed time
            "more": self.prefill.fixed - fixed if self.first else max(self.prefill.fixed - self.decode.fixed, 0.0),
        }

    def batch(self, rate: float, prompt: float, tpot: float, about: dict[str, float]) -> float:
        """Return the prompts of a step that has any."""
        if self.first:
            batch = mixed_queue.prefill_batch(
                request_rate=rate,
                fixed_time=about["fixed"],
                prompt_time=prompt,
                decode_load=rate * about["tokens"] * about["sequence"],
                slots=BUDGET / float(self.isl.mean()),
            )
            return as_float(batch)
        come = rate * tpot
        return come / -math.expm1(-come) if 0 < come < math.inf else 1.0

    def open(self, rate: float) -> tuple[float, float, float]:
        """Return TTFT and TPOT at a rate, and the load: at the fewest running requests that bring themselves forth."""
        grid = np.geomspace(0.05, 4000, 120)
        for running in grid.tolist():
            ttft, tpot, load, _ = self.at(rate, True, running)
            if rate * self.common(running)["tokens"] * tpot <= running:
                return ttft, tpot, load
        return math.inf, math.inf, load

    def at(self, rate: float, own: bool, running: float) -> tuple[float, float, float, float]:
        """Return TTFT and TPOT at a rate, the load, and a prompt's time with its part of what its step has more.

        ``running`` are the requests about which the step is taken as a line.
        """
        ttft = tpot = math.inf
        load, prompt = 0.0, 0.0
        batch = max(BUDGET / float(self.isl.mean()), 1.0)  # from above: full steps share most
        about = self.common(running)
        mean = float(self.isl.mean())
        own_time = about["sequence"] if own else 0.0
        for _ in range(12):
            prompt = about["prompt"] + about["more"] / batch
            load = as_float(
                mixed_queue.mixed_load(
                    request_rate=rate,
                    prompt_time=prompt,
                    decode_tokens=about["tokens"],
                    sequence_time=about["sequence"],
                )
            )
            if self.first:
                batch = self.batch(rate, prompt, 0.0, about)
                continue
            tpot = as_float(mixed_queue.chunked_tpot(fixed_time=about["fixed"], own_time=own_time, load=load))
            batch = self.batch(rate, prompt, tpot, about)
        both: dict[str, Any] = {"request_rate": rate, "prompt_time": prompt, "prompt_scv": about["scv"]}
        if self.first:
            tpot = as_float(
                mixed_queue.prefill_first_tpot(
                    request_rate=rate,
                    fixed_time=about["fixed"],
                    own_time=own_time,
                    load=load,
                    prompts_per_step=batch,
                )
            )
            inside = rate * about["tokens"] * tpot
            ttft = as_float(
                mixed_queue.prefill_first_ttft(
                    fixed_time=about["fixed"],
                    tpot=tpot,
                    running=inside,
                    prompts_per_step=batch,
                    slots=BUDGET / mean,
                    arrival_scv=1.0,
                    **both,
                )
            )
        else:
            inside = rate * about["tokens"] * tpot
            room = max(BUDGET - inside, 1.0) if math.isfinite(inside) else float(BUDGET)
            ttft = as_float(
                mixed_queue.chunked_ttft(
                    tpot=tpot,
                    running=inside,
                    chunks=float(np.ceil(self.isl / room).mean()),
                    slots=room / mean,
                    arrival_scv=1.0,
                    **both,
                )
            )
        return ttft, tpot, load, prompt

    def closed(self, clients: int) -> tuple[float, float]:
        """Return mean TTFT, first wave included, and TPOT of ten waves."""
        about = self.common(float(clients))
        slots = BUDGET / float(self.isl.mean())
        common: dict[str, Any] = {
            "clients": clients,
            "delay": 0.0,
            "fixed_time": about["fixed"],
            "sequence_time": about["sequence"],
            "prompt_scv": about["scv"],
            "decode_tokens": about["tokens"],
        }
        prompt, steady, tpot = about["prompt"] + about["more"] / max(slots, 1.0), math.inf, math.inf
        for _ in range(8):  # prompts share what their step has more, the more of them the higher the rate
            if self.first:
                rate = closed_loop.prefill_first_closed_rate(slots=slots, prompt_time=prompt, **common)
            else:
                room = max(BUDGET - clients, 1)
                rate = closed_loop.chunked_closed_rate(
                    chunks=float(np.ceil(self.isl / room).mean()),
                    slots=room / float(self.isl.mean()),
                    prompt_time=prompt,
                    **common,
                )
            steady, tpot, _, shared = self.at(as_float(rate), False, float(clients))
            prompt += (shared - prompt) / 2
        wave = closed_loop.first_wave_ttft(
            clients=clients,
            fixed_time=self.prefill.fixed if self.first else about["fixed"] + about["more"],
            prompt_time=about["prompt"],
            sequence_time=0.0 if self.first else about["sequence"],
            slots=max(slots, 1.0),
        )
        return as_float(closed_loop.benchmark_ttft(steady=steady, first_wave=wave, waves=10)), tpot


ENGINE = ("atlas-800t-a3", 16, 16)
PAIRS = ((1024, 1024), (4096, 512), (8192, 1024))


def mixed_kinds() -> list[tuple[str, str, int, int]]:
    """Return lengths of mixed cases."""
    return [*((f"{i}/{o}", "benchmark", i, o) for i, o in PAIRS), *((t, t, 0, 0) for t in traces() if t == "azure")]


def mixed_cases() -> Iterator[Case]:
    """Yield one engine of one rank, open arrivals."""
    prefill, decode = prefill_of(*ENGINE)[0], decode_of(*ENGINE)[0]
    for words, kind, i, o in mixed_kinds():
        for first in (False, True):
            for load in LOADS:
                for seed in SEEDS:
                    isl, osl = lengths(kind, REQUESTS, seed, i, o)
                    form = MixedForm(prefill, decode, isl, osl, first)
                    about = form.common(16.0)
                    sequence = steepness(decode, Moments.of(isl, osl, seed).context)
                    rate = load / (about["prompt"] + about["tokens"] * sequence)
                    times, gaps, peak = arrivals(kind, 1.0, rate, REQUESTS, seed)
                    pool = MixedPool(
                        prefill=prefill, decode=decode, budget=BUDGET, mode="prefill_first" if first else "chunked"
                    )
                    served = replay(Requests.of(isl, osl, times), Service(mixed=pool), seed).part(0.1, 0.95)
                    ttft, tpot, used = form.open(rate)
                    reasons = ranges.mixed_out_of_range(
                        load=used,
                        peak_load=used * peak,
                        arrival_cv=1.0 if kind == "benchmark" else gaps,
                        ranks=1,
                        long_prompts=float((isl > BUDGET).mean()),
                        percentiles=False,
                        waves=math.inf,
                        one_cycle=False,
                    )
                    row = ("prefill first" if first else "chunked", words)
                    for name, value, said in (("TPOT", served.tpot, tpot), ("mean TTFT", served.ttft, ttft)):
                        yield Case(f"mixed {name}, open", row, f"load {load}", said, float(np.nanmean(value)), reasons)


def closed_cases() -> Iterator[Case]:
    """Yield the same engine under clients of a closed loop: ten waves, all at once first."""
    prefill, decode = prefill_of(*ENGINE)[0], decode_of(*ENGINE)[0]
    for words, kind, i, o in mixed_kinds():
        for first in (False, True):
            for clients in (8, 32, 128, 512):
                for seed in SEEDS:
                    runs = []
                    for run in range(max(64 // clients, 1)):
                        isl, osl = lengths(kind, 10 * clients, 100 * seed + run, i, o, start=7919 * seed + 631 * run)
                        pool = MixedPool(
                            prefill=prefill, decode=decode, budget=BUDGET, mode="prefill_first" if first else "chunked"
                        )
                        loop = ClosedLoop(clients=clients)
                        runs.append((isl, osl, replay(Requests.of(isl, osl, loop), Service(mixed=pool), seed)))
                    isl, osl = (np.concatenate([one[n] for one in runs]) for n in (0, 1))
                    ttft, tpot = MixedForm(prefill, decode, isl, osl, first).closed(clients)
                    reasons = ranges.mixed_out_of_range(
                        load=0.5,
                        peak_load=0.5,
                        arrival_cv=1.0,
                        ranks=1,
                        long_prompts=float((isl > BUDGET).mean()),
                        percentiles=False,
                        waves=10,
                        one_cycle=False,
                    )
                    row = ("prefill first" if first else "chunked", words)
                    waits = {
                        "TPOT": (tpot, [one[2].tpot for one in runs]),
                        "mean TTFT": (ttft, [one[2].ttft for one in runs]),
                    }
                    for name, (said, values) in waits.items():
                        mean = float(np.nanmean(np.concatenate(values)))
                        yield Case(f"mixed {name}, closed", row, f"{clients} clients", said, mean, reasons)


# ------------------------------------------------------------------------------------------------------- prefill


def capacity_cases() -> Iterator[Case]:
    """Yield saturated prefill pools."""
    for name, layout in PREFILL.items():
        step, ranks = prefill_of(*layout)
        for kind in ("equal", "lognormal", *traces()):
            for seed in SEEDS:
                isl, _ = lengths(kind, REQUESTS, seed)
                pool = PrefillPool(step=step, ranks=ranks, instances=INSTANCES, budget=PREFILL_BUDGET)
                served = replay(Requests.of(isl, 1, at_once(REQUESTS)), Service(prefill=pool), seed)
                ends = np.sort(served.first)
                low, high = int(0.1 * REQUESTS), int(0.7 * REQUESTS)
                rate = (high - low) / float(ends[high] - ends[low])
                form = chain.pool_capacity(
                    lengths=isl.astype(float),
                    work=step.per_token * isl + step.per_pair * isl.astype(float) ** 2,
                    fixed_time=step.fixed,
                    ranks=ranks,
                    instances=INSTANCES,
                    budget=PREFILL_BUDGET,
                )
                yield Case("prefill capacity", (name,), kind, form, rate, ())


def moment_cases() -> Iterator[Case]:
    """Yield mean first tokens of equal prompts by moments."""
    for name, layout in PREFILL.items():
        step, ranks = prefill_of(*layout)
        for routing in ("round_robin", "random"):
            for cv in (1.0, 2.0, 4.0):
                for load in LOADS:
                    for seed in SEEDS:
                        isl, _ = lengths("equal", REQUESTS, seed)
                        work, slots = step.work(0, 4096), PREFILL_BUDGET // 4096
                        each = load * ranks * slots / (step.fixed + work * slots)
                        times = renewal(each * INSTANCES, cv, REQUESTS, 1000 + seed)
                        pool = PrefillPool(
                            step=step, ranks=ranks, instances=INSTANCES, budget=PREFILL_BUDGET, routing=routing
                        )
                        served = replay(Requests.of(isl, 1, times), Service(prefill=pool), seed).part(0.05)
                        scv = cv * cv / INSTANCES if routing == "round_robin" else 1 + (cv * cv - 1) / INSTANCES
                        short = prefill_queue.renewal_dispersion(
                            arrivals=each * (step.fixed + work) / (1 - load), arrival_scv=scv
                        )
                        felt = chain.dispersion_seen(short=as_float(short), arrival_scv=scv, utilisation=load)
                        form = prefill_queue.prefill_ttft(
                            request_rate=each,
                            fixed_time=step.fixed,
                            prompt_time=work,
                            prompt_scv=0.0,
                            ranks=ranks,
                            slots=slots,
                            dispersion=felt,
                        )
                        reasons = ranges.prefill_out_of_range(
                            load=load,
                            peak_load=load,
                            ranks=ranks,
                            instances=INSTANCES if routing == "round_robin" else 1,  # at random each is one of its own
                            work_scv=0.0,
                            long_prompts=0.0,
                            slots=float(slots),
                            arrival_cv=cv if routing == "round_robin" else math.sqrt(scv),
                            least_work=False,
                        )
                        row = (name, "Poisson" if cv == 1 else f"CV {cv:g}", routing.replace("_", " "))
                        mean = float(served.ttft.mean())
                        column = f"load {load}"
                        yield Case("prefill mean TTFT, moments", row, column, as_float(form), mean, reasons)


# ------------------------------------------------------------------------------------------------------- tables

Maker = Callable[[], Iterator[Case]]
MAKERS: dict[str, Maker] = {
    "decode": decode_cases,
    "mixed": mixed_cases,
    "closed": closed_cases,
    "capacity": capacity_cases,
    "moments": moment_cases,
}
ROW_WORDS = {
    "decode": ("instance", "arrivals, lengths", "over ranks"),
    "mixed": ("mode", "in/out"),
    "closed": ("mode", "in/out"),
    "capacity": ("instance",),
    "moments": ("instance", "arrivals", "over instances"),
}
SUMMARY = ("quantity", "bar", "asked", "cases", "within", "declared in range", "of these within", "mean error", "worst")


REASONS = ("why a form says that it does not hold", "cases", "beyond the bar")


def summary(cases: Sequence[Case]) -> list[list[str]]:
    """Return a row for each quantity: how many cases the form holds, and of those where it says it does."""
    rows = []
    for quantity, (bar, asked) in BARS.items():
        mine = [one for one in cases if one.quantity == quantity]
        if not mine:
            continue
        inside = [one for one in mine if not one.reasons]
        errors = [abs(one.error) for one in mine]
        rows.append(
            [
                quantity,
                f"{bar:.0%}",
                f"{asked:.0%}",
                str(len(mine)),
                f"{sum(one.held for one in mine) / len(mine):.0%}",
                str(len(inside)),
                f"{sum(one.held for one in inside) / len(inside):.0%}" if inside else "-",
                f"{np.mean(errors):.1%}",
                f"{max(errors):.0%}",
            ]
        )
    return rows


def detail(part: str, cases: Sequence[Case]) -> tuple[list[str], list[list[str]]]:
    """Return the table of a part: errors in per cent, mean of the seeds, in each column."""
    columns = list(dict.fromkeys(one.column for one in cases))
    rows = []
    for row in dict.fromkeys(one.row for one in cases):
        cells = []
        for column in columns:
            mine = [one for one in cases if one.row == row and one.column == column]
            said = []
            for quantity in dict.fromkeys(one.quantity for one in mine):
                ones = [one for one in mine if one.quantity == quantity]
                said.append(f"{100 * np.mean([one.error for one in ones]):+.0f}")
                said[-1] += "" if all(one.held for one in ones) else " x"
            out = " (out)" if any(one.reasons for one in mine) else ""
            cells.append(", ".join(said) + out)
        rows.append([*row, *cells])
    return [*ROW_WORDS[part], *columns], rows


def part_of(quantity: str) -> str:
    """Return the first word of a quantity: decode, mixed or prefill."""
    return quantity.split()[0]


def reasons(cases: Sequence[Case]) -> list[list[str]]:
    """Return why forms say that they do not hold, and how many of these cases they missed."""
    held: dict[tuple[str, str], list[Case]] = {}
    for one in cases:
        for reason in one.reasons:
            held.setdefault((part_of(one.quantity), re.sub(r"\d+(\.\d+)?", "N", reason)), []).append(one)
    return [
        [f"{what}: {why}", str(len(ones)), f"{sum(not one.held for one in ones) / len(ones):.0%}"]
        for (what, why), ones in held.items()
    ]


def main() -> None:
    """Run the parts asked for, print their tables and keep them in a page."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from benchmarks import pages

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, like decode,mixed")
    parser.add_argument("--into", type=Path, help="page to keep the tables in")
    given = parser.parse_args()
    chosen = given.only.split(",")
    if not set(chosen) <= set(PARTS):
        raise SystemExit(f"--only: allowed: {','.join(PARTS)}")
    if given.into:
        for name in ("summary", "reasons", *chosen):
            pages.check(given.into, name)
    for part in chosen:
        begin = time.perf_counter()
        cases = list(MAKERS[part]())
        sys.stderr.write(f"{part}: {len(cases)} cases in {time.perf_counter() - begin:.0f} s\n")
        columns, rows = detail(part, cases)
        body = [(part, columns, rows, len(ROW_WORDS[part]), True)]
        body += [("summary", SUMMARY, summary(cases), 1, False), ("reasons", REASONS, reasons(cases), 1, False)]
        for name, heads, lines, words, whole in body:
            sys.stdout.write(f"{pages.table(heads, lines, words)}\n\n")
            sys.stdout.flush()
            if given.into:
                pages.keep(given.into, name, heads, lines, words=words, whole=whole)


if __name__ == "__main__":
    main()
