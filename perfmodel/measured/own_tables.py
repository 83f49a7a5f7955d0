"""Our own tables: one row per call with the columns of its ``operator`` (see ``docs/calibration.md``)."""

import csv
from collections.abc import Iterator

from perfmodel.errors import DataError, did_you_mean
from perfmodel.measured.reading import MICRO, Reading
from perfmodel.measured.shapes import OPERATORS, Measurement


def read_own(reading: Reading, rows: "csv.DictReader[str]", header: list[str]) -> Iterator[Measurement | None]:
    """Yield a measurement per row; unknown operators and columns are faults."""
    if "time_us" not in header:
        raise DataError(
            f"{reading.path}:1: column time_us is missing; allowed: times in microseconds under 'time_us'; add it"
        )
    known = {"operator", "time_us"} | {c for o in OPERATORS.values() for c in (*o.columns, *o.defaults)}
    for name in header:
        if name not in known:
            reading.faults.append(f"{reading.path}:1: {name}: unknown column{did_you_mean(name, sorted(known))}")
    for row in rows:
        line, word = rows.line_num, (row["operator"] or "").strip()
        if word not in OPERATORS:
            reading.faults.append(
                f"{reading.path}:{line}: operator: {word!r} is unknown{did_you_mean(word, sorted(OPERATORS))}"
            )
            continue
        operator = OPERATORS[word]
        absent = [c for c in operator.columns if c not in header]
        if absent:
            fault = f"{reading.path}:1: column {', '.join(absent)} is missing; required by {word}; add it"
            if fault not in reading.faults:
                reading.faults.append(fault)
            continue
        values = {c: reading.number(row, line, c) for c in operator.columns}
        values |= {c: reading.number(row, line, c) for c in operator.defaults if (row.get(c) or "").strip()}
        yield reading.build(word, values, line, MICRO * reading.number(row, line, "time_us"))
