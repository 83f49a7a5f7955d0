"""A run-spec answered: read what it names, search, and say how sure the best plan is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, cast

from perfmodel import __version__
from perfmodel.algebra import as_float
from perfmodel.errors import UsageError
from perfmodel.files import catalog
from perfmodel.planning import inputs
from perfmodel.planning.plan_file import plan_spec, pool_of
from perfmodel.prediction.deployment import Deployment, PoolPlan
from perfmodel.prediction.deployment_uncertainty import felt, joined_sure
from perfmodel.prediction.scenario import joined_rates
from perfmodel.prediction.sensitivity import Swing
from perfmodel.prediction.serving import Case
from perfmodel.prediction.uncertainty import JoinedRange, PoolRange, chance, interleaved, pool_range
from perfmodel.solver.front import front
from perfmodel.solver.optimal_range import holds
from perfmodel.solver.request import Request
from perfmodel.solver.solution import FrontPoint, Holds, Solution
from perfmodel.solver.solve import solve
from perfmodel.solver.space import Choices
from perfmodel.specs.deployment import Phase, Targets
from perfmodel.specs.evidence import DeploymentConditions
from perfmodel.specs.model import ModelSpec
from perfmodel.specs.plan import PlanSpec
from perfmodel.specs.run import RunSpec, Serving
from perfmodel.supply.machine import Machine
from perfmodel.supply.rates import Rates

SERVERS_SEARCHED = 48  # where a rate is asked for and no budget
TIGHTENINGS = 8  # of the limit in search of a confidence; two or three do


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asking:
    """A run-spec with everything it names read."""

    run: RunSpec
    model: ModelSpec
    #: machine and case of either pool; the same where both are on one system
    machines: Mapping[Phase, Machine]
    cases: Mapping[Phase, Case]
    request: Request
    #: technique -> setting
    techniques: Mapping[str, str]
    #: where draft acceptance comes from
    acceptance: str
    remarks: tuple[str, ...]

    @property
    def machine(self) -> Machine:
        """Machine of the decode pool."""
        return self.machines["decode"]

    @property
    def case(self) -> Case:
        """Case of the decode pool."""
        return self.cases["decode"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Planned:
    """An answer, and how sure it is; nothing is sure where there is no plan."""

    asking: Asking
    solution: Solution
    sure: PoolRange | None = None
    joined: JoinedRange | None = None
    #: what assumed inputs do to TPOT and TTFT
    felt: Sequence[Swing] = ()

    @property
    def ideal(self) -> dict[Phase, Rates]:
        """Rates of both pools' machines with every efficiency 1."""
        return {phase: catalog.ideal(machine).rates() for phase, machine in self.asking.machines.items()}

    @property
    def tpot_chance(self) -> float | None:
        """Probability that TPOT is within what was asked for; None where nothing was, or there is no plan."""
        limit, best = self.asking.request.targets.tpot, self.solution.best
        if self.sure is None or limit is None or best is None:
            return None
        return self.sure.chance(limit, as_float(best.decode.point.tokens_per_step))

    @property
    def ttft_chance(self) -> float | None:
        """Probability that TTFT is within what was asked for; None where nothing was, or there is no plan."""
        limit = self.asking.request.targets.ttft
        return None if self.joined is None or limit is None else chance(self.joined.ttfts, limit)

    @property
    def chance_of_all(self) -> float | None:
        """Probability that every limit asked for is met at once, on one machine; None where fewer than two were."""
        request, best = self.asking.request, self.solution.best
        if self.sure is None or self.joined is None or best is None:
            return None
        met: list[Any] = []
        if request.targets.tpot is not None:
            met.append(self.sure.steps / as_float(best.decode.point.tokens_per_step) <= request.targets.tpot)
        if request.targets.ttft is not None:
            met.append(self.joined.ttfts <= request.targets.ttft)
        if request.rate is not None:
            met.append(self.joined.rates >= request.rate * (1 - 1e-9))
        return None if len(met) < 2 else as_float(prod(met).mean())

    @property
    def rate_chance(self) -> float | None:
        """Probability that the rate asked for is served; None where none was, or there is no plan."""
        rate = self.asking.request.rate
        return None if self.joined is None or rate is None else chance(-self.joined.rates, -rate * (1 - 1e-9))


def _prices(run: RunSpec, machines: Mapping[Phase, Machine]) -> tuple[float, float]:
    """Return what a server of prefill and of decode costs: an hour's price, or watts; equal ones count servers."""
    if run.aim == "energy":
        watts = {phase: machine.system.spec.server_power for phase, machine in machines.items()}
        unknown = {machines[phase].system.spec.name for phase, power in watts.items() if power is None}
        if unknown:
            raise UsageError(
                f"--objective energy: no server_power on file for {', '.join(sorted(unknown))}; allowed: systems "
                "whose file states it; add it with its source"
            )
        return as_float(watts["prefill"]), as_float(watts["decode"])
    if run.price is None:
        return 1.0, 1.0
    prefill = run.price if run.prefill_price is None else run.prefill_price
    each = {phase: as_float(machine.system.spec.packages_per_server) for phase, machine in machines.items()}
    return prefill * each["prefill"], run.price * each["decode"]


def _most_cards(rates: Rates) -> int:
    """Return the cards of the widest network of a system."""
    return int(float(cast(Any, rates.tiers[-1].dies)) / rates.dies_per_package)


def _servers(cards: int | None, rates: Rates, system: str, option: str, pools: int) -> int:
    """Return the budget of ``pools`` pools in whole servers."""
    most, each = max(rates.max_packages, _most_cards(rates)), rates.packages_per_server
    if cards is None:
        return int(min(rates.max_packages // each, SERVERS_SEARCHED))
    inputs.positive(cards, option)
    if cards > most:
        raise UsageError(f"{option}: {cards}; allowed: at most {most} on {system}; use fewer cards")
    if cards < pools * each:
        words = " for each of prefill and decode" if pools > 1 else ""
        raise UsageError(f"{option}: {cards}; allowed: at least {pools * each} (one server of {each} cards{words})")
    return int(cards // each)


def _domain(rates: Rates, allow_scale_out: bool) -> int | None:
    """Return the servers that an instance may span: those of one supernode or server group; None: of any budget."""
    return None if allow_scale_out else int(rates.max_packages // rates.packages_per_server)


def _machines(run: RunSpec) -> tuple[dict[Phase, Machine], tuple[str, ...]]:
    """Return the machines of both pools before techniques are set on them, and remarks."""
    decode, remarks = catalog.load_machine(str(run.on), run.stack, run.kernels or ())
    if run.prefill_on is None:
        return {"prefill": decode, "decode": decode}, remarks
    prefill, others = catalog.load_machine(run.prefill_on, run.prefill_stack, ())
    return {"prefill": prefill, "decode": decode}, (*remarks, *others)


def _choices(
    techniques: Mapping[str, str], machines: Mapping[Phase, Machine], model: ModelSpec, kv: str
) -> tuple[dict[str, Any], Choices]:
    """Return what techniques set for both pools, and what is left to the search of each."""
    service, choices = catalog.searched(techniques, machines["decode"], model, kv)
    if machines["prefill"] is machines["decode"]:
        return service, choices
    _, other = catalog.searched(techniques, machines["prefill"], model, kv)
    caches = tuple(dtype for dtype in choices.kv_dtypes if dtype in other.kv_dtypes)
    if not caches:
        raise UsageError("--kv: the two stacks have no cache precision in common; give --stack or --prefill-stack")
    return service, replace(
        choices,
        kv_dtypes=caches,
        fixed={"prefill": other.fixed["prefill"], "decode": choices.fixed["decode"]},
        offered={"prefill": other.offered["prefill"], "decode": choices.offered["decode"]},
    )


def _check(run: RunSpec) -> None:
    """Refuse keys that contradict each other; raises ``UsageError``."""
    if run.cards is None and run.rate is None:
        raise UsageError("solve needs --cards N (a budget) or --rate R (requests per second)")
    objective = run.aim
    if objective in ("cards", "tpot") and run.rate is None:
        wanted = {"cards": "fewest cards", "tpot": "lowest TPOT"}[objective]
        raise UsageError(f"--objective {objective} needs --rate: {wanted} for which rate?")
    if objective == "cost" and run.price is None:
        raise UsageError("--objective cost needs --price: what a card costs an hour, in any money; none is on file")
    apart: dict[str, object] = {"--prefill-cards": run.prefill_cards, "--prefill-stack": run.prefill_stack}
    apart["--prefill-price"] = run.prefill_price
    for option, value in apart.items():
        if value is not None and run.prefill_on is None:
            raise UsageError(f"{option} needs --prefill-on: the system that prefill runs on")
    if run.prefill_price is not None and run.price is None:
        raise UsageError("--prefill-price needs --price, that of a card of the decode pool")
    if run.prefill_on is None:
        return
    if run.cards is not None and run.prefill_cards is None and run.rate is None:
        raise UsageError("--prefill-on needs --prefill-cards beside --cards: each system has its own budget")
    if run.serving in ("mixed", "any"):
        raise UsageError(f"--serving {run.serving} with --prefill-on; allowed: disaggregated, or one system")


def asking_of(run: RunSpec) -> Asking:
    """Return a run-spec with everything it names read and checked.

    Raises ``UsageError`` and ``DataError`` as the options and files say.
    """
    _check(run)
    run = run.filled()
    loaded = catalog.load_model(str(run.model))
    techniques = inputs.settings(run.with_)
    inputs.refuse_conflicts(techniques)
    machines, remarks = _machines(run)
    service, choices = _choices(techniques, machines, loaded.spec, str(run.kv))
    same = machines["prefill"] is machines["decode"]
    decode = catalog.set_techniques(machines["decode"], techniques)
    machines = {
        "prefill": decode if same else catalog.set_techniques(machines["prefill"], techniques),
        "decode": decode,
    }
    positions, origin = inputs.read_acceptance(run.acceptance, loaded.spec)
    drafts = choices.fixed.get("decode", {}).get("draft", 0)
    if drafts > len(positions):
        raise UsageError(
            f"--with mtp={drafts}: acceptance is known for {len(positions)} position(s); give --acceptance with one "
            "value per position"
        )
    rates: dict[Phase, Rates] = {"prefill": machines["prefill"].rates(), "decode": machines["decode"].rates()}
    if same:
        rates["prefill"] = rates["decode"]
    else:
        rates = joined_rates(rates)
    isl, osl = int(run.isl or 0), int(run.osl or 0)
    decode_case = inputs.case_of(loaded.spec, rates["decode"], isl, osl, positions, service)
    cases: dict[Phase, Case] = {"decode": decode_case, "prefill": replace(decode_case, rates=rates["prefill"])}
    if same:
        cases["prefill"] = decode_case
    names = {phase: machine.system.spec.name for phase, machine in machines.items()}
    pools = 2 if same and run.serving not in ("mixed", "any") else 1
    scale_out = bool(run.allow_scale_out)
    request = Request(
        servers=_servers(run.cards, rates["decode"], names["decode"], "--cards", pools),
        rate=run.rate,
        targets=Targets(tpot=run.tpot, ttft=run.ttft),
        utilisation=as_float(run.utilisation),
        objective=run.aim,
        choices=choices,
        top=int(as_float(run.top)),
        prefill_servers=None
        if same
        else _servers(run.prefill_cards, rates["prefill"], names["prefill"], "--prefill-cards", 1),
        prices=_prices(run, machines),
        serving=cast(Serving, run.serving),
        domains=(_domain(rates["prefill"], scale_out), _domain(rates["decode"], scale_out)),
    )
    bounds = [name for name, word in techniques.items() if catalog.technique_named(name).setting(word).bound]
    return Asking(
        run=run,
        model=loaded.spec,
        machines=machines,
        cases=cases,
        request=request,
        techniques=techniques,
        acceptance=origin,
        remarks=(
            *loaded.notes,
            *remarks,
            *(f"{name}={techniques[name]} is a bound: it cannot be set up" for name in bounds),
        ),
    )


def planned(run: RunSpec) -> Planned:
    """Return the best plan for a run-spec, or why there is none, and how sure it is.

    With a confidence the limits on TPOT and TTFT are tightened below the plan's own until the plan found meets each
    real one that often.  Raises ``UsageError`` where no plan does.
    """
    asking = asking_of(run)
    searched, targets = asking.request, asking.request.targets
    for _ in range(TIGHTENINGS):
        solution = solve(asking.case, searched, asking.cases["prefill"])
        best = solution.best
        if best is None:
            return Planned(asking=asking, solution=solution)
        prefill, sure = _ranges(best, asking)
        joined = joined_sure(
            best, prefill, sure, asking.cases["prefill"], asking.request.utilisation, asking.request.rate
        )
        tpots = sure.steps / as_float(best.decode.point.tokens_per_step)
        tighter = {
            name: value * min(0.9999, limit / _quantile(samples, run.confidence))
            for name, value, limit, samples in (
                ("tpot", best.tpot, targets.tpot, tpots),
                ("ttft", as_float(best.first_token.ttft), targets.ttft, joined.ttfts),
            )
            if limit is not None and run.confidence is not None and chance(samples, limit) < run.confidence
        }
        if not tighter:
            return Planned(
                asking=asking,
                solution=solution,
                sure=sure,
                joined=joined,
                felt=felt(best, asking.machines, asking.cases, asking.request.utilisation, ("TPOT", "TTFT")),
            )
        searched = replace(searched, targets=searched.targets.model_copy(update=tighter))
    raise UsageError(
        f"--confidence {run.confidence:g}: no plan found that meets its limits so often; ask for less, or a longer "
        "--tpot or --ttft"
    )


def _quantile(samples: Any, confidence: float) -> float:
    """Return what so large a part of the samples stays within."""
    import numpy as np

    return float(np.quantile(samples, confidence))


def _ranges(best: Deployment, asking: Asking) -> tuple[PoolRange, PoolRange]:
    """Return how sure the steps of both pools are; decode's with the prefill steps in between where they are."""
    each: dict[Phase, PoolPlan] = {"prefill": best.prefill, "decode": best.decode}
    prefill, decode = (
        pool_range(asking.machines[phase], pool.layout, pool.family, asking.cases[phase])
        for phase, pool in each.items()
    )
    if best.mixed:
        decode = interleaved(decode, prefill, best.tpot_added * as_float(best.decode.point.tokens_per_step))
    return prefill, decode


def front_of(asking: Asking) -> list[FrontPoint]:
    """Return the front of throughput per card over TPOT around the limit asked for."""
    return front(asking.case, asking.request, asking.cases["prefill"])


def holds_of(found: Planned) -> Holds | None:
    """Return over which acceptance the choice of the best plan holds."""
    asking = found.asking
    return holds(asking.case, found.solution.request, asking.cases["prefill"])


def plan_of(found: Planned) -> PlanSpec | None:
    """Return the file of the best plan, or None where there is none; files of the user's are named by their paths."""
    asking, best = found.asking, found.solution.best
    if best is None:
        return None
    case, family, machine = asking.case, best.decode.family, asking.machine
    prefill, model = asking.machines["prefill"], catalog.load_model(str(asking.run.model)).word
    apart = prefill is not machine
    names = {"model": model, "on": machine.system.word, "stack": machine.stack.word}
    names |= {"prefill_on": prefill.system.word, "prefill_stack": prefill.stack.word} if apart else {}
    if asking.run.acceptance is None and case.model.acceptance:
        names["acceptance"] = case.model.acceptance[0].name
    conditions = DeploymentConditions(
        system=machine.system.word,
        model=model,
        stack=machine.stack.word,
        kernels=tuple(asking.run.kernels or ()),
        techniques=catalog.on_machine_alone(asking.techniques),
        isl=cast(Any, case.isl),
        osl=cast(Any, case.osl),
        precision=family.precision,
        kv_dtype=family.kv_dtype,
        expert_weights=family.expert_weights,
        acceptance=case.acceptance,
        balanced=case.even,
        prefix_hit=cast(Any, case.prefix_hit),
        isl_spread=cast(Any, case.isl_spread),
        tpot=asking.request.targets.tpot,
        prefill=pool_of(best.prefill, best.prefill_instances),
        decode=pool_of(best.decode, best.decode_instances),
        mixed=best.mixed,
        prefill_system=prefill.system.word if apart else None,
        prefill_stack=prefill.stack.word if apart else None,
    )
    files = catalog.digests(model, machine, asking.techniques)
    files |= catalog.digests(model, prefill, asking.techniques)
    return plan_spec(
        best,
        conditions,
        run=asking.run.model_copy(update=names),
        machines=asking.machines,
        model=case.model,
        techniques=catalog.techniques(),
        version=__version__,
        files=files,
    )
