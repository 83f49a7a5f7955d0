"""--set KEY=VALUE: any number of a machine set by hand, told as a hypothesis, kept by plans, refused with its bound."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from perfmodel.files.catalog import load_technique
from perfmodel.files.machines import load_machine
from perfmodel.planning.inputs import set_apart, set_keys
from perfmodel.prediction.uncertainty import sampled_rates
from perfmodel.specs.conditions import LayoutConditions
from perfmodel.specs.numbers import numbers_of, with_texts
from perfmodel.supply.set_numbers import LINKS, WORDS, NotSetError, with_chip, with_numbers
from perfmodel.supply.techniques import on_machine, with_technique
from tests import process
from tests.conftest import Run

HAND = "explain deepseek-v3 --on cloudmatrix384 --cards 64 --batch 48 --isl 4096 --osl 1024"
ASKED = "solve deepseek-v3 --on atlas-800i-a3 --cards 32 --isl 1024 --osl 256 --tpot 60ms"


def facts_of(moeplan: Run, *words: str) -> dict[str, Any]:
    done = moeplan(*words, "--format", "json")
    assert done.returncode in (0, 3), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["facts"]
    return found


@pytest.fixture(scope="module")
def machine() -> Any:
    return load_machine("cloudmatrix384")[0]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write a plan for a hypothetical machine."""

    path = str(tmp_path_factory.mktemp("plans") / "set.json")
    process.run(*ASKED.split(), "--set", "hbm=+50%,overhead.request_path=5ms", "-o", path, check=True)
    return path


def test_a_number_is_set_and_told_as_a_hypothesis(moeplan: Run) -> None:
    before, after = (facts_of(moeplan, *HAND.split(), *words) for words in ((), ("--set", "hbm=+50%")))
    assert "set" not in before
    assert after["set"] == {
        "hbm": {
            "text": "+50%",
            "numbers": [{"key": "die.hbm.bandwidth", "unit": "B/s", "old": 1.6e12, "new": 2.4e12}],
        }
    }
    assert after["tpot_s"] < before["tpot_s"]
    done = moeplan(*HAND.split(), "--set", "hbm=+50%", COLUMNS="160")
    assert done.stdout.split("\n")[3].split() == "hypothetical numbers of the machine set: hbm=+50%".split()
    assert "\nHypothetical machine: numbers set on the command line\n" in done.stdout
    assert "note: hypothetical machine: hbm=+50%" in done.stderr


@pytest.mark.parametrize("text", ["2.4 TB/s", "2400GB/s", "2.4e12", "+50%", "x1.5", "*1.5", "+50 %", "2400000000000"])
def test_a_value_and_a_change_say_the_same(machine: Any, text: str) -> None:
    (one,) = with_numbers(machine, {"hbm": text}).set_numbers
    assert (one.before, one.after) == (1.6e12, pytest.approx(2.4e12))


def test_a_number_set_as_it_is_changes_nothing(machine: Any) -> None:
    for number in numbers_of(machine.chip.spec):
        if not number.key.startswith("headline") and isinstance(number.value, float):
            other = with_numbers(machine, {number.key: f"{number.value!r}" if number.unit == "1" else "x1"})
            assert other.chip.spec.die == machine.chip.spec.die


def test_every_word_stands_for_numbers(machine: Any) -> None:
    links = {tier.link for tier in machine.system.spec.tiers}
    for word in (*WORDS, *links, *(f"{link}_latency" for link in links)):
        assert with_numbers(machine, {word: "x1.25"}).set_numbers, word
    assert links <= set(LINKS) and not {"dies", "tp", "batch"} & set(WORDS)


def test_a_link_is_every_tier_that_has_it(machine: Any) -> None:
    before, after = machine.rates(), with_numbers(machine, {"ub": "400GB/s"}).rates()
    moved = {tier.link: tier.pin_bandwidth for tier in after.tiers}
    assert moved["ub"] == 400e9
    for one, other in zip(before.tiers, after.tiers, strict=True):
        assert one.link == "ub" or one.pin_bandwidth == other.pin_bandwidth


def test_a_number_of_a_kernel_is_that_of_the_set_that_gives_it(machine: Any) -> None:
    after = with_numbers(machine, {"matmul_int8.stream": "0.9"})
    assert after.rates().kernels["matmul_int8"].stream == 0.9
    assert after.rates().kernels["matmul_bf16"] == machine.rates().kernels["matmul_bf16"]


def test_what_is_set_is_sure_and_has_its_source(machine: Any) -> None:
    after = with_numbers(machine, {"skew": "0.5"})
    figure = after.terms.figures["skew"]
    assert (figure.kind, figure.low, figure.high) == ("assumed", 0.5, 0.5)
    assert after.terms.spec.sources[figure.source].title == "set on the command line"
    rates, _ = sampled_rates(after, "service", "decode")
    assert rates.skew == 0.5
    assert len(set(sampled_rates(machine, "service", "decode")[0].skew)) > 100


def test_a_number_stays_set_over_techniques_and_once(machine: Any) -> None:
    technique = load_technique("api-server-scale-out")
    words = {"hbm": "+50%", "frontends": "3", "overhead.sampling": "+10%"}
    first = with_numbers(machine, words)
    then = with_technique(first, technique, "on" if "on" in technique.spec.settings else "one")
    again = with_technique(then, technique, next(iter(technique.spec.settings)))
    for one in (first, then, again):
        assert one.chip.spec.die.hbm.bandwidth == pytest.approx(2.4e12)
        assert one.stack.spec.frontends == 3
        before = machine.stack.spec.overhead.sampling
        assert one.stack.spec.overhead.sampling == pytest.approx(1.1 * before)
        assert len(one.set_numbers) == 3
    setting = next(iter(technique.spec.settings))
    other = with_numbers(on_machine(machine, [(technique, setting)]), words)
    assert other.stack.spec == again.stack.spec


def test_another_chip_has_the_same_set_on_it(machine: Any) -> None:
    chip = load_machine("atlas-800i-a3")[0].chip
    after = with_chip(with_numbers(machine, {"hbm": "x2", "ub": "x2"}), chip)
    assert after.chip.spec.die.hbm.bandwidth == 2 * chip.spec.die.hbm.bandwidth
    assert [one.key for one in after.set_numbers if one.key == "die.hbm.bandwidth"] == ["die.hbm.bandwidth"]


REFUSED: dict[str, str] = {
    "hbmm=3": "'hbmm' is no number of the machine; did you mean 'hbm'?",
    "memory.utilisation=1": "did you mean 'memory.utilization'?",
    "expert_tpp=3": "did you mean 'expert_tp'?",
    "nvlink=1GB/s": "the system has sio, ub, roce",
    "hbm=-120%": "is negative; allowed: zero or more",
    "hbm=x0": "'0.0 B/s'; allowed: greater than 0",
    "hbm=400Gb/s": "write '50 GB/s'",
    "hbm=5ms": "is not in B/s",
    "hbm=nan": "'nan' is not 'number unit'",
    "hbm=inf": "'inf' is not 'number unit'",
    "hbm=1e30": "beyond reason",
    "hbm=+x%": "allowed: a value, or a change like +50%, -20% or x2",
    "hbm=+1..2%": "allowed: a change like +50%, -20% or x2",
    "hbm=+50": "allowed: a value, or a change",
    "hbm=": "allowed: a key and a value",
    "=3": "allowed: a key and a value",
    "hbm": "allowed: a key and a value",
    "hbm=1TB/s,hbm=2TB/s": "--set hbm: 1TB/s and 2TB/s; allowed: one value",
    "hbm=1TB/s,die.hbm.bandwidth=2TB/s": "both set die.hbm.bandwidth; allowed: one",
    "link_efficiency.ub=1.2": "1.2; allowed: less than or equal to 1",
    "link_efficiency.nvlink=+5%": "of a number that is not stated; allowed: a value",
    "die.cube_cores=0": "allowed: greater than or equal to 1",
    "cube=3": "for die.cube_flop_per_cycle.bf16, die.cube_flop_per_cycle.int8; allowed: a change",
    "eager=maybe": "'maybe'; allowed: true or false",
    "matmul_int8.stream=3": "allowed: less than or equal to 1",
    "tiers.supernode.dies=1": "allowed: from the innermost outwards",
    "name=x": "is no number of the machine",
    "sources.x=1": "is no number of the machine",
    f"hbm={'9' * 200}": "letters; allowed: up to 100",
}


@pytest.mark.parametrize(("word", "says"), REFUSED.items())
def test_what_cannot_be_set_is_refused_with_what_can(moeplan: Run, word: str, says: str) -> None:
    done = moeplan(*HAND.split(), "--set", word)
    assert done.returncode == 2 and done.stdout == ""
    assert all(line.startswith("error: --set") for line in done.stderr.splitlines()) and says in done.stderr


def test_numbers_and_keys_of_a_layout_are_told_apart() -> None:
    assert set_apart(["tp=8,hbm=+50%", "ub=400 GB/s"]) == ({"tp": 8}, {"hbm": "+50%", "ub": "400 GB/s"})
    assert set_keys(["a=[1,2],b=3", "b=3"]) == {"a": "[1,2]", "b": "3"}


def test_every_key_of_a_layout_that_rows_state_can_be_set(moeplan: Run) -> None:
    """The batch is one of them, and no suggestion is the word that was refused."""
    assert set(set_apart([f"{key}=1" for key in LayoutConditions.model_fields])[0]) == set(
        LayoutConditions.model_fields
    )
    done = moeplan("explain", "--evidence", "cm384-decode-4k-b96", "--set", "batch=4")
    assert done.returncode == 0 and "batch 4" in done.stdout
    assert (
        "did you mean 'batch'" in moeplan("explain", "--evidence", "cm384-decode-4k-b96", "--set", "batches=4").stderr
    )


def test_a_layout_and_a_machine_are_set_at_once(moeplan: Run) -> None:
    found = facts_of(moeplan, *HAND.split(), "--set", "tp=8,skew=0.5")
    assert found["layout"]["tp"] == 8 and list(found["set"]) == ["skew"]


def test_a_search_takes_no_keys_of_a_layout(moeplan: Run) -> None:
    done = moeplan(*ASKED.split(), "--set", "tp=8")
    assert done.returncode == 2 and "keys of a layout, which is chosen here" in done.stderr


def test_two_shares_of_memory_are_refused(moeplan: Run) -> None:
    done = moeplan(*HAND.split(), "--set", "memory.utilization=0.8", "--memory-share", "0.9")
    assert done.returncode == 2 and "--memory-share with --set memory.utilization" in done.stderr
    one = facts_of(moeplan, *HAND.split(), "--set", "memory.utilization=0.8")
    other = facts_of(moeplan, *HAND.split(), "--memory-share", "0.8")
    assert one["memory_usable_B"] == other["memory_usable_B"]


def test_a_plain_number_far_from_the_file_is_remarked_on(moeplan: Run) -> None:
    done = moeplan(*HAND.split(), "--set", "hbm=400")
    assert "400.0 B/s is far from" in done.stderr and "a plain number is in SI units" in done.stderr


def test_a_published_row_is_predicted_on_a_hypothetical_machine(moeplan: Run) -> None:
    before = facts_of(moeplan, "explain", "--evidence", "seed-cm384-decode")
    after = facts_of(moeplan, "explain", "--evidence", "seed-cm384-decode", "--set", "hbm=x0.5")
    assert after["step_time_s"] > before["step_time_s"] and list(after["set"]) == ["hbm"]


def test_a_plan_keeps_its_hypothesis(moeplan: Run, plan: str) -> None:
    held = json.loads(Path(plan).read_text())
    words = {"hbm": "+50%", "overhead.request_path": "5ms"}
    assert held["conditions"]["set"] == held["run"]["set"] == words
    tpot = held["predicted"]["tpot"]
    commands: Mapping[str, tuple[str, ...]] = {
        "explain": ("explain", plan),
        "solve": ("solve", plan),
        "replay": ("replay", "--plan", plan, "--requests", "200"),
        "what-if": ("what-if", plan, "--only", "mtp"),
        "compare": ("compare", plan, plan),
    }
    for name, command in commands.items():
        done = moeplan(*command, "--format", "json")
        assert done.returncode in (0, 3), (name, done.stderr)
        assert "when the plan was written" not in done.stderr
        assert done.stderr.count("hypothetical machine: hbm=+50%, overhead.request_path=5ms") >= 1, name
        found = json.loads(done.stdout)["facts"]
        assert list(found["set"]) == list(words), name
        if name in ("explain", "solve"):
            assert found["tpot_s"] == pytest.approx(tpot, rel=1e-6)
    other = facts_of(moeplan, "explain", plan, "--set", "hbm=-10%")
    assert other["set"]["hbm"]["text"] == "-10%" and other["tpot_s"] > tpot


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ({"hbm": "+50%", "hbmm": "x2"}, "conditions.set: --set: 'hbmm' is no number of the machine"),
        ({"hbm": "x0"}, "conditions.set: --set hbm: '0.0 B/s'; allowed: greater than 0"),
    ],
)
def test_a_plan_of_numbers_that_cannot_be_is_refused(
    moeplan: Run, plan: str, tmp_path: Path, numbers: dict[str, str], says: str
) -> None:
    held = json.loads(Path(plan).read_text())
    held["conditions"]["set"] = held["run"]["set"] = numbers
    other = tmp_path / "other.json"
    other.write_text(json.dumps(held))
    done = moeplan("explain", str(other))
    assert done.returncode == 4 and says in done.stderr


def test_a_plan_whose_question_sets_others_is_refused(moeplan: Run, plan: str, tmp_path: Path) -> None:
    held = json.loads(Path(plan).read_text())
    del held["run"]["set"]
    other = tmp_path / "other.json"
    other.write_text(json.dumps(held))
    done = moeplan("explain", str(other))
    assert done.returncode == 4 and "run.set: differs from conditions.set" in done.stderr


def test_a_run_spec_states_numbers(moeplan: Run, tmp_path: Path) -> None:
    run = tmp_path / "run.yaml"
    lines = ("model: deepseek-v3", "on: atlas-800i-a3", "cards: 32", "isl: 1024", "osl: 256", "tpot: 60ms")
    run.write_text("\n".join((*lines, "set: {hbm: +50%, skew: 0.5, eager: false}")))
    found = facts_of(moeplan, "solve", str(run))["set"]
    assert {word: one["text"] for word, one in found.items()} == {"hbm": "+50%", "skew": "0.5", "eager": "false"}
    run.write_text("\n".join((*lines, "set: [hbm]")))
    done = moeplan("solve", str(run))
    assert done.returncode == 4 and "run.yaml:7: set" in done.stderr


def test_pools_on_two_systems_have_what_each_of_them_has(moeplan: Run) -> None:
    words = (*ASKED.split(), "--prefill-on", "atlas-800i-a2", "--prefill-cards", "32")
    assert list(facts_of(moeplan, *words, "--set", "sio=x2,hbm=+10%")["set"]) == ["hbm", "sio"]
    done = moeplan(*words, "--set", "nvlink=x2")
    assert done.returncode == 2 and "no number of the machine" in done.stderr


def test_with_texts_refuses_all_that_a_file_may_not_say(machine: Any) -> None:
    with pytest.raises(ValueError, match="allowed: greater than 0"):
        with_texts(machine.chip.spec, {"die.clock": "0 Hz"})
    with pytest.raises(NotSetError):
        with_numbers(machine, {"hbm": "true"})
