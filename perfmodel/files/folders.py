"""Where data files lie, and their names: nothing is read, so that shells can complete names at once."""

from pathlib import Path

FOLDERS = {
    "chips": "hardware/chips",
    "systems": "hardware/systems",
    "stacks": "hardware/stacks",
    "kernels": "hardware/kernels",
    "terms": "hardware/terms",
    "techniques": "techniques",
    "models": "models",
    "evidence": "evidence",
    "microbenchmarks": "evidence/microbenchmarks",
    "deployments": "evidence/deployments",
    "peers": "evidence/peers",
}


def root() -> Path:
    """Return the data folder: beside the code where installed, the checkout otherwise."""
    here = Path(__file__).resolve().parent.parent
    return here / "_data" if (here / "_data").is_dir() else here.parent


def names(kind: str) -> list[str]:
    """Return the names on file of one kind."""
    return sorted(path.stem for path in (root() / FOLDERS[kind]).glob("*.yaml"))
