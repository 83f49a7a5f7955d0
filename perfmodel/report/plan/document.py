"""The planner's answer -> a document: titles, notes, facts and tables, targets first."""

from collections.abc import Sequence
from typing import Any

from perfmodel.planning.planner import Planned
from perfmodel.planning.request import PlanRequest
from perfmodel.prediction.deployment import Deployment
from perfmodel.report.extrapolations import extrapolations
from perfmodel.report.layout_words import software_words
from perfmodel.report.memory import memory_table
from perfmodel.report.plan.alternatives import (
    more_of_a_limit_table,
    next_best_table,
    optimal_range_notes,
    other_choices_table,
    other_serving_notes,
)
from perfmodel.report.plan.budget import beyond_one_domain, cards_allowed, domains_in_words
from perfmodel.report.plan.clients import client_facts, client_notes, clients_table
from perfmodel.report.plan.commands import explain_command
from perfmodel.report.plan.facts import asked_facts, plan_facts, sure_facts
from perfmodel.report.plan.first_token import first_token_table
from perfmodel.report.plan.front import front_table
from perfmodel.report.plan.infeasibility import missed_table, refused_table
from perfmodel.report.plan.nearest import nearest_facts, nearest_notes, nearest_table
from perfmodel.report.plan.pools import pools_table
from perfmodel.report.plan.published import published_facts, published_notes, published_table
from perfmodel.report.plan.targets import targets_table
from perfmodel.report.plan.totals import totals_table
from perfmodel.report.quantity import format_quantity
from perfmodel.report.sensitivity import assumption_table
from perfmodel.report.table import Document
from perfmodel.solver.solution import FrontPoint, OptimalRange

NO_TTFT = "no --ttft given: prefill batches grow as long as they gain rate, and prompts wait for them; give one"
MIXED_UNTESTED = "mixed serving is closed form alone: no published row of it is on file"
OVERFULL = "decode runs out of memory where all its requests are at their longest at once: some are then preempted"
CHANCES = (
    "chances and intervals hold the stated ranges of inputs, no queues and no faults; for whole deployments beside "
    "published ones see moeplan validate"
)


def plan_document(answer: Planned, points: Sequence[FrontPoint] = (), optimal: OptimalRange | None = None) -> Document:
    """Return the planner's answer; an infeasible one says how near the nearest miss was."""
    solution, request, best = answer.solution, answer.request, answer.solution.best
    facts = asked_facts(answer)
    searched = _searched(answer)
    if best is None:
        return Document(
            schema="moeplan.solution/1",
            title=f"{_title(request)}: no feasible plan",
            tables=(missed_table(solution), nearest_table(answer), refused_table(solution)),
            facts=facts | nearest_facts(answer),
            notes=(*nearest_notes(answer), *searched, *_software(request)),
        )
    facts |= plan_facts(answer, best) | sure_facts(answer)
    facts["explain"] = {
        "decode": explain_command(best.decode, request, tpot=None if best.mixed else request.search.targets.tpot),
        "prefill": explain_command(best.prefill, request, tpot=None),
    }
    if answer.clients is not None:
        facts |= client_facts(answer.clients)
    facts["front"] = [{"tpot_s": one.tpot, "tokens_per_s_per_card": one.tokens_per_s_per_card} for one in points]
    facts["published"] = published_facts(answer)
    return Document(
        schema="moeplan.solution/1",
        title=_title(request),
        tables=(
            targets_table(facts, answer.clients),
            *(() if answer.clients is None else (clients_table(answer.clients),)),
            pools_table(request, best, facts),
            totals_table(facts, best, request.cases),
            first_token_table(facts, best.mixed, answer.clients),
            memory_table(best.decode, request.case),
            *((front_table(points, request, best, facts),) if points else ()),
            next_best_table(answer),
            *((published_table(answer, best),) if solution.given else ()),
            other_choices_table(answer, best),
            more_of_a_limit_table(answer),
            refused_table(solution),
            assumption_table(answer.sensitivity),
        ),
        facts=facts,
        notes=(
            *searched,
            *client_notes(answer),
            *_tightened(answer),
            *other_serving_notes(answer, best),
            *published_notes(answer),
            *_notes(request, best, facts, optimal),
        ),
    )


def _title(request: PlanRequest) -> str:
    names = {phase: machine.system.spec.name for phase, machine in request.machines.items()}
    where = (
        names["decode"] if names["prefill"] == names["decode"] else f"{names['decode']}, prefill on {names['prefill']}"
    )
    return f"{request.model.name} on {where}: isl {request.case.isl}, osl {request.case.osl}"


def _searched(answer: Planned) -> tuple[str, ...]:
    """Return how many plans were looked at, and on how many cards where no budget was given."""
    request = answer.request
    count = f"{answer.solution.evaluated:,} candidate plans evaluated"
    if request.run.cards:
        return (count,)
    each = (request.cases["decode"].rates, request.cases["prefill"].rates)
    return (
        count,
        *(
            f"no --cards given: searched up to {cards} cards = {cards // rates.packages_per_server} servers of {name}"
            for (name, cards), rates in zip(cards_allowed(request).items(), each, strict=False)
        ),
    )


def _software(request: PlanRequest) -> tuple[str, ...]:
    """Return stack and engine of the deployment, and of prefill where it has others."""
    words = {
        phase: software_words(
            machine.stack.spec.name, None if (engine := request.engines[phase]) is None else engine.word
        )
        for phase, machine in request.machines.items()
    }
    same = words["prefill"] == words["decode"]
    return (f"software: {words['decode']}", *(() if same else (f"software of prefill: {words['prefill']}",)))


def _tightened(answer: Planned) -> tuple[str, ...]:
    """Return the limits that the search was held to so that those asked for are met with the chance asked for."""
    asked, under, confidence = (
        answer.request.search.targets,
        answer.solution.search.targets,
        answer.request.run.confidence,
    )
    pairs = (("TPOT", asked.tpot, under.tpot), ("TTFT", asked.ttft, under.ttft))
    return tuple(
        f"{name} is to be met with a chance of {confidence:.0%}: searched, and counted as refused, under a limit "
        f"of {format_quantity(limit, 's')}"
        for name, wanted, limit in pairs
        if confidence is not None and limit is not None and wanted is not None and limit < wanted
    )


def _notes(
    request: PlanRequest, best: Deployment, facts: dict[str, Any], optimal: OptimalRange | None
) -> tuple[str, ...]:
    """Return what a reader of the plan has to know, and how to have its pools explained."""
    search, cases = request.search, request.cases
    return (
        *_software(request),
        *beyond_one_domain(request, best),
        *domains_in_words(search),
        *((NO_TTFT,) if search.targets.ttft is None else ()),
        *((MIXED_UNTESTED,) if best.mixed else ()),
        *((OVERFULL,) if facts["decode"]["memory_worst_B"] > facts["decode"]["memory_usable_B"] else ()),
        CHANCES,
        *optimal_range_notes(optimal),
        f"draft acceptance: {request.acceptance}",
        *(f"decode {text}" for text in extrapolations(best.decode, cases["decode"])),
        *(f"prefill {text}" for text in extrapolations(best.prefill, cases["prefill"])),
        f"explain decode: {facts['explain']['decode']}",
        f"explain prefill: {facts['explain']['prefill']}",
    )
