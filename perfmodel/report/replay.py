"""A replayed plan as a document: waits, limits, pools, how the run went on, and the plan beside it."""

from collections.abc import Iterator
from typing import Any

from perfmodel.planning.replay import FEW_STAYS, Replayed
from perfmodel.prediction.sureness import verdict_of
from perfmodel.report.clients import PERCENTILE_COLUMNS, WAITS, percentiles
from perfmodel.report.layout_words import software_words
from perfmodel.report.limit_words import verdict
from perfmodel.report.quantity import format_quantity
from perfmodel.report.table import MET, Column, Document, Table, answer_table, in_part

#: words of the limits
_LIMITED = {"ttft": "TTFT", "tpot": "TPOT"}
_WHOLE = "service"


def replay_document(found: Replayed) -> Document:
    """Return the document of a replayed plan."""
    tables = (
        *in_part("waits", clients=_waits_table(found), limits=_limits_table(found) if found.limits else None),
        *in_part("plan", beside=_plan_table(found)),
        *in_part("pools", busy=_pools_table(found)),
        *in_part("time", windows=_series_table(found)),
    )
    title = f"Replay of {found.load.name} on {found.plan.model.spec.name}, {found.deployment}"
    return Document(
        schema="moeplan.replay/1",
        title=title,
        tables=tables,
        facts=_facts(found),
        notes=tuple(_notes(found)),
        answer=_answer(found),
        opening=("waits", "plan"),
    )


def _answer(found: Replayed) -> Table:
    """Return what was served, the waits with their limits, and which pool is the busiest."""
    values, inside = found.values, found.served.parts[_WHOLE].mean_inside
    rows = [
        (
            "answer",
            f"{format_quantity(values['requests_per_s'], '1/s')} requests/s served, {inside:,.0f} in the service",
        )
    ]
    for name, key in (("TPOT", "tpot"), ("TTFT", "ttft")):
        if key in values:
            tails = [f"{word} {format_quantity(values[f'{key}_{word}'], 's')}" for word in ("p50", "p90", "p99")]
            rows.append((name, ", ".join([f"mean {format_quantity(values[key], 's')}", *tails])))
    for one in found.limits:
        sign, word = verdict(found.met(one), None)
        said = f"{sign} {_LIMITED[one.quantity]} {one.statistic} within {format_quantity(one.seconds, 's')}: {word}"
        rows.append(("limit", said))
    if found.limits and found.within is not None:
        rows.append(("goodput", f"{100 * found.within:.1f} % of the requests within all limits"))
    busy = ", ".join(f"{name} {100 * part.utilisation:.0f} %" for name, part in _pools(found))
    rows.append(("busy", busy))
    return answer_table(rows)


def _facts(found: Replayed) -> dict[str, Any]:
    served, load, plan = found.served, found.load, found.plan.spec
    whole = served.parts[_WHOLE]
    facts: dict[str, Any] = {
        "name": load.name,
        "model": found.plan.model.spec.name,
        "deployment": found.deployment,
        "serving": "mixed" if found.joined.mixed else "disaggregated",
        "stack": found.stack.spec.name,
        "engine": found.engine.word,
        "routing": found.routing,
        "seed": found.seed,
        "requests": len(served.isl),
        "isl_mean": float(served.isl.mean()),
        "osl_mean": float(served.osl.mean()),
        "rate_per_s": load.rate,
        "concurrency": load.clients,
        "requests_per_s": found.values["requests_per_s"],
        "running": whole.mean_inside,
        "within_limits": found.within,
        "goodput_per_s": found.goodput,
        "utilisation": {name: part.utilisation for name, part in _pools(found)},
        "little_error": whole.little_error,
        "prefix_hits": served.found,
        "step_fit_error": found.worst_fit,
        "falls_behind": found.falls_behind,
        "plan": {
            "tpot_s": plan.predicted.tpot,
            "ttft_s": plan.predicted.ttft,
            "requests_per_s": plan.predicted.requests_per_s,
        },
    }
    facts |= {f"{name}_s": value for name, value in found.values.items() if name != "requests_per_s"}
    for limit in found.limits:
        facts[f"{limit.quantity}_met"] = found.met(limit)
        facts[f"{limit.quantity}_verdict"] = verdict_of(found.met(limit), None)
    return facts


def _pools(found: Replayed) -> Iterator[tuple[str, Any]]:
    """Yield each pool with what it did; instances that run both phases are one."""
    for name, part in found.served.parts.items():
        if name != _WHOLE:
            yield "mixed" if found.joined.mixed else name, part


def _waits_table(found: Replayed) -> Table:
    rows = tuple(
        {"wait": words, "mean": found.values[name], **percentiles(found.values, name)}
        for name, words in WAITS.items()
        if name in found.values
    )
    columns = (
        Column("wait", "as clients see it"),
        Column("mean", "mean", "s"),
        *PERCENTILE_COLUMNS,
    )
    served = found.served
    notes = (
        f"{len(served.isl):,} requests of {served.isl.mean():,.0f} input and {served.osl.mean():,.0f} output tokens on "
        f"average; {found.load.arrivals}",
        f"{found.values['requests_per_s']:.4g} requests/s served from the first arrival to the last token, "
        f"{served.parts[_WHOLE].mean_inside:,.0f} in the service on average",
    )
    return Table("What clients measure", columns, rows, notes)


def _limits_table(found: Replayed) -> Table:
    rows = []
    for one in found.limits:
        met = found.met(one)
        rows.append(
            {
                "wait": f"{_LIMITED[one.quantity]}, {one.statistic}",
                "limit": one.seconds,
                "replayed": found.values.get(one.key),
                "met": met,
                "verdict": verdict_of(met, None),
                "whose": "given" if one.given else "the plan's",
            }
        )
    columns = (
        Column("wait", "wait"),
        Column("limit", "limit", "s"),
        Column("replayed", "replayed", "s"),
        *MET,
        Column("whose", "whose"),
    )
    assert found.within is not None
    assert found.goodput is not None
    note = f"{found.within:.1%} of the requests are each within all limits: {found.goodput:.4g} requests/s"
    return Table("Limits", columns, tuple(rows), (note,))


def _plan_table(found: Replayed) -> Table:
    plan = found.plan.spec
    told = (
        ("TPOT", plan.predicted.tpot, found.values.get("tpot")),
        ("TTFT", plan.predicted.ttft, found.values["ttft"]),
    )
    rows = tuple(
        {
            "what": what,
            "plan": then,
            "replayed": now,
            "difference": None if now is None else now / then - 1,
        }
        for what, then, now in told
    )
    columns = (
        Column("what", "mean"),
        Column("plan", "plan", "s"),
        Column("replayed", "replayed", "s"),
        Column("difference", "difference", "%"),
    )
    conditions = plan.conditions
    note = (
        f"the plan is of {conditions.isl:,} input and {conditions.osl:,} output tokens, full batches and "
        f"{plan.predicted.requests_per_s:.4g} requests/s"
    )
    return Table("The plan beside the replay", columns, rows, (note,))


def _pools_table(found: Replayed) -> Table:
    counts = {"prefill": found.joined.prefill_instances, "decode": found.joined.decode_instances}
    counts["mixed"] = found.joined.decode_instances
    rows = tuple(
        {
            "pool": name,
            "instances": counts[name],
            "utilisation": part.utilisation,
            "inside": part.mean_inside,
            "rate_times_stay": part.rate_times_stay,
            "steps": part.steps,
        }
        for name, part in _pools(found)
    )
    columns = (
        Column("pool", "pool"),
        Column("instances", "instances", "1"),
        Column("utilisation", "runs steps", "%"),
        Column("inside", "requests inside", "1"),
        Column("rate_times_stay", "rate x stay", "1"),
        Column("steps", "steps", "1"),
    )
    notes = [
        "runs steps: part of the time, mean of the instances; requests inside are counted, rate x stay is what "
        "Little's law says they are",
    ]
    if found.served.found:
        notes.append(f"{found.served.found:.1%} of the prompt tokens are found in prefix caches")
    return Table("Pools", columns, rows, tuple(notes))


def _series_table(found: Replayed) -> Table:
    columns = (
        Column("start", "from", "s"),
        Column("rate_in", "requests/s in", "1/s"),
        Column("rate_out", "requests/s out", "1/s"),
        Column("ttft_p50", "TTFT p50", "s"),
        Column("ttft_p99", "TTFT p99", "s"),
        Column("tpot", "TPOT", "s"),
        Column("running", "inside", "1"),
    )
    rows = tuple({column.key: getattr(one, column.key) for column in columns} for one in found.windows)
    return Table("As time goes on", columns, rows, ("waits are of requests that come in the window",))


def _notes(found: Replayed) -> Iterator[str]:
    if found.falls_behind:
        yield "more requests come than are served: waits grow as long as the load lasts, those shown are of this run"
    elif found.load.clients is None and found.stays < FEW_STAYS:
        yield (
            f"requests come for {found.stays:.1f} mean stays of one: the service fills while it is measured, so waits "
            "err low; --requests M takes more"
        )
    pool = found.service.mixed or found.service.prefill
    assert pool is not None
    budget = pool.budget
    rule = ""
    if found.joined.mixed:
        rule = ", prompts in pieces beside decode" if found.engine.mixed == "chunked" else ", prompts before decode"
    software = software_words(found.stack.spec.name, found.engine.word)
    yield f"{software}{rule}: {budget:,} tokens of a rank in a prefill step"
    if found.joined.mixed:
        prompts = found.joined.prefill.plan.layout.batch
        yield (
            f"the plan has {prompts} prompts of a rank wait for each other before a prefill step; the engine begins "
            "with what is there"
        )
    yield (
        f"step times are fitted to the predicted ones of each layout, within {found.worst_fit:.0%} at worst; requests "
        "hold half of their output's cache from the start, none is turned out; no faults"
    )
    hit = found.plan.spec.conditions.prefix_hit
    if hit and not found.served.found:
        yield f"the plan counts on {hit:.0%} of a prompt's cache found ready; the replay finds none"
