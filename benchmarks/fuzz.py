"""Give every reader hostile input for a long time: python benchmarks/fuzz.py --inputs 1000 --seed 1 [--reader NAME].

Files on file, runs, plans, tables and argument lists are changed at random as ``tests/hostile.py`` does, as many inputs
of each reader as ``--inputs`` says. Each is to be taken, or refused as a user's mistake, in 5 s and 1.5 GB; all else is
a fault. Prints a table of markdown: inputs, how many of them were taken, faults, the slowest input and the largest
worker. Exit code 1 where there was a fault. ``--keep FOLDER`` saves the input of each fault, and what happened.
"""

import argparse
import logging
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # each thread takes address space
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the checkout that this file stands in

SECONDS, ADDRESSES = 5.0, 1_500_000_000
STUCK = 600.0  # of a worker that does not come back from its alarm, by the clock: a busy machine may keep it waiting
CHUNK = 500  # inputs of one worker process
COLUMNS = ("reader", "inputs", "taken", "faults", "slowest, s", "largest worker, MB", "commit")


class TooLong(BaseException):
    """An input took longer than it may."""


@dataclass(slots=True)
class Score:
    """What became of the inputs of one reader."""

    inputs: int = 0
    taken: int = 0
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0
    largest: float = 0.0  # bytes that a worker had resident at most


def _alarm(*_: Any) -> None:
    raise TooLong(f"over {SECONDS:g} s")


def text_of(reader: str, seed: int, number: int) -> bytes:
    """Return one input, the same whenever it is asked for."""
    from tests import hostile

    return hostile.made(reader, random.Random(f"{seed}/{reader}/{number}"))


def work(reader: str, seed: int, first: int, last: int, folder: Path, to: Connection) -> None:
    """Give inputs to a reader in a process of its own; send the number of each, then what became of it."""
    from tests import hostile

    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, _alarm)
    sys.stdin = Path(os.devnull).open(encoding="utf-8")
    logging.disable(logging.INFO)  # remarks on what is taken
    for number in range(first, last):
        to.send((number, None))
        path = hostile.put(folder, reader, number, text_of(reader, seed, number))
        taken, fault, start = False, "", time.process_time()
        try:
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            taken = hostile.taken(reader, path)
        except (Exception, TooLong) as error:
            fault = f"{type(error).__name__}: {str(error)[:300]}\n{traceback.format_exc()[-4000:]}"
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        spent = time.process_time() - start
        path.unlink(missing_ok=True)
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        to.send((number, (taken, fault, spent, resident)))
    to.close()


def campaign(reader: str, seed: int, inputs: int, keep: Path | None) -> Score:
    """Give a reader its inputs, a worker after the other."""
    score = Score()
    number = 0
    while number < inputs:
        last = min(inputs, number + CHUNK)
        here, there = multiprocessing.Pipe(duplex=False)
        with TemporaryDirectory() as folder:
            worker = multiprocessing.Process(target=work, args=(reader, seed, number, last, Path(folder), there))
            worker.start()
            there.close()
            told: tuple[bool, str, float, float] | None
            begun = number
            try:
                while here.poll(STUCK):
                    begun, told = here.recv()
                    if told is not None:
                        number = begun + 1
                        note(score, reader, seed, begun, told, keep)
                worker.kill()
                note(score, reader, seed, begun, (False, "stuck: does not come back", STUCK, 0.0), keep)
                number = begun + 1
            except EOFError:
                if number < last:  # it died
                    worker.join()
                    fault = f"died: exit code {worker.exitcode}"
                    note(score, reader, seed, begun, (False, fault, 0.0, 0.0), keep)
                    number = begun + 1
            worker.join()
    return score


def note(
    score: Score, reader: str, seed: int, number: int, told: tuple[bool, str, float, float], keep: Path | None
) -> None:
    """Add what became of one input to the score of its reader; keep the input of a fault."""
    from tests import hostile

    taken, fault, spent, resident = told
    score.inputs += 1
    score.taken += taken
    score.slowest, score.largest = max(score.slowest, spent), max(score.largest, resident)
    if not fault:
        return
    score.faults.append(fault.split("\n")[0])
    sys.stderr.write(f"{reader} {number}: {score.faults[-1]}\n")
    if keep is not None:
        name = f"{reader.replace(' ', '-')}-{seed}-{number}"
        (keep / f"{name}{hostile.READERS[reader].ends}").write_bytes(text_of(reader, seed, number))
        (keep / f"{name}.txt").write_text(fault)


def _one(words: tuple[str, int, int, Path | None]) -> tuple[str, Score]:
    score = campaign(*words)
    sys.stderr.write(f"{words[0]}: {score.inputs} inputs, {len(score.faults)} faults\n")
    return words[0], score


def main() -> int:
    """Run the campaign and print its table."""
    from concurrent.futures import ThreadPoolExecutor

    from benchmarks import pages
    from tests import hostile

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--inputs", type=int, default=1000, help="of each reader; default: 1000")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--reader", choices=sorted(hostile.READERS), action="append", help="may be repeated")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="readers at a time")
    parser.add_argument("--keep", type=Path, help="folder for inputs of faults")
    parser.add_argument("--into", type=Path, help="page whose table takes the rows too, such as docs/trust.md")
    asked = parser.parse_args()
    if asked.into is not None:
        pages.check(asked.into, "campaign")
    if asked.keep is not None:
        asked.keep.mkdir(parents=True, exist_ok=True)
    readers = asked.reader or list(hostile.READERS)
    hostile.plan_files()  # once, for all workers, and all modules are loaded before there are threads
    hostile.command(("validate", "seed-cm384-decode"))
    hostile.command(("explain", "--evidence", "seed-cm384-decode"))
    hostile.command(("show", "deepseek-v3"))
    with ThreadPoolExecutor(asked.jobs) as pool:
        scores = list(pool.map(_one, [(reader, asked.seed, asked.inputs, asked.keep) for reader in readers]))
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    rows = []
    for reader, score in scores:
        figures = (f"{score.inputs:,}", f"{score.taken:,}", str(len(score.faults)))
        rows.append(
            (reader, *figures, f"{score.slowest:.2f}", f"{score.largest / 1e6:.0f}", commit.stdout.strip() or "-")
        )
    sys.stdout.write(pages.table(COLUMNS, rows) + "\n")
    if asked.into is not None:
        pages.keep(asked.into, "campaign", COLUMNS, rows)
    return 1 if any(score.faults for _, score in scores) else 0


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    sys.exit(main())
