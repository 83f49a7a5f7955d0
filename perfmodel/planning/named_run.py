"""What a word names, set up to be varied: a plan file, a published row of one pool, or a published deployment."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from perfmodel.files.catalog import load_model
from perfmodel.files.plans import refuse_no_plan
from perfmodel.files.results import find
from perfmodel.planning import inputs
from perfmodel.planning.best_batches import as_it_is
from perfmodel.planning.choices import precision_remarks
from perfmodel.planning.compare import Instances, Whole, whole_of
from perfmodel.planning.hypothetical import asked_numbers, refuse_two_shares, told
from perfmodel.planning.plan_file import load_plan
from perfmodel.planning.pools import Pool, Run
from perfmodel.planning.site import machine_of
from perfmodel.planning.software import software_of
from perfmodel.prediction.joined_pools import of_deployment
from perfmodel.prediction.scenario import of_conditions, resolve
from perfmodel.specs.conditions import Conditions, DeploymentConditions, conditions_of
from perfmodel.specs.deployment import PHASES, Phase
from perfmodel.specs.machine import EngineSpec
from perfmodel.specs.model import ModelSpec
from perfmodel.specs.plan import Asked, PlanSpec
from perfmodel.specs.precision import keys_of
from perfmodel.supply.machine import Machine
from perfmodel.supply.set_numbers import refuse_unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedRun:
    """What a word names, set up."""

    run: Run
    plan: PlanSpec | None = None
    #: both pools together, and the instances of each, where there are two
    whole: Whole | None = None
    instances: Instances = field(default_factory=dict)
    #: what schedules its decode pool, or its only one; none where the stack has no engine on file
    engine: EngineSpec | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """What a word names, as read: conditions and machines of each pool."""

    model: ModelSpec
    each: Mapping[Phase, Conditions]
    machines: Mapping[Phase, Machine]
    #: none of a published row of one pool
    deployment: DeploymentConditions | None
    plan: PlanSpec | None = None
    remarks: tuple[str, ...] = ()

    def with_keys(self, keys: Mapping[str, Any]) -> "_Read":
        """Return it with keys that all pools share set otherwise."""
        each = {phase: one.model_copy(update=keys) for phase, one in self.each.items()}
        deployment = None if self.deployment is None else self.deployment.model_copy(update=keys)
        return replace(self, each=each, deployment=deployment)


def _read(word: str, max_context: int | None) -> _Read:
    if word.lower().endswith(".json"):
        loaded = load_plan(word, max_context)
        conditions = loaded.spec.conditions
        return _Read(
            model=loaded.model.spec,
            each={phase: conditions_of(conditions, phase) for phase in PHASES},
            machines=loaded.machines,
            deployment=conditions,
            plan=loaded.spec,
            remarks=loaded.remarks,
        )
    if word.lower().endswith((".yaml", ".yml")):
        refuse_no_plan(Path(word))
    kind, known = find(word, ("evidence", "deployments"))
    stated = known.spec.conditions
    each: dict[Phase, Conditions] = (
        {phase: conditions_of(stated, phase) for phase in PHASES} if kind == "deployments" else {stated.phase: stated}
    )
    return _Read(
        model=load_model(stated.model, max_context or stated.max_context).spec,
        each=each,
        machines={phase: machine_of(one) for phase, one in each.items()},
        deployment=stated if kind == "deployments" else None,
    )


def named_run(
    word: str,
    stack: str | None = None,
    acceptance: str | None = None,
    tpot: float | None = None,
    ttft: float | None = None,
    site: tuple[str, ...] = (),
    engine: str | None = None,
    max_context: int | None = None,
    numbers: Mapping[str, str] | None = None,
    precision: str | None = None,
) -> NamedRun:
    """Return what a word names, with what is given of stack, engine, acceptance, limits, site and precision.

    ``numbers`` of its machine are set by hand.  Raises ``UsageError`` for lengths beyond a ``max_context``.
    """
    read = _read(word, max_context)
    if precision is not None:
        read = read.with_keys(keys_of(precision))
    plan, model, deployment = read.plan, read.model, read.deployment
    asked = Asked() if plan is None else plan.wanted
    batches: dict[Phase, int] = {}
    if deployment is not None:
        rates = {phase: machine.rates() for phase, machine in read.machines.items()}
        joined = of_deployment(deployment, model, rates["decode"], rates["prefill"])
        batches = {"prefill": joined.prefill.plan.layout.batch, "decode": joined.decode.plan.layout.batch}
    pools: dict[Phase, Pool] = {}
    remarks: list[str] = []
    scheduled: EngineSpec | None = None
    for phase, conditions in read.each.items():
        if max_context is not None:
            inputs.check_lengths(model, conditions.isl, conditions.osl)
        layout = conditions.layout.model_copy(update={"batch": batches.get(phase, conditions.layout.batch)})
        accepted = inputs.read_acceptance(acceptance, model)[0] if acceptance else conditions.acceptance
        software = software_of(conditions.system, stack=stack, engine=engine, own=conditions.stack)
        remarks += software.remarks
        scheduled = software.engine  # decode is last
        changed = conditions.model_copy(
            update={
                "stack": software.stack,
                "site": site or conditions.site,
                "max_context": max_context or conditions.max_context,
                "set": asked_numbers(conditions.set, numbers or {}),
                "tpot": tpot or conditions.tpot,
                "layout": layout,
                "acceptance": accepted,
            }
        )
        same = software.stack == conditions.stack and not site and not numbers
        machine = read.machines[phase] if same else machine_of(changed)
        pools[phase] = Pool(conditions=_with_batch(changed, model, machine), machine=machine)
    machines = [pool.machine for pool in pools.values()]
    if numbers:
        refuse_unknown(numbers, machines)
        refuse_two_shares(numbers, next(iter(pools.values())).conditions.memory_share)
    remarks += told(machines)
    first = next(iter(pools.values()))
    run = Run(
        model=model,
        pools=pools,
        tpot=tpot or first.conditions.tpot,
        ttft=ttft or asked.ttft,
        utilisation=asked.utilisation,
        mixed=deployment is not None and deployment.mixed,
    )
    whole = None if deployment is None else whole_of(deployment, run, asked, plan.run if plan else None)
    if run.tpot is None and "decode" in pools:
        run = replace(run, tpot=as_it_is(run).tpot)
    counts: dict[Phase, int] = {}
    if deployment is not None:
        counts = {"prefill": deployment.prefill.instances, "decode": deployment.decode.instances}
    return NamedRun(
        run=run,
        plan=plan,
        whole=whole,
        instances=counts,
        engine=scheduled,
        remarks=tuple(dict.fromkeys((*read.remarks, *remarks, *_precision_remarks(run)))),
    )


def _precision_remarks(run: Run) -> tuple[str, ...]:
    told = (
        precision_remarks(run.model, pool.conditions.precision, pool.conditions.expert_weights, (pool.machine,))
        for pool in run.pools.values()
    )
    return tuple(dict.fromkeys(text for texts in told for text in texts))


def _with_batch(conditions: Conditions, model: ModelSpec, machine: Machine) -> Conditions:
    """Return conditions with an open batch, and an open overlap, filled in."""
    chosen = resolve(of_conditions(conditions, model, machine.rates())).plan.layout
    layout = conditions.layout.model_copy(
        update={"batch": chosen.batch, "overlap": chosen.overlap, "attention_cores": chosen.attention_cores}
    )
    return conditions.model_copy(update={"layout": layout})
