"""What a file of requests says of the load: everything that is told of a workload, worked out once."""

from dataclasses import dataclass
from pathlib import Path

from perfmodel.specs.workload import ArrivalStatistics, HitCurve, LengthStatistics, Workload
from perfmodel.specs.workload_summary import MERGES


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A workload and what is told of it; None and nothing where the file does not say."""

    workload: Workload
    inputs: LengthStatistics
    outputs: LengthStatistics
    correlation: float | None
    arrivals: ArrivalStatistics | None
    #: a curve for each size that blocks are merged to
    curves: tuple[HitCurve, ...]


def described(path: str, skip_bad: bool = False) -> Described:
    """Return what is told of the workload in a file; raise as ``load_workload`` does."""
    from perfmodel.files.workloads import load_workload

    workload = load_workload(Path(path), skip_bad)
    return Described(
        workload=workload,
        inputs=workload.inputs,
        outputs=workload.outputs,
        correlation=workload.correlation,
        arrivals=workload.arrival_statistics(),
        curves=tuple(curve for merge in MERGES if (curve := workload.hits(merge)) is not None),
    )
