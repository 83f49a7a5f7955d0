"""Assumed inputs: what is listed is felt, and by the amount that arithmetic says."""

import pytest

from perfmodel.files import machines
from perfmodel.ledger.records import Family, Layout
from perfmodel.prediction.sensitivity import swings
from perfmodel.prediction.serving import pool_point
from tests.builders import deepseek_case

FAMILY = Family(phase="decode", own_shared_ranks=False, overlap="none", exchange="dispatch")
LAYOUT = Layout(dies=32, tp=1, shared_ranks=0, redundant=0, batch=32, draft=0, attention_cores=0)


def step(rates) -> float:
    return pool_point(LAYOUT, FAMILY, deepseek_case(1024, 512, rates, acceptance=())).step_time


def test_a_time_added_once_moves_the_step_by_itself() -> None:
    taken, _ = machines.load_machine("cloudmatrix384")
    whole = step(taken.rates())
    found = {swing.name: swing for swing in swings(taken, lambda rates: {"step": step(rates)})}
    sampling = found["cann-2025: overhead.sampling"]
    low, high = sampling.changes["step"]
    assert low * whole == pytest.approx(0.2e-3 - 0.5e-3)
    assert high * whole == pytest.approx(1e-3 - 0.5e-3)


def test_inputs_that_take_no_part_are_not_listed() -> None:
    taken, _ = machines.load_machine("cloudmatrix384")
    names = {swing.name for swing in swings(taken, lambda rates: {"step": step(rates)})}
    assert "cann-2025: overhead.prefill_host_gap" not in names
    assert "cann-2025: link_efficiency.pcie" not in names
    kinds = {swing.figure.kind for swing in swings(taken, lambda rates: {"step": step(rates)})}
    assert kinds == {"assumed"}


def test_strongest_first() -> None:
    taken, _ = machines.load_machine("atlas-800i-a2-64gb-hccs")
    largest = [swing.largest for swing in swings(taken, lambda rates: {"step": step(rates)})]
    assert largest == sorted(largest, reverse=True)
