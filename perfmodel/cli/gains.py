"""`moeplan gains`: the published gain of every technique beside the predicted one."""

from typing import Annotated

import typer

from perfmodel.cli import options
from perfmodel.planning import inputs


def command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="TECHNIQUE", help="Techniques; default: all with a published number.")
    ] = None,
    show: options.ShowOption = None,
    format_: options.FormatOption = options.Format.table,
) -> None:
    """Compare what techniques are predicted to gain with what was published for them.

    Example: moeplan gains flashcomm1 amla
    """
    from perfmodel.files import catalog
    from perfmodel.planning.published import scored_gains
    from perfmodel.report.gains import gains_document

    every = catalog.load_techniques()
    for name in names or ():
        inputs.known(name, sorted(every), "TECHNIQUE")
    chosen = [every[name] for name in names] if names else list(every.values())
    options.show(gains_document(scored_gains(chosen, every), [one.spec for one in chosen]), format_, [], show)
