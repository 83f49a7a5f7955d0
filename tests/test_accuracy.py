"""Operators and links alone against what others measured, printed here or in public tables."""

import os
import re
from pathlib import Path

import pytest

from perfmodel.files import catalog, folders, machines, measurements
from perfmodel.report.accuracy import met
from perfmodel.scoring.operator_scores import die_scores, scores

FOLDER = os.environ.get("MOEPLAN_MEASUREMENTS")
NAMES = folders.names("microbenchmarks")
SPECS = {name: catalog.load_microbenchmark(name).spec for name in NAMES}
#: beyond their targets, and why; a row that comes within its target must leave this list
BEYOND = {
    "grouped-matmul-all-rows": "below 16 tokens the experts that tokens draw decide the time",
}


@pytest.mark.parametrize("name", [name for name in NAMES if SPECS[name].rows])
def test_printed_figures(name: str) -> None:
    machine, rows, _ = measurements.load_measurements(SPECS[name], None)
    for score in scores(rows, machine.rates(), machines.ideal(machine).rates(), held_out=False):
        assert met(SPECS[name].target, score), f"{score.operator}: {score.shipped}"


@pytest.mark.skipif(not FOLDER, reason="MOEPLAN_MEASUREMENTS names no folder with the public tables")
@pytest.mark.parametrize("name", [name for name in NAMES if SPECS[name].files])
def test_public_tables_on_shapes_held_out(name: str) -> None:
    """Cross-validated over whole shapes; of several operators, all together."""
    machine, rows, _ = measurements.load_measurements(SPECS[name], Path(str(FOLDER)))
    found = scores(rows, machine.rates(), machines.ideal(machine).rates(), held_out=True)
    judged = [found[-1]] if name.startswith("grouped") else found
    verdict = all(met(SPECS[name].target, score) for score in judged)
    assert verdict == (name not in BEYOND), [(s.operator, s.shipped, s.across) for s in judged]


@pytest.mark.skipif(not FOLDER, reason="MOEPLAN_MEASUREMENTS names no folder with the public tables")
def test_collectives_carry_to_numbers_of_dies_never_seen() -> None:
    """All rows of 2, 4, 8, 16 or 32 dies left out of the fit: half of them within 15 %, nine in ten within 45 %."""
    machine, rows, _ = measurements.load_measurements(SPECS["a3-collectives"], Path(str(FOLDER)))
    found = {score.dies: score for score in die_scores(rows, machine.rates())}
    assert {dies: score.rows for dies, score in found.items()} == {2: 14, 4: 42, 8: 42, 16: 42, 32: 56}
    for dies, score in found.items():
        assert score.out.median <= 0.15, dies
        assert score.out.p90 <= 0.45, dies


@pytest.mark.skipif(not FOLDER, reason="MOEPLAN_MEASUREMENTS names no folder with the public tables")
def test_simple_fits_are_beaten() -> None:
    """The tables' notes name a fit of 9 to 12 % mean error for latent decode."""
    machine, rows, _ = measurements.load_measurements(SPECS["mla-decode"], Path(str(FOLDER)))
    (score,) = scores(rows, machine.rates(), machines.ideal(machine).rates(), held_out=True)
    assert score.across is not None
    assert score.across.mean < 0.09


PAGE = Path(__file__).resolve().parent.parent / "docs" / "accuracy.md"
STEPS = "\n# Predicted against published\n"


def same_but_for_last_digits(page: str, printed: str) -> None:
    number = re.compile(r"-?\d+\.\d+")
    assert number.sub("#", page) == number.sub("#", printed)
    for kept, fresh in zip(number.findall(page), number.findall(printed), strict=True):
        assert float(kept) == pytest.approx(float(fresh), abs=0.3)  # per cent; solvers differ in the last digit


@pytest.mark.skipif(not FOLDER, reason="MOEPLAN_MEASUREMENTS names no folder with the public tables")
def test_accuracy_page_is_todays(moeplan) -> None:
    """The first part of docs/accuracy.md is what its command prints."""
    done = moeplan("accuracy", "--measurements", str(FOLDER), "--format", "markdown")
    assert done.returncode == 0, done.stderr
    same_but_for_last_digits(PAGE.read_text(encoding="utf-8").partition(STEPS)[0], done.stdout)


def test_accuracy_page_has_todays_steps(moeplan, validated) -> None:
    """The rest is what `moeplan validate` and `moeplan calibrate --evidence` print; a solver takes part in both."""
    _, head, steps = PAGE.read_text(encoding="utf-8").partition(STEPS)
    done = moeplan("calibrate", "--evidence", "--format", "markdown")
    assert done.returncode == 0, done.stderr
    same_but_for_last_digits(head.lstrip("\n") + steps, "\n".join([validated.printed["markdown"], done.stdout]))


def test_without_the_folder_it_says_what_it_left_out(moeplan) -> None:
    done = moeplan("accuracy", MOEPLAN_MEASUREMENTS="")
    assert done.returncode == 0
    assert "dense-matmul-bf16: left out" in done.stderr
    assert "cm384-table7" in done.stdout
