"""Operators or links measured alone: printed rows, or a public table that a user has in a folder."""

from typing import Annotated, Literal

from annotated_types import Gt
from pydantic import Field, model_validator

from perfmodel.specs.base import Source, Spec


class Target(Spec):
    """Largest error that is called good."""

    worst: Annotated[float, Gt(0)] | None = None
    median: Annotated[float, Gt(0)] | None = None
    p90: Annotated[float, Gt(0)] | None = None

    @model_validator(mode="after")
    def _has_a_limit(self) -> "Target":
        if self.worst is None and self.median is None and self.p90 is None:
            raise ValueError("no limit; allowed: worst, median or p90; add one")
        return self


class MicrobenchmarkSpec(Spec):
    """One set of measurements and the machine and kernels that are to predict it."""

    name: str
    title: str
    source: str
    where: str
    date: str
    system: str
    #: stack, by default the system's own
    stack: str | None = None
    #: kernel sets that come before those of the stack
    kernels: tuple[str, ...] = ()
    #: model whose heads an attention table measures
    model: str | None = None
    #: public tables by file name, or rows here under ``columns``
    files: tuple[str, ...] = ()
    messages: Literal["bytes", "elements"] | None = None
    #: operators taken from the files, by default all
    only: tuple[str, ...] = ()
    #: rows below these sizes are left out
    at_least: dict[str, float] = Field(default_factory=dict)
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str | float, ...], ...] = ()
    target: Target
    #: whether the parameters on file were fitted to these very rows
    fitted: bool
    note: str | None = None
    sources: dict[str, Source]

    @model_validator(mode="after")
    def _rows_or_files(self) -> "MicrobenchmarkSpec":
        if bool(self.files) == bool(self.rows):
            raise ValueError("either files or rows; allowed: exactly one of them")
        for i, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"rows.{i}: {len(row)} values for {len(self.columns)} columns")
        return self
