"""Scores of published results: files of a user, anchors, summaries, a source left out, peers, deployments."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from perfmodel.errors import DataError
from perfmodel.files import catalog
from perfmodel.files.folders import names
from perfmodel.files.results import load_results
from perfmodel.planning.published import row_on_file, scored_deployment
from perfmodel.prediction.uncertainty import Interval
from perfmodel.scoring.deployments import Deployed
from perfmodel.scoring.distance import Place, distance
from perfmodel.scoring.left_out import leave_one_source_out
from perfmodel.scoring.neighbours import Anchor, anchor, nearest
from perfmodel.scoring.peers import beside
from perfmodel.scoring.summaries import summaries
from perfmodel.scoring.validation import Published, Result, Scored, scored, turned

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
        ("  phase: decode", "  phase: decod", ":12: conditions.phase: found 'decod'; allowed: 'decode' or 'prefill'"),
        ("  stack: cann-2025", "  stack: cann-2052", ":11: conditions.stack: stack: 'cann-2052' is not on file; did"),
        ("  isl: 4096", "  islx: 4096", ":13: conditions.islx: unknown key; did you mean 'isl'"),
        ("value: 0.0494, unit: s", "value: 49.4, unit: ms", ":27: measured.0.unit: found 'ms'; allowed: 's' for tpot"),
        ("value: 0.0494", "value: .inf", ":27: measured.0.value: found inf; allowed: a finite number"),
        ("  acceptance: [0.7]", "  acceptance: []", ":8: conditions: found {'syste"),
        ("value: 0.0494", "value: -1", ":27: measured.0.value: found -1; allowed: greater than 0"),
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


def test_summaries_keep_roles_apart() -> None:
    some = [scored(row_on_file(n)) for n in ("seed-cm384-decode", "seed-prefill-16x", "xds-colocated-decode")]
    mixed = [*some[:2], of_role(some[2], "reference")]
    found = {(s.role, s.by, s.group): s for s in summaries(mixed)}
    errors = [one.slow for one in some[:2]]
    whole = found["golden", "all", "all"]
    assert whole.results == 2
    assert whole.mean == pytest.approx(sum(map(abs, errors)) / 2)
    assert whole.bias == pytest.approx(sum(errors) / 2)
    assert whole.worst == max(errors, key=abs)
    assert whole.inside90 == 1
    assert whole.score == pytest.approx(sum(one.scores[0].score for one in some[:2]) / 2)
    assert found["reference", "source", "xds"].results == 1
    assert {key for key in found if key[:2] == ("golden", "phase")} == {
        ("golden", "phase", "decode"),
        ("golden", "phase", "prefill"),
    }
    assert found["golden", "source", "seed"].results == 2


def test_every_row_counts_once_in_each_grouping(moeplan) -> None:
    facts = json.loads(moeplan("validate", "--format", "json").stdout)["facts"]
    for by in ("all", "system", "phase", "source"):
        assert sum(s["results"] for s in facts["summaries"] if s["by"] == by) == facts["published_results"]


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


@dataclass(frozen=True)
class Toy:
    name: str
    source: str
    value: float
    role: str = "golden"


TOYS = (Toy("a1", "a", 1.0), Toy("a2", "a", 3.0), Toy("b1", "b", 10.0), Toy("c1", "c", 99.0, "reference"))


def toy_fit(rows: Sequence[Toy]) -> Any:
    mean = sum(row.value for row in rows) / len(rows)
    return lambda row: {"step_time": mean}


def test_a_source_never_predicts_itself() -> None:
    found = leave_one_source_out(TOYS, TOYS, toy_fit)
    values = {name: value["step_time"] for name, value in found.items()}
    assert values == {"a1": 10, "a2": 10, "b1": 2, "c1": pytest.approx(14 / 3)}


def test_a_lone_source_has_no_prediction() -> None:
    assert leave_one_source_out(TOYS[:2], TOYS[:2], toy_fit) == {}


def test_left_out_errors_have_their_own_summary() -> None:
    one = row_on_file("seed-cm384-decode")
    result = scored(one, {"tokens_per_s_per_card": 960.0})
    assert result.scores[0].left_out_error == -0.5
    whole = summaries([result])[0]
    assert (whole.left_out_results, whole.left_out_mean, whole.left_out_bias) == (1, 1.0, 1.0)
    assert summaries([scored(one)])[0].left_out_mean is None


def test_the_option_shows_what_a_fit_predicts(monkeypatch) -> None:
    """A fit that always answers half of what was measured."""
    from perfmodel.cli.app import app

    seen: list[set[str]] = []

    def fit(rows: Sequence[Published]) -> Any:
        seen.append({row.source for row in rows})
        return lambda row: {measured.quantity: measured.value / 2 for measured in row.spec.measured}

    monkeypatch.setattr("perfmodel.scoring.evidence_fit.predictor", fit)
    done = CliRunner().invoke(app, ["validate", "seed-cm384-decode", "--leave-one-out", "--format", "json"])
    assert done.exit_code == 0, done.output
    found = {table["title"]: table["rows"] for table in json.loads(done.output)["tables"]}
    assert found["Steps, golden rows"][0]["left_out"] == pytest.approx(-0.5)
    assert found["Summary, golden rows: above is slow"][0]["left_out_bias"] == pytest.approx(1.0)
    assert "seed" not in seen[0]
    assert "cm384" in seen[0]


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
    return scored_deployment(catalog.load_deployment(name).spec, stack)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_ideal_deployment_is_never_slower_than_the_measured_one(name: str) -> None:
    for one in deployment(name, "ideal").scores:
        assert turned(one.quantity, one.error) <= 0


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_tpot_that_fixes_the_batch_is_not_scored(name: str) -> None:
    spec = catalog.load_deployment(name).spec
    fixed = spec.conditions.concurrency is None and spec.conditions.decode.layout.batch is None
    assert not (fixed and any(measured.quantity == "tpot" for measured in spec.measured))


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_intervals_of_deployments_hold_their_prediction(name: str) -> None:
    for one in deployment(name).scores:
        assert one.interval.low50 < one.predicted < one.interval.high50


def test_the_slower_pool_sets_the_rate() -> None:
    spec = catalog.load_deployment("va-qwen235-1p2d").spec
    joined = scored_deployment(spec).joined
    assert joined.cards == 24
    assert joined.decode.plan.layout.batch == 72  # 576 requests over 8 ranks
    slower = min(joined.prefill_requests_per_s, joined.decode_requests_per_s)
    assert joined.quantities()["tokens_per_s_per_card"] == pytest.approx(slower * 1536 / 24)
    more = spec.conditions.decode.model_copy(update={"instances": 4})
    conditions = spec.conditions.model_copy(update={"decode": more, "concurrency": 4 * 576})
    many = scored_deployment(spec.model_copy(update={"conditions": conditions})).joined
    assert many.decode_requests_per_s == pytest.approx(4 * joined.decode_requests_per_s)
    assert many.quantities()["tokens_per_s_per_card"] == pytest.approx(joined.prefill_requests_per_s * 1536 / 72)


def test_an_open_batch_is_the_largest_that_meets_tpot() -> None:
    one = deployment("va-v31-2p1d-a3-752")
    limit = one.spec.conditions.tpot
    assert limit is not None
    assert one.joined.decode.batch_chosen
    assert 0.9 * limit < one.joined.quantities()["tpot"] <= limit
    assert one.decided_by == "decode"


def test_deployments_stand_in_a_table_of_their_own(moeplan) -> None:
    found = tables(moeplan("validate", "va-qwen235-1p2d", "--format", "json"))
    assert list(found) == ["Whole deployments"]
    assert [row["quantity"] for row in found["Whole deployments"]] == ["tokens_per_s_per_card", "tpot"]
    assert found["Whole deployments"][0]["cards"] == 24


def test_a_row_that_states_tpot_alone_can_be_left_out(moeplan, tmp_path: Path) -> None:
    """A golden file of one's own is predicted by a fit to the rows on file, and joins none."""
    import re

    path = tmp_path / "mine.yaml"
    path.write_text(re.sub(r"  - \{quantity: (?!tpot).*\n", "", ROW).replace("source: cm384", "source: cm384"))
    rows = tables(moeplan("validate", str(path), "--leave-one-out", "--format", "json"))["Steps, golden rows"]
    assert [row["quantity"] for row in rows] == ["tpot"]
    assert rows[0]["left_out"] is not None
