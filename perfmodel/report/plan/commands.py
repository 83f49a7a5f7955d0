"""A pool of a plan -> the command that explains it."""

import json
import shlex

from perfmodel.planning.choices import beyond_layout
from perfmodel.planning.request import PlanRequest
from perfmodel.prediction.deployment import PoolPlan
from perfmodel.specs.deployment import LayoutSpec

#: keys of a layout that explain has an option for
_OPTIONS = (
    *("dies", "tp", "batch", "draft", "shared_ranks", "redundant", "overlap", "attention_cores", "exchange"),
    "reduction",
)
_PLAIN = LayoutSpec(dies=1, batch=1).model_dump()


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
