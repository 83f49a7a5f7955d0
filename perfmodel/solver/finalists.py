"""Plans that may stand in for the best where what clients see of it is not enough: more room in either pool."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from perfmodel.prediction.deployment import Deployment
from perfmodel.solver.both_pools import deployment
from perfmodel.solver.join import Join, Prefills, fastest_of_a_size, joined
from perfmodel.solver.refit import refitted, with_least_batches
from perfmodel.solver.request import Cases, SearchRequest, keys, value
from perfmodel.solver.tally import Tally

#: of the load that prefill may have; of the limit on TPOT: steps at which room is looked for
LOADS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
SHORTER = (0.9, 0.8, 0.7, 0.6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Where room is looked for: less load in prefill, shorter steps in decode."""

    prefill: bool
    decode: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Finalist:
    """A plan by its join, evaluated when it is looked at."""

    join: Join
    cases: Cases
    request: SearchRequest
    #: relative change of the objective from the best
    loss: float

    @property
    def deployment(self) -> Deployment:
        """The plan with batches no fuller than it needs, as the best is given."""
        (join,) = with_least_batches([self.join], self.cases, self.request)
        return deployment(join, self.cases, self.request.utilisation)


def finalists(
    joins: list[Join], best: Join, columns: Mapping[str, Prefills], cases: Cases, request: SearchRequest, room: Room
) -> tuple[Finalist, ...]:
    """Return the best plan and those that may stand in for it, in order of the objective.

    They are: of every prefill instance the best plan with it, at every load of ``LOADS`` and under every limit of
    ``SHORTER`` where room is looked for; the best of every decode instance; and of mixed ones so much less load.
    """
    found = {_name(best): best}
    for join in (*joins, *_roomier(joins, columns, cases, request, room)):
        found.setdefault(_name(join), join)
    first, *others = found.values()
    most = value(request, first.key)
    ordered = [first, *sorted(others, key=lambda join: join.key)]
    return tuple(
        Finalist(join=join, cases=cases, request=request, loss=value(request, join.key) / most - 1) for join in ordered
    )


def _name(join: Join) -> tuple[object, ...]:
    """Return what tells a plan from others."""
    counts = join.prefill_instances, join.decode_instances, join.mixed
    return (*(part for one in (join.prefill, join.decode) for part in (id(one.mesh), one.index)), *counts, join.served)


def _roomier(
    joins: list[Join], columns: Mapping[str, Prefills], cases: Cases, request: SearchRequest, room: Room
) -> Iterator[Join]:
    loads = LOADS if room.prefill else LOADS[:1]
    tpot = request.targets.tpot
    for kv_dtype, prefills in columns.items():
        own = [join.decode for join in joins if not join.mixed and join.decode.mesh.family.kv_dtype == kv_dtype]
        fastest = fastest_of_a_size(own)
        leaders = [*fastest]
        if room.decode and tpot is not None:
            tried = (refitted(one, cases.decode, tpot * part) for part in SHORTER for one in fastest)
            leaders = fastest_of_a_size([*fastest, *(one for one in tried if one.requests_per_s > 0)])
        for load in loads:
            for row in range(len(prefills.plans)):
                one = Prefills(
                    plans=[prefills.plans[row]],
                    servers=prefills.servers[row : row + 1],
                    rate=prefills.rate[row : row + 1] * load,
                    ttft=prefills.ttft[row : row + 1],
                )
                with_it = joined(leaders, one, request, Tally()) if leaders else []
                if room.decode:
                    yield from with_it
                elif with_it:
                    yield min(with_it, key=lambda join: join.key)
    if request.rate is None:
        for join in (join for join in joins if join.mixed):
            for load in loads[1:]:
                yield _with_less(join, load, request)


def _with_less(join: Join, load: float, request: SearchRequest) -> Join:
    """Return mixed instances that serve a part of what they could."""
    served = join.served * load
    servers = float(np.ceil(join.decode_instances * join.decode.servers - 1e-9))
    ordered = keys(request, served, servers, servers * request.prices[1], join.ttft)
    return replace(join, served=served, key=tuple(float(key) for key in ordered))
