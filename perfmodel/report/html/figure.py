"""What plots share: frame, axes, colours and names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from perfmodel.report.wrap import wrap
from perfmodel.specs.deployment import Phase

# colours that keep a contrast of 3 on white and on the dark ground
PHASE_COLOURS: Mapping[Phase, str] = {"prefill": "#c2702b", "decode": "#2f7fb8"}
GREY, GREEN, RED, VIOLET, GOLD = "#75808f", "#2e9467", "#cf5353", "#8a68c4", "#a98320"

MOST_BARS = 12
BAR, THIN = 30, 24  # px
SMALLEST = 5e-4  # of a change that is drawn
LONG = 3.0  # of a unit, from which an axis is drawn in it
HOVER_WIDTH = 60
LEGEND_BELOW = {"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom", "traceorder": "normal"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A plot: what it shows in a sentence, what plotly draws, and what changes on a narrow screen."""

    name: str
    caption: str
    label: str
    data: tuple[dict[str, Any], ...]
    layout: dict[str, Any]
    height: int
    narrow: Mapping[str, Any] = field(default_factory=dict)
    #: names of bars, the first on top; on a narrow screen they stand above their bars
    names: tuple[str, ...] = ()


def percent(share: float, signed: bool = False) -> str:
    """Return a share in per cent, a change with its sign."""
    return f"{100 * share:{'+' if signed else ''}.1f} %"


def readable(time: float) -> tuple[float, str]:
    """Return what to multiply seconds by for an axis up to a time, and the unit."""
    return (1.0, "s") if time >= LONG else (1e3, "ms") if time >= LONG / 1e3 else (1e6, "us")


def bars_height(rows: int, each: int = BAR) -> int:
    """Return the height of a plot of so many bars."""
    return 74 + each * max(rows, 1)


def layout_of(x: str, *, y: str = "", legend: bool = False, **more: Any) -> dict[str, Any]:
    """Return the axes and margins of a plot; ``more`` is added to them, and to the axes by name."""
    return {
        "xaxis": {"title": {"text": x}, "zeroline": True, "automargin": True, **more.pop("xaxis", {})},
        "yaxis": {
            "title": {"text": y, "standoff": 12},
            "automargin": True,
            "ticklabelstandoff": 6,
            **more.pop("yaxis", {}),
        },
        "showlegend": legend,
        "margin": {"l": 8, "r": 16, "t": 34 if legend else 8, "b": 44},
        **more,
    }


def with_legend_below(layout: dict[str, Any], room: int) -> dict[str, Any]:
    """Return the layout of a plot with its legend in the room below it."""
    return {**layout, "legend": LEGEND_BELOW, "margin": {"l": 8, "r": 16, "t": 8, "b": room}}


def error_bars(above: Sequence[float], below: Sequence[float], color: str, thickness: float) -> dict[str, Any]:
    """Return the intervals of bars or marks: how far each reaches above and below, in per cent."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(0.0, one) for one in above],
        "arrayminus": [max(0.0, one) for one in below],
        "color": color,
        "thickness": thickness,
        "width": 4,
    }


def names_axis(names: Sequence[str]) -> dict[str, Any]:
    """Return an axis of names, the first on top."""
    return {"type": "category", "categoryorder": "array", "categoryarray": list(names)[::-1], "showgrid": False}


def broken(text: str) -> str:
    """Return words on lines that fit beside a pointer."""
    return "<br>".join(wrap(text, HOVER_WIDTH))
