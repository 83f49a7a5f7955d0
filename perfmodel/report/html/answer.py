"""The answer of the page in sentences: what the plan gives, whether it is what was asked for, and what that was."""

from perfmodel.planning.plan_report import PlanReport, PoolReport
from perfmodel.report.html.names import called, chance_words, systems, target_name
from perfmodel.report.html.words import Words
from perfmodel.report.quantity import format_quantity

SURE = 0.8  # chance below which the page says that little is to spare


def answer(report: PlanReport, words: Words) -> tuple[str, str]:
    """Return what the plan gives, and whether that is what was asked for."""
    value = {target.name: format_quantity(target.value, target.unit) for target in report.targets}
    given = words.say(
        "answer",
        cards=systems(report, words, "cards_of"),
        rate=value["rate"],
        tokens=format_quantity(report.tokens_per_s, "1/s"),
        per_card=format_quantity(report.tokens_per_s_per_card, "1/s"),
        tpot=value["tpot"],
        ttft=value["ttft"],
    )
    missed = [target_name(target, report, words) for target in report.targets if target.met is False]
    if missed:
        return given, words.say("answer_missed", missed=words.say("join").join(missed))
    if report.chance is None:
        return given, f"{words.say('answer_open')} {words.say('answer_fits')}"
    key = "answer_met" if report.chance >= SURE else "answer_met_unsure"
    return given, words.say(key, chance=chance_words(report.chance))


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
