"""Everything that the report of a plan shows, worked out once; drawing is left to ``perfmodel.report``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from perfmodel.algebra import as_float
from perfmodel.closed_form.moving import Movable
from perfmodel.planning.best_batches import outcome
from perfmodel.planning.changes import Change, Refusal
from perfmodel.planning.pools import Run, resolved_of
from perfmodel.planning.provenance import Input, inputs_of
from perfmodel.planning.systems_in_use import Site, sites_of, systems_of
from perfmodel.planning.targets import Target, targets_of
from perfmodel.planning.what_if import Effect, effects
from perfmodel.prediction.breakdown import Breakdown, breakdown
from perfmodel.prediction.cost import Cost, Power, card_prices, cost_of, power_of
from perfmodel.prediction.deployment import Deployment, PoolPlan, deployment_of
from perfmodel.prediction.deployment_uncertainty import (
    deployment_intervals,
    deployment_sensitivity,
    with_prefill_between,
)
from perfmodel.prediction.joined_pools import joined_rates
from perfmodel.prediction.placement import Die
from perfmodel.prediction.scenario import Resolved, ledger_of
from perfmodel.prediction.sensitivity import Swing
from perfmodel.prediction.timeline import Timeline, timeline
from perfmodel.prediction.uncertainty import DeploymentIntervals, PoolIntervals, pool_intervals
from perfmodel.scoring.deployments import Deployed
from perfmodel.scoring.distance import place_of
from perfmodel.scoring.neighbours import neighbours
from perfmodel.scoring.validation import Published, Result
from perfmodel.solver.front import point_of
from perfmodel.solver.request import Cases
from perfmodel.solver.solution import FrontPoint
from perfmodel.specs.deployment import Phase
from perfmodel.specs.plan import PlanSpec
from perfmodel.supply.machine import Machine
from perfmodel.supply.rates import Rates

NEIGHBOURS = 5  # published rows beside each pool


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolReport:
    """One pool: its instances, where the time of a step goes, how sure that is, what was published near it."""

    phase: Phase
    instances: int
    machine: Machine
    resolved: Resolved
    parts: Breakdown
    timeline: Timeline
    intervals: PoolIntervals
    load: float
    near: tuple[tuple[Result, float], ...]

    @property
    def rates(self) -> Rates:
        """Rates of its machine."""
        return self.resolved.scenario.case.rates

    @property
    def cards(self) -> float:
        """Packages of all instances."""
        return self.instances * self.resolved.plan.layout.dies / self.rates.dies_per_package


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """A plan with everything that its report shows."""

    plan: PlanSpec
    run: Run
    pools: Mapping[Phase, PoolReport]
    best: Deployment
    overall: DeploymentIntervals
    targets: tuple[Target, ...]
    #: probability that every limit on TPOT, TTFT and rate is met at once; none where there is no limit
    chance: float | None
    #: what each kind of die holds, by pool; mixed instances are decode's
    held: Mapping[Phase, PoolPlan]
    dies: tuple[Die, ...]
    sites: tuple[Site, ...]
    #: none where the run that found the plan has no price
    cost: Cost | None
    sensitivity: tuple[Swing, ...]
    #: what changes are worth at the same targets, the largest gain first; nothing for mixed serving
    effects: tuple[Effect, ...]
    refused: tuple[Refusal, ...]
    deployed: tuple[Deployed, ...]
    front: tuple[FrontPoint, ...]
    power: Power | None
    inputs: tuple[Input, ...]

    @property
    def movable(self) -> Movable:
        """The plan with its batch, lengths and rates left open."""
        return Movable(
            best=self.best,
            machines={phase: pool.machine for phase, pool in self.pools.items()},
            cases={phase: pool.resolved.scenario.case for phase, pool in self.pools.items()},
            utilisation=self.run.utilisation,
            asked=self.plan.wanted.requests_per_s,
            cards=self.cards,
            rented={phase: n * self.pools[phase].rates.packages_per_server for phase, n in self.best.servers.items()},
            prices=card_prices(self.plan.run),
        )

    @property
    def own(self) -> Mapping[Phase, PoolReport]:
        """Pools with dies of their own: mixed instances are decode's."""
        return {phase: self.pools[phase] for phase in self.held}

    @property
    def requests_per_s(self) -> float:
        """Requests per second, sustained."""
        return self.best.requests_per_s

    @property
    def cards(self) -> float:
        """Packages of both pools."""
        return sum(pool.cards for pool in self.own.values())

    @property
    def tokens_per_s(self) -> float:
        """Output tokens per second, sustained."""
        return self.requests_per_s * float(self.plan.conditions.osl)

    @property
    def tokens_per_s_per_card(self) -> float:
        """Output tokens per second and package of both pools, sustained."""
        return self.tokens_per_s / self.cards


def plan_report(
    plan: PlanSpec,
    run: Run,
    ideal: Mapping[Phase, Rates],
    *,
    changes: Sequence[Change],
    refused: Sequence[Refusal],
    published: Sequence[Published],
    deployed: Sequence[Deployed],
    front: Sequence[FrontPoint] = (),
) -> PlanReport:
    """Return the report of a plan whose pools are set up as ``run``.

    ``ideal`` are the rates of each pool with all efficiencies 1, ``changes`` what is tried on the plan.  Raises
    ``UsageError`` where a layout cannot be.
    """
    resolved = {phase: resolved_of(pool, run.model) for phase, pool in run.pools.items()}
    if len(systems_of(run)) > 1:
        case = resolved["prefill"].scenario.case
        rates = joined_rates({phase: one.scenario.case.rates for phase, one in resolved.items()})
        scenario = replace(resolved["prefill"].scenario, case=replace(case, rates=rates["prefill"]))
        resolved["prefill"] = replace(resolved["prefill"], scenario=scenario)
    best = _deployment(plan, run, resolved)
    pools: dict[Phase, PoolReport] = {
        "prefill": _pool(run, "prefill", resolved, ideal, best.prefill_instances, best.prefill_utilisation, published),
        "decode": _pool(run, "decode", resolved, ideal, best.decode_instances, best.decode_utilisation, published),
    }
    intervals = with_prefill_between(best, pools["prefill"].intervals, pools["decode"].intervals)
    pools["decode"] = replace(pools["decode"], intervals=intervals)
    case = resolved["prefill"].scenario.case
    of_pools = pools["prefill"].intervals, intervals
    overall = deployment_intervals(best, *of_pools, case, run.utilisation, plan.wanted.requests_per_s)
    held: dict[Phase, PoolPlan] = {"prefill": best.prefill, "decode": best.decode}
    if best.mixed:
        del held["prefill"]
    targets, chance = targets_of(plan, run, best, held, intervals, overall)
    before = None if best.mixed else outcome(run, ttft=run.ttft)
    tried = [] if before is None else effects(run, before, changes)
    dies, sites = sites_of(plan, run, best, resolved)
    return PlanReport(
        plan=plan,
        run=run,
        pools=pools,
        best=best,
        overall=overall,
        targets=targets,
        chance=chance,
        held=held,
        dies=dies,
        sites=sites,
        cost=_cost(plan, best, resolved),
        sensitivity=_sensitivity(run, best, resolved),
        effects=tuple(sorted((one for one in tried if isinstance(one, Effect)), key=lambda one: -one.gain)),
        refused=() if best.mixed else (*refused, *(one for one in tried if isinstance(one, Refusal))),
        deployed=tuple(deployed),
        front=_with_choice(front, best, resolved),
        power=_power(run, best, resolved),
        inputs=tuple(inputs_of(plan, run)),
    )


def _deployment(plan: PlanSpec, run: Run, resolved: Mapping[Phase, Resolved]) -> Deployment:
    """Return a plan as the solver states one, at the rate that its load and what was asked allow."""
    conditions = plan.conditions
    found = deployment_of(
        (resolved["prefill"].plan, resolved["decode"].plan),
        (conditions.prefill.instances, conditions.decode.instances),
        resolved["prefill"].scenario.case,
        run.utilisation,
        served=0.0,
        mixed=run.mixed,
    )
    served = run.utilisation * min(found.prefill_capacity, found.decode_capacity)
    asked = plan.wanted.requests_per_s
    return replace(found, requests_per_s=served if asked is None else min(served, asked))


def _sensitivity(run: Run, best: Deployment, resolved: Mapping[Phase, Resolved]) -> tuple[Swing, ...]:
    machines = {phase: pool.machine for phase, pool in run.pools.items()}
    if len(systems_of(run)) == 1:
        machines = dict.fromkeys(machines, machines["decode"])
    cases = {phase: one.scenario.case for phase, one in resolved.items()}
    return tuple(deployment_sensitivity(best, machines, cases, run.utilisation, ("TPOT", "TTFT", "rate")))


def _with_choice(
    front: Sequence[FrontPoint], best: Deployment, resolved: Mapping[Phase, Resolved]
) -> tuple[FrontPoint, ...]:
    """Return a front with the plan on it where no point beats it: its limits are some way apart."""
    if not front:
        return ()
    cases = Cases(prefill=resolved["prefill"].scenario.case, decode=resolved["decode"].scenario.case)
    own = point_of(best, cases)
    rate = own.tokens_per_s_per_card
    if any(one.tpot <= own.tpot * (1 + SAME) and one.tokens_per_s_per_card >= rate * (1 - SAME) for one in front):
        return tuple(front)
    kept = [one for one in front if one.tpot < own.tpot or one.tokens_per_s_per_card > rate]
    return tuple(sorted([*kept, own], key=lambda one: one.tpot))


SAME = 1e-6  # relative; nearer figures are the same


def _power(run: Run, best: Deployment, resolved: Mapping[Phase, Resolved]) -> Power | None:
    """Return the power of the servers in use, none where a system's file does not state it."""
    servers = best.servers
    each = {phase: pool.machine.system.spec.server_power for phase, pool in run.pools.items()}
    tokens = best.requests_per_s * as_float(resolved["decode"].scenario.case.osl)
    return power_of(servers=servers, server_power=each, tokens_per_s=tokens)


def _cost(plan: PlanSpec, best: Deployment, resolved: Mapping[Phase, Resolved]) -> Cost | None:
    if (prices := card_prices(plan.run)) is None:
        return None
    servers = best.servers
    packages = {phase: one.scenario.case.rates.packages_per_server for phase, one in resolved.items()}
    tokens = best.requests_per_s * float(plan.conditions.osl)
    return cost_of(servers=servers, packages_per_server=packages, prices=prices, tokens_per_s=tokens)


def _pool(
    run: Run,
    phase: Phase,
    resolved: Mapping[Phase, Resolved],
    ideal: Mapping[Phase, Rates],
    instances: int,
    load: float,
    published: Sequence[Published],
) -> PoolReport:
    one = resolved[phase]
    machine, case, layout = run.pools[phase].machine, one.scenario.case, one.plan.layout
    ledger = ledger_of(one.plan, case, case.traffic)
    parts = breakdown(ledger, one.plan.family, layout.attention_cores, case.rates, ideal[phase])
    at = place_of(run.pools[phase].conditions, machine, one)
    return PoolReport(
        phase=phase,
        instances=instances,
        machine=machine,
        resolved=one,
        parts=parts,
        timeline=timeline(ledger, one.plan.family, parts, ledger.main_layer),
        intervals=pool_intervals(machine, layout, one.plan.family, case),
        load=load,
        near=tuple(neighbours(at, published, NEIGHBOURS)),
    )
