"""How wrong predictions like this one are known to be, in words."""

from perfmodel.planning.known_errors import Trust
from perfmodel.report.table import under
from perfmodel.scoring.known_errors import KindError


def off(slow: float) -> str:
    """Return an error of time in words.

    >>> off(0.034), off(-0.2), off(0.001)
    ('3 % slow', '20 % fast', 'as measured')
    """
    share = round(100 * abs(slow))
    return "as measured" if share == 0 else f"{share} % {'slow' if slow > 0 else 'fast'}"


def kind_words(found: KindError) -> str:
    """Return how published results of a kind were predicted without their source."""
    what = {"deployment": "deployments"}.get(found.phase, f"{found.phase} rows")
    return f"{found.numbers} {what}: {100 * found.mean:.0f} % ({off(found.bias)})"


def trust_rows(trust: Trust | None) -> list[tuple[str, str]]:
    """Return as lines of an answer what is known of the error of such predictions: the nearest row, then its kind.

    Rows are those of the model on the chip, of the chip where these are fewer than three, then all; deployments too.
    """
    if trust is None:
        return []
    near = [] if trust.near is None else [f"nearest published row {trust.near.row}: {off(trust.near.slow)}"]
    kinds = "; ".join(kind_words(found) for found in (trust.pools, trust.deployments) if found is not None)
    lines = [*near, *([kinds] if kinds else [])]
    return under("known error", lines)
