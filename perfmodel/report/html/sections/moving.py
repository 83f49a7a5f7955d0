"""What the plan comes to at other values, worked out in the browser by the formulas that worked out the plan."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from perfmodel.closed_form.javascript import function_of
from perfmodel.closed_form.moving import ACCEPTANCE, HBM, ISL, LINKS, OSL, Movable
from perfmodel.planning.plan_report import PlanReport
from perfmodel.report.html.names import called
from perfmodel.report.html.section import Section
from perfmodel.report.html.words import Words
from perfmodel.report.quantity import format_quantity

MOST_STOPS, FEW_STOPS = 400, 80  # of a slider
REACH = 4.0  # times a batch or a price is moved up, and a price down
LENGTHS = 8.0  # times a length is moved up and down
SHORTEST = 16  # tokens

UNITS = {"tpot": "s", "ttft": "s", "step": "s", "rate": "1/s", "per_card": "1/s", "per_hour": "1", "per_million": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Slider:
    """One input that may be moved: where it may stand, in order, and where it stands in the plan."""

    name: str
    label: str
    stops: tuple[float, ...]
    at: int
    #: what is put behind its value: a percent sign, or nothing
    unit: str

    @property
    def shown(self) -> str:
        """Value in the plan, as the page shows it; the script writes the same."""
        value = self.stops[self.at]
        return f"{100 * value:.0f} %" if self.unit == "%" else f"{value:,.15g}"


def moving_section(report: PlanReport, words: Words) -> Section:
    """Return the sliders, the numbers that they move, and the function between them."""
    import sympy

    movable = report.movable
    here, now = movable.here, movable.numbers({})
    symbols = {name: sympy.Symbol(name, positive=True) for name in here}
    sliders = [
        Slider(
            name=name,
            label=words.say(f"moving.{name}"),
            stops=stops,
            at=stops.index(value),
            unit="%" if name in (ACCEPTANCE, HBM, LINKS) else "",
        )
        for name, value in here.items()
        for stops in [_stops(name, value, movable)]
        if len(stops) > 1
    ]
    return Section(
        name="moving",
        title=words.say("moving.title"),
        lead=words.say("moving.lead"),
        notes=tuple(words.say(f"moving.{key}") for key in _notes(movable)),
        more={
            "sliders": sliders,
            "numbers": [
                {
                    "name": name,
                    "label": _label(name, report, words),
                    "unit": unit,
                    "value": float(now[name]),
                    "text": format_quantity(float(now[name]), unit),
                    "limit": limit,
                    "limit_text": "" if limit is None else format_quantity(limit, unit),
                    "least": name == "rate",
                }
                for name in now
                for unit in [UNITS.get(name, "B")]
                for limit in [_limits(report).get(name)]
            ],
            "function": function_of(tuple(here), movable.numbers(symbols)),
            "here": here,
        },
    )


def _label(name: str, report: PlanReport, words: Words) -> str:
    if not name.startswith("memory_"):
        return words.say(f"moving.{name}")
    phase = next(phase for phase in report.own if name == f"memory_{phase}")
    return words.say("targets.memory", phase=called(phase, report, words))


def _limits(report: PlanReport) -> dict[str, float | None]:
    names = {f"memory_{one.phase}" if one.phase else one.name: one.limit for one in report.targets}
    return dict(names)


def _notes(movable: Movable) -> Iterator[str]:
    yield "note"
    if ISL not in movable.here:
        yield "note_lengths"
    if len(movable.cases["decode"].acceptance) > 1 and ACCEPTANCE in movable.here:
        yield "note_acceptance"


def _stops(name: str, now: float, movable: Movable) -> tuple[float, ...]:
    """Return where a slider may stand, the plan's own value among it."""
    case, layout = movable.cases["decode"], movable.best.decode.layout
    stops: Any
    match name:
        case "batch":
            least = 1 if layout.overlap == "none" else layout.micro_batches
            stops = _whole(least, REACH * now, MOST_STOPS)
        case "isl" | "osl":
            other = max(float(value) for key, value in movable.here.items() if key in (ISL, OSL) and key != name)
            longest = case.model.max_position_embeddings - (other if name == ISL else _longest(ISL, movable))
            stops = _whole(max(SHORTEST, now / LENGTHS), min(LENGTHS * now, longest), FEW_STOPS)
        case "acceptance":
            stops = np.round(np.arange(1, 101) / 100, 2)
        case "hbm" | "links":
            stops = np.round(np.arange(10, 61) / 20, 2)
        case _:
            stops = np.round(now * np.geomspace(1 / REACH, REACH, FEW_STOPS), 4)
    return tuple(sorted({now, *(float(one) for one in stops)}))


def _longest(name: str, movable: Movable) -> float:
    return max(_stops(name, movable.here[name], movable))


def _whole(least: float, most: float, count: int) -> Any:
    """Return whole numbers from one to another, no more than ``count``."""
    if most - least < count:
        return np.arange(np.ceil(least), np.floor(most) + 1)
    return np.unique(np.round(np.geomspace(least, most, count)))
