"""Machines on file: each runs DeepSeek-V3, and those of chips that nobody measured say so."""

import json

import pytest

from perfmodel.files import catalog, folders
from perfmodel.files.machines import load_machine

#: dies that hold DeepSeek-V3 in INT8 on every machine on file, within what one instance may span
DIES = {"atlas-350-112g": 16, "atlas-350-84g": 16, "atlas-800i-a2-32gb-hccs": 128, "atlas-800i-a2-32gb-pcie": 128}
ENOUGH = 64
SYSTEMS = folders.names("systems")
CARRIED = [name for name in SYSTEMS if any(known.spec.carried_from for known in load_machine(name)[0].kernels)]


def _explained(moeplan, system: str, *more: str):
    dies = str(DIES.get(system, ENOUGH))
    return moeplan("explain", "deepseek-v3", "--on", system, "--dies", dies, "--isl", "4096", *more, "--format", "json")


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_explains_both_phases(moeplan, system: str) -> None:
    decode = _explained(moeplan, system, "--osl", "1024", "--batch", "4")
    assert decode.returncode == 0, decode.stderr
    prefill = _explained(moeplan, system, "--phase", "prefill", "--batch", "1")
    assert prefill.returncode == 0, prefill.stderr
    for done in (decode, prefill):
        assert 1e-3 < json.loads(done.stdout)["facts"]["step_time_s"] < 10


@pytest.mark.parametrize("system", ["atlas-350-112g", "atlas-950-superpod", "gb200-nvl72"])
def test_new_systems_are_planned(moeplan, system: str) -> None:
    words = "--cards 32 --isl 2048 --osl 512 --tpot 80ms --format json".split()
    done = moeplan("solve", "deepseek-v3", "--on", system, *words)
    assert done.returncode == 0, done.stderr


def test_kernels_are_carried_over_to_chips_without_a_measured_operator_alone() -> None:
    """Whole steps may be published of them: those are what carried kernels are held against."""
    benches = map(catalog.load_microbenchmark, folders.names("microbenchmarks"))
    measured = {catalog.load_system(bench.spec.system).spec.chip for bench in benches}
    assert CARRIED
    assert not measured & {catalog.load_system(name).spec.chip for name in CARRIED}


@pytest.mark.parametrize("system", CARRIED)
def test_what_nobody_measured_is_told_and_less_sure(moeplan, system: str) -> None:
    """Kernels that are carried over are assumed throughout, with terms less sure than those of where they come from."""
    machine, remarks = load_machine(system)
    carried = [known for known in machine.kernels if known.spec.carried_from]
    for known in carried:
        assert any(
            f"kernels {known.spec.name}: carried over from {known.spec.carried_from}" in told for told in remarks
        )
        of_others = [path for path, figure in known.figures.items() if figure.kind == "measured"]
        assert not of_others
    done = _explained(moeplan, system, "--osl", "1024", "--batch", "16")
    assert "on which none is measured" in done.stderr
    document = json.loads(done.stdout)
    (felt,) = (table for table in document["tables"] if table["title"].startswith("Assumed inputs"))
    assert sum(f"{carried[0].spec.name}: " in str(row) for row in felt["rows"]) >= 5
    spread = machine.terms.spec.left_out
    for others in ("ascend", "hopper"):
        known = catalog.load_terms(others).spec.left_out
        for part in ("driver", "service", "first_token"):
            assert getattr(spread, part).source > getattr(known, part).source


@pytest.mark.parametrize("asked", ["910B3", "Ascend910_9392", "Atlas 800I A2", "ascend-910b3"])
def test_every_on_says_which_machine_was_taken(moeplan, asked: str) -> None:
    done = moeplan(*"explain deepseek-v3 --dies 64 --batch 4 --isl 4096 --osl 1024 --on".split(), asked)
    assert f"note: {asked}" in done.stderr
    words = "solve deepseek-v3 --cards 32 --isl 1024 --osl 512 --tpot 100ms --on".split()
    assert f"note: {asked}" in moeplan(*words, asked).stderr
    words = "explain deepseek-v3 --on cm384 --dies 64 --batch 4 --isl 4096 --osl 1024 --compare".split()
    assert f"note: {asked}" in moeplan(*words, f"on={asked}").stderr
