"""Time of one communication on the tiers of a machine."""

from typing import assert_never

from perfmodel.algebra import greater, maximum, minimum, total, where
from perfmodel.formulas import collectives as formulas
from perfmodel.formulas.experts import distinct_nodes, reachable_nodes
from perfmodel.formulas.kernels import overlapped_time, spilled_bytes
from perfmodel.ledger.records import Exchange
from perfmodel.specs.kernels import AllToAllKernel, BulkKernel, CollectiveKernel, MessageKernel
from perfmodel.supply.rates import Rates, TierRates
from perfmodel.units import BytesPerSecond, Count, Dimensionless, Fraction, Seconds


def exchange_time(exchange: Exchange, rates: Rates, *, alone: bool = False) -> Seconds:
    """Return the time of a communication on the machine's tiers; among one die it costs nothing.

    ``alone`` is how benchmarks run: nothing else works the die while messages are sent.
    """
    in_place = rates.combine_in_place if exchange.collective == "combine" else rates.dispatch_in_place
    time = _exchange_time(exchange, rates, 1.0 if alone else in_place)
    return where(greater(exchange.group, exchange.joined), time, 0.0 * time)


def handling_time(exchange: Exchange, rates: Rates) -> tuple[Seconds, Seconds]:
    """Return how long an exchange between stages holds the vector cores of a die with attention, and with experts."""
    kernel = rates.kernel(exchange.collective, MessageKernel)
    in_place = rates.combine_in_place if exchange.collective == "combine" else rates.dispatch_in_place
    leaving = 1 - minimum(exchange.group, rates.dies_per_package) / exchange.group
    attention, experts = (
        formulas.message_handling_time(
            messages=0.0 if messages is None else messages,
            leaving=leaving,
            per_message=kernel.per_message * in_place,
        )
        for messages in (exchange.attention_messages, exchange.expert_messages)
    )
    return attention, experts


def _exchange_time(exchange: Exchange, rates: Rates, in_place: Dimensionless) -> Seconds:
    kind = exchange.collective
    match kind:
        case "all_gather" | "reduce_scatter" | "all_reduce":
            return _collective(exchange, rates.kernel("collective", CollectiveKernel), rates)
        case "all_to_all":
            return _all_to_all(exchange, rates.kernel(kind, AllToAllKernel), rates)
        case "dispatch" | "combine":
            return _messages(exchange, rates.kernel(kind, MessageKernel), rates, in_place)
        case "bulk_dispatch" | "bulk_combine":
            return _bulk(exchange, rates.kernel(kind, BulkKernel), rates)
        case _:
            assert_never(kind)


def _bandwidth(
    tier: TierRates,
    inner: Count,
    group: Count,
    share: Fraction | None,
    package_share: Fraction | None,
    covers: tuple[str, ...],
) -> BytesPerSecond:
    """Return what one die may send at a tier: the share measured on its link, or the stack's where none was."""
    measured = package_share if tier.name == "package" else share
    rate = tier.bandwidth if measured is None or tier.link not in covers else tier.pin_bandwidth * measured
    if tier.fabric == "mesh":
        members = minimum(group, tier.dies) / minimum(group, inner)
        # a tier that joined dies fill has no peers left and carries nothing
        rate = formulas.mesh_bandwidth(bandwidth=rate, members=members, dies=maximum(tier.dies / inner, 2))
    return rate


def _collective(exchange: Exchange, kernel: CollectiveKernel, rates: Rates) -> Seconds:
    """AllGather, ReduceScatter or AllReduce, tier by tier: direct for small shards, in bulk beyond."""
    kind, group, shard = exchange.collective, exchange.group, exchange.payload
    reads, writes = int(kind != "reduce_scatter"), int(kind != "all_gather")
    rounds = reads + writes
    gathers = kind == "all_gather"
    last, first = (
        (kernel.gather_limit, kernel.gather_beyond) if gathers else (kernel.reduce_limit, kernel.reduce_beyond)
    )
    outer_last, outer_first = (
        (kernel.outer_gather_limit, kernel.outer_gather_beyond)
        if gathers
        else (kernel.outer_reduce_limit, kernel.outer_reduce_beyond)
    )
    small = minimum(shard, first)
    crossing = greater(group, rates.node_dies)

    inside: list[Seconds] = []  # time of one byte of shard
    outside: list[Seconds] = []
    pushed: list[Seconds] = []
    inner: Count = exchange.joined
    for tier in rates.tiers:
        outer = maximum(inner, tier.dies)  # a tier inside a joined set carries nothing
        received = formulas.phase_received_bytes(shard=1.0, group=group, inner=inner, outer=outer)
        read, write = (
            _bandwidth(tier, inner, group, share, kernel.package_share, kernel.covers)
            for share in (kernel.read_share, kernel.write_share)
        )
        phase = reads * formulas.link_time(payload=received, bandwidth=read)
        phase = phase + writes * formulas.link_time(payload=received, bandwidth=write)
        if tier.name in ("package", "node"):
            inside.append(phase)
            whole = formulas.one_shot_bytes(tensor=group, group=group, inner=inner, outer=outer)
            pushed.append(formulas.link_time(payload=whole, bandwidth=write))
        else:
            outside.append(phase)
        inner = outer
    per_byte = total(inside)
    of_one = rounds / kernel.pair_rate
    peers = minimum(group, rates.node_dies) - 1

    start = formulas.paired_start(start=kernel.start, per_pair=kernel.start_per_pair, group=group, node=rates.node_dies)
    copies = group / minimum(group, rates.node_dies) / kernel.peer_rate
    copies = reads * copies / kernel.read_share + writes * copies / kernel.write_share
    starts = where(crossing, rounds * start, start)
    direct = formulas.direct_time(start=starts, shard=small, copies=copies, links=per_byte)
    if kind == "all_reduce":
        slowest = pushed[0]
        for one in pushed[1:]:
            slowest = maximum(slowest, one)
        one_shot = formulas.direct_time(start=start, shard=small, copies=group / kernel.push_rate, links=slowest)
        direct = where(crossing, direct, minimum(direct, one_shot))
    steps = formulas.rounds_of(rounds=rounds, group=group)
    bulk_start = formulas.bulk_start(
        start=start,
        rounds=steps,
        per_round=kernel.bulk_start,
        per_peer=kernel.bulk_start_per_peer,
        peers=peers,
    )
    bulk = overlapped_time(first=bulk_start, second=shard * maximum(per_byte, of_one), hidden=kernel.bulk_overlap)
    in_bulk = formulas.switched_part(size=shard, last=last, first=first)
    inner_phase = formulas.expected_time(small=direct, large=maximum(bulk, direct), part=in_bulk)
    outer_bulk = formulas.switched_part(size=shard, last=outer_last, first=outer_first)
    outer_start = where(crossing, outer_bulk * (rounds * kernel.bulk_start), 0.0)
    return outer_start + overlapped_time(first=inner_phase, second=shard * total(outside), hidden=kernel.outer_overlap)


def _all_to_all(exchange: Exchange, kernel: AllToAllKernel, rates: Rates) -> Seconds:
    group, part = exchange.group, exchange.payload
    transfer: list[Seconds] = []
    inner: Count = 1
    for tier in rates.tiers:
        sent = formulas.one_shot_bytes(tensor=part, group=group, inner=inner, outer=tier.dies)
        rate = _bandwidth(tier, inner, group, kernel.link_share, kernel.package_share, kernel.covers)
        transfer.append(formulas.link_time(payload=sent, bandwidth=rate))
        inner = tier.dies
    start = formulas.doubling_start(start=kernel.start, per_doubling=kernel.start_per_doubling, group=group)
    spilled = spilled_bytes(activation=2 * part * group, l2_capacity=rates.l2_capacity)
    spill = kernel.spill_passes * spilled / rates.hbm_bandwidth
    return overlapped_time(first=start, second=total(transfer), hidden=kernel.overlap) + spill


def _slowest_link(
    exchange: Exchange, rates: Rates, share: Fraction | None, covers: tuple[str, ...], deduplicates: bool
) -> Seconds:
    """Time of the most loaded link for each message when they go to evenly spread destinations.

    Links know nothing of how many there are, so the number is left to the caller: it alone has most axes.
    With deduplication a token may cross between nodes once for each node that holds one of its experts;
    the node's dies then pass it on, so that every copy travels inside a node.  It is done where it pays.
    """
    group, node = exchange.group, minimum(exchange.group, rates.node_dies)
    straight = _load(exchange, rates, share, covers, between=1.0, spread=group)
    if not deduplicates:
        return straight
    once = _once_a_node(exchange, group / node)
    return minimum(straight, _load(exchange, rates, share, covers, between=once, spread=node))


def _once_a_node(exchange: Exchange, nodes: Count) -> Fraction:
    """Return the part of a token's copies that is left where each node that holds one of its experts gets one."""
    reached = reachable_nodes(nodes=nodes, n_group=exchange.n_group, topk_group=exchange.topk_group)
    limited = where(greater(exchange.n_group, exchange.topk_group), reached, nodes)
    return distinct_nodes(copies=exchange.copies, nodes=limited) / exchange.copies


def _load(
    exchange: Exchange,
    rates: Rates,
    share: Fraction | None,
    covers: tuple[str, ...],
    *,
    between: Fraction,
    spread: Count,
) -> Seconds:
    """Time of the most loaded kind of link for each message: a part crosses nodes, each goes among ``spread`` dies.

    Tiers of one kind of link (inside a node and across a supernode) go through the same ports of a die.
    """
    group = exchange.group
    inner: Count = 1
    loads: dict[str, Seconds] = {}
    for tier in rates.tiers:
        inside = tier.name in ("package", "node")
        crossing = formulas.crossing_share(group=spread if inside else group, inner=inner, outer=tier.dies)
        payload = (1.0 if inside else between) * exchange.payload * crossing
        rate = _bandwidth(tier, inner, group, share, share, covers)
        loads[tier.link] = loads.get(tier.link, 0.0) + formulas.link_time(payload=payload, bandwidth=rate)
        inner = tier.dies
    slowest: Seconds = 0.0
    for load in loads.values():
        slowest = maximum(slowest, load)
    return slowest


def _messages(exchange: Exchange, kernel: MessageKernel, rates: Rates, in_place: Dimensionless) -> Seconds:
    if kernel.between_start is not None and kernel.between_per_message is not None:
        return _message_phases(exchange, kernel, rates, in_place, kernel.between_start, kernel.between_per_message)
    leaving = 1 - minimum(exchange.group, rates.dies_per_package) / exchange.group
    return formulas.message_exchange_time(
        messages=exchange.messages * leaving,
        start=exchange.hops * kernel.start,
        per_message=kernel.per_message * in_place,
        transfer=exchange.messages * _slowest_link(exchange, rates, None, (), kernel.deduplicates),
    )


def _message_phases(
    exchange: Exchange,
    kernel: MessageKernel,
    rates: Rates,
    in_place: Dimensionless,
    between_start: Seconds,
    between_per_message: Seconds,
) -> Seconds:
    """Time of an exchange in two phases: between nodes once for each, then every copy inside its node."""
    group, node = exchange.group, minimum(exchange.group, rates.node_dies)
    nodes, payload = group / node, exchange.payload
    once = _once_a_node(exchange, nodes)
    outside = formulas.messages_between_nodes(messages=exchange.messages, once=once, nodes=nodes)
    inside = exchange.messages * (1 - minimum(group, rates.dies_per_package) / node)
    transfers: dict[bool, Seconds] = {True: 0.0, False: 0.0}
    inner: Count = 1
    for tier in rates.tiers:
        within = tier.name in ("package", "node")
        crossing = formulas.crossing_share(group=node if within else group, inner=inner, outer=tier.dies)
        sent = payload * exchange.messages * crossing * (1.0 if within else once)
        taken = formulas.link_time(payload=sent, bandwidth=_bandwidth(tier, inner, group, None, None, ()))
        transfers[within] = maximum(transfers[within], taken)
        inner = tier.dies
    first, second = (
        formulas.message_exchange_time(
            messages=messages, start=exchange.hops * start, per_message=each * in_place, transfer=transfer
        )
        for messages, start, each, transfer in (
            (outside, between_start, between_per_message, transfers[False]),
            (inside, kernel.start, kernel.per_message, transfers[True]),
        )
    )
    return where(greater(nodes, 1), first, 0.0) + second


def _bulk(exchange: Exchange, kernel: BulkKernel, rates: Rates) -> Seconds:
    slowdown = formulas.peer_slowdown(group=exchange.group, peers_at_half=kernel.peers_at_half)
    slowest = _slowest_link(exchange, rates, kernel.link_share, kernel.covers, kernel.deduplicates)
    return kernel.start + exchange.messages * (slowdown * slowest)
