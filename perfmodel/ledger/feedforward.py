"""Feed-forward rows: dense, routed experts, shared expert, and the exchange between ranks."""

from collections.abc import Iterator

from perfmodel.algebra import maximum, minimum
from perfmodel.formulas.experts import gated_feed_forward_bytes, gated_feed_forward_flop
from perfmodel.ledger.records import Collective, Dims, Exchange, Family, Op, OperatorClass, Quantities
from perfmodel.ledger.rows import BF16, exchange_row, linear, norm_quant, streams, vector
from perfmodel.units import Bytes, Count

ACTIVATION_FLOP = 8  # sigmoid, product and scale of one gated element
ROUTER_FLOP = 10  # score, bias, group choice and normalisation of one expert's logit


def dispatch_message_bytes(family: Family, dims: Dims) -> Bytes:
    """Bytes of one token on its way to one expert: 7.5 KB for 7168 INT8 values and their scale."""
    values, slot = dims.routed_hidden * family.input_element_bytes, family.form.message_slot
    return values + slot if slot else values


def combine_message_bytes(dims: Dims) -> Bytes:
    """Bytes of one token on its way back, in BF16."""
    return dims.routed_hidden * BF16


def _gated(
    prefix: str,
    *,
    operator: OperatorClass,
    tokens: Count,
    touched: Count,
    stored: Count,
    width: Count,
    family: Family,
    hidden: Count,
    routed: bool = False,
) -> Iterator[Op]:
    """Yield gate-up, activation and down of ``stored`` experts, of which ``touched`` are read.

    Weights narrower than what they meet are widened on the vector cores inside the products.
    """
    form, element = family.form, family.input_element_bytes
    flop = gated_feed_forward_flop(tokens=1, hidden_size=hidden, intermediate_size=width)
    stored_as, widened = (form.experts, form.widens_experts) if routed else (form.weights, form.widens_weights)
    weight = gated_feed_forward_bytes(hidden_size=hidden, intermediate_size=width, element_bytes=stored_as.bytes)
    yield Op(
        name=f"{prefix}.gate_up",
        operator=operator,
        engine=family.linear_engine,
        flop=tokens * (flop * 2 / 3),
        weight_bytes=touched * (weight * 2 / 3),
        resident_bytes=stored * (weight * 2 / 3),
        activation_bytes=tokens * (hidden * element + 2 * width * BF16),
        matrices=touched,
        rows=tokens / touched,
        columns=2 * width,
        unpacked=touched * (2 * hidden * width) if widened else None,
    )
    yield vector(
        f"{prefix}.activation",
        flop=tokens * (ACTIVATION_FLOP * width),
        traffic=tokens * (width * (2 * BF16 + element)),
    )
    yield Op(
        name=f"{prefix}.down",
        operator=operator,
        engine=family.linear_engine,
        flop=tokens * (flop / 3),
        weight_bytes=touched * (weight / 3),
        resident_bytes=stored * (weight / 3),
        activation_bytes=tokens * (width * element + hidden * BF16),
        matrices=touched,
        rows=tokens / touched,
        columns=hidden,
        unpacked=touched * (hidden * width) if widened else None,
    )


def routed_ops(q: Quantities, family: Family, dims: Dims) -> Iterator[Op]:
    """Yield the rows of the routed experts on the busiest rank, on one of the dies they are split over."""
    yield from _gated(
        "experts",
        operator="grouped_matmul",
        tokens=q.routed_tokens,
        touched=q.touched,
        stored=q.slots_per_rank,
        width=dims.moe_intermediate_size / q.expert_tp,
        family=family,
        hidden=dims.routed_hidden,
        routed=True,
    )


def shared_ops(q: Quantities, family: Family, dims: Dims) -> Iterator[Op]:
    """Yield the rows of the shared expert on a rank that holds one, or of a die's part of it over all tokens of a rank.

    The parts' sum is joined with that of the routed experts where these end with an AllReduce of the same width, else
    is one of its own.
    """
    parts = q.tp if family.splits_shared else 1
    if dims.shared_gate:  # one column, whole on every die; no start of its own and no product with it: errs fast
        yield linear(
            "shared.gate",
            rows=q.shared_tokens * parts,
            inner=dims.hidden_size,
            columns=1,
            weight_element_bytes=BF16,
            engine="cube_bf16",
            kernels=0,
        )
    yield from _gated(
        "shared",
        operator="matmul",
        tokens=q.shared_tokens * parts,
        touched=1,
        stored=1,
        width=dims.shared_width / parts,
        family=family,
        hidden=dims.hidden_size,
    )
    if family.splits_shared and (not family.sums_whole or dims.expert_hidden_size is not None):
        yield exchange_row(
            "shared.all_reduce", "all_reduce", group=parts, payload=q.shared_tokens * dims.hidden_size * BF16
        )


def dense_ops(q: Quantities, family: Family, dims: Dims) -> Iterator[Op]:
    """Yield the rows of a dense feed-forward.

    It is copied on every die, each working on its own tokens; split over dies of its own, which gather theirs; or
    split as attention is, where every die has all tokens of its rank and the sum is whole.
    """
    element, hidden = family.input_element_bytes, dims.hidden_size
    parts = q.tp if family.splits_layers else q.dense_tp if "dense" in family.split else 1
    own = q.tokens if family.splits_layers else q.rank_tokens
    yield from streams("dense.streams", tokens=own, dims=dims)
    yield norm_quant("dense.norm_quant", tokens=own, width=hidden, out_bytes=element)
    if "dense" in family.split:
        yield exchange_row("dense.gather", "all_gather", group=parts, payload=q.rank_tokens * hidden * element)
    yield from _gated(
        "dense",
        operator="matmul",
        tokens=own if family.splits_layers else own * parts,
        touched=1,
        stored=1,
        width=dims.intermediate_size / parts,
        family=family,
        hidden=hidden,
    )
    if family.splits_layers:
        yield exchange_row("dense.all_reduce", "all_reduce", group=parts, payload=q.rank_tokens * hidden * BF16)
    elif "dense" in family.split:
        yield exchange_row("dense.scatter", "reduce_scatter", group=parts, payload=q.rank_tokens * hidden * BF16)


def _messages(name: str, collective: Collective, q: Quantities, family: Family, dims: Dims, *, payload: Bytes) -> Op:
    """Row of an exchange: the busiest rank handles what it sends or what it gets, whichever is more.

    Of a rank that experts are split over, each die gets its share of the tokens.
    """
    if family.own_shared_ranks:
        received = maximum(q.routed_tokens, q.shared_tokens)
    elif family.split_experts:
        received = q.routed_tokens / q.expert_tp
    else:
        everywhere = minimum(dims.n_shared_experts, 1) * q.shared_tokens
        received = q.routed_tokens + everywhere if family.disaggregated else q.routed_tokens
    apart = family.disaggregated and family.phase == "decode"
    exchange = Exchange(
        collective=collective,
        group=q.group,
        payload=payload,
        messages=maximum(q.rank_tokens * q.copies, received),
        hops=2 if family.disaggregated else 1,
        copies=q.copies,
        n_group=dims.n_group,
        topk_group=dims.topk_group,
        attention_messages=q.rank_tokens * q.copies if apart else None,
        expert_messages=received if apart else None,
    )
    return Op(name=name, operator="exchange", engine="link", exchange=exchange, kernels=0)


def gate_ops(q: Quantities, family: Family, dims: Dims) -> Iterator[Op]:
    """Yield norm and router, which choose the experts of each token.

    With whole sums a die norms all tokens of its rank; it routes its own where tokens are dispatched.
    """
    hidden = dims.hidden_size
    tokens = q.tokens if family.sums_whole else q.rank_tokens
    normed = q.tokens if family.splits_layers else q.rank_tokens
    yield from streams("router.streams", tokens=normed, dims=dims)
    yield norm_quant("router.norm_quant", tokens=normed, width=hidden, out_bytes=family.input_element_bytes)
    yield linear(
        "router.logits",
        rows=tokens,
        inner=hidden,
        columns=dims.router_columns,
        weight_element_bytes=BF16,
        engine="cube_bf16",
    )
    yield vector(
        "router.top_k",
        flop=ROUTER_FLOP * tokens * dims.router_columns,
        traffic=tokens * dims.router_columns * 4,
    )
    if dims.expert_hidden_size is not None:
        yield linear(
            "router.narrow",
            rows=tokens,
            inner=hidden,
            columns=dims.expert_hidden_size,
            weight_element_bytes=BF16,
            engine="cube_bf16",
        )
        if family.disaggregated:  # what comes back is widened where it is added
            yield _widen(q, family, dims.expert_hidden_size, hidden)


def _widen(q: Quantities, family: Family, inner: Count, hidden: Count) -> Op:
    """Row of the product that gives the experts' sum the width of the model."""
    return linear(
        "exchange.widen",
        rows=q.tokens if family.sums_whole else q.rank_tokens,
        inner=inner,
        columns=hidden,
        weight_element_bytes=BF16,
        engine="cube_bf16",
    )


def expert_exchange_ops(q: Quantities, family: Family, dims: Dims) -> Iterator[Op]:
    """Yield the exchange of tokens between ranks, there and back.

    Dies that share an expert gather the tokens dispatched to it and split the sums: CANN's kernels do that inside,
    and a start more of each errs slow.  Where every die has all tokens there is nothing to add: the sum over the
    instance joins parts of experts as it joins experts.  Whole sums and dispatch together: each die dispatches its
    own tokens, and what comes back is gathered to all tokens of the rank again.
    """
    hidden = dims.routed_hidden
    there, back = dispatch_message_bytes(family, dims), combine_message_bytes(dims)
    messages = q.rank_tokens * q.copies
    if family.exchange == "gather":
        sent = back if family.sums_whole else there  # quantising before the gather came with the split sums
        if family.sums_whole:
            # each die has all tokens of its own rank: a share of them crosses between ranks, and is put together inside
            others = q.group / q.tp - 1
            share = q.rank_tokens * sent
            yield exchange_row("exchange.all_gather", "all_gather", group=q.group, payload=share, joined=q.tp)
            yield exchange_row("exchange.all_gather_inside", "all_gather", group=q.tp, payload=others * share)
        else:
            yield exchange_row("exchange.all_gather", "all_gather", group=q.group, payload=q.rank_tokens * sent)
        yield vector(
            "exchange.permute",
            flop=q.routed_tokens * hidden,
            traffic=q.routed_tokens * (2 * there + 2 * back) + q.group_tokens * back,
            kernels=2,
        )
        if family.sums_whole:
            yield exchange_row("exchange.all_reduce", "all_reduce", group=q.group, payload=q.rank_tokens * back)
        else:
            yield exchange_row("exchange.reduce_scatter", "reduce_scatter", group=q.group, payload=q.rank_tokens * back)
    elif family.phase == "decode":
        yield _messages("exchange.dispatch", "dispatch", q, family, dims, payload=there)
        if family.split_experts:
            among, copies = q.expert_tp, q.routed_tokens
            yield exchange_row("exchange.expert_gather", "dispatch", group=among, payload=there, messages=copies)
            yield exchange_row("exchange.expert_scatter", "combine", group=among, payload=back, messages=copies)
        yield _messages("exchange.combine", "combine", q, family, dims, payload=back)
    else:
        yield _messages("exchange.dispatch", "bulk_dispatch", q, family, dims, payload=there)
        yield vector(
            "exchange.permute",
            flop=messages * hidden,
            traffic=q.routed_tokens * 2 * there + messages * 2 * back,
            kernels=2,
        )
        yield _messages("exchange.combine", "bulk_combine", q, family, dims, payload=back)
    if dims.expert_hidden_size is not None and not family.disaggregated:
        yield _widen(q, family, dims.expert_hidden_size, dims.hidden_size)
    if family.splits_layers and not family.sums_whole:
        back = dims.hidden_size * BF16
        yield exchange_row("exchange.rejoin", "all_gather", group=q.tp, payload=q.rank_tokens * back)
