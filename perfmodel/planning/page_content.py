"""What the page of a plan shows, read and worked out: its report beside published results, changes and a front."""

from collections.abc import Iterator, Sequence

from perfmodel.files import catalog
from perfmodel.files.machines import ideal, load_chips, load_conditions
from perfmodel.planning.changes import Change, Refusal, hardware_changes, technique_changes
from perfmodel.planning.plan_report import PlanReport, plan_report
from perfmodel.planning.planner import front_of
from perfmodel.planning.pools import Run
from perfmodel.planning.published import deployments_on_file, rows_on_file
from perfmodel.planning.request import request_of
from perfmodel.scoring.deployments import Deployed, deployed
from perfmodel.solver.solution import FrontPoint
from perfmodel.specs.plan import PlanSpec


def page_content(plan: PlanSpec, run: Run, *, front: bool) -> PlanReport:
    """Return everything that the page of a plan shows."""
    tried: list[Change | Refusal] = []
    if not run.mixed:  # their gain is that of pools apart
        tried += technique_changes(run, catalog.load_techniques().values())
        tried += hardware_changes(run, load_chips())
    return plan_report(
        plan,
        run,
        {phase: ideal(pool.machine).rates() for phase, pool in run.pools.items()},
        changes=[one for one in tried if not isinstance(one, Refusal)],
        refused=[one for one in tried if isinstance(one, Refusal)],
        published=rows_on_file(),
        deployed=list(_deployed_on(run)),
        front=_front(plan) if front else (),
    )


def _deployed_on(run: Run) -> Iterator[Deployed]:
    """Yield published deployments on the chips of a run, of one system each, beside their predictions."""
    chips = {pool.machine.chip.spec.name for pool in run.pools.values()}
    for spec in deployments_on_file():
        machine = load_conditions(spec.conditions)
        if not spec.conditions.prefill_system and machine.chip.spec.name in chips:
            yield deployed(spec, catalog.load_model(spec.conditions.model, spec.conditions.max_context).spec, machine)


def _front(plan: PlanSpec) -> Sequence[FrontPoint]:
    """Return the front around the limit that a plan was searched under; nothing where there is no run or no limit."""
    if plan.run is None or plan.run.tpot is None:
        return ()
    return front_of(request_of(plan.run))
