"""What a run is set up with: machine, model, lengths, precisions, techniques, and the layout of each pool."""

from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Gt, Le, Lt
from pydantic import Field, model_validator

from perfmodel.specs.base import LEAST, MOST, PositiveInt, Spec
from perfmodel.specs.deployment import LARGEST_VERIFIED, LayoutShape, Overlap, Phase
from perfmodel.specs.precision import USUAL, ExpertWeights, KvDtype, Precision, keys_of, stands_for


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
    precision: Precision = USUAL
    kv_dtype: KvDtype = "bf16"
    expert_weights: ExpertWeights = "int8"
    #: accepted tokens added by each draft position
    acceptance: Annotated[tuple[Annotated[float, Ge(0), Le(1)], ...], Field(max_length=LARGEST_VERIFIED - 1)] = ()
    #: whether the experts were forced to equal load in the run
    balanced: bool = False
    #: part of a prompt whose cache is found ready
    prefix_hit: Annotated[float, Ge(0), Lt(1)] = 0.0
    #: relative spread of the lengths of the prompts that are batched together
    isl_spread: Annotated[float, Ge(0), Le(3)] = 0.0
    #: where lengths are spread, mean and standard deviation of the context of a request that runs: long answers are met
    #: more often; else the input and half of the output
    running_context: Annotated[float, Ge(1), Le(MOST)] | None = None
    running_deviation: Annotated[float, Ge(0), Le(MOST)] | None = None
    #: rows measured where it is to run, by name or file: what is predicted is of that site
    site: tuple[str, ...] = ()
    #: share of the memory that a framework sees which the engine takes, where it is not the stack's
    memory_share: Annotated[float, Gt(0), Ge(LEAST), Le(1)] | None = None
    #: tokens of context that the model takes at most, where it is not what its file says
    max_context: PositiveInt | None = None
    #: numbers of the machine that are set by hand, as a command takes them: hbm: +50%
    set: dict[str, Annotated[str, Field(max_length=100)]] = Field(default_factory=dict)
    #: seconds; the target that fixed the batch of decode where it is not published
    tpot: Annotated[float, Gt(0)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _precision_by_any_name(cls, values: Any) -> Any:
        """Take a precision that is a name of two keys as those two, so that techniques find what they set."""
        if not isinstance(values, dict) or not stands_for(values.get("precision")):
            return values
        meant = keys_of(values["precision"])
        if values.get("expert_weights", meant["expert_weights"]) != meant["expert_weights"]:
            raise ValueError(
                f"precision: {values['precision']} with expert_weights {values['expert_weights']}; allowed: "
                f"{meant['expert_weights']}, or leave it out"
            )
        return {**values, **meant}


#: keys of a run that choose its machine
OF_MACHINE = ("system", "stack", "kernels", "techniques", "memory_share", "set")


#: whether each pool runs one phase, or every instance runs both on the same dies
Serving = Literal["disaggregated", "mixed"]


class Load(Service):
    """What clients put on a service, and who schedules it."""

    #: what schedules the requests; the first of the stack where it is not said
    engine: str | None = None
    #: clients of a closed loop: requests that are under way at most
    concurrency: PositiveInt | None = None
    #: requests a second that are offered: of an open loop, or of a closed one until all its clients are busy
    rate: Annotated[float, Gt(0), Ge(LEAST)] | None = None
    #: what the clients sent in all, their first wave included
    requests: PositiveInt | None = None
    #: standard deviation over mean of the lengths that clients send
    isl_cv: Annotated[float, Ge(0), Le(10)] | None = None
    osl_cv: Annotated[float, Ge(0), Le(10)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _lengths_with_their_spread(cls, values: Any) -> Any:
        """Take lengths as ``{mean: 4096, cv: 1.3}`` too."""
        if not isinstance(values, dict):
            return values
        taken = dict(values)
        for name in ("isl", "osl"):
            length = taken.get(name)
            if isinstance(length, dict) and set(length) == {"mean", "cv"}:
                taken[name], taken[f"{name}_cv"] = length["mean"], length["cv"]
        return taken

    @property
    def loaded(self) -> bool:
        """Whether it is said how clients send, so that their waits can be told."""
        return self.concurrency is not None or self.rate is not None


#: keys of a load that pools alone do not have
OF_LOAD = ("engine", "concurrency", "rate", "requests", "isl_cv", "osl_cv")


class Conditions(Load):
    """Everything needed to predict the row."""

    phase: Phase
    layout: LayoutConditions
    serving: Serving = "disaggregated"

    @model_validator(mode="after")
    def _load_can_be(self) -> "Conditions":
        if self.serving == "mixed" and self.phase != "decode":
            raise ValueError("serving: mixed with phase prefill; allowed: phase decode, prefill runs on the same dies")
        if self.serving == "mixed" and not self.loaded:
            raise ValueError("serving: mixed without a load; add concurrency, the clients, or rate, requests a second")
        return self

    @model_validator(mode="after")
    def _acceptance_known(self) -> "Conditions":
        if self.phase == "decode" and self.layout.draft > len(self.acceptance):
            raise ValueError(
                f"acceptance has {len(self.acceptance)} value(s) for {self.layout.draft} draft position(s); "
                "allowed: one for each, the accepted tokens it adds"
            )
        return self


class Pool(Spec):
    """One pool of a deployment: equal instances of one layout."""

    instances: PositiveInt
    layout: LayoutConditions


class DeploymentConditions(Load):
    """What both pools of a deployment share, and the pools.

    Clients of a closed loop fix the batch of decode where it is open.
    """

    #: whether every instance runs both phases on the same dies, in turn
    mixed: bool = False
    #: system and stack of the prefill pool where they are others than decode's; kernel sets are then decode's alone
    prefill_system: str | None = None
    prefill_stack: str | None = None
    prefill: Pool
    decode: Pool

    @model_validator(mode="before")
    @classmethod
    def _serving_says_mixed(cls, values: Any) -> Any:
        """Take ``serving: mixed`` too."""
        if not isinstance(values, dict) or values.get("serving") not in get_args(Serving):
            return values
        taken = dict(values)
        mixed = taken.pop("serving") == "mixed"
        if taken.setdefault("mixed", mixed) is not mixed:
            raise ValueError(f"serving: {values['serving']} with mixed: {values['mixed']}; allowed: one of both")
        return taken

    @model_validator(mode="after")
    def _batches_known(self) -> "DeploymentConditions":
        if self.mixed and (self.prefill_system or self.prefill.instances != self.decode.instances):
            raise ValueError("mixed instances run both phases; allowed: one system, as many of prefill as of decode")
        if self.decode.layout.draft > len(self.acceptance):
            raise ValueError(
                f"acceptance has {len(self.acceptance)} value(s) for {self.decode.layout.draft} draft position(s); "
                "allowed: one for each, the accepted tokens it adds"
            )
        if self.prefill.layout.batch is None:
            raise ValueError("prefill.layout.batch is open; allowed: prompts per dp rank; add it")
        if self.decode.layout.batch is None and self.concurrency is None and self.tpot is None:
            raise ValueError("nothing fixes the batch of decode; add decode.layout.batch, concurrency or tpot")
        return self


def conditions_of(conditions: DeploymentConditions, phase: Phase) -> Conditions:
    """Return the conditions of one pool of a deployment."""
    pool = conditions.prefill if phase == "prefill" else conditions.decode
    shared = conditions.model_dump(exclude={"prefill", "decode", "mixed", "prefill_system", "prefill_stack", *OF_LOAD})
    if phase == "prefill" and conditions.prefill_system is not None:
        shared |= {"system": conditions.prefill_system, "kernels": ()}
        shared["stack"] = conditions.prefill_stack or conditions.stack
    return Conditions(**{**shared, "phase": phase, "layout": pool.layout.model_dump()})
