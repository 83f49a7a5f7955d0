"""Techniques: published gains, limits in which they vanish, what they keep, what is refused, and the way back."""

import json
import math
import shlex
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.errors import UsageError
from perfmodel.files import catalog, folders
from perfmodel.files.machines import load_conditions
from perfmodel.formulas.attention import causal_pairs
from perfmodel.formulas.roofline import staged_time
from perfmodel.formulas.serving import frontend_time
from perfmodel.planning import choices
from perfmodel.planning.published import scored_gains
from perfmodel.prediction.breakdown import breakdown
from perfmodel.prediction.scenario import Resolved, ledger_of, of_conditions, resolve
from perfmodel.prediction.techniques import inapplicable, setting_of, with_setting
from perfmodel.scoring.gains import ScoredGain, merged, quantity
from perfmodel.specs.conditions import Conditions
from perfmodel.supply.techniques import BETWEEN, lacking

KNOWN = yaml.safe_load((Path(__file__).parent / "golden" / "gains.yaml").read_text())
TECHNIQUES = catalog.load_techniques()


@lru_cache(maxsize=1)
def scored() -> dict[str, ScoredGain]:
    return {
        f"{one.technique.spec.name}: {one.gain.printed}": one for one in scored_gains(TECHNIQUES.values(), TECHNIQUES)
    }


def conditions(row: str = "cm384-decode-4k-b96", **change: Any) -> Conditions:
    return merged(catalog.load_evidence(row).spec.conditions, change)


def run(given: Conditions, *chosen: tuple[str, str]) -> Resolved:
    model = catalog.load_model(given.model).spec
    machine = load_conditions(given)
    for name, setting in chosen:
        given, machine = with_setting(TECHNIQUES[name], setting, given, machine, model)
    return resolve(of_conditions(given, model, machine.rates()))


def step(given: Conditions, *chosen: tuple[str, str]) -> float:
    return quantity(run(given, *chosen), "step_time")


# --- published gains ------------------------------------------------------------------------------


def test_signs_are_right_but_for_those_known() -> None:
    assert {name for name, one in scored().items() if not one.sign_right} == set(KNOWN["wrong_sign"])


def test_sizes_are_within_a_third_but_for_those_known() -> None:
    wrong = {name for name, one in scored().items() if one.gain.scored and not one.size_right}
    assert wrong == set(KNOWN["wrong_size"])


def test_what_is_not_counted_says_why() -> None:
    for name, one in scored().items():
        if not (one.gain.scored and one.size_right):
            assert one.gain.explained or one.gain.stands_in, name


@pytest.mark.parametrize(
    ("isl", "batch", "published"), [(1024, 8, -0.265), (2048, 4, -0.265), (4096, 2, -0.249), (8192, 1, -0.225)]
)
def test_flashcomm1_takes_a_quarter_off_prefill_at_every_length(isl: int, batch: int, published: float) -> None:
    given = conditions("fc1-a2-prefill-8x2048", isl=isl, layout={"batch": batch})
    assert step(given, ("flashcomm1", "on")) / step(given, ("flashcomm1", "off")) - 1 == pytest.approx(
        published, abs=0.03
    )


def test_amla_helps_where_attention_is_bound_by_arithmetic_alone() -> None:
    serial = {"overlap": "none", "attention_cores": 0}
    arithmetic = conditions(layout={**serial, "tp": 1})
    memory = conditions("cm384-decode-4k-b96-no-mtp", layout={**serial, "tp": 4, "batch": 96})
    gains = [1 - step(one, ("amla", "on")) / step(one, ("amla", "off")) for one in (arithmetic, memory)]
    assert gains[0] > 0.05
    assert 0 <= gains[1] < gains[0] / 3  # of arithmetic beside memory a part shows


# --- formulas against independent counts ------------------------------------------------------------


@given(isl=st.integers(1, 60), prefix=st.integers(0, 60))
def test_pairs_behind_a_prefix_are_those_counted(isl: int, prefix: int) -> None:
    counted = sum(prefix + position for position in range(1, isl + 1))
    assert causal_pairs(sequences=1, isl=isl, prefix=prefix) == counted


@settings(max_examples=40, deadline=None)
@given(
    micro=st.integers(2, 4),
    domains=st.integers(1, 3),
    first=st.floats(0.1, 3.0),
    second=st.floats(0.02, 3.0),
    between=st.floats(0.0, 3.0),
)
def test_staged_time_is_what_a_simulation_settles_to(
    micro: int, domains: int, first: float, second: float, between: float
) -> None:
    """Each domain's attention works its micro-batches in turn; the experts serve them as they come."""
    layers = 200
    ready = {(d, m): 0.0 for d in range(domains) for m in range(micro)}
    attention = [0.0] * domains
    experts = 0.0
    finished = []
    for _ in range(layers):
        arrivals = []
        for d in range(domains):
            for m in range(micro):
                attention[d] = max(attention[d], ready[d, m]) + first
                arrivals.append((attention[d] + between / 2, d, m))
        for arrival, d, m in sorted(arrivals):
            experts = max(experts, arrival) + second
            ready[d, m] = experts + between / 2
        finished.append(max(ready.values()))
    cycle = (finished[-1] - finished[layers // 2]) / (layers - 1 - layers // 2)
    way = first + second + between
    form = staged_time(micro_batches=micro, domains=domains, first=first, second=second, way=way)
    assert cycle >= form * (1 - 1e-9)  # the form is a bound without waits
    assert cycle <= form * 1.5


@given(processes=st.integers(1, 16), utilisation=st.floats(0.05, 0.95))
def test_frontend_time_is_near_the_exact_queue(processes: int, utilisation: float) -> None:
    """Erlang C: exact for one process; the approximation is within a tenth of the whole time."""
    load = processes * utilisation
    terms = [load**k / math.factorial(k) for k in range(processes)]
    last = load**processes / math.factorial(processes) / (1 - utilisation)
    wait = last / (sum(terms) + last) / (processes * (1 - utilisation))
    exact = 1 + wait
    found = frontend_time(processes=processes, rate=1.0, utilisation=utilisation)
    assert found == pytest.approx(exact, rel=1e-9 if processes == 1 else 0.1)


# --- limits -----------------------------------------------------------------------------------------


def test_one_chunk_is_the_whole_prompt() -> None:
    given = conditions("cm384-prefill-default")
    assert step(merged(given, {"layout": {"chunk": given.isl}})) == pytest.approx(step(given), rel=1e-12)


@pytest.mark.parametrize("chunk", [512, 1024, 2048])
def test_smaller_chunks_never_shorten_a_prefill(chunk: int) -> None:
    given = conditions("cm384-prefill-default")
    assert step(merged(given, {"layout": {"chunk": chunk}})) > step(merged(given, {"layout": {"chunk": 2 * chunk}}))


def test_nothing_found_in_the_pool_changes_nothing_and_more_found_is_faster() -> None:
    given = conditions("cm384-prefill-default")
    steps = [step(merged(given, {"prefix_hit": hit})) for hit in (0.0, 0.3, 0.6, 0.9)]
    assert steps == sorted(steps, reverse=True)
    assert step(given, ("prefix-cache", "off")) == step(given)


@pytest.mark.parametrize("module", ["o_proj", "head", "dense", "embedding"])
def test_a_split_module_keeps_its_share_of_weights_and_no_arithmetic_is_lost(module: str) -> None:
    given = conditions(layout={"overlap": "none", "attention_cores": 0})
    whole, split = run(given), run(merged(given, {"layout": {f"{module}_tp": 8}}))

    def totals(one: Resolved) -> tuple[float, float]:
        plan, case = one.plan, one.scenario.case
        ledger = ledger_of(plan, case, case.traffic)
        ops = [op for part in ledger.parts.values() for op in part]
        named = {"o_proj": "attention.o_proj", "head": "head.logits", "embedding": "embedding.lookup"}
        mine = [op for op in ops if op.name == named.get(module) or (module == "dense" and "dense." in op.name)]
        return sum(float(op.resident_bytes) for op in mine), sum(float(op.flop) for op in ops)

    (before, flop), (after, other) = totals(whole), totals(split)
    assert after == pytest.approx(before / 8)
    assert other == pytest.approx(flop)


def test_context_parallel_prefill_halves_tokens_and_pairs_of_a_die() -> None:
    given = conditions("fc1-a2-prefill-8x2048", isl=8192, layout={"dies": 16, "tp": 4, "batch": 1})
    one, two = run(given), run(merged(given, {"layout": {"cp": 2}}))
    flops = []
    for each in (one, two):
        ledger = ledger_of(each.plan, each.scenario.case, each.scenario.case.traffic)
        flops.append({op.name: float(op.flop) for op in ledger.parts["attention"]})
    assert flops[1]["attention.core"] == pytest.approx(flops[0]["attention.core"] / 2)
    assert flops[1]["attention.qkv_down"] == pytest.approx(flops[0]["attention.qkv_down"] / 2)
    assert flops[1]["attention.kv_up"] == pytest.approx(flops[0]["attention.kv_up"])  # keys of all tokens are needed


def test_decode_context_parallel_splits_the_cache_and_keeps_the_arithmetic() -> None:
    given = conditions(layout={"overlap": "none", "attention_cores": 0, "tp": 4})
    one, four = run(given), run(merged(given, {"layout": {"dcp": 4}}))
    assert float(four.point.footprint.kv) == pytest.approx(float(one.point.footprint.kv) / 4)
    core = []
    for each in (one, four):
        ledger = ledger_of(each.plan, each.scenario.case, each.scenario.case.traffic)
        core.append(next(op for op in ledger.parts["attention"] if op.name == "attention.core"))
    assert float(core[1].flop) == pytest.approx(float(core[0].flop))
    assert float(core[1].kv_bytes) == pytest.approx(float(core[0].kv_bytes) / 4)


def test_layouts_shipped_with_split_experts_are_taken_and_fit() -> None:
    """MindIE on two A2 servers: dp 2 x tp 8, moe_ep 4 x moe_tp 4 in prefill; and experts split over a whole server."""
    given = conditions("fc1-a2-prefill-8x2048", layout={"dies": 16, "tp": 8, "batch": 1})
    assert run(given, ("small-ep", "gather"), ("expert-tp", "4")).fits
    alone = run(merged(given, {"layout": {"dies": 8, "exchange": "gather", "reduction": "all_reduce", "expert_tp": 8}}))
    ledger = ledger_of(alone.plan, alone.scenario.case, alone.scenario.case.traffic)
    assert ledger.quantities.routed_tokens == pytest.approx(2048 * 8)  # one rank: no other can be busier
    kept = sum(float(op.resident_bytes) for op in ledger.parts["routed"])
    assert kept == 256 * 3 * 7168 * 2048 / 8


def test_attention_dies_of_stages_hold_no_experts() -> None:
    given = catalog.load_evidence("xds-disaggregated-decode").spec.conditions
    held = run(given).point.footprint
    together = run(conditions("xds-colocated-decode")).point.footprint
    assert float(held.weights) < float(together.weights)
    assert float(held.expert_weights) > 0


BASES = ("cm384-decode-4k-b96", "cm384-prefill-default", "xds-colocated-decode", "seed-a2-decode-808")


@pytest.mark.parametrize("row", BASES)
def test_rows_of_every_technique_add_up_to_its_step(row: str) -> None:
    given = conditions(row, layout={"batch": 16})
    for name, technique in TECHNIQUES.items():
        for setting in technique.spec.settings:
            try:
                one = run(given, (name, setting))
            except UsageError:
                continue
            plan, case = one.plan, one.scenario.case
            ledger = ledger_of(plan, case, case.traffic)
            parts = breakdown(ledger, plan.family, plan.layout.attention_cores, case.rates, case.rates)
            rows = sum(row.total for row in parts.rows if row.decides)
            total = rows + parts.gaps + parts.overhead - parts.prefetched - parts.reused - parts.hidden
            assert total == pytest.approx(parts.step_time, rel=1e-9), (name, setting)
            assert parts.step_time == pytest.approx(float(one.point.step_time), rel=1e-9), (name, setting)


# --- catalogue, stacks, refusals ----------------------------------------------------------------------


def test_every_setting_is_found_again_where_it_was_set() -> None:
    model = catalog.load_model("deepseek-v3").spec
    for row in ("cm384-decode-4k-b96", "fc1-a2-prefill-8x2048"):
        given = conditions(row)
        machine = load_conditions(given)
        for name, technique in TECHNIQUES.items():
            if inapplicable(technique.spec.applies, model, machine, given.phase, given.layout):
                continue
            for setting in technique.spec.settings:
                there, changed = with_setting(technique, setting, given, machine, model)
                assert setting_of(technique, there, there.layout, changed, model) == setting, (name, setting)


@pytest.mark.parametrize("stack", [name for name in folders.names("stacks") if name != "ideal"])
def test_a_stack_says_the_techniques_that_its_numbers_are_in(stack: str) -> None:
    model = catalog.load_model("deepseek-v3").spec
    links = catalog.load_stack(stack).spec.link_efficiency
    systems = [name for name in folders.names("systems") if _runs(name, links)]
    for system in systems:
        given = Conditions(
            system=system,
            model="deepseek-v3",
            stack=stack,
            phase="decode",
            isl=4096,
            osl=1024,
            layout={"dies": 16, "batch": 1},
        )
        machine = load_conditions(given)
        listed = {one.name: one.setting for one in machine.stack.spec.techniques}
        assert listed.keys() <= TECHNIQUES.keys()
        for name, technique in TECHNIQUES.items():
            links_needed = technique.spec.applies.links
            if technique.spec.free or (links_needed and not _has(machine, links_needed)):
                continue
            found = setting_of(technique, given, given.layout, machine, model)
            if name in listed:
                assert found == listed[name], (system, name)
            else:
                assert found in (BETWEEN, next(iter(technique.spec.settings))), (system, name)


def _runs(system: str, links: Any) -> bool:
    return all(getattr(links, tier.link) is not None for tier in catalog.load_system(system).spec.tiers)


def _has(machine: Any, links: tuple[str, ...]) -> bool:
    return any(tier.link in links for tier in machine.system.spec.tiers)


@pytest.mark.parametrize(
    ("row", "layout", "words"),
    [
        ("xds-disaggregated-decode", {"shared_ranks": 288}, "not counted twice"),
        ("xds-disaggregated-decode", {"expert_dies": 0}, "expert_dies: 0 with overlap 'stages'"),
        ("cm384-decode-4k-b96", {"dies": 256, "tp": 256}, "does not divide 128 heads"),
        ("cm384-decode-4k-b96", {"cp": 2}, "cp: 2 in decode"),
        ("cm384-decode-4k-b96", {"dcp": 2}, "a divisor of tp"),
        ("cm384-decode-4k-b96", {"o_proj_tp": 7}, "Fine_grained_TP.md"),
        ("cm384-decode-4k-b96", {"expert_tp": 2}, "with shared_ranks; allowed: 1"),
        ("xds-disaggregated-decode", {"expert_tp": 2}, "with expert_dies; allowed: 1"),
        ("xds-colocated-decode", {"expert_tp": 2, "shared_ranks": 0}, "one slot a group"),
        ("xds-colocated-decode", {"expert_tp": 4, "shared_ranks": 0}, "in decode; allowed: at most 2 .CANN"),
        ("cm384-prefill-default", {"expert_tp": 2}, "in prefill; allowed: at most 1 .MindIE"),
        ("seed-a2-decode-808", {"expert_tp": 3}, "allowed: 1, 2, 4, 8, what divides the 8 dies of a server"),
        ("cm384-decode-4k-b96", {"domains": 2}, "without overlap 'stages'"),
        ("cm384-decode-4k-b96", {"shared_stream": True}, "every die has the shared expert"),
        ("cm384-decode-4k-b96", {"kv_resident": 0.5}, "kv-offload"),
        ("cm384-prefill-default", {"fused_experts": True}, "dispatch, overlap none, in decode"),
        ("fc2-qwen235-ttft-512", {"reduction": "sp_tp_sp"}, "low-rank"),
        ("fc1-a2-prefill-8x2048", {"o_proj_sharded": True}, "replicate the projection"),
        ("sglang-mtp-h200-2", {"fused_experts": True, "batch": 400}, "at most 512"),
    ],
)
def test_impossible_combinations_are_refused_with_their_rule(row: str, layout: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        run(conditions(row, layout=layout))


def test_a_stack_without_a_technique_refuses_it() -> None:
    machine = load_conditions(conditions())
    assert lacking(TECHNIQUES["c8-cache"], "on", machine)
    assert not lacking(TECHNIQUES["c8-cache"], "off", machine)
    with pytest.raises(UsageError, match=r"c8-cache=on: stack cann-2025 lacks it; allowed: stacks .*cann-2026"):
        choices.refuse_lacking({"c8-cache": "on"}, machine, TECHNIQUES)


def test_settings_put_figures_in_the_machine_with_their_sources() -> None:
    given = conditions()
    machine = load_conditions(given)
    _, changed = with_setting(TECHNIQUES["super-kernel"], "on", given, machine, catalog.load_model(given.model).spec)
    figure = changed.stack.figures["start_share"]
    assert (figure.value, figure.kind, figure.low, figure.high) == (0.6, "assumed", 0.3, 1.0)
    assert "start_share" not in machine.stack.figures  # what was there is not touched


SOLVE = "solve deepseek-v3 --on cloudmatrix384 --cards 48 --isl 2048 --osl 512 --tpot 50ms".split()


# --- the command line -----------------------------------------------------------------------------


def test_split_experts_are_explained_planned_and_compared(moeplan, tmp_path: Path) -> None:
    words = "explain deepseek-v3 --on cloudmatrix384 --isl 4096 --osl 1024 --batch 32 --format json".split()
    done = moeplan(*words, "--dies", "576", "--with", "expert-tp=2")
    assert done.returncode == 0, done.stderr
    tables = {table["title"].split(" ")[0]: table["rows"] for table in json.loads(done.stdout)["tables"]}
    rows = {row["operator"]: row for row in tables["Operators"] if row["block"] == "moe_layer"}
    assert rows["exchange.expert_gather"]["time"] > 0 < rows["exchange.expert_scatter"]["time"]
    assert "experts ep 288 x tp 2" in done.stdout
    plans = []
    for setting in ("1", "2"):
        plans.append(str(tmp_path / f"{setting}.json"))
        done = moeplan(*SOLVE, "--with", f"expert-tp={setting}", "-o", plans[-1])
        assert done.returncode == 0, done.stderr
        made = json.loads(Path(plans[-1]).read_text())["conditions"]
        assert {made[phase]["layout"]["expert_tp"] for phase in ("prefill", "decode")} == {int(setting)}
    compared = moeplan("compare", *plans, "--show", "all")
    assert compared.returncode == 0, compared.stderr
    assert "expert_tp" in compared.stdout
    tried = moeplan("what-if", plans[0], "--only", "expert-tp")
    assert tried.returncode == 0, tried.stderr
    assert "use exchange gather" in tried.stdout.replace("\n", " ")
    assert "lacks it" in moeplan(*SOLVE, "--stack", "vllm-ascend-2025", "--with", "expert-tp=2").stderr


def test_what_if_ranks_and_says_why(moeplan) -> None:
    done = moeplan("what-if", "seed-cm384-decode", "--format", "json")
    assert done.returncode == 0, done.stderr
    tables = {table["title"]: table["rows"] for table in json.loads(done.stdout)["tables"]}
    rows = tables["Each change alone, at the same target"]
    gains = [row["gain"] for row in rows]
    assert gains == sorted(gains, reverse=True)
    by_name = {row["change"]: row for row in rows}
    amla = by_name["amla: off to on"]
    assert amla["low90"] < amla["gain"] < amla["high90"]
    assert amla["gain"] > 0.03
    assert "attention.core" in amla["why"]
    assert amla["by"] == "to build"
    assert any("acts in prefill" in row["why"] for row in tables["Cannot act here"])


def test_what_if_reaches_a_goal_with_the_fewest_changes(moeplan) -> None:
    done = moeplan("what-if", "seed-cm384-decode", "--reach", "tpot=46ms,batch=48", "--format", "json")
    assert done.returncode == 0, done.stderr
    sets = json.loads(done.stdout)["tables"][0]["rows"]
    assert sets and all(row["tpot"] <= 0.046 for row in sets)
    sizes = {row["changes"].count("+ ") for row in sets}
    assert len(sizes) == 1
    none = moeplan("what-if", "seed-cm384-decode", "--reach", "tpot=1ms,batch=48")
    assert none.returncode == 3
    assert "nearest" in none.stdout


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("what-if", "seed-cm384-decod"), "did you mean 'seed-cm384-decode'"),
        (("what-if", "seed-cm384-decode", "--only", "amlaa"), "did you mean 'amla'"),
        (("what-if", "seed-cm384-decode", "--reach", "tpt=3ms"), "did you mean 'tpot'"),
        (("what-if", "seed-cm384-decode", "--reach", "batch=3"), "no latency"),
        (("gains", "amlaa"), "did you mean 'amla'"),
        (("explain", "--evidence", "seed-cm384-decode", "--with", "amla=maybe"), "no setting"),
        (("explain", "--evidence", "seed-cm384-decode", "--with", "mtp=3"), "acceptance has 1 value(s) for 3"),
        (("explain", "--evidence", "cm384-prefill-default", "--with", "dp-load-balance=on"), "acts in decode only"),
        (
            (
                "explain",
                "--evidence",
                "seed-cm384-decode",
                "--with",
                "small-ep=gather",
                "--with",
                "attention-ffn-disaggregation=on",
            ),
            "drop the other",
        ),
        (("what-if", "seed-cm384-decode", "--reach", "ttft=2s"), "no prefill pool"),
        ((*SOLVE, "--with", "mtp=3"), "acceptance is known for 1"),
    ],
)
def test_nonsense_is_refused_in_one_line(moeplan, words: tuple[str, ...], fault: str) -> None:
    done = moeplan(*words)
    assert done.returncode == 2
    assert fault in done.stderr
    assert "Traceback" not in done.stderr


def test_explain_takes_a_technique(moeplan) -> None:
    row = ("explain", "--evidence", "cm384-decode-4k-b96")
    plain = moeplan(*row, "--format", "json")
    with_amla = moeplan(*row, "--stack", "cann-2026", "--with", "amla", "--format", "json")
    assert "lacks it" in moeplan(*row, "--with", "amla").stderr
    steps = [json.loads(done.stdout)["facts"]["step_time_s"] for done in (plain, with_amla)]
    assert steps[1] < steps[0]


@pytest.mark.parametrize(
    "chosen",
    [(), ("--with", "eplb=static"), ("--stack", "cann-2026", "--kv", "any", "--with", "fine-grained-head=tp8")],
)
def test_a_plan_read_back_gives_the_same_numbers(moeplan, tmp_path: Path, chosen: tuple[str, ...]) -> None:
    path = tmp_path / "plan.json"
    solved = moeplan(*SOLVE, *chosen, "-o", str(path), "--format", "json")
    assert solved.returncode == 0, solved.stderr
    facts, plan = json.loads(solved.stdout)["facts"], json.loads(path.read_text())
    assert set(plan["techniques"]["decode"]) >= {"mtp", "eplb", "c8-cache", "weight-prefetch"}
    again = moeplan("explain", str(path), "--format", "json")
    assert json.loads(again.stdout)["facts"]["tpot_s"] == facts["tpot_s"] == plan["predicted"]["tpot"]
    prefill = moeplan("explain", str(path), "--phase", "prefill", "--format", "json")
    assert json.loads(prefill.stdout)["facts"]["step_time_s"] == facts["prefill"]["step_time_s"]
    by_hand = moeplan(*shlex.split(facts["explain"]["decode"])[1:], "--format", "json")
    assert json.loads(by_hand.stdout)["facts"]["tpot_s"] == facts["tpot_s"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"draft": 1', '"draft": 0', "techniques.decode.mtp: '1'"),
        ('"isl": 2048', '"isl": 0', "conditions.isl: found 0; allowed: greater than 0"),
        ('"stack": "cann-2025"', '"stack": "cann-2035"', "did you mean 'cann-2025'"),
        ('"utilisation"', '"utilization"', "did you mean 'utilisation'"),
    ],
)
def test_a_plan_with_faults_names_them(moeplan, tmp_path: Path, old: str, new: str, words: str) -> None:
    path = tmp_path / "plan.json"
    assert moeplan(*SOLVE, "-o", str(path)).returncode == 0
    path.write_text(path.read_text().replace(old, new))
    done = moeplan("explain", str(path))
    assert done.returncode == 4
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_search_takes_no_more_from_a_stack_than_it_has(moeplan) -> None:
    refused = moeplan(*SOLVE, "--kv", "int8")
    assert refused.returncode == 2
    assert "stack cann-2025 lacks it" in refused.stderr
    staged = moeplan(*SOLVE, "--with", "attention-ffn-disaggregation=on")
    assert staged.returncode == 2
    assert "does not search it" in staged.stderr


def test_more_choices_never_make_a_worse_plan(moeplan) -> None:
    def rate(*words: str) -> float:
        done = moeplan(*SOLVE, "--stack", "cann-2026", *words, "--format", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["facts"]["requests_per_s"]

    assert rate("--kv", "any") >= max(rate("--kv", "bf16"), rate("--kv", "int8"))
    assert rate() >= rate("--with", "multi-stream-shared=off")
    assert rate() >= rate("--with", "sp-tp-sp=off")


def test_a_plan_says_which_data_changed_since(moeplan, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    assert moeplan(*SOLVE, "-o", str(path)).returncode == 0
    plan = json.loads(path.read_text())
    name = next(file for file in plan["files"] if "systems" in file)
    plan["files"][name] = "0" * 64
    path.write_text(json.dumps(plan))
    assert f"note: {name}: changed since the plan was written" in moeplan("explain", str(path)).stderr


@pytest.mark.parametrize("model", ["deepseek-v3", "qwen3-235b-a22b"])
def test_whatever_solve_is_set_to_it_refuses_or_plans_what_explain_takes(model: str, tmp_path: Path) -> None:
    """Each technique alone in its last setting, on a stack that has most; in one process, for speed."""
    from typer.testing import CliRunner

    from perfmodel.cli.app import app

    runner = CliRunner()
    words = (
        "solve",
        model,
        *(word if word != "48" else "32" for word in SOLVE[2:]),
        "--stack",
        "cann-2026",
        "--top",
        "1",
    )
    planned = 0
    for name, technique in TECHNIQUES.items():
        path = tmp_path / f"{name}.json"
        done = runner.invoke(app, [*words, "--with", f"{name}={list(technique.spec.settings)[-1]}", "-o", str(path)])
        assert done.exit_code in (0, 3) or isinstance(done.exception, UsageError), (name, done.exception)
        if path.exists():
            planned += 1
            again = runner.invoke(app, ["explain", str(path), "--phase", "prefill"])
            assert again.exit_code == 0, (name, again.exception)
    assert planned > 10
