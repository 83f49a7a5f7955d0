"""Plans as files: made from an answer of the solver, checked and set up again when read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from perfmodel import __version__
from perfmodel.algebra import as_float
from perfmodel.errors import DataError, UsageError, did_you_mean
from perfmodel.files.catalog import load_model, load_techniques
from perfmodel.files.machines import load_conditions
from perfmodel.files.plans import changed_since, read_plan
from perfmodel.prediction.deployment import Deployment, PoolPlan
from perfmodel.prediction.joined_pools import JoinedPools, of_deployment
from perfmodel.specs.base import Known
from perfmodel.specs.deployment import Phase
from perfmodel.specs.evidence import Conditions, DeploymentConditions, LayoutConditions, Pool
from perfmodel.specs.model import ModelSpec
from perfmodel.specs.plan import Asked, PlanSpec, Predicted
from perfmodel.specs.run import RunSpec
from perfmodel.supply.machine import Machine
from perfmodel.supply.techniques import Technique, setting_of

PHASES: tuple[Phase, ...] = ("prefill", "decode")


def conditions_of(conditions: DeploymentConditions, phase: Phase) -> Conditions:
    """Return the conditions of one pool of a deployment."""
    pool = conditions.prefill if phase == "prefill" else conditions.decode
    shared = conditions.model_dump(
        exclude={"prefill", "decode", "concurrency", "mixed", "prefill_system", "prefill_stack"}
    )
    if phase == "prefill" and conditions.prefill_system is not None:
        shared |= {"system": conditions.prefill_system, "kernels": ()}
        shared["stack"] = conditions.prefill_stack or conditions.stack
    return Conditions(**{**shared, "phase": phase, "layout": pool.layout.model_dump()})


def settings(
    conditions: Conditions, machine: Machine, model: ModelSpec, techniques: Iterable[Technique]
) -> dict[str, str]:
    """Return the setting of every technique in a run of one pool."""
    return {
        one.spec.name: setting_of(one, conditions, conditions.layout, machine, model)
        for one in techniques
        if conditions.phase in one.spec.applies.phases
    }


def pool_of(plan: PoolPlan, instances: int) -> Pool:
    """Return a pool of the solver's answer as a file states it."""
    return Pool(instances=instances, layout=LayoutConditions(**plan.layout.model_dump()))


def plan_spec(
    best: Deployment,
    conditions: DeploymentConditions,
    *,
    run: RunSpec,
    machines: Mapping[Phase, Machine],
    model: ModelSpec,
    techniques: Mapping[str, Technique],
    version: str,
    files: Mapping[str, str],
) -> PlanSpec:
    """Return the file of a plan that the solver found under some conditions."""
    each = {phase: machine.rates().packages_per_server for phase, machine in machines.items()}
    cards = best.prefill_servers * each["prefill"] + best.decode_servers * each["decode"]
    return PlanSpec(
        version=version,
        conditions=conditions,
        run=run,
        techniques={
            phase: settings(conditions_of(conditions, phase), machines[phase], model, techniques.values())
            for phase in PHASES
        },
        predicted=Predicted(
            tpot=best.tpot,
            ttft=as_float(best.first_token.ttft),
            requests_per_s=best.requests_per_s,
            tokens_per_s_per_card=best.requests_per_s * as_float(conditions.osl) / cards,
        ),
        files=dict(files),
    )


SAME = 1e-6  # relative difference up to which a prediction is the same


def sustained_rate(wanted: Asked, joined: JoinedPools) -> float:
    """Return the requests per second of a plan: those of its slower pool at the load allowed, or those asked for."""
    most = wanted.utilisation * joined.requests_per_s
    return most if wanted.requests_per_s is None else min(most, wanted.requests_per_s)


def changed_predictions(plan: PlanSpec, machines: Mapping[Phase, Machine], model: ModelSpec, where: str) -> list[str]:
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
        if abs(value - then) > SAME * abs(then)
    ]


def check_settings(
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
        found = settings(conditions_of(plan.conditions, phase), machines[phase], model, techniques.values())
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


def load_plan(path: str) -> LoadedPlan:
    """Return the plan in a file, its techniques checked against its layouts and its stack.

    Raises ``DataError`` where settings differ or the file is no plan.
    """
    plan = read_plan(Path(path))
    machines = {phase: load_conditions(conditions_of(plan.conditions, phase)) for phase in PHASES}
    model = load_model(plan.conditions.model)
    check_settings(plan, machines, model.spec, load_techniques(), path)
    remarks = changed_since(plan)
    if plan.version != __version__:
        remarks.append(f"{path}: written by version {plan.version}, read by {__version__}")
    return LoadedPlan(
        spec=plan,
        model=model,
        machines=machines,
        remarks=(*remarks, *changed_predictions(plan, machines, model.spec, path)),
    )
