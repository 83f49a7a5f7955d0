"""Mixed serving: every instance runs prefill and decode on the same dies, in turn."""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from perfmodel.algebra import Num, as_array, as_float
from perfmodel.ledger.footprint import Footprint
from perfmodel.prediction.deployment import ROUNDING
from perfmodel.prediction.layouts import too_many_tokens
from perfmodel.prediction.mixed import mixed_first_token, mixed_footprint, mixed_rate, mixed_time, prompt_time
from perfmodel.prediction.serving import Case, PoolPoint, pool_point, usable_memory
from perfmodel.solver.join import Join, first_of, packed
from perfmodel.solver.mesh import CORES, Grid, Leader, Mesh, meshes
from perfmodel.solver.request import Cases, SearchRequest, keys
from perfmodel.solver.search import highest
from perfmodel.solver.tally import Tally


@dataclass(frozen=True, slots=True, eq=False)
class _Prompt:
    """A prefill step, and what a mixed plan feels of it."""

    leader: Leader
    prompt_time: float
    step_time: float
    in_flight: float
    weights: float
    buffers: float
    workspace: float


#: by size, tp, replicas and dies of an expert
Prompts = dict[tuple[int, int, int, int], list[_Prompt]]
#: by place of size, slots and tp in a mesh
Together = dict[tuple[int, int, int], list[_Prompt]]


def _prompts(case: Case, sizes: list[int], request: SearchRequest, tally: Tally) -> Prompts:
    """Return the prefill steps that no other beats, the fastest for a prompt first.

    They are told apart by size, tp, replicas and dies of an expert.

    One beats another that is no faster for a prompt, works no fewer prompts and takes no less memory: everything that
    the mixed plan feels of it, since the time for a prompt times the prompts is the length of the step.
    """
    found: Prompts = {}
    chunks = list(meshes(case, "prefill", sizes, request.choices))
    if not chunks:  # what is fixed leaves no degree of parallelism on these sizes
        return found
    columns = []
    for number, mesh in enumerate(chunks):
        point = pool_point(mesh.layout(), mesh.family, case)
        layout = mesh.layout()
        foot = point.footprint
        each: list[Num] = [layout.dies, layout.tp, layout.redundant, mesh.structure.keys.get("expert_tp", 1)]
        each += [prompt_time(point), foot.buffers, foot.workspace, foot.weights, point.in_flight, point.step_time]
        size = math.prod(mesh.shape)
        tally.evaluated += size
        filled = (np.broadcast_to(as_array(one), mesh.shape).ravel() for one in (*each, number))
        columns.append(np.stack([*filled, np.arange(size, dtype=np.float64)]))
    rows = np.concatenate(columns, axis=1).T
    kinds, kind_of = np.unique(rows[:, :4], axis=0, return_inverse=True)
    order = np.argsort(kind_of.ravel(), kind="stable")
    felt = slice(4, 9)  # from the time for a prompt to the prompts
    each_kind = np.split(rows[order], np.cumsum(np.bincount(kind_of.ravel()))[:-1])
    for kind, own in zip(kinds.tolist(), each_kind, strict=True):
        dies, tp, redundant, split = map(int, kind)
        found[dies, tp, redundant, split] = []
        for index in _unbeaten(own[:, felt]):
            each_prompt, buffers, workspace, weights, in_flight, step, number, place = own[index, 4:].tolist()
            leader = Leader(
                key=(*kind, index),
                mesh=chunks[int(number)],
                index=int(place),
                requests_per_s=1 / each_prompt,
                step_time=step,
                servers=dies / case.rates.dies_per_server,
            )
            found[dies, tp, redundant, split].append(
                _Prompt(leader, each_prompt, step, in_flight, weights, buffers, workspace)
            )
    return found


def _unbeaten(costs: Grid) -> list[int]:
    """Return the rows that no other is at or below in every column, the first of equals.

    >>> _unbeaten(np.array([[1.0, 2.0], [2.0, 1.0], [2.0, 2.0], [1.0, 2.0]]))
    [0, 1]
    """
    kept: list[int] = []
    for row in np.lexsort(costs.T[::-1]).tolist():  # what beats a row is before it
        if not kept or not (costs[kept] <= costs[row]).all(axis=1).any():
            kept.append(row)
    return kept


def _stacked(prompts: dict[tuple[int, int, int], _Prompt], shape: tuple[int, ...], case: Case) -> PoolPoint:
    """Return prefill steps of the sizes, slots and tp degrees of a mesh as one, not a number where there is none."""

    def column(name: str) -> Any:
        filled = np.full(shape, np.nan)
        for (n, k, t), prompt in prompts.items():
            filled[n, 0, k, t] = getattr(prompt, name)
        return filled

    foot: dict[str, Any] = {one.name: 0.0 for one in fields(Footprint)}
    foot |= {name: column(name) for name in ("weights", "buffers", "workspace")}
    return PoolPoint(
        step_time=column("step_time"),
        in_flight=column("in_flight"),
        tokens_per_step=1.0,
        tokens_per_request=case.isl,
        footprint=Footprint(**foot),
        usable=usable_memory(case.rates),
        frontend_rate=None if case.rates.frontend_rate is None else case.rates.frontends * case.rates.frontend_rate,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Instance:
    """The best mixed instance of a size, tp, draft and family; ``rate`` is at full load."""

    decode: Leader
    prefill: Leader
    rate: float
    ttft: float
    added: float

    @property
    def worth(self) -> tuple[float, float]:
        """What orders instances of one size, the best last: the rate, then the shortest TTFT."""
        return self.rate, -self.ttft


#: best instances of a chunk under each TPOT limit
OfLimit = list[list[Instance]]


def _of_mesh(
    mesh: Mesh, prompts: Prompts, cases: Cases, request: SearchRequest, tpots: Sequence[float | None]
) -> tuple[OfLimit, Tally]:
    """Return the best instance of each size, tp and draft of a chunk, over all prefill steps that go with it.

    They are found for each of several limits on TPOT in one pass.
    """
    case, tally = cases.decode, Tally()
    point = pool_point(mesh.layout(), mesh.family, case)
    steps = np.broadcast_to(as_array(point.step_time), mesh.shape)
    shortest = steps.min(axis=CORES, keepdims=True)
    best = replace(point, step_time=shortest)
    grid = shortest.shape
    tpot = np.broadcast_to(as_array(best.tpot), grid)
    usable = as_float(usable_memory(case.rates))
    fits = np.broadcast_to(as_array(best.memory) <= usable, grid)
    busy = np.broadcast_to(np.asarray(too_many_tokens(mesh.layout(), mesh.family)), grid)
    sizes, _, slots, tps, *_ = mesh.shape
    split = mesh.structure.keys.get("expert_tp", 1)
    together: Together = {
        (n, k, t): prompts.get(
            (int(mesh.experts.dies[n]), int(mesh.tp[t]), int(mesh.experts.redundant[n, 0, k]), split), []
        )
        for n, k, t in np.ndindex(sizes, slots, tps)
    }
    together = _in_time(together, best, mesh, case, request)
    instances: list[dict[tuple[int, int, int], Instance]] = [{} for _ in tpots]
    left = set(range(len(tpots)))
    for depth in range(max(map(len, together.values()), default=0)):
        if not left:
            break
        chosen = {place: rows[depth] for place, rows in together.items() if depth < len(rows)}
        prefill = _stacked(chosen, (sizes, 1, slots, tps, 1, 1, 1), case)
        time = np.broadcast_to(as_array(mixed_time(prefill, best)), grid)
        terms = mixed_first_token(prefill, best, case, request.utilisation)
        ttft = np.broadcast_to(as_array(terms.ttft), grid)
        rate = np.broadcast_to(as_array(mixed_rate(prefill, best)), grid)
        prompts_at_once = as_array(prefill.in_flight / prefill.tokens_per_request)
        # as many prompts at once as there are sequences whose places they take
        possible = ~np.isnan(time) & ~busy & (prompts_at_once <= as_array(point.in_flight))
        foot = mixed_footprint(prefill, best, prompts_at_once / mesh.layout().ranks)
        memory = np.broadcast_to(as_array(foot.planned), grid)
        possible = _within("memory", memory, usable, possible, tally)
        for at in sorted(left):
            asked = tpots[at]
            allowed = _within("tpot", time, asked, possible, tally)
            allowed = _within("ttft", ttft, request.targets.ttft, allowed, tally)
            rates, places = highest(np.where(allowed, rate, -1.0).squeeze(CORES), ttft.squeeze(CORES))
            for n, t, d in np.argwhere(rates > 0).tolist():
                s, k, b = (int(places[axis][n, t, d]) for axis in (1, 2, 5))
                place = (n, s, k, t, d, 0, b)
                before = instances[at].get((n, t, d))
                if before is not None and before.worth >= (rates[n, t, d], -ttft[place]):
                    continue
                cores = int(steps[n, s, k, t, d, :, b].argmin())
                dies = int(mesh.experts.dies[n])
                leader = Leader(
                    key=(dies, t, d, mesh.family, "mixed"),
                    mesh=mesh,
                    index=int(np.ravel_multi_index((n, s, k, t, d, cores, b), mesh.shape)),
                    requests_per_s=float(rates[n, t, d]),
                    step_time=float(shortest[place]),
                    servers=dies / case.rates.dies_per_server,
                )
                instances[at][n, t, d] = Instance(
                    decode=leader,
                    prefill=chosen[n, k, t].leader,
                    rate=leader.requests_per_s,
                    ttft=float(ttft[place]),
                    added=float(time[place]) - float(tpot[place]),
                )
            # a slower prefill step never raises the rate: what is within TPOT and decode's own memory bounds it;
            # where front ends bind it may keep the rate and shorten TTFT
            limit = math.inf if asked is None else asked
            bound, _ = highest(np.where(fits & (time <= limit), rate, -1.0).squeeze(CORES))
            reached = (instances[at].get((one[0], one[1], one[2])) for one in np.argwhere(bound > 0).tolist())
            most = bound[bound > 0].tolist()
            if prefill.frontend_rate in most:
                continue
            if all(one is not None and one.rate >= top for one, top in zip(reached, most, strict=True)):
                left.discard(at)
    return [list(one.values()) for one in instances], tally


def _within(name: str, values: Any, limit: float | None, allowed: Any, tally: Tally) -> Any:
    """Return what is allowed and within a limit; what is not is counted."""
    if limit is None:
        return allowed
    over = allowed & (values > limit)
    tally.count(name, int(np.count_nonzero(over)))
    if over.any():
        tally.miss(name, float(np.where(over, values, np.inf).min()), limit, "mixed serving")
    return allowed & ~over


def _in_time(together: Together, decode: PoolPoint, mesh: Mesh, case: Case, request: SearchRequest) -> Together:
    """Return the prefill steps that may meet TTFT at the highest rate that the fastest of them allows."""
    limit = request.targets.ttft
    if limit is None or not any(together.values()):
        return together
    sizes, _, slots, tps, *_ = mesh.shape
    first = {place: rows[0] for place, rows in together.items() if rows}
    fastest = _stacked(first, (sizes, 1, slots, tps, 1, 1, 1), case)
    most = np.nan_to_num(as_array(mixed_rate(fastest, decode))).max(axis=(1, 4, 5, 6)) * request.utilisation
    isl = as_float(case.isl)
    return {
        place: [one for one in rows if one.step_time + (one.in_flight / isl - 1) / (2 * most[place]) <= limit]
        for place, rows in together.items()
    }


def mixed_joins(
    cases: Cases, sizes: list[int], request: SearchRequest, tpots: Sequence[float | None], tally: Tally
) -> list[list[Join]]:
    """Return the best mixed deployment of each size, tp, draft and family, under each of some limits on TPOT."""
    return [joins_of(each, request, tally) for each in mixed_instances(cases, sizes, request, tpots, tally)]


def mixed_instances(
    cases: Cases, sizes: list[int], request: SearchRequest, tpots: Sequence[float | None], tally: Tally
) -> list[list[Instance]]:
    """Return the best mixed instance of each size, tp, draft and family, under each of some limits on TPOT.

    The budget and the rate asked for do not move them.  The rate of an instance rises with decode's and prefill's at once, so for every prefill step that no other beats
    in time and rate the whole decode space is gone through.  Of equal rates, as front ends make them, the shortest
    TTFT is the best.  Both phases share the layout of weights: tp, slots and the
    dies of an expert; and dp, but where prefill splits its prompts over dies (cp).  Shared experts have no dies of
    their own, since prefill has none.
    """
    prompts = _prompts(cases.prefill, sizes, request, tally)
    chunks = [
        mesh
        for mesh in meshes(cases.decode, "decode", sizes, request.choices)
        if not mesh.structure.family.own_shared_ranks
    ]
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        found = list(pool.map(lambda mesh: _of_mesh(mesh, prompts, cases, request, tpots), chunks))
    for mesh, (_, counted) in zip(chunks, found, strict=True):
        tally.evaluated += math.prod(mesh.shape)
        tally.add(counted)
    each_limit = []
    for at in range(len(tpots)):
        best: dict[tuple[object, ...], Instance] = {}
        for one in (one for of_limit, _ in found for one in of_limit[at]):
            before = best.get(one.decode.key)
            if before is None or one.worth > before.worth:
                best[one.decode.key] = one
        each_limit.append(list(best.values()))
    return each_limit


def joins_of(instances: Sequence[Instance], request: SearchRequest, tally: Tally) -> list[Join]:
    """Return the best deployment of each mixed instance, where there is one."""
    tried = [_join_of(one, request, tally) for one in instances]
    return [join for join in tried if join is not None]


def _join_of(one: Instance, request: SearchRequest, tally: Tally) -> Join | None:
    """Return as many of an instance as pay on the budget or for the rate."""
    size, rate = one.decode.servers, one.rate * request.utilisation
    most = int(packed(size, 1.0, request.servers, request.domains[1])[0])
    if most < 1:
        return None
    counts = np.arange(1, most + 1, dtype=np.float64)[None]
    served = counts * rate if request.rate is None else np.minimum(counts * rate, request.rate)
    allowed = np.ones(served.shape, dtype=bool)
    if request.rate is not None:
        allowed = served >= request.rate * (1 - ROUNDING)
        tally.count("rate", int(np.count_nonzero(~allowed)))
        if not allowed.any():
            tally.miss("rate", -float(served.max()), -request.rate, "within the budget")
            return None
    servers = np.ceil(counts * size - ROUNDING)
    ordered = keys(request, served, servers, servers * request.prices[1], np.full(served.shape, one.ttft))
    at = int(first_of(ordered, allowed)[0])
    return Join(
        decode=one.decode,
        prefill=one.prefill,
        prefill_instances=at + 1,
        decode_instances=at + 1,
        served=float(served[0, at]),
        ttft=one.ttft,
        key=tuple(float(np.broadcast_to(key, served.shape)[0, at]) for key in ordered),
        mixed=True,
        tpot_added=one.added,
    )
