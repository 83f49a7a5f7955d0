"""Data files: every one reads, every number has a source, and what is refused."""

from pathlib import Path

import pytest

from perfmodel.errors import DataError, UsageError
from perfmodel.files import catalog, folders

KINDS = ("chips", "systems", "stacks", "models", "evidence")
LOAD = {
    "chips": catalog.load_chip,
    "systems": catalog.load_system,
    "stacks": catalog.load_stack,
    "models": catalog.load_model,
    "evidence": catalog.load_evidence,
}
ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(("kind", "name"), [(k, n) for k in KINDS for n in folders.names(k)])
def test_every_file_reads_and_cites(kind: str, name: str) -> None:
    loaded = LOAD[kind](name)
    assert loaded.spec.name == name
    for path, figure in loaded.figures.items():
        assert figure.source in loaded.spec.sources, path


@pytest.mark.parametrize("name", folders.names("chips"))
def test_headline_is_cube_plus_vector(name: str) -> None:
    """Except the 280 T bin, whose headline no clock on file explains (facts: unexplained, 7 %)."""
    die, headline = catalog.load_chip(name).spec.die, catalog.load_chip(name).spec.headline
    if headline is None:
        pytest.skip("its vendor's headline leaves the vector cores out")
    cube = die.cube_cores * die.cube_flop_per_cycle.bf16 * die.clock
    vector = die.vector_cores * die.vector_flop_per_cycle.fp16 * die.clock
    unexplained = 0.08 if die.clock == 1.5e9 else 0.002
    assert (cube + vector) / headline.fp16 == pytest.approx(1, abs=unexplained)


CHIP = (ROOT / "hardware/chips/ascend-910b4.yaml").read_text()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("800 GB/s", "200 Gb/s", "write '25 GB/s'"),
        ("800 GB/s", "0 GB/s", "greater than 0"),
        ("800 GB/s", "-5 GB/s", "negative"),
        ("  clock:", "  clocc:", "did you mean 'clock'"),
        ("source: catalogue}\n  vector", "source: catalog}\n  vector", "did you mean 'catalogue'"),
        ("  bandwidth: {value: 800 GB/s, source: catalogue}", "  bandwidth: 800", "bare number 800"),
        ("name: ascend-910b4\n", "name: ascend-910b4\nname: other\n", "duplicate key"),
        ("die:\n", "die: &anchor\n", "anchors"),
        ("die:\n", "die: [\n", "not YAML"),
    ],
)
def test_bad_chip_files(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert old in CHIP
    path = tmp_path / "chip.yaml"
    path.write_text(CHIP.replace(old, new, 1))
    with pytest.raises(DataError, match=expected) as caught:
        catalog.load_chip(str(path))
    assert f"{path}:" in str(caught.value)


def test_all_faults_at_once(tmp_path: Path) -> None:
    path = tmp_path / "chip.yaml"
    path.write_text(CHIP.replace("800 GB/s", "200 Gb/s").replace("1.5 GHz", "1.5 GB"))
    with pytest.raises(DataError) as caught:
        catalog.load_chip(str(path))
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe", b"- a\n- b\n", b"just text\n"])
def test_empty_binary_and_shapeless_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "chip.yaml"
    path.write_bytes(content)
    with pytest.raises(DataError):
        catalog.load_chip(str(path))


def test_names_aliases_and_families() -> None:
    assert catalog.load_model("DeepSeek-R1").spec.name == "deepseek-v3"
    assert catalog.load_system("cm384").spec.name == "cloudmatrix384"
    ambiguous = catalog.load_system("atlas-800i-a2")
    assert ambiguous.spec.name == "atlas-800i-a2-64gb-hccs"
    assert "atlas-800i-a2-32gb-pcie" in ambiguous.notes[0]
    with pytest.raises(UsageError, match="did you mean 'cloudmatrix384'"):
        catalog.load_system("cloudmatrx384")
