"""What was asked and the numbers of the best plan, in SI units, for programs."""

from dataclasses import asdict
from typing import Any

from perfmodel.algebra import as_float
from perfmodel.planning.planner import Planned
from perfmodel.prediction.cost import card_prices, cost_of, power_of
from perfmodel.prediction.deployment import Deployment
from perfmodel.report.memory import longest_context_facts
from perfmodel.report.operators import time_by_bound
from perfmodel.report.plan.budget import cards_allowed
from perfmodel.report.plan.larger_batch import stopped_by
from perfmodel.report.step import plan_breakdown, tpot_over_context
from perfmodel.specs.deployment import Phase


def asked_facts(answer: Planned) -> dict[str, Any]:
    """Return what was asked for, and how the search went."""
    solution, request, search = answer.solution, answer.request, answer.request.search
    names = {phase: machine.system.spec.name for phase, machine in request.machines.items()}
    stacks = {phase: machine.stack.spec.name for phase, machine in request.machines.items()}
    engines = {phase: None if engine is None else engine.word for phase, engine in request.engines.items()}
    return {
        "status": solution.status.value,
        "model": request.model.name,
        "system": names["decode"],
        "prefill_system": names["prefill"],
        **{"stack": stacks["decode"], "engine": engines["decode"]},
        **{"prefill_stack": stacks["prefill"], "prefill_engine": engines["prefill"]},
        "isl": request.case.isl,
        "osl": request.case.osl,
        "acceptance": request.acceptance,
        "objective": search.objective,
        "rate_asked_per_s": search.rate,
        "plans_evaluated": solution.evaluated,
        "utilisation_limit": search.utilisation,
        "confidence": request.run.confidence,
    }


def plan_facts(answer: Planned, best: Deployment) -> dict[str, Any]:
    """Return the numbers of the best plan in SI units."""
    request, cases = answer.request, answer.request.cases
    decode = cases["decode"]
    cards = {phase: servers * cases[phase].rates.packages_per_server for phase, servers in best.servers.items()}
    used, budget = sum(cards.values()), sum(cards_allowed(request).values())
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
        "tpot_target_s": request.run.tpot,
        "tpot_at_context_s": tpot_over_context(best.decode, decode, best.tpot_added),
        "longest_gap_s": best.longest_gap,
        "ttft_s": as_float(terms.ttft),
        "ttft_target_s": request.run.ttft,
        "ttft_terms_s": {
            **({"request_path": as_float(terms.request_path)} if as_float(terms.request_path) else {}),
            **({"frontend": as_float(terms.frontend)} if as_float(terms.frontend) else {}),
            "batch_formation": as_float(terms.batch_formation),
            "residual": as_float(terms.residual),
            "prefill": as_float(terms.prefill),
            "kv_transfer": as_float(terms.kv_transfer),
            "first_step": as_float(terms.first_step),
        },
        "cards_used": used,
        "cards_idle": budget - used if request.run.cards else 0,
        "cards_of_pool": cards,
        "cost": _cost(answer, best),
        "unrounded_requests_per_s": answer.solution.relaxed_rate,
        **longest_context_facts(best.decode, decode.model),
        "prefill": _pool_facts(answer, best, "prefill"),
        "decode": _pool_facts(answer, best, "decode"),
    }


def _pool_facts(answer: Planned, best: Deployment, phase: Phase) -> dict[str, Any]:
    """Return the numbers of one pool of the best plan."""
    cases, ideal = answer.request.cases, answer.request.ideal[phase]
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
        "stopped_by": stopped_by(best, phase, cases, answer.solution.search),
    }


def sure_facts(answer: Planned) -> dict[str, Any]:
    """Return the intervals of the best plan, and the chances that it meets what was asked for."""
    facts: dict[str, Any] = {}
    if answer.intervals is not None:
        facts["tpot_interval_s"] = answer.intervals.tpot.as_dict()
        facts["tpot_chance"] = answer.tpot_chance
    if answer.overall is not None:
        facts["ttft_interval_s"] = answer.overall.ttft.as_dict()
        facts["ttft_chance"] = answer.ttft_chance
        facts["rate_chance"] = answer.rate_chance
        facts["chance_of_all"] = answer.chance_of_all
        facts["chance"] = answer.chance
        facts["requests_per_s_interval"] = answer.overall.requests_per_s.as_dict()
    return facts


def _cost(answer: Planned, best: Deployment) -> dict[str, float] | None:
    """Return what the plan costs an hour and for a million output tokens, or its watts and joules for one token."""
    request = answer.request
    servers, tokens = best.servers, best.requests_per_s * as_float(request.case.osl)
    if request.search.objective == "energy":
        watts = {phase: machine.system.spec.server_power for phase, machine in request.machines.items()}
        power = power_of(servers=servers, server_power=watts, tokens_per_s=tokens)
        if power is None:
            return None
        return {"watts_at_most": power.watts, "joules_per_token_at_most": power.joules_per_token}
    if (prices := card_prices(request.run)) is None:
        return None
    each = {phase: case.rates.packages_per_server for phase, case in request.cases.items()}
    return asdict(cost_of(servers=servers, packages_per_server=each, prices=prices, tokens_per_s=tokens))
