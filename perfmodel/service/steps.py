"""What a step of an instance costs, as few numbers: what the replay asks millions of times."""

from bisect import bisect_right
from dataclasses import dataclass

from perfmodel.units import Seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillStep:
    """A step of prefill: fixed, and the work of the busiest data-parallel rank.

    .. math:: t = a + \\max_r \\sum (b (p_1 - p_0) + c (p_1^2 - p_0^2))

    The sum is over the pieces of prompts that a rank works in the step, each from token :math:`p_0` to :math:`p_1`.

    >>> step = PrefillStep(fixed=0.1, per_token=1e-4, per_pair=1e-8)
    >>> round(step.fixed + step.work(0, 4096), 3)
    0.677
    """

    #: a, b and c, in seconds
    fixed: float
    per_token: float
    per_pair: float = 0.0
    #: largest relative error where it was fitted
    worst: float = 0.0

    def work(self, start: float, stop: float) -> float:
        """Return the seconds of a piece of a prompt behind ``start`` tokens that are there."""
        return self.per_token * (stop - start) + self.per_pair * (stop * stop - start * start)


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeStep:
    """A step of decode by what the busiest rank has: requests n, and the sum of their contexts C.

    .. math:: t = a_n + d_n C

    ``times`` (:math:`a_n`) and ``slopes`` (:math:`d_n`) stand at ``counts`` and are interpolated; beyond the last
    count times go on as between the last two and slopes stay; below the first both stay.

    >>> step = DecodeStep.linear(fixed=0.026, per_request=0.0005, per_context=140e-9)
    >>> round(step.time(32, 32 * 4096), 4)
    0.0604
    """

    counts: tuple[float, ...]
    times: tuple[float, ...]
    slopes: tuple[float, ...]
    #: largest relative error where it was fitted
    worst: float = 0.0

    @staticmethod
    def linear(*, fixed: float, per_request: float, per_context: float = 0.0) -> "DecodeStep":
        """Return a step whose time is linear in requests and contexts."""
        return DecodeStep(counts=(0, 1), times=(fixed, fixed + per_request), slopes=(per_context, per_context))

    @property
    def fixed(self) -> float:
        """Seconds of a step with no request, or with the fewest that are known."""
        return self.times[0]

    def at(self, requests: float) -> tuple[float, float]:
        """Return the seconds of so many requests without contexts, and those of each token of context."""
        if requests <= self.counts[0] or len(self.counts) == 1:
            return self.times[0], self.slopes[0]
        right = min(bisect_right(self.counts, requests), len(self.counts) - 1)
        left = right - 1
        part = (requests - self.counts[left]) / (self.counts[right] - self.counts[left])
        time = self.times[left] + part * (self.times[right] - self.times[left])
        return time, self.slopes[left] + min(part, 1) * (self.slopes[right] - self.slopes[left])

    def time(self, requests: float, contexts: float) -> Seconds:
        """Return the seconds of a step."""
        time, slope = self.at(requests)
        return time + slope * contexts
