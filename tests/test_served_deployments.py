"""Deployments replayed as their clients measured them, against what can be worked out by hand."""

import pytest
from pydantic import ValidationError

from perfmodel.algebra import as_float
from perfmodel.files import catalog
from perfmodel.files.machines import load_conditions
from perfmodel.ledger.records import Layout
from perfmodel.prediction.joined_pools import JoinedPools
from perfmodel.prediction.serving import first_token
from perfmodel.scoring.deployments import clients_of, deployed, joined_of, service_of, values_of
from perfmodel.service.arrivals import ClosedLoop
from perfmodel.service.records import Requests, Service
from perfmodel.service.replay import replay
from perfmodel.specs.conditions import DeploymentConditions
from perfmodel.specs.evidence import DeploymentSpec

ROW = "va-qwen235-1p2d"


def row(**changes) -> DeploymentConditions:
    stated = catalog.load_deployment(ROW).spec.conditions
    return DeploymentConditions.model_validate({**stated.model_dump(), "rate": None, **changes})


def run(conditions: DeploymentConditions) -> tuple[JoinedPools, Service, dict[str, float]]:
    machine, model = load_conditions(conditions), catalog.load_model(conditions.model).spec
    joined = joined_of(conditions, ROW, model, machine)
    service = service_of(conditions, joined, machine)
    return joined, service, values_of(clients_of(service, conditions), joined)


def test_one_request_alone_waits_for_its_own_steps() -> None:
    """Path, its prompt, its cache, the first step of decode; then a step a token."""
    conditions = row(concurrency=1, requests=1)
    joined, service, values = run(conditions)
    step = service.prefill.step
    prompt = step.fixed + step.work(0, 3584)
    transfer = service.transfer.latency + service.transfer.per_token * 3584
    first = service.decode.step.time(1, 3584)
    assert values["ttft"] == pytest.approx(service.front_end.delay + prompt + transfer + first, rel=1e-9)
    assert values["tpot"] == pytest.approx(service.decode.step.time(1, 3584 + 1536 / 2), rel=1e-3)
    span = values["ttft"] + 1535 * values["tpot"]
    assert values["tokens_per_s_per_card"] == pytest.approx(1536 / span / 24)
    pool = joined.prefill
    terms = first_token(
        prefill=pool.point,
        layout=Layout.of(pool.plan.layout),
        case=pool.scenario.case,
        utilisation=0.5,
        decode_step=first,
    )
    assert transfer == pytest.approx(as_float(terms.kv_transfer))


def test_a_saturated_deployment_serves_at_the_rate_of_its_slower_pool() -> None:
    """Prefill in full steps of two prompts a rank where it is the slower; else decode of all clients' requests."""
    conditions = row(concurrency=2000, requests=12000, osl=64, isl_cv=0, osl_cv=0)
    _, service, values = run(conditions)
    pool = service.prefill
    full = pool.step.fixed + 2 * pool.step.work(0, 3584)
    assert values["requests_per_s"] == pytest.approx(2 * pool.ranks / full, rel=0.02)
    more = row(concurrency=64, requests=1024, isl=128, isl_cv=0, osl_cv=0.3)
    _, service, values = run(more)
    step = service.decode.step.time(8, 8 * (128 + 1536 / 2))
    assert values["requests_per_s"] == pytest.approx(64 / (1536 * step), rel=0.1)


def test_one_wave_has_the_last_prompt_wait_for_all_before() -> None:
    """N equal prompts at once: steps of two a rank, one after another; the span holds ramp and drain."""
    count = 64
    _, service, values = run(row(concurrency=count, requests=count))
    pool = service.prefill
    full = pool.step.fixed + 2 * pool.step.work(0, 3584)
    steps = count / 2 / pool.ranks
    assert values["ttft_p99"] == pytest.approx(steps * full, rel=0.1)
    assert values["ttft"] == pytest.approx((steps + 1) / 2 * full, rel=0.15)
    assert values["requests_per_s"] == pytest.approx(count / (values["ttft_p99"] + 1535 * values["tpot"]), rel=0.05)


def test_more_clients_are_served_faster_together_and_slower_each() -> None:
    found = [run(row(concurrency=n, requests=4 * n, osl_cv=0.06))[2] for n in (16, 64, 256)]
    for name in ("tpot", "tokens_per_s_per_card"):
        values = [one[name] for one in found]
        assert values == sorted(values)


def test_offered_requests_come_no_sooner_than_their_turn() -> None:
    service = run(row(concurrency=8, requests=8))[1]
    loop = ClosedLoop(clients=4, offered=0.1, seed=3)
    served = replay(Requests.of([512] * 12, 32, loop), service)
    assert (served.arrival >= loop.turns(12) - 1e-9).all()
    late = loop.turns(12)
    assert served.arrival[:4] == pytest.approx(late[:4])
    fast = ClosedLoop(clients=4, offered=1e9)
    at_once = replay(Requests.of([512] * 12, 32, fast), service)
    assert at_once.arrival[:4] == pytest.approx(0, abs=1e-6)
    assert (at_once.arrival[4:] == sorted(at_once.finish)[:8]).all()


def test_a_slower_prefill_alone_moves_the_first_token() -> None:
    conditions = row(concurrency=1, requests=1)
    service = run(conditions)[1]
    view = clients_of(service, conditions, responses=True)
    assert view.elasticities["tpot"]["prefill"] == pytest.approx(0, abs=1e-9)
    parts = view.elasticities["ttft"]
    assert sum(parts.values()) == pytest.approx(1, abs=0.1)  # over a finite step each
    assert parts["prefill"] > parts["decode"] > 0


def test_serving_says_mixed_too() -> None:
    stated = catalog.load_deployment(ROW).spec.conditions.model_dump(exclude={"mixed"})
    assert DeploymentConditions.model_validate({**stated, "serving": "mixed"}).mixed
    assert not DeploymentConditions.model_validate({**stated, "serving": "disaggregated"}).mixed
    with pytest.raises(ValidationError, match="one of both"):
        DeploymentConditions.model_validate({**stated, "serving": "mixed", "mixed": False})


def test_waits_without_a_load_are_refused() -> None:
    values = catalog.load_deployment(ROW).spec.model_dump(by_alias=True)
    values["conditions"] |= {"concurrency": None, "rate": None, "tpot": 0.05}
    values["open"] = ()
    with pytest.raises(ValidationError, match="without a load"):
        DeploymentSpec.model_validate(values)


def test_a_mixed_deployment_is_replayed() -> None:
    spec = catalog.load_deployment(ROW).spec
    pool = spec.conditions.decode.model_copy(update={"instances": 2})
    first = pool.model_copy(update={"layout": pool.layout.model_copy(update={"batch": 1})})
    load = {"concurrency": 32, "requests": 64}
    conditions = spec.conditions.model_copy(update={"mixed": True, "prefill": first, "decode": pool, **load})
    mixed = spec.model_copy(update={"conditions": conditions, "open": ()})
    found = deployed(mixed, catalog.load_model(spec.conditions.model).spec, load_conditions(conditions))
    assert found.joined.cards == 32
    assert all(one.interval.contains(one.predicted) for one in found.scores)
