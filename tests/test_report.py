"""The report of a plan as one page: its numbers, what it loads, how it behaves in a browser."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from perfmodel.units import Unit
from tests import process

HTML = Path(__file__).resolve().parent.parent / "perfmodel" / "report" / "html"
MOST_BYTES = 6e6
SOLVE = "solve deepseek-v3 --on cloudmatrix384 --cards 160 --isl 4096 --osl 1024 --tpot 50ms --ttft 2s --kv any"
VOID = {"meta", "link", "br", "img", "input", "hr"}
PLOTS = {"step-prefill", "step-decode", "streams-prefill", "streams-decode", "roofline", "memory", "felt-tpot"}
PLOTS |= {"felt-ttft", "felt-rate", "worth-gain", "worth-loss", "near"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def _run(*words: str) -> "subprocess.CompletedProcess[str]":
    return process.run(*words)


class Read(HTMLParser):
    """The elements of a page in order, each with its attributes and the text directly in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[dict[str, Any]] = []
        self.elements: list[dict[str, Any]] = []
        self.faults: list[str] = []
        self.feed(text)
        self.close()
        self.faults += [f"<{one['tag']}> is never closed" for one in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = {"tag": tag, "text": "", "inside": [one["tag"] for one in self.open], **dict(attrs)}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append({"tag": tag, "text": "", "inside": [one["tag"] for one in self.open], **dict(attrs)})

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1]["tag"] != tag:
            self.faults.append(f"</{tag}> at {self.getpos()} closes {self.open[-1]['tag'] if self.open else 'nothing'}")
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open:
            self.open[-1]["text"] += data


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("report")
    plan, out = folder / "plan.json", folder / "report.html"
    assert _run(*SOLVE.split(), "-o", str(plan)).returncode == 0
    done = _run("report", str(plan), "-o", str(out), "--no-front")
    assert done.returncode == 0, done.stderr
    assert "MB" in done.stderr
    return out, json.loads(plan.read_text())


@pytest.fixture(scope="module")
def page(made: tuple[Path, dict[str, Any]]) -> Read:
    return Read(made[0].read_text(encoding="utf-8"))


def _classed(page: Read, name: str) -> list[dict[str, Any]]:
    return [one for one in page.elements if name in (one.get("class") or "").split()]


# --- without a browser -----------------------------------------------------------------------------


def test_the_page_is_well_formed_and_small(made: tuple[Path, dict[str, Any]], page: Read) -> None:
    assert page.faults == []
    assert made[0].stat().st_size < MOST_BYTES


def test_nothing_is_loaded(page: Read) -> None:
    for one in page.elements:
        assert "src" not in one
        if one["tag"] == "link":
            assert one["href"] == "data:,"
        if one["tag"] == "style":
            assert not re.search(r"url\(|@import", one["text"])
    policy = next(one["content"] for one in page.elements if one.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_targets_show_the_numbers_of_the_plan(made: tuple[Path, dict[str, Any]], page: Read) -> None:
    plan = made[1]
    shown = {one["data-name"]: one for one in _classed(page, "target")}
    for name, key in (("tpot", "tpot"), ("ttft", "ttft"), ("rate", "requests_per_s")):
        assert float(shown[name]["data-value"]) == pytest.approx(plan["predicted"][key], rel=1e-9)
    assert float(shown["tpot"]["data-limit"]) == plan["conditions"]["tpot"]
    assert float(shown["ttft"]["data-limit"]) == Unit("s").read(plan["run"]["ttft"])
    assert 0 < float(shown["chance"]["data-value"]) < 1
    text = next(one["text"] for one in _classed(page, "answer"))
    assert f"{plan['predicted']['tokens_per_s_per_card']:.0f} per card" in text
    servers = {one["aria-label"] for one in _classed(page, "server")}
    assert f"{len(servers)} servers of CloudMatrix384 (" in text


def test_the_verdict_follows_the_chance(page: Read) -> None:
    chance = next(float(one["data-value"]) for one in _classed(page, "target") if one["data-name"] == "chance")
    word = "met" if chance >= 0.8 else "likely" if chance >= 0.5 else "missed"
    (verdict,) = _classed(page, "verdict")
    assert word in verdict["class"].split()
    assert f"{100 * chance:.0f} %" in verdict["text"]


def test_a_page_has_the_day_and_the_title_it_is_given_and_is_the_same_again(
    made: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    plan, pages = made[0].with_name("plan.json"), [tmp_path / "one.html", tmp_path / "two.html"]
    for out in pages:
        words = ("--no-front", "--date", "2026-11-05", "--title", "Hall <3>")
        assert _run("report", str(plan), "-o", str(out), *words).returncode == 0
    assert pages[0].read_bytes() == pages[1].read_bytes()
    read = Read(pages[0].read_text(encoding="utf-8"))
    assert "2026-11-05" in next(one["text"] for one in _classed(read, "date"))
    assert "Hall <3>" in next(one["text"] for one in _classed(read, "kicker"))


def test_what_engineers_need_is_folded_away(page: Read) -> None:
    (folded,) = [one for one in page.elements if one.get("id") == "engineers"]
    assert folded["tag"] == "details"
    assert "open" not in folded
    sections = [one for one in page.elements if one["tag"] == "section" and one.get("id")]
    first = [one["id"] for one in sections if "details" not in one["inside"]]
    assert first == ["targets", "plan", "moving"]
    assert len(sections) > 10


def test_every_die_of_the_plan_is_drawn_once(made: tuple[Path, dict[str, Any]], page: Read) -> None:
    pools = made[1]["conditions"]
    for phase in ("prefill", "decode"):
        wanted = pools[phase]["instances"] * pools[phase]["layout"]["dies"]
        assert len([one for one in _classed(page, "die") if phase in one["class"].split()]) == wanted
    told = [one["text"] for one in page.elements if one["tag"] == "title" and "g" in one["inside"]]
    places = [re.match(r"server (\d+), card (\d+), die (\d+)", text) for text in told]
    assert len({place.groups() for place in places if place}) == len(told)


def test_tables_hold_what_explain_says(made: tuple[Path, dict[str, Any]], page: Read) -> None:
    plan = made[0].with_name("plan.json")
    document = json.loads(_run("explain", str(plan), "--format", "json").stdout)
    operators = next(t for t in document["tables"] if t["title"].startswith("Operators"))
    values = {float(one["data-value"]) for one in page.elements if one.get("data-value")}
    assert {row["time"] for row in operators["rows"]} <= values
    assert document["facts"]["memory_planned_B"] in values


def test_plots_have_data_that_adds_up(page: Read) -> None:
    figures = json.loads(next(one["text"] for one in page.elements if one.get("id") == "figures"))
    assert set(figures) == PLOTS
    for phase in ("prefill", "decode"):
        (bars,) = figures[f"step-{phase}"]["data"]
        assert sum(bars["x"][:-1]) == pytest.approx(bars["x"][-1], rel=1e-9)
        assert bars["measure"][-1] == "total"
    shares = [sum(trace["x"][at] for trace in figures["memory"]["data"]) for at in (0, 1)]
    assert shares[0] == pytest.approx(shares[1])  # dies of both pools have one size


def test_every_drawing_has_words_and_headings_follow_each_other(page: Read) -> None:
    drawings = [one for one in page.elements if one["tag"] in ("img", "svg") or "plot" in (one.get("class") or "")]
    assert len(drawings) > len(PLOTS)
    assert all(one.get("role") == "img" and len(one.get("aria-label", "")) > 20 for one in drawings)
    levels = [int(one["tag"][1]) for one in page.elements if re.fullmatch(r"h[1-6]", one["tag"])]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    assert {"header", "nav", "main", "footer"} <= {one["tag"] for one in page.elements}
    identities = [one["id"] for one in page.elements if one.get("id")]
    assert len(identities) == len(set(identities))
    links = [one["href"][1:] for one in page.elements if one["tag"] == "a" and one["href"].startswith("#")]
    assert set(links) <= set(identities)


def test_every_input_has_a_kind_and_numbers_on_file_a_source(page: Read) -> None:
    at = next(i for i, one in enumerate(page.elements) if one.get("id") == "inputs")
    rows: list[dict[str, str]] = []
    for one in page.elements[at:]:
        if one["tag"] == "th" and one.get("scope") == "row":
            rows.append({"name": one["text"]})
        elif one["tag"] == "td":
            rows[-1][one["data-key"]] = one["text"]
        elif one["tag"] == "a" and "td" in one["inside"]:
            rows[-1]["source"] = one["text"]
    assert {row["kind"] for row in rows} == {"asked", "chosen", "datasheet", "measured", "derived", "assumed"}
    assert all(row.get("source") for row in rows if row["kind"] not in ("asked", "chosen"))
    named = {row["name"]: row for row in rows}
    assert {"die.hbm.capacity", "experts.n_routed_experts", "decode_gap", "mtp", "batch"} <= named.keys()
    assert (named["tpot"]["value"], named["tpot"]["unit"]) == ("0.05", "s")
    assert (named["isl"]["value"], named["isl"]["unit"]) == ("4096", "tokens")


def test_every_word_on_file_is_used_and_every_used_word_is_on_file() -> None:
    words = yaml.safe_load((HTML / "words.en.yaml").read_text())
    code = "".join(path.read_text() for path in HTML.rglob("*") if path.suffix in (".py", ".html"))
    said = set(re.findall(r"say\(\s*'([a-z_.]+)'|say\(\s*\"([a-z_.]+)\"", code))
    said = {one or other for one, other in said}
    assert {key for key in said if not key.endswith(".")} <= words.keys()
    unused = [
        key for key in words if not re.search(rf"['\"]{re.escape(key)}['\"]", code) and key not in ("terms", "parts")
    ]
    families = (
        "targets.",
        "moving.",
        "roofline.",
        "inputs.",
        "facts.",
        "next.",
    )  # keys that are put together from a name
    assert [key for key in unused if not key.startswith(families)] == []


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("nowhere.json", "-o", "new.html"), 2, "cannot be read"),
        (("plan.txt",), 2, "ends in .json"),
        (("broken.json", "-o", "new.html"), 4, "broken.json:1:"),
        (("plan.json", "-o", "nowhere/report.html", "--no-front"), 2, "cannot be written"),
        (("plan.json", "-o", "report.html"), 2, "is there already"),
        (("plan.json", "-o", "new.html", "--date", "yesterday"), 2, "YYYY-MM-DD"),
    ],
)
def test_bad_input_is_told_and_nothing_is_left(
    made: tuple[Path, dict[str, Any]], tmp_path: Path, words: tuple[str, ...], code: int, says: str
) -> None:
    shutil.copy(made[0].with_name("plan.json"), tmp_path)
    (tmp_path / "broken.json").write_text('{"format": "moeplan.plan/1"}')
    (tmp_path / "report.html").write_text("mine")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    done = process.run("report", *words, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {name: text for name, text in after.items() if name in before} == before
    assert after.keys() <= before.keys()


# --- mixed serving, and two systems ------------------------------------------------------------------


OTHERS = {
    "mixed": "--serving mixed --price 2",
    "two": "--prefill-on atlas-800i-a2-64gb-hccs --prefill-cards 64 --price 2 --prefill-price 1 --confidence 0.8",
}
SHORT = "solve deepseek-v3 --on cloudmatrix384 --cards 32 --isl 1024 --osl 512 --tpot 50ms"


@pytest.fixture(scope="module", params=OTHERS)
def other(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """A page without a front, its plan, and what the search said of it."""
    folder = tmp_path_factory.mktemp(request.param)
    plan, out = folder / "plan.json", folder / "report.html"
    done = _run(*SHORT.split(), *OTHERS[request.param].split(), "-o", str(plan), "--format", "json")
    assert done.returncode == 0, done.stderr
    made = _run("report", str(plan), "-o", str(out), "--no-front")
    assert made.returncode == 0, made.stderr
    return out, json.loads(plan.read_text()), json.loads(done.stdout)["facts"]


def test_targets_and_costs_are_those_of_the_search(other: tuple[Path, dict[str, Any], dict[str, Any]]) -> None:
    path, plan, facts = other
    page = Read(path.read_text(encoding="utf-8"))
    assert page.faults == []
    shown = {one["data-name"]: float(one["data-value"]) for one in page.elements if one.get("data-name")}
    for name in ("tpot", "ttft"):
        assert shown[name] == pytest.approx(facts[f"{name}_s"], rel=1e-9)
        assert shown[name] == pytest.approx(plan["predicted"][name], rel=1e-9)
    assert shown["rate"] == pytest.approx(facts["requests_per_s"], rel=1e-9)
    assert shown["per_hour"] == pytest.approx(facts["cost"]["per_hour"])
    assert shown["per_million"] == pytest.approx(facts["cost"]["per_million_tokens"])
    assert shown["idle"] == facts["cards_idle"]
    if plan["conditions"].get("mixed"):
        assert shown["longest_gap"] == pytest.approx(facts["longest_gap_s"])
    else:
        assert shown["confidence"] == plan["run"]["confidence"]
    chance = next(one["text"] for one in _classed(page, "answer"))
    assert f"{facts['tokens_per_s']:,.0f} output tokens" in chance
    hour = facts["cost"]["per_hour"]
    assert shown["per_month"] == pytest.approx(hour * 730)
    assert shown["per_year"] == pytest.approx(hour * 24 * 365)
    cost = next(one["text"] for one in _classed(page, "cost"))
    assert f"{hour * 8760:,.0f} a year" in cost


def test_every_die_of_any_plan_is_drawn_once(other: tuple[Path, dict[str, Any], dict[str, Any]]) -> None:
    path, plan, _ = other
    page, pools = Read(path.read_text(encoding="utf-8")), plan["conditions"]
    own = ["decode"] if pools.get("mixed") else ["prefill", "decode"]
    wanted = sum(pools[phase]["instances"] * pools[phase]["layout"]["dies"] for phase in own)
    told = [one["text"] for one in page.elements if one["tag"] == "title" and "g" in one["inside"]]
    places = {re.match(r"server (\d+), card (\d+), die (\d+)", text).groups() for text in told}  # type: ignore[union-attr]
    assert len(places) == len(told) == wanted
    networks = [one["aria-label"] for one in _classed(page, "network")]
    assert len(networks) == (1 if pools.get("mixed") else 2)


def test_the_command_on_the_page_finds_the_plan_again(other: tuple[Path, dict[str, Any], dict[str, Any]]) -> None:
    path, plan, facts = other
    page = Read(path.read_text(encoding="utf-8"))
    at = next(i for i, one in enumerate(page.elements) if one["tag"] == "code" and "dd" in one["inside"])
    words = []
    for one in page.elements[at + 1 :]:
        if one["tag"] != "span":
            break
        words.append(one["text"])
    assert words[0] == "moeplan"
    again = json.loads(_run(*words[1:], "--format", "json").stdout)["facts"]
    assert {key: again[key] for key in ("tpot_s", "ttft_s", "cost")} == {
        key: facts[key] for key in ("tpot_s", "ttft_s", "cost")
    }
    assert plan["run"]["model"] in words


def test_pages_of_other_plans_draw_themselves(browser: Any, other: tuple[Path, dict[str, Any], dict[str, Any]]) -> None:
    tab, told = _visit(browser, other[0], viewport={"width": 375, "height": 800})
    assert told == []
    drawn = set(tab.evaluate("[...document.querySelectorAll('.plot')].map((one) => one.dataset.figure)"))
    if other[1]["conditions"].get("mixed"):
        assert drawn == PLOTS - {"worth-gain", "worth-loss"}
    else:
        assert drawn >= {"roofline-prefill", "roofline-decode", "memory", "step-prefill"}
    tab.click("#open")
    assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


# --- in a browser ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if found is None:
        pytest.skip(f"no browser on PATH: none of {', '.join(BROWSERS)}")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playing:
        opened = playing.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


def _visit(browser: Any, path: Path, *, unfolded: bool = True, **how: Any) -> tuple[Any, list[str]]:
    told: list[str] = []
    tab = browser.new_context(**how).new_page()
    tab.on("console", lambda message: told.append(f"console: {message.text}"))
    tab.on("pageerror", lambda error: told.append(f"error: {error}"))
    tab.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else told.append(request.url))
    tab.goto(path.as_uri())
    if unfolded:
        tab.evaluate("document.getElementById('engineers').open = true")
        tab.wait_for_function("[...document.querySelectorAll('.plot')].every((one) => one.querySelector('svg'))")
    return tab, told


@pytest.mark.parametrize("width", [375, 768, 1280])
def test_the_page_draws_itself_without_errors_or_requests(
    browser: Any, made: tuple[Path, dict[str, Any]], width: int
) -> None:
    tab, told = _visit(browser, made[0], viewport={"width": width, "height": 800})
    assert told == []
    assert set(tab.evaluate("[...document.querySelectorAll('.plot')].map((one) => one.dataset.figure)")) == PLOTS
    assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    tab.click("#open")
    assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    outside = """[...document.querySelectorAll('.plot')].filter((one) =>
        one.querySelector('.main-svg').getBoundingClientRect().right > innerWidth + 1).length"""
    assert tab.evaluate(outside) == 0


CUT = """[...document.querySelectorAll('.plot, .server')].flatMap((drawing) => {
    const box = (one) => one.getBoundingClientRect();
    const holds = (outer, inner) => inner.left >= outer.left - 1 && inner.right <= outer.right + 1
        && inner.top >= outer.top - 1 && inner.bottom <= outer.bottom + 1;
    const sheet = drawing.querySelector('.main-svg') || drawing;
    return [...drawing.querySelectorAll('text')].filter((one) => box(one).width && (
        !holds(box(sheet), box(one))
        || (one.closest('.legend') && !holds(box(one.closest('.legend').querySelector('.bg')), box(one)))
    )).map((one) => one.textContent);
})"""


@pytest.mark.parametrize("width", [375, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_text_of_a_drawing_is_cut(browser: Any, made: tuple[Path, dict[str, Any]], width: int, scheme: str) -> None:
    tab, told = _visit(browser, made[0], viewport={"width": width, "height": 900}, color_scheme=scheme)
    assert tab.evaluate("document.querySelectorAll('.plot text, .server text').length") > 200
    assert tab.evaluate(CUT) == []
    # what plotly measured is what is shown, whatever fonts a reader has
    told_and_shown = """[...document.querySelectorAll('.plot .legendtext, .plot .ytick text, .plot .annotation-text')]
        .map((one) => [one.closest('.plot')._fullLayout.font.family, getComputedStyle(one).fontFamily])"""
    pairs = tab.evaluate(told_and_shown)
    assert len(pairs) > 20
    assert {one.replace('"', "") for one, _ in pairs} == {one.replace('"', "") for _, one in pairs}
    assert told == []


def test_a_pointer_reads_a_plot(browser: Any, made: tuple[Path, dict[str, Any]]) -> None:
    tab, _ = _visit(browser, made[0], viewport={"width": 1280, "height": 900})
    plot = tab.locator("#plot-step-decode")
    plot.scroll_into_view_if_needed()
    plot.locator(".point path").first.hover(force=True)
    tab.wait_for_selector("#plot-step-decode .hovertext")
    first = tab.evaluate("(document.getElementById('plot-step-decode').data[0].text[0])")
    assert first in plot.locator(".hovertext").first.text_content()


def _colour(tab: Any, what: str = "backgroundColor") -> tuple[int, ...]:
    text = tab.evaluate(f"getComputedStyle(document.body).{what}")
    return tuple(int(float(part)) for part in re.findall(r"[\d.]+", text)[:3])


def test_dark_follows_the_system_and_the_button(browser: Any, made: tuple[Path, dict[str, Any]]) -> None:
    tab, _ = _visit(browser, made[0], color_scheme="dark")
    assert sum(_colour(tab)) < 150
    assert tab.get_attribute("#theme", "aria-pressed") == "true"
    tab.focus("#theme")
    tab.keyboard.press("Enter")
    assert sum(_colour(tab)) > 700
    assert tab.get_attribute("#theme", "aria-pressed") == "false"
    tab, _ = _visit(browser, made[0], color_scheme="light")
    assert sum(_colour(tab)) > 700


def _contrast(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """Contrast ratio of WCAG 2.1, worked by its own definition."""

    def light(colour: tuple[int, ...]) -> float:
        parts = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(browser: Any, made: tuple[Path, dict[str, Any]], scheme: str) -> None:
    tab, _ = _visit(browser, made[0], color_scheme=scheme)
    tab.click("#open")
    pairs = tab.evaluate(
        """[...document.querySelectorAll('body *')].filter((one) => one.offsetParent && [...one.childNodes].some(
        (part) => part.nodeType === 3 && part.textContent.trim())).map((one) => {
        let ground = one;
        while (ground && /rgba\\(0, 0, 0, 0\\)|transparent/.test(getComputedStyle(ground).backgroundColor))
            ground = ground.parentElement;
        return [getComputedStyle(one).color, getComputedStyle(ground || document.body).backgroundColor, one.className];
        })"""
    )
    assert len(pairs) > 500
    least = min(
        (_contrast(*(tuple(int(float(c)) for c in re.findall(r"[\d.]+", text)[:3]) for text in pair[:2])), pair)
        for pair in {tuple(map(str, pair)) for pair in pairs}
    )
    assert least[0] >= 4.5, least
    plotted = tab.evaluate("getComputedStyle(document.querySelector('.plot .ytick text')).fill")
    ink = tuple(int(float(part)) for part in re.findall(r"[\d.]+", plotted)[:3])
    assert _contrast(ink, _colour(tab)) >= 4.5


def test_keyboard_reaches_the_page_and_focus_is_seen(browser: Any, made: tuple[Path, dict[str, Any]]) -> None:
    tab, _ = _visit(browser, made[0])
    reached = []
    for _ in range(6):
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate("document.activeElement.id || document.activeElement.getAttribute('href')"))
        assert tab.evaluate("parseFloat(getComputedStyle(document.activeElement).outlineWidth)") >= 2
    assert reached[:4] == ["#main", "open", "theme", "#targets"]
    tab.focus("#step summary")
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.querySelector('#step details').open")


def test_paper_is_light_and_has_no_buttons(browser: Any, made: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    tab, told = _visit(browser, made[0], color_scheme="dark")
    tab.emulate_media(media="print")
    assert sum(_colour(tab)) > 700
    assert not tab.is_visible("button")
    assert not tab.is_visible("nav")
    tab.evaluate(
        "addEventListener('beforeprint', () => { window.shut = document.querySelector('details:not([open])'); })"
    )
    tab.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)
    pages = len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "report.pdf").read_bytes()))
    assert 20 <= pages <= 50
    assert tab.evaluate("window.shut") is None  # every table is on paper
    assert tab.evaluate("[...document.querySelectorAll('details')].filter((one) => one.open).length") == 1
    assert told == []


def test_the_summary_is_two_pages_of_paper(browser: Any, made: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    tab, told = _visit(browser, made[0], unfolded=False)
    tab.add_style_tag(content="#engineers, footer { display: none !important; }")
    tab.pdf(path=tmp_path / "summary.pdf", prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "summary.pdf").read_bytes())) <= 2
    assert told == []


def test_a_link_into_what_is_folded_unfolds_it(browser: Any, made: tuple[Path, dict[str, Any]]) -> None:
    tab, told = _visit(browser, made[0], unfolded=False, viewport={"width": 1280, "height": 800})
    assert not tab.is_visible("#memory")
    tab.click("nav a[href='#memory']")
    tab.wait_for_selector("#plot-memory .main-svg")
    assert tab.is_visible("#memory h2")
    assert told == []


# --- throughput against latency ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def fronted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A page with a front, and its plan."""
    folder = tmp_path_factory.mktemp("front")
    plan, out = folder / "plan.json", folder / "report.html"
    words = "solve deepseek-v3 --on cloudmatrix384 --cards 32 --isl 1024 --osl 512 --tpot 50ms"
    assert _run(*words.split(), "-o", str(plan)).returncode == 0
    done = _run("report", str(plan), "-o", str(out))
    assert done.returncode == 0, done.stderr
    return out, json.loads(plan.read_text())


def test_the_front_is_drawn_where_there_is_one(fronted: tuple[Path, dict[str, Any]], page: Read) -> None:
    path, plan = fronted
    assert not [one for one in page.elements if one.get("id") == "front"]  # not asked for, no section
    read = Read(path.read_text(encoding="utf-8"))
    assert read.faults == []
    names = [one["id"] for one in read.elements if one["tag"] == "section" and one.get("id")]
    assert names[:6] == ["targets", "plan", "moving", "holds", "front", "step"]
    figures = json.loads(next(one["text"] for one in read.elements if one.get("id") == "figures"))
    line, chosen = figures["front"]["data"]
    assert len(line["x"]) > 3
    assert line["x"] == sorted(line["x"])
    assert line["y"] == sorted(line["y"])
    assert chosen["x"][0] == pytest.approx(1e3 * plan["predicted"]["tpot"])
    assert chosen["y"][0] == pytest.approx(plan["predicted"]["tokens_per_s_per_card"])
    values = {float(one["data-value"]) for one in read.elements if one.get("data-value")}
    assert set(line["y"]) <= values


def test_a_pointer_reads_the_front(browser: Any, fronted: tuple[Path, dict[str, Any]]) -> None:
    tab, told = _visit(browser, fronted[0], viewport={"width": 1280, "height": 900})
    plot = tab.locator("#plot-front")
    plot.scroll_into_view_if_needed()
    plot.locator(".scatterlayer .point").first.hover(force=True)
    tab.wait_for_selector("#plot-front .hovertext")
    assert "attention dp" in plot.locator(".hovertext").first.text_content()
    assert told == []
