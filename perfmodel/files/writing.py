"""Files written whole or not at all, where they may be written, each by one way."""

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from platform import node
from tempfile import TemporaryDirectory
from typing import Any
from zlib import crc32

import yaml

from perfmodel.errors import UsageError
from perfmodel.files.catalog import check_path


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A path that a command is to write, checked before the work: see ``target``."""

    path: Path
    #: whether a file that is there may be replaced
    force: bool

    def write(self, text: str) -> None:
        """Write a text whole or not at all; raise ``UsageError`` where that cannot be, or the path was taken since."""
        if self.force:
            write_whole(self.path, text)
        else:
            _put(self.path, text, replace=False)


def target(word: str, *, option: str, suffixes: Sequence[str], force: bool) -> Target:
    """Return where a command writes; nothing is written yet.

    Raises ``UsageError`` where the word is no file name with one of the suffixes, its folder is not there or not
    writable, or where something is there that may not be replaced.
    """
    ends = " or ".join(suffixes)
    path = Path(word)
    if not word or "\0" in word or word.endswith(("/", os.sep)) or path.name in ("", ".", "..") or _is_folder(path):
        raise UsageError(f"{option}: {word!r} is no file; allowed: a file name that ends in {ends}")
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"{option}: {word!r}; allowed: a file name that ends in {ends}")
    try:
        real = path.resolve()
        there, folder = real.exists(), real.parent.is_dir()
    except (OSError, RuntimeError) as error:  # a name that is too long, links in a circle
        raise UsageError(f"{path}: cannot be written: {getattr(error, 'strerror', error)}; check the path") from None
    if not folder:
        raise UsageError(
            f"{path}: cannot be written: there is no folder {path.parent}; make it first, or check the path"
        )
    if there and not real.is_file():
        raise _irregular(path)
    if there and not force:
        raise _taken(path)
    if not os.access(real.parent, os.W_OK | os.X_OK):
        raise UsageError(f"{path}: cannot be written: no right to write in {path.parent}; check the path")
    return Target(path=path, force=force)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long
        return False


def _irregular(path: Path) -> UsageError:
    return UsageError(f"{path}: is no regular file; allowed: a new name, or a file")


def _taken(path: Path) -> UsageError:
    return UsageError(f"{path}: is there already; allowed: a new name; give another, or --force to replace it")


def write_whole(path: Path, text: str) -> None:
    """Write a text whole or not at all, in place of what is there; raise ``UsageError`` where it cannot be written.

    Whoever reads meanwhile finds the old file or the new one; several writers at once leave the text of one of them.
    A link stays a link, a file keeps its mode.
    """
    _put(path, text, replace=True)


def _put(path: Path, text: str, *, replace: bool) -> None:
    try:
        real = path.resolve()
        if real.exists() and not real.is_file():
            raise _irregular(path)
        beside = _beside(real, text)
        try:
            if replace:
                with suppress(FileNotFoundError):
                    beside.chmod(real.stat().st_mode & 0o7777)
                beside.replace(real)
            else:
                _link(beside, real)
        finally:
            beside.unlink(missing_ok=True)
        _sweep(real)
    except FileExistsError:
        raise _taken(path) from None
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"{path}: cannot be written: {getattr(error, 'strerror', error)}; check the path") from None


def _beside(real: Path, text: str) -> Path:
    """Return a new file of this process alone, in the folder of another and on the disk, with a text in it."""
    beside = real.with_name(f".{real.name[:100]}.{_here()}-{os.getpid()}-{secrets.token_hex(6)}{PART}")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)  # the mode less the user's mask
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return beside


def _link(beside: Path, real: Path) -> None:
    """Give a file its name; raise ``FileExistsError`` where the name is taken."""
    try:
        os.link(beside, real)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if real.exists():
            raise FileExistsError(real) from None
        beside.replace(real)


#: ends the names of files that are not whole yet
PART = ".part"


def _sweep(real: Path) -> None:
    """Remove what writers of this file left behind that were killed."""
    for left in real.parent.glob(f".{_literal(real.name[:100])}.*{PART}"):
        machine, _, process = left.name.removesuffix(PART).rpartition(".")[2].rpartition("-")[0].partition("-")
        if machine == _here() and process.isdecimal() and not _runs(int(process)):
            with suppress(OSError):
                left.unlink(missing_ok=True)


def _here() -> str:
    """Return a short word for this machine: folders are shared, process numbers are not."""
    return f"{crc32(node().encode()):08x}"


def _literal(name: str) -> str:
    """Return a pattern that only a name itself fits."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it runs and is another user's
        return True
    return True


def write_data(kind: str, to: Target, content: dict[str, Any]) -> None:
    """Write a data file whole, after reading it back as the catalogue would, or not at all.

    Raises ``UsageError`` where the path cannot be written, ``DataError`` where the content would be refused.
    """
    text = yaml_text(content)
    with TemporaryDirectory() as folder:
        trial = Path(folder) / to.path.name
        trial.write_text(text, encoding="utf-8")
        check_path(kind, trial)
    to.write(text)


def yaml_text(content: dict[str, Any]) -> str:
    """Return YAML as the files on file are laid out: one record a line."""
    lines = []
    for key, value in content.items():
        if not isinstance(value, dict):
            lines.append(f"{key}: {_flow(value)}")
            continue
        lines.append(f"{key}:")
        for name, inner in value.items():
            if name == "fit":
                lines += ["  fit:", *(f"    {k}: {_flow(v)}" for k, v in inner.items())]
            else:
                lines.append(f"  {name}: {_flow(inner)}")
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    return text.strip().removesuffix("...").strip()
