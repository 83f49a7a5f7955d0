"""Time of collectives and expert exchanges, as seen by one die."""

from perfmodel.algebra import log, maximum, minimum
from perfmodel.units import Bytes, BytesPerSecond, Count, Dimensionless, Fraction, PerByte, Seconds


def phase_received_bytes(*, shard: Bytes, group: Count, inner: Count, outer: Count) -> Bytes:
    r"""Bytes a die receives at one tier of a hierarchical AllGather, outermost tier first.

    .. math:: b = w\,\frac{n}{\min(n, o)}\,\left(\frac{\min(n, o)}{\min(n, i)} - 1\right)

    with tier sizes i (inside) and o (this tier), group n and shard w: what already arrived over the
    outer tiers is passed on.  A ReduceScatter runs the same phases backwards.
    Source: [thakur2005] section 4.1, applied tier by tier.

    Four nodes of eight: three shards over the outer tier, then 7 x 4 over the inner one.

    >>> phase_received_bytes(shard=1.0, group=32, inner=8, outer=1024)
    3.0
    >>> phase_received_bytes(shard=1.0, group=32, inner=1, outer=8)
    28.0
    """
    at_this = minimum(group, outer)
    return shard * (group / at_this) * (at_this / minimum(group, inner) - 1)


def crossing_share(*, group: Count, inner: Count, outer: Count) -> Fraction:
    r"""Share of evenly spread messages whose destination lies at one tier and not inside it.

    .. math:: f = \frac{\min(n, o) - \min(n, i)}{n}

    Source: counting.

    >>> crossing_share(group=320, inner=16, outer=768)
    0.95
    """
    return (minimum(group, outer) - minimum(group, inner)) / group


def link_time(*, payload: Bytes, bandwidth: BytesPerSecond) -> Seconds:
    """Time a payload occupies a link.

    Source: definition.

    >>> link_time(payload=1e9, bandwidth=25e9)
    0.04
    """
    return payload / bandwidth


def paired_start(*, start: Seconds, per_pair: Seconds, group: Count, node: Count) -> Seconds:
    r"""Start of one round of a collective: a call, and flags between all pairs of dies inside a node.

    .. math:: t = t_0 + t_p\,m\,(m - 1), \quad m = \min(n, N)

    Each die of a node of N raises and reads a flag of each other, through ports they share; between nodes
    no flag was seen to cost.  Source: alpha-beta model, [thakur2005] section 3, with the start measured at
    2 to 32 dies, see ``docs/accuracy.md``; the form is ours.  Assumed of more than two nodes, where it may
    be too short.

    >>> f"{paired_start(start=3.4e-6, per_pair=60e-9, group=32, node=16) * 1e6:.1f} us"
    '17.8 us'
    """
    members = minimum(group, node)
    return start + per_pair * members * (members - 1)


def switched_part(*, size: Bytes, last: Bytes, first: Bytes) -> Fraction:
    r"""Chance that a call of a size runs the algorithm for large ones.

    .. math:: P = \min\!\left(1, \max\!\left(0, \frac{w - w_0}{w_1 - w_0}\right)\right)

    The library changes algorithm at a size that measurements bracket: ``last`` still ran the small one,
    ``first`` the large one.  The size of the change is as likely anywhere between, so that times are
    expectations and have no step.  Ends that are equal are taken a byte apart.  Source: counting; one call in
    the bracket is faster or slower than that by up to the difference of the algorithms.

    >>> switched_part(size=96, last=64, first=128)
    0.5
    """
    return minimum(1, maximum(0, (size - last) / maximum(first - last, 1)))


def expected_time(*, small: Seconds, large: Seconds, part: Fraction) -> Seconds:
    r"""Mean time of a call that runs the algorithm for large sizes with a chance, else the one for small ones.

    .. math:: t = t_s + P\,(t_l - t_s)

    Source: definition of the mean.

    >>> expected_time(small=10.0, large=30.0, part=0.25)
    15.0
    """
    return small + part * (large - small)


def doubling_start(*, start: Seconds, per_doubling: Seconds, group: Count) -> Seconds:
    r"""Start of an AllToAll, which grows with each doubling of the group.

    .. math:: t = t_0 + t_2 \log_2 n

    Source: alpha-beta model, [thakur2005] section 3, with the start measured at several sizes.

    >>> f"{doubling_start(start=5e-6, per_doubling=3e-6, group=8) * 1e6:.1f} us"
    '14.0 us'
    """
    return start + per_doubling * (log(group) / log(2))


def direct_time(*, start: Seconds, shard: Bytes, copies: PerByte, links: PerByte) -> Seconds:
    r"""Small shards copied peer by peer: the copying cores or the links, whichever is slower.

    .. math:: t = t_0 + w\,\max(c, l)

    ``copies`` and ``links`` are seconds for each byte of a shard.
    Source: measured tables, see ``docs/accuracy.md``; the form is ours.

    >>> f"{direct_time(start=5e-6, shard=1e6, copies=2e-11, links=1e-11) * 1e6:.0f} us"
    '25 us'
    """
    return start + shard * maximum(copies, links)


def bulk_start(*, start: Seconds, rounds: Count, per_round: Seconds, per_peer: Seconds, peers: Count) -> Seconds:
    r"""Start of the bulk algorithm of a collective, which an AllReduce pays for both of its rounds.

    .. math:: t = t_0 + r\,(t_r + p\,t_p)

    Source: measured tables, see ``docs/accuracy.md``; the form is ours.

    >>> f"{bulk_start(start=5e-6, rounds=2, per_round=1e-4, per_peer=1e-6, peers=7) * 1e6:.0f} us"
    '219 us'
    """
    return start + rounds * (per_round + per_peer * peers)


def rounds_of(*, rounds: Count, group: Count) -> Count:
    r"""Rounds that a collective of a group starts: between two dies all are one exchange.

    .. math:: r' = \min(r, n - 1)

    Two dies that give each other their halves and then their sums move as much as two that give each other all
    at once.  Source: counting; that the library takes the single exchange, from the measured AllReduce of 2 dies
    (one start in bulk, where 4 dies show two), see ``docs/accuracy.md``.

    >>> rounds_of(rounds=2, group=2)
    1
    """
    return minimum(rounds, group - 1)


def mesh_bandwidth(*, bandwidth: BytesPerSecond, members: Count, dies: Count) -> BytesPerSecond:
    """Part of a full mesh's bandwidth that some of its dies can use among themselves.

    Each peer has a link of its own, so fewer members use fewer links.  Source: counting.

    >>> mesh_bandwidth(bandwidth=196e9, members=2, dies=8)
    28000000000.0
    """
    return bandwidth * maximum(members - 1, 1) / (dies - 1)


def one_shot_bytes(*, tensor: Bytes, group: Count, inner: Count, outer: Count) -> Bytes:
    r"""Bytes a die sends at one tier when it gives its whole tensor to every other die.

    .. math:: b = w\,(\min(n, o) - \min(n, i))

    Source: counting.

    >>> one_shot_bytes(tensor=1.0, group=8, inner=2, outer=16)
    6.0
    """
    return tensor * (minimum(group, outer) - minimum(group, inner))


def message_exchange_time(*, messages: Count, start: Seconds, per_message: Seconds, transfer: Seconds) -> Seconds:
    r"""Time of a token-grain exchange: cost is per message until the link binds.

    .. math:: t = t_0 + \max(m\,c,\; t_\mathrm{link})

    ``messages`` are those that leave the package: what stays inside it costs no message.
    Waiting for the busiest rank is not in it.  Source: [zuo2025] table 7: 7.5 and 14 KB messages
    take the same time, and the time grows with the part that leaves.

    >>> t = message_exchange_time(messages=1016, start=18e-6, per_message=131e-9, transfer=46e-6)
    >>> f"{t * 1e6:.0f} us"
    '151 us'
    """
    return start + maximum(messages * per_message, transfer)


def messages_between_nodes(*, messages: Count, once: Fraction, nodes: Count) -> Count:
    r"""Messages that a die sends between nodes where a token crosses once for each node.

    .. math:: m' = m\,f\,\Bigl(1 - \frac{1}{N}\Bigr)

    A share f of the m copies is left where each of N nodes gets one; those for the die's own node stay.  On one node
    there are none.  Source: counting.

    >>> messages_between_nodes(messages=640.0, once=0.45, nodes=4)
    216.0
    """
    return messages * once * (1 - 1 / nodes)


def message_handling_time(*, messages: Count, leaving: Fraction, per_message: Seconds) -> Seconds:
    """Time that the vector cores of one die spend on the messages that leave its package or come to it.

    Source: the cost per message of a token-grain exchange, [zuo2025] table 7, without its start and the link.  There
    every die sends and gets as many, here it does one of both, so it errs high.

    >>> t = message_handling_time(messages=480, leaving=1.0, per_message=126e-9)
    >>> f"{t * 1e6:.0f} us"
    '60 us'
    """
    return messages * leaving * per_message


def peer_slowdown(*, group: Count, peers_at_half: Count) -> Dimensionless:
    r"""Factor by which a bulk exchange slows as its blocks are cut for more peers.

    .. math:: f = 1 + \frac{n - 1}{h}

    Source: DeepEP-Ascend's normal mode at 8 to 128 dies, see ``docs/accuracy.md``; the form is ours.
    One number of tokens was measured: that the factor does not depend on it is assumed.

    >>> peer_slowdown(group=129, peers_at_half=128)
    2.0
    """
    return 1 + (group - 1) / peers_at_half


def expert_exchange_limit(
    *,
    tokens: Count,
    copies: Count,
    hidden_size: Count,
    dispatch_bytes: Bytes,
    combine_bytes: Bytes,
    bandwidth: BytesPerSecond,
) -> Seconds:
    r"""Bandwidth limit of sending tokens to their experts and back, once.

    .. math:: t = \frac{n\,c\,d\,(b_\mathrm{disp} + b_\mathrm{comb})}{B}

    An idealised bound: no latency, perfect balance, every copy crosses the link.
    Source: [deepseek2025insights] section 2.3.2, with the paper's own width of 7000.

    >>> t = expert_exchange_limit(tokens=32, copies=9, hidden_size=7000, dispatch_bytes=1, combine_bytes=2,
    ...                           bandwidth=50e9)
    >>> f"{t * 1e6:.2f} us"
    '120.96 us'
    """
    return tokens * copies * hidden_size * (dispatch_bytes + combine_bytes) / bandwidth


def kv_transfer_exposed(
    *, payload: Bytes, bandwidth: BytesPerSecond, latency: Seconds, compute: Seconds, layers: Count
) -> Seconds:
    r"""KV transfer left exposed when layer i is sent while layer i+1 is computed.

    .. math:: t = \alpha + \frac{w}{L\,B} + \max\!\left(0,\; \frac{L-1}{L}\Bigl(\frac{w}{B} - t_c\Bigr)\right)

    Assumes equal layers.  With ``layers`` 1 nothing overlaps and the whole transfer is exposed.
    Source: pipelining of L equal stages.

    >>> kv_transfer_exposed(payload=100.0, bandwidth=10.0, latency=0.0, compute=99.0, layers=10)
    1.0
    """
    whole = payload / bandwidth
    return latency + whole / layers + maximum(0, (layers - 1) / layers * (whole - compute))
