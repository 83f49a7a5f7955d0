"""How many tokens, contexts and experts each rank has in one micro-batch."""

from perfmodel.algebra import ceil, maximum
from perfmodel.formulas.attention import causal_pairs
from perfmodel.formulas.experts import (
    busiest_rank_tokens,
    experts_touched,
    slot_variance,
    tokens_per_routed_rank,
    tokens_per_shared_rank,
)
from perfmodel.formulas.statistics import largest_context_sum, length_spread
from perfmodel.ledger.records import Dims, Family, Layout, Quantities, Traffic
from perfmodel.units import Count


def _contexts(layout: Layout, family: Family, traffic: Traffic) -> tuple[Count, Count, Count]:
    """Return tokens of a data-parallel rank, query-context pairs and cached tokens, per micro-batch."""
    micro = family.micro
    if family.phase == "prefill":
        pairs = causal_pairs(sequences=layout.batch, isl=traffic.isl)
        return layout.batch * traffic.isl / micro, pairs / micro, layout.batch * traffic.isl / micro
    verify = 1 + layout.draft
    contexts = largest_context_sum(
        sequences=layout.batch,
        mean=traffic.isl + traffic.osl / 2,
        spread=traffic.context_spread * length_spread(osl=traffic.osl),
        ranks=layout.dies / layout.tp,
    )
    return layout.batch * verify / micro, contexts * verify / micro, contexts / micro


def quantities(layout: Layout, family: Family, traffic: Traffic, dims: Dims) -> Quantities:
    """Return the loads of one micro-batch on the busiest rank of each kind."""
    tokens, pairs, cached_tokens = _contexts(layout, family, traffic)
    group_tokens = tokens * (layout.dies / layout.tp)
    shared_ranks = layout.shared_ranks if family.own_shared_ranks else layout.dies
    routed_ranks = layout.dies - layout.shared_ranks if family.own_shared_ranks else layout.dies
    slots = dims.n_routed_experts + layout.redundant
    slots_per_rank = ceil(slots / routed_ranks)
    mean = tokens_per_routed_rank(
        group_tokens=group_tokens, num_experts_per_tok=dims.num_experts_per_tok, routed_ranks=routed_ranks
    )
    variance = slot_variance(
        skew=traffic.skew,
        residual=traffic.residual,
        sequences=maximum(1.0, layout.batch * (layout.dies / layout.tp) / family.micro),
    )
    return Quantities(
        tokens=tokens,
        sequences=layout.batch / family.micro,
        rank_tokens=tokens / layout.tp,
        head_tokens=tokens * family.micro if family.phase == "decode" else layout.batch,
        group_tokens=group_tokens,
        pairs=pairs,
        cached_tokens=cached_tokens,
        slots_per_rank=slots_per_rank,
        touched=experts_touched(
            group_tokens=group_tokens,
            num_experts_per_tok=dims.num_experts_per_tok,
            slots=slots,
            slots_per_rank=slots_per_rank,
        ),
        routed_tokens=busiest_rank_tokens(
            mean=mean,
            ranks=routed_ranks,
            slots_per_rank=slots_per_rank,
            slot_variance=variance,
            chance=traffic.chance,
        ),
        shared_tokens=tokens_per_shared_rank(group_tokens=group_tokens, shared_ranks=shared_ranks),
        copies=dims.num_experts_per_tok + (1 if family.own_shared_ranks else 0),
        group=layout.dies,
        tp=layout.tp,
    )
