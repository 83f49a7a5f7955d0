"""What a command looks into: one layout under its conditions, from a row, a plan file or options, and changes of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import typer

from perfmodel.cli import options
from perfmodel.errors import UsageError, did_you_mean
from perfmodel.planning import inputs

if TYPE_CHECKING:
    from perfmodel.prediction.scenario import Resolved
    from perfmodel.specs.evidence import Conditions
    from perfmodel.specs.model import ModelSpec
    from perfmodel.supply.machine import Machine

PHASES = ["decode", "prefill"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One layout set up and evaluated: where it comes from, its conditions, its machine and what it serves."""

    name: str
    #: where the accepted draft tokens come from
    acceptance: str
    conditions: "Conditions"
    model: "ModelSpec"
    machine: "Machine"
    resolved: "Resolved"
    #: conditions of the other phase, and its step, where the same dies run both in turn
    other: "Conditions | None" = None
    between: "Resolved | None" = None
    #: whether a published row vouches for the techniques it runs with
    vouched: bool = False
    remarks: tuple[str, ...] = ()


def subject_of(context: typer.Context) -> Subject:
    """Return what the options of a command describe: a published row, a pool of a plan file, or a layout by hand.

    Raises ``UsageError`` for options that contradict each other, and with a line for each rule the layout breaks.
    """
    given = context.params
    if given["evidence"] is not None:
        _refuse_beside(
            context,
            ("evidence", "stack", "kernels", "with_", "acceptance"),
            "--evidence brings all conditions of its row but --stack, --kernels, --acceptance and --with; "
            "drop {words}, or drop --evidence",
        )
        return of_evidence(given["evidence"], given)
    if given["model"] is not None and given["model"].lower().endswith(".json"):
        _refuse_beside(
            context,
            ("model", "phase", "stack", "kernels", "with_", "acceptance"),
            "a plan file brings all conditions but --phase, --stack, --kernels and --acceptance; drop {words}; "
            "to change one, use --with",
        )
        return of_plan(given["model"], given)
    return _by_hand(given)


#: options that say how an answer is shown, whatever it is about
VIEWS = ("sources", "layer", "op", "sort", "tree", "roofline", "compare", "formula", "format_")


def _refuse_beside(context: typer.Context, allowed: tuple[str, ...], says: str) -> None:
    both = [name for name in context.params if name not in allowed + VIEWS and options.typed(context, name)]
    if both:
        words = ", ".join("MODEL" if n == "model" else f"--{n.strip('_').replace('_', '-')}" for n in both)
        raise UsageError(says.format(words=words))


def of_evidence(name: str, given: Mapping[str, Any]) -> Subject:
    """Return a published row under its own conditions."""
    from perfmodel.files import catalog

    conditions = catalog.load_evidence(name).spec.conditions
    return _set_up(conditions, given, name=name, acceptance=f"evidence {name}", vouched=True)


def of_plan(path: str, given: Mapping[str, Any]) -> Subject:
    """Return one pool of a plan file."""
    from perfmodel.files import catalog
    from perfmodel.planning.plan_file import conditions_of

    inputs.known(given["phase"], PHASES, "--phase")
    plan, remarks = catalog.load_plan(path)
    conditions = conditions_of(plan.conditions, given["phase"])
    other = None
    if plan.conditions.mixed:
        other = conditions_of(plan.conditions, "prefill" if given["phase"] == "decode" else "decode")
    subject = _set_up(conditions, given, name=path, acceptance=f"plan {path}", other=other)
    return replace(subject, remarks=(*subject.remarks, *remarks))


def _by_hand(given: Mapping[str, Any]) -> Subject:
    from perfmodel.files import catalog

    model, on, phase, isl, osl = (given[name] for name in ("model", "on", "phase", "isl", "osl"))
    if model is None or on is None:
        raise UsageError(
            "explain needs MODEL and --on SYSTEM, a plan file, or --evidence NAME; see 'moeplan list evidence'"
        )
    inputs.known(phase, PHASES, "--phase")
    inputs.known(given["precision"], ["w8a8", "bf16"], "--precision")
    if not isl or (phase == "decode" and not osl):
        raise UsageError("explain needs --isl, and --osl for decode; for example --isl 4096 --osl 1024")
    osl = osl if phase == "decode" else 1
    spec = catalog.load_model(model).spec
    positions, origin = inputs.read_acceptance(given["acceptance"], spec)
    around, remarks = catalog.load_machine(on, given["stack"], given["kernels"] or ())
    rates = around.rates()
    inputs.case_of(spec, rates, isl, osl, positions)
    plain = ("tp", "shared_ranks", "redundant", "batch", "draft", "attention_cores")
    conditions = checked_conditions(
        system=on,
        model=model,
        stack=around.stack.spec.name,
        kernels=tuple(given["kernels"] or ()),
        phase=phase,
        isl=isl,
        osl=osl,
        acceptance=positions,
        precision=given["precision"],
        kv_dtype=given["kv"].value,
        tpot=inputs.quantity(given["tpot"], "s", "--tpot"),
        layout={
            "dies": _dies(given, rates),
            **{name: given[name] for name in plain},
            **{name: given[name].value for name in ("overlap", "exchange", "reduction")},
            **inputs.layout_keys(given["set_"]),
        },
    )
    subject = _set_up(conditions, given, name="as given", acceptance=origin)
    return replace(subject, remarks=(*subject.remarks, *remarks))


def _dies(given: Mapping[str, Any], rates: Any) -> int:
    each = {"dies": 1, "cards": rates.dies_per_package, "servers": rates.dies_per_server}
    counts = [name for name in each if given[name] is not None]
    if len(counts) != 1:
        raise UsageError("explain needs exactly one of --dies, --cards, --servers: the size of one instance")
    name = counts[0]
    inputs.positive(given[name], f"--{name}")
    return int(given[name] * each[name])


def _set_up(
    conditions: Any,
    given: Mapping[str, Any],
    *,
    name: str,
    acceptance: str,
    vouched: bool = False,
    other: "Conditions | None" = None,
) -> Subject:
    """Return conditions with the stack, kernel sets, acceptance and techniques that options give, evaluated.

    ``other`` are those of the other phase where the same dies run both in turn; what both share follows.
    """
    from perfmodel.files import catalog
    from perfmodel.prediction.scenario import of_conditions, resolve
    from perfmodel.supply.techniques import inapplicable, with_setting

    loaded = catalog.load_model(conditions.model)
    model = loaded.spec
    if given["acceptance"] is not None:
        accepted, acceptance = inputs.read_acceptance(given["acceptance"], model)
        conditions = conditions.model_copy(update={"acceptance": accepted})
    update = {"stack": given["stack"] or conditions.stack, "kernels": tuple(given["kernels"] or conditions.kernels)}
    conditions = conditions.model_copy(update=update)
    machine = catalog.load_conditions(conditions)
    chosen = inputs.settings(given["with_"])
    inputs.refuse_conflicts(chosen)
    for technique_name, setting in chosen.items():
        technique = catalog.technique_named(technique_name)
        reason = inapplicable(technique.spec.applies, model, machine, conditions.phase, conditions.layout)
        if reason is not None and setting != next(iter(technique.spec.settings)):
            raise UsageError(f"--with {technique_name}={setting}: {conditions.phase}: {reason}")
        conditions, machine = with_setting(technique, setting, conditions, machine, model, catalog.kernel_set)
    held = {} if vouched else catalog.settings_in(conditions, machine, model)
    catalog.refuse_lacking({**held, **chosen}, machine)
    conditions = checked_conditions(**conditions.model_dump())
    rates = machine.rates()
    between = None if other is None else resolve(of_conditions(_beside(conditions, other), model, rates))
    partner = None if between is None else between.point
    return Subject(
        name=name,
        acceptance=acceptance,
        conditions=conditions,
        model=model,
        machine=machine,
        resolved=resolve(of_conditions(conditions, model, rates, partner)),
        other=other,
        between=between,
        vouched=vouched,
        remarks=loaded.notes,
    )


def _beside(conditions: Any, other: Any) -> Any:
    """Return conditions of the other phase on the same dies: what all pools share, and where the weights lie."""
    from perfmodel.planning.compare import OF_WEIGHTS
    from perfmodel.specs.evidence import Service

    shared = {key: getattr(conditions, key) for key in Service.model_fields}
    layout = other.layout.model_copy(update={key: getattr(conditions.layout, key) for key in OF_WEIGHTS})
    return other.model_copy(update={**shared, "layout": layout})


def other_than(subject: Subject, word: str) -> Subject:
    """Return what a subject is compared with: a published row, a plan file's pool of its phase, or itself changed.

    Raises ``UsageError`` where the word is none of them, or the phases differ.
    """
    unchanged: dict[str, Any] = dict.fromkeys(("acceptance", "stack", "kernels", "with_"))
    unchanged["phase"] = subject.conditions.phase
    if "=" in word:
        return _changed(subject, word, unchanged)
    if word.lower().endswith(".json"):
        return of_plan(word, unchanged)
    try:
        other = of_evidence(word, unchanged)
    except UsageError as error:
        raise UsageError(
            f"--compare: {error}; allowed: a published row, a plan file, or changes like tp=4,batch=64 or on=SYSTEM"
        ) from None
    if other.conditions.phase != subject.conditions.phase:
        raise UsageError(
            f"--compare: {word} is of {other.conditions.phase}, {subject.name} of {subject.conditions.phase}; "
            "allowed: two of one phase"
        )
    return other


def _changed(subject: Subject, text: str, unchanged: Mapping[str, Any]) -> Subject:
    """Return a subject with keys of its layout, of its service, its system or techniques changed."""
    from perfmodel.files import catalog
    from perfmodel.specs.evidence import LayoutConditions, Service

    of_layout = set(LayoutConditions.model_fields)
    of_service = set(Service.model_fields) - {"system", "techniques", "kernels", "acceptance", "tpot"}
    techniques = catalog.names("techniques")
    layout: dict[str, Any] = {}
    update: dict[str, Any] = {}
    with_ = []
    for part in text.split(","):
        key, _, value = (piece.strip() for piece in part.partition("="))
        key = {"kv": "kv_dtype"}.get(key, key)
        if key == "on":
            system = catalog.load_system(value).spec
            update |= {"system": value, "stack": system.default_stack, "kernels": ()}
        elif key == "tpot":
            update[key] = inputs.quantity(value, "s", "--compare tpot")
        elif key in of_layout:
            layout[key] = inputs.word_or_number(value)
        elif key in of_service:
            update[key] = inputs.word_or_number(value)
        elif key in techniques:
            with_.append(part.strip())
        else:
            known = sorted({"on", "tpot", *of_layout, *of_service, *techniques})
            raise UsageError(f"--compare: {key!r} is no key of a layout or a service{did_you_mean(key, known)}")
    values = subject.conditions.model_dump()
    values["layout"] |= layout
    conditions = checked_conditions(**{**values, **update})
    return _set_up(
        conditions,
        {**unchanged, "with_": with_},
        name=f"with {text}",
        acceptance=subject.acceptance,
        vouched=subject.vouched,
        other=subject.other,
    )


def checked_conditions(**values: Any) -> Any:
    """Return conditions given on the command line, or raise ``UsageError`` with a line for each fault."""
    from pydantic import ValidationError

    from perfmodel.specs.base import faults_in
    from perfmodel.specs.evidence import Conditions

    try:
        return Conditions(**values)
    except ValidationError as error:
        raise UsageError("\n".join(faults_in(error, inside="layout"))) from None
