"""A machine as it would be known had a source never been read: no row of it fitted to, no constant read off it."""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial

from perfmodel.scoring.evidence_fit import EvidenceFit, fit_terms, fitted_to, with_fit
from perfmodel.scoring.validation import Published
from perfmodel.scoring.without_source import read_in, without_source
from perfmodel.supply.machine import Machine


def known_without(sources: Iterable[str], on_file: Sequence[Published]) -> dict[str, Callable[[Machine], Machine]]:
    """Return for each source a function that gives a machine as it is known without it.

    Every number read off the source goes back to the prior of its class; then the terms that have priors are fitted
    anew to the golden rows on file of all other sources, on machines that lost the same numbers.  Sources that no row
    fitted to has to do with share one fit.
    """
    rows = tuple(row for row in on_file if fitted_to(row))
    found: dict[str, Callable[[Machine], Machine]] = {}
    for source in sources:
        concerned = any(row.source == source or read_in(row.machine, source) for row in rows)
        found[source] = partial(_unread, source=source, fit=_fit(rows, source if concerned else None))
    return found


@lru_cache(maxsize=64)
def _fit(rows: tuple[Published, ...], source: str | None) -> EvidenceFit | None:
    """Return the fit to rows of all sources but one; none to no row.  The same rows are fitted to once."""
    if source is None:
        return fit_terms(rows) if rows else None
    others = [row.on(partial(without_source, source=source)) for row in rows if row.source != source]
    return fit_terms(others) if others else None


def _unread(machine: Machine, source: str, fit: EvidenceFit | None) -> Machine:
    before = without_source(machine, source)
    return before if fit is None else with_fit(before, fit)
