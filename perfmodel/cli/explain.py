"""`moeplan explain`: where every microsecond of one layout goes."""

from dataclasses import replace
from enum import StrEnum
from typing import Annotated, Any

import typer

from perfmodel.cli import options
from perfmodel.errors import EXIT_INFEASIBLE, UsageError


class Sort(StrEnum):
    """What operators are sorted by."""

    time = "time"
    name = "name"
    bound = "bound"
    light = "light"
    flop = "flop"
    bytes = "bytes"


def command(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            help="Model; see 'moeplan list models'; or its config.json, a plan file, or the name of a published row.",
            autocompletion=options.names_of("models", "evidence"),
        ),
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
        options.Reduction | None,
        typer.Option(
            "--reduction",
            help="Tensor-parallel attention: all_reduce or scatter_gather; default scatter_gather, of a model without "
            "experts all_reduce.",
        ),
    ] = None,
    isl: Annotated[int, options.length("--isl", options.INPUT)] = 0,
    osl: Annotated[int, options.length("--osl", "Output tokens of a request (prefill: ignored).")] = 0,
    serving: Annotated[
        str, typer.Option("--serving", metavar="disaggregated|mixed", help="mixed: these dies run prefill too.")
    ] = "disaggregated",
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", help="Clients, each with one request at a time.")
    ] = None,
    rate: Annotated[str | None, typer.Option("--rate", help="Requests a second that arrive (mixed), like 2.5.")] = None,
    requests: Annotated[
        int | None, typer.Option("--requests", help="Requests in all; default: 10 of each client, 20000 of a rate.")
    ] = None,
    engine: options.EngineOption = None,
    isl_cv: Annotated[
        float | None,
        typer.Option("--isl-cv", help="Standard deviation over mean of input lengths (mixed); default: 0.06."),
    ] = None,
    osl_cv: Annotated[float | None, typer.Option("--osl-cv", help="The same of output lengths.")] = None,
    tpot: Annotated[str | None, typer.Option("--tpot", help="Limit on time per output token, like 50ms.")] = None,
    kv: Annotated[options.KvDtype, typer.Option("--kv", help="KV cache precision.")] = options.KvDtype.bf16,
    precision: options.PrecisionOption = None,
    acceptance: options.AcceptanceOption = None,
    stack: options.StackOption = None,
    kernels: options.KernelsOption = None,
    site: options.SiteOption = None,
    with_: options.WithOption = None,
    set_: options.SetOption = None,
    memory_share: options.MemoryShareOption = None,
    max_context: options.MaxContextOption = None,
    sources: Annotated[
        bool,
        typer.Option(
            "--sources", help="Add the kernel parameters of every row and the numbers of memory, with their sources."
        ),
    ] = False,
    layer: Annotated[
        str | None,
        typer.Option("--layer", metavar="KIND", help="One block, per layer: moe, dense, head, draft, ..."),
    ] = None,
    op: Annotated[
        str | None, typer.Option("--op", metavar="PATTERN", help="Only operators of this name, like 'attention.*'.")
    ] = None,
    sort: Annotated[Sort | None, typer.Option("--sort", help="Order of the operators; default: as they run.")] = None,
    tree: Annotated[bool, typer.Option("--tree", help="Show step, blocks, parts and operators as a tree.")] = False,
    roofline: Annotated[
        bool, typer.Option("--roofline", help="Show the operators under the roofs of the die.")
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
    compare: Annotated[
        str | None,
        typer.Option(
            "--compare",
            metavar="OTHER",
            help="Show the difference to a published row, a plan file, or changes like tp=4,batch=64 or on=SYSTEM.",
            autocompletion=options.names_of("evidence"),
        ),
    ] = None,
    measured: Annotated[
        list[str] | None,
        typer.Option(
            "--measured",
            metavar="QUANTITY=VALUE",
            help="What was measured of it, like tpot=120ms or ttft=1.8s, several with commas: how far it lies from the "
            "prediction, which changes could make that, and where to look; may be repeated.",
        ),
    ] = None,
    show: options.ShowOption = None,
    format_: options.FormatOption = options.Format.table,
) -> None:
    """Show every operator of one step: time, share, bound, distance from the speed of light.

    Example: moeplan explain deepseek-v3 --on cloudmatrix384 --cards 144 --shared-ranks 32 --draft 1
    --overlap cores --attention-cores 16 --isl 4096 --osl 1024 --tpot 50ms

    Example: moeplan explain --evidence seed-cm384-decode --compare draft=0,batch=64

    Example: moeplan explain --evidence seed-cm384-decode --measured tpot=120ms

    Beside the step as a whole: --layer and --op show a part of it, --tree, --roofline and --compare other forms.
    """
    from perfmodel.planning.known_errors import trust_of
    from perfmodel.planning.pool_run import other_than
    from perfmodel.planning.step_uncertainty import step_intervals, step_sensitivity
    from perfmodel.planning.suspects import gaps_of, read_measured
    from perfmodel.report.clients import with_clients
    from perfmodel.report.hypothetical import hypothetical
    from perfmodel.report.layout_words import head_words
    from perfmodel.report.step import View, step_document
    from perfmodel.report.suspects import with_measured

    run = _run_of(context)
    was_measured = read_measured(measured, run) if measured else {}
    if formula and measured:
        raise UsageError("--measured goes with the report, --formula takes its place; drop one of them")
    if formula:
        return _formula(formula, run, format_)
    other = other_than(run, compare) if compare is not None else None
    view = View(
        layer=layer,
        op=op,
        sort=None if sort is None else sort.value,
        tree=tree,
        roofline=roofline,
        kernels=run.machine.kernels_of() if sources else None,
        memory=(run.machine.chip, run.machine.stack) if sources else None,
        other=None if other is None else (other.name, other.resolved),
    )
    resolved, machine = run.resolved, run.machine
    document = step_document(
        resolved,
        run.ideal,
        model=run.model.name,
        system=machine.system.spec.name,
        stack=machine.stack.spec.name,
        engine=None if run.engine is None else run.engine.word,
        name=run.name,
        acceptance=run.acceptance,
        sensitivity=step_sensitivity(run) if view.whole_step else [],
        intervals=step_intervals(run),
        view=view,
        head=head_words(
            machine.system.spec.name,
            machine.chip.spec.name,
            machine.stack.spec,
            None if run.engine is None else run.engine.word,
        ),
        trust=trust_of(
            resolved.plan,
            machine,
            resolved.scenario.case,
            deployment=False,
            mixed=resolved.scenario.partner is not None,
        )
        if view.whole_step
        else None,
    )
    if run.clients is not None:
        document = with_clients(document, run)
    if was_measured:
        document = with_measured(document, gaps_of(run, was_measured))
    document = hypothetical(document, [machine])
    of_other = () if other is None else other.remarks
    options.show(document, format_, list(dict.fromkeys((*run.remarks, *of_other))), show)
    if not (run.fits and run.meets_tpot):
        raise typer.Exit(EXIT_INFEASIBLE)


def _run_of(context: typer.Context) -> Any:
    """Return what the options of a command describe: a published row, a pool of a plan file, or a layout by hand.

    Raises ``UsageError`` for options that contradict each other, and with a line for each rule the layout breaks.
    """
    from perfmodel.files.what import What, named
    from perfmodel.planning.pool_run import by_hand, of_evidence, of_plan

    given = context.params
    row = given["evidence"]
    if row is None and given["model"] is not None and _is_row(given["model"]):
        row = given["model"]
    if row is not None:
        named_by = ("evidence",) if given["evidence"] is not None else ("model",)
        _refuse_beside(
            context,
            (*named_by, "stack", "engine", "kernels", "site", "with_", "acceptance", "max_context", "set_"),
            "a published row brings all conditions but --stack, --engine, --kernels, --site, --acceptance, "
            "--max-context, --set and --with; drop {words}",
        )
        return of_evidence(row, given)
    if given["model"] is not None and named(given["model"]) is What.plan:
        _refuse_beside(
            context,
            ("model", "phase", "stack", "engine", "kernels", "site", "with_", "acceptance", "max_context", "set_"),
            "a plan file brings all conditions but --phase, --stack, --engine, --kernels, --site, --acceptance, "
            "--max-context, --set and --with; drop {words}",
        )
        return of_plan(given["model"], given)
    return by_hand(given)


def _is_row(word: str) -> bool:
    """Return whether a word names a published row on file and no model."""
    from perfmodel.files.folders import names

    return word.lower() in names("evidence") and word.lower() not in names("models")


#: options that say how an answer is shown, whatever it is about
VIEWS = ("sources", "layer", "op", "sort", "tree", "roofline", "compare", "formula", "measured", "format_", "show")


#: what --compare changes, by the names of options
CHANGED = (
    "on", "dies", "tp", "shared_ranks", "redundant", "batch", "draft", "overlap", "attention_cores", "exchange",
    "reduction", "isl", "osl", "tpot", "kv", "precision",
)  # fmt: skip


def _refuse_beside(context: typer.Context, allowed: tuple[str, ...], says: str) -> None:
    both = [name for name in context.params if name not in allowed + VIEWS and options.typed(context, name)]
    if both:
        words = ", ".join("MODEL" if n == "model" else f"--{n.strip('_').replace('_', '-')}" for n in both)
        values = {name: context.params[name] for name in both if name in CHANGED}
        changes = ",".join(f"{name}={getattr(value, 'value', value)}" for name, value in values.items())
        see = f"; to see it changed: --compare {changes}" if changes and context.params["compare"] is None else ""
        raise UsageError(says.format(words=words) + see)


def _formula(names: list[str], run: Any, format_: options.Format) -> None:
    """Show closed forms of numbers of the report."""
    from perfmodel.prediction.scenario import resolve
    from perfmodel.report.closed_form import formula_document
    from perfmodel.report.hypothetical import hypothetical

    resolved, notes = run.resolved, tuple[str, ...]()
    if run.between is not None:
        resolved = resolve(replace(resolved.scenario, partner=None))
        alone = f"{run.name}: mixed serving; the forms are of a {run.conditions.phase} step alone, without the "
        notes = (alone + "steps of the other phase in between: TPOT, rate and memory are not the plan's",)
    title = f"{run.model.name} {run.conditions.phase} on {run.machine.system.spec.name}"
    document = hypothetical(formula_document(names, resolved, run.machine, title=title), [run.machine])
    options.show(replace(document, notes=(*document.notes, *notes)), format_, [*run.remarks])
