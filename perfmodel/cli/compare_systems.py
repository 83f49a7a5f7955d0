"""`moeplan compare-systems`: one question asked of several systems."""

from typing import Annotated, get_args

import typer

from perfmodel.cli import options
from perfmodel.errors import EXIT_INFEASIBLE, UsageError
from perfmodel.planning import inputs

TPOT = "50ms"  # where none is given


def command(
    model: Annotated[
        str,
        typer.Argument(
            help="Model, see 'moeplan list models', or its config.json.", autocompletion=options.names_of("models")
        ),
    ],
    on: Annotated[
        str | None,
        typer.Option(
            "--on",
            metavar="SYSTEMS",
            help="Systems with commas between, or 'all' on file; see 'moeplan list systems'.",
            autocompletion=options.names_of("systems"),
        ),
    ] = None,
    isl: Annotated[str | None, typer.Option("--isl", help="Input tokens of a request, like 4096 or 4k.")] = None,
    osl: Annotated[str | None, typer.Option("--osl", help="Output tokens of a request.")] = None,
    tpot: Annotated[
        str | None, typer.Option("--tpot", help=f"Limit on the mean time per output token; default: {TPOT}.")
    ] = None,
    ttft: Annotated[str | None, typer.Option("--ttft", help="Limit on the mean time to first token, like 2s.")] = None,
    cards: Annotated[
        int | None,
        typer.Option(
            "--cards",
            help="Budget of each in cards; without it, --servers and --rate all get one size: twice the smallest "
            "deployment of the system that needs most cards.",
        ),
    ] = None,
    servers: Annotated[int | None, typer.Option("--servers", help="Budget of each in its own servers.")] = None,
    rate: Annotated[
        str | None, typer.Option("--rate", help="Requests per second, like '20 req/s' or 20, on the fewest cards.")
    ] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(
            "--price",
            metavar="SYSTEM=MONEY",
            help="What a card of a system costs an hour, in one money for all; may be repeated.",
        ),
    ] = None,
    serving: options.ServingOption = None,
    kv: options.CacheOption = options.CachePrecision.bf16,
    precision: options.PrecisionOption = None,
    acceptance: options.AcceptanceOption = None,
    stack: options.StackOption = None,
    engine: options.EngineOption = None,
    allow_scale_out: Annotated[
        bool, typer.Option("--allow-scale-out", help="Let an instance leave its supernode or server group.")
    ] = False,
    show: options.ShowOption = None,
    format_: options.FormatOption = options.Format.table,
) -> None:
    """Compare what systems serve of a model at the same targets: the best plan on each, and how sure the order is.

    Example: moeplan compare-systems deepseek-v3 --on atlas-800i-a3,cloudmatrix384 --isl 4096 --osl 1024 --tpot 50ms

    Example: moeplan compare-systems qwen3-235b-a22b --on all --servers 4 --isl 4096 --osl 1024
    """
    missing = [name for name, value in (("--on", on), ("--isl", isl), ("--osl", osl)) if not value]
    if on is None or isl is None or osl is None or missing:
        raise UsageError(
            f"compare-systems needs {', '.join(missing)}; for example --on atlas-800i-a3,cloudmatrix384 --isl 4096 "
            "--osl 1024 --tpot 50ms"
        )
    if cards is not None and servers is not None:
        raise UsageError("--cards with --servers; allowed: one of them; drop the other")
    inputs.positive(cards, "--cards")
    inputs.positive(servers, "--servers")
    lengths = tuple(int(inputs.tokens(text, option) or 0) for text, option in ((isl, "--isl"), (osl, "--osl")))
    limits = (inputs.quantity(tpot or TPOT, "s", "--tpot"), inputs.quantity(ttft, "s", "--ttft"))
    wanted_rate = inputs.rate(rate, "--rate")
    from perfmodel.files.catalog import load_model
    from perfmodel.planning.compare_systems import compared, systems_named
    from perfmodel.report.compare_systems import compared_document
    from perfmodel.specs.run import RunSpec, Serving

    if serving is not None:
        inputs.known(serving, list(get_args(Serving)), "--serving")
    inputs.precision(precision)
    known = load_model(model)
    inputs.check_lengths(known.spec, *lengths)
    inputs.read_acceptance(acceptance, known.spec)
    systems, prices, remarks = systems_named(on, price or ())
    run = RunSpec.model_construct(
        model=model,
        cards=cards,
        rate=wanted_rate,
        isl=lengths[0],
        osl=lengths[1],
        tpot=limits[0],
        ttft=limits[1],
        serving=serving,
        kv=kv.value,
        acceptance=acceptance,
        stack=stack,
        engine=engine,
        precision=precision,
        allow_scale_out=allow_scale_out or None,
    )
    found = compared(run, systems, servers=servers, prices=prices)
    document = compared_document(found, tpot_given=tpot is not None)
    options.show(document, format_, list(dict.fromkeys((*remarks, *found.remarks))), show)
    if found.best is None:
        raise typer.Exit(EXIT_INFEASIBLE)
