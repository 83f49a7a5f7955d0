"""Options of serving engines and their benchmarks, and what each is in our words on which command."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any

from perfmodel.cli.typed import Given
from perfmodel.errors import UsageError

MODEL = "MODEL"  # the argument of that name
#: commands that take lengths, loads or layouts
QUESTIONS = ("solve", "compare-systems", "explain", "replay")
#: commands that take all of it from a plan or a row, and how they name what they are given
GIVEN = {
    "what-if": "its plan or row",
    "compare": "the plans or rows it compares",
    "report": "its plan",
    "validate": "the rows it predicts",
}
#: single letters after one dash that are no options of ours
SHORT = ("-tp", "-dp", "-pp")


def _on(said: str, *commands: str) -> dict[str, str]:
    """Return an option, or what is said where there is none, on some commands; on all questions where none is named."""
    return dict.fromkeys(commands or QUESTIONS, said)


LAYOUT = {
    **_on(
        "the search finds dp, tp and ep itself; allowed: a budget, --cards N or --rate R; for one layout of your own: "
        "moeplan explain MODEL --on SYSTEM --dp N --tp N",
        "solve",
        "compare-systems",
    ),
    **_on("layouts come from --plan; allowed: drop it", "replay"),
}
BATCH = {
    **_on(
        "the search finds the batch itself; allowed: a budget, --cards N or --rate R; for one batch of your own: "
        "moeplan explain MODEL --on SYSTEM --batch N",
        "solve",
        "compare-systems",
    ),
    **_on("batches come from --plan; allowed: --concurrency N, clients", "replay"),
}
SIZE = _on("the size comes from --plan; allowed: drop it", "replay")
DRAFTS = {
    "compare-systems": "each system searches its own drafts; allowed: drop it, or moeplan solve --with mtp=N",
    "replay": "drafts come from --plan; allowed: drop it",
}
CACHE = {
    "auto": "bf16",
    "bf16": "bf16",
    "bfloat16": "bf16",
    "fp8": "fp8",
    "fp8_e4m3": "fp8",
    "int8": "int8",
    "c8": "int8",
}
#: None: what the checkpoint holds, which ours is by default
PRECISION = {
    "ascend": None,
    "modelslim": None,
    "none": "bf16",
    "w8a8": "w8a8",
    "w8a8_int8": "w8a8",
    "w8a8_dynamic": "w8a8",
    "w4a8": "w4a8",
    "w4a8_dynamic": "w4a8",
    "w4a16": "w4a16",
    "awq": "w4a16",
    "gptq": "w4a16",
    "fp8": "fp8",
    "mxfp8": "mxfp8",
    "mxfp4": "mxfp4",
    "nvfp4": "nvfp4",
    "modelopt_fp4": "nvfp4",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """An option of an engine, and what it is with us."""

    #: without dashes; an underscore stands for a hyphen
    spellings: tuple[str, ...]
    #: what it counts or names, for readers of this table
    means: str
    #: command -> our option; a command that is in neither mapping has no word for it
    ours: Mapping[str, str] = field(default_factory=dict)
    #: command -> what it has instead
    lacking: Mapping[str, str] = field(default_factory=dict)
    #: what its values are called with us, None where ours is left at its default; without any, values are the same
    values: Mapping[str, str | None] = field(default_factory=dict)
    #: whether a value follows it
    valued: bool = True
    #: how it is read where its value, or its meaning, depends on other words: a key of READINGS
    reading: str = "same"


WORDS = (
    Word(
        spellings=("dp", "data-parallel-size", "dp-size"),
        means="attention data parallelism: groups of tp dies, each with requests of its own",
        ours=_on("--dies", "explain"),
        lacking=LAYOUT,
        reading="layout",
    ),
    Word(
        spellings=("tp", "tensor-parallel-size"),
        means="dies over which attention is split",
        ours=_on("--tp", "explain"),
        lacking=LAYOUT,
        reading="layout",
    ),
    Word(
        spellings=("tp-size",),
        means="as tensor-parallel-size; to SGLang with --enable-dp-attention all dies, shared by dp-size groups",
        ours=_on("--tp", "explain"),
        lacking=LAYOUT,
        reading="layout",
    ),
    Word(
        spellings=("ep", "expert-parallel-size", "ep-size", "moe-ep"),
        means="dies over which routed experts lie: all of an instance, or those left by --shared-ranks, expert_tp",
        ours=_on("--dies", "explain"),
        lacking=LAYOUT,
        reading="layout",
    ),
    Word(
        spellings=("enable-expert-parallel", "enable-ep-moe"),
        means="experts lie over all dies of an instance: always so with us",
        ours=_on("", "solve", "compare-systems", "explain"),
        lacking=_on("layouts come from --plan; allowed: drop it", "replay"),
        valued=False,
        reading="always",
    ),
    Word(
        spellings=("enable-dp-attention",),
        means="SGLang: attention is data-parallel over dp-size groups of its tp-size dies",
        ours=_on("", "solve", "compare-systems", "explain"),
        lacking=_on("layouts come from --plan; allowed: drop it", "replay"),
        valued=False,
        reading="always",
    ),
    Word(
        spellings=("pp", "pipeline-parallel-size", "pp-size"),
        means="stages that layers are cut into: with us one",
        ours=_on("", "solve", "compare-systems", "explain"),
        lacking=_on("layouts come from --plan; allowed: drop it", "replay"),
        reading="one_stage",
    ),
    Word(
        spellings=("data-parallel-size-local", "dp-size-local"),
        means="groups on one server",
        lacking={
            **LAYOUT,
            "explain": "which dies share a server follows from the system; allowed: --dp N, groups of the instance",
        },
    ),
    Word(
        spellings=("servers", "nodes", "nnodes", "num-nodes", "num-servers"),
        means="servers; of a budget, times the cards a server has",
        ours={"solve": "--cards", **_on("--servers", "explain", "compare-systems")},
        lacking=SIZE,
        reading="servers",
    ),
    Word(
        spellings=("npus", "gpus", "num-npus", "num-gpus", "world-size"),
        means="dies to vllm and MindIE, cards to SGLang and to buyers",
        lacking={
            **_on("a die to some, a card of two dies to others; allowed: --cards N", "solve", "compare-systems"),
            "explain": "a die to some, a card of two dies to others; allowed: --dies N or --cards N",
            **SIZE,
        },
    ),
    Word(
        spellings=("max-num-seqs",),
        means="requests that run on one data-parallel rank",
        ours=_on("--batch", "explain"),
        lacking=BATCH,
    ),
    Word(
        spellings=("max-running-requests",),
        means="requests that run on one instance: dp times the batch",
        ours=_on("--batch", "explain"),
        lacking=BATCH,
        reading="per_rank",
    ),
    Word(
        spellings=("max-model-len", "context-length", "max-seq-len"),
        means="tokens of input and output that a request may have",
        ours=_on("--max-context", "solve", "explain", "replay"),
        lacking=_on("lengths are held to what the model takes; allowed: --isl and --osl", "compare-systems"),
    ),
    Word(
        spellings=("max-num-batched-tokens", "max-prefill-tokens", "chunked-prefill-size"),
        means="tokens that one step of a rank takes at most: of prefill, whole prompts or a chunk of one",
        ours=_on("--batch", "explain"),
        lacking={
            **_on(
                "the search finds how many prompts a step takes; for one number of them: moeplan explain MODEL --on "
                "SYSTEM --phase prefill --batch N",
                "solve",
                "compare-systems",
            ),
            **_on("steps are those of --plan and its engine; allowed: --engine NAME", "replay"),
        },
        reading="tokens_a_step",
    ),
    Word(
        spellings=("num-speculative-tokens", "speculative-num-steps"),
        means="draft tokens of a step",
        ours={"solve": "--with", "explain": "--draft"},
        lacking=DRAFTS,
        reading="drafts",
    ),
    Word(
        spellings=("speculative-num-draft-tokens",),
        means="tokens that a step verifies: drafts and one",
        ours={"solve": "--with", "explain": "--draft"},
        lacking=DRAFTS,
        reading="verified",
    ),
    Word(
        spellings=("kv-cache-dtype",),
        means="precision of the KV cache",
        ours=_on("--kv", "solve", "compare-systems", "explain"),
        lacking=_on("the cache is that of --plan; allowed: drop it", "replay"),
        values=CACHE,
    ),
    Word(
        spellings=("quantization",),
        means="precision of weights and activations; of ascend and modelslim, what the checkpoint holds",
        ours=_on("--precision", "solve", "compare-systems", "explain"),
        lacking=_on("the precision is that of --plan; allowed: drop it", "replay"),
        values=PRECISION,
    ),
    Word(
        spellings=("gpu-memory-utilization", "gpu-util"),
        means="share of the memory that the engine takes",
        ours=_on("--memory-share", "solve", "explain"),
        lacking=_on("the share is the stack's; allowed: drop it", "compare-systems", "replay"),
    ),
    Word(
        spellings=("mem-fraction-static",),
        means="share of the memory for weights and cache alone",
        lacking={
            **_on(
                "is of weights and cache alone; allowed: --memory-share X, of all that the engine takes",
                "solve",
                "explain",
            ),
            **_on("the share is the stack's; allowed: drop it", "compare-systems", "replay"),
        },
    ),
    Word(
        spellings=("input-len", "random-input-len"),
        means="input tokens of a request",
        ours=_on("--isl"),
    ),
    Word(
        spellings=("output-len", "random-output-len"),
        means="output tokens of a request",
        ours=_on("--osl"),
    ),
    Word(
        spellings=("request-rate", "qps", "rps", "target-request-rate"),
        means="requests a second",
        ours=_on("--rate"),
        reading="rate",
    ),
    Word(
        spellings=("concurrency", "max-concurrency", "target-concurrency"),
        means="clients, each with one request at a time",
        ours=_on("--concurrency", "explain", "replay"),
        lacking=_on("clients of a closed loop are no budget; allowed: --rate R", "solve", "compare-systems"),
        reading="clients",
    ),
    Word(
        spellings=("num-prompts", "num-requests"),
        means="requests that a client sends in all",
        ours=_on("--requests", "explain", "replay"),
        lacking=_on(
            "how many are sent changes no plan; allowed: drop it, or moeplan replay --plan PLAN.json --requests N",
            "solve",
            "compare-systems",
        ),
    ),
    Word(
        spellings=("tps", "tokens-per-second", "output-throughput"),
        means="tokens a second, of one user or of all",
        lacking=_on(
            "tokens a second of one user are --tpot, 20 of them 50ms; of all users, over --osl, they are --rate"
        ),
        reading="tokens_a_second",
    ),
    Word(
        spellings=("model", "model-path"),
        means="the model",
        ours=_on(MODEL, "solve", "compare-systems", "explain"),
        lacking=_on("the model is that of --plan; allowed: drop it", "replay"),
        reading="argument",
    ),
)

#: what people call a command -> ours
COMMANDS = {
    "plan": "solve",
    "recommend": "solve",
    "optimize": "solve",
    "optimise": "solve",
    "search": "solve",
    "size": "solve",
    "predict": "explain",
    "estimate": "explain",
    "profile": "explain",
    "fits": "explain",
    "bench": "replay",
    "benchmark": "replay",
    "simulate": "replay",
    "serve": "replay",
    "trace": "workload",
    "diff": "compare",
    "lint": "check",
    "ls": "list",
    "info": "show",
}

OF: Mapping[str, Word] = {spelling: word for word in WORDS for spelling in word.spellings}


def bare(option: str) -> str:
    """Return an option without its dashes, as the table spells it.

    >>> bare("--max_num_seqs"), bare("-tp")
    ('max-num-seqs', 'tp')
    """
    return option.lstrip("-").replace("_", "-").lower()


def known_to(command: str) -> set[str]:
    """Return the words of the table that are read on a command."""
    return set(OF) if command in QUESTIONS or command in GIVEN else set()


def takes_value(option: str) -> bool | None:
    """Return whether a word of the table takes a value; None for one that it does not have."""
    word = OF.get(bare(option))
    return word.valued if word is not None and (option.startswith("--") or option in SHORT) else None


@dataclass(slots=True)
class _Asked:
    """What a command is asked so far: its own options, and those that words of engines became."""

    command: str
    own: Mapping[str, Any]
    given: list[Given]
    flags: set[str] = field(default_factory=set)
    told: list[str] = field(default_factory=list)

    def value(self, option: str) -> str | None:
        """Return what an option is given, the last."""
        values = [one.value for one in self.given if one.option == option]
        return values[-1] if values else None

    def count(self, option: str) -> int | None:
        """Return the number that an option is given; None where it is none, which the parser will say."""
        from perfmodel.units import read_count, read_tokens

        value = self.value(option)
        try:
            return None if value is None else (read_tokens if option in ("--isl", "--osl") else read_count)(value)
        except ValueError:
            return None

    def take(self, said: Given, option: str, value: str, why: str = "") -> None:
        """Put an option in place of a word, and note what it was read as."""
        self.given.append(Given(value, option, self.own[option], typed=said.said))
        self.told.append(f"{said.said} is read as {option} {value}{why}")

    def arguments(self) -> list[str]:
        """Return the words that are no options."""
        return [one.value for one in self.given if one.option is None and one.value and not one.value.startswith("-")]

    def setting(self, key: str) -> str | None:
        """Return what a key of the layout is set to by --set."""
        texts = [one.value or "" for one in self.given if one.option == "--set"]
        pairs = [part.partition("=") for text in texts for part in text.split(",")]
        return next((value.strip() for name, _, value in reversed(pairs) if name.strip() == key), None)

    def refuse_other_ranks(self, said: Given, instead: str) -> None:
        """Raise ``UsageError`` where ranks are not dies / tp."""
        if found := [key for key in ("cp", "expert_dies", "domains") if self.setting(key)]:
            raise UsageError(
                f"{said.said}: beside --set {found[0]} ranks are others than dies / tp; allowed: {instead}"
            )

    def system(self, said: Given) -> str:
        """Return the system, of an option or of a file that the command is given; raises ``UsageError`` without one."""
        found = self.value("--on")
        if found is None and self.command == "solve" and (words := self.arguments()):
            found = _system_in(words[0])
        if found is None:
            raise UsageError(f"{said.said}: needs to know the system; allowed: --on SYSTEM beside it")
        return found

    def dies(self, said: Given) -> int | None:
        """Return the dies of an instance, where its size is given."""
        for option in ("--dies", "--cards", "--servers"):
            if (count := self.count(option)) is not None:
                if option == "--dies":
                    return count
                of_card, of_server = _parts(self.system(said))
                return count * of_card * (of_server if option == "--servers" else 1)
        return None


def _system_in(word: str) -> str | None:
    """Return the system that a run-spec or a plan names."""
    from perfmodel.files.what import What, named

    what = What.run if word == "-" else named(word)
    if what is What.run and word != "-":
        from perfmodel.files.runs import load_run

        return load_run(Path(word), RUN_KEYS).on
    if what is What.plan:
        from perfmodel.planning.plan_file import load_plan

        return load_plan(word).spec.conditions.system
    return None


#: keys of a run-spec that need not be there to read its system
RUN_KEYS = ("model", "on", "isl", "osl", "tpot", "cards", "rate")


def _parts(system: str) -> tuple[int, int]:
    """Return the dies of a card and the cards of a server of a system."""
    from perfmodel.files.machines import load_machine

    rates = load_machine(system)[0].rates()
    return rates.dies_per_package, rates.packages_per_server


def _count(said: Given, least: int = 1) -> int:
    from perfmodel.units import read_count

    try:
        count = read_count(said.value or "")
    except ValueError:
        count = least - 1
    if count < least:
        raise UsageError(f"{said.said}: allowed: a whole number from {least}")
    return count


def translated(command: str, given: Sequence[Given], own: Mapping[str, Any]) -> tuple[list[Given], list[str]]:
    """Return what is given with each word of an engine in our words, and a remark for each.

    Raises ``UsageError`` for every word that has no meaning on this command, with what there is instead.
    """
    words = [(one, OF[bare(one.option)]) for one in given if one.option and one.param is None]
    asked = _Asked(command, own, [one for one in given if not (one.option and one.param is None)])
    asked.flags = {bare(one.option) for one, _ in words if one.option}
    faults = [fault for one, word in words if (fault := _refused(asked, one, word)) is not None]
    if faults:
        raise UsageError("\n".join(faults))
    for reading, read in READINGS.items():
        of_it = [(one, word) for one, word in words if word.reading == reading]
        if reading == "layout" and of_it:
            _read_layout(asked, [one for one, _ in of_it])
        elif reading != "layout":
            for one, word in of_it:
                read(asked, one, word)
    return asked.given, asked.told


def _refused(asked: _Asked, said: Given, word: Word) -> str | None:
    """Return why a word cannot be said on a command; None where it can."""
    if asked.command in GIVEN:
        return (
            f"{said.said}: {asked.command} takes all conditions from {GIVEN[asked.command]}; allowed: drop it, or ask "
            "moeplan solve or explain"
        )
    if word.valued and said.value is None:
        return f"{said.option}: no value after it; write one"
    if asked.command in word.ours:
        return None
    more = {"clients": _rate_of_clients, "tokens_a_second": _of_tokens_a_second}.get(word.reading)
    return f"{said.said}: {word.lacking[asked.command]}{more(asked, said) if more else ''}"


def _rate_of_clients(asked: _Asked, said: Given) -> str:
    """Return the rate of clients that wait as long as the limits allow, by Little's law."""
    from perfmodel.planning import inputs

    osl, texts = asked.count("--osl"), (asked.value("--tpot"), asked.value("--ttft"))
    try:
        tpot, ttft = (inputs.quantity(text, "s", "") for text in texts)
    except UsageError:
        return ""
    if not osl or tpot is None:
        return ""
    rate = f"{_count(said) / ((ttft or 0) + osl * tpot):.3g}"
    waits = f"{osl} x {texts[0]}{'' if ttft is None else f' and {texts[1]}'}"
    return f"; clients that wait {waits} for each request send {rate} a second: --rate {rate}"


def _of_tokens_a_second(asked: _Asked, said: Given) -> str:
    count, osl = _count(said), asked.count("--osl")
    of_all = f", or --rate {count / osl:.3g}" if osl and asked.command != "explain" else ""
    return f"; here --tpot {1000 / count:.4g}ms{of_all}"


def _same(asked: _Asked, said: Given, word: Word) -> None:
    option = word.ours[asked.command]
    if not word.values:
        return asked.take(said, option, said.value or "")
    key = (said.value or "").strip().lower().replace("-", "_")
    if key not in word.values:
        raise UsageError(f"{said.said}: allowed: {', '.join(word.values)}; or say it as {option}")
    if (value := word.values[key]) is not None:
        return asked.take(said, option, value)
    if asked.value(option) is None:
        asked.told.append(
            f"{said.said} is what the checkpoint holds: w8a8 is taken where nothing else says; if it is another, say "
            f"it as {option}"
        )
    return None


def _servers(asked: _Asked, said: Given, word: Word) -> None:
    option = word.ours[asked.command]
    if option == "--servers":
        return asked.take(said, option, said.value or "")
    count, (_, each) = _count(said), _parts(asked.system(said))
    return asked.take(said, option, str(count * each), f": {each} cards a server")


def _argument(asked: _Asked, said: Given, word: Word) -> None:
    words = asked.arguments()
    if words and words[0] != said.value:
        raise UsageError(f"{said.said} and {words[0]}: two models; allowed: one; drop the other")
    if not words:
        asked.given.insert(0, Given(said.value, typed=said.said))
    asked.told.append(f"{said.said} is read as the word {said.value} alone")


def _rate(asked: _Asked, said: Given, word: Word) -> None:
    if (said.value or "").strip().lower() in ("inf", "infinity"):
        instead = "--concurrency N, clients" if "--concurrency" in asked.own else "--rate R, requests a second"
        raise UsageError(f"{said.said}: sends all requests at once; allowed: {instead}")
    asked.take(said, "--rate", said.value or "")


def _always(asked: _Asked, said: Given, word: Word) -> None:
    asked.told.append(f"{said.said}: {word.means}")


def _one_stage(asked: _Asked, said: Given, word: Word) -> None:
    if _count(said) != 1:
        instead = "the search splits by dp, tp and ep" if asked.command != "explain" else "split by --dp and --tp"
        raise UsageError(f"{said.said}: no pipeline of stages is modelled; allowed: 1; drop it, {instead}")
    asked.told.append(f"{said.said}: one stage, as always with us")


def _drafts(asked: _Asked, said: Given, word: Word) -> None:
    less = 1 if word.reading == "verified" else 0
    count = _count(said, less) - less
    option = word.ours[asked.command]
    asked.take(said, option, f"mtp={count}" if option == "--with" else str(count))


def _per_rank(asked: _Asked, said: Given, word: Word) -> None:
    dies, count = asked.dies(said), _count(said)
    if dies is None:
        raise UsageError(f"{said.said}: is of all ranks of an instance; allowed: its size beside it, like --dies N")
    asked.refuse_other_ranks(said, "--batch N, of one rank")
    ranks = dies // (asked.count("--tp") or 1) or 1
    if count % ranks:
        near = [str(n) for n in dict.fromkeys((count // ranks, ceil(count / ranks))) if n]
        raise UsageError(
            f"{said.said}: {count / ranks:.4g} on each of {ranks} data-parallel ranks; allowed: a multiple of {ranks}; "
            f"write --batch {' or '.join(near)}"
        )
    asked.take(said, "--batch", str(count // ranks), f": on each of {ranks} data-parallel ranks")


def _tokens_a_step(asked: _Asked, said: Given, word: Word) -> None:
    if asked.value("--serving") == "mixed":
        raise UsageError(f"{said.said}: steps of mixed serving are the engine's; allowed: --engine NAME")
    if (said.value or "").strip() == "-1":
        asked.told.append(f"{said.said}: prompts are worked whole, as always where no chunk is set")
        return None
    most, batch, isl = _count(said), asked.count("--batch"), asked.count("--isl")
    if asked.value("--phase") != "prefill":
        width = 1 + (asked.count("--draft") or 0)
        if batch is None:
            raise UsageError(f"{said.said}: a decode step takes batch x {width} tokens; allowed: --batch N beside it")
        if batch * width > most:
            raise UsageError(
                f"{said.said}: {batch} x {width} tokens a decode step; allowed: a batch of at most {most // width}"
            )
        asked.told.append(f"{said.said} is kept: a decode step takes {batch} x {width} tokens of a rank")
        return None
    if isl is None:
        raise UsageError(f"{said.said}: prompts in a step follow from their length; allowed: --isl beside it")
    if isl > most:
        return asked.take(said, "--set", f"chunk={most}", f": prompts of {isl} in chunks")
    if batch is None:
        return asked.take(said, "--batch", str(most // isl), f": prompts of {isl} in one step of a rank")
    if batch * isl > most:
        raise UsageError(
            f"{said.said}: {batch} prompts of {isl} are {batch * isl} tokens; allowed: --batch up to {most // isl}"
        )
    asked.told.append(f"{said.said} is kept: a prefill step takes {batch} x {isl} tokens of a rank")
    return None


#: who reads tp-size as all dies of an instance, and who as those of one attention group
SHARED, APART = ("sglang",), ("vllm", "mindie", "cann", "omni")


def _read_layout(asked: _Asked, words: Sequence[Given]) -> None:
    """Read dp, tp and ep together: dies of an instance = dp x tp = ep."""
    said: dict[str, Given] = {}
    roles = {"dp": "dp", "data-parallel-size": "dp", "dp-size": "dp", "tp-size": "all", "tp": "tp"}
    for one in words:
        role = roles.get(bare(one.option or ""), "tp" if "tensor" in (one.option or "") else "ep")
        before = said.setdefault(role, one)
        if _count(before) != _count(one):
            raise UsageError(f"{before.said} and {one.said}: two values of one option; allowed: one; drop the other")
    dp = _count(said["dp"]) if "dp" in said else None
    tp, size = asked.count("--tp"), asked.dies(next(iter(said.values())))
    groups = [said[role] for role in ("all", "tp") if role in said]
    alone = bool(groups) and dp is None and size is None and "ep" not in said
    for one in groups:
        tp = _of_all(asked, one, dp or 1) if one is said.get("all") else _count(one)
        asked.take(one, "--tp", str(tp), f" --dies {tp}: one group of attention; of more, say --dp" if alone else "")
    if alone:
        asked.given.append(Given(str(tp), "--dies", asked.own["--dies"], typed=groups[0].said))
        return None
    dies = None if dp is None else dp * (tp or 1)
    if dp is not None:
        asked.refuse_other_ranks(said["dp"], "the size as --dies N")
    if size is None and dies is None:
        return asked.take(said["ep"], "--dies", said["ep"].value or "")
    if dies is not None and size is None:
        asked.take(said["dp"], "--dies", str(dies), f": {dp} x tp {tp or 1}")
    elif dp is not None and dies != size:
        raise UsageError(
            f"{said['dp'].said}: {dp} x tp {tp or 1} are {dies} dies, the size given is {size}; allowed: dp "
            f"{size // (tp or 1) if size else 1}; drop either"
        )
    elif dp is not None:
        asked.told.append(f"{said['dp'].said} is kept: {size} dies / tp {tp or 1}")
    if "ep" in said:
        _check_experts(asked, said["ep"], dies if size is None else size)
    return None


def _of_all(asked: _Asked, said: Given, dp: int) -> int:
    """Return the dies of an attention group from a tp-size, which two engines read apart."""
    count, engine = _count(said), (asked.value("--engine") or "").lower()
    if dp == 1 or engine.startswith(APART):
        return count
    divides = count % dp == 0
    if "enable-dp-attention" in asked.flags or engine.startswith(SHARED):
        if not divides:
            raise UsageError(f"{said.said}: {count} dies over {dp} groups; allowed: a multiple of {dp}")
        return count // dp
    shared = f"to SGLang {count} dies in {dp} groups, --dies {count} --tp {count // dp}; " if divides else ""
    raise UsageError(
        f"{said.said} beside dp {dp}: {shared}to vllm {count * dp} dies, --dies {count * dp} --tp {count}; allowed: "
        "one of these, or --enable-dp-attention or --engine NAME beside it"
    )


def _check_experts(asked: _Asked, said: Given, dies: int | None) -> None:
    """Raise ``UsageError`` for an expert parallelism that the layout does not have."""
    if dies is None:
        return
    width = asked.setting("expert_tp")
    split = int(width) if width and width.isdigit() and int(width) else 1
    shared = asked.count("--shared-ranks") or 0
    possible = list(dict.fromkeys((dies // split, (dies - shared) // split)))
    if _count(said) in possible:
        asked.told.append(f"{said.said} is kept: experts lie over all dies of an instance")
        return
    ratio = dies // _count(said)
    more = ""
    if split == 1 and ratio > 1 and dies % _count(said) == 0:
        more = f"; or, each expert over {ratio} dies, --set expert_tp={ratio} --exchange gather"
    allowed = " or ".join(map(str, possible))
    raise UsageError(f"{said.said}: experts lie over all {dies} dies of an instance; allowed: {allowed}{more}")


def _none(asked: _Asked, said: Given, word: Word) -> None:
    """Read nothing: a word that no command has."""


#: how words are read, in this order: those that others depend on come first
READINGS: Mapping[str, Callable[[_Asked, Given, Word], None]] = {
    "argument": _argument,
    "servers": _servers,
    "same": _same,
    "clients": _same,
    "rate": _rate,
    "always": _always,
    "one_stage": _one_stage,
    "drafts": _drafts,
    "verified": _drafts,
    "layout": _none,
    "per_rank": _per_rank,
    "tokens_a_step": _tokens_a_step,
    "tokens_a_second": _none,
}
