"""What clients of mixed serving measure: by hand, by its limits, and as a user asks for it."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from perfmodel.planning.published import row_on_file
from perfmodel.service.arrivals import ClosedLoop
from perfmodel.service.clients import PARTS, clients_view, with_responses
from perfmodel.service.records import FrontEnd, MixedPool, Requests, Service
from perfmodel.service.replay import replay
from perfmodel.service.setup import engine_of, requests_of
from perfmodel.service.steps import DecodeStep, PrefillStep
from perfmodel.specs.conditions import Conditions
from perfmodel.specs.evidence import EvidenceSpec

POOL = MixedPool(
    prefill=PrefillStep(fixed=0.05, per_token=1e-4),
    decode=DecodeStep.linear(fixed=0.02, per_request=0.001),
    mode="prefill_first",
)
MIXED = "explain deepseek-v3 --on h200 --cards 8 --tp 8 --serving mixed --isl 1024 --osl 256"


def test_one_client_waits_for_its_own_steps_alone() -> None:
    """Path 0.1 s, prompt 0.05 s and 1000 tokens of 0.1 ms, then 99 steps of 21 ms."""
    service = Service(mixed=POOL, front_end=FrontEnd(delay=0.1))
    view = clients_view(service, Requests.of(np.full(5, 1000), np.full(5, 100), ClosedLoop(clients=1)))
    assert view.values["ttft"] == pytest.approx(0.1 + 0.05 + 0.1, rel=1e-9)
    assert (view.values["tpot"], view.values["tpot_p99"]) == pytest.approx((0.021, 0.021), rel=1e-9)
    assert view.values["itl_max"] == pytest.approx(0.021, rel=1e-9)
    assert view.values["requests_per_s"] == pytest.approx(1 / (0.25 + 99 * 0.021), rel=1e-9)
    assert view.running == pytest.approx((0.15 + 99 * 0.021) / (0.25 + 99 * 0.021), rel=1e-3)


@pytest.mark.parametrize("mode", ["chunked", "prefill_first"])
def test_all_parts_longer_make_all_waits_longer_alike(mode: Any) -> None:
    """Times are homogeneous of degree one in all steps and the path of a closed loop: elasticities add up to 1."""
    service = Service(mixed=replace(POOL, mode=mode), front_end=FrontEnd(delay=0.1))
    requests = Requests.of(np.full(200, 900), np.full(200, 90), ClosedLoop(clients=1))
    view = with_responses(clients_view(service, requests), service, requests)
    for name in ("ttft", "tpot", "e2e"):
        assert sum(view.elasticities[name].values()) == pytest.approx(1, abs=0.02), name
    assert sum(view.elasticities["requests_per_s"].values()) == pytest.approx(-1, abs=0.02)
    twice = view.moved("e2e", {part: np.array([1.0, 2.0]) for part in PARTS})
    assert twice == pytest.approx([1, 2], rel=0.02)


def test_prompts_wait_for_ranks_that_have_none() -> None:
    """Two ranks in step; the second prompt comes alone while the first decodes: three steps of 21 ms later at most."""
    pool = replace(POOL, ranks=2, placing="in_turn")
    requests = Requests.of([100, 100], [100, 10], [0.0, 0.5])
    alone, together = (replay(requests, Service(mixed=replace(pool, align_steps=steps))).ttft[1] for steps in (0, 3))
    assert together - alone == pytest.approx(3 * 0.021, abs=1e-9)


def test_a_request_is_let_in_by_a_part_of_its_output() -> None:
    """A cache of 1,500 tokens: two of 500 and 500 wait for each other whole, and not with half of their outputs."""
    requests = Requests.of([500, 500], [500, 500], [0.0, 0.0])
    whole, half = (
        replay(requests, Service(mixed=replace(POOL, cache_tokens=1500, reserved=part))).ttft[1] for part in (1.0, 0.5)
    )
    assert half < 0.3 < 10 < whole


def test_it_is_explained_as_clients_see_it(moeplan: Any) -> None:
    facts = json.loads(moeplan(*MIXED.split(), "--concurrency", "8", "--format", "json").stdout)["facts"]
    assert facts["serving"] == "mixed" and facts["engine"] == "sglang" and facts["requests"] == 80
    assert facts["ttft_p50_s"] <= facts["ttft_p90_s"] <= facts["ttft_p99_s"]
    assert facts["tpot_p50_s"] <= facts["tpot_p90_s"] <= facts["tpot_p99_s"]
    ends = facts["tpot_interval_s"]
    assert ends["low90"] < facts["tpot_s"] < ends["high90"]
    assert 0 < facts["running"] <= 8
    cards = facts["layout"]["dies"]
    assert facts["tokens_per_s_per_card"] == pytest.approx(facts["requests_per_s"] * 256 / cards, rel=1e-9)
    table = moeplan(*MIXED.split(), "--concurrency", "8").stdout
    assert "What clients measure" in table and "8 clients in a closed loop" in table


def test_more_clients_wait_longer_and_are_served_faster(moeplan: Any) -> None:
    found = [
        json.loads(moeplan(*MIXED.split(), "--concurrency", str(clients), "--format", "json").stdout)["facts"]
        for clients in (1, 8, 64)
    ]
    for name in ("tpot_s", "requests_per_s"):
        values = [facts[name] for facts in found]
        assert values == sorted(values), name


def test_more_than_it_serves_is_said(moeplan: Any) -> None:
    done = moeplan(*MIXED.split(), "--rate", "1000", "--requests", "200", "--show", "notes")
    assert "1000 requests/s are more than it serves" in done.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "--serving mixed needs a load: --concurrency N"),
        ("--concurrency 0", "--concurrency: 0; allowed: 1 or more"),
        ("--concurrency 4 --engine sglnag", "engine 'sglnag'"),
        ("--rate -1", "--rate"),
        ("--concurrency 4 --isl-cv -1", "isl_cv"),
    ],
)
def test_loads_that_cannot_be_are_refused(words: str, says: str, moeplan: Any) -> None:
    done = moeplan(*MIXED.split(), *words.split())
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_rate_of_pools_apart_is_for_solve(moeplan: Any) -> None:
    words = "explain deepseek-v3 --on h200 --cards 8 --tp 8 --isl 1024 --osl 256 --rate 2"
    done = moeplan(*words.split())
    assert done.returncode == 2 and "--serving mixed" in done.stderr


def test_clients_of_a_pool_set_its_batch(moeplan: Any) -> None:
    words = "explain deepseek-v3 --on cloudmatrix384 --cards 64 --isl 4096 --osl 1024 --concurrency 1000 --format json"
    facts = json.loads(moeplan(*words.split()).stdout)["facts"]
    assert facts["layout"]["batch"] == 8  # 1000 over 128 ranks, rounded up


def spec_with(**values: Any) -> dict[str, Any]:
    spec = row_on_file("h200-sglang-1k-1k-c8").spec.model_dump()
    conditions = {**spec["conditions"], **values.pop("conditions", {})}
    return {**spec, **values, "conditions": conditions}


def test_a_row_of_clients_states_what_clients_measure() -> None:
    with pytest.raises(ValidationError, match="serving: mixed with step_time"):
        measured = [{"quantity": "step_time", "value": 0.01, "unit": "s", "printed": "10 ms"}]
        EvidenceSpec.model_validate(spec_with(measured=measured))
    with pytest.raises(ValidationError, match="measured_on: driver"):
        EvidenceSpec.model_validate(spec_with(measured_on="driver"))
    with pytest.raises(ValidationError, match="itl_max of one pool"):
        measured = [{"quantity": "itl_max", "value": 0.01, "unit": "s", "printed": "10 ms"}]
        apart = {"serving": "disaggregated"}
        EvidenceSpec.model_validate(spec_with(measured=measured, conditions=apart))
    with pytest.raises(ValidationError, match="without a load"):
        EvidenceSpec.model_validate(spec_with(conditions={"concurrency": None}))
    with pytest.raises(ValidationError, match="phase prefill"):
        EvidenceSpec.model_validate(spec_with(conditions={"phase": "prefill"}))


def test_lengths_come_with_their_spread() -> None:
    conditions = row_on_file("h200-sglang-1k-1k-c64").spec.conditions
    values = {**conditions.model_dump(), "isl": {"mean": 4000, "cv": 1.5}}
    spread = Conditions.model_validate(values)
    assert (spread.isl, spread.isl_cv) == (4000, 1.5)
    lengths = requests_of(spread).isl
    assert len(lengths) == spread.requests
    assert lengths.mean() == pytest.approx(4000, rel=0.02)
    assert lengths.std() / lengths.mean() == pytest.approx(1.5, rel=0.05)


def test_an_engine_of_the_stack_schedules() -> None:
    stack = row_on_file("h200-sglang-1k-1k-c8").machine.stack.spec
    assert engine_of(stack, None).name == stack.engines[0].name
    assert engine_of(stack, "vllm").mixed == "chunked"
