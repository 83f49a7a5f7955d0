"""What a deployment costs an hour and for a million tokens, and its watts and joules a token."""

from collections.abc import Mapping
from dataclasses import dataclass

from perfmodel.algebra import Num, as_float
from perfmodel.formulas.serving import cost_of_tokens
from perfmodel.specs.deployment import Phase
from perfmodel.specs.run import RunSpec
from perfmodel.units import HOUR

HOURS_OF_YEAR = 8760


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a deployment costs, in the money of its prices."""

    per_hour: float
    per_million_tokens: float

    @property
    def per_month(self) -> float:
        """What a twelfth of a year costs.

        >>> Cost(per_hour=2.0, per_million_tokens=1.0).per_month
        1460.0
        """
        return self.per_hour * HOURS_OF_YEAR / 12

    @property
    def per_year(self) -> float:
        """What a year of 365 days costs."""
        return self.per_hour * HOURS_OF_YEAR


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """What a deployment takes in with every server at its largest input, and for one output token."""

    watts: float
    joules_per_token: float


def card_prices(run: RunSpec | None) -> dict[Phase, float] | None:
    """Return what a card of each pool costs an hour; none where no run-spec states it."""
    if run is None or run.price is None:
        return None
    return {"prefill": run.price if run.prefill_price is None else run.prefill_price, "decode": run.price}


def cost_of(
    *,
    servers: Mapping[Phase, int],
    packages_per_server: Mapping[Phase, int],
    prices: Mapping[Phase, float],
    tokens_per_s: float,
) -> Cost:
    """Return what the servers in use of each pool cost; ``prices`` are of a card and an hour.

    >>> cost_of(
    ...     servers={"decode": 2}, packages_per_server={"decode": 8}, prices={"decode": 2.25}, tokens_per_s=10_000.0
    ... )
    Cost(per_hour=36.0, per_million_tokens=1.0)
    """
    hour = sum(prices[phase] * packages_per_server[phase] * count for phase, count in servers.items())
    each = cost_of_tokens(cost_rate=hour / HOUR, tokens_per_s=tokens_per_s)
    return Cost(per_hour=hour, per_million_tokens=as_float(each))


def power_of(
    *, servers: Mapping[Phase, int], server_power: Mapping[Phase, Num | None], tokens_per_s: float
) -> Power | None:
    """Return the power of the servers in use of each pool; none where that of one of them is not known.

    >>> power_of(servers={"prefill": 0, "decode": 2}, server_power={"prefill": None, "decode": 1e4}, tokens_per_s=8e3)
    Power(watts=20000.0, joules_per_token=2.5)
    """
    if any(server_power[phase] is None for phase, count in servers.items() if count):
        return None
    watts = sum(as_float(server_power[phase]) * count for phase, count in servers.items() if count)
    return Power(watts=watts, joules_per_token=watts / tokens_per_s)
