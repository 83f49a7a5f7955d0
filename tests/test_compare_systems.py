"""One question asked of several systems: the same answers as of each alone, an order with its doubt, clear refusals."""

import csv
import io
import json
from typing import Any

import pytest
import yaml

from perfmodel.files import folders
from tests.conftest import Run

MODEL = "qwen3-30b-a3b"
LENGTHS = ("--isl", "1024", "--osl", "512")
SYSTEMS = "cloudmatrix384,atlas-800t-a3,h200,atlas-800i-a3"
ASKED = ("compare-systems", MODEL, "--on", SYSTEMS, *LENGTHS, "--cards", "16")


def facts_of(moeplan: Run, *words: str, code: int = 0) -> dict[str, Any]:
    done = moeplan(*words, "--format", "json")
    assert done.returncode == code, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["facts"]
    return found


def test_each_system_has_the_plan_that_solve_finds(moeplan: Run) -> None:
    facts = facts_of(moeplan, *ASKED, "--tpot", "40ms", "--ttft", "3s")
    assert facts["cards_of_each"] == 16
    for one in facts["systems"]:
        words = ("solve", MODEL, "--on", one["system"], *LENGTHS, "--cards", "16", "--tpot", "40ms", "--ttft", "3s")
        alone = facts_of(moeplan, *words)
        rate = alone["tokens_per_s_per_card_of_deployment"]
        assert one["tokens_per_s_per_card"] == pytest.approx(rate, rel=1e-12)
        assert one["tpot_s"] == alone["tpot_s"]
        assert one["ttft_s"] == alone["ttft_s"]
        assert one["tpot_chance"] == alone["tpot_chance"]
        assert one["decode_layout"] == alone["decode"]["layout"]
        assert one["cards"] == alone["cards_used"]
        ends = {name: value * 512 / one["cards"] for name, value in alone["requests_per_s_interval"].items()}
        assert one["tokens_per_s_per_card_interval"] == pytest.approx(ends)
        assert one["nearest"]["row"] in folders.names("evidence")
        assert one["nearest"]["distance"] > 0


def test_the_order_and_its_doubt(moeplan: Run) -> None:
    facts = facts_of(moeplan, *ASKED)
    rates = [one["tokens_per_s_per_card"] for one in facts["systems"]]
    assert rates == sorted(rates, reverse=True)
    first, *others = facts["systems"]
    assert facts["best"] == first["system"]
    assert first["against_best"] is None
    assert f"{rates[0]:,.0f} tokens/s" in facts["verdict"]
    for one in others:
        against = one["against_best"]
        assert against["loss"] == pytest.approx(one["tokens_per_s_per_card"] / rates[0] - 1)
        assert (one["system"] in facts["within_doubt"]) == against["within_doubt"]
        ends = against["interval"]
        if one["stack"] == first["stack"]:
            assert against["within_doubt"] == (ends["low90"] <= 1e-9 and ends["high90"] >= -1e-9)
        else:  # no kernels in common: intervals of each alone
            assert ends is None
            reach = one["tokens_per_s_per_card_interval"]["high90"]
            assert against["within_doubt"] == (reach >= first["tokens_per_s_per_card_interval"]["low90"])


def test_shared_kernels_leave_less_doubt_than_two_intervals(moeplan: Run) -> None:
    """Two bins of one chip under one stack: what is not known is as large on both, so the order is surer."""
    words = ("compare-systems", MODEL, "--on", "atlas-800t-a3,atlas-800i-a3", *LENGTHS, "--cards", "16")
    first, second = facts_of(moeplan, *words)["systems"]
    ends = second["against_best"]["interval"]
    alone = second["tokens_per_s_per_card_interval"]
    wide = (alone["high90"] - alone["low90"]) / second["tokens_per_s_per_card"]
    assert ends["high90"] - ends["low90"] < wide / 2
    assert first["stack"] == second["stack"]


def test_without_a_size_all_have_one_that_holds_the_model_on_each(moeplan: Run) -> None:
    facts = facts_of(moeplan, "compare-systems", MODEL, "--on", "h200,atlas-350,gb200", *LENGTHS)
    allowed = {one["system"]: one["cards_allowed"] for one in facts["systems"]}
    assert set(allowed.values()) == {facts["cards_of_each"]}
    assert facts["cards_of_each"] % 16 == 0  # whole servers of 8, 16 and 4 cards
    assert all(one["plan"] for one in facts["systems"])
    assert facts["tpot_target_s"] == 0.05
    assert "no --tpot given: 50.0 ms is taken" in moeplan(*ASKED).stdout


def test_servers_are_each_systems_own_and_a_rate_takes_the_fewest_cards(moeplan: Run) -> None:
    words = ("compare-systems", MODEL, "--on", "h200,gb200", *LENGTHS, "--servers", "2")
    allowed = {one["system"]: one["cards_allowed"] for one in facts_of(moeplan, *words)["systems"]}
    assert allowed == {"h200": 16, "gb200-nvl72": 8}
    rated = facts_of(moeplan, *words, "--rate", "5")
    for one in rated["systems"]:
        assert one["requests_per_s"] == pytest.approx(5)
        assert one["tokens_per_s_per_card"] == pytest.approx(5 * 512 / one["cards"])


def test_money_and_watts(moeplan: Run) -> None:
    facts = facts_of(moeplan, *ASKED, "--price", "cm384=4", "--price", "h200=2.5")
    each = {one["system"]: one for one in facts["systems"]}
    rate = each["cloudmatrix384"]["tokens_per_s_per_card"]
    assert each["cloudmatrix384"]["tokens_per_money"] == pytest.approx(rate * 3600 / 4)
    assert each["atlas-800i-a3"]["tokens_per_money"] is None
    joule = each["atlas-800i-a3"]["tokens_per_s_per_card"] * 8 / 14600
    assert each["atlas-800i-a3"]["tokens_per_joule_at_least"] == pytest.approx(joule)
    assert each["h200"]["tokens_per_joule_at_least"] is None


def test_a_system_that_refuses_the_question_is_not_said_to_have_no_plan(moeplan: Run) -> None:
    """INT8 caches: of the H200's stack, and not of the stack that the A3 server has by itself."""
    words = (
        "compare-systems",
        "qwen3-30b-a3b",
        "--on",
        "h200,atlas-800i-a3",
        *LENGTHS,
        "--cards",
        "16",
        "--kv",
        "int8",
    )
    verdict = facts_of(moeplan, *words)["verdict"]
    assert "no other system" not in str(verdict)
    assert "not compared, as the question is refused there: atlas-800i-a3" in str(verdict)


def test_a_system_without_a_plan_says_what_works(moeplan: Run) -> None:
    """Memory, the budget and TPOT each refuse; the nearest thing that works is told, and works."""
    words = ("compare-systems", "deepseek-v3", "--on", "h200,atlas-800i-a2-32gb-hccs", *LENGTHS)
    facts = facts_of(moeplan, *words, "--cards", "32")
    each = {one["system"]: one for one in facts["systems"]}
    assert facts["best"] == "h200"
    assert "no other system has a plan" in facts["verdict"]
    small = each["atlas-800i-a2-32gb-hccs"]
    assert small["plan"] is None
    assert small["constraint"] in ("memory", "cards", "prefill memory")
    cards = "".join(filter(str.isdigit, small["why_not"].rpartition("; ")[2]))
    again = facts_of(moeplan, "compare-systems", "deepseek-v3", *words[2:], "--cards", cards, "--tpot", "1s")
    assert all(one["plan"] for one in again["systems"])


def test_where_no_system_has_a_plan_the_code_says_so(moeplan: Run) -> None:
    facts = facts_of(moeplan, *ASKED, "--tpot", "1ms", code=3)
    assert facts["best"] is None
    assert facts["verdict"] == "no system has a plan"
    for one in facts["systems"]:
        assert one["constraint"] == "tpot"
        assert "no plan meets TPOT 1.00 ms; the nearest takes" in one["why_not"]


def test_formats_tell_the_same(moeplan: Run) -> None:
    asked = (*ASKED[:3], "cm384,h200", *ASKED[4:])
    facts = facts_of(moeplan, *asked)
    rates = [one["tokens_per_s_per_card"] for one in facts["systems"]]
    text = moeplan(*asked, "--format", "csv").stdout
    block = text.split("# The best plan on each\n")[1].split("\n\n")[0]
    rows = list(csv.DictReader(io.StringIO(block)))
    assert [float(row["rate [1/s]"]) for row in rows] == rates
    page = moeplan(*asked, "--format", "markdown").stdout
    assert all(f"| {rate:,.0f} |" in page for rate in rates if rate >= 1000)
    for columns in ("60", "100", "160"):
        drawn = moeplan(*asked, COLUMNS=columns)
        assert drawn.returncode == 0
        assert all(len(line) <= int(columns) for line in drawn.stdout.splitlines())
        assert f"per card {facts['best']} serves most" in " ".join(drawn.stdout.split())
    assert "单卡以" in moeplan(*asked, "--lang", "zh").stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "compare-systems needs --on, --isl, --osl"),
        (("--on", "h200,cm384"), "compare-systems needs --isl, --osl"),
        (("--on", "h200,cloudmatrx384", *LENGTHS), "did you mean 'cloudmatrix384'?"),
        (("--on", "h200,dgx-h200,cm384", *LENGTHS), "'h200' and 'dgx-h200' are both h200; drop one"),
        (("--on", "h200,cm384,h200", *LENGTHS), "'h200' is there twice; drop one"),
        (("--on", "h200", *LENGTHS), "two systems or more"),
        (("--on", ",", *LENGTHS), "two systems or more"),
        (("--on", "h200,all", *LENGTHS), "'all' is not on file"),
        (("--on", "h200,cm384", *LENGTHS, "--cards", "0"), "--cards: 0; allowed: 1 or more"),
        (("--on", "h200,cm384", *LENGTHS, "--servers", "-1"), "--servers: -1; allowed: 1 or more"),
        (("--on", "h200,cm384", *LENGTHS, "--cards", "16", "--servers", "2"), "--cards with --servers"),
        (("--on", "h200,cm384", *LENGTHS, "--cards", "4"), "h200: --cards: 4; allowed: at least 16"),
        (("--on", "h200,cm384", *LENGTHS, "--rate", "0"), "--rate"),
        (("--on", "h200,cm384", *LENGTHS, "--tpot", "50"), "--tpot"),
        (("--on", "h200,cm384", "--isl", "4k", "--osl", "1e9"), "--osl"),
        (("--on", "h200,cm384", "--isl", "400k", "--osl", "1"), "--isl + --osl"),
        (("--on", "h200,cm384", *LENGTHS, "--precision", "fp4"), "--precision: 'fp4' is unknown"),
        (("--on", "h200,cm384", *LENGTHS, "--serving", "both"), "--serving: 'both' is unknown"),
        (("--on", "h200,cm384", *LENGTHS, "--engine", "nginx"), "engine 'nginx' is not on file"),
        (("--on", "h200,cm384", *LENGTHS, "--stack", "apache"), "stack: 'apache' is not on file"),
        (("--on", "h200,cm384", *LENGTHS, "--price", "h200"), "--price: 'h200'"),
        (("--on", "h200,cm384", *LENGTHS, "--price", "h200=free"), "like h200=2.5"),
        (("--on", "h200,cm384", *LENGTHS, "--price", "h200=-1"), "--price: 'h200=-1'"),
        (("--on", "h200,cm384", *LENGTHS, "--price", "h100=1"), "not among the systems of --on"),
        (("--on", "h200,cm384", *LENGTHS, "--price", "h20x=1"), "--price: system: 'h20x' is not on file"),
        (("--on", "h200,cm384", *LENGTHS, "--price", "h200=1", "--price", "dgx-h200=2"), "two prices of h200"),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, tuple) else "",
)
def test_nonsense_is_refused_in_a_line(moeplan: Run, words: tuple[str, ...], says: str) -> None:
    done = moeplan("compare-systems", MODEL, *words)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_all_faults_of_a_list_are_told_at_once(moeplan: Run) -> None:
    lines = moeplan("compare-systems", MODEL, "--on", "h2o,h200,h200,cm385", *LENGTHS).stderr.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("error: --on: ") for line in lines)


def test_a_system_that_a_stack_does_not_run_on_is_told_beside_those_that_it_does(moeplan: Run) -> None:
    """What its refusal says to write, this command takes."""
    on = "cloudmatrix384,h200"
    facts = facts_of(moeplan, *ASKED[:3], on, *ASKED[4:], "--stack", "cann-2026")
    runs, lacks = facts["systems"]
    assert (runs["system"], runs["stack"], lacks["system"]) == ("cloudmatrix384", "cann-2026", "h200")
    usual = facts_of(moeplan, *ASKED[:3], on, *ASKED[4:])["systems"]
    assert next(one["stack"] for one in usual if one["system"] == "cloudmatrix384") != "cann-2026"
    told = moeplan(*ASKED[:3], on, *ASKED[4:], "--stack", "cann-2026").stdout
    assert "stack cann-2026: no link_efficiency for" in told and "--stack" in told
    ideal = facts_of(moeplan, *ASKED[:3], on, *ASKED[4:], "--stack", "ideal")["systems"]
    assert [one["stack"] for one in ideal] == ["ideal", "ideal"]


def test_a_system_that_lacks_the_engine_is_told_beside_those_that_have_it(moeplan: Run) -> None:
    facts = facts_of(moeplan, *ASKED[:3], "cloudmatrix384,h200", *ASKED[4:], "--engine", "mindie")
    each = {one["system"]: one for one in facts["systems"]}
    assert each["cloudmatrix384"]["plan"]
    assert "no stack that fits h200 has it" in each["h200"]["why_not"]


def test_a_system_of_ones_own_file(moeplan: Run, tmp_path: Any) -> None:
    path = folders.root() / folders.FOLDERS["systems"] / "h200.yaml"
    spec = yaml.safe_load(path.read_text(encoding="utf-8")) | {"name": "mine"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    words = ("compare-systems", MODEL, "--on", f"{tmp_path / 'mine.yaml'},h200", *LENGTHS, "--cards", "16")
    first, second = facts_of(moeplan, *words)["systems"]
    assert {first["system"], second["system"]} == {"mine", "h200"}
    assert first["tokens_per_s_per_card"] == pytest.approx(second["tokens_per_s_per_card"])
    assert second["against_best"]["within_doubt"]
