"""The planner's answer -> a document: titles, notes, facts and tables, targets first."""

from collections.abc import Sequence
from typing import Any

from perfmodel.planning.planner import Planned
from perfmodel.planning.request import PlanRequest
from perfmodel.prediction.deployment import Deployment
from perfmodel.report.extrapolations import extrapolations
from perfmodel.report.layout_words import head_words, software_words
from perfmodel.report.memory import memory_table
from perfmodel.report.plan.alternatives import (
    more_of_a_limit_table,
    next_best_table,
    optimal_range_notes,
    other_choices_table,
    other_serving_notes,
)
from perfmodel.report.plan.answer import no_plan_answer, plan_answer
from perfmodel.report.plan.budget import cards_allowed, domains_in_words
from perfmodel.report.plan.clients import client_facts, client_notes, clients_table
from perfmodel.report.plan.commands import explain_command
from perfmodel.report.plan.facts import asked_facts, plan_facts, sure_facts
from perfmodel.report.plan.first_token import first_token_table
from perfmodel.report.plan.front import front_table
from perfmodel.report.plan.infeasibility import missed_table, refused_table
from perfmodel.report.plan.nearest import nearest_facts, nearest_notes, nearest_table
from perfmodel.report.plan.pools import pools_table
from perfmodel.report.plan.published import published_facts, published_notes, published_table
from perfmodel.report.plan.sureness import sure_plan_facts, sureness_notes, sureness_table
from perfmodel.report.plan.targets import limit_facts, targets_table
from perfmodel.report.plan.totals import totals_table
from perfmodel.report.sensitivity import assumption_table
from perfmodel.report.table import Document, in_part
from perfmodel.solver.solution import FrontPoint, OptimalRange

NO_TTFT = "no --ttft given: prefill batches grow as long as they gain rate, and prompts wait for them; give one"
MIXED_IN_TURN = (
    "mixed serving: the plan runs prefill and decode in turn; an engine's own rule may serve less, see moeplan replay"
)
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
            answer=no_plan_answer(answer),
            tables=in_part(
                "limits",
                missed=missed_table(solution),
                nearest=nearest_table(answer),
                refused=refused_table(solution),
            ),
            facts=facts | nearest_facts(answer),
            notes=(*nearest_notes(answer), *searched, *_software(request)),
        )
    facts |= plan_facts(answer, best) | sure_facts(answer)
    facts["limits"] = limit_facts(facts)
    facts["sure"] = sure_plan_facts(answer.sure)
    facts["explain"] = {
        "decode": explain_command(best.decode, request, tpot=None if best.mixed else request.search.targets.tpot),
        "prefill": explain_command(best.prefill, request, tpot=None),
    }
    if answer.clients is not None:
        facts |= client_facts(answer.clients)
    facts["front"] = [{"tpot_s": one.tpot, "tokens_per_s_per_card": one.tokens_per_s_per_card} for one in points]
    facts["published"] = published_facts(answer)
    notes = (
        *searched,
        *client_notes(answer),
        *sureness_notes(answer),
        *other_serving_notes(answer, best),
        *published_notes(answer),
        *_notes(request, best, facts, optimal),
    )
    return Document(
        schema="moeplan.solution/1",
        title=_title(request),
        answer=plan_answer(answer, best, facts, notes),
        tables=(
            *in_part(
                "plan",
                targets=targets_table(facts, answer.clients),
                sure=sureness_table(answer),
                pools=pools_table(request, best, facts),
                totals=totals_table(facts, best, request.cases),
            ),
            *in_part(
                "ttft",
                clients=None if answer.clients is None else clients_table(answer.clients),
                first_token=first_token_table(facts, best.mixed, answer.clients),
            ),
            *in_part("memory", die=memory_table(best.decode, request.case)),
            *in_part(
                "rivals",
                front=front_table(points, request, best, facts) if points else None,
                next_best=next_best_table(answer),
                published=published_table(answer, best) if solution.given else None,
                choices=other_choices_table(answer, best),
            ),
            *in_part("limits", more=more_of_a_limit_table(answer), refused=refused_table(solution)),
            *in_part("inputs", assumed=assumption_table(answer.sensitivity)),
        ),
        opening=("front",) if points else (),
        facts=facts,
        notes=notes,
    )


def _title(request: PlanRequest) -> str:
    """Return model, systems with their chips and software, and lengths."""
    where = {
        phase: head_words(
            machine.system.spec.name,
            machine.chip.spec.name,
            machine.stack.spec,
            None if (engine := request.engines[phase]) is None else engine.word,
        )
        for phase, machine in request.machines.items()
    }
    same = where["prefill"] == where["decode"]
    there = where["decode"] if same else f"{where['decode']}, prefill on {where['prefill']}"
    return f"{request.model.name} on {there}: isl {request.case.isl}, osl {request.case.osl}"


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


def _notes(
    request: PlanRequest, best: Deployment, facts: dict[str, Any], optimal: OptimalRange | None
) -> tuple[str, ...]:
    """Return what a reader of the plan has to know, and how to have its pools explained."""
    search, cases = request.search, request.cases
    return (
        *_software(request),
        *domains_in_words(search),
        *((NO_TTFT,) if search.targets.ttft is None else ()),
        *((MIXED_IN_TURN,) if best.mixed else ()),
        *((OVERFULL,) if facts["decode"]["memory_worst_B"] > facts["decode"]["memory_usable_B"] else ()),
        CHANCES,
        *optimal_range_notes(optimal),
        f"draft acceptance: {request.acceptance}",
        *(f"decode {text}" for text in extrapolations(best.decode, cases["decode"])),
        *(f"prefill {text}" for text in extrapolations(best.prefill, cases["prefill"])),
        f"explain decode: {facts['explain']['decode']}",
        f"explain prefill: {facts['explain']['prefill']}",
    )
