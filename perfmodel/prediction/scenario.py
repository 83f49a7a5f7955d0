"""One given layout -> checked, its open batch filled in, evaluated with plain numbers."""

import math
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from perfmodel.algebra import as_float
from perfmodel.errors import UsageError
from perfmodel.ledger.records import Family, Layout, Ledger, Traffic
from perfmodel.ledger.step import build_ledger
from perfmodel.prediction.breakdown import Breakdown, breakdown
from perfmodel.prediction.deployment import ROUND_OFF, PoolPlan, exact_pool
from perfmodel.prediction.layouts import LARGEST_BATCH, attention_core_options, layout_faults
from perfmodel.prediction.mixed import mixed_footprint, mixed_rate, mixed_time
from perfmodel.prediction.precisions import precision_faults
from perfmodel.prediction.serving import Case, PoolPoint
from perfmodel.specs.base import faults_in
from perfmodel.specs.conditions import Conditions, Service
from perfmodel.specs.deployment import LayoutSpec, Overlap, Phase
from perfmodel.specs.evidence import EvidenceSpec
from perfmodel.specs.model import ModelSpec
from perfmodel.specs.precision import USUAL, ExpertWeights, KvDtype, Precision
from perfmodel.supply.rates import Rates
from perfmodel.units import Fraction, PerSecond, Seconds

#: an overlap left open: the fastest is taken
FASTEST = "fastest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A layout as given; its batch may be open where a TPOT limit fixes it."""

    case: Case
    phase: Phase
    layout: dict[str, Any]
    tpot: float | None
    precision: Precision = USUAL
    kv_dtype: KvDtype = "bf16"
    expert_weights: ExpertWeights = "int8"
    #: a step of the other phase, where the same dies run both in turn
    partner: PoolPoint | None = None

    def _phases(self, point: PoolPoint) -> tuple[PoolPoint, PoolPoint]:
        """Return the steps of prefill and of decode."""
        assert self.partner is not None
        return (self.partner, point) if self.phase == "decode" else (point, self.partner)

    def tpot_of(self, point: PoolPoint) -> Seconds:
        """Return the time per output token, with prefill steps in between where dies run both; in prefill its own."""
        if self.partner is None or self.phase == "prefill":
            return point.tpot
        return mixed_time(self.partner, point)

    def share_of(self, point: PoolPoint) -> Fraction:
        """Return the part of the dies' time that this phase has: one where they run no other."""
        if self.partner is None:
            return 1.0
        prefill, decode = self._phases(point)
        of_decode = decode.tpot / mixed_time(prefill, decode)
        return of_decode if self.phase == "decode" else 1 - of_decode

    def tokens_of(self, point: PoolPoint) -> PerSecond:
        """Return output tokens, in prefill input tokens, per second of all time."""
        if self.partner is None:
            return point.tokens_per_s
        return mixed_rate(*self._phases(point)) * point.tokens_per_request

    def held(self, point: PoolPoint, layout: Layout) -> PoolPoint:
        """Return a step with the memory of both phases where the same dies run both."""
        if self.partner is None:
            return point
        prefill, decode = self._phases(point)
        prompts = prefill.in_flight / prefill.tokens_per_request
        return replace(point, footprint=mixed_footprint(prefill, decode, prompts / layout.ranks))


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """A checked layout with what it serves."""

    scenario: Scenario
    plan: PoolPlan
    batch_chosen: bool

    @property
    def point(self) -> PoolPoint:
        """What the instance serves."""
        return self.plan.point

    @property
    def tpot(self) -> float:
        """Time per output token, with prefill steps in between where the dies run both phases."""
        return as_float(self.scenario.tpot_of(self.point))

    @property
    def share(self) -> float:
        """Part of the dies' time that this phase has where nothing waits."""
        return as_float(self.scenario.share_of(self.point))

    @property
    def requests_per_s_per_card(self) -> float:
        """Requests per second of the instance, per package."""
        dies = self.plan.layout.dies / self.scenario.case.rates.dies_per_package
        return as_float(self.scenario.tokens_of(self.point)) / as_float(self.point.tokens_per_request) / dies

    @property
    def tokens_per_s_per_card(self) -> float:
        """Output tokens, in prefill input tokens, per second of the instance, per package."""
        dies = self.plan.layout.dies / self.scenario.case.rates.dies_per_package
        return as_float(self.scenario.tokens_of(self.point)) / dies

    @property
    def fits(self) -> bool:
        """Whether the planned memory is within what a die can use."""
        return as_float(self.point.memory) <= as_float(self.point.usable)

    @property
    def meets_tpot(self) -> bool:
        """Whether TPOT is within its limit; true where there is none or the phase has no TPOT."""
        limit = self.scenario.tpot
        return limit is None or self.scenario.phase != "decode" or self.tpot <= limit * (1 + ROUND_OFF)


def _layout_spec(values: dict[str, Any], batch: int) -> LayoutSpec:
    try:
        return LayoutSpec(**{**values, "batch": batch})
    except ValidationError as error:
        raise UsageError("\n".join(faults_in(error, inside="layout"))) from None


def _family(scenario: Scenario, layout: LayoutSpec) -> Family:
    return Family.of(
        layout,
        scenario.phase,
        precision=scenario.precision,
        kv_dtype=scenario.kv_dtype,
        expert_weights=scenario.expert_weights,
    )


def case_of(conditions: Service, model: ModelSpec, rates: Rates) -> Case:
    """Return what stays fixed under the conditions of a run while layouts vary."""
    return Case(
        model=model,
        rates=rates,
        isl=conditions.isl,
        osl=conditions.osl,
        acceptance=conditions.acceptance,
        even=conditions.balanced,
        prefix_hit=conditions.prefix_hit,
        isl_spread=conditions.isl_spread,
        running_context=conditions.running_context,
        running_deviation=conditions.running_deviation,
    )


def of_conditions(conditions: Conditions, model: ModelSpec, rates: Rates, partner: PoolPoint | None = None) -> Scenario:
    """Return the conditions of a run of one pool as a scenario; ``partner`` as a scenario has it."""
    return Scenario(
        case=case_of(conditions, model, rates),
        phase=conditions.phase,
        layout=conditions.layout.model_dump(),
        tpot=conditions.tpot,
        precision=conditions.precision,
        kv_dtype=conditions.kv_dtype,
        expert_weights=conditions.expert_weights,
        partner=partner,
    )


def of_evidence(spec: EvidenceSpec, model: ModelSpec, rates: Rates) -> Scenario:
    """Return the conditions of a published row as a scenario."""
    return of_conditions(spec.conditions, model, rates)


def ledger_of(plan: PoolPlan, case: Case, traffic: Traffic) -> Ledger:
    """Return the rows of one step of a plan."""
    return build_ledger(Layout.of(plan.layout), plan.family, traffic, case.model, case.dims)


def breakdown_of(resolved: Resolved) -> Breakdown:
    """Return the rows and blocks of a step of a layout, without the speed of light beside them."""
    plan, case = resolved.plan, resolved.scenario.case
    ledger = ledger_of(plan, case, case.traffic)
    return breakdown(ledger, plan.family, plan.layout.attention_cores, case.rates, case.rates)


def resolve(scenario: Scenario) -> Resolved:
    """Return the layout evaluated; an open batch becomes the largest that meets TPOT and fits memory.

    Raises ``UsageError`` listing every structural rule the layout breaks.
    """
    given = scenario.layout.get("batch")
    overlap = scenario.layout.get("overlap")
    if overlap == FASTEST or (overlap == "cores" and not scenario.layout.get("attention_cores")):
        return _fastest(scenario)
    layout = _layout_spec(scenario.layout, 1 if given is None else given)
    faults = layout_faults(layout, scenario.phase, scenario.case.model, scenario.case.rates)
    if layout.draft > len(scenario.case.acceptance):
        faults.append(
            f"draft: {layout.draft}, but acceptance is known for {len(scenario.case.acceptance)} position(s); "
            "give --acceptance with one value per position"
        )
    faults += precision_faults(scenario.precision, scenario.kv_dtype, scenario.expert_weights, scenario.case.rates)
    if faults:
        raise UsageError("\n".join(faults))
    family = _family(scenario, layout)
    if given is not None:
        return Resolved(scenario=scenario, plan=_pool(layout, family, scenario), batch_chosen=False)
    if scenario.phase == "prefill":
        raise UsageError("batch: not given; prefill has no TPOT to choose it by; give --batch N, prompts per dp rank")
    if scenario.tpot is None:
        raise UsageError("batch: not given and no TPOT limit to choose it by; give --batch N or --tpot T")
    return Resolved(scenario=scenario, plan=_largest(layout, family, scenario), batch_chosen=True)


def _fastest(scenario: Scenario) -> Resolved:
    """Return the overlap and core split with the highest rate among those that meet TPOT, else the lowest TPOT.

    At a given batch the two are the same.  Of overlap "cores" without a split it is the split.
    """
    choices: tuple[Overlap, ...] = ("none", "cores") if scenario.phase == "decode" else ("none", "link")
    if scenario.layout.get("overlap") == "cores":
        choices = ("cores",)
    found = []
    for overlap in choices:
        for cores in attention_core_options(overlap, scenario.case.rates):
            layout = {**scenario.layout, "overlap": overlap, "attention_cores": int(cores)}
            found.append(resolve(replace(scenario, layout=layout)))
    return min(found, key=lambda one: (not one.meets_tpot, not one.fits, -as_float(one.point.tokens_per_s)))


def _pool(layout: LayoutSpec, family: Family, scenario: Scenario) -> PoolPlan:
    """Return a layout evaluated, with the memory of both phases where the same dies run both."""
    plan = exact_pool(layout, family, scenario.case)
    return replace(plan, point=scenario.held(plan.point, Layout.of(layout)))


def _largest(layout: LayoutSpec, family: Family, scenario: Scenario) -> PoolPlan:
    """Return the largest batch within both limits; batch 1 where none is."""
    best = _pool(layout, family, scenario)
    limit = math.inf if scenario.tpot is None else scenario.tpot
    low, high = 1, LARGEST_BATCH
    while low < high:  # TPOT and memory never fall with the batch (property-tested)
        middle = (low + high + 1) // 2
        plan = _pool(layout.model_copy(update={"batch": middle}), family, scenario)
        tpot, memory = as_float(scenario.tpot_of(plan.point)), as_float(plan.point.memory)
        if tpot <= limit and memory <= as_float(plan.point.usable):
            low, best = middle, plan
        else:
            high = middle - 1
    return best
