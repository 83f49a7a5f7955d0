"""Precisions: bytes and rates of each by hand, what each die refuses, and one truth whatever names it.

Bytes of a form are counted from its definition: FP8 in blocks of 128 x 128 with 4 bytes of scale, MXFP8 and MXFP4 a
byte for 32, NVFP4 a byte for 16, INT4 in groups of 32 with two bytes where it is widened to BF16.
"""

import json
from math import isclose
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from pydantic import ValidationError
from typer.testing import CliRunner

from perfmodel.cli.app import app
from perfmodel.cli.options import CachePrecision, KvDtype
from perfmodel.errors import DataError, UsageError
from perfmodel.files import catalog, machines
from perfmodel.files.folders import names
from perfmodel.ledger.caches import entry_bytes, index_key_bytes
from perfmodel.ledger.footprint import cache_of_model, weight_bytes
from perfmodel.ledger.records import Family, Layout, Ledger, Op, Traffic
from perfmodel.ledger.rows import quantised
from perfmodel.ledger.step import build_ledger, dims_of
from perfmodel.planning.pool_run import checked_conditions
from perfmodel.prediction.precisions import (
    allowed_caches,
    allowed_precisions,
    precision_faults,
    stand_ins,
    stored_otherwise,
)
from perfmodel.prediction.scenario import of_conditions, resolve
from perfmodel.specs.attention import CompressedSpec, MlaSpec
from perfmodel.specs.conditions import Service
from perfmodel.specs.model import ModelSpec
from perfmodel.specs.precision import CACHES, PRECISIONS, form_of, keys_of
from perfmodel.specs.shipped import ShippedSpec
from perfmodel.timing.operators import time_op
from tests.builders import rates_of

HIDDEN, EXPERT, EXPERTS, MOE_LAYERS = 7168, 2048, 256, 58  # DeepSeek-V3
#: bytes of a weight of a linear layer, of an expert, of a number that goes in; the engine; bytes beside a message
BY_HAND = {
    "w8a8": (1, 1, 1, "cube_int8", 512),
    "bf16": (2, 2, 2, "cube_bf16", 0),
    "w4a8": (1, 0.5, 1, "cube_int8", 512),
    "w4a16": (0.5 + 2 / 32, 0.5 + 2 / 32, 2, "cube_bf16", 0),
    "fp8": (1 + 4 / (128 * 128), 1 + 4 / (128 * 128), 1, "cube_fp8", 512),
    "mxfp8": (33 / 32, 33 / 32, 33 / 32, "cube_fp8", 0),
    "mxfp4": (17 / 32, 17 / 32, 17 / 32, "cube_fp4", 0),
    "nvfp4": (9 / 16, 9 / 16, 9 / 16, "cube_fp4", 0),
    "w4a16-experts": (2, 0.5 + 2 / 32, 2, "cube_bf16", 0),
    "mxfp4-experts": (2, 17 / 32, 2, "cube_bf16", 0),
}
#: FLOP/s of one die as published: BF16, 8 bits, FP8, FP4; none where it has no such unit
PUBLISHED = {
    "cloudmatrix384": (353.9e12, 707.8e12, None, None),  # 910C die
    "atlas-800t-a2": (294.9e12, 589.8e12, None, None),  # 910B3
    "atlas-850-128g": (432e12, 865e12, 865e12, 1730e12),  # 950PR, white paper table 3-1
    "atlas-950-superpod": (486e12, 973e12, 973e12, 1946e12),  # 950DT
    "h20": (148e12, 296e12, 296e12, None),
    "h800": (989e12, 1979e12, 1979e12, None),
    "h200": (989e12, 1979e12, 1979e12, None),
    "b200": (2250e12, 4500e12, 4500e12, 9000e12),
    "gb200-nvl72": (2500e12, 5000e12, 5000e12, 10000e12),
    "gb300-nvl72": (2500e12, 5000e12, 5000e12, 15000e12),
}


def moeplan(*words: str) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "200", "NO_COLOR": "1"})


def refused(*words: str) -> str:
    """Return why a command is refused."""
    error = moeplan(*words).exception
    assert isinstance(error, (UsageError, DataError))
    return str(error)


def family_of(precision: str, kv_dtype: str = "bf16", phase: Any = "decode") -> Family:
    keys: Any = keys_of(precision)
    return Family(phase=phase, own_shared_ranks=False, overlap="none", exchange="dispatch", kv_dtype=kv_dtype, **keys)


def ledger_of(family: Family, model: ModelSpec) -> Ledger:
    layout = Layout(dies=1, tp=1, shared_ranks=0, redundant=0, batch=4, draft=0, attention_cores=0)
    traffic = Traffic(isl=64, osl=64, skew=0.0, residual=0.0, chance=0.0, context_spread=0.0)
    return build_ledger(layout, family, traffic, model, dims_of(model))


def weights_of(precision: str, name: str) -> float:
    """Bytes of all weights of a model on one die that has them all."""
    family, model = family_of(precision), catalog.load_model(name).spec
    return float(weight_bytes(ledger_of(family, model), family)[0])


def op_of(ledger: Ledger, name: str) -> Op:
    return next(op for ops in ledger.parts.values() for op in ops if op.name == name)


def test_the_table_is_what_is_checked_here() -> None:
    assert list(PRECISIONS) == list(BY_HAND)
    assert [one.value for one in KvDtype] == list(CACHES)
    assert [one.value for one in CachePrecision] == [*CACHES, "any"]
    assert all(name in moeplan("explain", "--help").stdout for name in PRECISIONS)


@pytest.mark.parametrize("name", BY_HAND)
def test_bytes_and_work_of_one_linear_layer(name: str) -> None:
    weight, _, taken, engine, _ = BY_HAND[name]
    op = quantised("any", family_of(name), rows=11, inner=640, columns=96)
    assert op.weight_bytes == op.resident_bytes == 640 * 96 * weight
    assert op.activation_bytes == 11 * (640 * taken + 96 * 2)
    assert (op.flop, op.engine) == (2 * 11 * 640 * 96, engine)
    assert op.unpacked == (640 * 96 if name == "w4a16" else None)
    assert op.kernel == ("matmul_bf16" if engine == "cube_bf16" else "matmul_int8")


@pytest.mark.parametrize("name", BY_HAND)
def test_bytes_of_experts_and_messages_of_one_layer(name: str) -> None:
    _, expert, taken, engine, slot = BY_HAND[name]
    ledger = ledger_of(family_of(name), catalog.load_model("deepseek-v3").spec)
    gate_up, down = op_of(ledger, "experts.gate_up"), op_of(ledger, "experts.down")
    assert isclose(gate_up.resident_bytes, EXPERTS * 2 * HIDDEN * EXPERT * expert, rel_tol=1e-12)
    assert isclose(down.resident_bytes, EXPERTS * HIDDEN * EXPERT * expert, rel_tol=1e-12)
    assert gate_up.engine == engine
    assert (down.unpacked is not None) == (name in ("w4a8", "w4a16", "w4a16-experts", "mxfp4-experts"))
    assert down.unpacked is None or isclose(down.unpacked, down.matrices * HIDDEN * EXPERT, rel_tol=1e-12)
    sent = op_of(ledger, "exchange.dispatch").exchange
    assert sent is not None
    assert sent.payload == HIDDEN * taken + slot
    assert any(op.name == "attention.output_quant" for ops in ledger.parts.values() for op in ops) == (taken < 2)


@pytest.mark.parametrize("system", PUBLISHED)
def test_rates_are_those_published(system: str) -> None:
    rates, published = rates_of(system), dict(zip(("bf16", "int8", "fp8", "fp4"), PUBLISHED[system], strict=True))
    assert set(rates.cubes) == {f"cube_{unit}" for unit, rate in published.items() if rate is not None}
    for unit, rate in published.items():
        if rate is not None:
            assert isclose(float(rates.peak(f"cube_{unit}")), rate, rel_tol=2e-3)


@pytest.mark.parametrize("system", names("systems"))
def test_every_system_allows_what_its_chip_has_keys_for(system: str) -> None:
    machine, _ = machines.load_machine(system)
    raw = yaml.safe_load((Path("hardware/chips") / f"{machine.chip.spec.name}.yaml").read_text(encoding="utf-8"))["die"]
    units, forms, rates = raw["cube_flop_per_cycle"], raw.get("block_forms", []), machine.rates()
    for name, (*_, engine, _) in BY_HAND.items():
        fits = engine.removeprefix("cube_") in units and (name not in ("mxfp8", "mxfp4", "nvfp4") or name in forms)
        keys = keys_of(name)
        faults = precision_faults(keys["precision"], "bf16", keys["expert_weights"], rates)
        assert (name in allowed_precisions(rates)) == fits == (not faults)
    assert (allowed_caches(rates) == list(CACHES)) == ("fp8" in units)


def test_the_910_has_no_fp8_and_no_fp4() -> None:
    assert allowed_precisions(rates_of()) == ["w8a8", "bf16", "w4a8", "w4a16", "w4a16-experts", "mxfp4-experts"]
    assert allowed_caches(rates_of()) == ["bf16", "int8"]


LAYOUT = ("--dies", "32", "--batch", "32", "--isl", "4096", "--osl", "1024")
REFUSED = {
    ("cloudmatrix384", "--precision", "fp8"): "precision: fp8, but die ascend-910c-752 has no FP8 unit; allowed: w8a8, "
    "bf16, w4a8, w4a16, w4a16-experts, mxfp4-experts; write --precision w8a8",
    ("cloudmatrix384", "--precision", "mxfp4"): "precision: mxfp4, but die ascend-910c-752 has no FP4 unit; allowed: "
    "w8a8, bf16, w4a8, w4a16, w4a16-experts, mxfp4-experts (w4a8, w4a16, w4a16-experts and mxfp4-experts hold weights "
    "in 4 bits and widen them); write --precision w8a8",
    ("cloudmatrix384", "--kv", "fp8"): "kv_dtype: fp8, but die ascend-910c-752 has no FP8 unit; allowed: bf16, int8; "
    "write --kv int8",
    (
        "h200",
        "--precision",
        "mxfp8",
    ): "die nvidia-h200 has no unit that takes the scales of MXFP8; allowed: w8a8, bf16, w4a8, w4a16, fp8",
    ("atlas-850-128g", "--precision", "nvfp4"): "has no unit that takes the scales of NVFP4",
    ("cloudmatrix384", "--precision", "int9"): "--precision: 'int9' is unknown",
    ("cloudmatrix384", "--precision", "w4a8"): "technique w4a8=on: stack cann-2025 lacks it",
}


@pytest.mark.parametrize(("system", "option", "word"), REFUSED)
@pytest.mark.parametrize("command", ["explain", "solve"])
def test_what_a_die_lacks_is_refused_with_the_reason(command: str, system: str, option: str, word: str) -> None:
    size = LAYOUT if command == "explain" else ("--cards", "64", *LAYOUT[4:], "--tpot", "50ms")
    assert REFUSED[system, option, word] in refused(command, "deepseek-v3", "--on", system, *size, option, word)


def test_what_if_and_files_are_refused_alike(tmp_path: Path) -> None:
    assert "has no FP8 unit" in refused("what-if", "seed-cm384-decode", "--precision", "fp8", "--only", "mtp")
    run = tmp_path / "run.yaml"
    text = "model: deepseek-v3\non: cloudmatrix384\ncards: 64\nisl: 4096\nosl: 1024\ntpot: 50ms\n"
    run.write_text(text + "precision: fp8\n", encoding="utf-8")
    assert "has no FP8 unit" in refused("solve", str(run))
    run.write_text(text + "precision: fp9\n", encoding="utf-8")
    assert "precision: found 'fp9'; allowed: 'w8a8', 'bf16'" in refused("solve", str(run))


def step(system: str, name: str, kv: str = "bf16", **more: Any) -> float:
    """Seconds of a step of a layout on a system."""
    machine, _ = machines.load_machine(system)
    conditions = checked_conditions(
        system=system,
        model="deepseek-v3",
        stack=machine.stack.word,
        phase="decode",
        isl=4096,
        osl=1024,
        kv_dtype=kv,
        layout={"dies": 32, "batch": 32},
        **{"precision": name, **more},
    )
    model = catalog.load_model("deepseek-v3").spec
    return float(resolve(of_conditions(conditions, model, machine.rates())).point.step_time)


@pytest.mark.parametrize("system", ["h200", "h20", "b200", "atlas-850-128g"])
def test_eight_bits_cost_the_same_where_rates_are_equal(system: str) -> None:
    """Scales of blocks apart: 4 bytes for 16,384 weights."""
    int8, fp8 = step(system, "w8a8"), step(system, "fp8")
    assert int8 <= fp8 <= int8 * (1 + 4 / (128 * 128))


def test_four_bits_multiply_twice_as_fast_and_read_half() -> None:
    rates = rates_of("atlas-950-superpod")
    many = {name: quantised("any", family_of(name), rows=8192, inner=7168, columns=4096) for name in ("w8a8", "mxfp4")}
    times = {name: time_op(op, rates) for name, op in many.items()}
    assert isclose(float(times["w8a8"].whole_compute), 2 * float(times["mxfp4"].whole_compute), rel_tol=1e-12)
    few = {name: quantised("any", family_of(name), rows=1, inner=7168, columns=4096) for name in ("w8a8", "mxfp4")}
    times = {name: time_op(op, rates) for name, op in few.items()}
    assert isclose(float(times["w8a8"].stream_time) * 17 / 32, float(times["mxfp4"].stream_time), rel_tol=1e-2)


def test_widening_costs_what_it_does_in_eight_bits() -> None:
    """No kernel of BF16 says what widening costs: that of the product in INT8 stands in, writing twice the bytes."""
    rates = rates_of("cloudmatrix384", "cann-2026")
    op = quantised("any", family_of("w4a16"), rows=4, inner=7168, columns=4096)
    timed = time_op(op, rates)
    elements, vector = 7168 * 4096, rates.kernels["vector"]
    work = elements * 2 / (float(rates.vector_half) * float(vector.compute))  # type: ignore[union-attr]
    assert timed.whole_unpack is not None
    assert isclose(float(timed.whole_unpack), max(work, 2 * elements / float(rates.l2_write_rate)), rel_tol=1e-12)


@pytest.mark.parametrize("rows", [1, 64, 4096])
def test_ideal_widening_runs_beside_the_stream(rows: int) -> None:
    """The speed of light is the slowest of its roofs, never their sum: 4-bit weights in, BF16 out, the products."""
    ideal = rates_of("cloudmatrix384", "ideal")
    op = quantised("any", family_of("w4a16"), rows=rows, inner=7168, columns=4096)
    stream = 7168 * 4096 * (0.5 + 2 / 32) / 1.6e12
    widening = 7168 * 4096 * 2 / (24 * 86 * 1.8e9)
    timed = time_op(op, ideal)
    assert timed.whole_unpack is not None
    work = max(float(timed.stream_time), float(timed.whole_unpack), float(timed.whole_compute))
    assert isclose(float(timed.stream_time), stream, rel_tol=1e-6)
    assert isclose(float(timed.whole_unpack), widening, rel_tol=0.03)  # clock of the bin
    # its overlap ends at a million million rows, so that some parts in that of the shorter are still exposed
    assert isclose(float(timed.time), work, rel_tol=1e-8)
    for name in ("cann-2025", "cann-2026", "vllm-ascend-2025"):
        assert timed.time <= time_op(op, rates_of("cloudmatrix384", name)).time


def test_what_stands_in_is_told() -> None:
    assert stand_ins(form_of("w8a8"), rates_of()) == []
    assert "no kernel of FP4 products is on file" in stand_ins(form_of("mxfp4"), rates_of("b200"))[0]
    assert "say nothing of widening" in stand_ins(form_of("w4a16"), rates_of("h200"))[0]


def test_a_name_of_two_keys_is_the_technique() -> None:
    """Whether it is named as a precision, set as a technique or said by keys: one run."""
    named = Service(system="s", model="m", stack="k", isl=1, osl=1, precision="w4a8")
    said = Service(system="s", model="m", stack="k", isl=1, osl=1, expert_weights="int4")
    technique = catalog.load_technique("w4a8").spec.settings["on"].service
    assert named == said
    assert {**keys_of("w8a8"), **technique} == keys_of("w4a8")
    assert form_of("w8a8", "int4") is PRECISIONS["w4a8"]
    with pytest.raises(ValidationError, match="allowed: int4, or leave it out"):
        Service(system="s", model="m", stack="k", isl=1, osl=1, precision="w4a8", expert_weights="int8")
    with pytest.raises(UsageError, match="expert_weights: int4 with precision bf16; allowed: with w8a8"):
        step("cloudmatrix384", "bf16", expert_weights="int4")
    options = ("explain", "deepseek-v3", "--on", "cloudmatrix384", "--stack", "cann-2026", *LAYOUT, "--format", "json")
    one, two = moeplan(*options, "--precision", "w4a8"), moeplan(*options, "--with", "w4a8=on")
    assert one.exit_code in (0, 3)
    assert one.stdout == two.stdout


def test_a_precision_beside_techniques_that_set_another_is_refused() -> None:
    options = ("explain", "deepseek-v3", "--on", "cloudmatrix384", "--stack", "cann-2026", *LAYOUT)
    why = refused(*options, "--precision", "w4a8", "--with", "w4a8=off")
    assert "--precision w4a8 beside techniques that set w8a8" in why
    why = refused(*options, "--precision", "w8a8", "--with", "w8a8=off")
    assert "--precision w8a8 beside techniques that set bf16" in why
    assert moeplan(*options, "--precision", "w8a8", "--with", "w4a8=on").exit_code in (0, 3)


def test_compare_takes_a_precision() -> None:
    why = refused("explain", "--evidence", "seed-cm384-decode", "--compare", "precision=fp8")
    assert "has no FP8 unit" in why
    assert moeplan("explain", "--evidence", "seed-cm384-decode", "--compare", "precision=bf16").exit_code in (0, 3)


@pytest.mark.parametrize(("precision", "kv"), [("fp8", "fp8"), ("mxfp4", "bf16"), ("w4a8", "int8")])
def test_a_plan_keeps_its_precision(tmp_path: Path, precision: str, kv: str) -> None:
    plan = tmp_path / "plan.json"
    question = ("--on", "atlas-850-128g", "--cards", "32", "--isl", "4096", "--osl", "1024", "--tpot", "100ms")
    found = moeplan(
        "solve", "deepseek-v3", *question, "--precision", precision, "--kv", kv, "-o", str(plan), "--show", "notes"
    )
    assert found.exit_code == 0
    assert f"--kv {kv} --precision {precision}" in found.stdout
    held = json.loads(plan.read_text(encoding="utf-8"))
    assert {key: held["conditions"][key] for key in keys_of(precision)} == keys_of(precision)
    assert held["run"]["precision"] == precision
    again = moeplan("explain", str(plan))
    assert again.exit_code == 0
    assert "when the plan was written" not in again.stderr
    twice = tmp_path / "again.json"
    assert moeplan("solve", str(plan), "-o", str(twice)).exit_code == 0
    assert twice.read_bytes() == plan.read_bytes()


def test_packed_caches_are_as_engines_lay_them_out() -> None:
    """FlashMLA: 512 FP8, four FP32 scales, 64 BF16; DeepSeek-V4: 448 FP8, 64 BF16, 8 of scales; index keys 132."""
    family = family_of("fp8", "fp8")
    v3, v4 = catalog.load_model("deepseek-v3.2").spec.attention, catalog.load_model("deepseek-v4-flash").spec
    assert isinstance(v3, MlaSpec)
    assert v3.indexer is not None
    assert entry_bytes(v3, family) == 512 + 16 + 128 == 656
    assert index_key_bytes(v3.indexer, family) == 132
    assert entry_bytes(v3, family_of("w8a8", "int8")) == 512 + 128
    packed = {entry_bytes(one, family) for one in v4.kinds_of_attention if isinstance(one, CompressedSpec)}
    assert packed == {584}
    grouped = catalog.load_model("gpt-oss-120b").spec
    eight, sixteen = (cache_of_model(grouped, family_of("fp8", kv), tp=1, draft=0) for kv in ("fp8", "bf16"))
    assert 2 * float(eight.per_token) == float(sixteen.per_token)


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("deepseek-v3.2", 48068),
        ("deepseek-v4-flash", 3850.25),
        ("deepseek-v4-pro", 5511.44),
        ("glm-5", 61464),
        ("glm-5.2", 53940),
        ("glm-5.3-flash", 6171),
    ],
)
def test_packed_caches_of_models(name: str, printed: float) -> None:
    """Bytes a token over all layers in the packed FP8 layout, counted apart from configs and public layouts."""
    model = catalog.load_model(name).spec
    kept = cache_of_model(model, family_of("fp8", "fp8"), tp=1, draft=0).per_token
    assert float(kept) == pytest.approx(printed, abs=0.01)


def test_four_bit_experts_of_a_trillion_weights_are_half() -> None:
    """Kimi-K2: 60 layers of 384 experts of 3 x 7168 x 2048 weights."""
    experts = 60 * 384 * 3 * 7168 * 2048
    saved = weights_of("w8a8", "kimi-k2") - weights_of("w4a8", "kimi-k2")
    assert saved == pytest.approx(experts / 2, rel=1e-9)


def test_the_memory_bill_of_gpt_oss_120b() -> None:
    """By hand: 36 layers of 128 experts of 3 x 2880 x 2880, of 26.54 M attention weights; a table in and one out.

    In MXFP4 some 63.8 GB, in BF16 some 233.7.
    """
    experts = 36 * 128 * 3 * 2880 * 2880
    attention = 36 * (2880 * 64 * (64 + 8 + 8) + 64 * 64 * 2880)
    others = 2 * (2 * 201088 * 2880 + 36 * 2880 * 128)
    assert weights_of("mxfp4", "gpt-oss-120b") == pytest.approx((experts + attention) * 17 / 32 + others, rel=1e-3)
    assert 60e9 < weights_of("mxfp4", "gpt-oss-120b") < 65e9
    assert weights_of("bf16", "gpt-oss-120b") == pytest.approx((experts + attention) * 2 + others, rel=1e-3)


def as_stored(precision: str, name: str) -> float:
    """Bytes of all weights of a model on one die, in the precision that its checkpoint has."""
    model = catalog.load_model(name).spec
    assert stored_otherwise(model, form_of(precision), rates_of("b200")) is None
    assert stored_otherwise(model, form_of("w8a8"), rates_of("b200")) is not None
    return weights_of(precision, name)


@pytest.mark.parametrize(("name", "layers", "experts"), [("gpt-oss-120b", 36, 128), ("gpt-oss-20b", 24, 32)])
def test_weights_of_gpt_oss_as_it_is_stored(name: str, layers: int, experts: int) -> None:
    """By hand from the config: experts of 3 x 2880 x 2880 at 4.25 bits; attention, router and tables in BF16."""
    routed = layers * experts * 3 * 2880 * 2880
    attention = layers * 2880 * (64 * (64 + 8 + 8) + 64 * 64)
    others = attention + 2 * 201088 * 2880 + layers * 2880 * experts
    assert as_stored("mxfp4-experts", name) == pytest.approx(routed * 17 / 32 + others * 2, rel=1e-9)


def test_weights_of_kimi_k2_5_as_it_is_stored() -> None:
    """By hand from the config: 60 x 384 experts in INT4 by groups of 32, 4.5 bits; all else in BF16."""
    routed = 60 * 384 * 3 * 7168 * 2048
    attention = 61 * (7168 * 1536 + 1536 * 64 * 192 + 7168 * 576 + 512 * 64 * 256 + 64 * 128 * 7168)
    others = attention + 60 * (3 * 7168 * 2048 + 7168 * 384) + 3 * 7168 * 18432 + 2 * 163840 * 7168
    assert as_stored("w4a16-experts", "kimi-k2.5") == pytest.approx(routed * 9 / 16 + others * 2, rel=1e-9)


def test_weights_of_kimi_k3_are_the_bytes_of_its_checkpoint() -> None:
    """The index of its weights says 1,560,860,324,864 bytes, those of a vision encoder among them."""
    assert as_stored("mxfp4-experts", "kimi-k3") == pytest.approx(1_560_860_324_864, rel=1e-3)


def test_experts_stored_narrower_are_widened_once_where_they_are_read() -> None:
    """The product is the one of BF16; what differs are bytes that are read and weights that are widened."""
    ledger = ledger_of(family_of("mxfp4-experts"), catalog.load_model("gpt-oss-120b").spec)
    plain = ledger_of(family_of("bf16"), catalog.load_model("gpt-oss-120b").spec)
    for name in ("experts.gate_up", "experts.down"):
        narrow, wide = op_of(ledger, name), op_of(plain, name)
        assert (narrow.flop, narrow.engine, narrow.activation_bytes) == (wide.flop, wide.engine, wide.activation_bytes)
        assert isclose(float(wide.weight_bytes) * 17 / 64, float(narrow.weight_bytes), rel_tol=1e-12)
        assert isclose(float(narrow.unpacked or 0) * 2, float(wide.weight_bytes), rel_tol=1e-12)


def shipped(experts: Any, others: Any, activations: Any) -> ModelSpec:
    spec = ShippedSpec(experts=experts, others=others, activations=activations, read_from="quantization_config")
    return catalog.load_model("deepseek-v3").spec.model_copy(update={"shipped": spec})


def test_a_checkpoint_stored_otherwise_is_told_where_the_die_has_its_precision() -> None:
    fp8, w8a8 = shipped("fp8", "fp8", "fp8"), form_of("w8a8")
    told = "stored in fp8; this run computes w8a8; --precision fp8 computes what is stored"
    assert stored_otherwise(fp8, w8a8, rates_of("h200")) == told
    assert stored_otherwise(fp8, form_of("fp8"), rates_of("h200")) is None
    assert stored_otherwise(fp8, w8a8, rates_of()) is None  # a 910C cannot
    assert stored_otherwise(catalog.load_model("deepseek-v3").spec, w8a8, rates_of("h200")) is None
    told = "stored in int4 (other weights bf16); this run computes w8a8; --precision w4a16-experts computes what is "
    told += "stored"
    assert stored_otherwise(shipped("int4", "bf16", "bf16"), w8a8, rates_of()) == told
    told = "stored in int4; this run computes w8a8; --precision w4a16 computes what is stored"
    assert stored_otherwise(shipped("int4", "int4", "bf16"), w8a8, rates_of()) == told
    assert stored_otherwise(shipped("mxfp4", "bf16", "bf16"), form_of("mxfp4-experts"), rates_of()) is None
    assert stored_otherwise(shipped("int4", "int8", "int8"), form_of("w8a8", "int4"), rates_of()) is None


def test_a_config_file_says_what_it_is_stored_in() -> None:
    config = "tests/data/model_configs/glm-5.3-flash.json"
    found = moeplan("explain", config, "--on", "h200", *LAYOUT)
    assert "stored in fp8; this run computes w8a8; --precision fp8 computes what is stored" in found.stderr
    found = moeplan("explain", config, "--on", "h200", *LAYOUT, "--precision", "fp8")
    assert "this run computes" not in found.stderr
