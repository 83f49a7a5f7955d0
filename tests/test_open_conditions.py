"""Conditions that a source leaves open: cases with weights, and predictions that are mixtures of them."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from perfmodel.algebra import as_float
from perfmodel.errors import DataError
from perfmodel.files.results import load_results
from perfmodel.planning.published import published
from perfmodel.prediction.quantities import predicted
from perfmodel.scoring.evidence_fit import fit_terms, fitted_to, priors_of, with_terms
from perfmodel.scoring.favoured import favoured
from perfmodel.scoring.validation import Published, mixture, predictive, scored
from perfmodel.specs.evidence import RATE
from tests.conftest import Run

ROOT = Path(__file__).resolve().parent.parent
#: a row on file without what it leaves open
ROW = re.sub(r"\nopen:\n(?: .*\n)+", "\n", (ROOT / "evidence" / "cm384-decode-4k-b96.yaml").read_text(encoding="utf-8"))
OVERLAP = (
    "- {key: layout.overlap, cases: [{value: cores, weight: 0.75, why: default},"
    " {value: none, weight: 0.25, why: not said}]}"
)
LENGTH = "- {key: isl, range: [2048, 8192], why: printed as a range}"


def text_of(*found: str) -> str:
    text = ROW.replace("name: cm384-decode-4k-b96", "name: mine")
    return text.replace("\nmeasured:", "\nopen:\n" + "".join(f"  {one}\n" for one in found) + "measured:", 1)


def row_of(tmp_path: Path, *found: str) -> Published:
    path = tmp_path / f"mine{len(list(tmp_path.iterdir()))}.yaml"  # a file that was read once is not read again
    path.write_text(text_of(*found), encoding="utf-8")
    return published(load_results([str(path)])[0][0])


def test_a_prediction_is_the_mixture_of_its_cases_by_their_weights(tmp_path: Path) -> None:
    row = row_of(tmp_path, OVERLAP)
    (w1, words, split), (w2, _, serial) = row.each
    assert (w1, w2, words) == (0.75, 0.25, "layout.overlap cores")
    assert split.resolved.plan.layout.attention_cores == 16
    assert serial.resolved.plan.layout.attention_cores == 0
    whole, one, two = (predictive(each) for each in (row, split, serial))
    for quantity in ("step_time", "tpot", RATE):
        mean = 0.75 * math.log(one.values[quantity]) + 0.25 * math.log(two.values[quantity])
        assert whole.values[quantity] == pytest.approx(math.exp(mean))
    times = whole.values["tpot"] * whole.ranges["tpot"]
    rates = whole.values[RATE] / whole.ranges[RATE]
    assert times * rates == pytest.approx(np.median(times * rates), rel=1e-9)  # one case for all quantities of a sample


def test_each_sample_is_of_a_case_as_often_as_its_weight_says() -> None:
    same = {"tpot": np.ones(512), RATE: np.ones(512)}
    found = [({"tpot": 1.0, RATE: 1.0}, same), ({"tpot": 4.0, RATE: 0.25}, same)]
    values, relative = mixture([0.75, 0.25], found, "any")
    times = values["tpot"] * relative["tpot"]
    assert sorted(set(np.round(times, 9))) == [1.0, 4.0]
    assert np.isclose(times, 4).mean() == pytest.approx(0.25, abs=0.01)
    assert values["tpot"] == pytest.approx(4**0.25)


def test_what_is_open_widens(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(ROW.replace("name: cm384-decode-4k-b96", "name: mine"), encoding="utf-8")
    plain = published(load_results([str(path)])[0][0])
    assert plain.cases == ()
    widths = [float(np.std(np.log(predictive(row).ranges["step_time"]))) for row in (plain, row_of(tmp_path, LENGTH))]
    assert 1.5 * widths[0] < widths[1]


def test_a_range_stands_at_five_values_of_equal_weight(tmp_path: Path) -> None:
    row = row_of(tmp_path, LENGTH)
    lengths = [one.spec.conditions.isl for _, _, one in row.each]
    assert lengths == sorted(lengths) and len(lengths) == 5
    assert all(weight == pytest.approx(0.2) for weight, _, _ in row.each)
    assert lengths[2] == 4096


def test_open_conditions_are_independent(tmp_path: Path) -> None:
    row = row_of(tmp_path, OVERLAP, LENGTH)
    assert len(row.each) == 10
    assert sum(weight for weight, _, _ in row.each) == pytest.approx(1)


def test_a_row_is_fitted_to_with_the_error_of_its_mixture(tmp_path: Path) -> None:
    row = row_of(tmp_path, OVERLAP.replace("value: none", "value: link"), LENGTH)
    assert fitted_to(row)
    fit = fit_terms([row])
    measured = row.spec.measured[0].value
    middle = [weight * math.log(predicted(one.resolved)["tpot"] / measured) for weight, _, one in row.each]
    priors = {name: figure.value for name, figure in priors_of(row.machine).items()}
    own = row.machine.terms.spec
    steps = [
        as_float(replace(row, machine=with_terms(row.machine, terms), cases=()).resolved.point.step_time)
        for terms in (priors, {name: getattr(own, name) for name in priors})
    ]
    assert math.log1p(fit.before[0]) == pytest.approx(sum(middle) + math.log(steps[0] / steps[1]), abs=1e-9)


def test_the_measurement_says_which_case_it_favours_and_the_score_does_not_follow_it(tmp_path: Path) -> None:
    row = row_of(tmp_path, OVERLAP.replace("cores, weight: 0.75", "cores, weight: 0.5").replace("0.25", "0.5"))
    split = predictive(row.each[0][2]).values  # what is measured is what one of the cases is predicted to be
    found = tuple(one.model_copy(update={"value": split[one.quantity]}) for one in row.spec.measured)
    row = replace(row, spec=row.spec.model_copy(update={"measured": found}))
    cases = list(favoured(row, predictive(row)))
    assert sum(one.given for one in cases) == pytest.approx(1)
    nearest = min(cases, key=lambda one: abs(math.log1p(one.error)))
    assert nearest.given > nearest.stated
    errors = [abs(math.log1p(scored(row).scores[1].error)), *(abs(math.log1p(one.error)) for one in cases)]
    assert errors[0] <= max(errors[1:])


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ("- {key: layout.overlap, cases: [{value: cores, weight: 1, why: a}]}", "one case"),
        (OVERLAP.replace("0.25", "0.2"), "add up to 0.95"),
        (OVERLAP.replace("layout.overlap", "layout.overlaps"), "is no key of the conditions"),
        (OVERLAP.replace("value: none", "value: nothing"), "nothing"),
        ("- {key: isl, range: [8192, 2048], why: a}", "the lower end first"),
        ("- {key: isl, range: [1024, 2048]}", "why is missing"),
        ("- {key: phase, cases: [{value: decode, weight: .5, why: a}, {value: prefill, weight: .5, why: b}]}", "phase"),
        (OVERLAP + "\n  " + OVERLAP, "twice"),
        (
            "- {key: isl, range: [1024, 2048], why: a, cases: [{value: 1, weight: 1, why: a}]}",
            "either cases or a range",
        ),
        ("\n  ".join(LENGTH.replace("isl", key) for key in ("isl", "osl", "layout.batch")), "125 cases"),
    ],
)
def test_open_conditions_that_cannot_be_are_refused(found: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=told):
        row_of(tmp_path, found)


def test_explain_says_what_is_open_and_what_it_shows(moeplan: Run, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text_of(OVERLAP), encoding="utf-8")
    done = moeplan("explain", "--evidence", str(path))
    assert "layout.overlap is open: cores (75%), none (25%); shown: cores" in done.stderr
    found = moeplan("validate", str(path), "--show", "open")
    assert "Conditions that sources leave open" in found.stdout
