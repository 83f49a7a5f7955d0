"""Attention of a layer as tables have it whole: its rows added up, and sparse kernels alone as they are published."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from perfmodel.files import catalog
from perfmodel.ledger.latent_attention import latent_decode_core
from perfmodel.ledger.records import Family, Layout, Traffic
from perfmodel.ledger.step import build_ledger, dims_of
from perfmodel.timing.operators import time_op
from tests.builders import rates_of

MODULES: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parent / "golden" / "attention_modules.yaml").read_text(encoding="utf-8")
)["modules"]
LATENT: Any = catalog.load_model("deepseek-v3").spec.attention
RATES = rates_of("h200")
BEFORE = "attention.norm_quant"  # the norm that the tables have not


def points(name: str) -> dict[tuple[int, int], float]:
    """Return the measured seconds by batch and context."""
    given = MODULES[name]
    return {
        (batch, context): time * 1e-3
        for batch, times in given["ms"].items()
        for context, time in zip(given["contexts"], times, strict=True)
        if time is not None
    }


def predicted(name: str, batch: int, context: int) -> float:
    """Return the rows of one layer's attention added up."""
    given = MODULES[name]
    model = catalog.load_model(given["model"]).spec
    family = Family(
        phase="decode", own_shared_ranks=False, overlap="none", exchange="dispatch", precision="fp8",
        kv_dtype=given["kv_dtype"],
    )  # fmt: skip
    layout = Layout(dies=8, tp=1, shared_ranks=0, redundant=0, batch=batch, draft=0, attention_cores=0)
    traffic = Traffic(isl=context, osl=0, skew=0.0, residual=0.0, chance=0.0, context_spread=0.0)
    ledger = build_ledger(layout, family, traffic, model, dims_of(model))
    rows = [op for op in ledger.parts["attention"] if op.name != BEFORE and op.exchange is None]
    return sum(float(time_op(op, RATES).time) for op in rows)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", MODULES)
def test_rows_add_up_to_a_module(name: str) -> None:
    errors = {at: predicted(name, *at) / time - 1 for at, time in points(name).items()}
    worst = max(errors, key=lambda at: abs(errors[at]))
    assert len(errors) == sum(time is not None for times in MODULES[name]["ms"].values() for time in times)
    assert abs(errors[worst]) <= MODULES[name]["worst"], (worst, errors[worst])


@pytest.mark.parametrize(
    ("system", "tflops"), [("h800", 410), ("h200", 410), ("b200", 350)], ids=["h800", "h200", "b200"]
)
def test_sparse_kernels_reach_what_is_published(system: str, tflops: float) -> None:
    """FlashMLA's README: TFLOP/s of sparse decode where arithmetic binds, 128 heads and 2048 tokens of 656 bytes."""
    sequences, heads, chosen, tokens = 4096, 128, 2048, 4096
    op = latent_decode_core(
        LATENT, operator="sparse_attention_decode", pairs=tokens * chosen, tokens=tokens,
        cached_tokens=sequences * chosen, sequences=sequences, queries=1, heads=heads, cache=656,
    )  # fmt: skip
    rates = rates_of(system)
    timed = time_op(op, rates)
    assert timed.roof == "compute"
    assert 2 * tokens * chosen * heads * (576 + 512) / float(timed.whole_compute) == pytest.approx(
        tflops * 1e12, rel=0.01
    )
    assert timed.time > time_op(replace(op, operator="attention_decode"), rates).time


def test_a_sparse_kernel_that_is_not_measured_is_the_dense_one() -> None:
    rates = rates_of("cloudmatrix384")
    op = latent_decode_core(
        LATENT, pairs=32 * 2048, tokens=32, cached_tokens=32 * 2048, sequences=32, queries=1, heads=128, cache=1152
    )
    sparse = replace(op, operator="sparse_attention_decode")
    assert rates.class_of(sparse.kernel) == "attention_decode"
    assert time_op(sparse, rates).time == time_op(op, rates).time


def test_choosing_is_what_grows_with_a_long_context() -> None:
    """One sequence reads 2048 tokens from 8K on: from there to 128K its module grows by 54 us.

    The scan of 256 bytes a key is 7 of them at the pins.
    """
    measured = points("sparse")
    assert measured[1, 131072] - measured[1, 8192] == pytest.approx(53.6e-6, abs=1e-7)
    assert (131072 - 8192) * 256 / 4.8e12 == pytest.approx(6.6e-6, rel=0.01)
    assert predicted("sparse", 1, 131072) - predicted("sparse", 1, 8192) == pytest.approx(53.6e-6, rel=0.06)
