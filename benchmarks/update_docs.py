"""Write pages anew that the program's own output or tables make; with names of parts, these alone.

| part | writes |
|---|---|
| cli | docs/cli.md: what every command's --help prints |
| lines | in it, the table of how many lines each command prints |
| flags | docs/from-your-flags.md |
| quoted | what README.md, the tutorials and other pages quote of the program |
| public | docs/accuracy.md, docs/techniques.md; evidence/left_out.csv, how wrong each published number is predicted |
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import flags_page, lines, quoted
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
FLAGS_PAGE = DOCS / "from-your-flags.md"
PARTS = ("cli", "lines", "flags", "quoted", "public")
#: begins and ends the table of lines
LINES = "<!-- lines -->\n"
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

## Which command answers what

| question | command |
|---|---|
| Best plan for the cards I have | `moeplan solve deepseek-v3 --on atlas-800i-a2 --cards 48 --isl 1024 --osl 2048 --tpot 100ms` |
| Each limit met with a chance of 90 % | `moeplan solve ... --ttft 2s --confidence 0.9` |
| Fewest cards for a rate | `moeplan solve ... --rate 100 --ttft 3s` |
| Most per card, or the lowest TPOT at a rate | `moeplan solve ... --cards 160 --objective per-card`, `--rate 40 --objective tpot` |
| Lowest cost, with my prices an hour | `moeplan solve ... --rate 100 --objective cost --price 2.5` |
| Prefill on other servers than decode | `moeplan solve ... --cards 64 --prefill-on atlas-800i-a2 --prefill-cards 256` |
| Both phases on the same cards | `moeplan solve ... --ttft 5s --serving mixed` (`any`: the better of both) |
| Throughput per card at every TPOT | `moeplan solve ... --front` |
| Where does the time of my layout go | `moeplan explain deepseek-v3 --on cloudmatrix384 --cards 144 --shared-ranks 32 --draft 1 --overlap cores --attention-cores 16 --isl 4096 --osl 1024 --tpot 50ms` |
| The same as a tree, on the roofline, or one layer alone | `moeplan explain cm384-decode-4k-b96 --tree`, `--roofline`, `--layer moe`, `--op 'attention.*'` |
| Why is what I measured another number | `moeplan explain ... --measured tpot=120ms,ttft=1.8s` |
| Why is another layout, batch or system slower | `moeplan explain cm384-decode-4k-b96 --compare tp=4,batch=64` (or `on=SYSTEM`, a row, a plan file) |
| The same layout with a technique set | `moeplan explain cm384-decode-4k-b96 --stack cann-2026 --with w4a8`, `moeplan list techniques` |
| Which of several systems serves most a card, a server, a watt or for my money | `moeplan compare-systems deepseek-v3 --on atlas-800i-a3,cloudmatrix384 --isl 4096 --osl 1024 --tpot 50ms` (`--on all`; [every model](models.md)) |
| What differs between two plans, and what it costs | `moeplan compare cm384-decode-4k-b96 xds-colocated-decode` (or plan files) |
| Keep the plan, and look into it again | `moeplan solve ... -o plan.json`, `moeplan explain plan.json --phase prefill` |
| A page for the person who pays: offline, one file | `moeplan report plan.json -o report.html` |
| What would each technique gain me, or faster hardware | `moeplan what-if plan.json`, `moeplan what-if cm384-decode-4k-b96 --pairs` |
| What gets me to 46 ms at batch 48 | `moeplan what-if cm384-decode-4k-b96 --reach tpot=46ms,batch=48` |
| What was published for each technique, what is predicted | `moeplan gains` ([page](techniques.md), [form](../techniques/README.md)) |
| How near is it to published results | `moeplan validate` |
| How near is it to a run of mine | `moeplan validate my-run.yaml` ([form](../evidence/README.md)) |
| The same on my cluster, of which I have measured a row or two | `moeplan solve ... --site my-run.yaml` (`explain`, `what-if`, `compare`, `validate` too) |
| How near is each operator and link, alone | `moeplan accuracy` |
| Fit it to my own machine | `moeplan calibrate kernel_details.csv --on cloudmatrix384 --cold --output mine.yaml` |
| What is on file, and from where | `moeplan list`, `moeplan show cloudmatrix384` |
| What is in my trace: lengths, bursts, prefix hits | `moeplan workload trace.jsonl`, `moeplan workload trace.csv -o load.yaml` |
| What do real requests wait for on a plan: percentiles, goodput, routing, prefix caches | `moeplan replay trace.jsonl --plan plan.json --ttft p99=2s` ([closed forms beside it](service.md)) |
| Keep what I ask in a file | `moeplan init run.yaml`, `moeplan solve run.yaml` |
| Is a file of mine right | `moeplan check mine.yaml` |
| Is this installation whole | `moeplan doctor` |

`moeplan show schema document` prints the JSON Schema of results (`plan`, `run`: of these files).

## Run-specs

`moeplan init` writes a run-spec: a YAML file whose keys are the options of `solve` without their dashes, and `model`.
`moeplan solve run.yaml` reads it, `moeplan solve -` reads one from stdin. Options on the command line come before its
keys, so that one file serves a series:

    for limit in 30ms 40ms 50ms; do moeplan solve run.yaml --tpot $limit --format csv > plan-$limit.csv; done

## Completion

`moeplan --install-completion` sets up the shell it is called from (bash, zsh, fish, PowerShell); `--show-completion`
prints what it would add. Commands, options, their values and the names on file are completed.
"""  # noqa: E501
LINES_INTRODUCTION = """\
## Lines of the default output

Counted of stdout at 60, 80 and 140 columns; `--show all` prints the rest. Some 45 lines at 80 columns are aimed at, of
which an answer takes 14; `list` and `show` print all there is.
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


def kept_lines() -> str:
    """Return the table of lines as the page has it: it takes minutes to write anew."""
    return CLI_PAGE.read_text(encoding="utf-8").split(LINES)[1]


def lines_table() -> str:
    """Return the table of lines, counted anew."""
    head = f"| command | {' | '.join(f'at {width}' for width in lines.WIDTHS)} |\n|---|{'---:|' * len(lines.WIDTHS)}\n"
    return head + "\n".join(lines.rows(lines.QUESTIONS)) + "\n"


def cli_page(counted: str | None = None) -> str:
    """Return the page on the command line: what every command's help prints, and the table of lines, else as kept."""
    from perfmodel.cli.app import program

    table = kept_lines() if counted is None else counted
    parts = [
        CLI_INTRODUCTION,
        f"{LINES_INTRODUCTION}\n{LINES}{table}{LINES}",
        f"## moeplan\n\n```text\n{_help()}\n```\n",
    ]
    parts += [f"## moeplan {name}\n\n```text\n{_help(name)}\n```\n" for name in program().commands]
    return "\n".join(parts)


def known_errors_file() -> str:
    """Return the text of the file of known errors."""
    rows = rows_on_file()
    return as_csv(errors_found(scores(rows, deployments_on_file(), rows)))


def run_in(folder: Path, columns: str) -> quoted.Runs:
    """Return what runs a command of a page in its folder."""

    def printed(words: Sequence[str]) -> str:
        done = lines.started(words, columns, folder)
        return done.stderr + done.stdout

    return printed


def write_quoted() -> None:
    """Run what pages quote and write it anew; raises ``ValueError`` for a line that nothing printed is like."""
    for page in quoted.pages(DOCS.parent):
        with TemporaryDirectory() as name:
            text = quoted.rewritten(page.read_text(encoding="utf-8"), run_in(Path(name), quoted.COLUMNS))
        page.write_text(text, encoding="utf-8")


def write_public() -> None:
    """Write what needs the folder of public tables, which comes from the environment."""
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


def main() -> None:
    """Write the parts that are named, or all of them."""
    asked = sys.argv[1:] or PARTS
    if unknown := [part for part in asked if part not in PARTS]:
        sys.exit(f"error: {unknown[0]!r}; allowed: {', '.join(PARTS)}")
    if "flags" in asked:
        FLAGS_PAGE.write_text(flags_page.page(), encoding="utf-8")
    if "cli" in asked or "lines" in asked:
        CLI_PAGE.write_text(cli_page(lines_table() if "lines" in asked else None), encoding="utf-8")
    if "quoted" in asked:
        write_quoted()
    if "public" in asked:
        write_public()


if __name__ == "__main__":
    main()
