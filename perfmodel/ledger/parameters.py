"""Weights of a model, counted from the rows of its layers."""

from collections.abc import Iterator
from dataclasses import dataclass

from perfmodel.algebra import as_float
from perfmodel.ledger.footprint import cache_of_model, part_bytes
from perfmodel.ledger.records import Family, Layout, Traffic
from perfmodel.ledger.rows import BF16
from perfmodel.ledger.step import build_ledger, dims_of
from perfmodel.specs.model import ModelSpec

#: share of a stated total that the layers may miss it by: totals are printed with two or three digits
LEAST_WITHIN = 0.03
#: parts whose weights are kept whole and used by the part that a token is routed to
ROUTED = "routed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Weights of all layers, those that one token uses, and those of the draft layers beside them.

    Norms and biases are left out, some 0.02 % of a total.
    """

    total: float
    active: float
    draft: float


def parameters_of(model: ModelSpec) -> Parameters:
    """Return the weights of a model: those that one die would keep in BF16 if it had all, over two bytes."""
    family = Family(phase="prefill", own_shared_ranks=False, overlap="none", exchange="gather", precision="bf16")
    draft = model.num_nextn_predict_layers
    layout = Layout(dies=1, tp=1, shared_ranks=0, redundant=0, batch=1, draft=draft, attention_cores=0)
    traffic = Traffic(isl=1, osl=1, skew=0.0, residual=0.0, chance=0.0, context_spread=0.0)
    dims = dims_of(model)
    ledger = build_ledger(layout, family, traffic, model, dims)
    used = as_float(dims.num_experts_per_tok / dims.n_routed_experts) if dims.routes else 0.0

    def kept(*, drafts: bool, routed: float) -> Iterator[float]:
        for block in ledger.blocks:
            if block.name.startswith("draft") == drafts:
                for part in (*block.attention, *block.experts, *block.beside):
                    share = routed if part == ROUTED else 1.0
                    yield share * as_float(block.layers) * as_float(part_bytes(ledger, part)) / BF16

    return Parameters(
        total=sum(kept(drafts=False, routed=1.0)),
        active=sum(kept(drafts=False, routed=used)),
        draft=sum(kept(drafts=True, routed=1.0)),
    )


def cache_bytes_per_token(model: ModelSpec) -> float:
    """Return the bytes in BF16 that a sequence's cache grows by with each token, over all layers and heads."""
    family = Family(phase="decode", own_shared_ranks=False, overlap="none", exchange="gather", kv_dtype="bf16")
    return as_float(cache_of_model(model, family, tp=1, draft=0).per_token)
