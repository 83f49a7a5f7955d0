"""A pool of a plan -> the command that explains it."""

import json
import shlex
from collections.abc import Mapping

from perfmodel.planning.choices import beyond_layout
from perfmodel.planning.request import PlanRequest
from perfmodel.prediction.deployment import PoolPlan
from perfmodel.specs.deployment import LayoutSpec
from perfmodel.specs.run import WAITS, RunSpec

#: keys of a layout that explain has an option for
_OPTIONS = (
    *("dies", "tp", "batch", "draft", "shared_ranks", "redundant", "overlap", "attention_cores", "exchange"),
    "reduction",
)
#: keys of a run-spec that are filled where they are left out
DEFAULTED = ("objective", "allow_scale_out", "utilisation", "kv", "top")
_PLAIN = LayoutSpec(dies=1, batch=1).model_dump()


def solve_command(run: RunSpec) -> str:
    """Return the command that asks what a run-spec does; what it leaves out is as the defaults have it.

    The way of serving is always said: where none is, pools apart come first, whatever is better.

    >>> solve_command(RunSpec(model="m", on="s", cards=16, isl=4096, osl=512, tpot="50 ms", serving="mixed"))
    'moeplan solve m --on s --cards 16 --isl 4096 --osl 512 --tpot 50ms --serving mixed'
    """
    asked = run.model_dump(exclude_none=True, exclude={"model"}, mode="python", by_alias=False)
    plain = RunSpec.model_construct(cards=run.cards, rate=run.rate, prefill_on=run.prefill_on).filled()
    words = ["moeplan", "solve", str(run.model)]
    for key in asked:
        value, (wait, _, percentile) = getattr(run, key), key.partition("_p")
        if key in DEFAULTED and value == getattr(plain, key):
            continue
        option = "--" + key.strip("_").replace("_", "-")
        if wait in WAITS:
            time = f"{value * 1e3:.12g}ms"
            words += [f"--{wait}", f"p{percentile}={time}" if percentile else time]
        elif isinstance(value, bool):
            words += [option] if value else []
        elif isinstance(value, Mapping):
            words += [word for name, text in value.items() for word in (option, f"{name}={text}")]
        elif isinstance(value, tuple):
            words += [word for text in value for word in (option, str(text))]
        else:
            words += [option, f"{value:.12g}" if isinstance(value, float) else str(value)]
    return shlex.join(words)


def explain_command(
    pool: PoolPlan,
    request: PlanRequest,
    *,
    tpot: float | None,
) -> str:
    """Return the exact command that explains one pool."""
    layout, run, phase = pool.layout, request.run, pool.family.phase
    case, machine = request.cases[phase], request.machines[phase]
    apart = phase == "prefill" and run.prefill_on is not None
    words = [
        "moeplan",
        "explain",
        request.model_word,
        "--on",
        machine.system.word,
        "--phase",
        pool.family.phase,
        "--dies",
        str(layout.dies),
    ]
    words += ["--tp", str(layout.tp), "--batch", str(layout.batch), "--draft", str(layout.draft)]
    words += ["--shared-ranks", str(layout.shared_ranks), "--redundant", str(layout.redundant)]
    words += ["--overlap", layout.overlap, "--attention-cores", str(layout.attention_cores)]
    words += ["--exchange", layout.exchange, "--isl", str(case.isl)]
    if pool.family.phase == "decode":
        words += ["--osl", str(case.osl)]
        if tpot is not None:
            words += ["--tpot", f"{tpot * 1e3:g}ms"]
    words += ["--kv", pool.family.kv_dtype, "--precision", pool.family.form.name]
    words += ["--reduction", pool.family.reduction]
    for key, value in layout.model_dump(exclude=set(_OPTIONS)).items():
        if value != _PLAIN[key]:
            words += ["--set", f"{key}={json.dumps(value)}"]
    for name, setting in beyond_layout(request.settings, request.techniques).items():
        words += ["--with", f"{name}={setting}"]
    if run.acceptance and run.acceptance not in [table.name for table in request.model.acceptance[:1]]:
        words += ["--acceptance", run.acceptance]
    stack = run.prefill_stack if apart else run.stack
    if stack is None and run.engine is not None:
        stack = machine.stack.word
    if stack and stack != machine.system.spec.default_stack:
        words += ["--stack", stack]
    if run.engine is not None and (engine := request.engines[phase]) is not None:
        words += ["--engine", engine.word]
    if run.memory_share is not None:
        words += ["--memory-share", f"{run.memory_share:g}"]
    if run.max_context is not None:
        words += ["--max-context", str(run.max_context)]
    for one in dict.fromkeys((number.word, number.text) for number in machine.set_numbers):
        words += ["--set", "=".join(one)]
    for name in () if apart else run.kernels or ():
        words += ["--kernels", name]
    return shlex.join(words)
