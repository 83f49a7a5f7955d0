"""One expert layer over time: what runs on which stream for which micro-batch, and where a stream waits."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from perfmodel.breakdown import BlockTime, Breakdown, Row
from perfmodel.ledger.records import Block, Family, Ledger

LAYER = "moe_layer"
SHARED_APART = "dies of shared experts"
#: the stream that all domains of attention dies share
DOMAINS_SHARE = "experts dies"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One operator on one stream; seconds from the start of the layer."""

    lane: str
    micro_batch: int
    name: str
    start: float
    length: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """One expert layer of a step, all its micro-batches included, in steady state."""

    #: time of the layer, and how many of them a step has
    layer: float
    layers: float
    decides: str
    lanes: tuple[str, ...]
    spans: tuple[Span, ...]

    def idle(self, lane: str) -> float:
        """Return the time of a layer in which a stream has nothing to do."""
        return self.layer - sum(span.length for span in self.spans if span.lane == lane)


def timeline(parts: Breakdown, ledger: Ledger, family: Family) -> Timeline:
    """Return the streams of one expert layer.

    Lengths are those of the breakdown, of one micro-batch on the busiest rank.  Where micro-batches overlap, each
    begins its share of the layer at equal distances: the steady state that the layer's time is of.
    """
    block = next(one for one in ledger.blocks if one.name == LAYER)
    summary = next(one for one in parts.blocks if one.name == LAYER)
    rows = [row for row in parts.rows if row.block == LAYER and row.timed.op.name in _known(ledger, block)]
    if not block.overlapped:
        spans = tuple(_serial(rows, ledger, block, summary))
    else:
        lane_of = _by_engine if family.overlap == "link" else _by_stage if family.disaggregated else _by_lane
        spans = tuple(_side_by_side(rows, ledger, block, lane_of, summary.layer))
    return Timeline(
        layer=summary.layer,
        layers=summary.count,
        decides=summary.decides,
        lanes=tuple(dict.fromkeys(span.lane for span in spans)),
        spans=spans,
    )


def _f(value: Any) -> float:
    return float(value)


def _known(ledger: Ledger, block: Block) -> set[str]:
    """Return names of the operators of a layer; rows for waiting are none."""
    parts = (*block.attention, *block.experts, *block.joined, *block.beside)
    return {op.name for part in parts for op in ledger.parts[part]}


def _by_engine(row: Row) -> str:
    return "links" if row.timed.op.exchange is not None else "cores"


def _by_lane(row: Row) -> str:
    return f"{row.lane} cores"


def _by_stage(row: Row) -> str:
    return "links" if row.timed.op.exchange is not None else f"{row.lane} dies"


def _each(row: Row) -> float:
    return row.total / row.runs


def _in_order(rows: Iterable[Row]) -> list[Row]:
    """Return the rows as they follow each other: the exchange that brings tokens back comes last."""
    listed = list(rows)
    back = [row for row in listed if row.timed.op.exchange is not None and row.lane == "experts"][-1:]
    return [row for row in listed if row not in back] + back


def _named(rows: Iterable[Row], ledger: Ledger, parts: Iterable[str]) -> list[tuple[str, float]]:
    """Return the rows of some parts with their times."""
    names = {op.name for part in parts for op in ledger.parts[part]}
    return [(row.name, _each(row)) for row in rows if row.name in names]


def _side_by_side(
    rows: Sequence[Row], ledger: Ledger, block: Block, lane_of: Callable[[Row], str], layer: float
) -> Iterator[Span]:
    """Yield the rows of every micro-batch: each stream takes them in turn, at equal distances.

    Dies of shared experts begin with the routed experts of the same micro-batch.
    """
    apart, joined = _named(rows, ledger, block.joined[1:]), _named(rows, ledger, block.joined[:1])
    here = [row for row in rows if row.name not in {name for name, _ in apart}]
    lanes = list(dict.fromkeys(map(lane_of, here)))
    for lane in lanes:
        turns = block.passes * (int(_f(block.domains)) if lane == DOMAINS_SHARE else 1)
        for turn in range(turns):
            at = turn * layer / turns
            # while the first stream has a micro-batch, the others have the one before it
            batch = (turn - bool(lanes.index(lane))) % block.passes + 1
            for row in _in_order(row for row in here if lane_of(row) == lane):
                if apart and row.name == joined[0][0]:
                    yield from _run(SHARED_APART, apart, at, batch)
                yield Span(lane=lane, micro_batch=batch, name=row.name, start=at, length=_each(row))
                at += _each(row)


def _serial(rows: Sequence[Row], ledger: Ledger, block: Block, summary: BlockTime) -> Iterator[Span]:
    """Yield the rows one after the other; work beside the exchanges runs while they do, there and then back.

    What weights brought to L2 ahead save is taken off the rows that read them.
    """
    ahead = summary.prefetched / summary.count / block.passes
    reading = sum(_each(row) for row in rows if _read_ahead(row))
    kept = 1 - ahead / reading if reading else 1.0

    beside = _named(rows, ledger, (*block.beside, *block.fused))
    apart, joined = _named(rows, ledger, block.joined[1:]), _named(rows, ledger, block.joined[:1])
    elsewhere = {name for name, _ in (*beside, *apart)}
    here = [row for row in _in_order(rows) if row.name not in elsewhere]
    at, ready = 0.0, 0.0
    for row in here:
        lane, length = _by_engine(row), _each(row) * (kept if _read_ahead(row) else 1.0)
        if apart and row.name == joined[0][0]:
            yield from _run(SHARED_APART, apart, at)
            ready = at + sum(time for _, time in apart)
        if row is here[-1]:
            at = max(at, ready)  # tokens go back when the slower of both kinds of ranks is done
        yield Span(lane=lane, micro_batch=1, name=row.name, start=at, length=length)
        if lane == "links" and row.lane == "experts":
            done, beside = _taken(beside, length if row is not here[-1] else float("inf"))
            yield from _run("cores", done, at)
            length = max(length, sum(time for _, time in done))
        at += length


def _read_ahead(row: Row) -> bool:
    return row.timed.op.prefetched and row.lane == "attention"


def _run(lane: str, work: Iterable[tuple[str, float]], at: float, batch: int = 1) -> Iterator[Span]:
    for name, time in work:
        yield Span(lane=lane, micro_batch=batch, name=name, start=at, length=time)
        at += time


def _taken(work: list[tuple[str, float]], room: float) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """Return the part of some work that has room, and the rest."""
    done, left = [], []
    for name, time in work:
        part = min(time, max(0.0, room))
        room -= part
        done += [(name, part)] if part > 0 else []
        left += [(name, time - part)] if part < time else []
    return done, left
