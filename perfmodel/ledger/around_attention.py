"""Rows around every kind of attention core: caches fetched and gathered, gate, output projection."""

from collections.abc import Iterator
from dataclasses import replace

from perfmodel.algebra import maximum, minimum
from perfmodel.ledger.caches import Cache
from perfmodel.ledger.records import Dims, Family, Op, Quantities
from perfmodel.ledger.rows import BF16, exchange_row, quantised, vector
from perfmodel.ledger.seen import needed
from perfmodel.specs.attention import OutputGate
from perfmodel.units import Bytes, Count

GATE_FLOP = 5  # per element: sigmoid and product


def output_gate(
    q: Quantities, family: Family, dims: Dims, gate: OutputGate, *, heads: Count, head_dim: Count
) -> Iterator[Op]:
    """Yield what makes the gate of an attention's output from its input, and multiplies with it."""
    if gate == "none":
        return
    yield quantised(
        "attention.gate",
        family,
        rows=q.tokens,
        inner=dims.hidden_size,
        columns=heads if gate == "head" else heads * head_dim,
    )
    width = heads * head_dim
    yield vector("attention.gated", flop=GATE_FLOP * q.tokens * width, traffic=3 * BF16 * q.tokens * width)


def gather_context(q: Quantities, family: Family, cache: Cache) -> Iterator[Op]:
    """Yield what brings a prompt's context to a die that works on a part of its tokens: all that any of them sees.

    Of a window a die needs no more than its neighbours' newest tokens, so errs high.
    """
    if family.context_parallel:
        part = q.cached_tokens / q.cp * cache.per_token
        for each, most in cache.windows:
            part = part + needed(q, most) / q.cp * each
        yield exchange_row("attention.context_gather", "all_gather", group=q.cp * q.tp, payload=part, joined=q.tp)


def output_projection(q: Quantities, family: Family, dims: Dims, inner: Count) -> Iterator[Op]:
    """Yield the projection of a die's heads, ``inner`` wide together, and the exchanges of its parallel form."""
    element, hidden = family.input_element_bytes, dims.hidden_size
    if family.swaps_heads:
        # each die gets all heads of its own tokens, so nothing is left to sum
        yield exchange_row("attention.swap_heads", "all_to_all", group=q.tp, payload=q.rank_tokens * inner * element)
        whole = quantised(
            "attention.o_proj",
            family,
            rows=q.rank_tokens,
            inner=inner * q.tp,
            columns=hidden,
        )
        yield replace(whole, resident_bytes=whole.weight_bytes / q.tp) if family.o_proj_sharded else whole
        return
    if "o_proj" not in family.split:
        yield quantised(
            "attention.o_proj",
            family,
            rows=q.tokens,
            inner=inner,
            columns=hidden,
        )
        return
    parts = q.o_proj_tp
    yield exchange_row("attention.swap_heads", "all_to_all", group=parts, payload=q.tokens * inner / parts * element)
    yield quantised(
        "attention.o_proj",
        family,
        rows=q.tokens * parts,
        inner=inner / parts,
        columns=hidden,
    )
    yield exchange_row("attention.o_proj_scatter", "reduce_scatter", group=parts, payload=q.tokens * hidden * BF16)


def output_quantisation(q: Quantities, family: Family, width: Count) -> Iterator[Op]:
    """Yield the dynamic quantisation of the attention's output, which no norm comes before."""
    if family.form.quantises:
        yield vector(
            "attention.output_quant",
            flop=2 * q.tokens * width,
            traffic=q.tokens * width * (BF16 + family.input_element_bytes),
        )


def load_found(q: Quantities, cache: Cache) -> Op:
    """Return the read of the caches of earlier prompts that new ones begin with; ``cache`` is that of all dies.

    Every token's entries, the newest tokens' where a window looks back on these alone, and a snapshot of a state, all
    once a prompt.  The dies of a rank share it, whatever part of it each then keeps.
    """
    found = q.loaded_tokens * cache.per_token
    for each, most in cache.windows:
        found = found + minimum(q.loaded_tokens, q.sequences * most / q.steps) * each
    if cache.state is not None:
        found = found + minimum(q.loaded_tokens, q.sequences / q.steps) * cache.state
    found = found / (q.tp * q.cp)
    return Op(name="attention.prefix_load", operator="pool_read", engine="link", kv_bytes=found, kernels=0)


def fetch_offloaded(q: Quantities, family: Family, read: Bytes, *, chosen: bool) -> Iterator[Op]:
    """Yield the fetch of the entries that a step reads of the growing cache and does not find on the die.

    What reads all finds the part that is resident.  A choice finds ``kv_hit`` of it where that is more: it is much like
    that of the step before, and a die keeps what was chosen lately.  Windows, states and index keys stay on the die.
    Source: counting.
    """
    if family.offloads:
        hit = maximum(q.kv_resident, q.kv_hit) if chosen else q.kv_resident
        yield Op(name="attention.kv_fetch", operator="host_read", engine="link", kv_bytes=read * (1 - hit), kernels=0)
