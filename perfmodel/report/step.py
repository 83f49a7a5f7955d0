"""One evaluated layout -> a document: what it serves, every operator, every block, memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from perfmodel.algebra import as_float
from perfmodel.errors import UsageError, did_you_mean
from perfmodel.planning.known_errors import Trust
from perfmodel.prediction.breakdown import Breakdown, Row, breakdown
from perfmodel.prediction.deployment import PoolPlan, exact_pool
from perfmodel.prediction.headroom import batch_limits
from perfmodel.prediction.scenario import Resolved, breakdown_of, ledger_of
from perfmodel.prediction.sensitivity import Swing
from perfmodel.prediction.serving import Case
from perfmodel.prediction.sureness import MARKS, verdict_of
from perfmodel.prediction.timeline import timeline
from perfmodel.prediction.uncertainty import PoolIntervals, row_ranges
from perfmodel.report.drawings import gantt
from perfmodel.report.extrapolations import extrapolations
from perfmodel.report.kernels import kernel_tables
from perfmodel.report.layout_words import layout_words, sizes, software_words
from perfmodel.report.memory import (
    limits_table,
    longest_context_by,
    longest_context_facts,
    memory_sources_table,
    memory_table,
)
from perfmodel.report.operators import block_table, operator_table, roofline_table, time_by_bound, tree_table
from perfmodel.report.quantity import ends_in_words, format_quantity
from perfmodel.report.sensitivity import assumption_table
from perfmodel.report.step_answer import step_answer
from perfmodel.report.table import Column, Document, Table, in_part
from perfmodel.report.waterfall import totals_table, waterfall_table
from perfmodel.specs.base import Known
from perfmodel.specs.kernels import KernelSetSpec
from perfmodel.specs.machine import ChipSpec, StackSpec
from perfmodel.supply.rates import Rates
from perfmodel.timing.step import site_factor


def plan_breakdown(plan: PoolPlan, case: Case, ideal: Rates) -> Breakdown:
    """Return where the time of a pool's step goes."""
    ledger = ledger_of(plan, case, case.traffic)
    return breakdown(ledger, plan.family, plan.layout.attention_cores, case.rates, ideal)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What of a step is shown, and how: one block per layer, operators of a pattern, their order, other forms."""

    layer: str | None = None
    op: str | None = None
    sort: str | None = None
    tree: bool = False
    roofline: bool = False
    #: kernel sets whose parameters are added
    kernels: Mapping[str, Known[KernelSetSpec]] | None = None
    #: chip and stack, whose numbers of memory are added
    memory: tuple[Known[ChipSpec], Known[StackSpec]] | None = None
    #: another layout, by name, that this one is compared with
    other: tuple[str, Resolved] | None = None

    @property
    def whole_step(self) -> bool:
        """Whether the step is told as a whole."""
        return not (self.layer or self.op or self.tree or self.roofline or self.other)

    def taken(self, parts: Breakdown) -> tuple[Breakdown, str]:
        """Return the step, or the layer asked for as if it were one, and what it is called.

        Raises ``UsageError`` where there is no such block.
        """
        if self.layer is None:
            return parts, "step"
        names = [block.name for block in parts.blocks]
        stems = {name.removesuffix("_layer"): name for name in names}
        name = stems.get(self.layer, self.layer)
        if name not in names:
            raise UsageError(f"--layer: {self.layer!r} is no block of this step{did_you_mean(self.layer, [*stems])}")
        return parts.of_layer(name), name.replace("_", " ")

    def takes(self, name: str) -> bool:
        """Return whether an operator matches the pattern."""
        return self.op is None or fnmatchcase(name, self.op)

    def rows(self, parts: Breakdown) -> list[Row]:
        """Return the operators that match.

        Raises ``UsageError`` where none does.
        """
        found = [row for row in parts.rows if self.takes(row.name)]
        if not found:
            names = sorted({row.name for row in parts.rows})
            raise UsageError(f"--op: no operator matches {self.op!r}{did_you_mean(self.op or '', names)}")
        return found


def tpot_over_context(plan: PoolPlan, case: Case, added: float = 0.0) -> dict[str, float]:
    """Return TPOT with every request of the batch at its first and at its last token; ``added`` is prefill's."""
    ends = {"start": case.isl, "end": case.isl + case.osl}
    found: dict[str, float] = {}
    alike = replace(case, running_context=None, running_deviation=None)
    for name, context in ends.items():
        point = exact_pool(plan.layout, plan.family, replace(alike, isl=context, osl=1)).point
        found[name] = as_float(point.tpot) + added
    return found


def step_document(
    resolved: Resolved,
    ideal: Rates,
    *,
    model: str,
    system: str,
    stack: str,
    engine: str | None,
    name: str,
    acceptance: str,
    sensitivity: Sequence[Swing],
    intervals: PoolIntervals,
    view: View,
    head: str,
    trust: Trust | None = None,
) -> Document:
    """Return the explanation of one layout, ``name``, as far as a view shows it."""
    plan, case = resolved.plan, resolved.scenario.case
    parts = plan_breakdown(plan, case, ideal)
    facts = _facts(resolved, parts, intervals, model=model, system=system) | {"stack": stack, "engine": engine}
    shown, whole = view.taken(parts)
    rows = view.rows(shown)
    tables = [*in_part("serves", layout=_summary(resolved, facts, acceptance))]
    if view.whole_step:
        tables += in_part("blocks", of_step=block_table(parts))
    if view.whole_step or (view.layer and not view.op):
        tables += in_part("timeline", layer=_timeline_table(resolved, shown))
    if view.tree:
        tables += in_part("tree", step=tree_table(shown, rows, whole))
    if view.roofline:
        tables += in_part("roofline", step=roofline_table(rows, case.rates, whole))
    if view.other is not None:
        other_name, other = view.other
        second, _ = view.taken(breakdown_of(other))
        tables += in_part(
            "difference",
            totals=totals_table(resolved, other, (name, other_name)),
            waterfall=waterfall_table(shown, second, view.takes, whole),
        )
        facts["compared_with"] = other_name
        facts["difference_s"] = second.step_time - shown.step_time
    if not (view.tree or view.roofline or view.other):
        ends = row_ranges(rows, intervals.rates)
        tables += in_part("operators", step=operator_table(shown, rows, ends, sort=view.sort, whole=whole))
    if view.whole_step:
        tables += in_part("memory", die=memory_table(plan, case), batch=limits_table(plan, batch_limits(resolved)))
        tables += in_part("inputs", assumed=assumption_table(sensitivity))
    if view.kernels:
        which, parameters = kernel_tables(rows, view.kernels)
        tables += in_part("sources", kernels=which, parameters=parameters)
    if view.memory and view.whole_step:
        tables += in_part("sources", memory=memory_sources_table(*view.memory))
    notes = _notes(resolved)
    return Document(
        schema="moeplan.step/1",
        title=f"Explanation of {model} {plan.family.phase} on {head}",
        tables=tuple(tables),
        facts=facts,
        notes=notes,
        answer=step_answer(resolved, parts, facts, trust, notes) if view.whole_step else None,
        opening=("operators" if view.sort else "blocks", "sources"),
    )


def _facts(
    resolved: Resolved, parts: Breakdown, intervals: PoolIntervals, *, model: str, system: str
) -> dict[str, Any]:
    plan, case = resolved.plan, resolved.scenario.case
    point = plan.point
    tpot = resolved.scenario.tpot
    cards = plan.layout.dies / case.rates.dies_per_package
    facts: dict[str, Any] = {
        "model": model,
        "system": system,
        "phase": plan.family.phase,
        "instance": sizes(plan.layout.dies, case.rates),
        "layout": plan.layout.model_dump(),
        "isl": case.isl,
        "osl": case.osl,
        "acceptance": list(case.acceptance),
        "step_time_s": as_float(point.step_time),
        "step_time_interval_s": intervals.step_time.as_dict(),
        "tokens_per_s": resolved.tokens_per_s_per_card * cards,
        "tokens_per_s_per_card": resolved.tokens_per_s_per_card,
        "tokens_per_s_per_card_interval": {
            end: value / cards for end, value in intervals.tokens_per_s.as_dict().items()
        },
        "memory_planned_B": as_float(point.memory),
        "memory_usable_B": as_float(point.usable),
        "fits": resolved.fits,
        "site_factor": as_float(site_factor(plan.family, case.rates)),
        "time_by_bound": time_by_bound(parts),
    }
    if plan.family.phase == "decode":
        facts["tpot_s"] = resolved.tpot
        facts["tpot_target_s"] = tpot
        facts["tpot_met"] = resolved.meets_tpot
        facts["tpot_verdict"] = "no limit given"
        facts["tpot_interval_s"] = intervals.tpot.as_dict()
        if tpot is not None:
            facts["tpot_chance"] = intervals.chance(tpot, as_float(point.tokens_per_step))
            facts["tpot_verdict"] = verdict_of(resolved.meets_tpot, facts["tpot_chance"])
        facts |= longest_context_facts(plan, case.model)
    return facts


def _summary(resolved: Resolved, facts: Mapping[str, Any], acceptance: str) -> Table:
    """Return what a layout serves, in words."""
    plan, point = resolved.plan, resolved.plan.point
    usable = f"{facts['memory_planned_B'] / 1e9:.1f} of {facts['memory_usable_B'] / 1e9:.1f} GB usable"
    words = {"instance": facts["instance"], "layout": layout_words(plan, resolved.scenario.case.model)}
    words["software"] = software_words(facts["stack"], facts["engine"])
    if plan.family.phase == "decode":
        target = facts["tpot_target_s"]
        mark = "" if target is None else f"  {MARKS[facts['tpot_verdict']]} target {target * 1e3:g} ms"
        ends = ends_in_words(facts["tpot_interval_s"], 1e3, " ms")
        words["TPOT"] = f"{facts['tpot_s'] * 1e3:.2f} ms{mark}  ({ends})"
        if target is not None:
            words["chance of meeting it"] = f"{100 * facts['tpot_chance']:.0f} %"
        words["acceptance"] = acceptance
        by = longest_context_by(facts, resolved.scenario.case.model)
        words["longest context of one request"] = f"{facts['longest_context']:,.0f} tokens, {by}"
    step_ends = ends_in_words(facts["step_time_interval_s"], 1e3, " ms")
    words["step time"] = f"{point.step_time * 1e3:.2f} ms  ({step_ends})"
    if facts["site_factor"] != 1:
        words["at the site"] = f"steps take {facts['site_factor']:.2f} times what the model adds up to"
    words["where it goes"] = ", ".join(f"{k} {100 * v:.0f} %" for k, v in facts["time_by_bound"].items())
    card_ends = ends_in_words(facts["tokens_per_s_per_card_interval"])
    words["tokens/s per card of the instance"] = f"{facts['tokens_per_s_per_card']:,.0f}  ({card_ends})"
    words["memory of one die"] = f"{usable}  {'✓' if resolved.fits else '✗'}"
    rows = tuple({"what": what, "value": value} for what, value in words.items())
    return Table("What it serves", (Column("what", ""), Column("value", "")), rows)


def _notes(resolved: Resolved) -> tuple[str, ...]:
    plan, point = resolved.plan, resolved.plan.point
    notes = extrapolations(plan, resolved.scenario.case)
    if resolved.scenario.partner is not None:
        notes.insert(
            0,
            "mixed: the same dies run both phases in turn; TPOT has prefill in between, memory holds both, rates count "
            f"all time, {plan.family.phase} has {resolved.share:.0%} of it; operators are of its step alone",
        )
    if not resolved.fits:
        over = as_float(point.memory - point.usable) / 1e9
        notes.insert(0, f"does not fit: planned memory is {over:.1f} GB over what a die can use")
    if resolved.batch_chosen and resolved.fits and resolved.meets_tpot:
        notes.insert(0, "batch was not given: took the largest that meets TPOT and fits memory")
    elif resolved.batch_chosen:
        notes.insert(0, "batch was not given: no batch meets TPOT and fits memory; shown is batch 1")
    return tuple(notes)


def _timeline_table(resolved: Resolved, parts: Breakdown) -> Table:
    """Return when each operator of a layer runs, of the block that takes the most of what is shown."""
    plan, case = resolved.plan, resolved.scenario.case
    longest = max(parts.blocks, key=lambda block: block.total).name
    found = timeline(ledger_of(plan, case, case.traffic), plan.family, parts, longest)
    columns = (
        Column("stream", "stream"),
        Column("micro_batch", "micro-batch", "1"),
        Column("operator", "operator"),
        Column("start", "starts", "s"),
        Column("time", "takes", "s"),
    )
    rows = tuple(
        {
            "stream": one.stream,
            "micro_batch": one.micro_batch,
            "operator": one.name,
            "start": one.start,
            "time": one.time,
        }
        for one in found.segments
    )
    title = f"Timeline of one {longest.replace('_', ' ')}, {format_quantity(found.layer, 's')}"
    return Table(title, columns, rows, drawing=lambda width, say: gantt(found, width, say), are_drawn=True)
