"""Which product, of what sizes and precision, the shapes and data types of a row stand for."""

import math

from perfmodel.measured.reading import Row

SHAPES = ("Input Shapes", "Input Data Types", "Output Shapes")
LARGEST_SIZE = 10**10
UNREADABLE = "their shapes or data types are not of a plain product"


def shapes_in(text: str | None) -> list[list[int]]:
    """Return shapes written like ``"1,7168;512,7168"``; empty places stay empty."""
    parts = (text or "").strip().strip('"').split(";")
    try:
        shapes = [[int(n) for n in part.strip().strip('"').split(",") if n.strip()] for part in parts]
    except ValueError:
        return []
    return [] if any(not 0 <= n <= LARGEST_SIZE for shape in shapes for n in shape) else shapes


def product_of(row: Row) -> dict[str, float] | None:
    """Return rows, inner and columns of a product from its shapes, whatever the layout of the weight."""
    inputs, outputs = shapes_in(row.get("Input Shapes")), shapes_in(row.get("Output Shapes"))
    if len(inputs) < 2 or not outputs or len(outputs[0]) < 2 or not inputs[0]:
        return None
    rows = math.prod(outputs[0][:-1])
    columns = outputs[0][-1]
    inner = math.prod(inputs[0]) // rows if rows else 0
    if not rows or not columns or inner not in inputs[0]:
        return None
    if inner * columns != math.prod(inputs[1]):  # a padded or transposed weight that does not match
        return None
    return {"rows": rows, "inner": inner, "columns": columns}


def grouped_of(row: Row) -> dict[str, float] | None:
    """Return the sizes of a grouped product from its shapes, none where they do not match."""
    inputs, outputs = shapes_in(row.get("Input Shapes")), shapes_in(row.get("Output Shapes"))
    if len(inputs) < 2 or not outputs or len(inputs[0]) != 2 or len(inputs[1]) < 3 or len(outputs[0]) != 2:
        return None
    tokens, inner = inputs[0]
    columns, groups = outputs[0][1], inputs[1][0]
    if not tokens or math.prod(inputs[1]) != groups * inner * columns:
        return None
    return {"groups": groups, "rows": tokens / groups, "inner": inner, "columns": columns}


def batched_of(row: Row) -> dict[str, float] | None:
    """Return the sizes of a batched product from its shapes, none where they do not match."""
    inputs = shapes_in(row.get("Input Shapes"))
    if len(inputs) < 2 or len(inputs[0]) != 3 or len(inputs[1]) != 3:
        return None
    (groups, rows, inner), weight = inputs[0], inputs[1]
    if weight[0] != groups or inner not in weight[1:]:
        return None
    return {"groups": groups, "rows": rows, "inner": inner, "columns": math.prod(weight[1:]) / inner}


def precision_of(row: Row) -> str | None:
    """Return the precision of a product from its first two data types; none where it is no plain one."""
    kinds = [part.strip().removeprefix("DT_") for part in (row.get("Input Data Types") or "").strip('"').split(";")]
    if len(kinds) < 2:
        return None
    if kinds[0] == kinds[1] == "INT8":
        return "int8"
    return "bf16" if {kinds[0], kinds[1]} <= {"BF16", "FLOAT16"} else None
