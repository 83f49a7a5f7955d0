"""FLOP and bytes of matrix products."""

from perfmodel.units import Bytes, Count, Flop


def matmul_flop(*, rows: Count, inner: Count, columns: Count) -> Flop:
    r"""FLOP of a product of a (rows x inner) by an (inner x columns) matrix.

    .. math:: F = 2\,m\,k\,n

    A multiply-add counts two.  Source: definition.

    >>> matmul_flop(rows=1, inner=7168, columns=1536)
    22020096
    """
    return 2 * rows * inner * columns


def matrix_bytes(*, rows: Count, columns: Count, element_bytes: Bytes) -> Bytes:
    """Bytes of a dense matrix, scales and padding ignored (under 0.1 % for per-channel scales).

    Source: definition.

    >>> matrix_bytes(rows=7168, columns=2048, element_bytes=1)
    14680064
    """
    return rows * columns * element_bytes
