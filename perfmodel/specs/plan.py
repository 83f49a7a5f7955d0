"""A plan as a file: everything that reproduces it, and the numbers it stood for when it was written."""

from typing import Annotated, Literal

from annotated_types import Gt, Le
from pydantic import Field

from perfmodel.specs.base import PositiveInt, Spec
from perfmodel.specs.conditions import DeploymentConditions
from perfmodel.specs.run import UTILISATION, RunSpec

FinitePositive = Annotated[float, Gt(0), Field(allow_inf_nan=False)]


class Asked(Spec):
    """What a plan was asked to meet; TPOT stands with the conditions."""

    cards: PositiveInt | None = None
    requests_per_s: Annotated[float, Gt(0)] | None = None
    ttft: Annotated[float, Gt(0)] | None = None
    utilisation: Annotated[float, Gt(0), Le(1)] = UTILISATION
    objective: str = "throughput"


class Predicted(Spec):
    """What was predicted for the plan when it was written; SI units, cards of whole servers."""

    tpot: FinitePositive
    ttft: FinitePositive
    requests_per_s: FinitePositive
    tokens_per_s_per_card: FinitePositive


class PlanSpec(Spec):
    """A plan: both pools, every technique by name and setting, the files it was made from."""

    #: version of this form
    format: Literal["moeplan.plan/1"] = "moeplan.plan/1"
    version: Annotated[str, Field(pattern=r"^[\w.+!-]{1,40}$")]
    conditions: DeploymentConditions
    #: the run-spec that found it, where a search did: with it and the files the plan can be found again
    run: RunSpec | None = None
    #: what a plan that no search found is to meet; of others the run-spec says it
    asked: Asked | None = None
    #: setting of every technique on file, pool by pool
    techniques: dict[Literal["prefill", "decode"], dict[str, str]]
    predicted: Predicted
    #: data file -> SHA-256 of its content: below the data's root; from the plan's folder where it starts with './';
    #: whole where it starts with '/'
    files: dict[str, str] = Field(default_factory=dict)

    @property
    def wanted(self) -> Asked:
        """What the plan was asked to meet."""
        if self.run is None:
            return self.asked or Asked()
        run = self.run.filled()
        return Asked(
            cards=run.cards,
            requests_per_s=run.rate,
            ttft=run.ttft,
            utilisation=run.utilisation or UTILISATION,
            objective=run.aim,
        )
