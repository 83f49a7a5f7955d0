"""A plan as a file: everything that reproduces it, and the numbers it stood for when it was written."""

from typing import Annotated, Literal

from annotated_types import Gt, Le
from pydantic import Field

from perfmodel.specs.base import Spec
from perfmodel.specs.evidence import DeploymentConditions
from perfmodel.specs.run import RunSpec


class Asked(Spec):
    """What the plan was asked to meet; TPOT stands with the conditions."""

    cards: int | None = None
    requests_per_s: Annotated[float, Gt(0)] | None = None
    ttft: Annotated[float, Gt(0)] | None = None
    utilisation: Annotated[float, Gt(0), Le(1)] = 0.8
    objective: str = "throughput"


class Predicted(Spec):
    """What was predicted for the plan when it was written; SI units."""

    tpot: float
    ttft: float
    requests_per_s: float
    tokens_per_s_per_card: float


class PlanSpec(Spec):
    """A plan: both pools, every technique by name and setting, the files it was made from."""

    #: version of this form
    format: Literal["moeplan.plan/1"] = "moeplan.plan/1"
    version: str
    conditions: DeploymentConditions
    asked: Asked
    #: the run-spec that found it, where a search did: with it and the files the plan can be found again
    run: RunSpec | None = None
    #: setting of every technique on file, pool by pool
    techniques: dict[Literal["prefill", "decode"], dict[str, str]]
    predicted: Predicted
    #: data file -> SHA-256 of its content
    files: dict[str, str] = Field(default_factory=dict)
