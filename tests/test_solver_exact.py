"""The whole search equals loops over every layout and every count of instances, on small invented machines."""

import math
from dataclasses import dataclass, field, replace
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, example, given, settings
from hypothesis import strategies as st

from perfmodel.files import catalog
from perfmodel.ledger.records import Family, Layout
from perfmodel.prediction.deployment import PoolPlan, exact_pool
from perfmodel.prediction.layouts import layout_faults
from perfmodel.prediction.mixed import mixed_first_token, mixed_footprint, mixed_rate, mixed_time
from perfmodel.prediction.serving import Case, first_token, usable_memory
from perfmodel.solver import mesh, space
from perfmodel.solver.join import joined
from perfmodel.solver.request import SearchRequest
from perfmodel.solver.solution import Solution
from perfmodel.solver.solve import solve
from perfmodel.solver.space import Choices
from perfmodel.solver.tally import Tally
from perfmodel.specs.attention import GqaSpec
from perfmodel.specs.deployment import LayoutSpec, Targets
from perfmodel.specs.model import ModelSpec
from tests.builders import Walked, rates_of
from tests.test_solver import _columns, _leader, request

MOST_PLANS = 1500  # of a space that is walked: half a millisecond each
CLOSE = 1e-9


def invented_model(draw: Any) -> ModelSpec:
    """Return the model on file with a few small layers."""
    base = catalog.load_model("deepseek-v3").spec
    heads = draw(st.sampled_from((2, 4, 8)))
    if draw(st.booleans()):
        attention: Any = base.attention.model_copy(
            update={"num_attention_heads": heads, "kv_lora_rank": draw(st.sampled_from((128, 512)))}
        )
    else:
        attention = GqaSpec(
            kind="gqa", num_attention_heads=heads, num_key_value_heads=draw(st.sampled_from((1, 2))), head_dim=128
        )
    routed = draw(st.sampled_from((4, 6, 16)))
    experts = base.experts.model_copy(
        update={
            "n_routed_experts": routed,
            "num_experts_per_tok": draw(st.integers(1, 3)),
            "n_shared_experts": draw(st.integers(0, 1)),
            "moe_intermediate_size": draw(st.sampled_from((512, 2048))),
            "n_group": 1,
            "topk_group": 1,
        }
    )
    return base.model_copy(
        update={
            "hidden_size": draw(st.sampled_from((1024, 4096))),
            "num_hidden_layers": draw(st.integers(2, 8)),
            "first_k_dense_replace": draw(st.integers(0, 2)),
            "attention": attention,
            "experts": experts,
        }
    )


def invented_rates(draw: Any) -> Any:
    """Return the rates of a machine on file with other numbers, and small servers of a few dies."""
    system = draw(st.sampled_from(("cloudmatrix384", "atlas-800i-a2")))
    rates = rates_of(system, draw(st.sampled_from(("cann-2025", "cann-2026"))))
    of_package, of_server = draw(st.sampled_from(((1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (1, 4))))
    scale = st.floats(0.2, 5.0)
    inside = {"package": of_package, "node": of_package * of_server}
    link, wait = draw(scale), draw(scale)
    tiers = tuple(
        replace(
            tier,
            dies=float(inside.get(tier.name, tier.dies)),
            bandwidth=tier.bandwidth * link,
            latency=tier.latency * wait,
        )
        for tier in rates.tiers
    )
    return replace(
        rates,
        cube_cores=float(draw(st.sampled_from((8, 10)))),
        cube_int8=rates.cube_int8 * draw(scale),
        hbm_bandwidth=rates.hbm_bandwidth * draw(scale),
        tiers=tiers,
        kv_tier=next(tier for tier in tiers if tier.name == rates.kv_tier.name),
        frontend_rate=draw(st.sampled_from((None, 30.0))),
        kv_block_tokens=16.0,
        dies_per_package=of_package,
        packages_per_server=of_server,
        max_packages=64,
    )


@dataclass(frozen=True)
class Waited(Walked):
    """One layout of a pool, and how long a prompt waits for it."""

    #: up to the first decode step; of prefill alone
    waited: float

    @property
    def key(self) -> tuple[LayoutSpec, Family]:
        return self.layout, self.family


def sizes_of(rates: Any, servers: int) -> list[int]:
    """Return whole servers and the halves of one, in dies."""
    one = rates.dies_per_server
    halves = [one // 2**k for k in range(1, 5) if one % 2**k == 0]
    return halves + [one * n for n in range(1, servers + 1)]


def layouts_of(phase: Any, case: Case, sizes: list[int], choices: Choices, largest: int) -> list[LayoutSpec]:
    """Return every layout of the declared space, each axis and each structural key in a loop of its own."""
    rates, model, offered, fixed = case.rates, case.model, choices.offered.get(phase, {}), choices.fixed.get(phase, {})
    decode = phase == "decode"
    cp, dcp = fixed.get("cp", 1), fixed.get("dcp", 1)
    found = []
    for overlap, exchange, reduction, stream, parts in product(
        ("none", "link", "cores") if decode else ("none", "link"),
        ("dispatch", "gather"),
        offered.get("reduction", ("scatter_gather",)),
        offered.get("shared_stream", (False,)),
        offered.get("expert_tp", (1,)),
    ):
        if decode and overlap == "link" and exchange == "dispatch":
            continue  # dispatch needs cores of its own
        splits = range(4, int(rates.cube_cores) - 3, 2) if overlap == "cores" else (0,)
        batches = range(1, largest + 1) if decode else [b for b in space.PREFILL_BATCHES if b <= largest]
        drafts = range(len(case.acceptance) + 1) if decode else [1 if case.acceptance else 0]
        for dies, tp, batch, draft, cores in product(sizes, (1, 2, 4, 8, 16), batches, drafts, splits):
            if dies % (tp * cp) or rates.dies_per_server % (tp * cp) or tp % dcp:
                continue
            if dies % parts:
                continue
            if reduction in ("all_to_all", "sp_tp_sp") and tp == 1:
                continue  # the same as without
            own = range(1, dies // 6 + 1) if decode and model.experts.n_shared_experts else ()
            for shared, more in product((0, *own), (0, 1)):
                ranks, routed = (dies - shared) // parts, model.experts.n_routed_experts
                slots = next(n for n in range(1, routed + 1) if n * ranks >= routed) + more
                layout = LayoutSpec(
                    dies=dies, tp=tp, batch=batch, draft=draft, shared_ranks=shared,
                    redundant=slots * ranks - routed, overlap=overlap, attention_cores=cores, exchange=exchange,
                    reduction=reduction, shared_stream=stream, cp=cp, dcp=dcp, expert_tp=parts,
                )  # fmt: skip
                if not layout_faults(layout, phase, model, rates):
                    found.append(layout)
    return found


def walk(phase: Any, case: Case, layouts: list[LayoutSpec], kv_dtype: Any, utilisation: float) -> list[Waited]:
    """Return layouts evaluated one by one."""
    found = []
    for layout in layouts:
        family = Family.of(layout, phase, kv_dtype=kv_dtype)
        point = exact_pool(layout, family, case).point
        waited = 0.0
        if phase == "prefill":
            waited = first_token(
                prefill=point, layout=Layout.of(layout), case=case, utilisation=utilisation, decode_step=0.0
            ).ttft
        found.append(Waited(layout, family, point, float(waited)))
    return found


@dataclass(frozen=True)
class JoinedPools:
    """Every deployment of every pair of instances of one cache precision: objective, smallest best; none: infinite."""

    decodes: list[Waited] = field(repr=False)
    prefills: list[Waited] = field(repr=False)
    #: (decode instances, prefill instances) -> objective of each decode and prefill layout
    objectives: dict[tuple[int, int], Any] = field(repr=False)

    @property
    def best(self) -> float:
        return min((float(values.min()) for values in self.objectives.values() if values.size), default=np.inf)


def join(decodes: list[Waited], prefills: list[Waited], case: Case, asked: SearchRequest) -> JoinedPools:
    """Return the objective of all counts of instances of all pairs of layouts that fit memory and TPOT."""
    usable, tpot, ttft = usable_memory(case.rates), asked.targets.tpot, asked.targets.ttft
    decodes = [one for one in decodes if one.memory <= usable and (tpot is None or one.tpot <= tpot)]
    prefills = [one for one in prefills if one.memory <= usable]
    objectives = {}
    one_server, most = case.rates.dies_per_server, max(asked.servers, asked.prefill_servers or 0)
    decode_dies, prefill_dies = (np.array([w.layout.dies for w in side]) for side in (decodes, prefills))
    decode_rate, prefill_rate = (np.array([w.rate for w in side]) for side in (decodes, prefills))
    steps = np.array([float(w.point.step_time) for w in decodes])
    waits = np.array([w.waited for w in prefills])
    if not decodes or not prefills:
        return JoinedPools(decodes, prefills, {})
    for n, m in product(range(1, most * one_server + 1), repeat=2):
        decode_servers = -(-n * decode_dies // one_server)[:, None]
        prefill_servers = -(-m * prefill_dies // one_server)[None, :]
        if asked.prefill_servers is None:
            allowed = decode_servers + prefill_servers <= asked.servers
        else:
            allowed = (decode_servers <= asked.servers) & (prefill_servers <= asked.prefill_servers)
        if not allowed.any():
            continue
        served = np.minimum(n * decode_rate[:, None] * asked.utilisation, m * prefill_rate[None, :] * asked.utilisation)
        if asked.rate is not None:
            allowed = allowed & (served >= asked.rate * (1 - CLOSE))
            served = np.minimum(served, asked.rate)
        if ttft is not None:
            allowed = allowed & (waits[None, :] + steps[:, None] <= ttft)
        servers = decode_servers + prefill_servers
        money = prefill_servers * asked.prices[0] + decode_servers * asked.prices[1]
        match asked.objective:
            case "throughput":
                value = -served
            case "tpot":
                value = np.broadcast_to(np.array([w.tpot for w in decodes])[:, None], served.shape)
            case "cards":
                value = servers
            case "per-card":
                value = servers if asked.rate is not None else servers / served
            case "cost" | "energy":
                value = money if asked.rate is not None else money / served
        objectives[n, m] = np.where(allowed, value, np.inf)
    return JoinedPools(decodes, prefills, objectives)


def value_of(solution: Solution, found: list[JoinedPools]) -> float:
    """Return what brute force says of the chosen plan; infinite where it is none of its deployments."""
    best = solution.best
    assert best is not None

    def place(side: list[Waited], pool: PoolPlan) -> int | None:
        return next((at for at, one in enumerate(side) if one.key == (pool.layout, pool.family)), None)

    for each in found:
        row, column = place(each.decodes, best.decode), place(each.prefills, best.prefill)
        if row is not None and column is not None:
            values = each.objectives.get((best.decode_instances, best.prefill_instances))
            return np.inf if values is None else float(values[row, column])
    return np.inf


@dataclass(frozen=True)
class Space:
    """What is asked, and every layout of both pools, one by one; decode and prefill of each cache precision."""

    case: Case = field(repr=False)
    asked: SearchRequest
    largest_batch: int
    evaluated: int
    sides: list[tuple[list[Waited], list[Waited]]] = field(repr=False)


def missed(one: Space, found: list[JoinedPools]) -> tuple[str, float]:
    """Return the last constraint that no deployment meets, and the value nearest to its limit."""
    asked, usable, of_server = one.asked, usable_memory(one.case.rates), one.case.rates.dies_per_server
    decodes, prefills = ([plan for side in one.sides for plan in side[at]] for at in (0, 1))
    if all(plan.memory > usable for plan in prefills):
        return "prefill memory", min(plan.memory for plan in prefills)
    tpot = asked.targets.tpot
    if all(plan.memory > usable for plan in decodes):
        return "memory", min(plan.memory for plan in decodes)
    if tpot is not None and all(plan.tpot > tpot for plan in decodes if plan.memory <= usable):
        return "tpot", min(plan.tpot for plan in decodes if plan.memory <= usable)
    pairs = [
        (-(-decode.layout.dies // of_server), -(-prefill.layout.dies // of_server), decode, prefill)
        for each in found
        for decode, prefill in product(each.decodes, each.prefills)
    ]
    if asked.prefill_servers is None:
        fitting = [pair for pair in pairs if pair[0] + pair[1] <= asked.servers]
        if not fitting:
            return "cards", min(pair[0] + pair[1] for pair in pairs) * one.case.rates.packages_per_server
        pairs = fitting
    first = min(float(decode.point.step_time) + prefill.waited for _, _, decode, prefill in pairs)
    if asked.targets.ttft is not None and first > asked.targets.ttft:
        return "ttft", first
    unbound = replace(asked, rate=None, objective="throughput")
    return "rate", -min(join(*side, one.case, unbound).best for side in one.sides)


def between(draw: Any, values: list[float], low: float = -0.1) -> float:
    """Return a limit between two of some values, below all or above all."""
    ordered = sorted(set(values))
    limits = [ordered[0] * 0.9, *((a + b) / 2 for a, b in pairwise(ordered)), ordered[-1] * 1.1]
    return limits[min(len(limits) - 1, max(0, round(draw(st.floats(low, 1.0)) * len(limits))))]


def batch_bound(case: Case, kv_dtype: str, fixed: Any, phase: str) -> int:
    """Return the batch at which the cache alone fills a die, at the thinnest share that any layout gives it."""
    attention, element = case.model.attention, 2 if kv_dtype == "bf16" else 1
    if attention.kind == "mla":
        token = attention.kv_lora_rank * element + attention.qk_rope_head_dim * 2
    else:
        token = 2 * attention.head_dim * element
    tokens = case.isl + (case.osl / 2 if phase == "decode" else 0)
    held = token * case.model.num_hidden_layers * tokens / (fixed.get("cp", 1) * fixed.get("dcp", 1))
    return max(1, int(usable_memory(case.rates) / held))


@st.composite
def spaces(draw: Any, mixed: bool = False) -> Space:
    """Return a small space and a request, of two pools or of instances that run both phases."""
    model, rates, largest = invented_model(draw), invented_rates(draw), draw(st.integers(1, 3))
    case = Case(
        model=model,
        rates=rates,
        isl=draw(st.integers(64, 8000)),
        osl=draw(st.integers(16, 2000)),
        acceptance=draw(st.sampled_from(((), (0.7,), (0.9, 0.4)))),
    )
    servers, own = draw(st.integers(2, 4)), None if mixed else draw(st.sampled_from((None, None, None, 1, 2)))
    offered = draw(
        st.sampled_from(
            (
                {},
                {},
                {"reduction": ("scatter_gather", "all_to_all")},
                {"shared_stream": (False, True)},
                {"expert_tp": (1, 2)},
            )
        )
    )
    splits = ({}, {}, {}, {"prefill": {"cp": 2}}, {"decode": {"dcp": 2}})
    fixed = {} if mixed else draw(st.sampled_from(splits))
    choices = Choices(
        kv_dtypes=draw(st.sampled_from((("bf16",), ("int8",), ("bf16", "int8")))),
        offered={"prefill": offered, "decode": offered},
        fixed=fixed,
    )
    assume(not (fixed.get("decode") and model.attention.kind != "mla"))  # refused
    utilisation = draw(st.floats(0.3, 0.99))
    pools = {
        "decode": sizes_of(rates, servers if mixed or own is not None else servers - 1),
        "prefill": sizes_of(rates, servers if mixed else own or servers - 1),
    }
    layouts = {phase: layouts_of(phase, case, sizes, choices, largest) for phase, sizes in pools.items()}
    assume(sum(map(len, layouts.values())) * len(choices.kv_dtypes) <= MOST_PLANS)
    walked = {
        kv_dtype: {phase: walk(phase, case, layouts[phase], kv_dtype, utilisation) for phase in pools}
        for kv_dtype in choices.kv_dtypes
    }
    plans = [one for pool in walked.values() for side in pool.values() for one in side]
    assume(plans)
    usable = between(draw, [one.memory for one in plans], 0.2)
    case = replace(
        case, rates=replace(rates, capacity=(usable + rates.runtime) / (rates.reported * rates.utilization), graphs=0.0)
    )
    experts = (
        (model.num_hidden_layers - model.first_k_dense_replace)
        * model.experts.n_routed_experts
        * 3 * model.hidden_size * model.experts.moe_intermediate_size / 2
    )  # fmt: skip
    evaluated = 0
    for one in plans:
        bound = batch_bound(case, one.family.kv_dtype, fixed.get(one.family.phase, {}), one.family.phase)
        in_space = one.layout.dies * usable >= experts and one.layout.batch <= bound
        in_space |= one.layout.dies % rates.dies_per_server == 0 and one.layout.batch <= bound
        evaluated += in_space
        assert in_space or one.memory > usable, "what the space leaves out may not fit"
    sides = [(pool["decode"], pool["prefill"]) for pool in walked.values()]
    some_tpot = [one.tpot for decodes, _ in sides for one in decodes] or [1.0]
    some_ttft = [
        p.waited + float(d.point.step_time) for decodes, prefills in sides for d in decodes[::7] for p in prefills[::5]
    ] or [1.0]
    objective = draw(st.sampled_from(("throughput", "per-card", "cards", "cost", "energy", "tpot")))
    asked = SearchRequest(
        servers=servers,
        rate=None,
        targets=Targets(
            tpot=between(draw, some_tpot) if draw(st.booleans()) else None,
            ttft=between(draw, some_ttft) if draw(st.booleans()) else None,
        ),
        utilisation=utilisation,
        objective="throughput",
        choices=choices,
        top=3,
        prefill_servers=own,
        prices=(draw(st.floats(0.2, 5.0)), draw(st.floats(0.2, 5.0))),
        serving="mixed" if mixed else "disaggregated",
    )
    if objective in ("cards", "tpot") or draw(st.booleans()):
        most = -min(join(*side, case, asked).best for side in sides)
        asked = replace(asked, rate=abs(most if np.isfinite(most) else 1.0) * draw(st.floats(0.01, 1.05)))
    asked = replace(asked, objective=objective)
    return Space(case, asked, largest, evaluated, sides)


#: no shrinking: it would walk spaces for minutes
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), phases=PHASES)
@given(one=spaces())
def test_the_search_equals_loops_over_every_deployment(one: Space) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mesh, "LARGEST_BATCH", one.largest_batch)
        patch.setattr(space, "SHARED_STEP", 1)
        solution = solve(one.case, one.asked)
    found = [join(*side, one.case, one.asked) for side in one.sides]
    best = min(each.best for each in found)
    assert (solution.best is not None) == np.isfinite(best), (solution.status, best)
    if not all(side for pools in one.sides for side in pools):
        assert solution.best is None  # a split that servers so small do not have
    elif solution.best is None:
        constraint, closest = missed(one, found)
        told = {rejection.constraint: rejection for rejection in solution.rejections}
        assert told[constraint].closest == pytest.approx(closest, rel=CLOSE)
        assert told[constraint].count > 0
    else:
        assert value_of(solution, found) == pytest.approx(best, rel=CLOSE)
    if one.asked.objective != "tpot" or solution.best is None:  # else it searches more than once
        assert solution.evaluated == one.evaluated


def mixed_deployments(one: Space) -> dict[tuple[LayoutSpec, LayoutSpec, Family], tuple[float, int]]:
    """Return the objective and the count of instances of every pair of phases that share their weights."""
    case, asked, usable = one.case, one.asked, usable_memory(one.case.rates)
    tpot, ttft, of_server = asked.targets.tpot or np.inf, asked.targets.ttft or np.inf, case.rates.dies_per_server
    found = {}
    for decodes, prefills in one.sides:
        for decode, prefill in product(decodes, prefills):
            a, b = decode.layout, prefill.layout
            if a.shared_ranks or (a.dies, a.tp, a.redundant, a.expert_tp) != (b.dies, b.tp, b.redundant, b.expert_tp):
                continue
            time = float(mixed_time(prefill.point, decode.point))
            first = float(mixed_first_token(prefill.point, decode.point, case, asked.utilisation).ttft)
            prompts = prefill.point.in_flight / case.isl
            foot = mixed_footprint(prefill.point, decode.point, prompts * a.tp / a.dies)
            if foot.planned > usable or prompts > decode.point.in_flight or time > tpot or first > ttft:
                continue
            rate = float(mixed_rate(prefill.point, decode.point)) * asked.utilisation
            for count in range(1, asked.servers * of_server + 1):
                servers = -(-count * a.dies // of_server)
                served = count * rate if asked.rate is None else min(count * rate, asked.rate)
                if servers > asked.servers or (asked.rate is not None and served < asked.rate * (1 - CLOSE)):
                    continue
                counted = servers * (1 if asked.objective in ("per-card", "cards") else asked.prices[1])
                value = {"throughput": -served, "tpot": time, "cards": counted}.get(
                    asked.objective, counted if asked.rate is not None else counted / served
                )
                key = a, b, decode.family
                if value < found.get(key, (np.inf,))[0]:
                    found[key] = value, count
    return found


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), phases=PHASES)
@given(one=spaces(mixed=True))
def test_mixed_serving_equals_loops_over_every_pair_of_phases(one: Space) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mesh, "LARGEST_BATCH", one.largest_batch)
        solution = solve(one.case, one.asked)
    found = mixed_deployments(one)
    best = solution.best
    assert (best is not None) == bool(found)
    if best is not None:
        value, _ = found[best.decode.layout, best.prefill.layout, best.decode.family]
        assert value == pytest.approx(min(value for value, _ in found.values()), rel=CLOSE)


parts = st.tuples(st.floats(0.5, 20.0), st.sampled_from((0.25, 0.5, 1.0, 2.0)))


@settings(max_examples=200, deadline=None)
@given(prefill=parts, decode=parts, servers=st.integers(2, 8))
@example(prefill=(1.32, 0.25), decode=(11.95, 1.0), servers=8)
def test_instances_that_share_a_server_fill_it_where_the_rate_per_server_counts(
    prefill: tuple[float, float], decode: tuple[float, float], servers: int
) -> None:
    asked = replace(request(servers, 0.05), utilisation=1.0, objective="per-card")
    joins = joined([_leader(*decode)], _columns([prefill]), asked, Tally())
    counted = [
        min(n * decode[0], m * prefill[0]) / used
        for n, m in product(range(1, 4 * servers), repeat=2)
        if (used := math.ceil(n * decode[1]) + math.ceil(m * prefill[1])) <= servers
    ]
    assert max((1 / one.key[0] for one in joins), default=0.0) == pytest.approx(max(counted, default=0.0), rel=CLOSE)
