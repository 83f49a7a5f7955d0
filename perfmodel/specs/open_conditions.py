"""What a source leaves open of the conditions of a row: cases with weights stated before anything is fitted."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from math import isclose, prod
from typing import Annotated, Any, TypeVar

from annotated_types import Gt, Le
from pydantic import Field, ValidationError, model_validator

from perfmodel.specs.base import Spec, value_at

S = TypeVar("S", bound=Spec)

MOST_CASES = 64  # of all open conditions of a row together
#: of a range: quantiles at which it stands, each as likely as the others
QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)


class OpenCase(Spec):
    """One value that a condition may have had, how likely, and by what reason; never because it fits."""

    value: str | bool | int | float | tuple[str, ...] | tuple[float, ...]
    weight: Annotated[float, Gt(0), Le(1)]
    why: str = Field(min_length=1)


class OpenCondition(Spec):
    """A key of the conditions that the source leaves open: some cases, or the ends of a range."""

    key: str
    cases: tuple[OpenCase, ...] = ()
    #: anything between is as likely, in logarithms
    range: tuple[Annotated[float, Gt(0)], Annotated[float, Gt(0)]] | None = None
    why: str | None = None

    @model_validator(mode="after")
    def _either(self) -> "OpenCondition":
        if bool(self.cases) == (self.range is not None):
            raise ValueError("allowed: either cases or a range")
        if self.range is not None:
            if not self.range[0] < self.range[1]:
                raise ValueError(f"range {list(self.range)}; allowed: the lower end first")
            if not self.why:
                raise ValueError("why is missing; required beside a range; add the source's words or what was reasoned")
        if self.cases and not isclose(sum(case.weight for case in self.cases), 1, abs_tol=1e-6):
            raise ValueError(f"weights add up to {sum(case.weight for case in self.cases):g}; allowed: to 1")
        if len(self.cases) == 1:
            raise ValueError("one case; allowed: two or more, or state it among the conditions")
        return self

    def values(self) -> list[tuple[float, Any]]:
        """Return each value with its weight; whole numbers stay whole, what is the same after that is one."""
        if self.cases:
            return [(case.weight, case.value) for case in self.cases]
        assert self.range is not None
        low, high = self.range
        whole = float(low).is_integer() and float(high).is_integer()
        found: dict[float, float] = {}
        for share in QUANTILES:
            value = low * (high / low) ** share
            value = round(value) if whole else value
            found[value] = found.get(value, 0.0) + 1 / len(QUANTILES)
        return [(weight, value) for value, weight in found.items()]


def conditions_at(conditions: S, changes: Iterable[tuple[str, Any]]) -> S:
    """Return conditions with dotted keys replaced, checked anew.

    Raises ``ValueError`` where a key is none or the conditions cannot be.
    """
    values = conditions.model_dump()
    for key, value in changes:
        at, *below = key.split(".")
        here = values
        for name in below:
            if not isinstance(here.get(at), dict):
                raise ValueError(f"open: {key!r} is no key of the conditions; allowed: keys like layout.overlap")
            here, at = here[at], name
        if at not in here or isinstance(here[at], dict):
            raise ValueError(f"open: {key!r} is no key of the conditions; allowed: keys like layout.overlap")
        here[at] = value
        if at == "overlap" and value != "cores" and "attention_cores" in here:
            here["attention_cores"] = 0  # a split belongs to its case
    try:
        return type(conditions).model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        named = ", ".join(f"{key}: {value!r}" for key, value in changes)
        raise ValueError(f"open: {named}: {where}{': ' if where else ''}{first['msg']}") from None


def cases_of(conditions: S, found: Sequence[OpenCondition]) -> Iterator[tuple[float, str, S]]:
    """Yield every case: its weight, what it is in words, and its conditions; one of weight 1 where nothing is open.

    Open conditions are taken as independent of each other.  Raises ``ValueError`` as ``conditions_at`` does.
    """
    for chosen in product(*(one.values() for one in found)):
        changes = [(one.key, value) for one, (_, value) in zip(found, chosen, strict=True)]
        words = ", ".join(f"{key} {_words(value)}" for key, value in changes)
        yield prod(weight for weight, _ in chosen), words, conditions_at(conditions, changes)


def _words(value: Any) -> str:
    if isinstance(value, tuple):
        return "/".join(map(_words, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def check_open(conditions: Spec, found: Sequence[OpenCondition]) -> None:
    """Raise ``ValueError`` where an open condition is none of a row's, two are of one key, or cases are too many."""
    keys = [one.key for one in found]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"open: {key!r} twice; allowed: once")
        if key in ("phase", "model", "site"):
            raise ValueError(f"open: {key!r}; allowed: another condition; without this one the row tells nothing")
    count = prod(len(one.values()) for one in found)
    if count > MOST_CASES:
        raise ValueError(f"open: {count} cases together; allowed: {MOST_CASES}")
    for _ in cases_of(conditions, found):
        pass


def open_words(conditions: Spec, found: Sequence[OpenCondition]) -> Iterator[str]:
    """Yield in words what each open condition may have been, and which of it the conditions themselves say."""
    for one in found:
        may = ", ".join(f"{_words(value)} ({weight:.0%})" for weight, value in one.values())
        yield f"{one.key} is open: {may}; shown: {_words(value_at(conditions, one.key))}"
