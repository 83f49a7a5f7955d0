"""`moeplan gains`: the published gain of every technique beside the predicted one."""

from typing import Annotated

import typer

from perfmodel.cli import options
from perfmodel.planning import inputs


def command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="TECHNIQUE", help="Techniques; default: all with a published number.")
    ] = None,
    format_: options.FormatOption = options.Format.table,
) -> None:
    """Compare what techniques are predicted to gain with what was published for them.

    Example: moeplan gains flashcomm1 amla
    """
    from perfmodel.files import catalog
    from perfmodel.report.gains import gains_document
    from perfmodel.scoring.gains import Shelf, score_all

    every = catalog.techniques()
    for name in names or ():
        inputs.known(name, sorted(every), "TECHNIQUE")
    shelf = Shelf(
        conditions=lambda name: catalog.load_evidence(name).spec.conditions,
        model=lambda name: catalog.load_model(name).spec,
        machine=catalog.load_conditions,
        techniques=every,
        kernel_set=catalog.kernel_set,
    )
    chosen = [every[name] for name in names] if names else list(every.values())
    options.show(gains_document(score_all(chosen, shelf), [one.spec for one in chosen]), format_, [])
