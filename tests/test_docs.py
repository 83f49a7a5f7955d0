"""Citations, formulas and pages: each source has its entry, each formula its example, each page says what is so."""

import importlib
import inspect
import math
import pkgutil
import re
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from perfmodel import formulas
from tests import process
from tests.conftest import pinned

ROOT = Path(__file__).resolve().parent.parent
TRUST = ROOT / "docs" / "trust.md"
KEY = re.compile(r"\[([a-z]+[0-9]{4}[a-z0-9]*)\]")


def _cited() -> set[str]:
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "perfmodel").rglob("*.py"))
    return {key for text in texts for key in KEY.findall(text)}


def _listed() -> list[str]:
    lines = (ROOT / "docs" / "references.md").read_text(encoding="utf-8").splitlines()
    return [match[1] for line in lines if (match := re.match(r"\| \[([^]]+)\] \|", line))]


def _formulas() -> list[Callable[..., Any]]:
    found = []
    for module_info in pkgutil.iter_modules(formulas.__path__, f"{formulas.__name__}."):
        module = importlib.import_module(module_info.name)
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if not name.startswith("_") and function.__module__ == module.__name__:
                found.append(function)
    return found


def test_the_searches_find_something() -> None:
    assert _cited()
    assert _formulas()


def test_every_cited_key_has_an_entry() -> None:
    assert _cited() - set(_listed()) == set()


def test_every_entry_is_cited() -> None:
    assert set(_listed()) - _cited() == set()


def test_every_entry_is_listed_once() -> None:
    assert len(_listed()) == len(set(_listed()))


@pytest.mark.parametrize("function", _formulas(), ids=lambda f: f"{f.__module__.rpartition('.')[2]}.{f.__name__}")
def test_every_formula_has_a_source_and_an_example(function: Callable[..., Any]) -> None:
    text = inspect.getdoc(function) or ""
    assert "Source:" in text
    assert ">>>" in text


@pytest.mark.parametrize("name", ["seed-cm384-decode", "seed-a2-decode-808", "seed-prefill-16x"])
def test_the_page_on_trust_states_todays_predictions(name: str) -> None:
    from perfmodel.planning.published import row_on_file
    from perfmodel.scoring.validation import predictive

    published = row_on_file(name)
    values = predictive(published).values
    rows = [line for line in TRUST.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{name}`")]
    assert len(rows) == len(published.spec.measured)
    for row, measured in zip(rows, published.spec.measured, strict=True):
        value = values[measured.quantity]
        shown = f"{value * 1e3:.0f} ms" if measured.quantity == "latency" else f"{value:,.0f}"
        assert f"| {shown} | {100 * (value / measured.value - 1):+.1f} % |" in row


def test_the_page_on_trust_states_todays_errors_on_all_rows() -> None:
    """Its sentences on rows of one kind, recomputed."""
    from perfmodel.planning.published import rows_on_file
    from perfmodel.scoring.validation import predictive

    errors, golden = {}, []
    for row in rows_on_file():
        first = row.spec.measured[0]
        errors[row.name] = predictive(row).values[first.quantity] / first.value - 1
        if row.role == "golden":
            golden.append(row.name)
    text = " ".join(TRUST.read_text(encoding="utf-8").split())
    decode = ("cm384-decode-1k-b128", "cm384-decode-4k-b96", "cm384-decode-4k-b8", "seed-cm384-decode")
    decode += ("recipe-r1-decode-4k", "xds-colocated-decode")
    prefill = [name for name in golden if "prefill" in name and not name.startswith(("ds-", "sglang-"))]

    def worst(names: Iterable[str]) -> int:
        return math.ceil(100 * max(abs(errors[name]) for name in names))

    assert f"within {worst(decode)} % on six rows" in text
    assert len(prefill) == 9
    assert f"within {worst(prefill)} % on nine rows" in text
    nvidia = [abs(errors[name]) for name in golden if name.startswith(("ds-profile-", "sglang-h100-"))]
    assert len(nvidia) == 6
    assert f"mean error {100 * sum(nvidia) / len(nvidia):.0f} % on six rows" in text
    assert f"worst {100 * max(nvidia):.0f} %" in text


def _found_scores(validated) -> dict[tuple[str, str, str], dict[str, float]]:
    import json

    summaries = json.loads(validated.printed["json"])["facts"]["summaries"]
    return {(one["predicted"], one["by"], one["group"]): one for one in summaries}


def _score_cells(one: dict[str, float]) -> list[str]:
    cells = [str(one["results"]), f"{100 * one['mean']:.1f} %", f"{100 * one['bias']:+.1f} %"]
    return [*cells, f"{100 * one['inside90']:.0f} %"]


def test_the_page_on_trust_states_todays_scores(validated) -> None:
    """A line of a table for each: all numbers and both ways of measuring, left out by source; golden rows in sample."""
    found = _found_scores(validated)
    text = TRUST.read_text(encoding="utf-8")
    for key in (
        ("left out", "all", "all"),
        ("left out", "measured on", "driver"),
        ("left out", "measured on", "service"),
        ("left out", "phase", "deployment"),
        ("in sample", "all", "all"),
    ):
        one = found[key]
        cells = [*_score_cells(one), f"{100 * one['inside50']:.0f} %", f"{100 * one['half']:.0f} %"]
        assert f"| {' | '.join(cells)} | {one['score']:.2f} |" in text, key


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_readme_states_todays_scores(validated, page: str) -> None:
    """A line for each thing that is predicted, and the number of all at the head of them."""
    found = _found_scores(validated)
    text = (ROOT / page).read_text(encoding="utf-8")
    assert re.search(rf"(?m)^{found['left out', 'all', 'all']['results']} ", text)
    kinds = [one for (predicted, by, _), one in found.items() if predicted == "left out" and by == "quantity"]
    assert len(kinds) == 3
    for one in (*kinds, found["left out", "phase", "deployment"]):
        assert f"| {' | '.join(_score_cells(one))} |" in text


def test_the_page_on_the_command_line_is_what_help_prints() -> None:
    """Written anew by benchmarks/update_docs.py."""
    from benchmarks.update_docs import CLI_PAGE, cli_page

    assert CLI_PAGE.read_text(encoding="utf-8") == cli_page()


def test_the_page_on_the_command_line_counts_todays_lines() -> None:
    """Of commands that take no second; all are counted by ``benchmarks/update_docs.py lines``."""
    from benchmarks.lines import FAST, rows
    from benchmarks.update_docs import kept_lines

    def run(words: Sequence[str], columns: str, folder: Path) -> "subprocess.CompletedProcess[str]":
        return process.run(*words, env=pinned(COLUMNS=columns), cwd=folder)

    assert len(FAST) > 5
    assert [one for one in rows(FAST, run) if one not in kept_lines().splitlines()] == []


def test_the_page_on_flags_is_what_the_command_line_reads_by() -> None:
    """Written anew by ``benchmarks/update_docs.py flags``; every spelling that is read stands there."""
    from benchmarks.flags_page import page
    from benchmarks.update_docs import FLAGS_PAGE
    from perfmodel.cli.engine_words import WORDS

    text = FLAGS_PAGE.read_text(encoding="utf-8")
    assert text == page()
    assert [one for word in WORDS for one in word.spellings if f"`--{one}`" not in text] == []


def test_the_page_on_the_command_line_names_every_exit_code() -> None:
    from perfmodel import errors

    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)} == codes


def test_the_floors_are_drawn_as_the_contract_has_them() -> None:
    import tomllib

    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (one["layers"] for one in contracts if one["type"] == "layers")
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    drawing = text[text.index("```text\n__main__") :].split("```")[1].splitlines()[1:]
    drawn = [sorted(names) for line in drawing if (names := line[:40].split())]
    assert drawn == [sorted(name.strip() for name in layer.split("|")) for layer in layers]
