"""How tokens fall on experts and ranks."""

from perfmodel.algebra import as_float, exp, floor, greater, log, maximum, minimum, sqrt, where
from perfmodel.formulas.statistics import largest_normal
from perfmodel.units import Bytes, Count, Dimensionless, Flop

_NEVER_ZERO = 1e-12  # log(0) where every token takes every expert


def tokens_per_routed_rank(*, group_tokens: Count, num_experts_per_tok: Count, routed_ranks: Count) -> Count:
    """Mean number of token copies that a rank of routed experts receives.

    Source: conservation of token copies.

    >>> tokens_per_routed_rank(group_tokens=2048, num_experts_per_tok=8, routed_ranks=256)
    64.0
    """
    return group_tokens * num_experts_per_tok / routed_ranks


def even_slots(*, experts: Count, slots: Count, skew: Dimensionless, residual: Dimensionless) -> Count:
    r"""Slots among which the copies of tokens fall evenly: all of them only where replicas are put with foresight.

    .. math:: S' = S \;\text{where}\; \rho \le \sigma,\quad S' = E\,\lfloor S / E \rfloor \;\text{else}

    A balancer gives replicas to the experts that have more copies, and slots come out alike.  Where nothing is
    foreseen they halve the load of whichever experts have them, and an expert without keeps 1/E of all copies.
    Errs high without a balancer by up to the share of replicas, where their slots fall on all ranks alike.
    Source: a load divided by its replicas.

    32 replicas of 256 experts, with a balancer and with none; a replica of each helps either way:

    >>> even_slots(experts=256, slots=288, skew=1.0, residual=0.1)
    288
    >>> even_slots(experts=256, slots=288, skew=1.0, residual=9.0)
    256
    >>> even_slots(experts=256, slots=512, skew=1.0, residual=9.0)
    512
    """
    return where(greater(residual, skew), experts * floor(slots / experts), slots)


def tokens_per_fullest_rank(
    *, group_tokens: Count, num_experts_per_tok: Count, slots: Count, slots_per_rank: Count
) -> Count:
    r"""Mean number of token copies of a rank that holds the most slots, each slot getting its even share.

    .. math:: m = n k\,\frac{s}{S},\quad s = \lceil S / R \rceil

    Where the slots divide evenly over the ranks it is :func:`tokens_per_routed_rank`.
    Errs high where a balancer puts the coldest experts on the ranks that hold one more.
    Source: conservation of token copies.

    256 slots on 256 ranks, and on 255, of which one then holds two:

    >>> tokens_per_fullest_rank(group_tokens=2048, num_experts_per_tok=8, slots=256, slots_per_rank=1)
    64.0
    >>> tokens_per_fullest_rank(group_tokens=2048, num_experts_per_tok=8, slots=256, slots_per_rank=2)
    128.0
    """
    return group_tokens * num_experts_per_tok * slots_per_rank / slots


def tokens_per_shared_rank(*, group_tokens: Count, shared_ranks: Count) -> Count:
    """Number of tokens that a rank holding only a shared expert receives.

    Every token comes once: several shared experts are one of their joint width.  With top-8
    routing and ranks 8:1 it equals the routed ranks' mean exactly.
    Source: conservation of token copies.

    >>> tokens_per_shared_rank(group_tokens=2048, shared_ranks=32)
    64.0
    """
    return group_tokens / shared_ranks


def popularity_variance(*, skew: Dimensionless) -> Dimensionless:
    r"""Relative variance of an expert's popularity where its logarithm spreads normally by ``skew``.

    .. math:: V = e^{\sigma^2} - 1

    Source: [deepep2025skew] finds that counts of tokens follow a log-normal best.  Two numbers fix its skew:
    [xdeepserve2025] has an expert in five above the mean and the hottest 30 times the mean, which both say 1.7;
    [trtllm2025ep] has the hottest expert at 11.9 and the hottest rank of eight at 2.56 times the mean, averaged
    over layers, which say 1.1.

    >>> round(popularity_variance(skew=1.1), 1)
    2.4
    """
    return exp(skew * skew) - 1


def slot_variance(
    *, skew: Dimensionless, residual: Dimensionless, variety: Dimensionless, sequences: Count
) -> Dimensionless:
    r"""Relative variance of the load of one expert slot in one step, about the load that it was placed for.

    .. math:: v = e^{u^2}\Bigl(1 + \frac{e^{\omega^2} - 1}{N}\Bigr) - 1,\quad u = \min(\sigma, \rho)

    An expert's load is its lasting popularity, whose logarithm spreads by the skew, times the mean of what N
    sequences of the step make of it, each with favourites of its own that spread by ``variety``.  Placement evens
    out what it foresees of the former; the logarithm of real over foreseen popularity spreads by ``residual``.  One
    form serves all: without a balancer nothing is foreseen and the error is the popularity itself, u = skew; a map
    made once errs by its age, one renewed all the time by little, and perfect balance has neither u nor variety.
    Assumes that what is foreseen can be evened out: errs low where a rank has few slots and the hottest expert
    too few replicas.  Assumes that a sequence keeps its favourites: errs high for long prompts of several subjects.
    Source: variance of a product of independent log-normals; the form is ours.

    64 prompts on a balancer that errs by an eighth, and no balancer at all:

    >>> round(slot_variance(skew=1.0, residual=0.125, variety=1.6, sequences=64), 2)
    0.21
    >>> round(slot_variance(skew=1.0, residual=9.0, variety=1.6, sequences=64), 1)
    2.2
    """
    unforeseen = popularity_variance(skew=minimum(skew, residual))
    return (1 + unforeseen) * (1 + popularity_variance(skew=variety) / sequences) - 1


def busiest_rank_tokens(
    *, mean: Count, ranks: Count, slots_per_rank: Count, slot_variance: Dimensionless, chance: Dimensionless
) -> Count:
    r"""Expected token copies on the busiest of ``ranks`` ranks.

    .. math:: m = \mu\,\min\bigl(n, e^{z(n) s - s^2/2}\bigr),\; s \le z(n),\quad
              s^2 = \ln\Bigl(1 + \bigl(1 - \tfrac{1}{n}\bigr)\bigl(\tfrac{v}{k} + \tfrac{c}{\mu}\bigr)\Bigr)

    The k slots of a rank share what skew is left, v of each; ``chance`` c is 1 for the multinomial draw of
    experts, 0 where routing is forced to be even.  Log-normal tails, [deepep2025skew]; largest of n by [blom1958].
    Source: sum of log-normals by its variance [fenton1960].

    A mean of 1024 copies on each of 32 ranks of nine slots: 1.11 was published [trtllm2025ep].

    >>> m = busiest_rank_tokens(mean=1024, ranks=32, slots_per_rank=9, slot_variance=0.128 * 0.128, chance=1)
    >>> round(m / 1024, 2)
    1.11

    32 prompts of a micro-batch on 32 ranks, CloudMatrix384's prefill:

    >>> v = slot_variance(skew=1.0, residual=0.128, variety=1.6, sequences=32)
    >>> round(busiest_rank_tokens(mean=32768, ranks=32, slots_per_rank=9, slot_variance=v, chance=1) / 32768, 2)
    1.49

    No balancer, 32 ranks of eight experts: 2.56 was published, and 11.9 where each is a rank [trtllm2025ep].

    >>> v = popularity_variance(skew=1.1)
    >>> round(busiest_rank_tokens(mean=8192, ranks=32, slots_per_rank=8, slot_variance=v, chance=1) / 8192, 2)
    2.48
    >>> round(busiest_rank_tokens(mean=8192, ranks=256, slots_per_rank=1, slot_variance=v, chance=1) / 8192, 1)
    12.1
    """
    largest = largest_normal(count=ranks)
    # beyond s = z the form would fall again; no rank gets more than all copies
    spread = minimum(sqrt(log(1 + (1 - 1 / ranks) * (slot_variance / slots_per_rank + chance / mean))), largest)
    return mean * minimum(ranks, exp(largest * spread - spread * spread / 2))


def reachable_nodes(*, nodes: Count, n_group: Count, topk_group: Count) -> Count:
    r"""Expected nodes that hold a group of experts a token may choose from.

    .. math:: M = N\,\Bigl(1 - \prod_{i=0}^{g-1} \max\bigl(0, 1 - \frac{G/N}{G - i}\bigr)\Bigr)

    g of G groups are drawn, each lying on one node.  ``topk_group`` is a plain number.
    Source: [deepseek2024v3] section 2.1.2 for the routing; hypergeometric counting.

    Four of eight groups on four nodes of two groups each: all but 3 in 14 nodes.

    >>> round(reachable_nodes(nodes=4, n_group=8, topk_group=4), 3)
    3.143
    """
    missed: Count = 1.0
    for i in range(round(as_float(topk_group))):
        missed = missed * maximum(0, 1 - n_group / nodes / maximum(n_group - i, 1))
    return nodes * (1 - missed)


def distinct_nodes(*, copies: Count, nodes: Count) -> Count:
    r"""Expected nodes among which a token's copies fall, evenly and independently.

    .. math:: D = N\,\bigl(1 - (1 - 1/N)^{k}\bigr)

    A token sent once to each node crosses the network D times in place of k.  Errs low by a few
    per cent: a token's experts are distinct.  Source: occupancy.

    >>> round(distinct_nodes(copies=8, nodes=4), 2)
    3.6
    """
    missed = log(maximum(1 - 1 / nodes, _NEVER_ZERO))
    return nodes * (1 - exp(copies * missed))


def experts_touched(*, group_tokens: Count, num_experts_per_tok: Count, slots: Count, slots_per_rank: Count) -> Count:
    r"""Expected number of a rank's expert slots that receive at least one token.

    .. math:: e = s\,\Bigl(1 - (1 - k/S)^{n}\Bigr)

    Assumes equal popularity: errs high under skew.  Source: occupancy of a token drawing k of S.

    >>> round(experts_touched(group_tokens=32, num_experts_per_tok=8, slots=256, slots_per_rank=8), 2)
    5.1
    """
    missed = log(maximum(1 - num_experts_per_tok / slots, _NEVER_ZERO))
    return slots_per_rank * (1 - exp(group_tokens * missed))


def gated_feed_forward_flop(*, tokens: Count, hidden_size: Count, intermediate_size: Count) -> Flop:
    """FLOP of a gated feed-forward: gate, up and down projections.

    Source: [shazeer2020] equation 6.

    >>> gated_feed_forward_flop(tokens=1, hidden_size=7168, intermediate_size=2048)
    88080384
    """
    return 6 * tokens * hidden_size * intermediate_size


def gated_feed_forward_bytes(*, hidden_size: Count, intermediate_size: Count, element_bytes: Bytes) -> Bytes:
    """Weight bytes of a gated feed-forward.

    Source: [shazeer2020] equation 6.

    >>> gated_feed_forward_bytes(hidden_size=7168, intermediate_size=2048, element_bytes=1)
    44040192
    """
    return 3 * hidden_size * intermediate_size * element_bytes
