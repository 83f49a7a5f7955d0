"""Published results set up: each row with the model and the machine that are to predict it."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache

from perfmodel.files import catalog
from perfmodel.files.folders import names, of_roots
from perfmodel.files.machines import load_conditions
from perfmodel.scoring.gains import ScoredGain, merged, score
from perfmodel.scoring.validation import Published
from perfmodel.specs.conditions import OF_MACHINE, Conditions
from perfmodel.specs.evidence import DeploymentSpec, EvidenceSpec
from perfmodel.specs.open_conditions import cases_of
from perfmodel.supply.machine import Machine
from perfmodel.supply.techniques import Technique, Techniques


def published(spec: EvidenceSpec, stack: str | None = None, kernels: Sequence[str] = ()) -> Published:
    """Return a row set up, under another stack or kernel sets where they are given."""
    model = catalog.load_model(spec.conditions.model, spec.conditions.max_context).spec
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
    """Return all rows on file: set up once for each stack and kernel sets, with what was evaluated of them since."""
    return list(_rows_on_file(stack, tuple(kernels)))


@of_roots
@lru_cache(maxsize=4)
def _rows_on_file(stack: str | None, kernels: tuple[str, ...]) -> tuple[Published, ...]:
    return tuple(published(catalog.load_evidence(name).spec, stack, kernels) for name in names("evidence"))


def deployments_on_file() -> list[DeploymentSpec]:
    """Return all published deployments on file."""
    return [catalog.load_deployment(name).spec for name in names("deployments")]


def scored_gains(chosen: Iterable[Technique], techniques: Techniques) -> list[ScoredGain]:
    """Return every published gain of some techniques beside the predicted one."""
    found = []
    for technique in chosen:
        for gain in technique.spec.gains:
            base = merged(catalog.load_evidence(gain.base).spec.conditions, gain.change)
            model = catalog.load_model(base.model, base.max_context).spec
            found.append(score(technique, gain, base, model, load_conditions(base), techniques))
    return found
