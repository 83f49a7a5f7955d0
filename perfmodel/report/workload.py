"""A workload as a document: lengths, arrivals, and what a prefix cache of each size finds."""

from collections.abc import Iterator
from typing import Any

from perfmodel.planning.workload import Described
from perfmodel.report.table import Column, Document, Table
from perfmodel.specs.workload import ArrivalStatistics, HitCurve
from perfmodel.units import HOUR

STEPS = (1, 2, 5)  # sizes of a cache that are shown of each power of ten
LEAST_SHOWN = 100  # blocks
MEAN_RATIO = 1.2  # of the busiest minute over the mean, from which on it matters


def workload_document(found: Described) -> Document:
    """Return the document of a workload."""
    tables = [_lengths_table(found)]
    if found.arrivals is not None:
        tables += [_arrivals_table(found.arrivals), _windows_table(found.arrivals), _hours_table(found.arrivals)]
    if found.curves:
        tables.append(_hits_table(found.curves))
    workload, arrivals = found.workload, found.arrivals
    facts = {
        "name": workload.name,
        "requests": workload.requests,
        "skipped": workload.skipped,
        "isl_mean": found.inputs.mean,
        "osl_mean": found.outputs.mean,
        "isl_cv": found.inputs.cv,
        "osl_cv": found.outputs.cv,
        "correlation": found.correlation,
        "rate": arrivals and arrivals.rate,
        "gap_cv": arrivals and arrivals.gap_cv,
        "block_tokens": workload.block_tokens,
        "prefix_hits": found.curves[0].most if found.curves else None,
    }
    return Document("moeplan.requests/1", f"Workload {workload.name}", tuple(tables), facts, tuple(_notes(found)))


def _notes(found: Described) -> Iterator[str]:
    if found.arrivals is None:
        yield "the file has no arrival times: rates and bursts are not told"
    elif (rate := found.arrivals.rate) and (peak := found.arrivals.peaks.get(60.0)) and peak > MEAN_RATIO * rate:
        yield f"the busiest minute has {peak / rate:.2f} times the mean rate: plan for it, not for the mean"
    if not found.curves:
        yield "the file names no blocks of prompts: what a prefix cache finds is not told"


def _lengths_table(found: Described) -> Table:
    columns = (
        Column("length", "length"),
        Column("mean", "mean", "1"),
        Column("cv", "CV", "1"),
        Column("p50", "p50", "1"),
        Column("p90", "p90", "1"),
        Column("p99", "p99", "1"),
        Column("largest", "largest", "1"),
    )
    rows = tuple(
        {"length": name, **{key: getattr(one, key) for key in ("mean", "cv", "p50", "p90", "p99", "largest")}}
        for name, one in (("input tokens", found.inputs), ("output tokens", found.outputs))
    )
    told = "" if found.correlation is None else f"input and output lengths correlate by {found.correlation:.2f}"
    note = f"{found.workload.requests:,} requests"
    return Table("Lengths", columns, rows, tuple(text for text in (note, told) if text))


def _arrivals_table(found: ArrivalStatistics) -> Table:
    rows: list[dict[str, Any]] = [
        {"what": "time from first to last", "value": found.seconds, "unit": "s"},
        {"what": "requests/s", "value": found.rate, "unit": "1/s"},
        {"what": "CV of gaps", "value": found.gap_cv, "unit": "1"},
    ]
    columns = (Column("what", ""), Column("value", "value", "row"), Column("unit", "unit"))
    return Table("Arrivals", columns, tuple(rows))


def _windows_table(found: ArrivalStatistics) -> Table:
    columns = (
        Column("window", "window", "s"),
        Column("dispersion", "index of dispersion", "1"),
        Column("peak", "requests/s in the busiest", "1/s"),
        Column("over_mean", "over the mean", "1"),
    )
    rows = tuple(
        {
            "window": window,
            "dispersion": found.dispersion.get(window),
            "peak": peak,
            "over_mean": peak / found.rate if found.rate else None,
        }
        for window, peak in found.peaks.items()
    )
    note = "CV and index of dispersion are 1 for Poisson arrivals; an index that grows with the window: the load drifts"
    return Table("Bursts", columns, rows, (note,))


def _hours_table(found: ArrivalStatistics) -> Table:
    columns = (
        Column("hour", "hour", "1"),
        Column("requests", "requests", "1"),
        Column("rate", "requests/s", "1/s"),
        Column("peak", "", "bar"),
    )
    rates = found.hour_rates
    most = max((rate for rate in rates if rate is not None), default=None)
    rows = tuple(
        {"hour": at, "requests": count, "rate": rate, "peak": rate / most if rate is not None and most else None}
        for at, (count, rate) in enumerate(zip(found.hour_requests, rates, strict=True))
    )
    days = f"hours from the first arrival, those of {found.seconds / HOUR / 24:.1f} days added up"
    told = days if found.seconds > 24 * HOUR else "hours from the first arrival"
    return Table("Rate by hour", columns, rows, (told,))


def _hits_table(curves: tuple[HitCurve, ...]) -> Table:
    columns = (
        Column("blocks", "blocks", "1"),
        Column("tokens", "tokens held", "1"),
        *(Column(f"found_{one.block_tokens}", f"found, blocks of {one.block_tokens}", "%") for one in curves),
    )
    first = curves[0]
    last = int(first.blocks[-1])
    sizes = [step * 10**power for power in range(2, 12) for step in STEPS]
    shown = [size for size in sizes if LEAST_SHOWN <= size < last]
    rows = tuple(
        {
            "blocks": size,
            "tokens": size * first.block_tokens,
            **{f"found_{one.block_tokens}": one.at(size * first.block_tokens / one.block_tokens) for one in curves},
        }
        for size in (*shown, last)
    )
    notes = (
        "share of prompt tokens found; the least recently used leave first, all requests share one cache",
        "the last row finds all that recurs; less prefill work is saved than tokens are found: they stand first",
    )
    return Table("Prefix cache", columns, rows, notes)
