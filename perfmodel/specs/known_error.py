"""How wrong the prediction of a published number was that was made without its source."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownError:
    """One published number, predicted without its source and what was read off it.

    ``kind`` is "step or TPOT", "rate" or "first token"; ``phase`` decode, prefill, mixed or deployment.
    """

    row: str
    source: str
    kind: str
    phase: str
    measured_on: str
    model: str
    system: str
    chip: str
    overlap: str
    exchange: str
    precision: str
    #: dies of the instance, tokens of a die in a step, mean context; 0 of a deployment, which has no one layout
    dies: float
    tokens: float
    context: float
    #: error of the prediction, turned so that above is slow
    slow: float
    inside90: bool
