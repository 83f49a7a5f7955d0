"""What a search counts: plans seen, plans refused by each constraint, and the nearest miss of each."""

from dataclasses import dataclass, field

import numpy as np

from perfmodel.ledger.records import Family
from perfmodel.solver.solution import Rejection
from perfmodel.specs.deployment import LayoutSpec

#: constraints, and units of what they limit
UNITS = {"memory": "B", "tpot": "s", "prefill memory": "B", "ttft": "s", "cards": "1", "rate": "1/s"}


@dataclass(slots=True)
class Tally:
    """Running counts of a search: plans seen, refused, and the nearest miss of each constraint."""

    evaluated: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    closest: dict[str, tuple[float, float, str]] = field(default_factory=dict)

    def count(self, name: str, refused: int) -> None:
        """Count refused plans."""
        self.refused[name] = self.refused.get(name, 0) + refused

    def miss(self, name: str, value: float, limit: float, layout: str) -> None:
        """Remember the nearest miss of a constraint."""
        if value < self.closest.get(name, (np.inf,))[0]:
            self.closest[name] = (value, limit, layout)

    def add(self, other: "Tally") -> None:
        """Take in the counts of a part of the search."""
        self.evaluated += other.evaluated
        for name, refused in other.refused.items():
            self.count(name, refused)
        for name, (value, limit, layout) in other.closest.items():
            self.miss(name, value, limit, layout)

    def rejections(self) -> tuple[Rejection, ...]:
        """Return what was refused, by constraint; rates are tallied with their sign turned, since more is better."""
        rows = []
        for name, count in self.refused.items():
            value, limit, layout = self.closest.get(name, (float("nan"), float("nan"), ""))
            sign = -1 if name == "rate" else 1
            if count:
                rows.append(
                    Rejection(
                        constraint=name,
                        count=count,
                        closest=sign * value,
                        limit=sign * limit,
                        unit=UNITS[name],
                        layout=layout,
                    )
                )
        return tuple(rows)


def describe(layout: LayoutSpec, family: Family) -> str:
    """Return a layout in a few words."""
    shared = f", {layout.shared_ranks} shared ranks" if layout.shared_ranks else ""
    cores = f" {layout.attention_cores}" if family.overlap == "cores" else ""
    split = f", expert tp {layout.expert_tp}" if layout.expert_tp > 1 else ""
    return (
        f"{layout.dies} dies, tp {layout.tp}, batch {layout.batch}, draft {layout.draft}{shared}{split}, "
        f"{family.exchange}, overlap {family.overlap}{cores}"
    )
