"""Published results: of one pool, of whole deployments, and what other models predict for them."""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import Field, ValidationInfo, field_validator, model_validator

from perfmodel.specs.base import PositiveInt, Source, Spec
from perfmodel.specs.deployment import ExpertWeights, KvDtype, LayoutShape, Overlap, Phase, Precision

#: layer and lanes are those of a mixture-of-experts layer, the lanes of one micro-batch
Quantity = Literal[
    "step_time", "tpot", "tokens_per_s_per_card", "latency", "layer_time", "attention_lane", "experts_lane"
]


PositiveValue = Annotated[float, Gt(0), Field(allow_inf_nan=False)]


class LayoutConditions(LayoutShape):
    """Layout of the measured instance.

    ``batch`` may be open when a TPOT target fixed it; ``overlap`` "fastest" takes the one that is.
    """

    overlap: Overlap | Literal["fastest"] = "none"  # type: ignore[assignment]  # wider than a layout that can be run
    batch: PositiveInt | None = None


class Service(Spec):
    """What every pool of a run shares: machine, model, lengths, precisions, techniques."""

    system: str
    model: str
    stack: str
    #: kernel sets that come before those of the stack
    kernels: tuple[str, ...] = ()
    #: techniques set otherwise than the stack comes with them
    techniques: dict[str, str] = Field(default_factory=dict)
    isl: PositiveInt
    osl: PositiveInt
    precision: Precision = "w8a8"
    kv_dtype: KvDtype = "bf16"
    expert_weights: ExpertWeights = "int8"
    #: accepted tokens added by each draft position
    acceptance: tuple[Annotated[float, Ge(0), Le(1)], ...] = ()
    #: whether the experts were forced to equal load in the run
    balanced: bool = False
    #: part of a prompt whose cache is found ready
    prefix_hit: Annotated[float, Ge(0), Lt(1)] = 0.0
    #: relative spread of the lengths of the prompts that are batched together
    isl_spread: Annotated[float, Ge(0), Le(3)] = 0.0
    #: seconds; the target that fixed the batch of decode where it is not published
    tpot: Annotated[float, Gt(0)] | None = None


class Conditions(Service):
    """Everything needed to predict the row."""

    phase: Phase
    layout: LayoutConditions

    @model_validator(mode="after")
    def _acceptance_known(self) -> "Conditions":
        if self.phase == "decode" and self.layout.draft > len(self.acceptance):
            raise ValueError(
                f"acceptance has {len(self.acceptance)} value(s) for {self.layout.draft} draft position(s); "
                "allowed: one for each, the accepted tokens it adds"
            )
        return self


#: the one quantity that is a rate; the others are times
RATE = "tokens_per_s_per_card"


class Measured(Spec):
    """One measured quantity in SI units (per card: per package)."""

    quantity: Quantity
    value: PositiveValue
    unit: str
    printed: str

    @field_validator("unit")
    @classmethod
    def _unit_is_si(cls, unit: str, info: ValidationInfo) -> str:
        quantity = info.data.get("quantity")
        allowed = "1/s" if quantity == RATE else "s"
        if quantity is not None and unit != allowed:
            raise ValueError(f"found {unit!r}; allowed: {allowed!r} for {quantity}; convert the value")
        return unit


class PartOfStep(Spec):
    """Time that a published profile of a rank gives to some of the operators of a step."""

    name: str
    #: rows of the ledger, or ``*`` for all that no other part names
    operators: tuple[str, ...] = Field(min_length=1)
    #: seconds, in a step or in one layer of one micro-batch
    value: Annotated[float, Gt(0)]
    of: Literal["step", "layer"] = "step"
    printed: str


class EvidenceSpec(Spec):
    """One row."""

    name: str
    title: str
    source: str
    where: str
    date: str
    confidence: Literal["A", "B", "C", "D"]
    role: Literal["golden", "reference"]
    conditions: Conditions
    #: what the source leaves open: field -> what was assumed and why
    assumed: dict[str, str] = Field(default_factory=dict)
    measured: tuple[Measured, ...] = Field(min_length=1)
    #: ends of the lengths that the source leaves open; the prediction is then over all between them
    ranges: dict[Literal["isl", "osl"], tuple[PositiveInt, PositiveInt]] = Field(default_factory=dict)
    #: how the profile of a rank divides the step, waits inside the exchanges
    parts: tuple[PartOfStep, ...] = ()
    note: str | None = None
    sources: dict[str, Source]

    @model_validator(mode="after")
    def _parts_can_be_told(self) -> "EvidenceSpec":
        if any(part.of == "step" for part in self.parts) and self.conditions.layout.overlap != "none":
            raise ValueError(
                f"parts of a step under overlap {self.conditions.layout.overlap!r}; allowed: under 'none', where a "
                "profile shows waits inside the exchanges; use 'of: layer'"
            )
        return self


class Pool(Spec):
    """One pool of a deployment: equal instances of one layout."""

    instances: PositiveInt
    layout: LayoutConditions


class DeploymentConditions(Service):
    """What both pools of a deployment share, and the pools."""

    #: requests that the clients keep in the whole deployment; they fix the batch of decode where it is open
    concurrency: PositiveInt | None = None
    #: whether every instance runs both phases on the same dies, in turn
    mixed: bool = False
    #: system and stack of the prefill pool where they are others than decode's; kernel sets are then decode's alone
    prefill_system: str | None = None
    prefill_stack: str | None = None
    prefill: Pool
    decode: Pool

    @model_validator(mode="after")
    def _batches_known(self) -> "DeploymentConditions":
        if self.mixed and (self.prefill_system or self.prefill.instances != self.decode.instances):
            raise ValueError("mixed instances run both phases; allowed: one system, as many of prefill as of decode")
        if self.prefill.layout.batch is None:
            raise ValueError("prefill.layout.batch is open; allowed: prompts per dp rank; add it")
        if self.decode.layout.batch is None and self.concurrency is None and self.tpot is None:
            raise ValueError("nothing fixes the batch of decode; add decode.layout.batch, concurrency or tpot")
        return self


class DeploymentMeasured(Measured):
    """One measured quantity of a deployment in SI units; rates are per card of both pools."""

    quantity: Literal["tokens_per_s_per_card", "tpot"]


class DeploymentSpec(Spec):
    """One published result of a whole deployment, its pools apart from each other."""

    name: str
    title: str
    source: str
    where: str
    date: str
    confidence: Literal["A", "B", "C", "D"]
    role: Literal["golden", "reference"]
    conditions: DeploymentConditions
    #: what the source leaves open: field -> what was assumed and why
    assumed: dict[str, str] = Field(default_factory=dict)
    measured: tuple[DeploymentMeasured, ...] = Field(min_length=1)
    note: str | None = None
    sources: dict[str, Source]


class PeerResult(Spec):
    """What another model predicts for a published result: predicted over measured, less one."""

    row: str
    quantity: Quantity
    error: Annotated[float, Gt(-1)]
    note: str | None = None


class PeerSpec(Spec):
    """Another model and its errors on published results."""

    name: str
    title: str
    source: str
    results: tuple[PeerResult, ...] = Field(min_length=1)
    note: str | None = None
    sources: dict[str, Source]
