"""One published result: its conditions as a full scenario, and what was measured."""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from pydantic import Field

from perfmodel.specs.base import PositiveInt, Source, Spec
from perfmodel.specs.deployment import KvDtype, LayoutShape, Overlap, Phase, Precision

#: layer and lanes are those of a mixture-of-experts layer, the lanes of one micro-batch
Quantity = Literal[
    "step_time", "tpot", "tokens_per_s_per_card", "latency", "layer_time", "attention_lane", "experts_lane"
]


class LayoutConditions(LayoutShape):
    """Layout of the measured instance.

    ``batch`` may be open when a TPOT target fixed it; ``overlap`` "fastest" takes the one that is.
    """

    overlap: Overlap | Literal["fastest"] = "none"  # type: ignore[assignment]
    batch: PositiveInt | None = None


class Conditions(Spec):
    """Everything needed to predict the row."""

    system: str
    model: str
    stack: str
    #: kernel sets that come before those of the stack
    kernels: tuple[str, ...] = ()
    phase: Phase
    isl: PositiveInt
    osl: PositiveInt
    precision: Precision = "w8a8"
    kv_dtype: KvDtype = "bf16"
    #: accepted tokens added by each draft position
    acceptance: tuple[Annotated[float, Ge(0), Le(1)], ...] = ()
    #: whether the experts were forced to equal load in the run
    balanced: bool = False
    #: seconds; the target that fixed the batch where the batch is not published
    tpot: Annotated[float, Gt(0)] | None = None
    layout: LayoutConditions


class Measured(Spec):
    """One measured quantity in SI units (per card: per package)."""

    quantity: Quantity
    value: Annotated[float, Gt(0)]
    unit: str
    printed: str


class PartOfStep(Spec):
    """Time that a published profile of a rank gives to some of the operators of a step."""

    name: str
    #: rows of the ledger, or ``*`` for all that no other part names
    operators: tuple[str, ...] = Field(min_length=1)
    #: seconds in a step
    value: Annotated[float, Gt(0)]
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
    #: how the profile of a rank divides the step, waits inside the exchanges
    parts: tuple[PartOfStep, ...] = ()
    note: str | None = None
    sources: dict[str, Source]
