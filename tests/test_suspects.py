"""A measured number beside the predicted one: suspects found again where one change made the number, and by hand."""

import csv
import io
import json
import math
from functools import cache
from typing import Any

import pytest

from perfmodel.errors import UsageError
from perfmodel.files import pages
from perfmodel.files.catalog import load_techniques
from perfmodel.planning.changes import Change, technique_changes
from perfmodel.planning.pool_run import PoolRun, of_evidence, other_than
from perfmodel.planning.pools import Pool, Run
from perfmodel.planning.suspects import (
    CHECKS,
    LEAST_CLOSED,
    Gap,
    Trials,
    figures_of,
    gaps_of,
    predicted_of,
    read_measured,
    suspects_of,
    unit_of,
)
from perfmodel.prediction.scenario import of_conditions, resolve
from perfmodel.prediction.techniques import with_setting
from perfmodel.report.language import Glossary
from tests.conftest import Run as Command

#: decode and prefill, large and small, of three makers' stacks
ROWS = (
    "cm384-decode-4k-b96",
    "cm384-decode-4k-b8",
    "cm384-prefill-default",
    "xds-colocated-decode",
    "seed-a2-decode-808",
    "pangu-a2-decode-b1",
    "recipe-r1-decode-4k",
    "sglang-h100-decode-2k",
)
DECODE = ROWS[0]
#: what moves a time by less than this is not told apart from what does nothing
FELT = 1e-3


@cache
def _run(name: str) -> PoolRun:
    unchanged: dict[str, Any] = dict.fromkeys(("acceptance", "stack", "kernels", "with_"))
    return of_evidence(name, unchanged)


@cache
def _trials(name: str) -> Trials:
    return Trials(_run(name))


def _gap(name: str, quantity: str, measured: float) -> Gap:
    return Gap(
        quantity=quantity, unit=unit_of(quantity), measured=measured, predicted=predicted_of(_run(name))[quantity]
    )


def _time_of(run: PoolRun) -> str:
    return "tpot" if run.conditions.phase == "decode" else "step"


def _technique_times(name: str) -> dict[str, float]:
    """Return the time of a row with each technique that applies, set and predicted without the search of suspects."""
    tried, run = _trials(name), _trials(name).run
    techniques = load_techniques()
    pool = Pool(conditions=run.conditions, machine=run.machine)
    varied = Run(model=run.model, pools={run.conditions.phase: pool}, tpot=None, ttft=None, utilisation=1.0)
    times = {}
    for change in technique_changes(varied, techniques.values()):
        if not isinstance(change, Change) or change.by in ("bound", "to build"):
            continue
        try:
            conditions, machine = with_setting(
                techniques[change.name], change.setting, run.conditions, run.machine, run.model
            )
            found = resolve(of_conditions(conditions, run.model, machine.rates()))
        except UsageError:
            continue
        if found.fits or not tried.run.fits:
            times[change.label] = found.tpot if _time_of(run) == "tpot" else float(found.point.step_time)
    return times


@pytest.mark.parametrize("name", ROWS)
def test_what_one_technique_made_is_laid_to_it_or_to_what_does_as_much(name: str) -> None:
    tried, quantity = _trials(name), _time_of(_run(name))
    before = figures_of(tried.run)[quantity]
    felt = {word: time for word, time in _technique_times(name).items() if abs(math.log(time / before)) > FELT}
    assert len(felt) >= 5
    for word, time in felt.items():
        first, *_ = found = suspects_of(tried, _gap(name, quantity, time))
        assert first.kind == "change", word
        assert first.value == pytest.approx(time, rel=1e-9), word
        equal = [one.changes for one in found if one.value == pytest.approx(time, rel=1e-9)]
        assert (word,) in equal, (word, equal)
        assert first.closes == pytest.approx(1, abs=1e-6) and first.reaches


@pytest.mark.parametrize("factor", [0.2, 0.5, 0.8, 1.3, 2.0, 3.0, 8.0])
@pytest.mark.parametrize("quantity", ["tpot", "tokens_per_s_per_card"])
def test_every_suspect_has_its_number_by_hand_and_lies_nearer_than_the_prediction(factor: float, quantity: str) -> None:
    run, tried = _run(DECODE), _trials(DECODE)
    gap = _gap(DECODE, quantity, figures_of(run)[quantity] * factor)
    ends, middle = gap.predicted.interval, gap.predicted.value
    found = suspects_of(tried, gap)
    assert found
    for one in found:
        assert figures_of(other_than(run, one.compare))[quantity] == pytest.approx(one.value, rel=1e-12)
        assert abs(math.log(gap.measured / one.value)) < abs(math.log(factor))
        assert (one.value > middle) == (factor > 1)  # it moves towards what was measured
        assert one.closes == pytest.approx(math.log(one.value / middle) / math.log(factor))
        assert one.closes >= LEAST_CLOSED
        low, high = (one.value * end / middle for end in (ends.low90, ends.high90))
        assert one.reaches == (low <= gap.measured <= high)
        assert set(one.checks) == set(one.changes) and all(one.checks.values())
    for kind in ("change", "pair", "amount"):
        offs = [one.off for one in found if one.kind == kind]
        assert offs == sorted(offs)
    kinds = [one.kind for one in found]
    assert kinds == sorted(kinds, key=["change", "pair", "amount"].index)
    assert all(one.reaches for one in found if one.kind == "amount")
    if "pair" in kinds:
        assert not any(one.reaches for one in found if one.kind == "change")


def test_two_changes_together_are_found_where_neither_reaches_it() -> None:
    run = _run(DECODE)
    both = figures_of(other_than(run, "acceptance=0,chip=ascend-910c-560"))["tpot"]
    found = suspects_of(_trials(DECODE), _gap(DECODE, "tpot", both))
    assert not any(one.reaches for one in found if one.kind == "change")
    pairs = [one for one in found if one.kind == "pair"]
    assert set(pairs[0].changes) == {"acceptance=0", "chip=ascend-910c-560"}
    assert pairs[0].value == pytest.approx(both, rel=1e-12) and pairs[0].off < 1e-9


def test_changes_of_one_thing_are_no_pair() -> None:
    run = _run(DECODE)
    for factor in (0.3, 2.5, 5.0):
        gap = _gap(DECODE, "tpot", figures_of(run)["tpot"] * factor)
        for one in suspects_of(_trials(DECODE), gap):
            names = [change.partition("=")[0] for change in one.changes]
            assert len(set(names)) == len(names)


def test_an_amount_is_the_nearest_whole_number() -> None:
    run = _run(DECODE)
    batch = run.resolved.plan.layout.batch + 9
    time = figures_of(other_than(run, f"batch={batch}"))["tpot"]
    amounts = [one for one in suspects_of(_trials(DECODE), _gap(DECODE, "tpot", time)) if one.kind == "amount"]
    assert (f"batch={batch}",) in [one.changes for one in amounts]
    length = run.conditions.isl - 1000
    time = figures_of(other_than(run, f"isl={length}"))["tpot"]
    amounts = [one for one in suspects_of(_trials(DECODE), _gap(DECODE, "tpot", time)) if one.kind == "amount"]
    assert (f"isl={length}",) in [one.changes for one in amounts]


def test_drafts_other_bins_and_other_stacks_are_suspects() -> None:
    run, tried = _run(DECODE), _trials(DECODE)
    for word in ("acceptance=0", "chip=ascend-910c-560", "stack=vllm-ascend-2025"):
        made = figures_of(other_than(run, word))["tpot"]
        assert suspects_of(tried, _gap(DECODE, "tpot", made))[0].changes == (word,)


def test_prefill_in_between_is_a_suspect_of_a_few_clients() -> None:
    tried = _trials(DECODE)  # 320 ranks of 48 are more clients than are replayed
    assert not [one for one in tried.candidates if one.word.startswith("serving=mixed")]
    small = other_than(_run(DECODE), "batch=1,dies=32,shared_ranks=0,redundant=0,isl=1024,osl=64")
    tried = Trials(small)
    word = "serving=mixed,concurrency=32"  # one of each rank
    assert word in [one.word for one in tried.candidates]
    made = figures_of(other_than(small, word))["tpot"]
    gap = Gap(quantity="tpot", unit="s", measured=made, predicted=predicted_of(small)["tpot"])
    assert suspects_of(tried, gap)[0].changes == (word,)
    assert CHECKS["serving"] in suspects_of(tried, gap)[0].checks.values()


def test_nothing_is_explained_inside_the_doubt() -> None:
    run = _run(DECODE)
    known = predicted_of(run)["tpot"]
    for measured in (known.value, known.interval.low90, known.interval.high90):
        (gap,) = gaps_of(run, {"tpot": measured})
        assert gap.inside and gap.suspects == ()
    for measured in (known.interval.low90 * 0.999, known.interval.high90 * 1.001):
        (gap,) = gaps_of(run, {"tpot": measured})
        assert not gap.inside and gap.suspects


def test_suspects_are_ranked_where_a_prediction_has_no_doubt() -> None:
    ideal = other_than(_run(DECODE), "stack=ideal")
    known = predicted_of(ideal)["tpot"]
    assert known.interval.low90 == pytest.approx(known.interval.high90)
    gap = Gap(quantity="tpot", unit="s", measured=1.5 * known.value, predicted=known)
    alone = [one for one in suspects_of(Trials(ideal), gap) if one.kind == "change"]
    left = [abs(1 - one.closes) for one in alone]
    assert len(left) > 3 and left == sorted(left)


def test_a_number_beyond_reason_has_an_answer() -> None:
    (least,) = gaps_of(_run(DECODE), {"tpot": 5e-324})
    (most,) = gaps_of(_run(DECODE), {"tpot": 1e18})
    assert not least.inside and not most.inside
    assert not any(one.reaches for gap in (least, most) for one in gap.suspects)


# --- what is read -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["tpto=1ms"], "--measured: 'tpto' is not predicted here; allowed, nearest first: tpot, "),
        (["steps=1ms"], "--measured: 'steps' is not predicted here; allowed, nearest first: step, "),
        (["ttft=1s"], "what clients see, as ttft, needs --serving mixed and a load"),
        (["tpot"], "--measured: 'tpot'; allowed: a quantity and its value, like tpot=120ms or ttft=1.8s"),
        (["tpot="], "allowed: a quantity and its value"),
        (["=5ms"], "allowed: a quantity and its value"),
        (["tpot=120"], "--measured tpot: '120' has no unit"),
        (["tpot=0ms"], "--measured tpot: '0ms'; allowed: more than zero"),
        (["tpot=-1ms"], "--measured tpot: '-1ms' is negative"),
        (["tpot=nan"], "--measured tpot: 'nan' is not 'number unit'"),
        (["tpot=5 GB"], "--measured tpot: '5 GB' is not in s"),
        (["tpot=1ms", "tpot=2ms"], "--measured tpot: 1ms and 2ms; allowed: one value; drop the other"),
        (["tpot=1ms,TPOT=2ms"], "--measured tpot: 1ms and 2ms"),
        (["tokens_per_s_per_card=2 ms"], "--measured tokens_per_s_per_card: '2 ms' is not in 1/s"),
    ],
)
def test_what_is_no_measured_number_is_refused(words: list[str], says: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_measured(words, _run(DECODE))
    assert says in str(refused.value)


def test_what_is_measured_is_read_in_si_units() -> None:
    read = read_measured(["tpot=50ms, step_time = 90 ms", "tokens_per_s_per_card=1500"], _run(DECODE))
    assert read == {"tpot": pytest.approx(0.05), "step": pytest.approx(0.09), "tokens_per_s_per_card": 1500.0}


# --- what is shown ------------------------------------------------------------------------------------

BY_HAND = "explain deepseek-v3 --on cm384 --dies 32 --draft 1 --isl 4096 --osl 1024 --tpot 50ms"


def _facts(moeplan: Command, *words: str) -> Any:
    done = moeplan(*words, "--format", "json")
    assert done.returncode in (0, 3), done.stderr
    return json.loads(done.stdout)["facts"]


def test_json_has_what_was_measured_and_options_give_the_numbers_of_suspects(moeplan: Command) -> None:
    facts = _facts(moeplan, *BY_HAND.split(), "--measured", "tpot=160ms")
    (gap,) = facts["measured"]
    assert (gap["quantity"], gap["unit"], gap["measured"]) == ("tpot", "s", 0.16)
    assert gap["predicted"] == facts["tpot_s"]
    assert [gap["low"], gap["high"]] == [facts["tpot_interval_s"][end] for end in ("low90", "high90")]
    assert gap["ratio"] == pytest.approx(0.16 / facts["tpot_s"])
    assert gap["inside"] is False
    batch = facts["layout"]["batch"]
    assert all(one["compare"].startswith(f"batch={batch},") for one in gap["suspects"])  # it was chosen
    tried = 0
    for one in gap["suspects"]:
        if one["kind"] != "change":
            continue
        (change,) = one["changes"]
        name, _, setting = change.partition("=")
        options = {"stack": ("--stack", setting), "acceptance": ("--acceptance", setting), "chip": None}
        option = options.get(name, ("--with", change))
        if option is not None:
            by_hand = _facts(moeplan, *BY_HAND.split(), "--batch", str(batch), *option)
            assert by_hand["tpot_s"] == pytest.approx(one["value"], rel=1e-12), change
            tried += 1
    assert tried >= 3


def test_a_number_inside_the_doubt_is_said_to_be_so(moeplan: Command) -> None:
    words = ("explain", "--evidence", DECODE)
    time = _facts(moeplan, *words)["tpot_s"]
    text = moeplan(*words, "--measured", f"tpot={time * 1e3}ms").stdout
    assert "inside its 90 % interval: nothing to explain beyond the stated doubt" in text
    assert "What could make it" not in text


def test_every_format_and_both_languages_show_it(moeplan: Command) -> None:
    words = ("explain", "--evidence", DECODE, "--measured", "tpot=20ms,tokens_per_s_per_card=9000")
    table = moeplan(*words, COLUMNS="140").stdout
    assert [line.split()[-1] for line in table.splitlines() if line.startswith(("tpot  ", "tokens_per"))] == [
        "faster"
    ] * 2
    assert "What could make it, the nearest first" in table and "How to see whether it is so" in table
    marked = moeplan(*words, "--format", "markdown").stdout
    assert "## Measured beside predicted" in marked and "| tpot | 20.0 ms | 47.6 ms |" in marked
    text = moeplan(*words, "--format", "csv").stdout
    block = text[text.index("# Measured beside predicted\n") :].split("\n\n")[0].splitlines()[1:]
    rows = list(csv.DictReader(io.StringIO("\n".join(block))))
    assert [row["quantity"] for row in rows] == ["tpot", "tokens_per_s_per_card"]
    assert float(rows[0]["measured"]) == 0.02 and rows[0]["unit"] == "s"
    chinese = moeplan(*words, "--lang", "zh").stdout
    assert "实测与预测对照" in chinese and "更快" in chinese


def test_what_clients_measure_is_explained_too(moeplan: Command) -> None:
    words = "explain deepseek-v3 --on cm384 --dies 16 --tp 4 --batch 8 --serving mixed --concurrency 8 --requests 24"
    words += " --isl 1024 --osl 128"
    facts = _facts(moeplan, *words.split(), "--measured", "ttft_p99=60s,ttft=1us,requests_per_s=0.01")
    found = {gap["quantity"]: gap for gap in facts["measured"]}
    assert found["ttft"]["predicted"] == facts["ttft_s"] and found["ttft_p99"]["predicted"] == facts["ttft_p99_s"]
    assert found["requests_per_s"]["unit"] == "1/s"
    assert [gap["inside"] for gap in facts["measured"]] == [False] * 3
    assert all(one["value"] < facts["requests_per_s"] for one in found["requests_per_s"]["suspects"])
    assert found["requests_per_s"]["suspects"]


def test_measured_beside_formula_is_refused(moeplan: Command) -> None:
    done = moeplan("explain", "--evidence", DECODE, "--measured", "tpot=1ms", "--formula", "tpot")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --measured goes with the report")


# --- what data says -----------------------------------------------------------------------------------


def test_every_technique_says_where_to_look_in_both_languages() -> None:
    glossary = Glossary.of(pages.glossary("zh"))
    texts = {name: technique.spec.check for name, technique in load_techniques().items()}
    assert [name for name, text in texts.items() if not text] == []
    assert [text for text in (*texts.values(), *CHECKS.values()) if glossary.find(text or "") is None] == []


def test_compare_takes_what_suspects_change() -> None:
    run = _run(DECODE)
    assert other_than(run, "acceptance=0.5,0.25,batch=32").conditions.acceptance == (0.5, 0.25)
    assert other_than(run, "chip=ascend-910c-560").machine.chip.spec.name == "ascend-910c-560"
    with pytest.raises(UsageError, match="no other bin of"):
        other_than(run, "chip=nvidia-h20-96g")
