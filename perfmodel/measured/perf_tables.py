"""``*_perf.csv`` tables: one row per call with ``op_name`` and ``latency`` in ms."""

import csv
import math
from collections.abc import Iterator

from perfmodel.ledger.rows import BF16
from perfmodel.measured.reading import MILLI, Reading, Row
from perfmodel.measured.shapes import Measurement
from perfmodel.specs.attention import MlaSpec


def read_perf(reading: Reading, rows: "csv.DictReader[str]", header: list[str]) -> Iterator[Measurement | None]:
    """Yield a measurement per row whose ``op_name`` has a class to fit."""
    elements = reading.context.messages == "elements" or (
        reading.context.messages is None and "kernel_source" not in header
    )
    for row in rows:
        line, name = rows.line_num, (row.get("op_name") or "").strip()
        time = MILLI * reading.number(row, line, "latency")
        found = _perf_row(reading, row, line, name, BF16 if elements else 1)
        if found is None:
            reading.left_out[f"op_name {name!r} has no class to fit"] += 1
            continue
        word, values = found
        yield reading.build(word, values, line, time)


def _perf_row(reading: Reading, row: Row, line: int, name: str, element: int) -> tuple[str, dict[str, float]] | None:
    def number(column: str) -> float:
        return reading.number(row, line, column)

    attention = reading.context.attention
    match name:
        case "mla_generation":
            context = number("isl") + number("step")
            return "attention_decode", {
                "sequences": number("batch_size"),
                "context": context,
                "heads": number("num_heads"),
            }
        case "mla_context":
            return "attention_prefill", {
                "sequences": number("batch_size"),
                "isl": number("isl"),
                "heads": number("num_heads"),
            }
        case "mla_gen_pre" | "mla_gen_post":
            sizes = {"groups": number("num_heads"), "rows": number("num_tokens")}
            if not isinstance(attention, MlaSpec):
                fault = (
                    f"{reading.path}:{line}: op_name: {name} is of latent attention; allowed: with --model of such a"
                )
                reading.faults.append(f"{fault} model; add --model NAME")
                return "batched_matmul_bf16", {"groups": math.nan}
            inside, outside = attention.qk_nope_head_dim, attention.kv_lora_rank
            if name == "mla_gen_post":
                inside, outside = attention.kv_lora_rank, attention.v_head_dim
            return "batched_matmul_bf16", {**sizes, "inner": inside, "columns": outside}
        case "moe":
            experts, ranks = number("num_experts"), number("moe_ep_size")
            return "experts_bf16", {
                "tokens": number("num_tokens"),
                "hidden_size": number("hidden_size"),
                "intermediate_size": number("inter_size"),
                "experts": experts,
                "topk": number("topk"),
                "local_experts": experts / ranks,
            }
        case "all_gather" | "reduce_scatter" | "all_reduce" | "all_to_all" | "alltoall":
            word = "all_to_all" if name == "alltoall" else name
            return word, {"dies": number("num_gpus"), "bytes": element * number("message_size")}
        case _:
            return None
