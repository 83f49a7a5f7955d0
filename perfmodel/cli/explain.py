"""`moeplan explain`: where every microsecond of one layout goes."""

from dataclasses import replace
from typing import Annotated, Any

import typer

from perfmodel import inputs
from perfmodel.cli import options
from perfmodel.errors import EXIT_INFEASIBLE, UsageError


def _refuse_beside_evidence(context: typer.Context) -> None:
    beside = ("evidence", "format_", "stack", "kernels", "sources", "with_", "acceptance", "formula")
    both = [name for name in context.params if name not in beside and options.typed(context, name)]
    if both:
        words = ", ".join("MODEL" if n == "model" else f"--{n.strip('_').replace('_', '-')}" for n in both)
        raise UsageError(
            f"--evidence brings all conditions of its row but --stack, --kernels, --acceptance and --with; "
            f"drop {words}, or drop --evidence"
        )


def outputs(plan: Any, case: Any) -> dict[str, Any]:
    """Return what assumed inputs may move: the step time and the share of memory used."""
    from perfmodel.solver.search import exact_pool

    point: Any = exact_pool(plan.layout, plan.family, case).point
    return {"step": point.step_time, "memory": point.memory / point.usable}


def _dies(dies: int | None, cards: int | None, servers: int | None, rates: Any) -> int:
    given = [(n, v) for n, v in (("--dies", dies), ("--cards", cards), ("--servers", servers)) if v is not None]
    if len(given) != 1:
        raise UsageError("explain needs exactly one of --dies, --cards, --servers: the size of one instance")
    name, value = given[0]
    inputs.positive(value, name)
    return int(value * {"--dies": 1, "--cards": rates.dies_per_package, "--servers": rates.dies_per_server}[name])


def command(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Argument(help="Model; see 'moeplan list models'.", autocompletion=options.names_of("models"))
    ] = None,
    on: options.SystemOption = None,
    evidence: Annotated[
        str | None,
        typer.Option(
            "--evidence", help="Take all conditions from a published row.", autocompletion=options.names_of("evidence")
        ),
    ] = None,
    phase: Annotated[str, typer.Option("--phase", help="decode or prefill.")] = "decode",
    dies: Annotated[int | None, typer.Option("--dies", help="Dies of one instance.")] = None,
    cards: Annotated[int | None, typer.Option("--cards", help="Cards of one instance.")] = None,
    servers: Annotated[int | None, typer.Option("--servers", help="Servers of one instance.")] = None,
    tp: Annotated[int, typer.Option("--tp", help="Attention tensor parallelism; dp = dies / tp.")] = 1,
    shared_ranks: Annotated[
        int, typer.Option("--shared-ranks", help="Dies that hold only shared experts; 0: shared on every die.")
    ] = 0,
    redundant: Annotated[int, typer.Option("--redundant", help="Replicas of routed experts.")] = 0,
    batch: Annotated[
        int | None,
        typer.Option("--batch", help="Sequences per attention data-parallel rank; default: largest within --tpot."),
    ] = None,
    draft: Annotated[int, typer.Option("--draft", help="Draft (MTP) tokens per step.")] = 0,
    overlap: Annotated[
        options.Overlap, typer.Option("--overlap", help="Micro-batch overlap: none, link behind compute, core split.")
    ] = options.Overlap.none,
    attention_cores: Annotated[
        int, typer.Option("--attention-cores", help="Cube cores of the attention stream (overlap cores).")
    ] = 0,
    exchange: Annotated[
        options.Exchange, typer.Option("--exchange", help="Expert exchange: dispatch/combine or AllGather.")
    ] = options.Exchange.dispatch,
    reduction: Annotated[
        options.Reduction, typer.Option("--reduction", help="Tensor-parallel attention: all_reduce or scatter_gather.")
    ] = options.Reduction.scatter_gather,
    isl: Annotated[int, typer.Option("--isl", help="Input tokens of a request.", show_default=False)] = 0,
    osl: Annotated[
        int, typer.Option("--osl", help="Output tokens of a request (prefill: ignored).", show_default=False)
    ] = 0,
    tpot: Annotated[str | None, typer.Option("--tpot", help="Limit on time per output token, like 50ms.")] = None,
    kv: Annotated[options.KvDtype, typer.Option("--kv", help="KV cache precision.")] = options.KvDtype.bf16,
    precision: Annotated[str, typer.Option("--precision", help="w8a8 or bf16.")] = "w8a8",
    acceptance: options.AcceptanceOption = None,
    stack: options.StackOption = None,
    kernels: options.KernelsOption = None,
    with_: options.WithOption = None,
    set_: options.SetOption = None,
    sources: Annotated[
        bool, typer.Option("--sources", help="Add the kernel parameters of every row, with their sources.")
    ] = False,
    formula: Annotated[
        list[str] | None,
        typer.Option(
            "--formula",
            metavar="NAME",
            help="Closed form of a number in place of the report, like attention.core, '*dispatch*', moe_layer, tpot "
            "or memory; 'list' names all; may be repeated.",
        ),
    ] = None,
    format_: options.FormatOption = options.Format.table,
) -> None:
    """Show every operator of one step: time, share, bound, distance from the speed of light.

    Example: moeplan explain deepseek-v3 --on cloudmatrix384 --cards 144 --shared-ranks 32 --draft 1
    --overlap cores --attention-cores 16 --isl 4096 --osl 1024 --tpot 50ms
    """
    from perfmodel import catalog
    from perfmodel.report.step import step_document
    from perfmodel.scenario import of_conditions, resolve
    from perfmodel.sensitivity import swings
    from perfmodel.techniques import inapplicable, with_setting
    from perfmodel.uncertainty import pool_range

    chosen = inputs.settings(with_)
    remarks: tuple[str, ...] = ()
    if evidence is not None:
        _refuse_beside_evidence(context)
        row = catalog.load_evidence(evidence).spec
        conditions, origin = row.conditions, f"evidence {evidence}"
    elif model is not None and model.lower().endswith(".json"):
        conditions, origin, changed = _of_plan(model, phase, context)
        remarks = tuple(changed)
    else:
        if model is None or on is None:
            raise UsageError(
                "explain needs MODEL and --on SYSTEM, a plan file, or --evidence NAME; see 'moeplan list evidence'"
            )
        if phase not in ("decode", "prefill"):
            raise UsageError(f"--phase: {phase!r}; allowed: decode, prefill")
        if precision not in ("w8a8", "bf16"):
            raise UsageError(f"--precision: {precision!r}; allowed: w8a8, bf16")
        if not isl or (phase == "decode" and not osl):
            raise UsageError("explain needs --isl, and --osl for decode; for example --isl 4096 --osl 1024")
        positions, origin = inputs.read_acceptance(acceptance, catalog.load_model(model).spec)
        around, remarks = catalog.load_machine(on, stack, kernels or ())
        rates = around.rates()
        inputs.case_of(catalog.load_model(model).spec, rates, isl, osl if phase == "decode" else 1, positions)
        layout = {
            "dies": _dies(dies, cards, servers, rates),
            "tp": tp,
            "shared_ranks": shared_ranks,
            "redundant": redundant,
            "batch": batch,
            "draft": draft,
            "overlap": overlap.value,
            "attention_cores": attention_cores,
            "exchange": exchange.value,
            "reduction": reduction.value,
            **inputs.layout_keys(set_),
        }
        conditions = checked_conditions(
            system=on,
            model=model,
            stack=around.stack.spec.name,
            kernels=tuple(kernels or ()),
            phase=phase,
            isl=isl,
            osl=osl if phase == "decode" else 1,
            acceptance=positions,
            precision=precision,
            kv_dtype=kv.value,
            tpot=inputs.quantity(tpot, "s", "--tpot"),
            layout=layout,
        )
    loaded = catalog.load_model(conditions.model)
    if acceptance is not None:
        accepted, origin = inputs.read_acceptance(acceptance, loaded.spec)
        conditions = conditions.model_copy(update={"acceptance": accepted})
    conditions = conditions.model_copy(
        update={"stack": stack or conditions.stack, "kernels": tuple(kernels or conditions.kernels)}
    )
    machine = catalog.load_conditions(conditions)
    inputs.refuse_conflicts(chosen)
    for name, setting in chosen.items():
        technique = catalog.technique_named(name)
        reason = inapplicable(technique.spec.applies, loaded.spec, machine, conditions.phase, conditions.layout)
        if reason is not None and setting != next(iter(technique.spec.settings)):
            raise UsageError(f"--with {name}={setting}: {conditions.phase}: {reason}")
        conditions, machine = with_setting(technique, setting, conditions, machine, loaded.spec, catalog.kernel_set)
    # a published row vouches for the techniques it ran with
    held = {} if evidence is not None else catalog.settings_in(conditions, machine, loaded.spec)
    catalog.refuse_lacking({**held, **chosen}, machine)
    conditions = checked_conditions(**conditions.model_dump())
    scenario = of_conditions(conditions, loaded.spec, machine.rates())
    resolved = resolve(scenario)
    if formula:
        from perfmodel.report.closed_form import formula_document

        title = f"{loaded.spec.name} {scenario.phase} on {machine.system.spec.name}"
        document = formula_document(formula, resolved, machine, title=title)
    else:
        document = step_document(
            resolved,
            catalog.ideal(machine).rates(),
            model=loaded.spec.name,
            system=machine.system.spec.name,
            acceptance=origin,
            felt=swings(machine, lambda varied: outputs(resolved.plan, replace(scenario.case, rates=varied))),
            tpot=scenario.tpot,
            kernels=machine.kernels_of() if sources else None,
            sure=pool_range(machine, resolved.plan.layout, resolved.plan.family, resolved.scenario.case),
        )
    options.show(document, format_, [*loaded.notes, *remarks])
    if not (resolved.fits and resolved.meets_tpot):
        raise typer.Exit(EXIT_INFEASIBLE)


def _of_plan(path: str, phase: str, context: typer.Context) -> tuple[Any, str, list[str]]:
    """Return the conditions of one pool of a plan file, where they come from, and remarks."""
    from perfmodel import catalog
    from perfmodel.plan_file import conditions_of

    if phase not in ("decode", "prefill"):
        raise UsageError(f"--phase: {phase!r}; allowed: decode, prefill")
    allowed = ("model", "phase", "format_", "sources", "with_", "stack", "kernels", "acceptance", "formula")
    beside = [name for name in context.params if name not in allowed and options.typed(context, name)]
    if beside:
        words = ", ".join(f"--{name.strip('_').replace('_', '-')}" for name in beside)
        raise UsageError(
            f"a plan file brings all conditions but --phase, --stack, --kernels and --acceptance; drop {words}; "
            "to change one, use --with"
        )
    plan = catalog.load_plan(path)
    return conditions_of(plan.conditions, phase), f"plan {path}", catalog.changed_since(plan)  # type: ignore[arg-type]


def checked_conditions(**values: Any) -> Any:
    """Return conditions given on the command line, or raise ``UsageError`` with a line for each fault."""
    from pydantic import ValidationError

    from perfmodel.specs.base import faults_in
    from perfmodel.specs.evidence import Conditions

    try:
        return Conditions(**values)
    except ValidationError as error:
        raise UsageError("\n".join(faults_in(error, inside="layout"))) from None
