"""Views of a step agree with each other, with the model run again, and in every format."""

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from perfmodel.cli.app import program
from perfmodel.files import folders
from perfmodel.planning.published import row_on_file
from perfmodel.prediction.breakdown import WAITS
from perfmodel.prediction.scenario import Resolved, breakdown_of, ledger_of, of_evidence, resolve
from perfmodel.prediction.timeline import OTHER_DOMAINS, Timeline, timeline
from perfmodel.report.drawings import gantt
from perfmodel.report.quantity import format_quantity
from perfmodel.report.render import RENDERERS
from perfmodel.report.table import Column, Document, Table, in_english
from perfmodel.report.terminal import Terminal

SERIAL, CORES, LINK, STAGES = (
    "recipe-r1-decode-4k",
    "cm384-decode-4k-b96",
    "cm384-prefill-default",
    "xds-disaggregated-decode",
)
OWN_RANKS = "xds-colocated-decode"
NAMES = folders.names("evidence")
Explain = Callable[..., Document]


@pytest.fixture
def explain(monkeypatch: pytest.MonkeyPatch) -> Explain:
    """Run a command and return the document that it would write."""

    def run(*words: str) -> Document:
        shown: list[Document] = []
        monkeypatch.setattr(Terminal, "result", lambda self, document: shown.append(document))
        program().main([*words], prog_name="moeplan", standalone_mode=False)
        return shown[-1]

    return run


def table_of(document: Document, begins: str) -> Table:
    return next(table for table in document.tables if table.title.startswith(begins))


def resolved_of(name: str, **layout: Any) -> Resolved:
    row = row_on_file(name)
    scenario = of_evidence(row.spec, row.model, row.machine.rates())
    if row.mixed and scenario.layout["batch"] is None:
        layout = {"batch": row.resolved.plan.layout.batch, **layout}  # as many as its clients have a rank run
    scenario.layout.update(layout)
    return resolve(scenario)


def timelines(resolved: Resolved) -> list[Timeline]:
    parts = breakdown_of(resolved)
    ledger = ledger_of(resolved.plan, resolved.scenario.case, resolved.scenario.case.traffic)
    return [timeline(ledger, resolved.plan.family, parts, block.name) for block in parts.blocks]


#: published layouts, and those with work beside an exchange or in one kernel with it
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in NAMES),
    (SERIAL, {"shared_stream": True}),
    (SERIAL, {"fused_experts": True, "batch": 32}),
    (SERIAL, {"fused_experts": True, "shared_stream": True, "batch": 32}),
    (CORES, {"shared_ranks": 0, "redundant": 64, "shared_stream": True}),
]

# --- the timeline ---------------------------------------------------------------------------------


#: stages whose experts take longer than attention are drawn as if each waited for its own exchange: not mended yet
OVERLAPPING = pytest.mark.xfail(strict=True, reason="stages of experts that do not wait are drawn over each other")
SLOW_EXPERTS = ("step3-hopper-bf16", "step3-hopper-fp8")


@pytest.mark.parametrize(
    ("name", "layout"),
    [pytest.param(*case, marks=OVERLAPPING if case[0] in SLOW_EXPERTS else ()) for case in CASES],
)
def test_a_stream_does_one_thing_at_a_time_within_the_layer(name: str, layout: dict[str, Any]) -> None:
    for found in timelines(resolved_of(name, **layout)):
        rounding = 1e-9 * found.layer
        for stream in found.streams:
            mine = sorted((one.start, one.start + one.time) for one in found.segments if one.stream == stream.name)
            assert mine[0][0] >= 0
            assert mine[-1][1] <= found.layer + rounding
            assert all(end <= start + rounding for (_, end), (start, _) in zip(mine, mine[1:], strict=False))
            assert stream.works == pytest.approx(sum(end - start for start, end in mine), rel=1e-9)
            assert stream.works + stream.waits == pytest.approx(found.layer, rel=1e-9)


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_the_timeline_has_the_work_of_the_breakdown(name: str, layout: dict[str, Any]) -> None:
    """Every operator lasts on it what its row says, all micro-batches together, but for weights in L2."""
    resolved = resolved_of(name, **layout)
    parts = breakdown_of(resolved)
    for found, block in zip(timelines(resolved), parts.blocks, strict=True):
        rows = [row for row in parts.rows if row.block == block.name and row.part != WAITS]
        drawn = {row.name: 0.0 for row in rows}
        for one in found.segments:
            if one.name != OTHER_DOMAINS:
                drawn[one.name] += one.time
        ahead = 0.0
        for row in rows:
            spared = row.total / block.count - drawn[row.name]
            assert spared >= -1e-9 * block.layer
            again = resolved.plan.family.overlap in ("cores", "link") and "matmul" in row.timed.op.operator
            assert row.timed.op.prefetched or again or spared <= 1e-9 * block.layer
            ahead += spared if row.decides else 0.0
        saved = (block.prefetched + block.reused) / block.count
        assert ahead == pytest.approx(saved, abs=1e-9 * block.layer)


@pytest.mark.parametrize("name", [CORES, LINK, STAGES, SERIAL])
def test_slack_is_what_the_faster_stream_waits(name: str) -> None:
    resolved = resolved_of(name)
    block = next(block for block in breakdown_of(resolved).blocks if block.name == "moe_layer")
    found = next(one for one in timelines(resolved) if one.block == "moe_layer")
    streams = {stream.name: stream for stream in found.streams}
    match resolved.plan.family.overlap:
        case "cores":
            assert streams["experts"].waits == pytest.approx(block.slack, rel=1e-9)
            assert streams["experts"].waits_for == "attention"
            assert not streams["attention"].waits_for
        case "link":
            assert streams["links"].waits == pytest.approx(block.layer - block.link, rel=1e-9)
            assert streams["cores"].waits_for == "link.contention"
        case "stages":
            attention = streams["attention dies"]
            assert block.decides == "attention"
            assert attention.works + attention.waits == pytest.approx(block.layer, rel=1e-9)
            assert all(one.waits_for.startswith("stage.messages") for one in streams.values() if one.waits)
        case _:
            assert streams["links"].waits == pytest.approx(streams["cores"].works, rel=1e-9)


@pytest.mark.parametrize("name", [SERIAL, OWN_RANKS, CORES, "seed-cm384-decode", "seed-prefill-16x"])
def test_serial_layers_and_deciding_lanes_leave_no_gap(name: str) -> None:
    """Where nothing is lost to others, some stream works at every time of the layer."""
    for found in timelines(resolved_of(name)):
        reached = 0.0
        for one in sorted(found.segments, key=lambda one: one.start):
            assert one.start <= reached + 1e-9 * found.layer
            reached = max(reached, one.start + one.time)
        assert reached == pytest.approx(found.layer, rel=1e-9)


def test_a_host_that_starts_every_kernel_is_waited_for() -> None:
    start = resolved_of(SERIAL)
    case = start.scenario.case
    rates = replace(case.rates, eager=True, kernel_launch=200e-6)
    slow = resolve(replace(start.scenario, case=replace(case, rates=rates)))
    found = next(one for one in timelines(slow) if one.block == "moe_layer")
    assert "host.launches" in {stream.waits_for for stream in found.streams}
    drawn = "\n".join(gantt(found, 80))
    assert "for host.launches" in drawn
    assert all(len(line) <= 80 for line in drawn.splitlines())


@pytest.mark.parametrize("name", [SERIAL, OWN_RANKS, CORES, STAGES])
def test_experts_run_between_dispatch_and_combine(name: str) -> None:
    found = next(one for one in timelines(resolved_of(name)) if one.block == "moe_layer")
    for micro_batch in {one.micro_batch for one in found.segments}:
        mine = [one for one in found.segments if one.micro_batch == micro_batch]
        start = next(one.start for one in mine if one.name == "exchange.dispatch")
        since = {one.name: (one.start - start) % found.layer for one in reversed(mine)}
        order = ["exchange.dispatch", "experts.gate_up", "experts.activation", "experts.down", "exchange.combine"]
        assert sorted(order, key=lambda operator: since[operator]) == order
        if found.block == "moe_layer" and name == OWN_RANKS:  # on dies of their own, at the same time
            assert since["shared.gate_up"] == pytest.approx(since["experts.gate_up"], rel=1e-9)


@pytest.mark.parametrize(("name", "streams"), [(CORES, ("attention", "experts")), (LINK, ("cores", "links"))])
def test_the_streams_work_on_different_micro_batches(name: str, streams: tuple[str, str]) -> None:
    found = next(one for one in timelines(resolved_of(name)) if one.block == "moe_layer")
    first, second = ([one for one in found.segments if one.stream == stream] for stream in streams)
    together = [
        (one, other)
        for one in first
        for other in second
        if min(one.start + one.time, other.start + other.time) - max(one.start, other.start) > 1e-9 * found.layer
    ]
    assert len(together) > 4
    assert all(one.micro_batch != other.micro_batch for one, other in together)


def test_expert_dies_serve_every_domain() -> None:
    resolved = resolved_of(STAGES)
    found = next(one for one in timelines(resolved) if one.block == "moe_layer")
    mine = [one for one in found.segments if one.stream == "expert dies"]
    own = sum(one.time for one in mine if one.name != OTHER_DOMAINS)
    assert resolved.plan.layout.domains > 1
    assert sum(one.time for one in mine) == pytest.approx(resolved.plan.layout.domains * own, rel=1e-9)


def test_work_beside_an_exchange_is_drawn_while_exchanges_run() -> None:
    found = next(one for one in timelines(resolved_of(SERIAL, shared_stream=True)) if one.block == "moe_layer")
    links = [(one.start, one.start + one.time) for one in found.segments if one.name.startswith("exchange.")]
    beside = [one for one in found.segments if one.name.startswith("shared.")]
    assert beside
    for one in beside[:-1]:
        assert any(start <= one.start and one.start + one.time <= end * (1 + 1e-9) for start, end in links)
    assert max(one.start + one.time for one in found.segments) == pytest.approx(found.layer, rel=1e-9)


# --- parts, tree, difference, roofline ------------------------------------------------------------


@pytest.mark.parametrize("kind", ["moe", "dense", "head", "draft", "draft_input", "embedding"])
def test_a_layer_is_its_block_over_its_count(explain: Explain, kind: str) -> None:
    words = ("explain", "--evidence", CORES)
    blocks = {row["block"]: row for row in table_of(explain(*words), "Blocks").rows}
    rows = [dict(row) for row in table_of(explain(*words, "--layer", kind), "Operators").rows]
    block = blocks.get(f"{kind}_layer") or blocks[kind]
    assert {row["block"] for row in rows} == {block["block"]}
    assert sum(row["share"] or 0.0 for row in rows) == pytest.approx(1, rel=1e-9)
    assert sum(row["time"] for row in rows if row["share"]) == pytest.approx(block["layer"], rel=1e-9)
    rows = [row for row in rows if row["operator"] not in ("prefetched weights", "weights still in L2")]
    whole = [row for row in table_of(explain(*words), "Operators").rows if row["block"] == block["block"]]
    assert [row["time"] * block["count"] for row in rows] == pytest.approx([row["time"] for row in whole], rel=1e-9)


def test_only_operators_of_a_pattern(explain: Explain) -> None:
    found = table_of(explain("explain", "--evidence", CORES, "--op", "*.gate_up"), "Operators").rows
    assert {row["operator"] for row in found} == {"dense.gate_up", "experts.gate_up", "shared.gate_up"}
    both = explain("explain", "--evidence", CORES, "--op", "*.gate_up", "--layer", "moe")
    assert {row["operator"] for row in table_of(both, "Operators").rows} == {"experts.gate_up", "shared.gate_up"}


@pytest.mark.parametrize(
    ("word", "key", "falls"),
    [("time", "time", True), ("name", "operator", False), ("bound", "bound", False)]
    + [("light", "light", False), ("flop", "flop", True), ("bytes", "bytes", True)],
)
def test_operators_are_sorted(explain: Explain, word: str, key: str, falls: bool) -> None:
    found = table_of(explain("explain", "--evidence", CORES, "--sort", word), "Operators").rows
    assert len(found) > 50
    values = [row[key] or 0.0 for row in found]
    assert values == sorted(values, reverse=falls)


@pytest.mark.parametrize("name", [SERIAL, CORES, LINK, STAGES, "seed-prefill-16x"])
def test_the_tree_adds_up(explain: Explain, name: str) -> None:
    rows = table_of(explain("explain", "--evidence", name, "--tree"), "Tree").rows
    step = rows[0]["time"]
    assert step == pytest.approx(breakdown_of(resolved_of(name)).step_time, rel=1e-12)
    assert sum(row["time"] for row in rows if row["level"] in ("block", "outside")) == pytest.approx(step, rel=1e-12)
    part: dict[str, Any] = {}
    sums: dict[int, float] = {}
    for row in rows:
        if row["level"] == "part":
            part = row
        elif row["level"] == "operator":
            sums[id(part)] = sums.get(id(part), 0.0) + row["time"]
    parts = [row for row in rows if row["level"] == "part"]
    assert [sums[id(row)] for row in parts] == pytest.approx([row["time"] for row in parts], rel=1e-12)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        (CORES, "draft=0,batch=64"),
        (CORES, "cm384-decode-4k-b96-no-mtp"),
        (CORES, OWN_RANKS),
        (CORES, "on=atlas-800i-a2"),
        (CORES, "mtp=0"),
        (SERIAL, "kv=int8,isl=8192"),
        (LINK, "overlap=none"),
        ("seed-prefill-16x", "recipe-r1-prefill-4k"),
    ],
)
def test_a_difference_adds_up(explain: Explain, name: str, other: str) -> None:
    document = explain("explain", "--evidence", name, "--compare", other)
    steps = next(row for row in table_of(document, "Side by side").rows if row["what"] == "step time")
    rows = table_of(document, "From A to B").rows
    pieces = [row for row in rows if row["kind"] != "total"]
    difference = steps["second"] - steps["first"]
    assert difference
    assert sum(row["change"] for row in pieces) == pytest.approx(difference, rel=1e-9)
    assert document.facts["difference_s"] == pytest.approx(difference, rel=1e-12)
    changes = [abs(row["change"]) for row in pieces if row["kind"] == "operator"]
    assert changes == sorted(changes, reverse=True)
    for row in pieces:
        assert row["change"] == pytest.approx((row["second"] or 0) - (row["first"] or 0), rel=1e-9)
    ends = [end for row in pieces for end in row["bar"]]
    assert ends[1:-1:2] == pytest.approx(ends[2::2])  # each piece begins where the one before it ends


def test_a_changed_layout_is_what_its_options_give(explain: Explain) -> None:
    """--compare batch=32 of a layout by hand is that layout with --batch 32."""
    hand = "explain deepseek-v3 --on cloudmatrix384 --dies 64 --isl 4096 --osl 1024 --redundant 32".split()
    compared = explain(*hand, "--batch", "16", "--compare", "batch=32,tp=2")
    second = next(row for row in table_of(compared, "Side by side").rows if row["what"] == "step time")["second"]
    assert second == explain(*hand, "--batch", "32", "--tp", "2").facts["step_time_s"]


def test_a_plan_is_compared_with_its_changes(explain: Explain, tmp_path) -> None:
    path = str(tmp_path / "plan.json")
    solve = "solve deepseek-v3 --on cm384 --cards 32 --isl 1024 --osl 512 --tpot 50ms -o".split()
    explain(*solve, path)
    document = explain("explain", "--evidence", CORES, "--compare", path)
    assert document.facts["compared_with"] == path
    assert table_of(explain("explain", path, "--compare", "batch=1"), "From A to B").rows[-1]["change"] < 0


def test_points_lie_where_their_work_and_time_put_them(explain: Explain) -> None:
    document = explain("explain", "--evidence", CORES, "--roofline")
    points = {row["operator"]: row for row in table_of(document, "Roofline").rows}
    rates: Any = row_on_file(CORES).machine.rates()
    rows = table_of(explain("explain", "--evidence", CORES), "Operators").rows
    for name, point in points.items():
        flop, moved, time = (
            sum(row[key] for row in rows if row["operator"] == name) for key in ("flop", "bytes", "time")
        )
        assert point["intensity"] == pytest.approx(flop / moved, rel=1e-12)
        assert point["achieved"] == pytest.approx(flop / time, rel=1e-12)
        assert point["roof"] == min(rates.peak(point["engine"]), point["intensity"] * rates.hbm_bandwidth)
    marks = "".join(row["mark"] for row in points.values())
    assert len(set(marks)) == len(marks) == len(points) > 20
    drawn = table_of(document, "Roofline").drawing
    assert drawn is not None
    lines = drawn(80, in_english)
    assert all(len(line) <= 80 for line in lines)
    assert {"a", "v"} <= set("".join(lines))  # far from others, so hidden by none


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [SERIAL, CORES, STAGES, "seed-prefill-16x"])
def test_memory_adds_up(explain: Explain, name: str) -> None:
    held: Any = resolved_of(name).point.footprint
    rows = {
        (row["die"], row["what"]): row["planned"]
        for row in table_of(explain("explain", "--evidence", name), "Memory").rows
    }
    dies = {die for die, what in rows if what.startswith("weights")}
    sums = {
        die: sum(size for (on, what), size in rows.items() if on == die and what.startswith("weights")) for die in dies
    }
    assert sorted(sums.values()) == pytest.approx(
        sorted(x for x in (held.weights, held.expert_weights) if x), rel=1e-12
    )
    whole = {what: size for (_, what), size in rows.items()}
    outside = sum(whole.get(what, 0) for what in ("runtime", "graphs", "reserve", "not seen by frameworks"))
    assert whole["usable"] + outside == pytest.approx(whole["HBM as the driver reports it"])
    assert whole["usable"] - whole["free"] == pytest.approx(held.planned, rel=1e-12)


@pytest.mark.parametrize(("name", "tpot"), [(SERIAL, 0.05), (CORES, 0.06), (STAGES, None), ("seed-prefill-16x", None)])
def test_the_batch_a_limit_allows_is_the_largest(name: str, tpot: float | None) -> None:
    """The layout evaluated alone at that batch is within the limit, and at the next it is not."""
    from perfmodel.prediction.headroom import batch_limits

    start = resolved_of(name)
    start = replace(start, scenario=replace(start.scenario, tpot=tpot))
    limits = {limit.name: limit for limit in batch_limits(start)}
    assert len(limits) >= 2

    def at(batch: int) -> Any:
        return resolved_of(name, batch=batch)

    within: dict[str, Callable[[Any], bool]] = {
        "memory as planned": lambda one: one.fits,
        "memory, all requests at their longest": lambda one: one.point.footprint.worst <= one.point.usable,
        **({f"TPOT of {tpot * 1e3:g} ms": lambda one: one.point.tpot <= tpot} if tpot else {}),
    }
    for limit, holds in within.items():
        found = limits[limit]
        assert found.batch is not None
        assert holds(at(found.batch))
        assert not holds(at(found.batch + 1))
        assert found.step_time == pytest.approx(at(found.batch).point.step_time, rel=1e-12)
        assert found.tokens_per_s_per_card == pytest.approx(at(found.batch).tokens_per_s_per_card, rel=1e-12)


# --- every format ---------------------------------------------------------------------------------

VIEWS = [
    ("explain", "--evidence", CORES),
    ("explain", "--evidence", "seed-prefill-16x", "--sources"),
    ("explain", "--evidence", STAGES, "--layer", "moe"),
    ("explain", "--evidence", CORES, "--op", "attention.*", "--sort", "time"),
    ("explain", "--evidence", LINK, "--tree"),
    ("explain", "--evidence", CORES, "--roofline"),
    ("explain", "--evidence", CORES, "--compare", "draft=0"),
    ("list", "evidence"),
    ("show", "cloudmatrix384"),
    ("compare", CORES, OWN_RANKS),
    ("what-if", "seed-cm384-decode", "--only", "mtp,amla"),
    ("validate", "seed-cm384-decode", "va-qwen235-1p2d"),
    ("accuracy", "cm384-table7"),
    ("gains", "amla"),
    ("solve", "deepseek-v3", "--on", "cm384", "--cards", "32", "--isl", "1024", "--osl", "512", "--tpot", "50ms"),
]  # fmt: skip


def _read(text: str, value: Any) -> Any:
    """Return a field of a CSV as what it stands for, beside the value of the JSON."""
    if value is None:
        assert text == ""
        return None
    if isinstance(value, bool):
        return text == "True"
    return float(text) if isinstance(value, (int, float)) else text


def _texts(told: dict[str, Any], raw: dict[str, Any], columns: list[Column]) -> list[str]:
    """Return the cells of a row of the JSON as the formatter writes them for people."""
    units = [raw["unit"] if column.unit == "row" else column.unit for column in columns]
    return [format_quantity(told[column.key], unit) for column, unit in zip(columns, units, strict=True)]


@pytest.mark.parametrize("words", VIEWS, ids=" ".join)
def test_every_format_holds_the_same_numbers(explain: Explain, words: tuple[str, ...]) -> None:
    document = explain(*words)
    texts = {name: render(document, 10_000) for name, render in RENDERERS.items()}
    parsed = json.loads(texts["json"])
    body = re.sub(r"^# .*\n?", "", texts["csv"], flags=re.MULTILINE)
    blocks = [list(csv.reader(io.StringIO(block.strip("\n")))) for block in re.split(r"\n\n+", body) if block.strip()]
    markdown = re.split(r"^## .*\n", texts["markdown"], flags=re.MULTILINE)[1:]
    assert len(parsed["tables"]) == len(document.tables) == len(blocks) == len(markdown)
    for table, told, block, piped in zip(document.tables, parsed["tables"], blocks, markdown, strict=True):
        words_alone = {column.key for column in table.columns if column.in_words}
        keys = [column["key"] for column in told["columns"] if column["key"] not in words_alone]
        assert [field.partition(" [")[0] for field in block[0]] == keys
        assert [[_read(text, row[key]) for text, key in zip(fields, keys, strict=True)]
                for fields, row in zip(block[1:], told["rows"], strict=True)] == [
                    [row[key] for key in keys] for row in told["rows"]]  # fmt: skip
        by_row = any(column.unit == "row" for column in table.columns)
        shown = [c for c in table.columns if c.unit != "bar" and not (by_row and c.key == "unit")]
        words = {c.title for c in shown if not c.for_programs}  # what people read in place of a programs' column
        shown = [c for c in shown if not (c.for_programs and c.title in words)]
        lines = [line for line in piped.splitlines() if line.startswith("| ")][1:]
        for row, raw, line in zip(told["rows"], table.rows, lines, strict=True):
            texts_of_row = [text.replace("|", "\\|") for text in _texts(row, raw, shown)]
            assert line == f"| {' | '.join(texts_of_row)} |"
            if not table.are_drawn:
                seen = _texts(row, raw, [c for c in shown if not (c.for_programs or c.group)])
                assert re.search(" .*?".join(re.escape(cell) for cell in seen if cell), texts["table"])


# --- what a user gets wrong -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--layer", "meo"), "--layer: 'meo' is no block of this step; did you mean 'moe'?"),
        (("--op", "attn.core"), "--op: no operator matches 'attn.core'; did you mean 'attention.core'?"),
        (("--layer", "head", "--op", "experts.*"), "--op: no operator matches 'experts.*'"),
        (("--sort", "tim"), "did you mean 'time'?"),
        (("--compare", "tpp=4"), "--compare: 'tpp' is no key of a layout or a service; did you mean 'tp'?"),
        (("--compare", "tp=many"), "tp: 'many'; allowed: a valid integer"),
        (("--compare", "tp=3"), "tp 3 does not divide"),
        (("--compare", "seed-prefill-16x"), "allowed: two of one phase"),
        (("--compare", "cm384-decode-4k-b9"), "did you mean 'cm384-decode-4k-b96'?"),
        (("--compare", "on=atlas"), "'atlas' is not on file"),
        (("--layer", "draft", "--compare", "draft=0"), "--layer: 'draft' is no block of this step"),
    ],
)
def test_a_wrong_part_or_other_is_one_clear_line(moeplan, words: tuple[str, ...], says: str) -> None:
    done = moeplan("explain", "--evidence", CORES, *words)
    assert done.returncode == 2
    assert says in done.stderr
    assert not done.stdout
    assert "Traceback" not in done.stderr


def test_a_plot_is_drawn_by_a_library_that_is_loaded_for_it_alone() -> None:
    import subprocess
    import sys

    for words, loaded in (((), False), (("--roofline",), True), (("--roofline", "--format", "json"), False)):
        command = [sys.executable, "-X", "importtime", "-m", "perfmodel", "explain", "--evidence", CORES, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert ("plotext" in done.stderr) == loaded


LAID_OUT = "explain deepseek-v3 --on atlas-800i-a2-64gb-hccs --cards 16 --tp 4 --batch 4 --isl 1024 --osl 1024".split()


def test_the_engines_share_of_memory_can_be_given(moeplan) -> None:
    """--memory-share is gpu_memory_utilization: usable is that share of what is seen, less what the framework takes."""

    def usable(*more: str) -> float:
        return json.loads(moeplan(*LAID_OUT, "--format", "json", *more).stdout)["facts"]["memory_usable_B"]

    seen, runtime = 0.9525 * 64 * 2**30, 0.22 * 2**30
    assert usable() == pytest.approx(0.9 * seen - runtime)
    for share in (0.8, 0.85):
        assert usable("--memory-share", f"{share}") == pytest.approx(share * seen - runtime)
    refused = moeplan(*LAID_OUT, "--memory-share", "1.2")
    assert refused.returncode == 2
    assert "--memory-share: 1.2; allowed: above 0, at most 1" in refused.stderr


def test_numbers_of_memory_are_shown_with_their_sources(moeplan) -> None:
    text = moeplan(*LAID_OUT, "--sources", "--format", "csv", "--memory-share", "0.85").stdout
    for words in ("share that frameworks see,0.9525,", "graphs, on top of that share", "0.85,,not in the file"):
        assert words in text
