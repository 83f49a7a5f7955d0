"""Forms that traces and benchmark results come in: a line of a file -> one request, or what is wrong with it."""

import csv
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

from perfmodel.errors import did_you_mean
from perfmodel.files.document import shown
from perfmodel.specs.base import MOST

ACCEPTED = (
    "Mooncake, Qwen-Bailian or aiperf JSONL (input_length, output_length), aiperf records (metadata, metrics), the "
    "result of vllm bench serve (input_lens, output_lens), Azure CSV (TIMESTAMP, ContextTokens, GeneratedTokens), "
    "BurstGPT CSV (Timestamp, Request tokens, Response tokens), CSV of isl, osl, count, what moeplan workload -o wrote"
)
_MILLI, _NANO = 1e-3, 1e-9
_WHOLE = 2**63


class Bad(Exception):
    """A line that is no request: what kind of fault it has, and the fault in words."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Failed(Exception):
    """A request that its file says failed."""


@dataclass(slots=True)
class Request:
    """One request: lengths in tokens, arrival in s of any clock, ids of its blocks, how many it stands for."""

    isl: int
    osl: int
    stamp: float | None = None
    ids: Sequence[int] | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How a file is read: its lines one by one, or as one record that holds all requests."""

    name: str
    #: the first line says what the columns are
    headed: bool = False
    #: lines stand as requests came; else as they ended, and are sorted however far they are
    in_order: bool = True
    #: lengths with how often they were seen
    weighted: bool = False
    #: all requests of one record
    whole: bool = False
    #: raises ``Bad`` or ``Failed`` for a line, or yields it for one request of a record
    parse: Callable[[str], Iterable[Request | Bad | Failed]]


def form_of(text: str) -> Form | None:
    """Return the form that a line begins or belongs to; None where it is of none that is known."""
    if text.lstrip()[:1] == "{":
        try:
            record = json.loads(text)
        except (ValueError, RecursionError):
            return None
        return form_of_record(record) if isinstance(record, dict) else None
    cells = [cell.strip().lower() for cell in _cells(text)]
    return _form_of_columns(cells)


def form_of_record(record: dict[str, Any]) -> Form | None:
    """Return the form that a JSON record is of."""
    if "input_lens" in record and "output_lens" in record:
        return Form(name="vllm bench serve", in_order=False, whole=True, parse=_bench)
    if {"input_length", "output_length"} & record.keys():
        if {"chat_id", "turn", "parent_chat_id"} & record.keys():
            return Form(name="Qwen-Bailian", parse=lambda text: _trace(text, 1.0))
        return Form(name="Mooncake", parse=lambda text: _trace(text, _MILLI))
    if isinstance(record.get("metrics"), dict) and "metadata" in record:
        return Form(name="aiperf records", in_order=False, parse=_aiperf)
    return None


def _form_of_columns(cells: list[str]) -> Form | None:
    many = len(cells)
    for name, keys in (
        ("Azure", ("contexttokens", "generatedtokens", "timestamp")),
        ("BurstGPT", ("request tokens", "response tokens", "timestamp")),
    ):
        if set(keys) <= set(cells):
            at = tuple(cells.index(key) for key in keys)
            return Form(name=name, headed=True, parse=_row_reader(name, keys, at, many))
    if {"isl", "osl"} <= set(cells):
        counted = ("isl", "osl", *[key for key in ("count", "weight") if key in cells][:1])
        at = tuple(cells.index(key) for key in counted)
        return Form(name="histogram", headed=True, weighted=True, parse=_histogram_reader(counted, at, many))
    return None


def _cells(text: str) -> list[str]:
    text = text.rstrip("\r\n")
    if '"' not in text:
        return text.split(",")
    try:
        return next(csv.reader([text]), [])
    except csv.Error as error:
        raise Bad("not CSV", f"line: not CSV: {error}; allowed: cells between commas") from None


def _row_reader(name: str, keys: tuple[str, ...], at: tuple[int, ...], many: int) -> Callable[[str], Iterable[Request]]:
    failing = name == "BurstGPT"  # which lists failed requests with no response

    def parse(text: str) -> Iterable[Request]:
        cells = _row(text, many)
        isl = length(_number(cells[at[0]], keys[0]), keys[0])
        answer = _number(cells[at[1]], keys[1])
        if failing and answer == 0:
            raise Failed
        return (Request(isl, length(answer, keys[1]), _clock(cells[at[2]], keys[2])),)

    return parse


def _histogram_reader(keys: tuple[str, ...], at: tuple[int, ...], many: int) -> Callable[[str], Iterable[Request]]:
    def parse(text: str) -> Iterable[Request]:
        cells = _row(text, many)
        isl, osl = (length(_number(cells[place], key), key) for place, key in zip(at[:2], keys, strict=False))
        weight = 1.0
        if len(keys) > 2:  # isl, osl and what is counted
            weight = _finite(_number(cells[at[2]], keys[2]), keys[2])
            if not 0 < weight <= MOST:
                raise Bad("count out of range", f"{keys[2]}: found {weight:g}; allowed: above 0 to {MOST:g}; mend it")
        return (Request(isl, osl, weight=weight),)

    return parse


def _row(text: str, many: int) -> list[str]:
    if text.lstrip()[:1] == "{":
        raise Bad(
            "line of another form", f"line: found {shown(text.strip())}; allowed: rows as the first; part the files"
        )
    cells = _cells(text)
    if len(cells) != many:
        raise Bad(
            "cells missing or too many", f"line: found {len(cells)} cells; allowed: {many}, as the columns; mend it"
        )
    return cells


def _number(text: str, key: str) -> int | float:
    cell = text.strip()
    try:
        if not cell.isascii() or "_" in cell:
            raise ValueError
        return int(cell) if cell.isdigit() else float(cell)
    except ValueError:
        kind = "line of another form" if cell.lower() == key else "not a number"
        raise Bad(kind, f"{key}: found {shown(cell)}; allowed: a number; mend or remove the line") from None


def _clock(text: str, key: str) -> float:
    """Read seconds, or a date with the time of day; one that names no zone is taken for UTC."""
    cell = text.strip()
    if "-" not in cell.lstrip("-"):
        return _stamp(_number(cell, key), key, 1.0)
    try:
        found = datetime.fromisoformat(cell)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise Bad(
            "not a time",
            f"{key}: found {shown(cell)}; allowed: seconds, or a date like 2023-11-16 18:15:46.68; mend it",
        ) from None


def _record(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        why = getattr(error, "msg", None) or "too deep or too long a number"
        other = text.lstrip()[:1] != "{"
        kind = "line of another form" if other else "not JSON"
        raise Bad(kind, f"line: not JSON: {why}: found {shown(text.strip())}; allowed: one record a line") from None
    if not isinstance(found, dict):
        raise Bad("line of another form", f"line: found {shown(text.strip())}; allowed: one record a line; remove it")
    return found


def _of(record: dict[str, Any], key: str) -> Any:
    if key not in record:
        near = did_you_mean(key, [str(one) for one in record])
        raise Bad("key missing", f"{key}: is missing; required; add it{near if 'mean' in near else ''}")
    return record[key]


def _trace(text: str, scale: float) -> Iterable[Request]:
    """Read a line of a trace as Mooncake, Qwen-Bailian and aiperf write them."""
    record = _record(text)
    if not {"input_length", "output_length"} & record.keys():
        if form_of_record(record) is not None:
            raise Bad(
                "line of another form", "line: found a record of another form; allowed: as the first; part the files"
            )
    isl, osl = (length(_of(record, key), key) for key in ("input_length", "output_length"))
    stamp = record.get("timestamp")
    ids = record.get("hash_ids")
    return (
        Request(
            isl, osl, None if stamp is None else _stamp(stamp, "timestamp", scale), None if ids is None else _ids(ids)
        ),
    )


def _aiperf(text: str) -> Iterable[Request]:
    """Read a record of a profile as aiperf exports it."""
    record = _record(text)
    if record.get("error") or not record.get("metrics", True):
        raise Failed
    metrics, metadata = (_of(record, key) for key in ("metrics", "metadata"))
    isl, osl = (_metric(metrics, key) for key in ("input_sequence_length", "output_sequence_length"))
    stamp = metadata.get("request_start_ns") if isinstance(metadata, dict) else None
    return (Request(isl, osl, None if stamp is None else _stamp(stamp, "metadata.request_start_ns", _NANO)),)


def _metric(metrics: Any, key: str) -> int:
    if not isinstance(metrics, dict):
        raise Bad("not a record", f"metrics: found {shown(str(metrics))}; allowed: a record; mend or remove the line")
    value = _of(metrics, key)
    return length(value.get("value") if isinstance(value, dict) else value, f"metrics.{key}")


def _bench(text: str) -> Iterable[Request | Bad | Failed]:
    """Read the result of a run of a benchmark: lists with one entry for each request; no output is a failure."""
    record = _record(text)
    isl, osl = (_of(record, key) for key in ("input_lens", "output_lens"))
    stamps = record.get("start_times")
    for key, found in (("input_lens", isl), ("output_lens", osl), ("start_times", stamps)):
        if found is not None and (not isinstance(found, list) or not isinstance(isl, list) or len(found) != len(isl)):
            raise Bad(
                "lists of other lengths", f"{key}: found other than one entry for each of input_lens; allowed: one"
            )
    for at, (given, made) in enumerate(zip(isl, osl, strict=True)):
        if made == 0 and not isinstance(made, bool):
            yield Failed()
            continue
        try:
            stamp = None if stamps is None else _stamp(stamps[at], f"start_times.{at}", 1.0)
            yield Request(length(given, f"input_lens.{at}"), length(made, f"output_lens.{at}"), stamp)
        except Bad as error:
            yield error


def _finite(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Bad("not a number", f"{key}: found {shown(str(value))}; allowed: a number; mend or remove the line")
    if not (isinstance(value, int) or math.isfinite(value)):
        raise Bad("not finite", f"{key}: found {value}; allowed: a finite number; mend or remove the line")
    if abs(value) > _WHOLE:
        raise Bad("number beyond reason", f"{key}: found {shown(str(value))}; allowed: up to 2^63; mend the line")
    return value


def length(value: Any, key: str) -> int:
    """Return a length in tokens; raise ``Bad`` where it is none."""
    found = _number_of_tokens(value, key)
    if found < 1:
        raise Bad("zero or negative length", f"{key}: found {found}; allowed: 1 token or more; mend or remove the line")
    if found > MOST:
        raise Bad(
            "length over 10^9", f"{key}: found {shown(str(value))}; allowed: up to {MOST}; mend or remove the line"
        )
    return found


def _number_of_tokens(value: Any, key: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) <= MOST else (MOST + 1 if value > 0 else -1)
    found = _finite(value, key)
    if found != int(found):
        raise Bad("not a whole number", f"{key}: found {found:g}; allowed: whole tokens; mend or remove the line")
    return int(found)


def _stamp(value: Any, key: str, scale: float) -> float:
    return _finite(value, key) * scale


def _ids(values: Any) -> list[int]:
    if not isinstance(values, list):
        raise Bad("not a list", f"hash_ids: found {shown(str(values))}; allowed: a list of block ids; mend the line")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise Bad("not a block id", f"hash_ids: found {shown(str(value))}; allowed: whole numbers or text; mend it")
    return [value if isinstance(value, int) and -_WHOLE <= value < _WHOLE else _number_for(value) for value in values]


def _number_for(value: int | str) -> int:
    """Return a number that stands for an id, the same for equal ids."""
    return int.from_bytes(blake2b(str(value).encode("utf-8", "replace"), digest_size=8).digest(), "big", signed=True)
