"""A workload as a small file: how lengths lie and meet, how requests arrive, what prefix caches find."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Gt, Le, Len
from pydantic import Field, model_validator

from perfmodel.specs.base import MOST, NonNegativeInt, PositiveInt, Spec
from perfmodel.specs.workload import HOURS, WINDOWS, ArrivalStatistics, HitCurve, Stated, Workload
from perfmodel.units import HOUR

if TYPE_CHECKING:
    from perfmodel.specs.workload import Floats, Ints

FORMAT = "moeplan.workload/1"
HELD = 100_000  # requests that a summary is read back as, at most
POINTS = 40  # sizes of a cache
MERGES = (1, 2, 4)  # blocks taken as one
#: shares of requests at which lengths are told; finer at both ends, where percentiles are asked for
LEVELS = tuple(
    sorted(
        {round(k / 200, 4) for k in range(201)}
        | {round(1 - k / 1000, 4) for k in range(50)}
        | {round(1 - k / 10_000, 4) for k in range(20)}
        | {round(1 - k * 10**-power, 8) for power in (5, 6, 7) for k in (1, 2, 5)}
        | {0.001, 0.002}
    )
)
#: ends of the strata of either length that are counted against those of the other
STRATA = (*(k / 20 for k in range(20)), 0.96, 0.97, 0.98, 0.985, 0.99, 0.993, 0.996, 0.998, 0.999, 0.9995, 1.0)

Share = Annotated[float, Ge(0), Le(1), Field(allow_inf_nan=False)]
NonNegative = Annotated[float, Ge(0), Field(allow_inf_nan=False)]
Positive = Annotated[float, Gt(0), Field(allow_inf_nan=False)]
Length = Annotated[float, Ge(1), Le(MOST), Field(allow_inf_nan=False)]


class LengthsSpec(Spec):
    """Lengths at ``LEVELS`` shares of the requests, ascending."""

    levels: Annotated[tuple[Share, ...], Len(2, 2000)]
    tokens: Annotated[tuple[Length, ...], Len(2, 2000)]

    @model_validator(mode="after")
    def _is_ascending(self) -> "LengthsSpec":
        if len(self.levels) != len(self.tokens):
            raise ValueError(
                f"found {len(self.levels)} levels and {len(self.tokens)} tokens; allowed: as many of both; add the rest"
            )
        if any(list(values) != sorted(values) for values in (self.levels, self.tokens)):
            raise ValueError("found values that fall; allowed: ascending levels and tokens; sort them")
        return self


class ArrivalsSpec(Spec):
    """How requests arrived; see ``ArrivalStatistics``."""

    seconds: NonNegative
    rate: Positive | None = None
    gap_cv: NonNegative | None = None
    dispersion: dict[str, NonNegative] = Field(default_factory=dict)
    peaks: dict[str, NonNegative] = Field(default_factory=dict)
    hour_requests: Annotated[tuple[NonNegativeInt, ...], Len(1, HOURS)]
    hour_seconds: Annotated[tuple[NonNegative, ...], Len(1, HOURS)]

    @model_validator(mode="after")
    def _is_of_known_windows(self) -> "ArrivalsSpec":
        known = {f"{window:g} s" for window in (*WINDOWS, HOUR)}
        if strange := sorted({*self.dispersion, *self.peaks} - known):
            raise ValueError(f"found the window {strange[0]!r}; allowed: {', '.join(sorted(known))}; leave it out")
        if len(self.hour_requests) != len(self.hour_seconds):
            raise ValueError("found hour_requests and hour_seconds of different lengths; allowed: one for each hour")
        return self


class CurveSpec(Spec):
    """Share of prompt tokens that a prefix cache finds, by its size in blocks."""

    block_tokens: PositiveInt
    blocks: Annotated[tuple[NonNegativeInt, ...], Len(1, 1000)]
    found: Annotated[tuple[Share, ...], Len(1, 1000)]

    @model_validator(mode="after")
    def _is_ascending(self) -> "CurveSpec":
        if len(self.blocks) != len(self.found):
            raise ValueError("found blocks and shares of different lengths; allowed: one share for each size")
        if any(list(values) != sorted(values) for values in (self.blocks, self.found)):
            raise ValueError("found values that fall; allowed: ascending blocks and found; sort them")
        return self


class SummarySpec(Spec):
    """A workload without its requests."""

    #: version of this form
    format: Literal["moeplan.workload/1"]
    name: Annotated[str, Field(min_length=1, max_length=200)]
    requests: PositiveInt
    skipped: NonNegativeInt = 0
    remarks: Annotated[tuple[str, ...], Len(0, 100)] = ()
    isl: LengthsSpec
    osl: LengthsSpec
    #: ends of the strata of both lengths, as shares of the requests, and how many requests of each stratum of inputs
    #: (a row) have outputs of each stratum
    strata: Annotated[tuple[Share, ...], Len(2, 100)]
    pairs: Annotated[tuple[tuple[NonNegativeInt, ...], ...], Len(1, 99)]
    arrivals: ArrivalsSpec | None = None
    prefix_hits: Annotated[tuple[CurveSpec, ...], Len(0, 10)] = ()

    @model_validator(mode="after")
    def _pairs_fit(self) -> "SummarySpec":
        many = len(self.strata) - 1
        if len(self.pairs) != many or any(len(row) != many for row in self.pairs):
            raise ValueError(f"pairs: found other than {many} rows of {many} counts; allowed: one for each stratum")
        held = sum(map(sum, self.pairs))
        if held > HELD or not held:
            raise ValueError(f"pairs: found {held} requests; allowed: from 1 to {HELD}; write the file anew")
        rows, columns = [sum(row) for row in self.pairs], [sum(column) for column in zip(*self.pairs, strict=True)]
        if rows != columns:
            raise ValueError("pairs: found rows and columns of different sums; allowed: the same; write the file anew")
        return self


def summary_of(workload: Workload) -> SummarySpec:
    """Return a workload without its requests; of more than ``HELD``, evenly chosen ones say which lengths meet."""
    import numpy as np

    chosen = np.linspace(0, workload.requests - 1, min(workload.requests, HELD)).round().astype(np.int64)
    ends = _ends(STRATA, len(chosen))
    rows, columns = (
        np.searchsorted(ends[1:-1], np.argsort(np.argsort(lengths[chosen], kind="stable")), side="right")
        for lengths in (workload.isl, workload.osl)
    )
    pairs = np.zeros((len(ends) - 1, len(ends) - 1), np.int64)
    np.add.at(pairs, (rows, columns), 1)
    curves = [workload.hits(merge) for merge in MERGES]
    return SummarySpec(
        format="moeplan.workload/1",
        name=workload.name[:200],
        requests=workload.requests,
        skipped=workload.skipped,
        remarks=workload.remarks[:100],
        isl=_lengths_spec(workload.isl),
        osl=_lengths_spec(workload.osl),
        strata=STRATA,
        pairs=tuple(tuple(int(n) for n in row) for row in pairs),
        arrivals=_arrivals_spec(workload.arrival_statistics()),
        prefix_hits=tuple(_curve_spec(curve.thinned(POINTS)) for curve in curves if curve is not None),
    )


def workload_of(spec: SummarySpec) -> Workload:
    """Return requests that lie and meet as a summary says, in an order that is drawn once and for all."""
    import numpy as np

    draw = np.random.default_rng(0)
    pairs = np.array(spec.pairs, np.int64)
    many = int(pairs.sum())
    isl, osl = (_drawn(one, many, whole=many == spec.requests) for one in (spec.isl, spec.osl))
    edges = np.concatenate((np.zeros(1, np.int64), np.cumsum(pairs.sum(axis=1))))
    met = np.empty(many, np.int64)
    free = [draw.permutation(np.arange(edges[at], edges[at + 1])) for at in range(len(pairs))]
    taken = np.zeros(len(pairs), np.int64)
    for at, row in enumerate(pairs):  # of each stratum of outputs, as many at random as it has with these inputs
        picked = [free[to][taken[to] : taken[to] + count] for to, count in enumerate(row)]
        taken += row
        met[edges[at] : edges[at + 1]] = draw.permutation(np.concatenate(picked))
    order = draw.permutation(many)
    remarks = [*spec.remarks]
    if many != spec.requests:
        remarks.append(f"{many:,} requests stand for {spec.requests:,}")
    return Workload(
        name=spec.name,
        isl=isl[order],
        osl=osl[met][order],
        block_tokens=spec.prefix_hits[0].block_tokens if spec.prefix_hits else None,
        skipped=spec.skipped,
        remarks=tuple(remarks),
        stated=Stated(
            arrivals=None if spec.arrivals is None else _arrivals(spec.arrivals),
            curves=tuple(_curve(curve) for curve in spec.prefix_hits),
        ),
    )


def _ends(strata: Sequence[float], many: int) -> "Ints":
    import numpy as np

    ends: Ints = np.rint(np.array(strata) * many).astype(np.int64)
    return ends


def _lengths_spec(lengths: "Ints") -> LengthsSpec:
    import numpy as np

    levels = np.array(LEVELS)
    tokens = np.round(np.quantile(lengths, levels), 2)
    kept = np.ones(len(levels), bool)  # of a run of one length its ends suffice
    kept[1:-1] = (tokens[1:-1] != tokens[:-2]) | (tokens[1:-1] != tokens[2:])
    return LengthsSpec(levels=tuple(levels[kept].tolist()), tokens=tuple(tokens[kept].tolist()))


def _drawn(spec: LengthsSpec, many: int, *, whole: bool) -> "Ints":
    """Return so many lengths, ascending: those at evenly spread levels, or the means between where few stand for more.

    A mean keeps the total; the largest would count for many if it stood for others.
    """
    import numpy as np

    levels, tokens = np.array(spec.levels), np.array(spec.tokens)
    if whole:
        at: Floats = np.linspace(0, 1, many) if many > 1 else np.full(1, 0.5)
        lengths: Ints = np.rint(np.interp(at, levels, tokens)).astype(np.int64)
        return lengths
    ends = np.union1d(np.linspace(0, 1, many + 1), np.clip(levels, 0, 1))
    reached = np.interp(ends, levels, tokens)
    areas = np.concatenate(([0.0], np.cumsum(np.diff(ends) * (reached[1:] + reached[:-1]) / 2)))
    means = np.diff(np.interp(np.linspace(0, 1, many + 1), ends, areas)) * many
    kept: Ints = np.maximum(np.rint(means), 1).astype(np.int64)
    return kept


def _arrivals_spec(found: ArrivalStatistics | None) -> ArrivalsSpec | None:
    if found is None:
        return None
    return ArrivalsSpec(
        seconds=_digits(found.seconds),
        rate=found.rate and _digits(found.rate),
        gap_cv=None if found.gap_cv is None else _digits(found.gap_cv),
        dispersion={f"{window:g} s": _digits(value) for window, value in found.dispersion.items()},
        peaks={f"{window:g} s": _digits(value) for window, value in found.peaks.items()},
        hour_requests=found.hour_requests,
        hour_seconds=tuple(map(_digits, found.hour_seconds)),
    )


def _arrivals(spec: ArrivalsSpec) -> ArrivalStatistics:
    windows = {f"{window:g} s": window for window in (*WINDOWS, HOUR)}
    return ArrivalStatistics(
        seconds=spec.seconds,
        rate=spec.rate,
        gap_cv=spec.gap_cv,
        dispersion={windows[key]: value for key, value in spec.dispersion.items()},
        peaks={windows[key]: value for key, value in spec.peaks.items()},
        hour_requests=spec.hour_requests,
        hour_seconds=spec.hour_seconds,
    )


def _curve_spec(curve: HitCurve) -> CurveSpec:
    return CurveSpec(
        block_tokens=curve.block_tokens,
        blocks=tuple(curve.blocks.tolist()),
        found=tuple(min(1.0, _digits(share)) for share in curve.found.tolist()),
    )


def _curve(spec: CurveSpec) -> HitCurve:
    import numpy as np

    return HitCurve(block_tokens=spec.block_tokens, blocks=np.array(spec.blocks), found=np.array(spec.found))


def _digits(value: float) -> float:
    """Return a number with six digits."""
    return float(f"{value:.6g}")
