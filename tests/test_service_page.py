"""The page on waiting is as the benchmark writes it, and the benchmark's forms are those of the program."""

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import pages
from benchmarks import service as benchmark
from perfmodel.service.records import DecodePool, Requests, Service
from perfmodel.service.replay import replay

PAGE = Path(__file__).resolve().parent.parent / "docs" / "service.md"
COLUMNS = {"summary": len(benchmark.SUMMARY), "reasons": len(benchmark.REASONS)}


def tables() -> dict[str, list[list[str]]]:
    text = PAGE.read_text(encoding="utf-8")
    found = {}
    for name in ("summary", "reasons", *benchmark.PARTS):
        assert text.count(f"<!-- {name} -->\n") == 2, name
        lines = text.split(f"<!-- {name} -->\n")[1].strip().splitlines()
        found[name] = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return found


def test_every_table_has_its_columns_and_rows() -> None:
    for name, (head, rule, *rows) in tables().items():
        words = len(benchmark.ROW_WORDS.get(name, ("",)))
        assert all(set(cell) <= set("-:") for cell in rule), name
        assert head[:words] == list(benchmark.ROW_WORDS.get(name, head[:1])), name
        assert rows, name
        assert {len(row) for row in rows} == {len(head)}, name
        assert len(head) == COLUMNS.get(name, len(head)), name


def test_cells_are_errors_as_the_page_says() -> None:
    cell = re.compile(r"[+-]\d+( x)?(, [+-]\d+( x)?)*( \(out\))?")
    found = tables()
    for name in benchmark.PARTS:
        words = len(benchmark.ROW_WORDS[name])
        for row in found[name][2:]:
            assert all(cell.fullmatch(one) for one in row[words:]), row


def test_the_summary_has_every_quantity_with_its_bar() -> None:
    rows = {row[0]: row for row in tables()["summary"][2:]}
    assert set(rows) == set(benchmark.BARS)
    for quantity, (bar, asked) in benchmark.BARS.items():
        assert rows[quantity][1:3] == [f"{bar:.0%}", f"{asked:.0%}"]


def test_rows_are_kept_by_their_first_cell(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    case = benchmark.Case("prefill capacity", ("A3 tp16",), "equal", 1.1, 1.0, ("why",))
    assert not case.held
    pages.keep(page, "summary", benchmark.SUMMARY, benchmark.summary([case]))
    text = page.read_text(encoding="utf-8")
    assert "| prefill capacity | 4% | 100% | 1 | 0% | 0 | - | 10.0% | 10% |" in text
    assert text.count("\n| decode TPOT mean |") == 1
    assert benchmark.detail("capacity", [case])[1] == [["A3 tp16", "+10 x (out)"]]
    assert benchmark.reasons([case]) == [["prefill: why", "1", "100%"]]


@pytest.mark.parametrize("load", [0.3, 0.6])
def test_a_short_decode_run_is_near_its_form(load: float) -> None:
    """One of the cases of the page, small: sixteen dies of four ranks."""
    step, ranks = benchmark.decode_of(*benchmark.DECODE["A3 dp4 tp4"])
    isl, osl = benchmark.lengths("equal", 12_000, 1)
    found = benchmark.Moments.of(isl, osl, 1)
    rate = load * ranks / (benchmark.steepness(step, found.context) * found.tokens)
    form = benchmark.DecodeForm(step, ranks, rate, 1.0, found, "least_requests")
    times, _, _ = benchmark.arrivals("equal", 1.0, rate, len(isl), 1)
    served = replay(Requests.of(isl, osl, times), Service(decode=DecodePool(step=step, ranks=ranks)))
    tpot = served.part(0.3, 0.9).tpot
    said, used, _ = form.said()
    assert used < 1
    assert said["mean"] == pytest.approx(tpot.mean(), rel=0.10)
    assert said["p99"] == pytest.approx(np.percentile(tpot, 99), rel=0.15)
