"""Attention of any kind -> rows of one layer: norm, the kind's own, the exchange of hidden states."""

from collections.abc import Iterator
from typing import assert_never

from perfmodel.ledger.compressed_attention import compressed_ops
from perfmodel.ledger.grouped_attention import grouped_ops
from perfmodel.ledger.latent_attention import latent_ops
from perfmodel.ledger.linear_attention import linear_attention_ops
from perfmodel.ledger.records import Collective, Dims, Family, Op, Quantities
from perfmodel.ledger.rows import BF16, exchange_row, norm_quant, streams
from perfmodel.specs.attention import AttentionSpec, CompressedSpec, GqaSpec, LinearSpec, MlaSpec


def _reshard(q: Quantities, family: Family, dims: Dims) -> Iterator[Op]:
    """Yield the exchanges of hidden states that tensor parallelism adds; all cost nothing at tp 1."""

    def row(name: str, collective: Collective, element_bytes: int | float) -> Op:
        return exchange_row(name, collective, group=q.tp, payload=q.rank_tokens * dims.hidden_size * element_bytes)

    match family.reduction:
        case "all_reduce":
            yield row("attention.all_reduce", "all_reduce", BF16)
        case "scatter_gather":
            yield row("attention.reduce_scatter", "reduce_scatter", BF16)
            yield row("attention.gather", "all_gather", family.input_element_bytes)
        case "all_to_all":
            yield row("attention.gather", "all_gather", family.input_element_bytes)
        case "sp_tp_sp":
            pass  # the low-rank inputs were gathered in their place
        case _:
            assert_never(family.reduction)


def attention_ops(q: Quantities, family: Family, dims: Dims, spec: AttentionSpec) -> Iterator[Op]:
    """Yield the rows of one attention layer on one die."""
    own = q.tokens if family.reduction == "all_reduce" else q.rank_tokens
    yield from streams("attention.streams", tokens=own, dims=dims)
    yield norm_quant("attention.norm_quant", tokens=own, width=dims.hidden_size, out_bytes=family.input_element_bytes)
    match spec:
        case MlaSpec():
            yield from latent_ops(q, family, dims, spec)
        case GqaSpec():
            yield from grouped_ops(q, family, dims, spec)
        case LinearSpec():
            yield from linear_attention_ops(q, family, dims, spec)
        case CompressedSpec():
            yield from compressed_ops(q, family, dims, spec)
        case _:
            assert_never(spec)
    yield from _reshard(q, family, dims)
