"""The model: layer structure, keys as in its config.json."""

from typing import Annotated, Literal

from annotated_types import Ge, Le
from pydantic import AliasChoices, Field, model_validator

from perfmodel.specs.base import NonNegativeInt, PositiveInt, Source, Spec
from perfmodel.specs.deployment import LARGEST_VERIFIED


class MlaSpec(Spec):
    """Multi-head latent attention: one compressed cache shared by all heads."""

    kind: Literal["mla"]
    num_attention_heads: PositiveInt
    q_lora_rank: PositiveInt
    kv_lora_rank: PositiveInt
    qk_nope_head_dim: PositiveInt
    qk_rope_head_dim: PositiveInt
    v_head_dim: PositiveInt


class GqaSpec(Spec):
    """Grouped-query attention."""

    kind: Literal["gqa"]
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt
    head_dim: PositiveInt


class ExpertsSpec(Spec):
    """The mixture-of-experts feed-forward."""

    n_routed_experts: PositiveInt = Field(validation_alias=AliasChoices("n_routed_experts", "num_experts"))
    num_experts_per_tok: PositiveInt
    n_shared_experts: NonNegativeInt = 0
    moe_intermediate_size: PositiveInt
    n_group: PositiveInt = 1
    topk_group: PositiveInt = 1

    @model_validator(mode="after")
    def _top_k_within_experts(self) -> "ExpertsSpec":
        if self.num_experts_per_tok > self.n_routed_experts:
            raise ValueError(
                f"num_experts_per_tok {self.num_experts_per_tok} exceeds n_routed_experts {self.n_routed_experts}"
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
    active_parameters: float
    mtp_parameters: float | None = None
    kv_bytes_per_token_bf16: PositiveInt


class ModelSpec(Spec):
    """One model; ``first_k_dense_replace`` layers are dense, the rest are mixtures of experts."""

    name: str
    title: str
    aliases: tuple[str, ...] = ()
    hidden_size: PositiveInt
    num_hidden_layers: PositiveInt
    first_k_dense_replace: NonNegativeInt = 0
    intermediate_size: PositiveInt
    vocab_size: PositiveInt
    max_position_embeddings: PositiveInt
    num_nextn_predict_layers: NonNegativeInt = 0
    attention: Annotated[MlaSpec | GqaSpec, Field(discriminator="kind")]
    experts: ExpertsSpec
    #: draft acceptance tables; the first is the default
    acceptance: tuple[AcceptanceSpec, ...] = ()
    checks: ChecksSpec
    sources: dict[str, Source]

    @model_validator(mode="after")
    def _consistent(self) -> "ModelSpec":
        if self.first_k_dense_replace > self.num_hidden_layers:
            raise ValueError(
                f"first_k_dense_replace {self.first_k_dense_replace} exceeds num_hidden_layers {self.num_hidden_layers}"
            )
        return self
