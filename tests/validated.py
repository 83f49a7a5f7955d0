"""`moeplan validate` of all that is on file, worked out once in a run of the tests and shown in each way they ask for.

Its command is run once for each way, in one process; only what it asks `scores` for, always the same, is kept there.
"""

import fcntl
import pickle
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.update_snapshots import environment

#: name of a way -> words of its command; a language is taken once in a process, so that in Chinese comes last
WAYS = {
    "json": ("--format", "json"),
    "markdown": ("--format", "markdown"),
    "json-zh": ("--format", "json", "--lang", "zh"),
}


@dataclass(frozen=True)
class Validated:
    """What the command found, and what it printed each way."""

    scores: Any
    printed: dict[str, str]


def validated(folder: Path) -> Validated:
    """Return what the command found; the first to ask in a folder works it out, and others wait for it."""
    kept = folder / "validated"
    with (folder / "validated.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            command = [sys.executable, "-m", "tests.validated", str(folder / "being-validated")]
            root = Path(__file__).resolve().parent.parent
            done = subprocess.run(
                command, cwd=root, env=environment(COLUMNS="100"), capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            (folder / "being-validated").rename(kept)
    found: Validated = pickle.loads(kept.read_bytes())
    return found


def main(into: Path) -> None:
    """Run the command each way and write what it found and printed."""
    import io

    from perfmodel.cli.app import program
    from perfmodel.planning import scores as place
    from tests.validated import Validated  # by the name that readers know it by

    compute, found, asked = place.scores, [], []

    def scores(*words: Any) -> Any:
        rows, deployments, on_file, *rest = words
        what = [[row.name for row in rows], [one.name for one in deployments], [row.name for row in on_file], *rest]
        if not found:
            found.append(compute(*words))
            asked.append(what)
        assert asked == [what]
        return found[0]

    place.scores = scores
    printed = {}
    for name, words in WAYS.items():
        with redirect_stdout(io.StringIO()) as out:
            assert not program().main(["validate", *words], prog_name="moeplan", standalone_mode=False)
        printed[name] = out.getvalue()
    into.write_bytes(pickle.dumps(Validated(found[0], printed)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
