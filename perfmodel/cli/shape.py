"""How every command looks from outside: help that leads with examples, and refusals of one line."""

import inspect
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from sys import stdout
from time import monotonic
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from perfmodel.errors import EXIT_USAGE, UsageError, did_you_mean

START = monotonic()
LINES = (40, 100)  # narrowest and widest help, in columns
NAMES = 30  # columns that names of options may take beside their help
_EXAMPLE = "Example:"
_WORD = re.compile(r"'[^']*'|\"[^\"]*\"|\S+")


def parts(text: str) -> tuple[str, list[str], list[str]]:
    """Return the first paragraph of a docstring, its examples and its other paragraphs.

    >>> parts('Does it.\\n\\nExample: moeplan do\\n\\nTwice.')
    ('Does it.', ['moeplan do'], ['Twice.'])
    """
    first, *others = [" ".join(part.split()) for part in inspect.cleandoc(text).split("\n\n") if part.strip()] or [""]
    examples = [part.removeprefix(_EXAMPLE).strip() for part in others if part.startswith(_EXAMPLE)]
    return first, examples, [part for part in others if not part.startswith(_EXAMPLE)]


def _copyable(example: str, width: int) -> list[str]:
    """Return a command on lines that a shell joins again."""
    lines = [""]
    for word in _WORD.findall(example):
        if lines[-1] and len(f"{lines[-1]} {word} \\") > width:
            lines[-1] += " \\"
            lines.append("    " + word)
        else:
            lines[-1] += f" {word}" if lines[-1] else word
    return lines


class _Page:
    """Lines of help under headings, wrapped between words."""

    def __init__(self, bold: bool) -> None:
        from perfmodel.report.wrap import wrap

        self.wrap: Callable[..., list[str]] = wrap
        self.width = min(max(shutil.get_terminal_size().columns, LINES[0]), LINES[1])
        self.bold = bold
        self.lines: list[str] = []

    def heading(self, text: str) -> None:
        """Begin a section."""
        self.lines += ["", f"\x1b[1m{text}:\x1b[0m" if self.bold else f"{text}:"]

    def paragraph(self, text: str, indent: str = "") -> None:
        """Add a paragraph."""
        self.lines += self.wrap(indent + text, self.width, hang=indent)

    def examples(self, texts: Sequence[str]) -> None:
        """Add commands to copy."""
        for text in texts:
            self.lines += ["  " + line for line in _copyable(text, self.width - 2)]

    def names(self, rows: Sequence[tuple[str, str]]) -> None:
        """Add names and what they mean, side by side."""
        column = min(max(len(name) for name, _ in rows), NAMES if self.width > 2 * NAMES else NAMES // 2) + 4
        for name, text in rows:
            beside = len(name) + 4 <= column
            told = self.wrap(text, self.width - column)
            self.lines.append(f"  {name}".ljust(column) + (told.pop(0) if beside else ""))
            self.lines += [" " * column + line for line in told]
        self.lines = [line.rstrip() for line in self.lines]


def _is_argument(param: Any) -> bool:
    return bool(param.param_type_name == "argument")


def _named(param: Any) -> str:
    """Return what an argument or option is called."""
    if not _is_argument(param):
        return str(param.opts[-1])
    return f"{param.metavar or param.name.upper()}{'...' if param.nargs == -1 else ''}"


#: how the parser writes the type of a value -> how help does
_VALUES = {"str": "TEXT", "int": "N", "float": "X", "path": "PATH", "Path": "PATH"}


def _kind_of_value(name: str) -> str:
    """Return the name of an option with what follows it.

    >>> _kind_of_value("--only <list[str]>"), _kind_of_value("--kv <bf16|int8>")
    ('--only TEXT', '--kv bf16|int8')
    """
    return re.sub(r"<(?:list\[)?([^>\]]*)\]?>", lambda found: _VALUES.get(found[1], found[1]), name)


def _write_help(command: Any, context: Any, formatter: Any, commands: Sequence[tuple[str, str]]) -> None:
    from perfmodel.report.terminal import coloured

    context.color = coloured(stdout)  # what echoes the page then leaves the marks in, or has none to take out
    page = _Page(context.color)
    first, examples, others = parts(command.help or "")
    page.paragraph(first)
    if examples:
        page.heading("Examples" if len(examples) > 1 else "Example")
        page.examples(examples)
    page.heading("Usage")
    params = command.get_params(context)
    words = [_named(param) if param.required else f"[{_named(param)}]" for param in params if _is_argument(param)]
    page.paragraph(" ".join([context.command_path, *words, "[OPTIONS]", *(["COMMAND ..."] if commands else [])]), "  ")
    for text in others:
        page.lines.append("")
        page.paragraph(text)
    if commands:
        page.heading("Commands")
        page.names(commands)
    records = [(param, param.get_help_record(context)) for param in params]
    arguments = [(_named(param), record[1]) for param, record in records if record and _is_argument(param)]
    options = [
        (_kind_of_value(record[0]), record[1]) for param, record in records if record and not _is_argument(param)
    ]
    for title, rows in (("Arguments", arguments), ("Options", options)):
        if rows:
            page.heading(title)
            page.names(rows)
    formatter.write("\n".join(page.lines) + "\n")


def _options_of(command: Any, context: Any) -> list[str]:
    params = [param for param in command.get_params(context) if not _is_argument(param)]
    return sorted(word for param in params for word in (*param.opts, *param.secondary_opts) if word.startswith("--"))


def near_option(word: str, known: Sequence[str]) -> str:
    """Return ``"; did you mean '--x'?"`` for the nearest option, or the list where none is near.

    >>> near_option("--catds", ["--cards", "--rate"])
    "; did you mean '--cards'?"
    """
    bare = {option.removeprefix("--"): option for option in known}
    begun = [option for name, option in bare.items() if name.startswith(word.strip("-"))]
    if len(begun) == 1:
        return f"; did you mean '{begun[0]}'?"
    guess = did_you_mean(word.strip("-").replace("_", "-"), list(bare))
    return re.sub(r"(?<=mean ')|(?<=known: )|(?<=, )", "--", guess)


def _unknown_option(error: Any, command: Any, context: Any, given: Sequence[str]) -> UsageError:
    word = error.option_name
    if not word.startswith("--"):  # -cards is read as -c -a -r -d -s
        word = next((arg for arg in given if arg.startswith("-") and not arg.startswith("--") and word[1] in arg), word)
    where = context.command_path
    inner = getattr(command, "commands", {})
    of_inner = [name for name, one in inner.items() if word in _options_of(one, context)]
    if of_inner:
        listed = ", ".join(of_inner)
        return UsageError(f"{word}: comes after the command, like '{where} {of_inner[0]} {word}'; taken by {listed}")
    guess = near_option(word, _options_of(command, context))
    return UsageError(f"{word}: no option of '{where}'{guess}")


def _refusal(error: Any, command: Any, context: Any, given: Sequence[str]) -> UsageError:
    """Return what the parser found wrong, in our words and on one line."""
    param, text = getattr(error, "param", None), " ".join(str(error.format_message()).split())
    if hasattr(error, "possibilities"):
        return _unknown_option(error, command, context, given)
    if param is None:
        if found := re.search(r"unexpected extra argument(?:s|\(s\))? \((.*)\)", text):
            option = "--" + found[1].partition(" ")[0]
            said = f"see '{context.command_path} --help'"
            if option in _options_of(command, context):
                said = f"did you mean '{option}'?"
            return UsageError(f"{found[1]!r}: too many words; {said}")
        if hasattr(error, "option_name") and "requires" in text:
            return UsageError(f"{error.option_name}: no value after it; write one, see '{context.command_path} --help'")
        return UsageError(f"{text[:1].lower()}{text[1:].rstrip('.')}; see '{context.command_path} --help'")
    name = _named(param)
    if type(error).__name__ == "MissingParameter":
        return UsageError(f"{name}: is missing; see '{context.command_path} --help'")
    found = re.search(r"'([^']*)'", error.message)
    wrong = _refused_value(error) or (found[1] if found else "")
    words = [str(getattr(choice, "value", choice)) for choice in param.type_descriptor.choices or ()]
    if words:
        guess = did_you_mean(wrong, words)
        return UsageError(f"{name}: {wrong!r}; allowed: {', '.join(words)}{guess if 'mean' in guess else ''}")
    allowed = next((allowed for word, allowed in _ALLOWED.items() if word in error.message), None)
    if allowed:
        return UsageError(f"{name}: {wrong!r}; allowed: {allowed}")
    return UsageError(f"{name}: {' '.join(error.message.split()).rstrip('.')}")


_ALLOWED = {"integer": "a whole number", "int": "a whole number", "number": "a number", "float": "a number"}


def _refused_value(error: Any) -> str:
    """Return the word that could not be read, where the parser says."""
    faults: list[Any] = getattr(error.__cause__, "errors", list)()
    return str(faults[0]["input"]) if faults else ""


def _refuse_empty(command: Any, context: Any, given: Sequence[str]) -> None:
    """Raise ``UsageError`` for an argument, a path, or an option that takes names on file, that is left empty."""
    none = {"", Path()} if "" in given else {""}  # an empty path reads as that of this folder
    for param in command.get_params(context):
        value = context.params.get(param.name)
        words = value if isinstance(value, (list, tuple)) else [value]
        kinds: Sequence[str] = getattr(param.type_descriptor.parameter_info.autocompletion, "kinds", ())
        read = _is_argument(param) or kinds or isinstance(value, Path)
        if not read or param.default == "" or none.isdisjoint(words):
            continue
        allowed = "a name on file" + ("" if "techniques" in kinds else ", or a path ending in .yaml")
        if _is_argument(param) or not kinds:
            first = param.help if param.help[:2].isupper() else param.help[:1].lower() + param.help[1:]
            allowed = first.rstrip(".")
        seen = f"; see 'moeplan list {kinds[0]}'" if len(kinds) == 1 and "moeplan list" not in allowed else ""
        raise UsageError(f"{_named(param)}: '' is empty; allowed: {allowed}{seen}")


def _texts(language: str) -> dict[str, Any]:
    """Return the texts of a language by their English."""
    from perfmodel.files.pages import glossary

    return glossary(language)


class Command(TyperCommand):
    """A command."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, examples first."""
        _write_help(self, ctx, formatter, ())

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words after the command; raises ``UsageError`` for what cannot be read."""
        if args and not ctx.resilient_parsing:
            from perfmodel.cli.typed import read

            args = read(self, ctx, args)
        given = list(args)
        left = _parsed(super().parse_args, self, ctx, args)
        if not ctx.resilient_parsing:
            _refuse_empty(self, ctx, given)
        return left

    def invoke(self, ctx: Any) -> Any:
        """Run the command as --quiet and --verbose ask, with a sign of life where it takes long."""
        from perfmodel.report.terminal import LOG, PROGRESS, VOICE, Terminal, listen

        quiet = ctx.meta.get("quiet", False)
        listen(quiet=quiet, verbose=ctx.meta.get("verbose", False), start=START)
        VOICE.use(ctx.meta.get("lang", VOICE.language), _texts)
        LOG.debug("started %s", ctx.command_path)
        try:
            for text in ctx.meta.pop("read_as", ()):
                Terminal().remark(text)
            if not quiet:
                PROGRESS.start(ctx.command_path)
            return super().invoke(ctx)
        finally:
            PROGRESS.stop()
            LOG.debug("finished")


class Group(TyperGroup):
    """The program, whose first word is a command."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, examples first."""
        shown = [(name, command) for name, command in self.commands.items() if not command.hidden]
        _write_help(self, ctx, formatter, [(name, parts(command.help or "")[0]) for name, command in shown])

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words before the command; without any word the help is shown."""
        if not args and not ctx.resilient_parsing:
            typer.echo(ctx.get_help(), err=True)
            raise typer.Exit(EXIT_USAGE)
        if not ctx.resilient_parsing:
            from perfmodel.cli.typed import read_before

            read_before(self, ctx, args)
        return _parsed(super().parse_args, self, ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that the first word names; raises ``UsageError`` where there is none."""
        if args[0] not in self.commands and not ctx.resilient_parsing:
            option = f"--{args[0]}"  # 'moeplan help', 'moeplan version'
            known = option in _options_of(self, ctx)
            from perfmodel.cli.engine_words import COMMANDS

            meant = option if known else COMMANDS.get(args[0].lower())
            guess = f"; did you mean '{meant}'?" if meant else did_you_mean(args[0], list(self.commands))
            raise UsageError(f"{args[0]!r} is not a command{guess}")
        return super().resolve_command(ctx, args)


def _parsed(parse: Callable[..., list[str]], command: Any, context: Any, args: list[str]) -> list[str]:
    given = list(args)
    try:
        return parse(context, args)
    except typer.TyperException as error:
        raise _refusal(error, command, context, given) from None
