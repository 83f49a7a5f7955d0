"""Published and measured results by name or file: rows of pools and deployments, tables of operators."""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from perfmodel.errors import DataError, UsageError, did_you_mean
from perfmodel.files.catalog import load, load_model, load_path
from perfmodel.files.folders import names
from perfmodel.files.machines import load_machine
from perfmodel.measured import readers
from perfmodel.measured.reading import Context
from perfmodel.measured.shapes import Measurement
from perfmodel.specs.base import Known
from perfmodel.specs.evidence import DeploymentSpec, EvidenceSpec
from perfmodel.specs.microbenchmark import MicrobenchmarkSpec
from perfmodel.supply.machine import Machine

_LOG = logging.getLogger(__name__)
LARGEST_TABLE = 400_000_000


def _as_one_of(kinds: Sequence[str], read: Callable[[str], Known[Any] | None]) -> tuple[str, Known[Any]] | None:
    """Return what reads as one of some kinds, and the kind; None where ``read`` finds it in none of them.

    Raises ``DataError`` with the fewest faults where it is found and is of none.
    """
    faults: list[DataError] = []
    for kind in kinds:
        try:
            found = read(kind)
        except DataError as error:
            faults.append(error)
            continue
        if found is not None:
            return kind, found
    if faults:
        raise min(faults, key=lambda error: len(str(error).splitlines()))
    return None


def find(name: str, kinds: Sequence[str]) -> tuple[str, Known[Any]]:
    """Return the entry of a name or a path among kinds of data, and its kind.

    Raises ``UsageError`` where none has the name, ``DataError`` with the fewest faults where a file is of none.
    """

    def read(kind: str) -> Known[Any] | None:
        with suppress(UsageError):
            return load(kind, name)
        return None

    found = _as_one_of(kinds, read)
    if found is None:
        known = [word for kind in kinds for word in names(kind)]
        raise UsageError(f"{name!r} is not on file{did_you_mean(name, known)}")
    return found


def load_results(words: Sequence[str]) -> tuple[list[EvidenceSpec], list[DeploymentSpec]]:
    """Return published results by name or file, of pools and of deployments.

    A word that ends in .yaml or is a path that exists is read as a file, as whichever kind it has the fewest
    faults as.  Raises ``UsageError`` for a name not on file, ``DataError`` for a file with faults.
    """
    pools: list[EvidenceSpec] = []
    deployments: list[DeploymentSpec] = []
    known = dict.fromkeys(names("evidence"), "evidence") | dict.fromkeys(names("deployments"), "deployments")
    for word in words:
        if word.lower().endswith((".yaml", ".yml")) or (word.lower() not in known and Path(word).exists()):
            spec = _result_in(Path(word))
        elif word.lower() in known:
            spec = load(known[word.lower()], word.lower()).spec
        else:
            raise UsageError(f"evidence: {word!r} is not on file{did_you_mean(word, sorted(known))}")
        if isinstance(spec, DeploymentSpec):
            deployments.append(spec)
        else:
            pools.append(spec)
    return pools, deployments


def _result_in(path: Path) -> EvidenceSpec | DeploymentSpec:
    """Return the result in a file, as whichever kind it has the fewest faults as."""
    found = _as_one_of(("evidence", "deployments"), partial(load_path, path=path))
    assert found is not None, "a file is read or raises"
    spec: EvidenceSpec | DeploymentSpec = found[1].spec
    return spec


def read_measurements(path: Path, context: Context) -> tuple[list[Measurement], list[str]]:
    """Return the measured operators of a CSV table, and remarks on rows left out.

    Raises ``UsageError`` for a file that cannot be read, ``DataError`` with every fault of one that can.
    """
    _LOG.debug("read %s", path)
    try:
        if path.stat().st_size > LARGEST_TABLE:
            raise DataError(f"{path}:1: larger than {LARGEST_TABLE / 1e6:.0f} MB; allowed: one profile; split it")
        text = path.read_bytes().decode("utf-8-sig")
        if "\0" in text:
            raise DataError(f"{path}:1: binary: holds a zero byte; allowed: UTF-8 CSV")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}:1: binary or not UTF-8 at byte {error.start}; allowed: UTF-8 CSV") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}; check the path") from None
    return readers.measurements_in(path, text, context)


def load_measurements(spec: MicrobenchmarkSpec, folder: Path | None) -> tuple[Machine, list[Measurement], list[str]]:
    """Return the machine that is to predict a microbenchmark, its rows, and remarks on rows left out."""
    machine, notes = load_machine(spec.system, spec.stack, spec.kernels)
    context = Context(
        attention=load_model(spec.model).spec.attention if spec.model else None,
        messages=spec.messages,
        only=spec.only,
        at_least=spec.at_least,
    )
    readers.check_context(context, spec.name)
    remarks = list(notes)
    if spec.rows:
        where = Path(f"{spec.name}: rows")  # faults count its lines from the columns
        return machine, readers.read_rows(where, spec.columns, spec.rows, context), remarks
    if folder is None:
        raise UsageError(f"{spec.name}: its tables are not part of this project; give --measurements FOLDER")
    rows: list[Measurement] = []
    for name in spec.files:
        if not (folder / name).exists():
            remarks.append(f"{spec.name}: left out {name}, which is not in {folder}")
            continue
        found, left_out = read_measurements(folder / name, context)
        rows += found
        remarks += left_out
    return machine, rows, remarks
