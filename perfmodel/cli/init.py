"""`moeplan init`: six questions -> a run-spec for `moeplan solve`."""

import sys
from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any

import typer

from perfmodel.cli import options
from perfmodel.errors import DataError, MoeplanError, UsageError
from perfmodel.planning import inputs

SERVERS = 20  # of the budget that is proposed, where the system has so many
LENGTHS, TPOT, NO_LIMIT = "4096/1024", "50ms", "none"
TEXT = """\
# What `moeplan solve {file}` is asked. Each key is an option of the same name: `moeplan solve --help`.
# Options on the command line come before keys: `moeplan solve {file} --tpot 30ms`.

model: {model}  # one of `moeplan list models`, or a file of your own
on: {on}  # one of `moeplan list systems`, or a file of your own

# A budget in cards, or requests per second to serve with the fewest cards; with both, the rate within the budget.
{cards}cards: {cards_value}
{rate}rate: {rate_value}

isl: {isl}  # input tokens of a request
osl: {osl}  # output tokens of a request
# isl_cv: 1.3  # how lengths differ: standard deviation over mean
# osl_cv: 0.8
# workload: trace.jsonl  # lengths and arrivals of real requests, in place of isl and osl
# arrival_cv: 1  # of the gaps between arrivals; by default the workload's arrivals, else 1, Poisson
# routing: round_robin  # or random, least_work: which instance takes a request

tpot: {tpot}  # limit on time per output token
{ttft}ttft: {ttft_value}  # limit on time to first token
# tpot_p50: 40ms  # limits on what 50, 90 or 99 of 100 requests stay within, on the command line --tpot p50=40ms
# tpot_p90: 50ms
# tpot_p99: 60ms
# ttft_p50: 1s
# ttft_p90: 2s
# ttft_p99: 3s
# goodput: 0.95  # least share of requests within every limit
# clients_view: true  # tell what clients see where nothing else asks for it

# objective: throughput  # or per-card, cards, cost, energy, tpot; by default throughput with cards, cards with rate
# serving: any  # the better of disaggregated, pools apart, and mixed, prefill and decode in turn on the same dies
# price: 2.5  # what a card costs an hour, in any money
# prefill_on: atlas-800i-a2  # another system for the prefill pool, with a budget, price and stack of its own:
# prefill_cards: 64
# prefill_price: 1.5
# prefill_stack: ideal
# allow_scale_out: true  # let an instance leave its supernode or server group
# utilisation: 0.8  # highest load of either pool
# precision: w8a8  # or bf16, w4a8, fp8, ...: of weights and activations, as the chip has units for
# kv: bf16  # or int8, fp8: precision of the KV cache
# acceptance: 0.9,0.36  # accepted tokens per draft position, or a name of the model's table
# stack: ideal  # software stack; by default the system's
# engine: sglang  # what schedules; without stack, the system's newest stack that has it
# kernels: [my-kernels.yaml]  # kernel sets that come before the stack's
# site: [my-run.yaml]  # rows measured where it is to run
# memory_share: 0.9  # of the memory a framework sees, which the engine takes; by default the stack's
# max_context: 128k  # tokens of context that the model takes at most; by default what its file says
# set: {{hbm: +50%}}  # numbers of a hypothetical machine
# confidence: 0.9  # least chance of meeting tpot, ttft and rate at once
# top: 5  # plans shown
# with: [mtp=1]  # techniques, see moeplan list techniques
"""


def _common() -> tuple[str, str]:
    """Return the model and the system with the most published results on file."""
    from perfmodel.files import catalog, folders

    rows = [catalog.load_evidence(name).spec.conditions for name in folders.names("evidence")]
    return Counter((row.model, row.system) for row in rows).most_common(1)[0][0]


def _budget(on: str) -> str:
    from perfmodel.files import machines

    rates = machines.load_machine(on)[0].rates()
    return str(int(min(SERVERS * rates.packages_per_server, rates.max_packages)))


def _amount(text: str) -> str:
    """Check a number of cards, or a rate with its unit."""
    if text.strip().isdigit():
        inputs.positive(int(text), "cards")
    else:
        inputs.quantity(text, "1/s", "cards or rate")
    return text.strip()


def _lengths(text: str) -> str:
    found = [part.strip() for part in text.replace("+", "/").split("/")]
    if len(found) != 2 or not all(part.isdigit() and int(part) for part in found):  # noqa: PLR2004
        raise UsageError(f"lengths: {text!r}; allowed: input and output tokens, like {LENGTHS}")
    return "/".join(found)


def _time(name: str, text: str) -> str:
    if not (name == "ttft" and text.strip().lower() == NO_LIMIT):
        inputs.quantity(text, "s", name)
    return text.strip()


def _on_file(load: Callable[[str], Any], text: str) -> str:
    load(text.strip())
    return text.strip()


def _asked(question: str, default: str, check: Callable[[str], str], ask: bool) -> str:
    """Return an answer that holds; on a terminal a wrong one is asked for again."""
    while ask:
        answer = typer.prompt(question, default=default, err=True)
        try:
            return check(str(answer))
        except MoeplanError as error:
            sys.stderr.write("".join(f"error: {line}\n" for line in str(error).splitlines()))
    return check(default)


def _answers(ask: bool) -> dict[str, str]:
    from perfmodel.files import catalog, folders, machines

    model, on = _common()
    models, systems = ", ".join(folders.names("models")), "moeplan list systems"
    found = {"model": _asked(f"Model ({models}, or a file)", model, lambda a: _on_file(catalog.load_model, a), ask)}
    found["on"] = _asked(f"System (see '{systems}', or a file)", on, lambda a: _on_file(machines.load_machine, a), ask)
    question = "Cards, or requests per second like '20 req/s'"
    amount = _asked(question, _budget(found["on"]), _amount, ask)
    found["cards" if amount.isdigit() else "rate"] = amount
    lengths = _asked("Input and output tokens of a request", LENGTHS, _lengths, ask)
    found["isl"], found["osl"] = lengths.split("/")
    found["tpot"] = _asked("Limit on time per output token", TPOT, lambda a: _time("tpot", a), ask)
    ttft = _asked("Limit on time to first token, like 2s", NO_LIMIT, lambda a: _time("ttft", a), ask)
    return found | ({} if ttft.lower() == NO_LIMIT else {"ttft": ttft})


def _text(found: dict[str, str], file: str) -> str:
    """Return the run-spec: keys without an answer stand in comments, with an example."""
    examples = {"cards": "160", "rate": "20 req/s", "ttft": "2s"}
    open_keys = {key: "" if key in found else "# " for key in examples}
    values = {f"{key}_value": found.get(key, example) for key, example in examples.items()}
    return TEXT.format(file=file, **{**found, **open_keys, **values})


def command(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to write it; '-' for stdout.")] = "run.yaml",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing, take the defaults.")] = False,
    force: options.ForceOption = False,
    format_: options.FormatOption = options.Format.table,
) -> None:
    """Write a commented run-spec for 'moeplan solve' after six questions.

    Example: moeplan init run.yaml

    Example: moeplan init --yes - | moeplan solve - --ttft 3s

    Where stdin is no terminal nothing is asked and the defaults are taken.
    """
    from perfmodel.files import runs
    from perfmodel.files.folders import from_folder_of
    from perfmodel.files.writing import target
    from perfmodel.report import terminal
    from perfmodel.report.table import Column, Document, Table

    terminal.PROGRESS.stop()  # what takes long now is the user
    to = None if file == "-" else target(file, option="FILE ('-' for stdout)", suffixes=(".yaml", ".yml"), force=force)
    found = _answers(ask=not yes and sys.stdin.isatty())
    if to is not None:  # typed from here, read from there
        found |= {key: from_folder_of(found[key], to.path) for key in ("model", "on")}
    text = _text(found, file if file != "-" else "run.yaml")
    if to is None:
        runs.check_run(text)
        terminal.write(text.rstrip("\n"))
        return
    try:
        runs.write_run(to, text)
    except DataError as error:  # an answer that YAML reads as something else
        raise UsageError(str(error)) from None
    rows = tuple({"key": key, "value": value} for key, value in found.items())
    document = Document(
        schema="moeplan.init/1",
        title=f"Wrote {file}",
        tables=(Table("Run-spec", (Column("key", "key"), Column("value", "value")), rows),),
        facts={"file": file, **found},
        notes=(f"plan it with: moeplan solve {file}",),
    )
    options.show(document, format_, [])
