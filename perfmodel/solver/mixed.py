"""Mixed serving: every instance runs prefill and decode on the same dies, in turn."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.algebra import Num, as_array, as_float
from perfmodel.ledger.footprint import Footprint
from perfmodel.prediction.deployment import ROUNDING
from perfmodel.prediction.layouts import too_many_tokens
from perfmodel.prediction.mixed import mixed_first_token, mixed_footprint, mixed_rate, mixed_time, prompt_time
from perfmodel.prediction.serving import Case, PoolPoint, pool_point, usable_memory
from perfmodel.solver.join import Join, first_of, packed
from perfmodel.solver.mesh import CORES, Grid, Leader, Mesh, meshes
from perfmodel.solver.request import Cases, SearchRequest, keys
from perfmodel.solver.search import Evaluated, cut, highest, prefill_points
from perfmodel.solver.space import Choices
from perfmodel.solver.tally import Tally

BLOCK = 256  # prefill steps that are held against each other at once


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


def _prompts(
    case: Case, sizes: list[int], request: SearchRequest, tally: Tally, points: Sequence[Evaluated] = ()
) -> Prompts:
    """Return the prefill steps that no other beats, the fastest for a prompt first.

    They are told apart by size, tp, replicas and dies of an expert.  Chunks of ``points`` were evaluated already, of
    some of the sizes or others.

    One beats another that is no faster for a prompt, works no fewer prompts and takes no less memory: everything that
    the mixed plan feels of it, since the time for a prompt times the prompts is the length of the step.
    """
    found: Prompts = {}
    known_sizes = {int(dies) for mesh, _ in points for dies in mesh.experts.dies}
    known = points if known_sizes <= {*sizes} else ()  # a chunk of several sizes is taken whole
    rest = [size for size in sizes if not known or size not in known_sizes]
    evaluated = [*known, *prefill_points(case, rest, request.choices)]
    chunks = [mesh for mesh, _ in evaluated]
    if not chunks:  # what is fixed leaves no degree of parallelism on these sizes
        return found
    columns = []
    for number, (mesh, point) in enumerate(evaluated):
        layout = mesh.layout()
        foot = point.footprint
        each: list[Num] = [layout.dies, layout.tp, layout.redundant, mesh.structure.keys.get("expert_tp", 1)]
        each += [prompt_time(point), foot.buffers, foot.workspace, foot.weights, point.in_flight, point.step_time]
        size = math.prod(mesh.shape)
        tally.evaluated += size
        filled = (np.broadcast_to(as_array(one), mesh.shape).ravel() for one in (*each, number))
        columns.append(np.stack([*filled, np.arange(size, dtype=np.float64)]))
    rows = np.concatenate(columns, axis=1).T
    own = rows[:, 5:8].sum(axis=1)  # what a mixed plan keeps of it at least
    limit = as_float(usable_memory(case.rates))
    tally.count("prefill memory", int(np.count_nonzero(own > limit)))
    if not (own <= limit).any():
        tally.miss("prefill memory", float(own.min()), limit, "mixed serving")
        return found
    rows = rows[own <= limit]
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
    order = np.lexsort(costs.T[::-1])  # what beats a row is before it
    kept = order[:0]
    for start in range(0, len(order), BLOCK):
        block = order[start : start + BLOCK]
        among = (costs[block][:, None] <= costs[block]).all(axis=2)
        beaten = np.triu(among, 1).any(axis=0) | (costs[kept][:, None] <= costs[block]).all(axis=2).any(axis=0)
        kept = np.concatenate((kept, block[~beaten]))
    return [int(row) for row in kept]


def _stacked(prompts: dict[tuple[int, int, int], _Prompt], shape: tuple[int, ...], case: Case) -> PoolPoint:
    """Return prefill steps of the sizes, slots and tp degrees of a mesh as one, not a number where there is none."""

    def column(name: str) -> Any:
        filled = np.full(shape, np.nan)
        for (n, k, t), prompt in prompts.items():
            filled[n, 0, k, t] = getattr(prompt, name)
        return filled

    return _point_of(column, case)


def _tables(rows: Sequence[Sequence[_Prompt]]) -> dict[str, Grid]:
    """Return rows of prefill steps as arrays by what a mixed plan feels of them, not a number beyond their ends."""
    most = max(map(len, rows), default=0)
    names = ("step_time", "in_flight", "weights", "buffers", "workspace")
    tables = {name: np.full((len(rows), most), np.nan) for name in names}
    for number, row in enumerate(rows):
        if row:
            filled = np.array([[getattr(one, name) for one in row] for name in names])
            for name, values in zip(names, filled, strict=True):
                tables[name][number, : len(row)] = values
    return tables


def _point_of(column: Callable[[str], Any], case: Case) -> PoolPoint:
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


#: best instances of a chunk under each of several limits
OfLimit = list[list[Instance]]


@dataclass(frozen=True, slots=True)
class Asked:
    """Limits on TPOT and TTFT that mixed instances are to meet as predicted, and whether what misses them counts."""

    tpot: float = math.inf
    ttft: float = math.inf
    counted: bool = True

    @classmethod
    def of(cls, request: SearchRequest, counted: bool) -> "Asked":
        """Return the limits of a request: with margins, so much of TTFT as is left of it."""
        tpot, ttft = request.targets.tpot, request.targets.ttft
        return cls(
            tpot=math.inf if tpot is None else tpot,
            ttft=math.inf if ttft is None else ttft / request.margins.prefill,
            counted=counted,
        )


def _of_mesh(
    mesh: Mesh, point: PoolPoint, prompts: Prompts, cases: Cases, utilisation: float, asked: Sequence[Asked]
) -> tuple[OfLimit, Tally]:
    """Return the best instance of each size, tp and draft of a chunk, over all prefill steps that go with it.

    They are found for each of several limits in one pass; ``point`` is the chunk's.
    """
    case, tally = cases.decode, Tally()
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
    together = _in_time(together, best, mesh, case, utilisation, max(one.ttft for one in asked))
    instances: list[dict[tuple[int, int, int], Instance]] = [{} for _ in asked]
    chosen = {place: rows[0] for place, rows in together.items() if rows}
    if not chosen:
        return [[] for _ in asked], tally
    prefill = _stacked(chosen, (sizes, 1, slots, tps, 1, 1, 1), case)
    time = np.broadcast_to(as_array(mixed_time(prefill, best)), grid)
    terms = mixed_first_token(prefill, best, case, utilisation)
    ttft = np.broadcast_to(as_array(terms.ttft), grid)
    rate = np.broadcast_to(as_array(mixed_rate(prefill, best)), grid)
    prompts_at_once = as_array(prefill.in_flight / prefill.tokens_per_request)
    # as many prompts at once as there are sequences whose places they take
    possible = ~np.isnan(time) & ~busy & (prompts_at_once <= as_array(point.in_flight))
    foot = mixed_footprint(prefill, best, prompts_at_once / mesh.layout().ranks)
    memory = np.broadcast_to(as_array(foot.planned), grid)
    possible = _within("memory", memory, usable, possible, tally)

    def instance(place: tuple[int, ...], prompt: _Prompt, rate: float, ttft: float, time: float) -> Instance:
        n, s, k, t, d, _, b = place
        cores = int(steps[n, s, k, t, d, :, b].argmin())
        dies = int(mesh.experts.dies[n])
        leader = Leader(
            key=(dies, t, d, mesh.family, "mixed"),
            mesh=mesh,
            index=int(np.ravel_multi_index((*place[:CORES], cores, b), mesh.shape)),
            requests_per_s=rate,
            step_time=float(shortest[place]),
            servers=dies / case.rates.dies_per_server,
        )
        return Instance(decode=leader, prefill=prompt.leader, rate=rate, ttft=ttft, added=time - float(tpot[place]))

    for at, one in enumerate(asked):
        counted = tally if one.counted else Tally()
        allowed = _within("tpot", time, one.tpot, possible, counted)
        allowed = _within("ttft", ttft, one.ttft, allowed, counted)
        rates, places = highest(np.where(allowed, rate, -1.0).squeeze(CORES), ttft.squeeze(CORES))
        for n, t, d in np.argwhere(rates > 0).tolist():
            s, k, b = (int(places[axis][n, t, d]) for axis in (1, 2, 5))
            place = (n, s, k, t, d, 0, b)
            instances[at][n, t, d] = instance(
                place, chosen[n, k, t], float(rates[n, t, d]), float(ttft[place]), float(time[place])
            )
        # a slower prefill step never raises the rate: what is within TPOT and decode's own memory bounds it;
        # where front ends bind it may keep the rate and shorten TTFT
        within = fits & ~busy & (time <= one.tpot)
        bound, _ = highest(np.where(within, rate, -1.0).squeeze(CORES))
        reached = np.zeros(bound.shape)
        for kind, found in instances[at].items():
            reached[kind] = found.rate
        more = (bound > 0) & ((reached < bound) | (bound == prefill.frontend_rate))
        may = (rate >= _of_kinds(reached)) & _of_kinds(more)  # what is slower already than the best stays so
        left = _Left.of(within & may, best, together, mesh)
        known = {int(np.ravel_multi_index(one, bound.shape)): best.worth for one, best in instances[at].items()}
        for place, prompt, *values in left.slower_prompts(known, usable, one, cases, utilisation, counted):
            instances[at][place[0], place[3], place[4]] = instance(place, prompt, *values)
    return [list(each.values()) for each in instances], tally


@dataclass(slots=True, eq=False)
class _Left:
    """Decode plans of a chunk that a slower prefill step may still make the best of their kind, one by one.

    Each is flat in the grid; ``kind`` numbers its size, tp and draft, ``row`` what prefill steps go with it.
    """

    point: PoolPoint
    ranks: Any
    at: NDArray[np.intp]
    kind: NDArray[np.intp]
    row: NDArray[np.intp]
    places: tuple[NDArray[np.intp], ...]
    rows: list[list[_Prompt]]

    @classmethod
    def of(cls, left: Any, point: PoolPoint, together: Together, mesh: Mesh) -> "_Left":
        """Return the plans left of a grid, those of one kind together."""
        n, t, d, s, k, c, b = np.nonzero(left.transpose(0, 3, 4, 1, 2, 5, 6))
        picked = (n, s, k, t, d, c, b)
        keys = list(together)
        numbers = np.zeros((left.shape[0], left.shape[2], left.shape[3]), dtype=np.intp)
        for number, place in enumerate(keys):
            numbers[place] = number

        def flat(value: Any) -> Any:
            value = as_array(value)
            return value if value.ndim == 0 else np.broadcast_to(value, left.shape)[picked]

        return cls(
            point=_mapped(point, flat),
            ranks=flat(mesh.layout().ranks),
            at=np.arange(len(n)),
            kind=np.ravel_multi_index((n, t, d), (left.shape[0], *left.shape[3:5])),
            row=numbers[n, k, t],
            places=picked,
            rows=[together[key] for key in keys],
        )

    def keep(self, which: Any) -> None:
        """Drop all but some plans."""
        self.point = _mapped(self.point, partial(_of_each, which=which))
        self.ranks = _of_each(self.ranks, which)
        self.at, self.kind, self.row = self.at[which], self.kind[which], self.row[which]

    def slower_prompts(
        self,
        known: Mapping[int, tuple[float, float]],
        usable: float,
        asked: Asked,
        cases: Cases,
        utilisation: float,
        tally: Tally,
    ) -> list[tuple[Any, ...]]:
        """Return what is better than a ``known`` worth of its kind: place, prefill step, rate, TTFT, time per token.

        Prefill steps are gone through from the second on, the fastest for a prompt first; a kind is done where no
        plan within TPOT has more than its best.
        """
        found: dict[int, tuple[Any, ...]] = {}
        worths = dict(known)
        if not len(self.at):
            return []
        case, steps = cases.decode, np.array([len(rows) for rows in self.rows])
        tables = _tables(self.rows)
        for depth in range(1, max(steps, default=0)):
            self.keep(steps[self.row] > depth)
            if not len(self.at):
                break
            prefill = _point_of(lambda name: tables[name][self.row, depth], case)  # noqa: B023 - used at once
            time = np.broadcast_to(as_array(mixed_time(prefill, self.point)), self.at.shape)
            late = time > asked.tpot
            if late.any():
                tally.count("tpot", int(np.count_nonzero(late)))
                self.keep(~late)
                prefill = _mapped(prefill, partial(_of_each, which=~late))
                time = time[~late]
            if not len(self.at):
                break
            rate = np.broadcast_to(as_array(mixed_rate(prefill, self.point)), self.at.shape)
            terms = mixed_first_token(prefill, self.point, case, utilisation)
            ttft = np.broadcast_to(as_array(terms.ttft), self.at.shape)
            at_once = as_array(prefill.in_flight / prefill.tokens_per_request)
            allowed = np.broadcast_to(at_once <= as_array(self.point.in_flight), self.at.shape)
            foot = mixed_footprint(prefill, self.point, at_once / self.ranks)
            allowed = _within("memory", np.broadcast_to(as_array(foot.planned), self.at.shape), usable, allowed, tally)
            allowed = _within("ttft", ttft, asked.ttft, allowed, tally)
            first = np.flatnonzero(np.r_[True, self.kind[1:] != self.kind[:-1]])
            own = np.repeat(np.arange(len(first)), np.diff(np.r_[first, len(self.kind)]))
            worth = np.where(allowed, rate, -1.0)
            top = np.maximum.reduceat(worth, first)
            waits = np.where(worth == top[own], ttft, np.inf)
            least = np.minimum.reduceat(waits, first)
            reached = np.zeros(len(first))
            ends = [*first[1:].tolist(), len(self.kind)]
            for number, (start, end) in enumerate(zip(first.tolist(), ends, strict=True)):
                kind, worth_here = int(self.kind[start]), (float(top[number]), -float(least[number]))
                if top[number] > 0 and worths.get(kind, (0.0, 0.0)) < worth_here:
                    chosen = start + int(np.argmin(waits[start:end]))
                    place = tuple(int(axis[self.at[chosen]]) for axis in self.places)
                    prompt = self.rows[self.row[chosen]][depth]
                    worths[kind] = worth_here
                    found[kind] = place, prompt, float(rate[chosen]), float(ttft[chosen]), float(time[chosen])
                reached[number] = worths.get(kind, (0.0,))[0]
            bound = np.maximum.reduceat(rate, first)
            self.keep(((reached < bound) | (bound == prefill.frontend_rate))[own] & (rate >= reached[own]))
        return list(found.values())


def _of_kinds(each: Any) -> Any:
    """Return what there is one of for each size, tp and draft along the axes of a grid."""
    return each[:, None, None, :, :, None, None]


def _of_each(value: Any, which: Any) -> Any:
    return value if np.ndim(value) == 0 else value[which]


def _mapped(point: PoolPoint, to: Callable[[Any], Any]) -> PoolPoint:
    """Return a point with what holds one value for each plan put through a function."""
    foot = replace(point.footprint, **{one.name: to(getattr(point.footprint, one.name)) for one in fields(Footprint)})
    each = ("step_time", "in_flight", "tokens_per_step", "tokens_per_request")
    return replace(point, footprint=foot, **{name: to(getattr(point, name)) for name in each})


def _within(name: str, values: Any, limit: float, allowed: Any, tally: Tally) -> Any:
    """Return what is allowed and within a limit; what is not is counted."""
    if limit == math.inf:
        return allowed
    over = allowed & (values > limit)
    tally.count(name, int(np.count_nonzero(over)))
    if over.any():
        tally.miss(name, float(np.where(over, values, np.inf).min()), limit, "mixed serving")
    return allowed & ~over


def _in_time(
    together: Together, decode: PoolPoint, mesh: Mesh, case: Case, utilisation: float, limit: float
) -> Together:
    """Return the prefill steps that may meet TTFT at the highest rate that the fastest of them allows."""
    if limit == math.inf or not any(together.values()):
        return together
    sizes, _, slots, tps, *_ = mesh.shape
    first = {place: rows[0] for place, rows in together.items() if rows}
    fastest = _stacked(first, (sizes, 1, slots, tps, 1, 1, 1), case)
    most = np.nan_to_num(as_array(mixed_rate(fastest, decode))).max(axis=(1, 4, 5, 6)) * utilisation
    isl = as_float(case.isl)
    return {
        place: [one for one in rows if one.step_time + (one.in_flight / isl - 1) / (2 * most[place]) <= limit]
        for place, rows in together.items()
    }


def mixed_joins(
    cases: Cases, sizes: list[int], request: SearchRequest, tpots: Sequence[float | None], tally: Tally
) -> list[list[Join]]:
    """Return the best mixed deployment of each size, tp, draft and family, under each of some limits on TPOT."""
    ttft = Asked.of(request, counted=True).ttft
    asked = [Asked(tpot=math.inf if tpot is None else tpot, ttft=ttft) for tpot in tpots]
    return [joins_of(each, request, tally) for each in mixed_instances(cases, sizes, request, asked, tally)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mixing:
    """The best mixed instances of some sizes, as chunks of the decode space are gone through, each under some limits.

    The budget and the rate asked for do not move them. The rate of an instance rises with decode's and prefill's at
    once, so for every prefill step that no other beats in time and rate the whole decode space is gone through. Of
    equal rates, as front ends make them, the shortest TTFT is the best. Both phases share the layout of weights: tp,
    slots and the dies of an expert; and dp, but where prefill splits its prompts over dies (cp). Shared experts have
    no dies of their own, since prefill has none.
    """

    cases: Cases
    utilisation: float
    asked: Sequence[Asked]
    prompts: Prompts
    tally: Tally
    best: list[dict[tuple[object, ...], Instance]]

    @classmethod
    def of(
        cls,
        cases: Cases,
        sizes: list[int],
        request: SearchRequest,
        asked: Sequence[Asked],
        tally: Tally,
        points: Sequence[Evaluated] = (),
    ) -> "Mixing":
        """Return it with the prefill steps of some sizes, before any chunk of decode; what is refused is counted."""
        prompts = _prompts(cases.prefill, sizes, request, tally, points)
        return cls(
            cases=cases,
            utilisation=request.utilisation,
            asked=asked,
            prompts=prompts,
            tally=tally,
            best=[{} for _ in asked],
        )

    def work(self, mesh: Mesh, point: PoolPoint) -> tuple[OfLimit, Tally] | None:
        """Return the best instances of a chunk, nothing of one that mixed instances have no layouts of."""
        if mesh.structure.family.own_shared_ranks:
            return None
        return _of_mesh(mesh, point, self.prompts, self.cases, self.utilisation, self.asked)

    def take(self, mesh: Mesh, found: tuple[OfLimit, Tally] | None) -> None:
        """Keep what is best of a chunk; chunks come in their order."""
        if found is None:
            return
        of_limits, counted = found
        if any(one.counted for one in self.asked):
            self.tally.evaluated += math.prod(mesh.shape)
            self.tally.add(counted)
        for best, instances in zip(self.best, of_limits, strict=True):
            for one in instances:
                before = best.get(one.decode.key)
                if before is None or one.worth > before.worth:
                    best[one.decode.key] = one

    def instances(self) -> list[list[Instance]]:
        """Return the best of each size, tp, draft and family, under each of the limits."""
        return [list(each.values()) for each in self.best]

    def go_through(self, sizes: list[int], choices: Choices) -> None:
        """Take in the decode space of some sizes."""
        case, limit = self.cases.decode, as_float(usable_memory(self.cases.decode.rates))
        chunks = [mesh for mesh in meshes(case, "decode", sizes, choices) if not mesh.structure.family.own_shared_ranks]

        def work(mesh: Mesh) -> tuple[OfLimit, Tally] | None:
            fewer = cut(mesh, case, limit)
            return self.work(fewer, pool_point(fewer.layout(), fewer.family, case))

        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            for mesh, found in zip(chunks, pool.map(work, chunks), strict=True):
                self.take(mesh, found)


def mixed_instances(
    cases: Cases, sizes: list[int], request: SearchRequest, asked: Sequence[Asked], tally: Tally
) -> list[list[Instance]]:
    """Return the best mixed instance of each size, tp, draft and family, under each of some limits."""
    mixing = Mixing.of(cases, sizes, request, asked, tally)
    mixing.go_through(sizes, request.choices)
    return mixing.instances()


def joins_of(instances: Sequence[Instance], request: SearchRequest, tally: Tally) -> list[Join]:
    """Return as many of each mixed instance as pay on the budget or for the rate, where there are any.

    Instances of one size are worked together.
    """
    sizes: dict[float, list[int]] = {}
    for place, one in enumerate(instances):
        sizes.setdefault(one.decode.servers, []).append(place)
    joins: dict[int, Join] = {}
    for size, places in sizes.items():
        found = _joins_of_a_size([instances[place] for place in places], size, request, tally)
        joins |= {place: join for place, join in zip(places, found, strict=True) if join is not None}
    return [joins[place] for place in sorted(joins)]


def _joins_of_a_size(
    instances: Sequence[Instance], size: float, request: SearchRequest, tally: Tally
) -> list[Join | None]:
    most = int(packed(size, 1.0, request.servers, request.domains[1])[0])
    if most < 1:
        return [None] * len(instances)
    rate = np.array([one.rate for one in instances])[:, None] * request.utilisation / request.of_rate.decode
    counts = np.arange(1, most + 1, dtype=np.float64)[None]
    served = counts * rate if request.rate is None else np.minimum(counts * rate, request.rate)
    allowed = np.ones(served.shape, dtype=bool)
    if request.rate is not None:
        allowed = served >= request.rate * (1 - ROUNDING)
        tally.count("rate", int(np.count_nonzero(~allowed)))
        short = served.max(axis=1)[~allowed.any(axis=1)]
        if len(short):
            tally.miss("rate", -float(short.max()), -request.rate, "within the budget")
    servers = np.ceil(counts * size - ROUNDING)
    ttft = np.array([one.ttft for one in instances])[:, None]
    ordered = keys(request, served, servers, servers * request.prices[1], ttft)
    each = [np.broadcast_to(key, served.shape) for key in ordered]
    first = first_of(ordered, allowed)
    return [
        Join(
            decode=one.decode,
            prefill=one.prefill,
            prefill_instances=int(at) + 1,
            decode_instances=int(at) + 1,
            served=float(served[row, at]),
            ttft=one.ttft,
            key=tuple(float(key[row, at]) for key in each),
            mixed=True,
            tpot_added=one.added,
        )
        if allowed[row, at]
        else None
        for row, (one, at) in enumerate(zip(instances, first, strict=True))
    ]
