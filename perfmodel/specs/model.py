"""The model: layer structure, keys as in its config.json."""

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from pydantic import AliasChoices, Field, model_validator

from perfmodel.specs.attention import AttentionSpec, GqaSpec, MlaSpec
from perfmodel.specs.base import NonNegativeInt, PositiveInt, Source, Spec
from perfmodel.specs.deployment import LARGEST_VERIFIED
from perfmodel.specs.shipped import ShippedSpec


class ExpertsSpec(Spec):
    """The mixture-of-experts feed-forward."""

    n_routed_experts: PositiveInt = Field(validation_alias=AliasChoices("n_routed_experts", "num_experts"))
    num_experts_per_tok: PositiveInt
    n_shared_experts: NonNegativeInt = 0
    moe_intermediate_size: PositiveInt
    #: width of a shared expert, where it is not that of a routed one
    shared_intermediate_size: PositiveInt | None = None
    #: whether a gate of its own scales the shared expert
    shared_gate: bool = False
    #: choices of the router that stand for no work
    zero_expert_num: NonNegativeInt = 0
    #: of a token's choices, those that fall on experts with work on average; without it as many as these are of all
    real_experts_per_tok: Annotated[float, Gt(0)] | None = None
    #: width that tokens have on their way to the experts and back, where it is not that of the model
    routed_expert_hidden_size: PositiveInt | None = None
    n_group: PositiveInt = 1
    topk_group: PositiveInt = 1

    @model_validator(mode="after")
    def _top_k_within_experts(self) -> "ExpertsSpec":
        if self.num_experts_per_tok > self.n_routed_experts:
            raise ValueError(
                f"num_experts_per_tok {self.num_experts_per_tok} exceeds n_routed_experts {self.n_routed_experts}"
            )
        if self.real_experts_per_tok is not None and not self.zero_expert_num:
            raise ValueError("real_experts_per_tok needs a zero_expert_num: else all choices have work")
        if self.real_experts_per_tok is not None and self.real_experts_per_tok > self.num_experts_per_tok:
            raise ValueError(
                f"real_experts_per_tok {self.real_experts_per_tok:g} exceeds "
                f"num_experts_per_tok {self.num_experts_per_tok}"
            )
        if self.n_group > self.n_routed_experts:
            raise ValueError(f"n_group {self.n_group} exceeds n_routed_experts {self.n_routed_experts}")
        if self.topk_group > self.n_group:
            raise ValueError(f"topk_group {self.topk_group} exceeds n_group {self.n_group}")
        return self


class AcceptanceSpec(Spec):
    """Expected accepted tokens added by each draft position, from one source."""

    name: str
    positions: tuple[Annotated[float, Ge(0), Le(1)], ...] = Field(min_length=1, max_length=LARGEST_VERIFIED - 1)
    kind: Literal["measured", "assumed"]
    source: str
    note: str | None = None


class ChecksSpec(Spec):
    """Published totals that a test recomputes from the ledger."""

    parameters: float
    active_parameters: float | None = None
    mtp_parameters: float | None = None
    kv_bytes_per_token_bf16: PositiveInt | None = None
    #: printed digits of the totals, as a share of them: how near they must be
    within: Annotated[float, Ge(0), Le(0.1)] = 0.01


FeedForward = Literal["dense", "moe", "moe_beside_dense"]
#: the attention that most layers have, by the name that groups give it
MAIN = "main"


class LayerGroupSpec(Spec):
    """Layers that are alike: how many, which of the model's attentions, which feed-forward.

    ``moe_beside_dense`` has both: a mixture of experts whose exchange runs beside a dense feed-forward.
    """

    count: PositiveInt
    attention: str = MAIN
    feed_forward: FeedForward

    @property
    def has_experts(self) -> bool:
        """Whether its tokens are routed."""
        return self.feed_forward != "dense"

    @property
    def has_dense(self) -> bool:
        """Whether it has a dense feed-forward."""
        return self.feed_forward != "moe"


class DraftLayerSpec(Spec):
    """What a draft layer is made of, where it is not the main attention and experts, if there are any."""

    attention: str = MAIN
    feed_forward: Literal["dense", "moe"] | None = None


@cache
def _dense_before_experts(dense: int, moe: int) -> tuple[LayerGroupSpec, ...]:
    """Return so many dense layers and so many with experts, all with the main attention."""
    both: tuple[tuple[int, FeedForward], ...] = ((dense, "dense"), (moe, "moe"))
    return tuple(LayerGroupSpec(count=count, feed_forward=kind) for count, kind in both if count)


@cache
def _one_layer(attention: str, feed_forward: FeedForward) -> LayerGroupSpec:
    return LayerGroupSpec(count=1, attention=attention, feed_forward=feed_forward)


class ModelSpec(Spec):
    """One model: groups of layers that are alike.

    Without ``layers`` all have the one ``attention``; the first ``first_k_dense_replace`` are dense, the rest are
    mixtures of experts, or dense too where there are no ``experts``.
    """

    name: str
    title: str
    aliases: tuple[str, ...] = ()
    hidden_size: PositiveInt
    num_hidden_layers: PositiveInt
    first_k_dense_replace: NonNegativeInt = 0
    #: width of dense feed-forwards; may be left out where no layer has one
    intermediate_size: PositiveInt | None = None
    vocab_size: PositiveInt
    max_position_embeddings: PositiveInt
    num_nextn_predict_layers: NonNegativeInt = 0
    draft_layer: DraftLayerSpec = Field(default_factory=DraftLayerSpec)
    tie_word_embeddings: bool = False
    #: streams of the residual, mixed before and after each attention and feed-forward
    hc_mult: PositiveInt = 1
    attention: AttentionSpec
    #: further attentions by name, for groups of layers that have another
    attentions: Mapping[str, AttentionSpec] = Field(default_factory=dict)
    layers: tuple[LayerGroupSpec, ...] = ()
    experts: ExpertsSpec | None = None
    #: what its checkpoint is stored in, where that was read
    shipped: ShippedSpec | None = None
    #: draft acceptance tables; the first is the default
    acceptance: tuple[AcceptanceSpec, ...] = ()
    checks: ChecksSpec | None = None
    sources: dict[str, Source] = Field(default_factory=dict)

    @property
    def groups(self) -> tuple[LayerGroupSpec, ...]:
        """Groups of layers, as they are given or as the short form says."""
        if self.layers:
            return self.layers
        dense = self.num_hidden_layers if self.experts is None else self.first_k_dense_replace
        return _dense_before_experts(dense, self.num_hidden_layers - dense)

    @property
    def draft_group(self) -> LayerGroupSpec:
        """Group that a draft layer is like."""
        feed_forward = self.draft_layer.feed_forward or ("dense" if self.experts is None else "moe")
        return _one_layer(self.draft_layer.attention, feed_forward)

    @property
    def moe_layers(self) -> int:
        """Layers with experts."""
        return sum(group.count for group in self.groups if group.has_experts)

    @property
    def n_routed_experts(self) -> int:
        """Routed experts of a layer; 0 where there are none."""
        return 0 if self.experts is None else self.experts.n_routed_experts

    @property
    def n_shared_experts(self) -> int:
        """Shared experts of a layer; 0 where there are none."""
        return 0 if self.experts is None else self.experts.n_shared_experts

    @property
    def reads_all_it_keeps(self) -> bool:
        """Whether no layer chooses, compresses or keeps a state: tables of kernels on file are of such attention."""
        return all(isinstance(one, (MlaSpec, GqaSpec)) and one.indexer is None for one in self.kinds_of_attention)

    @property
    def kinds_of_attention(self) -> tuple[AttentionSpec, ...]:
        """All attentions, the main one first."""
        return (self.attention, *self.attentions.values())

    @property
    def attention_names(self) -> tuple[str, ...]:
        """Words for its kinds of attention, as techniques ask for them."""
        return tuple(dict.fromkeys(one.kind for one in self.kinds_of_attention))

    def attention_called(self, name: str) -> AttentionSpec:
        """Return an attention by the name that groups give it."""
        return self.attention if name == MAIN else self.attentions[name]

    def attention_of(self, group: LayerGroupSpec) -> AttentionSpec:
        """Return the attention of a group."""
        return self.attention_called(group.attention)

    @model_validator(mode="after")
    def _consistent(self) -> "ModelSpec":
        faults = self._faults()
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _faults(self) -> list[str]:
        faults = []
        if self.first_k_dense_replace > self.num_hidden_layers:
            faults.append(
                f"first_k_dense_replace {self.first_k_dense_replace} exceeds num_hidden_layers {self.num_hidden_layers}"
            )
        if MAIN in self.attentions:
            faults.append(f"attentions.{MAIN} is the name of `attention` itself; give it another")
        if self.layers:
            layers = sum(group.count for group in self.layers)
            if layers != self.num_hidden_layers:
                faults.append(f"layers count {layers}, and num_hidden_layers is {self.num_hidden_layers}")
            if self.first_k_dense_replace:
                faults.append("layers say which are dense; leave out first_k_dense_replace")
            known = [MAIN, *self.attentions]
            alike = [(group.attention, group.has_experts) for group in self.layers]
            for attention, routed in dict.fromkeys(pair for pair in alike if alike.count(pair) > 1):
                kind = "with experts" if routed else "without experts"
                faults.append(f"layers name attention {attention!r} {kind} twice; join these groups into one")
            for group in self.layers:
                if group.attention not in known:
                    faults.append(f"layers name attention {group.attention!r}; allowed: {', '.join(known)}")
                if group.has_experts and self.experts is None:
                    faults.append(f"feed_forward {group.feed_forward} needs experts, and there are none")
            if self.experts is not None and not any(group.has_experts for group in self.layers):
                faults.append("experts are given and no layer has them")
            unused = set(self.attentions) - {group.attention for group in (*self.layers, self.draft_group)}
            faults += [f"no layers have attentions.{name}" for name in sorted(unused)]
            if MAIN not in {group.attention for group in self.layers}:
                faults.append("no layers have the attention called main")
        elif set(self.attentions) - {self.draft_layer.attention}:
            faults.append("attentions beside the main one need layers that say which have them")
        faults += self._faults_of_drafts()
        drafts = (self.draft_group,) if self.num_nextn_predict_layers else ()
        if self.intermediate_size is None and any(group.has_dense for group in (*self.groups, *drafts)):
            faults.append("intermediate_size is needed: there are dense feed-forwards")
        return faults

    def _faults_of_drafts(self) -> list[str]:
        faults, known = [], [MAIN, *self.attentions]
        if self.draft_layer.attention not in known:
            faults.append(f"draft_layer names attention {self.draft_layer.attention!r}; allowed: {', '.join(known)}")
        if self.draft_group.has_experts and self.experts is None:
            faults.append("draft_layer.feed_forward moe needs experts, and there are none")
        if self.draft_layer.model_fields_set and not self.num_nextn_predict_layers:
            faults.append("draft_layer is given and num_nextn_predict_layers is 0")
        return faults
