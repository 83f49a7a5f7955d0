"""What is asked of the planner, resolved once: everything that a run-spec names, read and checked."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from perfmodel.algebra import as_float
from perfmodel.errors import UsageError
from perfmodel.files import catalog
from perfmodel.files.folders import file_name
from perfmodel.files.machines import ideal, load_machine
from perfmodel.planning import inputs
from perfmodel.planning.choices import choices_of, precision_remarks
from perfmodel.planning.hypothetical import told, with_given
from perfmodel.planning.published_layouts import published_layouts
from perfmodel.planning.requests_asked import RequestsAsked, requests_asked
from perfmodel.planning.site import files_of, strange, with_site
from perfmodel.planning.software import software_of
from perfmodel.prediction.cost import card_prices
from perfmodel.prediction.joined_pools import joined_rates
from perfmodel.prediction.scenario import case_of
from perfmodel.prediction.serving import Case
from perfmodel.solver.given_layouts import Given
from perfmodel.solver.request import SearchRequest
from perfmodel.solver.space import Choices
from perfmodel.specs.conditions import Service
from perfmodel.specs.deployment import PHASES, Phase, Targets
from perfmodel.specs.machine import EngineSpec
from perfmodel.specs.model import ModelSpec
from perfmodel.specs.run import RunSpec, Serving
from perfmodel.supply.machine import Machine
from perfmodel.supply.rates import Rates
from perfmodel.supply.techniques import Techniques, on_machine

SERVERS_SEARCHED = 48  # where a rate is asked for and no budget


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlanRequest:
    """A run-spec with everything it names read: what is answered from it opens no file."""

    run: RunSpec
    model: ModelSpec
    #: what finds the model's file again
    model_word: str
    #: machine and case of either pool; the same where both are on one system
    machines: Mapping[Phase, Machine]
    #: what schedules either pool; none where its stack has no engine on file
    engines: Mapping[Phase, EngineSpec | None]
    cases: Mapping[Phase, Case]
    search: SearchRequest
    #: technique -> setting, of those that were asked for
    settings: Mapping[str, str]
    #: all techniques that were read
    techniques: Techniques
    #: rates of both pools' machines with every efficiency 1
    ideal: Mapping[Phase, Rates]
    #: data files that predictions are made from, as a plan names them
    files: tuple[str, ...]
    #: where draft acceptance comes from
    acceptance: str
    remarks: tuple[str, ...]
    #: layouts that were published for the model on these systems
    given: tuple[Given, ...] = ()
    #: what clients send and are to see; none where means of equal requests are all that is asked for
    asked: RequestsAsked | None = None

    @property
    def machine(self) -> Machine:
        """Machine of the decode pool."""
        return self.machines["decode"]

    @property
    def case(self) -> Case:
        """Case of the decode pool."""
        return self.cases["decode"]


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
    if (prices := card_prices(run)) is None:
        return 1.0, 1.0
    each = {phase: as_float(machine.system.spec.packages_per_server) for phase, machine in machines.items()}
    return prices["prefill"] * each["prefill"], prices["decode"] * each["decode"]


def _most_cards(rates: Rates) -> int:
    """Return the cards of the widest network of a system."""
    return int(as_float(rates.tiers[-1].dies) / rates.dies_per_package)


def most_servers(rates: Rates) -> int:
    """Return the whole servers of the largest budget that a system takes."""
    return int(max(rates.max_packages, _most_cards(rates)) // rates.packages_per_server)


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
        fix = "; or --serving mixed, on the same dies" if pools > 1 and cards >= each else ""
        raise UsageError(
            f"{option}: {cards}; allowed: at least {pools * each} (one server of {each} cards{words}){fix}"
        )
    return int(cards // each)


def _largest(cards: int | None, rates: Rates, run: RunSpec) -> int | None:
    """Return the servers that a budget may grow to: all that the networks of a system join; None where one is given."""
    return most_servers(rates) if cards is None and run.rate is not None else None


def _domain(rates: Rates, allow_scale_out: bool) -> int | None:
    """Return the servers that an instance may span: those of one supernode or server group; None: of any budget."""
    return None if allow_scale_out else int(rates.max_packages // rates.packages_per_server)


def _machines(
    run: RunSpec,
) -> tuple[dict[Phase, Machine], dict[Phase, EngineSpec | None], tuple[str, ...]]:
    """Return the machines of both pools before techniques are set on them, their engines, and remarks."""
    software = software_of(str(run.on), stack=run.stack, engine=run.engine)
    decode, remarks = load_machine(str(run.on), software.stack, run.kernels or ())
    decode = decode.with_memory_share(run.memory_share)
    remarks = (*remarks, *software.remarks)
    if run.prefill_on is None:
        return dict.fromkeys(PHASES, decode), dict.fromkeys(PHASES, software.engine), remarks
    other = software_of(
        run.prefill_on, stack=run.prefill_stack, engine=run.engine, option="--prefill-stack", on="--prefill-on"
    )
    prefill, others = load_machine(run.prefill_on, other.stack, ())
    prefill = prefill.with_memory_share(run.memory_share)
    engines: dict[Phase, EngineSpec | None] = {"prefill": other.engine, "decode": software.engine}
    told = tuple(dict.fromkeys((*remarks, *others, *other.remarks)))
    return {"prefill": prefill, "decode": decode}, engines, told


def _choices(
    settings: Mapping[str, str],
    machines: Mapping[Phase, Machine],
    model: ModelSpec,
    run: RunSpec,
    techniques: Techniques,
) -> tuple[dict[str, Any], Choices]:
    """Return what techniques set for both pools, and what is left to the search of each."""
    kv = str(run.kv)
    service, choices = choices_of(settings, machines["decode"], model, kv, techniques, run.precision)
    if machines["prefill"] is machines["decode"]:
        return service, choices
    _, other = choices_of(settings, machines["prefill"], model, kv, techniques, run.precision)
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
    if run.workload is not None:
        for option, value in (
            ("--isl", run.isl),
            ("--osl", run.osl),
            ("--isl-cv", run.isl_cv),
            ("--osl-cv", run.osl_cv),
        ):
            if value is not None:
                raise UsageError(f"{option} with --workload; allowed: one of them, the file says how long requests are")
    if run.prefill_on is None:
        return
    if run.cards is not None and run.prefill_cards is None and run.rate is None:
        raise UsageError("--prefill-on needs --prefill-cards beside --cards: each system has its own budget")
    if run.serving in ("mixed", "any"):
        raise UsageError(f"--serving {run.serving} with --prefill-on; allowed: disaggregated, or one system")


def _drafted(choices: Choices, positions: tuple[float, ...]) -> None:
    """Refuse more drafts than acceptance is known for."""
    drafts = choices.fixed.get("decode", {}).get("draft", 0)
    if drafts > len(positions):
        raise UsageError(
            f"--with mtp={drafts}: acceptance is known for {len(positions)} position(s); give --acceptance with one "
            "value per position"
        )


def _cases(
    run: RunSpec,
    model: ModelSpec,
    machines: Mapping[Phase, Machine],
    acceptance: tuple[float, ...],
    service: Mapping[str, Any],
    asked: RequestsAsked | None,
) -> dict[Phase, Case]:
    """Return what stays fixed for each pool; one case where both are on one system."""
    decode, prefill = machines["decode"], machines["prefill"]
    isl, osl = (int(run.isl or 0), int(run.osl or 0)) if asked is None else asked.lengths()
    inputs.check_lengths(model, isl, osl)
    shared = Service(
        system=decode.system.word,
        model=model.name,
        stack=decode.stack.word,
        isl=isl,
        osl=osl,
        acceptance=acceptance,
        **(asked.moments() if asked is not None else {}),
        **service,
    )
    if prefill is decode:
        case = case_of(shared, model, decode.rates())
        return {"prefill": case, "decode": case}
    rates = joined_rates({"prefill": prefill.rates(), "decode": decode.rates()})
    return {phase: case_of(shared, model, rates[phase]) for phase in rates}


def _tightest(run: RunSpec, wait: str) -> float | None:
    """Return what a search holds a mean to: the tightest limit on a wait, since most of what is seen is below it."""
    limits = (getattr(run, wait), *(value for key, value in run.percentile_limits.items() if key.startswith(wait)))
    return min((value for value in limits if value is not None), default=None)


def _searched(
    run: RunSpec, machines: Mapping[Phase, Machine], cases: Mapping[Phase, Case], choices: Choices
) -> SearchRequest:
    """Return what a search is asked: budgets in servers, limits, prices, domains."""
    same = machines["prefill"] is machines["decode"]
    prefill, decode = cases["prefill"].rates, cases["decode"].rates
    names = {phase: machine.system.spec.name for phase, machine in machines.items()}
    pools = 2 if same and run.serving not in ("mixed", "any") else 1
    scale_out = bool(run.allow_scale_out)
    return SearchRequest(
        servers=_servers(run.cards, decode, names["decode"], "--cards", pools),
        rate=run.rate,
        targets=Targets(tpot=_tightest(run, "tpot"), ttft=_tightest(run, "ttft")),
        utilisation=as_float(run.utilisation),
        objective=run.aim,
        choices=choices,
        top=int(as_float(run.top)),
        prefill_servers=None if same else _servers(run.prefill_cards, prefill, names["prefill"], "--prefill-cards", 1),
        prices=_prices(run, machines),
        serving=cast(Serving, run.serving),
        domains=(_domain(prefill, scale_out), _domain(decode, scale_out)),
        largest=(
            None if same else _largest(run.prefill_cards, prefill, run),
            _largest(run.cards, decode, run),
        ),
    )


def _files_of_workload(run: RunSpec) -> tuple[str, ...]:
    """Return the file of the workload, as a plan names it."""
    return () if run.workload is None else (file_name(Path(run.workload)),)


def request_of(run: RunSpec) -> PlanRequest:
    """Return a run-spec with everything it names read and checked.

    Raises ``UsageError`` and ``DataError`` as the options and files say.
    """
    _check(run)
    run = run.filled()
    known, techniques = catalog.load_model(str(run.model), run.max_context), catalog.load_techniques()
    model = known.spec
    settings = inputs.settings(run.with_, techniques)
    inputs.refuse_conflicts(settings, techniques)
    bare, engines, remarks = _machines(run)
    plain = with_given(bare, run.set_ or {}, run.memory_share)
    site = run.site or ()
    service, choices = _choices(settings, plain, model, run, techniques)
    wanted = [(techniques[name], word) for name, word in settings.items()]
    decode = with_site(on_machine(plain["decode"], wanted), site)
    same = plain["prefill"] is plain["decode"]
    machines: dict[Phase, Machine] = {
        "prefill": decode if same else with_site(on_machine(plain["prefill"], wanted), site),
        "decode": decode,
    }
    positions, origin = inputs.read_acceptance(run.acceptance, model)
    _drafted(choices, positions)
    asked = requests_asked(run, model)
    cases = _cases(run, model, machines, positions, service, asked)
    parts = [
        part for phase in ("decode", "prefill") for part in (*machines[phase].parts, *(t.known for t, _ in wanted))
    ]
    bounds = [technique.spec.name for technique, word in wanted if technique.setting(word).bound]
    return PlanRequest(
        run=run,
        model=model,
        model_word=known.word,
        machines=machines,
        engines=engines,
        cases=cases,
        search=_searched(run, machines, cases, choices),
        settings=settings,
        techniques=techniques,
        ideal={phase: ideal(machine).rates() for phase, machine in machines.items()},
        files=tuple(
            dict.fromkeys((known.file, *(part.file for part in parts), *files_of(site), *_files_of_workload(run)))
        ),
        acceptance=origin,
        given=published_layouts(model, machines, choices, techniques),
        asked=asked,
        remarks=(
            *known.notes,
            *remarks,
            *(() if asked is None else asked.remarks),
            *precision_remarks(model, choices.precision, choices.expert_weights, machines.values()),
            *strange(plain["decode"], site),
            *told(machines.values()),
            *(f"{name}={settings[name]} is a bound: it cannot be set up" for name in bounds),
        ),
    )
