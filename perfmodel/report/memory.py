"""What fills the memory of a die, and the batch at which each limit is reached."""

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import Any

from perfmodel.algebra import Num, as_float
from perfmodel.ledger.footprint import kept_weights
from perfmodel.prediction.deployment import PoolPlan
from perfmodel.prediction.headroom import Limit
from perfmodel.prediction.layouts import LARGEST_BATCH
from perfmodel.prediction.scenario import ledger_of
from perfmodel.prediction.serving import Case
from perfmodel.report.kernels import COLUMNS
from perfmodel.report.quantity import range_in_words
from perfmodel.report.table import Column, Table
from perfmodel.specs.base import MOST, Known
from perfmodel.specs.machine import ChipSpec, StackSpec
from perfmodel.specs.model import ModelSpec
from perfmodel.supply.rates import Rates

#: what of a die's memory is not the plan's
OUTSIDE = ("runtime", "graphs", "reserve", "not seen by frameworks")


def _outside(rates: Rates, usable: float) -> Iterator[tuple[str, float]]:
    """Yield what of a die's memory is not the plan's, each with its bytes, and last all there is."""
    capacity, runtime, graphs = (as_float(size) for size in (rates.capacity, rates.runtime, rates.graphs))
    seen = capacity * as_float(rates.reported)
    parts = (runtime, graphs, seen - usable - runtime - graphs, capacity - seen)
    yield from (
        (name, size) for name, size in zip(OUTSIDE, parts, strict=True) if size or name in ("runtime", "reserve")
    )
    yield "HBM as the driver reports it", capacity


def memory_table(plan: PoolPlan, case: Case) -> Table:
    """Bytes of one die, planned and worst, weights by what they belong to; bars are shares of what is usable."""
    held = plan.point.footprint
    usable = as_float(plan.point.usable)
    weights: dict[tuple[bool, str], float] = {}
    for apart, name, size in kept_weights(ledger_of(plan, case, case.traffic), plan.family):
        weights[apart, name] = weights.get((apart, name), 0.0) + as_float(size)
    split = any(apart for apart, _ in weights)
    rows: list[tuple[str, str, Num, Num]] = []
    for apart in (False, True):
        die = "die with experts alone" if apart else "die with attention" if split else "every die"
        rows += [
            (die, f"weights: {name}", size, size)
            for (other, name), size in sorted(weights.items(), key=lambda item: -item[1])
            if size and other == apart
        ]
        if not apart:
            rest = as_float(held.weights) - sum(size for (other, _), size in weights.items() if not other)
            if rest > 1:  # of mixed serving, where prefill may keep more
                rows.append((die, "weights that prefill alone keeps", rest, rest))
            rows.append((die, "KV cache", held.kv, held.kv_worst))
            rows.append((die, "working space", held.workspace, held.workspace))
    fuller = "fuller die" if split else "every die"
    rows += [
        (fuller, "exchange buffers", held.buffers, held.buffers),
        (fuller, "free", usable - held.planned, usable - held.worst),
        (fuller, "usable", usable, usable),
    ]
    rows += [(fuller, name, size, size) for name, size in _outside(case.rates, usable)]
    found = tuple(
        {
            "die": die,
            "what": what,
            "planned": as_float(planned),
            "share": as_float(planned) / usable,
            "bar": as_float(planned) / usable
            if what not in (*OUTSIDE, "usable") and as_float(planned) < usable
            else None,
            "worst": as_float(worst),
        }
        for die, what, planned, worst in rows
    )
    columns = (
        Column("die", "die", group=split, for_programs=not split),
        Column("what", "memory of one die"),
        Column("planned", "planned", "B"),
        Column("share", "of usable", "%", spare=1),
        Column("bar", "", "bar", spare=2),
        Column("worst", "worst", "B"),
    )
    note = "weights include replicas; KV cache planned: mean + 3 sigma, worst: all requests at their longest"
    return Table("Memory", columns, found, (note,))


def limits_table(plan: PoolPlan, limits: Sequence[Limit]) -> Table:
    """Return the largest batch that each limit allows by itself, with what is served there."""
    rows = tuple(
        {
            "limit": one.name,
            "batch": one.batch,
            "step": one.step_time,
            "tpot": one.tpot,
            "rate": one.tokens_per_s_per_card,
        }
        for one in limits
    )
    decode = plan.family.phase == "decode"
    columns = (
        Column("limit", "limit on the batch of a dp rank"),
        Column("batch", "allows", "1"),
        Column("step", "step there", "s", spare=1),
        *((Column("tpot", "TPOT there", "s"),) if decode else ()),
        Column("rate", "tokens/s a card", "1/s"),
    )
    note = f"batch is {plan.layout.batch:,}; each limit alone, all else as it is; '-': none up to {LARGEST_BATCH:,}"
    return Table("What limits the batch", columns, rows, (note,))


def longest_context_facts(plan: PoolPlan, model: ModelSpec) -> dict[str, Any]:
    """Return the longest context of one request, what memory alone would hold, and which of memory and model it is."""
    held, most = longest_context_by_memory(plan), model.max_position_embeddings
    return {
        "longest_context": min(held, float(most)),
        "longest_context_by_memory": held,
        "longest_context_set_by": "memory" if held < most else "model",
    }


def longest_context_by(facts: Mapping[str, Any], model: ModelSpec) -> str:
    """Return what sets the longest context of one request, and what the other would allow."""
    if facts["longest_context_set_by"] == "memory":
        return f"by memory; the model takes {model.max_position_embeddings:,}"
    return f"by the model; memory holds {facts['longest_context_by_memory']:,.0f}"


def longest_context_by_memory(plan: PoolPlan) -> float:
    """Longest context of one request that still fits with the rest of the batch as planned.

    The largest count there is where nothing that is kept grows with it.
    """
    held = plan.point.footprint
    free = as_float(plan.point.usable) - as_float(held.planned)
    mean = as_float(held.kv) / plan.layout.batch - as_float(held.kv_bytes_per_request_of_die)
    each = as_float(held.kv_bytes_per_token_of_die)
    return max(0.0, (free + mean) / each) if each else float(MOST)


#: numbers that decide what a plan may fill: of the chip, and of the stack
OF_CHIP = {"die.hbm.capacity": "HBM as the driver reports it", "die.hbm.reported": "share that frameworks see"}
OF_STACK = {
    "memory.utilization": "share of that which the engine takes",
    "memory.runtime": "runtime, in that share",
    "memory.activations": "activations, in that share, at least",
    "memory.graphs": "graphs, on top of that share",
}


def memory_sources_table(chip: Known[ChipSpec], stack: Known[StackSpec]) -> Table:
    """Return the numbers that decide what a plan may fill, each with range and source."""
    rows = []
    for known, parts in ((chip, OF_CHIP), (stack, OF_STACK)):
        for path, what in parts.items():
            figure = known.figures.get(path)
            value = reduce(getattr, path.split("."), known.spec)
            rows.append(
                {
                    "parameter": what,
                    "value": f"{value:g}" if figure is None else figure.text,
                    "range": "" if figure is None else range_in_words(figure.low, figure.high),
                    "kind": "not in the file" if figure is None else figure.kind,
                    "source": "" if figure is None else known.spec.sources[figure.source].title,
                    "note": "" if figure is None else figure.note or "",
                }
            )
    columns = tuple(column for column in COLUMNS if column.key != "class")
    return Table("What a plan may fill of a die", columns, tuple(rows), ("ranges are in SI units",))
