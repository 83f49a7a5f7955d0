"""A solution -> a document: targets first, then the plan, its rivals, its limits."""

import json
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from perfmodel.algebra import as_float
from perfmodel.files.catalog import beyond_layout, load_model
from perfmodel.formulas.serving import cost_of_tokens
from perfmodel.planning.planner import Asking, Planned
from perfmodel.prediction.serving import Case
from perfmodel.report.assumptions import assumption_table
from perfmodel.report.drawings import front
from perfmodel.report.extrapolations import extrapolations
from perfmodel.report.layout_words import (
    attention_words,
    experts_words,
    layout_words,
    overlap_words,
    shared_words,
    sizes,
)
from perfmodel.report.memory import longest_context, memory_table
from perfmodel.report.operators import time_by_bound
from perfmodel.report.quantity import format_quantity, span_in_words
from perfmodel.report.step import plan_breakdown, tpot_over_context
from perfmodel.report.table import Column, Document, Table
from perfmodel.solver.mixed import mixed_time
from perfmodel.solver.plan import Deployment, FrontPoint, Holds, PoolPlan, Solution
from perfmodel.solver.request import Request
from perfmodel.solver.search import ROUND_OFF, exact_pool
from perfmodel.solver.solve import footprint_of_both
from perfmodel.solver.space import LARGEST_BATCH
from perfmodel.specs.deployment import LayoutSpec, Phase
from perfmodel.specs.run import Objective
from perfmodel.supply.rates import Rates
from perfmodel.units import HOUR

SMALLEST_SHARE = 0.01
FULL = 0.02  # of a load: pools so near each other are both full
TTFT_DEFINITION = (
    "TTFT = batch formation + residual of the running batch + prefill + exposed KV transfer + first decode step, "
    "means at the utilisation limit"
)
NO_TTFT = "no --ttft given: prefill batches grow as long as they gain rate, and prompts wait for them; give one"
MIXED_TTFT = (
    "TTFT = batch formation + residual of the running prefill or decode step + prefill, which makes the first token; "
    "means at the utilisation limit"
)
MIXED_UNTESTED = "mixed serving is closed form alone: no published row of it is on file"
OVERFULL = "decode runs out of memory where all its requests are at their longest at once: some are then preempted"
CHANCES = (
    "chances and intervals hold the stated ranges of inputs, no queues and no faults; for whole deployments beside "
    "published ones see moeplan validate"
)


#: keys of a layout that explain has an option for
_OPTIONS = (
    *("dies", "tp", "batch", "draft", "shared_ranks", "redundant", "overlap", "attention_cores", "exchange"),
    "reduction",
)
_PLAIN = LayoutSpec(dies=1, batch=1).model_dump()


def explain_command(
    pool: PoolPlan,
    asking: Asking,
    *,
    tpot: float | None,
) -> str:
    """Return the exact command that explains one pool."""
    layout, run, phase = pool.layout, asking.run, pool.family.phase
    case, machine = asking.cases[phase], asking.machines[phase]
    apart = phase == "prefill" and run.prefill_on is not None
    words = [
        "moeplan",
        "explain",
        load_model(str(run.model)).word,
        "--on",
        machine.system.word,
        "--phase",
        pool.family.phase,
        "--dies",
        str(layout.dies),
    ]
    words += ["--tp", str(layout.tp), "--batch", str(layout.batch), "--draft", str(layout.draft)]
    words += ["--shared-ranks", str(layout.shared_ranks), "--redundant", str(layout.redundant)]
    words += ["--overlap", layout.overlap, "--attention-cores", str(layout.attention_cores)]
    words += ["--exchange", layout.exchange, "--isl", str(case.isl)]
    if pool.family.phase == "decode":
        words += ["--osl", str(case.osl)]
        if tpot is not None:
            words += ["--tpot", f"{tpot * 1e3:g}ms"]
    words += ["--kv", pool.family.kv_dtype, "--precision", pool.family.precision]
    words += ["--reduction", pool.family.reduction]
    for key, value in layout.model_dump(exclude=set(_OPTIONS)).items():
        if value != _PLAIN[key]:
            words += ["--set", f"{key}={json.dumps(value)}"]
    for name, setting in beyond_layout(asking.techniques).items():
        words += ["--with", f"{name}={setting}"]
    if run.acceptance and run.acceptance not in [table.name for table in asking.model.acceptance[:1]]:
        words += ["--acceptance", run.acceptance]
    stack = run.prefill_stack if apart else run.stack
    if stack and stack != machine.system.spec.default_stack:
        words += ["--stack", stack]
    for name in () if apart else run.kernels or ():
        words += ["--kernels", name]
    return shlex.join(words)


def _pool_facts(answer: Planned, phase: Phase) -> dict[str, Any]:
    best, cases, ideal = _best(answer), answer.asking.cases, answer.ideal[phase]
    pool, instances, utilisation = (
        (best.decode, best.decode_instances, best.decode_utilisation)
        if phase == "decode"
        else (best.prefill, best.prefill_instances, best.prefill_utilisation)
    )
    case, rates = cases[phase], cases[phase].rates
    dies = pool.layout.dies * instances
    return {
        "instances": instances,
        "layout": pool.layout.model_dump(),
        "dies": dies,
        "cards": dies // rates.dies_per_package,
        "servers": pool.servers * instances,
        "step_time_s": as_float(pool.point.step_time),
        "tokens_per_s_per_card_of_pool": as_float(pool.point.tokens_per_s) * rates.dies_per_package / pool.layout.dies,
        "utilisation": utilisation,
        "memory_planned_B": as_float(pool.point.memory),
        "memory_worst_B": as_float(pool.point.footprint.worst),
        "memory_usable_B": as_float(pool.point.usable),
        "memory_share": as_float(pool.point.memory / pool.point.usable),
        "time_by_bound": time_by_bound(plan_breakdown(pool, case, ideal)),
        "stopped_by": _stopped_by(best, phase, cases, answer.solution.request),
    }


def _facts(answer: Planned) -> dict[str, Any]:
    """Return the numbers of the best plan in SI units."""
    best, asking, cases = _best(answer), answer.asking, answer.asking.cases
    request, decode = asking.request, answer.asking.cases["decode"]
    cards = {phase: servers * cases[phase].rates.packages_per_server for phase, servers in _servers(best).items()}
    used, budget = sum(cards.values()), sum(_budget(answer).values())
    terms = best.first_token
    return {
        "requests_per_s": best.requests_per_s,
        "tokens_per_s": best.requests_per_s * decode.osl,
        "tokens_per_s_per_card_of_deployment": best.requests_per_s * decode.osl / used,
        "tokens_per_s_per_card_of_decode_pool": as_float(best.decode.point.tokens_per_s)
        * (as_float(best.decode.point.tpot) / best.tpot)
        * decode.rates.dies_per_package
        / best.decode.layout.dies,
        "serving": "mixed" if best.mixed else "disaggregated",
        "tpot_s": best.tpot,
        "tpot_target_s": request.targets.tpot,
        "tpot_at_context_s": tpot_over_context(best.decode, decode, best.tpot_added),
        "longest_gap_s": best.longest_gap,
        "ttft_s": as_float(terms.ttft),
        "ttft_target_s": request.targets.ttft,
        "ttft_terms_s": {
            **({"frontend": as_float(terms.frontend)} if as_float(terms.frontend) else {}),
            "batch_formation": as_float(terms.batch_formation),
            "residual": as_float(terms.residual),
            "prefill": as_float(terms.prefill),
            "kv_transfer": as_float(terms.kv_transfer),
            "first_step": as_float(terms.first_step),
        },
        "cards_used": used,
        "cards_idle": budget - used if asking.run.cards else 0,
        "cards_of_pool": cards,
        "cost": _cost(answer, best),
        "unrounded_requests_per_s": answer.solution.unrounded,
        "longest_context": longest_context(best.decode),
        "prefill": _pool_facts(answer, "prefill"),
        "decode": _pool_facts(answer, "decode"),
    }


def _best(answer: Planned) -> Deployment:
    assert answer.solution.best is not None
    return answer.solution.best


def _servers(best: Deployment) -> dict[Phase, int]:
    """Return the servers in use of each pool; mixed instances count as decode's."""
    return {"prefill": best.prefill_servers, "decode": best.decode_servers}


def _budget(answer: Planned) -> dict[str, int]:
    """Return the cards that may be used, by system."""
    asking = answer.asking
    found: dict[str, int] = {}
    names = {phase: machine.system.spec.name for phase, machine in asking.machines.items()}
    servers_of: dict[Phase, int | None] = {"decode": asking.request.servers, "prefill": asking.request.prefill_servers}
    for phase, servers in servers_of.items():
        if servers is not None:
            found[names[phase]] = servers * asking.cases[phase].rates.packages_per_server
    if asking.run.cards and asking.request.prefill_servers is None:
        found[names["decode"]] = asking.run.cards
    return found


def _cost(answer: Planned, best: Deployment) -> dict[str, float] | None:
    """Return what the plan costs an hour and for a million output tokens, or its watts and joules for one token."""
    asking = answer.asking
    prices = dict(zip(("prefill", "decode"), asking.request.prices, strict=True))
    total = sum(prices[phase] * servers for phase, servers in _servers(best).items())
    tokens = best.requests_per_s * as_float(asking.case.osl)
    if asking.request.objective == "energy":
        return {"watts_at_most": total, "joules_per_token_at_most": total / tokens}
    if asking.run.price is None:
        return None
    each = as_float(cost_of_tokens(cost_rate=cast(Any, total / HOUR), tokens_per_s=cast(Any, tokens)))
    return {"per_hour": total, "per_million_tokens": each}


#: key of a cost, what it is called, and its unit; money has none
COSTS = (
    ("per_hour", "cost an hour, in the money of --price", "1"),
    ("per_million_tokens", "cost of a million output tokens", "1"),
    ("watts_at_most", "power, every server at its largest input", "W"),
    ("joules_per_token_at_most", "energy of an output token, at most, J", "1"),
)


def _between(ends: dict[str, float] | None, width: int) -> str:
    return "-" if ends is None else f"{span_in_words(ends, width, 1e3)} ms"


def _targets(facts: dict[str, Any]) -> Table:
    rows: list[dict[str, Any]] = []
    for name, key in (("TPOT", "tpot"), ("TTFT", "ttft")):
        target = facts[f"{key}_target_s"]
        value = facts[f"{key}_s"]
        met = None if target is None else value <= target * (1 + ROUND_OFF)
        rows.append(
            {
                "target": name,
                "met": "no limit given" if met is None else ("✓" if met else "✗"),
                "unit": "s",
                "value": value,
                "limit": target,
                "room": None if target is None else 1 - value / target,
                "interval50": _between(facts.get(f"{key}_interval_s"), 50),
                "interval": _between(facts.get(f"{key}_interval_s"), 90),
                "chance": facts.get(f"{key}_chance"),
            }
        )
    if (rate := facts["rate_asked_per_s"]) is not None:
        ends = facts.get("requests_per_s_interval")
        rows.append(
            {
                "target": "requests per second",
                "met": "✓",
                "unit": "1/s",
                "value": facts["requests_per_s"],
                "limit": rate,
                "room": facts["requests_per_s"] / rate - 1,
                "interval50": "-" if ends is None else span_in_words(ends, 50),
                "interval": "-" if ends is None else span_in_words(ends, 90),
                "chance": facts.get("rate_chance"),
            }
        )
    columns = (
        Column("target", "target"),
        Column("met", "met"),
        Column("unit", "unit"),
        Column("value", "predicted", "row"),
        Column("limit", "limit", "row"),
        Column("room", "room", "%"),
        Column("interval50", "50 % interval", spare=1),
        Column("interval", "90 % interval"),
        Column("chance", "chance", "%"),
    )
    both = facts.get("chance_of_all")
    note = () if both is None else (f"chance that all are met at once: {100 * both:.1f} %",)
    return Table("Targets", columns, tuple(rows), note)


def _pools(answer: Planned, facts: dict[str, Any]) -> Table:
    rows: list[dict[str, object]] = []
    best, cases = _best(answer), answer.asking.cases
    pools: dict[Phase, PoolPlan] = {"prefill": best.prefill, "decode": best.decode}
    machines = {phase: machine.system.spec.name for phase, machine in answer.asking.machines.items()}

    def row(what: str, unit: str | None, cell: Callable[[Phase, PoolPlan], object]) -> None:
        rows.append({"what": what, "unit": unit, **{str(name): cell(name, pool) for name, pool in pools.items()}})

    def fact(key: str) -> Callable[[Phase, PoolPlan], object]:
        return lambda name, _: facts[name][key]

    if len(set(machines.values())) > 1:
        row("system", None, lambda name, _: machines[name])
    row("instances", "1", fact("instances"))
    row("one instance", None, lambda name, pool: sizes(pool.layout.dies, cases[name].rates))
    row("all instances", None, lambda name, _: sizes(facts[name]["dies"], cases[name].rates))
    row("attention", None, lambda _, pool: attention_words(pool).removeprefix("attention "))
    row(
        "experts",
        None,
        lambda _, pool: f"{experts_words(pool).removeprefix('experts ')}, {pool.layout.redundant} redundant",
    )
    row("shared expert", None, lambda _, pool: shared_words(pool))
    row("sequences (prompts) per dp rank", "1", lambda _, pool: pool.layout.batch)
    row("draft (MTP) tokens", "1", lambda _, pool: pool.layout.draft)
    row("expert exchange", None, lambda _, pool: pool.layout.exchange)
    row("overlap", None, lambda _, pool: overlap_words(pool))
    row("step time", "s", fact("step_time_s"))
    row("where it goes", None, lambda name, _: _shares(facts[name]["time_by_bound"]))
    alone = "tokens/s per card while it runs alone" if best.mixed else "tokens/s per card of the pool"
    row(alone, "1/s", fact("tokens_per_s_per_card_of_pool"))
    row("load", "%", fact("utilisation"))
    row("memory of what is usable", "%", fact("memory_share"))
    row("a larger batch is stopped by", None, fact("stopped_by"))
    columns = (
        Column("what", ""),
        Column("unit", "unit"),
        Column("prefill", "prefill", "row"),
        Column("decode", "decode", "row"),
    )
    notes = [f"{alone}: at full batch, as published results count; prefill counts input tokens"]
    if best.mixed:
        notes.append("mixed: both columns are the same instances, which run prefill and decode steps in turn")
    return Table("Plan", columns, tuple(rows), tuple(notes))


def _shares(shares: dict[str, float]) -> str:
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items() if share >= SMALLEST_SHARE)


def _stopped_by(best: Deployment, phase: Phase, cases: Mapping[Phase, Case], request: Request) -> str:
    """Return what one more sequence per rank would break."""
    pool = best.decode if phase == "decode" else best.prefill
    tpot, rate = request.targets.tpot, request.rate
    if pool.layout.batch >= LARGEST_BATCH:
        return f"the search, which ends at {LARGEST_BATCH}"
    layout = pool.layout.model_copy(update={"batch": pool.layout.batch + 1})
    more = exact_pool(layout, pool.family, cases[phase])
    prefill, decode = (more, best.decode) if phase == "prefill" else (best.prefill, more)
    time: Any = mixed_time(prefill.point, decode.point) if best.mixed else more.point.tpot
    memory: Any = footprint_of_both(prefill, decode).planned if best.mixed else more.point.memory
    broken = ["memory"] if memory > cast(Any, more.point.usable) else []
    if tpot is not None and time > tpot and (phase == "decode" or best.mixed):
        broken.append("TPOT")
    if broken:
        return " and ".join(broken)
    if phase == "prefill":
        return "TTFT (longer batches only wait longer)"
    if rate is not None and best.requests_per_s >= rate * (1 - FULL):
        return "no gain: the rate asked for is served"
    if not best.mixed and best.decode_utilisation < best.prefill_utilisation * (1 - FULL):
        return "no gain: prefill sets the rate"
    return "TTFT, or no gain in the whole plan"


def counts_in_words(best: Deployment) -> str:
    """Return the instances in the field's short form, such as 5P2D."""
    return f"{best.decode_instances} mixed" if best.mixed else f"{best.prefill_instances}P{best.decode_instances}D"


def _size_in_words(best: Deployment, cases: Mapping[Phase, Case]) -> str:
    words = [
        sizes(servers * cases[phase].rates.dies_per_server, cases[phase].rates)
        for phase, servers in _servers(best).items()
    ]
    if cases["prefill"] is not cases["decode"]:
        return f"prefill {words[0]}; decode {words[1]}"
    rates = cases["decode"].rates
    return sizes(best.servers_used * rates.dies_per_server, rates)


def _totals(facts: dict[str, Any], best: Deployment, cases: Mapping[Phase, Case]) -> Table:
    whole = f"{counts_in_words(best)}: {_size_in_words(best, cases)}"
    sure = facts.get("requests_per_s_interval")
    rate = facts["requests_per_s"]

    def ends(value: object, width: int) -> str:
        return "-" if sure is None else span_in_words(sure, width, float(str(value)) / rate)

    rows: list[tuple[str, object, str | None]] = [
        ("deployment", whole, None),
        ("idle cards of the budget", facts["cards_idle"], "1"),
        ("requests per second", facts["requests_per_s"], "1/s"),
        ("output tokens per second", facts["tokens_per_s"], "1/s"),
        ("  per card of the decode pool, at full batch", facts["tokens_per_s_per_card_of_decode_pool"], "1/s"),
        ("  per card of the whole deployment, sustained", facts["tokens_per_s_per_card_of_deployment"], "1/s"),
        ("longest context of one request, tokens", facts["longest_context"], "1"),
    ]
    start, end = (format_quantity(facts["tpot_at_context_s"][name], "s") for name in ("start", "end"))
    rows.append(("TPOT with all requests at their first, last token", f"{start}, {end}", None))
    if best.mixed:
        rows.append(("longest gap between tokens: a prefill step", facts["longest_gap_s"], "s"))
    if (most := facts["unrounded_requests_per_s"]) is not None:
        rows.append(("lost to whole instances, at most", 1 - rate / most, "%"))
    for name, words, unit in COSTS:
        if facts["cost"] and name in facts["cost"]:
            rows.append((words, facts["cost"][name], unit))
    sustained = ("requests per second", "output tokens per second", "  per card of the whole deployment, sustained")
    columns = (
        Column("what", ""),
        Column("unit", "unit"),
        Column("value", "value", "row"),
        Column("interval50", "50 % interval", spare=2),
        Column("interval", "90 % interval", spare=1),
    )
    return Table(
        "Totals",
        columns,
        tuple(
            {
                "what": what,
                "unit": unit,
                "value": value,
                "interval50": ends(value, 50) if what in sustained else "",
                "interval": ends(value, 90) if what in sustained else "",
            }
            for what, value, unit in rows
        ),
    )


def _ttft(facts: dict[str, Any], mixed: bool) -> Table:
    terms = {**facts["ttft_terms_s"], "sum": facts["ttft_s"]}
    rows = tuple({"term": name.replace("_", " "), "time": value} for name, value in terms.items())
    return Table(
        "Time to first token",
        (Column("term", "term"), Column("time", "mean", "s")),
        rows,
        (MIXED_TTFT if mixed else TTFT_DEFINITION,),
    )


def _rivals(answer: Planned) -> Table:
    solution, asking = answer.solution, answer.asking
    rows = [
        {
            "plan": counts_in_words(d),
            "decode": layout_words(d.decode),
            "tpot": d.tpot,
            "ttft": as_float(d.first_token.ttft),
            "requests": d.requests_per_s,
            "servers": d.servers_used,
            "loss": loss,
        }
        for d, loss in zip(solution.alternatives, solution.losses, strict=True)
    ]
    columns = (
        Column("plan", "plan"),
        Column("decode", "decode layout"),
        Column("tpot", "TPOT", "s"),
        Column("ttft", "TTFT", "s"),
        Column("requests", "req/s", "1/s"),
        Column("servers", "servers", "1"),
        Column("loss", f"{VALUED[asking.request.objective]} vs best", "%"),
    )
    return Table("Next best, each of another size or structure", columns, tuple(rows))


#: what an objective compares
VALUED: dict[Objective, str] = {
    "throughput": "req/s",
    "tpot": "req/s",
    "per-card": "req/s per card",
    "cards": "req/s per server",
    "cost": "tokens for the money",
    "energy": "tokens per joule",
}


def _lost(answer: Planned) -> Table:
    """Return the best plan of every other structural choice, what it loses, and where its time goes instead."""
    best, case, ideal = _best(answer), answer.asking.case, answer.ideal["decode"]
    before = _card_seconds(best.decode, case, ideal)
    rows = tuple(
        {
            "choice": one.choice,
            "loss": one.loss,
            "servers": one.deployment.servers_used,
            "why": _why(before, _card_seconds(one.deployment.decode, case, ideal)),
            "decode": layout_words(one.deployment.decode),
        }
        for one in answer.solution.lost
    )
    columns = (
        Column("choice", "choosing"),
        Column("loss", f"{VALUED[answer.asking.request.objective]} vs best", "%"),
        Column("servers", "servers", "1"),
        Column("why", "decode time of a token that it adds"),
        Column("decode", "its best decode layout", spare=1),
    )
    note = (
        "the time it adds: of the best plan's card time for a token, the largest two; the rest of the loss is elsewhere"
    )
    return Table("What other choices lose, everything else chosen anew", columns, rows, (note,) if rows else ())


def _card_seconds(pool: PoolPlan, case: Case, ideal: Rates) -> dict[str, float]:
    """Return the time of a card for one token, by operator and what else takes time."""
    parts = plan_breakdown(pool, case, ideal)
    each = pool.layout.dies / as_float(pool.point.tokens_per_s) / parts.step_time
    times: dict[str, float] = {}
    for row in parts.rows:
        if row.decides:
            times[row.name] = times.get(row.name, 0.0) + row.total * each
    times["gaps between operators"] = parts.gaps * each
    times["host, launch, sampling"] = parts.overhead * each
    return times


def _why(before: Mapping[str, float], after: Mapping[str, float]) -> str:
    """Return the two operators that add most, as parts of all time before."""
    whole = sum(before.values())
    added = {name: (time - before.get(name, 0.0)) / whole for name, time in after.items()}
    most = sorted(added, key=lambda name: -added[name])[:2]
    return ", ".join(f"{name} +{added[name]:.0%}" for name in most if added[name] >= SMALLEST_SHARE) or "-"


def _bought(answer: Planned) -> Table:
    """Return what a little more of each limit buys."""
    rows = tuple({"limit": one.limit, "gain": one.gain} for one in answer.solution.prices)
    columns = (Column("limit", "a little more"), Column("gain", f"buys {VALUED[answer.asking.request.objective]}", "%"))
    note = "at least: +1 ms keeps the decode layout but for its batch and split, more servers keep the sizes searched"
    return Table("What more of a limit buys", columns, rows, (note,))


def _of_domains(answer: Planned) -> tuple[str, ...]:
    """Return how a budget beyond one supernode or server group is divided."""
    request, found = answer.asking.request, []
    for servers, domain in ((request.prefill_servers, request.domains[0]), (request.servers, request.domains[1])):
        if servers is None or domain is None or servers <= domain:
            continue
        whole, rest = divmod(servers, domain)
        more = f" and one of {rest}, which must be for sale in part" if rest else ""
        found.append(
            f"the budget is {whole} supernodes or server groups of {domain} servers{more}; no instance leaves its own "
            "(--allow-scale-out), and between them the cache takes the network that joins them"
        )
    return tuple(found)


def _choice_holds(found: Holds | None) -> tuple[str, ...]:
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


def front_table(points: Sequence[FrontPoint], answer: Planned, facts: dict[str, Any]) -> Table:
    """Return the front of throughput over TPOT, and the chosen plan among it."""
    best, most = _best(answer), points[-1].tokens_per_s_per_card
    shown = [(one.tpot, one.tokens_per_s_per_card, one.deployment, "") for one in points]
    own = facts["tokens_per_s_per_card_of_deployment"]
    shown = [one for one in shown if one[0] < best.tpot or one[1] > own * (1 + FULL)]  # not those the choice beats
    shown.append((best.tpot, own, best, "<- chosen"))
    rows = tuple(
        {
            "tpot": tpot,
            "rate": rate,
            "bar": rate / most,
            "plan": counts_in_words(deployment),
            "decode": layout_words(deployment.decode),
            "chosen": chosen,
        }
        for tpot, rate, deployment, chosen in sorted(shown, key=lambda one: one[:2])
    )
    columns = (
        Column("tpot", "TPOT", "s"),
        Column("rate", "tokens/s per card", "1/s"),
        Column("bar", "", "bar", spare=2),
        Column("plan", "plan"),
        Column("decode", "decode layout", spare=1),
        Column("chosen", ""),
    )
    notes = [
        "tokens/s per card in use, sustained: the most within each TPOT on this budget, whatever rate was asked for"
    ]
    if answer.asking.run.confidence is not None:
        notes.append("points are predictions, met with even odds; the chosen plan meets its TPOT more often")
    ends = [(one.tpot, one.tokens_per_s_per_card) for one in points]
    limit = answer.asking.request.targets.tpot
    return Table(
        "Front of throughput over TPOT",
        columns,
        rows,
        tuple(notes),
        drawing=lambda width, _: front(ends, (best.tpot, own), limit, width),
    )


def _missed(solution: Solution) -> Table:
    """Return each limit that was searched under, and the nearest that any plan came to it."""
    request = solution.request
    closest = {r.constraint: r for r in solution.rejections}
    asked = (("tpot", "TPOT", "s", request.targets.tpot), ("ttft", "TTFT", "s", request.targets.ttft))
    rows = []
    passed = "rate" in closest  # what falls short of the rate has met the limits before it
    for key, name, unit, limit in (*asked, ("rate", "requests per second", "1/s", request.rate)):
        if limit is None:
            continue
        miss = closest.get(key)
        known = miss is not None and math.isfinite(miss.closest)
        rows.append(
            {
                "target": name,
                "met": "not the limit that binds" if not known or (passed and key != "rate") else "✗",
                "limit": format_quantity(limit, unit),
                "closest": format_quantity(miss.closest, unit) if miss and known else "-",
                "off": miss.closest / limit - 1 if miss and known else None,
            }
        )
    columns = (
        Column("target", "target"),
        Column("met", "met"),
        Column("limit", "limit"),
        Column("closest", "nearest plan"),
        Column("off", "off by", "%"),
    )
    note = "nearest plan: it meets every limit checked before this one (memory, then TPOT, then TTFT, then rate)"
    return Table("Targets", columns, tuple(rows), (note,))


def _rejected(solution: Solution) -> Table:
    rows = tuple(
        {
            "constraint": r.constraint,
            "refused": r.count,
            "closest": format_quantity(r.closest, r.unit) if math.isfinite(r.closest) else "-",
            "limit": format_quantity(r.limit, r.unit) if math.isfinite(r.closest) else "-",
            "off": r.closest / r.limit - 1 if math.isfinite(r.closest) else None,
            "layout": r.layout,
        }
        for r in solution.rejections
    )
    columns = (
        Column("constraint", "constraint"),
        Column("refused", "plans refused", "1"),
        Column("closest", "closest miss"),
        Column("limit", "limit"),
        Column("off", "off by", "%"),
        Column("layout", "by", spare=1),
    )
    note = "closest miss: of pools where they are joined, else told only where nothing is feasible"
    return Table("Refused", columns, rows, (note,) if rows else ())


def plan_document(answer: Planned, points: Sequence[FrontPoint] = (), holds: Holds | None = None) -> Document:
    """Return the planner's answer; an infeasible one says how near the nearest miss was."""
    solution, asking, request = answer.solution, answer.asking, answer.asking.request
    cases, run = asking.cases, asking.run
    names = {phase: machine.system.spec.name for phase, machine in asking.machines.items()}
    facts: dict[str, Any] = {
        "status": solution.status.value,
        "model": asking.model.name,
        "system": names["decode"],
        "prefill_system": names["prefill"],
        "isl": asking.case.isl,
        "osl": asking.case.osl,
        "acceptance": asking.acceptance,
        "objective": request.objective,
        "rate_asked_per_s": request.rate,
        "plans_evaluated": solution.evaluated,
        "utilisation_limit": request.utilisation,
        "confidence": run.confidence,
    }
    where = (
        names["decode"] if names["prefill"] == names["decode"] else f"{names['decode']}, prefill on {names['prefill']}"
    )
    title = f"{asking.model.name} on {where}: isl {asking.case.isl}, osl {asking.case.osl}"
    count = f"{solution.evaluated:,} candidate plans evaluated"
    budget = (
        ()
        if run.cards
        else tuple(
            f"no --cards given: searched up to {cards} cards = {cards // rates.packages_per_server} servers of {name}"
            for (name, cards), rates in zip(
                _budget(answer).items(), (cases["decode"].rates, cases["prefill"].rates), strict=False
            )
        )
    )
    best = solution.best
    if best is None:
        return Document(
            schema="moeplan.solution/1",
            title=f"{title}: no feasible plan",
            tables=(_missed(solution), _rejected(solution)),
            facts=facts,
            notes=(count, *budget),
        )
    facts |= _facts(answer)
    if answer.sure is not None:
        facts["tpot_interval_s"] = answer.sure.tpot.as_dict()
        facts["tpot_chance"] = answer.tpot_chance
    if answer.joined is not None:
        facts["ttft_interval_s"] = answer.joined.ttft.as_dict()
        facts["ttft_chance"] = answer.ttft_chance
        facts["rate_chance"] = answer.rate_chance
        facts["chance_of_all"] = answer.chance_of_all
        facts["requests_per_s_interval"] = answer.joined.requests_per_s.as_dict()
    facts["explain"] = {
        "decode": explain_command(best.decode, asking, tpot=None if best.mixed else request.targets.tpot),
        "prefill": explain_command(best.prefill, asking, tpot=None),
    }
    facts["front"] = [{"tpot_s": one.tpot, "tokens_per_s_per_card": one.tokens_per_s_per_card} for one in points]
    asked, under = request.targets, solution.request.targets
    pairs = (("TPOT", asked.tpot, under.tpot), ("TTFT", asked.ttft, under.ttft))
    tightened = tuple(
        f"{name} is to be met with a chance of {run.confidence:.0%}: searched, and counted as refused, under a limit "
        f"of {format_quantity(limit, 's')}"
        for name, wanted, limit in pairs
        if run.confidence is not None and limit is not None and wanted is not None and limit < wanted
    )
    notes = (
        count,
        *budget,
        *tightened,
        *_of_domains(answer),
        *((NO_TTFT,) if request.targets.ttft is None else ()),
        *((MIXED_UNTESTED,) if best.mixed else ()),
        *((OVERFULL,) if facts["decode"]["memory_worst_B"] > facts["decode"]["memory_usable_B"] else ()),
        CHANCES,
        *_choice_holds(holds),
        f"draft acceptance: {asking.acceptance}",
        *(f"decode {text}" for text in extrapolations(best.decode, cases["decode"])),
        *(f"prefill {text}" for text in extrapolations(best.prefill, cases["prefill"])),
        f"explain decode: {facts['explain']['decode']}",
        f"explain prefill: {facts['explain']['prefill']}",
    )
    return Document(
        schema="moeplan.solution/1",
        title=title,
        tables=(
            _targets(facts),
            _pools(answer, facts),
            _totals(facts, best, cases),
            _ttft(facts, best.mixed),
            memory_table(best.decode, asking.case),
            *((front_table(points, answer, facts),) if points else ()),
            _rivals(answer),
            _lost(answer),
            _bought(answer),
            _rejected(solution),
            assumption_table(answer.felt),
        ),
        facts=facts,
        notes=notes,
    )
