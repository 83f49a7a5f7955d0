"""The project's own step times of a layout -> the few numbers that the replay asks for."""

from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from perfmodel.ledger.records import Family, Layout
from perfmodel.prediction.serving import Case, pool_point
from perfmodel.service.steps import DecodeStep, PrefillStep

Floats = NDArray[np.float64]

LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384)
PROMPTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
MOST_TOKENS = 32768  # of a rank in one prefill step
#: requests of a rank; close where a step is short, as thresholds of collectives show there
BATCHES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256)
CONTEXTS = (128, 512, 1024, 2048, 4096, 8192, 16384, 32768)


def prefill_step(layout: Layout, family: Family, case: Case) -> PrefillStep:
    """Return the cost of a prefill step of a layout, fitted in relative error over prompts of 128 to 16,384 tokens.

    A rank has equal prompts of at most 32,768 tokens together; nothing is cached, and no spread of lengths is added:
    the replay has the busiest rank itself.  The batch of the layout and the lengths of the case do not matter.
    """
    pairs = np.array([(n, p) for p in LENGTHS for n in PROMPTS if n * p <= MOST_TOKENS], float)
    batch, length = pairs.T
    plain = replace(case, isl=length, prefix_hit=0, isl_spread=0)
    times = _times(replace(layout, batch=batch), family, plain, length.shape)
    columns = np.stack([np.ones_like(batch), batch * length, batch * length**2], axis=1)
    (fixed, token, pair), worst = _fitted(columns, times)
    return PrefillStep(fixed=fixed, per_token=token, per_pair=pair, worst=worst)


def decode_step(layout: Layout, family: Family, case: Case) -> DecodeStep:
    """Return the cost of a decode step of a layout: a line in the contexts for each of 25 batches of a rank.

    Contexts of 128 to 32,768 tokens are equal, as the replay has the busiest rank itself.  What does not fit memory
    is left out where two contexts of a batch or more fit; batches of which fewer fit end the table.
    """
    plain = replace(
        case, osl=2, running_context=None, running_deviation=None, rates=replace(case.rates, context_spread=0.0)
    )
    batch, context = (one.ravel() for one in np.meshgrid(np.array(BATCHES, float), CONTEXTS, indexing="ij"))
    point = pool_point(replace(layout, batch=batch), family, replace(plain, isl=context - 1))
    shape = (len(BATCHES), len(CONTEXTS))
    seconds = np.broadcast_to(np.asarray(point.step_time, float), batch.shape).reshape(shape)
    fits = np.broadcast_to(np.asarray(cast(Any, point.memory) <= cast(Any, point.usable)), batch.shape).reshape(shape)
    contexts = np.array(CONTEXTS, float)
    found: list[tuple[float, float, float, float]] = []
    for count, times, held in zip(BATCHES, seconds, fits, strict=True):
        if held.sum() < 2 and found:
            break
        known = held if held.sum() > 1 else np.ones_like(held)
        columns = np.stack([np.ones(known.sum()), count * contexts[known]], axis=1)
        (time, slope), worst = _fitted(columns, times[known])
        found.append((float(count), time, slope, worst))
    counts, times_at, slopes, errors = zip(*found, strict=True)
    return DecodeStep(counts=counts, times=times_at, slopes=slopes, worst=max(errors))


def _times(layout: Layout, family: Family, case: Case, shape: tuple[int, ...]) -> Floats:
    return np.broadcast_to(np.asarray(pool_point(layout, family, case).step_time, float), shape)


def _fitted(columns: Floats, times: Floats) -> tuple[tuple[float, ...], float]:
    """Return coefficients of least squared relative error, none below zero, and the largest error."""
    from scipy.optimize import nnls

    relative = columns / times[:, None]
    size = np.linalg.norm(relative, axis=0)
    found = nnls(relative / size, np.ones(len(times)))[0] / size
    return tuple(float(one) for one in found), float(np.abs(relative @ found - 1).max())
