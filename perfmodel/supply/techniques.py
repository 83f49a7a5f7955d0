"""Techniques on a machine: read with the kernel sets they name, set on its software, and which its stack lacks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from perfmodel.errors import UsageError, did_you_mean
from perfmodel.specs.base import Known, with_value
from perfmodel.specs.kernels import KernelSetSpec
from perfmodel.specs.technique import Setting, TechniqueSpec
from perfmodel.supply.machine import Machine, Software
from perfmodel.supply.set_numbers import again, without_numbers

#: of a technique that none of its settings describes as it is; plan files hold the word
BETWEEN = "mixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Technique:
    """A technique with where each of its numbers came from, and the kernel sets that its settings name."""

    known: Known[TechniqueSpec]
    kernel_sets: Mapping[str, Known[KernelSetSpec]]

    @property
    def spec(self) -> TechniqueSpec:
        """What its file says."""
        return self.known.spec

    def setting(self, name: str) -> Setting:
        """Return a setting by name; raise ``UsageError`` where there is none of that name."""
        if name not in self.spec.settings:
            known = list(self.spec.settings)
            raise UsageError(f"technique {self.spec.name}: {name!r} is no setting{did_you_mean(name, known)}")
        return self.spec.settings[name]


#: techniques that were read, by name
Techniques = Mapping[str, Technique]


def named(techniques: Techniques, name: str) -> Technique:
    """Return a technique by its name; raise ``UsageError`` where none has it."""
    if name.lower() not in techniques:
        raise UsageError(f"technique: {name!r} is not on file{did_you_mean(name, sorted(techniques))}")
    return techniques[name.lower()]


def on_machine(machine: Machine, techniques: Iterable[tuple[Technique, str]]) -> Machine:
    """Return the machine with techniques set; numbers keep their sources."""
    for technique, name in techniques:
        machine = with_technique(machine, technique, name)
    return machine


def with_technique(machine: Machine, technique: Technique, name: str) -> Machine:
    """Return the machine as its files have it with all that was set, this technique anew, set on it again.

    Numbers that were set by hand come last: they are over what techniques say.
    """
    numbers = machine.given_numbers
    machine = without_numbers(machine)
    plain = machine.plain or Software(stack=machine.stack, terms=machine.terms, kernels=machine.kernels)
    settings = {**machine.settings, technique.spec.name: (technique, name)}
    bare = replace(machine, stack=plain.stack, terms=plain.terms, kernels=plain.kernels)
    for one, chosen in settings.values():
        bare = _changed_by(bare, one, chosen)
    return again(replace(bare, plain=plain, settings=settings), numbers)


def _changed_by(machine: Machine, technique: Technique, name: str) -> Machine:
    setting = technique.setting(name)
    stack = _changed(machine.stack, setting.stack, technique, f"settings.{name}.stack")
    terms = _changed(machine.terms, setting.terms, technique, f"settings.{name}.terms")
    sets = [_only(technique.kernel_sets[chosen], operator) for operator, chosen in setting.kernels.items()]
    return replace(machine, stack=stack, terms=terms, kernels=(*sets, *machine.kernels))


def _changed(part: Known[Any], values: Mapping[str, Any], technique: Technique, where: str) -> Known[Any]:
    """Return a part of the machine with some of its numbers replaced, and the figures of the new ones."""
    spec, figures = part.spec, dict(part.figures)
    for path, value in values.items():
        spec = with_value(spec, path.split("."), value)
        figures.pop(path, None)
        figure = technique.known.figures.get(f"{where}.{path}")
        if figure is not None:
            figures[path] = figure
    return replace(part, spec=spec, figures=figures) if values else part


def _only(known: Known[KernelSetSpec], operator: str) -> Known[KernelSetSpec]:
    """Return a kernel set that gives one operator class alone."""
    others = {name: None for name in known.spec.classes() if name != operator}
    figures = {path: figure for path, figure in known.figures.items() if path.split(".")[0] not in others}
    return replace(known, spec=known.spec.model_copy(update=others), figures=figures)


def lacking(technique: Technique, setting: str, machine: Machine) -> bool:
    """Return whether a setting of a technique needs software that the machine's stack does not have.

    What is a choice of layout, and being without a technique, needs none.
    """
    spec, stack = technique.spec, machine.stack.spec
    if spec.free or stack.ideal or setting in (BETWEEN, next(iter(spec.settings))) or spec.settings[setting].plain:
        return False
    return spec.name not in {one.name for one in stack.techniques}
