"""Numbers printed by others, to their last printed digit."""

import pytest

from perfmodel.files import catalog
from perfmodel.formulas.attention import gqa_cache_bytes, mla_cache_bytes
from perfmodel.formulas.collectives import expert_exchange_limit
from perfmodel.formulas.experts import tokens_per_routed_rank, tokens_per_shared_rank
from perfmodel.formulas.roofline import peak_rate
from tests.builders import deepseek_case, rates_of


@pytest.mark.parametrize(
    ("printed_kb", "value"),
    [
        (70.272, 61 * mla_cache_bytes(kv_lora_rank=512, qk_rope_head_dim=64, latent_bytes=2, rope_bytes=2)),
        (327.680, 80 * gqa_cache_bytes(num_key_value_heads=8, head_dim=128, v_head_dim=128, element_bytes=2)),
        (516.096, 126 * gqa_cache_bytes(num_key_value_heads=8, head_dim=128, v_head_dim=128, element_bytes=2)),
    ],
)
def test_kv_bytes_per_token(printed_kb: float, value: float) -> None:
    """arXiv:2505.09343 table 1: DeepSeek-V3, Qwen-2.5 72B, LLaMA-3.1 405B."""
    assert round(value / 1e3, 3) == printed_kb


@pytest.mark.parametrize(("bandwidth", "exchange_us", "tpot_ms"), [(50e9, "120.96", "14.76"), (900e9, "6.72", "0.82")])
def test_expert_parallel_speed_limit(bandwidth: float, exchange_us: str, tpot_ms: str) -> None:
    """arXiv:2505.09343 section 2.3.2, with the paper's own width of 7000 and nine targets.

    The paper counts 2 x 61 exchanges a token: two micro-batches over 61 layers.
    """
    time = expert_exchange_limit(
        tokens=32, copies=9, hidden_size=7000, dispatch_bytes=1, combine_bytes=2, bandwidth=bandwidth
    )
    assert f"{time * 1e6:.2f}" == exchange_us
    assert f"{2 * 61 * time * 1e3:.2f}" == tpot_ms


def test_gemm_ceiling_of_the_910c_package() -> None:
    """arXiv:2509.25224 abstract: 614 TFLOPS is 86.8 % of the package's peak, both as far as printed."""
    die = catalog.load_chip("ascend-910c-752").spec.die
    peak = 2 * peak_rate(cores=die.cube_cores, flop_per_cycle=die.cube_flop_per_cycle.bf16, clock=die.clock)
    assert 613.5e12 / 0.8685 <= peak <= 614.5e12 / 0.8675


@pytest.mark.parametrize("tokens", [32, 4096, 12345])
def test_shared_and_routed_ranks_get_the_same_tokens(tokens: int) -> None:
    """128 to 16 packages and top-8 to 1: the seed's layout, exactly balanced by design."""
    routed = tokens_per_routed_rank(group_tokens=tokens, num_experts_per_tok=8, routed_ranks=256)
    shared = tokens_per_shared_rank(group_tokens=tokens, shared_ranks=32)
    assert routed == shared


def test_memory_of_a_2_card() -> None:
    """Weights of a card holding 8 routed and 1 shared expert each layer, summed by hand from config.json."""
    from perfmodel.prediction.scenario import Scenario, resolve

    case = deepseek_case(1024, 2048, rates_of("atlas-800i-a2-64gb-hccs", "cann-2025"))
    layout = {"dies": 32, "batch": 80, "draft": 1, "exchange": "gather"}
    held = resolve(Scenario(case=case, phase="decode", layout=layout, tpot=None)).point.footprint
    expert, latent = 3 * 7168 * 2048, 7168 * 1536 + 1536 * 24576 + 7168 * 576 + 16384 * 7168
    up, embedding, router = 2 * 128 * 128 * 512 * 2, 129280 * 7168 * 2, 7168 * 256 * 2
    layer = 8 * expert + expert + router
    by_hand = 58 * layer + 61 * (latent + up) + 3 * 3 * 7168 * 18432 + 2 * embedding
    by_hand += layer + latent + up + 2 * 7168 * 7168 * 2
    assert held.weights == pytest.approx(by_hand, rel=1e-12)
    assert round(held.weights / 1e9, 1) == 41.3


def held_at_dp4_tp4(reduction: str) -> float:
    """Weights of DeepSeek-V3 W8A8 on a die at dp 4, tp 4, ep 16."""
    from perfmodel.prediction.scenario import Scenario, resolve

    case = deepseek_case(1024, 1024, rates_of("atlas-800i-a2-64gb-hccs"))
    layout = {"dies": 16, "tp": 4, "batch": 4, "reduction": reduction}
    return float(resolve(Scenario(case=case, phase="decode", layout=layout, tpot=None)).point.footprint.weights)


def test_weights_of_a_rank_at_dp4_tp4() -> None:
    """An engine's log, DeepSeek-V3 W8A8 at dp 4, tp 4, ep 16: 44.16 GiB of weights on every rank.

    Summed by hand from config.json: experts by ep, all but the low-rank down projections and the router by tp.
    With split sums (FlashComm1) embedding, dense layers and shared expert are whole instead.
    """
    expert, dense, table = 3 * 7168 * 2048, 3 * 7168 * 18432, 129280 * 7168 * 2
    latent = 7168 * (1536 + 576) + (1536 * 24576 + 16384 * 7168 + 2 * 128 * 128 * 512 * 2) / 4
    common = 58 * (16 * expert + 7168 * 256 * 2) + 61 * latent + table / 4  # a quarter of the head in either form
    layers = 58 * expert + 3 * dense + table
    assert held_at_dp4_tp4("all_reduce") == pytest.approx(common + layers / 4, rel=1e-12)
    assert held_at_dp4_tp4("scatter_gather") == pytest.approx(common + layers, rel=1e-12)
    assert held_at_dp4_tp4("all_reduce") / 2**30 == pytest.approx(44.16, rel=0.02)


def test_memory_of_an_engine() -> None:
    """An engine's log in full, DeepSeek-V3 W8A8 on 64 GB A2 dies at share 0.9, all in GiB.

    60.96 seen, 54.86 of it taken, weights of that rank 47.4, activations 0.21, other 0.22, left for cache 7.03; its
    layout is not stated.  Seen, activations and other were read off this log, so what is held is that they add up.
    """
    from perfmodel.prediction.scenario import Scenario, resolve

    gib, rates = 2**30, rates_of("atlas-800i-a2-64gb-hccs")
    assert rates.capacity * rates.reported / gib == pytest.approx(60.96, abs=0.005)
    assert rates.capacity * rates.reported * rates.utilization / gib == pytest.approx(54.86, abs=0.01)
    layout = {"dies": 16, "tp": 4, "batch": 4}
    point = resolve(Scenario(case=deepseek_case(1024, 1024, rates), phase="decode", layout=layout, tpot=None)).point
    held = point.footprint
    left = point.usable - 47.4 * gib - held.workspace - held.buffers
    assert left / gib == pytest.approx(7.03, rel=0.05)
    # with split sums at dp 4, tp 4 the weights are those of the log too
    assert held.weights / gib == pytest.approx(47.4, rel=0.01)


@pytest.mark.parametrize(("system", "seen"), [("atlas-800i-a2-64gb-hccs", 60.96), ("atlas-800i-a3", 61.27)])
def test_memory_that_frameworks_see(system: str, seen: float) -> None:
    """Engines' logs, in GiB of a die."""
    rates = rates_of(system)
    assert rates.capacity * rates.reported / 2**30 == pytest.approx(seen, abs=0.005)


def test_an_engine_leaves_room_for_graphs() -> None:
    """Graphs are on top of the share: near 1 they bound it."""
    from perfmodel.formulas.memory import engine_bytes

    given = {"capacity": 64.0, "reported": 0.95, "runtime": 0.2, "graphs": 0.8}
    assert engine_bytes(share=0.9, **given) == pytest.approx(0.9 * 0.95 * 64 - 0.2)
    assert engine_bytes(share=1.0, **given) == pytest.approx(0.95 * 64 - 0.8 - 0.2)
    assert engine_bytes(capacity=64.0, reported=1.0, share=1.0) == 64.0
