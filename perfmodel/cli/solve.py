"""`moeplan solve`: the best deployment on a budget or for a rate."""

from typing import Annotated, Any, get_args

import typer

from perfmodel.cli import options
from perfmodel.errors import EXIT_INFEASIBLE, UsageError
from perfmodel.planning import inputs

#: keys that belong to the system that a key names
SOFTWARE = {"on": ("stack", "kernels"), "prefill_on": ("prefill_stack",)}
MODEL_HELP = (
    "Model, see 'moeplan list models', or its config.json; a run-spec, '-' for one from stdin; or a plan file, to find "
    "it again."
)


def _from_file(context: typer.Context, word: str) -> dict[str, Any] | None:
    """Return what a run-spec or plan sets and the command line does not, or None where the word is neither."""
    from pathlib import Path

    from perfmodel.files.what import What, named

    what = What.run if word == "-" else named(word)
    if what not in (What.run, What.plan):
        return None
    from perfmodel.files.runs import load_run
    from perfmodel.planning.plan_file import load_plan
    from perfmodel.specs.run import PERCENTILES, WAITS

    given = {name for name in context.params if name != "model" and options.typed(context, name)}
    if what is What.plan:
        plan = load_plan(word)
        asked = plan.spec.run
        if asked is None:
            raise UsageError(f"{word}: holds no run-spec; allowed: a plan that solve -o wrote, or a run-spec")
        for text in plan.remarks:
            options.remark(text)
        # software belongs to its system: another system comes with its own
        others = {key for system, keys in SOFTWARE.items() if system in given for key in keys}
        if "engine" in given:
            others |= _without_engine(asked, given, context.params["engine"])
        found = asked.model_dump(exclude=given | others, exclude_none=True)
    else:
        path = None if word == "-" else Path(word)
        found = load_run(path, given).model_dump(exclude=given, exclude_none=True)
    for wait in WAITS:  # as they are typed; what is typed comes before all that a file says of the same wait
        mean = found.pop(wait, None)
        texts = [] if mean is None else [mean]
        for word in PERCENTILES:
            if (limit := found.pop(f"{wait}_{word}", None)) is not None and wait not in given:
                texts.append(f"{word}={limit}")
        if texts:
            found[wait] = texts
    if "max_context" in found:
        found["max_context"] = str(found["max_context"])
    if "set_" in found:
        found["set_"] = [f"{word}={text}" for word, text in found["set_"].items()]
    if "kv" in found:
        found["kv"] = options.CachePrecision(found["kv"])
    return found


def _without_engine(asked: Any, given: set[str], engine: str) -> set[str]:
    """Return the stacks of a plan that are without an engine that is typed beside it: another is looked for."""
    from perfmodel.planning.software import has_engine

    stacks = {key: getattr(asked, key) for key in ("stack", "prefill_stack") if key not in given}
    return {key for key, stack in stacks.items() if stack is not None and not has_engine(stack, engine)}


def command(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL|RUN.yaml|PLAN.json", help=MODEL_HELP, autocompletion=options.names_of("models")),
    ],
    on: options.SystemOption = None,
    cards: Annotated[int | None, typer.Option("--cards", help="Budget in cards (packages).")] = None,
    rate: Annotated[str | None, typer.Option("--rate", help="Requests per second, like '20 req/s' or 20.")] = None,
    isl: Annotated[int, options.length("--isl", options.INPUT)] = 0,
    osl: Annotated[int, options.length("--osl", "Output tokens of a request.")] = 0,
    workload: Annotated[
        str | None,
        typer.Option(
            "--workload",
            "--trace",
            metavar="FILE",
            help="Trace or its summary: lengths and arrivals in place of --isl and --osl; see 'moeplan workload'.",
        ),
    ] = None,
    isl_cv: Annotated[
        float | None, typer.Option("--isl-cv", help="Spread of input lengths: standard deviation over mean, like 1.3.")
    ] = None,
    osl_cv: Annotated[float | None, typer.Option("--osl-cv", help="Spread of output lengths, like 0.8.")] = None,
    arrival_cv: Annotated[
        float | None,
        typer.Option(
            "--arrival-cv", help="Spread of gaps between arrivals; default: the workload's arrivals, else 1, Poisson."
        ),
    ] = None,
    routing: Annotated[
        str | None,
        typer.Option(
            "--routing",
            metavar="round_robin|random|least_work",
            help="Which instance takes a request; default: round_robin.",
        ),
    ] = None,
    tpot: Annotated[
        list[str] | None,
        typer.Option(
            "--tpot",
            metavar="TIME|P=TIME",
            help="Limit on time per output token: on its mean, like 50ms, or p50, p90, p99, like p90=50ms; may be "
            "repeated.",
        ),
    ] = None,
    ttft: Annotated[
        list[str] | None,
        typer.Option(
            "--ttft",
            metavar="TIME|P=TIME",
            help="Limit on time to first token: on its mean, like 2s, or p50, p90, p99, like p99=3s; may be repeated.",
        ),
    ] = None,
    goodput: Annotated[
        float | None, typer.Option("--goodput", help="Least share of requests within every limit, like 0.95.")
    ] = None,
    clients_view: Annotated[
        bool, typer.Option("--clients-view", help="Replay the plan and tell what clients see: mean, p50, p90, p99.")
    ] = False,
    objective: Annotated[
        str | None,
        typer.Option(
            "--objective",
            help="throughput (default with --cards), per-card, cards (default with --rate), cost (needs --price), "
            "energy (where power is on file), tpot (lowest at --rate).",
        ),
    ] = None,
    utilisation: Annotated[
        float | None, typer.Option("--utilisation", help="Highest load of either pool; default: 0.8.")
    ] = None,
    serving: options.ServingOption = None,
    kv: options.CacheOption = options.CachePrecision.bf16,
    precision: options.PrecisionOption = None,
    acceptance: options.AcceptanceOption = None,
    stack: options.StackOption = None,
    engine: options.EngineOption = None,
    kernels: options.KernelsOption = None,
    site: options.SiteOption = None,
    confidence: Annotated[
        float | None,
        typer.Option(
            "--confidence",
            help="Least chance of meeting --tpot, --ttft and --rate at once, like 0.9; default: the prediction does.",
        ),
    ] = None,
    price: Annotated[float | None, typer.Option("--price", help="What a card costs an hour, in any money.")] = None,
    prefill_on: Annotated[
        str | None,
        typer.Option(
            "--prefill-on",
            metavar="SYSTEM",
            help="Another system for the prefill pool.",
            autocompletion=options.names_of("systems"),
        ),
    ] = None,
    prefill_cards: Annotated[
        int | None, typer.Option("--prefill-cards", help="Budget in cards of that system.")
    ] = None,
    prefill_price: Annotated[
        float | None, typer.Option("--prefill-price", help="What a card of that system costs an hour.")
    ] = None,
    prefill_stack: Annotated[
        str | None,
        typer.Option(
            "--prefill-stack",
            help="Software stack of that system. Default: its own.",
            autocompletion=options.names_of("stacks"),
        ),
    ] = None,
    allow_scale_out: Annotated[
        bool, typer.Option("--allow-scale-out", help="Let an instance leave its supernode or server group.")
    ] = False,
    front: Annotated[
        bool,
        typer.Option(
            "--front", help="Add the most per card at every TPOT, and over which acceptance the choice holds."
        ),
    ] = False,
    top: Annotated[int | None, typer.Option("--top", help="Plans shown, the best included; default: 5.")] = None,
    with_: options.WithOption = None,
    memory_share: options.MemoryShareOption = None,
    max_context: options.MaxContextOption = None,
    set_: options.SetNumberOption = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="PLAN.json", help="Write the best plan to a file.")
    ] = None,
    force: options.ForceOption = False,
    show: options.ShowOption = None,
    format_: options.FormatOption = options.Format.table,
) -> None:
    """Find the best prefill and decode layout, batch and server counts.

    Example: moeplan solve deepseek-v3 --on cloudmatrix384 --cards 160 --isl 4096 --osl 1024 --tpot 50ms

    Example: moeplan solve run.yaml --tpot 30ms

    The keys of a run-spec ('moeplan init' writes one) are options without their dashes; options given beside it
    come before its keys.
    """
    if (found := _from_file(context, model)) is not None:
        return command(context, **context.params | found)
    for name, count in (("isl", isl), ("osl", osl)):
        if options.typed(context, name):
            inputs.positive(count, f"--{name}")
    needed = (("--on", on), ("--isl", isl or workload), ("--osl", osl or workload), ("--tpot", tpot))
    missing = [name for name, value in needed if not value]
    if missing:
        raise UsageError(
            f"solve needs {', '.join(missing)}; for example --on cloudmatrix384 --isl 4096 --osl 1024 --tpot 50ms"
        )
    if utilisation is not None and not 0 < utilisation <= 1:
        raise UsageError(f"--utilisation: {utilisation}; allowed: above 0, at most 1")
    from perfmodel.specs.run import Objective, Routing, RunSpec, Serving

    for name, word, allowed in (
        ("objective", objective, Objective),
        ("serving", serving, Serving),
        ("routing", routing, Routing),
    ):
        if word is not None:
            inputs.known(word, list(get_args(allowed)), f"--{name}")
    inputs.precision(precision)
    inputs.positive(top, "--top")
    if confidence is not None and not 0.5 <= confidence <= 0.99:
        raise UsageError(f"--confidence: {confidence:g}; allowed: from 0.5 to 0.99")
    for name, money in (("--price", price), ("--prefill-price", prefill_price)):
        if money is not None and not 0 < money < float("inf"):
            raise UsageError(f"{name}: {money:g}; allowed: more than zero")
    from perfmodel.files.writing import target
    from perfmodel.planning import plan_file, planner
    from perfmodel.report.hypothetical import hypothetical
    from perfmodel.report.plan.document import plan_document
    from perfmodel.solver.solution import Status

    to = None if output is None else target(output, option="--output", suffixes=(".json",), force=force)
    run = RunSpec.model_construct(
        model=model,
        on=on,
        cards=cards,
        rate=inputs.rate(rate, "--rate"),
        isl=isl or None,
        osl=osl or None,
        workload=inputs.beside(workload),
        isl_cv=inputs.spread(isl_cv, "--isl-cv"),
        osl_cv=inputs.spread(osl_cv, "--osl-cv"),
        arrival_cv=inputs.spread(arrival_cv, "--arrival-cv"),
        routing=routing,
        **inputs.limits("tpot", tpot or ()),
        **inputs.limits("ttft", ttft or ()),
        goodput=inputs.share(goodput, "--goodput"),
        clients_view=clients_view or None,
        objective=objective,
        utilisation=utilisation,
        serving=serving,
        kv=kv.value,
        precision=precision,
        acceptance=acceptance,
        stack=stack,
        engine=engine,
        kernels=tuple(kernels) if kernels else None,
        site=tuple(site) if site else None,
        with_=tuple(with_) if with_ else None,
        confidence=confidence,
        price=price,
        prefill_on=prefill_on,
        prefill_cards=prefill_cards,
        prefill_price=prefill_price,
        prefill_stack=prefill_stack,
        allow_scale_out=allow_scale_out or None,
        memory_share=inputs.share(memory_share, "--memory-share"),
        max_context=inputs.tokens(max_context, "--max-context"),
        set_=inputs.set_numbers(set_) or None,
        top=top,
    )
    answer = planner.planned(run)
    looked = (
        (planner.front_of(answer.request), planner.optimal_range_of(answer))
        if front and answer.solution.best
        else ((), None)
    )
    document = hypothetical(plan_document(answer, *looked), answer.request.machines.values())
    options.show(document, format_, list(answer.request.remarks), show)
    if to is not None:
        for text in _written(to, plan_file.plan_of(answer)):
            options.remark(text)
    if answer.solution.status is not Status.OPTIMAL:
        raise typer.Exit(EXIT_INFEASIBLE)


def _written(to: Any, plan: Any) -> list[str]:
    """Write the best plan to a file and return remarks on it."""
    from perfmodel.files.plans import not_near, write_plan

    output = to.path
    if plan is None:
        return [f"{output}: not written: there is no plan"]
    write_plan(to, plan)
    if (away := not_near(plan, output)) is not None:
        return [f"{output}: written", away]
    also = "" if plan.conditions.mixed else f", moeplan what-if {output}"
    return [f"{output}: written; see moeplan explain {output}{also}"]
