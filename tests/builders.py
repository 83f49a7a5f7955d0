"""What many tests start from: the rates of a machine on file, and DeepSeek-V3 on them."""

from perfmodel.files import catalog, machines
from perfmodel.prediction.serving import Case
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
