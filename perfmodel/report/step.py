"""One evaluated layout -> a document: what it serves, every operator, every block, memory."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from perfmodel.breakdown import Breakdown, breakdown
from perfmodel.ledger.records import Layout
from perfmodel.ledger.step import build_ledger
from perfmodel.machine import Known
from perfmodel.rates import Rates
from perfmodel.report.assumptions import assumption_table
from perfmodel.report.kernels import kernel_tables
from perfmodel.report.quantity import ends_in_words
from perfmodel.report.table import Column, Document, Table
from perfmodel.scenario import Resolved
from perfmodel.sensitivity import Swing
from perfmodel.serving import Case
from perfmodel.solver.plan import PoolPlan
from perfmodel.solver.search import exact_pool
from perfmodel.solver.space import needs_cores_to_exchange
from perfmodel.specs.kernels import KernelSetSpec, LinkKernel, MessageKernel
from perfmodel.uncertainty import PoolRange

NO_CORES_LEFT = (
    "extrapolated: link overlap with dispatch and combine, which run on the vector cores that the other "
    "micro-batch needs; published deployments split the cores or gather"
)
LARGER = "extrapolated: {what} was measured up to {limit:.0f} tokens a die; here {tokens:.0f}"
UNMEASURED = "extrapolated: {what} was measured on {covered}; here it runs over {used}"


def plan_breakdown(plan: PoolPlan, case: Case, ideal: Rates) -> Breakdown:
    """Return where the time of a pool's step goes."""
    layout = Layout.of(plan.layout)
    ledger = build_ledger(layout, plan.family, case.traffic, case.model, case.dims)
    return breakdown(ledger, plan.family, layout.attention_cores, case.rates, ideal)


def extrapolations(plan: PoolPlan, case: Case) -> list[str]:
    """Return what this plan uses outside what was measured."""
    layout = Layout.of(plan.layout)
    ledger = build_ledger(layout, plan.family, case.traffic, case.model, case.dims)
    found: dict[str, None] = {}
    family = plan.family
    if needs_cores_to_exchange(family.phase, family.overlap, family.exchange):
        found[NO_CORES_LEFT] = None
    tokens = layout.batch * (1 + layout.draft) / family.micro / layout.tp
    limit = float(case.rates.kernel("dispatch", MessageKernel).max_tokens_per_die)  # type: ignore[arg-type]
    if family.phase == "decode" and family.exchange == "dispatch" and float(tokens) > limit:  # type: ignore[arg-type]
        found[LARGER.format(what="dispatch", limit=limit, tokens=tokens)] = None
    for ops in ledger.parts.values():
        for op in ops:
            if op.exchange is None or float(op.exchange.group) <= 1:  # type: ignore[arg-type]
                continue
            used = spanned_links(float(op.exchange.group), case.rates)  # type: ignore[arg-type]
            kernel = case.rates.kernels[op.kernel]
            assert isinstance(kernel, LinkKernel)
            if not set(used) <= set(kernel.covers):
                text = UNMEASURED.format(
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
        inner = float(tier.dies)  # type: ignore[arg-type]
    return links


def sizes(dies: int, rates: Rates) -> str:
    """Return an instance's size in all three counts."""
    counts = ((dies, "die"), (dies / rates.dies_per_package, "card"), (dies / rates.dies_per_server, "server"))
    return " = ".join(f"{count:g} {word}{'' if count == 1 else 's'}" for count, word in counts)


def operator_table(parts: Breakdown) -> Table:
    """One row per operator and block."""
    step = parts.step_time
    rows = [
        {
            "block": row.block,
            "operator": row.name,
            "lane": row.lane,
            "runs": row.runs,
            "time": row.total,
            "share": row.total / step if row.decides else None,
            "bar": row.total / step if row.decides else None,
            "bound": row.timed.bound,
            "light": row.ideal_total / row.total if row.total else None,
            "flop": row.runs * float(row.timed.op.flop),  # type: ignore[arg-type]
            "bytes": row.runs * float(row.timed.op.bytes),  # type: ignore[arg-type]
            "link_bytes": row.runs * float(row.timed.op.sent),  # type: ignore[arg-type]
        }
        for row in parts.rows
    ]
    outside = {"gaps between operators": parts.gaps, "prefetched weights": -parts.prefetched}
    outside["work beside exchanges"] = -parts.hidden
    outside["host, launch, sampling"] = parts.overhead
    rows += [
        {
            "block": "step",
            "operator": name,
            "lane": "all",
            "runs": 1.0,
            "time": time,
            "share": time / step,
            "bar": time / step,
            "bound": "fixed",
            "light": 0.0,
            "flop": 0.0,
            "bytes": 0.0,
            "link_bytes": 0.0,
        }
        for name, time in outside.items()
        if time
    ]
    columns = (
        Column("block", "block", group=True),
        Column("operator", "operator"),
        Column("lane", "lane", spare=5),
        Column("runs", "runs", "1", spare=4),
        Column("time", "time", "s"),
        Column("share", "share", "%"),
        Column("bar", "", "bar", spare=3),
        Column("bound", "bound"),
        Column("light", "of light", "%"),
        Column("flop", "FLOP", "FLOP", spare=2),
        Column("bytes", "bytes", "B", spare=1),
        Column("link_bytes", "link", "B", spare=1),
    )
    note = (
        "time, FLOP and bytes are of all runs in a step; rows without a share run beside the lane that decides, "
        "shares of the others add up to the step; of light: time with all efficiencies 1 and no fixed costs / time"
    )
    return Table("Operators of one step, on the busiest die", columns, tuple(rows), (note,))


def block_table(parts: Breakdown) -> Table:
    """One row per block: lanes, who decides, slack."""
    rows = tuple(
        {
            "block": b.name,
            "count": b.count,
            "layer": b.layer,
            "total": b.total,
            "attention": b.attention,
            "experts": b.experts,
            "link": b.link,
            "decides": b.decides,
            "slack": b.slack,
        }
        for b in parts.blocks
    )
    columns = (
        Column("block", "block"),
        Column("count", "count", "1"),
        Column("layer", "one layer", "s"),
        Column("total", "total", "s"),
        Column("attention", "attention", "s", spare=1),
        Column("experts", "experts", "s", spare=1),
        Column("link", "of it link", "s", spare=2),
        Column("decides", "decides"),
        Column("slack", "slack", "s", spare=3),
    )
    total = f"blocks, gaps and overhead add up to the step time of {parts.step_time * 1e3:.3f} ms"
    return Table("Blocks", columns, rows, (total,))


def memory_table(plan: PoolPlan, rates: Rates) -> Table:
    """Bytes of one die, planned and worst."""
    held: Any = plan.point.footprint
    usable = float(plan.point.usable)  # type: ignore[arg-type]
    capacity, runtime = float(rates.capacity), float(rates.runtime)  # type: ignore[arg-type]
    reserve = capacity - usable - runtime
    rows = [
        ("weights, replicas included", held.weights, held.weights),
        ("KV cache (planned: mean + 3 sigma; worst: all at maximum)", held.kv, held.kv_worst),
        ("exchange buffers", held.buffers, held.buffers),
        ("working space", held.workspace, held.workspace),
        ("runtime", runtime, runtime),
        ("reserve", reserve, reserve),
        ("free", usable - held.planned, usable - held.worst),
        ("HBM as the driver reports it", capacity, capacity),
    ]
    columns = (Column("what", "memory of one die"), Column("planned", "planned", "B"), Column("worst", "worst", "B"))
    return Table("Memory", columns, tuple({"what": w, "planned": float(p), "worst": float(x)} for w, p, x in rows))


def longest_context(plan: PoolPlan) -> float:
    """Longest context of one request that still fits with the rest of the batch as planned."""
    held: Any = plan.point.footprint
    free = float(plan.point.usable) - float(held.planned)  # type: ignore[arg-type]
    mean = float(held.kv) / plan.layout.batch
    return max(0.0, (free + mean) / float(held.kv_bytes_per_token_of_die))


def tpot_over_context(plan: PoolPlan, case: Case, added: float = 0.0) -> dict[str, float]:
    """Return TPOT with every request of the batch at its first and at its last token; ``added`` is prefill's."""
    ends = {"start": case.isl, "end": case.isl + case.osl}
    found: dict[str, float] = {}
    for name, context in ends.items():
        point: Any = exact_pool(plan.layout, plan.family, replace(case, isl=context, osl=1)).point
        found[name] = float(point.tpot) + added
    return found


def step_document(
    resolved: Resolved,
    ideal: Rates,
    *,
    model: str,
    system: str,
    acceptance: str,
    felt: Sequence[Swing],
    tpot: float | None,
    sure: PoolRange,
    kernels: Mapping[str, Known[KernelSetSpec]] | None = None,
) -> Document:
    """Return the whole explanation of one layout; ``kernels`` adds the parameters of its rows."""
    plan, case = resolved.plan, resolved.scenario.case
    parts = plan_breakdown(plan, case, ideal)
    point: Any = plan.point
    decode = plan.family.phase == "decode"
    cards = plan.layout.dies / case.rates.dies_per_package
    step_ends = sure.step_time.as_dict()
    card_ends = {end: value / cards for end, value in sure.tokens_per_s.as_dict().items()}
    facts: dict[str, Any] = {
        "model": model,
        "system": system,
        "phase": plan.family.phase,
        "instance": sizes(plan.layout.dies, case.rates),
        "layout": plan.layout.model_dump(),
        "isl": case.isl,
        "osl": case.osl,
        "acceptance": list(case.acceptance),
        "step_time_s": float(point.step_time),
        "step_time_interval_s": step_ends,
        "tokens_per_s": float(point.tokens_per_s),
        "tokens_per_s_per_card": float(point.tokens_per_s) / cards,
        "tokens_per_s_per_card_interval": card_ends,
        "memory_planned_B": float(point.memory),
        "memory_usable_B": float(point.usable),
        "fits": resolved.fits,
        "time_by_bound": time_by_bound(parts),
    }
    rows: list[dict[str, object]] = [
        {"what": "instance", "value": facts["instance"]},
        {"what": "layout", "value": layout_words(plan)},
    ]
    if decode:
        facts["tpot_s"] = float(point.tpot)
        met = None if tpot is None else bool(float(point.tpot) <= tpot)
        facts["tpot_target_s"], facts["tpot_met"] = tpot, met
        tpot_ends = ends_in_words(sure.tpot.as_dict(), 1e3, " ms")
        mark = "" if tpot is None else f"  {'✓' if met else '✗'} target {tpot * 1e3:g} ms"
        rows.append({"what": "TPOT", "value": f"{point.tpot * 1e3:.2f} ms{mark}  ({tpot_ends})"})
        facts["tpot_interval_s"] = sure.tpot.as_dict()
        if tpot is not None:
            facts["tpot_chance"] = sure.chance(tpot, float(point.tokens_per_step))
            rows.append({"what": "chance of meeting it", "value": f"{100 * facts['tpot_chance']:.0f} %"})
        rows.append({"what": "acceptance", "value": acceptance})
        facts["longest_context"] = longest_context(plan)
        rows.append({"what": "longest context of one request", "value": f"{facts['longest_context']:,.0f} tokens"})
    rows += [
        {"what": "step time", "value": f"{point.step_time * 1e3:.2f} ms  ({ends_in_words(step_ends, 1e3, ' ms')})"},
        {
            "what": "where it goes",
            "value": ", ".join(f"{k} {100 * v:.0f} %" for k, v in facts["time_by_bound"].items()),
        },
        {
            "what": "tokens/s per card of the instance",
            "value": f"{facts['tokens_per_s_per_card']:,.0f}  ({ends_in_words(card_ends)})",
        },
        {
            "what": "memory of one die",
            "value": f"{point.memory / 1e9:.1f} of {point.usable / 1e9:.1f} GB usable  {'✓' if resolved.fits else '✗'}",
        },
    ]
    summary = Table(f"{model} {plan.family.phase} on {system}", (Column("what", ""), Column("value", "")), tuple(rows))
    notes = tuple(extrapolations(plan, case))
    if not resolved.fits:
        over = (point.memory - point.usable) / 1e9
        notes = (f"does not fit: planned memory is {over:.1f} GB over what a die can use", *notes)
    if resolved.batch_chosen and resolved.fits and resolved.meets_tpot:
        notes = ("batch was not given: took the largest that meets TPOT and fits memory", *notes)
    elif resolved.batch_chosen:
        notes = ("batch was not given: no batch meets TPOT and fits memory; shown is batch 1", *notes)
    return Document(
        schema="moeplan.step/1",
        title=f"Explanation of {model} {plan.family.phase} on {system}",
        tables=(
            summary,
            block_table(parts),
            operator_table(parts),
            memory_table(plan, case.rates),
            assumption_table(felt),
            *(kernel_tables(parts, kernels) if kernels else ()),
        ),
        facts=facts,
        notes=notes,
    )


def shared_words(plan: PoolPlan) -> str:
    """Return where the shared expert runs."""
    if not plan.layout.shared_ranks:
        return "on every die"
    return f"on {plan.layout.shared_ranks} dies of its own"


def overlap_words(plan: PoolPlan) -> str:
    """Return how micro-batches overlap."""
    layout = plan.layout
    split = f", {layout.attention_cores} cube cores for attention" if layout.overlap == "cores" else ""
    return f"{layout.overlap}{split}"


def layout_words(plan: PoolPlan) -> str:
    """Return a layout in one phrase."""
    layout = plan.layout
    return (
        f"{attention_words(plan)}, {experts_words(plan)}, shared expert "
        f"{shared_words(plan)}, {layout.redundant} redundant, batch {layout.batch} per dp rank, "
        f"draft {layout.draft}, {layout.exchange}, overlap {overlap_words(plan)}"
    )


def attention_words(plan: PoolPlan) -> str:
    """Return the parallel form of the attention: ranks, dies of a rank, and how it differs from split sums."""
    layout = plan.layout
    dies = layout.dies - layout.expert_dies
    words = f"attention dp {dies // (layout.tp * layout.cp)} x tp {layout.tp}"
    words += f" x cp {layout.cp}" if layout.cp > 1 else ""
    words += f" (dcp {layout.dcp})" if layout.dcp > 1 else ""
    return words if layout.reduction == "scatter_gather" else f"{words} ({layout.reduction})"


def experts_words(plan: PoolPlan) -> str:
    """Return over how many dies, or groups of dies that share each, the experts lie."""
    layout = plan.layout
    if layout.expert_dies:
        return f"experts on {layout.expert_dies} dies of their own"
    split = f" x tp {layout.expert_tp}" if layout.expert_tp > 1 else ""
    return f"experts ep {layout.dies // layout.expert_tp}{split}"


def time_by_bound(parts: Breakdown) -> dict[str, float]:
    """Return the shares of the step by what binds the rows that decide it, the largest first."""
    shares: dict[str, float] = {"fixed": parts.overhead + parts.gaps}
    for row in parts.rows:
        if row.decides:
            fixed = float(row.timed.fixed_time) * row.runs  # type: ignore[arg-type]
            shares["fixed"] += fixed
            shares[row.timed.roof] = shares.get(row.timed.roof, 0.0) + row.total - fixed
    whole = sum(shares.values())
    return dict(sorted(((name, time / whole) for name, time in shares.items()), key=lambda item: -item[1]))
