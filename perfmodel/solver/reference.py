"""An instance of either pool that stands for all while the doubt of their steps is looked at, before the search."""

import math
from collections.abc import Iterable

import numpy as np

from perfmodel.algebra import as_array, as_float
from perfmodel.prediction.deployment import PoolPlan, exact_pool
from perfmodel.prediction.serving import Case, pool_point, usable_memory
from perfmodel.solver.both_pools import most_of_decode, sizes_of
from perfmodel.solver.mesh import meshes
from perfmodel.solver.request import Cases, SearchRequest
from perfmodel.specs.deployment import Phase


def reference_pools(cases: Cases, request: SearchRequest) -> tuple[PoolPlan, PoolPlan] | None:
    """Return a prefill and a decode instance that fit; none where there is no such instance.

    Each is the fastest of the first structure that has one.  Decode's size is in the middle of those that are
    searched, or the next that has an instance within the limit on TPOT; prefill's the smallest that has one.
    """
    sizes = sizes_of(cases.decode, most_of_decode(request), request.domains[1])
    middle = len(sizes) // 2
    tpot = math.inf if request.targets.tpot is None else request.targets.tpot
    decode = _first(cases.decode, "decode", (*sizes[middle:], *reversed(sizes[:middle])), request, tpot)
    if decode is None:
        return None
    servers = request.prefill_servers or request.servers
    prefill = _first(cases.prefill, "prefill", sizes_of(cases.prefill, servers, request.domains[0]), request, math.inf)
    return None if prefill is None else (prefill, decode)


def _first(case: Case, phase: Phase, sizes: Iterable[int], request: SearchRequest, tpot: float) -> PoolPlan | None:
    for size in sizes:
        for mesh in meshes(case, phase, [size], request.choices):
            point = pool_point(mesh.layout(), mesh.family, case)
            fits = (as_array(point.memory) <= as_float(usable_memory(case.rates))) & (as_array(point.tpot) <= tpot)
            rate = np.broadcast_to(np.where(fits, as_array(point.requests_per_s), -1.0), mesh.shape)
            index = int(rate.argmax())
            if rate.flat[index] > 0:
                return exact_pool(mesh.layout_at(index), mesh.family, case)
    return None
