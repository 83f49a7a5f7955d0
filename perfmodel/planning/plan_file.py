"""A plan made from an answer of the planner, and set up again from its file."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from perfmodel import __version__
from perfmodel.algebra import as_float
from perfmodel.errors import DataError, UsageError, did_you_mean
from perfmodel.files.catalog import load_model, load_techniques
from perfmodel.files.plans import changed_since, digests, read_plan
from perfmodel.planning.choices import on_machine_alone
from perfmodel.planning.planner import Planned
from perfmodel.planning.request import PlanRequest
from perfmodel.planning.site import machine_of
from perfmodel.prediction.deployment import Deployment, PoolPlan
from perfmodel.prediction.joined_pools import JoinedPools, of_deployment
from perfmodel.prediction.techniques import setting_of
from perfmodel.solver.solution import Status
from perfmodel.specs.base import Known
from perfmodel.specs.conditions import Conditions, DeploymentConditions, LayoutConditions, Pool, conditions_of
from perfmodel.specs.deployment import PHASES, Phase
from perfmodel.specs.model import ModelSpec
from perfmodel.specs.plan import Asked, PlanSpec, Predicted
from perfmodel.supply.machine import Machine
from perfmodel.supply.set_numbers import NotSetError, refuse_unknown
from perfmodel.supply.techniques import Technique


def settings_of_pool(
    conditions: Conditions, machine: Machine, model: ModelSpec, techniques: Iterable[Technique]
) -> dict[str, str]:
    """Return the setting of every technique in a run of one pool."""
    return {
        one.spec.name: setting_of(one, conditions, conditions.layout, machine, model)
        for one in techniques
        if conditions.phase in one.spec.applies.phases
    }


SAME = 1e-6  # relative difference up to which a prediction is the same


def sustained_rate(wanted: Asked, joined: JoinedPools) -> float:
    """Return the requests per second of a plan: those of its slower pool at the load allowed, or those asked for."""
    most = wanted.utilisation * joined.requests_per_s
    return most if wanted.requests_per_s is None else min(most, wanted.requests_per_s)


def _changed_predictions(plan: PlanSpec, machines: Mapping[Phase, Machine], model: ModelSpec, where: str) -> list[str]:
    """Return a remark for each predicted number that is not what it was when the plan was written.

    Layouts that cannot be any more are not remarked on: whoever sets them up says why.
    """
    try:
        joined = of_deployment(plan.conditions, model, machines["decode"].rates(), machines["prefill"].rates())
    except UsageError:
        return []
    now = {"TPOT": (joined.tpot * 1e3, plan.predicted.tpot * 1e3, " ms")}
    now["requests per second"] = (sustained_rate(plan.wanted, joined), plan.predicted.requests_per_s, "")
    return [
        f"{where}: {name} is {value:.6g}{unit} now, {then:.6g}{unit} when the plan was written"
        for name, (value, then, unit) in now.items()
        if not abs(value - then) <= SAME * abs(then)
    ]


def _check_settings(
    plan: PlanSpec,
    machines: Mapping[Phase, Machine],
    model: ModelSpec,
    techniques: Mapping[str, Technique],
    where: str,
) -> None:
    """Refuse a plan whose techniques are not those that its layouts and its machines are in.

    Raises ``DataError`` with one line for each.
    """
    faults = []
    for phase in PHASES:
        found = settings_of_pool(conditions_of(plan.conditions, phase), machines[phase], model, techniques.values())
        for name, setting in plan.techniques.get(phase, {}).items():
            if name not in techniques:
                known = did_you_mean(name, sorted(techniques))
                faults.append(f"{where}: techniques.{phase}.{name}: no technique on file{known}")
            elif name in found and found[name] != setting:
                faults.append(
                    f"{where}: techniques.{phase}.{name}: {setting!r}, but its layout and stack are in "
                    f"{found[name]!r}; allowed: what the rest of the plan says; change either"
                )
    if faults:
        raise DataError("\n".join(faults))


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedPlan:
    """A plan file with everything it names read."""

    spec: PlanSpec
    model: Known[ModelSpec]
    machines: Mapping[Phase, Machine]
    #: what is not as it was when the plan was written: the program's version, data files, the prediction
    remarks: tuple[str, ...]


def load_plan(path: str, max_context: int | None = None) -> LoadedPlan:
    """Return the plan in a file, its techniques checked against its layouts and its stack.

    ``max_context`` is what its model takes where that is not what the plan says.

    Raises ``DataError`` where settings differ or the file is no plan.
    """
    plan = read_plan(Path(path))
    machines = _machines(plan, path)
    model = load_model(plan.conditions.model, max_context or plan.conditions.max_context)
    _check_settings(plan, machines, model.spec, load_techniques(), path)
    remarks = changed_since(plan)
    if plan.version != __version__:
        remarks.append(f"{path}: written by version {plan.version}, read by {__version__}")
    return LoadedPlan(
        spec=plan,
        model=model,
        machines=machines,
        remarks=(*remarks, *_changed_predictions(plan, machines, model.spec, path)),
    )


def _machines(plan: PlanSpec, path: str) -> dict[Phase, Machine]:
    """Return the machine of each pool; raise ``DataError`` where numbers that are set by hand cannot be."""
    try:
        machines = {phase: machine_of(conditions_of(plan.conditions, phase)) for phase in PHASES}
        refuse_unknown(plan.conditions.set, machines.values())
    except NotSetError as error:
        raise DataError("\n".join(f"{path}: conditions.set: {line}" for line in str(error).splitlines())) from None
    return machines


def plan_of(found: Planned) -> PlanSpec | None:
    """Return the file of the best plan, or None where there is none; files of the user's are named by their paths."""
    request, best = found.request, found.solution.best
    if best is None or found.solution.status is not Status.OPTIMAL:
        return None
    conditions = _conditions(request, best)
    each = {phase: machine.rates().packages_per_server for phase, machine in request.machines.items()}
    cards = best.prefill_servers * each["prefill"] + best.decode_servers * each["decode"]
    return PlanSpec(
        version=__version__,
        conditions=conditions,
        run=request.run.model_copy(update=_names(request)),
        techniques={
            phase: settings_of_pool(
                conditions_of(conditions, phase), request.machines[phase], request.model, request.techniques.values()
            )
            for phase in PHASES
        },
        predicted=Predicted(
            tpot=best.tpot,
            ttft=as_float(best.first_token.ttft),
            requests_per_s=best.requests_per_s,
            tokens_per_s_per_card=best.requests_per_s * as_float(conditions.osl) / cards,
        ),
        files=digests(request.files),
    )


def _names(request: PlanRequest) -> dict[str, str]:
    """Return what a run-spec named in other words, by the words that find the same files again."""
    machine, prefill = request.machines["decode"], request.machines["prefill"]
    names = {"model": request.model_word, "on": machine.system.word, "stack": machine.stack.word}
    if prefill is not machine:
        names |= {"prefill_on": prefill.system.word, "prefill_stack": prefill.stack.word}
    if request.run.engine is not None and (engine := request.engines["decode"]) is not None:
        words = {one.word for one in request.engines.values() if one is not None}
        names["engine"] = engine.word if len(words) == 1 else engine.name
    if request.run.acceptance is None and request.model.acceptance:
        names["acceptance"] = request.model.acceptance[0].name
    return names


def _conditions(request: PlanRequest, best: Deployment) -> DeploymentConditions:
    """Return the conditions of a plan that a search found."""
    case, family, machine = request.case, best.decode.family, request.machine
    prefill = request.machines["prefill"]
    apart = prefill is not machine

    def pool(plan: PoolPlan, instances: int) -> Pool:
        return Pool(instances=instances, layout=LayoutConditions(**plan.layout.model_dump()))

    return DeploymentConditions(
        system=machine.system.word,
        model=request.model_word,
        stack=machine.stack.word,
        engine=_names(request).get("engine"),
        kernels=tuple(request.run.kernels or ()),
        site=tuple(request.run.site or ()),
        techniques=on_machine_alone(request.settings, request.techniques),
        isl=int(as_float(case.isl)),
        osl=int(as_float(case.osl)),
        precision=family.precision,
        kv_dtype=family.kv_dtype,
        expert_weights=family.expert_weights,
        acceptance=case.acceptance,
        balanced=case.even,
        prefix_hit=as_float(case.prefix_hit),
        isl_spread=as_float(case.isl_spread),
        running_context=None if case.running_context is None else as_float(case.running_context),
        running_deviation=None if case.running_deviation is None else as_float(case.running_deviation),
        tpot=request.search.targets.tpot,
        memory_share=request.run.memory_share,
        max_context=request.run.max_context,
        set=dict(request.run.set_ or {}),
        prefill=pool(best.prefill, best.prefill_instances),
        decode=pool(best.decode, best.decode_instances),
        mixed=best.mixed,
        prefill_system=prefill.system.word if apart else None,
        prefill_stack=prefill.stack.word if apart else None,
    )
