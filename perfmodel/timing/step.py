"""Rows -> parts -> lanes -> blocks -> one step."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import assert_never

from perfmodel.algebra import Sum, greater, maximum, minimum, total, where
from perfmodel.formulas import roofline
from perfmodel.formulas.kernels import core_stream_rate, overlapped_time, reused_share
from perfmodel.ledger.records import Block, Family, Ledger, Op
from perfmodel.supply.rates import Rates
from perfmodel.timing.exchanges import handling_time
from perfmodel.timing.operators import ALL_KEPT, NOTHING_KEPT, WHOLE, OpTime, time_op
from perfmodel.units import Bytes, Count, Dimensionless, Fraction, Seconds


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartTime:
    """Time of a part: on the die's cores and on its links; ``hbm`` is what memory alone would need.

    Of a block of two micro-batches it is that of the first, which reads all weights; ``saved`` is what the second
    needs less, ``hbm`` the mean of both.

    ``hidden`` is what busy and link are shorter than their rows, ``launches`` the kernels a host starts.
    ``spared`` is what its busy time loses when weights known in advance wait in L2, ``spared_again`` that of a second
    micro-batch, ``window`` the time of its last exchange, in which those of the next part can be brought there.
    ``taken`` is the part of the pins that its last product with weights takes while it streams on its cores.
    """

    busy: Seconds
    link: Seconds
    hbm: Seconds
    spared: Seconds = 0.0
    window: Seconds = 0.0
    hidden: Seconds = 0.0
    launches: Count = 0.0
    saved: Seconds = 0.0
    spared_again: Seconds = 0.0
    taken: Fraction = 0.0
    #: messages between stages on the vector cores of a die with attention, and of one with experts
    attention_messages: Seconds = 0.0
    expert_messages: Seconds = 0.0

    @property
    def whole(self) -> Seconds:
        """Both, one after the other."""
        return self.busy + self.link


def time_part(
    ops: Iterable[Op], rates: Rates, core_share: Fraction = WHOLE, reused: Fraction = NOTHING_KEPT
) -> PartTime:
    """Return the time of a part's rows, one after the other.

    ``reused`` is the part of its weights that a second micro-batch finds in L2.
    """

    def again(row: OpTime) -> OpTime:
        return time_op(row.op, rates, core_share, kept=reused)

    # two lanes share the pins only where each has a share of the cores
    return add_rows(
        (time_op(op, rates, core_share) for op in ops),
        rates,
        alone=core_share is WHOLE,
        again=None if reused is NOTHING_KEPT else again,
    )


def without_weights(row: OpTime, rates: Rates) -> OpTime:
    """Return a row timed again with its weights in L2 already, from where the cores still have to read them."""
    return time_op(row.op, rates, row.core_share, kept=ALL_KEPT)


def work_of(row: OpTime) -> Seconds:
    """Return the time of a row without its fixed cost, on a mesh of core splits too."""
    return row.work if row.whole_work is None else row.whole_work / row.core_share


def pins_taken(row: OpTime, rates: Rates) -> Fraction:
    """Return the part of what the pins give all cores that a row's share of the cores can stream."""
    rate = core_stream_rate(
        bandwidth=row.whole_rate, share=1.0, core_bandwidth=rates.core_stream, core_share=row.core_share
    )
    return rate / row.whole_rate


def add_rows(
    rows: Iterable[OpTime],
    rates: Rates,
    *,
    alone: bool,
    light: Callable[[OpTime, Rates], OpTime] = without_weights,
    again: Callable[[OpTime], OpTime] | None = None,
    taken: Callable[[OpTime, Rates], Fraction] = pins_taken,
) -> PartTime:
    """Return the time of timed rows, one after the other, ``alone`` on the die's cores or on a share of them.

    ``light`` times a row whose weights wait in L2, ``again`` one that a second micro-batch finds partly there,
    ``taken`` gives the part of the pins that a row takes.
    Each row is added and forgotten: on a grid, rows kept until the end would not stay in the caches.
    """
    busy, link, hbm, launches, whole, saved, whole_saved = (Sum() for _ in range(7))
    here, there = Sum(), Sum()
    share: Fraction = WHOLE
    ahead: list[tuple[OpTime, OpTime]] = []
    window: Seconds = 0.0
    streams: OpTime | None = None
    for row in rows:
        op = row.op
        if row.whole_work is not None:
            whole.add(row.whole_work)
            busy.add(row.fixed_time)
            share = row.core_share
        elif op.exchange is None:
            busy.add(row.work)
            busy.add(row.fixed_time)
        else:
            link.add(row.work)
            window = row.work
            if op.exchange.expert_messages is not None:
                of_attention, of_experts = handling_time(op.exchange, rates)
                here.add(of_attention)
                there.add(of_experts)
        second = row
        if reuses(op):
            streams = row
        if again is not None and reuses(op):
            second = again(row)
            if row.whole_work is not None and second.whole_work is not None:
                whole_saved.add(row.whole_work - second.whole_work)
            else:
                saved.add(row.work - second.work)
        if not alone:
            hbm.add(row.hbm_time if second is row else (row.hbm_time + second.hbm_time) / 2)
        if op.prefetched and rates.weight_prefetch:
            ahead.append((row, second))
        if rates.eager or rates.eager_prefill:
            launches.add(op.kernels if op.exchange is None else where(greater(op.exchange.group, 1), 1, 0))
    if share is not WHOLE:
        busy.add(whole.value() / share)
        saved.add(whole_saved.value() / share)
    quick = [light(row, rates) for row, _ in ahead]
    spared = _spared([(row, less) for (row, _), less in zip(ahead, quick, strict=True)], rates)
    if again is None:
        spared_again = spared
    else:
        spared_again = _spared([(second, less) for (_, second), less in zip(ahead, quick, strict=True)], rates)
    return PartTime(
        busy=busy.value(),
        link=link.value(),
        hbm=hbm.value(),
        spared=spared,
        spared_again=spared_again,
        taken=0.0 if alone or streams is None else taken(streams, rates),
        window=window,
        launches=launches.value(),
        saved=saved.value(),
        attention_messages=here.value(),
        expert_messages=there.value(),
    )


def reuses(op: Op) -> bool:
    """Return whether a row is a product with weights, which a second micro-batch reads again."""
    return op.exchange is None and "matmul" in op.operator


def reused_weights(ledger: Ledger, block: Block, family: Family, rates: Rates) -> Fraction:
    """Return the part of a block's weights that its second micro-batch finds in L2; none where a block has but one.

    An activation is written by one row and read by the next, so passes once where rows count it twice.  Left out of
    it are blocks in stages, whose attention dies read the same weights for each micro-batch too: errs slow there.
    """
    if not (block.overlapped and family.overlap in ("cores", "link")):
        return NOTHING_KEPT
    parts = [ledger.parts[name] for name in (*block.attention, *block.experts, *block.beside)]
    weights, passing = _weights_and_passing(op for part in parts for op in part)
    if block.joined:
        (one, beside), (other, passing_other) = (_weights_and_passing(ledger.parts[name]) for name in block.joined)
        weights, passing = weights + maximum(one, other), passing + maximum(beside, passing_other)
    return reused_share(weights=weights, passing=passing, l2_capacity=rates.l2_capacity)


def _weights_and_passing(ops: Iterable[Op]) -> tuple[Bytes, Bytes]:
    weights, passing = Sum(), Sum()
    for op in ops:
        if reuses(op):
            weights.add(op.weight_bytes)
        passing.add(op.kv_bytes + op.activation_bytes / 2)
    return weights.value(), passing.value()


def _spared(ahead: list[tuple[OpTime, OpTime]], rates: Rates) -> Seconds:
    """Return what rows save, timed with and without their weights, when L2 holds as many of these as it can."""
    if not ahead:
        return 0.0
    saved = total(work_of(row) - work_of(light) for row, light in ahead)
    weights = total(row.op.weight_bytes for row, _ in ahead)
    return saved * minimum(1.0, rates.l2_capacity / maximum(weights, 1.0))


def join(parts: Iterable[PartTime]) -> PartTime:
    """Parts one after the other on one die."""
    parts = list(parts)
    return PartTime(
        busy=total(part.busy for part in parts),
        link=total(part.link for part in parts),
        hbm=total(part.hbm for part in parts),
        spared=total(part.spared for part in parts),
        spared_again=total(part.spared_again for part in parts),
        taken=parts[-1].taken if parts else 0.0,
        window=total(part.window for part in parts),
        hidden=total(part.hidden for part in parts),
        launches=total(part.launches for part in parts),
        saved=total(part.saved for part in parts),
        attention_messages=total(part.attention_messages for part in parts),
        expert_messages=total(part.expert_messages for part in parts),
    )


def slower(first: PartTime, second: PartTime) -> PartTime:
    """Parts on different ranks at the same time: the slower decides."""
    busy = maximum(first.busy, second.busy)
    return PartTime(
        busy=busy,
        link=maximum(first.link, second.link),
        hbm=maximum(first.hbm, second.hbm),
        launches=maximum(first.launches, second.launches),
        saved=busy - maximum(first.busy - first.saved, second.busy - second.saved),
    )


def lanes(
    ledger: Ledger, block: Block, family: Family, attention_cores: Count, rates: Rates
) -> tuple[PartTime, PartTime]:
    """Return the attention lane and the experts lane of a block for one micro-batch."""
    attention_share, experts_share = core_shares(block, family, attention_cores, rates)
    shares = dict.fromkeys(block.attention, attention_share)
    reused = reused_weights(ledger, block, family, rates)
    return lanes_of(block, lambda name: time_part(ledger.parts[name], rates, shares.get(name, experts_share), reused))


def lanes_of(block: Block, timed: Callable[[str], PartTime]) -> tuple[PartTime, PartTime]:
    """Return the lanes of a block for one micro-batch, from the time of each of its parts."""
    attention = join(timed(name) for name in block.attention)
    parts = [timed(name) for name in block.experts]
    if block.joined:
        first, second = (timed(name) for name in block.joined)
        parts.append(slower(first, second))
    experts = join(parts)
    if block.fused:
        experts = _hide(experts, join(parts[-len(block.fused) :]).busy)
    if block.beside:
        shared = join(timed(name) for name in block.beside)
        experts = _hide(join([experts, shared]), shared.busy)
    return attention, experts


def _hide(part: PartTime, work: Seconds) -> PartTime:
    """Return a part of which some work runs during its exchanges: they last until the longer of both ends.

    Source: max of the two in place of their sum; no fill and no contention, so errs low.
    """
    hidden = minimum(part.link, work)
    left = part.link - hidden  # weights can be brought ahead only while nothing else reads memory
    return replace(part, link=left, window=minimum(part.window, left), hidden=part.hidden + hidden)


def core_shares(block: Block, family: Family, attention_cores: Count, rates: Rates) -> tuple[Fraction, Fraction]:
    """Return the share of the cores that each lane of a block runs on."""
    if family.overlap == "cores" and block.overlapped:
        share = attention_cores / rates.cube_cores
        return share, 1 - share
    return WHOLE, WHOLE


def prefetched_time(attention: PartTime, experts: PartTime) -> Seconds:
    """Return what an attention saves by weights brought to L2 during the exchange that ends the layer before it.

    Source: counting; the technique is named in the seed deployment's report.
    """
    return minimum(attention.spared, experts.window)


def prefetched_beside(attention: PartTime, experts: PartTime) -> tuple[Seconds, Seconds]:
    """Return what weights brought ahead save the attentions of a first and a second micro-batch, lanes side by side.

    As ``prefetched_time``, but while the exchange that ends its layer runs, the attention of the other micro-batch
    comes to its own end, a product that streams at all its cores can: what these leave of the pins is what can be
    brought ahead.  Source: counting; errs slow where that product is not what runs then.
    """
    window = (1 - attention.taken) * experts.window
    return minimum(attention.spared, window), minimum(attention.spared_again, window)


def lane_times(attention: PartTime, experts: PartTime) -> tuple[Seconds, Seconds, Seconds, Seconds]:
    """Return the time of either lane for the first micro-batch, and what each saves on the second."""
    ahead, again = prefetched_beside(attention, experts)
    return attention.whole - ahead, experts.whole, attention.saved + again - ahead, experts.saved


def layer_time(block: Block, family: Family, attention: PartTime, experts: PartTime, rates: Rates) -> Seconds:
    """Return the time of one layer of a block, all its micro-batches included.

    A host that starts every kernel by itself may need longer than the die.
    """
    time = on_the_die(block, family, attention, experts, rates)
    if rates.eager or (rates.eager_prefill and family.phase == "prefill"):
        apart = family.disaggregated and block.overlapped  # dies of either kind have hosts of their own
        several = maximum if apart else _sum
        return maximum(time, block.passes * rates.kernel_launch * several(attention.launches, experts.launches))
    return time


def staged_parts(attention: PartTime, experts: PartTime, rates: Rates) -> tuple[Seconds, Seconds]:
    """Return how long a micro-batch holds a die with attention, and one with experts, messages included."""
    first, second = (
        roofline.stage_time(work=work, messages=messages, hidden=rates.link_hidden)
        for work, messages in (
            (attention.whole, experts.attention_messages),
            (experts.busy, experts.expert_messages),
        )
    )
    return first, second


def _sum(a: Count, b: Count) -> Count:
    return a + b


def on_the_die(block: Block, family: Family, attention: PartTime, experts: PartTime, rates: Rates) -> Seconds:
    """Return the time of one layer as the dies alone need it, whatever the host."""
    if not block.overlapped:
        serial = roofline.serial_time(first=attention.whole, second=experts.whole)
        return block.passes * (serial - prefetched_time(attention, experts))
    match family.overlap:
        case "cores":
            first, second, first_saved, second_saved = lane_times(attention, experts)
            return roofline.two_stream_time(
                first=first,
                second=second,
                shared=attention.hbm + experts.hbm,
                first_saved=first_saved,
                second_saved=second_saved,
            )
        case "link":
            return 2 * overlapped_time(
                first=attention.busy + experts.busy - (attention.saved + experts.saved) / 2,
                second=attention.link + experts.link,
                hidden=rates.link_hidden,
            )
        case "stages":
            first, second = staged_parts(attention, experts, rates)
            way = attention.whole + experts.busy + experts.link
            return roofline.staged_time(
                micro_batches=block.passes,
                domains=block.domains,
                first=first,
                second=second,
                way=way,
            )
        case "none":
            raise AssertionError("an overlapped block in a serial family")
        case _:
            assert_never(family.overlap)


def gap_and_overhead(family: Family, draft: Count, rates: Rates) -> tuple[Dimensionless, Seconds]:
    """Return what a phase's layers take over the sum of their operators, and the time outside them."""
    if family.phase == "decode":
        return rates.decode_gap, rates.decode_overhead + draft * rates.draft_overhead
    return rates.prefill_gap, rates.prefill_overhead


def site_factor(family: Family, rates: Rates) -> Dimensionless:
    """Return the time of a phase's steps at the user's site over what operators, gaps and overhead add up to."""
    known = rates.decode_site if family.phase == "decode" else rates.prefill_site
    return 1 if known is None else known


def step_time(ledger: Ledger, family: Family, attention_cores: Count, rates: Rates) -> Seconds:
    """Return the time of one step: all blocks and the overhead outside them."""

    def layer(block: Block) -> Seconds:
        attention, experts = lanes(ledger, block, family, attention_cores, rates)
        return layer_time(block, family, attention, experts, rates)

    return add_layers(ledger, family, rates, layer)


def add_layers(ledger: Ledger, family: Family, rates: Rates, layer: Callable[[Block], Seconds]) -> Seconds:
    r"""Return the time of one step from that of a layer of each block.

    .. math:: t = f_\mathrm{site} (t_\mathrm{overhead} + g \sum_b n_b t_b)

    Equal layers are timed once, and counts, gap and overhead meet before they meet a layer's time: of all
    quantities it alone has every axis.
    """
    gap, overhead = gap_and_overhead(family, ledger.draft, rates)
    steps = ledger.steps * site_factor(family, rates)
    counts: dict[tuple[object, ...], Count] = {}
    timed: dict[tuple[object, ...], Seconds] = {}
    for block in ledger.blocks:
        key = (block.attention, block.experts, block.joined, block.beside, block.fused, block.overlapped, block.passes)
        if key not in timed:
            timed[key] = layer(block)
        counts[key] = counts.get(key, 0) + block.count
    times = (steps * gap * counts[key] * time for key, time in timed.items())
    return total([steps * overhead, *times])
