"""Which published rows lie nearest to a run, and how wrong predictions of them are."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from perfmodel.scoring.distance import Place, distance
from perfmodel.scoring.validation import Published, Result, place, predicted_values, scored, turned


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """A row on file as a neighbour: its place, and the error of its first quantity, turned so that above is slow."""

    name: str
    place: Place
    slow: float


def anchor(published: Published) -> Anchor:
    """Return a row as a neighbour of others."""
    resolved = published.resolved
    first = published.spec.measured[0]
    error = predicted_values(published, (first.quantity,))[first.quantity] / first.value - 1
    return Anchor(name=published.name, place=place(published, resolved), slow=turned(first.quantity, error))


def nearest(name: str, at: Place, anchors: Iterable[Anchor]) -> tuple[Anchor, float] | None:
    """Return the nearest anchor of the same phase that is not the row itself, and how far it is; none if none."""
    found = [(anchor, distance(at, anchor.place)) for anchor in anchors if anchor.name != name]
    found = [(anchor, far) for anchor, far in found if math.isfinite(far)]
    return min(found, key=lambda pair: (pair[1], pair[0].name), default=None)


def placed(rows: Iterable[Published]) -> list[tuple[Published, Place]]:
    """Return rows with their places, which take a prediction each: for many runs that are held against the same."""
    return [(row, place(row, row.resolved)) for row in rows]


def nearest_rows(at: Place, rows: Iterable[tuple[Published, Place]], count: int) -> list[tuple[Published, float]]:
    """Return the rows nearest to a place, and how far each is; of its phase alone."""
    found = [(distance(at, there), row.name, row) for row, there in rows]
    near = sorted((one for one in found if math.isfinite(one[0])), key=lambda one: one[:2])[:count]
    return [(row, far) for far, _, row in near]


def neighbours(at: Place, rows: Iterable[Published], count: int) -> list[tuple[Result, float]]:
    """Return the published rows nearest to a place, scored, and how far each is; of its phase alone."""
    return [(scored(row), far) for row, far in nearest_rows(at, placed(rows), count)]
