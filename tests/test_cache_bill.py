"""What an engine's cache holds: requests at once against published counts, and how far a context goes."""

import json
import subprocess
from pathlib import Path

import pytest

from perfmodel.files import folders
from perfmodel.planning.published import row_on_file
from perfmodel.service.setup import cache_tokens
from tests import process
from tests.update_snapshots import environment

#: ranks of attention in the run; each keeps the whole cache of its requests
RANKS = 2
#: requests under way in the run by Little's law, 64 clients in a closed loop
RESIDENT = {"glm52-a3-1k": 61.8, "glm52-a3-16k": 8.9}
WITHIN = 0.15


def held(name: str) -> float:
    """Return the requests of mean length that the caches of all ranks hold."""
    row = row_on_file(name)
    conditions = row.spec.conditions
    ranks = conditions.layout.dies // conditions.layout.tp
    assert ranks == RANKS
    return ranks * cache_tokens(row.resolved.point) / (conditions.isl + conditions.osl / 2)


def test_the_cache_of_one_server_holds_all_clients_with_short_prompts() -> None:
    """61.8 of 64 clients were under way: the clients and the prompts' waits bound it, not the cache."""
    assert held("glm52-a3-1k") >= RESIDENT["glm52-a3-1k"]


def test_long_prompts_fill_the_cache_of_one_server_before_the_clients_do() -> None:
    assert held("glm52-a3-16k") < 0.5 * row_on_file("glm52-a3-16k").spec.conditions.concurrency


@pytest.mark.xfail(
    strict=True,
    reason="some 4 GB a die of the engine are in no row of the bill: it counts its buffers of communicators and what a "
    "step of 4096 tokens keeps as one log of another model has them",
)
def test_the_cache_of_one_server_holds_the_published_requests_with_long_prompts() -> None:
    assert held("glm52-a3-16k") == pytest.approx(RESIDENT["glm52-a3-16k"], rel=WITHIN)


def explained(*words: str) -> subprocess.CompletedProcess[str]:
    return process.run("explain", *words, "--format", "json", env=environment(COLUMNS="120"))


#: two servers with 16 dies each, two requests of 198K a rank, as fast as a reader of text asks
LONG = ("--on", "atlas-800t-a3", "--servers", "2", "--tp", "8", "--stack", "vllm-ascend-2025", "--batch", "2")
LONG += ("--isl", str(197 * 1024), "--osl", "1024", "--kv", "int8", "--tpot", "50ms")


def test_two_servers_serve_198k_where_attention_chooses_and_not_where_it_reads_all(tmp_path: Path) -> None:
    """What refuses the whole read is its time: of the cache itself it keeps less, there being no index keys."""
    sparse = explained("glm-5", *LONG)
    assert sparse.returncode == 0, sparse.stderr
    lines = (folders.root() / "models" / "glm-5.yaml").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not line.startswith(("  indexer:", "aliases:", "  kv_bytes_per_token_bf16:"))]
    assert len(kept) == len(lines) - 3
    plain = tmp_path / "plain.yaml"
    plain.write_text("\n".join(kept).replace("name: glm-5", "name: plain") + "\n", encoding="utf-8")
    whole = explained(str(plain), *LONG)
    assert whole.returncode == 3, whole.stderr
    chosen, read = (json.loads(one.stdout) for one in (sparse, whole))
    assert chosen["facts"]["step_time_s"] < 0.05 < read["facts"]["step_time_s"]
