"""Which layouts were published for a model on a system: the question is asked again with each given."""

from collections.abc import Iterator, Mapping
from itertools import product

from perfmodel.files import catalog
from perfmodel.planning.choices import settings_in
from perfmodel.prediction.layouts import overlaps
from perfmodel.prediction.scenario import FASTEST
from perfmodel.prediction.techniques import layout_value
from perfmodel.solver.given_layouts import Given
from perfmodel.solver.space import Choices
from perfmodel.specs.conditions import Conditions, LayoutConditions
from perfmodel.specs.deployment import PHASES, LayoutShape, Phase
from perfmodel.specs.evidence import DeploymentSpec, EvidenceSpec
from perfmodel.specs.machine import SystemSpec
from perfmodel.specs.model import ModelSpec
from perfmodel.specs.open_conditions import cases_of
from perfmodel.supply.machine import Machine
from perfmodel.supply.techniques import Techniques, lacking

Row = EvidenceSpec | DeploymentSpec
#: a layout of each pool that a row tells of
Layouts = dict[Phase, LayoutShape]


def published_layouts(
    model: ModelSpec, machines: Mapping[Phase, Machine], choices: Choices, techniques: Techniques
) -> tuple[Given, ...]:
    """Return each distinct layout of the rows on file of a model on the systems asked for, or on their chips.

    Batches are left out: they follow from the question.  What a source leaves open of a layout is cases of it.
    """
    rows: dict[str, list[str]] = {}
    cases: dict[str, dict[str, Layouts]] = {}
    of_layouts = {
        name: one for name, one in techniques.items() if any(setting.layout for setting in one.spec.settings.values())
    }
    for row in _rows(model, machines):
        found = {repr(sorted(one.items())): one for one in _layouts(row)}
        if found:
            stated = next(iter(found))
            rows.setdefault(stated, []).append(row.name)
            known = cases.setdefault(stated, found)
            if 1 in (len(known), len(found)):  # one row leaves nothing open of what others do
                cases[stated] = {stated: found[stated]}
    given = []
    for key, of_key in cases.items():
        layouts = list(of_key.values())
        faults = [_lacking(one, machines, model, choices, of_layouts) for one in layouts]
        runs = [one for one, fault in zip(layouts, faults, strict=True) if not fault]
        given.append(Given(rows=tuple(rows[key]), cases=tuple(runs or layouts), lacking="" if runs else faults[0]))
    return tuple(given)


def _rows(model: ModelSpec, machines: Mapping[Phase, Machine]) -> list[Row]:
    """Return the rows of a model on the systems of its pools, those on other systems of the same chips last."""
    same: list[Row] = []
    alike: list[Row] = []
    chips = {machine.system.spec.chip for machine in machines.values()}
    systems = [name for name in catalog.naming("systems", (chips,)) if catalog.load_system(name).spec.chip in chips]
    words = ((model.name,), systems)
    rows: list[Row] = [catalog.load_evidence(name).spec for name in catalog.naming("evidence", words)]
    rows += [catalog.load_deployment(name).spec for name in catalog.naming("deployments", words)]
    for row in rows:
        if row.conditions.model != model.name:
            continue
        pairs = [(machines[phase].system.spec, _system(row, phase)) for phase in _phases(row)]
        if all(asked.name == published.name for asked, published in pairs):
            same.append(row)
        elif all(asked.chip == published.chip for asked, published in pairs):
            alike.append(row)
    return [*same, *alike]


def _phases(row: Row) -> tuple[Phase, ...]:
    return (row.conditions.phase,) if isinstance(row, EvidenceSpec) else PHASES


def _system(row: Row, phase: Phase) -> SystemSpec:
    name = row.conditions.system
    if isinstance(row, DeploymentSpec) and phase == "prefill":
        name = row.conditions.prefill_system or name
    return catalog.load_system(name).spec


def _layouts(row: Row) -> Iterator[Layouts]:
    """Yield the layouts of each case of a row; none of instances that run both phases in turn."""
    for _, _, conditions in cases_of(row.conditions, row.open):
        if isinstance(conditions, Conditions):
            for one in _shapes(conditions.layout, conditions.phase):
                yield {conditions.phase: one}
        elif not conditions.mixed:
            each = (_shapes(conditions.prefill.layout, "prefill"), _shapes(conditions.decode.layout, "decode"))
            for prefill, decode in product(*each):
                yield {"prefill": prefill, "decode": decode}


def _shapes(layout: LayoutConditions, phase: Phase) -> Iterator[LayoutShape]:
    """Yield a layout without its batch, with each overlap that is searched where the row takes the fastest."""
    values = layout.model_dump(exclude={"batch"})
    open_ = [one for one in overlaps(phase) if one != "stages"] if layout.overlap == FASTEST else [layout.overlap]
    for overlap in open_:
        yield LayoutShape(**{**values, "overlap": overlap})


def _lacking(
    layouts: Layouts, machines: Mapping[Phase, Machine], model: ModelSpec, choices: Choices, techniques: Techniques
) -> str:
    """Return what of layouts the stacks asked for lack, or the question fixes otherwise; nothing where they run."""
    faults = []
    for phase, layout in layouts.items():
        machine = machines[phase]
        conditions = Conditions.model_construct(
            layout=layout,
            precision=choices.precision,
            kv_dtype=choices.kv_dtypes[0],
            expert_weights=choices.expert_weights,
            techniques={},
        )
        held = settings_in(conditions, machine, model, techniques)
        faults += [
            f"{name} {setting}: not in {machine.stack.spec.name}"
            for name, setting in held.items()
            if techniques[name].setting(setting).layout and lacking(techniques[name], setting, machine)
        ]
        faults += [
            f"{key} {getattr(layout, key)}: {value} is asked for"
            for key, value in choices.fixed.get(phase, {}).items()
            if getattr(layout, key) != layout_value(value, layout, model)
        ]
    return "; ".join(faults)
