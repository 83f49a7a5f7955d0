"""What has a plan where the question asked has none: the nearest questions, found by search, the cheapest first."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from perfmodel.algebra import as_float
from perfmodel.errors import MoeplanError
from perfmodel.planning.request import PlanRequest, most_servers, request_of
from perfmodel.planning.sets import sets_of
from perfmodel.prediction.deployment import Deployment
from perfmodel.solver.both_pools import Kept
from perfmodel.solver.request import SearchRequest
from perfmodel.solver.solution import Solution
from perfmodel.solver.solve import best_alone
from perfmodel.solver.space import AXES, STRUCTURES
from perfmodel.specs.precision import CACHES
from perfmodel.specs.run import PERCENTILES, WAITS, RunSpec

ENOUGH = 3  # ways that are told
MOST_PAIRS = 16  # pairs of changes that are tried where none alone is enough
#: a limit, or a length, over what was asked for: the loosest first, then halving what lies between
LOOSER = (1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
SHORTER = (0.75, 0.5, 0.25)
#: servers of a larger budget at most, over those asked for; and at least so many
MORE_SERVERS, AT_LEAST_SERVERS = 4, 16
SOME_RATE = 1e-6  # requests a second that any deployment serves: for it the fewest servers are those that hold it
#: keys that do not move instances
BUDGET = {"cards", "prefill_cards", "rate", "objective"}
#: constraints of a search by the phase that they are of
OF_PHASE = {"prefill memory": "prefill", "ttft": "prefill", "memory": "decode", "tpot": "decode"}
#: constraints, the last that is checked first: what one refuses has met those after it
BINDING = ("rate", "cards", "ttft", "tpot", "prefill memory", "memory")

#: a run-spec that may have a plan, and its best deployment where it has
Try = Callable[[RunSpec], Deployment | None]
#: one kind of change: the ways of it that have a plan
Step = Callable[[PlanRequest, Try, list[str]], Iterator["Way"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A question near the one asked that has a plan: what changes in words, all of it, and the best plan."""

    changes: tuple[str, ...]
    run: RunSpec
    best: Deployment
    #: deployments of that kind that serve what was asked for together
    times: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearest:
    """The nearest ways, the cheapest first; and all that was tried, in words."""

    ways: tuple[Way, ...]
    tried: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Change:
    """Keys of a run-spec set otherwise."""

    words: str
    keys: Mapping[str, Any] = field(repr=False)

    def excludes(self, other: "_Change") -> bool:
        """Return whether two set one key."""
        return bool(self.keys.keys() & other.keys)

    def of(self, run: RunSpec) -> RunSpec:
        """Return a run-spec with it."""
        return run.model_copy(update=dict(self.keys))


def nearest(request: PlanRequest, solution: Solution, kept: Kept, confirmed: Try | None = None) -> Nearest:
    """Return the first few questions near one without a plan that have one.

    In the order of what they cost: another way of serving, a narrower cache, a setting of software, more servers,
    several systems, a looser limit, a lower rate, fewer tokens; where none alone is enough, two at once.  Of each kind
    the least that works is told, to a step of a ladder; batches are looked at in steps at first, so that what only one
    between them reaches is not found.  ``kept`` are the instances of the search that found none;
    ``confirmed`` looks at a question once more where a search alone does not say that it has an answer.
    """
    tried: list[str] = []
    ways: list[Way] = []

    def search(run: RunSpec, full: bool = False) -> Deployment | None:
        changed = {key for key in RunSpec.model_fields if getattr(run, key) != getattr(request.run, key)}
        same = changed <= BUDGET  # the instances are those of the search that found nothing
        if (asked := _asked(run)) is None:
            return None
        searched = asked.search if same or full else _coarse(asked.search)
        try:
            best = best_alone(asked.case, searched, asked.cases["prefill"], kept if same else None)
            return best if best is None or confirmed is None else confirmed(run)
        except MoeplanError:  # what is fixed allows no layout; no plan is sure enough
            return None

    families = (
        *_ways_to_serve(request),
        *_caches(request),
        *_software(request, solution),
    )
    done: set[str] = set()
    for kind, change in families:
        if kind in done or len(ways) >= ENOUGH:
            continue
        if _asked(change.of(request.run)) is None:
            continue
        tried.append(change.words)
        if (best := search(change.of(request.run))) is not None:
            ways.append(Way(changes=(change.words,), run=change.of(request.run), best=best))
            done.add(kind)
    for step in _steps(request, solution, kept):
        if len(ways) >= ENOUGH:
            break
        ways += step(request, search, tried)
    if not ways:
        ways += _pairs(request, [change for _, change in families], search, tried)
    full = [replace(way, best=search(way.run, full=True) or way.best) for way in ways[:ENOUGH]]
    return Nearest(ways=tuple(full), tried=tuple(tried))


def _asked(run: RunSpec) -> PlanRequest | None:
    """Return what a run-spec asks; None where it cannot be: the stack lacks it, the die has no unit for it."""
    try:
        return request_of(run)
    except MoeplanError:
        return None


def _coarse(search: SearchRequest) -> SearchRequest:
    return replace(search, choices=replace(search.choices, coarse=True))


def _closest(solution: Solution, constraint: str) -> float | None:
    """Return how near the nearest plan came to a limit; None where none was refused by it, or nothing is known."""
    found = (one.closest for one in solution.rejections if one.constraint == constraint)
    return next((one for one in found if math.isfinite(one)), None)


def _steps(request: PlanRequest, solution: Solution, kept: Kept) -> Iterator[Step]:
    """Yield what is tried one after the other, the cheapest for the asker first.

    A rate that a whole system does not serve is served by several: nothing else is worth a search of all of one.
    """
    search = request.search
    near = {wait: _closest(solution, wait) for wait in WAITS}
    if search.largest[1] is not None and _closest(solution, "rate") is not None:
        yield partial(_several_systems, kept)
        yield partial(_lower_rate, kept)
        return
    yield partial(_more_servers, kept)
    yield partial(_looser, "tpot", near["tpot"])
    yield partial(_looser, "ttft", near["ttft"])
    yield partial(_lower_rate, kept)
    yield partial(_fewer, "osl")
    yield partial(_fewer, "isl")


def _ways_to_serve(request: PlanRequest) -> Iterator[tuple[str, _Change]]:
    run = request.run
    if run.serving == "any" or run.prefill_on is not None:
        return
    other = "mixed" if run.serving == "disaggregated" else "disaggregated"
    words = {"mixed": "prefill and decode mixed on the same dies", "disaggregated": "pools apart"}[other]
    yield "serving", _Change(words=words, keys={"serving": other})


def _caches(request: PlanRequest) -> Iterator[tuple[str, _Change]]:
    """Yield caches of fewer bytes than every one that was searched."""
    widths = {name: form.bytes for name, form in CACHES.items()}
    narrowest = min(widths[name] for name in request.search.choices.kv_dtypes)
    for name in sorted(widths, key=lambda one: -widths[one]):
        if widths[name] < narrowest:
            yield "cache", _Change(words=f"a cache in {name}", keys={"kv": name})


def _software(request: PlanRequest, solution: Solution) -> Iterator[tuple[str, _Change]]:
    """Yield settings of techniques that a search leaves alone and that act on the pool whose limit binds.

    None where the rate does: servers are what it asks for.
    """
    binding = next((name for name in BINDING if _closest(solution, name) is not None), None)
    binds = set(OF_PHASE.values()) if binding is None else {OF_PHASE.get(binding, "none")}
    for name, technique in request.techniques.items():
        spec = technique.spec
        if name in request.settings or spec.traffic or not binds & {*spec.applies.phases}:
            continue
        for word, setting in list(spec.settings.items())[1:]:
            searched = setting.layout.keys() <= {*AXES, *STRUCTURES}
            if (
                setting.bound
                or setting.on_machine
                or (searched and not setting.service)
                or "kv_dtype" in setting.service
            ):
                continue
            given = (*(request.run.with_ or ()), f"{name}={word}")
            yield name, _Change(words=f"{name}={word}", keys={"with_": given})


def _more_servers(kept: Kept, request: PlanRequest, search: Try, tried: list[str]) -> Iterator[Way]:
    """Yield the fewest servers with a plan, where a budget was given."""
    run, asked = request.run, request.search
    if run.cards is None and run.prefill_cards is None:
        return
    each = {phase: case.rates for phase, case in request.cases.items()}

    def most(servers: int | None, phase: Any) -> int | None:
        largest = most_servers(each[phase])
        return None if servers is None else min(largest, max(MORE_SERVERS * servers, AT_LEAST_SERVERS))

    wider = replace(
        asked,
        rate=asked.rate or SOME_RATE,
        objective="cards",
        largest=(most(asked.prefill_servers, "prefill"), most(asked.servers, "decode")),
    )
    tried.append(f"up to {wider.largest[1]} servers")
    if best_alone(request.case, _coarse(wider), request.cases["prefill"]) is None:
        return
    best = best_alone(request.case, wider, request.cases["prefill"], kept)
    if best is None:
        return
    cards = {phase: servers * each[phase].packages_per_server for phase, servers in best.servers.items()}
    if asked.prefill_servers is None:
        keys: dict[str, Any] = {"cards": int(sum(cards.values()))}
        words = f"{int(sum(best.servers.values()))} servers in place of {asked.servers}"
    else:
        keys = {"cards": max(int(cards["decode"]), run.cards or 0)}
        keys["prefill_cards"] = max(int(cards["prefill"]), run.prefill_cards or 0)
        words = f"{keys['cards']} cards of decode and {keys['prefill_cards']} of prefill"
    yield from _confirmed(_Change(words=words, keys=keys), run, search)


def _confirmed(change: _Change, run: RunSpec, search: Try, times: int = 1) -> Iterator[Way]:
    if (best := search(change.of(run))) is not None:
        yield Way(changes=(change.words,), run=change.of(run), best=best, times=times)


def _several_systems(kept: Kept, request: PlanRequest, search: Try, tried: list[str]) -> Iterator[Way]:
    """Yield as many whole systems as serve a rate, each an equal part of it, where one does not and no budget binds."""
    run, asked = request.run, request.search
    if asked.rate is None or asked.largest[1] is None:
        return
    tried.append("several systems")
    full = replace(asked, rate=None, objective="throughput", largest=(None, None))
    best = best_alone(request.case, full, request.cases["prefill"], kept)
    if best is None:
        return
    times = math.ceil(asked.rate / best.requests_per_s * (1 - 1e-9))
    each = asked.rate / times
    words = f"{times} systems, each with a plan for 1/{times} of the rate"
    yield from _confirmed(_Change(words=words, keys={"rate": each}), run, search, times)


def _lower_rate(kept: Kept, request: PlanRequest, search: Try, tried: list[str]) -> Iterator[Way]:
    """Yield the highest rate that the budget serves."""
    run, asked = request.run, request.search
    if asked.rate is None:
        return
    tried.append("a lower rate")
    full = replace(asked, rate=None, objective="throughput", largest=(None, None))
    best = best_alone(request.case, full, request.cases["prefill"], kept)
    if best is None or best.requests_per_s >= asked.rate:
        return
    rate = _down(best.requests_per_s * (1 - 1e-9))
    yield from _confirmed(_Change(words=f"{rate:g} req/s in place of {asked.rate:g}", keys={"rate": rate}), run, search)


def _down(value: float) -> float:
    """Return a number of three digits not above another."""
    scale = 10.0 ** (math.floor(math.log10(value)) - 2)
    return float(f"{math.floor(value / scale) * scale:.3g}")


def _up(value: float) -> float:
    """Return a number of two digits not below another.

    >>> _up(0.0521), _up(2.0)
    (0.053, 2.0)
    """
    scale = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / scale * (1 - 1e-12)) * scale:.2g}")


def _looser(
    wait: str,
    near: float | None,
    request: PlanRequest,
    search: Try,
    tried: list[str],
) -> Iterator[Way]:
    """Yield the least of a ladder of looser limits on a wait that has a plan; the nearest that a plan came first."""
    run = request.run
    limits = {key: getattr(run, key) for key in (wait, *(f"{wait}_{word}" for word in PERCENTILES))}
    given = {key: limit for key, limit in limits.items() if limit is not None}
    if not given:
        return
    tightest = min(given.values())

    def change(factor: float) -> _Change:
        limit = _up(tightest * factor)
        words = f"a {wait.upper()} of {_time(limit)} in place of {_time(tightest)}"
        return _Change(words=words, keys={key: max(limit, one) for key, one in given.items()})

    factors = sorted({*LOOSER, *(() if near is None or near <= tightest else (near / tightest,))})
    first = None if near is None or near <= tightest else change(near / tightest)
    yield from _least([change(factor) for factor in factors], run, search, tried, first)


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:g} ms" if seconds < 1 else f"{seconds:g} s"


def _fewer(
    key: str,
    request: PlanRequest,
    search: Try,
    tried: list[str],
) -> Iterator[Way]:
    """Yield the most tokens of a ladder that have a plan."""
    run, tokens = request.run, getattr(request.run, key)
    if tokens is None:
        return
    name = {"isl": "input", "osl": "output"}[key]
    counts = [max(1, int(tokens * share)) for share in SHORTER]
    ladder = [
        _Change(words=f"{count} {name} tokens in place of {tokens}", keys={key: count})
        for count in dict.fromkeys(counts)
    ]
    yield from _least(ladder, run, search, tried)


def _least(
    ladder: list[_Change], run: RunSpec, search: Try, tried: list[str], first: _Change | None = None
) -> Iterator[Way]:
    """Yield the first change of a ladder that has a plan, halving what lies between: later ones have one where it has.

    Only changes that a search found a plan for are told, so where that does not hold a later one is.
    """
    if first is not None and (near := search(first.of(run))) is not None:
        yield Way(changes=(first.words,), run=first.of(run), best=near)
        return
    tried.append(f"{ladder[-1].words} and less")
    best = search(ladder[-1].of(run))
    if best is None:
        return
    low, high = -1, len(ladder) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if (found := search(ladder[middle].of(run))) is None:
            low = middle
        else:
            high, best = middle, found
    yield Way(changes=(ladder[high].words,), run=ladder[high].of(run), best=best)


def _pairs(request: PlanRequest, changes: Iterable[_Change], search: Try, tried: list[str]) -> Iterator[Way]:
    """Yield pairs of changes that have a plan, where no single one has."""
    run, each = request.run, request.case.rates.packages_per_server
    wide: list[_Change] = []
    if run.cards is not None:
        servers = min(most_servers(request.case.rates), max(MORE_SERVERS * request.search.servers, AT_LEAST_SERVERS))
        wide.append(_Change(words=f"{servers} servers", keys={"cards": int(servers * each)}))
    for wait in ("tpot", "ttft"):
        keys = [key for key in (wait, *(f"{wait}_{word}" for word in PERCENTILES)) if getattr(run, key) is not None]
        if keys:
            limits = {key: _up(getattr(run, key) * LOOSER[-1]) for key in keys}
            wide.append(_Change(words=f"a {wait.upper()} of {_time(min(limits.values()))}", keys=limits))
    for key, name in (("osl", "output"), ("isl", "input")):
        if (tokens := getattr(run, key)) is not None:
            count = max(1, int(tokens * SHORTER[-1]))
            wide.append(_Change(words=f"{count} {name} tokens", keys={key: count}))
    found = 0
    for number, pair in enumerate(sorted(sets_of([*changes, *wide][::-1], 2, _Change.excludes), key=_limits_last)):
        if number >= MOST_PAIRS or found:
            return
        words = tuple(change.words for change in pair)
        tried.append(" and ".join(words))
        both = pair[1].of(pair[0].of(run))
        if (best := search(both)) is not None:
            found += 1
            yield Way(changes=words, run=both, best=best)


def _limits_last(pair: Sequence["_Change"]) -> int:
    """Return the order of pairs: two limits first, one of them next, as they cost no machine and no token."""
    return -sum(all(key.partition("_")[0] in WAITS for key in change.keys) for change in pair)


def cards_of(way: Way, request: PlanRequest) -> int:
    """Return the cards of all deployments of a way."""
    return way.times * int(
        sum(
            as_float(servers * request.cases[phase].rates.packages_per_server)
            for phase, servers in way.best.servers.items()
        )
    )
