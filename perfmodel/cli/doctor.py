"""`moeplan doctor`: is this installation whole, and how near are its predictions."""

import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from perfmodel import __version__
from perfmodel.cli import options
from perfmodel.errors import EXIT_BAD_FILE, EXIT_INTERNAL, MoeplanError

STARTS = 3  # of which the fastest is told: the others wait for the disk or for other work


def _files() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a row per kind of data, and a row per fault."""
    from perfmodel.files import folders
    from perfmodel.files.catalog import load_path

    counts: list[dict[str, Any]] = []
    faults: list[dict[str, Any]] = []
    for kind, where in folders.FOLDERS.items():
        folder = folders.root() / where
        entries = folders.entries(kind)
        names = sorted(entries)
        before = len(faults)
        bad = 0
        for name in names:
            try:
                load_path(kind, entries[name])
            except MoeplanError as error:
                bad += 1
                faults += [{"kind": kind, "file": name, "fault": line} for line in str(error).splitlines()]
        unread = [path.name for path in folder.glob("*.yml")]
        faults += [{"kind": kind, "file": name, "fault": "not read; rename it to .yaml"} for name in unread]
        if not names:
            faults.append({"kind": kind, "file": where, "fault": "no file; reinstall, or restore the folder"})
        whole = "✓" if len(faults) == before else "✗"
        counts.append({"kind": kind, "files": len(names), "valid": len(names) - bad, "whole": whole, "folder": where})
    return counts, faults


def _parts() -> list[dict[str, Any]]:
    """Return a row per library that the installed program names, present or not."""
    import re
    from importlib.metadata import PackageNotFoundError, requires, version

    def have(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    try:
        named = requires("moeplan") or []
    except PackageNotFoundError:
        named = []
    rows = []
    for line in named:
        name = re.split(r"[\s<>=!~;\[(]", line, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"]([^'\"]+)", line)
        found = have(name)
        whole = "✓" if found else "-" if extra else "✗"
        for_what = f"only for {extra[1]}" if extra else "this program"
        rows.append({"part": name, "version": found or "not installed", "whole": whole, "for": for_what})
    return rows


def _scores() -> Iterator[Any]:
    """Yield the score of every golden row on file, as `moeplan validate` counts them."""
    from perfmodel.planning.published import rows_on_file
    from perfmodel.scoring.validation import scored

    for row in rows_on_file():
        if row.role == "golden":
            yield scored(row)


def _start() -> float:
    """Return the seconds of a cold start that does nothing."""
    taken = []
    for _ in range(STARTS):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-m", "perfmodel", "--version"], capture_output=True, check=True)
        taken.append(time.perf_counter() - begun)
    return min(taken)


def command(format_: options.FormatOption = options.Format.table) -> None:
    """Check this installation: version, data files, libraries, accuracy, start time.

    Example: moeplan doctor

    Exit code 0 where all is well, 4 where a data file has a fault, 1 where a library is missing.
    """
    from perfmodel.files import folders
    from perfmodel.report.table import Column, Document, Table
    from perfmodel.scoring.summaries import counted, summaries

    counts, faults = _files()
    parts = _parts()
    missing = [row["part"] for row in parts if row["whole"] == "✗"]
    facts: dict[str, Any] = {
        "version": __version__,
        "python": platform.python_version(),
        "data_folder": str(folders.root()),
        "files": sum(row["files"] for row in counts),
        "faults": len(faults),
        "missing": missing,
        "start_s": _start(),
    }
    results = [] if faults or missing else list(_scores())
    whole = next((one for one in summaries(counted(results, [])) if one.by == "all"), None) if results else None
    if whole:
        facts |= {"golden_results": whole.results, "mean_absolute_error": whole.mean, "inside_90": whole.inside90}
    healthy = not faults and not missing
    told = [
        ("version", f"moeplan {__version__}"),
        ("Python", f"{facts['python']} ({platform.system()} {platform.machine()})"),
        ("program", str(Path(__file__).resolve().parent.parent)),
        ("data folder", facts["data_folder"]),
        ("data files", f"{facts['files']}, {len(faults) or 'no'} fault{'' if len(faults) == 1 else 's'}"),
        ("cold start", f"{1e3 * facts['start_s']:.0f} ms"),
        ("golden rows", _accuracy(whole)),
        ("verdict", "✓ healthy" if healthy else "✗ see below"),
    ]
    document = Document(
        schema="moeplan.doctor/1",
        title="This installation",
        tables=(
            Table(
                "Summary", (Column("what", ""), Column("found", "")), tuple({"what": k, "found": v} for k, v in told)
            ),
            Table("Faults", tuple(Column(key, key) for key in ("kind", "file", "fault")), tuple(faults)),
            Table(
                "Data files",
                (
                    Column("kind", "kind"),
                    Column("files", "files", "1"),
                    Column("valid", "valid", "1"),
                    Column("whole", ""),
                    Column("folder", "folder", spare=1),
                ),
                tuple(counts),
            ),
            Table(
                "Libraries",
                (Column("part", "library"), Column("version", "version"), Column("whole", ""), Column("for", "for")),
                tuple(parts),
            ),
        ),
        facts=facts | {"healthy": healthy},
        notes=() if parts else ("run from source that is not installed: libraries cannot be told",),
    )
    options.show(document, format_, [])
    if not healthy:
        raise typer.Exit(EXIT_BAD_FILE if faults else EXIT_INTERNAL)


def _accuracy(whole: Any) -> str:
    if whole is None:
        return "not scored until the faults are mended"
    return (
        f"{whole.results} published results: mean error {100 * whole.mean:.1f} %, "
        f"{100 * whole.inside90:.0f} % of them in their 90 % interval"
    )
