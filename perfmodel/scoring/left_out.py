"""A machine as it would be known had a source never been read: no row of it fitted to, no constant read off it."""

from collections.abc import Callable, Sequence

from perfmodel.scoring.evidence_fit import fit_terms, fitted_to, with_fit
from perfmodel.scoring.validation import Published
from perfmodel.scoring.without_source import without_source
from perfmodel.supply.machine import Machine


def known_without(source: str, on_file: Sequence[Published]) -> Callable[[Machine], Machine]:
    """Return a function that gives a machine as it is known without a source.

    Every number read off the source goes back to the prior of its class; then the terms that have priors are fitted
    anew to the golden rows on file of all other sources, on machines that lost the same numbers.
    """
    others = [row for row in on_file if row.source != source]
    found: dict[int, Machine] = {}

    def unread(machine: Machine) -> Machine:
        """Return a machine without the source, once for all cases that run on it; rows keep theirs alive."""
        if id(machine) not in found:
            found[id(machine)] = without_source(machine, source)
        return found[id(machine)]

    taken = [row.on(unread) for row in others if fitted_to(row)]
    fit = fit_terms(taken) if taken else None

    def known(machine: Machine) -> Machine:
        before = without_source(machine, source)
        return before if fit is None else with_fit(before, fit)

    return known
