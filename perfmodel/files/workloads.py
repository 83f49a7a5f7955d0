"""Workloads as files: traces, benchmark results and histograms read line by line, summaries read and written."""

import logging
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pydantic import ValidationError

from perfmodel.errors import DataError, did_you_mean, printable, short
from perfmodel.files.document import readable, shown
from perfmodel.files.reader import MOST_SHOWN, Reader, unsourced
from perfmodel.files.workload_forms import ACCEPTED, Bad, Failed, Form, Request, form_of
from perfmodel.files.writing import Target, yaml_text
from perfmodel.specs.workload import Blocks, Workload
from perfmodel.specs.workload_summary import FORMAT, SummarySpec, summary_of, workload_of

if TYPE_CHECKING:
    from perfmodel.specs.workload import Floats, Ints

_LOG = logging.getLogger(__name__)
LONGEST = 4_000_000  # bytes of a line
LARGEST_RECORD = 400_000_000  # bytes of a record that holds all requests
TRIED = 20  # lines that may come before the first good one
MOST_REQUESTS = 50_000_000
MOST_BLOCKS = 10_000_000
MOST_BACK = 60.0  # s that a clock may go back: servers write a request down when it ends, or from several threads
WRITTEN_OUT = 1_000_000  # requests that a histogram of whole counts is taken for one by one
DRAWN = 10_000  # requests that stand for another
TICK = 1.0  # s, from which on stamps are ticks of a clock
TICKED = 0.1  # share of gaps of zero, from which on it matters
SHORT, NEAR = 0.05, 0.02  # share of gaps that need be no ticks; how far from whole ticks a gap is one
BLOCK_SIZES = (16, 32, 64, 128, 256, 512, 1024, 2048)
_UTF8_MARK = b"\xef\xbb\xbf"


@dataclass(slots=True)
class _Gathered:
    """Requests as they are read, 16 bytes each and 8 a block; what is wrong with lines."""

    path: Path
    skip_bad: bool
    isl: "array[int]" = field(default_factory=lambda: array("i"))
    osl: "array[int]" = field(default_factory=lambda: array("i"))
    stamps: "array[float]" = field(default_factory=lambda: array("d"))
    weights: "array[float]" = field(default_factory=lambda: array("d"))
    ids: "array[int]" = field(default_factory=lambda: array("q"))
    ends: "array[int]" = field(default_factory=lambda: array("q", [0]))
    latest: float = float("-inf")
    faults: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    full: bool = False
    cut_blocks: bool = False

    def bad(self, line: int, error: Bad) -> None:
        """Count a bad line, or note its fault; raise all faults when no more are told."""
        if self.skip_bad:
            self.left_out[error.kind] += 1
            return
        self.faults.append(short(printable(f"{self.path}:{line}: {error}")))
        if len(self.faults) >= MOST_SHOWN:
            self.faults.append(
                f"{self.path}: and perhaps more, reading stopped here; mend these first, or leave such lines out with "
                "--skip-bad"
            )
            self.finish()

    def take(self, line: int, one: Request | Bad | Failed, form: Form) -> None:
        """Add a request, or count what is none."""
        if isinstance(one, Failed):
            self.failed += 1
            return
        try:
            if isinstance(one, Bad):
                raise one
            self._add(one, form)
        except Bad as error:
            self.bad(line, error)

    def _add(self, request: Request, form: Form) -> None:
        timed = request.stamp is not None
        if self.isl and timed != bool(self.stamps):
            found, allowed = ("none", "one") if self.stamps else ("one", "none")
            raise Bad("stamp missing or extra", f"timestamp: found {found}; allowed: {allowed}, as in the lines before")
        if request.stamp is not None:
            if form.in_order and request.stamp < self.latest - MOST_BACK:
                raise Bad(
                    "clock back",
                    f"timestamp: found {self.latest - request.stamp:.6g} s before a line above; allowed: up to "
                    f"{MOST_BACK:g} s; sort the file, or remove the line",
                )
            self.latest = max(self.latest, request.stamp)
            self.stamps.append(request.stamp)
        self.isl.append(request.isl)
        self.osl.append(request.osl)
        if form.weighted:
            self.weights.append(request.weight)
        if not self.cut_blocks:
            self.cut_blocks = len(self.ids) + len(request.ids or ()) > MOST_BLOCKS
            if not self.cut_blocks:
                self.ids.extend(request.ids or ())
                self.ends.append(len(self.ids))
        self.full = len(self.isl) >= MOST_REQUESTS

    def finish(self) -> None:
        """Raise the faults at once."""
        if self.faults:
            raise DataError("\n".join(self.faults))


def load_workload(path: Path | str, skip_bad: bool = False) -> Workload:
    """Return the workload of a trace, a benchmark result, a histogram or a summary, by its content and not its name.

    Lines are read one by one; at most ``MOST_REQUESTS`` requests and ``MOST_BLOCKS`` blocks are held.  A line that is
    no request is a fault, or with ``skip_bad`` counted in ``skipped`` and told in ``remarks``.  Requests that
    failed, as their file says, are left out.  A clock that goes back by up to a minute is sorted; stamps in
    ticks of a second or more are spread evenly within a tick.

    Raises ``UsageError`` for a path that cannot be read, ``DataError`` with one line per fault, the first twenty.
    """
    path = Path(path)
    _LOG.debug("read %s", path)
    with readable(path), path.open("rb") as file:
        form = _form_in(path, file)
        file.seek(0)
        if form is None:
            return _summary(path)
        found = _Gathered(path=Path(printable(str(path))), skip_bad=skip_bad)
        _read_all(found, form, file)
    found.finish()
    if not found.isl:
        left = found.left_out.total() + found.failed
        raise DataError(f"{found.path}:1: no request is left of {left} lines; allowed: one or more; check the form")
    return _workload(found, form)


def write_workload(to: Target, workload: Workload) -> None:
    """Write the summary of a workload whole or not at all; raise ``UsageError`` where the path cannot be written."""
    to.write(yaml_text(summary_of(workload).model_dump(mode="json", exclude_none=True)))


def _summary(path: Path) -> Workload:
    reader = Reader(path, recorded=unsourced)
    data = reader.read()
    reader.finish()
    try:
        return workload_of(SummarySpec.model_validate(data))
    except ValidationError as error:
        reader.refused(error, SummarySpec)
        reader.finish()
        raise


def _form_in(path: Path, file: IO[bytes]) -> Form | None:
    """Return the form that a file begins with; None for a summary.  Raises ``DataError`` where it is of none."""
    path = Path(printable(str(path)))
    first = ""
    for number, line in enumerate(_lines(file), start=1):
        if number > TRIED:
            break
        if b"\0" in line:
            raise DataError(f"{path}:{number}: binary: holds a zero byte; allowed: {ACCEPTED}")
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            if not first and len(line) < LONGEST:
                raise DataError(
                    f"{path}:{number}: binary or not UTF-8 at byte {error.start}; allowed: {ACCEPTED}"
                ) from None
            continue
        if not text.strip():
            continue
        if text.split(":")[0].strip() == "format" and FORMAT.partition("/")[0] in text:
            return None
        try:
            if (form := form_of(text)) is not None:
                return form
        except Bad:
            pass
        first = first or text
    if not first:
        raise DataError(f"{path}:1: the file is empty; allowed: {ACCEPTED}")
    if first.lstrip()[:1] == "{":  # a record over many lines, or more than a line holds
        file.seek(0)
        held = file.read(LARGEST_RECORD + 1)
        if len(held) <= LARGEST_RECORD and (form := form_of(held.decode("utf-8", "replace"))) is not None:
            return form
    near = did_you_mean(first.split(",")[0].strip(), ["TIMESTAMP", "isl"]) if "," in first else ""
    raise DataError(
        short(printable(f"{path}:1: found {shown(first.strip())}{near if 'mean' in near else ''}; allowed: {ACCEPTED}"))
    )


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of a file, the mark of UTF-8 left out; one that is too long as far as it is read."""
    first = True
    while line := file.readline(LONGEST + 1):
        yield line.removeprefix(_UTF8_MARK) if first else line
        first = False
        while len(line) > LONGEST and not line.endswith(b"\n"):  # what is left of it
            line = file.readline(LONGEST + 1)


def _read_all(found: _Gathered, form: Form, file: IO[bytes]) -> None:
    headed = form.headed
    lines: Iterable[bytes] = _records(file) if form.whole else _lines(file)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            if len(line) > LONGEST and not form.whole:
                raise Bad("line too long", f"line: longer than {LONGEST / 1e6:g} MB; allowed: one request; part it")
            text = _text(line)
            if headed:
                headed = form_of(text) is None  # what stands above the columns is a fault of its own
                if headed:
                    raise Bad(
                        "line above the columns", f"line: found {shown(text.strip())}; allowed: columns; remove it"
                    )
                continue
            for one in form.parse(text):
                found.take(number, one, form)
        except Failed:
            found.failed += 1
        except Bad as error:
            found.bad(number, error)
        if found.full:
            break


def _records(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the records of a benchmark's result: one a line, or one over many lines."""
    held = file.read(LARGEST_RECORD + 1).removeprefix(_UTF8_MARK)
    first = held.split(b"\n", 1)[0]
    yield from held.split(b"\n") if form_of(first.decode("utf-8", "replace")) else [held]


def _text(line: bytes) -> str:
    if b"\0" in line:
        raise Bad("binary", "line: binary: holds a zero byte; allowed: UTF-8 text; remove the line")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Bad("not UTF-8", f"line: not UTF-8 at byte {error.start}; allowed: UTF-8 text; mend the line") from None


def _workload(found: _Gathered, form: Form) -> Workload:
    """Return what was gathered, in order of arrival, and remarks on what was decided."""
    import numpy as np

    remarks: list[str] = []
    if found.left_out:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in found.left_out.most_common())
        remarks.append(f"left out {found.left_out.total():,} lines: {kinds}")
    if found.failed:
        remarks.append(f"left out {found.failed:,} requests that failed")
    if found.full:
        remarks.append(f"read the first {MOST_REQUESTS:,} requests; the rest of the file is left out")
    isl, osl = (np.array(lengths, np.int64) for lengths in (found.isl, found.osl))
    if found.weights:
        chosen = _written_out(np.array(found.weights), remarks)
        isl, osl = isl[chosen], osl[chosen]
    arrivals, order = (None, None) if not found.stamps else _arrivals(np.frombuffer(found.stamps), remarks)
    blocks, size = None, None
    if found.ids:
        blocks = Blocks(ids=np.frombuffer(found.ids, np.int64), offsets=np.frombuffer(found.ends, np.int64))
        size = _block_tokens(blocks, isl, remarks)
        if found.cut_blocks:
            remarks.append(f"prefix blocks of the first {blocks.requests:,} requests alone are read: more are too many")
    if order is not None:
        isl, osl = isl[order], osl[order]
        blocks = blocks and _in_order(blocks, order)
    return Workload(
        name=printable(found.path.stem),
        isl=isl,
        osl=osl,
        arrivals=arrivals,
        blocks=blocks if size else None,
        block_tokens=size,
        skipped=found.left_out.total() + found.failed,
        remarks=(f"read as {form.name}", *remarks),
    )


def _written_out(weights: "Floats", remarks: list[str]) -> "Ints":
    """Return which row of a histogram each request is of, in an order that is drawn once and for all."""
    import numpy as np

    draw = np.random.default_rng(0)
    total = float(weights.sum())
    if total <= WRITTEN_OUT and not (weights % 1).any():
        chosen = np.repeat(np.arange(len(weights)), weights.astype(np.int64))
    else:
        many = max(DRAWN, min(len(weights), WRITTEN_OUT))
        chosen = np.searchsorted(np.cumsum(weights), (np.arange(many) + 0.5) * total / many, side="right")
        chosen = np.minimum(chosen, len(weights) - 1)
        remarks.append(f"{many:,} requests stand for the weights of {len(weights):,} rows")
    if len(chosen) > 1:
        remarks.append("requests of a histogram are taken in an order drawn at random, the same each time")
    return draw.permutation(chosen)


def _arrivals(stamps: "Floats", remarks: list[str]) -> tuple["Floats", "Ints | None"]:
    """Return arrivals in s from the first, ascending, and the order of the requests where that is another."""
    import numpy as np

    order = None
    back = np.maximum.accumulate(stamps) - stamps
    if (late := int((back > 0).sum())) > 0:
        order = np.argsort(stamps, kind="stable")
        stamps = stamps[order]
        remarks.append(f"sorted by time: {late:,} requests stood after later ones, by up to {float(back.max()):.3g} s")
    arrivals = stamps - stamps[0]
    tick = _tick(arrivals)
    if tick:
        begins = np.flatnonzero(np.diff(arrivals, prepend=-1.0))
        many = np.diff(np.append(begins, len(arrivals)))
        within = np.arange(len(arrivals)) - np.repeat(begins, many)
        arrivals = np.maximum.accumulate(arrivals + (within + 0.5) / np.repeat(many, many) * tick)
        arrivals -= arrivals[0]
        remarks.append(
            f"stamps are ticks of {tick:g} s; requests of a tick are spread evenly within it: the CV of gaps, and "
            "bursts in windows shorter than some ticks, err low"
        )
    return arrivals, order


def _tick(arrivals: "Floats") -> float | None:
    """Return the tick of the clock in s where it is so coarse that arrivals fall together.

    Gaps are then multiples of it, a few ms more or less.
    """
    import numpy as np

    gaps = np.diff(arrivals)
    moving = gaps[gaps > 0]
    if not len(moving) or len(moving) > (1 - TICKED) * len(gaps):
        return None
    tick = round(float(np.quantile(moving, SHORT)), 1)
    if tick < TICK:
        return None
    multiples = moving / tick
    near = np.abs(multiples - np.maximum(np.rint(multiples), 1)) < NEAR
    return tick if near.mean() > 1 - SHORT else None


def _block_tokens(blocks: Blocks, isl: "Ints", remarks: list[str]) -> int | None:
    """Return the tokens of a block: the size at which most prompts have as many blocks as they fill or begin."""
    import numpy as np

    counts = np.diff(blocks.offsets)
    known = counts > 0
    counts, lengths = counts[known], isl[: len(known)][known]
    fits = {size: int(((counts == -(-lengths // size)) | (counts == lengths // size)).sum()) for size in BLOCK_SIZES}
    size = max(fits, key=lambda one: (fits[one], one))
    if 2 * fits[size] < len(counts):
        remarks.append("prefix blocks are left out: prompts have other numbers of them than blocks of any usual size")
        return None
    if fits[size] < len(counts):
        remarks.append(f"blocks of {size} tokens: {len(counts) - fits[size]:,} prompts have another number of them")
    return size


def _in_order(blocks: Blocks, order: "Ints") -> Blocks:
    import numpy as np

    order = order[order < blocks.requests]
    counts = np.diff(blocks.offsets)[order]
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)))
    at = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - blocks.offsets[:-1][order], counts)
    return Blocks(ids=blocks.ids[at], offsets=offsets)
