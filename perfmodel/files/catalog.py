"""Find, read and validate data files: the one module that touches them."""

import logging
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast, get_args

import yaml
from pydantic import ValidationError

from perfmodel import __version__
from perfmodel.errors import DataError, UsageError, did_you_mean
from perfmodel.files.folders import FOLDERS as _FOLDERS
from perfmodel.files.folders import names as names
from perfmodel.files.folders import root as _root
from perfmodel.measured import readers
from perfmodel.measured.reading import Context
from perfmodel.measured.shapes import Measurement
from perfmodel.planning.plan_file import PHASES, check_settings, conditions_of, moved
from perfmodel.solver.space import Choices
from perfmodel.specs.base import Figure, Spec
from perfmodel.specs.deployment import KvDtype, LayoutShape, Phase
from perfmodel.specs.evidence import Conditions, DeploymentSpec, EvidenceSpec, PeerSpec, Service
from perfmodel.specs.kernels import KernelSetSpec
from perfmodel.specs.machine import ChipSpec, StackSpec, SystemSpec, TermsSpec
from perfmodel.specs.microbenchmark import MicrobenchmarkSpec
from perfmodel.specs.model import ModelSpec
from perfmodel.specs.plan import PlanSpec
from perfmodel.specs.run import EITHER, NEEDED, RunSpec
from perfmodel.specs.technique import TechniqueSpec
from perfmodel.supply.machine import Known, Machine
from perfmodel.supply.techniques import MIXED, Technique, lacking, on_machine, setting_of, unsupported

_LOG = logging.getLogger(__name__)
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FIGURE_KEYS = {"value", "source", "kind", "note", "range"}
_KINDS = ("datasheet", "measured", "derived", "assumed")
_SPECS: dict[str, type[Spec]] = {
    "chips": ChipSpec,
    "systems": SystemSpec,
    "stacks": StackSpec,
    "kernels": KernelSetSpec,
    "terms": TermsSpec,
    "techniques": TechniqueSpec,
    "models": ModelSpec,
    "evidence": EvidenceSpec,
    "microbenchmarks": MicrobenchmarkSpec,
    "deployments": DeploymentSpec,
    "peers": PeerSpec,
}
#: what a file names of another kind
_REFERENCES: dict[str, dict[tuple[str, ...], str]] = {
    "systems": {("chip",): "chips", ("default_stack",): "stacks"},
    "stacks": {("kernels",): "kernels", ("terms",): "terms"},
    "kernels": {("chip",): "chips"},
    "evidence": {
        ("conditions", "system"): "systems",
        ("conditions", "model"): "models",
        ("conditions", "stack"): "stacks",
        ("conditions", "kernels"): "kernels",
    },
    "deployments": {
        ("conditions", "system"): "systems",
        ("conditions", "model"): "models",
        ("conditions", "stack"): "stacks",
        ("conditions", "kernels"): "kernels",
        ("conditions", "prefill_system"): "systems",
        ("conditions", "prefill_stack"): "stacks",
    },
    "runs": {
        ("model",): "models",
        ("on",): "systems",
        ("stack",): "stacks",
        ("kernels",): "kernels",
        ("prefill_on",): "systems",
        ("prefill_stack",): "stacks",
    },
    "microbenchmarks": {
        ("system",): "systems",
        ("stack",): "stacks",
        ("kernels",): "kernels",
        ("model",): "models",
    },
}
#: below which keys of a kind every number is a record with its source; elsewhere the file cites for all
_RECORDED: dict[str, Callable[[tuple[Any, ...]], bool]] = {
    **dict.fromkeys(("models", "evidence", "microbenchmarks", "deployments", "peers"), lambda _: False),
    "techniques": lambda path: path[:1] == ("settings",) and path[2:3] in (("stack",), ("terms",)),
}


def _nothing(_: tuple[Any, ...]) -> bool:
    """No number of a run-spec has a source: the user asks."""
    return False


@dataclass(frozen=True, slots=True)
class Loaded:
    """A typed spec with plain floats, and beside it where each number came from."""

    spec: Any
    figures: dict[str, Figure]
    notes: tuple[str, ...]
    path: Path

    @property
    def word(self) -> str:
        """What finds the file again: its name where it is on file, else its path as given."""
        if self.path.parent in {_root() / folder for folder in _FOLDERS.values()}:
            return str(self.spec.name)
        text = str(self.path)
        return text if "/" in text or text.endswith((".yaml", ".yml")) else f"./{text}"


def load_chip(name: str) -> Loaded:
    """Return a chip."""
    return _load("chips", name)


def load_system(name: str) -> Loaded:
    """Return a system; an ambiguous family name takes its default variant and says so."""
    return _load("systems", name)


def load_stack(name: str) -> Loaded:
    """Return a software stack."""
    return _load("stacks", name)


def load_kernels(name: str) -> Loaded:
    """Return a kernel set."""
    return _load("kernels", name)


def load_technique(name: str) -> Loaded:
    """Return a technique."""
    return _load("techniques", name)


def techniques() -> dict[str, Technique]:
    """Return all techniques on file by name."""
    return {name: technique_named(name) for name in names("techniques")}


def refuse_lacking(wanted: Mapping[str, str], machine: Machine) -> None:
    """Raise ``UsageError`` with a line for each technique that the machine's stack does not have."""
    faults = []
    for name, setting in wanted.items():
        technique = technique_named(name)
        technique.setting(setting)
        if lacking(technique, setting, machine):
            having = [one for one in names("stacks") if name in {t.name for t in load_stack(one).spec.techniques}]
            source = technique.spec.sources[technique.spec.named_by].title if technique.spec.named_by else ""
            faults.append(
                f"technique {name}={setting}: stack {machine.stack.spec.name} lacks it; allowed: stacks "
                f"{', '.join(having) or 'of your own'} ({source}); choose one with --stack, or see what it would be "
                "worth with moeplan what-if"
            )
    if faults:
        raise UsageError("\n".join(faults))


def find(name: str, kinds: Sequence[str]) -> tuple[str, Loaded]:
    """Return the entry of a name or a path among kinds of data, and its kind.

    Raises ``UsageError`` where none has the name, ``DataError`` with the fewest faults where a file is of none.
    """
    known: list[str] = []
    faults: list[DataError] = []
    for kind in kinds:
        try:
            return kind, _load(kind, name)
        except UsageError:
            known += names(kind)
        except DataError as error:
            faults.append(error)
    if faults:
        raise min(faults, key=lambda error: len(str(error).splitlines()))
    raise UsageError(f"{name!r} is not on file{did_you_mean(name, known)}")


def settings_in(conditions: Conditions, machine: Machine, model: ModelSpec) -> dict[str, str]:
    """Return the setting of every technique in a run of one pool; those that no setting describes are left out."""
    found = {name: setting_of(one, conditions, conditions.layout, machine, model) for name, one in techniques().items()}
    return {name: setting for name, setting in found.items() if setting != MIXED}


def load_plan(path: str) -> tuple[PlanSpec, tuple[str, ...]]:
    """Return the plan in a file, its techniques checked against its layouts and its stack, and remarks.

    Remarks say what is not as it was when the plan was written: the program's version, data files, the prediction.
    Raises ``DataError`` where settings differ or the file is no plan.
    """
    plan = read_plan(Path(path))
    machines = {phase: load_conditions(conditions_of(plan.conditions, phase)) for phase in PHASES}
    model = load_model(plan.conditions.model).spec
    check_settings(plan, machines, model, techniques(), path)
    remarks = changed_since(plan)
    if plan.version != __version__:
        remarks.append(f"{path}: written by version {plan.version}, read by {__version__}")
    return plan, (*remarks, *moved(plan, machines, model, path))


def searched(
    wanted: Mapping[str, str], machine: Machine, model: ModelSpec, kv_dtype: str
) -> tuple[dict[str, Any], Choices]:
    """Return what techniques set for all pools of a search, and the choices that they and the stack leave it.

    ``kv_dtype`` "any" leaves both precisions open where the stack has both.  Raises ``UsageError`` where the stack
    lacks a technique, or a search does not go over what it sets.
    """
    refuse_lacking(wanted, machine)
    service: dict[str, Any] = {}
    fixed: dict[Phase, dict[str, Any]] = {"prefill": {}, "decode": {}}
    for name, word in wanted.items():
        technique = technique_named(name)
        setting = technique.setting(word)
        service |= setting.service
        reasons = {
            phase: unsupported(technique.spec.applies, model, machine, phase) for phase in technique.spec.applies.phases
        }
        if all(reasons.values()):
            raise UsageError(f"technique {name}={word}: {'; '.join(str(one) for one in reasons.values())}")
        if "stages" in setting.layout.values():
            raise UsageError(f"technique {name}={word}: solve does not search it; see moeplan explain and what-if")
        for phase, reason in reasons.items():
            if reason is None:
                fixed[phase] |= setting.layout
    caches = _cache_precisions(service, machine, kv_dtype)
    offered = {phase: _offered(machine, model, phase) for phase in fixed}
    choices = Choices(
        precision=service.get("precision", "w8a8"),
        kv_dtypes=caches,
        expert_weights=service.get("expert_weights", "int8"),
        fixed=fixed,
        offered=offered,
    )
    return service, choices


def _cache_precisions(service: Mapping[str, Any], machine: Machine, kv_dtype: str) -> tuple[KvDtype, ...]:
    """Return the cache precisions that are searched; refuse one that the stack lacks."""
    if "kv_dtype" in service:
        return (service["kv_dtype"],)
    names_of: dict[KvDtype, str] = {"bf16": "off", "int8": "on"}
    technique = technique_named("c8-cache")
    having = tuple(dtype for dtype, setting in names_of.items() if not lacking(technique, setting, machine))
    if kv_dtype == "any":
        return having
    wanted = cast(KvDtype, kv_dtype)
    refuse_lacking({technique.spec.name: names_of[wanted]}, machine)
    return (wanted,)


def _offered(machine: Machine, model: ModelSpec, phase: Phase) -> dict[str, tuple[Any, ...]]:
    """Return the values of structural keys of a layout that the stack's techniques offer, its own first."""
    plain = LayoutShape(dies=1)
    offered: dict[str, tuple[Any, ...]] = {}
    for one in machine.stack.spec.techniques:
        spec = technique_named(one.name).spec
        if phase not in spec.applies.phases or model.attention.kind not in spec.applies.attention:
            continue
        for setting in spec.settings.values():
            for key, value in setting.layout.items():
                if key in OFFERED_KEYS and not setting.plain:
                    offered[key] = tuple(dict.fromkeys((*offered.get(key, (getattr(plain, key),)), value)))
    if not model.experts.n_shared_experts:
        offered.pop("shared_stream", None)
    return offered


#: keys of a layout that a search takes from what the stack has
OFFERED_KEYS = ("reduction", "shared_stream", "expert_tp")


def beyond_layout(wanted: Mapping[str, str]) -> dict[str, str]:
    """Return those of some settings that change more than a layout."""
    settings = {name: technique_named(name).setting(word) for name, word in wanted.items()}
    return {name: wanted[name] for name, setting in settings.items() if setting.service or setting.on_machine}


def on_machine_alone(wanted: Mapping[str, str]) -> dict[str, str]:
    """Return those of some settings that a machine holds and not a layout or the precisions."""
    return {name: word for name, word in wanted.items() if technique_named(name).setting(word).on_machine}


def changed_since(plan: PlanSpec) -> list[str]:
    """Return a remark for each data file that is not what it was when a plan was written."""
    remarks = []
    for name, digest in plan.files.items():
        path = Path(name) if name.startswith(("/", "./")) else _root() / name
        if not path.is_file():
            remarks.append(f"{name}: the plan was made from it, and it is not on file any more")
        elif sha256(path.read_bytes()).hexdigest() != digest:
            remarks.append(f"{name}: changed since the plan was written; numbers may differ from it")
    return remarks


def technique_named(name: str) -> Technique:
    """Return a technique with the origin of its numbers."""
    loaded = load_technique(name)
    return Technique(spec=loaded.spec, figures=loaded.figures)


def kernel_set(name: str) -> Known[KernelSetSpec]:
    """Return a kernel set with the origin of its numbers."""
    return _known(load_kernels(name))


def chips() -> list[Known[ChipSpec]]:
    """Return all chips on file."""
    return [_known(load_chip(name)) for name in names("chips")]


def read_plan(path: Path) -> PlanSpec:
    """Return the plan in a JSON file, or raise ``DataError`` with one line per fault.

    The file is YAML too, so that faults name their lines.
    """
    reader = _Reader(path, recorded=lambda _: False)
    data = reader.read()
    refuse_no_plan(path, data)
    try:
        spec = PlanSpec.model_validate(data)
    except ValidationError as error:
        for fault in error.errors():
            reader.fault_at(fault["loc"], _say(fault, PlanSpec))
        reader.finish()
        raise
    for place, kind in _REFERENCES["deployments"].items():
        reader.check_reference(place, kind, spec)
    for place, kind in _REFERENCES["runs"].items() if spec.run is not None else ():
        reader.check_reference(("run", *place), kind, spec)
    reader.finish()
    _check_agreement(reader, spec)
    reader.finish()
    return spec


def refuse_no_plan(path: Path, data: Mapping[str, Any] | None = None) -> None:
    """Raise ``DataError`` where a file holds a document of a command or a run-spec in place of a plan or a result."""
    data = _Reader(path, recorded=_nothing).read() if data is None else data
    form = data.get("schema")
    if isinstance(form, str) and form.startswith("moeplan."):
        found, write = f"a document of form {form}, as --format json prints it", "write one with moeplan solve ... -o"
    elif data.keys() & set(EITHER) and {"model", "on"} & data.keys():
        name = "" if path.suffix.lower() in (".yaml", ".yml") else f"name it {path.stem}.yaml, then "
        found, write = "a run-spec, what solve is asked", f"{name}write one with moeplan solve {path.stem}.yaml -o"
    else:
        return
    raise DataError(f"{path}:1: {found}; allowed: a plan file; {write} PLAN.json")


#: keys of a run-spec, their kind of file, and what the conditions of its plan call them
_AGREEING: dict[str, tuple[str | None, str]] = {
    "model": ("models", "model"),
    "on": ("systems", "system"),
    "stack": ("stacks", "stack"),
    "prefill_on": ("systems", "prefill_system"),
    "prefill_stack": ("stacks", "prefill_stack"),
    **{key: (None, key) for key in ("isl", "osl", "tpot")},
}


def _check_agreement(reader: "_Reader", plan: PlanSpec) -> None:
    """Note each key in which what was asked is not what the plan's conditions say."""
    if plan.run is None:
        return
    for key, (kind, name) in _AGREEING.items():
        asked, held = getattr(plan.run, key), getattr(plan.conditions, name)
        files = [word if kind is None or word is None else _load(kind, word).path for word in (asked, held)]
        if asked is not None and files[0] != files[1]:
            reader.fault(
                ("run", key), f"{asked!r}, but conditions.{name} is {held!r}; allowed: the same; change either"
            )
    if plan.asked is not None and plan.asked != plan.wanted:
        reader.fault(("asked",), "differs from what run says; allowed: the same; leave it out, run alone counts")


def page_files(language: str) -> dict[str, Any]:
    """Return what a page of HTML is made of: template, style, script, plotly.js and the words of a language.

    Raises ``UsageError`` where plotly is not installed.
    """
    folder = Path(__file__).resolve().parent.parent / "report" / "html"
    try:
        library = resources.files("plotly") / "package_data" / "plotly.min.js"
    except ModuleNotFoundError:
        raise UsageError("plotly is not installed; a page takes its plots from it; run: pip install plotly") from None
    return {
        "template": (folder / "page.html").read_text(encoding="utf-8"),
        "style": (folder / "page.css").read_text(encoding="utf-8"),
        "script": (folder / "page.js").read_text(encoding="utf-8"),
        "plotly": library.read_text(encoding="utf-8"),
        "words": yaml.load((folder / f"words.{language}.yaml").read_text(encoding="utf-8"), Loader=_Loader),
    }


def glossary(language: str) -> dict[str, Any]:
    """Return the texts of results in a language, by their English."""
    path = Path(__file__).resolve().parent.parent / "report" / "lang" / f"{language}.yaml"
    return cast("dict[str, Any]", yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader))


def refuse_taken(path: Path, *, force: bool) -> None:
    """Raise ``UsageError`` where a file would be replaced and ``force`` is not given."""
    if path.exists() and not force:
        raise UsageError(f"{path}: is there already; allowed: a new name; give another, or --force to replace it")


def write_page(path: Path, text: str, *, force: bool) -> None:
    """Write a page whole or not at all; raise ``UsageError`` where the path is taken or cannot be written."""
    refuse_taken(path, force=force)
    _write_whole(path, text)


def write_plan(path: Path, plan: PlanSpec) -> None:
    """Write a plan whole or not at all; raise ``UsageError`` where the path cannot be written."""
    _write_whole(path, plan.model_dump_json(indent=2, by_alias=True, exclude_none=True) + "\n")


def _write_whole(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}; check the path") from None
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def digests(model: str, machine: Machine, techniques: Iterable[str] = ()) -> dict[str, str]:
    """Return the SHA-256 of every data file that a prediction is made from.

    Files on file are named by their path below the data's root, files of the user's by their path as given.
    """
    loaded = [load_model(model), load_chip(machine.chip.word), load_system(machine.system.word)]
    loaded += [load_stack(machine.stack.word), load_terms(machine.terms.word)]
    loaded += [load_kernels(name) for name in dict.fromkeys(known.word for known in machine.kernels)]
    loaded += [load_technique(name) for name in techniques]
    return {_below_root(one.path): sha256(one.path.read_bytes()).hexdigest() for one in loaded}


def _below_root(path: Path) -> str:
    if path.is_relative_to(_root()):
        return str(path.relative_to(_root()))
    return str(path) if path.is_absolute() else f"./{path}"


def load_terms(name: str) -> Loaded:
    """Return the terms of service of that name; raises as ``load_chip`` does."""
    return _load("terms", name)


def load_model(name: str) -> Loaded:
    """Return a model."""
    return _load("models", name)


def load_evidence(name: str) -> Loaded:
    """Return a published result."""
    return _load("evidence", name)


def load_microbenchmark(name: str) -> Loaded:
    """Return a set of measurements of operators or links alone."""
    return _load("microbenchmarks", name)


def load_deployment(name: str) -> Loaded:
    """Return a published result of a whole deployment."""
    return _load("deployments", name)


def load_peer(name: str) -> Loaded:
    """Return another model's errors on published results."""
    return _load("peers", name)


def load_results(words: Sequence[str]) -> tuple[list[EvidenceSpec], list[DeploymentSpec]]:
    """Return published results by name or file, of pools and of deployments.

    A word that ends in .yaml or is a path that exists is read as a file, as whichever kind it has the fewest
    faults as.  Raises ``UsageError`` for a name not on file, ``DataError`` for a file with faults.
    """
    pools: list[EvidenceSpec] = []
    deployments: list[DeploymentSpec] = []
    known = dict.fromkeys(names("evidence"), "evidence") | dict.fromkeys(names("deployments"), "deployments")
    for word in words:
        if word.lower().endswith((".yaml", ".yml")) or (word.lower() not in known and Path(word).exists()):
            spec = _result_in(Path(word))
        elif word.lower() in known:
            spec = _load(known[word.lower()], word.lower()).spec
        else:
            raise UsageError(f"evidence: {word!r} is not on file{did_you_mean(word, sorted(known))}")
        if isinstance(spec, DeploymentSpec):
            deployments.append(spec)
        else:
            pools.append(spec)
    return pools, deployments


def _result_in(path: Path) -> Any:
    faults: list[DataError] = []
    for kind in ("evidence", "deployments"):
        try:
            return load_path(kind, path).spec
        except DataError as error:
            faults.append(error)
    raise min(faults, key=lambda error: len(str(error).splitlines()))


def load_machine(system: str, stack: str | None = None, kernels: Sequence[str] = ()) -> tuple[Machine, tuple[str, ...]]:
    """Return the specs of a system under a stack, by default its own, and remarks on what was taken.

    ``kernels`` are sets that come before those of the stack.
    """
    around = load_system(system)
    chip, software = load_chip(around.spec.chip), load_stack(stack or around.spec.default_stack)
    taken = Machine(
        chip=_known(chip),
        system=_known(around),
        stack=_known(software),
        terms=_known(load_terms(software.spec.terms)),
        kernels=tuple(_known(load_kernels(name)) for name in (*kernels, *software.spec.kernels)),
    )
    return taken, (*around.notes, *chip.notes, *software.notes)


def load_conditions(conditions: Service, stack: str | None = None, kernels: Sequence[str] = ()) -> Machine:
    """Return the machine of a run with its techniques set, with another stack or kernel sets where they are given."""
    machine, _ = load_machine(conditions.system, stack or conditions.stack, kernels or conditions.kernels)
    return set_techniques(machine, conditions.techniques)


def set_techniques(machine: Machine, wanted: Mapping[str, str]) -> Machine:
    """Return the machine with techniques set by name; raise ``UsageError`` where a name is not on file."""
    if not wanted:
        return machine
    return on_machine(machine, [(technique_named(name), setting) for name, setting in wanted.items()], kernel_set)


def read_measurements(path: Path, context: Context) -> tuple[list[Measurement], list[str]]:
    """Return the measured operators of a CSV table, and remarks on rows left out."""
    _LOG.debug("read %s", path)
    return readers.read(path, context)


def load_measurements(spec: MicrobenchmarkSpec, folder: Path | None) -> tuple[Machine, list[Measurement], list[str]]:
    """Return the machine that is to predict a microbenchmark, its rows, and remarks on rows left out."""
    machine, notes = load_machine(spec.system, spec.stack, spec.kernels)
    context = Context(
        attention=load_model(spec.model).spec.attention if spec.model else None,
        messages=spec.messages,
        only=spec.only,
        at_least=spec.at_least,
    )
    readers.check_context(context, spec.name)
    remarks = list(notes)
    if spec.rows:
        where = Path(f"{spec.name}: rows")  # faults count its lines from the columns
        return machine, readers.read_rows(where, spec.columns, spec.rows, context), remarks
    if folder is None:
        raise UsageError(f"{spec.name}: its tables are not part of this project; give --measurements FOLDER")
    rows: list[Measurement] = []
    for name in spec.files:
        if not (folder / name).exists():
            remarks.append(f"{spec.name}: left out {name}, which is not in {folder}")
            continue
        found, left_out = read_measurements(folder / name, context)
        rows += found
        remarks += left_out
    return machine, rows, remarks


def write(kind: str, path: Path, content: dict[str, Any]) -> None:
    """Write a data file whole, after reading it back as the catalogue would, or not at all.

    Raises ``UsageError`` where the path cannot be written, ``DataError`` where the content would be refused.
    """
    text = _yaml_text(content)
    with TemporaryDirectory() as folder:
        trial = Path(folder) / path.name
        trial.write_text(text, encoding="utf-8")
        load_path(kind, trial)
    _write_whole(path, text)


def is_run(path: Path) -> bool:
    """Return whether a file reads rather as a run-spec than as a model."""
    try:
        keys = _Reader(path, recorded=_nothing).read().keys()
    except DataError:
        return True
    return len(keys & RunSpec.model_fields.keys()) >= len(keys & ModelSpec.model_fields.keys())


def load_run(path: Path | None, given: Collection[str] = ()) -> RunSpec:
    """Return a run-spec from a file, or from stdin where there is none; keys ``given`` elsewhere may be missing.

    Raises ``DataError`` with one line per fault.
    """
    text = sys.stdin.buffer.read() if path is None else None
    return _run_of(_Reader(path or Path("stdin"), recorded=_nothing, text=text), given)


def _run_of(reader: "_Reader", given: Collection[str]) -> RunSpec:
    data = reader.read()
    have = {key for key, value in data.items() if value is not None} | set(given)
    for key in NEEDED:
        if key not in have:
            reader.fault((key,), f"is missing; required; add it{'' if key == 'model' else f', or give --{key}'}")
    if not have & set(EITHER):
        reader.fault((EITHER[0],), f"is missing, and so is {EITHER[1]}; required; add one, or give --{EITHER[0]}")
    named: dict[str, Any] = {
        k: v for k, v in data.items() if (k,) in _REFERENCES["runs"] and isinstance(v, (str, list))
    }
    named |= {k: tuple(map(str, v)) for k, v in named.items() if isinstance(v, list)}
    spec = RunSpec.model_construct(**named)  # so that names are looked up beside other faults
    try:
        spec = RunSpec.model_validate(data)
    except ValidationError as error:
        for fault in error.errors():
            reader.fault_at(fault["loc"], _say(fault, RunSpec))
    for where, kind in _REFERENCES["runs"].items():
        reader.check_reference(where, kind, spec)
    reader.finish()
    return spec


def check_run(text: str) -> RunSpec:
    """Return a run-spec from its text; raises as ``load_run`` does."""
    return _run_of(_Reader(Path("run-spec"), recorded=_nothing, text=text.encode()), ())


def write_run(path: Path, text: str, *, force: bool) -> None:
    """Write the text of a run-spec whole, after reading it as ``solve`` would, or not at all.

    Raises ``UsageError`` where the path is taken and ``force`` is not given, or cannot be written.
    """
    check_run(text)
    refuse_taken(path, force=force)
    _write_whole(path, text)


def _yaml_text(content: dict[str, Any]) -> str:
    """Return YAML as the files on file are laid out: one record a line."""
    lines = []
    for key, value in content.items():
        if not isinstance(value, dict):
            lines.append(f"{key}: {_flow(value)}")
            continue
        lines.append(f"{key}:")
        for name, inner in value.items():
            if name == "fit":
                lines += ["  fit:", *(f"    {k}: {_flow(v)}" for k, v in inner.items())]
            else:
                lines.append(f"  {name}: {_flow(inner)}")
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    return text.strip().removesuffix("...").strip()


def ideal(machine: Machine) -> Machine:
    """Return the same machine under the stack on file that has all efficiencies 1 and no fixed costs."""
    best = next(loaded for loaded in map(load_stack, names("stacks")) if loaded.spec.ideal)
    sets = tuple(_known(load_kernels(name)) for name in best.spec.kernels)
    return replace(machine, stack=_known(best), terms=_known(load_terms(best.spec.terms)), kernels=sets)


def _known(loaded: Loaded) -> Known[Any]:
    return Known(spec=loaded.spec, figures=loaded.figures, word=loaded.word)


@lru_cache(maxsize=256)
def _load(kind: str, name: str) -> Loaded:
    if name.endswith((".yaml", ".yml")) or "/" in name:
        return load_path(kind, Path(name))
    if Path(name).exists():
        raise UsageError(
            f"{kind.rstrip('s')}: {name!r} is no YAML file; allowed: a name on file, or a path ending in .yaml"
        )
    word = name.lower()
    folder = _root() / _FOLDERS[kind]
    if word in names(kind):
        return load_path(kind, folder / f"{word}.yaml")
    variants = []
    for known in names(kind):
        loaded = load_path(kind, folder / f"{known}.yaml")
        if word in getattr(loaded.spec, "aliases", ()):
            return loaded
        if getattr(loaded.spec, "family", None) == word:
            variants.append(loaded)
    if variants:
        return _default_variant(word, variants)
    raise UsageError(f"{kind.rstrip('s')}: {name!r} is not on file{did_you_mean(name, _all_words(kind))}")


def _all_words(kind: str) -> list[str]:
    words = list(names(kind))
    for known in names(kind):
        spec = load_path(kind, _root() / _FOLDERS[kind] / f"{known}.yaml").spec
        words += [*getattr(spec, "aliases", ()), *([spec.family] if getattr(spec, "family", None) else [])]
    return sorted(set(words))


def _default_variant(word: str, variants: list[Loaded]) -> Loaded:
    taken = next((v for v in variants if v.spec.family_default), variants[0])
    listed = ", ".join(v.spec.name for v in variants)
    note = f"{word} is ambiguous: {listed}; took {taken.spec.name}"
    return Loaded(taken.spec, taken.figures, (note,), taken.path)


@lru_cache(maxsize=256)
def load_path(kind: str, path: Path) -> Loaded:
    """Return the spec in a file, or raise ``DataError`` with one line per fault."""
    reader = _Reader(path, recorded=_RECORDED.get(kind, lambda _: True))
    data = reader.read()
    spec_type = _SPECS[kind]
    spec: Any = None
    try:
        spec = spec_type.model_validate(data)
    except ValidationError as error:
        for fault in error.errors():
            reader.fault_at(fault["loc"], _say(fault, spec_type))
    if spec is not None:
        reader.check_sources(spec.sources, cited=_cited(spec))
        for where, kind_named in _REFERENCES.get(kind, {}).items():
            reader.check_reference(where, kind_named, spec)
    reader.finish()
    if path.parent == _root() / _FOLDERS[kind] and spec.name != path.stem:
        raise DataError(f"{path}:1: name: {spec.name!r}; allowed: the file's name {path.stem!r}")
    return Loaded(spec, reader.figures_of(spec), (), path)


def _cited(spec: Any) -> set[str]:
    """Return the sources that a file of plain numbers cites by key."""
    one = getattr(spec, "source", None)
    several = (*getattr(spec, "acceptance", ()), *getattr(spec, "techniques", ()), *getattr(spec, "gains", ()))
    rule = getattr(getattr(spec, "applies", None), "source", None)
    words = getattr(spec, "named_by", None)
    return {key for key in (one, rule, words, *(table.source for table in several)) if key}


def _say(fault: Any, spec_type: type[Spec]) -> str:
    """Return a pydantic fault in our words: found; allowed; fix."""
    found = fault.get("input")
    match fault["type"]:
        case "missing":
            return "is missing; required; add it"
        case "extra_forbidden":
            word = str(fault["loc"][-1])
            return f"unknown key{did_you_mean(word, [key for key in _keys(spec_type) if key != word])}"
        case "greater_than" | "greater_than_equal" | "less_than_equal":
            return f"found {found!r}; {fault['msg'].replace('Input should be', 'allowed:')}"
        case "literal_error":
            return f"found {found!r}; allowed: {fault['ctx']['expected']}"
        case _:
            text = fault["msg"].removeprefix("Value error, ").replace("Input should be", "allowed:")
            return text if repr(found) in text else f"found {found!r}; {text}"


def _keys(spec_type: Any, seen: frozenset[str] = frozenset()) -> list[str]:
    keys: list[str] = []
    for name, info in spec_type.model_fields.items():
        keys.append(info.alias or name)
        for inner in (info.annotation, *get_args(info.annotation)):  # what may be left out is a union with None
            if isinstance(inner, type) and issubclass(inner, Spec):
                keys += _keys(inner)
    return keys


class _Reader:
    """One file: composes YAML nodes, unwraps figure records, gathers faults with their lines."""

    def __init__(self, path: Path, *, recorded: Callable[[tuple[Any, ...]], bool], text: bytes | None = None) -> None:
        self.path = path
        self.text = text
        self.recorded = recorded
        self.faults: list[tuple[int, str]] = []
        self.lines: dict[tuple[Any, ...], int] = {(): 1}
        self.records: dict[tuple[Any, ...], dict[str, Any]] = {}

    def read(self) -> dict[str, Any]:
        """Return the plain content of the file."""
        node = self._compose()
        data = self._plain(node, ())
        if not isinstance(data, dict):
            raise DataError(f"{self.path}:1: found {type(data).__name__}; allowed: a mapping of keys to values")
        return data

    def _compose(self) -> yaml.Node:
        _LOG.debug("read %s", self.path)
        try:
            text = (self.path.read_bytes() if self.text is None else self.text).decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path}:1: binary or not UTF-8 at byte {error.start}; allowed: UTF-8 YAML") from None
        except OSError as error:
            raise UsageError(f"{self.path}: cannot be read: {error.strerror}; check the path") from None
        try:
            for event in yaml.parse(text, Loader=_Loader):
                if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                    raise DataError(
                        f"{self.path}:{_line_of(event.start_mark)}: anchors and aliases; allowed: plain values"
                    )
            node = yaml.compose(text, Loader=_Loader)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark else 1
            raise DataError(f"{self.path}:{line}: not YAML: {getattr(error, 'problem', None) or error}") from None
        if node is None:
            raise DataError(f"{self.path}:1: the file is empty; allowed: one mapping; copy a neighbour to begin")
        return node

    def _plain(self, node: yaml.Node, path: tuple[Any, ...]) -> Any:
        self.lines[path] = _line_of(node.start_mark)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(child, (*path, i)) for i, child in enumerate(node.value)]
        value = yaml.SafeLoader("").construct_object(node)
        bare = isinstance(value, (int, float)) and not isinstance(value, bool)
        if bare and self.recorded(path) and (len(path) < 2 or path[-1] not in _FIGURE_KEYS | {0, 1}):
            self.fault(
                path, f"bare number {value}; allowed: a record with its source; write {{value: {value}, source: KEY}}"
            )
        return value

    def _mapping(self, node: yaml.MappingNode, path: tuple[Any, ...]) -> Any:
        result: dict[Any, Any] = {}
        for key_node, child in node.value:
            key = key_node.value
            line = _line_of(key_node.start_mark)
            if key == "<<":
                self.faults.append((line, "merge keys; allowed: plain keys"))
                continue
            if key in result:
                self.faults.append((line, f"{_dotted((*path, key))}: duplicate key; allowed: once; remove one"))
                continue
            result[key] = self._plain(child, (*path, key))
            self.lines[(*path, key)] = line
        if self.recorded(path) and "value" in result:
            return self._figure(result, path)
        return result

    def _figure(self, record: dict[str, Any], path: tuple[Any, ...]) -> Any:
        for key in record.keys() - _FIGURE_KEYS:
            self.fault((*path, key), f"unknown key{did_you_mean(str(key), sorted(_FIGURE_KEYS))}")
        if "source" not in record:
            self.fault(path, "the record has no source; allowed: a key of 'sources'; add source: KEY")
        if record.get("kind", "datasheet") not in _KINDS:
            self.fault((*path, "kind"), f"found {record['kind']!r}; allowed: {', '.join(_KINDS)}")
        self.records[path] = record
        return record["value"]

    def fault(self, path: tuple[Any, ...], text: str) -> None:
        """Note a fault at a path of the file."""
        self.faults.append((self._line(path), f"{_dotted(path)}: {text}"))

    def fault_at(self, location: tuple[Any, ...], text: str) -> None:
        """Note a fault that validation found; union tags are not keys of the file."""
        path = tuple(p for i, p in enumerate(location) if not (i and p in ("mla", "gqa")))
        if not any(path == known[0] for known in self._bare_paths()):
            self.faults.append((self._line(path), f"{_dotted(path)}: {text}"))

    def _bare_paths(self) -> list[tuple[tuple[Any, ...]]]:
        return [
            (tuple(int(p) if p.isdigit() else p for p in text.split(": bare number")[0].split(".")),)
            for _, text in self.faults
            if ": bare number" in text
        ]

    def _line(self, path: tuple[Any, ...]) -> int:
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]

    def check_sources(self, sources: dict[str, Any], cited: set[str]) -> None:
        """Refuse figures whose source is unknown, and sources that nothing cites."""
        used = set(cited)
        for unknown in sorted(cited - sources.keys()):
            self.fault(("source",), f"unknown source {unknown!r}{did_you_mean(unknown, sorted(sources))}")
        for path, record in self.records.items():
            key = record.get("source")
            used.add(str(key))
            if key is not None and key not in sources:
                self.fault((*path, "source"), f"unknown source {key!r}{did_you_mean(str(key), sorted(sources))}")
        if self.recorded(()) or self.records:
            for key in sources.keys() - used:
                self.fault(("sources", key), "no number cites it; allowed: cited sources; remove it")

    def check_reference(self, where: tuple[str, ...], kind: str, spec: Any) -> None:
        """Refuse a name of another file that is not on file."""
        word = spec
        for part in where:
            word = getattr(word, part)
        for one in word if isinstance(word, tuple) else (word,) if word is not None else ():
            try:
                _load(kind, one)
            except UsageError as error:
                self.fault(where, str(error))

    def finish(self) -> None:
        """Raise all faults at once."""
        if self.faults:
            raise DataError("\n".join(f"{self.path}:{line}: {text}" for line, text in sorted(set(self.faults))))

    def figures_of(self, spec: Any) -> dict[str, Figure]:
        """Return provenance by dotted path, with the validated SI value."""
        figures = {}
        for path, record in self.records.items():
            value: Any = spec
            for part in path:
                value = value[part] if isinstance(value, (dict, tuple)) else getattr(value, part)
            low, high = self._range(path, record, spec, float(value))
            figures[_dotted(path)] = Figure(
                value=float(value),
                text=str(record["value"]),
                source=record["source"],
                kind=record.get("kind", "datasheet"),
                note=record.get("note"),
                low=low,
                high=high,
                file=str(self.path),
                line=self._line(path),
            )
        self.finish()
        return figures

    def _range(
        self, path: tuple[Any, ...], record: dict[str, Any], spec: Any, value: float
    ) -> tuple[float | None, float | None]:
        if "range" not in record:
            return None, None
        ends = record["range"]
        unit = _unit_at(spec, path)
        try:
            low, high = (unit.read(end) for end in ends)
        except (TypeError, ValueError) as error:
            self.fault((*path, "range"), f"{error}; allowed: [low, high]")
            return None, None
        if not low <= value <= high:
            self.fault((*path, "range"), f"found {ends}; allowed: a range that holds the value {record['value']}")
        return low, high


def _unit_at(spec: Any, path: tuple[Any, ...]) -> Any:
    from perfmodel.units import Unit

    owner = spec
    for part in path[:-1]:
        owner = owner[part] if isinstance(owner, (dict, tuple)) else getattr(owner, part)
    if isinstance(owner, dict):  # dotted keys of a machine's file that a technique sets
        return _unit_in({"stack": StackSpec, "terms": TermsSpec}[path[-2]], str(path[-1]))
    metadata = type(owner).model_fields[path[-1]].metadata
    return next((item for item in metadata if isinstance(item, Unit)), Unit("1"))


def _unit_in(spec: Any, path: str) -> Any:
    from perfmodel.units import Unit

    head, _, rest = path.partition(".")
    info = spec.model_fields[head]
    if rest:
        return _unit_in(info.annotation, rest)
    found = [item for item in (*info.metadata, *_metadata_of(info.annotation)) if isinstance(item, Unit)]
    return found[0] if found else Unit("1")


def _metadata_of(annotation: Any) -> list[Any]:
    """Return what is said of the types of an annotation, those of ``X | None`` included."""
    inner = [item for part in get_args(annotation) for item in _metadata_of(part)]
    return [*getattr(annotation, "__metadata__", ()), *inner]


def _line_of(mark: Any) -> int:
    return int(mark.line) + 1 if mark else 1


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(str(part) for part in path) or "file"
