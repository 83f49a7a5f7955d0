"""How sure what others lose to the best plan is: rivals, other choices, published layouts."""

from collections.abc import Mapping
from dataclasses import dataclass

from perfmodel.prediction.deployment import Deployment, PoolPlan
from perfmodel.prediction.differences import Sampled, difference, full_load, pool_rate
from perfmodel.prediction.serving import Case
from perfmodel.prediction.uncertainty import Interval
from perfmodel.solver.solution import GivenOutcome, Solution
from perfmodel.specs.deployment import Phase
from perfmodel.supply.machine import Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLoss:
    """What one pool of a published layout loses to that of the best plan, a card, at full batch."""

    phase: Phase
    tokens_per_s_per_card: float
    loss: float
    doubt: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedLoss:
    """How sure the loss of a published layout is, as a deployment and pool by pool; what has no rate has none."""

    whole: Interval | None
    pools: tuple[PoolLoss, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubts:
    """Intervals of losses, in the order of the solution's."""

    alternatives: tuple[Interval, ...]
    choices: tuple[Interval, ...]
    published: tuple[PublishedLoss, ...]


def doubts_of(solution: Solution, machines: Mapping[Phase, Machine], cases: Mapping[Phase, Case]) -> Doubts:
    """Return how sure the losses of a solution with a best plan are, all on the same samples."""
    best = solution.best
    assert best is not None
    sampled = Sampled(machines=machines, cases=cases)
    others = [
        *solution.alternatives,
        *(one.deployment for one in solution.alternative_costs),
        *(one.deployment for one in solution.given if one.deployment is not None),
    ]
    sampled.take((phase, pool) for one in (best, *others) for phase, pool in _pools(one).items())
    sampled.take(
        (phase, pool) for one in solution.given for phase, pool in (*one.pools.items(), *solution.full.items())
    )
    before = sampled.served(best), full_load(best)
    pools = solution.full

    def of(deployment: Deployment, loss: float) -> Interval:
        return difference(loss, (sampled.served(deployment), full_load(deployment)), before)

    def of_pool(phase: Phase, pool: PoolPlan) -> PoolLoss:
        rate, best_rate = pool_rate(pool), pool_rate(pools[phase])
        loss = rate / best_rate - 1
        sides = [(sampled.pool_rates(phase, one), pool_rate(one)) for one in (pool, pools[phase])]
        return PoolLoss(
            phase=phase,
            tokens_per_s_per_card=rate * cases[phase].rates.dies_per_package,
            loss=loss,
            doubt=difference(loss, sides[0], sides[1]),
        )

    def of_given(one: GivenOutcome) -> PublishedLoss:
        return PublishedLoss(
            whole=None if one.deployment is None or one.loss is None else of(one.deployment, one.loss),
            pools=tuple(of_pool(phase, pool) for phase, pool in one.pools.items() if phase in pools),
        )

    return Doubts(
        alternatives=tuple(of(one, loss) for one, loss in zip(solution.alternatives, solution.losses, strict=True)),
        choices=tuple(of(one.deployment, one.loss) for one in solution.alternative_costs),
        published=tuple(map(of_given, solution.given)),
    )


def _pools(deployment: Deployment) -> dict[Phase, PoolPlan]:
    return {"prefill": deployment.prefill, "decode": deployment.decode}
