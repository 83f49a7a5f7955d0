"""Where data files lie, and their names: nothing is read, so that shells can complete names at once."""

from functools import lru_cache
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


@lru_cache(maxsize=1)
def root() -> Path:
    """Return the data folder: beside the code where installed, the checkout otherwise."""
    here = Path(__file__).resolve().parent.parent
    return here / "_data" if (here / "_data").is_dir() else here.parent


def names(kind: str) -> list[str]:
    """Return the names on file of one kind."""
    return sorted(path.stem for path in (root() / FOLDERS[kind]).glob("*.yaml"))


def is_there(path: Path) -> bool:
    """Return whether there is something at a path; nothing is where a path cannot be."""
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, a zero byte
        return False


def is_path(name: str) -> bool:
    """Return whether a name is the path of a file of the user's."""
    return name.endswith((".yaml", ".yml")) or "/" in name


def is_on_file(kind: str, path: Path) -> bool:
    """Return whether a path is that of an entry on file, which may itself be a link to where it is kept."""
    return path.absolute().parent == root() / FOLDERS[kind]


@lru_cache(maxsize=1)
def _kept() -> frozenset[Path]:
    return frozenset(root() / folder for folder in FOLDERS.values())


def is_kept(path: Path) -> bool:
    """Return whether a path is that of an entry on file of any kind, as names on file are found."""
    return path.parent in _kept()


def is_near(path: Path, beside: Path) -> bool:
    """Return whether a path, links resolved, lies below the data's root or in the folder of the file that names it.

    What a stranger's file names elsewhere is none of its business.
    """
    try:
        real, folder = path.resolve(), beside.resolve().parent
    except (OSError, RuntimeError, ValueError):
        return False
    return real.is_relative_to(root()) or real.is_relative_to(folder)


def from_here(name: str, beside: Path) -> str:
    """Return the path from the current directory of a file that another one names, a name on file as it is.

    A relative path is relative to the folder of the file that names it, a link followed: to where ``is_near`` looks.
    """
    if not is_path(name) or Path(name).is_absolute():
        return name
    return as_path((beside.resolve() if beside.is_symlink() else beside).parent / name)


def from_folder_of(name: str, beside: Path) -> str:
    """Return what a file is to call another one that was named from the current directory: undone by ``from_here``.

    What stands elsewhere than in its folder or below it has its whole path.
    """
    if not is_path(name):
        return name
    path, folder = Path(name), beside.resolve().parent
    real = path.parent.resolve() / path.name
    return f"./{real.relative_to(folder)}" if real.is_relative_to(folder) else str(path.absolute())


def as_path(path: Path) -> str:
    """Return the text of a path that no name on file can be taken for."""
    text = str(path)
    return text if is_path(text) else f"./{text}"


def file_name(path: Path) -> str:
    """Return what a plan calls a file: its path below the data's root, a file of the user's by its path as given."""
    if is_kept(path):
        return str(path.relative_to(root()))
    return str(path) if path.is_absolute() else f"./{path}"


def path_of(file: str) -> Path:
    """Return the path of a file that a plan names."""
    return Path(file) if file.startswith(("/", "./")) else root() / file
