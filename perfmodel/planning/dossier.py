"""Everything that the report of a plan shows, worked out once; drawing is left to ``perfmodel.report``."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np

from perfmodel.algebra import as_float
from perfmodel.formulas.serving import cost_of_tokens
from perfmodel.planning.changes import Change, Refusal
from perfmodel.planning.outcome import outcome
from perfmodel.planning.pools import Run, resolved_of
from perfmodel.planning.what_if import Effect, effects
from perfmodel.prediction.breakdown import Breakdown, breakdown
from perfmodel.prediction.placement import Die, placement
from perfmodel.prediction.scenario import Resolved, joined_rates, ledger_of
from perfmodel.prediction.sensitivity import Swing
from perfmodel.prediction.timeline import Timeline, timeline
from perfmodel.prediction.uncertainty import Interval, JoinedRange, PoolRange, interleaved, pool_range
from perfmodel.scoring.deployments import Deployed
from perfmodel.scoring.distance import place_of
from perfmodel.scoring.neighbours import neighbours
from perfmodel.scoring.validation import Published, Result
from perfmodel.solver.join import divided
from perfmodel.solver.plan import Deployment, FrontPoint, PoolPlan
from perfmodel.solver.solve import deployment_of, felt, joined_sure
from perfmodel.specs.deployment import Phase
from perfmodel.specs.model import ModelSpec
from perfmodel.specs.plan import PlanSpec
from perfmodel.supply.machine import Machine
from perfmodel.supply.rates import Rates
from perfmodel.units import HOUR

LAYER = "moe_layer"  # block that is shown over time
NEIGHBOURS = 5  # published rows beside each pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One limit, asked for or of the machine, beside what is predicted; SI units."""

    name: Literal["tpot", "ttft", "rate", "memory"]
    phase: Phase | None
    value: float
    limit: float | None
    unit: str
    interval: Interval | None
    #: probability that the limit is met, where it follows from the stated ranges
    chance: float | None

    @property
    def met(self) -> bool | None:
        """Whether the prediction is within the limit; none where there is none."""
        if self.limit is None:
            return None
        return self.value >= self.limit * (1 - 1e-9) if self.name == "rate" else self.value <= self.limit * (1 + 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolReport:
    """One pool: its instances, where the time of a step goes, how sure that is, what was published near it."""

    phase: Phase
    instances: int
    machine: Machine
    resolved: Resolved
    parts: Breakdown
    timeline: Timeline
    sure: PoolRange
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
class Site:
    """One system of a plan, in groups of servers that no instance leaves."""

    machine: Machine
    rates: Rates
    #: phases of the pools on it
    phases: tuple[Phase, ...]
    #: servers of a group, and those in use by number, which counts on from system to system
    size: int
    first: int
    used: tuple[int, ...]
    #: cards of the budget that are in no server in use; none where there was no budget
    idle: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a plan costs, in the money of its prices."""

    per_hour: float
    per_million_tokens: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """What a plan takes in with every server at its largest input, and for one output token."""

    watts: float
    joules_per_token: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One value that the plan was made from, as its file writes it, and where it comes from."""

    group: str
    name: str
    text: str
    span: str
    kind: str
    source: str
    url: str | None
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """A plan with everything that its report shows."""

    plan: PlanSpec
    run: Run
    pools: Mapping[Phase, PoolReport]
    best: Deployment
    joined: JoinedRange
    targets: tuple[Target, ...]
    #: probability that every limit on TPOT, TTFT and rate is met at once; none where there is no limit
    chance: float | None
    #: what each kind of die holds, by pool; mixed instances are decode's
    held: Mapping[Phase, PoolPlan]
    dies: tuple[Die, ...]
    sites: tuple[Site, ...]
    #: none where the run that found the plan has no price
    cost: Cost | None
    felt: tuple[Swing, ...]
    #: what changes are worth at the same targets, the largest gain first; nothing for mixed serving
    effects: tuple[Effect, ...]
    refused: tuple[Refusal, ...]
    deployed: tuple[Deployed, ...]
    front: tuple[FrontPoint, ...]
    power: Power | None
    inputs: tuple[Input, ...]

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
    if len(_systems(run)) > 1:
        case = resolved["prefill"].scenario.case
        rates = joined_rates({phase: one.scenario.case.rates for phase, one in resolved.items()})
        scenario = replace(resolved["prefill"].scenario, case=replace(case, rates=rates["prefill"]))
        resolved["prefill"] = replace(resolved["prefill"], scenario=scenario)
    best = _deployment(plan, run, resolved)
    pools = {
        "prefill": _pool(run, "prefill", resolved, ideal, best.prefill_instances, best.prefill_utilisation, published),
        "decode": _pool(run, "decode", resolved, ideal, best.decode_instances, best.decode_utilisation, published),
    }
    if best.mixed:
        added = best.tpot_added * as_float(resolved["decode"].point.tokens_per_step)
        sure = interleaved(pools["decode"].sure, pools["prefill"].sure, added)
        pools["decode"] = replace(pools["decode"], sure=sure)
    case = resolved["prefill"].scenario.case
    sures = pools["prefill"].sure, pools["decode"].sure
    joined = joined_sure(best, *sures, case, run.utilisation, plan.wanted.requests_per_s)
    held: dict[Phase, PoolPlan] = {"prefill": best.prefill, "decode": best.decode}
    if best.mixed:
        del held["prefill"]
    targets, chance = _targets(plan, run, best, held, pools["decode"].sure, joined)
    before = None if best.mixed else outcome(run, ttft=run.ttft)
    tried = [] if before is None else effects(run, before, changes)
    dies, sites = _sites(plan, run, best, resolved)
    return PlanReport(
        plan=plan,
        run=run,
        pools=cast(Any, pools),
        best=best,
        joined=joined,
        targets=targets,
        chance=chance,
        held=held,
        dies=dies,
        sites=sites,
        cost=_cost(plan, best, resolved),
        felt=_felt(run, best, resolved),
        effects=tuple(sorted((one for one in tried if isinstance(one, Effect)), key=lambda one: -one.gain)),
        refused=() if best.mixed else (*refused, *(one for one in tried if isinstance(one, Refusal))),
        deployed=tuple(deployed),
        front=_with_choice(front, best, resolved),
        power=_power(run, best, resolved),
        inputs=tuple(_inputs(plan, run)),
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


def _felt(run: Run, best: Deployment, resolved: Mapping[Phase, Resolved]) -> tuple[Swing, ...]:
    machines = {phase: pool.machine for phase, pool in run.pools.items()}
    if len(_systems(run)) == 1:
        machines = dict.fromkeys(machines, machines["decode"])
    cases = {phase: one.scenario.case for phase, one in resolved.items()}
    return tuple(felt(best, machines, cases, run.utilisation, ("TPOT", "TTFT", "rate")))


def _systems(run: Run) -> dict[str, tuple[Phase, ...]]:
    """Return the phases on each system; prefill's comes first where there are two."""
    found: dict[str, tuple[Phase, ...]] = {}
    for phase in ("prefill", "decode"):
        name = run.pools[phase].machine.system.spec.name
        found[name] = (*found.get(name, ()), phase)
    return found


def _sites(
    plan: PlanSpec, run: Run, best: Deployment, resolved: Mapping[Phase, Resolved]
) -> tuple[tuple[Die, ...], tuple[Site, ...]]:
    """Return the place of every die, and the systems that they are on."""
    servers: dict[Phase, int] = {"prefill": best.prefill_servers, "decode": best.decode_servers}
    layouts = {phase: one.plan.layout for phase, one in resolved.items() if servers[phase]}
    dies: list[Die] = []
    sites: list[Site] = []
    first = 0
    for phases in _systems(run).values():
        rates = resolved[phases[-1]].scenario.case.rates
        own = {phase: layout for phase, layout in layouts.items() if phase in phases}
        used = sum(servers[phase] for phase in phases)
        given = plan.wanted.cards
        if plan.run is not None and plan.run.prefill_on is not None and phases == ("prefill",):
            given = plan.run.prefill_cards
        budget = max(used, (given or 0) // rates.packages_per_server)
        size = int(rates.max_packages // rates.packages_per_server)
        counts: dict[Phase, int] = {"prefill": best.prefill_instances, "decode": best.decode_instances}
        domains = _domains({phase: (counts[phase], resolved[phase].plan.servers) for phase in own}, budget, size)
        found = placement(own, domains, run.model, rates, size=size, first=first)
        dies += found
        sites.append(
            Site(
                machine=run.pools[phases[-1]].machine,
                rates=rates,
                phases=phases,
                size=size,
                first=first,
                used=tuple(sorted({die.server for die in found})),
                idle=None if given is None else max(0, given - used * rates.packages_per_server),
            )
        )
        first = max(die.server for die in found)
    return tuple(dies), tuple(sites)


def _domains(pools: Mapping[Phase, tuple[int, float]], servers: int, size: int) -> list[dict[Phase, int]]:
    """Return how many instances each domain has of each pool; all in one where an instance leaves its domain.

    ``pools`` are the instances of each and the servers of one.
    """
    (phase, (count, each)), *rest = pools.items()
    if rest:
        ((other, (number, own)),) = rest
        shares = divided((count, number), (each, own), servers, size)
        found: list[dict[Phase, int]] = [{phase: a, other: b} for a, b in shares]
    else:
        found = [{phase: b} for _, b in divided((0, count), (1.0, each), servers, size)]
    return found or [{name: count for name, (count, _) in pools.items()}]


def _with_choice(
    front: Sequence[FrontPoint], best: Deployment, resolved: Mapping[Phase, Resolved]
) -> tuple[FrontPoint, ...]:
    """Return a front with the plan on it where no point beats it: its limits are some way apart."""
    if not front:
        return ()
    servers: dict[Phase, int] = {"prefill": best.prefill_servers, "decode": best.decode_servers}
    cards = sum(servers[phase] * one.scenario.case.rates.packages_per_server for phase, one in resolved.items())
    rate = best.requests_per_s * as_float(resolved["decode"].scenario.case.osl) / cards
    own = FrontPoint(tpot=best.tpot, tokens_per_s_per_card=rate, deployment=best)
    if any(one.tpot <= own.tpot * (1 + SAME) and one.tokens_per_s_per_card >= rate * (1 - SAME) for one in front):
        return tuple(front)
    kept = [one for one in front if one.tpot < own.tpot or one.tokens_per_s_per_card > rate]
    return tuple(sorted([*kept, own], key=lambda one: one.tpot))


SAME = 1e-6  # relative; nearer figures are the same


def _power(run: Run, best: Deployment, resolved: Mapping[Phase, Resolved]) -> Power | None:
    """Return the power of the servers in use, none where a system's file does not state it."""
    servers: dict[Phase, int] = {"prefill": best.prefill_servers, "decode": best.decode_servers}
    each = {phase: pool.machine.system.spec.server_power for phase, pool in run.pools.items()}
    if any(each[phase] is None for phase, count in servers.items() if count):
        return None
    watts = sum(as_float(each[phase]) * count for phase, count in servers.items() if count)
    tokens = best.requests_per_s * as_float(resolved["decode"].scenario.case.osl)
    return Power(watts=watts, joules_per_token=watts / tokens)


def _cost(plan: PlanSpec, best: Deployment, resolved: Mapping[Phase, Resolved]) -> Cost | None:
    if plan.run is None or plan.run.price is None:
        return None
    each: dict[Phase, float] = {"prefill": plan.run.prefill_price or plan.run.price, "decode": plan.run.price}
    servers: dict[Phase, int] = {"prefill": best.prefill_servers, "decode": best.decode_servers}
    hour = sum(
        each[phase] * servers[phase] * one.scenario.case.rates.packages_per_server for phase, one in resolved.items()
    )
    tokens: Any = best.requests_per_s * float(plan.conditions.osl)
    each_million = cost_of_tokens(cost_rate=cast(Any, hour / HOUR), tokens_per_s=tokens)
    return Cost(per_hour=hour, per_million_tokens=as_float(each_million))


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
        timeline=timeline(ledger, one.plan.family, parts, LAYER),
        sure=pool_range(machine, layout, one.plan.family, case),
        load=load,
        near=tuple(neighbours(at, published, NEIGHBOURS)),
    )


def _targets(
    plan: PlanSpec,
    run: Run,
    best: Deployment,
    held: Mapping[Phase, PoolPlan],
    decode: PoolRange,
    joined: JoinedRange,
) -> tuple[tuple[Target, ...], float | None]:
    """Return the limits beside their predictions, and the probability that all of them are met at once."""
    tpots = decode.steps / as_float(best.decode.point.tokens_per_step)
    asked = plan.wanted.requests_per_s
    kept = {
        "tpot": None if run.tpot is None else tpots <= run.tpot,
        "ttft": None if run.ttft is None else joined.ttfts <= run.ttft,
        "rate": None if asked is None else joined.rates >= asked * (1 - 1e-9),
    }
    chances = {name: None if met is None else float(np.mean(met)) for name, met in kept.items()}
    limited = [met for met in kept.values() if met is not None]

    def served(name: Any, value: Any, limit: float | None, unit: str, interval: Interval) -> Target:
        chance = chances[name]
        return Target(
            name=name, phase=None, value=as_float(value), limit=limit, unit=unit, interval=interval, chance=chance
        )

    found = [
        served("tpot", best.tpot, run.tpot, "s", decode.tpot),
        served("ttft", best.first_token.ttft, run.ttft, "s", joined.ttft),
        served("rate", best.requests_per_s, asked, "1/s", joined.requests_per_s),
    ]
    found += [
        Target(
            name="memory",
            phase=phase,
            value=as_float(pool.point.memory),
            limit=as_float(pool.point.usable),
            unit="B",
            interval=None,
            chance=None,
        )
        for phase, pool in held.items()
    ]
    return tuple(found), float(np.mean(np.logical_and.reduce(limited))) if limited else None


# --- inputs ----------------------------------------------------------------------------------------


def _inputs(plan: PlanSpec, run: Run) -> Iterator[Input]:
    """Yield what was asked and chosen, the model, and every number of the machine that takes part."""
    conditions = plan.conditions.model_dump(exclude={"prefill", "decode"})
    for key, value in {**plan.wanted.model_dump(), **conditions}.items():
        if value is not None and value not in ((), {}, []):
            yield _plain("the request", key, value, "asked")
    for phase, given in (("prefill", plan.conditions.prefill), ("decode", plan.conditions.decode)):
        for key, value in {"instances": given.instances, **given.layout.model_dump()}.items():
            yield _plain(f"layout of {phase}", key, value, "chosen")
    for phase, settings in plan.techniques.items():
        for key, value in settings.items():
            yield _plain(f"techniques of {phase}", key, value, "chosen")
    yield from _of_model(run.model)
    seen: set[tuple[str, str]] = set()
    for pool in run.pools.values():
        used: dict[str, set[str]] = {}
        for name, known in pool.machine.kernels_of().items():
            used.setdefault(known.spec.name, set()).add(name)
        for part in pool.machine.parts:
            name = part.spec.name
            if part in pool.machine.kernels and name not in used:
                continue
            for path, figure in part.figures.items():
                if (name, path) in seen or (name in used and path.split(".")[0] not in used[name]):
                    continue
                seen.add((name, path))
                source = part.spec.sources.get(figure.source)
                yield Input(
                    group=part.spec.title,
                    name=path,
                    text=figure.text,
                    span="" if figure.low is None else f"{figure.low:.4g} – {figure.high:.4g}",
                    kind=figure.kind,
                    source=_cited(source) if source else figure.source,
                    url=_link(source),
                    note=figure.note or "",
                )


#: units of what was asked, which plans state in SI
ASKED_UNITS = {"tpot": "s", "ttft": "s", "requests_per_s": "1/s", "isl": "tokens", "osl": "tokens"}


def _plain(group: str, key: str, value: Any, kind: str) -> Input:
    if isinstance(value, bool):
        value = "yes" if value else "no"
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    text = f"{text} {ASKED_UNITS[key]}" if key in ASKED_UNITS else text
    return Input(group=group, name=key, text=text, span="", kind=kind, source="", url=None, note="")


def _of_model(model: ModelSpec) -> Iterator[Input]:
    source = next(iter(model.sources.values()))
    for key, value in _flat(model.model_dump(exclude={"name", "title", "aliases", "sources", "checks", "acceptance"})):
        plain = _plain(model.title, key, value, "datasheet")
        yield replace(plain, source=_cited(source), url=_link(source))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value


def _cited(source: Any) -> str:
    return f"{source.title}, {source.where}" if source.where else str(source.title)


def _link(source: Any) -> str | None:
    """Return the address of a source where a browser may follow it."""
    url = source.url if source else None
    return url if url and url.startswith(("https://", "http://")) else None


def kinds(inputs: Iterable[Input]) -> dict[str, int]:
    """Return how many inputs there are of each kind."""
    found: dict[str, int] = {}
    for one in inputs:
        found[one.kind] = found.get(one.kind, 0) + 1
    return found
