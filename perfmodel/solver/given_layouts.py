"""The same question with the layout of a pool given: the best deployment with it, or which limit refuses it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import cast

import numpy as np

from perfmodel.algebra import as_array, as_float
from perfmodel.ledger.records import Family
from perfmodel.prediction.deployment import ROUND_OFF, ROUNDING, PoolPlan
from perfmodel.prediction.layouts import attention_core_options, layout_faults, too_many_tokens
from perfmodel.prediction.serving import Case, first_token, pool_point, usable_memory
from perfmodel.solver.both_pools import deployment, most_of_decode, sizes_of, step_limits
from perfmodel.solver.join import Join, Prefills, joined, prefill_columns
from perfmodel.solver.mesh import Leader, Mesh, largest_batch
from perfmodel.solver.refit import with_least_batches
from perfmodel.solver.request import Cases, SearchRequest, value
from perfmodel.solver.search import best_decode, undominated
from perfmodel.solver.solution import REFUSING, GivenOutcome, Refused
from perfmodel.solver.space import AXES, PREFILL_BATCHES, ExpertLayouts, Structure
from perfmodel.solver.tally import Tally
from perfmodel.specs.deployment import PHASES, KvDtype, LayoutShape, LayoutSpec, Phase


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tried:
    """One case of given layouts under one cache precision."""

    pools: Mapping[Phase, PoolPlan]
    join: Join | None = None
    refused: Refused | None = None


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
        if one.lacking:
            found.append(
                GivenOutcome(
                    rows=one.rows, phases=one.phases, refused=Refused(constraint="software", words=one.lacking)
                )
            )
            continue
        tried = [
            _tried(layouts, kv_dtype, joins, columns[kv_dtype], cases, request)
            for layouts, kv_dtype in product(one.cases, columns)
        ]
        top = min(tried, key=_order)
        found.append(_outcome(one, top, cases, request, best))
    return tuple(found)


def _order(one: _Tried) -> tuple[float, ...]:
    """Return what orders cases: deployments by their key, then those that are refused last."""
    if one.join is not None:
        return (0.0, *one.join.key)
    return (1.0, -REFUSING.index(one.refused.constraint) if one.refused else 0.0)


def _outcome(given: Given, tried: _Tried, cases: Cases, request: SearchRequest, best: Join) -> GivenOutcome:
    if tried.join is None:
        return GivenOutcome(rows=given.rows, phases=given.phases, pools=tried.pools, refused=tried.refused)
    (join,) = with_least_batches([tried.join], cases, request)
    pools = dict(tried.pools)
    if "prefill" in pools:
        pools["prefill"] = join.prefill.plan(cases.prefill)
    return GivenOutcome(
        rows=given.rows,
        phases=given.phases,
        pools=pools,
        deployment=deployment(join, cases, request.utilisation),
        loss=value(request, join.key) / value(request, best.key) - 1,
    )


def _tried(
    layouts: Mapping[Phase, LayoutShape],
    kv_dtype: str,
    joins: Sequence[Join],
    prefills: Prefills,
    cases: Cases,
    request: SearchRequest,
) -> _Tried:
    """Return the best deployment with these layouts, or the first limit that refuses them."""
    pools: dict[Phase, PoolPlan] = {}
    meshes: dict[Phase, Mesh] = {}
    refused = []
    for phase, layout in layouts.items():
        case = cases.decode if phase == "decode" else cases.prefill
        mesh = _mesh(layout, phase, kv_dtype, case, request)
        if isinstance(mesh, Mesh):
            meshes[phase] = mesh
            mesh_or_none = _within(mesh, case, request)
            if isinstance(mesh_or_none, Refused):
                mesh = mesh_or_none
            else:
                pools[phase] = mesh_or_none.plan(case)
        if isinstance(mesh, Refused):
            refused.append(mesh)
    if not refused:
        refused += _beyond_domain(layouts, cases, request)
    if refused:
        return _Tried(pools=pools, refused=min(refused, key=lambda one: REFUSING.index(one.constraint)))
    if "prefill" in meshes:
        prefills = _prefills(meshes["prefill"], cases.prefill, request)
    tally = Tally()
    if "decode" in meshes:
        steps = step_limits(prefills, request, cases.decode)
        decodes = list(_leaders(meshes["decode"], cases.decode, request, steps))
    else:
        own = [join.decode for join in joins if not join.mixed and join.decode.mesh.family.kv_dtype == kv_dtype]
        decodes = list({id(one): one for one in own}.values())
    found = joined(decodes, prefills, request, tally)
    if not found and "decode" not in meshes and request.targets.ttft is not None:
        # the search kept decode instances for its own prefill candidates: other step times may be left here
        choices = replace(request.choices, kv_dtypes=(cast(KvDtype, kv_dtype),))
        sizes = sizes_of(cases.decode, most_of_decode(request), request.domains[1])
        steps = step_limits(prefills, request, cases.decode)
        tally = Tally()
        decodes = best_decode(cases.decode, sizes, request.targets.tpot, steps, choices, Tally())
        found = joined(decodes, prefills, request, tally)
    if found:
        return _Tried(pools=pools, join=min(found, key=lambda join: join.key))
    return _Tried(pools=pools, refused=_refusal(decodes, prefills, cases, request, tally))


def _mesh(
    layout: LayoutShape, phase: Phase, kv_dtype: str, case: Case, request: SearchRequest
) -> Mesh | Refused:
    """Return a layout at every batch, and core split where it states none; or why it cannot be."""
    cores = attention_core_options(layout.overlap, case.rates)
    if layout.attention_cores:
        cores = np.array([layout.attention_cores], dtype=np.float64)
    spec = LayoutSpec(**{**layout.model_dump(), "attention_cores": int(cores[0]), "batch": 1})
    faults = layout_faults(spec, phase, case.model, case.rates)
    if faults:
        return Refused(constraint="layout", words="; ".join(faults))
    if spec.draft > len(case.acceptance):
        return Refused(constraint="acceptance", closest=spec.draft, limit=len(case.acceptance), unit="1")
    choices = request.choices
    family = Family.of(
        spec,
        phase,
        precision=choices.precision,
        kv_dtype=cast(KvDtype, kv_dtype),
        expert_weights=choices.expert_weights,
    )
    keys = {key: one for key, one in spec.model_dump().items() if key not in AXES}
    structure = Structure(family=family, keys=keys)
    largest = largest_batch(case, structure)
    batches = range(1, largest + 1) if phase == "decode" else [one for one in PREFILL_BATCHES if one <= largest]
    draft = spec.draft if phase == "decode" else min(1, len(case.acceptance))
    return Mesh(
        structure=structure,
        experts=ExpertLayouts(
            dies=np.array([spec.dies], dtype=np.float64),
            shared_ranks=np.array([spec.shared_ranks], dtype=np.float64),
            redundant=np.array([[[spec.redundant]]], dtype=np.float64),
        ),
        tp=np.array([spec.tp], dtype=np.float64),
        draft=np.array([draft], dtype=np.float64),
        cores=cores,
        batch=np.array(list(batches), dtype=np.float64),
    )


def _leader(mesh: Mesh, index: int, requests_per_s: float, step_time: float, case: Case) -> Leader:
    dies = float(mesh.experts.dies[0])
    return Leader(
        key=(dies, index, mesh.family),
        mesh=mesh,
        index=index,
        requests_per_s=requests_per_s,
        step_time=step_time,
        servers=dies / case.rates.dies_per_server,
    )


def _within(mesh: Mesh, case: Case, request: SearchRequest) -> Leader | Refused:
    """Return a pool at the batch of its highest rate within its own limits, or the limit that none meets."""
    point = pool_point(mesh.layout(), mesh.family, case)
    memory, time, rate, step = (
        np.broadcast_to(as_array(each), mesh.shape)
        for each in (point.memory, point.tpot, point.requests_per_s, point.step_time)
    )
    decode = mesh.family.phase == "decode"
    limit = as_float(usable_memory(case.rates))
    fits = np.broadcast_to((memory <= limit) & ~np.asarray(too_many_tokens(mesh.layout(), mesh.family)), mesh.shape)
    if not fits.any():
        name = "memory" if decode else "prefill memory"
        return Refused(constraint=name, closest=float(memory.min()), limit=limit, unit="B")
    if decode and request.targets.tpot is not None:
        longest = request.targets.tpot
        meets = fits & (time <= longest * (1 + ROUND_OFF))
        if not meets.any():
            return Refused(constraint="tpot", closest=float(time[fits].min()), limit=longest, unit="s")
        fits = meets
    index = int(np.where(fits, rate, -1.0).argmax())
    return _leader(mesh, index, float(rate.flat[index]), float(step.flat[index]), case)


def _leaders(mesh: Mesh, case: Case, request: SearchRequest, steps: Sequence[float]) -> Iterator[Leader]:
    """Yield a decode instance at its highest rate under each step limit, and TPOT."""
    point = pool_point(mesh.layout(), mesh.family, case)
    memory, time, rate, step = (
        np.broadcast_to(as_array(each), mesh.shape)
        for each in (point.memory, point.tpot, point.requests_per_s, point.step_time)
    )
    fits = (memory <= as_float(usable_memory(case.rates))) & ~np.asarray(too_many_tokens(mesh.layout(), mesh.family))
    if request.targets.tpot is not None:
        fits = fits & (time <= request.targets.tpot * (1 + ROUND_OFF))
    for limit in sorted({*steps, math.inf}):
        rates = np.where(fits & (step <= limit * (1 + ROUND_OFF)), rate, -1.0)
        index = int(rates.argmax())
        if rates.flat[index] > 0:
            yield _leader(mesh, index, float(rates.flat[index]), float(step.flat[index]), case)


def _prefills(mesh: Mesh, case: Case, request: SearchRequest) -> Prefills:
    """Return a prefill instance at the batches that none beats in rate and TTFT."""
    point = pool_point(mesh.layout(), mesh.family, case)
    terms = first_token(
        prefill=point, layout=mesh.layout(), case=case, utilisation=request.utilisation, decode_step=0.0
    )
    memory, time, rate, ttft = (
        np.broadcast_to(as_array(each), mesh.shape).ravel()
        for each in (point.memory, point.tpot, point.requests_per_s, terms.ttft)
    )
    fits = np.flatnonzero(memory <= as_float(usable_memory(case.rates)))
    kept = fits[undominated(ttft[fits], rate[fits])]
    leaders = [_leader(mesh, index, float(rate[index]), float(time[index]), case) for index in kept.tolist()]
    return prefill_columns(leaders, case, request.utilisation)


def _beyond_domain(
    layouts: Mapping[Phase, LayoutShape], cases: Cases, request: SearchRequest
) -> Iterator[Refused]:
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
    for name in ("rate", "ttft"):  # what falls short of the rate has met the limits before it
        if name in missed:
            one = missed[name]
            return Refused(constraint=name, closest=one.closest, limit=one.limit, unit=one.unit)
    each = cases.decode.rates.packages_per_server
    needed = math.ceil(min(one.servers for one in decodes) - ROUNDING)
    if request.prefill_servers is None:
        needed += math.ceil(float(prefills.servers.min()) - ROUNDING)
    elif needed <= request.servers:
        each = cases.prefill.rates.packages_per_server
        least = math.ceil(float(prefills.servers.min()) - ROUNDING)
        return Refused(constraint="cards", closest=least * each, limit=request.prefill_servers * each, unit="1")
    return Refused(constraint="cards", closest=needed * each, limit=request.servers * each, unit="1")
