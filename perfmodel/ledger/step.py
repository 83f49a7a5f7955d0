"""Model x layout x batch -> the ledger of one step."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from perfmodel.algebra import minimum, never_greater
from perfmodel.formulas.serving import single_token_drafts
from perfmodel.ledger.attention import attention_ops
from perfmodel.ledger.feedforward import dense_ops, expert_exchange_ops, gate_ops, routed_ops, shared_ops
from perfmodel.ledger.quantities import quantities
from perfmodel.ledger.records import AGAIN, Block, Dims, Family, Layout, Ledger, Op, Quantities, Traffic
from perfmodel.ledger.rows import BF16, exchange_row, linear, vector
from perfmodel.specs.model import MAIN, ExpertsSpec, LayerGroupSpec, ModelSpec
from perfmodel.units import Count


def dims_of(model: ModelSpec) -> Dims:
    """Return the sizes that formulas take; of a model without experts those of experts are 0."""
    experts = model.experts
    return Dims(
        hidden_size=model.hidden_size,
        intermediate_size=0 if model.intermediate_size is None else model.intermediate_size,
        moe_intermediate_size=0 if experts is None else experts.moe_intermediate_size,
        n_routed_experts=0 if experts is None else experts.n_routed_experts,
        n_shared_experts=0 if experts is None else experts.n_shared_experts,
        # of choices spread over all, those that fall on experts with work
        num_experts_per_tok=0 if experts is None else real_choices(experts),
        n_group=1 if experts is None else experts.n_group,
        topk_group=1 if experts is None else experts.topk_group,
        vocab_size=model.vocab_size,
        zero_expert_num=0 if experts is None else experts.zero_expert_num,
        shared_intermediate_size=None if experts is None else experts.shared_intermediate_size,
        shared_gate=experts is not None and experts.shared_gate,
        expert_hidden_size=None if experts is None else experts.routed_expert_hidden_size,
        hc_mult=model.hc_mult,
        routes=experts is not None,
        tied=model.tie_word_embeddings,
    )


def real_choices(experts: ExpertsSpec) -> Count:
    """Experts with work that a token goes to on average, where some of what its router chooses from stand for none.

    Source: what the model says, else choices in proportion to their number; they differ from token to token.
    """
    if experts.real_experts_per_tok is not None:
        return experts.real_experts_per_tok
    if not experts.zero_expert_num:
        return experts.num_experts_per_tok
    share = experts.n_routed_experts / (experts.n_routed_experts + experts.zero_expert_num)
    return experts.num_experts_per_tok * share


def _embedding_ops(q: Quantities, family: Family, dims: Dims) -> Iterator[Op]:
    rows, row_bytes = q.tokens * family.micro, dims.hidden_size * BF16
    split = "embedding" in family.split
    parts = q.tp if family.splits_layers else q.embedding_tp if split else 1
    yield replace(
        vector("embedding.lookup", flop=0, traffic=2 * rows * row_bytes),
        resident_bytes=dims.vocab_size * row_bytes / parts,
    )
    if family.splits_layers:
        yield exchange_row("embedding.all_reduce", "all_reduce", group=parts, payload=rows / parts * row_bytes)
    elif split:  # each die looks up what it keeps for all, zero elsewhere, and the sum is split
        yield exchange_row("embedding.scatter", "reduce_scatter", group=parts, payload=rows * row_bytes)


def _head_ops(q: Quantities, family: Family, dims: Dims) -> Iterator[Op]:
    split = "head" in family.split
    parts = q.head_tp if split else 1
    columns = dims.vocab_size / (q.tp * parts)
    if split:
        yield exchange_row("head.gather", "all_gather", group=parts, payload=q.head_tokens * dims.hidden_size * BF16)
    logits = linear(
        "head.logits",
        rows=q.head_tokens * parts,
        inner=dims.hidden_size,
        columns=columns,
        weight_element_bytes=BF16,
        engine="cube_bf16",
    )
    yield replace(logits, resident_bytes=0) if dims.tied else logits
    if split:
        yield exchange_row("head.swap", "all_to_all", group=parts, payload=q.head_tokens * columns * BF16)


def _unsplit(q: Quantities, family: Family) -> Quantities:
    """Return the loads of a whole step on a rank's own tokens, from those of one of its micro-batches."""
    micro = family.micro
    return replace(
        q,
        tokens=q.tokens * micro,
        sequences=q.sequences * micro,
        rank_tokens=q.rank_tokens * micro,
        pairs=q.pairs * micro,
        cached_tokens=q.cached_tokens * micro,
        loaded_tokens=q.loaded_tokens * micro,
    )


def _draft_ops(q: Quantities, dims: Dims) -> Iterator[Op]:
    yield linear(
        "draft.eh_proj",
        rows=q.rank_tokens,
        inner=2 * dims.hidden_size,
        columns=dims.hidden_size,
        weight_element_bytes=BF16,
        engine="cube_bf16",
    )


def redrafts(layout: Layout, family: Family, model: ModelSpec) -> bool:
    """Return whether a draft layer runs again in a step, on one token of a sequence; of symbols it is taken to."""
    kept = model.num_nextn_predict_layers
    return family.phase == "decode" and kept > 0 and not never_greater(layout.draft, kept)


def loads_of_redrafts(layout: Layout) -> Layout:
    """Return the layout whose loads are those of a draft layer that runs again: a token a sequence."""
    return replace(layout, draft=0)


def build_ledger(layout: Layout, family: Family, traffic: Traffic, model: ModelSpec, dims: Dims) -> Ledger:
    """Return the rows of one step on one die and how often each runs."""
    again = None
    if redrafts(layout, family, model):
        again = quantities(loads_of_redrafts(layout), family, traffic, dims)
    return ledger_of_loads(quantities(layout, family, traffic, dims), layout, family, model, dims, again=again)


def _expert_parts(q: Quantities, family: Family, dims: Dims) -> dict[str, tuple[Op, ...]]:
    """Return the parts of a mixture of experts."""
    parts: dict[str, tuple[Op, ...]] = {
        "gate": tuple(gate_ops(q, family, dims)),
        "exchange": tuple(expert_exchange_ops(q, family, dims)),
        "routed": tuple(routed_ops(q, family, dims)),
    }
    if dims.n_shared_experts:
        parts["shared"] = tuple(shared_ops(q, family, dims))
    return parts


def called(word: str, group: LayerGroupSpec) -> str:
    """Return the name of a part or a block of a group: the word alone, with another attention than most its name."""
    return word if group.attention == MAIN else f"{word}_{group.attention}"


def _attention(q: Quantities, family: Family, dims: Dims, model: ModelSpec, group: LayerGroupSpec) -> tuple[Op, ...]:
    return tuple(attention_ops(q, family, dims, model.attention_of(group)))


def _draft_layer_parts(
    q: Quantities, whole: Quantities, family: Family, model: ModelSpec, dims: Dims
) -> dict[str, tuple[Op, ...]]:
    """Return the parts of a draft layer; ``whole`` are the loads of all micro-batches where dense layers join them."""
    group = model.draft_group
    if group.has_experts:
        experts = _expert_parts(q, family, dims)
        return {called("attention", group): _attention(q, family, dims, model, group), **experts}
    name = called("dense_attention" if family.joins_dense else "attention", group)
    return {
        name: _attention(whole, family, dims, model, group),
        "dense": tuple(dense_ops(whole, family, dims)),
    }


def ledger_of_loads(
    q: Quantities,
    layout: Layout,
    family: Family,
    model: ModelSpec,
    dims: Dims,
    *,
    again: Quantities | None = None,
) -> Ledger:
    """Return the rows of a step from the loads of its ranks, and how often each runs.

    Rows are per micro-batch; a block's ``passes`` says how many micro-batches it makes.  Shared
    experts with ranks of their own run beside the routed ranks, so the slower decides.  Layers without experts
    have nothing that two micro-batches could hide: they run before the step is split, on all of its tokens, and
    read their weights once; in stages micro-batches are apart from the start.  Errs low where a framework splits
    earlier.  ``again`` are the loads of a draft layer that runs a second time: its parts are those of a layer, of
    another size.
    """
    together = _unsplit(q, family) if family.joins_dense else q
    split = [group for group in model.groups if group.has_experts or not family.joins_dense]
    parts: dict[str, tuple[Op, ...]] = {
        "embedding": tuple(_embedding_ops(q, family, dims)),
        **{called("attention", group): _attention(q, family, dims, model, group) for group in split},
        **(_expert_parts(q, family, dims) if dims.routes else {}),
        "head": tuple(_head_ops(q, family, dims)),
    }
    alone = [group for group in model.groups if not group.has_experts]
    if alone:
        parts["dense"] = tuple(dense_ops(together, family, dims))
    if family.joins_dense:
        parts |= {called("dense_attention", group): _attention(together, family, dims, model, group) for group in alone}
    if any(group.has_experts and group.has_dense for group in model.groups):
        parts["dense_beside"] = tuple(dense_ops(q, family, dims))
    drafts = model.num_nextn_predict_layers > 0
    if drafts:
        parts["draft"] = tuple(_draft_ops(together, dims))
        lanes = _layer(model.draft_group, family, model, layout.domains)
        if not parts.keys() >= {*lanes.attention, *lanes.experts}:  # no layer of the model is like it
            parts = {**_draft_layer_parts(q, together, family, model, dims), **parts}
    if again is not None:
        whole = _unsplit(again, family) if family.joins_dense else again
        more = {
            **_draft_layer_parts(again, whole, family, model, dims),
            "head": tuple(_head_ops(again, family, dims)),
            "draft": tuple(_draft_ops(whole, dims)),
        }
        parts |= {f"{name}{AGAIN}": ops for name, ops in more.items()}
    blocks = tuple(_blocks(layout, family, model, drafts, again is not None))
    return Ledger(parts=parts, blocks=blocks, quantities=q, steps=q.steps, draft=layout.draft)


def _blocks(layout: Layout, family: Family, model: ModelSpec, drafts: bool, again: bool) -> Iterator[Block]:
    """Yield the blocks; ``count`` is of one chunk of the prompts, of which the ledger says how many there are."""
    passes = 1 if family.joins_dense else family.micro
    once = Block(name="embedding", count=1, layers=1, attention=("embedding",), experts=())
    yield once
    for group in model.groups:
        yield _layer(group, family, model, layout.domains)
    whole: Count = 0
    if drafts:
        draft_layer = _layer(model.draft_group, family, model, layout.domains)
        draft_layer = replace(draft_layer, is_layer=False)
        kept = minimum(layout.draft, model.num_nextn_predict_layers)
        whole = kept if again or family.phase == "prefill" else layout.draft
        yield replace(draft_layer, name="draft_layer", count=whole, layers=kept)
        yield replace(once, name="draft_input", count=whole, layers=kept, attention=("draft",), passes=passes)
    yield replace(once, name="head", count=1 + whole, attention=("head",))
    if again:
        more = single_token_drafts(drafts=layout.draft, layers=model.num_nextn_predict_layers)
        yield replace(_named_again(draft_layer), name="redraft_layer", count=more, layers=0)
        redraft = replace(once, count=more, layers=0)
        yield replace(redraft, name="redraft_input", attention=(f"draft{AGAIN}",), passes=passes)
        yield replace(redraft, name="redraft_head", attention=(f"head{AGAIN}",))


def _layer(group: LayerGroupSpec, family: Family, model: ModelSpec, domains: Count) -> Block:
    """Return the block of a group of layers."""
    if not group.has_experts:
        return Block(
            name=called("dense_layer", group),
            count=group.count,
            layers=group.count,
            attention=(called("dense_attention" if family.joins_dense else "attention", group),),
            experts=("dense",),
            passes=1 if family.joins_dense else family.micro,
            is_layer=True,
        )
    shared = model.experts is not None and bool(model.experts.n_shared_experts)
    lanes = _expert_lanes(family, called("attention", group), shared=shared, domains=domains)
    if group.has_dense and family.disaggregated:  # tokens stay where their attention is
        lanes = replace(lanes, attention=(*lanes.attention, "dense_beside"))
    elif group.has_dense:  # beside the exchange
        lanes = replace(lanes, beside=("dense_beside", *lanes.beside))
    name = called("moe_layer", group)
    return replace(lanes, name=name, count=group.count, layers=group.count, is_layer=True)


def _named_again(block: Block) -> Block:
    """Return a layer whose parts are those of a draft layer that runs again."""
    lanes = ("attention", "experts", "joined", "fused", "beside")
    named: dict[str, Any] = {lane: tuple(f"{part}{AGAIN}" for part in getattr(block, lane)) for lane in lanes}
    return replace(block, **named)


def _expert_lanes(family: Family, own_attention: str, *, shared: bool, domains: Count) -> Block:
    """Return a layer with experts: which parts run where, which wait for each other, which run side by side."""
    own = shared and family.own_shared_ranks
    attention: tuple[str, ...] = (own_attention,)
    experts: tuple[str, ...] = ("gate", "exchange")
    if family.disaggregated:
        attention, experts = (own_attention, "gate"), ("exchange",)
    beside = ("shared",) if shared and not own and family.shared_stream else ()
    plain = ("shared",) if shared and not own and not beside else ()
    return Block(
        name="layer",
        count=1,
        layers=1,
        attention=attention,
        experts=experts if own else (*plain, *experts, "routed"),
        joined=("routed", "shared") if own else (),
        fused=("routed",) if family.fused_experts else (),
        beside=beside,
        overlapped=family.overlap != "none",
        passes=family.micro,
        domains=domains,
    )
