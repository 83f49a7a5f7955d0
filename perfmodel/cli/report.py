"""`moeplan report`: a plan as one page of HTML."""

from typing import Annotated, Any

import typer

from perfmodel.cli import options
from perfmodel.errors import UsageError


def command(
    plan: Annotated[str, typer.Argument(metavar="PLAN.json", help="Plan file, as solve -o writes it.")],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="REPORT.html", help="Where the page goes.")
    ] = "report.html",
    front: Annotated[
        bool,
        typer.Option("--front/--no-front", help="Search for the front of throughput over TPOT; takes some seconds."),
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace a page that is there already.")] = False,
) -> None:
    """Write a plan as one page of HTML that needs no network: targets, drawing, plots, every input.

    Example: moeplan report plan.json -o report.html
    """
    from pathlib import Path

    from perfmodel.cli.what_if import given_of
    from perfmodel.files import catalog
    from perfmodel.report.html.page import Parts, page
    from perfmodel.report.terminal import VOICE

    if not plan.lower().endswith(".json"):
        raise UsageError(
            f"{plan!r}; allowed: a plan file that ends in .json; moeplan solve ... -o plan.json writes one"
        )
    path = Path(output)
    catalog.refuse_taken(path, force=force)  # before the work, and once more when the page is written
    given = given_of(plan)
    text = page(
        report_of(given.plan, given.run, front=front),
        Parts(**catalog.page_files(VOICE.language), shared=VOICE.say),
        file=Path(plan).name,
        commands=commands_of(plan, given.plan),
        remarks=given.remarks,
    )
    catalog.write_page(path, text, force=force)
    options.remark(f"{output}: written, {len(text.encode()) / 1e6:.1f} MB; open it in a browser")


def commands_of(file: str, spec: Any) -> list[tuple[str, str]]:
    """Return the command that made a plan, and those that look further into it, each with the key of what it is for."""
    from shlex import join

    mixed = spec.conditions.mixed
    lines = {
        "made": [] if spec.run is None else _solving(spec.run),
        "decode": ["explain", file],
        "prefill": ["explain", file, "--phase", "prefill"],
        "formula": ["explain", file, "--formula", "tpot"],
        "what_if": [] if mixed else ["what-if", file, "--pairs"],
        "again": [] if spec.run is None else ["solve", file, "--tpot", "30ms", "-o", "other.json"],
        "compare": ["compare", file, "other.json"],
    }
    return [(name, join(["moeplan", *words])) for name, words in lines.items() if words]


def _solving(run: Any) -> list[str]:
    """Return the words of the search that a run-spec stands for; options at their defaults are left out."""
    from inspect import signature

    from perfmodel.cli import solve

    defaults = {name: one.default for name, one in signature(solve.command).parameters.items()}
    words = ["solve", str(run.model)]
    for name in type(run).model_fields:
        value = getattr(run, name)
        if name == "model" or value is None or value == defaults[name]:
            continue
        option = "--" + name.strip("_").replace("_", "-")
        if value is True:
            words.append(option)
            continue
        for one in value if isinstance(value, tuple) else (value,):
            words += [option, _time(one) if name in ("tpot", "ttft") else f"{one}".removesuffix(".0")]
    return words


def _time(seconds: float) -> str:
    """Return a time as a user writes it, all digits kept.

    >>> _time(0.05), _time(2.0)
    ('50ms', '2s')
    """
    short = f"{seconds:g}s" if seconds >= 1 else f"{seconds * 1e3:g}ms"
    kept = float(short.rstrip("ms")) * (1 if seconds >= 1 else 1e-3)
    return short if abs(kept / seconds - 1) < 1e-15 else f"{seconds!r}s"


def report_of(spec: Any, run: Any, *, front: bool) -> Any:
    """Return everything that the page of a plan shows."""
    from perfmodel.files import catalog
    from perfmodel.planning.changes import Refusal, hardware_changes, technique_changes
    from perfmodel.planning.dossier import plan_report
    from perfmodel.scoring.deployments import deployed
    from perfmodel.scoring.validation import Published

    tried: list[Any] = []
    if not run.mixed:  # their gain is that of pools apart
        tried += technique_changes(run, catalog.techniques().values(), catalog.kernel_set)
        tried += hardware_changes(run, catalog.chips())
    chips = {pool.machine.chip.spec.name for pool in run.pools.values()}
    rows = [catalog.load_evidence(name).spec for name in catalog.names("evidence")]
    whole = [catalog.load_deployment(name).spec for name in catalog.names("deployments")]
    machines = {one.name: catalog.load_conditions(one.conditions) for one in (*rows, *whole)}
    models = {name: catalog.load_model(name).spec for name in {one.conditions.model for one in (*rows, *whole)}}
    return plan_report(
        spec,
        run,
        {phase: catalog.ideal(pool.machine).rates() for phase, pool in run.pools.items()},
        changes=[one for one in tried if not isinstance(one, Refusal)],
        refused=[one for one in tried if isinstance(one, Refusal)],
        published=[Published(spec=one, model=models[one.conditions.model], machine=machines[one.name]) for one in rows],
        deployed=[
            deployed(one, models[one.conditions.model], machines[one.name])
            for one in whole
            if machines[one.name].chip.spec.name in chips
            and not (one.conditions.mixed or one.conditions.prefill_system)
        ],
        front=_front(spec) if front else (),
    )


def _front(spec: Any) -> Any:
    """Return the front around the limit that the plan was searched under; nothing where there is no run or no limit."""
    from perfmodel.planning.planner import asking_of, front_of

    if spec.run is None or spec.run.tpot is None:
        return ()
    return front_of(asking_of(spec.run))
