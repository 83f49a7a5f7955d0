"""A technique: what it changes, where it applies, and what was published for it."""

import re
from typing import Annotated, Any, Literal, cast

from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator

from perfmodel.errors import did_you_mean
from perfmodel.specs.base import NonNegativeInt, Source, Spec
from perfmodel.specs.conditions import Service
from perfmodel.specs.deployment import LayoutShape, Phase
from perfmodel.specs.kernels import OPERATOR_CLASSES, Link
from perfmodel.specs.machine import StackSpec, TermsSpec


class Setting(Spec):
    """What one setting of a technique fixes; what it does not name stays as it is.

    ``layout`` names keys of a layout, ``service`` those all pools share (precisions), ``stack`` and ``terms``
    dotted keys of the machine's files, ``kernels`` the kernel set that runs an operator class.
    """

    layout: dict[str, Any] = Field(default_factory=dict)
    service: dict[str, Any] = Field(default_factory=dict)
    stack: dict[str, Any] = Field(default_factory=dict)
    terms: dict[str, Any] = Field(default_factory=dict)
    kernels: dict[str, str] = Field(default_factory=dict)
    #: whether it is another way of being without the technique
    plain: bool = False
    #: whether it is what could be gained at most and nothing that can be set up
    bound: bool = False
    note: str | None = None

    @property
    def on_machine(self) -> bool:
        """Whether it changes what a machine holds, and not a layout or the precisions alone."""
        return bool(self.stack or self.terms or self.kernels)

    @field_validator("kernels")
    @classmethod
    def _classes_known(cls, values: dict[str, str]) -> dict[str, str]:
        for name in values:
            if name not in OPERATOR_CLASSES:
                raise ValueError(f"{name!r} is no operator class{did_you_mean(name, list(OPERATOR_CLASSES))}")
        return values

    @field_validator("stack")
    @classmethod
    def _read_stack(cls, values: dict[str, Any]) -> dict[str, Any]:
        return _read_all(StackSpec, values)

    @field_validator("terms")
    @classmethod
    def _read_terms(cls, values: dict[str, Any]) -> dict[str, Any]:
        return _read_all(TermsSpec, values)

    @field_validator("layout")
    @classmethod
    def _read_layout(cls, values: dict[str, Any]) -> dict[str, Any]:
        return _read_all(LayoutShape, values)

    @field_validator("service")
    @classmethod
    def _read_service(cls, values: dict[str, Any]) -> dict[str, Any]:
        return _read_all(Service, values)


def _read_all(spec: type[Spec], values: dict[str, Any]) -> dict[str, Any]:
    """Return values of dotted keys of a spec as the spec would read them, units included."""
    return {path: _read(spec, path, value) for path, value in values.items()}


#: values of a layout that follow from its size: a share of the dies, or slots that fill every expert rank
SHARE = re.compile(r"([1-9]\d*)/([1-9]\d*) of dies")
SLOTS = ("fewest slots", "one more slot")
EIGHT = 8  # dies by which shares of an instance are rounded


def share_of_dies(text: str, dies: int) -> int:
    """Return a share of the dies such as "3/8 of dies", in whole eights where there is one.

    >>> share_of_dies("1/9 of dies", 288)
    32
    """
    found = SHARE.fullmatch(text)
    assert found is not None
    exact = dies * int(found[1]) / int(found[2])
    return max(1, round(exact / EIGHT) * EIGHT if exact >= EIGHT else round(exact))


def replicas(ranks: int, experts: int, more: int) -> int:
    """Return the replicas that fill every expert rank with as few slots as hold all experts, and ``more`` slots.

    >>> replicas(288, 256, 0)
    32
    """
    return (-(-experts // ranks) + more) * ranks - experts


def _read(spec: type[Spec], path: str, value: Any) -> Any:
    head, _, rest = path.partition(".")
    if spec is LayoutShape and isinstance(value, str) and SHARE.fullmatch(value):
        if path not in ("shared_ranks", "expert_dies"):
            raise ValueError(f"{path}: a share of the dies; allowed for shared_ranks and expert_dies")
        return value
    if spec is LayoutShape and value in SLOTS and path == "redundant":
        return value
    if head not in spec.model_fields:
        raise ValueError(f"unknown key {head!r}{did_you_mean(head, list(spec.model_fields))}")
    info = spec.model_fields[head]
    if rest:
        return _read(cast(type[Spec], info.annotation), rest, value)
    annotation: Any = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
    try:
        return TypeAdapter(annotation).validate_python(value)
    except ValidationError as error:
        raise ValueError(f"{path}: found {value!r}; {error.errors()[0]['msg']}") from None


class Applies(Spec):
    """Where a technique can act at all; what is left open does not matter."""

    phases: tuple[Phase, ...] = ("decode", "prefill")
    attention: tuple[Literal["mla", "gqa"], ...] = ("mla", "gqa")
    #: kinds of link inside a node, one of which the system must have
    links: tuple[Link, ...] = ()
    drafts: bool = False
    shared_expert: bool = False
    #: keys of the layout, and the values under which it applies
    layout: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    tp_over: NonNegativeInt = 0
    #: why, for the reader who is refused, and who says so
    rule: str | None = None
    source: str | None = None

    @field_validator("layout")
    @classmethod
    def _read_layout(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {key: tuple(_read(LayoutShape, key, one) for one in allowed) for key, allowed in values.items()}


class Gain(Spec):
    """A published effect: one quantity with the technique in one setting over that in another.

    Both sides have the conditions of ``base``, a row of evidence, with ``change`` on both and
    ``off`` or ``on`` beside the setting on either.  ``value`` is the relative change, or with a unit
    the difference.
    """

    printed: str
    source: str
    where: str | None = None
    base: str
    change: dict[str, Any] = Field(default_factory=dict)
    off: str
    on: str
    #: further techniques set on both sides
    beside: dict[str, str] = Field(default_factory=dict)
    quantity: str
    value: float
    unit: Literal["1", "s", "B"] = "1"
    #: whether the size counts; a claim without conditions, or what a number of the technique was read off, does not
    scored: bool = True
    #: what stands in for conditions that are not stated or cannot be said
    stands_in: str | None = None
    #: why the prediction lies off
    explained: str | None = None


class TechniqueSpec(Spec):
    """One technique of the catalogue."""

    name: str
    title: str
    aliases: tuple[str, ...] = ()
    #: part of the model it acts on, in a few words
    acts_on: str
    applies: Applies = Applies()
    #: in order from without to with
    settings: dict[str, Setting] = Field(min_length=2)
    #: whether a planner may choose it freely; else the software stack decides
    free: bool = False
    #: whether requests decide it
    traffic: bool = False
    #: published effect in words, for what has no numbers that can be predicted here
    published: str | None = None
    #: source that names the technique
    named_by: str | None = None
    gains: tuple[Gain, ...] = ()
    #: how to see on a running system whether it is on
    check: str | None = None
    note: str | None = None
    sources: dict[str, Source]

    @model_validator(mode="after")
    def _gains_name_settings(self) -> "TechniqueSpec":
        for gain in self.gains:
            for setting in (gain.off, gain.on):
                if setting not in self.settings:
                    raise ValueError(f"gains: setting {setting!r}; allowed: {', '.join(self.settings)}")
        return self
