"""What a search goes over: what techniques fix for it, and what the stacks leave it to choose."""

from collections.abc import Iterable, Mapping
from typing import Any

from perfmodel.errors import UsageError
from perfmodel.files.catalog import load_stack
from perfmodel.files.folders import names
from perfmodel.prediction.precisions import precision_faults, stand_ins, stored_otherwise
from perfmodel.prediction.techniques import setting_of, unsupported
from perfmodel.solver.space import Choices
from perfmodel.specs.conditions import Conditions
from perfmodel.specs.deployment import LayoutShape, Phase
from perfmodel.specs.model import ModelSpec
from perfmodel.specs.precision import USUAL, KvDtype, form_of, keys_of
from perfmodel.supply.machine import Machine
from perfmodel.supply.techniques import BETWEEN, Techniques, lacking, named

#: keys of a layout that a search takes from what the stack has
OFFERED_KEYS = ("reduction", "shared_stream", "expert_tp")


def refuse_lacking(wanted: Mapping[str, str], machine: Machine, techniques: Techniques) -> None:
    """Raise ``UsageError`` with a line for each technique that the machine's stack does not have."""
    faults = []
    for name, setting in wanted.items():
        technique = named(techniques, name)
        technique.setting(setting)
        if lacking(technique, setting, machine):
            having = [one for one in names("stacks") if name in {t.name for t in load_stack(one).spec.techniques}]
            source = technique.spec.sources[technique.spec.named_by].title if technique.spec.named_by else ""
            faults.append(
                f"technique {name}={setting}: stack {machine.stack.spec.name} lacks it; allowed: stacks "
                f"{', '.join(having) or 'of your own'} ({source}); choose one with --stack, or see what it would be "
                "worth with moeplan what-if"
            )
    if faults:
        raise UsageError("\n".join(faults))


def settings_in(conditions: Conditions, machine: Machine, model: ModelSpec, techniques: Techniques) -> dict[str, str]:
    """Return the setting of every technique in a run of one pool; those that no setting describes are left out."""
    found = {name: setting_of(one, conditions, conditions.layout, machine, model) for name, one in techniques.items()}
    return {name: setting for name, setting in found.items() if setting != BETWEEN}


def choices_of(
    wanted: Mapping[str, str],
    machine: Machine,
    model: ModelSpec,
    kv_dtype: str,
    techniques: Techniques,
    precision: str | None = None,
) -> tuple[dict[str, Any], Choices]:
    """Return what techniques set for all pools of a search, and the choices that they and the stack leave it.

    ``kv_dtype`` "any" leaves both precisions open where the stack has both; a ``precision`` asked for is as the
    techniques that set the same.  Raises ``UsageError`` where the stack lacks a technique, the die a unit, or a search
    does not go over what is set.
    """
    service: dict[str, Any] = {} if precision is None else keys_of(precision)
    refuse_lacking({**that_set(service, techniques), **wanted}, machine, techniques)
    fixed: dict[Phase, dict[str, Any]] = {"prefill": {}, "decode": {}}
    for name, word in wanted.items():
        technique = named(techniques, name)
        setting = technique.setting(word)
        service |= setting.service
        reasons = {
            phase: unsupported(technique.spec.applies, model, machine, phase) for phase in technique.spec.applies.phases
        }
        if all(reasons.values()):
            raise UsageError(f"technique {name}={word}: {'; '.join(str(one) for one in reasons.values())}")
        if "stages" in setting.layout.values():
            raise UsageError(f"technique {name}={word}: solve does not search it; see moeplan explain and what-if")
        for phase, reason in reasons.items():
            if reason is None:
                fixed[phase] |= setting.layout
    refuse_another(precision, service)
    choices = Choices(
        precision=service.get("precision", USUAL),
        kv_dtypes=_cache_precisions(service, machine, kv_dtype, techniques),
        expert_weights=service.get("expert_weights", "int8"),
        fixed=fixed,
        offered={phase: _offered(machine, model, phase, techniques) for phase in fixed},
    )
    rates = machine.rates()
    for cache in choices.kv_dtypes:
        if faults := precision_faults(choices.precision, cache, choices.expert_weights, rates):
            raise UsageError("\n".join(faults))
    return service, choices


def that_set(keys: Mapping[str, Any], techniques: Techniques) -> dict[str, str]:
    """Return the techniques that set what some keys of a service say."""
    return {
        name: word
        for name, one in techniques.items()
        for word, setting in one.spec.settings.items()
        if setting.service and not setting.on_machine and setting.service.items() <= keys.items()
    }


def refuse_another(precision: str | None, service: Mapping[str, Any]) -> None:
    """Refuse a precision that is asked for beside techniques that set another; raises ``UsageError``.

    Experts may be narrower than the precision has them, and not wider than a name of their own says.
    """
    if precision is None:
        return
    asked, found = form_of(**keys_of(precision)), (service["precision"], service["expert_weights"])
    if form_of(*found) != asked and (asked.stands_for is not None or service["precision"] != precision):
        raise UsageError(
            f"--precision {precision} beside techniques that set {form_of(*found).name}; allowed: one of them; drop "
            "the other"
        )


def _cache_precisions(
    service: Mapping[str, Any], machine: Machine, kv_dtype: str, techniques: Techniques
) -> tuple[KvDtype, ...]:
    """Return the cache precisions that are searched; refuse one that the stack lacks."""
    if "kv_dtype" in service:
        return (service["kv_dtype"],)
    names_of: dict[KvDtype, str] = {"bf16": "off", "int8": "on"}
    technique = named(techniques, "c8-cache")
    if kv_dtype != "any" and kv_dtype not in names_of:  # no technique sets it: the die alone has to have it
        return (kv_dtype,)
    having = tuple(dtype for dtype, setting in names_of.items() if not lacking(technique, setting, machine))
    if kv_dtype == "any":
        return having
    refuse_lacking({technique.spec.name: names_of[kv_dtype]}, machine, techniques)
    return (kv_dtype,)


def _offered(machine: Machine, model: ModelSpec, phase: Phase, techniques: Techniques) -> dict[str, tuple[Any, ...]]:
    """Return the values of structural keys of a layout that the stack's techniques offer, its own first."""
    plain = LayoutShape(dies=1)
    offered: dict[str, tuple[Any, ...]] = {}
    for one in machine.stack.spec.techniques:
        spec = named(techniques, one.name).spec
        if phase not in spec.applies.phases or not set(model.attention_names) & set(spec.applies.attention):
            continue
        for setting in spec.settings.values():
            for key, value in setting.layout.items():
                if key in OFFERED_KEYS and not setting.plain:
                    offered[key] = tuple(dict.fromkeys((*offered.get(key, (getattr(plain, key),)), value)))
    if not model.n_shared_experts:
        offered.pop("shared_stream", None)
    return offered


def beyond_layout(wanted: Mapping[str, str], techniques: Techniques) -> dict[str, str]:
    """Return those of some settings that change more than a layout."""
    settings = {name: techniques[name].setting(word) for name, word in wanted.items()}
    return {name: wanted[name] for name, setting in settings.items() if setting.service or setting.on_machine}


def on_machine_alone(wanted: Mapping[str, str], techniques: Techniques) -> dict[str, str]:
    """Return those of some settings that a machine holds and not a layout or the precisions."""
    return {name: word for name, word in wanted.items() if techniques[name].setting(word).on_machine}


def precision_remarks(
    model: ModelSpec, precision: str, expert_weights: str, machines: Iterable[Machine]
) -> tuple[str, ...]:
    """Return what a user may want to know of the precision of a run on its machines."""
    form, remarks = form_of(precision, expert_weights), []
    for machine in machines:
        rates = machine.rates()
        stored = stored_otherwise(model, form, rates)
        remarks += [*([] if stored is None else [stored]), *stand_ins(form, rates)]
    return tuple(dict.fromkeys(remarks))
