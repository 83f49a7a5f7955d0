"""Words of engines, numbers as people type them, and options given twice, on the command line as a user types it."""

import json
import random
import re
import shlex
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.cli.app import program
from perfmodel.cli.engine_words import CACHE, COMMANDS, GIVEN, MODEL, OF, PRECISION, QUESTIONS, WORDS
from perfmodel.cli.typed import READINGS, Given, options_of, read, split
from perfmodel.errors import MoeplanError, by_nearness, did_you_mean
from perfmodel.units import read_count, read_share, read_tokens, ungrouped

#: what a command needs beside a word for the word to be read: sizes of a system that tests/test_machines.py holds
ASKED = {
    "solve": ["deepseek-v3", "--on", "cm384"],
    "compare-systems": ["deepseek-v3", "--on", "cm384"],
    "explain": ["deepseek-v3", "--on", "cm384", "--isl", "4096", "--osl", "512"],
    "replay": ["--plan", "plan.json"],
}
#: spelling -> a value it may have, where 4 is none
VALUES = {
    **dict.fromkeys(("pp", "pipeline-parallel-size", "pp-size"), "1"),
    **dict.fromkeys(("input-len", "random-input-len"), "4096"),
    **dict.fromkeys(("output-len", "random-output-len"), "512"),
    "kv-cache-dtype": "fp8_e4m3",
    "quantization": "w8a8_int8",
    **dict.fromkeys(("model", "model-path"), "deepseek-v3"),
    "gpu-memory-utilization": "0.9",
    "gpu-util": "0.9",
    "max-num-batched-tokens": "16384",
    "max-prefill-tokens": "16384",
    "chunked-prefill-size": "16384",
    "max-running-requests": "256",
    **dict.fromkeys(("ep", "expert-parallel-size", "ep-size", "moe-ep"), "64"),
}
BESIDE = {
    "per_rank": ["--dies", "64", "--tp", "2"],
    "tokens_a_step": ["--phase", "prefill"],
}
GROUP = program()


def _read(command: str, words: list[str]) -> tuple[list[str], list[str]]:
    """Return the words as the parser of a command takes them, and the remarks."""
    found = GROUP.commands[command]
    context = found.make_context(command, [], parent=GROUP.make_context("moeplan", ["list"]), resilient_parsing=True)
    return read(found, context, words), context.meta["read_as"]


def _value(spelling: str) -> list[str]:
    return [VALUES.get(spelling, "4")] if OF[spelling].valued else []


def _pairs(words: list[str]) -> dict[str, str]:
    return {word: value for word, value in zip(words, words[1:], strict=False) if word.startswith("--")}


EVERY = [(spelling, command) for spelling in OF for command in QUESTIONS]


@pytest.mark.parametrize(("spelling", "command"), EVERY)
def test_every_word_has_one_meaning_or_one_refusal_on_every_question(spelling: str, command: str) -> None:
    """Each becomes options of the command, told once, or is refused in one line that says what is there instead."""
    word, own = OF[spelling], options_of(GROUP.commands[command].params)
    if f"--{spelling}" in own:
        assert _read(command, [*ASKED[command], f"--{spelling}", "4"])[1] == []
        return
    said = [f"--{random.Random(spelling).choice([spelling, spelling.replace('-', '_')])}", *_value(spelling)]
    words = [one for one in ASKED[command] if one != "deepseek-v3" or word.reading != "argument"]
    words += BESIDE.get(word.reading, []) if command == "explain" else []
    if command not in word.ours:
        with pytest.raises(MoeplanError) as refused:
            _read(command, [*words, *said])
        (line,) = str(refused.value).splitlines()
        assert line.startswith(" ".join(said))
        assert "allowed: " in line or "--" in line.removeprefix(said[0])
        return
    found, told = _read(command, [*words, *said])
    assert said[0] not in found
    assert sum(text.startswith(" ".join(said)) for text in told) == 1
    option = word.ours[command]
    if option and option != MODEL and word.reading != "tokens_a_step":
        assert option in found
    assert {word for word in found if word.startswith("--")} <= set(own)
    if word.reading == "argument":
        assert found[0] == "deepseek-v3"


@pytest.mark.parametrize("command", GIVEN)
@pytest.mark.parametrize("spelling", [word.spellings[0] for word in WORDS])
def test_what_a_plan_brings_is_refused_in_one_line(spelling: str, command: str) -> None:
    own = options_of(GROUP.commands[command].params)
    assert f"--{spelling}" not in own
    with pytest.raises(MoeplanError, match=re.escape(f"{command} takes all conditions from {GIVEN[command]}")):
        _read(command, ["plan.json", f"--{spelling}", *_value(spelling)])


def test_the_table_is_whole() -> None:
    """No spelling stands twice; each word has a meaning or a refusal for each question, in options that exist."""
    assert len(OF) == sum(len(word.spellings) for word in WORDS)
    for word in WORDS:
        for command in QUESTIONS:
            own = options_of(GROUP.commands[command].params)
            if all(f"--{spelling}" in own for spelling in word.spellings[:1]):
                continue
            assert (command in word.ours) != (command in word.lacking), (word.spellings, command)
            option = word.ours.get(command)
            assert not option or option == MODEL or option in own
    from perfmodel.specs.precision import PRECISIONS

    assert {name for name in PRECISION.values() if name} <= set(PRECISIONS)
    assert set(CACHE.values()) <= {"bf16", "int8", "fp8"}
    assert set(COMMANDS.values()) <= set(GROUP.commands)
    assert not set(COMMANDS) & set(GROUP.commands)


def test_dp_times_tp_are_the_dies(moeplan) -> None:
    """32 x 4 = 128 dies, 64 cards; the same answer as in our words, each word told once."""
    same = ("explain", "deepseek-v3", "--on", "cm384", "--isl", "4096", "--osl", "512", "--format", "json")
    theirs = moeplan(*same, "--data-parallel-size", "32", "--tensor-parallel-size", "4", "--max-num-seqs", "8")
    ours = moeplan(*same, "--dies", "128", "--tp", "4", "--batch", "8")
    assert ours.returncode == theirs.returncode == 0, theirs.stderr
    assert json.loads(theirs.stdout)["facts"] == json.loads(ours.stdout)["facts"]
    assert [line for line in theirs.stderr.splitlines() if line not in ours.stderr] == [
        "note: --max-num-seqs 8 is read as --batch 8",
        "note: --tensor-parallel-size 4 is read as --tp 4",
        "note: --data-parallel-size 32 is read as --dies 128: 32 x tp 4",
    ]
    assert moeplan("--quiet", *same, "-dp", "32", "--tp", "4", "--batch", "8").stderr == ""


@pytest.mark.parametrize(
    ("words", "dies", "tp"),
    [
        ("--dp 32 --tp 4", 128, 4),
        ("-dp 2 -tp 8", 16, 8),
        ("--dp-size 32 --tp-size 64 --enable-dp-attention", 64, 2),  # SGLang: dp-size groups of its tp-size dies
        ("--dp-size 32 --tp-size 64 --engine sglang", 64, 2),
        ("--dp-size 2 --tp-size 8 --engine vllm-ascend", 16, 8),  # launch_online_dp.py of vllm-ascend: dp x tp
        ("--tp-size 16", 16, 16),
        ("--ep 64", 64, None),
        ("--dp 64 --ep 64", 64, None),
    ],
)
def test_a_layout_in_words_of_engines(words: str, dies: int, tp: int | None) -> None:
    found = _pairs(_read("explain", [*ASKED["explain"], *words.split()])[0])
    assert int(found["--dies"]) == dies
    assert found.get("--tp") == (None if tp is None else str(tp))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--dp-size 32 --tp-size 64", "to SGLang 64 dies in 32 groups, --dies 64 --tp 2; to vllm 2048 dies"),
        ("--dp 32 --tp 4 --cards 32", "32 x tp 4 are 128 dies, the size given is 64; allowed: dp 16"),
        (
            "--dp 32 --tp 4 --ep 32",
            "experts lie over all 128 dies of an instance; allowed: 128; or, each expert over 4",
        ),
        ("--dies 288 --shared-ranks 32 --ep 200", "allowed: 288 or 256"),
        ("--dies 64 --pp 2", "no pipeline of stages is modelled; allowed: 1"),
        ("--dies 64 --max-running-requests 100", "allowed: a multiple of 64; write --batch 1 or 2"),
        ("--max-running-requests 100", "allowed: its size beside it"),
        (
            "--dies 16 --batch 28 --draft 1 --max-num-batched-tokens 40",
            "28 x 2 tokens a decode step; allowed: a batch of at",
        ),
        ("--dies 16 --kv-cache-dtype fp4", "allowed: auto, bf16"),
        ("--dies 16 --request-rate inf", "sends all requests at once; allowed: --concurrency N"),
        ("--dp 8 --data-parallel-size 4", "--dp 8 and --data-parallel-size 4: two values of one option"),
        ("--dp none", "allowed: a whole number from 1"),
        ("--dp", "no value after it"),
    ],
)
def test_what_cannot_be_said_is_refused_with_what_can(moeplan, words: str, says: str) -> None:
    done = moeplan("explain", *ASKED["explain"], *words.split())
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout


@pytest.mark.parametrize(("system", "cards"), [("cm384", 8), ("atlas-800i-a2", 8), ("gb200-nvl72", 4)])
@pytest.mark.parametrize("word", ["--servers", "--nodes", "--nnodes"])
def test_servers_are_cards_of_the_system(system: str, cards: int, word: str) -> None:
    """By hand: 8 packages a server of Atlas and CloudMatrix384, 4 GPUs a tray of the NVL72."""
    found, told = _read("solve", ["deepseek-v3", "--on", system, word, "5"])
    assert _pairs(found)["--cards"] == str(5 * cards)
    assert told == [f"{word} 5 is read as --cards {5 * cards}: {cards} cards a server"]


def test_servers_of_a_run_spec(tmp_path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("on: cm384\nmodel: deepseek-v3\nisl: 1024\nosl: 512\ntpot: 50ms\ncards: 32\n")
    assert _pairs(_read("solve", [str(path), "--servers", "3"])[0])["--cards"] == "24"


def test_clients_of_a_budget_are_told_their_rate(moeplan) -> None:
    """Little: 532 clients of 2 s and 1024 x 50 ms each send 532 / 53.2 = 10 a second."""
    words = ("--osl", "1024", "--isl", "4096", "--tpot", "50ms", "--ttft", "2s", "--concurrency", "532")
    done = moeplan("solve", "deepseek-v3", "--on", "cm384", *words)
    assert done.returncode == 2
    assert "--rate 10" in done.stderr


# numbers


def _grouped(number: int, sign: str) -> str:
    return f"{number:,}".replace(",", sign)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 10**9), st.sampled_from([",", "_", ""]), st.sampled_from(["", " "]))
def test_a_count_is_read_in_every_spelling(number: int, sign: str, blank: str) -> None:
    assert read_count(blank + _grouped(number, sign) + blank) == number
    assert read_tokens(blank + _grouped(number, sign) + blank) == number
    assert ungrouped(_grouped(number, sign) + " req/s") == f"{number} req/s"


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 10**8), st.sampled_from(["k", "K", "m", "M"]), st.sampled_from([",", "_", ""]))
def test_thousands_and_lengths(number: int, letter: str, sign: str) -> None:
    """A k of tokens is 1024 of them, of anything else a thousand; halves and tenths exactly."""
    squared = letter in "mM"
    assert read_tokens(_grouped(number, sign) + letter) == number * (1024**2 if squared else 1024)
    assert read_count(f"{number / 8:.3f}{letter}") == number * (1000**2 if squared else 1000) // 8


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**6))
def test_a_percent_is_its_decimal(number: int) -> None:
    """35.7% is 0.357 and not the nearest number beside it."""
    assert read_share(f"{number / 1000:.3f}%") == float(f"{number}e-5")
    assert read_share(f"{number / 1000:.3f} %") == read_share(f"{number}e-5")


@pytest.mark.parametrize("text", ["4,09", "4,0960", ",096", "4,096_000", "4 096", "1,,000", "90%%", "four", ""])
def test_what_is_no_number_stays_refused(text: str) -> None:
    for reader in (read_count, read_tokens, read_share):
        with pytest.raises(ValueError, match=r"\S"):
            reader(text)


NUMBERS = [
    (command, param)
    for command, found in GROUP.commands.items()
    for param in found.params
    if param.param_type_name != "argument" and not param.is_flag and param.name not in ("tpot", "ttft")
]


@pytest.mark.parametrize(("command", "param"), NUMBERS, ids=lambda one: one if isinstance(one, str) else one.name)
def test_every_option_takes_its_number_as_people_write_it(command: str, param: Any) -> None:
    """Counts and lengths with commas, shares with a percent sign; texts stay as they are."""
    option, kind = param.opts[0], param.type_descriptor.annotation
    found = _pairs(_read(command, [option, "4,096"])[0])
    if kind in (int, float) or param.name in ("isl", "osl", "max_context", "rate"):
        assert found[option] == "4096"
    else:
        assert found[option] == "4,096"
    percent = _pairs(_read(command, [option, "90%"])[0])[option]
    assert percent == ("0.9" if kind is float and "price" not in param.name else "90%")


def test_numbers_reach_the_answer(moeplan) -> None:
    same = ("solve", "deepseek-v3", "--on", "cm384", "--tpot", "50ms", "--format", "json")
    first = moeplan(*same, "--cards", "32", "--isl", "1024", "--osl", "512", "--utilisation", "0.7")
    second = moeplan(*same, "--cards", "32", "--isl", "1,024", "--osl", "0.5K", "--utilisation", "70%")
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout


WAITING = [
    (command, param.opts[-1])
    for command, found in GROUP.commands.items()
    for param in found.params
    if param.name in ("tpot", "ttft")
]


@pytest.mark.parametrize(("command", "option"), WAITING)
@pytest.mark.parametrize("value", ["50", "2.5", "1,000", "p90=50"])
def test_a_wait_without_a_unit_is_asked_back(command: str, option: str, value: str) -> None:
    """With both commands, each of which is read."""
    with pytest.raises(MoeplanError) as asked:
        _read(command, ["a b", option, value, "--format", "json"])
    first, *commands = str(asked.value).splitlines()
    assert first.startswith(f"{option}: {value!r} has no unit; ")
    for unit, line in zip(READINGS, commands, strict=True):
        words = shlex.split(line)
        assert words == ["moeplan", command, "a b", option, value + unit, "--format", "json"]
        assert _read(command, words[2:])


def test_a_bare_wait_exits_2_as_a_user_sees_it(moeplan) -> None:
    done = moeplan(
        "solve", "deepseek-v3", "--on", "cm384", "--cards", "32", "--isl", "4k", "--osl", "1k", "--tpot", "50"
    )
    assert done.returncode == 2
    assert "50ms or 50s?" in done.stderr
    assert "--tpot 50ms" in done.stderr
    assert "--tpot 50s" in done.stderr


def test_a_k_that_may_be_a_thousand_is_told() -> None:
    assert _read("solve", ["--isl", "3.5K"])[1] == [
        "--isl 3.5K is read as 3,584 tokens, a k being 1024 of them; for 3,500 write that"
    ]
    assert _read("replay", ["--requests", "10k"]) == (["--requests", "10000"], ["--requests 10k is read as 10,000"])
    assert _read("solve", ["--isl", "4k"])[1] == []


# twice

TWICE = [
    (command, param)
    for command, found in GROUP.commands.items()
    for param in found.params
    if param.param_type_name != "argument"
]


@pytest.mark.parametrize(("command", "param"), TWICE, ids=lambda one: one if isinstance(one, str) else one.name)
def test_an_option_given_twice_is_refused_where_it_differs(command: str, param: Any) -> None:
    option = param.opts[-1]
    if param.is_flag:
        assert _read(command, [option, option])
        for other in param.secondary_opts:
            with pytest.raises(MoeplanError, match=f"{option} and {other}: two values"):
                _read(command, [option, other])
        return
    first, second = ("1s", "2s") if param.name in ("tpot", "ttft") else ("1", "2")
    assert _read(command, [option, first, option, first])
    if param.multiple:
        assert _read(command, [option, first, option, second])
        return
    with pytest.raises(MoeplanError, match=f"{option} {first} and {option} {second}: two values"):
        _read(command, [option, first, option, second])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--cards", "32", "--cards", "160"), "--cards 32 and --cards 160"),
        (("--on", "cm384", "--on", "h20"), "--on cm384 and --on h20"),
        (("--cards", "32", "--on", "cm384", "--nodes", "3"), "--cards 32 and --nodes 3"),
        (("--tpot", "50ms", "--tpot", "30ms", "--on", "cm384", "--cards", "32"), "'50ms' and '30ms'"),
        (("--ttft", "p99=2s", "--ttft", "p99=3s", "--tpot", "50ms", "--on", "cm384", "--cards", "32"), "'p99=2s' and"),
    ],
)
def test_two_values_are_both_named(moeplan, words: tuple[str, ...], says: str) -> None:
    done = moeplan("solve", "deepseek-v3", "--isl", "1k", "--osl", "512", *words)
    assert done.returncode == 2
    assert says in done.stderr
    assert not done.stdout


def test_the_same_value_twice_is_one(moeplan) -> None:
    same = ("solve", "deepseek-v3", "--on", "cm384", "--cards", "32", "--isl", "1k", "--osl", "512", "--tpot", "50ms")
    twice = ("--isl", "1,024", "--cards", "32", "--tpot", "0.05s", "--servers", "4")
    first, second = moeplan(*same, "--format", "json"), moeplan(*same, *twice, "--format", "json")
    assert first.returncode == second.returncode == 0, second.stderr
    assert first.stdout == second.stdout


def test_before_the_command_and_after_it(moeplan) -> None:
    assert moeplan("--lang", "zh", "--lang", "en", "list").returncode == 2
    assert "--lang zh and --lang en" in moeplan("--lang", "zh", "list", "--lang", "en").stderr
    assert moeplan("--lang", "en", "list", "--lang", "en", "-q", "--quiet").returncode == 0


def test_words_are_split_as_the_parser_does() -> None:
    own = options_of(GROUP.commands["solve"].params)
    found = split(["m", "--on=x", "--front", "-o", "p", "--isl", "-1", "-qv", "--", "--on", "y"], own, lambda _: None)
    assert [(one.option, one.value) for one in found] == [
        (None, "m"), ("--on", "x"), ("--front", None), ("-o", "p"), ("--isl", "-1"), (None, "-qv"), (None, "--"),
        (None, "--on"), (None, "y"),
    ]  # fmt: skip
    assert found[-1] == Given("y")


# nearness


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("plan", "deepseek-v3"), "did you mean 'solve'?"),
        (("solve", "deepseek-v3", "--tps", "20"), "here --tpot 50ms"),
        (("explain", "deepseek-v3", "--on", "atlas-900-a2", "--cards", "8", "--isl", "9", "--osl", "9"),
         "did you mean 'atlas-800t-a2'?"),
        (("explain", "--catds", "3"), "did you mean '--cards'?"),
        (("explain", "--ils", "3"), "did you mean '--isl'?"),
    ],
)  # fmt: skip
def test_a_wrong_word_is_told_the_right_one(moeplan, words: tuple[str, ...], says: str) -> None:
    done = moeplan(*words)
    assert done.returncode == 2
    assert says in done.stderr


def test_known_options_are_all_told_nearest_first(moeplan) -> None:
    said = moeplan("explain", "--frobnicate", "3").stderr
    told = said.rpartition("known: ")[2].strip().split(", ")
    assert set(told) == {word for word in options_of(GROUP.commands["explain"].params) if word.startswith("--")} | {
        "--help"
    }
    assert told == [f"--{one}" for one in by_nearness("frobnicate", [one.removeprefix("--") for one in told])]


def test_a_long_list_is_at_most_a_screen() -> None:
    names = [f"name-{number}" for number in range(1000)]
    told = did_you_mean("xyz", names)
    assert len(told) < 24 * 80
    assert told.endswith(f"and {1000 - told.count(',') - 1} more")


def test_a_chip_says_which_systems_hold_it(moeplan) -> None:
    """All systems on file whose chip is called so, read off their files."""
    from perfmodel.files.catalog import load_chip, load_system
    from perfmodel.files.folders import names

    done = moeplan(
        "explain", "deepseek-v3", "--on", "910b", "--cards", "16", "--isl", "9", "--osl", "9", "--batch", "1"
    )
    assert len(done.stderr) < 24 * 80
    holding = [name for name in names("systems") if "910b" in load_system(name).spec.chip]
    assert len(holding) == 6
    assert all(name in done.stderr for name in holding)
    assert all(load_chip(load_system(name).spec.chip) for name in holding)


# beside a row or a plan


def test_a_row_is_explained_by_its_name_alone(moeplan) -> None:
    by_name, by_option = moeplan("explain", "seed-cm384-decode"), moeplan("explain", "--evidence", "seed-cm384-decode")
    assert by_name.returncode == 0, by_name.stderr
    assert by_name.stdout == by_option.stdout


def test_what_a_refusal_advises_works(moeplan) -> None:
    refused = moeplan("explain", "seed-cm384-decode", "--batch", "40", "--tp", "2")
    assert refused.returncode == 2
    advised = refused.stderr.rpartition("--compare ")[2].split()[0]
    assert set(advised.split(",")) == {"batch=40", "tp=2"}
    done = moeplan("explain", "seed-cm384-decode", "--compare", advised)
    assert done.returncode == 0, done.stderr


def test_other_ranks_of_the_same_batch_are_told(moeplan) -> None:
    """64 ranks with 32 each are 2048 requests, 16 ranks 512; 128 each are 2048 again."""
    same = ("explain", "deepseek-v3", "--on", "cm384", "--dies", "64", "--isl", "4k", "--osl", "1k", "--batch", "32")
    said = moeplan(*same, "--compare", "tp=4").stderr
    assert "64 ranks with 2048 requests become 16 with 512; for as many requests as before: batch=128" in said
    assert "requests become" not in moeplan(*same, "--compare", "tp=4,batch=128").stderr
    assert "requests become" not in moeplan(*same, "--compare", "draft=1").stderr


def test_a_file_in_json_is_not_told_to_be_yaml(moeplan, tmp_path) -> None:
    path = tmp_path / "plan.json"
    path.write_text('{"format": [1')
    done = moeplan("explain", str(path))
    assert done.returncode == 4
    assert "not JSON" in done.stderr
    assert "YAML" not in done.stderr


def test_no_link_has_no_name(moeplan) -> None:
    words = ("--on", "h800", "--cards", "32", "--phase", "prefill", "--isl", "4k", "--batch", "1")
    said = moeplan("explain", "deepseek-v3", *words, "--show", "notes").stdout
    assert "was measured on no link" in said
    assert "measured on ;" not in said
