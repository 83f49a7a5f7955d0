"""Both pools searched and joined: the best deployments under one or several limits."""

import math
from collections.abc import Sequence
from dataclasses import replace

from perfmodel.algebra import as_float
from perfmodel.prediction.deployment import Deployment, deployment_of
from perfmodel.prediction.serving import Case, fewest_dies, tokens_per_step
from perfmodel.solver.join import Join, Prefills, fastest_of_a_size, joined, prefill_columns
from perfmodel.solver.mixed import mixed_joins
from perfmodel.solver.request import Cases, SearchRequest
from perfmodel.solver.search import Limits, best_decode_beside, leaders_of, limits_of, prefill_options
from perfmodel.solver.space import LARGEST_PREFILL_SERVERS, Choices
from perfmodel.solver.tally import Tally

#: joins of a search, the best first, and the prefill candidates by cache precision
Found = tuple[list[Join], dict[str, Prefills]]


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


def prefill_side(cases: Cases, request: SearchRequest, choices: Choices, tally: Tally) -> tuple[list[int], Prefills]:
    """Return the sizes of a decode instance that are searched, and the prefill candidates."""
    own, (of_prefill, of_decode) = request.prefill_servers, request.domains
    decode_sizes = sizes_of(cases.decode, most_of_decode(request), of_decode)
    most = min(LARGEST_PREFILL_SERVERS, own or max(1, request.servers - 1))
    prefills = prefill_options(
        cases.prefill, sizes_of(cases.prefill, most, of_prefill), choices, tally, request.utilisation
    )
    return decode_sizes, prefill_columns(prefills, cases.prefill, request.utilisation)


def searched(cases: Cases, request: SearchRequest, tally: Tally) -> Found:
    """Return the best deployment of every decode instance that is not beaten by its like, the best first."""
    return searched_beside(cases, request, (), tally)[0]


def searched_beside(
    cases: Cases, request: SearchRequest, beside: Sequence[SearchRequest], tally: Tally
) -> tuple[Found, list[list[Join]]]:
    """Return what ``searched`` does, and the joins of requests ``beside`` from the same pass over the space.

    Those differ from the first in limits, margins and budget alone; the sizes of an instance are those of the first.
    Of them the decode instances are tried that none of their size beats in both step and rate, so the best deployment
    of each is there, and not every rival.
    """
    joins: list[Join] = []
    others: list[list[Join]] = [[] for _ in beside]
    columns: dict[str, Prefills] = {}
    for kv_dtype in request.choices.kv_dtypes:  # both pools keep one cache, so precisions do not mix
        choices = replace(request.choices, kv_dtypes=(kv_dtype,))
        if request.serving != "mixed":
            decode_sizes, columns[kv_dtype] = prefill_side(cases, request, choices, tally)
            limits = [
                limits_of(one.targets.tpot, step_limits(columns[kv_dtype], one, cases.decode))
                for one in (request, *beside)
            ]
            decodes, *more = best_decode_beside(cases.decode, decode_sizes, limits, choices, tally)
            joins += joined(decodes, columns[kv_dtype], request, tally)
            for place, leaders in enumerate(more):
                others[place] += joined(fastest_of_a_size(leaders), columns[kv_dtype], beside[place], Tally())
        if request.serving != "disaggregated":
            sizes = sizes_of(cases.decode, request.servers, request.domains[1])
            asked = replace(request, choices=choices)
            first, *rest = mixed_joins(cases, sizes, asked, [request.targets.tpot], tally, beside)
            joins += first
            for place, found in enumerate(rest):
                others[place] += found
    each = [sorted(one, key=lambda join: join.key) for one in (joins, *others)]
    return (each[0], columns), each[1:]


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
