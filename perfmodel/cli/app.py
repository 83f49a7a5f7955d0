"""All commands, the one place where errors become exit codes."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from perfmodel import __version__
from perfmodel.cli import (
    accuracy,
    calibrate,
    check,
    compare,
    compare_systems,
    doctor,
    explain,
    gains,
    init,
    inspect,
    options,
    replay,
    report,
    solve,
    validate,
    workload,
)
from perfmodel.cli import what_if as what_if
from perfmodel.cli.shape import Command, Group
from perfmodel.errors import EXIT_INTERNAL, EXIT_INTERRUPTED, EXIT_USAGE, MoeplanError, printable, short

HELP = """Predict and plan the serving of very large Mixture-of-Experts models on Ascend.

Example: moeplan solve deepseek-v3 --on cloudmatrix384 --cards 160 --isl 4096 --osl 1024 --tpot 50ms

Example: moeplan explain --evidence seed-cm384-decode

Example: moeplan validate

Exit codes: 0 target met, 1 internal error, 2 usage, 3 no feasible plan or target missed, 4 bad input file,
130 interrupted.
"""

app = typer.Typer(
    cls=Group,
    help=HELP,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"moeplan {__version__}")
        raise typer.Exit


def _told(context: typer.Context, param: typer.CallbackParam, given: bool) -> bool:
    """Note --quiet or --verbose, which stand before the command or after it."""
    told = context.find_root().meta
    told[param.name] = given or told.get(param.name, False)
    return given


def _spoken(context: typer.Context, param: typer.CallbackParam, given: options.Language | None) -> Any:
    """Note --lang, which stands before the command or after it; what is typed comes before the environment."""
    if given is not None and (options.typed(context, str(param.name), "COMMANDLINE") or "lang" not in context.meta):
        context.meta["lang"] = given.value
    return given


def _with_data(context: typer.Context, param: typer.CallbackParam, given: list[str] | None) -> Any:
    """Use the folders of --data, which stands before the command or after it; without it those of before are left."""
    from perfmodel.files.folders import use

    if context.resilient_parsing:
        return given
    told = context.find_root().meta.setdefault("data", [])
    told += given or ()
    if given or context.parent is None:
        use(told)
    return given


@app.callback(help=HELP)
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", callback=_told, expose_value=False, help="No remarks on stderr.")
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", "-v", callback=_told, expose_value=False, help="Say on stderr which files are read, and when."
        ),
    ] = False,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="DIR",
            callback=_with_data,
            expose_value=False,
            help="Folder of your own data beside what is on file, with chips, systems, models, ...; may be repeated; "
            "~/.local/share/moeplan, or moeplan in $XDG_DATA_HOME, is used where it is there.",
        ),
    ] = None,
    lang: Annotated[
        options.Language | None,
        typer.Option(
            "--lang",
            callback=_spoken,
            expose_value=False,
            envvar="MOEPLAN_LANG",
            help="Language of what solve, explain, compare, compare-systems, what-if, validate, replay, report "
            "and check show, and of remarks on machines; the rest stays English.",
        ),
    ] = None,
) -> None:
    """Options before the command."""


app.command("solve")(solve.command)
app.command("explain")(explain.command)
app.command("what-if")(what_if.command)
app.command("compare")(compare.command)
app.command("compare-systems")(compare_systems.command)
app.command("report")(report.command)
app.command("gains")(gains.command)
app.command("validate")(validate.command)
app.command("accuracy")(accuracy.command)
app.command("calibrate")(calibrate.command)
app.command("workload")(workload.command)
app.command("replay")(replay.command)
app.command("check")(check.command)
app.command("list")(inspect.list_command)
app.command("show")(inspect.show_command)
app.command("init")(init.command)
app.command("doctor")(doctor.command)
for _command in app.registered_commands:
    _command.cls = Command


def program() -> Any:
    """Return the program with all its commands; --quiet and --verbose may stand after a command as well."""
    group: Any = typer.main.get_command(app)
    everywhere = [param for param in group.params if param.name in ("quiet", "verbose", "data", "lang")]
    for command in group.commands.values():
        command.params += everywhere
    return group


def _open_closed_streams() -> None:
    """Put nothing where a stream was closed for us, so that writing to it is no fault."""
    from os import devnull

    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(devnull).open(mode, encoding="utf-8"))


def _interrupted(error: BaseException | None) -> bool:
    """Return whether an error is an interruption that a library caught and told as a fault of its own.

    What is built outside of Python names it in its text alone.
    """
    while error is not None:
        if isinstance(error, KeyboardInterrupt) or str(error).rstrip(": \n").endswith(KeyboardInterrupt.__name__):
            return True
        error = error.__cause__ or error.__context__
    return False


def run() -> None:
    """Run the command line; no traceback for what a user can cause."""
    _open_closed_streams()
    try:
        code = program().main(prog_name="moeplan", standalone_mode=False)
    except MoeplanError as error:
        for line in str(error).split("\n"):
            sys.stderr.write(f"error: {printable(short(line))}\n")
        raise SystemExit(error.exit_code) from None
    except typer.TyperException as error:  # what the parser finds only after it has parsed
        text = " ".join(error.format_message().split()).rstrip(".")
        sys.stderr.write(f"error: {printable(text[:1].lower() + text[1:])}; see 'moeplan --help'\n")
        raise SystemExit(EXIT_USAGE) from None
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except typer.Abort:  # at a question, whose line is still open
        sys.stderr.write("\n")
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(0) from None
    except Exception as error:
        import os

        if not _interrupted(error):
            if os.environ.get("MOEPLAN_DEBUG"):
                raise
            found = printable(f"{type(error).__name__}: {error}")
            sys.stderr.write(f"error: internal: {found}; please report it (MOEPLAN_DEBUG=1 shows where)\n")
            raise SystemExit(EXIT_INTERNAL) from None
        code = EXIT_INTERRUPTED
    if code == EXIT_INTERRUPTED:
        sys.stderr.write("error: interrupted\n")
    raise SystemExit(code if isinstance(code, int) else 0)
