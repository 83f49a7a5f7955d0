"""The same question with the layout of a pool given: the best deployment with it, or which limit refuses it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from perfmodel.algebra import as_array, as_float
from perfmodel.ledger.records import Family
from perfmodel.prediction.deployment import ROUND_OFF, ROUNDING, PoolPlan
from perfmodel.prediction.layouts import attention_core_options, layout_faults, too_many_tokens
from perfmodel.prediction.serving import Case, first_token, pool_point, usable_memory
from perfmodel.solver.both_pools import deployment, most_of_decode, sizes_of, step_limits
from perfmodel.solver.join import Join, Prefills, fastest_of_a_size, joined
from perfmodel.solver.mesh import Grid, Leader, Mesh, largest_batch
from perfmodel.solver.refit import refitted, with_least_batches
from perfmodel.solver.request import Cases, SearchRequest, value
from perfmodel.solver.search import best_decode, undominated
from perfmodel.solver.solution import REFUSING, GivenOutcome, Refused
from perfmodel.solver.space import AXES, PREFILL_BATCHES, ExpertLayouts, Structure
from perfmodel.solver.tally import Tally
from perfmodel.specs.deployment import PHASES, LayoutShape, LayoutSpec, Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Layouts of one pool or both, by the rows that state them; of several cases the best is told."""

    rows: tuple[str, ...]
    cases: tuple[Mapping[Phase, LayoutShape], ...]
    #: why the software of the question does not run it; nothing where it does
    lacking: str = ""

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Pools whose layout is given."""
        return tuple(phase for phase in PHASES if phase in self.cases[0])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Pool:
    """A pool of given layout at every batch, and core split where it states none."""

    mesh: Mesh
    #: where memory, and TPOT in decode, are within their limits
    meets: NDArray[np.bool_]
    step: Grid
    rate: Grid
    #: up to the first decode step, in prefill alone
    ttft: Grid | None = None

    def leader(self, index: int, case: Case) -> Leader:
        """Return it as the search has instances."""
        dies = float(self.mesh.experts.dies[0])
        return Leader(
            key=(dies, index, self.mesh.family),
            mesh=self.mesh,
            index=index,
            requests_per_s=float(self.rate.flat[index]),
            step_time=float(self.step.flat[index]),
            servers=dies / case.rates.dies_per_server,
        )

    def fullest(self, case: Case, allowed: NDArray[np.bool_] | None = None) -> Leader | None:
        """Return it at its highest rate where that is allowed; none where nothing is."""
        rates = np.where(self.meets if allowed is None else self.meets & allowed, self.rate, -1.0)
        index = int(rates.argmax())
        return self.leader(index, case) if rates.flat[index] > 0 else None

    def in_time(self, longest: float) -> NDArray[np.bool_]:
        """Return where the first token of a prompt comes in time, its first decode step apart."""
        assert self.ttft is not None
        return self.ttft <= longest


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tried:
    """One case of given layouts under one cache precision."""

    pools: Mapping[Phase, _Pool]
    join: Join | None = None
    refused: Refused | None = None

    @property
    def order(self) -> tuple[float, ...]:
        """What orders cases: deployments by their key, then those that are refused last."""
        if self.join is not None:
            return (0.0, *self.join.key)
        assert self.refused is not None
        return (1.0, -REFUSING.index(self.refused.constraint))


def full_pools(best: Join, cases: Cases, request: SearchRequest) -> dict[Phase, PoolPlan]:
    """Return the pools of a deployment, each at the batch of its highest rate within its limits."""
    decode = refitted(best.decode, cases.decode, request.targets.tpot or math.inf)
    full: dict[Phase, PoolPlan] = {"decode": decode.plan(cases.decode)}
    if best.mixed:
        return full
    plan = best.prefill.plan(cases.prefill)
    pool = _pool(plan.layout, "prefill", plan.family.kv_dtype, cases.prefill, request)
    full["prefill"] = plan if isinstance(pool, Refused) else _full(pool, cases, request, best.decode) or plan
    return full


def _full(pool: _Pool, cases: Cases, request: SearchRequest, decode: Leader) -> PoolPlan | None:
    """Return a pool at its highest rate; of prefill within TTFT beside a decode instance."""
    if pool.ttft is None:
        leader = pool.fullest(cases.decode)
        return None if leader is None else leader.plan(cases.decode)
    ttft = request.targets.ttft
    leader = pool.fullest(cases.prefill, pool.in_time(math.inf if ttft is None else ttft - decode.step_time))
    return None if leader is None else leader.plan(cases.prefill)


def outcomes(
    given: Sequence[Given],
    joins: Sequence[Join],
    columns: Mapping[str, Prefills],
    cases: Cases,
    request: SearchRequest,
    best: Join,
) -> tuple[GivenOutcome, ...]:
    """Return where each given layout leads, everything else of the question chosen anew.

    ``joins`` and ``columns`` are of the search.  Nothing where pools are not searched apart: given layouts are.
    """
    found = []
    for one in given if columns else ():
        outcome = GivenOutcome(rows=one.rows, layouts=one.cases[0])
        if one.lacking:
            found.append(replace(outcome, refused=Refused(constraint="software", words=one.lacking)))
            continue
        tried = [
            (_tried(layouts, kv_dtype, joins, columns[kv_dtype], cases, request), layouts)
            for layouts, kv_dtype in product(one.cases, columns)
        ]
        top, layouts = min(tried, key=lambda pair: pair[0].order)
        outcome = replace(outcome, layouts=layouts, refused=top.refused)
        join = best
        if top.join is not None:
            (join,) = with_least_batches([top.join], cases, request)
            loss = value(request, join.key) / value(request, best.key) - 1
            outcome = replace(outcome, deployment=deployment(join, cases, request.utilisation), loss=loss)
        full = {phase: _full(pool, cases, request, join.decode) for phase, pool in top.pools.items()}
        found.append(replace(outcome, pools={phase: plan for phase, plan in full.items() if plan is not None}))
    return tuple(found)


def _tried(
    layouts: Mapping[Phase, LayoutShape],
    kv_dtype: str,
    joins: Sequence[Join],
    prefills: Prefills,
    cases: Cases,
    request: SearchRequest,
) -> _Tried:
    """Return the best deployment with these layouts, or the first limit that refuses them."""
    each = {
        phase: _pool(layout, phase, kv_dtype, cases.decode if phase == "decode" else cases.prefill, request)
        for phase, layout in layouts.items()
    }
    pools = {phase: one for phase, one in each.items() if isinstance(one, _Pool)}
    refused = [one for one in each.values() if isinstance(one, Refused)] or list(
        _beyond_domain(layouts, cases, request)
    )
    if refused:
        return _Tried(pools=pools, refused=min(refused, key=lambda one: REFUSING.index(one.constraint)))
    if "prefill" in pools:
        prefills = _prefills(pools["prefill"], cases.prefill, request)
    steps = step_limits(prefills, request, cases.decode)
    if "decode" in pools:
        decodes = _leaders(pools["decode"], cases.decode, steps)
    else:
        own = [join.decode for join in joins if not join.mixed and join.decode.mesh.family.kv_dtype == kv_dtype]
        decodes = fastest_of_a_size(own)
    tally = Tally()
    found = joined(decodes, prefills, request, tally)
    if not found and "decode" not in pools and (request.targets.ttft is not None or not decodes):
        # the search kept decode instances for its own prefill candidates: others may leave another time for a step
        choices = replace(request.choices, kv_dtypes=(kv_dtype,))
        sizes = sizes_of(cases.decode, most_of_decode(request), request.domains[1])
        searched = Tally()
        decodes = best_decode(cases.decode, sizes, request.targets.tpot, steps, choices, searched)
        tally = Tally() if decodes else searched
        found = joined(decodes, prefills, request, tally)
    if found:
        return _Tried(pools=pools, join=min(found, key=lambda join: join.key))
    return _Tried(pools=pools, refused=_refusal(decodes, prefills, cases, request, tally))


def _pool(layout: LayoutShape, phase: Phase, kv_dtype: str, case: Case, request: SearchRequest) -> _Pool | Refused:
    """Return a pool of a layout at every batch that meets its own limits; or why it cannot be."""
    mesh = _mesh(layout, phase, kv_dtype, case, request)
    if isinstance(mesh, Refused):
        return mesh
    point = pool_point(mesh.layout(), mesh.family, case)
    memory, time, rate, step = (
        np.broadcast_to(as_array(each), mesh.shape)
        for each in (point.memory, point.tpot, point.requests_per_s, point.step_time)
    )
    limit = as_float(usable_memory(case.rates))
    meets = np.broadcast_to((memory <= limit) & ~np.asarray(too_many_tokens(mesh.layout(), mesh.family)), mesh.shape)
    if not meets.any():
        name = "memory" if phase == "decode" else "prefill memory"
        return Refused(constraint=name, closest=float(memory.min()), limit=limit, unit="B")
    if phase == "prefill":
        terms = first_token(
            prefill=point, layout=mesh.layout(), case=case, utilisation=request.utilisation, decode_step=0.0
        )
        return _Pool(
            mesh=mesh, meets=meets, step=step, rate=rate, ttft=np.broadcast_to(as_array(terms.ttft), mesh.shape)
        )
    longest = request.targets.tpot
    if longest is not None:
        fits, meets = meets, meets & (time <= longest * (1 + ROUND_OFF))
        if not meets.any():
            return Refused(constraint="tpot", closest=float(time[fits].min()), limit=longest, unit="s")
    return _Pool(mesh=mesh, meets=meets, step=step, rate=rate)


def _mesh(layout: LayoutShape, phase: Phase, kv_dtype: str, case: Case, request: SearchRequest) -> Mesh | Refused:
    """Return a layout at every batch, and core split where it states none; or why it cannot be."""
    cores = attention_core_options(layout.overlap, case.rates)
    if layout.attention_cores:
        cores = np.array([layout.attention_cores], dtype=np.float64)
    spec = LayoutSpec(**{**layout.model_dump(), "attention_cores": int(cores[0]), "batch": 1})
    faults = layout_faults(spec, phase, case.model, case.rates)
    if faults:
        return Refused(constraint="layout", words="; ".join(faults))
    if phase == "decode" and spec.draft > len(case.acceptance):
        return Refused(constraint="acceptance", closest=spec.draft, limit=len(case.acceptance), unit="1")
    choices = request.choices
    family = Family.of(
        spec,
        phase,
        precision=choices.precision,
        kv_dtype=kv_dtype,
        expert_weights=choices.expert_weights,
    )
    structure = Structure(family=family, keys={k: one for k, one in spec.model_dump().items() if k not in AXES})
    largest = largest_batch(case, structure)
    decode = phase == "decode"
    batches = range(1, largest + 1) if decode else [one for one in PREFILL_BATCHES if one <= largest]
    return Mesh(
        structure=structure,
        experts=ExpertLayouts(
            dies=np.array([spec.dies], dtype=np.float64),
            shared_ranks=np.array([spec.shared_ranks], dtype=np.float64),
            redundant=np.array([[[spec.redundant]]], dtype=np.float64),
        ),
        tp=np.array([spec.tp], dtype=np.float64),
        draft=np.array([spec.draft if decode else min(1, len(case.acceptance))], dtype=np.float64),
        cores=cores,
        batch=np.array(batches, dtype=np.float64),
    )


def _leaders(pool: _Pool, case: Case, steps: Sequence[float]) -> list[Leader]:
    """Return a decode instance at its highest rate under each step limit, and under none."""
    limits = sorted({*steps, math.inf})
    found = [pool.fullest(case, pool.step <= limit * (1 + ROUND_OFF)) for limit in limits]
    return list({one.index: one for one in found if one is not None}.values())


def _prefills(pool: _Pool, case: Case, request: SearchRequest) -> Prefills:
    """Return a prefill instance at the batches that none beats in rate and TTFT."""
    assert pool.ttft is not None
    fits = np.flatnonzero(pool.meets)
    ttft = pool.ttft.ravel()[fits]
    kept = undominated(ttft, pool.rate.ravel()[fits])
    plans = [pool.leader(int(index), case) for index in fits[kept]]
    return Prefills(
        plans=plans,
        servers=np.array([plan.servers for plan in plans]),
        rate=np.array([plan.requests_per_s * request.utilisation for plan in plans]),
        ttft=ttft[kept],
    )


def _beyond_domain(layouts: Mapping[Phase, LayoutShape], cases: Cases, request: SearchRequest) -> Iterator[Refused]:
    """Yield each pool whose instance spans more servers than a supernode or server group has."""
    for phase, case, domain in zip(PHASES, (cases.prefill, cases.decode), request.domains, strict=True):
        if phase in layouts and domain is not None:
            servers = layouts[phase].dies / case.rates.dies_per_server
            if servers > domain + ROUNDING:
                each = case.rates.packages_per_server
                yield Refused(constraint="cards", closest=servers * each, limit=domain * each, unit="1")


def _refusal(
    decodes: Sequence[Leader], prefills: Prefills, cases: Cases, request: SearchRequest, tally: Tally
) -> Refused:
    """Return which limit of the whole deployment refuses pools that are within their own."""
    missed = {one.constraint: one for one in tally.rejections() if math.isfinite(one.closest)}
    names = ("rate", "ttft") if decodes else REFUSING  # what falls short of the rate has met the limits before it
    for name in names:
        if name in missed:
            one = missed[name]
            return Refused(constraint=name, closest=one.closest, limit=one.limit, unit=one.unit)
    if not prefills.plans:  # mixed instances alone have room: they share weights
        return Refused(constraint="prefill memory", words="no prefill instance that the budget has room for fits")
    each = cases.decode.rates.packages_per_server
    # a budget without room for an instance of decode leaves none to name the smallest of
    needed = math.ceil(min((one.servers for one in decodes), default=1) - ROUNDING)
    if request.prefill_servers is None:
        needed += math.ceil(float(prefills.servers.min()) - ROUNDING)
    elif needed <= request.servers:
        each = cases.prefill.rates.packages_per_server
        least = math.ceil(float(prefills.servers.min()) - ROUNDING)
        return Refused(constraint="cards", closest=least * each, limit=request.prefill_servers * each, unit="1")
    return Refused(constraint="cards", closest=needed * each, limit=request.servers * each, unit="1")
