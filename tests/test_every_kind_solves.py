"""A model of every kind on file has a plan, or a reason why not, on small budgets of unlike systems: never a fault."""

import json

import pytest

from tests.conftest import Run

#: what is unlike the others of a model -> one that has it
KINDS = {
    "dense": "qwen3-8b",
    "grouped-query attention and experts": "qwen3-30b-a3b",
    "windows in some layers": "gpt-oss-20b",
    "linear attention in some layers": "kimi-linear-48b",
    "zero experts": "longcat-flash",
    "several groups of layers": "step-3",
}


@pytest.mark.parametrize("system", ["atlas-800i-a2-64gb-hccs", "h200"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_a_plan_or_a_reason(moeplan: Run, kind: str, system: str) -> None:
    words = ("solve", KINDS[kind], "--on", system, "--cards", "16", "--isl", "1024", "--osl", "128", "--tpot", "50ms")
    done = moeplan(*words, "--format", "json")
    assert done.returncode in (0, 3), done.stderr
    document = json.loads(done.stdout)
    if done.returncode == 0:
        facts = document["facts"]
        assert facts["tpot_s"] <= 0.05 * (1 + 1e-9)
        assert facts["decode"]["memory_planned_B"] <= facts["decode"]["memory_usable_B"]
    else:
        (refused,) = (table["rows"] for table in document["tables"] if table["title"] == "Refused")
        assert sum(row["refused"] for row in refused) > 0
