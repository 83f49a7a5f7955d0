"""What is asked of a service, request by request: lengths, arrivals, and prompts that begin alike."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import NormalDist
from typing import TYPE_CHECKING

from perfmodel.errors import UsageError
from perfmodel.specs.base import MOST
from perfmodel.units import HOUR

if TYPE_CHECKING:  # what lists and shows starts without it
    import numpy as np
    import numpy.typing as npt

    Ints = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]

WINDOWS = (1.0, 10.0, 60.0, 600.0)  # s, that arrivals are counted over
HOURS = 24  # of a day, counted from the first arrival
LEAST_COUNTED = 60.0  # s of an hour that a rate is told of


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthStatistics:
    """How long prompts or outputs are, in tokens; ``cv`` is the standard deviation over the mean."""

    mean: float
    cv: float
    p50: float
    p90: float
    p99: float
    largest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivalStatistics:
    """How requests arrive; rates in 1/s, windows in s; None where there are too few arrivals to tell."""

    #: from the first arrival to the last, s
    seconds: float
    #: gaps over the time that they fill
    rate: float | None
    #: standard deviation of the gaps over their mean; 1 for Poisson arrivals
    gap_cv: float | None
    #: window -> variance over mean of the arrivals in it; 1 for Poisson arrivals
    dispersion: Mapping[float, float]
    #: window -> rate within the busiest one
    peaks: Mapping[float, float]
    #: requests of each hour from the first arrival, and the time that they were counted over; days are added up
    hour_requests: tuple[int, ...]
    hour_seconds: tuple[float, ...]

    @property
    def hour_rates(self) -> tuple[float | None, ...]:
        """Rate of each hour in 1/s; None where less than a minute of it was seen."""
        return tuple(
            count / seconds if seconds >= LEAST_COUNTED else None
            for count, seconds in zip(self.hour_requests, self.hour_seconds, strict=True)
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Blocks:
    """Blocks of prompts, flat: those of request i stand from ``offsets[i]`` to ``offsets[i + 1]``.

    Equal blocks at the start of two prompts are the same tokens.  Where a file has more than can be held, the first
    requests alone have theirs: there may be fewer offsets than requests.
    """

    ids: "Ints"
    offsets: "Ints"

    @property
    def requests(self) -> int:
        """Requests whose blocks are known, the first of the workload."""
        return len(self.offsets) - 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HitCurve:
    """Share of prompt tokens, or of prefill work, that a prefix cache holds, by its size in blocks."""

    block_tokens: int
    #: sizes, ascending from 0; between them the share lies on a line
    blocks: "Ints"
    found: "Floats"

    def at(self, blocks: float) -> float:
        """Return the share found by a pool of so many blocks."""
        import numpy as np

        return float(np.interp(blocks, self.blocks, self.found))

    @property
    def most(self) -> float:
        """The share that a pool without end finds."""
        return float(self.found[-1])

    def thinned(self, points: int) -> "HitCurve":
        """Return the curve at so many sizes, evenly spread in their logarithm, both ends kept."""
        import numpy as np

        if len(self.blocks) <= points:
            return self
        last = int(self.blocks[-1])
        sizes = np.unique(np.concatenate(([0], np.rint(np.geomspace(1, last, points - 1)).astype(np.int64), [last])))
        return replace(self, blocks=sizes, found=np.interp(sizes, self.blocks, self.found))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stated:
    """What a summary states of requests that it does not hold."""

    arrivals: ArrivalStatistics | None = None
    curves: tuple[HitCurve, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Workload:
    """Requests with their lengths in tokens and, where they are known, their arrivals and the blocks of their prompts.

    ``arrivals`` are in s from the first, ascending, or None where lengths alone are known; a summary then says in
    ``stated`` how they were.
    """

    name: str
    isl: "Ints"
    osl: "Ints"
    arrivals: "Floats | None" = None
    blocks: Blocks | None = None
    block_tokens: int | None = None
    #: lines of the file that were left out
    skipped: int = 0
    #: what was decided in reading it that a user may want to know
    remarks: tuple[str, ...] = ()
    stated: Stated = field(default_factory=Stated)

    def __post_init__(self) -> None:
        """Hold lengths to one of each for every request."""
        assert len(self.isl) == len(self.osl) > 0
        assert self.arrivals is None or len(self.arrivals) == len(self.isl)

    @property
    def requests(self) -> int:
        """Number of requests."""
        return len(self.isl)

    @property
    def inputs(self) -> LengthStatistics:
        """How long prompts are."""
        return length_statistics(self.isl)

    @property
    def outputs(self) -> LengthStatistics:
        """How long outputs are."""
        return length_statistics(self.osl)

    @property
    def correlation(self) -> float | None:
        """Pearson's correlation of input and output lengths; None where one of them never changes."""
        import numpy as np

        x, y = (values.astype(np.float64) - values.mean() for values in (self.isl, self.osl))
        scale = float(np.sqrt((x @ x) * (y @ y)))
        return float(x @ y) / scale if scale else None

    def moment(self, inputs: int = 0, outputs: int = 0) -> float:
        """Return the raw moment E[i^a o^b] of input and output lengths, in tokens to the power a + b."""
        import numpy as np

        return float(np.mean(self.isl.astype(np.float64) ** inputs * self.osl.astype(np.float64) ** outputs))

    def arrival_statistics(self) -> ArrivalStatistics | None:
        """Return how requests arrive, as their arrivals or a summary say it; None where neither does."""
        return self.stated.arrivals if self.arrivals is None else arrival_statistics(self.arrivals)

    @property
    def rate(self) -> float | None:
        """Mean rate in 1/s; None where arrivals are not known."""
        found = self.arrival_statistics()
        return None if found is None else found.rate

    @property
    def gap_cv(self) -> float | None:
        """Coefficient of variation of the gaps between arrivals; None where arrivals are not known."""
        found = self.arrival_statistics()
        return None if found is None else found.gap_cv

    def dispersion(self, window: float) -> float | None:
        """Return variance over mean of the arrivals in windows of so many s; a summary knows those of ``WINDOWS``."""
        if self.arrivals is None:
            known = self.stated.arrivals
            return None if known is None else known.dispersion.get(window)
        return dispersion(self.arrivals, window)

    def peak_rate(self, window: float) -> float | None:
        """Return the rate in 1/s within the busiest so many s; a summary knows those of ``WINDOWS`` and of an hour."""
        if self.arrivals is None:
            known = self.stated.arrivals
            return None if known is None else known.peaks.get(window)
        return peak_rate(self.arrivals, window)

    def hits(self, merge: int = 1) -> HitCurve | None:
        """Return the share of prompt tokens that a prefix cache finds, by its size; None where blocks are not known.

        ``merge``, a power of two, makes one block of so many; a summary knows those of 1, 2 and 4.
        """
        from perfmodel.specs.reuse import hit_curve

        if self.blocks is None or self.block_tokens is None:
            first = self.stated.curves[0].block_tokens if self.stated.curves else 0
            return next((one for one in self.stated.curves if one.block_tokens == first * merge), None)
        return hit_curve(blocks=self.blocks, lengths=self.isl, block_tokens=self.block_tokens, merge=merge)

    def work_saved(self, *, linear: float, quadratic: float, merge: int = 1) -> HitCurve | None:
        """Return the share of prefill work b l + c l^2 that a prefix cache saves, by its size.

        A hit rate in tokens overstates it: what is found stands at the start, where a token has least to look back on.
        None where blocks are not known, as of a summary.
        """
        from perfmodel.specs.reuse import hit_curve

        if self.blocks is None or self.block_tokens is None:
            return None
        return hit_curve(
            blocks=self.blocks,
            lengths=self.isl,
            block_tokens=self.block_tokens,
            merge=merge,
            linear=linear,
            quadratic=quadratic,
        )


def length_statistics(lengths: "Ints") -> LengthStatistics:
    """Return mean, spread and percentiles of lengths; percentiles lie on lines between the lengths beside them."""
    import numpy as np

    mean = float(lengths.mean())
    p50, p90, p99 = (float(one) for one in np.percentile(lengths, (50, 90, 99)))
    return LengthStatistics(
        mean=mean, cv=float(lengths.std()) / mean, p50=p50, p90=p90, p99=p99, largest=int(lengths.max())
    )


def dispersion(arrivals: "Floats", window: float) -> float | None:
    r"""Return the index of dispersion of counts: variance over mean of the arrivals in windows of so many s.

    Windows follow each other from the first arrival; one that the last arrival does not fill is left out.  None where
    there are fewer than two.
    """
    import numpy as np

    whole = int((arrivals[-1] - arrivals[0]) // window)
    if whole < 2:  # of one window no variance is told
        return None
    at = ((arrivals - arrivals[0]) // window).astype(np.int64)
    _, counts = np.unique(at[at < whole], return_counts=True)  # windows without arrivals count as zeros
    mean = counts.sum() / whole
    return float((counts.astype(np.float64) @ counts) / whole / mean - mean)


def peak_rate(arrivals: "Floats", window: float) -> float | None:
    """Return the rate in 1/s within the busiest so many s, wherever they begin; None where less was seen."""
    import numpy as np

    if arrivals[-1] - arrivals[0] < window:
        return None
    ends = np.searchsorted(arrivals, arrivals + window, side="left")
    return float((ends - np.arange(len(arrivals))).max()) / window


def arrival_statistics(arrivals: "Floats") -> ArrivalStatistics:
    """Return how requests arrive, of ascending times in s."""
    import numpy as np

    seconds = float(arrivals[-1] - arrivals[0])
    gaps = np.diff(arrivals)
    rate = len(gaps) / seconds if seconds > 0 else None
    hours = ((arrivals - arrivals[0]) // HOUR).astype(np.int64)
    shown = min(int(hours[-1]) + 1, HOURS)
    days, rest = divmod(seconds, HOUR * HOURS)
    return ArrivalStatistics(
        seconds=seconds,
        rate=rate,
        gap_cv=None if rate is None else float(gaps.std()) * rate,
        dispersion={w: found for w in WINDOWS if (found := dispersion(arrivals, w)) is not None},
        peaks={w: found for w in (*WINDOWS, HOUR) if (found := peak_rate(arrivals, w)) is not None},
        hour_requests=tuple(int(n) for n in np.bincount(hours % HOURS, minlength=shown)[:shown]),
        hour_seconds=tuple(days * HOUR + min(max(rest - hour * HOUR, 0.0), HOUR) for hour in range(shown)),
    )


def equal(isl: int, osl: int, *, name: str = "equal lengths") -> Workload:
    """Return a workload all of whose requests have the same lengths, in tokens; one stands for all of them.

    >>> equal(4096, 1024).moment(inputs=1, outputs=1)
    4194304.0
    """
    import numpy as np

    return Workload(name=name, isl=np.array([isl], np.int64), osl=np.array([osl], np.int64))


def lognormal(
    isl_mean: float,
    isl_cv: float,
    osl_mean: float,
    osl_cv: float,
    correlation: float = 0.0,
    requests: int = 10_000,
    seed: int = 0,
) -> Workload:
    r"""Return a workload of lognormal lengths in whole tokens, the same for the same arguments.

    Lengths are the quantiles at :math:`(k - \frac12) / n`, stretched so that mean and coefficient of variation are
    those asked for.  Which input meets which output is drawn, from normals of correlation
    :math:`\ln(1 + r\,c_i c_o) / (\sigma_i\sigma_o)`, so that lengths correlate by ``correlation``.

    Raises ``UsageError`` for what no lengths have.
    """
    import numpy as np

    most = float(np.sqrt(max(requests - 1, 0))) / 2
    if not (1 <= min(isl_mean, osl_mean) and max(isl_mean, osl_mean) <= MOST and 0 <= min(isl_cv, osl_cv)) or not (
        1 <= requests <= MOST and max(isl_cv, osl_cv) <= most
    ):
        raise UsageError(
            f"{requests} lognormal lengths of mean {isl_mean:g} and {osl_mean:g}, CV {isl_cv:g} and {osl_cv:g}; "
            f"allowed: means from 1 token to {MOST}, CVs from 0 to {most:.3g} of so many requests; give such"
        )
    spread = [float(np.sqrt(np.log1p(cv**2))) for cv in (isl_cv, osl_cv)]
    beneath = 0.0
    if correlation and spread[0] * spread[1]:
        inside = 1 + correlation * isl_cv * osl_cv
        beneath = float(np.log(inside)) / (spread[0] * spread[1]) if inside > 0 else -np.inf
    if abs(beneath) > 1 or (correlation and not spread[0] * spread[1]):
        raise UsageError(
            f"correlation {correlation:g} of lengths of CV {isl_cv:g} and {osl_cv:g}; allowed: what lognormal lengths "
            "of these CVs can have; give one nearer to 0"
        )
    draw = np.random.default_rng(seed)
    first, other = draw.standard_normal(requests), draw.standard_normal(requests)
    second = beneath * first + np.sqrt(1 - beneath**2) * other
    shares = (np.arange(requests) + 0.5) / requests
    deviates = np.array([NormalDist().inv_cdf(share) for share in shares])
    isl, osl = (
        _stretched(deviates, mean, cv)[np.argsort(np.argsort(by))]
        for by, mean, cv in ((first, isl_mean, isl_cv), (second, osl_mean, osl_cv))
    )
    return Workload(name="lognormal lengths", isl=isl, osl=osl)


def _stretched(deviates: "Floats", mean: float, cv: float) -> "Ints":
    """Return whole lengths, ascending, as lognormal as whole lengths of this mean and CV are."""
    import numpy as np

    sigma, scale = float(np.sqrt(np.log1p(cv**2))), mean
    lengths = np.full(len(deviates), max(1, round(mean)), np.int64)
    for _ in range(30 if sigma and len(deviates) > 1 else 0):  # a few suffice; whole tokens leave a rest
        values = np.exp(sigma * deviates)
        lengths = np.clip(np.rint(scale * values / values.mean()), 1, MOST).astype(np.int64)
        reached, spread = float(lengths.mean()), float(lengths.std()) / float(lengths.mean())
        scale *= mean / reached
        if spread:
            sigma *= float(np.sqrt(np.log1p(cv**2) / np.log1p(spread**2)))
    return lengths
