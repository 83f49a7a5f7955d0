"""What is deployed and what is asked of it: a layout and its latency limits."""

from typing import Annotated, Literal

from annotated_types import Ge, Gt
from pydantic import model_validator

from perfmodel.specs.base import PositiveInt, Spec

Phase = Literal["decode", "prefill"]
Overlap = Literal["none", "link", "cores"]
Exchange = Literal["dispatch", "gather"]
Reduction = Literal["all_reduce", "scatter_gather"]
Precision = Literal["w8a8", "bf16"]
KvDtype = Literal["bf16", "int8"]
NonNegativeInt = Annotated[int, Ge(0)]


class LayoutShape(Spec):
    """How one instance of one pool is laid out over its dies, its batch apart.

    ``shared_ranks`` 0 means a shared expert on every rank; ``overlap`` "none" runs serially, "link"
    hides communication of one micro-batch behind the other's compute, "cores" runs attention and
    experts of two micro-batches side by side on ``attention_cores`` and the remaining cube cores.
    """

    dies: PositiveInt
    tp: PositiveInt = 1
    shared_ranks: NonNegativeInt = 0
    redundant: NonNegativeInt = 0
    draft: NonNegativeInt = 0
    overlap: Overlap = "none"
    attention_cores: NonNegativeInt = 0
    exchange: Exchange = "dispatch"
    reduction: Reduction = "scatter_gather"

    @model_validator(mode="after")
    def _tp_divides(self) -> "LayoutShape":
        if self.dies % self.tp:
            raise ValueError(f"tp {self.tp} does not divide {self.dies} dies")
        if self.shared_ranks >= self.dies:
            raise ValueError(f"shared_ranks {self.shared_ranks} leave no die of {self.dies} for routed experts")
        return self


class LayoutSpec(LayoutShape):
    """A layout with its batch: sequences per attention data-parallel rank."""

    batch: PositiveInt


class Targets(Spec):
    """Latency limits in seconds; ``None`` is no limit."""

    tpot: Annotated[float, Gt(0)] | None = None
    ttft: Annotated[float, Gt(0)] | None = None
