"""The planner's answer in a third of a screen: what to run, what it serves, how sure, what binds, what to do next."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from perfmodel.algebra import as_float
from perfmodel.planning.nearest import cards_of
from perfmodel.planning.planner import Planned
from perfmodel.planning.request import PlanRequest
from perfmodel.planning.sureness import SurePlan
from perfmodel.prediction.deployment import Deployment, PoolPlan
from perfmodel.report.extrapolations import extrapolated
from perfmodel.report.layout_words import short_layout
from perfmodel.report.limit_words import time_line, verdict
from perfmodel.report.plan.budget import beyond_one_domain
from perfmodel.report.plan.commands import solve_command
from perfmodel.report.plan.infeasibility import missed_table
from perfmodel.report.quantity import format_quantity
from perfmodel.report.table import Table, answer_table
from perfmodel.report.trust import trust_rows
from perfmodel.specs.deployment import Phase

LEAST_GAIN = 0.0005  # of the objective, that is told
NEXT = "add -o plan.json, then: moeplan explain plan.json"
MOST_WAYS = 3  # nearest questions that are told where there is no plan


def plan_answer(answer: Planned, best: Deployment, facts: Mapping[str, Any], notes: Sequence[str]) -> Table:
    """Return what was found, a line a matter; ``notes`` are those of its document."""
    request = answer.request
    pools: dict[Phase, PoolPlan] = {"prefill": best.prefill, "decode": best.decode}
    rows = [("answer", _sentence(best, request, facts)), ("serves", _serves(facts))]
    rows += [
        ("mixed" if best.mixed else phase, _pool(phase, pool, answer, facts))
        for phase, pool in pools.items()
        if phase == "decode" or not best.mixed
    ]
    rows += [row for name, key in (("TPOT", "tpot"), ("TTFT", "ttft")) for row in _waits(name, key, answer, facts)]
    if facts["rate_asked_per_s"] is not None:
        rows.append(("rate", _rate(facts)))
    if answer.sure is not None:
        rows.append((f"{100 * answer.sure.confidence:g} % sure", sure_words(answer, answer.sure)))
    elif (both := facts.get("chance_of_all")) is not None:
        rows.append(("all limits", f"met at once with a chance of {100 * both:.0f} %"))
    if facts["cost"]:
        rows.append(("cost", _cost(facts["cost"])))
    gains = (one for one in answer.solution.shadow_prices if one.gain >= LEAST_GAIN)
    buys = "".join(f"; {one.limit} {100 * one.gain:+.1f} %" for one in gains)
    rows.append(("binds", _binds(best, facts) + buys))
    rows += trust_rows(answer.trust)
    careful = [*beyond_one_domain(request, best), *extrapolated(notes)]
    if facts["decode"]["memory_worst_B"] > facts["decode"]["memory_usable_B"]:
        careful.append("memory runs out where all requests are at their longest")
    if best.mixed:
        careful.append("mixed: an engine's own rule may serve less, see moeplan replay")
    if careful:
        rows.append(("careful", "; ".join(careful)))
    rows.append(("next", NEXT))
    return answer_table(rows)


def no_plan_answer(answer: Planned) -> Table:
    """Return that there is no plan, the limit that binds, how near the nearest came, and the nearest ways that work."""
    rows = [("answer", f"no feasible plan among {answer.solution.evaluated:,}")]
    for row in missed_table(answer.solution).rows:
        if row["verdict"] == "missed":
            off = "" if row["off"] is None else f", off by {100 * row['off']:+.1f} %"
            rows.append((row["target"], f"✗ nearest {row['closest']}, limit {row['limit']}{off}"))
    return answer_table([*rows, *_nearest(answer)])


def _nearest(answer: Planned) -> Iterator[tuple[str, str]]:
    """Yield what works instead and what it gives, each with its command on a line of its own."""
    if answer.nearest is None:
        return
    if not answer.nearest.ways:
        yield "or", f"none of what was tried works: {', '.join(answer.nearest.tried)}"
    for way in answer.nearest.ways[:MOST_WAYS]:
        rate, tpot = format_quantity(way.best.requests_per_s * way.times, "1/s"), format_quantity(way.best.tpot, "s")
        ttft, cards = format_quantity(as_float(way.best.first_token.ttft), "s"), cards_of(way, answer.request)
        changes = " and ".join(way.changes)
        yield "or", f"{changes}: {rate} requests/s at {tpot} a token, TTFT {ttft}, on {cards} cards"
        yield "", solve_command(way.run)


def _sentence(best: Deployment, request: PlanRequest, facts: Mapping[str, Any]) -> str:
    """Return what to buy or run in a sentence."""
    counts = {phase: case.rates.packages_per_server for phase, case in request.cases.items()}
    each = {phase: (servers, servers * counts[phase]) for phase, servers in best.servers.items()}
    if request.cases["prefill"] is request.cases["decode"]:
        size = _size(*map(sum, zip(*each.values(), strict=True)))
    else:
        size = " and ".join(f"{_size(*pair)} of {phase}" for phase, pair in each.items())
    rate, tpot = format_quantity(facts["requests_per_s"], "1/s"), format_quantity(facts["tpot_s"], "s")
    return f"{size} serve {rate} requests/s at {tpot} a token"


def _size(servers: float, cards: float) -> str:
    return f"{servers:g} {'server' if servers == 1 else 'servers'} = {cards:g} {'card' if cards == 1 else 'cards'}"


def _serves(facts: Mapping[str, Any]) -> str:
    tokens, each = facts["tokens_per_s"], facts["tokens_per_s_per_card_of_deployment"]
    idle = f"; {facts['cards_idle']:g} cards idle" if facts["cards_idle"] else ""
    return f"{format_quantity(tokens, '1/s')} output tokens/s, {format_quantity(each, '1/s')} a card of all{idle}"


def _pool(phase: Phase, pool: PoolPlan, answer: Planned, facts: Mapping[str, Any]) -> str:
    """Return instances and layout of a pool in a line."""
    cards = pool.layout.dies / answer.request.cases[phase].rates.dies_per_package
    size = f"{cards:g} {'card' if cards == 1 else 'cards'}"
    return f"{facts[phase]['instances']} x {size}: {', '.join(short_layout(pool, answer.request.model))}"


def _waits(name: str, key: str, answer: Planned, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a mean beside its limit with its chance, and limits on percentiles as a replay has them."""
    limit, ends = facts[f"{key}_target_s"], facts.get(f"{key}_interval_s")
    rows = [(name, time_line(facts[f"{key}_s"], limit, facts.get(f"{key}_chance"), ends))]
    clients = answer.clients
    if clients is None:
        return rows
    values, limits = clients.seen.values, clients.seen.asked.limits
    tails = []
    for word in ("p50", "p90", "p95", "p99"):
        if (one := f"{key}_{word}") in values and (one in limits or word in ("p90", "p99")):
            asked = (
                f" of {format_quantity(limits[one], 's')} {'✓' if values[one] <= limits[one] else '✗'}"
                if one in limits
                else ""
            )
            tails.append(f"{word} {format_quantity(values[one], 's')}{asked}")
    return [*rows, (f"{name} replayed", ", ".join([f"mean {format_quantity(values[key], 's')}", *tails]))]


def sure_words(answer: Planned, sure: SurePlan) -> str:
    """Return what meets every limit at once with the chance asked for, what the margin costs, and the plan's chance."""
    if not sure.reached:
        return f"no plan found; the surest has a chance of {100 * sure.chance:.0f} %"
    if answer.request.search.rate is None:
        less = f"{-100 * sure.rate_change:.0f} % less" if sure.rate_change < 0 else "no less"
        needs = f"{format_quantity(sure.requests_per_s, '1/s')} requests/s, {less}"
    else:
        needs = _size(sure.servers, sure.cards)
        needs += f", {sure.more_cards} cards more" if sure.more_cards else ", no card more"
    return needs if answer.chance is None else f"{needs}; this plan: all limits {100 * answer.chance:.0f} %"


def _rate(facts: Mapping[str, Any]) -> str:
    asked, chance = facts["rate_asked_per_s"], facts.get("rate_chance")
    sign, word = verdict(True, chance)
    sure = "" if chance is None else f", chance {100 * chance:.0f} %"
    served = format_quantity(facts["requests_per_s"], "1/s")
    return f"{sign} {served} requests/s of {format_quantity(asked, '1/s')}: {word}{sure}"


def _cost(cost: Mapping[str, float]) -> str:
    if "watts_at_most" in cost:
        watts = format_quantity(cost["watts_at_most"], "W")
        return f"at most {watts}, {cost['joules_per_token_at_most']:.3g} J an output token"
    return f"{cost['per_hour']:,.4g} an hour, {cost['per_million_tokens']:.3g} a million output tokens"


def _binds(best: Deployment, facts: Mapping[str, Any]) -> str:
    """Return which pool sets the rate, and what stops larger batches of decode."""
    stop = facts["decode"]["stopped_by"]
    if best.mixed:
        return f"a larger batch is stopped by {stop}"
    if best.prefill_utilisation >= best.decode_utilisation:
        return "prefill sets the rate"
    return "decode sets the rate" if stop.startswith("no gain") else f"decode sets the rate, its batch: {stop}"
