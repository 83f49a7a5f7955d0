"""The indexer of a sparse attention: its products, its scan over all keys."""

from collections.abc import Iterator

from perfmodel.algebra import minimum
from perfmodel.formulas.attention import index_flop
from perfmodel.ledger.caches import index_key_bytes
from perfmodel.ledger.records import ENGINE_OF, Dims, Family, Op, Quantities
from perfmodel.ledger.rows import BF16, ROPE_FLOP, exchange_row, quantised, vector
from perfmodel.ledger.seen import Seen
from perfmodel.specs.attention import IndexerSpec
from perfmodel.units import Count

CANDIDATE_BYTES = 8  # a score and a position, 32 bits each
POSITION_BYTES = 4  # the position alone
INDEX_BYTES = 1  # of a number of a query that meets keys in eight bits
NORM_FLOP = 8  # per element of a key: its norm, and where it is stored in eight bits its scale
COMPARE_FLOP = 2  # of a score: with the least of the best so far, and a move


def index_columns(spec: IndexerSpec) -> int:
    """Columns of what makes a token's index key and its weight a head; a pooled key has a weight a channel beside."""
    return spec.n_heads + spec.head_dim * (2 if spec.pool > 1 else 1)


def choice_row(*, rows: Count, keys: Count, topk: Count) -> Op:
    """Row of the choice of ``topk`` of the ``keys`` that a query has scores of, for each of some queries.

    Compared are all scores, written is the choice alone.
    """
    return Op(
        name="attention.top_k",
        operator="top_k",
        engine="vector",
        flop=COMPARE_FLOP * rows * keys,
        activation_bytes=POSITION_BYTES * rows * minimum(topk, keys),
        rows=rows,
        context=keys,
    )


def indexer_ops(
    q: Quantities,
    family: Family,
    dims: Dims,
    spec: IndexerSpec,
    keys: Seen,
    *,
    query_rank: Count,
    key_columns: Count | None = None,
    key_rows: Count | None = None,
) -> Iterator[Op]:
    """Yield the rows of an indexer over ``keys``; none where the choice of another layer is shared.

    Every die of a tensor-parallel group has all of it, as engines do.  Its query comes from ``query_rank`` numbers; a
    key and a weight a head come from the hidden state, ``key_columns`` wide where a key is made of more, of
    ``key_rows`` tokens where not all are at hand.  Before the scan queries and keys are rotated, keys are normed and
    stored, and queries made as narrow as stored keys: passes of the vector cores, one kernel each, so errs slow where
    an engine fuses them.  The scan multiplies in the precision of stored keys, at the share that attention reaches in
    BF16.  A whole head is rotated, errs slow by the part that is not.  Dies that split a cache scan a
    part each, and join the best.
    Source: [deepseek2025v32] section 2.1.
    """
    if spec.shared:
        return
    yield quantised(
        "attention.index_query",
        family,
        rows=q.tokens,
        inner=query_rank,
        columns=spec.n_heads * spec.head_dim,
    )
    yield quantised(
        "attention.index_key",
        family,
        rows=q.tokens if key_rows is None else key_rows,
        inner=dims.hidden_size,
        columns=index_columns(spec) if key_columns is None else spec.n_heads + key_columns,
    )
    # each a pass of its own: no fused kernel of them is measured
    queries, kept = spec.n_heads * spec.head_dim, index_key_bytes(spec, family)
    yield vector(
        "attention.index_rope",
        flop=ROPE_FLOP * q.tokens * (queries + spec.head_dim),
        traffic=2 * BF16 * q.tokens * (queries + spec.head_dim),
    )
    yield vector(
        "attention.index_cache",
        flop=NORM_FLOP * q.tokens * spec.head_dim,
        traffic=q.tokens * (BF16 * spec.head_dim + kept),
    )
    narrow = family.cache_form.bytes < BF16
    if narrow:
        yield vector(
            "attention.index_quant", flop=2 * q.tokens * queries, traffic=q.tokens * (queries * (BF16 + INDEX_BYTES))
        )
    decode = family.phase == "decode"
    yield Op(
        name="attention.index_scan",
        operator="attention_decode" if decode else "attention_prefill",
        engine=ENGINE_OF[family.cache_form.index_unit],
        flop=index_flop(pairs=keys.pairs / q.dcp, n_heads=spec.n_heads, head_dim=spec.head_dim),
        kv_bytes=keys.cached / q.dcp * index_key_bytes(spec, family) * spec.pool,
        activation_bytes=q.tokens * queries * (INDEX_BYTES if narrow else BF16),
        sequences=q.sequences,
        context=keys.context / q.dcp,
        heads=spec.n_heads,
        query_rows=spec.n_heads * q.queries if decode else None,
    )
    yield choice_row(rows=q.tokens, keys=keys.pairs / q.tokens / q.dcp, topk=spec.topk / spec.pool)
    if decode and family.context_parallel:
        best = q.tokens * minimum(spec.topk / spec.pool, keys.context / q.dcp) * CANDIDATE_BYTES
        yield exchange_row("attention.index_gather", "all_gather", group=q.dcp, payload=best)
