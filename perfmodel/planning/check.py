"""Files that people bring, looked through: what each is, its faults, and what it says in one line."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perfmodel.algebra import as_float
from perfmodel.errors import DataError, UsageError, printable
from perfmodel.files.catalog import load_path
from perfmodel.files.runs import load_run
from perfmodel.files.what import CALLED, SUFFIXES, What, config_in, kind_of
from perfmodel.files.workloads import load_workload
from perfmodel.formulas.roofline import peak_rate
from perfmodel.ledger.parameters import cache_bytes_per_token, parameters_of
from perfmodel.planning.plan_file import load_plan
from perfmodel.specs.model import ModelSpec

UNKNOWN = "not known"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A file: what it is, what it means in one line, and each of its faults."""

    file: str
    kind: str
    means: str = ""
    faults: tuple[str, ...] = ()
    #: whether it could not be read at all
    unread: bool = False
    remarks: tuple[str, ...] = ()


def checked(word: str) -> Checked:
    """Return what a file is and what it says, or its faults."""
    path, kind = Path(word), UNKNOWN
    try:
        found = kind_of(path) if path.is_dir() or word.lower().endswith(SUFFIXES) else None
        if found is not None:
            kind = found.value if isinstance(found, What) else CALLED[found]
        means, remarks = _read(path, found)
    except (DataError, UsageError) as error:
        unread = isinstance(error, UsageError)
        return Checked(file=word, kind=kind, faults=tuple(str(error).splitlines()), unread=unread)
    return Checked(file=word, kind="a workload" if found is None else kind, means=means, remarks=remarks)


def _read(path: Path, kind: What | str | None) -> tuple[str, tuple[str, ...]]:
    """Return what a file of a kind says in one line, and remarks on it.  Raises ``DataError`` for faults."""
    if kind is None:
        return _workload(path)
    if kind is What.config:
        known = load_path("models", config_in(path))
        return _model(known.spec), known.notes
    if kind is What.plan:
        plan = load_plan(str(path))
        then = plan.spec.predicted
        return (
            f"{plan.spec.conditions.model} on {plan.spec.conditions.system}: {then.requests_per_s:.4g} requests/s, "
            f"TPOT {then.tpot * 1e3:.4g} ms, TTFT {then.ttft:.4g} s",
            plan.remarks,
        )
    if kind is What.run:
        run = load_run(path)
        budget = f"{run.cards} cards" if run.cards is not None else f"{run.rate:g} requests/s"
        return f"{run.model} on {run.on}, {budget}; moeplan solve {path}", ()
    known = load_path(str(kind), path)
    return MEANS[str(kind)](known.spec), known.notes


def _workload(path: Path) -> tuple[str, tuple[str, ...]]:
    try:
        found = load_workload(path)
    except UsageError as error:
        if not path.is_file():
            raise
        raise DataError(f"{printable(str(path))}:1: tells no kind of file that is read here: {error}") from None
    lengths = f"{found.inputs.mean:,.0f} tokens in and {found.outputs.mean:,.0f} out at the mean"
    return f"{found.requests:,} requests, {lengths}", tuple(found.remarks)


def _model(model: ModelSpec) -> str:
    count = parameters_of(model)
    draft = f", {count.draft / 1e9:.3g} of draft layers" if count.draft else ""
    return (
        f"{count.total / 1e9:.4g} billion parameters, {count.active / 1e9:.3g} a token{draft}; "
        f"{cache_bytes_per_token(model):,.0f} bytes of BF16 cache a token; context of {model.max_position_embeddings:,}"
    )


def _chip(chip: Any) -> str:
    die = chip.die
    rates = [
        as_float(peak_rate(cores=die.cube_cores, flop_per_cycle=work, clock=die.clock)) / 1e12
        for work in (die.cube_flop_per_cycle.bf16, die.cube_flop_per_cycle.int8)
    ]
    memory = f"{as_float(die.hbm.capacity) / 1e9:.4g} GB of HBM at {as_float(die.hbm.bandwidth) / 1e12:.4g} TB/s"
    peaks = f"{rates[0]:.4g} TFLOP/s in BF16, {rates[1]:.4g} in INT8"
    return f"a die of {peaks}, {memory}; {as_float(chip.package.dies):g} a card"


def _system(system: Any) -> str:
    tiers = ", ".join(
        f"{one.link} {as_float(one.bandwidth) / 1e9:.4g} GB/s to {one.dies:g} dies" for one in system.tiers
    )
    return f"{system.packages_per_server:g} cards of {system.chip} a server, up to {system.max_packages:g}; {tiers}"


def _stack(stack: Any) -> str:
    engines = ", ".join(one.word for one in stack.engines) or "no engine"
    return f"{engines}; kernels of {', '.join(stack.kernels)}; terms of {stack.terms}"


def _row(row: Any) -> str:
    return f"{row.conditions.model} on {row.conditions.system}, {len(row.measured)} measured"


#: kind of data -> what a file of it says in one line
MEANS: dict[str, Callable[[Any], str]] = {
    "models": _model,
    "chips": _chip,
    "systems": _system,
    "stacks": _stack,
    "kernels": lambda spec: f"{', '.join(spec.classes())}; of {spec.chip}",
    "terms": lambda spec: f"skew {spec.skew:g}, gaps {spec.decode_gap:g} of decode and {spec.prefill_gap:g} of prefill",
    "techniques": lambda spec: f"settings {', '.join(spec.settings)}; {len(spec.gains)} published gains",
    "evidence": _row,
    "deployments": _row,
    "microbenchmarks": lambda spec: spec.title,
    "peers": lambda spec: spec.title,
}
