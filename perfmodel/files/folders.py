"""Where data files lie, and their names: nothing is read, so that shells can complete names at once."""

import os
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Protocol, TypeVar

from perfmodel.errors import UsageError, printable

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


class _Cache(Protocol):
    def cache_clear(self) -> None: ...


C = TypeVar("C", bound=_Cache)
_CACHES: list[_Cache] = []
_OWN: list[Path] = []  # folders of the user's own data, beside the root


def of_roots(cache: C) -> C:
    """Return a cache that is emptied when other folders of data are used."""
    _CACHES.append(cache)
    return cache


def own_root() -> Path | None:
    """Return the folder of data of the user's own that is used without being asked for, where it is there."""
    base = Path(os.environ.get("XDG_DATA_HOME") or ".")
    with suppress(RuntimeError):  # no home
        found = (base if base.is_absolute() else Path.home() / ".local" / "share") / "moeplan"
        return found if is_there(found) and _folders_in(found) else None
    return None


def use(given: Iterable[str]) -> None:
    """Use folders of the user's own data beside what is on file, and the user's own folder of data where it is there.

    Raises ``UsageError`` for a folder that holds no data, or a name that is on file with another content.
    """
    chosen = [path for path in [own_root()] if path is not None]
    for word in given:
        path = Path(word).absolute()
        if not word or not _folders_in(path):
            found = "no folder" if not word or not path.is_dir() else "holds no folder of data"
            raise UsageError(
                f"--data: {printable(word)}: {found}; allowed: a folder that holds one or more of "
                f"{', '.join(Path(folder).name for folder in FOLDERS.values())}; check the path"
            )
        chosen.append(path)
    chosen = [path for path in dict.fromkeys(chosen) if path.resolve() != root()]
    if chosen == _OWN:
        return
    _OWN[:] = chosen
    for cache in _CACHES:
        cache.cache_clear()
    try:
        for kind in FOLDERS:
            entries(kind)
    except UsageError:
        _OWN.clear()
        raise


def _homes(base: Path, kind: str) -> list[Path]:
    """Return where entries of a kind lie in a folder of the user's: hardware/chips, or chips alone."""
    return list(dict.fromkeys((base / FOLDERS[kind], base / Path(FOLDERS[kind]).name)))


def _folders_in(base: Path) -> bool:
    return any(is_there(home) and home.is_dir() for kind in FOLDERS for home in _homes(base, kind))


def entries(kind: str) -> dict[str, Path]:
    """Return the files of one kind by name: those on file, and the user's own.

    Raises ``UsageError`` for a name that two of them have with different content.
    """
    found = {path.stem: path for path in (root() / FOLDERS[kind]).glob("*.yaml")}
    if not _OWN:
        return found
    from perfmodel.files.document import content  # names alone are completed without it

    for path in (path for base in _OWN for home in _homes(base, kind) for path in sorted(home.glob("*.yaml"))):
        other = found.setdefault(path.stem, path)
        if other != path and content(other) != content(path):
            raise UsageError(
                f"{printable(str(path))}: {path.stem!r} is ambiguous: {printable(str(other))} has that name and other "
                "content; allowed: names of your own; rename the file and its name"
            )
    return found


def names(kind: str) -> list[str]:
    """Return the names on file of one kind, the user's own among them."""
    return sorted(entries(kind))


def own_names(kind: str) -> list[str]:
    """Return the names of one kind in the user's own data alone."""
    return sorted(name for name, path in entries(kind).items() if is_own(path)) if _OWN else []


def is_own(path: Path) -> bool:
    """Return whether a path is that of an entry of the user's own data."""
    return any(path.parent == home for base in _OWN for kind in FOLDERS for home in _homes(base, kind))


def is_there(path: Path) -> bool:
    """Return whether there is something at a path; nothing is where a path cannot be."""
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, a zero byte
        return False


def is_folder(path: Path) -> bool:
    """Return whether there is a folder at a path."""
    return is_there(path) and path.is_dir()


def is_path(name: str) -> bool:
    """Return whether a name is the path of a file of the user's."""
    return name.endswith((".yaml", ".yml")) or "/" in name


def is_on_file(kind: str, path: Path) -> bool:
    """Return whether a path is that of an entry on file, which may itself be a link to where it is kept."""
    homes = [root() / FOLDERS[kind], *(home for base in _OWN for home in _homes(base, kind))]
    return path.absolute().parent in homes


@lru_cache(maxsize=4)
def _folders_below(base: Path) -> frozenset[Path]:
    return frozenset(base / folder for folder in FOLDERS.values())


def is_kept(path: Path) -> bool:
    """Return whether a path is that of an entry on file of any kind, as names on file are found."""
    return is_shipped(path) or is_own(path)


def is_shipped(path: Path) -> bool:
    """Return whether a path is that of an entry that comes with the program."""
    return path.parent in _folders_below(root())


def is_near(path: Path, beside: Path) -> bool:
    """Return whether a path, links resolved, lies below the data's root or in the folder of the file that names it.

    What a stranger's file names elsewhere is none of its business.
    """
    try:
        real, folder = path.resolve(), beside.resolve().parent
    except (OSError, RuntimeError, ValueError):
        return False
    return any(real.is_relative_to(one) for one in (root(), folder, *(base.resolve() for base in _OWN)))


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
    if is_shipped(path):
        return str(path.relative_to(root()))
    return str(path) if path.is_absolute() else f"./{path}"


def path_of(file: str) -> Path:
    """Return the path of a file that a plan names."""
    return Path(file) if file.startswith(("/", "./")) else root() / file
