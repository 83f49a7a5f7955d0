"""The answer: said first, in a third of a screen, with its sign, chance and known error; all else behind --show."""

import csv
import io
import json
import re
from dataclasses import replace

import pytest

from perfmodel.files.known_errors import as_csv, known_errors
from perfmodel.planning.known_errors import errors_found, trust_of
from perfmodel.planning.published import row_on_file
from perfmodel.report.limit_words import time_line
from perfmodel.report.parts import asked_for, opened, parts_of
from perfmodel.report.table import Column, Document, Table, answer_table, in_part
from perfmodel.report.text_table import SCREEN, to_table
from perfmodel.report.trust import off, trust_rows
from perfmodel.scoring.known_errors import error_of_kind
from tests.conftest import Run

SOLVE = "solve deepseek-v3 --on cm384 --cards 32 --isl 1024 --osl 512 --tpot 50ms"
ROW = "cm384-decode-4k-b96"
ASKED = {
    "solve": SOLVE,
    "solve-rate": "solve deepseek-v3 --on cm384 --rate 20 --isl 1024 --osl 512 --tpot 50ms --ttft 2s --price 2",
    "solve-mixed": "solve deepseek-v3 --on cm384 --cards 32 --isl 1024 --osl 512 --tpot 50ms --serving mixed",
    "solve-none": "solve deepseek-v3 --on cm384 --cards 32 --isl 1024 --osl 512 --tpot 2ms",
    "explain": f"explain --evidence {ROW}",
    "explain-prefill": "explain --evidence cm384-prefill-default",
    "what-if": f"what-if {ROW}",
    "what-if-few": f"what-if {ROW} --only mtp,amla",
    "reach": f"what-if {ROW} --reach tpot=46ms,batch=48",
    "compare": f"compare {ROW} xds-colocated-decode",
    "compare-systems": "compare-systems qwen3-30b-a3b --on cm384,atlas-800t-a3 --isl 1k --osl 512 --cards 16",
    "gains": "gains",
    "validate-few": f"validate {ROW}",
}
LONGEST = 14  # lines of an answer at 80 columns


def _answer_lines(text: str) -> list[str]:
    """Return the lines of the answer, which stands between the first two empty lines."""
    return text.split("\n\n")[1].splitlines()


@pytest.mark.parametrize("name", ASKED)
def test_what_is_not_asked_for_fits_a_screen_and_the_answer_a_third(name: str, moeplan: Run) -> None:
    text = moeplan(*ASKED[name].split(), COLUMNS="80").stdout
    assert len(text.splitlines()) <= SCREEN
    lines = _answer_lines(text)
    assert lines[0].startswith("answer")
    whole = {"solve-rate": 3}  # each of three limits may wrap once more
    assert len(lines) <= LONGEST + whole.get(name, 0)


@pytest.mark.parametrize("name", ASKED)
def test_all_holds_every_table_and_note_and_the_answer_stands_at_both_ends(name: str, moeplan: Run) -> None:
    words = ASKED[name].split()
    document = json.loads(moeplan(*words, "--format", "json").stdout)
    text = moeplan(*words, "--show", "all", COLUMNS="120").stdout
    flat = " ".join(text.split())
    for table in document["tables"]:
        assert not table["rows"] or " ".join(table["title"].split()) in flat
    for note in document["notes"]:
        assert " ".join(note.split()) in flat
    first = f"{'answer':{max(len(line['what']) for line in document['answer'])}}"
    again = text.count(f"\n{first}   ")
    assert again == (2 if len(text.splitlines()) > 2 * SCREEN else again)
    if len(text.splitlines()) > 2 * SCREEN:
        assert text.rstrip().endswith(_answer_lines(text)[-1].strip())


def test_a_section_a_table_and_several_are_shown_alone(moeplan: Run) -> None:
    memory = moeplan(*SOLVE.split(), "--show", "memory").stdout
    assert "KV cache" in memory and "answer" not in memory and "Targets" not in memory
    both = moeplan(*SOLVE.split(), "--show", "targets,memory", "--show", "answer").stdout
    assert "Targets" in both and "KV cache" in both and "\nanswer" in both and "Totals" not in both
    assert "candidate plans" in moeplan(*SOLVE.split(), "--show", "notes").stdout


def test_an_unknown_part_is_refused_with_all_that_are_there(moeplan: Run) -> None:
    done = moeplan(*SOLVE.split(), "--show", "memroy")
    assert done.returncode == 2 and done.stdout == ""
    assert "--show: 'memroy' is no part of this result; did you mean 'memory'?; allowed: plan, ttft" in done.stderr


def test_csv_of_one_table_is_one_table_with_ends_of_intervals_as_numbers(moeplan: Run) -> None:
    text = moeplan(*SOLVE.split(), "--show", "targets", "--format", "csv").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["target"] for row in rows] == ["TPOT", "TTFT"]
    assert float(rows[0]["low90"]) < float(rows[0]["value"]) < float(rows[0]["high90"])
    assert not any("interval" in key for key in rows[0])


def test_hypothetical_numbers_are_in_the_answer(moeplan: Run) -> None:
    lines = _answer_lines(moeplan(*SOLVE.split(), "--set", "hbm=+50%").stdout)
    assert any("hbm=+50%" in line for line in lines)


@pytest.mark.parametrize(
    ("value", "chance", "sign", "word"),
    [
        (0.04, 0.8, "✓", "met"),
        (0.04, 0.7999, "~", "likely"),
        (0.04, 0.5, "~", "likely"),
        (0.04, 0.4999, "✗", "more likely missed"),
        (0.06, 0.3, "✗", "missed"),
        (0.04, None, "✓", "met"),
        (0.06, None, "✗", "missed"),
    ],
)
def test_the_sign_of_a_limit_follows_its_chance(value: float, chance: float | None, sign: str, word: str) -> None:
    line = time_line(value, 0.05, chance, None)
    assert line.startswith(f"{sign} ")
    assert line.split(": ")[1].split(",")[0] == word


# --- parts, of a document made up --------------------------------------------------------------------


def _document() -> Document:
    table = Table("T", (Column("n", "n", "1"),), ({"n": 1},))
    return Document(
        schema="moeplan.made-up/1",
        title="Made up",
        tables=(*in_part("one", a=table, b=replace(table, title="U")), *in_part("two", c=replace(table, rows=()))),
        notes=("a note",),
        answer=answer_table([("answer", "42"), ("next", "--show one")]),
        opening=("a",),
    )


def test_parts_are_sections_then_tables_and_none_that_are_empty() -> None:
    assert parts_of(_document()) == ["one", "notes", "a", "b"]


def test_what_opens_and_what_is_kept_back_are_the_whole() -> None:
    shown, kept = opened(_document())
    assert [table.title for table in shown.tables] == ["T"]
    assert kept == ("notes",)  # a section of which a part is shown is not named again
    whole = asked_for(_document(), ["all"])
    assert len(whole.tables) == 3 and whole.notes and whole.answer


def test_the_answer_is_repeated_only_below_more_than_a_screen() -> None:
    document = _document()
    assert to_table(document, 80).count("42") == 1
    rows = tuple({"n": number + 1000} for number in range(SCREEN))
    long = replace(document, tables=tuple(replace(table, rows=rows) for table in document.tables[:1]))
    assert to_table(long, 80).count("answer   42") == 2


# --- known errors ------------------------------------------------------------------------------------


def test_the_file_of_known_errors_is_what_validate_finds(validated) -> None:
    """Write it anew with benchmarks/update_docs.py."""
    found = errors_found(validated.scores)
    words = [replace(one, dies=0, tokens=0, context=0, slow=0) for one in known_errors()]
    assert words == [replace(one, dies=0, tokens=0, context=0, slow=0) for one in found]
    for key in ("dies", "tokens", "context", "slow"):
        on_file = [getattr(one, key) for one in known_errors()]
        assert on_file == pytest.approx([getattr(one, key) for one in found], rel=1e-3, abs=1e-4)
    whole = next(
        one
        for one in json.loads(validated.printed["json"])["facts"]["summaries"]
        if (one["predicted"], one["by"]) == ("left out", "all")
    )
    slow = [one.slow for one in known_errors()]
    assert len(slow) == whole["results"]
    assert sum(map(abs, slow)) / len(slow) == pytest.approx(whole["mean"], rel=1e-3)


def test_known_errors_are_written_as_they_are_read() -> None:
    lines = as_csv(known_errors()).splitlines()
    assert len(lines) == len(known_errors()) + 1
    assert lines[0].startswith("row,source,kind,phase")


def test_the_nearest_row_of_a_published_step_is_itself() -> None:
    row = row_on_file(ROW)
    found = trust_of(row.resolved.plan, row.machine, row.resolved.scenario.case, deployment=True)
    assert found.near is not None
    assert (found.near.row, found.near.far) == (ROW, pytest.approx(0.0, abs=1e-3))
    text = " ".join(text for _, text in trust_rows(found))
    assert ROW in text and re.search(r"\d+ decode rows \d+ % off, ", text) and "deployments" in text


def test_an_error_is_told_of_the_narrowest_kind_that_has_three_numbers() -> None:
    errors = known_errors()
    of_model = error_of_kind("decode", model="deepseek-v3", chip="ascend-910c-752", errors=errors)
    assert of_model is not None and (of_model.model, of_model.chip) == ("deepseek-v3", "ascend-910c-752")
    of_chip = error_of_kind("decode", model="none-such", chip="ascend-910c-752", errors=errors)
    assert of_chip is not None and (of_chip.model, of_chip.chip) == (None, "ascend-910c-752")
    of_all = error_of_kind("decode", model="none-such", chip="none-such", errors=errors)
    assert of_all is not None and (of_all.model, of_all.chip) == (None, None)
    assert of_all.numbers == sum(one.phase == "decode" for one in errors)
    assert error_of_kind("no phase", model="x", chip="y", errors=errors) is None


def test_a_small_error_is_as_measured_and_signs_are_words() -> None:
    assert [off(0.004), off(-0.006), off(0.25)] == ["as measured", "1 % fast", "25 % slow"]
