"""What cannot be had: the limit that binds and the nearest value are named; nonsense is refused in words."""

import json
from typing import Any

import pytest

PLACE = ("--on", "cloudmatrix384", "--cards", "48", "--isl", "1024", "--osl", "512")
SERVERS_OF_8 = ("--on", "atlas-800i-a2-64gb-hccs", "--isl", "1024", "--osl", "512", "--tpot", "50ms")


def solved(moeplan: Any, *words: str) -> tuple[int, dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the exit code, the facts, and what was refused by constraint."""
    done = moeplan("solve", "deepseek-v3", *words, "--format", "json")
    assert "Traceback" not in done.stderr
    document = json.loads(done.stdout)
    refused = next((table["rows"] for table in document["tables"] if table["title"] == "Refused"), [])
    return done.returncode, document["facts"], {row["constraint"]: row for row in refused}


def shown(text: str) -> float:
    """Read the nearest value out of words such as '7.72 ms against 2.00 ms'."""
    from perfmodel.units import Unit

    value = text.split(" against ")[0].replace(",", "")
    return Unit("s").read(value) if value.endswith("s") else float(value.split()[0])


@pytest.mark.parametrize(
    ("constraint", "option", "short", "fact"),
    [("tpot", "--tpot", "2ms", "tpot_s"), ("ttft", "--ttft", "20ms", "ttft_s")],
)
def test_the_nearest_latency_can_be_had_and_nothing_below_it(
    moeplan, constraint: str, option: str, short: str, fact: str
) -> None:
    """A limit just above the value told has a plan, one just below has none and tells the same value."""
    rest = ("--serving", "disaggregated", *(() if option == "--tpot" else ("--tpot", "50ms")))
    code, _, refused = solved(moeplan, *PLACE, *rest, option, short)
    assert code == 3
    nearest = shown(refused[constraint]["closest"])
    digits = 0.01  # three digits are shown
    code, facts, _ = solved(moeplan, *PLACE, *rest, option, f"{nearest * (1 + digits)}s")
    assert code == 0
    assert facts[fact] == pytest.approx(nearest, rel=digits)
    code, _, refused = solved(moeplan, *PLACE, *rest, option, f"{nearest * (1 - digits)}s")
    assert code == 3
    assert shown(refused[constraint]["closest"]) == nearest


def test_the_highest_rate_can_be_had(moeplan) -> None:
    code, _, refused = solved(moeplan, *PLACE, "--tpot", "50ms", "--rate", "1e6")
    assert code == 3
    nearest = shown(refused["rate"]["closest"])
    _, facts, _ = solved(moeplan, *PLACE, "--tpot", "50ms")
    assert facts["requests_per_s"] == pytest.approx(nearest, rel=0.01)


def test_too_few_servers_for_both_pools_name_the_cards(moeplan) -> None:
    """Neither pool fits one server of eight dies, so 24 cards have no room for two pools of two servers each."""
    apart = (*SERVERS_OF_8, "--serving", "disaggregated")
    code, _, refused = solved(moeplan, *apart, "--cards", "24")
    assert code == 3
    assert (refused["cards"]["closest"], refused["cards"]["limit"]) == ("32", "24")
    assert solved(moeplan, *apart, "--cards", "32")[0] == 0
    assert solved(moeplan, *SERVERS_OF_8, "--cards", "24")[1]["serving"] == "mixed"


@pytest.mark.parametrize("tpot", ["50ms", "2ms"])
def test_too_little_memory_is_told_whatever_the_latency(moeplan, tpot: str) -> None:
    words = (*SERVERS_OF_8[:-1], tpot, "--cards", "16", "--serving", "disaggregated")
    code, _, refused = solved(moeplan, *words)
    assert code == 3
    for pool in ("memory", "prefill memory"):
        assert refused[pool]["off"] > 0


BUDGET = ("--tpot", "50ms")
NONSENSE = [
    (("--cards", "-5"), "--cards: -5; allowed: 1 or more"),
    (("--cards", "1.5"), "--cards: '1.5'; allowed: a whole number"),
    (("--cards", "4"), "--cards: 4; allowed: at least 8 (one server"),
    (("--rate", "0"), "--rate: '0 req/s'; allowed: more than zero"),
    (("--rate", "3 req/h"), "is not in 1/s; allowed: /s, 1/s, req/s"),
    (("--isl", "200000"), "200512 tokens; allowed: at most 163,840"),
    (("--isl", "0"), "--isl: 0; allowed: 1 or more"),
    (("--tpot", "50"), "'50' has no unit; 50ms or 50s?"),
    (("--ttft", "nan s"), "'nan s' is not 'number unit'; write it like"),
    (("--objective", "throughputt"), "did you mean 'throughput'?"),
    (("--objective", "cards"), "--objective cards needs --rate"),
    (("--utilisation", "1.2"), "--utilisation: 1.2; allowed: above 0, at most 1"),
    (
        ("--utilisation", "1", "--with", "api-server-scale-out=one"),
        "--utilisation: 1 with front ends that limit the rate; allowed: below 1",
    ),
    (("--with", "mtp=0", "--with", "mtp=1"), "--with mtp: '0' and '1'; allowed: one setting; drop the other"),
    (("--tpott", "3ms"), "no option of 'moeplan solve'; did you mean '--tpot'?"),
]


@pytest.mark.parametrize(("words", "says"), NONSENSE, ids=[" ".join(words) for words, _ in NONSENSE])
def test_nonsense_is_refused_with_what_is_allowed(moeplan, words: tuple[str, ...], says: str) -> None:
    asked = dict(zip(*[iter((*PLACE, *BUDGET))] * 2, strict=True))
    plain = [word for option, value in asked.items() if option not in words for word in (option, value)]
    done = moeplan("solve", "deepseek-v3", *plain, *words)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_contradictions_of_a_run_spec_are_told_with_their_lines(moeplan, tmp_path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "model: deepseek-v3\non: cm384\ncards: 32\nisl: 1024\nosl: 512\ntpot: 50ms\ntpot: 30ms\nutilization: 0.9\n"
    )
    done = moeplan("solve", str(path))
    assert done.returncode == 4
    assert f"{path}:7: tpot: duplicate key; allowed: once; remove one" in done.stderr
    assert f"{path}:8: utilization: unknown key; did you mean 'utilisation'?" in done.stderr
    assert not done.stdout
