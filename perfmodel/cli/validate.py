"""`moeplan validate`: predicted against published, row by row."""

from typing import Annotated

import typer

from perfmodel.cli import options


def command(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME|FILE",
            help="Published results: names on file, or YAML files; default all.",
            autocompletion=options.names_of("evidence", "deployments"),
        ),
    ] = None,
    stack: options.StackOption = None,
    kernels: options.KernelsOption = None,
    site: options.SiteOption = None,
    leave_one_out: Annotated[
        bool, typer.Option("--leave-one-out", hidden=True, help="Always done; kept so that older commands run.")
    ] = False,
    show: options.ShowOption = None,
    format_: options.FormatOption = options.Format.table,
) -> None:
    """Compare predictions with published results, on file or in files of your own.

    Example: moeplan validate seed-cm384-decode seed-a2-decode-808 seed-prefill-16x

    Example: moeplan validate my-run.yaml cm384-decode-4k-b96
    """
    from perfmodel.files import catalog, folders
    from perfmodel.files.results import load_results
    from perfmodel.planning.published import deployments_on_file, published, rows_on_file
    from perfmodel.planning.scores import scores
    from perfmodel.report.validation import MADE_BY, validation_document
    from perfmodel.scoring.given_one import given_one
    from perfmodel.scoring.neighbours import anchor, nearest
    from perfmodel.scoring.peers import beside
    from perfmodel.scoring.summaries import counted, summaries

    sets = tuple(kernels or ())
    on_file = rows_on_file(stack, sets)
    if words:
        pools, joined = load_results(words)
        rows = [published(spec, stack, sets) for spec in pools]
    else:
        rows, joined = on_file, deployments_on_file()
    given = {row.name for row in rows}
    found = scores(rows, joined, on_file, stack, sets, tuple(site or ()))
    results = found.results
    anchors = [anchor(row) for row in on_file]
    peers = [catalog.load_peer(name).spec for name in folders.names("peers")]
    document = validation_document(
        results=[(one, nearest(one.spec.name, one.place, anchors)) for one in results],
        summaries=summaries(counted(results, found.deployed)),
        peers=beside(peers, results, sorted(given) if words else None),
        deployed=found.deployed,
        given_one=given_one(found.told),
        cases=found.cases,
        first=() if words else MADE_BY,
    )
    over = [one.spec.name for one in results if not one.fits]
    remarks = [f"{name}: its layout does not fit the memory of a die; the prediction ignores that" for name in over]
    remarks += [told for one in results for told in one.strange]
    options.show(document, format_, remarks, show)
