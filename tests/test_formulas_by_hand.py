"""Every closed form against a second derivation: counted, simulated, enumerated, or written from its equation."""

import math
from itertools import combinations, product
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from perfmodel.formulas import attention, collectives, experts, kernels, linear, memory, roofline, serving, statistics

NORMAL = NormalDist()


def near(value: float, rel: float = 1e-9) -> Any:
    return pytest.approx(value, rel=rel, abs=0.0 if value else 1e-30)


def blom(count: float) -> float:
    """Blom 1958: the quantile at (n - 3/8) / (n + 1/4)."""
    return NORMAL.inv_cdf((8 * count - 3) / (8 * count + 2))


# ---------------------------------------------------------------------------------------------- linear and memory


def test_product_of_matrices_counted() -> None:
    """A multiply and an add for each row, column and inner index; a byte width for each element."""
    rows, inner, columns = 3, 5, 7
    flop = sum(2 for _ in product(range(rows), range(inner), range(columns)))
    assert linear.matmul_flop(rows=rows, inner=inner, columns=columns) == flop
    assert linear.matrix_bytes(rows=rows, columns=columns, element_bytes=11) == sum([11] * rows * columns)


def test_exchange_buffers_hold_a_slot_for_each_rank_and_token() -> None:
    """CloudMatrix384 section 4.2.1: ranks x tokens slots of a dispatch and a combine message."""
    slots = sum(13 + 17 for _ in range(5) for _ in range(7))
    assert memory.exchange_buffer_bytes(ranks=5, tokens=7, dispatch_bytes=13, combine_bytes=17) == slots


def test_working_space_is_four_hidden_buffers_heads_and_what_is_unfolded() -> None:
    """Residual, normed, gathered and returned tokens; queries and outputs of heads; keys and values of the context."""
    tokens, hidden, heads, context, unfolded = 3, 7, 11, 13, 5
    elements = sum(hidden + hidden + hidden + hidden + heads for _ in range(tokens))
    plain: dict[str, Any] = {"tokens": tokens, "hidden_size": hidden, "head_width": heads, "element_bytes": 2}
    assert memory.workspace_bytes(**plain) == 2 * elements
    assert memory.workspace_bytes(**plain, unfolded_width=unfolded) == 2 * elements
    assert memory.workspace_bytes(**plain, context=context) == 2 * elements
    elements += sum(unfolded for _ in range(context))
    assert memory.workspace_bytes(**plain, context=context, unfolded_width=unfolded) == 2 * elements


# ------------------------------------------------------------------------------------------------------- attention


def test_latent_attention_counted() -> None:
    """DeepSeek-V2 2.1.2: a dot product over latent and rope parts, then a weighted sum of latents, for each head."""
    pairs, heads, rank, rope = 3, 5, 7, 2
    flop = 0
    for _ in range(pairs * heads):
        flop += sum(2 for _ in range(rank + rope))  # score
        flop += sum(2 for _ in range(rank))  # output
    found = attention.absorbed_attention_flop(
        query_context_pairs=pairs, heads=heads, kv_lora_rank=rank, qk_rope_head_dim=rope
    )
    assert found == flop


def test_attention_counted() -> None:
    """Vaswani 3.2.1: a dot product over the key and a weighted sum of values, for each pair and head."""
    pairs, heads, key, value = 3, 5, 7, 11
    flop = sum(2 * key + 2 * value for _ in range(pairs * heads))
    assert attention.attention_flop(query_context_pairs=pairs, heads=heads, qk_head_dim=key, v_head_dim=value) == flop


@pytest.mark.parametrize(("isl", "prefix"), [(1, 0), (3, 0), (5, 4), (8, 11)])
def test_causal_pairs_counted(isl: int, prefix: int) -> None:
    """Each new token sees the prefix, the new tokens before it, and itself."""
    pairs = sum(1 for _ in range(3) for new in range(isl) for _ in range(prefix + new + 1))
    assert attention.causal_pairs(sequences=3, isl=isl, prefix=prefix) == near(pairs)
    if not prefix:
        assert attention.causal_pairs(sequences=3, isl=isl) == near(pairs)


def test_causal_pairs_of_unequal_prompts_counted() -> None:
    """Prompts of 2, 6 and 10 tokens behind prefixes in proportion: mean 6 and 9, mean square over square 140/108."""
    lengths = (2, 6, 10)
    pairs = sum(3 * n // 2 + new + 1 for n in lengths for new in range(n))
    square = sum(n * n for n in lengths) / 3 / 6**2
    assert attention.causal_pairs(sequences=3, isl=6, prefix=9, square=square) == near(pairs)


def test_causal_pairs_of_longer_prompts_than_elsewhere_counted() -> None:
    """Prompts of 6, 10 and 14 tokens behind as many and a half, where the mean of all ranks is 5: twice as long."""
    lengths = (6, 10, 14)
    pairs = sum(3 * n // 2 + new + 1 for n in lengths for new in range(n))
    square = sum(n * n for n in lengths) / 3 / 5**2
    assert attention.causal_pairs(sequences=3, isl=5, prefix=7.5, square=square, share=2) == near(pairs)


@pytest.mark.parametrize("sequences", [1, 2, 3, 5])
def test_mean_square_over_every_draw(sequences: int) -> None:
    """All draws of b lengths of 0.6 or 1.4: the mean of squares, from the mean square of the rank's mean length."""
    spread, draws = 0.4, list(product((0.6, 1.4), repeat=sequences))
    share = math.sqrt(sum((sum(draw) / sequences) ** 2 for draw in draws) / len(draws))
    squares = sum(sum(x * x for x in draw) / sequences for draw in draws) / len(draws)
    assert attention.mean_square(share=share, sequences=sequences, spread=spread) == near(squares)


def test_mean_square_of_a_longer_rank() -> None:
    """One prompt has no spread about itself; many have all of it."""
    assert attention.mean_square(share=1.7, sequences=1, spread=0.5) == near(2.89)
    assert attention.mean_square(share=1.7, sequences=4, spread=0.5) == near(2.89 + 0.25 * 0.75)
    assert attention.mean_square(share=1.7, sequences=1e15, spread=0.5) == near(2.89 + 0.25)


@pytest.mark.parametrize(("tokens", "chunk"), [(1, 1), (7, 1), (7, 2), (8, 2), (9, 2), (4096, 1536), (5, 9)])
def test_chunks_counted(tokens: int, chunk: int) -> None:
    """Take a chunk at a time until nothing is left."""
    steps, left = 0, tokens
    while left > 0:
        left, steps = left - chunk, steps + 1
    assert attention.chunked_steps(tokens=tokens, chunk=chunk) == steps


def test_a_chunk_has_a_token() -> None:
    """A chunk below one token is one token: on a mesh of chunks, whole prompts (0) stand beside them."""
    assert attention.chunked_steps(tokens=7, chunk=0) == 7


@pytest.mark.parametrize(("sequences", "ranks"), [(1, 2), (4, 32), (9, 288)])
def test_longest_prompts_of_a_rank(sequences: int, ranks: int) -> None:
    """A rank's mean length has the spread c / sqrt(b); the largest of n such is Blom's."""
    deviation = 0.37 * sequences**-0.5
    found = attention.largest_share(sequences=sequences, ranks=ranks, spread=0.37)
    assert found == near(1 + deviation * blom(ranks))
    assert attention.largest_share(sequences=sequences, ranks=1, spread=0.37) == pytest.approx(1, abs=1e-12)


def test_cache_counted() -> None:
    """A latent and a rope vector, each in its own width; a key and a value of each head."""
    latent = sum(3 for _ in range(7)) + sum(2 for _ in range(5))
    found = attention.mla_cache_bytes(kv_lora_rank=7, qk_rope_head_dim=5, latent_bytes=3, rope_bytes=2)
    assert found == latent
    keys, values = (sum(3 for _ in range(5) for _ in range(each)) for each in (7, 11))
    found = attention.gqa_cache_bytes(num_key_value_heads=5, head_dim=7, v_head_dim=11, element_bytes=3)
    assert found == keys + values


# ----------------------------------------------------------------------------------------------------- collectives


def gathered(group: int, sizes: list[int]) -> list[int]:
    """Return the shards that die 0 receives at each tier when all gather, outermost tier first: a simulation."""
    held = {die: {die} for die in range(group)}
    received = [0] * len(sizes)
    for at in reversed(range(len(sizes))):
        inner, outer = sizes[at - 1] if at else 1, sizes[at]
        after = {}
        for die in held:
            peers = [d for d in held if d // outer == die // outer and d % inner == die % inner]
            after[die] = set().union(*(held[d] for d in peers))
        received[at] = len(after[0]) - len(held[0])
        held = after
    assert len(held[0]) == group
    return received


@pytest.mark.parametrize(("group", "sizes"), [(32, [2, 8, 64]), (24, [1, 2, 12, 24]), (6, [2, 16, 64]), (16, [16, 64])])
def test_gather_simulated(group: int, sizes: list[int]) -> None:
    """Dies of equal place gather over the outer tier, then pass all of it on inside: what die 0 receives."""
    for at, shards in enumerate(gathered(group, sizes)):
        inner = sizes[at - 1] if at else 1
        found = collectives.phase_received_bytes(shard=3.0, group=group, inner=inner, outer=sizes[at])
        assert found == pytest.approx(3.0 * shards)


def test_gather_of_a_group_that_leaves_a_node_half_full() -> None:
    """24 dies on nodes of 16 of which two gathered: each passes on 1.5 shards on average, from 7 other pairs."""
    assert collectives.phase_received_bytes(shard=3.0, group=24, inner=2, outer=16) == near(3.0 * 1.5 * 7)


@pytest.mark.parametrize(("group", "inner", "outer"), [(12, 2, 4), (12, 4, 64), (12, 1, 3), (3, 4, 8), (12, 3, 3)])
def test_peers_of_a_tier_counted(group: int, inner: int, outer: int) -> None:
    """Die 0 has so many peers in its group that are within this tier and not inside it."""
    peers = sum(1 for die in range(group) if inner <= die < outer)
    assert collectives.crossing_share(group=group, inner=inner, outer=outer) == pytest.approx(peers / group)
    assert collectives.one_shot_bytes(tensor=7.0, group=group, inner=inner, outer=outer) == pytest.approx(7.0 * peers)


def test_links_and_starts_from_their_equations() -> None:
    """Payload over rate; alpha and a part for each pair of a node, or each doubling (Thakur 2005 section 3)."""
    assert collectives.link_time(payload=30.0, bandwidth=4.0) == 7.5
    pairs = sum(1 for one in range(5) for other in range(5) if one != other)
    assert collectives.paired_start(start=3.0, per_pair=0.25, group=5, node=8) == 3.0 + 0.25 * pairs
    assert collectives.paired_start(start=3.0, per_pair=0.25, group=40, node=5) == 3.0 + 0.25 * pairs
    assert collectives.doubling_start(start=5.0, per_doubling=3.0, group=64) == near(5.0 + 3.0 * 6)
    assert collectives.doubling_start(start=5.0, per_doubling=3.0, group=11) == near(5.0 + 3.0 * math.log2(11))


def test_direct_copies_take_the_slower_of_cores_and_links() -> None:
    """t0 + w max(c, l), both ways."""
    assert collectives.direct_time(start=2.0, shard=7.0, copies=3.0, links=5.0) == 37.0
    assert collectives.direct_time(start=2.0, shard=7.0, copies=5.0, links=3.0) == 37.0


def test_bulk_start_is_paid_each_round() -> None:
    """t0 and, in each round, its own cost and one for each peer."""
    rounds = sum(11.0 + sum(0.5 for _ in range(7)) for _ in range(3))
    assert collectives.bulk_start(start=2.0, rounds=3, per_round=11.0, per_peer=0.5, peers=7) == 2.0 + rounds


def test_a_change_of_algorithm_is_as_likely_anywhere_between_its_ends() -> None:
    """Of sizes drawn evenly between the ends, those below the call's; the mean over both times."""
    drawn = [20.0 + (draw + 0.5) / 1000 * 60 for draw in range(1000)]
    for size in (1.0, 20.0, 35.0, 71.0, 80.0, 900.0):
        below = sum(1 for one in drawn if one < size) / 1000
        assert collectives.switched_part(size=size, last=20.0, first=80.0) == pytest.approx(below, abs=1e-3)
    assert collectives.switched_part(size=5.0, last=0.0, first=0.0) == 1
    assert collectives.switched_part(size=20.0, last=20.0, first=20.0) == 0
    assert collectives.expected_time(small=7.0, large=3.0, part=0.25) == near((7.0 * 3 + 3.0) / 4)


def test_two_dies_exchange_once() -> None:
    """Between two, giving halves and sums is giving all; among more, each round counts."""
    assert [collectives.rounds_of(rounds=2, group=group) for group in (2, 3, 16)] == [1, 2, 2]
    assert [collectives.rounds_of(rounds=1, group=group) for group in (2, 3, 16)] == [1, 1, 1]


@pytest.mark.parametrize("members", [2, 3, 8])
def test_mesh_links_counted(members: int) -> None:
    """A link to each of 7 others, a seventh of 24.5 each; those to members are of use, at least one."""
    links = [3.5 for die in range(1, 8) if die < members]
    assert collectives.mesh_bandwidth(bandwidth=24.5, members=members, dies=8) == near(sum(links))
    assert collectives.mesh_bandwidth(bandwidth=24.5, members=1, dies=8) == near(3.5)


def test_message_exchange_takes_the_slower_of_messages_and_link() -> None:
    """t0 + max(m c, link), both ways."""
    assert collectives.message_exchange_time(messages=7, start=2.0, per_message=3.0, transfer=20.0) == 23.0
    assert collectives.message_exchange_time(messages=7, start=2.0, per_message=3.0, transfer=23.0) == 25.0


def test_peers_slow_a_bulk_exchange() -> None:
    """Not at all alone, half as long again at half so many peers, threefold at twice as many."""
    assert [collectives.peer_slowdown(group=n, peers_at_half=12) for n in (1, 7, 25)] == [1.0, 1.5, 3.0]


def test_bandwidth_limit_counted() -> None:
    """Every copy of every token goes out and comes back, each value in its width."""
    sent = sum(1 + 2 for _ in range(3) for _ in range(5) for _ in range(7))
    found = collectives.expert_exchange_limit(
        tokens=3, copies=5, hidden_size=7, dispatch_bytes=1, combine_bytes=2, bandwidth=4.0
    )
    assert found == near(sent / 4.0)


@pytest.mark.parametrize(("layers", "compute"), [(1, 9.0), (2, 4.0), (7, 4.0), (7, 9.0), (7, 40.0), (5, 11.0)])
def test_cache_transfer_simulated(layers: int, compute: float) -> None:
    """A layer is sent once it is computed and the wire is free; what ends after the last layer is exposed."""
    free = 0.0
    for layer in range(layers):
        free = max(free, (layer + 1) * compute / layers) + 33.0 / 4.0 / layers
    found = collectives.kv_transfer_exposed(payload=33.0, bandwidth=4.0, latency=0.25, compute=compute, layers=layers)
    assert found == near(0.25 + free - compute)


# --------------------------------------------------------------------------------------------------------- experts


def test_copies_are_conserved() -> None:
    """What ranks receive is what tokens send: k copies to routed ranks, one to shared ranks."""
    assert experts.tokens_per_routed_rank(group_tokens=36, num_experts_per_tok=3, routed_ranks=7) * 7 == near(36 * 3)
    assert experts.tokens_per_shared_rank(group_tokens=36, shared_ranks=5) * 5 == near(36)
    whole = {"group_tokens": 36, "num_experts_per_tok": 3}
    # eleven slots on four ranks: three of three and one of two
    three, two = (experts.tokens_per_fullest_rank(**whole, slots=11, slots_per_rank=s) for s in (3, 2))
    assert 3 * three + two == near(36 * 3)
    assert experts.tokens_per_fullest_rank(**whole, slots=14, slots_per_rank=2) == near(36 * 3 / 7)


@pytest.mark.parametrize("skew", [0.0, 0.4, 1.3])
def test_popularity_variance_integrated(skew: float) -> None:
    """Mean and mean square of exp(skew x) over a normal x, by the trapezium rule."""
    grid = [i * 0.01 for i in range(-1500, 1501)]
    mean, square = (sum(math.exp(k * skew * x - x * x / 2) for x in grid) * 0.01 for k in (1, 2))
    weight = math.sqrt(2 * math.pi)
    variance = (square / weight) / (mean / weight) ** 2 - 1
    assert experts.popularity_variance(skew=skew) == pytest.approx(variance, rel=1e-8, abs=1e-9)


@pytest.mark.parametrize(("residual", "left"), [(0.0, 0.0), (0.3, 0.3), (0.9, 0.9), (4.0, 0.9)])
def test_slot_variance_is_of_what_is_not_foreseen_times_a_mean_of_favourites(residual: float, left: float) -> None:
    """Mean squares of independent factors multiply, a mean of N has an Nth; the skew bounds the error."""
    square, own = math.e ** (left * left), math.e ** (1.1 * 1.1) - 1
    found = [experts.slot_variance(skew=0.9, residual=residual, variety=1.1, sequences=n) for n in (1, 7)]
    assert found == [near(square * (1 + own) - 1), near(square * (1 + own / 7) - 1)]
    assert experts.slot_variance(skew=0.9, residual=residual, variety=0.0, sequences=7) == near(square - 1)


def test_slot_variance_of_sequences_that_are_drawn() -> None:
    """20,000 slots: lasting popularity that nothing foresees, times the mean of nine sequences' own favourites."""
    chance = np.random.default_rng(3)
    load = np.exp(chance.normal(0.0, 0.6, 20_000)) * np.exp(chance.normal(0.0, 0.8, (9, 20_000))).mean(axis=0)
    found = experts.slot_variance(skew=0.6, residual=9.0, variety=0.8, sequences=9)
    assert found == pytest.approx(load.var() / load.mean() ** 2, rel=0.05)


def test_even_slots_of_replicas_that_are_put_blindly() -> None:
    """Seven experts, copies even among them: with slots 0 to S-1 in turn the experts, the fullest slot counts."""
    for slots in range(7, 30):
        replicas = [len(range(expert, slots, 7)) for expert in range(7)]
        blind = experts.even_slots(experts=7, slots=slots, skew=0.8, residual=1.0)
        assert 1 / blind == near(max(1 / 7 / held for held in replicas))
        assert experts.even_slots(experts=7, slots=slots, skew=0.8, residual=0.8) == slots
    assert experts.even_slots(experts=7, slots=9, skew=0.0, residual=0.0) == 9


def placed_by_greed(popularity: Any, ranks: int, slots: int) -> Any:
    """EPLB: a further replica to the hottest slot, then the heaviest slot to the least loaded rank with room."""
    replicas = np.ones(len(popularity), int)
    for _ in range(slots - len(popularity)):
        replicas[np.argmax(popularity / replicas)] += 1
    owner = np.repeat(np.arange(len(popularity)), replicas)
    load, held, rank_of = np.zeros(ranks), np.zeros(ranks, int), np.zeros(slots, int)
    for slot in np.argsort(-(popularity / replicas)[owner]):
        rank = int(np.argmin(np.where(held < -(-slots // ranks), load, np.inf)))
        load[rank] += popularity[owner[slot]] / replicas[owner[slot]]
        held[rank] += 1
        rank_of[slot] = rank
    return owner, replicas, rank_of


@pytest.mark.parametrize(("slots", "ranks"), [(288, 32), (288, 36), (288, 72), (320, 64), (512, 256)])
@pytest.mark.parametrize("skew", [0.7, 1.1])
@pytest.mark.parametrize("error", [0.12, 0.35, None])
def test_busiest_rank_after_a_greedy_placement(slots: int, ranks: int, skew: float, error: float | None) -> None:
    """30 draws of popularity and forecast: within a fifth of EPLB's own greedy rule where replicas suffice.

    That is where the hottest slot after replication is no more than the mean rank.  With no forecast the experts are
    placed as they come.  288 slots on 288 ranks are left out: no placement helps a rank of one hot expert.
    """
    chance, most, mean = np.random.default_rng(11), [], 8192.0
    for _ in range(30):
        foreseen = np.exp(chance.normal(0.0, math.sqrt(skew**2 - error**2) if error else 0.0, 256))
        real = foreseen * np.exp(chance.normal(0.0, error or skew, 256))
        owner, replicas, rank_of = placed_by_greed(foreseen, ranks, slots)
        load = np.bincount(rank_of, weights=(real / replicas)[owner], minlength=ranks)
        most.append(load.max() / load.mean())
    residual = 9.0 if error is None else error
    variance = experts.slot_variance(skew=skew, residual=residual, variety=0.0, sequences=1)
    found = experts.busiest_rank_tokens(
        mean=mean, ranks=ranks, slots_per_rank=slots // ranks, slot_variance=variance, chance=0.0
    )
    assert found / mean == pytest.approx(np.mean(most), rel=0.2)


@pytest.mark.parametrize("ranks", [2, 7, 288])
@pytest.mark.parametrize(
    ("variance", "chance", "mean"), [(0.37, 1.0, 19.0), (0.0, 1.0, 19.0), (0.37, 0.0, 0.5), (0.1, 0.5, 3.0)]
)
def test_busiest_rank_from_its_equation(ranks: int, variance: float, chance: float, mean: float) -> None:
    """Fenton's log-normal of the rank's variance, mean kept, at Blom's quantile; s held at the quantile."""
    relative = (ranks - 1) / ranks * (variance / 5 + chance / mean)
    sigma = math.sqrt(math.log1p(relative))
    sigma = sigma if sigma < blom(ranks) else blom(ranks)
    median = mean * math.exp(-(sigma**2) / 2)
    found = experts.busiest_rank_tokens(mean=mean, ranks=ranks, slots_per_rank=5, slot_variance=variance, chance=chance)
    assert found == near(median * math.exp(blom(ranks) * sigma))


@pytest.mark.parametrize(
    ("ranks", "slots", "variance", "mean"),
    [(288, 1, 0.0, 19), (288, 1, 0.0, 128), (32, 8, 0.017, 128), (64, 4, 0.017, 400), (32, 8, 2.5, 500)],
)
def test_busiest_rank_within_a_tenth_of_what_is_drawn(ranks: int, slots: int, variance: float, mean: int) -> None:
    """400 draws: slots of log-normal popularity, copies that fall on their ranks one by one."""
    chance, sigma = np.random.default_rng(7), math.sqrt(math.log1p(variance))
    drawn = []
    for _ in range(400):
        popular = np.exp(chance.normal(0.0, sigma, (ranks, slots))).sum(axis=1)
        drawn.append(chance.multinomial(ranks * mean, popular / popular.sum()).max())
    found = experts.busiest_rank_tokens(
        mean=mean, ranks=ranks, slots_per_rank=slots, slot_variance=variance, chance=1.0
    )
    assert found == pytest.approx(np.mean(drawn), rel=0.1)


def test_busiest_rank_of_even_or_single_ranks_is_the_mean() -> None:
    """No spread, or one rank: it has the mean; and however large the spread, never more than all."""
    same: dict[str, Any] = {"slots_per_rank": 3, "mean": 11.0}
    assert experts.busiest_rank_tokens(ranks=9, slot_variance=0.0, chance=0.0, **same) == near(11.0)
    assert experts.busiest_rank_tokens(ranks=1, slot_variance=2.0, chance=1.0, **same) == near(11.0)


def drawn_nodes(nodes: int, groups: int, drawn: int) -> float:
    """Return the mean number of nodes that hold one of the groups drawn, over all draws without repetition."""
    draws = list(combinations(range(groups), drawn))
    return sum(len({group * nodes // groups for group in draw}) for draw in draws) / len(draws)


@pytest.mark.parametrize(
    ("nodes", "groups", "drawn"),
    [(4, 8, 4), (2, 8, 3), (2, 8, 5), (8, 8, 3), (3, 3, 3), (5, 5, 5), (4, 8, 1), (4, 8, 8), (1, 4, 2), (3, 9, 4)],
)
def test_reachable_nodes_over_every_draw(nodes: int, groups: int, drawn: int) -> None:
    """All ways to draw g of G groups that lie evenly on the nodes."""
    found = experts.reachable_nodes(nodes=nodes, n_group=groups, topk_group=drawn)
    assert found == near(drawn_nodes(nodes, groups, drawn))


def test_reachable_nodes_where_groups_lie_unevenly() -> None:
    """Two of eight groups on three nodes of 8/3: the chance to miss a node is 2/3, then of seven left 1 - (8/3)/7.

    No node holds 8/3 groups: that is the code's own continuation. On nodes of 3, 3 and 2 it is 0.7 % high.
    """
    found = experts.reachable_nodes(nodes=3, n_group=8, topk_group=2)
    assert found == near(3 * (1 - 2 / 3 * (1 - 8 / 21)))
    counted = sum(len({(0, 0, 0, 1, 1, 1, 2, 2)[group] for group in draw}) for draw in combinations(range(8), 2)) / 28
    assert found / counted == pytest.approx(1.007, abs=0.0005)


def test_more_groups_than_lie_elsewhere_reach_every_node() -> None:
    """8 groups on 3 nodes leave 5 1/3 elsewhere: 7 or 8 drawn miss none; nor does a draw of more than there are."""
    for drawn in (7, 8, 9, 10):
        assert experts.reachable_nodes(nodes=3, n_group=8, topk_group=drawn) == near(3.0)


@pytest.mark.parametrize(("copies", "nodes"), [(1, 3), (2, 3), (4, 3), (5, 2), (3, 4)])
def test_distinct_nodes_over_every_fall(copies: int, nodes: int) -> None:
    """All ways in which k copies fall on N nodes."""
    falls = list(product(range(nodes), repeat=copies))
    mean = sum(len(set(fall)) for fall in falls) / len(falls)
    assert experts.distinct_nodes(copies=copies, nodes=nodes) == near(mean)


def test_one_node_takes_all_copies() -> None:
    """All of k copies fall on the only node."""
    assert experts.distinct_nodes(copies=3, nodes=1) == near(1.0)


@pytest.mark.parametrize(("tokens", "top", "slots"), [(1, 2, 4), (3, 2, 4), (2, 1, 5), (2, 3, 4), (3, 3, 3)])
def test_experts_touched_over_every_draw(tokens: int, top: int, slots: int) -> None:
    """All ways in which tokens draw k of S slots each: the first two slots that at least one drew."""
    falls = list(product(combinations(range(slots), top), repeat=tokens))
    mean = sum(len({0, 1} & set().union(*fall)) for fall in falls) / len(falls)
    found = experts.experts_touched(group_tokens=tokens, num_experts_per_tok=top, slots=slots, slots_per_rank=2)
    assert found == near(mean)


def test_gated_feed_forward_counted() -> None:
    """Shazeer 2020 equation 6: gate, up and down, each a product and a matrix of its own."""
    tokens, hidden, width = 3, 5, 7
    flop = sum(2 * tokens * a * b for a, b in ((hidden, width), (hidden, width), (width, hidden)))
    assert experts.gated_feed_forward_flop(tokens=tokens, hidden_size=hidden, intermediate_size=width) == flop
    size = sum(a * b * 2 for a, b in ((hidden, width), (hidden, width), (width, hidden)))
    assert experts.gated_feed_forward_bytes(hidden_size=hidden, intermediate_size=width, element_bytes=2) == size


# --------------------------------------------------------------------------------------------------------- kernels


@pytest.mark.parametrize(("first", "second"), [(3.0, 2.0), (2.0, 3.0)])
def test_overlap_between_sum_and_maximum(first: float, second: float) -> None:
    """Hidden 0 is the sum, 1 the longer, and between them a straight line."""
    for hidden in (0.0, 0.3, 1.0):
        found = kernels.overlapped_time(first=first, second=second, hidden=hidden)
        assert found == near((1 - hidden) * (first + second) + hidden * max(first, second))


def test_hidden_share_falls_from_all_to_half_to_none() -> None:
    """R / (R + m): one over one and the rows in units of R."""
    for rows in (0.0, 30.0, 60.0, 180.0):
        assert kernels.hidden_share(rows=rows, overlap_rows=60.0) == near(1 / (1 + rows / 60.0))


@pytest.mark.parametrize(
    ("matrices", "rows", "columns", "cores"),
    [(1, 40, 50, 7), (3, 40, 50, 7), (3, 5, 50, 7), (2, 33, 47, 4), (1, 16, 20, 3), (4, 8, 10, 4), (4, 8, 10, 5)],
)
def test_waves_of_tiles_walked(matrices: int, rows: int, columns: int, cores: int) -> None:
    """Walk the tiles of 8 x 10, or lower where the matrix is, and hand them to the cores a wave at a time."""
    height = 8 if rows > 8 else rows
    tiles = sum(1 for _ in range(matrices) for _ in range(0, rows, height) for _ in range(0, columns, 10))
    waves, left = 0, tiles
    while left > 0:
        left, waves = left - cores, waves + 1
    share = 1.0 if waves == 1 else matrices * rows * columns / (waves * cores * height * 10)
    found = kernels.wave_share(matrices=matrices, rows=rows, columns=columns, tile_rows=8, tile_columns=10, cores=cores)
    assert found == near(share)


def test_what_is_resident_comes_from_cache() -> None:
    """Byte by byte: the first C at the cache's rate, the rest at memory's."""
    for stored, resident in ((7, 3), (3, 7), (5, 0)):
        time = sum(1 / 2.0 if byte < resident else 1 / 0.7 for byte in range(stored))
        found = kernels.weight_stream_time(stored=stored, resident=resident, rate=0.7, resident_rate=2.0)
        assert found == near(time)


def test_what_does_not_fit_spills() -> None:
    """Beyond the capacity every byte spills, below it none."""
    assert [kernels.spilled_bytes(activation=a, l2_capacity=5.0) for a in (2.0, 4.5, 5.0, 5.5, 9.0)] == [
        0,
        0,
        0,
        0.5,
        4.0,
    ]


def test_activations_pass_so_many_times() -> None:
    """Each pass takes bytes over rate."""
    assert kernels.activation_time(activation=6.0, passes=3, bandwidth=4.0) == near(sum(6.0 / 4.0 for _ in range(3)))


def test_cores_stream_up_to_the_rate_of_the_pins() -> None:
    """Of 8 at the pins: cores that ask for 12 reach 8 with two thirds; those that ask for 4 get shares of the 8."""
    for cores, share, rate in ((12.0, 1.0, 8.0), (12.0, 0.75, 8.0), (12.0, 0.5, 6.0), (4.0, 1.0, 8.0), (4.0, 0.5, 4.0)):
        found = kernels.core_stream_rate(bandwidth=10.0, share=0.8, core_bandwidth=cores, core_share=share)
        assert found == near(rate)


@pytest.mark.parametrize(("per_byte", "per_flop"), [(3.5, 2.25), (2.25, 3.5)])
def test_first_block_saturates(per_byte: float, per_flop: float) -> None:
    """The slower of bytes and FLOP of a token, for half the harmonic mean of context and block."""
    tokens = 1 / (1 / 30 + 1 / 70)
    found = kernels.first_block_time(
        context=30,
        block_tokens=70,
        bytes_per_token=per_byte * 5.0,
        flop_per_token=per_flop * 7.0,
        core_bandwidth=5.0,
        core_rate=7.0,
    )
    assert found == near(3.5 * tokens)


def test_sequences_start_until_half_the_cores_have_one() -> None:
    """One after the other is added while fewer than half of the cores have a sequence."""
    for sequences in (1, 4, 5, 6, 100):
        time = sum(3.0 for n in range(sequences) if n < 10 // 2)
        assert kernels.sequence_start(sequences=sequences, start_per_sequence=3.0, cores=10) == near(time)
    assert kernels.sequence_start(sequences=100, start_per_sequence=3.0, cores=7) == near(3.0 * 3.5)


def test_causal_attention_from_its_equation() -> None:
    """F/P, as many times longer as b tokens are of n, and by the part s of operands that lie beyond L2."""
    same: dict[str, Any] = {"flop": 62.0, "rate": 4.0, "context": 30, "overhead_tokens": 6, "spill": 0.5}
    assert kernels.causal_attention_time(activation=2.0, l2_capacity=5.0, **same) == near(15.5 * 36 / 30)
    beyond = (8.0 - 5.0) / 8.0
    assert kernels.causal_attention_time(activation=8.0, l2_capacity=5.0, **same) == near(18.6 + 18.6 * 0.5 * beyond)


def test_tasks_share_the_cores() -> None:
    """Work of all tasks is what the cores do together."""
    assert kernels.task_time(tasks=21, task_time=4.0, cores=8) * 8 == near(sum(4.0 for _ in range(21)))


# -------------------------------------------------------------------------------------------------------- roofline


def test_roofs_from_their_definitions() -> None:
    """Williams 2009: rate of all cores, work over it, bytes over a rate."""
    assert roofline.peak_rate(cores=3, flop_per_cycle=5, clock=7.0) == sum(5 * 7.0 for _ in range(3))
    assert roofline.compute_time(flop=33.0, peak=8.0, efficiency=0.75) == near(5.5)
    assert roofline.cache_time(stored=30.0, activation=12.0, l2_rate=8.0) == near(5.25)
    assert roofline.serial_time(first=2.25, second=3.5) == 5.75


@pytest.mark.parametrize(
    ("first", "second", "between", "layer"),
    [(5.0, 1.0, 2.0, 20.0), (2.0, 3.0, 1.0, 36.0), (2.0, 0.5, 40.0, 42.5)],
)
def test_stages_take_the_busiest_or_the_way_through(first: float, second: float, between: float, layer: float) -> None:
    """Four micro-batches, three domains: 4 of the first, 12 of the second stage, or one way through all."""
    way = first + second + between
    found = roofline.staged_time(micro_batches=4, domains=3, first=first, second=second, way=way)
    assert found == near(layer)


@pytest.mark.parametrize(("drafts", "layers"), [(0, 1), (1, 1), (3, 1), (3, 2), (2, 3)])
def test_drafts_on_one_token_are_those_after_each_layer_ran(drafts: int, layers: int) -> None:
    """Position by position: a layer that has not run yet gets all tokens that are verified."""
    fresh, single = layers, 0
    for _ in range(drafts):
        single += fresh == 0
        fresh = max(0, fresh - 1)
    assert serving.single_token_drafts(drafts=drafts, layers=layers) == single


def test_a_row_of_scores_is_worked_by_one_core() -> None:
    """44.7 us from 32K to 128K for one sequence of a module on H200, of which 5.8 are no choice: 38.9 us.

    One row takes as long as 132 of them, and 133 as long as 264.
    """
    of_h200 = {"keys": 131072 - 32768, "passes": 3.6, "score_bytes": 4, "cores": 132, "core_bandwidth": 4.8e12 / 132}
    times = {rows: kernels.choice_time(rows=rows, **of_h200) for rows in (1, 132, 133, 264)}
    assert times[1] == pytest.approx(44.7e-6 - 5.8e-6, rel=0.01)
    assert times[132] == times[1] and times[133] == times[264] == 2 * times[1]


def test_unpacking_takes_the_slower_of_widening_and_writing() -> None:
    """12 instructions at 4 a second against bytes at 5 a second."""
    for widened, seconds in ((5.0, 3.0), (15.0, 3.0), (20.0, 4.0)):
        assert kernels.unpacking_time(flop=12.0, rate=4.0, widened=widened, write_rate=5.0) == seconds


@pytest.mark.parametrize("rows", range(1, 50))
def test_rows_of_queries_fill_whole_tiles(rows: int) -> None:
    """Every row of every tile begun costs what a useful one does."""
    tiles = len(range(0, rows, 16))
    assert attention.worked_flop(flop=7.0 * rows, rows=rows, tile_rows=16) == near(7.0 * 16 * tiles)


def test_messages_between_nodes_leave_the_own_node_out() -> None:
    """Of 600 copies a third is left, spread over four nodes of which one is its own."""
    assert collectives.messages_between_nodes(messages=600.0, once=1 / 3, nodes=4) == near(50.0 * 3)
    assert collectives.messages_between_nodes(messages=600.0, once=1 / 3, nodes=1) == 0.0


def test_messages_hold_a_stage_as_far_as_nothing_hides_them() -> None:
    """Half of both ways' 6 s of messages beside 4 s of work: all, half or nothing of the shorter hides."""
    for hidden, held in ((1.0, 4.0), (0.5, 5.5), (0.0, 7.0)):
        assert roofline.stage_time(work=4.0, messages=6.0, hidden=hidden) == held
        assert roofline.stage_time(work=3.0, messages=8.0, hidden=hidden) == held
        assert roofline.stage_time(work=4.0, messages=0.0, hidden=hidden) == 4.0
    assert collectives.message_handling_time(messages=480.0, leaving=0.5, per_message=125e-9) == near(30e-6)


@pytest.mark.parametrize(("first", "second", "shared"), [(7.0, 5.0, 3.0), (5.0, 7.0, 3.0), (5.0, 3.0, 7.0)])
def test_two_streams_take_the_longest_twice(first: float, second: float, shared: float) -> None:
    """CloudMatrix384 4.2.3: two micro-batches, each as long as the slowest of lanes and pins."""
    assert roofline.two_stream_time(first=first, second=second, shared=shared) == 14.0


@pytest.mark.parametrize(
    ("attention", "experts"),
    [((7.0, 6.0), (5.0, 4.5)), ((5.0, 2.0), (4.0, 3.5)), ((3.0, 2.0), (6.0, 4.0)), ((4.0, 4.0), (4.0, 4.0))],
)
def test_two_streams_in_steady_state(attention: tuple[float, float], experts: tuple[float, float]) -> None:
    """Two micro-batches, the first always first on either lane, worked one after the other through 400 layers."""
    free, ready, ends = {"a": 0.0, "x": 0.0}, [0.0, 0.0], []
    for _ in range(400):
        for micro in (0, 1):
            free["a"] = max(free["a"], ready[micro]) + attention[micro]
            free["x"] = max(free["x"], free["a"]) + experts[micro]
            ready[micro] = free["x"]
        ends.append(free["x"])
    found = roofline.two_stream_time(
        first=attention[0], second=experts[0], shared=0.0,
        first_saved=attention[0] - attention[1], second_saved=experts[0] - experts[1],
    )  # fmt: skip
    assert found == near((ends[-1] - ends[199]) / 200)


@pytest.mark.parametrize(
    ("capacity", "share"), [(0.0, 0.0), (90.0, 0.0), (150.0, 0.25), (290.0, 0.95), (300.0, 1.0), (1e9, 1.0)]
)
def test_what_l2_keeps_of_weights_that_come_round(capacity: float, share: float) -> None:
    """200 bytes of weights, 100 that pass once: what is over 100 is for the 200, all from 300 on."""
    assert kernels.reused_share(weights=200.0, passing=100.0, l2_capacity=capacity) == near(share)
    assert kernels.reused_share(weights=200.0, passing=100.0, l2_capacity=capacity) * 200.0 <= capacity


# --------------------------------------------------------------------------------------------------------- serving


def test_rates_of_a_pool_from_their_definitions() -> None:
    """A step makes so many tokens; sequences each make one in a TPOT; a request is so many tokens."""
    assert serving.time_per_output_token(step_time=7.0, tokens_per_step=1.6) == near(4.375)
    assert serving.token_rate(sequences=21, tpot=4.0) == near(5.25)
    assert serving.request_rate(tokens_per_s=21.0, tokens_per_request=8) == near(2.625)
    assert serving.cost_of_tokens(cost_rate=3.0, tokens_per_s=7.0) * 7.0 / 1e6 == near(3.0)


def test_prefill_in_between_conserves_time() -> None:
    """Over the o tokens of a sequence: o steps, and a prompt for each of the N that run."""
    whole = sum(0.5 for _ in range(100)) + sum(3.0 for _ in range(7))
    found = serving.mixed_tpot(tpot=0.5, sequences=7, prefill_time_per_request=3.0, tokens_per_request=100)
    assert found * 100 == near(whole)


@pytest.mark.parametrize("prompts", [1, 2, 9])
def test_batch_formation_simulated(prompts: int) -> None:
    """Prompts come one by one, evenly; each waits for the last."""
    arrivals = [n / 4.0 for n in range(prompts)]
    mean = sum(arrivals[-1] - one for one in arrivals) / prompts
    assert serving.batch_formation_wait(prompts=prompts, arrival_rate=4.0) == near(mean)


def test_less_than_a_prompt_waits_for_none() -> None:
    """There is no negative wait."""
    assert serving.batch_formation_wait(prompts=0.5, arrival_rate=4.0) == 0.0


@pytest.mark.parametrize("load", [0.1, 0.5, 0.95])
def test_one_front_end_is_a_queue_of_one_server(load: float) -> None:
    """M/M/1: the time in the system is 1 / (r (1 - rho))."""
    assert serving.frontend_time(processes=1, rate=4.0, utilisation=load) == near(1 / (4.0 * (1 - load)))


@pytest.mark.parametrize(("processes", "load"), [(3, 0.6), (8, 0.8)])
def test_front_ends_from_sakasegawas_equation(processes: int, load: float) -> None:
    """Sakasegawa 1977: rho^(sqrt(2(n+1)) - 1) / (n (1 - rho)) of a service in the queue, within 12 % of Erlang's C."""
    queue = load ** (math.sqrt(2 * processes + 2) - 1) / processes / (1 - load)
    assert serving.frontend_time(processes=processes, rate=4.0, utilisation=load) == near(0.25 + 0.25 * queue)
    offered = processes * load
    waiting = offered**processes / math.factorial(processes) / (1 - load)
    erlang = waiting / (waiting + sum(offered**n / math.factorial(n) for n in range(processes)))
    assert queue == pytest.approx(erlang / (processes * (1 - load)), rel=0.12)


def test_residual_wait_averaged() -> None:
    """A batch that becomes ready finds a running one with probability rho, anywhere in its time."""
    points = [(n + 0.5) / 1000 for n in range(1000)]
    wait = 0.8 * sum(3.0 * (1 - at) for at in points) / len(points)
    assert serving.residual_wait(utilisation=0.8, service_time=3.0) == near(wait)


# ------------------------------------------------------------------------------------------------------ statistics


@pytest.mark.parametrize("count", [2, 8, 64, 512])
def test_largest_normal(count: int) -> None:
    """Blom's quantile exactly; within 4.5 % of the expected largest of two, integrated (0.75 % from 8 on)."""
    assert statistics.largest_normal(count=count) == near(blom(count))
    grid = [i * 0.01 for i in range(-900, 901)]
    largest = sum(x * count * NORMAL.cdf(x) ** (count - 1) * NORMAL.pdf(x) for x in grid) * 0.01
    assert statistics.largest_normal(count=count) == pytest.approx(largest, rel=0.0075 if count >= 8 else 0.0455)


def test_the_largest_of_one_is_the_mean() -> None:
    """(1 - 3/8) / (1 + 1/4) is a half."""
    assert statistics.largest_normal(count=1) == pytest.approx(0.0, abs=1e-12)


def test_half_of_90_percent_of_a_normal() -> None:
    """The quantile at 95 %, to three places."""
    assert statistics.HALF_OF_90_PERCENT == round(NORMAL.inv_cdf(0.95), 3)


def test_length_spread_of_uniform_progress() -> None:
    """Standard deviation of a value uniform over the output, by the midpoint rule."""
    points = [(n + 0.5) / 20_000 * 700.0 for n in range(20_000)]
    spread = math.sqrt(sum((x - 350.0) ** 2 for x in points) / len(points))
    assert statistics.length_spread(osl=700.0) == pytest.approx(spread, rel=1e-8)


@pytest.mark.parametrize("sequences", [1, 5, 60])
def test_sums_of_contexts(sequences: int) -> None:
    """A sum of b independent contexts: b means, and the root of b variances for each deviation."""
    deviation = math.sqrt(sum(11.0**2 for _ in range(sequences)))
    found = statistics.largest_context_sum(sequences=sequences, mean=300.0, spread=11.0, ranks=37)
    assert found == near(sequences * 300.0 + blom(37) * deviation)
    bound = statistics.occupancy_bound(sequences=sequences, mean=300.0, spread=11.0, sigmas=2.5)
    assert bound == near(sequences * 300.0 + 2.5 * deviation)


@pytest.mark.parametrize("sequences", [0, -4])
def test_no_sequences_have_no_spread(sequences: int) -> None:
    """Below one sequence the bound goes on as a straight line: a root finder may ask there."""
    assert statistics.occupancy_bound(sequences=sequences, mean=300.0, spread=11.0, sigmas=2.5) == sequences * 300.0


@pytest.mark.parametrize(
    ("value", "outside"), [(2.0, 0.0), (2.5, 0.0), (4.0, 0.0), (1.25, 0.75), (5.5, 1.5), (-1.0, 3.0)]
)
def test_interval_score(value: float, outside: float) -> None:
    """Gneiting and Raftery 2007 equation 43: the width, and 2/alpha of how far outside the value lies."""
    assert statistics.interval_score(low=2.0, high=4.0, value=value, alpha=0.3) == near(2.0 + outside / 0.15)


def test_interval_score_is_least_at_its_quantiles() -> None:
    """A proper score: over a uniform value no interval scores better than that between its own quantiles."""
    points = [(n + 0.5) / 400 for n in range(400)]

    def mean(low: float, high: float) -> float:
        return sum(statistics.interval_score(low=low, high=high, value=x, alpha=0.2) for x in points) / len(points)

    best = mean(0.1, 0.9)
    assert all(best < mean(0.1 + a, 0.9 + b) for a in (-0.05, 0.05) for b in (-0.05, 0.05))
