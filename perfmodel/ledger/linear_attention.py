"""Linear attention: a state that decode reads and writes whole, and prefill carries from chunk to chunk."""

from collections.abc import Iterator

from perfmodel.formulas.attention import chunkwise_flop, recurrent_flop
from perfmodel.ledger.around_attention import load_found, output_projection, output_quantisation
from perfmodel.ledger.caches import CHUNK, cache_of, linear_state_bytes
from perfmodel.ledger.records import Dims, Family, Op, Quantities
from perfmodel.ledger.rows import BF16, exchange_row, quantised, vector
from perfmodel.specs.attention import LinearSpec
from perfmodel.units import Count

GATED_NORM_FLOP = 8  # per element: norm, sigmoid and product


def linear_attention_ops(q: Quantities, family: Family, dims: Dims, spec: LinearSpec) -> Iterator[Op]:
    """Yield the rows of linear attention between its norm and the exchange of hidden states."""
    hidden = dims.hidden_size
    heads, values = spec.num_value_heads / q.tp, spec.value_width / q.tp
    mixed = (2 * spec.key_width + spec.value_width) / q.tp

    def product(name: str, inner: Count, columns: Count, *, ahead: bool = False) -> Op:
        return quantised(
            f"attention.{name}",
            family,
            rows=q.tokens,
            inner=inner,
            columns=columns,
            prefetched=ahead,
        )

    gates = heads if spec.decay == "channel" else 2 * heads  # of what is written, and of what is kept
    yield product("qkv", hidden, mixed + gates + (values if spec.gate_rank is None else 0), ahead=True)
    if spec.decay == "channel":
        yield product("decay_down", hidden, spec.key_head_dim)
        yield product("decay_up", spec.key_head_dim, spec.key_width / q.tp)
    if spec.gate_rank is not None:
        yield product("gate_down", hidden, spec.gate_rank)
        yield product("gate_up", spec.gate_rank, values)
    yield vector(
        "attention.convolution",
        flop=2 * spec.conv_kernel_dim * q.tokens * mixed,
        traffic=2 * BF16 * q.tokens * mixed,
    )
    if family.phase == "prefill":
        yield load_found(q, cache_of(spec, family))
    yield _state_op(q, family, spec, heads)
    if family.phase == "prefill" and family.context_parallel:
        # what a part of a prompt makes of any state before it: its own, and a matrix a head that turns the other
        both = heads * spec.key_head_dim * (spec.value_head_dim + spec.key_head_dim) * spec.state_bytes
        yield exchange_row("attention.state_gather", "all_gather", group=q.cp, payload=q.sequences * both)
    yield vector("attention.gated_norm", flop=GATED_NORM_FLOP * q.tokens * values, traffic=3 * BF16 * q.tokens * values)
    yield from output_quantisation(q, family, values)
    yield from output_projection(q, family, dims, values)


def _state_op(q: Quantities, family: Family, spec: LinearSpec, heads: Count) -> Op:
    """Row of the state: read once a sequence and written for every token that may turn out its last.

    In prefill it is read and written once a prompt; between the products of public kernels pass, written and read, the
    keys and values that a chunk's triangle was solved for, and a state a chunk.  Counted as one kernel, which errs low.
    """
    state = linear_state_bytes(spec) / q.tp
    dims = {"heads": heads, "key_dim": spec.key_head_dim, "value_dim": spec.value_head_dim}
    widths = (2 * spec.key_width + 2 * spec.value_width) / q.tp
    if family.phase == "decode":
        return Op(
            name="attention.state",
            operator="vector",
            engine="vector",
            flop=recurrent_flop(tokens=q.tokens, **dims),
            kv_bytes=q.sequences * (1 + q.queries) * state,
            activation_bytes=q.tokens * widths * BF16,
        )
    passed = heads * (spec.key_head_dim + spec.value_head_dim + spec.key_head_dim * spec.value_head_dim / CHUNK)
    return Op(
        name="attention.state",
        operator="batched_matmul",
        engine="cube_bf16",
        flop=chunkwise_flop(tokens=q.tokens, chunk=CHUNK, **dims),
        kv_bytes=2 * q.sequences * state,
        activation_bytes=q.tokens * (widths + 2 * passed) * BF16,
        matrices=heads * q.tokens / CHUNK,
        rows=CHUNK,
        columns=spec.value_head_dim,
    )
