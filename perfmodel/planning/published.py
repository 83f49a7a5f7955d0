"""Published results set up: each row with the model and the machine that are to predict it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from perfmodel.files import catalog
from perfmodel.files.folders import names
from perfmodel.files.machines import load_conditions
from perfmodel.planning.site import with_site
from perfmodel.scoring.deployments import Deployed, deployed
from perfmodel.scoring.favoured import FavouredCase, favoured
from perfmodel.scoring.gains import ScoredGain, merged, score
from perfmodel.scoring.left_out import known_without
from perfmodel.scoring.site import SiteRow, row_of_pool, rows_of_deployment
from perfmodel.scoring.spreads import FittedSpread, fit_spreads, miss
from perfmodel.scoring.summaries import counted
from perfmodel.scoring.validation import Published, Result, beside_left_out, predictive, scored
from perfmodel.specs.conditions import OF_MACHINE, Conditions
from perfmodel.specs.evidence import DeploymentSpec, EvidenceSpec
from perfmodel.specs.open_conditions import cases_of
from perfmodel.supply.machine import Machine
from perfmodel.supply.techniques import Technique, Techniques


def published(spec: EvidenceSpec, stack: str | None = None, kernels: Sequence[str] = ()) -> Published:
    """Return a row set up, under another stack or kernel sets where they are given."""
    model = catalog.load_model(spec.conditions.model).spec
    machines: dict[str, Machine] = {}  # cases that differ in their layout alone run on one

    def row(conditions: Conditions) -> Published:
        of_machine = repr([getattr(conditions, name) for name in OF_MACHINE])
        if of_machine not in machines:
            machines[of_machine] = load_conditions(conditions, stack, kernels)
        changed = spec.model_copy(update={"conditions": conditions})
        return Published(spec=changed, model=model, machine=machines[of_machine])

    cases = ((weight, words, row(case)) for weight, words, case in cases_of(spec.conditions, spec.open))
    return replace(row(spec.conditions), cases=tuple(cases) if spec.open else ())


def row_on_file(name: str) -> Published:
    """Return a row on file set up as it was published."""
    return published(catalog.load_evidence(name).spec)


def rows_on_file(stack: str | None = None, kernels: Sequence[str] = ()) -> list[Published]:
    """Return all rows on file."""
    return [published(catalog.load_evidence(name).spec, stack, kernels) for name in names("evidence")]


def deployments_on_file() -> list[DeploymentSpec]:
    """Return all published deployments on file."""
    return [catalog.load_deployment(name).spec for name in names("deployments")]


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
        told.append(row_of_pool(unread, alone))
    joined = []
    for spec in deployments:
        model, machine = (
            catalog.load_model(spec.conditions.model).spec,
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
    """Return what the model leaves out, as all that is on file tells it when predicted without its source."""
    rows, deployments = rows_on_file(), deployments_on_file()
    known = _known(rows, deployments, rows)
    results = [scored(row.on(known[row.source]), ranges_alone=True) for row in rows]
    joined = [
        deployed(
            spec,
            catalog.load_model(spec.conditions.model).spec,
            known[spec.source](load_conditions(spec.conditions)),
            ranges_alone=True,
        )
        for spec in deployments
    ]
    return fit_spreads([miss(one) for one in counted(results, joined)])


def _known(
    rows: Sequence[Published], deployments: Sequence[DeploymentSpec], on_file: Sequence[Published]
) -> dict[str, Callable[[Machine], Machine]]:
    """Return what gives machines as they are known without a source, for each source."""
    sources = dict.fromkeys([row.source for row in rows] + [spec.source for spec in deployments])
    return known_without(sources, on_file)


def scored_gains(chosen: Iterable[Technique], techniques: Techniques) -> list[ScoredGain]:
    """Return every published gain of some techniques beside the predicted one."""
    found = []
    for technique in chosen:
        for gain in technique.spec.gains:
            base = merged(catalog.load_evidence(gain.base).spec.conditions, gain.change)
            model = catalog.load_model(base.model).spec
            found.append(score(technique, gain, base, model, load_conditions(base), techniques))
    return found
