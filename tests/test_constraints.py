"""The packages that are tested are those that pyproject.toml asks for."""

import tomllib
from pathlib import Path

from packaging.utils import canonicalize_name

from tests.update_constraints import LOWEST, OLDEST, TESTED, asked, lowest, pins

ROOT = Path(__file__).resolve().parent.parent


def test_the_lowest_set_is_the_floors() -> None:
    assert LOWEST.read_text(encoding="utf-8") == lowest()


def test_the_tested_set_holds_all_that_is_asked_for() -> None:
    tested = pins(TESTED.read_text(encoding="utf-8"))
    wrong = [str(one) for one in asked() if not one.specifier.contains(tested.get(canonicalize_name(one.name), "0"))]
    assert wrong == []


def test_the_oldest_python_is_the_one_required() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == f">={OLDEST}"
    pythons = [line.split(" :: ")[-1] for line in project["classifiers"] if line.startswith("Programming Language")]
    assert pythons[0] == OLDEST
    for page in ("README.md", "README.zh-CN.md", "CONTRIBUTING.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert f"Python {OLDEST}" in text and pythons[-1] in text, page
