"""What clients see of a plan: a replay of requests at the rate that it serves, as a table, facts and notes."""

from typing import Any

from perfmodel.planning.planner import Planned
from perfmodel.planning.referee import ENDS, SEED, Miss, Seen, Verdict
from perfmodel.report.clients import PERCENTILE_COLUMNS, percentiles
from perfmodel.report.quantity import format_quantity
from perfmodel.report.table import Column, Table
from perfmodel.specs.run import PERCENTILES, WAITS

#: quantity of a replay -> how it is called
ROWS = {"ttft": "TTFT", "tpot": "TPOT", "itl_max": "longest hole between two tokens", "e2e": "whole request"}
ROUTED = {
    "round_robin": "in turn over instances",
    "random": "at random over instances",
    "least_work": "to the instance with the least work",
}


def clients_table(verdict: Verdict) -> Table:
    """Return mean and percentiles of what requests wait."""
    seen = verdict.seen
    rows = tuple(
        {
            "wait": words,
            "mean": seen.values[key],
            **percentiles(seen.values, key),
            "limit": seen.asked.tightest(key),
            "within": seen.within_of(key),
        }
        for key, words in ROWS.items()
        if key in seen.values
    )
    columns = (
        Column("wait", ""),
        Column("mean", "mean", "s"),
        *PERCENTILE_COLUMNS,
        Column("limit", "tightest limit", "s"),
        Column("within", "requests within", "%"),
    )
    limited = any(seen.asked.tightest(wait) is not None for wait in WAITS)
    goodput = f"requests within all limits: {seen.within:.1%}; goodput {seen.goodput:.4g} requests/s"
    return Table("As clients see it", columns, rows, (*((goodput,) if limited else ()), *_how(seen)))


def _how(seen: Seen) -> tuple[str, ...]:
    asked, busy = seen.asked, ", ".join(f"{name} {share:.0%}" for name, share in seen.loads.items())
    isl, osl = asked.workload.inputs, asked.workload.outputs
    if asked.arrival_cv is None:
        arrivals = "the workload's own arrivals at this rate"
    elif asked.arrival_cv == 1:
        arrivals = "Poisson arrivals"
    else:
        arrivals = f"gaps between arrivals of CV {asked.arrival_cv:.3g}"
    lengths = f"{isl.mean:,.0f} in (CV {isl.cv:.2f}), {osl.mean:,.0f} out (CV {osl.cv:.2f})"
    return (
        f"{seen.requests:,} requests replayed at {seen.rate:.4g} requests/s, seed {SEED}: {lengths}; {arrivals}; "
        f"{ROUTED[asked.routing]}; busy: {busy}",
        f"left out at either end: {ENDS:g} times the requests that are in the service at once",
    )


def client_facts(verdict: Verdict) -> dict[str, Any]:
    """Return what clients see, in SI units."""
    seen, asked = verdict.seen, verdict.seen.asked
    percentiles = {f"{wait}_{word}_s": seen.values.get(f"{wait}_{word}") for wait in WAITS for word in PERCENTILES}
    return {
        **percentiles,
        "goodput": seen.goodput,
        "within_limits": seen.within,
        "clients": {
            **{f"{key}_s": value for key, value in seen.values.items() if key != "requests_per_s"},
            "rate_per_s": seen.rate,
            "requests": seen.requests,
            "seed": SEED,
            "routing": asked.routing,
            "arrival_cv": asked.arrival_cv,
            "isl_mean": asked.workload.inputs.mean,
            "isl_cv": asked.workload.inputs.cv,
            "osl_mean": asked.workload.outputs.mean,
            "osl_cv": asked.workload.outputs.cv,
            "limits": dict(asked.limits),
            "goodput_asked": asked.goodput,
            "ttft_within": seen.within_of("ttft"),
            "tpot_within": seen.within_of("tpot"),
            "met": not verdict.misses,
            "missed": [_miss_facts(miss) for miss in verdict.misses],
            "busy": dict(seen.loads),
            "plans_before": [
                {
                    "plan": one.deployment.short_form,
                    "requests_per_s": one.deployment.requests_per_s,
                    "missed": [_miss_facts(miss) for miss in one.misses],
                }
                for one in verdict.before
            ],
            "plans_screened": verdict.screened,
        },
    }


def _miss_facts(miss: Miss) -> dict[str, Any]:
    return {"limit": miss.key, "value": miss.value, "asked": miss.limit}


def client_notes(answer: Planned) -> tuple[str, ...]:
    """Return which plan the search put first and why clients get another, or that none meets what was asked."""
    verdict = answer.clients
    if verdict is None:
        return ()
    found = []
    if not verdict.met:
        tried = 1 + len(verdict.before) + verdict.screened
        found.append(
            f"none of {tried} plans tried meets every limit as clients see it; this is the nearest: "
            f"{' and '.join(map(miss_words, verdict.misses))}"
        )
    elif verdict.before:
        first = verdict.before[0]
        why = first.refused or " and ".join(map(miss_words, first.misses))
        more = len(verdict.before) - 1 + verdict.screened
        others = f"; {more:,} others before this one miss a limit too" if more else ""
        found.append(
            f"the plan with the best figures, {first.deployment.short_form} at "
            f"{first.deployment.requests_per_s:.4g} requests/s, is not taken: {why}{others}"
        )
    elif verdict.misses:
        found.append(
            f"a replay has this plan miss a limit on a mean: {' and '.join(map(miss_words, verdict.misses))}; "
            "with a limit like --ttft p90=2s the next plan is taken"
        )
    if verdict.seen.asked.spread:
        found.append(
            "lengths are spread: explain takes equal ones, the means; the file that -o writes keeps the spread"
        )
    return tuple(found)


def miss_words(miss: Miss) -> str:
    """Return a limit that was missed in words, with both figures."""
    if miss.key == "goodput":
        return f"requests within all limits {miss.value:.1%}, asked {miss.limit:.1%}"
    wait, _, word = miss.key.partition("_")
    value, limit = (format_quantity(one, "s") for one in (miss.value, miss.limit))
    return f"{wait.upper()} {word or 'mean'} {value}, limit {limit}"
