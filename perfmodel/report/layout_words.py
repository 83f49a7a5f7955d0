"""A layout in words: its size, its parallel forms, its experts and its overlap."""

from dataclasses import dataclass
from typing import Protocol

from perfmodel.prediction.deployment import PoolPlan
from perfmodel.specs.deployment import LayoutShape
from perfmodel.specs.machine import StackSpec
from perfmodel.specs.model import ModelSpec
from perfmodel.supply.rates import Rates


class LaidOut(Protocol):
    """What has a layout."""

    @property
    def layout(self) -> LayoutShape:
        """Its layout."""
        ...


@dataclass(frozen=True, slots=True)
class Shaped:
    """A layout that has no batch yet."""

    layout: LayoutShape


def sizes(dies: int, rates: Rates) -> str:
    """Return an instance's size in all three counts."""
    counts = ((dies, "die"), (dies / rates.dies_per_package, "card"), (dies / rates.dies_per_server, "server"))
    return " = ".join(f"{count:g} {word}{'' if count == 1 else 's'}" for count, word in counts)


def layout_words(plan: PoolPlan, model: ModelSpec) -> str:
    """Return a layout in one phrase."""
    layout = plan.layout
    words = [
        attention_words(plan),
        *placed_words(plan, model),
        f"batch {layout.batch} per dp rank",
        f"draft {layout.draft}",
        *exchange_words(plan, model, overlap_words(plan)),
    ]
    return ", ".join(words)


def short_layout(plan: PoolPlan, model: ModelSpec) -> list[str]:
    """Return what tells a layout from others in few words, for a line of an answer."""
    layout = plan.layout
    return [
        attention_words(plan).removeprefix("attention "),
        *([] if model.experts is None else [experts_words(plan).removeprefix("experts ")]),
        f"batch {layout.batch}",
        *([f"draft {layout.draft}"] if plan.family.phase == "decode" and layout.draft else []),
        *([f"overlap {layout.overlap}"] if layout.overlap != "none" else []),
    ]


def shape_words(shape: LayoutShape, model: ModelSpec, rates: Rates) -> str:
    """Return a layout without a batch in one phrase, its size first."""
    plan = Shaped(shape)
    overlap = overlap_words(plan) if shape.attention_cores else shape.overlap
    words = [
        sizes(shape.dies, rates),
        attention_words(plan),
        *placed_words(plan, model),
        f"draft {shape.draft}",
        *exchange_words(plan, model, overlap),
    ]
    return ", ".join(words)


def placed_words(plan: LaidOut, model: ModelSpec) -> list[str]:
    """Return where experts lie; nothing of those that a model has not."""
    if model.experts is None:
        return []
    shared = [f"shared expert {shared_words(plan)}"] if model.n_shared_experts else []
    return [experts_words(plan), *shared, f"{plan.layout.redundant} redundant"]


def exchange_words(plan: LaidOut, model: ModelSpec, overlap: str) -> list[str]:
    """Return how tokens reach experts, and what runs beside that; nothing where there are none."""
    return [] if model.experts is None else [plan.layout.exchange, f"overlap {overlap}"]


def attention_words(plan: LaidOut) -> str:
    """Return the parallel form of the attention: ranks, dies of a rank, and how it differs from split sums."""
    layout = plan.layout
    dies = layout.dies - layout.expert_dies
    words = f"attention dp {dies // (layout.tp * layout.cp)} x tp {layout.tp}"
    words += f" x cp {layout.cp}" if layout.cp > 1 else ""
    words += f" (dcp {layout.dcp})" if layout.dcp > 1 else ""
    return words if layout.reduction == "scatter_gather" else f"{words} ({layout.reduction})"


def experts_words(plan: LaidOut) -> str:
    """Return over how many dies, or groups of dies that share each, the experts lie."""
    layout = plan.layout
    if layout.expert_dies:
        return f"experts on {layout.expert_dies} dies of their own"
    split = f" x tp {layout.expert_tp}" if layout.expert_tp > 1 else ""
    return f"experts ep {layout.dies // layout.expert_tp}{split}"


def shared_words(plan: LaidOut) -> str:
    """Return where the shared expert runs."""
    if not plan.layout.shared_ranks:
        return "on every die"
    return f"on {plan.layout.shared_ranks} dies of its own"


def overlap_words(plan: LaidOut) -> str:
    """Return how micro-batches overlap."""
    layout = plan.layout
    split = f", {layout.attention_cores} cube cores for attention" if layout.overlap == "cores" else ""
    return f"{layout.overlap}{split}"


def software_words(stack: str, engine: str | None) -> str:
    """Return stack and engine of a run in words."""
    return f"stack {stack}, " + ("no engine on file" if engine is None else f"engine {engine}")


def head_words(system: str, chip: str, stack: StackSpec, engine: str | None) -> str:
    """Return where something runs, for a heading: system, chip, stack with its date, and engine."""
    dated = stack.name if stack.date is None else f"{stack.name} of {stack.date}"
    return f"{system} ({chip}, {dated}, {'no engine on file' if engine is None else engine})"
