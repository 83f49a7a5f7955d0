"""A user's site: rows measured there, and machines as they are known there."""

from collections.abc import Sequence
from functools import lru_cache

from perfmodel.files import catalog
from perfmodel.files.folders import of_roots
from perfmodel.files.machines import load_conditions
from perfmodel.files.results import find
from perfmodel.planning.published import published
from perfmodel.scoring.deployments import deployed
from perfmodel.scoring.site import SiteRow, at_site, rows_of_deployment, rows_of_pool
from perfmodel.specs.conditions import Service
from perfmodel.supply.machine import Machine

KINDS = ("evidence", "deployments")


@of_roots
@lru_cache(maxsize=256)
def _rows(name: str) -> tuple[str, str, tuple[SiteRow, ...]]:
    """Return the file of a row, the system it ran on, and what it tells."""
    kind, known = find(name, KINDS)
    spec = known.spec
    if kind == "evidence":
        row = published(spec)
        return known.file, row.machine.system.spec.name, tuple(rows_of_pool(row))
    model, machine = (
        catalog.load_model(spec.conditions.model, spec.conditions.max_context).spec,
        load_conditions(spec.conditions),
    )
    rows = rows_of_deployment(deployed(spec, model, machine), machine)
    return known.file, machine.system.spec.name, tuple(rows)


def with_site(machine: Machine, names: Sequence[str], measured_on: str = "service", without: str = "") -> Machine:
    """Return a machine as it is known where rows were measured, by name or file; as it is where none are given.

    A row named ``without`` is left out: it is what is to be predicted.  Raises ``UsageError`` where a name is not on
    file, ``DataError`` where a file has faults.
    """
    found = [_rows(name) for name in names]
    rows = [row for _, _, some in found for row in some if row.name != without]
    if not rows:
        return machine
    return at_site(machine, rows, {row.name: file for file, _, some in found for row in some}, measured_on)


def files_of(names: Sequence[str]) -> list[str]:
    """Return the files of a site's rows, as a plan names them."""
    return [_rows(name)[0] for name in names]


def strange(machine: Machine, names: Sequence[str]) -> list[str]:
    """Return a remark for each row of a site that was measured on another system."""
    here = machine.system.spec.name
    return [
        f"{row.name}: measured on {system}; what it tells is taken for {here} all the same"
        for _, system, rows in map(_rows, names)
        for row in rows[:1]
        if system != here
    ]


def machine_of(conditions: Service, stack: str | None = None, measured_on: str = "service") -> Machine:
    """Return the machine of a run with its techniques set, as it is known at the run's site."""
    return with_site(load_conditions(conditions, stack), conditions.site, measured_on)
