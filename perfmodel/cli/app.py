"""All commands, the one place where errors become exit codes."""

import sys
from typing import Annotated

import typer

from perfmodel import __version__
from perfmodel.cli import accuracy, calibrate, explain, gains, inspect, solve, validate, what_if
from perfmodel.errors import EXIT_INTERNAL, EXIT_USAGE, MoeplanError

HELP = """Predict and plan the serving of very large Mixture-of-Experts models on Ascend.

Examples:

  moeplan solve deepseek-v3 --on cloudmatrix384 --cards 160 --isl 4096 --osl 1024 --tpot 50ms

  moeplan explain --evidence seed-cm384-decode

  moeplan validate

Exit codes: 0 target met, 1 internal error, 2 usage, 3 no feasible plan or target missed, 4 bad input file.
"""

app = typer.Typer(
    help=HELP, no_args_is_help=True, add_completion=True, rich_markup_mode=None, pretty_exceptions_enable=False
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"moeplan {__version__}")
        raise typer.Exit


@app.callback(help=HELP)
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options before the command."""


app.command("solve")(solve.command)
app.command("explain")(explain.command)
app.command("what-if")(what_if.command)
app.command("gains")(gains.command)
app.command("validate")(validate.command)
app.command("accuracy")(accuracy.command)
app.command("calibrate")(calibrate.command)
app.command("list")(inspect.list_command)
app.command("show")(inspect.show_command)


def run() -> None:
    """Run the command line; no traceback for what a user can cause."""
    try:
        app()
    except MoeplanError as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"error: {line}\n")
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        raise SystemExit(EXIT_USAGE) from None
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(0) from None
    except Exception as error:
        import os

        if os.environ.get("MOEPLAN_DEBUG"):
            raise
        sys.stderr.write(
            f"error: internal: {type(error).__name__}: {error}; please report it (MOEPLAN_DEBUG=1 shows where)\n"
        )
        raise SystemExit(EXIT_INTERNAL) from None
