"""What a checkpoint is stored in, as its files say: told beside a prediction, whose precision is chosen apart."""

from typing import Literal

from perfmodel.specs.base import Spec

Stored = Literal["bf16", "fp8", "int8", "int4", "mxfp8", "mxfp4", "nvfp4"]


class ShippedSpec(Spec):
    """Precision of a checkpoint's parts."""

    #: weights of routed experts, and of all else that is not left as it was
    experts: Stored
    others: Stored
    activations: Stored
    cache: Stored = "bf16"
    #: where it was read: a key of the config, or a file beside it
    read_from: str
