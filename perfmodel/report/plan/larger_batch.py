"""What stops the batch of a pool from being larger."""

from collections.abc import Mapping

from perfmodel.algebra import as_float
from perfmodel.prediction.deployment import Deployment, exact_pool, footprint_of_both
from perfmodel.prediction.layouts import LARGEST_BATCH
from perfmodel.prediction.mixed import mixed_time
from perfmodel.prediction.serving import Case
from perfmodel.solver.request import SearchRequest
from perfmodel.specs.deployment import Phase

FULL = 0.02  # of a load: pools so near each other are both full


def stopped_by(best: Deployment, phase: Phase, cases: Mapping[Phase, Case], search: SearchRequest) -> str:
    """Return what one more sequence per rank would break."""
    pool = best.decode if phase == "decode" else best.prefill
    tpot, rate = search.targets.tpot, search.rate
    if pool.layout.batch >= LARGEST_BATCH:
        return f"the search, which ends at {LARGEST_BATCH}"
    layout = pool.layout.model_copy(update={"batch": pool.layout.batch + 1})
    more = exact_pool(layout, pool.family, cases[phase])
    prefill, decode = (more, best.decode) if phase == "prefill" else (best.prefill, more)
    time = as_float(mixed_time(prefill.point, decode.point) if best.mixed else more.point.tpot)
    memory = as_float(footprint_of_both(prefill, decode).planned if best.mixed else more.point.memory)
    broken = ["memory"] if memory > as_float(more.point.usable) else []
    if tpot is not None and time > tpot and (phase == "decode" or best.mixed):
        broken.append("TPOT")
    if broken:
        return " and ".join(broken)
    if phase == "prefill":
        return "TTFT (longer batches only wait longer)"
    if rate is not None and best.requests_per_s >= rate * (1 - FULL):
        return "no gain: the rate asked for is served"
    if not best.mixed and best.decode_utilisation < best.prefill_utilisation * (1 - FULL):
        return "no gain: prefill sets the rate"
    return "TTFT, or no gain in the whole plan"
