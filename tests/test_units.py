"""Unit strings: every spelling against pint, and what is refused."""

import pint
import pytest

from perfmodel.units import SPELLINGS, Unit

_REGISTRY = pint.UnitRegistry()
_REGISTRY.define("FLOP = []")
_REGISTRY.define("OP = 1 FLOP")
_PINT = {"KB": "kB", "KB/s": "kB/s", "us": "microsecond", "µs": "microsecond", "μs": "microsecond"}


@pytest.mark.parametrize(
    ("symbol", "spelling"), [(s, w) for s in ("s", "B", "B/s", "FLOP", "FLOP/s", "Hz", "W") for w in SPELLINGS[s]]
)
def test_every_spelling_agrees_with_pint(symbol: str, spelling: str) -> None:
    expected = _REGISTRY.Quantity(3.0, _PINT.get(spelling, spelling)).to(symbol).magnitude
    assert Unit(symbol).read(f"3 {spelling}") == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("symbol", "text", "why"),
    [
        ("B/s", "200 Gb/s", "write '25 GB/s'"),
        ("B/s", "1.6 TB", "not in B/s"),
        ("s", "50", "no unit"),
        ("s", 50, "no unit"),
        ("s", "-1 ms", "negative"),
        ("s", "fast", "number unit"),
        ("B", True, "not a quantity"),
        ("1", float("nan"), "finite"),
    ],
)
def test_refusals_say_what_would_be_right(symbol: str, text: object, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Unit(symbol).read(text)
