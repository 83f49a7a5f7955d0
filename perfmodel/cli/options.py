"""Options and readers that several commands share."""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perfmodel.errors import UsageError

if TYPE_CHECKING:
    from perfmodel.rates import Rates
    from perfmodel.serving import Case


class Format(StrEnum):
    """Output formats."""

    table = "table"
    json = "json"
    csv = "csv"
    markdown = "markdown"


class KvDtype(StrEnum):
    """Precision of the KV cache; INT8 leaves the rope part in BF16."""

    bf16 = "bf16"
    int8 = "int8"


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


def names_of(*kinds: str) -> Callable[[str], list[str]]:
    """Return what completes a name on file of these kinds; file names are listed, no file is read."""

    def complete(incomplete: str) -> list[str]:
        from perfmodel.folders import names

        return [name for kind in kinds for name in names(kind) if name.startswith(incomplete)]

    return complete


FormatOption = Annotated[Format, typer.Option("--format", help="Output format.")]
SystemOption = Annotated[
    str | None,
    typer.Option(
        "--on", metavar="SYSTEM", help="System; see 'moeplan list systems'.", autocompletion=names_of("systems")
    ),
]
StackOption = Annotated[
    str | None,
    typer.Option(
        "--stack",
        help="Software stack; 'ideal' has all efficiencies 1. Default: the system's.",
        autocompletion=names_of("stacks"),
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
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set any other key of the layout, like cp=2; may be repeated."),
]


def settings(words: Sequence[str] | None) -> dict[str, str]:
    """Read 'technique=setting' words; a technique alone is 'on'."""
    from perfmodel import catalog

    chosen = {}
    for word in words or ():
        name, _, setting = word.partition("=")
        technique = catalog.technique_named(name)
        technique.setting(setting or "on")
        chosen[technique.spec.name] = setting or "on"
    return chosen


def refuse_conflicts(chosen: Mapping[str, str]) -> None:
    """Refuse two techniques that set one key of a layout to different values."""
    from perfmodel import catalog

    held: dict[str, tuple[str, Any]] = {}
    for name, setting in chosen.items():
        for key, value in catalog.technique_named(name).setting(setting).layout.items():
            other, before = held.get(key, (name, value))
            if before != value:
                raise UsageError(
                    f"--with {other}={chosen[other]} sets {key} to {before!r}, --with {name}={setting} to {value!r}; "
                    "allowed: one of them; drop the other"
                )
            held[key] = (name, value)


def layout_keys(words: Sequence[str] | None) -> dict[str, Any]:
    """Read 'key=value' words of a layout; values are checked where the layout is made."""
    from perfmodel.specs.deployment import LayoutShape

    values: dict[str, Any] = {}
    for word in words or ():
        key, equals, value = word.partition("=")
        known(key, sorted(LayoutShape.model_fields), "--set")
        if not equals:
            raise UsageError(f"--set: {word!r}; allowed: a key and a value, like {key}=1")
        values[key] = word_or_number(value)
    return values


def word_or_number(text: str) -> Any:
    """Return a value as a file would have it: a number or truth where the text is one, else the text."""
    import json

    try:
        return json.loads(text)
    except ValueError:
        return text


def quantity(text: str | None, unit: str, option: str) -> float | None:
    """Read a quantity such as '50ms'; raise ``UsageError`` naming the option."""
    from perfmodel.units import Unit

    if text is None:
        return None
    try:
        value = Unit(unit).read(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None
    if value <= 0:
        raise UsageError(f"{option}: {text!r}; allowed: more than zero")
    return value


def positive(value: int | None, option: str) -> int | None:
    """Refuse zero and negative counts."""
    if value is not None and value <= 0:
        raise UsageError(f"{option}: {value}; allowed: 1 or more")
    return value


def known(word: str, words: list[str], option: str) -> None:
    """Refuse a word that is not among those known."""
    from perfmodel.errors import did_you_mean

    if word not in words:
        raise UsageError(f"{option}: {word!r} is unknown{did_you_mean(word, words)}")


def context_of(
    model: str | None,
    ep: int | None,
    messages: Messages | None,
    only: Sequence[str] = (),
    at_least: Sequence[str] = (),
) -> Any:
    """Return what a table of measurements does not say itself."""
    from perfmodel import catalog
    from perfmodel.measured.readers import Context
    from perfmodel.measured.shapes import OPERATORS

    columns = sorted({c for operator in OPERATORS.values() for c in operator.columns})
    least: dict[str, float] = {}
    for text in at_least:
        column, _, value = text.partition("=")
        known(column, columns, "--at-least")
        try:
            least[column] = float(value)
        except ValueError:
            raise UsageError(f"--at-least: {text!r}; allowed: a column and a number, like tokens=16") from None
    return Context(
        attention=catalog.load_model(model).spec.attention if model else None,
        ep=positive(ep, "--ep"),
        messages=messages.value if messages else None,
        only=tuple(only),
        at_least=least,
    )


def read_acceptance(text: str | None, model: Any) -> tuple[tuple[float, ...], str]:
    """Return accepted tokens per draft position and where they come from."""
    from perfmodel.errors import did_you_mean

    tables = {table.name: table for table in model.acceptance}
    if text is None:
        if not tables:
            return (), "no draft layer"
        first = model.acceptance[0]
        return tuple(first.positions), f"{first.name} ({first.kind}, {first.source})"
    if text in tables:
        table = tables[text]
        return tuple(table.positions), f"{table.name} ({table.kind}, {table.source})"
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"--acceptance: {text!r} is neither a list like '0.9,0.36' nor a known name"
            f"{did_you_mean(text, list(tables))}"
        ) from None
    if any(not 0 <= v <= 1 for v in values) or list(values) != sorted(values, reverse=True):
        raise UsageError(f"--acceptance: {text!r}; allowed: values from 0 to 1 that do not increase")
    if not model.num_nextn_predict_layers:
        raise UsageError(f"--acceptance: {model.name} has no draft (MTP) layer; drop the option")
    return values, "given on the command line"


def case_of(
    model: Any,
    rates: "Rates",
    isl: int,
    osl: int,
    acceptance: tuple[float, ...],
    service: Mapping[str, Any] | None = None,
) -> "Case":
    """Return what stays fixed while layouts vary, after checking the lengths."""
    from perfmodel.serving import Case

    positive(isl, "--isl")
    positive(osl, "--osl")
    if isl + osl > model.max_position_embeddings:
        raise UsageError(
            f"--isl + --osl: {isl + osl} tokens; allowed: at most {model.max_position_embeddings} for {model.name}"
        )
    given = service or {}
    return Case(
        model=model,
        rates=rates,
        isl=isl,
        osl=osl,
        acceptance=acceptance,
        even=given.get("balanced", False),
        prefix_hit=given.get("prefix_hit", 0.0),
        isl_spread=given.get("isl_spread", 0.0),
    )


def show(document: Any, format_: Format, remarks: list[str]) -> None:
    """Write the document to stdout and remarks to stderr."""
    from perfmodel.report.terminal import Terminal

    terminal = Terminal(format=format_.value)
    for text in remarks:
        terminal.remark(text)
    terminal.result(document)


def typed(context: typer.Context, name: str) -> bool:
    """Return whether the user gave an option or argument."""
    source = context.get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")
