"""The precisions of a run: what weights, activations and caches are stored in, and what unit of a die multiplies them.

Bytes are counted, not measured: bits of a number and the scales beside it.  A precision more is one entry of
``PRECISIONS``, a cache more one of ``CACHES``; what a die has units for stands in its chip's file.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

#: units of a die's cube by the keys of a chip that give their rates
CubeUnit = Literal["bf16", "int8", "fp8", "fp4"]
BYTE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How numbers are stored: bits of one, and what scales of blocks add."""

    name: str
    bits: int
    #: numbers that share a scale, and bytes of it; none where scales are left out: one a channel or a token
    block: int = 1
    scale_bytes: int = 0
    #: whether the unit itself multiplies by scales of its blocks, which a chip then has to say
    scaled_in_unit: bool = False

    @property
    def bytes(self) -> int | float:
        """Bytes of one number with its part of a scale; a whole number where it is one.

        >>> FORMS["bf16"].bytes, FORMS["int4"].bytes, FORMS["mxfp4"].bytes
        (2, 0.5, 0.53125)
        """
        if self.bits % BYTE == 0 and not self.scale_bytes:
            return self.bits // BYTE
        return self.bits / BYTE + self.scale_bytes / self.block


FORMS: dict[str, Form] = {
    one.name: one
    for one in (
        Form(name="bf16", bits=16),
        Form(name="int8", bits=8),
        # an FP32 scale of 128 x 128 weights: quantization_config of DeepSeek-V3, weight_block_size [128, 128]
        Form(name="fp8", bits=8, block=128 * 128, scale_bytes=4),
        Form(name="int4", bits=4),
        # a 16-bit scale of 32 weights: quantization_config of Kimi-K2.5, group_size 32
        Form(name="int4_of_groups", bits=4, block=32, scale_bytes=2),
        # a byte of scale for 32 numbers: OCP Microscaling formats 1.0, table 1
        Form(name="mxfp8", bits=8, block=32, scale_bytes=1, scaled_in_unit=True),
        Form(name="mxfp4", bits=4, block=32, scale_bytes=1, scaled_in_unit=True),
        # a byte of scale for 16 numbers: NVFP4; the scale of a whole tensor is left out
        Form(name="nvfp4", bits=4, block=16, scale_bytes=1, scaled_in_unit=True),
    )
}

#: of an activation in FP8: scales of 1 x 128 are left out, as those of INT8 tokens are, and errs low by 3 %
_FP8_TOKEN = Form(name="fp8", bits=8)
SCALE_SLOT_BYTES = 512  # a dispatched token in 8 bits carries its scale in a slot of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionForm:
    """One precision, component by component; router, embedding and head are in BF16 in all of them."""

    name: str
    title: str
    #: weights of attention, dense and shared feed-forward; of routed experts; and what comes into their products
    weights: Form
    experts: Form
    activations: Form
    #: unit of the cube that multiplies
    unit: CubeUnit
    #: bytes beside the numbers of a token on its way to an expert
    message_slot: int = 0
    #: precision and expert_weights that it is a name of: ``None`` where it is a precision of its own
    stands_for: tuple[str, str] | None = None

    @property
    def widens_weights(self) -> bool:
        """Whether weights of linear layers are widened on their way to the unit."""
        return self.weights.bits < self.activations.bits

    @property
    def widens_experts(self) -> bool:
        """Whether weights of routed experts are widened on their way to the unit."""
        return self.experts.bits < self.activations.bits

    @property
    def quantises(self) -> bool:
        """Whether activations are made narrower before a product."""
        return self.activations.name != "bf16"

    @property
    def scaled_forms(self) -> tuple[str, ...]:
        """Forms whose scales its unit has to take; those of weights that are widened before are taken off there.

        >>> PRECISIONS["mxfp4"].scaled_forms, PRECISIONS["mxfp4-experts"].scaled_forms
        (('mxfp4',), ())
        """
        weights = () if self.widens_weights else (self.weights,)
        experts = () if self.widens_experts else (self.experts,)
        forms = (*weights, *experts, self.activations)
        return tuple(dict.fromkeys(form.name for form in forms if form.scaled_in_unit))


def _of(name: str, title: str, form: Form, unit: CubeUnit, **more: Any) -> PrecisionForm:
    """Return a precision in which all is stored alike."""
    return PrecisionForm(
        name=name, title=title, **{"weights": form, "experts": form, "activations": form, "unit": unit, **more}
    )


#: every precision by name, the one that runs have unless they say another first
PRECISIONS: dict[str, PrecisionForm] = {
    one.name: one
    for one in (
        _of("w8a8", "INT8 weights and activations", FORMS["int8"], "int8", message_slot=SCALE_SLOT_BYTES),
        _of("bf16", "BF16 weights and activations", FORMS["bf16"], "bf16"),
        _of(
            "w4a8",
            "experts in INT4, widened to INT8; all else as w8a8",
            FORMS["int8"],
            "int8",
            experts=FORMS["int4"],
            message_slot=SCALE_SLOT_BYTES,
            stands_for=("w8a8", "int4"),
        ),
        _of("w4a16", "INT4 weights, widened to BF16", FORMS["int4_of_groups"], "bf16", activations=FORMS["bf16"]),
        # messages keep the slot of 512 bytes that links were measured with; the scales of 7,168 values are 224
        _of(
            "fp8",
            "FP8 in blocks of 128",
            FORMS["fp8"],
            "fp8",
            activations=_FP8_TOKEN,
            message_slot=SCALE_SLOT_BYTES,
        ),
        _of("mxfp8", "FP8 in blocks of 32", FORMS["mxfp8"], "fp8"),
        _of("mxfp4", "FP4 in blocks of 32, weights and activations", FORMS["mxfp4"], "fp4"),
        _of("nvfp4", "FP4 in blocks of 16, weights and activations", FORMS["nvfp4"], "fp4"),
        # Kimi-K2-Thinking and K2.5 as they are stored: attention, dense and shared feed-forward are on the ignore list
        _of(
            "w4a16-experts",
            "experts in INT4, widened to BF16; all else in BF16",
            FORMS["bf16"],
            "bf16",
            experts=FORMS["int4_of_groups"],
        ),
        # gpt-oss and Kimi-K3 as they are stored
        _of(
            "mxfp4-experts",
            "experts in FP4 in blocks of 32, widened to BF16; all else in BF16",
            FORMS["bf16"],
            "bf16",
            experts=FORMS["mxfp4"],
        ),
    )
}
USUAL = next(iter(PRECISIONS))
#: precision and expert_weights -> what it is a run of
_NAMED = {one.stands_for: one for one in PRECISIONS.values() if one.stands_for is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheForm:
    """How a cache is stored: bytes of a number, and of scales; the rope part of a latent stays in BF16."""

    name: str
    bytes: int
    #: bytes of scales a number of a latent, and of a whole entry that stands for several tokens
    latent_scale: float = 0
    entry_scales: int = 0
    #: unit of the cube that a die needs to have to work with it
    unit: CubeUnit = "bf16"
    #: unit that scores index keys, which queries meet as they are stored
    index_unit: CubeUnit = "bf16"


CACHES: dict[str, CacheForm] = {
    one.name: one
    for one in (
        CacheForm(name="bf16", bytes=2),
        # one scale a token, left out
        CacheForm(name="int8", bytes=1, index_unit="int8"),
        # FlashMLA: 512 FP8, 4 FP32 scales, 64 BF16: 656 bytes; DeepSeek-V4: 448 FP8, 64 BF16, 8 bytes of scales: 584
        CacheForm(name="fp8", bytes=1, latent_scale=4 / 128, entry_scales=8, unit="fp8", index_unit="fp8"),
    )
}


def form_of(precision: str, expert_weights: str = "int8") -> PrecisionForm:
    """Return what a run's precision and expert weights say of each component.

    Experts in INT4 of a precision that has no name for it are counted too; whoever runs it is refused elsewhere.

    >>> form_of("w8a8", "int4").name, form_of("bf16").name, form_of("bf16", "int4").experts.name
    ('w4a8', 'bf16', 'int4')
    """
    plain = PRECISIONS[precision]
    if expert_weights == "int8":
        return plain
    return _NAMED.get((precision, expert_weights)) or replace(plain, experts=FORMS[expert_weights])


def stands_for(name: Any) -> bool:
    """Return whether a word is a name of two keys of a run."""
    return isinstance(name, str) and name in PRECISIONS and PRECISIONS[name].stands_for is not None


def keys_of(name: str) -> dict[str, str]:
    """Return a precision as the keys of a run: techniques set the same.

    >>> keys_of("w4a8"), keys_of("fp8")
    ({'precision': 'w8a8', 'expert_weights': 'int4'}, {'precision': 'fp8', 'expert_weights': 'int8'})
    """
    precision, experts = PRECISIONS[name].stands_for or (name, "int8")
    return {"precision": precision, "expert_weights": experts}


def _one_of(known: Iterable[str]) -> Callable[[str], str]:
    """Return what refuses a text that is no name of a table, in the way of a list of words."""

    def check(name: str) -> str:
        if name not in known:
            *others, last = map(repr, known)
            expected = f"{', '.join(others)} or {last}" if others else last
            raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": expected})
        return name

    return check


Precision = Annotated[
    str, AfterValidator(_one_of(PRECISIONS)), WithJsonSchema({"type": "string", "enum": list(PRECISIONS)})
]
KvDtype = Annotated[str, AfterValidator(_one_of(CACHES)), WithJsonSchema({"type": "string", "enum": list(CACHES)})]
#: a cache, or the better of those that a stack has
CacheChoice = Annotated[
    str, AfterValidator(_one_of([*CACHES, "any"])), WithJsonSchema({"type": "string", "enum": [*CACHES, "any"]})
]
#: of routed experts: as the precision has them, or narrower
ExpertWeights = Literal["int8", "int4"]
#: a form whose unit takes the scales of its blocks
BlockForm = Annotated[str, AfterValidator(_one_of([form.name for form in FORMS.values() if form.scaled_in_unit]))]
