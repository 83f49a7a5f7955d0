"""Tables of measured operators: opened, and read with the machine that is to predict them."""

import logging
from pathlib import Path

from perfmodel.errors import DataError, UsageError
from perfmodel.files.catalog import load_model
from perfmodel.files.document import readable
from perfmodel.files.machines import load_machine
from perfmodel.measured import readers
from perfmodel.measured.reading import Context
from perfmodel.measured.shapes import Measurement
from perfmodel.specs.microbenchmark import MicrobenchmarkSpec
from perfmodel.supply.machine import Machine

_LOG = logging.getLogger(__name__)
LARGEST_TABLE = 400_000_000


def read_measurements(path: Path, context: Context) -> tuple[list[Measurement], list[str]]:
    """Return the measured operators of a CSV table, and remarks on rows left out.

    Raises ``UsageError`` for a file that cannot be read, ``DataError`` with every fault of one that can.
    """
    _LOG.debug("read %s", path)
    with readable(path) as state:
        if state.st_size > LARGEST_TABLE:
            raise DataError(f"{path}:1: larger than {LARGEST_TABLE / 1e6:.0f} MB; allowed: one profile; split it")
        held = path.read_bytes()
    try:
        text = held.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}:1: binary or not UTF-8 at byte {error.start}; allowed: UTF-8 CSV") from None
    if "\0" in text:
        raise DataError(f"{path}:1: binary: holds a zero byte; allowed: UTF-8 CSV")
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
