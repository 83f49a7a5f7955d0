"""The answer of the page in sentences: what the plan gives, whether it is what was asked for, and what that was."""

from dataclasses import dataclass

from perfmodel.planning.plan_report import PlanReport, PoolReport
from perfmodel.prediction.cost import Cost
from perfmodel.prediction.sureness import Word, verdict_of
from perfmodel.report.html.names import called, chance_words, sizes, target_name
from perfmodel.report.html.words import Words
from perfmodel.report.quantity import format_quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the plan gives, whether that is what was asked for, in words and in one, and what it costs."""

    given: str
    verdict: str
    word: Word | None
    #: none where no price was given
    cost: str | None


def answer(report: PlanReport, words: Words) -> Answer:
    """Return what the plan gives, whether that is what was asked for, and what it costs."""
    value = {target.name: format_quantity(target.value, target.unit) for target in report.targets}
    given = words.say(
        "answer",
        size=sizes(report, words),
        rate=value["rate"],
        tokens=format_quantity(report.tokens_per_s, "1/s"),
        per_card=format_quantity(report.tokens_per_s_per_card, "1/s"),
        tpot=value["tpot"],
        ttft=value["ttft"],
    )
    missed = [target_name(target, report, words) for target in report.targets if target.met is False]
    cost = None if report.cost is None else _cost(report.cost, words)
    if missed:
        verdict = words.say("answer_missed", missed=words.say("join").join(missed))
        return Answer(given=given, verdict=verdict, word="missed", cost=cost)
    if report.chance is None:
        verdict = f"{words.say('answer_open')} {words.say('answer_fits')}"
        return Answer(given=given, verdict=verdict, word=None, cost=cost)
    word = verdict_of(True, report.chance)
    key = {"met": "answer_met", "likely": "answer_likely", "missed": "answer_doubtful"}[word]
    return Answer(given=given, verdict=words.say(key, chance=chance_words(report.chance)), word=word, cost=cost)


def _cost(cost: Cost, words: Words) -> str:
    spans = {"hour": cost.per_hour, "month": cost.per_month, "year": cost.per_year, "million": cost.per_million_tokens}
    return words.say("answer_cost", **{span: format_quantity(value, "1") for span, value in spans.items()})


def request(report: PlanReport, words: Words) -> str:
    """Return what was asked for: the requests, and the instances that serve them."""

    def instances(pool: PoolReport) -> str:
        cards = f"{pool.cards / pool.instances:g}"
        return words.say("instance" if pool.instances == 1 else "instances", count=pool.instances, cards=cards)

    conditions = report.plan.conditions
    pools = [
        words.say("pool_words", phase=called(phase, report, words).capitalize(), instances=instances(pool))
        for phase, pool in report.own.items()
    ]
    given = words.say("request_words", isl=f"{conditions.isl:,}", osl=f"{conditions.osl:,}")
    return " ".join([given, *pools, *([words.say("mixed_words")] if report.run.mixed else [])])
