"""Profiles: msprof's ``op_summary_*.csv`` and torch_npu's ``kernel_details.csv``."""

import csv
from collections.abc import Iterator

from perfmodel.ledger.rows import BF16
from perfmodel.measured.reading import MICRO, Reader, Reading, Row
from perfmodel.measured.shape_columns import UNREADABLE, batched_of, grouped_of, precision_of, product_of, shapes_in
from perfmodel.measured.shapes import Measurement
from perfmodel.specs.precision import SCALE_SLOT_BYTES

PAGED = "a paged cache does not show its context; give these in a table with 'operator'"
NO_EP = "their shapes do not show the expert-parallel group; add --ep DIES"


def profile_reader(kind_column: str, time_column: str) -> Reader:
    """Return the reader of a profile by the names of its columns of operator and time."""

    def read_profile(reading: Reading, rows: "csv.DictReader[str]", header: list[str]) -> Iterator[Measurement | None]:
        for row in rows:
            kind = (row.get(kind_column) or "").strip()
            time_text = (row.get(time_column) or "").strip()
            if kind.startswith(("FusedInferAttention", "IncreFlashAttention", "PromptFlashAttention")):
                reading.left_out[f"{kind}: {PAGED}"] += 1
                continue
            if kind.startswith(("MoeDistributeDispatch", "MoeDistributeCombine")):
                yield from _profiled_exchange(reading, row, rows.line_num, kind, time_column)
                continue
            found = _profiled_product(row, kind)
            if found is None:
                if "matmul" in kind.lower():
                    reading.left_out[f"{kind}: {UNREADABLE}"] += 1
                else:
                    reading.left_out["operators without a class to fit"] += 1
                continue
            if time_text in ("N/A", "0", "0.0", ""):
                reading.left_out[f"{time_column} is empty, zero or N/A"] += 1
                continue
            operator, values = found
            yield reading.build(
                operator, values, rows.line_num, MICRO * reading.number(row, rows.line_num, time_column)
            )

    return read_profile


def _profiled_product(row: Row, kind: str) -> tuple[str, dict[str, float]] | None:
    lower = kind.lower().replace("_", "")
    precision = precision_of(row)
    if precision is None:
        return None
    if "groupedmatmul" in lower:
        values, word = grouped_of(row), f"grouped_matmul_{precision}"
    elif "batchmatmul" in lower and precision == "bf16" and "quant" not in lower:
        values, word = batched_of(row), "batched_matmul_bf16"
    elif lower.startswith(("matmul", "quantbatchmatmul", "quantmatmul", "gemm")):
        values, word = product_of(row), f"matmul_{precision}"
    else:
        return None
    return None if values is None else (word, values)


def _profiled_exchange(
    reading: Reading, row: Row, line: int, kind: str, time_column: str
) -> Iterator[Measurement | None]:
    dispatch = "Dispatch" in kind
    inputs, outputs = shapes_in(row.get("Input Shapes")), shapes_in(row.get("Output Shapes"))
    if reading.context.ep is None:
        reading.left_out[f"{kind}: {NO_EP}"] += 1
        return
    states, choices = (inputs[0], inputs[1]) if dispatch and len(inputs) > 1 else (outputs[0] if outputs else [], [])
    if not dispatch and len(inputs) > 1:
        choices = inputs[1]
    if len(states) != 2 or len(choices) != 2:
        reading.left_out[f"{kind}: {UNREADABLE}"] += 1
        return
    quantised = dispatch and "INT8" in (row.get("Output Data Types") or "").split(";")[0]
    message = states[1] * (1 if quantised else BF16) + (SCALE_SLOT_BYTES if quantised else 0)
    values = {"dies": reading.context.ep, "tokens": states[0], "topk": choices[1], "message_bytes": message}
    word = "dispatch" if dispatch else "combine"
    yield reading.build(word, values, line, MICRO * reading.number(row, line, time_column))
