"""What a row is predicted to be by a fit that has seen no row of its source."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

Values = Mapping[str, float]


class Anchored(Protocol):
    """What leaving one source out needs to know of a row."""

    @property
    def name(self) -> str:
        """Name of the row."""

    @property
    def source(self) -> str:
        """Whose number it is; the same key in all rows of one source."""

    @property
    def role(self) -> str:
        """Only golden rows are fitted to."""


R = TypeVar("R", bound=Anchored)


def leave_one_source_out(
    rows: Sequence[R], on_file: Sequence[R], fit: Callable[[Sequence[R]], Callable[[R], Values]]
) -> dict[str, Values]:
    """Return predictions of each row by name, fitted without any row of its source.

    ``fit`` takes training rows, the golden ones on file of all other sources, and returns a function that predicts a
    row: values by quantity.  It runs once for each source.  Rows whose source is the only golden one have no
    prediction.
    """
    found: dict[str, Values] = {}
    for source in dict.fromkeys(row.source for row in rows):
        training = [row for row in on_file if row.source != source and row.role == "golden"]
        if not training:
            continue
        predict = fit(training)
        found |= {row.name: predict(row) for row in rows if row.source == source}
    return found
