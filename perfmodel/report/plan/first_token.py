"""The waits and steps that make up the time to first token, as a table."""

from typing import Any

from perfmodel.planning.referee import Verdict
from perfmodel.report.quantity import format_quantity
from perfmodel.report.table import Column, Table

TTFT_DEFINITION = (
    "TTFT = request path + batch formation + residual of the running batch + prefill + exposed KV transfer "
    "+ first decode step, means at the utilisation limit"
)
MIXED_TTFT = (
    "TTFT = request path + batch formation + residual of the running prefill or decode step + prefill, which makes "
    "the first token; means at the utilisation limit"
)


MEAN_ALONE = (
    "a mean, and no queue of prompts is in it; percentiles, and the mean with queues, come with a limit like "
    "--ttft p99=2s, or with --clients-view"
)


def first_token_table(facts: dict[str, Any], mixed: bool, clients: Verdict | None = None) -> Table:
    """Return the terms of TTFT and their sum."""
    terms = {**facts["ttft_terms_s"], "sum": facts["ttft_s"]}
    rows = tuple({"term": name.replace("_", " "), "time": value} for name, value in terms.items())
    return Table(
        "Time to first token",
        (Column("term", "term"), Column("time", "mean", "s")),
        rows,
        (MIXED_TTFT if mixed else TTFT_DEFINITION, *((MEAN_ALONE,) if clients is None else _replayed(clients))),
    )


def _replayed(clients: Verdict) -> tuple[str, ...]:
    mean = format_quantity(clients.seen.values["ttft"], "s")
    return (
        f"replayed, with the queues that are not in these terms: {mean}; the form waits for full batches, where an "
        "engine starts with what is there",
    )
