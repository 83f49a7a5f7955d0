"""How near other plans come, what every other choice loses, what more of a limit buys, where the choice holds."""

from collections.abc import Mapping, Sequence

from perfmodel.algebra import as_float
from perfmodel.planning.planner import Planned
from perfmodel.prediction.deployment import Deployment, PoolPlan
from perfmodel.prediction.differences import doubt_of, is_same, is_tie
from perfmodel.prediction.serving import Case
from perfmodel.prediction.uncertainty import Interval
from perfmodel.report.layout_words import layout_words
from perfmodel.report.plan.pools import SMALLEST_SHARE
from perfmodel.report.quantity import format_quantity
from perfmodel.report.step import plan_breakdown
from perfmodel.report.table import Column, Table
from perfmodel.solver.solution import OptimalRange
from perfmodel.specs.run import Objective
from perfmodel.supply.rates import Rates

#: what an objective compares
VALUED: dict[Objective, str] = {
    "throughput": "req/s",
    "tpot": "req/s",
    "per-card": "req/s per card",
    "cards": "req/s per server",
    "cost": "tokens for the money",
    "energy": "tokens per joule",
}


#: whether a loss is one, and the ends of its interval for programs
VERDICT = (
    Column("verdict", "beside the best"),
    Column("loss_low90", "loss, low end of 90 %", "%", for_programs=True),
    Column("loss_high90", "loss, high end of 90 %", "%", for_programs=True),
)
TIE = (
    "tie: smaller than its doubt, the 90 % interval of the difference on one machine; what the model leaves out is as "
    "large on both sides"
)


def percent(share: float) -> str:
    """Return a share in words."""
    return f"{abs(share) * 100:.1f} %"


def verdict_of(loss: float, doubt: Interval) -> str:
    """Return in words whether a deployment is told from the best, and how large the doubt is where it is not."""
    if is_same(loss, doubt):
        return "the same"
    if is_tie(doubt):
        return f"tie, doubt {percent(doubt_of(loss, doubt))}"
    return "less" if loss < 0 else "more"


def verdict_cells(loss: float, doubt: Interval) -> dict[str, object]:
    """Return the cells of ``VERDICT``."""
    return {"verdict": verdict_of(loss, doubt), "loss_low90": doubt.low90, "loss_high90": doubt.high90}


def _doubts(answer: Planned, which: str) -> Sequence[Interval]:
    assert answer.doubts is not None
    found: Sequence[Interval] = getattr(answer.doubts, which)
    return found


def next_best_table(answer: Planned) -> Table:
    """Return the best plans of another size or structure."""
    solution, request = answer.solution, answer.request
    rows = [
        {
            "plan": d.short_form,
            "decode": layout_words(d.decode, request.model),
            "tpot": d.tpot,
            "ttft": as_float(d.first_token.ttft),
            "requests": d.requests_per_s,
            "servers": d.servers_used,
            "loss": loss,
            **verdict_cells(loss, doubt),
        }
        for d, loss, doubt in zip(solution.alternatives, solution.losses, _doubts(answer, "alternatives"), strict=True)
    ]
    columns = (
        Column("plan", "plan"),
        Column("decode", "decode layout"),
        Column("tpot", "TPOT", "s"),
        Column("ttft", "TTFT", "s"),
        Column("requests", "req/s", "1/s"),
        Column("servers", "servers", "1"),
        Column("loss", f"{VALUED[request.search.objective]} vs best", "%"),
        *VERDICT,
    )
    return Table("Next best, each of another size or structure", columns, tuple(rows), (TIE,) if rows else ())


def other_choices_table(answer: Planned, best: Deployment) -> Table:
    """Return the best plan of every other structural choice, what it loses, and where its time goes instead."""
    case, ideal = answer.request.case, answer.request.ideal["decode"]
    before = card_seconds(best.decode, case, ideal)
    rows = tuple(
        {
            "choice": one.choice,
            "loss": one.loss,
            **verdict_cells(one.loss, doubt),
            "servers": one.deployment.servers_used,
            "why": added_words(before, card_seconds(one.deployment.decode, case, ideal)),
            "decode": layout_words(one.deployment.decode, answer.request.model),
        }
        for one, doubt in zip(answer.solution.alternative_costs, _doubts(answer, "choices"), strict=True)
    )
    columns = (
        Column("choice", "choosing"),
        Column("loss", f"{VALUED[answer.request.search.objective]} vs best", "%"),
        *VERDICT,
        Column("servers", "servers", "1"),
        Column("why", "decode time of a token that it adds"),
        Column("decode", "its best decode layout", spare=1),
    )
    note = (
        "the time it adds: of the best plan's card time for a token, the largest two; the rest of the loss is elsewhere"
    )
    return Table("What other choices lose, everything else chosen anew", columns, rows, (note,) if rows else ())


def other_serving_notes(answer: Planned, best: Deployment) -> tuple[str, ...]:
    """Return how the other kind of serving does where both were searched: what it loses, or that it has no plan."""
    if answer.request.search.serving != "any":
        return ()
    name = "pools apart" if best.mixed else "mixed serving, prefill and decode on the same dies"
    other = next((one for one in answer.solution.alternative_costs if one.deployment.mixed != best.mixed), None)
    if other is None:
        return (f"{name}: no plan within these limits",)
    plan = other.deployment
    valued = VALUED[answer.request.search.objective]
    return (
        f"{name}: {other.loss * 100:+.1f} % {valued}, TPOT {format_quantity(plan.tpot, 's')}, "
        f"TTFT {format_quantity(as_float(plan.first_token.ttft), 's')}",
    )


def card_seconds(pool: PoolPlan, case: Case, ideal: Rates) -> dict[str, float]:
    """Return the time of a card for one token, by operator and what else takes time."""
    parts = plan_breakdown(pool, case, ideal)
    each = pool.layout.dies / as_float(pool.point.tokens_per_s) / parts.step_time
    times: dict[str, float] = {}
    for row in parts.rows:
        if row.decides:
            times[row.name] = times.get(row.name, 0.0) + row.total * each
    times["gaps between operators"] = parts.gaps * each
    times["host, launch, sampling"] = parts.overhead * each
    times["measured at the site"] = parts.site * each
    return times


def added_words(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """Return the two operators that add most, as parts of all time before."""
    whole = sum(before.values())
    added = {name: (time - before.get(name, 0.0)) / whole for name, time in after.items()}
    most = sorted(added, key=lambda name: -added[name])[:2]
    return ", ".join(f"{name} +{added[name]:.0%}" for name in most if added[name] >= SMALLEST_SHARE) or "-"


def more_of_a_limit_table(answer: Planned) -> Table:
    """Return what a little more of each limit buys."""
    rows = tuple({"limit": one.limit, "gain": one.gain} for one in answer.solution.shadow_prices)
    columns = (Column("limit", "a little more"), Column("gain", f"buys {VALUED[answer.request.search.objective]}", "%"))
    note = "at least: +1 ms keeps the decode layout but for its batch and split, more servers keep the sizes searched"
    return Table("What more of a limit buys", columns, rows, (note,))


def optimal_range_notes(found: OptimalRange | None) -> tuple[str, ...]:
    """Return over which acceptance the choice stays the best."""
    if found is None:
        return ()
    ends = [
        f"{side} it {words} would be better"
        for side, words in (("below", found.below), ("above", found.above))
        if words
    ]
    return (
        f"the structure of decode stays that of the best plan for a first-draft acceptance of {found.lowest:.3g} to "
        f"{found.highest:.3g} (asked: {found.asked:.3g}; steps of 0.025)" + "".join(f"; {end}" for end in ends),
    )
