"""Files written whole or not at all."""

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from perfmodel.errors import UsageError
from perfmodel.files.catalog import load_path


def refuse_taken(path: Path, *, force: bool) -> None:
    """Raise ``UsageError`` where a file would be replaced and ``force`` is not given."""
    if path.exists() and not force:
        raise UsageError(f"{path}: is there already; allowed: a new name; give another, or --force to replace it")


def write_page(path: Path, text: str, *, force: bool) -> None:
    """Write a page whole or not at all; raise ``UsageError`` where the path is taken or cannot be written."""
    refuse_taken(path, force=force)
    write_whole(path, text)


def write_whole(path: Path, text: str) -> None:
    """Write a text whole or not at all; raise ``UsageError`` where the path cannot be written."""
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}; check the path") from None
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def write(kind: str, path: Path, content: dict[str, Any]) -> None:
    """Write a data file whole, after reading it back as the catalogue would, or not at all.

    Raises ``UsageError`` where the path cannot be written, ``DataError`` where the content would be refused.
    """
    text = _yaml_text(content)
    with TemporaryDirectory() as folder:
        trial = Path(folder) / path.name
        trial.write_text(text, encoding="utf-8")
        load_path(kind, trial)
    write_whole(path, text)


def _yaml_text(content: dict[str, Any]) -> str:
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
