"""How much of the contexts before it an attention looks at: all, a window, a piece, a choice, compressed entries."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from perfmodel.algebra import maximum, minimum, total
from perfmodel.formulas.attention import causal_pairs, piece_share, piecewise_pairs, seen_share, windowed_pairs
from perfmodel.ledger.records import Family, Op, Quantities
from perfmodel.units import Count, Fraction


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """What attention cores of a rank work on: query-entry pairs, entries of all contexts, those of one sequence.

    ``edges`` are where what a query of a prompt sees ends inside a block of a kernel: how wide it is there, and the
    part of the queries that have such an end.
    """

    pairs: Count
    cached: Count
    context: Count
    edges: tuple[tuple[Count, Fraction], ...]


def whole(q: Quantities) -> Seen:
    """Return all of every context."""
    return Seen(pairs=q.pairs, cached=q.cached_tokens, context=q.context, edges=((q.context, 1),))


def newest(q: Quantities, family: Family, most: Count) -> Seen:
    """Return the newest ``most`` tokens of every context.

    Queries of a sequence that are verified together count as one window: errs low by a token for each draft.
    """
    if family.phase == "decode":
        return _part(q, seen_share(context=q.context, most=most))
    before, new = _of_a_prompt(q)
    pairs = windowed_pairs(before=before, new=new, most=most)
    seen = _of_prompts(q, pairs / causal_pairs(sequences=1, isl=new, prefix=before), most)
    # beside its diagonal it has an edge at its far end, for tokens from which more than the window lies behind; there
    # no more can be worked than lies beyond it
    beyond = maximum(0, before + new - most)
    far = minimum(most, beyond), minimum(new, beyond) / new
    return replace(seen, edges=(*seen.edges, far))


def chosen(q: Quantities, family: Family, most: Count) -> Seen:
    """Return a choice of ``most`` tokens of every context, wherever they stand.

    Queries of one sequence that are verified together have a choice each, so more is read than is worked a query:
    errs high where their choices are alike.
    """
    seen = newest(q, family, most)
    if family.phase == "prefill":
        return replace(seen, edges=seen.edges[:1])
    return replace(newest(q, family, most * q.queries), pairs=seen.pairs)


def own_piece(q: Quantities, family: Family, piece: Count) -> Seen:
    """Return of every context the piece of ``piece`` tokens that a query stands in, up to it."""
    if family.phase == "decode":
        return _part(q, piece_share(context=q.context, piece=piece))
    before, new = _of_a_prompt(q)
    pairs = piecewise_pairs(before=before, new=new, piece=piece)
    return _of_prompts(q, pairs / causal_pairs(sequences=1, isl=new, prefix=before), piece)


def visible(
    q: Quantities, family: Family, *, window: Count | None, topk: Count | None, piece: Count | None = None
) -> Seen:
    """Return what a kind of attention sees of every context: a window, its own piece, a choice, or all of it."""
    if window is not None:
        return newest(q, family, window)
    if piece is not None:
        return own_piece(q, family, piece)
    return whole(q) if topk is None else chosen(q, family, topk)


def entries(q: Quantities, family: Family, ratio: Count, most: Count | None = None) -> Seen:
    """Return the entries that each stand for ``ratio`` tokens, of which a query chooses ``most`` where that is given.

    One that is not full yet counts as its part: errs high by half an entry a query.
    """
    seen = whole(q) if most is None else chosen(q, family, most * ratio)
    return Seen(
        pairs=seen.pairs / ratio,
        cached=seen.cached / ratio,
        context=seen.context / ratio,
        edges=tuple((width / ratio, share) for width, share in seen.edges),
    )


def needed(q: Quantities, most: Count) -> Count:
    """Return the tokens of all prompts that a step's new tokens look at, at most so many behind each and themselves."""
    return minimum(q.cached_tokens, q.tokens * q.cp + q.sequences * most)


def _part(q: Quantities, share: Fraction) -> Seen:
    return Seen(pairs=q.pairs * share, cached=q.cached_tokens * share, context=q.context * share, edges=())


def _of_prompts(q: Quantities, share: Fraction, most: Count) -> Seen:
    """Return what prompts look at: a share of their pairs, and never more than ``most`` for each of their tokens.

    Of several lengths the share is that of their mean, which errs high: longer ones see a smaller part.
    """
    pairs = minimum(q.pairs * share, q.tokens * most)
    context = minimum(q.context, most)
    return Seen(pairs=pairs, cached=needed(q, most), context=context, edges=((context, 1),))


def in_part(core: Op, seen: Iterable[Seen], tokens: Count) -> Op:
    """Return the core of a prompt whose ``tokens`` see a part of what is before them, or several parts."""
    parts = list(seen)
    return replace(
        core,
        seen=total(one.pairs for one in parts) / tokens,
        edges=tuple(edge for one in parts for edge in one.edges),
    )


def _of_a_prompt(q: Quantities) -> tuple[Count, Count]:
    """Return the tokens of one prompt that were found ready, and its new ones, of all chunks; of the busiest rank."""
    new = q.tokens * q.cp / q.sequences
    return q.cached_tokens / q.sequences - new * (q.steps + 1) / 2, new * q.steps
