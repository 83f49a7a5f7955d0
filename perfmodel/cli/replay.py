"""`moeplan replay`: a planned deployment serving real requests, one by one."""

from typing import Annotated

import typer

from perfmodel.cli import options
from perfmodel.errors import EXIT_INFEASIBLE


def command(
    context: typer.Context,
    workload: Annotated[
        str | None,
        typer.Argument(metavar="WORKLOAD", help="Trace, benchmark result, histogram or summary; default: drawn ones."),
    ] = None,
    plan: Annotated[str, typer.Option("--plan", metavar="PLAN.json", help="Plan file, as solve -o writes it.")] = ...,  # type: ignore[assignment]
    isl: Annotated[
        str | None, typer.Option("--isl", help="Mean input tokens of drawn requests, like 4k; default: the plan's.")
    ] = None,
    isl_cv: Annotated[
        float | None,
        typer.Option("--isl-cv", help="Standard deviation over mean of input lengths (lognormal); default: 0.06."),
    ] = None,
    osl: Annotated[str | None, typer.Option("--osl", help="The same of output tokens.")] = None,
    osl_cv: Annotated[float | None, typer.Option("--osl-cv", help="The same of output lengths.")] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            "--rate",
            help="Requests a second, like 2.5; stamps are stretched to it; default: as stamped, else the plan's.",
        ),
    ] = None,
    cv: Annotated[
        float | None,
        typer.Option("--cv", help="Draw arrivals: standard deviation over mean of their gaps; 1 is at random."),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", help="Clients, each with one request at a time.")
    ] = None,
    requests: Annotated[
        int | None,
        typer.Option(
            "--requests",
            help="Requests in all; a trace is cut or repeated. Default: all of the file; of drawn ones 20000 or more, "
            "10 of each client.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of all that is drawn.")] = 0,
    routing: Annotated[
        str,
        typer.Option(
            "--routing",
            metavar="round_robin|random|least_work|prefix_affinity",
            help="Which instance takes a request.",
        ),
    ] = "round_robin",
    prefix_cache: Annotated[
        str | None,
        typer.Option(
            "--prefix-cache",
            metavar="SIZE",
            help="Cache of earlier prompts of each instance, beside that of running requests: 64GB, or 20000 blocks.",
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine",
            metavar="NAME[==VERSION]",
            help="Engine of the plan's stack that schedules, like sglang; default: the plan's, else the stack's first.",
        ),
    ] = None,
    ttft: Annotated[
        str | None, typer.Option("--ttft", help="Limit on time to first token: 2s (mean) or p99=2s; exit 3 if missed.")
    ] = None,
    tpot: Annotated[
        str | None, typer.Option("--tpot", help="Limit on time per output token: 50ms (mean) or p90=50ms.")
    ] = None,
    max_context: options.MaxContextOption = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out lines that are no requests; they are counted by kind.")
    ] = False,
    show: options.ShowOption = None,
    format_: options.FormatOption = options.Format.table,
) -> None:
    """Show what clients of a plan wait for, request by request: percentiles, goodput, the load of pools.

    Example: moeplan replay trace.jsonl --plan plan.json --rate 20 --ttft p99=2s

    Example: moeplan replay --plan plan.json --isl 4k --isl-cv 1.2 --osl 1k --osl-cv 0.8

    Without WORKLOAD, requests are drawn: lengths of the plan, or those given, that come at random at the plan's rate.
    """
    from perfmodel.planning.replay import replayed
    from perfmodel.report.hypothetical import hypothetical
    from perfmodel.report.replay import replay_document

    found = replayed(context.params)
    document = hypothetical(replay_document(found), found.plan.machines.values())
    options.show(document, format_, list(found.remarks), show)
    if found.missed:
        raise typer.Exit(EXIT_INFEASIBLE)
