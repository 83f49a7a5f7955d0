"""A run-spec: what ``moeplan solve`` is asked, in a file; every key is an option of the same name."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le
from pydantic import BeforeValidator, Field, PlainSerializer, Strict, model_validator

from perfmodel.specs.base import MOST, Spec
from perfmodel.specs.precision import CacheChoice, Precision
from perfmodel.units import Unit, read_tokens

Objective = Literal["throughput", "per-card", "cards", "cost", "energy", "tpot"]
Serving = Literal["disaggregated", "mixed", "any"]
#: load of either pool at most, and plans shown, where a run-spec leaves them out
UTILISATION, TOP = 0.8, 5

#: which instance takes a request: in turn, any, or the one with the least work before it
Routing = Literal["round_robin", "random", "least_work"]
#: waits that a limit may be on, and how it is asked for: a mean, or what so many of a hundred requests stay within
WAITS = ("ttft", "tpot")
PERCENTILES = ("p50", "p90", "p99")

Count = Annotated[int, Strict(), Gt(0), Le(MOST)]
Share = Annotated[float, Strict()]
#: at most what lengths of real services reach
Spread = Annotated[float, Ge(0), Le(10)]
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


def _texts(value: Any) -> Any:
    """Numbers stand in a file as they are, on the command line as texts."""
    if not isinstance(value, dict):
        return value
    texts = {True: "true", False: "false"}
    return {
        key: texts[one] if isinstance(one, bool) else f"{one!r}" if isinstance(one, (int, float)) else one
        for key, one in value.items()
    }


def _tokens(value: Any) -> Any:
    """Take lengths as options have them: ``128k``."""
    return read_tokens(value) if isinstance(value, str) else value


def _path(value: Any) -> Any:
    """A workload is a file: its name alone is that of one beside."""
    return f"./{value}" if isinstance(value, str) and value and "/" not in value else value


def limits_of(wait: str, texts: Iterable[Any]) -> dict[str, Any]:
    """Return limits like '2s' and 'p99=3s' by the keys of a run-spec, the last on one key; raise for others.

    Raises ``ValueError``.

    >>> limits_of("ttft", ["2s", "p99=3s"])
    {'ttft': '2s', 'ttft_p99': '3s'}
    """
    found: dict[str, Any] = {}
    for text in texts:
        word, equals, value = text.partition("=") if isinstance(text, str) else ("", "", text)
        word = word.strip().lower()
        if equals and word not in (*PERCENTILES, "mean"):
            raise ValueError(f"{text!r}; allowed: a time like 2s, of the mean, or p50=2s, p90=2s, p99=2s")
        if equals and not value.strip():
            raise ValueError(f"{text!r}; allowed: a time after it, like {word}=2s")
        key = f"{wait}_{word}" if equals and word != "mean" else wait
        found[key] = value if equals else text
    return found


class RunSpec(Spec):
    """Keys of a run-spec; a key left out is as its option left out."""

    model: str | None = None
    on: str | None = None
    cards: Count | None = None
    rate: Rate = None
    isl: Count | None = None
    osl: Count | None = None
    #: a trace or its summary: lengths and arrivals in place of isl and osl, the means
    workload: Annotated[str | None, BeforeValidator(_path)] = None
    #: standard deviation over mean of lengths, and of the gaps between arrivals
    isl_cv: Spread | None = None
    osl_cv: Spread | None = None
    arrival_cv: Spread | None = None
    routing: Routing | None = None
    #: limits on means
    tpot: Time | None = None
    ttft: Time | None = None
    #: limits on what so many of a hundred requests stay within
    tpot_p50: Time | None = None
    tpot_p90: Time | None = None
    tpot_p99: Time | None = None
    ttft_p50: Time | None = None
    ttft_p90: Time | None = None
    ttft_p99: Time | None = None
    #: least part of the requests that are within every limit
    goodput: Annotated[Share, Gt(0), Le(1)] | None = None
    #: whether the waits of clients are told where nothing else asks for them
    clients_view: Annotated[bool, Strict()] | None = None
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
    #: a precision, by any of its names; left out: w8a8, or what techniques set
    precision: Precision | None = None
    kv: CacheChoice | None = None
    acceptance: Acceptance = None
    stack: str | None = None
    #: what schedules, by name, or NAME==VERSION; without a stack the one of the system that has it
    engine: str | None = None
    kernels: Names = None
    with_: Annotated[Names, Field(alias="with")] = None
    #: rows measured where the plan is to run
    site: Names = None
    #: of the memory that a framework sees, which the engine takes; left out: the stack's
    memory_share: Annotated[Share, Gt(0), Le(1)] | None = None
    #: tokens of context that the model takes at most, like 131072 or 128k; left out: what its file says
    max_context: Annotated[Count | None, BeforeValidator(_tokens, json_schema_input_type=int | str | None)] = None
    #: numbers of the machine that are set by hand, like hbm: +50%
    set_: Annotated[
        dict[str, Annotated[str, Field(max_length=100)]] | None,
        Field(alias="set"),
        BeforeValidator(_texts, json_schema_input_type=dict[str, str | float | bool] | None),
    ] = None
    confidence: Annotated[Share, Ge(0.5), Le(0.99)] | None = None
    top: Count | None = None

    @model_validator(mode="before")
    @classmethod
    def _limits_apart(cls, values: Any) -> Any:
        """Take limits as options have them: ``ttft: [2s, p99=3s]``."""
        if not isinstance(values, dict):
            return values
        taken = dict(values)
        for wait in WAITS:
            given = taken.get(wait)
            texts = given if isinstance(given, (list, tuple)) else [given]
            if texts is given or (isinstance(given, str) and "=" in given):
                del taken[wait]
                found = limits_of(wait, texts)
                twice = sorted(key for key in found if taken.get(key) is not None)
                if twice or len(found) < len(texts):
                    raise ValueError(
                        f"{', '.join(twice) or wait}: two limits on the same; allowed: one; drop the other"
                    )
                taken |= found
        return taken

    @property
    def percentile_limits(self) -> dict[str, float]:
        """Limits on percentiles, like ``ttft_p99``, in seconds."""
        keys = (f"{wait}_{word}" for wait in WAITS for word in PERCENTILES)
        return {key: value for key in keys if (value := getattr(self, key)) is not None}

    @property
    def tells_clients(self) -> bool:
        """Whether anything asks what clients see: lengths, arrivals, a limit that means do not tell of, or a flag."""
        given = (self.workload, self.isl_cv, self.osl_cv, self.arrival_cv, self.routing, self.goodput)
        return bool(self.clients_view) or bool(self.percentile_limits) or any(one is not None for one in given)

    @property
    def aim(self) -> Objective:
        """What the search is for; with a rate alone the fewest cards."""
        return self.objective or ("cards" if self.rate else "throughput")

    def filled(self) -> "RunSpec":
        """Return it with the defaults of keys left out, so that a later default does not move its answer."""
        defaults: dict[str, Any] = {
            "objective": self.aim,
            "serving": "any" if self.prefill_on is None else "disaggregated",
            "allow_scale_out": False,
            "utilisation": UTILISATION,
            "kv": "bf16",
            "top": TOP,
        }
        return self.model_copy(update={key: value for key, value in defaults.items() if getattr(self, key) is None})


#: what a search cannot do without
NEEDED = ("model", "on", "isl", "osl", "tpot")
#: what stands for one of them
IN_PLACE_OF = {
    "isl": ("workload",),
    "osl": ("workload",),
    "tpot": tuple(f"tpot_{word}" for word in PERCENTILES),
}
EITHER = ("cards", "rate")
