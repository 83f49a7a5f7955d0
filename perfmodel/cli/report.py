"""`moeplan report`: a plan as one page of HTML."""

from typing import Annotated, Any

import typer

from perfmodel.cli import options
from perfmodel.errors import UsageError


def command(
    plan: Annotated[str, typer.Argument(metavar="PLAN.json", help="Plan file, as solve -o writes it.")],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="REPORT.html", help="Where the page goes.")
    ] = "report.html",
    front: Annotated[
        bool,
        typer.Option("--front/--no-front", help="Search for the front of throughput over TPOT; takes some seconds."),
    ] = True,
    title: Annotated[
        str, typer.Option("--title", metavar="TEXT", help="What the plan is for, such as a site; told above it.")
    ] = "",
    date: Annotated[
        str,
        typer.Option(
            "--date",
            metavar="YYYY-MM-DD",
            help="Day that the page is of; default: when the plan file was last changed.",
        ),
    ] = "",
    force: options.ForceOption = False,
) -> None:
    """Write a plan as one page of HTML that needs no network: targets, drawing, plots, every input.

    Example: moeplan report plan.json -o report.html
    """
    from pathlib import Path

    from perfmodel.files import pages
    from perfmodel.files.writing import target
    from perfmodel.planning.named_run import named_run
    from perfmodel.planning.page_content import page_content
    from perfmodel.report.html.page import Parts, page
    from perfmodel.report.terminal import VOICE

    if not plan.lower().endswith(".json"):
        raise UsageError(
            f"{plan!r}; allowed: a plan file that ends in .json; moeplan solve ... -o plan.json writes one"
        )
    if date:
        _refuse_no_day(date)
    to = target(output, option="--output", suffixes=(".html", ".htm"), force=force)
    given = named_run(plan)
    assert given.plan is not None, "a file that ends in .json is a plan"
    text = page(
        page_content(given.plan, given.run, front=front),
        Parts(**pages.page_files(VOICE.language), shared=VOICE.say),
        file=Path(plan).name,
        date=date or pages.day_of(plan),
        title=title,
        commands=commands_of(plan, given.plan),
        remarks=given.remarks,
    )
    to.write(text)
    options.remark(f"{output}: written, {len(text.encode()) / 1e6:.1f} MB; open it in a browser")


def _refuse_no_day(text: str) -> None:
    from datetime import date

    try:
        date.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--date: {text!r}; allowed: a day as YYYY-MM-DD; write --date 2026-11-30") from None


def commands_of(file: str, spec: Any) -> list[tuple[str, str]]:
    """Return the command that made a plan, and those that look further into it, each with the key of what it is for."""
    from shlex import join

    mixed = spec.conditions.mixed
    lines = {
        "made": [] if spec.run is None else _solving(spec.run),
        "decode": ["explain", file],
        "prefill": ["explain", file, "--phase", "prefill"],
        "formula": ["explain", file, "--formula", "tpot"],
        "what_if": [] if mixed else ["what-if", file, "--pairs"],
        "again": [] if spec.run is None else ["solve", file, "--tpot", "30ms", "-o", "other.json"],
        "compare": ["compare", file, "other.json"],
    }
    return [(name, join(["moeplan", *words])) for name, words in lines.items() if words]


def _solving(run: Any) -> list[str]:
    """Return the words of the search that a run-spec stands for; options at their defaults are left out."""
    from inspect import signature

    from perfmodel.cli import solve
    from perfmodel.specs.run import PERCENTILES, WAITS

    waits = {wait: (wait, "") for wait in WAITS}
    waits |= {f"{wait}_{word}": (wait, f"{word}=") for wait in WAITS for word in PERCENTILES}
    defaults = {name: one.default for name, one in signature(solve.command).parameters.items()}
    words = ["solve", str(run.model)]
    for name in type(run).model_fields:
        value = getattr(run, name)
        if name == "model" or value is None or value == defaults.get(name):
            continue
        if name in waits:
            wait, before = waits[name]
            words += [f"--{wait}", before + _time(value)]
            continue
        option = "--" + name.strip("_").replace("_", "-")
        if value is True:
            words.append(option)
            continue
        if isinstance(value, dict):
            value = tuple(f"{key}={one}" for key, one in value.items())
        for one in value if isinstance(value, tuple) else (value,):
            words += [option, f"{one}".removesuffix(".0")]
    return words


def _time(seconds: float) -> str:
    """Return a time as a user writes it, all digits kept.

    >>> _time(0.05), _time(2.0)
    ('50ms', '2s')
    """
    short = f"{seconds:g}s" if seconds >= 1 else f"{seconds * 1e3:g}ms"
    kept = float(short.rstrip("ms")) * (1 if seconds >= 1 else 1e-3)
    return short if abs(kept / seconds - 1) < 1e-15 else f"{seconds!r}s"
