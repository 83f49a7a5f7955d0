"""--max-context N: a model of a longer or a shorter context than its file says, in every command and in plans."""

import json
from pathlib import Path
from typing import Any

import pytest

from perfmodel.files.catalog import load_model, load_path
from tests import process
from tests.conftest import Run

HAND = "explain qwen3-235b-a22b --on atlas-800i-a2-64gb-hccs --cards 8 --tp 8"
LONG = f"{HAND} --batch 4 --isl 65536 --osl 1024"
ASKED = "solve qwen3-235b-a22b --on atlas-800i-a2-64gb-hccs --cards 64 --isl 40000 --osl 1024 --tpot 80ms"
TYPED = {"4096": 4096, "128k": 131072, "128K": 131072, "1M": 1048576, " 0.5M ": 524288}
CONFIG = {
    "model_type": "qwen3_moe", "hidden_size": 64, "num_hidden_layers": 4, "vocab_size": 9, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 4096, "num_experts": 4,
    "num_experts_per_tok": 2, "moe_intermediate_size": 8,
}  # fmt: skip


def facts_of(moeplan: Run, *words: str) -> dict[str, Any]:
    done = moeplan(*words, "--format", "json")
    assert done.returncode in (0, 3), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["facts"]
    return found


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write a plan of lengths that the model's file does not allow."""
    path = str(tmp_path_factory.mktemp("plans") / "long.json")
    process.run(*ASKED.split(), "--max-context", "128k", "-o", path, check=True)
    return path


@pytest.mark.parametrize("command", [LONG, ASKED])
def test_too_long_requests_are_refused_with_the_option_that_lets_them_in(moeplan: Run, command: str) -> None:
    done = moeplan(*command.split())
    assert done.returncode == 2
    assert "allowed: at most 40,960 for qwen3-235b-a22b; a longer one with rope scaling: --max-context" in done.stderr
    enough = done.stderr.split()[-1]
    assert facts_of(moeplan, *command.split(), "--max-context", enough)["isl"] >= 40000


@pytest.mark.parametrize(("text", "tokens"), TYPED.items())
def test_a_context_is_typed_in_tokens_k_or_m(moeplan: Run, text: str, tokens: int) -> None:
    found = facts_of(moeplan, *HAND.split(), "--batch", "1", "--isl", "2048", "--osl", "8", "--max-context", text)
    assert found["longest_context"] == min(tokens, found["longest_context_by_memory"])


@pytest.mark.parametrize("text", ["0", "-3", "1.5", "x", "", "1e9", "128kk", "999999999999M", "nan", "1T"])
def test_what_is_no_context_is_refused(moeplan: Run, text: str) -> None:
    done = moeplan(*HAND.split(), "--batch", "1", "--isl", "2048", "--osl", "8", "--max-context", text)
    assert done.returncode == 2 and done.stderr.startswith("error: --max-context: ") and "allowed: " in done.stderr


def test_the_longest_context_is_the_smaller_of_memory_and_model(moeplan: Run) -> None:
    words = (*HAND.split(), "--batch", "16", "--isl", "2048", "--osl", "1024")
    found = facts_of(moeplan, *words)
    assert found["longest_context"] == load_model("qwen3-235b-a22b").spec.max_position_embeddings
    assert found["longest_context_set_by"] == "model" and found["longest_context_by_memory"] > found["longest_context"]
    table = moeplan(*words, "--show", "serves").stdout
    assert f"40,960 tokens, by the model; memory holds {found['longest_context_by_memory']:,.0f}" in table
    more = facts_of(moeplan, *words, "--max-context", "1M")
    assert more["longest_context_set_by"] == "memory"
    assert more["longest_context"] == more["longest_context_by_memory"] == found["longest_context_by_memory"]


def test_a_context_changes_no_time(moeplan: Run) -> None:
    words = (*HAND.split(), "--batch", "16", "--isl", "2048", "--osl", "1024")
    one, two = facts_of(moeplan, *words), facts_of(moeplan, *words, "--max-context", "1M")
    assert {key for key in one if one[key] != two[key]} == {"longest_context", "longest_context_set_by"}


def test_a_shorter_context_refuses_what_the_file_allows(moeplan: Run) -> None:
    done = moeplan(*HAND.split(), "--batch", "1", "--isl", "2048", "--osl", "8", "--max-context", "2k")
    assert done.returncode == 2 and "at most 2,048 for qwen3-235b-a22b" in done.stderr


def test_a_plan_keeps_its_context(moeplan: Run, plan: str) -> None:
    held = json.loads(Path(plan).read_text())
    assert held["conditions"]["max_context"] == held["run"]["max_context"] == 131072
    assert facts_of(moeplan, "explain", plan)["longest_context"] > 40960
    assert facts_of(moeplan, "solve", plan)["longest_context"] > 40960
    done = moeplan("replay", "--plan", plan, "--isl", "60k", "--osl", "1k", "--requests", "20")
    assert done.returncode == 0, done.stderr
    shorter = ("--max-context", "48k")
    done = moeplan("replay", "--plan", plan, "--isl", "60k", "--osl", "1k", "--requests", "20", *shorter)
    assert done.returncode == 2 and "at most 49,152" in done.stderr
    for command in (("explain", plan), ("what-if", plan, "--only", "mtp"), ("solve", plan)):
        done = moeplan(*command, "--max-context", "8k")
        assert done.returncode == 2 and "at most 8,192" in done.stderr, command
    assert moeplan("compare", plan, plan).returncode == 0


def test_a_plan_whose_question_is_of_another_context_is_refused(moeplan: Run, plan: str, tmp_path: Path) -> None:
    held = json.loads(Path(plan).read_text())
    held["conditions"]["max_context"] = 262144
    other = tmp_path / "other.json"
    other.write_text(json.dumps(held))
    done = moeplan("explain", str(other))
    assert done.returncode == 4 and "run.max_context: 131072, but conditions.max_context is 262144" in done.stderr


@pytest.mark.parametrize("value", ["128k", "131072", '"131072"'])
def test_a_run_spec_states_it_in_either_form(moeplan: Run, tmp_path: Path, value: str) -> None:
    run = tmp_path / "run.yaml"
    lines = ("model: qwen3-235b-a22b", "on: atlas-800i-a2-64gb-hccs", "cards: 64", "isl: 40000", "osl: 1024")
    run.write_text("\n".join((*lines, "tpot: 80ms", f"max_context: {value}")))
    assert facts_of(moeplan, "solve", str(run))["longest_context"] > 40960


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "true", "lots", "[1]"])
def test_a_run_spec_of_no_context_is_refused(moeplan: Run, tmp_path: Path, value: str) -> None:
    run = tmp_path / "run.yaml"
    lines = ("model: qwen3-235b-a22b", "on: atlas-800i-a2-64gb-hccs", "cards: 64", "isl: 40000", "osl: 1024")
    run.write_text("\n".join((*lines, "tpot: 80ms", f"max_context: {value}")))
    done = moeplan("solve", str(run))
    assert done.returncode == 4 and "run.yaml:7: max_context" in done.stderr


@pytest.mark.parametrize(
    ("stretched", "tokens"),
    [
        ({"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}}, 16384),
        ({"rope_parameters": {"factor": 8, "original_max_position_embeddings": 1024}}, 8192),
        ({"rope_scaling": {"factor": 4}, "original_max_position_embeddings": 4096}, 16384),
        ({"rope_scaling": {"factor": 4, "original_max_position_embeddings": 1024}}, 4096),
        ({"rope_scaling": {"factor": 1, "original_max_position_embeddings": 1024}}, 4096),
        ({"rope_scaling": {"factor": 4}}, 4096),
        ({"rope_scaling": None}, 4096),
        ({"rope_scaling": "yarn"}, 4096),
        ({"rope_scaling": {"factor": "4", "original_max_position_embeddings": [1]}}, 4096),
        ({"rope_scaling": {"factor": -4, "original_max_position_embeddings": 4096}}, 4096),
        ({"rope_scaling": {"factor": 1e300, "original_max_position_embeddings": 4096}}, 4096),
    ],
)
def test_a_config_that_stretches_positions_takes_so_many(
    tmp_path: Path, stretched: dict[str, Any], tokens: int
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG | stretched))
    known = load_path("models", path)
    assert known.spec.max_position_embeddings == tokens
    told = [note for note in known.notes if note.startswith("context: ")]
    assert bool(told) == (tokens > 4096) and all(f"{tokens:,}" in note and "4,096" in note for note in told)
