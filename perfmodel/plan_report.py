"""Everything that the report of a plan shows, worked out once; drawing is left to ``perfmodel.report``."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np

from perfmodel.algebra import minimum
from perfmodel.breakdown import Breakdown, breakdown
from perfmodel.ledger.records import Layout
from perfmodel.machine import Machine
from perfmodel.placement import Die, placement
from perfmodel.rates import Rates
from perfmodel.scenario import Resolved, ledger_of
from perfmodel.sensitivity import Swing, swings
from perfmodel.serving import FirstToken, first_token
from perfmodel.solver.plan import FrontPoint
from perfmodel.solver.search import exact_pool
from perfmodel.specs.deployment import Phase
from perfmodel.specs.model import ModelSpec
from perfmodel.specs.plan import PlanSpec
from perfmodel.timeline import Timeline, timeline
from perfmodel.uncertainty import Interval, JoinedRange, PoolRange, joined_range, pool_range
from perfmodel.validation import Deployed, Published, Result, neighbours, place_of
from perfmodel.what_if import Change, Effect, Refusal, Run, effect, outcome, resolved_of

LAYER = "moe_layer"  # block that is shown over time
NEIGHBOURS = 5  # published rows beside each pool


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One limit, asked for or of the machine, beside what is predicted; SI units."""

    name: Literal["tpot", "ttft", "rate", "memory"]
    phase: Phase | None
    value: float
    limit: float | None
    unit: str
    interval: Interval | None
    #: probability that the limit is met, where it follows from the stated ranges
    chance: float | None

    @property
    def met(self) -> bool | None:
        """Whether the prediction is within the limit; none where there is none."""
        if self.limit is None:
            return None
        return self.value >= self.limit * (1 - 1e-9) if self.name == "rate" else self.value <= self.limit * (1 + 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolReport:
    """One pool: its instances, where the time of a step goes, how sure that is, what was published near it."""

    phase: Phase
    instances: int
    machine: Machine
    resolved: Resolved
    parts: Breakdown
    timeline: Timeline
    sure: PoolRange
    load: float
    near: tuple[tuple[Result, float], ...]

    @property
    def cards(self) -> float:
        """Packages of all instances."""
        return self.instances * self.resolved.plan.layout.dies / self.resolved.scenario.case.rates.dies_per_package


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


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """A plan with everything that its report shows."""

    plan: PlanSpec
    run: Run
    pools: Mapping[Phase, PoolReport]
    requests_per_s: float
    first: FirstToken
    joined: JoinedRange
    targets: tuple[Target, ...]
    #: probability that every limit on TPOT, TTFT and rate is met at once; none where there is no limit
    chance: float | None
    dies: tuple[Die, ...]
    servers: int
    felt: tuple[Swing, ...]
    #: what changes are worth at the same targets, the largest gain first
    effects: tuple[Effect, ...]
    refused: tuple[Refusal, ...]
    deployed: tuple[Deployed, ...]
    front: tuple[FrontPoint, ...]
    inputs: tuple[Input, ...]

    @property
    def cards(self) -> float:
        """Packages of both pools."""
        return sum(pool.cards for pool in self.pools.values())

    @property
    def tokens_per_s(self) -> float:
        """Output tokens per second, sustained."""
        return self.requests_per_s * float(self.plan.conditions.osl)

    @property
    def tokens_per_s_per_card(self) -> float:
        """Output tokens per second and package of both pools, sustained."""
        return self.tokens_per_s / self.cards


def _f(value: Any) -> float:
    return float(value)


def plan_report(
    plan: PlanSpec,
    run: Run,
    ideal: Mapping[Phase, Rates],
    *,
    changes: Sequence[Change],
    refused: Sequence[Refusal],
    published: Sequence[Published],
    deployed: Sequence[Deployed],
    front: Sequence[FrontPoint] = (),
) -> PlanReport:
    """Return the report of a plan whose pools are set up as ``run``.

    ``ideal`` are the rates of each pool with all efficiencies 1, ``changes`` what is tried on the plan.  Raises
    ``UsageError`` where a layout cannot be.
    """
    resolved = {phase: resolved_of(pool, run.model) for phase, pool in run.pools.items()}
    instances: dict[Phase, int] = {
        "prefill": plan.conditions.prefill.instances,
        "decode": plan.conditions.decode.instances,
    }
    full = {phase: instances[phase] * _f(one.point.requests_per_s) for phase, one in resolved.items()}
    asked = plan.wanted.requests_per_s
    served = min([run.utilisation * rate for rate in full.values()] + ([] if asked is None else [asked]))
    pools = {
        phase: _pool(run, phase, one, ideal[phase], instances[phase], served / full[phase], published)
        for phase, one in resolved.items()
    }
    first = first_token(
        prefill=resolved["prefill"].point,
        layout=Layout.of(resolved["prefill"].plan.layout),
        case=resolved["prefill"].scenario.case,
        utilisation=run.utilisation,
        decode_step=resolved["decode"].point.step_time,
    )
    joined = joined_range(
        prefill=pools["prefill"].sure,
        decode=pools["decode"].sure,
        first=first,
        prefill_rate=run.utilisation * full["prefill"],
        decode_rate=run.utilisation * full["decode"],
        asked=asked,
    )
    targets, chance = _targets(plan, run, pools, served, first, joined)
    before = outcome(run, ttft=run.ttft)
    tried = [] if before is None else [effect(run, before, change) for change in changes]
    layouts = {phase: (one.plan.layout, instances[phase]) for phase, one in resolved.items()}
    dies, servers = placement(layouts, run.model, resolved["decode"].scenario.case.rates)
    return PlanReport(
        plan=plan,
        run=run,
        pools=pools,
        requests_per_s=served,
        first=first,
        joined=joined,
        targets=targets,
        chance=chance,
        dies=dies,
        servers=servers,
        felt=tuple(swings(run.pools["decode"].machine, lambda rates: _outputs(resolved, rates, run, instances))),
        effects=tuple(sorted((one for one in tried if isinstance(one, Effect)), key=lambda one: -one.gain)),
        refused=(*refused, *(one for one in tried if isinstance(one, Refusal))),
        deployed=tuple(deployed),
        front=tuple(front),
        inputs=tuple(_inputs(plan, run)),
    )


def _pool(
    run: Run, phase: Phase, one: Resolved, ideal: Rates, instances: int, load: float, published: Sequence[Published]
) -> PoolReport:
    machine, case, layout = run.pools[phase].machine, one.scenario.case, one.plan.layout
    ledger = ledger_of(one.plan, case, case.traffic)
    parts = breakdown(ledger, one.plan.family, layout.attention_cores, case.rates, ideal)
    at = place_of(run.pools[phase].conditions, machine, one)
    return PoolReport(
        phase=phase,
        instances=instances,
        machine=machine,
        resolved=one,
        parts=parts,
        timeline=timeline(ledger, one.plan.family, parts, LAYER),
        sure=pool_range(machine, layout, one.plan.family, case),
        load=load,
        near=tuple(neighbours(at, published, NEIGHBOURS)),
    )


def _targets(
    plan: PlanSpec,
    run: Run,
    pools: Mapping[Phase, PoolReport],
    served: float,
    first: FirstToken,
    joined: JoinedRange,
) -> tuple[tuple[Target, ...], float | None]:
    """Return the limits beside their predictions, and the probability that all of them are met at once."""
    decode = pools["decode"]
    tpots = decode.sure.steps / _f(decode.resolved.point.tokens_per_step)
    asked = plan.wanted.requests_per_s
    kept = {
        "tpot": None if run.tpot is None else tpots <= run.tpot,
        "ttft": None if run.ttft is None else joined.ttfts <= run.ttft,
        "rate": None if asked is None else joined.rates >= asked * (1 - 1e-9),
    }
    chances = {name: None if met is None else float(np.mean(met)) for name, met in kept.items()}
    limited = [met for met in kept.values() if met is not None]
    found = [
        Target(
            name="tpot",
            phase=None,
            value=_f(decode.resolved.point.tpot),
            limit=run.tpot,
            unit="s",
            interval=decode.sure.tpot,
            chance=chances["tpot"],
        ),
        Target(
            name="ttft",
            phase=None,
            value=_f(first.ttft),
            limit=run.ttft,
            unit="s",
            interval=joined.ttft,
            chance=chances["ttft"],
        ),
        Target(
            name="rate",
            phase=None,
            value=served,
            limit=asked,
            unit="1/s",
            interval=joined.requests_per_s,
            chance=chances["rate"],
        ),
    ]
    for phase, pool in pools.items():
        point = pool.resolved.point
        found.append(
            Target(
                name="memory",
                phase=phase,
                value=_f(point.memory),
                limit=_f(point.usable),
                unit="B",
                interval=None,
                chance=None,
            )
        )
    return tuple(found), float(np.mean(np.logical_and.reduce(limited))) if limited else None


def _outputs(
    resolved: Mapping[Phase, Resolved], rates: Rates, run: Run, instances: Mapping[Phase, int]
) -> dict[str, Any]:
    """Return what assumed inputs may move: TPOT, TTFT, and requests per second of both pools together."""
    points, cases = {}, {}
    for phase, one in resolved.items():
        cases[phase] = replace(one.scenario.case, rates=rates)
        points[phase] = exact_pool(one.plan.layout, one.plan.family, cases[phase]).point
    first = first_token(
        prefill=points["prefill"],
        layout=Layout.of(resolved["prefill"].plan.layout),
        case=cases["prefill"],
        utilisation=run.utilisation,
        decode_step=points["decode"].step_time,
    )
    full = [instances[phase] * cast(Any, point.requests_per_s) for phase, point in points.items()]
    return {"TPOT": points["decode"].tpot, "TTFT": first.ttft, "rate": minimum(*full)}


# --- inputs ----------------------------------------------------------------------------------------


def _inputs(plan: PlanSpec, run: Run) -> Iterator[Input]:
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
    seen: set[str] = set()
    for pool in run.pools.values():
        used: dict[str, set[str]] = {}
        for name, known in pool.machine.kernels_of().items():
            used.setdefault(known.spec.name, set()).add(name)
        for part in pool.machine.parts:
            name = part.spec.name
            if name in seen or (part in pool.machine.kernels and name not in used):
                continue
            seen.add(name)
            for path, figure in part.figures.items():
                if name in used and path.split(".")[0] not in used[name]:
                    continue
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
    source = next(iter(model.sources.values()))
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
