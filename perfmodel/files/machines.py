"""Whole machines from their files: a system with its chip, stack, terms and kernel sets, techniques set."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from perfmodel.files.catalog import (
    load_chip,
    load_kernels,
    load_stack,
    load_system,
    load_technique,
    load_terms,
)
from perfmodel.files.folders import names
from perfmodel.specs.base import Known
from perfmodel.specs.conditions import Service
from perfmodel.specs.machine import ChipSpec
from perfmodel.supply.machine import Machine
from perfmodel.supply.set_numbers import with_numbers
from perfmodel.supply.techniques import on_machine


def load_chips() -> list[Known[ChipSpec]]:
    """Return all chips on file."""
    return [load_chip(name) for name in names("chips")]


def load_machine(system: str, stack: str | None = None, kernels: Sequence[str] = ()) -> tuple[Machine, tuple[str, ...]]:
    """Return the specs of a system under a stack, by default its own, and remarks on what was taken.

    ``kernels`` are sets that come before those of the stack.
    """
    around = load_system(system)
    chip, software = load_chip(around.spec.chip), load_stack(stack or around.spec.default_stack)
    taken = Machine(
        chip=chip,
        system=around,
        stack=software,
        terms=load_terms(software.spec.terms),
        kernels=tuple(load_kernels(name) for name in (*kernels, *software.spec.kernels)),
    )
    carried = tuple(
        f"kernels {known.spec.name}: carried over from {known.spec.carried_from} to {known.spec.chip}, on which none "
        "is measured; what they are worth there is assumed"
        for known in taken.kernels
        if known.spec.carried_from is not None
    )
    return taken, (*around.notes, *chip.notes, *software.notes, *carried)


def load_conditions(conditions: Service, stack: str | None = None, kernels: Sequence[str] = ()) -> Machine:
    """Return the machine of a run with its techniques and numbers set, with another stack or kernels where given."""
    machine, _ = load_machine(conditions.system, stack or conditions.stack, kernels or conditions.kernels)
    machine = set_techniques(machine.with_memory_share(conditions.memory_share), conditions.techniques)
    return with_numbers(machine, conditions.set)


def set_techniques(machine: Machine, wanted: Mapping[str, str]) -> Machine:
    """Return the machine with techniques set by name; raise ``UsageError`` where a name is not on file."""
    if not wanted:
        return machine
    return on_machine(machine, [(load_technique(name), setting) for name, setting in wanted.items()])


def ideal(machine: Machine) -> Machine:
    """Return the same machine under the stack on file that has all efficiencies 1 and no fixed costs."""
    best = next(known for known in map(load_stack, names("stacks")) if known.spec.ideal)
    sets = tuple(load_kernels(name) for name in best.spec.kernels)
    return replace(machine, stack=best, terms=load_terms(best.spec.terms), kernels=sets, site=None, set_numbers=())
