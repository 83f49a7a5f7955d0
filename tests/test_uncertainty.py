"""Intervals: as wide as the stated ranges make them, and honest on the published rows."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from perfmodel.files import catalog, folders, machines
from perfmodel.formulas.statistics import student_quantile
from perfmodel.ledger.records import Family
from perfmodel.planning.published import row_on_file
from perfmodel.prediction.serving import FirstToken
from perfmodel.prediction.uncertainty import joined_intervals, pool_intervals
from perfmodel.scoring.validation import scored
from perfmodel.specs.deployment import LayoutSpec
from tests.builders import deepseek_case

FAMILY = Family(phase="decode", own_shared_ranks=False, overlap="none", exchange="dispatch")
LAYOUT = LayoutSpec(dies=64, batch=32, draft=1)


def ranged(machine: Any, measured_on: str | None = "service") -> Any:
    case = deepseek_case(osl=512, rates=machine.rates())
    return pool_intervals(machine, LAYOUT, FAMILY, case, measured_on=measured_on)


def width(found: Any) -> float:
    return (found.step_time.high90 - found.step_time.low90) / float(np.median(found.steps))


MACHINE, _ = machines.load_machine("cloudmatrix384")


def test_ideal_kernels_leave_nothing_to_doubt() -> None:
    """The speed of light has no interval: nothing is below it."""
    assert width(ranged(machines.ideal(MACHINE))) == pytest.approx(0, abs=1e-12)


def test_intervals_hold_the_prediction_and_each_other() -> None:
    found = ranged(MACHINE)
    for one in (found.step_time, found.tpot, found.tokens_per_s):
        assert one.low90 < one.low50 < one.high50 < one.high90
    assert found.step_time.low50 < float(np.median(found.steps)) < found.step_time.high50


def test_a_wider_range_widens_the_interval() -> None:
    terms = MACHINE.terms
    figure = terms.figures["residual"].model_copy(update={"low": 0.0, "high": 1.0})
    wider = replace(terms, figures={**terms.figures, "residual": figure})
    alone = ranged(MACHINE, None)
    assert width(ranged(replace(MACHINE, terms=wider), None)) > 1.2 * width(alone)


def test_what_the_model_leaves_out_comes_on_top_of_the_ranges() -> None:
    """Nothing is surer in service than in a loop, nor than its ranges; samples are not moved onto the prediction."""
    alone, driver, service = (ranged(MACHINE, on) for on in (None, "driver", "service"))
    assert width(alone) < width(driver) < width(service)
    left_out = MACHINE.terms.spec.left_out.service
    scale = math.hypot(float(left_out.source), float(left_out.row))
    ratio = np.sort(np.log(service.steps / alone.steps))
    # Student's t with six degrees of freedom, from the standard library of statistics: t.ppf(0.95, 6) = 1.9432
    assert float(np.quantile(ratio, 0.95)) == pytest.approx(1.9432 * scale, rel=0.02)
    assert float(np.median(ratio)) == pytest.approx(0, abs=0.01 * scale)
    assert float(np.median(alone.relative)) != pytest.approx(1, abs=1e-6)


def test_students_quantile_is_that_of_a_reference() -> None:
    probabilities = np.array([0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.999])
    expected = stats.t.ppf(probabilities, 6)
    assert student_quantile(probability=probabilities) == pytest.approx(expected, rel=1e-9, abs=1e-7)


def test_a_range_that_takes_no_part_changes_nothing() -> None:
    """The public decode kernel is further down the list: its ranges are not felt."""
    without = replace(MACHINE, kernels=tuple(k for k in MACHINE.kernels if k.spec.name != "hccl-a2"))
    assert width(ranged(without)) == pytest.approx(width(ranged(MACHINE)), rel=0.05)


def test_the_chance_grows_with_the_limit() -> None:
    found = ranged(MACHINE)
    middle = float(np.median(found.steps)) / 1.7  # half of the samples lie below it
    chances = [found.chance(middle * factor, 1.7) for factor in (0.01, 0.9, 1.0, 1.1, 100.0)]
    assert chances == sorted(chances)
    assert (chances[0], chances[-1]) == (0, 1)
    assert chances[2] == pytest.approx(0.5, abs=0.01)


GOLDEN = [name for name in folders.names("evidence") if catalog.load_evidence(name).spec.role == "golden"]


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_rows_lie_in_their_interval(name: str) -> None:
    """All but those listed as missed."""
    assert scored(row_on_file(name)).scores[0].inside90


def test_open_lengths_widen_the_interval_and_shift_it() -> None:
    """A context that may only be longer than the one predicted leaves less room below."""
    case = deepseek_case(osl=512, rates=MACHINE.rates())
    known = pool_intervals(MACHINE, LAYOUT, FAMILY, case)
    opened = pool_intervals(MACHINE, LAYOUT, FAMILY, case, {"isl": (4096, 16384)})
    assert float(np.median(opened.relative)) > 1.1 * float(np.median(known.relative))
    assert opened.step_time.high90 > 1.2 * known.step_time.high90


def test_two_pools_together_are_as_sure_as_the_one_that_decides() -> None:
    case = deepseek_case(osl=512, rates=MACHINE.rates())
    pool = pool_intervals(MACHINE, LAYOUT, FAMILY, case)
    first = FirstToken(batch_formation=1.0, residual=0.5, prefill=2.0, kv_transfer=0.25, first_step=0.0)
    at_once = replace(pool, rates=replace(pool.rates, request_path=0.0))
    joined = joined_intervals(prefill=at_once, decode=pool, first=first, prefill_rate=1e9, decode_rate=10.0, asked=None)
    assert joined.requests_per_s.low90 == pytest.approx(10 / np.quantile(pool.relative, 0.95), rel=1e-2)
    assert joined.ttft.high90 == pytest.approx(0.25 + 3.5 * np.quantile(pool.relative, 0.95), rel=1e-9)
    bounded = joined_intervals(prefill=pool, decode=pool, first=first, prefill_rate=1e9, decode_rate=10.0, asked=9.0)
    assert bounded.requests_per_s.high90 == 9.0
