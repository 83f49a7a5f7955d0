"""Plans as files: read and checked, written, and held against the data files that they were made from."""

from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from perfmodel.errors import DataError
from perfmodel.files import magnitudes
from perfmodel.files.catalog import check_references, held_by_deployments, load, renamed
from perfmodel.files.document import content
from perfmodel.files.folders import file_name, from_folder_of, from_here, is_near, is_path, is_there, path_of
from perfmodel.files.reader import Reader, unsourced
from perfmodel.files.what import What, is_config
from perfmodel.files.writing import Target
from perfmodel.specs.plan import PlanSpec
from perfmodel.specs.run import EITHER


def changed_since(plan: PlanSpec) -> list[str]:
    """Return a remark for each data file that is not what it was when a plan was written."""
    remarks = []
    for name, digest in plan.files.items():
        path = path_of(name)
        if not path.is_file():
            remarks.append(f"{name}: the plan was made from it, and it is not on file any more")
        elif _digest(path) != digest:
            remarks.append(f"{name}: changed since the plan was written; numbers may differ from it")
    return remarks


def read_plan(path: Path) -> PlanSpec:
    """Return the plan in a JSON file, its files named from the current directory.

    Raises ``DataError`` with one line per fault.  The file is YAML too, so that faults name their lines.  Remarks on
    numbers far beyond those of deployments on file.
    """
    reader = Reader(path, recorded=unsourced)
    data = reader.read()
    refuse_no_plan(path, data)
    try:
        spec = PlanSpec.model_validate(data)
    except ValidationError as error:
        reader.refused(error, PlanSpec)
        reader.finish()
        raise
    spec = _renamed(spec, lambda name: _from_here(name, path))
    for name in spec.files:
        if not is_near(path_of(name), path):
            reader.fault(
                ("files",),
                f"{name!r}; allowed: files below the data's root and below --data, and files in the folder of the plan",
            )
    check_references(reader, "deployments", spec)
    if spec.run is not None:
        check_references(reader, "runs", spec, below=("run",))
    reader.finish()
    _check_agreement(reader, spec)
    reader.finish()
    held = held_by_deployments({"conditions.": "conditions.", "measured.": "predicted."})
    magnitudes.remark_on(reader, data, spec, held)
    return spec


def _renamed(plan: PlanSpec, change: Callable[[str], str]) -> PlanSpec:
    """Return a plan with every name of a user's file changed: in its conditions, its run-spec and its digests."""
    files = {
        file_name(Path(change(name))) if name.startswith(("/", "./")) else name: digest
        for name, digest in plan.files.items()
    }
    run = None if plan.run is None else renamed("runs", plan.run, change)
    changed: PlanSpec = renamed("deployments", plan, change).model_copy(update={"run": run, "files": files})
    return changed


def _from_here(name: str, plan: Path) -> str:
    """Return the path of a file that a plan names.

    Plans of older versions name files from the folder that solve ran in: what stands near the plan is found there too.
    """
    here = from_here(name, plan)
    older = is_path(name) and not is_there(Path(here)) and is_there(Path(name)) and is_near(Path(name), plan)
    return name if older else here


def refuse_no_plan(path: Path, data: Mapping[str, Any] | None = None) -> None:
    """Raise ``DataError`` where a file holds a document of a command or a run-spec in place of a plan or a result."""
    data = Reader(path, recorded=unsourced).read() if data is None else data
    form = data.get("schema")
    if isinstance(form, str) and form.startswith("moeplan."):
        found, write = f"a document of form {form}, as --format json prints it", "write one with moeplan solve ... -o"
    elif data.keys() & set(EITHER) and {"model", "on"} & data.keys():
        name = "" if path.suffix.lower() in (".yaml", ".yml") else f"name it {path.stem}.yaml, then "
        found, write = "a run-spec, what solve is asked", f"{name}write one with moeplan solve {path.stem}.yaml -o"
    elif is_config(data):
        found, write = f"{What.config}", f"write one with moeplan solve {path} --on SYSTEM ... -o"
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
    **{key: (None, key) for key in ("isl", "osl", "tpot", "site", "max_context")},
}


def _check_agreement(reader: Reader, plan: PlanSpec) -> None:
    """Note each key in which what was asked is not what the plan's conditions say."""
    if plan.run is None:
        return
    for key, (kind, name) in _AGREEING.items():
        asked, held = getattr(plan.run, key), getattr(plan.conditions, name)
        files = [word if kind is None or word is None else load(kind, word).file for word in (asked, held)]
        if asked is not None and files[0] != files[1]:
            reader.fault(
                ("run", key), f"{asked!r}, but conditions.{name} is {held!r}; allowed: the same; change either"
            )
    if (plan.run.set_ or {}) != plan.conditions.set:
        reader.fault(("run", "set"), "differs from conditions.set; allowed: the same; change either")
    if plan.asked is not None and plan.asked != plan.wanted:
        reader.fault(("asked",), "differs from what run says; allowed: the same; leave it out, run alone counts")


def write_plan(to: Target, plan: PlanSpec) -> None:
    """Write a plan whole or not at all, files that stand beside or below it named from its folder.

    Raises ``UsageError`` where the path cannot be written.
    """
    plan = _renamed(plan, lambda name: from_folder_of(name, to.path))
    to.write(plan.model_dump_json(indent=2, by_alias=True, exclude_none=True) + "\n")


def not_near(plan: PlanSpec, path: Path) -> str | None:
    """Return a remark where a plan at a path is refused when it is read: files of the user's stand elsewhere."""
    away = [Path(name) for name in plan.files if not is_near(path_of(name), path)]
    if not away:
        return None
    listed = ", ".join(map(str, away))
    them = "it" if len(away) == 1 else "them"
    return (
        f"{path}: names {listed}, neither in the folder of the plan nor below it: reading the plan back is refused; "
        f"write the plan beside {them}, or move {them} to {path.parent} and solve again"
    )


def digests(files: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of data files, which are named as a plan names them."""
    return {file: _digest(path_of(file)) for file in files}


def _digest(path: Path) -> str:
    return sha256(content(path)).hexdigest()
