"""Mixed serving equals loops over every pair of a decode and a prefill layout that share their weights."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from perfmodel.files import catalog
from perfmodel.ledger.footprint import Footprint
from perfmodel.prediction.deployment import exact_pool
from perfmodel.prediction.mixed import mixed_first_token, mixed_footprint, mixed_rate, mixed_time
from perfmodel.prediction.serving import Case, PoolPoint, usable_memory
from perfmodel.solver import mesh, mixed, space
from perfmodel.solver.mesh import Leader, meshes
from perfmodel.solver.request import Cases, SearchRequest
from perfmodel.solver.space import Choices
from perfmodel.solver.tally import Tally
from perfmodel.specs.deployment import Phase, Targets
from tests.builders import Walked, rates_of

CLOSE = 1e-9
LARGEST = 3  # batch of the small spaces


def small_case(usable: float | None = None, osl: int = 53, **changes: Any) -> Case:
    """Return a model of a few small layers on servers of a few dies, with so much memory for plans."""
    base = catalog.load_model("deepseek-v3").spec
    experts = base.experts.model_copy(
        update={
            "n_routed_experts": 6, "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 512,
            "n_group": 1, "topk_group": 1,
        }
    )  # fmt: skip
    attention = base.attention.model_copy(update={"num_attention_heads": 4, "kv_lora_rank": 128})
    model = base.model_copy(
        update={
            "hidden_size": 1024, "num_hidden_layers": 5, "first_k_dense_replace": 1, "attention": attention,
            "experts": experts,
        }
    )  # fmt: skip
    rates = rates_of("cloudmatrix384", "cann-2025")
    rates = replace(
        rates, cube_cores=10.0, **{"dies_per_package": 2, "packages_per_server": 2, "max_packages": 64} | changes
    )
    if usable is not None:
        rates = replace(rates, capacity=(usable + rates.runtime) / (rates.reported * rates.utilization), graphs=0.0)
    return Case(model=model, rates=rates, isl=3001, osl=osl, acceptance=(0.7,))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh, "LARGEST_BATCH", LARGEST)
    monkeypatch.setattr(space, "SHARED_STEP", 1)


def plans_of(case: Case, phase: Phase, sizes: list[int], choices: Choices) -> list[Walked]:
    """Return every layout of the space of a pool, evaluated one by one with plain numbers."""
    found = []
    for one in meshes(case, phase, sizes, choices):
        for index in range(math.prod(one.shape)):
            layout = one.layout_at(index)
            found.append(Walked(layout, one.family, exact_pool(layout, one.family, case).point))
    return found


def asked_for(choices: Choices = Choices(), **changes: Any) -> SearchRequest:  # noqa: B008
    """Return a request of mixed serving on two servers."""
    given: dict[str, Any] = {
        "servers": 2, "rate": None, "targets": Targets(), "utilisation": 0.83, "objective": "throughput", "top": 3,
        "serving": "mixed",
    }  # fmt: skip
    return SearchRequest(choices=choices, **(given | changes))


@dataclass(frozen=True, eq=False)
class Pair:
    """A decode and a prefill layout on the same dies, and what they do in turn."""

    decode: Walked
    prefill: Walked
    time: float
    ttft: float
    rate: float
    memory: float
    prompts: float

    @property
    def possible(self) -> bool:
        """Whether prompts find as many places as they need, and the fused kernel takes the tokens of a rank."""
        one = self.decode.layout
        fused = one.fused_experts and one.batch * (1 + one.draft) > LARGEST * one.tp
        return self.prompts <= self.decode.in_flight and not fused


def pairs_of(case: Case, sizes: list[int], choices: Choices, utilisation: float) -> tuple[list[Pair], int]:
    """Return every pair of phases on the same dies, and how many plans of a phase there are.

    They share dies, tp, replicas and the dies of an expert; shared experts have no dies of their own.
    """
    found = []
    prefills = plans_of(case, "prefill", sizes, choices)
    decodes = [one for one in plans_of(case, "decode", sizes, choices) if not one.layout.shared_ranks]
    for decode in decodes:
        for prefill in prefills:
            a, b = decode.layout, prefill.layout
            if (a.dies, a.tp, a.redundant, a.expert_tp) != (b.dies, b.tp, b.redundant, b.expert_tp):
                continue
            prompts = float(prefill.in_flight) / float(case.isl)
            foot = mixed_footprint(prefill.point, decode.point, math.ceil(prompts * a.tp / a.dies))
            found.append(
                Pair(
                    decode,
                    prefill,
                    time=float(mixed_time(prefill.point, decode.point)),
                    ttft=float(mixed_first_token(prefill.point, decode.point, case, utilisation).ttft),
                    rate=float(mixed_rate(prefill.point, decode.point)),
                    memory=float(foot.planned),
                    prompts=prompts,
                )
            )
    return found, len(prefills) + len(decodes)


SPLIT = Choices(
    offered={"prefill": {"expert_tp": (2, 4)}, "decode": {"expert_tp": (2, 4)}},
    fixed={"prefill": {"overlap": "link"}, "decode": {"exchange": "gather"}},
    kv_dtypes=("int8",),
)
FUSED = Choices(fixed={"decode": {"fused_experts": True, "overlap": "none", "exchange": "dispatch"}})
SIZES = [2, 4, 8]


def rounded(rate: float) -> float:
    """Return a rate without its last digits, in which the grid and plain numbers differ: equals stay equal."""
    return float(f"{rate:.11g}")


def at_share(values: list[float], share: float) -> float:
    """Return a limit between two of some values, above such a share of them."""
    ordered = sorted(set(values))
    place = int(share * (len(ordered) - 1))
    return (ordered[place] + ordered[place + 1]) / 2


@dataclass(frozen=True, eq=False)
class Space:
    """A space of mixed instances with limits that refuse a part of it."""

    case: Case
    pairs: list[Pair]
    asked: SearchRequest
    tpots: list[float | None]
    plans: int

    @property
    def cases(self) -> Cases:
        """Both phases on one system."""
        return Cases(prefill=self.case, decode=self.case)

    def allowed(self, tpot: float | None) -> Iterator[Pair]:
        """Yield the pairs within all limits."""
        usable, ttft = float(usable_memory(self.case.rates)), self.asked.targets.ttft
        for one in self.pairs:
            if (
                one.possible
                and one.memory <= usable
                and one.time <= (tpot or math.inf)
                and one.ttft <= (ttft or math.inf)
            ):
                yield one


def space_of(
    choices: Choices, osl: int, frontend: float | None = None, memory: float = 0.4, ttft: float | None = None
) -> Space:
    """Return a space whose memory and TTFT allow such shares of the pairs, with TPOT limits from none to too short."""
    case = small_case(osl=osl)
    case = replace(case, rates=replace(case.rates, frontend_rate=frontend, frontends=2))
    pairs, plans = pairs_of(case, SIZES, choices, 0.83)
    usable = at_share([one.memory for one in pairs], memory)
    rates = replace(
        case.rates, capacity=(usable + case.rates.runtime) / (case.rates.reported * case.rates.utilization), graphs=0.0
    )
    times = [one.time for one in pairs]
    limit = None if ttft is None else at_share([one.ttft for one in pairs], ttft)
    asked = asked_for(choices, targets=Targets(ttft=limit))
    return Space(
        replace(case, rates=rates), pairs, asked, [None, at_share(times, 0.5), at_share(times, 0.1), 1e-5], plans
    )


GATHER: Any = {"prefill": {"exchange": "gather"}, "decode": {"exchange": "gather"}}
SERIAL = Choices(fixed={"prefill": {"tp": 2}, "decode": {"overlap": "none", "tp": 2}})
ONE_DRAFT = Choices(fixed={"decode": {"overlap": "none", "draft": 1}, "prefill": {"overlap": "link"}})
PARTED = Choices(
    fixed={
        "prefill": {"cp": 2, "overlap": "link", "batch": 3},
        "decode": {"overlap": "none", "exchange": "gather", "batch": 12},
    }
)
SPACES = {
    "gathered": (Choices(fixed=GATHER), 53),
    "serial with TTFT": (SERIAL, 53, None, 0.5, 0.3),
    "less than a request a second": (SERIAL, 30011, None, 0.3),
    "split experts, front ends, TTFT": (SPLIT, 53, 6.0, 0.6, 0.4),
    "front ends that bind": (SERIAL, 53, 12.0, 0.6),
    "front ends that bind, TTFT": (SERIAL, 53, 12.0, 0.6, 0.4),
    "prompts split over two dies": (PARTED, 3001, None, 0.7),
    "fused": (FUSED, 53),
    "little memory": (ONE_DRAFT, 53, None, 0.03),
}  # fmt: skip


@pytest.mark.parametrize("given", SPACES.values(), ids=SPACES)
def test_the_best_mixed_instance_of_each_kind_is_that_of_loops(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docstring of ``mixed_joins``: the best of each size, tp, draft and family under each limit on TPOT.

    The whole order of ``throughput`` counts: the rate, then the cost, then TTFT.
    """
    monkeypatch.setattr("perfmodel.prediction.layouts.LARGEST_FUSED", LARGEST)
    one, tally = space_of(*given), Tally()
    found = mixed.mixed_joins(one.cases, SIZES, one.asked, one.tpots, tally)
    assert len(found) == len(one.tpots)
    for tpot, joins in zip(one.tpots, found, strict=True):
        best: dict[Any, tuple[float, float]] = {}
        which = {}
        for pair in one.allowed(tpot):
            layout = pair.decode.layout
            kind = layout.dies, layout.tp, layout.draft, pair.decode.family
            best[kind] = min(best.get(kind, (0.0, 0.0)), (-rounded(pair.rate), pair.ttft))
            which[layout, pair.decode.family, pair.prefill.layout, pair.prefill.family] = pair
        told = set()
        for join in joins:
            decode, prefill = join.decode, join.prefill
            pair = which[decode.layout, decode.mesh.family, prefill.layout, prefill.mesh.family]
            kind = decode.layout.dies, decode.layout.tp, decode.layout.draft, decode.mesh.family
            told.add(kind)
            assert (-pair.rate, pair.ttft) == pytest.approx(best[kind], rel=CLOSE)
            assert decode.requests_per_s == pytest.approx(pair.rate, rel=CLOSE)
            assert decode.step_time == pytest.approx(pair.decode.step, rel=CLOSE)
            assert prefill.step_time == pytest.approx(pair.prefill.step, rel=CLOSE)
            assert prefill.requests_per_s == pytest.approx(pair.prompts / pair.prefill.step, rel=CLOSE)
            assert decode.servers == prefill.servers == decode.layout.dies / 4
            assert join.ttft == pytest.approx(pair.ttft, rel=CLOSE)
            assert join.tpot_added == pytest.approx(pair.time - float(pair.decode.point.tpot), rel=1e-6)
            assert join.mixed
            assert join.prefill_instances == join.decode_instances == 8 // decode.layout.dies
            assert join.served == pytest.approx(0.83 * join.decode_instances * pair.rate, rel=CLOSE)
            servers = -(-join.decode_instances * decode.layout.dies // 4)
            assert join.key == pytest.approx((-join.served, servers, pair.ttft), rel=CLOSE)
        assert told == set(best)
        assert len(joins) == len(best)
    assert found[0]
    assert not found[-1]
    assert tally.evaluated == one.plans


@pytest.mark.parametrize("ttft", [None, 0.4])
def test_plans_that_fall_are_counted_once_for_each_limit(ttft: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One prefill layout of each kind: over memory, then over TPOT at each limit, then TTFT; the fastest split."""
    monkeypatch.setattr(mixed, "_in_time", lambda together, *_: together)
    choices = Choices(fixed={"prefill": {"batch": 2, "overlap": "link", "exchange": "gather"}, "decode": {"tp": 2}})
    one = space_of(choices, 53, memory=0.6, ttft=ttft)
    tally = Tally()
    mixed.mixed_joins(one.cases, SIZES, one.asked, one.tpots, tally)
    fastest: dict[Any, Pair] = {}
    for pair in one.pairs:
        if pair.possible:
            key = pair.decode.layout.model_copy(update={"attention_cores": 0})
            if key not in fastest or pair.decode.step < fastest[key].decode.step:
                fastest[key] = pair
    usable = float(usable_memory(one.case.rates))

    def alone(prefill: Any) -> float:
        foot = prefill.point.footprint
        return float(foot.weights) + float(foot.buffers) + float(foot.workspace)

    # prompts that pass memory alone fall before they are held against decode
    passing = [plan for plan in plans_of(one.case, "prefill", SIZES, choices) if alone(plan) > usable]
    fastest = {key: pair for key, pair in fastest.items() if alone(pair.prefill) <= usable}
    large = [pair.memory for pair in fastest.values() if pair.memory > usable]
    counted: dict[str, int] = {"memory": len(large), "prefill memory": len(passing)}
    nearest = {"memory": min(large)}
    for tpot in one.tpots:
        left = [pair for pair in fastest.values() if pair.memory <= usable]
        for name, value, limit in (("tpot", "time", tpot), ("ttft", "ttft", one.asked.targets.ttft)):
            if limit is not None:
                over = [getattr(pair, value) for pair in left if getattr(pair, value) > limit]
                counted[name] = counted.get(name, 0) + len(over)
                left = [pair for pair in left if getattr(pair, value) <= limit]
                if over:
                    nearest[name] = min(nearest.get(name, math.inf), min(over))
    assert tally.refused == counted
    assert all(counted.values())
    assert {name: value for name, (value, _, _) in tally.closest.items()} == pytest.approx(nearest, rel=CLOSE)
    assert {where for _, _, where in tally.closest.values()} == {"mixed serving"}


def test_slower_prompts_are_not_tried_where_the_fastest_already_give_the_highest_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A slower prefill step never raises the rate: with memory for all, one look at each chunk is enough."""
    looks = []
    both = mixed.mixed_time
    monkeypatch.setattr(mixed, "mixed_time", lambda *given: looks.append(1) or both(*given))
    for tpots, share in (([None], None), ([1e-5], None), ([None, 1e-5], None)):
        one = space_of(Choices(fixed={"decode": {"batch": 3, "tp": 1}}), 53, memory=0.98, ttft=share)
        one = replace(one, case=small_case(osl=53))
        chunks = [m for m in meshes(one.case, "decode", SIZES, one.asked.choices) if not m.family.own_shared_ranks]
        looks.clear()
        mixed.mixed_joins(one.cases, SIZES, one.asked, tpots, Tally())
        assert len(looks) == len(chunks) > 1


def felt(plan: Walked, ttft: bool) -> tuple[float, ...]:
    """Return what a mixed plan feels of a prefill step: time for a prompt, memory, prompts; with TTFT its length."""
    foot, tokens = plan.point.footprint, plan.in_flight
    own = (plan.step * 3001 / tokens, float(foot.buffers), float(foot.workspace), float(foot.weights), tokens)
    return (*own, plan.step) if ttft else own


@pytest.mark.parametrize("ttft", [None, 1.0])
@pytest.mark.parametrize("choices", [Choices(), SPLIT], ids=["plain", "split experts"])
def test_the_prefill_steps_kept_are_those_no_other_beats(
    ttft: float | None, choices: Choices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docstring of ``_prompts``: of one size, tp, replicas and expert dies, in time, memory, prompts and length."""
    monkeypatch.setattr(mesh, "LARGEST_BATCH", 64)
    case, tally = small_case(), Tally()
    plans = plans_of(case, "prefill", SIZES, choices)
    groups: dict[Any, list[Walked]] = {}
    for plan in plans:
        layout = plan.layout
        groups.setdefault((layout.dies, layout.tp, layout.redundant, layout.expert_tp), []).append(plan)
    found = mixed._prompts(case, SIZES, asked_for(choices, targets=Targets(ttft=ttft)), tally)
    assert tally.evaluated == len(plans)
    assert set(found) == set(groups)
    more = 0
    for kind, group in groups.items():
        costs = {felt(plan, ttft is not None) for plan in group}
        kept = [a for a in costs if not any(a != b and all(y <= x for x, y in zip(a, b, strict=True)) for b in costs)]
        told = found[kind]
        rows = [
            (p.prompt_time, p.buffers, p.workspace, p.weights, p.in_flight, p.step_time)[: 6 if ttft else 5]
            for p in told
        ]
        assert np.array(rows) == pytest.approx(np.array(sorted(kept)), rel=CLOSE)
        for one in told:
            layout, family = one.leader.layout, one.leader.mesh.family
            plan = next(p for p in group if (p.layout, p.family) == (layout, family))
            assert felt(plan, True) == pytest.approx(
                (one.prompt_time, one.buffers, one.workspace, one.weights, one.in_flight, one.step_time), rel=CLOSE
            )
            assert one.leader.requests_per_s == pytest.approx(plan.in_flight / 3001 / plan.step, rel=CLOSE)
            assert one.leader.servers == kind[0] / 4
            assert one.leader.step_time == one.step_time
        assert len({one.leader.key for one in told}) == len(told)
        more += len(told)
    assert len(groups) < more < len(plans)


def test_rows_that_no_other_is_at_or_below() -> None:
    """Docstring of ``_unbeaten``, by loops over small whole numbers with many ties."""
    chance = np.random.default_rng(5)
    for _ in range(60):
        costs = chance.integers(0, 4, size=(int(chance.integers(1, 14)), 3)).astype(float)
        rows = [tuple(row) for row in costs.tolist()]
        kept = [
            n
            for n, row in enumerate(rows)
            if row not in rows[:n]
            and not any(a != row and all(x <= y for x, y in zip(a, row, strict=True)) for a in rows)
        ]
        assert mixed._unbeaten(costs) == sorted(kept, key=lambda n: rows[n])


def stacked_from(case: Case) -> tuple[dict[tuple[int, int, int], Any], PoolPoint, tuple[int, ...]]:
    """Return the fastest prompts of some places, all of them as one, and their grid."""
    prompts = mixed._prompts(case, SIZES, asked_for(), Tally())
    rows = iter(prompts.values())
    places = {(0, 0, 0): next(rows)[0], (1, 1, 0): next(rows)[0], (2, 0, 1): next(rows)[-1]}
    shape = (3, 1, 2, 2, 1, 1, 1)
    return places, mixed._stacked(places, shape, case), shape


@pytest.mark.parametrize("frontend", [None, 7.0])
def test_prefill_steps_stacked_are_each_what_it_is_alone(frontend: float | None) -> None:
    """Docstring of ``_stacked``: each place holds its own step, not a number where there is none."""
    case = small_case()
    case = replace(case, rates=replace(case.rates, frontend_rate=frontend, frontends=3))
    places, point, shape = stacked_from(case)
    empty = set(product(*map(range, shape))) - {(n, 0, k, t, 0, 0, 0) for n, k, t in places}
    for (n, k, t), prompt in places.items():
        at = (n, 0, k, t, 0, 0, 0)
        alone = exact_pool(prompt.leader.layout, prompt.leader.mesh.family, case).point
        assert point.step_time[at] == pytest.approx(alone.step_time, rel=CLOSE)
        assert point.in_flight[at] == pytest.approx(alone.in_flight, rel=CLOSE)
        for name in ("weights", "buffers", "workspace"):
            assert getattr(point.footprint, name)[at] == pytest.approx(getattr(alone.footprint, name), rel=CLOSE)
        assert (point.tokens_per_step, point.tokens_per_request) == (alone.tokens_per_step, alone.tokens_per_request)
        assert (point.usable, point.frontend_rate) == (alone.usable, alone.frontend_rate)
    for at in empty:
        assert math.isnan(point.step_time[at])
        assert math.isnan(point.footprint.weights[at])
    others = {one.name for one in fields(Footprint)} - {"weights", "buffers", "workspace"}
    assert {getattr(point.footprint, name) for name in others} == {0.0}


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6])
def test_prompts_that_cannot_meet_ttft_at_the_highest_rate_are_left_out(share: float) -> None:
    """The step and the wait (n - 1) / (2 lambda) for a full batch, lambda being what the fastest allow."""
    case, decoded = (
        small_case(),
        Choices(fixed={"decode": {"overlap": "none", "exchange": "gather", "shared_ranks": 0}}),
    )
    one = next(iter(meshes(case, "decode", SIZES, decoded)))
    own = mixed._prompts(case, SIZES, asked_for(targets=Targets(ttft=1.0)), Tally())
    sizes, _, slots, tps, *_ = one.shape
    together = {
        (n, k, t): own.get((int(one.experts.dies[n]), int(one.tp[t]), int(one.experts.redundant[n, 0, k]), 1), [])
        for n, k, t in product(range(sizes), range(slots), range(tps))
    }
    assert any(together.values())
    decodes = [
        Walked(layout, one.family, exact_pool(layout, one.family, case).point)
        for layout in map(one.layout_at, range(math.prod(one.shape)))
    ]
    bounds: dict[Any, list[float]] = {}
    for (n, k, t), rows in together.items():
        if not rows:
            continue
        fastest = exact_pool(rows[0].leader.layout, rows[0].leader.mesh.family, case).point
        same = (int(one.experts.dies[n]), int(one.tp[t]), int(one.experts.redundant[n, 0, k]))
        arrivals = 0.83 * max(
            float(mixed_rate(fastest, d.point))
            for d in decodes
            if (d.layout.dies, d.layout.tp, d.layout.redundant) == same
        )
        bounds[n, k, t] = [row.step_time + (row.in_flight / 3001 - 1) / 2 / arrivals for row in rows]
    limit = at_share([value for each in bounds.values() for value in each], share)
    found = mixed._in_time(together, pool_point_of(one, case), one, case, 0.83, limit)
    assert set(found) == set(together)
    for place, rows in together.items():
        kept = [row for row, value in zip(rows, bounds.get(place, []), strict=True) if value <= limit]
        assert found[place] == kept
    assert mixed._in_time(together, pool_point_of(one, case), one, case, 0.83, math.inf) is together


def pool_point_of(one: mesh.Mesh, case: Case) -> PoolPoint:
    """Return a whole chunk of decode evaluated."""
    return mixed.pool_point(one.layout(), one.family, case)


def test_what_is_not_within_a_limit_is_counted_and_the_nearest_remembered() -> None:
    """Docstring of ``_within``, by a loop: equal to the limit is within it; what was refused before is not counted."""
    values, allowed = np.array([3.0, 5.0, 7.0, 11.0, np.nan]), np.array([True, True, False, True, True])
    tally = Tally()
    assert mixed._within("tpot", values, math.inf, allowed, tally) is allowed
    assert not tally.refused
    assert mixed._within("tpot", values, 5.0, allowed, tally).tolist() == [True, True, False, False, True]
    assert tally.refused == {"tpot": 1}
    assert tally.closest == {"tpot": (11.0, 5.0, "mixed serving")}
    assert mixed._within("ttft", values, 50.0, allowed, tally).tolist() == allowed.tolist()
    assert (tally.refused["ttft"], "ttft" in tally.closest) == (0, False)


def an_instance(size: float, rate: float) -> Any:
    """Return a mixed instance of so many servers."""
    nowhere: Any = None
    one = Leader(key=(1,), mesh=nowhere, index=0, requests_per_s=rate, step_time=0.01, servers=size)
    return mixed.Instance(decode=one, prefill=replace(one, key=(2,)), rate=rate, ttft=0.7, added=0.003)


def most_packed(size: float, servers: int, domain: int | None) -> int:
    """Return how many instances fit, none over two domains."""
    rooms = [servers] if domain is None else [min(domain, servers - at) for at in range(0, servers, domain)]
    return sum(max(n for n in range(100) if n * size <= room + CLOSE) for room in rooms)


@pytest.mark.parametrize("objective", ["throughput", "cards", "per-card", "cost"])
def test_as_many_mixed_instances_are_taken_as_pay(objective: Any) -> None:
    """Every count that packs, in a loop; whole servers; what decides is the objective, then its later keys."""
    rates = (None, 8.0, 24.0, 24.0 + 1e-9, 1000.0)
    for domain, rate, size in product((None, 4), rates, (0.25, 0.5, 1.0, 3.0, 1.1, 7.0, 12.0)):
        as_many_pay(domain, rate, size, objective)


def as_many_pay(domain: int | None, rate: float | None, size: float, objective: Any) -> None:
    """Compare instances of one size at one rate asked for."""
    asked = asked_for(
        servers=11, rate=rate, utilisation=0.8, objective=objective, prices=(100.0, 7.0), domains=(1, domain)
    )
    tally, best, short = Tally(), None, []
    for count in range(1, most_packed(size, 11, domain) + 1):
        served = count * 8.0
        if rate is not None and served < rate * (1 - CLOSE):
            short.append(served)
            continue
        served = served if rate is None else min(served, rate)
        used = next(n for n in range(1, 12) if n >= count * size - 1e-6)
        money = used * (1.0 if objective in ("per-card", "cards") else 7.0)
        first = {"throughput": -served, "cards": money}.get(objective, money if rate is not None else money / served)
        second = money if objective == "throughput" else -served
        one = (first, second, 0.7), count, served
        if best is None or one[0] < best[0]:
            best = one
    found = next(iter(mixed.joins_of([an_instance(size, 10.0)], asked, tally)), None)
    fits = most_packed(size, 11, domain) > 0
    assert tally.refused == ({"rate": len(short)} if rate is not None and fits else {})
    if best is None:
        assert found is None
        assert tally.closest == ({"rate": (-max(short), -rate, "within the budget")} if short and rate else {})
    else:
        assert found is not None
        assert (found.key, found.served) == (pytest.approx(best[0], rel=CLOSE), pytest.approx(best[2], rel=CLOSE))
        assert found.decode_instances == found.prefill_instances == best[1]
        assert (found.ttft, found.tpot_added, found.mixed) == (0.7, 0.003, True)
        assert (found.decode.key, found.prefill.key) == ((1,), (2,))
