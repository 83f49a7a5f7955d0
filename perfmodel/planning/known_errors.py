"""Known errors: made of what ``validate`` finds, and those that belong to a plan or a step."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from perfmodel.files.known_errors import known_errors
from perfmodel.files.machines import load_conditions
from perfmodel.planning.scores import Scores
from perfmodel.prediction.deployment import PoolPlan
from perfmodel.prediction.serving import Case
from perfmodel.scoring.deployments import Deployed
from perfmodel.scoring.distance import place_of_pool
from perfmodel.scoring.known_errors import DEPLOYMENT, KindError, Near, error_of_kind, nearest_known
from perfmodel.scoring.summaries import Counted, counted, quantity_of
from perfmodel.scoring.validation import Result, turned
from perfmodel.specs.known_error import KnownError
from perfmodel.supply.machine import Machine

#: what a layout adds to where a row lies -> what stands for it where there is none
LAID_OUT = {"overlap": "", "exchange": "", "precision": "", "dies": 0.0, "tokens": 0.0, "context": 0.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """How wrong predictions like one are known to be: the nearest row, and those of its kind."""

    near: Near | None
    #: of rows of its phase
    pools: KindError | None
    #: of rates of whole deployments, where it is one
    deployments: KindError | None


def trust_of(pool: PoolPlan, machine: Machine, case: Case, *, deployment: bool, mixed: bool = False) -> Trust:
    """Return how wrong predictions of pools like this are known to be, and of whole deployments where it is in one.

    Of ``mixed`` instances it is what clients of such measured.
    """
    errors, names = known_errors(), {"model": case.model.name, "chip": machine.chip.spec.name}
    phase = "mixed" if mixed else pool.family.phase
    return Trust(
        near=nearest_known(replace(place_of_pool(pool, machine, case), phase=phase), errors),
        pools=error_of_kind(phase, **names, errors=errors),
        deployments=error_of_kind(DEPLOYMENT, **names, errors=errors, kind="rate") if deployment else None,
    )


def errors_found(scores: Scores) -> list[KnownError]:
    """Return what a file of known errors holds of results that were scored with and without their source."""
    return [*_of_rows(scores.results), *_of_deployments(scores.deployed)]


def _of_rows(results: Iterable[Result]) -> Iterator[KnownError]:
    for result in results:
        sizes = {key: getattr(result.place, key) for key in LAID_OUT}
        for one in counted([result], ()):
            yield from _known(result.spec.name, one, model=result.place.model, chip=result.place.chip, **sizes)


def _of_deployments(deployed: Iterable[Deployed]) -> Iterator[KnownError]:
    """Yield those of whole deployments, which have no one layout."""
    for each in deployed:
        conditions = each.spec.conditions
        chip = load_conditions(conditions).chip.spec.name
        for one in counted((), [each]):
            yield from _known(each.spec.name, one, model=conditions.model, chip=chip, **LAID_OUT)


def _known(row: str, one: Counted, **of: Any) -> Iterator[KnownError]:
    """Yield the error of a number that was predicted without its source; ``of`` is what it is of."""
    left_out = one.score.left_out
    if left_out is not None:
        yield KnownError(
            row=row,
            source=one.source,
            kind=quantity_of(one),
            phase=one.phase,
            measured_on=one.measured_on,
            system=one.system,
            slow=turned(left_out.quantity, left_out.error),
            inside90=left_out.inside90,
            **of,
        )
