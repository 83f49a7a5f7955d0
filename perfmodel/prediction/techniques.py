"""Techniques in a run: set on its conditions, told from them, refused where they cannot act."""

from typing import Any

from perfmodel.algebra import as_float
from perfmodel.errors import UsageError
from perfmodel.specs.base import value_at
from perfmodel.specs.conditions import Conditions, Service
from perfmodel.specs.deployment import LayoutShape
from perfmodel.specs.model import ModelSpec
from perfmodel.specs.technique import SHARE, SLOTS, Applies, Setting, replicas, share_of_dies
from perfmodel.supply.machine import Machine
from perfmodel.supply.techniques import BETWEEN, Technique, with_technique


def with_setting(
    technique: Technique, name: str, conditions: Conditions, machine: Machine, model: ModelSpec
) -> tuple[Conditions, Machine]:
    """Return the conditions of a run of one pool, and its machine, with a technique in another setting.

    Replicas are filled up anew where the technique moves experts to other dies, and what belongs to another
    overlap goes with it.
    """
    setting = technique.setting(name)
    layout = {key: layout_value(value, conditions.layout, model) for key, value in setting.layout.items()}
    if "overlap" in layout:
        layout = {**_of_overlap(layout["overlap"], conditions.layout, machine), **layout}
    moved = conditions.layout.model_copy(update=layout)
    places = layout.keys() & {"shared_ranks", "expert_dies", "expert_tp"}
    if any(layout[key] != getattr(conditions.layout, key) for key in places):
        moved = moved.model_copy(update={"redundant": _filled(moved, model, 0)})
    others = {key: word for key, word in conditions.techniques.items() if key != technique.spec.name}
    named = {**others, technique.spec.name: name} if setting.on_machine else others
    changed = conditions.model_copy(update={**setting.service, "layout": moved, "techniques": named})
    return changed, with_technique(machine, technique, name)


USUAL_SHARE = 2 / 3  # of the cores for attention where a split is new; whoever searches tries them all


def _of_overlap(overlap: str, layout: LayoutShape, machine: Machine) -> dict[str, Any]:
    """Return the keys that belong to an overlap as they stand, and those of others as they are without."""
    cores = layout.attention_cores or round(as_float(machine.rates().cube_cores) * USUAL_SHARE)
    stages = overlap == "stages"
    return {
        "attention_cores": cores if overlap == "cores" else 0,
        "expert_dies": layout.expert_dies if stages else 0,
        "domains": layout.domains if stages else 1,
        "micro_batches": layout.micro_batches if stages else 2,
        "shared_stream": layout.shared_stream and overlap in ("none", "cores"),
    }


def layout_value(value: Any, layout: LayoutShape, model: ModelSpec) -> Any:
    """Return a value of a layout key; a share of the dies in whole eights where that is possible."""
    if isinstance(value, str) and SHARE.fullmatch(value):
        return share_of_dies(value, layout.dies)
    return _filled(layout, model, SLOTS.index(value)) if value in SLOTS else value


def _filled(layout: LayoutShape, model: ModelSpec, more: int) -> int:
    ranks = (layout.expert_dies or layout.dies) - layout.shared_ranks
    if ranks < 1:
        raise UsageError(f"shared_ranks: {layout.shared_ranks} leave no die for routed experts; allowed: fewer")
    return replicas(max(1, ranks // layout.expert_tp), model.n_routed_experts, more)


def setting_of(
    technique: Technique, conditions: Service, layout: LayoutShape, machine: Machine, model: ModelSpec
) -> str:
    """Return the setting that a run of a layout on a machine is in; ``BETWEEN`` where none fits.

    Of several that fit, the one that fixes most.
    """
    fitting = [
        (sum(map(len, (one.layout, one.service, one.stack, one.terms, one.kernels))), name)
        for name, one in technique.spec.settings.items()
        if _holds(one, conditions, layout, machine, model)
    ]
    return max(fitting, key=lambda pair: pair[0])[1] if fitting else BETWEEN


def _holds(setting: Setting, conditions: Service, layout: LayoutShape, machine: Machine, model: ModelSpec) -> bool:
    if any(getattr(layout, key) != layout_value(value, layout, model) for key, value in setting.layout.items()):
        return False
    if any(getattr(conditions, key) != value for key, value in setting.service.items()):
        return False
    for part, values in ((machine.stack, setting.stack), (machine.terms, setting.terms)):
        if any(value_at(part.spec, path) != value for path, value in values.items()):
            return False
    if not setting.kernels:
        return True
    chosen = machine.kernels_of()
    return all(chosen[operator].spec.name == name for operator, name in setting.kernels.items())


def inapplicable(applies: Applies, model: ModelSpec, machine: Machine, phase: str, layout: LayoutShape) -> str | None:
    """Return why a technique cannot act on a phase of a layout of a machine, or nothing where it can."""
    reason = unsupported(applies, model, machine, phase)
    if reason is not None:
        return reason
    rule = f" ({applies.rule})" if applies.rule else ""
    if layout.tp <= applies.tp_over:
        return f"needs tp over {applies.tp_over}{rule}"
    for key, allowed in applies.layout.items():
        if getattr(layout, key) not in allowed:
            return f"needs {key} {' or '.join(map(str, allowed))}, has {getattr(layout, key)}{rule}"
    return None


def unsupported(applies: Applies, model: ModelSpec, machine: Machine, phase: str) -> str | None:
    """Return why a technique cannot act on a phase of any layout of a model on a machine, or nothing where it can."""
    if phase not in applies.phases:
        return f"acts in {' and '.join(applies.phases)} only"
    if not set(model.attention_names) & set(applies.attention):
        return f"needs {' or '.join(applies.attention)} attention"
    if applies.drafts and not model.num_nextn_predict_layers:
        return "needs a draft (MTP) layer"
    if applies.shared_expert and not model.n_shared_experts:
        return "needs a shared expert"
    links = {tier.link for tier in machine.system.spec.tiers}
    if applies.links and not links & set(applies.links):
        return f"needs {' or '.join(applies.links)} links"
    return None
