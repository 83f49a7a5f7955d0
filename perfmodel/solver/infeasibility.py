"""Where no deployment is feasible though both pools have instances: how near the best comes to TTFT and the budget."""

import math
from dataclasses import replace

import numpy as np

from perfmodel.algebra import as_array, as_float
from perfmodel.prediction.deployment import ROUNDING
from perfmodel.prediction.layouts import too_many_tokens
from perfmodel.prediction.serving import Case, pool_point, usable_memory
from perfmodel.solver.both_pools import most_of_decode, sizes_of
from perfmodel.solver.join import Prefills
from perfmodel.solver.mesh import meshes
from perfmodel.solver.request import Cases, SearchRequest
from perfmodel.solver.space import Choices
from perfmodel.solver.tally import Tally, describe


def _shortest_steps(
    case: Case, sizes: list[int], tpot: float | None, choices: Choices
) -> tuple[dict[int, tuple[float, str]], int]:
    """Return the shortest decode step of each size that meets memory and TPOT, by which layout, and how many do."""
    shortest: dict[int, tuple[float, str]] = {}
    meeting, limit = 0, as_float(usable_memory(case.rates))
    for mesh in meshes(case, "decode", sizes, choices):
        point = pool_point(mesh.layout(), mesh.family, case)
        fits = (as_array(point.memory) <= limit) & (as_array(point.tpot) <= (tpot or math.inf))
        fits = np.broadcast_to(fits & ~np.asarray(too_many_tokens(mesh.layout(), mesh.family)), mesh.shape)
        meeting += int(np.count_nonzero(fits))
        steps = np.where(fits, as_array(point.step_time), np.inf)
        for row, dies in enumerate(mesh.experts.dies.tolist()):
            at = int(steps[row].argmin())
            step = float(steps[row].flat[at])
            if step < shortest.get(int(dies), (math.inf,))[0]:
                layout = mesh.layout_at(row * steps[row].size + at)
                shortest[int(dies)] = step, describe(layout, mesh.family)
    return shortest, meeting


def _tally(
    shortest: dict[int, tuple[float, str]],
    meeting: int,
    prefills: Prefills,
    case: Case,
    request: SearchRequest,
    tally: Tally,
) -> None:
    """Tally the shortest TTFT within the budget, or the fewest cards of one instance of each pool."""
    servers = np.ceil(prefills.servers - ROUNDING)
    own, ttft, cards = request.prefill_servers, request.targets.ttft, case.rates.packages_per_server
    needed = math.inf
    for dies, (step, layout) in shortest.items():
        of_decode = -(-dies // case.rates.dies_per_server)
        fitting = servers <= (request.servers - of_decode if own is None else own)
        needed = min(needed, of_decode + float(servers.min()))
        if ttft is not None and fitting.any() and (first := float(prefills.ttft[fitting].min()) + step) > ttft:
            tally.miss("ttft", first, ttft, layout)
    if own is None and request.servers < needed < math.inf:
        tally.count("cards", meeting)
        tally.miss("cards", needed * cards, request.servers * cards, "one instance of each pool")
    elif not tally.refused.get("ttft"):
        tally.count("ttft", meeting if "ttft" in tally.closest else 0)


def tally_infeasibility(cases: Cases, request: SearchRequest, columns: dict[str, Prefills], tally: Tally) -> None:
    """Go over the space once more for the shortest TTFT, and the smallest budget, of a pair of instances."""
    sizes = sizes_of(cases.decode, most_of_decode(request), request.domains[1])
    for kv_dtype, prefills in columns.items():
        if prefills.plans:
            choices = replace(request.choices, kv_dtypes=(kv_dtype,))
            found = _shortest_steps(cases.decode, sizes, request.targets.tpot, choices)
            _tally(*found, prefills, cases.decode, request, tally)
