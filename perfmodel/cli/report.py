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

    from perfmodel import catalog
    from perfmodel.cli.what_if import given_of
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
        report_of(plan, given.plan, given.run, front=front),
        Parts(**catalog.page_files(VOICE.language), shared=VOICE.say),
        file=Path(plan).name,
        remarks=given.remarks,
    )
    catalog.write_page(path, text, force=force)
    options.remark(f"{output}: written, {len(text.encode()) / 1e6:.1f} MB; open it in a browser")


def report_of(word: str, spec: Any, run: Any, *, front: bool) -> Any:
    """Return everything that the page of a plan shows.

    Raises ``UsageError`` for mixed serving and for pools on two systems.
    """
    from perfmodel import catalog
    from perfmodel.plan_report import plan_report
    from perfmodel.validation import Published, deployed
    from perfmodel.what_if import Refusal, hardware_changes, technique_changes

    if spec.conditions.mixed or spec.conditions.prefill_system:
        raise UsageError(
            f"{word}: mixed serving, or pools on two systems; allowed: two pools on one system; see moeplan explain "
            f"{word}"
        )
    tried = [*technique_changes(run, catalog.techniques().values(), catalog.kernel_set)]
    tried += hardware_changes(run, catalog.chips())
    chip = run.pools["decode"].machine.chip.spec.name
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
            if machines[one.name].chip.spec.name == chip and not (one.conditions.mixed or one.conditions.prefill_system)
        ],
        front=_front(spec) if front else (),
    )


def _front(spec: Any) -> Any:
    """Return the front around the limit that the plan was searched under; nothing where there is no run or no limit."""
    from perfmodel.planner import asking_of
    from perfmodel.solver.solve import front

    if spec.run is None or spec.run.tpot is None:
        return ()
    asking = asking_of(spec.run)
    return front(asking.case, asking.request, asking.cases["prefill"])
