"""Plans keep their own limits when each pool is explained alone, and are the same however they are searched."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from perfmodel.prediction.deployment import exact_pool
from perfmodel.prediction.serving import Case
from perfmodel.solver.request import SearchRequest
from perfmodel.solver.solution import Solution
from perfmodel.solver.solve import solve
from perfmodel.solver.space import Choices
from perfmodel.specs.deployment import Targets
from tests.builders import deepseek_case, rates_of

LENGTHS = ("--isl", "2048", "--osl", "512")
#: cards asked, and the other options
REQUESTS: dict[str, tuple[int, tuple[str, ...]]] = {
    "plain": (32, ("--on", "cloudmatrix384", "--tpot", "50ms")),
    "first-token": (48, ("--on", "cloudmatrix384", "--tpot", "50ms", "--ttft", "400ms", "--utilisation", "0.6")),
    "rate": (64, ("--on", "cloudmatrix384", "--tpot", "40ms", "--rate", "20 req/s")),
    "techniques": (
        48,
        ("--on", "cloudmatrix384", "--stack", "cann-2026", "--tpot", "60ms", "--kv", "any", "--acceptance", "0.8,0.5",
         "--with", "mtp=2", "--with", "eplb=static", "--objective", "per-card"),
    ),
    "mesh": (64, ("--on", "atlas-800i-a2-64gb-hccs", "--tpot", "100ms", "--ttft", "3s")),
    "mesh-rate": (
        96,
        ("--on", "atlas-800i-a2-64gb-hccs", "--tpot", "80ms", "--rate", "6 req/s", "--ttft", "2s",
         "--with", "context-parallel-prefill=cp2"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REQUESTS)
def test_a_plan_explained_pool_by_pool_keeps_its_limits(moeplan, tmp_path: Path, name: str) -> None:
    cards, options = REQUESTS[name]
    path = tmp_path / "plan.json"
    words = ("solve", "deepseek-v3", *LENGTHS, "--cards", str(cards), *options, "-o", str(path), "--format", "json")
    done = moeplan(*words)
    assert done.returncode == 0, done.stderr
    plan, terms = json.loads(path.read_text()), json.loads(done.stdout)["facts"]["ttft_terms_s"]
    conditions, wanted, predicted = plan["conditions"], plan["run"], plan["predicted"]
    pools = {}
    for phase in ("prefill", "decode"):
        explained = moeplan("explain", str(path), "--phase", phase, "--format", "json")
        assert explained.returncode == 0, explained.stderr
        pools[phase] = json.loads(explained.stdout)["facts"]
        assert pools[phase]["layout"] == conditions[phase]["layout"]
        assert pools[phase]["memory_planned_B"] <= pools[phase]["memory_usable_B"]
        assert conditions[phase]["instances"] == int(conditions[phase]["instances"]) >= 1
    decode, prefill = pools["decode"], pools["prefill"]
    layouts = {phase: conditions[phase]["layout"] for phase in pools}

    drafts = conditions["acceptance"][: layouts["decode"]["draft"]]
    tpot = decode["step_time_s"] / (1 + sum(drafts))
    assert tpot == pytest.approx(predicted["tpot"], rel=1e-12)
    assert tpot <= conditions["tpot"] * (1 + 1e-12)

    utilisation, isl, osl = wanted["utilisation"], conditions["isl"], conditions["osl"]
    rates = {"prefill": prefill["tokens_per_s"] / isl, "decode": decode["tokens_per_s"] / osl}
    ranks = {phase: shape["dies"] // (shape["tp"] * shape["cp"]) for phase, shape in layouts.items()}
    assert rates["decode"] == pytest.approx(ranks["decode"] * layouts["decode"]["batch"] / tpot / osl)
    prompts = ranks["prefill"] * layouts["prefill"]["batch"]
    step = prefill["step_time_s"]
    assert rates["prefill"] == pytest.approx(prompts / step)
    first = (prompts - 1) / (2 * utilisation * rates["prefill"]) + utilisation * step / 2 + step + decode["step_time_s"]
    path = rates_of(conditions["system"]).request_path
    assert path + first + terms["kv_transfer"] == pytest.approx(predicted["ttft"], rel=1e-12)
    assert 0 < terms["kv_transfer"] < step
    limit = float(wanted["ttft"].removesuffix(" s")) if "ttft" in wanted else None
    assert limit is None or predicted["ttft"] <= limit * (1 + 1e-12)

    served = predicted["requests_per_s"]
    for phase, rate in rates.items():
        assert served <= conditions[phase]["instances"] * rate * utilisation * (1 + 1e-9)
    rate = float(wanted["rate"].removesuffix(" req/s")) if "rate" in wanted else None
    assert rate is None or served == pytest.approx(rate, rel=1e-9)

    rates_of_system = rates_of(conditions["system"])
    servers = sum(
        -(-conditions[phase]["instances"] * layouts[phase]["dies"] // rates_of_system.dies_per_server)
        for phase in pools
    )
    assert servers * rates_of_system.packages_per_server <= cards


def asked(objective: Any, rate: float | None = None, ttft: float | None = 1.0) -> tuple[Case, SearchRequest]:
    """Return a case of even loads and free reads, in which replicas of experts are worth nothing: plans are equal."""
    rates = replace(rates_of(stack="ideal"), hbm_bandwidth=1e30, core_stream=1e30, l2_rate=1e30, l2_write_rate=1e30)
    case = replace(deepseek_case(20_000, 400, rates, acceptance=(0.0,)), even=True)
    choices = Choices(kv_dtypes=("bf16", "int8"))
    return case, SearchRequest(
        servers=4, rate=rate, targets=Targets(tpot=0.05, ttft=ttft), utilisation=0.8, objective=objective,
        choices=choices, top=5,
    )  # fmt: skip


def told(solution: Solution) -> Any:
    """Return what a solution says, to all digits; refusals in words, since not a number equals nothing."""
    best = [one for one in (solution.best, *solution.alternatives) if one is not None]
    plans = [
        (one.prefill.layout, one.decode.layout, one.prefill.family, one.decode.family, one.prefill_instances,
         one.decode_instances, one.requests_per_s, float(one.first_token.ttft))
        for one in best
    ]  # fmt: skip
    return (
        plans,
        solution.evaluated,
        str(solution.rejections),
        solution.shadow_prices,
        [lost.choice for lost in solution.alternative_costs],
    )


@pytest.mark.parametrize(
    ("objective", "rate", "ttft"),
    [("throughput", None, 1.0), ("per-card", None, None), ("cards", 1.0, 2.0), ("throughput", None, 1e-3)],
)
def test_the_answer_is_the_same_again_with_one_thread_and_with_many(
    monkeypatch: pytest.MonkeyPatch, objective: str, rate: float | None, ttft: float | None
) -> None:
    case, request = asked(objective, rate, ttft)
    answers = [told(solve(case, request))]
    answers.append(told(solve(case, request)))
    for cores in (1, 8):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        answers.append(told(solve(case, request)))
    assert all(answer == answers[0] for answer in answers)


def test_there_are_ties_to_fall_one_way_or_another() -> None:
    case, request = asked("throughput")
    best = solve(case, request).best
    assert best is not None
    layout, family = best.decode.layout, best.decode.family
    more = layout.redundant + layout.dies - layout.shared_ranks
    twin = exact_pool(layout.model_copy(update={"redundant": more}), family, case)
    assert twin.point.requests_per_s == best.decode.point.requests_per_s
