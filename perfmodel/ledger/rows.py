"""Small builders of common rows: a linear layer, a batched product, a vector operator, a collective."""

from collections.abc import Iterator

from perfmodel.formulas.linear import matmul_flop, matrix_bytes
from perfmodel.ledger.records import Collective, Dims, Engine, Exchange, Family, Op, OperatorClass
from perfmodel.units import Bytes, Count, Flop

BF16 = 2
ROPE_FLOP = 3  # per element: two products and a sum of the 2 x 2 rotation


def linear(
    name: str,
    *,
    rows: Count,
    inner: Count,
    columns: Count,
    weight_element_bytes: int | float,
    engine: Engine,
    input_element_bytes: int | float | None = None,
    widened: bool = False,
    kernels: Count = 1,
    operator: OperatorClass = "matmul",
    prefetched: bool = False,
) -> Op:
    """Row of a dense layer: its weights, its inputs, as wide as these unless it is said, and its BF16 outputs."""
    taken = weight_element_bytes if input_element_bytes is None else input_element_bytes
    weight = matrix_bytes(rows=inner, columns=columns, element_bytes=weight_element_bytes)
    return Op(
        name=name,
        operator=operator,
        engine=engine,
        prefetched=prefetched,
        flop=matmul_flop(rows=rows, inner=inner, columns=columns),
        weight_bytes=weight,
        resident_bytes=weight,
        activation_bytes=rows * (inner * taken + columns * BF16),
        kernels=kernels,
        rows=rows,
        columns=columns,
        unpacked=inner * columns if widened else None,
    )


def quantised(
    name: str,
    family: Family,
    *,
    rows: Count,
    inner: Count,
    columns: Count,
    kernels: Count = 1,
    operator: OperatorClass = "matmul",
    prefetched: bool = False,
) -> Op:
    """Row of a dense layer in the precision of the run."""
    return linear(
        name,
        rows=rows,
        inner=inner,
        columns=columns,
        weight_element_bytes=family.weight_element_bytes,
        engine=family.linear_engine,
        input_element_bytes=family.input_element_bytes,
        widened=family.form.widens_weights,
        kernels=kernels,
        operator=operator,
        prefetched=prefetched,
    )


def batched(
    name: str,
    *,
    matrices: Count,
    rows: Count,
    inner: Count,
    columns: Count,
    kernels: Count = 1,
    prefetched: bool = False,
) -> Op:
    """Row of one BF16 product for each of several matrices, as of the heads of an attention."""
    weight = matrices * matrix_bytes(rows=inner, columns=columns, element_bytes=BF16)
    return Op(
        name=name,
        operator="batched_matmul",
        engine="cube_bf16",
        prefetched=prefetched,
        flop=matrices * matmul_flop(rows=rows, inner=inner, columns=columns),
        weight_bytes=weight,
        resident_bytes=weight,
        activation_bytes=matrices * rows * (inner + columns) * BF16,
        kernels=kernels,
        matrices=matrices,
        rows=rows,
        columns=columns,
    )


def vector(name: str, *, flop: Flop, traffic: Bytes, kernels: Count = 1) -> Op:
    """Row of element-wise work on the vector cores."""
    return Op(name=name, operator="vector", engine="vector", flop=flop, activation_bytes=traffic, kernels=kernels)


def norm_quant(name: str, *, tokens: Count, width: Count, out_bytes: int | float, kernels: Count = 1) -> Op:
    """Row of a residual add, RMS norm and dynamic quantisation in one pass."""
    return vector(
        name, flop=8 * tokens * width, traffic=tokens * width * (2 * BF16 + BF16 + out_bytes), kernels=kernels
    )


def exchange_row(
    name: str, collective: Collective, *, group: Count, payload: Bytes, joined: Count = 1, messages: Count = 1
) -> Op:
    """Row of a collective among ``group`` dies, of which ``joined`` hold the same; it costs nothing among one set."""
    exchange = Exchange(collective=collective, group=group, payload=payload, joined=joined, messages=messages)
    return Op(name=name, operator="exchange", engine="link", exchange=exchange, kernels=0)


def streams(name: str, *, tokens: Count, dims: Dims) -> Iterator[Op]:
    """Yield the mixing of a residual of several streams before and after one part of a layer; none of one stream.

    A product over all n streams gives n^2 + 2 n weights a token: what goes in, what comes out and where to, what goes
    from stream to stream.  With them every stream is read and written once.
    Source: [xie2025mhc] section 4; norm of the streams and normalisation of the weights are left out.
    """
    if dims.hc_mult > 1:
        width, weights = dims.hc_mult * dims.hidden_size, dims.hc_mult * (dims.hc_mult + 2)
        yield linear(
            f"{name}_weights",
            rows=tokens,
            inner=width,
            columns=weights,
            weight_element_bytes=BF16,
            engine="cube_bf16",
        )
        yield vector(name, flop=2 * weights * tokens * dims.hidden_size, traffic=2 * BF16 * tokens * width)
