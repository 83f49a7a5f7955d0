"""The file of known errors: what ``moeplan validate`` found of every published number without its source."""

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from perfmodel.errors import DataError
from perfmodel.files.folders import of_roots, root
from perfmodel.specs.known_error import KnownError

FILE = "evidence/left_out.csv"
_KEYS = [field.name for field in fields(KnownError)]
_NUMBERS = ("dies", "tokens", "context", "slow")


@of_roots
@lru_cache(maxsize=1)
def known_errors() -> tuple[KnownError, ...]:
    """Return the known errors on file.

    Raises ``DataError`` where the file is not as ``as_csv`` writes it.
    """
    path = root() / FILE
    found = []
    with path.open(encoding="utf-8", newline="") as opened:
        for line, cells in enumerate(csv.DictReader(opened), 2):
            if list(cells) != _KEYS or None in cells.values():
                raise DataError(f"{path}:{line}: keys: {', '.join(map(str, cells))}; allowed: {', '.join(_KEYS)}")
            try:
                found.append(_read(cells))
            except ValueError as error:
                raise DataError(f"{path}:{line}: {error}; allowed: a number") from None
    return tuple(found)


def _read(cells: dict[str, str]) -> KnownError:
    found: dict[str, Any] = dict(cells) | {key: float(cells[key]) for key in _NUMBERS}
    return KnownError(**found | {"inside90": cells["inside90"] == "yes"})


def as_csv(errors: Iterable[KnownError]) -> str:
    """Return the file's text: one line a number, sizes and errors to four significant digits."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_KEYS)
    for one in errors:
        cells = asdict(one)
        numbers = {key: f"{cells[key]:.4g}" for key in _NUMBERS}
        writer.writerow((cells | numbers | {"inside90": "yes" if one.inside90 else "no"}).values())
    return out.getvalue()


def path_of_file() -> Path:
    """Return where the file lies."""
    return root() / FILE
