"""What clients of mixed serving measure, as a table beside the step that they wait for."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from perfmodel.algebra import as_float
from perfmodel.planning.pool_run import PoolRun
from perfmodel.planning.step_uncertainty import client_intervals
from perfmodel.prediction.sureness import verdict_of
from perfmodel.report.limit_words import time_line
from perfmodel.report.quantity import format_quantity
from perfmodel.report.table import Column, Document, Table, in_part, with_lines
from perfmodel.specs.run import PERCENTILES

WAITS = {
    "ttft": "time to first token",
    "tpot": "time per output token",
    "itl_max": "longest time between two tokens of a request",
    "e2e": "whole request",
}
PERCENTILE_COLUMNS = tuple(Column(word, word, "s") for word in PERCENTILES)


def percentiles(values: Mapping[str, float], name: str) -> dict[str, float]:
    """Return the percentiles of a wait by their columns."""
    return {word: values[f"{name}_{word}"] for word in PERCENTILES}


def with_clients(document: Document, run: PoolRun) -> Document:
    """Return the explanation of a step with what clients measure of it: the second table, and facts.

    ``tpot_s`` and ``ttft_s`` are then means as a client sees them.
    """
    view, engine = run.clients, run.engine
    assert view is not None and engine is not None
    ends = client_intervals(run)
    facts: dict[str, Any] = {
        **document.facts,
        "serving": "mixed",
        "concurrency": run.conditions.concurrency,
        "rate_per_s": run.conditions.rate,
        "requests": len(view.served.isl),
        "requests_per_s": view.values["requests_per_s"],
        "running": view.running,
        "utilisation": view.utilisation,
        "tokens_per_s_per_card": _tokens_a_card(run),
    }
    for name, value in view.values.items():
        if name != "requests_per_s":
            facts[f"{name}_s"] = value
    for name in ("ttft", "tpot", "requests_per_s"):
        if name in ends:
            facts[f"{name}_interval_s" if name != "requests_per_s" else f"{name}_interval"] = ends[name].as_dict()
    limit = run.conditions.tpot
    if limit is not None:
        facts["tpot_met"] = facts["tpot_s"] <= limit
        facts["tpot_verdict"] = verdict_of(facts["tpot_met"], None)
    tables = list(document.tables)
    tables[1:1] = in_part("clients", waits=_waits_table(run, ends))
    return replace(
        document,
        facts=facts,
        tables=tuple(tables),
        notes=(*_notes(run), *document.notes),
        answer=with_lines(document.answer, _lines(run, facts), without=("TPOT",)),
        opening=("clients", *document.opening),
    )


def _lines(run: PoolRun, facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what clients see, as lines of the answer in place of the TPOT that full batches give."""
    rate = format_quantity(facts["requests_per_s"], "1/s")
    each = format_quantity(facts["tokens_per_s_per_card"], "1/s")
    return [
        ("clients", f"{rate} requests/s, {each} output tokens/s a card, {facts['running']:,.0f} in the service"),
        *(
            (name, time_line(facts[f"{key}_s"], limit, None, facts.get(f"{key}_interval_s")))
            for name, key, limit in (("TPOT", "tpot", run.conditions.tpot), ("TTFT", "ttft", None))
            if f"{key}_s" in facts
        ),
    ]


def _tokens_a_card(run: PoolRun) -> float:
    assert run.clients is not None
    cards = run.resolved.plan.layout.dies / run.resolved.scenario.case.rates.dies_per_package
    return as_float(run.clients.values["requests_per_s"] * run.conditions.osl / cards)


def _waits_table(run: PoolRun, ends: dict[str, Any]) -> Table:
    view = run.clients
    assert view is not None
    rows = [
        {
            "wait": words,
            "mean": view.values[name],
            "low": ends[name].low90 if name in ends else None,
            "high": ends[name].high90 if name in ends else None,
            **percentiles(view.values, name),
        }
        for name, words in WAITS.items()
        if name in view.values
    ]
    columns = (
        Column("wait", "as clients see it"),
        Column("mean", "mean", "s"),
        Column("low", "from (90 %)", "s"),
        Column("high", "to (90 %)", "s"),
        *PERCENTILE_COLUMNS,
    )
    return Table("What clients measure", columns, tuple(rows), _how(run))


def _how(run: PoolRun) -> tuple[str, ...]:
    view, engine, conditions = run.clients, run.engine, run.conditions
    assert view is not None and engine is not None
    load = (
        f"{conditions.concurrency:,} clients in a closed loop, all at once first"
        if conditions.concurrency is not None
        else f"{conditions.rate:g} requests/s arrive at random"
    )
    rule = "prompts in pieces beside decode" if engine.mixed == "chunked" else "prompts before decode"
    rate = view.values["requests_per_s"]
    return (
        f"{load}: {len(view.served.isl):,} requests replayed with the step times of this layout; {engine.name}: "
        f"{rule}, {as_float(engine.token_budget):,.0f} tokens a step",
        f"{rate:.3g} requests/s, {_tokens_a_card(run):,.0f} output tokens/s a card; {view.running:,.0f} requests in "
        f"the service, steps run {view.utilisation:.0%} of the time",
        "from, to: how sure the mean is; p50 to p99: how requests differ",
    )


def _notes(run: PoolRun) -> tuple[str, ...]:
    view = run.clients
    assert view is not None
    if run.conditions.rate is not None and view.values["requests_per_s"] < 0.95 * run.conditions.rate:
        return (
            f"{run.conditions.rate:g} requests/s are more than it serves, {view.values['requests_per_s']:.3g}: waits "
            "grow as long as the load lasts, and those shown are of this many requests",
        )
    return ()
