"""Which plan do clients see meet their limits: the best of a search replayed, and the next where it does not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from perfmodel.errors import UsageError
from perfmodel.planning.requests_asked import RequestsAsked
from perfmodel.prediction.deployment import Deployment
from perfmodel.prediction.serving import Case
from perfmodel.service.clients import quantities_of
from perfmodel.service.records import Service
from perfmodel.service.replay import replay
from perfmodel.service.results import Served
from perfmodel.service.setup import deployment_service
from perfmodel.solver.finalists import Finalist, Room
from perfmodel.solver.solution import Solution, Status
from perfmodel.specs.deployment import Phase
from perfmodel.specs.run import WAITS

SEED = 0
SPREAD_REQUESTS, EQUAL_REQUESTS = 60_000, 20_000
MOST_REQUESTS = 200_000
#: of the requests in the service: how many are sent at least, and how many of either end are left out
LIVES, ENDS, MOST_LEFT_OUT = 10, 1.5, 0.25
MOST_REPLAYED = 12  # plans
MOST_SCREENED = 60  # whose prompts alone are replayed, by fewer requests
SCREENED_REQUESTS = 10_000
CERTAIN = 1.1  # times a limit, above which a screening refuses


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

    @property
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
            found.append(Miss(key="goodput", value=self.within, limit=least, ratio=least / max(self.within, 1e-9)))
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

    finalist: Finalist
    deployment: Deployment
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
        """Whether every limit that chooses among plans is met."""
        return not self.misses or not self.seen.asked.chooses


@dataclass(slots=True, eq=False)
class Referee:
    """Replays plans at the rate that each serves, always with the same luck."""

    asked: RequestsAsked
    #: prefill's first
    cases: tuple[Case, Case]

    def seen(self, plan: Deployment) -> Seen:
        """Return what clients see of a plan; raises ``UsageError`` where a request passes the cache of a rank."""
        rate = plan.requests_per_s
        service = deployment_service(plan, self.cases, self.asked.routing)
        inside = rate * (float(plan.first_token.ttft) + plan.tpot * self.asked.workload.outputs.mean)
        least = SPREAD_REQUESTS if self.asked.spread or self.asked.workload.arrivals is not None else EQUAL_REQUESTS
        count = int(min(MOST_REQUESTS, max(least, LIVES * inside)))
        run = replay(self.asked.sent(rate, count, SEED), service, SEED)
        left_out = min(MOST_LEFT_OUT, ENDS * run.parts["service"].mean_inside / count)
        loads = {name: part.utilisation for name, part in run.parts.items() if name != "service"}
        served = run.part(left_out, 1 - left_out)
        return Seen(asked=self.asked, served=served, requests=count, rate=rate, loads=loads)

    def lateness(self, plan: Deployment) -> float:
        """Return by how much prompts alone pass the limits on TTFT at least: above 1 they come too late.

        A plan whose prefill pool alone is too late need not be replayed.  Mixed instances have no pool of prompts.
        """
        if plan.mixed or self.asked.tightest("ttft") is None:
            return 0.0
        whole = deployment_service(plan, self.cases, self.asked.routing)
        rest = whole.transfer.latency
        service = Service(prefill=whole.prefill, front_end=whole.front_end)
        sent = self.asked.sent(plan.requests_per_s, SCREENED_REQUESTS, SEED)
        served = replay(replace(sent, osl=sent.osl * 0 + 1), service, SEED).part(0.1)
        values = quantities_of(served)
        ratios = [
            (values[key] + rest) / limit for key, limit in self.asked.limits.items() if key.partition("_")[0] == "ttft"
        ]
        if self.asked.goodput is not None and served.within(ttft=self.asked.tightest("ttft")) < self.asked.goodput / CERTAIN:
            ratios.append(2 * CERTAIN)
        return max(ratios, default=0.0)


def refereed(solution: Solution, asked: RequestsAsked, cases: Mapping[Phase, Case]) -> tuple[Solution, Verdict]:
    """Return an answer with the best plan that clients see meet all limits, and what they see of it.

    Where limits are on means alone the best plan stays, whatever is seen.  Where no plan that is tried meets them it
    is the one that comes nearest, and the answer is none.  Pools are taken apart: a plan is not tried
    if its prompts alone come too late, or if it has the decode pool of one that missed TPOT, at no less load.
    """
    referee = Referee(asked=asked, cases=(cases["prefill"], cases["decode"]))
    best = solution.best
    assert best is not None
    if not asked.chooses:
        seen = referee.seen(best)
        return solution, Verdict(seen=seen, misses=tuple(seen.misses()), before=(), screened=0)
    tried: list[Tried] = []
    late: list[tuple[float, Finalist, Deployment]] = []
    known: set[tuple[object, ...]] = set()
    for finalist in solution.finalists:
        plan = finalist.deployment if tried else best
        if _name(plan) in known:
            continue
        known.add(_name(plan))
        if tried:
            if _as_late(plan, [one for _, _, one in late]) or _as_slow(plan, tried):
                continue
            if len(late) >= MOST_SCREENED or len(tried) >= MOST_REPLAYED:
                break
            lateness = referee.lateness(plan)
            if lateness > CERTAIN:
                late.append((lateness, finalist, plan))
                continue
        found = _tried(referee, finalist, plan)
        tried.append(found)
        if found.seen is not None and (not found.misses or not asked.chooses):
            verdict = Verdict(seen=found.seen, misses=found.misses, before=tuple(tried[:-1]), screened=len(late))
            return rebased(solution, found), verdict
    return _nearest(solution, referee, tried, late)


def _nearest(
    solution: Solution, referee: Referee, tried: list[Tried], late: list[tuple[float, Finalist, Deployment]]
) -> tuple[Solution, Verdict]:
    """Return the plan that comes nearest to its limits where none meets them, the answer as one that has none."""
    if late:
        _, finalist, plan = min(late, key=lambda one: one[0])
        tried.append(_tried(referee, finalist, plan))
    replayed = [one for one in tried if one.seen is not None]
    if not replayed:
        raise UsageError(tried[0].refused)
    nearest = min(replayed, key=lambda one: one.misses[0].ratio if one.misses else 0.0)
    assert nearest.seen is not None
    before = tuple(one for one in tried if one is not nearest)
    verdict = Verdict(seen=nearest.seen, misses=nearest.misses, before=before, screened=len(late))
    answer = rebased(solution, nearest)
    return (answer if verdict.met else replace(answer, status=Status.INFEASIBLE)), verdict


def _tried(referee: Referee, finalist: Finalist, plan: Deployment) -> Tried:
    try:
        seen = referee.seen(plan)
    except UsageError as error:  # a request that no rank's cache holds
        return Tried(finalist=finalist, deployment=plan, seen=None, misses=(), refused=str(error))
    return Tried(finalist=finalist, deployment=plan, seen=seen, misses=tuple(seen.misses()))


def _name(plan: Deployment) -> tuple[object, ...]:
    counts = plan.prefill_instances, plan.decode_instances, plan.mixed, plan.requests_per_s
    pools = (plan.prefill, plan.decode)
    return (*(part for one in pools for part in (one.layout.model_dump_json(), one.family)), *counts)


def _as_late(plan: Deployment, late: Sequence[Deployment]) -> bool:
    """Return whether prompts come as late as in a plan that was screened: no more instances of it, at no less load."""
    return any(
        plan.prefill.layout == one.prefill.layout
        and plan.prefill_instances <= one.prefill_instances
        and plan.prefill_utilisation >= one.prefill_utilisation
        for one in late
    )


def _as_slow(plan: Deployment, tried: Sequence[Tried]) -> bool:
    """Return whether a plan has the decode pool of one that missed TPOT, at no less load."""
    return any(
        plan.decode.layout == one.deployment.decode.layout
        and plan.decode_utilisation >= one.deployment.decode_utilisation
        and not plan.mixed
        for one in tried
        if any(miss.key.partition("_")[0] == "tpot" for miss in one.misses)
    )


def rebased(solution: Solution, chosen: Tried) -> Solution:
    """Return a solution with another plan as its best, everything it is held against relative to that one.

    What more of a limit buys is left out: it was worked out for the plan that the search found.
    """
    if chosen.deployment is solution.best or solution.best is None:
        return solution
    base = 1 + chosen.finalist.loss

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


def room_for(asked: RequestsAsked) -> Room | None:
    """Return where other plans are to have more room than the best; none where limits on means alone choose."""
    if not asked.chooses:
        return None
    waits = {key.partition("_")[0] for key in asked.limits if key not in WAITS or asked.goodput is not None}
    return Room(prefill="ttft" in {key.partition("_")[0] for key in asked.limits}, decode="tpot" in waits)
