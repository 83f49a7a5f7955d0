"""Write docs/cli.md, docs/accuracy.md, docs/techniques.md and evidence/left_out.csv anew.

The first is what every command's --help prints, the next two what the commands named below print, the last how wrong
each published number is predicted without its source, which answers quote.
"""

import os
import subprocess
import sys
from pathlib import Path

from perfmodel.files.known_errors import as_csv, path_of_file
from perfmodel.planning.known_errors import errors_found
from perfmodel.planning.published import deployments_on_file, rows_on_file
from perfmodel.planning.scores import scores

DOCS = Path(__file__).resolve().parent.parent / "docs"
VARIABLE = "MOEPLAN_MEASUREMENTS"
PAGES = {
    "accuracy.md": (
        ("accuracy", "--format", "markdown"),
        ("validate", "--format", "markdown"),
        ("calibrate", "--evidence", "--format", "markdown"),
    ),
    "techniques.md": (("gains", "--format", "markdown"),),
}
CLI_PAGE = DOCS / "cli.md"
CLI_INTRODUCTION = """\
# The command line

Written by `benchmarks/update_docs.py` from the commands themselves; do not edit.

## What goes where

Results go to stdout; remarks (`note: ...`), errors (`error: ...`) and progress go to stderr. Every command takes
`--format table|json|csv|markdown`: the same result, SI units in json and csv. `--quiet` keeps remarks back, `--verbose`
tells which files are read and when; both stand before the command or after it. A command that works longer than a
second says so, where stderr is a terminal, and takes the line back when it is done.

| exit code | meaning |
|---:|---|
| 0 | done, and the target is met |
| 1 | internal error, or `doctor` misses a library |
| 2 | usage: an option, a name or a combination that cannot be carried out |
| 3 | no feasible plan, or the target is missed |
| 4 | a data file or run-spec has faults; each is named as `file:line: key: what was found; what is allowed` |
| 130 | interrupted (Ctrl-C, or end of input at a question); no file is left half-written |

| variable | what it does |
|---|---|
| `NO_COLOR` | any value: no colour and no bold |
| `FORCE_COLOR` | any value but 0: colour also where the output is no terminal; `NO_COLOR` comes first |
| `TERM=dumb` | no colour, no progress |
| `COLUMNS` | width of tables and help; by default that of the terminal, 160 where output is no terminal |
| `MOEPLAN_LANG` | language of tables, markdown and the page of `report`: en or zh; `--lang` comes first |
| `MOEPLAN_MEASUREMENTS` | folder with the public tables, for `accuracy` |
| `MOEPLAN_DEBUG` | any value: an internal error shows where it came from |

On a narrow terminal, tables first leave out their spare columns, and say which; then they wrap between words, and at
last they print one block per row. No word or number is ever split.

## Run-specs

`moeplan init` writes a run-spec: a YAML file whose keys are the options of `solve` without their dashes, and `model`.
`moeplan solve run.yaml` reads it, `moeplan solve -` reads one from stdin. Options on the command line come before its
keys, so that one file serves a series:

    for limit in 30ms 40ms 50ms; do moeplan solve run.yaml --tpot $limit --format csv > plan-$limit.csv; done

## Completion

`moeplan --install-completion` sets up the shell it is called from (bash, zsh, fish, PowerShell); `--show-completion`
prints what it would add. Commands, options, their values and the names on file are completed.
"""


def _help(*words: str) -> str:
    kept = {key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "MOEPLAN_MEASUREMENTS")}
    done = subprocess.run(
        [sys.executable, "-m", "perfmodel", *words, "--help"],
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
        env=kept | {"COLUMNS": "100", "PYTHONIOENCODING": "utf-8"},
    )
    return done.stdout.rstrip()


def cli_page() -> str:
    """Return the page on the command line: what every command's help prints."""
    from perfmodel.cli.app import program

    parts = [CLI_INTRODUCTION, f"## moeplan\n\n```text\n{_help()}\n```\n"]
    parts += [f"## moeplan {name}\n\n```text\n{_help(name)}\n```\n" for name in program().commands]
    return "\n".join(parts)


def known_errors_file() -> str:
    """Return the text of the file of known errors."""
    rows = rows_on_file()
    return as_csv(errors_found(scores(rows, deployments_on_file(), rows)))


def main() -> None:
    """Run the commands and write the pages; the folder of public tables comes from the environment."""
    CLI_PAGE.write_text(cli_page(), encoding="utf-8")
    if not os.environ.get(VARIABLE):
        sys.exit(f"error: {VARIABLE} is not set; allowed: the folder with the public tables")
    for page, commands in PAGES.items():
        parts = []
        for words in commands:
            done = subprocess.run(
                [sys.executable, "-m", "perfmodel", *words], stdout=subprocess.PIPE, text=True, check=True
            )
            parts.append(done.stdout)
        (DOCS / page).write_text("\n".join(parts), encoding="utf-8")
    path_of_file().write_text(known_errors_file(), encoding="utf-8")


if __name__ == "__main__":
    main()
