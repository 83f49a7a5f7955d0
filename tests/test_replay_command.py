"""A plan replayed as a user asks for it: small plans, drawn requests and traces, limits, nonsense."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perfmodel.planning.replay import replayed
from perfmodel.report.render import RENDERERS
from perfmodel.report.replay import replay_document
from perfmodel.report.schema import FACTS
from perfmodel.service.results import Served
from perfmodel.service.routing import telling_block
from perfmodel.service.series import falls_behind, windows_of
from tests import process
from tests.conftest import Run
from tests.test_language import GLOSSARY, _is_name, _texts

SOLVE = "solve deepseek-v3 --on cm384 --cards 32 --isl 1024 --osl 256 --tpot 50ms --ttft 5s"
DRAWN = ("--requests", "1500")
UNASKED: dict[str, Any] = dict.fromkeys(
    ("workload", "isl", "isl_cv", "osl", "osl_cv", "rate", "cv", "concurrency", "requests", "prefix_cache", "engine")
    + ("ttft", "tpot", "max_context")
) | {"skip_bad": False, "seed": 0, "routing": "round_robin"}


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Write a plan of pools apart and one of mixed instances."""

    folder = tmp_path_factory.mktemp("plans")
    found = {}
    for serving in ("disaggregated", "mixed"):
        found[serving] = str(folder / f"{serving}.json")
        words = [*SOLVE.split(), "--serving", serving, "-o", found[serving], "--format", "json"]
        process.run(*words, check=True)
    return found


def trace(path: Path, count: int = 400, *, longest: int = 0) -> str:
    """Write a trace whose prompts share their first block, and by sevens their second."""
    with path.open("w") as file:
        for n in range(count):
            record = {"timestamp": 100 * n, "input_length": 1024 + 100 * (n % 5), "output_length": 20 + n % 9}
            blocks = [0, 1 + n % 7, *range(100 * (n + 1), 100 * (n + 1) + record["input_length"] // 512 - 1)]
            if n == 3 and longest:
                record["input_length"] = longest
                blocks = list(range(10**6, 10**6 + longest // 512))
            file.write(json.dumps(record | {"hash_ids": blocks}) + "\n")
    return str(path)


def asked(moeplan: Run, *words: str, code: int = 0) -> dict[str, Any]:
    done = moeplan("replay", *words, "--format", "json")
    assert done.returncode == code, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("serving", ["disaggregated", "mixed"])
def test_drawn_requests_are_served(serving: str, plans: dict[str, str], moeplan: Run) -> None:
    found = asked(moeplan, "--plan", plans[serving], *DRAWN, "--rate", "4", "--isl-cv", "1.2", "--osl-cv", "0.8")
    facts = found["facts"]
    assert set(FACTS["moeplan.replay/1"]) <= facts.keys()
    assert facts["requests"] == 1500
    assert facts["serving"] == serving
    assert facts["isl_mean"] == pytest.approx(1024, rel=0.01)
    assert 0 < facts["ttft_p50_s"] <= facts["ttft_p90_s"] <= facts["ttft_p99_s"]
    assert 0 < facts["tpot_p50_s"] <= facts["tpot_p99_s"]
    pools = {"mixed"} if serving == "mixed" else {"prefill", "decode"}
    assert facts["utilisation"].keys() == pools
    assert all(0 < share <= 1 for share in facts["utilisation"].values())
    assert abs(facts["little_error"]) < 1e-6
    assert 0 <= facts["within_limits"] <= 1
    assert facts["goodput_per_s"] == pytest.approx(facts["within_limits"] * facts["requests_per_s"])
    plan = json.loads(Path(plans[serving]).read_text())["predicted"]
    assert facts["plan"] == {key + "_s": plan[key] for key in ("tpot", "ttft")} | {
        "requests_per_s": plan["requests_per_s"]
    }
    series = found["tables"][-1]["rows"]
    assert len(series) == 12
    width = series[1]["start"]
    for key in ("rate_in", "rate_out"):
        assert sum(row[key] for row in series) * width == pytest.approx(1500)
    assert sum(row["running"] for row in series) / 12 == pytest.approx(facts["running"], rel=0.05)


def test_a_seed_fixes_all_and_others_differ(plans: dict[str, str], moeplan: Run) -> None:
    words = ("--plan", plans["disaggregated"], *DRAWN, "--isl-cv", "1", "--routing", "random")
    one, again, other = (asked(moeplan, *words, "--seed", seed) for seed in ("1", "1", "2"))
    assert one == again
    assert one["facts"]["ttft_s"] != other["facts"]["ttft_s"]


def test_light_load_of_the_plans_own_lengths_is_what_the_plan_predicts_without_waiting(plans: dict[str, str]) -> None:
    found = replayed(UNASKED | {"plan": plans["disaggregated"], "rate": "0.05", "requests": 100})
    joined, view = found.joined, found.served
    rates = joined.prefill.scenario.case.rates
    assert view.tpot.mean() < found.plan.spec.predicted.tpot
    assert found.service.prefill is not None
    alone = found.service.prefill.step
    own = alone.fixed + alone.work(0, float(np.median(view.isl)))
    bare = float(rates.request_path) + own + found.service.transfer.latency
    assert np.median(view.ttft) == pytest.approx(bare, rel=0.35)
    assert np.median(view.ttft) > bare


def test_the_transfer_is_the_plans(plans: dict[str, str]) -> None:
    from perfmodel.ledger.records import Layout
    from perfmodel.prediction.serving import first_token

    found = replayed(UNASKED | {"plan": plans["disaggregated"], "requests": 10})
    prefill = found.joined.prefill
    terms = first_token(
        prefill=prefill.point,
        layout=Layout.of(prefill.plan.layout),
        case=prefill.scenario.case,
        utilisation=0.5,
        decode_step=0.0,
    )
    transfer = found.service.transfer
    assert transfer.latency + transfer.per_token * 1024 == pytest.approx(float(terms.kv_transfer))


def test_a_trace_comes_as_stamped_stretched_cut_and_repeated(
    plans: dict[str, str], moeplan: Run, tmp_path: Path
) -> None:
    path = trace(tmp_path / "load.jsonl")
    words = (path, "--plan", plans["disaggregated"])
    assert asked(moeplan, *words)["facts"]["rate_per_s"] == pytest.approx(10)
    assert asked(moeplan, *words, "--rate", "4")["facts"]["rate_per_s"] == 4
    cut, more = (asked(moeplan, *words, "--requests", count)["facts"] for count in ("100", "1000"))
    assert (cut["requests"], more["requests"]) == (100, 1000)
    assert more["rate_per_s"] == pytest.approx(10)
    drawn = asked(moeplan, *words, "--cv", "3")
    assert "come in gaps of CV 3" in drawn["tables"][0]["notes"][0]


def test_repeated_traces_find_nothing_of_the_time_before(plans: dict[str, str], tmp_path: Path) -> None:
    path = trace(tmp_path / "load.jsonl")
    given = UNASKED | {"workload": path, "plan": plans["disaggregated"], "prefix_cache": "100000 blocks", "rate": "1"}
    once, thrice = (replayed(given | {"requests": count}).served.found for count in (400, 1200))
    assert 0.3 < once < 0.9
    assert thrice == pytest.approx(once, abs=1e-9)


def test_prefix_caches_are_found_where_prompts_go_home(plans: dict[str, str], moeplan: Run, tmp_path: Path) -> None:
    words = (trace(tmp_path / "load.jsonl"), "--plan", plans["disaggregated"], "--rate", "2")
    plain = asked(moeplan, *words)["facts"]
    assert plain["prefix_hits"] == 0
    cached = ("--prefix-cache", "64GB")
    home = asked(moeplan, *words, *cached, "--routing", "prefix_affinity")
    turn = asked(moeplan, *words, *cached)["facts"]
    assert home["facts"]["prefix_hits"] >= turn["prefix_hits"] > 0.3
    assert home["facts"]["ttft_s"] < plain["ttft_s"]
    assert any("found in prefix caches" in note for table in home["tables"] for note in table["notes"])


def test_the_block_that_tells_prompts_apart() -> None:
    assert telling_block([[7, 1], [7, 2], [7, 3]], 2) == 2
    assert telling_block([[1], [2], [3]], 2) == 1
    assert telling_block([[1, 5], [1, 5]], 2) == 2
    assert telling_block([[], []], 2) == 1


@pytest.mark.parametrize("serving", ["disaggregated", "mixed"])
def test_a_closed_loop_keeps_its_clients_inside(serving: str, plans: dict[str, str], moeplan: Run) -> None:
    found = asked(moeplan, "--plan", plans[serving], "--concurrency", "16")
    facts = found["facts"]
    assert (facts["requests"], facts["concurrency"], facts["rate_per_s"]) == (160, 16, None)
    assert 12 < facts["running"] <= 16
    assert max(row["running"] for row in found["tables"][-1]["rows"]) <= 16 + 1e-6


@pytest.mark.parametrize(("limit", "code"), [("99s", 0), ("p99=99s", 0), ("1ms", 3), ("p50=1ms", 3), ("mean=99 s", 0)])
@pytest.mark.parametrize("what", ["ttft", "tpot"])
def test_limits_given_decide_the_exit(what: str, limit: str, code: int, plans: dict[str, str], moeplan: Run) -> None:
    words = ("--plan", plans["disaggregated"], "--requests", "200", "--rate", "3")
    found = asked(moeplan, *words, f"--{what}", limit, code=code)
    row = next(row for row in found["tables"][1]["rows"] if row["whose"] == "given")
    assert row["met"] is (code == 0)
    assert row["verdict"] == ("missed" if code else "met")
    assert found["facts"][f"{what}_met"] is (code == 0)


def test_limits_of_the_plan_alone_decide_nothing(plans: dict[str, str], moeplan: Run) -> None:
    found = asked(moeplan, "--plan", plans["disaggregated"], "--requests", "3000", "--rate", "500")
    assert found["facts"]["ttft_met"] is False
    assert found["facts"]["within_limits"] < 0.5
    assert found["facts"]["falls_behind"] or found["facts"]["ttft_s"] > 5


def test_requests_that_no_rank_holds_are_left_out(plans: dict[str, str], moeplan: Run, tmp_path: Path) -> None:
    path = trace(tmp_path / "load.jsonl", 20, longest=2_000_000)
    done = moeplan("replay", path, "--plan", plans["disaggregated"], "--format", "json")
    assert done.returncode == 0, done.stderr
    assert "left out 1 requests longer than the model takes" in done.stderr
    assert json.loads(done.stdout)["facts"]["requests"] == 19


NONSENSE = [
    ((), 2, "--plan: is missing"),
    (("--plan", "PLAN", "--routing", "any"), 2, "--routing: 'any' is unknown"),
    (("--plan", "PLAN", "--rate", "0"), 2, "--rate: '0"),
    (("--plan", "PLAN", "--rate", "1e-30"), 2, "--rate: 1e-30 requests/s; allowed: from"),
    (("--plan", "PLAN", "--rate", "fast"), 2, "--rate: 'fast'"),
    (("--plan", "PLAN", "--cv", "-1"), 2, "--cv: -1; allowed"),
    (("--plan", "PLAN", "--isl-cv", "nan"), 2, "--isl-cv: nan"),
    (("--plan", "PLAN", "--isl", "4x"), 2, "--isl: '4x'; allowed: whole tokens"),
    (("--plan", "PLAN", "--isl", "900k"), 2, "--isl + --osl"),
    (("--plan", "PLAN", "--requests", "0"), 2, "--requests: 0; allowed"),
    (("--plan", "PLAN", "--requests", "99999999"), 2, "--requests: 99999999; allowed: at most"),
    (("--plan", "PLAN", "--concurrency", "0"), 2, "--concurrency: 0; allowed"),
    (("--plan", "PLAN", "--concurrency", "4", "--rate", "3"), 2, "--concurrency with --rate"),
    (("--plan", "PLAN", "--seed", "-1"), 2, "--seed: -1; allowed"),
    (("--plan", "PLAN", "--engine", "nginx"), 2, "engine 'nginx': none of stack"),
    (("--plan", "PLAN", "--ttft", "p98=2s"), 2, "--ttft: 'p98' is unknown"),
    (("--plan", "PLAN", "--tpot", "2 parsec"), 2, "--tpot: '2 parsec'"),
    (("--plan", "PLAN", "--prefix-cache", "64GB"), 2, "--prefix-cache needs a trace"),
    (("--plan", "PLAN", "--routing", "prefix_affinity"), 2, "--routing prefix_affinity needs a trace"),
    (("--plan", "PLAN", "--skip-bad"), 2, "--skip-bad without WORKLOAD"),
    (("TRACE", "--plan", "PLAN", "--isl", "4k"), 2, "--isl with WORKLOAD"),
    (("TRACE", "--plan", "PLAN", "--prefix-cache", "1B"), 2, "--prefix-cache: '1B' holds no block"),
    (("TRACE", "--plan", "PLAN", "--prefix-cache", "much"), 2, "--prefix-cache: 'much'"),
    (("--plan", "nowhere.json"), 2, "nowhere.json"),
    (("--plan", "TRACE"), 4, "load.jsonl"),
    (("nowhere.csv", "--plan", "PLAN"), 2, "nowhere.csv"),
    (("BAD", "--plan", "PLAN"), 4, "bad.jsonl"),
]


@pytest.mark.parametrize(
    ("words", "code", "says"), NONSENSE, ids=lambda one: " ".join(one) if isinstance(one, tuple) else ""
)
def test_nonsense_is_refused_in_one_line(
    words: tuple[str, ...], code: int, says: str, plans: dict[str, str], moeplan: Run, tmp_path: Path
) -> None:
    (tmp_path / "bad.jsonl").write_text("what is this\n")
    put = {
        "PLAN": plans["disaggregated"],
        "TRACE": trace(tmp_path / "load.jsonl", 20),
        "BAD": str(tmp_path / "bad.jsonl"),
    }
    done = moeplan("replay", *(put.get(word, word) for word in words))
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert says in done.stderr
    assert done.stderr.count("error:") == done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("form", ["table", "csv", "markdown"])
def test_every_form_shows_every_table(form: str, plans: dict[str, str], moeplan: Run) -> None:
    done = moeplan(
        "replay", "--plan", plans["mixed"], "--requests", "200", "--rate", "2", "--format", form, "--show", "all"
    )
    assert done.returncode == 0, done.stderr
    for title in ("What clients measure", "The plan beside the replay", "Pools", "As time goes on"):
        assert title in done.stdout


def test_every_text_has_a_translation(plans: dict[str, str], moeplan: Run, tmp_path: Path) -> None:
    path = trace(tmp_path / "load.jsonl")
    apart, mixed = ({"plan": plans[name]} for name in ("disaggregated", "mixed"))
    cases = [
        apart | {"requests": 300, "rate": "3", "ttft": "p99=1ms", "tpot": "9s"},
        apart | {"requests": 3000, "rate": "900", "cv": 2.0, "osl": "9"},
        apart | {"workload": path, "prefix_cache": "64GB", "rate": "3"},
        mixed | {"workload": path},
        mixed | {"concurrency": 8, "requests": 50},
        mixed | {"requests": 300, "rate": "3", "engine": None},
    ]
    for given in cases:
        document = replay_document(replayed(UNASKED | given))
        for key, text in _texts(json.loads(RENDERERS["json"](document, 100))):
            known = GLOSSARY.find(text, key) is not None or (key and not key.startswith("#") and _is_name(text))
            assert known, (key, text)
    assert "客户端" in moeplan("replay", "--plan", plans["mixed"], "--requests", "99", "--lang", "zh").stdout


def test_windows_hold_what_comes_and_goes() -> None:
    """Four requests of two seconds each, one a second: counted by hand."""
    arrival = np.arange(4.0)
    zero, ones = np.zeros(4), np.ones(4, dtype=np.int64)
    served = Served(
        service=None,  # type: ignore[arg-type]
        isl=ones,
        osl=3 * ones,
        arrival=arrival,
        queued=arrival,
        prefilled=arrival + 1,
        joined=arrival + 1,
        first=arrival + 1,
        finish=arrival + 2,
        longest=zero,
        instance=ones,
    )
    found = windows_of(served, 5)
    assert [one.start for one in found] == [0, 1, 2, 3, 4]
    assert [one.rate_in for one in found] == [1, 1, 1, 1, 0]
    assert [one.rate_out for one in found] == [0, 0, 1, 1, 2]  # what goes at an edge goes after it, the last before
    assert [one.running for one in found] == [1, 2, 2, 2, 1]
    assert [one.ttft_p50 for one in found] == [1, 1, 1, 1, None]
    assert [one.tpot for one in found] == [0.5, 0.5, 0.5, 0.5, None]
    assert not falls_behind(served)
