"""`moeplan what-if`: what each technique and each hardware figure is worth to a plan."""

import re
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from perfmodel.cli import options
from perfmodel.errors import EXIT_INFEASIBLE, UsageError
from perfmodel.planning import inputs

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
    precision: Annotated[
        str | None,
        typer.Option("--precision", metavar="NAME", help="Another precision, as for solve; default: the plan's."),
    ] = None,
    acceptance: options.AcceptanceOption = None,
    stack: options.StackOption = None,
    engine: options.EngineOption = None,
    site: options.SiteOption = None,
    max_context: options.MaxContextOption = None,
    set_: options.SetNumberOption = None,
    show: options.ShowOption = None,
    format_: options.FormatOption = options.Format.table,
) -> None:
    """Rank what every technique would gain at the same target, batches and core splits chosen anew.

    Example: moeplan what-if seed-cm384-decode
    """
    from perfmodel.files.catalog import load_techniques
    from perfmodel.files.machines import load_chips
    from perfmodel.planning.best_batches import outcome
    from perfmodel.planning.changes import Refusal, hardware_changes, technique_changes
    from perfmodel.planning.named_run import named_run
    from perfmodel.planning.smallest_changes import ways
    from perfmodel.planning.what_if import Effect, effects
    from perfmodel.planning.what_if import pairs as two_by_two
    from perfmodel.report.hypothetical import hypothetical
    from perfmodel.report.what_if import reach_document, what_if_document

    limits = (inputs.quantity(tpot, "s", "--tpot"), inputs.quantity(ttft, "s", "--ttft"))
    goal = _goal(reach)
    given = named_run(
        plan,
        stack,
        acceptance,
        *limits,
        site=tuple(site or ()),
        engine=engine,
        precision=inputs.precision(precision),
        max_context=inputs.tokens(max_context, "--max-context"),
        numbers=inputs.set_numbers(set_),
    )
    run, machines = given.run, [pool.machine for pool in given.run.pools.values()]
    if run.mixed:
        again = f"moeplan solve {plan} --with TECHNIQUE=SETTING -o OTHER.json"
        fix = "" if given.plan is None else f"; search again with a change, {again}, and see moeplan compare"
        raise UsageError(f"{plan}: mixed serving; allowed: pools apart{fix}")
    wanted = _techniques(only, load_techniques())
    found = list(technique_changes(run, wanted))
    changes = [one for one in found if not isinstance(one, Refusal)]
    refused = [one for one in found if isinstance(one, Refusal)]
    if hardware and only is None:
        changes += hardware_changes(run, load_chips())
    if goal is not None:
        sets, nearest = ways(run, goal, changes)
        options.show(
            hypothetical(reach_document(run, plan, goal, sets, nearest), machines), format_, list(given.remarks), show
        )
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
    scheduled = None if given.engine is None else given.engine.word
    document = what_if_document(run, plan, before, gains, refused, together, given.whole, engine=scheduled)
    options.show(hypothetical(document, machines), format_, list(given.remarks), show)


def _techniques(only: str | None, every: Mapping[str, Any]) -> list[Any]:
    """Return the techniques that are to be tried."""
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
    from perfmodel.planning.smallest_changes import Goal

    if text is None:
        return None
    values: dict[str, Any] = {}
    for word in text.split(","):
        key, _, value = (part.strip() for part in word.partition("="))
        inputs.known(key, ["tpot", "ttft", "batch"], "--reach")
        if key == "batch":
            if re.fullmatch(r"[0-9]{1,9}", value) is None or int(value) < 1:
                raise UsageError(f"--reach: batch {value!r}; allowed: a whole number from 1, per data-parallel rank")
            values[key] = int(value)
        else:
            values[key] = inputs.quantity(value, "s", f"--reach {key}")
    if values.keys() <= {"batch"}:
        raise UsageError("--reach: no latency; allowed: tpot or ttft, with or without batch, like 'tpot=30ms,batch=96'")
    return Goal(**values)
