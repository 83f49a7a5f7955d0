"""The page that says what options of serving engines are with moeplan: the table that the command line reads by."""

from perfmodel.cli.engine_words import COMMANDS, GIVEN, QUESTIONS, WORDS, Word

INTRODUCTION = """\
# From your flags

Written by `benchmarks/update_docs.py` from the table that the command line reads by (`perfmodel/cli/engine_words.py`); do not
edit.

Options of vllm, vllm-ascend, SGLang, MindIE and of their benchmarks can be typed as they are, before or after ours; hyphens and
underscores are alike. Each is read as one of ours and a remark says so once:

```console
$ moeplan explain deepseek-v3 --on cloudmatrix384 --data-parallel-size 128 --max-num-seqs 48 --num-speculative-tokens 1 --isl 4096 --osl 1024
note: --max-num-seqs 48 is read as --batch 48
note: --num-speculative-tokens 1 is read as --draft 1
note: --data-parallel-size 128 is read as --dies 128: 128 x tp 1
```

What has no meaning on a command is refused with what there is instead:

```console
$ moeplan solve deepseek-v3 --on cloudmatrix384 --isl 4096 --osl 1024 --tpot 50ms --data-parallel-size 128
error: --data-parallel-size 128: the search finds dp, tp and ep itself; allowed: a budget, --cards N or --rate R; for one layout of your own: moeplan explain MODEL --on SYSTEM --dp N --tp N
```

Dies, cards, servers: an "NPU" of vllm and MindIE is one die; SGLang and buyers count cards, of one die (910B) or two (910C). Every
answer names all three. `ep` has no size of its own: experts lie over all dies of an instance.

"""  # noqa: E501


def _option(option: str) -> str:
    return f"`{option}`" if option.startswith("--") else option or "always so"


def _ours(word: Word) -> str:
    """Return our option, once for the commands that have the same."""
    by_option: dict[str, list[str]] = {}
    for command, option in word.ours.items():
        by_option.setdefault(option, []).append(command)
    said = [f"{_option(option)} ({', '.join(commands)})" for option, commands in by_option.items()]
    return "; ".join(said) or "-"


def _lacking(word: Word, texts: list[str]) -> str:
    """Return which commands have no word for it, each with the number of its text below the table."""
    by_text: dict[str, list[str]] = {}
    for command, text in word.lacking.items():
        by_text.setdefault(text, []).append(command)
    texts += [text for text in by_text if text not in texts]
    said = [f"{', '.join(commands)} ({texts.index(text) + 1})" for text, commands in by_text.items()]
    return "; ".join(said) or "-"


def page() -> str:
    """Return the page."""
    texts: list[str] = []
    parts = [
        INTRODUCTION,
        "## Options\n\nThe command stands in brackets; a number says what there is instead, below the table.\n\n",
    ]
    parts.append("| of an engine | means | ours | none on |\n| --- | --- | --- | --- |\n")
    for word in WORDS:
        said = ", ".join(f"`--{one}`" for one in word.spellings)
        parts.append(f"| {said} | {word.means} | {_ours(word)} | {_lacking(word, texts)} |\n")
    parts.append("\n" + "".join(f"{number}. {text}\n" for number, text in enumerate(texts, 1)))
    parts.append(
        f"\nOn other commands than {', '.join(f'`{one}`' for one in QUESTIONS)} none is taken: "
        + "; ".join(f"`{command}` takes all conditions from {what}" for command, what in GIVEN.items())
        + ".\n\n## Values\n\n| option | value | ours |\n| --- | --- | --- |\n"
    )
    for word in WORDS:
        by_value: dict[str | None, list[str]] = {}
        for value, ours in word.values.items():
            by_value.setdefault(ours, []).append(value)
        for found, values in by_value.items():
            ours = "what the checkpoint holds: w8a8 where nothing else says" if found is None else f"`{found}`"
            said = ", ".join(f"`{one}`" for one in values)
            parts.append(f"| `--{word.spellings[0]}` | {said} | {ours} |\n")
    parts.append("\n## Commands\n\nWhat people call a command is told with ours:\n\n| word | ours |\n| --- | --- |\n")
    by_command: dict[str, list[str]] = {}
    for name, ours in COMMANDS.items():
        by_command.setdefault(ours, []).append(name)
    parts += [f"| {', '.join(f'`{one}`' for one in names)} | `{ours}` |\n" for ours, names in by_command.items()]
    return "".join(parts)
