"""How each pool is laid out and what it does, as a table."""

from collections.abc import Callable
from typing import Any

from perfmodel.algebra import as_float
from perfmodel.planning.request import PlanRequest
from perfmodel.prediction.deployment import Deployment, PoolPlan
from perfmodel.report.layout_words import attention_words, experts_words, overlap_words, shared_words, sizes
from perfmodel.report.table import Column, Table
from perfmodel.specs.deployment import Phase
from perfmodel.timing.step import site_factor

SMALLEST_SHARE = 0.01  # of a step; smaller ones are not told


def pools_table(request: PlanRequest, best: Deployment, facts: dict[str, Any]) -> Table:
    """Return prefill and decode beside each other."""
    rows: list[dict[str, object]] = []
    cases = request.cases
    pools: dict[Phase, PoolPlan] = {"prefill": best.prefill, "decode": best.decode}
    machines = {phase: machine.system.spec.name for phase, machine in request.machines.items()}

    def row(what: str, unit: str | None, cell: Callable[[Phase, PoolPlan], object]) -> None:
        rows.append({"what": what, "unit": unit, **{str(name): cell(name, pool) for name, pool in pools.items()}})

    def fact(key: str) -> Callable[[Phase, PoolPlan], object]:
        return lambda name, _: facts[name][key]

    if len(set(machines.values())) > 1:
        row("system", None, lambda name, _: machines[name])
    row("instances", "1", fact("instances"))
    row("one instance", None, lambda name, pool: sizes(pool.layout.dies, cases[name].rates))
    row("all instances", None, lambda name, _: sizes(facts[name]["dies"], cases[name].rates))
    row("attention", None, lambda _, pool: attention_words(pool).removeprefix("attention "))
    if request.model.experts is not None:
        row(
            "experts",
            None,
            lambda _, pool: f"{experts_words(pool).removeprefix('experts ')}, {pool.layout.redundant} redundant",
        )
    if request.model.n_shared_experts:
        row("shared expert", None, lambda _, pool: shared_words(pool))
    row("sequences (prompts) per dp rank", "1", lambda _, pool: pool.layout.batch)
    row("draft (MTP) tokens", "1", lambda _, pool: pool.layout.draft)
    if request.model.experts is not None:
        row("expert exchange", None, lambda _, pool: pool.layout.exchange)
        row("overlap", None, lambda _, pool: overlap_words(pool))
    row("step time", "s", fact("step_time_s"))
    site = {phase: as_float(site_factor(pool.family, cases[phase].rates)) for phase, pool in pools.items()}
    if any(factor != 1 for factor in site.values()):
        row("of it measured at the site", None, lambda name, _: "-" if site[name] == 1 else f"times {site[name]:.2f}")
    row("where it goes", None, lambda name, _: _shares(facts[name]["time_by_bound"]))
    alone = "tokens/s per card while it runs alone" if best.mixed else "tokens/s per card of the pool"
    row(alone, "1/s", fact("tokens_per_s_per_card_of_pool"))
    row("load", "%", fact("utilisation"))
    row("memory of what is usable", "%", fact("memory_share"))
    row("a larger batch is stopped by", None, fact("stopped_by"))
    columns = (
        Column("what", ""),
        Column("unit", "unit"),
        Column("prefill", "prefill", "row"),
        Column("decode", "decode", "row"),
    )
    notes = [f"{alone}: at full batch, as published results count; prefill counts input tokens"]
    if best.mixed:
        notes.append("mixed: both columns are the same instances, which run prefill and decode steps in turn")
    return Table("Plan", columns, tuple(rows), tuple(notes))


def _shares(shares: dict[str, float]) -> str:
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items() if share >= SMALLEST_SHARE)
