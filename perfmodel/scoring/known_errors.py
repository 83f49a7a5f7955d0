"""How wrong predictions like this one are known to be: errors of published numbers predicted without their source."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from perfmodel.scoring.distance import Place, distance
from perfmodel.specs.known_error import KnownError

FEWEST = 3  # numbers that an error of a kind is told from
DEPLOYMENT = "deployment"


@dataclass(frozen=True, slots=True, kw_only=True)
class KindError:
    """Errors of some published numbers, above zero slow."""

    #: what they have in common: model and chip, chip, or neither
    model: str | None
    chip: str | None
    phase: str
    numbers: int
    mean: float
    bias: float
    inside90: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """The published row nearest to a pool, how far it is, and the error of its prediction, above zero slow."""

    row: str
    far: float
    slow: float


def nearest_known(at: Place, errors: Iterable[KnownError]) -> Near | None:
    """Return the row nearest to a place of those with a layout of their own; none of its phase, none."""
    found = [(distance(at, _place(one)), one.row, one) for one in errors if one.dies]
    near = min((one for one in found if math.isfinite(one[0])), key=lambda one: one[:2], default=None)
    return None if near is None else Near(row=near[1], far=near[0], slow=near[2].slow)


def error_of_kind(
    phase: str, *, model: str, chip: str, errors: Sequence[KnownError], kind: str | None = None
) -> KindError | None:
    """Return the errors of one phase, and kind of quantity: of the model on the chip, of the chip, or of all.

    The first of them that has ``FEWEST`` numbers; none where all have fewer.
    """
    alike = [one for one in errors if one.phase == phase and kind in (None, one.kind)]
    scopes: tuple[tuple[str | None, str | None, Callable[[KnownError], bool]], ...] = (
        (model, chip, lambda one: one.model == model and one.chip == chip),
        (None, chip, lambda one: one.chip == chip),
        (None, None, lambda _: True),
    )
    for of_model, of_chip, takes in scopes:
        slow = [one.slow for one in alike if takes(one)]
        if len(slow) >= FEWEST:
            return KindError(
                model=of_model,
                chip=of_chip,
                phase=phase,
                numbers=len(slow),
                mean=sum(map(abs, slow)) / len(slow),
                bias=sum(slow) / len(slow),
                inside90=sum(one.inside90 for one in alike if takes(one)) / len(slow),
            )
    return None


def _place(one: KnownError) -> Place:
    return Place(
        phase=one.phase,
        chip=one.chip,
        model=one.model,
        overlap=one.overlap,
        exchange=one.exchange,
        precision=one.precision,
        dies=one.dies,
        tokens=one.tokens,
        context=one.context,
    )
