"""Operator databases: one row per shape with ``Average Duration(us)``."""

import csv
from collections.abc import Iterator

from perfmodel.measured.reading import MICRO, Reading
from perfmodel.measured.shape_columns import UNREADABLE, precision_of, product_of
from perfmodel.measured.shapes import Measurement


def read_database(reading: Reading, rows: "csv.DictReader[str]", header: list[str]) -> Iterator[Measurement | None]:
    """Yield a measurement per row, of a product or of the experts of a layer."""
    for row in rows:
        line, precision = rows.line_num, precision_of(row)
        time = MICRO * reading.number(row, line, "Average Duration(us)")
        if "Num Experts" in header:
            columns = {
                "tokens": "Num Tokens",
                "hidden_size": "Hidden Size",
                "intermediate_size": "Intermediate Size",
                "experts": "Num Experts",
                "topk": "TopK",
                "local_experts": "Local Experts",
            }
            values = {ours: reading.number(row, line, theirs) for ours, theirs in columns.items()}
            yield reading.build(f"experts_{precision}", values, line, time) if precision else None
            continue
        product = product_of(row)
        if product is None or precision is None:
            reading.left_out[UNREADABLE] += 1
            continue
        yield reading.build(f"matmul_{precision}", product, line, time)
