"""Workloads: every form read, every fault told, statistics and prefix hits against loops, summaries that come back."""

import json
import os
import random
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from perfmodel.errors import DataError, MoeplanError, UsageError
from perfmodel.files import workloads
from perfmodel.files.workloads import load_workload, write_workload
from perfmodel.files.writing import target
from perfmodel.planning.workload import described
from perfmodel.report.render import RENDERERS
from perfmodel.report.workload import workload_document
from perfmodel.specs.reuse import hit_curve
from perfmodel.specs.workload import Blocks, Workload, arrival_statistics, dispersion, equal, lognormal, peak_rate
from tests.conftest import Run
from tests.test_language import GLOSSARY, _texts

TRACES = os.environ.get("MOEPLAN_TRACES")

MOONCAKE = [
    {"timestamp": 0, "input_length": 1100, "output_length": 50, "hash_ids": [0, 1, 2]},
    {"timestamp": 1500, "input_length": 1500, "output_length": 70, "hash_ids": [0, 1, 3]},
    {"timestamp": 4000, "input_length": 600, "output_length": 10, "hash_ids": [4, 5]},
]
BAILIAN = [
    {"chat_id": 1, "timestamp": 61.5, "input_length": 33, "output_length": 9, "turn": 1, "hash_ids": [7, 8, 9]},
    {"chat_id": 2, "timestamp": 62.0, "input_length": 48, "output_length": 5, "turn": 2, "hash_ids": [7, 8, 6]},
]
AIPERF = [
    {
        "metadata": {"request_start_ns": start},
        "metrics": {"input_sequence_length": {"value": isl}, "output_sequence_length": {"value": osl}},
        "error": None,
    }
    for start, isl, osl in ((9_000_000_000, 30, 3), (2_000_000_000, 20, 2))
]
BENCH = {"request_rate": 4, "input_lens": [5, 6, 7], "output_lens": [1, 0, 3], "start_times": [100.5, 100.75, 101.0]}
AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.6805900,396,109\n"
)
BURST = (
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,0,1087,Conversation log\n"
    '118,GPT-4,417,276,693,"API log, 2"\n'
)
HISTOGRAM = "isl,osl,count\n100,10,3\n2000,30,1\n"


def lines(records: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(one) + "\n" for one in records)


def put(folder: Path, text: str | bytes, name: str = "load.txt") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


FORMS: dict[str, tuple[str, list[int], list[int], list[float] | None]] = {
    "Mooncake": (lines(MOONCAKE), [1100, 1500, 600], [50, 70, 10], [0, 1.5, 4]),
    "aiperf trace": (lines([{**one, "delay": 1} for one in MOONCAKE]), [1100, 1500, 600], [50, 70, 10], [0, 1.5, 4]),
    "Qwen-Bailian": (lines(BAILIAN), [33, 48], [9, 5], [0, 0.5]),
    "aiperf records": (lines(AIPERF), [20, 30], [2, 3], [0, 7]),
    "vllm bench": (json.dumps(BENCH), [5, 7], [1, 3], [0, 0.5]),
    "vllm bench, over lines": (json.dumps(BENCH, indent=1), [5, 7], [1, 3], [0, 0.5]),
    "Azure": (AZURE, [374, 396], [44, 109], [0, 4]),
    "BurstGPT": (BURST, [472, 417], [18, 276], [0, 113]),
    "lengths alone": ("osl,isl\n7,70\n", [70], [7], None),
    "a mark and carriage returns": ("\ufeff" + AZURE.replace("\n", "\r\n"), [374, 396], [44, 109], [0, 4]),
    "blank lines": ("\n\n" + lines(MOONCAKE[:1]) + "\n", [1100], [50], [0]),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_whatever_its_name(form: str, tmp_path: Path) -> None:
    text, isl, osl, arrivals = FORMS[form]
    found = load_workload(put(tmp_path, text))
    assert (found.isl.tolist(), found.osl.tolist()) == (isl, osl)
    assert (None if found.arrivals is None else found.arrivals.tolist()) == pytest.approx(arrivals)


def test_a_histogram_is_written_out_or_drawn_by_weight(tmp_path: Path) -> None:
    found = load_workload(put(tmp_path, HISTOGRAM))
    assert sorted(zip(found.isl.tolist(), found.osl.tolist(), strict=True)) == [(100, 10)] * 3 + [(2000, 30)]
    drawn = load_workload(put(tmp_path, "isl,osl,weight\n100,10,0.75\n2000,30,0.25\n"))
    assert drawn.requests == workloads.DRAWN
    assert drawn.inputs.mean == pytest.approx(575, rel=1e-3)
    assert any("stand for the weights" in text for text in drawn.remarks)


def test_blocks_and_their_size_are_read(tmp_path: Path) -> None:
    for records, size in ((MOONCAKE, 512), (BAILIAN, 16)):
        found = load_workload(put(tmp_path, lines(records)))
        assert found.block_tokens == size
        assert found.blocks is not None
        assert found.blocks.ids.tolist() == [one for record in records for one in record["hash_ids"]]
    curve = load_workload(put(tmp_path, lines(BAILIAN))).hits()
    assert curve is not None
    assert curve.most == pytest.approx(32 / 81)
    odd = [{**one, "hash_ids": list(range(one["input_length"] // 7))} for one in MOONCAKE]
    found = load_workload(put(tmp_path, lines(odd)))
    assert found.blocks is None
    assert any("blocks are left out" in text for text in found.remarks)
    named = [{**one, "hash_ids": [str(key) for key in one["hash_ids"]]} for one in MOONCAKE]
    curves = [load_workload(put(tmp_path, lines(records))).hits() for records in (MOONCAKE, named)]
    assert curves[0] is not None
    assert curves[1] is not None
    assert curves[0].found.tolist() == curves[1].found.tolist()


def test_requests_that_failed_are_left_out_and_told(tmp_path: Path) -> None:
    failed = [*AIPERF, {"metadata": {}, "metrics": {}, "error": {"code": 500}}]
    for text in (BURST, json.dumps(BENCH), lines(failed)):
        found = load_workload(put(tmp_path, text))
        assert (found.requests, found.skipped) == (2, 1)
        assert "left out 1 requests that failed" in found.remarks


GOOD = '{"timestamp": 5, "input_length": 10, "output_length": 2}'


def given(isl: str, osl: str = "2") -> str:
    """Return a line with such lengths."""
    return f'{{"timestamp": 5, "input_length": {isl}, "output_length": {osl}}}'


#: a line after a good one, what is said of it, and the kind that it is counted as
BAD = {
    "a word for a length": (given('"x"'), "input_length: found 'x'", "not a number"),
    "no number": (given('NaN'), "found nan", "not finite"),
    "without end": ('{"timestamp": 1e999, "input_length": 1, "output_length": 2}', "found inf", "not finite"),
    "zero": (given('0'), "found 0; allowed: 1 token", "zero or negative length"),
    "negative": (given('3', '-2'), "output_length: found", "zero or negative length"),
    "beyond reason": (given("5, \"timestamp\": 1" + "0" * 400), "timestamp: found '1000", "number beyond reason"),
    "half": (given('2.5'), "allowed: whole tokens", "not a whole number"),
    "truth": (given('true'), "found 'True'", "not a number"),
    "too long": (given('1000000001'), "up to 1000000000", "length over 10^9"),
    "missing": ('{"timestamp": 5, "input_length": 5}', "output_length: is missing", "key missing"),
    "stamp missing": ('{"input_length": 5, "output_length": 5}', "timestamp: found none", "stamp missing or extra"),
    "clock back": ('{"timestamp": -99000, "input_length": 5, "output_length": 5}', "99.005 s before", "clock back"),
    "no list": (given('5', '5, "hash_ids": 3'), "hash_ids: found '3'", "not a list"),
    "no id": (given('5', '5, "hash_ids": [1.5]'), "found '1.5'", "not a block id"),
    "cut": ('{"timestamp": 5, "input_le', "not JSON", "not JSON"),
    "long number": ('{"timestamp": 5, "input_length": ' + "9" * 5000 + "}", "not JSON", "not JSON"),
    "deep": ("[" * 100_000, "not JSON", "line of another form"),
    "another form": ("2023-11-16 18:15:46.68,374,44", "not JSON", "line of another form"),
    "a list": ("[1, 2]", "one record a line", "line of another form"),
    "another record": (json.dumps(AIPERF[0]), "of another form", "line of another form"),
}  # fmt: skip
BAD_CELLS = {
    "cells": ("2023-11-16 18:15:46.68,374", "found 2 cells; allowed: 3", "cells missing or too many"),
    "stamp": ("2023-99-16 18:15:46.68,374,44", "timestamp: found '2023-99", "not a time"),
    "number": ("2023-11-16 18:15:46.68,3_0,44", "contexttokens: found '3_0'", "not a number"),
    "again the columns": ("TIMESTAMP,ContextTokens,GeneratedTokens", "contexttokens: found", "line of another form"),
    "a record": (GOOD, "rows as the first", "line of another form"),
}


@pytest.mark.parametrize(
    ("first", "line", "says", "kind"),
    [
        *(pytest.param(GOOD + "\n", *bad, id=name) for name, bad in BAD.items()),
        *(pytest.param(AZURE, *bad, id=name) for name, bad in BAD_CELLS.items()),
    ],
)
def test_a_bad_line_is_told_with_its_place_or_counted(
    first: str, line: str, says: str, kind: str, tmp_path: Path
) -> None:
    path = put(tmp_path, first + line + "\n" + first.splitlines()[-1] + "\n")
    with pytest.raises(DataError) as refused:
        load_workload(path)
    (told,) = str(refused.value).splitlines()
    assert told.startswith(f"{path}:{first.count(chr(10)) + 1}: ")
    assert says in told
    assert "allowed: " in told or "required" in told
    assert len(told) < 1100
    found = load_workload(path, skip_bad=True)
    assert found.skipped == 1
    assert f"left out 1 lines: 1 {kind}" in found.remarks


def test_bytes_that_are_no_text_are_told(tmp_path: Path) -> None:
    for held, says in ((b"\xff\xfe", "not UTF-8 at byte 0"), (b"\0", "zero byte")):
        path = put(tmp_path, GOOD.encode() + b"\n" + held + b"\n")
        with pytest.raises(DataError, match=says):
            load_workload(path)
        assert load_workload(path, skip_bad=True).requests == 1


def test_twenty_faults_are_told_and_reading_stops(tmp_path: Path) -> None:
    path = put(tmp_path, GOOD + "\n" + "{}\n" * 500)
    with pytest.raises(DataError) as refused:
        load_workload(path)
    told = str(refused.value).splitlines()
    assert len(told) == 21
    assert "--skip-bad" in told[-1]
    assert load_workload(path, skip_bad=True).skipped == 500
    with pytest.raises(DataError, match="no request is left"):
        load_workload(put(tmp_path, "isl,osl\n0,1\n" * 2), skip_bad=True)


@pytest.mark.parametrize(
    ("held", "says"),
    [
        (b"", "the file is empty"),
        (b"\n \n", "the file is empty"),
        (b"\x89PNG\r\n\x1a\n\0\0", "binary"),
        (bytes(range(128, 256)), "binary or not UTF-8"),
        (b"hello\n", "found 'hello'; allowed: Mooncake"),
        (b"a,b,c\n1,2,3\n", "allowed: Mooncake"),
        (b'{"schema": "moeplan.step/1"}', "allowed: Mooncake"),
        (b'{"a": ' * 50_000, "allowed: Mooncake"),
        (b'{"input_lens": [1], "output_lens": 3}', "output_lens: found other than one entry"),
        (b'{"input_lens": [1, -4], "output_lens": [2, 3]}', "input_lens.1: found -4"),
    ],
)
def test_what_is_no_workload_is_one_clear_line(held: bytes, says: str, tmp_path: Path) -> None:
    path = put(tmp_path, held)
    with pytest.raises(DataError) as refused:
        load_workload(path)
    (told,) = str(refused.value).splitlines()
    assert says in told
    assert told.startswith(f"{path}:1: ")


@pytest.mark.parametrize("path", [".", "/dev/zero", "none.jsonl", "a\0b", "x" * 300])
def test_what_cannot_be_read_is_one_clear_line(path: str) -> None:
    with pytest.raises(UsageError) as refused:
        load_workload(Path(path))
    assert "\n" not in str(refused.value)


def test_a_long_file_fills_no_memory(tmp_path: Path) -> None:
    """4 MB of text: 16 bytes a request are kept, and arrays made of them, not what JSON made."""
    line = '{"timestamp": %d, "input_length": 1000, "output_length": 100, "comment": "' + "x" * 400 + '"}\n'
    path = put(tmp_path, "".join(line % (at * 1000) for at in range(8_000)))
    tracemalloc.start()
    found = load_workload(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.requests == 8_000
    assert peak < 2_500_000


def test_what_is_too_much_is_left_out_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workloads, "MOST_BLOCKS", 6)
    found = load_workload(put(tmp_path, lines(MOONCAKE)))
    assert found.blocks is not None
    assert (found.requests, found.blocks.requests) == (3, 2)
    curve = found.hits()
    assert curve is not None
    assert curve.most == pytest.approx(1024 / 2600)
    monkeypatch.setattr(workloads, "MOST_REQUESTS", 2)
    found = load_workload(put(tmp_path, lines(MOONCAKE)))
    assert found.requests == 2
    assert any("the rest of the file is left out" in text for text in found.remarks)
    monkeypatch.setattr(workloads, "LONGEST", 70)
    with pytest.raises(DataError, match=":2: line: longer than"):
        load_workload(put(tmp_path, GOOD + "\n" + GOOD.replace("}", " " * 90 + "}\n") + GOOD))


def test_a_clock_a_little_back_is_sorted_with_its_blocks(tmp_path: Path) -> None:
    found = load_workload(put(tmp_path, lines([MOONCAKE[0], MOONCAKE[2], MOONCAKE[1]])))
    assert found.isl.tolist() == [1100, 1500, 600]
    assert found.blocks is not None
    assert found.blocks.ids.tolist() == [0, 1, 2, 0, 1, 3, 4, 5]
    assert any(text.startswith("sorted by time: 1 requests") for text in found.remarks)


def test_ticks_are_spread_evenly_and_told(tmp_path: Path) -> None:
    records = [{"timestamp": 3000 * (at // 4) + at % 2, "input_length": 9, "output_length": 9} for at in range(80)]
    records = [{**one, "timestamp": one["timestamp"] // 3000 * 3000 + at // 4 % 2} for at, one in enumerate(records)]
    found = load_workload(put(tmp_path, lines(records)))
    assert found.arrivals is not None
    assert np.diff(found.arrivals) == pytest.approx(0.75, abs=2e-3)
    assert any("ticks of 3 s" in text for text in found.remarks)
    fine = [{**one, "timestamp": 700 * at} for at, one in enumerate(records)]
    assert not any("ticks" in text for text in load_workload(put(tmp_path, lines(fine))).remarks)


# --- statistics --------------------------------------------------------------------------------------


def test_moments_and_statistics_are_those_of_loops() -> None:
    draw = np.random.default_rng(1)
    isl, osl = draw.integers(1, 5000, 300), draw.integers(1, 900, 300)
    one = Workload(name="x", isl=isl, osl=osl)
    pairs = list(zip(isl.tolist(), osl.tolist(), strict=True))
    for a, b in ((1, 0), (0, 1), (1, 1), (0, 2), (2, 1), (1, 2), (0, 3), (2, 0)):
        assert one.moment(a, b) == pytest.approx(sum(i**a * o**b for i, o in pairs) / 300)
    mean = sum(i for i, _ in pairs) / 300
    spread = (sum((i - mean) ** 2 for i, _ in pairs) / 300) ** 0.5
    assert (one.inputs.mean, one.inputs.cv) == (pytest.approx(mean), pytest.approx(spread / mean))
    assert one.inputs.largest == max(isl)
    assert sorted(isl)[149] <= one.inputs.p50 <= sorted(isl)[150]
    assert one.correlation == pytest.approx(np.corrcoef(isl, osl)[0, 1])
    assert (one.rate, one.gap_cv, one.dispersion(10.0), one.peak_rate(10.0), one.hits()) == (None,) * 5


def test_arrivals_are_counted_as_loops_count_them() -> None:
    times = np.sort(np.random.default_rng(2).uniform(0, 500, 400))
    times -= times[0]
    for window in (1.0, 10.0, 60.0):
        whole = int(times[-1] // window)
        counts = [sum(k * window <= t < (k + 1) * window for t in times) for k in range(whole)]
        mean = sum(counts) / whole
        variance = sum((n - mean) ** 2 for n in counts) / whole
        assert dispersion(times, window) == pytest.approx(variance / mean)
        busiest = max(sum(begin <= t < begin + window for t in times) for begin in times)
        assert peak_rate(times, window) == pytest.approx(busiest / window)
    found = arrival_statistics(times)
    assert found.rate == pytest.approx(399 / times[-1])
    assert found.gap_cv == pytest.approx(np.diff(times).std() / np.diff(times).mean())
    assert set(found.peaks) == {1.0, 10.0, 60.0}


def test_hours_of_several_days_are_added_up() -> None:
    times = np.arange(0, 50 * 3600, 600.0)  # two days and two hours, but for the last ten minutes
    found = arrival_statistics(times)
    assert len(found.hour_requests) == 24
    assert found.hour_requests == (18, 18, *(12,) * 22)
    assert sum(found.hour_seconds) == pytest.approx(times[-1])
    assert found.hour_rates[5] == pytest.approx(1 / 600)


def test_one_request_and_requests_all_at_once_have_no_rate() -> None:
    for times in (np.zeros(1), np.zeros(5)):
        found = arrival_statistics(times)
        assert (found.rate, found.gap_cv, found.dispersion, found.peaks) == (None, None, {}, {})
        assert found.hour_rates == (None,)


def test_lognormal_lengths_have_the_mean_and_spread_asked_for() -> None:
    for isl, isl_cv, osl, osl_cv in ((4096, 1.0, 512, 0.5), (300, 3.0, 50, 1.5), (8000, 0.0, 200, 0.1)):
        found = lognormal(isl, isl_cv, osl, osl_cv, requests=4000)
        for one, mean, cv in ((found.inputs, isl, isl_cv), (found.outputs, osl, osl_cv)):
            assert one.mean == pytest.approx(mean, rel=0.01)
            assert one.cv == pytest.approx(cv, rel=0.01, abs=1e-9)
        assert min(found.isl.min(), found.osl.min()) >= 1
    assert lognormal(900, 1, 90, 1, seed=3).isl.tolist() == lognormal(900, 1, 90, 1, seed=3).isl.tolist()
    for wanted in (0.6, -0.3):
        assert lognormal(900, 1, 90, 1, correlation=wanted, requests=20_000).correlation == pytest.approx(
            wanted, abs=0.05
        )
    assert lognormal(9, 0, 2, 0, requests=1).requests == 1
    for wrong in (
        {"isl_mean": 0.5},
        {"isl_cv": -1},
        {"correlation": -0.9},
        {"isl_cv": 0, "correlation": 0.5},
        {"isl_cv": 60},
    ):
        with pytest.raises(UsageError):
            lognormal(**{"isl_mean": 100, "isl_cv": 1, "osl_mean": 10, "osl_cv": 1} | wrong)
    assert equal(100, 7).outputs.cv == 0


# --- prefix caches -----------------------------------------------------------------------------------


def by_loops(
    prompts: list[list[int]], lengths: list[int], size: int, pool: int, work: Callable[[float], float]
) -> float:
    """Replay a cache of a size: a block is found where it is held and all before it are; the last used first leaves."""
    cache: OrderedDict[tuple[int, ...], None] = OrderedDict()
    saved = 0.0
    for prompt, tokens in zip(prompts, lengths, strict=True):
        keys = [tuple(prompt[: at + 1]) for at in range(len(prompt))]
        hits = 0
        while hits < len(keys) and keys[hits] in cache:
            hits += 1
        saved += work(min(hits * size, tokens))
        for key in reversed(keys):
            cache.pop(key, None)
            cache[key] = None
            if len(cache) > pool:
                cache.popitem(last=False)
    return saved / sum(map(work, lengths))


def prompts_of(draw: random.Random, chained: bool) -> list[list[int]]:
    """Prompts that share beginnings, and blocks elsewhere where ids say nothing of what is before them."""
    found: list[list[int]] = []
    for _ in range(draw.randrange(1, 60)):
        head = draw.choice(found) if found and draw.random() < 0.7 else []
        more = [len(found) * 10 + k if chained else draw.randrange(4) for k in range(draw.randrange(0, 5))]
        found.append(head[: draw.randrange(len(head) + 1)] + more)
    return found


@pytest.mark.parametrize("seed", range(12))
def test_prefix_hits_of_every_size_are_those_of_a_cache_that_is_replayed(seed: int) -> None:
    draw = random.Random(seed)
    prompts, size = prompts_of(draw, chained=seed % 2 == 0), 16
    lengths = [max(1, size * len(one) - draw.randrange(size)) for one in prompts]
    blocks = Blocks(
        ids=np.array([key for one in prompts for key in one], np.int64),
        offsets=np.cumsum([0, *map(len, prompts)]),
    )
    linear, quadratic = (1.0, 0.0) if seed % 3 else (0.5, 0.01)
    for merge in (1, 2, 4):
        curve = hit_curve(
            blocks=blocks,
            lengths=np.array(lengths),
            block_tokens=size,
            merge=merge,
            linear=linear,
            quadratic=quadratic,
        )
        merged = [[hash(tuple(one[at : at + merge])) for at in range(0, len(one), merge)] for one in prompts]
        for pool in (0, 1, 2, 3, 5, 8, 13, 40, 400):
            wanted = by_loops(
                merged, lengths, size * merge, pool, lambda tokens: linear * tokens + quadratic * tokens**2
            )
            assert curve.at(pool) == pytest.approx(wanted, abs=1e-12), (merge, pool)
        assert curve.most == curve.at(10**9)


def test_less_work_is_saved_than_tokens_are_found(tmp_path: Path) -> None:
    found = load_workload(put(tmp_path, lines(MOONCAKE)))
    tokens, work = found.hits(), found.work_saved(linear=1.0, quadratic=1e-3)
    assert tokens is not None
    assert work is not None
    assert 0 < work.most < tokens.most


# --- summaries ---------------------------------------------------------------------------------------


def came_back(one: Workload, folder: Path) -> Workload:
    to = target(str(folder / "summary.yaml"), option="-o", suffixes=(".yaml",), force=True)
    write_workload(to, one)
    assert to.path.stat().st_size < 50_000
    return load_workload(to.path)


def trace(requests: int = 3000) -> Workload:
    few = requests < 100
    made = lognormal(6000, 0.4 if few else 1.5, 300, 0.3 if few else 0.8, correlation=0.3, requests=requests)
    draw = np.random.default_rng(5)
    counts = -(-made.isl // 512)
    offsets = np.concatenate(([0], np.cumsum(counts)))
    ids = np.arange(offsets[-1])
    for at in range(1, requests):  # the first blocks of an earlier prompt
        other = draw.integers(0, at)
        shared = min(counts[at], counts[other], draw.integers(0, 9))
        ids[offsets[at] : offsets[at] + shared] = ids[offsets[other] : offsets[other] + shared]
    arrivals = np.cumsum(draw.exponential(2.0, requests))
    return Workload(
        name="made: by hand #1",
        isl=made.isl,
        osl=made.osl,
        arrivals=arrivals - arrivals[0],
        blocks=Blocks(ids=ids, offsets=offsets),
        block_tokens=512,
        skipped=3,
        remarks=("a remark: with a colon",),
    )


@pytest.mark.parametrize("requests", [2, 7, 3000])
def test_a_summary_comes_back_as_what_it_stands_for(requests: int, tmp_path: Path) -> None:
    one = trace(requests)
    two = came_back(one, tmp_path)
    assert (two.name, two.requests, two.skipped, two.remarks) == (one.name, requests, 3, one.remarks)
    for first, second in ((one.inputs, two.inputs), (one.outputs, two.outputs)):
        for key in ("mean", "cv", "p50", "p90", "p99", "largest"):
            assert getattr(second, key) == pytest.approx(getattr(first, key), rel=0.02), key
    if requests > 100:
        for a, b in ((1, 1), (0, 2), (2, 0), (1, 2), (2, 1)):
            assert two.moment(a, b) == pytest.approx(one.moment(a, b), rel=0.05)
        assert two.correlation == pytest.approx(one.correlation, abs=0.02)
    assert (two.rate, two.gap_cv) == (pytest.approx(one.rate, rel=1e-5), pytest.approx(one.gap_cv, rel=1e-5))
    for window in (10.0, 60.0):
        for first, second in (
            (one.dispersion(window), two.dispersion(window)),
            (one.peak_rate(window), two.peak_rate(window)),
        ):
            assert (first is None) == (second is None)
            assert (second or 0.0) == pytest.approx(first or 0.0, rel=1e-5)
    for merge in (1, 2, 4):
        known, found = one.hits(merge), two.hits(merge)
        assert known is not None
        assert found is not None
        assert found.block_tokens == 512 * merge
        for blocks in (0, 10, 100, 1000, 10**6):
            assert found.at(blocks) == pytest.approx(known.at(blocks), abs=0.02)
    again = came_back(two, tmp_path)
    assert again.inputs.mean == pytest.approx(one.inputs.mean, rel=0.02)


def test_a_summary_of_more_than_is_held_is_as_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from perfmodel.specs import workload_summary

    monkeypatch.setattr(workload_summary, "HELD", 2000)
    one = lognormal(6000, 0.9, 300, 0.6, requests=7000)
    two = came_back(one, tmp_path)
    assert two.requests == 2000
    assert "2,000 requests stand for 7,000" in two.remarks
    for first, second in ((one.inputs, two.inputs), (one.outputs, two.outputs)):
        for key in ("mean", "cv", "p50", "p90", "p99"):
            assert getattr(second, key) == pytest.approx(getattr(first, key), rel=0.02), key


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("requests",), 0, "requests: found 0"),
        (("nam",), 1, "nam: unknown key"),
        (("isl", "tokens"), [5, 4], "allowed: "),
        (("isl", "levels"), [0, 1.5], "isl.levels.1: found 1.5"),
        (("pairs",), [[1]], "pairs: found other than"),
        (("arrivals", "peaks"), {"7 s": 1}, "the window '7 s'"),
        (("prefix_hits", 0, "found"), [0.5], "one share for each size"),
        (("format",), "moeplan.workload/9", "found 'moeplan.workload/9'"),
    ],
)
def test_a_damaged_summary_is_refused(path: tuple[Any, ...], value: Any, says: str, tmp_path: Path) -> None:
    came_back(trace(40), tmp_path)
    data = yaml.safe_load((tmp_path / "summary.yaml").read_text())
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(MoeplanError) as refused:
        load_workload(put(tmp_path, yaml.safe_dump(data, sort_keys=False)))
    assert says in str(refused.value)


# --- the command -------------------------------------------------------------------------------------


def test_the_command_shows_and_writes_what_it_read(moeplan: Run, tmp_path: Path) -> None:
    path, out = put(tmp_path, lines(MOONCAKE) + "{}\n", "trace.jsonl"), tmp_path / "load.yaml"
    refused = moeplan("workload", str(path))
    assert (refused.returncode, refused.stdout) == (4, "")
    assert refused.stderr.startswith(f"error: {path}:4: input_length: is missing")
    done = moeplan("workload", str(path), "--skip-bad", "-o", str(out), "--format", "json")
    assert done.returncode == 0, done.stderr
    assert "left out 1 lines: 1 key missing" in done.stderr
    facts = json.loads(done.stdout)["facts"]
    assert (facts["requests"], facts["skipped"], facts["block_tokens"]) == (3, 1, 512)
    assert facts["prefix_hits"] == pytest.approx(1024 / 3200)
    summary = moeplan("workload", str(out), "--format", "json")
    first, second = (json.loads(one.stdout)["tables"] for one in (done, summary))
    assert [one["title"] for one in first] == [one["title"] for one in second]
    for row, again in zip(first[0]["rows"], second[0]["rows"], strict=True):
        assert row == pytest.approx(again)
    assert first[-1]["rows"][0] == pytest.approx(second[-1]["rows"][0], abs=1e-4)
    assert moeplan("workload", str(path), "--skip-bad", "-o", str(out)).returncode == 2
    text = moeplan("workload", str(path), "--skip-bad", "-o", str(out), "--force").stdout
    assert "input tokens" in text
    assert "found, blocks of 1024" in text
    missing = moeplan("workload", str(tmp_path))
    assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)


def test_every_text_of_the_command_has_a_translation(moeplan: Run, tmp_path: Path) -> None:
    days = "Timestamp,Request tokens,Response tokens\n" + "".join(f"{t},{t % 7 + 9},8\n" for t in range(0, 90_000, 450))
    burst = "Timestamp,Request tokens,Response tokens\n" + "".join(f"{t / 9},9,{t}\n" for t in [*range(1, 9), 9999])
    for text in (lines(MOONCAKE * 9).replace('"timestamp"', '"t"'), lines(MOONCAKE), HISTOGRAM, days, burst):
        document = workload_document(described(str(put(tmp_path, text))))
        for key, found in _texts(json.loads(RENDERERS["json"](document, 100))):
            assert GLOSSARY.find(found, key) is not None, (key, found)
    assert "输入 token" in moeplan("workload", str(put(tmp_path, lines(MOONCAKE))), "--lang", "zh").stdout


@pytest.mark.skipif(not TRACES, reason="MOEPLAN_TRACES names no folder with public traces")
@pytest.mark.parametrize(
    ("name", "requests", "isl", "osl"),
    [("mooncake_conversation.jsonl", 12_031, 12_035, 343), ("azure_2023_conv.csv", 19_366, 1_155, 211)],
)
def test_public_traces_are_read_as_published(name: str, requests: int, isl: int, osl: int, tmp_path: Path) -> None:
    one = load_workload(Path(str(TRACES)) / name)
    assert (one.requests, round(one.inputs.mean), round(one.outputs.mean)) == (requests, isl, osl)
    two = came_back(one, tmp_path)
    for first, second in ((one.inputs, two.inputs), (one.outputs, two.outputs)):
        for key in ("mean", "cv", "p50", "p90", "p99"):
            assert getattr(second, key) == pytest.approx(getattr(first, key), rel=0.02), key
    if (curve := one.hits()) is not None:
        published = {1_000: 4.5, 5_000: 11.3, 10_000: 21.5, 20_000: 29.3, 50_000: 36.2, 182_790: 37.4}
        for blocks, share in published.items():
            assert 100 * curve.at(blocks) == pytest.approx(share, abs=0.7)
