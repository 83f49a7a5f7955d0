"""How much of the contexts before it an attention looks at: all, a window, a piece, a choice, compressed entries."""

from dataclasses import dataclass

from perfmodel.algebra import maximum, minimum
from perfmodel.formulas.attention import piece_share, piecewise_pairs, seen_share, windowed_pairs
from perfmodel.ledger.records import Family, Quantities
from perfmodel.units import Count


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """What attention cores of a rank work on: query-entry pairs, entries of all contexts, those of one sequence."""

    pairs: Count
    cached: Count
    context: Count


def whole(q: Quantities) -> Seen:
    """Return all of every context."""
    return Seen(pairs=q.pairs, cached=q.cached_tokens, context=q.context)


def newest(q: Quantities, family: Family, most: Count) -> Seen:
    """Return the newest ``most`` tokens of every context: of a window; of a choice, as many, wherever they stand."""
    if family.phase == "decode":
        share = seen_share(context=q.context, most=most)
        return Seen(pairs=q.pairs * share, cached=q.cached_tokens * share, context=q.context * share)
    before, new = _of_a_prompt(q)
    pairs = q.sequences / q.cp * windowed_pairs(before=before, new=new, most=most)
    cached = q.sequences * minimum(q.context, new + most)
    return Seen(
        pairs=minimum(pairs, q.pairs), cached=minimum(cached, q.cached_tokens), context=minimum(q.context, most)
    )


def own_piece(q: Quantities, family: Family, piece: Count) -> Seen:
    """Return of every context the piece of ``piece`` tokens that a query stands in, up to it."""
    if family.phase == "decode":
        share = piece_share(context=q.context, piece=piece)
        return Seen(pairs=q.pairs * share, cached=q.cached_tokens * share, context=q.context * share)
    before, new = _of_a_prompt(q)
    pairs = q.sequences / q.cp * piecewise_pairs(before=before, new=new, piece=piece)
    cached = q.sequences * minimum(q.context, new + piece)
    return Seen(
        pairs=minimum(pairs, q.pairs), cached=minimum(cached, q.cached_tokens), context=minimum(q.context, piece)
    )


def entries(q: Quantities, family: Family, ratio: Count, most: Count | None = None) -> Seen:
    """Return the entries that each stand for ``ratio`` tokens, at most ``most`` of them where that is given."""
    seen = whole(q) if most is None else newest(q, family, most * ratio)
    return Seen(pairs=seen.pairs / ratio, cached=seen.cached / ratio, context=seen.context / ratio)


def _of_a_prompt(q: Quantities) -> tuple[Count, Count]:
    """Return the tokens of one prompt before those at hand, and these; of several lengths, the mean."""
    new = q.tokens * q.cp / q.sequences
    return maximum(q.context - new, 0), new
