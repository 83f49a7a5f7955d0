"""When each operator of a layer runs: the rows of a breakdown put one after the other as its overlap composes them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from perfmodel.algebra import as_float
from perfmodel.ledger.records import Block, Family, Ledger
from perfmodel.prediction.breakdown import MESSAGES, NOTHING, WAITS, BlockTime, Breakdown, Row
from perfmodel.timing.step import reuses

#: exchanges that give back what the experts made
_BACK = ("combine", "bulk_combine", "reduce_scatter", "all_reduce")
OTHER_DOMAINS = "other domains"
_DIES = {"attention": "attention dies", "experts": "expert dies"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One operator of one micro-batch on one stream; seconds from the layer's start."""

    stream: str
    micro_batch: int
    name: str
    start: float
    time: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """How long a stream works in a layer, and what it waits for in the rest."""

    name: str
    works: float
    waits: float
    waits_for: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """One layer of a block in steady state, all its micro-batches."""

    block: str
    count: float
    layer: float
    segments: tuple[Segment, ...]
    streams: tuple[Stream, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """A row of one pass with where it lies from the start of its lane."""

    row: Row
    stream: str
    start: float
    time: float


def timeline(ledger: Ledger, family: Family, parts: Breakdown, name: str) -> Timeline:
    """Return when each operator of one layer runs.

    Rows are in the order of the ledger, but that what experts give back comes after them.  Work beside an exchange, or
    in one kernel with it, runs while exchanges do; weights brought ahead, or still in L2, shorten the rows they belong
    to evenly, over both micro-batches too.
    Layers repeat: what reaches over the end of one is drawn at the start of the next.
    """
    block = next(block for block in ledger.blocks if block.name == name)
    summary = next(one for one in parts.blocks if one.name == name)
    rows = [row for row in parts.rows if row.block == name]
    ahead = summary.prefetched / (summary.count * block.passes)
    lanes = [_placed(rows, block, family, lane, ahead) for lane in ("attention", "experts")]
    split = block.overlapped and family.overlap == "cores"
    if split or summary.reused:
        lanes = _shortened(lanes, summary, block, split=split)
    found = list(_segments(lanes, block, family, summary))
    waits = [row for row in rows if row.part == WAITS]
    return Timeline(
        block=name,
        count=summary.count,
        layer=summary.layer,
        segments=tuple(found),
        streams=tuple(_streams(found, summary, waits)),
    )


def _shortened(
    lanes: Sequence[Sequence[_Piece]], summary: BlockTime, block: Block, *, split: bool
) -> list[list[_Piece]]:
    """Return lanes of which products with weights are shorter by what a second micro-batch saves on weights in L2.

    Lanes on a split of the cores by what each is longer than the layer has time for it, others by what both save.
    """
    known = [
        sum(piece.time for piece in lane if piece.stream == lane[0].stream and reuses(piece.row.timed.op))
        for lane in lanes
    ]
    saved = [max(0.0, _length(lane) - summary.layer / block.passes) for lane in lanes]
    if not split:
        both = summary.reused / (summary.count * block.passes)
        saved = [both * mine / sum(known) for mine in known]
    found = []
    for lane, whole, less in zip(lanes, known, saved, strict=True):
        left = 1 - less / whole if whole else 1.0
        sooner: dict[str, float] = {}
        begun: list[tuple[float, float]] = []  # ends of the lane's own pieces, and how much sooner what follows begins
        pieces = []
        for piece in lane:
            before = [much for end, much in begun if end <= piece.start * (1 + NOTHING)]
            ahead = sooner.get(piece.stream, before[-1] if before else 0.0)
            time = piece.time * (left if reuses(piece.row.timed.op) else 1.0)
            pieces.append(replace(piece, start=piece.start - ahead, time=time))
            sooner[piece.stream] = ahead + piece.time - time
            if piece.stream == lane[0].stream:
                begun.append((piece.start + piece.time, sooner[piece.stream]))
        found.append(pieces)
    return found


def _stream_of(row: Row, block: Block, family: Family) -> str:
    overlapped = block.overlapped and family.overlap
    if overlapped == "cores":
        return row.lane
    if row.timed.op.exchange is not None:
        return "links"
    return _DIES[row.lane] if overlapped == "stages" else "cores"


def _gives_back(row: Row, block: Block) -> bool:
    exchange = row.timed.op.exchange
    return exchange is not None and row.part in block.experts and exchange.collective in _BACK


def _placed(rows: Sequence[Row], block: Block, family: Family, lane: str, ahead: float) -> list[_Piece]:
    """Return the rows of a lane's pass from its start on: those before the joined parts, these, what is given back."""
    mine = [row for row in rows if row.lane == lane and row.part != WAITS]
    beside = [row for row in mine if row.part in (*block.beside, *block.fused)]
    plain = [row for row in mine if row.part not in (*block.beside, *block.fused, *block.joined)]
    back = [row for row in plain if _gives_back(row, block)]
    known = sum(row.each for row in mine if row.timed.op.prefetched)
    left = 1 - ahead / known if ahead and lane == "attention" else 1.0
    found: list[_Piece] = []

    def add(some: Iterable[Row], start: float, stream: str = "") -> None:
        for row in some:
            time = row.each * (left if row.timed.op.prefetched else 1.0)
            found.append(_Piece(row=row, stream=stream or _stream_of(row, block, family), start=start, time=time))
            start += time

    add((row for row in plain if row not in back), 0.0)
    start = _length(found)
    sides = [[row for row in mine if row.part == part] for part in block.joined]
    for number, side in enumerate(sorted(sides, key=lambda side: -sum(row.each for row in side))):
        add(side, start, f"{side[0].part}-expert dies" if number and side else "")
    add(back, _length(found))
    windows = [(piece.start, piece.time) for piece in found if piece.row.timed.op.exchange is not None]
    stream = "beside" if block.overlapped and family.overlap == "cores" else "cores"
    return [*found, *_in_windows(beside, windows, stream)]


def _in_windows(rows: Sequence[Row], windows: Sequence[tuple[float, float]], stream: str) -> Iterator[_Piece]:
    """Yield rows cut to the exchanges that they run beside; what is longer than all of them ends after the last."""
    room = [*windows[:-1], *((start, float("inf")) for start, _ in windows[-1:])]
    for row in rows:
        left = row.each
        while left > 0:
            start, length = room.pop(0)
            taken = min(left, length)
            yield _Piece(row=row, stream=stream, start=start, time=taken)
            left -= taken
            if length > taken:
                room.insert(0, (start + taken, length - taken))


def _length(pieces: Sequence[_Piece]) -> float:
    return max((piece.start + piece.time for piece in pieces), default=0.0)


def _segments(lanes: Sequence[Sequence[_Piece]], block: Block, family: Family, summary: BlockTime) -> Iterator[Segment]:
    attention, experts = lanes
    each = summary.layer / block.passes
    for number in range(block.passes):
        begin = number * each
        match family.overlap if block.overlapped else "none":
            case "cores":  # while one micro-batch is in attention, the other is with the experts
                yield from _moved(attention, number, begin, summary.layer)
                yield from _moved(experts, number, begin + each, summary.layer)
            case "link":
                every = [*attention, *experts]
                for of_link in (False, True):
                    run = [piece for piece in every if (piece.row.timed.op.exchange is not None) == of_link]
                    yield from _moved(_closed_up(run), number, begin + of_link * each, summary.layer)
            case "stages":
                behind = _length(attention)
                yield from _moved(attention, number, begin, summary.layer)
                yield from _moved(experts, number, begin + behind, summary.layer)
                yield from _of_other_domains(experts, block, number, begin + behind, summary.layer)
            case _:
                yield from _moved(attention, number, begin, summary.layer)
                yield from _moved(experts, number, begin + _length(attention), summary.layer)


def _closed_up(pieces: Sequence[_Piece]) -> Iterator[_Piece]:
    """Yield pieces one right after the other, stream by stream."""
    clocks: dict[str, float] = {}
    for piece in pieces:
        start = clocks.get(piece.stream, 0.0)
        yield replace(piece, start=start)
        clocks[piece.stream] = start + piece.time


def _of_other_domains(
    experts: Sequence[_Piece], block: Block, number: int, begin: float, layer: float
) -> Iterator[Segment]:
    """Yield what the expert dies do for the other domains of attention dies, right after their work for this one."""
    mine = [piece for piece in experts if piece.stream == _DIES["experts"]]
    time = (as_float(block.domains) - 1) * sum(piece.time for piece in mine)
    if time > 0:
        yield from _wrapped(_DIES["experts"], number, OTHER_DOMAINS, begin + _length(mine), time, layer)


def _moved(pieces: Iterable[_Piece], number: int, begin: float, layer: float) -> Iterator[Segment]:
    for piece in pieces:
        yield from _wrapped(piece.stream, number, piece.row.name, begin + piece.start, piece.time, layer)


def _wrapped(stream: str, number: int, name: str, start: float, time: float, layer: float) -> Iterator[Segment]:
    """Yield a segment, cut in two where it reaches over the end of the layer."""
    start %= layer
    if start > layer * (1 - NOTHING):
        start = 0.0
    here = min(time, layer - start)
    yield Segment(stream=stream, micro_batch=number + 1, name=name, start=start, time=here)
    if time - here > NOTHING * layer:
        yield Segment(stream=stream, micro_batch=number + 1, name=name, start=0.0, time=time - here)


def _streams(segments: Sequence[Segment], summary: BlockTime, waits: Sequence[Row]) -> Iterator[Stream]:
    """Yield each stream; the busiest waits for what two lanes lose to each other, the others for it.

    Where streams take turns, each waits for all others; where messages hold a stage longer than its work, which is not
    drawn, all wait for them.
    """
    of_all = any(row.name == MESSAGES for row in waits)
    works: dict[str, float] = {}
    for segment in segments:
        works[segment.stream] = works.get(segment.stream, 0.0) + segment.time
    busiest = max(works, key=lambda stream: works[stream])
    for name, time in works.items():
        others = " and ".join(other for other in works if other != name)
        waits_for = others if summary.decides == "all" else busiest
        if waits and (of_all or name == busiest):
            waits_for = " and ".join(row.name for row in waits)
        idle = max(0.0, summary.layer - time)
        felt = idle > NOTHING * summary.layer
        yield Stream(name=name, works=time, waits=idle, waits_for=waits_for if felt else "")
