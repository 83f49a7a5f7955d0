"""A breakdown -> tables of its blocks and operators, as rows in order, as a tree, on the roofline."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from perfmodel.algebra import as_float
from perfmodel.prediction.breakdown import Breakdown, Row
from perfmodel.report.drawings import MARKS, roofline
from perfmodel.report.table import Column, Table
from perfmodel.supply.rates import Rates

SHARES_NOTE = (
    "time, FLOP and bytes are of all runs in a {whole}; rows without a share run beside the lane that decides, "
    "shares of the others add up to the {whole}; of light: time with all efficiencies 1 and no fixed costs / time"
)
RANGE_NOTE = (
    "from, to: 90 % interval of each time by itself, rates and kernels over their stated ranges, its load as it is"
)


def time_by_bound(parts: Breakdown) -> dict[str, float]:
    """Return the shares of the step by what binds the rows that decide it, the largest first."""
    shares: dict[str, float] = {"fixed": parts.overhead + parts.gaps}
    for row in parts.rows:
        if row.decides:
            fixed = as_float(row.timed.fixed_time) * row.runs
            shares["fixed"] += fixed
            shares[row.timed.roof] = shares.get(row.timed.roof, 0.0) + row.total - fixed
    whole = sum(shares.values())
    return dict(sorted(((name, time / whole) for name, time in shares.items()), key=lambda item: -item[1]))


def block_table(parts: Breakdown) -> Table:
    """One row per block: lanes, who decides, slack."""
    step = parts.step_time
    rows = tuple(
        {
            "block": b.name,
            "count": b.count,
            "layer": b.layer,
            "total": b.total,
            "share": b.total / step,
            "bar": b.total / step,
            "attention": b.attention,
            "experts": b.experts,
            "link": b.link,
            "decides": b.decides,
            "slack": b.slack,
        }
        for b in parts.blocks
    )
    columns = (
        Column("block", "block"),
        Column("count", "count", "1"),
        Column("layer", "one layer", "s"),
        Column("total", "total", "s"),
        Column("share", "share", "%"),
        Column("bar", "", "bar", spare=1),
        Column("attention", "attention", "s", spare=3),
        Column("experts", "experts", "s", spare=3),
        Column("link", "of it link", "s", spare=4),
        Column("decides", "decides"),
        Column("slack", "slack", "s", spare=2),
    )
    site = ", as measured at the site," if parts.site else ""
    total = f"blocks, gaps and overhead{site} add up to the step time of {step * 1e3:.3f} ms"
    return Table("Blocks", columns, rows, (total,))


def work_of(row: Row) -> dict[str, float]:
    """Return what all runs of a row do."""
    op = row.timed.op
    sent = 0.0 if op.exchange is None else as_float(op.exchange.payload * op.exchange.messages)
    return {
        "flop": row.runs * as_float(op.flop),
        "bytes": row.runs * as_float(op.weight_bytes + op.kv_bytes + op.activation_bytes),
        "link_bytes": row.runs * sent,
    }


#: word of --sort -> what rows are sorted by
SORTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "time": lambda row: -row["time"],
    "name": lambda row: row["operator"],
    "bound": lambda row: (row["bound"], -row["time"]),
    "light": lambda row: row["light"] or 0.0,
    "flop": lambda row: -row["flop"],
    "bytes": lambda row: -row["bytes"],
}


def operator_table(
    parts: Breakdown,
    rows: Sequence[Row],
    ranges: Sequence[tuple[float, float] | None],
    *,
    sort: str | None = None,
    whole: str = "step",
) -> Table:
    """Return one row per operator and block, in the order of the ledger or sorted; ``ranges`` are ends of each time.

    What is outside the rows comes last where all of them are shown.
    """
    step = parts.step_time
    found: list[dict[str, Any]] = []
    for at, row in enumerate(rows):
        share = row.total / step if row.decides else None
        low, high = ranges[at] or (None, None)
        found.append(
            {
                "block": row.block,
                "operator": row.name,
                "lane": row.lane,
                "runs": row.runs,
                "time": row.total,
                "low90": low,
                "high90": high,
                "share": share,
                "bar": share,
                "bound": row.timed.bound,
                "light": row.ideal_total / row.total if row.total else None,
                **work_of(row),
            }
        )
    for name, time in parts.outside().items() if len(rows) == len(parts.rows) else ():
        nothing = {"runs": 1.0, "bound": "fixed", "light": 0.0, "flop": 0.0, "bytes": 0.0, "link_bytes": 0.0}
        share = time / step
        named = {
            "block": whole if whole == "step" else parts.blocks[0].name,
            "operator": name,
            "lane": "all",
            "low90": None,
            "high90": None,
        }
        found.append({**named, "time": time, "share": share, "bar": share, **nothing})
    if sort:
        found.sort(key=SORTS[sort])
    columns = (
        Column("block", "block", group=not sort),
        Column("operator", "operator"),
        Column("lane", "lane", spare=7),
        Column("runs", "runs", "1", spare=5),
        Column("time", "time", "s"),
        Column("low90", "from (90 %)", "s", spare=6),
        Column("high90", "to (90 %)", "s", spare=6),
        Column("share", "share", "%"),
        Column("bar", "", "bar", spare=1),
        Column("bound", "bound"),
        Column("light", "of light", "%"),
        Column("flop", "FLOP", "FLOP", spare=3),
        Column("bytes", "bytes", "B", spare=2),
        Column("link_bytes", "link", "B", spare=4),
    )
    notes = (SHARES_NOTE.format(whole=whole), RANGE_NOTE)
    return Table(f"Operators of one {whole}, on the busiest die", columns, tuple(found), notes)


@dataclass(frozen=True, slots=True)
class _Node:
    """A node of the tree of a step: its time, and how much of it decides; none where it runs beside."""

    level: str
    name: str
    time: float
    decides: float | None
    children: tuple["_Node", ...] = ()


def _part_node(name: str, rows: Sequence[Row]) -> _Node:
    children = tuple(_Node("operator", row.name, row.total, row.total if row.decides else None) for row in rows)
    return _Node("part", name, sum(row.total for row in rows), _decided(children), children)


def _decided(nodes: Iterable[_Node]) -> float | None:
    times = [node.decides for node in nodes if node.decides is not None]
    return sum(times) if times else None


def tree_table(parts: Breakdown, rows: Sequence[Row], whole: str = "step") -> Table:
    """Return step, blocks, parts and operators as a tree with the time and share of each."""
    blocks = []
    complete = len(rows) == len(parts.rows)
    for block in parts.blocks:
        mine = [row for row in rows if row.block == block.name]
        names = list(dict.fromkeys(row.part for row in mine))
        nodes = tuple(_part_node(name, [row for row in mine if row.part == name]) for name in names)
        if nodes:
            time = block.total if complete else _decided(nodes) or 0.0
            blocks.append(_Node("block", block.name, time, time, nodes))
    of_step = parts.gaps, parts.overhead, parts.site
    outside = {name: time for name, time in parts.outside().items() if complete and time in of_step}
    leaves = [_Node("outside", name, time, time) for name, time in outside.items()]
    children = (*blocks, *leaves)
    time = parts.step_time if complete else _decided(children) or 0.0
    lines = tuple(_lines(_Node(whole, whole, time, time, children), parts.step_time, "", ""))
    columns = (
        Column("level", "level", for_programs=True),
        Column("name", "name", for_programs=True),
        Column("tree", whole, "bar"),
        Column("time", "time", "s"),
        Column("share", "share", "%"),
        Column("bar", "", "bar", spare=1),
    )
    note = (
        f"parts and operators without a share run beside those that decide; a block is shorter than its deciding "
        f"operators by weights brought ahead and work beside exchanges; shares are of the {whole}"
    )
    return Table(f"Tree of one {whole}, on the busiest die", columns, lines, (note,))


def _lines(node: _Node, step: float, branch: str, under: str) -> Iterator[dict[str, Any]]:
    share = None if node.decides is None else node.decides / step
    yield {
        "level": node.level,
        "name": node.name,
        "tree": branch + node.name,
        "time": node.time,
        "share": share,
        "bar": share,
    }
    for at, child in enumerate(node.children):
        last = at == len(node.children) - 1
        yield from _lines(child, step, under + ("└─ " if last else "├─ "), under + ("   " if last else "│  "))


def roofline_table(rows: Sequence[Row], rates: Rates, whole: str = "step") -> Table:
    """Return each operator that calculates as a point under the roofs of the die, all its blocks together.

    The roof of a point is the lower of its engine's peak and its intensity times the memory's rate.
    """
    memory = as_float(rates.hbm_bandwidth)
    sums: dict[str, dict[str, float]] = {}
    peaks: dict[str, tuple[str, float]] = {}
    for row in rows:
        work = work_of(row)
        if work["flop"] and work["bytes"] and row.timed.op.engine != "link":
            peaks[row.name] = row.timed.op.engine, as_float(rates.peak(row.timed.op.engine))
            before = sums.setdefault(row.name, {"flop": 0.0, "bytes": 0.0, "time": 0.0})
            sums[row.name] = {
                "flop": before["flop"] + work["flop"],
                "bytes": before["bytes"] + work["bytes"],
                "time": before["time"] + row.total,
            }
    found = []
    for at, (name, total) in enumerate(sorted(sums.items(), key=lambda item: -item[1]["time"])):
        engine, peak = peaks[name]
        intensity, achieved = total["flop"] / total["bytes"], total["flop"] / total["time"]
        roof = min(peak, intensity * memory)
        found.append(
            {
                "mark": MARKS[at] if at < len(MARKS) else "*",
                "operator": name,
                "engine": engine,
                "time": total["time"],
                "intensity": intensity,
                "achieved": achieved,
                "roof": roof,
                "share": achieved / roof,
                "bar": achieved / roof,
            }
        )
    columns = (
        Column("mark", ""),
        Column("operator", "operator"),
        Column("engine", "engine", spare=1),
        Column("time", "time", "s", spare=2),
        Column("intensity", "FLOP/B", "1"),
        Column("achieved", "achieved", "FLOP/s"),
        Column("roof", "roof", "FLOP/s", spare=3),
        Column("share", "of roof", "%"),
        Column("bar", "", "bar", spare=4),
    )
    used = dict(peaks.values())
    shares = {row.lane: as_float(row.timed.core_share) for row in rows if as_float(row.timed.core_share) < 1}
    notes = [
        "bytes are weights, cache and activations that an operator reads and writes, from memory or L2: one may "
        f"lie over the roof of the memory's {memory / 1e12:.2f} TB/s; roofs: "
        + ", ".join(f"{name} {peak / 1e12:.0f} TFLOP/s" for name, peak in used.items())
    ]
    if shares:
        words = ", ".join(f"{lane} on {share:.0%}" for lane, share in shares.items())
        notes.append(f"roofs are of all cores; where micro-batches overlap, {words} of them")
    return Table(
        f"Roofline of the operators of one {whole}, on the busiest die",
        columns,
        tuple(found),
        tuple(notes),
        drawing=lambda width, _: roofline(found, used, memory, width),
    )
