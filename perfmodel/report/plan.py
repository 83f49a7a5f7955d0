"""A solution -> a document: targets first, then the plan, its rivals, its limits."""

import json
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from perfmodel.rates import Rates
from perfmodel.report.assumptions import assumption_table
from perfmodel.report.memory import longest_context, memory_table
from perfmodel.report.operators import time_by_bound
from perfmodel.report.quantity import format_quantity, span_in_words
from perfmodel.report.step import (
    attention_words,
    extrapolations,
    layout_words,
    overlap_words,
    plan_breakdown,
    shared_words,
    sizes,
)
from perfmodel.report.table import Column, Document, Table
from perfmodel.sensitivity import Swing
from perfmodel.serving import Case
from perfmodel.solver.plan import Deployment, PoolPlan, Solution
from perfmodel.solver.search import exact_pool
from perfmodel.solver.solve import Request
from perfmodel.solver.space import LARGEST_BATCH
from perfmodel.specs.deployment import LayoutSpec
from perfmodel.uncertainty import JoinedRange, PoolRange

SMALLEST_SHARE = 0.01
TTFT_DEFINITION = (
    "TTFT = batch formation + residual of the running batch + prefill + exposed KV transfer + first decode step, "
    "means at the utilisation limit"
)


def _f(value: Any) -> float:
    return float(value)


#: keys of a layout that explain has an option for
_OPTIONS = (
    *("dies", "tp", "batch", "draft", "shared_ranks", "redundant", "overlap", "attention_cores", "exchange"),
    "reduction",
)
_PLAIN = LayoutSpec(dies=1, batch=1).model_dump()


def explain_command(
    pool: PoolPlan,
    case: Case,
    *,
    model: str,
    system: str,
    stack: str | None,
    kernels: tuple[str, ...],
    techniques: Mapping[str, str],
    acceptance: str | None,
    tpot: float | None,
) -> str:
    """Return the exact command that explains one pool; ``techniques`` are those a machine was set to."""
    layout = pool.layout
    words = ["moeplan", "explain", model, "--on", system, "--phase", pool.family.phase, "--dies", str(layout.dies)]
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
    for name, setting in techniques.items():
        words += ["--with", f"{name}={setting}"]
    if acceptance:
        words += ["--acceptance", acceptance]
    if stack:
        words += ["--stack", stack]
    for name in kernels:
        words += ["--kernels", name]
    return shlex.join(words)


def _pool_facts(
    pool: PoolPlan, case: Case, ideal: Rates, instances: int, utilisation: float, tpot: float | None
) -> dict[str, Any]:
    rates = case.rates
    dies = pool.layout.dies * instances
    return {
        "instances": instances,
        "layout": pool.layout.model_dump(),
        "dies": dies,
        "cards": dies // rates.dies_per_package,
        "servers": pool.servers * instances,
        "step_time_s": _f(pool.point.step_time),
        "tokens_per_s_per_card_of_pool": _f(pool.point.tokens_per_s) * rates.dies_per_package / pool.layout.dies,
        "utilisation": utilisation,
        "memory_planned_B": _f(pool.point.memory),
        "memory_worst_B": _f(pool.point.footprint.worst),
        "memory_usable_B": _f(pool.point.usable),
        "memory_share": _f(pool.point.memory / pool.point.usable),
        "time_by_bound": time_by_bound(plan_breakdown(pool, case, ideal)),
        "stopped_by": _stopped_by(pool, case, tpot),
    }


def _facts(
    best: Deployment, case: Case, ideal: Rates, cards: int | None, request: Request, searched_tpot: float | None
) -> dict[str, Any]:
    used = best.servers_used * case.rates.packages_per_server
    budget = cards or used
    terms = best.first_token
    return {
        "requests_per_s": best.requests_per_s,
        "tokens_per_s": best.requests_per_s * case.osl,
        "tokens_per_s_per_card_of_deployment": best.requests_per_s * case.osl / used,
        "tokens_per_s_per_card_of_decode_pool": _f(best.decode.point.tokens_per_s)
        * case.rates.dies_per_package
        / best.decode.layout.dies,
        "tpot_s": _f(best.decode.point.tpot),
        "tpot_target_s": request.targets.tpot,
        "ttft_s": _f(terms.ttft),
        "ttft_target_s": request.targets.ttft,
        "ttft_terms_s": {
            **({"frontend": _f(terms.frontend)} if _f(terms.frontend) else {}),
            "batch_formation": _f(terms.batch_formation),
            "residual": _f(terms.residual),
            "prefill": _f(terms.prefill),
            "kv_transfer": _f(terms.kv_transfer),
            "first_step": _f(terms.first_step),
        },
        "cards_used": used,
        "cards_idle": budget - used,
        "longest_context": longest_context(best.decode),
        "prefill": _pool_facts(best.prefill, case, ideal, best.prefill_instances, best.prefill_utilisation, None),
        "decode": _pool_facts(best.decode, case, ideal, best.decode_instances, best.decode_utilisation, searched_tpot),
    }


def _between(ends: dict[str, float] | None, width: int) -> str:
    return "-" if ends is None else f"{span_in_words(ends, width, 1e3)} ms"


def _targets(facts: dict[str, Any]) -> Table:
    rows = []
    for name, key in (("TPOT", "tpot"), ("TTFT", "ttft")):
        target = facts[f"{key}_target_s"]
        value = facts[f"{key}_s"]
        met = None if target is None else value <= target
        rows.append(
            {
                "target": name,
                "met": "no limit given" if met is None else ("✓" if met else "✗"),
                "value": value,
                "limit": target,
                "room": None if target is None else 1 - value / target,
                "interval50": _between(facts.get(f"{key}_interval_s"), 50),
                "interval": _between(facts.get(f"{key}_interval_s"), 90),
                "chance": facts.get(f"{key}_chance"),
            }
        )
    columns = (
        Column("target", "target"),
        Column("met", "met"),
        Column("value", "predicted", "s"),
        Column("limit", "limit", "s"),
        Column("room", "room", "%"),
        Column("interval50", "50 % interval", spare=1),
        Column("interval", "90 % interval"),
        Column("chance", "chance", "%"),
    )
    return Table("Targets", columns, tuple(rows))


def _pools(best: Deployment, case: Case, facts: dict[str, Any]) -> Table:
    rows = []
    pools = {"prefill": best.prefill, "decode": best.decode}

    def row(what: str, unit: str | None, cell: Callable[[str, PoolPlan], object]) -> None:
        cells = {name: cell(name, pool) for name, pool in pools.items()}
        rows.append({"what": what, "unit": unit, **cells})

    def fact(key: str) -> Callable[[str, PoolPlan], object]:
        return lambda name, _: facts[name][key]

    row("instances", "1", fact("instances"))
    row("one instance", None, lambda _, pool: sizes(pool.layout.dies, case.rates))
    row("all instances", None, lambda name, _: sizes(facts[name]["dies"], case.rates))
    row("attention", None, lambda _, pool: attention_words(pool).removeprefix("attention "))
    row("experts", None, lambda _, pool: f"ep {pool.layout.dies}, {pool.layout.redundant} redundant")
    row("shared expert", None, lambda _, pool: shared_words(pool))
    row("sequences (prompts) per dp rank", "1", lambda _, pool: pool.layout.batch)
    row("draft (MTP) tokens", "1", lambda _, pool: pool.layout.draft)
    row("expert exchange", None, lambda _, pool: pool.layout.exchange)
    row("overlap", None, lambda _, pool: overlap_words(pool))
    row("step time", "s", fact("step_time_s"))
    row("where it goes", None, lambda name, _: _shares(facts[name]["time_by_bound"]))
    row("tokens/s per card of the pool", "1/s", fact("tokens_per_s_per_card_of_pool"))
    row("load", "%", fact("utilisation"))
    row("memory of what is usable", "%", fact("memory_share"))
    row("a larger batch is stopped by", None, fact("stopped_by"))
    columns = (
        Column("what", ""),
        Column("unit", "unit"),
        Column("prefill", "prefill", "row"),
        Column("decode", "decode", "row"),
    )
    note = "tokens/s per card of the pool: at full batch, as published results count; prefill counts input tokens"
    return Table("Plan", columns, tuple(rows), (note,))


def _shares(shares: dict[str, float]) -> str:
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items() if share >= SMALLEST_SHARE)


def _stopped_by(pool: PoolPlan, case: Case, tpot: float | None) -> str:
    """Return what one more sequence per rank would break."""
    if pool.layout.batch >= LARGEST_BATCH:
        return f"the search, which ends at {LARGEST_BATCH}"
    layout = pool.layout.model_copy(update={"batch": pool.layout.batch + 1})
    point: Any = exact_pool(layout, pool.family, case).point
    broken = ["memory"] if point.memory > point.usable else []
    if pool.family.phase == "decode":
        if tpot is not None and point.tpot > tpot:
            broken.append("TPOT")
        return " and ".join(broken) or "TTFT, or no gain in the whole plan"
    return " and ".join(broken) or "TTFT (longer batches only wait longer)"


def _totals(facts: dict[str, Any], best: Deployment, case: Case) -> Table:
    used = best.servers_used
    whole = f"{best.prefill_instances}P{best.decode_instances}D: {sizes(used * case.rates.dies_per_server, case.rates)}"
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


def _ttft(facts: dict[str, Any]) -> Table:
    terms = {**facts["ttft_terms_s"], "sum": facts["ttft_s"]}
    rows = tuple({"term": name.replace("_", " "), "time": value} for name, value in terms.items())
    return Table("Time to first token", (Column("term", "term"), Column("time", "mean", "s")), rows, (TTFT_DEFINITION,))


def _rivals(solution: Solution) -> Table:
    best = solution.best
    rows = [
        {
            "plan": f"{d.prefill_instances}P{d.decode_instances}D",
            "decode": layout_words(d.decode),
            "tpot": _f(d.decode.point.tpot),
            "ttft": _f(d.first_token.ttft),
            "requests": d.requests_per_s,
            "servers": d.servers_used,
            "loss": d.requests_per_s / best.requests_per_s - 1 if best else None,
        }
        for d in solution.alternatives
    ]
    columns = (
        Column("plan", "plan"),
        Column("decode", "decode layout"),
        Column("tpot", "TPOT", "s"),
        Column("ttft", "TTFT", "s"),
        Column("requests", "req/s", "1/s"),
        Column("servers", "servers", "1"),
        Column("loss", "vs best", "%"),
    )
    return Table("Next best, each really different", columns, tuple(rows))


def _lost(solution: Solution) -> Table:
    """Return the best plan of every other structural choice, and what it loses."""
    best = solution.best
    rows = tuple(
        {
            "choice": one.choice,
            "loss": one.deployment.requests_per_s / best.requests_per_s - 1,
            "servers": one.deployment.servers_used,
            "decode": layout_words(one.deployment.decode),
        }
        for one in solution.lost
        if one.deployment is not None and best is not None
    )
    columns = (
        Column("choice", "choosing"),
        Column("loss", "req/s against the best", "%"),
        Column("servers", "servers", "1"),
        Column("decode", "its best decode layout", spare=1),
    )
    return Table("What other choices lose, everything else chosen anew", columns, rows)


def _bought(solution: Solution) -> Table:
    """Return what a little more of each limit buys."""
    rows = tuple({"limit": one.limit, "gain": one.gain} for one in solution.prices)
    columns = (Column("limit", "a little more"), Column("gain", "buys", "%"))
    note = "at least: +1 ms keeps the decode layout but for its batch and split, more servers keep the sizes searched"
    return Table("What more of a limit buys", columns, rows, (note,))


def _missed(solution: Solution, request: Request) -> Table:
    """Return each limit that was asked for, and the nearest that any plan came to it."""
    closest = {r.constraint: r for r in solution.rejections}
    asked = (("tpot", "TPOT", "s", request.targets.tpot), ("ttft", "TTFT", "s", request.targets.ttft))
    rows = []
    for key, name, unit, limit in (*asked, ("rate", "requests per second", "1/s", request.rate)):
        if limit is None:
            continue
        miss = closest.get(key)
        known = miss is not None and math.isfinite(miss.closest)
        rows.append(
            {
                "target": name,
                "met": "✗" if known else "not the limit that binds",
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
            "closest": (
                f"{format_quantity(r.closest, r.unit)} against {format_quantity(r.limit, r.unit)}"
                if math.isfinite(r.closest)
                else "-"
            ),
            "layout": r.layout,
        }
        for r in solution.rejections
    )
    columns = (
        Column("constraint", "constraint"),
        Column("refused", "plans refused", "1"),
        Column("closest", "closest miss"),
        Column("layout", "by"),
    )
    return Table("Refused", columns, rows)


def plan_document(
    solution: Solution,
    request: Request,
    *,
    model: str,
    system: str,
    stack: str | None,
    kernels: tuple[str, ...],
    techniques: Mapping[str, str],
    cards: int | None,
    acceptance: str,
    acceptance_option: str | None,
    felt: Sequence[Swing],
    ideal: Rates,
    sure: PoolRange | None,
    joined: JoinedRange | None,
    confidence: float | None = None,
    searched_tpot: float | None = None,
) -> Document:
    """Return the planner's answer; an infeasible one says how near the nearest miss was."""
    case, best = solution.case, solution.best
    facts: dict[str, Any] = {
        "status": solution.status.value,
        "model": model,
        "system": system,
        "isl": case.isl,
        "osl": case.osl,
        "acceptance": acceptance,
        "plans_evaluated": solution.evaluated,
        "utilisation_limit": request.utilisation,
        "confidence": confidence,
    }
    count = f"{solution.evaluated:,} candidate plans evaluated"
    searched = request.servers * case.rates.packages_per_server
    budget = () if cards else (f"no --cards given: searched up to {searched} cards = {request.servers} servers",)
    title = f"{model} on {system}: isl {case.isl}, osl {case.osl}"
    if best is None:
        return Document(
            schema="moeplan.plan/1",
            title=f"{title}: no feasible plan",
            tables=(_missed(solution, request), _rejected(solution)),
            facts=facts,
            notes=(count, *budget),
        )
    facts |= _facts(best, case, ideal, cards, request, searched_tpot)
    if sure is not None:
        facts["tpot_interval_s"] = sure.tpot.as_dict()
        if joined is not None:
            facts["ttft_interval_s"] = joined.ttft.as_dict()
            facts["requests_per_s_interval"] = joined.requests_per_s.as_dict()
        if request.targets.tpot is not None:
            facts["tpot_chance"] = sure.chance(request.targets.tpot, _f(best.decode.point.tokens_per_step))
    shared: dict[str, Any] = {
        "model": model,
        "system": system,
        "stack": stack,
        "kernels": kernels,
        "techniques": techniques,
        "acceptance": acceptance_option,
    }
    facts["explain"] = {
        "decode": explain_command(best.decode, case, tpot=request.targets.tpot, **shared),
        "prefill": explain_command(best.prefill, case, tpot=None, **shared),
    }
    asked: tuple[str, ...] = ()
    if confidence is not None and searched_tpot is not None:
        tightened = f"searched, and counted as refused, under a TPOT limit of {searched_tpot * 1e3:.1f} ms"
        asked = (f"decode is to meet TPOT with a chance of {confidence:.0%}: {tightened}",)
    notes = (
        count,
        *budget,
        *asked,
        f"draft acceptance: {acceptance}",
        *(f"decode {text}" for text in extrapolations(best.decode, case)),
        *(f"prefill {text}" for text in extrapolations(best.prefill, case)),
        f"explain decode: {facts['explain']['decode']}",
        f"explain prefill: {facts['explain']['prefill']}",
    )
    return Document(
        schema="moeplan.plan/1",
        title=title,
        tables=(
            _targets(facts),
            _pools(best, case, facts),
            _totals(facts, best, case),
            _ttft(facts),
            memory_table(best.decode, case),
            _rivals(solution),
            _lost(solution),
            _bought(solution),
            _rejected(solution),
            assumption_table(felt),
        ),
        facts=facts,
        notes=notes,
    )
