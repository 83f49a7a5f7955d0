"""Two pools that serve the same requests, as many instances of each as a deployment states."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from perfmodel.algebra import as_float
from perfmodel.prediction.mixed import mixed_rate
from perfmodel.prediction.scenario import Resolved, Scenario, case_of, resolve
from perfmodel.specs.conditions import DeploymentConditions, Pool
from perfmodel.specs.deployment import Phase
from perfmodel.specs.model import ModelSpec
from perfmodel.supply.rates import Rates


def joined_rates(rates: Mapping[Phase, Rates]) -> dict[Phase, Rates]:
    """Return the rates of both pools; between two systems the cache takes the slower of their networks."""
    slower = min(
        (one.kv_tier for one in rates.values()), key=lambda tier: (as_float(tier.bandwidth), -as_float(tier.latency))
    )
    return {"prefill": replace(rates["prefill"], kv_tier=slower), "decode": rates["decode"]}


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedPools:
    """Two pools that serve the same requests, as many instances of each as stated."""

    prefill: Resolved
    decode: Resolved
    prefill_instances: int
    decode_instances: int
    #: whether the instances of both pools are the same
    mixed: bool = False

    @property
    def cards(self) -> float:
        """Packages of both pools."""
        pools = [(self.decode, self.decode_instances)]
        pools += [] if self.mixed else [(self.prefill, self.prefill_instances)]
        return sum(n * pool.plan.layout.dies / pool.scenario.case.rates.dies_per_package for pool, n in pools)

    @property
    def prefill_requests_per_s(self) -> float:
        """Requests per second that the prefill pool can take."""
        return self.prefill_instances * as_float(self.prefill.point.requests_per_s)

    @property
    def decode_requests_per_s(self) -> float:
        """Requests per second that the decode pool finishes at its batch."""
        return self.decode_instances * as_float(self.decode.point.requests_per_s)

    @property
    def fits(self) -> bool:
        """Whether both pools are within their memory."""
        return self.decode.fits and (self.mixed or self.prefill.fits)

    def quantities(self) -> dict[str, float]:
        """Return what a published row of a deployment may state.

        The slower pool sets the rate.  TPOT is that of the batch of decode, full: errs slow where prefill
        sets the rate, since requests then wait there and not in decode.
        """
        return {
            "tokens_per_s_per_card": self.requests_per_s * as_float(self.decode.scenario.case.osl) / self.cards,
            "tpot": self.tpot,
        }

    @property
    def tpot(self) -> float:
        """TPOT of the full batch of decode, with the prefill steps in between where the instances are mixed."""
        return self.decode.tpot

    @property
    def requests_per_s(self) -> float:
        """Requests per second of the slower pool, or of the instances that run both phases."""
        if self.mixed:
            return self.decode_instances * as_float(mixed_rate(self.prefill.point, self.decode.point))
        return min(self.prefill_requests_per_s, self.decode_requests_per_s)


def of_deployment(
    conditions: DeploymentConditions, model: ModelSpec, rates: Rates, prefill_rates: Rates | None = None
) -> JoinedPools:
    """Return both pools of a deployment, evaluated; ``prefill_rates`` are of prefill's own system.

    An open batch of decode is the measured concurrency spread evenly over its data-parallel ranks, rounded up;
    without a concurrency, the largest that meets TPOT and fits memory.  Raises ``UsageError`` as ``resolve`` does.
    """
    case = case_of(conditions, model, rates)
    cases = {"decode": case, "prefill": case if prefill_rates is None else replace(case, rates=prefill_rates)}
    pools: dict[str, Resolved] = {}
    stated: dict[Phase, Pool] = {"prefill": conditions.prefill, "decode": conditions.decode}
    for phase, pool in stated.items():
        layout = pool.layout.model_dump()
        if phase == "decode" and layout["batch"] is None and conditions.concurrency is not None:
            layout["batch"] = math.ceil(conditions.concurrency / _ranks(pool))
        pools[phase] = resolve(
            Scenario(
                case=cases[phase],
                phase=phase,
                layout=layout,
                tpot=conditions.tpot,
                precision=conditions.precision,
                kv_dtype=conditions.kv_dtype,
                expert_weights=conditions.expert_weights,
                partner=pools["prefill"].point if conditions.mixed and phase == "decode" else None,
            )
        )
    return JoinedPools(
        prefill=pools["prefill"],
        decode=pools["decode"],
        prefill_instances=conditions.prefill.instances,
        decode_instances=conditions.decode.instances,
        mixed=conditions.mixed,
    )


def _ranks(pool: Pool) -> int:
    layout = pool.layout
    return pool.instances * ((layout.dies - layout.expert_dies) // (layout.tp * layout.cp))
