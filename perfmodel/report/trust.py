"""How wrong predictions like this one are known to be, in words."""

from perfmodel.planning.known_errors import Trust
from perfmodel.scoring.known_errors import KindError


def off(slow: float) -> str:
    """Return an error of time in words.

    >>> off(0.034), off(-0.2), off(0.001)
    ('3 % slow', '20 % fast', 'as measured')
    """
    share = round(100 * abs(slow))
    return "as measured" if share == 0 else f"{share} % {'slow' if slow > 0 else 'fast'}"


def near_words(trust: Trust) -> str | None:
    """Return how the nearest published row was predicted; none where none is of this phase."""
    near = trust.near
    return None if near is None else f"nearest published row {near.row}: predicted {off(near.slow)}"


def kind_words(found: KindError) -> str:
    """Return how published results of a kind were predicted without their source."""
    what = {"deployment": "whole deployments"}.get(found.phase, f"{found.phase} rows")
    of = " of it" if found.model else ""
    on = " on this chip" if found.chip else ""
    return f"{found.numbers} {what}{of}{on}: {100 * found.mean:.0f} % off, bias {off(found.bias)}"


def trust_lines(trust: Trust | None) -> list[str]:
    """Return what is known of the error of such predictions: the nearest row, then its kind and whole deployments."""
    if trust is None:
        return []
    near = near_words(trust)
    kinds = [kind_words(found) for found in (trust.pools, trust.deployments) if found is not None]
    return [*([] if near is None else [near]), *(["; ".join(kinds)] if kinds else [])]
