"""What clients of a plan will send, and what they are to see of it: lengths, arrivals, limits on waits."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from perfmodel.errors import UsageError
from perfmodel.files.workloads import load_workload
from perfmodel.formulas.decode_queue import running_context, running_context_variance
from perfmodel.planning.inputs import longest_allowed
from perfmodel.specs.model import ModelSpec
from perfmodel.specs.run import WAITS, Routing, RunSpec
from perfmodel.specs.workload import Workload, equal, lognormal

if TYPE_CHECKING:
    from perfmodel.service.records import Requests

DRAWN = 60_000  # lengths of a mean and spread
MOST_SPREAD = 3.0  # of prompts that are batched together, as conditions allow


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RequestsAsked:
    """Lengths and arrivals of what is to be served, and the limits that are on it."""

    workload: Workload
    #: standard deviation over mean of the gaps between arrivals; none where the workload's own arrivals are taken
    arrival_cv: float | None
    routing: Routing
    #: limits in seconds on means (``ttft``), and on what so many of a hundred requests stay within (``ttft_p99``)
    limits: Mapping[str, float]
    #: least part of the requests within all limits
    goodput: float | None
    remarks: tuple[str, ...] = ()

    @property
    def spread(self) -> bool:
        """Whether lengths differ."""
        return self.workload.inputs.cv > 0 or self.workload.outputs.cv > 0

    @property
    def chooses(self) -> bool:
        """Whether a plan is chosen by what clients see of it: where a limit is on more than means."""
        return self.goodput is not None or any(key not in WAITS for key in self.limits)

    def tightest(self, wait: str) -> float | None:
        """Return the tightest limit on a wait: what a request is to be within, to be within all of them."""
        return min((value for key, value in self.limits.items() if key.partition("_")[0] == wait), default=None)

    def lengths(self) -> tuple[int, int]:
        """Return the mean lengths of prompts and answers, in whole tokens."""
        return max(1, round(self.workload.inputs.mean)), max(1, round(self.workload.outputs.mean))

    def moments(self) -> dict[str, Any]:
        """Return what a search knows of spread lengths, by the keys of conditions; nothing of equal ones."""
        if not self.spread:
            return {}
        of = self.workload.moment
        outputs = of(outputs=1)
        mean = running_context(
            mean_output=outputs, mean_input_output=of(inputs=1, outputs=1), mean_square_output=of(outputs=2)
        )
        variance = running_context_variance(
            mean_output=outputs,
            mean_square_input_output=of(inputs=2, outputs=1),
            mean_input_square_output=of(inputs=1, outputs=2),
            mean_cube_output=of(outputs=3),
            context=mean,
        )
        return {
            "isl_spread": min(MOST_SPREAD, self.workload.inputs.cv),
            "running_context": float(cast(float, mean)),
            "running_deviation": math.sqrt(float(cast(float, variance))),
        }

    def sent(self, rate: float, count: int, seed: int) -> "Requests":
        """Return so many requests at a mean rate; a workload that has fewer comes again from its start."""
        import numpy as np

        from perfmodel.service.arrivals import renewal, stamped
        from perfmodel.service.records import Requests

        own = self.workload
        isl, osl = (np.resize(lengths, count) for lengths in (own.isl, own.osl))
        if self.arrival_cv is not None or own.arrivals is None:
            return Requests.of(
                isl, osl, renewal(rate, 1.0 if self.arrival_cv is None else self.arrival_cv, count, seed)
            )
        span = own.arrivals[-1] - own.arrivals[0]
        round_trip = span + span / max(1, own.requests - 1)
        times = np.resize(own.arrivals, count) + np.arange(count) // own.requests * round_trip
        return Requests.of(isl, osl, stamped(times, rate))


def requests_asked(run: RunSpec, model: ModelSpec) -> RequestsAsked | None:
    """Return what clients send and are to see; none where a run-spec says nothing of them.

    Raises ``UsageError`` where keys contradict each other, ``DataError`` where a file has faults.
    """
    if not run.tells_clients:
        return None
    limits = {wait: value for wait in WAITS if (value := getattr(run, wait)) is not None} | run.percentile_limits
    if run.goodput is not None and not limits:
        raise UsageError("--goodput needs a limit that requests are to be within: give --ttft or --tpot")
    workload, remarks = _workload(run, model)
    cv = run.arrival_cv
    if cv is None and workload.arrivals is None:
        cv = workload.gap_cv
    return RequestsAsked(
        workload=workload,
        arrival_cv=1.0 if cv is None and workload.arrivals is None else cv,
        routing=run.routing or "round_robin",
        limits=limits,
        goodput=run.goodput,
        remarks=remarks,
    )


def _workload(run: RunSpec, model: ModelSpec) -> tuple[Workload, tuple[str, ...]]:
    """Return the lengths of requests, those left out that the model does not take, and remarks."""
    remarks: tuple[str, ...] = ()
    if run.workload is None:
        isl, osl = int(run.isl or 0), int(run.osl or 0)
        if not run.isl_cv and not run.osl_cv:
            return equal(isl, osl), ()
        found = lognormal(isl, run.isl_cv or 0.0, osl, run.osl_cv or 0.0, requests=DRAWN)
    else:
        found = load_workload(Path(run.workload))
        remarks = tuple(f"{found.name}: {text}" for text in found.remarks)
    fits = found.isl + found.osl <= model.max_position_embeddings
    if fits.all():
        return found, remarks
    if not fits.any():
        raise UsageError(
            f"all {found.requests:,} requests are longer than {model.name} takes; "
            f"{longest_allowed(model, int((found.isl + found.osl).max()))}"
        )
    long = found.requests - int(fits.sum())
    kept = replace(
        found,
        isl=found.isl[fits],
        osl=found.osl[fits],
        arrivals=None if found.arrivals is None else found.arrivals[fits],
        blocks=None,
    )
    words = (
        f"left out {long:,} requests longer than the {model.max_position_embeddings:,} tokens that {model.name} takes"
    )
    return kept, (*remarks, words)
