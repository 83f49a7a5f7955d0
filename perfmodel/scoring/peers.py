"""Errors of other models on published rows beside ours."""

from collections.abc import Sequence
from dataclasses import dataclass

from perfmodel.scoring.validation import Result, turned
from perfmodel.specs.evidence import PeerSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """Another model's error on a row beside ours, both turned so that above is slow; ours where the row is known."""

    row: str
    quantity: str
    peer: str
    theirs: float
    ours: float | None
    note: str


def beside(peers: Sequence[PeerSpec], results: Sequence[Result], known: Sequence[str] | None = None) -> list[Beside]:
    """Return peers' errors beside ours, by row; with ``known``, of those rows only."""
    ours = {(result.spec.name, score.quantity): score.error for result in results for score in result.scores}
    found = []
    for peer in peers:
        for one in peer.results:
            if known is not None and one.row not in known:
                continue
            error = ours.get((one.row, one.quantity))
            found.append(
                Beside(
                    row=one.row,
                    quantity=one.quantity,
                    peer=peer.title,
                    theirs=turned(one.quantity, one.error),
                    ours=None if error is None else turned(one.quantity, error),
                    note=one.note or "",
                )
            )
    return sorted(found, key=lambda one: (one.ours is None, one.row, abs(one.theirs)))
