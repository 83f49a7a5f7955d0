"""Both pools searched and joined: the best deployments under one or several limits."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from perfmodel.algebra import as_float
from perfmodel.prediction.deployment import Deployment, deployment_of
from perfmodel.prediction.serving import Case, fewest_dies, tokens_per_step
from perfmodel.solver.join import Join, Prefills, fastest_of_a_size, joined, prefill_columns
from perfmodel.solver.mesh import Leader
from perfmodel.solver.mixed import Asked, Instance, Mixing, joins_of
from perfmodel.solver.request import Cases, SearchRequest
from perfmodel.solver.search import (
    Also,
    Evaluated,
    Limits,
    best_decode_beside,
    leaders_of,
    limits_of,
    prefill_options,
    prefill_points,
)
from perfmodel.solver.space import LARGEST_PREFILL_SERVERS, Choices
from perfmodel.solver.tally import Tally


@dataclass(slots=True, eq=False)
class Kept:
    """What searches of one question have worked out of instances: a budget, a rate and prices do not move it.

    Prefill candidates by cache precision and largest size; decode instances and mixed ones by cache precision and
    limits, with the sizes that were gone through.  ``tally`` counts what was for the question itself.
    """

    prefills: dict[tuple[Any, ...], Prefills] = field(default_factory=dict)
    decodes: dict[tuple[Any, ...], tuple[set[int], list[Leader]]] = field(default_factory=dict)
    mixed: dict[tuple[Any, ...], tuple[set[int], list[Instance]]] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)
    #: chunks of the last prefill candidates, for mixed instances of the same sizes
    points: dict[tuple[Any, ...], list[Evaluated]] = field(default_factory=dict)


#: joins of a search, the best first, and the prefill candidates by cache precision
Found = tuple[list[Join], dict[str, Prefills]]


#: how a budget grows at least, and where nothing tells by how much
LEAST_GROWTH, MOST_GROWTH = 1.125, 2.0


def deployment(join: Join, cases: Cases, utilisation: float) -> Deployment:
    """Return a join evaluated with plain numbers."""
    pools = join.prefill.plan(cases.prefill), join.decode.plan(cases.decode)
    counts = join.prefill_instances, join.decode_instances
    return deployment_of(pools, counts, cases.prefill, utilisation, served=join.served, mixed=join.mixed)


def step_limits(prefills: Prefills, request: SearchRequest, case: Case) -> list[float]:
    """Return the times that TTFT leaves for the first decode step, one for each prefill candidate.

    Those that no step within TPOT reaches are none.
    """
    ttft, tpot, longer = request.targets.ttft, request.targets.tpot, request.margins
    if ttft is None:
        return [math.inf]
    most = math.inf if tpot is None else tpot * as_float(tokens_per_step(case.acceptance, len(case.acceptance)))
    left = {
        (ttft - spent * longer.prefill) / longer.decode
        for spent in prefills.ttft.tolist()
        if spent * longer.prefill < ttft
    }
    return sorted({limit if limit < most else math.inf for limit in left}) or [math.inf]


def sizes_of(case: Case, servers: int, domain: int | None) -> list[int]:
    """Return the sizes of an instance in dies: whole servers of a domain, and halves, quarters and so on of one.

    Parts of a server on which the routed experts alone pass the memory are left out.
    """
    of_server = case.rates.dies_per_server
    parts = [of_server >> shift for shift in range(of_server.bit_length() - 1, 0, -1) if of_server % (1 << shift) == 0]
    fewest = fewest_dies(case)
    whole = [n * of_server for n in range(1, min(servers, domain or servers) + 1)]
    return [part for part in parts if part >= fewest] + whole


def most_of_decode(request: SearchRequest) -> int:
    """Return the servers that decode may have: one is left to prefill where it has no budget of its own."""
    return max(1, request.servers - (request.prefill_servers is None))


def most_of_prefill(request: SearchRequest) -> int:
    """Return the servers that an instance of prefill may have: its own budget, else one is left to decode."""
    return min(LARGEST_PREFILL_SERVERS, request.prefill_servers or max(1, request.servers - 1))


def prefill_side(cases: Cases, request: SearchRequest, choices: Choices, tally: Tally) -> tuple[list[int], Prefills]:
    """Return the sizes of a decode instance that are searched, and the prefill candidates."""
    of_prefill, of_decode = request.domains
    decode_sizes = sizes_of(cases.decode, most_of_decode(request), of_decode)
    sizes = sizes_of(cases.prefill, most_of_prefill(request), of_prefill)
    prefills = prefill_options(cases.prefill, sizes, choices, tally, request.utilisation)
    return decode_sizes, prefill_columns(prefills, cases.prefill, request.utilisation)


def _prefills_kept(cases: Cases, request: SearchRequest, choices: Choices, kept: Kept) -> tuple[list[int], Prefills]:
    """Return the sizes of a decode instance that are searched, and the prefill candidates, worked out once."""
    (of_prefill, of_decode), most = request.domains, most_of_prefill(request)
    place = (choices.kv_dtypes, most, of_prefill, request.utilisation)
    if place not in kept.prefills:
        kept.points.clear()  # of a smaller budget
        sizes = sizes_of(cases.prefill, most, of_prefill)
        points = kept.points[place] = prefill_points(cases.prefill, sizes, choices)
        found = prefill_options(cases.prefill, sizes, choices, kept.tally, request.utilisation, points)
        kept.prefills[place] = prefill_columns(found, cases.prefill, request.utilisation)
    return sizes_of(cases.decode, most_of_decode(request), of_decode), kept.prefills[place]


def _new(sizes: Sequence[int], seen: Iterable[int]) -> tuple[int, ...]:
    return tuple(size for size in sizes if size not in set(seen))


def _decodes_kept(
    cases: Cases,
    sizes: list[int],
    asked: Sequence[list[Limits]],
    choices: Choices,
    kept: Kept,
    mixing: tuple[Mixing, list[int]] | None,
) -> list[list[Leader]]:
    """Return the decode instances of some sizes under each of several groups of limits, the first the question's own.

    Sizes that were not gone through are, in one pass for all groups that lack the same, and kept.  Chunks of sizes
    that ``mixing`` looks for too are taken in by it.
    """
    places = [(choices.kv_dtypes, *group) for group in asked]
    lacking: dict[tuple[int, ...], dict[tuple[Any, ...], list[Limits]]] = {}
    for place, group in zip(places, asked, strict=True):
        lacking.setdefault(_new(sizes, kept.decodes.get(place, ((), []))[0]), {})[place] = group
    for new, groups in lacking.items():
        counted = kept.tally if places[0] in groups else Tally()
        both = [size for size in new if mixing and places[0] in groups and size in mixing[1]]
        also: Also | None = (mixing[0].work, mixing[0].take) if mixing else None
        for part, beside in ((both, also), (_new(new, both), None)):
            if part:
                known = [kept.decodes.get(place, ((), []))[1] for place in groups]
                found = best_decode_beside(
                    cases.decode, list(part), list(groups.values()), choices, counted, known, beside
                )
                for place, leaders in zip(groups, found, strict=True):
                    kept.decodes[place] = {*kept.decodes.get(place, ((), []))[0], *part}, leaders
        if mixing:
            mixing[1][:] = _new(mixing[1], both)
    most = max(sizes, default=0) / cases.decode.rates.dies_per_server
    return [[one for one in kept.decodes.get(place, ((), []))[1] if one.servers <= most] for place in places]


def _mixing(
    cases: Cases, sizes: list[int], asked: Sequence[SearchRequest], choices: Choices, kept: Kept
) -> tuple[Mixing, list[int], Callable[[], None]]:
    """Return what looks for mixed instances of sizes that were not gone through, those sizes, and what keeps them.

    They are looked for under the limits of each of several requests, the first the question's own.
    """
    places = _mixed_places(asked, choices)
    lacking = {place: _new(sizes, kept.mixed.get(place, ((), []))[0]) for place in places}
    new = max(lacking.values(), key=len)
    wanted = [place for place in dict.fromkeys(places) if lacking[place]]
    counted = bool(lacking[places[0]])
    limits = [Asked.of(asked[places.index(place)], counted=place == places[0]) for place in wanted]
    own = replace(asked[0], choices=choices)
    points = [one for place, chunks in kept.points.items() if place[0] == choices.kv_dtypes for one in chunks]
    mixing = Mixing.of(cases, list(new), own, limits, kept.tally if counted else Tally(), points)

    def keep() -> None:
        most = cases.decode.rates.dies_per_server
        for place, found in zip(wanted, mixing.instances(), strict=True):
            seen, before = kept.mixed.get(place, ((), []))
            lacked = {size / most for size in lacking[place]}
            kept.mixed[place] = {*seen, *new}, [*before, *(one for one in found if one.decode.servers in lacked)]

    return mixing, list(new), keep


def _mixed_places(asked: Sequence[SearchRequest], choices: Choices) -> list[tuple[Any, ...]]:
    limits = [Asked.of(one, counted=False) for one in asked]
    return [(choices.kv_dtypes, one.tpot, one.ttft, asked[0].utilisation) for one in limits]


def _mixed_kept(
    cases: Cases, sizes: list[int], asked: Sequence[SearchRequest], choices: Choices, kept: Kept
) -> list[list[Instance]]:
    """Return the mixed instances of some sizes that are kept, for each of several requests."""
    most = max(sizes, default=0) / cases.decode.rates.dies_per_server
    return [
        [one for one in kept.mixed[place][1] if one.decode.servers <= most] for place in _mixed_places(asked, choices)
    ]


def searched(cases: Cases, request: SearchRequest, tally: Tally, kept: Kept | None = None) -> Found:
    """Return the best deployment of every decode instance that is not beaten by its like, the best first.

    What is ``kept`` of another budget or rate is not gone through again.
    """
    return searched_beside(cases, request, (), tally, kept)[0]


def searched_beside(
    cases: Cases, request: SearchRequest, beside: Sequence[SearchRequest], tally: Tally, kept: Kept | None = None
) -> tuple[Found, list[list[Join]]]:
    """Return what ``searched`` does, and the joins of requests ``beside`` from the same pass over the space.

    Those differ from the first in limits, margins, ways of serving and budget alone; the sizes of an instance are
    those of the first.  Of them the decode instances are tried that none of their size beats in both step and rate,
    so the best deployment of each is there, and not every rival.
    """
    kept = kept or Kept()
    joins: list[Join] = []
    others: list[list[Join]] = [[] for _ in beside]
    columns: dict[str, Prefills] = {}
    apart = [place for place, one in enumerate(beside) if one.serving != "mixed"]
    together = [place for place, one in enumerate(beside) if one.serving != "disaggregated"]
    for kv_dtype in request.choices.kv_dtypes:  # both pools keep one cache, so precisions do not mix
        choices = replace(request.choices, kv_dtypes=(kv_dtype,))
        mixing, sizes = None, sizes_of(cases.decode, request.servers, request.domains[1])
        mixed = [request, *(beside[place] for place in together)]
        if request.serving != "mixed":
            decode_sizes, columns[kv_dtype] = _prefills_kept(cases, request, choices, kept)
        if request.serving != "disaggregated":
            mixing, left, keep = _mixing(cases, sizes, mixed, choices, kept)
        if request.serving != "mixed":
            limits = [
                limits_of(one.targets.tpot, step_limits(columns[kv_dtype], one, cases.decode))
                for one in (request, *(beside[place] for place in apart))
            ]
            decodes, *more = _decodes_kept(
                cases, decode_sizes, limits, choices, kept, None if mixing is None else (mixing, left)
            )
            joins += joined(decodes, columns[kv_dtype], request, tally)
            for place, leaders in zip(apart, more, strict=True):
                others[place] += joined(fastest_of_a_size(leaders), columns[kv_dtype], beside[place], Tally())
        if mixing is not None:
            if left:
                mixing.go_through(left, choices)
            keep()
            first, *rest = _mixed_kept(cases, sizes, mixed, choices, kept)
            joins += joins_of(first, request, tally)
            for place, instances in zip(together, rest, strict=True):
                others[place] += joins_of(instances, beside[place], Tally())
    tally.add(kept.tally)
    each = [sorted(one, key=lambda join: join.key) for one in (joins, *others)]
    return (each[0], columns), each[1:]


def grown(
    cases: Cases, request: SearchRequest, tally: Tally, kept: Kept, beside: Sequence[SearchRequest] = ()
) -> tuple[Found, list[list[Join]], SearchRequest]:
    """Return what a search finds on the first of several budgets that meets the rate, and the request with that budget.

    The budget grows by what the best deployment falls short of the rate, at least by an eighth, up to
    ``request.largest``; instances that were worked out on a smaller one are kept, so all of it costs one search of the
    last budget and a few joins.  The fewest servers of that budget are the fewest of all smaller ones.  Requests
    ``beside`` are searched in the same passes, on their own budgets: for one that does not grow.
    """
    while True:
        counted = Tally()
        found, others = searched_beside(cases, request, beside, counted, kept)
        larger = _larger(request, counted)
        if found[0] or larger is None:
            tally.add(counted)
            return found, others, request
        request = larger


def with_more(request: SearchRequest, factor: float) -> SearchRequest | None:
    """Return a request with a budget that is larger by a factor, or none where it may not grow."""
    before = (request.prefill_servers, request.servers)
    after = tuple(
        have if have is None or most is None or most <= have else min(most, _whole(math.ceil(have * factor), domain))
        for have, most, domain in zip(before, request.largest, request.domains, strict=True)
    )
    return None if after == before else replace(request, prefill_servers=after[0], servers=after[1] or request.servers)


def _whole(servers: int, domain: int | None) -> int:
    """Return servers in whole domains where they are more than one: a part of one packs worse than a whole one."""
    return servers if domain is None or servers <= domain else -(-servers // domain) * domain


def _larger(request: SearchRequest, tally: Tally) -> SearchRequest | None:
    """Return a request with a larger budget, or none where it may not grow."""
    if request.rate is None:
        return None
    short, _, _ = tally.closest.get("rate", (0.0, 0.0, ""))
    return with_more(request, max(LEAST_GROWTH, request.rate / -short if short < 0 else MOST_GROWTH))


def tpot_of(join: Join, cases: Cases) -> float:
    """Return the TPOT of a join, with the prefill steps in between where it is mixed."""
    return as_float(join.decode.plan(cases.decode).point.tpot) + join.tpot_added


def best_of_each(cases: Cases, request: SearchRequest, asked: Sequence[Limits]) -> list[Join | None]:
    """Return the best deployment under each of several limits, in one pass over the space; pools apart."""
    longest = max(one.tpot for one in asked)
    best: list[Join | None] = [None] * len(asked)
    for kv_dtype in request.choices.kv_dtypes:
        choices = replace(request.choices, kv_dtypes=(kv_dtype,))
        decode_sizes, columns = prefill_side(cases, request, choices, Tally())
        loosest = replace(request, targets=request.targets.model_copy(update={"tpot": longest}))
        steps = step_limits(columns, loosest, cases.decode)
        for place, leaders in enumerate(leaders_of(cases.decode, decode_sizes, asked, steps, choices)):
            joins = joined(fastest_of_a_size(leaders), columns, request, Tally())
            best[place] = min((one for one in (*joins, best[place]) if one), key=lambda one: one.key, default=None)
    return best
