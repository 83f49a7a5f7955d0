"""Scores of published results: files of a user, anchors, summaries, a source left out, peers, deployments."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from perfmodel.errors import DataError
from perfmodel.files import catalog
from perfmodel.files.folders import names
from perfmodel.files.machines import load_conditions
from perfmodel.files.results import load_results
from perfmodel.planning.published import deployments_on_file, row_on_file, rows_on_file
from perfmodel.planning.scores import scores
from perfmodel.prediction.uncertainty import Interval
from perfmodel.scoring.deployments import Deployed, deployed
from perfmodel.scoring.distance import Place, distance
from perfmodel.scoring.evidence_fit import fit_terms
from perfmodel.scoring.neighbours import Anchor, anchor, nearest
from perfmodel.scoring.peers import beside
from perfmodel.scoring.spreads import FREEDOM, Miss, fit_spreads
from perfmodel.scoring.summaries import Counted, counted, summaries
from perfmodel.scoring.validation import Published, Result, Scored, scored, turned
from perfmodel.scoring.without_source import NOTE, kept, prior_of, read_off
from perfmodel.specs.base import value_at
from perfmodel.specs.evidence import DeploymentSpec
from tests.validated import Validated

ROOT = Path(__file__).resolve().parent.parent
ROW = (ROOT / "evidence" / "cm384-decode-4k-b96.yaml").read_text(encoding="utf-8")
PLACE = Place(
    phase="decode",
    chip="a",
    model="m",
    overlap="none",
    exchange="dispatch",
    precision="w8a8",
    dies=64,
    tokens=96,
    context=4096,
)


def of_role(result: Result, role: str) -> Result:
    return replace(result, spec=result.spec.model_copy(update={"role": role}))


def score(measured: float, quantity: str = "step_time") -> Scored:
    ends = Interval(low50=0.95, high50=1.05, low90=0.9, high90=1.1)
    return Scored(quantity=quantity, unit="s", measured=measured, predicted=1.0, interval=ends)


def tables(done: Any) -> dict[str, list[dict[str, Any]]]:
    assert done.returncode == 0, done.stderr
    return {table["title"]: table["rows"] for table in json.loads(done.stdout)["tables"]}


# --- names and files


def test_a_file_of_ones_own_and_a_name_together(moeplan, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(ROW.replace("name: cm384-decode-4k-b96", "name: mine").replace("value: 0.0494", "value: 0.0500"))
    rows = tables(moeplan("validate", str(path), "seed-cm384-decode", "--format", "json"))["Steps, golden rows"]
    assert [row["row"] for row in rows] == [*(6 * ["mine"]), "seed-cm384-decode"]
    assert rows[0]["measured"] == 0.05
    assert rows[0]["nearest"] == "cm384-decode-4k-b96"
    assert rows[0]["distance"] == 0
    assert rows[0]["low90"] < rows[0]["low50"] < rows[0]["predicted"] < rows[0]["high50"] < rows[0]["high90"]


def test_a_path_that_exists_is_read_whatever_its_ending(moeplan, tmp_path: Path) -> None:
    path = tmp_path / "run.txt"
    path.write_text(ROW)
    assert len(tables(moeplan("validate", str(path), "--format", "json"))["Steps, golden rows"]) == 6


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("  phase: decode", "  phase: decod", ":13: conditions.phase: found 'decod'; allowed: 'decode' or 'prefill'"),
        ("  stack: cann-2025", "  stack: cann-2052", ":12: conditions.stack: stack: 'cann-2052' is not on file; did"),
        ("  isl: 4096", "  islx: 4096", ":14: conditions.islx: unknown key; did you mean 'isl'"),
        ("value: 0.0494, unit: s", "value: 49.4, unit: ms", ":31: measured.0.unit: found 'ms'; allowed: 's' for tpot"),
        ("value: 0.0494", "value: .inf", ":31: measured.0.value: found inf; allowed: a finite number"),
        ("  acceptance: [0.7]", "  acceptance: []", ":9: conditions: found {'syste"),
        ("value: 0.0494", "value: -1", ":31: measured.0.value: found -1; allowed: greater than 0"),
    ],
)
def test_faults_of_a_file_have_their_line(moeplan, tmp_path: Path, old: str, new: str, where: str) -> None:
    path = tmp_path / "mine.yaml"
    assert old in ROW
    path.write_text(ROW.replace(old, new, 1))
    done = moeplan("validate", str(path))
    assert done.returncode == 4
    assert f"{path}{where}" in done.stderr


def test_faults_of_a_deployment_are_told_as_of_a_deployment(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    text = (ROOT / "evidence/deployments/va-qwen235-1p2d.yaml").read_text(encoding="utf-8")
    path.write_text(text.replace("  concurrency: 576\n", ""))
    with pytest.raises(DataError, match="nothing fixes the batch of decode; add decode.layout.batch, concurrency"):
        load_results([str(path)])


def test_names_keep_their_suggestions(moeplan) -> None:
    for wrong, right in (("sed-cm384-decode", "seed-cm384-decode"), ("va-qwen235-1p2", "va-qwen235-1p2d")):
        done = moeplan("validate", wrong)
        assert done.returncode == 2
        assert f"did you mean '{right}'" in done.stderr
    assert moeplan("validate", "gone.yaml").returncode == 2


# --- scores


def test_score_counts_width_and_what_lies_outside() -> None:
    assert score(1.0).score == pytest.approx(0.2)
    assert score(2.0).score == pytest.approx(0.1 + 20 * (1 - 0.55))
    assert (score(1.04).inside50, score(1.08).inside50, score(1.08).inside90) == (True, False, True)
    assert not score(1.12).inside90


def test_rates_count_turned() -> None:
    assert turned("step_time", 0.1) == 0.1
    assert turned("tokens_per_s_per_card", 0.25) == pytest.approx(-0.2)
    fast = scored(row_on_file("seed-a2-decode-808"))
    assert fast.slow == pytest.approx(1 / (1 + fast.scores[0].error) - 1)


def test_summaries_are_of_the_numbers_of_their_group() -> None:
    some = [scored(row_on_file(n)) for n in ("seed-cm384-decode", "seed-prefill-16x", "xds-colocated-decode")]
    mixed = [*some[:2], of_role(some[2], "reference")]
    found = {(s.by, s.group): s for s in summaries(counted(mixed, []))}
    errors = [one.slow for one in some[:2]]
    golden = found["role", "golden"]
    assert golden.results == 2
    assert golden.mean == pytest.approx(sum(map(abs, errors)) / 2)
    assert golden.bias == pytest.approx(sum(errors) / 2)
    assert golden.worst == max(errors, key=abs)
    assert golden.inside90 == 1
    assert golden.score == pytest.approx(sum(one.scores[0].score for one in some[:2]) / 2)
    halves = [(one.interval.high90 - one.interval.low90) / 2 / one.predicted for one in (r.scores[0] for r in some[:2])]
    assert golden.half == pytest.approx(sum(halves) / 2)
    assert found["all", "all"].results == found["measured on", "driver"].results == 3
    assert {key for key in found if key[0] == "phase"} == {("phase", "decode"), ("phase", "prefill")}
    assert found["source", "seed"].results == 2


def test_every_number_counts_once_in_each_grouping(validated: Validated) -> None:
    """The first quantity of a step, and every quantity that clients measured."""
    numbers = left_out_numbers(validated)
    quantities = sum(len(spec.measured) for spec in deployments_on_file())
    of_rows = sum(len(row.spec.measured) if row.mixed else 1 for row in rows_on_file())
    assert len(numbers) == of_rows + quantities
    found = summaries(numbers)
    for predicted in ("left out", "in sample"):
        for by in ("all", "measured on", "quantity", "role", "system", "phase", "source"):
            assert sum(s.results for s in found if (s.predicted, s.by) == (predicted, by)) == len(numbers)


def test_a_unit_that_was_mistaken_is_told(moeplan, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(ROW.replace("name: cm384-decode-4k-b96", "name: mine").replace("value: 0.0494", "value: 49.4"))
    done = moeplan("validate", str(path))
    assert done.returncode == 0
    assert "note: mine: tpot: measured 49.4 s, predicted 0.04" in done.stderr
    assert done.stderr.count("check the unit") == 1 + done.stderr.count("files on hand have")
    assert "check the unit" not in moeplan("validate", "cm384-decode-4k-b96").stderr


# --- anchors


def test_distance_is_of_conditions() -> None:
    e = 2.718281828459045
    assert distance(PLACE, PLACE) == 0
    assert distance(PLACE, replace(PLACE, dies=64 * e**3)) == pytest.approx(1)
    assert distance(PLACE, replace(PLACE, tokens=96 / e, context=4096 * e)) == pytest.approx(2 / 3)
    assert distance(PLACE, replace(PLACE, chip="b", overlap="link")) == 2
    assert distance(PLACE, replace(PLACE, phase="prefill")) == float("inf")


def test_nearest_is_neither_itself_nor_of_another_phase() -> None:
    near = [
        Anchor(name="self", place=PLACE, slow=0.0),
        Anchor(name="other-phase", place=replace(PLACE, phase="prefill"), slow=0.0),
        Anchor(name="far", place=replace(PLACE, dies=640), slow=0.1),
        Anchor(name="near", place=replace(PLACE, dies=80), slow=0.2),
    ]
    found = nearest("self", PLACE, near)
    assert found is not None
    assert found[0].name == "near"
    assert nearest("self", PLACE, near[:2]) is None


def test_anchor_has_the_error_of_its_row() -> None:
    one = row_on_file("seed-cm384-decode")
    assert anchor(one).slow == scored(one).slow


# --- a source left out


def test_a_source_left_out_takes_its_rows_and_what_was_read_off_it(monkeypatch) -> None:
    """No row of the source is fitted to, on no machine is a number that it told, and stated facts of products stay."""
    from perfmodel.scoring import left_out

    seen: list[Published] = []

    def fit(rows: Sequence[Published]) -> Any:
        seen.extend(rows)
        return fit_terms(rows)

    monkeypatch.setattr(left_out, "fit_terms", fit)
    rows = rows_on_file()
    machine = left_out.known_without(["cm384"], rows)["cm384"](row_on_file("seed-cm384-decode").machine)
    assert {row.source for row in seen} >= {"recipe", "xds", "msm"}
    assert "cm384" not in {row.source for row in seen}
    for one in [machine, *(row.machine for row in seen)]:
        for part in one.parts:
            for path, figure in part.figures.items():
                if read_off(figure, "cm384") and not path.endswith("max_tokens_per_die"):
                    assert figure.note == NOTE
                    assert figure.value == prior_of(part, path).value == float(value_at(part.spec, path))
    plain = row_on_file("seed-cm384-decode").machine
    assert machine.chip == plain.chip  # stated: capacities, cores, pin rates
    assert machine.kernels != plain.kernels


def test_numbers_without_a_prior_of_their_class_are_limits() -> None:
    """What stays as the left-out source has it: how many tokens a kernel takes, not how fast it is."""
    found = {one for row in rows_on_file() for one in kept(row.machine, row.source)}
    assert {one.split(": ")[1].split(".")[-1] for one in found} <= {
        "max_tokens_per_die",
        "kv_block_tokens",
        "utilization",
        "token_budget",
        "max_running",
        "align_steps",
    }


def test_a_row_of_a_source_that_told_nothing_else_is_predicted_alike() -> None:
    """Of some sources no number was taken and no row fitted to: leaving them out changes nothing but the terms."""
    found = scores([row_on_file("vllm-h200-decode-ep72")], [], rows_on_file())
    first = found.results[0].scores[0]
    assert first.left_out is not None
    assert first.left_out.predicted == pytest.approx(first.predicted, rel=1e-9)


def test_left_out_numbers_have_their_own_summary() -> None:
    one = scored(row_on_file("seed-cm384-decode"))
    half = replace(one.scores[0], predicted=960.0)
    result = replace(one, scores=(replace(one.scores[0], left_out=half),))
    whole = summaries(counted([result], []))
    assert (whole[0].predicted, whole[0].by, whole[0].results) == ("left out", "all", 1)
    assert (whole[0].mean, whole[0].bias) == (1.0, 1.0)  # half the rate is twice the time
    assert {one.predicted for one in summaries(counted([one], []))} == {"in sample"}


def test_spreads_are_those_that_made_the_misses() -> None:
    """Misses drawn from known spreads give these back."""
    dice = np.random.default_rng(7)
    misses = []
    for source in range(400):
        common = np.sqrt(4 / dice.chisquare(4))  # of a multivariate t: one stretch for all rows of a source
        shift = 0.2 * dice.normal()
        for _ in range(4):
            error = common * (shift + 0.1 * dice.normal())
            misses.append(Miss(measured_on="service", source=str(source), error=float(error), ranges=0.0))
    found = fit_spreads(misses)
    assert found.keys() == {"service"}
    assert found["service"].source == pytest.approx(0.2, rel=0.12)
    assert found["service"].row == pytest.approx(0.1, rel=0.12)
    assert (found["service"].rows, found["service"].sources) == (1600, 400)


def test_ranges_that_explain_the_misses_leave_little() -> None:
    """What the stated ranges of a source's machine allow is not counted twice."""
    dice = np.random.default_rng(3)
    misses = []
    for source in range(200):
        common = np.sqrt(FREEDOM / dice.chisquare(FREEDOM))
        shift = 0.2 * dice.normal()
        for _ in range(3):
            error = float(common * (shift + 0.05 * dice.normal()))
            misses.append(Miss(measured_on="driver", source=str(source), error=error, ranges=0.2))
    assert fit_spreads(misses)["driver"].source < 0.06


@pytest.mark.parametrize("kind", ["all", "driver", "service", "deployment"])
def test_intervals_hold_as_often_as_they_say_where_sources_are_left_out(validated: Validated, kind: str) -> None:
    """Counts inside 90 % lie where a binomial of 90 % has them with 95 % probability; all, inside 50 % likewise."""
    of_kind = (one for one in left_out_numbers(validated) if kind in ("all", one.measured_on, one.phase))
    numbers = [one for one in of_kind if one.score.left_out]
    inside = sum(one.score.left_out.inside90 for one in numbers)
    low, high = stats.binom.interval(0.95, len(numbers), 0.9)
    assert low <= inside <= high
    if kind == "all":
        low, high = stats.binom.interval(0.95, len(numbers), 0.5)
        assert low <= sum(one.score.left_out.inside50 for one in numbers) <= high


def left_out_numbers(validated: Validated) -> list[Counted]:
    return counted(validated.scores.results, validated.scores.deployed)


def test_the_command_heads_with_numbers_left_out(moeplan) -> None:
    done = moeplan("validate", "seed-cm384-decode", "--format", "json")
    document = json.loads(done.stdout)
    assert document["tables"][0]["rows"][0]["predicted"] == "left out"
    assert document["facts"]["scoreboard"] == document["facts"]["summaries"][0]
    row = next(table for table in document["tables"] if table["title"] == "Steps, golden rows")["rows"][0]
    assert row["left_out"] is not None
    older = moeplan("validate", "seed-cm384-decode", "--leave-one-out", "--format", "json")
    assert older.stdout == done.stdout


# --- peers


@pytest.mark.parametrize("name", names("peers"))
def test_peers_read(name: str) -> None:
    assert catalog.load_peer(name).spec.results


def test_peers_stand_beside_the_same_quantity() -> None:
    peers = [catalog.load_peer(name).spec for name in names("peers")]
    result = scored(row_on_file("cm384-decode-4k-b96"))
    found = {one.peer: one for one in beside(peers, [result], ["cm384-decode-4k-b96"])}
    rate = next(s for s in result.scores if s.quantity == "tokens_per_s_per_card")
    assert {one.row for one in found.values()} == {"cm384-decode-4k-b96"}
    assert found["InferSim"].theirs == pytest.approx(1 / 1.32 - 1)
    assert found["InferSim"].ours == pytest.approx(1 / (1 + rate.error) - 1)


def test_a_row_not_on_file_has_no_error_of_ours() -> None:
    peers = [catalog.load_peer("infersim").spec]
    assert [one.ours for one in beside(peers, [])] == [None]


# --- deployments

DEPLOYMENTS = names("deployments")


def deployment(name: str, stack: str | None = None) -> Deployed:
    return deployed_of(catalog.load_deployment(name).spec, stack)


def deployed_of(spec: DeploymentSpec, stack: str | None = None) -> Deployed:
    model = catalog.load_model(spec.conditions.model).spec
    return deployed(spec, model, load_conditions(spec.conditions, stack))


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_ideal_deployment_is_never_slower_than_the_measured_one(name: str) -> None:
    for one in deployment(name, "ideal").scores:
        assert turned(one.quantity, one.error) <= 0


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_tpot_that_fixes_the_batch_is_not_scored(name: str) -> None:
    spec = catalog.load_deployment(name).spec
    fixed = spec.conditions.concurrency is None and spec.conditions.decode.layout.batch is None
    assert not (fixed and any(measured.quantity == "tpot" for measured in spec.measured))


def test_the_slower_pool_sets_the_rate() -> None:
    spec = catalog.load_deployment("va-qwen235-1p2d").spec
    joined = deployed_of(spec).joined
    assert joined.cards == 24
    assert joined.decode.plan.layout.batch == 72  # 576 requests over 8 ranks
    slower = min(joined.prefill_requests_per_s, joined.decode_requests_per_s)
    assert joined.quantities()["tokens_per_s_per_card"] == pytest.approx(slower * 1536 / 24)
    more = spec.conditions.decode.model_copy(update={"instances": 4})
    conditions = spec.conditions.model_copy(update={"decode": more, "concurrency": 4 * 576})
    many = deployed_of(spec.model_copy(update={"conditions": conditions})).joined
    assert many.decode_requests_per_s == pytest.approx(4 * joined.decode_requests_per_s)
    assert many.quantities()["tokens_per_s_per_card"] == pytest.approx(joined.prefill_requests_per_s * 1536 / 72)


def test_an_open_batch_is_the_largest_that_meets_tpot() -> None:
    spec, limit = catalog.load_deployment("va-v31-2p1d-a3-752").spec, 0.04882
    conditions = spec.conditions.model_copy(update={"concurrency": None, "rate": None, "tpot": limit})
    rate = tuple(measured for measured in spec.measured if measured.quantity == "tokens_per_s_per_card")
    kept = tuple(one for one in spec.open if one.key not in ("concurrency", "rate"))
    one = deployed_of(spec.model_copy(update={"conditions": conditions, "measured": rate, "open": kept}))
    assert one.joined.decode.batch_chosen
    assert 0.9 * limit < one.joined.quantities()["tpot"] <= limit
    assert one.decided_by == "decode"


def test_deployments_stand_in_a_table_of_their_own(moeplan) -> None:
    found = tables(moeplan("validate", "va-qwen235-1p2d", "--format", "json"))
    assert "Whole deployments" in found
    assert not any(title.startswith("Steps") for title in found)
    assert [row["quantity"] for row in found["Whole deployments"]] == ["tokens_per_s_per_card", "tpot", "ttft"]
    assert found["Whole deployments"][0]["cards"] == 24


def test_a_row_that_states_tpot_alone_can_be_left_out(moeplan, tmp_path: Path) -> None:
    """A golden file of one's own is predicted by a fit to the rows on file, and joins none."""
    import re

    path = tmp_path / "mine.yaml"
    path.write_text(re.sub(r"  - \{quantity: (?!tpot).*\n", "", ROW).replace("source: cm384", "source: cm384"))
    rows = tables(moeplan("validate", str(path), "--format", "json"))["Steps, golden rows"]
    assert [row["quantity"] for row in rows] == ["tpot"]
    assert rows[0]["left_out"] is not None
