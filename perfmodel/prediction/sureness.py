"""How sure it is that limits are met: one at a time in three words, all at once, and with what margins."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from perfmodel.algebra import as_float
from perfmodel.prediction.deployment import ROUND_OFF, ROUNDING, Deployment
from perfmodel.prediction.uncertainty import DeploymentIntervals, PoolIntervals, Values

MET, LIKELY = 0.8, 0.5  # least chances that a limit is told as met, and as likely met, with

#: whether a limit is met, in a word
Word = Literal["met", "likely", "missed"]

#: what stands for the word in a table
MARKS: dict[Word, str] = {"met": "✓", "likely": "~", "missed": "✗"}


def verdict_of(met: bool, chance: float | None) -> Word:
    """Return whether a limit is met in a word: by its chance where there is one, else by the prediction.

    From 80 % on it is met, from 50 % on likely met, below more likely missed.

    >>> verdict_of(True, 0.8), verdict_of(True, 0.55), verdict_of(True, 0.39), verdict_of(True, None)
    ('met', 'likely', 'missed', 'met')
    >>> verdict_of(False, None)
    'missed'
    """
    if chance is None:
        return "met" if met else "missed"
    return "met" if chance >= MET else "likely" if chance >= LIKELY else "missed"


def met_at_once(
    best: Deployment,
    decode: PoolIntervals,
    overall: DeploymentIntervals,
    *,
    tpot: float | None,
    ttft: float | None,
    rate: float | None,
) -> list[Any]:
    """Return for each limit that is given in which samples it is met.

    Sample for sample they are of one machine, so what all of them have in common is met at once.  ``decode`` has the
    prefill steps in between where instances are mixed.
    """
    met: list[Any] = []
    if tpot is not None:
        met.append(decode.steps / as_float(best.decode.point.tokens_per_step) <= tpot * (1 + ROUND_OFF))
    if ttft is not None:
        met.append(overall.ttfts <= ttft * (1 + ROUND_OFF))
    if rate is not None:
        met.append(overall.rates >= rate * (1 - ROUNDING))
    return met


def chance_of_all(met: Sequence[Any]) -> float:
    """Return the part of samples in which every limit is met; 1 where there is none.

    >>> chance_of_all([np.array([True, True, False, False]), np.array([True, False, True, False])])
    0.25
    """
    return float(np.mean(np.logical_and.reduce(met))) if len(met) else 1.0


def margins(prefill: Values, decode: Values, confidence: float, parts: Sequence[float]) -> list[tuple[float, float]]:
    """Return pairs of margins on the steps of prefill and decode that a machine is within at once so often.

    ``prefill`` and ``decode`` are samples of a step over its prediction.  In each pair the chance that both are within
    is ``confidence`` or just above.  The steps of decode that are over its margin are as many of those that may be
    over one as ``1 - part``, so with part 1 all are left to prefill.  A margin is at least 1, since the prediction is
    to be within the limits too.

    >>> steps = np.linspace(0.8, 1.8, 101)
    >>> [[f"{one:.2f}" for one in pair] for pair in margins(steps[::-1], steps, 0.9, (0.5, 1.0))]  # one slow, one fast
    [['1.75', '1.75'], ['1.70', '1.80']]
    """
    found = []
    for part in parts:
        longest = float(np.quantile(decode, confidence + (1 - confidence) * part, method="higher"))
        within = np.sort(prefill[decode <= longest])
        wanted = int(np.ceil(confidence * len(prefill) - ROUNDING))
        found.append((max(1.0, float(within[min(wanted, len(within)) - 1])), max(1.0, longest)))
    return list(dict.fromkeys(found))


def margin(decode: Values, confidence: float) -> float:
    """Return the margin on the step of decode alone that a machine is within so often; at least 1.

    >>> f"{margin(np.linspace(0.8, 1.8, 101), 0.9):.2f}"
    '1.70'
    """
    return max(1.0, float(np.quantile(decode, confidence, method="higher")))
