"""The place of every die: nothing is lost, nothing is drawn twice."""

from collections import Counter
from typing import Any

import pytest

from perfmodel.prediction.placement import placement
from perfmodel.prediction.scenario import Scenario, ledger_of, resolve
from tests.builders import deepseek_case

LAYOUTS: dict[str, tuple[str, dict[str, Any]]] = {
    "serial": ("decode", {"dies": 128, "batch": 45}),
    "own shared ranks": ("decode", {"dies": 144, "batch": 40, "shared_ranks": 16, "redundant": 32}),
    "cores": ("decode", {"dies": 288, "batch": 96, "shared_ranks": 32, "overlap": "cores", "attention_cores": 16}),
    "beside": ("decode", {"dies": 64, "batch": 32, "shared_stream": True}),
    "fused": ("decode", {"dies": 64, "batch": 32, "fused_experts": True}),
    "link": ("prefill", {"dies": 16, "tp": 2, "batch": 1, "overlap": "link", "exchange": "gather"}),
    "stages": ("decode", {"dies": 192, "batch": 64, "expert_dies": 64, "overlap": "stages", "domains": 2}),
}


def _resolved(name: str) -> Any:
    phase, layout = LAYOUTS[name]
    return resolve(Scenario(case=deepseek_case(), phase=phase, layout=layout, tpot=None))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("instances", [1, 2])
def test_every_slot_and_rank_has_its_dies(name: str, instances: int) -> None:
    resolved = _resolved(name)
    plan, case = resolved.plan, resolved.scenario.case
    layout = plan.layout
    dies = placement({plan.family.phase: layout}, [{plan.family.phase: instances}], case.model, case.rates)
    assert len(dies) == len({(die.server, die.card, die.die) for die in dies}) == instances * layout.dies
    assert len({die.server for die in dies}) == -(-instances * layout.dies // 16)
    for number in range(1, instances + 1):
        own = [die for die in dies if die.instance == number]
        slots = [slot for die in own if die.slots for slot in range(die.slots[0], die.slots[1] + 1)]
        assert slots == list(range(1, 256 + layout.redundant + 1))
        ranks = Counter(die.rank for die in own if die.rank)
        assert set(ranks.values()) == {layout.tp * layout.cp}
        shared = sum(die.shared for die in own)
        assert shared == (layout.shared_ranks or layout.expert_dies or layout.dies)
    most = max(die.slots[1] - die.slots[0] + 1 for die in dies if die.slots)
    assert most == ledger_of(plan, case, case.traffic).quantities.slots_per_rank


def test_small_instances_share_a_server_and_pools_do_not() -> None:
    resolved = _resolved("link")
    layout, case = resolved.plan.layout.model_copy(update={"dies": 4, "tp": 1}), resolved.scenario.case
    pools: Any = {"prefill": layout, "decode": layout}
    dies = placement(pools, [{"prefill": 3, "decode": 2}], case.model, case.rates)
    assert {die.server for die in dies} == {1, 2}
    assert {die.server for die in dies if die.phase == "prefill"} == {1}
    assert {die.server for die in dies if die.phase == "decode"} == {2}


def test_instances_stay_within_their_domain_and_keep_their_numbers() -> None:
    resolved = _resolved("serial")
    layout, case = resolved.plan.layout, resolved.scenario.case
    pools: Any = {"prefill": layout, "decode": layout}  # 8 servers each, in domains of 20
    domains: Any = [{"prefill": 1, "decode": 1}, {"decode": 2}]
    dies = placement(pools, domains, case.model, case.rates, size=20, first=5)
    spans: dict[Any, set[int]] = {}
    for die in dies:
        spans.setdefault((die.phase, die.instance), set()).add((die.server - 6) // 20)
    assert spans == {("prefill", 1): {0}, ("decode", 1): {0}, ("decode", 2): {1}, ("decode", 3): {1}}
    assert min(die.server for die in dies) == 6
    assert len({(die.server, die.card, die.die) for die in dies}) == len(dies) == 4 * layout.dies
