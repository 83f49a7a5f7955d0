"""Results in Chinese: nothing left out or half translated, columns that line up, numbers and names as they are."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from perfmodel.files import folders, pages
from perfmodel.files.catalog import load_stack
from perfmodel.files.folders import FOLDERS, names
from perfmodel.report.language import Glossary
from perfmodel.report.wrap import cells, wrap
from tests.conftest import Run
from tests.test_report import SOLVE, Read

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "perfmodel" / "report" / "html"
CORES, LINK, STAGES = "cm384-decode-4k-b96", "seed-prefill-16x", "xds-disaggregated-decode"
ASKED = "solve deepseek-v3 --on cm384 --isl 1024 --osl 512"
#: what every text of is to be translated
COMMANDS = {
    "solve": f"{ASKED} --cards 32 --tpot 50ms --front",
    "solve-cost": f"{ASKED} --cards 64 --tpot 50ms --ttft 2s --rate 20 --confidence 0.9 --objective cost --price 2",
    "solve-mixed": f"{ASKED} --cards 32 --tpot 50ms --ttft 5s --serving mixed",
    "solve-clients": f"{ASKED} --cards 32 --tpot 50ms --ttft p99=600ms --ttft 3s --goodput 0.9 --osl-cv 0.5",
    "solve-near": f"{ASKED} --cards 32 --tpot 50ms --ttft 500ms --ttft p99=215ms --arrival-cv 2 --routing random",
    "infeasible": f"{ASKED} --cards 32 --tpot 5ms",
    "explain": f"explain --evidence {CORES}",
    "explain-prefill": f"explain --evidence {LINK}",
    "explain-layer": f"explain --evidence {STAGES} --layer moe",
    "explain-tree": f"explain --evidence {CORES} --tree",
    "explain-roofline": f"explain --evidence {CORES} --roofline",
    "explain-compare": f"explain --evidence {CORES} --compare draft=0,batch=64",
    "explain-measured": f"explain --evidence {CORES} --measured tpot=120ms,step=80ms",
    "compare": f"compare {CORES} xds-colocated-decode",
    "compare-systems": "compare-systems qwen3-30b-a3b --on cm384,atlas-800t-a3,atlas-850,atlas-350 --isl 1k --osl 512",
    "compare-none": "compare-systems kimi-k3 --on cm384,atlas-800i-a3 --isl 1k --osl 512 --cards 32 --ttft 2s",
    "what-if": f"what-if {CORES} --pairs",
    "reach": f"what-if {CORES} --reach tpot=46ms,batch=48",
    "validate": "validate",  # of all that is on file, as it was worked out once
    "check": "check hardware/chips/ascend-910c-752.yaml hardware/systems/cloudmatrix384.yaml "
    "hardware/terms/ascend.yaml "
    f"evidence/{CORES}.yaml models/deepseek-v3.yaml models/qwen3-8b.yaml "
    "tests/data/model_configs/gpt-oss-20b.json",
}
#: columns whose cells data files write, or refusals, which stay English
PROSE = {"why", "note", "unit", "case"}
#: words that the field, the machine and its links are named by
FIELD = {
    "dispatch",
    "combine",
    "gather",
    "token",
    "cube",
    "vector",
    "hccs",
    "roce",
    "sio",
    "isl",
    "osl",
    "sigma",
    "stages",
}
#: names that data files give, of one word
ENGINES = {engine.name for name in names("stacks") for engine in load_stack(name).spec.engines}
#: cells for programs alone, and sources that summaries are grouped by
UNLISTED = {
    "outside",
    "rest",
    "seed",
    "cm",
    "ds",
    "ant",
    "sgl",
    "msm",
    "xds",
    "vllm",
    "recipe",
    "flashcomm",
    "inferencex",
}
GLOSSARY = Glossary.of(pages.glossary("zh"))
#: what the field writes in English, and commands
_KEPT = re.compile(
    r"\{\w+\}|--show \w+|--\w+|\btpot\b|^step\b|moeplan (?:explain|solve) .*|moeplan [\w-]+"
    r"|\b(?:die|token|rank|prompt|kernel|micro-batch)\b"
)
_WORDS = re.compile(r"(?<![\w.-])[a-z]{2,} [a-z]{2,}(?![\w.-])", re.ASCII)


def _texts(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield every text of a document that a reader sees, with the key that says where it stands."""
    yield from (("", text) for text in (document["title"], *document["notes"]))
    for line in document["answer"]:
        command = line["what"] == "next" or line["answer"].startswith("moeplan ")
        said = {"what": line["what"]} if command else line
        yield from ((key, text) for key, text in said.items() if text)
    for table in document["tables"]:
        yield from (("", text) for text in (table["title"], *table["notes"]))
        yield from (("#" + column["key"], column["title"]) for column in table["columns"] if column["title"])
        for row in table["rows"]:
            yield from ((key, text) for key, text in row.items() if isinstance(text, str) and key not in PROSE)


def _is_name(text: str) -> bool:
    """Return whether a cell names something: one word of a file or an operator, or no word at all."""
    return not re.search(r"[A-Za-z]", text) or bool(re.fullmatch(r"[\w.+=/-]*[\d._=-][\w.+=/-]*|[a-z]", text))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_text_has_a_translation(name: str, moeplan: Run, request: pytest.FixtureRequest) -> None:
    if name == "validate":
        document = json.loads(request.getfixturevalue("validated").printed["json-zh"])
    else:
        document = json.loads(moeplan(*COMMANDS[name].split(), "--format", "json", "--lang", "zh").stdout)
    missing = {
        text
        for key, text in _texts(document)
        if key != "run"  # model, system and stack by their names
        and GLOSSARY.find(text, key) is None
        and not (key and not key.startswith("#") and _is_name(text))
    }
    assert missing - UNLISTED == set()
    for key, text in _texts(document):
        found = GLOSSARY.say(text, key)
        if found != text and key != "change":  # names of settings are words too
            left = re.findall(r"(?<![\w.=/-])[a-z]{3,}(?![\w.=/-])", _KEPT.sub("", found), re.ASCII)
            assert set(left) <= FIELD | ENGINES, (text, found)


def test_remarks_on_machines_are_told_in_chinese(moeplan: Run) -> None:
    words = ("explain", "qwen3-8b", "--on", "910B3", "--dies", "2", "--batch", "4", "--isl", "512", "--osl", "64")
    told = moeplan(*words, "--set", "hbm=+50%", "--lang", "zh").stderr.splitlines()
    assert "note: 910B3 是芯片 ascend-910b3：取系统 atlas-800t-a2；库中没有其他系统含有它" in told
    assert "note: 假设的机器：hbm=+50%" in told
    carried = moeplan("explain", "qwen3-8b", "--on", "atlas-850", *words[4:], "--lang", "zh").stderr
    assert "移用于" in carried and "carried over" not in carried


def test_json_and_csv_are_the_same_in_every_language(moeplan: Run) -> None:
    for form in ("json", "csv"):
        words = ("explain", "--evidence", CORES, "--format", form)
        assert moeplan(*words, "--lang", "zh").stdout == moeplan(*words).stdout


@pytest.mark.parametrize("columns", [60, 80, 140])
@pytest.mark.parametrize("name", ["solve", "explain", "compare"])
def test_chinese_lines_up_and_keeps_every_number(name: str, columns: int, moeplan: Run) -> None:
    words = (*COMMANDS[name].split(), "--lang", "zh", "--show", "all")
    lines = moeplan(*words, COLUMNS=str(columns)).stdout.splitlines()
    held = ("moeplan explain", "--format")
    assert not [line for line in lines if cells(line) > columns and not any(word in line for word in held)]
    assert not [line for line in lines if line.strip()[:1] in tuple("。，、；：）") and line.strip()]
    for at, line in enumerate(lines):
        if line.startswith("──") and "  " in lines[at - 1]:
            assert cells(lines[at - 1]) == cells(line)  # the last heading is right-aligned, or as wide as its column
            break


def test_right_aligned_columns_of_chinese_end_in_one_cell(moeplan: Run) -> None:
    text = moeplan("explain", "--evidence", CORES, "--lang", "zh", "--show", "all", COLUMNS="80").stdout
    table = text[text.index("\n模块\n") :].split("\n\n")[0].splitlines()[2:]
    heading, _, *rows = table
    ends = {cells(row[: row.index(found[0]) + len(found[0])]) for row in rows if (found := re.search(r"[\d.]+ %", row))}
    assert ends == {cells(heading[: heading.index("占比") + 2])}
    drawn = text[text.index("时间线") :].splitlines()[2:5]
    assert len({cells(line.partition("│")[0]) for line in drawn}) == 1
    assert {cells(line) for line in drawn} == {80}


def test_chinese_breaks_between_characters_but_not_before_a_point() -> None:
    assert wrap("预填充，解码", 6) == ["预填", "充，解", "码"]
    assert wrap("（预填充）", 6) == ["（预填", "充）"]
    assert wrap("解码(中)", 4) == ["解码", "(中)"]


def test_numbers_are_the_same_in_both_languages(moeplan: Run) -> None:
    words = ("explain", "--evidence", CORES, "--format", "markdown")
    english, chinese = (moeplan(*words, "--lang", lang).stdout for lang in ("en", "zh"))
    numbers = [
        re.findall(r"(?<![\w.])\d[\d.,]*\d (?:ms|us|s|GB|MB|%)(?!\w)", "\n".join(re.findall(r"^\|.*", text, re.M)))
        for text in (english, chinese)
    ]
    assert len(numbers[0]) > 100
    assert numbers[0] == numbers[1]


def test_lang_is_read_from_the_environment_and_typed_words_come_first(moeplan: Run) -> None:
    words = ("validate", "seed-cm384-decode")
    assert moeplan(*words, MOEPLAN_LANG="zh").stdout.startswith("预测与公开结果对比")
    assert moeplan("--lang", "zh", *words).stdout.startswith("预测与公开结果对比")
    for typed in (("--lang", "en", *words), (*words, "--lang", "en")):
        assert moeplan(*typed, MOEPLAN_LANG="zh").stdout.startswith("Predicted against published")
    wrong = moeplan(*words, "--lang", "fr")
    assert (wrong.returncode, wrong.stderr) == (2, "error: --lang: 'fr'; allowed: en, zh\n")


# --- the glossary ------------------------------------------------------------------------------------


def test_no_name_on_file_is_translated() -> None:
    names = {name for kind in FOLDERS for name in folders.names(kind)}
    settings = {f"{name}={setting}" for name in folders.names("techniques") for setting in ("on", "off")}
    assert {name for name in names | settings if GLOSSARY.say(name) != name} == set()


def test_patterns_and_their_translations_have_the_same_holes() -> None:
    for english, chinese in pages.glossary("zh")["texts"].items():
        holes = [set(re.findall(r"\{(\w+)", text)) for text in (english, chinese)]
        assert holes[1] <= holes[0], english
        assert holes[0] - holes[1] <= {"whole", "again"}, english  # what the language leaves out
        assert not _WORDS.search(_KEPT.sub("", chinese)), chinese


def test_a_text_is_translated_whole_or_not_at_all() -> None:
    glossary = Glossary.of(
        {
            "names": ["row"],
            "joints": {", ": "，"},
            "texts": {
                "fast": "快",
                "{n:n} dies": "{n} 个 die",
                "very {how:term}": "很{how}",
                "note: {x:any}": "注：{x}",
            },
        }
    )
    assert glossary.say("8 dies, fast") == "8 个 die，快"
    assert glossary.say("8 dies, slow") == "8 dies, slow"
    assert glossary.say("very fast") == "很快"
    assert glossary.say("very slow") == "very slow"
    assert glossary.say("note: a.b") == "注：a.b"
    assert glossary.say("├─ fast") == "├─ 快"
    assert glossary.say("fast", "row") == "fast"


# --- the page ----------------------------------------------------------------------------------------


def test_both_word_files_of_the_page_have_the_same_keys_and_holes() -> None:
    english, chinese = (
        yaml.safe_load((HTML / f"words.{lang}.yaml").read_text(encoding="utf-8")) for lang in ("en", "zh")
    )
    assert list(english) == list(chinese)
    for key, text in english.items():
        if isinstance(text, dict):
            assert list(text) == list(chinese[key])
        else:
            assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", chinese[key])), key


def _shown(page: Read) -> Iterator[str]:
    """Yield every text that the page shows or tells, but for what it quotes in English."""
    for one in page.elements:
        if one.get("lang") == "en" or one["tag"] in ("script", "style", "meta"):
            continue
        yield from (one.get(key) or "" for key in ("text", "aria-label"))
    figures = json.loads(next(one["text"] for one in page.elements if one.get("id") == "figures"))
    yield from _strings(figures)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _strings(one)


def test_the_page_is_chinese_but_for_names_and_quotations(moeplan: Run, tmp_path: Path) -> None:
    plan, out = tmp_path / "plan.json", tmp_path / "report.html"
    assert moeplan(*SOLVE.split(), "-o", str(plan)).returncode == 0
    assert moeplan("report", str(plan), "-o", str(out), "--no-front", "--lang", "zh").returncode == 0
    page = Read(out.read_text(encoding="utf-8"))
    assert page.faults == []
    assert next(one for one in page.elements if one["tag"] == "html")["lang"] == "zh-CN"
    assert "CJK" in next(one["text"] for one in page.elements if one["tag"] == "style")
    texts = set(_shown(page))
    mixed = [text for text in texts if re.search("[\u4e00-\u9fff]", text) and _WORDS.search(_KEPT.sub("", text))]
    assert mixed == []
    headings = [one["text"] for one in page.elements if one["tag"] in ("h1", "h2", "h3", "h4", "summary", "button")]
    assert [text for text in headings if text.strip() and not re.search("[\u4e00-\u9fff]", text)] == []


# --- the readme --------------------------------------------------------------------------------------


def _readme(name: str) -> dict[str, list[str]]:
    text = (ROOT / name).read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return {
        "blocks": re.findall(r"^```.*?^```", text, re.M | re.S),
        "code": sorted(re.findall(r"`([^`\n]+)`", prose)),
        "links": sorted(link for link in re.findall(r"\]\(([^)]+)\)", prose) if not link.startswith("README")),
        "levels": re.findall(r"^#+(?= )", prose, re.M),
        "tables": [str(line.count("|")) for line in prose.splitlines() if line.startswith("|")],
        "numbers": sorted(
            re.findall(r"(?<![A-Za-z\d.])[-+]?\d[\d.,]*(?<![.,])", re.sub(r"`[^`\n]+`|\]\(\S+\)", "", prose))
        ),
    }


@pytest.mark.parametrize("what", list(_readme("README.md")))
def test_the_chinese_readme_says_what_the_english_one_does(what: str) -> None:
    assert _readme("README.zh-CN.md")[what] == _readme("README.md")[what]


def test_both_readmes_name_each_other_at_the_top() -> None:
    for name, other in (("README.md", "README.zh-CN.md"), ("README.zh-CN.md", "README.md")):
        assert f"]({other})" in (ROOT / name).read_text(encoding="utf-8").splitlines()[2]
