"""`moeplan solve`: the best deployment on a budget or for a rate."""

from dataclasses import replace
from enum import StrEnum
from typing import Annotated, Any

import typer

from perfmodel.cli import options
from perfmodel.errors import EXIT_INFEASIBLE, UsageError


class CachePrecision(StrEnum):
    """Precision of the KV cache, or the better of those the stack has."""

    bf16 = "bf16"
    int8 = "int8"
    any = "any"


MODEL_HELP = "Model, see 'moeplan list models'; or a run-spec, '-' for one from stdin."


def _servers(cards: int | None, rates: "object", system: str) -> int:
    from typing import Any, cast

    r = cast(Any, rates)
    if cards is None:
        return int(min(r.max_packages // r.packages_per_server, 48))
    options.positive(cards, "--cards")
    if cards > r.max_packages:
        raise UsageError(f"--cards: {cards}; allowed: at most {r.max_packages} on {system}; use fewer cards")
    if cards < 2 * r.packages_per_server:
        raise UsageError(
            f"--cards: {cards}; allowed: at least {2 * r.packages_per_server} (one server of "
            f"{r.packages_per_server} cards for each of prefill and decode)"
        )
    return int(cards // r.packages_per_server)


def _outputs(solution: Any, case: Any, request: Any) -> dict[str, Any]:
    """Return what assumed inputs may move: TPOT and TTFT of the plan, nothing where there is none."""
    from perfmodel.solver.solve import latencies

    best = solution.best
    if best is None:
        return {}
    tpot, ttft = latencies(best.prefill, best.decode, case, request.utilisation)
    return {"TPOT": tpot, "TTFT": ttft}


def _from_file(context: typer.Context, word: str) -> dict[str, Any] | None:
    """Return what a run-spec sets and the command line does not, or None where the word is no run-spec."""
    from pathlib import Path

    if word != "-" and not word.lower().endswith((".yaml", ".yml")):
        return None
    from perfmodel import catalog

    path = None if word == "-" else Path(word)
    if path is not None and not catalog.is_run(path):
        return None
    given = {name for name in context.params if name != "model" and options.typed(context, name)}
    found = catalog.load_run(path, given).model_dump(exclude=given, exclude_none=True)
    for name, unit in (("rate", "req/s"), ("tpot", "s"), ("ttft", "s")):
        if name in found:
            found[name] = f"{found[name]!r} {unit}"  # as the option is written; all digits are kept
    if "kv" in found:
        found["kv"] = CachePrecision(found["kv"])
    return found


def command(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="MODEL|RUN.yaml", help=MODEL_HELP, autocompletion=options.names_of("models"))
    ],
    on: options.SystemOption = None,
    cards: Annotated[int | None, typer.Option("--cards", help="Budget in cards (packages).")] = None,
    rate: Annotated[str | None, typer.Option("--rate", help="Requests per second, like '20 req/s' or 20.")] = None,
    isl: Annotated[int, typer.Option("--isl", help="Input tokens of a request.", show_default=False)] = 0,
    osl: Annotated[int, typer.Option("--osl", help="Output tokens of a request.", show_default=False)] = 0,
    tpot: Annotated[str | None, typer.Option("--tpot", help="Limit on time per output token, like 50ms.")] = None,
    ttft: Annotated[str | None, typer.Option("--ttft", help="Limit on time to first token, like 2s.")] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            "--objective",
            help="throughput (default with --cards), per-card, cards (default with --rate), tpot (lowest at --rate).",
        ),
    ] = None,
    utilisation: Annotated[float, typer.Option("--utilisation", help="Highest load of either pool.")] = 0.8,
    kv: Annotated[
        CachePrecision, typer.Option("--kv", help="KV cache precision; any: the better of those the stack has.")
    ] = CachePrecision.bf16,
    acceptance: options.AcceptanceOption = None,
    stack: options.StackOption = None,
    kernels: options.KernelsOption = None,
    confidence: Annotated[
        float | None,
        typer.Option(
            "--confidence", help="Least chance of meeting --tpot, like 0.9; default: the prediction meets it."
        ),
    ] = None,
    top: Annotated[int, typer.Option("--top", help="Plans shown, the best included.")] = 5,
    with_: options.WithOption = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="PLAN.json", help="Write the best plan to a file.")
    ] = None,
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
    missing = [n for n, v in (("--on", on), ("--isl", isl), ("--osl", osl), ("--tpot", tpot)) if not v]
    if missing:
        raise UsageError(
            f"solve needs {', '.join(missing)}; for example --on cloudmatrix384 --isl 4096 --osl 1024 --tpot 50ms"
        )
    if cards is None and rate is None:
        raise UsageError("solve needs --cards N (a budget) or --rate R (requests per second)")
    if not 0 < utilisation <= 1:
        raise UsageError(f"--utilisation: {utilisation}; allowed: above 0, at most 1")
    if objective is not None:
        options.known(objective, ["throughput", "per-card", "cards", "tpot"], "--objective")
    if objective in ("cards", "tpot") and rate is None:
        wanted_for = {"cards": "fewest cards", "tpot": "lowest TPOT"}[objective]
        raise UsageError(f"--objective {objective} needs --rate: {wanted_for} for which rate?")
    options.positive(top, "--top")
    if confidence is not None and not 0.5 <= confidence <= 0.99:
        raise UsageError(f"--confidence: {confidence:g}; allowed: from 0.5 to 0.99")
    limits = (options.quantity(tpot, "s", "--tpot"), options.quantity(ttft, "s", "--ttft"))
    wanted = options.quantity(rate if rate is None or not _plain(rate) else f"{rate} req/s", "1/s", "--rate")
    from perfmodel import catalog
    from perfmodel.report.plan import plan_document
    from perfmodel.sensitivity import swings
    from perfmodel.solver.plan import Status
    from perfmodel.solver.solve import Request, solve
    from perfmodel.specs.deployment import Targets

    loaded = catalog.load_model(model)
    machine, remarks = catalog.load_machine(str(on), stack, kernels or ())
    chosen = options.settings(with_)
    options.refuse_conflicts(chosen)
    service, choices = catalog.searched(chosen, machine, loaded.spec, kv.value)
    machine = catalog.set_techniques(machine, chosen)
    rates = machine.rates()
    positions, origin = options.read_acceptance(acceptance, loaded.spec)
    drafts = choices.fixed.get("decode", {}).get("draft", 0)
    if drafts > len(positions):
        raise UsageError(
            f"--with mtp={drafts}: acceptance is known for {len(positions)} position(s); give --acceptance with one "
            "value per position"
        )
    case = options.case_of(loaded.spec, rates, isl, osl, positions, service)
    bounds = [name for name, word in chosen.items() if catalog.technique_named(name).setting(word).bound]
    remarks = (*remarks, *(f"{name}={chosen[name]} is a bound: it cannot be set up" for name in bounds))
    request = Request(
        servers=_servers(cards, rates, machine.system.spec.name),
        rate=wanted,
        targets=Targets(tpot=limits[0], ttft=limits[1]),
        utilisation=utilisation,
        objective=objective or ("cards" if wanted else "throughput"),  # type: ignore[arg-type]
        choices=choices,
        top=top,
    )
    solution, sure, asked = _solved(solve, case, request, machine, confidence)
    document = plan_document(
        solution,
        request,
        model=loaded.spec.name,
        system=machine.system.spec.name,
        stack=stack,
        kernels=tuple(kernels or ()),
        techniques=catalog.beyond_layout(chosen),
        cards=cards,
        acceptance=origin,
        acceptance_option=acceptance,
        felt=swings(machine, lambda varied: _outputs(solution, replace(case, rates=varied), request)),
        ideal=catalog.ideal(machine).rates(),
        sure=sure,
        joined=_joined(solution.best, sure, machine, case, request) if sure is not None else None,
        confidence=confidence,
        searched_tpot=asked.targets.tpot,
    )
    if output is not None:
        remarks = (*remarks, _written(output, solution, machine, case, request, chosen, kernels, cards))
    options.show(document, format_, [*loaded.notes, *remarks])
    if solution.status is not Status.OPTIMAL:
        raise typer.Exit(EXIT_INFEASIBLE)


def _written(
    output: str,
    solution: Any,
    machine: Any,
    case: Any,
    request: Any,
    chosen: dict[str, str],
    kernels: Any,
    asked_cards: int | None,
) -> str:
    """Write the best plan to a file and return a remark on it."""
    from pathlib import Path

    from perfmodel import __version__, catalog
    from perfmodel.plan_file import plan_spec, pool_of
    from perfmodel.specs.evidence import DeploymentConditions
    from perfmodel.specs.plan import Asked

    best = solution.best
    if best is None:
        return f"{output}: not written: there is no plan"
    family = best.decode.family
    conditions = DeploymentConditions(
        system=machine.system.spec.name,
        model=case.model.name,
        stack=machine.stack.spec.name,
        kernels=tuple(kernels or ()),
        techniques=catalog.on_machine_alone(chosen),
        isl=case.isl,
        osl=case.osl,
        precision=family.precision,
        kv_dtype=family.kv_dtype,
        expert_weights=family.expert_weights,
        acceptance=case.acceptance,
        balanced=case.even,
        prefix_hit=case.prefix_hit,
        isl_spread=case.isl_spread,
        tpot=request.targets.tpot,
        prefill=pool_of(best.prefill, best.prefill_instances),
        decode=pool_of(best.decode, best.decode_instances),
    )
    plan = plan_spec(
        best,
        conditions,
        Asked(
            cards=asked_cards,
            requests_per_s=request.rate,
            ttft=request.targets.ttft,
            utilisation=request.utilisation,
            objective=request.objective,
        ),
        machine=machine,
        model=case.model,
        techniques=catalog.techniques(),
        version=__version__,
        files=catalog.digests(case.model.name, machine, chosen),
    )
    catalog.write_plan(Path(output), plan)
    return f"{output}: written; see moeplan explain {output}, moeplan what-if {output}"


def _joined(best: Any, decode: Any, machine: Any, case: Any, request: Any) -> Any:
    """Return how sure TTFT and the rate of the best deployment are."""
    from perfmodel.uncertainty import joined_range, pool_range

    return joined_range(
        prefill=pool_range(machine, best.prefill.layout, best.prefill.family, case),
        decode=decode,
        first=best.first_token,
        prefill_rate=best.prefill_instances * float(best.prefill.point.requests_per_s) * request.utilisation,
        decode_rate=best.decode_instances * float(best.decode.point.requests_per_s) * request.utilisation,
        asked=request.rate,
    )


TIGHTENINGS = 8  # of the limit in search of a confidence; two or three do


def _solved(solve: Any, case: Any, request: Any, machine: Any, confidence: float | None) -> tuple[Any, Any, Any]:
    """Return the best plan, how sure its decode step is, and the request that found it.

    With a confidence the limit is tightened below the plan's own TPOT until the plan found meets the real
    limit that often.  Raises ``UsageError`` where no plan does.
    """
    from perfmodel.uncertainty import pool_range

    limit, asked = request.targets.tpot, request
    for _ in range(TIGHTENINGS):
        solution = solve(case, asked)
        best = solution.best
        if best is None:
            return solution, None, asked
        sure = pool_range(machine, best.decode.layout, best.decode.family, case)
        each, tpot = float(best.decode.point.tokens_per_step), float(best.decode.point.tpot)
        if confidence is None or sure.chance(limit, each) >= confidence:
            return solution, sure, asked
        tighter = tpot * min(0.9999, limit / sure.tpot_at(confidence, each))
        asked = replace(asked, targets=asked.targets.model_copy(update={"tpot": tighter}))
    raise UsageError(
        f"--confidence {confidence:g}: no plan found that meets --tpot so often; ask for less, or a longer --tpot"
    )


def _plain(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
