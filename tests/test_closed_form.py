"""Closed forms: they give the report's numbers, agree with the sources' equations, and flip where they say."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from statistics import NormalDist
from typing import Any

import pytest
import sympy

from perfmodel.closed_form.form import ClosedForm, closed_form
from perfmodel.closed_form.inputs import Flip
from perfmodel.closed_form.names import asked_for, numbers_of
from perfmodel.closed_form.run import Point
from perfmodel.files import catalog
from perfmodel.ledger.records import Layout
from perfmodel.ledger.step import build_ledger
from perfmodel.planning.published import published
from perfmodel.prediction.breakdown import breakdown
from perfmodel.prediction.sensitivity import with_figures
from perfmodel.specs.kernels import MessageKernel
from perfmodel.supply.machine import Machine
from tests import process

DECODE, DECODE_A2, STAGES = "seed-cm384-decode", "seed-a2-decode-808", "xds-disaggregated-decode"
PREFILL, PREFILL_A2 = "recipe-r1-prefill-4k", "seed-prefill-16x"
#: a decode and a prefill on each of two machines, and stages
ASKED = {
    DECODE: ["attention.core", "attention.q_up", "experts.gate_up", "exchange.dispatch", "head.logits", "norm_quant",
             "attention.core.flop", "experts.down.bytes", "exchange.combine.sent", "moe_layer", "moe_layer.experts",
             "dense_layer", "step", "tpot", "memory", "tokens_per_s", "draft_layer/attention.core"],
    DECODE_A2: ["attention.core", "attention.o_proj", "exchange.*", "moe_layer", "memory", "tpot"],
    STAGES: ["experts.down", "exchange.dispatch", "moe_layer", "step"],
    PREFILL: ["attention.core", "attention.kv_up", "exchange.*", "moe_layer", "memory", "step", "tokens_per_s"],
    PREFILL_A2: ["attention.core", "attention.qkv_down", "attention.gather", "exchange.*", "memory", "step"],
}  # fmt: skip
WORDS = {
    "max": max, "min": min, "sqrt": math.sqrt, "exp": math.exp, "log": math.log, "ceil": math.ceil,
    "where": lambda condition, then, otherwise: then if condition else otherwise,
    "erfinv": lambda x: NormalDist().inv_cdf((x + 1) / 2) / math.sqrt(2),
}  # fmt: skip


@cache
def at(name: str, stack: str | None = None) -> tuple[Point, Machine]:
    row = published(catalog.load_evidence(name).spec, stack)
    resolved = row.resolved
    plan = resolved.plan
    return Point(layout=Layout.of(plan.layout), family=plan.family, case=resolved.scenario.case), row.machine


@cache
def form_of(name: str, word: str, stack: str | None = None) -> ClosedForm:
    point, machine = at(name, stack)
    (wanted,) = asked_for(word, numbers_of(point))
    return closed_form(wanted, point, machine)


def symbol(name: str) -> Any:
    return sympy.Symbol(name, positive=True)


def line(form: ClosedForm, name: str, *, here: bool = False) -> Any:
    found = next(one for one in form.lines if one.name == name)
    return found.here if here else found.form


@cache
def printed(*words: str) -> dict[str, Any]:
    done = process.run("explain", *words, "--format", "json")
    assert done.returncode in (0, 3), done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def table(document: dict[str, Any], title: str) -> list[dict[str, Any]]:
    return next(one["rows"] for one in document["tables"] if title in one["title"])


def reported(name: str) -> dict[str, float]:
    """Every number of the report by the name it is asked for."""
    document = printed("--evidence", name)
    facts = document["facts"]
    numbers = {"step": facts["step_time_s"], "tokens_per_s": facts["tokens_per_s"], "tpot": facts.get("tpot_s")}
    numbers["memory"] = facts["memory_planned_B"]
    for row in table(document, "Blocks"):
        numbers[row["block"]] = row["layer"]
        numbers |= {f"{row['block']}.{lane}": row[lane] for lane in ("attention", "experts")}
    columns = {"time": "", "flop": ".flop", "bytes": ".bytes", "link_bytes": ".sent"}
    for row in table(document, "Operators"):
        for column, tail in columns.items():
            numbers[f"{row['block']}/{row['operator']}{tail}"] = row[column]
    return numbers


@pytest.mark.parametrize("name", ASKED)
def test_forms_and_their_numbers_give_the_report(name: str) -> None:
    """The text itself is worked out: each form from what is given, to the report's number; with numbers to 4 digits."""
    asked = [part for word in ASKED[name] for part in ("--formula", word)]
    document, report = printed("--evidence", name, *asked), reported(name)
    wanted = document["facts"]["numbers"]
    assert len(wanted) >= len(ASKED[name])
    for one in wanted:
        assert one["value"] == pytest.approx(report[one["name"]], rel=1e-12), one["name"]
        title = f"{one['name']}: "
        values = {_name(row["name"]): row["value"] for row in table(document, title + "what is given")}
        for row in table(document, title + "closed form"):
            value = eval(_name(row["form"]).replace("&", "and"), WORDS | values)
            values[_name(row["name"])] = value
            exact = row["unit"] is not None  # a piece of a form is printed to four digits
            assert value == pytest.approx(row["value"], rel=1e-9 if exact else 1e-3), (one["name"], row)
            assert eval(row["numbers"], dict(WORDS)) == pytest.approx(value, rel=2e-2), (one["name"], row)
        assert pytest.approx(one["value"], rel=1e-9) in values.values()


def _name(text: str) -> str:
    """Return a text whose names have no dot in them."""
    return re.sub(r"(?<![\w.])[A-Za-z_][\w.]*", lambda found: found[0].replace(".", "_"), text)


def test_the_cache_of_latent_attention() -> None:
    """[deepseek2024v2] table 1: one compressed vector and one rotated key a token and layer, here of BF16."""
    entry = 2 * (symbol("kv_lora_rank") + symbol("qk_rope_head_dim"))
    row, memory = form_of(DECODE, "attention.core"), form_of(DECODE, "memory")
    assert sympy.expand(line(row, "kv_bytes") - symbol("cached_tokens") * entry) == 0
    layers = 61 + 1  # the draft layer has a cache of its own
    assert sympy.expand(line(memory, "kv_bytes_per_token", here=True) - layers * entry) == 0


def test_the_flop_of_absorbed_attention() -> None:
    """[deepseek2024v2] 2.1.2: a product over rank and rope of each pair and head, a sum over the rank."""
    rank, rope = symbol("kv_lora_rank"), symbol("qk_rope_head_dim")
    heads, pairs = symbol("num_attention_heads") / symbol("tp"), symbol("pairs")
    expected = pairs * heads * (2 * (rank + rope) + 2 * rank)
    assert sympy.simplify(line(form_of(DECODE, "attention.core"), "flop") - expected) == 0


def test_expected_distinct_experts() -> None:
    """A rank's slots that n tokens drawing k of E experts each reach at least once."""
    n, k, experts = symbol("group_tokens"), symbol("num_experts_per_tok"), symbol("n_routed_experts")
    expected = symbol("slots_per_rank") * (1 - (1 - k / experts) ** n)
    difference = line(form_of(DECODE, "experts.gate_up"), "touched", here=True) - expected
    left_out = symbol("left_out")  # share of the experts that a token does not draw, above 0
    assert sympy.simplify(difference.subs(k, experts * (1 - left_out))) == 0


def test_the_roofline_of_element_wise_work() -> None:
    """[williams2009] with a second memory level: the slowest of arithmetic, L2 and memory, and a start."""
    form = form_of(PREFILL, "exchange.permute")
    flop, activation, hbm, l2 = map(symbol, ("flop", "activation_bytes", "hbm_bandwidth", "l2_capacity"))
    rate = symbol("stream") * hbm
    stream = sympy.Max(0, activation - l2) / sympy.Min(rate, sympy.Max(symbol("core_stream"), rate))
    roof = sympy.Max(flop / (symbol("vector") * symbol("compute")), activation / symbol("l2_rate"), stream)
    expected = roof + 2 * symbol("start") * symbol("start_share")
    found = line(form, "time")
    for one in reversed([one for one in form.lines if one.stage == "time of a run" and one.form is not None]):
        found = found.subs(symbol(one.name), one.form)
    assert sympy.simplify(found - expected) == 0


def test_a_product_streams_its_weights_and_hides_part_of_the_shorter() -> None:
    form = form_of(DECODE, "head.logits")
    stream, compute = symbol("stream_time"), symbol("whole_compute")
    hidden = symbol("overlap_rows") / (symbol("overlap_rows") + symbol("head_tokens"))
    expected = stream + compute - hidden * sympy.Min(stream, compute)
    assert sympy.simplify(line(form, "work") - expected) == 0
    peak = symbol("cube_bf16") * symbol("compute")
    assert sympy.simplify(line(form, "whole_compute") - symbol("flop") / peak) == 0


def test_an_exchange_of_messages_is_a_start_and_a_cost_each() -> None:
    """[zuo2025] table 7: alpha + beta n, n the messages that leave the card of two dies."""
    messages, each = symbol("messages"), symbol("per_message") * symbol("dispatch_in_place")
    expected = symbol("start") + messages * (1 - 2 / symbol("dies")) * each
    assert sympy.simplify(line(form_of(DECODE, "exchange.dispatch"), "network_time", here=True) - expected) == 0


def test_an_all_gather_is_a_start_and_the_shards_of_all_others() -> None:
    """Alpha-beta model in a full mesh of 8: bulk start of 7 peers, then 7 shards over 7 links at the read share."""
    form = form_of("fc1-a2-prefill-2x8192", "attention.gather")
    found = line(form, "network_time", here=True)
    for one in reversed([one for one in form.lines if one.unit is None]):
        found = found.subs(sympy.Symbol(one.name), one.here)
    shard = symbol("payload")
    alpha = symbol("start") + 7 * symbol("bulk_start_per_peer")
    beta = 7 / (7 * (symbol("node_pin_bandwidth") / 7) * symbol("read_share"))
    expected = alpha * (1 - symbol("bulk_overlap")) + shard * beta
    assert sympy.simplify(found.subs(symbol("tp"), 8) - expected) == 0


def test_layers_steps_and_tpot() -> None:
    """Two micro-batches side by side: either lane works both, the first passes both, memory serves all; then counting.

    What is brought ahead takes from the attention of either micro-batch what the pins leave of the window.
    """
    layer = form_of(DECODE, "moe_layer")
    attention, link, experts = symbol("attention.busy"), symbol("exchange.link"), symbol("experts_lane.busy")
    memory = symbol("attention.hbm") + symbol("experts_lane.hbm")
    left = symbol("exchange.combine") * (1 - symbol("attention.o_proj.pins_taken"))
    ahead, again = (sympy.Min(symbol(name), left) for name in ("attention.spared", "attention.spared_again"))
    of_attention = 2 * attention - symbol("attention.saved") - ahead - again
    of_experts = 2 * (experts + link) - symbol("experts_lane.saved")
    expected = sympy.Max(of_attention, of_experts, attention - ahead + experts + link, 2 * memory)
    assert sympy.simplify(line(layer, "moe_layer") - expected) == 0
    tpot, draft = form_of(DECODE, "tpot"), symbol("draft")
    layers = (58 + draft) * symbol("moe_layer") + 3 * symbol("dense_layer") + symbol("embedding")
    layers += draft * symbol("draft_input") + (1 + draft) * symbol("head")
    step = symbol("decode_gap") * layers + symbol("decode_overhead")
    assert sympy.expand(line(tpot, "step_time") - step) == 0
    assert line(tpot, "tokens_per_step") == 1 + symbol("acceptance_1")
    assert line(tpot, "tpot") == symbol("step_time") / symbol("tokens_per_step")


def moved(point: Point, machine: Machine, flip: Flip, value: float) -> Point:
    """The plan with one input elsewhere, made without the code under test."""
    if flip.by == "batch":
        return replace(point, layout=replace(point.layout, batch=int(value)))
    if flip.by == "isl":
        return replace(point, case=replace(point.case, isl=int(value)))
    owner, path = flip.by.split(": ")
    part = next(part for part in machine.parts if part.spec.name == owner)
    return replace(point, case=replace(point.case, rates=with_figures(machine, [(part, path, value)]).rates()))


def report_at(point: Point) -> Any:
    case, family = point.case, point.family
    ledger = build_ledger(point.layout, family, case.traffic, case.model, case.dims)
    return breakdown(ledger, family, point.layout.attention_cores, case.rates, case.rates)


def bound_of(row: str, block: str) -> Callable[[Point], str]:
    def found(point: Point) -> str:
        return next(r.timed.bound for r in report_at(point).rows if (r.name, r.block) == (row, block))

    return found


FLIPPING = [
    (DECODE, "attention.norm_quant", "bound", bound_of("attention.norm_quant", "moe_layer")),
    (DECODE, "attention.q_up", "bound", bound_of("attention.q_up", "moe_layer")),
    (DECODE, "experts.gate_up", "bound", bound_of("experts.gate_up", "moe_layer")),
    (DECODE, "attention.core", "bound", bound_of("attention.core", "moe_layer")),
    (DECODE_A2, "attention.o_proj", "bound", bound_of("attention.o_proj", "moe_layer")),
    (PREFILL_A2, "attention.qkv_down", "bound", bound_of("attention.qkv_down", "moe_layer")),
    (PREFILL_A2, "router.norm_quant", "bound", bound_of("router.norm_quant", "moe_layer")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "word", "what", "decides"), FLIPPING, ids=lambda x: x if isinstance(x, str) else "")
def test_the_report_changes_where_a_choice_flips(name: str, word: str, what: str, decides: Any) -> None:
    """Just short of the value the report names the same bound as here, from it on another."""
    point, machine = at(name)
    (choice,) = (one for one in form_of(name, word).choices if one.line == what and one.flips)
    now, seen = decides(point), 0
    for flip in choice.flips:
        for end, towards in ((flip.below, 1), (flip.above, -1)):
            if end is None:
                continue
            whole = flip.by in ("batch", "isl")
            short = end + towards if whole else end + towards * 3e-6 * flip.now
            assert decides(moved(point, machine, flip, short)) == now, (flip, short)
            assert decides(moved(point, machine, flip, end)) != now, (flip, end)
            seen += 1
    assert seen


def slope(form: ClosedForm, tail: str) -> tuple[float, float]:
    found = [(one.down, one.up) for one in form.slopes if one.input.endswith(tail)]
    return found[0] if found else (0.0, 0.0)


def test_elasticities_of_ideal_rows() -> None:
    """Time without fixed costs: as 1 over the rate that binds, and not at all of the others."""
    form = form_of(DECODE, "head.logits", stack="ideal")
    assert slope(form, "die.hbm.bandwidth") == pytest.approx((-1, -1), rel=1e-3)
    assert slope(form, "die.clock") == (0, 0)
    attention = form_of(PREFILL, "attention.core", stack="ideal")
    assert slope(attention, "die.clock") == pytest.approx((-1, -1), rel=1e-3)
    assert slope(attention, "die.cube_flop_per_cycle.bf16") == pytest.approx((-1, -1), rel=1e-3)
    assert slope(attention, "die.hbm.bandwidth") == (0, 0)
    # n (n + 1) / 2 pairs of a prompt
    isl = at(PREFILL)[0].case.isl
    assert slope(attention, "isl") == pytest.approx((1 + isl / (isl + 1),) * 2, rel=1e-3)


def test_elasticities_of_a_start_and_of_messages() -> None:
    form = form_of(DECODE, "exchange.dispatch")
    point, _ = at(DECODE)
    start = 116 * point.case.rates.kernel("dispatch", MessageKernel).start / form.wanted.value
    assert slope(form, "dispatch.start") == pytest.approx((start, start), rel=1e-6)
    assert slope(form, "dispatch.per_message") == pytest.approx((1 - start, 1 - start), rel=1e-6)
    each = next(one for one in form.slopes if one.input.endswith("dispatch.start"))
    assert each.derivative == pytest.approx(116, rel=1e-6)  # runs of a step


def test_both_sides_of_a_kink() -> None:
    """At the clock where the other lane takes over, attention's elasticity holds below, the experts' above."""
    point, machine = at(DECODE)
    form = form_of(DECODE, "moe_layer")
    choice = next(one for one in form.choices if one.line == "moe_layer")
    flip = next(one for one in choice.flips if one.by.endswith("die.clock"))
    assert flip.above is not None
    chip = next(part for part in machine.parts if part.spec.name == flip.by.split(": ")[0])
    figures = {**chip.figures, "die.clock": chip.figures["die.clock"].model_copy(update={"value": flip.above})}
    faster = with_figures(machine, [(chip, "die.clock", flip.above)])
    faster = replace(faster, chip=replace(faster.chip, figures=figures))
    there = closed_form(form.wanted, moved(point, machine, flip, flip.above), faster)
    down, up = slope(there, "die.clock")
    below, above = slope(form, "die.clock")
    assert below == pytest.approx(above, rel=1e-3)
    assert down < up - 0.1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("atention.core",), "did you mean 'attention.core'"),
        (("*nothing*",), "see all with --formula list"),
        (("moe_layer/attention.cor",), "did you mean 'moe_layer/attention.core'"),
        (("attention.core.flops",), "did you mean"),
    ],
)
def test_unknown_numbers_are_refused(moeplan: Any, words: tuple[str, ...], says: str) -> None:
    done = moeplan("explain", "--evidence", DECODE, *(part for word in words for part in ("--formula", word)))
    assert done.returncode == 2
    assert says in done.stderr
    assert not done.stdout


def test_names_patterns_and_the_list() -> None:
    numbers = numbers_of(at(DECODE)[0])
    assert [one.name for one in asked_for("*dispatch*", numbers)] == ["moe_layer/exchange.dispatch"]
    assert {one.name for one in asked_for("norm_quant", numbers)} == {
        "moe_layer/attention.norm_quant", "moe_layer/router.norm_quant", "dense_layer/dense.norm_quant"
    }  # fmt: skip
    assert [one.name for one in asked_for("*combine.sent", numbers)] == ["moe_layer/exchange.combine.sent"]
    listed = {row["name"] for row in table(printed("--evidence", DECODE, "--formula", "list"), "Numbers")}
    assert listed == {name for name, one in numbers.items() if one.kind != "row" or one.what == "time"}


@pytest.mark.parametrize("format_", ["table", "json", "csv", "markdown"])
def test_every_format_holds_the_forms(moeplan: Any, format_: str) -> None:
    done = moeplan("explain", "--evidence", DECODE, "--formula", "tpot", "--format", format_)
    assert done.returncode == 0, done.stderr
    assert "step_time / tokens_per_step" in done.stdout
    latex = r"\frac{\mathrm{step\_time}}{\mathrm{tokens\_per\_step}}"
    assert (latex in done.stdout) == (format_ in ("csv", "markdown"))
    if format_ == "json":
        assert latex in json.loads(done.stdout)["facts"]["numbers"][0]["latex"]


def test_symbols_are_loaded_only_where_asked_for() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "perfmodel", "explain", "--evidence", DECODE]
    for words, loaded in (((), False), (("--formula", "tpot"), True)):
        done = subprocess.run([*command, *words], capture_output=True, text=True, check=True)
        names = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if "|" in line}
        assert ("sympy" in names) == loaded


def test_forms_of_a_plan_and_of_a_layout_by_hand(moeplan: Any, tmp_path: Any) -> None:
    path = str(tmp_path / "plan.json")
    asked = ("--cards", "32", "--isl", "1024", "--osl", "512")
    assert moeplan("solve", "deepseek-v3", "--on", "cm384", *asked, "--tpot", "50ms", "-o", path).returncode == 0
    by_hand = ("qwen3-235b-a22b", "--on", "atlas-800i-a2-64gb-hccs", "--dies", "16", "--tp", "4", "--batch", "8",
               "--isl", "2048", "--osl", "512")  # fmt: skip
    for words in ((path,), (path, "--phase", "prefill"), by_hand):
        report, form = printed(*words), printed(*words, "--formula", "step")
        assert form["facts"]["numbers"][0]["value"] == report["facts"]["step_time_s"]
