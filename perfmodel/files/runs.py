"""Run-specs as files: what ``solve`` is asked, read and checked, and written."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from perfmodel.files import magnitudes
from perfmodel.files.catalog import REFERENCES, check_references, held_by_deployments, renamed
from perfmodel.files.document import standard_input
from perfmodel.files.folders import from_here
from perfmodel.files.reader import Reader, unsourced
from perfmodel.files.writing import Target
from perfmodel.specs.run import EITHER, IN_PLACE_OF, NEEDED, RunSpec


def load_run(path: Path | None, given: Collection[str] = ()) -> RunSpec:
    """Return a run-spec from a file, or from stdin where there is none; keys ``given`` elsewhere may be missing.

    Paths that it names are relative to its folder, those in stdin to the current directory.  Raises ``DataError`` with
    one line per fault.  Remarks on numbers far beyond those of deployments on file.
    """
    text = standard_input() if path is None else None
    reader = Reader(path or Path("stdin"), recorded=unsourced, text=text)
    data = reader.read()
    spec = _run_of(reader, data, given)
    magnitudes.remark_on(reader, data, spec, held_by_deployments({"conditions.": "", "measured.": ""}))
    return spec


def _run_of(reader: Reader, data: dict[str, Any], given: Collection[str]) -> RunSpec:
    have = {key for key, value in data.items() if value is not None} | set(given)
    if "=" in str(data.get("tpot")):  # a percentile beside its key, or in its place
        have |= {"tpot"}
    for key in NEEDED:
        if key not in have and not have & set(IN_PLACE_OF.get(key, ())):
            reader.fault((key,), f"is missing; required; add it{'' if key == 'model' else f', or give --{key}'}")
    if not have & set(EITHER):
        reader.fault((EITHER[0],), f"is missing, and so is {EITHER[1]}; required; add one, or give --{EITHER[0]}")
    named: dict[str, Any] = {k: v for k, v in data.items() if (k,) in REFERENCES["runs"] and isinstance(v, (str, list))}
    named |= {k: tuple(map(str, v)) for k, v in named.items() if isinstance(v, list)}
    spec = RunSpec.model_construct(**named)  # so that names are looked up beside other faults
    try:
        spec = RunSpec.model_validate(data)
    except ValidationError as error:
        reader.refused(error, RunSpec)
    spec = renamed("runs", spec, lambda name: from_here(name, reader.path))
    check_references(reader, "runs", spec)
    reader.finish()
    assert isinstance(spec, RunSpec)
    return spec


def check_run(text: str, path: Path = Path("run-spec")) -> RunSpec:
    """Return a run-spec from its text, as if it stood at a path; raises as ``load_run`` does."""
    reader = Reader(path, recorded=unsourced, text=text.encode())
    return _run_of(reader, reader.read(), ())


def write_run(to: Target, text: str) -> None:
    """Write the text of a run-spec whole, after reading it as ``solve`` would, or not at all.

    Raises ``UsageError`` where the path was taken since, or cannot be written.
    """
    check_run(text, to.path)
    to.write(text)
