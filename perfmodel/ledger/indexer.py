"""The indexer of a sparse attention: its products, its scan over all keys."""

from collections.abc import Iterator

from perfmodel.formulas.attention import index_flop
from perfmodel.ledger.caches import index_key_bytes
from perfmodel.ledger.records import Dims, Family, Op, Quantities
from perfmodel.ledger.rows import BF16, linear, vector
from perfmodel.ledger.seen import Seen
from perfmodel.specs.attention import IndexerSpec
from perfmodel.units import Count


def indexer_ops(
    q: Quantities,
    family: Family,
    dims: Dims,
    spec: IndexerSpec,
    keys: Seen,
    *,
    query_rank: Count,
    key_columns: Count | None = None,
) -> Iterator[Op]:
    """Yield the rows of an indexer over ``keys``; none where the choice of another layer is shared.

    Every die of a tensor-parallel group has all of it, as engines do.  Its query comes from ``query_rank`` numbers; a
    key and a weight a head come from the hidden state, ``key_columns`` wide where a key is made of more.
    Source: [deepseek2025v32] section 2.1.
    """
    if spec.shared:
        return
    weight, engine = family.weight_element_bytes, family.linear_engine
    yield linear(
        "attention.index_query",
        rows=q.tokens,
        inner=query_rank,
        columns=spec.n_heads * spec.head_dim,
        weight_element_bytes=weight,
        engine=engine,
    )
    pooling = spec.head_dim if spec.pool > 1 else 0
    yield linear(
        "attention.index_key",
        rows=q.tokens,
        inner=dims.hidden_size,
        columns=spec.n_heads + (spec.head_dim + pooling if key_columns is None else key_columns),
        weight_element_bytes=weight,
        engine=engine,
    )
    decode = family.phase == "decode"
    yield Op(
        name="attention.index_scan",
        operator="attention_decode" if decode else "attention_prefill",
        engine="cube_bf16",
        flop=index_flop(pairs=keys.pairs, n_heads=spec.n_heads, head_dim=spec.head_dim),
        kv_bytes=keys.cached * index_key_bytes(spec, family) * spec.pool,
        activation_bytes=q.tokens * spec.n_heads * spec.head_dim * BF16,
        sequences=q.sequences,
        context=keys.context,
        heads=spec.n_heads,
        query_rows=spec.n_heads * q.queries if decode else None,
    )
    # scores are compared as they come, the choice alone is written
    yield vector("attention.top_k", flop=2 * keys.pairs, traffic=q.tokens * spec.topk * 4)
