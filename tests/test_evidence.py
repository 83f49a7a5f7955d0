"""Published results: the ideal is never slower than what was measured, and no condition is chosen by the result."""

import re
from dataclasses import replace

import pytest
from pydantic import ValidationError

from perfmodel.files import catalog, folders, machines
from perfmodel.planning.published import row_on_file
from perfmodel.prediction.quantities import predicted
from perfmodel.specs.base import value_at
from perfmodel.specs.conditions import Conditions
from perfmodel.specs.evidence import DeploymentSpec, EvidenceSpec


@pytest.mark.parametrize("name", folders.names("evidence"))
def test_ideal_time_is_never_above_the_measured_time(name: str) -> None:
    """Of open conditions, in one of the cases."""
    row = row_on_file(name)
    taken, _ = machines.load_machine(row.spec.conditions.system, "ideal")
    quantities = [measured.quantity for measured in row.spec.measured]
    cases = [replace(one, machine=taken).predicted(quantities) for _, _, one in row.each]
    for measured in row.spec.measured:
        values = [case[measured.quantity] for case in cases]
        if measured.quantity == "tokens_per_s_per_card":
            assert max(values) >= measured.value
        else:
            assert min(values) <= measured.value


#: words of a condition that was chosen by the result; a reason is what a source says, or what others of its kind did
CHOSEN_BY_RESULT = re.compile(
    r"\bfits?\b|\bmatch(es)?\b|agrees? with the (measured|result)|the prediction|the measured|the error|"
    r"would be (slower|faster|twice|half)|(slower|faster) than (the )?(measured|published)|cannot do in the|"
    r"even ideal|closes? best|as measured here"
)


def _spec_of(path: str) -> EvidenceSpec | DeploymentSpec:
    if path.startswith("deployments/"):
        return catalog.load_deployment(path.removeprefix("deployments/")).spec
    return catalog.load_evidence(path).spec


ROWS = [*folders.names("evidence"), *(f"deployments/{name}" for name in folders.names("deployments"))]


@pytest.mark.parametrize("path", ROWS)
def test_what_is_assumed_or_open_has_a_reason_that_is_not_the_result(path: str) -> None:
    spec = _spec_of(path)
    reasons = {f"assumed.{key}": why for key, why in spec.assumed.items()}
    for one in spec.open:
        for case in one.cases:
            reasons[f"open.{one.key}.{case.value}"] = case.why
        if one.range is not None:
            assert one.why, f"{path}: open.{one.key}"
            reasons[f"open.{one.key}"] = one.why
    for key, why in reasons.items():
        assert len(why.split()) >= 2, f"{path}: {key}: {why!r} names no reason"
        assert not CHOSEN_BY_RESULT.search(why.lower()), f"{path}: {key}: {why!r} is chosen by the result"


@pytest.mark.parametrize("path", ROWS)
def test_open_conditions_are_told_apart_from_assumed_ones_and_their_weights_add_to_one(path: str) -> None:
    spec = _spec_of(path)
    for one in spec.open:
        assert sum(weight for weight, _ in one.values()) == pytest.approx(1, abs=1e-6), one.key
        named = {one.key, one.key.replace("layout.", "")}
        assert not named & set(spec.assumed) or one.key == "acceptance", f"{path}: {one.key} is open and assumed"
        shown = value_at(spec.conditions, one.key)
        if one.cases:
            assert shown in [case.value for case in one.cases], f"{path}: {one.key} {shown!r} is none of its cases"
        elif one.range is not None:
            assert one.range[0] <= shown <= one.range[1], f"{path}: {one.key} {shown!r} is not in its range"


@pytest.mark.parametrize("path", ROWS)
def test_no_row_takes_the_fastest_overlap(path: str) -> None:
    """A paper that describes its own way of running says which; the fastest is a choice of the model."""
    conditions = _spec_of(path).conditions
    if isinstance(conditions, Conditions):
        layouts = [conditions.layout]
    else:
        layouts = [conditions.prefill.layout, conditions.decode.layout]
    assert all(layout.overlap != "fastest" for layout in layouts)


def test_a_first_token_is_the_path_of_a_request_and_a_step() -> None:
    row = row_on_file("fc2-qwen235-ttft-512")
    path, step = row.machine.rates().request_path, row.resolved.point.step_time
    values = predicted(row.resolved)
    assert values["ttft"] == pytest.approx(path + step, rel=1e-12)
    assert values["latency"] == pytest.approx(step, rel=1e-12)
    driven = row.spec.model_dump() | {"measured_on": "driver"}
    with pytest.raises(ValidationError, match="ttft of prefill, measured on a driver; allowed"):
        EvidenceSpec.model_validate(driven)
    decode = row.spec.model_dump()
    decode["conditions"]["phase"] = "decode"
    with pytest.raises(ValidationError, match="ttft of decode"):
        EvidenceSpec.model_validate(decode)
