"""Over which draft acceptance the structure of the best plan stays the best."""

from perfmodel.prediction.serving import Case
from perfmodel.solver.alternatives import structural_choices
from perfmodel.solver.both_pools import best_of_each
from perfmodel.solver.request import Cases, SearchRequest
from perfmodel.solver.search import Limits
from perfmodel.solver.solution import OptimalRange

STEPS = 41  # of acceptance from 0 to 1


def optimal_range(case: Case, request: SearchRequest, prefill_case: Case | None = None) -> OptimalRange | None:
    """Return over which acceptance of the first draft position the structure of decode stays that of the best plan.

    Every plan of the space is compared at each of ``STEPS`` acceptances; all positions scale together, at most to 1.
    The ends are the last steps at which it is the best.  None where nothing is drafted, TPOT is open or instances may
    be mixed.
    """
    cases = Cases(prefill=prefill_case or case, decode=case)
    accepted, tpot = case.acceptance, request.targets.tpot
    if not accepted or not accepted[0] or tpot is None or request.serving != "disaggregated":
        return None
    steps = [step / (STEPS - 1) for step in range(STEPS)]
    asked = min(range(STEPS), key=lambda step: abs(steps[step] - accepted[0]))
    steps[asked] = accepted[0]
    scaled = [tuple(min(1.0, rate * step / accepted[0]) for rate in accepted) for step in steps]
    best = best_of_each(cases, request, [Limits(tpot=tpot, acceptance=one) for one in scaled])
    words = [None if join is None else structural_choices(join) for join in best]
    chosen = words[asked]
    if chosen is None:
        return None
    low = high = asked
    while low > 0 and words[low - 1] == chosen:
        low -= 1
    while high < STEPS - 1 and words[high + 1] == chosen:
        high += 1

    def other(step: int) -> str:
        found = words[step] if 0 <= step < STEPS else None
        return ", ".join(word for respect, word in (found or {}).items() if word != chosen[respect])

    return OptimalRange(
        lowest=steps[low], highest=steps[high], asked=accepted[0], below=other(low - 1), above=other(high + 1)
    )
