"""How many lines each command prints where nothing more is asked for, at widths of terminals."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

WIDTHS = (60, 80, 140)
ASKED = "deepseek-v3 --on cloudmatrix384 --isl 4096 --osl 1024 --tpot 50ms"
ROW = "cm384-decode-4k-b96"
#: run one after another in one folder
QUESTIONS = (
    f"solve {ASKED} --cards 160 --ttft 2s -o plan.json",
    f"solve {ASKED} --cards 64 --rate 20 --ttft 2s --price 2",
    f"solve {ASKED} --cards 32 --ttft 100ms",
    f"explain {ROW}",
    "explain seed-prefill-16x",
    f"explain {ROW} --measured tpot=120ms",
    f"explain {ROW} --layer moe",
    "what-if plan.json",
    f"what-if {ROW} --only amla,mtp",
    f"what-if {ROW} --reach tpot=40ms",
    f"compare {ROW} xds-colocated-decode",
    "compare-systems deepseek-v3 --on atlas-800i-a3,cloudmatrix384 --isl 4096 --osl 1024 --tpot 50ms",
    "report plan.json -o report.html",
    "gains",
    "validate",
    f"validate {ROW}",
    "accuracy",
    "replay --plan plan.json --requests 2000",
    "workload trace.csv",
    "check trace.csv",
    "list",
    "list systems",
    "show cloudmatrix384",
    "init --yes run.yaml",
    "doctor",
)
#: those that a test may run: none takes longer than a second
FAST = tuple(one for one in QUESTIONS if one.startswith((f"explain {ROW}", "compare ", "list", "show ", "check ")))
#: requests of a made-up trace
TRACE = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
    f"2024-05-10 00:00:{n // 4:02}.{n % 4 * 25:02}0000,{900 + 37 * n % 800},{120 + n}\n" for n in range(80)
)


def printed(command: str, width: int, folder: Path, run: Callable[..., "subprocess.CompletedProcess[str]"]) -> int:
    """Return the lines of stdout of a command; raises ``ValueError`` where it ends with another code than 0 or 3."""
    words = [*command.split(), *(["--force"] if command.startswith(("init", "report")) or " -o " in command else [])]
    done = run(words, str(width), folder)
    if done.returncode not in (0, 3):
        raise ValueError(f"{command}: ends with {done.returncode}: {done.stderr}")
    return len(done.stdout.splitlines())


def started(words: Sequence[str], columns: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run the program as a user does, in a terminal of so many columns."""
    kept = {key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "MOEPLAN_MEASUREMENTS")}
    env = kept | {"COLUMNS": columns, "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", "perfmodel", *words]
    return subprocess.run(command, capture_output=True, encoding="utf-8", cwd=folder, env=env)


def rows(questions: Sequence[str], run: Callable[..., "subprocess.CompletedProcess[str]"] = started) -> list[str]:
    """Return a row of the table for each question."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "trace.csv").write_text(TRACE, encoding="utf-8")
        return [
            f"| `moeplan {one}` | {' | '.join(str(printed(one, width, folder, run)) for width in WIDTHS)} |"
            for one in questions
        ]
