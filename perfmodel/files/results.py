"""Published results by name or file: rows of pools, and of whole deployments."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from perfmodel.errors import DataError, UsageError, did_you_mean
from perfmodel.files.catalog import AmbiguousError, load, load_path, named, words_of
from perfmodel.files.folders import is_path, is_there, names
from perfmodel.specs.base import Known
from perfmodel.specs.evidence import DeploymentSpec, EvidenceSpec


def _as_one_of(kinds: Sequence[str], read: Callable[[str], Known[Any] | None]) -> tuple[str, Known[Any]] | None:
    """Return what reads as one of some kinds, and the kind; None where ``read`` finds it in none of them.

    Raises ``DataError`` with the fewest faults where it is found and is of none.
    """
    faults: list[DataError] = []
    for kind in kinds:
        try:
            found = read(kind)
        except DataError as error:
            faults.append(error)
            continue
        if found is not None:
            return kind, found
    if faults:
        raise min(faults, key=lambda error: len(str(error).splitlines()))
    return None


def find(name: str, kinds: Sequence[str]) -> tuple[str, Known[Any]]:
    """Return the entry of a name or a path among kinds of data, and its kind.

    Raises ``UsageError`` where none has the name, ``DataError`` with the fewest faults where a file is of none.
    """

    def read(kind: str) -> Known[Any] | None:
        try:
            return load(kind, name) if is_path(name) or is_there(Path(name)) else named(kind, name)
        except AmbiguousError:
            raise
        except UsageError:
            return None

    found = _as_one_of(kinds, read)
    if found is None:
        known, listed = ([word for kind in kinds for word in of(kind)] for of in (words_of, names))
        raise UsageError(f"{name!r} is not on file{did_you_mean(name, known, listed)}")
    return found


def load_results(words: Sequence[str]) -> tuple[list[EvidenceSpec], list[DeploymentSpec]]:
    """Return published results by name or file, of pools and of deployments.

    A word that ends in .yaml or is a path that exists is read as a file, as whichever kind it has the fewest
    faults as.  Raises ``UsageError`` for a name not on file, ``DataError`` for a file with faults.
    """
    pools: list[EvidenceSpec] = []
    deployments: list[DeploymentSpec] = []
    known = dict.fromkeys(names("evidence"), "evidence") | dict.fromkeys(names("deployments"), "deployments")
    for word in words:
        if word.lower().endswith((".yaml", ".yml")) or (word.lower() not in known and is_there(Path(word))):
            spec = in_file(Path(word), ("evidence", "deployments"))[1].spec
        elif word.lower() in known:
            spec = load(known[word.lower()], word.lower()).spec
        else:
            raise UsageError(f"evidence: {word!r} is not on file{did_you_mean(word, sorted(known))}")
        if isinstance(spec, DeploymentSpec):
            deployments.append(spec)
        else:
            pools.append(spec)
    return pools, deployments


def in_file(path: Path, kinds: Sequence[str]) -> tuple[str, Known[Any]]:
    """Return what is in a file, as whichever of some kinds it has the fewest faults as, and the kind.

    Raises ``UsageError`` where it cannot be read, ``DataError`` with the fewest faults where it is of none.
    """
    found = _as_one_of(kinds, partial(load_path, path=path))
    assert found is not None, "a file is read or raises"
    return found
