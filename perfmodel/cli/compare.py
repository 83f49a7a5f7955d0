"""`moeplan compare`: two plans side by side."""

from typing import Annotated

import typer

from perfmodel.cli import options
from perfmodel.errors import UsageError


def command(
    first: Annotated[str, typer.Argument(help="Plan file, or the name or file of a published row or deployment.")],
    second: Annotated[str, typer.Argument(help="The other: plan file, name or file.")],
    site: options.SiteOption = None,
    show: options.ShowOption = None,
    format_: options.FormatOption = options.Format.table,
) -> None:
    """Show what differs between two plans and what each difference is worth.

    Example: moeplan compare cm384-decode-4k-b96 xds-colocated-decode
    """
    from perfmodel.planning.compare import differences, row_differences, shared_phases
    from perfmodel.planning.named_run import named_run
    from perfmodel.report.hypothetical import hypothetical
    from perfmodel.report.plan_compare import compare_document

    one, two = (named_run(word, site=tuple(site or ())) for word in (first, second))
    if not shared_phases(one.run, two.run):
        raise UsageError(
            f"{first} is of {', '.join(one.run.pools)}, {second} of {', '.join(two.run.pools)}; "
            "allowed: two with a pool of the same phase"
        )
    found = compare_document(
        one.run,
        two.run,
        (first, second),
        (one.whole, two.whole),
        differences(one.run, two.run, (one.instances, two.instances)),
        row_differences(one.run, two.run),
    )
    machines = [pool.machine for named in (one, two) for pool in named.run.pools.values()]
    options.show(hypothetical(found, machines), format_, [*one.remarks, *two.remarks], show)
