"""Bytes of buffers and working space on one die."""

from perfmodel.units import Bytes, Count


def exchange_buffer_bytes(*, ranks: Count, tokens: Count, dispatch_bytes: Bytes, combine_bytes: Bytes) -> Bytes:
    r"""Receive buffers of dispatch and combine: one slot per sending rank and token.

    .. math:: w = n\,t\,(b_\mathrm{disp} + b_\mathrm{comb})

    Source: [zuo2025] section 4.2.1: 225 + 420 MB at 320 ranks and 96 tokens (binary units).

    >>> w = exchange_buffer_bytes(ranks=320, tokens=96, dispatch_bytes=7.5 * 1024, combine_bytes=14 * 1024)
    >>> f"{w / 2**20:.0f} MiB"
    '645 MiB'
    """
    return ranks * tokens * (dispatch_bytes + combine_bytes)


def workspace_bytes(
    *,
    tokens: Count,
    hidden_size: Count,
    head_width: Count,
    element_bytes: Bytes,
    context: Count = 0,
    unfolded_width: Count = 0,
) -> Bytes:
    """Working space of one layer: four hidden-wide buffers, the heads' queries and outputs, keys and values unfolded.

    ``unfolded_width`` is of the keys and values that prefill makes of each of ``context`` cached tokens.

    Assumed from the data flow of one layer (residual, normed input, gathered and returned tokens);
    errs low where a framework keeps more alive.  Source: assumption.

    >>> workspace_bytes(tokens=1, hidden_size=7168, head_width=0, element_bytes=2)
    57344
    """
    return (tokens * (4 * hidden_size + head_width) + context * unfolded_width) * element_bytes
