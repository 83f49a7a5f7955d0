"""Published results scored, with all that is on file and as if the source of each had never been read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from perfmodel.files import catalog
from perfmodel.files.machines import load_conditions
from perfmodel.planning.published import deployments_on_file, rows_on_file
from perfmodel.planning.site import with_site
from perfmodel.scoring.deployments import Deployed, deployed
from perfmodel.scoring.favoured import FavouredCase, favoured
from perfmodel.scoring.left_out import known_without
from perfmodel.scoring.site import SiteRow, rows_of_deployment, rows_of_pool
from perfmodel.scoring.spreads import FittedSpread, fit_spreads
from perfmodel.scoring.validation import Published, Result, beside_left_out, predictive, scored
from perfmodel.specs.evidence import DeploymentSpec
from perfmodel.supply.machine import Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Published results scored, and what each tells when it is predicted as if its source had never been read."""

    results: list[Result]
    deployed: list[Deployed]
    told: list[SiteRow]
    #: which cases of open conditions the measurements favour
    cases: list[FavouredCase]


def scores(
    rows: Sequence[Published],
    deployments: Sequence[DeploymentSpec],
    on_file: Sequence[Published],
    stack: str | None = None,
    kernels: Sequence[str] = (),
    site: Sequence[str] = (),
) -> Scores:
    """Return rows and deployments scored, with all on file and as if the source of each had never been read.

    The former at a site where one is given: each is predicted from the others of its rows.
    Raises ``UsageError`` as ``scored`` and ``deployed`` do.
    """
    known = _known(rows, deployments, on_file)
    results, told = [], []
    cases: list[FavouredCase] = []
    for row in rows:
        at_site = partial(with_site, names=site, measured_on=row.spec.measured_on, without=row.name)
        unread = row.on(known[row.source])
        predicted_whole, alone = predictive(row), predictive(unread)
        found = scored(row.on(at_site)) if site else scored(row, predicted_whole)
        without = scored(unread, alone)
        cases += favoured(row, predicted_whole)
        results.append(replace(found, scores=beside_left_out(found.scores, without.scores)))
        told += rows_of_pool(unread, alone)
    joined = []
    for spec in deployments:
        model, machine = (
            catalog.load_model(spec.conditions.model, spec.conditions.max_context).spec,
            load_conditions(spec.conditions, stack, kernels),
        )
        there, unread_machine = (
            with_site(machine, site, spec.measured_on, without=spec.name),
            known[spec.source](machine),
        )
        whole, less = deployed(spec, model, there), deployed(spec, model, unread_machine)
        joined.append(replace(whole, scores=beside_left_out(whole.scores, less.scores)))
        told += rows_of_deployment(less, unread_machine)
    return Scores(results=results, deployed=joined, told=told, cases=cases)


def spreads_left_out() -> dict[str, FittedSpread]:
    """Return what the model leaves out, as all that is on file tells it when predicted without its source.

    Rows of attention of which no kernel is measured have a spread of their own besides, and tell nothing of this one.
    """
    rows, deployments = rows_on_file(), deployments_on_file()
    known = _known(rows, deployments, rows)
    told = [one for row in rows if row.model.reads_all_it_keeps for one in rows_of_pool(row.on(known[row.source]))]
    for spec in deployments:
        model, machine = (
            catalog.load_model(spec.conditions.model, spec.conditions.max_context).spec,
            known[spec.source](load_conditions(spec.conditions)),
        )
        if model.reads_all_it_keeps:
            told += rows_of_deployment(deployed(spec, model, machine), machine)
    return fit_spreads([row.miss for row in told])


def _known(
    rows: Sequence[Published], deployments: Sequence[DeploymentSpec], on_file: Sequence[Published]
) -> dict[str, Callable[[Machine], Machine]]:
    """Return what gives machines as they are known without a source, for each source."""
    sources = dict.fromkeys([row.source for row in rows] + [spec.source for spec in deployments])
    return known_without(sources, on_file)
