"""Bytes of buffers and working space on one die, and what an engine may fill."""

from perfmodel.algebra import minimum
from perfmodel.units import Bytes, Count, Fraction


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


def engine_bytes(
    *, capacity: Bytes, reported: Fraction, share: Fraction, runtime: Bytes = 0, graphs: Bytes = 0
) -> Bytes:
    r"""Bytes that an engine has for weights, cache, activations and exchange buffers.

    .. math:: m = \min(r C s, r C - g) - o

    A framework sees r of the capacity C that the driver reports; the engine takes its share s of that.  In it is what
    the framework takes beside, o; captured graphs, g, come on top, so the engine cannot have what they need.
    Assumes that nothing else runs on the die; errs high where the runtime grows after start.
    Source: an engine's log, DeepSeek-V3 W8A8 on 64 GB A2 dies: 0.9 x 60.96 = 54.86 GiB, of which other 0.22, graphs
    0.79 on top.

    >>> m = engine_bytes(capacity=64.0, reported=60.96 / 64, share=0.9, runtime=0.22, graphs=0.79)
    >>> f"{m + 0.22:.2f} GiB, {m:.2f} without other"
    '54.86 GiB, 54.64 without other'
    """
    seen = capacity * reported
    return minimum(seen * share, seen - graphs) - runtime
