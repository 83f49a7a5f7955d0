"""How many tokens, contexts and experts each rank has in one micro-batch."""

from dataclasses import dataclass

from perfmodel.algebra import ceil, maximum, minimum
from perfmodel.formulas.attention import causal_pairs, chunked_steps, largest_share, mean_square
from perfmodel.formulas.experts import (
    busiest_rank_tokens,
    even_slots,
    experts_touched,
    slot_variance,
    tokens_per_fullest_rank,
    tokens_per_shared_rank,
)
from perfmodel.formulas.statistics import largest_context_sum
from perfmodel.ledger.records import Dims, Family, Layout, Quantities, Traffic
from perfmodel.units import Count, Dimensionless


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contexts:
    """What the attention of one data-parallel rank works on in one micro-batch; ``mean`` on the mean rank."""

    tokens: Count
    mean_tokens: Count
    pairs: Count
    cached_tokens: Count
    loaded_tokens: Count
    context: Count
    steps: Count


def _of_prompts(layout: Layout, family: Family, traffic: Traffic) -> Contexts:
    """Return the loads of prompts, each worked in ``steps`` equal chunks behind what its cache held already."""
    found = traffic.isl * traffic.prefix_hit
    new = traffic.isl - found
    steps = chunked_steps(tokens=new, chunk=layout.chunk) if family.chunked else 1
    worked = new / steps
    prefix = found + (new - worked) / 2
    share = largest_share(sequences=layout.batch, ranks=layout.ranks, spread=traffic.isl_spread)
    square = mean_square(share=share, sequences=layout.batch, spread=traffic.isl_spread)
    parts = family.micro * layout.cp
    tokens = layout.batch * worked / parts
    return Contexts(
        tokens=tokens * share,
        mean_tokens=tokens,
        # of all chunks together, each behind those before it
        pairs=causal_pairs(sequences=layout.batch, isl=new, prefix=found, square=square, share=share) / steps / parts,
        cached_tokens=share * layout.batch * (prefix + worked) / family.micro,
        loaded_tokens=share * layout.batch * found / steps / family.micro,
        context=prefix + worked,
        steps=steps,
    )


def _of_answers(layout: Layout, family: Family, traffic: Traffic) -> Contexts:
    """Return the loads of sequences that each add a token and its drafts."""
    verify = 1 + layout.draft
    contexts = largest_context_sum(
        sequences=layout.batch,
        mean=traffic.context,
        spread=traffic.context_spread * traffic.context_deviation,
        ranks=layout.ranks,
    )
    tokens = layout.batch * verify / family.micro
    cached = contexts / family.micro
    return Contexts(
        tokens=tokens,
        mean_tokens=tokens,
        pairs=contexts * verify / family.micro,
        cached_tokens=cached,
        loaded_tokens=0,
        context=cached / (layout.batch / family.micro),
        steps=1,
    )


def _shared_copies(family: Family, dims: Dims) -> Count:
    """Return the messages of a token to a shared expert: one where that is on another die, if there is one."""
    if family.disaggregated:
        return minimum(dims.n_shared_experts, 1)
    return 1 if family.own_shared_ranks else 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Routing:
    """How the tokens of an instance fall on the ranks of its experts: how many, and how unevenly."""

    group_tokens: Count
    shared_tokens: Count
    routed_ranks: Count
    slots: Count
    slots_per_rank: Count
    #: token copies that even slots give the fullest routed rank, and the relative variance of a slot's load
    mean: Count
    variance: Dimensionless


def contexts(layout: Layout, family: Family, traffic: Traffic) -> Contexts:
    """Return what the attention of one rank works on in one micro-batch."""
    return (_of_prompts if family.phase == "prefill" else _of_answers)(layout, family, traffic)


def _dies(layout: Layout, family: Family) -> tuple[Count, Count]:
    """Return the dies that exchange tokens as attention ranks, and those that hold experts."""
    expert_dies = layout.expert_dies if family.disaggregated else layout.dies
    return (layout.dies - layout.expert_dies) / layout.domains, expert_dies


def routing(load: Contexts, layout: Layout, family: Family, traffic: Traffic, dims: Dims) -> Routing:
    """Return how tokens fall on experts.

    With experts on dies of their own each domain of attention ranks exchanges its tokens with all of them.
    A rank of routed experts is ``expert_tp`` dies, one where experts are whole.
    """
    attention_dies, expert_dies = _dies(layout, family)
    group_tokens = load.mean_tokens * (attention_dies / layout.tp)
    if family.own_shared_ranks or family.disaggregated:
        shared_ranks = layout.shared_ranks if family.own_shared_ranks else expert_dies
        shared_tokens = tokens_per_shared_rank(group_tokens=group_tokens, shared_ranks=shared_ranks)
    else:  # every die works its own; said without the size of the instance, so that the row does not carry its axis
        shared_tokens = load.mean_tokens / layout.tp
    routed_dies = expert_dies - layout.shared_ranks if family.own_shared_ranks else expert_dies
    routed_ranks = routed_dies / layout.expert_tp if family.split_experts else routed_dies
    slots = dims.n_routed_experts + layout.redundant
    held = ceil(slots / routed_ranks)
    return Routing(
        group_tokens=group_tokens,
        shared_tokens=shared_tokens,
        routed_ranks=routed_ranks,
        slots=slots,
        slots_per_rank=held,
        mean=tokens_per_fullest_rank(
            group_tokens=group_tokens,
            num_experts_per_tok=dims.num_experts_per_tok,
            slots=even_slots(experts=dims.n_routed_experts, slots=slots, skew=traffic.skew, residual=traffic.residual),
            slots_per_rank=held,
        ),
        variance=slot_variance(
            skew=traffic.skew,
            residual=traffic.residual,
            variety=traffic.variety,
            sequences=maximum(1.0, layout.batch * layout.ranks / layout.domains / family.micro),
        ),
    )


def routed_of(load: Contexts, layout: Layout, family: Family, traffic: Traffic, dims: Dims) -> Routing:
    """Return how tokens fall on experts; of a model without any, that none do."""
    return routing(load, layout, family, traffic, dims) if dims.routes else unrouted(load)


def unrouted(load: Contexts) -> Routing:
    """Return the routing of a model without experts: none."""
    return Routing(
        group_tokens=load.mean_tokens,
        shared_tokens=0,
        routed_ranks=1,
        slots=0,
        slots_per_rank=0,
        mean=0,
        variance=0,
    )


def quantities(layout: Layout, family: Family, traffic: Traffic, dims: Dims) -> Quantities:
    """Return the loads of one micro-batch on the busiest rank of each kind."""
    load = contexts(layout, family, traffic)
    routed = routed_of(load, layout, family, traffic, dims)
    return loads(load, routed, layout, family, traffic, dims)


def _touched(routed: Routing, dims: Dims) -> Count:
    return experts_touched(
        group_tokens=routed.group_tokens,
        num_experts_per_tok=dims.num_experts_per_tok,
        slots=routed.slots,
        slots_per_rank=routed.slots_per_rank,
    )


def _on_the_busiest(routed: Routing, traffic: Traffic) -> Count:
    return busiest_rank_tokens(
        mean=routed.mean,
        ranks=routed.routed_ranks,
        slots_per_rank=routed.slots_per_rank,
        slot_variance=routed.variance,
        chance=traffic.chance,
    )


def loads(load: Contexts, routed: Routing, layout: Layout, family: Family, traffic: Traffic, dims: Dims) -> Quantities:
    """Return the loads of the busiest ranks from those of attention and the routing of tokens."""
    attention_dies, _ = _dies(layout, family)
    return Quantities(
        tokens=load.tokens,
        sequences=layout.batch / family.micro,
        queries=1 + layout.draft,
        context=load.context,
        rank_tokens=load.tokens / layout.tp,
        head_tokens=load.tokens * family.micro if family.phase == "decode" else layout.batch,
        group_tokens=routed.group_tokens,
        pairs=load.pairs,
        cached_tokens=load.cached_tokens,
        loaded_tokens=load.loaded_tokens,
        slots_per_rank=routed.slots_per_rank,
        touched=_touched(routed, dims) if dims.routes else 0,
        routed_tokens=_on_the_busiest(routed, traffic) if dims.routes else 0,
        shared_tokens=routed.shared_tokens,
        copies=dims.num_experts_per_tok + _shared_copies(family, dims),
        group=attention_dies + layout.expert_dies,
        tp=layout.tp,
        cp=layout.cp,
        dcp=layout.dcp,
        expert_tp=layout.expert_tp,
        o_proj_tp=layout.o_proj_tp,
        head_tp=layout.head_tp,
        dense_tp=layout.dense_tp,
        embedding_tp=layout.embedding_tp,
        kv_resident=layout.kv_resident,
        kv_hit=layout.kv_hit,
        steps=load.steps,
    )
