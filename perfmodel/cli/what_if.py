"""`moeplan what-if`: what each technique and each hardware figure is worth to a plan."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from perfmodel.cli import options
from perfmodel.errors import EXIT_INFEASIBLE, UsageError
from perfmodel.planning import inputs

if TYPE_CHECKING:
    from perfmodel.planning.compare import Instances, Whole
    from perfmodel.planning.pools import Run
    from perfmodel.specs.plan import PlanSpec

SHOWN_PAIRS = 6


def command(
    plan: Annotated[
        str,
        typer.Argument(
            help="Plan file (solve -o), or the name or file of a published row or deployment.",
            autocompletion=options.names_of("evidence", "deployments"),
        ),
    ],
    only: Annotated[
        str | None, typer.Option("--only", metavar="LIST", help="Techniques to try, like mtp,amla; default: all.")
    ] = None,
    pairs: Annotated[bool, typer.Option("--pairs", help="Try the strongest changes two by two as well.")] = False,
    hardware: Annotated[
        bool, typer.Option("--hardware/--no-hardware", help="Hardware figures raised by a tenth, other chip bins.")
    ] = True,
    reach: Annotated[
        str | None,
        typer.Option("--reach", metavar="GOAL", help="Smallest sets of changes that reach it: 'tpot=30ms,batch=96'."),
    ] = None,
    tpot: Annotated[
        str | None, typer.Option("--tpot", help="Limit on time per output token; default: the plan's.")
    ] = None,
    ttft: Annotated[
        str | None, typer.Option("--ttft", help="Limit on time to first token; default: the plan's.")
    ] = None,
    acceptance: options.AcceptanceOption = None,
    stack: options.StackOption = None,
    format_: options.FormatOption = options.Format.table,
) -> None:
    """Rank what every technique would gain at the same target, batches and core splits chosen anew.

    Example: moeplan what-if seed-cm384-decode
    """
    from perfmodel.files import catalog
    from perfmodel.planning.changes import Refusal, hardware_changes, technique_changes
    from perfmodel.planning.outcome import outcome
    from perfmodel.planning.reach import ways
    from perfmodel.planning.what_if import Effect, effects
    from perfmodel.planning.what_if import pairs as two_by_two
    from perfmodel.report.what_if import reach_document, what_if_document

    limits = (inputs.quantity(tpot, "s", "--tpot"), inputs.quantity(ttft, "s", "--ttft"))
    goal = _goal(reach)
    given = given_of(plan, stack, acceptance, *limits)
    run = given.run
    if run.mixed:
        again = f"moeplan solve {plan} --with TECHNIQUE=SETTING -o OTHER.json"
        fix = "" if given.plan is None else f"; search again with a change, {again}, and see moeplan compare"
        raise UsageError(f"{plan}: mixed serving; allowed: pools apart{fix}")
    wanted = _techniques(only)
    found = list(technique_changes(run, wanted, catalog.kernel_set))
    changes = [one for one in found if not isinstance(one, Refusal)]
    refused = [one for one in found if isinstance(one, Refusal)]
    if hardware and only is None:
        changes += hardware_changes(run, catalog.chips())
    if goal is not None:
        sets, nearest = ways(run, goal, changes)
        options.show(reach_document(run, plan, goal, sets, nearest), format_, list(given.remarks))
        if not sets:
            raise typer.Exit(EXIT_INFEASIBLE)
        return
    before = outcome(run, ttft=run.ttft)
    if before is None:
        raise UsageError(f"{plan}: meets neither target nor memory at any batch; give another --tpot or --ttft")
    results = effects(run, before, changes)
    gains = sorted((one for one in results if isinstance(one, Effect)), key=lambda one: -one.gain)
    refused += [one for one in results if isinstance(one, Refusal)]
    strongest = [one for one in gains if one.gain > 0 and one.change.by in ("layout", "stack", "to build")][
        :SHOWN_PAIRS
    ]
    together = two_by_two(run, before, strongest) if pairs else []
    document = what_if_document(run, plan, before, gains, refused, together, given.whole)
    options.show(document, format_, list(given.remarks))


def _techniques(only: str | None) -> list[Any]:
    from perfmodel.files import catalog

    every = catalog.techniques()
    if only is None:
        return list(every.values())
    names = [word.strip() for word in only.split(",") if word.strip()]
    for name in names:
        inputs.known(name, sorted(every), "--only")
    if not names:
        raise UsageError("--only: no technique; allowed: names like mtp,amla; see 'moeplan list techniques'")
    return [every[name] for name in names]


def _goal(text: str | None) -> Any:
    """Read a goal such as 'tpot=30ms,batch=96'."""
    from perfmodel.planning.reach import Goal

    if text is None:
        return None
    values: dict[str, Any] = {}
    for word in text.split(","):
        key, _, value = (part.strip() for part in word.partition("="))
        inputs.known(key, ["tpot", "ttft", "batch"], "--reach")
        if key == "batch":
            if not value.isdigit() or int(value) < 1:
                raise UsageError(f"--reach: batch {value!r}; allowed: a whole number from 1, per data-parallel rank")
            values[key] = int(value)
        else:
            values[key] = inputs.quantity(value, "s", f"--reach {key}")
    if values.keys() <= {"batch"}:
        raise UsageError("--reach: no latency; allowed: tpot or ttft, with or without batch, like 'tpot=30ms,batch=96'")
    return Goal(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a word names: a plan file, a published row of one pool, or a published deployment, set up."""

    run: "Run"
    plan: "PlanSpec | None" = None
    #: both pools together, and the instances of each, where there are two
    whole: "Whole | None" = None
    instances: "Instances" = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def given_of(
    word: str,
    stack: str | None = None,
    acceptance: str | None = None,
    tpot: float | None = None,
    ttft: float | None = None,
) -> Given:
    """Return what a word names, with another stack, acceptance and limits where they are given."""
    from perfmodel.files import catalog
    from perfmodel.planning.compare import whole_of
    from perfmodel.planning.outcome import as_it_is
    from perfmodel.planning.plan_file import PHASES, conditions_of
    from perfmodel.planning.pools import Pool, Run
    from perfmodel.prediction.scenario import of_deployment
    from perfmodel.specs.plan import Asked

    plan, asked, remarks = None, Asked(), cast(tuple[str, ...], ())
    batches: dict[str, int] = {}
    if word.lower().endswith(".json"):
        plan, remarks = catalog.load_plan(word)
        deployment: Any = plan.conditions
        asked = plan.wanted
    else:
        if word.lower().endswith((".yaml", ".yml")):
            catalog.refuse_no_plan(Path(word))
        kind, loaded = catalog.find(word, ("evidence", "deployments"))
        deployment = loaded.spec.conditions if kind == "deployments" else None
    if deployment is None:
        each = {loaded.spec.conditions.phase: loaded.spec.conditions}
    else:
        each = {phase: conditions_of(deployment, phase) for phase in PHASES}
        rates = {phase: catalog.load_conditions(one).rates() for phase, one in each.items()}
        named = catalog.load_model(deployment.model).spec
        joined = of_deployment(deployment, named, rates["decode"], rates["prefill"])
        batches = {"prefill": joined.prefill.plan.layout.batch, "decode": joined.decode.plan.layout.batch}
    model = catalog.load_model(next(iter(each.values())).model).spec
    pools = {}
    for phase, conditions in each.items():
        layout = conditions.layout.model_copy(update={"batch": batches.get(phase, conditions.layout.batch)})
        accepted = inputs.read_acceptance(acceptance, model)[0] if acceptance else conditions.acceptance
        named = conditions.model_copy(
            update={
                "stack": stack or conditions.stack,
                "tpot": tpot or conditions.tpot,
                "layout": layout,
                "acceptance": accepted,
            }
        )
        machine = catalog.load_conditions(named)
        pools[phase] = Pool(conditions=_with_batch(named, model, machine), machine=machine)
    first = next(iter(pools.values()))
    run = Run(
        model=model,
        pools=pools,
        tpot=tpot or first.conditions.tpot,
        ttft=ttft or asked.ttft,
        utilisation=asked.utilisation,
        mixed=deployment is not None and deployment.mixed,
    )
    whole = None if deployment is None else whole_of(deployment, run, asked, plan.run if plan else None)
    if run.tpot is None and "decode" in pools:
        run = replace(run, tpot=as_it_is(run).tpot)
    instances: Any = {} if deployment is None else {phase: getattr(deployment, phase).instances for phase in PHASES}
    return Given(run=run, plan=plan, whole=whole, instances=instances, remarks=remarks)


def _with_batch(conditions: Any, model: Any, machine: Any) -> Any:
    """Return conditions with an open batch, and an open overlap, filled in."""
    from perfmodel.prediction.scenario import of_conditions, resolve

    chosen = resolve(of_conditions(conditions, model, machine.rates())).plan.layout
    layout = conditions.layout.model_copy(
        update={"batch": chosen.batch, "overlap": chosen.overlap, "attention_cores": chosen.attention_cores}
    )
    return conditions.model_copy(update={"layout": layout})
