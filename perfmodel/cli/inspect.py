"""`moeplan list` and `moeplan show`: the data behind every number, with sources."""

from typing import Annotated, Any

import typer

from perfmodel.cli import options
from perfmodel.errors import UsageError, did_you_mean
from perfmodel.planning import inputs

KINDS = [
    "models",
    "systems",
    "chips",
    "stacks",
    "terms",
    "kernels",
    "techniques",
    "evidence",
    "microbenchmarks",
    "deployments",
    "peers",
]


def _kind(word: str) -> str:
    singular = {kind.rstrip("s"): kind for kind in KINDS}
    kind = singular.get(word, word)
    if kind not in KINDS:
        raise UsageError(f"{word!r} is not a kind of data{did_you_mean(word, KINDS)}")
    return kind


def list_command(
    kind: Annotated[
        str,
        typer.Argument(
            help=f"{', '.join(KINDS[:-1])} or {KINDS[-1]}.",
            autocompletion=lambda incomplete: [kind for kind in KINDS if kind.startswith(incomplete)],
        ),
    ] = "",
    format_: options.FormatOption = options.Format.table,
) -> None:
    """List what is on file.

    Example: moeplan list systems
    """
    from perfmodel.files import catalog, folders
    from perfmodel.report.table import Column, Document, Table

    if kind and _kind(kind) == "techniques":
        from perfmodel.report.gains import catalogue_table

        specs = [one.spec for one in catalog.load_techniques().values()]
        options.show(
            Document(
                schema="moeplan.list/1",
                title="On file: techniques",
                tables=(catalogue_table(specs),),
                facts={"count": len(specs)},
                notes=(
                    "set one with --with NAME=SETTING; see what each is worth with: moeplan what-if",
                    *(f"yours: {name}" for name in folders.own_names("techniques")),
                ),
            ),
            format_,
            [],
        )
        return
    rows = []
    yours = {each: folders.own_names(each) for each in KINDS if folders.own_names(each)}
    for each in [_kind(kind)] if kind else KINDS:
        for name in folders.names(each):
            spec = catalog.load(each, name).spec
            rows.append(
                {
                    "kind": each,
                    "name": name,
                    "title": spec.title,
                    "aliases": ", ".join(getattr(spec, "aliases", ())),
                    "whose": "yours" if name in yours.get(each, ()) else "",
                }
            )
    columns = (
        Column("kind", "kind", spare=1 if kind else 0),
        Column("name", "name"),
        Column("title", "what it is"),
        Column("aliases", "also"),
        *((Column("whose", "whose"),) if yours else ()),
    )
    document = Document(
        schema="moeplan.list/1",
        title=f"On file: {kind or 'everything'}",
        tables=(Table("On file", columns, tuple(rows)),),
        facts={"count": len(rows)},
        notes=("see one with: moeplan show NAME",),
    )
    options.show(document, format_, [])


def _find(name: str) -> tuple[str, Any]:
    """Return the entry of a name, or of a file of the user's, and its kind."""
    from pathlib import Path

    from perfmodel.files.results import find, in_file
    from perfmodel.files.what import What, named

    what = named(name)
    if what is What.config:
        return find(name, ["models"])
    return find(name, KINDS) if what is None else in_file(Path(name), KINDS)


def show_command(
    name: Annotated[
        str,
        typer.Argument(
            help="Name of a model, system, chip, stack, kernel set, evidence row, microbenchmark, deployment or peer.",
            autocompletion=options.names_of(*KINDS),
        ),
    ],
    of: Annotated[
        str | None, typer.Argument(help="After 'schema': document (--format json), plan or run, as JSON Schema.")
    ] = None,
    format_: options.FormatOption = options.Format.table,
) -> None:
    """Show one entry: every value with its kind and source.

    Example: moeplan show cloudmatrix384

    Example: moeplan show schema document
    """
    from perfmodel.report.table import Column, Document, Table

    if name == "schema":
        _show_schema(of)
        return
    if of is not None:
        raise UsageError(f"{of!r}: too many words; a second one follows 'schema' only; drop it")
    kind, loaded = _find(name)
    spec = loaded.spec
    rows = []
    for path, text in _flat(spec.model_dump(exclude={"sources"})):
        figure = loaded.figures.get(path)
        rows.append(
            {
                "key": path,
                "value": figure.text if figure else text,
                "kind": figure.kind if figure else "",
                "source": figure.source if figure else "",
                "note": (figure.note or "") if figure else "",
            }
        )
    sources = [
        {"source": k, "title": s.title, "where": s.where or "", "url": s.url or ""} for k, s in spec.sources.items()
    ]
    columns = tuple(Column(k, k) for k in ("key", "value", "kind", "source", "note"))
    source_columns = tuple(Column(k, k) for k in ("source", "title", "where", "url"))
    document = Document(
        schema="moeplan.show/1",
        title=f"{kind}: {spec.name}",
        tables=(Table(spec.title, columns, tuple(rows)), Table("Sources", source_columns, tuple(sources))),
        facts={"kind": kind, "name": spec.name, "values": spec.model_dump(mode="json")},
        notes=(),
    )
    options.show(document, format_, [*loaded.notes, *loaded.details])


def _show_schema(kind: str | None) -> None:
    import json

    from perfmodel.report.schema import KINDS as SCHEMAS
    from perfmodel.report.schema import schema_of
    from perfmodel.report.terminal import write

    if kind is None:
        raise UsageError(f"schema: of what? allowed: {', '.join(SCHEMAS)}; write 'moeplan show schema document'")
    inputs.known(kind, list(SCHEMAS), "schema")
    write(json.dumps(schema_of(kind), indent=2, ensure_ascii=False))


def _flat(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [row for k, v in value.items() for row in _flat(v, f"{prefix}.{k}" if prefix else str(k))]
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], dict):
        return [row for i, v in enumerate(value) for row in _flat(v, f"{prefix}.{i}")]
    if isinstance(value, (list, tuple)):
        return [(prefix, ", ".join(str(v) for v in value))]
    return [(prefix, "" if value is None else str(value))]
