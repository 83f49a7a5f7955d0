"""A run-spec: what ``moeplan solve`` is asked, in a file; every key is an option of the same name."""

from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le
from pydantic import BeforeValidator, Field, PlainSerializer, Strict

from perfmodel.specs.base import MOST, Spec
from perfmodel.units import Unit

Objective = Literal["throughput", "per-card", "cards", "cost", "energy", "tpot"]
Serving = Literal["disaggregated", "mixed", "any"]
#: load of either pool at most, and plans shown, where a run-spec leaves them out
UTILISATION, TOP = 0.8, 5

Count = Annotated[int, Strict(), Gt(0), Le(MOST)]
Share = Annotated[float, Strict()]
Money = Annotated[float, Gt(0), Field(allow_inf_nan=False)]
#: written back with their units, all digits kept, as they are read
Time = Annotated[float, Unit("s"), Gt(0), PlainSerializer(lambda value: f"{value!r} s")]


def _per_second(value: Any) -> Any:
    """A bare number of requests is per second, as on the command line."""
    return f"{value} req/s" if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _listed(value: Any) -> Any:
    """One name may stand without a list around it."""
    return (value,) if isinstance(value, str) else value


def _joined(value: Any) -> Any:
    """Accepted tokens per draft position, as the command line takes them."""
    if isinstance(value, (list, tuple)):
        return ",".join(str(part) for part in value)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("allowed: a name, or accepted tokens per draft position like [0.9, 0.36]")
    return str(value)


Rate = Annotated[
    Annotated[float, Unit("1/s"), Gt(0), PlainSerializer(lambda value: f"{value!r} req/s")] | None,
    BeforeValidator(_per_second, json_schema_input_type=str | float | None),
]
Names = Annotated[tuple[str, ...] | None, BeforeValidator(_listed, json_schema_input_type=str | tuple[str, ...] | None)]
Acceptance = Annotated[
    str | None, BeforeValidator(_joined, json_schema_input_type=str | float | tuple[float, ...] | None)
]


class RunSpec(Spec):
    """Keys of a run-spec; a key left out is as its option left out."""

    model: str | None = None
    on: str | None = None
    cards: Count | None = None
    rate: Rate = None
    isl: Count | None = None
    osl: Count | None = None
    tpot: Time | None = None
    ttft: Time | None = None
    objective: Objective | None = None
    serving: Serving | None = None
    #: what a card costs an hour, in any money
    price: Money | None = None
    #: another system for the prefill pool: its budget in cards, price and stack
    prefill_on: str | None = None
    prefill_cards: Count | None = None
    prefill_price: Money | None = None
    prefill_stack: str | None = None
    #: whether an instance may leave its supernode or server group
    allow_scale_out: Annotated[bool, Strict()] | None = None
    utilisation: Annotated[Share, Gt(0), Le(1)] | None = None
    kv: Literal["bf16", "int8", "any"] | None = None
    acceptance: Acceptance = None
    stack: str | None = None
    kernels: Names = None
    with_: Annotated[Names, Field(alias="with")] = None
    #: rows measured where the plan is to run
    site: Names = None
    #: of the memory that a framework sees, which the engine takes; left out: the stack's
    memory_share: Annotated[Share, Gt(0), Le(1)] | None = None
    confidence: Annotated[Share, Ge(0.5), Le(0.99)] | None = None
    top: Count | None = None

    @property
    def aim(self) -> Objective:
        """What the search is for; with a rate alone the fewest cards."""
        return self.objective or ("cards" if self.rate else "throughput")

    def filled(self) -> "RunSpec":
        """Return it with the defaults of keys left out, so that a later default does not move its answer."""
        defaults: dict[str, Any] = {
            "objective": self.aim,
            "serving": "disaggregated",
            "allow_scale_out": False,
            "utilisation": UTILISATION,
            "kv": "bf16",
            "top": TOP,
        }
        return self.model_copy(update={key: value for key, value in defaults.items() if getattr(self, key) is None})


#: what a search cannot do without
NEEDED = ("model", "on", "isl", "osl", "tpot")
EITHER = ("cards", "rate")
