"""Every value that a plan was made from, and where it comes from."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from perfmodel.planning.pools import Run
from perfmodel.specs.base import Source
from perfmodel.specs.model import ModelSpec
from perfmodel.specs.plan import PlanSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One value that the plan was made from, as its file writes it, and where it comes from."""

    group: str
    name: str
    text: str
    span: str
    kind: str
    source: str
    url: str | None
    note: str


def inputs_of(plan: PlanSpec, run: Run) -> Iterator[Input]:
    """Yield what was asked and chosen, the model, and every number of the machine that takes part."""
    conditions = plan.conditions.model_dump(exclude={"prefill", "decode"})
    for key, value in {**plan.wanted.model_dump(), **conditions}.items():
        if value is not None and value not in ((), {}, []):
            yield _plain("the request", key, value, "asked")
    for phase, given in (("prefill", plan.conditions.prefill), ("decode", plan.conditions.decode)):
        for key, value in {"instances": given.instances, **given.layout.model_dump()}.items():
            yield _plain(f"layout of {phase}", key, value, "chosen")
    for phase, settings in plan.techniques.items():
        for key, value in settings.items():
            yield _plain(f"techniques of {phase}", key, value, "chosen")
    yield from _of_model(run.model)
    seen: set[tuple[str, str]] = set()
    for pool in run.pools.values():
        used: dict[str, set[str]] = {}
        for name, known in pool.machine.kernels_of().items():
            used.setdefault(known.spec.name, set()).add(name)
        for part in pool.machine.parts:
            name = part.spec.name
            if part in pool.machine.kernels and name not in used:
                continue
            for path, figure in part.figures.items():
                if (name, path) in seen or (name in used and path.split(".")[0] not in used[name]):
                    continue
                seen.add((name, path))
                source = part.spec.sources.get(figure.source)
                yield Input(
                    group=part.spec.title,
                    name=path,
                    text=figure.text,
                    span="" if figure.low is None else f"{figure.low:.4g} – {figure.high:.4g}",
                    kind=figure.kind,
                    source=_cited(source) if source else figure.source,
                    url=_link(source),
                    note=figure.note or "",
                )


#: units of what was asked, which plans state in SI
ASKED_UNITS = {"tpot": "s", "ttft": "s", "requests_per_s": "1/s", "isl": "tokens", "osl": "tokens"}


def _plain(group: str, key: str, value: Any, kind: str) -> Input:
    if isinstance(value, bool):
        value = "yes" if value else "no"
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    text = f"{text} {ASKED_UNITS[key]}" if key in ASKED_UNITS else text
    return Input(group=group, name=key, text=text, span="", kind=kind, source="", url=None, note="")


def _of_model(model: ModelSpec) -> Iterator[Input]:
    source = next(iter(model.sources.values()), Source(title="the model's own file"))
    for key, value in _flat(model.model_dump(exclude={"name", "title", "aliases", "sources", "checks", "acceptance"})):
        plain = _plain(model.title, key, value, "datasheet")
        yield replace(plain, source=_cited(source), url=_link(source))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value


def _cited(source: Any) -> str:
    return f"{source.title}, {source.where}" if source.where else str(source.title)


def _link(source: Any) -> str | None:
    """Return the address of a source where a browser may follow it."""
    url = source.url if source else None
    return url if url and url.startswith(("https://", "http://")) else None


def kinds(inputs: Iterable[Input]) -> dict[str, int]:
    """Return how many inputs there are of each kind."""
    found: dict[str, int] = {}
    for one in inputs:
        found[one.kind] = found.get(one.kind, 0) + 1
    return found
