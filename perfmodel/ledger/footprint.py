"""Bytes resident on one die: weights with replicas, KV cache, buffers, working space."""

from collections.abc import Iterator
from dataclasses import dataclass

from perfmodel.algebra import maximum, minimum, total
from perfmodel.formulas.memory import exchange_buffer_bytes, workspace_bytes
from perfmodel.formulas.statistics import occupancy_bound
from perfmodel.ledger.attention import cache_bytes, cache_bytes_per_die, head_width, unfolded_width
from perfmodel.ledger.feedforward import combine_message_bytes, dispatch_message_bytes
from perfmodel.ledger.records import AGAIN, Dims, Family, Layout, Ledger, Traffic
from perfmodel.ledger.rows import BF16
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


#: parts that are another by their weights
_KEPT_AS = {"dense_attention": "attention"}


def kept_weights(ledger: Ledger, family: Family) -> Iterator[tuple[bool, str, Bytes]]:
    """Yield what each part of each block keeps: whether on dies with experts alone, the part's name, its bytes.

    Of joined parts, which lie on different dies, the one that keeps more.
    """
    for block in ledger.blocks:
        if all(name.endswith(AGAIN) for name in block.attention):  # kept where it first runs
            continue
        apart = family.disaggregated and block.overlapped
        for name in block.attention:
            yield False, _KEPT_AS.get(name, name), block.layers * part_bytes(ledger, name)
        for name in (*block.experts, *block.beside):
            yield apart, name, block.layers * part_bytes(ledger, name)
        if block.joined:
            first, second = (part_bytes(ledger, name) for name in block.joined)
            yield apart, " or ".join(block.joined), block.layers * maximum(first, second)


def weight_bytes(ledger: Ledger, family: Family) -> tuple[Bytes, Bytes]:
    """Weight bytes of the fullest die, and of a die with experts alone where there are such dies."""
    kept = list(kept_weights(ledger, family))
    return total(size for apart, _, size in kept if not apart), total(size for apart, _, size in kept if apart)


def cached_layers(model: ModelSpec, layout: Layout) -> Count:
    """Layers with a KV cache: the draft layer has one of its own when drafts are made.

    A prefill pool fills the draft layer's cache for the decode pool, so it counts there too where
    the layout says drafts are made.
    """
    return model.num_hidden_layers + minimum(layout.draft, model.num_nextn_predict_layers)


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
    layers = cached_layers(model, layout)
    per_token = cache_bytes_per_die(model.attention, family, layout.tp) * layers
    per_token = per_token * layout.kv_resident / (layout.cp * layout.dcp)
    if family.phase == "prefill":
        mean = planned = worst = layout.batch * (traffic.isl + block_tokens)
    else:
        worst = layout.batch * (traffic.longest + layout.draft + block_tokens)
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
    if family.exchange == "gather":
        buffers = family.micro * q.group_tokens * (there + back)
    elif family.phase == "prefill":
        buffers = family.micro * q.rank_tokens * q.copies * (there + back)
    else:
        buffers = exchange_buffer_bytes(
            ranks=q.group, tokens=family.micro * q.rank_tokens, dispatch_bytes=there, combine_bytes=back
        )
    weights, apart = weight_bytes(ledger, family)
    return Footprint(
        weights=weights,
        expert_weights=apart,
        kv=planned * per_token,
        kv_worst=worst * per_token,
        kv_mean=mean * per_token,
        kv_bytes_per_token=cache_bytes(model.attention, family) * layers,
        kv_bytes_per_token_of_die=per_token,
        buffers=buffers,
        workspace=maximum(
            least_workspace,
            family.micro
            * workspace_bytes(
                tokens=q.tokens,
                hidden_size=dims.hidden_size,
                head_width=head_width(model.attention) / layout.tp,
                element_bytes=BF16,
                context=q.cached_tokens if family.phase == "prefill" else 0,
                unfolded_width=unfolded_width(model.attention) / layout.tp,
            ),
        ),
    )
