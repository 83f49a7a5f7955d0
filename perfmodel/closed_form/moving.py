"""A deployment with its batch, lengths and rates left open: one code for numbers, arrays and symbols."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from perfmodel.algebra import as_float, minimum
from perfmodel.formulas.serving import cost_of_tokens
from perfmodel.ledger.records import Layout
from perfmodel.prediction.deployment import Deployment, PoolPlan, figures_of_pools, footprint_of_both
from perfmodel.prediction.joined_pools import joined_rates
from perfmodel.prediction.sensitivity import with_figures
from perfmodel.prediction.serving import Case, pool_point
from perfmodel.specs.deployment import Phase
from perfmodel.supply.machine import Machine
from perfmodel.supply.rates import Rates
from perfmodel.units import HOUR

MEMORY = "die.hbm.bandwidth"  # key of a chip

#: what may be moved, in the order of the page; rates are times those on file
BATCH, ISL, OSL, ACCEPTANCE, HBM, LINKS, PRICE = "batch", "isl", "osl", "acceptance", "hbm", "links", "price"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Movable:
    """A plan whose numbers may be moved: layout and instances stay."""

    best: Deployment
    machines: Mapping[Phase, Machine]
    cases: Mapping[Phase, Case]
    utilisation: float
    #: requests a second that were asked for
    asked: float | None
    #: cards of instances, and cards of servers in use, by pool
    cards: float
    rented: Mapping[Phase, float]
    #: of a card and an hour; none where no price was given
    prices: Mapping[Phase, float] | None

    @property
    def here(self) -> dict[str, float]:
        """What may be moved, as it is in the plan: lengths only where they say all, a price only where there is one."""
        case, layout = self.cases["decode"], self.best.decode.layout
        found: dict[str, float] = {BATCH: as_float(layout.batch or 1)}
        if case.running_context is None:
            found |= {ISL: as_float(case.isl), OSL: as_float(case.osl)}
        if layout.draft and case.acceptance and case.acceptance[0]:
            found[ACCEPTANCE] = case.acceptance[0]
        found |= {HBM: 1.0, LINKS: 1.0}
        if self.prices is not None and self.prices["decode"]:
            found[PRICE] = self.prices["decode"]
        return found

    def numbers(self, moved: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the plan comes to at other values: numbers, arrays of one shape, or symbols.

        ``tpot``, ``ttft`` and ``step`` in s, ``rate`` in requests a second at the plan's load, ``per_card`` in output
        tokens a second and card, ``memory_decode`` and ``memory_prefill`` in bytes of a die, ``per_hour`` and
        ``per_million`` in the money of the price.  ``per_card`` and ``per_million`` are at the rate that was asked for
        where the plan can serve more.  Instances, layout and load stay, so that limits may be passed.
        """
        values = {**self.here, **moved}
        best, cases = self.best, self._cases(values)
        layouts = {"prefill": Layout.of(best.prefill.layout), "decode": Layout.of(best.decode.layout)}
        layouts["decode"] = replace(layouts["decode"], batch=values[BATCH])

        def pool(phase: Phase, plan: PoolPlan) -> PoolPlan:
            return replace(plan, point=pool_point(layouts[phase], plan.family, cases[phase]))

        prefill, decode = pool("prefill", best.prefill), pool("decode", best.decode)
        figures = figures_of_pools(best, (prefill, decode), cases["prefill"], self.utilisation)
        rate = self.utilisation * figures["rate"]
        served = rate if self.asked is None else minimum(rate, self.asked)
        tokens = served * cases["decode"].osl
        found = {
            "tpot": figures["TPOT"],
            "ttft": figures["TTFT"],
            "rate": rate,
            "per_card": tokens / self.cards,
            "step": decode.point.step_time,
        }
        if best.mixed:
            found["memory_decode"] = footprint_of_both(prefill, decode).planned
        else:
            found |= {"memory_decode": decode.point.memory, "memory_prefill": prefill.point.memory}
        if self.prices is not None and self.prices["decode"]:
            over = values[PRICE] / self.prices["decode"]
            hour = sum(self.prices[phase] * count * over for phase, count in self.rented.items())
            found |= {"per_hour": hour, "per_million": cost_of_tokens(cost_rate=hour / HOUR, tokens_per_s=tokens)}
        return found

    def _cases(self, values: Mapping[str, Any]) -> dict[Phase, Case]:
        before = {phase: machine.rates() for phase, machine in self.machines.items()}
        rates = {phase: _moved(machine, values[HBM], values[LINKS]) for phase, machine in self.machines.items()}
        # links of all systems move alike, so the slower of two networks stays the slower one
        if joined_rates(before)["prefill"].kv_tier is before["decode"].kv_tier:
            rates["prefill"] = replace(rates["prefill"], kv_tier=rates["decode"].kv_tier)
        found: dict[Phase, Case] = {}
        for phase, case in self.cases.items():
            first = case.acceptance[0] if case.acceptance else 0.0
            accepted = case.acceptance
            if ACCEPTANCE in values and first:
                accepted = tuple(rate / first * values[ACCEPTANCE] for rate in accepted)
            lengths = {key: values[key] for key in (ISL, OSL) if key in values}
            found[phase] = replace(case, rates=rates[phase], acceptance=accepted, **lengths)
        return found


def _moved(machine: Machine, memory: Any, links: Any) -> Rates:
    """Return the rates of a machine whose memory and links are so many times as fast."""
    chip, system = machine.chip, machine.system
    moved: list[tuple[Any, str, Any]] = [(chip, MEMORY, chip.spec.die.hbm.bandwidth * memory)]
    for i, tier in enumerate(system.spec.tiers):
        moved.append((system, f"tiers.{i}.bandwidth", tier.bandwidth * links))
    return with_figures(machine, moved).rates()
