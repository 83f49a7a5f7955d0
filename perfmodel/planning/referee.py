"""Which plan do clients see meet their limits: the best of a search replayed, and the next where it does not."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from heapq import heapify, heappop, heappush

import numpy as np

from perfmodel.algebra import as_float
from perfmodel.errors import UsageError
from perfmodel.planning.requests_asked import RequestsAsked
from perfmodel.prediction.deployment import Deployment
from perfmodel.prediction.serving import Case
from perfmodel.service.clients import quantities_of
from perfmodel.service.records import Service
from perfmodel.service.replay import replay
from perfmodel.service.results import Served
from perfmodel.service.setup import planned_service
from perfmodel.solver.finalists import LOADS, Finalist, Finalists
from perfmodel.solver.solution import Solution, Status
from perfmodel.specs.deployment import Phase
from perfmodel.specs.run import WAITS

SEED = 0
SPREAD_REQUESTS, EQUAL_REQUESTS = 60_000, 20_000
MOST_REQUESTS = 200_000
#: of the requests in the service: how many are sent at least, and how many of either end are left out
LIVES, ENDS, MOST_LEFT_OUT = 10, 1.5, 0.25
MOST_REPLAYED = 12  # plans
MOST_SCREENED = 250  # whose prompts alone are replayed, by fewer requests
SCREENED_REQUESTS, START = 10_000, 0.1
FIRST_STEP = 0.05  # part of the limit on TTFT, from which on a shorter step of decode is tried for its sake
LEAST = 1e-9  # part of the requests, where none is within
CERTAIN = 1.05  # times a limit, above which a screening refuses: so few requests tell no more
DECODE_STEP = 0.9  # of the step at full batch, that a first token takes at least


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """What clients see of a plan: requests while it ran steadily, and how they stand to what was asked."""

    asked: RequestsAsked
    #: without the start of the run and its end
    served: Served
    requests: int
    rate: float
    #: parts of the time that instances of each pool run steps
    loads: Mapping[str, float]

    @cached_property
    def values(self) -> Mapping[str, float]:
        """Means and percentiles: ``ttft``, ``ttft_p50``, ..., ``tpot``, ``itl_max``, ``e2e``."""
        return quantities_of(self.served)

    @cached_property
    def within(self) -> float:
        """Part of the requests that are within the tightest limit on each wait; 1 where there is none."""
        return self.served.within(ttft=self.asked.tightest("ttft"), tpot=self.asked.tightest("tpot"))

    def within_of(self, wait: str) -> float | None:
        """Return the part of the requests within the tightest limit on one wait; none where there is none."""
        limit = self.asked.tightest(wait)
        return None if limit is None else self.within_of_limit(wait, limit)

    def within_of_limit(self, wait: str, limit: float) -> float:
        """Return the part of the requests within a limit on one wait."""
        return self.served.within(ttft=limit) if wait == "ttft" else self.served.within(tpot=limit)

    @property
    def goodput(self) -> float:
        """Requests a second that are within all limits, at the rate of the plan."""
        return self.rate * self.within

    def misses(self) -> list["Miss"]:
        """Return the limits that are not met, the one that is missed by most first."""
        found = [
            Miss(key=key, value=self.values[key], limit=limit, ratio=self.values[key] / limit)
            for key, limit in self.asked.limits.items()
            if self.values.get(key, 0.0) > limit
        ]
        least = self.asked.goodput
        if least is not None and self.within < least:
            found.append(Miss(key="goodput", value=self.within, limit=least, ratio=least / max(self.within, LEAST)))
        return sorted(found, key=lambda one: -one.ratio)


@dataclass(frozen=True, slots=True, kw_only=True)
class Miss:
    """A limit that clients see missed: a time, or of ``goodput`` a part of the requests."""

    key: str
    value: float
    limit: float
    #: how far beyond, above 1
    ratio: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tried:
    """A plan that was replayed: what clients see, and which limits they see missed."""

    deployment: Deployment
    #: relative change of the objective from the best
    loss: float
    seen: Seen | None
    misses: tuple[Miss, ...]
    #: why it cannot be replayed; nothing where it was
    refused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Verdict:
    """What clients see of the plan that is given, and of those before it that they see miss a limit."""

    seen: Seen
    misses: tuple[Miss, ...]
    before: tuple[Tried, ...]
    #: plans of which prompts alone were replayed, and came too late
    screened: int

    @property
    def met(self) -> bool:
        """Whether every limit is met that chooses among plans."""
        return not self.misses or not self.seen.asked.chooses


@dataclass(slots=True, eq=False)
class Referee:
    """Replays plans at the rate that each serves, always with the same luck."""

    asked: RequestsAsked
    #: prefill's first
    cases: tuple[Case, Case]
    #: plans of which prompts alone were replayed: how late they come
    screened: list[tuple[float, Finalist]] = field(default_factory=list)

    def seen(self, plan: Deployment) -> Seen:
        """Return what clients see of a plan; raises ``UsageError`` where a request passes the cache of a rank."""
        rate = plan.requests_per_s
        service = planned_service(plan, self.cases, self.asked.routing)
        inside = rate * (as_float(plan.first_token.ttft) + plan.tpot * self.asked.workload.outputs.mean)
        least = SPREAD_REQUESTS if self.asked.spread or self.asked.workload.arrivals is not None else EQUAL_REQUESTS
        count = int(min(MOST_REQUESTS, max(least, LIVES * inside)))
        run = replay(self.asked.sent(rate, count, SEED), service, SEED)
        left_out = min(MOST_LEFT_OUT, ENDS * run.parts["service"].mean_inside / count)
        loads = {name: part.utilisation for name, part in run.parts.items() if name != "service"}
        served = run.part(left_out, 1 - left_out)
        return Seen(asked=self.asked, served=served, requests=count, rate=rate, loads=loads)

    def lateness(self, finalist: Finalist) -> float:
        """Return by how much a plan passes limits at least, from few requests: above 1 it is too late.

        Of pools apart prompts of prefill alone, and a step of decode at the load it has, whatever decode does besides;
        mixed instances as a whole.
        """
        plan, asked = finalist.deployment, self.asked
        whole, rest = planned_service(plan, self.cases, asked.routing), 0.0
        count = SCREENED_REQUESTS
        if asked.arrival_cv is None:  # all of what is known to come in bursts
            count = max(count, min(SPREAD_REQUESTS, asked.workload.requests))
        sent = asked.sent(plan.requests_per_s, count, SEED)
        if not plan.mixed:
            if asked.tightest("ttft") is None:
                return 0.0
            rest = whole.transfer.latency + DECODE_STEP * as_float(plan.decode.point.step_time)
            whole = Service(prefill=whole.prefill, front_end=whole.front_end)
            sent = replace(sent, osl=np.ones_like(sent.osl))
        served = replay(sent, whole, SEED).part(START)
        served = replace(served, first=served.first + rest, finish=served.finish + rest)
        values = quantities_of(served)
        ratios = [values[key] / limit for key, limit in asked.limits.items() if key in values]
        if asked.goodput is not None:
            waits = {"ttft": served.ttft, "tpot": served.tpot[served.osl > 1]}
            ends = {wait: float(np.quantile(one, asked.goodput)) for wait, one in waits.items() if len(one)}
            ratios += [end / limit for wait, end in ends.items() if (limit := asked.tightest(wait)) is not None]
        late = max(ratios)
        self.screened.append((late, finalist))
        return late

    def in_time(self, lines: Finalists, finalist: Finalist) -> Finalist | None:
        """Return the plan of a line with the least room in prefill, from this one on, whose prompts come in time.

        Found by halving: more room never makes prompts later.  None where they never are in time.
        """
        if self.lateness(finalist) <= CERTAIN:
            return finalist
        low, high, found = finalist.load, len(LOADS), None
        while high - low > 1:
            middle = (low + high) // 2
            tried = lines.at(finalist.line, middle, finalist.shorter)
            if tried is None or self.lateness(tried) <= CERTAIN:
                found, high = tried, middle
            else:
                low = middle
        return found


def refereed(solution: Solution, asked: RequestsAsked, cases: Mapping[Phase, Case]) -> tuple[Solution, Verdict]:
    """Return an answer with the best plan that clients see meet all limits, and what they see of it.

    Where limits are on means alone the best plan stays, whatever is seen.  Else plans are replayed in order of the
    objective; one that misses TTFT is followed by that with more room in prefill, one that misses TPOT by that with
    more in decode, which can be no better: so the first that meets all limits is the best of those tried and to come.
    Where none meets them it is the one that comes nearest, and the answer is none.
    Raises ``UsageError`` where no plan holds the longest request.
    """
    referee = Referee(asked=asked, cases=(cases["prefill"], cases["decode"]))
    best, lines = solution.best, solution.finalists
    assert best is not None and lines is not None
    first = _tried(referee, best, 0.0)
    if first.seen is not None and (not first.misses or not asked.chooses):
        return solution, Verdict(seen=first.seen, misses=first.misses, before=(), screened=0)
    lines = replace(lines, longest=int((asked.workload.isl + asked.workload.osl).max()), known={})
    tried = {_name(best): first}
    #: plans by objective, and whether their prompts are known to come in time
    queue = [(one.join.key, number, one, False) for number, one in enumerate(lines.first())]
    number = len(queue)
    heapify(queue)
    while queue and len(tried) < MOST_REPLAYED and len(referee.screened) < MOST_SCREENED:
        _, _, finalist, in_time = heappop(queue)
        name = _name(finalist.deployment)
        if name not in tried and not in_time and asked.chooses:
            ready = referee.in_time(lines, finalist)
            if ready is not finalist:
                quicker = _with_shorter_steps(lines, finalist, asked)
                for one, in_time in ((ready, True), (quicker, False)):
                    if one is not None:
                        number += 1
                        heappush(queue, (one.join.key, number, one, in_time))
                continue
        if name not in tried:
            found = tried[name] = _tried(referee, finalist.deployment, finalist.loss)
            if found.seen is not None and (not found.misses or not asked.chooses):
                before = tuple(one for one in tried.values() if one is not found)
                late = _late(referee.screened)
                return rebased(solution, found), Verdict(
                    seen=found.seen, misses=found.misses, before=before, screened=late
                )
        for one in _roomier(lines, finalist, tried[name]):
            if one is not None:
                number += 1
                heappush(queue, (one.join.key, number, one, False))
    return _nearest(solution, referee, list(tried.values()))


def _roomier(lines: Finalists, finalist: Finalist, tried: Tried) -> list[Finalist | None]:
    """Return what follows a plan that missed a limit: more room where it lacks."""
    waits = {miss.key.partition("_")[0] for miss in tried.misses}
    if "goodput" in waits and tried.seen is not None:
        asked = tried.seen.asked
        limited = [wait for wait in WAITS if asked.tightest(wait) is not None]
        short = [wait for wait in limited if (tried.seen.within_of(wait) or 0.0) < (asked.goodput or 0.0)]
        waits |= set(short or limited)
    found = []
    if "ttft" in waits or (waits and finalist.deployment.mixed):  # one room for both
        found.append(lines.at(finalist.line, finalist.load + 1, finalist.shorter))
    if "tpot" in waits:
        found.append(lines.at(finalist.line, finalist.load, finalist.shorter + 1))
    elif "ttft" in waits and tried.seen is not None:
        found.append(_with_shorter_steps(lines, finalist, tried.seen.asked))
    return found


def _with_shorter_steps(lines: Finalists, finalist: Finalist, asked: RequestsAsked) -> Finalist | None:
    """Return the plan of a line with more room in decode, where its first step is much of the limit on TTFT."""
    limit, step = asked.tightest("ttft"), as_float(finalist.deployment.decode.point.step_time)
    if limit is None or step < FIRST_STEP * limit:
        return None
    return lines.at(finalist.line, finalist.load, finalist.shorter + 1)


def _late(screened: list[tuple[float, Finalist]]) -> int:
    return sum(late > CERTAIN for late, _ in screened)


def _nearest(solution: Solution, referee: Referee, tried: list[Tried]) -> tuple[Solution, Verdict]:
    """Return the plan that comes nearest to its limits where none meets them, the answer as one that has none."""
    late = _late(referee.screened)
    for _, least in sorted(referee.screened, key=lambda one: one[0])[:1]:
        tried = [*tried, _tried(referee, least.deployment, least.loss)]
    replayed = [one for one in tried if one.seen is not None]
    if not replayed:
        raise UsageError(tried[0].refused)
    nearest = min(replayed, key=lambda one: one.misses[0].ratio if one.misses else 0.0)
    assert nearest.seen is not None
    before = tuple(one for one in tried if one is not nearest)
    verdict = Verdict(seen=nearest.seen, misses=nearest.misses, before=before, screened=late)
    answer = rebased(solution, nearest)
    return (answer if verdict.met else replace(answer, status=Status.INFEASIBLE)), verdict


def _tried(referee: Referee, plan: Deployment, loss: float) -> Tried:
    try:
        seen = referee.seen(plan)
    except UsageError as error:  # a request that no rank's cache holds
        return Tried(deployment=plan, loss=loss, seen=None, misses=(), refused=str(error))
    return Tried(deployment=plan, loss=loss, seen=seen, misses=tuple(seen.misses()))


def _name(plan: Deployment) -> tuple[object, ...]:
    counts = plan.prefill_instances, plan.decode_instances, plan.mixed, plan.requests_per_s
    pools = (plan.prefill, plan.decode)
    return (*(part for one in pools for part in (one.layout.model_dump_json(), one.family)), *counts)


def rebased(solution: Solution, chosen: Tried) -> Solution:
    """Return a solution with another plan as its best, everything it is held against relative to that one.

    What more of a limit buys is left out: it was worked out for the plan that the search found.
    """
    if chosen.deployment is solution.best or solution.best is None:
        return solution
    base = 1 + chosen.loss

    def anew(loss: float) -> float:
        return (1 + loss) / base - 1

    others = [(solution.best, 0.0), *zip(solution.alternatives, solution.losses, strict=True)]
    kept = [one for one in others if _name(one[0]) != _name(chosen.deployment)][: max(1, len(solution.alternatives))]
    return replace(
        solution,
        best=chosen.deployment,
        alternatives=tuple(plan for plan, _ in kept),
        losses=tuple(anew(loss) for _, loss in kept),
        alternative_costs=tuple(replace(one, loss=anew(one.loss)) for one in solution.alternative_costs),
        given=tuple(one if one.loss is None else replace(one, loss=anew(one.loss)) for one in solution.given),
        shadow_prices=(),
        relaxed_rate=None,
    )
