"""Bytes resident on one die: weights with replicas, KV cache, buffers, working space."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce

from perfmodel.algebra import maximum, minimum, total
from perfmodel.formulas.memory import exchange_buffer_bytes, workspace_bytes
from perfmodel.formulas.statistics import occupancy_bound
from perfmodel.ledger.caches import Cache, cache_of, head_width, joined, unfolded_width
from perfmodel.ledger.feedforward import combine_message_bytes, dispatch_message_bytes
from perfmodel.ledger.records import AGAIN, Dims, Family, Layout, Ledger, Traffic
from perfmodel.ledger.rows import BF16
from perfmodel.specs.attention import AttentionSpec
from perfmodel.specs.model import ModelSpec
from perfmodel.units import Bytes, Count

OCCUPANCY_SIGMAS = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Footprint:
    """Bytes on one die; ``kv`` is ``kv_mean`` + 3 sigma, ``kv_worst`` all requests at their longest.

    ``kv_bytes_per_token`` is of the whole model, ``kv_bytes_per_token_of_die`` what one die keeps of
    it: all of a latent cache, its own key-value heads of a grouped one.
    """

    weights: Bytes
    kv: Bytes
    kv_worst: Bytes
    kv_mean: Bytes
    kv_bytes_per_token: Bytes
    kv_bytes_per_token_of_die: Bytes
    buffers: Bytes
    workspace: Bytes
    #: weights of a die that has experts alone, where there are such dies
    expert_weights: Bytes = 0
    #: what a request keeps beside what each of its tokens does, windows and states: of the whole model, and of a die
    kv_bytes_per_request: Bytes = 0
    kv_bytes_per_request_of_die: Bytes = 0
    #: tokens that a running request has in the cache on average
    mean_tokens: Count = 1

    @property
    def planned(self) -> Bytes:
        """Bytes to plan on, runtime apart, on the fuller kind of die."""
        return self._fuller(self.kv)

    @property
    def worst(self) -> Bytes:
        """Bytes with every request at its longest, runtime apart, on the fuller kind of die."""
        return self._fuller(self.kv_worst)

    def _fuller(self, kv: Bytes) -> Bytes:
        attention = self.weights + kv + self.workspace
        return maximum(attention, self.expert_weights) + self.buffers


def part_bytes(ledger: Ledger, name: str) -> Bytes:
    """Weight bytes that one layer's part keeps on a die."""
    return total(op.resident_bytes for op in ledger.parts[name])


#: begins the names of parts that are another by their weights: all micro-batches at once
_JOINED = "dense_attention"


def kept_weights(ledger: Ledger, family: Family) -> Iterator[tuple[bool, str, Bytes]]:
    """Yield what each part of each block keeps: whether on dies with experts alone, the part's name, its bytes.

    Of joined parts, which lie on different dies, the one that keeps more.
    """
    for block in ledger.blocks:
        if all(name.endswith(AGAIN) for name in block.attention):  # kept where it first runs
            continue
        apart = family.disaggregated and block.overlapped
        for name in block.attention:
            kept_as = name.replace(_JOINED, "attention", 1)
            yield False, kept_as, block.layers * part_bytes(ledger, name)
        for name in (*block.experts, *block.beside):
            yield apart, name, block.layers * part_bytes(ledger, name)
        if block.joined:
            first, second = (part_bytes(ledger, name) for name in block.joined)
            yield apart, " or ".join(block.joined), block.layers * maximum(first, second)


def weight_bytes(ledger: Ledger, family: Family) -> tuple[Bytes, Bytes]:
    """Weight bytes of the fullest die, and of a die with experts alone where there are such dies."""
    kept = list(kept_weights(ledger, family))
    return total(size for apart, _, size in kept if not apart), total(size for apart, _, size in kept if apart)


def cache_of_model(model: ModelSpec, family: Family, *, tp: Count, draft: Count) -> Cache:
    """Return what all layers keep of a sequence on one die of ``tp``, at 1 in all.

    The draft layer has a cache of its own when drafts are made.  A prefill pool fills
    it for the decode pool, so it counts there too where the layout says drafts are made.  Decode keeps a state of
    linear attention for each token that is verified.
    """
    layers: dict[str, Count] = {}
    for group in model.groups:
        layers[group.attention] = layers.get(group.attention, 0) + group.count
    if model.num_nextn_predict_layers:
        of_drafts = model.draft_layer.attention
        layers[of_drafts] = layers.get(of_drafts, 0) + minimum(draft, model.num_nextn_predict_layers)
    states = 1 + draft if family.phase == "decode" else 1
    caches = [cache_of(model.attention_called(name), family, tp, states).times(count) for name, count in layers.items()]
    return caches[0] if len(caches) == 1 else joined(caches)


def _widest(width: Callable[[AttentionSpec], Count], model: ModelSpec) -> Count:
    """Return the largest of a width of a model's attentions."""
    return reduce(maximum, map(width, model.kinds_of_attention))


def footprint(
    ledger: Ledger,
    layout: Layout,
    family: Family,
    traffic: Traffic,
    model: ModelSpec,
    dims: Dims,
    block_tokens: Count,
    least_workspace: Bytes = 0,
) -> Footprint:
    """Return the bytes of one die; each request wastes half a KV block on average."""
    q = ledger.quantities
    cache = cache_of_model(model, family, tp=layout.tp, draft=layout.draft)
    in_all = cache_of_model(model, family, tp=1, draft=layout.draft)
    per_token = cache.on_die(layout.kv_resident) / (layout.cp * layout.dcp)
    if family.phase == "prefill":
        each = longest = traffic.isl + block_tokens
        mean = planned = worst = layout.batch * each
    else:
        longest = traffic.longest + layout.draft + block_tokens
        worst = layout.batch * longest
        each = traffic.context + block_tokens / 2
        mean = layout.batch * each
        bound = occupancy_bound(
            sequences=layout.batch,
            mean=each,
            spread=traffic.context_deviation,
            sigmas=OCCUPANCY_SIGMAS,
        )
        planned = minimum(bound, worst)
    there, back = dispatch_message_bytes(family, dims), combine_message_bytes(dims)
    buffers: Bytes = 0
    if not dims.routes:
        pass  # nothing is exchanged
    elif family.exchange == "gather":
        buffers = family.micro * q.group_tokens * (there + back)
    elif family.phase == "prefill":
        buffers = family.micro * q.rank_tokens * q.copies * (there + back)
    else:
        buffers = exchange_buffer_bytes(
            ranks=q.group, tokens=family.micro * q.rank_tokens, dispatch_bytes=there, combine_bytes=back
        )
    weights, apart = weight_bytes(ledger, family)
    fixed = cache.fixed(each)
    most = layout.batch * cache.fixed(longest)
    return Footprint(
        weights=weights,
        expert_weights=apart,
        kv=planned * per_token + most,
        kv_worst=worst * per_token + most,
        kv_mean=mean * per_token + layout.batch * fixed,
        kv_bytes_per_token=in_all.per_token,
        kv_bytes_per_token_of_die=per_token,
        kv_bytes_per_request=in_all.fixed(each),
        kv_bytes_per_request_of_die=fixed,
        mean_tokens=each,
        buffers=buffers,
        workspace=maximum(
            least_workspace,
            family.micro
            * workspace_bytes(
                tokens=q.tokens,
                hidden_size=dims.hidden_size,
                head_width=_widest(lambda one: head_width(one, family), model) / layout.tp
                + (dims.hc_mult - 1) * dims.hidden_size,
                element_bytes=BF16,
                context=q.cached_tokens if family.phase == "prefill" else 0,
                unfolded_width=_widest(unfolded_width, model) / layout.tp,
            ),
        ),
    )
