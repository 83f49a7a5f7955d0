"""What every spec shares: frozen, closed to unknown keys, plain SI floats inside."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, ConfigDict, Strict, ValidationError

from perfmodel.algebra import Num
from perfmodel.units import Unit

Kind = Literal["datasheet", "measured", "derived", "assumed"]

#: of what is more than zero, in SI units or as a share: what is divided by it stays finite
LEAST = 1e-6
PositiveBytes = Annotated[Num, Unit("B"), Gt(0), Ge(LEAST)]
PositiveRate = Annotated[Num, Unit("B/s"), Gt(0), Ge(LEAST)]
PositiveHertz = Annotated[Num, Unit("Hz"), Gt(0), Ge(LEAST)]
PositiveFlop = Annotated[Num, Unit("FLOP"), Gt(0), Ge(LEAST)]
PositiveWatts = Annotated[Num, Unit("W"), Gt(0), Ge(LEAST)]
PositiveNumber = Annotated[Num, Unit("1"), Gt(0), Ge(LEAST)]
MOST = 10**9  # of whatever is counted
MOST_PARTS = 10**6  # dies, packages or cores of one machine
# truth and text are no counts, though they could be read as some
PositiveInt = Annotated[int, Strict(), Gt(0), Le(MOST)]
NonNegativeInt = Annotated[int, Strict(), Ge(0), Le(MOST)]
#: counts that stand with their source
PositiveCount = Annotated[Num, Unit("1"), Ge(1), Le(MOST)]
PositiveParts = Annotated[Num, Unit("1"), Ge(1), Le(MOST_PARTS)]


class Spec(BaseModel):
    """Base of all specs."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


S = TypeVar("S", bound=Spec)


class Source(Spec):
    """Where a number comes from."""

    title: str
    url: str | None = None
    where: str | None = None
    date: str | None = None
    note: str | None = None


class Figure(Spec):
    """The provenance of one number: read beside it, never instead of it."""

    value: float
    text: str
    source: str
    kind: Kind = "datasheet"
    note: str | None = None
    low: float | None = None
    high: float | None = None
    #: another source that the number was worked out with
    also: str | None = None
    file: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Known(Generic[S]):
    """A data file as it was read: its spec with plain floats, and where each of its numbers came from."""

    spec: S
    figures: Mapping[str, Figure]
    #: what finds the file again: a name on file, or the path of a file of the user's
    word: str
    #: the file itself: its path below the data's root, or as the user gave it
    file: str
    #: what was chosen in reading it that a user may want to know
    notes: tuple[str, ...] = ()
    #: the rest of it, which is told where the file itself is shown
    details: tuple[str, ...] = ()


def said(fault: Any) -> str:
    """Return what validation says is wrong with a value, in the words that errors have here."""
    return str(fault["msg"]).removeprefix("Value error, ").replace("Input should be", "allowed:")


def found_and_said(fault: Any) -> str:
    """Return the value that validation found, where its words do not name it already, and what it says of it."""
    return said(fault) if fault["type"] == "value_error" else f"{fault['input']!r}; {said(fault)}"


def faults_in(error: ValidationError, *, inside: str = "") -> list[str]:
    """Return what validation found in values given by hand, a line for each: key: found; allowed."""
    lines = []
    for fault in error.errors():
        where = ".".join(str(part) for part in fault["loc"] if part != inside) or inside
        lines.append(f"{where}: {found_and_said(fault)}")
    return lines


def value_at(spec: Any, path: str) -> Any:
    """Return the value at a dotted key of a spec."""
    for key in path.split("."):
        spec = spec[int(key)] if isinstance(spec, tuple) else getattr(spec, key)
    return spec


def with_value(spec: Any, path: list[str], value: Any) -> Any:
    """Return a copy of a spec with one number replaced."""
    head, rest = path[0], path[1:]
    if isinstance(spec, tuple):
        at = int(head)
        return (*spec[:at], with_value(spec[at], rest, value), *spec[at + 1 :])
    assert isinstance(spec, Spec)
    return spec.model_copy(update={head: with_value(getattr(spec, head), rest, value) if rest else value})
