"""Model x layout x batch -> the ledger of one step."""

from collections.abc import Iterator

from perfmodel.algebra import minimum
from perfmodel.ledger.attention import attention_ops
from perfmodel.ledger.feedforward import dense_ops, routed_ops, routing_ops, shared_ops
from perfmodel.ledger.quantities import quantities
from perfmodel.ledger.records import Block, Dims, Family, Layout, Ledger, Op, Quantities, Traffic
from perfmodel.ledger.rows import BF16, linear, vector
from perfmodel.specs.model import ModelSpec


def dims_of(model: ModelSpec) -> Dims:
    """Return the sizes that formulas take."""
    return Dims(
        hidden_size=model.hidden_size,
        intermediate_size=model.intermediate_size,
        moe_intermediate_size=model.experts.moe_intermediate_size,
        n_routed_experts=model.experts.n_routed_experts,
        n_shared_experts=model.experts.n_shared_experts,
        num_experts_per_tok=model.experts.num_experts_per_tok,
        n_group=model.experts.n_group,
        topk_group=model.experts.topk_group,
        vocab_size=model.vocab_size,
    )


def _embedding_ops(q: Quantities, family: Family, dims: Dims) -> Iterator[Op]:
    rows = q.tokens * family.micro
    gathered = vector("embedding.lookup", flop=0, traffic=2 * rows * dims.hidden_size * BF16)
    yield Op(
        name=gathered.name,
        operator="vector",
        engine="vector",
        activation_bytes=gathered.activation_bytes,
        resident_bytes=dims.vocab_size * dims.hidden_size * BF16,
    )


def _head_ops(q: Quantities, dims: Dims) -> Iterator[Op]:
    yield linear(
        "head.logits",
        rows=q.head_tokens,
        inner=dims.hidden_size,
        columns=dims.vocab_size / q.tp,
        weight_element_bytes=BF16,
        engine="cube_bf16",
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


def build_ledger(layout: Layout, family: Family, traffic: Traffic, model: ModelSpec, dims: Dims) -> Ledger:
    """Return the rows of one step on one die and how often each runs.

    Rows are per micro-batch; a block's ``passes`` says how many micro-batches it makes.  Shared
    experts with ranks of their own run beside the routed ranks, so the slower decides.
    """
    q = quantities(layout, family, traffic, dims)
    parts: dict[str, tuple[Op, ...]] = {
        "embedding": tuple(_embedding_ops(q, family, dims)),
        "attention": tuple(attention_ops(q, family, dims, model.attention)),
        "routing": tuple(routing_ops(q, family, dims)),
        "routed": tuple(routed_ops(q, family, dims)),
        "head": tuple(_head_ops(q, dims)),
    }
    if model.first_k_dense_replace:
        parts["dense"] = tuple(dense_ops(q, family, dims))
    if model.experts.n_shared_experts:
        parts["shared"] = tuple(shared_ops(q, family, dims))
    drafts = model.num_nextn_predict_layers > 0
    if drafts:
        parts["draft"] = tuple(_draft_ops(q, dims))
    return Ledger(parts=parts, blocks=tuple(_blocks(layout, family, model, drafts)))


def _blocks(layout: Layout, family: Family, model: ModelSpec, drafts: bool) -> Iterator[Block]:
    shared = bool(model.experts.n_shared_experts)
    own = shared and family.own_shared_ranks
    experts = ("routing",) if own else ("routing", "routed", *(("shared",) if shared else ()))
    joined = ("routed", "shared") if own else ()
    overlapped = family.overlap != "none"
    moe_layers = model.num_hidden_layers - model.first_k_dense_replace
    yield Block(name="embedding", count=1, layers=1, attention=("embedding",), experts=())
    if model.first_k_dense_replace:
        yield Block(
            name="dense_layer",
            count=model.first_k_dense_replace,
            layers=model.first_k_dense_replace,
            attention=("attention",),
            experts=("dense",),
            passes=family.micro,
        )
    yield Block(
        name="moe_layer",
        count=moe_layers,
        layers=moe_layers,
        attention=("attention",),
        experts=experts,
        joined=joined,
        overlapped=overlapped,
        passes=family.micro,
    )
    if drafts:
        kept = minimum(layout.draft, model.num_nextn_predict_layers)
        yield Block(
            name="draft_layer",
            count=layout.draft,
            layers=kept,
            attention=("attention",),
            experts=experts,
            joined=joined,
            overlapped=overlapped,
            passes=family.micro,
        )
        yield Block(
            name="draft_input",
            count=layout.draft,
            layers=kept,
            attention=("draft",),
            experts=(),
            passes=family.micro,
        )
    yield Block(name="head", count=1 + layout.draft if drafts else 1, layers=1, attention=("head",), experts=())
