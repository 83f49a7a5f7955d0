"""What a plan uses outside of what was measured, in words."""

from collections.abc import Iterable

from perfmodel.algebra import as_float
from perfmodel.ledger.records import Layout
from perfmodel.prediction.deployment import PoolPlan
from perfmodel.prediction.headroom import dispatched_tokens, most_dispatched
from perfmodel.prediction.layouts import needs_cores_to_exchange
from perfmodel.prediction.scenario import ledger_of
from perfmodel.prediction.serving import Case
from perfmodel.specs.kernels import LinkKernel
from perfmodel.supply.rates import Rates

NO_CORES_LEFT = (
    "extrapolated: link overlap with dispatch and combine, which run on the vector cores that the other "
    "micro-batch needs; published deployments split the cores or gather"
)
LARGER = "extrapolated: {what} was measured up to {limit:.0f} tokens a die; here {tokens:.0f}"
UNMEASURED = "extrapolated: {what} was measured on {covered}; here it runs over {used}"
ON_NO_LINK = "extrapolated: {what} was measured on no link; here it runs over {used}"


def extrapolations(plan: PoolPlan, case: Case) -> list[str]:
    """Return what this plan uses outside what was measured."""
    ledger = ledger_of(plan, case, case.traffic)
    found: dict[str, None] = {}
    family = plan.family
    if needs_cores_to_exchange(family.phase, family.overlap, family.exchange):
        found[NO_CORES_LEFT] = None
    tokens, limit = dispatched_tokens(Layout.of(plan.layout), family), most_dispatched(case.rates, family)
    if limit is not None and as_float(tokens) > limit:
        found[LARGER.format(what="dispatch", limit=limit, tokens=tokens)] = None
    for ops in ledger.parts.values():
        for op in ops:
            if op.exchange is None or as_float(op.exchange.group) <= 1:
                continue
            used = spanned_links(as_float(op.exchange.group), case.rates)
            kernel = case.rates.kernels[op.kernel]
            assert isinstance(kernel, LinkKernel)
            if not set(used) <= set(kernel.covers):
                text = (UNMEASURED if kernel.covers else ON_NO_LINK).format(
                    what=op.exchange.collective.replace("_", " "),
                    covered=", ".join(kernel.covers),
                    used=", ".join(used),
                )
                found[text] = None
    return list(found)


def spanned_links(group: float, rates: Rates) -> list[str]:
    """Return the links that a group of dies spans, inner first."""
    links, inner = [], 1.0
    for tier in rates.tiers:
        if group > inner:
            links.append(tier.link)
        inner = as_float(tier.dies)
    return links


def careful_rows(notes: Iterable[str]) -> list[tuple[str, str]]:
    """Return as lines of an answer that some of what it rests on was never measured so; the notes say what."""
    count = sum("extrapolated: " in note for note in notes)
    if not count:
        return []
    return [("careful", f"extrapolated in {count} respect{'' if count == 1 else 's'}: --show notes")]
