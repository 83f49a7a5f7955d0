"""What many tests start from: the rates of a machine on file, DeepSeek-V3 on them, a layout in plain numbers."""

from dataclasses import dataclass, field

from perfmodel.files import catalog, machines
from perfmodel.ledger.records import Family
from perfmodel.prediction.serving import Case, PoolPoint
from perfmodel.specs.deployment import LayoutSpec
from perfmodel.supply.rates import Rates


def rates_of(system: str = "cloudmatrix384", stack: str | None = None) -> Rates:
    """Return the rates of a system under a stack, by default its own."""
    machine, _ = machines.load_machine(system, stack)
    return machine.rates()


def deepseek_case(
    isl: int = 4096, osl: int = 1024, rates: Rates | None = None, acceptance: tuple[float, ...] = (0.7,)
) -> Case:
    """Return DeepSeek-V3 on given rates, by default those of the CloudMatrix384."""
    return Case(
        model=catalog.load_model("deepseek-v3").spec,
        rates=rates_of() if rates is None else rates,
        isl=isl,
        osl=osl,
        acceptance=acceptance,
    )


@dataclass(frozen=True)
class Walked:
    """One layout as plain numbers see it: what loops over a space compare."""

    layout: LayoutSpec
    family: Family = field(repr=False)
    point: PoolPoint = field(repr=False)

    @property
    def tpot(self) -> float:
        return float(self.point.tpot)

    @property
    def rate(self) -> float:
        return float(self.point.requests_per_s)

    @property
    def step(self) -> float:
        return float(self.point.step_time)

    @property
    def in_flight(self) -> float:
        return float(self.point.in_flight)

    @property
    def memory(self) -> float:
        return float(self.point.memory)
