"""Attention to the newest tokens and to compressed entries of all before: one vector is key and value for all heads."""

from collections.abc import Iterator
from dataclasses import replace

from perfmodel.formulas.attention import shared_vector_flop
from perfmodel.ledger.around_attention import (
    fetch_offloaded,
    gather_context,
    load_found,
    output_projection,
    output_quantisation,
)
from perfmodel.ledger.caches import cache_of, entry_bytes
from perfmodel.ledger.indexer import indexer_ops
from perfmodel.ledger.records import Dims, Family, Op, OperatorClass, Quantities
from perfmodel.ledger.rows import BF16, ROPE_FLOP, quantised, vector
from perfmodel.ledger.seen import Seen, entries, in_part, newest
from perfmodel.specs.attention import CompressedSpec
from perfmodel.units import Count


def compressed_ops(q: Quantities, family: Family, dims: Dims, spec: CompressedSpec) -> Iterator[Op]:
    """Yield the rows of compressed attention between its norm and the exchange of hidden states."""
    hidden = dims.hidden_size
    heads = spec.num_attention_heads / q.tp
    made = 2 * spec.overlap * spec.head_dim if spec.compress_ratio else 0  # content and weight of an entry's vectors
    yield quantised(
        "attention.qkv_down",
        family,
        rows=q.tokens,
        inner=hidden,
        columns=spec.q_lora_rank + spec.head_dim + made,
        prefetched=True,
    )
    yield quantised(
        "attention.q_up",
        family,
        rows=q.tokens,
        inner=spec.q_lora_rank,
        columns=heads * spec.head_dim,
        prefetched=True,
    )
    width = heads * spec.head_dim + spec.head_dim + made
    yield vector("attention.rope_cache", flop=ROPE_FLOP * q.tokens * width, traffic=2 * BF16 * q.tokens * width)
    if spec.indexer is not None:
        yield from indexer_ops(
            q,
            family,
            dims,
            spec.indexer,
            entries(q, family, spec.compress_ratio),
            query_rank=spec.q_lora_rank,
            key_columns=2 * spec.overlap * spec.indexer.head_dim,
        )
    if family.phase == "prefill":
        yield from gather_context(q, family, cache_of(spec, family, q.tp))
        yield load_found(q, cache_of(spec, family))
    elif spec.compress_ratio:
        read = looked_at(q, family, spec)[1].cached * entry_bytes(spec, family)
        yield from fetch_offloaded(q, family, read, chosen=spec.indexer is not None)
    yield _core(q, family, spec, heads)
    yield from output_quantisation(q, family, heads * spec.head_dim)
    # one matrix a group of heads, each with its own inputs and outputs
    groups = spec.o_groups / q.tp
    each = quantised(
        "attention.o_down",
        family,
        rows=q.tokens,
        inner=heads * spec.head_dim / groups,
        columns=spec.o_lora_rank,
    )
    yield replace(
        each,
        matrices=groups,
        flop=each.flop * groups,
        weight_bytes=each.weight_bytes * groups,
        resident_bytes=each.resident_bytes * groups,
        activation_bytes=each.activation_bytes * groups,
        unpacked=None if each.unpacked is None else each.unpacked * groups,
    )
    yield from output_projection(q, family, dims, spec.o_groups * spec.o_lora_rank / q.tp)


def looked_at(q: Quantities, family: Family, spec: CompressedSpec) -> tuple[Seen, ...]:
    """Return the newest tokens, and the entries beside them where there are any."""
    window = newest(q, family, spec.sliding_window)
    if not spec.compress_ratio:
        return (window,)
    most = None if spec.indexer is None else spec.indexer.topk
    return window, entries(q, family, spec.compress_ratio, most)


def _core(q: Quantities, family: Family, spec: CompressedSpec, heads: Count) -> Op:
    """Row of the core: all heads read the same vectors.

    In prefill each token reads its own choice of entries; a window and entries that all read pass once.
    """
    seen, entry = looked_at(q, family, spec), entry_bytes(spec, family)
    pairs = sum((one.pairs for one in seen[1:]), seen[0].pairs)
    decode = family.phase == "decode"
    read = seen[0].cached
    if len(seen) > 1:
        read = read + (seen[1].pairs if spec.indexer and not decode else seen[1].cached)
    of_decode: OperatorClass = "attention_decode" if spec.indexer is None else "sparse_attention_decode"
    core = Op(
        name="attention.core",
        operator=of_decode if decode else "attention_prefill",
        engine="cube_bf16",
        flop=shared_vector_flop(query_context_pairs=pairs, heads=heads, head_dim=spec.head_dim),
        kv_bytes=read * entry,
        activation_bytes=q.tokens * 2 * heads * spec.head_dim * BF16,
        sequences=q.sequences,
        context=sum((one.context for one in seen[1:]), seen[0].context),
        heads=heads,
        # rows of a tile read one cache: of queries that choose for themselves, the heads of one
        query_rows=heads * (q.queries if spec.indexer is None else 1) if decode else None,
    )
    return core if decode else in_part(core, seen, q.tokens)
