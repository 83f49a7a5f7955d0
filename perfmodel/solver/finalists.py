"""Plans that may stand in for the best where what clients see of it is not enough: more room in either pool."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from perfmodel.algebra import as_float
from perfmodel.prediction.deployment import ROUNDING, Deployment
from perfmodel.service.setup import cache_tokens
from perfmodel.solver.both_pools import deployment
from perfmodel.solver.join import Join, Prefills, fastest_of_a_size, joined
from perfmodel.solver.mesh import Leader
from perfmodel.solver.refit import refitted, with_least_batches
from perfmodel.solver.request import Cases, SearchRequest, keys, value
from perfmodel.solver.tally import Tally

#: room by level: of the load that prefill may have, and of the limit on TPOT that decode is batched to
LOADS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
SHORTER = (1.0, 0.9, 0.8, 0.7, 0.6)


@dataclass(frozen=True, kw_only=True, eq=False)
class Finalist:
    """The best plan with one prefill instance, or one mixed instance, at a level of room; evaluated when looked at."""

    join: Join
    cases: Cases
    request: SearchRequest
    #: which instance it is of, and its levels of room in prefill and in decode
    line: int
    load: int
    shorter: int
    #: relative change of the objective from the best
    loss: float

    @cached_property
    def deployment(self) -> Deployment:
        """The plan with batches no fuller than it needs, as the best is given."""
        (join,) = with_least_batches([self.join], self.cases, self.request)
        return deployment(join, self.cases, self.request.utilisation)


@dataclass(frozen=True, kw_only=True, eq=False)
class Finalists:
    """Lines of plans: along each, more room in a pool never gains in the objective.

    A line is of one prefill instance, beside whichever decode instances are best with it; or of one mixed instance.
    """

    joins: list[Join]
    best: Join
    columns: Mapping[str, Prefills]
    cases: Cases
    request: SearchRequest
    #: tokens of the longest request: a rank of decode holds it
    longest: int = 0
    known: dict[tuple[str, int], list[Leader]] = field(default_factory=dict)

    @cached_property
    def lines(self) -> list[tuple[str, int] | Join]:
        """What each line is of: a cache precision and a prefill candidate, or a mixed join."""
        apart = [(kv, row) for kv, prefills in self.columns.items() for row in range(len(prefills.plans))]
        return [*apart, *(join for join in self.joins if join.mixed)]

    def first(self) -> list[Finalist]:
        """Return the plan of every line with the least room in decode that there is one with: TTFT may ask for some."""
        found = []
        for line in range(len(self.lines)):
            levels = (self.at(line, 0, shorter) for shorter in range(len(SHORTER)))
            found.append(next((one for one in levels if one is not None), None))
        return [one for one in found if one is not None]

    def at(self, line: int, load: int = 0, shorter: int = 0) -> Finalist | None:
        """Return the best plan of a line at levels of room; none where there is none."""
        if load >= len(LOADS) or shorter >= len(SHORTER):
            return None
        of = self.lines[line]
        if isinstance(of, Join):
            join = None if shorter else self._with_less(of, LOADS[load])
        else:
            join = self._beside(of, LOADS[load], shorter)
        if join is None:
            return None
        loss = value(self.request, join.key) / value(self.request, self.best.key) - 1
        return Finalist(
            join=join,
            cases=self.cases,
            request=self.request,
            line=line,
            load=load,
            shorter=shorter,
            loss=loss,
        )

    def _beside(self, of: tuple[str, int], load: float, shorter: int) -> Join | None:
        """Return the best plan with a prefill instance that has so much of the load it may have."""
        kv_dtype, row = of
        prefills, leaders = self.columns[kv_dtype], self._leaders(kv_dtype, shorter)
        one = Prefills(
            plans=[prefills.plans[row]],
            servers=prefills.servers[row : row + 1],
            rate=prefills.rate[row : row + 1] * load,
            ttft=prefills.ttft[row : row + 1],
        )
        found = joined(leaders, one, self.request, Tally()) if leaders else []
        return min(found, key=lambda join: join.key, default=None)

    def _leaders(self, kv_dtype: str, shorter: int) -> list[Leader]:
        """Return the decode instances of a search, batched to a part of the limit on TPOT."""
        if (kv_dtype, shorter) in self.known:
            return self.known[kv_dtype, shorter]
        own = [join.decode for join in self.joins if not join.mixed and join.decode.mesh.family.kv_dtype == kv_dtype]
        found, tpot = fastest_of_a_size(own), self.request.targets.tpot
        if shorter and tpot is not None:
            limit = tpot * SHORTER[shorter]
            tried = [refitted(one, self.cases.decode, limit) for one in found]
            found = [one for one in tried if _tpot(one, self.cases) <= limit]
        held = [one for one in found if cache_tokens(one.plan(self.cases.decode).point) >= self.longest]
        self.known[kv_dtype, shorter] = held
        return held

    def _with_less(self, join: Join, load: float) -> Join | None:
        """Return mixed instances that serve a part of what they could; none for a given rate."""
        if load == 1:
            return join
        if self.request.rate is not None:
            return None
        served = join.served * load
        servers = float(np.ceil(join.decode_instances * join.decode.servers - ROUNDING))
        ordered = keys(self.request, served, servers, servers * self.request.prices[1], join.ttft)
        return replace(join, served=served, key=tuple(float(key) for key in ordered))


def _tpot(leader: Leader, cases: Cases) -> float:
    return as_float(leader.plan(cases.decode).point.tpot)
