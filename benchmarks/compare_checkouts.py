"""Prove that two checkouts behave alike: python benchmarks/compare_checkouts.py OLD NEW [--jobs N] [--only TEXT].

Every command below, every command in the documents of OLD, and one or more for each name on file runs in both, in a
folder of its own and a pinned environment. Standard output and error, exit code and every file left behind must be the
same byte for byte, but for what ``VARYING`` lists. Exit code 1 where anything differs.

Both checkouts run from copies whose paths are of one length, made at the start: tables are as wide as the paths in
them, and who edits NEW meanwhile spoils nothing. Libraries are those of each checkout's ``.venv``, of which ``doctor``
tells: install the same into both. Hashes are seeded anew by every process, so that an order that hangs on them shows.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from tempfile import TemporaryDirectory

SHOWN_LINES, SHOWN_COLUMNS, PATIENCE = 12, 200, "300"  # of a difference; seconds of a command
PINNED = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"}
MEASUREMENTS = {"MOEPLAN_MEASUREMENTS": os.environ.get("MOEPLAN_MEASUREMENTS", "no-measurements")}
DOCUMENTS = ("README.md", "README.zh-CN.md", "docs/*.md", "*/README.md")
DATA = ("hardware/*/*.yaml", "models/*.yaml", "techniques/*.yaml", "evidence/*.yaml", "evidence/*/*.yaml")

#: what two runs of the same code do not share: a pattern and what stands for it
VARYING = (
    (
        r"(?m)^\d+\.\d{3} s  (?=started |read |worked out|finished)",
        "<clock> s  ",
    ),  # --verbose counts time from the start
    (r"(cold start\W+(?:found\W+)?)\d+ ms *", r"\1<clock>"),  # doctor takes the time of a start
    (r'("start_s": )[\d.e-]+', r"\1<clock>"),  # likewise in json
    (r"Calibration of \d{4}-\d\d-\d\d", "Calibration of <today>"),  # the source that calibrate -o names
)

PRODUCTS = [(m, k, n) for k, n in ((7168, 2048), (2048, 7168), (1536, 24576)) for m in (1, 8, 32, 64, 256, 1024, 4096)]
TIMED = [(m, k, n, 5 + max(m * k * n / 1.5e8, k * n / 7e5)) for m, k, n in PRODUCTS]
TABLE = "".join(f"matmul_int8,{m},{k},{n},{t / 2:.3f}\n" for m, k, n, t in TIMED)
PROFILE = "".join(f'MatMulV2,{t:.3f},"{m},{k};{k},{n}",DT_BF16;DT_BF16,"{m},{n}"\n' for m, k, n, t in TIMED)
COLUMNS, SHAPES = "operator,rows,inner,columns,time_us\n", "Input Shapes,Input Data Types,Output Shapes\n"
RUN = "model: deepseek-v3\non: cm384\ncards: 32\nisl: 1024\nosl: 512\ntpot: 50ms\n"

#: what lies in every folder before the first command
FILES: dict[str, str | bytes] = {
    "my-table.csv": COLUMNS + TABLE,
    "kernel_details.csv": f"Type,Duration(us),{SHAPES}{PROFILE}",
    "op_summary_0.csv": f"OP Type,Task Duration(us),{SHAPES}{PROFILE}",
    "asked.yaml": RUN + "kv: int8\nstack: cann-2026\nwith: [eplb=static]\nttft: 3 s\nacceptance: [0.8]\n",
    "open.yaml": "model: deepseek-v3\non: cm384\nisl: 1024\nosl: 512\n",
    "faults.yaml": "model: deepsek-v3\non: cloudmatrx384\ncards: yes\nrate: 20 req/h\nisl: -4\nosl: 512\ntpot: 50\n"
    "kv: int9\nconfidence: 90\nacceptance: {a: 1}\nkernels: nope\ntop: '5'\nttfd: 2s\n",
    "broken.yaml": "name: [unclosed\n  : {",
    "list.yaml": "- 1\n- 2\n",
    "empty.yaml": "",
    "empty.csv": "",
    "few.csv": COLUMNS + "matmul_bf16,1,7168,512,9\n",
    "wrong.csv": COLUMNS + "matmull_bf16,x,7168,512,-9\nmatmul_bf16,1,2,3,nan\n",
    "other.csv": "a,b\n1,2\n",
    "binary.yaml": b"\x00\x01\xff\xfe",
    "binary.csv": b"\xff\xfe\x00\x01\x02",
    "binary.json": b"\x89PNG\r\n\x1a\n\x00",
    "broken.json": '{"format": "moeplan.plan/1", ',
    "document.json": '{"schema": "moeplan.solution/1", "title": "x", "facts": {}, "tables": []}',
    "run.json": '{"model": "deepseek-v3", "on": "cloudmatrix384", "cards": 8}',
}

WORDS = {
    "@solve": "moeplan solve deepseek-v3 --on cloudmatrix384 --isl 4096 --osl 1024 --tpot 50ms",
    "@small": "moeplan solve deepseek-v3 --on cm384 --isl 1024 --osl 512",
    "@hand": "moeplan explain deepseek-v3 --on cloudmatrix384 --isl 4096 --osl 1024",
    "@row": "moeplan explain --evidence",
    "@views": "--format {table|markdown|csv|json} --lang {en|zh}",
    "@some": "{--lang zh|--format markdown|--format csv --lang zh|--format json}",
}

#: a command a line; one that is indented runs in the folder of the line above; {a|b} stands for a line with each
COMMANDS = r"""
# a plan, and all that can be done with it
@solve --cards 64 --ttft 3s --price 2 -o plan.json
  @solve --cards 64 --ttft 5s --serving mixed -o mixed.json
  moeplan solve plan.json --tpot 60ms -o other.json
  moeplan explain {plan|mixed}.json --phase {decode|prefill} {|--lang zh}
  moeplan explain plan.json {--formula tpot|--with mtp=0|--compare other.json|--cards 3|--phase decoding}
  moeplan compare plan.json {mixed.json @some|other.json|va-v31-2p1d-a3-752}
  moeplan what-if plan.json {@some|--reach tpot=40ms|--no-hardware --ttft 4s --only mtp,expert-tp}
  moeplan what-if mixed.json
  moeplan report {plan|mixed}.json --lang {en|zh} --force
  moeplan report {plan.json|zh.html|plan.json --no-front -o none/report.html}
  @small --cards 32 --tpot 50ms -o {plan.json|none/plan.json|plan.txt}
# plans that are none, or not what was written
@small --cards 32 --tpot 50ms --top 1 -o plan.json
  sed 's/"isl": 1024/"isl": 99/' plan.json > bad.json; moeplan {explain|solve} bad.json
  sed '2s/^/"modell": 1, /' plan.json > bad.json; moeplan {what-if|report} bad.json
  sed 's/"dies": [0-9]*/"dies": -3/' plan.json > bad.json; moeplan {explain|compare plan.json} bad.json
  sed 's/"version": "[^"]*"/"version": "0.0.1"/' plan.json > old.json; moeplan explain old.json
moeplan {explain|solve|compare cm384-decode-4k-b96|what-if|report} {document|run}.json
moeplan explain {broken|binary|missing}.json
# solve
@small --cards 32 --tpot 50ms --ttft 2s --front @some
@small --cards 32 --tpot 50ms --serving {mixed|any} --ttft 5s @some
@solve --cards 64 --prefill-on atlas-800i-a2 --prefill-cards 64 @some
@solve --cards 64 --confidence 0.9 --stack cann-2026 --kv any --with eplb=static --with amla=on @some
@small --cards 32 --tpot 50ms {--utilisation 0.5 --top 9 --stack ideal|--objective per-card --with mtp=0}
@small --cards 32 --tpot {50ms @views|1ms @some}
@small --tpot 50ms --rate 4 {|--ttft 3s --objective cost --price 2.5|--cards 32 --objective tpot} {|--format json}
moeplan solve deepseek-v3 --on atlas-800i-a3 --rate 9 --isl 2048 --osl 512 --tpot 80ms --objective energy
moeplan solve qwen3-235b-a22b --on {atlas-800i-a2|cloudmatrix384} --cards 32 --isl 2048 --osl 512 --tpot 60ms
moeplan solve {{asked|open|faults|broken|list|empty|binary|missing}.yaml|open.yaml --cards 32 --tpot 70ms --kv bf16}
moeplan solve - < asked.yaml
# explain
@hand --cards 144 --shared-ranks 32 --draft 1 --overlap cores --attention-cores 16 --tpot 50ms @views
@hand --servers 4 --tp 4 --phase prefill --overlap link --batch 2 --set cp=2 @some
@hand --dies 64 --{batch 1000|tpot 1ms|batch 32 --precision bf16 --stack ideal|batch 9 --kv int8 --stack cann-2026}
@row seed-cm384-decode {--tree|--roofline|--sources|--compare draft=0,batch=64} @some
@row {xds-disaggregated-decode|cm384-prefill-default} --layer moe @some
@row seed-cm384-decode {--op 'attention.*' --sort time|--layer head|--stack cann-2026 --with w4a8}
@row seed-cm384-decode --formula {tpot|'*dispatch*' --formula moe_layer --formula memory} @views
@row seed-prefill-16x {--formula {list|attention.core}|--tree|--roofline|--compare batch=2|--sort bound}
@row cm384-decode-4k-b96 --compare {seed-cm384-decode|on=atlas-800i-a3|tpot=40ms|kv=int8}
# the other commands
moeplan compare {cm384-decode-4k-b96 xds-colocated-decode @views|va-v31-2p1d-a3-752 va-qwen235-1p2d @some}
moeplan what-if seed-cm384-decode {--reach tpot=46ms,batch=48 @views|--pairs --only mtp,amla,c8-cache @some}
moeplan what-if seed-cm384-decode --{tpot 40ms|stack ideal|acceptance 0.9|reach tpot=1ms,batch=48}
moeplan validate {seed-cm384-decode seed-prefill-16x va-qwen235-1p2d @views|--lang zh|--stack ideal|my-run.yaml}
moeplan accuracy {cm384-table7 @some|--measurements $MOEPLAN_MEASUREMENTS --{no-held-out|format json}}
moeplan accuracy my-table.csv --on cloudmatrix384 {|--cold|--stack ideal|--kernels vllm-ascend-0.23}
moeplan calibrate {--evidence --format json|{my-table.csv --on h20|op_summary_0.csv --on cm384 --cold} @some}
moeplan calibrate my-table.csv --on cm384 --title 'a "b": {c}' --parameter start -o mine.yaml
  moeplan {show mine.yaml|accuracy my-table.csv --on cm384 --kernels mine.yaml}
moeplan calibrate $MOEPLAN_MEASUREMENTS/npu_a3_hccl_2to32die_perf.csv --on atlas-800i-a3 --messages bytes
moeplan gains {amla flashcomm1 @views|@some}
moeplan list {|{model|system|chip|stack|term|technique|microbenchmark|deployment|peer}s|kernels|evidence|system}
moeplan {list techniques|show cloudmatrix384} @views
moeplan {list|show seed-cm384-decode|show my-run.yaml|doctor} @some
moeplan show schema {document|plan|run||nothing}
moeplan init {--yes -|run.yaml --format json|run.txt|none/run.yaml|asked.yaml|--force asked.yaml}
moeplan --{version|help|show-completion|install-completion}
moeplan {-q|-v|--lang zh -q} validate ant-h20-prefill --format csv
MOEPLAN_LANG={zh|xx} @row seed-cm384-decode
FORCE_COLOR=1 NO_COLOR= COLUMNS={60|140} moeplan {solve --help|explain --evidence seed-cm384-decode}
PYTHONIOENCODING=ascii @row seed-cm384-decode {|--lang zh}
COMP_WORDS='moeplan {so|show ascend-910|list --format m}' COMP_CWORD={1|2|3} _MOEPLAN_COMPLETE=complete_bash moeplan
moeplan list systems {> /dev/full|<&-|>&-|2>&-}
# wrong: words and options
moeplan {-q|help|solv|show|solve|accuracy few.csv|compare a|list systms|show cloudmatrx384|show ascend-910c-75}
moeplan {solve a b c|solve --catds 3|solve -cards 3|solve --cards many|list --format {jsn|}|--on cm384 solve|doctor now}
@small {--tpot {50|-5ms|0ms|nan s}|--tpot 50ms --{cards -3|isl 0|top 0|price -1|utilisation 2|confidence 90}}
@small --cards 32 --tpot 50ms --{objective {cost|energie}|serving apart|kv int9|acceptance 2|stack idael|kernels none}
@small --cards 32 --tpot 50ms --with {mtp=3|mtp|amlaa=on|amla=maybe|amla=on|mtp=0 --with mtp=1}
@small --cards 32 --tpot 50ms --prefill-{cards 64|price 3|on atlas-800i-a3 {|--prefill-cards 64 --serving mixed}}
moeplan solve {deepsek-v3 --on h20|deepseek-v3 --on {cm385|empty.yaml|list.yaml}} --cards 32 --isl 9 --osl 9 --tpot 1s
@solve {--cards {8|9999}|--rate {-2|'3 req/h'}}
@hand {|--dies 512|--dies 64 --{tp 3|cards 32|phase prefill --overlap cores|precision fp8|set cpp=2|set cp=x}}
@row {sed-cm384-decode|seed-cm384-decode --{batch 3|layer meo|op attn.core|sort tim|formula nothing|with mtp=3}}
@row cm384-decode-4k-b96 --compare {tpp=4|tp=many|tp=3|seed-prefill-16x|cm384-decode-4k-b9|on=atlas|batch}
moeplan what-if {seed-cm384-decode --{only amlaa|reach {tpt=3ms|batch=3|ttft=2s|tpot=3}|tpot 1us}|missing.yaml}
moeplan {compare seed-cm384-decode {seed-prefill-16x|nothing|asked.yaml}|gains amlaa}
moeplan accuracy {nothing|my-table.csv|cm384-table7 --on cm384|--measurements no|my-table.csv cm384-table7 --on cm384}
# wrong: files
moeplan calibrate {{few|wrong|other|empty|binary|missing}.csv --on cm384 -o out.yaml|my-table.csv {|--on cm385}}
moeplan calibrate my-table.csv --on cm384 --{only matmul|parameter starts|at-least tokens=x|ep 0|output x.txt}
moeplan calibrate --evidence --stack ideal --cold
moeplan {show|validate|what-if} {broken|list|empty|binary|missing}.yaml
"""


@dataclass(frozen=True)
class Side:
    """One checkout: a copy to run from, the environment of its commands, and paths that do not count."""

    folder: Path
    environment: dict[str, str]
    hidden: dict[str, str]

    def run(self, case: Sequence[str], number: int, files: dict[str, str | bytes]) -> list[dict[str, str]]:
        """Run commands one after the other in a new folder and return all that each of them left."""
        place = self.folder / f"{number:04}"
        place.mkdir()
        for name, content in files.items():
            (place / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        found = [dict(self.left(command, place)) for command in case]
        shutil.rmtree(place)
        return found

    def left(self, command: str, place: Path) -> Iterator[tuple[str, str]]:
        """Run a command and yield the name and the text of everything that can be seen of it."""
        words, env = ["timeout", PATIENCE, "bash", "-c", command], self.environment | {"HOME": str(place)}
        done = subprocess.run(words, cwd=place, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        yield "exit code", str(done.returncode)
        for name, content in (("stdout", done.stdout), ("stderr", done.stderr)):
            yield name, self.plain(content, place)
        for path in sorted(one for one in place.rglob("*") if one.is_file()):
            yield str(path.relative_to(place)), self.plain(path.read_bytes(), place)

    def plain(self, content: bytes, place: Path) -> str:
        """Return a text without what varies; bytes that are no text are kept."""
        text = content.decode(errors="surrogateescape")
        for path, word in {str(place): "<folder>", **self.hidden}.items():
            text = text.replace(path, word)
        for pattern, word in VARYING:
            text = re.sub(pattern, word, text)
        return text


def side(checkout: Path, folder: Path) -> Side:
    """Copy a checkout, and find its program: that of its ``.venv``, or the interpreter that runs this."""
    copy, programs = folder / "checkout", checkout / ".venv" / "bin"
    shutil.copytree(checkout, copy, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    if not (programs / "moeplan").exists():
        programs = folder / "bin"
        programs.mkdir()
        (programs / "moeplan").write_text(f'#!/bin/sh\nexec {sys.executable} -m perfmodel "$@"\n')
        (programs / "moeplan").chmod(0o755)
    environment = PINNED | MEASUREMENTS | {"PATH": f"{programs}:{os.defpath}", "PYTHONPATH": str(copy)}
    return Side(folder, environment, {str(copy): "<checkout>", str(checkout): "<checkout>"})


def expanded(line: str) -> list[str]:
    """Return a line for each of its alternatives, the innermost braces first."""
    for word, text in WORDS.items():
        line = line.replace(word, text)
    if (found := re.search(r"\{([^{}]*\|[^{}]*)\}", line)) is None:
        return [line.strip()]
    each = (line[: found.start()] + one + line[found.end() :] for one in found[1].split("|"))
    return list(dict.fromkeys(text for one in each for text in expanded(one)))


def written() -> list[list[str]]:
    """Return the cases of ``COMMANDS``."""
    found: list[list[str]] = []
    for line in re.findall(r"^[^#\n].*", COMMANDS, re.MULTILINE):
        if line.startswith(" "):
            found[-1] += expanded(line)
        else:
            found += [[one] for one in expanded(line)]
    return found


def documented(root: Path, files: Sequence[str]) -> Iterator[list[str]]:
    """Yield the commands in documents: those that share files as one case, what writes a file before what reads it."""
    pages = [path.read_text(encoding="utf-8") for one in DOCUMENTS for path in sorted(root.glob(one))]
    text = re.sub(r" *\\\n *", " ", "\n".join(pages))
    lines = r"^(?: {4}| {2})?(?:[^`\n]*&& )?(?:\.venv/bin/)?((?:for .*)?moeplan [^`\n]*)$"
    code = re.findall(lines, text, re.MULTILINE)
    inline = re.findall(r"`(moeplan [^`\n]+)`", text)
    shared: list[tuple[set[str], set[str], str]] = []  # files that a line needs, and that it writes
    for line in dict.fromkeys([*code, *inline]):
        if re.search(r"\b[A-Z]{2,}\b|\.\.\.", line):  # a form, not a command
            continue
        writes = set(re.findall(r"(?:-o|--output|init|>) (\S+\.\w+)", line))
        needs = set(re.findall(r"[\w$-]+\.(?:json|yaml|csv|html)\b", line)) - writes
        if needs | writes:
            shared.append((needs - {*files}, writes, line))
        else:
            yield [line]
    known = set[str]().union(*(writes for _, writes, _ in shared))
    yield [line for needs, _, line in sorted(shared, key=lambda one: bool(one[0])) if needs <= known]


def cases_of(root: Path, files: Sequence[str]) -> list[list[str]]:
    """Return all cases, each once, the longest first."""
    names, rows, joined = (
        [path.stem for one in places for path in sorted(root.glob(one))]
        for places in (DATA, ["evidence/*.yaml"], ["evidence/deployments/*.yaml"])
    )
    commands = re.findall(r"^## (moeplan.*)", (root / "docs" / "cli.md").read_text(encoding="utf-8"), re.MULTILINE)
    single = [f"{command} --help" for command in commands]
    single += [f"moeplan show {name}" for name in names]
    single += [f"moeplan explain --evidence {name}" for name in rows]
    single += [f"moeplan {command} {name}" for name in joined for command in ("validate", "what-if --lang zh")]
    single += [f"moeplan validate {' '.join(some)}" for some in (rows[n : n + 4] for n in range(0, len(rows), 4))]
    cases = [*written(), *documented(root, files), *([one] for one in single)]
    return sorted({tuple(case): case for case in cases}.values(), key=len, reverse=True)


def differences(old: dict[str, str], new: dict[str, str]) -> Iterator[str]:
    """Yield the first lines that differ of everything that a command left."""
    for name in sorted(old.keys() | new.keys()):
        before, after = ((one[name].splitlines() if name in one else ["(absent)"]) for one in (old, new))
        if old.get(name) != new.get(name):
            found = list(unified_diff(before, after, f"old {name}", f"new {name}", n=1, lineterm=""))
            yield from found[:SHOWN_LINES] or [f"{name}: ends of lines differ"]


def main() -> int:
    """Compare, print what differs, and return the exit code."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="commands at a time")
    parser.add_argument("--only", default="", metavar="TEXT", help="only commands that hold this text")
    given = parser.parse_args()
    files = FILES | {"my-run.yaml": (given.old / "evidence" / "seed-cm384-decode.yaml").read_text(encoding="utf-8")}
    with TemporaryDirectory() as top, ThreadPoolExecutor(given.jobs) as pool:
        old, new = (side(getattr(given, name).resolve(), Path(top) / name) for name in ("old", "new"))
        cases = [case for case in cases_of(old.folder / "checkout", [*files]) if given.only in "\n".join(case)]

        def both(number: int) -> list[tuple[dict[str, str], dict[str, str]]]:
            return list(zip(*(one.run(cases[number], number, files) for one in (old, new)), strict=True))

        differ = 0
        for number, (case, pairs) in enumerate(zip(cases, pool.map(both, range(len(cases))), strict=True), 1):
            for command, pair in zip(case, pairs, strict=True):
                if lines := list(differences(*pair)):
                    differ += 1
                    text = "\n".join([command, *(f"    {line[:SHOWN_COLUMNS]}" for line in lines), ""])
                    sys.stdout.write(text.encode(errors="backslashreplace").decode())
                    sys.stdout.flush()
            if number % 50 == 0 or number == len(cases):
                sys.stderr.write(f"{number} of {len(cases)} cases\n")
    sys.stdout.write(f"{sum(map(len, cases))} commands, {differ} differ\n")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
