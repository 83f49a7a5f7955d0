"""One decode instance under other margins: its batch and the prefill instances beside it anew, its structure kept."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from perfmodel.solver.join import Join, Prefills, joined
from perfmodel.solver.refit import every_batch
from perfmodel.solver.request import Cases, SearchRequest
from perfmodel.solver.solution import Beside
from perfmodel.solver.tally import Tally


def refined(join: Join, columns: Mapping[str, Prefills], cases: Cases, asked: Sequence[SearchRequest]) -> list[Beside]:
    """Return the best deployment with the decode instance of a join for each of several requests, where there is one.

    The instance keeps everything but its batch and core split; prefill instances are chosen anew.  None of mixed ones.
    """
    if join.mixed:
        return []
    every, found = every_batch(join.decode, cases.decode), []
    for one in asked:
        tpot = one.targets.tpot
        decode = every.leader(math.inf if tpot is None else tpot)
        if decode is not None:
            own = replace(decode, key=join.decode.key)
            joins = joined([own], columns[join.decode.mesh.family.kv_dtype], one, Tally())
            found.append(Beside(request=one, joins=tuple(joins), cases=cases))
    return found
