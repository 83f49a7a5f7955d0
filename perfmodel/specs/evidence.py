"""Published results: of one pool, of whole deployments, and what other models predict for them."""

import re
from typing import Annotated, Literal, TypeVar

from annotated_types import Gt
from pydantic import AfterValidator, Field, Strict, ValidationInfo, field_validator, model_validator

from perfmodel.specs.base import PositiveInt, Source, Spec
from perfmodel.specs.conditions import OF_MACHINE, Conditions, DeploymentConditions
from perfmodel.specs.open_conditions import OpenCondition, check_open

#: what clients measure
ClientQuantity = Literal[
    "tokens_per_s_per_card",
    "requests_per_s",
    "tpot",
    "tpot_p50",
    "tpot_p90",
    "tpot_p99",
    "ttft",
    "ttft_p50",
    "ttft_p90",
    "ttft_p99",
    "itl_max",
    "e2e",
]
#: layer and lanes are those of a mixture-of-experts layer, the lanes of one micro-batch
Quantity = Literal["step_time", ClientQuantity, "latency", "layer_time", "attention_lane", "experts_lane"]
PERCENTILE = re.compile(r"_p\d\d$")
#: what clients of mixed instances measure
OF_CLIENTS = ("tpot", "ttft", "itl_max", "e2e", "requests_per_s", "tokens_per_s_per_card")


R = TypeVar("R", "EvidenceSpec", "DeploymentSpec")


def _measurable(value: float) -> float:
    """Refuse what nobody measures: shorter than a nanosecond, longer than some decades, or a rate as far from one."""
    if not 1e-9 <= value <= 1e9:
        raise ValueError(f"found {value:g}; allowed: from 1e-9 to 1e9, in seconds or per second")
    return value


PositiveValue = Annotated[float, Strict(), Gt(0), Field(allow_inf_nan=False), AfterValidator(_measurable)]


RATE = "tokens_per_s_per_card"
#: what full batches tell of a deployment without its clients
OF_FULL_BATCHES = (RATE, "tpot")
#: quantities that are rates; the others are times
RATES = (RATE, "requests_per_s")


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
        allowed = "1/s" if quantity in RATES else "s"
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


#: a loop that feeds full batches, or a client that measured an engine in service
MeasuredOn = Literal["driver", "service"]


#: what the model leaves out differs by: how it was measured, and whether it is a first token under a load
LeftOutOf = Literal["driver", "service", "first_token"]


def left_out_of(measured_on: MeasuredOn, quantity: str, *, loaded: bool) -> LeftOutOf:
    """Return what is left out of a quantity of a row, ``loaded`` where clients wait for each other."""
    return "first_token" if loaded and PERCENTILE.sub("", quantity) == "ttft" else measured_on


def _checked(row: R) -> R:
    """Refuse open conditions that cannot be, and a row that is itself predicted from others: it would tell of them."""
    if row.conditions.site:
        raise ValueError("conditions.site: allowed in plans alone; name the rows with --site, and leave it out here")
    check_open(row.conditions, row.open)
    return row


class EvidenceSpec(Spec):
    """One row."""

    name: str
    title: str
    source: str
    where: str
    date: str
    confidence: Literal["A", "B", "C", "D"]
    role: Literal["golden", "reference"]
    measured_on: MeasuredOn = "service"
    conditions: Conditions
    #: what the source leaves open: field -> what was assumed and why
    assumed: dict[str, str] = Field(default_factory=dict)
    #: what the source leaves open and what moves the result, as cases; the prediction is of all of them
    open: tuple[OpenCondition, ...] = ()
    measured: tuple[Measured, ...] = Field(min_length=1)
    #: ends of the lengths that the source leaves open; the prediction is then over all between them
    ranges: dict[Literal["isl", "osl"], tuple[PositiveInt, PositiveInt]] = Field(default_factory=dict)
    #: how the profile of a rank divides the step, waits inside the exchanges
    parts: tuple[PartOfStep, ...] = ()
    note: str | None = None
    sources: dict[str, Source]

    @model_validator(mode="after")
    def _open_can_be(self) -> "EvidenceSpec":
        return _checked(self)

    @model_validator(mode="after")
    def _quantities_are_of_the_run(self) -> "EvidenceSpec":
        of_clients = [one.quantity for one in self.measured if PERCENTILE.sub("", one.quantity) in OF_CLIENTS]
        if self.conditions.serving == "mixed":
            others = [one.quantity for one in self.measured if one.quantity not in of_clients]
            if others or self.measured_on != "service":
                raise ValueError(
                    f"serving: mixed with {', '.join(others) or 'measured_on: driver'}; allowed: what clients of a "
                    f"service measure: {', '.join(OF_CLIENTS)}, and _p50, _p90, _p99 of times"
                )
            return self
        only_mixed = [name for name in of_clients if name not in ("tpot", "ttft", RATE)]
        if only_mixed:
            raise ValueError(
                f"{', '.join(only_mixed)} of one pool; allowed: with serving: mixed, as its clients count it"
            )
        if any(one.quantity == "ttft" for one in self.measured) and (
            self.conditions.phase != "prefill" or self.measured_on != "service"
        ):
            raise ValueError(
                f"ttft of {self.conditions.phase}, measured on a {self.measured_on}; allowed: of prefill, as a client "
                "of a service counts it; the time of a step alone is a latency"
            )
        return self

    @model_validator(mode="after")
    def _parts_can_be_told(self) -> "EvidenceSpec":
        if any(part.of == "step" for part in self.parts) and self.conditions.layout.overlap != "none":
            raise ValueError(
                f"parts of a step under overlap {self.conditions.layout.overlap!r}; allowed: under 'none', where a "
                "profile shows waits inside the exchanges; use 'of: layer'"
            )
        return self


class DeploymentMeasured(Measured):
    """One measured quantity of a deployment in SI units; rates of tokens are per card of both pools."""

    quantity: ClientQuantity


class DeploymentSpec(Spec):
    """One published result of a whole deployment, its pools apart from each other."""

    name: str
    title: str
    source: str
    where: str
    date: str
    confidence: Literal["A", "B", "C", "D"]
    role: Literal["golden", "reference"]
    measured_on: MeasuredOn = "service"
    conditions: DeploymentConditions
    #: what the source leaves open: field -> what was assumed and why
    assumed: dict[str, str] = Field(default_factory=dict)
    #: what the source leaves open and what moves the result, as cases; the prediction is of all of them
    open: tuple[OpenCondition, ...] = ()
    measured: tuple[DeploymentMeasured, ...] = Field(min_length=1)
    note: str | None = None
    sources: dict[str, Source]

    @model_validator(mode="after")
    def _open_can_be(self) -> "DeploymentSpec":
        for one in self.open:
            if one.key in (*OF_MACHINE, "prefill_system", "prefill_stack"):
                raise ValueError(f"open: {one.key!r}; allowed of a deployment: keys of its service and its layouts")
        return _checked(self)

    @model_validator(mode="after")
    def _waits_need_a_load(self) -> "DeploymentSpec":
        if self.conditions.loaded:
            return self
        waits = [one.quantity for one in self.measured if one.quantity not in OF_FULL_BATCHES]
        if waits or self.conditions.mixed:
            raise ValueError(
                f"{', '.join(waits) or 'mixed'} without a load; add concurrency, the clients of a closed loop, "
                "or rate, the requests a second of an open one"
            )
        return self


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
