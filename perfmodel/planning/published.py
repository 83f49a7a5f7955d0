"""Published results set up: each row with the model and the machine that are to predict it."""

from collections.abc import Iterable, Sequence

from perfmodel.files import catalog
from perfmodel.files.folders import names
from perfmodel.files.machines import load_conditions
from perfmodel.scoring.deployments import Deployed, deployed
from perfmodel.scoring.gains import ScoredGain, merged, score
from perfmodel.scoring.validation import Published
from perfmodel.specs.evidence import DeploymentSpec, EvidenceSpec
from perfmodel.supply.techniques import Technique, Techniques


def published(spec: EvidenceSpec, stack: str | None = None, kernels: Sequence[str] = ()) -> Published:
    """Return a row set up, under another stack or kernel sets where they are given."""
    model = catalog.load_model(spec.conditions.model).spec
    return Published(spec=spec, model=model, machine=load_conditions(spec.conditions, stack, kernels))


def row_on_file(name: str) -> Published:
    """Return a row on file set up as it was published."""
    return published(catalog.load_evidence(name).spec)


def rows_on_file(stack: str | None = None, kernels: Sequence[str] = ()) -> list[Published]:
    """Return all rows on file."""
    return [published(catalog.load_evidence(name).spec, stack, kernels) for name in names("evidence")]


def deployments_on_file() -> list[DeploymentSpec]:
    """Return all published deployments on file."""
    return [catalog.load_deployment(name).spec for name in names("deployments")]


def scored_deployment(spec: DeploymentSpec, stack: str | None = None, kernels: Sequence[str] = ()) -> Deployed:
    """Return a published deployment beside its prediction; raises ``UsageError`` as ``deployed`` does."""
    model = catalog.load_model(spec.conditions.model).spec
    return deployed(spec, model, load_conditions(spec.conditions, stack, kernels))


def scored_gains(chosen: Iterable[Technique], techniques: Techniques) -> list[ScoredGain]:
    """Return every published gain of some techniques beside the predicted one."""
    found = []
    for technique in chosen:
        for gain in technique.spec.gains:
            base = merged(catalog.load_evidence(gain.base).spec.conditions, gain.change)
            model = catalog.load_model(base.model).spec
            found.append(score(technique, gain, base, model, load_conditions(base), techniques))
    return found
