"""The smallest instance of a pool that holds the model, whatever its speed."""

from dataclasses import replace

import numpy as np

from perfmodel.algebra import as_array, as_float
from perfmodel.prediction.layouts import too_many_tokens
from perfmodel.prediction.serving import Case, fewest_dies, footprint_of, usable_memory
from perfmodel.solver.both_pools import sizes_of
from perfmodel.solver.mesh import meshes
from perfmodel.solver.space import LARGEST_PREFILL_SERVERS, Choices
from perfmodel.specs.deployment import Phase


def smallest_instance(case: Case, phase: Phase, choices: Choices, servers: int, domain: int | None) -> int | None:
    """Return the dies of the smallest instance that a search has, on which weights and one request a rank fit.

    ``servers`` are the most that it may have, ``domain`` those that it does not leave.  None where none holds them.
    """
    fixed = {**choices.fixed, phase: {"batch": 1, **choices.fixed.get(phase, {})}}
    alone = replace(choices, fixed=fixed)
    most = min(servers, LARGEST_PREFILL_SERVERS) if phase == "prefill" else servers
    limit, fewest = as_float(usable_memory(case.rates)), fewest_dies(case)
    for size in sizes_of(case, most, domain):
        for mesh in meshes(case, phase, [size], alone) if size >= fewest else ():
            layout = mesh.layout()
            memory = as_array(footprint_of(layout, mesh.family, case).planned)
            if np.any((memory <= limit) & ~np.asarray(too_many_tokens(layout, mesh.family))):
                return size
    return None
