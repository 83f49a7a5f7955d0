"""Options and readers that several commands share."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import typer

from perfmodel.errors import UsageError
from perfmodel.planning import inputs


class Format(StrEnum):
    """Output formats."""

    table = "table"
    json = "json"
    csv = "csv"
    markdown = "markdown"


class Language(StrEnum):
    """Languages of results."""

    en = "en"
    zh = "zh"


class KvDtype(StrEnum):
    """Precision of the KV cache; those of eight bits leave the rope part in BF16."""

    bf16 = "bf16"
    int8 = "int8"
    fp8 = "fp8"


class CachePrecision(StrEnum):
    """Precision of the KV cache, or the better of those the stack has."""

    bf16 = "bf16"
    int8 = "int8"
    fp8 = "fp8"
    any = "any"


class Overlap(StrEnum):
    """How two micro-batches overlap."""

    none = "none"
    link = "link"
    cores = "cores"
    stages = "stages"


class Exchange(StrEnum):
    """How tokens reach experts."""

    dispatch = "dispatch"
    gather = "gather"


class Reduction(StrEnum):
    """How tensor-parallel attention sums its parts."""

    all_reduce = "all_reduce"
    scatter_gather = "scatter_gather"
    all_to_all = "all_to_all"
    sp_tp_sp = "sp_tp_sp"


@dataclass(frozen=True, slots=True)
class Completed:
    """What completes a name on file of some kinds; file names are listed, no file is read."""

    kinds: tuple[str, ...]

    def __call__(self, incomplete: str) -> list[str]:
        from perfmodel.files.folders import names

        return [name for kind in self.kinds for name in names(kind) if name.startswith(incomplete)]


def names_of(*kinds: str) -> Completed:
    """Return what completes a name on file of these kinds."""
    return Completed(kinds)


def tokens(text: str | int) -> int:
    """Return a length as it is typed, like 4096 or 4k; what is a whole number at all is judged with the rest."""
    from perfmodel.units import read_tokens

    try:
        return int(text)
    except ValueError:
        pass
    try:
        return read_tokens(str(text))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


INPUT = "Input tokens of a request, like 4096 or 4k."


def length(name: str, text: str) -> Any:
    """Return an option that takes a length."""
    return typer.Option(name, parser=tokens, metavar="TOKENS", help=text, show_default=False)


FormatOption = Annotated[Format, typer.Option("--format", help="Output format.")]
SystemOption = Annotated[
    str | None,
    typer.Option(
        "--on", metavar="SYSTEM", help="System; see 'moeplan list systems'.", autocompletion=names_of("systems")
    ),
]
ServingOption = Annotated[
    str | None,
    typer.Option(
        "--serving",
        metavar="disaggregated|mixed|any",
        help="Pools apart, mixed on the same dies in turn, or the better; default: apart, mixed where those have none.",
    ),
]
CacheOption = Annotated[
    CachePrecision, typer.Option("--kv", help="KV cache precision; any: the better of those the stack has.")
]
StackOption = Annotated[
    str | None,
    typer.Option(
        "--stack",
        help="Software stack; 'ideal' has all efficiencies 1. Default: the system's.",
        autocompletion=names_of("stacks"),
    ),
]
EngineOption = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="NAME[==VERSION]",
        help="Engine that schedules, like sglang; without --stack the system's newest that has it, its own first. "
        "Default: the stack's first.",
    ),
]
KernelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--kernels",
        help="Kernel set that comes before the stack's; name or file; may be repeated.",
        autocompletion=names_of("kernels"),
    ),
]
HeadsOption = Annotated[
    str | None,
    typer.Option("--model", help="Model whose heads an attention table measures.", autocompletion=names_of("models")),
]
EpOption = Annotated[int | None, typer.Option("--ep", help="Dies of the group of a profiled dispatch or combine.")]


class Messages(StrEnum):
    """What ``message_size`` of a ``*_perf.csv`` counts."""

    bytes = "bytes"
    elements = "elements"


MessagesOption = Annotated[
    Messages | None, typer.Option("--messages", help="What message_size counts: bytes, or 2-byte elements.")
]
ColdOption = Annotated[
    bool,
    typer.Option("--cold", help="The calls come from serving: no weights were left in L2 from the call before."),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        "--precision",
        metavar="NAME",
        help="w8a8, bf16, w4a8, w4a16, fp8, mxfp8, mxfp4, nvfp4, w4a16-experts or mxfp4-experts, as the die has units "
        "for. Default: w8a8, or what "
        "--with sets.",
    ),
]
AcceptanceOption = Annotated[
    str | None,
    typer.Option(
        "--acceptance",
        metavar="NAME|LIST",
        help="Draft acceptance: a name of the model's table, or accepted tokens per draft position like '0.9,0.36'.",
    ),
]


WithOption = Annotated[
    list[str] | None,
    typer.Option(
        "--with",
        metavar="TECHNIQUE=SETTING",
        help="Set a technique, like mtp=2 or c8-cache=on; may be repeated; see 'moeplan list techniques'.",
        autocompletion=names_of("techniques"),
    ),
]
SiteOption = Annotated[
    list[str] | None,
    typer.Option(
        "--site",
        metavar="ROW",
        help="A row measured where it is to run, file or name: predict that site; may be repeated.",
        autocompletion=names_of("evidence", "deployments"),
    ),
]
ShowOption = Annotated[
    list[str] | None,
    typer.Option(
        "--show",
        metavar="PARTS",
        help="Sections to show, like plan,memory; all: everything; an unknown one lists them. Default: the answer.",
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace a file that is there already.")]
MemoryShareOption = Annotated[
    float | None,
    typer.Option(
        "--memory-share",
        metavar="SHARE",
        help="Share of the memory a framework sees that the engine takes (gpu_memory_utilization); default: the "
        "stack's.",
    ),
]
MaxContextOption = Annotated[
    str | None,
    typer.Option(
        "--max-context",
        metavar="N",
        help="Tokens of context the model takes at most, like 131072, 128k or 1M, as with rope scaling; default: what "
        "its file says.",
    ),
]


def _to_set(more: str = "") -> Any:
    """Return the option that sets numbers of a machine, and ``more``."""
    text = f"Set a number of the machine, like hbm=+50%, ub=400GB/s or overhead.request_path=5ms{more}"
    return typer.Option("--set", metavar="KEY=VALUE", help=f"{text}; several with commas; may be repeated.")


SetOption = Annotated[list[str] | None, _to_set(", or any other key of the layout, like cp=2")]
SetNumberOption = Annotated[list[str] | None, _to_set()]


def context_of(
    model: str | None,
    ep: int | None,
    messages: Messages | None,
    only: Sequence[str] = (),
    at_least: Sequence[str] = (),
) -> Any:
    """Return what a table of measurements does not say itself."""
    from perfmodel.files import catalog
    from perfmodel.measured.reading import Context
    from perfmodel.measured.shapes import OPERATORS

    columns = sorted({c for operator in OPERATORS.values() for c in operator.columns})
    least: dict[str, float] = {}
    for text in at_least:
        column, _, value = text.partition("=")
        inputs.known(column, columns, "--at-least")
        try:
            least[column] = float(value)
        except ValueError:
            raise UsageError(f"--at-least: {text!r}; allowed: a column and a number, like tokens=16") from None
    return Context(
        attention=catalog.load_model(model).spec.attention if model else None,
        ep=inputs.positive(ep, "--ep"),
        messages=messages.value if messages else None,
        only=tuple(only),
        at_least=least,
    )


def show(document: Any, format_: Format, remarks: list[str], parts: Sequence[str] | None = None) -> None:
    """Write the document, or the parts asked for, to stdout and remarks to stderr."""
    from perfmodel.report.terminal import Terminal

    words = [word.strip() for text in parts or () for word in text.split(",")]
    terminal = Terminal(format=format_.value, parts=tuple(filter(None, words)))
    for text in remarks:
        terminal.remark(text)
    terminal.result(document)


def remark(text: str) -> None:
    """Write a remark to stderr."""
    from perfmodel.report.terminal import Terminal

    Terminal().remark(text)


def typed(context: typer.Context, name: str, *sources: str) -> bool:
    """Return whether the user gave an option or argument, by one of these sources where any are named."""
    source = context.get_parameter_source(name)
    return source is not None and source.name in (sources or ("COMMANDLINE", "ENVIRONMENT"))
