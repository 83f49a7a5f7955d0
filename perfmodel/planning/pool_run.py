"""One pool's layout to be looked into: a published row, a pool of a plan file or a layout by hand, and changes of it.

Options of a command come as a mapping of their names, so that a row, a plan and options go one way.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from perfmodel.errors import UsageError, did_you_mean
from perfmodel.files.catalog import load, load_evidence, load_model, load_system, load_techniques
from perfmodel.files.folders import names
from perfmodel.files.machines import ideal, load_machine
from perfmodel.planning import inputs
from perfmodel.planning.choices import precision_remarks, refuse_another, refuse_lacking, settings_in
from perfmodel.planning.compare import OF_WEIGHTS
from perfmodel.planning.hypothetical import asked_numbers, refuse_two_shares, told, with_layout_or_given
from perfmodel.planning.plan_file import load_plan
from perfmodel.planning.site import machine_of, strange, with_site
from perfmodel.planning.software import Software, is_had, kept_software, software_of
from perfmodel.prediction.layouts import usual_reduction
from perfmodel.prediction.scenario import Resolved, of_conditions, resolve
from perfmodel.prediction.techniques import inapplicable, with_setting
from perfmodel.service.clients import ClientView, clients_view, with_responses
from perfmodel.service.setup import engine_of, holds_one, mixed_phases, mixed_service, ranks_of, requests_of
from perfmodel.specs.base import Known, faults_in
from perfmodel.specs.conditions import OF_LOAD, Conditions, LayoutConditions, Service, conditions_of
from perfmodel.specs.deployment import PHASES
from perfmodel.specs.evidence import MeasuredOn
from perfmodel.specs.machine import ChipSpec, EngineSpec
from perfmodel.specs.model import ModelSpec
from perfmodel.specs.open_conditions import open_words
from perfmodel.specs.precision import PRECISIONS, USUAL, keys_of
from perfmodel.supply.machine import Machine
from perfmodel.supply.rates import Rates
from perfmodel.supply.set_numbers import refuse_unknown, with_chip

#: between changes, but not between the numbers of one, as in acceptance=0.9,0.36
_VALUES_APART = re.compile(r",(?!\s*[\d.]+\s*(?:,|$))")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRun:
    """One layout set up and evaluated: where it comes from, its conditions, its machine and what it serves."""

    name: str
    #: where the accepted draft tokens come from
    acceptance: str
    conditions: Conditions
    model: ModelSpec
    machine: Machine
    #: rates of its machine with every efficiency 1
    ideal: Rates
    resolved: Resolved
    #: conditions of the other phase, and its step, where the same dies run both in turn
    other: Conditions | None = None
    between: Resolved | None = None
    #: of mixed serving under a load: what its clients measure
    clients: ClientView | None = None
    #: what schedules; none where the stack has no engine on file
    engine: EngineSpec | None = None
    #: whether a published row vouches for the techniques it runs with
    vouched: bool = False
    #: how the step is, or is to be, measured: by a loop of full batches or on an engine in service
    measured_on: MeasuredOn = "service"
    remarks: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether it fits memory; where an engine lets in what its cache holds, one request."""
        return self.resolved.fits if self.clients is None else holds_one(self.resolved)

    @property
    def meets_tpot(self) -> bool:
        """Whether it keeps the limit of TPOT, as its clients see it where there are any."""
        if self.clients is None or self.conditions.tpot is None:
            return self.resolved.meets_tpot
        return self.clients.values.get("tpot", 0.0) <= self.conditions.tpot


def of_evidence(name: str, given: Mapping[str, Any]) -> PoolRun:
    """Return a published row under its own conditions."""
    spec = load_evidence(name).spec
    software = _kept(spec.conditions, given)
    conditions, model = _asked(_on(spec.conditions, software, given), given)
    run = _set_up(
        conditions,
        given,
        model=model,
        name=name,
        acceptance=f"evidence {name}",
        vouched=True,
        measured_on=spec.measured_on,
    )
    words = [f"{name}: {one}" for one in open_words(spec.conditions, spec.open)]
    return replace(run, remarks=(*run.remarks, *software.remarks, *words))


def _kept(conditions: Conditions, given: Mapping[str, Any]) -> Software:
    """Return the software of conditions, with what options give in place of theirs."""
    return kept_software(
        conditions.system,
        stack=given["stack"],
        engine=given.get("engine"),
        own=conditions.stack,
        own_engine=conditions.engine,
    )


def _on(conditions: Conditions, software: Software, given: Mapping[str, Any]) -> Conditions:
    """Return conditions with their software; an engine is named where they, or the options, name one."""
    named = given.get("engine") is not None or conditions.engine is not None
    engine = software.engine.word if named and software.engine is not None else None
    return conditions.model_copy(update={"stack": software.stack, "engine": engine})


def _asked(conditions: Conditions, given: Mapping[str, Any]) -> tuple[Conditions, Known[ModelSpec]]:
    """Return conditions with the numbers and the context that options give, and their model.

    Raises ``UsageError`` for lengths beyond that context.
    """
    most = inputs.tokens(given.get("max_context"), "--max-context")
    if most is not None:
        conditions = conditions.model_copy(update={"max_context": most})
    layout, numbers = inputs.set_apart(given.get("set_"))
    if layout or numbers:
        refuse_two_shares(numbers, conditions.memory_share)
        values = conditions.model_dump()
        values["layout"] |= layout
        conditions = checked_conditions(**{**values, "set": asked_numbers(conditions.set, numbers)})
    model = load_model(conditions.model, conditions.max_context)
    if most is not None:
        inputs.check_lengths(model.spec, conditions.isl, conditions.osl)
    return conditions, model


def of_plan(path: str, given: Mapping[str, Any]) -> PoolRun:
    """Return one pool of a plan file."""
    inputs.known(given["phase"], sorted(PHASES), "--phase")
    plan, phase = load_plan(path), given["phase"]
    stated = plan.spec.conditions
    own = conditions_of(stated, phase).model_copy(update={"engine": stated.engine})
    software = _kept(own, given)
    changed = any(given.get(name) for name in ("stack", "kernels", "site", "set_"))
    as_written = not changed and software.stack == own.stack
    conditions, model = _asked(_on(own, software, given), given)
    run = _set_up(
        conditions,
        given,
        model=model,
        machine=plan.machines[phase] if as_written else None,
        name=path,
        acceptance=f"plan {path}",
        other=conditions_of(stated, "prefill" if phase == "decode" else "decode") if stated.mixed else None,
    )
    return replace(run, remarks=(*run.remarks, *software.remarks, *plan.remarks))


def by_hand(given: Mapping[str, Any]) -> PoolRun:
    """Return a layout that options describe."""
    model, on, phase, isl, osl = (given[name] for name in ("model", "on", "phase", "isl", "osl"))
    if model is None or on is None:
        raise UsageError(
            "explain needs MODEL and --on SYSTEM, a plan file, or --evidence NAME; see 'moeplan list evidence'"
        )
    inputs.known(phase, sorted(PHASES), "--phase")
    asked = given["precision"] or USUAL
    inputs.precision(asked)
    if not isl or (phase == "decode" and not osl):
        raise UsageError("explain needs --isl, and --osl for decode; for example --isl 4096 --osl 1024")
    osl = osl if phase == "decode" else 1
    most = inputs.tokens(given["max_context"], "--max-context")
    known = load_model(model, most)
    positions, origin = inputs.read_acceptance(given["acceptance"], known.spec)
    software = software_of(on, stack=given["stack"], engine=given["engine"])
    taken, remarks = load_machine(on, software.stack, given["kernels"] or ())
    machine = with_site(taken, given["site"] or ())
    machine = machine.with_memory_share(inputs.share(given["memory_share"], "--memory-share"))
    machine, of_layout, numbers = with_layout_or_given(machine, given["set_"], given["memory_share"])
    inputs.check_lengths(known.spec, isl, osl)
    plain = ("tp", "shared_ranks", "redundant", "batch", "draft", "attention_cores")
    load = _load(given)
    conditions = checked_conditions(
        system=on,
        model=model,
        stack=software.stack,
        engine=software.engine.word if given["engine"] is not None and software.engine is not None else None,
        kernels=tuple(given["kernels"] or ()),
        phase=phase,
        isl=isl,
        osl=osl,
        acceptance=positions,
        **keys_of(asked),
        kv_dtype=given["kv"].value,
        tpot=inputs.quantity(given["tpot"], "s", "--tpot"),
        memory_share=inputs.share(given["memory_share"], "--memory-share"),
        max_context=most,
        set=numbers,
        **load,
        layout={
            "dies": _dies(given, machine.rates()),
            **{name: given[name] for name in plain},
            **{name: given[name].value for name in ("overlap", "exchange")},
            "reduction": given["reduction"].value if given["reduction"] else usual_reduction(known.spec),
            **of_layout,
        },
    )
    if conditions.concurrency is not None and conditions.layout.batch is None and conditions.serving != "mixed":
        batch = math.ceil(conditions.concurrency / ranks_of(conditions))
        conditions = conditions.model_copy(update={"layout": conditions.layout.model_copy(update={"batch": batch})})
    run = _set_up(conditions, given, model=known, machine=machine, name="as given", acceptance=origin)
    return replace(run, remarks=(*run.remarks, *remarks, *software.remarks))


def _load(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what clients put on a layout, and who schedules it."""
    rate = inputs.rate(given["rate"], "--rate")
    for name in ("concurrency", "requests"):
        if given[name] is not None:
            inputs.positive(given[name], f"--{name}")
    load = {name: given[name] for name in ("serving", "concurrency", "requests", "isl_cv", "osl_cv")}
    if load["serving"] == "mixed" and given["concurrency"] is None and rate is None:
        raise UsageError(
            "--serving mixed needs a load: --concurrency N, clients of a closed loop, or --rate R, requests/s"
        )
    if load["serving"] != "mixed" and rate is not None:
        raise UsageError("--rate goes with --serving mixed; of pools apart, 'moeplan solve' takes a rate")
    return {**load, "rate": rate}


def _dies(given: Mapping[str, Any], rates: Rates) -> int:
    each = {"dies": 1, "cards": rates.dies_per_package, "servers": rates.dies_per_server}
    counts = [name for name in each if given[name] is not None]
    if len(counts) != 1:
        raise UsageError("explain needs exactly one of --dies, --cards, --servers: the size of one instance")
    name = counts[0]
    inputs.positive(given[name], f"--{name}")
    return int(given[name] * each[name])


def _set_up(
    conditions: Conditions,
    given: Mapping[str, Any],
    *,
    model: Known[ModelSpec],
    machine: Machine | None = None,
    name: str,
    acceptance: str,
    vouched: bool = False,
    other: Conditions | None = None,
    measured_on: MeasuredOn = "service",
) -> PoolRun:
    """Return conditions with the kernel sets, acceptance and techniques that options give, evaluated.

    ``machine`` is theirs where it was read already, ``other`` are those of the other phase where the same dies run both
    in turn; what both share follows.
    """
    techniques = load_techniques()
    if given["acceptance"] is not None:
        accepted, acceptance = inputs.read_acceptance(given["acceptance"], model.spec)
        conditions = conditions.model_copy(update={"acceptance": accepted})
    update = {name: tuple(given.get(name) or getattr(conditions, name)) for name in ("kernels", "site")}
    conditions = conditions.model_copy(update=update)
    machine = machine or machine_of(conditions, measured_on=measured_on)
    if given.get("set_"):
        refuse_unknown(conditions.set, [machine], sorted(LayoutConditions.model_fields))
    chosen = inputs.settings(given["with_"], techniques)
    inputs.refuse_conflicts(chosen, techniques)
    for word, setting in chosen.items():
        technique = techniques[word]
        reason = inapplicable(technique.spec.applies, model.spec, machine, conditions.phase, conditions.layout)
        if reason is not None and setting != next(iter(technique.spec.settings)):
            raise UsageError(f"--with {word}={setting}: {conditions.phase}: {reason}")
        conditions, machine = with_setting(technique, setting, conditions, machine, model.spec)
    refuse_another(given.get("precision"), conditions.model_dump())
    held = {} if vouched else settings_in(conditions, machine, model.spec, techniques)
    refuse_lacking({**held, **chosen}, machine, techniques)
    conditions = checked_conditions(**conditions.model_dump())
    rates = machine.rates()
    if conditions.serving == "mixed" and other is None:
        return _of_clients(
            conditions,
            machine,
            model,
            name=name,
            acceptance=acceptance,
            vouched=vouched,
            measured_on=measured_on,
            responses=given.get("responses", True),
        )
    between = None if other is None else resolve(of_conditions(_beside(conditions, other), model.spec, rates))
    partner = None if between is None else between.point
    return PoolRun(
        name=name,
        acceptance=acceptance,
        conditions=conditions,
        model=model.spec,
        machine=machine,
        ideal=ideal(machine).rates(),
        resolved=resolve(of_conditions(conditions, model.spec, rates, partner)),
        other=other,
        between=between,
        engine=engine_of(machine.stack.spec, conditions.engine) if machine.stack.spec.engines else None,
        vouched=vouched,
        measured_on=measured_on,
        remarks=_remarks(conditions, machine, model),
    )


def _remarks(conditions: Conditions, machine: Machine, model: Known[ModelSpec]) -> tuple[str, ...]:
    """Return what a user may want to know of a model, a site, a precision and numbers set by hand."""
    of_precision = precision_remarks(model.spec, conditions.precision, conditions.expert_weights, (machine,))
    return (*model.notes, *strange(machine, conditions.site), *of_precision, *told([machine]))


def _of_clients(
    conditions: Conditions,
    machine: Machine,
    model: Known[ModelSpec],
    *,
    name: str,
    acceptance: str,
    vouched: bool,
    measured_on: MeasuredOn,
    responses: bool,
) -> PoolRun:
    """Return a layout that runs both phases under the load that clients put on it."""
    engine = engine_of(machine.stack.spec, conditions.engine)
    stated = conditions.layout.batch
    taken, prefill, decode = mixed_phases(conditions, engine, model.spec, machine.rates())
    replayed = mixed_service(prefill, decode, engine, stated=stated), requests_of(taken)
    view = clients_view(*replayed)
    view = with_responses(view, *replayed) if responses else view
    return PoolRun(
        name=name,
        acceptance=acceptance,
        conditions=taken,
        model=model.spec,
        machine=machine,
        ideal=ideal(machine).rates(),
        resolved=decode,
        between=prefill,
        clients=view,
        engine=engine,
        vouched=vouched,
        measured_on=measured_on,
        remarks=_remarks(conditions, machine, model),
    )


def _beside(conditions: Conditions, other: Conditions) -> Conditions:
    """Return conditions of the other phase on the same dies: what all pools share, and where the weights lie."""
    shared = {key: getattr(conditions, key) for key in Service.model_fields}
    layout = other.layout.model_copy(update={key: getattr(conditions.layout, key) for key in OF_WEIGHTS})
    return other.model_copy(update={**shared, "layout": layout})


def other_than(run: PoolRun, word: str, *, responses: bool = True) -> PoolRun:
    """Return what a run is compared with: a published row, a plan file's pool of its phase, or itself changed.

    Without ``responses`` it is not seen how what its clients measure moves with its steps, which takes longest.
    Raises ``UsageError`` where the word is none of them, or the phases differ.
    """
    unchanged: dict[str, Any] = dict.fromkeys(("acceptance", "stack", "kernels", "with_"))
    unchanged |= {"phase": run.conditions.phase, "responses": responses}
    if "=" in word:
        return _changed(run, word, unchanged)
    if word.lower().endswith(".json"):
        return of_plan(word, unchanged)
    try:
        other = of_evidence(word, unchanged)
    except UsageError as error:
        raise UsageError(
            f"--compare: {error}; allowed: a published row, a plan file, or changes like tp=4,batch=64 or on=SYSTEM"
        ) from None
    if other.conditions.phase != run.conditions.phase:
        raise UsageError(
            f"--compare: {word} is of {other.conditions.phase}, {run.name} of {run.conditions.phase}; "
            "allowed: two of one phase"
        )
    return other


def _changed(run: PoolRun, text: str, unchanged: Mapping[str, Any]) -> PoolRun:
    """Return a run with keys of its layout, of its service, its system or techniques changed."""
    of_layout = set(LayoutConditions.model_fields)
    of_service = set(Service.model_fields) - {"set", "system", "techniques", "kernels", "acceptance", "tpot"}
    of_service |= {"serving", *OF_LOAD} - {"engine"}
    techniques = names("techniques")
    layout: dict[str, Any] = {}
    update: dict[str, Any] = {}
    named: dict[str, str] = {}
    software: dict[str, str] = {}
    remarks: tuple[str, ...] = ()
    with_ = []
    chip, acceptance = None, run.acceptance
    for part in _VALUES_APART.split(text):
        key, _, value = (piece.strip() for piece in part.partition("="))
        key = {"kv": "kv_dtype"}.get(key, key)
        if key == "on":
            _, remarks = load_machine(value)
            update |= {"system": value, "kernels": (), "site": ()}
        elif key in ("stack", "engine"):
            software[key] = value
        elif key == "chip":
            chip = load("chips", value)
        elif key == "acceptance":
            update[key], acceptance = inputs.read_acceptance(value, run.model)
        elif key == "tpot":
            update[key] = inputs.quantity(value, "s", "--compare tpot")
        elif key in of_layout:
            layout[key] = inputs.word_or_number(value)
        elif key == "precision" and value in PRECISIONS:
            named = keys_of(value)
        elif key in of_service:
            update[key] = inputs.word_or_number(value)
        elif key in techniques:
            with_.append(part.strip())
        else:
            known = sorted({"on", "chip", "acceptance", "tpot", "engine", *of_layout, *of_service, *techniques})
            raise UsageError(f"--compare: {key!r} is no key of a layout or a service{did_you_mean(key, known)}")
    values = run.conditions.model_dump()
    values["layout"] |= layout
    conditions = checked_conditions(**{**values, **named, **update})
    chosen = _changed_software(run, conditions.system if "system" in update else None, software)
    conditions = _on(conditions, chosen, software)
    found = _set_up(
        conditions,
        {**unchanged, "with_": with_},
        model=load_model(conditions.model, conditions.max_context),
        machine=None if chip is None else _with_bin(machine_of(conditions, measured_on=run.measured_on), chip),
        name=f"with {text}",
        acceptance=acceptance,
        vouched=run.vouched,
        other=run.other,
        measured_on=run.measured_on,
    )
    return replace(found, remarks=(*found.remarks, *remarks, *chosen.remarks, *_other_requests(run, found, layout)))


def _other_requests(run: PoolRun, found: PoolRun, changed: Mapping[str, Any]) -> list[str]:
    """Return a remark where other ranks of the same batch serve another number of requests."""
    if found.clients is not None or "batch" in changed:
        return []
    before, after = ((int(one.resolved.plan.layout.batch), ranks_of(one.conditions)) for one in (run, found))
    if before[0] != after[0] or before[1] == after[1]:
        return []
    batch, ranks = before
    told = f"batch {batch} is of one data-parallel rank: {ranks} ranks with {batch * ranks} requests become {after[1]} "
    same = (
        f"; for as many requests as before: batch={batch * ranks // after[1]}" if batch * ranks % after[1] == 0 else ""
    )
    return [f"--compare: {told}with {batch * after[1]}{same}"]


def _with_bin(machine: Machine, chip: Known[ChipSpec]) -> Machine:
    """Return a machine with another bin of its chip; raise ``UsageError`` where its packages hold other dies."""
    here = machine.chip.spec
    if chip.spec.family != here.family or chip.spec.package != here.package:
        raise UsageError(
            f"--compare: chip {chip.spec.name} is no other bin of {here.name}, the chip of "
            f"{machine.system.spec.name}; allowed: chips of its family in the same package; for another system write "
            "on=SYSTEM"
        )
    return with_chip(machine, chip)


def _changed_software(run: PoolRun, system: str | None, given: Mapping[str, str]) -> Software:
    """Return the software of a run with a stack or an engine in place of its own, or on another system.

    Another system comes with its own stack, but for an engine that the run names and that one of its stacks has.
    """
    own, stack, engine = run.conditions, given.get("stack"), given.get("engine")
    if system is None:
        return kept_software(own.system, stack=stack, engine=engine, own=own.stack, own_engine=own.engine)
    if engine is None and stack is None and own.engine is not None and is_had(system, own.engine):
        engine = own.engine
    home = load_system(system).spec.default_stack
    return kept_software(system, stack=stack, engine=engine, own=home, own_engine=own.engine)


def checked_conditions(**values: Any) -> Conditions:
    """Return conditions given on the command line, or raise ``UsageError`` with a line for each fault."""
    try:
        return Conditions(**values)
    except ValidationError as error:
        raise UsageError("\n".join(faults_in(error, inside="layout"))) from None
