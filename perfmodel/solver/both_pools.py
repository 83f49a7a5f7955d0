"""Both pools searched and joined: the best deployments under one or several limits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from perfmodel.algebra import as_float
from perfmodel.prediction.deployment import Deployment, deployment_of
from perfmodel.prediction.serving import Case, fewest_dies, tokens_per_step
from perfmodel.solver.join import Join, Prefills, fastest_of_a_size, joined, prefill_columns
from perfmodel.solver.mesh import Leader
from perfmodel.solver.mixed import Instance, joins_of, mixed_instances
from perfmodel.solver.request import Cases, SearchRequest
from perfmodel.solver.search import Limits, best_decode, leaders_of, prefill_options
from perfmodel.solver.space import LARGEST_PREFILL_SERVERS, Choices
from perfmodel.solver.tally import Tally


@dataclass(slots=True, eq=False)
class Kept:
    """What searches of one question have worked out of instances: a budget, a rate and prices do not move it.

    Prefill candidates by cache precision and largest size; decode instances and mixed ones by cache precision and
    limits, with the sizes that were gone through.  ``tally`` counts what was.
    """

    prefills: dict[tuple[Any, ...], Prefills] = field(default_factory=dict)
    decodes: dict[tuple[Any, ...], tuple[set[int], list[Leader]]] = field(default_factory=dict)
    mixed: dict[tuple[Any, ...], tuple[set[int], list[Instance]]] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)


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
    ttft, tpot = request.targets.ttft, request.targets.tpot
    if ttft is None:
        return [math.inf]
    most = math.inf if tpot is None else tpot * as_float(tokens_per_step(case.acceptance, len(case.acceptance)))
    left = {ttft - spent for spent in prefills.ttft.tolist() if spent < ttft}
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


def prefill_side(cases: Cases, request: SearchRequest, choices: Choices, tally: Tally) -> tuple[list[int], Prefills]:
    """Return the sizes of a decode instance that are searched, and the prefill candidates."""
    own, (of_prefill, of_decode) = request.prefill_servers, request.domains
    decode_sizes = sizes_of(cases.decode, most_of_decode(request), of_decode)
    most = min(LARGEST_PREFILL_SERVERS, own or max(1, request.servers - 1))
    prefills = prefill_options(
        cases.prefill, sizes_of(cases.prefill, most, of_prefill), choices, tally, request.utilisation
    )
    return decode_sizes, prefill_columns(prefills, cases.prefill, request.utilisation)


def _prefills_kept(cases: Cases, request: SearchRequest, choices: Choices, kept: Kept) -> tuple[list[int], Prefills]:
    """Return the sizes of a decode instance that are searched, and the prefill candidates, worked out once."""
    own, (of_prefill, of_decode) = request.prefill_servers, request.domains
    most = min(LARGEST_PREFILL_SERVERS, own or max(1, request.servers - 1))
    place = (choices.kv_dtypes, most, of_prefill, request.utilisation)
    if place not in kept.prefills:
        sizes = sizes_of(cases.prefill, most, of_prefill)
        found = prefill_options(cases.prefill, sizes, choices, kept.tally, request.utilisation)
        kept.prefills[place] = prefill_columns(found, cases.prefill, request.utilisation)
    return sizes_of(cases.decode, most_of_decode(request), of_decode), kept.prefills[place]


def _decodes_kept(
    cases: Cases, sizes: list[int], limits: list[float], request: SearchRequest, choices: Choices, kept: Kept
) -> list[Leader]:
    """Return the decode instances of some sizes: those that were not gone through are, and kept."""
    tpot = request.targets.tpot
    seen, leaders = kept.decodes.get((choices.kv_dtypes, tpot, *limits), (set(), []))
    if new := [size for size in sizes if size not in seen]:
        leaders = best_decode(cases.decode, new, tpot, limits, choices, kept.tally, leaders)
        kept.decodes[choices.kv_dtypes, tpot, *limits] = seen | set(new), leaders
    most = max(sizes, default=0) / cases.decode.rates.dies_per_server
    return [one for one in leaders if one.servers <= most]


def _mixed_kept(cases: Cases, sizes: list[int], request: SearchRequest, choices: Choices, kept: Kept) -> list[Instance]:
    """Return the mixed instances of some sizes: those that were not gone through are, and kept."""
    place = (choices.kv_dtypes, request.targets.tpot, request.targets.ttft, request.utilisation)
    seen, instances = kept.mixed.get(place, (set(), []))
    if new := [size for size in sizes if size not in seen]:
        asked = replace(request, choices=choices)
        instances = [*instances, *mixed_instances(cases, new, asked, [request.targets.tpot], kept.tally)[0]]
        kept.mixed[place] = seen | set(new), instances
    most = max(sizes, default=0) / cases.decode.rates.dies_per_server
    return [one for one in instances if one.decode.servers <= most]


def searched(cases: Cases, request: SearchRequest, tally: Tally, kept: Kept | None = None) -> Found:
    """Return the best deployment of every decode instance that is not beaten by its like, the best first.

    What is ``kept`` of another budget or rate is not gone through again.
    """
    kept = kept or Kept()
    joins: list[Join] = []
    columns: dict[str, Prefills] = {}
    for kv_dtype in request.choices.kv_dtypes:  # both pools keep one cache, so precisions do not mix
        choices = replace(request.choices, kv_dtypes=(kv_dtype,))
        if request.serving != "mixed":
            decode_sizes, columns[kv_dtype] = _prefills_kept(cases, request, choices, kept)
            limits = step_limits(columns[kv_dtype], request, cases.decode)
            decodes = _decodes_kept(cases, decode_sizes, limits, request, choices, kept)
            joins += joined(decodes, columns[kv_dtype], request, tally)
        if request.serving != "disaggregated":
            sizes = sizes_of(cases.decode, request.servers, request.domains[1])
            joins += joins_of(_mixed_kept(cases, sizes, request, choices, kept), request, tally)
    tally.add(kept.tally)
    return sorted(joins, key=lambda join: join.key), columns


def grown(cases: Cases, request: SearchRequest, tally: Tally, kept: Kept) -> tuple[Found, SearchRequest]:
    """Return what a search finds on the first of several budgets that meets the rate, and the request with that budget.

    The budget grows by what the best deployment falls short of the rate, at least by an eighth, up to
    ``request.largest``; instances that were worked out on a smaller one are kept, so all of it costs one search of the
    last budget and a few joins.  The fewest servers of that budget are the fewest of all smaller ones.
    """
    while True:
        counted = Tally()
        found = searched(cases, request, counted, kept)
        larger = _larger(request, counted)
        if found[0] or larger is None:
            tally.add(counted)
            return found, request
        request = larger


def _whole(servers: int, domain: int | None) -> int:
    """Return servers in whole domains where they are more than one: a part of one packs worse than a whole one."""
    return servers if domain is None or servers <= domain else -(-servers // domain) * domain


def _larger(request: SearchRequest, tally: Tally) -> SearchRequest | None:
    """Return a request with a larger budget, or none where it may not grow."""
    if request.rate is None:
        return None
    short, _, _ = tally.closest.get("rate", (0.0, 0.0, ""))
    factor = max(LEAST_GROWTH, request.rate / -short if short < 0 else MOST_GROWTH)
    before = (request.prefill_servers, request.servers)
    after = tuple(
        have if have is None or most is None or most <= have else min(most, _whole(math.ceil(have * factor), domain))
        for have, most, domain in zip(before, request.largest, request.domains, strict=True)
    )
    return None if after == before else replace(request, prefill_servers=after[0], servers=after[1] or request.servers)


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
