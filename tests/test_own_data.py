"""--data DIR: the user's own data, found beside what is on file, as strictly read, and never between two runs."""

import json
import re
from pathlib import Path

import pytest

from perfmodel.errors import UsageError
from perfmodel.files import catalog, folders
from perfmodel.files.folders import root, use
from tests.conftest import Run

ASKED = "--cards 64 --batch 48 --isl 4096 --osl 1024"


def own(folder: Path, kind: str, name: str, of: str, where: str, change: dict[str, str]) -> Path:
    """Write an entry of the user's own: one on file by another name, without its other names."""
    text = re.sub(r"(?ms)^aliases: \[.*?\]\n", "", (root() / folders.FOLDERS[kind] / f"{of}.yaml").read_text())
    kept = [line for line in text.splitlines() if not line.startswith(("family:", "family_default:"))]
    text = "\n".join(f"name: {name}" if line.startswith("name:") else line for line in kept) + "\n"
    for before, after in change.items():
        assert before in text
        text = text.replace(before, after)
    path = folder / where / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Write a chip and a system that holds it, one in either form of folder."""
    folder = tmp_path / "own"
    chip = catalog.load_system("cloudmatrix384").spec.chip
    own(folder, "chips", "my-chip", chip, "chips", {})
    own(folder, "systems", "my-pod", "cloudmatrix384", "hardware/systems", {f"chip: {chip}": "chip: my-chip"})
    return folder


def test_own_data_is_found_beside_what_is_on_file(moeplan: Run, data: Path) -> None:
    words = ("explain", "deepseek-v3", "--on", "my-pod", *ASKED.split(), "--format", "json")
    assert moeplan(*words).returncode == 2
    before = moeplan("--data", str(data), *words)
    after = moeplan(*words, "--data", str(data))
    assert before.returncode == 0 and before.stdout == after.stdout, before.stderr
    on_file = moeplan(*[word.replace("my-pod", "cloudmatrix384") for word in words])
    assert json.loads(before.stdout)["facts"]["tpot_s"] == json.loads(on_file.stdout)["facts"]["tpot_s"]


def test_own_data_is_marked_where_it_is_listed(moeplan: Run, data: Path) -> None:
    done = moeplan("list", "systems", "--data", str(data), "--format", "json")
    rows = json.loads(done.stdout)["tables"][0]["rows"]
    assert [row["name"] for row in rows if row["whose"] == "yours"] == ["my-pod"]
    assert "yours" not in moeplan("list", "systems").stdout


def test_the_folder_of_the_users_own_is_used_where_it_is_there(moeplan: Run, data: Path, tmp_path: Path) -> None:
    home = tmp_path / "xdg"
    home.mkdir()
    data.rename(home / "moeplan")
    assert "my-pod" in moeplan("list", "systems", XDG_DATA_HOME=str(home)).stdout
    assert "my-pod" not in moeplan("list", "systems", XDG_DATA_HOME=str(tmp_path / "other")).stdout
    assert "my-pod" not in moeplan("list", "systems", XDG_DATA_HOME="xdg").stdout


def test_a_plan_of_own_data_needs_it(moeplan: Run, data: Path, tmp_path: Path) -> None:
    plan = str(tmp_path / "plan.json")
    asked = ("deepseek-v3", "--on", "my-pod", "--cards", "32", "--isl", "1024", "--osl", "256", "--tpot", "60ms")
    assert moeplan("solve", *asked, "--data", str(data), "-o", plan).returncode == 0
    assert "./own/chips/my-chip.yaml" in json.loads(Path(plan).read_text())["files"]
    assert moeplan("explain", plan, "--data", str(data)).returncode == 0
    assert moeplan("explain", plan).returncode == 4


def test_a_name_on_file_is_ambiguous_unless_it_is_the_same(moeplan: Run, data: Path) -> None:
    same = root() / "hardware" / "systems" / "cloudmatrix384.yaml"
    other = data / "hardware" / "systems" / "cloudmatrix384.yaml"
    other.write_bytes(same.read_bytes())
    assert moeplan("list", "systems", "--data", str(data)).returncode == 0
    other.write_bytes(same.read_bytes() + b"# mine\n")
    done = moeplan("list", "systems", "--data", str(data))
    assert done.returncode == 2 and "'cloudmatrix384' is ambiguous" in done.stderr and "rename" in done.stderr


def test_an_alias_on_file_is_no_name_of_ones_own(moeplan: Run, data: Path) -> None:
    alias = next(a for a in catalog.load_model("deepseek-v3").spec.aliases if "/" not in a and a == a.lower())
    own(data, "models", alias, "deepseek-v3", "models", {})
    done = moeplan("show", alias, "--data", str(data))
    assert done.returncode == 2 and "ambiguous" in done.stderr, done.stdout


def test_own_data_is_as_strict_as_that_on_file(moeplan: Run, data: Path) -> None:
    path = data / "chips" / "my-chip.yaml"
    path.write_text(path.read_text().replace("name: my-chip", "name: another"))
    done = moeplan("explain", "deepseek-v3", "--on", "my-pod", *ASKED.split(), "--data", str(data))
    assert done.returncode in (2, 4) and "another" in done.stderr and "my-chip" in done.stderr


@pytest.mark.parametrize("word", ["/nowhere", "", "\x1b[2J", "pyproject.toml", "tests"])
def test_what_is_no_folder_of_data_is_refused(moeplan: Run, word: str) -> None:
    done = moeplan("list", "--data", word)
    assert done.returncode == 2 and "--data" in done.stderr and "\x1b" not in done.stderr


def test_nothing_of_one_folder_is_known_in_another(data: Path) -> None:
    try:
        use([str(data)])
        assert catalog.load_system("my-pod").spec.chip == "my-chip" and "my-pod" in folders.names("systems")
        assert folders.own_names("systems") == ["my-pod"]
        use([])
        assert "my-pod" not in folders.names("systems")
        with pytest.raises(UsageError):
            catalog.load_system("my-pod")
    finally:
        use([])
