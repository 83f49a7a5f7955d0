"""What a terminal shows as lines of characters: streams over time, points under roofs."""

import re
from collections.abc import Mapping, Sequence
from math import log10
from string import ascii_lowercase, ascii_uppercase
from typing import Any

from perfmodel.prediction.timeline import OTHER_DOMAINS, Timeline
from perfmodel.report.quantity import format_quantity
from perfmodel.report.table import Say, in_english
from perfmodel.report.wrap import cells as cells_of
from perfmodel.report.wrap import wrap

MARKS = ascii_lowercase + ascii_uppercase
WIDEST = 120  # columns of a drawing: beyond it the eye follows no line
_ROWS = 18  # lines of a plot
_TICKS = 4


def gantt(found: Timeline, width: int, say: Say = in_english) -> list[str]:
    """Return a line per stream: a letter per operator where it runs, a dot where the stream waits, and what they mean.

    A cell shows what runs longest in it.  Odd micro-batches are lower case, even ones upper case.
    """
    heads = {stream.name: say(stream.name) for stream in found.streams}
    label = max(map(cells_of, heads.values())) + 2
    cells = min(width, WIDEST) - label - 2
    letters: dict[str | None, str] = {None: "·"}
    unused = iter(ascii_lowercase)
    lines = [_scale(found.layer, label, cells)]
    for stream in found.streams:
        text = ""
        for micro_batch, operator in _cells(found, stream.name, cells):
            if operator not in letters:
                letters[operator] = "-" if operator == OTHER_DOMAINS else next(unused, "+")
            text += letters[operator] if micro_batch % 2 else letters[operator].upper()
        head = heads[stream.name]
        lines.append(f"{head}{' ' * (label - cells_of(head))}│{text}│")
    names = [f"{letter}\N{NO-BREAK SPACE}{say(operator or 'waits')}" for operator, letter in letters.items()]
    told = [", ".join([*names[1:], names[0]])]
    short = list(dict.fromkeys(one.name for one in found.segments if one.name not in letters))
    told += [say(f"too short to draw: {', '.join(short)}")] if short else []
    if any(one.micro_batch > 1 for one in found.segments):
        told.append(say("lower case: odd micro-batches, upper case: even ones"))
    for stream in found.streams:
        waits = f", waits {format_quantity(stream.waits, 's')} for {stream.waits_for}" if stream.waits_for else ""
        told.append(say(f"{stream.name}: works {format_quantity(stream.works, 's')}{waits}"))
    return lines + [line for text in told for line in wrap(f"  {text}", width, hang="  ")]


def _cells(found: Timeline, stream: str, cells: int) -> list[tuple[int, str | None]]:
    """Return for each cell the micro-batch and operator that a stream works on longest; no operator where it waits."""
    each = found.layer / cells
    times: list[dict[tuple[int, str | None], float]] = [{(1, None): each} for _ in range(cells)]
    for one in found.segments:
        if one.stream == stream:
            end = one.start + one.time
            for cell in range(int(one.start / each), min(cells, int(end / each) + 1)):
                inside = min(end, (cell + 1) * each) - max(one.start, cell * each)
                key = one.micro_batch, one.name
                times[cell][key] = times[cell].get(key, 0.0) + inside
                times[cell][1, None] -= inside
    return [max(there, key=lambda key: there[key]) for there in times]


def _scale(layer: float, label: int, cells: int) -> str:
    """Return the times at the start, the quarters and the end, each ending or beginning where it belongs."""
    line = " " * (label + 1) + "0 s"
    for tick in range(1, _TICKS + 1):
        text = format_quantity(layer * tick / _TICKS, "s")
        at = label + 1 + cells * tick // _TICKS - len(text)
        line = line.ljust(at) + text if at > len(line) else line
    return line


def roofline(points: Sequence[Mapping[str, Any]], peaks: Mapping[str, float], memory: float, width: int) -> list[str]:
    """Return a plot of points under the roofs of memory and engines, both axes logarithmic."""
    import plotext
    from numpy import geomspace

    if not points:
        return []
    width = min(width, WIDEST)
    low, high = (f([point["intensity"] for point in points]) for f in (min, max))
    low, high = min(low / 2, 0.5), max(high * 2, 4 * max(peaks.values()) / memory)
    floor = min(point["achieved"] for point in points) / 2
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(width, _ROWS)
    plotext.xscale("log")
    plotext.yscale("log")
    for peak in sorted(peaks.values()):
        reach = [x for x in geomspace(low, high, 4 * width).tolist() if x * memory > floor]
        plotext.plot(reach, [min(peak, x * memory) for x in reach], marker="·")
    for point in reversed(points):  # the longest are drawn last, over others
        plotext.scatter([point["intensity"]], [point["achieved"]], marker=point["mark"])
    top = 1.5 * max(*peaks.values(), *(point["achieved"] for point in points))
    plotext.xlim(log10(low), log10(high))  # of a logarithmic axis the library takes the exponents
    plotext.ylim(log10(floor), log10(top))
    for ticks, ends, unit in ((plotext.xticks, (low, high), "1"), (plotext.yticks, (floor, top), "FLOP/s")):
        decades = [10.0**power for power in range(-3, 18) if ends[0] <= 10.0**power <= ends[1]]
        ticks(decades, [_round(format_quantity(value, unit)) for value in decades])
    plotext.xlabel("FLOP/B")
    text: str = plotext.uncolorize(plotext.build())
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def front(
    points: Sequence[tuple[float, float]], chosen: tuple[float, float], limit: float | None, width: int
) -> list[str]:
    """Return a plot of rate over TPOT: the points of a front ``o``, the chosen plan ``X``, the limit a line."""
    import plotext

    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plotsize(min(width, WIDEST), _ROWS)
    times, rates = ([point[axis] for point in points] for axis in (0, 1))
    plotext.plot([1e3 * time for time in times], rates, marker="·")
    plotext.scatter([1e3 * time for time in times], rates, marker="o")
    if limit is not None:
        plotext.plot([1e3 * limit] * 2, [0, max(rates)], marker="│")
    plotext.scatter([1e3 * chosen[0]], [chosen[1]], marker="X")
    plotext.ylim(0, 1.05 * max(rates))
    plotext.xlabel("TPOT, ms")
    plotext.ylabel("tokens/s per card")
    text: str = plotext.uncolorize(plotext.build())
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def _round(text: str) -> str:
    """Return a round number without zeros behind its point."""
    return re.sub(r"\.0+(?= |$)", "", text)
