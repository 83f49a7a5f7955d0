"""A machine: chip, system, stack, terms of service and kernel sets, and where each of their numbers came from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from perfmodel.specs.base import Figure, Known, with_value
from perfmodel.specs.kernels import KernelSetSpec
from perfmodel.specs.machine import ChipSpec, StackSpec, SystemSpec, TermsSpec
from perfmodel.supply.rates import Rates, chosen_kernels, rates_of

if TYPE_CHECKING:  # what lists and shows machines starts without it
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Software:
    """The parts of a machine that techniques change."""

    stack: Known[StackSpec]
    terms: Known[TermsSpec]
    kernels: tuple[Known[KernelSetSpec], ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Site:
    """What rows measured at a site tell of its samples; its factors on a step stand among the terms."""

    #: names of the rows
    rows: tuple[str, ...]
    #: samples of all numbers of a machine that are as likely as each other once the rows are known, by their places
    order: "NDArray[np.int64]"
    #: phase -> samples of the logarithm of a step over the prediction without the site's factor, in that order
    luck: "Mapping[str, NDArray[np.float64]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class SetNumber:
    """A number of a machine that was set by hand: by which word and text, where, and what it was before."""

    word: str
    text: str
    #: chip, system, stack, terms, or kernels and the place of the set
    part: str
    #: dotted key as people write it, and as it is found
    key: str
    path: str
    unit: str
    before: Any
    after: Any
    figure: Figure | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a machine is made of: its kernel sets in the order in which they are asked for a class.

    ``plain`` is its software as the files have it, where techniques were set, and ``settings`` what was set.
    ``site`` is what rows measured at the user's site tell of its luck.  ``set_numbers`` are those that were set by
    hand, over all techniques, as ``given_numbers`` says: the machine is then a hypothetical one.
    """

    chip: Known[ChipSpec]
    system: Known[SystemSpec]
    stack: Known[StackSpec]
    terms: Known[TermsSpec]
    kernels: tuple[Known[KernelSetSpec], ...]
    plain: Software | None = None
    settings: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    site: Site | None = None
    set_numbers: tuple[SetNumber, ...] = ()
    given_numbers: Mapping[str, str] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[Known[Any], ...]:
        """Chip, system, stack, terms of service and kernel sets."""
        return (self.chip, self.system, self.stack, self.terms, *self.kernels)

    def with_parts(self, parts: Iterable[Known[Any]]) -> "Machine":
        """Return a machine of other parts, in the order of ``parts``."""
        chip, system, stack, terms, *kernels = parts
        return Machine(chip=chip, system=system, stack=stack, terms=terms, kernels=tuple(kernels), site=self.site)

    def with_memory_share(self, share: float | None) -> "Machine":
        """Return it with an engine's share of memory given by hand, under all techniques; as it is where none is."""
        if share is None:
            return self
        plain = self.plain and replace(self.plain, stack=_with_share(self.plain.stack, share))
        return replace(self, stack=_with_share(self.stack, share), plain=plain)

    def rates(self) -> Rates:
        """Return what one die of it gives."""
        return rates_of(
            self.chip.spec,
            self.system.spec,
            self.stack.spec,
            self.terms.spec,
            [known.spec for known in self.kernels],
        )

    def kernels_of(self) -> dict[str, Known[KernelSetSpec]]:
        """Return the kernel set that gives each operator class."""
        chosen = chosen_kernels([known.spec for known in self.kernels], self.system.spec)
        return {name: next(known for known in self.kernels if known.spec is taken) for name, taken in chosen.items()}


def _with_share(stack: Known[StackSpec], share: float) -> Known[StackSpec]:
    """Return a stack whose engine takes a given share of memory: a choice, so it has no figure any more."""
    path = "memory.utilization"
    figures = {name: figure for name, figure in stack.figures.items() if name != path}
    return replace(stack, spec=with_value(stack.spec, path.split("."), share), figures=figures)
