"""Systems beside each other under one question, as a document: a verdict, one table, and what it rests on."""

from typing import Any

from perfmodel.algebra import as_float
from perfmodel.planning.compare_systems import Comparison, Lack, Outcome
from perfmodel.report.plan.alternatives import percent
from perfmodel.report.plan.document import CHANCES, NO_TTFT
from perfmodel.report.quantity import format_quantity
from perfmodel.report.table import Column, Document, Table, answer_table, in_part, under

#: limit that binds -> what no plan does, and what the nearest does instead
LIMITS = {
    "rate": ("no plan serves {limit} requests a second", "at most {closest} a second"),
    "ttft": ("no plan meets TTFT {limit}", "the nearest takes {closest}"),
    "tpot": ("no plan meets TPOT {limit}", "the nearest takes {closest}"),
    "cards": ("no plan on {limit} cards meets TPOT", "on {closest} cards one does"),
}
MEMORY = {"memory": "does not fit", "prefill memory": "does not fit for prefill"}
NOWHERE = "no instance that is searched holds it"


def compared_document(found: Comparison, *, tpot_given: bool) -> Document:
    """Return the systems ranked by what they serve a card, with a verdict above."""
    run = found.run
    limits = f"TPOT within {format_quantity(run.tpot, 's')}"
    if run.ttft is not None:
        limits += f", TTFT within {format_quantity(run.ttft, 's')}"
    sentences = _verdict(found)
    return Document(
        schema="moeplan.compare-systems/1",
        title=f"{found.model} on {len(found.outcomes)} systems: isl {run.isl}, osl {run.osl}, {limits}",
        tables=(
            *in_part(
                "systems",
                best=Table("The best plan on each", _columns(found), tuple(_row(one, found) for one in found.outcomes)),
                without=_without_plan(found),
            ),
        ),
        facts=_facts(found, sentences),
        notes=(*_size_notes(found), *_notes(found, tpot_given)),
        answer=answer_table(
            [
                *under("answer", sentences),
                *(() if tpot_given else (("assumed", _taken(found)),)),
            ]
        ),
        opening=("systems",),
    )


def _verdict(found: Comparison) -> list[str]:
    """Return which system serves most a card, from which others it cannot be told, and which were not asked.

    A system that refuses the question, as its stack lacks what is asked for, says nothing of what it could serve.
    """
    refusing = [one.system.name for one in found.outcomes if one.lack is not None and one.lack.words]
    unasked = [f"not compared, as the question is refused there: {', '.join(refusing)}"] if refusing else []
    return [*_of_those_asked(found), *unasked]


def _of_those_asked(found: Comparison) -> list[str]:
    best = found.best
    if best is None:
        return ["no system has a plan"]
    ends, rate = best.interval, best.tokens_per_s_per_card
    assert ends is not None
    assert rate is not None
    first = (
        f"per card {best.system.name} serves most: {rate:,.0f} tokens/s (90 %: {ends.low90:,.0f} to {ends.high90:,.0f})"
    )
    others = [one for one in found.outcomes[1:] if one.against is not None]
    if not others:
        lacking = any(one.lack is not None and not one.lack.words for one in found.outcomes)
        return [first, "no other system has a plan"] if lacking else [first]
    sentences = [first]
    ties = [one for one in others if one.against is not None and one.against.tie]
    alike = [one for one in ties if one.against is not None and one.against.doubt is not None]
    apart = [one for one in ties if one not in alike]
    if alike:
        sentences.append(f"the difference to {_listed(alike)} is within the doubt")
    if apart:
        sentences.append(f"the intervals of {_listed(apart)} overlap with its own, and no kernels are shared")
    rest = [one for one in others if one not in ties]
    if rest and rest[0].against is not None:
        sure = "intervals do not overlap" if rest[0].against.doubt is None else "which is beyond the doubt"
        sentences.append(f"{rest[0].system.name} serves {percent(rest[0].against.loss)} less, {sure}")
    return sentences


def _listed(outcomes: list[Outcome]) -> str:
    return ", ".join(
        f"{one.system.name} ({'-' if one.against.loss < 0 else '+'}{percent(one.against.loss)})"
        for one in outcomes
        if one.against is not None
    )


def _columns(found: Comparison) -> tuple[Column, ...]:
    priced = any(one.price is not None for one in found.outcomes)
    power = any(one.system.server_power is not None for one in found.outcomes)
    return (
        Column("system", "system"),
        Column("cards", "cards", "1"),
        Column("servers", "servers", "1", spare=6),
        Column("plan", "plan"),
        Column("rate", "tokens/s a card", "1/s"),
        Column("low90", "90 % from", "1/s"),
        Column("high90", "to", "1/s"),
        Column("of_server", "a server", "1/s", spare=5),
        *((Column("per_watt", "a watt, at least", "1", spare=4),) if power else ()),
        *((Column("per_money", "tokens for one of the money", "1"),) if priced else ()),
        Column("tpot", "TPOT", "s"),
        Column("chance", "chance of TPOT", "%"),
        Column("ttft", "TTFT", "s", spare=1),
        Column("loss", "against the best", "%"),
        Column("verdict", "beside the best", spare=2),
        Column("near_row", "nearest row, distance", spare=3),
        Column("nearest", "nearest row, distance", for_programs=True),
        Column("distance", "nearest row, distance", "1", for_programs=True),
        Column("error", "its error", "%", spare=7),
        Column("why", "plan", for_programs=True),
    )


def _row(one: Outcome, found: Comparison) -> dict[str, Any]:
    best, ends, against, near = one.best, one.interval, one.against, one.near
    row = {
        "system": one.system.name,
        "cards": one.cards,
        "servers": one.servers,
        "plan": "none" if best is None else best.short_form,
        "rate": one.tokens_per_s_per_card,
        "low90": None if ends is None else ends.low90,
        "high90": None if ends is None else ends.high90,
        "of_server": one.tokens_per_s_per_server,
        "per_watt": one.tokens_per_joule,
        "per_money": one.tokens_per_money,
        "tpot": None if best is None else best.tpot,
        "chance": None if best is None or one.planned is None else one.planned.tpot_chance,
        "ttft": None if best is None else as_float(best.first_token.ttft),
        "loss": None if against is None else against.loss,
        "verdict": _beside(one),
        "near_row": None if near is None else f"{near.name}, {near.far:.2g}",
        "nearest": None if near is None else near.name,
        "distance": None if near is None else near.far,
        "error": None if near is None else near.slow,
        "why": "" if one.lack is None else why_not(one.lack),
    }
    keys = {column.key for column in _columns(found)}
    return {key: value for key, value in row.items() if key in keys}


def _without_plan(found: Comparison) -> Table:
    """Return why systems have no plan, and the nearest thing that works."""
    columns = (Column("system", "system"), Column("allowed", "cards allowed", "1"), Column("reason", "why not"))
    rows = tuple(
        {"system": one.system.name, "allowed": one.budget, "reason": why_not(one.lack)}
        for one in found.outcomes
        if one.lack is not None
    )
    return Table("No plan", columns, rows)


def _beside(one: Outcome) -> str | None:
    """Return in words whether a system is told from the best one."""
    if one.best is None:
        return None
    if one.against is None:
        return "the best"
    if one.against.doubt is None:
        return "intervals overlap" if one.against.tie else "intervals apart"
    return "within the doubt" if one.against.tie else "beyond the doubt"


def why_not(lack: Lack) -> str:
    """Return why there is no plan, and the nearest thing that works."""
    if lack.words:
        return lack.words
    if lack.constraint in LIMITS:
        texts = {
            name: f"{value:g}" if lack.unit == "1" else format_quantity(value, lack.unit)
            for name, value in (("limit", lack.limit), ("closest", lack.closest))
        }
        return "; ".join(text.format(**texts) for text in LIMITS[lack.constraint])
    if lack.constraint in MEMORY:
        from_cards = NOWHERE if lack.cards is None else f"memory holds it from {lack.cards} cards"
        return f"{MEMORY[lack.constraint]}; {from_cards}"
    return NOWHERE


def _facts(found: Comparison, sentences: list[str]) -> dict[str, Any]:
    best, run = found.best, found.run
    return {
        "model": found.model,
        "isl": run.isl,
        "osl": run.osl,
        "tpot_target_s": run.tpot,
        "ttft_target_s": run.ttft,
        "rate_asked_per_s": run.rate,
        "cards_of_each": run.cards if found.size is None else found.size.cards,
        "servers_of_each": found.servers,
        "best": None if best is None else best.system.name,
        "verdict": "; ".join(sentences),
        "within_doubt": [one.system.name for one in found.outcomes if one.against is not None and one.against.tie],
        "systems": [_system_facts(one) for one in found.outcomes],
    }


def _system_facts(one: Outcome) -> dict[str, Any]:
    best, ends, against, lack, near = one.best, one.interval, one.against, one.lack, one.near
    search = None if one.planned is None else one.planned.request
    return {
        "system": one.system.name,
        "stack": None if search is None else search.machine.stack.spec.name,
        "engine": None if search is None or (engine := search.engines["decode"]) is None else engine.word,
        "cards_allowed": one.budget,
        "smallest_instance_cards": one.smallest,
        "cards": one.cards,
        "servers": one.servers,
        "plan": None if best is None else best.short_form,
        "tokens_per_s_per_card": one.tokens_per_s_per_card,
        "tokens_per_s_per_card_interval": None if ends is None else ends.as_dict(),
        "tokens_per_s_per_server": one.tokens_per_s_per_server,
        "tokens_per_joule_at_least": one.tokens_per_joule,
        "tokens_per_money": one.tokens_per_money,
        "requests_per_s": None if best is None else best.requests_per_s,
        "tpot_s": None if best is None else best.tpot,
        "tpot_chance": None if one.planned is None else one.planned.tpot_chance,
        "ttft_s": None if best is None else as_float(best.first_token.ttft),
        "against_best": None
        if against is None
        else {
            "loss": against.loss,
            "interval": None if against.doubt is None else against.doubt.as_dict(),
            "within_doubt": against.tie,
        },
        "prefill_layout": None if best is None else best.prefill.layout.model_dump(),
        "decode_layout": None if best is None else best.decode.layout.model_dump(),
        "nearest": None if near is None else {"row": near.name, "distance": near.far, "slow": near.slow},
        "constraint": None if lack is None else lack.constraint,
        "why_not": None if lack is None else why_not(lack),
    }


def _size_notes(found: Comparison) -> tuple[str, ...]:
    run, size = found.run, found.size
    if size is not None:
        return (
            f"size: {size.cards} cards for all: twice the {size.smallest} of the smallest deployment on {size.system}, "
            "the system that needs most, in whole servers; --cards, --servers or --rate asks for another",
            *(f"on {name}: {cards} cards, all that its networks hold" for name, cards in found.most.items()),
        )
    if found.servers is not None:
        return (f"size: {found.servers} servers of each at most",)
    if run.cards is not None:
        return (f"size: {run.cards} cards of each at most",)
    if run.rate is not None:
        return (f"size: the fewest cards of each that serve {run.rate:g} requests a second",)
    return ()


def _taken(found: Comparison) -> str:
    return f"no --tpot given: {format_quantity(found.run.tpot, 's')} is taken"


def _notes(found: Comparison, tpot_given: bool) -> tuple[str, ...]:
    run, notes = found.run, []
    if not tpot_given:
        notes.append(_taken(found))
    if run.ttft is None:
        notes.append(NO_TTFT)
    stacks = {
        (one.planned.request.machine.stack.spec.name, None if engine is None else engine.word): None
        for one in found.outcomes
        if one.planned is not None
        for engine in (one.planned.request.engines["decode"],)
    }
    if stacks:
        words = ", ".join(stack + (f" ({engine})" if engine else "") for stack, engine in stacks)
        notes.append(f"software, stack (engine): {words}")
    notes += [
        "tokens are of output, sustained at the load allowed, by cards of the servers in use; a watt: every server at "
        "its largest input",
        "doubt: the 90 % interval of the difference, both on the same samples, where one stack's kernels run on both; "
        "else intervals of each alone are held against each other",
        "nearest: the published decode step at the least distance from that of the plan, see moeplan validate; its "
        "error with above slow",
        CHANCES,
    ]
    return tuple(notes)
