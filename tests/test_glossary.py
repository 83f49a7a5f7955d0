"""The glossary: every label, section and column that the main commands print is defined there, in both languages."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from perfmodel.files import pages
from perfmodel.report.language import Glossary
from tests.conftest import Run

DOCS = Path(__file__).resolve().parent.parent / "docs"
ROW = "cm384-decode-4k-b96"
SOLVE = "solve deepseek-v3 --on cm384 --isl 1024 --osl 512"
ASKED = {
    "solve": f"{SOLVE} --cards 64 --tpot 50ms --ttft 2s --rate 20 --price 2 --confidence 0.9",
    "solve-mixed": f"{SOLVE} --cards 32 --tpot 50ms --ttft 5s --serving mixed",
    "solve-none": f"{SOLVE} --cards 32 --tpot 2ms",
    "explain": f"explain {ROW}",
    "explain-prefill": "explain seed-prefill-16x",
    "measured": f"explain {ROW} --measured tpot=120ms",
    "what-if": f"what-if {ROW} --only mtp,amla --pairs",
    "reach": f"what-if {ROW} --reach tpot=46ms,batch=48",
    "validate": f"validate {ROW} seed-prefill-16x",
}
#: words that mean here what they mean everywhere
PLAIN = frozenset(
    "cards input kind numbers one other phase quantity ratio servers share source to total unit value why".split()
)


def _terms(page: str) -> set[str]:
    """Return the first cell of every line of a table, one term for each part of it."""
    text = (DOCS / page).read_text(encoding="utf-8")
    cells = re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)
    apart = [part for cell in cells for part in re.split(r"[,;；、] ?", cell)]
    return {one.strip().lower() for one in (*cells, *apart)}


def _words(document: dict[str, Any]) -> set[str]:
    """Return what labels the lines of an answer, the sections and the columns."""
    found = {line["what"] for line in document["answer"]}
    for table in document["tables"]:
        title = re.sub(r"^Timeline of one .*", "Timeline of one layer", table["title"])
        found |= {title.removesuffix(": above is slow"), *(column["title"] for column in table["columns"])}
    return found - {""}


@pytest.mark.parametrize("name", ASKED)
def test_every_word_of_the_output_is_in_the_glossary(name: str, moeplan: Run) -> None:
    document = json.loads(moeplan(*ASKED[name].split(), "--format", "json").stdout)
    terms = _terms("glossary.md") | PLAIN
    missing = {one for one in _words(document) if one.lower() not in terms and not _of_parts(one.lower(), terms)}
    assert missing == set()


def _of_parts(text: str, terms: set[str]) -> bool:
    """Return whether a title that has commas itself is made of terms alone."""
    return all(part in terms for part in re.split(r"[,;] ?", text))


def test_no_plain_word_is_defined_as_well_and_each_verdict_is_there() -> None:
    terms = _terms("glossary.md")
    assert PLAIN & terms == set()
    assert {"✓ met", "~ likely", "✗ more likely missed", "✗ missed", "tie", "doubt", "of light"} <= terms


@pytest.mark.parametrize("name", ["solve", "measured", "reach", "validate"])
def test_every_label_of_an_answer_is_in_the_chinese_glossary(name: str, moeplan: Run) -> None:
    document = json.loads(moeplan(*ASKED[name].split(), "--format", "json").stdout)
    glossary, terms = Glossary.of(pages.glossary("zh")), _terms("glossary.zh-CN.md")
    labels = {line["what"] for line in document["answer"]} - {""}
    assert {one for one in labels if glossary.say(one, "what").lower() not in terms} == set()
