"""What can be done to a run: other settings of techniques, and hardware of other figures."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import Any, Literal

from perfmodel.algebra import as_float
from perfmodel.planning.pools import Pool, Run
from perfmodel.prediction.techniques import inapplicable, setting_of, with_setting
from perfmodel.specs.base import Known, value_at, with_value
from perfmodel.specs.deployment import Phase
from perfmodel.specs.machine import ChipSpec
from perfmodel.specs.model import ModelSpec
from perfmodel.specs.technique import Setting
from perfmodel.supply.set_numbers import with_chip
from perfmodel.supply.techniques import BETWEEN, Technique, lacking

#: hardware figures that are raised by a tenth, and where they stand
RAISED = 0.1
FIGURES: dict[str, tuple[str, tuple[str, ...]]] = {
    "memory rate, with what the cores stream": ("chip", ("die.hbm.bandwidth", "die.hbm.core_bytes_per_cycle")),
    "memory size": ("chip", ("die.hbm.capacity",)),
    "cube peak": ("chip", tuple(f"die.cube_flop_per_cycle.{unit}" for unit in ("bf16", "int8", "fp8", "fp4"))),
    "vector peak": ("chip", ("die.vector_flop_per_cycle.fp32",)),
    "L2 rate": ("chip", ("die.l2.core_read_bytes_per_cycle",)),
    "link rates": ("system", ("tiers",)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something that can be done to a run; it raises ``UsageError`` where it cannot."""

    name: str
    setting: str
    now: str
    acts_on: str
    phases: tuple[Phase, ...]
    #: who can make it
    by: Literal["layout", "stack", "to build", "traffic", "bound", "hardware"]
    apply: Callable[[Pool], Pool] = field(repr=False)
    #: keys of a layout that it sets; changes that share one exclude each other
    keys: frozenset[str] = frozenset()

    @property
    def label(self) -> str:
        """Name and setting."""
        return f"{self.name}={self.setting}"

    def excludes(self, other: "Change") -> bool:
        """Return whether two changes are settings of one thing."""
        return self.name == other.name or bool(self.keys & other.keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A change that cannot be made here, and the rule."""

    change: Change
    why: str


def changed(run: Run, changes: Iterable[Change]) -> Run:
    """Return a run with changes made to the pools they act on."""
    pools = dict(run.pools)
    for change in changes:
        for phase in change.phases:
            pools[phase] = change.apply(pools[phase])
    return replace(run, pools=pools)


def technique_changes(run: Run, techniques: Iterable[Technique]) -> Iterator[Change | Refusal]:
    """Yield every other setting of every technique, and those that cannot act on any pool with the rule."""
    for technique in techniques:
        spec = technique.spec
        current = {
            phase: setting_of(technique, pool.conditions, pool.conditions.layout, pool.machine, run.model)
            for phase, pool in run.pools.items()
        }
        first = next(iter(spec.settings))
        for name, setting in spec.settings.items():
            reasons, phases = [], []
            for phase, pool in run.pools.items():
                reason = inapplicable(spec.applies, run.model, pool.machine, phase, pool.conditions.layout)
                started = current[phase] != BETWEEN or name != first  # without what it never was says nothing
                if reason is None and name != current[phase] and started:
                    phases.append(phase)
                elif reason is not None:
                    reasons.append(f"{phase}: {reason}")
            here = tuple(phases)
            change = Change(
                name=spec.name,
                setting=name,
                now=", ".join(dict.fromkeys(current[phase] for phase in here or current)),
                acts_on=spec.acts_on,
                phases=here,
                by=_by(technique, name, setting, run),
                apply=_setter(technique, name, run.model),
                keys=frozenset(setting.layout),
            )
            if here:
                yield change
            elif len(reasons) == len(run.pools):
                yield Refusal(change=change, why="; ".join(reasons))
                break


def _setter(technique: Technique, name: str, model: ModelSpec) -> Callable[[Pool], Pool]:
    def apply(pool: Pool) -> Pool:
        conditions, machine = with_setting(technique, name, pool.conditions, pool.machine, model)
        return replace(pool, conditions=conditions, machine=machine)

    return apply


def _by(technique: Technique, name: str, setting: Setting, run: Run) -> Any:
    """Return who can make a change: it is a choice of layout, in the stack, to be built, of the traffic, or a bound."""
    if setting.bound:
        return "bound"
    if technique.spec.traffic:
        return "traffic"
    if technique.spec.free:
        return "layout"
    return "to build" if any(lacking(technique, name, pool.machine) for pool in run.pools.values()) else "stack"


def hardware_changes(run: Run, chips: Iterable[Known[ChipSpec]]) -> Iterator[Change]:
    """Yield each hardware figure raised by a tenth, and each other chip of as many dies with as much memory."""
    phases = tuple(run.pools)
    for name, (part, paths) in FIGURES.items():
        specs = [getattr(pool.machine, part).spec for pool in run.pools.values()]
        had = [path for path in paths if any(value_at(spec, path) is not None for spec in specs)]
        yield Change(
            name=name,
            setting=f"+{RAISED:.0%}",
            now="as it is",
            acts_on=f"{part}: {', '.join(had)}",
            phases=phases,
            by="hardware",
            apply=partial(_raised, part=part, paths=tuple(had)),
        )
    heres = {pool.machine.chip.spec.name: pool.machine.chip.spec for pool in run.pools.values()}
    for chip, here in product(chips, heres.values()):
        spec = chip.spec
        alike = spec.package == here.package and spec.die.hbm.capacity == here.die.hbm.capacity
        if alike and spec.name != here.name:
            yield Change(
                name="chip",
                setting=spec.name,
                now=here.name,
                acts_on="all peaks of the die",
                phases=tuple(phase for phase in phases if run.pools[phase].machine.chip.spec.name == here.name),
                by="hardware",
                apply=partial(_with_chip, chip=chip),
            )


def _raised(pool: Pool, part: str, paths: tuple[str, ...]) -> Pool:
    known = getattr(pool.machine, part)
    spec = known.spec
    for path in paths:
        if path == "tiers":
            tiers = [tier.model_copy(update={"bandwidth": tier.bandwidth * (1 + RAISED)}) for tier in spec.tiers]
            spec = spec.model_copy(update={"tiers": tuple(tiers)})
            continue
        if (value := value_at(spec, path)) is not None:
            spec = with_value(spec, path.split("."), as_float(value) * (1 + RAISED))
    return replace(pool, machine=replace(pool.machine, **{part: replace(known, spec=spec)}))


def _with_chip(pool: Pool, chip: Known[ChipSpec]) -> Pool:
    return replace(pool, machine=with_chip(pool.machine, chip))
