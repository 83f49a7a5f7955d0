"""Bytes resident on one die: weights with replicas, KV cache, buffers, working space."""

from dataclasses import dataclass

from perfmodel.algebra import maximum, minimum, total
from perfmodel.formulas.memory import exchange_buffer_bytes, workspace_bytes
from perfmodel.formulas.statistics import length_spread, occupancy_bound
from perfmodel.ledger.attention import cache_bytes, cache_bytes_per_die, head_width
from perfmodel.ledger.feedforward import combine_message_bytes, dispatch_message_bytes
from perfmodel.ledger.quantities import quantities
from perfmodel.ledger.records import Block, Dims, Family, Layout, Ledger, Traffic
from perfmodel.ledger.rows import BF16
from perfmodel.specs.model import ModelSpec
from perfmodel.units import Bytes, Count

OCCUPANCY_SIGMAS = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Footprint:
    """Bytes on one die; ``kv`` is mean + 3 sigma, ``kv_worst`` all requests at their longest.

    ``kv_bytes_per_token`` is of the whole model, ``kv_bytes_per_token_of_die`` what one die keeps of
    it: all of a latent cache, its own key-value heads of a grouped one.
    """

    weights: Bytes
    kv: Bytes
    kv_worst: Bytes
    kv_bytes_per_token: Bytes
    kv_bytes_per_token_of_die: Bytes
    buffers: Bytes
    workspace: Bytes

    @property
    def planned(self) -> Bytes:
        """Bytes to plan on, runtime apart."""
        return self.weights + self.kv + self.buffers + self.workspace

    @property
    def worst(self) -> Bytes:
        """Bytes with every request at its longest, runtime apart."""
        return self.weights + self.kv_worst + self.buffers + self.workspace


def part_bytes(ledger: Ledger, name: str) -> Bytes:
    """Weight bytes that one layer's part keeps on a die."""
    return total(op.resident_bytes for op in ledger.parts[name])


def _block_bytes(ledger: Ledger, block: Block) -> Bytes:
    plain = total(part_bytes(ledger, name) for name in (*block.attention, *block.experts))
    if not block.joined:
        return block.layers * plain
    first, second = (part_bytes(ledger, name) for name in block.joined)
    return block.layers * (plain + maximum(first, second))


def weight_bytes(ledger: Ledger) -> Bytes:
    """Weight bytes of the fullest die."""
    return total(_block_bytes(ledger, block) for block in ledger.blocks)


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
) -> Footprint:
    """Return the bytes of one die; each request wastes half a KV block on average."""
    q = quantities(layout, family, traffic, dims)
    layers = cached_layers(model, layout)
    per_token = cache_bytes_per_die(model.attention, family, layout.tp) * layers
    if family.phase == "prefill":
        planned = worst = layout.batch * (traffic.isl + block_tokens)
    else:
        worst = layout.batch * (traffic.isl + traffic.osl + layout.draft + block_tokens)
        bound = occupancy_bound(
            sequences=layout.batch,
            mean=traffic.isl + traffic.osl / 2 + block_tokens / 2,
            spread=length_spread(osl=traffic.osl),
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
            ranks=layout.dies, tokens=family.micro * q.rank_tokens, dispatch_bytes=there, combine_bytes=back
        )
    return Footprint(
        weights=weight_bytes(ledger),
        kv=planned * per_token,
        kv_worst=worst * per_token,
        kv_bytes_per_token=cache_bytes(model.attention, family) * layers,
        kv_bytes_per_token_of_die=per_token,
        buffers=buffers,
        workspace=family.micro
        * workspace_bytes(
            tokens=q.tokens,
            hidden_size=dims.hidden_size,
            head_width=head_width(model.attention) / layout.tp,
            element_bytes=BF16,
        ),
    )
