"""A planned deployment that serves a workload, request by request: what its clients measure."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from perfmodel.algebra import as_float
from perfmodel.errors import UsageError
from perfmodel.files.workloads import load_workload
from perfmodel.planning import inputs
from perfmodel.planning.hypothetical import told
from perfmodel.planning.plan_file import LoadedPlan, load_plan, sustained_rate
from perfmodel.planning.software import engine_on
from perfmodel.prediction.deployment import short_form
from perfmodel.prediction.joined_pools import JoinedPools, joined_rates, of_deployment
from perfmodel.service.arrivals import ClosedLoop, renewal, stamped
from perfmodel.service.clients import quantities_of
from perfmodel.service.records import Requests, Service
from perfmodel.service.replay import replay
from perfmodel.service.results import Served
from perfmodel.service.routing import telling_block
from perfmodel.service.series import Window, falls_behind, stays, windows_of
from perfmodel.service.setup import LITTLE, WAVES, cache_tokens, deployment_service, engine_of, spread_held
from perfmodel.specs.base import Known
from perfmodel.specs.conditions import conditions_of
from perfmodel.specs.deployment import Phase
from perfmodel.specs.machine import EngineSpec, StackSpec
from perfmodel.specs.run import PERCENTILES
from perfmodel.specs.workload import Blocks, Workload, lognormal

DRAWN = 20_000  # requests of lengths that are drawn
MOST_DRAWN = 100_000  # of these where a run of so many is shorter than some stays
STAYS = 12  # of a request, that a run of drawn ones lasts
FEW_STAYS = 5  # of a request, below which a run is mostly its own start
MOST_REQUESTS = 1_000_000  # that are replayed
LEAST_RATE, MOST_RATE = 1e-6, 1e6  # 1/s; beyond, moments of steps are lost in those of arrivals
WINDOWS = 12
ROUTINGS = ("round_robin", "random", "least_work", "prefix_affinity")

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Quantity = Literal["ttft", "tpot"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A limit on the mean or a percentile of a wait, in s."""

    quantity: Quantity
    statistic: str
    seconds: float
    #: whether it was given with the question; else it is the plan's
    given: bool

    @property
    def key(self) -> str:
        """Name of the replayed value that it holds."""
        return self.quantity if self.statistic == "mean" else f"{self.quantity}_{self.statistic}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Load:
    """What is sent: requests, how they come, and what was left out of them."""

    name: str
    requests: Requests
    #: how requests come, in words; the rate of those that come by themselves in 1/s
    arrivals: str
    rate: float | None
    clients: int | None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replayed:
    """A plan and what it served, request by request."""

    plan: LoadedPlan
    name: str
    joined: JoinedPools
    service: Service
    engine: EngineSpec
    routing: str
    seed: int
    load: Load
    served: Served
    #: means and percentiles of waits in s, and requests a second
    values: Mapping[str, float]
    windows: tuple[Window, ...]
    limits: tuple[Limit, ...]
    #: share of the requests that keep all limits, and these a second; None without limits
    within: float | None
    goodput: float | None
    remarks: tuple[str, ...]

    @property
    def stack(self) -> Known[StackSpec]:
        """Stack of the pool that the engine schedules prompts of."""
        return self.plan.machines["decode" if self.joined.mixed else "prefill"].stack

    @property
    def missed(self) -> list[Limit]:
        """Limits given with the question that are not kept."""
        return [one for one in self.limits if one.given and not self.met(one)]

    def met(self, limit: Limit) -> bool:
        """Return whether a limit is kept; where nothing has a wait of its kind it is."""
        return self.values.get(limit.key, 0.0) <= limit.seconds

    @property
    def deployment(self) -> str:
        """Instances in short form."""
        joined = self.joined
        return short_form(joined.prefill_instances, joined.decode_instances, mixed=joined.mixed)

    @property
    def worst_fit(self) -> float:
        """Largest relative error of the step times that were replayed, where they were fitted."""
        service = self.service
        if service.mixed is not None:
            return max(service.mixed.prefill.worst, service.mixed.decode.worst)
        assert service.prefill is not None
        assert service.decode is not None
        return max(service.prefill.step.worst, service.decode.step.worst)

    @property
    def falls_behind(self) -> bool:
        """Whether more requests come than are served."""
        return self.load.clients is None and falls_behind(self.served)

    @property
    def stays(self) -> float:
        """How many mean stays of a request the arrivals last."""
        return stays(self.served)


def replayed(given: Mapping[str, Any]) -> Replayed:
    """Return what the plan that options name serves of the load that they describe.

    Raises ``UsageError`` for options that contradict each other, ``DataError`` for files with faults.
    """
    _refuse_contradictions(given)
    limits = [_limit(given["ttft"], "ttft"), _limit(given["tpot"], "tpot")]
    plan = load_plan(given["plan"], inputs.tokens(given["max_context"], "--max-context"))
    conditions = plan.spec.conditions
    rates = joined_rates({phase: machine.rates() for phase, machine in plan.machines.items()})
    joined = of_deployment(conditions, plan.model.spec, rates["decode"], rates["prefill"])
    engine, remarks = _engine(given, plan, "decode" if joined.mixed else "prefill")
    load = _load(given, plan, joined)
    blocks = load.requests.blocks
    service = deployment_service(
        joined,
        engine,
        routing=given["routing"],
        cache_blocks=_cache_blocks(given["prefix_cache"], load, joined),
        affinity_block=1 if blocks is None else telling_block(blocks, joined.prefill_instances),
    )
    served = replay(load.requests, service, given["seed"])
    kept = _limits(limits, plan)
    each = {one.quantity: one.seconds for one in kept}
    within = served.within(ttft=each.get("ttft"), tpot=each.get("tpot")) if kept else None
    return Replayed(
        plan=plan,
        name=given["plan"],
        joined=joined,
        service=service,
        engine=engine,
        routing=given["routing"],
        seed=given["seed"],
        load=load,
        served=served,
        values=quantities_of(served),
        windows=tuple(windows_of(served, WINDOWS)),
        limits=kept,
        within=within,
        goodput=None if within is None else within * served.rate,
        remarks=(*plan.remarks, *told(plan.machines.values()), *remarks, *load.remarks),
    )


def _engine(given: Mapping[str, Any], plan: LoadedPlan, phase: Phase) -> tuple[EngineSpec, tuple[str, ...]]:
    """Return what schedules the pool that prompts come to: the engine given, else the plan's, and remarks.

    Raises ``UsageError`` where the stack that the plan was made for is without it.
    """
    conditions, machine = plan.spec.conditions, plan.machines[phase]
    wanted = given["engine"]
    if wanted is None:
        return engine_of(machine.stack.spec, conditions.engine), ()
    own = conditions_of(conditions, phase)
    again = f"moeplan solve {given['plan']} --engine {wanted} -o OTHER.json, and replay that plan"
    software = engine_on(own.system, stack=own.stack, engine=wanted, whose=f"{given['plan']} was made for", again=again)
    assert software.engine is not None
    return software.engine, software.remarks


def _refuse_contradictions(given: Mapping[str, Any]) -> None:
    lengths = [f"--{name.replace('_', '-')}" for name in ("isl", "isl_cv", "osl", "osl_cv") if given[name] is not None]
    if given["workload"] is not None and lengths:
        raise UsageError(f"{', '.join(lengths)} with WORKLOAD, which has lengths of its own; drop either")
    if given["workload"] is None and given["skip_bad"]:
        raise UsageError("--skip-bad without WORKLOAD: no file is read; drop it")
    if given["concurrency"] is not None:
        both = [f"--{name}" for name in ("rate", "cv") if given[name] is not None]
        if both:
            raise UsageError(
                f"--concurrency with {', '.join(both)}: clients of a closed loop set the rate; drop either"
            )
        inputs.positive(given["concurrency"], "--concurrency")
    inputs.known(given["routing"], list(ROUTINGS), "--routing")
    count = inputs.positive(given["requests"], "--requests")
    if count is not None and count > MOST_REQUESTS:
        raise UsageError(f"--requests: {count}; allowed: at most {MOST_REQUESTS}")
    if given["seed"] < 0:
        raise UsageError(f"--seed: {given['seed']}; allowed: 0 or more")
    for name, most in (("cv", 10.0), ("isl_cv", 10.0), ("osl_cv", 10.0)):
        value = given[name]
        if value is not None and not 0 <= value <= most:
            raise UsageError(f"--{name.replace('_', '-')}: {value:g}; allowed: from 0 to {most:g}")


def _limit(text: str | None, quantity: Quantity) -> Limit | None:
    """Read a limit such as '50ms' or 'p99=2s'."""
    if text is None:
        return None
    word, equals, rest = text.partition("=")
    statistic = word.strip() if equals else "mean"
    inputs.known(statistic, ["mean", *PERCENTILES], f"--{quantity}")
    seconds = inputs.quantity(rest if equals else text, "s", f"--{quantity}")
    assert seconds is not None
    return Limit(quantity=quantity, statistic=statistic, seconds=seconds, given=True)


def _limits(given: list[Limit | None], plan: LoadedPlan) -> tuple[Limit, ...]:
    """Return the limit of each wait: the one given, else the plan's on its mean."""
    own: dict[Quantity, float | None] = {"ttft": plan.spec.wanted.ttft, "tpot": plan.spec.conditions.tpot}
    found = {one.quantity: one for one in given if one is not None}
    for quantity, seconds in own.items():
        if quantity not in found and seconds is not None:
            found[quantity] = Limit(quantity=quantity, statistic="mean", seconds=seconds, given=False)
    return tuple(found[quantity] for quantity in own if quantity in found)


def _load(given: Mapping[str, Any], plan: LoadedPlan, joined: JoinedPools) -> Load:
    rate = inputs.rate(given["rate"], "--rate")
    if rate is not None and not LEAST_RATE <= rate <= MOST_RATE:
        raise UsageError(f"--rate: {rate:g} requests/s; allowed: from {LEAST_RATE:g} to {MOST_RATE:g}")
    own = sustained_rate(plan.spec.wanted, joined)
    workload = _workload(given, plan, rate or own)
    kept, remarks = _holdable(workload, plan, joined)
    count = min(given["requests"] or kept.requests, MOST_REQUESTS)
    if kept.requests > MOST_REQUESTS and given["requests"] is None:
        remarks.append(f"the first {MOST_REQUESTS:,} of {kept.requests:,} requests are replayed")
    remarks = [*workload.remarks, *remarks]
    picked = np.arange(count, dtype=np.int64) % kept.requests
    blocks = None
    if kept.blocks is not None and (given["prefix_cache"] is not None or given["routing"] == "prefix_affinity"):
        blocks = _blocks(kept.blocks, kept.requests, count)
    if given["routing"] == "prefix_affinity" and blocks is None:
        raise UsageError("--routing prefix_affinity needs a trace that names the blocks of its prompts; give another")
    arrivals, words, at = _arrivals(given, kept, count, rate, own, remarks)
    lengths = (kept.isl[picked], kept.osl[picked])
    return Load(
        name=workload.name,
        requests=Requests.of(*lengths, arrivals, blocks, kept.block_tokens or 512),
        arrivals=words,
        rate=at,
        clients=given["concurrency"],
        remarks=tuple(remarks),
    )


def _workload(given: Mapping[str, Any], plan: LoadedPlan, rate: float) -> Workload:
    """Return the requests of the file, or drawn ones of the lengths given, else of the plan's."""
    if given["workload"] is not None:
        return load_workload(Path(given["workload"]), given["skip_bad"])
    conditions = plan.spec.conditions
    isl = inputs.tokens(given["isl"], "--isl") or conditions.isl
    osl = inputs.tokens(given["osl"], "--osl") or conditions.osl
    inputs.check_lengths(plan.model.spec, isl, osl)
    count = given["requests"]
    if count is None and given["concurrency"] is not None:
        count = min(WAVES * given["concurrency"], MOST_REQUESTS)
    if count is None:
        stay = plan.spec.predicted.ttft + osl * plan.spec.predicted.tpot
        count = max(DRAWN, min(MOST_DRAWN, math.ceil(STAYS * stay * rate)))
    wanted = (given["isl_cv"], given["osl_cv"])
    spreads = [spread_held(LITTLE, count) if cv is None else float(cv) for cv in wanted]
    return lognormal(isl, spreads[0], osl, spreads[1], requests=count, seed=2 * given["seed"])


def _holdable(workload: Workload, plan: LoadedPlan, joined: JoinedPools) -> tuple[Workload, list[str]]:
    """Return the requests that the model takes and the cache of a rank holds, and remarks on the others."""
    remarks = []
    tokens = workload.isl + workload.osl
    held = cache_tokens(joined.decode.point)
    for most, whose, more in (
        (plan.model.spec.max_position_embeddings, "the model", ", or with rope scaling --max-context"),
        (held, "the cache of a rank", ""),
    ):
        over = int((tokens > most).sum())
        if over == len(tokens):
            raise UsageError(
                f"{workload.name}: every request is longer than {whose} takes, {most:,} tokens; give shorter ones{more}"
            )
        if over:
            remarks.append(f"left out {over:,} requests longer than {whose} takes, {most:,} tokens")
            keep = tokens <= most
            workload = replace(
                workload,
                isl=workload.isl[keep],
                osl=workload.osl[keep],
                arrivals=None if workload.arrivals is None else workload.arrivals[keep],
                blocks=workload.blocks and _some(workload.blocks, np.flatnonzero(keep)),
            )
            tokens = tokens[keep]
    return workload, remarks


def _some(blocks: Blocks, chosen: Ints) -> Blocks:
    chosen = chosen[chosen < blocks.requests]
    pieces = [blocks.ids[blocks.offsets[one] : blocks.offsets[one + 1]] for one in chosen]
    ends = np.cumsum([0, *map(len, pieces)]).astype(np.int64)
    return Blocks(ids=np.concatenate(pieces) if pieces else blocks.ids[:0], offsets=ends)


def _blocks(blocks: Blocks, requests: int, count: int) -> list[list[int]]:
    """Return the blocks of so many requests; of a trace that is repeated, those of each time are its own."""
    different, ids = np.unique(blocks.ids, return_inverse=True)
    found: list[list[int]] = []
    for number in range(count):
        time, one = divmod(number, requests)
        if one >= blocks.requests:
            found.append([])
            continue
        own = ids[blocks.offsets[one] : blocks.offsets[one + 1]] + time * len(different)
        found.append(own.tolist())
    return found


def _arrivals(
    given: Mapping[str, Any], workload: Workload, count: int, rate: float | None, own: float, remarks: list[str]
) -> tuple[Floats | ClosedLoop, str, float | None]:
    """Return when requests come, in numbers and in words, and their rate."""
    clients, cv, seed = given["concurrency"], given["cv"], 2 * given["seed"] + 1
    if clients is not None:
        return ClosedLoop(clients=clients), f"{clients:,} clients in a closed loop, all at once first", None
    stamps = workload.arrivals
    if stamps is None or cv is not None:
        mean = rate or workload.rate or own
        if rate is None and stamps is None and workload.rate is None and given["workload"] is not None:
            remarks.append(
                "no arrival times in the file: requests come at random at the plan's own rate; --rate sets it"
            )
        how = "at random" if cv is None or cv == 1 else f"in gaps of CV {cv:g}"
        return renewal(mean, 1.0 if cv is None else cv, count, seed), f"{mean:.4g} requests/s come {how}", mean
    times = _repeated(stamps, count)
    if len(times) < 2 or times[-1] <= times[0]:  # of one moment no rate is told
        return np.zeros(count), "all come at once, as stamped", None
    mean = rate or (len(times) - 1) / float(times[-1] - times[0])
    words = f"{mean:.4g} requests/s come as stamped" + ("" if rate is None else ", stretched to that rate")
    return stamped(times, rate), words, mean


def _repeated(stamps: Floats, count: int) -> Floats:
    """Return so many stamps, a whole trace after the other, a mean gap apart."""
    many = len(stamps)
    span = float(stamps[-1] - stamps[0])
    each = span * many / (many - 1) if many > 1 else 0.0
    number = np.arange(count, dtype=np.int64)
    times: Floats = stamps[number % many] - stamps[0] + (number // many) * each
    return times


def _cache_blocks(text: str | None, load: Load, joined: JoinedPools) -> int:
    """Read the size of a prefix cache, in bytes or in blocks, as blocks."""
    if text is None:
        return 0
    if load.requests.blocks is None:
        raise UsageError("--prefix-cache needs a trace that names the blocks of its prompts; drop it, or give another")
    counted = re.fullmatch(r"\s*([0-9]{1,12})(?:\s*blocks?)?\s*", text)
    if counted is not None:
        blocks = int(counted[1])
    else:
        size = inputs.quantity(text, "B", "--prefix-cache")
        assert size is not None
        each = as_float(joined.prefill.point.footprint.kv_bytes_per_token) * load.requests.block_tokens
        blocks = math.floor(size / each)
    if blocks < 1:
        raise UsageError(f"--prefix-cache: {text!r} holds no block; allowed: one block or more, like 64GB or 20000")
    return blocks
