"""Unit strings at the edges, bare SI floats inside: one closed table, refusing what it does not list.

A unit alias such as :data:`BytesPerSecond` does three jobs with one definition: it is a note in a
formula's signature, the reader of a field in a data file (pydantic calls :meth:`Unit.read`), and
the oracle of the dimension tests.
"""

import math
import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction as Exact
from typing import Annotated, Any

from perfmodel.algebra import Num

_SI = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_IEC = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}


def _scaled(symbol: str, prefixes: dict[str, float]) -> dict[str, float]:
    return {prefix + symbol: factor for prefix, factor in prefixes.items()}


_BYTES = _scaled("B", _SI) | _scaled("B", _IEC) | {"KB": 1e3}

#: SI unit -> every accepted spelling and its factor.  A spelling not listed is refused.
SPELLINGS: dict[str, dict[str, float]] = {
    "1": {"": 1.0, "%": 0.01},
    "s": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0},
    "B": _BYTES,
    "B/s": {f"{unit}/s": factor for unit, factor in _BYTES.items()},
    "FLOP": _scaled("FLOP", _SI),
    "FLOP/s": _scaled("FLOP/s", _SI) | _scaled("OP/s", _SI),
    "Hz": _scaled("Hz", {k: _SI[k] for k in ("", "k", "M", "G")}),
    "W": _scaled("W", {k: _SI[k] for k in ("", "k", "M")}),
    "s/B": {"s/B": 1.0},
    "1/s": {"/s": 1.0, "1/s": 1.0, "req/s": 1.0, "request/s": 1.0, "requests/s": 1.0, "token/s": 1.0, "tokens/s": 1.0},
}

#: A well-formed example of each unit, shown when a string is refused.
EXAMPLES = {
    "1": "0.65",
    "s": "50 ms",
    "B": "64 GiB",
    "B/s": "25 GB/s",
    "FLOP": "8192 FLOP",
    "FLOP/s": "353.9 TFLOP/s",
    "Hz": "1.8 GHz",
    "W": "400 W",
    "s/B": "1e-11 s/B",
    "1/s": "12 requests/s",
}

#: in SI units: an exabyte, thirty thousand million years; products of several stay finite
LARGEST = 1e18

_QUANTITY = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-zµμ/%1]*(?:/s)?)\s*")
_BITS = re.compile(r"([kMGT]?)b(?:it)?(/s|ps)")

#: digits of a number in groups of three, one sign between them all
_GROUPS = re.compile(r"\s*[+-]?[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,_])|\s*[+-]?[0-9]{1,3}(?:_[0-9]{3})+(?![0-9,_])")


def ungrouped(text: str) -> str:
    """Return a text without the signs that part the digits of the number it begins with into groups of three.

    A sign elsewhere is left, for the reader of the number to refuse.

    >>> ungrouped("4,096"), ungrouped("1_000_000 req/s"), ungrouped("0,9"), ungrouped("1,0000")
    ('4096', '1000000 req/s', '0,9', '1,0000')
    """
    found = _GROUPS.match(text)
    return text if found is None else found[0].replace(",", "").replace("_", "") + text[found.end() :]


@dataclass(frozen=True, slots=True)
class Unit:
    """An SI unit: reads quantities written as "number unit" into bare floats.

    >>> Unit("B/s").read("1.6 TB/s")
    1600000000000.0
    >>> Unit("s").read("50ms")
    0.05
    """

    symbol: str

    def read(self, text: object) -> float:
        """Return the quantity in this SI unit.

        Raises ``ValueError`` naming what was found and what would be right: for a unit outside the
        closed table, a bare number where a unit is needed, a negative, NaN or infinite value.
        """
        example = EXAMPLES[self.symbol]
        if isinstance(text, bool) or not isinstance(text, (str, int, float)):
            raise ValueError(f"{text!r} is not a quantity; write it like '{example}'")
        if isinstance(text, (int, float)):
            if self.symbol != "1":
                raise ValueError(f"{text!r} has no unit; write it like '{example}'")
            return self._checked(float(text), text)
        match = _QUANTITY.fullmatch(text)
        if not match:
            raise ValueError(f"{text!r} is not 'number unit'; write it like '{example}'")
        number, spelling = match.groups()
        factors = SPELLINGS[self.symbol]
        if spelling not in factors:
            raise ValueError(f"{text!r} {self._why_refused(float(number), spelling)}")
        return self._checked(float(number) * factors[spelling], text)

    def _why_refused(self, number: float, spelling: str) -> str:
        if self.symbol == "B/s" and (bits := _BITS.fullmatch(spelling)):
            return f"is in bits per second; allowed: bytes per second; write '{number / 8:g} {bits[1]}B/s'"
        what = "has no unit" if not spelling else f"is not in {self.symbol}"
        allowed = ", ".join(s for s in SPELLINGS[self.symbol] if s) or "a plain number"
        return f"{what}; allowed: {allowed}; write it like '{EXAMPLES[self.symbol]}'"

    def _checked(self, value: float, text: object) -> float:
        if not math.isfinite(value):
            raise ValueError(f"{text!r} is not finite; write it like '{EXAMPLES[self.symbol]}'")
        if value < 0:
            raise ValueError(f"{text!r} is negative; allowed: zero or more")
        if value > LARGEST:
            raise ValueError(f"{text!r} is beyond reason; allowed: at most {LARGEST:g} in SI units")
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Let one alias serve formula signatures and the fields of data files."""
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            self.read, serialization=core_schema.plain_serializer_function_ser_schema(float)
        )

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        """Return what a file may hold: "number unit", and a bare number where there is no unit."""
        text = {"type": "string", "pattern": f"^{_QUANTITY.pattern}$", "examples": [EXAMPLES[self.symbol]]}
        return {"anyOf": [{"type": "number"}, text]} if self.symbol == "1" else text


HOUR = 3600.0  # s

#: tokens of a "k" and an "M", as lengths are named
TOKENS = {"": 1, "k": 1024, "m": 1024**2}
#: the same where things other than tokens are counted
THOUSANDS = {"": 1, "k": 1000, "m": 1000**2}
_MULTIPLE = re.compile(r"\s*([0-9]{1,12})(\.[0-9]{1,6})?\s*([kKmM]?)\s*")


def read_tokens(text: str) -> int:
    """Return a length such as '4096', '4,096', '4k' or '1M' in tokens; raise ``ValueError`` where it is none.

    >>> read_tokens("128k"), read_tokens("1M"), read_tokens("4,096")
    (131072, 1048576, 4096)
    """
    value = _multiple(text, TOKENS)
    if value is not None and value > 1 and value % 1:
        raise ValueError(
            f"{text!r} is {float(value):g} tokens, a k being 1024 of them; allowed: whole tokens; write "
            f"{round(value)}, or {round(value / 1024 * 1000)} where it stands for thousands"
        )
    if value is None or value < 1 or value % 1:
        raise ValueError(f"{text!r}; allowed: whole tokens from 1, like 4096, 4k (4 x 1024) or 1M (1024 x 1024)")
    return int(value)


def read_count(text: str) -> int:
    """Return a count such as '1024', '1,024' or '10k', which is ten thousand; raise ``ValueError`` where it is none.

    >>> read_count("1,024"), read_count("10k"), read_count("2.5K")
    (1024, 10000, 2500)
    """
    value = _multiple(text, THOUSANDS)
    if value is None or value % 1:
        raise ValueError(f"{text!r}; allowed: a whole number, like 1024 or 1,024")
    return int(value)


def _multiple(text: str, factors: dict[str, int]) -> Exact | None:
    """Return a number with a "k" or an "M" behind it, exactly; None where it is none."""
    found = _MULTIPLE.fullmatch(ungrouped(text))
    return Exact(found[1] + (found[2] or "")) * factors[found[3].lower()] if found else None


def read_share(text: str) -> float:
    """Return a share or a ratio such as '0.9' or '90%', exactly as its decimal is; raise ``ValueError`` for others.

    >>> read_share("90%"), read_share("35.7 %"), read_share("0.9")
    (0.9, 0.357, 0.9)
    """
    bare, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    if not percent:
        return float(ungrouped(bare))
    try:
        return float(Decimal(ungrouped(bare.rstrip())).scaleb(-2))
    except InvalidOperation:
        raise ValueError(f"{text!r}; allowed: a number, like 0.9 or 90%") from None


Dimensionless = Annotated[Num, Unit("1")]
Count = Annotated[Num, Unit("1")]
Fraction = Annotated[Num, Unit("1")]
Seconds = Annotated[Num, Unit("s")]
Bytes = Annotated[Num, Unit("B")]
BytesPerSecond = Annotated[Num, Unit("B/s")]
Flop = Annotated[Num, Unit("FLOP")]
FlopPerSecond = Annotated[Num, Unit("FLOP/s")]
Hertz = Annotated[Num, Unit("Hz")]
PerSecond = Annotated[Num, Unit("1/s")]
PerByte = Annotated[Num, Unit("s/B")]
