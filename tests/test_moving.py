"""The page that moves: its function of JavaScript against Python, its sliders against ``moeplan explain``."""

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sympy

from perfmodel.closed_form.javascript import function_of
from perfmodel.closed_form.moving import Movable
from perfmodel.closed_form.symbols import value_of
from perfmodel.planning.named_run import named_run
from perfmodel.planning.page_content import page_content
from tests import process

POINTS = 500
CLOSE = 1e-9  # relative
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SHORT = "--cards 32 --isl 1024 --osl 512 --tpot 50ms"
PLANS = {
    "apart": "deepseek-v3 --on cloudmatrix384 --cards 160 --isl 4096 --osl 1024 --tpot 50ms --ttft 2s --price 2",
    "asked": "deepseek-v3 --on cloudmatrix384 --rate 20 --isl 2048 --osl 512 --tpot 50ms --price 2",
    "mixed": f"deepseek-v3 --on cloudmatrix384 {SHORT} --serving mixed --price 2",
    "two": f"deepseek-v3 --on cloudmatrix384 {SHORT} --prefill-on atlas-800i-a2-64gb-hccs --prefill-cards 64"
    " --price 2 --prefill-price 1",
    "grouped": "qwen3-235b-a22b --on atlas-800i-a3 --cards 32 --isl 2000 --osl 500 --tpot 50ms",
    "other die": "deepseek-v3 --on h200 --cards 32 --isl 2000 --osl 500 --tpot 50ms",
}


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


def _worked_out(function: str, rows: list[dict[str, float]], request: pytest.FixtureRequest) -> list[dict[str, float]]:
    """Return what a function of JavaScript makes of each row: in node, else in a browser."""
    node = shutil.which("node")
    call = f"JSON.stringify({json.dumps(rows)}.map({function}))"
    if node is None:
        text = request.getfixturevalue("browser").new_page().evaluate(call)
    else:
        done = subprocess.run([node, "-"], input=f"console.log({call})", capture_output=True, text=True, check=True)
        text = done.stdout
    found: list[dict[str, float]] = json.loads(text)
    return found


# --- the printer -------------------------------------------------------------------------------------


def test_every_kind_of_form_is_worked_out_as_in_python(request: pytest.FixtureRequest) -> None:
    x, y = sympy.symbols("x y", positive=True)
    forms = {
        "sums": x - 3 * y + sympy.Rational(1, 3),
        "powers": x**2 / y**3 + sympy.sqrt(x) / sympy.sqrt(y) + x**1.7,
        "signs": -x * -y - (x - y) * -2,
        "quotient": (x + y) / (x * (y + 2)) / 7,
        "rounded": sympy.ceiling(x / y) + 10 * sympy.floor(x * y),
        "chosen": sympy.Max(x, y, 1.5, evaluate=False) - sympy.Min(x, 2 * y, evaluate=False),
        "curves": sympy.exp(-x) + sympy.log(x + y),
        "branches": sympy.Piecewise(
            (x * y, x > y), (x + 1, (x > 1) & (y <= 2)), (y**2, (x < 0.3) | (y >= 3)), (7, True)
        ),
        "alone": sympy.Float(0.1),
        "whole": sympy.Integer(12),
    }
    rng = np.random.default_rng(2)
    rows = [{"x": a, "y": b} for a, b in rng.uniform(0.1, 4, (POINTS, 2)).tolist()]
    found = _worked_out(function_of(("x", "y"), forms), rows, request)
    for row, one in zip(rows, found, strict=True):
        for name, form in forms.items():
            assert one[name] == pytest.approx(float(value_of(form, row)), rel=1e-12), (name, row)
    taken = {tuple(bool(cond) for cond in (row["x"] > row["y"], row["x"] > 1 and row["y"] <= 2)) for row in rows}
    assert len(taken) == 4  # points lie on every branch


def test_a_form_that_cannot_be_printed_is_refused() -> None:
    x = sympy.Symbol("x")
    with pytest.raises(TypeError, match="erfinv has no form in JavaScript"):
        function_of(("x",), {"one": sympy.erfinv(x)})
    with pytest.raises(TypeError, match="x is none of the variables y"):
        function_of(("y",), {"one": x + 1})


# --- the function of a plan --------------------------------------------------------------------------


@pytest.fixture(scope="module", params=PLANS)
def movable(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Movable, Any]:
    plan = tmp_path_factory.mktemp("moving") / "plan.json"
    done = process.run("solve", *PLANS[request.param].split(), "-o", str(plan))
    assert done.returncode == 0, done.stderr
    given = named_run(str(plan))
    assert given.plan is not None
    report = page_content(given.plan, given.run, front=False)
    return report.movable, report


def _random_points(here: Mapping[str, float]) -> dict[str, Any]:
    rng = np.random.default_rng(7)
    points: dict[str, Any] = {}
    for name, now in here.items():
        low, high = (0.02, 1.0) if name == "acceptance" else (now / 3, now * 3)
        points[name] = rng.uniform(low, high, POINTS)
        if name in ("batch", "isl", "osl"):
            points[name] = np.maximum(1, np.round(points[name]))
    return points


def test_at_its_own_place_a_plan_comes_to_what_its_report_says(movable: tuple[Movable, Any]) -> None:
    one, report = movable
    now = one.numbers({})
    assert now["tpot"] == pytest.approx(report.best.tpot, rel=1e-12)
    assert now["ttft"] == pytest.approx(float(report.best.first_token.ttft), rel=1e-12)
    assert min(now["rate"], one.asked or np.inf) == pytest.approx(report.requests_per_s, rel=1e-12)
    assert now["per_card"] == pytest.approx(report.tokens_per_s_per_card, rel=1e-12)
    for phase, plan in report.held.items():
        assert now[f"memory_{phase}"] == pytest.approx(float(plan.point.memory), rel=1e-12)
    if report.cost is not None:
        assert now["per_hour"] == pytest.approx(report.cost.per_hour, rel=1e-12)
        assert now["per_million"] == pytest.approx(report.cost.per_million_tokens, rel=1e-12)
    assert ("price" in one.here) == (report.cost is not None)


def test_javascript_says_what_python_says_at_random_points(
    movable: tuple[Movable, Any], request: pytest.FixtureRequest
) -> None:
    one, _ = movable
    points = _random_points(one.here)
    expected = {name: np.broadcast_to(value, POINTS) for name, value in one.numbers(points).items()}
    forms = one.numbers({name: sympy.Symbol(name, positive=True) for name in one.here})
    rows = [{name: float(value[at]) for name, value in points.items()} for at in range(POINTS)]
    found = _worked_out(function_of(tuple(one.here), forms), rows, request)
    for name, values in expected.items():
        got = np.array([row[name] for row in found])
        assert np.max(np.abs(got / values - 1)) < CLOSE, name
    moving = {name for name, values in expected.items() if np.ptp(values) > 0}
    assert moving >= {"tpot", "ttft", "rate", "per_card", "step", "memory_decode"}


# --- sliders -----------------------------------------------------------------------------------------

PLACES: tuple[dict[str, float], ...] = (
    {"batch": 40},
    {"batch": 61, "hbm": 1.5, "links": 0.5},
    {"batch": 96, "acceptance": 0.4, "hbm": 0.7, "links": 1.3, "isl": 3.0, "osl": 0.5},
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    done = process.run("solve", *PLANS["apart"].split(), "-o", str(folder / "plan.json"))
    assert done.returncode == 0, done.stderr
    done = process.run("report", str(folder / "plan.json"), "-o", str(folder / "page.html"), "--no-front")
    assert done.returncode == 0, done.stderr
    return folder / "page.html"


def _opened(browser: Any, page: Path, **how: Any) -> tuple[Any, list[str]]:
    told: list[str] = []
    tab = browser.new_context(**how).new_page()
    tab.on("console", lambda message: told.append(f"console: {message.text}"))
    tab.on("pageerror", lambda error: told.append(f"error: {error}"))
    tab.goto(page.as_uri())
    return tab, told


MOVE = """(wanted) => Object.fromEntries([...document.querySelectorAll('.slider')].map((one) => {
    const input = one.querySelector('input'), stops = one.dataset.stops.split(' ').map(Number);
    const now = stops[Number(input.dataset.at)], name = one.dataset.move;
    const to = !(name in wanted) ? now : name === 'isl' || name === 'osl' ? wanted[name] * now : wanted[name];
    const far = stops.map((stop) => Math.abs(stop - to));
    input.value = far.indexOf(Math.min(...far));
    input.dispatchEvent(new Event('input', { bubbles: true }));
    return [name, stops[Number(input.value)]];
}))"""
READ = """() => Object.fromEntries([...document.querySelectorAll('.number')].map(
    (one) => [one.dataset.moved, [Number(one.dataset.value), one.querySelector('.shown').textContent,
        one.classList.contains('over')]]))"""


def _moved_plan(plan: Path, at: Mapping[str, float]) -> Path:
    """Return a plan file with what sliders moved written into it."""
    spec = json.loads(plan.read_text())
    conditions = spec["conditions"]
    conditions["decode"]["layout"]["batch"] = int(at["batch"])
    conditions |= {"isl": int(at["isl"]), "osl": int(at["osl"]), "acceptance": [at["acceptance"]]}
    links = dict.fromkeys(("sio", "ub", "roce"), f"x{at['links']}")
    conditions["set"] = {"hbm": f"x{at['hbm']}", **links}
    spec["run"] = None
    spec["asked"] = {"ttft": 2.0}
    path = plan.with_name("moved.json")
    path.write_text(json.dumps(spec))
    return path


@pytest.mark.parametrize("wanted", PLACES)
def test_sliders_agree_with_explain(browser: Any, page: Path, wanted: dict[str, float]) -> None:
    tab, told = _opened(browser, page)
    at = tab.evaluate(MOVE, wanted)
    read = tab.evaluate(READ)
    path = _moved_plan(page.with_name("plan.json"), at)
    done = process.run("explain", str(path), "--format", "json")
    missed = read["tpot"][2] or read["memory_decode"][2]
    assert done.returncode == (3 if missed else 0), done.stderr
    facts = json.loads(done.stdout)["facts"]
    assert read["tpot"][0] == pytest.approx(facts["tpot_s"], rel=CLOSE)
    assert read["step"][0] == pytest.approx(facts["step_time_s"], rel=CLOSE)
    assert read["memory_decode"][0] == pytest.approx(facts["memory_planned_B"], rel=CLOSE)
    prefill = json.loads(process.run("explain", str(path), "--phase", "prefill", "--format", "json").stdout)["facts"]
    assert read["memory_prefill"][0] == pytest.approx(prefill["memory_planned_B"], rel=CLOSE)
    assert read["tpot"][2] == (facts["tpot_s"] > 0.05)
    assert told == []


def test_sliders_agree_with_the_page_of_the_moved_plan(browser: Any, page: Path) -> None:
    tab, told = _opened(browser, page)
    at = tab.evaluate(MOVE, PLACES[-1])
    read = tab.evaluate(READ)
    path = _moved_plan(page.with_name("plan.json"), at)
    out = path.with_name("moved.html")
    done = process.run("report", str(path), "-o", str(out), "--no-front", "--force")
    assert done.returncode == 0, done.stderr
    other, _ = _opened(browser, out)
    shown = other.evaluate(
        "Object.fromEntries([...document.querySelectorAll('.target')].map((o) => [o.dataset.name, +o.dataset.value]))"
    )
    assert read["ttft"][0] == pytest.approx(shown["ttft"], rel=CLOSE)
    assert read["tpot"][0] == pytest.approx(shown["tpot"], rel=CLOSE)
    assert read["rate"][0] == pytest.approx(shown["rate"], rel=CLOSE)
    assert told == []


def test_back_is_the_plan_and_the_page_writes_it_as_before(browser: Any, page: Path) -> None:
    tab, told = _opened(browser, page)
    before = tab.evaluate(READ)
    static = page.read_text(encoding="utf-8")
    for _, text, _ in before.values():
        assert f'<span class="shown">{text}</span>' in static  # script and Python write a number alike
    tab.evaluate(MOVE, {"batch": 20, "price": 5.0})
    moved = tab.evaluate(READ)
    assert moved["per_hour"][0] > before["per_hour"][0]
    assert moved["tpot"][0] < before["tpot"][0]
    tab.click("#back")
    assert tab.evaluate(READ) == before
    tab.focus("#move-batch")
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate(READ)["tpot"][0] > before["tpot"][0]
    assert told == []


@pytest.mark.parametrize("width", [375, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_moved_numbers_are_never_cut(browser: Any, page: Path, width: int, scheme: str) -> None:
    tab, told = _opened(browser, page, viewport={"width": width, "height": 900}, color_scheme=scheme)
    for place in ({}, {"batch": 1, "isl": 0.125, "price": 8.0}, {"batch": 340, "isl": 8.0, "osl": 8.0, "hbm": 0.5}):
        tab.evaluate(MOVE, place)
        cut = """[...document.querySelectorAll('#moving *')].filter((one) => one.scrollWidth > one.clientWidth + 1
            && one.clientWidth && getComputedStyle(one).display !== 'inline').map((one) => one.className)"""
        assert tab.evaluate(cut) == []
        assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert "NaN" not in tab.inner_text("#moving")
    tab.emulate_media(media="print")
    assert not tab.is_visible("#moving")
    assert told == []
