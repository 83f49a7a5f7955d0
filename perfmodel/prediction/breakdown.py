"""Where one step's time goes: each row's time, its lane, and whether that lane decides."""

from dataclasses import dataclass, replace
from typing import Any

from perfmodel.algebra import as_float
from perfmodel.ledger.records import Block, Family, Ledger, Op
from perfmodel.supply.rates import Rates
from perfmodel.timing.operators import OpTime, time_op
from perfmodel.timing.step import (
    PartTime,
    core_shares,
    gap_and_overhead,
    join,
    lane_times,
    lanes,
    layer_time,
    on_the_die,
    prefetched_beside,
    prefetched_time,
    site_factor,
    staged_parts,
    time_part,
)
from perfmodel.units import Count

WAITS = "waits"  # the part of what lanes lose to each other
NOTHING = 1e-9  # relative; below it a difference of times is rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One operator of one block over a whole step; times in seconds of plain numbers."""

    block: str
    part: str
    name: str
    lane: str
    runs: float
    timed: OpTime
    total: float
    decides: bool
    ideal_total: float

    @property
    def each(self) -> float:
        """Time of one run."""
        return self.total / self.runs


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockTime:
    """One block over a whole step; ``slack`` is what the lane that does not decide has to spare."""

    name: str
    count: float
    layer: float
    total: float
    attention: float
    experts: float
    link: float
    slack: float
    prefetched: float
    #: time that a second micro-batch saves on weights it finds in L2
    reused: float
    #: time of rows that ran beside an exchange or in one kernel with it
    hidden: float
    decides: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakdown:
    """All rows and blocks of a step; deciding rows and the overhead add up to the step time."""

    rows: tuple[Row, ...]
    blocks: tuple[BlockTime, ...]
    gaps: float
    #: time that weights brought to L2 ahead take off the rows
    prefetched: float
    #: time that second micro-batches save on weights they find in L2
    reused: float
    #: time of rows that ran beside an exchange or in one kernel with it
    hidden: float
    overhead: float
    #: block that most layers are
    main_layer: str
    #: what a step takes longer at the user's site than all of these; less than nothing where it is shorter
    site: float
    step_time: float

    def outside(self) -> dict[str, float]:
        """Return by name what the step has beside its rows, and what is taken off them; only what is not nothing."""
        named = {
            "gaps between operators": self.gaps,
            "prefetched weights": -self.prefetched,
            "weights still in L2": -self.reused,
            "work beside exchanges": -self.hidden,
            "host, launch, sampling": self.overhead,
            "measured at the site": self.site,
        }
        return {name: time for name, time in named.items() if abs(time) > NOTHING * self.step_time}

    def by_operator(self) -> dict[str, float]:
        """Return the time of each operator over all blocks where it decides, with what is outside: the step's sum."""
        times: dict[str, float] = {}
        for row in self.rows:
            if row.decides:
                times[row.name] = times.get(row.name, 0.0) + row.total
        return times | self.outside()

    def of_layer(self, name: str) -> "Breakdown":
        """Return one layer of one block as if it were the step: all its micro-batches, gaps and overhead left out.

        Raises ``KeyError`` where no block has the name.
        """
        found = {block.name: block for block in self.blocks}[name]
        each = 1 / found.count
        rows = (row for row in self.rows if row.block == name)
        return Breakdown(
            rows=tuple(
                replace(row, runs=row.runs * each, total=row.total * each, ideal_total=row.ideal_total * each)
                for row in rows
            ),
            blocks=(
                replace(
                    found,
                    count=1.0,
                    total=found.layer,
                    prefetched=found.prefetched * each,
                    reused=found.reused * each,
                    hidden=found.hidden * each,
                ),
            ),
            gaps=0.0,
            prefetched=found.prefetched * each,
            reused=found.reused * each,
            hidden=found.hidden * each,
            overhead=0.0,
            main_layer=name,
            site=0.0,
            step_time=found.layer,
        )


def _deciding_lane(block: Block, family: Family, attention: PartTime, experts: PartTime, rates: Rates) -> str:
    if not block.overlapped or family.overlap == "none":
        return "all"
    if family.overlap == "cores":
        first, second, first_saved, second_saved = map(as_float, lane_times(attention, experts))
        return "attention" if 2 * first - first_saved >= 2 * second - second_saved else "experts"
    if family.overlap == "stages":
        return _deciding_stage(block, attention, experts, rates)
    busy, link = as_float(attention.busy + experts.busy), as_float(attention.link + experts.link)
    return "compute" if busy >= link else "link"


def _deciding_stage(block: Block, attention: PartTime, experts: PartTime, rates: Rates) -> str:
    first, second = map(as_float, staged_parts(attention, experts, rates))
    stages = {
        "attention": block.passes * first,
        "experts": block.passes * as_float(block.domains) * second,
        "all": as_float(attention.whole + experts.whole),
    }
    return max(stages, key=lambda name: stages[name])


def _messages_of(
    deciding: str, block: Block, family: Family, attention: PartTime, experts: PartTime, rates: Rates
) -> float:
    """Return what messages add to a micro-batch of the stage that decides, all domains of it included."""
    if not (family.disaggregated and block.overlapped) or deciding == "all":
        return 0.0
    first, second = map(as_float, staged_parts(attention, experts, rates))
    if deciding == "attention":
        return first - as_float(attention.whole)
    return as_float(block.domains) * (second - as_float(experts.busy))


def _losing_part(ledger: Ledger, block: Block, rates: Rates, share: Any) -> str | None:
    """Return the joined part that waits for the other, if the block joins two."""
    if not block.joined:
        return None
    times = {name: as_float(time_part(ledger.parts[name], rates, share).busy) for name in block.joined}
    return min(times, key=lambda name: times[name]) if len(set(times.values())) > 1 else block.joined[1]


def _decides(op: Op, lane: str, deciding: str, family: Family) -> bool:
    if family.disaggregated and deciding == "experts":  # exchanges pass while the expert dies work
        return lane == deciding and op.exchange is None
    match deciding:
        case "all":
            return True
        case "compute" | "link":
            return (op.exchange is not None) == (deciding == "link")
        case _:
            return lane == deciding


def _wait_of(deciding: str, family: Family) -> str:
    """Return what a layer waits for on its dies beyond its deciding lane."""
    if family.disaggregated:
        return "experts.other_domains"
    return "memory.contention" if deciding in ("attention", "experts") else "link.contention"


HOST = "host.launches"
MESSAGES = "stage.messages"
#: which roof of a row holds the time of a wait
ROOFS = {
    "experts.other_domains": "whole_compute",
    "memory.contention": "stream_time",
    "link.contention": "network_time",
    MESSAGES: "network_time",
    HOST: "fixed_time",
}


def _waiting(name: str, block: Block, lane: str, runs: float, waiting: float) -> Row:
    """Return the time that two lanes lose to each other, or to the host."""
    op = Op(name=name, operator="vector", engine="vector", kernels=0)
    roof: dict[str, Any] = {ROOFS[name]: waiting}
    timed = OpTime(op=op, work=0.0 if name == HOST else waiting, **roof)
    return Row(
        block=block.name,
        part=WAITS,
        name=op.name,
        lane=lane,
        runs=runs,
        timed=timed,
        total=runs * waiting,
        decides=True,
        ideal_total=0.0,
    )


def runs_of(ledger: Ledger, block: Block) -> Count:
    """Return how often the rows of a block run in a step."""
    return ledger.steps * block.count * block.passes


def _block_rows(
    ledger: Ledger, block: Block, family: Family, cores: Any, rates: Rates, ideal: Rates
) -> tuple[list[Row], BlockTime]:
    shares = core_shares(block, family, cores, rates)
    attention, experts = lanes(ledger, block, family, cores, rates)
    layer = as_float(layer_time(block, family, attention, experts, rates))
    deciding = _deciding_lane(block, family, attention, experts, rates)
    losing = _losing_part(ledger, block, rates, shares[1])
    runs = as_float(runs_of(ledger, block))
    rows = []
    lanes_of = [("attention", part, shares[0]) for part in block.attention]
    lanes_of += [("experts", part, shares[1]) for part in (*block.experts, *block.joined, *block.beside)]
    for lane, part, share in lanes_of:
        for op in ledger.parts[part]:
            timed = time_op(op, rates, share)
            if not as_float(timed.time):  # an exchange among one
                continue
            rows.append(
                Row(
                    block=block.name,
                    part=part,
                    name=op.name,
                    lane=lane,
                    runs=runs,
                    timed=timed,
                    total=runs * as_float(timed.time),
                    decides=part != losing and _decides(op, lane, deciding, family),
                    ideal_total=runs * as_float(time_op(op, ideal, 1.0).time),
                )
            )
    both = join([attention, experts])
    beside = family.overlap == "cores" and block.overlapped
    ahead = 0.0 if block.overlapped else as_float(prefetched_time(attention, experts))
    if beside and deciding == "attention":
        ahead = sum(map(as_float, prefetched_beside(attention, experts))) / block.passes
    deciding_time = {
        "all": as_float(both.whole) - ahead,
        "attention": as_float(attention.whole) - ahead,
        "experts": as_float(experts.busy if family.disaggregated else experts.whole),
        "compute": as_float(both.busy),
        "link": as_float(both.link),
    }[deciding]
    on_die = as_float(on_the_die(block, family, attention, experts, rates))
    lost = on_die / block.passes - deciding_time
    # what a lane saves while it waits for the other is no time of the layer
    saved = {"attention": attention.saved, "experts": experts.saved, "compute": both.saved}.get(deciding, 0.0)
    reused = max(0.0, min(-lost, as_float(saved) / block.passes))
    handled = _messages_of(deciding, block, family, attention, experts, rates)
    waits = {MESSAGES: handled, _wait_of(deciding, family): lost - handled, HOST: (layer - on_die) / block.passes}
    rows += [
        _waiting(name, block, deciding, runs, waiting) for name, waiting in waits.items() if waiting > NOTHING * layer
    ]
    lanes_apart = as_float(attention.whole) - as_float(experts.whole)
    if family.disaggregated and block.overlapped:
        first, second = map(as_float, staged_parts(attention, experts, rates))
        lanes_apart = first - as_float(block.domains) * second
    spare = {
        "all": 0.0,
        "attention": max(0.0, on_die / block.passes - as_float(experts.whole)) if beside else lanes_apart,
        "experts": max(0.0, on_die / block.passes - as_float(attention.whole)) if beside else -lanes_apart,
        "compute": as_float(both.busy) - as_float(both.link),
        "link": as_float(both.link) - as_float(both.busy),
    }[deciding]
    summary = BlockTime(
        name=block.name,
        count=as_float(ledger.steps) * as_float(block.count),
        layer=layer,
        total=as_float(ledger.steps) * as_float(block.count) * layer,
        attention=block.passes * as_float(attention.whole),
        experts=block.passes * as_float(experts.whole),
        link=block.passes * as_float(both.link),
        slack=block.passes * spare,
        prefetched=runs * ahead,
        reused=runs * reused,
        # micro-batches in stages overlap each other even where the way through decides
        hidden=runs
        * ((as_float(experts.hidden) if deciding in ("all", "experts", "link") else 0.0) + max(0.0, -lost - reused)),
        decides=deciding,
    )
    return rows, summary


def main_layer(parts: Breakdown) -> BlockTime:
    """Return the block that most layers are; one with experts, where any has them."""
    return next(block for block in parts.blocks if block.name == parts.main_layer)


def breakdown(ledger: Ledger, family: Family, attention_cores: Any, rates: Rates, ideal: Rates) -> Breakdown:
    """Return every row and block of a step of plain numbers.

    ``ideal`` are the rates of the same machine with all efficiencies 1 and no fixed costs: the
    speed of light of each row.
    """
    rows: list[Row] = []
    blocks: list[BlockTime] = []
    for block in ledger.blocks:
        if not as_float(block.count):
            continue
        more, summary = _block_rows(ledger, block, family, attention_cores, rates, ideal)
        rows += more
        blocks.append(summary)
    gap, overhead = map(as_float, gap_and_overhead(family, ledger.draft, rates))
    overhead = as_float(ledger.steps) * overhead
    layers = sum(block.total for block in blocks)
    alone, site = gap * layers + overhead, as_float(site_factor(family, rates))
    return Breakdown(
        rows=tuple(rows),
        blocks=tuple(blocks),
        gaps=(gap - 1) * layers,
        prefetched=sum(block.prefetched for block in blocks),
        reused=sum(block.reused for block in blocks),
        hidden=sum(block.hidden for block in blocks),
        overhead=overhead,
        main_layer=ledger.main_layer,
        site=(site - 1) * alone,
        step_time=site * alone,
    )


def on_the_mean_rank(
    busiest: Ledger, mean: Ledger, family: Family, attention_cores: Any, rates: Rates
) -> dict[str, float]:
    """Return the time of each operator of a serial step as a profile of a rank of mean load shows it.

    Such a rank waits for the busiest attention inside dispatch and for the busiest experts inside combine:
    each wait is the lane's time on its busiest rank less that on the mean rank, counted once, and all rows
    with the overhead add up to the step time of the busiest rank but for what prefetching takes off and a site adds.
    """
    if family.overlap != "none":
        raise ValueError("a profile shows its waits inside the exchanges only where layers run serially")
    gap, overhead = map(as_float, gap_and_overhead(family, busiest.draft, rates))
    times: dict[str, float] = {}
    waits = {"attention": 0.0, "experts": 0.0}
    for ledger, sign in ((busiest, 1.0), (mean, -1.0)):
        parts = breakdown(ledger, family, attention_cores, rates, rates)
        for block in parts.blocks:
            waits["attention"] += sign * block.count * block.attention
            waits["experts"] += sign * block.count * block.experts
    for row in parts.rows:
        if row.decides:
            times[row.name] = times.get(row.name, 0.0) + gap * row.total
    for lane, name in (("attention", "exchange.dispatch"), ("experts", "exchange.combine")):
        times[name] = times.get(name, 0.0) + gap * waits[lane]
    return {**times, "overhead": overhead}


def layer_on_the_mean_rank(
    busiest: Ledger, mean: Ledger, family: Family, attention_cores: Any, rates: Rates
) -> tuple[dict[str, float], float]:
    """Return the time of each row of an expert layer of one micro-batch on ranks of mean load, and their wait.

    They wait for the experts of the busiest rank, inside the exchange that follows.
    """
    block = next(block for block in mean.blocks if block.name == mean.main_layer)
    times: dict[str, float] = {}
    for ledger in (mean, busiest):
        rows, _ = _block_rows(ledger, block, family, attention_cores, rates, rates)
        losing = _losing_part(ledger, block, rates, 1.0)
        lost = {op.name for op in ledger.parts[losing]} if losing else set()
        here = {row.name: row.total / row.runs for row in rows}
        experts = sum(row.total / row.runs for row in rows if row.lane == "experts" and _works(row, lost))
        if not times:
            times, before = here, experts
    return times, max(0.0, experts - before)


def _works(row: Row, lost: set[str]) -> bool:
    return row.timed.op.exchange is None and row.part != WAITS and row.name not in lost
